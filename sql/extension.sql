-- CREATE EXTENSION and DROP EXTENSION, in a database of their own: what they
-- refuse, and that nothing stays behind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
\set here :DBNAME
\set SHOW_CONTEXT never
DROP DATABASE IF EXISTS regress_finance_extension;
CREATE DATABASE regress_finance_extension;
\c regress_finance_extension
SET client_min_messages = error;	-- subscribe() warns when not preloaded

-- everything there is, by kind, of everybody but the system
CREATE VIEW inventory AS
SELECT 'class' AS kind, count(*) AS n, md5(string_agg(oid::regclass::text, ',' ORDER BY oid::regclass::text)) AS names FROM pg_class WHERE oid >= 16384
UNION ALL SELECT 'proc', count(*), md5(string_agg(oid::regprocedure::text, ',' ORDER BY oid::regprocedure::text)) FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT 'type', count(*), md5(string_agg(oid::regtype::text, ',' ORDER BY oid::regtype::text)) FROM pg_type WHERE oid >= 16384
UNION ALL SELECT 'namespace', count(*), md5(string_agg(nspname, ',' ORDER BY nspname)) FROM pg_namespace
	WHERE nspname NOT LIKE 'pg\_t%temp\_%'
UNION ALL SELECT 'operator', count(*), NULL FROM pg_operator
UNION ALL SELECT 'event trigger', count(*), NULL FROM pg_event_trigger
UNION ALL SELECT 'trigger', count(*), NULL FROM pg_trigger
UNION ALL SELECT 'constraint', count(*), NULL FROM pg_constraint
UNION ALL SELECT 'policy', count(*), NULL FROM pg_policy
UNION ALL SELECT 'cast', count(*), NULL FROM pg_cast
UNION ALL SELECT 'extension', count(*), NULL FROM pg_extension
UNION ALL SELECT 'publication', count(*), NULL FROM pg_publication
UNION ALL SELECT 'default acl', count(*), NULL FROM pg_default_acl
UNION ALL SELECT 'comment', count(*), NULL FROM pg_description WHERE objoid >= 16384
UNION ALL SELECT 'initial privileges', count(*), NULL FROM pg_init_privs WHERE objoid >= 16384
UNION ALL SELECT 'dependency', count(*), NULL FROM pg_depend;
CREATE TABLE before AS SELECT * FROM inventory LIMIT 0;
INSERT INTO before SELECT * FROM inventory;
CREATE VIEW difference AS
	(SELECT 'gone' AS what, * FROM before EXCEPT SELECT 'gone', * FROM inventory)
	UNION ALL (SELECT 'new', * FROM inventory EXCEPT SELECT 'new', * FROM before);
-- what the tables above count as themselves
TRUNCATE before;
INSERT INTO before SELECT * FROM inventory;
SELECT * FROM difference;

-- no one's schema is adopted
CREATE SCHEMA finance;
CREATE EXTENSION finance;
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA finance;
-- there is one place for it
CREATE EXTENSION finance SCHEMA public;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM difference;

-- rolled back
BEGIN;
CREATE EXTENSION finance;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('a'), ('b')) AS v (code);
SELECT status FROM finance.transfer('a', 'b', 1, idempotency_key => 'k');
ROLLBACK;
SELECT * FROM difference;

-- there, and there only once
CREATE EXTENSION finance;
CREATE EXTENSION finance;
\echo :LAST_ERROR_SQLSTATE
SELECT kind FROM difference WHERE what = 'new' ORDER BY kind;
ALTER EXTENSION finance SET SCHEMA public;
\echo :LAST_ERROR_SQLSTATE

