# Producers and consumers of a queue that roll back, commit late, and are
# killed at random, with the server, under load: every committed message has
# exactly one effect, no other is seen, deliveries are counted on, keys keep
# their order, and segments are truncated all the while.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use IPC::Run;
use List::Util qw(sum0);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $seed = $ENV{FIN_SEED} // int(rand(2**31));
srand($seed);
note("FIN_SEED=$seed");

my $soak = soak();
my $producers = 3;
my $consumers = 5;
my $node = book_node('main', "synchronous_commit = on\nlog_statement = none\nshared_buffers = 256MB\n");

# number: of a message, its payload.  What a transaction sends is in sent, what
# it reads in reads, and what it does about it in effect.
$node->safe_psql(
	'postgres', q(
SELECT finance.create_queue('jobs', backoff_ms => 10, backoff_max_ms => 200);
SELECT finance.bind_topic('job.#', 'jobs');
CREATE SEQUENCE number;
CREATE SEQUENCE step;
CREATE TABLE sent (n bigint PRIMARY KEY, key text);
CREATE TABLE reads (step bigint DEFAULT nextval('step'), n bigint, read_ct int);
CREATE TABLE effect (step bigint DEFAULT nextval('step'), n bigint, read_ct int, how text);
CREATE TABLE control (done boolean);
CREATE TABLE made (producer int PRIMARY KEY, messages int);
INSERT INTO control VALUES (false);

-- one statement of a producer; a key is used by one producer
CREATE FUNCTION produce_some(producer int, op float8) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	size int := CASE WHEN op < 0.7 THEN 2 + random() * 98 ELSE 1 END;
	numbers bigint[] := ARRAY(SELECT nextval('number') FROM generate_series(1, size));
	keyed boolean := random() < 0.25;
	keys text[] := ARRAY(SELECT CASE WHEN keyed AND random() < 0.5 THEN format('%s.%s', producer, n % 101) END FROM unnest(numbers) n);
	prio int := CASE WHEN random() < 0.2 THEN floor(random() * 11) ELSE 0 END;
	late int := (random() < 0.05)::int;
BEGIN
	CASE
	WHEN op < 0.7 THEN
		PERFORM finance.send_batch('jobs', ARRAY(SELECT to_jsonb(n) FROM unnest(numbers) n), priority => prio, delay => late, ordering_keys => keys);
	WHEN op < 0.85 THEN
		PERFORM finance.send('jobs', to_jsonb(numbers[1]), priority => prio, delay => late, ordering_key => keys[1]);
	ELSE
		PERFORM finance.publish('job.' || producer, to_jsonb(numbers[1]), priority => prio, delay => late, ordering_key => keys[1]);
	END CASE;
	INSERT INTO sent SELECT * FROM unnest(numbers, keys);
	RETURN size;
END $$;

CREATE PROCEDURE produce(who int, goal int, seed float8) LANGUAGE plpgsql AS $$
DECLARE
	size int;
	n int;
BEGIN
	PERFORM setseed(seed);
	WHILE (SELECT messages < goal FROM made WHERE producer = who) LOOP
		size := 0;
		FOR part IN 1 .. 1 + floor(random() * 3) LOOP
			BEGIN
				n := produce_some(who, random());
				IF random() < 0.1 THEN
					RAISE no_data_found;
				END IF;
				size := size + n;
			EXCEPTION WHEN no_data_found THEN
				NULL;
			END;
		END LOOP;
		-- others commit before it
		IF random() < 0.3 THEN
			PERFORM pg_sleep(random() * 0.1);
		END IF;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			UPDATE made SET messages = messages + size WHERE producer = who;
			COMMIT;
		END IF;
	END LOOP;
END $$;

-- reads, works and finishes in one transaction
CREATE FUNCTION consume_at_once(how text, qty int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	finished bigint[];
BEGIN
	IF how = 'pop' THEN
		WITH m AS (SELECT * FROM finance.pop('jobs', qty)),
			e AS (INSERT INTO effect (n, read_ct, how) SELECT message::bigint, read_ct, 'pop' FROM m)
		SELECT array_agg(msg_id) INTO ids FROM m;
		RETURN cardinality(ids);
	END IF;
	WITH m AS (SELECT * FROM finance.read('jobs', 2, qty)),
		r AS (INSERT INTO reads (n, read_ct) SELECT message::bigint, read_ct FROM m),
		e AS (INSERT INTO effect (n, read_ct, how) SELECT message::bigint, read_ct, $1 FROM m)
	SELECT array_agg(msg_id) INTO ids FROM m;
	IF how = 'archive' THEN
		SELECT array_agg(a) INTO finished FROM finance.archive('jobs', ids) a WHERE ids IS NOT NULL;
	ELSIF ids IS NOT NULL THEN
		SELECT array_agg(d) INTO finished FROM finance.delete('jobs', ids) d;
	END IF;
	ASSERT cardinality(ids) IS NOT DISTINCT FROM cardinality(finished), 'what was read is there';
	RETURN cardinality(ids);
END $$;

-- what was read some time ago is finished, given back, held on to, or forgotten
CREATE FUNCTION consume_later(id bigint, number bigint, times int, op float8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF op < 0.6 THEN
		IF finance.delete('jobs', id, times) THEN
			INSERT INTO effect (n, read_ct, how) VALUES (number, times, 'later');
		END IF;
	ELSIF op < 0.8 THEN
		PERFORM finance.nack('jobs', id, CASE WHEN op < 0.65 THEN 0 END, times);
	ELSIF op < 0.9 THEN
		PERFORM finance.set_vt('jobs', id, floor((op - 0.8) * 20)::int, times);
	END IF;
EXCEPTION WHEN SQLSTATE 'LG305' THEN
	NULL;
END $$;

CREATE PROCEDURE consume(seed float8) LANGUAGE plpgsql AS $$
DECLARE
	op float8;
	undone boolean;
	n int;
	held finance.message_record[];
BEGIN
	PERFORM setseed(seed);
	LOOP
		op := random();
		undone := random() < 0.1;
		IF op < 0.7 THEN
			n := consume_at_once(CASE WHEN op < 0.4 THEN 'delete' WHEN op < 0.5 THEN 'archive' ELSE 'pop' END, 1 + floor(random() * random() * 300)::int);
		ELSE
			WITH m AS (SELECT * FROM finance.read('jobs', 1, 1 + floor(random() * 12)::int)),
				r AS (INSERT INTO reads (n, read_ct) SELECT message::bigint, read_ct FROM m)
			SELECT array_agg(m), count(*) INTO held, n FROM m;
			IF undone THEN
				ROLLBACK;
			ELSE
				COMMIT;
				IF random() < 0.05 THEN
					PERFORM pg_sleep(random() * 1.5);
				END IF;
				PERFORM consume_later(h.msg_id, h.message::bigint, h.read_ct, random()) FROM unnest(held) h;
				undone := random() < 0.1;
			END IF;
		END IF;
		IF undone THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		EXIT WHEN (SELECT done FROM control);
		IF n IS NULL OR n = 0 THEN
			PERFORM pg_sleep(0.01);
		END IF;
	END LOOP;
END $$;
));
my $segments = $node->safe_psql('postgres',
	"SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relname ~ '^message_1_[0-9]\$'");
is($segments, 'message_1_0,message_1_1,message_1_2', 'the queue has three tables');

# ------------------------------------------------------------------------
# sessions that are started again when they were killed
# ------------------------------------------------------------------------

my %running;
my $errors = $node->basedir . '/errors';
my $restarted = 0;

sub begin
{
	my ($name, $call) = @_;

	$running{$name} = IPC::Run::start(
		[
			'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr('postgres') . " application_name=$name",
			'-c', sprintf($call, rand(2) - 1)
		],
		'<', File::Spec->devnull, '>', File::Spec->devnull, '2>>', $errors);
}

# those that are over and should not be begin again
sub keep_going
{
	my (%calls) = @_;

	foreach my $name (keys %calls)
	{
		next if defined $running{$name} && $running{$name}->pumpable;
		if (defined $running{$name})
		{
			$restarted++ unless $running{$name}->finish;
		}
		begin($name, $calls{$name});
	}
}

sub finish_all
{
	foreach my $name (keys %running)
	{
		$running{$name}->finish;
		delete $running{$name};
	}
}

# the server's processes are gone
sub kill_server
{
	my @pids = split /\n/,
	  $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;

	$node->kill9;
	usleep(100_000) while (grep { kill 0, $_ } @pids) && $patience-- > 0;
	$node->start;
}

sub kill_backend
{
	my $pid = answer($node,
		"SELECT pid FROM pg_stat_activity WHERE application_name ~ '^(producer|consumer)' ORDER BY random() LIMIT 1");

	kill 'KILL', $pid if $pid;
	wait_for_server($node);
}

sub terminate_some
{
	answer($node,
		"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name ~ '^(producer|consumer)' AND random() < 0.2");
}

# ------------------------------------------------------------------------
# a round of load
# ------------------------------------------------------------------------

sub nothing
{
	my ($query, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node, "SELECT count(*) FROM ($query) q", '0', $name);
}

sub check
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	nothing('SELECT FROM sent LEFT JOIN effect USING (n) GROUP BY n HAVING count(effect.n) <> 1',
		"$name: every committed message has exactly one effect");
	nothing('SELECT n FROM effect UNION ALL SELECT n FROM reads EXCEPT SELECT n FROM sent',
		"$name: no other was seen");
	nothing('SELECT FROM (SELECT read_ct - lag(read_ct) OVER (PARTITION BY n ORDER BY step) AS d FROM reads) r WHERE d <= 0',
		"$name: deliveries are counted on");
	nothing('SELECT FROM effect JOIN (SELECT n, max(read_ct) AS most FROM reads GROUP BY n) r USING (n) WHERE read_ct < most',
		"$name: up to the last");
	nothing('SELECT FROM (SELECT n - lag(n) OVER (PARTITION BY key ORDER BY step) AS d FROM effect JOIN sent USING (n) WHERE key IS NOT NULL) k WHERE d <= 0',
		"$name: messages of one key had their effects in order");
	is_query($node,
		"SELECT count(*) = (SELECT count(*) FROM effect WHERE how = 'archive') FROM finance.message_archive",
		't', "$name: what was archived is in the archive");
	is_sound($node, $name);
}

sub counted
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node,
		"SELECT queue_length = (SELECT count(*) FROM finance.message WHERE queue_id = 1) FROM finance.metrics('jobs')",
		't', "$name: metrics() is count(*)");
}

