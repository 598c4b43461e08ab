-- What the rules would say without anything being moved: explain_risk() of
-- what is live, shadow, draft; evaluate_risk(); and replay_decision().
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('explain test') AS tenant \gset
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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, '')), '\m\d{17,19}\M', '<id>', 'g');
END $$;
-- all that a transfer or a look could have written
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, _hold, ruleset, risk_rule, risk_decision, risk_measure, risk_total, risk_list, rule_limit, _alert, risk_review, audit_record, message, tenant}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text || t.ctid::text, '';'' ORDER BY t::text)) FROM finance.%I t', name) INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, currency, min_available => min)) FROM (VALUES ('a', 'EUR', NULL), ('b', 'EUR', NULL), ('poor', 'EUR', 0), ('yen', 'JPY', NULL)) AS v (code, currency, min);
SELECT finance.create_queue('alerts'), finance.bind_topic('#', 'alerts'), finance.create_transfer_type('rent');

-- ------------------------------------------------------------------------
-- nothing in force, and drafts
-- ------------------------------------------------------------------------

SELECT * FROM finance.explain_risk('a', 'b', 10);
SELECT * FROM finance.evaluate_risk('a', 'b', 10);
SELECT finance.create_ruleset('draft', score_report => 5, score_reject => 12) AS draft \gset
SELECT * FROM finance.explain_risk('a', 'b', 10, ruleset => :draft);
SELECT finance.add_rule('cap', 'transfer_limit', 50, ruleset => :draft), finance.add_rule('of yen', 'transfer_limit', 1, currency => 'JPY', ruleset => :draft), finance.add_rule('total', 'total_limit', 100, period => 'month', outcome => 'review', score => 5, ruleset => :draft),
	finance.add_rule('rent', 'expression', expression => 'type = ''rent'' or is_hold or reference = ''r'' or metadata->>''x'' = ''y''', outcome => 'report', on_error => 'pass', score => 7, ruleset => :draft), finance.add_rule('off', 'blocklist', ruleset => :draft),
	finance.add_rule('new', 'new_counterparty', outcome => 'challenge', ruleset => :draft);
SELECT finance.enable_rule('off', false, :draft);
SELECT rule, kind, hit, outcome, score, observed, threshold, "window" FROM finance.explain_risk('a', 'b', 10, ruleset => :draft);
-- what a draft counts is summed up from the history
SELECT status FROM finance.transfer('a', 'b', 60);
SELECT rule, hit, outcome, score, observed FROM finance.explain_risk('a', 'b', 40.00, ruleset => :draft);
SELECT rule, hit, outcome, score, observed FROM finance.explain_risk('a', 'b', 40.01, ruleset => :draft);
SELECT mode, rule, hit, outcome, score FROM finance.explain_risk('a', 'b', 60, 'EUR', 'rent', ruleset => :draft);
-- each argument is what it says
SELECT what, (SELECT hit FROM finance.explain_risk('a', 'b', 1, NULL, type, reference, metadata, hold, :draft) WHERE rule = 'rent')
FROM (VALUES (1, 'nothing', 'transfer', NULL, NULL::jsonb, false), (2, 'type', 'rent', NULL, NULL, false), (3, 'reference', 'transfer', 'r', NULL, false), (4, 'metadata', 'transfer', NULL, '{"x": "y"}', false), (5, 'hold', 'transfer', NULL, NULL, true)) AS v (n, what, type, reference, metadata, hold) ORDER BY n;

-- ------------------------------------------------------------------------
-- what is live, and what is shadow
-- ------------------------------------------------------------------------

