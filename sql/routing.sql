--
-- Routing: topics, filters by tags and headers, default queues
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
SET timezone = 'UTC';
\set SHOW_CONTEXT never

-- a book of its own: other tests may have queues, too
INSERT INTO finance.tenant (tenant_id, name) VALUES (9051, 'routing test'), (9052, 'routing test, other')
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

-- the queues that get a message, by publishing it; nothing stays
CREATE FUNCTION pg_temp.queues(topic text, headers jsonb DEFAULT NULL, OUT queues text)
LANGUAGE plpgsql AS $$
DECLARE
	copies integer;
	n integer;
BEGIN
	copies := finance.publish(topic, '"m"', headers);
	SELECT string_agg(q.name, ' ' ORDER BY q.name), count(*) INTO queues, n
	FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id) WHERE m.tenant_id = 9051;
	IF copies <> n THEN
		RAISE 'publish() returned %, but there are % copies', copies, n;
	END IF;
	RAISE SQLSTATE 'XX996';
EXCEPTION WHEN SQLSTATE 'XX996' THEN
	NULL;
END $$;

-- ------------------------------------------------------------------------
-- topics, each pattern with a queue of its own: one trie has them all
-- ------------------------------------------------------------------------
CREATE TEMP TABLE bound (name text, pattern text);
INSERT INTO bound VALUES ('all', '#'), ('one', '*'), ('two', '*.*'), ('literal', 'a.b'),
	('middle', 'a.#.b'), ('head', 'a.#'), ('tail', '#.b'), ('inner', '*.b.*'),
	('twice', '#.#'), ('some', '#.*'), ('some2', '*.#'), ('each', '*.#.*'), ('around', '#.b.#');
SELECT count(finance.create_queue(name)) FROM bound;
SELECT count(finance.bind_topic(pattern, name)) FROM bound;
SELECT topic, pg_temp.queues(topic) FROM unnest('{a,b,c,a.b,b.a,a.a,a.b.c,a.c.b,a.c.c.b,x.b.y,A.b,a.b.b,1.2.3.4,a.B}'::text[]) AS topic;
-- "*" is exactly one word, and no word is empty
SELECT topic, o.* FROM unnest('{"",.,a..b,.b,a.}'::text[]) AS topic,
	pg_temp.outcome(format('SELECT finance.publish(%L, ''1'')', topic)) AS o;
SELECT pattern, o.* FROM unnest('{"",*..b,#.,.#,a.b*,##,a#.b}'::text[]) AS pattern,
	pg_temp.outcome(format('SELECT finance.bind_topic(%L, ''all'')', pattern)) AS o;
-- the longest: 255 bytes, and one more
SELECT pg_temp.queues(rtrim(repeat('a.', 128), '.'));
SELECT o.code, o.detail FROM pg_temp.outcome(format('SELECT finance.publish(%L, ''1'')', repeat('a', 256))) AS o;
SELECT o.code, o.detail FROM pg_temp.outcome(format('SELECT finance.bind_topic(%L, ''all'')', repeat('a', 256))) AS o;
SELECT count(finance.drop_queue(name)) FROM bound;
SELECT count(*) FROM finance.list_bindings();

-- many patterns of many "#", in one trie: time does not explode
BEGIN;
SET LOCAL statement_timeout = '60s';
SELECT finance.create_queue('many');
SELECT count(finance.bind_topic('#.#.#.' || (SELECT string_agg(CASE (n >> i) & 1 WHEN 0 THEN '*' ELSE '#.a' END, '.')
	FROM generate_series(0, 10) AS i) || '.#.z', 'many')) FROM generate_series(1, 1000) AS n;
SELECT finance.publish(rtrim(repeat('a.', 127), '.'), '1') AS without_z, finance.publish(repeat('a.', 127) || 'z', '1') AS with_z;
ROLLBACK;

-- ------------------------------------------------------------------------
-- tags
-- ------------------------------------------------------------------------
SELECT finance.create_queue('red'), finance.create_queue('warm'), finance.create_queue('any');
SELECT finance.bind_topic('colour.*', 'red', ARRAY['red']),
	finance.bind_topic('colour.*', 'warm', ARRAY['yellow', 'red', 'red', 'orange']),
	finance.bind_topic('colour.#', 'any');
-- in another order it is the same binding
SELECT finance.bind_topic('colour.*', 'warm', tags => '{orange,red,yellow}');
SELECT pattern, queue_name, tags, headers, match FROM finance.list_bindings();
SELECT headers, pg_temp.queues('colour.x', headers::jsonb) FROM (VALUES
	(NULL), ('{}'), ('{"tag": "red"}'), ('{"tag": "orange"}'), ('{"tag": "Red"}'), ('{"tag": ""}'), ('{"tag": null}'),
	('{"tag": ["red"]}'), ('{"tags": ["blue", "red"]}'), ('{"tags": ["blue", "green"]}'), ('{"tags": []}'),
	('{"tags": "red"}'), ('{"tags": {"red": "red"}}'), ('{"tags": [["red"], 1, null]}'), ('{"tag": "blue", "tags": ["orange"]}'),
	('{"tag": 1, "tags": ["orange"]}'), ('{"TAG": "red"}')) AS v (headers);
