-- Journals: how legs become transfers, every bad input with its SQLSTATE and
-- nothing changed, repetition by key, and what risk rejects.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('journal test') AS tenant \gset
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
		reversal, exchange, exchange_residue, ruleset, risk_decision, risk_total, audit_record, message}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- a journal written shortly: account side amount [version], ...
CREATE FUNCTION pg_temp.legs(VARIADIC words text[]) RETURNS finance.journal_leg[]
LANGUAGE sql AS $$
	SELECT array_agg(finance.leg(w[1], CASE w[2] WHEN '-' THEN 'debit' WHEN '+' THEN 'credit' ELSE w[2] END,
		w[3]::numeric, w[4]::bigint) ORDER BY n)
	FROM unnest(words) WITH ORDINALITY AS u (word, n), LATERAL regexp_split_to_array(word, ' ') AS w
$$;
CREATE FUNCTION pg_temp.attempt_legs(VARIADIC words text[]) RETURNS text
LANGUAGE sql AS $$
	SELECT pg_temp.attempt(format('SELECT finance.journal(%L::finance.journal_leg[])', pg_temp.legs(VARIADIC words)))
$$;

SELECT count(finance.create_account(code, currency, min_available => floor, max_balance => ceiling))
FROM (VALUES ('source', 'EUR', NULL, NULL), ('a', 'EUR', NULL, NULL), ('b', 'EUR', NULL, NULL), ('c', 'EUR', NULL, NULL),
	('d', 'EUR', NULL, NULL), ('poor', 'EUR', 0, NULL), ('small', 'EUR', NULL, 100), ('frozen', 'EUR', NULL, NULL),
	('ya', 'JPY', NULL, NULL), ('yb', 'JPY', NULL, NULL), ('ua', 'USD', NULL, NULL), ('ub', 'USD', NULL, NULL),
	('e"\é', 'EUR', NULL, NULL)
) AS a (code, currency, floor, ceiling);
SELECT finance.set_account_status('frozen', 'frozen');
SELECT finance.create_transfer_type('payroll');
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');

-- ------------------------------------------------------------------------
-- what a journal does
-- ------------------------------------------------------------------------

-- currencies in the order in which they come, debits against credits as given
SELECT n, status, amount, currency, from_account, from_version, from_balance, to_account, to_version, to_balance,
	replayed, journal_id = first_value(id) OVER (ORDER BY n) AS of_journal
FROM finance.journal(pg_temp.legs('a - 10', 'ya - 500', 'c + 3', 'ub + 7.50', 'b + 9', 'd - 2', 'ua - 7.5', 'yb + 500'),
	'first', 'payroll', '2026-02-28 12:00+00', 'June', '{"run": 1}')
WITH ORDINALITY AS t (id, status, amount, currency, from_account, from_version, from_balance, from_available,
	to_account, to_version, to_balance, to_available, recorded_at, trace_id, rule, replayed, hold_id, hold_remaining,
	journal_id, token, n) ORDER BY n;

-- it is kept as it was given; each transfer tells what all have in common
SELECT j.type, jsonb_pretty(j.request) AS request, cardinality(j.transfer_ids) AS transfers
FROM finance.journal j WHERE tenant_id = :tenant;
SELECT count(*), type, reference, metadata, effective_at = '2026-02-28 12:00+00' AS effective, count(DISTINCT journal_id) AS journals
FROM finance.transfer WHERE tenant_id = :tenant GROUP BY type, reference, metadata, effective_at;
SELECT count(*), count(DISTINCT message->'payload'->>'journal_id') AS journals FROM finance.read('all', 0, 100);
SELECT count(*), count(request->'request') AS heads, count(request->>'idempotency_key') AS keys,
	count(DISTINCT response->>'journal_id') AS journals
FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'transfer';

-- of two legs it is one transfer, and a journal all the same
SELECT status, amount, from_account, to_account, id = journal_id AS own
FROM finance.journal(pg_temp.legs('b + 1', 'a - 1'));
-- several legs of an account
SELECT amount, from_account, from_version, to_account, to_version
FROM finance.journal(pg_temp.legs('a - 1', 'b + 2', 'a - 2', 'c + 1'));
SELECT amount, to_account FROM finance.journal(pg_temp.legs('a - 1', 'e"\é + 1'));

