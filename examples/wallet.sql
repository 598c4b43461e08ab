-- wallet.sql: customers' wallets: top up, pay, send what is left, withdraw.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/wallet.sql wallet
--
-- Lines that begin with --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

-- ------------------------------------------------------------------------
-- The accounts
-- ------------------------------------------------------------------------

-- Each transfer takes an amount from one account and gives it to another, so
-- money that enters or leaves the book needs an account for the world outside.
-- Here that is the company's account at its bank: an asset.  A balance is
-- credits minus debits, so an asset's is negative: -100.00 says that the
-- company has 100.00 there.  min_available => NULL lets it go below zero.
SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('fees', 'EUR', 'income') AS fees;

-- A wallet is a liability, which is the default: the company owes that money
-- to its customer.  It never goes below zero, which is the default as well.
SELECT finance.create_account('alice', 'EUR') AS alice,
	finance.create_account('bob', 'EUR') AS bob;

-- ------------------------------------------------------------------------
-- Top up and pay
-- ------------------------------------------------------------------------

-- Alice sends 100.00 to the company's bank account.  The bank's own number of
-- that payment is the idempotency key: reading the bank's list twice is safe.
SELECT status, from_balance, to_balance
FROM finance.transfer('bank', 'alice', 100.00, type => 'deposit',
	idempotency_key => 'bank/2201-7');
--> completed | -100.00 | 100.00

-- She pays her part of a dinner.  The application made the key when Alice
-- pressed the button, and stored it before it called.
SELECT status, from_balance, to_balance, replayed
FROM finance.transfer('alice', 'bob', 12.50, type => 'payment',
	reference => 'dinner', idempotency_key => 'payment/4711');
--> completed | 87.50 | 12.50 | f

-- The answer got lost on its way, and the application asks again: the same
-- key and the same request get the same answer.  No money moves.
SELECT status, from_balance, to_balance, replayed
FROM finance.transfer('alice', 'bob', 12.50, type => 'payment',
	reference => 'dinner', idempotency_key => 'payment/4711');
--> completed | 87.50 | 12.50 | t

-- She cannot spend what she does not have.
DO $$
BEGIN
	PERFORM finance.transfer('alice', 'bob', 1000.00, type => 'payment');
	ASSERT false, 'Alice has spent more than she had';
EXCEPTION WHEN SQLSTATE 'LG001' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  insufficient funds in account "alice"

-- ------------------------------------------------------------------------
-- Several transfers that belong together
-- ------------------------------------------------------------------------

-- Sending money at once costs 0.50.  In one transaction, Alice is never
-- charged for a payment that was not made.
BEGIN;
SELECT status, from_balance
FROM finance.transfer('alice', 'bob', 20.00, type => 'payment',
	idempotency_key => 'payment/4712');
--> completed | 67.50
SELECT status, from_balance
FROM finance.transfer('alice', 'fees', 0.50, type => 'fee',
	idempotency_key => 'payment/4712/fee');
--> completed | 67.00
COMMIT;

-- ------------------------------------------------------------------------
-- A lost phone
-- ------------------------------------------------------------------------

-- Nothing leaves Alice's wallet any more, but Bob can still pay her.
SELECT finance.set_account_status('alice', 'debits_frozen', 'phone lost') AS version;

DO $$
BEGIN
	PERFORM finance.transfer('alice', 'bob', 1.00);
	ASSERT false, 'a frozen wallet has paid';
EXCEPTION WHEN SQLSTATE 'LG004' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  account "alice" is frozen for debits

SELECT status, to_balance FROM finance.transfer('bob', 'alice', 5.00);
--> completed | 72.00

SELECT finance.set_account_status('alice', 'active', 'phone found') AS version;

-- ------------------------------------------------------------------------
-- Leaving
-- ------------------------------------------------------------------------

-- Bob withdraws all he has, whatever that is: up_to without an amount.
SELECT amount, from_balance, to_balance
FROM finance.transfer('bob', 'bank', NULL, amount_mode => 'up_to',
	type => 'withdrawal', idempotency_key => 'withdrawal/98');
--> 27.50 | 0.00 | -72.50

-- His wallet is empty, so it can be closed, for ever.
SELECT finance.close_account('bob', reason => 'customer''s wish') AS version;
SELECT status FROM finance.account WHERE code = 'bob';
--> closed

-- ------------------------------------------------------------------------
-- What the company sees
-- ------------------------------------------------------------------------

-- Alice's statement, ready for her screen.
SELECT line, type, change, balance, counterparty, reference
FROM finance.statement('alice');
--> opening |  |  | 0.00 |  |
--> entry | deposit | 100.00 | 100.00 | bank |
--> entry | payment | -12.50 | 87.50 | bob | dinner
--> entry | payment | -20.00 | 67.50 | bob |
--> entry | fee | -0.50 | 67.00 | fees |
--> entry | transfer | 5.00 | 72.00 | bob |
--> closing |  |  | 72.00 |  |

-- What is at the bank belongs to Alice, but for the fee.
SELECT code, type, debit, credit FROM finance.trial_balance();
--> bank | asset | 72.50 | 0.00
--> fees | income | 0.00 | 0.50
--> alice | liability | 0.00 | 72.00

DO $$
BEGIN
	ASSERT finance.balance('alice') = 72.00;
	ASSERT finance.balance('bob') = 0;
	ASSERT finance.balance('fees') = 0.50;
	ASSERT finance.balance('bank') = -72.50;
END $$;

-- The whole book adds up: each balance is the sum of its transfers.
SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
