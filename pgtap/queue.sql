-- Queues: what the catalog must say, privileges, and properties of routing.
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS finance;
SELECT no_plan();

SELECT lives_ok($$SELECT finance.create_queue('tap')$$, 'make a queue');
SELECT queue_id AS id FROM finance.queue WHERE name = 'tap' AND tenant_id = 0 \gset

-- ------------------------------------------------------------------------
-- the tables of a queue
-- ------------------------------------------------------------------------
CREATE TEMP VIEW segment AS
	SELECT c.oid, c.relname, c.relispartition, c.relrowsecurity, c.relpersistence FROM pg_class c
	WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind = 'r'
		AND c.relname ~ (SELECT format('^message_%s_\d+$', queue_id) FROM finance.queue WHERE name = 'tap' AND tenant_id = 0);
SELECT set_eq('SELECT relname FROM segment', ARRAY(SELECT format('message_%s_%s', :id, s) FROM generate_series(0, 2) s), 'a queue has three tables');
SELECT hasnt_table('finance', 'message_archive_' || :id, 'and none for its archive');
SELECT is_empty('SELECT relname FROM segment WHERE NOT relispartition', 'which are partitions');
SELECT set_eq($$SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_class c JOIN segment USING (oid)$$,
	format($$SELECT format('FOR VALUES FROM (''%s'', ''%%s'') TO (''%1$s'', ''%%s'')', s, s + 1) FROM generate_series(0, 2) s$$, :id),
	'one for each segment');
SELECT is_empty($$SELECT objid FROM pg_depend JOIN segment ON oid = objid WHERE deptype = 'e'$$,
	'and no members of the extension, so that they are dumped');
SELECT bag_eq($$SELECT relname || ' ' || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '') FROM pg_index JOIN segment ON oid = indrelid
		WHERE indisvalid AND indisready$$,
	$$SELECT relname || ' ' || index FROM segment, unnest(ARRAY['btree (due_at) WHERE (due_at IS NOT NULL)', 'btree (expires_at) WHERE (expires_at IS NOT NULL)',
		'btree (msg_id)', 'btree (ordering_key, message_id) WHERE (ordering_key IS NOT NULL)']) AS index$$,
	'whose indexes are these: no column that a claim changes is in one');
SELECT col_is_pk('finance', relname, 'msg_id', 'the key of ' || row_number() OVER (ORDER BY relname) || ' is msg_id') FROM segment ORDER BY relname;
SELECT is_empty('SELECT relname FROM segment WHERE NOT relrowsecurity', 'only their owner sees them directly');
SELECT is_empty('SELECT polname FROM pg_policy JOIN segment ON segment.oid = polrelid', 'since they have no policy');
SELECT is_empty($$SELECT relname FROM segment WHERE relpersistence <> 'p'$$, 'they are logged');
SELECT lives_ok($$SELECT finance.create_queue('unlogged_tap', unlogged => true)$$, 'make an unlogged queue');
SELECT is((SELECT count(*)::int FROM pg_class c JOIN finance.queue q ON c.relname ~ format('^message_%s_\d(_pkey)?$', queue_id)
	WHERE q.name = 'unlogged_tap' AND c.relpersistence = 'u'), 6, 'its tables are not, nor their keys');

-- a claim is a HOT update
SELECT lives_ok($$SELECT count(finance.send('tap', jsonb_build_object('n', n))) FROM generate_series(1, 20) n$$, 'send 20');
SELECT results_eq($$SELECT (message->>'n')::int FROM finance.read('tap', 30, 20)$$,
	$$SELECT generate_series(1, 20)$$, 'read in the order of sending');
SELECT is((SELECT sum(pg_stat_get_xact_tuples_hot_updated(oid))::int FROM segment), 20, 'each claim was a HOT update');
SELECT is_empty($$SELECT * FROM finance.read('tap', 30, 20)$$, 'and claimed they are');

-- ------------------------------------------------------------------------
-- tenant row security and triggers on every table
-- ------------------------------------------------------------------------
SELECT ok(c.relrowsecurity AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid),
	format('%s has row security with a policy', c.relname))
FROM pg_class c WHERE c.relnamespace = 'finance'::regnamespace
	AND c.relname IN ('queue', 'binding', 'queue_default', 'subscription', 'message', 'message_archive') ORDER BY c.relname;
SELECT is((SELECT tgenabled FROM pg_trigger WHERE tgrelid = ('finance.' || t)::regclass AND tgname = 'config_changed'), 'A',
	format('a change of %s is told to all sessions, whatever session_replication_role', t))
FROM unnest('{queue,binding,queue_default,subscription}'::text[]) AS t;

-- a second path: constraints refuse what the functions refuse
SELECT throws_ok(format($$INSERT INTO finance.queue (tenant_id, name) VALUES (0, %L)$$, bad), '23514', NULL,
	format('no queue named %s', quote_nullable(replace(bad, E'\n', '\n'))))
