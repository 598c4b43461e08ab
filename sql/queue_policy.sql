--
-- What a queue promises about its messages: order, delays, lives, keys,
-- deliveries, dead letters, limits
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET finance.test_clock = '2030-01-01 00:00:00+00';
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own: other tests may have queues, too
INSERT INTO finance.tenant (tenant_id, name) VALUES (9041, 'queue policy test'), (9043, 'queue policy test, defaults')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9041;

CREATE FUNCTION pg_temp.outcome(command text, OUT code text,
								OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	message := left(regexp_replace(message, '\d{10,}', 'N'), 80);
END $$;
-- the payloads that read() gives, in order, as one line
CREATE FUNCTION pg_temp.got(queue text, vt int DEFAULT 30, qty int DEFAULT 10) RETURNS text LANGUAGE sql AS
'SELECT coalesce(string_agg(message #>> ''{}'', '' '' ORDER BY ordinality), ''-'') FROM finance.read(queue, vt, qty) WITH ORDINALITY';
-- of a message, by its payload
CREATE FUNCTION pg_temp.id(queue text, what text) RETURNS bigint LANGUAGE sql AS
'SELECT msg_id FROM finance.message m JOIN finance.queue q USING (queue_id, tenant_id)
 WHERE q.tenant_id = current_setting(''finance.tenant'')::int AND q.name = queue AND payload #>> ''{}'' = what';
CREATE FUNCTION pg_temp.payloads(VARIADIC text[]) RETURNS jsonb[] LANGUAGE sql AS
'SELECT array_agg(to_jsonb(t) ORDER BY ordinality) FROM unnest($1) WITH ORDINALITY AS u (t)';
CREATE FUNCTION pg_temp.len(queue text) RETURNS bigint LANGUAGE sql AS
'SELECT queue_length FROM finance.metrics(queue)';

-- ------------------------------------------------------------------------
-- priorities, in one batch, in several, over more than one segment
-- ------------------------------------------------------------------------
SELECT finance.create_queue('prio');
SELECT count(finance.send('prio', to_jsonb(p || '.' || n), priority => p)) FROM generate_series(0, 10) p, generate_series(1, 2) n;
SELECT pg_temp.got('prio', 0, 5), pg_temp.got('prio', 0, 100);
SELECT finance.purge_queue('prio');
-- more than a segment takes, the lowest first: still the highest is read first
SELECT count(*) FROM finance.send_batch('prio', array_fill('0'::jsonb, '{9000}'));
SELECT count(*) FROM finance.send_batch('prio', array_fill('5'::jsonb, '{9000}'), priority => 5);
SELECT count(*) FROM finance.send_batch('prio', array_fill('10'::jsonb, '{9000}'), priority => 10);
SELECT count(*) > 1 AS several_segments FROM (SELECT segment FROM finance.message WHERE tenant_id = 9041 GROUP BY 1) s;
SELECT priority, count(*) FROM finance.read('prio', 1000, 10000) GROUP BY 1 ORDER BY 1 DESC;
SELECT finance.send('prio', '"late"', priority => 10) > 0 AS sent;
SELECT priority, count(*), count(DISTINCT msg_id) FROM finance.pop('prio', 10000) GROUP BY 1 ORDER BY 1 DESC;
SELECT priority, count(*) FROM finance.pop('prio', 10000) GROUP BY 1 ORDER BY 1 DESC;
SELECT pg_temp.got('prio');
SELECT queue_length, queue_visible_length FROM finance.metrics('prio');
-- their time is over: the highest priority again first, and read twice
SET finance.test_clock = '2030-01-01 00:16:40+00';
SELECT priority, read_ct, count(*), count(DISTINCT msg_id) FROM finance.pop('prio', 10000) GROUP BY 1, 2 ORDER BY 1 DESC;
SELECT pg_temp.got('prio'), pg_temp.len('prio');

-- ------------------------------------------------------------------------
-- delay and deliver_at
-- ------------------------------------------------------------------------
SET finance.test_clock = '2030-01-02 00:00:00+00';
SELECT finance.create_queue('late');
SELECT count(finance.send('late', to_jsonb(d), delay => d)) FROM unnest('{3,0,2,1}'::int[]) d;
SELECT finance.send('late', '"at"', deliver_at => '2030-01-02 00:00:02+00') > 0 AS sent,
	finance.send('late', '"past"', deliver_at => '1999-01-01') > 0 AS sent;
SELECT payload, enqueued_at, visible_at, due_at FROM finance.message WHERE tenant_id = 9041 ORDER BY msg_id;
SELECT pg_temp.got('late');
SET finance.test_clock = '2030-01-02 00:00:01+00';
SELECT pg_temp.got('late');
SET finance.test_clock = '2030-01-02 00:00:01.999999+00';
SELECT pg_temp.got('late');
-- a delayed one of a higher priority comes first when it is due
SELECT finance.send('late', '"first"', delay => 1, priority => 9) > 0 AS sent, finance.send('late', '"now"') > 0 AS sent;
SET finance.test_clock = '2030-01-02 00:00:03+00';
SELECT pg_temp.got('late');
SELECT pg_temp.got('late'), finance.purge_queue('late');
-- many that are due at one moment, more than are looked at in one go
SELECT count(*) FROM finance.send_batch('late', array_fill('1'::jsonb, '{2500}'), delay => 1);
SELECT pg_temp.got('late');
SET finance.test_clock = '2030-01-02 00:00:04+00';
SELECT count(*), count(DISTINCT msg_id) FROM finance.read('late', 30, 700);
SELECT count(*), count(DISTINCT msg_id) FROM finance.read('late', 30, 10000);
SELECT pg_temp.got('late'), finance.purge_queue('late');
-- the first thousand of them wait for one key: the others do not
SELECT finance.send('late', '"head"', ordering_key => 'k') > 0 AS sent;
SELECT count(*) FROM finance.send_batch('late', array_fill('"tail"'::jsonb, '{1500}') || '"free"'::jsonb, delay => 1,
	ordering_keys => array_fill('k'::text, '{1500}') || NULL::text);
SELECT pg_temp.got('late', 30);
SET finance.test_clock = '2030-01-02 00:00:05+00';
SELECT pg_temp.got('late', 30) AS free;
SELECT finance.purge_queue('late');
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.send('late', '1', deliver_at => 'infinity')$$,
	$$SELECT finance.send('late', '1', deliver_at => '-infinity')$$,
	$$SELECT finance.send('late', '1', deliver_at => '2031-01-04')$$,
	$$SELECT finance.send('late', '1', delay => 1, deliver_at => '2030-01-04')$$,
	$$SELECT finance.send('late', '1', ttl => 0)$$,
	$$SELECT finance.send('late', '1', ttl => -1)$$,
	$$SELECT finance.send('late', '1', ttl => 31536001)$$,
	$$SELECT finance.send('late', '1', ordering_key => '')$$,
	$$SELECT finance.send('late', '1', ordering_key => repeat('k', 256))$$,
	$$SELECT finance.send_batch('late', '{1,2}', ordering_keys => '{a}')$$,
	$$SELECT finance.send_batch('late', '{1,2}', ordering_keys => ARRAY['a', ''])$$,
	$$SELECT finance.nack('late', 1, -1)$$,
	$$SELECT finance.nack('late', 1, 2592001)$$,
	$$SELECT finance.nack('late', 1, reason => repeat('r', 256))$$,
	$$SELECT finance.nack('late', NULL::bigint)$$,
	$$SELECT finance.nack('late', '{1,NULL}'::bigint[])$$,
	$$SELECT finance.nack('nosuch', 1)$$,
	$$SELECT finance.delete('late', 1, 0)$$,
	$$SELECT finance.redrive('nosuch')$$,
	$$SELECT finance.redrive('late', 'nosuch')$$,
	$$SELECT finance.redrive('late', "limit" => 0)$$,
	$$SELECT finance.redrive('late', "limit" => 10001)$$,
	$$SELECT finance.redrive('late', "limit" => NULL)$$,
	$$SELECT finance.pause_queue('nosuch')$$,
	$$SELECT finance.resume_queue(NULL)$$]) AS c, pg_temp.outcome(c) AS o;
