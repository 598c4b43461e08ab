-- Transfers: what they do, every bad input with its SQLSTATE and nothing
-- changed, and that an error or a rollback at any point leaves nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
-- what is done to our tables here is not to be recorded among the rest
ALTER EVENT TRIGGER finance_audit_ddl DISABLE;
ALTER EVENT TRIGGER finance_audit_drop DISABLE;
RESET client_min_messages;
SELECT finance.create_tenant('transfer test') AS tenant \gset
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

-- everything there is in the tenant, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key,
		ruleset, risk_rule, risk_list, risk_measure, risk_total, risk_decision, audit_record, message, message_archive,
		_hold, journal, reversal, value_transfer, value_day}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t WHERE tenant_id = $1', name)
		INTO part USING current_setting('finance.tenant')::integer;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, currency, min_available => floor, max_balance => ceiling))
FROM (VALUES ('source', 'EUR', NULL, NULL), ('alice', 'EUR', 0, NULL), ('bob', 'EUR', 0, 500),
	('yen', 'JPY', NULL, NULL), ('yen 2', 'JPY', NULL, NULL), ('frozen', 'EUR', NULL, NULL), ('closed', 'EUR', NULL, NULL),
	('bottomless', 'JPY', NULL, NULL), ('topless', 'JPY', NULL, NULL)
) AS a (code, currency, floor, ceiling);
SELECT count(finance.set_account_status(status, status)) FROM (VALUES ('frozen'), ('closed')) AS s (status);
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');

-- ------------------------------------------------------------------------
-- what a transfer does
-- ------------------------------------------------------------------------

-- the answer
SELECT id > 0 AS id, status, amount, currency, from_account, from_version, from_balance, from_available,
	to_account, to_version, to_balance, to_available,
	recorded_at <= clock_timestamp() AS recorded, trace_id IS NOT NULL AS trace_id, rule, replayed
FROM finance.transfer('source', 'alice', 100) \gx

-- every argument by its name, in any order
SELECT status, amount, currency, from_version, to_version, from_balance, to_balance, trace_id
FROM finance.set_context(trace_id => '01234567-89ab-7def-8123-456789abcdef'),
	finance.transfer(strict => true, metadata => '{"order": 17}', reference => 'invoice 4711',
	effective_at => '2026-02-28 12:00:00+00', expected_to_version => 0, expected_from_version => 1,
	type => 'payment', idempotency_key => 'first', currency => 'EUR', amount => 25.5,
	to_account => 'bob', from_account => 'alice') \gx

-- the row, both sides in it
SELECT amount, from_version, to_version, from_balance, to_balance, from_held, to_held, status, type,
	currency, reference, metadata, effective_at = '2026-02-28 12:00:00+00' AS effective, trace_id
FROM finance.transfer WHERE tenant_id = :tenant AND reference = 'invoice 4711' \gx

-- the same as entries of its accounts
SELECT a.code, e.side, e.version, e.amount, e.change, e.balance, e.held, c.code AS counterparty
FROM finance.entry e JOIN finance.account a USING (tenant_id, account_id)
	JOIN finance.account c ON c.tenant_id = e.tenant_id AND c.account_id = e.counterparty_id
WHERE e.tenant_id = :tenant ORDER BY e.transfer_id, e.side;

-- its audit record and its message say the same
SELECT operation, status, amount, balance_before, balance_after, counterparty_balance_before,
	counterparty_balance_after, request, response::jsonb - 'transfer_id' AS response,
	message_id IS NOT NULL AS message, transfer_id IS NOT NULL AS transfer
FROM finance.audit_trace('01234567-89ab-7def-8123-456789abcdef') \gx
SELECT topic, priority, message - '{message_id,timestamp,trace_id}'::text[] #- '{payload,transfer_id}' AS message
FROM finance.read('all', 0, 10) WHERE message->>'trace_id' = '01234567-89ab-7def-8123-456789abcdef' \gx

