-- balance_at() and statement(): an account at a moment, by time of recording
-- and by value date, against sums over all its transfers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('history test') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET datestyle = 'ISO';

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
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''));
END $$;

-- the transfers that changed an account's balance, and by how much
CREATE VIEW pg_temp.moved AS
SELECT a.code, t.id, t.change, t.effective_at, finance.id_time(t.id) AS drawn_at
FROM (SELECT id, tenant_id, from_account_id AS account_id, -amount::numeric AS change, effective_at
		FROM finance.transfer WHERE status = 'completed'
	UNION ALL
	SELECT id, tenant_id, to_account_id, amount::numeric, effective_at
		FROM finance.transfer WHERE status = 'completed') t
JOIN finance._account a ON a.tenant_id = t.tenant_id AND a.account_id = t.account_id
WHERE a.tenant_id = current_setting('finance.tenant')::integer;

-- the definitions, word by word: recorded before, in whole milliseconds ...
CREATE FUNCTION pg_temp.recorded(code text, at timestamptz) RETURNS numeric
LANGUAGE sql AS $$
SELECT coalesce(sum(m.change), 0) FROM pg_temp.moved m
WHERE m.code = $1 AND m.drawn_at < at
$$;
-- ... and the value date where there is one
CREATE FUNCTION pg_temp.effective(code text, at timestamptz) RETURNS numeric
LANGUAGE sql AS $$
SELECT coalesce(sum(m.change), 0) FROM pg_temp.moved m
WHERE m.code = $1 AND coalesce(m.effective_at, m.drawn_at) < at
$$;

-- ------------------------------------------------------------------------
-- a small history, seen at its edges
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR', min_available => NULL))
FROM unnest('{bank,alice,empty}'::text[]) code;
SELECT from_version, to_version, to_balance FROM finance.import_transfers(ARRAY[
	finance.request('bank', 'alice', 100, recorded_at => '2025-01-10 12:00:00'),
	-- back-dated, to the first moment of a day
	finance.request('bank', 'alice', 10, recorded_at => '2025-01-20 12:00:00.001', effective_at => '2025-01-15'),
	-- for the future
	finance.request('alice', 'bank', 1, recorded_at => '2025-01-20 12:00:00.001', effective_at => '2025-03-01 06:00:00.000001'),
	finance.request('alice', 'bank', 40, recorded_at => '2025-02-10 00:00:00')]);

SELECT at, finance.balance_at('alice', at) AS recorded, finance.balance_at('alice', at, 'effective') AS effective
FROM unnest('{-infinity, 2019-01-01, 2020-01-01, 2025-01-10 12:00:00, 2025-01-10 12:00:00.000001, 2025-01-10 12:00:00.001,
	2025-01-15, 2025-01-15 00:00:00.000001, 2025-01-20 12:00:00.001, 2025-01-20 12:00:00.001001, 2025-01-20 12:00:00.002,
	2025-02-10, 2025-02-11, 2025-03-01 06:00:00.000001, 2025-03-01 06:00:00.000002, 2025-03-01 07:00, infinity}'::timestamptz[]) at;
SELECT finance.balance_at('empty', '2025-01-01'), finance.balance_at('empty', 'infinity', 'effective');
-- now, and after what is posted now
SELECT status FROM finance.transfer('alice', 'bank', 2);
SELECT finance.balance_at('alice', 'infinity') = finance.balance('alice') AS same,
	finance.balance_at('alice', finance.id_time(last_transfer_id)) AS before,
	finance.balance_at('alice', finance.id_time(last_transfer_id) + interval '1 ms') AS after
FROM finance._account WHERE code = 'alice' AND tenant_id = :tenant;

-- ------------------------------------------------------------------------
-- thousands of random transfers, back-dated, dated to the future, and plain,
-- at random times and exactly at each other's, in batches of any size; undone
-- afterwards, for the sake of tests that look at whole tables
-- ------------------------------------------------------------------------

