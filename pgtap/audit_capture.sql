-- What audit_table() records, as the owner chose: columns, masks, rows; DDL;
-- erasing; reads.
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

SELECT plan(212);

-- the newest record of a table
CREATE FUNCTION pg_temp.last_record(which text) RETURNS finance.audit_record
LANGUAGE sql AS $$
	SELECT r FROM finance.audit_record r WHERE r.object = which
	ORDER BY r.xid DESC, r.sequence DESC LIMIT 1
$$;

-- what it holds
CREATE FUNCTION pg_temp.last_request(which text) RETURNS text
LANGUAGE sql AS $$ SELECT (pg_temp.last_record(which)).request::text $$;

CREATE FUNCTION pg_temp.records(which text, what text) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM finance.audit_record r
	WHERE r.object = which AND r.operation = what
$$;

-- ------------------------------------------------------------------------
-- columns, ignore, rows
-- ------------------------------------------------------------------------

CREATE SCHEMA capture;
CREATE TABLE capture.person (id int PRIMARY KEY, name text, email text, phone text, seen timestamptz);

SELECT is(finance.audit_table('capture.person'), 1, 'attached');
SELECT is(finance.audit_table('capture.person'), 0, 'the same choice again does nothing');
SELECT is(pg_temp.last_request('capture.person'), '{"rows":"delta"}', 'the choice is recorded');
SELECT is(finance.audit_table('capture.person', rows => 'changed'), 1, 'another choice replaces the triggers');
SELECT is(finance.audit_table('capture.person', rows => 'changed'), 0, 'the same again does not');
SELECT is(pg_temp.last_request('capture.person'), '{"rows":"changed"}', 'and is recorded');
INSERT INTO capture.person VALUES (1, 'Ann', 'ann@example.org', '1', 'epoch');
UPDATE capture.person SET name = 'Anne';
SELECT is(pg_temp.last_request('capture.person'), '{"old":{"name":"Ann"},"new":{"name":"Anne"}}', 'rows: changed');
SELECT is(finance.audit_table('capture.person', columns => '{id,name}', rows => 'full'), 1, 'columns');
UPDATE capture.person SET name = 'Ann', phone = '2';
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"id":1,"name":"Anne"},"new":{"id":1,"name":"Ann"}}', 'columns and rows: full');
UPDATE capture.person SET phone = '3';
SELECT is(pg_temp.records('capture.person', 'UPDATE'), 2::bigint, 'a change of others leaves no record');
SELECT is(finance.audit_table('capture.person', ignore => '{seen}'), 1, 'ignore');
UPDATE capture.person SET seen = now();
SELECT is(pg_temp.records('capture.person', 'UPDATE'), 2::bigint, 'a change of what is ignored leaves no record');
UPDATE capture.person SET phone = '4', seen = now();
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"phone":"3"},"new":{"id":1,"name":"Ann","email":"ann@example.org","phone":"4"}}',
		  'nor is it in another''s');
SELECT is(finance.audit_table('capture.person'), 1, 'and back to all');

-- ------------------------------------------------------------------------
-- what is refused
-- ------------------------------------------------------------------------

SELECT is(finance.audit_table(NULL), NULL, 'no table');
ALTER TABLE capture.person ENABLE TRIGGER ALL;
INSERT INTO capture.person VALUES (2, 'Bob');
SELECT is(pg_temp.records('capture.person', 'INSERT'), 2::bigint, 'all triggers enabled: each row is recorded once');
DELETE FROM capture.person WHERE id = 2;
SELECT is(finance.audit_table('capture.person'), 0, 'and they fire as they were made');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', columns => '{id,nobody}')$$, '42703',
				 'column "nobody" of table "person" does not exist', 'unknown column');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', ignore => '{nobody}')$$, '42703', NULL, 'unknown column to ignore');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', ignore => '{ctid}')$$, '42703', NULL, 'a system column');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"nobody": "redact"}')$$, '42703', NULL, 'unknown column to mask');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', subject => 'nobody')$$, '42703', NULL, 'unknown subject');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"name": "rot13"}')$$, '22023',
				 'mask "rot13" is not known', 'unknown mask');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"name": 1}')$$, '22023', NULL, 'a mask that is no word');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '["name"]')$$, '22023', NULL, 'masks that are no object');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', rows => 'some')$$, '22023',
				 'choice of rows "some" is not known', 'unknown rows');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', columns => '{id}', ignore => '{seen}')$$, '22023', NULL,
				 'columns and ignore');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', columns => '{NULL}')$$, '22004', NULL, 'null as a name');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"name": "encrypt"}')$$, '22023', NULL,
				 'encrypt without subject');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"id": "encrypt"}', subject => 'name')$$, '22023', NULL,
				 'the key encrypted');
SELECT throws_ok($$SELECT finance.audit_table('capture.person', mask => '{"id": "redact", "name": "encrypt"}', subject => 'id')$$,
				 '22023', NULL, 'the subject masked');
CREATE TABLE capture.told (id int PRIMARY KEY, email text, lower text GENERATED ALWAYS AS (lower(email)) STORED);
SELECT throws_ok($$SELECT finance.audit_table('capture.told', mask => '{"email": "redact"}')$$, '22023',
				 'generated column "lower" tells of the masked column "email"', 'a generated column that tells');
SELECT is(finance.audit_table('capture.told', mask => '{"email": "redact", "lower": "hash"}'), 1, 'unless it is masked');
SELECT is(finance.audit_table('capture.told', mask => '{"email": "redact"}', ignore => '{lower}'), 1, 'or left out');
SELECT is(finance.audit_table('capture.person'), 0, 'nothing of it changed the triggers');

