# Months of the audit log: kept as long as finance.audit_retention says, exported,
# detached; what remains verifies, as do proofs that somebody kept of what is gone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use FinanceVerify;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $missing = verify_missing();
make_verify() unless defined $missing;

my $node = book_node('main', "finance.seal_interval = 3600000\nautovacuum = off\n");

sub ask
{
	return $node->safe_psql('postgres', join(';', @_));
}

sub refusal
{
	my ($query) = @_;
	my (undef, undef, $error) = $node->psql('postgres', $query, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $error;
}

sub retention
{
	my ($days) = @_;

	ask("ALTER SYSTEM SET finance.audit_retention = $days", 'SELECT pg_reload_conf()');
	poll_ok($node, "SELECT current_setting('finance.audit_retention') = '$days'", "keep for $days days");
}

# a file of what a query returns
sub file
{
	my ($name, $query) = @_;
	return write_file($name, ask($query) . "\n");
}

# ------------------------------------------------------------------------
# three months of long ago, and this one
# ------------------------------------------------------------------------

# Ids follow the wall clock, so what was written just now and is not sealed yet
# is moved into a month of long ago.
sub work_at
{
	my ($clock, @statements) = @_;
	my $sealed = q{coalesce((SELECT max(last_xid::text::bigint) FROM finance.audit_block), 0)};
	my $shift = "(finance.id_floor(now()) - finance.id_floor('$clock'))";

	ask(@statements);
	ask('BEGIN', leaf_functions() =~ s/;\s*\z//r,
		"UPDATE finance.audit_record SET id = id - $shift, trace_until = trace_until - $shift WHERE xid::text::bigint > $sealed",
		"UPDATE finance.audit_record r SET leaf_hash = sha256('\\x00' || pg_temp.leaf(r)) WHERE xid::text::bigint > $sealed",
		'COMMIT', 'SELECT finance.seal_audit()');
}

sub make_month
{
	my ($month) = @_;
	my $name = "audit_record_2020_0$month";

	ask("CREATE TABLE finance.$name (LIKE finance.audit_record INCLUDING ALL)", "CREATE INDEX ${name}_order ON finance.$name (xid, sequence)",
		"CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.$name FOR EACH STATEMENT EXECUTE FUNCTION finance._audit_guard()",
		"ALTER TABLE finance.$name OWNER TO postgres",
		"ALTER TABLE finance.audit_record ATTACH PARTITION finance.$name FOR VALUES FROM (" . ask("SELECT finance.id_floor('2020-0$month-01 00:00+00')")
		. ') TO (' . ask("SELECT finance.id_floor('2020-0" . ($month + 1) . "-01 00:00+00')") . ')');
}

my $open_guards = q{DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT relid FROM pg_partition_tree('finance.audit_record') LOOP
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER guard', p); END LOOP; END $$};
my @work = ("SELECT finance.transfer(CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END, CASE WHEN n % 2 = 0 THEN 'b' ELSE 'a' END, n) FROM generate_series(1, 300) n",
	'INSERT INTO item SELECT FROM generate_series(1, 50)');

ask("SELECT finance.create_account(c, 'EUR', min_available => NULL) FROM unnest('{a,b,early}'::text[]) c",
	"SELECT finance.transfer('early', 'a', 1)", 'CREATE TABLE item ()', "SELECT finance.audit_table('item')");
make_month($_) foreach 3 .. 5;
ask($open_guards);
work_at('2020-03-30 23:00+00', @work);
work_at('2020-04-02 10:00+00', @work);
my $kept = ask('SELECT to_json(d) FROM finance.audit_digest() d');
work_at('2020-04-20 10:00+00', @work);
work_at('2020-05-05 10:00+00', @work);
ask("SELECT finance.transfer('a', 'b', 5)", 'SELECT finance.seal_audit()');
is( ask("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname ~ '^audit_record_2020_0[3-7]\$'"),
	'audit_record_2020_03 audit_record_2020_04 audit_record_2020_05', 'months of long ago');
is(ask('SELECT count(*) FROM finance.verify_audit()'), '0', 'the log verifies');
my ($old, $path) = split /\|/, ask('SELECT r.id, to_json(p) FROM (SELECT * FROM finance.audit_record ORDER BY xid, sequence LIMIT 1 OFFSET 100) r, LATERAL finance.audit_proof(r.id) p');

# ------------------------------------------------------------------------
# what is due
# ------------------------------------------------------------------------

is(ask("SELECT setting, boot_val FROM pg_settings WHERE name = 'finance.audit_retention'"), '1827|1827', 'five years');
is(ask('SELECT month, partition, due_at AT TIME ZONE \'UTC\', bytes > 0 FROM finance.audit_due() LIMIT 2'),
	"2020-03-01|finance.audit_record_2020_03|2025-04-02 00:00:00|t\n2020-04-01|finance.audit_record_2020_04|2025-05-02 00:00:00|t",
	'months are due five years after they ended');
retention(0);
is(ask('SELECT count(*) FROM finance.audit_due()'), '0', '0 keeps them for ever');
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG206.*DETAIL:  finance.audit_retention is 0/s, 'whoever asks');
retention(36500);
is(ask('SELECT count(*) FROM finance.audit_due()'), '0', 'a century is not over');
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG206.*must be kept.*until 2120-03-0/s, 'so it must be kept');
my $offset = -s $node->logfile;
retention(1827);
$node->wait_for_log(qr/3 months of the audit log, from finance.audit_record_2020_03 on, were kept longer/, $offset);
pass('the worker tells which are');
is(ask("SELECT count(*) FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass AND inhrelid::regclass::text ~ '2020'"), '3', 'and touches none');

