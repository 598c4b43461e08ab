-- marketplace.sql: a marketplace that keeps the buyer's money until the goods
-- have arrived, takes a commission, and pays its sellers.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/marketplace.sql market
--
-- Two ways to keep the money are shown: in an escrow account of the
-- marketplace, and held in the buyer's wallet.  wallet.sql explains what is
-- used here without a word.  Lines that begin with --> are what is printed.

CREATE EXTENSION IF NOT EXISTS finance;

SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('escrow', 'EUR') AS escrow,
	finance.create_account('commission', 'EUR', 'income') AS commission,
	finance.create_account('marketing', 'EUR', 'expense', min_available => NULL) AS marketing;

SELECT finance.create_account('pottery', 'EUR') AS pottery,
	finance.create_account('bakery', 'EUR') AS bakery,
	finance.create_account('garden', 'EUR') AS garden,
	finance.create_account('dana', 'EUR') AS dana;

-- ------------------------------------------------------------------------
-- Escrow: order 1001, paid by card, 120.00 for a vase of the pottery
-- ------------------------------------------------------------------------

-- 1. The card company pays.  The money is in the book, and nobody's yet.
SELECT status, to_account, to_balance
FROM finance.transfer('bank', 'escrow', 120.00, type => 'deposit',
	reference => 'order 1001', idempotency_key => 'order/1001/paid');
--> completed | escrow | 120.00

-- 2. The vase has arrived.  A journal gives 90 % to the seller and 10 % to the
-- marketplace; its legs must add up to nothing, or it is refused as a whole.
SELECT from_account, to_account, amount, journal_id
FROM finance.journal(ARRAY[
		finance.leg('escrow', 'debit', 120.00),
		finance.leg('pottery', 'credit', 108.00),
		finance.leg('commission', 'credit', 12.00)],
	reference => 'order 1001', idempotency_key => 'order/1001/delivered');

SELECT code, balance FROM finance.account
WHERE code IN ('escrow', 'pottery', 'commission') ORDER BY code;
--> commission | 12.00
--> escrow | 0.00
--> pottery | 108.00

-- 3. The buyer sends it back.  Reversing the journal takes the money from the
-- seller and the commission from ourselves, and from escrow it is refunded.
-- A journal has the id of its first transfer, which its key leads to.
SELECT transfer_id AS delivered
FROM finance.idempotency_key WHERE key = 'order/1001/delivered' \gset

BEGIN;
SELECT from_account, to_account, amount
FROM finance.reverse_journal(:delivered, reason => 'sent back',
	idempotency_key => 'order/1001/sent-back');
--> commission | escrow | 12.00
--> pottery | escrow | 108.00
SELECT status, from_balance
FROM finance.transfer('escrow', 'bank', 120.00, type => 'refund',
	reference => 'order 1001', idempotency_key => 'order/1001/refund');
--> completed | 0.00
COMMIT;

DO $$
BEGIN
	ASSERT finance.balance('pottery') = 0;
	ASSERT finance.balance('commission') = 0;
	ASSERT finance.balance('bank') = 0;
END $$;

-- ------------------------------------------------------------------------
-- Holds: order 1002, paid from a wallet, a basket from two sellers
-- ------------------------------------------------------------------------

SELECT to_balance
FROM finance.transfer('bank', 'dana', 200.00, type => 'deposit',
	idempotency_key => 'bank/2203-1');
--> 200.00

-- 1. Dana orders bread for 40.00 and a rose for 60.00; 10 % of each is ours.
-- Nothing has moved yet, but she cannot spend it elsewhere.  The four holds
-- are a group, and end by themselves if nothing is delivered for two weeks.
SELECT h.position, h.status, h.amount, h.to_account, h.from_available
FROM finance.transfer_batch(ARRAY(
	SELECT finance.request('dana', seller, amount, action => 'hold',
		type => 'payment', expires_in => '14 days', hold_group => 'order/1002',
		idempotency_key => 'order/1002/' || item)
	FROM (VALUES
		(1, 'bread', 'bakery', 36.00), (2, 'bread-fee', 'commission', 4.00),
		(3, 'rose', 'garden', 54.00), (4, 'rose-fee', 'commission', 6.00))
		AS basket (line, item, seller, amount)
	ORDER BY line), atomic => true) AS h;
