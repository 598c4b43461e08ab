--
-- Dedup ids: a message sent again within the window is dropped
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own, in a time of its own: the worker truncates by the clock
INSERT INTO finance.tenant (tenant_id, name) VALUES (9061, 'dedup test'), (9062, 'dedup test, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9061;
SET finance.test_clock = '2071-01-01 01:00:00+00';

CREATE FUNCTION pg_temp.outcome(command text, OUT code text, OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
-- ids of this test, with the hour of each
CREATE VIEW pg_temp.ids AS
SELECT d.tableoid::regclass AS slot, d.dedup_id, d.seen_at::time AS sent
FROM finance._dedup d WHERE d.tenant_id IN (9061, 9062) AND d.seen_at > '2070-01-01';

SELECT finance.create_queue('one');
SELECT finance.create_queue('two');

-- ------------------------------------------------------------------------
-- within the window
-- ------------------------------------------------------------------------
SELECT finance.send('one', '1', dedup_id => 'a') AS first \gset
SELECT finance.send('one', '2', dedup_id => 'a') = :first AS dropped;
SELECT finance.send('one', '3', dedup_id => 'b') <> :first AS another;
SELECT finance.send('one', '4') <> :first AS without;
SELECT finance.send('one', '5') <> :first AS without;
SELECT finance.send('two', '6', dedup_id => 'a') <> :first AS other_queue;
SET finance.tenant = 9062;
SELECT finance.create_queue('one');
SELECT finance.send('one', '7', dedup_id => 'a') <> :first AS other_tenant;
SET finance.tenant = 9061;
SELECT message FROM finance.read('one', 0, 10);

-- to the microsecond; then it is another message's
SET finance.test_clock = '2071-01-01 01:04:59.999999+00';
SELECT finance.send('one', '8', dedup_id => 'a') = :first AS dropped;
SET finance.test_clock = '2071-01-01 01:05:00+00';
SELECT finance.send('one', '9', dedup_id => 'a') AS second \gset
SELECT :second <> :first AS sent, finance.send('one', '10', dedup_id => 'a') = :second AS dropped;
-- the clock steps back: what was sent later was sent
SET finance.test_clock = '2071-01-01 00:00:00+00';
SELECT finance.send('one', '11', dedup_id => 'a') IN (:first, :second) AS dropped;
SELECT message FROM finance.read('one', 0, 10);
SELECT * FROM pg_temp.ids ORDER BY sent, slot::text, dedup_id;

-- ------------------------------------------------------------------------
-- at the end of a period
-- ------------------------------------------------------------------------
SET finance.test_clock = '2071-01-01 05:59:59.999999+00';
SELECT finance.send('one', '12', dedup_id => 'edge') AS first \gset
SET finance.test_clock = '2071-01-01 06:00:00+00';
SELECT finance.send('one', '13', dedup_id => 'edge') = :first AS dropped;
SET finance.test_clock = '2071-01-01 06:04:59.999998+00';
SELECT finance.send('one', '14', dedup_id => 'edge') = :first AS dropped;
SET finance.test_clock = '2071-01-01 06:04:59.999999+00';
SELECT finance.send('one', '15', dedup_id => 'edge') = :first AS dropped;
-- back before it
SET finance.test_clock = '2071-01-01 05:59:00+00';
SELECT finance.send('one', '16', dedup_id => 'edge') <> 0 AS dropped;
SELECT * FROM pg_temp.ids WHERE dedup_id = 'edge' ORDER BY sent;

-- ------------------------------------------------------------------------
-- transactions and savepoints
-- ------------------------------------------------------------------------
SET finance.test_clock = '2071-01-01 07:00:00+00';
SELECT finance.purge_queue('one') > 0 AS purged;
BEGIN;
SELECT finance.send('one', '"undone"', dedup_id => 'c') AS undone \gset
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT finance.send('one', '"undone"', dedup_id => 'c') AS undone \gset
SELECT finance.send('one', '"undone"', dedup_id => 'c') = :undone AS dropped;
ROLLBACK TO a;
SELECT finance.send('one', '"kept"', dedup_id => 'c') AS kept \gset
SAVEPOINT b;
SELECT finance.send('one', '"dropped"', dedup_id => 'c') = :kept AS dropped, :kept <> :undone AS another;
RELEASE b;
COMMIT;
SELECT finance.send('one', '"dropped"', dedup_id => 'c') = :kept AS dropped;
SELECT message FROM finance.read('one', 0, 10);
-- an older message is gone, its id is not
SELECT finance.delete('one', :kept), finance.send('one', '"dropped"', dedup_id => 'c') = :kept AS dropped;
SELECT finance.purge_queue('one');
SELECT finance.send('one', '"dropped"', dedup_id => 'c') = :kept AS dropped;

-- ------------------------------------------------------------------------
-- in batches: the first of the same id is sent
-- ------------------------------------------------------------------------
CREATE TEMP TABLE batch AS
SELECT n, id FROM finance.send_batch('one', '{1, 2, 3, 4, 5, 6}', dedup_ids => '{z, y, NULL, z, c, NULL}')
	WITH ORDINALITY AS b (id, n);
SELECT array_agg(n ORDER BY n) AS same, bool_or(id = :kept) AS kept FROM batch GROUP BY id ORDER BY min(n);
SELECT message FROM finance.read('one', 0, 10);
SELECT count(DISTINCT id) FROM finance.send_batch('one', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 10000) n),
	dedup_ids => ARRAY(SELECT 'many ' || n % 4000 FROM generate_series(1, 10000) n)) AS id;
