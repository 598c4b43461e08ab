# From a producer's commit to the subscriber: what is announced, to whom, how
# often, and what is not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = finance_node('main');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');
make_queue($node, 1, 'orders', 'orders_a', 'orders_b');
make_queue($node, 2, 'alerts', 'alerts');
make_queue($node, 3, 'unheard');
make_queue($node, 4, 'strange', 'strange');

# one commit
my $session = subscriber($node, 'orders_a', 'orders_b', 'alerts');
$node->safe_psql('postgres', send_message(1, 100));
my @seen = wait_for_notifies($session, sub { @_ >= 2 });
is_deeply(
	[ sort { $a->[0] cmp $b->[0] } @seen ],
	[ [ 'orders_a', 'orders', 100, 1 ], [ 'orders_b', 'orders', 100, 1 ] ],
	'each channel of the queue is told, others are not');

# What does not commit rings nothing.  The message at the end, in another
# queue, shows that all bells before it were heard.
my $script = "BEGIN;" . send_message(1, 101) . "ROLLBACK;";
$script .= "BEGIN; SAVEPOINT a;" . send_message(1, 102);
$script .= "SAVEPOINT b;" . send_message(1, 103) . "RELEASE b;";
$script .= "ROLLBACK TO a; COMMIT;";
$script .= "DO \$\$ BEGIN PERFORM finance._ring(1, 104, 1); PERFORM 1/0;";
$script .= " EXCEPTION WHEN division_by_zero THEN NULL; END \$\$;";
$script .= send_message(2, 200);
$node->safe_psql('postgres', $script);
@seen = wait_for_notifies($session, sub { grep { $_->[0] eq 'alerts' } @_ });
is_deeply(\@seen, [ [ 'alerts', 'alerts', 200, 1 ] ],
	'rolled back transactions and savepoints ring nothing');

# released savepoints ring with their parent, and their counts are joined
$script = "BEGIN;" . send_message(2, 201);
$script .= "SAVEPOINT a;" . send_message(2, 202);
$script .= "SAVEPOINT b;" . send_message(2, 203) . "RELEASE b;";
$script .= "SAVEPOINT c;" . send_message(2, 204) . "ROLLBACK TO c;";
$script .= "RELEASE a; COMMIT;";
$node->safe_psql('postgres', $script);
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'alerts', 'alerts', 203, 3 ] ],
	'released savepoints are announced once, together');

# queues without subscriptions cost the worker nothing
settle($node);
my $rounds = $node->safe_psql('postgres', 'SELECT rounds FROM finance.workers');
$node->safe_psql('postgres',
	join("\n", map { "SELECT finance._ring(3, $_, 1);" } 1 .. 500));
settle($node);
cmp_ok(
	$node->safe_psql('postgres', "SELECT rounds - $rounds FROM finance.workers"),
	'<=', 10, 'bells of queues that nobody subscribed to wake nobody');

# and are heard as soon as somebody does, however that came about
$session->query_safe('LISTEN heard');
$node->safe_psql('postgres',
	"INSERT INTO finance.subscription (channel, tenant_id, queue_id) VALUES ('heard', 0, 3)"
);
$node->safe_psql('postgres', send_message(3, 300));
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'heard', 'unheard', 300, 1 ] ],
	'a subscription is heard from its commit on');
is( $node->safe_psql(
		'postgres',
		"SELECT queue_name, notifications, messages, last_notified_at IS NOT NULL, refused FROM finance.subscriptions() WHERE channel = 'heard'"
	),
	'unheard|1|1|t|0',
	'subscriptions() counts what was sent on a channel');
$node->safe_psql('postgres',
	"DELETE FROM finance.subscription WHERE channel = 'heard'");

# many commits within windows of a second
$node->append_conf('postgresql.conf', "finance.notify_window = '1s'\n");
$node->reload;
my $start = time();
$node->safe_psql('postgres',
	join("\n", map { send_message(2, 1000 + $_) } 1 .. 1000));
@seen = wait_for_notifies($session, sub { count_sum(@_) >= 1000 });
is(count_sum(@seen), 1000, 'the counts of 1000 commits add up');
is($seen[-1][2], 2000, 'and the last tells the highest id');
cmp_ok(scalar(@seen), '<=', 2 + time() - $start,
	'at most one notification in a window');
$node->append_conf('postgresql.conf', "finance.notify_window = 5\n");
$node->reload;

