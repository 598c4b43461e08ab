-- Digests and proofs of the audit log: every record of a log in blocks of many
-- sizes is proved, nothing damaged is, and to whom.
--
-- The blocks are made here, of real records, by the definitions: what is sealed
-- by the extension itself is in t/420_proof.pl.  Run by pg_prove as a superuser;
-- leaves nothing behind.
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
-- no sealing but ours
LOCK TABLE finance.audit_block, finance.audit_tree, finance.audit_incarnation IN EXCLUSIVE MODE;

SELECT no_plan();

CREATE ROLE fin_test_members;
CREATE ROLE fin_test_auditor IN ROLE fin_test_members;
CREATE ROLE fin_test_witness;
CREATE ROLE fin_test_stranger;
SELECT finance.create_tenant('proof test', member_role => 'fin_test_members') AS tenant \gset
SELECT finance.create_tenant('another', member_role => 'fin_test_members') AS another \gset
SELECT finance.grant_access('fin_test_auditor', 'auditor') \g /dev/null
SELECT finance.grant_access('fin_test_stranger', 'auditor') \g /dev/null
SELECT finance.grant_access('fin_test_witness', 'witness') \g /dev/null
SET finance.tenant = :tenant;

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' ', SQLSTATE, SQLERRM, nullif(said, ''));
END $$;

-- ------------------------------------------------------------------------
-- before anything is sealed
-- ------------------------------------------------------------------------

SELECT is((SELECT count(*) FROM finance.audit_block), 0::bigint, 'this database has sealed nothing');
CREATE TABLE fin_test_book (n int PRIMARY KEY);
SELECT finance.audit_table('fin_test_book') \g /dev/null
INSERT INTO fin_test_book SELECT generate_series(1, 5000);
-- a few come late, as those of long transactions do: their blocks' ids overlap
CREATE TEMP TABLE entry AS
SELECT row_number() OVER (ORDER BY r.sequence + CASE WHEN r.sequence % 500 = 0 THEN 1700 ELSE 0 END, r.id) - 1 AS leaf, r.id, r.xid, r.sequence, r.leaf_hash
FROM finance.audit_record r WHERE r.object = 'public.fin_test_book' AND r.operation = 'INSERT';
CREATE INDEX ON entry (leaf);
ANALYZE entry;
SELECT is((SELECT count(*) FROM entry), 5000::bigint, 'there are records');
SELECT id AS first_id FROM entry WHERE leaf = 0 \gset

SELECT throws_ok('SELECT finance.audit_digest()', 'LG202', NULL, 'no digest yet');
SELECT throws_ok('SELECT finance.audit_digest(0)', 'LG202', NULL, 'nor one of the empty log');
SELECT throws_ok('SELECT finance.audit_consistency(0)', 'LG202', NULL, 'nor anything to continue');
SELECT throws_ok(format('SELECT finance.audit_proof(%s)', :first_id), 'LG203', NULL, 'a record that is not sealed');
SELECT throws_ok('SELECT finance.audit_proof(1)', 'LG204', NULL, 'a record that does not exist');
SET finance.tenant = :another;
SELECT throws_ok(format('SELECT finance.audit_proof(%s)', :first_id), 'LG204', NULL, 'a record of another tenant does not exist');
SET finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- blocks: one of 1,500 records, 300 of one, then of odd sizes; the last 27
-- records stay unsealed
-- ------------------------------------------------------------------------

CREATE TEMP TABLE cut AS
SELECT n AS block, sum(records) OVER (ORDER BY n) AS size, records
FROM (SELECT n, CASE WHEN n = 1 THEN 1500 WHEN n <= 301 THEN 1 ELSE 1 + (n * n * 7 + 3 * n) % 193 END AS records FROM generate_series(1, 400) n) s;
DELETE FROM cut WHERE size > 4973;
INSERT INTO cut SELECT max(block) + 1, 4973, 4973 - max(size) FROM cut HAVING max(size) < 4973;
SELECT size AS last_size FROM cut ORDER BY block DESC LIMIT 1 \gset
SELECT is(:last_size, 4973, 'cut into blocks');

