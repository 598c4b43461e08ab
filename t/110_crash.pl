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

# One request of each kind: as a statement of its own; in a transaction with a
# second transfer, or after one that is undone; a batch with a chain and one
# that fails; a journal; a hold and its captures; a reversal, a hold that is
# released, one that expires.  psql prints a statement's rows, or what \echo
# says, only after the server answered for it; what is printed after a COMMIT was
# acknowledged.  A key is all there is to know of its request.
sub request
{
	my ($key, $n) = @_;
	my ($from, $to, $third) = ($n % 4, ($n + 1 + $n % 3) % 4);
	my $amount = 1 + $n % 1000;
	my $few = 3 + $n % 50;

	($third) = grep { $_ != $from && $_ != $to } 0 .. 3;
	($from, $to, $third) = map { "'acc" . ($_ + 1) . "'" } $from, $to, $third;
	my $pay = "finance.transfer($from, $to, $amount, idempotency_key => '$key')";

	return ("SELECT '$key' FROM $pay;\n",
		"BEGIN;\n"
		  . "SAVEPOINT part;\nSELECT FROM finance.transfer('acc1', 'acc2', 1, idempotency_key => 'undone');\nROLLBACK TO part;\n"
		  . "SELECT FROM $pay;\n"
		  . "COMMIT;\n\\echo $key\n",
		"BEGIN;\nSELECT FROM $pay;\n"
		  . "SELECT FROM finance.transfer($from, $to, 1, idempotency_key => '$key+');\n"
		  . "COMMIT;\n\\echo $key\n\\echo $key+\n",
		"SELECT k FROM finance.transfer_batch(ARRAY["
		  . "finance.request($from, $to, $amount, idempotency_key => '$key', linked => true),"
		  . "finance.request($to, $third, $few, idempotency_key => '$key second'),"
		  . "finance.request($from, 'nobody', 1, idempotency_key => '$key failed'),"
		  . "finance.request($third, $from, 1, idempotency_key => '$key held', action => 'hold', expires_in => '1 day')]) b"
		  . " JOIN unnest('{$key,$key second,$key failed,$key held}'::text[]) WITH ORDINALITY k (k, n) ON n = position"
		  . " WHERE error IS NULL;\n",
		"SELECT '$key' FROM finance.journal(ARRAY[finance.leg($from, 'debit', $amount), finance.leg($to, 'credit', $amount - 0.5),"
		  . " finance.leg($third, 'credit', 0.5)], '$key') LIMIT 1;\n",
		"SELECT hold_id FROM finance.hold($from, $to, $few, hold_group => '$key', idempotency_key => '$key') \\gset\n\\echo $key\n"
		  . "SELECT '$key part' FROM finance.capture(:hold_id, 1, idempotency_key => '$key part');\n"
		  . "SELECT '$key rest' FROM finance.capture(:hold_id, 1, final => true, idempotency_key => '$key rest');\n",
		"SELECT id FROM finance.transfer($from, $to, $few, idempotency_key => '$key') \\gset\n\\echo $key\n"
		  . "SELECT '$key back' FROM finance.reverse_transfer(:id, 2, 'back', '$key back');\n",
		"SELECT hold_id FROM finance.hold($from, $to, $few, idempotency_key => '$key') \\gset\n\\echo $key\n"
		  . "SELECT '$key released' FROM finance.release(:hold_id, 2, '$key released');\n",
		"SELECT '$key' FROM finance.hold($from, $to, $few, '50 ms', idempotency_key => '$key');\n"
	)[$n % 9];
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
		push @started, [ $h, $log, $node->basedir . "/errors_$client" ];
	}
	return @started;
}

