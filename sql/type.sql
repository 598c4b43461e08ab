-- Types of accounts and of transfers: what is built in, what can be added, and
-- that nothing is opened, moved or held under a type that is not allowed.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('type test') AS tenant \gset
SELECT finance.create_tenant('type test, other') AS other \gset
SET finance.tenant = :tenant;

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, '')), '\m\d{17,19}\M', '<id>', 'g');
END $$;

-- everything there is, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, account_type, transfer_type, transfer,
		_hold, idempotency_key, audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- ------------------------------------------------------------------------
-- what is built in, for every tenant
-- ------------------------------------------------------------------------

SELECT type, normal_side, name FROM finance.account_type WHERE builtin ORDER BY type COLLATE "C";
SELECT type, from_types, to_types, name FROM finance.transfer_type WHERE builtin ORDER BY type COLLATE "C";
SELECT count(*) FROM finance.account_type WHERE builtin AND tenant_id <> 0;

SELECT count(finance.create_account(type, 'EUR', type, NULL)) FROM finance.account_type WHERE builtin;
SELECT count(finance.create_account(type || ' 2', 'EUR', type, NULL)) FROM finance.account_type WHERE builtin;

-- each between any two types of accounts, as its row says
SELECT t.type, count(*) FILTER (WHERE b.error IS NULL) AS allowed,
	count(*) FILTER (WHERE b.error = 'LG017') AS refused,
	bool_and((b.error IS NULL) = (coalesce(f.type = ANY (t.from_types), true) AND coalesce(o.type = ANY (t.to_types), true))) AS as_told
FROM finance.transfer_type t, finance.account_type f, finance.account_type o,
	finance.transfer_batch(ARRAY[finance.request(f.type, o.type || ' 2', 1, type => t.type)]) b
WHERE t.builtin AND f.builtin AND o.builtin
GROUP BY t.type ORDER BY t.type COLLATE "C";
SELECT type, count(*) FROM finance.transfer WHERE tenant_id = :tenant
	AND type IN ('fee', 'income', 'expense') GROUP BY type ORDER BY type COLLATE "C";

-- ------------------------------------------------------------------------
-- own types
-- ------------------------------------------------------------------------

SELECT finance.create_account_type('wallet', 'credit', 'a customer''s money');
SELECT finance.create_account_type(type => 'till', normal_side => 'debit');
SELECT finance.create_account_type(repeat('t', 63), 'debit');
SELECT finance.create_transfer_type('top-up', '{till}', '{wallet}', 'cash paid in');
SELECT finance.create_transfer_type(type => 'gift', to_types => '{wallet,equity}');
SELECT finance.create_transfer_type('anything');
SELECT type, normal_side, name, builtin FROM finance.account_type WHERE tenant_id = :tenant ORDER BY type COLLATE "C";
SELECT type, from_types, to_types, name, builtin FROM finance.transfer_type WHERE tenant_id = :tenant ORDER BY type COLLATE "C";
SELECT operation, status, request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation LIKE 'create_%_type' ORDER BY id;

