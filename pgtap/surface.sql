-- The SQL surface: names, arguments, defaults, types and comments that callers
-- count on.
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

-- partitions and queues as in use
SELECT finance.create_account(code, 'EUR', min_available => NULL) FROM (VALUES ('a'), ('b')) AS v (code) \g /dev/null
SELECT finance.create_queue('q') \g /dev/null
SELECT finance.transfer('a', 'b', 1) \g /dev/null

CREATE TEMP VIEW function AS
	SELECT p.*, p.oid::regprocedure::text AS signature FROM pg_proc p WHERE p.pronamespace = 'finance'::regnamespace;

-- ------------------------------------------------------------------------
-- functions: arguments by name, with their defaults, and what comes back
-- ------------------------------------------------------------------------

SELECT is(pg_get_function_arguments(oid) || ' -> ' || pg_get_function_result(oid), expected, proname || '()')
FROM (VALUES
	('finance.create_tenant(text, text, regrole)', 'name text, time_zone text DEFAULT ''UTC''::text, member_role regrole DEFAULT NULL::regrole -> integer'),
	('finance.set_tenant_time_zone(integer, text)', 'tenant_id integer, time_zone text -> void'),
	('finance.create_currency(text, integer, text)', 'code text, minor_units integer, name text DEFAULT NULL::text -> void'),
	('finance.create_account(text, text, text, numeric, numeric, jsonb, text)', 'code text, currency text, type text DEFAULT ''liability''::text, min_available numeric DEFAULT 0, max_balance numeric DEFAULT NULL::numeric, metadata jsonb DEFAULT NULL::jsonb, parent text DEFAULT NULL::text -> bigint'),
	('finance.create_account_type(text, text, text)', 'type text, normal_side text, name text DEFAULT NULL::text -> void'),
	('finance.create_transfer_type(text, text[], text[], text)', 'type text, from_types text[] DEFAULT NULL::text[], to_types text[] DEFAULT NULL::text[], name text DEFAULT NULL::text -> void'),
	('finance.set_account_parent(text, text, text)', 'code text, parent text, reason text DEFAULT NULL::text -> bigint'),
	('finance.rollup(text)', 'code text -> TABLE(currency text, accounts bigint, balance numeric, held numeric, available numeric)'),
	('finance.trial_balance(timestamptz)', 'at timestamp with time zone DEFAULT NULL::timestamp with time zone -> TABLE(currency text, type text, normal_side text, code text, debit numeric, credit numeric)'),
	('finance.balance_sheet(timestamptz)', 'at timestamp with time zone DEFAULT NULL::timestamp with time zone -> TABLE(currency text, type text, normal_side text, balance numeric)'),
	('finance.set_account_status(text, text, text)', 'code text, status text, reason text DEFAULT NULL::text -> bigint'),
	('finance.set_account_limits(text, numeric, numeric, text)', 'code text, min_available numeric, max_balance numeric, reason text DEFAULT NULL::text -> bigint'),
	('finance.set_min_available(text, numeric, text)', 'code text, min_available numeric, reason text DEFAULT NULL::text -> bigint'),
	('finance.set_max_balance(text, numeric, text)', 'code text, max_balance numeric, reason text DEFAULT NULL::text -> bigint'),
	('finance.close_account(text, text, text)', 'code text, to_account text DEFAULT NULL::text, reason text DEFAULT NULL::text -> bigint'),
	('finance.lock_accounts(text[])', 'codes text[] -> TABLE(code text, account_id bigint, status text, currency text, balance numeric, held numeric, available numeric, version bigint)'),
	('finance.balance(text)', 'code text -> numeric'),
	('finance.transfer(text, text, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, jsonb)', 'from_account text, to_account text, amount numeric, currency text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, expected_from_version bigint DEFAULT NULL::bigint, expected_to_version bigint DEFAULT NULL::bigint, amount_mode text DEFAULT ''exact''::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.transfer(bigint, bigint, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, jsonb)', 'from_account bigint, to_account bigint, amount numeric, currency text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, expected_from_version bigint DEFAULT NULL::bigint, expected_to_version bigint DEFAULT NULL::bigint, amount_mode text DEFAULT ''exact''::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.request(text, text, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, text, bigint, boolean, interval, text, timestamptz)', 'from_account text DEFAULT NULL::text, to_account text DEFAULT NULL::text, amount numeric DEFAULT NULL::numeric, currency text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, type text DEFAULT NULL::text, expected_from_version bigint DEFAULT NULL::bigint, expected_to_version bigint DEFAULT NULL::bigint, amount_mode text DEFAULT NULL::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, linked boolean DEFAULT NULL::boolean, action text DEFAULT NULL::text, hold_id bigint DEFAULT NULL::bigint, final boolean DEFAULT NULL::boolean, expires_in interval DEFAULT NULL::interval, hold_group text DEFAULT NULL::text, recorded_at timestamp with time zone DEFAULT NULL::timestamp with time zone -> finance.transfer_request'),
	('finance.transfer_batch(finance.transfer_request[], boolean, jsonb)', 'requests finance.transfer_request[], atomic boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> SETOF finance.batch_result'),
	('finance.import_transfers(finance.transfer_request[])', 'requests finance.transfer_request[] -> SETOF finance.batch_result'),
	('finance.hold(text, text, numeric, interval, text, text, text, bigint, bigint, text, text, text, jsonb, boolean, jsonb)', 'from_account text, to_account text, amount numeric, expires_in interval DEFAULT NULL::interval, currency text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, expected_from_version bigint DEFAULT NULL::bigint, expected_to_version bigint DEFAULT NULL::bigint, amount_mode text DEFAULT ''exact''::text, hold_group text DEFAULT NULL::text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.capture(bigint, numeric, boolean, text, timestamptz, text, jsonb, jsonb)', 'hold_id bigint, amount numeric DEFAULT NULL::numeric, final boolean DEFAULT false, idempotency_key text DEFAULT NULL::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.release(bigint, numeric, text, text, jsonb, jsonb)', 'hold_id bigint, amount numeric DEFAULT NULL::numeric, idempotency_key text DEFAULT NULL::text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.capture_group(text, text, jsonb)', 'hold_group text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb -> SETOF finance.transfer_result'),
	('finance.release_group(text, text, jsonb)', 'hold_group text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb -> SETOF finance.transfer_result'),
	('finance.expire_holds(integer)', '"limit" integer DEFAULT 1000 -> bigint'),
	('finance.leg(text, text, numeric, bigint)', 'account text, side text, amount numeric, expected_version bigint DEFAULT NULL::bigint -> finance.journal_leg'),
	('finance.journal(finance.journal_leg[], text, text, timestamptz, text, jsonb, boolean, jsonb)', 'legs finance.journal_leg[], idempotency_key text DEFAULT NULL::text, type text DEFAULT ''journal''::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> SETOF finance.transfer_result'),
	('finance.exchange(text, text, numeric, numeric, text, text, text, text, text, timestamptz, text, jsonb, boolean, jsonb)', 'from_account text, to_account text, amount numeric, rate numeric, liquidity_from text, liquidity_to text, rounding text DEFAULT ''half_even''::text, rounding_account text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false, context jsonb DEFAULT NULL::jsonb -> SETOF finance.transfer_result'),
	('finance.distribute(text, text[], numeric[], numeric, text, text, timestamptz, text, jsonb, boolean)', 'from_account text, to_accounts text[], weights numeric[], amount numeric, idempotency_key text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, effective_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, strict boolean DEFAULT false -> SETOF finance.transfer_result'),
	('finance.split_amount(numeric, numeric[], integer)', 'amount numeric, weights numeric[], decimals integer -> numeric[]'),
	('finance.reverse_transfer(bigint, numeric, text, text, jsonb)', 'id bigint, amount numeric DEFAULT NULL::numeric, reason text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text, context jsonb DEFAULT NULL::jsonb -> finance.transfer_result'),
	('finance.reverse_journal(bigint, text, text)', 'journal_id bigint, reason text DEFAULT NULL::text, idempotency_key text DEFAULT NULL::text -> SETOF finance.transfer_result'),
	('finance.reversals(bigint)', 'id bigint -> TABLE(reversal_id bigint, amount numeric, recorded_at timestamp with time zone)'),
	('finance.set_account_parent(text, text, text)', 'code text, parent text, reason text DEFAULT NULL::text -> bigint'),
	('finance.create_account_type(text, text, text)', 'type text, normal_side text, name text DEFAULT NULL::text -> void'),
	('finance.create_transfer_type(text, text[], text[], text)', 'type text, from_types text[] DEFAULT NULL::text[], to_types text[] DEFAULT NULL::text[], name text DEFAULT NULL::text -> void'),
	('finance.balance_at(text, timestamptz, text)', 'code text, at timestamp with time zone, by text DEFAULT ''recorded''::text -> numeric'),
	('finance.statement(text, timestamptz, timestamptz, bigint, integer)', 'code text, "from" timestamp with time zone DEFAULT NULL::timestamp with time zone, "to" timestamp with time zone DEFAULT NULL::timestamp with time zone, after bigint DEFAULT NULL::bigint, "limit" integer DEFAULT 100 -> TABLE(line text, transfer_id bigint, version bigint, recorded_at timestamp with time zone, effective_at timestamp with time zone, type text, status text, side text, amount numeric, change numeric, balance numeric, held numeric, counterparty text, reference text, metadata jsonb)'),
	('finance.rollup(text)', 'code text -> TABLE(currency text, accounts bigint, balance numeric, held numeric, available numeric)'),
	('finance.trial_balance(timestamptz)', 'at timestamp with time zone DEFAULT NULL::timestamp with time zone -> TABLE(currency text, type text, normal_side text, code text, debit numeric, credit numeric)'),
	('finance.balance_sheet(timestamptz)', 'at timestamp with time zone DEFAULT NULL::timestamp with time zone -> TABLE(currency text, type text, normal_side text, balance numeric)'),
	('finance.create_ruleset(text, integer, integer, integer, integer, integer, interval, text, interval)', 'name text, copy_of integer DEFAULT NULL::integer, score_report integer DEFAULT NULL::integer, score_challenge integer DEFAULT NULL::integer, score_review integer DEFAULT NULL::integer, score_reject integer DEFAULT NULL::integer, review_timeout interval DEFAULT NULL::interval, review_default text DEFAULT NULL::text, challenge_timeout interval DEFAULT NULL::interval -> integer'),
	('finance.publish_ruleset(integer, text)', 'version integer, mode text DEFAULT ''live''::text -> void'),
	('finance.retire_ruleset(integer)', 'version integer -> void'),
	('finance.drop_ruleset(integer)', 'version integer -> void'),
	('finance.add_rule(text, text, numeric, text, text, time, time, text, integer, numeric, text, text, interval, integer, text, integer[], text, text, text, text, text, text, text, text, text, integer)', 'name text, kind text, threshold numeric DEFAULT NULL::numeric, account text DEFAULT NULL::text, currency text DEFAULT NULL::text, window_start time without time zone DEFAULT NULL::time without time zone, window_end time without time zone DEFAULT NULL::time without time zone, outcome text DEFAULT NULL::text, score integer DEFAULT 0, minimum numeric DEFAULT NULL::numeric, per text DEFAULT NULL::text, period text DEFAULT NULL::text, span interval DEFAULT NULL::interval, times integer DEFAULT NULL::integer, time_zone text DEFAULT NULL::text, weekdays integer[] DEFAULT NULL::integer[], calendar text DEFAULT NULL::text, list text DEFAULT NULL::text, subject text DEFAULT NULL::text, expression text DEFAULT NULL::text, on_error text DEFAULT NULL::text, account_type text DEFAULT NULL::text, level text DEFAULT NULL::text, transfer_type text DEFAULT NULL::text, description text DEFAULT NULL::text, ruleset integer DEFAULT NULL::integer -> void'),
	('finance.remove_rule(text, integer)', 'name text, ruleset integer DEFAULT NULL::integer -> void'),
	('finance.enable_rule(text, boolean, integer)', 'name text, enabled boolean DEFAULT true, ruleset integer DEFAULT NULL::integer -> void'),
	('finance.rule_kinds()', ' -> TABLE(kind text, outcome text, needs text, takes text, hits text)'),
	('finance.add_holiday(date, text, text)', 'day date, name text DEFAULT NULL::text, calendar text DEFAULT ''default''::text -> boolean'),
	('finance.remove_holiday(date, text)', 'day date, calendar text DEFAULT ''default''::text -> boolean'),
	('finance.explain_risk(text, text, numeric, text, text, text, jsonb, boolean, integer)', 'from_account text, to_account text, amount numeric, currency text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, is_hold boolean DEFAULT false, ruleset integer DEFAULT NULL::integer -> SETOF finance.risk_answer'),
	('finance.evaluate_risk(text, text, numeric, text, text, text, jsonb, boolean)', 'from_account text, to_account text, amount numeric, currency text DEFAULT NULL::text, type text DEFAULT ''transfer''::text, reference text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, is_hold boolean DEFAULT false, OUT outcome text, OUT score integer, OUT rule text, OUT version integer -> record'),
	('finance.replay_decision(bigint, integer)', 'transfer_id bigint, version integer DEFAULT NULL::integer, OUT same boolean, OUT outcome text, OUT score integer, OUT hits jsonb, OUT recorded_outcome text, OUT recorded_hits jsonb -> record'),
	('finance.backtest_ruleset(integer, timestamptz, timestamptz)', 'version integer, "from" timestamp with time zone, "to" timestamp with time zone DEFAULT NULL::timestamp with time zone -> TABLE(rule text, kind text, currency text, transfers bigint, hits bigint, misses bigint, amount numeric, agree bigint, newly_stopped bigint, newly_passed bigint, report bigint, challenge bigint, review bigint, reject bigint)'),
	('finance.backtest_differences(integer, timestamptz, timestamptz, integer)', 'version integer, "from" timestamp with time zone, "to" timestamp with time zone DEFAULT NULL::timestamp with time zone, "limit" integer DEFAULT 1000 -> TABLE(transfer_id bigint, outcome_then text, outcome_now text, rule text)'),
	('finance.risk_facts()', 'OUT name text, OUT type text, OUT description text -> SETOF record'),
	('finance.check_expression(text, jsonb)', 'expression text, facts jsonb DEFAULT NULL::jsonb -> boolean'),
	('finance.block_account(text, text)', 'code text, reason text -> boolean'),
	('finance.unblock_account(text, text)', 'code text, reason text -> boolean'),
	('finance.add_to_list(text, text, text, text, timestamptz)', 'list text, subject text, value text, reason text, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone -> boolean'),
	('finance.load_list(text, text, text[], text, timestamptz)', 'list text, subject text, entries text[], reason text, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone -> bigint'),
	('finance.remove_from_list(text, text, text, text)', 'list text, subject text, value text, reason text -> boolean'),
	('finance.is_on_list(text, text, text)', 'list text, subject text, value text -> boolean'),
	('finance.remove_expired_entries(integer)', '"limit" integer DEFAULT 10000 -> bigint'),
	('finance.set_rule_limit(text, numeric, text, text, text, text, timestamptz)', 'rule text, threshold numeric, reason text, account text DEFAULT NULL::text, account_type text DEFAULT NULL::text, level text DEFAULT NULL::text, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone -> void'),
	('finance.clear_rule_limit(text, text, text, text, text, boolean)', 'rule text, reason text, account text DEFAULT NULL::text, account_type text DEFAULT NULL::text, level text DEFAULT NULL::text, temporary boolean DEFAULT NULL::boolean -> boolean'),
	('finance.rule_limit_of(text, text)', 'rule text, account text -> numeric'),
	('finance.set_account_level(text, text, text)', 'code text, level text, reason text DEFAULT NULL::text -> bigint'),
	('finance.pause_transfers(text, text)', 'scope text, reason text, OUT paused boolean, OUT running integer, OUT prepared integer -> record'),
	('finance.resume_transfers(text, text)', 'scope text, reason text -> boolean'),
	('finance.transfers_in_flight()', ' -> TABLE(state text, pid integer, gid text, transaction xid, since timestamp with time zone)'),
	('finance.set_rate_limit(text, numeric, integer)', 'scope text, rate numeric, burst integer -> void'),
	('finance.drop_rate_limit(text)', 'scope text -> boolean'),
	('finance.rate_limits(text)', 'account text DEFAULT NULL::text -> TABLE(scope text, rate numeric, burst integer, tokens numeric)'),
	('finance.check_integrity()', ' -> TABLE(invariant text, tenant_id integer, object text, expected text, found text)'),
	('finance.grant_access(regrole, text)', 'role regrole, level text -> void'),
	('finance.process_once(text, bigint)', 'consumer text, message_id bigint -> boolean'),
	('finance.process_once(text, text)', 'consumer text, message_id text -> boolean'),
	('finance.process_once_batch(text, bigint[])', 'consumer text, message_ids bigint[] -> SETOF bigint'),
	('finance.purge_archive(text)', 'queue_name text -> bigint'),
	('finance.id_time(bigint)', 'id bigint -> timestamp with time zone'),
	('finance.create_producer_group(text, text, interval, interval, interval, integer)', 'name text, check_topic text, check_after interval DEFAULT ''00:01:00''::interval, check_interval interval DEFAULT ''00:01:00''::interval, check_interval_max interval DEFAULT NULL::interval, max_checks integer DEFAULT 15 -> void'),
	('finance.prepare_message(text, text, jsonb, jsonb, integer, integer, integer, text, text, interval)', 'producer_group text, topic text, payload jsonb, headers jsonb DEFAULT NULL::jsonb, priority integer DEFAULT 0, delay integer DEFAULT 0, ttl integer DEFAULT NULL::integer, ordering_key text DEFAULT NULL::text, dedup_id text DEFAULT NULL::text, check_after interval DEFAULT NULL::interval -> bigint'),
	('finance.prepare_messages(text, text, jsonb[], jsonb[], integer, integer, integer, text[], text[], interval)', 'producer_group text, topic text, payloads jsonb[], headers jsonb[] DEFAULT NULL::jsonb[], priority integer DEFAULT 0, delay integer DEFAULT 0, ttl integer DEFAULT NULL::integer, ordering_keys text[] DEFAULT NULL::text[], dedup_ids text[] DEFAULT NULL::text[], check_after interval DEFAULT NULL::interval -> SETOF bigint'),
	('finance.commit_message(bigint)', 'half_id bigint -> bigint'),
	('finance.commit_message(bigint[])', 'half_ids bigint[] -> SETOF bigint'),
	('finance.rollback_message(bigint)', 'half_id bigint -> boolean'),
	('finance.rollback_message(bigint[])', 'half_ids bigint[] -> integer'),
	('finance.audit_digest(bigint)', 'at_size bigint DEFAULT NULL::bigint, OUT block bigint, OUT incarnation integer, OUT size bigint, OUT root bytea, OUT previous bytea, OUT digest bytea, OUT sealed_at timestamp with time zone, OUT lsn pg_lsn, OUT timeline integer, OUT system_identifier bigint -> record'),
	('finance.audit_proof(bigint, bigint)', 'record_id bigint, tree_size bigint DEFAULT NULL::bigint, OUT record_id bigint, OUT leaf_index bigint, OUT leaf_hash bytea, OUT tree_size bigint, OUT root bytea, OUT path bytea[] -> record'),
	('finance.audit_consistency(bigint, bigint)', 'old_size bigint, new_size bigint DEFAULT NULL::bigint, OUT old_size bigint, OUT old_root bytea, OUT new_size bigint, OUT new_root bytea, OUT proof bytea[] -> record'),
	('finance.verify_inclusion(bytea, bigint, bigint, bytea[], bytea)', 'leaf_hash bytea, leaf_index bigint, tree_size bigint, path bytea[], root bytea -> boolean'),
	('finance.verify_consistency(bigint, bytea, bigint, bytea, bytea[])', 'old_size bigint, old_root bytea, new_size bigint, new_root bytea, proof bytea[] -> boolean'),
	('finance.audit_export(bigint, bigint)', 'from_leaf bigint DEFAULT 0, to_leaf bigint DEFAULT NULL::bigint -> SETOF text'),
	('finance.audit_archive(date)', 'month date -> SETOF text'),
	('finance.drop_audit_month(date)', 'month date -> text'),
	('finance.audit_due()', ' -> TABLE(month date, partition text, due_at timestamp with time zone, bytes bigint)'),
	('finance.seal_audit()', ' -> bigint'),
	('finance.audit_lag()', 'OUT unsealed bigint, OUT oldest_at timestamp with time zone, OUT lag interval, OUT sealed_at timestamp with time zone, OUT horizon xid8, OUT holder_kind text, OUT holder_pid integer, OUT holder_gid text, OUT holder_since timestamp with time zone, OUT holder_database name, OUT holder_query text, OUT message text -> record'),
	('finance.id_floor(timestamptz)', '"when" timestamp with time zone -> bigint')
) AS v (name, expected) LEFT JOIN pg_proc p ON p.oid = to_regprocedure(v.name) ORDER BY v.name;