SELECT pg_temp.queues('colour', '{"tag": "red"}') AS topic_first;

-- ------------------------------------------------------------------------
-- headers: all or any of them, compared as JSON
-- ------------------------------------------------------------------------
SELECT finance.create_queue('both'), finance.create_queue('either'), finance.create_queue('there'), finance.create_queue('typed');
SELECT finance.bind_topic('order', 'both', headers => '{"region": "north", "amount": 10}'),
	finance.bind_topic('order', 'either', headers => '{"region": "north", "amount": 10}', match => 'any'),
	finance.bind_topic('order', 'there', headers => '{"trace": null}'),
	finance.bind_topic('order', 'typed', headers => '{"urgent": true, "n": 1e2}', match => 'all');
SELECT headers, pg_temp.queues('order', headers::jsonb) FROM (VALUES
	(NULL), ('{}'), ('{"region": "north"}'), ('{"amount": 10}'), ('{"region": "north", "amount": 10}'),
	('{"region": "north", "amount": 10.00, "more": {}}'), ('{"region": "north", "amount": "10"}'), ('{"region": "North"}'),
	('{"region": ["north"]}'), ('{"region": null}'), ('{"trace": 1}'), ('{"trace": null}'), ('{"trace": {"a": 1}}'), ('{"Trace": 1}'),
	('{"urgent": true, "n": 100}'), ('{"urgent": "true", "n": 100}'), ('{"urgent": false, "n": 100}'), ('{"urgent": 1, "n": 100}')) AS v (headers);

-- tags and headers: both must hold; several filters of one pattern and queue: any of them
SELECT finance.bind_topic('order', 'red', '{red}', '{"region": "north"}');
SELECT finance.bind_topic('order', 'red', '{red}', '{"region": "south", "x": null}', 'any'), finance.bind_topic('order', 'red', '{red}', '{"region": "south", "x": null}', 'all');
SELECT headers, pg_temp.queues('order', headers::jsonb) FROM (VALUES
	('{"tag": "red"}'), ('{"tag": "red", "region": "north"}'), ('{"tag": "blue", "region": "north"}'),
	('{"tag": "red", "region": "south"}'), ('{"tag": "red", "x": 0}')) AS v (headers);
SELECT * FROM finance.test_routing('order', '{"tag": "red", "region": "south", "x": 1}');
SELECT * FROM finance.test_routing(headers => '{"tag": "red"}', topic => 'colour.x');
SELECT * FROM finance.test_routing('colour.x');
-- a binding without filter takes all, and the queue still gets one copy
SELECT finance.bind_topic('#', 'red'), finance.bind_topic('order', 'red', NULL, NULL, 'all');
SELECT pg_temp.queues('order'), pg_temp.queues('order', '{"tag": "red", "region": "south"}') AS filtered;
-- all of a pattern go at once
SELECT finance.unbind_topic('order', 'red'), finance.unbind_topic('order', 'red') AS again;
SELECT pattern, queue_name, tags, headers, match FROM finance.list_bindings();

