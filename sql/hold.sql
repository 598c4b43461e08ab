-- Holds: reserved, captured in parts, released, expired; and all that is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('hold test') AS tenant \gset
SET finance.tenant = :tenant;
SET finance.test_clock = '2050-03-01 12:00+00';

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, '')),
		'\m\d{17,19}\M', '<id>', 'g');
END $$;

CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, _hold, idempotency_key,
		ruleset, risk_decision, risk_total, audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

CREATE TEMP VIEW purse AS
SELECT code, status, balance, held, available, credits_pending, version FROM finance.account WHERE tenant_id = :tenant;

SELECT count(finance.create_account(code, currency, min_available => least))
FROM (VALUES ('bank', 'EUR', NULL), ('shop', 'EUR', 0), ('ann', 'EUR', 0), ('ben', 'EUR', 0), ('yen', 'JPY', 0)) AS v (code, currency, least);
SELECT finance.create_queue('events');
SELECT finance.bind_topic('#', 'events');
SELECT to_balance FROM finance.transfer('bank', 'ann', 100);

-- ------------------------------------------------------------------------
-- reserve, capture in parts, give the rest back
-- ------------------------------------------------------------------------

SELECT id AS hold, hold_id = id AS named, status, amount, currency, from_account, from_version, from_balance, from_available,
	to_account, to_version, to_balance, to_available, hold_remaining, rule, replayed
FROM finance.hold('ann', 'shop', 60, expires_in => '1 hour', type => 'payment', hold_group => 'order 7', reference => 'r', metadata => '{"x": 1}') \gset h_
SELECT :'h_named' AS named, :'h_status' AS status, :h_amount AS amount, :h_from_balance AS from_balance, :h_from_available AS from_available,
	:h_to_balance AS to_balance, :h_to_available AS to_available, :h_hold_remaining AS remaining, :'h_replayed' AS replayed;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
SELECT status, amount, captured, released, remaining, expires_at AT TIME ZONE 'UTC' AS expires_at, type, hold_group, held_at = finance.id_time(hold_id) AS held_at
FROM finance.hold WHERE hold_id = :h_hold;

SELECT id <> hold_id AS of_its_own, hold_id = :h_hold AS of_it, status, amount, from_balance, from_available, to_balance, to_available, hold_remaining
FROM finance.capture(:h_hold, 20);
SELECT status, amount, from_balance, from_available, to_balance, hold_remaining FROM finance.release(:h_hold, 5);
SELECT status, amount, captured, released, remaining FROM finance.hold WHERE hold_id = :h_hold;
SELECT status, amount, from_balance, from_available, to_balance, hold_remaining FROM finance.capture(:h_hold, 10, final => true);
SELECT status, amount, captured, released, remaining FROM finance.hold WHERE hold_id = :h_hold;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
SELECT type, status, amount, released, from_held, to_held, from_balance, to_balance FROM finance.transfer WHERE hold_id = :h_hold ORDER BY id;

-- all that remains, of both kinds; no end
SELECT id FROM finance.hold('ann', 'shop', 10) \gset h1_
SELECT expires_at, status, type, hold_group FROM finance.hold WHERE hold_id = :h1_id;
SELECT status, amount, hold_remaining FROM finance.capture(:h1_id);
SELECT id FROM finance.hold('ann', 'shop', 10) \gset h2_
SELECT status, amount, hold_remaining FROM finance.release(:h2_id);
SELECT id FROM finance.hold('ann', 'shop', 10) \gset h3_
SELECT status, amount, hold_remaining FROM finance.capture(:h3_id, 4);
SELECT status, amount, hold_remaining FROM finance.release(:h3_id);
SELECT id FROM finance.hold('ann', 'shop', 10) \gset h4_
SELECT status, amount, hold_remaining FROM finance.capture(:h4_id, final => true);
SELECT status, captured, released, remaining FROM finance.hold WHERE hold_id IN (:h1_id, :h2_id, :h3_id, :h4_id) ORDER BY hold_id;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;

-- a message and a record for each
SELECT m.payload->>'type' AS topic, m.payload->'payload'->>'status' AS status, m.payload->'payload'->>'amount' AS amount,
	m.payload->'payload'->>'hold_id' = :'h_hold' AS of_it, r.operation, r.status, r.amount
