--
-- Queues, bindings and subscriptions
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET finance.test_clock = '2030-01-01 00:00:00+00';
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own: other tests may have queues, too
INSERT INTO finance.tenant (tenant_id, name) VALUES (9031, 'queue test'), (9037, 'queue test, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9031;

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
-- names
-- ------------------------------------------------------------------------
SELECT finance.create_queue('orders');
SELECT finance.create_queue(queue_name => 'A.b-c_9');
SELECT finance.create_queue(repeat('q', 47));
SELECT queue_name FROM finance.list_queues();
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.create_queue('orders')$$,
	$$SELECT finance.create_queue('')$$,
	$$SELECT finance.create_queue(repeat('q', 48))$$,
	$$SELECT finance.create_queue('a b')$$,
	$$SELECT finance.create_queue('a;DROP TABLE x')$$,
	$$SELECT finance.create_queue('ä')$$,
	$$SELECT finance.create_queue(E'a\nb')$$,
	$$SELECT finance.create_queue(NULL)$$,
	$$SELECT finance.drop_queue(NULL)$$,
	$$SELECT finance.send('nosuch', '1')$$,
	$$SELECT finance.send(repeat('q', 48), '1')$$,
	$$SELECT finance.read('nosuch', 1)$$,
	$$SELECT finance.pop('nosuch')$$,
	$$SELECT finance.delete('nosuch', 1)$$,
	$$SELECT finance.delete('nosuch', '{1}'::bigint[])$$,
	$$SELECT finance.archive('nosuch', 1)$$,
	$$SELECT finance.archive('nosuch', '{1}'::bigint[])$$,
	$$SELECT finance.nack('nosuch', 1)$$,
	$$SELECT finance.nack('nosuch', '{1}'::bigint[])$$,
	$$SELECT finance.set_vt('nosuch', 1, 1)$$,
	$$SELECT finance.send_batch('nosuch', '{1}')$$,
	$$SELECT finance.alter_queue('nosuch', max_deliveries => 1)$$,
	$$SELECT finance.pause_queue('nosuch')$$,
	$$SELECT finance.resume_queue('nosuch')$$,
	$$SELECT finance.redrive('nosuch')$$,
	$$SELECT finance.redrive('orders', 'nosuch')$$,
	$$SELECT finance.redrive('orders', 'orders')$$,
	$$SELECT finance.read_with_poll('nosuch', 1)$$,
	$$SELECT finance.purge_queue('nosuch')$$,
	$$SELECT finance.metrics('nosuch')$$,
	$$SELECT finance.bind_topic('#', 'nosuch')$$,
	$$SELECT finance.unbind_topic('#', 'nosuch')$$]) AS c, pg_temp.outcome(c) AS o;
SELECT finance.drop_queue(repeat('q', 47)), finance.drop_queue('nosuch');

-- ------------------------------------------------------------------------
-- send and read: priority first, then age
-- ------------------------------------------------------------------------
CREATE TEMP TABLE sent (n int, msg_id bigint);
INSERT INTO sent SELECT n, finance.send('orders', to_jsonb(n), priority => p)
FROM (VALUES (1, 0), (2, 10), (3, 0), (4, 5), (5, 10)) AS v (n, p);
SELECT array_agg(message ORDER BY ordinality) AS in_order,
	array_agg(DISTINCT read_ct) AS read_ct, array_agg(DISTINCT vt) AS vt
FROM finance.read('orders', 30, 3) WITH ORDINALITY;
SELECT message, read_ct, vt, headers, topic, priority, enqueued_at FROM finance.read('orders', 30, 10);
SELECT count(*) AS none_left FROM finance.read('orders', 30, 10);
-- not acknowledged in time: read again
SET finance.test_clock = '2030-01-01 00:00:30+00';
SELECT message, read_ct FROM finance.read('orders', 0, 10);
SELECT message, read_ct FROM finance.read('orders', 60);

