-- Who may do what: nobody anything, until grant_access(); what each level may;
-- and that names put before ours in the search path change nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
DROP SCHEMA IF EXISTS regress_fin_evil CASCADE;
DROP ROLE IF EXISTS regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_nobody, "regress_fin Odd""name";
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
SELECT finance.grant_access('regress_fin_app', 'app');
SELECT finance.grant_access(level => 'operator', role => 'regress_fin_operator');
SELECT finance.grant_access('regress_fin_auditor', 'auditor');
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
	('SELECT finance.send(''q'', ''1'')'),
	('SELECT finance.pop(''q'')'),
	('SELECT finance.publish(''a.b'', ''1'')'),
	('SELECT finance.set_context(actor => ''me'')'),
	('SELECT finance.set_account_status(''a'', ''frozen'')'),
	('SELECT finance.set_account_limits(''a'', NULL, NULL)'),
	('SELECT finance.add_rule(''r'', ''blocklist'')'),
	('SELECT finance.block_account(''a'', ''x'')'),
	('SELECT finance.create_queue(''q2'')'),
	('SELECT finance.drop_queue(''q'')'),
	('SELECT finance.subscribe(''c'', ''#'', ''q'')'),
	('SELECT finance.check_integrity()'),
	('SELECT finance.audit_trace(''00000000-0000-0000-0000-000000000000'')'),
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
	('SELECT * FROM finance.currency'),
	('SELECT * FROM finance.risk_decision'),
	('SELECT * FROM finance.risk_rule'),
	('SELECT * FROM finance.account_change'),
	('SELECT * FROM finance.idempotency_key'),
	('SELECT * FROM finance.audit_record'),
	('SELECT * FROM finance.message'),
	('SELECT * FROM finance.tenant'),
	('INSERT INTO finance.currency VALUES (''XYZ'', 2, ''x'')'),
	('INSERT INTO finance.risk_rule (tenant_id, name, kind) VALUES (0, ''x'', ''blocklist'')'),
	('UPDATE finance._account SET debits_posted = 0'),
	('UPDATE finance.account SET code = ''x'''),
	('UPDATE finance.transfer SET amount = 1'),
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
RESET ROLE;
RESET client_min_messages;
SELECT c.statement, max(may) FILTER (WHERE role = 'nobody') AS nobody, max(may) FILTER (WHERE role = 'app') AS app,
	max(may) FILTER (WHERE role = 'operator') AS operator, max(may) FILTER (WHERE role = 'auditor') AS auditor
FROM regress_fin_calls c JOIN regress_fin_may m USING (n) GROUP BY n, c.statement ORDER BY n;
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

DROP OWNED BY regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_nobody, "regress_fin Odd""name";
DROP ROLE regress_fin_app, regress_fin_operator, regress_fin_auditor, regress_fin_nobody, "regress_fin Odd""name";

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
	FOREACH type IN ARRAY '{smallint, integer, bigint, numeric, text, name, boolean, date, time, timestamptz, uuid, jsonb, oid, bytea, xid8, "char"}'::text[]
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
		"id_time(bigint)", "unnest(anyarray)", "generate_series(bigint, bigint)", "least(bigint, bigint)", "sha256(bytea)"}'::text[]
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
SELECT status, rule FROM finance.transfer('a', 'b', 10.001);
SELECT rule, observed, threshold FROM finance.risk_decision WHERE rule OPERATOR(pg_catalog.<>) 'night' ORDER BY ordinal USING OPERATOR(pg_catalog.<);
SELECT finance.unblock_account('b', 'test'), finance.remove_rule('night'), finance.enable_rule('day', false), finance.remove_rule('limit');
SELECT status FROM finance.transfer('a', 'b', 10.001);
SELECT finance.set_account_limits('b', 1, 50), finance.set_account_status('b', 'frozen');
SELECT finance.balance('b');
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
-- holds, batches, journals, types, reports, history
SELECT finance.create_account_type('till', 'debit'), finance.create_transfer_type('tip', '{till}', '{liability,income}');
SELECT finance.create_account('c', 'EVIL', 'till', NULL) IS NOT NULL AS c, finance.create_account('d', 'EVIL') IS NOT NULL AS d,
	finance.create_account('e', 'EVIL', parent => 'd') IS NOT NULL AS e, finance.create_account('usd', 'USD', 'till', NULL) IS NOT NULL AS usd,
	finance.create_account('f', 'USD') IS NOT NULL AS f;
SELECT status, to_balance FROM finance.import_transfers(ARRAY[finance.request('c', 'e', 7, type => 'tip', recorded_at => '2024-01-02')]);
SELECT status, hold_remaining FROM finance.hold('c', 'd', 30, expires_in => '1 day', hold_group => 'g', idempotency_key => 'h');
SELECT status, hold_remaining FROM finance.capture((SELECT max(hold_id) FROM finance.hold), 10, idempotency_key => 'hc');
SELECT status, hold_remaining, replayed FROM finance.capture((SELECT max(hold_id) FROM finance.hold), 10, idempotency_key => 'hc');
SELECT status, hold_remaining FROM finance.release((SELECT max(hold_id) FROM finance.hold), 5);
SELECT status FROM finance.capture_group('g');
SELECT status, amount, remaining FROM finance.hold;
SELECT status FROM finance.hold('c', 'd', 1, hold_group => 'h');
SELECT status FROM finance.release_group('h');
SELECT finance.expire_holds();
SELECT position, error, status FROM finance.transfer_batch(ARRAY[finance.request('c', 'd', 1, effective_at => '2024-03-04', linked => true),
	finance.request('d', 'c', 1), finance.request('d', 'c', 1e9), finance.request('c', 'd', amount_mode => 'up_to', type => 'none')]);
SELECT amount FROM finance.transfer('d', 'c', 1e6, amount_mode => 'up_to', type => 'refund');
SELECT amount FROM finance.journal(ARRAY[finance.leg('c', 'debit', 3), finance.leg('d', 'credit', 1), finance.leg('e', 'credit', 2)], idempotency_key => 'j');
SELECT amount FROM finance.distribute('c', '{d,e}', '{1,2}', 1);
SELECT amount FROM finance.exchange('d', 'f', 1, 0.333333, 'c', 'usd', rounding => 'up');
SELECT amount FROM finance.reverse_transfer((SELECT max(id) FROM finance.transfer));
SELECT amount FROM finance.reversals((SELECT max(reverses_id) FROM finance.transfer));
SELECT finance.set_account_parent('c', 'd'), finance.set_min_available('d', -10), finance.set_max_balance('d', 1000);
SELECT amount FROM finance.reverse_journal((SELECT min(journal_id) FROM finance.transfer));
SELECT code, balance FROM finance.lock_accounts('{e,d}');
SELECT currency, accounts, balance FROM finance.rollup('d');
SELECT currency, type, code, debit, credit FROM finance.trial_balance();
SELECT currency, type, debit FROM finance.trial_balance('2024-02-01');
SELECT currency, type, balance FROM finance.balance_sheet();
SELECT finance.balance_at('e', '2024-02-01'), finance.balance_at('d', '2024-04-01', 'effective');
SELECT line, change, balance FROM finance.statement('e');
SELECT finance.split_amount(1, '{1,1,1}', 2);
SELECT finance.close_account('f', 'usd') IS NOT NULL AS closed;
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
