# finance-relay publishes a queue to a real RabbitMQ: what the broker gets, what
# becomes of a message it does not want, and that nothing is lost whichever of
# the three is cut off or killed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBroker;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $missing = FinanceBroker::missing();
plan skip_all => $missing if defined $missing;
my $top = "$FindBin::RealBin/..";
my $directory = PostgreSQL::Test::Utils::tempdir;
my $cc = $ENV{CC} // 'cc';
plan skip_all => 'librabbitmq (librabbitmq-dev) is not installed'
  if system("echo '#include <amqp.h>' | $cc -E - >/dev/null 2>&1");

# it needs some seconds: let it start while we compile
my $broker = FinanceBroker->new;

command_ok(
	[
		'make', '-s', '-C', $directory, '-f', "$top/Makefile", 'relay',
		'COPT=-Werror', 'PG_CONFIG=' . ($ENV{FIN_PG_CONFIG} // $ENV{PG_CONFIG} // 'pg_config')
	],
	'make relay');
command_ok(
	[
		$cc, '-std=gnu99', '-O1', '-Wall', '-Werror',
		"$FindBin::RealBin/amqp_sink.c", '-o', "$directory/sink", '-lrabbitmq'
	],
	'the receiving end compiles');
my $relay = "$directory/finance-relay";
BAIL_OUT('no programs to test') unless -x $relay && -x "$directory/sink";

# ------------------------------------------------------------------------
# the command line
# ------------------------------------------------------------------------

command_like([ $relay, '--help' ], qr/--queue/, '--help');
command_like([ $relay, '--version' ], qr/^finance-relay [0-9.]+$/, '--version');
foreach (
	[ [], qr/--queue is missing/, 'no queue' ],
	[ [ '--queue=q', '--batch=0' ], qr/--batch must be a number from 1/, 'a batch of none' ],
	[ [ '--queue=q', '--vt=5x' ], qr/--vt must be a number/, 'a number with a tail' ],
	[ [ '--queue=q', '--tls-key=x' ], qr/go together/, 'half of a key' ],
	[ [ '--queue=q', '--amqp-file=/nowhere' ], qr/cannot be read/, 'no file' ],
	[ [ '--queue=q', 'more' ], qr/"more" is no option/, 'an argument' ],
	[ [ '--nonsense' ], qr/nonsense/, 'an unknown option' ])
{
	my ($arguments, $expected, $name) = @$_;
	command_exit_is([ $relay, @$arguments ], 1, "exit status of wrong usage: $name");
	command_fails_like([ $relay, @$arguments ], $expected, "what it says: $name");
}

# ------------------------------------------------------------------------
# help
# ------------------------------------------------------------------------

my $node = book_node('main');
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');
$broker->wait_until_up;
$ENV{RELAY_DSN} = $node->connstr('postgres');
$ENV{RELAY_AMQP_URI} = $broker->uri;

sub sink
{
	my ($command, @arguments) = @_;
	my ($out, $err);

	IPC::Run::run([ "$directory/sink", $command, $broker->uri, @arguments ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or die "sink $command: $err";
	return $out;
}

# everything in a queue of the broker, as hashes
sub received
{
	my ($queue) = @_;
	my @messages;

	foreach my $line (split /\n/, sink('drain', $queue))
	{
		push @messages, { map { split /=/, $_, 2 } split /\t/, $line };
	}
	return @messages;
}

# starts it in the background; the log is in $directory/relay.log
sub start_relay
{
	my (@arguments) = @_;
	my $pid = fork() // die "cannot fork: $!";

	return $pid if $pid;
	open(STDERR, '>>', "$directory/relay.log");
	exec($relay, @arguments) or do { require POSIX; POSIX::_exit(127) };
}

sub log_has
{
	my ($pattern, $name) = @_;
	my $text = '';

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$text = slurp_file("$directory/relay.log") if -e "$directory/relay.log";
		last if $text =~ $pattern;
		usleep(100_000);
	}
	like($text, $pattern, $name);
}

# what the child ended with, as a shell would say it
sub ended
{
	my ($pid) = @_;

	waitpid($pid, 0);
	return $? >> 8 || ($? & 127 ? 128 + ($? & 127) : 0);
}

sub once
{
	my (@arguments) = @_;
	my ($out, $err);
	my $ok = IPC::Run::run([ $relay, '--once', @arguments ],
		'<', \undef, '>', \$out, '2>', \$err);

	note($err);
	return ($ok, $err);
}

sub in_queue
{
	my ($queue) = @_;
	return
	  "(SELECT count(*) FROM finance.message AS m JOIN finance.queue AS q USING (tenant_id, queue_id) WHERE q.name = '$queue')";
}

sink('declare', 'plain', 'events', 'pay.#');

# ------------------------------------------------------------------------
# what arrives
# ------------------------------------------------------------------------

$node->safe_psql('postgres', q(
SELECT finance.subscribe('out_news', 'pay.#', 'out');
SELECT finance.publish('pay.one', '{"amount": "12.50", "to": "Zoë"}',
	'{"text": "grün", "whole": 42, "big": 123456789012345678901, "exact": 1.50,
	  "yes": true, "none": null, "list": [1, "a"], "nested": {"a": {"b": 1}}}', 7);
SELECT finance.publish('pay.two', '[]');
));
my $stored = $node->safe_psql('postgres',
	'SELECT message_id, floor(extract(epoch FROM enqueued_at))::bigint FROM finance.message ORDER BY priority DESC'
);
my @stored = map { [ split /\|/ ] } split /\n/, $stored;
my ($ok, $said) = once('--queue=out', '--exchange=events');
ok($ok, 'a queue is drained');
like($said, qr/ends: 2 published, 0 refused/, 'it says how many it published');
is($node->safe_psql('postgres', 'SELECT ' . in_queue('out')),
	'0', 'confirmed messages are deleted');
my @messages = received('plain');
my ($first) = grep { $_->{key} eq 'pay.one' } @messages;
my ($second) = grep { $_->{key} eq 'pay.two' } @messages;
is_deeply(
	$first,
	{
		key => 'pay.one',
		redelivered => 0,
		message_id => $stored[0][0],
		type => 'pay.one',
		content_type => 'application/json',
		app_id => 'finance',
		priority => 7,
		delivery_mode => 2,
		timestamp => $stored[0][1],
		'header.text' => 'text:grün',
		'header.whole' => 'integer:42',
		'header.big' => 'text:123456789012345678901',
		'header.exact' => 'text:1.50',
		'header.yes' => 'boolean:true',
		'header.none' => 'null:',
		'header.list' => 'text:[1, "a"]',
		'header.nested' => 'text:{"a": {"b": 1}}',
		body => '{"to": "Zoë", "amount": "12.50"}'
	},
	'properties, headers and payload arrive as they were');
is_deeply(
	$second,
	{
		key => 'pay.two',
		redelivered => 0,
		message_id => $stored[1][0],
		type => 'pay.two',
		content_type => 'application/json',
		app_id => 'finance',
		priority => 0,
		delivery_mode => 2,
		timestamp => $stored[1][1],
		body => '[]'
	},
	'and without headers');

# the default exchange; a message without a topic
$node->safe_psql('postgres', q(
SELECT finance.create_queue('plain');
SELECT finance.send('plain', '"sent"')));

($ok) = once('--queue=plain');
ok($ok, 'without a topic the routing key is the name of the queue');
@messages = received('plain');
is(scalar @messages, 1, 'it is there');
is($messages[0]{type}, undef, 'it has no type');

# TLS: a broker whose certificate is vouched for, by the name it is called
SKIP:
{
	my $trusted = $broker->{certificate};

	skip 'there is no openssl to make a certificate with', 6 unless defined $trusted;
	local $ENV{RELAY_AMQP_URI} = $broker->tls_uri('localhost');
	FinanceBroker::make_certificate("$directory/other", "$directory/other.key");
	$node->safe_psql('postgres', q(SELECT finance.send('plain', '"secret"')));
	($ok, $said) = once('--queue=plain', '--give-up=1');
	like($said, qr/needs --tls-ca/, 'amqps:// without knowing whom to trust');
	($ok, $said) = once('--queue=plain', '--give-up=1', "--tls-ca=$directory/other");
	ok(!$ok, 'a certificate that nobody vouches for');
	is(scalar(received('plain')), 0, 'gets no message');
	{
		local $ENV{RELAY_AMQP_URI} = $broker->tls_uri('127.0.0.1');
		($ok, $said) = once('--queue=plain', '--give-up=1', "--tls-ca=$trusted");
		like($said, qr/hostname/, 'nor does one for another name');
	}
	($ok, $said) = once('--queue=plain', "--tls-ca=$trusted");
	ok($ok, 'amqps://');
	is(join(' ', map { $_->{body} } received('plain')), '"secret"', 'the message arrives');
}

# where nothing can be done
($ok, $said) = once('--queue=nowhere', '--give-up=1');
ok(!$ok, 'an unknown queue');
is($? >> 8, 2, 'gives up with status 2');
like($said, qr/cannot read: LG301/, 'and says why');
($ok, $said) = once('--queue=plain', '--exchange=nowhere', '--give-up=1');
like($said, qr/cannot use the exchange: 404/, 'an unknown exchange');
is($? >> 8, 2, 'gives up too');

# ------------------------------------------------------------------------
# what the broker does not want
# ------------------------------------------------------------------------

# nowhere to go: no queue of RabbitMQ is bound for it
$node->safe_psql('postgres', q(
SELECT finance.create_queue('mixed');
SELECT finance.bind_topic('#', 'mixed');
SELECT finance.publish('other', '"unroutable"'), finance.publish('pay.x', '"fine"');
SELECT finance.purge_queue('out')));
($ok, $said) = once('--queue=mixed', '--exchange=events');
ok($ok, 'a message that cannot be routed does not stop the others');
like($said, qr/refused: returned by RabbitMQ: 312 NO_ROUTE, routing key "other"/,
	'it is refused, with the reason');
is(join(' ', map { $_->{body} } received('plain')), '"fine"', 'the other arrived');
is( $node->safe_psql('postgres',
		q(SELECT payload FROM finance.message JOIN finance.queue USING (tenant_id, queue_id) WHERE name = 'mixed')),
	'"unroutable"', 'it waits for another try');
$node->safe_psql('postgres', "SELECT finance.purge_queue('mixed')");

# RabbitMQ ends the channel for a header CC that is no array, without
# saying of which message
$node->safe_psql('postgres', q(
SELECT finance.publish('pay.' || n, to_jsonb(n), CASE WHEN n IN (3, 7) THEN '{"CC": "x"}'::jsonb END)
FROM generate_series(1, 9) AS n;
SELECT finance.purge_queue('out')));
($ok, $said) = once('--queue=mixed', '--exchange=events', '--retry=1');
ok($ok, 'messages that make RabbitMQ end the channel do not stop the others');
is(() = $said =~ /refused: RabbitMQ: 406/g, 2, 'they are found, one by one');
my %bodies = map { $_->{body} => 1 } received('plain');
is(join(' ', sort keys %bodies), '1 2 4 5 6 8 9', 'the others arrived');
$node->safe_psql('postgres', "SELECT finance.purge_queue('mixed')");

# a queue that is full
sink('declare', 'full', 'few', '#', 3);
$node->safe_psql('postgres', q(
SELECT finance.publish('pay.x', to_jsonb(n)) FROM generate_series(1, 5) AS n;
SELECT finance.purge_queue('out')));
($ok, $said) = once('--queue=mixed', '--exchange=few');
is(() = $said =~ /refused: RabbitMQ could not take it/g, 2, 'a full queue refuses');
is(scalar(received('full')), 3, 'what it took is there');
$node->safe_psql('postgres', "SELECT finance.purge_queue('mixed')");

# ------------------------------------------------------------------------
# news by notification, and the end
# ------------------------------------------------------------------------

my $pid = start_relay('--queue=out', '--exchange=events', '--channel=out_news', '--poll=86400');
log_has(qr/connected to RabbitMQ/, 'a relay waits');
$node->safe_psql('postgres', q(SELECT finance.publish('pay.now', '1')));
poll_ok($node, 'SELECT ' . in_queue('out') . ' = 0', 'a notification is enough');
kill 'TERM', $pid;
is(ended($pid), 0, 'SIGTERM ends it well');
is(scalar(received('plain')), 1, 'the message has arrived');

# ------------------------------------------------------------------------
# nothing is lost
# ------------------------------------------------------------------------

# Each transaction publishes ten messages; each seventh is aborted.  What is
# sent says so in a table, in the same transaction.
$node->safe_psql('postgres', q(
CREATE TABLE sent (n int PRIMARY KEY);
CREATE PROCEDURE produce(first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	aborts bool;
BEGIN
	FOR block IN first / 10 .. last / 10 - 1 LOOP
		aborts := block % 7 = 3;
		FOR n IN block * 10 + 1 .. block * 10 + 10 LOOP
			PERFORM finance.publish('pay.n', to_jsonb(CASE WHEN aborts THEN -n ELSE n END));
			INSERT INTO sent VALUES (n);
		END LOOP;
		IF aborts THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$));
sink('declare', 'all', 'stream', 'pay.#');
my @running = ('--queue=out', '--exchange=stream', '--channel=out_news', '--vt=4', '--batch=50',
	'--heartbeat=2', '--confirm=4', '--retry=1', '--poll=1');
my $size = 10_000 * soak();
my $part = int($size / 50) * 10;

sub produce
{
	my ($which) = @_;
	$node->safe_psql('postgres',
		'CALL produce(' . $which * $part . ', ' . ($which + 1) * $part . ')');
}

sub drained
{
	my ($name) = @_;
	poll_ok($node, 'SELECT ' . in_queue('out') . ' = 0', $name);
}

# the broker cuts the connection of a relay with work to do
produce(0);
unlink "$directory/relay.log";
$pid = start_relay(@running);
log_has(qr/connected to RabbitMQ/, 'the relay has connected');
poll_ok($node, 'SELECT ' . in_queue('out') . " < $part * 6 / 7", 'and has begun');
kill 'STOP', $pid;
produce(1);
$broker->ctl('close_all_connections', 'by the test');
kill 'CONT', $pid;
log_has(qr/RabbitMQ closes: 320 .*by the test|lost RabbitMQ/, 'it was cut off');
drained('and has gone on after the connection was cut');

# the relay is killed when the broker has its messages and has not confirmed
$broker->signal('STOP');
produce(2);
poll_ok($node, "SELECT count(*) > 0 FROM finance.message WHERE read_ct > 0 AND visible_at > now()",
	'a batch is in hand');
kill 'KILL', $pid;
is(ended($pid), 137, 'the relay is killed in the middle of it');
$broker->signal('CONT');
$pid = start_relay(@running);
drained('another one goes on');

# the broker is killed and comes back
produce(3);
kill 'STOP', $pid;
$broker->crash;
$broker->start;
kill 'CONT', $pid;
log_has(qr/cannot connect to RabbitMQ/, 'the relay tries in vain for a while');
drained('and goes on when the broker is back');

# PostgreSQL crashes and comes back
kill 'STOP', $pid;
produce(4);
kill 'CONT', $pid;
poll_ok($node, 'SELECT ' . in_queue('out') . " < $part * 6 / 7", 'a part is published');
$node->stop('immediate');
$node->start;
drained('the relay goes on after a crash of PostgreSQL');

kill 'TERM', $pid;
is(ended($pid), 0, 'it ends well');

%bodies = ();
my %ids;
foreach my $message (received('all'))
{
	$bodies{ $message->{body} }{ $message->{message_id} } = 1;
	$ids{ $message->{message_id} }++;
}
my @sent = split /\n/, $node->safe_psql('postgres', 'SELECT n FROM sent');
my $copies = 0;
$copies += $_ foreach values %ids;
note(scalar(@sent) . " messages committed, $copies received");
cmp_ok(scalar @sent, '>', $size * 0.8, 'there were many');
is(scalar(grep { !$bodies{$_} } @sent), 0, 'each committed message has arrived');
is(scalar(grep { $_ < 0 } keys %bodies), 0, 'no aborted one has');
is(scalar keys %bodies, scalar @sent, 'and nothing else');
is(scalar(grep { keys %{ $bodies{$_} } != 1 } keys %bodies),
	0, 'what came twice came with the same message id');
is(scalar keys %ids, scalar @sent, 'and no two messages have the same');
cmp_ok($copies, '>=', scalar @sent, 'at least once');

is_sound($node, 'the book is sound');
note(slurp_file("$directory/relay.log"));
$node->stop;
$broker->stop;
done_testing();
