-- Privileges: nobody may anything that was not granted, level by level; looked
-- up in the catalogs, so that nothing new is forgotten.
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

CREATE ROLE fin_test_nobody;
CREATE ROLE fin_test_app;
CREATE ROLE fin_test_operator;
CREATE ROLE fin_test_auditor;
CREATE ROLE fin_test_witness;
-- partitions and queues as in use
SELECT finance.create_account(code, 'EUR', min_available => NULL) FROM (VALUES ('a'), ('b')) AS v (code) \g /dev/null
SELECT finance.create_queue('q'), finance.create_log_queue('log'), finance.create_consumer_group('log', 'g') \g /dev/null
SELECT id AS transfer FROM finance.transfer('a', 'b', 1) \gset

CREATE TEMP VIEW function AS
	SELECT p.oid, p.proname, p.oid::regprocedure::text AS signature, p.prosecdef, p.proconfig
	FROM pg_proc p WHERE p.pronamespace = 'finance'::regnamespace;
CREATE TEMP VIEW relation AS
	SELECT c.oid, c.relname, c.relkind, c.relispartition
	FROM pg_class c WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f');
-- whatever this server has: MAINTAIN came with 17
CREATE TEMP VIEW table_privilege AS
	SELECT privilege_type AS privilege FROM aclexplode(acldefault('r', 10));

-- it would be seen
SELECT cmp_ok((SELECT count(*) FROM function), '>', 50::bigint, 'there are functions to look at');
SELECT cmp_ok((SELECT count(*) FROM table_privilege), '>=', 7::bigint, 'and privileges');
SELECT cmp_ok((SELECT count(*) FROM relation WHERE relispartition), '>=', 4::bigint, 'and partitions');
CREATE FUNCTION finance.open() RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT isnt_empty($$SELECT signature FROM function WHERE has_function_privilege('public', oid, 'EXECUTE')$$,
	'a function made after the script would be open to PUBLIC, and be found');
DROP FUNCTION finance.open();

-- ------------------------------------------------------------------------
-- without a grant
-- ------------------------------------------------------------------------

SELECT is_empty($$SELECT signature FROM function WHERE has_function_privilege('public', oid, 'EXECUTE')$$,
	'PUBLIC executes nothing');
SELECT is_empty($$SELECT signature FROM function WHERE has_function_privilege('fin_test_nobody', oid, 'EXECUTE')$$,
	'nor does a role of no level');
SELECT is_empty($$SELECT relname, privilege FROM relation, table_privilege
	WHERE relkind <> 'S' AND has_table_privilege('public', oid, privilege)$$, 'PUBLIC touches no table');
SELECT is_empty($$SELECT c.relname, a.attname FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE a.attacl IS NOT NULL$$, 'no column has privileges of its own');
SELECT is_empty($$SELECT relname FROM relation WHERE relkind = 'S'
	AND (has_sequence_privilege('public', oid, 'USAGE') OR has_sequence_privilege('public', oid, 'SELECT') OR has_sequence_privilege('public', oid, 'UPDATE'))$$,
	'PUBLIC draws no number');
SELECT ok(NOT has_schema_privilege('public', 'finance', privilege), 'PUBLIC has no ' || privilege || ' on the schema')
	FROM unnest('{USAGE, CREATE}'::text[]) AS privilege;
SELECT is_empty($$SELECT t.typname FROM pg_type t WHERE t.typnamespace = 'finance'::regnamespace AND t.typtype NOT IN ('b', 'c', 'd', 'e', 'p')$$,
	'no kinds of types that would need privileges of their own');

-- ------------------------------------------------------------------------
-- the levels, exactly
-- ------------------------------------------------------------------------

SELECT finance.grant_access('fin_test_app', 'app') \g /dev/null
SELECT finance.grant_access('fin_test_operator', 'operator') \g /dev/null
SELECT finance.grant_access('fin_test_auditor', 'auditor') \g /dev/null
SELECT finance.grant_access('fin_test_witness', 'witness') \g /dev/null