SELECT pg_temp.len('late');

-- ------------------------------------------------------------------------
-- time to live: from when it can be read; one that is over is not read
-- ------------------------------------------------------------------------
SELECT finance.create_queue('short', message_ttl => 10, expired => 'discard');
SELECT finance.send('short', '"of the queue"') > 0 AS sent, finance.send('short', '"own"', ttl => 5) > 0 AS sent,
	finance.send('short', '"delayed"', ttl => 5, delay => 10) > 0 AS sent;
SELECT payload, expires_at - enqueued_at AS life FROM finance.message WHERE tenant_id = 9041 ORDER BY msg_id;
SELECT pg_temp.got('short', 0);
SET finance.test_clock = '2030-01-02 00:00:10+00';
SELECT pg_temp.got('short', 0);
SET finance.test_clock = '2030-01-02 00:00:15+00';
SELECT pg_temp.got('short', 0), (SELECT count(*) FROM finance.pop('short', 10)) AS popped;
SET finance.test_clock = '2030-01-02 00:00:19.999999+00';
SELECT pg_temp.got('short', 0);
SET finance.test_clock = '2030-01-02 00:00:20+00';
SELECT pg_temp.got('short', 0), pg_temp.len('short');
-- one that is being worked on when its life ends can be finished
SELECT finance.alter_queue('short', message_ttl => 0);
SELECT finance.send('short', '"lives on"') > 0 AS sent, finance.send('short', '"worked on"', ttl => 1) > 0 AS sent;
SELECT pg_temp.got('short', 2);
SET finance.test_clock = '2030-01-02 00:00:21.5+00';
SELECT finance.delete('short', pg_temp.id('short', 'worked on'), 1);
SELECT payload, expires_at FROM finance.message WHERE tenant_id = 9041 AND expires_at IS NULL ORDER BY msg_id;
SELECT finance.purge_queue('short');

