# Crashes and cancels under load: whatever was acknowledged is there, once,
# with its message and its audit record, and nothing else is half done.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $soak = soak();
my $node = book_node('main', "synchronous_commit = on\nlog_statement = none\n");
my $clients = 6;
my $script_length = 20000;    # more than a client gets done in a round

open_accounts($node, map { "acc$_" } 1 .. 4);
$node->safe_psql(
	'postgres', q(
SELECT finance.create_queue('all');
SELECT finance.bind_topic('transfer.#', 'all');
SELECT finance.add_rule('cap', 'transfer_limit', 900);
));

# ------------------------------------------------------------------------
# clients that note what was acknowledged
# ------------------------------------------------------------------------

# One request, as a statement of its own, or in a transaction with a second
# transfer, or after one that is undone.  psql prints a statement's rows, or
# what \echo says, only after the server answered for it; what is printed after
# a COMMIT was acknowledged.
sub request
{
	my ($key, $n) = @_;
	my $from = 1 + $n % 4;
	my $to = 1 + ($n + 1 + $n % 3) % 4;
	my $amount = 1 + $n % 1000;
	my $pay =
	  "SELECT '%s' FROM finance.transfer('acc$from', 'acc$to', $amount, idempotency_key => '%s');\n";

	return sprintf($pay, $key, $key) if $n % 3 == 0;
	return
		"BEGIN;\n"
	  . "SAVEPOINT part;\nSELECT FROM finance.transfer('acc1', 'acc2', 1, idempotency_key => 'undone');\nROLLBACK TO part;\n"
	  . "SELECT FROM finance.transfer('acc$from', 'acc$to', $amount, idempotency_key => '$key');\n"
	  . "COMMIT;\n\\echo $key\n"
	  if $n % 3 == 1;
	return
		"BEGIN;\nSELECT FROM finance.transfer('acc$from', 'acc$to', $amount, idempotency_key => '$key');\n"
	  . "SELECT FROM finance.transfer('acc$from', 'acc$to', 1, idempotency_key => '$key+');\n"
	  . "COMMIT;\n\\echo $key\n\\echo $key+\n";
}

sub start_clients
{
	my ($round) = @_;
	my @started;

	foreach my $client (1 .. $clients)
	{
		my $script = $node->basedir . "/load$client.sql";
		my $log = $node->basedir . "/acknowledged_${round}_$client";

		unlink $script;
		append_to_file($script,
			"SET application_name = 'load';\n"
			  . join('',
				map { request("r$round-c$client-$_", $_ + $client) }
				  1 .. $script_length));
		my $h = IPC::Run::start(
			[
				'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $script,
				'-d', $node->connstr('postgres')
			],
			'>', $log, '2>', $node->basedir . "/errors_$client");
		push @started, [ $h, $log ];
	}
	return @started;
}

# every line of a log is a key, the last too: psql lives on to write it
sub acknowledged
{
	my (@started) = @_;
	my @keys;

	foreach my $client (@started)
	{
		$client->[0]->finish;
		push @keys, grep { /\S/ } split /\n/, slurp_file($client->[1]);
	}
	return @keys;
}

# The processes of a killed postmaster go when they next wait for something;
# until then no new one can start.
sub kill_postmaster
{
	my @pids =
	  split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');

	$node->kill9;
	return @pids;
}

sub wait_for_end
{
	my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;

	usleep(100_000) while (grep { kill 0, $_ } @_) && $patience-- > 0;
}

