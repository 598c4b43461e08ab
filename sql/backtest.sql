-- backtest_ruleset() and backtest_differences(): what they tell, of which
-- history, to whom, and what they refuse.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('backtest test', 'Europe/Berlin') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET datestyle = 'ISO';

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

-- ------------------------------------------------------------------------
-- an empty history
-- ------------------------------------------------------------------------

SELECT finance.create_ruleset('first') AS first \gset
SELECT finance.add_rule('limit', 'transfer_limit', 100, ruleset => :first);
SELECT finance.add_rule('off', 'transfer_limit', 1, ruleset => :first);
SELECT finance.enable_rule('off', false, :first);
SELECT * FROM finance.backtest_ruleset(:first, '2020-01-01');
SELECT * FROM finance.backtest_differences(:first, '2020-01-01');
SELECT finance.create_ruleset('empty') AS empty \gset
SELECT * FROM finance.backtest_ruleset(:empty, '2020-01-01');

-- ------------------------------------------------------------------------
-- a history of known times
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('a', 'EUR'), ('b', 'EUR'), ('c', 'EUR'), ('shop', 'EUR'), ('yen', 'JPY'), ('yen shop', 'JPY')) AS v (code, currency);
SELECT finance.set_account_level('b', 'gold');
SELECT count(*) FROM finance.import_transfers(ARRAY(
	SELECT finance.request("from", "to", amount, metadata => metadata::jsonb, recorded_at => at::timestamptz)
	FROM (VALUES
		(1, 'a', 'shop', 60, '2024-03-01 10:00+01', '{"device": "phone", "country": "DE"}'),
		(2, 'a', 'shop', 60, '2024-03-01 23:59:59+01', NULL),
		(3, 'a', 'shop', 60, '2024-03-02 00:00+01', NULL),
		(4, 'b', 'shop', 150, '2024-03-02 12:00+01', NULL),
		(5, 'yen', 'yen shop', 101, '2024-03-02 13:00+01', NULL),
		(6, 'a', 'b', 10, '2024-03-20 10:00+01', '{"device": "laptop", "country": "FR"}'),
		(7, 'a', 'b', 45, '2024-03-30 10:00+01', '{"device": "phone"}'),
		(8, 'a', 'b', 45, '2024-03-31 04:30+02', NULL),	-- the hour after that which is skipped
		(9, 'a', 'c', 45, '2024-04-01 10:00+02', NULL),
		(10, 'b', 'a', 45, '2024-06-01 10:00+02', NULL),	-- what b got on the 20th and 30th of March does not count
		(11, 'c', 'a', 45, '2024-06-01 11:00+02', NULL))
	AS v (n, "from", "to", amount, at, metadata) ORDER BY n));

SELECT * FROM finance.backtest_ruleset(:first, '2020-01-01');
-- from, inclusive, to, exclusive; in one currency; nothing
SELECT rule, currency, transfers, hits, amount FROM finance.backtest_ruleset(:first, '2024-03-02 12:00+01', '2024-03-02 13:00+01');
SELECT rule, currency, transfers, hits, amount FROM finance.backtest_ruleset(:first, '2024-03-02 12:00+01', '2024-03-02 12:00+01');
SELECT rule, currency, transfers, hits, amount FROM finance.backtest_ruleset(:first, '2025-01-01');

-- totals are warm when it begins, wherever that is
SELECT finance.create_ruleset('totals') AS totals \gset
SELECT finance.add_rule('daily', 'daily_limit', 100, ruleset => :totals);
SELECT finance.add_rule('day', 'total_limit', 100, period => 'day', ruleset => :totals, outcome => 'review');
SELECT finance.add_rule('month', 'count_limit', 4, period => 'month', ruleset => :totals, outcome => 'report');
SELECT finance.add_rule('sliding', 'total_limit', 100, span => '36 hours', ruleset => :totals, outcome => 'report');
SELECT finance.add_rule('new', 'new_counterparty', ruleset => :totals, outcome => 'report');
SELECT finance.add_rule('changed', 'device_change', ruleset => :totals, outcome => 'report');
SELECT finance.add_rule('asleep', 'dormant_account', span => '60 days', ruleset => :totals, outcome => 'report');
SELECT finance.add_rule('idle', 'expression', expression => 'from_idle_days > 5 AND local_time < time ''05:00''', ruleset => :totals, outcome => 'report', on_error => 'pass');
SELECT b.rule, b.currency, v.at, b.hits FROM (VALUES ('2020-01-01'::timestamptz), ('2024-03-01 23:59:59+01'), ('2024-03-02 00:00+01'),
		('2024-03-31 04:30+02'), ('2024-04-01 10:00+02'), ('2024-06-01 10:00+02')) AS v (at)
	CROSS JOIN LATERAL finance.backtest_ruleset(:totals, v.at, CASE WHEN v.at > '2024-01-01' THEN v.at + interval '1 ms' END) b
