-- Idempotency keys: the first answer again, and another request refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('idempotency test') AS tenant \gset
SET finance.tenant = :tenant;

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')),
		'\m\d{17,19}\M', '<id>', 'g');
END $$;

CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key,
		ruleset, risk_decision, risk_total, audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('a', 'EUR'), ('b', 'EUR'), ('c', 'EUR'), ('yen', 'JPY')) AS v (code, currency);
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');

-- ------------------------------------------------------------------------
-- the same request: the first answer, but for its mark; and nothing changes
-- ------------------------------------------------------------------------

CREATE TEMP TABLE answer AS
SELECT 'full' AS request, t.* FROM finance.transfer('a', 'b', 10.5, currency => 'EUR', idempotency_key => 'full',
	type => 'payment', expected_from_version => 0, expected_to_version => 0,
	effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}') AS t;
INSERT INTO answer SELECT 'bare', t.* FROM finance.transfer('a', 'b', 1, idempotency_key => 'bare') AS t;
SELECT finance.add_rule('limit', 'transfer_limit', 100);
INSERT INTO answer SELECT 'rejected', t.* FROM finance.transfer('a', 'b', 100.01, idempotency_key => 'rejected') AS t;
SELECT request, status, amount, from_version, from_balance, to_version, to_balance, rule, replayed FROM answer;

-- meanwhile much happens to both accounts, and the rule goes
SELECT n, t.from_balance FROM generate_series(1, 3) AS n CROSS JOIN LATERAL finance.transfer('b', 'a', 7 + n) AS t ORDER BY n;
SELECT finance.remove_rule('limit');
SELECT finance.set_account_status('a', 'frozen') > 0 AS set;
SELECT finance.set_account_limits('b', -20, 0) > 0 AS set;

SELECT pg_temp.book() AS before \gset
CREATE TEMP TABLE again AS
SELECT 'full' AS request, t.* FROM finance.transfer('a', 'b', 10.5, currency => 'EUR', idempotency_key => 'full',
	type => 'payment', expected_from_version => 0, expected_to_version => 0,
	effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}') AS t;
INSERT INTO again SELECT 'bare', t.* FROM finance.transfer('a', 'b', 1, idempotency_key => 'bare') AS t;
INSERT INTO again SELECT 'rejected', t.* FROM finance.transfer('a', 'b', 100.01, idempotency_key => 'rejected') AS t;
SELECT request, status, amount, from_version, from_balance, to_version, to_balance, rule, replayed FROM again;
SELECT count(*) AS equal FROM answer JOIN again USING (request)
WHERE to_jsonb(answer) - 'replayed' = to_jsonb(again) - 'replayed' AND NOT answer.replayed AND again.replayed;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- what says the same counts as the same
SELECT status, amount, replayed FROM finance.transfer('a', 'b', 10.500000, idempotency_key => 'full',
	type => 'payment', expected_from_version => 0, expected_to_version => 0,
	effective_at => '2026-01-02 12:04:05.678901+09', reference => 'r', metadata => '{"x":[1.0,{"y":null}]}');
SELECT status, replayed FROM finance.transfer('a', 'b', 1, currency => 'EUR', idempotency_key => 'bare');
-- and accounts may be named by id
SELECT t.status, t.from_account, t.to_account, t.replayed
FROM (SELECT max(account_id) FILTER (WHERE code = 'a') AS a, max(account_id) FILTER (WHERE code = 'b') AS b
	FROM finance.account WHERE tenant_id = :tenant) AS i,
	finance.transfer(i.a, i.b, 1, idempotency_key => 'bare') AS t;
-- a strict caller never takes a rejected transfer for one made
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 100.01, idempotency_key => 'rejected', strict => true)$$);
SELECT status, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'bare', strict => true);
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- another request under the key: refused, with the first field that differs
-- ------------------------------------------------------------------------