SELECT is_empty($$SELECT signature FROM function WHERE proname NOT LIKE '\_%' AND prorettype <> 'trigger'::regtype AND pronargs > 0
	AND (proargnames IS NULL OR '' = ANY (proargnames[1:pronargs]))$$, 'public functions can be called with named arguments');
SELECT is_empty($$SELECT a.signature, b.signature FROM function a JOIN function b USING (proname)
	WHERE a.oid < b.oid AND a.proname NOT IN ('transfer', 'delete', 'archive', 'nack', 'process_once', 'commit_message', 'rollback_message')$$, 'only these are overloaded');
SELECT is_empty($$SELECT signature FROM function WHERE proparallel = 's' AND provolatile <> 'i'$$,
	'parallel safe only where nothing is read');
SELECT is_empty($$SELECT signature FROM function WHERE provolatile <> 'v' AND proname NOT IN ('balance', 'check_integrity', 'id_time', 'id_floor',
	'list_queues', 'list_bindings', 'test_routing', 'default_queues', 'topic_matches', '_is_tenant_visible', '_may_see_tenant', '_are_totals_valid', '_merkle_leaf', '_merkle_root', '_merkle_inclusion', '_merkle_consistency', 'verify_inclusion', 'verify_consistency', 'audit_digest', 'audit_proof', 'audit_consistency', 'rollup', 'trial_balance', 'balance_sheet',
	'balance_at', 'statement', 'reversals', 'request', 'leg', 'split_amount', 'half_message_status', '_risk_totals', 'risk_facts', 'check_expression', 'export_aml', 'rule_kinds', 'rule_limit_of', 'is_on_list', '_message_ids', 'backtest_ruleset', 'backtest_differences', '_audit_find', '_audit_term', 'audit_trace', 'audit_log', 'audit_history', 'audit_row_history', 'audit_diff', 'audit_export', 'audit_archive')$$, 'what writes is volatile');

