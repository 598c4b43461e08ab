-- Accounts: defaults, limits, the status machine, and what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('account test') AS tenant \gset
SET finance.tenant = :tenant;

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
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')), '\m\d{17,19}\M', '<id>', 'g');
END $$;

-- everything there is, as one number
CREATE FUNCTION pg_temp.book() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	name text;
	part text;
	whole text := '';
BEGIN
	FOREACH name IN ARRAY '{_account, account_change, transfer, _hold, journal, idempotency_key,
		audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- ------------------------------------------------------------------------
-- create_account
-- ------------------------------------------------------------------------

SELECT finance.create_account('plain', 'EUR') > 0 AS has_id;
SELECT finance.create_account('source', 'EUR', 'equity', NULL) > 0 AS has_id;
SELECT finance.create_account(code => 'overdraft', currency => 'EUR', type => 'asset',
	min_available => -100.5, max_balance => 1000, metadata => '{"owner": 7}') > 0 AS has_id;
SELECT finance.create_account('full from the start', 'JPY', max_balance => 0) > 0 AS has_id;
SELECT code, currency, type, status, balance, held, available, min_available, max_balance,
	debits_posted, credits_posted, debits_pending, credits_pending, version, metadata,
	created_at <= clock_timestamp() AND created_at > clock_timestamp() - interval '1 hour' AS created,
	finance.id_time(account_id) <= clock_timestamp() AS id_of_now
FROM finance.account WHERE tenant_id = :tenant ORDER BY code COLLATE "C" \gx
SELECT finance.balance('plain');
SELECT operation, status, currency, request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'create_account' ORDER BY id;

-- the longest there may be, in bytes
SELECT finance.create_account_type(repeat('t', 63), 'credit');
SELECT finance.create_account(repeat(U&'\00E9', 64), 'EUR', repeat('t', 63)) > 0 AS has_id;

