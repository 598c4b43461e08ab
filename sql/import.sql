-- import_transfers(): history with its own times, before normal traffic.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('import test', 'America/New_York') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET datestyle = 'ISO';

-- ids by the time they were drawn in
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	context text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), substring(context FROM '^request \d+')),
		'\m\d{17,19}\M', '<id>', 'g');
END $$;

CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key, value_transfer, value_day,
		risk_decision, audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, 'EUR', min_available => floor))
FROM (VALUES ('bank', NULL), ('a', 0), ('b', 0), ('c', 0), ('late', NULL)) v (code, floor);
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');
SELECT finance.add_rule('cap', 'transfer_limit', 50);

-- ------------------------------------------------------------------------
-- of old months first the later one; several months at once
-- ------------------------------------------------------------------------

SELECT position, error, status, amount, from_account, from_version, from_balance, to_account, to_version, to_balance,
	recorded_at, replayed, finance.id_time(id) AS drawn_at
FROM finance.import_transfers(ARRAY[
	finance.request('bank', 'c', 70, recorded_at => '2023-05-31 23:59:59.9999', reference => 'above the cap'),
	finance.request('c', 'bank', 5, recorded_at => '2023-06-01', type => 'adjustment', metadata => '{"old": true}')]);
SELECT position, from_version, to_version, to_balance, recorded_at, finance.id_time(id) AS drawn_at
FROM finance.import_transfers(ARRAY[
	finance.request('late', 'a', 10, recorded_at => '2020-01-01'),
	finance.request('late', 'a', 20, recorded_at => '2020-01-01'),
	finance.request('late', 'b', 30, recorded_at => '2020-01-01 00:00:00.0005'),
	finance.request('b', 'a', 1, recorded_at => '2021-02-28 19:00-05', effective_at => '2021-01-01'),
	finance.request('a', 'b', 30, recorded_at => '2021-03-15 12:00', idempotency_key => 'march'),
	finance.request('b', 'a', 1, recorded_at => '2022-12-31 23:00')]);
-- each in the partition of its month, which has all that a partition has
SELECT t.tableoid::regclass, count(*), string_agg(t.amount::text, ' ' ORDER BY t.id)
FROM finance.transfer t WHERE t.tenant_id = :tenant GROUP BY 1 ORDER BY min(t.id);
SELECT c.relname, c.relrowsecurity, count(i.indexrelid) AS indexes,
	(SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'guard' AND t.tgenabled = 'A') AS guards
FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid
WHERE c.relname IN ('transfer_2020_01', 'transfer_2021_03', 'transfer_2023_05') GROUP BY c.oid, 1, 2 ORDER BY 1;
-- no risk rule was asked, nobody was told, and all is audited
SELECT count(*) FROM finance.risk_decision WHERE tenant_id = :tenant;
SELECT count(*) FROM finance.message WHERE tenant_id = :tenant;
SELECT operation, status, amount, balance_before, balance_after, request ->> 'from_account' AS from_account,
	request -> 'request' AS request, response ->> 'from_version' AS from_version
FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'import' ORDER BY id;
-- balances of then
SELECT finance.balance_at('a', '2020-02-01'), finance.balance_at('a', '2022-01-01'), finance.balance_at('a', '2021-02-01', 'effective'),
	finance.balance_at('c', '2023-05-31 23:59:59.999'), finance.balance_at('c', '2023-06-01'), finance.balance_at('c', '2023-06-02');
SELECT line, version, recorded_at, effective_at, change, balance, counterparty FROM finance.statement('a', '2020-01-01', '2022-01-01');
-- the daily counter is of the tenant's day of then
SELECT code, spent_on, spent FROM finance._account WHERE tenant_id = :tenant ORDER BY code;

-- ------------------------------------------------------------------------
-- repeated with its keys it answers as before; with others it is out of order
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS book \gset
SELECT from_version, replayed, recorded_at FROM finance.import_transfers(ARRAY[
	finance.request('a', 'b', 30, recorded_at => '2021-03-15 12:00', idempotency_key => 'march')]);
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SELECT from_version, replayed FROM finance.import_transfers(ARRAY[
	finance.request('a', 'b', 30, recorded_at => '2021-03-15 12:00 UTC', idempotency_key => 'march')]);

SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('a', 'b', 30, recorded_at => '2021-03-15 12:00:00.000001', idempotency_key => 'march')])$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 30, idempotency_key => 'march')$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('a', 'b', 1, recorded_at => '2022-12-31 22:59:59.999')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'b', 1, recorded_at => '2020-01-01')])$$);
-- the whole or nothing
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[
	finance.request('a', 'b', 1, recorded_at => '2023-01-01', idempotency_key => 'new'),
	finance.request('b', 'a', 1, recorded_at => '2023-01-01', effective_at => '2023-01-01'),
	finance.request('a', 'b', 1000, recorded_at => '2023-01-02'),
	finance.request('b', 'a', 1, recorded_at => '2023-01-03')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[
	finance.request('a', 'b', 1, recorded_at => '2023-01-01'),
	finance.request('a', 'nobody', 1, recorded_at => '2023-01-02')])$$);
SELECT pg_temp.book() = :'book' AS unchanged;

-- ------------------------------------------------------------------------
-- ids: above all there are, in the millisecond of their time while it has any
-- ------------------------------------------------------------------------

-- a second import of the same moment, of other accounts and of the same
SELECT finance.id_time(id) AS drawn_at, id = max(id) OVER () AS highest FROM finance.import_transfers(ARRAY[
	finance.request('bank', 'c', 1, recorded_at => '2023-06-01'),
	finance.request('bank', 'c', 1, recorded_at => '2023-06-01')]);
SELECT count(*), count(DISTINCT id), min(finance.id_time(id)), max(finance.id_time(id)) FROM finance.transfer
WHERE tenant_id = :tenant AND recorded_at BETWEEN '2023-06-01' AND '2023-06-02';
-- rows of the past, as it were
CREATE FUNCTION pg_temp.draw(id bigint) RETURNS bigint
LANGUAGE sql AS $$
INSERT INTO finance.transfer (id, from_account_id, to_account_id, recorded_at, tenant_id, trace_id, amount,
	from_balance, to_balance, status, type, currency)
SELECT draw.id, a.account_id, b.account_id, finance.id_time(draw.id), a.tenant_id, gen_random_uuid(), 1, 0, 0, 'rejected', 'transfer', 'EUR'
FROM finance._account a, finance._account b
WHERE a.code = 'bank' AND b.code = 'c' AND a.tenant_id = current_setting('finance.tenant')::integer AND b.tenant_id = a.tenant_id
RETURNING transfer.id
$$;
SELECT count(finance.create_account('many' || n, 'EUR', min_available => NULL)) FROM generate_series(1, 6) n;
-- more than a node draws in a millisecond
SELECT finance.id_time(id) AS drawn_at, id - finance.id_floor(finance.id_time(id)) AS number FROM finance.import_transfers(ARRAY[
	finance.request('many1', 'many2', 1, recorded_at => '2024-12-31 23:59:59.998')]);
SELECT pg_temp.draw(finance.id_floor('2024-12-31 23:59:59.998') + 16382) > 0 AS drawn;
SELECT finance.id_time(id) AS drawn_at, id - finance.id_floor(finance.id_time(id)) AS number FROM finance.import_transfers(ARRAY[
	finance.request('many1', 'many2', 1, recorded_at => '2024-12-31 23:59:59.998'),
	finance.request('many3', 'many4', 1, recorded_at => '2024-12-31 23:59:59.998'),
	finance.request('many1', 'many2', 1, recorded_at => '2024-12-31 23:59:59.998'),
	finance.request('many3', 'many4', 1, recorded_at => '2024-12-31 23:59:59.999'),
	finance.request('many5', 'many6', 1, recorded_at => '2025-01-01 00:00:00.000001'),
	finance.request('many5', 'many6', 1, recorded_at => '2025-01-01 00:00:00.001')]);
-- above those of another node, and in the next millisecond where one is full
SELECT finance.id_time(pg_temp.draw(finance.id_floor('2025-01-02') + (7 << 14) + 5));
SELECT finance.id_time(id) AS drawn_at, id - finance.id_floor(finance.id_time(id)) AS number FROM finance.import_transfers(ARRAY[
	finance.request('many5', 'many6', 1, recorded_at => '2025-01-02'), finance.request('many5', 'many6', 1, recorded_at => '2025-01-02')]);
