-- Risk rules: each kind and its scopes, days and windows in the tenant's time
-- zone, decisions and alerts, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('risk test', 'Europe/Berlin') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')),
		'\m\d{17,19}\M', '<id>', 'g');
END $$;

-- what a transfer comes to at a moment (of UTC, unless it says otherwise)
CREATE FUNCTION pg_temp.at(moment text, from_account text, to_account text, amount numeric) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result finance.transfer_result;
BEGIN
	PERFORM set_config('finance.test_clock', moment, true);
	result := finance.transfer(from_account, to_account, amount);
	PERFORM set_config('finance.test_clock', '', true);
	RETURN concat_ws(' ', result.status, result.rule);
END $$;

-- why the last transfers were rejected
CREATE VIEW pg_temp.decided AS
SELECT t.amount::numeric AS amount, d.ordinal, d.rule, d.kind, d.outcome, d.observed, d.threshold, d."window"
FROM finance.risk_hit d JOIN finance.transfer t ON t.tenant_id = d.tenant_id AND t.id = d.transfer_id
WHERE d.tenant_id = current_setting('finance.tenant')::integer ORDER BY t.id, d.ordinal;

SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('source', 'EUR'), ('a', 'EUR'), ('b', 'EUR'), ('c', 'EUR'), ('d', 'EUR'), ('e', 'EUR'),
	('yen a', 'JPY'), ('yen b', 'JPY')) AS v (code, currency);

-- ------------------------------------------------------------------------
-- transfer_limit: what is above it is rejected, and nothing moves
-- ------------------------------------------------------------------------

SELECT finance.add_rule('limit', 'transfer_limit', 1000);
SELECT status, rule, from_version, to_version, from_balance, to_balance FROM finance.transfer('a', 'b', 1000);
SELECT status, rule, from_version, to_version, from_balance, to_balance FROM finance.transfer('a', 'b', 1000.01);
SELECT status, rule FROM finance.transfer('yen a', 'yen b', 1001);
SELECT code, balance, version FROM finance.account WHERE tenant_id = :tenant AND version > 0 ORDER BY code;
SELECT * FROM pg_temp.decided;
-- the row and the audit record tell it; a rejected transfer is no entry
SELECT status, amount, from_version, to_version, from_balance, to_balance FROM finance.transfer WHERE tenant_id = :tenant ORDER BY id;
SELECT status, amount, balance_before, balance_after, response->>'rule' AS rule FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'transfer' ORDER BY id;
SELECT count(*) FROM finance.entry WHERE tenant_id = :tenant;

-- strict: an error instead, and nothing is left of it
SELECT (SELECT count(*) FROM finance.transfer) + (SELECT count(*) FROM finance.risk_decision)
	+ (SELECT count(*) FROM finance.audit_record) AS before \gset
SELECT status FROM finance.transfer('a', 'b', 1000.01, strict => true);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM finance.transfer('a', 'b', 1000, strict => true);
SELECT (SELECT count(*) FROM finance.transfer) + (SELECT count(*) FROM finance.risk_decision)
	+ (SELECT count(*) FROM finance.audit_record) - :before AS rows_of_the_one_made;
-- what is wrong with the request or the accounts comes first
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1000.001)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'yen b', 1001)$$);

-- off, on, gone
SELECT finance.enable_rule('limit', false);
SELECT status FROM finance.transfer('a', 'b', 1000.01);
SELECT finance.enable_rule('limit');
SELECT status FROM finance.transfer('a', 'b', 1000.01);
SELECT finance.enable_rule('limit', enabled => NULL);
SELECT finance.remove_rule('limit');
SELECT status FROM finance.transfer('a', 'b', 1000.01);
-- rolled back, a rule is not there; nor is its removal
BEGIN;
SELECT finance.add_rule('limit', 'transfer_limit', 1);
SELECT status FROM finance.transfer('a', 'b', 2);
SAVEPOINT s;
SELECT finance.remove_rule('limit');
SELECT status FROM finance.transfer('a', 'b', 2);
ROLLBACK TO s;
SELECT status FROM finance.transfer('a', 'b', 2);
ROLLBACK;
SELECT status FROM finance.transfer('a', 'b', 2);