-- ids and their time
SELECT is(finance.id_floor(finance.id_time(finance.id_floor('2026-11-21 12:00:00.123+00'))), finance.id_floor('2026-11-21 12:00:00.123+00'), 'id_floor() and id_time() agree');
SELECT is(finance.id_time(finance.id_floor('2026-11-21 12:00:00.1239+00')), '2026-11-21 12:00:00.123+00'::timestamptz, 'to the millisecond');
SELECT is(finance.id_floor('1999-01-01+00'), 0::bigint, 'the lowest id is 0');
SELECT cmp_ok(finance.id_floor('infinity'), '>', finance.id_floor('2089-01-01+00'), 'and infinity is above all');
SELECT is(finance.id_floor('-infinity'), 0::bigint, 'before all time is 0');

-- ------------------------------------------------------------------------
-- types, tables and views
-- ------------------------------------------------------------------------

CREATE FUNCTION pg_temp.columns(relation regclass) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN '!' ELSE '' END, ', ' ORDER BY a.attnum)
	FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped $$;
SELECT is(pg_temp.columns('finance.transfer_result'), 'id bigint, status text, amount numeric, currency text, from_account text, from_version bigint, from_balance numeric, from_available numeric, to_account text, to_version bigint, to_balance numeric, to_available numeric, recorded_at timestamp with time zone, trace_id uuid, rule text, replayed boolean, hold_id bigint, hold_remaining numeric, journal_id bigint, token text', 'transfer_result');
SELECT is(pg_temp.columns('finance.transfer_request'), 'from_account text, to_account text, amount numeric, currency text, idempotency_key text, type text, expected_from_version bigint, expected_to_version bigint, amount_mode text, effective_at timestamp with time zone, reference text, metadata jsonb, linked boolean, action text, hold_id bigint, final boolean, expires_in interval, hold_group text, recorded_at timestamp with time zone', 'transfer_request');
SELECT is(pg_temp.columns('finance.batch_result'), 'position integer, error text, message text, detail text, id bigint, status text, amount numeric, currency text, from_account text, from_version bigint, from_balance numeric, from_available numeric, to_account text, to_version bigint, to_balance numeric, to_available numeric, recorded_at timestamp with time zone, trace_id uuid, rule text, replayed boolean, hold_id bigint, hold_remaining numeric, journal_id bigint, token text', 'batch_result');
SELECT is(pg_temp.columns('finance.challenge_result'), 'confirmed boolean, attempts_left integer, ' || pg_temp.columns('finance.transfer_result'), 'challenge_result');
SELECT is(pg_temp.columns('finance.review'), 'tenant_id integer, transfer_id bigint, kind text, from_account text, to_account text, amount numeric, currency text, type text, rules text[], version integer, requested_by text, requested_at timestamp with time zone, age interval, expires_at timestamp with time zone, default_outcome text, was_hold boolean, attempts_left integer, reference text, metadata jsonb', 'review');
SELECT is(pg_temp.columns('finance.alert'), 'tenant_id integer, alert_id bigint, level text, status text, account text, rule text, day date, transfers bigint, first_transfer_id bigint, last_transfer_id bigint, last_at timestamp with time zone, assignee text, raised_at timestamp with time zone, closed_by text, closed_at timestamp with time zone, account_id bigint', 'alert');
SELECT is(pg_temp.columns('finance.aml_report'), 'tenant_id integer, transfer_id bigint, recorded_at timestamp with time zone, status text, from_account text, to_account text, amount numeric, currency text, type text, reference text, metadata jsonb, outcome text, rules text[], version integer, review_status text, alert_id bigint, level text, alert_status text, assignee text, closed_by text, closed_at timestamp with time zone, comment text', 'aml_report');
SELECT is(pg_temp.columns('finance.journal_leg'), 'account text, side text, amount numeric, expected_version bigint', 'journal_leg');
SELECT is(pg_temp.columns('finance.account'), 'tenant_id integer, account_id bigint, code text, currency text, type text, status text, balance numeric, held numeric, available numeric, min_available numeric, max_balance numeric, debits_posted numeric, credits_posted numeric, debits_pending numeric, credits_pending numeric, version bigint, created_at timestamp with time zone, parent_id bigint, level text, metadata jsonb', 'account');
SELECT is(pg_temp.columns('finance.risk_list'), 'tenant_id integer!, list text!, subject text!, value text!, expires_at timestamp with time zone, reason text!, added_by text!, added_at timestamp with time zone!', 'risk_list');
SELECT is(pg_temp.columns('finance.rule_limit'), 'tenant_id integer!, rule text!, subject text!, temporary boolean!, value text!, threshold numeric!, expires_at timestamp with time zone, reason text!, set_by text!, set_at timestamp with time zone!', 'rule_limit');
SELECT is(pg_temp.columns('finance.entry'), 'tenant_id integer, account_id bigint, transfer_id bigint, side text, version bigint, amount numeric, change numeric, balance numeric, held numeric, currency text, counterparty_id bigint, type text, recorded_at timestamp with time zone, effective_at timestamp with time zone, reference text, metadata jsonb', 'entry');
SELECT is(pg_temp.columns('finance.transfer'), 'id bigint!, from_account_id bigint!, to_account_id bigint!, from_version bigint, to_version bigint, recorded_at timestamp with time zone!, effective_at timestamp with time zone, hold_id bigint, journal_id bigint, reverses_id bigint, tenant_id integer!, trace_id uuid!, amount finance.amount!, from_balance numeric!, to_balance numeric!, from_held numeric, to_held numeric, released numeric, status text!, type text!, currency text!, reference text, metadata jsonb', 'transfer');
SELECT is(pg_temp.columns('finance.risk_decision'), 'tenant_id integer!, transfer_id bigint!, version integer!, mode text!, outcome text!, score integer!, rule text, latency_us numeric!, hits jsonb!, inputs jsonb!, decided_at timestamp with time zone!', 'risk_decision');
SELECT is(pg_temp.columns('finance.risk_hit'), 'tenant_id integer, transfer_id bigint, version integer, mode text, ordinal integer, rule text, kind text, outcome text, score integer, observed text, threshold text, window text, decided_at timestamp with time zone', 'risk_hit');
SELECT is(pg_temp.columns('finance.ruleset'), 'tenant_id integer!, version integer!, name text!, mode text!, score_report integer, score_challenge integer, score_review integer, score_reject integer, review_timeout interval!, review_default text!, challenge_timeout interval!, copy_of integer, created_by text!, created_at timestamp with time zone!, published_by text, published_at timestamp with time zone, rules integer', 'ruleset');
SELECT is(pg_temp.columns('finance.risk_rule'), 'tenant_id integer!, version integer!, name text!, kind text!, outcome text!, score integer!, threshold numeric, minimum numeric, per text, period text, span interval, times integer, window_start time without time zone, window_end time without time zone, time_zone text, weekdays integer[], calendar text, list text, subject text, expression text, on_error text, account_id bigint, account_type text, level text, currency text, transfer_type text, enabled boolean!, description text, created_at timestamp with time zone!', 'risk_rule');
SELECT is(pg_temp.columns('finance.live_rule'), 'tenant_id integer, mode text, version integer, name text, kind text, outcome text, score integer, threshold numeric, minimum numeric, per text, period text, span interval, times integer, window_start time without time zone, window_end time without time zone, time_zone text, weekdays integer[], calendar text, list text, subject text, expression text, on_error text, account text, account_type text, level text, currency text, transfer_type text, enabled boolean, description text', 'live_rule');
SELECT is(pg_temp.columns('finance.holiday'), 'tenant_id integer!, calendar text!, day date!, name text', 'holiday');
SELECT is(pg_temp.columns('finance.risk_answer'), 'version integer, mode text, rule text, kind text, hit boolean, outcome text, score integer, observed text, threshold text, window text', 'risk_answer');
SELECT is(pg_temp.columns('finance.risk_measure'), 'tenant_id integer!, measure_id integer!, scope text!, period text!, span interval, band_min numeric, band_max numeric', 'risk_measure');
SELECT is(pg_temp.columns('finance.risk_total'), 'account_id bigint!, other_id bigint!, tenant_id integer!, class text!, state bytea!', 'risk_total');
SELECT is(pg_temp.columns('finance.account_change'), 'tenant_id integer!, account_id bigint!, version bigint!, change text!, old_value jsonb, new_value jsonb, reason text, actor text!, changed_at timestamp with time zone!', 'account_change');
SELECT is(pg_temp.columns('finance.currency'), 'code text!, minor_units smallint!, name text!, iso boolean!', 'currency');
SELECT is(pg_temp.columns('finance.hold'), 'tenant_id integer, hold_id bigint, from_account_id bigint, to_account_id bigint, status text, amount numeric, captured numeric, released numeric, remaining numeric, expires_at timestamp with time zone, type text, hold_group text, held_at timestamp with time zone', 'hold');
SELECT is(pg_temp.columns('finance.journal'), 'tenant_id integer!, journal_id bigint!, type text!, transfer_ids bigint[]!, request jsonb', 'journal');
SELECT is(pg_temp.columns('finance.reversal'), 'tenant_id integer!, transfer_id bigint!, reversal_id bigint!, amount finance.amount!', 'reversal');
SELECT is(pg_temp.columns('finance.exchange'), 'tenant_id integer!, journal_id bigint!, from_account_id bigint!, to_account_id bigint!, liquidity_from_id bigint!, liquidity_to_id bigint!, rounding_account_id bigint, amount finance.amount!, rate numeric!, exact numeric!, bought finance.amount!, difference numeric!, carried numeric, rounding text!', 'exchange');
SELECT is(pg_temp.columns('finance.exchange_residue'), 'tenant_id integer!, account_id bigint!, residue numeric!', 'exchange_residue');
SELECT is(pg_temp.columns('finance.account_type'), 'tenant_id integer!, type text!, normal_side text!, name text!, builtin boolean!', 'account_type');
SELECT is(pg_temp.columns('finance.transfer_type'), 'tenant_id integer!, type text!, from_types text[], to_types text[], name text!, builtin boolean!', 'transfer_type');
SELECT is(pg_temp.columns('finance.value_transfer'), 'account_id bigint!, transfer_id bigint!, effective_at timestamp with time zone!, tenant_id integer!, change numeric!, total numeric!', 'value_transfer');
SELECT is(pg_temp.columns('finance.value_day'), 'account_id bigint!, tenant_id integer!, day date!, change numeric!', 'value_day');
SELECT is(pg_temp.columns('finance.message_archive'), 'archive_id bigint!, msg_id bigint!, message_id bigint!, queue_id bigint!, enqueued_at timestamp with time zone!, archived_at timestamp with time zone!, expires_at timestamp with time zone, tenant_id integer!, read_ct integer!, priority smallint!, topic text, ordering_key text, headers jsonb, payload jsonb!', 'message_archive');
SELECT is(pg_temp.columns('finance.inbox'), 'seen_at timestamp with time zone!, tenant_id integer!, slot smallint!, consumer text!, message_id text!', 'inbox');
SELECT is(pg_temp.columns('finance.idempotency_key'), 'tenant_id integer!, key text!, transfer_id bigint!, expected_from_version bigint, expected_to_version bigint, request jsonb', 'idempotency_key');