SELECT what, pg_temp.attempt('SELECT finance.create_account(' || arguments || ')')
FROM (VALUES
	(1, 'code taken', '''plain'', ''EUR'''),
	(2, 'code taken, otherwise different', '''plain'', ''JPY'', ''asset'''),
	(3, 'unknown currency', '''a1'', ''XXX'''),
	(4, 'currency in small letters', '''a1'', ''eur'''),
	(5, 'null code', 'NULL, ''EUR'''),
	(6, 'null currency', '''a1'', NULL'),
	(7, 'null type', '''a1'', ''EUR'', NULL'),
	(8, 'empty code', ''''', ''EUR'''),
	(9, 'empty currency', '''a1'', '''''),
	(10, 'empty type', '''a1'', ''EUR'', '''''),
	(11, 'code of 129 bytes', 'repeat(''a'', 129), ''EUR'''),
	(12, 'code of 65 characters in 130 bytes', 'repeat(U&''\00E9'', 65), ''EUR'''),
	(13, 'currency of 17 bytes', '''a1'', repeat(''A'', 17)'),
	(14, 'type of 64 bytes', '''a1'', ''EUR'', repeat(''t'', 64)'),
	(15, 'newline in the code', 'E''a\n1'', ''EUR'''),
	(16, 'delete in the code', 'E''a\x7f'', ''EUR'''),
	(17, 'tab in the type', '''a1'', ''EUR'', E''\t'''),
	(18, 'floor above zero', '''a1'', ''EUR'', min_available => 0.01'),
	(19, 'ceiling below zero', '''a1'', ''EUR'', max_balance => -0.01'),
	(20, 'floor is not a number', '''a1'', ''EUR'', min_available => ''NaN'''),
	(21, 'infinite floor', '''a1'', ''EUR'', min_available => ''-Infinity'''),
	(22, 'infinite ceiling', '''a1'', ''EUR'', max_balance => ''Infinity'''),
	(23, 'ceiling is not a number', '''a1'', ''EUR'', max_balance => ''NaN'''),
	(24, 'floor of three decimals', '''a1'', ''EUR'', min_available => -0.001'),
	(25, 'ceiling of three decimals', '''a1'', ''EUR'', max_balance => 0.001'),
	(26, 'ceiling of 39 digits', '''a1'', ''EUR'', max_balance => 1e36'),
	(27, 'floor of 39 digits', '''a1'', ''EUR'', min_available => -1e36')
) AS t (n, what, arguments) ORDER BY n;

-- the largest limits there may be
BEGIN;
SELECT finance.create_account('widest', 'EUR', min_available => -999999999999999999999999999999999999.99,
	max_balance => 999999999999999999999999999999999999.99) > 0 AS has_id;
SELECT min_available, max_balance FROM finance.account WHERE code = 'widest';
ROLLBACK;

-- metadata is bounded by finance.max_payload
SET finance.max_payload = 1024;
SELECT pg_temp.attempt($$SELECT finance.create_account('a1', 'EUR',
	metadata => jsonb_build_object('x', repeat('x', 1024)))$$) LIKE 'LG303 | metadata is too large | %';
RESET finance.max_payload;
SELECT count(*) FROM finance.account WHERE code = 'a1';

-- an account that was rolled back is not remembered
BEGIN;
SELECT finance.create_account('gone', 'EUR') > 0 AS has_id;
SELECT status FROM finance.transfer('source', 'gone', 1);
SELECT finance.set_account_status('gone', 'frozen');
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'gone', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('gone', 'frozen')$$);
SELECT pg_temp.attempt($$SELECT finance.balance('gone')$$);
SELECT finance.create_account('gone', 'JPY') > 0 AS has_id;
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'gone', 1)$$);
SELECT finance.balance('gone');

-- ------------------------------------------------------------------------
-- floors and ceilings
-- ------------------------------------------------------------------------

-- no floor: any depth; a floor of zero: nothing below
SELECT from_balance FROM finance.transfer('source', 'plain', 1000000);
SELECT pg_temp.attempt($$SELECT finance.transfer('plain', 'source', 1000000.01)$$);
SELECT from_balance FROM finance.transfer('plain', 'source', 1000000);
SELECT pg_temp.attempt($$SELECT finance.transfer('plain', 'source', 0.01)$$);

-- a floor below zero is an overdraft, to the cent
SELECT pg_temp.attempt($$SELECT finance.transfer('overdraft', 'plain', 100.51)$$);
SELECT from_balance, from_available FROM finance.transfer('overdraft', 'plain', 100.50);
SELECT pg_temp.attempt($$SELECT finance.transfer('overdraft', 'plain', 0.01)$$);

-- the ceiling, to the cent
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'overdraft', 1100.51)$$);
SELECT to_balance FROM finance.transfer('source', 'overdraft', 1100.50);
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'overdraft', 0.01)$$);

-- ------------------------------------------------------------------------
-- set_account_limits
-- ------------------------------------------------------------------------