-- versions are those before the journal, whichever leg says them
SELECT count(*) FROM finance.journal(ARRAY[finance.leg('a', 'debit', 5, (SELECT version FROM finance.account
	WHERE tenant_id = :tenant AND code = 'a')), finance.leg('b', 'credit', 2), finance.leg('c', 'credit', 2),
	finance.leg('b', 'credit', 1, (SELECT version FROM finance.account WHERE tenant_id = :tenant AND code = 'b'))]);

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt('SELECT finance.journal(NULL)');
SELECT pg_temp.attempt('SELECT finance.journal(''{}'')');
SELECT pg_temp.attempt_legs('a - 1');
SELECT pg_temp.attempt('SELECT finance.journal((SELECT array_agg(finance.leg(''a'', ''debit'', 1)) FROM generate_series(1, 1001)))');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), NULL])');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg(NULL, ''credit'', 1)])');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg('''', ''credit'', 1)])');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg(repeat(''b'', 129), ''credit'', 1)])');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg(''b'', NULL, 1)])');
SELECT pg_temp.attempt('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg(''b'', ''credit'', NULL)])');
SELECT pg_temp.attempt_legs('a - 1', 'b left 1');
SELECT pg_temp.attempt_legs('a - 1', 'b + 1 -1');
SELECT pg_temp.attempt_legs('a - 0', 'b + 0');
SELECT pg_temp.attempt_legs('a - 1', 'b + -1');
SELECT pg_temp.attempt_legs('a - NaN', 'b + NaN');
SELECT pg_temp.attempt_legs('a - Infinity', 'b + Infinity');
SELECT pg_temp.attempt_legs('a - 0.001', 'b + 0.001');
SELECT pg_temp.attempt_legs('a - 9' || repeat('9', 35), 'a - 9' || repeat('9', 35), 'b + 1');
SELECT pg_temp.attempt_legs('a - 1', 'a + 1');
SELECT pg_temp.attempt_legs('a - 1', 'b - 1', 'c + 1', 'a + 1');
SELECT pg_temp.attempt_legs('a - 1 3', 'b + 2', 'a - 1 4');
SELECT pg_temp.attempt_legs('a - 1', 'nobody + 1');
SELECT pg_temp.attempt_legs('a - 1', 'b + 2');
SELECT pg_temp.attempt_legs('a - 1', 'b + 1', 'ya - 3', 'yb + 2', 'yb + 2');
SELECT pg_temp.attempt_legs('a - 1', 'yb + 1');
SELECT pg_temp.attempt_legs('a - 1', 'b + 1 77');
SELECT pg_temp.attempt_legs('a - 1 77', 'b + 1');
SELECT pg_temp.attempt_legs('a - 5', 'poor - 1', 'b + 6');
SELECT pg_temp.attempt_legs('a - 101', 'ua - 1', 'ub + 1', 'small + 101');
SELECT pg_temp.attempt_legs('a - 2', 'b + 1', 'frozen + 1');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), type => ''unheard'')');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), '''')');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), type => '''')');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), effective_at => ''infinity'')');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), reference => E''a\nb'')');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), metadata => jsonb_build_object(''a'', repeat(''x'', 300000)))');
SELECT pg_temp.book() = :'before' AS unchanged;

-- the most there may be, in one
SELECT count(*), sum(amount), count(DISTINCT journal_id), min(from_account), max(to_account)
FROM finance.journal((SELECT array_agg(finance.leg(CASE WHEN n <= 500 THEN 'a' ELSE 'b' END,
	CASE WHEN n <= 500 THEN 'debit' ELSE 'credit' END, CASE WHEN n <= 500 THEN n ELSE n - 500 END) ORDER BY n)
	FROM generate_series(1, 1000) AS n));
SELECT count(*), sum(amount)
FROM finance.journal((SELECT array_agg(finance.leg(CASE WHEN n = 1 THEN 'a' WHEN n % 2 = 0 THEN 'b' ELSE 'c' END,
	CASE WHEN n = 1 THEN 'debit' ELSE 'credit' END, CASE WHEN n = 1 THEN 9.99 ELSE 0.01 END) ORDER BY n)
	FROM generate_series(1, 1000) AS n));

-- ------------------------------------------------------------------------
-- repetition
-- ------------------------------------------------------------------------

CREATE TEMP TABLE answer AS SELECT 1 AS call, t.* FROM finance.journal(
	pg_temp.legs('source - 10', 'a + 4', 'poor + 6', 'ya - 5', 'yb + 5'), 'again', metadata => '{"n": [1, 2]}') AS t;
INSERT INTO answer SELECT 2, t.* FROM finance.journal(
	pg_temp.legs('source - 10.0', 'a + 4.00', 'poor + 6', 'ya - 5', 'yb + 5'), 'again', metadata => '{"n": [1, 2]}') AS t;
SELECT count(*), count(DISTINCT (id, status, amount, from_version, from_balance, to_version, to_balance, recorded_at, journal_id)) AS different,
	count(*) FILTER (WHERE replayed) AS replayed FROM answer;

-- also when the journal could not be made any more: by its first leg, or its last
SELECT finance.set_account_status('source', 'debits_frozen') > 0 AS frozen;
INSERT INTO answer SELECT 3, t.* FROM finance.journal(
	pg_temp.legs('source - 10', 'a + 4', 'poor + 6', 'ya - 5', 'yb + 5'), 'again', metadata => '{"n": [1, 2]}') AS t;
SELECT finance.set_account_status('source', 'active') > 0 AS active, finance.set_account_status('yb', 'credits_frozen') > 0 AS frozen;
INSERT INTO answer SELECT 4, t.* FROM finance.journal(
	pg_temp.legs('source - 10', 'a + 4', 'poor + 6', 'ya - 5', 'yb + 5'), 'again', metadata => '{"n": [1, 2]}') AS t;
SELECT finance.set_account_status('yb', 'active') > 0 AS active;
SET TimeZone = 'Asia/Tokyo';
SELECT count(*) FILTER (WHERE replayed) AS replayed FROM finance.journal(pg_temp.legs('a - 10', 'ya - 500', 'c + 3', 'ub + 7.50',
	'b + 9', 'd - 2', 'ua - 7.5', 'yb + 500'), 'first', 'payroll', '2026-02-28 21:00+09', 'June', '{"run": 1}');
RESET TimeZone;
SELECT count(*), count(DISTINCT (id, status, amount, from_version, from_balance, to_version, to_balance, recorded_at, journal_id)) AS different,
	count(*) FILTER (WHERE replayed) AS replayed FROM answer;

-- another request is refused and says what differs, also when it cannot be made
SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.journal(' || legs || ', ''again'', ' || rest || ')')
FROM (VALUES ('a leg', 'pg_temp.legs(''source - 10'', ''a + 5'', ''poor + 5'', ''ya - 5'', ''yb + 5'')', 'metadata => ''{"n": [1, 2]}'''),
	('order', 'pg_temp.legs(''ya - 5'', ''yb + 5'', ''source - 10'', ''a + 4'', ''poor + 6'')', 'metadata => ''{"n": [1, 2]}'''),
	('fewer', 'pg_temp.legs(''source - 10'', ''a + 4'', ''poor + 6'')', 'metadata => ''{"n": [1, 2]}'''),
	('no funds', 'pg_temp.legs(''poor - 10'', ''a + 10'')', 'metadata => ''{"n": [1, 2]}'''),
	('type', 'pg_temp.legs(''source - 10'', ''a + 4'', ''poor + 6'', ''ya - 5'', ''yb + 5'')', 'type => ''x'', metadata => ''{"n": [1, 2]}'''),
	('time', 'pg_temp.legs(''source - 10'', ''a + 4'', ''poor + 6'', ''ya - 5'', ''yb + 5'')', 'effective_at => ''2026-01-01'', metadata => ''{"n": [1, 2]}'''),
	('reference', 'pg_temp.legs(''source - 10'', ''a + 4'', ''poor + 6'', ''ya - 5'', ''yb + 5'')', 'reference => ''r'', metadata => ''{"n": [1, 2]}'''),
	('metadata', 'pg_temp.legs(''source - 10'', ''a + 4'', ''poor + 6'', ''ya - 5'', ''yb + 5'')', 'metadata => ''{"n": [2, 1]}''')
) AS v (what, legs, rest);
SELECT pg_temp.attempt('SELECT finance.transfer(''source'', ''a'', 4, idempotency_key => ''again'')');
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT count(*) FROM finance.transfer('a', 'b', 1, idempotency_key => 'plain');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 1'', ''b + 1''), ''plain'', ''transfer'')');