-- accounts by id: the same accounts
SELECT max(account_id) FILTER (WHERE code = 'source') AS source_id, max(account_id) FILTER (WHERE code = 'alice') AS alice_id
FROM finance.account WHERE tenant_id = :tenant \gset
SELECT from_account, to_account, from_version, to_version, to_balance
FROM finance.transfer(:source_id, :alice_id, 7);
SELECT from_account, to_account, to_balance
FROM finance.transfer(to_account => :alice_id, from_account => :source_id, amount => 1, type => 'payment');
SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, ''alice''::text, 1)', :source_id)) LIKE '42883 %' AS not_mixed;

-- many in one statement: each sees those before it
SELECT n, t.from_version, t.to_version, t.to_balance
FROM generate_series(1, 5) AS n CROSS JOIN LATERAL finance.transfer('source', 'alice', n) AS t ORDER BY n;
SELECT count(*), sum((t).amount), min((t).status)
FROM (SELECT finance.transfer('source', 'alice', 0.01 * n) AS t FROM generate_series(1, 100) AS n OFFSET 0) AS s;
-- back and forth in one row of one statement
SELECT (finance.transfer('alice', 'source', 50.50)).from_balance AS first,
	(finance.transfer('source', 'alice', 50.50)).to_balance AS second;
-- one statement spends what another of it brought in, and no more
SELECT finance.create_account('through', 'EUR') > 0 AS made;
SELECT (finance.transfer('source', 'through', 10)).to_balance, (finance.transfer('through', 'source', 10)).from_balance,
	pg_temp.attempt('SELECT finance.transfer(''through'', ''source'', 0.01)');
SELECT finance.balance('alice'), version FROM finance.account WHERE tenant_id = :tenant AND code = 'alice';

-- a statement that fails has made none of its transfers
SELECT pg_temp.book() AS before \gset
SELECT t.status FROM generate_series(1, 3) AS n
	CROSS JOIN LATERAL finance.transfer('source', CASE n WHEN 3 THEN 'nobody' ELSE 'alice' END, n) AS t;
\echo :LAST_ERROR_SQLSTATE
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ids rise with versions
SELECT bool_and(higher) FROM (
	SELECT transfer_id > lag(transfer_id) OVER (ORDER BY version) AS higher
	FROM finance.entry WHERE account_id = :alice_id) AS e;

-- ------------------------------------------------------------------------
-- bad input
-- ------------------------------------------------------------------------

