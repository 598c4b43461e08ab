# What kills queues in PostgreSQL does not kill these: a snapshot that is held
# while messages pass, restarts, crashes, failover, a missing library, and
# queues that are dropped and made again under their users.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use IPC::Run;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 16384;     # that fill a segment
my $batch = 1000;
my $node = finance_node('main', allows_streaming => 1);
$node->start;

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# payloads, in the order of reading
sub got
{
	my ($queue, $how, $on) = @_;

	return ($on // $node)->safe_psql('postgres',
		"SELECT coalesce(string_agg(message #>> '{}', ' ' ORDER BY ordinality), 'nothing') FROM finance."
		  . ($how // "pop('$queue', 100)")
		  . ' WITH ORDINALITY');
}

sql('CREATE EXTENSION finance', 'CREATE EXTENSION pgstattuple');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');

# ------------------------------------------------------------------------
# a snapshot is held while messages pass
# ------------------------------------------------------------------------

sub dead_rows
{
	return sql(q(SELECT sum((pgstattuple(oid)).dead_tuple_count) FROM pg_class WHERE relnamespace = 'finance'::regnamespace AND relkind = 'r'));
}

# of the median of some claims; each is finished
sub buffers
{
	my @buffers;

	foreach my $n (1 .. 9)
	{
		my $plan = sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM finance.read('jobs', 100)");

		push @buffers, $1 + $2
		  if $plan =~ /"Shared Hit Blocks": (\d+).*?"Shared Read Blocks": (\d+)/s;
	}
	sql("SELECT finance.delete('jobs', array_agg(msg_id)) FROM finance.message WHERE queue_id = 1 AND read_ct = 1 AND payload = '1'");
	@buffers = sort { $a <=> $b } @buffers;
	return $buffers[4];
}

# sent, claimed and deleted, each in a transaction of its own
sub pass_on
{
	my ($messages) = @_;

	for (my $n = 0; $n < $messages; $n += $batch)
	{
		sql("SELECT count(*) FROM finance.send_batch('jobs', array_fill('1'::jsonb, '{$batch}'))",
			"CREATE TEMP TABLE mine AS SELECT msg_id FROM finance.read('jobs', 100, $batch)",
			"SELECT count(*) FROM finance.delete('jobs', (SELECT array_agg(msg_id) FROM mine))");
	}
}

sub files
{
	return sql(q(SELECT string_agg(relfilenode::text, ' ' ORDER BY oid) FROM pg_class WHERE relname ~ '^message_1_[0-9]$'));
}

sql("SELECT finance.create_queue('jobs')");
my $files = files();
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');

# what stays behind in the first segment
sql("SELECT finance.send('jobs', '\"slow\"')");
is(got('jobs', "read('jobs', 100000)"), 'slow', 'one is worked on for long');
sql("SELECT finance.send('jobs', '\"late\"', delay => 100000)",
	"SELECT finance.send('jobs', '\"head\"', ordering_key => 'k', delay => 100000)",
	"SELECT finance.send('jobs', '\"next\"', ordering_key => 'k')",
	"SELECT finance.send('jobs', '\"mortal\"', delay => 100000, ttl => 100000)");
is(got('jobs', "read('jobs', 100000, 10)"), 'nothing', 'and others cannot be read yet');

# every batch leaves some, so that there is always one to claim
sql("SELECT count(*) FROM finance.send_batch('jobs', array_fill('1'::jsonb, '{20}'))");
my $at_start = buffers();
my @dead;
foreach my $part (1 .. 6)
{
	pass_on(20_000);
	push @dead, dead_rows();
}
sql("SELECT count(*) FROM finance.send_batch('jobs', array_fill('1'::jsonb, '{20}'))");
my $at_end = buffers();
note("dead rows: @dead; buffers per claim: $at_start, $at_end");

# a claim and a deletion leave two dead rows; a segment may be a batch too long,
# and the worker a moment late
my $most = 3 * 2 * ($rows + 2 * $batch);
cmp_ok(max(@dead), '<', $most, 'dead rows are no more than three segments take');
cmp_ok($dead[5], '<', 2 * max(@dead[ 0 .. 2 ]), 'and do not grow');
cmp_ok($at_start, '>', 0, 'buffers are counted');
cmp_ok($at_end, '<=', 2 * $at_start, 'a claim needs about as many as at the start');
my %before = map { $_ => 1 } split / /, $files;
cmp_ok(scalar(grep { !$before{$_} } split / /, files()), '>=', 2, 'segments were truncated in turn');
is($holder->query_safe('SELECT count(*) > 0 FROM pg_class; COMMIT'), "t", 'the snapshot was held');
$holder->quit;

# the stragglers are as they were
is_query($node,
	"SELECT string_agg(payload #>> '{}' || ' ' || read_ct, ', ' ORDER BY message_id) FROM finance.message WHERE queue_id = 1 AND payload <> '1'",
	'slow 1, late 0, head 0, next 0, mortal 0', 'what stayed behind is there');
sql("SELECT finance.delete('jobs', array_agg(msg_id)) FROM finance.message WHERE queue_id = 1 AND payload = '1'");
is(got('jobs'), 'nothing', 'and cannot be read yet');
is_query($node,
	"SELECT finance.delete('jobs', msg_id, 1) FROM finance.message WHERE payload = '\"slow\"'",
	't', 'who holds one finishes it');
sql("SELECT finance.set_vt('jobs', msg_id, 0) FROM finance.message WHERE payload IN ('\"late\"', '\"head\"')");
is(got('jobs'), 'late head', 'delayed ones can be had sooner');
is(got('jobs'), 'next', 'a key goes on');
is_query($node, "SELECT queue_length, queue_visible_length FROM finance.metrics('jobs')",
	'1|0', 'all are counted');
is_query($node, "SELECT finance.purge_queue('jobs')", '1', 'one is left');

# ------------------------------------------------------------------------
# lives that end, also of messages nobody asks for
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('dead'), finance.create_queue('gone', expired => 'discard')",
	"SELECT finance.create_queue('buried', dead_letter_queue => 'dead', message_ttl => 1), finance.create_queue('kept')");
