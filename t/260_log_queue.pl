# Log queues under load: producers that commit late, roll back, use savepoints
# and prepared transactions; each consumer group sees every committed message
# once, in one order, and none that was rolled back, also over a kill -9 of the
# postmaster.  Positions leave no dead rows while a snapshot is held; retention,
# dump and restore keep them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $soak = soak();
my $seed = $ENV{FIN_SEED} // time() % 1_000_000;
my $producers = 6;
my $transactions = 450 * $soak;    # of each producer in a round

note("seed $seed (FIN_SEED)");
srand($seed);

my $node = book_node('main', "max_prepared_transactions = 20\nlog_statement = none\n");

$node->safe_psql(
	'postgres', q(
CREATE EXTENSION pgstattuple;
SELECT finance.create_log_queue('log');
SELECT finance.create_log_queue('aside');
SELECT finance.bind_topic('load.#', 'log');
SELECT finance.create_consumer_group('log', 'one', 'beginning');
SELECT finance.create_consumer_group('log', 'two');
CREATE TABLE sent (producer int, n int);
CREATE TABLE seen (step bigserial, grp text, pos text COLLATE "C", producer int, n int, fate text);
CREATE TABLE naive (msg_id bigint);
CREATE TABLE control (stop boolean);
INSERT INTO control VALUES (false);

-- What a group reads counts in the transaction that notes it.  A few rounds: a
-- process that is always busy would not notice that its postmaster is gone.
CREATE PROCEDURE consume(grp text, INOUT done boolean) LANGUAGE plpgsql AS $$
DECLARE
	stopping boolean;
	got int;
	last text;
	behind bigint;
BEGIN
	FOR round IN 1 .. 20 LOOP
		SELECT stop INTO stopping FROM control;
		-- one of the groups moves with the read, the other by a call of its own
		WITH new AS (INSERT INTO seen (grp, pos, producer, n, fate)
			SELECT grp, r.position, (message ->> 'p')::int, (message ->> 'n')::int, message ->> 'fate'
			FROM finance.read_group('log', grp, 1 + (random() * 60)::int, grp = 'one') r
			RETURNING pos)
		SELECT count(*), max(pos) INTO got, last FROM new;
		IF grp = 'two' AND got > 0 THEN
			PERFORM finance.commit_group('log', grp, last);
		END IF;
		IF random() < 0.1 THEN
			ROLLBACK;
			CONTINUE;
		END IF;
		COMMIT;
		IF stopping AND got = 0 THEN
			SELECT lag INTO behind FROM finance.list_consumer_groups('log') WHERE group_name = grp;
			done := behind = 0;
			EXIT WHEN done;
		END IF;
	END LOOP;
END $$;

-- what a reader would see that goes by the id
CREATE PROCEDURE consume_naively(INOUT done boolean) LANGUAGE plpgsql AS $$
BEGIN
	SELECT stop INTO done FROM control;
	INSERT INTO naive SELECT msg_id FROM finance.message_log
		WHERE msg_id > coalesce((SELECT max(msg_id) FROM naive), 0) ORDER BY msg_id LIMIT 1000;
	PERFORM count(*) FROM generate_series(1, 20000);
END $$;
));

# ------------------------------------------------------------------------
# producers
# ------------------------------------------------------------------------

# work that takes a while, so that transactions overlap
sub linger
{
	return sprintf("SELECT count(*) FROM generate_series(1, %d);\n", rand(30000));
}

my %numbers;

# a message; noted as sent by the same transaction, whether it stays or not
sub message
{
	my ($p, $fate) = @_;
	my $n = ++$numbers{$p};
	my $json = qq('{"p": $p, "n": $n, "fate": "$fate"}');

	return "INSERT INTO sent VALUES ($p, $n);\n"
	  . (rand() < 0.5 ? "SELECT finance.send('log', $json);\n"
		: "SELECT finance.publish('load.$p', $json);\n");
}

sub messages
{
	my ($p, $fate) = @_;

	return join '', map { message($p, $fate) . (rand() < 0.3 ? linger() : '') }
	  1 .. 1 + rand(4);
}

sub batch
{
	my ($p) = @_;
	my @n = map { ++$numbers{$p} } 1 .. 2 + rand(10);

	return join('', map { "INSERT INTO sent VALUES ($p, $_);\n" } @n)
	  . "SELECT finance.send_batch('log', ARRAY["
	  . join(', ', map { qq('{"p": $p, "n": $_, "fate": "kept"}') } @n)
	  . "]::jsonb[]);\n";
}