CREATE TABLE capture.ranked (id int PRIMARY KEY DEFERRABLE, whom text);
SELECT finance.audit_table('capture.ranked') AS attached \gset
INSERT INTO capture.ranked VALUES (1);
SELECT is((pg_temp.last_record('capture.ranked')).row_key, '{"id":1}', 'a deferrable primary key is a key');
SELECT throws_ok($$SELECT finance.audit_table('capture.ranked', mask => '{"id": "encrypt"}', subject => 'whom')$$, '22023',
				 'column "id" of the primary key of "ranked" cannot be encrypted', 'which cannot be encrypted');

-- generated columns that come later are masked by themselves
ALTER TABLE capture.told ADD upper text GENERATED ALWAYS AS (upper(email)) STORED;
INSERT INTO capture.told VALUES (1, 'ann@example.org');
SELECT is(pg_temp.last_request('capture.told'),
		  '{"new":{"id":1,"email":"[redacted]","upper":"[redacted]"}}', 'a generated column that came later');
SELECT throws_ok($$SELECT finance.audit_table('capture.told', mask => '{"email": "redact"}', ignore => '{lower}', rows => 'full')$$,
				 '22023', 'generated column "upper" tells of the masked column "email"', 'and has to be told of');

SELECT current_setting('server_version_num')::int >= 170000 AS changes_expressions,
	   current_setting('server_version_num')::int >= 180000 AS has_virtual \gset
\if :changes_expressions
CREATE TABLE capture.retold (id int PRIMARY KEY, email text, day text GENERATED ALWAYS AS (id % 7) STORED);
SELECT is(finance.audit_table('capture.retold', mask => '{"email": "redact"}'), 1, 'one that tells nothing');
INSERT INTO capture.retold VALUES (1, 'ann@example.org');
SELECT is(pg_temp.last_request('capture.retold'), '{"new":{"id":1,"email":"[redacted]","day":"1"}}', 'is recorded');
ALTER TABLE capture.retold ALTER day SET EXPRESSION AS (email);
UPDATE capture.retold SET email = 'ann@example.com';
SELECT is(pg_temp.last_request('capture.retold'),
		  '{"old":{"email":"[redacted]","day":"[redacted]"},"new":{"id":1,"email":"[redacted]","day":"[redacted]"}}',
		  'until its expression changes');
\else
SELECT skip('the expression of a generated column changes since PostgreSQL 17', 3);
\endif

-- what is computed when it is read is in no row, and is not recorded
\if :has_virtual
CREATE TABLE capture.computed (id int PRIMARY KEY, email text, lower text GENERATED ALWAYS AS (lower(email)));
SELECT is(finance.audit_table('capture.computed', mask => '{"email": "redact"}', rows => 'full'), 1,
		  'a virtual column tells nothing');
INSERT INTO capture.computed VALUES (1, 'ann@example.org');
SELECT is(pg_temp.last_request('capture.computed'), '{"new":{"id":1,"email":"[redacted]"}}', 'it is not recorded');
UPDATE capture.computed SET email = 'ann@example.com';
SELECT is(pg_temp.last_request('capture.computed'),
		  '{"old":{"id":1,"email":"[redacted]"},"new":{"id":1,"email":"[redacted]"}}', 'nor in an UPDATE');
SELECT throws_ok($$SELECT finance.audit_table('capture.computed', columns => '{id,lower}')$$, '22023',
				 'virtual column "lower" of table "computed" has no value to record', 'nor can it be asked for');
SELECT throws_ok($$SELECT finance.audit_table('capture.computed', mask => '{"email": "encrypt"}', subject => 'lower')$$, '22023',
				 'virtual column "lower" of table "computed" has no value to record', 'nor be the subject');
SELECT is(finance.audit_table('capture.computed', ignore => '{lower}'), 1, 'it may be left out by name');
DELETE FROM capture.computed;
SELECT is(pg_temp.last_request('capture.computed'), '{"old":{"id":1,"email":"ann@example.com"}}', 'which changes nothing');
\else
SELECT skip('virtual columns are of PostgreSQL 18', 7);
\endif

-- ------------------------------------------------------------------------
-- redact, and a table that changes
-- ------------------------------------------------------------------------

SELECT is(finance.audit_table('capture.person', mask => '{"email": "redact", "phone": "redact"}', ignore => '{seen}'),
		  1, 'masks');
UPDATE capture.person SET email = 'ann@example.com';
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"email":"[redacted]"},"new":{"id":1,"name":"Ann","email":"[redacted]","phone":"[redacted]"}}',
		  'a redacted value is not recorded, that it changed is');
ALTER TABLE capture.person RENAME COLUMN email TO mail;
UPDATE capture.person SET mail = 'ann@example.net';
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"mail":"[redacted]"},"new":{"id":1,"name":"Ann","mail":"[redacted]","phone":"[redacted]"}}',
		  'a renamed column stays masked');
ALTER TABLE capture.person DROP COLUMN phone;
SELECT is(pg_temp.last_request('capture.person'),
		  '{"ignore":["seen"],"mask":{"mail":"redact"},"dropped_mask":{"phone":"redact"},"rows":"delta"}',
		  'that the choice followed is recorded');
UPDATE capture.person SET name = 'Anna';
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"name":"Ann"},"new":{"id":1,"name":"Anna","mail":"[redacted]"}}',
		  'a dropped column breaks nothing');