-- ------------------------------------------------------------------------
-- ordering keys
-- ------------------------------------------------------------------------
SELECT finance.create_queue('keys');
SELECT count(*) FROM finance.send_batch('keys', pg_temp.payloads('a1', 'b1', 'a2', 'c1', 'b2', 'a3', '-'),
	ordering_keys => ARRAY['a', 'b', 'a', 'c', 'b', 'a', NULL]);
-- one of each key, and the one without
SELECT pg_temp.got('keys', 30);
SELECT pg_temp.got('keys', 30);
SELECT finance.delete('keys', pg_temp.id('keys', 'a1')), finance.archive('keys', pg_temp.id('keys', 'b1'));
SELECT pg_temp.got('keys', 30);
-- given back: it blocks its key until it is read again
SELECT finance.nack('keys', pg_temp.id('keys', 'a2'), 5), finance.nack('keys', pg_temp.id('keys', 'b2'), 0);
SELECT pg_temp.got('keys', 30);
SET finance.test_clock = '2030-01-02 00:00:26.5+00';
SELECT pg_temp.got('keys', 30);
-- its time is over: it and not its successor
SET finance.test_clock = '2030-01-02 00:00:57+00';
SELECT pg_temp.got('keys', 100);
SELECT count(*) FROM finance.delete('keys', (SELECT array_agg(msg_id) FROM finance.message WHERE tenant_id = 9041 AND payload IN ('"a2"', '"b2"', '"c1"', '"-"')));
-- pop leaves the key to the next, also within one call's transaction
BEGIN;
SELECT message FROM finance.pop('keys', 10);
SELECT count(finance.send('keys', to_jsonb('d' || n), ordering_key => 'd')) FROM generate_series(1, 3) n;
SELECT message FROM finance.pop('keys');
SELECT message FROM finance.pop('keys');
SAVEPOINT s;
SELECT message FROM finance.pop('keys');
ROLLBACK TO s;
SELECT message FROM finance.pop('keys');
ROLLBACK;
SELECT message FROM finance.pop('keys', 10);
SELECT pg_temp.len('keys');
-- keys are compared byte by byte
SELECT count(*) FROM finance.send_batch('keys', pg_temp.payloads('k', 'K', 'k '), ordering_keys => ARRAY['k', 'K', 'k ']);
SELECT count(*) FROM finance.pop('keys', 10);
-- across priorities: the key's order counts, not the priority
SELECT finance.send('keys', '"low"', ordering_key => 'p') > 0 AS sent, finance.send('keys', '"high"', priority => 10, ordering_key => 'p') > 0 AS sent,
	finance.send('keys', '"other"', priority => 5) > 0 AS sent;
SELECT pg_temp.got('keys', 30);
SELECT pg_temp.got('keys', 30);
SELECT finance.delete('keys', pg_temp.id('keys', 'low'));
SELECT pg_temp.got('keys', 30);
SELECT finance.purge_queue('keys');
-- a delayed first one blocks the key
SELECT finance.send('keys', '"1"', ordering_key => 'q', delay => 60) > 0 AS sent, finance.send('keys', '"2"', ordering_key => 'q') > 0 AS sent;
SELECT pg_temp.got('keys', 30);
SELECT msg_id = pg_temp.id('keys', '1') AS sooner FROM finance.set_vt('keys', pg_temp.id('keys', '1'), 0);
SELECT pg_temp.got('keys', 30);
-- purged: what is sent afterwards is free
SELECT finance.purge_queue('keys');
SELECT finance.send('keys', '"3"', ordering_key => 'q') > 0 AS sent;
SELECT pg_temp.got('keys', 30);
SELECT finance.purge_queue('keys');
-- one whose life is over does not block
SELECT finance.send('keys', '"over"', ordering_key => 'r', ttl => 1) > 0 AS sent, finance.send('keys', '"next"', ordering_key => 'r') > 0 AS sent;
SET finance.test_clock = '2030-01-02 00:00:58+00';
SELECT pg_temp.got('keys', 30);
SELECT finance.purge_queue('keys');
-- but one that is still being worked on does
SELECT finance.send('keys', '"worked on"', ordering_key => 'r', ttl => 1) > 0 AS sent, finance.send('keys', '"next"', ordering_key => 'r') > 0 AS sent;
SELECT pg_temp.got('keys', 30);
SET finance.test_clock = '2030-01-02 00:01:00+00';
SELECT pg_temp.got('keys', 30);
SELECT finance.delete('keys', pg_temp.id('keys', 'worked on'));
SELECT pg_temp.got('keys', 30);
SELECT finance.purge_queue('keys');
-- a rolled back delete releases nothing
SELECT count(*) FROM finance.send_batch('keys', pg_temp.payloads('1', '2'), ordering_keys => '{t,t}');
SELECT pg_temp.got('keys', 30);
BEGIN;
SELECT finance.delete('keys', pg_temp.id('keys', '1'));
SELECT pg_temp.got('keys', 30);
ROLLBACK;
SELECT pg_temp.got('keys', 30);
SELECT (SELECT count(*) FROM finance.set_vt('keys', pg_temp.id('keys', '1'), 0)) AS made_visible;
SELECT pg_temp.got('keys', 30);
SELECT finance.purge_queue('keys');

