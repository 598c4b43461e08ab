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
SELECT finance.create_account_type('their type', 'debit'), finance.create_transfer_type('their type') \g /dev/null
SELECT finance.create_queue('q'), finance.create_queue('their_queue'), finance.create_log_queue('log'), finance.create_consumer_group('log', 'g', 'beginning') \g /dev/null
SELECT finance.subscribe('fin_test_channel', '#', 'q'), finance.set_default_queues('q', 'q') \g /dev/null
SELECT finance.add_rule('limit', 'transfer_limit', 10), finance.add_rule('their rule', 'transfer_limit', 10) \g /dev/null
SELECT finance.block_account('b', 'test'), finance.add_to_list('their list', 'device', 'd', 'test'), finance.set_rule_limit('limit', 10, 'test', level => 'gold') \g /dev/null
SELECT finance.transfer('a', 'b', 1, idempotency_key => 'k'), finance.set_account_limits('a', NULL, 100) \g /dev/null
SELECT id AS rejected FROM finance.transfer('a', 'b', 11) \gset
SELECT finance.archive('q', msg_id) FROM finance.read('q', 0, 1) \g /dev/null
SELECT finance.create_account(code, currency, min_available => NULL) FROM (VALUES ('c', 'EUR'), ('theirs', 'EUR'), ('their new', 'EUR'), ('usd', 'USD'), ('usd2', 'USD'), ('cents', 'USD')) AS v (code, currency) \g /dev/null
SET LOCAL finance.trace_id = '00000000-0000-4000-8000-000000000001';
SELECT id AS transfer FROM finance.transfer('a', 'b', 2, effective_at => '2020-01-01') \gset
SET LOCAL finance.trace_id = '';
SELECT finance.reverse_transfer(:transfer, 1) \g /dev/null
SELECT hold_id AS hold FROM finance.hold('a', 'b', 3, hold_group => 'their group') \gset
SELECT journal_id AS journal FROM finance.journal(ARRAY[finance.leg('a', 'debit', 2), finance.leg('b', 'credit', 1), finance.leg('c', 'credit', 1)]) LIMIT 1 \gset
SELECT finance.exchange('a', 'usd', 1, 1.005, 'c', 'usd2', rounding_account => 'cents') \g /dev/null
SELECT account_id AS account FROM finance.account WHERE code = 'a' AND tenant_id = :tenant \gset
SELECT msg_id AS message FROM finance.send('q', '{}', dedup_id => 'theirs') AS msg_id \gset
SELECT finance.process_once('their consumer', 1) \g /dev/null
SELECT finance.create_producer_group(name, 'their.check', '1 microsecond', '1 microsecond', '1 microsecond', max_checks => 1) FROM unnest('{producers, their_producers}'::text[]) AS name \g /dev/null
SELECT half_id AS half FROM finance.prepare_message('their_producers', 'a.b', '1') AS half_id \gset
SELECT finance.check_half_messages() \g /dev/null
SELECT finance.check_half_messages() \g /dev/null
SELECT finance.commit_message(finance.prepare_message('producers', 'a.b', '1')) \g /dev/null
SELECT finance.send('log', '{}') \g /dev/null
SELECT finance.pause_transfers('type=their type', 'test'), finance.set_rate_limit('type=their type', 1, 1) \g /dev/null
-- what rules count and ask about; in a draft, not to stop what follows
SELECT finance.add_holiday('2026-12-25'), finance.create_ruleset('their draft') AS draft \gset
SELECT finance.add_rule('velocity', 'velocity', 1000000, period => 'day', outcome => 'report') \g /dev/null
SELECT finance.transfer('a', 'b', 1) \g /dev/null
-- what risk reports, challenges and has reviewed
SELECT finance.add_rule(wants, 'transfer_limit', above, outcome => wants, account => 'usd2') FROM (VALUES ('report', 3), ('challenge', 5), ('review', 7)) AS v (wants, above) \g /dev/null
SET LOCAL finance.actor = 'maker';
SELECT finance.transfer('usd2', 'usd', 4) \g /dev/null
SELECT id AS challenge FROM finance.transfer('usd2', 'usd', 6) \gset
SELECT id AS review FROM finance.transfer('usd2', 'usd', 8) \gset
SET LOCAL finance.actor = '';
SELECT min(alert_id) AS alert, max(alert_id) AS closed_alert FROM finance.alert WHERE tenant_id = :tenant AND account = 'usd2' \gset
SELECT finance.close_alert(:closed_alert, 'dismissed', 'test') \g /dev/null