-- without the event trigger a write is refused rather than recorded unmasked
ALTER EVENT TRIGGER finance_audit_ddl DISABLE;
ALTER TABLE capture.person RENAME COLUMN mail TO address;
ALTER EVENT TRIGGER finance_audit_ddl ENABLE ALWAYS;
SELECT throws_ok($$UPDATE capture.person SET name = 'Ann'$$, '22023',
				 'column "mail" of what to audit is not in table "person"', 'an unknown column');
SELECT is(finance.audit_table('capture.person', mask => '{"address": "redact"}'), 1, 'until audit_table() is called');
SELECT lives_ok($$UPDATE capture.person SET name = 'Ann'$$, 'again');

-- ------------------------------------------------------------------------
-- DDL
-- ------------------------------------------------------------------------

-- operations and objects recorded by a command
CREATE FUNCTION pg_temp.ddl(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	last int := (SELECT max(sequence) FROM finance.audit_record WHERE xid = pg_current_xact_id());
BEGIN
	EXECUTE command;
	RETURN (SELECT string_agg(operation || ' ' || object, ', ' ORDER BY sequence)
			FROM finance.audit_record WHERE xid = pg_current_xact_id() AND sequence > last);
END $$;
CREATE ROLE capture_reader;

-- the event trigger looks at everybody's commands
GRANT USAGE, CREATE ON SCHEMA capture TO capture_reader;
SET LOCAL ROLE capture_reader;
SELECT lives_ok('CREATE TABLE capture.theirs (id int PRIMARY KEY)', 'who has no right in finance makes tables');
SELECT lives_ok('CREATE TABLE capture.theirs_1 () INHERITS (capture.theirs)', 'below others');
SELECT lives_ok('GRANT SELECT ON capture.theirs TO PUBLIC', 'grants');
SELECT lives_ok('DROP TABLE capture.theirs CASCADE', 'and drops');
RESET ROLE;
REVOKE USAGE, CREATE ON SCHEMA capture FROM capture_reader;

SELECT is(pg_temp.ddl('CREATE TABLE capture.other (id int PRIMARY KEY)'), NULL, 'DDL that concerns nothing');
SELECT is(pg_temp.ddl('CREATE TEMP TABLE t (id serial PRIMARY KEY)'), NULL, 'a temporary table');
SELECT is(pg_temp.ddl('ALTER TABLE capture.other ADD COLUMN a int'), NULL, 'a table that is not audited');
SELECT is(pg_temp.ddl('DROP TABLE t, capture.other'), NULL, 'tables that go');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person ADD COLUMN note text'), 'ALTER TABLE capture.person', 'an audited table');
SELECT matches((pg_temp.last_record('capture.person')).request ->> 'command', 'ADD COLUMN note text', 'with the command');
SELECT 'a secret' AS what \; ALTER TABLE capture.person ALTER note SET STATISTICS 7 \; SELECT 'another' AS what \g /dev/null
SELECT is((pg_temp.last_record('capture.person')).request ->> 'command', 'ALTER TABLE capture.person ALTER note SET STATISTICS 7 ',
		  'and no other that was sent with it');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person DISABLE TRIGGER finance_audit_insert'), 'ALTER TABLE capture.person',
		  'a trigger disabled');
SELECT is(finance.audit_table('capture.person', mask => '{"address": "redact"}'), 1, 'and put right');
SELECT is(pg_temp.ddl('CREATE INDEX ON capture.person (note)'), 'CREATE INDEX capture.person_note_idx', 'an index on it');
SELECT is(pg_temp.ddl('REINDEX TABLE capture.person'), NULL, 'rebuilding changes nothing');
SELECT is(pg_temp.ddl('ALTER INDEX capture.person_note_idx RENAME TO "Note"'), 'ALTER INDEX capture."Note"', 'which is renamed');
SELECT is(pg_temp.ddl('ALTER INDEX capture."Note" SET (fillfactor = 90)'), 'ALTER INDEX capture."Note"', 'altered');
CREATE TABLE capture.bystander (id int PRIMARY KEY, other int);
CREATE INDEX other_idx ON capture.bystander (other);
SELECT is(pg_temp.ddl('DROP INDEX capture."Note", capture.other_idx'), 'DROP INDEX capture."Note"', 'and dropped, beside one that concerns nobody');
SELECT is(pg_temp.ddl('CREATE INDEX other_idx ON capture.bystander (other)'), NULL, 'an index of another table');
SELECT is(pg_temp.ddl('DROP INDEX capture.other_idx'), NULL, 'that goes');
SELECT is(pg_temp.ddl('DROP INDEX IF EXISTS capture.nothing'), NULL, 'one that is not there');
SELECT is(pg_temp.ddl('CREATE UNIQUE INDEX own ON finance.ruleset (tenant_id) WHERE false'), 'CREATE INDEX finance.own', 'an index on our table');
SELECT is(pg_temp.ddl('DROP INDEX finance.own'), 'DROP INDEX finance.own', 'dropped');
SELECT is(pg_temp.ddl('CREATE POLICY own ON capture.person'), 'CREATE POLICY own on capture.person', 'a policy');
SELECT is(pg_temp.ddl('DROP POLICY own ON capture.person'), 'DROP POLICY own on capture.person', 'which is dropped');
SELECT is(pg_temp.ddl($$COMMENT ON COLUMN capture.person.name IS 'x'$$), 'COMMENT capture.person.name', 'a comment');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person OWNER TO capture_reader'), 'ALTER TABLE capture.person', 'another owner');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person OWNER TO CURRENT_USER'), 'ALTER TABLE capture.person', 'the former one');
SELECT is(pg_temp.ddl('CREATE RULE quiet AS ON UPDATE TO capture.person WHERE false DO INSTEAD NOTHING'), 'CREATE RULE quiet on capture.person', 'a rule');
SELECT is(pg_temp.ddl('DROP RULE quiet ON capture.person'), 'DROP RULE quiet on capture.person', 'dropped');
CREATE FUNCTION capture.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
SELECT is(pg_temp.ddl('CREATE TRIGGER nothing BEFORE UPDATE ON capture.person FOR EACH ROW EXECUTE FUNCTION capture.nothing()'),
		  'CREATE TRIGGER nothing on capture.person', 'a trigger');
