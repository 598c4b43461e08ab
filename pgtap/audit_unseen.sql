-- What would go unseen is refused, or seen: tables audited below others that are
-- not, triggers enabled otherwise than they were made, tables of the log itself.
-- Run by pg_prove as a superuser; leaves nothing behind.
\set ECHO none
\set QUIET 1
\pset format unaligned
\pset tuples_only true
\pset pager off
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS finance;

SELECT plan(32);

CREATE FUNCTION pg_temp.records(which text) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM finance.audit_record r
	WHERE r.object = which AND r.operation IN ('INSERT', 'UPDATE', 'DELETE')
$$;

CREATE FUNCTION pg_temp.enabled(which regclass) RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(t.tgenabled::text, '' ORDER BY t.tgname) FROM pg_trigger t
	WHERE t.tgrelid = which AND t.tgname LIKE 'finance_audit_%'
$$;

CREATE SCHEMA unseen;

-- ------------------------------------------------------------------------
-- below a table that is not audited
-- ------------------------------------------------------------------------

CREATE TABLE unseen.p (id integer, v text) PARTITION BY RANGE (id);
CREATE TABLE unseen.p1 PARTITION OF unseen.p FOR VALUES FROM (0) TO (10);
CREATE TABLE unseen.p2 PARTITION OF unseen.p FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE unseen.p21 PARTITION OF unseen.p2 FOR VALUES FROM (10) TO (15);
SELECT throws_ok($$SELECT finance.audit_table('unseen.p1')$$, '55000', '"p1" cannot be audited below "p", which is not',
				 'a partition alone is not audited: what is written by way of its parent would not be seen');
SELECT throws_ok($$SELECT finance.audit_table('unseen.p2')$$, '55000', '"p2" cannot be audited below "p", which is not', 'nor one with partitions');
SELECT throws_ok($$SELECT finance.audit_table('unseen.p21')$$, '55000', '"p21" cannot be audited below "p2", which is not', 'nor one further below');
SELECT is((SELECT count(*) FROM pg_trigger t WHERE t.tgname LIKE 'finance_audit_%' AND t.tgrelid::regclass::text LIKE 'unseen.%'),
		  0::bigint, 'nothing was attached');
SELECT is(finance.audit_table('unseen.p'), 4, 'all of them are');
INSERT INTO unseen.p VALUES (1, 'a'), (11, 'b');
UPDATE unseen.p SET v = 'c';
INSERT INTO unseen.p1 VALUES (2, 'd');
DELETE FROM unseen.p21;
SELECT is(pg_temp.records('unseen.p') || ' ' || pg_temp.records('unseen.p1') || ' ' || pg_temp.records('unseen.p21'),
		  '4 1 1', 'by whatever name they are written');

CREATE TABLE unseen.alone (id integer, v text);
SELECT is(finance.audit_table('unseen.alone'), 1, 'a table of its own');
CREATE TABLE unseen.q (id integer, v text) PARTITION BY RANGE (id);
SELECT throws_ok('ALTER TABLE unseen.q ATTACH PARTITION unseen.alone FOR VALUES FROM (0) TO (10)', '55000',
				 '"alone" cannot be audited below "q", which is not', 'an audited table is not attached to one that is not');
SELECT is((SELECT relispartition FROM pg_class WHERE oid = 'unseen.alone'::regclass), false, 'and was not');
SELECT is(finance.audit_table('unseen.q'), 1, 'once that is audited');
SELECT lives_ok('ALTER TABLE unseen.q ATTACH PARTITION unseen.alone FOR VALUES FROM (0) TO (10)', 'it is attached');
SELECT lives_ok('ALTER TABLE unseen.q DETACH PARTITION unseen.alone', 'and detached');
INSERT INTO unseen.alone VALUES (1, 'x');
SELECT is(pg_temp.records('unseen.alone'), 1::bigint, 'and is audited still');

CREATE TABLE unseen.parent (id integer, v text);
CREATE TABLE unseen.child (more text) INHERITS (unseen.parent);
SELECT throws_ok($$SELECT finance.audit_table('unseen.child')$$, '55000', '"child" cannot be audited below "parent", which is not',
				 'nor a child alone');
SELECT throws_ok('ALTER TABLE unseen.alone INHERIT unseen.parent', '55000', '"alone" cannot be audited below "parent", which is not',
				 'nor does an audited table come to inherit');
SELECT throws_ok('CREATE TABLE unseen.both () INHERITS (unseen.alone, unseen.parent)', '55000',
				 '"both" cannot be audited below "parent", which is not', 'nor from two, one of which is not audited');
SELECT is(finance.audit_table('unseen.parent'), 2, 'the parent is, with what it has');
SELECT lives_ok('ALTER TABLE unseen.alone INHERIT unseen.parent', 'then others come');
UPDATE unseen.parent SET v = 'y';
SELECT is(pg_temp.records('unseen.parent'), 1::bigint, 'and are seen');

-- ------------------------------------------------------------------------
-- triggers enabled otherwise
-- ------------------------------------------------------------------------

CREATE TABLE unseen.t (id integer PRIMARY KEY);
SELECT is(finance.audit_table('unseen.t'), 1, 'a table');
SELECT pg_temp.enabled('unseen.t') AS made \gset
ALTER TABLE unseen.t DISABLE TRIGGER ALL;
SELECT is(pg_temp.enabled('unseen.t'), 'DDDDD', 'who disables them has them disabled');
INSERT INTO unseen.t VALUES (1);
SELECT is(pg_temp.records('unseen.t'), 0::bigint, 'and nothing is recorded');
SELECT is((SELECT count(*) FROM finance.audit_record r WHERE r.object = 'unseen.t' AND r.operation = 'ALTER TABLE'), 1::bigint, 'but that they were');
ALTER TABLE unseen.t ENABLE TRIGGER ALL;
SELECT is(pg_temp.enabled('unseen.t'), :'made', 'who enables them has them as they were made');
SET LOCAL session_replication_role = replica;
INSERT INTO unseen.t VALUES (2);
SET LOCAL session_replication_role = origin;
INSERT INTO unseen.t VALUES (3);
SELECT is(pg_temp.records('unseen.t'), 2::bigint, 'what is replicated is recorded, and what is not');
ALTER TABLE unseen.t ENABLE ALWAYS TRIGGER finance_audit_insert;
SET LOCAL session_replication_role = replica;
INSERT INTO unseen.t VALUES (4);
SET LOCAL session_replication_role = origin;
SELECT is(pg_temp.records('unseen.t'), 3::bigint, 'and once');
ALTER TABLE unseen.p DISABLE TRIGGER ALL;
ALTER TABLE unseen.p ENABLE TRIGGER ALL;
SELECT is(pg_temp.enabled('unseen.p') || ' ' || pg_temp.enabled('unseen.p1'), 'OOAO OORAO', 'a partitioned table');

-- ------------------------------------------------------------------------
-- the log itself
-- ------------------------------------------------------------------------

SELECT throws_ok(format('SELECT finance.audit_table(%L)', 'finance.' || c.relname), 'LG201',
				 format('"%s" cannot be audited', c.relname), 'not ' || c.relname)
FROM unnest(ARRAY['audit_record', 'audit_subject', '_audit_secret', 'audit_block', 'audit_tree']) AS c (relname);

SELECT * FROM finish();
ROLLBACK;