BEGIN;
SELECT count(finance.create_account('r' || n, 'EUR', min_available => NULL)) FROM generate_series(0, 3) n;
\set seed 0.4711
SELECT setseed(:seed) IS NULL AS seeded;

CREATE TEMP TABLE request AS
WITH times AS (
	SELECT n, timestamptz '2024-02-20' + interval '45 days' * random() AS at,
		random() AS whole, random() AS kind, random() AS dated, random() AS rounded, random() AS other
	FROM generate_series(1, 4000) n
), rounded AS (
	SELECT *, CASE WHEN whole < 0.1 THEN date_trunc('day', at) WHEN whole < 0.3 THEN date_trunc('hour', at)
		WHEN whole < 0.6 THEN date_trunc('milliseconds', at) ELSE at END AS recorded_at
	FROM times
)
SELECT n, recorded_at,
	CASE WHEN kind < 0.3 THEN NULL
		WHEN kind < 0.4 THEN recorded_at
		WHEN kind < 0.5 THEN date_trunc('day', recorded_at)
		WHEN kind < 0.6 THEN date_trunc('day', recorded_at + interval '60 days' * (dated - 0.5))
		WHEN kind < 0.7 THEN recorded_at + interval '1 day' * (dated - 0.5)
		WHEN kind < 0.71 THEN timestamptz '1970-01-01' + interval '1 hour' * round(dated * 100)
		ELSE recorded_at + interval '60 days' * (dated - 0.5) END AS effective_at,
	'r' || (n % 4) AS from_account,
	'r' || ((n + 1 + floor(other * 3)::integer) % 4) AS to_account,
	round((rounded * 1000 + 0.01)::numeric, 2) AS amount
FROM rounded;
SELECT count(*) AS requests, count(effective_at) > 2000 AS dated FROM request;

SELECT count(i.id) AS imported, count(i.error) AS failed
FROM (SELECT array_agg(finance.request(from_account, to_account, amount, recorded_at => recorded_at, effective_at => effective_at) ORDER BY ordinal) AS requests, batch
	FROM (SELECT *, row_number() OVER w AS ordinal, width_bucket(row_number() OVER w, ARRAY[2, 3, 4, 11, 50, 51, 500, 1500, 3000]) AS batch
		FROM request WINDOW w AS (ORDER BY recorded_at, n)) r
	GROUP BY batch ORDER BY batch) b
CROSS JOIN LATERAL finance.import_transfers(b.requests) i;

CREATE TEMP TABLE moment AS
SELECT 'r' || (row_number() OVER () % 4) AS code, at
FROM (SELECT timestamptz '2024-01-10' + interval '130 days' * random() AS at FROM generate_series(1, 400)
	UNION ALL (SELECT recorded_at + interval '1 us' * (n % 3 - 1) FROM request ORDER BY md5(n::text) LIMIT 150)
	UNION ALL (SELECT effective_at + interval '1 us' * (n % 3 - 1) FROM request WHERE effective_at IS NOT NULL ORDER BY md5(n::text) LIMIT 200)
	UNION ALL SELECT timestamptz '2024-02-01' + interval '1 day' * n FROM generate_series(0, 100) n) m;

SELECT count(*) AS moments, count(DISTINCT effective) > 500 AS different FROM
	(SELECT finance.balance_at(code, at, 'effective') AS effective FROM moment) m;
SELECT * FROM (SELECT code, at, finance.balance_at(code, at) AS told, pg_temp.recorded(code, at) AS is FROM moment) m WHERE told <> "is";
SELECT * FROM (SELECT code, at, finance.balance_at(code, at, 'effective') AS told, pg_temp.effective(code, at) AS is FROM moment) m WHERE told <> "is";
-- in any time zone
SET timezone = 'Pacific/Kiritimati';
SELECT * FROM (SELECT code, at, finance.balance_at(code, at, 'effective') AS told, pg_temp.effective(code, at) AS is FROM moment ORDER BY at LIMIT 100) m WHERE told <> "is";
SET timezone = 'UTC';

