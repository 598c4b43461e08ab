-- Lists of accounts, countries and devices: entries, their end, many at once,
-- longer than is kept in memory, tenants apart, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('list test') AS tenant, finance.create_tenant('another list test') AS other \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET finance.actor = 'olga';

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
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END $$;

CREATE VIEW pg_temp.listed AS
SELECT list, subject, value, reason, added_by, expires_at FROM finance.risk_list
WHERE tenant_id = current_setting('finance.tenant')::integer ORDER BY list, subject, value;

SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a,b,c,d}'::text[]) AS code;
SELECT finance.add_rule('blocked', 'blocklist');

-- ------------------------------------------------------------------------
-- on the list and off it
-- ------------------------------------------------------------------------

SELECT finance.is_on_list('watch', 'device', 'phone 1') AS list_that_is_not_there;
SELECT finance.add_to_list('watch', 'device', 'phone 1', 'shared by many');
SELECT finance.add_to_list(list => 'watch', subject => 'country', value => 'KP', reason => 'embargo');
SELECT finance.add_to_list('watch', 'account', 'a', 'asked to', expires_at => '2090-01-01');
SELECT * FROM pg_temp.listed;
SELECT list, subject, value, finance.is_on_list(list, subject, value)
FROM (VALUES ('watch', 'device', 'phone 1'), ('watch', 'device', 'Phone 1'), ('watch', 'device', 'phone'), ('watch', 'account', 'a'),
	('watch', 'account', 'A'), ('watch', 'account', 'KP'), ('watch', 'country', 'KP'), ('watch', 'country', 'kp'), ('watch', 'country', 'Kp'),
	('watch', 'country', 'K'), ('watch', 'country', 'KPX'), ('blocklist', 'account', 'a'), ('Watch', 'account', 'a'), ('watc', 'account', 'a')) AS v (list, subject, value);
-- a list is of no rule until a rule looks at it
SELECT status FROM finance.transfer('a', 'b', 1);
-- again: another reason and end, and it was there already
SELECT finance.add_to_list('watch', 'account', 'a', 'asked to', expires_at => '2090-01-01') AS same,
	finance.add_to_list('watch', 'country', 'KP', 'sanctions', expires_at => '2091-01-01') AS shorter,
	finance.add_to_list('watch', 'account', 'a', 'for good') AS longer;
SELECT * FROM pg_temp.listed;
SELECT finance.remove_from_list('watch', 'account', 'a', 'found innocent'), finance.remove_from_list('watch', 'account', 'a', 'again');
SELECT finance.is_on_list('watch', 'account', 'a');

-- the short forms: entries of the blocklist
SELECT finance.block_account('a', 'stolen card');
SELECT finance.block_account('a', 'again');
SELECT finance.add_to_list('blocklist', 'account', 'b', 'stolen too');
SELECT * FROM pg_temp.listed WHERE list = 'blocklist';
SELECT (finance.transfer('a', 'c', 1)).status, (finance.transfer('c', 'b', 1)).status, (finance.transfer('c', 'd', 1)).status;
SELECT finance.remove_from_list('blocklist', 'account', 'a', 'found'), finance.unblock_account('b', 'found'), finance.unblock_account('b', 'found');
SELECT (finance.transfer('a', 'c', 1)).status, (finance.transfer('c', 'b', 1)).status;
-- a device and a country of that name are not the account
SELECT finance.add_to_list('blocklist', 'device', 'c', 'x');
SELECT status FROM finance.transfer('c', 'd', 1);

-- rolled back, with what was kept of it in memory
BEGIN;
SELECT finance.block_account('c', 'x');
SELECT status FROM finance.transfer('c', 'd', 1);
SAVEPOINT s;
SELECT finance.unblock_account('c', 'x');
SELECT status FROM finance.transfer('c', 'd', 1);
ROLLBACK TO s;
SELECT status FROM finance.transfer('c', 'd', 1);
ROLLBACK;
SELECT status FROM finance.transfer('c', 'd', 1);
-- an account that is rolled back with its entry leaves nothing to who gets the code
BEGIN;
SELECT finance.create_account('ghost', 'EUR') > 0 AS made, finance.block_account('ghost', 'x');
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.block_account('ghost', 'x')$$);

-- ------------------------------------------------------------------------
-- until it expires
-- ------------------------------------------------------------------------