-- the tree by the functions that pgtap/merkle.sql compares with the RFC
CREATE TEMP TABLE all_leaves AS SELECT array_agg(leaf_hash ORDER BY leaf) AS hashes FROM entry;
INSERT INTO finance.audit_incarnation SELECT 1, system_identifier, 1, now() FROM pg_control_system();
INSERT INTO finance.audit_block
SELECT c.block, 1, c.size - c.records, c.records, c.size, finance._merkle_root(a.hashes[:c.size]), sha256('previous ' || int8send(c.block)),
	sha256('digest ' || int8send(c.block)), f.xid, f.sequence, l.xid, l.sequence, i.first_id, i.last_id, now(), now(), '0/0', 1, now()
FROM all_leaves a, cut c JOIN entry f ON f.leaf = c.size - c.records JOIN entry l ON l.leaf = c.size - 1
CROSS JOIN LATERAL (SELECT min(id) AS first_id, max(id) AS last_id FROM entry WHERE leaf BETWEEN c.size - c.records AND c.size - 1) i;
INSERT INTO finance.audit_leaves
SELECT c.block, string_agg(int8send(r.id) || xid8send(r.xid) || int4send(r.sequence) || r.leaf_hash, '' ORDER BY r.leaf)
FROM cut c JOIN entry r ON r.leaf BETWEEN c.size - c.records AND c.size - 1 GROUP BY c.block;
INSERT INTO finance.audit_node
SELECT level, index, finance._merkle_root(a.hashes[(index << level) + 1:(index + 1) << level])
FROM all_leaves a, generate_series(8, 12) level, generate_series(0, (4973 >> level) - 1) index;

-- ------------------------------------------------------------------------
-- digests
-- ------------------------------------------------------------------------

