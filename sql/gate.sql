-- The gate: pauses of every scope and what they stop, and rate limits: whose
-- tokens are taken, when, and by what not.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('gate test') AS tenant \gset
SELECT finance.create_tenant('gate test, other') AS other \gset
SET finance.tenant = :tenant;
SET datestyle = 'ISO';
SET timezone = 'UTC';

-- what an attempt ends in; ids and times are masked
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
		'\m\d{17,19}\M|\d{4}-\d\d-\d\d [-+:.\d]+', '<any>', 'g');
END $$;
-- only its SQLSTATE, or its status
CREATE FUNCTION pg_temp.ends(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	status text;
BEGIN
	EXECUTE 'SELECT status FROM ' || statement || ' LIMIT 1' INTO status;
	RETURN status;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- everything there is, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key, _hold, journal,
		reversal, exchange, exchange_residue, audit_record, transfer_pause, rate_limit}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, currency, min_available => NULL))
FROM (VALUES ('a', 'EUR'), ('b', 'EUR'), ('c', 'EUR'), ('d', 'EUR'), ('usd', 'USD'), ('usd2', 'USD'), ('old', 'EUR'), ('old2', 'EUR'), ('past', 'EUR'), ('past2', 'EUR')) AS v (code, currency);
SELECT finance.create_transfer_type('payout');
SET finance.tenant = :other;
SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest('{a, b}'::text[]) AS code;
SET finance.tenant = :tenant;

-- ------------------------------------------------------------------------
-- what cannot be paused
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS before \gset
SELECT call, pg_temp.attempt('SELECT finance.' || call) FROM unnest(ARRAY[
	$$pause_transfers(NULL, 'x')$$, $$pause_transfers('all', NULL)$$, $$pause_transfers('all', '')$$, $$pause_transfers('', 'x')$$,
	$$pause_transfers('some', 'x')$$, $$pause_transfers('ALL', 'x')$$, $$pause_transfers('tenant', 'x')$$, $$pause_transfers('account', 'x')$$,
	$$pause_transfers('account=', 'x')$$, $$pause_transfers('account =a', 'x')$$, $$pause_transfers('all=a', 'x')$$,
	$$pause_transfers('account=nobody', 'x')$$, $$pause_transfers('type=nothing', 'x')$$, $$pause_transfers('currency=XXL', 'x')$$,
	$$pause_transfers('account=' || repeat('x', 200), 'x')$$, $$pause_transfers(E'account=a\nb', 'x')$$,
	$$pause_transfers('all', repeat('x', 1025))$$, $$resume_transfers('some', 'x')$$, $$resume_transfers('all', NULL)$$
]) AS call;
SELECT finance.resume_transfers('all', 'nothing is paused'), finance.resume_transfers('account=nobody', 'x');
SELECT pg_temp.book() = :'before' AS unchanged;

-- ------------------------------------------------------------------------
-- each scope, and what it stops
-- ------------------------------------------------------------------------

CREATE VIEW pg_temp.flow AS
SELECT name, pg_temp.ends(call) FROM (VALUES
	(1, 'a to b', $$finance.transfer('a', 'b', 1)$$),
	(2, 'b to a', $$finance.transfer('b', 'a', 1)$$),
	(3, 'c to d', $$finance.transfer('c', 'd', 1)$$),
	(4, 'payout', $$finance.transfer('c', 'd', 1, type => 'payout')$$),
	(5, 'dollars', $$finance.transfer('usd', 'usd2', 1)$$),
	(6, 'hold', $$finance.hold('a', 'b', 1)$$),
	(7, 'payout hold', $$finance.hold('c', 'd', 1, type => 'payout')$$)) AS v (n, name, call)
ORDER BY n;

SELECT * FROM pg_temp.flow;
SELECT (finance.pause_transfers('all', 'fire drill')).paused;
SELECT * FROM pg_temp.flow;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1)$$);
SELECT tenant_id = :tenant AS mine, scope, account_id, reason, paused_by = current_user AS by, paused_session_user = session_user AS session, paused_at <= clock_timestamp() AS since
FROM finance.transfer_pause;
-- twice is once; another scope does not resume it
SELECT (finance.pause_transfers('all', 'again')).paused, finance.resume_transfers('account=a', 'wrong one');
SELECT reason FROM finance.transfer_pause;
SET finance.tenant = :other;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$) AS other_tenant;
SET finance.tenant = :tenant;
SELECT finance.resume_transfers('all', 'drill is over');
SELECT * FROM pg_temp.flow;

