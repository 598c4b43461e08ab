-- Tenants: closed books.  Who is no member neither acts nor sees, whatever he
-- sets; and nothing crosses from one to the other.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
DROP ROLE IF EXISTS regress_fin_north, regress_fin_south, regress_fin_ann, regress_fin_sam, regress_fin_gone;
RESET client_min_messages;

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')),
		'\m\d{17,19}\M', '<id>', 'g'), 'tenant \d+', 'tenant <n>', 'g');
END $$;

CREATE ROLE regress_fin_north;
CREATE ROLE regress_fin_south;
-- both may call everything an operator or an auditor may, each is a member of one
CREATE ROLE regress_fin_ann LOGIN IN ROLE regress_fin_north;
CREATE ROLE regress_fin_sam LOGIN IN ROLE regress_fin_south;
SELECT finance.grant_access(who::regrole, level)
FROM (VALUES ('regress_fin_ann'), ('regress_fin_sam')) AS r (who), (VALUES ('operator'), ('auditor')) AS l (level);

SELECT finance.create_tenant('north', 'Europe/Oslo', 'regress_fin_north') AS north \gset
SELECT finance.create_tenant(member_role => 'regress_fin_south', time_zone => 'Africa/Lagos', name => 'south') AS south \gset
SELECT finance.create_tenant('open') AS open \gset
SELECT name, time_zone, member_role FROM finance.tenant WHERE name IN ('north', 'south', 'open') ORDER BY name;
SELECT :north > 0 AND :south > :north AND :open > :south AS numbers_rise;

-- ------------------------------------------------------------------------
-- each works in his own; codes, keys, queues and rules are the tenant's
-- ------------------------------------------------------------------------

SET SESSION AUTHORIZATION regress_fin_ann;
SET finance.tenant = :north;
SELECT finance.create_account('cash', 'EUR', min_available => NULL) AS north_cash, finance.create_account('till', 'EUR') AS north_till \gset
SELECT finance.create_queue('q'), finance.bind_topic('#', 'q'), finance.add_rule('limit', 'transfer_limit', 100);
SELECT status, to_balance FROM finance.transfer('cash', 'till', 60, idempotency_key => 'k');
SELECT status, rule FROM finance.transfer('cash', 'till', 101);

SET SESSION AUTHORIZATION regress_fin_sam;
SET finance.tenant = :south;
SELECT finance.create_account('cash', 'JPY', min_available => NULL) AS south_cash, finance.create_account('till', 'JPY') AS south_till \gset
SELECT finance.create_queue('q'), finance.bind_topic('#', 'q');
SELECT status, to_balance FROM finance.transfer('cash', 'till', 500, idempotency_key => 'k');
SELECT code, currency, balance FROM finance.account ORDER BY code;
SELECT count(*) FROM finance.transfer;
SELECT account_id = :south_till AS till, side, balance FROM finance.entry ORDER BY side;
SELECT name FROM finance.tenant;
SELECT queue_name FROM finance.list_queues();
SELECT message->'payload'->>'amount' AS amount FROM finance.pop('q', 10);
SELECT version, name FROM finance.risk_rule ORDER BY version, name;
SELECT count(*) FROM finance.idempotency_key;
SELECT operation, count(*) FROM finance.audit_record GROUP BY 1 ORDER BY 1;

-- ------------------------------------------------------------------------
-- nothing crosses
-- ------------------------------------------------------------------------

SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, %s, 1)', :south_cash, :north_cash));
SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, %s, 1)', :north_cash, :south_cash));
SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, %s, 1)', :north_cash, :north_till));
-- nor does a superuser make it
RESET SESSION AUTHORIZATION;
SET finance.tenant = 0;
SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, %s, 1)', :north_cash, :north_till));
SELECT pg_temp.attempt('SELECT finance.transfer(''cash'', ''till'', 1)');
SET finance.tenant = :north;
SELECT pg_temp.attempt(format('SELECT finance.transfer(%s, %s, 1)', :north_cash, :south_cash));
SELECT status FROM finance.transfer(:north_cash, :north_till, 1);
-- codes remembered of one tenant are not taken for the other's
SELECT currency FROM finance.transfer('cash', 'till', 1);
SET finance.tenant = :south;
SELECT currency FROM finance.transfer('cash', 'till', 1);

-- ------------------------------------------------------------------------
-- who is no member, whatever he sets
-- ------------------------------------------------------------------------