# every line of a log is a key, the last too: psql lives on to write it
sub acknowledged
{
	my (@started) = @_;
	my @keys;
	my $errors = '';

	foreach my $client (@started)
	{
		$client->[0]->finish;
		push @keys, grep { /\S/ } split /\n/, slurp_file($client->[1]);
		$errors .= join '', grep { /ERROR/ } split /^/, slurp_file($client->[2]);
	}
	is($errors, '', 'no request was refused');
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
	is_query(
		$node,
		q(SELECT count(*) FROM finance.transfer t FULL JOIN finance.idempotency_key k ON k.transfer_id = t.id
			WHERE t.id IS NULL OR (k.key IS NULL AND t.status <> 'expired' AND coalesce(t.journal_id, t.id) = t.id)),
		'0',
		"$name: each key has its transfer, and each transfer its key");
	is_query($node, 'SELECT count(*) - count(DISTINCT id) FROM finance.transfer',
		'0', "$name: ids are unique");
	is_query($node,
		"SELECT count(*) FROM finance.idempotency_key WHERE key = 'undone' OR key LIKE '% failed'",
		'0', "$name: nothing of what was undone");
	is_query(
		$node,
		"SELECT count(*) FROM finance.transfer t FULL JOIN"
		  . " (SELECT transfer_id AS id, count(*) AS records FROM finance.audit_record WHERE transfer_id IS NOT NULL GROUP BY 1) r USING (id)"
		  . ' WHERE records IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one audit record for each transfer");
	is_query(
		$node,
		"SELECT count(*) FROM (SELECT id FROM finance.transfer WHERE status <> 'rejected') t FULL JOIN"
		  . " (SELECT (payload -> 'payload' ->> 'transfer_id')::bigint AS id, count(*) AS messages FROM finance.message GROUP BY 1) m USING (id)"
		  . ' WHERE messages IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one message for each transfer");
	is_sound($node, $name);

	# Clients that repeat what they asked for get the first answers, and the book
	# is as it was; all but the last requests of each were acknowledged in full.
	my %last;
	foreach my $key (@keys)
	{
		my ($client, $n) = $key =~ /-c(\d+)-(\d+)/ or die $key;
		$last{$client} = $n if $n > ($last{$client} // 0);
	}
	my @again = grep { /-c(\d+)-(\d+)$/ && $2 < $last{$1} } @keys;
	@again = grep { defined } @again[ 0 .. 299 ];
	my $before = asked_for('count(*)');
	$node->safe_psql(
		'postgres',
		join '',
		map { /-c(\d+)-(\d+)$/; request($_, $2 + $1) } @again);
	cmp_ok(scalar(@again), '>', 0, "$name: some are repeated");
	is(asked_for('count(*)'), $before, "$name: requests repeated afterwards do nothing");

	# it is open again
	$node->safe_psql('postgres',
		join '', map { request("again $name-$_", $_) } 1 .. 9);
	poll_ok($node,
		"SELECT count(*) = 0 FROM finance._hold WHERE status = 'open' AND expires_at < clock_timestamp()",
		"$name: what is over is given back");
	is_sound($node, "$name, going on");
}

# of transfers that somebody asked for
sub asked_for
{
	my ($what) = @_;

	return $node->safe_psql('postgres',
		"SELECT $what FROM finance.transfer WHERE status <> 'expired'");
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
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'load' ORDER BY state = 'active' DESC, random() LIMIT 1"
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
		CASE amount % 3
		WHEN 0 THEN
			PERFORM finance.transfer('acc' || f, 'acc' || t, amount);
		WHEN 1 THEN
			PERFORM finance.journal(ARRAY[finance.leg('acc' || f, 'debit', amount), finance.leg('acc' || t, 'credit', amount)]);
		WHEN 2 THEN
			PERFORM finance.capture(hold_id, 1, final => true) FROM finance.hold('acc' || f, 'acc' || t, least(amount, 800));
		END CASE;
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
	my ($name, $interrupted, $also, @started) = @_;
	my $errors = '';

	foreach my $client (@started)
	{
		$client->[0]->finish;
		$errors .= slurp_file($client->[1]);
	}
	my $others = join '',
	  grep { /(ERROR|FATAL)/ && !/$interrupted/ && !($also && /$also/) }
	  split /^/, $errors;
	is($others, '', "$name: no other error");
	is_query($node,
		"SELECT bool_and(name = 'teller') FROM outcome", 't',
		"$name: the user stays who they were");
	is_query(
		$node,
		"SELECT count(*) FROM (SELECT id FROM finance.transfer WHERE status <> 'rejected') t FULL JOIN"
		  . " (SELECT (payload -> 'payload' ->> 'transfer_id')::bigint AS id, count(*) AS messages FROM finance.message GROUP BY 1) m USING (id)"
		  . ' WHERE messages IS DISTINCT FROM 1 OR t.id IS NULL',
		'0',
		"$name: one message for each transfer");
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
		qr/canceling statement due to user request/, undef, @started);
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
# A timeout that strikes just while the server stops the clock, at the end of a
# statement, is told as a user's request: the cause is forgotten, the cancel is
# not.  Nobody else cancels here.
ok( check_victims(
		'timeouts',
		qr/canceling statement due to statement timeout/,
		qr/canceling statement due to user request/, @started),
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
	qr/terminating connection|connection to server was lost/,
	undef, @started);

$node->stop;
done_testing();