-- set_vt, by priority and id
SELECT s.n, r.vt, r.read_ct FROM sent s, finance.set_vt('orders', s.msg_id, 100) r WHERE s.n = 2;
SELECT message FROM finance.read('orders', 0, 10);
SELECT s.n, r.vt FROM sent s, finance.set_vt('orders', s.msg_id, 0) r WHERE s.n = 2;
SELECT message FROM finance.read('orders', 0, 1);
SELECT count(*) FROM finance.set_vt('orders', 1, 1);

-- delete, archive, pop
SELECT n, finance.delete('orders', msg_id), finance.delete('orders', msg_id) AS again FROM sent WHERE n = 2;
SELECT n, finance.archive('orders', msg_id), finance.archive('orders', msg_id) AS again FROM sent WHERE n = 4;
SELECT payload, priority, read_ct, archived_at FROM finance.message_archive WHERE tenant_id = 9031;
SELECT message, read_ct FROM finance.pop('orders');
SELECT message FROM finance.pop(queue_name => 'orders', qty => 10);
SELECT count(*) FROM finance.message WHERE tenant_id = 9031;

-- delay
SELECT finance.send('orders', '"late"', delay => 60) > 0 AS sent;
SELECT finance.send('orders', '"now"', headers => '{"trace": 1}') > 0 AS sent;
SELECT message, headers FROM finance.read('orders', 0, 10);
SET finance.test_clock = '2030-01-01 00:01:30+00';
SELECT message FROM finance.pop('orders', 10);

-- ------------------------------------------------------------------------
-- batches
-- ------------------------------------------------------------------------
SELECT count(*), count(DISTINCT id) FROM finance.send_batch('orders',
	ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 10000) n)) AS id;
SELECT count(*), min(message::int), max(message::int),
	array_agg(message::int ORDER BY ordinality) = array_agg(message::int ORDER BY message::int) AS in_order
FROM finance.read('orders', 30, 10000) WITH ORDINALITY;
SELECT finance.purge_queue('orders'), finance.purge_queue('orders') AS again;
CREATE TEMP TABLE batch AS
SELECT ordinality AS n, id FROM finance.send_batch('orders', ARRAY['1', '2', '3', '4']::jsonb[],
	ARRAY['{"a": 1}', NULL, '{}', NULL]::jsonb[], priority => 7) WITH ORDINALITY AS t (id);
SELECT message, headers, priority FROM finance.read('orders', 0, 10);
SELECT n FROM batch WHERE id IN (SELECT finance.delete('orders', (SELECT array_agg(id) || 1::bigint FROM batch WHERE n IN (1, 3)))) ORDER BY n;
SELECT n FROM batch WHERE id IN (SELECT finance.archive('orders', (SELECT array_agg(id) FROM batch))) ORDER BY n;
SELECT count(*) FROM finance.delete('orders', '{}'::bigint[]);
SELECT count(*) FROM finance.send_batch('orders', '{}');