sql("SELECT finance.send('gone', '1', ttl => 1), finance.send('gone', '\"stays\"', ttl => 1000)",
	"SELECT finance.send('buried', '2', ordering_key => 'k'), finance.send('kept', '3', ttl => 1)");
poll_ok($node,
	"SELECT (SELECT queue_length FROM finance.metrics('gone')) = 1 AND (SELECT queue_length FROM finance.metrics('buried')) = 0 AND (SELECT queue_length FROM finance.metrics('kept')) = 0",
	'what is over is taken out');
is_query($node,
	"SELECT message, headers -> 'x-death' ->> 'reason', headers -> 'x-death' ->> 'queue' FROM finance.pop('dead', 10)",
	'2|expired|buried', 'and goes to the dead-letter queue,');
is_query($node,
	"SELECT payload, headers -> 'x-death' ->> 'reason' FROM finance.message_archive",
	'3|expired', 'or to the archive,');
is(got('gone'), 'stays', 'or vanishes');
sql("SELECT finance.send('buried', '4'), finance.send('gone', '5', ttl => 1)");
$node->restart;
poll_ok($node,
	"SELECT count(*) = 0 FROM finance.message m JOIN finance.queue USING (tenant_id, queue_id) WHERE name IN ('buried', 'gone')",
	'also after a restart, with nobody there');
is(got('dead'), '4', 'none is lost');

# ------------------------------------------------------------------------
# limits and claims over a restart, and a crash
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('few', max_in_flight => 2, max_length => 5)",
	"SELECT count(*) FROM finance.send_batch('few', '{1,2,3,4}')");
is(got('few', "read('few', 1000, 1)"), '1', 'claimed before');
foreach my $how ('restart', 'crash')
{
	if ($how eq 'crash')
	{
		$node->stop('immediate');
		$node->start;
	}
	else
	{
		$node->restart;
	}
	is_query($node, "SELECT queue_length FROM finance.metrics('few')", '4', "$how: the queue is counted");
	is(got('few', "read('few', 1000, 10)"), $how eq 'restart' ? '2' : 'nothing',
		"$how: no more are claimed than may be");
	sql("SELECT finance.send('few', '\"$how\"')") if $how eq 'restart';
	sql("SELECT finance.delete('few', msg_id) FROM finance.message WHERE payload = '\"$how\"'") if $how eq 'restart';
}
my ($code, $out, $err) = $node->psql('postgres',
	"SELECT finance.send('few', '5'), finance.send('few', '6')");
like($err, qr/queue "few" is full/, 'nor sent');
sql("SELECT finance.delete('few', msg_id) FROM finance.message WHERE read_ct > 0");
is(got('few', "read('few', 1000, 10)"), '3 4', 'others follow');

