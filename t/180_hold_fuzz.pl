# Holds made, captured, released and expired at random by many sessions and the
# worker at once: no money is spent twice, and nothing is left in the end.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time() % 100000;
my $node = book_node('main');
my $steps = 300 * soak();

diag("seed $seed; FIN_SEED=$seed repeats it");
open_accounts($node, 'bank');
$node->safe_psql('postgres', q{
	SELECT finance.create_account('a' || n, 'EUR', max_balance => CASE WHEN n > 6 THEN 300 END)
	FROM generate_series(1, 8) AS n;
	SELECT finance.transfer('bank', 'a' || n, 250) FROM generate_series(1, 8) AS n;
	SELECT finance.create_queue('all');
	SELECT finance.bind_topic('#', 'all');
});

# One step, told by numbers: what, two accounts, an amount, which hold.  What
# the rules refuse is an answer; anything else, a deadlock among it, ends it.
$node->safe_psql('postgres', q{
CREATE TABLE answer (what text, answer text);
CREATE FUNCTION span(n integer) RETURNS interval LANGUAGE sql AS
$$ SELECT CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN interval '1 hour' ELSE n % 40 * interval '1 ms' + interval '1 ms' END $$;
CREATE FUNCTION pick(n integer) RETURNS bigint LANGUAGE sql AS
$$ SELECT hold_id FROM finance._hold WHERE status = 'open' ORDER BY hold_id
	OFFSET n % greatest((SELECT count(*) FROM finance._hold WHERE status = 'open'), 1) LIMIT 1 $$;
CREATE FUNCTION step(w integer, a integer, b integer, n integer, h integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	source text := 'a' || a;
	target text := 'a' || CASE WHEN b >= a THEN b + 1 ELSE b END;
	amount numeric := n / 100.0;
	chosen bigint := pick(h);
	what text;
BEGIN
	what := CASE WHEN w < 30 THEN 'hold' WHEN w < 50 THEN 'capture' WHEN w < 60 THEN 'release'
		WHEN w < 66 THEN 'expire' WHEN w < 80 THEN 'transfer' WHEN w < 98 THEN 'batch' ELSE 'check' END;
	BEGIN
		CASE what
		WHEN 'hold' THEN
			PERFORM finance.hold(source, target, amount, expires_in => span(h), amount_mode => CASE WHEN h % 3 = 0 THEN 'up_to' ELSE 'exact' END,
				hold_group => CASE WHEN h % 5 = 0 THEN 'g' END);
		WHEN 'capture' THEN
			PERFORM finance.capture(chosen, CASE WHEN h % 3 > 0 THEN amount END, final => h % 4 = 0);
		WHEN 'release' THEN
			PERFORM finance.release(chosen, CASE WHEN h % 3 > 0 THEN amount END);
		WHEN 'expire' THEN
			PERFORM finance.expire_holds(1 + h % 20);
		WHEN 'transfer' THEN
			PERFORM finance.transfer(source, target, amount, amount_mode => CASE WHEN h % 3 = 0 THEN 'up_to' ELSE 'exact' END);
		WHEN 'batch' THEN
			INSERT INTO answer SELECT 'in batch', coalesce(error, status) FROM finance.transfer_batch(ARRAY[
				finance.request(source, target, amount, action => 'hold', expires_in => span(h), linked => h % 2 = 0),
				finance.request(action => 'capture', hold_id => chosen, amount => amount, linked => h % 3 = 0),
				finance.request(target, source, amount, linked => h % 5 = 0),
				finance.request(action => 'release', hold_id => pick(h + 1)),
				finance.request(action => 'capture', hold_id => pick(h + 2), final => true)], atomic => h % 7 = 0);
		WHEN 'check' THEN
			IF EXISTS (SELECT FROM finance.check_integrity())
				OR EXISTS (SELECT FROM finance.hold WHERE captured + released > hold.amount OR remaining < 0)
				OR EXISTS (SELECT FROM finance.account WHERE available < min_available OR balance + credits_pending > max_balance)
			THEN
				RAISE 'the book is unsound: %', (SELECT string_agg(i::text, '; ') FROM finance.check_integrity() AS i);
			END IF;
		END CASE;
		INSERT INTO answer VALUES (what, 'ok');
	EXCEPTION
		WHEN SQLSTATE 'LG001' OR SQLSTATE 'LG006' OR SQLSTATE 'LG013' OR SQLSTATE 'LG016' OR SQLSTATE '22004' THEN
			INSERT INTO answer VALUES (what, SQLSTATE);
	END;
END $$;
});

bench_ok(
	$node, 'sessions at once, none in a deadlock', q{
\set w random(0, 99)
\set a random(1, 8)
\set b random(1, 7)
\set n random(1, 9000)
\set h random(0, 1000000)
SELECT step(:w, :a, :b, :n, :h);
}, '-c', 8, '-j', 2, '-t', $steps, "--random-seed=$seed");

is_sound($node, 'after the storm');
is_query($node,
	q{SELECT count(*) > 0 FROM finance.transfer WHERE status = 'expired'},
	't', 'there were holds that expired');
is_query(
	$node,
	q{SELECT string_agg(w.what || ' ' || w.answer, ', ') FROM (VALUES ('hold', 'ok'), ('hold', 'LG001'), ('capture', 'ok'),
	('capture', 'LG016'), ('release', 'ok'), ('expire', 'ok'), ('transfer', 'ok'), ('transfer', 'LG001'), ('check', 'ok'),
	('in batch', 'held'), ('in batch', 'completed'), ('in batch', 'LG014')) AS w (what, answer)
	WHERE NOT EXISTS (SELECT FROM answer a WHERE a.what = w.what AND a.answer = w.answer)},
	'', 'all of it happened');
is_query($node,
	q{SELECT count(*) FROM finance.transfer t JOIN finance._hold h USING (hold_id) WHERE t.status = 'completed' AND h.expires_at <= t.recorded_at - interval '1 second'},
	'0', 'nothing was captured after its time');

# to the end: what expires by the worker, what does not by hand
poll_ok($node,
	q{SELECT count(*) = 0 FROM finance._hold WHERE status = 'open' AND expires_at <= clock_timestamp()},
	'the worker gives back what is over');
$node->safe_psql('postgres',
	q{SELECT count(r.id) FROM finance._hold h CROSS JOIN LATERAL finance.release(h.hold_id) AS r WHERE h.status = 'open'});
is_query($node,
	q{SELECT count(*) FROM finance._hold WHERE status = 'open' OR captured + released <> amount},
	'0', 'no hold is left open');
is_query($node,
	q{SELECT sum(debits_pending), sum(credits_pending), sum(balance) FROM finance.account},
	'0.00|0.00|0.00', 'nothing is pending');
is_query(
	$node,
	q{SELECT count(*) FROM finance._hold h LEFT JOIN (SELECT hold_id, sum(amount) FILTER (WHERE status = 'completed') AS captured
	FROM finance.transfer GROUP BY 1) t USING (hold_id) WHERE h.captured <> coalesce(t.captured, 0) OR t.captured > h.amount},
	'0', 'what was captured is what was posted');
is_sound($node, 'in the end');

$node->stop;
done_testing();