-- ------------------------------------------------------------------------
-- malformed filters
-- ------------------------------------------------------------------------
SELECT replace(filter, '''', '') AS filter, o.* FROM (VALUES
	($$tags => '{}'$$), ($$tags => '{a,NULL}'$$), ($$tags => '{{a,b},{c,d}}'$$), ($$tags => '{a,""}'$$),
	($$headers => '[]'$$), ($$headers => '"a"'$$), ($$headers => 'null'$$), ($$headers => '{}'$$),
	($$headers => '{"a": 1, "b": {"c": 1}}'$$), ($$headers => '{"list": []}'$$),
	($$headers => '{"a": 1}', match => 'some'$$), ($$headers => '{"a": 1}', match => 'ALL'$$), ($$headers => '{"a": 1}', match => NULL$$),
	($$match => 'any'$$)) AS v (filter),
	pg_temp.outcome(format('SELECT finance.bind_topic(''bad'', ''any'', %s)', filter)) AS o;
SELECT o.* FROM (VALUES
	(array_fill('t'::text, '{33}'), NULL),
	(ARRAY[repeat('t', 128)], NULL),
	(ARRAY(SELECT repeat(chr(96 + n), 127) FROM generate_series(1, 5) AS n), NULL),
	(NULL, (SELECT jsonb_object_agg(n, n) FROM generate_series(1, 33) AS n)),
	(NULL, jsonb_build_object('a', repeat('x', 1024)))) AS v (tags, headers),
	pg_temp.outcome(format('SELECT finance.bind_topic(''bad'', ''any'', %L, %L)', tags, headers)) AS o;
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.bind_topic('a', 'nosuch', '{red}')$$,
	$$SELECT finance.bind_topic('a', NULL, '{red}')$$,
	$$SELECT finance.test_routing('a', '[]')$$,
	$$SELECT finance.test_routing(NULL)$$,
	$$SELECT finance.test_routing('a.*')$$,
	$$SELECT finance.test_routing('a', jsonb_build_object('a', repeat('x', 2000000)))$$]) AS c, pg_temp.outcome(c) AS o;
SELECT count(*) FROM finance.list_bindings() WHERE pattern IN ('bad', 'a');
-- the largest
SELECT finance.bind_topic(repeat('p', 255), 'any', ARRAY(SELECT chr(64 + n) || repeat('t', 15) FROM generate_series(1, 32) AS n),
	jsonb_build_object('a', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 31) AS n)));
SELECT length(pattern), cardinality(tags) FROM finance.list_bindings() WHERE pattern LIKE 'pp%';
SELECT finance.unbind_topic(repeat('p', 255), 'any');

-- ------------------------------------------------------------------------
-- default queues
-- ------------------------------------------------------------------------
SELECT * FROM finance.default_queues();
SELECT finance.create_queue('alt'), finance.create_queue('dead');
SELECT finance.unbind_topic('#', 'red'), finance.unbind_topic('colour.#', 'any');
SELECT finance.publish('nobody.listens', '1');
SELECT finance.set_default_queues('dead', 'alt');
SELECT * FROM finance.default_queues();
-- what matches no binding, or passes no filter, goes there; nothing else does
SELECT topic, headers, pg_temp.queues(topic, headers::jsonb) FROM (VALUES ('nobody.listens', NULL), ('colour.x', NULL),
	('colour.x', '{"tag": "blue"}'), ('colour.x', '{"tag": "red"}'), ('order', '{"trace": 1}')) AS v (topic, headers);
SELECT * FROM finance.test_routing('colour.x');
SELECT finance.publish('nobody.listens', '{"n": 1}', '{"h": 1}', 3);
SELECT m.topic, m.payload, m.headers, m.priority FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id)
	WHERE q.tenant_id = 9051 AND q.name = 'alt';
-- as do messages of transfers
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a,b}'::text[]) AS code;
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT topic, message->'payload'->>'amount' AS amount FROM finance.pop('alt', 10);
-- a change that is rolled back changes nothing
BEGIN;
SELECT finance.set_default_queues(alternate => 'red');
SELECT pg_temp.queues('nobody.listens');
SELECT * FROM finance.default_queues();
ROLLBACK;
SELECT pg_temp.queues('nobody.listens');
-- both are set anew
SELECT finance.set_default_queues(alternate => 'red');
SELECT * FROM finance.default_queues();
SELECT o.* FROM unnest(ARRAY[
	$$SELECT finance.set_default_queues('nosuch', 'alt')$$,
	$$SELECT finance.set_default_queues(alternate => 'nosuch')$$,
	$$SELECT finance.set_default_queues('')$$]) AS c, pg_temp.outcome(c) AS o;
SELECT * FROM finance.default_queues();
-- of one tenant
SET finance.tenant = 9052;
SELECT * FROM finance.default_queues();
SELECT finance.publish('nobody.listens', '1');
SELECT * FROM pg_temp.outcome($$SELECT finance.set_default_queues('alt')$$);
SET finance.tenant = 9051;
-- a queue that is dropped is a default no more
SELECT finance.set_default_queues('dead', 'alt');
SELECT finance.drop_queue('alt');
SELECT * FROM finance.default_queues();
SELECT finance.publish('nobody.listens', '1');
SELECT finance.set_default_queues('dead', 'dead');
SELECT pg_temp.queues('nobody.listens');
SELECT finance.drop_queue('dead');
SELECT * FROM finance.default_queues();
SELECT * FROM finance.test_routing('nobody.listens');
SELECT finance.set_default_queues();

-- ------------------------------------------------------------------------
-- there is an end of bindings; it is looked at now and then
-- ------------------------------------------------------------------------
BEGIN;
INSERT INTO finance.binding (tenant_id, pattern, queue_id)
SELECT 9051, 'full.' || n, queue_id FROM finance.queue, generate_series(1, 100000) AS n WHERE tenant_id = 9051 AND name = 'any';
SELECT finance.publish('full.100000', '1'), finance.publish('full.100001', '1') AS none;
SELECT o.code, regexp_replace(o.message, '\d+', 'N') AS message FROM pg_temp.outcome($$SELECT count(finance.bind_topic('over.' || n, 'any')) FROM generate_series(1, 256) AS n$$) AS o;
ROLLBACK;

SELECT count(*) FROM finance.check_integrity() WHERE tenant_id IN (9051, 9052);
SELECT count(finance.drop_queue(queue_name)) > 0 AS dropped FROM finance.list_queues();
SELECT count(*) FROM finance.binding WHERE tenant_id = 9051;