-- a batch's chain: what was done before with a key stays its answer, and a
-- copy of a member that fails with its chain is no answer
SELECT count(*) FROM finance.transfer('a', 'b', 2, idempotency_key => 'done');
SELECT position, error, status, replayed FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 2, idempotency_key => 'done', linked => true),
	finance.request('a', 'b', 3, idempotency_key => 'new', linked => true),
	finance.request('a', 'b', 3, idempotency_key => 'new', linked => true),
	finance.request('poor', 'b', 1000)]);
SELECT count(*) FROM finance.idempotency_key WHERE tenant_id = :tenant AND key = 'new';

-- ------------------------------------------------------------------------
-- risk: one transfer is rejected, nothing moves, and that is the key's answer
-- ------------------------------------------------------------------------

SELECT finance.add_rule('little', 'transfer_limit', 100, account => 'c');
SELECT code, version, balance FROM finance.account WHERE tenant_id = :tenant AND code IN ('a', 'b', 'c', 'd') ORDER BY code;
SELECT status, amount, from_account, to_account, from_version, rule, replayed, id = journal_id AS own
FROM finance.journal(pg_temp.legs('a - 5', 'c - 101', 'b + 5', 'd + 101'), 'risky');
SELECT status, amount, from_account, to_account, from_version, rule, replayed, id = journal_id AS own
FROM finance.journal(pg_temp.legs('a - 5', 'c - 101', 'b + 5', 'd + 101'), 'risky');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 5'', ''c - 101'', ''b + 5'', ''d + 101''), ''risky'', strict => true)');
SELECT pg_temp.attempt('SELECT finance.journal(pg_temp.legs(''a - 5'', ''c - 101'', ''b + 5'', ''d + 101''), strict => true)');
-- as the head, and the only one
SELECT status, from_account, replayed FROM finance.journal(pg_temp.legs('c - 102', 'a - 5', 'b + 107'), 'risky head');
SELECT status, from_account, replayed FROM finance.journal(pg_temp.legs('c - 102', 'a - 5', 'b + 107'), 'risky head');
SELECT status, from_account, replayed FROM finance.journal(pg_temp.legs('c - 103', 'b + 103'), 'risky one');
SELECT status, from_account, replayed FROM finance.journal(pg_temp.legs('c - 103', 'b + 103'), 'risky one');
-- also when risk would let it pass
SELECT finance.enable_rule('little', false);
SELECT status, from_account, rule, replayed FROM finance.journal(pg_temp.legs('a - 5', 'c - 101', 'b + 5', 'd + 101'), 'risky');
SELECT code, version, balance FROM finance.account WHERE tenant_id = :tenant AND code IN ('a', 'b', 'c', 'd') ORDER BY code;
SELECT status, count(*) FROM finance.transfer WHERE tenant_id = :tenant AND status = 'rejected' GROUP BY 1;
SELECT cardinality(transfer_ids), count(*) FROM finance.journal
WHERE tenant_id = :tenant AND request->'legs' @> '[{"account": "c", "side": "debit"}]' GROUP BY 1;
SELECT finance.remove_rule('little');