WHERE b.hits > 0 ORDER BY b.rule NULLS FIRST, v.at, b.currency;
SELECT d.outcome_then, d.outcome_now, d.rule, t.recorded_at, t.amount
FROM finance.backtest_differences(:totals, '2020-01-01') d JOIN finance.transfer t ON t.id = d.transfer_id ORDER BY t.id;
SELECT count(*) FROM finance.backtest_differences(:totals, '2020-01-01', "limit" => 2);
-- with only rules that look a little back, or not at all
SELECT finance.create_ruleset('short') AS short \gset
SELECT finance.add_rule('asleep', 'dormant_account', span => '60 days', ruleset => :short);
SELECT d.outcome_now, d.rule, t.recorded_at FROM finance.backtest_differences(:short, '2024-03-15') d
JOIN finance.transfer t ON t.id = d.transfer_id ORDER BY t.id;

-- lists, levels, limits and zones are those of today; what expires does so then
SELECT finance.create_ruleset('today') AS today \gset
SELECT finance.add_rule('gold', 'transfer_limit', 100, level => 'gold', ruleset => :today);
SELECT finance.add_rule('limit', 'transfer_limit', 50, ruleset => :today);
SELECT finance.add_rule('blocked', 'blocklist', ruleset => :today, outcome => 'review');
SELECT finance.add_rule('night', 'night_window', window_start => '23:00', window_end => '05:00', ruleset => :today, outcome => 'report');
SELECT finance.publish_ruleset(:today, 'shadow');
SELECT finance.set_rule_limit('limit', 1000, 'test', account => 'a');
SELECT finance.add_to_list('blocklist', 'account', 'c', 'test');
BEGIN;
SET LOCAL finance.test_clock = '2024-01-01';
SELECT finance.set_rule_limit('limit', 20, 'test', account => 'a', expires_at => '2024-03-01 12:00+01');
SELECT finance.add_to_list('blocklist', 'account', 'shop', 'test', '2024-03-02 00:00+01');
COMMIT;
SELECT d.outcome_now, d.rule, t.recorded_at, t.amount FROM finance.backtest_differences(:today, '2020-01-01') d
JOIN finance.transfer t ON t.id = d.transfer_id ORDER BY t.id;
SELECT finance.retire_ruleset(:today);

-- ------------------------------------------------------------------------
-- against what happened
-- ------------------------------------------------------------------------

SELECT clock_timestamp() AS live_from \gset
SET finance.actor = 'clerk';
SELECT finance.create_ruleset('live', score_review => 10) AS live \gset
SELECT finance.add_rule('limit', 'transfer_limit', 100, ruleset => :live);
SELECT finance.add_rule('strange', 'round_amount', 7, outcome => 'pass', score => 10, ruleset => :live);
SELECT finance.add_rule('large', 'large_value', 80, ruleset => :live);
SELECT finance.publish_ruleset(:live);
SELECT n, t.status, t.rule FROM (VALUES (1, 10), (2, 90), (3, 101), (4, 300), (5, 14), (6, 50), (7, 100)) AS v (n, amount)
	CROSS JOIN LATERAL finance.transfer('a', 'shop', amount) AS t ORDER BY n;
SELECT n, h.status FROM (VALUES (1, 30), (2, 200)) AS v (n, amount) CROSS JOIN LATERAL finance.hold('b', 'shop', amount) AS h ORDER BY n;
SELECT * FROM finance.backtest_ruleset(:live, :'live_from');
SELECT finance.create_ruleset('other') AS other \gset
SELECT finance.add_rule('limit', 'transfer_limit', 200, ruleset => :other);
SELECT finance.add_rule('small', 'transfer_limit', minimum => 20, outcome => 'challenge', ruleset => :other);
SELECT finance.add_rule('held', 'expression', expression => 'is_hold', outcome => 'report', ruleset => :other);
SELECT * FROM finance.backtest_ruleset(:other, :'live_from');
SELECT t.amount, t.status, d.outcome_then, d.outcome_now, d.rule
FROM finance.backtest_differences(:other, :'live_from') d JOIN finance.transfer t ON t.id = d.transfer_id ORDER BY t.id;
-- captures and releases are not judged: their hold was
SELECT count(finance.release(h.hold_id)) FROM finance.hold h WHERE h.tenant_id = :tenant AND h.status = 'open' AND h.amount = 30;
SET finance.actor = 'chief';
SELECT r.status, finance.review_transfer(r.transfer_id, false, 'no') IS NULL AS failed FROM finance.risk_review r WHERE r.tenant_id = :tenant;
RESET finance.actor;
SELECT transfers FROM finance.backtest_ruleset(:other, :'live_from') WHERE rule IS NULL;

