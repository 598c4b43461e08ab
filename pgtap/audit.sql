-- Audit log: properties, privileges, and every failing path.
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

SELECT plan(109);

-- ------------------------------------------------------------------------
-- the leaf encoding of src/audit_row.h, built from the stored columns
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.field(value bytea) RETURNS bytea LANGUAGE sql AS
$$ SELECT coalesce(int4send(length(value)) || value, '\xffffffff') $$;

CREATE FUNCTION pg_temp.field(value text) RETURNS bytea LANGUAGE sql AS
$$ SELECT pg_temp.field(convert_to(value, 'UTF8')) $$;

CREATE FUNCTION pg_temp.payload_hash(r finance.audit_record) RETURNS bytea
LANGUAGE sql AS $$
	SELECT sha256('\x02' || r.salt || pg_temp.field(r.request::text)
				  || pg_temp.field(r.response::text))
$$;

CREATE FUNCTION pg_temp.leaf(r finance.audit_record) RETURNS bytea
LANGUAGE sql AS $$
	SELECT int2send(r.leaf_version)
		|| pg_temp.field(int8send(r.id))
		|| pg_temp.field(timestamptz_send(r.recorded_at))
		|| pg_temp.field(xid8send(r.xid))
		|| pg_temp.field(int8send(r.system_identifier))
		|| pg_temp.field(int4send(r.tenant_id))
		|| pg_temp.field(int4send(r.sequence))
		|| pg_temp.field(uuid_send(r.trace_id))
		|| pg_temp.field(int8send(r.message_id))
		|| pg_temp.field(int8send(r.transfer_id))
		|| pg_temp.field(int8send(r.account_id))
		|| pg_temp.field(int8send(r.counterparty_id))
		|| pg_temp.field(int8send(r.account_version))
		|| pg_temp.field(int8send(r.counterparty_version))
		|| pg_temp.field(r.payload_hash)
		|| pg_temp.field(inet_send(r.client_addr))
		|| pg_temp.field(r.actor)
		|| pg_temp.field(r.session_user_name)
		|| pg_temp.field(r.role_name)
		|| pg_temp.field(r.application_name)
		|| pg_temp.field(r.user_agent)
		|| pg_temp.field(r.span_id)
		|| pg_temp.field(r.request_id)
		|| pg_temp.field(r.reason)
		|| pg_temp.field(r.operation)
		|| pg_temp.field(r.status)
		|| pg_temp.field(r.object)
		|| pg_temp.field(r.row_key)
		|| pg_temp.field(r.currency)
		|| pg_temp.field(r.amount::text)
		|| pg_temp.field(r.balance_before::text)
		|| pg_temp.field(r.balance_after::text)
		|| pg_temp.field(r.counterparty_balance_before::text)
		|| pg_temp.field(r.counterparty_balance_after::text)
$$;

-- records of a table, or all, newest first
CREATE FUNCTION pg_temp.last_record(which text) RETURNS finance.audit_record
LANGUAGE sql AS $$
	SELECT r FROM finance.audit_record r WHERE r.object = which
	ORDER BY r.sequence DESC LIMIT 1
$$;

CREATE FUNCTION pg_temp.records(which text, what text) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM finance.audit_record r
	WHERE r.object = which AND r.operation = what
$$;

-- INSERT statements that passed the guard, in this transaction.  Written
-- directly (finance.direct_writes) there is no statement to count; then the
-- records alone are looked at.
SET finance.direct_writes = off;
SET track_functions = 'all';
CREATE FUNCTION pg_temp.writes() RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(pg_stat_get_xact_function_calls('finance._audit_guard()'::regprocedure), 0)
$$;

