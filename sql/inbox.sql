--
-- process_once(): a consumer's effect happens once for each message
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own, in a time of its own: the worker truncates by the clock
INSERT INTO finance.tenant (tenant_id, name) VALUES (9063, 'inbox test'), (9064, 'inbox test, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9063;
SET finance.test_clock = '2072-01-01 00:00:00+00';

CREATE FUNCTION pg_temp.outcome(command text, OUT code text, OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;

-- ------------------------------------------------------------------------
-- once for each consumer and message
-- ------------------------------------------------------------------------
SELECT finance.process_once('billing', 1), finance.process_once('billing', 1), finance.process_once(consumer => 'billing', message_id => 2),
	finance.process_once('shipping', 1);
-- ids of any origin; a number is the same as its digits
SELECT finance.process_once('billing', '1'), finance.process_once('billing', '01'),
	finance.process_once('billing', '6f1c9f0e-7d0b-4a52-9d7a-1d4a2b9a5f10'), finance.process_once('billing', '6F1C9F0E-7D0B-4A52-9D7A-1D4A2B9A5F10'),
	finance.process_once('billing', message_id => '6f1c9f0e-7d0b-4a52-9d7a-1d4a2b9a5f10');
SELECT finance.process_once('billing', 9223372036854775807), finance.process_once('billing', -9223372036854775808),
	finance.process_once('billing', '-9223372036854775808');
SET finance.tenant = 9064;
SELECT finance.process_once('billing', 1);
SET finance.tenant = 9063;
SELECT consumer, message_id, seen_at, tableoid::regclass FROM finance.inbox WHERE tenant_id = 9063 ORDER BY 1, 2;

-- it commits with the work, or not at all
CREATE TEMP TABLE work (message_id bigint);
CREATE FUNCTION pg_temp.consume(id bigint, fails boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF NOT finance.process_once('worker', id) THEN
		RETURN false;
	END IF;
	INSERT INTO work VALUES (id);
	IF fails THEN
		RAISE 'the work failed';
	END IF;
	RETURN true;
END $$;
SELECT * FROM pg_temp.outcome('SELECT pg_temp.consume(1, true)');
SELECT pg_temp.consume(1, false), pg_temp.consume(1, false);
BEGIN;
SELECT pg_temp.consume(2, false);
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT pg_temp.consume(2, false), pg_temp.consume(2, false);
ROLLBACK TO a;
SELECT pg_temp.consume(2, false), pg_temp.consume(2, false);
SAVEPOINT b;
SELECT pg_temp.consume(2, false);
RELEASE b;
COMMIT;
SELECT * FROM work;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT finance.process_once('worker', 3), finance.process_once('worker', 3), finance.process_once('worker', 1);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT finance.process_once('worker', 4), finance.process_once('worker', 3);
COMMIT;

-- batches
SELECT * FROM finance.process_once_batch('worker', '{6, 2, 5, 6, 1}');
SELECT * FROM finance.process_once_batch('worker', '{6, 7}');
SELECT * FROM finance.process_once_batch('worker', '{}');
SELECT count(*), min(id), max(id) FROM finance.process_once_batch('many', ARRAY(SELECT n::bigint FROM generate_series(10000, 1, -1) n)) AS id;
SELECT count(*) FROM finance.process_once_batch('many', ARRAY(SELECT n::bigint FROM generate_series(5001, 15000) n)) AS id;

SET finance.direct_writes = off;
SELECT finance.process_once('worker', 8), finance.process_once('worker', 8);
RESET finance.direct_writes;

-- ------------------------------------------------------------------------
-- refused
-- ------------------------------------------------------------------------
SELECT count(*) AS before FROM finance.inbox \gset
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.process_once(NULL, 1)$$,
	$$SELECT finance.process_once('c', NULL::bigint)$$,
	$$SELECT finance.process_once('c', NULL::text)$$,
	$$SELECT finance.process_once('', 1)$$,
	$$SELECT finance.process_once(repeat('x', 129), 1)$$,
	$$SELECT finance.process_once('c', '')$$,
	$$SELECT finance.process_once('c', repeat('x', 256))$$,
	$$SELECT finance.process_once_batch('c', NULL)$$,
	$$SELECT finance.process_once_batch('c', '{1, NULL}')$$,
	$$SELECT finance.process_once_batch('', '{1}')$$,
	$$SELECT finance.process_once_batch('c', ARRAY(SELECT n::bigint FROM generate_series(1, 10001) n))$$]) AS c,
	pg_temp.outcome(c) AS o;
BEGIN READ ONLY;
SELECT finance.process_once('c', 1);
ROLLBACK;
CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
BEGIN;
CREATE TRIGGER somebodys BEFORE INSERT ON finance.inbox FOR EACH ROW EXECUTE FUNCTION pg_temp.nothing();
SELECT * FROM pg_temp.outcome($$SELECT finance.process_once('c', 1)$$);
ROLLBACK;
SELECT count(*) - :before AS new FROM finance.inbox;
SELECT finance.process_once(repeat('x', 128), repeat('x', 255)), finance.process_once(repeat('x', 128), repeat('x', 255));

-- ------------------------------------------------------------------------
-- remembered for finance.inbox_retention days
-- ------------------------------------------------------------------------
SHOW finance.inbox_retention;
SET finance.test_clock = '2072-01-30 23:59:59.999999+00';
SELECT finance.process_once('billing', 1);
SET finance.test_clock = '2072-01-31 00:00:00+00';
SELECT finance.process_once('billing', 1), finance.process_once('billing', 1);
SELECT seen_at, tableoid::regclass FROM finance.inbox WHERE tenant_id = 9063 AND consumer = 'billing' AND message_id = '1' ORDER BY 1;
-- periods are of 30 days, from 2000-01-01 on
CREATE FUNCTION pg_temp.left_over(clock timestamptz) RETURNS TABLE (slot regclass, seen_at timestamptz, ids bigint)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('finance.test_clock', clock::text, false);
	PERFORM finance._truncate_expired();
	RETURN QUERY SELECT i.tableoid::regclass, i.seen_at, count(*) FROM finance.inbox i WHERE i.tenant_id = 9063 GROUP BY 1, 2 ORDER BY 2;
END $$;
SELECT '2000-01-01'::timestamptz + 30 * n * interval '1 day' AS period FROM generate_series(875, 882) n;
SELECT * FROM pg_temp.left_over('2072-02-11 23:59:59+00');
SELECT * FROM pg_temp.left_over('2072-02-12 00:00:00+00');
-- other tenants' go with them
SELECT count(*) FROM finance.inbox WHERE tenant_id = 9064;
-- the clock steps back: the next slot's newest id is of the future
SELECT * FROM pg_temp.left_over('2071-12-20 00:00:00+00');
SELECT * FROM pg_temp.left_over('2072-03-13 00:00:00+00');

SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9063, 9064);