-- ------------------------------------------------------------------------
-- bad arguments change nothing
-- ------------------------------------------------------------------------
SET finance.max_payload = 1024;
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.send('orders', NULL)$$,
	$$SELECT finance.send(NULL, '1')$$,
	$$SELECT finance.send('orders', '1', delay => NULL)$$,
	$$SELECT finance.send('orders', '1', priority => NULL)$$,
	$$SELECT finance.send('orders', '1', delay => -1)$$,
	$$SELECT finance.send('orders', '1', delay => 2592001)$$,
	$$SELECT finance.send('orders', '1', priority => 11)$$,
	$$SELECT finance.send('orders', '1', priority => -1)$$,
	$$SELECT finance.send('orders', '1', ttl => 0)$$,
	$$SELECT finance.send('orders', '1', ttl => -1)$$,
	$$SELECT finance.send('orders', '1', ttl => 31536001)$$,
	$$SELECT finance.send('orders', '1', ordering_key => '')$$,
	$$SELECT finance.send('orders', '1', ordering_key => repeat('k', 256))$$,
	$$SELECT finance.send('orders', '1', deliver_at => 'infinity')$$,
	$$SELECT finance.send('orders', '1', deliver_at => '-infinity')$$,
	$$SELECT finance.send('orders', '1', deliver_at => '2031-01-03 00:00:00+00')$$,
	$$SELECT finance.send('orders', '1', delay => 1, deliver_at => '2030-01-02 00:00:00+00')$$,
	$$SELECT finance.send('orders', '1', headers => '[1]')$$,
	$$SELECT finance.send('orders', to_jsonb(repeat('x', 1024)))$$,
	$$SELECT finance.send('orders', '1', jsonb_build_object('x', repeat('x', 1024)))$$,
	$$SELECT finance.send_batch('orders', NULL)$$,
	$$SELECT finance.send_batch('orders', ARRAY['1', NULL]::jsonb[])$$,
	$$SELECT finance.send_batch('orders', ARRAY['1', to_jsonb(repeat('x', 1024))])$$,
	$$SELECT finance.send_batch('orders', ARRAY['1', '2']::jsonb[], ARRAY['{}']::jsonb[])$$,
	$$SELECT finance.send_batch('orders', ARRAY['1', '2']::jsonb[], ARRAY['{}', '2']::jsonb[])$$,
	$$SELECT finance.send_batch('orders', '{1,2}', ordering_keys => '{a}')$$,
	$$SELECT finance.send_batch('orders', '{1,2}', ordering_keys => ARRAY['a', repeat('k', 256)])$$,
	$$SELECT finance.send_batch('orders', '{1,2}', ttl => 0)$$,
	$$SELECT finance.send_batch('orders', '{1,2}', delay => -1)$$,
	$$SELECT finance.send_batch('orders', '{1,2}', priority => 11)$$,
	$$SELECT finance.send_batch('orders', '{1,2}', deliver_at => 'infinity')$$,
	$$SELECT finance.send_batch('orders', '{1,2}', delay => 1, deliver_at => '2030-01-02 00:00:00+00')$$,
	$$SELECT finance.send_batch('orders', array_fill('1'::jsonb, ARRAY[10001]))$$,
	$$SELECT finance.read('orders', NULL)$$,
	$$SELECT finance.read('orders', -1)$$,
	$$SELECT finance.read('orders', 2592001)$$,
	$$SELECT finance.read('orders', 1, 0)$$,
	$$SELECT finance.read('orders', 1, 10001)$$,
	$$SELECT finance.read('orders', 1, NULL)$$,
	$$SELECT finance.pop('orders', 0)$$,
	$$SELECT finance.delete('orders', NULL::bigint)$$,
	$$SELECT finance.delete('orders', NULL::bigint[])$$,
	$$SELECT finance.delete('orders', '{1,NULL}'::bigint[])$$,
	$$SELECT finance.delete('orders', array_fill(1::bigint, ARRAY[10001]))$$,
	$$SELECT finance.archive('orders', NULL::bigint)$$,
	$$SELECT finance.archive('orders', '{NULL}'::bigint[])$$,
	$$SELECT finance.archive('orders', array_fill(1::bigint, ARRAY[10001]))$$,
	$$SELECT finance.delete('orders', 1, 0)$$,
	$$SELECT finance.archive('orders', 1, -1)$$,
	$$SELECT finance.nack('orders', NULL::bigint)$$,
	$$SELECT finance.nack('orders', '{NULL}'::bigint[])$$,
	$$SELECT finance.nack('orders', array_fill(1::bigint, ARRAY[10001]))$$,
	$$SELECT finance.nack('orders', 1, -1)$$,
	$$SELECT finance.nack('orders', 1, 2592001)$$,
	$$SELECT finance.nack('orders', 1, read_ct => 0)$$,
	$$SELECT finance.nack('orders', 1, reason => repeat('r', 256))$$,
	$$SELECT finance.redrive('orders', 'risk', 0)$$,
	$$SELECT finance.redrive('orders', 'risk', 10001)$$,
	$$SELECT finance.read_with_poll('orders', -1)$$,
	$$SELECT finance.read_with_poll('orders', 1, max_poll_seconds => -1)$$,
	$$SELECT finance.set_vt('orders', 1, 1, 0)$$,
	$$SELECT finance.set_vt('orders', 1, 2592001)$$,
	$$SELECT finance.set_vt('orders', NULL, 1)$$,
	$$SELECT finance.set_vt('orders', 1, NULL)$$,
	$$SELECT finance.set_vt('orders', 1, -1)$$,
	$$SELECT finance.publish('a..b', '1')$$,
	$$SELECT finance.publish(NULL, '1')$$,
	$$SELECT finance.publish('a', NULL)$$,
	$$SELECT finance.publish('a', '1', priority => 11)$$,
	$$SELECT finance.publish('a', '1', delay => -1)$$,
	$$SELECT finance.publish('', '1')$$,
	$$SELECT finance.publish('a.*', '1')$$,
	$$SELECT finance.publish(repeat('t', 256), '1')$$,
	$$SELECT finance.publish('a', '1', ttl => 0)$$,
	$$SELECT finance.publish('a', '1', ordering_key => '')$$,
	$$SELECT finance.publish('a', '1', deliver_at => 'infinity')$$,
	$$SELECT finance.publish('a', '1', delay => 1, deliver_at => '2030-01-02 00:00:00+00')$$,
	$$SELECT finance.publish('a', to_jsonb(repeat('x', 1024)))$$,
	$$SELECT finance.bind_topic('a.', 'orders')$$,
	$$SELECT finance.bind_topic(NULL, 'orders')$$,
	$$SELECT finance.test_routing('#')$$,
	$$SELECT finance.subscribe('', '#')$$,
	$$SELECT finance.subscribe(repeat('c', 64), '#')$$,
	$$SELECT finance.subscribe('c', 'a..b')$$,
	$$SELECT finance.subscribe('not a queue name', '#')$$,
	$$SELECT finance.subscribe(NULL, '#')$$,
	$$SELECT finance.unsubscribe(NULL)$$]) AS c, pg_temp.outcome(c) AS o;