# ------------------------------------------------------------------------
# what is refused
# ------------------------------------------------------------------------

like(refusal('SELECT finance.drop_audit_month(NULL)'), qr/22004/, 'null');
like(refusal("SELECT finance.drop_audit_month('infinity')"), qr/22023/, 'no month');
like(refusal("SELECT finance.drop_audit_month('2019-07-01')"), qr/LG204.*no month 2019-07/, 'a month that is not there');
like(refusal("SELECT finance.audit_archive('2019-07-01')"), qr/LG204.*no month 2019-07/, 'nor to be exported');
like(refusal("SELECT finance.drop_audit_month(current_date)"), qr/LG206.*must be kept/, 'this month');
like(refusal("SELECT finance.drop_audit_month('2020-04-01')"), qr/LG206.*finance.audit_record_2020_03 is older/s, 'not the oldest');
ask('CREATE ROLE operator', 'CREATE ROLE auditor', "SELECT finance.grant_access('operator', 'operator')", "SELECT finance.grant_access('auditor', 'auditor')");
like(refusal("SET ROLE auditor; SELECT finance.drop_audit_month('2020-03-01')"), qr/42501/, 'an auditor may not');
ask("CREATE TABLE saved AS SELECT * FROM finance.audit_record WHERE id = $old", "UPDATE finance.audit_record SET actor = 'x' WHERE id = $old");
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG205.*not as it was sealed.*Record $old, leaf 100,/s, 'a month with an altered record');
ask("DELETE FROM finance.audit_record WHERE id = $old");
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG205.*Record $old, leaf 100,/s, 'or a deleted one');
ask('INSERT INTO finance.audit_record SELECT * FROM saved', 'UPDATE saved SET id = id + 1, xid = (SELECT max(xid::text::bigint) + 1000 FROM finance.audit_record)::text::xid8',
	'INSERT INTO finance.audit_record SELECT * FROM saved');
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG203.*not wholly sealed.*HINT/s, 'one with a record that is not sealed');
ask("DELETE FROM finance.audit_record WHERE id = (SELECT id FROM saved)");
is(ask('SELECT count(*) FROM finance.verify_audit()'), '0', 'the log verifies again');
ask('ALTER TABLE finance.audit_record_2020_03 ENABLE ALWAYS TRIGGER guard');

# ------------------------------------------------------------------------
# exported and taken out
# ------------------------------------------------------------------------

