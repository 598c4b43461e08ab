-- Accounts: defaults, limits, the status machine, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('account test') AS tenant \gset
SET finance.tenant = :tenant;

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')), '\m\d{17,19}\M', '<id>', 'g');
END $$;

-- everything there is, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key,
		audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- ------------------------------------------------------------------------
-- create_account
-- ------------------------------------------------------------------------

SELECT finance.create_account('plain', 'EUR') > 0 AS has_id;
SELECT finance.create_account('source', 'EUR', 'equity', NULL) > 0 AS has_id;
SELECT finance.create_account(code => 'overdraft', currency => 'EUR', type => 'asset',
	min_available => -100.5, max_balance => 1000, metadata => '{"owner": 7}') > 0 AS has_id;
SELECT finance.create_account('full from the start', 'JPY', max_balance => 0) > 0 AS has_id;
SELECT code, currency, type, status, balance, held, available, min_available, max_balance,
	debits_posted, credits_posted, debits_pending, credits_pending, version, metadata,
	created_at <= clock_timestamp() AND created_at > clock_timestamp() - interval '1 hour' AS created,
	finance.id_time(account_id) <= clock_timestamp() AS id_of_now
FROM finance.account WHERE tenant_id = :tenant ORDER BY code COLLATE "C" \gx
SELECT finance.balance('plain');
SELECT operation, status, currency, request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'create_account' ORDER BY id;

-- the longest there may be, in bytes
SELECT finance.create_account_type(repeat('t', 63), 'credit');
SELECT finance.create_account(repeat(U&'\00E9', 64), 'EUR', repeat('t', 63)) > 0 AS has_id;

