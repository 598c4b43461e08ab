-- Audit log: who acts, traces, tenants.
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

SELECT plan(35);

CREATE SCHEMA audit_test;
CREATE TABLE audit_test.item (id int PRIMARY KEY);
SELECT is(finance.audit_table('audit_test.item'), 1, 'audited');

CREATE FUNCTION pg_temp.record_of(item int) RETURNS finance.audit_record
LANGUAGE sql AS $$
	SELECT r FROM finance.audit_record r
	WHERE r.object = 'audit_test.item' AND r.row_key::json ->> 'id' = item::text
$$;

-- ------------------------------------------------------------------------
-- set_context
-- ------------------------------------------------------------------------

SELECT is(finance.set_context(trace_id => '11111111-0000-0000-0000-000000000001',
							  actor => 'clerk é', user_agent => 'till/1.0'),
		  '11111111-0000-0000-0000-000000000001', 'set_context returns the trace id');
INSERT INTO audit_test.item VALUES (1);
SELECT is((r.trace_id, r.actor, r.user_agent, r.session_user_name, r.tenant_id)::text,
		  format('(11111111-0000-0000-0000-000000000001,"clerk é",till/1.0,%s,0)', session_user),
		  'and the record has it all')
FROM pg_temp.record_of(1) r;

SELECT is(finance.set_context(actor => 'other'), '11111111-0000-0000-0000-000000000001',
		  'what is null stays');
INSERT INTO audit_test.item VALUES (2);
SELECT is((r.actor, r.user_agent)::text, '(other,till/1.0)', 'and the rest changes')
FROM pg_temp.record_of(2) r;

SELECT isnt(finance.set_context(actor => '', user_agent => ''), NULL, 'empty texts clear');
INSERT INTO audit_test.item VALUES (3);
SELECT is((r.actor, r.user_agent)::text, format('(%s,)', current_user), 'the user and no agent')
FROM pg_temp.record_of(3) r;

SAVEPOINT before_change;
SELECT isnt(finance.set_context(actor => 'undone'), NULL, 'set within a savepoint');
ROLLBACK TO before_change;
SELECT is(current_setting('finance.actor'), '', 'gone with it');

SELECT throws_ok($$SELECT finance.set_context(trace_id => 'x')$$, '22P02', NULL,
				 'a trace id that is no UUID');
SELECT throws_ok($$SELECT finance.set_context(actor => repeat('x', 257))$$, '22001', NULL,
				 'an actor of 257 bytes');
SELECT lives_ok($$SELECT finance.set_context(actor => repeat('x', 256))$$, 'of 256 bytes');
SELECT throws_ok($$SELECT finance.set_context(user_agent => repeat('x', 1025))$$, '22001', NULL,
				 'a user agent of 1025 bytes');
SELECT lives_ok($$SELECT finance.set_context(user_agent => repeat('x', 1024))$$, 'of 1024 bytes');
SELECT throws_ok($$SELECT finance.set_context(tenant => 987654)$$, 'LG010', NULL,
				 'an unknown tenant');
SELECT throws_ok($$SELECT finance.set_context(tenant => -1)$$, '22023', NULL,
				 'a negative tenant');
SELECT is(current_setting('finance.tenant'), '0', 'which changed nothing');

-- a setting of the session is checked when it is used
SET LOCAL finance.trace_id = 'no uuid';
SELECT throws_ok('INSERT INTO audit_test.item VALUES (4)', '22P02', NULL,
				 'a bad finance.trace_id stops the change');
SET LOCAL finance.trace_id = '';
SELECT isnt(finance.set_context(), NULL, 'without one, there is one for the transaction');
SELECT is(finance.set_context(), finance.set_context(), 'always the same');

-- ------------------------------------------------------------------------
-- audit_trace
-- ------------------------------------------------------------------------

SELECT isnt(finance.set_context(trace_id => '22222222-0000-0000-0000-000000000002', actor => '', user_agent => ''),
			NULL, 'another trace');