SELECT is(pg_temp.ddl('ALTER TRIGGER nothing ON capture.person RENAME TO something'), 'ALTER TRIGGER something on capture.person', 'renamed');
SELECT is(pg_temp.ddl('DROP FUNCTION capture.nothing CASCADE'), 'DROP FUNCTION something on capture.person', 'which goes with something else');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person ENABLE ROW LEVEL SECURITY'), 'ALTER TABLE capture.person', 'row level security');
SELECT is(pg_temp.ddl('ALTER TABLE capture.bystander ENABLE ROW LEVEL SECURITY'), NULL, 'not that of others');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person ADD CONSTRAINT b FOREIGN KEY (id) REFERENCES capture.bystander NOT VALID'), 'ALTER TABLE capture.person', 'a constraint');
SELECT is(pg_temp.ddl('DROP TABLE capture.bystander CASCADE'), 'DROP TABLE b on capture.person', 'which goes with the table it is about');

-- types of audited columns
CREATE TYPE capture.mood AS ENUM ('good');
CREATE DOMAIN capture.small AS int;
CREATE TYPE capture.pair AS (a int, b int);
CREATE TYPE capture.unused AS ENUM ('x');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person ADD COLUMN mood capture.mood, ADD COLUMN small capture.small, ADD COLUMN pairs capture.pair[]'),
		  'ALTER TABLE capture.person', 'columns');
SELECT is(pg_temp.ddl($$ALTER TYPE capture.mood ADD VALUE 'bad'$$), 'ALTER TYPE capture.mood', 'an enum');
SELECT is(pg_temp.ddl('ALTER DOMAIN capture.small ADD CHECK (value < 7)'), 'ALTER DOMAIN capture.small', 'a domain');
SELECT is(pg_temp.ddl('ALTER TYPE capture.pair RENAME ATTRIBUTE a TO c'), 'ALTER TYPE capture.pair.c', 'a row type, of an array');
SELECT is(pg_temp.ddl('GRANT USAGE ON TYPE capture.mood TO capture_reader'), 'GRANT capture.mood', 'a grant on a type');
SELECT is(pg_temp.ddl('REVOKE USAGE ON DOMAIN capture.small FROM PUBLIC'), 'REVOKE capture.small', 'taken from all');
SELECT is(pg_temp.ddl($$ALTER TYPE capture.unused ADD VALUE 'y'$$), NULL, 'a type that is not there');
SELECT is(pg_temp.ddl('GRANT USAGE ON TYPE capture.unused TO capture_reader'), NULL, 'nor a grant on it');
SELECT is(pg_temp.ddl('GRANT USAGE ON TYPE finance.transfer TO capture_reader'), 'GRANT finance.transfer', 'our type');
SELECT is(finance.audit_table('capture.person', mask => '{"address": "redact", "mood": "redact"}'), 1, 'a mask');
SELECT is(pg_temp.ddl('DROP TYPE capture.mood CASCADE'), 'DROP TYPE capture.person.mood, audit_table capture.person', 'with a type its columns go');
SELECT lives_ok($$UPDATE capture.person SET name = 'Ann'$$, 'which breaks nothing');
SELECT is(pg_temp.last_request('capture.person') ~ 'mood', false, 'the choice followed');

SELECT is(pg_temp.ddl('GRANT SELECT ON capture.person TO capture_reader'), 'GRANT capture.person', 'a grant');
SELECT is(pg_temp.ddl('REVOKE SELECT ON capture.person FROM capture_reader'), 'REVOKE capture.person', 'taken back');
SELECT is(pg_temp.ddl('GRANT SELECT ON finance.account TO capture_reader'), 'GRANT finance.account', 'a grant on our table');
SELECT is(pg_temp.ddl('GRANT EXECUTE ON FUNCTION finance.audit_trace TO capture_reader'),
		  'GRANT finance.audit_trace(pg_catalog.uuid)', 'on our function');
SELECT is(pg_temp.ddl('GRANT USAGE ON SCHEMA finance TO capture_reader'), 'GRANT finance', 'on our schema');
SELECT is(pg_temp.ddl('GRANT SELECT ON ALL TABLES IN SCHEMA capture TO capture_reader'), 'GRANT capture', 'on a schema''s tables, some of them audited');
SELECT is(pg_temp.ddl('GRANT USAGE ON SCHEMA capture TO capture_reader'), NULL, 'on a schema that is not ours');
CREATE SCHEMA capture_empty;
SELECT is(pg_temp.ddl('GRANT SELECT ON ALL TABLES IN SCHEMA capture_empty TO capture_reader'), NULL, 'or its tables, none of them audited');
SELECT is(pg_temp.ddl('ALTER DEFAULT PRIVILEGES IN SCHEMA finance GRANT SELECT ON TABLES TO capture_reader'), 'ALTER DEFAULT PRIVILEGES finance',
		  'privileges of what will be made');