CREATE FUNCTION pg_temp.executable(role text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT DISTINCT proname::text FROM function WHERE has_function_privilege(role, oid, 'EXECUTE') $$;
CREATE FUNCTION pg_temp.readable(role text) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT relname::text FROM relation WHERE relkind <> 'S' AND has_table_privilege(role, oid, 'SELECT') $$;

SELECT set_eq($$SELECT pg_temp.executable('fin_test_app')$$, ARRAY['_is_tenant_visible', 'balance', 'id_time', 'id_floor',
	'topic_matches', 'transfer', 'create_account', 'lock_accounts', 'set_context', 'publish', 'send', 'send_batch', 'read', 'pop', 'delete', 'archive',
	'set_vt', 'test_routing', 'list_queues', 'metrics', 'rollup', 'trial_balance', 'balance_sheet', '_now', 'balance_at', 'statement', 'reversals',
	'split_amount', 'transfer_batch', 'request', 'hold', 'capture', 'release', 'capture_group', 'release_group', 'expire_holds', 'journal', 'leg',
	'exchange', 'distribute', 'reverse_transfer', 'reverse_journal',
	'prepare_message', 'prepare_messages', 'commit_message', 'rollback_message', 'half_message_status', 'process_once', 'process_once_batch',
	'read_with_poll', 'wait_for_message', 'nack', 'read_group', 'commit_group', 'list_consumer_groups', 'confirm_challenge', 'new_challenge_token'], 'app: these functions');
SELECT set_eq($$SELECT pg_temp.executable('fin_test_operator') EXCEPT SELECT pg_temp.executable('fin_test_app')$$, ARRAY[
	'set_account_status', 'set_account_limits', 'set_min_available', 'set_max_balance', 'close_account', 'add_rule', 'remove_rule', 'enable_rule', 'block_account', 'unblock_account',
	'add_to_list', 'load_list', 'remove_from_list', 'remove_expired_entries', 'is_on_list', 'set_rule_limit', 'clear_rule_limit', 'rule_limit_of', 'set_account_level',
	'create_queue', 'alter_queue', 'pause_queue', 'resume_queue', 'redrive', 'subscriptions', 'drop_queue', 'purge_queue', 'purge_archive', 'bind_topic', 'unbind_topic', 'list_bindings', 'set_default_queues', 'default_queues', 'subscribe', 'unsubscribe',
	'metrics_all', 'check_integrity', 'worker_status', 'wake_worker', 'create_account_type', 'create_transfer_type', 'set_account_parent',
	'import_transfers',
	'create_producer_group', 'alter_producer_group', 'drop_producer_group', 'recheck_half_message', 'check_half_messages',
	'create_log_queue', 'create_consumer_group', 'drop_consumer_group', 'seek_group', 'trim_log_queues',
	'risk_facts', 'check_expression', 'pause_transfers', 'resume_transfers', 'transfers_in_flight', 'set_rate_limit', 'drop_rate_limit', 'rate_limits',
	'review_transfer', 'settle_reviews', 'assign_alert', 'comment_alert', 'close_alert', 'reopen_alert', 'export_aml', 'audit_erase_subject', 'audit_erase_payload',
	'create_ruleset', 'publish_ruleset', 'retire_ruleset', 'drop_ruleset', 'rule_kinds', 'add_holiday', 'remove_holiday', 'explain_risk', 'evaluate_risk', 'replay_decision', 'backtest_ruleset', 'backtest_differences', 'seal_audit', 'audit_lag', '_audit_lag',
	'audit_due'], 'operator: these in addition');
SELECT is_empty($$SELECT pg_temp.executable('fin_test_app') EXCEPT SELECT pg_temp.executable('fin_test_operator')$$, 'operator: all of app');
SELECT set_eq($$SELECT pg_temp.executable('fin_test_auditor')$$, ARRAY['_is_tenant_visible', 'balance', 'id_time', 'id_floor',
	'topic_matches', 'audit_trace', 'audit_decrypt', 'audit_log', 'audit_history', 'audit_row_history', 'audit_diff', 'verify_audit', 'audit_proof', 'verify_inclusion', 'verify_consistency', 'audit_digest', 'audit_consistency', 'check_integrity', 'rollup', 'trial_balance', 'balance_sheet', '_now', 'balance_at', 'statement', 'reversals',
	'split_amount', 'is_on_list', 'rule_limit_of', 'transfers_in_flight', 'rate_limits', 'export_aml', 'rule_kinds', 'replay_decision', 'backtest_ruleset', 'backtest_differences', 'audit_lag', '_audit_lag',
	'audit_export', 'audit_archive', 'audit_due'], 'auditor: these functions');
SELECT set_eq($$SELECT pg_temp.executable('fin_test_witness')$$, ARRAY['audit_digest', 'audit_consistency'], 'witness: these functions');
SELECT is_empty($$SELECT pg_temp.readable('fin_test_witness')$$, 'witness: reads no table');
SELECT set_eq($$SELECT proname FROM function WHERE proname NOT LIKE '\_%' EXCEPT SELECT pg_temp.executable('fin_test_operator') EXCEPT SELECT pg_temp.executable('fin_test_auditor')$$,
	ARRAY['create_tenant', 'set_tenant_time_zone', 'create_currency', 'audit_table', 'unaudit_table', 'grant_access', 'drop_audit_month'],
	'left to the owner: tenants, currencies, audited tables, access');
SELECT is_empty($$SELECT p.signature FROM function p JOIN function o USING (proname) WHERE has_function_privilege('fin_test_app', p.oid, 'EXECUTE')
	<> has_function_privilege('fin_test_app', o.oid, 'EXECUTE')$$, 'overloads go together');

SELECT set_eq($$SELECT pg_temp.readable('fin_test_app')$$, ARRAY['account', '_account', 'entry', 'transfer', 'currency', 'risk_decision', 'risk_hit', 'account_type', 'transfer_type',
	'hold', '_hold', 'journal', 'reversal', 'exchange', 'exchange_residue'], 'app: reads these');
SELECT set_eq($$SELECT pg_temp.readable('fin_test_operator')$$, ARRAY['account', '_account', 'entry', 'transfer', 'currency', 'risk_decision',
	'account_change', 'risk_rule', 'risk_list', 'rule_limit', 'queue', 'binding', 'queue_default', 'subscription', 'message', 'message_archive', 'inbox', 'workers', 'account_type', 'transfer_type',
	'hold', '_hold', 'journal', 'reversal', 'exchange', 'exchange_residue',
	'producer_group', 'half_message', 'half_check', 'half_answer', 'parked_half_message', 'message_log', 'log_queue', 'consumer_group', 'group_position',
	'transfer_pause', 'rate_limit', 'risk_review', 'review', '_alert', 'alert', 'alert_transfer', 'alert_comment', 'aml_report',
	'ruleset', 'live_rule', 'risk_hit', 'holiday', 'risk_measure', 'risk_total'], 'operator: reads these');
SELECT set_eq($$SELECT pg_temp.readable('fin_test_auditor')$$, ARRAY['account', '_account', 'entry', 'transfer', 'currency', 'risk_decision',
	'account_change', 'risk_rule', 'risk_list', 'rule_limit', 'idempotency_key', 'audit_record', 'audit_incarnation', 'audit_block', 'audit_month', 'tenant', 'account_type', 'transfer_type',
	'hold', '_hold', 'journal', 'reversal', 'exchange', 'exchange_residue', 'value_transfer', 'value_day',
	'transfer_pause', 'rate_limit', 'risk_review', 'review', '_alert', 'alert', 'alert_transfer', 'alert_comment', 'aml_report',
	'ruleset', 'live_rule', 'risk_hit', 'holiday', 'risk_measure', 'risk_total'], 'auditor: reads these');

SELECT is_empty(format($$SELECT relname, privilege FROM relation, table_privilege
	WHERE privilege <> 'SELECT' AND relkind <> 'S' AND has_table_privilege(%L, oid, privilege)$$, role), role || ' writes no table')
	FROM unnest('{fin_test_app, fin_test_operator, fin_test_auditor, fin_test_witness}'::text[]) AS role;
SELECT is_empty(format($$SELECT relname FROM relation WHERE relkind = 'S' AND (has_sequence_privilege(%1$L, oid, 'USAGE')
	OR has_sequence_privilege(%1$L, oid, 'SELECT') OR has_sequence_privilege(%1$L, oid, 'UPDATE'))$$, role), role || ' draws no number')
	FROM unnest('{fin_test_app, fin_test_operator, fin_test_auditor, fin_test_witness}'::text[]) AS role;
SELECT ok(NOT has_schema_privilege(role, 'finance', 'CREATE'), role || ' creates nothing in the schema')
	FROM unnest('{fin_test_app, fin_test_operator, fin_test_auditor, fin_test_witness}'::text[]) AS role;
SELECT is_empty($$SELECT relname, role FROM relation, unnest('{fin_test_app, fin_test_operator, fin_test_auditor, fin_test_witness}'::text[]) AS role
	WHERE relispartition AND has_table_privilege(role, oid, 'SELECT')$$, 'nobody reads a partition around row security');
-- an auditor changes nothing: what he may execute writes nothing
SELECT is_empty($$SELECT signature FROM function WHERE has_function_privilege('fin_test_auditor', oid, 'EXECUTE')
	AND proname NOT IN ('_is_tenant_visible', 'balance', 'id_time', 'id_floor', 'topic_matches', 'audit_trace', 'audit_decrypt', 'audit_log', 'audit_history', 'audit_row_history', 'audit_diff', 'verify_audit', 'audit_proof', 'verify_inclusion', 'verify_consistency', 'audit_digest', 'audit_consistency', 'check_integrity', 'rollup', 'trial_balance', 'balance_sheet',
		'_now', 'balance_at', 'statement', 'reversals', 'split_amount', 'is_on_list', 'rule_limit_of', 'transfers_in_flight', 'rate_limits', 'export_aml', 'rule_kinds', 'replay_decision', 'backtest_ruleset', 'backtest_differences', 'audit_lag', '_audit_lag',
		'audit_export', 'audit_archive', 'audit_due')$$,
	'auditor: nothing that writes');
CREATE TEMP TABLE before AS SELECT count(*) AS transfers, (SELECT count(*) FROM finance.audit_record) AS records FROM finance.transfer;
GRANT ALL ON before TO PUBLIC;
SET LOCAL ROLE fin_test_auditor;
SELECT lives_ok($$SELECT finance.balance('a')$$, 'auditor: balance()');
SELECT lives_ok($$SELECT * FROM finance.check_integrity()$$, 'check_integrity()');
SELECT lives_ok($$SELECT * FROM finance.audit_trace('00000000-0000-0000-0000-000000000000')$$, 'audit_trace()');
SELECT lives_ok('SELECT * FROM ' || call, 'auditor: ' || call) FROM unnest(ARRAY['finance.balance_at(''a'', now())', 'finance.statement(''a'')', 'finance.rollup(''a'')',
	'finance.trial_balance()', 'finance.trial_balance(now())', 'finance.balance_sheet()', format('finance.reversals(%s)', :transfer), 'finance.hold', 'finance.entry',
	'finance.transfers_in_flight()', 'finance.rate_limits(''a'')', 'finance.transfer_pause', 'finance.rate_limit',
	'finance.review', 'finance.alert', 'finance.aml_report', 'finance.export_aml(now(), now())', 'finance.rule_kinds()', 'finance.rule_limit_of(''r'', ''a'')', 'finance.is_on_list(''l'', ''account'', ''a'')',
	'finance.ruleset', 'finance.live_rule', 'finance.risk_rule', 'finance.risk_decision', 'finance.risk_hit', 'finance.risk_total', 'finance.risk_measure', 'finance.holiday']) AS call;
SELECT throws_ok('SELECT ' || call, 'LG108', NULL, 'auditor: ' || call) FROM unnest(ARRAY['finance.backtest_ruleset(1, ''2020-01-01'')', 'finance.backtest_differences(1, ''2020-01-01'')']) AS call;
SELECT throws_ok('SELECT ' || call, '42501', NULL, 'auditor: not ' || call) FROM unnest(ARRAY['finance.transfer(''a'', ''b'', 1)', 'finance.hold(''a'', ''b'', 1)',
	'finance.transfer_batch(''{}'')', 'finance.journal(''{}'')', 'finance.expire_holds()', 'finance.lock_accounts(''{a}'')', 'finance.review_transfer(1, true)', 'finance.confirm_challenge(1, ''x'')', 'finance.comment_alert(1, ''x'')', format('finance.reverse_transfer(%s)', :transfer),
	'finance.add_rule(''r'', ''blocklist'')', 'finance.create_ruleset(''r'')', 'finance.publish_ruleset(1)', 'finance.explain_risk(''a'', ''b'', 1)', 'finance.evaluate_risk(''a'', ''b'', 1)']) AS call;
RESET ROLE;
SELECT results_eq($$SELECT count(*), (SELECT count(*) FROM finance.audit_record) FROM finance.transfer$$, 'SELECT * FROM before', 'which wrote nothing');

-- the switch: an operator's, but everywhere only the owner's
SET LOCAL ROLE fin_test_app;
SELECT throws_ok('SELECT ' || call, '42501', NULL, 'app: not ' || call) FROM unnest(ARRAY['finance.pause_transfers(''all'', ''x'')', 'finance.resume_transfers(''all'', ''x'')',
	'finance.set_rate_limit(''tenant'', 1, 1)', 'finance.drop_rate_limit(''tenant'')', 'finance.rate_limits()', 'finance.transfers_in_flight()']) AS call;
SET LOCAL ROLE fin_test_operator;
SELECT throws_ok('SELECT ' || call, '42501', 'permission denied for scope everywhere', 'operator: not ' || call)
	FROM unnest(ARRAY['finance.pause_transfers(''everywhere'', ''x'')', 'finance.resume_transfers(''everywhere'', ''x'')']) AS call;
SELECT lives_ok('SELECT ' || call, 'operator: ' || call) FROM unnest(ARRAY['finance.pause_transfers(''all'', ''x'')', 'finance.resume_transfers(''all'', ''x'')',
	'finance.set_rate_limit(''tenant'', 1, 1)', 'finance.drop_rate_limit(''tenant'')', 'finance.rate_limits()', 'finance.transfers_in_flight()']) AS call;
RESET ROLE;

-- ------------------------------------------------------------------------
-- what runs as its owner
-- ------------------------------------------------------------------------

SELECT is_empty($$SELECT signature FROM function WHERE prosecdef
	AND NOT coalesce(proconfig, '{}') && ARRAY['search_path=pg_catalog, pg_temp', 'search_path="pg_catalog, pg_temp"']$$,
	'security definer functions pin search_path');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace = 'finance'::regnamespace AND l.lanname NOT IN ('c', 'sql')$$, 'functions are of C or SQL');