CREATE TEMP TABLE bad (n serial, what text, arguments text);
INSERT INTO bad (what, arguments) VALUES
	('NaN', $$'source', 'alice', 'NaN'$$),
	('Infinity', $$'source', 'alice', 'Infinity'$$),
	('-Infinity', $$'source', 'alice', '-Infinity'$$),
	('zero', $$'source', 'alice', 0$$),
	('zero of many decimals', $$'source', 'alice', 0.000000000$$),
	('negative', $$'source', 'alice', -1$$),
	('three decimals', $$'source', 'alice', 0.001$$),
	('three decimals of a large amount', $$'source', 'alice', 123456789012345678.005$$),
	('decimals of a currency without', $$'yen', 'yen 2', 1.5$$),
	('smallest numeric', $$'source', 'alice', 1e-1000$$),
	('39 digits', $$'yen', 'yen 2', 100000000000000000000000000000000000000$$),
	('39 digits with decimals', $$'source', 'alice', 1000000000000000000000000000000000000.00$$),
	('beyond 128 bits', $$'yen', 'yen 2', 340282366920938463463374607431768211456$$),
	('200 digits', $$'source', 'alice', 1e200$$),
	('largest numeric', $$'source', 'alice', (repeat('9', 131072) || '.' || repeat('9', 16383))::numeric$$),
	('null amount', $$'source', 'alice', NULL$$),
	('same account twice', $$'alice', 'alice', 1$$),
	('same account twice, more than it has', $$'alice', 'alice', 1e6$$),
	('unknown from', $$'nobody', 'alice', 1$$),
	('unknown to', $$'alice', 'nobody', 1$$),
	('unknown both', $$'nobody', 'nobody', 1$$),
	('null from', $$NULL, 'alice', 1$$),
	('null to', $$'alice', NULL, 1$$),
	('empty from', $$'', 'alice', 1$$),
	('empty to', $$'alice', '', 1$$),
	('code of 129 bytes', $$repeat('a', 129), 'alice', 1$$),
	('control character in a code', $$E'alice\n', 'alice', 1$$),
	('code in capitals', $$'ALICE', 'bob', 1$$),
	('code and a space', $$'alice ', 'bob', 1$$),
	('ids unknown', $$1::bigint, 2::bigint, 1$$),
	('ids null', $$NULL::bigint, 2::bigint, 1$$),
	('ids negative', $$-1::bigint, (-9223372036854775808)::bigint, 1$$),
	('currencies of the accounts differ', $$'yen', 'alice', 1$$),
	('currency stated differs', $$'source', 'alice', 1, currency => 'USD'$$),
	('currency stated does not exist', $$'source', 'alice', 1, currency => 'XYZ'$$),
	('currency stated in small letters', $$'source', 'alice', 1, currency => 'eur'$$),
	('currency stated is empty', $$'source', 'alice', 1, currency => ''$$),
	('currency stated of 17 bytes', $$'source', 'alice', 1, currency => repeat('E', 17)$$),
	('from frozen', $$'frozen', 'alice', 1$$),
	('to frozen', $$'alice', 'frozen', 1$$),
	('from closed', $$'closed', 'alice', 1$$),
	('to closed', $$'alice', 'closed', 1$$),
	('insufficient', $$'alice', 'source', 1000$$),
	('insufficient by a cent', $$'bob', 'source', 25.51$$),
	('beyond the ceiling', $$'source', 'bob', 1000$$),
	('beyond the ceiling by a cent', $$'source', 'bob', 474.51$$),
	('version of from is old', $$'bob', 'alice', 1, expected_from_version => 0$$),
	('version of from is none yet', $$'bob', 'alice', 1, expected_from_version => 2$$),
	('version of to is old', $$'source', 'bob', 1, expected_to_version => 0$$),
	('version of to is none yet', $$'source', 'bob', 1, expected_to_version => 9223372036854775807$$),
	('negative version of from', $$'bob', 'alice', 1, expected_from_version => -1$$),
	('negative version of to', $$'bob', 'alice', 1, expected_to_version => -2$$),
	('key empty', $$'source', 'alice', 1, idempotency_key => ''$$),
	('key of 256 bytes', $$'source', 'alice', 1, idempotency_key => repeat('k', 256)$$),
	('control character in the key', $$'source', 'alice', 1, idempotency_key => E'a\tb'$$),
	('type empty', $$'source', 'alice', 1, type => ''$$),
	('type of 64 bytes', $$'source', 'alice', 1, type => repeat('t', 64)$$),
	('control character in the type', $$'source', 'alice', 1, type => E'\x01'$$),
	('reference empty', $$'source', 'alice', 1, reference => ''$$),
	('reference of 1025 bytes', $$'source', 'alice', 1, reference => repeat('r', 1025)$$),
	('control character in the reference', $$'source', 'alice', 1, reference => E'a\x7fb'$$),
	('effective infinitely late', $$'source', 'alice', 1, effective_at => 'infinity'$$),
	('effective infinitely early', $$'source', 'alice', 1, effective_at => '-infinity'$$),
	('metadata over finance.max_payload', $$'source', 'alice', 1, metadata => jsonb_build_object('x', repeat('x', 262144))$$);

-- each is refused, and nothing has changed
CREATE FUNCTION pg_temp.try(arguments text, OUT result text, OUT changed text)
LANGUAGE plpgsql AS $$
DECLARE
	before text := pg_temp.book();
BEGIN
	result := pg_temp.attempt('SELECT finance.transfer(' || arguments || ')');
	changed := CASE WHEN pg_temp.book() <> before THEN 'CHANGED' END;
END $$;
\pset format unaligned
SELECT what, t.* FROM bad CROSS JOIN LATERAL pg_temp.try(arguments) AS t ORDER BY n;
\pset format aligned
-- it would have been seen
SELECT t.* FROM pg_temp.try($$'source', 'alice', 0.01$$) AS t;

-- the longest there may be
SELECT finance.create_transfer_type(repeat('t', 63));
SELECT status FROM finance.transfer('source', 'alice', 1, idempotency_key => repeat('k', 255),
	type => repeat('t', 63), reference => repeat('r', 1024));
