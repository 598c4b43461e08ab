-- Tables that change while they are audited: partitions, generated columns,
-- triggers renamed, columns that go and come back, schemas renamed.
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

SELECT plan(56);

CREATE FUNCTION pg_temp.last_request(which text) RETURNS text
LANGUAGE sql AS $$
	SELECT r.request::text FROM finance.audit_record r WHERE r.object = which
	ORDER BY r.xid DESC, r.sequence DESC LIMIT 1
$$;

CREATE FUNCTION pg_temp.records(which text, what text) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM finance.audit_record r
	WHERE r.object = which AND r.operation = what
$$;

-- names of the table's triggers for each row that never fire
CREATE FUNCTION pg_temp.routed(which regclass) RETURNS text[]
LANGUAGE sql AS $$
	SELECT array_agg(t.tgname::text) FROM pg_trigger t
	WHERE t.tgrelid = which AND t.tgtype = 7 AND t.tgenabled = 'D'
$$;

CREATE SCHEMA follow;

-- ------------------------------------------------------------------------
-- rows routed to partitions with columns elsewhere
-- ------------------------------------------------------------------------

CREATE TABLE follow.part (id int PRIMARY KEY, v text, g text GENERATED ALWAYS AS ('g' || v) STORED) PARTITION BY LIST (id);
CREATE TABLE follow.part_1 PARTITION OF follow.part FOR VALUES IN (1);
CREATE TABLE follow.part_2 (g text GENERATED ALWAYS AS ('g' || v) STORED, gone int, v text, id int NOT NULL);
ALTER TABLE follow.part_2 DROP COLUMN gone;
SELECT finance.audit_table('follow.part') AS tables \gset
ALTER TABLE follow.part ATTACH PARTITION follow.part_2 FOR VALUES IN (2);
SELECT is(pg_temp.routed('follow.part_2'), '{finance_audit_routed}', 'a partition that completes its rows has a trigger more');
SELECT is(pg_temp.routed('follow.part'), NULL, 'the partitioned table has not');
INSERT INTO follow.part VALUES (2, 'b');
SELECT is(pg_temp.last_request('follow.part'), '{"new":{"id":2,"v":"b","g":"gb"}}', 'INSERT: the generated column as it was stored');
UPDATE follow.part SET v = 'c' WHERE id = 2;
SELECT is(pg_temp.last_request('follow.part'), '{"old":{"v":"b","g":"gb"},"new":{"id":2,"v":"c","g":"gc"}}', 'UPDATE');
DELETE FROM follow.part;
MERGE INTO follow.part AS p USING (VALUES (2, 'd')) AS s (id, v) ON p.id = s.id
WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);
SELECT is(pg_temp.last_request('follow.part'), '{"new":{"id":2,"v":"d","g":"gd"}}', 'MERGE');
INSERT INTO follow.part VALUES (1, 'e');
SELECT is(pg_temp.last_request('follow.part'), '{"new":{"id":1,"v":"e","g":"ge"}}', 'a partition with the same columns');
DELETE FROM follow.part WHERE id = 2;
UPDATE follow.part SET id = 2;
SELECT is((SELECT pg_temp.last_request('follow.part')::json #>> '{new,g}'), (SELECT g FROM follow.part), 'a row that moves');
ALTER TABLE follow.part_2 ENABLE TRIGGER ALL;
INSERT INTO follow.part VALUES (1, 'f');
DELETE FROM follow.part WHERE id = 2;
INSERT INTO follow.part VALUES (2, 'f');
SELECT is((SELECT v FROM follow.part_2), 'f', 'enabled by hand, it lets the row pass');
SELECT is(finance.audit_table('follow.part'), 0, 'and is disabled again');

CREATE TABLE follow.plain (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
CREATE TABLE follow.plain_1 PARTITION OF follow.plain FOR VALUES IN (1);
SELECT finance.audit_table('follow.plain') AS tables \gset
SELECT is(pg_temp.routed('follow.plain_1'), NULL, 'no such trigger where nothing is generated');
ALTER TABLE follow.plain ADD COLUMN g text GENERATED ALWAYS AS ('g' || v) STORED;
SELECT is(pg_temp.routed('follow.plain_1'), '{finance_audit_routed}', 'until a generated column is added');
CREATE TABLE follow.plain_2 (v text, g text GENERATED ALWAYS AS ('g' || v) STORED, id int NOT NULL);
SELECT finance.audit_table('follow.plain_2') AS tables \gset
ALTER TABLE follow.plain ATTACH PARTITION follow.plain_2 FOR VALUES IN (2);
INSERT INTO follow.plain VALUES (2, 'a');
SELECT is(pg_temp.last_request('follow.plain'), '{"new":{"id":2,"v":"a","g":"ga"}}', 'one that had triggers of its own');

-- ------------------------------------------------------------------------
-- partitions made by CREATE SCHEMA
-- ------------------------------------------------------------------------

CREATE SCHEMA follow_parts
	CREATE TABLE part_3 PARTITION OF follow.part FOR VALUES IN (3)
	CREATE TABLE other (id int);
INSERT INTO follow_parts.part_3 VALUES (3, 'a');
SELECT is(pg_temp.last_request('follow_parts.part_3'), '{"new":{"id":3,"v":"a","g":"ga"}}', 'a partition made by CREATE SCHEMA');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'follow_parts.other'::regclass), 0::bigint, 'nothing else of it');

-- ------------------------------------------------------------------------
-- columns that go with something else
-- ------------------------------------------------------------------------

CREATE DOMAIN follow.number AS text;
CREATE TABLE follow.holder (id int PRIMARY KEY, ssn follow.number, name text, whose follow.number);
CREATE TABLE follow.heiress () INHERITS (follow.holder);
SELECT finance.audit_table('follow.holder', mask => '{"ssn": "redact", "name": "redact"}') AS tables \gset
DROP DOMAIN follow.number CASCADE;
INSERT INTO follow.holder VALUES (1, 'Ann');
SELECT is(pg_temp.last_request('follow.holder'), '{"new":{"id":1,"name":"[redacted]"}}', 'a domain dropped with the masked column');
INSERT INTO follow.heiress VALUES (1, 'Bob');
SELECT is(pg_temp.last_request('follow.heiress'), '{"new":{"id":1,"name":"[redacted]"}}', 'and that of an inheriting table');
CREATE TYPE follow.mood AS ENUM ('calm');
CREATE TABLE follow.subject (id int PRIMARY KEY, who follow.mood, email text);
SELECT finance.audit_table('follow.subject', mask => '{"email": "encrypt"}', subject => 'who') AS tables \gset
SELECT throws_ok('DROP TYPE follow.mood CASCADE', '2BP01', NULL, 'the subject of encrypted values stays');
CREATE TYPE follow.typed AS (id int, ssn text, name text);
CREATE TABLE follow.of_type OF follow.typed (PRIMARY KEY (id));
SELECT finance.audit_table('follow.of_type', mask => '{"ssn": "redact", "name": "redact"}') AS tables \gset
ALTER TYPE follow.typed DROP ATTRIBUTE ssn CASCADE;
INSERT INTO follow.of_type VALUES (1, 'Ann');
SELECT is(pg_temp.last_request('follow.of_type'), '{"new":{"id":1,"name":"[redacted]"}}', 'an attribute of a table''s type dropped');
ALTER TYPE follow.typed RENAME ATTRIBUTE name TO title CASCADE;
INSERT INTO follow.of_type VALUES (2, 'Bob');
SELECT is(pg_temp.last_request('follow.of_type'), '{"new":{"id":2,"title":"[redacted]"}}', 'or renamed');
ALTER TYPE follow.mood RENAME VALUE 'calm' TO 'quiet';
CREATE TYPE follow.lonely AS (a int);
ALTER TYPE follow.lonely RENAME ATTRIBUTE a TO b;
SELECT lives_ok('ALTER TYPE follow.lonely DROP ATTRIBUTE b', 'types without tables');

-- ------------------------------------------------------------------------
-- columns that come back
-- ------------------------------------------------------------------------

CREATE TABLE follow.back (id int PRIMARY KEY, ssn text, note text, whose text, mail text);
SELECT finance.audit_table('follow.back', mask => '{"ssn": "redact", "mail": "encrypt"}', ignore => '{note}', subject => 'whose') AS tables \gset
ALTER TABLE follow.back DROP COLUMN ssn, DROP COLUMN note;
SELECT is(pg_temp.last_request('follow.back'),
		  '{"mask":{"mail":"encrypt"},"dropped_ignore":["note"],"dropped_mask":{"ssn":"redact"},"subject":"whose","rows":"delta"}',
		  'what is not to be recorded of dropped columns is kept');
INSERT INTO follow.back VALUES (1);
SELECT is(pg_temp.last_request('follow.back'), '{"new":{"id":1,"whose":null,"mail":null}}', 'and does not disturb');
ALTER TABLE follow.back ADD COLUMN ssn text, ADD COLUMN note text;
SELECT is(pg_temp.last_request('follow.back'),
		  '{"ignore":["note"],"mask":{"mail":"encrypt","ssn":"redact"},"subject":"whose","rows":"delta"}', 'for those that come back');
INSERT INTO follow.back (id, ssn, note) VALUES (2, '123', 'secret');
SELECT is(pg_temp.last_request('follow.back'), '{"new":{"id":2,"whose":null,"mail":null,"ssn":"[redacted]"}}', 'which stay masked and ignored');
ALTER TABLE follow.back ADD COLUMN better int;
ALTER TABLE follow.back DROP COLUMN ssn;
ALTER TABLE follow.back RENAME COLUMN better TO ssn;
INSERT INTO follow.back (id, ssn) VALUES (3, 123);
SELECT is(pg_temp.last_request('follow.back'), '{"new":{"id":3,"whose":null,"mail":null,"ssn":"[redacted]"}}',
		  'so does another that gets the name');
ALTER TABLE follow.back DROP COLUMN ssn;
ALTER EVENT TRIGGER finance_audit_ddl DISABLE;
ALTER TABLE follow.back ADD COLUMN ssn text;
ALTER EVENT TRIGGER finance_audit_ddl ENABLE ALWAYS;
INSERT INTO follow.back (id, ssn) VALUES (4, '123');
SELECT is(pg_temp.last_request('follow.back'), '{"new":{"id":4,"whose":null,"mail":null,"ssn":"[redacted]"}}',
		  'with the event trigger or without');
ALTER TABLE follow.back DROP COLUMN mail;
ALTER TABLE follow.back DROP COLUMN whose;
ALTER TABLE follow.back ADD COLUMN mail text;
INSERT INTO follow.back (id, mail) VALUES (5, 'a@example.org');
SELECT is(pg_temp.last_request('follow.back')::json #>> '{new,mail}', '[redacted]', 'what was encrypted of a subject that is gone is redacted');
ALTER TABLE follow.back ADD COLUMN told text GENERATED ALWAYS AS (mail) STORED;
INSERT INTO follow.back (id, mail) VALUES (51, 'a@example.org');
SELECT is(pg_temp.last_request('follow.back')::json #>> '{new,told}', '[redacted]', 'nor told otherwise');
ALTER TABLE follow.back DROP COLUMN told;
SELECT is(finance.audit_table('follow.back', mask => '{"mail": "redact"}'), 1, 'the owner may choose anew');
INSERT INTO follow.back (id, ssn) VALUES (6, '123');
SELECT is(pg_temp.last_request('follow.back')::json #>> '{new,ssn}', '123', 'whatever was masked before');

-- ------------------------------------------------------------------------
-- triggers renamed
-- ------------------------------------------------------------------------

CREATE TABLE follow.renamed (id int PRIMARY KEY, v text);
SELECT finance.audit_table('follow.renamed') AS tables \gset
ALTER TRIGGER finance_audit_insert ON follow.renamed RENAME TO zz_audit_insert;
ALTER TRIGGER finance_audit_replicated ON follow.renamed RENAME TO zz_audit_replicated;
SELECT is(finance.audit_table('follow.renamed'), 0, 'a renamed trigger is one of the table''s still');
INSERT INTO follow.renamed VALUES (1, 'a');
SELECT is(pg_temp.records('follow.renamed', 'INSERT'), 1::bigint, 'and records each row once');
SET LOCAL session_replication_role = replica;
INSERT INTO follow.renamed VALUES (2, 'b');
SET LOCAL session_replication_role = origin;
SELECT is(pg_temp.records('follow.renamed', 'INSERT'), 2::bigint, 'so does that for replicated rows');
CREATE TRIGGER finance_audit_insert AFTER INSERT ON follow.renamed REFERENCING NEW TABLE AS new_rows
	FOR EACH STATEMENT EXECUTE FUNCTION finance._audit_rows();
SELECT is(finance.audit_table('follow.renamed'), 1, 'one too many goes');
INSERT INTO follow.renamed VALUES (3, 'c');
SELECT is(pg_temp.records('follow.renamed', 'INSERT'), 3::bigint, 'each row once again');
ALTER TABLE follow.renamed RENAME COLUMN v TO w;
SELECT is(finance.audit_table('follow.renamed', mask => '{"w": "redact"}'), 1, 'another choice');
INSERT INTO follow.renamed VALUES (4, 'd');
SELECT is(pg_temp.last_request('follow.renamed'), '{"new":{"id":4,"w":"[redacted]"}}', 'replaces it as well');

-- ------------------------------------------------------------------------
-- generated columns that would tell what is masked
-- ------------------------------------------------------------------------

CREATE TABLE follow.secret (id int PRIMARY KEY, ssn text);
SELECT finance.audit_table('follow.secret', mask => '{"ssn": "redact"}') AS tables \gset
ALTER TABLE follow.secret ADD COLUMN told text GENERATED ALWAYS AS (ssn || '!') STORED;
INSERT INTO follow.secret VALUES (1, '123');
SELECT is(pg_temp.last_request('follow.secret'), '{"new":{"id":1,"ssn":"[redacted]","told":"[redacted]"}}', 'a generated column added');
ALTER TABLE follow.secret DROP COLUMN told;
CREATE TABLE follow.heir (told text GENERATED ALWAYS AS (ssn || '!') STORED) INHERITS (follow.secret);
INSERT INTO follow.heir VALUES (2, '123');
SELECT is(pg_temp.last_request('follow.heir')::json #>> '{new,told}', '[redacted]', 'or by a table that inherits');
CREATE TABLE follow.late (id int NOT NULL, ssn text, told text GENERATED ALWAYS AS (ssn || '!') STORED);
ALTER TABLE follow.late INHERIT follow.secret;
INSERT INTO follow.late VALUES (3, '123');
SELECT is(pg_temp.last_request('follow.late')::json #>> '{new,told}', '[redacted]', 'or that begins to');
DROP TABLE follow.heir, follow.late;
DELETE FROM follow.secret;
SELECT lives_ok($$ALTER TABLE follow.secret ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED$$, 'another that is generated');
SELECT finance.unaudit_table('follow.secret') AS tables \gset
ALTER TABLE follow.secret ADD COLUMN told text GENERATED ALWAYS AS (ssn || '!') STORED;
SELECT is(finance.audit_table('follow.secret', mask => '{"ssn": "redact", "told": "redact"}'), 1, 'masked as well');
INSERT INTO follow.secret VALUES (1, '123');
SELECT is(pg_temp.last_request('follow.secret'), '{"new":{"id":1,"ssn":"[redacted]","twice":2,"told":"[redacted]"}}', 'it tells nothing');

-- ------------------------------------------------------------------------
-- subjects of any kind
-- ------------------------------------------------------------------------

CREATE TABLE follow.whose (id int PRIMARY KEY, who text, mail text);
SELECT finance.audit_table('follow.whose', mask => '{"mail": "encrypt"}', subject => 'who') AS tables \gset
-- so many bytes that do not compress
CREATE FUNCTION pg_temp.bytes(n int) RETURNS text LANGUAGE sql AS $$
	SELECT left(string_agg(md5(i::text), '' ORDER BY i), n) FROM generate_series(1, n / 32 + 1) AS i
$$;
SELECT throws_ok($$INSERT INTO follow.whose VALUES (1, pg_temp.bytes(4000), 'a')$$, '54000',
				 'subject of encrypted values of table follow.whose is too long', 'a subject without a key to be had');
SELECT throws_ok($$INSERT INTO follow.whose VALUES (1, pg_temp.bytes(1025), 'a')$$, '54000', NULL, 'one too long to be erased');
SELECT throws_ok($$SELECT finance.audit_erase_subject(pg_temp.bytes(1025), 'x')$$, '22023', 'subject is too long', 'which is refused as well');
SELECT throws_ok($$SELECT finance.audit_erase_subject(NULL, 'x')$$, '22004', NULL, 'none');
INSERT INTO follow.whose VALUES (1, pg_temp.bytes(1024), 'a');
SELECT is(pg_temp.last_request('follow.whose')::json #>> '{new,mail,subject}', pg_temp.bytes(1024), 'the longest');
SELECT is(finance.audit_erase_subject(pg_temp.bytes(1024), 'x'), true, 'is erased');
INSERT INTO follow.whose VALUES (2, E'two\nlines', 'a');
SELECT is(finance.audit_erase_subject(E'two\nlines', 'x'), true, 'one of any characters');
INSERT INTO follow.whose VALUES (3, '', 'a');
SELECT is(pg_temp.last_request('follow.whose'), '{"new":{"id":3,"who":"","mail":"[redacted]"}}', 'an empty one is nobody');

-- ------------------------------------------------------------------------
-- what a session keeps of audited tables
-- ------------------------------------------------------------------------

ALTER SCHEMA follow_parts RENAME TO follow_moved;
INSERT INTO follow_moved.part_3 (id, v) SELECT 3, 'b' WHERE false;
DELETE FROM follow_moved.part_3;
SELECT is(pg_temp.records('follow_moved.part_3', 'DELETE'), 1::bigint, 'a schema renamed: the table has its new name');
SELECT is(pg_temp.records('follow_parts.part_3', 'DELETE'), 0::bigint, 'and not its old one');

DO $$ BEGIN
	FOR i IN 1..280 LOOP
		EXECUTE format('CREATE TABLE follow.t%s (id int)', i);
		PERFORM finance.audit_table(format('follow.t%s', i)::regclass);
	END LOOP;
	FOR i IN 1..560 LOOP
		EXECUTE format('INSERT INTO follow.t%s VALUES (1)', i % 280 + 1);
	END LOOP;
END $$;
SELECT cmp_ok((SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'finance audit shape'), '<=', 256::bigint,
			  'what makes room is freed within the transaction');

-- a trigger of somebody makes the shape invalid, and writes to the table, while
-- a statement of it is being recorded
CREATE TABLE follow.busy (id int, v text);
SELECT finance.audit_table('follow.busy') AS tables \gset
CREATE FUNCTION follow.disturb() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('follow.disturbs', true) = 'yes' THEN
		PERFORM set_config('follow.disturbs', 'no', true);
		ANALYZE follow.busy;
		INSERT INTO follow.busy VALUES (0, 'inner');
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER disturb AFTER INSERT ON finance.audit_record FOR EACH STATEMENT EXECUTE FUNCTION follow.disturb();
SET LOCAL follow.disturbs = 'yes';
SELECT count(*) AS before FROM pg_backend_memory_contexts WHERE name = 'finance audit shape' \gset
INSERT INTO follow.busy SELECT i, 'outer' FROM generate_series(1, 1200) AS i;
DROP TRIGGER disturb ON finance.audit_record;
SELECT is(pg_temp.records('follow.busy', 'INSERT'), 1201::bigint, 'one in use stays until it is done');
SELECT is((SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'finance audit shape'), :before::bigint + 1, 'and no longer');

SELECT * FROM finish();
ROLLBACK;