sub transaction
{
	my ($p, $gid) = @_;
	my $kind = int(rand(10));

	return "BEGIN;\n" . messages($p, 'kept') . "COMMIT;\n" if $kind < 2;
	return "BEGIN;\n" . messages($p, 'undone') . "ROLLBACK;\n" if $kind == 2;
	# its transaction id is old when it sends
	return "BEGIN;\nSELECT pg_current_xact_id();\n" . linger() . messages($p, 'kept') . linger() . "COMMIT;\n"
	  if $kind < 5;
	return "BEGIN;\n" . batch($p) . linger() . "COMMIT;\n" if $kind == 5;
	return "BEGIN;\nSAVEPOINT a;\n" . messages($p, 'undone') . "ROLLBACK TO a;\n" . linger()
	  . messages($p, 'kept') . "SAVEPOINT b;\n" . messages($p, 'kept') . "RELEASE b;\nCOMMIT;\n"
	  if $kind == 6;
	return "BEGIN;\nSELECT finance.send('aside', '1');\n" . linger() . messages($p, 'kept') . "COMMIT;\n"
	  if $kind == 7;
	return "BEGIN;\n" . messages($p, 'kept') . "PREPARE TRANSACTION '$gid';\n" . linger()
	  . "COMMIT PREPARED '$gid';\n"
	  if $kind == 8;
	return "BEGIN;\n" . messages($p, 'undone') . "PREPARE TRANSACTION '$gid';\n" . linger()
	  . "ROLLBACK PREPARED '$gid';\n";
}

sub start_psql
{
	my ($name, $script) = @_;
	my $file = $node->basedir . "/$name.sql";

	unlink $file;
	append_to_file($file, "SET application_name = 'load';\n$script");
	my $errors = '';
	my $h = IPC::Run::start(
		[
			'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $file,
			'-d', $node->connstr('postgres')
		],
		'>', File::Spec->devnull, '2>', \$errors);
	return [ $h, \$errors, $name ];
}

sub start_producers
{
	my ($round, $length) = @_;

	return map {
		my $p = $_;
		start_psql("producer$p",
			join '', map { transaction($p, "gid-$round-$p-$_") } 1 .. $length)
	} 1 .. $producers;
}

sub start_consumers
{
	my $until_done = "\\gset\n\\if :done\n\\quit\n\\endif\n";

	return (
		map({ start_psql("consumer_$_",
				sprintf("SELECT setseed(%f);\n", rand()) . "CALL consume('$_', false) $until_done" x 10000) } qw(one two)),
		start_psql('naive', "CALL consume_naively(false) $until_done" x 10000));
}

sub all_well
{
	my ($name, @started) = @_;

	foreach my $client (@started)
	{
		$client->[0]->finish;
		is(${ $client->[1] }, '', "$name: $client->[2] met no error");
	}
}

sub stop_consumers
{
	$node->safe_psql('postgres', 'UPDATE control SET stop = true');
	all_well('consumers', @_);
	$node->safe_psql('postgres', 'UPDATE control SET stop = false');
}

sub check_seen
{
	my ($name) = @_;
	my $sent = $node->safe_psql('postgres', 'SELECT count(*) FROM sent');

	cmp_ok($sent, '>', 100, "$name: $sent messages were committed");
	is_query($node,
		q(SELECT count(*) FROM sent FULL JOIN (SELECT (payload ->> 'p')::int AS producer, (payload ->> 'n')::int AS n
			FROM finance.message_log l JOIN finance.queue q USING (tenant_id, queue_id) WHERE q.name = 'log') l USING (producer, n)
			WHERE sent IS NULL OR l IS NULL),
		'0', "$name: the log has what was committed, and nothing else");
	foreach my $group (qw(one two))
	{
		is_query($node,
			"SELECT count(*), count(DISTINCT (producer, n)), count(*) FILTER (WHERE fate <> 'kept') FROM seen WHERE grp = '$group'",
			"$sent|$sent|0", "$name: group $group saw each once, and none that was undone");
		is_query($node,
			"SELECT count(*) FROM (SELECT pos <= lag(pos) OVER (ORDER BY step) AS back FROM seen WHERE grp = '$group') s WHERE back",
			'0', "$name: in the order of positions");
	}
	# messages of a producer are in its order
	is_query($node,
		q(SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY grp, producer ORDER BY step) AS back FROM seen) s WHERE back),
		'0', "$name: and of each producer in its own");
	is_query($node,
		q(SELECT count(*) FROM seen a JOIN seen b USING (producer, n) WHERE a.grp = 'one' AND b.grp = 'two' AND a.pos <> b.pos),
		'0', "$name: the same order for both");
	is_sound($node, $name);
}

# ------------------------------------------------------------------------
# load
# ------------------------------------------------------------------------

{
	my @consumers = start_consumers();
	all_well('load', start_producers('load', $transactions));
	stop_consumers(@consumers);
	check_seen('load');
	note('a reader by id would have skipped '
		  . $node->safe_psql('postgres',
			q(SELECT count(*) FROM finance.message_log l JOIN finance.queue q USING (tenant_id, queue_id)
				WHERE q.name = 'log' AND msg_id NOT IN (SELECT msg_id FROM naive))));
}