my $files_query =
  q(SELECT string_agg(relfilenode::text, ' ' ORDER BY oid) FROM pg_class WHERE relname ~ '^message_1_[0-9]$');

sub files
{
	return $node->safe_psql('postgres', $files_query);
}

# goal: committed messages; disturb: called about every tenth of a second until
# all are read
sub load
{
	my ($name, $goal, $disturb) = @_;
	my %consumers = map { ("consumer$_" => 'CALL consume(%.9f)') } 1 .. $consumers;
	my $each = int($goal / $producers);
	my %producers = map { ("producer$_" => "CALL produce($_, $each, %.9f)") } 1 .. $producers;
	my $until = time() + 3 * $PostgreSQL::Test::Utils::timeout_default;
	my $start = time();
	my $files = files();

	$node->safe_psql('postgres',
		"UPDATE control SET done = false; DELETE FROM made; INSERT INTO made SELECT p, 0 FROM generate_series(1, $producers) p");
	while (time() < $until)
	{
		my $left = answer($node, "SELECT string_agg('producer' || producer, ' ') FROM made WHERE messages < $each");

		foreach my $producer (defined $left ? keys %producers : ())
		{
			delete $producers{$producer} if index($left, $producer) < 0;
		}
		last unless %producers;
		keep_going(%consumers, %producers);
		usleep(100_000);
		$disturb->();
	}
	is(join(' ', keys %producers), '', "$name: all was sent");

	# in the middle of it nobody does anything
	$node->safe_psql('postgres', 'UPDATE control SET done = true');
	finish_all();
	counted("$name, not yet read");
	$node->safe_psql('postgres', 'UPDATE control SET done = false');

	my $empty = '';
	while (time() < $until && $empty ne 't')
	{
		keep_going(%consumers);
		usleep(100_000);
		$disturb->();
		$empty = answer($node, "SELECT NOT EXISTS (SELECT FROM finance.message WHERE queue_id = 1)") // '';
	}
	is($empty, 't', "$name: all was read");
	$node->safe_psql('postgres', 'UPDATE control SET done = true');
	finish_all();
	is_query($node, "SELECT queue_length, queue_visible_length FROM finance.metrics('jobs')",
		'0|0', "$name: and counted");
	poll_ok($node, "SELECT '$files' <> ($files_query)", "$name: segments were truncated");
	check($name);
	note(sprintf('%s: %.1f s, %s messages, %s reads', $name, time() - $start,
			$node->safe_psql('postgres', 'SELECT count(*) FROM sent'),
			$node->safe_psql('postgres', 'SELECT count(*) FROM reads')));
}

