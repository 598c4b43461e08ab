-- What risk counts: by account, payee, pair, type and device, over calendar
-- periods, sliding windows and for ever; what is given back, undone, and read
-- from the history.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('meter test', 'Europe/Berlin') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET intervalstyle = postgres;
SET datestyle = ISO;
SET finance.test_clock = '2030-01-15 12:30+00';

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
	RETURN regexp_replace(SQLSTATE || ' | ' || message, '\m\d{17,19}\M', '<id>', 'g');
END $$;

CREATE FUNCTION pg_temp.measure(scope text, period text, span interval DEFAULT NULL,
	band_min numeric DEFAULT NULL, band_max numeric DEFAULT NULL) RETURNS void LANGUAGE sql AS
$$ INSERT INTO finance.risk_measure (tenant_id, scope, period, span, band_min, band_max)
	VALUES (current_setting('finance.tenant')::integer, scope, period, span, band_min, band_max) $$;

-- what was counted, by key and measure
CREATE VIEW pg_temp.totals AS
SELECT concat_ws(' ', m.scope, m.period, m.span, m.band_min || ' to ' || m.band_max) AS measure, f.code AS "from", t.code AS "to",
	nullif(r.class, '') AS class, b.amount, b.count, b.text, b.bucket, r.account_id, r.other_id
FROM finance.risk_total r CROSS JOIN LATERAL finance._risk_totals(r.state) b
JOIN finance.risk_measure m USING (tenant_id, measure_id)
LEFT JOIN finance.account f ON f.tenant_id = r.tenant_id AND f.account_id = r.account_id
LEFT JOIN finance.account t ON t.tenant_id = r.tenant_id AND t.account_id = r.other_id
WHERE r.tenant_id = current_setting('finance.tenant')::integer;
CREATE FUNCTION pg_temp.of_a() RETURNS TABLE (measure text, amount numeric, count bigint) LANGUAGE sql AS
$$ SELECT measure, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" IS NULL AND class IS NULL ORDER BY measure $$;

SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('a', 'EUR'), ('b', 'EUR'), ('c', 'EUR'), ('d', 'EUR'), ('yen a', 'JPY'), ('yen b', 'JPY')) AS v (code, currency);
SELECT finance.create_transfer_type('rent');
-- publishing a ruleset drops the measures it does not need, and those here are made by hand: so first
SELECT finance.add_rule('limit', 'transfer_limit', 20000, account => 'a');

-- nothing is measured: nothing is written
SELECT status FROM finance.transfer('a', 'b', 1000);
SELECT count(*) FROM finance.risk_total WHERE tenant_id = :tenant;

-- ------------------------------------------------------------------------
-- what may be measured
-- ------------------------------------------------------------------------

