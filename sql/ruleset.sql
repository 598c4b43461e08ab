-- Versions of the rules: drafts, publishing, shadows, rolling back; what was
-- published never changes; what is told of it, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('ruleset test', 'Europe/Berlin') AS tenant, finance.create_tenant('another ruleset test') AS other \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET finance.actor = 'olga';
SET finance.test_clock = '2026-11-25 12:00+00';

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, '')), ' \| (Failing row|Key).*', '');
END $$;

CREATE VIEW pg_temp.versions AS
SELECT s.version, s.name, s.mode, s.copy_of, s.created_by, s.published_by, string_agg(r.name || coalesce(' ' || r.threshold, '')
	|| CASE WHEN r.enabled THEN '' ELSE ' off' END, ', ' ORDER BY r.name) AS rules
FROM finance.ruleset s LEFT JOIN finance.risk_rule r USING (tenant_id, version)
WHERE s.tenant_id = current_setting('finance.tenant')::integer GROUP BY s.tenant_id, s.version ORDER BY s.version;
CREATE VIEW pg_temp.measures AS
SELECT scope, period, span, band_min, band_max FROM finance.risk_measure
WHERE tenant_id = current_setting('finance.tenant')::integer ORDER BY 1, 2, 3, 4;

SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a,b,c,d}'::text[]) AS code;

-- ------------------------------------------------------------------------
-- a draft is edited and judges nothing
-- ------------------------------------------------------------------------

-- without rules everything passes, and nothing is recorded
SELECT status, rule FROM finance.transfer('a', 'b', 1000);
SELECT * FROM pg_temp.versions;
SELECT name, kind, outcome, version FROM finance.live_rule WHERE tenant_id = :tenant;

SELECT finance.create_ruleset('first') AS first \gset
SELECT :first AS first;
SELECT finance.add_rule('cap', 'transfer_limit', 100, ruleset => :first),
	finance.add_rule('day', 'total_limit', 500, period => 'day', ruleset => :first),
	finance.add_rule('odd', 'expression', expression => 'amount % 2 = 1', outcome => 'report', ruleset => :first, description => 'what is odd'),
	finance.add_rule('gone', 'transfer_limit', 1, ruleset => :first);
SELECT finance.remove_rule('gone', :first), finance.enable_rule('odd', false, ruleset => :first);
SELECT finance.enable_rule('odd', ruleset => :first), finance.enable_rule('day', enabled => false, ruleset => :first);
SELECT status, rule FROM finance.transfer('a', 'b', 1000);
SELECT * FROM pg_temp.versions;
SELECT * FROM pg_temp.measures;
SELECT outcome, rule, version FROM finance.evaluate_risk('a', 'b', 1000);

-- published, it judges; the transfer before is not looked at again
SELECT finance.publish_ruleset(:first);
SELECT * FROM pg_temp.versions;
SELECT name, kind, outcome, threshold, enabled, description FROM finance.live_rule WHERE tenant_id = :tenant ORDER BY name;
SELECT status, rule FROM finance.transfer('a', 'b', 101);
SELECT status, rule FROM finance.transfer('a', 'b', 99);
SELECT t.amount::numeric, d.version, d.mode, d.outcome, d.score, d.rule, d.latency_us > 0 AS latency, jsonb_array_length(d.hits) AS hits
FROM finance.risk_decision d JOIN finance.transfer t ON t.id = d.transfer_id WHERE d.tenant_id = :tenant ORDER BY t.id;
SELECT t.amount::numeric, h.version, h.mode, h.ordinal, h.rule, h.kind, h.outcome, h.score, h.observed, h.threshold, h."window"
FROM finance.risk_hit h JOIN finance.transfer t ON t.id = h.transfer_id WHERE h.tenant_id = :tenant ORDER BY t.id, h.ordinal;

-- a copy has the rules and the settings, but for those that are given
SELECT finance.create_ruleset('scored', score_report => 10, score_challenge => 20, score_review => 30, score_reject => 40,
	review_timeout => '2 days', review_default => 'approve', challenge_timeout => '1 minute') AS scored \gset
