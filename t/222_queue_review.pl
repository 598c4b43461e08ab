# Queues under attack: waiting readers, segments that are emptied, slots of shared
# memory that change hands, a standby, a queue in trouble, and ordering keys
# under load.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = finance_node('main', allows_streaming => 1);
# whoever reads finance.message locks the tables of all queues
$node->append_conf('postgresql.conf', 'max_locks_per_transaction = 512');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub background
{
	my (@sql) = @_;
	my $run = { out => '', err => '' };

	$run->{run} = IPC::Run::start(
		[ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), map { ('-c', $_) } @sql ],
		'<', File::Spec->devnull, '>', \$run->{out}, '2>', \$run->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $run;
}

sub heard
{
	my ($run) = @_;

	$run->{run}->finish;
	chomp $run->{out};
	return $run->{out} . ($run->{err} =~ s/\n.*//sr);
}

sub asleep
{
	poll_ok($node,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'",
		"$_[0]: it waits");
}

# ------------------------------------------------------------------------
# what wakes a reader; who is not woken does not come back in time
# ------------------------------------------------------------------------
sub poll
{
	return background("SELECT message FROM finance.read_with_poll('$_[0]', 600, 2, 3600)");
}

sql("SELECT finance.create_queue('limited', max_in_flight => 1)");
my $reader = poll('limited');
asleep('a limited queue');
sql("SELECT finance.send_batch('limited', ARRAY['1', '2']::jsonb[])");
is(heard($reader), '1', 'a reader that looked in vain has kept nothing of the limit');
$reader = poll('limited');
asleep('the limit is reached');
sql("SELECT finance.delete('limited', msg_id) FROM finance.message WHERE payload = '1'");
is(heard($reader), '2', 'the end of a claim lets the next begin');

sql("SELECT finance.create_queue('paced', rate_limit => 1)");
sql("SELECT finance.send_batch('paced', ARRAY['1', '2']::jsonb[])");
is(sql("SELECT message FROM finance.read('paced', 600, 2)"), '1', 'one a second');
is(heard(poll('paced')), '2', 'the rate allows the next');

sql("SELECT finance.create_queue('resting'); SELECT finance.send('resting', '1'); SELECT finance.pause_queue('resting')");
$reader = poll('resting');
asleep('a paused queue');
sql("SELECT finance.resume_queue('resting')");
is(heard($reader), '1', 'the end of a pause');

sql("SELECT finance.create_queue('keyed'); SELECT finance.send_batch('keyed', ARRAY['1', '2']::jsonb[], ordering_keys => ARRAY['k', 'k'])");
is(sql("SELECT message FROM finance.read('keyed', 600, 10)"), '1', 'one of a key');
$reader = poll('keyed');
asleep('a key in use');
sql("SELECT finance.delete('keyed', msg_id) FROM finance.message WHERE payload = '1'");
is(heard($reader), '2', 'the key is free');

# ------------------------------------------------------------------------
# a message in a segment that is emptied, as the worker does it, while somebody
# waits to delete it
# ------------------------------------------------------------------------
sql("SELECT finance.create_queue('left')");
my $left = sql("SELECT finance.send('left', '1')");
my $id = sql("SELECT queue_id FROM finance.queue WHERE name = 'left'");
my $rows = $node->basedir . '/left';
my $emptier = $node->background_psql('postgres');
$emptier->query_safe("BEGIN; LOCK TABLE finance.message_${id}_0; COPY finance.message_${id}_0 TO '$rows'; TRUNCATE finance.message_${id}_0; COPY finance.message_${id}_0 FROM '$rows' (FREEZE)");
my $deleter = background("SELECT finance.delete('left', $left)");
poll_ok($node, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted", 'who deletes waits');
$emptier->query_safe('COMMIT');
is(heard($deleter), 't', 'and finds the message');
$emptier->quit;

# the worker itself; who looked before finds it too
# in two, as a batch has no more than 10,000
my $send = "SELECT min(msg_id) FROM finance.send_batch('left', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 9000) n)) AS msg_id";
$left = sql($send);
sql($send);
my $file = sql("SELECT pg_relation_filenode('finance.message_${id}_0')");
my $old = $node->background_psql('postgres');
$old->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
sql("SELECT count(finance.delete('left', msg_id)) FROM finance.message WHERE queue_id = $id AND msg_id <> $left");
poll_ok($node, "SELECT pg_relation_filenode('finance.message_${id}_0') <> $file", 'the segment is emptied');
is($old->query_safe("SELECT finance.delete('left', $left)"), 't', 'an old snapshot finds what is left in it');
$old->query_safe('COMMIT');
$old->quit;

# ------------------------------------------------------------------------
# who works on messages with ordering keys keeps only the segment they lie in
# ------------------------------------------------------------------------
sql("SELECT finance.create_queue('chained')");
$id = sql("SELECT queue_id FROM finance.queue WHERE name = 'chained'");
sql("SELECT count(*) FROM finance.send_batch('chained', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 9000) n), ordering_keys => ARRAY(SELECT (n % 100)::text FROM generate_series(1, 9000) n))") foreach 1 .. 2;
# the second is written to when the worker has found it clean
poll_ok($node, "DO \$\$ BEGIN PERFORM finance.send('chained', '0', ordering_key => '0'); END \$\$; SELECT max(segment) > 0 FROM finance.message WHERE queue_id = $id", 'the first segment is full');
$file = sql("SELECT pg_relation_filenode('finance.message_${id}_0')");
my $blocker = $node->background_psql('postgres');
$blocker->query_safe("BEGIN; LOCK TABLE finance.message_${id}_0 IN ACCESS SHARE MODE");
sql("SELECT count(finance.delete('chained', msg_id)) FROM finance.message WHERE queue_id = $id");
sql("SELECT count(*) FROM finance.send_batch('chained', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 200) n), ordering_keys => ARRAY(SELECT (n % 50)::text FROM generate_series(1, 200) n))");

sub work_on
{
	return $_[0]->query_safe("SELECT count(finance.delete('chained', msg_id)) FROM finance.read('chained', 600, 20)");
}
my $worker = $node->background_psql('postgres');
my $locks = "SELECT string_agg(DISTINCT c.relname::text, ' ') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname ~ '^message_${id}_[0-9]' AND pid = pg_backend_pid() AND c.relkind = 'r'";
my $segment = sql("SELECT 'message_${id}_' || min(segment) FROM finance.message WHERE queue_id = $id");
$worker->query_safe('BEGIN');
is(work_on($worker), '20', 'a transaction works on keys');
is($worker->query_safe("SELECT count(*) > 0 FROM finance.read('chained', 600, 1)"), 't', 'and has a message');
is($worker->query_safe($locks), $segment, 'it has one segment locked,');
is($worker->query_safe("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname ~ '^message_${id}_0'"), '1', 'and of another not even an index');
is(sql("SELECT pg_relation_filenode('finance.message_${id}_0')"), $file, 'which somebody else keeps');
$blocker->query_safe('COMMIT');
$blocker->quit;
my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $worked = 0;
while ($patience-- > 0 && sql("SELECT pg_relation_filenode('finance.message_${id}_0')") eq $file)
{
	$worked += work_on($worker);
	sql("SELECT finance.send('chained', '1', ordering_key => '1')");
	usleep(10_000);
}
cmp_ok(sql("SELECT pg_relation_filenode('finance.message_${id}_0')"), '!=', $file, 'it is emptied while the transaction goes on');
$worker->query_safe('COMMIT');
$worker->quit;
note("$worked messages meanwhile");
poll_ok($node, "SELECT count(finance.delete('chained', msg_id)) = 0 FROM finance.read('chained', 600, 100)", 'the others are read');
is(sql("SELECT count(DISTINCT ordering_key) FROM finance.message WHERE queue_id = $id"), '1', 'but for the key that is worked on');

# ------------------------------------------------------------------------
# what is known of a queue while only its maker sees it, and of one before it
# ------------------------------------------------------------------------
sql("SELECT finance.create_queue('passing', expired => 'discard')");
my $maker = $node->background_psql('postgres');
$maker->query_safe("BEGIN; SELECT finance.create_queue('unborn', max_length => 2)");
$maker->query_safe("SELECT finance.send('unborn', '1'), finance.send('unborn', '2')");
sql("SELECT finance.send('passing', '1', ttl => 1)");
poll_ok($node, "SELECT count(*) = 0 FROM finance.message m JOIN finance.queue q USING (queue_id) WHERE q.name = 'passing'", 'the worker looks at all queues');
is($maker->query_safe("DO \$\$ BEGIN PERFORM finance.send('unborn', '3'); EXCEPTION WHEN SQLSTATE 'LG306' THEN PERFORM set_config('finance.user_agent', 'full', false); END \$\$; SHOW finance.user_agent"),
	'full', 'a queue the worker does not see yet keeps its limit');
$maker->query_safe('COMMIT');
$maker->quit;
is(sql("SELECT queue_length FROM finance.metrics('unborn')"), '2', 'and is counted');

$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->safe_psql('again', "CREATE EXTENSION finance; SELECT finance.create_queue('first')");
$node->safe_psql('again', "SELECT finance.send_batch('first', ARRAY['1', '2', '3']::jsonb[])");
is($node->safe_psql('again', "SELECT queue_length FROM finance.metrics('first')"), '3', 'a queue of an extension that is dropped');
$node->safe_psql('again', "DROP EXTENSION finance; CREATE EXTENSION finance");
$node->safe_psql('again', "SELECT finance.create_queue('second', max_length => 1)");
is($node->safe_psql('again', "SELECT queue_id || ' ' || queue_length FROM finance.queue, finance.metrics('second')"), '1 0', 'nothing of it is thought of one that has its id');
is($node->safe_psql('again', "SELECT finance.send('second', '1') > 0"), 't', 'which has room');

# ------------------------------------------------------------------------
# a queue in trouble keeps no other from being tidied up
# ------------------------------------------------------------------------
sql("SELECT finance.create_queue('troubled', expired => 'discard'), finance.create_queue('untroubled', expired => 'discard')");
$id = sql("SELECT queue_id FROM finance.queue WHERE name = 'troubled'");
sql("SELECT finance.send('troubled', '1', ttl => 1), finance.send('untroubled', '1', ttl => 1)");
sql("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER t AFTER DELETE ON finance.message_${id}_0 FOR EACH ROW EXECUTE FUNCTION nothing()");
poll_ok($node, "SELECT count(*) = 0 FROM finance.message m JOIN finance.queue q USING (queue_id) WHERE q.name = 'untroubled'", 'the other queue is tidied up');
poll_ok($node, "SELECT bool_or(last_error ~ 'has triggers or rules') FROM finance.workers", 'the worker says what is wrong');
sql("DROP TRIGGER t ON finance.message_${id}_0");
poll_ok($node, "SELECT count(*) = 0 FROM finance.message WHERE queue_id = $id", 'and comes back to it');

# ------------------------------------------------------------------------
# more queues than there are slots
# ------------------------------------------------------------------------
sql("SELECT count(*) FROM (SELECT finance.create_queue('many_' || n) FROM generate_series($_ * 20 + 1, $_ * 20 + 20) n) q")
  for 0 .. 15;
sql("SELECT finance.create_queue('counted', max_length => 3)");

# what looks at queues locks one at a time, or only its own
my $counter = $node->background_psql('postgres');
$counter->query_safe('BEGIN');
is($counter->query_safe("SELECT count(*) FROM finance.check_integrity()"), '0', 'many queues are sound');
is($counter->query_safe("SELECT queue_length FROM finance.metrics('counted')"), '0', 'one is counted');
is($counter->query_safe("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname ~ '^message_[0-9]' AND pid = pg_backend_pid()"), '0', 'and no table of any is still locked');
$counter->query_safe('COMMIT');
$counter->quit;

sub touch_many
{
	$node->safe_psql('postgres', join ';', map { "SELECT queue_length FROM finance.metrics('many_$_')" } 1 .. 320);
}

my $sender = $node->background_psql('postgres');
for my $n (1 .. 3)
{
	$sender->query_safe("BEGIN; SELECT finance.send('counted', '$n'); SELECT finance.send('many_$n', '$n')");
	touch_many();
	$sender->query_safe('COMMIT');
	touch_many();
}
$sender->quit;
is(sql("SELECT queue_length FROM finance.metrics('counted')"), '3', 'counted though its slot changed hands');
is(sql(join ';', map { "SELECT queue_length FROM finance.metrics('many_$_')" } 1 .. 4), "1\n1\n1\n0", 'and so are others');
my ($status, $out, $err) = $node->psql('postgres', "SELECT finance.send('counted', '4')", extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($err, qr/LG306/, 'a full queue is full');
is(sql("SELECT count(*) FROM finance.read('counted', 0, 10)"), '3', 'nothing is lost');

# ------------------------------------------------------------------------
# limits outlive a restart
# ------------------------------------------------------------------------
sql("SELECT finance.send_batch('limited', ARRAY['3', '4']::jsonb[])");
$node->restart;
is(sql("SELECT count(*) FROM finance.read('limited', 600, 10)"), '0', 'the claim made before the restart counts');

# ------------------------------------------------------------------------
# a standby counts what is there
# ------------------------------------------------------------------------
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is($standby->safe_psql('postgres', "SELECT queue_length FROM finance.metrics('counted')"), '3', 'counted on the standby');
sql("SELECT count(*) FROM finance.pop('counted', 2)");
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT queue_length FROM finance.metrics('counted')"), '1', 'and counted again');
$standby->promote;
is($standby->safe_psql('postgres', "SELECT count(*) FROM finance.send_batch('counted', ARRAY['5', '6']::jsonb[])"), '2', 'room after its promotion');
is($standby->safe_psql('postgres', "SELECT queue_length FROM finance.metrics('counted')"), '3', 'and counted there');
$standby->stop;

# ------------------------------------------------------------------------
# ordering keys: never two at a time, none lost, none twice
# ------------------------------------------------------------------------
sql(<<'SQL');
SELECT finance.create_queue('stress');
CREATE TABLE busy (k text PRIMARY KEY);
CREATE TABLE sent (n bigserial, k text);
CREATE TABLE done (n bigint, k text);
CREATE PROCEDURE produce(r int) LANGUAGE plpgsql AS $$
DECLARE
	v sent;
BEGIN
	FOR i IN 1 .. 1 + r % 4 LOOP
		INSERT INTO sent (k) VALUES ('k' || (r + i * 7) % 16) RETURNING * INTO v;
		PERFORM finance.send('stress', to_jsonb(v.n), ordering_key => v.k, priority => r % 3);
		PERFORM pg_sleep(0.002 * (r % 3));
	END LOOP;
	IF r % 6 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
END $$;
CREATE PROCEDURE consume(r int) LANGUAGE plpgsql AS $$
DECLARE
	m record;
BEGIN
	FOR m IN SELECT * FROM finance.read('stress', 600, 1 + r % 3) LOOP
		INSERT INTO busy VALUES (m.ordering_key);	-- fails when there is another
		IF r % 4 <> 0 THEN COMMIT; END IF;
		PERFORM pg_sleep(0.001 * (r % 4));
		DELETE FROM busy WHERE k = m.ordering_key;
		IF r % 7 = 0 THEN
			PERFORM finance.nack('stress', m.msg_id, 0);
		ELSE
			INSERT INTO done VALUES (m.message::bigint, m.ordering_key);
			PERFORM finance.delete('stress', m.msg_id, m.read_ct);
		END IF;
		IF r % 4 <> 0 THEN COMMIT; END IF;
	END LOOP;
	IF r % 20 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
END $$;
SQL
my $seed = $ENV{FIN_SEED} // 20261122;
note("seed $seed");
my %script = (produce => 3, consume => 5);
my @runs;
for my $what (sort keys %script)
{
	my $file = $node->basedir . "/$what.pgb";

	append_to_file($file, "\\set r random(1, 1000000)\nCALL $what(:r);\n");
	my $run = { out => '', what => $what };
	$run->{run} = IPC::Run::start(
		[ 'pgbench', '-n', "--random-seed=$seed", '-h', $node->host, '-p', $node->port, '-f', $file,
			'-c', $script{$what}, '-t', $what eq 'produce' ? 150 : 600, 'postgres' ],
		'<', File::Spec->devnull, '>', \$run->{out}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	push @runs, $run;
}
for my $run (@runs)
{
	$run->{run}->finish;
	unlike($run->{out}, qr/ERROR|aborted/, "$run->{what}: no two of a key at a time");
}
sql(<<'SQL');
DO $$
DECLARE
	n int;
BEGIN
	LOOP
		WITH m AS (SELECT * FROM finance.read('stress', 600, 100)),
			d AS (INSERT INTO done SELECT message::bigint, ordering_key FROM m RETURNING 1)
		SELECT count(finance.delete('stress', m.msg_id)) INTO n FROM m;
		EXIT WHEN n = 0;
		COMMIT;
	END LOOP;
END $$;
SQL
is(sql("SELECT count(*) FROM sent FULL JOIN done USING (n) WHERE sent.n IS NULL OR done.n IS NULL"), '0', 'each was read, and nothing else');
is(sql("SELECT count(*) FROM (SELECT n FROM done GROUP BY n HAVING count(*) > 1) d"), '0', 'once');
is(sql("SELECT queue_length FROM finance.metrics('stress')"), '0', 'and none is left');
is(sql("SELECT count(*) FROM finance.check_integrity()"), '0', 'integrity');

$node->stop;
done_testing();
