# Transfers in prepared transactions: they hold their accounts and keys over
# restarts and crashes, count when committed, and send nothing when not.
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

my $node = book_node('main', "max_prepared_transactions = 10\n");
my $transfers = 'SELECT count(*) FROM finance.transfer';
my $messages =
  "SELECT count(*), count(DISTINCT message_id) FROM finance.message";

open_accounts($node, 'alice', 'bob', 'carol', 'dave');
$node->safe_psql('postgres', "SELECT finance.subscribe('payments', 'transfer.*')");
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');

sub prepare
{
	my ($name, $commands) = @_;

	$node->safe_psql('postgres', "BEGIN; $commands; PREPARE TRANSACTION '$name'");
}

# must wait for somebody who does not go away
sub waits
{
	my ($command, $name) = @_;
	my ($code, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSET lock_timeout = '50ms'; SELECT $command");

	like($err, qr/ERROR:  55P03/, $name);
}

sub pay
{
	my ($from, $to, $amount, $more) = @_;

	return "finance.transfer('$from', '$to', $amount"
	  . (defined $more ? ", $more" : '') . ')';
}

# ------------------------------------------------------------------------
# prepared, restarted, committed
# ------------------------------------------------------------------------

# from here on only sweeps tell of messages
$node->append_conf('postgresql.conf', "finance.sweep_interval = 1\n");
$node->reload;
my $session = subscriber($node, 'payments');

prepare('one',
		'SELECT ' . pay('alice', 'bob', 10, "idempotency_key => 'k1'")
	  . '; SAVEPOINT part; SELECT ' . pay('alice', 'bob', 1000)
	  . '; ROLLBACK TO part; SELECT ' . pay('bob', 'alice', 4));
is_query($node, $transfers, '0', 'a prepared transfer is not seen');
is_query($node, $messages, '0|0', 'nor are its messages');
waits(pay('alice', 'carol', 1), 'its accounts are held');
waits(pay('carol', 'dave', 10, "idempotency_key => 'k1'"), 'and its key');
is_query($node, 'SELECT status FROM ' . pay('carol', 'dave', 5),
	'completed', 'others pay on');

$session->quit;
$node->restart;
is_query($node, 'SELECT gid FROM pg_prepared_xacts', 'one',
	'it is there after a restart');
waits(pay('alice', 'carol', 1), 'and still holds its accounts');
waits(pay('carol', 'dave', 10, "idempotency_key => 'k1'"), 'and its key');

$session = subscriber($node, 'payments');
my $told = $node->safe_psql('postgres', 'SELECT max(msg_id) FROM finance.message');
$node->safe_psql('postgres', "COMMIT PREPARED 'one'");
is_query($node, $transfers, '3', 'COMMIT PREPARED makes it true');
is_query($node, $messages, '3|3', 'and its messages');
my $highest =
  $node->safe_psql('postgres', 'SELECT max(msg_id) FROM finance.message');
my $queue = $node->safe_psql('postgres', 'SELECT name FROM finance.queue');
my @seen = wait_for_notifies($session,
	sub { grep { $_->[2] == $highest } @_ });
is($seen[-1][2], $highest, 'which a sweep announces');
is($seen[-1][1], $queue, 'in their queue');
is_query(
	$node,
	'SELECT replayed, from_version, from_balance FROM '
	  . pay('alice', 'bob', 10, "idempotency_key => 'k1'"),
	't|1|-10.00',
	'its key gives its answer');
is_query($node,
	"SELECT count(*) FROM finance.read('$queue', 60, 10)",
	'3', 'the messages can be read');

# ------------------------------------------------------------------------
# rolled back
# ------------------------------------------------------------------------

$told = $node->safe_psql('postgres', $messages);
prepare('two', 'SELECT ' . pay('alice', 'bob', 77, "idempotency_key => 'k2'"));
$node->safe_psql('postgres', "ROLLBACK PREPARED 'two'");
is_query($node, $transfers, '3', 'ROLLBACK PREPARED leaves nothing');
is_query($node, $messages, $told, 'and sends nothing');
is_query(
	$node,
	'SELECT replayed, from_version FROM '
	  . pay('alice', 'bob', 78, "idempotency_key => 'k2'"),
	'f|3',
	'its key is free, its version not used up');

# ------------------------------------------------------------------------
# over a crash; a version and a limit that wait for it
# ------------------------------------------------------------------------

$node->safe_psql('postgres',
	"SELECT finance.add_rule('day', 'daily_limit', 100, account => 'carol')");
prepare('three', 'SELECT ' . pay('carol', 'dave', 60));
prepare('four', 'SELECT ' . pay('alice', 'bob', 1, 'expected_from_version => 3'));
my @pids =
  split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
$session->quit;
$node->kill9;
my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
usleep(100_000) while (grep { kill 0, $_ } @pids) && $patience-- > 0;
$node->start;
is_query($node, 'SELECT string_agg(gid, \' \' ORDER BY gid) FROM pg_prepared_xacts',
	'four three', 'both are there after a crash');

my $waiting = $node->background_psql('postgres', on_error_stop => 0);
$waiting->query_safe("\\set VERBOSITY verbose\n");
$waiting->{stdin} .=
	'SELECT status, rule FROM ' . pay('carol', 'dave', 50) . ";\n"
  . 'SELECT ' . pay('alice', 'bob', 1, 'expected_from_version => 3') . ";\n";
$waiting->{run}->pump_nb;
poll_ok($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
	'another payer waits');
$node->safe_psql('postgres', "COMMIT PREPARED 'three'");
poll_ok($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'expected'",
	'and then for the other');
$node->safe_psql('postgres', "COMMIT PREPARED 'four'");
my $output = $waiting->query('SELECT 1 WHERE false');
like($output, qr/rejected\|day/, 'what it spent counts against the daily limit');
like($waiting->{stderr}, qr/ERROR:  LG005/, 'its version counts');
$waiting->{stderr} = '';
$waiting->quit;

# ------------------------------------------------------------------------
# rules and partitions made in prepared transactions
# ------------------------------------------------------------------------

my $payer = $node->background_psql('postgres');
$payer->query_safe('BEGIN; SELECT ' . pay('alice', 'bob', 2));
prepare('rule', "SELECT finance.add_rule('cap', 'transfer_limit', 1)");
is($payer->query_safe('SELECT status FROM ' . pay('alice', 'bob', 2) . ';'),
	'completed', 'a rule prepared is none yet');
$node->safe_psql('postgres', "COMMIT PREPARED 'rule'");
is($payer->query_safe('SELECT status FROM ' . pay('alice', 'bob', 2) . ';'),
	'rejected', 'committed, it holds also in an open transaction');
$payer->query_safe('COMMIT');
$payer->quit;

$node->safe_psql('postgres',
	"UPDATE finance._account SET last_transfer_id = finance.id_floor('2041-01-01 00:00+00') WHERE code IN ('carol', 'dave')"
);
prepare('partition', 'SELECT ' . pay('carol', 'dave', 1));
$node->restart;
$node->safe_psql('postgres', "COMMIT PREPARED 'partition'");
is_query($node, 'SELECT status FROM ' . pay('dave', 'carol', 1),
	'completed', 'a month made by a prepared transaction is used by others');
is_query($node,
	"SELECT count(*) FROM finance.transfer WHERE id >= finance.id_floor('2041-01-01 00:00+00') AND id < finance.id_floor('2041-02-01 00:00+00')",
	'2', 'both are in it');
is_query(
	$node,
	"SELECT (SELECT count(*) FROM finance.transfer) = count(*), count(DISTINCT transfer_id) = count(*) FROM finance.audit_record WHERE operation = 'transfer'",
	't|t',
	'each transfer has its audit record');
is_sound($node, 'two phases');

$node->stop;
done_testing();