SET finance.actor = 'guard';
SELECT (finance.pause_transfers('account=a', 'stolen card')).paused;
RESET finance.actor;
SELECT * FROM pg_temp.flow;
SELECT finance.resume_transfers('account=a', 'found'), (finance.pause_transfers('type=payout', 'test')).paused;
SELECT * FROM pg_temp.flow;
SELECT finance.resume_transfers('type=payout', 'test'), (finance.pause_transfers('currency=USD', 'test')).paused;
SELECT * FROM pg_temp.flow;
SELECT finance.resume_transfers('currency=USD', 'test');
-- all tenants
SELECT (finance.pause_transfers('everywhere', 'break-in')).paused;
SELECT DISTINCT pg_temp.ends($$finance.transfer('c', 'd', 1)$$) AS here;
SET finance.tenant = :other;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$) AS there, pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1)$$);
SELECT tenant_id, scope, reason FROM finance.transfer_pause;
SELECT finance.resume_transfers('everywhere', 'over');
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$) AS there;
SET finance.tenant = :tenant;
-- several at once: any of them stops
SELECT (finance.pause_transfers(scope, 'test')).paused FROM unnest('{account=a, account=c, type=payout}'::text[]) AS scope;
SELECT * FROM pg_temp.flow;
SELECT finance.resume_transfers(scope, 'test') FROM unnest('{account=c, type=payout, account=a}'::text[]) AS scope;

-- the history is in the audit log
SELECT operation, status, actor = 'guard' AS guard, account_id IS NOT NULL AS account, request
FROM finance.audit_record WHERE tenant_id = :tenant AND operation IN ('pause_transfers', 'resume_transfers') ORDER BY id LIMIT 6;
SELECT operation, count(*) FROM finance.audit_record WHERE tenant_id IN (:tenant, :other) AND operation IN ('pause_transfers', 'resume_transfers')
GROUP BY operation ORDER BY operation;

-- ------------------------------------------------------------------------
-- everything that moves money is stopped, what gives it back is not
-- ------------------------------------------------------------------------

SELECT id AS moved FROM finance.transfer('a', 'b', 10, idempotency_key => 'first') \gset
SELECT hold_id AS h1 FROM finance.hold('a', 'b', 5) \gset
SELECT hold_id AS h2 FROM finance.hold('a', 'b', 5, hold_group => 'group') \gset
SELECT hold_id AS h3 FROM finance.hold('a', 'b', 5, hold_group => 'group') \gset
SELECT hold_id AS h4 FROM finance.hold('a', 'b', 5, expires_in => '1 hour') \gset
SELECT journal_id AS journal FROM finance.journal(ARRAY[finance.leg('a', 'debit', 2), finance.leg('b', 'credit', 2)], idempotency_key => 'journal') LIMIT 1 \gset
SELECT status FROM finance.transfer('a', 'old', 3);
SELECT (finance.pause_transfers('all', 'test')).paused;
SELECT pg_temp.book() AS before \gset
SELECT name, pg_temp.ends('finance.' || call) FROM (VALUES
	('transfer', $$transfer('a', 'b', 1)$$), ('up to', $$transfer('a', 'b', 1, amount_mode => 'up_to')$$), ('hold', $$hold('a', 'b', 1)$$),
	('capture', format('capture(%s)', :h1)), ('capture, final', format('capture(%s, 1, final => true)', :h1)), ('capture_group', $$capture_group('group')$$),
	('journal', $$journal(ARRAY[finance.leg('a', 'debit', 1), finance.leg('b', 'credit', 1)])$$),
	('exchange', $$exchange('a', 'usd', 1, 1, 'b', 'usd2')$$), ('distribute', $$distribute('a', '{b,c}', '{1,1}', 1)$$),
	('reverse_transfer', format('reverse_transfer(%s)', :moved)), ('reverse_journal', format('reverse_journal(%s)', :journal)),
	('close_account', $$close_account('old', 'b') AS v (status)$$)) AS v (name, call);