SELECT version FROM finance.account WHERE code = 'overdraft';
SELECT finance.set_account_limits('overdraft', -200, 2000, 'good customer');
SELECT finance.set_account_limits(code => 'overdraft', min_available => 1000, max_balance => 1000);
SELECT finance.set_account_limits('overdraft', NULL, NULL);
SELECT min_available, max_balance, version FROM finance.account WHERE code = 'overdraft';
SELECT from_balance FROM finance.transfer('overdraft', 'source', 5000);

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.set_account_limits(' || arguments || ')')
FROM (VALUES
	(1, 'floor above what is available', '''overdraft'', 0, NULL'),
	(2, 'ceiling below the balance', '''overdraft'', NULL, -4000.01'),
	(3, 'unknown account', '''nobody'', 0, NULL'),
	(4, 'null code', 'NULL, 0, NULL'),
	(5, 'NaN', '''overdraft'', ''NaN'', NULL'),
	(6, 'Infinity', '''overdraft'', NULL, ''Infinity'''),
	(7, 'more decimals than the currency', '''overdraft'', -9999.999, NULL'),
	(8, 'empty reason', '''overdraft'', NULL, NULL, '''''),
	(9, 'long reason', '''overdraft'', NULL, NULL, repeat(''r'', 1025)')
) AS t (n, what, arguments) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- set_account_status
-- ------------------------------------------------------------------------

SELECT finance.create_account('status', 'EUR') > 0 AS has_id;
SELECT to_balance FROM finance.transfer('source', 'status', 10);
SELECT finance.set_account_status('status', 'frozen', 'a court says so');
-- setting what it has changes nothing
SELECT finance.set_account_status('status', 'frozen');
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'status', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('status', 'source', 1)$$);
-- limits of a frozen account may change
SELECT finance.set_account_limits('status', 0, 50);
-- frozen or active, it closes only at zero
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'closed')$$);
SELECT finance.set_account_status('status', 'active');
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'closed')$$);
SELECT from_balance FROM finance.transfer('status', 'source', 10);
SELECT finance.set_account_status(code => 'status', status => 'closed', reason => 'moved away');
SELECT finance.set_account_status('status', 'closed');
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'status', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('status', 'source', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'active')$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_status('status', 'frozen')$$);
-- its code stays taken
SELECT pg_temp.attempt($$SELECT finance.create_account('status', 'EUR')$$);
-- a frozen account at zero closes; below zero it does not
SELECT finance.set_account_status('plain', 'frozen') > 0 AS set;
SELECT pg_temp.attempt($$SELECT finance.set_account_status('overdraft', 'closed')$$);

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.set_account_status(' || arguments || ')')
FROM (VALUES
	(1, 'unknown account', '''nobody'', ''frozen'''),
	(2, 'unknown status', '''source'', ''dormant'''),
	(3, 'capital letters', '''source'', ''Frozen'''),
	(4, 'null code', 'NULL, ''frozen'''),
	(5, 'null status', '''source'', NULL'),
	(6, 'empty status', '''source'', '''''),
	(7, 'empty reason', '''source'', ''frozen'', '''''),
	(8, 'long reason', '''source'', ''frozen'', repeat(''r'', 1025)'),
	(9, 'control character in the reason', '''source'', ''frozen'', E''a\rb''')
) AS t (n, what, arguments) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- an error or a savepoint takes it all back
BEGIN;
SAVEPOINT s;
SELECT finance.set_account_status('source', 'frozen') > 0 AS set;
SELECT finance.set_account_limits('source', NULL, 1e6) > 0 AS set;
SELECT pg_temp.book() <> :'before' AS changed;
ROLLBACK TO s;
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT status FROM finance.transfer('overdraft', 'source', 1);
ROLLBACK;

-- every change is there, with its reason and both values
SELECT a.code, c.version, c.change, c.old_value, c.new_value, c.reason, c.actor = current_user AS by_user
FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE c.tenant_id = :tenant ORDER BY c.changed_at, c.version;
SELECT operation, status, request->>'code' AS code, request->>'reason' AS reason
FROM finance.audit_record
WHERE tenant_id = :tenant AND operation LIKE 'set_account%' ORDER BY id;

-- ------------------------------------------------------------------------
-- what each status lets pass
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR')) FROM (VALUES ('m'), ('n')) AS v (code);
SELECT count(finance.transfer('source', code, 100)) FROM (VALUES ('m'), ('n')) AS v (code);
CREATE TEMP TABLE held (way text, hold_id bigint);
INSERT INTO held SELECT 'out', h.hold_id FROM finance.hold('m', 'source', 50) h;
INSERT INTO held SELECT 'in', h.hold_id FROM finance.hold('n', 'm', 50) h;

CREATE FUNCTION pg_temp.passes(status text) RETURNS TABLE (what text, outgoing text, incoming text)
LANGUAGE plpgsql AS $$
DECLARE
	way_out bigint := (SELECT hold_id FROM held WHERE way = 'out');
	way_in bigint := (SELECT hold_id FROM held WHERE way = 'in');
BEGIN
	PERFORM finance.set_account_status('m', status, 'to see');
	RETURN QUERY SELECT t.what, split_part(pg_temp.attempt('SELECT finance.' || t.outgoing), ' |', 1),
		split_part(pg_temp.attempt('SELECT finance.' || t.incoming), ' |', 1)
	FROM (VALUES (1, 'transfer', 'transfer(''m'', ''source'', 1)', 'transfer(''n'', ''m'', 1)'),
		(2, 'hold', 'hold(''m'', ''source'', 1)', 'hold(''n'', ''m'', 1)'),
		(3, 'capture', format('capture(%s, 1)', way_out), format('capture(%s, 1)', way_in)),
		(4, 'release', format('release(%s, 1)', way_out), format('release(%s, 1)', way_in))
	) AS t (n, what, outgoing, incoming) ORDER BY t.n;
END $$;
SELECT 'active' AS status, * FROM pg_temp.passes('active');
SELECT 'debits_frozen' AS status, * FROM pg_temp.passes('debits_frozen');
SELECT 'credits_frozen' AS status, * FROM pg_temp.passes('credits_frozen');
SELECT 'frozen' AS status, * FROM pg_temp.passes('frozen');
-- each after each other
SELECT string_agg(finance.set_account_status('m', status, 'in turn')::text, ' ') AS versions
FROM unnest('{debits_frozen, active, credits_frozen, debits_frozen, frozen, credits_frozen, active, frozen, active}'::text[]) AS status;
SELECT c.old_value->>'status' AS was, c.new_value->>'status' AS is_now, c.reason
FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE a.code = 'm' AND a.tenant_id = :tenant ORDER BY c.version;
SELECT request->'old' AS was, request->'new' AS is_now, request->>'reason' AS reason FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'set_account_status' AND request->>'code' = 'm' ORDER BY id LIMIT 2;
SELECT finance.set_account_status('m', 'debits_frozen') > 0 AS set, pg_temp.attempt($$SELECT finance.transfer('m', 'source', 1)$$);
SELECT finance.set_account_status('m', 'credits_frozen') > 0 AS set, pg_temp.attempt($$SELECT finance.transfer('n', 'm', 1)$$);
-- a hold whose time is over expires on a frozen account
SELECT finance.set_account_status('m', 'active') > 0 AS set;
SELECT hold_id AS overdue FROM finance.hold('m', 'n', 5, expires_in => '1 hour') \gset
SELECT finance.set_account_status('m', 'frozen') > 0 AS set;
BEGIN;
SELECT set_config('finance.test_clock', (clock_timestamp() + interval '2 hours')::text, true) IS NOT NULL AS later;
SELECT status, amount, from_available FROM finance.release(:overdue);
ROLLBACK;
-- setting the status it has leaves no trace
SELECT pg_temp.book() AS before \gset
SELECT finance.set_account_status('m', 'frozen', 'again') = version AS same_version FROM finance.account WHERE code = 'm' AND tenant_id = :tenant;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- limits count what is held, either way; one changes without the other
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR')) FROM (VALUES ('limits'), ('other')) AS v (code);
SELECT count(finance.transfer('source', code, 100)) FROM (VALUES ('limits'), ('other')) AS v (code);
SELECT hold_id AS outgoing FROM finance.hold('limits', 'other', 30) \gset
SELECT hold_id AS incoming FROM finance.hold('other', 'limits', 20) \gset
SELECT what, pg_temp.attempt('SELECT finance.' || call) FROM (VALUES
	(1, 'floor above what is available', 'set_min_available(''limits'', 70.01)'),
	(2, 'ceiling below balance and what comes', 'set_max_balance(''limits'', 119.99)'),
	(3, 'both', 'set_account_limits(''limits'', 70.01, 119.99)'),
	(4, 'floor to the cent', 'set_min_available(''limits'', 70, ''pledged'')'),
	(5, 'ceiling to the cent', 'set_max_balance(code => ''limits'', max_balance => 120, reason => ''capped'')')
) AS t (n, what, call) ORDER BY n;
SELECT min_available, max_balance, balance, held, available, version FROM finance.account WHERE code = 'limits' AND tenant_id = :tenant;
-- what was held passes, nothing else does
SELECT pg_temp.attempt($$SELECT finance.hold('limits', 'other', 0.01)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('other', 'limits', 0.01)$$);
SELECT from_available FROM finance.capture(:outgoing, 10);
SELECT to_balance FROM finance.capture(:incoming);
SELECT finance.set_min_available('limits', NULL) > 0 AS set;
SELECT finance.set_max_balance('limits', NULL) > 0 AS set;
SELECT change, old_value, new_value, reason FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE a.code = 'limits' AND a.tenant_id = :tenant ORDER BY c.version;
SELECT operation, request->'old'->>'min_available' AS floor_was, request->'new'->>'max_balance' AS ceiling_is, request->>'reason' AS reason
FROM finance.audit_record WHERE tenant_id = :tenant AND request->>'code' = 'limits' AND operation LIKE 'set\_%' ORDER BY id;

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.' || call) FROM (VALUES
	(1, 'unknown account', 'set_min_available(''nobody'', 0)'),
	(2, 'unknown account', 'set_max_balance(''nobody'', 0)'),
	(3, 'null code', 'set_min_available(NULL, 0)'),
	(4, 'null code', 'set_max_balance(NULL, 0)'),
	(5, 'NaN', 'set_min_available(''limits'', ''NaN'')'),
	(6, 'Infinity', 'set_max_balance(''limits'', ''Infinity'')'),
	(7, 'more decimals', 'set_max_balance(''limits'', 1000.001)'),
	(8, 'closed', 'set_account_limits(''status'', 0, 0)'),
	(9, 'closed', 'set_min_available(''status'', 0)'),
	(10, 'closed', 'set_max_balance(''status'', 0)')
) AS t (n, what, call) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- ------------------------------------------------------------------------
-- close_account
-- ------------------------------------------------------------------------

