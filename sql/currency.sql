-- Currencies: what is seeded, what can be added, and what cannot.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;

-- what an attempt ends in
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''));
END $$;

-- ------------------------------------------------------------------------
-- ISO 4217
-- ------------------------------------------------------------------------

SELECT minor_units, count(*) FROM finance.currency WHERE iso GROUP BY 1 ORDER BY 1;
SELECT count(*), count(*) FILTER (WHERE code ~ '^[A-Z]{3}$') AS of_three_letters,
	count(*) FILTER (WHERE name = '') AS unnamed
FROM finance.currency WHERE iso;

-- those that are not of two decimals
SELECT minor_units, string_agg(code, ' ' ORDER BY code COLLATE "C")
FROM finance.currency WHERE iso AND minor_units <> 2 GROUP BY 1 ORDER BY 1;
SELECT code, minor_units, name FROM finance.currency
WHERE code IN ('JPY', 'KWD', 'CLF', 'EUR', 'USD', 'ISK', 'BHD', 'UYW')
ORDER BY code COLLATE "C";

-- no longer currencies, metals, and codes for testing
SELECT code FROM finance.currency
WHERE code IN ('DEM', 'HRK', 'ZWL', 'XAU', 'XTS', 'XXX', 'SLL', 'CUC', 'ANG', 'BGN');

-- ------------------------------------------------------------------------
-- own currencies
-- ------------------------------------------------------------------------

SELECT finance.create_currency('CY-POINTS', 0, 'loyalty points');
SELECT finance.create_currency(code => 'CY.ETH', minor_units => 18);
SELECT finance.create_currency('CYABCDEFGHIJKL_6', 7);
SELECT finance.create_currency('9CY', 1);
SELECT code, minor_units, name, iso FROM finance.currency
WHERE code LIKE '%CY%' AND NOT iso ORDER BY code COLLATE "C";
SELECT operation, status, request FROM finance.audit_record
WHERE request->>'code' LIKE '%CY%' AND operation = 'create_currency' ORDER BY id;

-- amounts of eighteen decimals and of none, to the last digit
SELECT finance.create_tenant('currency test') AS tenant \gset
SET finance.tenant = :tenant;
SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('cy eth 1', 'CY.ETH'), ('cy eth 2', 'CY.ETH'),
	('cy jpy 1', 'JPY'), ('cy jpy 2', 'JPY')) AS a (code, currency);
SELECT amount, from_balance, to_balance
FROM finance.transfer('cy eth 1', 'cy eth 2', 12345678901234567890.123456789012345678);
SELECT amount, from_balance, to_balance
FROM finance.transfer('cy eth 2', 'cy eth 1', 0.000000000000000001);
SELECT amount, from_balance, to_balance
FROM finance.transfer('cy eth 2', 'cy eth 1', 99999999999999999999.999999999999999999);
SELECT amount, from_balance, to_balance
FROM finance.transfer('cy jpy 1', 'cy jpy 2', 99999999999999999999999999999999999999);
-- noughts are no decimals; the amount comes back with those of the currency
SELECT amount FROM finance.transfer('cy jpy 2', 'cy jpy 1', 5.0000000000000000000000000);
SELECT amount FROM finance.transfer('cy eth 1', 'cy eth 2', 1);

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

SELECT what, pg_temp.attempt('SELECT finance.create_currency(' || arguments || ')')
FROM (VALUES
	(1, 'taken', '''EUR'', 2'),
	(2, 'taken by an own one', '''CY.ETH'', 18'),
	(3, 'more than 18 decimals', '''CY19'', 19'),
	(4, 'fewer than no decimals', '''CY-1'', -1'),
	(5, 'null decimals', '''CYNULL'', NULL'),
	(6, 'null code', 'NULL, 2'),
	(7, 'empty code', ''''', 2'),
	(8, '17 characters', '''CYABCDEFGHIJKL_17'', 2'),
	(9, 'small letters', '''cyx'', 2'),
	(10, 'starts with a dot', '''.CY'', 2'),
	(11, 'space', '''C Y'', 2'),
	(12, 'newline', 'E''CY\n'', 2'),
	(13, 'not ASCII', 'U&''CY\00C9'', 2'),
	(14, 'empty name', '''CYNAME'', 2, '''''),
	(15, 'control character in the name', '''CYNAME'', 2, E''a\x1fb''')
) AS t (n, what, arguments) ORDER BY n;
SELECT count(*) FROM finance.currency WHERE code LIKE '%CY%' AND NOT iso;

-- rolled back, it is not there
BEGIN;
SELECT finance.create_currency('CYGONE', 2);
ROLLBACK;
SELECT pg_temp.attempt('SELECT finance.create_account(''cy gone'', ''CYGONE'')');

-- accounts of a currency count on its decimals, so it never changes
UPDATE finance.currency SET minor_units = 3 WHERE code = 'EUR';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance.currency WHERE code = 'CY-POINTS';
\echo :LAST_ERROR_SQLSTATE
SET client_min_messages = warning;
TRUNCATE finance.currency CASCADE;
\echo :LAST_ERROR_SQLSTATE
SET session_replication_role = replica;
DELETE FROM finance.currency WHERE code = 'CY-POINTS';
\echo :LAST_ERROR_SQLSTATE
RESET session_replication_role;

SELECT * FROM finance.check_integrity();