SELECT count(*) FROM finance.send_batch('one', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 4000) n),
	dedup_ids => ARRAY(SELECT 'many ' || n % 4000 FROM generate_series(1, 4000) n)) AS id;
SELECT queue_length FROM finance.metrics('one');

-- without direct writes, too: there is no other way
SET finance.direct_writes = off;
SELECT finance.send('one', '1', dedup_id => 'c') = :kept AS dropped, finance.send('one', '1', dedup_id => 'd') <> :kept AS sent;
RESET finance.direct_writes;

-- ------------------------------------------------------------------------
-- refused
-- ------------------------------------------------------------------------
SELECT finance.purge_queue('one') > 0 AS purged;
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.send('one', '1', dedup_id => '')$$,
	$$SELECT finance.send('one', '1', dedup_id => repeat('x', 129))$$,
	$$SELECT finance.send('one', '1', dedup_id => repeat('ä', 65))$$,
	$$SELECT finance.send_batch('one', '{1, 2}', dedup_ids => '{"fresh", ""}')$$,
	$$SELECT finance.send_batch('one', '{1, 2}', dedup_ids => '{"fresh"}')$$]) AS c, pg_temp.outcome(c) AS o;
BEGIN READ ONLY;
SELECT finance.send('one', '1', dedup_id => 'fresh');
ROLLBACK;
-- what would not fire is refused
CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
BEGIN;
CREATE TRIGGER somebodys BEFORE INSERT ON finance._dedup FOR EACH ROW EXECUTE FUNCTION pg_temp.nothing();
SELECT * FROM pg_temp.outcome($$SELECT finance.send('one', '1', dedup_id => 'fresh')$$);
ROLLBACK;
SELECT queue_length FROM finance.metrics('one');
SELECT finance.send('one', '1', dedup_id => 'fresh') > 0 AS sent;
SELECT finance.send('one', '1', dedup_id => repeat('ä', 64)) > 0 AS sent;

-- ------------------------------------------------------------------------
-- truncating: the slot to be filled next, when all its ids are out of the
-- longest window
-- ------------------------------------------------------------------------
CREATE FUNCTION pg_temp.left_over(clock text) RETURNS TABLE (slot text, ids bigint)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('finance.test_clock', clock, false);
	PERFORM finance._truncate_expired();
	RETURN QUERY SELECT i.slot::text, count(*) FROM pg_temp.ids i WHERE dedup_id !~ '^many' GROUP BY 1 ORDER BY 1;
END $$;
SELECT * FROM pg_temp.left_over('2071-01-01 11:59:59+00');
SELECT * FROM pg_temp.left_over('2071-01-01 12:00:00+00');
-- by an earlier clock there was a message after that: nothing is lost
SELECT * FROM pg_temp.left_over('2071-01-01 00:00:00+00');
SELECT * FROM pg_temp.left_over('2071-01-01 06:00:00+00');
-- its period has come round, with ids of another time in it
SET finance.test_clock = '2071-01-02 00:00:00+00';
SELECT finance.send('one', '1', dedup_id => 'next day') > 0 AS sent;
SELECT finance.send('one', '1', dedup_id => 'c') <> :kept AS sent;
SELECT * FROM pg_temp.left_over('2071-01-02 00:00:00+00');
SELECT * FROM pg_temp.left_over('2071-01-02 12:00:00+00');
SELECT * FROM pg_temp.left_over('2071-01-02 18:00:00+00');
SELECT finance.drop_queue('one'), finance.drop_queue('two');
SET finance.tenant = 9062;
SELECT finance.drop_queue('one');
SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9061, 9062);
