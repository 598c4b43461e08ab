-- loan.sql: a loan from the day it is paid out to the day it is written off:
-- interest, a late fee, repayments that pay the fee first.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/loan.sql loan
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

-- ------------------------------------------------------------------------
-- The accounts
-- ------------------------------------------------------------------------

-- Expense and income are what makes the lender's profit, assets are what it
-- has or is owed, liabilities are what it owes.
SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('income/interest', 'EUR', 'income') AS interest,
	finance.create_account('income/fees', 'EUR', 'income') AS fees,
	finance.create_account('expense/losses', 'EUR', 'expense', min_available => NULL) AS losses;

-- Frank's current account, and his loan: what he owes the lender is an asset
-- of the lender, so it stands below zero: -5000.00 is a debt of 5000.00.
--   max_balance => 0          he cannot pay back more than he owes
--   min_available => -5000    and not owe more than was agreed
-- Principal, interest and fees are kept apart; 'loan/7' sums them up, and takes
-- no money itself.
SELECT finance.create_account('frank', 'EUR') AS frank,
	finance.create_account('loan/7', 'EUR', 'asset', max_balance => 0,
		metadata => '{"customer": "frank", "rate": 0.06}') AS loan;
SELECT finance.create_account('loan/7/principal', 'EUR', 'asset',
		min_available => -5000, max_balance => 0, parent => 'loan/7') AS principal,
	finance.create_account('loan/7/interest', 'EUR', 'asset',
		min_available => NULL, max_balance => 0, parent => 'loan/7') AS interest,
	finance.create_account('loan/7/fees', 'EUR', 'asset',
		min_available => NULL, max_balance => 0, parent => 'loan/7') AS fees;

-- ------------------------------------------------------------------------
-- Paid out
-- ------------------------------------------------------------------------

SELECT status, from_balance, to_balance
FROM finance.transfer('loan/7/principal', 'frank', 5000.00, type => 'loan',
	idempotency_key => 'loan/7/paid-out');
--> completed | -5000.00 | 5000.00

-- Frank buys a car with it.
SELECT from_balance
FROM finance.transfer('frank', 'bank', 4900.00, type => 'withdrawal',
	reference => 'car');
--> 100.00

-- ------------------------------------------------------------------------
-- January: interest is due, and Frank pays his 250.00
-- ------------------------------------------------------------------------

-- 6 % a year, a twelfth of it each month: the lender has earned it now.
SELECT amount, from_balance, to_balance
FROM finance.transfer('loan/7/interest', 'income/interest',
	round(5000.00 * 0.06 / 12, 2), type => 'interest',
	idempotency_key => 'loan/7/interest/2026-01');
--> 25.00 | -25.00 | 25.00

SELECT to_balance
FROM finance.transfer('bank', 'frank', 250.00, type => 'deposit',
	reference => 'salary');
--> 350.00

-- A repayment pays fees first, then interest, and the rest is principal.
-- The money goes to an account of its own, and from there as much as each of
-- the three still owes: up_to without an amount is stopped by their
-- max_balance of 0.  One that is owed nothing answers with an error of its
-- own (LG006), and does not stop the others.
SELECT finance.create_account('loan/7/received', 'EUR') AS received;

CREATE FUNCTION repay(payment text, paid numeric)
RETURNS TABLE ("to" text, amount numeric, still_owed numeric, error text)
LANGUAGE sql
BEGIN ATOMIC
	SELECT r.to_account, r.amount, -r.to_balance, r.error
	FROM finance.transfer_batch(ARRAY[
		finance.request('frank', 'loan/7/received', paid,
			type => 'repayment', idempotency_key => payment),
		finance.request('loan/7/received', 'loan/7/fees', amount_mode => 'up_to',
			type => 'repayment', idempotency_key => payment || '/fees'),
		finance.request('loan/7/received', 'loan/7/interest', amount_mode => 'up_to',
			type => 'repayment', idempotency_key => payment || '/interest'),
		finance.request('loan/7/received', 'loan/7/principal', amount_mode => 'up_to',
			type => 'repayment', idempotency_key => payment || '/principal')
	]) AS r
	WHERE r.position > 1;