SELECT what, pg_temp.attempt('SELECT finance.create_account(' || arguments || ')')
FROM (VALUES
	(1, 'code taken', '''plain'', ''EUR'''),
	(2, 'code taken, otherwise different', '''plain'', ''JPY'', ''asset'''),
	(3, 'unknown currency', '''a1'', ''XXX'''),
	(4, 'currency in small letters', '''a1'', ''eur'''),
	(5, 'null code', 'NULL, ''EUR'''),
	(6, 'null currency', '''a1'', NULL'),
	(7, 'null type', '''a1'', ''EUR'', NULL'),
	(8, 'empty code', ''''', ''EUR'''),
	(9, 'empty currency', '''a1'', '''''),
	(10, 'empty type', '''a1'', ''EUR'', '''''),
	(11, 'code of 129 bytes', 'repeat(''a'', 129), ''EUR'''),
	(12, 'code of 65 characters in 130 bytes', 'repeat(U&''\00E9'', 65), ''EUR'''),
	(13, 'currency of 17 bytes', '''a1'', repeat(''A'', 17)'),
	(14, 'type of 64 bytes', '''a1'', ''EUR'', repeat(''t'', 64)'),
	(15, 'newline in the code', 'E''a\n1'', ''EUR'''),
	(16, 'delete in the code', 'E''a\x7f'', ''EUR'''),
	(17, 'tab in the type', '''a1'', ''EUR'', E''\t'''),
	(18, 'floor above zero', '''a1'', ''EUR'', min_available => 0.01'),
	(19, 'ceiling below zero', '''a1'', ''EUR'', max_balance => -0.01'),
	(20, 'floor is not a number', '''a1'', ''EUR'', min_available => ''NaN'''),
	(21, 'infinite floor', '''a1'', ''EUR'', min_available => ''-Infinity'''),
	(22, 'infinite ceiling', '''a1'', ''EUR'', max_balance => ''Infinity'''),
	(23, 'ceiling is not a number', '''a1'', ''EUR'', max_balance => ''NaN'''),
	(24, 'floor of three decimals', '''a1'', ''EUR'', min_available => -0.001'),
	(25, 'ceiling of three decimals', '''a1'', ''EUR'', max_balance => 0.001'),
	(26, 'ceiling of 39 digits', '''a1'', ''EUR'', max_balance => 1e36'),
	(27, 'floor of 39 digits', '''a1'', ''EUR'', min_available => -1e36')
) AS t (n, what, arguments) ORDER BY n;

-- the largest limits there may be
BEGIN;
SELECT finance.create_account('widest', 'EUR', min_available => -999999999999999999999999999999999999.99,
	max_balance => 999999999999999999999999999999999999.99) > 0 AS has_id;
SELECT min_available, max_balance FROM finance.account WHERE code = 'widest';
ROLLBACK;

-- metadata is bounded by finance.max_payload
SET finance.max_payload = 1024;
SELECT pg_temp.attempt($$SELECT finance.create_account('a1', 'EUR',
	metadata => jsonb_build_object('x', repeat('x', 1024)))$$) LIKE 'LG303 | metadata is too large | %';
RESET finance.max_payload;
SELECT count(*) FROM finance.account WHERE code = 'a1';

-- an account that was rolled back is not remembered
BEGIN;
SELECT finance.create_account('gone', 'EUR') > 0 AS has_id;
SELECT status FROM finance.transfer('source', 'gone', 1);
SELECT finance.set_account_status('gone', 'frozen');
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'gone', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('gone', 'frozen')$$);
SELECT pg_temp.attempt($$SELECT finance.balance('gone')$$);
SELECT finance.create_account('gone', 'JPY') > 0 AS has_id;
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'gone', 1)$$);
SELECT finance.balance('gone');

-- ------------------------------------------------------------------------
-- floors and ceilings
-- ------------------------------------------------------------------------

-- no floor: any depth; a floor of zero: nothing below
SELECT from_balance FROM finance.transfer('source', 'plain', 1000000);
SELECT pg_temp.attempt($$SELECT finance.transfer('plain', 'source', 1000000.01)$$);
SELECT from_balance FROM finance.transfer('plain', 'source', 1000000);
SELECT pg_temp.attempt($$SELECT finance.transfer('plain', 'source', 0.01)$$);

-- a floor below zero is an overdraft, to the cent
SELECT pg_temp.attempt($$SELECT finance.transfer('overdraft', 'plain', 100.51)$$);
SELECT from_balance, from_available FROM finance.transfer('overdraft', 'plain', 100.50);
SELECT pg_temp.attempt($$SELECT finance.transfer('overdraft', 'plain', 0.01)$$);

-- the ceiling, to the cent
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'overdraft', 1100.51)$$);
SELECT to_balance FROM finance.transfer('source', 'overdraft', 1100.50);
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'overdraft', 0.01)$$);

-- ------------------------------------------------------------------------
-- set_account_limits
-- ------------------------------------------------------------------------