-- ------------------------------------------------------------------------
-- nack: delay, back-off
-- ------------------------------------------------------------------------
SELECT finance.create_queue('nacks', backoff_ms => 1000, backoff_max_ms => 5000);
SELECT finance.send('nacks', '1') > 0 AS sent;
-- half of it to all of it: 1, 2, 4, 5, 5 seconds
DO $$
DECLARE
	clock timestamptz := '2030-01-03 00:00:00+00';
	longest interval;
	m record;
BEGIN
	FOR i IN 1..5 LOOP
		PERFORM set_config('finance.test_clock', clock::text, false);
		SELECT * INTO STRICT m FROM finance.read('nacks', 30);
		longest := least(2 ^ (i - 1), 5) * interval '1 second';
		ASSERT m.read_ct = i, 'read_ct';
		ASSERT finance.nack('nacks', m.msg_id, read_ct => i);
		SELECT * INTO m FROM finance.message WHERE msg_id = m.msg_id;
		ASSERT m.visible_at - clock BETWEEN longest / 2 AND longest, format('%s after %s reads', m.visible_at - clock, i);
		ASSERT m.due_at = m.visible_at, 'due_at';
		PERFORM set_config('finance.test_clock', (m.visible_at - interval '1 microsecond')::text, false);
		ASSERT (SELECT count(*) FROM finance.read('nacks', 0)) = 0, 'too early';
		clock := m.visible_at;
	END LOOP;
END $$;
SET finance.test_clock = '2030-01-03 01:00:00+00';
SELECT pg_temp.got('nacks');
SELECT finance.nack('nacks', pg_temp.id('nacks', '1'), 0), pg_temp.got('nacks');
SELECT finance.nack('nacks', pg_temp.id('nacks', '1'), 7) AS nacked;
SELECT visible_at, read_ct FROM finance.message WHERE tenant_id = 9041;
-- without a back-off: at once
SELECT finance.alter_queue('nacks', backoff_ms => 0);
SELECT (SELECT count(*) FROM finance.set_vt('nacks', pg_temp.id('nacks', '1'), 0)) AS made_visible, pg_temp.got('nacks');
SELECT finance.nack('nacks', pg_temp.id('nacks', '1')) AS nacked, pg_temp.got('nacks');
-- nack of none, of many, rolled back
SELECT finance.nack('nacks', 1), finance.nack('nacks', 1, 5, 1, 'why');
SELECT count(*) FROM finance.send_batch('nacks', '{2,3}');
SELECT pg_temp.got('nacks');
BEGIN;
SELECT count(*) FROM finance.nack('nacks', (SELECT array_agg(msg_id) || 1::bigint FROM finance.message WHERE tenant_id = 9041), 0);
SELECT pg_temp.got('nacks', 0);
ROLLBACK;
SELECT pg_temp.got('nacks', 0);
SELECT count(*) FROM finance.nack('nacks', (SELECT array_agg(msg_id) || 1::bigint FROM finance.message WHERE tenant_id = 9041), 0, 'all');
SELECT pg_temp.got('nacks', 0);
SELECT finance.purge_queue('nacks');

-- ------------------------------------------------------------------------
-- read_ct tells a holder from a later one
-- ------------------------------------------------------------------------
SELECT finance.send('nacks', '"held"') > 0 AS sent;
SELECT pg_temp.got('nacks', 10);
SET finance.test_clock = '2030-01-03 01:00:10+00';
SELECT pg_temp.got('nacks', 10);
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.delete('nacks', pg_temp.id('nacks', 'held'), 1)$$,
	$$SELECT finance.archive('nacks', pg_temp.id('nacks', 'held'), 1)$$,
	$$SELECT finance.nack('nacks', pg_temp.id('nacks', 'held'), 0, 1)$$,
	$$SELECT finance.set_vt('nacks', pg_temp.id('nacks', 'held'), 0, 1)$$,
	$$SELECT finance.delete('nacks', pg_temp.id('nacks', 'held'), 3)$$]) AS c, pg_temp.outcome(c) AS o;
SELECT read_ct, visible_at FROM finance.message WHERE tenant_id = 9041;
SELECT vt, read_ct FROM finance.set_vt('nacks', pg_temp.id('nacks', 'held'), 20, 2);
SET finance.test_clock = '2030-01-03 01:00:25+00';
SELECT pg_temp.got('nacks', 10);
SELECT finance.delete('nacks', pg_temp.id('nacks', 'held'), 2), pg_temp.len('nacks');
-- gone is not held by another
SELECT finance.delete('nacks', 1, 1), finance.archive('nacks', 1, 1), finance.nack('nacks', 1, read_ct => 1);