FROM unnest(ARRAY['', 'a b', repeat('x', 48), E'a\nb']) AS bad;
-- no foreign keys, so that pg_restore may fill the tables in any order
SAVEPOINT breach;
INSERT INTO finance.binding (tenant_id, pattern, queue_id) VALUES (0, 'a', -1);
SELECT isnt_empty($$SELECT FROM finance.check_integrity()$$, 'a binding without its queue is a breach');
ROLLBACK TO breach;
SELECT format('INSERT INTO finance.binding (tenant_id, pattern, queue_id) VALUES (1000000, %L, %s)', 'a', :id) AS statement \gset
:statement;
SELECT isnt_empty($$SELECT FROM finance.check_integrity()$$, 'and one to the queue of another tenant');
ROLLBACK TO breach;
INSERT INTO finance.queue_default (tenant_id, alternate_queue_id) VALUES (0, -1);
SELECT results_eq($$SELECT object, expected FROM finance.check_integrity() WHERE invariant = 'I8 default has a queue'$$,
	$$VALUES ('default alternate', 'queue -1')$$, 'and a default queue that is none');
ROLLBACK TO breach;
SELECT throws_ok(format($$INSERT INTO finance.binding (tenant_id, pattern, queue_id, tags, headers, match) VALUES (0, 'a', 1, %s)$$, bad), '23514', NULL,
	format('no filter (%s)', bad))
FROM unnest('{"''{}'', NULL, NULL", "''{NULL}'', NULL, NULL", "NULL, ''[]'', ''all''", "NULL, ''{\"a\": 1}'', NULL", "NULL, NULL, ''any''",
	"NULL, ''{\"a\": 1}'', ''some''"}'::text[]) AS bad;
SELECT throws_ok(format($$INSERT INTO finance.subscription (channel, tenant_id, queue_id) VALUES (repeat('x', 64), 0, %s)$$, :id),
	'23514', NULL, 'no longer channel than NOTIFY takes');

-- ------------------------------------------------------------------------
-- the functions
-- ------------------------------------------------------------------------
CREATE TEMP TABLE fn AS
SELECT p.oid::regprocedure::text AS name, p.*
FROM pg_proc p WHERE pronamespace = 'finance'::regnamespace AND proname IN
	('create_queue', 'alter_queue', 'pause_queue', 'resume_queue', 'redrive', 'drop_queue', 'purge_queue', 'list_queues', 'send', 'send_batch',
	 'read', 'read_with_poll', 'pop', 'delete', 'nack', 'archive', 'set_vt', 'metrics', 'metrics_all', 'publish', 'bind_topic', 'unbind_topic', 'list_bindings',
	 'test_routing', 'subscribe', 'unsubscribe', 'topic_matches', 'set_default_queues', 'default_queues');
SELECT is((SELECT count(*)::int FROM fn), 32, 'all functions are there');
SELECT is_empty($$SELECT name FROM fn WHERE prosecdef$$, 'none is SECURITY DEFINER');
SELECT is_empty($$SELECT name FROM fn WHERE obj_description(oid, 'pg_proc') IS NULL$$, 'each has a comment');
SELECT is_empty($$SELECT name FROM fn WHERE pronargs > 0 AND proargnames IS NULL$$, 'arguments have names');
SELECT is_empty($$SELECT name FROM fn WHERE proname NOT IN ('topic_matches') AND proparallel <> 'u'$$,
	'none that runs a query is parallel safe');

-- ------------------------------------------------------------------------
-- properties of msg_id
-- ------------------------------------------------------------------------
CREATE TEMP TABLE sent AS
SELECT n, n % 11 AS priority, finance.send('tap', to_jsonb(n), priority => n % 11) AS msg_id FROM generate_series(1, 1100) n;
SELECT is((SELECT count(DISTINCT msg_id)::int FROM sent), 1100, 'a msg_id is unique in its queue');
SELECT ok((SELECT bool_and(msg_id > 0) FROM sent), 'and above zero');
SELECT results_eq('SELECT n FROM sent ORDER BY msg_id', 'SELECT n FROM sent ORDER BY priority DESC, n',
	'and sorts by priority, then age');
SELECT results_eq($$SELECT message::int FROM finance.read('tap', 30, 1100)$$, 'SELECT n FROM sent ORDER BY priority DESC, n',
	'which is the order of reading');

-- ------------------------------------------------------------------------
-- ten thousand bindings in one trie
-- ------------------------------------------------------------------------
SELECT lives_ok($$SELECT count(finance.create_queue('tap' || n)) FROM generate_series(1, 10) n$$, 'ten queues');
INSERT INTO finance.binding (tenant_id, pattern, queue_id)
SELECT 0, format('tap.acct%s.*', n), q.queue_id
FROM generate_series(1, 10000) n JOIN finance.queue q ON q.tenant_id = 0 AND q.name = 'tap' || (n % 10 + 1);
SELECT is(finance.publish('tap.acct77.debit', '1'), 1, 'one of ten thousand bindings matches');
SELECT is((SELECT queue_length FROM finance.metrics('tap8')), 1::bigint, 'the right one');
SELECT is(finance.publish('tap.acct10001.debit', '1'), 0, 'none matches');
SELECT is(finance.publish('tap.acct77', '1'), 0, 'none matches a shorter topic');
INSERT INTO finance.binding (tenant_id, pattern, queue_id)
SELECT 0, p, q.queue_id FROM finance.queue q, unnest('{tap.#,tap.acct77.debit,tap.*.debit}'::text[]) p
WHERE q.tenant_id = 0 AND q.name LIKE 'tap_%';
SELECT is(finance.publish('tap.acct77.debit', '1'), 10, 'ten queues, each once, by 31 bindings');
SELECT is((SELECT sum(queue_length)::int FROM finance.metrics_all() WHERE queue_name LIKE 'tap_%'), 11, 'eleven copies in all');

SELECT * FROM finish();
ROLLBACK;