sub check_round
{
	my ($name, @keys) = @_;
	my $done = 'SELECT count(*) FROM finance.transfer';
	my %seen;

	cmp_ok(scalar(@keys), '>', 0, "$name: transfers were acknowledged");
	is(scalar(grep { $seen{$_}++ } @keys), 0, "$name: each once");

	my $file = $node->basedir . '/keys';
	unlink $file;
	append_to_file($file, join("\n", @keys) . "\n");
	is( $node->safe_psql(
			'postgres',
			"CREATE TEMP TABLE acknowledged (key text);\n\\copy acknowledged FROM '$file'\n"
			  . 'SELECT count(*) FROM acknowledged a WHERE NOT EXISTS'
			  . ' (SELECT FROM finance.idempotency_key k JOIN finance.transfer t ON t.id = k.transfer_id WHERE k.key = a.key)'
		),
		'0',
		"$name: each acknowledged transfer exists");
	is_query($node,
		'SELECT (SELECT count(*) FROM finance.idempotency_key) = count(*), count(*) = count(DISTINCT id) FROM finance.transfer',
		't|t', "$name: one transfer for each key");
	is_query($node,
		"SELECT count(*) FROM finance.idempotency_key WHERE key = 'undone'",
		'0', "$name: nothing of what was undone");
	is_query(
		$node,
		"SELECT count(*) FROM finance.transfer t FULL JOIN"
		  . " (SELECT transfer_id AS id, count(*) AS records FROM finance.audit_record WHERE operation = 'transfer' GROUP BY 1) r USING (id)"
		  . ' WHERE records IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one audit record for each transfer");
	is_query(
		$node,
		"SELECT count(*) FROM (SELECT id FROM finance.transfer WHERE status = 'completed') t FULL JOIN"
		  . " (SELECT (payload -> 'payload' ->> 'transfer_id')::bigint AS id, count(*) AS messages FROM finance.message GROUP BY 1) m USING (id)"
		  . ' WHERE messages IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one message for each completed transfer");
	is_sound($node, $name);

	# Clients that repeat what they asked for get the first answers; that the
	# book is open again shows the same.
	my $again = join '',
	  map { request("r$name-$_", $_) =~ s/'r$name/'again-r$name/gr } 1 .. 9;
	$node->safe_psql('postgres', $again);
	is( $node->safe_psql(
			'postgres',
			"CREATE TEMP TABLE acknowledged (key text);\n\\copy acknowledged FROM '$file'\n"
			  . 'SELECT bool_and((finance.transfer(t.from_account_id, t.to_account_id, t.amount, idempotency_key => a.key)).replayed)'
			  . ' FROM (SELECT key FROM acknowledged LIMIT 200) a JOIN finance.idempotency_key k USING (key) JOIN finance.transfer t ON t.id = k.transfer_id'
		),
		't',
		"$name: requests repeated afterwards are answered as before");
	is_sound($node, "$name, going on");
}

sub wait_for_load
{
	my ($more) = @_;
	my $enough = $more +
	  $node->safe_psql('postgres', 'SELECT count(*) FROM finance.transfer');

	poll_ok($node, "SELECT count(*) >= $enough FROM finance.transfer",
		'the load goes on');
}

# ------------------------------------------------------------------------
# kill -9
# ------------------------------------------------------------------------

foreach my $round (1 .. 2 * $soak)
{
	my @started = start_clients("b$round");

	wait_for_load(200 * $round);
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'load' AND state = 'active' ORDER BY random() LIMIT 1"
	);
	kill 'KILL', $pid;
	my @keys = acknowledged(@started);
	wait_for_server($node);
	check_round("kill -9 of a backend $round", @keys);
}

foreach my $round (1 .. 2 * $soak)
{
	my @started = start_clients("p$round");

	wait_for_load(300 * $round);
	my @pids = kill_postmaster();
	my @keys = acknowledged(@started);
	wait_for_end(@pids);
	$node->start;
	check_round("kill -9 of the postmaster $round", @keys);
}

foreach my $round (1 .. $soak)
{
	my @started = start_clients("i$round");

	wait_for_load(200);
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->stop('immediate');
	my @keys = acknowledged(@started);
	$node->start;
	check_round("immediate shutdown $round", @keys);
}

foreach my $round (1 .. $soak)
{
	my @started = start_clients("w$round");

	wait_for_load(200);
	poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
		'the worker runs');
	kill 'KILL', worker_pid($node);
	my @keys = acknowledged(@started);
	wait_for_server($node);
	check_round("kill -9 of the worker $round", @keys);
}

# ------------------------------------------------------------------------
# cancels, timeouts, and terminated sessions
# ------------------------------------------------------------------------

