-- card.sql: payments by card: authorised first, captured later in one or more
-- parts, released, expired, refunded.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/card.sql card
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('gina', 'EUR') AS gina,
	finance.create_account('hotel', 'EUR') AS hotel,
	finance.create_account('petrol', 'EUR') AS petrol;

SELECT to_balance
FROM finance.transfer('bank', 'gina', 1000.00, type => 'deposit');
--> 1000.00

-- ------------------------------------------------------------------------
-- Authorised: the money stays hers, but she cannot spend it twice
-- ------------------------------------------------------------------------

-- The hotel asks for 400.00, good for seven days.  The card network's number
-- of the request is the key, because networks repeat themselves.
SELECT hold_id AS stay, status, from_balance, from_available
FROM finance.hold('gina', 'hotel', 400.00, expires_in => '7 days',
	type => 'payment', reference => 'two nights',
	idempotency_key => 'auth/530021') \gset

\echo :status :from_balance :from_available
--> held 1000.00 600.00

SELECT balance, held, available FROM finance.account WHERE code = 'gina';
--> 1000.00 | 400.00 | 600.00

-- 600.00 is what she has for everything else.
DO $$
BEGIN
	PERFORM finance.hold('gina', 'petrol', 600.01);
	ASSERT false, 'held money was held a second time';
EXCEPTION WHEN SQLSTATE 'LG001' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  insufficient funds in account "gina"

-- ------------------------------------------------------------------------
-- Captured in parts
-- ------------------------------------------------------------------------

-- Each night is captured when it is over.  What is left stays held.
SELECT status, amount, to_balance, hold_remaining
FROM finance.capture(:stay, 150.00, reference => 'first night',
	idempotency_key => 'capture/530021/1');
--> completed | 150.00 | 150.00 | 250.00

SELECT status, amount, to_balance, hold_remaining
FROM finance.capture(:stay, 150.00, reference => 'second night',
	idempotency_key => 'capture/530021/2');
--> completed | 150.00 | 300.00 | 100.00

-- The mini bar is the last of it: final gives the rest back to Gina.
SELECT id AS mini_bar, status, amount, hold_remaining, from_balance, from_available
FROM finance.capture(:stay, 18.50, final => true, reference => 'mini bar',
	idempotency_key => 'capture/530021/3') \gset

\echo :status :amount :hold_remaining :from_balance :from_available
--> completed 18.50 0.00 681.50 681.50

SELECT status, amount, captured, released, remaining
FROM finance.hold WHERE hold_id = :stay;
--> captured | 400.00 | 318.50 | 81.50 | 0.00

-- A fourth capture comes too late.  In a batch the answer is a row, where a
-- call of its own would raise.
SELECT status, error
FROM finance.transfer_batch(ARRAY[
	finance.request(action => 'capture', hold_id => :stay, amount => 5.00)]);
--> failed | LG013

-- ------------------------------------------------------------------------
-- One request, one capture: a petrol pump
-- ------------------------------------------------------------------------

-- Nobody knows the price before: 100.00 is held, 62.40 captured.
SELECT hold_id AS pump
FROM finance.hold('gina', 'petrol', 100.00, expires_in => '2 hours',
	type => 'payment', idempotency_key => 'auth/530022') \gset

SELECT status, from_balance, from_available
FROM finance.capture(:pump, 62.40, final => true,
	idempotency_key => 'capture/530022/1');
--> completed | 619.10 | 619.10

-- Never more than was authorised.
SELECT hold_id AS pump
FROM finance.hold('gina', 'petrol', 50.00, expires_in => '2 hours',
	type => 'payment', idempotency_key => 'auth/530023') \gset

SELECT status, error
FROM finance.transfer_batch(ARRAY[
	finance.request(action => 'capture', hold_id => :pump, amount => 50.01)]);
--> failed | LG016

-- She drives on without: released.
SELECT status, amount, from_available
FROM finance.release(:pump, reference => 'no petrol',
	idempotency_key => 'release/530023');
--> released | 50.00 | 619.10

-- ------------------------------------------------------------------------
-- Expired: a hotel that she never came to
-- ------------------------------------------------------------------------

SELECT hold_id AS no_show
FROM finance.hold('gina', 'hotel', 200.00, expires_in => '7 days',
	type => 'payment', idempotency_key => 'auth/530024') \gset

-- Eight days later.  (Only a superuser can turn this clock, and only that of
-- one session: it is there for tests.)
SELECT set_config('finance.test_clock', (now() + '8 days')::text, false) <> '' AS later;

-- From that moment on the hold is over for everybody, whether the background
-- worker has been there yet or not.
SELECT status, remaining FROM finance.hold WHERE hold_id = :no_show;
--> expired | 0.00

SELECT status, error
FROM finance.transfer_batch(ARRAY[
	finance.request(action => 'capture', hold_id => :no_show)]);
--> failed | LG013

-- The worker gives expired holds back by itself.  It goes by the real clock,
-- so here we do what it does.
SELECT finance.expire_holds() AS expired;
--> 1

SELECT balance, held, available FROM finance.account WHERE code = 'gina';
--> 619.10 | 0.00 | 619.10

RESET finance.test_clock;

-- ------------------------------------------------------------------------
-- Refunded
-- ------------------------------------------------------------------------

-- A bottle on the bill for the mini bar was not hers.  A reversal belongs to
-- the capture it gives back from.
SELECT status, amount, from_balance, to_balance
FROM finance.reverse_transfer(:mini_bar, 6.50, reason => 'not hers',
	idempotency_key => 'refund/530021/1');
--> completed | 6.50 | 312.00 | 625.60

-- Of 18.50 there is 12.00 left; to give back 12.01 more is refused.
DO $$
DECLARE
	mini_bar bigint;
BEGIN
	SELECT transfer_id INTO STRICT mini_bar
	FROM finance.idempotency_key WHERE key = 'capture/530021/3';

	PERFORM finance.reverse_transfer(mini_bar, 12.01);
	ASSERT false, 'more was given back than was captured';
EXCEPTION WHEN SQLSTATE 'LG016' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;

SELECT amount FROM finance.reversals(:mini_bar);
--> 6.50

-- ------------------------------------------------------------------------
-- The history of one authorisation
-- ------------------------------------------------------------------------

SELECT status, amount, released, from_balance, from_held, reference
FROM finance.transfer
WHERE id = :stay OR hold_id = :stay ORDER BY id;
--> held | 400.00 |  | 1000.00 | 400.00 | two nights
--> completed | 150.00 |  | 850.00 | 250.00 | first night
--> completed | 150.00 |  | 700.00 | 100.00 | second night
--> completed | 18.50 | 81.50 | 681.50 |  | mini bar

DO $$
BEGIN
	ASSERT finance.balance('gina') = 1000.00 - 300.00 - 18.50 - 62.40 + 6.50;
	ASSERT finance.balance('hotel') = 300.00 + 18.50 - 6.50;
	ASSERT finance.balance('petrol') = 62.40;
	ASSERT NOT EXISTS (SELECT FROM finance.hold WHERE remaining > 0);
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