# an unlogged queue is there, and empty after the crash
sql("SELECT finance.create_queue('light', unlogged => true)", "SELECT finance.send('light', '1')",
	"SELECT finance.metrics('light')");
$node->stop('immediate');
$node->start;
is_query($node, "SELECT queue_length FROM finance.metrics('light')", '0', 'an unlogged queue is empty after a crash');
sql("SELECT finance.send('light', '2')");
is(got('light'), '2', 'and goes on');

# ------------------------------------------------------------------------
# prepared transactions, over a restart
# ------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "finance.sweep_interval = 1\n");
$node->reload;
sql("SELECT finance.create_queue('two')", "SELECT finance.send('two', '1'), finance.send('two', '2')");
sql('BEGIN', "SELECT finance.send('two', '3')", "SELECT * FROM finance.pop('two')", "PREPARE TRANSACTION 'a'");
sql('BEGIN', "SELECT * FROM finance.pop('two')", "PREPARE TRANSACTION 'b'");
sql('BEGIN', "SELECT finance.send('two', '4')", "PREPARE TRANSACTION 'c'");
is(got('two'), 'nothing', 'all of it is prepared');
$node->restart;
is(got('two'), 'nothing', 'over a restart');
sql("COMMIT PREPARED 'a'");
sql("ROLLBACK PREPARED 'b'");
sql("ROLLBACK PREPARED 'c'");
is_query($node, "SELECT queue_length FROM finance.metrics('two')", '2', 'counted');
poll_ok($node,
	"SELECT count(*) > 0 FROM finance.read('two', 0)", 'and found by a sweep at the latest');
poll_ok($node,
	"SELECT count(*) = 2 FROM finance.read('two', 0, 10)", 'both');
is(got('two'), '2 3', 'nothing is lost');

# ------------------------------------------------------------------------
# a standby takes over
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('far')", "SELECT finance.send('far', '1')");
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is_query($standby, "SELECT queue_length FROM finance.metrics('far')", '1', 'a standby counts');
($code, $out, $err) = $standby->psql('postgres', "SELECT finance.read('far', 10)");
like($err, qr/read-only transaction/, 'and does not read');
sql("SELECT finance.send('far', '2'), finance.send('far', '3', ordering_key => 'k'), finance.send('far', '4', ordering_key => 'k'), finance.send('far', '5', delay => 1)");
is(got('far', "read('far', 1000)"), '1', 'one is claimed on the primary');
sql("SELECT finance.delete('far', msg_id) FROM finance.message WHERE payload = '2'");
$node->wait_for_catchup($standby);
is_query($standby, "SELECT queue_length FROM finance.metrics('far')", '4', 'it counts what was replayed');
$node->stop;
$standby->promote;
is_query($standby, "SELECT queue_length FROM finance.metrics('far')", '4', 'promoted, it still counts');
is(got('far', "read('far', 1000)", $standby), '3', 'reads on where the primary was');
$standby->safe_psql('postgres', "SELECT finance.delete('far', msg_id) FROM finance.message WHERE payload = '3'");
is(got('far', "read('far', 1000)", $standby), '4', 'with the next of the key');
poll_ok($standby, "SELECT count(*) = 1 FROM finance.pop('far')", 'and the delayed one');
$standby->safe_psql('postgres', "SELECT finance.send('far', '6')");
is(got('far', undef, $standby), '6', 'and writes');
is_query($standby,
	"SELECT finance.delete('far', msg_id, 1) FROM finance.message WHERE payload = '1'",
	't', 'a claim made on the primary holds');
is_query($standby, "SELECT queue_length FROM finance.metrics('far')", '1', 'and counts');
is_sound($standby, 'promoted');
$standby->stop;
$node->start;

# ------------------------------------------------------------------------
# without the library in shared_preload_libraries
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('alone')", "SELECT finance.send('alone', '\"before\"')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
sub quiet_sql
{
	return sql('SET client_min_messages = error', @_);
}
quiet_sql("SELECT finance.send('alone', '1'), finance.send('alone', '2', priority => 5), finance.send('alone', '3', ordering_key => 'k'), finance.send('alone', '4', ordering_key => 'k'), finance.send('alone', '5', delay => 1000)");
is(got('alone', "read('alone', 1000, 10)"), '2 before 1 3', 'without hints: read in order');
is(got('alone', "read('alone', 1000, 10)"), 'nothing', 'once');
quiet_sql("SELECT finance.delete('alone', msg_id), finance.nack('alone', msg_id, 0) FROM finance.message WHERE payload = '3'",
	"SELECT finance.nack('alone', msg_id, 0), finance.archive('alone', msg_id) FROM finance.message WHERE payload = '1'",
	"SELECT finance.set_vt('alone', msg_id, 0) FROM finance.message WHERE payload = '5'");