SELECT finance.create_ruleset('scored too', copy_of => :scored, score_reject => 50, review_timeout => '3 hours') AS copy \gset
SELECT finance.create_ruleset('second', copy_of => :first) AS second \gset
SELECT version, name, mode, score_report, score_challenge, score_review, score_reject, review_timeout, review_default, challenge_timeout, copy_of
FROM finance.ruleset WHERE tenant_id = :tenant ORDER BY version;
SELECT finance.remove_rule('cap', :second), finance.add_rule('cap', 'transfer_limit', 200, ruleset => :second),
	finance.enable_rule('day', ruleset => :second);
-- what the copy was made of is as it was
SELECT * FROM pg_temp.versions;
SELECT status, rule FROM finance.transfer('a', 'b', 102);
SELECT finance.publish_ruleset(version => :second, mode => 'live');
SELECT status, rule FROM finance.transfer('a', 'b', 102);
SELECT status, rule FROM finance.transfer('a', 'b', 202);
SELECT * FROM pg_temp.measures;
-- to publish what is live changes nothing
SELECT finance.publish_ruleset(:second);
SELECT * FROM pg_temp.versions;

-- ------------------------------------------------------------------------
-- back: what was published before is published again
-- ------------------------------------------------------------------------

SELECT published_at AS then FROM finance.ruleset WHERE tenant_id = :tenant AND version = :first \gset
SET finance.actor = 'rolf';
SELECT finance.publish_ruleset(:first);
SELECT published_at > :'then' AS later, published_at <= now() AS now, published_by FROM finance.ruleset WHERE tenant_id = :tenant AND version = :first;
SELECT published_at AS then FROM finance.ruleset WHERE tenant_id = :tenant AND version = :first \gset
-- what is live already is not published again, nor by being retired
SET finance.actor = 'olga';
SELECT finance.publish_ruleset(:first);
SELECT status, rule FROM finance.transfer('a', 'b', 102);
SELECT finance.publish_ruleset(:second);
SELECT published_at = :'then' AS the_same, published_by FROM finance.ruleset WHERE tenant_id = :tenant AND version = :first;
SELECT status, rule FROM finance.transfer('a', 'b', 102);
SELECT version, mode, published_by FROM finance.ruleset WHERE tenant_id = :tenant AND mode <> 'draft' ORDER BY version;
-- what moved meanwhile counts: 180 + 100 + 200, the second of it when nothing was counted
SELECT status, rule FROM finance.transfer('c', 'b', 180);
SELECT finance.publish_ruleset(:first);
SELECT status FROM finance.transfer('c', 'b', 100);
SELECT finance.publish_ruleset(:second);
SELECT status, rule FROM finance.transfer('c', 'b', 200);
SELECT status, rule FROM finance.transfer('c', 'b', 22);
SELECT status, rule FROM finance.transfer('c', 'b', 20);
SELECT observed, threshold, "window" FROM finance.risk_hit WHERE tenant_id = :tenant AND rule = 'day' ORDER BY transfer_id DESC LIMIT 1;

-- out of force: nothing is judged, and back again
SELECT finance.retire_ruleset(:second);
SELECT status FROM finance.transfer('a', 'b', 1002);
SELECT * FROM finance.live_rule WHERE tenant_id = :tenant;
SELECT outcome, score, rule, version FROM finance.evaluate_risk('a', 'b', 1002);
SELECT * FROM pg_temp.measures;
SELECT finance.publish_ruleset(:second);
SELECT status, rule FROM finance.transfer('a', 'b', 1002);

-- ------------------------------------------------------------------------
-- without a ruleset a change makes a version that is live at once
-- ------------------------------------------------------------------------