FROM finance.message m JOIN finance.audit_record r ON r.tenant_id = m.tenant_id AND r.message_id = m.message_id
WHERE m.tenant_id = :tenant AND m.payload->'payload'->>'hold_id' = :'h_hold' ORDER BY m.msg_id;

-- ------------------------------------------------------------------------
-- more than there is, and what is over
-- ------------------------------------------------------------------------

SELECT id FROM finance.hold('ann', 'shop', 30, expires_in => '10 minutes') \gset open_
SELECT id FROM finance.hold('ann', 'shop', 10, expires_in => '1 minute') \gset over_
SELECT hold_remaining FROM finance.capture(:over_id, 3);
SELECT * FROM purse WHERE code = 'ann';
SET finance.test_clock = '2050-03-01 12:01+00';
SELECT pg_temp.book() AS book \gset
CREATE TEMP TABLE wrong (n serial, what text, statement text);
INSERT INTO wrong (what, statement) VALUES
	('more than is left', format('SELECT finance.capture(%s, 30.01)', :'open_id')),
	('the same to release', format('SELECT finance.release(%s, 31)', :'open_id')),
	('captured', format('SELECT finance.capture(%s)', :'h1_id')),
	('captured, to release', format('SELECT finance.release(%s)', :'h1_id')),
	('released', format('SELECT finance.capture(%s, 1)', :'h2_id')),
	('released, again', format('SELECT finance.release(%s)', :'h2_id')),
	('captured finally', format('SELECT finance.capture(%s, 1)', :'h_hold')),
	('over, worker or no worker', format('SELECT finance.capture(%s, 1)', :'over_id')),
	('unknown', 'SELECT finance.capture(123456789012345678)'),
	('unknown, to release', 'SELECT finance.release(0)'),
	('no hold but a transfer', format('SELECT finance.capture(%s)', (SELECT min(id) FROM finance.transfer WHERE tenant_id = :tenant))),
	('no hold_id', 'SELECT finance.capture(NULL)'),
	('no hold_id, to release', 'SELECT finance.release(NULL)'),
	('zero', format('SELECT finance.capture(%s, 0)', :'open_id')),
	('negative', format('SELECT finance.release(%s, -1)', :'open_id')),
	('NaN', format('SELECT finance.capture(%s, ''NaN'')', :'open_id')),
	('too many decimals', format('SELECT finance.capture(%s, 1.001)', :'open_id')),
	('long key', format('SELECT finance.capture(%s, 1, idempotency_key => repeat(''k'', 256))', :'open_id')),
	('empty key', format('SELECT finance.release(%s, 1, idempotency_key => '''')', :'open_id')),
	('long reference', format('SELECT finance.release(%s, 1, reference => repeat(''r'', 1025))', :'open_id')),
	('endless effective_at', format('SELECT finance.capture(%s, 1, effective_at => ''infinity'')', :'open_id')),
	('no from_account', $$SELECT finance.hold(NULL, 'shop', 1)$$),
	('no to_account', $$SELECT finance.hold('ann', NULL, 1)$$),
	('no amount', $$SELECT finance.hold('ann', 'shop', NULL)$$),
	('amount of zero', $$SELECT finance.hold('ann', 'shop', 0)$$),
	('amount below zero', $$SELECT finance.hold('ann', 'shop', -1)$$),
	('amount endless', $$SELECT finance.hold('ann', 'shop', 'Infinity')$$),
	('amount of 39 digits', $$SELECT finance.hold('bank', 'shop', 1e37)$$),
	('not enough', $$SELECT finance.hold('ann', 'shop', 1000)$$),
	('unknown account', $$SELECT finance.hold('nobody', 'shop', 1)$$),
	('the other unknown', $$SELECT finance.hold('ann', 'nobody', 1)$$),
	('one account', $$SELECT finance.hold('ann', 'ann', 1)$$),
	('two currencies', $$SELECT finance.hold('ann', 'yen', 1)$$),
	('another currency', $$SELECT finance.hold('ann', 'shop', 1, currency => 'JPY')$$),
	('another version', $$SELECT finance.hold('ann', 'shop', 1, expected_from_version => 0)$$),
	('the other''s version', $$SELECT finance.hold('ann', 'shop', 1, expected_to_version => 0)$$),
	('a negative version', $$SELECT finance.hold('ann', 'shop', 1, expected_to_version => -1)$$),
	('no time', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '0')$$),
	('less than no time', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '-1 second')$$),
	('no time in sum', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '1 day -24 hours')$$),
	('more time than anybody has', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '1000 years 1 day')$$),
	('less time than there ever was', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '-178000000 years')$$),
	('more time than there is', $$SELECT finance.hold('ann', 'shop', 1, expires_in => '300000 years')$$),
	('long group', $$SELECT finance.hold('ann', 'shop', 1, hold_group => repeat('g', 129))$$),
	('empty group', $$SELECT finance.hold('ann', 'shop', 1, hold_group => '')$$),
	('long type', $$SELECT finance.hold('ann', 'shop', 1, type => repeat('t', 64))$$),
	('long code', $$SELECT finance.hold(repeat('a', 129), 'shop', 1)$$),
	('long key of a hold', $$SELECT finance.hold('ann', 'shop', 1, idempotency_key => repeat('k', 256))$$),
	('control characters', $$SELECT finance.hold('ann', 'shop', 1, reference => E'a\tb')$$),
	('unknown mode', $$SELECT finance.hold('ann', 'shop', 1, amount_mode => 'about')$$),
	('limit of null', 'SELECT finance.expire_holds(NULL)'),
	('limit of zero', 'SELECT finance.expire_holds(0)'),
	('limit above the most', 'SELECT finance.expire_holds(10001)');
\pset format unaligned
SELECT what, pg_temp.attempt(statement) AS result FROM wrong ORDER BY n;
\pset format aligned
SELECT pg_temp.book() = :'book' AS nothing_changed;

-- in a batch the same, as answers
SELECT position, error, regexp_replace(message, '\m\d{17,19}\M', '<id>') AS message, status FROM finance.transfer_batch(ARRAY[
	finance.request(action => 'capture', hold_id => :over_id, amount => 1),
	finance.request(action => 'release', hold_id => :open_id, amount => 31),
	finance.request(action => 'release', hold_id => :open_id, final => true),
	finance.request(action => 'capture', hold_id => :open_id, hold_group => 'g'),
	finance.request(action => 'capture', hold_id => :open_id, amount => 1, amount_mode => 'up_to'),
	finance.request('ann', 'shop', 1, hold_id => :open_id, action => 'hold'),
	finance.request('ann', 'shop', 1, action => 'hold', expires_in => '300000 years'),
	finance.request('ann', 'shop', 1, action => 'hold', expires_in => '0'),
	finance.request('ann', 'shop', 1, action => 'seize')]);
SELECT pg_temp.book() = :'book' AS nothing_changed;

-- ------------------------------------------------------------------------
-- over: every reader sees it, and expire_holds() gives it back
-- ------------------------------------------------------------------------

SELECT status, amount, captured, released, remaining FROM finance.hold WHERE hold_id IN (:open_id, :over_id) ORDER BY hold_id;
SELECT status FROM finance._hold WHERE hold_id = :over_id;
SELECT finance.expire_holds() AS expired;
SELECT finance.expire_holds() AS expired;
SELECT status, captured, released, remaining FROM finance.hold WHERE hold_id = :over_id;
SELECT type, status, amount, released, from_held FROM finance.transfer WHERE hold_id = :over_id ORDER BY id;
SELECT operation, status, amount, actor = session_user AS by_us FROM finance.audit_record WHERE tenant_id = :tenant ORDER BY id DESC LIMIT 1;
SELECT payload->>'type' AS topic, payload->'payload'->>'amount' AS amount FROM finance.message WHERE tenant_id = :tenant ORDER BY msg_id DESC LIMIT 1;
SELECT pg_temp.attempt(format('SELECT finance.capture(%s)', :over_id));
SELECT pg_temp.attempt(format('SELECT finance.release(%s)', :over_id));
SELECT * FROM purse WHERE code = 'ann';

-- whoever releases what is over has seen it expire
SET finance.test_clock = '2050-03-01 13:00+00';
SELECT status, amount, hold_remaining FROM finance.release(:open_id);
SELECT operation, status FROM finance.audit_record WHERE tenant_id = :tenant ORDER BY id DESC LIMIT 1;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;

-- the limit; first those that ended first; others' not at all
SELECT count(*) FROM generate_series(1, 5) AS n CROSS JOIN LATERAL finance.hold('ann', 'shop', n, expires_in => make_interval(mins => 10 - n));
SELECT finance.create_tenant('hold test, the other') AS other \gset
SET finance.tenant = :other;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM (VALUES ('ann'), ('shop')) AS v (code);
SELECT status FROM finance.hold('ann', 'shop', 1000, expires_in => '1 second');
SET finance.tenant = :tenant;
SET finance.test_clock = '2050-03-01 14:00+00';
SELECT finance.expire_holds(2) AS expired;
SELECT amount, status FROM finance._hold WHERE tenant_id = :tenant ORDER BY hold_id DESC LIMIT 5;
SELECT finance.expire_holds("limit" => 10000) AS expired;
SELECT count(*), string_agg(DISTINCT status, ' ') AS status FROM finance._hold WHERE tenant_id = :other;
SET finance.tenant = :other;
SELECT finance.expire_holds() AS expired;
SELECT from_balance, from_available FROM finance.transfer('ann', 'shop', 1);
SET finance.tenant = :tenant;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;

-- more than a batch at once
SELECT count(*) FROM generate_series(1, 250) AS n CROSS JOIN LATERAL finance.hold('bank', 'shop', 1, expires_in => '1 minute', reference => n::text);
SET finance.test_clock = '2050-03-01 14:02+00';
SELECT finance.expire_holds() AS expired;
SELECT held, credits_pending FROM purse WHERE code IN ('bank', 'shop') ORDER BY code;

-- ------------------------------------------------------------------------
-- held money is not there for anything else, until it is over
-- ------------------------------------------------------------------------

SELECT available AS free FROM purse WHERE code = 'ann' \gset
SELECT id AS id, from_available AS left FROM finance.hold('ann', 'shop', :free, expires_in => '1 hour') \gset all_
SELECT :all_left AS left;
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'ben', 0.01)$$);
SELECT pg_temp.attempt($$SELECT finance.hold('ann', 'ben', 0.01)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'ben', 5, amount_mode => 'up_to')$$);
-- what is over is no hindrance, worker or no worker
SET finance.test_clock = '2050-03-01 15:02+00';
SELECT status, amount, from_available FROM finance.transfer('ann', 'ben', 0.01);
SELECT status FROM finance.hold WHERE hold_id = :all_id;
SELECT status FROM finance._hold WHERE hold_id = :all_id;
SELECT status FROM finance.transfer('ben', 'ann', 0.01);
-- also not to moving as much as possible
SELECT id FROM finance.hold('ann', 'shop', 10, expires_in => '1 hour') \gset part_
SELECT amount, from_available FROM finance.hold('ann', 'ben', :free, amount_mode => 'up_to') AS h;
SELECT status FROM finance.release((SELECT max(hold_id) FROM finance._hold WHERE tenant_id = :tenant));
SET finance.test_clock = '2050-03-01 17:00+00';
SELECT amount = :free AS all, from_available FROM finance.transfer('ann', 'ben', NULL, amount_mode => 'up_to');
SELECT amount = :free AS all FROM finance.transfer('ben', 'ann', NULL, amount_mode => 'up_to');
-- nor below a ceiling, nor in a batch
SELECT finance.set_account_limits('ben', 0, 50) > 0 AS set;
SELECT status FROM finance.hold('bank', 'ben', 50, expires_in => '1 minute');
SELECT pg_temp.attempt($$SELECT finance.hold('bank', 'ben', 0.01)$$);
SET finance.test_clock = '2050-03-01 17:02+00';
SELECT position, error, status, amount FROM finance.transfer_batch(ARRAY[
	finance.request('bank', 'ben', 50, action => 'hold', expires_in => '1 minute'),
	finance.request('bank', 'ben', 1),
	finance.request('bank', 'shop', 1)]);
SET finance.test_clock = '2050-03-01 17:04+00';
SELECT status, amount FROM finance.transfer('bank', 'ben', 51, amount_mode => 'up_to');
SELECT status FROM finance.transfer('ben', 'bank', 50);
SELECT finance.set_account_limits('ben', 0, NULL) > 0 AS set;
SELECT sum(held) AS held, sum(credits_pending) AS pending FROM purse;

-- ------------------------------------------------------------------------
-- limits count what is held
-- ------------------------------------------------------------------------

SELECT status, from_available, id FROM finance.hold('ann', 'ben', 20) \gset l_
SELECT pg_temp.attempt($$SELECT finance.set_account_limits('ann', 30, NULL)$$) LIKE 'LG006%' AS floor_refused;
SELECT pg_temp.attempt($$SELECT finance.set_account_limits('ben', 0, 19.99)$$) LIKE 'LG006%' AS ceiling_refused;
SELECT finance.set_account_limits('ben', 0, 20) > 0 AS set;
SELECT pg_temp.attempt($$SELECT finance.transfer('bank', 'ben', 0.01)$$);
SELECT status, to_balance FROM finance.capture(:l_id);
SELECT finance.set_account_limits('ben', 0, NULL) > 0 AS set;

-- a daily limit counts what is held on the day it is, and forgets what is given back the same day
SELECT finance.add_rule('day', 'daily_limit', 1000, account => 'bank');
SET finance.test_clock = '2050-03-02 10:00+00';
SELECT status, rule, id FROM finance.hold('bank', 'ann', 700) \gset d_
SELECT status, rule FROM finance.hold('bank', 'ann', 301);
SELECT status, rule FROM finance.transfer('bank', 'ann', 301);
SELECT status FROM finance.release(:d_id, 100);
SELECT status, rule FROM finance.transfer('bank', 'ann', 301);
SELECT status FROM finance.capture(:d_id, 100, final => true);
SELECT status, rule FROM finance.transfer('bank', 'ann', 600);
SELECT status, rule FROM finance.transfer('bank', 'ann', 599);
SELECT pg_temp.attempt($$SELECT finance.hold('bank', 'ann', 1, strict => true)$$);
-- a rejected hold is none
SELECT count(*) FROM finance._hold h JOIN finance.transfer t ON t.tenant_id = h.tenant_id AND t.id = h.hold_id WHERE t.status = 'rejected';
SELECT status, from_version IS NULL AS no_version, hold_id FROM finance.transfer WHERE tenant_id = :tenant AND status = 'rejected' ORDER BY id LIMIT 1;
-- what was held yesterday and is captured or given back today is yesterday's
SET finance.test_clock = '2050-03-03 10:00+00';
SELECT id FROM finance.hold('bank', 'ann', 900) \gset y_
SET finance.test_clock = '2050-03-04 10:00+00';
SELECT status FROM finance.capture(:y_id, 400);
SELECT status FROM finance.release(:y_id);
SELECT status, rule FROM finance.transfer('bank', 'ann', 1000);
SELECT status, rule FROM finance.transfer('bank', 'ann', 0.01);
SELECT finance.remove_rule('day');

-- ------------------------------------------------------------------------
-- frozen accounts hold and capture nothing, but give back; closed ones have no holds
-- ------------------------------------------------------------------------

SELECT id FROM finance.hold('ann', 'ben', 10, expires_in => '1 hour') \gset f_
SELECT s.status, finance.set_account_status('ann', s.status) > 0 AS set, pg_temp.attempt($$SELECT finance.hold('ann', 'ben', 1)$$) AS hold,
	pg_temp.attempt(format('SELECT finance.capture(%s, 1)', :f_id)) AS capture
FROM (VALUES (1, 'frozen'), (2, 'debits_frozen'), (3, 'credits_frozen')) AS s (n, status) ORDER BY n;
SELECT finance.set_account_status('ann', 'active') > 0 AS set;
SELECT s.status, finance.set_account_status('ben', s.status) > 0 AS set, pg_temp.attempt($$SELECT finance.hold('ann', 'ben', 1)$$) AS hold,
	pg_temp.attempt(format('SELECT finance.capture(%s, 1)', :f_id)) AS capture
FROM (VALUES (1, 'frozen'), (2, 'credits_frozen'), (3, 'debits_frozen')) AS s (n, status) ORDER BY n;
SELECT finance.set_account_status('ann', 'frozen') > 0 AS set, finance.set_account_status('ben', 'frozen') > 0 AS set;
SELECT status, hold_remaining FROM finance.release(:f_id, 1);
SET finance.test_clock = '2050-03-04 12:00+00';
SELECT finance.expire_holds() AS expired;
SELECT finance.set_account_status('ann', 'active') > 0 AS set, finance.set_account_status('ben', 'active') > 0 AS set;
SELECT count(finance.create_account(code, 'EUR')) FROM (VALUES ('x'), ('y')) AS v (code);
SELECT status FROM finance.transfer('bank', 'x', 1);
SELECT id FROM finance.hold('x', 'y', 1) \gset c_
SELECT code, left(pg_temp.attempt(format('SELECT finance.set_account_status(%L, ''closed'')', code)), 5) AS refused FROM (VALUES ('x'), ('y')) AS v (code) ORDER BY code;
SELECT status FROM finance.release(:c_id);
SELECT finance.set_account_status('y', 'closed') > 0 AS set;
SELECT pg_temp.attempt($$SELECT finance.hold('x', 'y', 1)$$);

-- ------------------------------------------------------------------------
-- keys: the first answer again, and another request refused by the first field that differs
-- ------------------------------------------------------------------------

CREATE TEMP TABLE answer AS
SELECT 'hold' AS request, h.* FROM finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment',
	hold_group => 'g', reference => 'r', metadata => '{"a": 1}') AS h;
SELECT id FROM answer \gset k_
INSERT INTO answer SELECT 'capture', h.* FROM finance.capture(:k_id, 10, idempotency_key => 'capture', effective_at => '2050-01-01 00:00+00', reference => 'r', metadata => '{"a": 1}') AS h;
INSERT INTO answer SELECT 'release', h.* FROM finance.release(:k_id, 5, idempotency_key => 'release', reference => 'r', metadata => '{"a": 1}') AS h;
INSERT INTO answer SELECT 'rest', h.* FROM finance.capture(:k_id, idempotency_key => 'rest') AS h;
SELECT status FROM finance.transfer('ann', 'ben', 1, idempotency_key => 'plain');
SELECT request, status, amount, hold_remaining, replayed FROM answer;
SELECT pg_temp.book() AS book \gset
CREATE TEMP TABLE again AS
SELECT 'hold' AS request, h.* FROM finance.hold('ann', 'ben', 30.00, expires_in => '60 minutes', currency => 'EUR', idempotency_key => 'hold', type => 'payment',
	hold_group => 'g', reference => 'r', metadata => '{"a": 1.0}') AS h;
INSERT INTO again SELECT 'capture', h.* FROM finance.capture(:k_id, 10.0, idempotency_key => 'capture', effective_at => '2050-01-01 01:00+01', reference => 'r', metadata => '{"a": 1}') AS h;
INSERT INTO again SELECT 'release', h.* FROM finance.release(:k_id, 5.00, idempotency_key => 'release', reference => 'r', metadata => '{"a": 1}') AS h;
INSERT INTO again SELECT 'rest', h.* FROM finance.capture(:k_id, idempotency_key => 'rest') AS h;
SELECT request, status, amount, hold_remaining, replayed FROM again;
SELECT count(*) AS equal FROM answer a JOIN again b USING (request)
WHERE to_jsonb(a) - 'replayed' = to_jsonb(b) - 'replayed';
CREATE TEMP TABLE other (n serial, what text, statement text);
INSERT INTO other (what, statement) VALUES
	('from_account', $$SELECT finance.hold('bank', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('to_account', $$SELECT finance.hold('ann', 'shop', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('amount', $$SELECT finance.hold('ann', 'ben', 31, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('amount_mode', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}', amount_mode => 'up_to')$$),
	('expires_in', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '2 hours', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('expires_in left out', $$SELECT finance.hold('ann', 'ben', 30, currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('currency', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'JPY', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('type', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'fee', hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('hold_group', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'h', reference => 'r', metadata => '{"a": 1}')$$),
	('hold_group left out', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', reference => 'r', metadata => '{"a": 1}')$$),
	('expected_from_version', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', expected_from_version => 1, hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('expected_to_version', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', expected_to_version => 1, hold_group => 'g', reference => 'r', metadata => '{"a": 1}')$$),
	('reference', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 's', metadata => '{"a": 1}')$$),
	('metadata', $$SELECT finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment', hold_group => 'g', reference => 'r', metadata => '{"a": 2}')$$),
	('a transfer', $$SELECT finance.transfer('ann', 'ben', 30, currency => 'EUR', idempotency_key => 'hold', type => 'payment', reference => 'r', metadata => '{"a": 1}')$$),
	('a release', format('SELECT finance.release(%s, 10, idempotency_key => ''capture'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('another hold', format('SELECT finance.capture(%s, 10, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', reference => ''r'', metadata => ''{"a": 1}'')', :'f_id')),
	('captured amount', format('SELECT finance.capture(%s, 11, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('all instead', format('SELECT finance.capture(%s, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('final', format('SELECT finance.capture(%s, 10, final => true, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('effective_at', format('SELECT finance.capture(%s, 10, idempotency_key => ''capture'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('reference', format('SELECT finance.capture(%s, 10, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', metadata => ''{"a": 1}'')', :'k_id')),
	('metadata', format('SELECT finance.capture(%s, 10, idempotency_key => ''capture'', effective_at => ''2050-01-01 00:00+00'', reference => ''r'')', :'k_id')),
	('released amount', format('SELECT finance.release(%s, 6, idempotency_key => ''release'', reference => ''r'', metadata => ''{"a": 1}'')', :'k_id')),
	('released reference', format('SELECT finance.release(%s, 5, idempotency_key => ''release'', metadata => ''{"a": 1}'')', :'k_id')),
	('a stated rest', format('SELECT finance.capture(%s, 15, idempotency_key => ''rest'')', :'k_id')),
	('mode of a transfer', $$SELECT finance.transfer('ann', 'ben', 1, amount_mode => 'up_to', idempotency_key => 'plain')$$),
	('two: the first', $$SELECT finance.hold('ann', 'ben', 31, expires_in => '2 hours', idempotency_key => 'hold', type => 'fee')$$);
\pset format unaligned
SELECT what, pg_temp.attempt(statement) AS result FROM other ORDER BY n;
\pset format aligned
SELECT pg_temp.book() = :'book' AS nothing_changed;

-- a key whose hold is over still answers
SET finance.test_clock = '2050-03-05 12:00+00';
SELECT status, replayed FROM finance.hold('ann', 'ben', 30, expires_in => '1 hour', currency => 'EUR', idempotency_key => 'hold', type => 'payment',
	hold_group => 'g', reference => 'r', metadata => '{"a": 1}');

-- ------------------------------------------------------------------------
-- savepoints and exception blocks
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS book \gset
BEGIN;
SAVEPOINT one;
SELECT status FROM finance.hold('ann', 'ben', 5, expires_in => '1 minute', idempotency_key => 'undone');
SELECT status FROM finance.capture((SELECT max(hold_id) FROM finance._hold WHERE tenant_id = :tenant), 2);
ROLLBACK TO one;
SELECT count(*) FROM finance.idempotency_key WHERE key = 'undone';
ROLLBACK;
DO $$
BEGIN
	BEGIN
		PERFORM finance.hold('ann', 'ben', 5, expires_in => '1 minute');
		PERFORM finance.capture(1);
	EXCEPTION WHEN SQLSTATE 'LG012' THEN
		RAISE NOTICE 'caught';
	END;
END $$;
SELECT pg_temp.book() = :'book' AS nothing_changed;

-- a hold and its end in one transaction, one statement
BEGIN;
SELECT id FROM finance.hold('ann', 'ben', 5) \gset t_
SELECT status FROM finance.capture(:t_id, 2);
SELECT status FROM finance.release(:t_id);
COMMIT;
SELECT b.status, b.hold_remaining FROM (SELECT id FROM finance.hold('ann', 'ben', 5) OFFSET 0) AS a CROSS JOIN LATERAL finance.capture(a.id, 4) AS b;
SELECT status FROM finance.release((SELECT max(hold_id) FROM finance._hold WHERE tenant_id = :tenant));

-- nobody deletes or rewrites holds in passing
SELECT pg_temp.attempt('DELETE FROM finance._hold');
SELECT pg_temp.attempt('TRUNCATE finance._hold');
SELECT left(pg_temp.attempt('UPDATE finance._hold SET captured = amount + 1'), 5) AS refused;

-- no residue
SELECT count(r.id) FROM finance.hold h CROSS JOIN LATERAL finance.release(h.hold_id) AS r WHERE h.tenant_id = :tenant AND h.status = 'open';
SELECT code, balance, held, credits_pending FROM purse ORDER BY code;
SELECT count(*) FILTER (WHERE captured + released <> amount) AS residue, count(*) AS holds FROM finance._hold WHERE tenant_id = :tenant;
SELECT * FROM finance.check_integrity();
