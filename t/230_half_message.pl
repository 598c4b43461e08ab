# Half messages: whenever a producer dies, what it prepared comes to a visible
# end, in step with its own work; the worker asks, over restarts and for
# prepared transactions; an open one keeps vacuum from nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{FIN_SEED} // int(rand(2**31));
srand($seed);
note("FIN_SEED=$seed");

# sweeps do not come by themselves: what is due was noted by its producer
my $node = book_node('main', "max_prepared_transactions = 4\n");

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# its half_id; check_after '1 hour' is out of this test's time
sub prepare
{
	my ($group, $payload, $more) = @_;

	return sql("SELECT finance.prepare_message('$group', 'order.paid', '$payload'"
		  . (defined $more ? ", $more" : '') . ')');
}

sub status_of
{
	my ($id) = @_;

	return sql("SELECT concat_ws(' ', status, checks, parked_reason) FROM finance.half_message_status($id)");
}

sub becomes
{
	my ($id, $status, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	poll_ok($node,
		"SELECT concat_ws(' ', status, checks, parked_reason) = '$status' FROM finance.half_message_status($id)",
		$name);
}

# messages of a topic in queues, with this in their payload
sub messages
{
	my ($topic, $id) = @_;

	return "SELECT count(*) FROM finance.message WHERE topic = '$topic'"
	  . ($topic eq 'check' ? " AND payload ->> 'half_id' = '$id'" : " AND payload = '$id'");
}

sql("SELECT finance.create_queue('orders')", "SELECT finance.create_queue('asked')",
	"SELECT finance.bind_topic('order.*', 'orders')",
	"SELECT finance.bind_topic('check', 'asked')",
	"SELECT finance.create_producer_group('quick', 'check', '10 milliseconds', '1 hour')",
	"SELECT finance.create_producer_group('slow', 'check', '1 hour')",
	"SELECT finance.create_producer_group('eager', 'check', '10 milliseconds', '10 milliseconds', '10 milliseconds', max_checks => 3)",
	"SELECT finance.create_producer_group('unheard', 'nobody', '10 milliseconds', '10 milliseconds', '10 milliseconds', max_checks => 2)",
	'CREATE TABLE business (half_id bigint PRIMARY KEY, done boolean NOT NULL)');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');

# ------------------------------------------------------------------------
# the worker asks
# ------------------------------------------------------------------------

my $slow = prepare('slow', 1);
my $quick = prepare('quick', 2);
becomes($quick, 'open 1', 'one that was left open is asked about');
is_query($node, messages('check', $quick), '1', 'by a message');
is(status_of($slow), 'open 0', 'a later one is not');
is_query($node, messages('order.paid', 2), '0', 'it is not delivered meanwhile');
sql("SELECT finance.commit_message($quick)");
is_query($node, messages('order.paid', 2), '1', 'but once it is committed');
my $eager = prepare('eager', 3);
becomes($eager, 'parked 3 unanswered', 'what nobody answers is parked');
is_query($node, messages('check', $eager), '3', 'after as many messages');
my $unheard = prepare('unheard', 4);
becomes($unheard, 'parked 0 no_listener', 'so is what nobody could hear of');
is_query($node, 'SELECT count(*) FROM finance.parked_half_message', '2', 'where an operator sees them');
sql("SELECT finance.bind_topic('nobody', 'asked')", "SELECT finance.recheck_half_message($unheard)");
becomes($unheard, 'parked 2 unanswered', 'checked again when somebody listens');
sql("SELECT finance.rollback_message('{$eager,$unheard}'::bigint[])");

# by a subtransaction that is kept, among ones that are not
my $made = sql('CREATE TABLE made (half_id bigint)', 'BEGIN', 'SAVEPOINT a',
	"INSERT INTO made SELECT finance.prepare_message('quick', 'order.paid', '5')",
	'ROLLBACK TO a', 'SAVEPOINT b',
	"INSERT INTO made SELECT finance.prepare_message('quick', 'order.paid', '5')",
	'RELEASE b', 'COMMIT', 'SELECT half_id FROM made');
becomes($made, 'open 1', 'one prepared in a subtransaction');
sql("SELECT finance.rollback_message($made)");

# many at once, of two tenants
my $tenant = sql("SELECT finance.create_tenant('other')");
sql("SET finance.tenant = $tenant", "SELECT finance.create_queue('asked')",
	"SELECT finance.bind_topic('check', 'asked')",
	"SELECT finance.create_producer_group('quick', 'check', '10 milliseconds', '1 hour')",
	"SELECT count(*) FROM finance.prepare_messages('quick', 'order.paid', array_fill('7'::jsonb, '{700}'))");
sql("SELECT count(*) FROM finance.prepare_messages('quick', 'order.paid', array_fill('7'::jsonb, '{700}'))");
poll_ok($node,
	"SELECT count(*) = 1400 FROM finance.half_check c JOIN finance.half_message m USING (tenant_id, half_id) WHERE m.payload = '7'",
	'more than a batch');
is_query($node,
	"SELECT tenant_id = $tenant, count(*), count(DISTINCT payload ->> 'half_id') FROM finance.message WHERE topic = 'check' AND payload -> 'payload' = '7' GROUP BY 1 ORDER BY 1",
	"f|700|700\nt|700|700", 'each once, each in its tenant');
foreach my $id (0, $tenant)
{
	sql("SET finance.tenant = $id",
		"SELECT finance.rollback_message((SELECT array_agg(half_id) FROM finance.half_message WHERE payload = '7' AND tenant_id = $id))");
}

# one that is just being answered is left to who does; then asked about
my $answering = prepare('slow', 8);
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT finance.commit_message($answering)");
sql("SELECT finance.alter_producer_group('slow', check_after => '10 milliseconds')");
my $beside = prepare('slow', 9);
becomes($beside, 'open 1', 'others are asked about');
sql("SELECT finance.alter_producer_group('slow', check_after => '1 hour')");
is(status_of($answering), 'open 0', 'a half message that is being answered waits');
$holder->query_safe('ROLLBACK');
sql("SELECT finance.recheck_half_message($answering)");
becomes($answering, 'open 1', 'until it is not');
my $locked = prepare('slow', 10, "check_after => '300 milliseconds'");
$holder->query_safe("BEGIN; SELECT finance.commit_message($locked)");
poll_ok($node, "SELECT clock_timestamp() > next_check_at FROM finance.half_message_status($locked)",
	'one is due while it is being answered');
$holder->query_safe('ROLLBACK');
poll_ok($node, "SELECT checks = 1 FROM finance.half_message_status($locked)",
	'and asked about when that comes to nothing');
sql("SELECT finance.rollback_message('{$beside,$answering,$locked,$slow}'::bigint[])");

# ------------------------------------------------------------------------
# failures are told
# ------------------------------------------------------------------------

sql(
	q{CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN
		IF NEW.copies > 0 THEN RAISE 'an unlucky number'; END IF;
		SET application_name = 'trigger';
		RETURN NULL;
	END $$},
	'CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON finance.half_check DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION poison()'
);
my $poisoned = prepare('eager', 11);
becomes($poisoned, 'parked 0 check_failed', 'one that cannot be checked is parked');
is_query($node,
	"SELECT error FROM finance.parked_half_message WHERE half_id = $poisoned",
	'an unlucky number', 'with the reason');
poll_ok($node,
	"SELECT last_error = 'an unlucky number' AND state = 'running' FROM finance.workers WHERE database = 'postgres'",
	'which the worker tells');
is_query($node,
	"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trigger'",
	'0', 'what a trigger sets is undone');
is_query($node, messages('check', $poisoned), '0', 'nobody was asked');
sql('DROP TRIGGER poison ON finance.half_check', "SELECT finance.rollback_message($poisoned)");

# ------------------------------------------------------------------------
# an open half message keeps no transaction open
# ------------------------------------------------------------------------

my $open = prepare('slow', 12);
poll_ok($node,
	'SELECT count(*) = 0 FROM pg_stat_activity WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()',
	'nobody has a snapshot or a transaction');
is_query($node, 'SELECT count(*) FROM pg_prepared_xacts', '0', 'nor is one prepared');
sql('CREATE TABLE garbage AS SELECT n FROM generate_series(1, 10000) n', 'DELETE FROM garbage');
my $size;
for (my $try = 0; $try < 100; $try++)
{
	# the worker may just be looking at something, or an autovacuum
	sql('VACUUM garbage');
	$size = sql("SELECT pg_relation_size('garbage')");
	last if $size == 0;
	usleep(100_000);
}
is($size, 0, 'vacuum removes what was deleted since');

# ------------------------------------------------------------------------
# dead rows, while a snapshot is kept
# ------------------------------------------------------------------------

sub answered_ones
{
	return "SELECT count(*) FROM finance.half_message m JOIN finance.half_answer a USING (tenant_id, half_id) WHERE m.payload = '13'";
}

$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
foreach my $round (1 .. 3)
{
	sql("SELECT count(finance.commit_message(h)) FROM finance.prepare_messages('quick', 'nowhere', array_fill('13'::jsonb, '{10000}')) h");
}
$node->append_conf('postgresql.conf', "finance.sweep_interval = 1\n");
$node->reload;
poll_ok($node, 'SELECT (' . answered_ones() . ') <= 20500', 'the worker deletes');
my $swept = sql("SELECT last_sweep_at FROM finance.workers WHERE database = 'postgres'");
poll_ok($node,
	"SELECT last_sweep_at > '$swept'::timestamptz + interval '2 seconds' FROM finance.workers WHERE database = 'postgres'",
	'sweeps go on');
my $left = sql(answered_ones());
cmp_ok($left, '>=', 19000, 'no more than a bounded number while a snapshot may see them');
is(status_of($open), 'open 0', 'open ones stay');
$holder->query_safe('COMMIT');
poll_ok($node, 'SELECT (' . answered_ones() . ') = 0', 'all of them afterwards');
sql("SELECT finance.rollback_message($open)");

# ------------------------------------------------------------------------
# answers are forgotten
# ------------------------------------------------------------------------

my $past = "SET finance.test_clock = '2001-01-01'";
my $old = sql($past, "SELECT finance.prepare_message('slow', 'nowhere', '14')");
sql($past, "SELECT finance.commit_message($old)");
poll_ok($node, "SELECT count(*) = 0 FROM finance.half_message_status($old)",
	'an old answer is forgotten');
my ($code, $out, $err) = $node->psql('postgres', "SELECT finance.commit_message($old)");
like($err, qr/half message $old does not exist/, 'and refused');
my $kept = prepare('quick', 15);
is_query($node,
	"SELECT finance.commit_message($kept) = finance.commit_message($kept)", 't', 'a new one is kept');

# ------------------------------------------------------------------------
# prepared transactions, found by a sweep
# ------------------------------------------------------------------------

my $answered = prepare('quick', 21);
my $undone = prepare('quick', 22);
sql('TRUNCATE made', 'BEGIN',
	"INSERT INTO made SELECT finance.prepare_message('quick', 'order.paid', '23')",
	"SELECT finance.commit_message($answered)", "PREPARE TRANSACTION 'one'");
sql('BEGIN', "SELECT finance.commit_message($undone)", "PREPARE TRANSACTION 'two'");
$node->restart;
is_query($node, 'SELECT gid FROM pg_prepared_xacts ORDER BY 1', "one\ntwo", 'prepared, over a restart');
like(status_of($answered), qr/^open/, 'not yet answered');
my $free = prepare('quick', 24);
becomes($free, 'open 1', 'others are asked about');
sql("COMMIT PREPARED 'one'");
sql("ROLLBACK PREPARED 'two'");
$made = sql('SELECT half_id FROM made');
becomes($made, 'open 1', 'a half message of a prepared transaction is asked about');
like(status_of($answered), qr/^committed/, 'an answer of one counts');
is_query($node, messages('order.paid', 21), '1', 'and is delivered');
becomes($undone, 'open 1', 'one rolled back leaves it open');
is_query($node, messages('order.paid', 22), '0', 'and delivers nothing');
sql("SELECT finance.rollback_message('{$undone,$free,$made}'::bigint[])");

# what a transaction's snapshot is too old for
$holder->{run}->kill_kill;
$holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
my $later = prepare('slow', 25);
$holder->query("SELECT finance.commit_message($later)");
like($holder->{stderr}, qr/could not serialize access/, 'prepared after the snapshot: 40001');
$holder->quit;
sql("SELECT finance.rollback_message($later)");

# ------------------------------------------------------------------------
# producers die, at any moment
# ------------------------------------------------------------------------

# answers what the worker asks, by what its business says
sub answer_all
{
	sql(q{DO $$
	DECLARE m record; id bigint;
	BEGIN
		FOR m IN SELECT * FROM finance.pop('asked', 1000) LOOP
			id := m.message ->> 'half_id';
			CONTINUE WHEN NOT EXISTS (SELECT FROM finance.half_message_status(id) s WHERE s.status IN ('open', 'parked'));
			IF EXISTS (SELECT FROM business b WHERE b.half_id = id AND b.done) THEN
				PERFORM finance.commit_message(id);
			ELSE
				PERFORM finance.rollback_message(id);
			END IF;
		END LOOP;
	END $$});
}

my @steps = (
	"BEGIN; SELECT finance.prepare_message('quick', 'order.paid', to_jsonb(%d)) AS id",
	'COMMIT',
	'BEGIN; INSERT INTO business SELECT m.half_id, true FROM finance.half_message m WHERE m.payload = to_jsonb(%d)',
	'COMMIT',
	'BEGIN; SELECT finance.commit_message((SELECT half_id FROM finance.half_message m WHERE m.payload = to_jsonb(%d)))',
	'COMMIT');

# some steps of a producer's work; returns the session
sub producer
{
	my ($number, $last) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	foreach my $step (@steps[ 0 .. $last ])
	{
		$session->query_safe(sprintf($step, $number));
	}
	return $session;
}

# everything has ended, and as its business did
sub check_round
{
	my ($name) = @_;
	my $patience = 20 * $PostgreSQL::Test::Utils::timeout_default;
	my $left;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	do
	{
		answer_all();
		$left = sql("SELECT count(*) FROM finance.half_message m, finance.half_message_status(m.half_id) s WHERE m.payload > '1000' AND s.status IN ('open', 'parked')");
		usleep(50_000) if $left > 0;
	} while ($left > 0 && $patience-- > 0);
	is($left, 0, "$name: nothing is left open");
	is_query($node,
		"SELECT count(*) FROM business b LEFT JOIN finance.half_answer a USING (half_id) LEFT JOIN finance.message m USING (message_id) WHERE b.done AND m.msg_id IS NULL",
		'0', "$name: what was done was told");
	is_query($node,
		"SELECT count(*) FROM finance.message m WHERE topic = 'order.paid' AND payload > '1000' AND NOT EXISTS (SELECT FROM business b JOIN finance.half_answer a USING (half_id) WHERE a.message_id = m.message_id)",
		'0', "$name: what was not was not");
	is_query($node,
		"SELECT count(*) FROM (SELECT FROM finance.message WHERE topic = 'order.paid' AND payload > '1000' GROUP BY payload HAVING count(*) > 1) t",
		'0', "$name: nothing twice");
	is_sound($node, $name);
}

my $number = 1000;
foreach my $last (0 .. $#steps)
{
	my $session = producer(++$number, $last);

	sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	$session->{run}->kill_kill;
}
check_round('terminated backends');

foreach my $round (1 .. 2 * soak())
{
	my @sessions = map { producer(++$number, int(rand(@steps))) } 1 .. 8;
	my @pids = split /\n/, sql('SELECT pid FROM pg_stat_activity');
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;

	if ($round % 2)
	{
		$node->kill9;
	}
	else
	{
		$node->stop('immediate');
	}
	$_->{run}->kill_kill foreach @sessions;
	# those of a killed postmaster go when they next wait for something
	usleep(100_000) while (grep { kill 0, $_ } @pids) && $patience-- > 0;
	$node->start;
	check_round($round % 2 ? "kill -9 of the postmaster $round" : "immediate shutdown $round");
}

# ------------------------------------------------------------------------
# a dump takes them along
# ------------------------------------------------------------------------

$open = prepare('slow', 31);
my $done = prepare('slow', 32);
my $message = sql("SELECT finance.commit_message($done)");
my $dump = $node->basedir . '/half.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'a dump');
sql('CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ],
	'is restored');
is_query($node, "SELECT finance.commit_message($open) > 0, finance.commit_message($done) = $message",
	't|t', 'its half messages with it', 'copy');
is_sound($node, 'the copy', 'copy');
sql("SELECT finance.rollback_message($open)");

# ------------------------------------------------------------------------
# not preloaded
# ------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
$quick = prepare('quick', 41);
poll_ok($node, "SELECT clock_timestamp() > next_check_at FROM finance.half_message_status($quick)",
	'one is due without a worker');
is_query($node, 'SELECT finance.check_half_messages()', '1', 'and checked when somebody asks');
is(status_of($quick), 'open 1', 'as by the worker');
sql("SELECT finance.commit_message($quick)");
is_sound($node, 'without the worker');

$node->stop;
done_testing();
