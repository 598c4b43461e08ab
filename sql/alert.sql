-- Alerts: raised by what risk reports, challenges, has reviewed or rejects; looked
-- into by people; and the report of large and suspicious transfers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('alert test') AS tenant \gset
SET finance.tenant = :tenant;
SET finance.test_clock = '2050-03-01 12:00+00';

-- a rule that wants an outcome of what is above an amount
CREATE FUNCTION pg_temp.rule(name text, wants text, above numeric, account text DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$ SELECT finance.add_rule(name, 'transfer_limit', above, account, outcome => wants) $$;

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN replace(regexp_replace(regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, '')),
		'\m\d{17,19}\M', '<id>', 'g'), ' \| Failing row.*', ''), session_user, '<user>');
END $$;

CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, _hold, idempotency_key, risk_decision,
		risk_review, _challenge, _alert, alert_transfer, alert_comment, audit_record, message}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

CREATE TEMP VIEW purse AS
SELECT code, status, balance, held, available, credits_pending, version FROM finance.account WHERE tenant_id = :tenant;

SELECT count(finance.create_account(code, 'EUR', min_available => least))
FROM (VALUES ('bank', NULL), ('shop', 0), ('ann', 0), ('ben "the, man"', 0)) AS v (code, least);
SELECT finance.create_queue('alerts');
SELECT finance.bind_topic('risk.#', 'alerts');
SELECT to_balance FROM finance.transfer('bank', 'ann', 10000);
SELECT to_balance FROM finance.transfer('bank', 'ben "the, man"', 10000);
SELECT pg_temp.rule('notable', 'report', 10, account => 'ann');
SELECT pg_temp.rule('second factor', 'challenge', 100, account => 'ann');
SELECT pg_temp.rule('four eyes', 'review', 200, account => 'ann');
SELECT pg_temp.rule('never', 'reject', 1000, account => 'ann');
SET finance.actor = 'maker';

CREATE TEMP VIEW alerts AS
SELECT level, status, account, rule, to_char(day, 'YYYY-MM-DD') AS day, transfers, first_transfer_id = last_transfer_id AS one, assignee, closed_by
FROM finance.alert WHERE tenant_id = :tenant ORDER BY alert_id;

-- ------------------------------------------------------------------------
-- raised, by level; counted together
-- ------------------------------------------------------------------------

SELECT status, rule FROM finance.transfer('ann', 'shop', 10);
SELECT * FROM alerts;
SELECT id, status, rule IS NULL AS without_rule FROM finance.transfer('ann', 'shop', 11, reference => 'a, "b"') \gset r_
SELECT :'r_status' AS status, :'r_without_rule' AS without_rule;
SELECT status, count(*) FROM generate_series(12, 14) AS n CROSS JOIN LATERAL finance.transfer('ann', 'shop', n) GROUP BY 1;
SELECT status FROM finance.transfer('ann', 'shop', 101);
SELECT status FROM finance.transfer('ann', 'shop', 201);
SELECT status FROM finance.transfer('ann', 'shop', 1001);
SELECT status FROM finance.transfer_batch(ARRAY[finance.request('ann', 'shop', 15), finance.request('ann', 'shop', 1002), finance.request('ann', 'shop', 5)]);
SELECT * FROM alerts;
SELECT outcome, rules[1] AS decided, cardinality(rules) AS rules, kinds[1] AS kind, cardinality(kinds) AS kinds, count(*)
FROM finance.alert_transfer WHERE tenant_id = :tenant GROUP BY 1, 2, 3, 4, 5 ORDER BY min(transfer_id);
-- rolled back, or strict: nothing happened
SELECT pg_temp.book() AS book \gset
BEGIN;
SELECT status FROM finance.transfer('ann', 'shop', 1003);
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 1003, strict => true)$$);
SELECT pg_temp.book() = :'book' AS nothing_changed;
-- a repeated request is no other alert
SELECT status, replayed FROM finance.transfer('ann', 'shop', 16, idempotency_key => 'k');
SELECT status, replayed FROM finance.transfer('ann', 'shop', 16, idempotency_key => 'k');
SELECT transfers FROM alerts WHERE level = 'info';
-- another day
SET finance.test_clock = '2050-03-02 12:00+00';
SELECT status FROM finance.transfer('ann', 'shop', 17);
SELECT * FROM alerts WHERE level = 'info';

-- the messages: what was only reported is told of beside the transfer's own
SELECT payload->>'type' AS topic, p->>'level' AS level, p->>'outcome' AS outcome, p->>'status' AS status, p->>'amount' AS amount, p->>'score' AS score,
	a.alert_id IS NOT NULL AS its_alert, jsonb_array_length(p->'decisions') AS decisions
