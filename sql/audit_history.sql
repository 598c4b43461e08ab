-- One row through time: whatever happened to it, its table, and its values.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;

CREATE SCHEMA audit_history;
-- versions of a row, and whether the last is what the table has now
CREATE FUNCTION audit_history.versions(target regclass, key jsonb)
	RETURNS TABLE (version bigint, operation text, old_values jsonb, row_state jsonb)
LANGUAGE sql AS $$
	SELECT version, operation, old_values, row_state FROM finance.audit_history(target, key)
$$;
-- another session's transaction may hold sealing up for a moment
CREATE PROCEDURE audit_history.seal() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM finance.seal_audit();
		EXIT WHEN (SELECT unsealed = 0 FROM finance.audit_lag());
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

-- a trigger for each row changes its own row again: recorded before what fired it
CREATE TABLE audit_history.again (id int PRIMARY KEY, v text, n int DEFAULT 0);
CREATE FUNCTION audit_history.change_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN
		UPDATE audit_history.again SET n = n + 1 WHERE id = new.id;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER change_again AFTER INSERT OR UPDATE ON audit_history.again
	FOR EACH ROW EXECUTE FUNCTION audit_history.change_again();
SELECT finance.audit_table('audit_history.again');
INSERT INTO audit_history.again VALUES (1, 'a');
SELECT * FROM audit_history.versions('audit_history.again', '{"id": 1}');
UPDATE audit_history.again SET v = 'b';
BEGIN;
UPDATE audit_history.again SET v = 'c';
DELETE FROM audit_history.again;
INSERT INTO audit_history.again VALUES (1, 'd');
COMMIT;
SELECT * FROM audit_history.versions('audit_history.again', '{"id": 1}');
SELECT to_jsonb(a) = (SELECT row_state FROM finance.audit_history('audit_history.again', '{"id": 1}')
					  ORDER BY version DESC LIMIT 1) AS as_it_is FROM audit_history.again a;
CALL audit_history.seal();
SELECT count(*), max(row_state::text) FILTER (WHERE version = 8)
FROM finance.audit_history('audit_history.again', '{"id": 1}');
-- of a row that was there before the table was audited
CREATE TABLE audit_history.before (id int PRIMARY KEY, v text, n int DEFAULT 0);
INSERT INTO audit_history.before VALUES (1, 'a');
SELECT finance.audit_table('audit_history.before', rows => 'changed');
BEGIN;
UPDATE audit_history.before SET v = 'b';
DELETE FROM audit_history.before;
INSERT INTO audit_history.before VALUES (1, 'c');
COMMIT;
SELECT * FROM audit_history.versions('audit_history.before', '{"id": 1}');
-- more changes in one transaction than are looked ahead
BEGIN;
DO $$ BEGIN FOR i IN 1..100 LOOP UPDATE audit_history.before SET n = i % 2; END LOOP; END $$;
COMMIT;
SELECT count(*), count(DISTINCT row_state), bool_and(row_state ->> 'n' <> old_values ->> 'n')
FROM finance.audit_history('audit_history.before', '{"id": 1}') WHERE version > 4;

-- a TRUNCATE ends the row, and the next INSERT starts from nothing
CREATE TABLE audit_history.cut (id int PRIMARY KEY, v text, w text);
SELECT finance.audit_table('audit_history.cut', rows => 'changed');
INSERT INTO audit_history.cut VALUES (1, 'a', 'x'), (2, 'b', 'y');
TRUNCATE audit_history.cut;
SELECT * FROM audit_history.versions('audit_history.cut', '{"id": 1}');
SELECT column_name, old_value, new_value FROM finance.audit_diff('audit_history.cut', '{"id": 1}', '-infinity', 'infinity');
BEGIN;
INSERT INTO audit_history.cut VALUES (1, 'b');
TRUNCATE audit_history.cut;
TRUNCATE audit_history.cut;
INSERT INTO audit_history.cut VALUES (1, 'c');
UPDATE audit_history.cut SET v = 'd';
COMMIT;
CALL audit_history.seal();
SELECT version, operation, row_state FROM finance.audit_history('audit_history.cut', '{"id": 1}');
SELECT version, operation, row_state FROM finance.audit_row_history('audit_history.cut', '{"id":2}');
-- columns that are gone are not in later versions
SELECT finance.audit_table('audit_history.cut', rows => 'delta');
ALTER TABLE audit_history.cut DROP COLUMN w;
UPDATE audit_history.cut SET v = 'e';
ALTER TABLE audit_history.cut RENAME v TO renamed;
UPDATE audit_history.cut SET renamed = 'f';
SELECT finance.audit_table('audit_history.cut', rows => 'full');
ALTER TABLE audit_history.cut RENAME renamed TO again;
UPDATE audit_history.cut SET again = 'g';
SELECT version, operation, row_state FROM finance.audit_history('audit_history.cut', '{"id": 1}') WHERE version > 5;
-- what was erased tells nothing; a row whose key changed is there no more
SELECT finance.audit_erase_payload(max(record_id), 'a test') FROM finance.audit_history('audit_history.cut', '{"id": 1}');
SELECT version, operation, row_state FROM finance.audit_history('audit_history.cut', '{"id": 1}') WHERE version > 7;
UPDATE audit_history.cut SET id = 3;
TRUNCATE audit_history.cut;
INSERT INTO audit_history.cut VALUES (1, 'h');
SELECT version, operation, row_state FROM finance.audit_history('audit_history.cut', '{"id": 1}') WHERE version > 7;