-- ------------------------------------------------------------------------
-- reads only, in one snapshot
-- ------------------------------------------------------------------------

BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT count(*) FROM finance.backtest_ruleset(:other, '2020-01-01');
SELECT count(*) FROM finance.backtest_differences(:other, '2020-01-01');
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
SELECT DISTINCT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid() ORDER BY 1, 2;
COMMIT;
-- of a function that sees what its statement does
BEGIN;
SELECT status FROM finance.transfer('a', 'shop', 21);
SELECT sum(transfers) FROM finance.backtest_ruleset(:other, :'live_from') WHERE rule IS NULL;
ROLLBACK;
SELECT sum(transfers) FROM finance.backtest_ruleset(:other, :'live_from') WHERE rule IS NULL;

-- ------------------------------------------------------------------------
-- other tenants, privileges
-- ------------------------------------------------------------------------

SELECT finance.create_tenant('backtest neighbour') AS neighbour \gset
SET finance.tenant = :neighbour;
SELECT pg_temp.attempt(format('SELECT finance.backtest_ruleset(%s, %L)', :live, '2020-01-01'));
SELECT finance.create_ruleset('mine') AS mine \gset
SELECT finance.add_rule('all', 'transfer_limit', 0, ruleset => :mine);
SELECT * FROM finance.backtest_ruleset(:mine, '2020-01-01');
SET finance.tenant = :tenant;

CREATE ROLE finance_backtest_app;
CREATE ROLE finance_backtest_operator;
CREATE ROLE finance_backtest_auditor;
SELECT finance.grant_access('finance_backtest_app', 'app'), finance.grant_access('finance_backtest_operator', 'operator'),
	finance.grant_access('finance_backtest_auditor', 'auditor');
SELECT set_config('test.call', format('SELECT finance.backtest_ruleset(%s, %L), finance.backtest_differences(%s, %L)',
	:live, '2020-01-01', :live, '2020-01-01'), false) IS NULL AS call;
SET ROLE finance_backtest_app;
SELECT pg_temp.attempt(current_setting('test.call'));
SET ROLE finance_backtest_operator;
SELECT pg_temp.attempt(current_setting('test.call'));
SET ROLE finance_backtest_auditor;
SELECT pg_temp.attempt(current_setting('test.call'));
RESET ROLE;
SET client_min_messages = warning;
DROP OWNED BY finance_backtest_app, finance_backtest_operator, finance_backtest_auditor;
DROP ROLE finance_backtest_app, finance_backtest_operator, finance_backtest_auditor;
RESET client_min_messages;

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

SELECT n, pg_temp.attempt(format(call, :live, :live))
FROM (VALUES
	(1, $$SELECT finance.backtest_ruleset(0, '2020-01-01')$$),
	(2, $$SELECT finance.backtest_ruleset(1000, '2020-01-01')$$),
	(3, $$SELECT finance.backtest_ruleset(NULL, '2020-01-01')$$),
	(4, $$SELECT finance.backtest_ruleset(%s, NULL)$$),
	(5, $$SELECT finance.backtest_ruleset(%s, '-infinity')$$),
	(6, $$SELECT finance.backtest_ruleset(%s, '2020-01-01', 'infinity')$$),
	(7, $$SELECT finance.backtest_ruleset(%s, '2020-01-02', '2020-01-01')$$),
	(8, $$SELECT finance.backtest_ruleset(%s, '2020-01-01', '2020-01-01')$$),
	(9, $$SELECT finance.backtest_ruleset(%s, '4714-11-24 BC', '294276-01-01')$$),
	(10, $$SELECT finance.backtest_differences(-1, '2020-01-01')$$),
	(11, $$SELECT finance.backtest_differences(%s, '2020-01-02', '2020-01-01')$$),
	(12, $$SELECT finance.backtest_differences(%s, '2020-01-01', "limit" => NULL)$$),
	(13, $$SELECT finance.backtest_differences(%s, '2020-01-01', "limit" => 0)$$),
	(14, $$SELECT finance.backtest_differences(%s, '2020-01-01', "limit" => 1000001)$$)
) AS v (n, call) ORDER BY n;

-- more to remember than there may be
SELECT count(finance.create_account('many ' || n, 'EUR', min_available => NULL)) FROM generate_series(1, 600) AS n;
SELECT count(*) FROM finance.import_transfers(ARRAY(
	SELECT finance.request('many ' || n, 'many ' || n % 600 + 1, 1, recorded_at => '2025-01-01'::timestamptz + n * interval '1 second')
	FROM generate_series(1, 600) AS n ORDER BY n));
