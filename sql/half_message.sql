--
-- Half messages: prepare, commit, roll back, check back, park
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
DROP ROLE IF EXISTS regress_fin_half, regress_fin_half_app;
-- a clock of its own: what is due here is not yet for the worker
SET finance.test_clock = '2030-01-01 00:00:00+00';
SET timezone = 'UTC';
SET finance.actor = 'producer';
\set SHOW_CONTEXT never

INSERT INTO finance.tenant (tenant_id, name) VALUES (9051, 'half test'), (9052, 'half test, other')
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
	message := left(regexp_replace(message, '\d{10,}', '<id>', 'g'), 80);
	detail := regexp_replace(detail, '\d{10,}', '<id>', 'g');
END $$;
-- everything this test may have made, to see that a refusal made nothing
CREATE FUNCTION pg_temp.book() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ',
		(SELECT count(*) FROM finance.half_message WHERE tenant_id = 9051),
		(SELECT count(*) FROM finance.half_answer WHERE tenant_id = 9051),
		(SELECT count(*) FROM finance.half_check WHERE tenant_id = 9051),
		(SELECT count(*) FROM finance.producer_group WHERE tenant_id = 9051),
		(SELECT count(*) FROM finance.message WHERE tenant_id = 9051))
$$;
CREATE FUNCTION pg_temp.status(half_id bigint) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', s.status, s.checks, s.parked_reason, to_char(s.next_check_at, 'HH24:MI:SS'))
	FROM finance.half_message_status(half_id) s
$$;

SELECT finance.create_queue('orders'), finance.create_queue('audit'), finance.create_queue('asked');
SELECT finance.bind_topic('order.*', 'orders'), finance.bind_topic('#.paid', 'audit'),
	finance.bind_topic('check.shop', 'asked');

-- ------------------------------------------------------------------------
-- producer groups
-- ------------------------------------------------------------------------
SELECT finance.create_producer_group('shop', 'check.shop');
SELECT finance.create_producer_group(name => 'quick', check_topic => 'check.shop', check_after => '1 second',
	check_interval => '10 seconds', check_interval_max => '25 seconds', max_checks => 3);
SELECT finance.create_producer_group('slow', 'check.shop', check_interval => '2 hours');
SELECT finance.create_producer_group('lonely', 'nobody.listens', '1 second', '1 second', max_checks => 2);
SELECT name, check_topic, check_after, check_interval, check_interval_max, max_checks
FROM finance.producer_group WHERE tenant_id = 9051 ORDER BY name;
SELECT pg_temp.book() AS before \gset
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.create_producer_group('shop', 'check.shop')$$,
	$$SELECT finance.create_producer_group('', 'a')$$,
	$$SELECT finance.create_producer_group(repeat('g', 64), 'a')$$,
	$$SELECT finance.create_producer_group('a b', 'a')$$,
	$$SELECT finance.create_producer_group(NULL, 'a')$$,
	$$SELECT finance.create_producer_group('g', NULL)$$,
	$$SELECT finance.create_producer_group('g', 'a..b')$$,
	$$SELECT finance.create_producer_group('g', 'a', '0')$$,
	$$SELECT finance.create_producer_group('g', 'a', '-1 second')$$,
	$$SELECT finance.create_producer_group('g', 'a', NULL)$$,
	$$SELECT finance.create_producer_group('g', 'a', '30 days 1 second')$$,
	$$SELECT finance.create_producer_group('g', 'a', '178000000 years')$$,
	$$SELECT finance.create_producer_group('g', 'a', check_interval => '0')$$,
	$$SELECT finance.create_producer_group('g', 'a', check_interval_max => '1 second')$$,
	$$SELECT finance.create_producer_group('g', 'a', check_interval_max => '0')$$,
	$$SELECT finance.create_producer_group('g', 'a', max_checks => 0)$$,
	$$SELECT finance.create_producer_group('g', 'a', max_checks => 1001)$$,
	$$SELECT finance.create_producer_group('g', 'a', max_checks => NULL)$$,
	$$SELECT finance.alter_producer_group('nosuch', max_checks => 1)$$,
	$$SELECT finance.alter_producer_group(NULL)$$,
	$$SELECT finance.alter_producer_group('shop', check_topic => '')$$,
	$$SELECT finance.alter_producer_group('shop', check_interval => '3 hours')$$,
	$$SELECT finance.drop_producer_group(NULL)$$]) AS c, pg_temp.outcome(c) AS o;
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT finance.alter_producer_group('slow', check_topic => 'check.slow', max_checks => 1);
SELECT finance.alter_producer_group('slow');
SELECT name, check_topic, check_after, check_interval, check_interval_max, max_checks
FROM finance.producer_group WHERE tenant_id = 9051 AND name = 'slow';
SELECT finance.drop_producer_group('slow'), finance.drop_producer_group('slow') AS again;

