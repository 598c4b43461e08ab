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

SELECT plan(59);

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

SELECT throws_ok($$SELECT finance.audit_table(NULL)$$, '22004', NULL, 'no table');
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
SELECT is(finance.audit_table('capture.person'), 0, 'nothing of it changed the triggers');

-- ------------------------------------------------------------------------
-- redact, and a table that changes
-- ------------------------------------------------------------------------

SELECT is(finance.audit_table('capture.person', mask => '{"email": "redact", "phone": "redact"}', ignore => '{seen}'),
		  1, 'masks');
UPDATE capture.person SET email = 'ann@example.com';
SELECT is(pg_temp.last_request('capture.person'),
		  '{"old":{"email":"[redacted]"},"new":{"id":1,"name":"Ann","email":"[redacted]","phone":"[redacted]"}}',
		  'a redacted value is not recorded, that it changed is');