SELECT pg_temp.draw(finance.id_floor('2025-01-02 00:00:00.001') - 2) > 0 AS drawn;
SELECT finance.id_time(id) AS drawn_at, id - finance.id_floor(finance.id_time(id)) AS number FROM finance.import_transfers(ARRAY[
	finance.request('many1', 'many2', 1, recorded_at => '2025-01-02'), finance.request('many1', 'many2', 1, recorded_at => '2025-01-02')]);
-- not so far that they could be those of now
BEGIN;
SELECT count(pg_temp.draw(finance.id_floor(timestamptz '2025-01-03' + interval '1 ms' * n) - 1)) FROM generate_series(1, 999) n;
SELECT finance.id_time(id) FROM finance.import_transfers(ARRAY[finance.request('many1', 'many2', 1, recorded_at => '2025-01-03')]);
SELECT pg_temp.draw(finance.id_floor('2025-01-03 00:00:01') - 1) > 0 AS drawn;
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('many3', 'many4', 1, recorded_at => '2025-01-03')])$$);
SELECT finance.id_time(id) FROM finance.import_transfers(ARRAY[finance.request('many3', 'many4', 1, recorded_at => '2025-01-03 00:00:00.001')]);
ROLLBACK;
-- another tenant's history is not in the way
SELECT finance.create_tenant('import test, the other') AS other \gset
SET finance.tenant = :other;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a,b}'::text[]) code;
SELECT from_version, finance.id_time(id) FROM finance.import_transfers(ARRAY[
	finance.request('a', 'b', 1, recorded_at => '2020-01-01'), finance.request('a', 'b', 1, recorded_at => '2024-12-31 23:59:59.998')]);
SET finance.tenant = :tenant;
-- twice in one transaction, and undone
BEGIN;
SELECT finance.id_time(id) FROM finance.import_transfers(ARRAY[finance.request('many1', 'many2', 1, recorded_at => '2025-02-01')]);
SAVEPOINT s;
SELECT finance.id_time(id) FROM finance.import_transfers(ARRAY[finance.request('many1', 'many2', 1, recorded_at => '2026-02-01')]);
ROLLBACK TO s;
SELECT from_version, finance.id_time(id) FROM finance.import_transfers(ARRAY[finance.request('many1', 'many2', 1, recorded_at => '2025-02-01')]);
COMMIT;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- then normal traffic starts, and history ends
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS book \gset
SELECT status, from_version FROM finance.transfer('a', 'b', 2);
SELECT regexp_replace(pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('a', 'c', 1, recorded_at => '2025-01-01')])$$), 'is of [^,]*,', 'is of <now>,');
SELECT regexp_replace(pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('c', 'b', 1, recorded_at => '2025-01-01')])$$), 'is of [^,]*,', 'is of <now>,');
-- what risk rejected was not traffic
SELECT status FROM finance.transfer('c', 'late', 51);
SELECT from_version FROM finance.import_transfers(ARRAY[finance.request('c', 'bank', 1, recorded_at => '2025-01-01')]);
SELECT finance.balance_at('c', 'infinity') = finance.balance('c') AS same;

-- ------------------------------------------------------------------------
-- arguments
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS book \gset
SELECT pg_temp.attempt($$SELECT finance.import_transfers(NULL)$$);
SELECT * FROM finance.import_transfers('{}');
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[NULL::finance.transfer_request])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1)])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => 'infinity')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => '2019-12-31 23:59:59.999999')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => clock_timestamp())])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => clock_timestamp() + interval '1 day')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, action => 'hold', recorded_at => '2025-02-01')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request(action => 'release', hold_id => 1, recorded_at => '2025-02-01')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => '2025-02-02'),
	finance.request('bank', 'c', 1, recorded_at => '2025-02-01 23:59:59.999999')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1.001, recorded_at => '2025-02-02')])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => '2025-02-02', linked => true)])$$);
SELECT pg_temp.attempt($$SELECT finance.import_transfers(array_agg(finance.request('bank', 'c', 1, recorded_at => '2025-02-02'))) FROM generate_series(1, 10001)$$);
SELECT error, message FROM finance.transfer_batch(ARRAY[finance.request('bank', 'c', 1, recorded_at => '2025-02-02')]);
SELECT from_version > 0 AS imported FROM finance.import_transfers(ARRAY[finance.request('bank', 'c', 1, recorded_at => clock_timestamp() - interval '5 seconds')]);
SELECT * FROM finance.check_integrity();
