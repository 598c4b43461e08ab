# A dump restores queues with all that is in them: messages in several
# segments, delayed, claimed and expiring ones, dead letters, bindings with
# filters, logs with their groups, half messages, the inbox, dedup ids and the
# archive; and all of it goes on where it was.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = finance_node('main');
$node->append_conf('postgresql.conf', "finance.launcher_naptime = 1\nfinance.sweep_interval = 1\n");
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE book TEMPLATE template0');

sub book
{
	return $node->safe_psql('book', $_[0]);
}

# all rows of a query as text, to compare two databases by
sub rows
{
	my ($database, $query) = @_;

	return $node->safe_psql($database, "SELECT t::text FROM ($query) t ORDER BY 1");
}

# ------------------------------------------------------------------------
# queues in every state
# ------------------------------------------------------------------------

book(q(
CREATE EXTENSION finance;
SELECT finance.create_queue('dead');
SELECT finance.create_queue('jobs', max_deliveries => 3, dead_letter_queue => 'dead',
	max_length => 100000, max_in_flight => 50000, backoff_ms => 5000, dedup_window => 21600);
SELECT finance.create_queue('quick', unlogged => true);
SELECT finance.create_queue('still'), finance.pause_queue('still');
SELECT finance.create_queue('north'), finance.create_queue('lost'), finance.create_queue('checks');
SELECT finance.create_queue('gone'), finance.drop_queue('gone');
SELECT finance.bind_topic('order.*.paid', 'north', ARRAY['high', 'low'], '{"region": "north", "seen": null}', 'any'),
	finance.bind_topic('order.#', 'jobs', headers => '{"job": 1}'),
	finance.bind_topic('order.#', 'dead', ARRAY['never']),
	finance.bind_topic('check', 'checks'),
	finance.set_default_queues(dead_letter => 'dead', alternate => 'lost');
SELECT finance.subscribe('bell', 'none', 'still');
SELECT finance.create_producer_group('shop', 'check', check_after => '1 day');
SELECT finance.create_producer_group('alone', 'nobody', check_after => '1 millisecond', check_interval => '1 millisecond', max_checks => 1);
SELECT finance.create_log_queue('log', '30 days');
SELECT finance.create_consumer_group('log', 'one', 'beginning'), finance.create_consumer_group('log', 'two', 'end');
SELECT finance.bind_topic('order.#', 'log');
));

# 20,000 of them fill a segment and begin the next
book("SELECT count(*) FROM finance.send_batch('jobs', (SELECT array_agg(to_jsonb(n)) FROM generate_series($_, $_ + 999) n))")
  foreach map { 1000 * $_ + 1 } 0 .. 19;
is_query($node,
	"SELECT count(DISTINCT segment), count(*), min(tableoid::regclass::text) ~ '^finance.message_' FROM finance.message",
	'2|20000|t', 'messages lie in two segments', 'book');
book(q(
SELECT finance.send('jobs', '"high"', '{"h": [1, null]}', priority => 10);
SELECT finance.send('jobs', '"later"', delay => 86400);
SELECT finance.send('jobs', '"at"', deliver_at => now() + interval '300 days');
SELECT finance.send('jobs', '"short"', ttl => 86400, delay => 80000);
SELECT finance.send('jobs', '"once"', dedup_id => 'payment 1', delay => 86400);
SELECT finance.send('quick', '"light"'), finance.send('still', '"waits"'), finance.send('still', '"twice"');
SELECT finance.send('north', '"k1 first"', ordering_key => 'k1'), finance.send('north', '"k1 second"', ordering_key => 'k1'),
	finance.send('north', '"k2"', ordering_key => 'k2');
CREATE TABLE claimed AS SELECT * FROM finance.read('jobs', 86400);
CREATE TABLE claimed_key AS SELECT * FROM finance.read('north', 86400, 1);
SELECT finance.send('dead', '"of its own"');
));
is_query($node, 'SELECT message, read_ct FROM claimed', '"high"|1', 'one is claimed', 'book');
# one that is read too often, by priority the next
book("SELECT finance.send('jobs', '\"bad\"', priority => 10)");
book("SELECT finance.nack('jobs', msg_id, 0, reason => 'no') FROM finance.read('jobs', 60) WHERE message = '\"bad\"'")
  foreach 1 .. 3;
