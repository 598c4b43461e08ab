-- What a caller may send at worst: absurd numbers, sizes and texts, history in a
-- batch, requests repeated from a session with other settings.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
\set SHOW_CONTEXT never
INSERT INTO finance.tenant (tenant_id, name) VALUES (9061, 'hostile') ON CONFLICT DO NOTHING;
SET finance.tenant = 9061;
SELECT finance.create_account('cash', 'EUR', 'asset', min_available => NULL) > 0 AS cash,
	finance.create_account('a', 'EUR') > 0 AS a,
	finance.create_account('b', 'EUR') > 0 AS b,
	finance.create_account('usd', 'USD', min_available => NULL) > 0 AS usd,
	finance.create_account('eur', 'EUR') > 0 AS eur,
	finance.create_account('dollars', 'USD') > 0 AS dollars;
SELECT status FROM finance.transfer('cash', 'a', 1000);

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
	-- whatever is told is text of this database
	PERFORM convert_from(convert_to(message || detail, 'UTF8'), 'UTF8');
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''));
END $$;

-- ---- a request with recorded_at is no history, wherever it stands ----
SELECT position, error, message, status, finance.id_time(id) > now() - interval '1 hour' AS drawn_now
FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 1, recorded_at => '2021-01-01 00:00+00'),
	finance.request('a', 'b', 1)]);
SELECT position, error, message, status, finance.id_time(id) > now() - interval '1 hour' AS drawn_now
FROM finance.transfer_batch(ARRAY[
	finance.request('a', NULL, 1, recorded_at => '2021-01-01 00:00+00'),
	finance.request('a', 'b', 1),
	finance.request('a', 'b', 1, recorded_at => 'infinity')]);

-- ---- texts that have to be cut, or are too long to be looked at ----
SELECT position, error, convert_from(convert_to(message, 'UTF8'), 'UTF8') AS message, detail
FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 1, action => 'x' || repeat('é', 40)),
	finance.request('a', 'b', 1, action => 'x' || repeat('é', 31)),
	finance.request('a', 'b', 1, action => ''),
	finance.request('a', 'b', 1, amount_mode => 'x' || repeat('é', 40)),
	finance.request('a', 'b', 1, amount_mode => E'exact\n'),
	finance.request('a', 'b', 1, reference => repeat('é', 1000000)),
	finance.request('a', 'b', 1, idempotency_key => repeat('k', 256)),
	finance.request(repeat('a', 129), 'b', 1),
	finance.request('a', 'b', 1, metadata => to_jsonb(repeat('x', 1000000)))]);
SELECT pg_temp.attempt(format('SELECT finance.journal(ARRAY[finance.leg(''a'', %L, 1), finance.leg(''b'', ''credit'', 1)])',
	'x' || repeat('é', n))) FROM unnest(ARRAY[31, 70]) n;
SELECT pg_temp.attempt(format('SELECT finance.exchange(''a'', ''b'', 1, 1, ''a'', ''b'', %L)',
	'x' || repeat('é', n))) FROM unnest(ARRAY[31, 40]) n;
SELECT pg_temp.attempt($$SELECT finance.lock_accounts(ARRAY['a', repeat('é', 100)])$$);

-- ---- numbers: none of them is money, and 131,072 digits are not repeated ----
SELECT r.error, left(r.message, 40) AS message, max(length(r.detail)) < 200 AS short, count(*)
FROM finance.transfer_batch(ARRAY(
	SELECT finance.request('a', 'b', n, amount_mode => m)
	FROM unnest('{NaN,Infinity,-Infinity,0,-1,1e131071,-1e131071,1e-16383,1e-200,0.001}'::numeric[]) n,
		unnest('{exact,up_to}'::text[]) m,
		generate_series(1, 50))) r
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT n, left(pg_temp.attempt(format('SELECT finance.%s', replace(f, '#', quote_literal(n) || '::numeric'))), 60) AS outcome
FROM unnest('{NaN,Infinity,-1,1e500,1e-200}'::text[]) n,
	unnest(ARRAY['hold(''a'', ''b'', #)', 'create_account(''c'', ''EUR'', ''liability'', #)',
		'split_amount(#, ''{1,1}'', 2)', 'split_amount(1, ARRAY[1, #], 2)',
		'exchange(''a'', ''dollars'', 1, #, ''eur'', ''usd'')']) f
ORDER BY f, n COLLATE "C";