# A user who owns nothing, so that a call cut off that left the session with
# the rights of the extension's owner would be seen; interrupted calls end
# their transaction, or only their part of it.
$node->safe_psql(
	'postgres', q(
CREATE ROLE teller LOGIN;
SELECT finance.grant_access('teller', 'app');
CREATE TABLE outcome (state text, name text);
GRANT INSERT ON outcome TO teller;
CREATE FUNCTION attempt(f int, t int, amount int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		PERFORM finance.transfer('acc' || f, 'acc' || t, amount);
	EXCEPTION WHEN query_canceled OR lock_not_available THEN
		state := SQLSTATE;
	END;
	INSERT INTO outcome VALUES (state, current_user);
END $$;
));

sub start_victims
{
	my ($settings, $length) = @_;
	my $script = $node->basedir . '/victim.sql';
	my @started;

	unlink $script;
	append_to_file($script,
			"SET application_name = 'victim';\n$settings\n"
		  . join('',
			map {
				my ($f, $t) = (1 + $_ % 4, 1 + ($_ + 1 + $_ % 3) % 4);
				$_ % 2
				  ? "SELECT attempt($f, $t, $_);\n"
				  : "SELECT finance.transfer('acc$f', 'acc$t', $_);\n"
			} 1 .. $length));
	foreach my $client (1 .. 3)
	{
		my $errors = $node->basedir . "/victim_$client";
		my $h = IPC::Run::start(
			[
				'psql', '-XqAt', '-f', $script, '-d',
				$node->connstr('postgres') . ' user=teller'
			],
			'>', '/dev/null', '2>', $errors);
		push @started, [ $h, $errors ];
	}
	return @started;
}

sub check_victims
{
	my ($name, $interrupted, @started) = @_;
	my $errors = '';

	foreach my $client (@started)
	{
		$client->[0]->finish;
		$errors .= slurp_file($client->[1]);
	}
	my $others = join '', grep { /(ERROR|FATAL)/ && !/$interrupted/ }
	  split /^/, $errors;
	is($others, '', "$name: no other error");
	is_query($node,
		"SELECT bool_and(name = 'teller') FROM outcome", 't',
		"$name: the user stays who they were");
	is_query(
		$node,
		"SELECT count(*) FROM (SELECT id FROM finance.transfer WHERE status = 'completed') t FULL JOIN"
		  . " (SELECT (payload -> 'payload' ->> 'transfer_id')::bigint AS id, count(*) AS messages FROM finance.message GROUP BY 1) m USING (id)"
		  . ' WHERE messages IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one message for each completed transfer");
	is_sound($node, $name);
	return $errors =~ /$interrupted/
	  || $node->safe_psql('postgres',
		"SELECT count(*) FROM outcome WHERE state <> '00000'") > 0;
}

my $hits = 0;
foreach my $round (1 .. 2 * $soak)
{
	my @started = start_victims('', 600);

	# as long as there are victims
	$node->safe_psql(
		'postgres', q(
DO $$
DECLARE
	victims int[];
BEGIN
	FOR i IN 1..20000 LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT array_agg(pid) INTO victims FROM pg_stat_activity
			WHERE application_name = 'victim';
		EXIT WHEN victims IS NULL AND i > 2000;
		FOR j IN 1..20 LOOP
			PERFORM pg_cancel_backend(pid) FROM unnest(victims) pid;
		END LOOP;
	END LOOP;
END $$));
	$hits += check_victims("cancels $round",
		qr/canceling statement due to user request/, @started);
}
cmp_ok($hits, '>', 0, 'cancels met transfers');
is_query($node,
	"SELECT count(*) > 0 FROM outcome WHERE state = '00000'",
	't', 'and some transfers went through');

# the same by timeouts, with somebody holding the accounts now and then
$node->safe_psql('postgres', 'TRUNCATE outcome');
my $holder = $node->background_psql('postgres');
$holder->query_safe(
	"BEGIN; SELECT finance.transfer('acc1', 'acc2', 1), finance.transfer('acc3', 'acc4', 1)"
);
my @started = start_victims("SET statement_timeout = '3ms';", 600);
poll_ok($node,
	"SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'victim'",
	'payers wait for locked accounts');
$holder->query_safe('COMMIT');
ok( check_victims(
		'timeouts', qr/canceling statement due to statement timeout/,
		@started),
	'timeouts met transfers');
$holder->quit;

@started = start_victims('', $script_length);
poll_ok(
	$node,
	"SELECT count(*) = 3 FROM pg_stat_activity WHERE application_name = 'victim' AND query ~ 'acc[1-4]'",
	'three sessions pay');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'"
);
check_victims('terminated sessions',
	qr/terminating connection|connection to server was lost/, @started);

$node->stop;
done_testing();
