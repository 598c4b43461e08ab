-- verify_audit(): each problem is made, against all that prevents it, and must
-- be told, and where.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
CREATE SCHEMA verify_regress;
SET search_path = verify_regress;
SELECT finance.create_tenant('verify test') AS tenant \gset
SET finance.tenant = :tenant;

CREATE TABLE note (id int PRIMARY KEY, body text);
SELECT finance.audit_table('note');
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('a'), ('b')) AS v (code);
-- nothing that others have open holds this up for long
CREATE PROCEDURE seal() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM finance.seal_audit();
		COMMIT;
		EXIT WHEN (SELECT l.unsealed = 0 FROM finance._audit_lag() l);
	END LOOP;
END $$;
CALL seal();
INSERT INTO note SELECT g, 'n' FROM generate_series(1, 300) g;
BEGIN;
SELECT status FROM finance.transfer('a', 'b', 5);
UPDATE note SET body = 'changed' WHERE id <= 3;
COMMIT;
CALL seal();
SELECT size AS sealed, block FROM finance.audit_digest() \gset
SELECT id AS sealed_transfer FROM finance.audit_record WHERE operation = 'transfer' AND tenant_id = :tenant \gset

-- what verify_audit() says to a statement, of that record, and the statement back
CREATE FUNCTION told(statement text, wanted text, id bigint DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	partition regclass;
	found text;
BEGIN
	BEGIN
		FOR partition IN SELECT t FROM unnest('{finance.audit_block, finance.audit_leaves, finance.audit_node, finance.audit_tree,
				finance.audit_incarnation, finance.audit_term, finance._account}'::regclass[]) t
			UNION ALL SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'finance.audit_record'::regclass
			UNION ALL SELECT 'finance.audit_record'::regclass
		LOOP
			EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', partition);
		END LOOP;
		EXECUTE statement;
		SELECT coalesce(min(CASE WHEN v.record_id = told.id THEN 'told of the record'
			WHEN told.id IS NULL THEN 'told' END), 'not told') INTO found
		FROM finance.verify_audit() v
		WHERE regexp_replace(v.problem, '-?\d+', 'N', 'g') = wanted;
		RAISE EXCEPTION SQLSTATE 'XX998';
	EXCEPTION WHEN SQLSTATE 'XX998' THEN
	END;
	RETURN wanted || ': ' || found;
END $$;

SELECT * FROM finance.verify_audit();
SELECT * FROM finance.verify_audit(0, 0);
SELECT * FROM finance.verify_audit(from_leaf => :sealed - 10);
SELECT * FROM finance.verify_audit(:sealed - 200, :sealed - 100);
SELECT * FROM finance.verify_audit(:sealed);
SELECT count(*) FROM finance.check_integrity() WHERE invariant LIKE 'I6%';

-- records that are sealed
SELECT told('UPDATE finance.audit_record SET amount = 6 WHERE id = ' || :sealed_transfer, 'altered', :sealed_transfer);
SELECT told('UPDATE finance.audit_record SET salt = sha256(salt) WHERE id = ' || :sealed_transfer, 'payload altered', :sealed_transfer);
SELECT told('DELETE FROM finance.audit_record WHERE id = ' || :sealed_transfer, 'missing', :sealed_transfer);
SELECT told('DELETE FROM finance.audit_record WHERE id = ' || :sealed_transfer, 'version missing');
SELECT told('INSERT INTO finance.audit_record SELECT (jsonb_populate_record(r, ''{"id": ' || :sealed_transfer + 1 || '}'')).*
	FROM finance.audit_record r WHERE id = ' || :sealed_transfer, 'inserted', :sealed_transfer + 1);
SELECT told('INSERT INTO finance.audit_record SELECT (jsonb_populate_record(r, ''{"id": ' || :sealed_transfer + 1 || '}'')).*
	FROM finance.audit_record r WHERE id = ' || :sealed_transfer, 'version twice', :sealed_transfer + 1);
SELECT told('UPDATE finance._account SET version = version - 1 WHERE code = ''b'' AND tenant_id = ' || :tenant, 'version too high');
SELECT told('UPDATE finance._account SET version = 9223372036854775807 WHERE code = ''b'' AND tenant_id = ' || :tenant, 'version missing');
SELECT told('UPDATE finance.audit_record SET trace_until = NULL WHERE id = ' || :sealed_transfer, 'call', :sealed_transfer);

-- the tree
SELECT told('UPDATE finance.audit_block SET root = sha256(root) WHERE block = ' || :block, 'root of block N');
SELECT told('UPDATE finance.audit_block SET sealed_at = sealed_at + interval ''1 microsecond'' WHERE block = ' || :block, 'digest of block N');
SELECT told('UPDATE finance.audit_block SET previous = sha256(previous) WHERE block = ' || :block, 'chain of block N');
SELECT told('UPDATE finance.audit_block SET first_leaf = first_leaf + 1, records = records - 1 WHERE block = ' || :block, 'first leaf of block N');
SELECT told('UPDATE finance.audit_block SET first_leaf = first_leaf + 1, records = records - 1 WHERE block = ' || :block, 'leaves of block N');
SELECT told('UPDATE finance.audit_block SET ' || change || ' WHERE block = ' || :block, split_part(change, ' ', 1) || ' of block N')
FROM (VALUES ('first_xid = ''3'''), ('first_sequence = 0'), ('last_xid = ''3'''), ('last_sequence = 0'), ('first_id = 3'), ('last_id = last_id + 1'),
	('first_recorded_at = ''epoch'''), ('last_recorded_at = ''infinity''')) AS v (change);
SELECT told('DELETE FROM finance.audit_block WHERE block = 1', 'block missing');
SELECT told('UPDATE finance.audit_leaves SET leaves = leaves || ''\x00'' WHERE block = ' || :block, 'leaves of block N');
SELECT told('INSERT INTO finance.audit_leaves VALUES (999999, ''\x'')', 'leaves of block N');
SELECT told('UPDATE finance.audit_node SET hash = sha256(hash) WHERE (level, index) = (8, 0)', 'node N of level N');
SELECT told('INSERT INTO finance.audit_node VALUES (30, 7, ''\x'')', 'node N of level N');
SELECT told('DELETE FROM finance.audit_tree', 'tree missing');
SELECT told('UPDATE finance.audit_tree SET size = size + 1', 'tree');
SELECT told('UPDATE finance.audit_tree SET frontier = frontier || ''\x00''', 'frontier of the tree');
SELECT told('UPDATE finance.audit_tree SET incarnation = incarnation + 1', 'incarnation of the tree');
SELECT told('UPDATE finance.audit_tree SET horizon = ''3''', 'horizon of the tree');
SELECT told('DELETE FROM finance.audit_incarnation', 'incarnation missing');
SELECT told('UPDATE finance.audit_incarnation SET first_block = first_block + 1', 'first block of incarnation N');
SELECT told('INSERT INTO finance.audit_incarnation VALUES (1000, 7, 1, now())', 'incarnation');

-- what finds records: the run that has a row's, which may be the first
SELECT leaf AS noted FROM finance._audit_find(finance._audit_term('row', 'verify_regress.note', :tenant, '{"id":150}')) \gset
SELECT first_leaf AS run, entries > 300 AS has_many FROM finance.audit_term WHERE :noted >= first_leaf AND :noted < end_leaf \gset
\echo :has_many
SELECT change, told('UPDATE finance.audit_term SET ' || change || ' WHERE first_leaf = ' || :run, wanted)
FROM (VALUES ('terms = set_byte(terms, 7, 255 - get_byte(terms, 7))', 'terms from leaf N'),	-- a term
	('terms = set_byte(terms, 11, (get_byte(terms, 11) + 1) % 256)', 'terms from leaf N'),	-- a leaf
	('terms = set_byte(terms, 8, 255)', 'terms from leaf N'),					-- one that is elsewhere
	('terms = substr(terms, 13) || substr(terms, 1, 12)', 'terms from leaf N'),	-- the order
	('terms = substr(terms, 1, 8) || substr(terms, 21, 4) || substr(terms, 13, 8) || substr(terms, 9, 4) || substr(terms, 25)', 'terms from leaf N'),
	('terms = substr(terms, 13), entries = entries - 1', 'terms from leaf N'),
	('terms = substr(terms, 1, 12) || terms, entries = entries + 1', 'terms from leaf N'),
	('terms = substr(terms, 1, 12) || terms || substr(terms, length(terms) - 11)', 'terms from leaf N'),
	('terms = substr(terms, 2)', 'terms from leaf N'),
	('terms = '''', entries = 0', 'terms from leaf N'),
	('entries = entries + 1', 'terms from leaf N'),
	('first_leaf = first_leaf + 1', 'terms missing'),
	('first_leaf = first_leaf - 1', 'terms from leaf N'),
	('end_leaf = end_leaf - 1', 'terms missing'),
	('end_leaf = end_leaf + 1', 'terms from leaf N'),
	('end_leaf = first_leaf', 'terms missing'),
	('end_leaf = first_leaf', 'terms from leaf N'),
	('end_leaf = end_leaf + 5000000000', 'terms from leaf N')) AS v (change, wanted);
SELECT told('DELETE FROM finance.audit_term WHERE first_leaf = ' || :run, 'terms missing');
SELECT told('TRUNCATE finance.audit_term', 'terms missing');
SELECT told('INSERT INTO finance.audit_term SELECT 50, first_leaf, end_leaf, entries, terms FROM finance.audit_term WHERE first_leaf = ' || :run, 'terms from leaf N');
SELECT told('INSERT INTO finance.audit_term VALUES (50, ' || :sealed - 5 || ', ' || :sealed - 3 || ', 0, '''')', 'terms from leaf N');
SELECT told('INSERT INTO finance.audit_term VALUES (50, ' || :sealed || ', ' || :sealed + 3 || ', 0, '''')', 'terms from leaf N');
SELECT told('INSERT INTO finance.audit_term VALUES (50, -7, -3, 0, '''')', 'terms from leaf N');
-- a range is held against its part of a run
BEGIN;
ALTER TABLE finance.audit_term DISABLE TRIGGER guard;
UPDATE finance.audit_term t SET entries = entries - 1, terms = substr(terms, 1, 12 * k) || substr(terms, 12 * k + 13)
FROM (SELECT k FROM finance.audit_term t, generate_series(0, t.entries - 1) k WHERE t.first_leaf = :run
	AND ('x' || encode(substr(t.terms, 12 * k + 9, 4), 'hex'))::bit(32)::bigint + :run = :noted ORDER BY k LIMIT 1) AS hidden
WHERE t.first_leaf = :run;
SELECT leaf = :run AS of_run, regexp_replace(problem, '\d+', 'N') AS problem,
	substring(expected FROM '\d+')::integer - substring(found FROM '\d+')::integer AS fewer, regexp_replace(found, '\d+', 'N') AS found
FROM finance.verify_audit();
SELECT regexp_replace(problem, '\d+', 'N') AS problem, expected FROM finance.verify_audit(:noted, :noted + 1);
SELECT regexp_replace(problem, '\d+', 'N') AS problem FROM finance.verify_audit(:noted - 10);
SELECT regexp_replace(problem, '\d+', 'N') AS problem FROM finance.verify_audit(:noted - 100, :noted);
SELECT regexp_replace(problem, '\d+', 'N') AS problem FROM finance.verify_audit(:noted + 1);
SELECT invariant LIKE 'I6 terms from leaf%' AS found FROM finance.check_integrity() WHERE invariant LIKE 'I6%';
ALTER TABLE finance.audit_term ENABLE ALWAYS TRIGGER guard;
SELECT finance._rebuild_audit_terms() >= :sealed AS made_again;
SELECT * FROM finance.verify_audit();
ROLLBACK;
-- it needs to see all that is there
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT finance._rebuild_audit_terms();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

-- records that are not sealed: of this transaction, which is rolled back
BEGIN;
INSERT INTO note VALUES (1001, 'a'), (1002, 'b'), (1003, 'c');
SAVEPOINT s;
INSERT INTO note VALUES (1004, 'd');
SAVEPOINT t;
INSERT INTO note VALUES (1005, 'e');
RELEASE t;
ROLLBACK TO s;
INSERT INTO note VALUES (1006, 'f');
INSERT INTO note VALUES (1007, 'g');
SELECT array_agg(sequence ORDER BY sequence) FROM finance.audit_record WHERE xid = pg_current_xact_id();
SELECT * FROM finance.verify_audit();
SELECT max(id) FILTER (WHERE sequence = 1) AS one, max(id) FILTER (WHERE sequence = 2) AS two, max(id) FILTER (WHERE sequence = 3) AS three,
	max(id) FILTER (WHERE sequence = 4) AS four
FROM finance.audit_record WHERE xid = pg_current_xact_id() \gset
SELECT told('UPDATE finance.audit_record SET actor = ''nobody'' WHERE id = ' || :two, 'altered', :two);
SELECT told('UPDATE finance.audit_record SET request = ''{}'' WHERE id = ' || :two, 'payload altered', :two);
SELECT told('DELETE FROM finance.audit_record WHERE id = ' || :two, 'gap');
SELECT told('DELETE FROM finance.audit_record WHERE id = ' || :four, 'gap');
SELECT told('DELETE FROM finance.audit_record WHERE xid = pg_current_xact_id() AND sequence > 2', 'missing', :three);
SELECT told('INSERT INTO finance.audit_record SELECT (jsonb_populate_record(r, ''{"id": ' || :two + 1 || '}'')).*
	FROM finance.audit_record r WHERE id = ' || :two, 'out of order');
SELECT told('UPDATE finance.audit_record SET trace_until = ' || :two || ' WHERE id = ' || :one, 'call', :one);
SELECT told('UPDATE finance.audit_record SET trace_until = ' || :two || ' WHERE id = ' || :two, 'call', :two);
SELECT told('UPDATE finance.audit_record SET xid = ''900000000000'' WHERE id = ' || :two, 'inserted', :two);
SELECT told('UPDATE finance.audit_record SET system_identifier = 7 WHERE id = ' || :two, 'inserted', :two);
-- where and which, in full
ALTER TABLE finance.audit_record DISABLE TRIGGER ALL;
DO $$
DECLARE
	partition regclass;
BEGIN
	FOR partition IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'finance.audit_record'::regclass LOOP
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', partition);
	END LOOP;
END $$;
DELETE FROM finance.audit_record WHERE id IN (:two, :three);
SELECT leaf, record_id, xid = pg_current_xact_id() AS here, sequence, problem, expected, replace(found, :'four', '<four>') AS found
FROM finance.verify_audit();
-- the same of check_integrity(): of a record to whom it may be told
UPDATE finance.audit_record SET actor = 'nobody' WHERE id = :one;
SELECT invariant, tenant_id = :tenant AS ours, replace(regexp_replace(object, 'xid \d+', 'xid <x>'), :'one', '<one>') AS object
FROM finance.check_integrity() WHERE invariant LIKE 'I6%' ORDER BY 1;
ROLLBACK;

-- no range, and what is not sealed
SELECT * FROM finance.verify_audit(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM finance.verify_audit(5, 4);
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
SELECT * FROM finance.verify_audit(0, 9223372036854775807);
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default

-- in a read-only transaction
BEGIN READ ONLY;
SELECT * FROM finance.verify_audit();
ROLLBACK;

-- who may
CREATE ROLE verify_regress_app;
CREATE ROLE verify_regress_auditor;
SELECT finance.grant_access('verify_regress_app', 'app'), finance.grant_access('verify_regress_auditor', 'auditor');
SET ROLE verify_regress_app;
SELECT count(*) FROM finance.verify_audit();
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM finance._verify_audit();
\echo :LAST_ERROR_SQLSTATE
SET ROLE verify_regress_auditor;
SELECT count(*) FROM finance.verify_audit();
SELECT count(*) FROM finance._verify_audit();
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM finance.check_integrity() WHERE invariant LIKE 'I6%';
RESET ROLE;
DROP OWNED BY verify_regress_app, verify_regress_auditor;
DROP ROLE verify_regress_app, verify_regress_auditor;

SELECT * FROM finance.verify_audit();
SELECT * FROM finance.check_integrity() WHERE tenant_id = :tenant;
DROP SCHEMA verify_regress CASCADE;
