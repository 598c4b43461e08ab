# Messages that come by logical replication ring no bell: sweeps announce them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $from = finance_node('from', allows_streaming => 'logical');
my $to = finance_node('to');
$to->append_conf('postgresql.conf', 'finance.sweep_interval = 1');
foreach my $node ($from, $to)
{
	$node->start;
	$node->safe_psql('postgres',
		"CREATE EXTENSION finance; SELECT finance.create_queue('orders')");
}
poll_ok($to, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');
$to->safe_psql('postgres',
	"SELECT finance.subscribe('orders', 'order.#', 'orders')");
my $session = subscriber($to, 'orders');

my $connstr = $from->connstr . ' dbname=postgres';
$from->safe_psql('postgres',
	"CREATE PUBLICATION messages FOR TABLE finance.message WITH (publish_via_partition_root)"
);
$to->safe_psql('postgres',
	"CREATE SUBSCRIPTION messages CONNECTION '$connstr' PUBLICATION messages WITH (copy_data = false)"
);
my $id = $from->safe_psql('postgres', "SELECT finance.send('orders', '{}')");
$from->wait_for_catchup('messages');
my @seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply($seen[0], [ 'orders', 'orders', $id, 1 ],
	'a sweep announces what was replicated');
is($to->safe_psql('postgres', "SELECT msg_id FROM finance.read('orders', 30)"),
	$id, 'the subscriber reads it');

$session->quit;
$to->safe_psql('postgres', 'DROP SUBSCRIPTION messages');
$to->stop;
$from->stop;
done_testing();