RESET finance.max_payload;
-- of queues
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.%s('orders', max_deliveries => -1)$$,
	$$SELECT finance.%s('orders', max_deliveries => 1000001)$$,
	$$SELECT finance.%s('orders', message_ttl => -1)$$,
	$$SELECT finance.%s('orders', message_ttl => 31536001)$$,
	$$SELECT finance.%s('orders', expired => 'keep')$$,
	$$SELECT finance.%s('orders', backoff_ms => -1)$$,
	$$SELECT finance.%s('orders', backoff_ms => 86400001)$$,
	$$SELECT finance.%s('orders', backoff_max_ms => -1)$$,
	$$SELECT finance.%s('orders', backoff_max_ms => 86400001)$$,
	$$SELECT finance.%s('orders', max_length => -1)$$,
	$$SELECT finance.%s('orders', rate_limit => -1)$$,
	$$SELECT finance.%s('orders', max_in_flight => -1)$$,
	$$SELECT finance.%s('orders', dedup_window => 0)$$,
	$$SELECT finance.%s('orders', dedup_window => 21601)$$,
	$$SELECT finance.%s('orders', dead_letter_queue => 'nosuch')$$,
	$$SELECT finance.%s('orders', dead_letter_queue => 'orders')$$]) AS c, unnest('{create_queue, alter_queue}'::text[]) f,
	pg_temp.outcome(format(replace(c, 'orders', CASE f WHEN 'create_queue' THEN 'another' ELSE 'orders' END), f)) AS o;
