-- check_integrity(): each breach is made, against all that prevents it, and
-- must be told: that one, and what else it breaks.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('integrity test') AS tenant \gset
SET finance.tenant = :tenant;

-- what is told, ids by the names they have here
CREATE FUNCTION pg_temp.told(OUT invariant text, OUT object text, OUT expected text, OUT is_now text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
	breach record;
	named record;
BEGIN
	FOR breach IN SELECT * FROM finance.check_integrity() c
		WHERE c.tenant_id = current_setting('finance.tenant')::integer ORDER BY 1, 3, 4, 5
	LOOP
		invariant := breach.invariant;
		object := breach.object;
		expected := breach.expected;
		is_now := breach.found;
		FOR named IN SELECT account_id::text AS id, '<' || code || '>' AS name FROM finance._account
			UNION ALL SELECT id::text, '<' || reference || '>' FROM finance.transfer WHERE reference IS NOT NULL
		LOOP
			object := replace(object, named.id, named.name);
			expected := replace(expected, named.id, named.name);
			is_now := replace(is_now, named.id, named.name);
		END LOOP;
		object := regexp_replace(object, '\m\d{16,19}\M', '<id>', 'g');
		object := regexp_replace(object, 'queue \d{1,15}', 'queue <n>');
		expected := regexp_replace(regexp_replace(expected, '\m\d{16,19}\M', '<id>', 'g'), 'tenant \d+', 'tenant <n>');
		is_now := regexp_replace(is_now, '\m\d{16,19}\M', '<id>', 'g');
		RETURN NEXT;
	END LOOP;
END $$;

-- the breach, what is told of it, and back; {here} is the tenant's rows
CREATE FUNCTION pg_temp.breach(statement text, OUT invariant text, OUT object text, OUT expected text, OUT is_now text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
	rows jsonb;
BEGIN
	BEGIN
		-- all that stands in the way of a superuser
		ALTER TABLE finance._account DISABLE TRIGGER guard;
		ALTER TABLE finance._account DISABLE TRIGGER totals_valid;
		ALTER TABLE finance.account_change DISABLE TRIGGER guard;
		ALTER TABLE finance.transfer DISABLE TRIGGER guard;
		EXECUTE replace(statement, '{here}', 'tenant_id = ' || current_setting('finance.tenant'));
		SELECT coalesce(jsonb_agg(t), '[]') INTO rows FROM pg_temp.told() AS t;
		RAISE EXCEPTION SQLSTATE 'XX998';
	EXCEPTION WHEN SQLSTATE 'XX998' THEN
	END;
	RETURN QUERY SELECT r.* FROM jsonb_to_recordset(rows) AS r (invariant text, object text, expected text, is_now text);
END $$;

SELECT count(finance.create_account(code, 'EUR', min_available => floor, max_balance => 1000))
FROM (VALUES ('source', NULL), ('alice', 0), ('bob', 0)) AS v (code, floor);
SELECT finance.create_account('yen', 'JPY') > 0 AS made;
SELECT finance.create_queue('q');
SELECT finance.bind_topic('#', 'q');
SELECT t.to_version, t.to_balance FROM (VALUES (1, 'source', 'alice', 100), (2, 'alice', 'bob', 40), (3, 'source', 'alice', 5)) AS v (n, "from", "to", amount),
	LATERAL finance.transfer("from", "to", amount, reference => 't' || n, idempotency_key => 'key ' || n) AS t ORDER BY n;
SELECT finance.set_account_limits('alice', 10, 1000);
SELECT finance.add_rule('limit', 'transfer_limit', 50, account => 'alice');
SELECT status FROM finance.transfer('alice', 'bob', 51, reference => 'rejected', idempotency_key => 'key 4');
SELECT finance.archive('q', msg_id) FROM finance.read('q', 0, 1);
\pset format unaligned

-- nothing is told when all is well, nor of breaches that are undone
SELECT * FROM finance.check_integrity();
SELECT * FROM pg_temp.breach('SELECT 1');

-- ------------------------------------------------------------------------
-- I1 the book balances: money out of nothing
-- ------------------------------------------------------------------------
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET credits_posted = credits_posted + 0.01 WHERE code = 'bob' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET credits_pending = 3 WHERE code = 'bob' AND {here}$$);

-- ------------------------------------------------------------------------
-- I2 totals, balances and currencies are those of the transfers
-- ------------------------------------------------------------------------
-- the same on both sides, so that the book still balances
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET debits_posted = debits_posted + 7, credits_posted = credits_posted + 7 WHERE code = 'bob' AND {here}$$);
-- a transfer vanishes
SELECT * FROM pg_temp.breach($$DELETE FROM finance.idempotency_key WHERE key = 'key 3'; DELETE FROM finance.transfer WHERE reference = 't3' AND {here}$$);
-- an amount is changed
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET amount = 41 WHERE reference = 't2' AND {here}$$);
-- a balance in the history
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET to_balance = 41 WHERE reference = 't2' AND {here}$$);
-- the currency of a transfer, of an account, of its decimals; a tenant
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET currency = 'USD' WHERE reference = 't2' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET currency = 'EURO' WHERE code = 'yen' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET minor_units = 1 WHERE code = 'yen' AND {here}$$);
SELECT * FROM pg_temp.breach($$SET LOCAL session_replication_role = replica; ALTER TABLE finance.tenant DISABLE TRIGGER guard; DELETE FROM finance.tenant WHERE {here}; DELETE FROM finance._account WHERE code <> 'yen' AND {here}; DELETE FROM finance.account_change; DELETE FROM finance.transfer; DELETE FROM finance.idempotency_key$$);
-- an account vanishes; one that has nothing is not missed
SELECT * FROM pg_temp.breach($$DELETE FROM finance._account WHERE code = 'bob' AND {here}$$);
SELECT * FROM pg_temp.breach($$DELETE FROM finance._account WHERE code = 'yen' AND {here}$$);