FROM finance.message m CROSS JOIN LATERAL (SELECT m.payload->'payload') AS v (p)
LEFT JOIN finance._alert a ON a.tenant_id = m.tenant_id AND a.alert_id = (p->>'alert_id')::bigint
WHERE m.tenant_id = :tenant ORDER BY m.msg_id LIMIT 7;
SELECT count(*), count(DISTINCT message_id), count(DISTINCT payload->>'message_id') FROM finance.message WHERE tenant_id = :tenant;
SELECT r.operation, r.status, response->>'outcome' AS outcome, a.alert_id IS NOT NULL AS its_alert FROM finance.audit_record r
LEFT JOIN finance._alert a ON a.tenant_id = r.tenant_id AND a.alert_id = (r.response->>'alert_id')::bigint
WHERE r.tenant_id = :tenant AND r.transfer_id = :r_id;

-- ------------------------------------------------------------------------
-- looked into
-- ------------------------------------------------------------------------

SELECT alert_id AS info FROM finance.alert WHERE tenant_id = :tenant AND level = 'info' AND day = '2050-03-01' \gset
SELECT alert_id AS critical FROM finance.alert WHERE tenant_id = :tenant AND level = 'critical' \gset
SELECT pg_temp.book() AS book \gset
CREATE TEMP TABLE wrong (n serial, what text, statement text);
INSERT INTO wrong (what, statement) VALUES
	('unknown', 'SELECT finance.assign_alert(1, ''eve'')'),
	('unknown, to comment', 'SELECT finance.comment_alert(1, ''?'')'),
	('unknown, to close', 'SELECT finance.close_alert(1, ''dismissed'', ''x'')'),
	('unknown, to open', 'SELECT finance.reopen_alert(1, ''x'')'),
	('none', 'SELECT finance.assign_alert(NULL, ''eve'')'),
	('an empty assignee', format('SELECT finance.assign_alert(%s, '''')', :info)),
	('a long one', format('SELECT finance.assign_alert(%s, repeat(''x'', 257))', :info)),
	('no comment', format('SELECT finance.comment_alert(%s, NULL)', :info)),
	('an empty one', format('SELECT finance.comment_alert(%s, '''')', :info)),
	('closed without a word', format('SELECT finance.close_alert(%s, ''dismissed'', NULL)', :info)),
	('closed as what', format('SELECT finance.close_alert(%s, ''done'', ''x'')', :info)),
	('closed as null', format('SELECT finance.close_alert(%s, NULL, ''x'')', :info)),
	('open already', format('SELECT finance.reopen_alert(%s, ''x'')', :info)),
	('unknown format', 'SELECT finance.export_aml(''2000-01-01'', ''2100-01-01'', ''xml'')'),
	('no format', 'SELECT finance.export_aml(''2000-01-01'', ''2100-01-01'', NULL)'),
	('no beginning', 'SELECT finance.export_aml(NULL, ''2100-01-01'')'),
	('no end', 'SELECT finance.export_aml(''2000-01-01'', NULL)');
\pset format unaligned
SELECT what, pg_temp.attempt(statement) AS result FROM wrong ORDER BY n;
\pset format aligned
SELECT pg_temp.book() = :'book' AS nothing_changed;

SET finance.actor = 'lead';
SELECT finance.assign_alert(:info, 'eve');
SET finance.actor = 'eve';
SELECT finance.comment_alert(:info, 'asked the customer');
SELECT finance.close_alert(:info, 'dismissed', 'his rent');
SELECT pg_temp.attempt(format('SELECT finance.close_alert(%s, ''confirmed'', ''no'')', :info));
SELECT pg_temp.attempt(format('SELECT finance.assign_alert(%s, ''eve'')', :info));
SELECT finance.comment_alert(:info, 'he sent the lease');
SELECT finance.close_alert(:critical, 'confirmed', 'stolen card');
SELECT * FROM alerts;
SELECT action, actor, comment, commented_at AT TIME ZONE 'UTC' AS at FROM finance.alert_comment WHERE tenant_id = :tenant AND alert_id = :info ORDER BY comment_id;
SELECT operation, status, actor, request->>'action' AS action, request->>'comment' AS comment, (request->>'alert_id')::bigint = :info AS of_it
FROM finance.audit_record WHERE tenant_id = :tenant AND operation ~ 'alert' ORDER BY id;
-- the next one is another alert, once it is closed
SET finance.test_clock = '2050-03-01 13:00+00';
SELECT status FROM finance.transfer('ann', 'shop', 18);
SELECT transfers FROM finance.alert WHERE alert_id = :info;
SELECT * FROM alerts WHERE level = 'info';
SELECT finance.reopen_alert(:info, 'was it?');
SELECT finance.assign_alert(:info, NULL);
SELECT status, assignee, closed_by, closed_at FROM finance.alert WHERE alert_id = :info;
SELECT pg_temp.attempt('DELETE FROM finance.alert_comment');
SELECT pg_temp.attempt('UPDATE finance.alert_transfer SET score = 1');
SELECT pg_temp.attempt('DELETE FROM finance._alert');