-- ------------------------------------------------------------------------
-- max_deliveries: to the dead-letter queue, the tenant's, or the archive
-- ------------------------------------------------------------------------
SELECT finance.create_queue('dead'), finance.create_queue('dead2');
SELECT finance.create_queue('work', max_deliveries => 2, dead_letter_queue => 'dead');
SELECT finance.send('work', '"poison"', headers => '{"trace": 7}', priority => 3, ordering_key => 'k') > 0 AS sent;
SELECT finance.send('work', '"next"', ordering_key => 'k') > 0 AS sent;
CREATE TEMP TABLE poison AS SELECT msg_id, message_id FROM finance.message WHERE tenant_id = 9041 AND payload = '"poison"';
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
-- read a third time: a dead letter instead, and its key goes on
SELECT pg_temp.got('work', 0);
SELECT message, read_ct, headers - 'x-death' AS headers, headers -> 'x-death' ->> 'reason' AS reason, headers -> 'x-death' ->> 'queue' AS queue,
	(headers -> 'x-death' ->> 'msg_id')::bigint = p.msg_id AS original, headers -> 'x-death' ->> 'read_ct' AS reads,
	(headers -> 'x-death' ->> 'at')::timestamptz AS at, m.message_id = p.message_id AS same_message, priority, ordering_key
