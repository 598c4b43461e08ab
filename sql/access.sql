-- Who may do what: nobody anything, until grant_access(); what each level may;
-- and that names put before ours in the search path change nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
DROP SCHEMA IF EXISTS regress_fin_evil CASCADE;
DROP ROLE IF EXISTS regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_witness, regress_fin_nobody, "regress_fin Odd""name";
RESET client_min_messages;
SELECT finance.create_tenant('access test') AS tenant \gset
SET finance.tenant = :tenant;

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'allowed';
EXCEPTION WHEN OTHERS THEN
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM);
END $$;

CREATE ROLE regress_fin_nobody;
CREATE ROLE regress_fin_app;
CREATE ROLE regress_fin_operator;
CREATE ROLE regress_fin_auditor;
CREATE ROLE regress_fin_witness;
SELECT finance.grant_access('regress_fin_app', 'app');
SELECT finance.grant_access(level => 'operator', role => 'regress_fin_operator');
SELECT finance.grant_access('regress_fin_auditor', 'auditor');
SELECT finance.grant_access('regress_fin_witness', 'witness');
-- twice is no error, nor is a name that needs quotes
SELECT finance.grant_access('regress_fin_app', 'app');
CREATE ROLE "regress_fin Odd""name";
SELECT finance.grant_access('"regress_fin Odd""name"', 'app');
SELECT has_function_privilege('regress_fin Odd"name', 'finance.balance(text)', 'EXECUTE');
SELECT request FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'grant_access' ORDER BY id;
SELECT pg_temp.attempt('SELECT finance.grant_access(' || arguments || ')')
FROM (VALUES (1, '''regress_fin_app'', ''owner'''), (2, '''regress_fin_app'', ''App'''), (3, '''regress_fin_app'', NULL'), (4, 'NULL, ''app'''),
	(5, '''regress_fin_app'', '''''), (6, '''regress_fin_unknown'', ''app'''), (7, '0::oid::regrole, ''app'''), (8, '999999999::oid::regrole, ''app''')
) AS t (n, arguments) ORDER BY n;

SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('a'), ('b')) AS v (code);
SELECT finance.create_queue('q');

-- ------------------------------------------------------------------------
-- who may what; 42501 is refused, all else is allowed
-- ------------------------------------------------------------------------

