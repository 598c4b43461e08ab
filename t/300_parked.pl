# What is parked and nobody decided: the worker settles it, as was laid down, of
# all tenants, after restarts and crashes, past what it may not carry out; and
# prepared transactions, and many who decide at once.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# sweeps do not come by themselves: what is over was noted by its maker
my $node = book_node('main', "max_prepared_transactions = 10\n");

# by a clock of the past: for the worker it is over once it is committed
my $past = "SET finance.test_clock = '2001-01-01'";
my $maker = "SET finance.actor = 'maker'";
my $checker = "SET finance.actor = 'checker'";

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# a rule that wants an outcome of what an account pays above 100
sub rule
{
	my ($account, $wants) = @_;

	return "SELECT finance.add_rule('$account', 'transfer_limit', 100, account => '$account', outcome => '$wants')";
}

# the same rules, under which what nobody decided is approved, or rejected
sub default_is
{
	my ($default) = @_;

	return "SELECT finance.publish_ruleset(finance.create_ruleset('$default', copy_of => (SELECT version FROM finance.ruleset"
	  . " WHERE tenant_id = current_setting('finance.tenant')::integer AND mode = 'live'), review_default => '$default'))";
}

# parks; the id
sub park
{
	my ($from, $to, $amount, @settings) = @_;

	return sql($maker, @settings, "SELECT id FROM finance.transfer('$from', '$to', $amount)");
}

# of a review: its status, and that of the transfer that settled it
sub end_of
{
	my ($id) = @_;
	return "SELECT r.status, t.status FROM finance.risk_review r LEFT JOIN finance.transfer t ON t.id = r.settled_id WHERE r.transfer_id = $id";
}