is(got('alone'), '4 5', 'finished, given back, sooner');
is_query($node, "SELECT queue_length, queue_visible_length FROM finance.metrics('alone')", '2|0', 'counted');
foreach my $limit ('max_length', 'rate_limit', 'max_in_flight')
{
	($code, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY sqlstate\nSELECT finance.create_queue('limited', $limit => 1)");
	like($err, qr/55000/, "$limit is refused");
}
($code, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY sqlstate\nSELECT finance.send('few', '7')");
like($err, qr/55000/, 'so is sending into a queue that has one');
quiet_sql("SELECT finance.send('alone', '6')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'finance'\n");
$node->restart;
is(got('alone'), '6', 'with hints again');
is_query($node, "SELECT queue_length FROM finance.metrics('alone')", '2', 'and counted');

# ------------------------------------------------------------------------
# a queue is dropped and made again under its users
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('phoenix')", 'CREATE TABLE control (done boolean)', 'INSERT INTO control VALUES (false)',
	'CREATE TABLE outcome (what text, error text)',
	q{CREATE PROCEDURE use_it() LANGUAGE plpgsql AS $$
	DECLARE
		what text;
		error text;
	BEGIN
		LOOP
			FOREACH what IN ARRAY ARRAY[
				'SELECT finance.send(''phoenix'', ''1'', ordering_key => ''k'')',
				'SELECT finance.send_batch(''phoenix'', ARRAY[''1'', ''2'']::jsonb[])',
				'SELECT finance.publish(''phoenix'', ''1'')',
				'SELECT finance.delete(''phoenix'', msg_id) FROM finance.read(''phoenix'', 10, 2)',
				'SELECT finance.nack(''phoenix'', msg_id, 0) FROM finance.read(''phoenix'', 10, 2)',
				'SELECT finance.pop(''phoenix'')', 'SELECT finance.metrics(''phoenix'')', 'SELECT finance.purge_queue(''phoenix'')'] LOOP
				error := 'none';
				BEGIN
					EXECUTE what;
				EXCEPTION WHEN OTHERS THEN
					error := SQLSTATE;
				END;
				INSERT INTO outcome VALUES (what, error);
				COMMIT;
			END LOOP;
			EXIT WHEN (SELECT done FROM control);
		END LOOP;
	END $$});
my @users = map {
	IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CALL use_it()' ],
		'<', File::Spec->devnull, '>', File::Spec->devnull, '2>', $node->basedir . "/errors$_")
} 1 .. 3;
foreach my $round (1 .. 20)
{
	my $seen = $round * 30;

	poll_ok($node, "SELECT count(*) > $seen FROM outcome", "round $round: they use it");
	sql("SELECT finance.drop_queue('phoenix')");
	sql("SELECT finance.create_queue('phoenix')", "SELECT finance.bind_topic('phoenix', 'phoenix')");
}
sql('UPDATE control SET done = true');
$_->finish foreach @users;
is(join('', map { slurp_file($node->basedir . "/errors$_") } 1 .. 3), '', 'no session failed');
is_query($node, "SELECT what, error, count(*) FROM outcome WHERE error NOT IN ('none', 'LG301') GROUP BY 1, 2 ORDER BY 1, 2",
	'', 'a queue is there or unknown');
is_query($node, "SELECT count(*) > 0 FROM outcome WHERE error = 'none'", 't', 'and was used');
is_query($node,
	"SELECT queue_length - (SELECT count(*) FROM finance.message JOIN finance.queue USING (tenant_id, queue_id) WHERE name = 'phoenix') FROM finance.metrics('phoenix')",
	'0', 'the last one is counted');
sql("SELECT finance.purge_queue('phoenix')", "SELECT finance.send('phoenix', '\"risen\"')");
is(got('phoenix'), 'risen', 'and works');
is_query($node,
	"SELECT count(*) FROM finance.message m WHERE NOT EXISTS (SELECT FROM finance.queue q WHERE q.queue_id = m.queue_id)",
	'0', 'nothing of the others is left');
is_sound($node, 'at the end');

$node->stop;
done_testing();