SELECT finance.create_ruleset('much') AS much \gset
SELECT finance.add_rule('pairs', 'velocity', 5, per => 'pair', span => '1 day', ruleset => :much);
SET maintenance_work_mem = '1MB';
SELECT pg_temp.attempt(format('SELECT finance.backtest_ruleset(%s, %L)', :much, '2025-01-01'));
SELECT pg_temp.attempt(format('SELECT finance.backtest_differences(%s, %L)', :much, '2025-01-01'));
RESET maintenance_work_mem;
SELECT transfers, hits FROM finance.backtest_ruleset(:much, '2025-01-01', '2025-01-02') WHERE rule IS NULL;

SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- idle is who paid nothing: what he got, and what is parked, wakes nobody up
-- ------------------------------------------------------------------------

SELECT finance.create_tenant('back-test of the idle') AS idle \gset
SET finance.tenant = :idle;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{transfers,holds,friend}'::text[]) AS code;
-- opened long ago, and since then nothing
UPDATE finance._account SET created_at = created_at - interval '2 years' WHERE tenant_id = :idle AND code <> 'friend';
SELECT finance.create_ruleset('idle') AS idle_rules \gset
SELECT finance.add_rule('asleep', 'dormant_account', 50, span => '30 days', ruleset => :idle_rules, outcome => 'reject');
SELECT finance.add_rule('idle', 'expression', expression => 'from_idle_days > 30', ruleset => :idle_rules, outcome => 'report');
SELECT finance.add_rule('small', 'transfer_limit', 10, account => 'transfers', ruleset => :idle_rules, outcome => 'review');
SELECT finance.add_rule('small hold', 'transfer_limit', 10, account => 'holds', ruleset => :idle_rules, outcome => 'challenge');
SELECT finance.publish_ruleset(:idle_rules);
SET finance.actor = 'maker';
SELECT status, rule FROM finance.transfer('transfers', 'friend', 100);
SELECT status FROM finance.transfer('friend', 'transfers', 5);
SELECT status, rule FROM finance.transfer('transfers', 'friend', 100);
SELECT id, status, rule FROM finance.transfer('transfers', 'friend', 20) \gset p_
SELECT :'p_status' AS status, :'p_rule' AS rule;
SELECT status, rule FROM finance.transfer('transfers', 'friend', 100);
-- nor for what comes behind it in the same call
SELECT status, rule FROM finance.transfer_batch(ARRAY[finance.request('transfers', 'friend', 30), finance.request('transfers', 'friend', 100)]);
SET finance.actor = 'checker';
SELECT status FROM finance.review_transfer(:p_id, false, 'no');
SELECT status, rule FROM finance.transfer('transfers', 'friend', 100);
SELECT status FROM finance.review_transfer((SELECT max(transfer_id) FROM finance.risk_review WHERE tenant_id = :idle AND status = 'open'), true);
-- now he has paid
SELECT status, rule FROM finance.transfer('transfers', 'friend', 100);
SET finance.actor = 'maker';
SELECT id, token, status, rule FROM finance.hold('holds', 'friend', 20) \gset p_
SELECT :'p_status' AS status, :'p_rule' AS rule;
SELECT status, rule FROM finance.hold('holds', 'friend', 100);
SELECT confirmed, status FROM finance.confirm_challenge(:p_id, :'p_token');
SELECT status, rule FROM finance.hold('holds', 'friend', 100);
-- what passed in a call counts for what comes behind it, unless it is undone
UPDATE finance._account SET last_debit_id = 0 WHERE tenant_id = :idle AND code = 'transfers';
BEGIN;
SELECT status, rule FROM finance.transfer_batch(ARRAY[finance.request('transfers', 'friend', 5), finance.request('transfers', 'friend', 60)]);
ROLLBACK;
BEGIN;
SELECT status, rule FROM finance.transfer_batch(ARRAY[finance.request('transfers', 'friend', 5, linked => true), finance.request('transfers', 'nobody', 5), finance.request('transfers', 'friend', 60)]);
ROLLBACK;
-- judged again, all is as it was
SELECT rule, currency, transfers, hits, agree FROM finance.backtest_ruleset(:idle_rules, '2020-01-01') ORDER BY rule NULLS FIRST;
SELECT count(*) AS differences FROM finance.backtest_differences(:idle_rules, '2020-01-01');
SELECT bool_and((finance.replay_decision(d.transfer_id)).same) AS replayed FROM finance.risk_decision d WHERE d.tenant_id = :idle;
RESET finance.actor;
SELECT * FROM finance.check_integrity();
