-- How values are written in the audit log: one text for a value, whatever the
-- session's settings and whatever casts somebody made.
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

SELECT plan(23);

-- the new row of the newest record of a table
CREATE FUNCTION pg_temp.last_new(which text) RETURNS text
LANGUAGE sql AS $$
	SELECT (r.request -> 'new')::text FROM finance.audit_record r WHERE r.object = which
	ORDER BY r.xid DESC, r.sequence DESC LIMIT 1
$$;

CREATE SCHEMA vals;

-- ------------------------------------------------------------------------
-- casts of others
-- ------------------------------------------------------------------------

CREATE TYPE vals.state AS ENUM ('approved', 'rejected');
CREATE TYPE vals.pair AS (s vals.state, n int);
CREATE TABLE vals.deed (id int PRIMARY KEY, s vals.state, p vals.pair, ss vals.state[], pp vals.pair[]);
SELECT finance.audit_table('vals.deed') AS tables \gset
CREATE FUNCTION vals.lie(vals.state) RETURNS json LANGUAGE sql AS $$ SELECT '"rejected"'::json $$;
CREATE FUNCTION vals.lie(vals.pair) RETURNS json LANGUAGE sql AS $$ SELECT '"nothing"'::json $$;
CREATE CAST (vals.state AS json) WITH FUNCTION vals.lie(vals.state);
CREATE CAST (vals.pair AS json) WITH FUNCTION vals.lie(vals.pair);
INSERT INTO vals.deed VALUES (1, 'approved', ('approved', 1), '{approved,rejected}', ARRAY[('approved', 2), NULL]::vals.pair[]);
SELECT is(pg_temp.last_new('vals.deed'),
		  '{"id":1,"s":"approved","p":{"s":"approved","n":1},"ss":["approved","rejected"],'
		  '"pp":[{"s":"approved","n":2},null]}', 'no cast to json is asked');
CREATE TYPE vals.wide AS (a int);
CREATE TABLE vals.typed (id int PRIMARY KEY, w vals.wide);
SELECT finance.audit_table('vals.typed') AS tables \gset
INSERT INTO vals.typed VALUES (1, ROW(1));
SELECT is(pg_temp.last_new('vals.typed'), '{"id":1,"w":{"a":1}}', 'a row');
ALTER TYPE vals.wide ADD ATTRIBUTE "b ""c""" text;
INSERT INTO vals.typed VALUES (2, ROW(2, 'two'));
SELECT is(pg_temp.last_new('vals.typed'), '{"id":2,"w":{"a":2,"b \"c\"":"two"}}', 'its type got an attribute');
ALTER TYPE vals.wide DROP ATTRIBUTE a;
INSERT INTO vals.typed VALUES (3, ROW('three'));
SELECT is(pg_temp.last_new('vals.typed'), '{"id":3,"w":{"b \"c\"":"three"}}', 'and lost one');
ALTER TYPE vals.wide DROP ATTRIBUTE "b ""c""";
UPDATE vals.typed SET id = 4 WHERE id = 3;
SELECT is(pg_temp.last_new('vals.typed'), '{"id":4,"w":{}}', 'and all');

-- ------------------------------------------------------------------------
-- as row_to_json() has it
-- ------------------------------------------------------------------------

CREATE DOMAIN vals.names AS text[];
CREATE DOMAIN vals.twin AS vals.pair;
CREATE TABLE vals.many (id int PRIMARY KEY, a int[], b text[], c numeric[], d jsonb[], e bool[], f vals.names, g vals.twin,
	h vals.deed, i int2vector, j uuid[], k varchar[], l "char", bits bit(3), n inet, o numeric[]);
