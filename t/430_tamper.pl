# A superuser with all guards off: 1,000 random edits, deletions, insertions,
# swaps and truncations of a book that was restored once, sealed in part.  Each
# is made in a transaction that is rolled back, and verify_audit() must find it,
# and name the record where it is one.
#
# What no query can find, and is tested as such at the end:
#  - of records that are not sealed yet: the last call of a transaction, deleted
#    as a whole, where no account's version tells of it; and a change of a
#    record together with its leaf_hash, where neither its place nor a version
#    changes.  A second later, when they are sealed, both are found.
#  - a history that was sealed anew: all of it agrees.  A digest that somebody
#    keeps outside does not.
# Nor is looked at when an incarnation began.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $seed = $ENV{FIN_SEED} // 20261123;
note "FIN_SEED=$seed";
srand($seed);

sub pick { return $_[int(rand(@_))]; }

# ------------------------------------------------------------------------
# the book: made in one cluster, restored into another, and gone on with
# ------------------------------------------------------------------------

# a transaction of some steps, some of them undone
sub step
{
	my ($k) = @_;
	my ($from, $to) = ('a' . int(rand(3)), 'a' . (3 + int(rand(2))));
	my $n = 1 + int(rand(4));

	return pick(
		"SELECT FROM finance.transfer('$from', '$to', $n)",
		"SELECT FROM finance.transfer_batch(ARRAY[finance.request('$from', '$to', 1), finance.request('$to', '$from', 1), finance.request('$from', '$to', 2)])",
		"WITH h AS MATERIALIZED (SELECT (finance.hold('$from', '$to', 5)).hold_id) SELECT FROM h, LATERAL finance.capture(h.hold_id, $n)",
		"WITH h AS MATERIALIZED (SELECT (finance.hold('$from', '$to', 5)).hold_id) SELECT FROM h, LATERAL finance.release(h.hold_id)",
		"SELECT finance.set_account_limits('$from', -1000000 - $k, NULL)",
		"SELECT finance.block_account('$to', 'why'), finance.unblock_account('$to', 'why not')",
		"INSERT INTO item (name) SELECT 'n' || g FROM generate_series(1, $n) g",
		"UPDATE item SET name = name || 'u' WHERE id % 7 = $k % 7 AND id > (SELECT max(id) - 12 FROM item)",
		"DELETE FROM item WHERE id % 11 = $k % 11 AND id > (SELECT max(id) - 30 FROM item)");
}

sub work
{
	my ($transactions) = @_;
	my $script = '';

	foreach my $k (1 .. $transactions)
	{
		my @steps = map { step($k) } 1 .. 1 + int(rand(3));

		$script .= 'SET finance.tenant = ' . int(rand(2)) . ";BEGIN;\n";
		foreach my $step (@steps)
		{
			$script .= pick("$step;\n", "$step;\n", "SAVEPOINT s; $step; ROLLBACK TO s; $step;\n",
				"SAVEPOINT s; SAVEPOINT t; $step; RELEASE t; $step; ROLLBACK TO s;\n");
		}
		$script .= "COMMIT;\n";
	}
	return $script;
}

my $old = finance_node('old');
$old->append_conf('postgresql.conf', "finance.seal_interval = 3600000\nautovacuum = off\n");
$old->start;
$old->safe_psql('postgres', q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id serial PRIMARY KEY, name text);
	SELECT finance.audit_table('item');
	SELECT finance.create_tenant('other');
	SELECT finance.create_account('a' || n, 'EUR', min_available => NULL) FROM generate_series(0, 4) n;
	SET finance.tenant = 1;
	SELECT finance.create_account('a' || n, 'EUR', min_available => NULL) FROM generate_series(0, 4) n;
});
$old->safe_psql('postgres', work(50) . "SELECT finance.seal_audit();" . work(50) . "SELECT finance.seal_audit();" . work(10));

