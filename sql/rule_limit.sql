-- Limits of rules for an account, a level or a type of accounts: which one
-- holds, for how long, many of them, tenants apart, and what is refused; and
-- the levels of accounts.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('limit test') AS tenant, finance.create_tenant('another limit test') AS other \gset
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

SELECT finance.create_account_type('card', 'credit');
SELECT count(finance.create_account(code, 'EUR', type, min_available => NULL))
FROM (VALUES ('ann', 'card'), ('ben', 'card'), ('cas', 'liability'), ('dan', 'liability')) AS v (code, type);
SELECT finance.add_rule('daily', 'daily_limit', 100), finance.add_rule('single', 'transfer_limit', 50);

-- what holds for each account
CREATE FUNCTION pg_temp.limits(rule text, OUT ann numeric, OUT ben numeric, OUT cas numeric, OUT dan numeric) LANGUAGE sql AS $$
	SELECT finance.rule_limit_of(rule, 'ann'), finance.rule_limit_of(rule, 'ben'), finance.rule_limit_of(rule, 'cas'), finance.rule_limit_of(rule, 'dan') $$;

-- ------------------------------------------------------------------------
-- levels
-- ------------------------------------------------------------------------

SELECT code, level, version FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT finance.set_account_level('ann', 'gold', 'ten years with us'), finance.set_account_level(code => 'cas', level => 'gold');
SELECT finance.set_account_level('ann', 'gold', 'again') AS the_same, finance.set_account_level('ben', NULL) AS none_as_before;
SELECT finance.set_account_level('cas', 'silver', 'less used'), finance.set_account_level('dan', 'silver'), finance.set_account_level('dan', NULL, 'left');
SELECT code, level, version FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT a.code, c.version, c.change, c.old_value, c.new_value, c.reason, c.actor FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE c.tenant_id = :tenant ORDER BY 1, 2;
SELECT a.code, r.operation, r.actor, r.request FROM finance.audit_record r JOIN finance.account a USING (tenant_id, account_id)
WHERE r.tenant_id = :tenant AND r.operation = 'set_account_level' ORDER BY r.id;
-- transfers leave it as it is, one at a time, in a batch, and by statements
SELECT status FROM finance.transfer('ann', 'cas', 1);
SELECT status FROM finance.transfer_batch(ARRAY[finance.request('ann', 'cas', 1), finance.request('cas', 'dan', 1)]);
SET finance.direct_writes = off;
SELECT status FROM finance.transfer('ann', 'cas', 1);
RESET finance.direct_writes;
SELECT code, level, version FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
BEGIN;
SELECT finance.set_account_level('ann', 'silver');
ROLLBACK;
SELECT level FROM finance.account WHERE tenant_id = :tenant AND code = 'ann';

-- ------------------------------------------------------------------------
-- which limit holds
-- ------------------------------------------------------------------------

SELECT * FROM pg_temp.limits('daily');
SELECT finance.set_rule_limit('daily', 500, 'cards spend more', account_type => 'card');
SELECT * FROM pg_temp.limits('daily');
SELECT finance.set_rule_limit('daily', 400.50, 'gold', level => 'gold');
SELECT * FROM pg_temp.limits('daily');
SELECT finance.set_rule_limit('daily', 300, 'asked to', account => 'ann');
SELECT * FROM pg_temp.limits('daily');
SELECT * FROM pg_temp.limits('single');
SELECT * FROM pg_temp.limits('no rule of this name');
-- of another level, another limit
SELECT finance.set_account_level('cas', 'gold', 'more used');
SELECT finance.set_account_level('ben', 'no limit of this level');
SELECT * FROM pg_temp.limits('daily');
-- a level with the name of an account or a type is none
SELECT finance.set_rule_limit('daily', 1, 'x', level => 'dan'), finance.set_rule_limit('daily', 2, 'x', level => 'liability'),
	finance.set_rule_limit('single', 3, 'x', account => 'dan');