SET finance.test_clock = '2030-01-01 12:00';
SELECT finance.add_to_list('blocklist', 'account', 'c', 'a day', expires_at => '2030-01-02 12:00');
SELECT status FROM finance.transfer('c', 'd', 1);
SET finance.test_clock = '2030-01-02 11:59:59.999999';
SELECT status FROM finance.transfer('c', 'd', 1);
SET finance.test_clock = '2030-01-02 12:00';
SELECT status FROM finance.transfer('c', 'd', 1);
SELECT finance.is_on_list('blocklist', 'account', 'c');
-- its row is there, it is not: so it can be added
SELECT * FROM pg_temp.listed WHERE value = 'c' AND subject = 'account';
SELECT finance.add_to_list('blocklist', 'account', 'c', 'an hour', expires_at => '2030-01-02 13:00') AS added;
SELECT status FROM finance.transfer('c', 'd', 1);
-- to block for good what is blocked for a time
SELECT finance.block_account('c', 'for good') AS added;
SET finance.test_clock = '2040-01-01';
SELECT status FROM finance.transfer('c', 'd', 1);
SELECT finance.unblock_account('c', 'found');
-- what is over is removed on request, so many at a time; what is not stays
SELECT finance.load_list('old', 'device', ARRAY(SELECT 'd' || n FROM generate_series(1, 5) AS n), 'x', '2040-01-02'),
	finance.load_list('old', 'device', '{e1,e2}', 'x', '2040-01-03'), finance.load_list('old', 'device', '{f1}', 'x');
SELECT finance.remove_expired_entries();
SET finance.test_clock = '2040-01-02';
SELECT finance.remove_expired_entries(3), finance.remove_expired_entries("limit" => 3), finance.remove_expired_entries();
SELECT value FROM pg_temp.listed WHERE list = 'old';
-- to remove what is over by hand
SET finance.test_clock = '2040-01-03';
SELECT finance.remove_from_list('old', 'device', 'e1', 'tidy') AS was_there;
SET finance.test_clock = '2026-11-23 12:00';
SELECT finance.remove_from_list('old', 'device', value, 'tidy') FROM pg_temp.listed WHERE list = 'old';

-- ------------------------------------------------------------------------
-- many at once
-- ------------------------------------------------------------------------

SELECT finance.load_list('allow', 'account', '{a,b,c,b}', 'staff') AS added;
SELECT finance.load_list('allow', 'account', '{a,d}', 'staff') AS added;
SELECT finance.load_list('allow', 'account', '{a,b}', 'owners', expires_at => '2090-01-01') AS added;
SELECT finance.load_list('allow', 'country', '{}', 'none') AS added;
SELECT * FROM pg_temp.listed WHERE list = 'allow';
-- all or none
SELECT pg_temp.attempt($$SELECT finance.load_list('allow', 'country', '{DE,FR,fr,IT}', 'x')$$);
SELECT pg_temp.attempt($$SELECT finance.load_list('allow', 'account', '{a,nobody,b,nobody else}', 'x')$$);
SELECT * FROM pg_temp.listed WHERE list = 'allow';

-- ------------------------------------------------------------------------
-- longer than is kept in memory: one look-up in the index, of each account
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.look_ups(OUT by_index bigint, OUT rows_read bigint) LANGUAGE sql AS $$
	SELECT sum(idx_scan)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE relid = 'finance.risk_list'::regclass $$;