SELECT count(finance.create_account(code, 'EUR', min_available => -100, max_balance => 1000))
FROM (VALUES ('leaving'), ('owing'), ('empty'), ('pledged'), ('deep'), ('heir')) AS v (code);
SELECT finance.create_account('yen', 'JPY') > 0 AS made;
SELECT count(finance.transfer('source', code, 25)) FROM (VALUES ('leaving'), ('pledged'), ('heir')) AS v (code);
SELECT count(finance.transfer(code, 'source', 40)) FROM (VALUES ('owing'), ('deep')) AS v (code);

-- what is refused, and what to do about it
SELECT finance.close_account('leaving');
SELECT finance.set_account_status('leaving', 'closed');
SELECT hold_id AS h1 FROM finance.hold('leaving', 'heir', 3) \gset
SELECT hold_id AS h2 FROM finance.hold('leaving', 'source', 4.50) \gset
SELECT hold_id AS h3 FROM finance.hold('heir', 'leaving', 2) \gset
SELECT pg_temp.book() AS before \gset
SELECT finance.close_account('leaving', 'heir');
SELECT finance.set_account_status('leaving', 'closed');
SELECT what, pg_temp.attempt('SELECT finance.close_account(' || arguments || ')') FROM (VALUES
	(1, 'money held', '''heir'', ''leaving'''),
	(2, 'unknown account', '''nobody'''),
	(3, 'unknown receiver', '''leaving'', ''nobody'''),
	(4, 'both unknown', '''nobody'', ''no one'''),
	(5, 'into itself', '''leaving'', ''leaving'''),
	(6, 'null code', 'NULL'),
	(7, 'empty receiver', '''leaving'', '''''),
	(8, 'empty reason', '''leaving'', ''heir'', '''''),
	(9, 'another currency', '''owing'', ''yen'''),
	(10, 'receiver closed', '''owing'', ''status'''),
	(11, 'receiver frozen', '''owing'', ''m''')
) AS t (n, what, arguments) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT count(finance.release(h)) FROM unnest(ARRAY[:h1, :h2, :h3]) AS h;

