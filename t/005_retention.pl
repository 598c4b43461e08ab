# What is kept for a time only: dedup ids, processed messages, the archive.  The
# worker truncates and drops, waits for nobody doing it, and nothing is left to
# vacuum, also while a snapshot is held open.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = book_node('main');
my $seen = "ARRAY['finance._dedup_0', 'finance._dedup_1', 'finance._dedup_2',"
  . " 'finance.inbox_0', 'finance.inbox_1', 'finance.inbox_2']::regclass[]";

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# number of the slot that a period of so many hours fills after this one
sub next_slot
{
	my ($hours) = @_;
	return "((floor(extract(epoch FROM now() - timestamptz '2000-01-01 00:00+00') / 3600 / $hours)::bigint + 1) % 3)";
}

sub ids_at
{
	my ($clock, @ids) = @_;
	return ("SET finance.test_clock = '$clock'",
		map { "SELECT finance.send('q', '1', dedup_id => '$_'), finance.process_once('c', '$_')" } @ids);
}

sql("SELECT finance.create_queue('q')");
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'", 'the worker runs');

# ------------------------------------------------------------------------
# while a snapshot is held: nothing dead, whatever passes
# ------------------------------------------------------------------------

my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM finance.inbox');
is( sql("SELECT count(DISTINCT id) FROM generate_series(1, 20000) n CROSS JOIN LATERAL finance.send('q', '1', dedup_id => (n % 10000)::text) AS id"),
	'10000', 'of each two messages one is dropped');
is( sql("SELECT count(*) FROM generate_series(1, 20000) n WHERE finance.process_once('c', n % 10000)"),
	'10000', 'and one processed');
# figures of this session are flushed when it ends
poll_ok($node,
	"SELECT sum(n_tup_ins) = 20000 FROM pg_stat_all_tables WHERE relid = ANY ($seen)",
	'20,000 ids were added');
is(sql("SELECT sum(n_tup_upd), sum(n_tup_del), sum(n_dead_tup) FROM pg_stat_all_tables WHERE relid = ANY ($seen)"),
	'0|0|0', 'none was changed, and none is dead');

# two years ago each slot was filled
sql(ids_at('2024-01-01 00:00+00', 'a'), ids_at('2024-01-01 06:00+00', 'b'), ids_at('2024-01-01 12:00+00', 'c'),
	ids_at('2024-03-01 00:00+00', 'd'), ids_at('2024-04-01 00:00+00', 'e'), ids_at('2024-05-01 00:00+00', 'f'));
is(sql("SELECT count(DISTINCT tableoid) FROM finance._dedup"), '3', 'all slots have dedup ids');
is(sql("SELECT count(DISTINCT tableoid) FROM finance.inbox"), '3', 'and processed messages');
$old->query_safe('COMMIT');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM finance.queue');

# who uses the next slot is not waited for, nor does anybody wait behind
my $user = $node->background_psql('postgres');
$user->query_safe('BEGIN; LOCK TABLE finance._dedup_0, finance._dedup_1, finance._dedup_2,'
	  . ' finance.inbox_0, finance.inbox_1, finance.inbox_2 IN ROW EXCLUSIVE MODE');
is(sql("SET lock_timeout = '10s'", 'SELECT finance._truncate_expired()'), '0', 'what is in use is left');
$user->query_safe('COMMIT');
$user->quit;

# the worker does it when it starts, and the open snapshot does not keep it
is(sql("SELECT pg_terminate_backend(pid) FROM finance.workers WHERE database = 'postgres'"), 't', 'end the worker');
poll_ok($node, "SELECT count(*) = 0 FROM finance._dedup WHERE slot = " . next_slot(6),
	'the worker truncates dedup ids');
poll_ok($node, "SELECT count(*) = 0 FROM finance.inbox WHERE slot = " . next_slot(24 * 30),
	'and processed messages');
is(sql("SELECT count(*) > 0 FROM finance._dedup WHERE seen_at < '2025-01-01'"), 't', 'of one slot at a time');
is( sql("SELECT count(*) FROM generate_series(1, 10000) n WHERE finance.process_once('c', n % 10000)"),
	'0', 'what is in its window stays');
$old->query_safe('COMMIT');
$old->quit;

# a longer time to remember: nothing that is stored is forgotten by it
my $processed = sql("SELECT count(*) FROM finance.inbox");
sql("ALTER SYSTEM SET finance.inbox_retention = 3650", 'SELECT pg_reload_conf()');
poll_ok($node, "SELECT current_setting('finance.inbox_retention') = '3650'", 'remember for ten years');
is(sql("SELECT count(*) FROM finance.inbox WHERE message_id ~ '^[a-f]\$' AND finance.process_once('c', message_id)"),
	'0', 'what was out of its time is in it again');
sql('SELECT finance._truncate_expired()');
is(sql("SELECT count(*) FROM finance.inbox"), $processed, 'and stays');
sql("ALTER SYSTEM SET finance.inbox_retention = 1", 'SELECT pg_reload_conf()');
poll_ok($node, "SELECT current_setting('finance.inbox_retention') = '1'", 'remember for a day');
is( sql("SELECT count(*) FROM generate_series(1, 10000) n WHERE finance.process_once('c', n % 10000)"),
	'0', 'of today nothing is forgotten');