is_query($node,
	"SELECT payload, headers -> 'x-death' ->> 'queue' FROM finance.message WHERE headers ? 'x-death'",
	'"bad"|jobs', 'and one is dead', 'book');
# fan-out, routing, what no binding takes
is_query($node,
	q(SELECT finance.publish('order.1.paid', '"routed"', '{"region": "north", "tags": ["low"]}'),
		finance.publish('order.1.paid', '"logged"'), finance.publish('nowhere', '"astray"')),
	'2|1|1', 'messages are routed', 'book');
book(q(
SELECT count(*) FROM finance.read_group('log', 'one', 1, true);
SELECT finance.publish('order.2', '"also logged"');
CREATE TABLE half AS
	SELECT finance.prepare_message('shop', 'order.3', '"half"', '{"job": 1}', delay => 3, dedup_id => 'half') AS open,
		finance.prepare_message('shop', 'order.4', '"whole"', '{"job": 1}') AS done,
		finance.prepare_message('shop', 'order.5', '"never"') AS given_up,
		finance.prepare_message('alone', 'order.6', '"parked"') AS parked, 0::bigint AS message_id;
UPDATE half SET message_id = finance.commit_message(done);
SELECT finance.rollback_message(given_up) FROM half;
SELECT finance.process_once('consumer', 7), finance.process_once('consumer', 'a text');
SELECT finance.archive('jobs', msg_id) FROM finance.read('jobs', 60, 5);
SELECT finance.send('jobs', '"soon"', delay => 1, priority => 9);
));
poll_ok($node, "SELECT count(*) = 1 FROM finance.parked_half_message", 'a half message is parked', 'book');
is_sound($node, 'before', 'book');

# ------------------------------------------------------------------------
# restore
# ------------------------------------------------------------------------

my @kept = (
	[ 'queues', 'SELECT * FROM finance.queue' ],
	[ 'queues as they are listed', 'SELECT * FROM finance.list_queues()' ],
	[ 'messages, each in its segment', 'SELECT tableoid::regclass, * FROM finance.message' ],
	[ 'bindings', 'SELECT * FROM finance.binding' ],
	[ 'bindings as they are listed', 'SELECT * FROM finance.list_bindings()' ],
	[ 'default queues', 'SELECT * FROM finance.default_queues()' ],
	[ 'subscriptions', 'SELECT * FROM finance.subscription' ],
	[ 'logs', 'SELECT * FROM finance.log_queue' ],
	[ 'messages of logs', 'SELECT tableoid::regclass, * FROM finance.message_log' ],
	[ 'consumer groups', 'SELECT * FROM finance.consumer_group' ],
	[ 'their positions', 'SELECT tableoid::regclass, * FROM finance.group_position' ],
	[ 'and how far behind they are', "SELECT group_name, position, lag, missed FROM finance.list_consumer_groups('log')" ],
	[ 'producer groups', 'SELECT * FROM finance.producer_group' ],
	[ 'half messages', 'SELECT * FROM finance.half_message' ],
	[ 'checks', 'SELECT * FROM finance.half_check' ],
	[ 'answers', 'SELECT * FROM finance.half_answer' ],
	[ 'parked half messages', 'SELECT * FROM finance.parked_half_message' ],
	[ 'archived messages', 'SELECT tableoid::regclass, * FROM finance.message_archive' ],
	[ 'processed messages', 'SELECT tableoid::regclass, * FROM finance.inbox' ],
	[ 'dedup ids', 'SELECT tableoid::regclass, * FROM finance._dedup' ],
	[ 'lengths of queues', 'SELECT queue_name, queue_length FROM finance.metrics_all()' ],
	[ 'sequences', "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'finance'" ],
	[ 'tables', "SELECT relname, relkind, relpersistence, reloptions, relrowsecurity FROM pg_class WHERE relnamespace = 'finance'::regnamespace" ],
	[ 'constraints', "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'finance'::regnamespace" ]);