-- ------------------------------------------------------------------------
-- undone with its transaction; and by whom it may be made
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS before \gset
BEGIN;
SELECT count(*) FROM finance.journal(pg_temp.legs('a - 2', 'b + 1', 'd + 1'), 'undone');
ROLLBACK;
BEGIN;
SAVEPOINT part;
SELECT count(*) FROM finance.journal(pg_temp.legs('a - 2', 'b + 1', 'd + 1'), 'undone');
ROLLBACK TO part;
COMMIT;
SELECT pg_temp.book() = :'before' AS unchanged;
SET finance.direct_writes = off;
SELECT count(*), bool_or(replayed) AS replayed FROM finance.journal(pg_temp.legs('a - 2', 'b + 1', 'd + 1'), 'undone');
SELECT count(*), bool_and(replayed) AS replayed FROM finance.journal(pg_temp.legs('a - 2', 'b + 1', 'd + 1'), 'undone');
RESET finance.direct_writes;

CREATE ROLE regress_journal_app;
SET ROLE regress_journal_app;
SELECT pg_temp.attempt('SELECT finance.journal(NULL)');
RESET ROLE;
SELECT finance.grant_access('regress_journal_app', 'app');
SET ROLE regress_journal_app;
SELECT count(*) FROM finance.journal(ARRAY[finance.leg('a', 'debit', 2), finance.leg('b', 'credit', 2)], 'as app');
SELECT type, request->'legs'->0->>'account' AS account FROM finance.journal WHERE request @> '{"legs": [{"amount": "2"}]}' ORDER BY journal_id;
RESET ROLE;
DROP OWNED BY regress_journal_app;
DROP ROLE regress_journal_app;

SELECT pg_temp.attempt('UPDATE finance.journal SET type = ''x''');
SELECT pg_temp.attempt('DELETE FROM finance.journal');
SELECT * FROM finance.check_integrity();
