# The worker seals by itself: soon after a commit, never when nothing was
# written; what transactions of every kind commit, while they are at it; and over
# kill -9 at each step of it.
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

my $soak = soak();
my $node = book_node('main',
	"finance.seal_interval = '100ms'\nmax_prepared_transactions = 60\nlog_statement = none\nwal_level = replica\nmax_wal_senders = 2\n");

sub worker_runs
{
	poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE database = 'postgres' AND state = 'running'",
		'the worker runs');
}

# ------------------------------------------------------------------------
# by itself
# ------------------------------------------------------------------------

worker_runs();
open_accounts($node, map { "a$_" } 1 .. 50);
poll_ok($node, all_sealed(), 'what was committed is sealed');
is_sealed_right($node, 'by itself');

# times the worker waited for something, as the kernel counts them
sub wakeups
{
	my $pid = worker_pid($node);

	return slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die;
}

SKIP:
{
	skip 'the kernel does not tell', 1 if !-e "/proc/$$/status";
	my $before = wakeups();
	$node->safe_psql('postgres', 'SELECT pg_sleep(3)');
	cmp_ok(wakeups() - $before, '<', 10, 'an idle database does not wake it 30 times');
}

# one that is prepared rings no bell when it is committed
$node->safe_psql('postgres',
	"BEGIN; SELECT finance.transfer('a1', 'a2', 1); PREPARE TRANSACTION 'one'");
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 1)");
is_query($node, all_sealed(), 'f', 'a prepared transaction holds it up');
$node->safe_psql('postgres', "COMMIT PREPARED 'one'");
poll_ok($node, all_sealed(), 'and is sealed when it is committed');
$node->safe_psql('postgres',
	"BEGIN; SELECT finance.transfer('a1', 'a2', 1); PREPARE TRANSACTION 'two'");
$node->restart;
worker_runs();
$node->safe_psql('postgres', "COMMIT PREPARED 'two'");
poll_ok($node, all_sealed(), 'also after a restart');

# what was not sealed when the server went is sealed when it comes back
$node->append_conf('postgresql.conf', "finance.seal_interval = '1h'\n");
$node->reload;
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 1)");
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 1)");
$node->append_conf('postgresql.conf', "finance.seal_interval = '100ms'\n");
$node->restart;
poll_ok($node, all_sealed(), 'left-overs of before the restart are sealed');

# what is held up by somebody else's transaction is sealed when that ends,
# though nobody writes then
my $other = $node->background_psql('postgres');
$other->query_safe('BEGIN; SELECT pg_current_xact_id()');
$node->safe_psql('postgres', "SELECT finance.transfer('a3', 'a4', 1)");
poll_ok($node, "SELECT unsealed = 1 AND holder_kind = 'backend' FROM finance.audit_lag()", 'held up');
$other->query_safe('ROLLBACK');
poll_ok($node, all_sealed(), 'and then sealed');

# ------------------------------------------------------------------------
# 16 writers, 10^5 records
# ------------------------------------------------------------------------

my $load = q(
\set f random(1, 25)
\set t random(26, 50)
\set kind random(1, 20)
\if :kind <= 9
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
\elif :kind <= 12
BEGIN;
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
SAVEPOINT one;
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
ROLLBACK TO one;
SAVEPOINT two;
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
RELEASE two;
COMMIT;
\elif :kind <= 14
BEGIN;
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
ROLLBACK;
\elif :kind <= 16
BEGIN;
SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);
PREPARE TRANSACTION 'c:client_id';
COMMIT PREPARED 'c:client_id';
\else
SELECT FROM finance.transfer_batch(ARRAY(SELECT finance.request('a' || :f, 'a' || :t, 1) FROM generate_series(1, 45)));
\endif
);
my $transactions = 750 * $soak;
bench_ok($node, '16 writers', $load, '-c', 16, '-j', 2, '-t', $transactions,
	'--max-tries=100', "--random-seed=$$");
poll_ok($node, all_sealed(), 'all that was committed is sealed');
cmp_ok(sealed_total($node), '>=', 100_000 * $soak, '10^5 records');
is_query($node, 'SELECT count(*) >= 10 FROM finance.audit_block', 't', 'in many blocks');
is_sealed_right($node, '16 writers', undef, roots => 2);

# ------------------------------------------------------------------------
# kill -9 at each step: the worker waits where the test holds a table, with all
# it has done until then not committed
# ------------------------------------------------------------------------

