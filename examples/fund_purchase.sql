-- fund_purchase.sql: a saver's cash is parked in a money market fund, and from
-- there buys a share fund: two purchases that are one for the saver.
--
--     psql -X -v ON_ERROR_STOP=1 -f examples/fund_purchase.sql fund
--
-- wallet.sql explains what is used here without a word.  Lines that begin with
-- --> are what the statement above them prints.

CREATE EXTENSION IF NOT EXISTS finance;

-- ------------------------------------------------------------------------
-- The accounts
-- ------------------------------------------------------------------------

-- Units of a fund are counted like money: a currency each, of 4 decimals.
SELECT finance.create_currency('PARK', 4, 'units of the money market fund'),
	finance.create_currency('WORLD', 4, 'units of the share fund');

-- A fund has the cash it manages, and the units it has issued: that account
-- goes below zero, and says by how much how many units there are.
SELECT finance.create_account('bank', 'EUR', 'asset', min_available => NULL) AS bank,
	finance.create_account('park/cash', 'EUR') AS park_cash,
	finance.create_account('park/units', 'PARK', 'asset', min_available => NULL) AS park_units,
	finance.create_account('world/cash', 'EUR') AS world_cash,
	finance.create_account('world/units', 'WORLD', 'asset', min_available => NULL) AS world_units;

-- The saver has an account for each.
SELECT finance.create_account('eva/cash', 'EUR') AS cash,
	finance.create_account('eva/park', 'PARK') AS park,
	finance.create_account('eva/world', 'WORLD') AS world;

SELECT to_balance
FROM finance.transfer('bank', 'eva/cash', 1500.00, type => 'deposit',
	idempotency_key => 'bank/2204-1');
--> 1500.00

-- ------------------------------------------------------------------------
-- Two steps as one
-- ------------------------------------------------------------------------

-- A unit of PARK is 1 euro, a unit of WORLD 24.80 today.  For 1000.00:
--
--   1. buy PARK     1000.00 EUR        eva/cash    -> park/cash
--                   1000.0000 PARK     park/units  -> eva/park
--   2. buy WORLD    1000.0000 PARK     eva/park    -> park/units
--                   1000.00 EUR        park/cash   -> world/cash
--                   40.3225 WORLD      world/units -> eva/world
--
-- This is a batch, each request linked to the next, and not a journal: a
-- journal sees an account once, on one side, while here step 2 spends what
-- step 1 has brought.  Linked requests are carried out one after the other,
-- each with a type and a key of its own, and stand or fall together.
--
-- Units are rounded down, so that none is given that was not paid for.
CREATE FUNCTION buy_world(order_no text, saver text, cash numeric, price numeric)
RETURNS SETOF finance.batch_result
LANGUAGE sql
BEGIN ATOMIC
	SELECT r.* FROM finance.transfer_batch(ARRAY[
		finance.request(saver || '/cash', 'park/cash', cash,
			type => 'purchase', idempotency_key => order_no || '/1', linked => true),
		finance.request('park/units', saver || '/park', cash,
			type => 'purchase', idempotency_key => order_no || '/2', linked => true),
		finance.request(saver || '/park', 'park/units', cash,
			type => 'redemption', idempotency_key => order_no || '/3', linked => true),
		finance.request('park/cash', 'world/cash', cash,
			type => 'purchase', idempotency_key => order_no || '/4', linked => true),
		finance.request('world/units', saver || '/world', trunc(cash / price, 4),
			type => 'purchase', idempotency_key => order_no || '/5')
	]) AS r;
END;

-- ------------------------------------------------------------------------
-- The second step fails: then there was no first one
-- ------------------------------------------------------------------------

-- The share fund issues no units for the moment.
SELECT finance.set_account_status('world/units', 'debits_frozen',
	'exchange closed') AS version;

-- The request that could not be done says why (LG004), and the others that
-- another member of their chain failed (LG014).
SELECT position, status, error, message
FROM buy_world('order/77', 'eva', 1000.00, 24.80);
--> 1 | failed | LG014 | another request of the chain failed
--> 2 | failed | LG014 | another request of the chain failed
--> 3 | failed | LG014 | another request of the chain failed
--> 4 | failed | LG014 | another request of the chain failed
--> 5 | failed | LG004 | account "world/units" is frozen for debits

-- Eva has her money, and no units of the fund she wanted only on the way.
SELECT code, balance, version FROM finance.account
WHERE code LIKE 'eva/%' ORDER BY code;
--> eva/cash | 1500.00 | 1
--> eva/park | 0 | 0
--> eva/world | 0 | 0

-- ------------------------------------------------------------------------
-- The fund opens again, and the same order goes through
-- ------------------------------------------------------------------------

SELECT finance.set_account_status('world/units', 'active', 'open') AS version;

-- What failed has left no key behind, so the order keeps its keys.
SELECT position, status, amount, currency, from_account, to_account
FROM buy_world('order/77', 'eva', 1000.00, 24.80);
--> 1 | completed | 1000.00 | EUR | eva/cash | park/cash
--> 2 | completed | 1000.0000 | PARK | park/units | eva/park
--> 3 | completed | 1000.0000 | PARK | eva/park | park/units
--> 4 | completed | 1000.00 | EUR | park/cash | world/cash
--> 5 | completed | 40.3225 | WORLD | world/units | eva/world

-- Asked once more, it tells that it was done, and does nothing.
SELECT count(*) FILTER (WHERE replayed) AS replayed
FROM buy_world('order/77', 'eva', 1000.00, 24.80);
--> 5

SELECT code, balance FROM finance.account
WHERE code LIKE 'eva/%' ORDER BY code;
--> eva/cash | 500.00
--> eva/park | 0.0000
--> eva/world | 40.3225

-- ------------------------------------------------------------------------
-- Redemption: 10 units back to cash, at 25.10
-- ------------------------------------------------------------------------

-- This is a journal.  No account is on both sides, and all of it is one thing,
-- under one id and one key; a journal may have legs of several currencies, and
-- adds up in each of them.
SELECT amount, currency, from_account, to_account, to_balance
FROM finance.journal(ARRAY[
		finance.leg('eva/world', 'debit', 10.0000),
		finance.leg('world/units', 'credit', 10.0000),
		finance.leg('world/cash', 'debit', 251.00),
		finance.leg('eva/cash', 'credit', 251.00)],
	type => 'redemption', reference => '10 units at 25.10',
	idempotency_key => 'order/78');
--> 10.0000 | WORLD | eva/world | world/units | -30.3225
--> 251.00 | EUR | world/cash | eva/cash | 751.00

-- ------------------------------------------------------------------------
-- The fund's books
-- ------------------------------------------------------------------------

-- Units issued are units held by savers; cash is at the bank.
SELECT currency, code, debit, credit
FROM finance.trial_balance() ORDER BY currency, code;
--> EUR | bank | 1500.00 | 0.00
--> EUR | eva/cash | 0.00 | 751.00
--> EUR | world/cash | 0.00 | 749.00
--> WORLD | eva/world | 0.0000 | 30.3225
--> WORLD | world/units | 30.3225 | 0.0000

DO $$
BEGIN
	ASSERT finance.balance('eva/cash') = 751.00;
	ASSERT finance.balance('eva/park') = 0;
	ASSERT finance.balance('eva/world') = 30.3225;
	ASSERT finance.balance('park/cash') = 0;
	ASSERT finance.balance('world/cash') = 749.00;
END $$;

SELECT count(*) AS breaches FROM finance.check_integrity() \gset
\echo :breaches breaches
--> 0 breaches