SELECT min(id) AS record FROM finance.audit_record WHERE tenant_id = :tenant AND request IS NOT NULL \gset
-- what values of audited tables are masked with
INSERT INTO finance.audit_subject (tenant_id, subject, key, created_at) VALUES (:tenant, 'their customer', sha256('a'), now());
INSERT INTO finance._audit_secret (tenant_id, secret, created_at) VALUES (:tenant, sha256('b'), now());

SELECT version AS live FROM finance.ruleset WHERE mode = 'live' AND tenant_id = :tenant \gset
-- keys of masked values
CREATE TABLE public.fin_test_person (id int PRIMARY KEY, name text, card text);
SELECT finance.audit_table('public.fin_test_person', mask => '{"name": "encrypt", "card": "hash"}', subject => 'id') \g /dev/null
INSERT INTO public.fin_test_person VALUES (1, 'x', 'y');
SELECT max(id) AS record FROM finance.audit_record WHERE object = 'public.fin_test_person' \gset

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

SELECT cmp_ok((SELECT count(*) FROM owned), '>=', 26::bigint, 'there are tables to look at');
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
	('transfer', format($$finance.transfer(%s, %s, 1)$$, :account,
		(SELECT account_id FROM finance.account WHERE code = 'b' AND tenant_id = :tenant))),
	('create_account', $$finance.create_account('d', 'EUR')$$),
	('set_account_status', $$finance.set_account_status('a', 'frozen')$$),
	('set_account_limits', $$finance.set_account_limits('a', NULL, NULL)$$),
	('set_min_available', $$finance.set_min_available('a', NULL)$$),
	('set_max_balance', $$finance.set_max_balance('a', NULL)$$),
	('close_account', $$finance.close_account('c', 'b')$$),
	('lock_accounts', $$finance.lock_accounts('{a, b}')$$),
	('balance', $$finance.balance('a')$$),
	('create_account_type', $$finance.create_account_type('t', 'debit')$$),
	('create_transfer_type', $$finance.create_transfer_type('t')$$),
	('set_account_parent', $$finance.set_account_parent('a', 'b')$$),
	('rollup', $$finance.rollup('a')$$),
	('trial_balance', $$finance.trial_balance()$$),
	('trial_balance', $$finance.trial_balance(now())$$),
	('balance_sheet', $$finance.balance_sheet()$$),
	('transfer_batch', $$finance.transfer_batch(ARRAY[finance.request('a', 'b', 1)])$$),
	('import_transfers', $$finance.import_transfers(ARRAY[finance.request('theirs', 'their new', 1, recorded_at => '2020-01-01')])$$),
	('hold', $$finance.hold('a', 'b', 1)$$),
	('capture', format($$finance.capture(%s)$$, :hold)),
	('release', format($$finance.release(%s, 1)$$, :hold)),
	('capture_group', $$finance.capture_group('their group')$$),
	('release_group', $$finance.release_group('their group')$$),
	('expire_holds', $$finance.expire_holds()$$),
	('journal', $$finance.journal(ARRAY[finance.leg('a', 'debit', 1), finance.leg('c', 'credit', 1)])$$),
	('exchange', $$finance.exchange('a', 'usd', 1, 1, 'c', 'usd2')$$),
	('distribute', $$finance.distribute('a', '{b,c}', '{1,2}', 1)$$),
	('reverse_transfer', format($$finance.reverse_transfer(%s)$$, :transfer)),
	('reverse_journal', format($$finance.reverse_journal(%s)$$, :journal)),
	('reversals', format($$finance.reversals(%s)$$, :transfer)),
	('balance_at', $$finance.balance_at('a', now())$$),
	('statement', $$finance.statement('a')$$),
	('add_rule', $$finance.add_rule('r', 'blocklist')$$),
	('remove_rule', $$finance.remove_rule('limit')$$),
	('enable_rule', $$finance.enable_rule('limit')$$),
	('create_ruleset', $$finance.create_ruleset('r', copy_of => 1)$$),
	('publish_ruleset', format($$finance.publish_ruleset(%s)$$, :draft)),
	('retire_ruleset', format($$finance.retire_ruleset(%s)$$, :live)),
	('drop_ruleset', format($$finance.drop_ruleset(%s)$$, :draft)),
	('add_holiday', $$finance.add_holiday('2026-12-26')$$),
	('remove_holiday', $$finance.remove_holiday('2026-12-25')$$),
	('explain_risk', $$finance.explain_risk('a', 'b', 1)$$),
	('evaluate_risk', $$finance.evaluate_risk('a', 'b', 1)$$),
	('replay_decision', format($$finance.replay_decision(%s)$$, :rejected)),
	('backtest_ruleset', format($$finance.backtest_ruleset(%s, '2020-01-01')$$, :draft)),
	('backtest_differences', format($$finance.backtest_differences(%s, '2020-01-01')$$, :draft)),
	('block_account', $$finance.block_account('a', 'x')$$),
	('unblock_account', $$finance.unblock_account('b', 'x')$$),
	('add_to_list', $$finance.add_to_list('l', 'country', 'KP', 'x')$$),
	('load_list', $$finance.load_list('l', 'device', '{a,b}', 'x')$$),
	('remove_from_list', $$finance.remove_from_list('their list', 'device', 'd', 'x')$$),
	('is_on_list', $$finance.is_on_list('their list', 'device', 'd')$$),
	('remove_expired_entries', $$finance.remove_expired_entries()$$),
	('set_rule_limit', $$finance.set_rule_limit('limit', 11, 'x', account => 'a')$$),
	('clear_rule_limit', $$finance.clear_rule_limit('limit', 'x', level => 'gold')$$),
	('rule_limit_of', $$finance.rule_limit_of('limit', 'a')$$),
	('set_account_level', $$finance.set_account_level('a', 'gold')$$),
	('set_context', $$finance.set_context(actor => 'x')$$),
	('audit_trace', $$finance.audit_trace('00000000-0000-0000-0000-000000000000')$$),
	('audit_log', $$finance.audit_log()$$),
	('audit_history', $$finance.audit_history('finance.tenant', '{"tenant_id": 0}')$$),
	('audit_row_history', $$finance.audit_row_history('a', 'b')$$),
	('audit_diff', $$finance.audit_diff('finance.tenant', '{"tenant_id": 0}', now())$$),
	('verify_audit', $$finance.verify_audit()$$),
	('pause_transfers', $$finance.pause_transfers('all', 'x')$$),
	('resume_transfers', $$finance.resume_transfers('type=their type', 'x')$$),
	('set_rate_limit', $$finance.set_rate_limit('tenant', 1, 1)$$),
	('drop_rate_limit', $$finance.drop_rate_limit('type=their type')$$),
	('rate_limits', $$finance.rate_limits('a')$$),
	('create_queue', $$finance.create_queue('q2')$$),
	('alter_queue', $$finance.alter_queue('q', max_deliveries => 3)$$),
	('pause_queue', $$finance.pause_queue('q')$$),
	('resume_queue', $$finance.resume_queue('q')$$),
	('redrive', $$finance.redrive('q', 'their_queue')$$),
	('drop_queue', $$finance.drop_queue('q')$$),
	('purge_queue', $$finance.purge_queue('q')$$),
	('list_queues', $$finance.list_queues()$$),
	('metrics', $$finance.metrics('q')$$),
	('metrics_all', $$finance.metrics_all()$$),
	('send', $$finance.send('q', '1')$$),
	('send_batch', $$finance.send_batch('q', '{1}')$$),
	('read', $$finance.read('q', 1)$$),
	('read_with_poll', $$finance.read_with_poll('q', 1, max_poll_seconds => 0)$$),
	('pop', $$finance.pop('q')$$),
	('nack', $$finance.nack('q', 1)$$),
	('nack', $$finance.nack('q', '{1}'::bigint[])$$),
	('delete', $$finance.delete('q', 1)$$),
	('delete', $$finance.delete('q', '{1}'::bigint[])$$),
	('archive', $$finance.archive('q', 1)$$),
	('archive', $$finance.archive('q', '{1}'::bigint[])$$),
	('purge_archive', $$finance.purge_archive('q')$$),
	('process_once', $$finance.process_once('c', 1)$$),
	('process_once', $$finance.process_once('c', 'x')$$),
	('process_once_batch', $$finance.process_once_batch('c', '{1}')$$),
	('set_vt', $$finance.set_vt('q', 1, 1)$$),
	('publish', $$finance.publish('a.b', '1')$$),
	('bind_topic', $$finance.bind_topic('a.b', 'q')$$),
	('unbind_topic', $$finance.unbind_topic('#', 'q')$$),
	('list_bindings', $$finance.list_bindings()$$),
	('test_routing', $$finance.test_routing('a.b')$$),
	('set_default_queues', $$finance.set_default_queues('q', 'q')$$),
	('default_queues', $$finance.default_queues()$$),
	('subscribe', $$finance.subscribe('fin_test_other', '#', 'q')$$),
	('unsubscribe', $$finance.unsubscribe('fin_test_channel')$$),
	('subscriptions', $$finance.subscriptions()$$),
	('create_log_queue', $$finance.create_log_queue('log2')$$),
	('create_consumer_group', $$finance.create_consumer_group('log', 'g2')$$),
	('drop_consumer_group', $$finance.drop_consumer_group('log', 'g')$$),
	('list_consumer_groups', $$finance.list_consumer_groups('log')$$),
	('read_group', $$finance.read_group('log', 'g', auto_commit => true)$$),
	('commit_group', $$finance.commit_group('log', 'g', '0000000000000000-0000000000000001')$$),
	('seek_group', $$finance.seek_group('log', 'g', to_position => 'end')$$),
	('trim_log_queues', $$finance.trim_log_queues()$$),
	('create_producer_group', $$finance.create_producer_group('p', 'c')$$),
	('alter_producer_group', $$finance.alter_producer_group('producers', max_checks => 2)$$),
	('drop_producer_group', $$finance.drop_producer_group('producers')$$),
	('prepare_message', $$finance.prepare_message('producers', 'a.b', '1')$$),
	('prepare_messages', $$finance.prepare_messages('producers', 'a.b', '{1}')$$),
	('commit_message', format($$finance.commit_message(%s)$$, :half)),
	('commit_message', format($$finance.commit_message('{%s}'::bigint[])$$, :half)),
	('rollback_message', format($$finance.rollback_message(%s)$$, :half)),
	('rollback_message', format($$finance.rollback_message('{%s}'::bigint[])$$, :half)),
	('half_message_status', format($$finance.half_message_status(%s)$$, :half)),
	('recheck_half_message', format($$finance.recheck_half_message(%s)$$, :half)),
	('check_half_messages', $$finance.check_half_messages()$$),
	('review_transfer', format($$finance.review_transfer(%s, false, 'x')$$, :review)),
	('confirm_challenge', format($$finance.confirm_challenge(%s, repeat('0', 32))$$, :challenge)),
	('new_challenge_token', format($$finance.new_challenge_token(%s) FROM set_config('finance.actor', 'maker', true)$$, :challenge)),
	('settle_reviews', $$finance.settle_reviews()$$),
	('assign_alert', format($$finance.assign_alert(%s, 'x')$$, :alert)),
	('comment_alert', format($$finance.comment_alert(%s, 'x')$$, :alert)),
	('close_alert', format($$finance.close_alert(%s, 'dismissed', 'x')$$, :alert)),
	('reopen_alert', format($$finance.reopen_alert(%s, 'x')$$, :closed_alert)),
	('export_aml', $$finance.export_aml('2000-01-01', '2100-01-01')$$),
	('audit_erase_subject', $$finance.audit_erase_subject('1', 'x')$$),
	('audit_erase_payload', format($$finance.audit_erase_payload(%s, 'x')$$, :record)),
	('audit_decrypt', $$finance.audit_decrypt('{}')$$),
	('create_tenant', $$finance.create_tenant('x')$$),
	('set_tenant_time_zone', $$finance.set_tenant_time_zone(0, 'UTC')$$),
	('create_currency', $$finance.create_currency('FINTEST', 2)$$);