my $holder;
my $amount = 0;

sub pay_some
{
	$node->safe_psql('postgres',
		"SELECT count(*) FROM finance.transfer_batch(ARRAY(SELECT finance.request('a1', 'a2', 1) FROM generate_series(1, 300)))");
}

sub kill_worker
{
	kill 'KILL', shift;
	eval { $holder->quit } if defined $holder;
	wait_for_server($node);
	worker_runs();
}

foreach my $step (
	[ 'audit_record', 'ACCESS EXCLUSIVE', 'reading records' ],
	[ 'audit_incarnation', 'ACCESS EXCLUSIVE', 'reading the incarnation' ],
	[ 'audit_block', 'SHARE', 'writing the block' ],
	[ 'audit_leaves', 'SHARE', 'writing leaves' ],
	[ 'audit_node', 'SHARE', 'writing nodes' ],
	[ 'audit_term', 'SHARE', 'writing terms' ],
	[ 'audit_tree', 'SHARE', 'writing the tree' ])
{
	my ($table, $mode, $name) = @$step;
	my $before = sealed_total($node);
	my $pid = worker_pid($node);

	$node->append_conf('postgresql.conf', "finance.seal_interval = '1h'\n");
	$node->reload;
	pay_some();
	$holder = $node->background_psql('postgres');
	# its lock is taken before it has an id that would hold up the horizon
	$holder->query_safe("BEGIN; LOCK TABLE finance.$table IN $mode MODE");
	$node->append_conf('postgresql.conf', "finance.seal_interval = '100ms'\n");
	$node->reload;
	poll_ok($node, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid = $pid AND relation = 'finance.$table'::regclass",
		"$name: the worker waits");
	kill_worker($pid);
	poll_ok($node, all_sealed(), "$name: sealed by the next");
	cmp_ok(sealed_total($node), '>=', $before + 300, "$name: all of it");
	is_sealed_right($node, "kill -9 while $name", undef, roots => 1);
}

# one that has committed, and waits for a standby that is not there
$node->append_conf('postgresql.conf', "finance.seal_interval = '1h'\n");
$node->reload;
pay_some();
{
	my $before = sealed_total($node);
	my $sealer = $node->background_psql('postgres');
	my $pid = $sealer->query_safe('SELECT pg_backend_pid()');

	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'\n");
	$node->reload;
	$sealer->query_until(qr/asked/, "\\echo asked\nSELECT finance.seal_audit();\n");
	poll_ok($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $pid AND wait_event = 'SyncRep'",
		'committing: the sealer waits');
	is(sealed_total($node), $before, 'committing: nobody sees it yet');
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
	kill 'KILL', $pid;
	eval { $sealer->quit };
	wait_for_server($node);
	is(sealed_total($node), $before + 300, 'committing: it is sealed');
	$node->append_conf('postgresql.conf', "finance.seal_interval = '100ms'\n");
	$node->reload;
	worker_runs();
	poll_ok($node, all_sealed(), 'committing: all of it');
	is(sealed_total($node), $before + 300, 'committing: once');
	is_sealed_right($node, 'kill -9 after the commit', undef, roots => 1);
}

# ------------------------------------------------------------------------
# kill -9 of whoever, and of all, under load
# ------------------------------------------------------------------------

my $simple = "\\set f random(1, 25)\n\\set t random(26, 50)\n"
  . "SELECT FROM finance.transfer('a' || :f, 'a' || :t, 1);\n";

foreach my $round (1 .. 2 * $soak)
{
	my $file = $node->basedir . '/load.sql';
	my ($out, $err);

	unlink $file;
	append_to_file($file, $simple);
	my $bench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 8, '-T', 600, '-f', $file, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	my $size = sealed_total($node);
	poll_ok($node, "SELECT size > $size + 500 FROM finance.audit_tree", "round $round: sealing under load");
	if ($round % 2)
	{
		kill 'KILL', worker_pid($node);
		$bench->finish;
		wait_for_server($node);
	}
	else
	{
		$node->stop('immediate');
		$bench->finish;
		$node->start;
	}
	worker_runs();
	poll_ok($node, all_sealed(), "round $round: all that was committed is sealed");
	is_sealed_right($node, "kill -9 under load $round", undef, roots => 1);
}

is_sound($node, 'at the end');
$node->stop;
done_testing();