-- a chain that fails leaves no value date, nor does a rejected transfer
SELECT finance.add_rule('cap', 'transfer_limit', 100000);
SELECT status, error FROM finance.transfer_batch(ARRAY[
	finance.request('r0', 'r1', 1, effective_at => '2024-02-02', linked => true),
	finance.request('r0', 'nobody', 1, effective_at => '2024-02-02'),
	finance.request('r0', 'r1', 100001, effective_at => '2024-02-02'),
	finance.request('r0', 'r1', 3, effective_at => '2024-02-02'),
	finance.request('r1', 'r2', 5, effective_at => '2024-02-02', idempotency_key => 'dated'),
	finance.request('r1', 'r2', 5, effective_at => '2024-02-02', idempotency_key => 'dated')]);
SELECT status, replayed FROM finance.transfer('r1', 'r2', 5, effective_at => '2024-02-02', idempotency_key => 'dated');
SELECT finance.remove_rule('cap');
-- held money has a value date when it is captured
SELECT hold_id FROM finance.hold('r0', 'r3', 30) \gset
SELECT status FROM finance.capture(:hold_id, 20, effective_at => '2024-02-02 06:00');
SELECT status FROM finance.release(:hold_id);
SELECT code, finance.balance_at(code, '2024-02-02 00:00:00.000001', 'effective') - pg_temp.effective(code, '2024-02-02 00:00:00.000001') AS off,
	finance.balance_at(code, '2024-02-03', 'effective') - pg_temp.effective(code, '2024-02-03') AS off_later,
	finance.balance_at(code, 'infinity', 'effective') = finance.balance(code) AS all_counts
FROM unnest('{r0,r1,r2,r3}'::text[]) code;
SELECT * FROM finance.check_integrity();

-- pages of any size are the whole, and add up
CREATE FUNCTION pg_temp.check_pages(code text, since timestamptz, until timestamptz, size integer)
RETURNS TABLE (entries bigint, pages bigint, in_order boolean, adds_up boolean, edges text)
LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
	n integer := 0;
BEGIN
	CREATE TEMP TABLE page AS SELECT 0 AS page, 0 AS ordinal, * FROM finance.statement(code, since, until, "limit" => 1) LIMIT 0;
	LOOP
		n := n + 1;
		INSERT INTO page SELECT n, row_number() OVER (), s.* FROM finance.statement(code, since, until, last, size) s;
		EXIT WHEN EXISTS (SELECT FROM page p WHERE p.page = n AND p.line = 'closing');
		IF (SELECT count(*) FROM page p WHERE p.page = n AND p.line = 'entry') <> size THEN
			RAISE EXCEPTION 'page % is short', n;
		END IF;
		SELECT max(p.transfer_id) INTO last FROM page p;
	END LOOP;
	RETURN QUERY SELECT count(*) FILTER (WHERE p.line = 'entry'), max(p.page)::bigint,
		array_agg(p.transfer_id ORDER BY p.page, p.ordinal) FILTER (WHERE p.line = 'entry')
			IS NOT DISTINCT FROM (SELECT array_agg(m.id ORDER BY m.id) FROM pg_temp.moved m
				WHERE m.code = check_pages.code AND m.drawn_at >= since AND m.drawn_at < until),
		sum(p.balance) FILTER (WHERE p.line = 'opening') + coalesce(sum(p.change), 0)
			= sum(p.balance) FILTER (WHERE p.line = 'closing')
			AND sum(p.balance) FILTER (WHERE p.line = 'opening') = finance.balance_at(code, since)
			AND sum(p.balance) FILTER (WHERE p.line = 'closing') = finance.balance_at(code, until),
		string_agg(p.line, ' ' ORDER BY p.page, p.ordinal) FILTER (WHERE p.line <> 'entry')
	FROM page p;
	DROP TABLE page;
