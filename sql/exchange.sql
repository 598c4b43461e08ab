-- Exchanges: rounding in every mode against a model, the differences carried to
-- the last fraction, repetition, and every bad input with its SQLSTATE.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('exchange test') AS tenant \gset
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

SELECT count(finance.create_account(code, currency, min_available => floor))
FROM (VALUES ('eur', 'EUR', NULL), ('eur pool', 'EUR', NULL), ('usd', 'USD', NULL), ('usd pool', 'USD', NULL),
	('rounding', 'USD', NULL), ('other rounding', 'USD', NULL), ('yen', 'JPY', NULL), ('yen pool', 'JPY', NULL),
	('yen rounding', 'JPY', NULL), ('poor', 'EUR', 0), ('poor rounding', 'USD', 0)) AS a (code, currency, floor);

-- ------------------------------------------------------------------------
-- what an exchange does
-- ------------------------------------------------------------------------

SELECT status, amount, currency, from_account, from_balance, to_account, to_balance, replayed,
	journal_id = min(id) OVER () AS of_journal
FROM finance.exchange('eur', 'usd', 100.01, 1.08355, 'eur pool', 'usd pool', effective_at => '2026-01-31 00:00+00',
	reference => 'order 1', metadata => '{"desk": 7}') ORDER BY id;
SELECT type, reference, metadata, effective_at = '2026-01-31 00:00+00' AS effective FROM finance.transfer WHERE tenant_id = :tenant;
CREATE TEMP VIEW exchanges AS
SELECT f.code AS sold, t.code AS bought_for, x.amount, rate, exact, bought, difference, r.code AS rounding_account, carried, rounding
FROM finance.exchange x JOIN finance.account f ON f.account_id = from_account_id JOIN finance.account t ON t.account_id = to_account_id
	LEFT JOIN finance.account r ON r.account_id = rounding_account_id ORDER BY journal_id;
SELECT * FROM exchanges;
SELECT type, request FROM finance.journal WHERE tenant_id = :tenant;

-- the modes, at and beside the half; a currency without decimals
SELECT rounding, rate, (SELECT max(amount) FILTER (WHERE currency = 'JPY')
	FROM finance.exchange('eur', 'yen', 1, rate, 'eur pool', 'yen pool', rounding)) AS bought
FROM unnest('{half_even, half_up, down, up}'::text[]) AS rounding,
	unnest('{0.50000000000000001, 1, 1.000000000000000001, 1.499999999999999999, 1.5, 1.500000000000000001, 2.5, 3.5}'::numeric[]) AS rate
WHERE rate > 1 OR rounding IN ('half_up', 'up') ORDER BY rounding, rate;

-- against a model: amounts and rates of every size
CREATE TEMP TABLE trial AS
SELECT n, (mod(n * 104729, 10 ^ (2 + n % 7)::numeric) + 1) / 100 AS amount,
	(mod(n * 15485863 ^ 2::numeric, 10 ^ (1 + n % 19)::numeric) + 1) / 10 ^ (n % 19)::numeric AS rate,
	(ARRAY['half_even', 'half_up', 'down', 'up'])[1 + n % 4] AS rounding
FROM generate_series(1, 400) AS n;
UPDATE trial SET amount = round(amount, 2), rate = round(rate, 18);
-- and some exactly at the half of a cent
INSERT INTO trial SELECT 400 + n, n, 1.005, (ARRAY['half_even', 'half_up', 'down', 'up'])[1 + n / 2 % 4] FROM generate_series(1, 80) AS n;
CREATE FUNCTION pg_temp.model(exact numeric, rounding text) RETURNS numeric LANGUAGE sql AS $$
	SELECT CASE rounding WHEN 'down' THEN floor(c) WHEN 'up' THEN ceil(c) WHEN 'half_up' THEN floor(c + 0.5)
		ELSE CASE WHEN mod(c, 1) = 0.5 THEN 2 * round(c / 2) ELSE floor(c + 0.5) END END / 100
	FROM (SELECT exact * 100) AS s (c)
$$;
SELECT count(*), count(*) FILTER (WHERE t.amount = pg_temp.model(trial.amount * rate, rounding)) AS as_model,
	count(*) FILTER (WHERE t.amount <> trial.amount * rate) AS rounded
