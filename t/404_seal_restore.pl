# The audit log where it comes into another cluster: by dump and restore, as
# another incarnation; by promotion, as another timeline.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceSeal;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
my $elsewhere = finance_node('elsewhere');
my $dump = $node->basedir . '/book.dump';

$node->init(allows_streaming => 1);
# sealed when we say so: no worker, and no ANALYZE that holds sealing up
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance; CREATE DATABASE copy TEMPLATE template0');
open_accounts($node, map { "a$_" } 1 .. 4);

sub pay
{
	my ($node, $n, $database) = @_;

	$node->safe_psql($database // 'postgres',
		"SELECT count(*) FROM finance.transfer_batch(ARRAY(SELECT finance.request('a1', 'a2', 1) FROM generate_series(1, $n)))");
}

my $blocks = 'SELECT * FROM finance.audit_block ORDER BY block';

# transaction ids that the other cluster will have used again, and more
$node->safe_psql('postgres', 'DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
pay($node, 500);
is(seal($node), '504', 'sealed at home');
pay($node, 7) for 1 .. 3;
my $before = $node->safe_psql('postgres', $blocks);

# ------------------------------------------------------------------------
# into another database of the same cluster: it goes on as it was
# ------------------------------------------------------------------------

$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'restore');
is($node->safe_psql('copy', $blocks), $before, 'blocks as before');
is_sealed_right($node, 'restored beside itself', 'copy');
pay($node, 5, 'copy');
is(seal($node, 'copy'), '26', 'what was not sealed, and what is new');
is_query($node, 'SELECT max(incarnation) FROM finance.audit_incarnation', '1', 'one incarnation', 'copy');
is_sealed_right($node, 'gone on beside itself', 'copy');
is_sound($node, 'beside itself', 'copy');

# ------------------------------------------------------------------------
# into another cluster, beside a worker that looks on, with several jobs
# ------------------------------------------------------------------------

$elsewhere->append_conf('postgresql.conf', "finance.seal_interval = '100ms'\nfinance.launcher_naptime = 1\n");
$elsewhere->start;
foreach my $how ([ 'book', '--jobs=1' ], [ 'quick', '--jobs=4' ])
{
	my ($database, $jobs) = @$how;

	$elsewhere->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$elsewhere->command_ok([ 'pg_restore', '--exit-on-error', $jobs, '-d', $elsewhere->connstr($database), $dump ],
		"$database: restore");
	poll_ok($elsewhere, "SELECT count(*) = 1 FROM finance.workers WHERE database = '$database' AND state = 'running'",
		"$database: the worker runs", $database);
	is($elsewhere->safe_psql($database, $blocks), $before, "$database: nothing is begun by itself");
	is_query($elsewhere, 'SELECT unsealed FROM finance.audit_lag()', '21', "$database: what came unsealed is told", $database);

	pay($elsewhere, 9, $database);
	poll_ok($elsewhere, all_sealed(), "$database: it goes on with the first record", $database);
	is_query($elsewhere, 'SELECT incarnation, first_block, system_identifier = (SELECT system_identifier FROM pg_control_system()) FROM finance.audit_incarnation ORDER BY 1',
		"1|1|f\n2|3|t", "$database: as incarnation 2", $database);
	is_query($elsewhere, 'SELECT block, incarnation, records FROM finance.audit_block ORDER BY 1',
		"1|1|504\n2|1|21\n3|2|9", "$database: after what was left of 1", $database);
	is_query($elsewhere, 'SELECT (SELECT last_xid FROM finance.audit_block WHERE block = 2) > first_xid FROM finance.audit_block WHERE block = 3',
		't', "$database: though transaction ids are lower", $database) if $database eq 'book';
	is_sealed_right($elsewhere, "$database: another incarnation", $database);
	pay($elsewhere, 3, $database);
	poll_ok($elsewhere, all_sealed(), "$database: and on", $database);
	is_sealed_right($elsewhere, "$database: going on", $database);
	is_sound($elsewhere, $database, $database);
}

# ------------------------------------------------------------------------
# and back: what was sealed here before is not sealed again
# ------------------------------------------------------------------------

