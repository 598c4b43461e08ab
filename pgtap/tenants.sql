-- Tenants: for each function and each table, by the catalogs: who is no member
-- of a tenant's role cannot act in it or see it.
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
SELECT no_plan();

CREATE ROLE fin_test_members;
CREATE ROLE fin_test_member IN ROLE fin_test_members;
CREATE ROLE fin_test_heir NOINHERIT IN ROLE fin_test_members;
CREATE ROLE fin_test_stranger;
CREATE ROLE fin_test_owner_of_definer IN ROLE fin_test_members;
-- more than any level gives: all functions, and to read all tables
GRANT USAGE ON SCHEMA finance TO PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA finance TO PUBLIC;

SELECT finance.create_tenant('closed', member_role => 'fin_test_members') AS tenant \gset
SELECT set_config('finance.tenant', :'tenant', true) \g /dev/null

-- a row in every table of the tenant
SELECT finance.create_account(code, 'EUR', min_available => NULL) FROM (VALUES ('a'), ('b')) AS v (code) \g /dev/null
SELECT finance.create_account_type('own', 'debit'), finance.create_transfer_type('own') \g /dev/null
SELECT finance.create_queue('q') \g /dev/null
SELECT finance.subscribe('fin_test_channel', '#', 'q') \g /dev/null
SELECT finance.add_rule('limit', 'transfer_limit', 10) \g /dev/null
SELECT finance.block_account('b', 'test') \g /dev/null
SELECT finance.transfer('a', 'b', 1, idempotency_key => 'k'), finance.transfer('a', 'b', 11), finance.set_account_limits('a', NULL, 100) \g /dev/null
SELECT finance.archive('q', msg_id) FROM finance.read('q', 0, 1) \g /dev/null

GRANT SELECT ON ALL TABLES IN SCHEMA finance TO PUBLIC;

CREATE TEMP VIEW owned AS
	SELECT c.oid, c.relname::text AS relname FROM pg_class c
	WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
		AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id');