-- what jsonb has no room for
CREATE TABLE audit_history.odd (id int PRIMARY KEY, j json, t text);
SELECT finance.audit_table('audit_history.odd');
INSERT INTO audit_history.odd VALUES (1, '{"x":"\u0000"}', 'a'), (2, '[1e200000]', 'b'), (3, '"\ud800"', 'c'),
	(4, '["\ud83d\ude00", "\\u0000", 1e-9, -1.50, "\"}", {"a" : [ ]}, 1e131072]', 'd'),
	(5, '["\ud83d\ude00", "\\u0000", 1e-9, -1.50, "\"}", {"a" : [ ]}, 1e130000]', 'e');
UPDATE audit_history.odd SET t = t || 'b';
SELECT id, operation, old_values, row_state FROM audit_history.odd,
	audit_history.versions('audit_history.odd', jsonb_build_object('id', id)) WHERE id < 5 ORDER BY id, version;
SELECT row_state -> 't' AS t, row_state -> 'j' -> 4 AS j4, row_state -> 'j' -> 5 AS j5
FROM finance.audit_history('audit_history.odd', '{"id": 5}');
UPDATE audit_history.odd SET j = '"\u0000\u0000"' WHERE id = 1;
SELECT column_name, old_value, new_value FROM finance.audit_diff('audit_history.odd', '{"id": 1}',
	(SELECT recorded_at FROM finance.audit_history('audit_history.odd', '{"id": 1}') WHERE version = 1), 'infinity')
ORDER BY column_name COLLATE "C";

-- a key that is masked
CREATE TABLE audit_history.person (ssn text PRIMARY KEY, v int);
SELECT finance.audit_table('audit_history.person');
INSERT INTO audit_history.person VALUES ('s1', 1), ('s2', 1);
SELECT finance.audit_table('audit_history.person', mask => '{"ssn": "hash"}');
SELECT version, operation, row_state ->> 'v' AS v FROM finance.audit_history('audit_history.person', '{"ssn": "s1"}');
UPDATE audit_history.person SET v = v + 1;
DELETE FROM audit_history.person WHERE ssn = 's1';
SELECT version, operation, row_state ->> 'v' AS v FROM finance.audit_history('audit_history.person', '{"ssn": "s1"}');
SELECT version, operation, row_state ->> 'v' AS v, row_state ->> 'ssn' LIKE 'hmac-sha256:%' AS hashed
FROM finance.audit_history('audit_history.person', '{"ssn": "s2"}');
SELECT column_name, new_value FROM finance.audit_diff('audit_history.person', '{"ssn": "s2"}', '-infinity', 'infinity')
WHERE column_name = 'v';
CREATE TABLE audit_history.secret (ssn text PRIMARY KEY, v int);
SELECT finance.audit_table('audit_history.secret', mask => '{"ssn": "redact"}');
SELECT finance.audit_history('audit_history.secret', '{"ssn": "s1"}');

