-- Amounts divided by weights: split_amount() against a model, distribute(), and
-- every bad input with its SQLSTATE.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('distribute test') AS tenant \gset
SET finance.tenant = :tenant;

-- what an attempt ends in; ids are masked
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')),
		'\m\d{17,19}\M', '<id>', 'g');
END $$;

-- everything there is, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key, _hold, journal,
		reversal, exchange, exchange_residue, risk_decision, audit_record, message}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- ------------------------------------------------------------------------
-- split_amount
-- ------------------------------------------------------------------------

SELECT amount, weights, decimals, finance.split_amount(amount, weights, decimals)
FROM (VALUES (100, '{1,1,1}'::numeric[], 2), (100, '{1,1,1}', 0), (0.05, '{3,3,3}', 2), (0.01, '{1,1}', 2), (0.01, '{1,1.0000001}', 2),
	(0, '{1,2}', 2), (10, '{0,1,0}', 2), (10, '{0.5,0.25,0.25}', 2), (7, '{1}', 18), (1, '{1,2,3,4,5,6,7}', 3),
	(99999999999999999999999999999999999999, '{1,1}', 0)) AS v (amount, weights, decimals);
-- weights of many digits, and few
SELECT finance.split_amount(99999999999999999999.999999999999999999, ARRAY[10::numeric ^ 38 - 1, 10::numeric ^ 38 - 2, ('1e-38')::numeric], 18);
SELECT finance.split_amount(3, ARRAY[1.000, 1.0 + 0.00000000000000000000000000000000000001, 1], 0) AS second_first,
	finance.split_amount(2, ARRAY[1.000, 1.0 + 0.00000000000000000000000000000000000001, 1], 0);
SELECT finance.split_amount(NULL, '{1}', 2) IS NULL AND finance.split_amount(1, NULL, 2) IS NULL AND finance.split_amount(1, '{1}', NULL) IS NULL AS strict;

-- a model: cut, then a unit each to the largest remainders, the earlier of equal ones
CREATE FUNCTION pg_temp.model(amount numeric, weights numeric[], decimals integer) RETURNS numeric[] LANGUAGE sql AS $$
	WITH share AS (
		SELECT i, div(amount * 10 ^ decimals::numeric * w, s) AS units, mod(amount * 10 ^ decimals::numeric * w, s) AS lost
		FROM unnest(weights) WITH ORDINALITY AS u (w, i), (SELECT sum(w) FROM unnest(weights) AS w) AS t (s)
	), ranked AS (
		SELECT i, units, row_number() OVER (ORDER BY lost DESC, i) AS rank, amount * 10 ^ decimals::numeric - sum(units) OVER () AS rest FROM share
	)
	SELECT array_agg((units + CASE WHEN rank <= rest THEN 1 ELSE 0 END) * ('1e-' || decimals)::numeric ORDER BY i) FROM ranked
$$;
CREATE TEMP TABLE trial AS
SELECT n, n % 19 AS decimals, mod((n * 7919) ^ 3::numeric, 10 ^ (1 + n % 20)::numeric) / 10 ^ (n % 19)::numeric AS amount,
	(SELECT array_agg(mod((n * 31 + i) ^ 4::numeric, 1 + n % 97) / 10 ^ (i % 3)::numeric ORDER BY i) || 1.5 FROM generate_series(1, 1 + n % 40) AS i) AS weights
FROM generate_series(1, 1000) AS n;
UPDATE trial SET amount = trunc(amount, decimals);
SELECT count(*), count(*) FILTER (WHERE parts = pg_temp.model(amount, weights, decimals)) AS as_model,
	count(*) FILTER (WHERE amount = (SELECT sum(p) FROM unnest(parts) AS p)) AS add_up,
	count(*) FILTER (WHERE EXISTS (SELECT FROM unnest(parts) AS p WHERE p < 0 OR scale(p) <> decimals)) AS bad,
	sum(cardinality(weights)) AS weights
FROM (SELECT *, finance.split_amount(amount, weights, decimals) AS parts FROM trial) AS t;