# concurrent producers
my ($bench, $bench_file) = ('', $node->basedir . '/ring.sql');
append_to_file($bench_file,
	"BEGIN;\nSELECT finance._ring(2, 5000, 1);\nSELECT finance._ring(3, 1, 1);\nEND;\n");
$node->command_ok(
	[
		'pgbench', '-n', '-c', '8', '-t', '250', '-f', $bench_file,
		'-h', $node->host, '-p', $node->port, 'postgres'
	],
	'8 producers at once');
@seen = wait_for_notifies($session, sub { count_sum(@_) >= 2000 });
is(count_sum(@seen), 2000, 'no bell is lost nor heard twice');

# no window at all
$node->append_conf('postgresql.conf', "finance.notify_window = 0\n");
$node->reload;
$node->safe_psql('postgres',
	join("\n", map { "SELECT finance._ring(2, $_, 1);" } 1 .. 200));
@seen = wait_for_notifies($session, sub { count_sum(@_) >= 200 });
is(count_sum(@seen), 200, 'the counts add up without a window');
$node->append_conf('postgresql.conf', "finance.notify_window = 5\n");
$node->reload;

# what can never be sent does not stop the rest
my $errors = $node->safe_psql('postgres', 'SELECT errors FROM finance.workers');
$node->safe_psql(
	'postgres', q(
ALTER TABLE finance.subscription DROP CONSTRAINT subscription_channel_length;
INSERT INTO finance.subscription (channel, tenant_id, queue_id) VALUES ('', 0, 1), (repeat('x', 64), 0, 1);
));
$node->safe_psql('postgres', send_message(1, 110));
@seen = wait_for_notifies($session, sub { @_ >= 2 });
is(scalar(@seen), 2, 'good channels are told beside impossible ones');
poll_ok($node, "SELECT errors = $errors + 2 FROM finance.workers",
	'which are counted as errors');
is( $node->safe_psql(
		'postgres',
		"SELECT unsendable, last_unsendable IN ('', repeat('x', 63)), last_unsendable_at IS NOT NULL FROM finance.workers"
	),
	'2|t|t',
	'and shown');
is( $node->safe_psql(
		'postgres',
		"SELECT sum(refused) FROM finance.subscriptions() WHERE length(channel) = 0"),
	1, 'also by channel');
$node->safe_psql('postgres',
	"DELETE FROM finance.subscription WHERE length(channel) NOT BETWEEN 1 AND 63");

# names that need escaping in JSON
$node->safe_psql(
	'postgres', q(
ALTER TABLE finance.queue DROP CONSTRAINT queue_name_form;
UPDATE finance.queue SET name = E'with "quotes" \\\\ and ä' WHERE queue_id = 4;
));
$session->query_safe('LISTEN strange');
$node->safe_psql('postgres', send_message(4, 1));
my $raw = '';
my $until = time() + $PostgreSQL::Test::Utils::timeout_default;
$raw .= $session->query('SELECT 1 WHERE false;')
  while $raw !~ /notification "strange"/ && time() < $until;
like($raw, qr/\{"queue": "with \\"quotes\\" \\\\ and ä", "highest_id": 1/,
	'the payload is JSON');

# errors
$node->safe_psql('postgres',
	'ALTER TABLE finance.subscription RENAME TO elsewhere');
$node->safe_psql('postgres', send_message(2, 6000));
poll_ok(
	$node,
	"SELECT state = 'failing' AND last_error LIKE '%finance.subscription%' FROM finance.workers",
	'an error is shown, and the worker stays');
$node->safe_psql('postgres', send_message(2, 6001));
$node->safe_psql('postgres',
	'ALTER TABLE finance.elsewhere RENAME TO subscription');
@seen = wait_for_notifies($session, sub { count_sum(@_) >= 2 });
is_deeply(\@seen, [ [ 'alerts', 'alerts', 6001, 2 ] ],
	'what rang meanwhile is announced after it');
poll_ok($node, "SELECT state = 'running' FROM finance.workers",
	'the worker is well again');

# messages that ring nothing
$node->safe_psql('postgres', 'DELETE FROM finance.message');
$node->safe_psql('postgres',
	"BEGIN;" . send_message(2, 7000) . "PREPARE TRANSACTION 'p'");
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
$node->safe_psql('postgres', 'SELECT finance.wake_worker()');
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'alerts', 'alerts', 7000, 1 ] ],
	'a sweep finds those of prepared transactions');

