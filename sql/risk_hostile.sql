-- Risk where somebody means harm, or just much: tries without end, names that
-- read alike, scores beyond an integer, rules that come and go in one
-- transaction, triggers that move money while it is judged.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('risk, hostile', 'UTC') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a,b,c,d,e,f,g,h}'::text[]) AS code;
CREATE VIEW pg_temp.left AS
SELECT account, round(tokens) AS tokens FROM unnest('{a,c,e}'::text[]) AS account, finance.rate_limits(account) AS r
WHERE r.scope = 'account=' || account;

-- ------------------------------------------------------------------------
-- what rules looked at takes its token, alone and in a chain, though it fails
-- ------------------------------------------------------------------------

SELECT finance.add_rule('max', 'transfer_limit', 10);
SELECT count(finance.set_rate_limit('account=' || code, 0.000001, 3)) FROM unnest('{a,c,e}'::text[]) AS code;
SELECT status FROM unnest('{50,60}'::numeric[]) AS amount, finance.transfer('a', 'b', amount);
SELECT status, error FROM finance.transfer_batch(ARRAY[finance.request('c', 'd', 1, linked => true), finance.request('e', 'd', 50)]);
SELECT status, error FROM finance.transfer_batch(ARRAY[finance.request('c', 'd', 1, linked => true), finance.request('e', 'nobody', 1)]);
SELECT * FROM pg_temp.left ORDER BY 1;
SELECT status FROM finance.transfer('a', 'b', 70);
\set VERBOSITY terse
SELECT finance.transfer('a', 'b', 1);
\set VERBOSITY default
SELECT count(finance.drop_rate_limit('account=' || code)) FROM unnest('{a,c,e}'::text[]) AS code;
SELECT finance.remove_rule('max');

-- a hold that is approved was counted when it was asked for
SELECT finance.add_rule('look', 'transfer_limit', 10, outcome => 'review');
SELECT finance.set_rate_limit('account=a', 0.000001, 1);
SET finance.actor = 'maker';
SELECT id AS hold FROM finance.hold('a', 'b', 50) \gset
SET finance.actor = 'checker';
SELECT status FROM finance.review_transfer(:hold, true);
RESET finance.actor;
SELECT finance.drop_rate_limit('account=a'), finance.remove_rule('look');

-- ------------------------------------------------------------------------
-- a calendar whose name reads like another's with a zone
-- ------------------------------------------------------------------------

SELECT finance.add_holiday('2027-06-02', calendar => 'x');
SELECT finance.add_rule('one', 'business_hours', window_start => '00:00', window_end => '24:00',
	weekdays => '{1,2,3,4,5,6,7}', calendar => 'x', time_zone => 'Europe/Berlin', outcome => 'report');
SELECT finance.add_rule('two', 'business_hours', window_start => '00:00', window_end => '24:00',
	weekdays => '{1,2,3,4,5,6,7}', calendar => 'x/Europe/Berlin', outcome => 'report');
SET finance.test_clock = '2027-06-02 12:00+00';
SELECT id AS holiday FROM finance.transfer('a', 'b', 1) \gset
RESET finance.test_clock;
SELECT same, outcome, jsonb_path_query_array(hits, '$[*].rule') AS rules FROM finance.replay_decision(:holiday);
SELECT finance.remove_rule('one'), finance.remove_rule('two');

-- ------------------------------------------------------------------------
-- scores beyond an integer; long names with quotes and backslashes
-- ------------------------------------------------------------------------

SELECT finance.create_ruleset('many', score_reject => 1) AS many \gset
SELECT count(*) FROM (SELECT finance.add_rule('r' || i, 'round_amount', 1, outcome => 'pass', score => 1000000, ruleset => :many)
	FROM generate_series(1, 2200) AS i) AS added;
SELECT hit, outcome, score FROM finance.explain_risk('a', 'b', 5, ruleset => :many) WHERE rule IS NULL;
SELECT finance.drop_ruleset(:many);

SELECT finance.add_rule(rpad(E'"\\u0000'' %s %n {"', 63, E'\\"'), 'watchlist', list => rpad('"/\%', 63, '"/\%'), subject => 'device');
SELECT finance.add_to_list(rpad('"/\%', 63, '"/\%'), 'device', E'"\\u0000\\', 'odd');
SELECT id AS odd FROM finance.transfer('a', 'b', 1, metadata => jsonb_build_object('device', E'"\\u0000\\')) \gset
SELECT same, outcome, hits -> 0 ->> 'observed' AS observed FROM finance.replay_decision(:odd);
SELECT finance.retire_ruleset(version) FROM finance.ruleset WHERE tenant_id = :tenant AND mode = 'live';

SELECT count(*) FROM finance.check_integrity() WHERE tenant_id = :tenant;
