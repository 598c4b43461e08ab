# Sealing without a worker: what is sealed and in which order, what holds it up,
# what is refused, and what is found out.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceSeal;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');

$node->init;
$node->append_conf('postgresql.conf',
	"max_prepared_transactions = 4\nautovacuum = off\nshared_preload_libraries = ''\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template0');
$node->safe_psql('postgres', 'CREATE EXTENSION finance');

# an error by its SQLSTATE, and nothing is sealed by it
sub refused
{
	my ($sql, $sqlstate, $name) = @_;
	my $before = sealed_total($node);
	my ($code, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  $sqlstate:/, $name);
	is(sealed_total($node), $before, "$name: nothing is sealed");
}

# ------------------------------------------------------------------------
# from the first record on
# ------------------------------------------------------------------------

is(seal($node), '0', 'nothing to seal');
is_query($node, 'SELECT count(*) FROM finance.audit_tree',
	'0', 'and nothing is begun');
is_query($node, 'SELECT unsealed, lag, message FROM finance.audit_lag()',
	'0|00:00:00|all records are sealed', 'no lag');

open_accounts($node, map { "a$_" } 1 .. 4);
is_query($node, 'SELECT unsealed, oldest_at IS NOT NULL, holder_kind, message FROM finance.audit_lag()',
	'4|t||4 unsealed: the worker, or seal_audit(), will seal them', 'lag of what nobody holds');
is(seal($node), '4', 'records are sealed');
is(seal($node), '0', 'once');
is_query($node,
	'SELECT incarnation, first_block, system_identifier = (SELECT system_identifier FROM pg_control_system()) FROM finance.audit_incarnation',
	'1|1|t', 'the first incarnation');
is_query($node, 'SELECT timeline, lsn > \'0/0\', sealed_at >= last_recorded_at FROM finance.audit_block',
	'1|t|t', 'where and when');
is_sealed_right($node, 'first block');

is( $node->safe_psql(
		'postgres', q(
BEGIN;
SELECT status FROM finance.transfer('a1', 'a2', 1);
SELECT finance.seal_audit();
COMMIT;
SELECT finance.seal_audit();
SELECT finance.seal_audit();
)),
	"completed\n0\n1\n0",
	'not what the sealing transaction itself wrote, until it has committed');

# ------------------------------------------------------------------------
# savepoints, rollbacks, and many records
# ------------------------------------------------------------------------

my $seed = $ENV{FIN_SEED} // int(rand(1_000_000));
note("FIN_SEED=$seed");
srand($seed);

my $script = '';
foreach my $transaction (1 .. 60)
{
	$script .= "BEGIN;\n";
	foreach my $step (1 .. 1 + int(rand(6)))
	{
		my ($from, $to) = (1 + int(rand(2)), 3 + int(rand(2)));

		$script .= "SAVEPOINT s;\n" if rand() < 0.7;
		$script .= "SELECT FROM finance.transfer('a$from', 'a$to', $step);\n";
		$script .= 'SAVEPOINT t; ROLLBACK TO t; '
		  . "SELECT FROM finance.transfer_batch(ARRAY[finance.request('a$from', 'a$to', 1), finance.request('a$to', 'a$from', 1)]);\n"
		  if rand() < 0.3;
		$script .= "SAVEPOINT u; SELECT FROM finance.transfer('a1', 'a2', 1); ROLLBACK TO u;\n"
		  if rand() < 0.3;
	}
	$script .= (rand() < 0.15 ? 'ROLLBACK' : 'COMMIT') . ";\n";
	$script .= "SELECT finance.seal_audit();\n" if rand() < 0.5;
}
$node->safe_psql('postgres', $script);
seal($node);
is_query($node, all_sealed(), 't', 'every record is sealed');
is_query($node,
	'SELECT count(*) FROM (SELECT xid FROM finance.audit_record GROUP BY xid HAVING max(sequence) > count(*)) x',
	'0', 'rolled back savepoints leave no gaps');
is_sealed_right($node, 'savepoints');

$node->safe_psql('postgres', q(
BEGIN;
SELECT finance.create_account('b' || i, 'EUR') FROM generate_series(1, 20000) i;
COMMIT;
));
is($node->safe_psql('postgres', "BEGIN; SELECT finance.seal_audit(); ROLLBACK"),
	'20000', 'many, and then rolled back');
is_query($node, all_sealed(), 'f', 'none of them is sealed');
is($node->safe_psql('postgres',
		"BEGIN; SAVEPOINT s; SELECT finance.seal_audit(); ROLLBACK TO s; SELECT finance.seal_audit(); COMMIT"),
	"20000\n20000", 'again, in a savepoint and then outside');
is_query($node, 'SELECT records FROM finance.audit_block ORDER BY block DESC LIMIT 3',
	"3616\n8192\n8192", 'in blocks of at most 8192');
is_sealed_right($node, 'many');

# ------------------------------------------------------------------------
# what holds it up: the oldest open transaction of the cluster
# ------------------------------------------------------------------------

my $old = $node->background_psql('other');
$old->query_safe('BEGIN; SELECT pg_current_xact_id()');
my $old_pid = $old->query_safe('SELECT pg_backend_pid()');
my $first = $node->background_psql('postgres');
$first->query_safe("BEGIN; SELECT finance.transfer('a1', 'a2', 1)");
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 2)");