-- for what one account pays, or for one currency
SELECT finance.add_rule('limit of a', 'transfer_limit', 10, account => 'a');
SELECT finance.add_rule('limit of yen', 'transfer_limit', 50, currency => 'JPY');
SELECT finance.add_rule('limit of euro of c', 'transfer_limit', 20, 'c', 'EUR');
SELECT p.*, t.status, t.rule
FROM (VALUES (1, 'a', 'b', 10), (2, 'a', 'b', 11), (3, 'b', 'a', 11), (4, 'yen a', 'yen b', 50), (5, 'yen a', 'yen b', 51),
	(6, 'c', 'b', 20), (7, 'c', 'b', 21), (8, 'b', 'c', 21)) AS p (n, "from", "to", amount)
	CROSS JOIN LATERAL finance.transfer("from", "to", amount) AS t ORDER BY n;
-- every rule that is broken is told; the first by name is the answer
SELECT finance.add_rule('another limit of a', 'transfer_limit', 5.5, account => 'a');
SELECT status, rule FROM finance.transfer('a', 'b', 12);
SELECT * FROM pg_temp.decided WHERE amount = 12;
SELECT finance.remove_rule(name) FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;
-- a threshold finer than the currency; a threshold of zero; one beyond any amount
SELECT finance.add_rule('fine', 'transfer_limit', 0.999999999999999999999, account => 'a');
SELECT finance.add_rule('nothing', 'transfer_limit', 0, account => 'b');
SELECT finance.add_rule('anything', 'transfer_limit', 1e100, account => 'c');
SELECT p.*, t.status, t.rule
FROM (VALUES (1, 'a', 'c', 0.99), (2, 'a', 'c', 1), (3, 'b', 'c', 0.01), (4, 'c', 'a', 999999999999999999999.99)) AS p (n, "from", "to", amount)
	CROSS JOIN LATERAL finance.transfer("from", "to", amount) AS t ORDER BY n;
SELECT status FROM finance.transfer('a', 'c', 0.5);
SELECT finance.remove_rule(name) FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;

-- ------------------------------------------------------------------------
-- daily_limit: what an account pays on a day of the tenant's time zone
-- ------------------------------------------------------------------------

SELECT finance.add_rule('day', 'daily_limit', 100, account => 'd');
SELECT n, moment, amount, pg_temp.at(moment, 'd', 'b', amount)
FROM (VALUES
	(1, '2026-11-23 09:00:00', 60.00),
	(2, '2026-11-23 10:00:00', 40.01),	-- a cent too much
	(3, '2026-11-23 10:00:00', 40.00),	-- what was rejected does not count
	(4, '2026-11-23 11:00:00', 0.01),
	(5, '2026-11-23 22:59:59.999999', 0.01),	-- Berlin is an hour ahead
	(6, '2026-11-23 23:00:00', 100.00),	-- midnight there
	(7, '2026-11-24 00:00:00', 0.01),	-- midnight in London means nothing
	(8, '2026-11-24 22:59:59', 0.01),
	(9, '2026-11-24 23:00:00', 0.01),
	(10, '2026-11-24 12:00:00', 99.99),	-- a clock stepped back: its day goes on
	(11, '2026-11-24 12:00:00', 0.01),
	(12, '2026-11-26 12:00:00', 100.00)	-- a day without any
) AS v (n, moment, amount) ORDER BY n;
SELECT amount, rule, observed, threshold FROM pg_temp.decided WHERE kind = 'daily_limit';
-- what it receives and what others pay does not count
SELECT pg_temp.at('2026-11-26 12:00:00', 'b', 'd', 1000), pg_temp.at('2026-11-26 12:00:00', 'a', 'b', 1000);
SELECT pg_temp.at('2026-11-26 12:00:00', 'd', 'b', 0.01);

