--
-- Log queues and consumer groups
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own
INSERT INTO finance.tenant (tenant_id, name) VALUES (9051, 'log test'), (9052, 'log test, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9051;

CREATE FUNCTION pg_temp.outcome(command text, OUT code text,
								OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	message := left(message, 80);
END $$;

-- ------------------------------------------------------------------------
-- names and arguments
-- ------------------------------------------------------------------------
SELECT finance.create_log_queue('log');
SELECT finance.create_log_queue(queue_name => 'short', retention => '1 minute');
SELECT finance.create_queue('plain');
SELECT finance.create_consumer_group('log', 'all', 'beginning');
SELECT finance.create_consumer_group(queue_name => 'log', group_name => 'new', start => 'end');
SELECT queue_name FROM finance.list_queues();
SELECT name, kind FROM finance.queue WHERE tenant_id = 9051 ORDER BY 1;
SELECT name, retention_s FROM finance.log_queue JOIN finance.queue USING (tenant_id, queue_id) WHERE tenant_id = 9051 ORDER BY 1;
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.create_log_queue('log')$$,
	$$SELECT finance.create_log_queue('plain')$$,
	$$SELECT finance.create_queue('log')$$,
	$$SELECT finance.create_log_queue('')$$,
	$$SELECT finance.create_log_queue(repeat('q', 48))$$,
	$$SELECT finance.create_log_queue('a b')$$,
	$$SELECT finance.create_log_queue(NULL)$$,
	$$SELECT finance.create_log_queue('x', NULL)$$,
	$$SELECT finance.create_log_queue('x', '59 seconds')$$,
	$$SELECT finance.create_log_queue('x', '-1 day')$$,
	$$SELECT finance.create_log_queue('x', '11 years')$$,
	$$SELECT finance.create_consumer_group('log', 'all')$$,
	$$SELECT finance.create_consumer_group('log', '')$$,
	$$SELECT finance.create_consumer_group('log', repeat('g', 48))$$,
	$$SELECT finance.create_consumer_group('log', 'a;b')$$,
	$$SELECT finance.create_consumer_group('log', NULL)$$,
	$$SELECT finance.create_consumer_group(NULL, 'g')$$,
	$$SELECT finance.create_consumer_group('log', 'g', 'middle')$$,
	$$SELECT finance.create_consumer_group('log', 'g', NULL)$$,
	$$SELECT finance.create_consumer_group('nosuch', 'g')$$,
	$$SELECT finance.create_consumer_group('plain', 'g')$$,
	$$SELECT finance.drop_consumer_group('nosuch', 'g')$$,
	$$SELECT finance.drop_consumer_group('plain', 'g')$$,
	$$SELECT finance.drop_consumer_group('log', NULL)$$,
	$$SELECT finance.list_consumer_groups('nosuch')$$,
	$$SELECT finance.list_consumer_groups('plain')$$,
	$$SELECT finance.list_consumer_groups(NULL)$$,
	$$SELECT finance.read_group('nosuch', 'all')$$,
	$$SELECT finance.read_group('plain', 'all')$$,
	$$SELECT finance.read_group('log', 'nosuch')$$,
	$$SELECT finance.read_group('log', NULL)$$,
	$$SELECT finance.read_group(NULL, 'all')$$,
	$$SELECT finance.read_group('log', 'all', 0)$$,
	$$SELECT finance.read_group('log', 'all', 10001)$$,
	$$SELECT finance.read_group('log', 'all', NULL)$$,
	$$SELECT finance.read_group('log', 'all', 1, NULL)$$,
	$$SELECT finance.commit_group('log', 'nosuch', '0000000000000000-0000000000000000')$$,
	$$SELECT finance.commit_group('plain', 'all', '0000000000000000-0000000000000000')$$,
	$$SELECT finance.commit_group('log', 'all', NULL)$$,
	$$SELECT finance.commit_group('log', 'all', '')$$,
	$$SELECT finance.commit_group('log', 'all', 'end')$$,
	$$SELECT finance.commit_group('log', 'all', '0000000000000000-00000000000000zz')$$,
	$$SELECT finance.commit_group('log', 'all', '00000000000000AA-0000000000000000')$$,
	$$SELECT finance.commit_group('log', 'all', 'f000000000000000-0000000000000000')$$,
	$$SELECT finance.commit_group('log', 'all', '0000000000000000_0000000000000000')$$,
	$$SELECT finance.commit_group('log', 'all', '7000000000000000-0000000000000000')$$,
	$$SELECT finance.seek_group('log', 'nosuch', 1)$$,
	$$SELECT finance.seek_group('plain', 'all', 1)$$,
	$$SELECT finance.seek_group('log', 'all')$$,
	$$SELECT finance.seek_group('log', 'all', 1, now())$$,
	$$SELECT finance.seek_group('log', 'all', to_time => 'infinity')$$,
	$$SELECT finance.seek_group('log', 'all', to_time => '-infinity')$$,
	$$SELECT finance.seek_group('log', 'all', to_position => 'middle')$$,
	$$SELECT finance.seek_group('log', 'all', to_position => '7000000000000000-0000000000000000')$$])
	WITH ORDINALITY AS c (c, n), pg_temp.outcome(c) AS o ORDER BY n;