is(seal($node), '0', 'nothing is sealed while an older transaction is open elsewhere');
is_query($node,
	'SELECT unsealed, holder_kind, holder_pid, holder_gid, holder_database, holder_since IS NOT NULL, lag > interval \'0\' FROM finance.audit_lag()',
	"1|backend|$old_pid||other|t|t", 'which is named');
is_query($node, 'SELECT message ~ \'^1 unsealed: process \d+ has a transaction open since \', holder_query ~ \'pg_backend_pid\' FROM finance.audit_lag()',
	't|t', 'in words');
$old->query_safe('ROLLBACK');
is(seal($node), '0', 'nor while an older one writes to the log');
is_query($node, 'SELECT unsealed, holder_kind, holder_database FROM finance.audit_lag()',
	'1|backend|postgres', 'which is named then');
$first->query_safe('COMMIT');
is(seal($node), '2', 'then both');
is_sealed_right($node, 'the one begun first comes first');

# prepared, also over a restart
$node->safe_psql('postgres',
	"BEGIN; SELECT finance.transfer('a1', 'a2', 3); PREPARE TRANSACTION 'gid one'");
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 4)");
is(seal($node), '0', 'a prepared one holds it up');
$_->quit foreach $old, $first;
$node->restart;
is(seal($node), '0', 'also after a restart');
is_query($node,
	'SELECT unsealed, holder_kind, holder_pid, holder_gid, holder_database FROM finance.audit_lag()',
	'1|prepared||gid one|postgres', 'and is named');
is_query($node, 'SELECT message ~ \'^1 unsealed: transaction "gid one" is prepared since \' FROM finance.audit_lag()',
	't', 'in words');
$node->safe_psql('postgres', "COMMIT PREPARED 'gid one'");
is(seal($node), '2', 'then both');
$node->safe_psql('postgres',
	"BEGIN; SELECT finance.transfer('a1', 'a2', 3); PREPARE TRANSACTION 'gid two'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'gid two'");
is(seal($node), '0', 'one that is rolled back leaves nothing');
is_sealed_right($node, 'prepared');

# an old snapshot is no hindrance, nor does one seal by it
$old = $node->background_psql('other');
$first = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$first->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM finance.audit_record');
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 4)");
is($first->query_safe('SELECT finance.seal_audit(); COMMIT'), '1', 'seals what its snapshot does not see');
$old->query_safe('COMMIT');
is_sealed_right($node, 'old snapshot');

# ------------------------------------------------------------------------
# one sealer at a time
# ------------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 4)");
$first->query_safe('BEGIN');
is($first->query_safe('SELECT finance.seal_audit()'), '1', 'one seals');
$old->quit;
my $second = $node->background_psql('postgres');
$second->query_until(qr/asked/, "\\echo asked\nSELECT 'second ' || finance.seal_audit();\n");
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'object'")
  or die 'nobody waits';