SELECT finance.add_rule('little', 'transfer_limit', 50, account => 'b');
SELECT finance.enable_rule('little', false);
SELECT finance.remove_rule('odd');
SELECT * FROM pg_temp.versions ORDER BY version DESC LIMIT 4;
-- also where nothing is live
SELECT finance.retire_ruleset(version) FROM finance.ruleset WHERE tenant_id = :tenant AND mode = 'live';
SELECT finance.add_rule('alone', 'transfer_limit', 7);
SELECT * FROM pg_temp.versions ORDER BY version DESC LIMIT 2;
SELECT status, rule FROM finance.transfer('a', 'b', 8);
SELECT finance.remove_rule('alone');
SELECT status, rule FROM finance.transfer('a', 'b', 8);
SELECT finance.publish_ruleset(:second);
-- what fails leaves no version
SELECT max(version) AS before FROM finance.ruleset WHERE tenant_id = :tenant \gset
SELECT pg_temp.attempt($$SELECT finance.remove_rule('nothing')$$);
SELECT pg_temp.attempt($$SELECT finance.add_rule('cap', 'transfer_limit', 7)$$);
SELECT max(version) - :before AS more FROM finance.ruleset WHERE tenant_id = :tenant;
-- nor what is rolled back; the number is drawn again
BEGIN;
SELECT finance.create_ruleset('for nothing') - :before AS number;
SELECT finance.add_rule('alone', 'transfer_limit', 7);
SELECT status, rule FROM finance.transfer('a', 'b', 8);
SAVEPOINT s;
SELECT finance.publish_ruleset(:first);
SELECT status, rule FROM finance.transfer('a', 'b', 102);
ROLLBACK TO s;
SELECT status, rule FROM finance.transfer('a', 'b', 8);
ROLLBACK;
SELECT status, rule FROM finance.transfer('a', 'b', 8);
SELECT finance.create_ruleset('dropped') AS dropped \gset
SELECT :dropped - :before AS number;

-- ------------------------------------------------------------------------
-- a draft can go
-- ------------------------------------------------------------------------

SELECT finance.add_rule('r', 'transfer_limit', 1, ruleset => :dropped);
SELECT finance.drop_ruleset(:dropped);
SELECT count(*) FROM finance.ruleset WHERE tenant_id = :tenant AND version = :dropped;
SELECT count(*) FROM finance.risk_rule WHERE tenant_id = :tenant AND version = :dropped;

-- ------------------------------------------------------------------------
-- shadows: evaluated, recorded, never acted upon
-- ------------------------------------------------------------------------

SELECT finance.create_ruleset('strict') AS shadow, finance.create_ruleset('lax') AS lax \gset
SELECT finance.add_rule('nothing at all', 'transfer_limit', 0, ruleset => :shadow), finance.add_rule('odd', 'expression', expression => 'amount % 2 = 1', ruleset => :shadow),
	finance.add_rule('many', 'count_limit', 0, per => 'pair', span => '1 hour', ruleset => :shadow);