-- the days on which clocks change, of 23 and of 25 hours
SELECT n, moment, moment::timestamptz AT TIME ZONE 'Europe/Berlin' AS berlin, pg_temp.at(moment, 'd', 'b', 100)
FROM (VALUES
	(1, '2027-03-27 22:59:59.9'), (2, '2027-03-27 23:00:00'), (3, '2027-03-28 00:59:59'), (4, '2027-03-28 01:00:00'),
	(5, '2027-03-28 21:59:59.9'), (6, '2027-03-28 22:00:00'),
	(7, '2027-10-30 21:59:59.9'), (8, '2027-10-30 22:00:00'), (9, '2027-10-31 00:30:00'), (10, '2027-10-31 01:30:00'),
	(11, '2027-10-31 22:59:59.9'), (12, '2027-10-31 23:00:00')
) AS v (n, moment) ORDER BY n;

-- a savepoint takes back what was spent
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 30);
BEGIN;
SAVEPOINT s;
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 70);
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 0.01);
ROLLBACK TO s;
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 70.01);
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 70);
COMMIT;
SELECT pg_temp.at('2028-01-01 12:00', 'd', 'b', 0.01);
-- one statement of many transfers stops at the limit
SELECT n, t.status, t.from_balance IS NOT NULL AS answered FROM (SELECT set_config('finance.test_clock', '2028-01-02 12:00', false)) AS c,
	generate_series(1, 5) AS n CROSS JOIN LATERAL finance.transfer('d', 'b', 30 + 0 * n) AS t ORDER BY n;
RESET finance.test_clock;
-- what was spent counts for a rule that comes later
SELECT pg_temp.at('2028-02-01 12:00', 'e', 'b', 80);
SELECT finance.add_rule('day of all', 'daily_limit', 100, currency => 'EUR');
SELECT pg_temp.at('2028-02-01 12:00', 'e', 'b', 21), pg_temp.at('2028-02-01 12:00', 'e', 'b', 20);

-- another time zone, another day
SELECT finance.set_tenant_time_zone(:tenant, 'Pacific/Auckland');
SELECT n, moment, pg_temp.at(moment, 'e', 'b', amount)
FROM (VALUES (1, '2028-03-01 10:59:59', 100), (2, '2028-03-01 10:59:59', 1), (3, '2028-03-01 11:00:00', 100),
	(4, '2028-03-02 10:59:59', 1)) AS v (n, moment, amount) ORDER BY n;
SELECT finance.set_tenant_time_zone(:tenant, 'Europe/Berlin');
SELECT finance.remove_rule(name) FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;

-- ------------------------------------------------------------------------
-- night_window
-- ------------------------------------------------------------------------

SELECT finance.add_rule('night', 'night_window', 50, account => 'a', window_start => '22:00', window_end => '06:00');
SELECT finance.add_rule('lunch', 'night_window', account => 'b', window_start => '12:00', window_end => '12:30');
SELECT n, moment, (moment::timestamptz AT TIME ZONE 'Europe/Berlin')::time AS berlin, "from", amount,
	pg_temp.at(moment, "from", CASE "from" WHEN 'c' THEN 'a' ELSE 'c' END, amount)