SELECT results_eq('SELECT * FROM finance.audit_digest()',
	'SELECT b.block, b.incarnation, b.size, b.root, b.previous, b.digest, b.sealed_at, b.lsn, b.timeline, i.system_identifier
		FROM finance.audit_block b JOIN finance.audit_incarnation i USING (incarnation) ORDER BY block DESC LIMIT 1', 'the newest digest');
SELECT is_empty('SELECT block FROM finance.audit_block b WHERE (finance.audit_digest(b.size)).digest IS DISTINCT FROM b.digest', 'each, by its size');
SELECT throws_ok(format('SELECT finance.audit_digest(%s)', size), 'LG202', NULL, 'no digest of size ' || size)
FROM unnest('{-1, 0, 1, 1499, 4974, 9223372036854775807}'::bigint[]) AS size;

-- ------------------------------------------------------------------------
-- records
-- ------------------------------------------------------------------------

CREATE TEMP TABLE digest AS SELECT size, root FROM finance.audit_block;
SELECT root AS last_root FROM digest WHERE size = 4973 \gset
CREATE TEMP TABLE proof AS
SELECT r.leaf, r.id, r.leaf_hash AS expected, p.* FROM entry r, LATERAL finance.audit_proof(r.id) p WHERE r.leaf < 4973;
SELECT is((SELECT count(*) FROM proof), 4973::bigint, 'every record is proved');
SELECT is_empty('SELECT leaf FROM proof WHERE (record_id, leaf_index, leaf_hash, tree_size) IS DISTINCT FROM (id, leaf, expected, 4973::bigint)', 'as what it is');
SELECT is_empty(format('SELECT leaf FROM proof WHERE finance.verify_inclusion(expected, leaf, 4973, path, %L) IS NOT TRUE', :'last_root'), 'and each proof verifies');
SELECT is_empty('SELECT p.leaf FROM proof p, all_leaves a WHERE p.leaf % 83 = 0 AND path IS DISTINCT FROM finance._merkle_inclusion(a.hashes[:4973], p.leaf)', 'by the path that the RFC defines');
SELECT is_empty('SELECT leaf, size FROM entry r JOIN digest d ON d.size % 7 = r.leaf % 7 AND d.size > r.leaf, LATERAL finance.audit_proof(r.id, d.size) p
	WHERE r.leaf % 61 = 0 AND finance.verify_inclusion(r.leaf_hash, r.leaf, d.size, p.path, d.root) IS NOT TRUE', 'in older digests too');
SELECT is(pg_temp.attempt('SELECT finance.audit_proof((SELECT id FROM entry WHERE leaf = 1500), 1500)'), 'LG203 audit record ' || id || ' was sealed after the digest of size 1500', 'but in none before it')
FROM entry WHERE leaf = 1500;
SELECT throws_ok(format('SELECT finance.audit_proof(%s, %s)', :first_id, size), 'LG202', NULL, 'nor one of size ' || size) FROM unnest('{-1, 0, 7, 5000}'::int[]) AS size;
SELECT throws_ok('SELECT finance.audit_proof(NULL)', '22004', NULL, 'nor of null');
INSERT INTO finance.audit_tree (size, frontier, incarnation, horizon, block, digest) SELECT 4973, '', 1, xid, 1, '' FROM entry WHERE leaf = 0;
SELECT throws_ok(format('SELECT finance.audit_proof(%s)', id), 'LG203', NULL, 'nor of one not sealed, looked for from the horizon on') FROM entry WHERE leaf = 4999;
SELECT throws_ok('SELECT finance.audit_proof(1)', 'LG204', NULL, 'a record that does not exist');
SET finance.tenant = :another;
SELECT throws_ok(format('SELECT finance.audit_proof(%s)', id), 'LG204', NULL, 'nor a record of another tenant, sealed or not') FROM entry WHERE leaf IN (0, 4999);
SET finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- consistency
-- ------------------------------------------------------------------------

CREATE TEMP TABLE chosen AS
SELECT size, root FROM digest WHERE size IN (1500, 1501, 1536, 1792, 4973) OR size % 5 = 1 AND size > 1801 ORDER BY size;
DELETE FROM chosen WHERE size NOT IN (SELECT size FROM chosen ORDER BY size DESC LIMIT 40);
INSERT INTO chosen SELECT d.size, d.root FROM digest d WHERE d.size NOT IN (SELECT c.size FROM chosen c) ORDER BY d.size LIMIT (SELECT 40 - count(*) FROM chosen);
CREATE TEMP TABLE consistency AS
SELECT o.size AS m, o.root AS m_root, n.size AS n, n.root AS n_root, c.*
FROM chosen o JOIN chosen n ON n.size >= o.size, LATERAL finance.audit_consistency(o.size, n.size) c;
SELECT is((SELECT count(*) FROM consistency), 820::bigint, 'all pairs of 40 digests');
SELECT is_empty('SELECT m, n FROM consistency WHERE (old_size, old_root, new_size, new_root) IS DISTINCT FROM (m, m_root, n, n_root)', 'with their roots');
SELECT is_empty('SELECT m, n FROM consistency WHERE finance.verify_consistency(m, m_root, n, n_root, proof) IS NOT TRUE', 'each proof verifies');
SELECT is_empty('SELECT m, n FROM consistency, all_leaves a WHERE (m + n) % 11 = 0 AND proof IS DISTINCT FROM finance._merkle_consistency(a.hashes[:n], m)', 'and is as the RFC defines it');
SELECT is((SELECT c FROM finance.audit_consistency(1500, NULL) c), (SELECT c FROM finance.audit_consistency(1500, 4973) c), 'by default with the newest');
SELECT ok(finance.verify_consistency(old_size, old_root, new_size, new_root, proof) AND old_size = 0 AND proof = '{}', 'the empty log is continued by all') FROM finance.audit_consistency(0);
SELECT throws_ok('SELECT finance.audit_consistency(' || arguments || ')', sqlstate, NULL, 'audit_consistency(' || arguments || ')')
FROM (VALUES ('NULL', '22004'), ('NULL, 4973', '22004'), ('4974', '22023'), ('1501, 1500', '22023'), ('7', 'LG202'), ('-1', 'LG202'), ('1500, 7777', 'LG202')) AS v (arguments, sqlstate);

-- ------------------------------------------------------------------------
-- few rows are read
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.fetched(relation regclass) RETURNS bigint LANGUAGE sql AS
$$ SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0) + pg_stat_get_xact_tuples_returned(relation) FROM pg_index i WHERE i.indrelid = relation $$;
CREATE FUNCTION pg_temp.rows_read(statement text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	tables regclass[] := '{finance.audit_block, finance.audit_leaves, finance.audit_node, finance.audit_record}';
	before bigint[] := (SELECT array_agg(pg_temp.fetched(t) ORDER BY i) FROM unnest(tables) WITH ORDINALITY AS u (t, i));
BEGIN
	EXECUTE statement;
	RETURN (SELECT array_agg(pg_temp.fetched(t) - before[i] ORDER BY i) FROM unnest(tables) WITH ORDINALITY AS u (t, i));
END $$;
SELECT cmp_ok((pg_temp.rows_read(format('SELECT finance.audit_proof(%s)', id)))[3], '<=', 13::bigint, 'nodes read for leaf ' || leaf) FROM entry WHERE leaf IN (0, 1499, 1650, 2222, 4972);
SELECT cmp_ok((pg_temp.rows_read(format('SELECT finance.audit_proof(%s)', id)))[1], '<=', 40::bigint, 'blocks read for leaf ' || leaf) FROM entry WHERE leaf IN (0, 1, 600, 3500, 4972);
SELECT cmp_ok((pg_temp.rows_read('SELECT finance.audit_consistency(1500)'))[3], '<=', 13::bigint, 'nodes read for consistency');

-- ------------------------------------------------------------------------
-- what is damaged is no proof
-- ------------------------------------------------------------------------

-- as somebody who may do everything; undone
CREATE FUNCTION pg_temp.after(damage text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	EXECUTE damage;
	outcome := pg_temp.attempt(statement);
	RAISE EXCEPTION SQLSTATE 'XX995' USING MESSAGE = outcome;
EXCEPTION WHEN SQLSTATE 'XX995' THEN
	RETURN SQLERRM;
END $$;
ALTER TABLE finance.audit_block DISABLE TRIGGER ALL;
ALTER TABLE finance.audit_leaves DISABLE TRIGGER ALL;
ALTER TABLE finance.audit_node DISABLE TRIGGER ALL;
ALTER TABLE finance.audit_block DROP CONSTRAINT audit_block_hashes, DROP CONSTRAINT audit_block_adds_up;
DO $$
DECLARE
	month regclass;
BEGIN
	FOR month IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass LOOP
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', month);
	END LOOP;
END $$;
ALTER TABLE finance.audit_record DISABLE TRIGGER ALL;

SELECT is(left(pg_temp.after(damage, 'SELECT finance.audit_proof((SELECT id FROM entry WHERE leaf = 700))'), length(expected)), expected, damage)
FROM (VALUES
	('SELECT', 'done'),
	('UPDATE finance.audit_node SET hash = sha256(hash) WHERE level = 8 AND index = 3', 'LG205 audit log is damaged Leaf 700 does not lead to the root of size 4973.'),
	('DELETE FROM finance.audit_node WHERE level = 11 AND index = 1', 'LG205 audit log is damaged Node 1 of level 11 is missing.'),
	('UPDATE finance.audit_node SET hash = ''\x00'' WHERE level = 11', 'LG205 audit log is damaged A stored hash is not of 32 bytes.'),
	('UPDATE finance.audit_block SET root = sha256(root)', 'LG205 audit log is damaged Leaf 700 does not lead'),
	('UPDATE finance.audit_block SET root = ''''', 'LG205 audit log is damaged A stored hash is not of 32 bytes.'),
	('UPDATE finance.audit_leaves SET leaves = set_byte(leaves, 699 * 52 + 51, 255 - get_byte(leaves, 699 * 52 + 51)) WHERE block = 1', 'LG205 audit log is damaged Leaf 700 does not lead'),
	('UPDATE finance.audit_leaves SET leaves = set_byte(leaves, 700 * 52 + 51, 255 - get_byte(leaves, 700 * 52 + 51)) WHERE block = 1', 'LG205 audit log is damaged Record'),
	('UPDATE finance.audit_leaves SET leaves = substr(leaves, 1, 710 * 52) WHERE block = 1', 'LG205 audit log is damaged Block 1 does not have as many'),
	('UPDATE finance.audit_leaves SET leaves = substr(leaves, 53) || substr(leaves, 1, 52) WHERE block = 1', 'LG205 audit log is damaged Leaf 699 does not lead'),
	('UPDATE finance.audit_leaves SET leaves = leaves || leaves', 'LG205 audit log is damaged Block 1'),
	('DELETE FROM finance.audit_leaves WHERE block = (SELECT max(block) FROM finance.audit_leaves)', 'LG205 audit log is damaged Leaf 4'),
	('DELETE FROM finance.audit_leaves', 'LG205 audit log is damaged Block 1'),
	('UPDATE finance.audit_leaves SET leaves = ''''', 'LG205 audit log is damaged Block 1'),
	('DELETE FROM finance.audit_block', 'LG203 '),
	('UPDATE finance.audit_block SET first_leaf = first_leaf + 1', 'LG205 audit log is damaged Leaf '),
	('UPDATE finance.audit_block SET first_leaf = - 9223372036854775808 WHERE block > 1', 'LG205 audit log is damaged Leaf '),
	('UPDATE finance.audit_block SET first_leaf = -7', 'LG205 audit log is damaged Leaf '),
	('UPDATE finance.audit_record SET leaf_hash = sha256(leaf_hash) WHERE id = (SELECT id FROM entry WHERE leaf = 700)', 'LG205 audit log is damaged Record'),
	('DELETE FROM finance.audit_record WHERE id = (SELECT id FROM entry WHERE leaf = 700)', 'LG204 ')) AS v (damage, expected);
SELECT is(left(pg_temp.after(damage, 'SELECT finance.audit_consistency(1501)'), length(expected)), expected, damage)
FROM (VALUES
	('SELECT', 'done'),
	('UPDATE finance.audit_node SET hash = sha256(hash) WHERE level = 9 AND index = 3', 'LG205 audit log is damaged The tree of size 1501 is not the beginning of that of size 4973.'),
	('UPDATE finance.audit_block SET root = sha256(root) WHERE size = 1501', 'LG205 audit log is damaged The tree of size 1501 is not the beginning'),
	('UPDATE finance.audit_leaves SET leaves = sha256(leaves) || sha256(leaves) WHERE block = 2', 'LG205 audit log is damaged The tree of size 1501 is not the beginning'),
	('DELETE FROM finance.audit_leaves WHERE block = 2', 'LG205 audit log is damaged Leaf 1500 is in no block'),
	('UPDATE finance.audit_leaves SET leaves = substr(leaves, 1, 1499 * 52) WHERE block = 1', 'LG205 audit log is damaged Leaf 1280 is in no block'),
	('UPDATE finance.audit_leaves SET leaves = leaves || leaves', 'done'),
	('DELETE FROM finance.audit_block WHERE block = 3', 'LG205 audit log is damaged Leaf 1501 is in no block'),
	('DELETE FROM finance.audit_node', 'LG205 audit log is damaged Node ')) AS v (damage, expected);

-- ------------------------------------------------------------------------
-- to whom
-- ------------------------------------------------------------------------

SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'finance'::regnamespace AND has_function_privilege('fin_test_witness', oid, 'EXECUTE')$$,
	'{audit_digest, audit_consistency}'::text[], 'a witness may get digests and their consistency');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relnamespace = 'finance'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
	AND (has_any_column_privilege('fin_test_witness', oid, 'SELECT, INSERT, UPDATE, REFERENCES') OR has_table_privilege('fin_test_witness', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'))
	AND relkind <> 'S'$$, 'and reads no table');
GRANT SELECT ON entry TO PUBLIC;
SET LOCAL ROLE fin_test_witness;
SELECT is((finance.audit_digest()).size, 4973::bigint, 'a witness: digest');
SELECT is((finance.audit_consistency(1500)).new_size, 4973::bigint, 'a witness: consistency');
SELECT throws_ok('SELECT finance.audit_proof(1)', '42501', NULL, 'a witness: no proof');
SELECT throws_ok('SELECT * FROM finance.audit_block', '42501', NULL, 'no table');
SET LOCAL ROLE fin_test_auditor;
SELECT is((finance.audit_digest()).size, 4973::bigint, 'an auditor: digest');
SELECT is((finance.audit_consistency(1500)).new_size, 4973::bigint, 'an auditor: consistency');
SELECT is((finance.audit_proof(id)).leaf_index, 77::bigint, 'an auditor: proof') FROM entry WHERE leaf = 77;
SELECT ok(finance.verify_inclusion(leaf_hash, leaf_index, tree_size, path, root), 'an auditor checks it') FROM finance.audit_proof(:first_id);
SET LOCAL ROLE fin_test_stranger;
SELECT throws_ok(format('SELECT finance.audit_proof(%s)', :first_id), '42501', NULL, 'no record for an auditor who is no member of the tenant');
RESET ROLE;

-- of the blocks made here digests, order and times are not what sealing makes;
-- leaves, roots and nodes are
SELECT is_empty($$SELECT * FROM finance.check_integrity()
	WHERE invariant !~ '^I6 ' OR invariant ~ '^I6 (root|node|leaves|first leaf|block|altered|payload|version)'$$, 'all invariants hold');
SELECT * FROM finish();
ROLLBACK;