SELECT pg_temp.book() = :'before' AS unchanged;
-- what needs no money to move, or is answered already
SELECT finance.close_account('old2') IS NOT NULL AS closed_empty;
SELECT status, replayed FROM finance.transfer('a', 'b', 10, idempotency_key => 'first');
SELECT status, replayed, journal_id = :journal AS same FROM finance.journal(ARRAY[finance.leg('a', 'debit', 2), finance.leg('b', 'credit', 2)], idempotency_key => 'journal');
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 11, idempotency_key => 'first')$$);
SELECT status FROM finance.release(:h1, 1);
SELECT count(*) FROM finance.release_group('group');
SET finance.test_clock = '2080-01-01';
SELECT finance.expire_holds();
RESET finance.test_clock;
-- what was wrong with a request anyway is told first
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'nobody', 1)$$);
-- history
SELECT error, message, status FROM finance.import_transfers(ARRAY[finance.request('past', 'past2', 1, recorded_at => '2020-01-01')]);
SELECT error, message, detail ~ '^Scope is all, since .*: test$' AS detail FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1), finance.request(action => 'release', hold_id => :h1)]);
SELECT finance.resume_transfers('all', 'test');
SELECT pg_temp.ends($$finance.close_account('old', 'b') AS v (status)$$) ~ '^\d+$' AS closed;
-- of a batch only those that are concerned; of a chain all
SELECT (finance.pause_transfers('account=b', 'test')).paused;
SELECT position, error, status FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1), finance.request('a', 'c', 1),
	finance.request('a', 'c', 1, linked => true), finance.request('a', 'b', 1, linked => true), finance.request('a', 'd', 1), finance.request('a', 'd', 1)]);
SELECT finance.resume_transfers('account=b', 'test');

-- a transaction's own pause comes after what it moved before
BEGIN;
SELECT status FROM finance.transfer('a', 'b', 1);
SELECT (finance.pause_transfers('all', 'own')).paused;
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT status FROM finance.transfer('a', 'b', 1);
\set VERBOSITY default
ROLLBACK TO s;
COMMIT;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
-- rolled back, it is none; nor is a resumption
BEGIN;
SELECT finance.resume_transfers('all', 'own');
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
ROLLBACK;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
SELECT finance.resume_transfers('all', 'own');
BEGIN;
SAVEPOINT s;
SELECT (finance.pause_transfers('all', 'never')).paused;
ROLLBACK TO s;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
COMMIT;

-- no more than a thousand
SELECT count(finance.create_account('many ' || n, 'EUR')) FROM generate_series(1, 1001) AS n;
SELECT count(finance.pause_transfers('account=many ' || n, 'test')) FROM generate_series(1, 1000) AS n;
SELECT pg_temp.attempt($$SELECT finance.pause_transfers('account=many 1001', 'test')$$);
SELECT pg_temp.ends($$finance.transfer('a', 'many 1000', 1)$$), pg_temp.ends($$finance.transfer('a', 'many 1001', 1)$$);
SELECT count(*) FILTER (WHERE finance.resume_transfers('account=many ' || n, 'test')) FROM generate_series(1, 1001) AS n;
SELECT count(*) FROM finance.transfer_pause;

-- the table itself refuses what the functions do not write
SELECT pg_temp.attempt(format('INSERT INTO finance.transfer_pause VALUES (%s)', v)) FROM unnest(ARRAY[
	$$1, 'some', NULL, 'x', 'x', 'x'$$, $$1, 'everywhere', NULL, 'x', 'x', 'x'$$, $$1, 'account=a', NULL, 'x', 'x', 'x'$$]) AS v;

-- ------------------------------------------------------------------------
-- rate limits: what they cannot be
-- ------------------------------------------------------------------------

