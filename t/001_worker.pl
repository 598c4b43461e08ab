# The launcher keeps one worker per database that has the extension, whatever
# happens to databases, extensions and processes.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $workers =
  "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'finance worker'";
my $launchers =
  "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'finance launcher'";

sub running
{
	my ($database) = @_;
	return
	  "SELECT count(*) = 1 FROM finance.workers WHERE database = '$database' AND state = 'running'";
}

my $node = finance_node('main');
$node->append_conf('postgresql.conf', "allow_in_place_tablespaces = on\n");
$node->start;

# before the extension
poll_ok($node, "SELECT ($launchers) = 1", 'the launcher runs');
poll_ok($node, "SELECT ($workers) = 0",
	'no worker stays in a database without the extension');

# CREATE EXTENSION
$node->safe_psql('postgres', 'CREATE EXTENSION finance');
poll_ok($node, running('postgres'), 'CREATE EXTENSION starts the worker');
$node->safe_psql('postgres', "SELECT finance.create_account('a', 'EUR')");
poll_ok(
	$node,
	"SELECT count(*) >= 3 FROM pg_inherits WHERE inhparent = 'finance.transfer'::regclass",
	'the worker makes partitions ahead');
is($node->safe_psql('postgres', $workers), '1', 'there is one worker');

$node->restart;
poll_ok($node, running('postgres'), 'the worker starts with the server');

# DROP EXTENSION
$node->safe_psql('postgres', 'DROP EXTENSION finance CASCADE');
poll_ok($node, "SELECT ($workers) = 0", 'DROP EXTENSION ends the worker');
$node->safe_psql('postgres', 'BEGIN; CREATE EXTENSION finance; ROLLBACK');
$node->safe_psql('postgres', 'CREATE EXTENSION finance');
poll_ok($node, running('postgres'), 'CREATE EXTENSION starts it again');
$node->safe_psql('postgres',
	'BEGIN; DROP EXTENSION finance CASCADE; CREATE EXTENSION finance; COMMIT');
poll_ok($node, running('postgres'),
	'a worker runs after both in one transaction');
$node->safe_psql('postgres', "SELECT finance.create_account('a', 'EUR')");
poll_ok(
	$node,
	"SELECT count(*) >= 3 FROM pg_inherits WHERE inhparent = 'finance.transfer'::regclass",
	'and it works for the new extension');

# databases with a worker can be copied, renamed, moved and dropped
$node->safe_psql('template1',
	'CREATE DATABASE copy TEMPLATE postgres');
poll_ok($node, running('copy'), 'a copy of a database gets its worker');
poll_ok($node, running('postgres'), 'and its template has it back');
$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO renamed');
poll_ok($node, running('renamed'), 'RENAME works, and the worker comes back');
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION ''");
$node->safe_psql('postgres', 'ALTER DATABASE renamed SET TABLESPACE place');
poll_ok($node, running('renamed'),
	'SET TABLESPACE works, and the worker comes back');

my $guest = $node->background_psql('renamed');
my ($ret, $out, $err) =
  $node->psql('postgres', 'ALTER DATABASE renamed RENAME TO other');
isnt($ret, 0, 'RENAME fails while a user is connected');
poll_ok($node, running('renamed'), 'and then the worker comes back');
$guest->quit;

my $pid;
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
$pid = $node->safe_psql('postgres',
	"SELECT pid FROM finance.workers WHERE database = 'renamed'");
($ret, $out, $err) = $node->psql('postgres',
	'SET ROLE nobody; DROP DATABASE renamed');
like($err, qr/must be owner of database/, 'others may not drop it');
is( $node->safe_psql(
		'postgres',
		"SELECT pid FROM finance.workers WHERE database = 'renamed'"),
	$pid,
	'nor stop its worker');

$node->safe_psql('postgres',
	'BEGIN; ALTER DATABASE renamed RENAME TO other; ROLLBACK');
poll_ok($node, running('renamed'), 'the worker comes back after a rollback');
$node->safe_psql('postgres', 'DROP DATABASE renamed');
is( $node->safe_psql(
		'postgres', "SELECT count(*) FROM pg_database WHERE datname = 'renamed'"),
	'0',
	'DROP DATABASE works');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers", 'one worker is left');

# databases that are closed and opened
$node->safe_psql('postgres', 'CREATE DATABASE closed TEMPLATE postgres');
poll_ok($node, running('closed'), 'another copy gets its worker');
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers",
	'the worker leaves a database that is closed');
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS true');
poll_ok($node, running('closed'), 'and comes back when it is opened');

# without an event: found by looking
$node->append_conf('postgresql.conf', "finance.launcher_naptime = 1\n");
$node->reload;
$node->safe_psql('postgres',
	"UPDATE pg_database SET datistemplate = true WHERE datname = 'closed'");
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers",
	'the worker leaves a database that became a template');
$node->safe_psql('postgres',
	"UPDATE pg_database SET datistemplate = false WHERE datname = 'closed'");
poll_ok($node, running('closed'), 'and comes back when it is none');

# reload
my $sweep = $node->safe_psql('postgres',
	"SELECT last_sweep_at FROM finance.workers WHERE database = 'postgres'");
$node->append_conf('postgresql.conf', "finance.sweep_interval = 1\n");
$node->reload;
poll_ok(
	$node,
	"SELECT last_sweep_at > '$sweep' FROM finance.workers WHERE database = 'postgres'",
	'a reload reaches the sleeping worker');
$node->append_conf('postgresql.conf', "finance.sweep_interval = 86400\n");
$node->reload;

# processes that are terminated
$pid = worker_pid($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
poll_ok(
	$node,
	"SELECT count(*) = 1 FROM finance.workers WHERE database = 'postgres' AND state = 'running' AND pid <> $pid",
	'a terminated worker is replaced');
$pid = worker_pid($node);
my $launcher = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'finance launcher'");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
poll_ok(
	$node,
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'finance launcher' AND pid <> $launcher",
	'a terminated launcher is replaced');
is(worker_pid($node), $pid, 'its workers stay');
$node->safe_psql('postgres', 'DROP DATABASE closed WITH (FORCE)');
poll_ok($node, "SELECT ($workers) = 1", 'and the new launcher knows them');

# a crash of the worker takes the server through a restart
$pid = worker_pid($node);
kill 'KILL', $pid;
poll_ok(
	$node,
	"SELECT count(*) = 1 FROM finance.workers WHERE database = 'postgres' AND state = 'running' AND pid <> $pid",
	'the worker returns after a crash');

# death of the postmaster
$pid = worker_pid($node);
$launcher = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'finance launcher'");
$node->kill9;
my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
usleep(100_000)
  while (kill(0, $pid) || kill(0, $launcher)) && $patience-- > 0;
ok(!kill(0, $pid), 'the worker ends with the postmaster');
ok(!kill(0, $launcher), 'so does the launcher');
$node->start;
poll_ok($node, running('postgres'), 'it is there again after recovery');

# not preloaded
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
is($node->safe_psql('postgres', 'SELECT count(*) FROM finance.workers'),
	'0', 'no worker is shown when the library is not preloaded');
$node->safe_psql('postgres', 'SELECT finance._ring(1, 1, 1)');
($ret, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSELECT finance.wake_worker()");
like(
	$err,
	qr/55000: the finance worker is not running.*shared_preload_libraries = 'finance' and restart/s,
	'what needs the worker says how to get it');

$node->stop;
done_testing();