SELECT what, pg_temp.attempt(format('SELECT finance.split_amount(%s)', arguments))
FROM (VALUES ('none', '1, ''{}'', 2'), ('null', '1, ''{1,NULL}'', 2'), ('negative', '1, ''{1,-1}'', 2'), ('NaN', '1, ''{1,NaN}'', 2'),
	('Infinity', '1, ''{1,Infinity}'', 2'), ('zeros', '1, ''{0,0}'', 2'), ('two dimensions', '1, ''{{1,2},{3,4}}'', 2'),
	('39 digits', '1, ARRAY[1, 1e38], 2'), ('39 decimals', '1, ARRAY[1, 1e-39], 2'),
	('too many', '1, (SELECT array_agg(1::numeric) FROM generate_series(1, 1001)), 2'),
	('negative amount', '-1, ''{1}'', 2'), ('NaN amount', '''NaN'', ''{1}'', 2'), ('amount too fine', '0.001, ''{1}'', 2'),
	('amount too large', '1e37, ''{1}'', 2'), ('decimals', '1, ''{1}'', 19'), ('decimals', '1, ''{1}'', -1')) AS v (what, arguments);
SELECT cardinality(finance.split_amount(10, (SELECT array_agg(n::numeric) FROM generate_series(1, 1000) AS n), 2));

-- ------------------------------------------------------------------------
-- distribute
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, currency, min_available => floor, max_balance => ceiling))
FROM (VALUES ('a', 'EUR', NULL, NULL), ('b', 'EUR', NULL, NULL), ('c', 'EUR', NULL, NULL), ('d', 'EUR', NULL, NULL), ('poor', 'EUR', 0, NULL),
	('small', 'EUR', NULL, 10), ('yen', 'JPY', NULL, NULL)) AS a (code, currency, floor, ceiling);
SELECT finance.create_transfer_type('dividend');
SELECT status, amount, from_account, from_balance, to_account, to_balance, replayed, journal_id = min(id) OVER () AS of_journal
FROM finance.distribute('a', '{b,c,d}', '{1,1,1}', 100, 'key', 'dividend', '2026-01-31 00:00+00', 'q1', '{"n": 1}') ORDER BY id;
SELECT amount, to_account, replayed FROM finance.distribute('a', '{b,c,d}', '{1.0,1,1}', 100.00, 'key', 'dividend', '2026-01-31 00:00+00', 'q1', '{"n": 1}') ORDER BY id;
SELECT type, request FROM finance.journal WHERE tenant_id = :tenant;
SELECT type, reference, metadata, count(*) FROM finance.transfer WHERE tenant_id = :tenant GROUP BY 1, 2, 3;
-- parts of zero move nothing
SELECT amount, to_account FROM finance.distribute('a', '{b,c,d}', '{0,2,1}', 0.01);
SELECT amount, to_account FROM finance.distribute('a', '{b,c,d}', '{1,1,1}', 0.02) ORDER BY id;

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt(format('SELECT finance.distribute(%s)', arguments))
FROM (VALUES ('null from', 'NULL, ''{b,c}'', ''{1,1}'', 1'), ('null to', '''a'', NULL, ''{1,1}'', 1'), ('null weights', '''a'', ''{b,c}'', NULL, 1'),
	('null amount', '''a'', ''{b,c}'', ''{1,1}'', NULL'), ('null account', '''a'', ''{b,NULL}'', ''{1,1}'', 1'), ('empty account', '''a'', ''{b,""}'', ''{1,1}'', 1'),
	('lengths', '''a'', ''{b,c}'', ''{1,1,1}'', 1'), ('weights', '''a'', ''{b,c}'', ''{1,-1}'', 1'), ('zeros', '''a'', ''{b,c}'', ''{0,0}'', 1'),
	('amount', '''a'', ''{b,c}'', ''{1,1}'', 0'), ('decimals', '''a'', ''{b,c}'', ''{1,1}'', 0.001'), ('twice', '''a'', ''{b,c,b}'', ''{1,1,0}'', 1'),
	('itself', '''a'', ''{b,a}'', ''{1,0}'', 1'), ('currency', '''a'', ''{b,yen}'', ''{1,0}'', 1'), ('unknown', '''a'', ''{b,nobody}'', ''{1,0}'', 1'),
	('funds', '''poor'', ''{b,c}'', ''{1,1}'', 1'), ('limit', '''a'', ''{b,small}'', ''{1,1}'', 30'),
	('key', '''a'', ''{b,c,d}'', ''{1,1,2}'', 100, ''key'', ''dividend'', ''2026-01-31 00:00+00'', ''q1'', ''{"n": 1}'''),
	('key', '''a'', ''{b,d,c}'', ''{1,1,1}'', 100, ''key'', ''dividend'', ''2026-01-31 00:00+00'', ''q1'', ''{"n": 1}''')) AS v (what, arguments);
SELECT pg_temp.book() = :'before' AS unchanged;
-- risk
SELECT finance.add_rule('little', 'transfer_limit', 10);
SELECT status, amount, to_account, rule FROM finance.distribute('a', '{b,c,d}', '{1,9,1}', 22);
SELECT pg_temp.attempt('SELECT finance.distribute(''a'', ''{b,c,d}'', ''{1,9,1}'', 22, strict => true)');
SELECT finance.remove_rule('little');
SELECT code, balance FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT * FROM finance.check_integrity();