-- partitions: whichever table a statement names
CREATE TABLE audit_history.part (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE audit_history.part_eu (v text, region text NOT NULL, id int NOT NULL) PARTITION BY RANGE (id);
ALTER TABLE audit_history.part ATTACH PARTITION audit_history.part_eu FOR VALUES IN ('eu', 'ch');
CREATE TABLE audit_history.part_eu_low PARTITION OF audit_history.part_eu FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE audit_history.part_eu_high PARTITION OF audit_history.part_eu FOR VALUES FROM (100) TO (200);
CREATE TABLE audit_history.part_rest PARTITION OF audit_history.part DEFAULT PARTITION BY HASH (id);
CREATE TABLE audit_history.part_rest_0 PARTITION OF audit_history.part_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE audit_history.part_rest_1 PARTITION OF audit_history.part_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT finance.audit_table('audit_history.part');
INSERT INTO audit_history.part VALUES (1, 'eu', 'a'), (100, 'eu', 'A'), (1, 'us', 'r'), (2, 'us', 'r'), (3, 'us', 'r'), (4, 'us', 'r');
UPDATE audit_history.part_eu SET v = v || 'b';
UPDATE audit_history.part_eu_low SET v = v || 'c';
UPDATE audit_history.part_rest_0 SET v = v || '0';
UPDATE audit_history.part_rest_1 SET v = v || '1';
SELECT t, version, operation, row_state ->> 'v' AS v
FROM unnest('{part,part_eu,part_eu_low,part_eu_high,part_rest_0}'::text[]) WITH ORDINALITY AS t(t, n),
	finance.audit_history(('audit_history.' || t)::regclass, '{"id": 1, "region": "eu"}') ORDER BY n, version;
SELECT id, max(version) AS versions, max(row_state ->> 'v') = 'r' || right(p.tableoid::regclass::text, 1) AS of_its_partition
FROM audit_history.part p, finance.audit_history('audit_history.part', jsonb_build_object('id', id, 'region', region))
WHERE region = 'us' GROUP BY id, p.tableoid ORDER BY id;
TRUNCATE audit_history.part_eu_high;
SELECT id, max(version) AS versions, count(row_state) AS live FROM unnest('{1,100}'::int[]) AS id,
	finance.audit_history('audit_history.part', jsonb_build_object('id', id, 'region', 'eu')) GROUP BY id ORDER BY id;
TRUNCATE audit_history.part;
SELECT id, max(version) AS versions, count(row_state) AS live FROM unnest('{1,100}'::int[]) AS id,
	finance.audit_history('audit_history.part', jsonb_build_object('id', id, 'region', 'eu')) GROUP BY id ORDER BY id;
SELECT count(*) FROM finance.audit_history('audit_history.part_eu', '{"id": 900, "region": "eu"}');

-- inheriting tables: a statement on the parent shows its columns only
CREATE TABLE audit_history.parent (id int PRIMARY KEY, v text);
CREATE TABLE audit_history.child (extra text, PRIMARY KEY (id)) INHERITS (audit_history.parent);
SELECT finance.audit_table('audit_history.parent');
INSERT INTO audit_history.child VALUES (1, 'a', 'x');
INSERT INTO audit_history.parent VALUES (2, 'p');
UPDATE audit_history.parent SET v = v || 'b';
UPDATE audit_history.child SET extra = 'y';
TRUNCATE ONLY audit_history.parent;
UPDATE audit_history.parent SET v = v || 'c';
SELECT t, version, operation, row_state FROM unnest('{parent,child}'::text[]) WITH ORDINALITY AS t(t, n),
	finance.audit_history(('audit_history.' || t)::regclass, '{"id": 1}') ORDER BY n DESC, version;
SELECT version, operation, row_state FROM finance.audit_history('audit_history.parent', '{"id": 2}');
TRUNCATE audit_history.parent;
SELECT version, operation, row_state FROM finance.audit_history('audit_history.child', '{"id": 1}') WHERE version > 4;
INSERT INTO audit_history.child VALUES (1, 'a', 'x');
DELETE FROM audit_history.parent;
SELECT version, operation, row_state FROM finance.audit_history('audit_history.child', '{"id": 1}') WHERE version > 5;

-- audit_diff() is a read as audit_history() is
SET finance.audit_reads = 'audit_history';
SELECT count(*) FROM finance.audit_diff('audit_history.cut', '{"id": 1}', '-infinity', 'infinity');
RESET finance.audit_reads;
SELECT operation, object, request ->> 'target' AS target FROM finance.audit_log(operation => 'read', newest_first => true, max_records => 1);

CALL audit_history.seal();
SELECT * FROM finance.verify_audit();
SELECT * FROM finance.check_integrity();
SELECT sum(finance.unaudit_table(c.oid)) > 0 AS unaudited FROM pg_class c
WHERE c.relnamespace = 'audit_history'::regnamespace AND c.relkind IN ('r', 'p');
SET client_min_messages = warning;
DROP SCHEMA audit_history CASCADE;
