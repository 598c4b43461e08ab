-- Of two things wrong with one request, which is told: in pairs, each of which
-- the first named wins.  README.md has the whole order, and compares it with
-- that of TigerBeetle's create_transfers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
INSERT INTO finance.tenant (tenant_id, name) VALUES (1053, 'precedence test');
SET finance.tenant = 1053;
SET finance.test_clock = '2050-05-01 12:00+00';

CREATE FUNCTION pg_temp.without_ids(message text) RETURNS text
LANGUAGE sql AS $$ SELECT regexp_replace(message, '\m\d{17,19}\M', '<id>', 'g') $$;

-- each request by itself; what is answered, and nothing stays of what came off
CREATE TABLE pg_temp.pair (n serial, first text, second text, request finance.transfer_request);
CREATE FUNCTION pg_temp.answers() RETURNS TABLE (first text, "before" text, error text, message text, field text)
LANGUAGE plpgsql AS $$
DECLARE
	p record;
	r finance.batch_result;
BEGIN
	FOR p IN SELECT * FROM pg_temp.pair ORDER BY n LOOP
		BEGIN
			SELECT * INTO r FROM finance.transfer_batch(ARRAY[p.request]);
			RAISE EXCEPTION USING errcode = 'P0000';
		EXCEPTION WHEN SQLSTATE 'P0000' THEN
			RETURN QUERY SELECT p.first, p.second, coalesce(r.error, r.status),
				pg_temp.without_ids(r.message), substring(r.detail FROM 'whose (\w+) differs');
		END;
	END LOOP;
	TRUNCATE pg_temp.pair;
END $$;
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
	-- no expected file knows the time
	RETURN pg_temp.without_ids(concat_ws(' | ', SQLSTATE, message,
		nullif(regexp_replace(detail, 'Its last one is of .*', '<times>'), '')));
END $$;

SELECT count(finance.create_account(code, currency, min_available => floor, max_balance => ceiling))
  FROM (VALUES ('world', 'EUR', NULL, NULL), ('alice', 'EUR', 0, NULL), ('bob', 'EUR', 0, NULL),
	('carol', 'EUR', 0, NULL), ('dave', 'EUR', 0, NULL), ('capped', 'EUR', 0, 10),
	('mint', 'EUR', NULL, NULL), ('hoard', 'EUR', 0, NULL), ('dollars', 'USD', 0, NULL),
	('empty', 'EUR', 0, NULL), ('full', 'EUR', 0, 0), ('gone', 'EUR', 0, NULL))
	AS a (code, currency, floor, ceiling);
SELECT count(*) FROM finance.transfer('world', 'alice', 1000, idempotency_key => 'opening') t;
SELECT count(*) FROM finance.transfer('world', 'carol', 100) t;
SELECT count(*) FROM finance.transfer('mint', 'hoard', repeat('9', 36)::numeric) t;
SELECT hold_id AS open FROM finance.hold('carol', 'dave', 30) \gset
SELECT hold_id AS used FROM finance.hold('alice', 'bob', 30) \gset
SELECT count(*) FROM finance.capture(:used) t;
SELECT hold_id AS returned FROM finance.hold('alice', 'bob', 30) \gset
SELECT count(*) FROM finance.release(:returned) t;
SELECT hold_id AS lapsed FROM finance.hold('alice', 'bob', 30, expires_in => '1 minute') \gset
SET finance.test_clock = '2050-05-01 12:05+00';
SELECT finance.set_account_status('carol', 'frozen') > 0 AS carol, finance.set_account_status('dave', 'frozen') > 0 AS dave,
	finance.close_account('gone') > 0 AS gone;

-- ------------------------------------------------------------------------
-- what the request alone tells, then the key, then the accounts
-- ------------------------------------------------------------------------