SELECT pg_temp.book() AS before \gset
SELECT call, pg_temp.attempt('SELECT finance.' || call) FROM unnest(ARRAY[
	$$set_rate_limit(NULL, 1, 1)$$, $$set_rate_limit('tenant', NULL, 1)$$, $$set_rate_limit('tenant', 1, NULL)$$, $$set_rate_limit('all', 1, 1)$$,
	$$set_rate_limit('everywhere', 1, 1)$$, $$set_rate_limit('currency=EUR', 1, 1)$$, $$set_rate_limit('account=nobody', 1, 1)$$, $$set_rate_limit('type=nothing', 1, 1)$$,
	$$set_rate_limit('tenant', 0, 1)$$, $$set_rate_limit('tenant', -1, 1)$$, $$set_rate_limit('tenant', 'NaN', 1)$$, $$set_rate_limit('tenant', 'Infinity', 1)$$,
	$$set_rate_limit('tenant', 1000000.000001, 1)$$, $$set_rate_limit('tenant', 0.0000001, 1)$$, $$set_rate_limit('tenant', 1, 0)$$, $$set_rate_limit('tenant', 1, 1000001)$$,
	$$drop_rate_limit('all')$$, $$drop_rate_limit(NULL)$$, $$rate_limits('nobody')$$
]) AS call;
SELECT finance.drop_rate_limit('tenant');
SELECT pg_temp.book() = :'before' AS unchanged;

-- ------------------------------------------------------------------------
-- each account alike, and one that is different
-- ------------------------------------------------------------------------

SET finance.test_clock = '2030-01-01 12:00+00';
SELECT finance.set_rate_limit('account', 0.5, 2);
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$), pg_temp.ends($$finance.hold('a', 'b', 1)$$), pg_temp.ends($$finance.transfer('a', 'b', 1)$$),
	pg_temp.ends($$finance.hold('a', 'b', 1)$$), pg_temp.ends($$finance.transfer('b', 'a', 1)$$) AS other_payer;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1)$$);
SELECT * FROM finance.rate_limits();
SELECT * FROM finance.rate_limits('a');
SELECT * FROM finance.rate_limits('b');
SELECT * FROM finance.rate_limits('c');
-- to the microsecond, in exact parts of a token
SET finance.test_clock = '2030-01-01 12:00:01.999999+00';
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 1)$$);
SELECT tokens FROM finance.rate_limits('a');
SET finance.test_clock = '2030-01-01 12:00:02+00';
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$), pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
-- a clock that steps back gives nothing, and takes nothing
SET finance.test_clock = '2030-01-01 11:00+00';
SELECT tokens FROM finance.rate_limits('a');
SET finance.test_clock = '2030-01-01 12:00:03+00';
SELECT tokens FROM finance.rate_limits('a');
-- never more than the burst
SET finance.test_clock = '2031-01-01 12:00+00';
SELECT tokens FROM finance.rate_limits('a');
SELECT finance.set_rate_limit('account=a', 100, 3);
SELECT n, pg_temp.ends($$finance.transfer('a', 'b', 1)$$) FROM generate_series(1, 4) AS n;
SELECT n, pg_temp.ends($$finance.transfer('b', 'a', 1)$$) FROM generate_series(1, 3) AS n;
SELECT * FROM finance.rate_limits('a');
SELECT tenant_id = :tenant AS mine, scope, account_id IS NOT NULL AS account, rate, burst FROM finance.rate_limit ORDER BY scope;
-- changed, it keeps what is left; dropped and set anew it is full
SELECT finance.set_rate_limit('account=a', 100, 5);
SELECT scope, tokens FROM finance.rate_limits() WHERE scope = 'account=a';
SET finance.test_clock = '2031-01-01 12:01+00';
SELECT scope, tokens FROM finance.rate_limits() WHERE scope = 'account=a';
SELECT n, pg_temp.ends($$finance.transfer('a', 'b', 1)$$) FROM generate_series(1, 2) AS n;
SELECT finance.set_rate_limit('account=a', 100.500, 1);
SELECT scope, rate, tokens FROM finance.rate_limits() WHERE scope = 'account=a';
SELECT finance.drop_rate_limit('account=a'), finance.drop_rate_limit('account=a');
SELECT finance.drop_rate_limit('account');
SELECT finance.set_rate_limit('account', 1, 1);
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$), pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
SELECT finance.drop_rate_limit('account');
SELECT n, pg_temp.ends($$finance.transfer('a', 'b', 1)$$) FROM generate_series(1, 3) AS n;