DROP CAST (vals.state AS json);
DROP CAST (vals.pair AS json);
SELECT finance.audit_table('vals.many') AS tables \gset
INSERT INTO vals.many VALUES (1, '{1,NULL,3}', '{"a \"b\"",NULL,NULL}', '{1.50,NaN,-2}', ARRAY['{"x": 1}', '[]']::jsonb[],
	'{t,f}', '{x,y}', ROW('approved', 7), ROW(1, 'approved', NULL, '{}', NULL), '1 2', ARRAY['00000000-0000-0000-0000-0000000000aa']::uuid[],
	'{}', 'q', B'101', '10.0.0.1', '[5:6]={1,2}');
SELECT is(pg_temp.last_new('vals.many'), (SELECT row_to_json(m)::text FROM vals.many AS m), 'arrays, rows, domains');
INSERT INTO vals.many (id, a, b) VALUES (2, '{{1,2},{3,4}}', '{{{"a"},{"b"}},{{"c"},{NULL}}}');
SELECT is(pg_temp.last_new('vals.many'), (SELECT row_to_json(m)::text FROM vals.many m WHERE id = 2), 'more dimensions');
INSERT INTO vals.many (id) VALUES (3);
SELECT is(pg_temp.last_new('vals.many'), (SELECT row_to_json(m)::text FROM vals.many m WHERE id = 3), 'nothing');

-- ------------------------------------------------------------------------
-- settings
-- ------------------------------------------------------------------------

CREATE TYPE vals.moment AS (at timestamptz, took interval, raw bytea, x float8);
CREATE TYPE vals.spans AS RANGE (subtype = interval);
CREATE TABLE vals.styled (id int, during daterange, since tstzrange, m vals.moment, at timestamptz[], x float8[], p point,
	spans vals.spans, days datemultirange, of regclass, mp vals.moment[], who date, secret daterange, PRIMARY KEY (id, during));