INSERT INTO pg_temp.pair (first, second, request) VALUES
('action', 'accounts null', finance.request(action => 'pay', amount => 1)),
('account null', 'amount null', finance.request('alice')),
('amount mode', 'amount null', finance.request('alice', 'bob', amount_mode => 'most')),
('amount null', 'version negative', finance.request('alice', 'bob', expected_from_version => -1)),
('version negative', 'reference empty', finance.request('alice', 'bob', 1, expected_to_version => -1, reference => '')),
('malformed', 'key used', finance.request('alice', 'bob', 1, idempotency_key => 'opening', type => '')),
('malformed', 'account unknown', finance.request('nobody', 'bob', 1, effective_at => 'infinity')),
('key used', 'account unknown', finance.request('nobody', 'bob', 1, idempotency_key => 'opening')),
('key used', 'amount NaN', finance.request('world', 'alice', 'NaN', idempotency_key => 'opening')),
('key used', 'funds', finance.request('bob', 'alice', 5000, idempotency_key => 'opening')),
('key used', 'hold unknown', finance.request(action => 'capture', hold_id => 1, idempotency_key => 'opening')),
('payer unknown', 'payee unknown', finance.request('nobody', 'no one', 1)),
('same account', 'account unknown', finance.request('nobody', 'nobody', 1)),
('account unknown', 'amount of too many decimals', finance.request('alice', 'nobody', 0.001)),
('same account', 'amount zero', finance.request('alice', 'alice', 0)),
('amount zero', 'type unknown', finance.request('alice', 'bob', 0, type => 'gift')),
('type unknown', 'currencies', finance.request('alice', 'dollars', 1, type => 'gift')),
('type not allowed', 'currencies', finance.request('alice', 'dollars', 1, type => 'fee')),
('currencies', 'currency stated', finance.request('alice', 'dollars', 1, 'JPY')),
('currency stated', 'payer frozen', finance.request('carol', 'bob', 1, 'USD'));
SELECT * FROM pg_temp.answers();

-- ------------------------------------------------------------------------
-- statuses, versions, totals, funds, ceilings, risk
-- ------------------------------------------------------------------------

SELECT finance.add_rule('small', 'transfer_limit', 5);
INSERT INTO pg_temp.pair (first, second, request) VALUES
('payer frozen', 'payee closed', finance.request('carol', 'gone', 1)),
('payee closed', 'version', finance.request('alice', 'gone', 1, expected_from_version => 77)),
('version of the payer', 'of the payee', finance.request('alice', 'bob', 1, expected_from_version => 77, expected_to_version => 78)),
('version of the payee', 'funds', finance.request('bob', 'alice', 5000, expected_to_version => 78)),
('version', 'totals', finance.request('alice', 'hoard', repeat('9', 36)::numeric, expected_to_version => 78)),
('totals', 'funds', finance.request('alice', 'hoard', repeat('9', 36)::numeric)),
('funds', 'ceiling', finance.request('bob', 'capped', 5000)),
('funds', 'ceiling, up to', finance.request('empty', 'full', amount_mode => 'up_to')),
('ceiling', 'risk', finance.request('alice', 'capped', 50)),
('risk', 'nothing', finance.request('alice', 'bob', 50));
SELECT * FROM pg_temp.answers();

-- ------------------------------------------------------------------------
-- holds
-- ------------------------------------------------------------------------

INSERT INTO pg_temp.pair (first, second, request) VALUES
('hold_id null', 'payer given', finance.request('alice', action => 'capture')),
('payer given', 'hold unknown', finance.request('alice', action => 'capture', hold_id => 1)),
('expiry of a transfer', 'account unknown', finance.request('nobody', 'bob', 1, expires_in => '1 hour')),
('hold unknown', 'amount negative', finance.request(action => 'capture', hold_id => 1, amount => -1)),
('amount negative', 'currency', finance.request(action => 'capture', hold_id => :open, amount => -1, currency => 'USD')),
('currency', 'hold used up', finance.request(action => 'capture', hold_id => :used, currency => 'USD')),
('hold used up', 'more than was held', finance.request(action => 'capture', hold_id => :used, amount => 31)),
('hold released', 'more than was held', finance.request(action => 'capture', hold_id => :returned, amount => 31)),
('hold over', 'more than was held', finance.request(action => 'capture', hold_id => :lapsed, amount => 31)),
('hold released', 'hold over', finance.request(action => 'release', hold_id => :returned)),
('more than is left', 'frozen', finance.request(action => 'capture', hold_id => :open, amount => 31)),
('frozen', 'version', finance.request(action => 'capture', hold_id => :open, expected_from_version => 77)),
('version', 'frozen, to release', finance.request(action => 'release', hold_id => :open, expected_from_version => 77)),
('nothing', 'frozen, to release', finance.request(action => 'release', hold_id => :open)),
('nothing', 'over, to release', finance.request(action => 'release', hold_id => :lapsed));
SELECT * FROM pg_temp.answers();