SELECT * FROM pg_temp.limits('daily');
SELECT * FROM pg_temp.limits('single');
-- zero is a limit; and a long one
SELECT finance.set_rule_limit('daily', 0, 'nothing at all', account => 'dan'), finance.set_rule_limit('single', 123456789012345678901234567890.123456789, 'x', account => 'dan');
SELECT finance.rule_limit_of('daily', 'dan') AS daily, finance.rule_limit_of('single', 'dan') AS single;

-- temporary ones
SET finance.test_clock = '2030-01-01 12:00';
SELECT finance.set_rule_limit('daily', 1000, 'buys a car', account => 'ann', expires_at => '2030-01-02 12:00'),
	finance.set_rule_limit('daily', 700, 'sales', account_type => 'card', expires_at => '2030-01-03'),
	finance.set_rule_limit('daily', 50, 'a doubt', level => 'gold', expires_at => '2030-01-04');
SELECT * FROM pg_temp.limits('daily');
SET finance.test_clock = '2030-01-02 11:59:59.999999';
SELECT * FROM pg_temp.limits('daily');
SET finance.test_clock = '2030-01-02 12:00';
SELECT * FROM pg_temp.limits('daily');
SET finance.test_clock = '2030-01-03';
SELECT * FROM pg_temp.limits('daily');
SET finance.test_clock = '2030-01-04';
SELECT * FROM pg_temp.limits('daily');
-- another instead of the one there is, over or not
SELECT finance.set_rule_limit('daily', 2000, 'buys a house', account => 'ann', expires_at => '2030-02-01');
SELECT finance.set_rule_limit('daily', 350, 'asked to again', account => 'ann');
SELECT * FROM pg_temp.limits('daily');
SELECT rule, subject, value, temporary, threshold, expires_at, reason, set_by FROM finance.rule_limit WHERE tenant_id = :tenant ORDER BY rule, subject, value, temporary;
-- what is over is removed on request
SELECT finance.remove_expired_entries(1), finance.remove_expired_entries();
SELECT subject, value, temporary FROM finance.rule_limit WHERE tenant_id = :tenant AND temporary ORDER BY 1, 2;

-- taken back: one of the two, or both
SELECT finance.clear_rule_limit('daily', 'done', account => 'ann', temporary => true) AS temporary, finance.clear_rule_limit('daily', 'done', account => 'ann', temporary => true) AS again;
SELECT * FROM pg_temp.limits('daily');
SELECT finance.set_rule_limit('daily', 2000, 'another house', account => 'ann', expires_at => '2030-02-01');
SELECT finance.clear_rule_limit('daily', 'done', account => 'ann', temporary => false) AS lasting;
SELECT * FROM pg_temp.limits('daily');
SELECT finance.set_rule_limit('daily', 300, 'x', account => 'ann');
SELECT finance.clear_rule_limit('daily', 'done', account => 'ann') AS both, finance.clear_rule_limit('daily', 'done', account => 'ann') AS again;
SELECT finance.clear_rule_limit('daily', 'done', account_type => 'card'), finance.clear_rule_limit('daily', 'done', level => 'gold'), finance.clear_rule_limit('daily', 'done', level => 'no such');
SELECT * FROM pg_temp.limits('daily');
RESET finance.test_clock;

-- rolled back
BEGIN;
SELECT finance.set_rule_limit('daily', 7, 'x', account => 'ann');
SELECT finance.rule_limit_of('daily', 'ann');
SAVEPOINT s;
SELECT finance.clear_rule_limit('daily', 'x', account => 'ann');
SELECT finance.rule_limit_of('daily', 'ann');
ROLLBACK TO s;
SELECT finance.rule_limit_of('daily', 'ann');
ROLLBACK;
SELECT finance.rule_limit_of('daily', 'ann');

-- ------------------------------------------------------------------------
-- more than are kept in memory
-- ------------------------------------------------------------------------