FROM finance.read('dead', 0, 10) m, poison p;
-- the last delivery was nacked: with the reason given
SELECT pg_temp.got('work', 0), pg_temp.got('work', 30);
SELECT finance.nack('work', pg_temp.id('work', 'next'), reason => 'of no "use"'), pg_temp.len('work');
SELECT payload, headers -> 'x-death' ->> 'reason' AS reason FROM finance.message WHERE tenant_id = 9041 ORDER BY msg_id;
SELECT finance.send('work', '"third"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 30);
SELECT count(*) FROM finance.nack('work', ARRAY[pg_temp.id('work', 'third')]);
SELECT payload, headers -> 'x-death' ->> 'reason' AS reason FROM finance.message WHERE tenant_id = 9041 AND payload = '"third"';
-- pop counts deliveries too
SELECT finance.send('work', '"popped"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
SELECT count(*) FROM finance.pop('work');
SELECT payload FROM finance.message WHERE tenant_id = 9041 ORDER BY msg_id;
-- a burial that is rolled back did not happen
SELECT finance.send('work', '"undone"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
BEGIN;
SELECT pg_temp.got('work', 0), pg_temp.len('work'), pg_temp.len('dead');
ROLLBACK;
SELECT pg_temp.len('work'), pg_temp.len('dead');
BEGIN;
SAVEPOINT s;
SELECT pg_temp.got('work', 0), pg_temp.len('work'), pg_temp.len('dead');
ROLLBACK TO s;
SELECT pg_temp.got('work', 0), pg_temp.len('work'), pg_temp.len('dead');
COMMIT;
SELECT pg_temp.len('work'), pg_temp.len('dead');
-- the limit is raised, or taken away: read again
SELECT finance.send('work', '"again"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
SELECT finance.alter_queue('work', max_deliveries => 0);
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
SELECT finance.alter_queue('work', max_deliveries => 1);
SELECT pg_temp.got('work', 0), pg_temp.len('work');

-- redrive: back where it comes from, with its life before it
SELECT finance.send('dead', '"of nowhere"') > 0 AS sent;
SELECT pg_temp.len('dead'), finance.redrive('dead', "limit" => 2) AS two, pg_temp.len('dead');
SELECT payload, headers, read_ct, priority, ordering_key, message_id = (SELECT message_id FROM poison) AS poison FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id)
WHERE q.tenant_id = 9041 AND q.name = 'work' ORDER BY m.msg_id;
SELECT finance.redrive('dead') AS the_others, finance.redrive('dead') AS none;
SELECT payload FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id) WHERE q.tenant_id = 9041 AND q.name = 'dead';
SELECT finance.redrive('dead', 'dead2') AS elsewhere, pg_temp.len('dead'), pg_temp.got('dead2', 0);
SELECT * FROM pg_temp.outcome($$SELECT finance.redrive('dead2', 'dead2')$$);
-- what is being worked on is not redriven
SELECT pg_temp.got('dead2', 30), finance.redrive('dead2', 'dead');
-- a queue that is gone: an error, and nothing moved
SELECT finance.purge_queue('work'), finance.purge_queue('dead'), finance.purge_queue('dead2');
SELECT finance.send('dead', '1', '{"x-death": {"queue": "gone"}}') > 0 AS sent, finance.send('dead', '2', '{"x-death": {"queue": 5}}') > 0 AS sent,
	finance.send('dead', '3', '{"x-death": "work"}') > 0 AS sent;
SELECT * FROM pg_temp.outcome($$SELECT finance.redrive('dead')$$);
SELECT pg_temp.len('dead'), finance.redrive('dead', 'work'), pg_temp.got('work', 0);
SELECT finance.purge_queue('work');
-- redrive to a full queue: an error, and nothing moved
SELECT finance.alter_queue('dead2', max_length => 1);
SELECT finance.send('dead', '1') > 0 AS sent, finance.send('dead', '2') > 0 AS sent;
SELECT * FROM pg_temp.outcome($$SELECT finance.redrive('dead', 'dead2')$$);
SELECT pg_temp.len('dead'), pg_temp.len('dead2'), finance.redrive('dead', 'dead2', 1) AS one;
-- a full dead-letter queue holds up nobody: the letter goes to the archive
SELECT finance.alter_queue('work', max_deliveries => 1, dead_letter_queue => 'dead2');
SELECT count(*) FROM finance.send_batch('work', pg_temp.payloads('x', 'y'));
SELECT pg_temp.got('work', 0);
SELECT pg_temp.got('work', 0), pg_temp.len('work'), pg_temp.len('dead2');
SELECT payload, read_ct, headers -> 'x-death' ->> 'reason' AS reason FROM finance.message_archive WHERE tenant_id = 9041 AND payload IN ('"x"', '"y"') ORDER BY msg_id;
SELECT finance.purge_queue('dead'), finance.purge_queue('dead2');
-- no dead-letter queue: the archive
SELECT finance.alter_queue('work', dead_letter_queue => '');
SELECT finance.send('work', '"archived"', '{"a": 1}') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
SELECT payload, read_ct, headers - 'x-death' AS headers, headers -> 'x-death' ->> 'reason' AS reason FROM finance.message_archive WHERE tenant_id = 9041 AND payload = '"archived"';
-- a dead-letter queue that is dropped: as if there were none
SELECT finance.alter_queue('work', dead_letter_queue => 'dead2');
SELECT finance.drop_queue('dead2');
SELECT finance.send('work', '"archived too"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0);
SELECT count(*) FROM finance.message_archive WHERE tenant_id = 9041 AND payload = '"archived too"';
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.alter_queue('work', dead_letter_queue => 'work')$$,
	$$SELECT finance.alter_queue('work', dead_letter_queue => 'nosuch')$$,
	$$SELECT finance.create_queue('other', dead_letter_queue => 'other')$$,
	$$SELECT finance.create_queue('other', dead_letter_queue => 'nosuch')$$,
	$$SELECT finance.create_queue('other', max_deliveries => -1)$$,
	$$SELECT finance.create_queue('other', max_deliveries => 1000001)$$,
	$$SELECT finance.create_queue('other', message_ttl => -1)$$,
	$$SELECT finance.create_queue('other', message_ttl => 31536001)$$,
	$$SELECT finance.create_queue('other', expired => 'vanish')$$,
	$$SELECT finance.create_queue('other', backoff_ms => -1)$$,
	$$SELECT finance.create_queue('other', backoff_max_ms => 86400001)$$,
	$$SELECT finance.create_queue('other', max_length => -1)$$,
	$$SELECT finance.create_queue('other', rate_limit => -1)$$,
	$$SELECT finance.create_queue('other', max_in_flight => -1)$$,
	$$SELECT finance.create_queue('other', dedup_window => 0)$$,
	$$SELECT finance.create_queue('other', dedup_window => 21601)$$,
	$$SELECT finance.alter_queue('nosuch', max_deliveries => 1)$$,
	$$SELECT finance.alter_queue(NULL, max_deliveries => 1)$$]) AS c, pg_temp.outcome(c) AS o;
SELECT count(*) FROM finance.list_queues() WHERE queue_name = 'other';
-- the tenant's default, for queues that have none; not for itself
SET finance.tenant = 9043;
SELECT finance.create_queue('letters', max_deliveries => 1), finance.create_queue('work', max_deliveries => 1);
SELECT finance.set_default_queues(dead_letter => 'letters');
SELECT finance.send('work', '"w"') > 0 AS sent;
SELECT pg_temp.got('work', 0), pg_temp.got('work', 0), pg_temp.len('work');
SELECT message, headers -> 'x-death' ->> 'queue' AS queue FROM finance.read('letters', 0);
SELECT pg_temp.got('letters', 0), pg_temp.len('letters');
SELECT payload, headers -> 'x-death' ->> 'queue' AS queue FROM finance.message_archive WHERE tenant_id = 9043;
SELECT finance.drop_queue('letters'), finance.drop_queue('work');
SET finance.tenant = 9041;

-- ------------------------------------------------------------------------
-- settings: null leaves, 0 and '' take away
-- ------------------------------------------------------------------------
SELECT finance.create_queue('set', max_deliveries => 3, dead_letter_queue => 'dead', message_ttl => 60, expired => 'discard', backoff_ms => 10,
	backoff_max_ms => 20, max_length => 4, rate_limit => 5, max_in_flight => 6, dedup_window => 7);
CREATE VIEW pg_temp.settings AS SELECT max_deliveries, dead_letter_queue_id IS NOT NULL AS dlq, message_ttl_s AS ttl, expired, backoff_ms AS b, backoff_max_ms AS bmax,
	max_length, rate_limit, max_in_flight, dedup_window_s AS dedup FROM finance.queue WHERE tenant_id = 9041 AND name = 'set';
TABLE pg_temp.settings;
SELECT finance.alter_queue('set');
TABLE pg_temp.settings;
SELECT finance.alter_queue('set', rate_limit => 50, backoff_ms => 30);
TABLE pg_temp.settings;
SELECT finance.alter_queue('set', 0, '', 0, 'dead_letter', 0, 0, 0, 0, 0);
TABLE pg_temp.settings;
SELECT finance.drop_queue('set');

-- ------------------------------------------------------------------------
-- pause and resume
-- ------------------------------------------------------------------------
SELECT finance.create_queue('rest');
SELECT finance.pause_queue('rest'), finance.pause_queue('rest') AS again;
SELECT finance.send('rest', '1') > 0 AS sent;
SELECT pg_temp.got('rest', 0), (SELECT count(*) FROM finance.pop('rest')) AS popped, pg_temp.len('rest');
SELECT paused FROM finance.list_queues() WHERE queue_name = 'rest';
SELECT finance.resume_queue('rest'), finance.resume_queue('rest') AS again;
SELECT pg_temp.got('rest', 30);
-- who holds a message finishes it
SELECT finance.pause_queue('rest'), finance.delete('rest', pg_temp.id('rest', '1'), 1), finance.resume_queue('rest');
BEGIN;
SELECT finance.pause_queue('rest'), finance.send('rest', '2') > 0 AS sent, pg_temp.got('rest', 0);
ROLLBACK;
SELECT finance.send('rest', '3') > 0 AS sent, pg_temp.got('rest', 0);

-- ------------------------------------------------------------------------
-- max_length
-- ------------------------------------------------------------------------
SELECT finance.create_queue('small', max_length => 5);
SELECT count(*) FROM finance.send_batch('small', '{1,2,3}');
SELECT * FROM pg_temp.outcome($$SELECT finance.send_batch('small', '{4,5,6}')$$);
-- in one transaction; a savepoint gives the room back
BEGIN;
SELECT finance.send('small', '4') > 0 AS sent;
SAVEPOINT s;
SELECT finance.send('small', '5') > 0 AS sent;
ROLLBACK TO s;
SELECT finance.send('small', '"five"') > 0 AS sent;
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '6')$$);
COMMIT;
SELECT pg_temp.len('small');
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '6')$$);
BEGIN;
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '7')$$);
ROLLBACK;
-- a transaction that is undone gives the room back, a delete when it commits
SELECT finance.delete('small', pg_temp.id('small', '1'));
BEGIN;
SELECT finance.send('small', '8') > 0 AS sent;
ROLLBACK;
SELECT finance.send('small', '9') > 0 AS sent, pg_temp.len('small');
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '10')$$);
-- what is being worked on counts; what is published, too
SELECT pg_temp.got('small', 100, 1);
SELECT finance.bind_topic('small', 'small');
SELECT * FROM pg_temp.outcome($$SELECT finance.publish('small', '10')$$);
SELECT finance.purge_queue('small');
SELECT finance.publish('small', '11');
SELECT finance.alter_queue('small', max_length => 1);
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '12')$$);
SELECT finance.alter_queue('small', max_length => 0);
SELECT finance.send('small', '13') > 0 AS sent;
-- a limit that is set on a queue that has messages counts them
SELECT finance.alter_queue('small', max_length => 2);
SELECT * FROM pg_temp.outcome($$SELECT finance.send('small', '14')$$);
SELECT pg_temp.len('small');

