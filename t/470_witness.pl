# A witness keeps digests outside.  A superuser rewrites history, as well as can
# be: records altered with their hashes, guards off, everything sealed anew, so
# that the database itself finds nothing wrong.  The witness does.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use FinanceVerify;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $missing = verify_missing();
plan skip_all => $missing if defined $missing;
$ENV{FINANCE_VERIFY} = make_verify();
my $seed = $ENV{FIN_SEED} // 20261124;
note "FIN_SEED=$seed";
srand($seed);

my $node = book_node('main', "finance.seal_interval = 3600000\nautovacuum = off\n");
my $kept = PostgreSQL::Test::Utils::tempdir . '/kept';

sub ask
{
	return $node->safe_psql('postgres', join(';', @_));
}

# exit status of a run, and what it said
sub witness
{
	my ($file, $connection) = @_;
	my ($out, $err);

	IPC::Run::run([ 'sh', "$FindBin::RealBin/../examples/witness", $file // $kept, $connection // ($node->connstr('postgres') . ' user=witness') ],
		'<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $err);
}

sub keeps
{
	my ($lines, $name) = @_;
	my ($status, $err) = witness();
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($status == 0 && $err eq '' && (() = slurp_file($kept) =~ /\n/g) == $lines && !-e "$kept.refused", $name)
	  or diag("status $status\n$err");
}

sub catches
{
	my ($pattern, $name) = @_;
	my $before = slurp_file($kept);
	my ($status, $err) = witness();
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($status == 1 && $err =~ /NOT THE ONE THAT WAS SEEN BEFORE: $pattern/, $name) or diag("status $status\n$err");
	is(slurp_file($kept), $before, 'what was kept stays');
	ok(unlink("$kept.refused"), 'what was said is kept beside it');
}

sub records
{
	my ($n) = @_;
	return "INSERT INTO item (name) SELECT 'n' FROM generate_series(1, $n)";
}

ask(q{CREATE ROLE witness LOGIN}, q{SELECT finance.grant_access('witness', 'witness')},
	'CREATE TABLE item (id serial, name text)', q{SELECT finance.audit_table('item')},
	q{SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR')});

# ------------------------------------------------------------------------
# what goes right
# ------------------------------------------------------------------------

is((witness())[0], 2, 'nothing is sealed yet');
ask('SELECT finance.seal_audit()');
keeps(1, 'the first digest');
keeps(1, 'nothing new');
for my $n (2 .. 8)
{
	ask(records(1 + int(rand(500))), "SELECT finance.transfer('a', 'b', 1)", 'SELECT finance.seal_audit()');
	ask(records(3), 'SELECT finance.seal_audit()') if $n % 3 == 0;
	keeps($n, "digest $n");
}
is((witness(undef, 'host=/nowhere'))[0], 2, 'nothing can be told without a server');
is((witness(undef, $node->connstr('postgres') . ' user=nobody'))[0], 2, 'nor without a role');
is((witness('/nowhere/kept'))[0], 2, 'nor without a file');
ok(!-e "$kept.refused", 'which refuses nothing');
my $all = slurp_file($kept);
verifies('all of them by an export of now', '--complete', '--digest', write_file('digest', (split /^/, $all)[-1]), '--earlier', $kept,
	write_file('export', ask('SELECT finance.audit_export()') . "\n"));

# ------------------------------------------------------------------------
# history is rewritten
# ------------------------------------------------------------------------

my @tables = qw(audit_incarnation audit_block audit_leaves audit_node audit_tree audit_term);
my $copy = join(';', "CREATE SCHEMA truth", 'CREATE TABLE truth.audit_record AS SELECT * FROM finance.audit_record',
	map { "CREATE TABLE truth.$_ AS SELECT * FROM finance.$_" } @tables);
my $clear = join(';', map { "TRUNCATE finance.$_" } 'audit_record', @tables);
my $restore = join(';', $clear, map { "INSERT INTO finance.$_ SELECT * FROM truth.$_" } 'audit_record', @tables);

# as only a superuser can
ask(q{DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT relid FROM pg_partition_tree('finance.audit_record') LOOP
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER guard', p); END LOOP; END $$}, map { "ALTER TABLE finance.$_ DISABLE TRIGGER guard" } @tables);
# which is recorded itself
ask('SELECT finance.seal_audit()', records(1), 'SELECT finance.seal_audit()');
keeps(9, 'the guards are off');
my @sizes = ask('SELECT size FROM finance.audit_block ORDER BY size') =~ /(\d+)/g;
ask($copy);

# Changes records, makes their hashes right again, and seals all that is there, in
# blocks of these sizes where they are given.
sub rewrite
{
	my ($change, @ends) = @_;

	ask($clear, 'INSERT INTO finance.audit_record SELECT * FROM truth.audit_record', $change);
	ask('BEGIN', leaf_functions() =~ s/;\s*\z//r, "UPDATE finance.audit_record r SET leaf_hash = sha256('\\x00' || pg_temp.leaf(r))", 'COMMIT',
		'CREATE TABLE rewritten AS SELECT *, row_number() OVER (ORDER BY xid, sequence) AS n FROM finance.audit_record',
		'TRUNCATE finance.audit_record');
	for my $i (0 .. $#ends + 1)
	{
		my $from = $i == 0 ? 0 : $ends[ $i - 1 ];
		my $to = $ends[$i] // 1e9;

		# it would pass by what it takes for sealed
		ask("UPDATE finance.audit_tree SET horizon = '3'") if $i > 0;
		ask('CREATE TABLE part AS SELECT * FROM rewritten WHERE n > ' . $from . ' AND n <= ' . $to, 'ALTER TABLE part DROP COLUMN n',
			'INSERT INTO finance.audit_record SELECT * FROM part', 'DROP TABLE part', 'SELECT finance.seal_audit()');
	}
	ask('DROP TABLE rewritten');
	is(ask("SELECT * FROM finance.verify_audit() WHERE problem NOT LIKE 'version%'"), '', 'the database itself finds nothing wrong with that');
}

my $victim = q{(SELECT id FROM truth.audit_record WHERE operation = 'INSERT' ORDER BY xid, sequence LIMIT 1 OFFSET 20)};
rewrite("UPDATE finance.audit_record SET actor = 'somebody else' WHERE id = $victim");
catches('size \d+ has another digest now', 'a record was altered, and all is sealed as one block');
rewrite("UPDATE finance.audit_record SET actor = 'somebody else' WHERE id = $victim", @sizes[ 0 .. $#sizes - 1 ]);
catches('size \d+ has another digest now', 'the same in blocks of the old sizes');
ask(records(10), 'SELECT finance.seal_audit()');
catches('its first \d+ leaves are not those it had', 'and the log goes on');
rewrite("UPDATE finance.audit_record SET actor = 'somebody else' WHERE id = $victim");
ask(records(10), 'SELECT finance.seal_audit()', records(10), 'SELECT finance.seal_audit()');
catches('its first \d+ leaves are not those it had', 'altered, sealed as one block, and the log goes on');
rewrite("DELETE FROM finance.audit_record WHERE id = $victim;"
	  . "UPDATE finance.audit_record r SET sequence = r.sequence - 1 FROM truth.audit_record v WHERE v.id = $victim AND r.xid = v.xid AND r.sequence > v.sequence");
catches('it had \d+ leaves, and now has \d+', 'a record was deleted');
ask(records(10), 'SELECT finance.seal_audit()');
catches('it does not know size \d+, whose digest it once told', 'and the log grows beyond what it was');
ask($clear);
catches('it had \d+ leaves, and now nothing is sealed', 'everything is deleted');

# the digests alone
ask($restore);
keeps(9, 'the truth is back');
ask(q{UPDATE finance.audit_block SET sealed_at = sealed_at - interval '1 day' WHERE size = (SELECT max(size) FROM finance.audit_block)});
catches('its digest is not computed from what it says', 'a date was changed');
ask($restore, records(5), 'SELECT finance.seal_audit()');
ask(q{UPDATE finance.audit_block SET root = sha256(root) WHERE size = (SELECT max(size) FROM finance.audit_block)});
catches('its digest is not computed from what it says', 'a root was changed');

# restored from a copy of before, what was lost is not forgotten
ask($restore);
ask(map { "DELETE FROM finance.$_ WHERE block > 3" } qw(audit_block audit_leaves));
catches('it had \d+ leaves, and now has \d+', 'an old copy was put in place');
ask($restore, records(5), 'SELECT finance.seal_audit()');
keeps(10, 'the truth goes on');

$node->stop;
done_testing();
