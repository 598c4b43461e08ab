-- What risk wants confirmed: parked until its caller shows the token that was told
-- once; wrong ones are counted, and the last gives the money back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('challenge test') AS tenant \gset
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
FROM (VALUES ('bank', NULL), ('shop', 0), ('ann', 0)) AS v (code, least);
SELECT finance.create_queue('events');
SELECT finance.bind_topic('transfer.*', 'events');
SELECT to_balance FROM finance.transfer('bank', 'ann', 1000);
SELECT pg_temp.rule('second factor', 'challenge', 50, account => 'ann');
SELECT pg_temp.rule('four eyes', 'review', 500, account => 'ann');
SET finance.actor = 'maker';

-- ------------------------------------------------------------------------
-- told once, confirmed once
-- ------------------------------------------------------------------------

SELECT id, status, token, rule, from_available, hold_remaining
FROM finance.transfer('ann', 'shop', 60, reference => 'r', idempotency_key => 'k') \gset c_
SELECT :'c_status' AS status, :'c_token' ~ '^[0-9a-f]{32}$' AS token, :'c_rule' AS rule, :c_from_available AS available, :c_hold_remaining AS remaining;
SELECT status, token, replayed FROM finance.transfer('ann', 'shop', 60, reference => 'r', idempotency_key => 'k');
SELECT kind, amount, age, expires_at AT TIME ZONE 'UTC' AS expires_at, default_outcome, attempts_left FROM finance.review;
SELECT status, remaining FROM finance.hold;
-- it is nowhere: only its hash, which is of a salt and it
SELECT token_hash = sha256(salt || :'c_token'::bytea) AS hashed FROM finance._challenge WHERE transfer_id = :c_id;
CREATE FUNCTION pg_temp.places(secret text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	place text;
	found boolean;
BEGIN
	FOR place IN SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'finance'::regnamespace AND c.relkind = 'r' ORDER BY 1
	LOOP
		EXECUTE format('SELECT EXISTS (SELECT FROM %s t WHERE strpos(t::text, $1) > 0)', place) INTO found USING secret;
		IF found THEN
			RETURN NEXT place;
		END IF;
	END LOOP;
END $$;
SELECT pg_temp.places(:'c_token');
SELECT count(*) > 0 AS would_find FROM pg_temp.places(:'c_id');

SELECT pg_temp.book() AS book \gset
CREATE TEMP TABLE wrong (n serial, what text, statement text);
INSERT INTO wrong (what, statement) VALUES
	('no token', format('SELECT finance.confirm_challenge(%s, NULL)', :c_id)),
	('no id', 'SELECT finance.confirm_challenge(NULL, repeat(''0'', 32))'),
	('no token at all', format('SELECT finance.confirm_challenge(%s, ''123456'')', :c_id)),
	('one in capitals', format('SELECT finance.confirm_challenge(%s, repeat(''A'', 32))', :c_id)),
	('one too long', format('SELECT finance.confirm_challenge(%s, repeat(''a'', 33))', :c_id)),
	('never parked', format('SELECT finance.confirm_challenge(1, %L)', :'c_token')),
	('captured as a hold', format('SELECT finance.capture(%s)', :c_id)),
	('released as a hold', format('SELECT finance.release(%s)', :c_id)),
	('a new token of what is not parked', 'SELECT finance.new_challenge_token(1)'),
	('a new token for nobody', 'SELECT finance.new_challenge_token(NULL)'),
	('a new token for another', format('SELECT set_config(''finance.actor'', ''other'', false); SELECT finance.new_challenge_token(%s)', :c_id)),
	('approved by another', format('SELECT finance.review_transfer(%s, true)', :c_id));
\pset format unaligned
SELECT what, pg_temp.attempt(statement) AS result FROM wrong ORDER BY n;
\pset format aligned
SET finance.actor = 'maker';
SELECT pg_temp.attempt($$SELECT finance.transfer('ann', 'shop', 60, strict => true)$$);
SELECT pg_temp.attempt($$SELECT finance.journal(ARRAY[finance.leg('ann', 'debit', 60), finance.leg('shop', 'credit', 60)])$$);
SELECT pg_temp.book() = :'book' AS nothing_changed;

-- wrong ones are answers, counted when they are committed
SELECT confirmed, attempts_left, id = :c_id AS the_same, status, amount, replayed, token FROM finance.confirm_challenge(:c_id, repeat('0', 32));
BEGIN;
SELECT attempts_left FROM finance.confirm_challenge(:c_id, repeat('1', 32));
ROLLBACK;
SELECT attempts_left FROM finance.confirm_challenge(:c_id, repeat('1', 32));
SELECT attempts_left FROM finance.review;
-- nor does freezing spoil it
SELECT finance.set_account_status('ann', 'frozen') AS version \gset
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :c_id, :'c_token'));
SELECT finance.set_account_status('ann', 'active') AS version \gset
SELECT confirmed, attempts_left, id <> :c_id AS of_its_own, status, amount, from_balance, from_available, to_balance, hold_id = :c_id AS of_it, token
FROM finance.confirm_challenge(:c_id, :'c_token');
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :c_id, :'c_token'));
SELECT pg_temp.attempt(format('SELECT finance.new_challenge_token(%s)', :c_id));
SELECT status, reviewer, wrong_tokens, token_hash FROM finance.risk_review r LEFT JOIN finance._challenge c USING (tenant_id, transfer_id) WHERE r.transfer_id = :c_id;
SELECT status, amount, reference FROM finance.transfer WHERE hold_id = :c_id ORDER BY id;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;