sub ends
{
	my ($id, $settled, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	poll_ok($node, "SELECT status <> 'open' FROM finance.risk_review WHERE transfer_id = $id", $name);
	is_query($node, end_of($id), "timed_out|$settled", "$name, as $settled");
}

sub stays
{
	my ($id, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node, end_of($id), 'open|', $name);
}

open_accounts($node, qw(ann ben cid dan eve shop bank quiet));
sql(rule('ann', 'review'), rule('ben', 'review'), rule('cid', 'challenge'),
	rule('quiet', 'review'), rule('dan', 'review'), rule('eve', 'review'));
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'", 'the worker runs');
settle($node);

# ------------------------------------------------------------------------
# both ways, and both kinds
# ------------------------------------------------------------------------

my $later = park('ann', 'shop', 101);
ends(park('ann', 'shop', 102, $past), 'expired', 'a review that nobody decided');
sql(default_is('approve'));
ends(park('ben', 'shop', 103, $past), 'completed', 'one that is approved by itself');
ends(park('cid', 'shop', 104, $past), 'expired', 'a challenge that nobody confirmed');
stays($later, 'one with time left');
is_query(
	$node,
	"SELECT operation, actor, status, count(*) FROM finance.audit_record WHERE operation = 'settle_review' GROUP BY 1, 2, 3 ORDER BY 3",
	"settle_review|finance worker|completed|1\nsettle_review|finance worker|expired|2",
	'audited as what the worker did');
is_query($node, 'SELECT count(*) FROM finance._challenge', '0', 'the hash of the token is gone');
is_query($node,
	"SELECT code, balance, held FROM finance.account WHERE code IN ('ann', 'ben', 'cid') ORDER BY code",
	"ann|0.00|101.00\nben|-103.00|0.00\ncid|0.00|0.00", 'the money is where it belongs');

# a hold that is approved by itself is an ordinary one, and then expires
my $hold = sql($maker, $past, "SELECT id FROM finance.hold('ben', 'shop', 105, expires_in => '1 hour')");
ends($hold, 'approved', 'a hold');
is_query($node, "SELECT status, expires_at > clock_timestamp() FROM finance.hold WHERE hold_id = $hold",
	'open|t', 'it is one from then on');
is_query($node, "SELECT status FROM finance.release($hold)", 'released', 'that can be released');
$hold = sql($maker, $past, "SELECT id FROM finance.hold('ben', 'shop', 106, expires_in => '1 millisecond')");
poll_ok($node, "SELECT status = 'expired' FROM finance._hold WHERE hold_id = $hold",
	'a short one is approved, and is over');
is_query($node, "SELECT status FROM finance.transfer WHERE hold_id = $hold ORDER BY id",
	"review\napproved\nexpired", 'one after the other');

# more than a batch, of both accounts
sql(default_is('reject'));
sql($maker, $past, "SELECT count(t.id) FROM generate_series(101, 250) AS n CROSS JOIN LATERAL finance.transfer(CASE n % 2 WHEN 0 THEN 'ann' ELSE 'ben' END, 'shop', n) AS t");
poll_ok($node, 'SELECT count(*) = 1 FROM finance.review', 'more than a batch');
is_sound($node, 'settled by the worker');

# ------------------------------------------------------------------------
# two tenants, each with its own rules
# ------------------------------------------------------------------------

sql('CREATE ROLE other_role');
my $tenant = sql("SELECT finance.create_tenant('other', 'Asia/Tokyo', 'other_role')");
my $as_other = "SET finance.tenant = $tenant";
sql($as_other, (map { "SELECT finance.create_account('$_', 'EUR', min_available => NULL)" } qw(ann shop)),
	rule('ann', 'review'), default_is('approve'));
my $ours = park('ann', 'shop', 107, $past);
my $theirs = park('ann', 'shop', 108, $past, $as_other);
ends($ours, 'expired', 'one of ours');
ends($theirs, 'completed', 'one of theirs');
is_query($node,
	"SELECT count(*), min(actor) FROM finance.audit_record WHERE tenant_id = $tenant AND operation = 'settle_review'",
	'1|finance worker', 'each in its own tenant');

# ------------------------------------------------------------------------
# what may not be carried out; it keeps nobody else
# ------------------------------------------------------------------------

sql(default_is('approve'));
my $frozen = sql('BEGIN', $maker, $past, "SELECT id FROM finance.transfer('dan', 'shop', 109)",
	"SELECT finance.set_account_status('dan', 'frozen')", 'COMMIT');
$frozen =~ s/\n.*//s;
ends(park('ben', 'shop', 110, $past), 'completed', 'beside one whose account is frozen');
poll_ok($node,
	"SELECT last_error = 'what is parked cannot be carried out' AND state = 'running' FROM finance.workers WHERE database = 'postgres'",
	'the worker tells of that');
stays($frozen, 'which stays open');
is_query($node, 'SELECT finance.settle_reviews()', '0', 'settle_reviews() passes it over');
my ($code, $out, $err) = $node->psql('postgres', "$checker; SELECT finance.review_transfer($frozen, true)");
like($err, qr/the time of transfer $frozen is over/, 'nor can it be approved any more');
sql("SELECT finance.set_account_status('dan', 'active')", 'SELECT finance.wake_worker()');
ends($frozen, 'completed', 'once it is active again');
sql(default_is('reject'));

# ------------------------------------------------------------------------
# an account that is locked; restart, crash
# ------------------------------------------------------------------------

my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; $maker; $past; SELECT id FROM finance.transfer('quiet', 'bank', 1111)");
my $seen = park('eve', 'shop', 1112, $past);
ends($seen, 'expired', 'one beside a transaction that is under way');
is_query($node, "SELECT count(*) FROM finance.risk_review WHERE amount = 1111", '0', 'whose own is not there yet');
$holder->query_safe('COMMIT');
my $blocked = sql('SELECT transfer_id FROM finance.risk_review WHERE amount = 1111');
ends($blocked, 'expired', 'it is settled when it is there');

# its account is locked before its time is over, of which the row alone tells
sub park_locked
{
	my ($amount) = @_;
	my $id = park('quiet', 'bank', $amount);

	$holder->query_safe("BEGIN; SELECT finance.lock_accounts('{quiet}')");
	sql(
		"UPDATE finance._hold SET expires_at = now() - interval '1 second' WHERE hold_id = $id",
		"UPDATE finance.risk_review SET expires_at = h.expires_at FROM finance._hold h WHERE h.hold_id = transfer_id AND transfer_id = $id",
		'SELECT finance.wake_worker()');
	return $id;
}

$blocked = park_locked(113);
settle($node);
stays($blocked, 'one whose account is locked');
is_query($node, 'SELECT finance.settle_reviews()', '0', 'settle_reviews() does not wait');
$holder->query_safe('COMMIT');
ends($blocked, 'expired', 'once it is free');

$blocked = park_locked(114);
stays($blocked, 'locked again');
$node->stop('immediate');
$node->start;
ends($blocked, 'expired', 'after a crash the worker looks at once');
stays($later, 'and leaves what has time');
$holder->{run}->kill_kill;

$holder = $node->background_psql('postgres');
$blocked = park_locked(115);
stays($blocked, 'locked once more');
my $pid = worker_pid($node);
kill 'KILL', $pid;
wait_for_server($node);
ends($blocked, 'expired', 'after kill -9 of the worker');
$holder->{run}->kill_kill;
is_sound($node, 'after crashes');

# ------------------------------------------------------------------------
# prepared transactions
# ------------------------------------------------------------------------

my $token = sql($maker, 'BEGIN', "SELECT token FROM finance.transfer('cid', 'shop', 116)", "PREPARE TRANSACTION 'parking'");
is_query($node, 'SELECT count(*) FROM finance.review', '1', 'what is parked in a prepared transaction is not there');
$node->restart;
sql("COMMIT PREPARED 'parking'");
my $prepared = sql('SELECT transfer_id FROM finance.review WHERE amount = 116');
is_query($node, "SELECT confirmed, status FROM finance.confirm_challenge($prepared, '$token')",
	't|completed', 'its token is good after a restart');

$prepared = sql('BEGIN', $maker, $past, "SELECT id FROM finance.transfer('ann', 'shop', 117)", "PREPARE TRANSACTION 'over'");
settle($node);
sql("COMMIT PREPARED 'over'");
sql('SELECT finance.wake_worker()');
ends($prepared, 'expired', 'over before it was committed: found by a sweep');

# decided in a prepared transaction: its time does not overtake it
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $id = park('quiet', 'bank', 118);

	sql($checker, 'BEGIN', "SELECT finance.review_transfer($id, true)", "PREPARE TRANSACTION 'decision'");
	is_query(
		$node,
		"BEGIN; SET LOCAL finance.test_clock = '2090-01-01'; SELECT finance.settle_reviews() > 0; SELECT status FROM finance.risk_review WHERE transfer_id = $id; ROLLBACK",
		"t\nopen", 'settle_reviews() passes over what is decided in a prepared transaction');
	$node->restart;
	sql("$end PREPARED 'decision'");
	if ($end eq 'COMMIT')
	{
		is_query($node, end_of($id), 'approved|completed', 'committed, it is approved');
	}
	else
	{
		stays($id, 'rolled back, it is open');
		is_query($node, "$checker; SELECT status FROM finance.review_transfer($id, false, 'no')", 'released', 'and can be rejected');
	}
}
is_sound($node, 'after prepared transactions');