-- how many writes a statement makes
CREATE FUNCTION pg_temp.writes_of(statement text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_temp.writes();
BEGIN
	EXECUTE statement;
	RETURN pg_temp.writes() - before;
END $$;

-- ------------------------------------------------------------------------
-- merkle: RFC 6962
-- ------------------------------------------------------------------------

SELECT is(finance._merkle_leaf(''),
		  '\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'::bytea,
		  'leaf of nothing');
SELECT is(finance._merkle_leaf('L123456'),
		  '\x395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56'::bytea,
		  'leaf of L123456');

CREATE TEMP TABLE leaf_input (position int, leaf bytea);
INSERT INTO leaf_input
SELECT ordinality, finance._merkle_leaf(data)
FROM unnest(ARRAY['', '\x00', '\x10', '\x2021', '\x3031', '\x40414243',
				  '\x5051525354555657', '\x606162636465666768696a6b6c6d6e6f'
				 ]::bytea[]) WITH ORDINALITY AS input (data, ordinality);

SELECT is(finance._merkle_root(coalesce((SELECT array_agg(leaf ORDER BY position)
										 FROM leaf_input WHERE position <= size), '{}')),
		  root, 'root of a tree of ' || size)
FROM (VALUES
	(0, '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'::bytea),
	(1, '\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'),
	(2, '\xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'),
	(3, '\xaeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77'),
	(4, '\xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7'),
	(5, '\x4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4'),
	(6, '\x76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef'),
	(7, '\xddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c'),
	(8, '\x5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328')
) AS expected (size, root);

-- sizes beyond the vectors, against the definition
CREATE FUNCTION pg_temp.mth(leaves bytea[]) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	n int := cardinality(leaves);
	k int := 1;
BEGIN
	IF n = 1 THEN
		RETURN leaves[1];
	END IF;
	WHILE k * 2 < n LOOP
		k := k * 2;
	END LOOP;
	RETURN sha256('\x01' || pg_temp.mth(leaves[:k]) || pg_temp.mth(leaves[k + 1:]));
END $$;
SELECT is((SELECT count(*) FROM generate_series(1, 70) AS size,
				  LATERAL (SELECT array_agg(sha256(int4send(i)) ORDER BY i) AS leaves
						   FROM generate_series(1, size) AS i) AS tree
		   WHERE finance._merkle_root(leaves) IS DISTINCT FROM pg_temp.mth(leaves)),
		  0::bigint, 'roots of 1 to 70 leaves follow the definition');

SELECT throws_ok($$SELECT finance._merkle_root(ARRAY['\x00']::bytea[])$$,
				 '22023', NULL, 'a leaf hash of another length is refused');
SELECT throws_ok($$SELECT finance._merkle_root(ARRAY[NULL]::bytea[])$$,
				 '22023', NULL, 'a null leaf hash is refused');

-- ------------------------------------------------------------------------
-- row changes
-- ------------------------------------------------------------------------

CREATE SCHEMA audit_test;
CREATE TABLE audit_test.item (id int PRIMARY KEY, name text, price numeric(10, 2));

SELECT is(finance.audit_table('audit_test.item'), 1, 'audit_table attaches');
SELECT is(finance.audit_table('audit_test.item'), 0, 'a second time it does nothing');
SELECT is(pg_temp.records('audit_test.item', 'audit_table'), 1::bigint,
		  'that auditing began is recorded, once');
SELECT set_eq($$SELECT tgname::text, tgenabled::text FROM pg_trigger
				WHERE tgrelid = 'audit_test.item'::regclass$$,
			  $$VALUES ('finance_audit_insert', 'O'), ('finance_audit_update', 'O'),
					   ('finance_audit_delete', 'O'), ('finance_audit_truncate', 'A'),
					   ('finance_audit_replicated', 'R')$$,
			  'five triggers, of which one fires, replicated or not');

SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item VALUES (1, 'one', 1.5)$$),
		  1::bigint, 'an INSERT of one row is one write');
SELECT is((pg_temp.last_record('audit_test.item')).operation, 'INSERT', 'operation');
SELECT is((pg_temp.last_record('audit_test.item')).row_key, '{"id":1}', 'row key');
SELECT is((pg_temp.last_record('audit_test.item')).request::text,
		  '{"new":{"id":1,"name":"one","price":1.50}}', 'the new row');
SELECT is((pg_temp.last_record('audit_test.item')).xid, pg_current_xact_id(),
		  'top-level transaction id');
SELECT is((pg_temp.last_record('audit_test.item')).actor, current_user::text, 'actor');
SELECT is((pg_temp.last_record('audit_test.item')).session_user_name,
		  session_user::text, 'session user');

SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item
							  SELECT g, 'row ' || g, g FROM generate_series(2, 1000) AS g$$),
		  2::bigint, 'an INSERT of 999 rows is two writes');
SELECT is(pg_temp.records('audit_test.item', 'INSERT'), 1000::bigint,
		  'and a record per row');
SELECT is(pg_temp.writes_of($$UPDATE audit_test.item SET price = price + 1$$),
		  2::bigint, 'an UPDATE of 1000 rows is two writes');