-- ------------------------------------------------------------------------
-- max_in_flight
-- ------------------------------------------------------------------------
SELECT finance.create_queue('few', max_in_flight => 3);
SELECT count(*) FROM finance.send_batch('few', '{1,2,3,4,5,6,7,8}');
SELECT pg_temp.got('few', 1000, 2), pg_temp.got('few', 1000), pg_temp.got('few', 1000);
SELECT finance.delete('few', pg_temp.id('few', '1')), finance.nack('few', pg_temp.id('few', '2'), 0), (SELECT count(*) FROM finance.set_vt('few', pg_temp.id('few', '3'), 0)) AS made_visible;
SELECT pg_temp.got('few', 1000, 10), pg_temp.got('few', 1000);
-- rolled back: free again
SELECT finance.nack('few', pg_temp.id('few', '4'), 0);
BEGIN;
SELECT pg_temp.got('few', 1000, 1), pg_temp.got('few', 1000, 1);
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT pg_temp.got('few', 1000, 1);
ROLLBACK TO s;
SELECT pg_temp.got('few', 1000, 1);
COMMIT;
-- a delete that is undone frees nothing
BEGIN;
SELECT finance.delete('few', pg_temp.id('few', '4'));
ROLLBACK;
SELECT pg_temp.got('few', 1000);
SELECT finance.delete('few', pg_temp.id('few', '4'));
SELECT pg_temp.got('few', 1000);
SELECT queue_length, queue_visible_length FROM finance.metrics('few');
SELECT finance.purge_queue('few');
-- a read that finds less than it may holds no place for the rest
BEGIN;
SELECT pg_temp.got('few', 1000), finance.send('few', '"sent"') > 0 AS sent;
SELECT pg_temp.got('few', 1000);
COMMIT;
SELECT finance.alter_queue('few', max_in_flight => 0);
SELECT count(*) FROM finance.send_batch('few', '{1,2,3,4,5,6,7,8}');
SELECT pg_temp.got('few', 1000);