my $node = finance_node('main');
$node->append_conf('postgresql.conf', "finance.seal_interval = 3600000\nautovacuum = off\n");
$node->start;
my $dump = $node->basedir . '/dump.sql';
$old->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
$old->stop;
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'postgres', '-f', $dump ], 'restore');

sub ask { return $node->safe_psql('postgres', $_[0]); }

is(ask('SELECT * FROM finance.verify_audit()'), '', 'restored, the log verifies');
ask(work(3));
is(ask('SELECT * FROM finance.verify_audit()'), '', 'and with what is written before anything is sealed');
ask('SELECT finance.seal_audit();' . join('SELECT finance.seal_audit();', map { work(10 + int(rand(30))) } 1 .. 4));
ask('SELECT finance.seal_audit()');
my $kept = ask('SELECT size, root FROM finance.audit_digest()');
ask(work(70));
is(ask('SELECT * FROM finance.verify_audit()'), '', 'the book verifies');
is(ask('BEGIN READ ONLY; SELECT * FROM finance.check_integrity()'), '', 'and all invariants hold, seen in a read-only transaction');
is(ask('SELECT count(*) FROM (SELECT max(sequence) - count(*) AS gaps FROM finance.audit_record GROUP BY system_identifier, xid) x WHERE gaps <> 0'),
	'0', 'no gaps where savepoints were rolled back');
note ask(q{SELECT count(*) || ' records in ' || count(DISTINCT xid) || ' transactions, ' || (SELECT size || ' of them sealed in ' || block || ' blocks of '
	|| incarnation || ' incarnations' FROM finance.audit_tree) FROM finance.audit_record});

# ------------------------------------------------------------------------
# the superuser prepares
# ------------------------------------------------------------------------

my @columns = split /\n/, ask(q{SELECT attname FROM pg_attribute WHERE attrelid = 'finance.audit_record'::regclass AND attnum > 0 ORDER BY attnum});
my %type = map { split /\|/ } split /\n/, ask(q{SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'finance.audit_record'::regclass AND attnum > 0});

# the leaf in SQL, from what audit_row.h says of it
my %send = ('bigint' => 'int8send', 'integer' => 'int4send', 'timestamp with time zone' => 'timestamptz_send', 'xid8' => 'xid8send', 'uuid' => 'uuid_send', 'inet' => 'inet_send');
my @leaf = grep { !/^(leaf_version|leaf_hash|salt|request|response|trace_until)$/ } @columns;
my $leaf = join ' || ', 'int2send(r.leaf_version)', map {
	my $bytes = $type{$_} eq 'bytea' ? "r.$_" : $send{ $type{$_} } ? "$send{$type{$_}}(r.$_)" : "convert_to(r.$_\:\:text, 'UTF8')";
	"public.field($bytes)"
} @leaf;
ask(qq{
CREATE FUNCTION public.field(value bytea) RETURNS bytea LANGUAGE sql AS
\$\$ SELECT coalesce(int4send(length(value)) || value, '\\xffffffff') \$\$;
CREATE FUNCTION public.leaf_hash(r finance.audit_record) RETURNS bytea LANGUAGE sql AS
\$\$ SELECT sha256('\\x00' || $leaf) \$\$;
CREATE FUNCTION public.payload_hash(r finance.audit_record) RETURNS bytea LANGUAGE sql AS
\$\$ SELECT sha256('\\x02' || r.salt || public.field(convert_to(r.request::text, 'UTF8')) || public.field(convert_to(r.response::text, 'UTF8'))) \$\$;
CREATE FUNCTION public.flip(value bytea, at integer) RETURNS bytea LANGUAGE sql AS
\$\$ SELECT coalesce(set_byte(value, at % length(value), 255 - get_byte(value, at % length(value))), '\\x01') \$\$;
});
is(ask('SELECT count(*) FROM finance.audit_record r WHERE leaf_hash <> public.leaf_hash(r) OR payload_hash <> public.payload_hash(r)'),
	'0', 'the attacker knows how to hash');