SELECT finance.add_rule('ten', 'transfer_limit', 10, outcome => 'report', ruleset => :lax);
SELECT finance.publish_ruleset(:shadow, 'shadow'), finance.publish_ruleset(:lax, 'shadow');
SELECT version, mode FROM finance.ruleset WHERE tenant_id = :tenant AND mode IN ('live', 'shadow') ORDER BY version;
SELECT * FROM pg_temp.measures;
SELECT id AS judged, status FROM finance.transfer('d', 'b', 9) \gset
SELECT :'status' AS status;
SELECT version, mode, outcome, score, rule FROM finance.risk_decision WHERE tenant_id = :tenant AND transfer_id = :judged ORDER BY version;
SELECT version, mode, ordinal, rule, kind, outcome, observed, threshold, "window" FROM finance.risk_hit WHERE tenant_id = :tenant AND transfer_id = :judged ORDER BY version, ordinal;
-- all rulesets that are hit say so; what is acted upon is the live one
SELECT id AS judged, status, rule FROM finance.transfer('d', 'b', 203) \gset
SELECT :'status' AS status, :'rule' AS rule;
SELECT version, mode, outcome, rule, jsonb_array_length(hits) AS hits FROM finance.risk_decision WHERE tenant_id = :tenant AND transfer_id = :judged ORDER BY version;
SELECT same, outcome FROM finance.replay_decision(:judged);
SELECT d.version, r.same, r.outcome, r.score, r.recorded_outcome, r.hits = d.hits AND r.recorded_hits = d.hits AS hits FROM finance.risk_decision d, LATERAL finance.replay_decision(transfer_id, version) AS r WHERE tenant_id = :tenant AND transfer_id = :judged ORDER BY d.version;
-- strict callers, holds, batches and journals are not stopped by them either
SELECT status FROM finance.transfer('d', 'b', 9, strict => true);
SELECT status FROM finance.hold('d', 'b', 9);
SELECT status FROM finance.transfer_batch(ARRAY[finance.request('d', 'b', 9, linked => true), finance.request('b', 'd', 9)]);
SELECT status FROM finance.journal(ARRAY[finance.leg('d', 'debit', 9), finance.leg('b', 'credit', 5), finance.leg('c', 'credit', 4)]);
-- a shadow becomes live, and what was live a shadow
SELECT finance.publish_ruleset(:lax);
SELECT version, mode FROM finance.ruleset WHERE tenant_id = :tenant AND version IN (:second, :lax) ORDER BY version;
SELECT status, rule FROM finance.transfer('a', 'b', 203);
SELECT finance.publish_ruleset(:second), finance.publish_ruleset(:lax, 'shadow');
SELECT status, rule FROM finance.transfer('a', 'b', 203);
-- what is live may become a shadow: then nothing is
SELECT finance.publish_ruleset(:second, 'shadow');
SELECT status FROM finance.transfer('a', 'b', 203);
SELECT finance.publish_ruleset(:second), finance.retire_ruleset(:shadow), finance.retire_ruleset(:lax);
SELECT version, mode FROM finance.ruleset WHERE tenant_id = :tenant AND mode IN ('live', 'shadow') ORDER BY version;
SELECT * FROM pg_temp.measures;
-- at most eight
BEGIN;
SELECT count(finance.publish_ruleset(finance.create_ruleset('shadow ' || n), 'shadow')) FROM generate_series(1, 8) AS n;
SAVEPOINT s;
SELECT finance.publish_ruleset(finance.create_ruleset('one too many'), 'shadow');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
-- one of them again is no more
SELECT finance.publish_ruleset(max(version), 'shadow') FROM finance.ruleset WHERE tenant_id = :tenant;
SELECT finance.publish_ruleset(max(version)) FROM finance.ruleset WHERE tenant_id = :tenant;
SELECT finance.publish_ruleset(finance.create_ruleset('one in its place'), 'shadow');
ROLLBACK;

-- ------------------------------------------------------------------------
-- scores
-- ------------------------------------------------------------------------

SELECT finance.add_rule('round', 'round_amount', 10, outcome => 'pass', score => 15, ruleset => :scored),
	finance.add_rule('large', 'large_value', 100, outcome => 'pass', score => 25, ruleset => :scored),
	finance.add_rule('known', 'watchlist', list => 'friends', subject => 'payee', outcome => 'pass', score => -10, ruleset => :scored),
	finance.add_rule('told', 'transfer_limit', 300, outcome => 'report', ruleset => :scored);
SELECT finance.add_to_list('friends', 'account', 'c', 'an old friend');
SELECT finance.publish_ruleset(:scored);
SELECT v.*, r.outcome, r.score, r.rule FROM (VALUES (1, 9, 'b'), (2, 10, 'b'), (3, 10, 'c'), (4, 101, 'b'), (5, 101, 'c'), (6, 100, 'b'), (7, 100, 'c'), (8, 301, 'c'), (9, 310, 'c'), (10, 9, 'c')) AS v (n, amount, payee),
	LATERAL finance.evaluate_risk('a', payee, amount) AS r ORDER BY n;
-- a score of exactly what is asked for is enough; a rule that hits for its score alone is recorded
SELECT id AS judged, status FROM finance.transfer('a', 'b', 100) \gset
SELECT :'status' AS status;
SELECT mode, outcome, score, rule, jsonb_array_length(hits) AS hits FROM finance.risk_decision WHERE tenant_id = :tenant AND transfer_id = :judged;
SELECT ordinal, rule, outcome, score FROM finance.risk_hit WHERE tenant_id = :tenant AND transfer_id = :judged ORDER BY ordinal;
SELECT same, outcome, score FROM finance.replay_decision(:judged);
SELECT id AS judged, status FROM finance.transfer('a', 'c', 10) \gset
SELECT :'status' AS status;
SELECT outcome, score, rule FROM finance.risk_decision WHERE tenant_id = :tenant AND transfer_id = :judged;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 100, strict => true)$$);
-- the answer of a key tells that no one rule said so; a strict caller is told, too
SELECT status, rule, replayed FROM finance.transfer('a', 'b', 100, idempotency_key => 'scored');
SELECT status, rule, replayed FROM finance.transfer('a', 'b', 100, idempotency_key => 'scored');
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 100, idempotency_key => 'scored', strict => true)$$);
SELECT finance.publish_ruleset(:second);