SELECT finance.publish_ruleset(:draft);
SELECT finance.create_ruleset('shadow') AS shadow \gset
SELECT finance.add_rule('nothing', 'transfer_limit', 0, ruleset => :shadow);
SELECT finance.publish_ruleset(:shadow, 'shadow');
SELECT * FROM finance.explain_risk('a', 'b', 40.01);
SELECT outcome, score, rule, version = :draft AS of_the_live FROM finance.evaluate_risk('a', 'b', 40.01);
SELECT outcome, score, rule FROM finance.evaluate_risk('a', 'b', 60.00);
SELECT outcome, score, rule FROM finance.evaluate_risk('a', 'b', 40.01, type => 'rent');
SELECT outcome, score, rule FROM finance.evaluate_risk('a', 'b', 1);
SELECT version, mode, rule FROM finance.explain_risk('a', 'b', 1, ruleset => :shadow);
-- rules that are not about it say so
SELECT rule, hit, outcome, score, observed, threshold FROM finance.explain_risk('a', 'b', 1) WHERE rule = 'of yen';
-- funds, statuses and limits are not looked at
SELECT outcome FROM finance.evaluate_risk('poor', 'b', 1000000);
SELECT finance.set_account_status('poor', 'frozen') > 0 AS frozen;
SELECT outcome FROM finance.evaluate_risk('poor', 'b', 1);
-- what happens is what was told
SELECT (SELECT array_agg(rule ORDER BY rule) FROM finance.explain_risk('a', 'b', 51) WHERE hit AND rule IS NOT NULL AND mode = 'live') AS told, finance.evaluate_risk('a', 'b', 51) AS evaluated;
SELECT id AS judged, status, rule FROM finance.transfer('a', 'b', 51) \gset
SELECT :'status' AS status, :'rule' AS rule, array_agg(rule ORDER BY rule) AS hits FROM finance.risk_hit WHERE transfer_id = :judged AND mode = 'live';
-- many at once
SELECT max(amount) AS most_that_passes FROM generate_series(1, 50) AS amount, LATERAL finance.evaluate_risk('a', 'b', amount) AS r WHERE r.outcome = 'pass';

-- ------------------------------------------------------------------------
-- nothing is left behind: no row, no lock, no id seen
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS before \gset
BEGIN;
SELECT count(*) FROM finance.explain_risk('a', 'b', 40.01);
SELECT outcome FROM finance.evaluate_risk('a', 'b', 60, type => 'rent', metadata => '{"device": "d", "country": "DE"}');
SELECT count(*) FROM finance.explain_risk('b', 'poor', 1, ruleset => :shadow);
-- no lock on anything but what reading takes; of rows: specs/ruleset_race.spec
SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' ORDER BY 1;
COMMIT;
SELECT pg_temp.attempt('SELECT finance.explain_risk(''a'', ''nobody'', 1)');
SELECT pg_temp.book() = :'before' AS nothing_changed;
-- also after what raised an error in a transaction that goes on, and where much was written before
BEGIN;
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT pg_temp.attempt('SELECT finance.explain_risk(''a'', ''yen'', 1)');
SELECT outcome FROM finance.evaluate_risk('a', 'b', 39.01);
SELECT outcome FROM finance.evaluate_risk('a', 'b', 39.00);
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT outcome FROM finance.evaluate_risk('a', 'b', 38.01);
SAVEPOINT s;
SELECT finance.add_rule('more', 'transfer_limit', 0, outcome => 'reject');
SELECT outcome, rule FROM finance.evaluate_risk('a', 'b', 1);
ROLLBACK TO s;
SELECT outcome, rule FROM finance.evaluate_risk('a', 'b', 1);
ROLLBACK;
SELECT outcome FROM finance.evaluate_risk('a', 'b', 40.00);
-- under each isolation level
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT outcome FROM finance.evaluate_risk('a', 'b', 40.01);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT outcome FROM finance.evaluate_risk('a', 'b', 40.01);
COMMIT;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- replay
-- ------------------------------------------------------------------------

