-- Audit log: the SQL surface, and what errors say.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;

CREATE SCHEMA audit_regress;
SET search_path = audit_regress;
CREATE TABLE book (isbn text PRIMARY KEY, title text, copies int);
SELECT finance.audit_table('book');
SELECT finance.audit_table('book');

-- each kind of statement, COPY included
BEGIN;
SELECT finance.set_context(trace_id => 'aaaaaaaa-0000-0000-0000-000000000001',
						   actor => 'librarian', user_agent => 'desk/2');
INSERT INTO book VALUES ('1', 'Ledger', 1);
COPY book FROM stdin;
2	Journal	2
3	Cash book	3
\.
UPDATE book SET copies = copies - 1 WHERE isbn <> '1';
DELETE FROM book WHERE isbn = '3';
SAVEPOINT s;
DELETE FROM book;
ROLLBACK TO s;
TRUNCATE book;
COMMIT;
SELECT operation, object, row_key, request, response, status, actor, user_agent,
	   client_addr, tenant_id, leaf_version, length(leaf_hash) AS leaf,
	   length(payload_hash) AS payload, length(salt) AS salt
FROM finance.audit_trace('aaaaaaaa-0000-0000-0000-000000000001');
-- a rolled back savepoint leaves no gap in the sequence
SELECT array_agg(sequence ORDER BY sequence)
FROM finance.audit_trace('aaaaaaaa-0000-0000-0000-000000000001');

-- the context went with its transaction
SHOW finance.actor;

-- nobody else writes, not even a superuser
INSERT INTO finance.audit_record SELECT * FROM finance.audit_record;
\echo :LAST_ERROR_SQLSTATE
COPY finance.audit_record FROM stdin;
\.
\echo :LAST_ERROR_SQLSTATE
UPDATE finance.audit_record SET actor = 'nobody';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance.audit_record;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE finance.audit_record;
\echo :LAST_ERROR_SQLSTATE

-- what cannot be audited
CREATE VIEW books AS SELECT * FROM book;
CREATE TEMP TABLE note (a int);
CREATE SEQUENCE number;
SELECT finance.audit_table('books');
SELECT finance.audit_table('number');
SELECT finance.audit_table('note');
SELECT finance.audit_table('pg_catalog.pg_proc');
SELECT finance.audit_table('finance.audit_record');
SELECT finance.audit_table(0);
SELECT finance.audit_table(NULL);
SELECT finance.unaudit_table('books');
CREATE TABLE taken (a int);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER finance_audit_delete AFTER DELETE ON taken
	FOR EACH STATEMENT EXECUTE FUNCTION nothing();
SELECT finance.audit_table('taken');
CREATE TRIGGER by_hand AFTER INSERT ON taken
	FOR EACH ROW EXECUTE FUNCTION finance._audit_rows();
INSERT INTO taken VALUES (1);

-- context that cannot be
SELECT finance.set_context(actor => repeat('x', 257));
SELECT finance.set_context(user_agent => repeat('x', 1025));
SELECT finance.set_context(tenant => 999999);
SET finance.trace_id = 'not a uuid';
INSERT INTO book VALUES ('4', 'Day book', 1);
RESET finance.trace_id;

-- indexes: also one that is dropped in several transactions, of a name to be quoted
CREATE UNIQUE INDEX CONCURRENTLY "by Title" ON book (title);
DROP INDEX CONCURRENTLY "by Title";
SELECT operation, object, request FROM finance.audit_record
WHERE operation IN ('CREATE INDEX', 'DROP INDEX') AND object LIKE 'audit_regress.%' ORDER BY id;
-- done with
SELECT finance.unaudit_table('book');
SELECT finance.unaudit_table('book');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'book'::regclass;
SET client_min_messages = warning;
DROP SCHEMA audit_regress CASCADE;