# messages that become visible later, and those a new subscriber finds
$node->safe_psql('postgres', 'DELETE FROM finance.message');
$node->safe_psql('postgres',
		"BEGIN;"
	  . insert_messages(2, "now() + interval '1 s'", 7001)
	  . insert_messages(2, "now() + interval '2 s'", 7002)
	  . "SELECT finance._ring(2, 7002, 2, now() + interval '1 s'); COMMIT;");
@seen = wait_for_notifies($session, sub { count_sum(@_) >= 2 });
is(count_sum(@seen), 2,
	'delayed messages are announced when they become visible');
is($seen[-1][2], 7002, 'up to the last');
$node->safe_psql('postgres',
	"SELECT finance._ring(2, 0, 0, '-infinity')");
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'alerts', 'alerts', 7002, 2 ] ],
	'a due time in the past announces all that waits');

# more queues in one transaction than there are bells
my @channels = map { "c$_" } 5 .. 74;
$node->safe_psql('postgres',
	"DELETE FROM finance.message; SELECT finance.subscribe('c' || i, 'none.q' || i) FROM generate_series(5, 74) i"
);
$session->query_safe(join(' ', map { "LISTEN $_;" } @channels));
settle($node);
$node->safe_psql('postgres',
		"BEGIN;"
	  . join(' ', map { insert_messages($_, 'now()', 1) } 5 .. 74)
	  . "SELECT count(finance._ring(i, 1, 1)) FROM generate_series(2000, 5, -1) i; COMMIT"
);
my %told;
@seen = wait_for_notifies(
	$session,
	sub {
		$told{ $_->[0] } = 1 foreach @_;
		return keys %told >= @channels;
	});
is(join(' ', sort keys %told),
	join(' ', sort @channels), 'all queues are announced');

# how long announcements took
is( $node->safe_psql(
		'postgres',
		'SELECT 0 < p50_lag_ms AND p50_lag_ms <= p99_lag_ms AND p99_lag_ms <= max_lag_ms AND last_lag_ms <= max_lag_ms FROM finance.workers'
	),
	't',
	'lags are shown');

# by the functions that users call
$node->safe_psql('postgres',
	"DELETE FROM finance.message; SELECT finance.subscribe('paid', 'pay.#')");
$session->query_safe('LISTEN paid');
settle($node);
my $id = $node->safe_psql('postgres',
	"SELECT finance.send('paid', '{}'::jsonb)");
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is_deeply(\@seen, [ [ 'paid', 'paid', $id, 1 ] ], 'send() is announced');
$node->safe_psql('postgres',
	"SELECT finance.publish('pay.card.in', '{}'::jsonb), finance.publish('other', '{}'::jsonb)"
);
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is(count_sum(@seen), 1, 'publish() is announced where it was routed to');
$id = $node->safe_psql('postgres',
	"SELECT finance.send('paid', '{}'::jsonb, delay => 1)");
@seen = wait_for_notifies($session, sub { grep { $_->[2] == $id } @_ });
is($seen[-1][2], $id, 'a delayed message is announced when it is due');
$session->query_safe('LISTEN late');
$node->safe_psql('postgres',
	"SELECT finance.create_queue('late'); SELECT finance.send('late', '{}'::jsonb)"
);
$node->safe_psql('postgres',
	"SELECT finance.subscribe('late', 'none.late', 'late')");
@seen = wait_for_notifies($session, sub { @_ >= 1 });
is($seen[0][0] . $seen[0][3],
	'late1', 'a new subscriber is told of what waits already');

# messages that waited while no worker was there
$node->safe_psql('postgres',
	'DELETE FROM finance.message;' . insert_messages(2, 'now()', 8000));
$session->quit;
my $pid = worker_pid($node);
kill 'KILL', $pid;
poll_ok(
	$node,
	"SELECT notifications = 1 AND messages = 1 AND pid <> $pid FROM finance.workers",
	'a worker announces what waits when it starts');

# an account of the work
is( $node->safe_psql(
		'postgres',
		'SELECT last_notified_at >= started_at, last_sweep_at >= started_at, errors, last_error IS NULL, notify_queue_usage BETWEEN 0 AND 1 FROM finance.workers'
	),
	't|t|0|t|t',
	'finance.workers tells of it');

$node->stop;
done_testing();