is_query($node, "SELECT status FROM finance.transfer('a4', 'a3', 1)",
	'completed', 'nobody who pays waits');
$first->query_safe('COMMIT');
like($second->query('SELECT 1'), qr/second [01]\n/, 'another waits for it');
$_->quit foreach $first, $second;
seal($node);
is_query($node, all_sealed(), 't', 'all is sealed');
is_sealed_right($node, 'two sealers');

# ------------------------------------------------------------------------
# a record that was changed before it was sealed
# ------------------------------------------------------------------------

my $partition = $node->safe_psql('postgres',
	'SELECT DISTINCT tableoid::regclass FROM finance.audit_record');
$node->safe_psql('postgres', "SELECT finance.transfer('a1', 'a2', 7)");
my $altered = $node->safe_psql('postgres', qq(
ALTER TABLE $partition DISABLE TRIGGER guard;
UPDATE $partition SET amount = 8 WHERE id = (SELECT max(id) FROM $partition WHERE operation = 'transfer') RETURNING id;
ALTER TABLE $partition ENABLE ALWAYS TRIGGER guard;
));
my ($code, $out, $err) = $node->psql('postgres', 'SELECT finance.seal_audit()');
# with two records of what was done to the guard
is($out, '3', 'is sealed');
like($err, qr/WARNING:  audit record $altered was changed before it was sealed/, 'with a warning');
is_sealed_right($node, 'with the hash its writer gave it');

# ------------------------------------------------------------------------
# guards, and what is refused
# ------------------------------------------------------------------------

foreach my $table (qw(audit_incarnation audit_block audit_leaves audit_node audit_tree audit_term))
{
	my $column = $node->safe_psql('postgres',
		"SELECT attname FROM pg_attribute WHERE attrelid = 'finance.$table'::regclass AND attnum = 1");

	refused("UPDATE finance.$table SET $column = $column", 'LG201', "$table: update");
	refused("DELETE FROM finance.$table", 'LG201', "$table: delete");
	refused("TRUNCATE finance.$table", 'LG201', "$table: truncate");
	refused("SET session_replication_role = replica; DELETE FROM finance.$table",
		'LG201', "$table: delete as a replica");
}
refused('BEGIN READ ONLY; SELECT finance.seal_audit()', '25006', 'sealing in a read-only transaction');
refused('BEGIN READ ONLY; SELECT finance._rebuild_audit_tree()', '25006', 'rebuilding in a read-only transaction');
refused('BEGIN READ ONLY; SELECT finance._rebuild_audit_terms()', '25006', 'making terms again in a read-only transaction');
refused("SELECT finance._audit_term('thing', '1')", '22023', 'another kind of term');
refused("SELECT finance._audit_term('transfer', 'x')", '22P02', 'no id');

$node->safe_psql('postgres', "SELECT finance.transfer('a1', 'a2', 7)");
refused("BEGIN; DROP INDEX ${partition}_order; SELECT finance.seal_audit()", '55000', 'without its index');
refused("BEGIN; ALTER TABLE finance.audit_record ADD COLUMN more int; SELECT finance.seal_audit()",
	'0A000', 'with another column');
refused("BEGIN; CREATE TRIGGER mine BEFORE INSERT ON finance.audit_block EXECUTE FUNCTION finance._seal_guard(); SELECT finance.seal_audit()",
	'0A000', 'with a trigger of others');
refused("BEGIN; ALTER TABLE finance.audit_tree DISABLE TRIGGER guard; UPDATE finance.audit_tree SET horizon = '9000000'; SELECT finance.seal_audit()",
	'LG205', 'when transaction ids have gone back');
refused("BEGIN; ALTER TABLE finance.audit_tree DISABLE TRIGGER guard; UPDATE finance.audit_tree SET frontier = frontier || '\\x00'; SELECT finance.seal_audit()",
	'LG205', 'when the tree contradicts itself');
refused("BEGIN; ALTER TABLE finance.audit_leaves DISABLE TRIGGER guard; DELETE FROM finance.audit_leaves;"
	  . " SELECT finance._audit_find(finance._audit_term('transfer', (SELECT min(id)::text FROM finance.transfer)))",
	'LG205', 'when leaves are missing');