END $$;
SELECT size, c.entries > 1500 AS long, c.pages = ceil(c.entries::numeric / size) AS pages, c.in_order, c.adds_up, c.edges
FROM unnest('{7, 100, 1000, 10000}'::integer[]) size
CROSS JOIN LATERAL pg_temp.check_pages('r1', '2024-01-01', '2024-06-01', size) c;
SELECT c.pages > 0 AS paged, c.in_order, c.adds_up, c.edges, count(*)
FROM generate_series(1, 40) n
CROSS JOIN LATERAL (SELECT timestamptz '2024-02-20' + interval '6 hours' * (n * 7 % 160) AS since, interval '7 hours' * n AS length) s
CROSS JOIN LATERAL pg_temp.check_pages('r' || n % 4, since, since + length, 1 + n * n) c
GROUP BY 1, 2, 3, 4;
SELECT * FROM finance.check_integrity();
ROLLBACK;

-- ------------------------------------------------------------------------
-- statements
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{s,t}'::text[]) code;
SELECT count(*) FROM finance.import_transfers(ARRAY[
	finance.request('t', 's', 100, recorded_at => '2025-01-31 23:59:59.999', reference => 'first'),
	finance.request('s', 't', 30, recorded_at => '2025-02-01', effective_at => '2025-01-15', reference => 'second', metadata => '{"a": 1}'),
	finance.request('s', 't', 5, recorded_at => '2025-02-28 23:59:59.999', type => 'adjustment'),
	finance.request('t', 's', 7, recorded_at => '2025-03-01')]);
CREATE FUNCTION pg_temp.lines(VARIADIC arguments text[]) RETURNS TABLE (line text, version bigint,
	recorded_at timestamptz, effective_at timestamptz, type text, status text, side text, amount numeric, change numeric, balance numeric, held numeric,
	counterparty text, reference text, metadata jsonb)
LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE 'SELECT s.line, s.version, s.recorded_at, s.effective_at, s.type, s.status, s.side, s.amount, s.change,'
		' s.balance, s.held, s.counterparty, s.reference, s.metadata FROM finance.statement(' || array_to_string(arguments, ', ') || ') s';
END $$;
SELECT * FROM pg_temp.lines($$'s'$$);
SELECT * FROM pg_temp.lines($$'s'$$, $$'2025-02-01'$$, $$'2025-03-01'$$);
-- no entry: it ends as it began
SELECT * FROM pg_temp.lines($$'s'$$, $$'2025-02-10'$$, $$'2025-02-11'$$);
SELECT * FROM pg_temp.lines($$'s'$$, $$'2025-02-10'$$, $$'2025-02-10'$$);
SELECT * FROM pg_temp.lines($$'s'$$, $$'2000-01-01'$$, $$'2000-02-01'$$);
SELECT * FROM pg_temp.lines($$'empty'$$);
-- after the last entry, and after more
SELECT line, balance FROM finance.statement('s', after => (SELECT last_transfer_id FROM finance._account WHERE code = 's' AND tenant_id = :tenant));
SELECT line, balance FROM finance.statement('s', after => 9223372036854775807);
SELECT line, balance FROM finance.statement('s', "from" => '-infinity', "to" => 'infinity', after => -1);
-- holds are lines, too; as are both sides of it
SELECT hold_id FROM finance.hold('s', 't', 50) \gset
SELECT status FROM finance.capture(:hold_id, 10);
SELECT status FROM finance.capture(:hold_id, 15, final => true);
SELECT hold_id FROM finance.hold('s', 't', 9) \gset
SELECT status FROM finance.release(:hold_id, 4);
SELECT line, version, status, side, amount, change, balance, held, counterparty FROM finance.statement('s', '2025-03-01', after => 0);
SELECT line, version, status, side, amount, change, balance, held, counterparty FROM finance.statement('t', '2025-03-01');
-- what is refused leaves no line; a change that is no transfer leaves a gap
SELECT finance.set_account_limits('s', -1000, NULL);
SELECT finance.add_rule('cap', 'transfer_limit', 10);
SELECT status FROM finance.transfer('s', 't', 11);
SELECT finance.remove_rule('cap');
SELECT id AS last FROM finance.transfer('s', 't', 1) \gset
SELECT line, version, change, balance, held FROM finance.statement('s', after => :last - 1);