SELECT version FROM finance.account WHERE code = 'overdraft';
SELECT finance.set_account_limits('overdraft', -200, 2000, 'good customer');
SELECT finance.set_account_limits(code => 'overdraft', min_available => 1000, max_balance => 1000);
SELECT finance.set_account_limits('overdraft', NULL, NULL);
SELECT min_available, max_balance, version FROM finance.account WHERE code = 'overdraft';
SELECT from_balance FROM finance.transfer('overdraft', 'source', 5000);

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.set_account_limits(' || arguments || ')')
FROM (VALUES
	(1, 'floor above what is available', '''overdraft'', 0, NULL'),
	(2, 'ceiling below the balance', '''overdraft'', NULL, -4000.01'),
	(3, 'unknown account', '''nobody'', 0, NULL'),
	(4, 'null code', 'NULL, 0, NULL'),
	(5, 'NaN', '''overdraft'', ''NaN'', NULL'),
	(6, 'Infinity', '''overdraft'', NULL, ''Infinity'''),
	(7, 'more decimals than the currency', '''overdraft'', -9999.999, NULL'),
	(8, 'empty reason', '''overdraft'', NULL, NULL, '''''),
	(9, 'long reason', '''overdraft'', NULL, NULL, repeat(''r'', 1025)')
) AS t (n, what, arguments) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- set_account_status
-- ------------------------------------------------------------------------

SELECT finance.create_account('status', 'EUR') > 0 AS has_id;
SELECT to_balance FROM finance.transfer('source', 'status', 10);
SELECT finance.set_account_status('status', 'frozen', 'a court says so');
-- setting what it has changes nothing
SELECT finance.set_account_status('status', 'frozen');
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'status', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('status', 'source', 1)$$);
-- limits of a frozen account may change
SELECT finance.set_account_limits('status', 0, 50);
-- frozen or active, it closes only at zero
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'closed')$$);
SELECT finance.set_account_status('status', 'active');
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'closed')$$);
SELECT from_balance FROM finance.transfer('status', 'source', 10);
SELECT finance.set_account_status(code => 'status', status => 'closed', reason => 'moved away');
SELECT finance.set_account_status('status', 'closed');
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'status', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('status', 'source', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'active')$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'frozen')$$);
-- its code stays taken
SELECT pg_temp.attempt($$SELECT finance.create_account('status', 'EUR')$$);
-- a frozen account at zero closes; below zero it does not
SELECT finance.set_account_status('plain', 'frozen') > 0 AS set;
SELECT pg_temp.attempt($$SELECT finance.set_account_status('overdraft', 'closed')$$);

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.set_account_status(' || arguments || ')')
FROM (VALUES
	(1, 'unknown account', '''nobody'', ''frozen'''),
	(2, 'unknown status', '''source'', ''dormant'''),
	(3, 'capital letters', '''source'', ''Frozen'''),
	(4, 'null code', 'NULL, ''frozen'''),
	(5, 'null status', '''source'', NULL'),
	(6, 'empty status', '''source'', '''''),
	(7, 'empty reason', '''source'', ''frozen'', '''''),
	(8, 'long reason', '''source'', ''frozen'', repeat(''r'', 1025)'),
	(9, 'control character in the reason', '''source'', ''frozen'', E''a\rb''')
) AS t (n, what, arguments) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- an error or a savepoint takes it all back
BEGIN;
SAVEPOINT s;
SELECT finance.set_account_status('source', 'frozen') > 0 AS set;
SELECT finance.set_account_limits('source', NULL, 1e6) > 0 AS set;
SELECT pg_temp.book() <> :'before' AS changed;
ROLLBACK TO s;
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT status FROM finance.transfer('overdraft', 'source', 1);
ROLLBACK;

-- every change is there, with its reason and both values
SELECT a.code, c.version, c.change, c.old_value, c.new_value, c.reason, c.actor = current_user AS by_user
FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE c.tenant_id = :tenant ORDER BY c.changed_at, c.version;
SELECT operation, status, request->>'code' AS code, request->>'reason' AS reason
FROM finance.audit_record
WHERE tenant_id = :tenant AND operation LIKE 'set_account%' ORDER BY id;

UPDATE finance.account_change SET reason = NULL;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance._account;
\echo :LAST_ERROR_SQLSTATE
-- the constraint holds whoever writes, and whatever he sets
SET session_replication_role = replica;
SELECT pg_temp.attempt('UPDATE finance._account SET ' || change || ' WHERE code = ''source'' AND tenant_id = ' || :tenant)
FROM (VALUES (1, 'debits_posted = ''NaN'''), (2, 'credits_posted = ''Infinity'''), (3, 'debits_pending = -1'), (4, 'credits_pending = ''NaN'''),
	(5, 'spent = -0.01'), (6, 'debits_posted = NULL'), (8, 'max_balance = -1e30'), (9, 'min_available = 1e30'),
	(10, 'min_available = ''NaN''')) AS v (n, change) ORDER BY n;
RESET session_replication_role;

SELECT pg_temp.attempt($$SELECT finance.balance('nobody')$$);
SELECT pg_temp.attempt($$SELECT finance.balance(NULL)$$);
SELECT * FROM finance.check_integrity();
