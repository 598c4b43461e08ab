-- What risk wants reviewed: parked with its money held, and carried out or given
-- back by another person, or by itself when its time is over.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('parked test') AS tenant \gset
SET finance.tenant = :tenant;
SET finance.test_clock = '2050-03-01 12:00+00';

-- a rule that wants an outcome of what is above an amount
CREATE FUNCTION pg_temp.rule(name text, wants text, above numeric, account text DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$ SELECT finance.add_rule(name, 'transfer_limit', above, account, outcome => wants) $$;
-- no rules; and what is not reviewed in time is approved or rejected
CREATE FUNCTION pg_temp.no_rules(review_default text) RETURNS void
LANGUAGE sql AS $$ SELECT finance.publish_ruleset(finance.create_ruleset('default ' || review_default, review_default => review_default)) $$;

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
FROM (VALUES ('bank', NULL), ('shop', 0), ('ann', 0), ('ben', 0)) AS v (code, least);
SELECT finance.create_queue('events');
SELECT finance.bind_topic('transfer.*', 'events');
SELECT to_balance FROM finance.transfer('bank', 'ann', 1000);
SELECT pg_temp.rule('big', 'review', 100, account => 'ann');

-- ------------------------------------------------------------------------
-- parked, and approved
-- ------------------------------------------------------------------------

SET finance.actor = 'maker';
SELECT status FROM finance.transfer('ann', 'shop', 100);
SELECT id, id = hold_id AS of_itself, status, amount, from_balance, from_available, to_balance, rule, hold_remaining, replayed,
	token IS NULL AS without_token
FROM finance.transfer('ann', 'shop', 150, reference => 'r', metadata => '{"x": 1}', effective_at => '2050-02-20 12:00+00', type => 'payment', idempotency_key => 'k') \gset p_
SELECT :'p_of_itself' AS of_itself, :'p_status' AS status, :p_amount AS amount, :p_from_balance AS balance, :p_from_available AS available,
	:p_to_balance AS to_balance, :'p_rule' AS rule, :p_hold_remaining AS remaining, :'p_without_token' AS without_token;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
SELECT status, amount, remaining, expires_at AT TIME ZONE 'UTC' AS expires_at FROM finance.hold WHERE hold_id = :p_id;
SET finance.test_clock = '2050-03-01 12:30+00';
SELECT kind, from_account, to_account, amount, currency, type, rules, requested_by, age,
	expires_at AT TIME ZONE 'UTC' AS expires_at, default_outcome, was_hold, attempts_left, reference, metadata
FROM finance.review WHERE transfer_id = :p_id;

-- the same request again tells what was answered first, as of a hold
SELECT id = :p_id AS the_same, status, hold_remaining, rule, replayed
FROM finance.transfer('ann', 'shop', 150, reference => 'r', metadata => '{"x": 1}', effective_at => '2050-02-20 12:00+00', type => 'payment', idempotency_key => 'k');
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 151, idempotency_key => 'k')$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 150, reference => 'r', metadata => '{"x": 1}', effective_at => '2050-02-20 12:00+00', type => 'payment', idempotency_key => 'k', strict => true)$$);