SELECT is(pg_temp.records('audit_test.item', 'UPDATE'), 1000::bigint,
		  'and a record per row');
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE r.object = 'audit_test.item' AND r.operation = 'UPDATE'
			 AND (r.request -> 'old' -> 'id' IS NOT NULL
				  OR (r.request -> 'old' ->> 'price')::numeric + 1
					 IS DISTINCT FROM (r.request -> 'new' ->> 'price')::numeric
				  OR (r.row_key::json ->> 'id') IS DISTINCT FROM r.request -> 'new' ->> 'id')),
		  0::bigint, 'old and new versions of each row are together');
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item
							  SELECT g, NULL, g FROM generate_series(1001, 3501) AS g$$),
		  5::bigint, 'an INSERT of 2501 rows is five writes');
SELECT is(pg_temp.writes_of($$UPDATE audit_test.item SET id = 9001 WHERE id = 1$$),
		  1::bigint, 'a change of the key');
SELECT is((pg_temp.last_record('audit_test.item')).row_key, '{"id":1}',
		  'is recorded under the key before');
SELECT is(pg_temp.writes_of($$UPDATE audit_test.item SET id = 1 WHERE id = -1$$),
		  0::bigint, 'a statement that changes nothing writes nothing');
SELECT is(pg_temp.writes_of($$DELETE FROM audit_test.item WHERE id BETWEEN 3000 AND 3002$$),
		  1::bigint, 'a DELETE is one write');
SELECT is(pg_temp.records('audit_test.item', 'DELETE'), 3::bigint,
		  'and a record per row');
SELECT is((pg_temp.last_record('audit_test.item')).request::text,
		  '{"old":{"id":3002,"name":null,"price":3002.00}}', 'the old row');
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item VALUES (2, 'x', 1), (4000, 'x', 1)
							  ON CONFLICT (id) DO UPDATE SET name = 'conflict'$$),
		  2::bigint, 'INSERT ... ON CONFLICT is one write for each kind');
SELECT is((SELECT array_agg(r.operation || r.row_key ORDER BY r.sequence)
		   FROM finance.audit_record r
		   WHERE r.request -> 'new' ->> 'name' IN ('x', 'conflict')),
		  ARRAY['UPDATE{"id":2}', 'INSERT{"id":4000}'], 'with the right rows');
SELECT is(pg_temp.writes_of($$MERGE INTO audit_test.item i
							  USING (VALUES (4000, 'merged'), (4001, 'added')) AS s (id, name)
							  ON i.id = s.id
							  WHEN MATCHED THEN UPDATE SET name = s.name
							  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name, 0)$$),
		  2::bigint, 'MERGE is one write for each kind');
SELECT is(pg_temp.writes_of($$TRUNCATE audit_test.item$$), 1::bigint,
		  'TRUNCATE is one write');
SELECT is((pg_temp.last_record('audit_test.item')).operation, 'TRUNCATE', 'operation');
SELECT is((SELECT (r.row_key, r.request::text, r.salt, r.payload_hash) IS NULL
		   FROM pg_temp.last_record('audit_test.item') r), true,
		  'and no row, so no payload, salt or payload hash');

-- batches are bounded by bytes as well
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item
							  SELECT g, repeat('x', 1500000), 1 FROM generate_series(1, 6) AS g$$),
		  6::bigint, 'six rows of 1.5 MB are six writes');

-- session_replication_role
SET LOCAL session_replication_role = replica;
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.item VALUES (100, 'r', 1)$$),
		  1::bigint, 'recorded under session_replication_role = replica');
SELECT throws_ok('DELETE FROM finance.audit_record', 'LG201', NULL,
				 'guarded under session_replication_role = replica');
SET LOCAL session_replication_role = origin;

-- savepoints
SELECT lives_ok($$DO $do$
BEGIN
	INSERT INTO audit_test.item VALUES (200, 'kept', 1);
	BEGIN
		INSERT INTO audit_test.item VALUES (201, 'lost', 1);
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	INSERT INTO audit_test.item VALUES (202, 'kept', 1);
END $do$ $$, 'a savepoint is rolled back');
SELECT is((SELECT array_agg(r.row_key ORDER BY r.sequence) FROM finance.audit_record r
		   WHERE r.request -> 'new' ->> 'name' IN ('kept', 'lost')),
		  ARRAY['{"id":200}', '{"id":202}'], 'and its records with it');

-- names, keys and types that need care
CREATE TABLE audit_test."odd ""name""" (
	b text, gone int, a int, "Key ""2""" uuid,
	doubled int GENERATED ALWAYS AS (a * 2) STORED,
	raw bytea, at timestamptz, list int[], doc jsonb,
	PRIMARY KEY ("Key ""2""", a));