SELECT finance.audit_table('vals.styled', mask => '{"secret": "hash"}') AS tables \gset
CREATE FUNCTION pg_temp.write(which int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM vals.styled;
	INSERT INTO vals.styled VALUES (1, daterange(make_date(2026, 1, 2), make_date(2026, 3, 4)),
		tstzrange(to_timestamp(0), to_timestamp(86400.5)),
		ROW(to_timestamp(0), make_interval(years => 1, days => 2, secs => 3.5), decode('00ff', 'hex'), 0.98765432101234567),
		ARRAY[to_timestamp(0), 'infinity'], ARRAY[123.456789012345, 1e300, 'NaN'], point(123.456, 0.9876543210123),
		vals.spans(make_interval(months => 1), make_interval(days => 40)), datemultirange(daterange(make_date(2026, 1, 2), NULL)),
		'vals.styled', ARRAY[ROW(NULL, make_interval(hours => 25), NULL, 1)]::vals.moment[], NULL,
		daterange(make_date(2026, 1, 2), make_date(2026, 3, 4)));
	RETURN (SELECT r.row_key::text || r.request::text FROM finance.audit_record r WHERE r.object = 'vals.styled'
			ORDER BY r.xid DESC, r.sequence DESC LIMIT 1);
END $$;
SET LOCAL datestyle = 'ISO, MDY';
SET LOCAL timezone = 'UTC';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL extra_float_digits = 1;
SELECT pg_temp.write(1) AS written \gset
SELECT is(regexp_replace(:'written', 'hmac-sha256:[0-9a-f]{64}', 'H'),
	'{"id":1,"during":"[2026-01-02,2026-03-04)"}'
	'{"new":{"id":1,"during":"[2026-01-02,2026-03-04)","since":"[\"1970-01-01 00:00:00+00\",\"1970-01-02 00:00:00.5+00\")",'
	'"m":{"at":"1970-01-01T00:00:00+00:00","took":"1 year 2 days 00:00:03.5","raw":"\\x00ff","x":0.9876543210123456},'
	'"at":["1970-01-01T00:00:00+00:00","infinity"],"x":[123.456789012345,1e+300,"NaN"],"p":"(123.456,0.9876543210123)",'
	'"spans":"[\"1 mon\",\"40 days\")","days":"{[2026-01-02,)}","of":"vals.styled",'
	'"mp":[{"at":null,"took":"25:00:00","raw":null,"x":1}],"who":null,"secret":"H"}}', 'values of such types');
SET LOCAL datestyle = 'SQL, DMY';
SELECT is(pg_temp.write(1), :'written', 'do not follow DateStyle');
SET LOCAL datestyle = 'German';
SET LOCAL timezone = 'America/New_York';
SELECT is(pg_temp.write(1), :'written', 'nor TimeZone');
SET LOCAL intervalstyle = 'iso_8601';
SELECT is(pg_temp.write(1), :'written', 'nor IntervalStyle');
SET LOCAL bytea_output = 'escape';
SELECT is(pg_temp.write(1), :'written', 'nor bytea_output');
SET LOCAL extra_float_digits = -15;
SELECT is(pg_temp.write(1), :'written', 'nor extra_float_digits');
SET LOCAL search_path = vals, public;
SET LOCAL quote_all_identifiers = on;
SELECT is(pg_temp.write(1), :'written', 'nor search_path and quote_all_identifiers');
SELECT is(array_to_string(ARRAY[current_setting('datestyle'), current_setting('timezone'), current_setting('intervalstyle'),
	current_setting('bytea_output'), current_setting('extra_float_digits'), current_setting('search_path')], '; '),
	'German, DMY; America/New_York; iso_8601; escape; -15; vals, public', 'which stay as they were');
-- the key that audit_history() is asked for is written in the same way
SELECT is((SELECT count(*) FROM finance.audit_history('vals.styled', '{"id": 1, "during": "[2026-01-02,2026-03-04)"}') h
		   WHERE h.operation = 'INSERT'),
		  7::bigint, 'audit_history() finds them all');

-- ------------------------------------------------------------------------
-- what names whose encrypted values are
-- ------------------------------------------------------------------------

RESET search_path;
CREATE TABLE vals.born (id int PRIMARY KEY, day date, name text);
SELECT finance.audit_table('vals.born', mask => '{"name": "encrypt"}', subject => 'day') AS tables \gset
INSERT INTO vals.born VALUES (1, make_date(2026, 1, 2), 'Ann');
SET LOCAL datestyle = 'SQL, DMY';
INSERT INTO vals.born VALUES (2, make_date(2026, 1, 2), 'Bob');
SELECT is((pg_temp.last_new('vals.born')::json #>> '{name,subject}'), '2026-01-02', 'a subject does not follow DateStyle');
SELECT is((SELECT count(*) FROM finance.audit_subject WHERE subject LIKE '%2026%'), 1::bigint, 'its values have one key');
SELECT is(finance.audit_erase_subject('2026-01-02', 'gone'), true, 'which is erased');

-- ------------------------------------------------------------------------
-- names
-- ------------------------------------------------------------------------

CREATE TABLE vals.named (id int PRIMARY KEY);
SET LOCAL quote_all_identifiers = on;
SELECT finance.audit_table('vals.named') AS tables \gset
INSERT INTO vals.named VALUES (1);
ALTER TABLE vals.named ADD COLUMN v text;
GRANT SELECT ON vals.named TO PUBLIC;
SELECT is((SELECT string_agg(r.operation, ', ' ORDER BY r.xid, r.sequence) FROM finance.audit_record r WHERE r.object = 'vals.named'),
		  'audit_table, INSERT, ALTER TABLE, GRANT', 'a table has one name, whatever quote_all_identifiers is');
SELECT is((SELECT count(*) FROM finance.audit_history('vals.named', '{"id": 1}')), 1::bigint, 'audit_history() finds it');
CREATE INDEX named_v ON vals.named (v);
SELECT count(*) AS before FROM finance.audit_record WHERE operation = 'DROP INDEX' \gset
DROP INDEX vals.named_v;
SELECT is((SELECT count(*) FROM finance.audit_record WHERE operation = 'DROP INDEX'), :before::bigint + 1, 'an index dropped is recorded');
RESET quote_all_identifiers;

SELECT * FROM finish();
ROLLBACK;