-- who may not decide, and what
SELECT pg_temp.book() AS book \gset
CREATE TEMP TABLE wrong (n serial, actor text DEFAULT 'checker', what text, statement text);
INSERT INTO wrong (what, statement) VALUES
	('unknown', 'SELECT finance.review_transfer(1, true)'),
	('never parked', format('SELECT finance.review_transfer(%s, true)', (SELECT min(id) FROM finance.transfer WHERE tenant_id = :tenant))),
	('no id', 'SELECT finance.review_transfer(NULL, true)'),
	('no decision', format('SELECT finance.review_transfer(%s, NULL)', :p_id)),
	('rejected without a word', format('SELECT finance.review_transfer(%s, false)', :p_id)),
	('an empty comment', format('SELECT finance.review_transfer(%s, true, '''')', :p_id)),
	('a long comment', format('SELECT finance.review_transfer(%s, false, repeat(''x'', 1025))', :p_id)),
	('no challenge', format('SELECT finance.confirm_challenge(%s, repeat(''0'', 32))', :p_id)),
	('no token', format('SELECT finance.new_challenge_token(%s)', :p_id)),
	('captured as a hold', format('SELECT finance.capture(%s)', :p_id)),
	('a part of it', format('SELECT finance.capture(%s, 1, final => true)', :p_id)),
	('released as a hold', format('SELECT finance.release(%s)', :p_id)),
	('a limit of null', 'SELECT finance.settle_reviews(NULL)'),
	('a limit of zero', 'SELECT finance.settle_reviews(0)'),
	('a limit above the most', 'SELECT finance.settle_reviews(10001)');
INSERT INTO wrong (actor, what, statement) VALUES
	('maker', 'who requested it', format('SELECT finance.review_transfer(%s, true)', :p_id)),
	('maker', 'nor may he reject', format('SELECT finance.review_transfer(%s, false, ''no'')', :p_id)),
	('', 'as himself, in the session of one who said to be another', format('SELECT finance.review_transfer(%s, true)', :p_id)),
	('checker', 'closed meanwhile', $$SELECT finance.close_account('ann', 'bank')$$),
	('checker', 'a floor above it', $$SELECT finance.set_min_available('ann', 800)$$);
\pset format unaligned
SELECT what, pg_temp.attempt(format('SELECT set_config(''finance.actor'', %L, false); ', actor) || statement) AS result
FROM wrong ORDER BY n;
\pset format aligned
SET finance.actor = 'checker';
SELECT pg_temp.book() = :'book' AS nothing_changed;
SELECT finance.expire_holds() AS none, finance.settle_reviews() AS none;
SELECT error, regexp_replace(message, '\d{17,19}', '<id>') AS message FROM finance.transfer_batch(ARRAY[finance.request(action => 'capture', hold_id => :p_id)]);

-- not while an account is frozen; then it stays open
SELECT finance.set_account_status('shop', 'frozen') AS version;
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :p_id));
SELECT count(*) FROM finance.review;
SELECT finance.set_account_status('shop', 'active') AS version;
SELECT id <> hold_id AS of_its_own, hold_id = :p_id AS of_it, status, amount, from_balance, from_available, to_balance, hold_remaining, rule
FROM finance.review_transfer(:p_id, true, 'known to us');
SELECT count(*) FROM finance.review;
SELECT status, type, amount, effective_at AT TIME ZONE 'UTC' AS effective_at, reference, metadata, from_held FROM finance.transfer WHERE hold_id = :p_id ORDER BY id;
SELECT r.status, r.requested_by, r.reviewer, r.comment, r.decided_at AT TIME ZONE 'UTC' AS decided_at, t.status AS settled FROM finance.risk_review r
JOIN finance.transfer t ON t.tenant_id = r.tenant_id AND t.id = r.settled_id WHERE r.transfer_id = :p_id;
SELECT finance.balance_at('shop', '2050-02-20 11:59+00', 'effective') AS before, finance.balance_at('shop', '2050-02-20 12:01+00', 'effective') AS after;
SELECT line, status, change, balance, held FROM finance.statement('ann', '2000-01-01', '2100-01-01');
SELECT status, captured, released FROM finance.hold WHERE hold_id = :p_id;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
-- once
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :p_id));
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, false, ''no'')', :p_id));
SELECT pg_temp.attempt(format('SELECT finance.capture(%s)', :p_id));
SELECT status, replayed FROM finance.transfer('ann', 'shop', 150, reference => 'r', metadata => '{"x": 1}', effective_at => '2050-02-20 12:00+00', type => 'payment', idempotency_key => 'k');

-- ------------------------------------------------------------------------
-- rejected; maker is not checker by constraint, too
-- ------------------------------------------------------------------------

SET finance.actor = 'maker';
SELECT id FROM finance.transfer('ann', 'shop', 200, reference => 'no') \gset n_
SELECT pg_temp.book() AS book \gset
SELECT pg_temp.attempt(format($$UPDATE finance.risk_review SET status = 'approved', reviewer = requested_by, reviewer_session_user = 'x',
	decided_at = now(), settled_id = 1 WHERE transfer_id = %s$$, :n_id));
SELECT pg_temp.attempt(format($$UPDATE finance.risk_review SET status = 'approved', reviewer = requested_session_user, reviewer_session_user = requested_session_user,
	decided_at = now(), settled_id = 1 WHERE transfer_id = %s$$, :n_id));
SELECT pg_temp.attempt(format($$UPDATE finance.risk_review SET status = 'rejected', reviewer = 'x', reviewer_session_user = 'x',
	decided_at = now(), settled_id = 1 WHERE transfer_id = %s$$, :n_id));
SELECT pg_temp.attempt(format($$DELETE FROM finance.risk_review WHERE transfer_id = %s$$, :n_id));
SELECT pg_temp.book() = :'book' AS nothing_changed;
SET finance.actor = 'checker';
SELECT status, amount, from_balance, from_available, hold_remaining FROM finance.review_transfer(:n_id, false, 'who is that?');
SELECT status, amount, reference FROM finance.transfer WHERE hold_id = :n_id ORDER BY id;
SELECT status, reviewer, comment FROM finance.risk_review WHERE transfer_id = :n_id;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
-- who asked as himself is not another by saying so
RESET finance.actor;
SELECT id FROM finance.transfer('ann', 'shop', 120) \gset s_
SET finance.actor = 'somebody';
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :s_id));

-- the messages and the records
SELECT payload->>'type' AS topic, payload->'payload'->>'status' AS status, payload->'payload'->>'outcome' AS outcome,
	CASE payload->'payload'->>'hold_id' WHEN :'p_id' THEN 'first' WHEN :'n_id' THEN 'second' END AS of
FROM finance.message WHERE tenant_id = :tenant ORDER BY msg_id;
SELECT operation, status, replace(actor, session_user, '<user>') AS actor, request->'request' AS request FROM finance.audit_record WHERE tenant_id = :tenant AND operation ~ 'review|transfer' ORDER BY id;

-- ------------------------------------------------------------------------
-- the end of its time, both ways
-- ------------------------------------------------------------------------

SELECT pg_temp.no_rules('approve');
SELECT pg_temp.rule('trusted', 'review', 100, account => 'ann');
SELECT id FROM finance.transfer('ann', 'shop', 110) \gset a_
SET finance.test_clock = '2050-03-02 12:29+00';
SELECT finance.settle_reviews() AS none;
SET finance.test_clock = '2050-03-02 12:30+00';
SET finance.actor = 'checker';
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :a_id));
-- a frozen account keeps it, and nobody else's
SELECT finance.set_account_status('shop', 'frozen') AS version;
SELECT finance.settle_reviews() AS of_the_other;
SELECT transfer_id = :a_id AS the_frozen, default_outcome FROM finance.review;
SELECT finance.set_account_status('shop', 'active') AS version;
SELECT finance.settle_reviews() AS settled;
SELECT finance.settle_reviews() AS none;
SELECT r.status, r.default_outcome, r.reviewer, h.status AS hold, t.status AS settled FROM finance.risk_review r
JOIN finance.hold h ON h.hold_id = r.transfer_id JOIN finance.transfer t ON t.id = r.settled_id
WHERE r.transfer_id IN (:a_id, :s_id) ORDER BY r.transfer_id;
SELECT operation, status FROM finance.audit_record WHERE tenant_id = :tenant ORDER BY id DESC LIMIT 2;
SELECT payload->>'type' AS topic, payload->'payload'->>'status' AS status FROM finance.message WHERE tenant_id = :tenant ORDER BY msg_id DESC LIMIT 3;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;
-- to reject it is not too late
SET finance.actor = 'maker';
SELECT id FROM finance.transfer('ann', 'shop', 110) \gset l_
SET finance.test_clock = '2050-03-04 12:00+00';
SET finance.actor = 'checker';
SELECT status FROM finance.review_transfer(:l_id, false, 'stuck');
-- what is over is settled by who needs its money
SELECT pg_temp.no_rules('reject');
SELECT pg_temp.rule('big', 'review', 100, account => 'ann');
SELECT from_available - 50 AS most FROM finance.transfer('ann', 'shop', 50) \gset
SELECT status, from_available FROM finance.transfer('ann', 'shop', :most);
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 60)$$);
SET finance.test_clock = '2050-03-06 12:00+00';
SELECT status, from_available = :most - 10 AS given_back FROM finance.transfer('ann', 'shop', 60);
SELECT status, reviewer FROM finance.risk_review WHERE tenant_id = :tenant ORDER BY transfer_id DESC LIMIT 1;

-- ------------------------------------------------------------------------
-- a hold that is parked becomes one
-- ------------------------------------------------------------------------

SET finance.actor = 'maker';
SELECT id, status FROM finance.hold('ann', 'shop', 101, expires_in => '1 hour', hold_group => 'g') \gset h_
SELECT id FROM finance.hold('ann', 'shop', 5, hold_group => 'g') \gset o_
SELECT was_hold, expires_at AT TIME ZONE 'UTC' AS expires_at FROM finance.review;
SELECT :'h_status' AS status, status AS hold, remaining FROM finance.hold WHERE hold_id = :h_id;
-- its group goes on without it
SELECT hold_id = :o_id AS the_other, status, amount FROM finance.capture_group('g');
SELECT pg_temp.attempt($$SELECT finance.capture_group('g')$$);
SELECT pg_temp.attempt($$SELECT finance.release_group('g')$$);
SET finance.test_clock = '2050-03-06 14:00+00';
SET finance.actor = 'checker';
SELECT finance.set_account_status('ann', 'frozen') AS version \gset
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :h_id));
SELECT finance.set_account_status('ann', 'active') AS version \gset
SELECT version FROM finance.account WHERE tenant_id = :tenant AND code = 'ann' \gset
SELECT status, hold_id = :h_id AS of_it, amount, from_version - :version AS versions, hold_remaining FROM finance.review_transfer(:h_id, true);
SELECT status, remaining, expires_at AT TIME ZONE 'UTC' AS expires_at FROM finance.hold WHERE hold_id = :h_id;
SELECT payload->>'type' AS topic FROM finance.message WHERE tenant_id = :tenant ORDER BY msg_id DESC LIMIT 1;
SELECT status, amount, change, held FROM finance.statement('ann', '2000-01-01', '2100-01-01') WHERE transfer_id >= :h_id;
SELECT * FROM finance.check_integrity();
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, false, ''no'')', :h_id));
SELECT status, hold_remaining FROM finance.capture(:h_id, 1);
SELECT status, hold_remaining FROM finance.release_group('g');
-- without an end of its own; rejected
SET finance.actor = 'maker';
SELECT id FROM finance.hold('ann', 'shop', 102) \gset h_
SELECT id FROM finance.hold('ann', 'shop', 103) \gset h2_
SET finance.actor = 'checker';
SELECT status FROM finance.review_transfer(:h_id, true);
SELECT status FROM finance.review_transfer(:h2_id, false, 'no');
SELECT status, remaining, expires_at FROM finance.hold WHERE hold_id = :h_id;
SELECT status, remaining FROM finance.hold WHERE hold_id = :h2_id;
SET finance.test_clock = '2060-01-01 00:00+00';
SELECT finance.expire_holds(), finance.settle_reviews();
SELECT status FROM finance.release(:h_id);

-- ------------------------------------------------------------------------
-- what cannot be parked, and what it is a part of
-- ------------------------------------------------------------------------

SELECT to_available FROM finance.transfer('bank', 'ann', 1000) \gset
SELECT pg_temp.book() AS book \gset
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 150, strict => true)$$);
SELECT pg_temp.attempt($$SELECT finance.hold('ann', 'shop', 150, strict => true)$$);
SELECT pg_temp.attempt($$SELECT finance.journal(ARRAY[finance.leg('ann', 'debit', 150), finance.leg('shop', 'credit', 101), finance.leg('ben', 'credit', 49)])$$);
SELECT pg_temp.attempt($$SELECT finance.journal(ARRAY[finance.leg('ann', 'debit', 150), finance.leg('shop', 'credit', 150)])$$);
SELECT position, error, message, status FROM finance.transfer_batch(ARRAY[
	finance.request('bank', 'ben', 1), finance.request('ann', 'shop', 150)], atomic => true);
SELECT pg_temp.book() = :'book' AS nothing_changed;
-- by itself in a batch it can; twice in it under one key it is one
SET finance.actor = 'maker';
SELECT position, error, status, hold_remaining, token, replayed FROM finance.transfer_batch(ARRAY[
	finance.request('bank', 'ben', 1), finance.request('ann', 'shop', 150, idempotency_key => 'b'), finance.request('ann', 'shop', 1),
	finance.request('ann', 'shop', 150, idempotency_key => 'b'), finance.request('ann', 'shop', 140, action => 'hold'),
	finance.request('ann', 'ben', NULL, amount_mode => 'up_to', idempotency_key => 'all')]);
SELECT status, amount, hold_remaining, replayed FROM finance.transfer('ann', 'ben', NULL, amount_mode => 'up_to', idempotency_key => 'all');
SELECT kind, amount, was_hold FROM finance.review ORDER BY transfer_id;
SELECT * FROM purse WHERE code = 'ann';
SELECT finance.settle_reviews(2) AS none;
SET finance.test_clock = '2060-01-03 00:00+00';
SELECT finance.settle_reviews(2) AS some;
SELECT finance.settle_reviews() AS rest;

-- a reversal, which must find enough left when it is approved
SELECT pg_temp.rule('back', 'review', 20, account => 'shop');
SELECT id FROM finance.transfer('ann', 'shop', 50) \gset t_
SELECT id, status, amount FROM finance.reverse_transfer(:t_id, 30) \gset r1_
SELECT id, status, amount FROM finance.reverse_transfer(:t_id, 40) \gset r2_
SELECT :'r1_status' AS status, :r1_amount AS amount, :'r2_status' AS status, :r2_amount AS amount;
SELECT count(*) FROM finance.reversals(:t_id);
SET finance.actor = 'checker';
SELECT status, amount FROM finance.review_transfer(:r1_id, true);
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :r2_id));
SELECT amount FROM finance.reversals(:t_id);
SELECT * FROM finance.check_integrity();
-- where that was to be approved by itself it is given back
SELECT pg_temp.no_rules('approve');
SELECT pg_temp.rule('back', 'review', 15, account => 'shop');
SELECT status FROM finance.reverse_transfer(:t_id, 20) \gset r3_
SELECT status FROM finance.reverse_transfer(:t_id, 1) \gset r4_
SET finance.test_clock = '2060-01-05 00:00+00';
SELECT finance.settle_reviews() AS settled;
SELECT r.amount, r.status, r.default_outcome, t.status AS settled FROM finance.risk_review r JOIN finance.transfer t ON t.id = r.settled_id
WHERE r.tenant_id = :tenant ORDER BY r.transfer_id DESC LIMIT 2;

-- ------------------------------------------------------------------------
-- what check_integrity() would find
-- ------------------------------------------------------------------------

SET finance.actor = 'maker';
SELECT status FROM finance.reverse_transfer(:t_id, 16) \gset
SELECT id, status FROM finance.transfer('shop', 'ann', 17) \gset i_
SELECT :'i_status' AS status;
CREATE FUNCTION pg_temp.breaches(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		SET LOCAL session_replication_role = replica;
		EXECUTE statement;
		RETURN QUERY SELECT DISTINCT c.invariant FROM finance.check_integrity() c ORDER BY 1;
		RAISE EXCEPTION 'undo' USING ERRCODE = 'XX999';
	EXCEPTION WHEN SQLSTATE 'XX999' THEN
		NULL;
	END;
END $$;
SELECT pg_temp.breaches(format('UPDATE finance.risk_review SET amount = 18 WHERE transfer_id = %s', :i_id));
SELECT pg_temp.breaches(format('UPDATE finance._hold SET parked = NULL WHERE hold_id = %s', :i_id));
SELECT pg_temp.breaches(format('UPDATE finance._hold SET expires_at = now() WHERE hold_id = %s', :i_id));
SELECT pg_temp.breaches(format('ALTER TABLE finance.risk_review DISABLE TRIGGER guard; DELETE FROM finance.risk_review WHERE transfer_id = %s', :i_id));
SELECT pg_temp.breaches(format($$UPDATE finance.risk_review SET status = 'timed_out', decided_at = now(), settled_id = 1 WHERE transfer_id = %s$$, :i_id));
SELECT pg_temp.breaches(format('UPDATE finance.risk_review SET settled_id = 1 WHERE transfer_id = %s', :p_id));
SELECT pg_temp.breaches(format('UPDATE finance.risk_review SET was_hold = true WHERE transfer_id = %s', :p_id));
SELECT pg_temp.breaches(format('ALTER TABLE finance.alert_transfer DISABLE TRIGGER guard; DELETE FROM finance.alert_transfer WHERE transfer_id = %s', :i_id));
SELECT * FROM finance.check_integrity();
