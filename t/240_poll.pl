# Readers that wait: what wakes them, and what they hold meanwhile.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = finance_node('main');
$node->start;
$node->safe_psql('postgres',
	"CREATE EXTENSION finance; SELECT finance.create_queue('jobs'); SELECT finance.create_queue('other')"
);
my $queue_id = $node->safe_psql('postgres',
	"SELECT queue_id FROM finance.list_queues() WHERE queue_name = 'jobs'");

# The longest wait there is: who is not woken does not come back in time.
my $wait = "SELECT message ->> 'n' FROM finance.read_with_poll('jobs', 600, 1, 3600)";

sub reader
{
	my ($at, @sql) = @_;
	my $reader = { out => '', err => '' };

	$reader->{run} = IPC::Run::start(
		[ 'psql', '-XqAt', '-v', 'VERBOSITY=sqlstate', '-d', $at->connstr('postgres'), map { ('-c', $_) } @sql ],
		'<', File::Spec->devnull, '>', \$reader->{out}, '2>', \$reader->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $reader;
}

sub heard
{
	my ($reader) = @_;

	$reader->{run}->finish;
	return $reader->{out} . $reader->{err} =~ s/\n.*//sr;
}

# until so many wait, asleep
sub asleep
{
	my ($n, $name) = @_;

	poll_ok(
		$node,
		"SELECT count(*) = $n FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'",
		$name // "$n asleep");
}

sub emptied
{
	$node->safe_psql('postgres',
		"SELECT finance.purge_queue('jobs'), finance.purge_queue('other')");
}

sub sends
{
	my ($n) = @_;

	return "SELECT finance.send('jobs', '{\"n\": $n}')";
}

# ---- what it holds ----

my $holds = q(SELECT coalesce(backend_xmin::text, '-') || coalesce(backend_xid::text, '-')
	FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend');
my $locks = q(SELECT count(*) FROM pg_locks WHERE relation::regclass::text LIKE 'finance.message%' AND pid <> pg_backend_pid());

foreach my $query (
	$wait,
	"BEGIN; SAVEPOINT a; $wait; COMMIT",
	"SELECT (finance.read_with_poll('jobs', 600, 1, 3600)).message ->> 'n'",
	"BEGIN; DECLARE c CURSOR FOR $wait; FETCH c; COMMIT",
	"CREATE TEMP TABLE t (n text)| DO \$\$ DECLARE m record; BEGIN CALL finance.wait_for_message('jobs', 3600); "
	  . "SELECT * INTO m FROM finance.read('jobs', 600); INSERT INTO t VALUES (m.message ->> 'n'); COMMIT; END \$\$| SELECT n FROM t"
  )
{
	my $reader = reader($node, split(/\|(?= )/, $query));

	asleep(1, 'it waits');
	is($node->safe_psql('postgres', $holds), '--',
		"no snapshot, no transaction id: $query");
	is($node->safe_psql('postgres', $locks), 0, 'no lock on the queue');
	$node->safe_psql('postgres', sends(1));
	is(heard($reader), "1\n", 'it reads what was sent');
	emptied();
}

# the statement around it reads a table: then it keeps the snapshot
my $reader = reader($node,
	"SELECT m.message ->> 'n' FROM pg_database d, finance.read_with_poll('jobs', 600, 1, 3600) m WHERE d.datname = 'postgres'"
);
asleep(1);
like($node->safe_psql('postgres', $holds), qr/^\d+-$/,
	'a statement that reads a table keeps its snapshot');
$node->safe_psql('postgres', sends(1));
is(heard($reader), "1\n", 'and works as well');
emptied();

# ---- what wakes it ----

# one message, one reader: the others sleep on
my @readers = map { reader($node, $wait) } 1 .. 3;
asleep(3);
$node->safe_psql('postgres', "SELECT finance.send('other', '{}')");
$node->safe_psql('postgres', "BEGIN;" . sends(9) . "; ROLLBACK");
$node->safe_psql('postgres', sends(1));
asleep(2, 'one of three was woken');
$node->safe_psql('postgres',
	"SELECT finance.send_batch('jobs', ARRAY['{\"n\": 2}', '{\"n\": 3}']::jsonb[])");
is(join('', sort map { heard($_) } @readers),
	"1\n2\n3\n", 'each message has one reader');
emptied();

# those that do not wait any more are passed over
@readers = map { reader($node, $wait) } 1 .. 3;
asleep(3);
my ($cancelled, $ended) = split(/\n/, $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND backend_type = 'client backend' ORDER BY backend_start LIMIT 2"
	));
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend($cancelled), pg_terminate_backend($ended)");
asleep(1, 'one was cancelled, one terminated');
$node->safe_psql('postgres', sends(1));
my @heard = map { heard($_) } @readers;
is(scalar(grep { $_ eq "1\n" } @heard), 1, 'the third reads');
is(scalar(grep { /57014|57P01/ } @heard), 2, 'the others have their errors');
emptied();

# a caught error ends the waiting too
$reader = reader($node,
	"SET statement_timeout = '500ms'",
	"DO \$\$ BEGIN PERFORM finance.read_with_poll('jobs', 600, 1, 3600);"
	  . " EXCEPTION WHEN query_canceled THEN NULL; END \$\$",
	"SET statement_timeout = 0",
	$wait);
poll_ok(
	$node,
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT message%' AND state = 'active' AND wait_event_type = 'Extension'",
	'it waits');
$node->safe_psql('postgres', sends(1));
is(heard($reader), "1\n", 'it can wait again after an error that is caught');
emptied();

# a delay that is known when it begins to wait, and one that comes later
$node->safe_psql('postgres', "SELECT finance.send('jobs', '{\"n\": 1}', delay => 1)");
is(heard(reader($node, $wait)), "1\n", 'woken when a delay ends');
emptied();
$reader = reader($node, $wait);
asleep(1);
$node->safe_psql('postgres', "SELECT finance.send('jobs', '{\"n\": 2}', delay => 1)");
is(heard($reader), "2\n", 'woken when the delay of a new message ends');
emptied();

# a visibility timeout
$node->safe_psql('postgres', sends(3) . "; SELECT * FROM finance.read('jobs', 1)");
is(heard(reader($node, $wait)), "3\n", 'woken when a visibility timeout ends');
emptied();

# what another reader took and gave back
my $other = $node->background_psql('postgres');
$node->safe_psql('postgres', sends(4));
$other->query_safe(
	"BEGIN; SELECT count(*) FROM finance.read('jobs', 600); SELECT finance._ring($queue_id, 0, 1, now() + interval '600 s')"
);
$reader = reader($node, $wait);
asleep(1);
$other->query_safe('ROLLBACK');
is(heard($reader), "4\n", 'woken when a reader gives back what it took');
$other->query_safe('BEGIN; SAVEPOINT a');
emptied();
$node->safe_psql('postgres', sends(5));
$other->query_safe(
	"SELECT count(*) FROM finance.read('jobs', 600); SELECT finance._ring($queue_id, 0, 1, now() + interval '600 s')"
);
$reader = reader($node, $wait);
asleep(1);
$other->query_safe('ROLLBACK TO a');
is(heard($reader), "5\n", 'also to a savepoint');
$other->quit;
emptied();

# what rings no bell is found when the wait is over
$reader = reader($node,
	"SELECT message ->> 'n' FROM finance.read_with_poll('jobs', 600, 1, 3)");
asleep(1);
$node->safe_psql('postgres', "BEGIN;" . sends(6) . "; PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(heard($reader), "6\n", 'a prepared message is found at the end');
emptied();

# ---- errors ----

is( heard(reader($node, "SET default_transaction_isolation = 'repeatable read'", $wait)),
	'ERROR:  0A000', 'not above READ COMMITTED');
is( heard(reader($node, "BEGIN ISOLATION LEVEL SERIALIZABLE; $wait")),
	'ERROR:  0A000', 'nor SERIALIZABLE');
is( heard(reader($node, "BEGIN; CALL finance.wait_for_message('jobs')")),
	'ERROR:  25001', 'the procedure does not run in a transaction block');
$node->safe_psql('postgres', 'CREATE ROLE stranger; GRANT USAGE ON SCHEMA finance TO stranger');
is( heard(reader($node, 'SET ROLE stranger', "CALL finance.wait_for_message('jobs', 0)")),
	'ERROR:  42501', 'nor for those without access');
is( heard(reader($node, "CALL finance.wait_for_message('none')")),
	'ERROR:  LG301', 'and knows which queues there are');
is( heard(reader($node, "SELECT finance.read_with_poll('none', 1)")),
	'ERROR:  LG301', 'as the function does');
foreach my $bad ('max_poll_seconds => -1', 'max_poll_seconds => 3601',
	'poll_interval_ms => 0', 'poll_interval_ms => 60001')
{
	is( heard(reader($node, "SELECT finance.read_with_poll('jobs', 1, $bad)")),
		'ERROR:  22023', $bad);
}
is( heard(reader($node, "SELECT count(*) FROM finance.read_with_poll('jobs', 1, 1, 0)")),
	"0\n", 'no time: no wait');
is($node->safe_psql('postgres', 'SELECT count(*) FROM finance.check_integrity()'),
	0, 'the book is whole');
$node->stop;

# ---- not preloaded: it looks from time to time ----

my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
$plain->safe_psql('postgres',
	"CREATE EXTENSION finance; SELECT finance.create_queue('jobs')");
$node = $plain;
$reader = reader($plain,
	"SELECT message ->> 'n' FROM finance.read_with_poll('jobs', 600, 1, 3600, 50)");
asleep(1);
$plain->safe_psql('postgres', sends(1));
is(heard($reader), "1\n", 'without the library preloaded it polls');
$plain->stop;
done_testing();