-- ------------------------------------------------------------------------
-- of another tenant nothing is told
-- ------------------------------------------------------------------------
SELECT finance.create_tenant('history test, the other') AS other \gset
SET finance.tenant = :other;
SELECT pg_temp.attempt($$SELECT finance.balance_at('alice', now())$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('alice')$$);
SET finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- arguments
-- ------------------------------------------------------------------------
SELECT pg_temp.attempt($$SELECT finance.balance_at(NULL, now())$$);
SELECT pg_temp.attempt($$SELECT finance.balance_at('alice', NULL)$$);
SELECT pg_temp.attempt($$SELECT finance.balance_at('alice', now(), NULL)$$);
SELECT pg_temp.attempt($$SELECT finance.balance_at('alice', now(), 'value')$$);
SELECT pg_temp.attempt($$SELECT finance.balance_at('nobody', now())$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement(NULL)$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('nobody')$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('alice', "limit" => NULL)$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('alice', "limit" => 0)$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('alice', "limit" => 10001)$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.statement('alice', '2025-02-01', '2025-01-31')$$);
-- it reads only
BEGIN READ ONLY;
SELECT finance.balance_at('alice', '2025-02-01', by => 'effective'), count(*) FROM finance.statement('alice');
ROLLBACK;

-- ------------------------------------------------------------------------
-- the tables of value dates are guarded, and checked
-- ------------------------------------------------------------------------
SELECT pg_temp.attempt($$UPDATE finance.value_transfer SET change = 1$$);
SELECT pg_temp.attempt($$DELETE FROM finance.value_transfer$$);
SELECT pg_temp.attempt($$TRUNCATE finance.value_day$$);
SELECT pg_temp.attempt($$DELETE FROM finance.value_day$$);
CREATE FUNCTION pg_temp.breach(statement text) RETURNS TABLE (invariant text, breaches bigint)
LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		ALTER TABLE finance.value_transfer DISABLE TRIGGER guard;
		ALTER TABLE finance.value_day DISABLE TRIGGER guard;
		EXECUTE statement;
		RAISE EXCEPTION 'back' USING DETAIL = (SELECT string_agg(f.invariant || '|' || f.n, ';' ORDER BY f.invariant)
			FROM (SELECT c.invariant, count(*) AS n FROM finance.check_integrity() c GROUP BY 1) f);
	EXCEPTION WHEN raise_exception THEN
		DECLARE
			detail text;
		BEGIN
			GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
			RETURN QUERY SELECT split_part(line, '|', 1), split_part(line, '|', 2)::bigint FROM regexp_split_to_table(detail, ';') line;
		END;
	END;
END $$;
SELECT account_id AS alice FROM finance._account WHERE code = 'alice' AND tenant_id = :tenant \gset
SELECT * FROM pg_temp.breach('UPDATE finance.value_transfer SET change = change + 1 WHERE change = 10 AND account_id = ' || :alice);
SELECT * FROM pg_temp.breach('UPDATE finance.value_transfer SET effective_at = effective_at + interval ''1 us'' WHERE change = 10 AND account_id = ' || :alice);
SELECT * FROM pg_temp.breach('UPDATE finance.value_transfer SET total = total + 1 WHERE change = 10 AND account_id = ' || :alice);
SELECT * FROM pg_temp.breach('DELETE FROM finance.value_transfer WHERE change = 10 AND account_id = ' || :alice);
SELECT * FROM pg_temp.breach('UPDATE finance.value_day SET change = change - 1 WHERE day = ''2025-01-15'' AND account_id = ' || :alice);
SELECT * FROM pg_temp.breach('DELETE FROM finance.value_day WHERE account_id = ' || :alice);
SELECT * FROM finance.check_integrity();
