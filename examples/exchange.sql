-- exchange.sql: a currency desk: euros for dollars and back at a stated rate,
-- and what becomes of the fractions of a cent.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/exchange.sql exchange
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

-- ------------------------------------------------------------------------
-- The accounts
-- ------------------------------------------------------------------------

-- An account holds one currency, so a customer with two has two, and the desk
-- has its stock of each: the liquidity accounts.
SELECT finance.create_account('bank/eur', 'EUR', 'asset', min_available => NULL) AS bank_eur,
	finance.create_account('bank/usd', 'USD', 'asset', min_available => NULL) AS bank_usd,
	finance.create_account('desk/eur', 'EUR', 'equity') AS desk_eur,
	finance.create_account('desk/usd', 'USD', 'equity') AS desk_usd;

-- What rounding leaves.  It can be more or less than nothing.
SELECT finance.create_account('rounding/usd', 'USD', 'income', min_available => NULL) AS rounding;

SELECT finance.create_account('hana/eur', 'EUR') AS hana_eur,
	finance.create_account('hana/usd', 'USD') AS hana_usd;

-- The owner puts in a stock, and Hana brings her euros.
SELECT to_account, to_balance
FROM (VALUES ('bank/usd', 'desk/usd', 10000.00),
	('bank/eur', 'hana/eur', 500.00)) AS v (source, target, sum),
	finance.transfer(source, target, sum, type => 'deposit');
--> desk/usd | 10000.00
--> hana/eur | 500.00

-- ------------------------------------------------------------------------
-- Buy dollars
-- ------------------------------------------------------------------------

-- 100.00 EUR at 1.08347 are 108.347 USD.  Hana gets 108.35, and the desk has
-- given 0.003 too much.  Each currency stays in balance by itself: euros go
-- from Hana to the desk, dollars from the desk to Hana, in one journal.
SELECT from_account, to_account, amount, currency, to_balance
FROM finance.exchange('hana/eur', 'hana/usd', 100.00, rate => 1.08347,
	liquidity_from => 'desk/eur', liquidity_to => 'desk/usd',
	rounding_account => 'rounding/usd', idempotency_key => 'fx/301');
--> hana/eur | desk/eur | 100.00 | EUR | 100.00
--> desk/usd | hana/usd | 108.35 | USD | 108.35

-- The same once more.  Each rounding is kept, exactly, and they add up.
SELECT count(*)
FROM finance.exchange('hana/eur', 'hana/usd', 100.00, rate => 1.08347,
	liquidity_from => 'desk/eur', liquidity_to => 'desk/usd',
	rounding_account => 'rounding/usd', idempotency_key => 'fx/302');
--> 2

-- 49.00 EUR are 53.09003 USD.  rounding => 'down' keeps fractions for the desk;
-- half_even, the default, is for neither side.
SELECT amount, currency
FROM finance.exchange('hana/eur', 'hana/usd', 49.00, rate => 1.08347,
	liquidity_from => 'desk/eur', liquidity_to => 'desk/usd', rounding => 'down',
	rounding_account => 'rounding/usd', idempotency_key => 'fx/303');
--> 49.00 | EUR
--> 53.09 | USD

-- With the fourth it is more than a cent, and that cent is booked: a third
-- transfer of the journal takes it from the rounding account.
SELECT from_account, to_account, amount, currency
FROM finance.exchange('hana/eur', 'hana/usd', 10.09, rate => 1.08347,
	liquidity_from => 'desk/eur', liquidity_to => 'desk/usd', rounding => 'up',
	rounding_account => 'rounding/usd', idempotency_key => 'fx/304');
--> hana/eur | desk/eur | 10.09 | EUR
--> desk/usd | hana/usd | 10.94 | USD
--> rounding/usd | desk/usd | 0.01 | USD

-- What was agreed, what was bought, and what rounding did, for each exchange.
SELECT amount, rate, exact, bought, difference, carried
FROM finance.exchange ORDER BY journal_id;
--> 100.00 | 1.08347 | 108.347 | 108.35 | -0.003 | 0.00
--> 100.00 | 1.08347 | 108.347 | 108.35 | -0.003 | 0.00
--> 49.00 | 1.08347 | 53.09003 | 53.09 | 0.00003 | 0.00
--> 10.09 | 1.08347 | 10.9322123 | 10.94 | -0.0077877 | -0.01

-- Nothing is lost: what was booked and what is still less than a cent is the
-- sum of all differences.
DO $$
BEGIN
	ASSERT (SELECT sum(difference) FROM finance.exchange) =
		finance.balance('rounding/usd')
		+ (SELECT sum(residue) FROM finance.exchange_residue);
END $$;

-- ------------------------------------------------------------------------
-- And back
-- ------------------------------------------------------------------------

-- Hana sells 50.00 USD; the desk buys them for less than it sells.
SELECT from_account, to_account, amount, currency, to_balance
FROM finance.exchange('hana/usd', 'hana/eur', 50.00, rate => 0.91,
	liquidity_from => 'desk/usd', liquidity_to => 'desk/eur',
	idempotency_key => 'fx/305');
--> hana/usd | desk/usd | 50.00 | USD | 9769.28
--> desk/eur | hana/eur | 45.50 | EUR | 286.41

-- The desk has no more euros than it has taken in.
DO $$
BEGIN
	PERFORM finance.exchange('hana/usd', 'hana/eur', 230.00, rate => 0.95,
		liquidity_from => 'desk/usd', liquidity_to => 'desk/eur');
	ASSERT false, 'the desk has sold what it had not';
EXCEPTION WHEN SQLSTATE 'LG001' THEN
	RAISE NOTICE '%', SQLERRM;
END $$;
--> NOTICE:  insufficient funds in account "desk/eur"

-- ------------------------------------------------------------------------
-- Hana's statements
-- ------------------------------------------------------------------------

SELECT line, type, change, balance, counterparty
FROM finance.statement('hana/eur');
--> opening |  |  | 0.00 |
--> entry | deposit | 500.00 | 500.00 | bank/eur
--> entry | exchange | -100.00 | 400.00 | desk/eur
--> entry | exchange | -100.00 | 300.00 | desk/eur
--> entry | exchange | -49.00 | 251.00 | desk/eur
--> entry | exchange | -10.09 | 240.91 | desk/eur
--> entry | exchange | 45.50 | 286.41 | desk/eur
--> closing |  |  | 286.41 |

SELECT line, type, change, balance, counterparty
FROM finance.statement('hana/usd');
--> opening |  |  | 0.00 |
--> entry | exchange | 108.35 | 108.35 | desk/usd
--> entry | exchange | 108.35 | 216.70 | desk/usd
--> entry | exchange | 53.09 | 269.79 | desk/usd
--> entry | exchange | 10.94 | 280.73 | desk/usd
--> entry | exchange | -50.00 | 230.73 | desk/usd
--> closing |  |  | 230.73 |

-- Each currency is a book in balance.
SELECT currency, sum(debit) AS debit, sum(credit) AS credit
FROM finance.trial_balance() GROUP BY currency ORDER BY currency;
--> EUR | 500.00 | 500.00
--> USD | 10000.01 | 10000.01

DO $$
BEGIN
	ASSERT finance.balance('hana/eur') = 286.41;
	ASSERT finance.balance('hana/usd') = 230.73;
	ASSERT finance.balance('rounding/usd') = -0.01;
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