SELECT queue_name, kind, unlogged, paused FROM finance.list_queues();
SELECT max_deliveries, dead_letter_queue_id, message_ttl_s, expired, backoff_ms, backoff_max_ms, max_length, rate_limit, max_in_flight, dedup_window_s
FROM finance.queue WHERE tenant_id = 9031 AND name = 'orders';
-- ids that are none change nothing and say so
SELECT finance.delete('orders', 1), finance.archive('orders', 1), finance.nack('orders', 1), finance.delete('orders', -1), finance.delete('orders', 9223372036854775807);
SELECT count(*) FROM finance.nack('orders', '{1,2}'::bigint[]);
SELECT count(*) FROM finance.message WHERE tenant_id = 9031;
SELECT count(*) FROM finance.subscription WHERE tenant_id = 9031;
SELECT count(*) FROM finance.list_bindings();
-- an error with its hint
SELECT finance.send('nosuch', '1');

-- ------------------------------------------------------------------------
-- who lost a message to another reader cannot acknowledge it
-- ------------------------------------------------------------------------
SELECT finance.send('orders', '"held"') AS held \gset
SELECT read_ct FROM finance.read('orders', 10);
SET finance.test_clock = '2030-01-01 00:01:41+00';
SELECT read_ct FROM finance.read('orders', 10);
SELECT code, replace(message, :'held', '<id>') AS message, detail FROM unnest(ARRAY[
	$$SELECT finance.delete('orders', %s, 1)$$,
	$$SELECT finance.archive('orders', %s, 1)$$,
	$$SELECT finance.nack('orders', %s, read_ct => 1)$$,
	$$SELECT finance.set_vt('orders', %s, 100, 1)$$]) AS c, pg_temp.outcome(format(c, :'held'));
SELECT count(*) AS still_held FROM finance.read('orders', 10);
SELECT vt, read_ct FROM finance.set_vt('orders', :held, 20, 2);
SELECT finance.delete('orders', :held, 2), finance.delete('orders', :held, 2) AS again;
SET finance.test_clock = '2030-01-01 00:01:30+00';

-- ------------------------------------------------------------------------
-- a full queue: nothing is lost, and nothing half done
-- ------------------------------------------------------------------------
SELECT finance.create_queue('full', max_length => 3);
SELECT finance.bind_topic('full', 'full'), finance.bind_topic('full', 'orders');
SELECT count(finance.send('full', to_jsonb(n))) FROM generate_series(1, 2) n;
SELECT * FROM pg_temp.outcome($$SELECT finance.send_batch('full', '{3,4}')$$);
BEGIN;
SELECT count(finance.send('full', '3'));
SELECT * FROM pg_temp.outcome($$SELECT finance.send('full', '4')$$);
-- publish() is all or none
SELECT * FROM pg_temp.outcome($$SELECT finance.publish('full', '4')$$);
ROLLBACK;
SELECT finance.publish('full', '3') AS copies;
SELECT * FROM pg_temp.outcome($$SELECT finance.publish('full', '4')$$);
SELECT queue_name, queue_length FROM finance.metrics_all() WHERE queue_name IN ('full', 'orders');
SELECT message FROM finance.pop('full');
SELECT count(finance.send('full', '4'));
SELECT finance.alter_queue('full', max_length => 0);
SELECT count(*) AS no_limit FROM finance.send_batch('full', '{5,6}');
SELECT array_agg(message) FROM finance.pop('full', 10);
SELECT message FROM finance.pop('orders', 10);
SELECT finance.unbind_topic('full', 'orders'), finance.drop_queue('full');

-- ------------------------------------------------------------------------
-- what cannot be done with a log queue
-- ------------------------------------------------------------------------
SELECT finance.create_log_queue('log');
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.read('log', 1)$$,
	$$SELECT finance.read_with_poll('log', 1)$$,
	$$SELECT finance.pop('log')$$,
	$$SELECT finance.delete('log', 1)$$,
	$$SELECT finance.delete('log', '{1}'::bigint[])$$,
	$$SELECT finance.archive('log', 1)$$,
	$$SELECT finance.archive('log', '{1}'::bigint[])$$,
	$$SELECT finance.nack('log', 1)$$,
	$$SELECT finance.nack('log', '{1}'::bigint[])$$,
	$$SELECT finance.set_vt('log', 1, 1)$$,
	$$SELECT finance.purge_queue('log')$$,
	$$SELECT finance.redrive('log')$$,
	$$SELECT finance.read_group('orders', 'g')$$,
	$$SELECT finance.create_consumer_group('orders', 'g')$$]) AS c, pg_temp.outcome(c) AS o;