-- ------------------------------------------------------------------------
-- I3 versions count every change, without a gap, in the order of ids
-- ------------------------------------------------------------------------
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET version = version + 1 WHERE code = 'bob' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET version = 3 WHERE code = 'yen' AND {here}$$);
-- a change other than a transfer vanishes, or counts twice
SELECT * FROM pg_temp.breach($$DELETE FROM finance.account_change WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.account_change SET version = 3 WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.account_change SET version = 0 WHERE {here}$$);
-- history told in another order than it happened: t3 before t1
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET id = (SELECT id - 1 FROM finance.transfer WHERE reference = 't1' AND {here})
	WHERE reference = 't3' AND {here};
	DELETE FROM finance.idempotency_key WHERE key = 'key 3'$$);

-- ------------------------------------------------------------------------
-- I4 a key stands for exactly one transfer
-- ------------------------------------------------------------------------
SELECT * FROM pg_temp.breach($$INSERT INTO finance.idempotency_key VALUES (current_setting('finance.tenant')::integer, 'of nothing', 1)$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.idempotency_key SET transfer_id = 1 WHERE key = 'key 2' AND {here}$$);
SELECT * FROM pg_temp.breach($$INSERT INTO finance.idempotency_key SELECT tenant_id, 'second key', transfer_id FROM finance.idempotency_key WHERE key = 'key 2' AND {here}$$);
SELECT * FROM pg_temp.breach($$DELETE FROM finance.transfer WHERE reference = 'rejected' AND {here}$$);

-- ------------------------------------------------------------------------
-- I5 what is held and available
-- ------------------------------------------------------------------------
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET debits_pending = 1, credits_pending = 1 WHERE code = 'bob' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET min_available = 65.01 WHERE code = 'alice' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET min_available = 65 WHERE code = 'alice' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET max_balance = 64.99 WHERE code = 'alice' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._account SET max_balance = 65 WHERE code = 'alice' AND {here}$$);

-- ------------------------------------------------------------------------
-- holds, reversals, journals, value dates: what they are made of
-- ------------------------------------------------------------------------
BEGIN;
DO $$
DECLARE
	held bigint := (finance.hold('alice', 'bob', 20, reference => 'held')).id;
BEGIN
	PERFORM finance.capture(held, 5, reference => 'captured', effective_at => '2024-05-01 UTC');
	PERFORM finance.reverse_transfer(id, 3, 'reversed') FROM finance.transfer WHERE reference = 't2' AND tenant_id = current_setting('finance.tenant')::integer;
	PERFORM finance.journal(ARRAY[finance.leg('source', 'debit', 2), finance.leg('alice', 'credit', 1), finance.leg('bob', 'credit', 1)]);