-- ------------------------------------------------------------------------
-- another token instead
-- ------------------------------------------------------------------------

SELECT id, token FROM finance.transfer('ann', 'shop', 70) \gset d_
SELECT finance.new_challenge_token(:d_id) AS second \gset
SELECT :'second' <> :'d_token' AS another, :'second' ~ '^[0-9a-f]{32}$' AS token;
SELECT confirmed, attempts_left FROM finance.confirm_challenge(:d_id, :'d_token');
SELECT count(finance.new_challenge_token(:d_id)) FROM generate_series(1, 3);
SELECT finance.new_challenge_token(:d_id) AS last \gset
SELECT pg_temp.attempt(format('SELECT finance.new_challenge_token(%s)', :d_id));
SELECT confirmed, status FROM finance.confirm_challenge(:d_id, :'last');

-- ------------------------------------------------------------------------
-- too many wrong ones; stopped by a person; the end of its time
-- ------------------------------------------------------------------------

SELECT id, token FROM finance.transfer('ann', 'shop', 80) \gset e_
SELECT c.confirmed, c.attempts_left, c.status, c.from_available FROM generate_series(1, 5) AS n
CROSS JOIN LATERAL finance.confirm_challenge(:e_id + 0 * n, lpad(n::text, 32, '0')) AS c;
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :e_id, :'e_token'));
SELECT status, wrong_tokens FROM finance.risk_review WHERE transfer_id = :e_id;

SELECT id, token FROM finance.transfer('ann', 'shop', 90) \gset f_
SET finance.actor = 'guard';
SELECT status FROM finance.review_transfer(:f_id, false, 'a call from the customer');
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :f_id, :'f_token'));
SET finance.actor = 'maker';
SELECT id, token FROM finance.transfer('ann', 'shop', 95) \gset g_
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, false, ''mine'')', :g_id));
SET finance.test_clock = '2050-03-01 12:09:59+00';
SELECT finance.settle_reviews() AS none;
SET finance.test_clock = '2050-03-01 12:10+00';
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :g_id, :'g_token'));
SELECT pg_temp.attempt(format('SELECT finance.new_challenge_token(%s)', :g_id));
SELECT finance.settle_reviews() AS settled;
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :g_id, :'g_token'));
SELECT r.status, r.reviewer, t.status AS settled FROM finance.risk_review r JOIN finance.transfer t ON t.id = r.settled_id WHERE r.transfer_id IN (:f_id, :g_id) ORDER BY r.transfer_id;
SELECT * FROM purse WHERE code IN ('ann', 'shop') ORDER BY code;

-- ------------------------------------------------------------------------
-- a hold; a batch; the higher outcome
-- ------------------------------------------------------------------------