SELECT finance.load_list('blocklist', 'device', ARRAY(SELECT 'device ' || n FROM generate_series(1, 1022) AS n), 'many') AS added;
SELECT finance.block_account('d', 'the 1,024th');
-- 1,024 are kept
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- one more, and they are not
SELECT finance.add_to_list('blocklist', 'device', 'one more', 'x', '2026-11-23 12:01');
SELECT count(*) FROM finance.risk_list WHERE tenant_id = :tenant AND list = 'blocklist';
CREATE FUNCTION pg_temp.ask(n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM generate_series(1, n) AS i WHERE finance.is_on_list('blocklist', 'device', 'device ' || i) $$;
SELECT pg_temp.ask(300);
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
-- a change of it makes nobody read it
SELECT finance.add_to_list('blocklist', 'device', 'another', 'x');
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- nor are the short ones read for each change: looked up at first, then kept
SELECT finance.is_on_list('allow', 'account', 'a');
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT finance.is_on_list('allow', 'account', 'a'), finance.is_on_list('allow', 'account', 'nobody');
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- the same by statements, and with a snapshot of the transaction
SET finance.direct_writes = off;
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT finance.is_on_list('blocklist', 'device', 'one more') AS on_it, finance.is_on_list('blocklist', 'device', 'two more') AS not_on_it;
RESET finance.direct_writes;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
COMMIT;
SELECT finance.is_on_list('blocklist', 'device', 'one more') AS on_it;
SET finance.test_clock = '2026-11-23 12:01';
SELECT finance.is_on_list('blocklist', 'device', 'one more') AS over;
SET finance.direct_writes = off;
SELECT finance.is_on_list('blocklist', 'device', 'one more') AS over;
RESET finance.direct_writes;
RESET finance.test_clock;
-- short again: found out in time
DELETE FROM finance.risk_list WHERE tenant_id = :tenant AND list = 'blocklist' AND value LIKE 'device %' AND value <> 'device 7';
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT pg_temp.ask(1000) FROM generate_series(1, 17);
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT pg_temp.ask(1000);
SELECT (finance.transfer('a', 'b', 1)).status AS not_on_it, (finance.transfer('a', 'd', 1)).status AS on_it;
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- more lists than are kept
SELECT count(*) FROM generate_series(1, 300) AS n WHERE finance.add_to_list('list ' || n, 'device', 'd', 'x');
SELECT count(*) FILTER (WHERE finance.is_on_list('list ' || n, 'device', 'd')) AS on_it,
	count(*) FILTER (WHERE finance.is_on_list('list ' || n, 'device', 'e')) AS not_on_it FROM generate_series(1, 600) AS n;
-- and more entries, of all lists together
SELECT count(*) FROM generate_series(1, 70) AS n WHERE finance.load_list('long ' || n, 'device', ARRAY(SELECT 'd' || i FROM generate_series(1, 1000) AS i), 'x') = 1000;
SELECT count(*) FILTER (WHERE finance.is_on_list('long ' || n, 'device', 'd1000')) AS on_it,
	count(*) FILTER (WHERE finance.is_on_list('long ' || n, 'device', 'd1001')) AS not_on_it FROM generate_series(1, 70) AS n, generate_series(1, 2) AS again;
-- all of a call's 100,000
SELECT finance.load_list('full', 'device', ARRAY(SELECT 'd' || n FROM generate_series(1, 100000) AS n), 'x') AS added;
SELECT finance.load_list('full', 'device', ARRAY(SELECT 'd' || n FROM generate_series(99999, 100002) AS n), 'x') AS added;
SELECT finance.is_on_list('full', 'device', 'd100002'), finance.is_on_list('full', 'device', 'd100003');
SELECT count(*) AS records, sum(json_array_length(request->'entries')) AS entries, min(response::text) FILTER (WHERE response IS NOT NULL) AS response
FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'load_list' AND request->>'list' = 'full';

-- ------------------------------------------------------------------------
-- tenants apart
-- ------------------------------------------------------------------------

SET finance.tenant = :other;
SELECT finance.is_on_list('blocklist', 'account', 'd'), finance.is_on_list('full', 'device', 'd1');
SELECT pg_temp.attempt($$SELECT finance.block_account('d', 'of another tenant')$$);
SELECT finance.remove_from_list('full', 'device', 'd1', 'x'), finance.remove_expired_entries();
SELECT finance.add_to_list('full', 'device', 'd1', 'theirs', '2090-01-01') AS added;
SET finance.tenant = :tenant;
SELECT expires_at FROM pg_temp.listed WHERE list = 'full' AND value = 'd1';
SELECT tenant_id = :other AS theirs, count(*) FROM finance.risk_list WHERE tenant_id IN (:tenant, :other) GROUP BY 1 ORDER BY 1;
BEGIN;
CREATE ROLE regress_fin_list_reader;
SELECT finance.grant_access('regress_fin_list_reader', 'auditor');
SET ROLE regress_fin_list_reader;
SET finance.tenant = :other;
SELECT list, value, reason FROM finance.risk_list;
RESET ROLE;
ROLLBACK;

-- ------------------------------------------------------------------------
-- what is refused, and changes nothing
-- ------------------------------------------------------------------------

SELECT count(*) AS entries, (SELECT count(*) FROM finance.audit_record) AS records FROM finance.risk_list \gset
\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.' || call) AS result
FROM (VALUES
	(1, 'unknown subject', 'add_to_list(''l'', ''person'', ''x'', ''r'')'),
	(2, 'null subject', 'add_to_list(''l'', NULL, ''x'', ''r'')'),
	(3, 'null list', 'add_to_list(NULL, ''device'', ''x'', ''r'')'),
	(4, 'empty list', 'add_to_list('''', ''device'', ''x'', ''r'')'),
	(5, 'list of 64 bytes', 'add_to_list(repeat(''l'', 64), ''device'', ''x'', ''r'')'),
	(6, 'control character in the list', 'add_to_list(E''l\n'', ''device'', ''x'', ''r'')'),
	(7, 'null value', 'add_to_list(''l'', ''device'', NULL, ''r'')'),
	(8, 'empty value', 'add_to_list(''l'', ''device'', '''', ''r'')'),
	(9, 'value of 256 bytes', 'add_to_list(''l'', ''device'', repeat(''é'', 128), ''r'')'),
	(10, 'control character in the value', 'add_to_list(''l'', ''device'', E''a\tb'', ''r'')'),
	(11, 'small country', 'add_to_list(''l'', ''country'', ''de'', ''r'')'),
	(12, 'country of three letters', 'add_to_list(''l'', ''country'', ''DEU'', ''r'')'),
	(13, 'country of one letter', 'add_to_list(''l'', ''country'', ''D'', ''r'')'),
	(14, 'country of a digit', 'add_to_list(''l'', ''country'', ''D1'', ''r'')'),
	(15, 'country of another alphabet', 'add_to_list(''l'', ''country'', ''Ä'', ''r'')'),
	(16, 'unknown account', 'add_to_list(''l'', ''account'', ''nobody'', ''r'')'),
	(17, 'account of 129 bytes', 'add_to_list(''l'', ''account'', repeat(''a'', 129), ''r'')'),
	(18, 'null reason', 'add_to_list(''l'', ''device'', ''x'', NULL)'),
	(19, 'empty reason', 'add_to_list(''l'', ''device'', ''x'', '''')'),
	(20, 'long reason', 'add_to_list(''l'', ''device'', ''x'', repeat(''r'', 1025))'),
	(21, 'never', 'add_to_list(''l'', ''device'', ''x'', ''r'', ''infinity'')'),
	(22, 'always over', 'add_to_list(''l'', ''device'', ''x'', ''r'', ''-infinity'')'),
	(23, 'over', 'add_to_list(''l'', ''device'', ''x'', ''r'', ''2020-01-01'')'),
	(24, 'null entries', 'load_list(''l'', ''device'', NULL, ''r'')'),
	(25, 'null among entries', 'load_list(''l'', ''device'', ''{a,NULL}'', ''r'')'),
	(26, 'empty among entries', 'load_list(''l'', ''device'', ''{a,""}'', ''r'')'),
	(27, 'too many entries', 'load_list(''l'', ''device'', array_fill(''x''::text, ARRAY[100001]), ''r'')'),
	(28, 'load, unknown subject', 'load_list(''l'', ''x'', ''{a}'', ''r'')'),
	(29, 'load, over', 'load_list(''l'', ''device'', ''{a}'', ''r'', ''2020-01-01'')'),
	(30, 'load, no reason', 'load_list(''l'', ''device'', ''{a}'', NULL)'),
	(31, 'remove, unknown account', 'remove_from_list(''l'', ''account'', ''nobody'', ''r'')'),
	(32, 'remove, no country', 'remove_from_list(''l'', ''country'', ''xx'', ''r'')'),
	(33, 'remove, no reason', 'remove_from_list(''l'', ''device'', ''x'', NULL)'),
	(34, 'block null', 'block_account(NULL, ''r'')'),
	(35, 'unblock an empty code', 'unblock_account('''', ''r'')'),
	(36, 'ask of an unknown subject', 'is_on_list(''l'', ''x'', ''y'')'),
	(37, 'ask of null', 'is_on_list(''l'', ''device'', NULL)'),
	(38, 'no limit', 'remove_expired_entries(NULL)'),
	(39, 'limit of 0', 'remove_expired_entries(0)'),
	(40, 'too high a limit', 'remove_expired_entries(1000001)')
) AS t (n, what, call) ORDER BY n;
-- past the functions
SELECT what, pg_temp.attempt('INSERT INTO finance.risk_list VALUES (0, ' || columns || ', ''x'', ''2026-01-01'')') AS result
FROM (VALUES
	(1, 'unknown subject', '''l'', ''person'', ''x'', NULL, ''r'''),
	(2, 'small country', '''l'', ''country'', ''de'', NULL, ''r'''),
	(3, 'empty value', '''l'', ''device'', '''', NULL, ''r'''),
	(4, 'long list', 'repeat(''l'', 64), ''device'', ''x'', NULL, ''r'''),
	(5, 'infinity', '''l'', ''device'', ''x'', ''infinity'', ''r''')
) AS t (n, what, columns) ORDER BY n;
\pset format aligned
SELECT count(*) - :entries AS entries, (SELECT count(*) FROM finance.audit_record) - :records AS records FROM finance.risk_list;

-- ------------------------------------------------------------------------
-- who did what, and why
-- ------------------------------------------------------------------------

\pset format unaligned
SELECT DISTINCT ON (operation, request->>'list') r.operation, r.actor, a.code, r.request, r.response
FROM finance.audit_record r LEFT JOIN finance.account a ON a.tenant_id = r.tenant_id AND a.account_id = r.account_id
WHERE r.tenant_id = :tenant AND r.operation ~ 'list|block|entries' AND coalesce(length(r.request::text), 0) < 300
	AND coalesce(r.request->>'list', '') !~ '\d$'
ORDER BY operation, request->>'list', id;
\pset format aligned
SELECT * FROM finance.check_integrity();