CREATE TEMP TABLE other (n serial, what text, arguments text);
INSERT INTO other (what, arguments) VALUES
	('from_account', $$'c', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('to_account', $$'a', 'c', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('amount', $$'a', 'b', 10.51, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('currency', $$'a', 'b', 10.5, currency => 'USD', idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('type', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'Payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('expected_from_version', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 1, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('expected_from_version left out', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('expected_to_version', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 4, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('effective_at', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678902+00', reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('effective_at left out', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, reference => 'r', metadata => '{"x": [1, {"y": null}]}'$$),
	('reference', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'R', metadata => '{"x": [1, {"y": null}]}'$$),
	('metadata', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r', metadata => '{"x": [1, {"z": null}]}'$$),
	('metadata left out', $$'a', 'b', 10.5, idempotency_key => 'full', type => 'payment', expected_from_version => 0, expected_to_version => 0, effective_at => '2026-01-02 03:04:05.678901+00', reference => 'r'$$),
	('two fields: the first', $$'a', 'b', 99, idempotency_key => 'full', type => 'fee'$$),
	('accounts swapped', $$'b', 'a', 1, idempotency_key => 'bare'$$),
	('expected_from_version added', $$'a', 'b', 1, idempotency_key => 'bare', expected_from_version => 1$$),
	('expected_to_version added', $$'a', 'b', 1, idempotency_key => 'bare', expected_to_version => 1$$),
	('effective_at added', $$'a', 'b', 1, idempotency_key => 'bare', effective_at => now()$$),
	('reference added', $$'a', 'b', 1, idempotency_key => 'bare', reference => 'r'$$),
	('metadata added', $$'a', 'b', 1, idempotency_key => 'bare', metadata => '{}'$$),
	('metadata of JSON null', $$'a', 'b', 1, idempotency_key => 'bare', metadata => 'null'$$),
	('amount of a rejected one', $$'a', 'b', 100.02, idempotency_key => 'rejected'$$),
	('accounts of another currency', $$'yen', 'b', 1, idempotency_key => 'bare'$$),
	('amount that is none', $$'a', 'b', 'NaN', idempotency_key => 'bare'$$),
	('unknown account', $$'a', 'nobody', 1, idempotency_key => 'bare'$$);
\pset format unaligned
SELECT what, pg_temp.attempt('SELECT finance.transfer(' || arguments || ')') AS result FROM other ORDER BY n;
\pset format aligned
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- keys are told apart by every byte
SELECT finance.set_account_status('a', 'active') > 0 AS set, finance.set_account_limits('b', NULL, NULL) > 0 AS set;
SELECT encode(convert_to(key, 'UTF8'), 'hex') AS key, t.replayed FROM (VALUES ('k'), ('K'), ('k '), (' k'), ('k'), (U&'\00E9'), (U&'e\0301')) AS v (key)
	CROSS JOIN LATERAL finance.transfer('a', 'b', 0.01, idempotency_key => key) AS t;

-- ------------------------------------------------------------------------
-- within one transaction, one statement, one row
-- ------------------------------------------------------------------------

SELECT finance.balance('b') AS before \gset
BEGIN;
SELECT to_balance - :before AS more, replayed FROM finance.transfer('a', 'b', 2, idempotency_key => 'in one transaction');
SELECT to_balance - :before AS more, replayed FROM finance.transfer('a', 'b', 2, idempotency_key => 'in one transaction');
COMMIT;
SELECT to_balance - :before AS more, replayed FROM finance.transfer('a', 'b', 2, idempotency_key => 'in one transaction');
SELECT n, t.to_balance - :before AS more, t.replayed
FROM generate_series(1, 3) AS n CROSS JOIN LATERAL finance.transfer('a', 'b', 3, idempotency_key => left('in one statement' || n, 16)) AS t ORDER BY n;
SELECT x.to_balance - :before AS more, x.replayed, y.to_balance - :before AS more, y.replayed, x.id = y.id AS same
FROM (SELECT finance.transfer('a', 'b', 4, idempotency_key => 'in one row') AS x,
	finance.transfer('a', 'b', 4, idempotency_key => 'in one row') AS y OFFSET 0) AS s, LATERAL (SELECT (s.x).*) AS x, LATERAL (SELECT (s.y).*) AS y;
SELECT finance.balance('b') - :before AS more;
-- a statement that repeats a key for another request makes nothing of it
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', n, idempotency_key => 'changing') FROM generate_series(1, 2) AS n$$);
SELECT pg_temp.book() = :'before' AS nothing_changed;
-- with a repeatable snapshot too
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT status, replayed FROM finance.transfer('a', 'b', 5, idempotency_key => 'repeatable read');
SELECT status, replayed FROM finance.transfer('a', 'b', 5, idempotency_key => 'repeatable read');
SELECT status, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'bare');
COMMIT;

-- ------------------------------------------------------------------------
-- a request that failed or was rolled back leaves its key free
-- ------------------------------------------------------------------------

SELECT finance.create_account('poor', 'EUR') > 0 AS made;
SELECT pg_temp.attempt($$SELECT finance.transfer('poor', 'b', 5, idempotency_key => 'at first poor')$$);
SELECT to_balance FROM finance.transfer('a', 'poor', 5);
SELECT status, replayed FROM finance.transfer('poor', 'b', 5, idempotency_key => 'at first poor');
-- and now that it is poor again
SELECT status, replayed FROM finance.transfer('poor', 'b', 5, idempotency_key => 'at first poor');
SELECT finance.add_rule('limit', 'transfer_limit', 100);
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 101, idempotency_key => 'strict first', strict => true)$$);
SELECT status, rule, replayed FROM finance.transfer('a', 'b', 101, idempotency_key => 'strict first');
SELECT status, rule, replayed FROM finance.transfer('a', 'b', 101, idempotency_key => 'strict first');

-- keys are of a tenant
SELECT finance.create_tenant('idempotency test, the other') AS other \gset
SET finance.tenant = :other;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('a'), ('b')) AS v (code);
SELECT amount, replayed FROM finance.transfer('a', 'b', 77, idempotency_key => 'bare');
SET finance.tenant = :tenant;
SELECT amount, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'bare');

-- each key stands for one transfer, and each transfer for one message and record
SELECT count(*), count(DISTINCT k.transfer_id), count(t.id) AS transfers, count(m.message_id) AS messages, count(r.id) AS records
FROM finance.idempotency_key k
	LEFT JOIN finance.transfer t ON t.tenant_id = k.tenant_id AND t.id = k.transfer_id
	LEFT JOIN finance.message m ON m.tenant_id = k.tenant_id AND m.payload->'payload'->>'transfer_id' = k.transfer_id::text
	LEFT JOIN finance.audit_record r ON r.tenant_id = k.tenant_id AND r.transfer_id = k.transfer_id
WHERE k.tenant_id = :tenant;
SELECT * FROM finance.check_integrity();