-- ------------------------------------------------------------------------
-- what was published never changes, whoever asks
-- ------------------------------------------------------------------------

SELECT finance.create_ruleset('by hand') AS hand \gset
SELECT finance.add_rule('mine', 'transfer_limit', 1, ruleset => :hand);
SELECT what, pg_temp.attempt(replace(replace(replace(statement, ':v', :'second'), ':hand', :'hand'), ':tenant', :'tenant')) AS result FROM (VALUES
	(1, 'a rule', $$UPDATE finance.risk_rule SET threshold = 1 WHERE tenant_id = :tenant AND version = :v$$),
	(2, 'a rule''s name', $$UPDATE finance.risk_rule SET name = 'x' WHERE tenant_id = :tenant AND version = :v$$),
	(3, 'a rule, off', $$UPDATE finance.risk_rule SET enabled = false WHERE tenant_id = :tenant AND version = :v$$),
	(4, 'a rule, gone', $$DELETE FROM finance.risk_rule WHERE tenant_id = :tenant AND version = :v$$),
	(5, 'a rule more', $$INSERT INTO finance.risk_rule (tenant_id, version, name, kind, outcome) SELECT tenant_id, version, 'x', 'blocklist', 'reject' FROM finance.ruleset WHERE tenant_id = :tenant AND version = :v$$),
	(6, 'a rule from elsewhere', $$UPDATE finance.risk_rule SET version = :v WHERE tenant_id = :tenant AND version = :hand$$),
	(7, 'all rules', $$TRUNCATE finance.risk_rule$$),
	(8, 'its name', $$UPDATE finance.ruleset SET name = 'x' WHERE tenant_id = :tenant AND version = :v$$),
	(9, 'its number', $$UPDATE finance.ruleset SET version = 1000000 WHERE tenant_id = :tenant AND version = :v$$),
	(10, 'a score', $$UPDATE finance.ruleset SET score_reject = 1 WHERE tenant_id = :tenant AND version = :v$$),
	(11, 'a time', $$UPDATE finance.ruleset SET review_timeout = '1 hour' WHERE tenant_id = :tenant AND version = :v$$),
	(12, 'who published it', $$UPDATE finance.ruleset SET published_by = 'x' WHERE tenant_id = :tenant AND version = :v$$),
	(21, 'when it was published', $$UPDATE finance.ruleset SET published_at = now() WHERE tenant_id = :tenant AND version = :v$$),
	(22, 'when, with its end', $$UPDATE finance.ruleset SET mode = 'retired', published_at = now() WHERE tenant_id = :tenant AND version = :v$$),
	(13, 'a draft again', $$UPDATE finance.ruleset SET mode = 'draft', published_at = NULL, published_by = NULL WHERE tenant_id = :tenant AND version = :v$$),
	(14, 'the ruleset', $$DELETE FROM finance.ruleset WHERE tenant_id = :tenant AND version = :v$$),
	(15, 'all rulesets', $$TRUNCATE finance.ruleset CASCADE$$),
	(17, 'a tenant''s rule', $$UPDATE finance.risk_rule SET tenant_id = tenant_id + 1 WHERE tenant_id = :tenant AND version = :v$$),
	(18, 'of itself a draft may change', $$UPDATE finance.risk_rule SET threshold = 2 WHERE tenant_id = :tenant AND version = :hand$$),
	(19, 'a draft''s number', $$UPDATE finance.ruleset SET version = 1000000 WHERE tenant_id = :tenant AND version = :hand$$),
	(20, 'how many rules it has', $$UPDATE finance.ruleset SET rules = rules + 1 WHERE tenant_id = :tenant AND version = :v$$),
	(16, 'through a merge', $$INSERT INTO finance.risk_rule SELECT * FROM finance.risk_rule WHERE tenant_id = :tenant AND version = :v ON CONFLICT (tenant_id, version, name) DO UPDATE SET threshold = 1$$)
) AS v (n, what, statement) ORDER BY n;
SET session_replication_role = replica;
SELECT pg_temp.attempt(format('DELETE FROM finance.risk_rule WHERE tenant_id = %s AND version = %s', :tenant, :second));
SELECT pg_temp.attempt(format('UPDATE finance.ruleset SET score_reject = 1 WHERE tenant_id = %s AND version = %s', :tenant, :second));
RESET session_replication_role;
-- a decision does not either
SELECT pg_temp.attempt($$UPDATE finance.risk_decision SET outcome = 'pass'$$);
SELECT pg_temp.attempt($$DELETE FROM finance.risk_decision$$);
SELECT pg_temp.attempt($$TRUNCATE finance.risk_decision$$);
-- the rows themselves are held to what functions check
SELECT what, pg_temp.attempt(format('INSERT INTO finance.risk_rule (tenant_id, version, name, kind, outcome, %s) VALUES (%s, %s, ''x'', ''total_limit'', ''reject'', %s)', columns, :tenant, :hand, value)) AS result
FROM (VALUES (1, 'unknown outcome', 'on_error', '''perhaps'''), (2, 'negative threshold', 'threshold', '-1'), (3, 'NaN', 'threshold', '''NaN'''), (4, 'no number', 'minimum', '''Infinity'''),
	(5, 'unknown per', 'per', '''moon'''), (6, 'unknown period', 'period', '''week'''), (7, 'a span of nothing', 'span', '''0'''), (8, 'two windows', 'period, span', '''day'', ''1 hour'''),
	(9, 'times', 'times', '0'), (10, 'half a window', 'window_end', '''12:00'''), (11, 'score', 'score', '1000001')) AS v (n, what, columns, value) ORDER BY n;