-- ------------------------------------------------------------------------
-- prepared: nobody reads it before it is committed
-- ------------------------------------------------------------------------
SELECT finance.prepare_message('shop', 'order.paid', '{"n": 1}', '{"h": 1}', priority => 7) AS one \gset
SELECT half_id = :one AS same, status, producer_group, topic, prepared_at, prepared_by, checks, next_check_at,
	parked_at, parked_reason, answered_at, answered_by, message_id, copies
FROM finance.half_message_status(:one);
SELECT count(*) FROM finance.read('orders', 0, 10);

SET finance.test_clock = '2030-01-01 00:00:20+00';
SELECT finance.commit_message(:one) AS message \gset
SELECT finance.commit_message(half_id => :one) = :message AS same;
SELECT status, checks, next_check_at, answered_at, answered_by, message_id = :message AS same, copies
FROM finance.half_message_status(:one);
SELECT message, headers, topic, priority, message_id = :message AS same, enqueued_at FROM finance.read('orders', 0, 10);
SELECT message, message_id = :message AS same FROM finance.pop('audit');
SELECT message FROM finance.pop('orders');

SELECT finance.prepare_message('shop', 'order.paid', '{"n": 2}') AS two \gset
SELECT finance.rollback_message(:two), finance.rollback_message(half_id => :two) AS again;
SELECT status, checks, answered_by, message_id, copies FROM finance.half_message_status(:two);
SELECT count(*) FROM finance.read('orders', 0, 10);
-- the answer that was given stays
SELECT pg_temp.book() AS before \gset
SELECT o.* FROM unnest(ARRAY[
	'SELECT finance.rollback_message(' || :one || ')',
	'SELECT finance.commit_message(' || :two || ')',
	'SELECT finance.commit_message(77)',
	'SELECT finance.rollback_message(77)',
	'SELECT finance.commit_message(NULL::bigint)',
	'SELECT finance.rollback_message(NULL::bigint)',
	'SELECT finance.half_message_status(NULL)',
	'SELECT finance.recheck_half_message(77)',
	'SELECT finance.recheck_half_message(NULL)',
	'SELECT finance.check_half_messages(0)',
	'SELECT finance.check_half_messages(10001)',
	'SELECT finance.check_half_messages(NULL)']) AS c, pg_temp.outcome(c) AS o;
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT count(*) FROM finance.half_message_status(77);

-- delay counts from the commit; with nobody bound it goes nowhere, and says so
SELECT finance.prepare_message('shop', 'order.new', '3', delay => 60) AS three \gset
SET finance.test_clock = '2030-01-01 00:01:00+00';
SELECT finance.commit_message(:three) > 0 AS committed;
SELECT count(*) FROM finance.read('orders', 0, 10);
SET finance.test_clock = '2030-01-01 00:02:00+00';
SELECT message, vt FROM finance.pop('orders');
SELECT finance.prepare_message('shop', 'nowhere', '4') AS four \gset
SELECT finance.commit_message(:four) > 0 AS committed;
SELECT status, copies FROM finance.half_message_status(:four);

-- with the caller's own work, or not at all
SELECT finance.prepare_message('shop', 'order.new', '5') AS five \gset
BEGIN;
SELECT finance.commit_message(:five) > 0 AS committed;
ROLLBACK;
SELECT pg_temp.status(:five);
BEGIN;
SAVEPOINT a;
SELECT finance.commit_message(:five) > 0 AS committed;
SELECT pg_temp.status(:five);
ROLLBACK TO a;
SELECT pg_temp.status(:five);
SELECT finance.rollback_message(:five);
COMMIT;
SELECT pg_temp.status(:five);
BEGIN;
SELECT finance.prepare_message('shop', 'order.new', '6') AS six \gset
SELECT finance.commit_message(:six) > 0 AS committed;
COMMIT;
SELECT pg_temp.status(:six);
SELECT message FROM finance.pop('orders', 10);
BEGIN;
SELECT finance.prepare_message('shop', 'order.new', '7') AS seven \gset
ROLLBACK;
SELECT count(*) FROM finance.half_message_status(:seven);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT finance.prepare_message('shop', 'order.new', '8') AS eight \gset
SELECT finance.commit_message(:eight) = finance.commit_message(:eight) AS same;
COMMIT;
SELECT message FROM finance.pop('orders', 10);