is(seal($node), '1', 'as it was, it goes on');

# indexes that others made are used if they are such
$node->safe_psql('postgres',
	"CREATE INDEX mine ON $partition (xid, sequence); DROP INDEX ${partition}_order; SELECT finance.transfer('a1', 'a2', 7)");
is(seal($node), '3', 'by another index of the same columns');

# ------------------------------------------------------------------------
# the tree's row, made again
# ------------------------------------------------------------------------

my $tree = $node->safe_psql('postgres', 'SELECT size, frontier, incarnation, block, digest FROM finance.audit_tree');
my $size = sealed_total($node);
my $remove = 'ALTER TABLE finance.audit_tree DISABLE TRIGGER guard; DELETE FROM finance.audit_tree; ALTER TABLE finance.audit_tree ENABLE ALWAYS TRIGGER guard';
is(seal($node), '0', 'all is sealed');
is_query($node, 'SELECT finance._rebuild_audit_tree()', $size, 'there is nothing to make again');
$node->safe_psql('postgres', $remove);
($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT finance.seal_audit()");
like($err, qr/LG205: the row of finance.audit_tree is missing/, 'sealing says so');
like($err, qr/_rebuild_audit_tree/, 'and what to do');
is_query($node, 'SELECT finance._rebuild_audit_tree()', $size, 'it is made again');
is($node->safe_psql('postgres', 'SELECT size, frontier, incarnation, block, digest FROM finance.audit_tree'),
	$tree, 'as it was');
is(seal($node), '2', 'and nothing is sealed twice but what was done to the guard is');
$node->safe_psql('postgres', "SELECT finance.transfer('a1', 'a2', 7)");
is(seal($node), '1', 'it goes on');
is_sealed_right($node, 'rebuilt');
refused("BEGIN; $remove; ALTER TABLE finance.audit_node DISABLE TRIGGER guard; DELETE FROM finance.audit_node; SELECT finance._rebuild_audit_tree()",
	'LG205', 'nodes are missing');
refused("BEGIN; $remove; ALTER TABLE finance.audit_leaves DISABLE TRIGGER guard;"
	  . ' DELETE FROM finance.audit_leaves WHERE block = (SELECT max(block) FROM finance.audit_leaves); SELECT finance._rebuild_audit_tree()',
	'LG205', 'leaves are missing');
refused("BEGIN; $remove; ALTER TABLE finance.audit_node DISABLE TRIGGER guard; UPDATE finance.audit_node SET hash = sha256(hash); SELECT finance._rebuild_audit_tree()",
	'LG205', 'a node was changed');

# ------------------------------------------------------------------------
# terms: the same everywhere; runs; made again
# ------------------------------------------------------------------------

my $terms = q(SELECT finance._audit_term('transfer', '1'), finance._audit_term('account', '1'),
	finance._audit_term('trace', '00112233-4455-6677-8899-aabbccddeeff'),
	finance._audit_term('row', 'public.note', 7, '{"id":5}'), finance._audit_term('row', 'n', 7, E'\\u00e9'));
# by audit_term.h, computed elsewhere
my $written = '6652752710721360148|-4322171052960249023|-2369855484476536778|1636449121693679408|-7171780146476718295';

$node->safe_psql('postgres', "CREATE DATABASE utf8 TEMPLATE template0 ENCODING UTF8 LC_COLLATE 'C' LC_CTYPE 'C'");
$node->safe_psql('postgres', "CREATE DATABASE latin1 TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'");
foreach my $database (qw(utf8 latin1))
{
	$node->safe_psql($database, 'CREATE EXTENSION finance');
	is_query($node, $terms, $written, "terms are what they were, in $database", $database);
}

# a full run between others stays between them when these are merged
foreach my $k (1 .. 40)
{
	$node->safe_psql('postgres', "SELECT finance.transfer('a1', 'a2', 1)");
	seal($node);
	$node->safe_psql('postgres', 'ALTER TABLE finance.audit_term DISABLE TRIGGER guard;'
		  . ' UPDATE finance.audit_term SET level = 100 WHERE first_leaf = (SELECT max(first_leaf) FROM finance.audit_term);'
		  . ' ALTER TABLE finance.audit_term ENABLE ALWAYS TRIGGER guard')
	  if $k == 7;
}
is_sealed_right($node, 'runs that are not next to each other');
my $wrong = $node->safe_psql('postgres', 'SELECT problem FROM finance.verify_audit()');
is($wrong, 'altered', 'are right');
is_query($node, "SELECT count(*) > 30, bool_and(leaf > before) FROM (SELECT leaf, lag(leaf, 1, -1::bigint) OVER () AS before"
	  . " FROM finance._audit_find(finance._audit_term('account', (SELECT account_id::text FROM finance.account WHERE code = 'a1')))) f",
	't|t', 'and are read in the order of the log');

$size = sealed_total($node);
is_query($node, 'BEGIN; ALTER TABLE finance.audit_term DISABLE TRIGGER guard; DELETE FROM finance.audit_term;'
	  . ' ALTER TABLE finance.audit_term ENABLE ALWAYS TRIGGER guard; SELECT DISTINCT problem FROM finance.verify_audit() ORDER BY 1; COMMIT',
	"altered\nterms missing", 'without runs');
is_query($node, 'SELECT finance._rebuild_audit_terms()', $size, 'they are made again');
is(seal($node), '2', 'what was done to the guard is sealed');
is_sealed_right($node, 'terms made again');
is($node->safe_psql('postgres', 'SELECT problem FROM finance.verify_audit()'), 'altered', 'are those of the records');

# ------------------------------------------------------------------------
# who may
# ------------------------------------------------------------------------

$node->safe_psql('postgres', q(
CREATE ROLE teller LOGIN; CREATE ROLE chief LOGIN; CREATE ROLE auditor LOGIN;
SELECT finance.grant_access('teller', 'app'), finance.grant_access('chief', 'operator'), finance.grant_access('auditor', 'auditor');
));

sub asks
{
	my ($user, $sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		connstr => $node->connstr('postgres') . " user=$user");

	return $err =~ /ERROR:  (\w+)/ ? $1 : $out;
}

is(asks('teller', 'SELECT finance.seal_audit()'), '42501', 'an app does not seal');
is(asks('teller', 'SELECT unsealed FROM finance.audit_lag()'), '42501', 'nor asks for the lag');
is(asks('chief', 'SELECT finance.seal_audit() >= 0'), 't', 'an operator does');
is(asks('chief', "SELECT finance._rebuild_audit_$_()"), '42501', "but does not rebuild the $_") foreach qw(tree terms);
is(asks('auditor', 'SELECT finance.seal_audit()'), '42501', 'an auditor does not seal');
is(asks('auditor', 'SELECT unsealed FROM finance.audit_lag()'), '0', 'but asks for the lag');
is(asks('auditor', 'SELECT count(*) > 0 FROM finance.audit_block'), 't', 'and reads blocks');
foreach my $user ('teller', 'chief', 'auditor')
{
	is(asks($user, "SELECT FROM finance.$_"), '42501', "$user does not read $_")
	  foreach qw(audit_leaves audit_node audit_tree audit_term);
	is(asks($user, "INSERT INTO finance.$_ SELECT * FROM finance.$_"), '42501', "$user does not write $_")
	  foreach qw(audit_incarnation audit_block);
	is(asks($user, 'SELECT finance._audit_find(1)'), '42501', "$user does not look for leaves");
}

# queries of others are hidden from an auditor as they are from anybody
$first = $node->background_psql('postgres');
$first->query_safe("BEGIN; SELECT finance.transfer('a1', 'a2', 1)");
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 1)");
is(asks('auditor', 'SELECT unsealed, holder_kind, holder_pid IS NOT NULL, holder_query FROM finance.audit_lag()'),
	'1|backend|t|<insufficient privilege>', 'the process is named, its query is not told');
$first->query_safe('COMMIT');
$first->quit;

is_query($node, "SELECT invariant, object LIKE '% record $altered %' FROM finance.check_integrity()",
	'I6 altered|t', 'the invariants hold, but for the record that was changed');
$node->stop;
done_testing();