-- ------------------------------------------------------------------------
-- of the tenant and of a type; several at once: of each a token, or of none
-- ------------------------------------------------------------------------

SELECT finance.set_rate_limit('tenant', 1, 4), finance.set_rate_limit('type=payout', 0.1, 2), finance.set_rate_limit('account=a', 2, 1);
SELECT pg_temp.ends($$finance.transfer('c', 'd', 1, type => 'payout')$$), pg_temp.ends($$finance.transfer('a', 'd', 1, type => 'payout')$$);
SELECT * FROM finance.rate_limits();
-- the one that takes longest is told; the others keep theirs
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'd', 1, type => 'payout')$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'd', 1)$$);
SELECT * FROM finance.rate_limits();
SELECT pg_temp.ends($$finance.transfer('c', 'd', 1)$$), pg_temp.ends($$finance.transfer('c', 'd', 1)$$), pg_temp.ends($$finance.transfer('c', 'd', 1)$$);
SET finance.tenant = :other;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$) AS other_tenant;
SELECT * FROM finance.rate_limits();
SET finance.tenant = :tenant;
SELECT finance.drop_rate_limit(scope) FROM unnest('{tenant, type=payout, account=a}'::text[]) AS scope;

-- ------------------------------------------------------------------------
-- what takes no token
-- ------------------------------------------------------------------------

SELECT finance.set_rate_limit('account=a', 1, 10);
CREATE VIEW pg_temp.tokens AS SELECT tokens FROM finance.rate_limits();
SELECT status, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'k');
SELECT tokens FROM pg_temp.tokens;
SELECT n, status, replayed FROM generate_series(1, 5) AS n, LATERAL finance.transfer('a', 'b', 1, idempotency_key => 'k');
SELECT tokens AS after_repetitions FROM pg_temp.tokens;
SELECT pg_temp.attempt($$SELECT finance.transfer('a', 'b', 2, idempotency_key => 'k')$$), pg_temp.ends($$finance.transfer('a', 'nobody', 1)$$),
	pg_temp.ends($$finance.transfer('a', 'usd', 1)$$), pg_temp.ends($$finance.transfer('a', 'b', 1, expected_from_version => 0)$$);
SELECT tokens AS after_faults FROM pg_temp.tokens;
SELECT finance.add_rule('cap', 'transfer_limit', 500);
BEGIN;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 501)$$);
SELECT tokens AS after_rejection FROM pg_temp.tokens;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 501, strict => true)$$);
SELECT tokens AS after_strict_rejection FROM pg_temp.tokens;
-- nor is a rule asked for nothing by what fails behind it
SELECT position, error FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 499, linked => true), finance.request('a', 'nobody', 1)]);
SELECT tokens AS after_judged_chain FROM pg_temp.tokens;
ROLLBACK;
SELECT tokens AS after_rejections FROM pg_temp.tokens;
SELECT finance.add_rule('ask', 'transfer_limit', 500, outcome => 'review'), finance.remove_rule('cap');
SELECT pg_temp.ends($$finance.journal(ARRAY[finance.leg('a', 'debit', 501), finance.leg('b', 'credit', 501)])$$);
SELECT tokens AS after_not_parked FROM pg_temp.tokens;
SELECT finance.remove_rule('ask');
-- a new limit begins full
SELECT finance.drop_rate_limit('account=a');
SELECT finance.set_rate_limit('account=a', 1, 10);
SELECT n, pg_temp.ends($$finance.transfer('a', 'b', 1)$$) FROM generate_series(1, 2) AS n;
SELECT hold_id AS h FROM finance.hold('a', 'b', 5) \gset
SELECT tokens AS after_hold FROM pg_temp.tokens;
SELECT pg_temp.ends(format('finance.capture(%s, 1)', :h)), pg_temp.ends(format('finance.release(%s, 1)', :h)), pg_temp.ends(format('finance.capture(%s)', :h));
SELECT tokens AS after_captures FROM pg_temp.tokens;
-- without rules a chain that fails gives back what its members took; of a journal each leg counts
SELECT finance.retire_ruleset(version) FROM finance.ruleset WHERE tenant_id = :tenant AND mode = 'live';
SELECT position, error FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1, linked => true), finance.request('a', 'c', 1, linked => true), finance.request('a', 'nobody', 1)]);
SELECT tokens AS after_chain FROM pg_temp.tokens;
SELECT pg_temp.ends($$finance.journal(ARRAY[finance.leg('a', 'debit', 3), finance.leg('b', 'credit', 1), finance.leg('c', 'credit', 2)])$$);
SELECT tokens AS after_journal FROM pg_temp.tokens;
-- a rollback gives nothing back
BEGIN;
SELECT pg_temp.ends($$finance.transfer('a', 'b', 1)$$);
ROLLBACK;
SELECT tokens AS after_rollback FROM pg_temp.tokens;
-- a batch: each its own; what is repeated in it is free
SELECT position, error, message, detail, status FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1), finance.request('a', 'b', 1, idempotency_key => 'same'),
	finance.request('a', 'b', 1, idempotency_key => 'same'), finance.request('b', 'a', 1), finance.request('a', 'b', 1), finance.request('a', 'b', 1),
	finance.request('a', 'b', 1, idempotency_key => 'k'), finance.request('a', 'b', 1), finance.request('a', 'b', 1), finance.request('b', 'a', 1)]);