SELECT what, pg_temp.attempt(format('INSERT INTO finance.ruleset (tenant_id, version, name, created_by, %s) VALUES (%s, %s, ''x'', ''x'', %s)', columns, :tenant, version, value)) AS result
FROM (VALUES (1, 'unknown mode', 9999, 'mode', '''perhaps'''), (2, 'published by nobody', 9999, 'mode', '''live'''), (3, 'two live ones', 9999, 'mode, published_by, published_at, rules', '''live'', ''x'', now(), 0'),
	(4, 'no number', 0, 'mode', '''draft'''), (5, 'score', 9999, 'score_review', '0'), (6, 'default', 9999, 'review_default', '''pass'''), (7, 'timeout', 9999, 'challenge_timeout', '''-1 s''')) AS v (n, what, version, columns, value) ORDER BY n;

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.' || replace(replace(replace(call, ':draft', :'hand'), ':live', :'second'), ':retired', :'first')) AS result
FROM (VALUES
	(1, 'null name', 'create_ruleset(NULL)'),
	(2, 'empty name', 'create_ruleset('''')'),
	(3, 'name of 64 bytes', 'create_ruleset(repeat(''n'', 64))'),
	(4, 'copy of nothing', 'create_ruleset(''x'', copy_of => 999999)'),
	(5, 'copy of version 0', 'create_ruleset(''x'', copy_of => 0)'),
	(6, 'copy of a negative version', 'create_ruleset(''x'', copy_of => -1)'),
	(7, 'score of nothing', 'create_ruleset(''x'', score_report => 0)'),
	(8, 'negative score', 'create_ruleset(''x'', score_challenge => -1)'),
	(9, 'review_timeout of nothing', 'create_ruleset(''x'', review_timeout => ''0'')'),
	(10, 'negative review_timeout', 'create_ruleset(''x'', review_timeout => ''-1 day'')'),
	(11, 'review_timeout of years', 'create_ruleset(''x'', review_timeout => ''2 years'')'),
	(12, 'challenge_timeout of nothing', 'create_ruleset(''x'', challenge_timeout => ''0 s'')'),
	(13, 'unknown review_default', 'create_ruleset(''x'', review_default => ''pass'')'),
	(14, 'publish null', 'publish_ruleset(NULL)'),
	(15, 'publish nothing', 'publish_ruleset(999999)'),
	(16, 'publish version 0', 'publish_ruleset(0)'),
	(17, 'publish as null', 'publish_ruleset(:draft, NULL)'),
	(18, 'publish as a draft', 'publish_ruleset(:draft, ''draft'')'),
	(19, 'publish as retired', 'publish_ruleset(:live, ''retired'')'),
	(20, 'retire null', 'retire_ruleset(NULL)'),
	(21, 'retire nothing', 'retire_ruleset(999999)'),
	(22, 'retire a draft', 'retire_ruleset(:draft)'),
	(23, 'retire what is', 'retire_ruleset(:retired)'),
	(24, 'drop null', 'drop_ruleset(NULL)'),
	(25, 'drop nothing', 'drop_ruleset(999999)'),
	(26, 'drop what is live', 'drop_ruleset(:live)'),
	(27, 'drop what is retired', 'drop_ruleset(:retired)'),
	(28, 'add to nothing', 'add_rule(''x'', ''blocklist'', ruleset => 999999)'),
	(29, 'add to version 0', 'add_rule(''x'', ''blocklist'', ruleset => 0)'),
	(30, 'add to what is live', 'add_rule(''x'', ''blocklist'', ruleset => :live)'),
	(31, 'remove from what is retired', 'remove_rule(''cap'', ruleset => :retired)'),
	(32, 'remove what is not there', 'remove_rule(''cap'', ruleset => :draft)'),
	(33, 'switch in what is live', 'enable_rule(''cap'', ruleset => :live)'),
	(34, 'switch what is not there', 'enable_rule(''cap'', ruleset => :draft)'),
	(35, 'holiday null', 'add_holiday(NULL)'),
	(36, 'holiday of no day', 'add_holiday(''infinity'')'),
	(37, 'calendar null', 'add_holiday(''2026-12-25'', calendar => NULL)'),
	(38, 'no holiday null', 'remove_holiday(NULL)')
) AS t (n, what, call) ORDER BY n;
\pset format aligned
SELECT * FROM pg_temp.versions;

