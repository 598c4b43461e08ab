-- The ledger against a model: random requests, each predicted by a few lines of
-- SQL, and amounts of every scale.
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

SELECT set_config('finance.tenant', finance.create_tenant('ledger')::text, true) \g /dev/null
SELECT setseed(0.20261121) \g /dev/null

-- ------------------------------------------------------------------------
-- amounts: all scales, all lengths, to the last digit
-- ------------------------------------------------------------------------

SELECT finance.create_currency('FINTEST' || s, s), finance.create_account('from ' || s, 'FINTEST' || s, min_available => NULL),
	finance.create_account('to ' || s, 'FINTEST' || s) FROM generate_series(0, 18) AS s \g /dev/null

-- a number of so many digits, the last of them not nought
CREATE FUNCTION pg_temp.number(digits integer, scale integer) RETURNS numeric LANGUAGE sql VOLATILE AS $$
	SELECT (string_agg(CASE n WHEN 1 THEN 1 + floor(random() * 9) WHEN digits THEN 1 + floor(random() * 9) ELSE floor(random() * 10) END::text, '' ORDER BY n)
		|| 'e-' || scale)::numeric FROM generate_series(1, digits) AS n $$;

-- each there and back, so that totals grow but balances do not
CREATE TEMP TABLE moved AS
SELECT v.s, v.digits, v.amount, there, back FROM (
	SELECT s, digits, pg_temp.number(digits, s) AS amount FROM generate_series(0, 18) AS s, generate_series(1, 36) AS digits OFFSET 0) AS v
	CROSS JOIN LATERAL finance.transfer('from ' || v.s, 'to ' || v.s, v.amount) AS there
	CROSS JOIN LATERAL finance.transfer('to ' || v.s, 'from ' || v.s, there.amount) AS back;