FROM (SELECT * FROM trial WHERE pg_temp.model(amount * rate, rounding) > 0 OFFSET 0) AS trial, LATERAL
	finance.exchange('eur', 'usd', trial.amount, rate, 'eur pool', 'usd pool', rounding) AS t
WHERE t.currency = 'USD';
SELECT pg_temp.model(1.005, 'half_even'), pg_temp.model(1.015, 'half_even'), pg_temp.model(1.0250001, 'half_even');

-- ------------------------------------------------------------------------
-- differences carried
-- ------------------------------------------------------------------------

-- each keeps half a cent for the rounding account: every other time a cent comes due
SELECT n, string_agg(format('%s -> %s %s', from_account, to_account, amount), ', ' ORDER BY id) AS transfers
FROM generate_series(1, 4) AS n, LATERAL finance.exchange('eur', 'usd', 1, 1.005 + 0 * n, 'eur pool', 'usd pool', 'down', 'rounding') GROUP BY n ORDER BY n;
SELECT code, residue FROM finance.exchange_residue JOIN finance.account USING (tenant_id, account_id);
-- and back: what was rounded up is taken from it
SELECT n, string_agg(format('%s -> %s %s', from_account, to_account, amount), ', ' ORDER BY id) AS transfers
FROM generate_series(1, 4) AS n, LATERAL finance.exchange('eur', 'usd', 1, 1.001 + 0 * n, 'eur pool', 'usd pool', 'up', 'rounding') GROUP BY n ORDER BY n;
SELECT code, residue FROM finance.exchange_residue JOIN finance.account USING (tenant_id, account_id);
SELECT sum(difference) AS differences, sum(carried) AS carried, max(residue) AS residue, finance.balance('rounding')
FROM finance.exchange x JOIN finance.exchange_residue r ON r.account_id = x.rounding_account_id;

-- many, of every mode, two rounding accounts in turn
SELECT count(*), count(*) FILTER (WHERE 'rounding' IN (t.from_account, t.to_account)) BETWEEN 10 AND 200 AS carried_often
FROM (SELECT * FROM trial WHERE pg_temp.model(amount * rate, rounding) > 0 OFFSET 0) AS trial, LATERAL
	finance.exchange('eur', 'usd', trial.amount, rate, 'eur pool', 'usd pool', rounding,
	CASE WHEN n % 2 = 0 THEN 'rounding' ELSE 'other rounding' END) AS t;
SELECT a.code, sum(difference) = sum(carried) + max(residue) AS nothing_lost, finance.balance(a.code) = sum(carried) AS as_carried,
	abs(max(residue)) < 0.01 AS less_than_a_cent
FROM finance.exchange x JOIN finance.exchange_residue r ON r.account_id = x.rounding_account_id
	JOIN finance.account a ON a.account_id = r.account_id GROUP BY a.code ORDER BY a.code;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- repetition: the first answer, and the residue stays as it is
-- ------------------------------------------------------------------------