-- of no tenant; check_integrity() is looked at below, and the procedure
-- wait_for_message() by the TAP test of waiting: it runs in no transaction
SELECT set_eq($$SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'finance'::regnamespace AND proname NOT LIKE '\_%' EXCEPT SELECT proname FROM call$$,
	ARRAY['id_time', 'id_floor', 'topic_matches', 'request', 'leg', 'split_amount', 'audit_table', 'unaudit_table', 'grant_access', 'worker_status', 'wake_worker', 'check_integrity', 'wait_for_message',
		'transfers_in_flight', 'risk_facts', 'check_expression', 'rule_kinds',
		-- of a tenant are audit_proof(), which pgtap/audit_proof.sql looks at,
		-- and what audit_export() tells: t/460_verify_tool.pl
		'audit_export', 'audit_archive', 'drop_audit_month', 'audit_due', 'seal_audit', 'audit_lag', 'audit_digest', 'audit_proof', 'audit_consistency', 'verify_inclusion', 'verify_consistency'],
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
-- what another tenant has answers as if it did not exist.  %1$s is a thing of
-- the tenant, or one that nobody has; all of 'mine' are of a second tenant that
-- the same user may act for.
-- ------------------------------------------------------------------------

CREATE TEMP TABLE foreign_call (kind text, statement text);
INSERT INTO foreign_call VALUES
	('account', $$finance.transfer(%L, 'mine', 1)$$),
	('account', $$finance.transfer('mine', %L, 1)$$),
	('account', $$finance.transfer('mine', %L, NULL, amount_mode => 'up_to')$$),
	('account', $$finance.hold(%L, 'mine', 1)$$),
	('account', $$finance.hold('mine', %L, 1)$$),
	('account', $$finance.transfer_batch(ARRAY[finance.request(%L, 'mine', 1), finance.request('mine', %1$L, 1, action => 'hold')])$$),
	('account', $$finance.transfer_batch(ARRAY[finance.request('mine', %L, 1)], atomic => true)$$),
	('account', $$finance.import_transfers(ARRAY[finance.request('mine', %L, 1, recorded_at => '2020-01-01')])$$),
	('account', $$finance.journal(ARRAY[finance.leg('mine', 'debit', 1), finance.leg(%L, 'credit', 1)])$$),
	('account', $$finance.distribute('mine', ARRAY['mine too', %L], '{1,1}', 1)$$),
	('account', $$finance.distribute(%L, ARRAY['mine too'], '{1}', 1)$$),
	('account', $$finance.exchange(%L, 'my usd', 1, 1, 'mine too', 'my usd2')$$),
	('account', $$finance.exchange('mine', %L, 1, 1, 'mine too', 'my usd2')$$),
	('account', $$finance.exchange('mine', 'my usd', 1, 1, %L, 'my usd2')$$),
	('account', $$finance.exchange('mine', 'my usd', 1, 1, 'mine too', %L)$$),
	('account', $$finance.exchange('mine', 'my usd', 1, 1, 'mine too', 'my usd2', rounding_account => %L)$$),
	('account', $$finance.lock_accounts(ARRAY['mine', %L])$$),
	('account', $$finance.balance(%L)$$),
	('account', $$finance.balance_at(%L, now())$$),
	('account', $$finance.balance_at(%L, now(), 'effective')$$),
	('account', $$finance.statement(%L)$$),
	('account', $$finance.rollup(%L)$$),
	('account', $$finance.set_account_status(%L, 'frozen')$$),
	('account', $$finance.set_account_limits(%L, NULL, NULL)$$),
	('account', $$finance.set_min_available(%L, NULL)$$),
	('account', $$finance.set_max_balance(%L, NULL)$$),
	('account', $$finance.close_account(%L)$$),
	('account', $$finance.close_account('mine', %L)$$),
	('account', $$finance.set_account_parent(%L, 'mine')$$),
	('account', $$finance.set_account_parent('mine', %L)$$),
	('account', $$finance.create_account('my child', 'EUR', parent => %L)$$),
	('account', $$finance.block_account(%L, 'x')$$),
	('account', $$finance.unblock_account(%L, 'x')$$),
	('account', $$finance.add_to_list('l', 'account', %L, 'x')$$),
	('account', $$finance.load_list('l', 'account', ARRAY['mine', %L], 'x')$$),
	('account', $$finance.remove_from_list('l', 'account', %L, 'x')$$),
	('account', $$finance.is_on_list('blocklist', 'account', %L)$$),
	('account', $$finance.rule_limit_of('limit', %L)$$),
	('account', $$finance.set_account_level(%L, 'gold')$$),
	('list', $$finance.is_on_list(%L, 'device', 'd')$$),
	('list', $$finance.remove_from_list(%L, 'device', 'd', 'x')$$),
	('account', $$finance.add_rule('r', 'daily_limit', 1, account => %L)$$),
	('account', $$finance.explain_risk(%L, 'mine', 1)$$),
	('account', $$finance.explain_risk('mine', %L, 1)$$),
	('account', $$finance.evaluate_risk(%L, 'mine', 1)$$),
	('ruleset', $$finance.create_ruleset('r', copy_of => %s)$$),
	('ruleset', 'finance.publish_ruleset(%s)'),
	('ruleset', 'finance.retire_ruleset(%s)'),
	('ruleset', 'finance.drop_ruleset(%s)'),
	('ruleset', $$finance.add_rule('r', 'blocklist', ruleset => %s)$$),
	('ruleset', $$finance.remove_rule('limit', ruleset => %s)$$),
	('ruleset', $$finance.enable_rule('limit', ruleset => %s)$$),
	('ruleset', $$finance.explain_risk('mine', 'mine too', 1, ruleset => %s)$$),
	('ruleset', $$finance.backtest_ruleset(%s, '2020-01-01')$$),
	('ruleset', $$finance.backtest_differences(%s, '2020-01-01')$$),
	('rejected', 'finance.replay_decision(%s)'),
	('rejected', 'finance.replay_decision(%s, 2)'),
	('account', $$finance.pause_transfers('account=' || %L, 'x')$$),
	('account', $$finance.resume_transfers('account=' || %L, 'x')$$),
	('account', $$finance.set_rate_limit('account=' || %L, 1, 1)$$),
	('account', $$finance.rate_limits(%L)$$),
	('account id', 'finance.transfer(%s, :mine, 1)'),
	('account id', 'finance.transfer(:mine, %s, 1)'),
	('hold', 'finance.capture(%s)'),
	('hold', 'finance.capture(%s, 1, final => true)'),
	('hold', 'finance.release(%s)'),
	('hold', $$finance.transfer_batch(ARRAY[finance.request(action => 'capture', hold_id => %s), finance.request(action => 'release', hold_id => %1$s)])$$),
	('group', 'finance.capture_group(%L)'),
	('group', 'finance.release_group(%L)'),
	('transfer', 'finance.reverse_transfer(%s)'),
	('transfer', 'finance.reversals(%s)'),
	('transfer', 'finance.capture(%s)'),
	('journal', 'finance.reverse_journal(%s)'),
	('type', $$finance.create_account('my own', 'EUR', %L)$$),
	('type', $$finance.transfer('mine', 'mine too', 1, type => %L)$$),
	('type', $$finance.create_transfer_type('my type', ARRAY[%L])$$),
	('type', $$finance.journal(ARRAY[finance.leg('mine', 'debit', 1), finance.leg('mine too', 'credit', 1)], type => %L)$$),
	('type', $$finance.pause_transfers('type=' || %L, 'x')$$),
	('type', $$finance.set_rate_limit('type=' || %L, 1, 1)$$),
	('queue', $$finance.send(%L, '1')$$),
	('queue', $$finance.send_batch(%L, '{1}')$$),
	('queue', $$finance.read(%L, 1)$$),
	('queue', $$finance.pop(%L)$$),
	('queue', $$finance.metrics(%L)$$),
	('queue', $$finance.read_with_poll(%L, 1)$$),
	('queue', $$finance.alter_queue(%L, max_deliveries => 3)$$),
	('queue', $$finance.alter_queue('mine', dead_letter_queue => %L)$$),
	('queue', $$finance.create_queue('my_own', dead_letter_queue => %L)$$),
	('queue', $$finance.pause_queue(%L)$$),
	('queue', $$finance.resume_queue(%L)$$),
	('queue', $$finance.redrive(%L)$$),
	('queue', $$finance.redrive('mine', %L)$$),
	('queue', $$finance.purge_queue(%L)$$),
	('queue', $$finance.purge_archive(%L)$$),
	('queue', $$finance.drop_queue(%L)$$),
	('queue', $$finance.bind_topic('#', %L)$$),
	('queue', $$finance.unbind_topic('#', %L)$$),
	('queue', $$finance.set_default_queues(dead_letter => %L)$$),
	('queue', $$finance.set_default_queues(alternate => %L)$$),
	('message', $$finance.delete('mine', %s)$$),
	('message', $$finance.delete('mine', ARRAY[%s])$$),
	('message', $$finance.archive('mine', %s)$$),
	('message', $$finance.archive('mine', ARRAY[%s])$$),
	('message', $$finance.nack('mine', %s)$$),
	('message', $$finance.nack('mine', ARRAY[%s])$$),
	('message', $$finance.set_vt('mine', %s, 1)$$),
	('rule', 'finance.remove_rule(%L)'),
	('rule', 'finance.enable_rule(%L)'),
	('rule', $$finance.set_rule_limit(%L, 1, 'x', account => 'mine')$$),
	('half', 'finance.commit_message(%s)'),
	('half', 'finance.commit_message(ARRAY[%s])'),
	('half', 'finance.rollback_message(%s)'),
	('half', 'finance.rollback_message(ARRAY[%s])'),
	('half', 'finance.half_message_status(%s)'),
	('half', 'finance.recheck_half_message(%s)'),
	('review', $$finance.review_transfer(%s, true)$$),
	('review', $$finance.review_transfer(%s, false, 'x')$$),
	('review', 'finance.capture(%s)'),
	('challenge', $$finance.confirm_challenge(%s, repeat('0', 32))$$),
	('challenge', 'finance.new_challenge_token(%s)'),
	('alert', $$finance.assign_alert(%s, 'x')$$),
	('alert', $$finance.comment_alert(%s, 'x')$$),
	('alert', $$finance.close_alert(%s, 'confirmed', 'x')$$),
	('alert', $$finance.reopen_alert(%s, 'x')$$),
	('producers', $$finance.prepare_message(%L, 'a.b', '1')$$),
	('producers', 'finance.alter_producer_group(%L)'),
	('producers', 'finance.drop_producer_group(%L)'),
	('channel', 'finance.unsubscribe(%L)'),
	('trace', 'finance.audit_trace(%L)');
CREATE TEMP TABLE thing (kind text, foreign_name text, missing_name text);
INSERT INTO thing VALUES
	('account', 'theirs', 'nobody'), ('account id', :account, '4611686018427387904'), ('hold', :hold, '4611686018427387904'), ('group', 'their group', 'no group'),
	('transfer', :transfer, '4611686018427387904'), ('journal', :journal, '4611686018427387904'), ('type', 'their type', 'no such type'), ('queue', 'their_queue', 'no_such_queue'),
	('message', :message, '4611686018427387904'), ('half', :half, '4611686018427387904'), ('review', :review, '4611686018427387904'), ('challenge', :challenge, '4611686018427387904'),
	('alert', :alert, '4611686018427387904'), ('producers', 'their_producers', 'no_producers'), ('rule', 'their rule', 'no such rule'), ('list', 'their list', 'no such list'), ('ruleset', :draft, '999999'), ('rejected', :rejected, '4611686018427387904'), ('channel', 'fin_test_channel', 'nochannel'),
	('trace', (SELECT trace_id::text FROM finance.transfer WHERE id = :transfer), '00000000-0000-0000-0000-000000000000');
GRANT SELECT ON foreign_call, thing TO PUBLIC;

-- all that the caller is told, with the name of the thing left out; undone
CREATE FUNCTION pg_temp.told(statement text, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	told text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE format('SELECT string_agg(r::text, chr(10)) FROM %s r', format(statement, name)) INTO told;
	RAISE EXCEPTION SQLSTATE 'XX996';
EXCEPTION
	WHEN SQLSTATE 'XX996' THEN
		RETURN replace(coalesce(told, 'nothing'), name, '?');
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN replace(concat_ws(' | ', SQLSTATE, message, detail, hint), name, '?');
END $$;

SELECT finance.create_tenant('second', member_role => 'fin_test_members') AS second \gset
SELECT set_config('finance.tenant', :'second', true) \g /dev/null
SET LOCAL ROLE fin_test_member;
SELECT finance.create_account(code, currency, min_available => NULL) FROM (VALUES ('mine', 'EUR'), ('mine too', 'EUR'), ('my usd', 'USD'), ('my usd2', 'USD')) AS v (code, currency) \g /dev/null
SELECT account_id AS mine FROM finance.account WHERE code = 'mine' \gset
SELECT finance.create_queue('mine') \g /dev/null
RESET ROLE;
UPDATE foreign_call SET statement = replace(statement, ':mine', :'mine');
SET LOCAL ROLE fin_test_member;
SELECT is(pg_temp.told(statement, foreign_name), pg_temp.told(statement, missing_name), 'not there: ' || format(statement, missing_name))
	FROM foreign_call JOIN thing USING (kind);
-- and neither is an answer that anything would give
SELECT is_empty($$SELECT statement, pg_temp.told(statement, missing_name) FROM foreign_call JOIN thing USING (kind)
	WHERE pg_temp.told(statement, missing_name) !~ '^(LG|22023|42704|nothing$|false$|\(1,LG)'$$, 'all of these say that there is no such thing');
SELECT is(pg_temp.told($$finance.release_group('g2')$$, 'g2'), 'LG012 | hold group "?" has no open hold |  | ', 'such as this');
-- names may be had by both: keys, groups, codes
SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR') \g /dev/null
SELECT is((finance.transfer('a', 'b', 5, idempotency_key => 'k')).replayed, false, 'a key of another tenant is free');
SELECT is((finance.hold('a', 'b', 7, hold_group => 'their group')).status, 'held', 'as is the name of a group');
SELECT is((SELECT sum(amount) FROM finance.capture_group('their group')), 7.00, 'which is of this tenant only');
SELECT is(finance.expire_holds(), 0::bigint, 'and holds of the other do not expire here');
SELECT is((SELECT count(*) FROM finance.transfer), 3::bigint, 'a member of both sees the tenant that is set');
SELECT is((SELECT count(*) FROM finance.hold), 1::bigint, 'of holds too');
RESET ROLE;
SET LOCAL finance.tenant = :tenant;
SELECT is((SELECT status FROM finance.hold WHERE hold_id = :hold AND tenant_id = :tenant), 'open', 'the first tenant is as it was');
SELECT is_empty('SELECT * FROM finance.check_integrity()', 'all invariants hold');

-- ------------------------------------------------------------------------
-- check_integrity()
-- ------------------------------------------------------------------------

ALTER TABLE finance._account DISABLE TRIGGER guard;
UPDATE finance._account SET version = version + 1 WHERE tenant_id = :tenant AND code = 'a';
-- of the book, and of the audit log
SELECT is((SELECT count(*) FROM finance.check_integrity()), 2::bigint, 'the owner is told of a breach');
SET LOCAL ROLE fin_test_member;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 2::bigint, 'so is a member');
SET LOCAL finance.tenant = 0;
SELECT is((SELECT count(*) FROM finance.check_integrity()), 2::bigint, 'from whichever tenant');
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