SELECT finance.create_account('alice', 'EUR', 'wallet') > 0 AS has_id;
SELECT finance.create_account('bob', 'EUR', 'wallet') > 0 AS has_id;
SELECT finance.create_account('till', 'EUR', 'till', NULL) > 0 AS has_id;
SELECT finance.create_account('longest', 'EUR', repeat('t', 63)) > 0 AS has_id;
SELECT to_balance FROM finance.transfer('till', 'alice', 100, type => 'top-up');
SELECT to_balance FROM finance.transfer('alice', 'bob', 1, type => 'gift');
SELECT to_balance FROM finance.transfer('bob', 'till', 1, type => 'anything');

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.' || call)
FROM (VALUES
	(1, 'taken', 'create_account_type(''wallet'', ''credit'')'),
	(2, 'built in', 'create_account_type(''asset'', ''debit'')'),
	(3, 'unknown side', 'create_account_type(''t1'', ''left'')'),
	(4, 'side in capital letters', 'create_account_type(''t1'', ''Debit'')'),
	(5, 'null side', 'create_account_type(''t1'', NULL)'),
	(6, 'null type', 'create_account_type(NULL, ''debit'')'),
	(7, 'empty type', 'create_account_type('''', ''debit'')'),
	(8, 'type of 64 bytes', 'create_account_type(repeat(''t'', 64), ''debit'')'),
	(9, 'newline in the type', 'create_account_type(E''a\nb'', ''debit'')'),
	(10, 'empty name', 'create_account_type(''t1'', ''debit'', '''')'),
	(11, 'taken', 'create_transfer_type(''gift'')'),
	(12, 'built in', 'create_transfer_type(''payment'')'),
	(13, 'unknown from', 'create_transfer_type(''t1'', ''{wallet,purse}'')'),
	(14, 'unknown to', 'create_transfer_type(''t1'', NULL, ''{Wallet}'')'),
	(15, 'from none', 'create_transfer_type(''t1'', ''{}'')'),
	(16, 'to null', 'create_transfer_type(''t1'', NULL, ''{wallet,NULL}'')'),
	(17, 'a table of types', 'create_transfer_type(''t1'', ''{{wallet},{till}}'')'),
	(18, 'more than 64', 'create_transfer_type(''t1'', array_fill(''wallet''::text, ARRAY[65]))'),
	(19, 'null type', 'create_transfer_type(NULL)'),
	(20, 'empty type', 'create_transfer_type('''')'),
	(21, 'control character in the name', 'create_transfer_type(''t1'', name => E''a\x1fb'')'),
	(22, 'account of an unknown type', 'create_account(''a1'', ''EUR'', ''purse'')'),
	(23, 'account of a type in capital letters', 'create_account(''a1'', ''EUR'', ''Asset'')'),
	(24, 'transfer of an unknown type', 'transfer(''alice'', ''bob'', 1, type => ''tip'')'),
	(25, 'in capital letters', 'transfer(''alice'', ''bob'', 1, type => ''Gift'')'),
	(26, 'not from there', 'transfer(''alice'', ''bob'', 1, type => ''top-up'')'),
	(27, 'not to there', 'transfer(''till'', ''equity'', 1, type => ''top-up'')'),
	(28, 'only to two', 'transfer(''alice'', ''till'', 1, type => ''gift'')'),
	(29, 'hold of an unknown type', 'hold(''alice'', ''bob'', 1, type => ''tip'')'),
	(30, 'hold not allowed', 'hold(''alice'', ''bob'', 1, type => ''top-up'')'),
	(31, 'before what else is wrong with it', 'transfer(''alice'', ''bob'', 1000000, type => ''tip'', expected_from_version => 99)'),
	(32, 'after an unknown account', 'transfer(''nobody'', ''bob'', 1, type => ''tip'')'),
	(33, 'after a bad amount', 'transfer(''alice'', ''bob'', 0.001, type => ''tip'')'),
	(34, 'up to', 'transfer(''alice'', ''bob'', NULL, amount_mode => ''up_to'', type => ''tip'')')
) AS t (n, what, call) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- what was held is captured and released whatever the type says
SELECT h.id AS hold FROM finance.hold('till', 'alice', 5, type => 'top-up') h \gset
SELECT status, amount FROM finance.capture(:hold, 2);
SELECT status, amount FROM finance.release(:hold);
-- a batch answers, and goes on
SELECT position, error, message, status FROM finance.transfer_batch(ARRAY[
	finance.request('alice', 'bob', 1, type => 'gift'),
	finance.request('alice', 'bob', 1, type => 'tip'),
	finance.request('alice', 'bob', 1, type => 'gift', linked => true),
	finance.request('alice', 'bob', 1, type => 'top-up', action => 'hold'),
	finance.request('alice', 'bob', 1)]);
-- a key answers with what it stands for
SELECT status FROM finance.transfer('alice', 'bob', 1, type => 'gift', idempotency_key => 'type 1');
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'tip', idempotency_key => 'type 1')$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'tip', idempotency_key => 'type 2')$$);
SELECT finance.create_transfer_type('tip', '{wallet}', '{wallet}');
SELECT status, replayed FROM finance.transfer('alice', 'bob', 1, type => 'tip', idempotency_key => 'type 2');
SELECT status, replayed FROM finance.transfer('alice', 'bob', 1, type => 'tip', idempotency_key => 'type 2');

-- rolled back, a type is not remembered, though it was used
BEGIN;
SAVEPOINT s;
SELECT finance.create_account_type('brief', 'debit'), finance.create_transfer_type('passing', '{brief}');
SELECT finance.create_account('brief', 'EUR', 'brief', NULL) > 0 AS has_id;
SELECT finance.create_transfer_type('short');
SELECT status FROM finance.transfer('brief', 'bob', 1, type => 'passing');
SELECT status FROM finance.transfer('alice', 'bob', 1, type => 'short');
SELECT status FROM finance.transfer('alice', 'bob', 1, type => 'short');
ROLLBACK TO s;
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'short')$$);
SELECT finance.create_transfer_type('short');
SELECT status FROM finance.transfer('alice', 'bob', 1, type => 'short');
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'short')$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'passing')$$);
SELECT pg_temp.attempt($$SELECT finance.create_account('brief', 'EUR', 'brief')$$);

-- more pairs than are remembered, twice over
SELECT count(finance.create_transfer_type('many ' || n, from_types, NULL))
FROM (SELECT n, CASE WHEN n % 3 = 0 THEN '{till}'::text[] END AS from_types FROM generate_series(1, 200) n) t;
SELECT count(*), count(*) FILTER (WHERE error IS NULL) AS allowed,
	bool_and((error IS NULL) = (n % 3 > 0)) AS as_told
FROM generate_series(0, 399) m CROSS JOIN LATERAL (SELECT m % 200 + 1 AS n) s,
	finance.transfer_batch(ARRAY[finance.request('equity', 'asset', 1, type => 'many ' || n)]) b;

-- ------------------------------------------------------------------------
-- types are of their tenant, and never change
-- ------------------------------------------------------------------------

SET finance.tenant = :other;
SELECT pg_temp.attempt($$SELECT finance.create_account('alice', 'EUR', 'wallet')$$);
SELECT finance.create_account('alice', 'EUR') > 0 AS has_id, finance.create_account('bob', 'EUR', 'asset', NULL) > 0 AS has_id;
SELECT pg_temp.attempt($$SELECT finance.transfer('bob', 'alice', 1, type => 'tip')$$);
SELECT pg_temp.attempt($$SELECT finance.create_transfer_type('t1', '{wallet}')$$);
-- of the same name, otherwise different
SELECT finance.create_account_type('wallet', 'debit');
SELECT finance.create_transfer_type('tip', '{asset}');
SELECT status FROM finance.transfer('bob', 'alice', 1, type => 'tip');
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'tip')$$);
SET finance.tenant = :tenant;
SELECT status FROM finance.transfer('alice', 'bob', 1, type => 'tip');
SELECT pg_temp.attempt($$SELECT finance.transfer('asset', 'bob', 1, type => 'tip')$$);
-- tenant 0 shares the built-in ones, not its own
SET finance.tenant = 0;
BEGIN;
SELECT finance.create_account_type('type test, of tenant 0', 'debit');
SELECT finance.create_transfer_type('type test, of tenant 0');
SET LOCAL finance.tenant = :tenant;
SELECT pg_temp.attempt($$SELECT finance.create_account('a1', 'EUR', 'type test, of tenant 0')$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('alice', 'bob', 1, type => 'type test, of tenant 0')$$);
ROLLBACK;

CREATE ROLE regress_finance_type;
SELECT finance.grant_access('regress_finance_type', 'app');
SET finance.tenant = :tenant;
SET ROLE regress_finance_type;
SELECT count(*) FILTER (WHERE builtin) AS builtin, count(*) FILTER (WHERE tenant_id = :other) AS of_other,
	count(*) FILTER (WHERE NOT builtin AND tenant_id = :tenant) AS own
FROM finance.account_type;
SELECT count(*) FILTER (WHERE builtin) AS builtin, count(*) FILTER (WHERE tenant_id = :other) AS of_other,
	count(*) FILTER (WHERE type = 'tip') AS own
FROM finance.transfer_type;
SELECT pg_temp.attempt($$SELECT finance.create_account_type('t1', 'debit')$$);
SELECT pg_temp.attempt($$SELECT finance.create_transfer_type('t1')$$);
RESET ROLE;
SET client_min_messages = warning;
DROP OWNED BY regress_finance_type;
RESET client_min_messages;
DROP ROLE regress_finance_type;

UPDATE finance.account_type SET normal_side = 'debit' WHERE type = 'wallet';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance.account_type WHERE type = 'till';
\echo :LAST_ERROR_SQLSTATE
UPDATE finance.transfer_type SET to_types = NULL WHERE type = 'fee';
\echo :LAST_ERROR_SQLSTATE
TRUNCATE finance.transfer_type;
\echo :LAST_ERROR_SQLSTATE
SET session_replication_role = replica;
DELETE FROM finance.transfer_type WHERE type = 'tip';
\echo :LAST_ERROR_SQLSTATE
RESET session_replication_role;
\set VERBOSITY terse
INSERT INTO finance.account_type VALUES (:tenant, 't1', 'left', 't1');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO finance.account_type VALUES (:tenant, 't1', 'debit', 't1', true);
\echo :LAST_ERROR_SQLSTATE

\set VERBOSITY default
-- an account of no type is found
BEGIN;
UPDATE finance._account SET type = 'gone' WHERE code = 'longest' AND tenant_id = :tenant;
SELECT invariant, object, expected, found FROM finance.check_integrity();
ROLLBACK;
SELECT * FROM finance.check_integrity();