SET SESSION AUTHORIZATION regress_fin_sam;
SET finance.tenant = :north;
\pset format unaligned
SELECT regexp_replace(call, '\d{17,19}|(?<=tenant => )\d+', '<id>', 'g') AS call, left(pg_temp.attempt('SELECT finance.' || call), 40) AS result
FROM (VALUES
	(1, 'transfer(''cash'', ''till'', 1)'),
	(2, format('transfer(%s, %s, 1)', :north_cash, :north_till)),
	(3, 'transfer(''cash'', ''till'', 60, idempotency_key => ''k'')'),
	(4, 'create_account(''mine'', ''EUR'')'),
	(5, 'set_account_status(''till'', ''frozen'')'),
	(6, 'set_account_limits(''till'', NULL, NULL)'),
	(7, 'balance(''till'')'),
	(8, 'add_rule(''x'', ''blocklist'')'),
	(9, 'remove_rule(''limit'')'),
	(10, 'enable_rule(''limit'', false)'),
	(11, 'block_account(''till'', ''x'')'),
	(12, 'unblock_account(''till'', ''x'')'),
	(13, 'create_queue(''mine'')'),
	(14, 'drop_queue(''q'')'),
	(15, 'purge_queue(''q'')'),
	(16, 'list_queues()'),
	(17, 'metrics(''q'')'),
	(18, 'metrics_all()'),
	(19, 'send(''q'', ''1'')'),
	(20, 'send_batch(''q'', ''{1}'')'),
	(21, 'read(''q'', 1)'),
	(22, 'pop(''q'')'),
	(23, 'delete(''q'', 1)'),
	(24, 'archive(''q'', 1)'),
	(25, 'set_vt(''q'', 1, 1)'),
	(26, 'publish(''a.b'', ''1'')'),
	(27, 'bind_topic(''#'', ''q'')'),
	(28, 'unbind_topic(''#'', ''q'')'),
	(29, 'list_bindings()'),
	(30, 'test_routing(''a.b'')'),
	(31, 'subscribe(''regress_fin_channel'', ''#'')'),
	(32, 'audit_trace(''00000000-0000-0000-0000-000000000000'')'),
	(33, 'set_context(actor => ''me'')'),
	(34, 'set_default_queues(''q'', ''q'')'),
	(35, 'default_queues()'),
	(36, 'set_context(tenant => ' || current_setting('finance.tenant') || ')')
) AS t (n, call) ORDER BY n;
\pset format aligned

-- by name, by role, by settings
SELECT count(*) FROM finance.account;
SELECT pg_temp.attempt('SET ROLE regress_fin_north');
SELECT pg_temp.attempt('SET session_replication_role = replica');
SELECT pg_temp.attempt('SET finance.test_clock = ''2020-01-01''');
SELECT pg_temp.attempt('SET finance.max_payload = ''1GB''');
SET finance.actor = 'regress_fin_ann';
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
RESET finance.actor;
SET row_security = off;
SELECT pg_temp.attempt('SELECT count(*) FROM finance.account');
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
RESET row_security;
-- a tenant set within a transaction, a savepoint, a function
BEGIN;
SET LOCAL finance.tenant = :south;
SELECT finance.balance('till');
SAVEPOINT s;
SET LOCAL finance.tenant = :north;
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
SELECT count(*) FROM finance.transfer;
ROLLBACK TO s;
SELECT count(*) FROM finance.transfer;
COMMIT;

-- rows, from every table and view: neither the tenant's nor another's
SELECT relation, rows FROM (VALUES ('account'), ('_account'), ('account_change'), ('transfer'), ('entry'), ('idempotency_key'),
	('risk_rule'), ('risk_list'), ('rule_limit'), ('risk_decision'), ('audit_record'), ('queue'), ('binding'), ('queue_default'), ('subscription'), ('message'),
	('message_archive'), ('tenant')) AS r (relation),
	LATERAL (SELECT query_to_xml('SELECT count(*) AS n FROM finance.' || relation, true, false, '')::text) AS x (xml),
	LATERAL (SELECT substring(xml FROM '<n>(\d+)</n>')) AS c (rows)