SELECT count(finance.create_account('many ' || n, 'EUR', 'card')) FROM generate_series(1, 1100) AS n;
DELETE FROM finance.rule_limit WHERE tenant_id = :tenant;
SELECT count(finance.set_rule_limit('daily', n, 'many', account => 'many ' || n)) FROM generate_series(1, 1020) AS n;
SELECT finance.set_rule_limit('daily', 5000, 'x', account => 'ann', expires_at => '2090-01-01'), finance.set_rule_limit('daily', 6000, 'x', account => 'ann'),
	finance.set_rule_limit('daily', 7000, 'x', level => 'gold'), finance.set_rule_limit('daily', 8000, 'x', account_type => 'card');
CREATE FUNCTION pg_temp.look_ups(OUT by_index bigint, OUT rows_read bigint) LANGUAGE sql AS $$
	SELECT sum(idx_scan)::bigint, sum(idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables WHERE relid = 'finance.rule_limit'::regclass $$;
CREATE FUNCTION pg_temp.all_of(rule text) RETURNS TABLE (code text, threshold numeric) LANGUAGE sql AS $$
	SELECT c, finance.rule_limit_of(rule, c) FROM unnest('{many 1,many 1020,many 1021,ann,ben,cas,dan}'::text[]) AS c $$;
SELECT * FROM pg_temp.all_of('daily');
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT * FROM pg_temp.all_of('daily');
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- the 1,025th
SELECT finance.set_rule_limit('single', 9000, 'x', level => 'gold');
SELECT * FROM pg_temp.all_of('daily');
SELECT * FROM pg_temp.all_of('single');
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT finance.rule_limit_of('daily', 'many 7');
SELECT by_index - :i AS "temporary, lasting of the account", rows_read - :r AS rows_read FROM pg_temp.look_ups();
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT finance.rule_limit_of('daily', 'ben');
SELECT by_index - :i AS "and of level and type, lasting", rows_read - :r AS rows_read FROM pg_temp.look_ups();
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT finance.rule_limit_of('single', 'many 7'), finance.rule_limit_of('no such', 'ann');
SELECT by_index - :i AS "no level, no limit", rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;
-- by statements, and with a snapshot of the transaction
SET finance.direct_writes = off;
SELECT * FROM pg_temp.all_of('daily');
RESET finance.direct_writes;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM pg_temp.all_of('daily');
COMMIT;
SELECT finance.clear_rule_limit('daily', 'x', account => 'ann', temporary => true);
SELECT finance.rule_limit_of('daily', 'ann');
-- few again: found out in time
SELECT count(finance.clear_rule_limit('daily', 'few', account => 'many ' || n)) FROM generate_series(1, 1020) AS n;
SELECT count(finance.rule_limit_of('daily', 'ben')) FROM generate_series(1, 8200) AS n;
BEGIN;
SELECT by_index AS i, rows_read AS r FROM pg_temp.look_ups() \gset
SELECT * FROM pg_temp.all_of('daily');
SELECT by_index - :i AS by_index, rows_read - :r AS rows_read FROM pg_temp.look_ups();
COMMIT;

-- ------------------------------------------------------------------------
-- tenants apart
-- ------------------------------------------------------------------------

SET finance.tenant = :other;
SELECT finance.create_account('ann', 'EUR'), finance.add_rule('daily', 'daily_limit', 1) \g /dev/null
SELECT finance.set_account_level('ann', 'gold') AS version;
SELECT finance.rule_limit_of('daily', 'ann');
SELECT pg_temp.attempt($$SELECT finance.rule_limit_of('daily', 'ben')$$);
SELECT pg_temp.attempt($$SELECT finance.set_rule_limit('daily', 1, 'x', account => 'ben')$$);
SELECT pg_temp.attempt($$SELECT finance.set_rule_limit('single', 1, 'x', account => 'ann')$$);
SELECT pg_temp.attempt($$SELECT finance.set_rule_limit('daily', 1, 'x', account_type => 'card')$$);
SELECT finance.clear_rule_limit('daily', 'x', level => 'gold');
SELECT finance.set_rule_limit('daily', 4, 'theirs', account => 'ann');
BEGIN;
CREATE ROLE regress_fin_limit_reader;
SELECT finance.grant_access('regress_fin_limit_reader', 'auditor');
SET ROLE regress_fin_limit_reader;
SELECT rule, subject, value, threshold FROM finance.rule_limit;
SELECT finance.rule_limit_of('daily', 'ann');
RESET ROLE;
ROLLBACK;
-- more tenants than are kept
SELECT count(finance.create_tenant('limit test ' || n)) FROM generate_series(1, 40) AS n;
DO $$
DECLARE
	t integer;
BEGIN
	FOREACH t IN ARRAY (SELECT array_agg(tenant_id ORDER BY tenant_id) FROM finance.tenant WHERE name ~ '^limit test \d') LOOP
		PERFORM set_config('finance.tenant', t::text, false);
		PERFORM finance.create_account('ann', 'EUR'), finance.add_rule('daily', 'daily_limit', 1);
		PERFORM finance.set_rule_limit('daily', t, 'x', account => 'ann') WHERE t % 2 = 0;
	END LOOP;
	FOR round IN 1..2 LOOP
		FOREACH t IN ARRAY (SELECT array_agg(tenant_id ORDER BY tenant_id) FROM finance.tenant WHERE name ~ '^limit test \d') LOOP
			PERFORM set_config('finance.tenant', t::text, false);
			IF finance.rule_limit_of('daily', 'ann') IS DISTINCT FROM (CASE WHEN t % 2 = 0 THEN t END) THEN
				RAISE 'tenant % has %', t, finance.rule_limit_of('daily', 'ann');
			END IF;
		END LOOP;
	END LOOP;
END $$;
SET finance.tenant = :tenant;
SELECT finance.rule_limit_of('daily', 'ann');

-- ------------------------------------------------------------------------
-- what is refused, and changes nothing
-- ------------------------------------------------------------------------

SELECT finance.create_account('shut', 'EUR') > 0 AS made, finance.set_account_status('shut', 'closed') AS version;
SELECT count(*) AS limits, (SELECT count(*) FROM finance.audit_record) AS records, (SELECT sum(version) FROM finance.account) AS versions FROM finance.rule_limit \gset
\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.' || call) AS result
FROM (VALUES
	(1, 'unknown rule', 'set_rule_limit(''no such'', 1, ''r'', account => ''ann'')'),
	(2, 'null rule', 'set_rule_limit(NULL, 1, ''r'', account => ''ann'')'),
	(3, 'empty rule', 'set_rule_limit('''', 1, ''r'', account => ''ann'')'),
	(4, 'null threshold', 'set_rule_limit(''daily'', NULL, ''r'', account => ''ann'')'),
	(5, 'negative threshold', 'set_rule_limit(''daily'', -0.01, ''r'', account => ''ann'')'),
	(6, 'NaN', 'set_rule_limit(''daily'', ''NaN'', ''r'', account => ''ann'')'),
	(7, 'Infinity', 'set_rule_limit(''daily'', ''Infinity'', ''r'', account => ''ann'')'),
	(8, '-Infinity', 'set_rule_limit(''daily'', ''-Infinity'', ''r'', account => ''ann'')'),
	(9, 'null reason', 'set_rule_limit(''daily'', 1, NULL, account => ''ann'')'),
	(10, 'empty reason', 'set_rule_limit(''daily'', 1, '''', account => ''ann'')'),
	(11, 'for nobody', 'set_rule_limit(''daily'', 1, ''r'')'),
	(12, 'for two', 'set_rule_limit(''daily'', 1, ''r'', account => ''ann'', level => ''gold'')'),
	(13, 'for three', 'set_rule_limit(''daily'', 1, ''r'', ''ann'', ''card'', ''gold'')'),
	(14, 'unknown account', 'set_rule_limit(''daily'', 1, ''r'', account => ''nobody'')'),
	(15, 'unknown type', 'set_rule_limit(''daily'', 1, ''r'', account_type => ''no such'')'),
	(16, 'empty level', 'set_rule_limit(''daily'', 1, ''r'', level => '''')'),
	(17, 'level of 64 bytes', 'set_rule_limit(''daily'', 1, ''r'', level => repeat(''l'', 64))'),
	(18, 'never', 'set_rule_limit(''daily'', 1, ''r'', account => ''ann'', expires_at => ''infinity'')'),
	(19, 'over', 'set_rule_limit(''daily'', 1, ''r'', account => ''ann'', expires_at => ''2020-01-01'')'),
	(20, 'clear for nobody', 'clear_rule_limit(''daily'', ''r'')'),
	(21, 'clear for two', 'clear_rule_limit(''daily'', ''r'', ''ann'', ''card'')'),
	(22, 'clear without a reason', 'clear_rule_limit(''daily'', NULL, ''ann'')'),
	(23, 'clear for an unknown account', 'clear_rule_limit(''daily'', ''r'', ''nobody'')'),
	(24, 'clear for an unknown type', 'clear_rule_limit(''daily'', ''r'', account_type => ''no such'')'),
	(25, 'ask for an unknown account', 'rule_limit_of(''daily'', ''nobody'')'),
	(26, 'ask for null', 'rule_limit_of(''daily'', NULL)'),
	(27, 'ask of a null rule', 'rule_limit_of(NULL, ''ann'')'),
	(28, 'level of an unknown account', 'set_account_level(''nobody'', ''gold'')'),
	(29, 'level of a closed account', 'set_account_level(''shut'', ''gold'')'),
	(30, 'an empty level', 'set_account_level(''ann'', '''')'),
	(31, 'a level of 64 bytes', 'set_account_level(''ann'', repeat(''l'', 64))'),
	(32, 'a level with a control character', 'set_account_level(''ann'', E''gold\n'')'),
	(33, 'a level for too long a reason', 'set_account_level(''ann'', ''x'', repeat(''r'', 1025))')
) AS t (n, what, call) ORDER BY n;
-- past the functions
SELECT what, pg_temp.attempt('INSERT INTO finance.rule_limit VALUES (0, ' || columns || ', ''r'', ''x'', ''2026-01-01'')') AS result
FROM (VALUES
	(1, 'unknown subject', '''r'', ''person'', false, ''x'', 1, NULL'),
	(2, 'NaN', '''r'', ''level'', false, ''x'', ''NaN'', NULL'),
	(3, 'negative', '''r'', ''level'', false, ''x'', -1, NULL'),
	(4, 'temporary without an end', '''r'', ''level'', true, ''x'', 1, NULL'),
	(5, 'lasting with an end', '''r'', ''level'', false, ''x'', 1, ''2026-01-01'''),
	(6, 'endless', '''r'', ''level'', true, ''x'', 1, ''infinity'''),
	(7, 'empty value', '''r'', ''level'', false, '''', 1, NULL')
) AS t (n, what, columns) ORDER BY n;
\pset format aligned
SELECT count(*) - :limits AS limits, (SELECT count(*) FROM finance.audit_record) - :records AS records, (SELECT sum(version) FROM finance.account) - :versions AS versions FROM finance.rule_limit;

-- ------------------------------------------------------------------------
-- who did what, and why
-- ------------------------------------------------------------------------

\pset format unaligned
SELECT r.operation, r.actor, a.code, r.request, r.response FROM finance.audit_record r LEFT JOIN finance.account a USING (tenant_id, account_id)
WHERE r.tenant_id = :tenant AND r.operation ~ 'rule_limit|expired' AND coalesce(r.request->>'account', '') NOT LIKE 'many%' ORDER BY r.id;
SELECT * FROM finance.check_integrity();
