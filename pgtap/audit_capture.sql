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

SELECT plan(147);

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

SELECT is(pg_temp.ddl('CREATE TABLE capture.other (id int PRIMARY KEY)'), NULL, 'DDL that concerns nothing');
SELECT is(pg_temp.ddl('CREATE TEMP TABLE t (id serial PRIMARY KEY)'), NULL, 'a temporary table');
SELECT is(pg_temp.ddl('ALTER TABLE capture.other ADD COLUMN a int'), NULL, 'a table that is not audited');
SELECT is(pg_temp.ddl('DROP TABLE t, capture.other'), NULL, 'tables that go');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person ADD COLUMN note text'), 'ALTER TABLE capture.person', 'an audited table');
SELECT matches((pg_temp.last_record('capture.person')).request ->> 'command', 'ADD COLUMN note text', 'with the command');
SELECT is(pg_temp.ddl('ALTER TABLE capture.person DISABLE TRIGGER finance_audit_insert'), 'ALTER TABLE capture.person',
		  'a trigger disabled');
SELECT is(finance.audit_table('capture.person', mask => '{"address": "redact"}'), 1, 'and put right');
SELECT is(pg_temp.ddl('CREATE INDEX ON capture.person (note)'), 'CREATE INDEX capture.person_note_idx', 'an index on it');
SELECT is(pg_temp.ddl('DROP INDEX capture.person_note_idx'), NULL, 'which may go: it holds nothing');
SELECT is(pg_temp.ddl('CREATE POLICY own ON capture.person'), 'CREATE POLICY own on capture.person', 'a policy');
SELECT is(pg_temp.ddl('DROP POLICY own ON capture.person'), 'DROP POLICY own on capture.person', 'which is dropped');
SELECT is(pg_temp.ddl('GRANT SELECT ON capture.person TO capture_reader'), 'GRANT capture.person', 'a grant');
SELECT is(pg_temp.ddl('REVOKE SELECT ON capture.person FROM capture_reader'), 'REVOKE capture.person', 'taken back');
SELECT is(pg_temp.ddl('GRANT SELECT ON finance.account TO capture_reader'), 'GRANT finance.account', 'a grant on our table');
SELECT is(pg_temp.ddl('GRANT EXECUTE ON FUNCTION finance.audit_trace TO capture_reader'),
		  'GRANT finance.audit_trace(pg_catalog.uuid)', 'on our function');
SELECT is(pg_temp.ddl('GRANT USAGE ON SCHEMA finance TO capture_reader'), 'GRANT finance', 'on our schema');
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