CREATE TEMP TABLE answer AS SELECT 1 AS call, t.* FROM finance.exchange('eur', 'usd', 1, 1.005, 'eur pool', 'usd pool', 'down', 'rounding', 'k two') AS t;
INSERT INTO answer SELECT 1, t.* FROM finance.exchange('eur', 'usd', 1, 1.005, 'eur pool', 'usd pool', 'down', 'rounding', 'k three') AS t;
SELECT max(n) - min(n) AS one_of_them_carried FROM (SELECT count(*) AS n FROM answer GROUP BY journal_id) AS s;
SELECT pg_temp.book() AS before \gset
INSERT INTO answer SELECT 2, t.* FROM finance.exchange('eur', 'usd', 1, 1.005, 'eur pool', 'usd pool', 'down', 'rounding', 'k two') AS t;
INSERT INTO answer SELECT 2, t.* FROM finance.exchange('eur', 'usd', 1, 1.005, 'eur pool', 'usd pool', 'down', 'rounding', 'k three') AS t;
INSERT INTO answer SELECT 2, t.* FROM finance.exchange('eur', 'usd', 1.0, 1.00500, 'eur pool', 'usd pool', 'down', 'rounding', 'k two') AS t;
SELECT count(*), count(DISTINCT id) AS transfers, count(*) FILTER (WHERE replayed) AS replayed FROM answer;
SELECT what, pg_temp.attempt(format('SELECT finance.exchange(%s)', arguments))
FROM (VALUES ('amount', '''eur'', ''usd'', 2, 1.005, ''eur pool'', ''usd pool'', ''down'', ''rounding'', ''k two'''),
	('rate', '''eur'', ''usd'', 1, 1.006, ''eur pool'', ''usd pool'', ''down'', ''rounding'', ''k two'''),
	('to', '''eur'', ''other rounding'', 1, 1.005, ''eur pool'', ''usd pool'', ''down'', ''rounding'', ''k two'''),
	('liquidity', '''eur'', ''usd'', 1, 1.005, ''eur pool'', ''other rounding'', ''down'', ''rounding'', ''k two'''),
	('rounding', '''eur'', ''usd'', 1, 1.005, ''eur pool'', ''usd pool'', ''up'', ''rounding'', ''k two'''),
	('account', '''eur'', ''usd'', 1, 1.005, ''eur pool'', ''usd pool'', ''down'', ''other rounding'', ''k two'''),
	('no account', '''eur'', ''usd'', 1, 1.005, ''eur pool'', ''usd pool'', ''down'', NULL, ''k three'''),
	('no funds', '''poor'', ''usd'', 1, 1.005, ''eur pool'', ''usd pool'', ''down'', ''rounding'', ''k three''')
) AS v (what, arguments);
SELECT pg_temp.book() = :'before' AS unchanged;

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