-- what is of a tenant has it first in its key
SELECT is_empty($$SELECT c.conrelid::regclass FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
	WHERE c.contype = 'p' AND c.connamespace = 'finance'::regnamespace AND NOT r.relispartition
		AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attname = 'tenant_id')
		AND (SELECT attname FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum = c.conkey[1]) <> 'tenant_id'
		AND r.relname <> 'subscription'$$, 'tenant_id is first in every key');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind = 'r'
	AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = 'finance.audit_record'::regclass)$$,
	'every table with rows has a primary key, but for the log''s, whose one index its writers pay for');
-- no account is indexed by what a transfer changes, or updates would not be HOT
SELECT is_empty($$SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
	WHERE i.indrelid = 'finance._account'::regclass AND a.attname NOT IN ('tenant_id', 'account_id', 'code', 'parent_id')$$, 'accounts are indexed by what no transfer changes');

-- a join with the view of holds goes through the table's key
SELECT count(*) FROM finance.transfer_batch((SELECT array_agg(finance.request('a', 'b', 1, action => 'hold')) FROM generate_series(1, 1000))) \g /dev/null
CREATE TEMP TABLE one AS SELECT 1::bigint AS hold_id;
ANALYZE one, finance._hold;
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL enable_seqscan = off;
	SET LOCAL enable_bitmapscan = off;
	RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query;
	RESET enable_seqscan;
	RESET enable_bitmapscan;