-- the receiver's limits and freezes hold, and nothing is half done
SELECT finance.set_max_balance('heir', 49.99) > 0 AS set, finance.set_min_available('heir', 0) > 0 AS set;
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt($$SELECT finance.close_account('leaving', 'heir')$$);
SELECT pg_temp.attempt($$SELECT finance.close_account('owing', 'heir')$$);
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT finance.set_account_limits('heir', -100, 1000) > 0 AS set;
SELECT finance.set_account_status('heir', 'credits_frozen') > 0 AS set, pg_temp.attempt($$SELECT finance.close_account('leaving', 'heir')$$);
SELECT finance.set_account_status('heir', 'debits_frozen') > 0 AS set, pg_temp.attempt($$SELECT finance.close_account('owing', 'heir')$$);
SELECT finance.set_account_status('heir', 'active') > 0 AS set;

-- risk may refuse it, and then there is no rejected transfer either
SELECT finance.add_rule('small', 'transfer_limit', 10, account => 'leaving');
SELECT finance.set_account_limits('leaving', 10, NULL) > 0 AS set;
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt($$SELECT finance.close_account('leaving', 'heir')$$);
SELECT pg_temp.book() = :'before' AS nothing_changed;
SELECT finance.remove_rule('small');
SELECT finance.set_account_limits('leaving', 0, NULL) > 0 AS set;