ALTER TABLE audit_test."odd ""name""" DROP COLUMN gone;
SELECT is(finance.audit_table('audit_test."odd ""name"""'), 1, 'a name that needs quotes');
INSERT INTO audit_test."odd ""name"""
VALUES (E'line\nquote" back\\ é', 1, '00000000-0000-0000-0000-0000000000aa', DEFAULT,
		'\xff00', '2026-01-02 03:04:05Z', '{1,2}', '{"k": null}');
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE r.object = 'audit_test."odd ""name"""' AND r.operation = 'INSERT'),
		  1::bigint, 'is recorded as quoted');
SELECT is((SELECT r.row_key FROM finance.audit_record r
		   WHERE r.object = 'audit_test."odd ""name"""' AND r.operation = 'INSERT'),
		  '{"a":1,"Key \"2\"":"00000000-0000-0000-0000-0000000000aa"}',
		  'key of two columns');
SELECT is((SELECT r.request ->> 'new' FROM finance.audit_record r
		   WHERE r.object = 'audit_test."odd ""name"""' AND r.operation = 'INSERT'),
		  (SELECT row_to_json(t)::text FROM audit_test."odd ""name""" t),
		  'the row as row_to_json has it, generated column in, dropped one out');

CREATE TABLE audit_test.heap (a int);
SELECT is(finance.audit_table('audit_test.heap'), 1, 'a table without a key');
INSERT INTO audit_test.heap VALUES (1);
SELECT is((pg_temp.last_record('audit_test.heap')).row_key, NULL, 'has no row key');

-- partitions and inheritance
CREATE TABLE audit_test.part (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE audit_test.part_1 PARTITION OF audit_test.part FOR VALUES FROM (0) TO (10);
CREATE TABLE audit_test.part_2 (extra int, v text, id int);
ALTER TABLE audit_test.part_2 DROP COLUMN extra;
ALTER TABLE audit_test.part ATTACH PARTITION audit_test.part_2 FOR VALUES FROM (10) TO (20);
SELECT is(finance.audit_table('audit_test.part'), 3, 'a partitioned table and its partitions');
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.part VALUES (1, 'a'), (11, 'b')$$),
		  1::bigint, 'one write through the parent');
SELECT is(pg_temp.records('audit_test.part', 'INSERT'), 2::bigint, 'recorded for the parent');
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.part_2 (id, v) VALUES (12, 'c')$$),
		  1::bigint, 'one write to the partition');
SELECT is(pg_temp.records('audit_test.part_2', 'INSERT'), 1::bigint, 'recorded for the partition');
UPDATE audit_test.part SET id = id + 10 WHERE id = 1;
SELECT is((pg_temp.last_record('audit_test.part')).request::text,
		  '{"old":{"id":1},"new":{"id":11,"v":"a"}}', 'a row that moves');
CREATE FUNCTION audit_test.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RETURN NULL; END $$;
INSERT INTO audit_test.part VALUES (2, 'moves nowhere'), (3, 'stays');
CREATE TRIGGER refuse BEFORE INSERT ON audit_test.part_2
	FOR EACH ROW EXECUTE FUNCTION audit_test.refuse();
UPDATE audit_test.part SET id = CASE id WHEN 2 THEN 15 ELSE 4 END WHERE id IN (2, 3);
SELECT set_eq($$SELECT r.request::text FROM finance.audit_record r
				WHERE r.object = 'audit_test.part' AND r.operation = 'UPDATE'
				  AND r.request::text ~ 'stays|nowhere'$$,
			  ARRAY['{"old":{"id":2,"v":"moves nowhere"}}',
					'{"old":{"id":3,"v":"stays"}}',
					'{"new":{"id":4,"v":"stays"}}'],
			  'a move refused by a trigger: versions recorded by themselves');
CREATE TABLE audit_test.part_3 PARTITION OF audit_test.part FOR VALUES FROM (20) TO (30);
SELECT is(finance.audit_table('audit_test.part'), 0, 'a partition made since has its triggers');
SELECT is(finance.unaudit_table('audit_test.part'), 4, 'unaudit_table takes all off');
SELECT is(finance.unaudit_table('audit_test.part'), 0, 'a second time it does nothing');
SELECT is(pg_temp.records('audit_test.part', 'unaudit_table'), 1::bigint,
		  'that auditing ended is recorded');