-- what comes with use: partitions, queues, subscriptions
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('a'), ('b')) AS v (code);
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');
SELECT finance.subscribe('channel', 'transfer.*', 'other');
SELECT status, to_balance, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'k');
SELECT status, to_balance, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'k');
SELECT finance.archive('all', msg_id) FROM finance.read('all', 0, 1);
SELECT finance.create_tenant('second', 'Asia/Tokyo') > 0 AS made;
SELECT finance.create_account(code, currency, min_available => NULL) > 0 AS made
FROM (VALUES ('c', 'EUR'), ('usd', 'USD'), ('usd2', 'USD'), ('cents', 'USD'), ('old', 'EUR'), ('older', 'EUR')) AS v (code, currency);
SELECT finance.create_account_type('till', 'debit'), finance.create_transfer_type('top-up');
SELECT finance.set_account_parent('b', 'a');
SELECT status FROM finance.transfer('a', 'b', 1, type => 'top-up', effective_at => '2020-01-01');
SELECT h.status, c.hold_remaining FROM finance.hold('a', 'b', 5, expires_in => '1 year', hold_group => 'g', idempotency_key => 'h') AS h, finance.capture(h.hold_id, 1) AS c;
SELECT count(*) FROM finance.journal(ARRAY[finance.leg('a', 'debit', 2), finance.leg('b', 'credit', 1), finance.leg('c', 'credit', 1)], 'j');
SELECT count(*) FROM finance.exchange('a', 'usd', 1, 1.002, 'c', 'usd2', rounding_account => 'cents');
SELECT t.status FROM finance.transfer('a', 'b', 1) AS p, finance.reverse_transfer(p.id) AS t;
SELECT status FROM finance.import_transfers(ARRAY[finance.request('old', 'older', 1, recorded_at => '2021-05-05')]);
SELECT finance.add_rule('r', 'transfer_limit', 1, account => 'a', currency => 'EUR');
SELECT count(*) > 0 AS has_partitions FROM pg_inherits WHERE inhparent = 'finance.transfer'::regclass;
SELECT count(*) AS queue_tables FROM pg_inherits WHERE inhparent = 'finance.message'::regclass;

-- a dropped extension that was not: everything is as it was
BEGIN;
DROP EXTENSION finance;
ROLLBACK;
SELECT status, to_balance, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'k2');
SELECT * FROM finance.check_integrity();

-- its parts do not go alone
DROP TABLE finance.risk_decision;
\echo :LAST_ERROR_SQLSTATE
DROP TABLE finance._hold;
\echo :LAST_ERROR_SQLSTATE
DROP TYPE finance.transfer_request;
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA finance CASCADE;
\echo :LAST_ERROR_SQLSTATE

-- without CASCADE, since nothing of the user's depends on it
DROP EXTENSION finance;
SELECT * FROM difference;

-- a new one in the same session starts from nothing
CREATE EXTENSION finance;
SELECT * FROM finance.account;
SELECT * FROM finance.transfer('a', 'b', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT count(finance.create_account(code, 'JPY', min_available => NULL)) FROM (VALUES ('b'), ('a')) AS v (code);
SELECT status, currency, to_balance, replayed FROM finance.transfer('a', 'b', 5, idempotency_key => 'k');
SELECT * FROM finance.list_queues();
SELECT count(*) FROM finance.transfer;
-- also of what sessions keep: types, and what they know of holds
SELECT status FROM finance.transfer('a', 'b', 1, type => 'top-up');
\echo :LAST_ERROR_SQLSTATE
SELECT finance.create_account('t', 'EUR', 'till');
\echo :LAST_ERROR_SQLSTATE
SELECT replayed FROM finance.hold('a', 'b', 5, idempotency_key => 'h');
SELECT amount FROM finance.capture_group('g');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*), count(*) FILTER (WHERE builtin) AS builtin FROM finance.transfer_type;
SELECT count(*) FROM finance.audit_record WHERE operation = 'transfer';
SELECT * FROM finance.check_integrity();

-- an audited table of the user's: CASCADE takes the triggers, not the table
CREATE TABLE mine (id integer PRIMARY KEY);
SELECT finance.audit_table('mine');
INSERT INTO mine VALUES (1);
DROP EXTENSION finance;
\echo :LAST_ERROR_SQLSTATE
DROP EXTENSION finance CASCADE;
INSERT INTO mine VALUES (2);
SELECT * FROM mine ORDER BY id;
DROP TABLE mine;
SELECT * FROM difference;

\c :here
DROP DATABASE regress_finance_extension;