# ------------------------------------------------------------------------
# many at once: each is decided once
# ------------------------------------------------------------------------

my $rounds = 35 * soak();
sql('CREATE TABLE chosen (n serial, transfer_id bigint)',
	$maker,
	"INSERT INTO chosen (transfer_id) SELECT t.id FROM generate_series(1, $rounds) AS n CROSS JOIN LATERAL finance.transfer(CASE n % 2 WHEN 0 THEN 'ann' ELSE 'eve' END, 'shop', 200) AS t",
	q{CREATE FUNCTION decide(n integer, approve boolean) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('finance.actor', 'checker', false);
		IF n % 7 = 0 THEN
			PERFORM set_config('finance.test_clock', '2090-01-01', true), finance.settle_reviews(1);
			RETURN;
		END IF;
		PERFORM finance.review_transfer((SELECT c.transfer_id FROM chosen c WHERE c.n = decide.n), approve, 'by chance');
	EXCEPTION WHEN SQLSTATE 'LG013' THEN
		NULL;
	END $$});
bench_ok($node, 'reviewers race each other',
	"\\set n random(1, $rounds)\n\\set yes random(0, 1)\nSELECT decide(:n, :yes = 1);\n",
	'-c', 8, '-t', 2 * $rounds, '--random-seed=4711');
is_query($node,
	'SELECT count(*) FROM chosen c JOIN finance.transfer t ON t.hold_id = c.transfer_id AND t.id <> c.transfer_id'
	  . ' GROUP BY c.transfer_id HAVING count(*) <> 1',
	'', 'none of them was decided twice');
is_query(
	$node,
	"SELECT (SELECT -balance FROM finance.account WHERE code = 'eve') = 200 * count(*) FILTER (WHERE r.status = 'approved')"
	  . " FROM finance.risk_review r JOIN finance.account a ON a.account_id = r.from_account_id WHERE a.code = 'eve'",
	't', 'what was approved was paid, and nothing else');
is_sound($node, 'after the race');
is_query($node, "SELECT count(*) > 0 FROM finance.risk_review r WHERE r.requested_by = r.reviewer AND r.kind = 'review'", 'f',
	'no maker was a checker');

$node->stop;
done_testing();
