# On a standby nothing of the worker runs; on promotion it starts.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = finance_node('primary', allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION finance');
poll_ok($primary, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs on the primary');
make_queue($primary, 1, 'orders', 'orders');

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

# databases with a worker come and go on the primary as before
$primary->safe_psql('postgres', 'CREATE DATABASE other TEMPLATE template0');
$primary->safe_psql('other', 'CREATE EXTENSION finance');
poll_ok($primary, "SELECT count(*) = 2 FROM finance.workers WHERE state = 'running'",
	'a second worker runs on the primary');
$primary->safe_psql('postgres', 'DROP DATABASE other');
$primary->safe_psql('postgres', insert_messages(1, 'now()', 1));
$primary->wait_for_catchup($standby);

is( $standby->safe_psql(
		'postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'finance%'"
	),
	'0',
	'no process of finance runs on the standby');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM finance.workers'),
	'0', 'and none is shown');

$primary->stop;
my $replayed =
  $standby->safe_psql('postgres', 'SELECT pg_last_wal_replay_lsn()');
$standby->promote;
poll_ok($standby, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker starts on promotion');
poll_ok($standby, 'SELECT notifications = 1 FROM finance.workers',
	'and announces what waits');
my $session = subscriber($standby, 'orders');
$standby->safe_psql('postgres', send_message(1, 2));
my @seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'orders', 'orders', 2, 1 ] ],
	'and then what is committed here');
$session->quit;

$standby->stop;
done_testing();