-- what takes messages out, or waits for one, does not go with a log
SELECT finance.send('log', '0') AS sent \gset
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.read('log', 1)$$,
	$$SELECT finance.pop('log')$$,
	format('SELECT finance.delete(%L, %s)', 'log', :'sent'),
	format('SELECT finance.delete(%L, %L::bigint[])', 'log', ARRAY[:sent]),
	format('SELECT finance.archive(%L, %s)', 'log', :'sent'),
	format('SELECT finance.set_vt(%L, %s, 1)', 'log', :'sent'),
	$$SELECT finance.purge_queue('log')$$])
	WITH ORDINALITY AS c (c, n), pg_temp.outcome(c) AS o ORDER BY n;

-- ------------------------------------------------------------------------
-- send, publish, read
-- ------------------------------------------------------------------------
SELECT finance.bind_topic('log.#', 'log'), finance.bind_topic('log.both', 'plain');
SELECT finance.publish('log.one', '1', '{"h": 1}', priority => 3, ordering_key => 'k'), finance.publish('log.both', '2'), finance.publish('other', '3');
SELECT count(*) FROM finance.send_batch('log', ARRAY['4', '5', '6']::jsonb[], ARRAY[NULL, '{"h": 5}', NULL]::jsonb[]);
SELECT count(*) FROM finance.send_batch('log', '{}');
SELECT message, headers, topic, priority, ordering_key, msg_id <> message_id AS own_id,
	enqueued_at BETWEEN now() - interval '1 hour' AND clock_timestamp() AS at, "position" > lag("position") OVER () AS later
FROM finance.read_group('log', 'all');
-- a copy in each queue, of one message
SELECT count(DISTINCT m.message_id), count(*) FROM (SELECT message_id FROM finance.read_group('log', 'all') WHERE topic = 'log.both'
	UNION ALL SELECT message_id FROM finance.read('plain', 0)) m;

-- the position stays until it is moved
SELECT array_agg(message) FROM finance.read_group('log', 'all', 2);
SELECT array_agg(message), max("position") AS two FROM finance.read_group('log', 'all', 2) \gset
SELECT finance.commit_group('log', 'all', :'two'), finance.commit_group(queue_name => 'log', group_name => 'all', to_position => :'two');
SELECT array_agg(message) FROM finance.read_group('log', 'all', 2);
SELECT code, message FROM pg_temp.outcome($$SELECT finance.commit_group('log', 'all', '0000000000000001-0000000000000000')$$);
SELECT array_agg(message) FROM finance.read_group('log', 'all', 3, auto_commit => true);
SELECT array_agg(message) FROM finance.read_group('log', 'all', auto_commit => true);
SELECT array_agg(message) FROM finance.read_group('log', 'all', auto_commit => true);
-- the other group made its way alone
SELECT array_agg(message) FROM finance.read_group('log', 'new');