-- to the last cent of floor and ceiling
SELECT status, from_balance FROM finance.transfer('bob', 'source', 25.50);
SELECT status, to_balance FROM finance.transfer('source', 'bob', 500);
-- the version that is
SELECT version AS bob_version FROM finance.account WHERE tenant_id = :tenant AND code = 'bob' \gset
SELECT status, from_version - :bob_version AS raised_by FROM finance.transfer('bob', 'source', 1, expected_from_version => :bob_version);
SELECT pg_temp.attempt(format('SELECT finance.transfer(''bob'', ''source'', 1, expected_from_version => %s)', :bob_version));

-- errors come to a client with the same code, and a hint
SELECT status FROM finance.transfer('bob', 'source', 1, expected_from_version => 0);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM finance.transfer('nobody', 'source', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM finance.transfer('frozen', 'source', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM finance.transfer('source', 'bob', 0.001);
\echo :LAST_ERROR_SQLSTATE

-- totals have 38 digits, whatever the balance
SELECT status, from_balance, to_balance FROM finance.transfer('bottomless', 'topless', 99999999999999999999999999999999999999);
SELECT * FROM pg_temp.try($$'bottomless', 'yen', 1$$);
SELECT * FROM pg_temp.try($$'yen', 'topless', 1$$);
SELECT status, from_balance, to_balance FROM finance.transfer('topless', 'bottomless', 99999999999999999999999999999999999999);
SELECT * FROM pg_temp.try($$'bottomless', 'topless', 1$$);
SELECT * FROM pg_temp.try($$'topless', 'bottomless', 1$$);

-- read only: refused by the server
BEGIN READ ONLY;
\set VERBOSITY sqlstate
SELECT status FROM finance.transfer('source', 'alice', 1);
\set VERBOSITY default
ROLLBACK;

-- ------------------------------------------------------------------------
-- an error, a cancel or a rollback at any point leaves nothing
-- ------------------------------------------------------------------------

SELECT finance.add_rule('limit', 'transfer_limit', 1000), finance.add_rule('often', 'count_limit', 1000000, span => '1 hour');
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_ARGV[0] = 'cancel' THEN
		PERFORM pg_cancel_backend(pg_backend_pid());
		PERFORM pg_sleep(600);
	END IF;
	RAISE EXCEPTION 'failed at %', TG_TABLE_NAME USING ERRCODE = 'XX999';
END $$;

CREATE FUNCTION pg_temp.try_failing(target text, how text, arguments text, direct text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('finance.direct_writes', direct, true);
	EXECUTE format('CREATE TRIGGER fail AFTER INSERT OR UPDATE ON finance.%I'
		' FOR EACH ROW EXECUTE FUNCTION pg_temp.fail(%L)', target, how);
	SELECT concat_ws(' | ', t.result, t.changed) INTO result FROM pg_temp.try(arguments) AS t;
	EXECUTE format('DROP TRIGGER fail ON finance.%I', target);
	RETURN regexp_replace(result, '(_\d+)+', '', 'g');	-- partitions
END $$;

-- in the order in which posting writes; what comes before written either way.
-- Messages are refused a trigger.
SELECT target, how, direct, pg_temp.try_failing(target, how, arguments, direct)
FROM (VALUES (1, 'idempotency_key'), (2, 'transfer'), (3, 'risk_decision'), (4, 'audit_record'),
		(5, 'message'), (6, '_account'), (7, 'risk_total')) AS t (n, target)
	CROSS JOIN (VALUES ('error'), ('cancel')) AS h (how)
	CROSS JOIN (VALUES ('on'), ('off')) AS d (direct)
	CROSS JOIN LATERAL (VALUES (format('%L, %L, %s, idempotency_key => ''fails''', 'source', 'alice',
		CASE target WHEN 'risk_decision' THEN 1000.01 ELSE 10 END))) AS a (arguments)
ORDER BY n, how DESC, direct DESC;
-- so a full queue is what fails there
SELECT finance.alter_queue('all', max_length => 1);
SELECT direct, set_config('finance.direct_writes', direct, false) = direct AS set,
	(SELECT concat_ws(' | ', regexp_replace(result, '\mhas \d+', 'has <n>'), changed)
		FROM pg_temp.try($$'source', 'alice', 10, idempotency_key => 'fails'$$)) AS try
FROM (VALUES ('on'), ('off')) AS d (direct);
RESET finance.direct_writes;
SELECT finance.alter_queue('all', max_length => 0);
-- nor has the session kept anything of it
SELECT status, replayed FROM finance.transfer('source', 'alice', 10, idempotency_key => 'fails');
SELECT * FROM finance.check_integrity();

-- an error only at commit
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON finance.idempotency_key DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION pg_temp.fail('error');
SELECT pg_temp.book() AS before \gset
BEGIN;
SELECT status FROM finance.transfer('source', 'alice', 10, idempotency_key => 'fails at commit');
SELECT pg_temp.book() <> :'before' AS changed;
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT pg_temp.book() = :'before' AS nothing_changed;
DROP TRIGGER fail ON finance.idempotency_key;
SELECT status, replayed FROM finance.transfer('source', 'alice', 10, idempotency_key => 'fails at commit');

-- a savepoint takes back what came after it, and only that
SELECT pg_temp.book() AS before \gset
BEGIN;
SELECT status FROM finance.transfer('source', 'alice', 1, idempotency_key => 'kept');
SELECT pg_temp.book() AS inside \gset
SAVEPOINT s;
SELECT status, to_version FROM finance.transfer('source', 'alice', 2, idempotency_key => 'undone');
SELECT status FROM finance.transfer('source', 'alice', 1001, idempotency_key => 'undone reject');
SAVEPOINT s2;
\set VERBOSITY terse
SELECT status FROM finance.transfer('source', 'alice', 4, idempotency_key => 'undone');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT pg_temp.book() = :'inside' AS as_at_savepoint;
SELECT status, replayed, to_version FROM finance.transfer('source', 'alice', 2, idempotency_key => 'undone');
SAVEPOINT s3;
SELECT status FROM finance.transfer('source', 'alice', 3, idempotency_key => 'released');
RELEASE s3;
ROLLBACK;
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT count(*) FROM finance.idempotency_key WHERE tenant_id = :tenant AND key IN ('kept', 'undone', 'undone reject', 'released');
SELECT status, replayed FROM finance.transfer('source', 'alice', 2, idempotency_key => 'undone');

-- one message and one audit record for each transfer, completed or rejected
SELECT (SELECT count(*) FROM finance.transfer WHERE tenant_id = :tenant) AS transfers,
	(SELECT count(*) FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'transfer') AS records,
	(SELECT count(*) FROM finance.message WHERE tenant_id = :tenant) AS messages,
	(SELECT count(*) FROM finance.risk_decision WHERE tenant_id = :tenant) AS decisions,
	(SELECT sum(version) FROM finance._account WHERE tenant_id = :tenant) AS versions,
	(SELECT count(*) FROM finance.account_change WHERE tenant_id = :tenant) AS other_changes;

-- rows of money are never changed
\set VERBOSITY terse
UPDATE finance.transfer SET amount = 1;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance.transfer;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE finance.transfer;
\echo :LAST_ERROR_SQLSTATE
SET session_replication_role = replica;
DELETE FROM finance.transfer;
\echo :LAST_ERROR_SQLSTATE
RESET session_replication_role;
-- nor those of a partition
SELECT command, count(*) > 0 AS tried, count(*) FILTER (WHERE result NOT LIKE 'LG011 %') AS not_refused
FROM (SELECT command, pg_temp.attempt(format(command, inhrelid::regclass)) AS result
	FROM pg_inherits, (VALUES ('UPDATE %s SET amount = 1'), ('DELETE FROM %s'), ('TRUNCATE %s')) AS c (command)
	WHERE inhparent = 'finance.transfer'::regclass) AS t
GROUP BY command ORDER BY command;

SELECT * FROM finance.check_integrity();
ALTER EVENT TRIGGER finance_audit_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER finance_audit_drop ENABLE ALWAYS;