SELECT finance.drop_queue('log');

-- ------------------------------------------------------------------------
-- topics
-- ------------------------------------------------------------------------
SELECT finance.publish('transfer.completed', '1') AS nobody;
SELECT finance.create_queue('risk');
SELECT finance.bind_topic('transfer.*', 'orders'), finance.bind_topic('transfer.*', 'orders') AS again;
SELECT finance.bind_topic('#.completed', 'orders'), finance.bind_topic('#', 'risk');
SELECT pattern, queue_name FROM finance.list_bindings();
SELECT pattern, queue_name FROM finance.test_routing('transfer.completed');
-- orders gets one copy, though two of its bindings match
SELECT finance.publish('transfer.completed', '{"n": 1}', '{"h": 2}', priority => 3) AS copies;
SELECT q.name, m.topic, m.payload, m.headers, m.priority, m.tenant_id,
	m.message_id = first_value(m.message_id) OVER () AS same_message
FROM finance.message m JOIN finance.queue q USING (queue_id) WHERE q.tenant_id = 9031 ORDER BY q.name;
SELECT finance.publish('other', '2', delay => 5) AS copies;
SELECT message FROM finance.pop('risk', 10);
SELECT finance.unbind_topic('#', 'risk'), finance.unbind_topic('#', 'risk') AS again;
SELECT finance.publish('other', '3') AS copies;
-- a binding that is rolled back binds nothing
BEGIN;
SELECT finance.bind_topic('other', 'risk');
SELECT finance.publish('other', '4') AS copies;
ROLLBACK;
SELECT finance.publish('other', '5') AS copies;
BEGIN;
SAVEPOINT s;
SELECT finance.create_queue('fleeting');
SELECT finance.bind_topic('other', 'fleeting');
SELECT finance.publish('other', '6') AS copies;
SELECT finance.send('fleeting', '7') > 0 AS sent;
ROLLBACK TO s;
SELECT finance.publish('other', '8') AS copies;
SELECT message FROM pg_temp.outcome($$SELECT finance.send('fleeting', '9')$$);
COMMIT;
-- dropped with its bindings, and made again: a new queue
SELECT finance.bind_topic('other', 'risk');
SELECT finance.publish('other', '10') AS copies;
SELECT finance.drop_queue('risk'), finance.drop_queue('risk') AS again;
SELECT finance.publish('other', '11') AS copies;
SELECT finance.create_queue('risk');
SELECT finance.publish('other', '12') AS copies;
SELECT queue_length FROM finance.metrics('risk');

-- ------------------------------------------------------------------------
-- metrics
-- ------------------------------------------------------------------------
SELECT finance.purge_queue('orders');
SELECT finance.send('orders', '1') > 0, finance.send('orders', '2', delay => 100) > 0;
SET finance.test_clock = '2030-01-01 00:01:42+00';
SELECT finance.send('orders', '3') > 0;
SELECT * FROM finance.metrics('orders');
SELECT queue_name, queue_length, newest_msg_age_sec, oldest_msg_age_sec, queue_visible_length FROM finance.metrics_all();

-- ------------------------------------------------------------------------
-- subscriptions: a channel belongs to one queue
-- ------------------------------------------------------------------------
SELECT finance.subscribe('payments', 'transfer.#');
SELECT finance.subscribe('payments', 'risk.#');
SELECT finance.subscribe('More Payments', 'transfer.*', 'payments');
SELECT channel, q.name, s.tenant_id FROM finance.subscription s JOIN finance.queue q USING (queue_id) WHERE q.tenant_id = 9031 ORDER BY 1;
SELECT pattern, queue_name FROM finance.list_bindings();
SELECT * FROM pg_temp.outcome($$SELECT finance.subscribe('payments', '#', 'orders')$$);
SELECT finance.unsubscribe('payments'), finance.unsubscribe('payments') AS again;
SELECT finance.subscribe('payments', 'x', 'orders');
SELECT finance.drop_queue('payments');
SELECT channel, q.name FROM finance.subscription s JOIN finance.queue q USING (queue_id) WHERE q.tenant_id = 9031 ORDER BY 1;

