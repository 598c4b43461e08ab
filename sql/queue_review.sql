--
-- Queues: what a hostile reader thought of
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET finance.test_clock = '2035-01-01 00:00:00+00';
SET timezone = 'UTC';
\set SHOW_CONTEXT never
\set VERBOSITY sqlstate

INSERT INTO finance.tenant (tenant_id, name) VALUES (9041, 'queue review') ON CONFLICT DO NOTHING;
SET finance.tenant = 9041;

-- ------------------------------------------------------------------------
-- a full dead-letter queue does not stop the queue it belongs to
-- ------------------------------------------------------------------------
SELECT finance.create_queue('dead', max_length => 1),
	finance.create_queue('main', max_deliveries => 1, dead_letter_queue => 'dead');
SELECT finance.send('dead', '0') > 0 AS sent;
SELECT finance.send('dead', '1');
SELECT count(*) FROM finance.send_batch('main', ARRAY['1', '2']::jsonb[]);
SELECT message FROM finance.read('main', 0, 1);
SELECT message FROM finance.read('main', 1000, 10);
SELECT message, headers #>> '{x-death,reason}' AS reason FROM finance.read('dead', 0, 10);
SELECT finance.send('dead', '1');

-- ------------------------------------------------------------------------
-- limits: what is not used is not kept, and a claim is counted once
-- ------------------------------------------------------------------------
SELECT finance.create_queue('limited', max_in_flight => 2);
BEGIN;
SELECT message FROM finance.read('limited', 1000, 2);
SELECT message FROM finance.read('limited', 1000, 2);
SELECT count(*) FROM finance.send_batch('limited', ARRAY['1', '2', '3']::jsonb[]);
SELECT message FROM finance.read('limited', 1000, 1);
SAVEPOINT s;
SELECT message FROM finance.read('limited', 1000, 10);
ROLLBACK TO s;
SELECT message FROM finance.read('limited', 1000, 10);
SELECT message FROM finance.read('limited', 1000, 10);
COMMIT;
SELECT message FROM finance.read('limited', 1000, 10);

-- what a statement did before it counts
SELECT finance.create_queue('counted', max_length => 10),
	finance.create_queue('bad', max_deliveries => 1, dead_letter_queue => 'counted');
SELECT finance.send('bad', '1') > 0 AS sent;
SELECT finance.nack('bad', msg_id), finance.send('counted', '2') > 0 AS sent FROM finance.read('bad', 0);
SELECT queue_length FROM finance.metrics('counted');

RESET finance.test_clock;
SELECT finance.create_queue('met');
SELECT count(finance.send('met', to_jsonb(n), ordering_key => n::text)) FROM generate_series(1, 3) n;
SELECT message FROM finance.read('met', 1000, 2);
-- again and again readers come past the two
SELECT finance.delete('met', finance.send('met', '0', ordering_key => 'x'));
SELECT message FROM finance.read('met', 0, 10);
SELECT finance.delete('met', finance.send('met', '0', ordering_key => 'x'));
SELECT message FROM finance.read('met', 0, 10);
SELECT queue_length, queue_visible_length FROM finance.metrics('met');

-- ------------------------------------------------------------------------
-- one that is worked on keeps its ordering key beyond its time to live
-- ------------------------------------------------------------------------
SET finance.test_clock = '2035-01-01 00:00:00+00';
SELECT finance.create_queue('keys');
SELECT finance.send('keys', '1', ttl => 10, ordering_key => 'k') > 0 AS sent;
SELECT message FROM finance.read('keys', 60, 10);
SET finance.test_clock = '2035-01-01 00:00:30+00';
SELECT finance.send('keys', '2', ordering_key => 'k') > 0 AS sent;
SELECT message FROM finance.read('keys', 60, 10);
SET finance.test_clock = '2035-01-01 00:01:30+00';
SELECT message FROM finance.read('keys', 60, 10);

-- a dead letter that comes back while a later one is worked on
SELECT finance.create_queue('back');
SELECT finance.create_queue('twice', max_deliveries => 1, dead_letter_queue => 'back');
SELECT count(finance.send('twice', to_jsonb(n), ordering_key => 'k')) FROM generate_series(1, 2) n;
SELECT finance.nack('twice', msg_id) FROM finance.read('twice', 60, 10);
SELECT message FROM finance.read('twice', 60, 10);
SELECT finance.redrive('back');
SELECT message FROM finance.read('twice', 60, 10);
SELECT finance.delete('twice', msg_id) FROM finance.message
	WHERE tenant_id = 9041 AND payload = '2' AND visible_at > finance._now() ORDER BY msg_id DESC LIMIT 1;
SELECT message FROM finance.read('twice', 60, 10);

-- ------------------------------------------------------------------------
-- one transaction and very many messages in several queues
-- ------------------------------------------------------------------------
SELECT finance.create_queue('many_1'), finance.create_queue('many_2');
SELECT queue_length FROM finance.metrics('many_1');
BEGIN;
SELECT count(*) FROM (SELECT finance.send('many_1', to_jsonb(n)), finance.send('many_2', to_jsonb(n)) FROM generate_series(1, 40000) n) AS sent;
SELECT queue_length FROM finance.metrics('many_1');
SELECT message FROM finance.read('many_1', 1000, 2);
ROLLBACK;
SELECT queue_length, queue_visible_length FROM finance.metrics('many_1');
BEGIN;
SELECT count(*) FROM (SELECT finance.send('many_1', to_jsonb(n)), finance.send('many_2', to_jsonb(n)) FROM generate_series(1, 40000) n) AS sent;
SELECT message FROM finance.read('many_1', 1000, 2);
COMMIT;
SELECT queue_length, queue_visible_length FROM finance.metrics('many_1');
SELECT message FROM finance.read('many_1', 1000, 2);
SELECT finance.purge_queue('many_1'), finance.purge_queue('many_2');
SELECT queue_length, queue_visible_length FROM finance.metrics('many_1');

-- ------------------------------------------------------------------------
-- columns that are not ours
-- ------------------------------------------------------------------------
BEGIN;
ALTER TABLE finance.message ADD COLUMN note text NOT NULL DEFAULT 'x';
SELECT finance.send('keys', '3');
ROLLBACK;
SELECT finance.send('keys', '3') > 0 AS sent;

-- ------------------------------------------------------------------------
-- large payloads lie outside of the row: claimed, archived, buried, popped
-- ------------------------------------------------------------------------
SELECT finance.create_queue('large', max_deliveries => 2, dead_letter_queue => 'back');
SELECT count(finance.send('large', (SELECT jsonb_agg(md5(n::text || i)) FROM generate_series(1, 2000) i))) FROM generate_series(1, 4) n;
CREATE TEMP TABLE large AS SELECT msg_id, md5(message::text) AS sum FROM finance.read('large', 0, 10);
SELECT finance.archive('large', (SELECT min(msg_id) FROM large));
SELECT count(*) FROM finance.message_archive a JOIN large l ON l.msg_id = a.msg_id AND l.sum = md5(a.payload::text);
SELECT count(*) FROM finance.read('large', 0, 1);
SELECT count(*) FROM finance.pop('large', 2) p JOIN large l ON l.msg_id = p.msg_id AND l.sum = md5(p.message::text);
SELECT count(*) FROM finance.read('back', 60, 10) r JOIN large l ON l.sum = md5(r.message::text);

SELECT finance.drop_queue(queue_name) FROM finance.list_queues();
SELECT * FROM finance.check_integrity();