SELECT is(pg_temp.ddl('ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO capture_reader'), 'ALTER DEFAULT PRIVILEGES finance', 'everywhere');
SELECT is(pg_temp.ddl('ALTER DEFAULT PRIVILEGES IN SCHEMA capture_empty GRANT SELECT ON TABLES TO capture_reader'), NULL, 'or elsewhere');
SELECT is(pg_temp.ddl('ALTER EXTENSION finance DROP FUNCTION finance.audit_lag'), 'ALTER EXTENSION finance', 'a part of the extension that is let go');
SELECT is(pg_temp.ddl('ALTER EXTENSION finance ADD FUNCTION finance.audit_lag'), 'ALTER EXTENSION finance', 'and taken back');
SELECT throws_ok('ALTER SCHEMA finance RENAME TO elsewhere', '3F000', NULL, 'our schema keeps its name');
CREATE ROLE capture_leaver;
GRANT SELECT ON finance.account TO capture_leaver;
SELECT is(pg_temp.ddl('DROP OWNED BY capture_leaver'), 'DROP OWNED finance', 'what a role had, taken back at once');
SELECT is(pg_temp.ddl($$SELECT finance.grant_access('capture_reader', 'auditor')$$), NULL,
		  'grant_access() leaves its own record only');
SELECT is((SELECT operation FROM finance.audit_record ORDER BY xid DESC, sequence DESC LIMIT 1), 'grant_access', 'this');
SELECT is(pg_temp.ddl('CREATE FUNCTION finance.mine() RETURNS int LANGUAGE sql AS ''SELECT 1'''),
		  'CREATE FUNCTION finance.mine()', 'something new in our schema');
SELECT is(pg_temp.ddl('DROP FUNCTION finance.mine()'), 'DROP FUNCTION finance.mine()', 'dropped');
SELECT is(pg_temp.ddl('COMMENT ON VIEW finance.account IS ''x'''), 'COMMENT finance.account', 'a comment');
SELECT is(pg_temp.ddl('DROP TRIGGER finance_audit_update ON capture.person'),
		  'DROP TRIGGER finance_audit_update on capture.person', 'a trigger dropped');
SELECT is(pg_temp.ddl('DROP TABLE capture.person'), 'DROP TABLE capture.person', 'an audited table dropped');
SELECT throws_ok('SELECT finance._audit_ddl()', '39P03', NULL, 'the function is no other''s to call');

-- partitions made since get the parent's triggers and choice
CREATE TABLE capture.part (id int, secret text) PARTITION BY RANGE (id);
SELECT finance.audit_table('capture.part', mask => '{"secret": "redact"}') AS attached \gset
SELECT is(pg_temp.ddl('CREATE TABLE capture.part_1 PARTITION OF capture.part FOR VALUES FROM (0) TO (10)'),
		  'audit_table capture.part_1', 'a partition made');
CREATE TABLE capture.part_2 (id int, secret text) PARTITION BY RANGE (id);
CREATE TABLE capture.part_21 PARTITION OF capture.part_2 FOR VALUES FROM (10) TO (20);
SELECT is(pg_temp.ddl('ALTER TABLE capture.part ATTACH PARTITION capture.part_2 FOR VALUES FROM (10) TO (20)'),
		  'ALTER TABLE capture.part, audit_table capture.part_2, audit_table capture.part_21', 'one attached, with its own');
INSERT INTO capture.part_21 VALUES (11, 'x');
SELECT is(pg_temp.last_request('capture.part_21'), '{"new":{"id":11,"secret":"[redacted]"}}', 'masked as the parent''s');
SELECT is(finance.audit_table('capture.part', mask => '{"secret": "redact"}'), 0, 'nothing is left to do');
ALTER TABLE capture.part RENAME COLUMN secret TO hidden;
INSERT INTO capture.part VALUES (1, 'x');
SELECT is(pg_temp.last_request('capture.part'), '{"new":{"id":1,"hidden":"[redacted]"}}', 'renamed in all');
INSERT INTO capture.part_21 VALUES (12, 'x');
SELECT is(pg_temp.last_request('capture.part_21'), '{"new":{"id":12,"hidden":"[redacted]"}}', 'of them');
SELECT is(pg_temp.ddl('ALTER TABLE capture.part DETACH PARTITION capture.part_1'), 'ALTER TABLE capture.part', 'one that is detached');
INSERT INTO capture.part_1 VALUES (2, 'x');
SELECT is(pg_temp.last_request('capture.part_1'), '{"new":{"id":2,"hidden":"[redacted]"}}', 'stays audited, as it was');
SELECT is(pg_temp.ddl('ALTER TABLE capture.part_1 ADD COLUMN more int'), 'ALTER TABLE capture.part_1', 'in all');
CREATE TABLE capture.root (id int);
SELECT finance.audit_table('capture.root', rows => 'full') AS attached \gset
SELECT is(pg_temp.ddl('CREATE TABLE capture.heir (more int) INHERITS (capture.root)'),
		  'audit_table capture.heir', 'an inheriting table');
CREATE TABLE capture.adopted (id int);
SELECT is(pg_temp.ddl('ALTER TABLE capture.adopted INHERIT capture.root'),
		  'audit_table capture.adopted', 'one that becomes such');

-- ------------------------------------------------------------------------
-- hash
-- ------------------------------------------------------------------------

CREATE TABLE capture.card (number text PRIMARY KEY, again text, pin text);
SELECT finance.audit_table('capture.card', mask => '{"number": "hash", "again": "hash", "pin": "hash"}') AS attached \gset
INSERT INTO capture.card VALUES ('4111', '4111', '1');
SELECT matches(pg_temp.last_request('capture.card'),
			   '^{"new":{"number":"hmac-sha256:[0-9a-f]{64}","again":"hmac-sha256:[0-9a-f]{64}","pin":"hmac-sha256:[0-9a-f]{64}"}}$',
			   'hashes');