$elsewhere->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $elsewhere->connstr('quick') ], 'dump elsewhere');
$node->safe_psql('postgres', 'CREATE DATABASE back TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('back'), $dump ], 'restore at home');
is_query($node, 'SELECT unsealed FROM finance.audit_lag()', '0', 'nothing came unsealed', 'back');
is_sealed_right($node, 'back again, nothing begun', 'back');
pay($node, 4, 'back');
is_query($node, 'SELECT unsealed FROM finance.audit_lag()', '4', 'what is new is told', 'back');
is_query($node, 'SELECT count(*) FROM finance.audit_trace((SELECT trace_id FROM finance.audit_record ORDER BY id LIMIT 1))',
	'1', 'a record sealed before is read once', 'back');
is_query($node, 'SELECT count(*) FROM finance.verify_audit()', '0', 'what is new is not taken for inserted', 'back');
is(seal($node, 'back'), '4', 'only what is new is sealed');
is_query($node, 'SELECT incarnation, first_block FROM finance.audit_incarnation ORDER BY 1', "1|1\n2|3\n3|5", 'as incarnation 3', 'back');
is_sealed_right($node, 'back again', 'back');
is_query($node, 'SELECT (SELECT size FROM finance.audit_digest()) = count(*) FROM finance.audit_record', 't', 'a leaf for each record', 'back');
is_query($node, "SELECT count(*) FROM finance.verify_audit($_)", '0', "verified from leaf $_", 'back') foreach 1, 520, 530, 537;
pay($node, 2, 'back');
is(seal($node, 'back'), '2', 'and on');
$node->safe_psql('back', 'ALTER TABLE finance.audit_tree DISABLE TRIGGER guard; DELETE FROM finance.audit_tree; SELECT finance._rebuild_audit_tree()');
is_query($node, 'SELECT horizon <= pg_current_xact_id() AND incarnation = 3 FROM finance.audit_tree', 't', 'its row made again', 'back');
$node->safe_psql('back', 'ALTER TABLE finance.audit_tree ENABLE ALWAYS TRIGGER guard');
seal($node, 'back');
is_sealed_right($node, 'going on at home', 'back');
is_sound($node, 'at home', 'back');

# rows of another cluster that come by replication are not ours to seal
my $partition = $elsewhere->safe_psql('book', 'SELECT DISTINCT tableoid::regclass FROM finance.audit_record');
my $size = sealed_total($elsewhere, 'book');
$elsewhere->safe_psql('book', qq(
BEGIN;
ALTER TABLE $partition DISABLE TRIGGER guard;
CREATE TEMP TABLE theirs AS SELECT * FROM $partition ORDER BY id DESC LIMIT 5;
UPDATE theirs SET system_identifier = 4711;
INSERT INTO $partition SELECT * FROM theirs;
ALTER TABLE $partition ENABLE ALWAYS TRIGGER guard;
COMMIT;
));
pay($elsewhere, 1, 'book');
# that the guard was off and on again is recorded, as is the transfer
poll_ok($elsewhere, "SELECT size >= $size + 3 FROM finance.audit_tree", 'ours are sealed', 'book');
is(sealed_total($elsewhere, 'book'), $size + 3, 'theirs are not');
is(seal($elsewhere, 'book'), '0', 'nor when asked for');
is_sealed_right($elsewhere, 'with rows of others', 'book');
$elsewhere->stop;

# ------------------------------------------------------------------------
# promotion
# ------------------------------------------------------------------------

$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
seal($node);
pay($node, 11);
$node->wait_for_catchup($standby);
my ($code, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT finance.seal_audit()");
like($err, qr/ERROR:  25006/, 'a standby does not seal');
is_query($standby, 'SELECT unsealed, holder_kind FROM finance.audit_lag()', '11|', 'but tells what is unsealed');
is_query($standby, "SELECT count(*) FROM finance._audit_find(finance._audit_term('transfer', (SELECT min(id)::text FROM finance.transfer)))",
	'1', 'and finds records');
$node->stop('immediate');
$standby->promote;
is(seal($standby), '11', 'once it is promoted it seals');
pay($standby, 2);
is(seal($standby), '2', 'and goes on');
is_query($standby, 'SELECT array_agg(DISTINCT incarnation), array_agg(DISTINCT timeline) FROM finance.audit_block',
	'{1}|{1,2}', 'on another timeline');
is_sealed_right($standby, 'promoted');
is_sound($standby, 'promoted');

$standby->stop;
done_testing();