END $$;
SELECT isnt_empty($$SELECT line FROM pg_temp.plan('SELECT h.* FROM one JOIN finance.hold h USING (hold_id) WHERE h.tenant_id = 0') AS line
	WHERE line ~ 'Index Cond: \(\(tenant_id = 0\) AND \(hold_id = one.hold_id\)\)'$$, 'finance.hold is joined by its key');

-- the domain of amounts
SELECT throws_ok(format('SELECT %L::finance.amount', value), '23514', NULL, 'no amount: ' || value)
	FROM unnest('{0, -1, NaN, Infinity, -Infinity}'::text[]) AS value;
SELECT lives_ok('SELECT 0.000000000000000001::finance.amount, 99999999999999999999999999999999999999::finance.amount', 'amounts');

-- ------------------------------------------------------------------------
-- comments and names
-- ------------------------------------------------------------------------

SELECT is_empty($$SELECT signature FROM function WHERE obj_description(oid, 'pg_proc') IS NULL$$, 'every function has a comment');
SELECT is_empty($$SELECT relname FROM pg_class c WHERE relnamespace = 'finance'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND NOT relispartition
	AND obj_description(oid, 'pg_class') IS NULL$$, 'every table, view and sequence');
SELECT is_empty($$SELECT typname FROM pg_type t WHERE typnamespace = 'finance'::regnamespace AND (typtype = 'd' OR typtype = 'c' AND
	(SELECT relkind = 'c' FROM pg_class WHERE oid = typrelid)) AND obj_description(oid, 'pg_type') IS NULL AND obj_description(typrelid, 'pg_class') IS NULL$$, 'every type and domain');