-- ------------------------------------------------------------------------
-- bad input
-- ------------------------------------------------------------------------
SELECT pg_temp.book() AS before \gset
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.prepare_message('nosuch', 'a', '1')$$,
	$$SELECT finance.prepare_message(NULL, 'a', '1')$$,
	$$SELECT finance.prepare_message('shop', NULL, '1')$$,
	$$SELECT finance.prepare_message('shop', 'a', NULL)$$,
	$$SELECT finance.prepare_message('shop', '', '1')$$,
	$$SELECT finance.prepare_message('shop', 'a.*', '1')$$,
	$$SELECT finance.prepare_message('shop', 'a', to_jsonb(repeat('x', 300000)))$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', '[]')$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', jsonb_build_object('h', repeat('x', 300000)))$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', priority => 11)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', priority => NULL)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', delay => -1)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', delay => 2592001)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', ttl => 0)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', ttl => 2592001)$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', ordering_key => '')$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', dedup_id => repeat('x', 256))$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', check_after => '0')$$,
	$$SELECT finance.prepare_message('shop', 'a', '1', check_after => '31 days')$$,
	$$SELECT finance.prepare_messages('shop', 'a', NULL)$$,
	$$SELECT finance.prepare_messages('shop', 'a', ARRAY['1', NULL]::jsonb[])$$,
	$$SELECT finance.prepare_messages('shop', 'a', array_fill('1'::jsonb, '{10001}'))$$,
	$$SELECT finance.prepare_messages('shop', 'a', '{1,2}', headers => '{NULL}')$$,
	$$SELECT finance.prepare_messages('shop', 'a', '{1,2}', headers => '{NULL,1}')$$,
	$$SELECT finance.prepare_messages('shop', 'a', '{1,2}', ordering_keys => '{a}')$$,
	$$SELECT finance.prepare_messages('shop', 'a', '{1,2}', dedup_ids => '{a,b,c}')$$,
	$$SELECT finance.prepare_messages('nosuch', 'a', '{}')$$,
	$$SELECT finance.commit_message(NULL::bigint[])$$,
	$$SELECT finance.commit_message('{1,NULL}'::bigint[])$$,
	$$SELECT finance.commit_message(array_fill(1::bigint, '{10001}'))$$,
	$$SELECT finance.rollback_message(NULL::bigint[])$$,
	$$SELECT finance.rollback_message('{NULL}'::bigint[])$$,
	$$SELECT finance.rollback_message(array_fill(1::bigint, '{10001}'))$$]) AS c, pg_temp.outcome(c) AS o;
SELECT pg_temp.book() = :'before' AS unchanged;

-- ------------------------------------------------------------------------
-- in batch: all or none, in any order
-- ------------------------------------------------------------------------
CREATE TEMP TABLE half (n serial, half_id bigint);
INSERT INTO half (half_id)
SELECT h FROM finance.prepare_messages('shop', 'order.new', '{11,12,13,14}',
	headers => ARRAY['{"a": 1}', NULL, NULL, NULL]::jsonb[], priority => 3, ttl => 3600,
	ordering_keys => '{x,NULL,y,z}', dedup_ids => '{NULL,b,c,d}') h;
SELECT h.n, m.payload, m.headers, m.priority, m.delay_s, m.ttl_s, m.ordering_key, m.dedup_id, pg_temp.status(h.half_id)
FROM half h JOIN finance.half_message m USING (half_id) ORDER BY h.n;
SELECT count(*) FROM finance.prepare_messages('shop', 'order.new', '{}');
SELECT o.* FROM pg_temp.outcome(format('SELECT finance.commit_message(%L::bigint[])',
	ARRAY[(SELECT max(half_id) FROM half), 77])) o;
