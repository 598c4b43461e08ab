-- Rules that need not be asked are not: what hits, and what is recorded, is as
-- if all had been.  explain_risk() asks all of them.  And rows of totals that
-- move, come back elsewhere, or are gone: they are found by place at first.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('sieve test') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET finance.test_clock = '2030-01-15 23:30+00';

SELECT finance.create_account_type('customer', 'credit'), finance.create_account_type('merchant', 'credit');
SELECT count(finance.create_account(code, currency, type => type, min_available => NULL))
FROM (VALUES ('ann', 'EUR', 'customer'), ('ben', 'EUR', 'customer'), ('shop', 'EUR', 'merchant'),
	('yen a', 'JPY', 'customer'), ('yen b', 'JPY', 'customer'), ('rich a', 'EUR', 'customer')) AS v (code, currency, type);
SELECT finance.set_account_level('ben', 'gold', 'test');
SELECT finance.create_transfer_type('rent');
SELECT status FROM finance.transfer('ben', 'rich a', 150);
SELECT finance.add_to_list('bad', 'account', 'shop', 'test');

-- one rule of each kind and shape that has a least amount, or is about some
-- transfers only; all report
SELECT finance.create_ruleset('live') AS live \gset
SELECT count(*) FROM (
SELECT finance.add_rule(name, kind, threshold, outcome => 'report', score => 1, account => account, currency => currency,
	minimum => minimum, window_start => window_start, window_end => window_end, span => span, period => period, per => per, times => times,
	list => list, subject => subject, expression => expression, account_type => account_type, level => level,
	transfer_type => transfer_type, calendar => calendar, ruleset => :live)
FROM (VALUES
	('limit', 'transfer_limit', 100, NULL, NULL, NULL::numeric, NULL::time, NULL::time, NULL::interval, NULL, NULL, NULL::integer, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit, fine', 'transfer_limit', 100.005, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit, huge', 'transfer_limit', 1e30, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit, beyond 63 bits', 'transfer_limit', 92233720368547758.07, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit, least', 'transfer_limit', NULL, NULL, NULL, 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit, both', 'transfer_limit', 200, NULL, NULL, 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit of ann', 'transfer_limit', 100, 'ann', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit of yen', 'transfer_limit', 100, NULL, 'JPY', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('limit of gold', 'transfer_limit', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'gold', NULL, NULL),
	('limit of merchants', 'transfer_limit', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'merchant', NULL, NULL, NULL),
	('limit of rent', 'transfer_limit', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'rent', NULL),
	('large', 'large_value', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('large, fine', 'large_value', 100.005, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('large, usual', 'large_value', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('round', 'round_amount', 50, NULL, NULL, 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('drain', 'balance_drain', 0.5, NULL, NULL, 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('night', 'night_window', 100, NULL, NULL, NULL, '22:00', '06:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('hours', 'business_hours', 100, NULL, NULL, NULL, '08:00', '18:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'default'),
	('first', 'new_counterparty', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('device', 'new_device', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('change', 'device_change', 100, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('jump', 'geography_jump', 100, NULL, NULL, NULL, NULL, NULL, '1 day', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('structuring', 'structuring', 200, NULL, NULL, 100, NULL, NULL, '1 day', NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('total', 'total_limit', 150, NULL, NULL, NULL, NULL, NULL, NULL, 'day', 'pair', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('listed', 'blocklist', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bad', 'payee', NULL, NULL, NULL, NULL, NULL),
	('words', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount > 100', NULL, NULL, NULL, NULL),
	('words, at least', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount >= 100 AND account_day_count >= 0', NULL, NULL, NULL, NULL),
	('words, fine', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount >= 100.005', NULL, NULL, NULL, NULL),
	('words, second', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'type = ''rent'' AND amount > 100 AND pair_day_amount < 1000', NULL, NULL, NULL, NULL),
	('words, below zero', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount > -5 AND amount < 50', NULL, NULL, NULL, NULL),
	('words, two', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount > 100 OR amount < 1', NULL, NULL, NULL, NULL),
	('words, turned', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '100 < amount', NULL, NULL, NULL, NULL),
	('words, not', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'NOT (amount > 100)', NULL, NULL, NULL, NULL),
	('words, error first', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '1 / (amount - 20) > 0 AND amount > 100', NULL, NULL, NULL, NULL),
	('words, error last', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'amount > 100 AND 1 / (amount - 20) > 0', NULL, NULL, NULL, NULL),
	('words, unknown', 'expression', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'reference = ''x'' AND amount > 100', NULL, NULL, NULL, NULL)
) AS v (name, kind, threshold, account, currency, minimum, window_start, window_end, span, period, per, times, list, subject, expression,
	account_type, level, transfer_type, calendar)) AS r;
SELECT finance.publish_ruleset(:live);

-- what all rules say beforehand, and what was recorded
CREATE FUNCTION pg_temp.compare(payer text, payee text, amount numeric, type text, metadata jsonb, OUT expected text, OUT recorded text, OUT inputs integer)
LANGUAGE plpgsql AS $$
DECLARE
	made bigint;
BEGIN
	SELECT string_agg(e.rule || ': ' || e.observed, ', ' ORDER BY e.rule COLLATE "C") INTO expected
	FROM finance.explain_risk(payer, payee, amount, type => type, metadata => metadata) e WHERE e.hit AND e.rule IS NOT NULL;
	made := id FROM finance.transfer(payer, payee, amount, type => type, metadata => metadata);
	SELECT string_agg((h->>'rule') || ': ' || (h->>'observed'), ', ' ORDER BY (h->>'rule') COLLATE "C"),
		(SELECT count(*) FROM jsonb_object_keys(d.inputs->'measured')) + (SELECT count(*) FROM jsonb_object_keys(d.inputs->'listed'))
	INTO recorded, inputs
	FROM finance.risk_decision d CROSS JOIN jsonb_array_elements(d.hits) h
	WHERE d.tenant_id = current_setting('finance.tenant')::integer AND d.transfer_id = made GROUP BY d.inputs;
	IF NOT coalesce((SELECT same FROM finance.replay_decision(made)), true) THEN
		recorded := 'another answer when replayed';
	END IF;
END $$;
CREATE TEMP TABLE compared AS
SELECT i.*, c.* FROM (
	SELECT payer, payee, amount, type, metadata
	FROM (VALUES (1, 'ann', 'ben'), (2, 'ben', 'shop'), (3, 'shop', 'ann'), (4, 'yen a', 'yen b'), (5, 'rich a', 'ann')) AS v (who, payer, payee)
	CROSS JOIN unnest('{150, 0.5, 1, 20, 50, 99.99, 100, 100.01, 200, 200.01, 50000, 92233720368547758.07, 92233720368547758.08}'::numeric[])
		WITH ORDINALITY AS a (amount, n)
	CROSS JOIN unnest('{transfer, rent}'::text[]) AS type
	CROSS JOIN (VALUES (1, '{}'::jsonb), (2, '{"device": "phone", "country": "DE"}'), (3, '{"device": "laptop", "country": "FR"}')) AS m (told, metadata)
	WHERE payer <> 'yen a' OR amount = trunc(amount)
	ORDER BY who, n, type COLLATE "C", told OFFSET 0) i
CROSS JOIN LATERAL pg_temp.compare(payer, payee, amount, type, metadata) c;
SELECT * FROM compared WHERE expected IS DISTINCT FROM recorded;
SELECT count(*) > 300 AS many, count(recorded) > 100 AS many_hit, count(*) FILTER (WHERE recorded LIKE '%words, error last%') > 0 AS also_these FROM compared;
-- every rule hits something, but for one that no amount reaches
SELECT name FROM finance.risk_rule r WHERE tenant_id = :tenant AND version = :live
	AND NOT EXISTS (SELECT FROM compared c WHERE c.recorded LIKE '%' || r.name || ':%') ORDER BY name COLLATE "C";
-- rules that were not asked have their facts in the record, as those that were
SELECT inputs, count(*) FROM compared WHERE recorded IS NOT NULL GROUP BY inputs ORDER BY inputs;

-- limits: a rule that has one is asked whatever the amount, from then on
SELECT finance.set_rule_limit('limit', 10, 'test', account => 'ann');
SELECT recorded LIKE '%limit: 20.00%' AS hits, expected = recorded AS the_same FROM pg_temp.compare('ann', 'ben', 20, 'transfer', '{}');
SELECT recorded LIKE '%limit: 20.00%' AS hits, expected = recorded AS the_same FROM pg_temp.compare('ben', 'ann', 20, 'transfer', '{}');
SELECT finance.clear_rule_limit('limit', 'test', account => 'ann');
SELECT recorded LIKE '%limit: 20.00%' AS hits, expected = recorded AS the_same FROM pg_temp.compare('ann', 'ben', 20, 'transfer', '{}');

-- ------------------------------------------------------------------------
-- rows of totals, by place
-- ------------------------------------------------------------------------

SELECT finance.create_tenant('spot test') AS tenant \gset
SET finance.tenant = :tenant;
SELECT count(finance.create_account('a' || i, 'EUR', min_available => NULL)) FROM generate_series(1, 40) AS i;
SELECT finance.add_rule('total', 'total_limit', 100, period => 'day'), finance.add_rule('pair', 'total_limit', 60, period => 'day', per => 'pair');
CREATE FUNCTION pg_temp.pay(n integer, amount numeric) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(DISTINCT t.status, ', ') FROM generate_series(1, n) AS k CROSS JOIN generate_series(1, 40) AS i
	CROSS JOIN LATERAL finance.transfer('a' || i, 'a' || i % 40 + 1, amount + 0 * k) t $$;
CREATE FUNCTION pg_temp.sums() RETURNS TABLE (rows bigint, amount numeric, count numeric) LANGUAGE sql AS
$$ SELECT count(*), sum(b.amount), sum(b.count) FROM finance.risk_total r CROSS JOIN LATERAL finance._risk_totals(r.state) b
	WHERE r.tenant_id = current_setting('finance.tenant')::integer $$;
SELECT pg_temp.pay(1, 1);
SELECT pg_temp.pay(10, 1);
SELECT * FROM pg_temp.sums();
-- rewritten
VACUUM (FULL) finance.risk_total;
SELECT pg_temp.pay(1, 1);
-- elsewhere, by somebody else
CREATE TEMP TABLE kept AS SELECT * FROM finance.risk_total;
BEGIN;
DELETE FROM finance.risk_total;
INSERT INTO finance.risk_total SELECT * FROM kept ORDER BY tenant_id DESC, account_id DESC, other_id DESC;
COMMIT;
SELECT pg_temp.pay(1, 1);
-- gone: from the history again
DELETE FROM finance.risk_total WHERE tenant_id = :tenant;
VACUUM finance.risk_total;
SELECT pg_temp.pay(1, 1);
SELECT * FROM pg_temp.sums();
-- made, and undone
BEGIN;
SAVEPOINT before;
SELECT status FROM finance.transfer('a1', 'a20', 1);
ROLLBACK TO before;
SELECT status FROM finance.transfer('a1', 'a21', 1);
SELECT status FROM finance.transfer('a1', 'a20', 1);
COMMIT;
SELECT status FROM finance.transfer('a1', 'a20', 1);
SELECT * FROM pg_temp.sums();
-- many versions in one transaction, and those of others that still see them
BEGIN;
SELECT pg_temp.pay(20, 1);
SELECT pg_temp.pay(5, 1);
ROLLBACK;
SELECT pg_temp.pay(20, 1);
SELECT * FROM pg_temp.sums();
-- and still exact: 100 a day of an account, 60 of a pair
SELECT max(total) AS most_of_account, max(pair) AS most_of_pair FROM (
	SELECT sum(amount) AS pair, sum(sum(amount)) OVER (PARTITION BY from_account) AS total
	FROM (SELECT t.from_account_id AS from_account, t.to_account_id, t.amount FROM finance.transfer t
		WHERE t.tenant_id = :tenant AND t.status = 'completed') x GROUP BY from_account, to_account_id) y;
SELECT pg_temp.pay(60, 1);
SELECT max(total) AS most_of_account, max(pair) AS most_of_pair FROM (
	SELECT sum(amount) AS pair, sum(sum(amount)) OVER (PARTITION BY from_account) AS total
	FROM (SELECT t.from_account_id AS from_account, t.to_account_id, t.amount FROM finance.transfer t
		WHERE t.tenant_id = :tenant AND t.status = 'completed') x GROUP BY from_account, to_account_id) y;

SELECT * FROM finance.check_integrity();