INSERT INTO audit_test.item VALUES (12), (11);
UPDATE audit_test.item SET id = 13 WHERE id = 11;
DELETE FROM audit_test.item WHERE id = 12;
SELECT results_eq($$SELECT operation, row_key
					FROM finance.audit_trace('22222222-0000-0000-0000-000000000002')$$,
				  $$VALUES ('INSERT', '{"id":12}'), ('INSERT', '{"id":11}'),
						   ('UPDATE', '{"id":11}'), ('DELETE', '{"id":12}')$$,
				  'audit_trace: the records in causal order');
SELECT results_eq($$SELECT t::text FROM finance.audit_trace('22222222-0000-0000-0000-000000000002') t$$,
				  $$SELECT r::text FROM finance.audit_record r
					WHERE trace_id = '22222222-0000-0000-0000-000000000002' ORDER BY sequence$$,
				  'whole');
SELECT is_empty($$SELECT * FROM finance.audit_trace('33333333-0000-0000-0000-000000000003')$$,
				'none of a trace that is not there');
SELECT is_empty($$SELECT * FROM finance.audit_trace(NULL)$$, 'nor of null');

-- no scan of the whole log, even one that is nearly empty
CREATE FUNCTION pg_temp.scans() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_xact_numscans(i.inhrelid))
	FROM pg_inherits i WHERE i.inhparent = 'finance.audit_record'::regclass
$$;
SELECT pg_temp.scans() AS scans_before \gset
SELECT is((SELECT count(*) FROM finance.audit_trace('22222222-0000-0000-0000-000000000002')),
		  4::bigint, 'read once more');
SELECT is(pg_temp.scans(), :scans_before::bigint, 'by the index: no sequential scan');

-- ------------------------------------------------------------------------
-- tenants
-- ------------------------------------------------------------------------

CREATE ROLE audit_test_reader;
CREATE ROLE audit_test_members;
INSERT INTO finance.tenant (tenant_id, name, member_role)
VALUES (987654, 'audit test', 'audit_test_members');
GRANT USAGE ON SCHEMA finance, audit_test TO audit_test_reader;
GRANT SELECT ON finance.audit_record TO audit_test_reader;
GRANT INSERT ON audit_test.item TO audit_test_reader;
GRANT EXECUTE ON FUNCTION finance.audit_trace, finance._is_tenant_visible, finance.set_context
	TO audit_test_reader;

SELECT is(finance.set_context(trace_id => '22222222-0000-0000-0000-000000000002', tenant => 987654),
		  '22222222-0000-0000-0000-000000000002', 'a superuser acts in another tenant');
INSERT INTO audit_test.item VALUES (21);
SELECT is((pg_temp.record_of(21)).tenant_id, 987654, 'the record is of that tenant');
SELECT is((SELECT array_agg(row_key) FROM finance.audit_trace('22222222-0000-0000-0000-000000000002')),
		  ARRAY['{"id":21}'], 'audit_trace shows the tenant only');
SET LOCAL finance.tenant = 0;

SET LOCAL ROLE audit_test_reader;
SELECT results_eq('SELECT DISTINCT tenant_id FROM finance.audit_record', ARRAY[0],
				  'a reader sees the tenant of the session only');
SET LOCAL finance.tenant = 987654;
SELECT is_empty('SELECT * FROM finance.audit_record',
				'and of a tenant whose role it is not in, nothing');
SELECT throws_ok($$SELECT * FROM finance.audit_trace('22222222-0000-0000-0000-000000000002')$$,
				 '42501', NULL, 'nor by audit_trace');
SELECT throws_ok('INSERT INTO audit_test.item VALUES (22)', '42501', NULL,
				 'nor can it change an audited table there');
RESET ROLE;
GRANT audit_test_members TO audit_test_reader;
SET LOCAL ROLE audit_test_reader;
SELECT results_eq('SELECT DISTINCT tenant_id FROM finance.audit_record', ARRAY[987654],
				  'as a member it sees that tenant only');
RESET ROLE;

SELECT finish();
ROLLBACK;
