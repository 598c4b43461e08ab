# The worker gives back holds as soon as they are over: of all tenants, after a
# restart, past those that cannot be, and those of prepared transactions.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# sweeps do not come by themselves: what expires was noted by its maker
my $node = book_node('main');

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# a hold in database postgres; its id
sub hold
{
	my ($from, $to, $amount, $expires_in, $settings) = @_;
	my $id = sql($settings // "SET client_min_messages = warning",
		"SELECT id FROM finance.hold('$from', '$to', $amount, expires_in => '$expires_in')");

	return $id;
}

sub status_of
{
	my ($id) = @_;
	return "SELECT status FROM finance._hold WHERE hold_id = $id";
}

sub expires
{
	my ($id, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	poll_ok($node, "SELECT status = 'expired' FROM finance._hold WHERE hold_id = $id",
		$name);
}

open_accounts($node, qw(ann ben shop bank quiet));
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');
sql("SELECT finance.subscribe('ends', 'transfer.expired')");
settle($node);

# ------------------------------------------------------------------------
# as soon as it is over
# ------------------------------------------------------------------------

my $session = subscriber($node, 'ends');
my $later = hold('ann', 'shop', 1, '1 hour');
my $sooner = hold('ann', 'shop', 2, '300 milliseconds');
expires($sooner, 'a hold that is over is given back');
is_query($node, status_of($later), 'open', 'a later one is not');
is_query(
	$node,
	"SELECT r.operation, r.actor, r.status, r.amount, t.status, t.amount"
	  . " FROM finance.audit_record r JOIN finance.transfer t ON t.tenant_id = r.tenant_id AND t.id = r.transfer_id"
	  . " WHERE t.hold_id = $sooner AND t.id <> $sooner",
	'expire|finance worker|expired|2.00|expired|2.00',
	'it is a transfer, and audited');
is_query($node,
	"SELECT held, available FROM finance.account WHERE code = 'ann'",
	'1.00|-1.00', 'the money is there again');
my @seen = wait_for_notifies($session, sub { count_sum(@_) >= 1 });
is(count_sum(@seen), 1, 'subscribers are told');
$session->quit;

# by a subtransaction that is kept, among ones that are not
my $past = "SET finance.test_clock = '2001-01-01'";
my $made = sql(
	'CREATE TABLE made (hold_id bigint)',
	'BEGIN', 'SAVEPOINT a',
	"INSERT INTO made SELECT id FROM finance.hold('ann', 'shop', 3, expires_in => '1 millisecond')",
	'ROLLBACK TO a', 'SAVEPOINT b',
	"INSERT INTO made SELECT id FROM finance.hold('ann', 'shop', 3, expires_in => '1 millisecond')",
	'RELEASE b', 'COMMIT', 'SELECT hold_id FROM made');
expires($made, 'a hold made in a subtransaction');
is_query($node, 'SELECT count(*) FROM finance._hold', '3', 'and of one undone nothing is left');

# the rest of one captured in part
# (by a clock of the past: for the worker it is over once it is committed)
sql('TRUNCATE made', 'BEGIN', $past,
	"INSERT INTO made SELECT id FROM finance.hold('ann', 'shop', 5, expires_in => '1 hour')",
	'SELECT c.status FROM made CROSS JOIN LATERAL finance.capture(made.hold_id, 2) AS c',
	'COMMIT');
$made = sql('SELECT hold_id FROM made');
expires($made, 'a hold captured in part');
is_query($node, "SELECT captured, released FROM finance._hold WHERE hold_id = $made",
	'2.00|3.00', 'its rest is given back');

# alone, too
expires(hold('ann', 'shop', 1, '1 hour', $past),
	'a hold by the clock of a session, over by that of the worker');
my $future = hold('ann', 'shop', 1, '1 second', "SET finance.test_clock = '2090-01-01'");

# frozen accounts give back too
sql('TRUNCATE made', 'BEGIN', $past,
	"INSERT INTO made SELECT id FROM finance.hold('ben', 'quiet', 4, expires_in => '1 hour')",
	"SELECT finance.set_account_status('ben', 'frozen')",
	"SELECT finance.set_account_status('quiet', 'frozen')", 'COMMIT');
$made = sql('SELECT hold_id FROM made');
expires($made, 'a hold between frozen accounts');
sql("SELECT finance.set_account_status('ben', 'active')",
	"SELECT finance.set_account_status('quiet', 'active')");

# many at once
sql("SELECT count(h.id) FROM generate_series(1, 350) AS n CROSS JOIN LATERAL finance.hold('ann', 'ben', n, expires_in => '1 millisecond') AS h");
poll_ok($node,
	"SELECT count(*) = 350 FROM finance._hold h JOIN finance.account a ON a.account_id = h.to_account_id WHERE a.code = 'ben' AND h.status = 'expired'",
	'more than a batch');

# ------------------------------------------------------------------------
# other tenants, their roles or not
# ------------------------------------------------------------------------

sql('CREATE ROLE other_role');
my $tenant = sql("SELECT finance.create_tenant('other', 'Asia/Tokyo', 'other_role')");
my $as_other = "SET finance.tenant = $tenant";
sql($as_other, "SELECT finance.create_account('ann', 'EUR', min_available => NULL)",
	"SELECT finance.create_account('shop', 'EUR')");
my $theirs = hold('ann', 'shop', 6, '200 milliseconds', $as_other);
my $ours = hold('ann', 'shop', 6, '200 milliseconds');
expires($theirs, 'a hold of another tenant');
expires($ours, 'and one of ours');
is_query(
	$node,
	"SELECT count(*), min(tenant_id), min(actor) FROM finance.audit_record WHERE operation = 'expire' AND tenant_id <> 0",
	"1|$tenant|finance worker",
	'each in its own tenant');

# ------------------------------------------------------------------------
# an account that is locked; and a restart
# ------------------------------------------------------------------------

my $holder = $node->background_psql('postgres');
# a hold that is not over by the time its account is locked by another session
sub blocked_hold
{
	for (;;)
	{
		my $id = hold('quiet', 'ben', 1, '2 seconds');

		$holder->query_safe("BEGIN; SELECT finance.transfer('bank', 'quiet', 1)");
		return $id
		  if sql("SELECT expires_at > clock_timestamp() FROM finance._hold WHERE hold_id = $id") eq 't';
		$holder->query_safe('ROLLBACK');
	}
}

my $blocked = blocked_hold();
$made = hold('ann', 'ben', 1, '2 seconds');
expires($made, 'a locked account keeps nobody else waiting');
poll_ok($node, "SELECT status = 'expired' FROM finance.hold WHERE hold_id = $blocked",
	'every reader sees that its hold is over');
is_query($node, status_of($blocked), 'open', 'which is not given back');
is_query($node, 'SELECT finance.expire_holds()', '0', 'expire_holds() does not wait');
$holder->query_safe('COMMIT');
expires($blocked, 'once it is free, its hold is given back');

$blocked = blocked_hold();
poll_ok($node, "SELECT status = 'expired' FROM finance.hold WHERE hold_id = $blocked",
	'a hold is over');
is_query($node, status_of($blocked), 'open', 'and cannot be given back');
$node->stop('immediate');
$node->start;
expires($blocked, 'after a restart the worker looks at once');
is_query($node, status_of($future), 'open', 'and leaves what is not over');
$holder->{run}->kill_kill;

# ------------------------------------------------------------------------
# holds that nobody can expire
# ------------------------------------------------------------------------

sql(
	q{CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN
		IF NEW.status = 'expired' AND NEW.amount::numeric = 13 THEN
			RAISE 'an unlucky number';
		END IF;
		RETURN NULL;
	END $$},
	'CREATE TRIGGER poison AFTER INSERT ON finance.transfer FOR EACH ROW EXECUTE FUNCTION poison()'
);
my @poisoned = map { hold('ann', 'shop', 13, '1 millisecond') } 1 .. 2;
my @good = map { hold('ann', 'shop', $_, '1 millisecond') } 20 .. 25;
push @good, hold('ann', 'shop', 13.5, '1 millisecond', $as_other);
expires($_, 'a hold beside poisoned ones') foreach @good;
poll_ok(
	$node,
	"SELECT last_error = 'an unlucky number' AND state = 'running' FROM finance.workers WHERE database = 'postgres'",
	'the worker tells of them');
is_query($node, status_of($_), 'open', 'they stay open') foreach @poisoned;
like(
	slurp_file($node->logfile),
	qr/LOG:  hold $poisoned[0] of tenant 0 could not be expired: an unlucky number/,
	'so does the log');
my ($code, $out, $err) = $node->psql('postgres', 'SELECT finance.expire_holds()');
like($err, qr/an unlucky number/, 'who asks for it sees the error');
is_query($node, "SELECT status FROM finance.transfer('ann', 'bank', 1)", 'completed',
	'and money moves on');
sql('DROP TRIGGER poison ON finance.transfer');
expires($_, 'it is tried again') foreach @poisoned;

# constraints that wait for the commit are checked hold by hold
sql(
	'CREATE TABLE ran (tenant text)',
	q{CREATE OR REPLACE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN
		IF NEW.status = 'expired' THEN
			IF NEW.amount::numeric = 13 THEN RAISE 'too late'; END IF;
			INSERT INTO public.ran VALUES (current_setting('finance.tenant'));
			SET finance.tenant = 77;
			SET application_name = 'trigger';
		END IF;
		RETURN NULL;
	END $$},
	'CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON finance.transfer DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION poison()'
);
@poisoned = (hold('ann', 'shop', 13, '1 millisecond'));
@good = (
	hold('ann', 'shop', 30, '1 millisecond'),
	hold('ann', 'shop', 31, '1 millisecond', $as_other),
	hold('ann', 'shop', 32, '1 millisecond'));
expires($_, 'a hold beside one whose constraint is deferred') foreach @good;
poll_ok(
	$node,
	"SELECT last_error = 'too late' FROM finance.workers WHERE database = 'postgres'",
	'which the worker tells of');
is_query($node, 'SELECT tenant, count(*) FROM ran GROUP BY 1 ORDER BY 1',
	"0|2\n$tenant|1", 'deferred triggers run in the tenant, and what they set is undone');
is_query($node,
	"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'trigger'",
	'0', 'all of it');
sql('DROP TRIGGER poison ON finance.transfer');
expires($poisoned[0], 'it is tried again');

# ------------------------------------------------------------------------
# prepared transactions, found by a sweep
# ------------------------------------------------------------------------

sql("SELECT finance.create_queue('all')", "SELECT finance.bind_topic('transfer.*', 'all')");
$node->append_conf('postgresql.conf', "finance.sweep_interval = 1\n");
$node->reload;
my $before = sql("SELECT count(*) FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id) WHERE q.name = 'all'");
sql(
	'TRUNCATE made',
	'BEGIN',
	"INSERT INTO made SELECT id FROM finance.hold('ann', 'shop', 9, expires_in => '1 millisecond')",
	"INSERT INTO made SELECT id FROM finance.hold('ann', 'shop', 8, expires_in => '1 hour')",
	'SELECT c.status FROM (SELECT max(hold_id) AS id FROM made) AS m, finance.capture(m.id, 3) AS c',
	"SELECT finance.send('all', '{}')",
	"PREPARE TRANSACTION 'held'");
is_query($node, 'SELECT count(*) FROM made', '0', 'holds are prepared');
$node->restart;
is_query($node, 'SELECT gid FROM pg_prepared_xacts', 'held', 'over a restart');
is($node->psql('postgres', "SET lock_timeout = '100ms'; SELECT finance.transfer('ann', 'bank', 1)"),
	3, 'and keep their accounts');
sql("COMMIT PREPARED 'held'");
my ($over, $open) = split /\n/, sql('SELECT hold_id FROM made ORDER BY 1');
expires($over, 'a hold of a prepared transaction');
is_query($node, "SELECT status, captured, remaining FROM finance.hold WHERE hold_id = $open",
	'open|3.00|5.00', 'beside one that lasts, captured in part');
is_query($node,
	"SELECT count(*) - $before FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id) WHERE q.name = 'all'",
	'5', 'and their messages');
is_query($node, "SELECT status, hold_remaining FROM finance.capture($open, final => true)",
	'completed|0.00', 'which somebody else captures');

# ------------------------------------------------------------------------
# not preloaded
# ------------------------------------------------------------------------

is_sound($node, 'expiry');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
$made = hold('ann', 'shop', 1, '1 millisecond');
poll_ok($node, "SELECT status = 'expired' FROM finance.hold WHERE hold_id = $made",
	'without the worker a hold is over all the same');
is_query($node, status_of($made), 'open', 'but not given back');
is_query($node, 'SELECT finance.expire_holds()', '1', 'until somebody asks');
is_query($node, "SELECT held FROM finance.account WHERE code = 'bank'", '0.00', 'nothing else is held');
is_sound($node, 'without the worker');

$node->stop;
done_testing();