-- ---- arrays ----
SELECT count(*) FROM finance.transfer_batch('{}');
SELECT position, error, message FROM finance.transfer_batch(ARRAY[NULL, NULL]::finance.transfer_request[]);
SELECT position, error, status FROM finance.transfer_batch(
	ARRAY[[finance.request('a', 'b', 1), NULL], [finance.request('a', 'b', 1), finance.request('a', 'c', 1)]]);
SELECT pg_temp.attempt('SELECT finance.transfer_batch(NULL)');
SELECT pg_temp.attempt('SELECT finance.transfer_batch(array_fill(NULL::finance.transfer_request, ARRAY[10001]))');
SELECT pg_temp.attempt('SELECT finance.transfer_batch(array_fill(NULL::finance.transfer_request, ARRAY[100000000]))');
SELECT pg_temp.attempt('SELECT finance.journal(array_fill(NULL::finance.journal_leg, ARRAY[100000000]))');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[NULL, NULL]::finance.journal_leg[])');
SELECT pg_temp.attempt('SELECT finance.lock_accounts(array_fill(NULL::text, ARRAY[100000000]))');
SELECT pg_temp.attempt('SELECT finance.split_amount(1, array_fill(NULL::numeric, ARRAY[100000000]), 2)');
SELECT pg_temp.attempt($$SELECT finance.distribute('a', array_fill('b'::text, ARRAY[1, 100000]), '{1}', 1)$$);

-- ---- a request repeated under other settings is the same request ----
SET IntervalStyle = postgres;
SET DateStyle = 'ISO, DMY';
SET TimeZone = 'UTC';
SELECT status, replayed FROM finance.hold('a', 'b', 1, idempotency_key => 'style',
	expires_in => '1 month 2 days 3.5 seconds');
SELECT status, replayed FROM finance.transfer('a', 'b', 1.50, amount_mode => 'up_to',
	idempotency_key => 'dated', effective_at => '2024-05-06 07:08+00');
SELECT count(*) FROM finance.journal(ARRAY[finance.leg('a', 'debit', 1), finance.leg('b', 'credit', 1)],
	idempotency_key => 'dated journal', effective_at => '2024-05-06 07:08+00');
SET IntervalStyle = iso_8601;
SET DateStyle = 'German, YMD';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = 0;
SELECT status, replayed FROM finance.hold('a', 'b', 1, idempotency_key => 'style',
	expires_in => '1 month 2 days 3.5 seconds');
SELECT status, replayed FROM finance.transfer('a', 'b', 1.5, amount_mode => 'up_to',
	idempotency_key => 'dated', effective_at => '2024-05-06 07:08+00');
SELECT bool_and(replayed) FROM finance.journal(ARRAY[finance.leg('a', 'debit', 1.0), finance.leg('b', 'credit', 1)],
	idempotency_key => 'dated journal', effective_at => '2024-05-06 07:08+00');
-- but another time is another request
SELECT pg_temp.attempt($$SELECT finance.hold('a', 'b', 1, idempotency_key => 'style',
	expires_in => '1 month 3 days 3.5 seconds')$$) LIKE 'LG007 %whose expires_in differs.' AS refused;
RESET IntervalStyle;
RESET DateStyle;
RESET TimeZone;

-- ---- a chain of repeated requests and new ones, each of which needs the money
-- that only those before it, if they were not carried out again, leave ----
SELECT finance.create_account('s', 'EUR') > 0 AS s, finance.create_account('t', 'EUR') > 0 AS t;
SELECT status FROM finance.transfer('cash', 's', 600);
SELECT count(*) FROM finance.transfer_batch(ARRAY(
	SELECT finance.request('s', 't', 1, idempotency_key => 'old' || n)
	FROM generate_series(1, 600) n)) WHERE error IS NULL;
SELECT status FROM finance.transfer('cash', 's', 1);
SELECT error, replayed, count(*) FROM finance.transfer_batch(ARRAY(
	SELECT r FROM generate_series(1, 600) n,
		LATERAL (VALUES (1, finance.request('s', 't', 1, idempotency_key => 'old' || n)),
			(2, finance.request('s', 't', 1, idempotency_key => 'new' || n)),
			(3, finance.request('t', 's', 1))) v (k, r)
	ORDER BY n, k), atomic => true)
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT code, balance FROM finance.account WHERE tenant_id = 9061 AND code IN ('s', 't') ORDER BY code;

SELECT * FROM finance.check_integrity() WHERE tenant_id = 9061;