-- what is rolled back was not read
SELECT finance.send('log', '7') > 0;
BEGIN;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);
ROLLBACK TO s;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);
COMMIT;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);

-- nor sent; and what this transaction sends is read when it is committed
BEGIN;
SELECT finance.send('log', '"undone"') > 0;
ROLLBACK;
BEGIN;
SELECT finance.send('log', '8') > 0;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);
COMMIT;
SELECT message FROM finance.read_group('log', 'all', auto_commit => true);

-- a reader that writes nothing in between, in one transaction
BEGIN;
SELECT message FROM finance.read_group('log', 'new', 1, true);
SELECT message FROM finance.read_group('log', 'new', 1, true);
COMMIT;
BEGIN READ ONLY;
SELECT message FROM finance.read_group('log', 'new', 1);
SELECT code FROM pg_temp.outcome($$SELECT finance.read_group('log', 'new', 1, true)$$);
SELECT code FROM pg_temp.outcome($$SELECT finance.send('log', '1')$$);
ROLLBACK;

-- ------------------------------------------------------------------------
-- seek
-- ------------------------------------------------------------------------
SELECT finance.seek_group('log', 'all', to_position => 'beginning');
SELECT array_agg(message) FROM finance.read_group('log', 'all');
SELECT length(finance.seek_group('log', 'all', to_position => 'end'));
SELECT array_agg(message) FROM finance.read_group('log', 'all');
SELECT msg_id AS four, enqueued_at AS at FROM finance.message_log WHERE tenant_id = 9051 AND payload = '4' \gset
SELECT finance.seek_group('log', 'all', to_id => :four) > :'two' COLLATE "C" AS ahead;
SELECT array_agg(message) FROM finance.read_group('log', 'all');
SELECT finance.seek_group('log', 'all', to_id => :four + 1) > :'two' COLLATE "C" AS ahead;
SELECT message FROM finance.read_group('log', 'all', 1);
-- an id of another queue, and one that is not drawn yet
SELECT length(finance.seek_group('log', 'all', to_id => 1));
SELECT message FROM finance.read_group('log', 'all', 1);
SELECT length(finance.seek_group('log', 'all', to_id => 9223372036854775806));
SELECT message FROM finance.read_group('log', 'all', 1);
SELECT length(finance.seek_group('log', 'all', to_time => finance.id_time(:four)));
SELECT '4' IN (SELECT message::text FROM finance.read_group('log', 'all'));
SELECT length(finance.seek_group('log', 'all', to_time => now() + interval '1 hour'));
SELECT message FROM finance.read_group('log', 'all', 1);
SELECT length(finance.seek_group('log', 'all', to_time => '1990-01-01'));
SELECT message FROM finance.read_group('log', 'all', 1);
SELECT finance.seek_group('log', 'all', to_position => :'two') = :'two';
SELECT message FROM finance.read_group('log', 'all', 1);

-- ------------------------------------------------------------------------
-- looking
-- ------------------------------------------------------------------------
SELECT group_name, "position" = :'two' AS at_two, lag, last_read_at IS NOT NULL AS read, missed, held_by_pid, held_by_gid, held_since
FROM finance.list_consumer_groups('log');
BEGIN;
SELECT finance.send('log', '9') > 0;
SELECT group_name, lag, held_by_pid = pg_backend_pid() AS held, held_by_gid, held_since = now() AS since FROM finance.list_consumer_groups('log');
ROLLBACK;
SELECT queue_length, queue_visible_length FROM finance.metrics('log');
SELECT queue_name, queue_length FROM finance.metrics_all();

-- by statements, where triggers are attached or rows are not written directly
SET finance.direct_writes = off;
SELECT finance.send('log', '10') > 0;
SELECT message FROM finance.read_group('log', 'new', 100, true) ORDER BY "position" DESC LIMIT 1;
RESET finance.direct_writes;
SELECT message FROM finance.read_group('log', 'new');