SELECT is_empty($$SELECT c.relname FROM relation c JOIN pg_class k ON k.oid = c.oid WHERE c.relkind = 'v'
	AND NOT coalesce(k.reloptions, '{}') && '{security_invoker=true}' AND c.relname <> 'workers'$$, 'views read as who asks');

-- row security on all that has a tenant
SELECT is_empty($$SELECT c.relname FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
	JOIN pg_class k ON k.oid = c.oid WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT k.relrowsecurity$$,
	'every table with a tenant has row security');
SELECT is_empty($$SELECT c.relname FROM relation c JOIN pg_class k ON k.oid = c.oid WHERE c.relispartition AND NOT k.relrowsecurity$$,
	'and every partition, should somebody be granted one');
SELECT is_empty($$SELECT c.relname FROM relation c JOIN pg_class k ON k.oid = c.oid WHERE k.relrowsecurity AND NOT c.relispartition
	AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'
		AND pg_get_expr(p.polqual, p.polrelid) IN ('finance._is_tenant_visible(tenant_id)', '(builtin OR finance._is_tenant_visible(tenant_id))',
			'((scope = ''everywhere''::text) OR finance._is_tenant_visible(tenant_id))'))$$, 'by the tenant''s role');
SELECT is_empty($$SELECT relname FROM relation WHERE relkind IN ('r', 'p') AND NOT relispartition
	AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = oid AND attname = 'tenant_id') AND relname NOT IN ('currency', 'log_incarnation',
		'audit_incarnation', 'audit_block', 'audit_leaves', 'audit_node', 'audit_tree', 'audit_term', 'audit_month')$$,
	'only currencies are everybody''s, what is known of the cluster, and the tree over all records');