my $april = ask("SELECT count(*) FROM finance.audit_record_2020_04");
my $records = ask('SELECT count(*) FROM finance.audit_record_2020_03');
my ($archive, $end);
unless (defined $missing)
{
	$archive = file('archive', "SELECT finance.audit_archive('2020-03-17')");
	$end = (decode_json((split /\n/, slurp_file($archive))[-1]))->{to};
	verifies('the archive of a month', '--complete', '--digest', file('digest', 'SELECT to_json(d) FROM finance.audit_digest() d'),
		'--proof', file('proof', "SELECT to_json(c) FROM finance.audit_consistency($end) c"), $archive);
	my @lines = grep { /^\{"leaf"/ } split /^/, slurp_file($archive);
	cmp_ok(scalar @lines, '>=', $records, 'it has all its records');
}
is(ask("SELECT finance.drop_audit_month('2020-03-31')"), 'audit_detached_2020_03', 'the owner takes March out');
is(ask('SELECT count(*) FROM finance.audit_detached_2020_03'), $records, 'its records are in a table of their own');
like(refusal("DELETE FROM finance.audit_detached_2020_03"), qr/LG201/, 'where they cannot be changed');
is(ask("SELECT count(*) FROM finance.audit_record WHERE id < finance.id_floor('2020-04-01 00:00+00')"), '0', 'and not in the log');
is(ask('SELECT month, first_id = finance.id_floor(\'2020-03-01 00:00+00\'), last_id = finance.id_floor(\'2020-04-01 00:00+00\') - 1, records, detached_as FROM finance.audit_month'),
	"2020-03-01|t|t|$records|audit_detached_2020_03", 'as audit_month says');
is(ask("SELECT actor, object, request::jsonb ->> 'records' FROM finance.audit_record WHERE operation = 'drop_audit_month'"),
	"postgres|finance.audit_record_2020_03|$records", 'and the log');
like(refusal("SELECT finance.drop_audit_month('2020-03-01')"), qr/LG204/, 'it is gone');
like(refusal('UPDATE finance.audit_month SET records = 0'), qr/LG201/, 'what says so cannot be changed');
is(ask('SELECT finance.seal_audit() > 0'), 't', 'sealing goes on');
is(ask('SELECT * FROM finance.verify_audit()'), '', 'what remains verifies');
is(ask('SELECT * FROM finance.check_integrity()'), '', 'and the book is sound');
is(ask("SELECT finance.drop_audit_month('2020-04-01')"), 'audit_detached_2020_04', 'April, too');
is(ask('DROP TABLE finance.audit_detached_2020_03', 'SELECT finance.seal_audit() > 0'), 't', 'the table of March is dropped');
is(ask('SELECT * FROM finance.verify_audit()'), '', 'what remains verifies still');
unless (defined $missing)
{
	like((verify(file('export', 'SELECT finance.audit_export()')))[2], qr/ payloads erased, @{[ $records + $april ]} records taken out; size/, 'outside too: as many are gone as the log tells');
}

# what finds the records that are left is checked as before, also where the same run has some that are gone
ask("SELECT finance.transfer('a', 'b', 1)", 'SELECT finance.seal_audit()') foreach 1 .. 16;
is(ask('SELECT * FROM finance.verify_audit()'), '', 'runs of terms are merged over what is gone');
sub hide
{
	my ($there) = @_;

	return 'BEGIN; ALTER TABLE finance.audit_term DISABLE TRIGGER guard;'
	  . ' UPDATE finance.audit_term t SET entries = entries - 1, terms = substr(terms, 1, 12 * k) || substr(terms, 12 * k + 13) FROM'
	  . q{ (SELECT m.first_leaf, k FROM (SELECT e.first_leaf, k, e.first_leaf + ('x' || encode(substr(e.terms, 12 * k + 9, 4), 'hex'))::bit(32)::bigint AS leaf}
	  . '   FROM finance.audit_term e, generate_series(0, entries - 1) k WHERE e.first_leaf = 0) m'
	  . '  JOIN finance.audit_block b ON m.leaf >= b.first_leaf AND m.leaf < b.size JOIN finance.audit_leaves l USING (block)'
	  . "  LEFT JOIN finance.audit_record r ON r.id = ('x' || encode(substr(l.leaves, (m.leaf - b.first_leaf)::integer * 52 + 1, 8), 'hex'))::bit(64)::bigint"
	  . "  WHERE (r.id IS NOT NULL) = $there ORDER BY m.leaf LIMIT 1) h WHERE t.first_leaf = h.first_leaf RETURNING 'hidden';"
	  . ' SELECT problem FROM finance.verify_audit(); ROLLBACK';
}
is(ask(hide('true')), "hidden\nterms from leaf 0", 'hiding a record that is left is found');
is(ask(hide('false')), 'hidden', 'of one that is gone there is nothing to hide');

my $proof = decode_json($path);
is( ask("SELECT finance.verify_inclusion('$proof->{leaf_hash}', $proof->{leaf_index}, $proof->{tree_size}, ARRAY['" . join("','", @{ $proof->{path} }) . "']::bytea[], d.root) FROM finance.audit_digest($proof->{tree_size}) d"),
	't', 'a proof that was kept of a record that is gone');
like(refusal("SELECT finance.audit_proof($old)"), qr/LG204/, 'no new one is made');
is(ask(q{SELECT count(*) FROM finance.audit_record WHERE operation = 'transfer'}) > 0, 1, 'younger months are there');

# a deletion elsewhere is found none the less
my $young = ask(q{SELECT id FROM finance.audit_record WHERE operation = 'transfer' ORDER BY xid, sequence LIMIT 1 OFFSET 7});
ask("DELETE FROM finance.audit_record WHERE id = $young");
like(ask('SELECT problem, record_id FROM finance.verify_audit()'), qr/^missing\|$young$/m, 'a record that was deleted otherwise is missed');

SKIP:
{
	skip $missing, 5 if defined $missing;
	my $digest = file('digest', 'SELECT to_json(d) FROM finance.audit_digest() d');
	my $export = file('export', 'SELECT finance.audit_export()');

	verifies('the archive, by a digest of today', '--complete', '--digest', $digest, '--earlier', write_file('kept', $kept),
		'--proof', file('proof', "SELECT to_json(c) FROM finance.audit_consistency($end) c"), '--proof', write_file('path', $path),
		'--proof', file('since', 'SELECT to_json(c) FROM finance.audit_consistency(' . decode_json($kept)->{size} . ') c'),
		'--proof', file('grown', "SELECT to_json(c) FROM finance.audit_consistency($proof->{tree_size}) c"), $archive);
	refuses('the log of today lacks the deleted record', qr/record $young: its record is missing/, '--digest', $digest, '--earlier', write_file('kept', $kept), $export);
	my @gone = grep { /"why":"detached"/ } split /^/, slurp_file($export);
	is(scalar @gone, $records + $april, 'leaves of months that are gone are in it as hashes');
}

$node->stop;
done_testing();