SELECT n, pg_temp.status(half_id) FROM half ORDER BY n;
SELECT count(DISTINCT id) AS messages, count(*) AS answers
FROM finance.commit_message((SELECT array_agg(half_id ORDER BY n DESC) || max(half_id) FROM half WHERE n < 4)) id;
SELECT h.n, s.message_id = a.id AS in_order
FROM half h, LATERAL finance.half_message_status(h.half_id) s,
	finance.commit_message((SELECT array_agg(half_id ORDER BY n DESC) FROM half WHERE n < 4)) WITH ORDINALITY a (id, o)
WHERE h.n = 4 - a.o ORDER BY h.n;
SELECT message, headers, priority FROM finance.pop('orders', 10) ORDER BY message;
SELECT o.* FROM pg_temp.outcome(format('SELECT finance.rollback_message(%L::bigint[])',
	(SELECT array_agg(half_id ORDER BY n DESC) FROM half))) o;
SELECT n, pg_temp.status(half_id) FROM half ORDER BY n;
SELECT finance.rollback_message(ARRAY[half_id, half_id]), finance.rollback_message(ARRAY[half_id]) AS again
FROM half WHERE n = 4;
SELECT finance.rollback_message('{}'::bigint[]), count(*) FROM finance.commit_message('{}'::bigint[]);

-- ------------------------------------------------------------------------
-- unanswered: asked about, later and later, and parked
-- ------------------------------------------------------------------------
SELECT finance.prepare_message('quick', 'order.paid', '{"n": 21}', '{"h": 21}') AS asked \gset
SELECT finance.check_half_messages();
SET finance.test_clock = '2030-01-01 00:02:01+00';
SELECT finance.check_half_messages(), finance.check_half_messages(1) AS again;
SELECT message - 'half_id' AS message, (message ->> 'half_id')::bigint = :asked AS same, topic FROM finance.pop('asked');
SELECT pg_temp.status(:asked);
SELECT count(*) FROM finance.read('orders', 0, 10);
SET finance.test_clock = '2030-01-01 00:02:10+00';
SELECT finance.check_half_messages();
SET finance.test_clock = '2030-01-01 00:02:11+00';
SELECT finance.check_half_messages(), pg_temp.status(:asked);
SET finance.test_clock = '2030-01-01 00:02:31+00';
SELECT finance.check_half_messages(), pg_temp.status(:asked);
SELECT message -> 'check' AS "check" FROM finance.pop('asked', 10);
SET finance.test_clock = '2030-01-01 00:02:56+00';
SELECT finance.check_half_messages(), pg_temp.status(:asked);
SELECT count(*) FROM finance.pop('asked', 10);
SET finance.test_clock = '2030-01-02 00:00:00+00';
SELECT finance.check_half_messages(), pg_temp.status(:asked);
SELECT half_id = :asked AS same, producer_group, topic, reason, parked_at, checks, error, prepared_at, prepared_by, headers, payload
FROM finance.parked_half_message WHERE tenant_id = 9051;
-- its group stays while it waits
SELECT o.* FROM pg_temp.outcome($$SELECT finance.drop_producer_group('quick')$$) o;
-- checked again, by hand
SELECT finance.recheck_half_message(:asked), pg_temp.status(:asked);
SELECT count(*) FROM finance.parked_half_message WHERE tenant_id = 9051;
SELECT finance.check_half_messages(), pg_temp.status(:asked);
SELECT message -> 'check' AS "check" FROM finance.pop('asked', 10);
SELECT finance.commit_message(:asked) > 0 AS committed;
SELECT pg_temp.status(:asked), finance.recheck_half_message(:asked);
SELECT message, enqueued_at FROM finance.pop('orders', 10);
SELECT message FROM finance.pop('audit', 10);
SET finance.test_clock = '2030-01-03 00:00:00+00';
SELECT finance.check_half_messages();
SELECT count(*) AS deleted FROM finance.half_message WHERE half_id = :asked;
SELECT count(*) AS deleted FROM finance.half_check WHERE half_id = :asked;
SELECT pg_temp.status(:asked), finance.commit_message(:asked) > 0 AS same;
SELECT o.* FROM pg_temp.outcome('SELECT finance.rollback_message(' || :asked || ')') o;
SELECT count(*) FROM finance.pop('orders', 10);
SELECT finance.drop_producer_group('quick');