-- ------------------------------------------------------------------------
-- tenants do not see each other
-- ------------------------------------------------------------------------
SET finance.tenant = 9037;
SELECT count(*) FROM finance.list_queues();
SELECT * FROM pg_temp.outcome($$SELECT finance.send('orders', '1')$$);
SELECT finance.create_queue('orders');
SELECT finance.bind_topic('#', 'orders');
SELECT finance.publish('transfer.x', '"of 9037"') AS copies;
SELECT * FROM pg_temp.outcome($$SELECT finance.subscribe('payments', '#')$$);
SELECT finance.unsubscribe('payments') AS of_another;
SELECT pattern, queue_name FROM finance.list_bindings();
SELECT message FROM finance.read('orders', 0, 10);
SET finance.tenant = 9031;
SELECT message FROM finance.read('orders', 0, 10);
SELECT finance.publish('transfer.x', '"of 9031"') AS copies;
SET finance.tenant = 9037;
SELECT message FROM finance.read('orders', 0, 10);
SELECT finance.drop_queue('orders');
SET finance.tenant = 9031;

-- ------------------------------------------------------------------------
-- an unprivileged user with a hostile search path; row security
-- ------------------------------------------------------------------------
CREATE ROLE regress_finance_queue;
GRANT USAGE ON SCHEMA finance TO regress_finance_queue;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA finance TO regress_finance_queue;
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
DO $$
DECLARE t text; o text;
BEGIN
	FOREACH t IN ARRAY '{int8,int4,int2,text,timestamptz,oid}'::text[] LOOP
		EXECUTE format($f$CREATE FUNCTION hostile.bad(%s, %1$s) RETURNS boolean LANGUAGE plpgsql AS
			'BEGIN RAISE ''hostile operator called by %%'', current_user; END'$f$, t);
		FOREACH o IN ARRAY '{=,<=,<>}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.bad, LEFTARG = %s, RIGHTARG = %2$s)', o, t);
		END LOOP;
	END LOOP;
END $$;
CREATE FUNCTION hostile.count() RETURNS bigint LANGUAGE plpgsql AS
$$BEGIN RAISE 'hostile function called by %', current_user; END$$;
-- a new session: no plan is kept yet
\c -
SET client_min_messages = error;
SET finance.tenant = 9031;
SET search_path = hostile, pg_catalog;
SET ROLE regress_finance_queue;
SELECT 1 = 1 AS the_trap_is_set;
SELECT finance.create_queue('mine');
SELECT finance.subscribe('mine', 'mine.#');
SELECT finance.publish('mine.x', '1') AS copies;
SELECT pg_catalog.array_length(array(SELECT finance.send_batch('mine', ARRAY['2', '3', '4', '5']::jsonb[])), 1);
SELECT message, read_ct FROM finance.read('mine', 30, 2);
SELECT message FROM finance.pop('mine');
SELECT finance.archive('mine', msg_id), (finance.set_vt('mine', msg_id, 1)).message FROM finance.read('mine', 0);
SELECT queue_length, queue_visible_length FROM finance.metrics('mine');
SELECT pattern, queue_name FROM finance.test_routing('mine');
SELECT finance.delete('mine', msg_id) FROM finance.read('mine', 0);
SELECT finance.purge_queue('mine');
SELECT finance.unbind_topic('mine.#', 'mine'), finance.unsubscribe('mine'), finance.drop_queue('mine');
SELECT * FROM finance.message WHERE tenant_id = 9031;
SELECT * FROM finance.queue;
RESET ROLE;
RESET search_path;
-- who may read the tables sees the rows of the session's tenant only
GRANT SELECT ON finance.queue, finance.message TO regress_finance_queue;
SELECT finance.send('orders', '"row security"') > 0 AS sent;
SET finance.tenant = 9037;
SELECT finance.create_queue('of37');
SET ROLE regress_finance_queue;
SELECT name FROM finance.queue;
SELECT count(*) FROM finance.message;
SET finance.tenant = 9031;
SELECT count(*) > 0 AS some, count(*) FILTER (WHERE name = 'of37') AS of_37 FROM finance.queue;
SELECT count(*) > 0 AS some FROM finance.message;
RESET ROLE;
SET finance.tenant = 9037;
SELECT finance.drop_queue('of37');
SET finance.tenant = 9031;
REVOKE ALL ON finance.queue, finance.message FROM regress_finance_queue;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA finance FROM regress_finance_queue;
REVOKE ALL ON SCHEMA finance FROM regress_finance_queue;
DROP ROLE regress_finance_queue;
DROP SCHEMA hostile CASCADE;

