# FinanceTest.pm: what the tests of the worker share.
package FinanceTest;

use strict;
use warnings;

use Exporter 'import';
use File::Spec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(finance_node subscriber wait_for_notifies worker_pid
  answer poll_ok wait_for_server settle send_message insert_messages make_queue count_sum);

# A cluster with the library preloaded.  Sweeps do not come by themselves, so
# that what is announced was rung for.
sub finance_node
{
	my ($name, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%init);
	$node->append_conf(
		'postgresql.conf', q(
shared_preload_libraries = 'finance'
finance.sweep_interval = 86400
finance.launcher_naptime = 86400
max_worker_processes = 16
max_prepared_transactions = 4
restart_after_crash = on
));
	return $node;
}

# What a query answers, or undef when the server cannot be asked.  The query is
# an argument and not sent through a pipe: psql may be gone before it reads one.
sub answer
{
	my ($node, $query, $database) = @_;
	my ($out, $err);
	my $asked = IPC::Run::run(
		[
			'psql', '-XqAt', '-d', $node->connstr($database // 'postgres'),
			'-c', $query
		],
		'<', File::Spec->devnull, '>', \$out, '2>', \$err);

	return undef unless $asked;
	chomp $out;
	return $out;
}

# ask until the answer is true, also of a server that is not up yet
sub poll_ok
{
	my ($node, $query, $name, $database) = @_;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
	my $last;

	while ($patience-- > 0)
	{
		$last = answer($node, $query, $database);
		last if defined $last && $last eq 't';
		usleep(100_000);
	}
	is($last, 't', $name);
}

sub wait_for_server
{
	my ($node) = @_;
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;

	while ($patience-- > 0)
	{
		return if defined answer($node, 'SELECT 1');
		usleep(100_000);
	}
	die "the server did not come back";
}

# pid of the running worker of a database, or ''
sub worker_pid
{
	my ($node, $database) = @_;
	$database //= 'postgres';

	return $node->safe_psql($database,
		"SELECT pid FROM finance.workers WHERE database = '$database' AND state = 'running'"
	);
}

# a session that listens
sub subscriber
{
	my ($node, @channels) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe(join(' ', map { "LISTEN \"$_\";" } @channels));
	return $session;
}

# Reads notifications until $enough (a code reference given the list so far)
# is true; returns them as [channel, queue, highest id, count].
sub wait_for_notifies
{
	my ($session, $enough) = @_;
	my $until = time() + $PostgreSQL::Test::Utils::timeout_default;
	my @seen;

	while (time() < $until)
	{
		my $output = $session->query('SELECT 1 WHERE false;');

		while ($output =~
			/notification "([^"]*)" with payload "\{"queue": "([^"]*)", "highest_id": (-?\d+), "count": (\d+)\}"/g
		  )
		{
			push @seen, [ $1, $2, $3, $4 ];
		}
		return @seen if $enough->(@seen);
		usleep(20_000);
	}
	diag("gave up waiting for notifications; got "
		  . join(', ', map { "[@$_]" } @seen));
	return @seen;
}

sub count_sum
{
	my $sum = 0;

	$sum += $_->[3] foreach @_;
	return $sum;
}

# Queues are numbered from 1 in the order of their making; says when not.
sub make_queue
{
	my ($node, $id, $name, @channels) = @_;

	$node->safe_psql('postgres', "SELECT finance.create_queue('$name')");
	is( $node->safe_psql(
			'postgres',
			"SELECT queue_id FROM finance.list_queues() WHERE queue_name = '$name'"
		),
		$id,
		"queue $name is made");
	foreach my $channel (@channels)
	{
		$node->safe_psql('postgres',
			"SELECT finance.subscribe('$channel', 'none.$name', '$name')");
	}
	settle($node);
}

# Waits until the worker has done all it was told to before.  subscribe() asks
# it to look at the queue; a message made before that look would be told twice.
sub settle
{
	my ($node) = @_;
	my $swept = $node->safe_psql('postgres',
		"SELECT last_sweep_at FROM finance.workers WHERE database = 'postgres'");

	$node->safe_psql('postgres', 'SELECT finance.wake_worker()');
	$node->poll_query_until('postgres',
		"SELECT last_sweep_at > '$swept' FROM finance.workers WHERE database = 'postgres'"
	) or die "the worker does not answer";
}

# SQL that makes messages with chosen ids, without a bell
sub insert_messages
{
	my ($queue_id, $visible_at, @msg_ids) = @_;

	return join(
		' ',
		map {
			"INSERT INTO finance.message (tenant_id, queue_id, msg_id, message_id, enqueued_at, visible_at, payload)"
			  . " VALUES (0, $queue_id, $_, $_, now(), $visible_at, '{}');"
		} @msg_ids);
}

# SQL that makes a message as a producer does
sub send_message
{
	my ($queue_id, $msg_id) = @_;

	return insert_messages($queue_id, 'now()', $msg_id)
	  . " SELECT finance._ring($queue_id, $msg_id, 1);";
}

1;