-- nobody listens: no check is used up, but somebody must look
SELECT finance.prepare_message('lonely', 'order.new', '31') AS lonely \gset
SET finance.test_clock = '2030-01-03 00:00:01+00';
SELECT finance.check_half_messages(), pg_temp.status(:lonely);
SET finance.test_clock = '2030-01-03 00:00:02+00';
SELECT finance.check_half_messages(), pg_temp.status(:lonely);
SET finance.test_clock = '2030-01-03 00:00:04+00';
SELECT finance.check_half_messages(), pg_temp.status(:lonely);
SELECT reason, checks FROM finance.parked_half_message WHERE tenant_id = 9051;
-- and is asked as often as anybody else once it does
SELECT finance.bind_topic('nobody.listens', 'asked');
SELECT finance.recheck_half_message(:lonely), finance.check_half_messages(), pg_temp.status(:lonely);
SELECT message - 'half_id' AS message FROM finance.pop('asked', 10);
SELECT finance.rollback_message(:lonely), pg_temp.status(:lonely);

-- a group that was removed behind our back
SELECT finance.create_producer_group('gone', 'check.shop', '1 second');
SELECT finance.prepare_message('gone', 'order.new', '32') AS gone \gset
DELETE FROM finance.producer_group WHERE tenant_id = 9051 AND name = 'gone';
SELECT invariant, expected, found FROM finance.check_integrity() WHERE tenant_id = 9051;
SET finance.test_clock = '2030-01-03 00:00:05+00';
SELECT finance.check_half_messages(), pg_temp.status(:gone);
DO $$
BEGIN
	FOR n IN 1 .. 15 LOOP
		PERFORM set_config('finance.test_clock', ('2030-01-03 00:00:05+00'::timestamptz + n * interval '1 minute')::text, false);
		PERFORM finance.check_half_messages();
	END LOOP;
END $$;
SELECT pg_temp.status(:gone);
SET finance.test_clock = '2030-01-03 00:20:00+00';
SELECT finance.rollback_message(:gone), pg_temp.status(:gone);

-- one that cannot be checked costs the others nothing
SELECT count(*) FROM finance.prepare_messages('shop', 'order.new', '{41,42}', check_after => '1 second');
SELECT max(half_id) AS good, min(half_id) AS poisoned FROM finance.half_message m
WHERE m.tenant_id = 9051 AND payload IN ('41', '42') \gset
CREATE FUNCTION pg_temp.poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.copies > 0 AND NEW.half_id = current_setting('half.poisoned')::bigint THEN
		RAISE 'an unlucky number';
	END IF;
	RETURN NEW;
END $$;
SELECT set_config('half.poisoned', :'poisoned', false) = :'poisoned' AS set;
CREATE TRIGGER poison BEFORE INSERT ON finance.half_check FOR EACH ROW EXECUTE FUNCTION pg_temp.poison();
SET finance.test_clock = '2030-01-03 00:20:01+00';
SELECT finance.check_half_messages();
SELECT pg_temp.status(:good) AS good, pg_temp.status(:poisoned) AS poisoned;
SELECT copies, misses, error FROM finance.half_check WHERE half_id = :poisoned;
SELECT message -> 'payload' AS payload FROM finance.pop('asked', 10);
DROP TRIGGER poison ON finance.half_check;

-- through statements, where somebody attached triggers
CREATE TABLE pg_temp.written (what text);
CREATE FUNCTION pg_temp.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO pg_temp.written VALUES (TG_TABLE_NAME);
	RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON finance.half_message FOR EACH ROW EXECUTE FUNCTION pg_temp.note();
CREATE TRIGGER note AFTER INSERT ON finance.half_answer FOR EACH ROW EXECUTE FUNCTION pg_temp.note();
SELECT count(finance.commit_message(h)) FROM finance.prepare_messages('shop', 'order.new', '{51,52}',
	ordering_keys => '{a,NULL}') h;
SELECT what, count(*) FROM pg_temp.written GROUP BY 1 ORDER BY 1;
DROP TRIGGER note ON finance.half_message;
DROP TRIGGER note ON finance.half_answer;
CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE INSERT ON finance.half_answer FOR EACH ROW EXECUTE FUNCTION pg_temp.suppress();
SELECT o.* FROM pg_temp.outcome('SELECT finance.commit_message(' || :good || ')') o;
DROP TRIGGER suppress ON finance.half_answer;
SELECT message FROM finance.pop('orders', 10) ORDER BY message;
SELECT pg_temp.status(:good);
-- nor is a row changed by anybody
SELECT o.* FROM unnest(ARRAY[
	'UPDATE finance.half_message SET topic = ''x''',
	'UPDATE finance.half_check SET checks = 0',
	'UPDATE finance.half_answer SET status = ''committed''',
	'TRUNCATE finance.half_message',
	'TRUNCATE finance.half_answer']) AS c, pg_temp.outcome(c) AS o;