-- ------------------------------------------------------------------------
-- chains: the culprit has its own error, the last one, if linked, its own too
-- ------------------------------------------------------------------------

SELECT position, error, message, detail, status FROM finance.transfer_batch(ARRAY[
	finance.request('alice', 'bob', 1, linked => true),
	finance.request('alice', 'nobody', 1, linked => true),
	finance.request('nobody', 'alice', 1),
	finance.request('alice', 'bob', 1, linked => true),
	finance.request('alice', 'bob', amount => NULL, linked => true)]);
SELECT position, error, message, status FROM finance.transfer_batch(ARRAY[
	finance.request('nobody', 'bob', 1, linked => true),
	finance.request('alice', 'bob', 1, linked => true)]);
-- a repeated member has come off: the chain goes on
SELECT position, error, status, replayed FROM finance.transfer_batch(ARRAY[
	finance.request('world', 'alice', 1000, idempotency_key => 'opening', linked => true),
	finance.request('alice', 'bob', 1)]);
-- one of another content has not
SELECT position, error, message, status FROM finance.transfer_batch(ARRAY[
	finance.request('world', 'alice', 1001, idempotency_key => 'opening', linked => true),
	finance.request('alice', 'bob', 1)]);

-- ------------------------------------------------------------------------
-- reversals
-- ------------------------------------------------------------------------

SELECT id AS paid FROM finance.transfer('alice', 'bob', 3) \gset
SELECT id AS back FROM finance.reverse_transfer(:paid, 1) \gset
SELECT pg_temp.attempt(s) FROM (VALUES
	('SELECT finance.reverse_transfer(1, 0)'),								-- unknown, amount
	(format('SELECT finance.reverse_transfer(%s, 0)', :back)),				-- amount, reversal
	(format('SELECT finance.reverse_transfer(%s, 9)', :back)),				-- reversal, more than is left
	(format('SELECT finance.reverse_transfer(%s, 9)', :used)),				-- moved nothing, more than is left
	(format('SELECT finance.reverse_transfer(%s, 2.5)', :paid))) q (s);		-- more than is left
SELECT finance.set_account_status('bob', 'frozen') > 0 AS bob;
SELECT pg_temp.attempt(s) FROM (VALUES
	(format('SELECT finance.reverse_transfer(%s, 2.5)', :paid)),			-- more than is left, frozen
	(format('SELECT finance.reverse_transfer(%s)', :paid))) q (s);
SELECT finance.set_account_status('bob', 'active') > 0 AS bob;

-- ------------------------------------------------------------------------
-- history
-- ------------------------------------------------------------------------

SELECT pg_temp.attempt(format('SELECT finance.import_transfers(ARRAY[%s])', r)) FROM (VALUES
	('finance.request(''alice'', ''bob'', 1)'),								-- no time
	('finance.request(''alice'', ''bob'', recorded_at => ''2019-01-01'')'),	-- malformed, time
	('finance.request(''alice'', ''bob'', 1, action => ''hold'', recorded_at => ''2019-01-01'')'),	-- action, time
	('finance.request(''nobody'', ''bob'', 1, recorded_at => ''2019-01-01'')'),	-- time, unknown
	('finance.request(''alice'', ''bob'', 0, recorded_at => ''2021-01-01'')'),	-- amount, later transfers
	('finance.request(''alice'', ''dollars'', 1, recorded_at => ''2021-01-01'')'),	-- later transfers, currencies
	('finance.request(''alice'', ''bob'', 1, recorded_at => ''2021-01-01'', type => ''gift'')')) q (r);	-- later, type

-- ------------------------------------------------------------------------
-- a key of another request: the first field that differs is named
-- ------------------------------------------------------------------------