FROM (VALUES
	(1, '2026-12-01 20:59:59.999999', 'a', 51), (2, '2026-12-01 21:00:00', 'a', 51), (3, '2026-12-01 21:00:00', 'a', 50),
	(4, '2026-12-01 23:30:00', 'a', 50.01), (5, '2026-12-02 04:59:59.999999', 'a', 51), (6, '2026-12-02 05:00:00', 'a', 51),
	(7, '2026-12-01 12:00:00', 'a', 51),
	(8, '2026-12-01 10:59:59', 'b', 0.01), (9, '2026-12-01 11:00:00', 'b', 0.01), (10, '2026-12-01 11:29:59', 'b', 0.01),
	(11, '2026-12-01 11:30:00', 'b', 0.01), (12, '2026-12-01 23:00:00', 'b', 1000),
	-- in summer the same hours of the clock on the wall
	(13, '2027-07-01 19:59:59', 'a', 51), (14, '2027-07-01 20:00:00', 'a', 51), (15, '2027-07-02 03:59:59', 'a', 51),
	(16, '2027-07-02 04:00:00', 'a', 51),
	-- what the account receives is not its transfer
	(17, '2026-12-01 21:00:00', 'c', 51)
) AS v (n, moment, "from", amount) ORDER BY n;
SELECT amount, rule, observed, threshold FROM pg_temp.decided WHERE kind = 'night_window';
SELECT finance.remove_rule(name) FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;
-- hours that the night of the change skips and repeats
SELECT finance.add_rule('two to three', 'night_window', window_start => '02:00', window_end => '03:00');
SELECT n, moment, (moment::timestamptz AT TIME ZONE 'Europe/Berlin')::time AS berlin, pg_temp.at(moment, 'a', 'b', 1)
FROM (VALUES (1, '2027-03-28 00:59:59'), (2, '2027-03-28 01:00:00'), (3, '2027-10-30 23:59:59'), (4, '2027-10-31 00:00:00'),
	(5, '2027-10-31 00:59:59'), (6, '2027-10-31 01:00:00'), (7, '2027-10-31 01:59:59'), (8, '2027-10-31 02:00:00')) AS v (n, moment) ORDER BY n;
SELECT finance.remove_rule('two to three');
-- until midnight, from midnight, and all but a moment of the day
SELECT finance.add_rule('late', 'night_window', account => 'a', window_start => '23:00', window_end => '24:00');
SELECT finance.add_rule('early', 'night_window', account => 'b', window_start => '00:00', window_end => '01:00');
SELECT finance.add_rule('always', 'night_window', account => 'c', window_start => '12:00:00.000001', window_end => '12:00');
SELECT n, pg_temp.at(moment, "from", 'd', 1)
FROM (VALUES (1, '2026-12-01 22:59:59.999999', 'a'), (2, '2026-12-01 23:00:00', 'a'), (3, '2026-12-01 22:59:59.999999', 'b'),
	(4, '2026-12-01 23:00:00', 'b'), (5, '2026-12-01 11:00:00', 'c'), (6, '2026-12-01 11:00:00.000001', 'c')) AS v (n, moment, "from") ORDER BY n;
SELECT finance.remove_rule(name) FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;

-- ------------------------------------------------------------------------
-- blocklist: either side
-- ------------------------------------------------------------------------

SELECT finance.block_account('a', 'stolen card');
-- without a rule that looks at it the list does nothing
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT finance.add_rule('blocked', 'blocklist');
SELECT finance.block_account('a', 'again');
SELECT finance.block_account(code => 'c', reason => 'sanctioned');
SELECT p.*, t.status, t.rule
FROM (VALUES (1, 'a', 'b'), (2, 'b', 'a'), (3, 'a', 'c'), (4, 'b', 'd')) AS p (n, "from", "to")
	CROSS JOIN LATERAL finance.transfer("from", "to", 7 + n) AS t ORDER BY n;