# ------------------------------------------------------------------------
# kill -9 of the postmaster: positions are where they were committed
# ------------------------------------------------------------------------

foreach my $round (1 .. 2 * $soak)
{
	my $before = $node->safe_psql('postgres', "SELECT count(*) FROM seen WHERE grp = 'two'");
	my @clients = (start_producers("kill$round", 10 * $transactions), start_consumers());

	poll_ok($node, "SELECT count(*) > $before + 300 FROM seen WHERE grp = 'two'", "kill $round: the load goes on");
	my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
	$node->kill9;
	$_->[0]->finish foreach @clients;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	usleep(100_000) while (grep { kill 0, $_ } @pids) && $patience-- > 0;
	$node->start;

	# what was prepared goes on holding back
	my @prepared = split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	my @consumers = start_consumers();

	# their fate is in messages that nobody sees: all are rolled back
	$node->safe_psql('postgres', "ROLLBACK PREPARED '$_'") foreach @prepared;
	# what nobody has drawn a transaction id after comes when somebody has
	all_well("after kill $round", start_producers("after$round", 20));
	stop_consumers(@consumers);
	check_seen("kill $round");
}

# ------------------------------------------------------------------------
# who holds back
# ------------------------------------------------------------------------

$node->safe_psql('postgres',
	"BEGIN; INSERT INTO sent VALUES (0, 1); SELECT finance.send('log', '{\"p\": 0, \"n\": 1, \"fate\": \"kept\"}'); PREPARE TRANSACTION 'held'");
$node->safe_psql('postgres',
	"BEGIN; INSERT INTO sent VALUES (0, 2); SELECT finance.send('log', '{\"p\": 0, \"n\": 2, \"fate\": \"kept\"}'); COMMIT");
is_query($node, "SELECT count(*) FROM finance.read_group('log', 'one')", '0',
	'nothing is read past a prepared transaction');
is_query($node,
	"SELECT DISTINCT held_by_pid, held_by_gid, held_since <= clock_timestamp() FROM finance.list_consumer_groups('log')",
	'|held|t', 'the list tells which one');
$node->restart;
is_query($node,
	"SELECT DISTINCT held_by_pid, held_by_gid, held_since <= clock_timestamp() FROM finance.list_consumer_groups('log')",
	'|held|t', 'after a restart, too');
is_query($node, "SELECT count(*) FROM finance.read_group('log', 'one')", '0',
	'and nothing is read past it');
$node->safe_psql('postgres', "COMMIT PREPARED 'held'");
is_query($node, "SELECT string_agg(message ->> 'n', ',') FROM finance.read_group('log', 'one')", '1,2',
	'until it is committed');

# ------------------------------------------------------------------------
# subscribers are told of a log as of any queue
# ------------------------------------------------------------------------

{
	my $ear = subscriber($node, 'news', 'later');

	$node->safe_psql('postgres',
		"SELECT finance.create_log_queue('told'), finance.create_consumer_group('told', 'g'), finance.subscribe('news', 'none', 'told')");
	settle($node);
	$node->safe_psql('postgres', "SELECT finance.send('told', '1')");
	my @seen = wait_for_notifies($ear, sub { @_ >= 1 });
	is(join(' ', map { "$_->[0] $_->[1] $_->[3]" } @seen), 'news told 1', 'a message in a log is told of');

	# who comes later is told of what a group has not read
	$node->safe_psql('postgres', "SELECT finance.unsubscribe('news'), finance.subscribe('later', 'none', 'told')");
	@seen = wait_for_notifies($ear, sub { @_ >= 1 });
	is(join(' ', map { "$_->[0] $_->[1] $_->[3]" } @seen), 'later told 1', 'also afterwards');
	$ear->quit;
}

# ------------------------------------------------------------------------
# a snapshot is held while groups move on: no dead rows, few live ones
# ------------------------------------------------------------------------

my $dead = q(SELECT coalesce(sum((pgstattuple(c.oid)).dead_tuple_count), 0) FROM pg_class c
	WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind = 'r');
my $blocks = q(SELECT sum(pg_relation_size(c.oid)) / 8192 FROM pg_class c WHERE c.relname ~ '^group_position_[0-9]');
my $idle = "SELECT \"position\" FROM finance.list_consumer_groups('log') WHERE group_name = 'one'";