sub restore
{
	my ($copy, @how) = @_;

	# several jobs commit one by one: no worker may come before the last
	my $launcher = $copy eq 'parallel'
	  ? $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'finance launcher'") : undef;

	$node->safe_psql('postgres', "CREATE DATABASE $copy TEMPLATE template0");
	kill 'STOP', $launcher if $launcher;
	$node->command_ok([ @how, '-d', $copy ], "restore into $copy");
	kill 'CONT', $launcher if $launcher;
	foreach my $thing (@kept)
	{
		my $rows = rows('book', $thing->[1]);

		isnt($rows, '', "$thing->[0]: there are some");
		is(rows($copy, $thing->[1]), $rows, "$thing->[0]: as before, in $copy");
	}
	is_sound($node, "restored into $copy", $copy);
}

sub in
{
	my ($copy, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node, $query, $expected, "$copy: $name", $copy);
}

sub refused
{
	my ($copy, $query, $state, $name) = @_;
	my ($code, $out, $err) = $node->psql($copy, "\\set VERBOSITY verbose\n$query");
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	like($err, qr/$state/, "$copy: $name");
}

# ------------------------------------------------------------------------
# and it goes on
# ------------------------------------------------------------------------

sub goes_on
{
	my ($copy) = @_;

	# claims hold, for their holders and against others
	in($copy, "SELECT read_ct FROM finance.set_vt('jobs', (SELECT msg_id FROM claimed), 86400, 1)", '1', 'a claim is prolonged');
	refused($copy, "SELECT finance.delete('jobs', msg_id, 2) FROM claimed", 'LG305', 'and not for another read');
	in($copy, "SELECT finance.delete('jobs', msg_id, 1) FROM claimed", 't', 'the message is acknowledged');
	in($copy, "SELECT string_agg(message #>> '{}', ' ') FROM finance.read('north', 86400, 10)", 'k2 routed',
		'what comes after a claimed message of its key waits');
	in($copy, "SELECT finance.delete('north', msg_id, read_ct) FROM claimed_key", 't', 'until that is gone');
	in($copy, "SELECT message FROM finance.read('north', 86400, 10)", '"k1 second"', 'and is read then');

	# the delayed one is due by now or soon; everything else that waits is read
	# in order
	poll_ok($node, "SELECT count(*) = 1 FROM finance.message WHERE payload = '\"soon\"' AND visible_at <= now()",
		"$copy: a delay ends", $copy);
	in($copy, "SELECT message FROM finance.pop('jobs')", '"soon"', 'and what was delayed comes first');
	in($copy, q(SELECT count(*), min(message::int), max(message::int), bool_and(in_order) FROM
		(SELECT message, msg_id > lag(msg_id, 1, 0::bigint) OVER (ORDER BY ordinality) AS in_order
			FROM finance.pop('jobs', 10000) WITH ORDINALITY) m),
		'10000|6|10005|t', 'messages are read in order');
	in($copy, q(SELECT count(*) FILTER (WHERE jsonb_typeof(message) = 'number'), count(*) FILTER (WHERE jsonb_typeof(message) = 'string')
		FROM finance.pop('jobs', 10000)), '9995|1', 'to the last');
	in($copy, "SELECT count(*) FROM finance.read('jobs', 1, 10)", '0', 'the rest is not due');
	in($copy, "SELECT string_agg(payload #>> '{}', ' ' ORDER BY payload) FROM finance.message JOIN finance.queue USING (queue_id) WHERE name = 'jobs'",
		'at later once short', 'and is there');
	in($copy, "SELECT queue_length FROM finance.metrics('jobs')", '4', 'as metrics() says');

	# what queues are told to do
	in($copy, "SELECT count(*) FROM finance.read('still', 1)", '0', 'a paused queue is paused');
	in($copy, "SELECT finance.resume_queue('still'); SELECT count(*) FROM finance.pop('still', 10)", "t\n2",
		'and has its messages');
	in($copy, "SELECT message FROM finance.pop('quick')", '"light"', 'so has an unlogged one');
	in($copy, "SELECT finance.send('jobs', '\"once\"', dedup_id => 'payment 1') = (SELECT msg_id FROM finance.message WHERE payload = '\"once\"')",
		't', 'what was sent once is not sent again');
	in($copy, "SELECT finance.redrive('dead')", '1', 'the dead letter goes back');
	in($copy, "SELECT message, read_ct, headers IS NULL FROM finance.pop('jobs')", '"bad"|0|t', 'and is read anew');
	in($copy, "SELECT message FROM finance.pop('dead', 10)", '"of its own"', 'not what was sent to the dead-letter queue');

	# routing
	in($copy, q(SELECT string_agg(queue_name, ' ' ORDER BY queue_name COLLATE "C") FROM finance.test_routing('order.9.paid', '{"seen": 1, "tags": ["high"]}')),
		'log north', 'bindings have their filters');
	in($copy, q(SELECT finance.publish('order.9.paid', '"new"', '{"job": 1}'), finance.publish('nowhere', '"new"')), '2|1',
		'messages are routed');
	in($copy, "SELECT string_agg(message #>> '{}', ' ') FROM finance.pop('lost', 10) WHERE jsonb_typeof(message) = 'string'", 'astray new',
		'what no binding takes goes where it went');

	# logs
	in($copy, "SELECT string_agg(message #>> '{}', ', ') FROM finance.read_group('log', 'one')",
		'logged, also logged, whole, new', 'a group reads on');
	in($copy, "SELECT finance.seek_group('log', 'two', to_position => 'beginning') IS NOT NULL; SELECT count(*) FROM finance.read_group('log', 'two', 100, true)",
		"t\n5", 'or from the beginning');

	# half messages
	in($copy, 'SELECT finance.commit_message(done) = message_id FROM half', 't', 'an answer is remembered');
	refused($copy, 'SELECT finance.commit_message(given_up) FROM half', 'LG307', 'the other one too');
	in($copy, 'SELECT finance.commit_message(open) > 0, finance.commit_message(parked) > 0 FROM half', 't|t',
		'open ones are committed');
	in($copy, "SELECT visible_at > enqueued_at FROM finance.message WHERE payload = '\"half\"'", 't', 'with their delay');
	in($copy, 'SELECT count(*) FROM finance.parked_half_message', '0', 'parked ones too');

	in($copy, "SELECT finance.process_once('consumer', 7), finance.process_once('consumer', 'a text'), finance.process_once('consumer', 8)",
		'f|f|t', 'what was processed is known');
	in($copy, "SELECT finance.purge_archive('jobs')", '5', 'so is the archive');
	in($copy, "SELECT finance.create_queue('new'), finance.create_queue('gone'); SELECT min(queue_id) > (SELECT max(queue_id) FROM finance.queue WHERE name NOT IN ('new', 'gone')) FROM finance.queue WHERE name IN ('new', 'gone')",
		"|\nt", 'new queues have new numbers');
	in($copy, "SELECT finance.send('new', '1') > 0; SELECT message FROM finance.pop('new')", "t\n1", 'and work');
	in($copy, "SELECT finance.drop_queue('jobs'), finance.drop_queue('log')", 't|t', 'queues are dropped');
	is_sound($node, "$copy, having gone on", $copy);
	$node->safe_psql($copy, 'DROP EXTENSION finance');
	in($copy, "SELECT count(*) FROM pg_class WHERE relname ~ '^(message|inbox|_dedup|group)_'", '0', 'and nothing is left');
}

my $dump = $node->basedir . '/book.sql';
my $archive = $node->basedir . '/book.dump';
$node->command_ok([ 'pg_dump', '-f', $dump, 'book' ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $archive, 'book' ], 'pg_dump -Fc');
restore('parallel', 'pg_restore', '-j', 2, '--exit-on-error', $archive);

# With a worker that looks around before there are indexes: it says what it
# misses, and goes on when all is there.
my $slow = $node->basedir . '/slow.sql';
my $waits = q(DO $$ BEGIN FOR i IN 1 .. 30000 LOOP IF EXISTS (SELECT FROM finance.workers WHERE database = 'plain' AND last_sweep_at > now() AND last_error LIKE '% has lost an index') THEN RETURN; END IF; PERFORM pg_sleep(0.01); END LOOP; RAISE 'no worker looked'; END $$;);
(my $text = slurp_file($dump)) =~ s/^(ALTER TABLE ONLY [^;]* PRIMARY KEY)/$waits\n$1/m
  or die 'the dump has no primary key';
append_to_file($slow, $text);
restore('plain', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $slow);
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE database = 'plain' AND state = 'running'",
	'the worker goes on', 'plain');

goes_on($_) foreach ('parallel', 'plain');

$node->stop;
done_testing();