SELECT amount, ordinal, observed, threshold FROM pg_temp.decided WHERE kind = 'blocklist';
SELECT a.code, l.list, l.reason FROM finance.risk_list l JOIN finance.account a ON a.tenant_id = l.tenant_id AND a.code = l.value WHERE l.tenant_id = :tenant ORDER BY 1;
SELECT finance.unblock_account('a', 'found');
SELECT finance.unblock_account('a', 'found');
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT status FROM finance.transfer('a', 'c', 1);
BEGIN;
SELECT finance.unblock_account('c', 'test');
SELECT status FROM finance.transfer('a', 'c', 1);
ROLLBACK;
SELECT status FROM finance.transfer('a', 'c', 1);
-- a longer list than is kept in memory
BEGIN;
SELECT count(finance.create_account('many ' || n, 'EUR', min_available => NULL)) FROM generate_series(1, 1100) AS n;
SELECT count(*) FROM generate_series(1, 1100) AS n WHERE finance.block_account('many ' || n, 'many');
SELECT (finance.transfer('many 1', 'b', 1)).status AS first, (finance.transfer('b', 'many 1100', 1)).status AS last,
	(finance.transfer('c', 'b', 1)).status AS earlier, (finance.transfer('d', 'b', 1)).status AS not_on_it;