-- settings: what a user may change of himself, and no more
SELECT set_eq($$SELECT name FROM pg_settings WHERE name LIKE 'finance.%' AND context = 'user'$$,
	ARRAY['finance.tenant', 'finance.actor', 'finance.trace_id', 'finance.user_agent', 'finance.span_id', 'finance.request_id', 'finance.reason', 'finance.client_addr'], 'users set who they are');
SELECT set_eq($$SELECT name FROM pg_settings WHERE name LIKE 'finance.%' AND context = 'superuser'$$,
	ARRAY['finance.max_payload', 'finance.audit_reads', 'finance.direct_writes', 'finance.test_clock'], 'superusers set limits, how rows are written, and the clock of tests');
SET LOCAL ROLE fin_test_operator;
SELECT throws_ok($$SET finance.test_clock = '2000-01-01'$$, '42501', NULL, 'the clock is not the operator''s');
SELECT throws_ok($$SET finance.max_payload = '64MB'$$, '42501', NULL, 'nor is the cap on payloads');
SELECT throws_ok($$SELECT set_config('finance.test_clock', '2000-01-01', true)$$, '42501', NULL, 'by no way');
RESET ROLE;
SELECT throws_ok($$SET finance.no_such_thing = 1$$, '42602', NULL, 'and there are no others');

SELECT * FROM finish();
ROLLBACK;