{
	my $pin = $node->background_psql('postgres', on_error_stop => 0);
	my $idle_before = $node->safe_psql('postgres', $idle);

	$node->safe_psql('postgres', 'VACUUM');
	$pin->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM finance.consumer_group;');
	my $dead_before = $node->safe_psql('postgres', $dead);
	my $moves = 20000;
	$node->safe_psql(
		'postgres', qq(
CREATE PROCEDURE move(n int) LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1 .. n LOOP
		IF i % 10 = 0 THEN
			PERFORM finance.send('aside', to_jsonb(i));
		END IF;
		PERFORM finance.seek_group('log', 'two', to_position => CASE WHEN i % 2 = 0 THEN 'beginning' ELSE 'end' END);
		COMMIT;
	END LOOP;
END \$\$;
CALL move($moves);
SELECT finance.seek_group('log', 'two', to_position => 'end');));
	my $dead_after = $node->safe_psql('postgres', $dead);

	cmp_ok($dead_after - $dead_before, '<=', 20,
		"$moves moves under a held snapshot leave no dead rows ($dead_before, $dead_after)");
	# each segment has 64 blocks, or a few more where the worker was late
	poll_ok($node, "SELECT ($blocks) <= 3 * 64 + 10", 'and live ones in few blocks');
	is($node->safe_psql('postgres', $idle), $idle_before, 'a group that stood still is where it was');
	is($node->safe_psql('postgres',
			"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM finance.read_group('log', 'two')"),
		'0', 'a new snapshot reads on');
	unlike($pin->query("SELECT count(*) FROM finance.read_group('log', 'two');"),
		qr/^\d+$/, 'the old one is told to try again');
	$pin->query('ROLLBACK;');
	$pin->quit;
	is_sound($node, 'after many moves');
}

# ------------------------------------------------------------------------
# retention by the worker, while messages come
# ------------------------------------------------------------------------

$node->safe_psql(
	'postgres', q(
SELECT finance.create_log_queue('brief', '1 minute');
SELECT finance.create_consumer_group('brief', 'g');
SELECT finance.send('brief', '1');
));
# as if it had been sent long ago, by a clock that was right then
$node->safe_psql('postgres',
	"UPDATE finance.message_log SET msg_id = finance.id_floor(now() - interval '1 hour'), enqueued_at = now() - interval '1 hour' WHERE queue_id = (SELECT queue_id FROM finance.queue WHERE name = 'brief')");
poll_ok($node,
	"SELECT count(*) = 0 FROM finance.message_log WHERE queue_id = (SELECT queue_id FROM finance.queue WHERE name = 'brief')",
	'the worker empties what is over');
is_query($node, "SELECT missed FROM finance.list_consumer_groups('brief')", 't',
	'and a group that was behind is told');

# ------------------------------------------------------------------------
# dump and restore: transaction ids begin anew, and come after
# ------------------------------------------------------------------------

my $other = finance_node('other');
my $dump = $node->basedir . '/dump.sql';
my $mine = "SELECT string_agg(message ->> 'n', ',') FROM finance.read_group('log', 'one', auto_commit => %s)";

$other->start;
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'dump');
cmp_ok($other->safe_psql('postgres', 'SELECT pg_current_xact_id()'),
	'<', $node->safe_psql('postgres', 'SELECT pg_current_xact_id()'),
	'transaction ids of the other cluster are lower');

# restores into a database and goes on there
sub restore_into
{
	my ($server, $database, $file, $before, $n) = @_;

	$server->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$server->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', File::Spec->devnull, '-f', $file, '-d', $server->connstr($database) ],
		"$database: restore");
	is_sound($server, $database, $database);
	$server->safe_psql($database,
		"SELECT finance.send('log', '{\"n\": $n}')");
	is_query($server, sprintf($mine, 'false'), "$before,$n", "$database: what was new comes after what was old", $database);
	is_query($server, "SELECT message ->> 'n' FROM finance.read_group('log', 'two')", $n,
		"$database: a group that had read all reads the new", $database);
	is_query($server, "SELECT length(finance.seek_group('log', 'two', to_position => 'end'))", '33', "$database: end", $database);
	is_query($server, "SELECT count(*) FROM finance.read_group('log', 'two')", '0', "$database: and nothing more", $database);
}

restore_into($other, 'there', $dump, '1,2', 3);
is_query($other, 'SELECT count(*), count(DISTINCT system_identifier) FROM finance.log_incarnation', '2|2',
	'a new incarnation', 'there');
$other->command_ok([ 'pg_dump', '-f', $dump, '-d', $other->connstr('there') ], 'dump there');
restore_into($node, 'back', $dump, '1,2,3', 4);
is_query($node, 'SELECT count(*), count(DISTINCT system_identifier) FROM finance.log_incarnation', '3|2',
	'and another, where it came from', 'back');

# in the same cluster transaction ids go on
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('back') ], 'dump back');
restore_into($node, 'beside', $dump, '1,2,3,4', 5);
is_query($node, 'SELECT count(*) FROM finance.log_incarnation', '3', 'the incarnation is the same', 'beside');

$other->stop;
$node->stop;
done_testing();