-- ------------------------------------------------------------------------
-- transactions
-- ------------------------------------------------------------------------
SELECT finance.purge_queue('orders') > 0 AS purged;
BEGIN;
SELECT finance.send('orders', '"gone"') > 0;
ROLLBACK;
BEGIN;
SELECT finance.send('orders', '"kept"') > 0;
SAVEPOINT s;
SELECT finance.send('orders', '"gone"') > 0;
ROLLBACK TO s;
COMMIT;
BEGIN;
SELECT message, read_ct FROM finance.read('orders', 1000);
SELECT finance.delete('orders', msg_id) FROM finance.message WHERE tenant_id = 9031 AND payload = '"kept"';
SELECT count(*) FROM finance.pop('orders');
ROLLBACK;
SELECT message, read_ct FROM finance.pop('orders');
-- the writes of one statement are seen by the next call in it
SELECT (SELECT finance.send('orders', '"a"')) > 0 AS sent, (SELECT message FROM finance.pop('orders')),
	(SELECT count(*) FROM finance.read('orders', 0)) AS left;
-- other isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT finance.create_queue('snapshot');
SELECT finance.bind_topic('snap', 'snapshot');
SELECT finance.publish('snap', '1') AS copies;
SELECT message FROM finance.read('snapshot', 0);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT finance.publish('snap', '2') AS copies;
SELECT message FROM finance.pop('snapshot', 10);
SELECT finance.drop_queue('snapshot');
COMMIT;
BEGIN READ ONLY;
SELECT count(*) >= 1 AS some FROM finance.list_queues();
\set VERBOSITY sqlstate
SELECT finance.send('orders', '1');
\set VERBOSITY default
ROLLBACK;

-- ------------------------------------------------------------------------
-- more queues than hints are kept of
-- ------------------------------------------------------------------------
\set ECHO none
\o /dev/null
SELECT format('SELECT finance.create_queue(%L)', 'many' || n) FROM generate_series(1, 200) n \gexec
\o
\set ECHO all
SELECT count(finance.send('many' || n, to_jsonb(n))) FROM generate_series(1, 200) n;
SELECT sum(message::int) FROM generate_series(1, 200) n, finance.pop('many' || n);
\set ECHO none
\o /dev/null
SELECT format('SELECT finance.drop_queue(%L)', 'many' || n) FROM generate_series(1, 200) n \gexec
\o
\set ECHO all

-- ------------------------------------------------------------------------
-- nothing is left behind
-- ------------------------------------------------------------------------
SELECT count(finance.drop_queue(queue_name)) > 0 AS dropped FROM finance.list_queues();
SELECT count(*) FROM finance.message WHERE tenant_id = 9031;
SELECT count(*) FROM finance.binding WHERE tenant_id = 9031;
SELECT count(*) FROM finance.subscription WHERE tenant_id = 9031;