# what was killed, and nothing else
sub only_kills
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @others = grep {
		/(ERROR|FATAL|PANIC|exception)/
		  && !/terminating connection|the database system is (starting up|shutting down|in recovery mode)|not yet accepting connections/
	} split /^/, -e $errors ? slurp_file($errors) : '';

	is(join('', @others), '', "$name: nothing was refused");
	unlink $errors;
}

# ------------------------------------------------------------------------
# no hint may be missed: the server lives on, and nothing is forgotten
# ------------------------------------------------------------------------

poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');
load('quiet', 30_000 * $soak, sub { });
only_kills('quiet');
is($restarted, 0, 'nobody was killed');
load('terminated', 30_000 * $soak, \&terminate_some);
only_kills('terminated');
cmp_ok($restarted, '>', 0, 'sessions were killed');

# ------------------------------------------------------------------------
# crashes
# ------------------------------------------------------------------------

foreach my $round (1 .. $soak)
{
	my $calls = 0;
	my $at = 2 + int(rand(15));

	load("kill -9 of a backend $round", 20_000,
		sub { kill_backend() if ++$calls == $at });
	cmp_ok($calls, '>=', $at, 'one was killed');
	only_kills("kill -9 of a backend $round");
}
foreach my $round (1 .. $soak)
{
	my $calls = 0;
	my $at = 2 + int(rand(15));

	load("kill -9 of the postmaster $round", 25_000,
		sub { kill_server() if ++$calls == $at || $calls == $at + 10 });
	cmp_ok($calls, '>=', $at, 'it was killed');
	only_kills("kill -9 of the postmaster $round");
}
is_query($node, 'SELECT count(*) >= 100000 FROM sent', 't', 'a hundred thousand messages');

$node->stop;
done_testing();