SELECT tokens FROM pg_temp.tokens;
-- a chain that asks for more than there is fails as one, and takes nothing
SET finance.test_clock = '2031-01-01 12:01:03+00';
SELECT position, error FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 1, linked => true), finance.request('a', 'b', 1, linked => true),
	finance.request('a', 'b', 1, linked => true), finance.request('a', 'b', 1), finance.request('a', 'c', 1)]);
SELECT tokens FROM pg_temp.tokens;
-- nothing is left, but what was answered is answered
SELECT n, pg_temp.ends($$finance.transfer('a', 'b', 1)$$) FROM generate_series(1, 3) AS n;
SELECT status, replayed FROM finance.transfer('a', 'b', 1, idempotency_key => 'k');
SELECT error, status FROM finance.import_transfers(ARRAY[finance.request('past', 'past2', 1, recorded_at => '2020-01-02')]);
SELECT finance.drop_rate_limit('account=a');

-- extremes: a token in 11 days, and a million at once
SELECT finance.set_rate_limit('account=c', 0.000001, 1000000), finance.set_rate_limit('account=d', 1000000, 1);
SELECT pg_temp.ends($$finance.transfer('c', 'a', 1)$$), pg_temp.ends($$finance.transfer('d', 'a', 1)$$), pg_temp.attempt($$SELECT finance.transfer('d', 'a', 1)$$);
SELECT * FROM finance.rate_limits();
SET finance.test_clock = '2031-01-01 12:01:03.000001+00';
SELECT * FROM finance.rate_limits();
SELECT finance.set_rate_limit('account=c', 0.000001, 1);
SELECT pg_temp.ends($$finance.transfer('c', 'a', 1)$$), pg_temp.attempt($$SELECT finance.transfer('c', 'a', 1)$$);
SELECT finance.drop_rate_limit(scope) FROM unnest('{account=c, account=d}'::text[]) AS scope;
RESET finance.test_clock;

SELECT operation, request::text, count(*) FROM finance.audit_record WHERE tenant_id = :tenant AND operation IN ('set_rate_limit', 'drop_rate_limit')
GROUP BY 1, 2 ORDER BY operation DESC, min(id);
SELECT pg_temp.attempt(format('INSERT INTO finance.rate_limit VALUES (%s)', v)) FROM unnest(ARRAY[
	$$1, 'all', NULL, 1, 1, 1$$, $$1, 'account=a', NULL, 1, 1, 1$$, $$1, 'tenant', NULL, 1, 0, 1$$, $$1, 'tenant', NULL, 1, 0.0000001, 1$$,
	$$1, 'tenant', NULL, 1, 'NaN', 1$$, $$1, 'tenant', NULL, 1, 1, 0$$, $$1, 'tenant', NULL, 0, 1, 1$$]) AS v;

SELECT * FROM finance.check_integrity();