-- ------------------------------------------------------------------------
-- the report
-- ------------------------------------------------------------------------

SELECT r.amount, r.status, r.outcome, r.level, r.alert_status, r.comment, r.reference FROM finance.aml_report r WHERE r.tenant_id = :tenant ORDER BY r.transfer_id;
CREATE TEMP TABLE line (n serial, line text);
INSERT INTO line (line) SELECT finance.export_aml('2000-01-01', '2100-01-01', 'csv');
\pset format unaligned
SELECT regexp_replace(regexp_replace(line, '\d{17,19}', '<id>', 'g'), '\d{4}-\d\d-\d\dT[0-9:.]*Z', '<time>', 'g') AS csv
FROM line WHERE n IN (1, 2) ORDER BY n;
SELECT count(*) AS stolen FROM line WHERE line ~ '.*,rejected,ann,shop,.*,confirmed,stolen card$';
SELECT finance.export_aml('2000-01-01', '2100-01-01', 'json') AS json LIMIT 1 \gset
SELECT regexp_replace(regexp_replace(:'json', '\d{17,19}', '<id>', 'g'), '\d{4}-\d\d-\d\dT[0-9:.]*Z', '<time>', 'g') AS json;
\pset format aligned
SELECT (:'json'::json)->>'transfer_id' = :'r_id' AS the_first, ((:'json'::json)->>'recorded_at')::timestamptz = (SELECT recorded_at FROM finance.transfer WHERE id = :r_id) AS its_time;
SELECT count(*) = (SELECT count(*) FROM finance.aml_report WHERE tenant_id = :tenant) AS all FROM finance.export_aml('2000-01-01', '2100-01-01');
SELECT count(*) FROM finance.export_aml('2000-01-01', '2000-01-02');
SELECT count(*) FROM finance.export_aml('2000-01-01', '2000-01-02', 'csv');
-- from its time on, and before the other
SELECT recorded_at AS at FROM finance.transfer WHERE id = :r_id \gset
SELECT count(*) FROM finance.export_aml(:'at', :'at');
SELECT count(*) FROM finance.export_aml(:'at', :'at'::timestamptz + interval '1 microsecond');
-- nothing of it to another tenant
SELECT finance.create_tenant('alert test, the other') AS other \gset
SET finance.tenant = :other;
SELECT count(*) FROM finance.export_aml('2000-01-01', '2100-01-01');
SELECT pg_temp.attempt(format('SELECT finance.close_alert(%s, ''confirmed'', ''x'')', :info));
SET finance.tenant = :tenant;

-- who may: not the app
CREATE ROLE alert_app;
CREATE ROLE alert_operator;
CREATE ROLE alert_auditor;
SELECT finance.grant_access('alert_app', 'app'), finance.grant_access('alert_operator', 'operator'), finance.grant_access('alert_auditor', 'auditor');
SET ROLE alert_app;
SELECT pg_temp.attempt('SELECT * FROM finance.alert');
SELECT pg_temp.attempt('SELECT * FROM finance.aml_report');
SELECT pg_temp.attempt('SELECT finance.export_aml(''2000-01-01'', ''2100-01-01'')');
SELECT status FROM finance.transfer('ann', 'shop', 20);
SET ROLE alert_operator;
SELECT finance.comment_alert(:info, 'so it was');
SELECT count(*) > 0 AS some FROM finance.alert;
SET ROLE alert_auditor;
SELECT count(*) > 0 AS some FROM finance.aml_report;
SELECT count(*) > 0 AS some FROM finance.export_aml('2000-01-01', '2100-01-01');
SELECT pg_temp.attempt(format('SELECT finance.comment_alert(%s, ''x'')', :info));
RESET ROLE;
DROP OWNED BY alert_app, alert_operator, alert_auditor;
DROP ROLE alert_app, alert_operator, alert_auditor;
CREATE FUNCTION pg_temp.breaches(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT DISTINCT c.invariant FROM finance.check_integrity() c ORDER BY 1;
	RAISE EXCEPTION 'undo' USING ERRCODE = 'XX999';
EXCEPTION WHEN SQLSTATE 'XX999' THEN
	NULL;
END $$;
SELECT pg_temp.breaches(format('ALTER TABLE finance.alert_transfer DISABLE TRIGGER guard; DELETE FROM finance.alert_transfer WHERE tenant_id = %s', :tenant));
SELECT pg_temp.breaches(format('UPDATE finance._alert SET account_id = account_id + 1 WHERE alert_id = %s', :info));
SELECT pg_temp.breaches(format('ALTER TABLE finance._alert DISABLE TRIGGER guard; DELETE FROM finance._alert WHERE alert_id = %s', :info));
SELECT * FROM finance.check_integrity();