SELECT count(*) FROM finance.transfer('alice', 'bob', 1, idempotency_key => 'paid', reference => 'r',
	metadata => '{"a": 1}', effective_at => '2050-01-01 00:00+00', expected_from_version => NULL) t;
SELECT count(*) FROM finance.hold('alice', 'bob', 1, idempotency_key => 'held', expires_in => '1 day', hold_group => 'g') t;
SELECT count(*) FROM finance.transfer('alice', 'bob', 2, amount_mode => 'up_to', idempotency_key => 'up to') t;
INSERT INTO pg_temp.pair (first, second, request) VALUES
('nothing', 'linked, currency', finance.request('alice', 'bob', 1, 'EUR', 'paid', effective_at => '2050-01-01 00:00+00', reference => 'r', metadata => '{"a": 1}')),
('action', 'from_account', finance.request('bob', 'bob', 1, idempotency_key => 'paid', action => 'hold')),
('amount_mode', 'from_account', finance.request('carol', 'alice', 9, idempotency_key => 'paid', amount_mode => 'up_to')),
('from_account', 'to_account', finance.request('carol', 'alice', 9, idempotency_key => 'paid')),
('to_account', 'amount', finance.request('alice', 'carol', 9, idempotency_key => 'paid')),
('amount', 'currency', finance.request('alice', 'bob', 9, 'USD', 'paid')),
('currency', 'type', finance.request('alice', 'bob', 1, 'USD', 'paid', 'payment')),
('type', 'expected_from_version', finance.request('alice', 'bob', 1, idempotency_key => 'paid', type => 'payment', expected_from_version => 7)),
('expected_from_version', 'expected_to_version', finance.request('alice', 'bob', 1, idempotency_key => 'paid', expected_from_version => 7, expected_to_version => 7)),
('expected_to_version', 'effective_at', finance.request('alice', 'bob', 1, idempotency_key => 'paid', expected_to_version => 7)),
('effective_at', 'reference', finance.request('alice', 'bob', 1, idempotency_key => 'paid')),
('reference', 'metadata', finance.request('alice', 'bob', 1, idempotency_key => 'paid', effective_at => '2050-01-01 00:00+00')),
('metadata', 'nothing', finance.request('alice', 'bob', 1, idempotency_key => 'paid', effective_at => '2050-01-01 00:00+00', reference => 'r')),
('action', 'expires_in', finance.request('alice', 'bob', 1, idempotency_key => 'held')),
('expires_in', 'hold_group', finance.request('alice', 'bob', 1, idempotency_key => 'held', action => 'hold')),
('hold_group', 'from_account', finance.request('carol', 'bob', 1, idempotency_key => 'held', action => 'hold', expires_in => '1 day')),
('from_account', 'amount', finance.request('carol', 'bob', 9, idempotency_key => 'held', action => 'hold', expires_in => '1 day', hold_group => 'g')),
('amount of an up_to', 'from_account', finance.request('carol', 'bob', 3, idempotency_key => 'up to', amount_mode => 'up_to'));
SELECT * FROM pg_temp.answers();

-- ------------------------------------------------------------------------
-- the first answer again, whatever became of the accounts
-- ------------------------------------------------------------------------

SELECT finance.remove_rule('small');
SELECT count(*) FROM finance.transfer('bob', 'alice', 1, idempotency_key => 'before') t;
SELECT finance.set_account_status('bob', 'frozen') > 0 AS bob;
SELECT count(*) FROM finance.transfer('alice', 'world', amount => NULL, amount_mode => 'up_to') t;
SELECT status, amount, replayed FROM finance.transfer('bob', 'alice', 1, idempotency_key => 'before');
SELECT pg_temp.attempt($$SELECT finance.transfer('bob', 'alice', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('bob', 'alice', 2, idempotency_key => 'before')$$);
-- what failed is not remembered
SELECT pg_temp.attempt($$SELECT finance.transfer('bob', 'alice', 1, idempotency_key => 'after')$$);
SELECT finance.set_account_status('bob', 'active') > 0 AS bob;
SELECT status, replayed FROM finance.transfer('bob', 'alice', 1, idempotency_key => 'after');

SELECT * FROM finance.check_integrity();
RESET finance.test_clock;
RESET finance.tenant;