-- ------------------------------------------------------------------------
-- retention: whole segments, of what is older
-- ------------------------------------------------------------------------
SELECT finance.trim_log_queues() >= 0;
SELECT count(*) FROM finance.message_log WHERE tenant_id = 9051;
SELECT finance.create_consumer_group('short', 'ahead', 'beginning'), finance.create_consumer_group('short', 'behind', 'beginning');
SELECT finance.send('short', '1') > 0;
SELECT finance.send('short', '2') > 0;
SELECT message FROM finance.read_group('short', 'ahead', auto_commit => true);
-- twelve slices: another segment, whenever the sending was
SELECT now() + interval '120 seconds' AS later \gset
SET finance.test_clock = :'later';
-- the other log keeps its messages for days
SELECT finance.trim_log_queues() > 0;
RESET finance.test_clock;
SELECT group_name, lag, missed FROM finance.list_consumer_groups('short');
SELECT message FROM finance.read_group('short', 'behind');
SELECT finance.send('short', '3') > 0;
SELECT message FROM finance.read_group('short', 'behind', auto_commit => true);
SELECT message FROM finance.read_group('short', 'ahead', auto_commit => true);
SELECT group_name, lag, missed FROM finance.list_consumer_groups('short');
SELECT count(*) FROM finance.message_log WHERE tenant_id = 9051;

-- ------------------------------------------------------------------------
-- tenants
-- ------------------------------------------------------------------------
SET finance.tenant = 9052;
SELECT code FROM pg_temp.outcome($$SELECT finance.read_group('log', 'all')$$);
SELECT finance.create_log_queue('log');
SELECT finance.create_consumer_group('log', 'all', 'beginning');
SELECT finance.send('log', '"other tenant"') > 0;
SELECT message FROM finance.read_group('log', 'all');
SET finance.tenant = 9051;
SELECT count(*) FROM finance.read_group('log', 'all') WHERE message = '"other tenant"';

-- ------------------------------------------------------------------------
-- drop
-- ------------------------------------------------------------------------
SELECT finance.drop_consumer_group('log', 'new'), finance.drop_consumer_group('log', 'nosuch');
SELECT code FROM pg_temp.outcome($$SELECT finance.read_group('log', 'new')$$);
-- made anew it begins anew
SELECT finance.create_consumer_group('log', 'new');
SELECT message FROM finance.read_group('log', 'new');
SELECT invariant FROM finance.check_integrity() WHERE tenant_id IN (9051, 9052);

-- check_integrity() would tell
BEGIN;
DELETE FROM finance.group_position p USING finance.consumer_group g WHERE g.group_id = p.group_id AND g.tenant_id = 9051 AND g.name = 'new';
UPDATE finance.group_position p SET group_id = 0 FROM finance.consumer_group g WHERE g.group_id = p.group_id AND g.name = 'ahead';
DELETE FROM finance.log_queue USING finance.queue q WHERE q.queue_id = log_queue.queue_id AND q.tenant_id = 9052;
INSERT INTO finance.message_log SELECT mark + 1, msg_id, message_id, queue_id, enqueued_at, tenant_id, segment, priority, topic, ordering_key, headers, payload
	FROM finance.message_log WHERE tenant_id = 9051 AND payload = '4';
SELECT invariant, tenant_id, expected, found FROM finance.check_integrity() WHERE tenant_id IN (9051, 9052) ORDER BY 1, 2, 4;
ROLLBACK;

SELECT finance.drop_queue('log'), finance.drop_queue('short'), finance.drop_queue('plain');
SET finance.tenant = 9052;
SELECT finance.drop_queue('log'), finance.drop_queue('log');
SELECT count(*) FROM finance.consumer_group WHERE tenant_id IN (9051, 9052);
SELECT count(*) FROM finance.group_position WHERE tenant_id IN (9051, 9052);
SELECT count(*) FROM finance.message_log WHERE tenant_id IN (9051, 9052);
SELECT count(*) FROM pg_class WHERE relname ~ '^message_log_' AND relnamespace = 'finance'::regnamespace
	AND NOT EXISTS (SELECT FROM finance.queue WHERE relname ~ ('^message_log_' || queue_id || '(_|$)'));
RESET finance.tenant;
SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9051, 9052);