CREATE FUNCTION pg_temp.rows(relname text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	-- what is built in is of everybody
	EXECUTE format('SELECT count(*) FROM finance.%I%s', relname,
		CASE WHEN relname IN ('account_type', 'transfer_type') THEN ' WHERE NOT builtin' END) INTO n;
	RETURN n;
END $$;
GRANT SELECT ON owned TO PUBLIC;

-- ------------------------------------------------------------------------
-- rows
-- ------------------------------------------------------------------------

SELECT cmp_ok((SELECT count(*) FROM owned), '>=', 15::bigint, 'there are tables to look at');
SET LOCAL ROLE fin_test_member;
SELECT cmp_ok(pg_temp.rows(relname), '>', 0::bigint, 'a member sees ' || relname) FROM owned ORDER BY relname;
SELECT is(pg_temp.rows('tenant'), 1::bigint, 'and of tenants his own only');
SET LOCAL ROLE fin_test_stranger;
SELECT is(pg_temp.rows(relname), 0::bigint, 'a stranger sees nothing of ' || relname) FROM owned ORDER BY relname;
SET LOCAL ROLE fin_test_heir;
SELECT is(pg_temp.rows(relname), 0::bigint, 'nor does one who could become a member, of ' || relname) FROM owned ORDER BY relname;
SELECT is(sum(pg_temp.rows(relname))::integer, 0, 'nor is anything seen in partitions')
	FROM pg_class WHERE relnamespace = 'finance'::regnamespace AND relispartition AND relkind = 'r';
SET LOCAL finance.tenant = 0;
SET LOCAL ROLE fin_test_member;
SELECT is((SELECT count(*) FROM finance.account), 0::bigint, 'in another tenant a member does not see it either');
SET LOCAL finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- functions: each with arguments that work for a member
-- ------------------------------------------------------------------------

RESET ROLE;
CREATE TEMP TABLE call (proname text, statement text);
GRANT SELECT ON call TO PUBLIC;
INSERT INTO call VALUES
	('transfer', $$finance.transfer('a', 'b', 1)$$),
	('transfer', format($$finance.transfer(%s, %s, 1)$$, (SELECT account_id FROM finance.account WHERE code = 'a' AND tenant_id = :tenant),
		(SELECT account_id FROM finance.account WHERE code = 'b' AND tenant_id = :tenant))),
	('create_account', $$finance.create_account('c', 'EUR')$$),
	('set_account_status', $$finance.set_account_status('a', 'frozen')$$),
	('set_account_limits', $$finance.set_account_limits('a', NULL, NULL)$$),
	('set_min_available', $$finance.set_min_available('a', NULL)$$),
	('set_max_balance', $$finance.set_max_balance('a', NULL)$$),
	('close_account', $$finance.close_account('a', 'b')$$),
	('lock_accounts', $$finance.lock_accounts('{a, b}')$$),
	('balance', $$finance.balance('a')$$),
	('create_account_type', $$finance.create_account_type('t', 'debit')$$),
	('create_transfer_type', $$finance.create_transfer_type('t')$$),
	('set_account_parent', $$finance.set_account_parent('a', 'b')$$),
	('rollup', $$finance.rollup('a')$$),
	('trial_balance', $$finance.trial_balance()$$),
	('trial_balance', $$finance.trial_balance(now())$$),
	('balance_sheet', $$finance.balance_sheet()$$),
	('add_rule', $$finance.add_rule('r', 'blocklist')$$),
	('remove_rule', $$finance.remove_rule('limit')$$),
	('enable_rule', $$finance.enable_rule('limit')$$),
	('block_account', $$finance.block_account('a', 'x')$$),
	('unblock_account', $$finance.unblock_account('b', 'x')$$),
	('set_context', $$finance.set_context(actor => 'x')$$),
	('audit_trace', $$finance.audit_trace('00000000-0000-0000-0000-000000000000')$$),
	('create_queue', $$finance.create_queue('q2')$$),
	('drop_queue', $$finance.drop_queue('q')$$),
	('purge_queue', $$finance.purge_queue('q')$$),
	('list_queues', $$finance.list_queues()$$),
	('metrics', $$finance.metrics('q')$$),
	('metrics_all', $$finance.metrics_all()$$),
	('send', $$finance.send('q', '1')$$),
	('send_batch', $$finance.send_batch('q', '{1}')$$),
	('read', $$finance.read('q', 1)$$),
	('pop', $$finance.pop('q')$$),
	('delete', $$finance.delete('q', 1)$$),
	('archive', $$finance.archive('q', 1)$$),
	('set_vt', $$finance.set_vt('q', 1, 1)$$),
	('publish', $$finance.publish('a.b', '1')$$),
	('bind_topic', $$finance.bind_topic('a.b', 'q')$$),
	('unbind_topic', $$finance.unbind_topic('#', 'q')$$),
	('list_bindings', $$finance.list_bindings()$$),
	('test_routing', $$finance.test_routing('a.b')$$),
	('subscribe', $$finance.subscribe('fin_test_other', '#', 'q')$$),
	('unsubscribe', $$finance.unsubscribe('fin_test_channel')$$),
	('create_tenant', $$finance.create_tenant('x')$$),
	('set_tenant_time_zone', $$finance.set_tenant_time_zone(0, 'UTC')$$),
	('create_currency', $$finance.create_currency('FINTEST', 2)$$);
-- of no tenant; check_integrity() is looked at below
SELECT set_eq($$SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'finance'::regnamespace AND proname NOT LIKE '\_%' EXCEPT SELECT proname FROM call$$,
	ARRAY['id_time', 'id_floor', 'topic_matches', 'audit_table', 'unaudit_table', 'grant_access', 'worker_status', 'wake_worker', 'check_integrity'],
	'all functions of a tenant are tried');

-- each is undone
CREATE FUNCTION pg_temp.outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT ' || statement;
	RAISE EXCEPTION SQLSTATE 'XX996';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SET LOCAL ROLE fin_test_member;
SELECT is(pg_temp.outcome(statement), 'XX996', 'a member may ' || proname) FROM call;
SET LOCAL ROLE fin_test_stranger;
SELECT is(pg_temp.outcome(statement), '42501', 'a stranger may not ' || proname) FROM call;
SET LOCAL ROLE fin_test_heir;
SELECT is(pg_temp.outcome(statement), '42501', 'nor may an heir ' || proname) FROM call;
SET LOCAL ROLE fin_test_stranger;
SELECT throws_ok(format('SELECT finance.set_context(tenant => %s)', :tenant), '42501', NULL, 'set_context() leads in nobody');
SELECT is(current_setting('finance.tenant'), :'tenant', 'settings are as they were');
RESET ROLE;

-- a member's definer function lets others in: that is what it is for
CREATE FUNCTION public.fin_test_balance() RETURNS numeric LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$SELECT finance.balance('a')$$;
ALTER FUNCTION public.fin_test_balance() OWNER TO fin_test_owner_of_definer;
SET LOCAL ROLE fin_test_stranger;
SELECT lives_ok('SELECT public.fin_test_balance()', 'a member''s security definer function acts as the member');
SELECT is(pg_temp.outcome($$finance.balance('a')$$), '42501', 'and only it does');
RESET ROLE;

-- ------------------------------------------------------------------------
-- check_integrity()
-- ------------------------------------------------------------------------

ALTER TABLE finance._account DISABLE TRIGGER guard;
UPDATE finance._account SET version = version + 1 WHERE tenant_id = :tenant AND code = 'a';
SELECT is((SELECT count(*) FROM finance.check_integrity()), 1::bigint, 'the owner is told of a breach');
SET LOCAL ROLE fin_test_member;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 1::bigint, 'so is a member');
SET LOCAL finance.tenant = 0;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 1::bigint, 'from whichever tenant');
SET LOCAL ROLE fin_test_stranger;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 0::bigint, 'a stranger is not');
SET LOCAL finance.tenant = :tenant;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 0::bigint, 'whatever he sets');
RESET ROLE;

