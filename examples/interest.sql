-- interest.sql: at the end of a day, interest for 10,000 savings accounts: to
-- the cent, in batches, and never twice, even if it is interrupted.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/interest.sql interest
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

-- This bank's days begin at midnight UTC.
SET TIME ZONE 'UTC';

-- ------------------------------------------------------------------------
-- The accounts
-- ------------------------------------------------------------------------

-- What earns interest is an account type of its own.
SELECT finance.create_account_type('savings', 'credit', 'savings accounts');

-- Interest is an expense of the bank; from "interest due" the savers are paid,
-- and what rounding leaves there goes to "rounding", in either direction.
SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('interest', 'EUR', 'expense', min_available => NULL) AS interest,
	finance.create_account('interest due', 'EUR', min_available => NULL) AS due,
	finance.create_account('rounding', 'EUR', 'income', min_available => NULL) AS rounding;

SELECT count(finance.create_account('saver-' || to_char(n, 'FM00000'), 'EUR', 'savings'))
	AS opened
FROM generate_series(1, 10000) AS n;
--> 10000

-- Their money is brought in from the bank's old system, with its old dates:
-- a deposit for each on 1 December, between 1.00 and 10,001.02.
SELECT count(*) AS imported, sum(amount) AS amount
FROM finance.import_transfers(ARRAY(
	SELECT finance.request('bank', 'saver-' || to_char(n, 'FM00000'),
		1 + (n * 7919 % 1000003) / 100.0, type => 'opening',
		idempotency_key => 'opening/' || n,
		recorded_at => '2025-12-01')
	FROM generate_series(1, 10000) AS n));
--> 10000 | 49914220.06

-- ------------------------------------------------------------------------
-- 31 December: what is due
-- ------------------------------------------------------------------------

-- 2.5 % a year, a 365th of it each day, on what was there at midnight.  What
-- was recorded before midnight does not change any more, so this list may be
-- made at any time after it, and made again: it comes out the same.
CREATE TABLE interest_due (
	day		date,
	account	text,
	part	integer NOT NULL,		-- the batch it is paid in
	balance	numeric NOT NULL,
	amount	numeric NOT NULL,		-- what the saver gets, in cents
	PRIMARY KEY (day, account)
);

SELECT clock_timestamp() AS started \gset

INSERT INTO interest_due
SELECT day, code,
	1 + (row_number() OVER (ORDER BY code) - 1) / 2500,
	balance,
	round(balance * 0.025 / 365, 2)
FROM (
	SELECT date '2025-12-31' AS day, code,
		finance.balance_at(code, timestamptz '2026-01-01') AS balance
	FROM finance.account
	WHERE type = 'savings') AS at_midnight
ON CONFLICT DO NOTHING;

SELECT count(*) AS accounts, sum(balance) AS balance, sum(amount) AS amount
FROM interest_due WHERE day = '2025-12-31';
--> 10000 | 49914220.06 | 3418.62

-- The bank's expense is the interest on the whole sum, rounded once.
SELECT status, amount
FROM finance.transfer('interest', 'interest due',
	(SELECT round(sum(balance) * 0.025 / 365, 2)
	 FROM interest_due WHERE day = '2025-12-31'),
	type => 'interest', idempotency_key => 'interest/2025-12-31');
--> completed | 3418.78

-- ------------------------------------------------------------------------
-- Paid in batches
-- ------------------------------------------------------------------------

-- One call pays one part of the list: up to 10,000 requests at a time, each
-- with a key for this account and this day.  (to_char, because how a date
-- turns to text by itself depends on a setting, and a key must not.)  Some have
-- so little that it earns less than half a cent, and are left out.
CREATE FUNCTION pay_part(on_day date, which integer,
	OUT paid bigint, OUT already_paid bigint, OUT failed bigint)
LANGUAGE sql
BEGIN ATOMIC
	SELECT count(*) FILTER (WHERE NOT replayed),
		count(*) FILTER (WHERE replayed),
		count(*) FILTER (WHERE error IS NOT NULL)
	FROM finance.transfer_batch(ARRAY(
		SELECT finance.request('interest due', account, amount,
			type => 'interest',
			idempotency_key => 'interest/' || to_char(day, 'YYYY-MM-DD') || '/' || account)
		FROM interest_due
		WHERE day = on_day AND part = which AND amount > 0
		ORDER BY account));
END;

-- The whole list: each part commits by itself, so that nobody waits for long.
CREATE PROCEDURE pay_interest(on_day date)
LANGUAGE plpgsql AS $$
DECLARE
	parts integer := (SELECT max(part) FROM interest_due WHERE day = on_day);
	answer record;
BEGIN
	FOR n IN 1 .. parts LOOP
		SELECT * INTO answer FROM pay_part(on_day, n);
		COMMIT;
		RAISE NOTICE 'part %: % paid, % were paid already, % failed',
			n, answer.paid, answer.already_paid, answer.failed;
	END LOOP;
END $$;

-- The first part is paid.  The second one is on its way when the lights go
-- out, before it could commit.
SELECT * FROM pay_part('2025-12-31', 1);
--> 2483 | 0 | 0

BEGIN;
SELECT * FROM pay_part('2025-12-31', 2);
--> 2482 | 0 | 0
ROLLBACK;

-- The lights are on again.  Nobody has to find out how far it had come: the
-- whole list once more, and what was paid says so.
CALL pay_interest('2025-12-31');
--> NOTICE:  part 1: 0 paid, 2483 were paid already, 0 failed
--> NOTICE:  part 2: 2482 paid, 0 were paid already, 0 failed
--> NOTICE:  part 3: 2481 paid, 0 were paid already, 0 failed
--> NOTICE:  part 4: 2483 paid, 0 were paid already, 0 failed

SELECT round(extract(epoch FROM clock_timestamp() - :'started'), 1) AS seconds \gset
\echo The day''s interest was computed and paid in :seconds seconds.

-- And once more, because somebody was not sure.
CALL pay_interest('2025-12-31');
--> NOTICE:  part 1: 0 paid, 2483 were paid already, 0 failed
--> NOTICE:  part 2: 0 paid, 2482 were paid already, 0 failed
--> NOTICE:  part 3: 0 paid, 2481 were paid already, 0 failed
--> NOTICE:  part 4: 0 paid, 2483 were paid already, 0 failed

-- ------------------------------------------------------------------------
-- What rounding left
-- ------------------------------------------------------------------------

-- Each saver got whole cents, so the sum is not quite the bank's expense.  The
-- difference is booked, from or to "interest due", which then is at zero.
SELECT from_account, to_account, amount
FROM finance.account,
	finance.transfer(
		CASE WHEN balance > 0 THEN 'interest due' ELSE 'rounding' END,
		CASE WHEN balance > 0 THEN 'rounding' ELSE 'interest due' END,
		abs(balance), type => 'adjustment',
		idempotency_key => 'interest/2025-12-31/rounding')
WHERE code = 'interest due' AND balance <> 0;
--> interest due | rounding | 0.16

DO $$
BEGIN
	-- nobody was paid twice, and nobody was left out
	ASSERT (SELECT bool_and(a.balance = d.balance + d.amount)
		FROM interest_due d JOIN finance.account a ON a.code = d.account);
	ASSERT (SELECT count(*) = 10000 FROM interest_due);
	ASSERT finance.balance('interest due') = 0;
	-- the expense is what the savers got, and what rounding left
	ASSERT -finance.balance('interest') = finance.balance('rounding')
		+ (SELECT sum(amount) FROM interest_due);
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