END $$;
SELECT * FROM pg_temp.breach('SELECT 1');
-- the hold's row: its parts, its status, its accounts
SELECT * FROM pg_temp.breach($$UPDATE finance._hold SET captured = 4 WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._hold SET amount = 19 WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._hold SET released = 15, status = 'released' WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance._hold SET to_account_id = (SELECT account_id FROM finance._account WHERE code = 'source' AND {here}) WHERE {here}$$);
SELECT * FROM pg_temp.breach($$ALTER TABLE finance._hold DISABLE TRIGGER guard; DELETE FROM finance._hold WHERE {here}$$);
-- what was held after a transfer
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET from_held = 14 WHERE reference = 'captured' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET to_held = 1 WHERE reference = 'captured' AND {here}$$);
-- a reversal's row vanishes, or says too much; its transfer goes the wrong way
SELECT * FROM pg_temp.breach($$ALTER TABLE finance.reversal DISABLE TRIGGER guard; DELETE FROM finance.reversal WHERE {here}$$);
SELECT * FROM pg_temp.breach($$ALTER TABLE finance.reversal DISABLE TRIGGER guard; UPDATE finance.reversal SET amount = 41 WHERE {here}$$);
SELECT * FROM pg_temp.breach($$ALTER TABLE finance.reversal DISABLE TRIGGER guard;
	UPDATE finance.reversal SET transfer_id = (SELECT id FROM finance.transfer WHERE reference = 't1' AND {here}) WHERE {here};
	UPDATE finance.transfer SET reverses_id = (SELECT id FROM finance.transfer WHERE reference = 't1' AND {here}) WHERE reference = 'reversed' AND {here}$$);
-- a journal's row, a value date, a day
SELECT * FROM pg_temp.breach($$ALTER TABLE finance.journal DISABLE TRIGGER guard; DELETE FROM finance.journal WHERE {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.transfer SET effective_at = '2024-05-02 UTC' WHERE reference = 'captured' AND {here}$$);
SELECT * FROM pg_temp.breach($$UPDATE finance.value_day SET change = change + 1 WHERE change > 0 AND {here}$$);
ROLLBACK;

-- ------------------------------------------------------------------------
-- I8 a message is in one place, and in a queue that exists
-- ------------------------------------------------------------------------
SELECT * FROM pg_temp.breach($$INSERT INTO finance.message (msg_id, message_id, queue_id, enqueued_at, visible_at, tenant_id, read_ct, priority, segment, topic, headers, payload)
	SELECT msg_id, message_id, queue_id, enqueued_at, enqueued_at, tenant_id, 1, priority, 0, topic, headers, payload
	FROM finance.message_archive WHERE {here}$$);
SELECT * FROM pg_temp.breach($$INSERT INTO finance.message (msg_id, message_id, queue_id, enqueued_at, visible_at, tenant_id, read_ct, priority, segment, topic, headers, payload)
	SELECT msg_id + 1, message_id, queue_id, enqueued_at, visible_at, tenant_id, 0, priority, segment, topic, headers, payload
	FROM finance.message WHERE {here} ORDER BY msg_id LIMIT 1$$);
-- in two segments of its queue
SELECT * FROM pg_temp.breach($$INSERT INTO finance.message (msg_id, message_id, queue_id, enqueued_at, visible_at, tenant_id, read_ct, priority, segment, topic, headers, payload)
	SELECT msg_id, message_id, queue_id, enqueued_at, visible_at, tenant_id, 0, priority, (segment + 1) % 3, topic, headers, payload
	FROM finance.message WHERE {here} ORDER BY msg_id LIMIT 1$$);
SELECT * FROM pg_temp.breach($$DELETE FROM finance.binding WHERE {here}; DELETE FROM finance.queue WHERE {here}$$);
-- but archived ones outlive theirs
SELECT * FROM pg_temp.breach($$DELETE FROM finance.message WHERE {here}; DELETE FROM finance.binding WHERE {here}; DELETE FROM finance.queue WHERE {here}$$);

-- ------------------------------------------------------------------------
-- breaches of other tenants are told as theirs
-- ------------------------------------------------------------------------
BEGIN;
SELECT finance.create_tenant('integrity test, the other') AS other \gset
SET LOCAL finance.tenant = :other;
SELECT finance.create_account('alice', 'EUR') > 0 AS made;
ALTER TABLE finance._account DISABLE TRIGGER guard;
UPDATE finance._account SET version = 1 WHERE tenant_id = :other;
SELECT invariant, tenant_id = :other AS of_other, object, regexp_replace(expected, 'tenant \d+, account \d+', 'tenant <n>, account <n>') AS expected, found FROM finance.check_integrity();
ROLLBACK;
SELECT * FROM finance.check_integrity();