ORDER BY relation;
-- a function cheaper than row security sees no row either
CREATE FUNCTION pg_temp.peek(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE NOTICE 'seen: %', value;
	RETURN true;
END $$;
SELECT count(*) FROM finance.account WHERE pg_temp.peek(code);
SELECT count(*) FROM finance.entry WHERE pg_temp.peek(currency);
-- nor do partitions tell
SELECT count(*) > 0 AS partitions, bool_or(has_table_privilege(inhrelid, 'SELECT')) AS readable
FROM pg_inherits WHERE inhparent IN (SELECT c.oid FROM pg_class c WHERE relnamespace = (
	SELECT oid FROM pg_namespace WHERE nspname = 'finance') AND relkind = 'p');
\set VERBOSITY sqlstate
SELECT status FROM finance.transfer('cash', 'till', 1);
\set VERBOSITY default

-- a tenant that does not exist, and one that is no number
SET finance.tenant = 2147483647;
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
SELECT count(*) FROM finance.account;
SELECT pg_temp.attempt('SET finance.tenant = -1');
SELECT pg_temp.attempt('SET finance.tenant = ''north''');

-- breaches of a tenant are told to its members
RESET SESSION AUTHORIZATION;
BEGIN;
ALTER TABLE finance._account DISABLE TRIGGER USER;
UPDATE finance._account SET credits_posted = credits_posted + 1 WHERE account_id = :north_till;
SELECT object FROM finance.check_integrity() WHERE tenant_id = :north ORDER BY 1;
SET LOCAL SESSION AUTHORIZATION regress_fin_sam;
SELECT * FROM finance.check_integrity();
SET LOCAL finance.tenant = :north;
SELECT * FROM finance.check_integrity();
SET LOCAL SESSION AUTHORIZATION regress_fin_ann;
SELECT object FROM finance.check_integrity() ORDER BY 1;
SET LOCAL finance.tenant = 0;
SELECT object FROM finance.check_integrity() ORDER BY 1;
ROLLBACK;

-- ------------------------------------------------------------------------
-- membership counts as it is now
-- ------------------------------------------------------------------------

GRANT regress_fin_north TO regress_fin_sam;
SET SESSION AUTHORIZATION regress_fin_sam;
SET finance.tenant = :north;
SELECT finance.balance('till'), (SELECT count(*) FROM finance.account);
RESET SESSION AUTHORIZATION;
REVOKE regress_fin_north FROM regress_fin_sam;
SET SESSION AUTHORIZATION regress_fin_sam;
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
SELECT count(*) FROM finance.account;
-- an open tenant is for whoever may call the functions
SET finance.tenant = :open;
SELECT finance.create_account('cash', 'USD') > 0 AS made;
SELECT count(*) FROM finance.account;
-- who may call nothing does not become a member by belonging to the role
RESET SESSION AUTHORIZATION;
CREATE ROLE regress_fin_gone LOGIN IN ROLE regress_fin_north;
SET SESSION AUTHORIZATION regress_fin_gone;
SET finance.tenant = :north;
SELECT pg_temp.attempt('SELECT finance.balance(''till'')');
SELECT pg_temp.attempt('SELECT * FROM finance.account');
RESET SESSION AUTHORIZATION;

-- a role that is dropped closes its tenant to all but the superuser
DROP ROLE regress_fin_gone;
CREATE ROLE regress_fin_gone;
SELECT finance.create_tenant('gone', member_role => 'regress_fin_gone') AS gone \gset
DROP ROLE regress_fin_gone;
SET finance.tenant = :gone;
SELECT finance.create_account('cash', 'EUR') > 0 AS made;
SET SESSION AUTHORIZATION regress_fin_ann;
SELECT pg_temp.attempt('SELECT finance.balance(''cash'')') LIKE '42501 | permission denied for tenant%' AS denied;
SELECT count(*) FROM finance.account;
RESET SESSION AUTHORIZATION;
SET finance.tenant = 0;

-- ------------------------------------------------------------------------
-- what create_tenant refuses
-- ------------------------------------------------------------------------

SELECT count(*) AS tenants FROM finance.tenant \gset
SELECT what, pg_temp.attempt('SELECT finance.create_tenant(' || arguments || ')')
FROM (VALUES
	(1, 'name taken', '''north'''),
	(2, 'name of tenant 0', '''default'''),
	(3, 'null name', 'NULL'),
	(4, 'empty name', ''''''),
	(5, 'name of 64 bytes', 'repeat(''n'', 64)'),
	(6, 'control character', 'E''a\n'''),
	(7, 'unknown zone', '''x'', ''Nowhere/Land'''),
	(8, 'empty zone', '''x'', '''''),
	(9, 'null zone', '''x'', NULL'),
	(10, 'unknown role', '''x'', ''UTC'', ''regress_fin_nobody''')
) AS t (n, what, arguments) ORDER BY n;
SELECT count(*) = :tenants AS none_made FROM finance.tenant;
-- tenants stay
\set VERBOSITY terse
DELETE FROM finance.tenant WHERE name = 'open';
\echo :LAST_ERROR_SQLSTATE
SET client_min_messages = warning;
TRUNCATE finance.tenant CASCADE;
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
RESET client_min_messages;

-- integrity, and nothing left behind in the cluster
SELECT * FROM finance.check_integrity();
DROP OWNED BY regress_fin_ann, regress_fin_sam;
DROP ROLE regress_fin_north, regress_fin_south, regress_fin_ann, regress_fin_sam;
