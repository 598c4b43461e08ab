# Everything that moves money, by many clients at once in each isolation level:
# all they meet is 40001, which they try again, and what they were answered is
# what the book says.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $node = book_node('main', "log_statement = none\n");
my $clients = 8;

$node->safe_psql(
	'postgres', q(
SELECT finance.create_account('acc' || n, 'EUR', min_available => CASE WHEN n > 2 THEN -200 END, max_balance => CASE WHEN n = 4 THEN 300 END)
	FROM generate_series(1, 4) n;
SELECT finance.create_account('usd' || n, 'USD', min_available => NULL) FROM generate_series(1, 2) n;
SELECT finance.create_account('cents', 'USD', min_available => NULL);
SELECT finance.create_account('pool', 'EUR', min_available => NULL);
SELECT finance.add_rule('cap', 'transfer_limit', 95);

-- what callers were answered, committed with it
CREATE TABLE answer (kind integer, code text, change numeric, held numeric);
CREATE TABLE refused (kind integer, state text);

CREATE FUNCTION note(kind integer, r finance.transfer_result) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF r.replayed THEN
		INSERT INTO answer VALUES (note.kind, 'replayed');
		RETURN;
	END IF;
	IF r.status = 'rejected' THEN
		INSERT INTO refused VALUES (note.kind, 'rejected');
		RETURN;
	END IF;
	INSERT INTO answer
		SELECT note.kind, v.code, CASE r.status WHEN 'completed' THEN v.amount ELSE 0 END,
			-- what a capture gives back besides is told by what remains
			CASE WHEN v.amount > 0 THEN 0 WHEN r.status = 'held' THEN r.amount WHEN r.hold_id IS NOT NULL THEN -r.amount ELSE 0 END
		FROM (VALUES (r.from_account, -r.amount), (r.to_account, r.amount)) v (code, amount);
END $$;

-- one request; what may happen to it is refused, and all else raised
CREATE FUNCTION work(kind integer, n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	f text := 'acc' || 1 + n % 4;
	t text := 'acc' || 1 + (n + 1 + n % 3) % 4;
	p text := CASE WHEN 'pool' IN (f, t) THEN f ELSE 'pool' END;
	amount numeric := 1 + n % 100;
	chosen bigint;
BEGIN
	CASE kind
	WHEN 0 THEN
		PERFORM note(kind, ROW(id, status, b.amount, currency, from_account, from_version, from_balance, from_available, to_account, to_version,
				to_balance, to_available, recorded_at, trace_id, rule, replayed, hold_id, hold_remaining, journal_id, token)::finance.transfer_result)
			FROM finance.transfer_batch(ARRAY[finance.request(f, t, amount, linked => true), finance.request(t, p, 1),
				finance.request(p, f, 10, amount_mode => 'up_to'), finance.request(f, t, 2, action => 'hold', hold_group => 'g' || n % 5)]) b
			WHERE error IS NULL AND status <> 'failed';
	WHEN 1 THEN
		PERFORM note(kind, r) FROM finance.journal(ARRAY[finance.leg(f, 'debit', amount), finance.leg(t, 'credit', amount - 0.5), finance.leg(p, 'credit', 0.5)]) r;
	WHEN 2 THEN
		PERFORM note(kind, r) FROM finance.hold(f, t, amount, hold_group => 'g' || n % 5) r;
	WHEN 3, 4 THEN
		SELECT hold_id INTO chosen FROM finance.hold WHERE status = 'open' ORDER BY hold_id % (n + 7) LIMIT 1;
		IF kind = 3 THEN
			PERFORM note(kind, r) FROM finance.capture(chosen, 1) r;
		ELSE
			PERFORM note(kind, r) FROM finance.release(chosen) r;
		END IF;
	WHEN 5 THEN
		PERFORM note(kind, r) FROM finance.capture_group('g' || n % 5) r;
	WHEN 6 THEN
		SELECT id INTO chosen FROM finance.transfer WHERE type = 'transfer' AND status = 'completed' ORDER BY id % (n + 7) LIMIT 1;
		PERFORM note(kind, r) FROM finance.reverse_transfer(chosen, 1) r;
	WHEN 7 THEN
		PERFORM note(kind, r) FROM finance.exchange(f, 'usd1', amount, 1.00 + (n % 1000) * 0.0001, 'pool', 'usd2', rounding_account => 'cents') r;
	WHEN 8 THEN
		PERFORM note(kind, r) FROM finance.distribute('pool', ARRAY[f, t], ARRAY[n, 3], 10) r;
	WHEN 9 THEN
		PERFORM finance.lock_accounts(ARRAY['acc1', 'acc2', 'acc3', 'acc4']);
		PERFORM note(kind, r) FROM finance.transfer(f, t, 1, effective_at => '2030-01-01'::timestamptz + n % 5 * interval '1 day') r;
		PERFORM note(kind, r) FROM finance.transfer(t, f, 2, amount_mode => 'up_to') r;
	WHEN 10 THEN
		-- each key is one request
		PERFORM note(kind, r) FROM finance.transfer('acc1', 'acc2', 1 + n % 20, idempotency_key => current_setting('work.level') || n % 20) r;
	WHEN 11 THEN
		PERFORM finance.set_account_limits('acc3', -100 - n % 200, NULL);
	END CASE;
EXCEPTION WHEN SQLSTATE 'LG001' OR SQLSTATE 'LG006' OR SQLSTATE 'LG012' OR SQLSTATE 'LG013' OR SQLSTATE 'LG016' OR SQLSTATE '22004' OR SQLSTATE '55000' THEN
	INSERT INTO refused VALUES (kind, SQLSTATE);
END $$;
));

sub check
{
	my ($name) = @_;

	is_query(
		$node,
		q(SELECT a.code, a.balance, b.change FROM finance.account a
			LEFT JOIN (SELECT code, sum(change) AS change FROM answer GROUP BY 1) b USING (code)
			WHERE a.balance <> coalesce(b.change, 0)),
		'',
		"$name: balances are what callers were answered");
	is_query(
		$node,
		q(SELECT a.code, a.held, b.held FROM finance.account a
			LEFT JOIN (SELECT code, sum(held) AS held FROM answer GROUP BY 1) b USING (code)
			WHERE a.held <> coalesce(b.held, 0)),
		'',
		"$name: so is what is held");
	is_query($node,
		'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
		'0', "$name: no deadlock");
	is_sound($node, $name);
}

foreach my $level ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
{
	my $each = ($level eq 'READ COMMITTED' ? 100 : 30) * $soak;

	$node->safe_psql('postgres', 'TRUNCATE refused');
	my $done = $node->safe_psql('postgres', 'SELECT count(*) FROM answer');
	my $out = bench_ok(
		$node,
		"$clients clients, $level",
		qq(
\\set kind random(0, 11)
\\set n random(1, 100000)
BEGIN ISOLATION LEVEL $level;
SET LOCAL work.level = '$level';
SELECT work(:kind, :n);
COMMIT;
),
		'-c', $clients, '-t', $each, '--max-tries', 100000,
		'--random-seed', 20261121);

	like($out, qr/number of failed transactions: 0 /, "$level: none failed for good");
	if ($level ne 'READ COMMITTED')
	{
		like($out, qr/number of transactions retried: [1-9]/,
			"$level: some met another and were tried again");
	}
	is_query($node,
		"SELECT count(DISTINCT kind) FROM answer", '11', "$level: something of everything")
	  if $level eq 'READ COMMITTED';
	is_query($node, "SELECT count(*) > $done FROM answer", 't',
		"$level: requests were carried out");
	check($level);
}
is_query(
	$node,
	q(SELECT count(*) FROM (SELECT key FROM finance.idempotency_key EXCEPT
		SELECT l || n FROM unnest('{READ COMMITTED,REPEATABLE READ,SERIALIZABLE}'::text[]) l, generate_series(0, 19) n) x),
	'0',
	'no key but those that were used');

$node->stop;
done_testing();