-- the rest moves, from a frozen account as well, and into one that owes
SELECT finance.set_account_status('leaving', 'frozen', 'moving out') > 0 AS set;
SELECT finance.close_account('leaving', 'heir', 'moved out') - version AS versions
FROM finance.account WHERE code = 'leaving' AND tenant_id = :tenant;
SELECT finance.set_account_status('owing', 'frozen') > 0 AS set;
SELECT finance.close_account(code => 'owing', to_account => 'heir', reason => 'written off') > 0 AS closed;
-- nothing to move: nobody is needed, and nothing moves
SELECT finance.close_account('empty') AS version;
SELECT finance.create_account('also empty', 'EUR') > 0 AS made, finance.close_account('also empty', 'heir') AS version;
-- closed is closed
SELECT pg_temp.book() AS before \gset
SELECT finance.close_account('leaving') - version AS versions FROM finance.account WHERE code = 'leaving' AND tenant_id = :tenant;
SELECT finance.close_account('leaving', 'heir', 'again') - version AS versions FROM finance.account WHERE code = 'leaving' AND tenant_id = :tenant;
SELECT pg_temp.attempt($$SELECT finance.close_account('leaving', 'nobody')$$);
SELECT pg_temp.attempt($$SELECT finance.hold('heir', 'leaving', 1)$$);
SELECT pg_temp.attempt($$SELECT finance.close_account('heir', 'leaving')$$);
SELECT pg_temp.book() = :'before' AS nothing_changed;

-- a floor above zero, or a ceiling below, is lifted for it; others stay
SELECT finance.set_account_limits('pledged', 20, 500, 'pledge') > 0 AS set, finance.set_account_limits('deep', NULL, -40, 'no more') > 0 AS set;
SELECT pg_temp.attempt($$SELECT finance.transfer('pledged', 'heir', 25)$$);
SELECT pg_temp.attempt($$SELECT finance.transfer('source', 'deep', 40)$$);
SELECT finance.close_account('pledged', 'heir', 'pledge redeemed') > 0 AS closed;
SELECT finance.close_account('deep', 'source', 'forgiven') > 0 AS closed;
SELECT code, status, balance, min_available, max_balance, version FROM finance.account
WHERE code IN ('leaving', 'owing', 'empty', 'also empty', 'pledged', 'deep', 'heir') AND tenant_id = :tenant ORDER BY code COLLATE "C";
SELECT f.code AS from_account, t.code AS to_account, x.amount, x.status, x.from_balance, x.to_balance
FROM finance.transfer x JOIN finance.account f ON f.account_id = x.from_account_id JOIN finance.account t ON t.account_id = x.to_account_id
WHERE x.tenant_id = :tenant AND x.type = 'closing' ORDER BY x.id;
SELECT a.code, c.version, c.change, c.old_value, c.new_value, c.reason
FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE a.code IN ('leaving', 'owing', 'empty', 'pledged', 'deep') AND a.tenant_id = :tenant ORDER BY a.account_id, c.version;
SELECT r.request, x.type, x.amount FROM finance.audit_record r LEFT JOIN finance.transfer x ON x.id = r.transfer_id
WHERE r.tenant_id = :tenant AND r.operation = 'close_account' ORDER BY r.id;

-- a trigger that gives some of it back keeps the account open
SELECT finance.create_account('boomerang', 'EUR') > 0 AS made;
SELECT status FROM finance.transfer('source', 'boomerang', 9);
SELECT pg_temp.book() AS before \gset
BEGIN;
CREATE FUNCTION pg_temp.give_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM finance.transfer('heir', 'boomerang', 1);
	RETURN NULL;