CREATE TABLE regress_fin_calls (n serial, statement text);
GRANT SELECT ON regress_fin_calls TO PUBLIC;
INSERT INTO regress_fin_calls (statement) VALUES
	('SELECT finance.transfer(''a'', ''b'', 1)'),
	('SELECT finance.balance(''a'')'),
	('SELECT finance.create_account(''c'', ''EUR'')'),
	('SELECT finance.transfer_batch(ARRAY[finance.request(''a'', ''b'', 1)])'),
	('SELECT finance.hold(''a'', ''b'', 1)'),
	('SELECT finance.capture(1)'),
	('SELECT finance.release(1)'),
	('SELECT finance.capture_group(''g'')'),
	('SELECT finance.release_group(''g'')'),
	('SELECT finance.expire_holds()'),
	('SELECT finance.journal(ARRAY[finance.leg(''a'', ''debit'', 1), finance.leg(''b'', ''credit'', 1)])'),
	('SELECT finance.exchange(''a'', ''b'', 1, 1, ''a'', ''b'')'),
	('SELECT finance.distribute(''a'', ''{b}'', ''{1}'', 1)'),
	('SELECT finance.reverse_transfer(1)'),
	('SELECT finance.reverse_journal(1)'),
	('SELECT finance.lock_accounts(''{a, b}'')'),
	('SELECT finance.reversals(1)'),
	('SELECT finance.balance_at(''a'', now())'),
	('SELECT finance.statement(''a'')'),
	('SELECT finance.rollup(''a'')'),
	('SELECT finance.trial_balance()'),
	('SELECT finance.balance_sheet()'),
	('SELECT finance.split_amount(1, ''{1}'', 2)'),
	('SELECT finance.import_transfers(ARRAY[finance.request(''a'', ''b'', 1, recorded_at => ''2020-01-01'')])'),
	('SELECT finance.close_account(''a'')'),
	('SELECT finance.set_min_available(''a'', NULL)'),
	('SELECT finance.set_max_balance(''a'', NULL)'),
	('SELECT finance.set_account_parent(''a'', ''b'')'),
	('SELECT finance.create_account_type(''t'', ''debit'')'),
	('SELECT finance.create_transfer_type(''t'')'),
	('SELECT finance.send(''q'', ''1'')'),
	('SELECT finance.pop(''q'')'),
	('SELECT finance.publish(''a.b'', ''1'')'),
	('SELECT finance.set_context(actor => ''me'')'),
	('SELECT finance.set_account_status(''a'', ''frozen'')'),
	('SELECT finance.set_account_limits(''a'', NULL, NULL)'),
	('SELECT finance.add_rule(''r'', ''blocklist'')'),
	('SELECT finance.create_ruleset(''r'')'),
	('SELECT finance.publish_ruleset(1)'),
	('SELECT finance.add_holiday(''2026-12-25'')'),
	('SELECT finance.explain_risk(''a'', ''b'', 1)'),
	('SELECT finance.evaluate_risk(''a'', ''b'', 1)'),
	('SELECT finance.replay_decision(1)'),
	('SELECT finance.block_account(''a'', ''x'')'),
	('SELECT finance.add_to_list(''l'', ''device'', ''x'', ''x'')'),
	('SELECT finance.is_on_list(''l'', ''device'', ''x'')'),
	('SELECT finance.set_rule_limit(''r'', 1, ''x'', account => ''a'')'),
	('SELECT finance.rule_limit_of(''r'', ''a'')'),
	('SELECT finance.set_account_level(''a'', ''gold'')'),
	('SELECT finance.create_queue(''q2'')'),
	('SELECT finance.drop_queue(''q'')'),
	('SELECT finance.subscribe(''c'', ''#'', ''q'')'),
	('SELECT finance.check_integrity()'),
	('SELECT finance.audit_trace(''00000000-0000-0000-0000-000000000000'')'),
	('SELECT finance.audit_export(-1)'),
	('SELECT finance.audit_archive(NULL)'),
	('SELECT finance.drop_audit_month(NULL)'),
	('SELECT count(*) < 0 FROM finance.audit_due()'),
	('SELECT finance.audit_digest(-1)'),
	('SELECT finance.audit_consistency(-1, -1)'),
	('SELECT finance.audit_proof(1)'),
	('SELECT finance.verify_inclusion(sha256(''''), 0, 1, ''{}'', sha256(''''))'),
	('SELECT finance.verify_consistency(1, sha256(''''), 1, sha256(''''), ''{}'')'),
	('SELECT finance.create_tenant(''x'')'),
	('SELECT finance.set_tenant_time_zone(0, ''UTC'')'),
	('SELECT finance.create_currency(''XYZ'', 2)'),
	('SELECT finance.audit_table(''pg_class'')'),
	('SELECT finance.grant_access(current_user::regrole, ''operator'')'),
	('SELECT finance._ring(1, 1, 1)'),
	('SELECT finance._may_see_tenant(0)'),
	('SELECT * FROM finance.account'),
	('SELECT * FROM finance.entry'),
	('SELECT * FROM finance.transfer'),
	('SELECT * FROM finance.hold'),
	('SELECT * FROM finance._hold'),
	('SELECT * FROM finance.journal'),
	('SELECT * FROM finance.reversal'),
	('SELECT * FROM finance.exchange'),
	('SELECT * FROM finance.exchange_residue'),
	('SELECT * FROM finance.account_type'),
	('SELECT * FROM finance.transfer_type'),
	('SELECT * FROM finance.value_transfer'),
	('SELECT * FROM finance.value_day'),
	('SELECT * FROM finance.currency'),
	('SELECT * FROM finance.risk_decision'),
	('SELECT * FROM finance.risk_rule'),
	('SELECT * FROM finance.risk_hit'),
	('SELECT * FROM finance.ruleset'),
	('SELECT * FROM finance.live_rule'),
	('SELECT * FROM finance.holiday'),
	('SELECT * FROM finance.risk_measure'),
	('SELECT * FROM finance.risk_total'),
	('UPDATE finance.ruleset SET mode = ''live'''),
	('SELECT * FROM finance.risk_list'),
	('SELECT * FROM finance.rule_limit'),
	('SELECT * FROM finance.account_change'),
	('SELECT * FROM finance.idempotency_key'),
	('SELECT * FROM finance.audit_record'),
	('SELECT * FROM finance.message'),
	('SELECT * FROM finance.tenant'),
	('INSERT INTO finance.currency VALUES (''XYZ'', 2, ''x'')'),
	('INSERT INTO finance.risk_rule (tenant_id, version, name, kind, outcome) VALUES (0, 1, ''x'', ''blocklist'', ''reject'')'),
	('UPDATE finance._account SET debits_posted = 0'),
	('UPDATE finance.account SET code = ''x'''),
	('UPDATE finance.transfer SET amount = 1'),
	('UPDATE finance._hold SET status = ''open'''),
	('UPDATE finance.exchange_residue SET residue = 0'),
	('UPDATE finance.value_day SET change = 0'),
	('DELETE FROM finance._hold'),
	('DELETE FROM finance.journal'),
	('DELETE FROM finance.reversal'),
	('INSERT INTO finance.account_type VALUES (0, ''x'', ''debit'', ''x'')'),
	('INSERT INTO finance.transfer_type VALUES (0, ''x'', NULL, NULL, ''x'')'),
	('DELETE FROM finance.transfer'),
	('TRUNCATE finance.transfer'),
	('DELETE FROM finance.idempotency_key'),
	('DELETE FROM finance.message'),
	('DELETE FROM finance.audit_record'),
	('INSERT INTO finance.tenant VALUES (99, ''x'')'),
	('UPDATE finance.tenant SET member_role = NULL'),
	('LOCK TABLE finance._account IN SHARE MODE'),
	('ALTER TABLE finance._account DISABLE TRIGGER ALL'),
	('CREATE TRIGGER t BEFORE UPDATE ON finance._account EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	('DROP TABLE finance.transfer'),
	('CREATE TABLE finance.mine ()'),
	('CREATE FUNCTION finance.mine() RETURNS integer LANGUAGE sql AS ''SELECT 1'''),
	('SELECT nextval(''finance._tenant_id_seq'')'),
	('SELECT setval(''finance._id_seq'', 1)'),
	('DROP EXTENSION finance');

-- each rolls back what it did
CREATE FUNCTION pg_temp.may(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
		RAISE EXCEPTION SQLSTATE 'XX997';
	EXCEPTION
		WHEN SQLSTATE 'XX997' THEN RETURN 'yes';
		WHEN insufficient_privilege THEN RETURN '.';
		WHEN OTHERS THEN RETURN 'yes ' || SQLSTATE;
	END;
END $$;
CREATE TABLE regress_fin_may (role text, n integer, may text);
GRANT INSERT ON regress_fin_may TO PUBLIC;
SET client_min_messages = error;
SET ROLE regress_fin_nobody;
INSERT INTO regress_fin_may SELECT 'nobody', n, pg_temp.may(statement) FROM regress_fin_calls;
SET ROLE regress_fin_app;
INSERT INTO regress_fin_may SELECT 'app', n, pg_temp.may(statement) FROM regress_fin_calls;
SET ROLE regress_fin_operator;
INSERT INTO regress_fin_may SELECT 'operator', n, pg_temp.may(statement) FROM regress_fin_calls;
SET ROLE regress_fin_auditor;
INSERT INTO regress_fin_may SELECT 'auditor', n, pg_temp.may(statement) FROM regress_fin_calls;
SET ROLE regress_fin_witness;
INSERT INTO regress_fin_may SELECT 'witness', n, pg_temp.may(statement) FROM regress_fin_calls;
RESET ROLE;
RESET client_min_messages;
SELECT c.statement, max(may) FILTER (WHERE role = 'nobody') AS nobody, max(may) FILTER (WHERE role = 'app') AS app,
	max(may) FILTER (WHERE role = 'operator') AS operator, max(may) FILTER (WHERE role = 'auditor') AS auditor
FROM regress_fin_calls c JOIN regress_fin_may m USING (n) GROUP BY n, c.statement ORDER BY n;
-- a witness
SELECT c.statement, m.may FROM regress_fin_calls c JOIN regress_fin_may m USING (n) WHERE m.role = 'witness' AND m.may <> '.' ORDER BY n;
DROP TABLE regress_fin_calls, regress_fin_may;

-- an app's own definer function acts as its owner, who must be allowed to
CREATE FUNCTION pg_temp.pay() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT status FROM finance.transfer('a', 'b', 1)$$;
GRANT EXECUTE ON FUNCTION pg_temp.pay() TO regress_fin_nobody;
SET ROLE regress_fin_nobody;
SELECT pg_temp.attempt('SELECT finance.transfer(''a'', ''b'', 1)');
SELECT pg_temp.pay();
RESET ROLE;
-- and the audit log tells who asked
SELECT actor, status FROM finance.audit_record WHERE tenant_id = :tenant AND operation = 'transfer' ORDER BY id DESC LIMIT 1;

DROP OWNED BY regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_witness, regress_fin_nobody, "regress_fin Odd""name";
DROP ROLE regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_witness, regress_fin_nobody, "regress_fin Odd""name";

-- ------------------------------------------------------------------------
-- a hostile search path, from the first call of a session on a fresh install
-- ------------------------------------------------------------------------

CREATE SCHEMA regress_fin_evil;
-- operators of ours: the same types, found first
DO $$
DECLARE
	type text;
	operator text;
BEGIN
	FOREACH type IN ARRAY '{smallint, integer, bigint, numeric, text, name, boolean, date, time, timestamptz, timestamp, interval, uuid, jsonb, oid, bytea, xid8, "char", "text[]", "bigint[]"}'::text[]
	LOOP
		EXECUTE format('CREATE FUNCTION regress_fin_evil.hijacked(a %1$s, b %1$s) RETURNS boolean LANGUAGE plpgsql'
			' AS $f$BEGIN RAISE EXCEPTION ''hijacked: operator of %1$s''; END$f$', type);
		FOREACH operator IN ARRAY '{=, <>, <, >, <=, >=, +, -, *, ||, ~, ~~}'::text[]
		LOOP
			EXECUTE format('CREATE OPERATOR regress_fin_evil.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = regress_fin_evil.hijacked)', operator, type);
		END LOOP;
	END LOOP;
END $$;
-- functions and types
DO $$
DECLARE
	signature text;
BEGIN
	FOREACH signature IN ARRAY '{"now()", "clock_timestamp()", "length(text)", "octet_length(text)", "nextval(regclass)", "current_setting(text)",
		"set_config(text, text, boolean)", "int8(numeric)", "numeric(bigint)", "text(integer)", "lower(text)", "to_jsonb(anyelement)", "jsonb_build_object()",
		"has_function_privilege(text, text)", "transfer(text, text, numeric)", "balance(text)", "_is_tenant_visible(integer)", "_are_totals_valid(numeric, numeric, numeric, numeric, numeric, numeric, numeric)",
		"id_time(bigint)", "round(numeric, integer)", "array_to_string(anyarray, text)", "array_agg(bigint)", "timezone(text, timestamptz)", "abs(numeric)", "sign(numeric)", "trunc(numeric, integer)",
		"request(text, text, numeric)", "leg(text, text, numeric)", "_now()", "split_amount(numeric, numeric[], integer)",
		"unnest(anyarray)", "generate_series(bigint, bigint)", "least(bigint, bigint)", "sha256(bytea)"}'::text[]
	LOOP
		EXECUTE format('CREATE FUNCTION regress_fin_evil.%s RETURNS integer LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION ''hijacked: function''; END$f$',
			replace(replace(signature, 'least', '"least"'), 'current_setting', '"current_setting"'));
	END LOOP;
END $$;
CREATE FUNCTION regress_fin_evil.hijacked(numeric) RETURNS numeric LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hijacked: aggregate'; END$$;
CREATE AGGREGATE regress_fin_evil.sum(numeric) (SFUNC = numeric_add, STYPE = numeric, INITCOND = '42');
CREATE AGGREGATE regress_fin_evil.count(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '42');
CREATE TYPE regress_fin_evil.amount AS (x integer);
CREATE TABLE regress_fin_evil._account (code text);
CREATE TABLE regress_fin_evil.transfer (id text);
CREATE TABLE regress_fin_evil._hold (hold_id text);
CREATE TABLE regress_fin_evil.journal (journal_id text);
CREATE TABLE regress_fin_evil.reversal (transfer_id text);
CREATE TABLE regress_fin_evil.account_type (type text);
CREATE TABLE regress_fin_evil.transfer_type (type text);
CREATE TABLE regress_fin_evil.value_day (day text);
CREATE TYPE regress_fin_evil.transfer_request AS (x integer);
CREATE TYPE regress_fin_evil.journal_leg AS (x integer);
CREATE TABLE regress_fin_evil.pg_class (oid text);
CREATE DOMAIN regress_fin_evil.uuid AS integer;
CREATE DOMAIN regress_fin_evil.regrole AS integer;
CREATE DOMAIN regress_fin_evil.regclass AS integer;
CREATE DOMAIN regress_fin_evil.jsonb AS integer;
CREATE DOMAIN regress_fin_evil.numeric AS integer;
CREATE DOMAIN regress_fin_evil.text AS integer;

CREATE ROLE regress_fin_app;
\c -
SET search_path = regress_fin_evil, pg_catalog;
SET client_min_messages = error;	-- subscribe() warns when not preloaded
CREATE TEMP TABLE _account (code pg_catalog.text);
CREATE TEMP TABLE idempotency_key (key pg_catalog.text);
\set SHOW_CONTEXT never
-- it would work
SELECT 1 = 1;
SELECT now();
BEGIN;
DROP EXTENSION finance;
CREATE EXTENSION finance;
SELECT finance.create_currency('EVIL', 3);
SELECT finance.create_account('a', 'EVIL', min_available => NULL) IS NOT NULL AS made, finance.create_account('b', 'EVIL', max_balance => 100) IS NOT NULL AS made;
SELECT finance.create_queue('q'), finance.bind_topic('#', 'q'), finance.subscribe('evil', 'risk.*', 'alerts');
SELECT status, from_version, to_balance, replayed FROM finance.transfer('a', 'b', 12.345, idempotency_key => 'k', metadata => '{"a": 1}');
SELECT status, from_version, to_balance, replayed FROM finance.transfer('a', 'b', 12.345, idempotency_key => 'k', metadata => '{"a": 1}');
SAVEPOINT s;
SELECT status FROM finance.transfer('a', 'b', 87.656);
ROLLBACK TO s;
SELECT status FROM finance.transfer('a', 'b', 1, expected_from_version => 7);
ROLLBACK TO s;
SELECT finance.add_rule('limit', 'transfer_limit', 10, account => 'a', currency => 'EVIL'), finance.add_rule('night', 'night_window', window_start => '00:00', window_end => '24:00'),
	finance.add_rule('day', 'daily_limit', 20), finance.add_rule('blocked', 'blocklist'), finance.block_account('b', 'test');
SELECT finance.load_list('blocklist', 'account', '{b,a}', 'x'), finance.add_to_list('blocklist', 'account', 'a', 'x', '2090-01-01'), finance.remove_from_list('blocklist', 'account', 'a', 'x'),
	finance.is_on_list('blocklist', 'account', 'a'), finance.is_on_list('blocklist', 'account', 'b'), finance.remove_expired_entries();
SELECT finance.set_rule_limit('day', 21, 'x', account => 'a'), finance.rule_limit_of('day', 'a'), finance.clear_rule_limit('day', 'x', account => 'a');
SELECT status, rule FROM finance.transfer('a', 'b', 10.001);
SELECT rule, observed, threshold FROM finance.risk_hit WHERE rule OPERATOR(pg_catalog.<>) 'night' ORDER BY ordinal USING OPERATOR(pg_catalog.<);
SELECT finance.unblock_account('b', 'test'), finance.remove_rule('night'), finance.enable_rule('day', false), finance.remove_rule('limit');
SELECT status FROM finance.transfer('a', 'b', 10.001);
SELECT finance.set_account_limits('b', 1, 50), finance.set_account_status('b', 'frozen');
SELECT finance.balance('b');
SELECT finance.set_account_status('b', 'active') IS NOT NULL AS done, finance.set_account_limits('b', NULL, NULL) IS NOT NULL AS done;
SELECT finance.remove_rule('day'), finance.remove_rule('blocked');
-- rules of each sort, by a version of their own, without and with a cache
SELECT finance.create_ruleset('evil', score_report => 1) AS draft \gset
SELECT finance.add_rule('total', 'total_limit', 0, per => 'pair', period => 'day', ruleset => :draft), finance.add_rule('often', 'count_limit', 0, span => '1 hour', ruleset => :draft),
	finance.add_rule('open', 'night_window', window_start => '00:00', window_end => '24:00', time_zone => 'Europe/Berlin', calendar => 'bank', weekdays => '{1,2,3,4,5,6,7}', ruleset => :draft),
	finance.add_rule('expression', 'expression', expression => 'amount >= 0.001 and from_account = ''a'' and metadata->>''a'' = ''1'' and account_day_amount + amount > 1 and not is_holiday', score => 2, ruleset => :draft),
	finance.add_rule('drain', 'balance_drain', 0.5, ruleset => :draft), finance.add_rule('structured', 'structuring', 10, minimum => 0.001, times => 1, period => 'month', ruleset => :draft),
	finance.add_rule('first', 'new_counterparty', ruleset => :draft), finance.add_rule('watched', 'watchlist', list => 'countries', subject => 'country', ruleset => :draft),
	finance.add_rule('phone', 'new_device', ruleset => :draft), finance.add_rule('moved', 'geography_jump', span => '1 day', ruleset => :draft), finance.add_rule('too much', 'transfer_limit', 0, account => 'b', ruleset => :draft);
SELECT finance.add_to_list('countries', 'country', 'KP', 'x'), finance.add_holiday('2000-01-01', calendar => 'bank'), finance.set_rule_limit('total', 0.5, 'x', account => 'a'), finance.enable_rule('drain', false, ruleset => :draft);
SELECT rule, outcome, hit FROM finance.explain_risk('a', 'b', 0.001, metadata => '{"a": "1", "device": "d", "country": "KP"}', ruleset => :draft) WHERE rule IS NULL OR hit;
SELECT finance.publish_ruleset(:draft, 'shadow');
SELECT id AS judged, status FROM finance.transfer('a', 'b', 0.001, metadata => '{"a": "1", "device": "d", "country": "KP"}') \gset
SELECT outcome, score FROM finance.risk_decision WHERE transfer_id OPERATOR(pg_catalog.=) :judged;
SELECT same, outcome FROM finance.replay_decision(:judged, :draft);
SELECT outcome, version FROM finance.evaluate_risk('a', 'b', 0.001);
SELECT finance.retire_ruleset(:draft);
SELECT status FROM finance.transfer('b', 'a', 0.001);
SELECT finance.create_account_type('till', 'debit'), finance.create_transfer_type('top-up', '{till}', '{liability,till}');
SELECT finance.create_account('till', 'EVIL', 'till', NULL, parent => 'a') IS NOT NULL AS made, finance.create_account('pool', 'EVIL', min_available => NULL) IS NOT NULL AS made,
	finance.create_account('usd', 'USD', min_available => NULL) IS NOT NULL AS made, finance.create_account('usd pool', 'USD', min_available => NULL) IS NOT NULL AS made,
	finance.create_account('cents', 'USD', min_available => NULL) IS NOT NULL AS made, finance.set_account_parent('b', 'a') IS NOT NULL AS moved;
SELECT error, status, amount FROM finance.transfer_batch(ARRAY[finance.request('till', 'b', 5, type => 'top-up', linked => true, effective_at => '2020-01-01', idempotency_key => 'b'),
	finance.request('b', 'till', NULL, amount_mode => 'up_to'), finance.request('a', 'b', 1, type => 'top-up'), finance.request('b', 'a', 1, action => 'hold', expires_in => '1 hour')]);
SELECT hold_id AS held, status FROM finance.hold('a', 'b', 9, expires_in => '1 hour', hold_group => 'g', idempotency_key => 'h') \gset
SELECT status, hold_remaining FROM finance.capture(:held, 1, idempotency_key => 'c');
SELECT status, hold_remaining FROM finance.release(:held, 1);
SELECT status, amount, hold_remaining FROM finance.capture_group('g');
SELECT finance.expire_holds();
-- rows written by statements
SET LOCAL finance.direct_writes = off;
SELECT hold_id AS held, status FROM finance.hold('a', 'b', 4, expires_in => '1 hour') \gset
SELECT status, hold_remaining FROM finance.capture(:held, 3, final => true, effective_at => '2020-01-01', idempotency_key => 'o');
SELECT status, amount FROM finance.transfer('b', 'a', 4, metadata => '{"a": 1}', expected_from_version => (SELECT version FROM finance.account WHERE code OPERATOR(pg_catalog.=) 'b'));
SET LOCAL finance.direct_writes = on;
SELECT id AS paid, journal_id AS journal FROM finance.journal(ARRAY[finance.leg('a', 'debit', 3), finance.leg('b', 'credit', 2), finance.leg('pool', 'credit', 1)], 'j', effective_at => '2030-01-01') LIMIT 1 \gset
SELECT status, amount FROM finance.exchange('a', 'usd', 1, 1.014, 'pool', 'usd pool', rounding_account => 'cents', idempotency_key => 'x');
SELECT status, amount FROM finance.exchange('a', 'usd', 1, 1.014, 'pool', 'usd pool', rounding_account => 'cents');
SELECT status, amount FROM finance.distribute('a', ARRAY['b', 'pool'], ARRAY[1, 2], 1);
SAVEPOINT s2;
SELECT status FROM finance.reverse_journal(:journal);
ROLLBACK TO s2;
SELECT status, amount FROM finance.reverse_transfer(:paid, 1, 'half');
SELECT amount FROM finance.reversals(:paid);
SELECT replayed FROM finance.hold('a', 'b', 9, expires_in => '1 hour', hold_group => 'g', idempotency_key => 'h');
SELECT finance.balance_at('b', 'infinity'), finance.balance_at('b', '2020-01-02', 'effective'), finance.balance_at('b', 'infinity', 'effective');
SELECT line, status, change, balance FROM finance.statement('pool', "from" => '-infinity');
SELECT * FROM finance.rollup('a');
SELECT code, debit, credit FROM finance.trial_balance();
SELECT code, debit, credit FROM finance.trial_balance('2080-01-01');
SELECT type, currency, balance FROM finance.balance_sheet();
SELECT code, status FROM finance.lock_accounts(ARRAY['b', 'a']);
SELECT finance.split_amount(1, ARRAY[1, 1, 1], 2);
SELECT status, remaining FROM finance.hold ORDER BY hold_id USING OPERATOR(pg_catalog.<);
SELECT finance.create_account(code, 'EVIL', min_available => NULL) IS NOT NULL AS made FROM pg_catalog.unnest('{old,older}'::pg_catalog.text[]) AS code;
SELECT status, recorded_at OPERATOR(pg_catalog.=) '2020-01-01' AS then FROM finance.import_transfers(ARRAY[finance.request('old', 'older', 1, recorded_at => '2020-01-01')]);
SELECT finance.close_account('older', 'old') IS NOT NULL AS closed, finance.set_min_available('b', -1000) IS NOT NULL AS done, finance.set_max_balance('b', 1000) IS NOT NULL AS done;
SELECT finance.send('q', '1', headers => '{}', priority => 3) IS NOT NULL AS sent;
SELECT topic, priority FROM finance.read('q', 0, 10);
SELECT finance.archive('q', msg_id), finance.delete('alerts', msg_id) FROM finance.read('q', 0, 1);
SELECT queue_name, queue_length FROM finance.metrics_all() ORDER BY queue_name USING OPERATOR(pg_catalog.<);
SELECT pattern, queue_name FROM finance.list_bindings();
SELECT finance.create_tenant('evil', member_role => 'regress_fin_app') IS NOT NULL AS made;
SELECT finance.grant_access('regress_fin_app', 'operator');
CREATE TABLE regress_fin_evil.mine (id integer PRIMARY KEY, what pg_catalog.text);
SELECT finance.audit_table('regress_fin_evil.mine');
INSERT INTO regress_fin_evil.mine VALUES (1, 'x');
SELECT operation, object, row_key FROM finance.audit_record WHERE object OPERATOR(pg_catalog.~~) '%mine';
SELECT code, balance, version FROM finance.account ORDER BY code USING OPERATOR(pg_catalog.<);
SELECT side, version, balance FROM finance.entry ORDER BY transfer_id USING OPERATOR(pg_catalog.<), side USING OPERATOR(pg_catalog.<);
SELECT * FROM finance.check_integrity();
SET LOCAL ROLE regress_fin_app;
SELECT code FROM finance.account ORDER BY code USING OPERATOR(pg_catalog.<);
SELECT finance.set_account_status('b', 'active');
SELECT status FROM finance.transfer('a', 'b', 1);
RESET ROLE;
ALTER TABLE finance._account DISABLE TRIGGER guard;
UPDATE finance._account SET version = version OPERATOR(pg_catalog.+) 1 WHERE code OPERATOR(pg_catalog.=) 'a';
SELECT invariant FROM finance.check_integrity();
ROLLBACK;
RESET search_path;
DROP SCHEMA regress_fin_evil CASCADE;
DROP ROLE regress_fin_app;
SELECT * FROM finance.check_integrity();