is(sql("SELECT finance.process_once('c', message_id) FROM finance.inbox WHERE message_id ~ '^[a-f]\$' ORDER BY seen_at DESC LIMIT 1"),
	't', 'of long ago all');

# many sessions that take the same ids at once: each id is taken once
sql('CREATE TABLE taken (id text)');
my $script = $node->basedir . '/once.sql';
append_to_file($script, <<'SQL');
\set n random(1, 300)
BEGIN;
INSERT INTO taken SELECT 'n' || :n WHERE finance.process_once('many', 'n' || :n);
SELECT finance.send('q', '1', dedup_id => 's' || :n) AS sent \gset
INSERT INTO taken SELECT 's' || :n FROM finance._dedup WHERE dedup_id = 's' || :n AND msg_id = :sent AND xmin = pg_current_xact_id()::xid;
SELECT CASE WHEN random() < 0.3 THEN 'ROLLBACK' ELSE 'COMMIT' END AS finish \gset
:finish;
SQL
$node->command_ok(
	[
		'pgbench', '-n', '-c', 8, '-j', 2, '-t', 300, '--random-seed=4711', '--max-tries=100', '-f', $script,
		$node->connstr('postgres')
	],
	'eight sessions take 300 ids, and roll back some');
is(sql('SELECT count(*) FROM (SELECT id FROM taken GROUP BY id HAVING count(*) > 1) t'), '0', 'none is taken twice');
is(sql("SELECT count(*) FROM taken WHERE id LIKE 'n%'"),
	sql("SELECT count(*) FROM finance.inbox WHERE consumer = 'many'"), 'each that is stored was');
is(sql("SELECT count(*) FROM taken WHERE id LIKE 's%'"),
	sql("SELECT count(*) FROM finance._dedup WHERE dedup_id LIKE 's%'"), 'and of dedup ids');
cmp_ok(sql("SELECT count(*) FROM taken"), '>', 400, 'nearly all are');

# ------------------------------------------------------------------------
# the archive goes by months
# ------------------------------------------------------------------------

sub month
{
	my ($name, $from, $to) = @_;
	return (
		"CREATE TABLE finance.message_archive_$name PARTITION OF finance.message_archive FOR VALUES FROM ("
		  . sql("SELECT finance.id_floor('$from')") . ') TO ('
		  . sql("SELECT finance.id_floor('$to')") . ')',
		"INSERT INTO finance.message_archive (archive_id, msg_id, message_id, queue_id, enqueued_at, archived_at, tenant_id, read_ct, priority, payload)"
		  . " SELECT finance.id_floor('$from') + n, n, n, 1, '$from', '$from', 0, 1, 0, '1' FROM generate_series(1, 100) n");
}

sql("SELECT finance.archive('q', msg_id) FROM finance.read('q', 0, 10)");
my $kept = sql('SELECT count(*) FROM finance.message_archive');
is($kept, '10', 'messages of this month');
sql(month('2023_12', '2023-12-01 00:00+00', '2024-01-01 00:00+00'));
sql(month('2024_01', '2024-01-01 00:00+00', '2024-02-01 00:00+00'));
# one that is somebody's, by its name
sql(month('old', '2022-01-01 00:00+00', '2022-02-01 00:00+00'));
sql('CREATE VIEW january AS SELECT * FROM finance.message_archive_2024_01');

sql('ALTER SYSTEM SET finance.archive_retention = 36500', 'SELECT pg_reload_conf()');
poll_ok($node, "SELECT current_setting('finance.archive_retention') = '36500'", 'keep for a century');
sql('ALTER SYSTEM SET finance.archive_retention = 60', 'SELECT pg_reload_conf()');
poll_ok($node,
	"SELECT (SELECT count(*) FROM finance.message_archive_2024_01) = 0",
	'old months are emptied, also one that cannot be dropped');
poll_ok($node,
	"SELECT count(*) = 2 FROM finance.audit_record WHERE operation = 'drop_archive' AND actor = 'finance worker' AND status = 'completed'",
	'which is audited');
is( sql("SELECT object, (request::jsonb)->>'retention_days' FROM finance.audit_record WHERE operation = 'drop_archive' ORDER BY 1"),
	"finance.message_archive_2023_12|60\nfinance.message_archive_2024_01|60", 'month by month');
ok($node->log_contains('finance.message_archive_2023_12 is truncated'), 'and in the log');
poll_ok($node, "SELECT to_regclass('finance.message_archive_2023_12') IS NULL", 'then dropped');
poll_ok($node,
	"SELECT last_error = 'cannot drop table finance.message_archive_2024_01 because other objects depend on it' FROM finance.workers WHERE database = 'postgres'",
	'what is in the way of that is told');
sql('DROP VIEW january');
poll_ok($node, "SELECT to_regclass('finance.message_archive_2024_01') IS NULL", 'until it is gone');
is(sql('SELECT count(*) FROM finance.message_archive_old'), '100', 'tables of other names are not ours to drop');
is(sql('SELECT count(*) FROM finance.message_archive'), $kept + 100, 'this month is there');
is( sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'finance.transfer'::regclass"),
	sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass"),
	'of transfers and the audit log nothing goes');
sql('DROP TABLE finance.message_archive_old');
is_sound($node, 'in the end');

done_testing();