-- more totals than are kept: nothing is published
BEGIN;
SELECT count(finance.add_rule('total ' || n, 'total_limit', 1, span => n * interval '1 second', ruleset => :hand)) FROM generate_series(1, 1025) AS n;
SAVEPOINT s;
SELECT finance.publish_ruleset(:hand);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT finance.remove_rule('total 1025', :hand);
SELECT finance.publish_ruleset(:hand);
SELECT count(*) FROM finance.risk_measure WHERE tenant_id = :tenant;
ROLLBACK;

-- ------------------------------------------------------------------------
-- calendars, tenants apart, and what the audit log tells
-- ------------------------------------------------------------------------

SELECT finance.add_holiday('2026-12-25', 'Christmas'), finance.add_holiday('2026-12-25', 'again'), finance.add_holiday(day => '2026-12-25', calendar => 'bank'), finance.remove_holiday('2026-12-25', 'bank'),
	finance.remove_holiday('2026-12-25', 'bank');
SELECT calendar, day, name FROM finance.holiday WHERE tenant_id = :tenant;
SET finance.tenant = :other;
SELECT finance.create_ruleset('of another') AS version;
SELECT pg_temp.attempt('SELECT finance.publish_ruleset(2)');
SELECT finance.create_account('a', 'EUR', min_available => NULL) > 0 AS made, finance.create_account('b', 'EUR') > 0 AS made;
SELECT status FROM finance.transfer('a', 'b', 1000000);
SELECT finance.add_rule('cap', 'transfer_limit', 5);
SELECT status, rule FROM finance.transfer('a', 'b', 6);
SET finance.tenant = :tenant;
SELECT status, rule FROM finance.transfer('a', 'b', 6);
SELECT operation, actor, request::jsonb - 'tenant_id' AS request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation ~ 'ruleset|holiday' ORDER BY id;
SELECT * FROM finance.check_integrity();