-- ------------------------------------------------------------------------
-- tenants
-- ------------------------------------------------------------------------
SET finance.tenant = 9052;
SELECT o.* FROM unnest(ARRAY[
	'SELECT finance.commit_message(' || :good || ')',
	'SELECT finance.rollback_message(' || :good || ')',
	'SELECT finance.commit_message(' || :one || ')',
	'SELECT finance.recheck_half_message(' || :good || ')',
	$$SELECT finance.prepare_message('shop', 'order.new', '1')$$,
	$$SELECT finance.alter_producer_group('shop', max_checks => 1)$$]) AS c, pg_temp.outcome(c) AS o;
SELECT count(*) FROM finance.half_message_status(:good);
SELECT finance.drop_producer_group('shop');
SET finance.test_clock = '2031-01-01';
SELECT finance.check_half_messages();
SELECT finance.create_producer_group('shop', 'check.shop');
CREATE ROLE regress_fin_half;
SELECT finance.grant_access('regress_fin_half', 'operator');
SET ROLE regress_fin_half;
SELECT count(*) FROM finance.half_message;
SELECT count(*) FROM finance.half_answer;
SELECT count(*) FROM finance.half_check;
SELECT count(*) FROM finance.producer_group;
SET finance.tenant = 9051;
SELECT count(*) FROM finance.producer_group;
SELECT count(*) > 0 AS some FROM finance.half_answer;
RESET ROLE;

-- ------------------------------------------------------------------------
-- who may what
-- ------------------------------------------------------------------------
CREATE ROLE regress_fin_half_app;
SELECT finance.grant_access('regress_fin_half_app', 'app');
GRANT EXECUTE ON FUNCTION pg_temp.outcome(text) TO PUBLIC;
SET finance.test_clock = '2030-01-03 00:20:10+00';
SET ROLE regress_fin_half_app;
SELECT finance.prepare_message('shop', 'order.new', '61') AS mine \gset
SELECT finance.commit_message(:mine) > 0 AS committed;
SELECT count(*) FROM finance.half_message_status(:mine);
SELECT o.code, o.message FROM unnest(ARRAY[
	$$SELECT finance.create_producer_group('x', 'y')$$,
	$$SELECT finance.alter_producer_group('shop')$$,
	$$SELECT finance.drop_producer_group('x')$$,
	$$SELECT finance.recheck_half_message(1)$$,
	$$SELECT finance.check_half_messages()$$,
	$$SELECT FROM finance.half_message$$,
	$$SELECT FROM finance.parked_half_message$$]) AS c, pg_temp.outcome(c) AS o;
RESET ROLE;
SET ROLE regress_fin_half;
SELECT count(*) FROM finance.parked_half_message;
SELECT finance.rollback_message(:good), finance.rollback_message(:poisoned);
RESET ROLE;

-- ------------------------------------------------------------------------
-- nothing is left behind
-- ------------------------------------------------------------------------
SELECT invariant, object, expected, found FROM finance.check_integrity() WHERE tenant_id IN (9051, 9052);
SELECT count(*) AS open FROM finance.half_message h WHERE tenant_id IN (9051, 9052)
	AND NOT EXISTS (SELECT FROM finance.half_answer a WHERE a.tenant_id = h.tenant_id AND a.half_id = h.half_id);
SELECT finance.drop_producer_group(name) FROM finance.producer_group WHERE tenant_id = 9051 ORDER BY name;
SELECT count(finance.drop_queue(queue_name)) FROM finance.list_queues();
SET finance.tenant = 9052;
SELECT finance.drop_producer_group('shop');
DELETE FROM finance.half_check WHERE tenant_id IN (9051, 9052);
DELETE FROM finance.half_message WHERE tenant_id IN (9051, 9052);
DELETE FROM finance.half_answer WHERE tenant_id IN (9051, 9052);
RESET finance.tenant;
DROP OWNED BY regress_fin_half, regress_fin_half_app;
DROP ROLE regress_fin_half, regress_fin_half_app;