END;

SELECT * FROM repay('loan/7/repaid/2026-01', 250.00);
--> loan/7/fees |  |  | LG006
--> loan/7/interest | 25.00 | 0.00 |
--> loan/7/principal | 225.00 | 4775.00 |

-- ------------------------------------------------------------------------
-- February: he is late
-- ------------------------------------------------------------------------

SELECT amount
FROM finance.transfer('loan/7/interest', 'income/interest',
	round(4775.00 * 0.06 / 12, 2), type => 'interest',
	idempotency_key => 'loan/7/interest/2026-02');
--> 23.88

-- A late fee.  The type fee only goes to an account of income: a mistake in
-- the account's name would be refused.
SELECT status, amount
FROM finance.transfer('loan/7/fees', 'income/fees', 15.00, type => 'fee',
	reference => 'late', idempotency_key => 'loan/7/late/2026-02');
--> completed | 15.00

DO $$
BEGIN
	PERFORM finance.transfer('loan/7/fees', 'frank', 15.00, type => 'fee');
	ASSERT false, 'a fee was given to the customer';
EXCEPTION WHEN SQLSTATE 'LG017' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  a transfer of type "fee" may not go to an account of type "liability"

-- All he owes.
SELECT -balance AS owed FROM finance.rollup('loan/7');
--> 4813.88

-- He pays the 100.00 he has.
SELECT * FROM repay('loan/7/repaid/2026-02', 100.00);
--> loan/7/fees | 15.00 | 0.00 |
--> loan/7/interest | 23.88 | 0.00 |
--> loan/7/principal | 61.12 | 4713.88 |

-- ------------------------------------------------------------------------
-- Written off
-- ------------------------------------------------------------------------

-- Frank is bankrupt, and 3000.00 is what the court leaves the lender.
SELECT status, -to_balance AS still_owed
FROM finance.transfer('bank', 'loan/7/principal', 3000.00, type => 'repayment',
	reference => 'court 12/7', idempotency_key => 'loan/7/court');
--> completed | 1713.88

-- The rest is lost, whatever it is: an adjustment of up to the whole loan makes
-- it a loss, and the account's max_balance of 0 stops it where nothing is owed.
SELECT status, amount, to_balance
FROM finance.transfer('expense/losses', 'loan/7/principal', 5000.00,
	amount_mode => 'up_to', type => 'adjustment',
	reference => 'written off', idempotency_key => 'loan/7/written-off');
--> completed | 1713.88 | 0.00

-- The loan's accounts can be closed, and its history stays.
SELECT code, finance.close_account(code, reason => 'written off') AS version
FROM unnest(ARRAY['loan/7/fees', 'loan/7/interest', 'loan/7/principal',
	'loan/7/received', 'loan/7']) AS code;

SELECT type, change, balance, reference
FROM finance.statement('loan/7/principal') WHERE line = 'entry';
--> loan | -5000.00 | -5000.00 |
--> repayment | 225.00 | -4775.00 |
--> repayment | 61.12 | -4713.88 |
--> repayment | 3000.00 | -1713.88 | court 12/7
--> adjustment | 1713.88 | 0.00 | written off

-- The lender's books: earned 63.88, lost 1713.88, and 1650.00 less at the bank
-- than if there had been no loan.
SELECT code, type, debit, credit FROM finance.trial_balance() ORDER BY code;
--> bank | asset | 0.00 | 1650.00
--> expense/losses | expense | 1713.88 | 0.00
--> income/fees | income | 0.00 | 15.00
--> income/interest | income | 0.00 | 48.88

DO $$
BEGIN
	ASSERT finance.balance('frank') = 0;
	ASSERT finance.balance('loan/7/principal') = 0;
	ASSERT finance.balance('expense/losses') = -1713.88;
	ASSERT finance.balance('bank') = 1650.00;
	ASSERT (SELECT bool_and(status = 'closed') FROM finance.account
		WHERE code LIKE 'loan/7%');
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