SELECT isnt_empty($$SELECT FROM pg_namespace WHERE nspname = 'finance' AND obj_description(oid, 'pg_namespace') IS NOT NULL$$, 'the schema');
SELECT is_empty($$SELECT name FROM pg_settings WHERE name LIKE 'finance.%' AND coalesce(short_desc, '') = ''$$, 'every setting');
SELECT is_empty($$SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'finance'::regnamespace AND length(obj_description(oid, 'pg_proc')) < 10$$, 'that says something');
SELECT is_empty($$SELECT conrelid::regclass, conname FROM pg_constraint WHERE connamespace = 'finance'::regnamespace AND conname ~ '(_check[0-9]*|_excl[0-9]*)$'$$,
	'constraints have names of their own');
SELECT is_empty($$SELECT tgrelid::regclass, tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.relnamespace = 'finance'::regnamespace AND NOT tgisinternal AND tgenabled <> 'A' AND tgname <> 'restored'$$,
	'triggers fire whatever session_replication_role is');
SELECT set_eq($$SELECT c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'finance'::regnamespace
	AND t.tgname = 'guard' AND NOT c.relispartition$$,
	ARRAY['tenant', 'currency', '_account', 'account_change', 'transfer', 'risk_decision', 'audit_record', 'account_type', 'transfer_type', '_hold', 'journal',
		'reversal', 'exchange', 'exchange_residue', 'value_transfer', 'value_day', 'risk_review', '_alert', 'alert_transfer', 'alert_comment', 'ruleset', 'risk_rule',
		'audit_incarnation', 'audit_block', 'audit_leaves', 'audit_node', 'audit_tree', 'audit_term', 'audit_month'], 'tables whose rows stay are guarded');