SELECT is(request #>> '{new,number}', request #>> '{new,again}', 'equal values have equal ones')
FROM pg_temp.last_record('capture.card');
SELECT isnt(request #>> '{new,number}', request #>> '{new,pin}', 'others have not')
FROM pg_temp.last_record('capture.card');
SELECT is(row_key::json ->> 'number', request #>> '{new,number}', 'so they do in the key')
FROM pg_temp.last_record('capture.card');
INSERT INTO capture.card VALUES ('4112', NULL, '1');
SELECT is(request #>> '{new,again}', NULL, 'null stays null') FROM pg_temp.last_record('capture.card');
SELECT is((SELECT count(DISTINCT request #>> '{new,pin}') FROM finance.audit_record
		   WHERE object = 'capture.card' AND operation = 'INSERT'), 1::bigint, 'in later records too');
SELECT set_config('finance.tenant', finance.create_tenant('capture')::text, true) AS tenant \gset
INSERT INTO capture.card VALUES ('4113', '4111', '1');
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE r.object = 'capture.card' AND r.request #>> '{new,pin}'
			 = (SELECT request #>> '{new,pin}' FROM pg_temp.last_record('capture.card'))), 1::bigint,
		  'another tenant''s are others');
SELECT set_config('finance.tenant', '0', true) AS tenant \gset

-- ------------------------------------------------------------------------
-- encrypt, and erase
-- ------------------------------------------------------------------------

CREATE TABLE capture.client (id int PRIMARY KEY, who text, email text, doc jsonb);
SELECT is(finance.audit_table('capture.client', mask => '{"email": "encrypt", "doc": "encrypt"}', subject => 'who'), 1,
		  'encrypted columns');
INSERT INTO capture.client VALUES (1, 'ann "a"', 'ann@example.org', '{"k": [1, "x"]}'), (2, 'bob', 'bob@example.org', NULL),
	(3, NULL, 'nobody@example.org', NULL);
UPDATE capture.client SET email = 'ann@example.com' WHERE id = 1;
CREATE FUNCTION pg_temp.inserted(key text) RETURNS finance.audit_record LANGUAGE sql AS $$
	SELECT r FROM finance.audit_record r
	WHERE r.object = 'capture.client' AND r.operation = 'INSERT' AND r.row_key = key
$$;
SELECT unalike((SELECT string_agg(request::text, '') FROM finance.audit_record WHERE object = 'capture.client'),
			   '%example%', 'no value is to be read');
SELECT is(request #>> '{new,email,subject}', 'ann "a"', 'its subject is') FROM pg_temp.inserted('{"id":1}');
SELECT is(request #>> '{new,email}', '[redacted]', 'without a subject it is redacted') FROM pg_temp.inserted('{"id":3}');
SELECT is(finance.audit_decrypt(request)::text,
		  '{"new":{"id":1,"who":"ann \"a\"","email":"ann@example.org","doc":{"k": [1, "x"]}}}', 'decrypted')
FROM pg_temp.inserted('{"id":1}');
SELECT is(finance.audit_decrypt(request)::text,
		  '{"old":{"email":"ann@example.org"},"new":{"id":1,"who":"ann \"a\"","email":"ann@example.com","doc":{"k": [1, "x"]}}}',
		  'an UPDATE too')
FROM pg_temp.last_record('capture.client');
SELECT is((SELECT operation || ' ' || object || ' ' || request::text FROM finance.audit_record ORDER BY xid DESC, sequence DESC LIMIT 1),
		  'read audit_decrypt {"values":"3","decrypted":"3"}', 'that it was read is recorded');
SELECT is(finance.audit_decrypt('{"a":"{\"encrypted\":\"","b":{"encrypted":"!","subject":"bob"},"c":{"encrypted":""}}')::text,
		  '{"a":"{\"encrypted\":\"","b":{"encrypted":"!","subject":"bob"},"c":{"encrypted":""}}', 'what is not ours stays');

CREATE TEMP TABLE before AS SELECT r.* FROM finance.audit_record r WHERE object = 'capture.client';
SELECT throws_ok($$SELECT finance.audit_erase_subject('bob', NULL)$$, '22004', NULL, 'no reason');
SELECT throws_ok($$SELECT finance.audit_erase_subject(NULL, 'x')$$, '22004', NULL, 'no subject');
SELECT throws_ok($$SELECT finance.audit_erase_subject('', 'x')$$, '22023', NULL, 'an empty subject');
SELECT is(finance.audit_erase_subject('ann "a"', 'asked for'), true, 'erased');
SELECT is((SELECT operation || ' ' || status || ' ' || request::text FROM finance.audit_record ORDER BY xid DESC, sequence DESC LIMIT 1),
		  'audit_erase_subject completed {"subject":"ann \"a\"","reason":"asked for"}', 'which is recorded');
SELECT is(finance.audit_erase_subject('ann "a"', 'again'), false, 'once');
SELECT is(finance.audit_decrypt(request)::text, request::text, 'and is not readable any more') FROM pg_temp.inserted('{"id":1}');
SELECT is(finance.audit_decrypt(request) #>> '{new,email}', 'bob@example.org', 'others are') FROM pg_temp.inserted('{"id":2}');
SELECT is((SELECT count(*) FROM before b JOIN finance.audit_record r USING (id)
		   WHERE (b.leaf_hash, b.payload_hash, b.salt, b.request::text) IS DISTINCT FROM (r.leaf_hash, r.payload_hash, r.salt, r.request::text)),
		  0::bigint, 'no record changed');
UPDATE capture.client SET email = 'back@example.org' WHERE id = 1;
SELECT is(request #>> '{new,email}', '[redacted]', 'no new key is made') FROM pg_temp.last_record('capture.client');
SELECT is((SELECT count(*) FROM finance.audit_subject WHERE key IS NULL), 1::bigint, 'the key is gone');
SELECT throws_ok('ALTER TABLE capture.client DROP COLUMN who', '2BP01', NULL, 'the subject''s column stays while values are encrypted');

-- the whole payload
SELECT id AS record FROM pg_temp.inserted('{"id":2}') \gset
SELECT throws_ok($$SELECT finance.audit_erase_payload(1, 'x')$$, 'LG204', 'there is no audit record 1', 'no such record');
SELECT throws_ok($$SELECT finance.audit_erase_payload(NULL, 'x')$$, '22004', NULL, 'null');
SELECT throws_ok(format($$SELECT finance.audit_erase_payload(%s, '')$$, :record), '22023', NULL, 'an empty reason');
SELECT is(finance.audit_erase_payload(:record, 'a mistake'), true, 'a payload erased');
SELECT is((SELECT (request::text, response::text, salt) IS NULL AND payload_hash IS NOT NULL FROM finance.audit_record WHERE id = :record),
		  true, 'what stays is its hash');
SELECT is((SELECT count(*) FROM before b JOIN finance.audit_record r USING (id)
		   WHERE b.id = :record AND to_jsonb(b) - '{request,response,salt}'::text[] IS DISTINCT FROM to_jsonb(r) - '{request,response,salt}'::text[]),
		  0::bigint, 'and all else, the leaf''s hash too');
SELECT is(finance.audit_erase_payload(:record, 'again'), false, 'once');
SELECT is((SELECT operation || ' ' || request::text FROM finance.audit_record ORDER BY xid DESC, sequence DESC LIMIT 1),
		  format('audit_erase_payload {"record_id":"%s","reason":"a mistake"}', :record), 'which is recorded');
SELECT throws_ok(format('UPDATE finance.audit_record SET request = NULL WHERE id = %s', :record), 'LG201', NULL,
				 'nobody else does so');
SELECT set_config('finance.tenant', :'tenant', true) AS other \gset
SELECT throws_ok(format($$SELECT finance.audit_erase_payload(%s, 'x')$$, :record), 'LG204', NULL, 'another tenant''s')
WHERE current_setting('finance.tenant') <> '0';
SELECT set_config('finance.tenant', '0', true) AS tenant \gset

-- whose it is
SET LOCAL ROLE capture_reader;
SELECT throws_ok('SELECT * FROM finance.audit_subject', '42501', NULL, 'an auditor reads no keys');
SELECT throws_ok('SELECT * FROM finance._audit_secret', '42501', NULL, 'nor the secret');
SELECT throws_ok($$SELECT finance.audit_erase_subject('bob', 'x')$$, '42501', NULL, 'nor erases');
SELECT throws_ok($$SELECT finance.audit_erase_payload(1, 'x')$$, '42501', NULL, 'anything');
SELECT lives_ok($$SELECT finance.audit_decrypt('{}')$$, 'but reads');
RESET ROLE;

-- ------------------------------------------------------------------------
-- context as an argument
-- ------------------------------------------------------------------------

SELECT count(*) AS made FROM (SELECT finance.create_account(code, currency, min_available => -1000)
	FROM (VALUES ('c1', 'EUR'), ('c2', 'EUR'), ('c3', 'USD'), ('c4', 'USD')) AS a (code, currency)) AS m \gset
-- who a call was recorded as
CREATE FUNCTION pg_temp.who(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	last int := (SELECT max(sequence) FROM finance.audit_record WHERE xid = pg_current_xact_id());
BEGIN
	EXECUTE format(call, $q$'{"actor": "ann", "trace_id": "00000000-0000-0000-0000-0000000000aa", "span_id": "s", "request_id": "r", "user_agent": "u", "reason": "why", "client_addr": "192.0.2.1"}'$q$);
	RETURN (SELECT string_agg(DISTINCT concat_ws(' ', operation, actor, right(trace_id::text, 2), span_id, request_id, user_agent, reason, host(client_addr)), ', ')
			FROM finance.audit_record WHERE xid = pg_current_xact_id() AND sequence > last);
END $$;
SELECT is(pg_temp.who($$SELECT finance.transfer('c1', 'c2', 1, context => %s)$$), 'transfer ann aa s r u why 192.0.2.1', 'transfer()');
SELECT is(concat(current_setting('finance.actor'), current_setting('finance.trace_id'), current_setting('finance.client_addr')), '',
		  'for that call only');
SELECT matches(pg_temp.who($$SELECT finance.transfer('c1', 'c2', 1)$$), '^transfer ' || current_user, 'not the next');
SELECT is(pg_temp.who($$SELECT finance.transfer((SELECT account_id FROM finance.account WHERE code = 'c1'), (SELECT account_id FROM finance.account WHERE code = 'c2'), 1, context => %s)$$),
		  'transfer ann aa s r u why 192.0.2.1', 'transfer() by id');
SELECT is(pg_temp.who($$SELECT finance.transfer_batch(ARRAY[finance.request('c1', 'c2', 1)], context => %s)$$), 'transfer ann aa s r u why 192.0.2.1', 'transfer_batch()');
SELECT is(pg_temp.who($$SELECT finance.journal(ARRAY[finance.leg('c1', 'debit', 1), finance.leg('c2', 'credit', 1)], context => %s)$$),
		  'transfer ann aa s r u why 192.0.2.1', 'journal()');
SELECT is(pg_temp.who($$SELECT finance.exchange('c1', 'c3', 1, 1.1, 'c2', 'c4', context => %s)$$), 'transfer ann aa s r u why 192.0.2.1', 'exchange()');
SELECT is(pg_temp.who($$SELECT finance.hold('c1', 'c2', 1, idempotency_key => 'h', context => %s)$$), 'hold ann aa s r u why 192.0.2.1', 'hold()');
SELECT max(hold_id) AS hold FROM finance.hold \gset
SELECT is(pg_temp.who(format($$SELECT finance.capture(%s, 0.5, context => %%s)$$, :hold)), 'capture ann aa s r u why 192.0.2.1', 'capture()');
SELECT is(pg_temp.who(format($$SELECT finance.release(%s, context => %%s)$$, :hold)), 'release ann aa s r u why 192.0.2.1', 'release()');
SELECT min(transfer_id) AS moved FROM finance.audit_record WHERE operation = 'transfer' AND xid = pg_current_xact_id() \gset
SELECT is(pg_temp.who(format($$SELECT finance.reverse_transfer(%s, 0.5, context => %%s)$$, :moved)), 'reverse ann aa s r u why 192.0.2.1', 'reverse_transfer()');
SELECT throws_ok($$SELECT finance.transfer('c1', 'c2', 1, context => '{"actr": "ann"}')$$, '22023', '"actr" of context is not known', 'unknown key');
SELECT throws_ok($$SELECT finance.transfer('c1', 'c2', 1, context => '{"actor": 1}')$$, '22023', NULL, 'no string');
SELECT throws_ok($$SELECT finance.transfer('c1', 'c2', 1, context => '[]')$$, '22023', NULL, 'no object');
SELECT throws_ok($$SELECT finance.transfer('c1', 'c2', 1, context => '{"client_addr": "here"}')$$, '22P02', NULL, 'no address');
SELECT throws_ok($$SELECT finance.transfer('c1', 'c2', 1, context => '{"trace_id": "here"}')$$, '22P02', NULL, 'no trace id');
SELECT throws_ok(format($$SELECT finance.transfer('c1', 'c2', 1, context => '{"actor": "%s"}')$$, repeat('x', 257)), '22001', NULL, 'an actor too long');
SELECT is(concat(current_setting('finance.actor'), current_setting('finance.trace_id'), current_setting('finance.client_addr')), '',
		  'nothing stays after an error');

-- ------------------------------------------------------------------------
-- reads
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.last_read() RETURNS text LANGUAGE sql AS $$
	SELECT r.operation || ' ' || coalesce(r.object, '') || ' ' || coalesce(r.request::text, '') FROM finance.audit_record r
	ORDER BY xid DESC, sequence DESC LIMIT 1
$$;
SELECT finance.balance('c1') AS balance \gset
SELECT unalike(pg_temp.last_read(), 'read balance%', 'reads are not recorded');
SET finance.audit_reads = 'balance, balance_at, statement, audit_trace, audit_history, audit_log';
SELECT finance.balance('c1') AS balance \gset
SELECT is(pg_temp.last_read(), 'read balance {"code":"c1"}', 'balance()');
SELECT finance.balance_at('c1', '2026-01-01 00:00Z') AS balance \gset
SELECT matches(pg_temp.last_read(), '^read balance_at {"code":"c1","at":".*2026.*","by":".*"}$', 'balance_at()');
SELECT count(*) AS lines FROM finance.statement('c1') \gset
SELECT matches(pg_temp.last_read(), '^read statement {"code":"c1".*}$', 'statement()');
SELECT count(*) AS records FROM finance.audit_trace('00000000-0000-0000-0000-0000000000aa') \gset
SELECT is(pg_temp.last_read(), 'read audit_trace {"trace_id":"00000000-0000-0000-0000-0000000000aa"}', 'audit_trace()');
SELECT count(*) AS records FROM finance.audit_log(object => 'capture.person') \gset
SELECT matches(pg_temp.last_read(), '^read audit_log {"object":"capture.person".*}$', 'audit_log()');
SELECT count(*) AS versions FROM finance.audit_history('capture.client', '{"id": 1}') \gset
SELECT is(pg_temp.last_read(), 'read audit_history {"target":"capture.client","key":"{\"id\": 1}"}', 'audit_history()');
SELECT count(*) AS versions FROM finance.audit_row_history('capture.client', '{"id":1}') \gset
SELECT is(pg_temp.last_read(), 'read audit_row_history {"object":"capture.client","row_key":"{\"id\":1}"}', 'audit_row_history()');
SELECT throws_ok($$SET finance.audit_reads = 'balance, everything'$$, '22023', NULL, 'an unknown name');
SELECT throws_ok($$SET finance.audit_reads = 'balance,,'$$, '22023', NULL, 'no list');
SET LOCAL ROLE capture_reader;
SELECT throws_ok($$SET finance.audit_reads = ''$$, '42501', NULL, 'who reads does not say whether it is recorded');
RESET ROLE;
SAVEPOINT read_only;
SET TRANSACTION READ ONLY;
SELECT throws_ok($$SELECT finance.balance('c1')$$, '25006', 'cannot call balance() where nothing can be written',
				 'refused where it cannot be recorded');
ROLLBACK TO read_only;

SELECT * FROM finish();
ROLLBACK;