SELECT what, pg_temp.attempt(format('SELECT finance.exchange(%s)', arguments))
FROM (VALUES ('null from', 'NULL, ''usd'', 1, 1, ''eur pool'', ''usd pool'''),
	('null amount', '''eur'', ''usd'', NULL, 1, ''eur pool'', ''usd pool'''),
	('null rate', '''eur'', ''usd'', 1, NULL, ''eur pool'', ''usd pool'''),
	('null liquidity', '''eur'', ''usd'', 1, 1, ''eur pool'', NULL'),
	('amount', '''eur'', ''usd'', 0, 1, ''eur pool'', ''usd pool'''),
	('decimals', '''eur'', ''usd'', 0.001, 1, ''eur pool'', ''usd pool'''),
	('NaN', '''eur'', ''usd'', ''NaN'', 1, ''eur pool'', ''usd pool'''),
	('rate 0', '''eur'', ''usd'', 1, 0, ''eur pool'', ''usd pool'''),
	('rate -1', '''eur'', ''usd'', 1, -1, ''eur pool'', ''usd pool'''),
	('rate NaN', '''eur'', ''usd'', 1, ''NaN'', ''eur pool'', ''usd pool'''),
	('rate Infinity', '''eur'', ''usd'', 1, ''Infinity'', ''eur pool'', ''usd pool'''),
	('rate decimals', '''eur'', ''usd'', 1, 1e-19, ''eur pool'', ''usd pool'''),
	('rate digits', '''eur'', ''usd'', 1, 1e20, ''eur pool'', ''usd pool'''),
	('mode', '''eur'', ''usd'', 1, 1, ''eur pool'', ''usd pool'', ''ceiling'''),
	('nothing bought', '''eur'', ''usd'', 1, 0.005, ''eur pool'', ''usd pool'''),
	('nothing bought, down', '''eur'', ''usd'', 1, 0.0099, ''eur pool'', ''usd pool'', ''down'', ''rounding'''),
	('too much', '''eur'', ''usd'', 1e35, 1e19, ''eur pool'', ''usd pool'''),
	('one currency', '''usd'', ''rounding'', 1, 1, ''usd pool'', ''usd pool'''),
	('wrong pool', '''eur'', ''usd'', 1, 1, ''usd pool'', ''usd pool'''),
	('wrong pool', '''eur'', ''usd'', 1, 1, ''eur pool'', ''eur pool'''),
	('wrong rounding', '''eur'', ''usd'', 1, 1, ''eur pool'', ''usd pool'', ''down'', ''yen rounding'''),
	('rounding into the pool', '''eur'', ''usd'', 1, 1, ''eur pool'', ''usd pool'', ''down'', ''usd pool'''),
	('own pool', '''eur'', ''usd'', 1, 1, ''eur'', ''usd pool'''),
	('own pool', '''eur'', ''usd'', 1, 1, ''eur pool'', ''usd'''),
	('unknown', '''eur'', ''nobody'', 1, 1, ''eur pool'', ''usd pool'''),
	('no funds', '''poor'', ''usd'', 1, 1, ''eur pool'', ''usd pool'', ''down'', ''rounding''')
) AS v (what, arguments);
SELECT pg_temp.book() = :'before' AS unchanged;
-- a rounding account that may not go below zero gives no cent it has not got
SELECT count(*) FROM finance.exchange('eur', 'usd', 1, 1.0001, 'eur pool', 'usd pool', 'up', 'poor rounding');
SELECT pg_temp.attempt('SELECT finance.exchange(''eur'', ''usd'', 1, 1.0001, ''eur pool'', ''usd pool'', ''up'', ''poor rounding'')');
SELECT residue FROM finance.exchange_residue JOIN finance.account USING (tenant_id, account_id) WHERE code = 'poor rounding';

-- rejected by risk: no exchange, the residue as it was, and again on repetition
SELECT residue AS before FROM finance.exchange_residue JOIN finance.account USING (tenant_id, account_id) WHERE code = 'rounding' \gset
SELECT count(*) AS exchanges FROM finance.exchange WHERE tenant_id = :tenant \gset
SELECT finance.add_rule('little', 'transfer_limit', 1000, account => 'usd pool');
SELECT status, from_account, to_account, amount, rule, replayed FROM finance.exchange('eur', 'usd', 1000, 1.00005, 'eur pool', 'usd pool', 'down', 'rounding', 'risky');
SELECT status, from_account, to_account, amount, rule, replayed FROM finance.exchange('eur', 'usd', 1000, 1.00005, 'eur pool', 'usd pool', 'down', 'rounding', 'risky');
SELECT pg_temp.attempt('SELECT finance.exchange(''eur'', ''usd'', 1000, 1.00005, ''eur pool'', ''usd pool'', ''down'', ''rounding'', strict => true)');
SELECT finance.remove_rule('little');
SELECT residue = :before AS as_it_was FROM finance.exchange_residue JOIN finance.account USING (tenant_id, account_id) WHERE code = 'rounding';
SELECT count(*) = :exchanges AS none_more FROM finance.exchange WHERE tenant_id = :tenant;

-- undone with its transaction
SELECT pg_temp.book() AS before \gset
BEGIN;
SELECT count(*) > 1 AS done FROM finance.exchange('eur', 'usd', 3, 1.005, 'eur pool', 'usd pool', 'down', 'rounding', 'undone');
ROLLBACK;
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT pg_temp.attempt('UPDATE finance.exchange SET rate = 2');
SELECT pg_temp.attempt('DELETE FROM finance.exchange_residue');

-- a trigger that exchanges while an exchange is being written goes on from its residue
CREATE FUNCTION pg_temp.exchange_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.reference = 'outer' AND new.currency = 'EUR' THEN
		PERFORM finance.exchange('eur', 'usd', 1, 1.007, 'eur pool', 'usd pool', 'down', 'rounding', reference => 'inner');
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER exchange_too AFTER INSERT ON finance.transfer FOR EACH ROW EXECUTE FUNCTION pg_temp.exchange_too();
SELECT count(*) > 1 AS done FROM generate_series(1, 5) AS n, LATERAL finance.exchange('eur', 'usd', 1, 1.007 + 0 * n, 'eur pool', 'usd pool', 'down', 'rounding', reference => 'outer');
DROP TRIGGER exchange_too ON finance.transfer;
SELECT count(*) FROM finance.transfer WHERE tenant_id = :tenant AND reference = 'inner' AND currency = 'EUR';

-- a breach would be seen
BEGIN;
SET session_replication_role = replica;
ALTER TABLE finance.exchange_residue DISABLE TRIGGER guard;
UPDATE finance.exchange_residue SET residue = residue + 0.001 WHERE account_id = (SELECT account_id FROM finance.account WHERE tenant_id = :tenant AND code = 'yen rounding');
UPDATE finance.exchange_residue SET residue = residue + 0.001 WHERE account_id = (SELECT account_id FROM finance.account WHERE tenant_id = :tenant AND code = 'rounding');
SELECT invariant, object FROM finance.check_integrity() ORDER BY 1, 2;
ROLLBACK;
SELECT * FROM finance.check_integrity();