# what the records were; and whether the deletion of one can be found unsealed
ask(q{
CREATE TABLE public.was AS
SELECT r.*, i.incarnation < (SELECT max(incarnation) FROM finance.audit_incarnation)
		OR (r.xid, r.sequence) <= (SELECT b.last_xid, b.last_sequence FROM finance.audit_block b ORDER BY block DESC LIMIT 1) AS sealed,
	account_version IS NOT NULL OR counterparty_version IS NOT NULL AS versioned,
	lead(trace_until IS NOT NULL, 1, true) OVER w AS ends_call,
	lead(id) OVER w IS NULL AS ends_transaction
FROM finance.audit_record r JOIN finance.audit_incarnation i USING (system_identifier)
WINDOW w AS (PARTITION BY system_identifier, xid ORDER BY sequence);

-- makes an attack, asks, and takes it back: how many rows, how many of the
-- records are named, and what is said
CREATE FUNCTION public.attack(statement text, targets bigint[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	BEGIN
		EXECUTE statement;
		WITH v AS MATERIALIZED (SELECT * FROM finance.verify_audit())
		SELECT concat_ws('|', (SELECT count(*) FROM v),
			(SELECT count(*) FROM unnest(targets) AS t (id) LEFT JOIN public.was w ON w.id = t.id WHERE EXISTS (SELECT FROM v
				WHERE v.record_id = t.id OR v.found LIKE '%record ' || t.id OR v.expected = 'trace_until ' || t.id
				OR (v.xid = w.xid AND w.sequence BETWEEN v.sequence AND CASE WHEN v.problem = 'gap' THEN substring(v.found FROM '\d+')::integer - 1 ELSE v.sequence END)
				OR v.expected IN (format('tenant %s, account %s, version %s', w.tenant_id, w.account_id, w.account_version),
					format('tenant %s, account %s, version %s', w.tenant_id, w.counterparty_id, w.counterparty_version)))),
			(SELECT string_agg(DISTINCT regexp_replace(v.problem, '\d+', 'N', 'g'), ', ') FROM v))
		INTO answer;
		RAISE EXCEPTION SQLSTATE 'XX998';
	EXCEPTION WHEN SQLSTATE 'XX998' THEN
		RETURN answer;
	WHEN OTHERS THEN
		RETURN 'error|' || SQLERRM || '|';
	END;
END $$;
});
my @tables = split /\n/, ask(q{SELECT 'finance.audit_record' UNION ALL SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass
	UNION ALL SELECT 'finance.' || unnest('{_account,audit_incarnation,audit_block,audit_leaves,audit_node,audit_tree,audit_term}'::text[])});
ask(join '', map { "ALTER TABLE $_ DISABLE TRIGGER ALL;" } @tables);
ask('ALTER TABLE finance.audit_block DROP CONSTRAINT audit_block_adds_up');

my @was = map {
	my %r;
	@r{qw(id sealed versioned sequence is_first ends_call ends_transaction has_payload)} = map { $_ eq 't' ? 1 : $_ eq 'f' ? 0 : $_ } split /\|/;
	\%r
} split /\n/, ask('SELECT id, sealed, versioned, sequence, trace_until IS NOT NULL, ends_call, ends_transaction, salt IS NOT NULL FROM public.was ORDER BY id');
my @sealed = grep { $_->{sealed} } @was;
my @open = grep { !$_->{sealed} } @was;
cmp_ok(scalar @sealed, '>', 300, 'records are sealed');
cmp_ok(scalar @open, '>', 100, 'and others are not');
# the last call of a transaction, of one record, that no account's version tells of
sub is_lost { return !$_->{versioned} && $_->{is_first} && $_->{ends_call} && $_->{ends_transaction}; }
my @lost = grep { is_lost() } @open;
my @found = grep { !is_lost() } @open;
my $blocks = ask('SELECT max(block) FROM finance.audit_block');
my $nodes = ask('SELECT count(*) FROM finance.audit_node');
cmp_ok($nodes, '>', 0, 'there are nodes');
my $sealed = ask('SELECT max(size) FROM finance.audit_block');
my $runs = ask('SELECT count(*) FROM finance.audit_term');
cmp_ok($runs, '>', 1, 'there are runs of terms');

# ------------------------------------------------------------------------
# attacks: [name, statement, targets]
# ------------------------------------------------------------------------

my $r = 'finance.audit_record';

# another value of a column
sub other
{
	my ($column) = @_;
	my $type = $type{$column};
	my $k = 1 + int(rand(1000));

	return "coalesce($column, 0) + $k" if $type =~ /^(bigint|integer|smallint)$/;
	return pick("coalesce($column, 0) + 0.01 * $k", "coalesce($column, 1)::text::numeric(30, 9)") if $type eq 'numeric';
	return "$column + $k * interval '1 microsecond'" if $type =~ /^timestamp/;
	return "($column\:\:text::bigint + $k)::text::xid8" if $type eq 'xid8';
	return "md5('$k' || $column)::uuid" if $type eq 'uuid';
	return "public.flip($column, $k)" if $type eq 'bytea';
	return "CASE WHEN $column = '10.0.0.1' THEN '10.0.0.2' ELSE '10.0.0.1' END::inet" if $type eq 'inet';
	return "('{\"k\": $k}')::json" if $type eq 'json';
	return "coalesce($column, '') || 'x'";
}

sub rehash { return "UPDATE $r r SET leaf_hash = public.leaf_hash(r) WHERE id = $_[0];"; }

sub edit
{
	my ($record, $column, $consistent) = @_;
	my $id = $record->{id};
	my $value = other($column);
	my $k = 1 + int(rand(1000));
	my $sql;

	$value = "id + $k" if $column eq 'id';
	$sql = "UPDATE $r SET $column = $value WHERE id = $id;";
	return $sql unless $consistent;
	$sql .= "UPDATE $r r SET payload_hash = public.payload_hash(r) WHERE id = $id AND salt IS NOT NULL;"
	  if $column =~ /^(request|response|salt)$/;
	return $sql . rehash($column eq 'id' ? "$id + $k" : $id);
}

# columns whose change shows before the record is sealed, though its hash is right
sub telling
{
	my ($record) = @_;
	my @telling = ('sequence', 'system_identifier');

	push @telling, 'xid' if $record->{sequence} > 1;
	push @telling, 'id' if $record->{ends_call};
	push @telling, 'tenant_id' if $record->{versioned};
	return @telling;
}

sub forged
{
	my ($record, $changes, $id) = @_;

	return "INSERT INTO $r SELECT (jsonb_populate_record(r, jsonb_build_object('id', $id, $changes))).* FROM $r r WHERE id = $record->{id};" . rehash($id);
}

my @content = grep { !/^(id|xid|sequence|system_identifier|trace_until|leaf_version)$/ } @columns;

sub swap
{
	my ($one, $two) = @_;
	my $columns = join ', ', @content;
	my $others = join ', ', map { "o.$_" } @content;

	return "UPDATE $r r SET ($columns) = ROW($others) FROM public.was o"
	  . " WHERE (r.id, o.id) IN (($one->{id}, $two->{id}), ($two->{id}, $one->{id}));";
}

sub two
{
	my ($one, $two) = (pick(@_), pick(@_));

	return $one == $two ? two(@_) : ($one, $two);
}

# the end of a transaction shows only where an account has a version
sub run_that_shows
{
	my $i = int(rand(@open - 20));
	my @run = @open[ $i .. $i + int(rand(20)) ];

	return grep({ $_->{versioned} } @run) || !$run[-1]{ends_transaction} ? @run : run_that_shows();
}

# a statement on a run of terms
sub on_run
{
	my ($i, $statement) = @_;

	return "$statement WHERE first_leaf = (SELECT first_leaf FROM finance.audit_term ORDER BY first_leaf OFFSET $i LIMIT 1)";
}

# an entry is taken out of a run as if the record had never been: of that leaf, or the next that has one
sub hide
{
	my ($leaf) = @_;

	return "UPDATE finance.audit_term t SET entries = entries - 1, terms = substr(terms, 1, k * 12) || substr(terms, k * 12 + 13) FROM"
	  . ' (SELECT h.ctid AS run, k FROM finance.audit_term h, generate_series(0, entries - 1) k'
	  . " ORDER BY (first_leaf + ('x' || encode(substr(terms, k * 12 + 9, 4), 'hex'))::bit(32)::bigint - $leaf + 1000000000) % 1000000000, k LIMIT 1) h WHERE t.ctid = h.run";
}

my $flip = sub { "public.flip($_[0], " . int(rand(10000)) . ')' };
my %block = (
	(map { $_ => "$_ + 100000" } qw(block incarnation first_leaf records size first_sequence last_sequence first_id last_id lsn timeline)),
	(map { $_ => "$_ + interval '1 microsecond'" } qw(first_recorded_at last_recorded_at sealed_at)),
	(map { $_ => "($_\:\:text::bigint + 1)::text::xid8" } qw(first_xid last_xid)));

my %kinds = (
	'edit, sealed' => [ 150, sub { my $w = pick(@sealed); return (edit($w, pick(@columns)), $w->{id}) } ],
	'edit, not sealed' => [ 150, sub { my $w = pick(@open); return (edit($w, pick(@columns)), $w->{id}) } ],
	'edit with the hash, sealed' => [ 120, sub { my $w = pick(@sealed); return (edit($w, pick(grep { !/^(leaf_hash|payload_hash|salt|request|response|trace_until)$/ } @columns), 1), $w->{id}) } ],
	'edit with the hash of what tells, not sealed' => [ 60, sub { my $w = pick(@open); return (edit($w, pick(telling($w)), 1), $w->{id}) } ],
	'edit of the payload with both hashes' => [ 30, sub { my $w = pick(grep { $_->{has_payload} } @sealed); return (edit($w, pick(qw(request response salt)), 1), $w->{id}) } ],
	'erasing a column' => [ 20, sub { my $w = pick(@was); return ("UPDATE $r SET actor = '', request = NULL WHERE id = $w->{id}", $w->{id}) } ],
	'delete one, sealed' => [ 60, sub { my $w = pick(@sealed); return ("DELETE FROM $r WHERE id = $w->{id}", $w->{id}) } ],
	'delete one, as if its month was dropped' => [ 20, sub { my $w = pick(@sealed); my $month = pick("'2020-01-01', id, id, 1", "'2020-01-01', 0, id, 1",
				"date_trunc('month', now(), 'UTC'), finance.id_floor(date_trunc('month', now(), 'UTC')), finance.id_floor(date_trunc('month', now(), 'UTC') + interval '1 month') - 1, 1");
			return ("INSERT INTO finance.audit_month SELECT $month, 'audit_detached_2020_01', now() FROM $r WHERE id = $w->{id}; DELETE FROM $r WHERE id = $w->{id}", $w->{id}) } ],
	'take a payload away' => [ 30, sub { my $w = pick(grep { $_->{has_payload} } @was); return ("UPDATE $r SET request = NULL, response = NULL, salt = NULL WHERE id = $w->{id}", $w->{id}) } ],
	'delete one, not sealed' => [ 80, sub { my $w = pick(@found); return ("DELETE FROM $r WHERE id = $w->{id}", $w->{id}) } ],
	'delete a run, sealed' => [ 20, sub { my $i = int(rand(@sealed - 20)); my @w = @sealed[ $i .. $i + int(rand(20)) ];
			return ("DELETE FROM $r WHERE id IN (" . join(', ', map { $_->{id} } @w) . ')', map { $_->{id} } @w) } ],
	'delete a run, not sealed' => [ 20, sub { return ('DELETE FROM ' . $r . ' WHERE id IN (' . join(', ', map { $_->{id} } run_that_shows()) . ')') } ],
	'forged: another id' => [ 20, sub { my $w = pick(@was); my $id = $w->{id} + 1 + int(rand(99)); return (forged($w, "'reason', 'forged'", $id), [ $id, $w->{id} ]) } ],
	'forged: another sequence' => [ 40, sub { my $w = pick(@was); my $id = $w->{id} + 1 + int(rand(99)); return (forged($w, "'sequence', (SELECT max(sequence) FROM public.was m WHERE m.xid = r.xid) + " . (1 + int(rand(3))), $id), $id) } ],
	'forged: another transaction' => [ 40, sub { my ($w, $o) = two(@was); my $id = $w->{id} + 1 + int(rand(99)); return (forged($w, "'xid', (SELECT xid FROM public.was WHERE id = $o->{id})", $id), [ $id, $o->{id} ]) } ],
	'forged: a transaction to come' => [ 10, sub { my $w = pick(@was); my $id = $w->{id} + 1; return (forged($w, "'xid', '900000000000', 'sequence', 1, 'trace_until', $id, 'account_version', NULL, 'counterparty_version', NULL, 'system_identifier', (SELECT system_identifier FROM pg_control_system())", $id), $id) } ],
	'forged: another cluster' => [ 20, sub { my $w = pick(@was); my $id = $w->{id} + 1 + int(rand(99)); return (forged($w, "'system_identifier', r.system_identifier + " . (1 + int(rand(5))), $id), $id) } ],
	'swap, sealed' => [ 20, sub { my ($w, $o) = two(@sealed); return (swap($w, $o), $w->{id}, $o->{id}) } ],
	'swap with the hashes, sealed' => [ 20, sub { my ($w, $o) = two(@sealed); return (swap($w, $o) . rehash($w->{id}) . rehash($o->{id}), $w->{id}, $o->{id}) } ],
	'swap, not sealed' => [ 20, sub { my ($w, $o) = two(@open); return (swap($w, $o), $w->{id}, $o->{id}) } ],
	'truncation' => [ 5, sub { return ('TRUNCATE ' . pick('finance.audit_record', grep { /audit_record_/ } split /\n/, ask("SELECT DISTINCT tableoid::regclass FROM $r"))) } ],
	'leaves' => [ 30, sub { my $b = 1 + int(rand($blocks)); return (pick('UPDATE finance.audit_leaves SET leaves = ' . $flip->('leaves'),
				"UPDATE finance.audit_leaves SET leaves = leaves || '\\x00'", 'UPDATE finance.audit_leaves SET leaves = substr(leaves, 1, length(leaves) - 52)',
				"UPDATE finance.audit_leaves SET leaves = substr(leaves, 53) || substr(leaves, 1, 52)",
				'UPDATE finance.audit_leaves SET block = block + 1000', 'DELETE FROM finance.audit_leaves') . " WHERE block = $b") } ],
	'more leaves' => [ 3, sub { return ("INSERT INTO finance.audit_leaves SELECT block + 1000, leaves FROM finance.audit_leaves WHERE block = " . (1 + int(rand($blocks)))) } ],
	'block' => [ 40, sub { my $c = pick(qw(root previous digest), keys %block); my $v = $block{$c} // $flip->($c);
			return ("UPDATE finance.audit_block SET $c = $v WHERE block = " . (1 + int(rand($blocks)))) } ],
	'deleted blocks' => [ 10, sub { my $b = 1 + int(rand($blocks)); return (pick("DELETE FROM finance.audit_block WHERE block = $b",
				"DELETE FROM finance.audit_block WHERE block >= $b; DELETE FROM finance.audit_leaves WHERE block >= $b", "DELETE FROM finance.audit_block WHERE block <= $b")) } ],
	'node' => [ 12, sub { return (pick('UPDATE finance.audit_node SET hash = ' . $flip->('hash'), 'UPDATE finance.audit_node SET level = level + 10',
				'UPDATE finance.audit_node SET index = index + 7', 'DELETE FROM finance.audit_node') . ' WHERE (level, index) = (8, ' . int(rand($nodes > 1 ? 2 : 1)) . ')') } ],
	'more nodes' => [ 3, sub { return ('INSERT INTO finance.audit_node SELECT ' . pick('level + 20, index', 'level, index + 100', '3, 0') . ', hash FROM finance.audit_node LIMIT 1') } ],
	'tree' => [ 20, sub { return (pick('DELETE FROM finance.audit_tree', map { "UPDATE finance.audit_tree SET $_" } 'size = size + 1', 'frontier = ' . $flip->('frontier'), 'incarnation = incarnation - 1',
				"horizon = '3'", "horizon = '900000000000'", 'block = block - 1', 'digest = ' . $flip->('digest'))) } ],
	'hiding a record from readers' => [ 60, sub { return hide(int(rand($sealed))) } ],
	'terms' => [ 60, sub { my $i = int(rand($runs)); return (on_run($i, pick(map({ "UPDATE finance.audit_term SET $_" } 'terms = ' . $flip->('terms'), 'terms = ' . $flip->('terms'), 'first_leaf = first_leaf + 1', 'first_leaf = first_leaf - 1',
					'end_leaf = end_leaf + 1', 'end_leaf = end_leaf - 1', 'entries = entries - 1', 'terms = substr(terms, 13) || substr(terms, 1, 12)', "terms = terms || '\\x00'",
					'terms = substr(terms, 13), entries = entries - 1', "terms = '', entries = 0", 'first_leaf = first_leaf + 1000000, end_leaf = end_leaf + 1000000'),
					'DELETE FROM finance.audit_term'))) } ],
	'swapped leaves of terms' => [ 20, sub { return ("UPDATE finance.audit_term t SET terms = substr(terms, 1, k + 8) || substr(terms, k + 21, 4) || substr(terms, k + 13, 8) || substr(terms, k + 9, 4) || substr(terms, k + 25)"
				  . ' FROM (SELECT h.ctid AS run, 12 * i AS k FROM finance.audit_term h, generate_series(0, entries - 2) i WHERE substr(terms, 12 * i + 9, 4) <> substr(terms, 12 * i + 21, 4)'
				  . " ORDER BY md5(first_leaf || ' ' || i || ' " . int(rand(1000)) . "') LIMIT 1) h WHERE t.ctid = h.run") } ],
	'more terms' => [ 10, sub { return (on_run(int(rand($runs)), "INSERT INTO finance.audit_term SELECT " . pick('50, first_leaf, end_leaf, entries, terms', "50, first_leaf + 1, end_leaf, 0, ''", '50, first_leaf + 100000, end_leaf + 100000, entries, terms',
					"50, -100, -5, 0, ''") . ' FROM finance.audit_term')) } ],
	'incarnation' => [ 12, sub { return (pick(map({ "$_ WHERE incarnation = " . (1 + int(rand(2))) } 'DELETE FROM finance.audit_incarnation', 'UPDATE finance.audit_incarnation SET incarnation = incarnation + 5',
					'UPDATE finance.audit_incarnation SET system_identifier = system_identifier + 1', 'UPDATE finance.audit_incarnation SET first_block = first_block + 1'),
				'INSERT INTO finance.audit_incarnation SELECT 3, 77, first_block, started_at FROM finance.audit_incarnation WHERE incarnation = 2')) } ],
	'version' => [ 15, sub { return ('UPDATE finance._account SET version = ' . pick('version + 1', 'version - 1', 'version + 5000000000', '9223372036854775807', '0')
				. ' WHERE account_id = (SELECT account_id FROM finance._account WHERE version > 0 ORDER BY account_id OFFSET ' . int(rand(8)) . ' LIMIT 1)') } ]);

my ($script, @made) = ('');
foreach my $kind (sort keys %kinds)
{
	my ($times, $attack) = @{ $kinds{$kind} };

	foreach (1 .. $times * $soak)
	{
		my ($statement, @targets) = $attack->();
		my $wanted = @targets;

		# one of them is enough
		($wanted, @targets) = (1, @{ $targets[0] }) if ref $targets[0];
		push @made, { kind => $kind, wanted => $wanted, statement => $statement };
		$script .= "SELECT public.attack(\$a\$$statement\$a\$, '{" . join(', ', @targets) . "}');\n";
	}
}
cmp_ok(scalar @made, '>=', 1000, scalar(@made) . ' attacks');
my @answers = split /\n/, ask($script);
is(scalar @answers, scalar @made, 'are made');

my (%failed, %said);
foreach my $i (0 .. $#made)
{
	my ($rows, $named, $problems) = split /\|/, $answers[$i] // 'none||';
	my $attack = $made[$i];

	$failed{ $attack->{kind} } //= [];
	push @{ $failed{ $attack->{kind} } }, "$answers[$i]: $attack->{statement}"
	  unless $rows =~ /^[1-9]\d*$/ && $named >= $attack->{wanted};
	$said{$_}++ foreach split /, /, $problems // '';
}
foreach my $kind (sort keys %failed)
{
	my @failed = @{ $failed{$kind} };

	is(scalar @failed, 0, "$kind: " . $kinds{$kind}[0] * $soak . ' attacks, each found and named')
	  or diag(join "\n", @failed[ 0 .. ($#failed < 4 ? $#failed : 4) ]);
}
note "$_: $said{$_}" foreach sort keys %said;

# ------------------------------------------------------------------------
# what cannot be found
# ------------------------------------------------------------------------

cmp_ok(scalar @lost, '>', 0, 'transactions end with a row change');
my $lost = pick(@lost);
like(ask("SELECT public.attack('DELETE FROM $r WHERE id = $lost->{id}', '{}')"), qr/^0\|/, 'such a deletion is not found before it is sealed');
my $changed = pick(@open);
like(ask("SELECT public.attack(\$a\$" . edit($changed, 'reason', 1) . "\$a\$, '{}')"), qr/^0\|/, 'nor is a change with its hash');
my $reason = pick(@sealed[ -5 .. -1 ]);
my ($size, $root) = split /\|/, $kept;
my $again = ask(qq{BEGIN;
	DELETE FROM finance.audit_leaves WHERE block >= $blocks - 1; DELETE FROM finance.audit_block WHERE block >= $blocks - 1;
	DELETE FROM finance.audit_node n WHERE (n.index + 1) << n.level > (SELECT max(size) FROM finance.audit_block); DELETE FROM finance.audit_tree;
	DELETE FROM finance.audit_term;
	} . edit($reason, 'reason', 1) . qq{
	SELECT finance._rebuild_audit_tree() > 0; SELECT finance._rebuild_audit_terms() > 0; SELECT finance.seal_audit() > 0;
	SELECT count(*) FROM finance.verify_audit();
	SELECT count(*) FROM finance.audit_record r WHERE id = $reason->{id} AND reason LIKE '%x';
	SELECT finance._merkle_root(ARRAY(SELECT leaf_hash FROM $r JOIN finance.audit_incarnation USING (system_identifier) ORDER BY incarnation, xid, sequence LIMIT $size)) = '$root';
	ROLLBACK});
is($again, "t\nt\nt\n0\n1\nf", 'what was sealed anew verifies, but not with a digest kept outside');

is(ask('SELECT * FROM finance.verify_audit()'), '', 'afterwards the book verifies as before');
ask(join '', map { "ALTER TABLE $_ ENABLE TRIGGER ALL;" } @tables);
ask('SELECT finance.seal_audit()');
is_sound($node, 'sealed');
$node->stop;
done_testing();