SELECT id AS judged FROM finance.transfer('a', 'b', 51, type => 'rent', reference => 'r', metadata => '{"x": "y", "device": "d", "country": "DE"}', idempotency_key => 'k') \gset
SELECT same, outcome, score, recorded_outcome, jsonb_pretty(hits) AS hits, hits = recorded_hits AS hits_are FROM finance.replay_decision(:judged);
SELECT same, outcome, recorded_outcome FROM finance.replay_decision(transfer_id => :judged, version => :shadow);
SELECT inputs - '{from,to,now,date,time,last_at}'::text[] AS inputs, inputs->'from' ?& '{id,code,type,balance,created_at}' AS payer, inputs ?& '{now,date,time,last_at}' AS times FROM finance.risk_decision WHERE transfer_id = :judged AND mode = 'live';
-- whatever has become of rules, lists, limits and accounts meanwhile
SELECT finance.set_rule_limit('cap', 1000, 'x', account => 'a'), finance.block_account('a', 'x'), finance.set_account_level('a', 'gold') > 0 AS level, finance.publish_ruleset(:shadow), finance.retire_ruleset(:shadow), finance.set_tenant_time_zone(:tenant, 'Asia/Tokyo');
SELECT status FROM finance.transfer('a', 'b', 1000);
SET intervalstyle = 'sql_standard';
SET datestyle = 'German';
SET timezone = 'Asia/Kathmandu';
SET extra_float_digits = 0;
SELECT d.version, r.same, r.outcome FROM finance.risk_decision d, LATERAL finance.replay_decision(d.transfer_id, d.version) AS r WHERE tenant_id = :tenant ORDER BY d.transfer_id, d.version;
RESET intervalstyle;
RESET datestyle;
SET timezone = 'UTC';
-- one that was decided under other settings
SELECT finance.create_ruleset('spans') AS spans \gset
SELECT finance.add_rule('span', 'count_limit', 0, span => '36 hours', ruleset => :spans), finance.add_rule('jump', 'geography_jump', span => '90 minutes', ruleset => :spans), finance.add_rule('asleep', 'dormant_account', span => '1 microsecond', ruleset => :spans),
	finance.add_rule('night', 'night_window', window_start => '00:00', window_end => '24:00', ruleset => :spans), finance.add_rule('split', 'structuring', 10, minimum => 1, times => 1, span => '1 day', ruleset => :spans);
SELECT finance.publish_ruleset(:spans, 'shadow');
SET intervalstyle = 'postgres_verbose';
SET datestyle = 'SQL, DMY';
SELECT id AS there FROM finance.transfer('b', 'a', 5, metadata => '{"country": "DE"}') \gset
SELECT id AS judged FROM finance.transfer('b', 'a', 5, metadata => '{"country": "FR"}') \gset
SET intervalstyle = 'iso_8601';
SET datestyle = 'German';
SELECT same, outcome FROM finance.replay_decision(:judged, :spans);
SELECT rule, threshold, "window" FROM finance.risk_hit WHERE transfer_id = :judged AND version = :spans ORDER BY ordinal;
RESET intervalstyle;
RESET datestyle;

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.' || replace(call, ':judged', :'judged')) AS result
FROM (VALUES
	(1, 'null payer', 'explain_risk(NULL, ''b'', 1)'),
	(2, 'null payee', 'evaluate_risk(''a'', NULL, 1)'),
	(3, 'null amount', 'explain_risk(''a'', ''b'', NULL)'),
	(4, 'null type', 'explain_risk(''a'', ''b'', 1, type => NULL)'),
	(5, 'unknown payer', 'explain_risk(''nobody'', ''b'', 1)'),
	(6, 'unknown payee', 'evaluate_risk(''a'', ''nobody'', 1)'),
	(7, 'the same account', 'explain_risk(''a'', ''a'', 1)'),
	(8, 'another currency', 'explain_risk(''a'', ''yen'', 1)'),
	(9, 'currency that is not the accounts''', 'explain_risk(''a'', ''b'', 1, ''USD'')'),
	(10, 'too fine an amount', 'explain_risk(''a'', ''b'', 1.001)'),
	(11, 'amount of nothing', 'explain_risk(''a'', ''b'', 0)'),
	(12, 'negative amount', 'evaluate_risk(''a'', ''b'', -1)'),
	(13, 'NaN', 'explain_risk(''a'', ''b'', ''NaN'')'),
	(14, 'Infinity', 'explain_risk(''a'', ''b'', ''Infinity'')'),
	(15, 'too large an amount', 'explain_risk(''a'', ''b'', 1e50)'),
	(16, 'metadata that is no object', 'explain_risk(''a'', ''b'', 1, metadata => ''[1]'')'),
	(17, 'unknown ruleset', 'explain_risk(''a'', ''b'', 1, ruleset => 999999)'),
	(18, 'negative ruleset', 'explain_risk(''a'', ''b'', 1, ruleset => -1)'),
	(19, 'ruleset 0', 'explain_risk(''a'', ''b'', 1, ruleset => 0)'),
	(20, 'replay null', 'replay_decision(NULL)'),
	(21, 'replay nothing', 'replay_decision(1)'),
	(22, 'replay another version', 'replay_decision(:judged, 999999)'),
	(23, 'replay what is live, where only a shadow hit', 'replay_decision(:judged)'),
	(24, 'unknown type', 'explain_risk(''a'', ''b'', 1, type => ''no such type'')')
) AS t (n, what, call) ORDER BY n;
\pset format aligned

SELECT * FROM finance.check_integrity();