SELECT id, token FROM finance.hold('ann', 'shop', 55, expires_in => '1 minute') \gset h_
SET finance.test_clock = '2050-03-01 12:15+00';
SELECT confirmed, status, hold_remaining FROM finance.confirm_challenge(:h_id, :'h_token');
SELECT status, remaining, expires_at AT TIME ZONE 'UTC' AS expires_at FROM finance.hold WHERE hold_id = :h_id;
SELECT status FROM finance.capture(:h_id);
SELECT position, status, token ~ '^[0-9a-f]{32}$' AS token, replayed FROM finance.transfer_batch(ARRAY[
	finance.request('ann', 'shop', 51, idempotency_key => 'b'), finance.request('ann', 'shop', 5), finance.request('ann', 'shop', 52),
	finance.request('ann', 'shop', 51, idempotency_key => 'b')]);
SELECT count(DISTINCT token_hash), count(DISTINCT salt) FROM finance._challenge WHERE tenant_id = :tenant;
SELECT status, token FROM finance.transfer('ann', 'shop', 501);

-- messages and records; none has a token
SELECT payload->>'type' AS topic, payload->'payload'->>'status' AS status, count(*) FROM finance.message WHERE tenant_id = :tenant GROUP BY 1, 2 ORDER BY 1, 2;
SELECT operation, status, count(*) FROM finance.audit_record WHERE tenant_id = :tenant AND operation ~ 'challenge|settle|review' GROUP BY 1, 2 ORDER BY 1, 2;
SELECT place FROM (VALUES (:'c_token'), (:'second'), (:'last'), (:'e_token'), (:'h_token')) AS v (token) CROSS JOIN pg_temp.places(token) AS place;

-- another tenant knows nothing of it
SELECT id, token FROM finance.transfer('ann', 'shop', 53) \gset o_
SELECT finance.create_tenant('challenge test, the other') AS other \gset
SET finance.tenant = :other;
SELECT pg_temp.attempt(format('SELECT finance.confirm_challenge(%s, %L)', :o_id, :'o_token'));
SELECT pg_temp.attempt(format('SELECT finance.new_challenge_token(%s)', :o_id));
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, true)', :o_id));
SELECT finance.settle_reviews();
SET finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- who may: the app confirms, the operator reviews, nobody reads a hash
-- ------------------------------------------------------------------------

CREATE ROLE challenge_app;
CREATE ROLE challenge_operator;
SELECT finance.grant_access('challenge_app', 'app');
SELECT finance.grant_access('challenge_operator', 'operator');
SET ROLE challenge_app;
SELECT pg_temp.attempt(format('SELECT finance.review_transfer(%s, false, ''no'')', :o_id));
SELECT pg_temp.attempt('SELECT * FROM finance.review');
SELECT pg_temp.attempt('SELECT * FROM finance._challenge');
SELECT confirmed FROM finance.confirm_challenge(:o_id, :'o_token');
SELECT id FROM finance.transfer('ann', 'shop', 54) \gset p_
SET ROLE challenge_operator;
SELECT count(*) FROM finance.review;
SELECT pg_temp.attempt('SELECT * FROM finance._challenge');
RESET finance.actor;
SELECT status FROM finance.review_transfer(:p_id, false, 'no');
RESET ROLE;
SELECT r.requested_by, r.reviewer FROM finance.risk_review r WHERE r.transfer_id = :p_id;
DROP OWNED BY challenge_app, challenge_operator;
DROP ROLE challenge_app, challenge_operator;

CREATE FUNCTION pg_temp.breaches(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN QUERY SELECT DISTINCT c.invariant FROM finance.check_integrity() c ORDER BY 1;
	RAISE EXCEPTION 'undo' USING ERRCODE = 'XX999';
EXCEPTION WHEN SQLSTATE 'XX999' THEN
	NULL;
END $$;
SELECT pg_temp.breaches(format('DELETE FROM finance._challenge WHERE tenant_id = %s', :tenant));
SELECT pg_temp.breaches(format('INSERT INTO finance._challenge (tenant_id, transfer_id, salt, token_hash) SELECT tenant_id, %s, salt, token_hash FROM finance._challenge LIMIT 1', :c_id));
SELECT * FROM finance.check_integrity();