--> 1 | held | 36.00 | bakery | 164.00
--> 2 | held | 4.00 | commission | 160.00
--> 3 | held | 54.00 | garden | 106.00
--> 4 | held | 6.00 | commission | 100.00

SELECT balance, held, available FROM finance.account WHERE code = 'dana';
--> 200.00 | 100.00 | 100.00

-- 2. All has arrived: one call takes all four, or none.  What we want to
-- remember of it, rows of our own, commits together with the money.
CREATE TABLE sale (
	order_no	integer,
	account		text,
	amount		numeric,
	transfer_id	bigint PRIMARY KEY
);
INSERT INTO sale
SELECT 1002, to_account, amount, id
FROM finance.capture_group('order/1002', reference => 'order 1002');

SELECT account, amount FROM sale ORDER BY transfer_id;
--> bakery | 36.00
--> commission | 4.00
--> garden | 54.00
--> commission | 6.00

-- Order 1003 was cancelled before anything was sent: it is all released.
SELECT status
FROM finance.hold('dana', 'bakery', 25.00, type => 'payment',
	hold_group => 'order/1003', idempotency_key => 'order/1003/cake');
--> held
SELECT status, amount, from_available
FROM finance.release_group('order/1003', reference => 'cancelled');
--> released | 25.00 | 100.00

-- ------------------------------------------------------------------------
-- Refund a part: one of the six rolls was burnt
-- ------------------------------------------------------------------------

-- The bakery gives back 5.40 and we our share of it, 0.60.  A reversal knows
-- what it reverses; more than the whole can never be given back.
SELECT transfer_id AS bread FROM sale
WHERE account = 'bakery' \gset
SELECT transfer_id AS bread_fee FROM sale
WHERE account = 'commission' AND amount = 4.00 \gset

BEGIN;
SELECT status, from_balance, to_balance
FROM finance.reverse_transfer(:bread, 5.40, reason => 'burnt',
	idempotency_key => 'order/1002/refund');
--> completed | 30.60 | 105.40
SELECT status, from_balance, to_balance
FROM finance.reverse_transfer(:bread_fee, 0.60, reason => 'burnt',
	idempotency_key => 'order/1002/refund-fee');
--> completed | 9.40 | 106.00
COMMIT;

-- ------------------------------------------------------------------------
-- A bonus for the sellers
-- ------------------------------------------------------------------------

-- 10.00, shared equally.  Where it does not divide, the cents left over go
-- round from the first on, so that the parts add up to 10.00 exactly.
SELECT to_account, amount
FROM finance.distribute('marketing', ARRAY['bakery', 'garden', 'pottery'],
	weights => ARRAY[1, 1, 1], amount => 10.00,
	reference => 'bonus for March', idempotency_key => 'bonus/2026-03');
--> bakery | 3.34
--> garden | 3.33
--> pottery | 3.33

-- ------------------------------------------------------------------------
-- Pay the sellers
-- ------------------------------------------------------------------------

-- Everything each of them has, in one call.  One that has nothing would be
-- answered with LG001, and would not stop the others.
SELECT p.from_account, p.status, p.amount, p.from_balance
FROM finance.transfer_batch(ARRAY(
	SELECT finance.request(seller, 'bank', amount_mode => 'up_to',
		type => 'withdrawal', idempotency_key => 'payout/2026-03/' || seller)
	FROM unnest(ARRAY['bakery', 'garden', 'pottery']) AS seller)) AS p;
--> bakery | completed | 33.94 | 0.00
--> garden | completed | 57.33 | 0.00
--> pottery | completed | 3.33 | 0.00

-- What is at the bank is Dana's money and what we have earned.
SELECT type, balance FROM finance.balance_sheet();
--> asset | 105.40
--> expense | 10.00
--> income | 9.40
--> liability | 106.00

DO $$
BEGIN
	ASSERT finance.balance('dana') = 106.00;
	ASSERT finance.balance('escrow') = 0;
	ASSERT finance.balance('commission') = 9.40;
	ASSERT finance.balance('bank') = -105.40;
	ASSERT NOT EXISTS (SELECT FROM finance.hold WHERE status = 'open');
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