SELECT n, pg_temp.attempt('SELECT pg_temp.measure(' || arguments || ')')
FROM (VALUES (1, '''tenant'', ''day'''), (2, '''account'', ''week'''), (3, '''account'', ''sliding'''),
	(4, '''account'', ''day'', ''1 day'''), (5, '''account'', ''sliding'', ''-1 day'''), (6, '''account'', ''sliding'', ''367 days'''),
	(7, '''account'', ''sliding'', ''1 microsecond'''), (8, '''pair'', ''last_device'''), (9, '''account'', ''last_device'', NULL, 1, 2'),
	(10, '''account'', ''day'', NULL, 2, 2'), (11, '''account'', ''day'', NULL, -1, 2'), (12, '''account'', ''day'', NULL, 1, ''NaN''')) AS v (n, arguments)
ORDER BY n;

-- ------------------------------------------------------------------------
-- scopes, from the first transfer on; what was before is in it
-- ------------------------------------------------------------------------

SELECT pg_temp.measure(scope, 'ever') FROM unnest('{account,counterparty,pair,account_type,type,device}'::text[]) AS scope;
SELECT pg_temp.measure('account', period) FROM unnest('{hour,day,month,last_device,last_country}'::text[]) AS period;
SELECT pg_temp.measure('account', 'sliding', '1 day'), pg_temp.measure('account', 'day', NULL, 9000, 10000);
SELECT status FROM finance.transfer('a', 'b', 10, metadata => '{"device": "phone", "country": "DE"}');
SELECT status FROM finance.transfer('a', 'c', 9999.99, type => 'rent', metadata => '{"device": "phone", "country": "AT"}');
SELECT status FROM finance.transfer('b', 'a', 9000);
SELECT status FROM finance.transfer('yen a', 'yen b', 10000);
SELECT measure, "from", "to", class, amount, count FROM pg_temp.totals WHERE text IS NULL AND amount IS NOT NULL ORDER BY measure, "from", "to", class;
SELECT measure, "from", text FROM pg_temp.totals WHERE amount IS NULL ORDER BY measure, "from";
SELECT * FROM finance.check_integrity();

-- devices that are none
SELECT count((finance.transfer('d', 'c', 1, metadata => metadata)).id)
FROM unnest(ARRAY['{"device": 7}', '{"device": null}', '{"device": ""}', '["device"]', '"device"', '{"device": {"a": 1}}',
	jsonb_build_object('device', repeat('x', 129)), NULL]) AS metadata;
SELECT count(*) FROM pg_temp.totals WHERE "from" = 'd' AND class LIKE 'device%';
SELECT (finance.transfer('d', 'c', 1, metadata => jsonb_build_object('device', repeat('x', 128)))).status;
SELECT length(class), amount, count FROM pg_temp.totals WHERE "from" = 'd' AND class LIKE 'device%';

-- ------------------------------------------------------------------------
-- holds: counted when made; what is given back is taken off
-- ------------------------------------------------------------------------

SELECT id AS hold FROM finance.hold('a', 'd', 100, metadata => '{"device": "phone"}') \gset
SELECT * FROM pg_temp.of_a();
-- partly captured, and released: it stays a transfer
SELECT status FROM finance.capture(:hold, 30);
SELECT status FROM finance.release(:hold, 20);
SELECT status FROM finance.capture(:hold, 10, final => true);
SELECT * FROM pg_temp.of_a();
SELECT amount, count FROM pg_temp.totals WHERE "to" = 'd' OR class = 'device phone' ORDER BY "from", "to";
-- never captured: it was none
SELECT id AS hold FROM finance.hold('a', 'd', 100, type => 'rent') \gset
SELECT status FROM finance.release(:hold, 1);
SELECT status FROM finance.release(:hold);
SELECT * FROM pg_temp.of_a();
-- expired
SELECT status FROM finance.hold('a', 'd', 100, expires_in => '1 minute');
SELECT measure, amount, count FROM pg_temp.of_a() WHERE measure ~ 'day';
SET finance.test_clock = '2030-01-15 12:31+00';
SELECT finance.expire_holds();
SELECT measure, amount, count FROM pg_temp.of_a() WHERE measure ~ 'day';
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- what did not come off does not count; a reversal does, for who pays it
-- ------------------------------------------------------------------------

CREATE TEMP TABLE before AS SELECT * FROM pg_temp.totals;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1, currency => 'USD')$$);
SELECT status, error FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 5, linked => true), finance.request('b', 'c', 5, linked => true), finance.request('a', 'nobody', 1)]);
SELECT status FROM finance.transfer('a', 'b', 20001);
SELECT status FROM finance.transfer_batch(ARRAY[finance.request('b', 'a', 5, linked => true), finance.request('a', 'b', 20001)]);
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 20001, strict => true)$$);
BEGIN;
SAVEPOINT s;
SELECT status FROM finance.transfer('a', 'b', 7);
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM (SELECT * FROM pg_temp.totals WHERE count > 0 EXCEPT ALL SELECT * FROM before) AS changed;
-- a chain that comes off, after one that does not
SELECT status FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 5, linked => true), finance.request('a', 'b', 20002), finance.request('a', 'b', 6, linked => true), finance.request('a', 'd', 7)]);
SELECT t.measure, t."from", t."to", t.class, t.amount - coalesce(b.amount, 0) AS amount, t.count - coalesce(b.count, 0) AS count
FROM pg_temp.totals t LEFT JOIN before b USING (measure, account_id, other_id)
WHERE t.measure IN ('pair ever', 'account ever') AND t.amount <> coalesce(b.amount, 0) ORDER BY 1, 2, 3;
-- a repeated request counts once
SELECT count(DISTINCT (finance.transfer('c', 'd', 3, idempotency_key => 'once')).id) FROM generate_series(1, 3);
SELECT amount, count FROM pg_temp.totals WHERE measure = 'pair ever' AND "from" = 'c' AND "to" = 'd';
SELECT id AS made FROM finance.transfer('c', 'b', 40) \gset
SELECT status FROM finance.reverse_transfer(:made, reason => 'wrong');
SELECT measure, "from", "to", amount, count FROM pg_temp.totals WHERE measure = 'pair ever' AND ("from", "to") IN (('c', 'b'), ('b', 'c')) ORDER BY 2;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- what is read from the history is what was counted
-- ------------------------------------------------------------------------

SELECT id AS open FROM finance.hold('a', 'b', 50, type => 'rent') \gset
CREATE TEMP TABLE counted AS SELECT * FROM pg_temp.totals;
DELETE FROM finance.risk_total WHERE tenant_id = :tenant;
-- each key again, and nothing more
CREATE TEMP TABLE held AS SELECT h.id
FROM (VALUES ('a', 'b', 'rent'), ('a', 'c', 'transfer'), ('a', 'd', 'transfer'), ('b', 'a', 'transfer'), ('b', 'c', 'transfer'),
	('c', 'd', 'transfer'), ('d', 'c', 'transfer'), ('c', 'b', 'transfer'), ('yen a', 'yen b', 'transfer')) AS v (f, t, y)
CROSS JOIN LATERAL finance.hold(f, t, 1, type => y, metadata => '{"device": "phone"}') AS h;
SELECT count((finance.release(id)).id) FROM held;
SELECT count(*) AS counted, count(*) FILTER (WHERE (r.amount, r.count, r.bucket) IS DISTINCT FROM (c.amount, c.count, c.bucket)) AS differ
FROM counted c JOIN pg_temp.totals r ON (r.measure, r.account_id, r.other_id, coalesce(r.class, '')) = (c.measure, c.account_id, c.other_id, coalesce(c.class, ''));
SELECT * FROM finance.check_integrity();
-- a hold that was made before is given back to what was read
SELECT measure, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" = 'b';
SELECT status FROM finance.release(:open);
SELECT measure, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" = 'b';
-- what is only given back sums up nothing: the history tells it later
BEGIN;
SELECT id AS late FROM finance.hold('a', 'b', 20, type => 'rent') \gset
DELETE FROM finance.risk_total WHERE tenant_id = :tenant;
SELECT status FROM finance.release(:late);
SELECT count(*) AS totals FROM pg_temp.totals;
SELECT status FROM finance.transfer('a', 'b', 1, type => 'rent');
SELECT measure, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" = 'b';
SELECT * FROM finance.check_integrity();
-- but before another that is counted in the same call
SELECT id AS late FROM finance.hold('a', 'b', 20, type => 'rent') \gset
DELETE FROM finance.risk_total WHERE tenant_id = :tenant;
SELECT status FROM finance.transfer_batch(ARRAY[finance.request(action => 'release', hold_id => :late), finance.request('a', 'b', 1, type => 'rent')]);
SELECT measure, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" = 'b';
SELECT * FROM finance.check_integrity();
ROLLBACK;
-- a new measure, and one that is no more
SELECT pg_temp.measure('account', 'month', NULL, 0, 10), pg_temp.measure('counterparty', 'sliding', '30 days');
DELETE FROM finance.risk_measure WHERE tenant_id = :tenant AND (scope, period) = ('account', 'hour');
SELECT status FROM finance.transfer('a', 'b', 1000, metadata => '{"country": "CH"}');
SELECT * FROM pg_temp.of_a();
SELECT measure, "to", amount, count FROM pg_temp.totals WHERE measure = 'counterparty sliding 30 days' OR measure = 'counterparty ever' AND "to" = 'b' ORDER BY 1;
SELECT measure, text FROM pg_temp.totals WHERE "from" = 'a' AND amount IS NULL ORDER BY measure;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- hours, days and months of the tenant's clock
-- ------------------------------------------------------------------------

DELETE FROM finance.risk_measure WHERE tenant_id = :tenant;
SELECT pg_temp.measure('account', 'hour'), pg_temp.measure('account', 'day'), pg_temp.measure('account', 'month'),
	pg_temp.measure('account', 'sliding', '1 day'), pg_temp.measure('account', 'sliding', '1 hour');
SELECT finance.create_account(code, 'EUR', min_available => NULL) > 0 AS made FROM (VALUES ('m'), ('n')) AS v (code);
CREATE FUNCTION pg_temp.at(moment text, amount numeric) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('finance.test_clock', moment, true), finance.transfer('m', 'n', amount);
	PERFORM set_config('finance.test_clock', '2033-01-01 12:00+00', true);
	RETURN (SELECT string_agg(replace(measure, 'account ', '') || ' ' || t.amount, ', ' ORDER BY measure) FROM pg_temp.totals t WHERE "from" = 'm' AND class IS NULL);
END $$;
SELECT n, (moment::timestamptz AT TIME ZONE 'Europe/Berlin') AS berlin, pg_temp.at(moment, amount)
FROM (VALUES (1, '2031-01-31 21:59:59', 1), (2, '2031-01-31 22:59:59.999999', 10), (3, '2031-01-31 23:00:00', 100), (4, '2031-02-01 23:00:00', 1000),
	-- the night in which two o'clock is three
	(5, '2031-03-30 00:59:59', 1), (6, '2031-03-30 01:00:00', 10), (7, '2031-03-30 21:59:59', 100), (8, '2031-03-30 22:00:00', 1000),
	-- the night that has two o'clock twice, and a day of 25 hours
	(9, '2031-10-25 22:00:00', 1), (10, '2031-10-26 00:30:00', 10), (11, '2031-10-26 01:30:00', 100), (12, '2031-10-26 22:59:59', 1000), (13, '2031-10-26 23:00:00', 10000),
	-- a clock that steps back: it is still later
	(14, '2031-10-26 12:00:00', 1), (15, '2031-10-27 23:00:00', 1)) AS v (n, moment, amount) ORDER BY n;
SELECT * FROM finance.check_integrity();
-- what a day is follows the zone
SELECT finance.set_tenant_time_zone(:tenant, 'Pacific/Auckland');
SELECT pg_temp.at('2031-11-10 10:59:59', 1), pg_temp.at('2031-11-10 11:00:00', 10);
SELECT finance.set_tenant_time_zone(:tenant, 'Europe/Berlin');
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- a crowded window: never less than what is in it
-- ------------------------------------------------------------------------

DELETE FROM finance.risk_measure WHERE tenant_id = :tenant;
SELECT pg_temp.measure('account', 'sliding', '32 minutes'), pg_temp.measure('account', 'ever');
SELECT count(pg_temp.at(('2032-01-01 00:00:00'::timestamptz + n * interval '10 seconds')::text, 1)) FROM generate_series(1, 1000) AS n;
SELECT measure, amount >= 192 AS all_of_it, amount <= 198 AS no_more_than_a_cell, count = amount AS counts FROM pg_temp.totals WHERE "from" = 'm' AND measure ~ 'sliding';
SELECT pg_column_size(state) < 1200 AS is_small FROM finance.risk_total WHERE tenant_id = :tenant AND class = '' AND account_id = (SELECT account_id FROM finance.account WHERE tenant_id = :tenant AND code = 'm');
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- a batch reads and writes the row of a key once
-- ------------------------------------------------------------------------

SET finance.test_clock = '2033-01-01 12:00+00';
SELECT pg_temp.measure('pair', 'day'), pg_temp.measure('type', 'day'), pg_temp.measure('counterparty', 'day');
SELECT count(*) FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1), finance.request('b', 'a', 1)]);
BEGIN;
SELECT n_tup_upd AS updated, n_tup_ins AS inserted FROM pg_stat_xact_user_tables WHERE relid = 'finance.risk_total'::regclass \gset
SELECT count(*), count(DISTINCT status) FROM finance.transfer_batch((SELECT array_agg(finance.request(CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END,
	CASE n % 2 WHEN 0 THEN 'b' ELSE 'a' END, n)) FROM generate_series(1, 3000) AS n));
-- two accounts, two payees, two pairs, and a type
SELECT n_tup_upd - :updated AS updated, n_tup_ins - :inserted AS inserted FROM pg_stat_xact_user_tables WHERE relid = 'finance.risk_total'::regclass;
COMMIT;
SELECT measure, "from", "to", class, amount, count FROM pg_temp.totals WHERE "from" = 'a' AND "to" = 'b' OR class = 'EUR transfer' ORDER BY measure;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- written by statements where somebody looks, or it is so set: the same
-- ------------------------------------------------------------------------

SET finance.direct_writes = off;
SELECT status FROM finance.transfer('a', 'd', 5, type => 'rent');
SELECT status FROM finance.transfer('d', 'a', 6, type => 'rent');
SELECT status FROM finance.transfer('a', 'd', 7, type => 'rent');
RESET finance.direct_writes;
SELECT measure, "from", "to", class, amount, count FROM pg_temp.totals WHERE ("from" = 'a' AND "to" = 'd') OR ("from" = 'd' AND "to" = 'a') OR class = 'EUR rent' ORDER BY 1, 2, 3;
SELECT * FROM finance.check_integrity();
-- a trigger that sees each row, one that suppresses it, one that changes it
CREATE TABLE pg_temp.seen (op text);
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('test.look') = 'suppress' THEN
		RETURN NULL;
	ELSIF current_setting('test.look') = 'pay' THEN
		PERFORM set_config('test.look', '', true), finance.transfer('a', 'd', 1);
	END IF;
	INSERT INTO pg_temp.seen VALUES (TG_OP);
	RETURN NEW;
END $$;
CREATE TRIGGER look BEFORE INSERT OR UPDATE ON finance.risk_total FOR EACH ROW EXECUTE FUNCTION look();
SET test.look = '';
SELECT status FROM finance.transfer('a', 'd', 1);
SELECT op, count(*) FROM pg_temp.seen GROUP BY op;
SET test.look = 'suppress';
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'd', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('yen b', 'yen a', 1)$$);
SET test.look = 'pay';
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'd', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('yen b', 'yen a', 1)$$);
DROP TRIGGER look ON finance.risk_total;
SELECT * FROM finance.check_integrity();
-- a transfer that makes another one, of the same keys
CREATE FUNCTION fee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.amount = 77 THEN
		PERFORM finance.transfer('a', 'd', 1), finance.transfer('yen a', 'yen b', 1);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER fee AFTER INSERT ON finance.transfer FOR EACH ROW EXECUTE FUNCTION fee();
CREATE TEMP TABLE until_fee AS SELECT * FROM pg_temp.totals;
SELECT status FROM finance.transfer('a', 'd', 77);
SELECT t.measure, t."from", t."to", t.class, t.amount - u.amount AS amount, t.count - u.count AS count FROM pg_temp.totals t
JOIN until_fee u USING (measure, account_id, other_id) WHERE t.class IS NOT DISTINCT FROM u.class AND t.count > u.count ORDER BY 1, 2, 3;
DROP TRIGGER fee ON finance.transfer;
SELECT * FROM finance.check_integrity();
DROP FUNCTION look(), fee();

-- ------------------------------------------------------------------------
-- imported history counts in the windows that are open
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('old'), ('older')) AS v (code);
SELECT count(*) FROM finance.import_transfers(ARRAY[
	finance.request('old', 'older', 1, recorded_at => '2024-02-03 12:00+00'), finance.request('old', 'older', 10, recorded_at => '2024-02-03 13:00+00'),
	finance.request('old', 'older', 100, recorded_at => '2024-03-03 12:00+00')]);
SELECT measure, "from", "to", amount, count FROM pg_temp.totals WHERE "from" = 'old' OR "to" = 'older' ORDER BY 1, 2, 3;
SELECT * FROM finance.check_integrity();

-- ------------------------------------------------------------------------
-- what is wrong is found
-- ------------------------------------------------------------------------

BEGIN;
UPDATE finance.risk_total SET state = set_byte(state, length(state) - 1, get_byte(state, length(state) - 1) # 1)
WHERE tenant_id = :tenant AND account_id = (SELECT account_id FROM finance.account WHERE tenant_id = :tenant AND code = 'yen a') AND other_id <> 0;
SELECT invariant, regexp_replace(object, '\d{2,}', '<id>', 'g') AS object, expected, found FROM finance.check_integrity();
ROLLBACK;
BEGIN;
UPDATE finance.risk_total SET state = '\x0102ff' WHERE tenant_id = :tenant;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'd', 1)$$);
SELECT pg_temp.attempt($$SELECT * FROM finance.risk_total r, finance._risk_totals(r.state)$$);
ROLLBACK;
SELECT n, pg_temp.attempt(format('SELECT * FROM finance._risk_totals(%L)', state))
FROM (VALUES (1, '\x'), (2, '\x00'), (3, '\x0100'), (4, '\x011300'), (5, '\x010000'), (6, '\x01000001'), (7, '\x010000010900'),
	(8, '\x0100000101020000'), (9, '\x01000001030400ff')) AS v (n, state) ORDER BY n;
SELECT * FROM finance.check_integrity();

-- the rows of one's own tenant
CREATE ROLE meter_auditor;
SELECT finance.grant_access('meter_auditor', 'auditor');
SET ROLE meter_auditor;
SELECT count(*) > 0 AS some, count(DISTINCT tenant_id) AS tenants FROM finance.risk_total;
SELECT count(*) > 0 AS some, count(DISTINCT tenant_id) AS tenants FROM finance.risk_measure;
SELECT pg_temp.attempt('DELETE FROM finance.risk_total');
RESET ROLE;
DROP OWNED BY meter_auditor;
DROP ROLE meter_auditor;