SELECT is(pg_temp.writes_of($$INSERT INTO audit_test.part VALUES (1, 'a')$$),
		  0::bigint, 'nothing recorded any more');
CREATE TABLE audit_test.child () INHERITS (audit_test.heap);
SELECT is(finance.audit_table('audit_test.heap'), 0, 'so has an inheriting table made since');

-- a cascade is a statement of its own
CREATE TABLE audit_test.line (item int REFERENCES audit_test.item ON DELETE CASCADE);
SELECT is(finance.audit_table('audit_test.line'), 1, 'a referencing table');
INSERT INTO audit_test.line VALUES (200), (200);
DELETE FROM audit_test.item WHERE id = 200;
SELECT is(pg_temp.records('audit_test.line', 'DELETE'), 2::bigint,
		  'rows deleted by a cascade');

-- a trigger that was disabled is put right
ALTER TABLE audit_test.heap DISABLE TRIGGER finance_audit_insert;
SELECT is(finance.audit_table('audit_test.heap'), 1, 'a disabled trigger');
SELECT is(pg_temp.writes_of('INSERT INTO audit_test.heap VALUES (2)'), 1::bigint,
		  'records again');

-- written directly, the same is recorded
RESET finance.direct_writes;
INSERT INTO audit_test.item SELECT i, 'direct', i FROM generate_series(50001, 52500) i;
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE r.object = 'audit_test.item' AND r.operation = 'INSERT'
			 AND (r.request #>> '{new,name}') = 'direct'),
		  2500::bigint, 'a statement of 2500 rows, written directly');

-- ------------------------------------------------------------------------
-- every leaf hash is that of the documented encoding
-- ------------------------------------------------------------------------

-- money too: every column filled
SELECT finance.create_account('audit-from', 'EUR', min_available => -1000000) > 0 AS made_from,
	   finance.create_account('audit-to', 'EUR') > 0 AS made_to \gset
SELECT finance.set_context(user_agent => 'pgtap é') AS trace \gset
SELECT count(*) AS moved
FROM (VALUES (0.01), (12345.67), (100), (10000)) AS amounts (amount),
	 LATERAL finance.transfer('audit-from', 'audit-to', amounts.amount) \gset
SELECT is(array_agg(amount || ' ' || balance_before || ' ' || balance_after || ' '
					|| counterparty_balance_before || ' ' || counterparty_balance_after
					ORDER BY sequence),
		  ARRAY['0.01 0.00 -0.01 0.00 0.01', '12345.67 -0.01 -12345.68 0.01 12345.68',
				'100.00 -12345.68 -12445.68 12345.68 12445.68',
				'10000.00 -12445.68 -22445.68 12445.68 22445.68'],
		  'transfers are recorded with both sides before and after')
FROM finance.audit_record
WHERE operation = 'transfer' AND xid = pg_current_xact_id();
SELECT cmp_ok((SELECT count(*) FROM finance.audit_record), '>', 4000::bigint,
			  'there are records to check');
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE finance._merkle_leaf(pg_temp.leaf(r)) IS DISTINCT FROM r.leaf_hash
			  OR sha256('\x00' || pg_temp.leaf(r)) IS DISTINCT FROM r.leaf_hash),
		  0::bigint, 'every leaf hash is that of the documented encoding');
SELECT is((SELECT count(*) FROM finance.audit_record r
		   WHERE pg_temp.payload_hash(r) IS DISTINCT FROM r.payload_hash
			  OR (r.salt IS NULL) <> (r.request IS NULL AND r.response IS NULL)
			  OR length(r.salt) <> 16),
		  0::bigint, 'every payload hash is that of the documented encoding');
SELECT is((SELECT count(*) - count(DISTINCT salt) FROM finance.audit_record
		   WHERE salt IS NOT NULL), 0::bigint, 'no salt is used twice');
SELECT is((SELECT count(*) - count(DISTINCT (xid, sequence)) FROM finance.audit_record),
		  0::bigint, 'the place in the transaction is unique');
SELECT is((SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY xid, sequence) AS previous
								 FROM finance.audit_record) AS r WHERE id <= previous),
		  0::bigint, 'ids grow within the transaction');

