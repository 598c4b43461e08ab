--
-- Archived messages: one table by month
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET timezone = 'UTC';
SET finance.test_clock = '2030-06-01 00:00:00+00';
\set SHOW_CONTEXT never

INSERT INTO finance.tenant (tenant_id, name) VALUES (9065, 'archive test'), (9066, 'archive test, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9065;

CREATE FUNCTION pg_temp.outcome(command text, OUT code text, OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
END $$;
CREATE VIEW pg_temp.kept AS
SELECT q.name AS queue, a.enqueued_at, a.archived_at, a.expires_at, a.read_ct, a.priority, a.topic, a.ordering_key, a.headers, a.payload
FROM finance.message_archive a LEFT JOIN finance.queue q USING (tenant_id, queue_id)
WHERE a.tenant_id IN (9065, 9066) ORDER BY a.archive_id;

SELECT finance.create_queue('a');
SELECT finance.create_queue('b');
SELECT finance.bind_topic('kept.#', 'b');

-- ------------------------------------------------------------------------
-- what is kept
-- ------------------------------------------------------------------------
SELECT finance.send('a', '{"n": 1}', '{"h": 1}', priority => 3) AS sent \gset
SELECT finance.publish('kept.here', '"published"');
SET finance.test_clock = '2030-06-01 00:00:10+00';
SELECT count(*) FROM finance.read('b', 0);
SELECT count(*) FROM finance.read('b', 0);
SELECT finance.archive('a', :sent), finance.archive('a', :sent);
SELECT finance.archive('b', msg_id) FROM finance.read('b', 0);
SELECT * FROM pg_temp.kept;
SELECT msg_id = :sent AS same, message_id > 0 AS message, archive_id > message_id AS later,
	tableoid::regclass::text = 'finance.message_archive_' || to_char(finance.id_time(archive_id), 'YYYY_MM') AS month
FROM finance.message_archive WHERE tenant_id = 9065 ORDER BY archive_id;

-- in batches, of large ones too; in the order in which they lay
SET finance.max_payload = '1MB';
CREATE TEMP TABLE batch AS
SELECT n, id FROM finance.send_batch('a', ARRAY(SELECT to_jsonb(n || repeat(md5(n::text), CASE WHEN n % 50 = 0 THEN 3000 ELSE 1 END)) FROM generate_series(1, 200) n))
	WITH ORDINALITY AS s (id, n);
SELECT count(*), bool_and(id = ANY (SELECT b.id FROM batch b)) AS theirs
FROM finance.archive('a', (SELECT array_agg(b.id) FROM batch b) || ARRAY[1::bigint]) AS id;
SELECT count(*), count(DISTINCT archive_id) AS ids, bool_and(payload #>> '{}' = n || repeat(md5(n::text), CASE WHEN n % 50 = 0 THEN 3000 ELSE 1 END)) AS same
FROM finance.message_archive a JOIN batch b ON b.id = a.msg_id WHERE a.tenant_id = 9065;
SELECT queue_length FROM finance.metrics('a');

-- it commits with the acknowledgement, or not at all
SELECT finance.send('a', '"undone"') AS undone \gset
BEGIN;
SELECT finance.archive('a', :undone);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT finance.archive('a', :undone);
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM pg_temp.kept WHERE payload = '"undone"';

-- where somebody attached a trigger it fires, and by statements it is the same
CREATE TABLE archive_test_seen (payload jsonb);
CREATE FUNCTION archive_test_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.archive_test_seen VALUES (NEW.payload);
	RETURN NEW;
END $$;
CREATE TRIGGER note BEFORE INSERT ON finance.message_archive FOR EACH ROW EXECUTE FUNCTION archive_test_note();
SELECT finance.archive('a', :undone);
SELECT * FROM archive_test_seen;
DROP TRIGGER note ON finance.message_archive;
DROP TABLE archive_test_seen;
DROP FUNCTION archive_test_note;
SET finance.direct_writes = off;
SELECT finance.archive('b', finance.send('b', '"by statement"', '{"x": null}', priority => 10));
RESET finance.direct_writes;
SELECT * FROM pg_temp.kept WHERE payload IN ('"undone"', '"by statement"');

-- it is found by its queue and its msg_id
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE FUNCTION pg_temp.indexes(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		IF line ~ 'Scan' THEN
			RETURN NEXT regexp_replace(regexp_replace(line, '^ *(-> *)?', ''), '\d{4}_\d\d', 'MONTH', 'g');
		END IF;
	END LOOP;
END $$;
SELECT DISTINCT regexp_replace(i, ' [a-z_0-9]+$', '') FROM pg_temp.indexes('SELECT * FROM finance.message_archive WHERE queue_id = 1 AND msg_id = 2') i;
SELECT DISTINCT regexp_replace(i, ' [a-z_0-9]+$', '') FROM pg_temp.indexes('SELECT * FROM finance.message_archive WHERE tenant_id = 1 AND queue_id = 2 ORDER BY archive_id LIMIT 1') i;
RESET enable_seqscan;
RESET enable_bitmapscan;

-- ------------------------------------------------------------------------
-- who reads it: operators, of their tenant
-- ------------------------------------------------------------------------
CREATE ROLE regress_archive_operator;
CREATE ROLE regress_archive_app;
SELECT finance.grant_access('regress_archive_operator', 'operator'), finance.grant_access('regress_archive_app', 'app');
SET finance.tenant = 9066;
SELECT finance.create_queue('a');
SELECT finance.archive('a', finance.send('a', '"of another"'));
SET ROLE regress_archive_operator;
SELECT count(*) FROM finance.message_archive;
SET finance.tenant = 9065;
SELECT count(*) FROM finance.message_archive;
SELECT count(*) AS inbox FROM finance.inbox;
SELECT finance.purge_archive('b');
SET ROLE regress_archive_app;
SELECT finance.process_once('archive test', 1);
SELECT o.* FROM unnest(ARRAY['SELECT FROM finance.message_archive', 'SELECT FROM finance.inbox', 'SELECT FROM finance._dedup',
	$$SELECT finance.purge_archive('a')$$, 'SELECT finance._truncate_expired()']) AS c, pg_temp.outcome(c) AS o;
RESET ROLE;

-- ------------------------------------------------------------------------
-- purging, and dropping queues
-- ------------------------------------------------------------------------
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.purge_archive('nosuch')$$,
	$$SELECT finance.purge_archive(NULL)$$,
	$$SELECT finance.purge_archive('')$$]) AS c, pg_temp.outcome(c) AS o;
SELECT queue, count(*) FROM pg_temp.kept GROUP BY 1 ORDER BY 1;
SELECT finance.purge_archive(queue_name => 'b');
SELECT finance.drop_queue('a'), finance.drop_queue('b');
-- what was archived outlives its queue
SELECT queue, count(*) FROM pg_temp.kept GROUP BY 1 ORDER BY 1;
SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9065, 9066);
SET finance.tenant = 9066;
-- a message in two places is a breach
BEGIN;
SELECT finance.send('a', '"twice"') AS twice \gset
INSERT INTO finance.message_archive (archive_id, msg_id, message_id, queue_id, enqueued_at, archived_at, tenant_id, read_ct, priority, payload)
SELECT a.archive_id + 1, m.msg_id, m.message_id, m.queue_id, m.enqueued_at, now(), m.tenant_id, 0, 0, m.payload
FROM finance.message m, finance.message_archive a WHERE m.msg_id = :twice AND m.tenant_id = 9066 AND a.tenant_id = 9066;
SELECT invariant, tenant_id, expected, found FROM finance.check_integrity() WHERE tenant_id IN (9065, 9066);
ROLLBACK;
SELECT finance.purge_archive('a');
SELECT finance.drop_queue('a');

DROP OWNED BY regress_archive_operator, regress_archive_app;
DROP ROLE regress_archive_operator, regress_archive_app;
SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9065, 9066);