-- row, statement, before or after: 8 DELETE, 16 UPDATE, 32 TRUNCATE
SELECT set_eq($$SELECT c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'finance'::regnamespace
	AND t.tgname = 'guard' AND NOT c.relispartition AND t.tgtype & 56 = 40$$,
	ARRAY['tenant', '_account', '_hold', 'exchange_residue', 'value_day', 'risk_review', '_alert'], 'of these change, but do not go');
SELECT is_empty($$SELECT t.tgrelid::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'finance'::regnamespace
	AND t.tgname = 'guard' AND (t.tgtype & 40 <> 40 OR t.tgtype & 3 <> 2) AND c.relname NOT IN ('ruleset', 'risk_rule')$$, 'the others not even that');
-- those of rulesets are looked at one by one: a draft may be changed
SELECT set_eq($$SELECT c.relname || ' ' || t.tgname || ' ' || (t.tgtype & 63) || ' ' || t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
	WHERE c.oid IN ('finance.ruleset'::regclass, 'finance.risk_rule'::regclass) AND t.tgname LIKE 'guard%'$$,
	ARRAY['ruleset guard 27 A', 'ruleset guard_truncate 34 A', 'risk_rule guard 31 A', 'risk_rule guard_truncate 34 A'], 'but for a draft, of which rows are guarded');
SELECT is_empty($$SELECT p.oid::regclass FROM pg_class p JOIN pg_inherits i ON i.inhrelid = p.oid WHERE i.inhparent IN ('finance.transfer'::regclass, 'finance.audit_record'::regclass)
	AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = p.oid AND t.tgname = 'guard' AND t.tgenabled = 'A')$$, 'and so are their partitions');

-- SQLSTATEs of ours stay in class LG
SELECT throws_ok('SELECT finance.balance(''nobody'')', 'LG002', 'account "nobody" does not exist', 'an unknown account');

SELECT * FROM finish();
ROLLBACK;