SELECT is(count(*)::integer, 19 * 36, 'amounts of all scales and lengths') FROM moved;
SELECT is_empty('SELECT * FROM moved WHERE (there).amount <> amount OR (there).amount::text <> round(amount, s)::text
	OR scale((there).amount) <> s', 'come back as they went, in the scale of the currency');
SELECT is_empty('SELECT * FROM moved WHERE (there).from_balance <> -amount OR (there).to_balance <> amount
	OR (back).from_balance <> 0 OR (back).to_balance <> 0', 'and balances are exact');
SELECT is_empty($$SELECT s FROM moved JOIN finance.account a ON a.code = 'from ' || s AND a.tenant_id = current_setting('finance.tenant')::integer
	GROUP BY s, a.debits_posted, a.credits_posted HAVING a.debits_posted <> sum(amount) OR a.credits_posted <> sum(amount)$$, 'so are totals');
SELECT is_empty('SELECT m.* FROM moved m JOIN finance.transfer t ON t.id = (m.there).id WHERE t.amount::numeric::text <> (m.there).amount::text',
	'so are the rows');

-- the same held, captured but for the last unit, and captured for the rest: nothing is left behind
CREATE TEMP TABLE held AS
SELECT v.s, v.amount, v.amount - ('1e-' || v.s)::numeric AS part, h AS hold, c AS capture, f AS rest, b AS back FROM (
	SELECT s, pg_temp.number(digits, s) AS amount FROM generate_series(0, 18) AS s, generate_series(2, 36) AS digits OFFSET 0) AS v
	CROSS JOIN LATERAL finance.hold('from ' || v.s, 'to ' || v.s, v.amount) AS h
	CROSS JOIN LATERAL finance.capture(h.hold_id, v.amount - ('1e-' || v.s)::numeric) AS c
	CROSS JOIN LATERAL finance.capture(c.hold_id) AS f
	CROSS JOIN LATERAL finance.transfer('to ' || v.s, 'from ' || v.s, NULL, amount_mode => CASE WHEN f.status = 'completed' THEN 'up_to' END) AS b;
SELECT is(count(*)::integer, 19 * 35, 'holds of all scales and lengths') FROM held;
SELECT is_empty('SELECT * FROM held WHERE (hold).amount <> amount OR (hold).hold_remaining <> amount OR (hold).from_available <> -amount OR (hold).from_balance <> 0
	OR (capture).amount <> part OR (capture).hold_remaining <> amount - part OR (capture).from_balance <> -part OR (capture).from_available <> -amount
	OR (rest).amount <> amount - part OR (rest).hold_remaining <> 0 OR (rest).from_available <> -amount OR (rest).to_balance <> amount
	OR (back).amount <> amount OR (back).to_balance <> 0', 'are captured to the last unit, and everything goes back');
SELECT is_empty('SELECT * FROM held JOIN finance.hold h ON h.hold_id = (held.hold).hold_id WHERE (h.status, h.amount, h.captured, h.released, h.remaining) <> (''captured'', held.amount, held.amount, 0, 0)',
	'so say their rows');
SELECT is_empty($$SELECT code FROM finance.account WHERE tenant_id = current_setting('finance.tenant')::integer AND (debits_pending <> 0 OR credits_pending <> 0)$$, 'and nothing is pending');

-- one decimal more than the currency has is refused, whatever the number
CREATE FUNCTION pg_temp.state(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN '00000';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT is_empty($$SELECT s, amount FROM (SELECT s, pg_temp.number(digits, s + 1) AS amount FROM generate_series(0, 18) AS s, generate_series(1, 36) AS digits OFFSET 0) AS v
	WHERE pg_temp.state(format('SELECT finance.transfer(%L, %L, %s)', 'from ' || s, 'to ' || s, amount)) <> '22003'$$, 'a decimal too many is refused');
-- the largest there is, and the next; on accounts whose totals are still nothing
SELECT finance.create_account(side || s, 'FINTEST' || s, min_available => NULL) FROM generate_series(0, 18) AS s, unnest('{"last from ", "last to "}'::text[]) AS side \g /dev/null
SELECT is(pg_temp.state(format('SELECT finance.transfer(%L, %L, 1e%s)', 'last from ' || s, 'last to ' || s, 38 - s)), '22003', 'scale ' || s || ': 39 digits are refused')
	FROM generate_series(0, 18) AS s;
SELECT is((finance.transfer('last from ' || s, 'last to ' || s, ('1e' || 38 - s)::numeric - ('1e-' || s)::numeric)).to_balance::text,
	rpad('', 38 - s, '9') || CASE WHEN s > 0 THEN '.' || rpad('', s, '9') ELSE '' END, 'scale ' || s || ': 38 are not') FROM generate_series(0, 18) AS s;

-- ------------------------------------------------------------------------
-- 3,000 random requests against a model
-- ------------------------------------------------------------------------

CREATE TEMP TABLE model (code text PRIMARY KEY, currency text, scale integer, balance numeric DEFAULT 0, version bigint DEFAULT 0,
	floor numeric, ceiling numeric, status text DEFAULT 'active');
INSERT INTO model (code, currency, scale, floor, ceiling) VALUES
	('source eur', 'EUR', 2, NULL, NULL), ('e1', 'EUR', 2, 0, NULL), ('e2', 'EUR', 2, -50, 300), ('e3', 'EUR', 2, 0, 100), ('e4', 'EUR', 2, NULL, 0),
	('source jpy', 'JPY', 0, NULL, NULL), ('j1', 'JPY', 0, 0, NULL), ('j2', 'JPY', 0, -1000, 1000),
	('source kwd', 'KWD', 3, NULL, NULL), ('k1', 'KWD', 3, 0, 50);
SELECT finance.create_account(code, currency, min_available => floor, max_balance => ceiling) FROM model \g /dev/null
SELECT finance.add_rule('limit', 'transfer_limit', 80), finance.add_rule('limit of e1', 'transfer_limit', 20, account => 'e1') \g /dev/null
CREATE TEMP TABLE request (key text PRIMARY KEY, from_code text, to_code text, amount numeric, answer finance.transfer_result);
CREATE TEMP TABLE outcome (n integer, what text, expected text, found text);

-- the SQLSTATE or status that the rules of the ledger ask for
CREATE FUNCTION pg_temp.predict(f model, t model, amount numeric, version bigint) RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN f.code = t.code THEN 'LG008'
		WHEN amount = 'NaN' OR scale(trim_scale(amount)) > f.scale THEN '22003'
		WHEN amount <= 0 THEN '22023'
		WHEN f.currency <> t.currency THEN 'LG003'
		WHEN f.status <> 'active' OR t.status <> 'active' THEN 'LG004'
		WHEN version <> f.version THEN 'LG005'
		WHEN f.balance - amount < f.floor THEN 'LG001'
		WHEN t.balance + amount > t.ceiling THEN 'LG006'
		WHEN amount > 80 OR f.code = 'e1' AND amount > 20 THEN 'rejected'
		ELSE 'completed'
	END $$;

CREATE FUNCTION pg_temp.transfer_once(n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	f model;
	t model;
	amount numeric;
	version bigint;
	key text := CASE WHEN random() < 0.5 THEN 'key ' || n END;
	expected text;
	found text;
	answer finance.transfer_result;
BEGIN
	SELECT * INTO f FROM model ORDER BY random() LIMIT 1;
	-- mostly of the same currency
	SELECT * INTO t FROM model ORDER BY CASE WHEN currency = f.currency THEN random() ELSE random() + 0.7 END LIMIT 1;
	amount := CASE floor(random() * 20) WHEN 0 THEN 0 WHEN 1 THEN -1 WHEN 2 THEN 'NaN' WHEN 3 THEN round((random() * 10)::numeric, 4)
		ELSE round((random() * 100)::numeric, f.scale) END;
	version := CASE floor(random() * 6) WHEN 0 THEN f.version WHEN 1 THEN f.version + 1 WHEN 2 THEN greatest(f.version - 1, 0) END;
	expected := pg_temp.predict(f, t, amount, version);
	BEGIN
		answer := finance.transfer(f.code, t.code, amount, idempotency_key => key, expected_from_version => version);
		found := answer.status;
	EXCEPTION WHEN OTHERS THEN
		found := SQLSTATE;
	END;
	INSERT INTO outcome VALUES (n, format('transfer of %s from %s to %s', amount, f.code, t.code), expected, found);
	IF found IN ('completed', 'rejected') THEN
		IF found = 'completed' THEN
			UPDATE model m SET balance = m.balance - amount, version = m.version + 1 WHERE m.code = f.code;
			UPDATE model m SET balance = m.balance + amount, version = m.version + 1 WHERE m.code = t.code;
		END IF;
		INSERT INTO outcome SELECT n, 'answer', format('%s %s %s %s', a.balance, CASE found WHEN 'completed' THEN a.version END, b.balance, CASE found WHEN 'completed' THEN b.version END),
			format('%s %s %s %s', answer.from_balance, answer.from_version, answer.to_balance, answer.to_version)
			FROM model a, model b WHERE a.code = f.code AND b.code = t.code
			AND ((answer.from_balance, answer.to_balance) <> (a.balance, b.balance)
				OR (answer.from_version, answer.to_version) IS DISTINCT FROM (CASE found WHEN 'completed' THEN a.version END, CASE found WHEN 'completed' THEN b.version END));
		IF key IS NOT NULL THEN
			INSERT INTO request VALUES (key || coalesce(' v' || version, ''), f.code, t.code, amount, answer);
		END IF;
	END IF;
END $$;

CREATE FUNCTION pg_temp.replay_once(n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r request;
	answer finance.transfer_result;
BEGIN
	SELECT * INTO r FROM request ORDER BY random() LIMIT 1;
	IF r.key IS NULL THEN
		RETURN;
	END IF;
	answer := finance.transfer(r.from_code, r.to_code, r.amount, idempotency_key => regexp_replace(r.key, ' v\d+$', ''),
		expected_from_version => substring(r.key FROM ' v(\d+)$')::bigint);
	INSERT INTO outcome VALUES (n, 'replay', (to_jsonb(r.answer) || '{"replayed": true}')::text, to_jsonb(answer)::text);
END $$;

CREATE FUNCTION pg_temp.change_once(n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	m model;
	wanted text := (ARRAY['active', 'active', 'active', 'frozen', 'closed'])[1 + floor(random() * 5)];
	new_floor numeric := CASE WHEN random() < 0.7 THEN round((random() * 100 - 60)::numeric) END;
	new_ceiling numeric := CASE WHEN random() < 0.7 THEN round((random() * 400)::numeric) END;
	expected text;
	found text;
BEGIN
	SELECT * INTO m FROM model WHERE code NOT LIKE 'source%' ORDER BY random() LIMIT 1;
	IF random() < 0.5 THEN
		expected := CASE WHEN m.status = wanted THEN m.version::text WHEN m.status = 'closed' THEN 'LG004'
			WHEN wanted = 'closed' AND m.balance <> 0 THEN '55000' ELSE (m.version + 1)::text END;
		BEGIN
			found := finance.set_account_status(m.code, wanted);
			UPDATE model SET status = wanted, version = found::bigint WHERE code = m.code;
		EXCEPTION WHEN OTHERS THEN
			found := SQLSTATE;
		END;
	ELSE
		expected := CASE WHEN m.status = 'closed' THEN 'LG004' WHEN m.balance < new_floor OR m.balance > new_ceiling THEN 'LG006' ELSE (m.version + 1)::text END;
		BEGIN
			found := finance.set_account_limits(m.code, new_floor, new_ceiling);
			UPDATE model SET floor = new_floor, ceiling = new_ceiling, version = found::bigint WHERE code = m.code;
		EXCEPTION WHEN OTHERS THEN
			found := SQLSTATE;
		END;
	END IF;
	INSERT INTO outcome VALUES (n, format('change of %s', m.code), expected, found);
END $$;

-- one in eight is rolled back after it was done; rows are written both ways
DO $$
DECLARE
	kind double precision;
BEGIN
	FOR n IN 1 .. 3000 LOOP
		BEGIN
			PERFORM set_config('finance.direct_writes', (random() < 0.5)::text, true);
			kind := random();
			IF kind < 0.8 THEN
				PERFORM pg_temp.transfer_once(n);
			ELSIF kind < 0.95 THEN
				PERFORM pg_temp.replay_once(n);
			ELSE
				PERFORM pg_temp.change_once(n);
			END IF;
			IF random() < 0.125 THEN
				RAISE EXCEPTION SQLSTATE 'XX995';
			END IF;
		EXCEPTION WHEN SQLSTATE 'XX995' THEN
		END;
	END LOOP;
END $$;

SELECT is_empty('SELECT * FROM outcome WHERE expected IS DISTINCT FROM found ORDER BY n LIMIT 10', 'every request ends as the model says');
SELECT cmp_ok((SELECT count(*) FROM outcome WHERE found = what.state), '>', 0::bigint, 'some ended in ' || what.state)
	FROM unnest('{completed, rejected, 22003, 22023, LG001, LG003, LG004, LG005, LG006, LG008, 55000}'::text[]) AS what (state);
SELECT cmp_ok((SELECT count(*) FROM outcome WHERE what = 'replay'), '>', 100::bigint, 'many were replayed');
SELECT results_eq($$SELECT m.code, m.balance, m.version, m.floor, m.ceiling, m.status FROM model m ORDER BY code COLLATE "C"$$,
	$$SELECT a.code, a.balance, a.version, a.min_available, a.max_balance, a.status FROM finance.account a JOIN model m USING (code)
		WHERE a.tenant_id = current_setting('finance.tenant')::integer ORDER BY code COLLATE "C"$$, 'and accounts are where it says');

-- ------------------------------------------------------------------------
-- what must hold of any history
-- ------------------------------------------------------------------------

SELECT is_empty('SELECT * FROM finance.check_integrity()', 'all invariants hold');
SELECT is_empty($$SELECT currency FROM finance.account WHERE tenant_id = current_setting('finance.tenant')::integer GROUP BY currency HAVING sum(balance) <> 0$$, 'money is neither made nor lost');
SELECT is_empty($$SELECT * FROM (SELECT account_id, version, transfer_id, lag(transfer_id) OVER w AS previous, balance, change, lag(balance, 1, 0) OVER w AS balance_before
		FROM finance.entry WHERE tenant_id = current_setting('finance.tenant')::integer WINDOW w AS (PARTITION BY account_id ORDER BY version)) AS e
	WHERE previous >= transfer_id OR balance <> balance_before + change$$, 'histories run on, in the order of ids');
SELECT is_empty($$SELECT t.id FROM finance.transfer t FULL JOIN finance.audit_record r ON r.tenant_id = t.tenant_id AND r.transfer_id = t.id
	WHERE coalesce(t.tenant_id, r.tenant_id) = current_setting('finance.tenant')::integer AND coalesce(r.operation, 'transfer') = 'transfer'
		AND (t.id IS NULL OR r.id IS NULL OR r.amount <> t.amount::numeric OR r.balance_after <> t.from_balance OR r.counterparty_balance_after <> t.to_balance
			OR r.balance_before <> r.balance_after + CASE t.status WHEN 'completed' THEN r.amount ELSE 0 END
			OR r.counterparty_balance_before <> r.counterparty_balance_after - CASE t.status WHEN 'completed' THEN r.amount ELSE 0 END)$$,
	'each transfer has its audit record, of the same balances');
SELECT is_empty($$SELECT t.id FROM finance.transfer t LEFT JOIN finance.risk_decision d ON d.tenant_id = t.tenant_id AND d.transfer_id = t.id
	WHERE t.tenant_id = current_setting('finance.tenant')::integer AND (t.status = 'rejected') <> (d.transfer_id IS NOT NULL)$$,
	'each rejected transfer, and no other, has decisions');
SELECT is((SELECT spent FROM finance._account WHERE code = m.code AND tenant_id = current_setting('finance.tenant')::integer),
	coalesce((SELECT sum(amount) FROM finance.entry e JOIN finance.account a USING (tenant_id, account_id)
		WHERE a.code = m.code AND a.tenant_id = current_setting('finance.tenant')::integer AND e.side = 'debit'
			AND (e.recorded_at AT TIME ZONE 'UTC')::date = (SELECT spent_on FROM finance._account WHERE code = m.code AND tenant_id = current_setting('finance.tenant')::integer)), 0),
	m.code || ': the counter of the day is what was paid on it') FROM model m ORDER BY code;

SELECT * FROM finish();
ROLLBACK;