-- ------------------------------------------------------------------------
-- rate_limit: what one second gives, then nothing at once
-- ------------------------------------------------------------------------
SELECT finance.create_queue('slow', rate_limit => 5);
SELECT count(*) FROM finance.send_batch('slow', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 20) n));
SELECT pg_temp.got('slow', 1000, 3), pg_temp.got('slow', 1000, 10), pg_temp.got('slow', 1000);
SET finance.test_clock = '2030-01-03 01:00:25.5+00';
SELECT pg_temp.got('slow', 1000), pg_temp.got('slow', 1000);
-- a clock a little behind fills nothing
SET finance.test_clock = '2030-01-03 01:00:25.499+00';
SELECT pg_temp.got('slow', 1000);
-- what was not used is not saved up
SET finance.test_clock = '2030-01-03 01:05:00+00';
SELECT pg_temp.got('slow', 1000, 20), pg_temp.got('slow', 1000);
SELECT finance.purge_queue('slow');
-- nor used up by a look at an empty queue
SET finance.test_clock = '2030-01-03 01:06:00+00';
SELECT pg_temp.got('slow', 1000), pg_temp.got('slow', 1000);
SELECT count(*) FROM finance.send_batch('slow', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 20) n));
SELECT pg_temp.got('slow', 1000), (SELECT count(*) FROM finance.pop('slow', 10)) AS popped;
SELECT finance.alter_queue('slow', rate_limit => 0);
SELECT pg_temp.got('slow', 1000, 100);

-- ------------------------------------------------------------------------
-- unlogged
-- ------------------------------------------------------------------------
SELECT finance.create_queue('light', unlogged => true);
SELECT DISTINCT relpersistence FROM pg_class c, finance.queue q WHERE q.tenant_id = 9041 AND q.name = 'light' AND c.relname LIKE 'message\_' || q.queue_id || '\_%';
SELECT queue_name FROM finance.list_queues() WHERE unlogged;
SELECT finance.send('light', '1', priority => 1) > 0 AS sent, finance.send('light', '2', delay => 1) > 0 AS sent;
SELECT message, read_ct FROM finance.read('light', 30);
SELECT finance.delete('light', pg_temp.id('light', '1'), 1), pg_temp.len('light');

-- ------------------------------------------------------------------------
-- exactly once in effect: reading, working and deleting in one transaction
-- ------------------------------------------------------------------------
CREATE TEMP TABLE business (message_id bigint PRIMARY KEY, done text);
SELECT finance.create_queue('once');
SELECT count(*) FROM finance.send_batch('once', pg_temp.payloads('a', 'b', 'c'));
BEGIN;
INSERT INTO business SELECT message_id, message #>> '{}' FROM finance.read('once', 30, 2);
SELECT count(*) FROM finance.delete('once', (SELECT array_agg(m.msg_id) FROM finance.message m JOIN business USING (message_id)));
SELECT pg_temp.len('once'), (SELECT count(*) FROM business);
ROLLBACK;
SELECT pg_temp.len('once'), (SELECT count(*) FROM business);
BEGIN;
WITH m AS (SELECT * FROM finance.read('once', 30, 2)), work AS (INSERT INTO business SELECT message_id, message #>> '{}' FROM m)
SELECT message, read_ct, finance.delete('once', msg_id, read_ct) FROM m;
COMMIT;
-- part of it undone
BEGIN;
SAVEPOINT s;
INSERT INTO business SELECT message_id, 'undone' FROM finance.pop('once');
ROLLBACK TO s;
INSERT INTO business SELECT message_id, message #>> '{}' FROM finance.pop('once');
COMMIT;
SELECT done FROM business ORDER BY 1;
SELECT pg_temp.len('once'), pg_temp.got('once');
-- in one function, whatever fails
CREATE FUNCTION pg_temp.consume(fails boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE m record;
BEGIN
	SELECT * INTO m FROM finance.read('once', 30);
	INSERT INTO business VALUES (m.message_id, m.message #>> '{}');
	PERFORM finance.delete('once', m.msg_id, m.read_ct);
	IF fails THEN RAISE 'it fails'; END IF;
	RETURN m.message #>> '{}' || ', read ' || m.read_ct;
END $$;
SELECT finance.send('once', '"d"') > 0 AS sent;
SELECT message FROM pg_temp.outcome('SELECT pg_temp.consume(true)');
SELECT message FROM pg_temp.outcome('SELECT pg_temp.consume(true)');
SELECT pg_temp.consume(false);
SELECT count(*), pg_temp.len('once') FROM business;

-- ------------------------------------------------------------------------
-- nothing is left behind
-- ------------------------------------------------------------------------
SELECT q.queue_name, m.queue_length = (SELECT count(*) FROM finance.message c WHERE c.queue_id = q.queue_id) AS counted
FROM finance.list_queues() q, finance.metrics(q.queue_name) m ORDER BY 1;
SELECT * FROM finance.check_integrity();
SELECT finance.purge_archive('work') > 0 AS purged, finance.purge_archive('keys') > 0 AS purged;
SELECT count(finance.drop_queue(queue_name)) > 0 AS dropped FROM finance.list_queues();
SELECT count(*) FROM finance.message WHERE tenant_id IN (9041, 9043);