-- ------------------------------------------------------------------------
-- nobody else changes the log
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.refused(target text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	command text;
BEGIN
	FOREACH command IN ARRAY ARRAY[
		'INSERT INTO %1$s SELECT * FROM %1$s LIMIT 1',
		'INSERT INTO %1$s SELECT * FROM %1$s WHERE false',
		'UPDATE %s SET amount = 1',
		'UPDATE %s SET amount = 1 WHERE false',
		'DELETE FROM %s',
		'TRUNCATE %s',
		'MERGE INTO %1$s a USING %1$s b ON a.id = b.id WHEN MATCHED THEN DELETE']
	LOOP
		RETURN NEXT throws_ok(format(command, target), 'LG201', NULL,
							  regexp_replace(format(command, target), '_\d+', '_N', 'g'));
	END LOOP;
END $$;

SELECT pg_temp.refused('finance.audit_record');
SELECT tableoid::regclass AS partition FROM finance.audit_record LIMIT 1 \gset
SELECT pg_temp.refused(:'partition');
SELECT is((SELECT count(*) FROM pg_trigger t JOIN pg_inherits i ON i.inhrelid = t.tgrelid
		   WHERE i.inhparent = 'finance.audit_record'::regclass
			 AND t.tgname = 'guard' AND t.tgenabled = 'A'),
		  (SELECT count(*) FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass),
		  'each partition has the guard, enabled always');
SELECT throws_ok('SELECT finance._audit_guard()', '39P01', NULL,
				 'the guard is not called directly');

-- ------------------------------------------------------------------------
-- what cannot be audited, and by whom
-- ------------------------------------------------------------------------

CREATE VIEW audit_test.view AS SELECT 1 AS one;
CREATE TEMP TABLE temporary (a int);
CREATE ROLE audit_test_owner;
CREATE ROLE audit_test_other;
GRANT USAGE ON SCHEMA finance, audit_test TO audit_test_owner, audit_test_other;
GRANT EXECUTE ON FUNCTION finance.audit_table, finance.unaudit_table, finance.audit_trace
	TO audit_test_owner, audit_test_other;

SELECT throws_ok($$SELECT finance.audit_table('audit_test.view')$$, '42809', NULL, 'a view');
SELECT throws_ok($$SELECT finance.audit_table('temporary')$$, '42809', NULL, 'a temporary table');
SELECT throws_ok($$SELECT finance.audit_table('pg_class')$$, '42501', NULL, 'a system catalog');
SELECT throws_ok($$SELECT finance.audit_table('finance.audit_record')$$, 'LG201', NULL, 'the log itself');
SELECT throws_ok(format('SELECT finance.audit_table(%L)', :'partition'), 'LG201', NULL, 'a partition of the log');
SELECT throws_ok($$SELECT finance.audit_table(1)$$, '42P01', NULL, 'no table at all');

ALTER TABLE audit_test.line OWNER TO audit_test_owner;
SET LOCAL ROLE audit_test_other;
SELECT throws_ok($$SELECT finance.audit_table('audit_test.item')$$, '42501', NULL,
				 'audit_table by another than the owner');
SELECT throws_ok($$SELECT finance.unaudit_table('audit_test.item')$$, '42501', NULL,
				 'unaudit_table by another than the owner');
SELECT throws_ok($$SELECT * FROM finance.audit_record$$, '42501', NULL,
				 'the log is not readable by everybody');
SET LOCAL ROLE audit_test_owner;
SELECT is(finance.unaudit_table('audit_test.line'), 1, 'unaudit_table by the owner');
SELECT is(finance.audit_table('audit_test.line'), 1, 'audit_table by the owner');
RESET ROLE;

-- attached by hand
CREATE TRIGGER by_hand AFTER INSERT ON audit_test.child
	FOR EACH STATEMENT EXECUTE FUNCTION finance._audit_rows();
SELECT throws_ok('INSERT INTO audit_test.child VALUES (1)', '39P01', NULL,
				 'the row trigger needs transition tables');

-- ------------------------------------------------------------------------
-- who acts
-- ------------------------------------------------------------------------

CREATE FUNCTION audit_test.definer() RETURNS void LANGUAGE sql SECURITY DEFINER AS
$$ INSERT INTO audit_test.item VALUES (300, 'by definer', 1) $$;
SET LOCAL ROLE audit_test_other;
SELECT audit_test.definer();
RESET ROLE;
SELECT is((pg_temp.last_record('audit_test.item')).actor, 'audit_test_other',
		  'the actor is the caller of a SECURITY DEFINER function');
SELECT is((pg_temp.last_record('audit_test.item')).session_user_name, session_user::text,
		  'the session user is who connected');

SELECT finish();
ROLLBACK;