-- ------------------------------------------------------------------------
-- caches hold more tenants than one session is likely to meet
-- ------------------------------------------------------------------------

SET LOCAL finance.tenant = 0;
CREATE TEMP TABLE many AS SELECT n, finance.create_tenant('many ' || n) AS tenant_id FROM generate_series(1, 40) AS n;
CREATE FUNCTION pg_temp.round(n bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer finance.transfer_result;
BEGIN
	PERFORM set_config('finance.tenant', tenant_id::text, true) FROM many m WHERE m.n = round.n;
	IF NOT EXISTS (SELECT FROM finance.account a JOIN many m USING (tenant_id) WHERE m.n = round.n) THEN
		PERFORM finance.create_account('x', 'EUR', min_available => NULL), finance.create_account('y', 'EUR'),
			finance.add_rule('limit', 'transfer_limit', round.n), finance.create_queue('q'), finance.bind_topic('#', 'q');
	END IF;
	answer := finance.transfer('x', 'y', round.n);
	answer := finance.transfer('x', 'y', round.n + 1);
	RETURN answer.status || ' ' || answer.to_balance;
END $$;
SELECT is(pg_temp.round(n), 'rejected ' || n || '.00', 'tenant ' || n) FROM many ORDER BY n;
SELECT is(pg_temp.round(n), 'rejected ' || 2 * n || '.00', 'tenant ' || n || ' again') FROM many ORDER BY n DESC;
SELECT results_eq($$SELECT DISTINCT count(*) FROM finance.message JOIN many USING (tenant_id) GROUP BY tenant_id$$, ARRAY[4::bigint], 'each with messages of its own');

SELECT * FROM finish();
ROLLBACK;