ROLLBACK;
-- blocked, and rolled back with the account itself: the code's next owner is not on the list
BEGIN;
SELECT finance.create_account('ghost', 'EUR') > 0 AS made, finance.block_account('ghost', 'x');
SELECT status FROM finance.transfer('b', 'ghost', 1);
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.block_account('ghost', 'x')$$);
SELECT pg_temp.attempt($$SELECT finance.unblock_account('ghost', 'x')$$);
SELECT pg_temp.attempt($$SELECT finance.add_rule('of a ghost', 'transfer_limit', 1, account => 'ghost')$$);
SELECT finance.create_account('ghost', 'EUR') > 0 AS made;
SELECT status FROM finance.transfer('b', 'ghost', 1);
SELECT finance.block_account('ghost', 'now it is there');
SELECT status FROM finance.transfer('b', 'ghost', 1);

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.' || call) AS result
FROM (VALUES
	(1, 'name taken', 'add_rule(''blocked'', ''transfer_limit'', 1)'),
	(2, 'null name', 'add_rule(NULL, ''transfer_limit'', 1)'),
	(3, 'empty name', 'add_rule('''', ''transfer_limit'', 1)'),
	(4, 'name of 64 bytes', 'add_rule(repeat(''n'', 64), ''transfer_limit'', 1)'),
	(5, 'control character in the name', 'add_rule(E''a\nb'', ''transfer_limit'', 1)'),
	(6, 'unknown kind', 'add_rule(''x'', ''weekly_limit'', 1)'),
	(7, 'null kind', 'add_rule(''x'', NULL, 1)'),
	(8, 'transfer_limit without threshold', 'add_rule(''x'', ''transfer_limit'')'),
	(9, 'daily_limit without threshold', 'add_rule(''x'', ''daily_limit'')'),
	(10, 'negative threshold', 'add_rule(''x'', ''transfer_limit'', -1)'),
	(11, 'threshold a little below zero', 'add_rule(''x'', ''transfer_limit'', -1e-40)'),
	(12, 'NaN', 'add_rule(''x'', ''daily_limit'', ''NaN'')'),
	(13, 'Infinity', 'add_rule(''x'', ''daily_limit'', ''Infinity'')'),
	(14, '-Infinity', 'add_rule(''x'', ''night_window'', ''-Infinity'', window_start => ''1:00'', window_end => ''2:00'')'),
	(15, 'window of a limit', 'add_rule(''x'', ''transfer_limit'', 1, window_start => ''1:00'', window_end => ''2:00'')'),
	(16, 'end of a blocklist', 'add_rule(''x'', ''blocklist'', window_end => ''2:00'')'),
	(17, 'night_window without end', 'add_rule(''x'', ''night_window'', window_start => ''1:00'')'),
	(18, 'night_window without start', 'add_rule(''x'', ''night_window'', window_end => ''1:00'')'),
	(19, 'empty window', 'add_rule(''x'', ''night_window'', window_start => ''1:00'', window_end => ''1:00'')'),
	(20, 'unknown account', 'add_rule(''x'', ''transfer_limit'', 1, account => ''nobody'')'),
	(21, 'unknown currency', 'add_rule(''x'', ''transfer_limit'', 1, currency => ''XXX'')'),
	(22, 'empty currency', 'add_rule(''x'', ''transfer_limit'', 1, currency => '''')'),
	(23, 'remove an unknown rule', 'remove_rule(''nothing'')'),
	(24, 'remove null', 'remove_rule(NULL)'),
	(25, 'enable an unknown rule', 'enable_rule(''nothing'')'),
	(26, 'disable null', 'enable_rule(NULL, false)'),
	(27, 'block an unknown account', 'block_account(''nobody'', ''x'')'),
	(28, 'block without a reason', 'block_account(''b'', NULL)'),
	(29, 'block with an empty reason', 'block_account(''b'', '''')'),
	(30, 'block for too long a reason', 'block_account(''b'', repeat(''r'', 1025))'),
	(31, 'unblock an unknown account', 'unblock_account(''nobody'', ''x'')'),
	(32, 'unblock null', 'unblock_account(NULL, ''x'')'),
	(33, 'zone of an unknown tenant', 'set_tenant_time_zone(2147483647, ''UTC'')'),
	(34, 'unknown zone', 'set_tenant_time_zone(0, ''Mars/Olympus_Mons'')'),
	(35, 'null zone', 'set_tenant_time_zone(0, NULL)')
) AS t (n, what, call) ORDER BY n;
\pset format aligned
SELECT name, kind FROM finance.live_rule WHERE tenant_id = :tenant;
-- a decision is never changed
\set VERBOSITY terse
DELETE FROM finance.risk_decision;
\echo :LAST_ERROR_SQLSTATE
UPDATE finance.risk_decision SET outcome = 'pass';
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default

-- ------------------------------------------------------------------------
-- messages: only to a bound queue, and gone with what made them
-- ------------------------------------------------------------------------

SELECT finance.create_queue('alerts');
SELECT status FROM finance.transfer('b', 'c', 1);
SELECT count(*) FROM finance.message WHERE tenant_id = :tenant;
SELECT finance.bind_topic('risk.#', 'alerts');
SELECT status FROM finance.transfer('b', 'd', 1);
SELECT count(*) FROM finance.message WHERE tenant_id = :tenant;
SELECT status FROM finance.transfer('b', 'c', 2, metadata => '{"case": 9}', reference => 'ref');
SELECT finance.create_queue('moved');
SELECT finance.bind_topic('transfer.completed', 'moved');
SELECT status FROM finance.transfer('b', 'd', 3);
BEGIN;
SELECT status FROM finance.transfer('b', 'd', 4);
SELECT status FROM finance.transfer('b', 'c', 4);
SELECT count(*) FROM finance.message WHERE tenant_id = :tenant;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT status FROM finance.transfer('b', 'd', 5);
SELECT status FROM finance.transfer('b', 'c', 5);
ROLLBACK TO s;
COMMIT;
SELECT pg_temp.attempt($$SELECT finance.transfer('b', 'c', 6, strict => true)$$);
SELECT q, topic, message - '{message_id,timestamp,trace_id}'::text[] #- '{payload,transfer_id}' #- '{payload,alert_id}' AS message
FROM (VALUES ('alerts'), ('moved')) AS v (q) CROSS JOIN LATERAL finance.read(q, 0, 100) ORDER BY q, msg_id;
SELECT finance.unbind_topic('risk.#', 'alerts');
SELECT status FROM finance.transfer('b', 'c', 7);
SELECT count(*) FROM finance.message WHERE tenant_id = :tenant;

-- what operators did is in the audit log, windows and all
SELECT DISTINCT ON (operation) operation, status, request::jsonb - 'tenant_id' AS request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation ~ 'rule|block|zone' ORDER BY operation, id;
SELECT request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'add_rule' AND request->>'name' IN ('night', 'limit of euro of c') ORDER BY id;

SELECT * FROM finance.check_integrity();