END $$;
CREATE TRIGGER give_back AFTER INSERT ON finance.transfer FOR EACH ROW WHEN (NEW.type = 'closing') EXECUTE FUNCTION pg_temp.give_back();
SELECT pg_temp.attempt($$SELECT finance.close_account('boomerang', 'heir')$$);
ROLLBACK;
SELECT pg_temp.book() = :'before' AS nothing_changed;
-- several in one statement
SELECT count(finance.create_account('many ' || n, 'EUR')), count(finance.transfer('source', 'many ' || n, n)) FROM generate_series(1, 20) AS n;
SELECT sum(finance.close_account('many ' || n, 'boomerang')) AS versions FROM generate_series(1, 20) AS n;
SELECT balance, version FROM finance.account WHERE code = 'boomerang' AND tenant_id = :tenant;
-- an account that was rolled back is not remembered
BEGIN;
SELECT finance.create_account('fleeting', 'EUR') > 0 AS made, finance.close_account('fleeting') AS version;
ROLLBACK;
SELECT pg_temp.attempt($$SELECT finance.close_account('fleeting')$$);
SELECT finance.create_account('fleeting', 'EUR') > 0 AS made, finance.close_account('fleeting') AS version;

-- ------------------------------------------------------------------------
-- lock_accounts: what it tells; what it locks is in specs/
-- ------------------------------------------------------------------------

SELECT hold_id > 0 AS held FROM finance.hold('heir', 'boomerang', 7);
SELECT code, status, currency, balance, held, available, version FROM finance.lock_accounts('{yen, heir, status, boomerang, heir, m, yen}');
SELECT count(*) AS agree FROM finance.lock_accounts('{yen, heir, status, boomerang, m}') l
JOIN finance.account a USING (code, account_id, status, currency, balance, held, available, version) WHERE a.tenant_id = :tenant;
SELECT count(*) FROM finance.lock_accounts('{}');
SELECT count(*) FROM finance.lock_accounts(array_fill('heir'::text, ARRAY[10000]));
SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT * FROM finance.lock_accounts(' || codes || ')') FROM (VALUES
	(1, 'null', 'NULL'),
	(2, 'null element', '''{heir, NULL, nobody}'''),
	(3, 'the first unknown one', '''{heir, nobody, no one, yen}'''),
	(4, 'empty code', '''{heir, ""}'''),
	(5, 'code of 129 bytes', 'ARRAY[repeat(''a'', 129)]'),
	(6, 'control character', 'ARRAY[E''a\nb'']'),
	(7, 'too many', 'array_fill(''heir''::text, ARRAY[10001])')
) AS t (n, what, codes) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;
BEGIN;
SELECT finance.create_account('fleeting too', 'EUR') > 0 AS made;
SELECT code, version FROM finance.lock_accounts('{fleeting too}');
ROLLBACK;
SELECT pg_temp.attempt($$SELECT * FROM finance.lock_accounts('{heir, fleeting too}')$$);
-- a transaction that may not write may not lock
BEGIN READ ONLY;
SELECT pg_temp.attempt($$SELECT * FROM finance.lock_accounts('{heir}')$$);
ROLLBACK;

UPDATE finance.account_change SET reason = NULL;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM finance._account;
\echo :LAST_ERROR_SQLSTATE
-- the constraint holds whoever writes, and whatever he sets
SET session_replication_role = replica;
SELECT pg_temp.attempt('UPDATE finance._account SET ' || change || ' WHERE code = ''source'' AND tenant_id = ' || :tenant)
FROM (VALUES (1, 'debits_posted = ''NaN'''), (2, 'credits_posted = ''Infinity'''), (3, 'debits_pending = -1'), (4, 'credits_pending = ''NaN'''),
	(5, 'spent = -0.01'), (6, 'debits_posted = NULL'), (8, 'max_balance = -1e30'), (9, 'min_available = 1e30'),
	(10, 'min_available = ''NaN''')) AS v (n, change) ORDER BY n;
RESET session_replication_role;

SELECT pg_temp.attempt($$SELECT finance.balance('nobody')$$);
SELECT pg_temp.attempt($$SELECT finance.balance(NULL)$$);
SELECT * FROM finance.check_integrity();
