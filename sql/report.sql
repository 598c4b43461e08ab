-- Parents and roll-up, trial balance and balance sheet: now, and as they were.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('report test') AS tenant \gset
SELECT finance.create_tenant('report test, other') AS other \gset
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
	FOREACH name IN ARRAY '{_account, account_change, transfer, idempotency_key,
		audit_record, message, message_archive}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

-- the tree, as the view shows it
CREATE FUNCTION pg_temp.tree() RETURNS TABLE (code text, parent text)
LANGUAGE sql AS $$
SELECT a.code, p.code FROM finance.account a
LEFT JOIN finance.account p ON p.tenant_id = a.tenant_id AND p.account_id = a.parent_id
WHERE a.tenant_id = current_setting('finance.tenant')::integer ORDER BY a.code COLLATE "C" $$;

-- ------------------------------------------------------------------------
-- nothing yet
-- ------------------------------------------------------------------------

SELECT * FROM finance.trial_balance();
SELECT * FROM finance.trial_balance(now());
SELECT * FROM finance.balance_sheet();

-- ------------------------------------------------------------------------
-- parents
-- ------------------------------------------------------------------------

SELECT finance.create_account('customers', 'EUR') > 0 AS has_id;
SELECT finance.create_account('private', 'EUR', parent => 'customers') > 0 AS has_id;
SELECT finance.create_account('alice', 'EUR', parent => 'private') > 0 AS has_id;
SELECT finance.create_account('alice usd', 'USD', parent => 'private') > 0 AS has_id;
SELECT finance.create_account('bob', 'EUR', min_available => -100, metadata => '{"n": 1}', parent => 'private') > 0 AS has_id;
SELECT finance.create_account('acme', 'EUR', parent => 'customers') > 0 AS has_id;
SELECT finance.create_account('cash', 'EUR', 'asset', NULL) > 0 AS has_id;
SELECT finance.create_account('cash usd', 'USD', 'asset', NULL) > 0 AS has_id;
SELECT finance.create_account('yen', 'JPY', 'asset', NULL) > 0 AS has_id;
SELECT finance.create_account('fees', 'EUR', 'income') > 0 AS has_id;
SELECT finance.create_account('shut', 'EUR') > 0 AS has_id;
SELECT finance.set_account_status('shut', 'closed');
SELECT * FROM pg_temp.tree();
SELECT request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'create_account' AND request->>'code' IN ('cash', 'bob') ORDER BY id;

SELECT status FROM finance.transfer('cash', 'alice', 100.50);
SELECT status FROM finance.transfer('cash usd', 'alice usd', 7);
SELECT status FROM finance.transfer('cash', 'acme', 20);
SELECT status FROM finance.transfer('bob', 'alice', 30.25);
SELECT status FROM finance.hold('alice', 'bob', 50);
SELECT * FROM finance.rollup('customers');
SELECT * FROM finance.rollup('private');
SELECT * FROM finance.rollup(code => 'bob');
SELECT * FROM finance.rollup('yen');

-- moved, with all below
SELECT finance.set_account_parent('acme', 'cash', 'wrong') > 0 AS moved;
SELECT * FROM finance.rollup('customers');
SELECT * FROM finance.rollup('cash');
SELECT finance.set_account_parent(code => 'private', parent => 'acme', reason => 'a joke') AS version \gset
-- what it is already, changes nothing
SELECT finance.set_account_parent('private', 'acme') = :version AS same;
SELECT * FROM finance.rollup('cash');
SELECT finance.set_account_parent('private', NULL) = :version + 1 AS next;
SELECT finance.set_account_parent('private', NULL) = :version + 1 AS same;
SELECT * FROM finance.rollup('cash');
SELECT finance.set_account_parent('private', 'customers') > 0 AS moved;
-- moving one back and forth within a transaction sees its own moves
BEGIN;
SELECT finance.set_account_parent('customers', 'yen') > 0 AS moved;
SELECT pg_temp.attempt($$SELECT finance.set_account_parent('yen', 'alice')$$);
SELECT finance.set_account_parent('customers', NULL) > 0 AS moved;
SELECT finance.set_account_parent('yen', 'alice') > 0 AS moved;
SELECT * FROM finance.rollup('private');
ROLLBACK;

SELECT pg_temp.book() AS before \gset
SELECT what, pg_temp.attempt('SELECT finance.' || call)
FROM (VALUES
	(1, 'itself', 'set_account_parent(''alice'', ''alice'')'),
	(2, 'a circle of two', 'set_account_parent(''private'', ''alice'')'),
	(3, 'a circle of three', 'set_account_parent(''customers'', ''alice usd'')'),
	(4, 'unknown account', 'set_account_parent(''nobody'', ''alice'')'),
	(5, 'unknown parent', 'set_account_parent(''alice'', ''nobody'')'),
	(6, 'closed parent', 'set_account_parent(''alice'', ''shut'')'),
	(7, 'closed account', 'set_account_parent(''shut'', ''customers'')'),
	(8, 'null code', 'set_account_parent(NULL, ''customers'')'),
	(9, 'empty parent', 'set_account_parent(''alice'', '''')'),
	(10, 'long reason', 'set_account_parent(''alice'', ''acme'', repeat(''r'', 1025))'),
	(11, 'new under an unknown one', 'create_account(''a1'', ''EUR'', parent => ''nobody'')'),
	(12, 'new under a closed one', 'create_account(''a1'', ''EUR'', parent => ''shut'')'),
	(13, 'new under itself', 'create_account(''a1'', ''EUR'', parent => ''a1'')'),
	(14, 'new under the empty code', 'create_account(''a1'', ''EUR'', parent => '''')'),
	(15, 'roll-up of an unknown account', 'rollup(''nobody'')'),
	(16, 'of null', 'rollup(NULL)')
) AS t (n, what, call) ORDER BY n;
SELECT pg_temp.book() = :'before' AS nothing_changed;
-- of another tenant
SET finance.tenant = :other;
SELECT finance.create_account('elsewhere', 'EUR') > 0 AS has_id;
SELECT pg_temp.attempt($$SELECT finance.set_account_parent('elsewhere', 'customers')$$);
SELECT pg_temp.attempt($$SELECT finance.create_account('a1', 'EUR', parent => 'customers')$$);
SELECT pg_temp.attempt($$SELECT finance.rollup('customers')$$);
SELECT * FROM finance.trial_balance();
SET finance.tenant = :tenant;
SELECT pg_temp.attempt($$SELECT finance.set_account_parent('alice', 'elsewhere')$$);
SELECT count(*) FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE a.tenant_id = :tenant AND a.code = 'alice';

SELECT a.code, c.version, c.change, c.old_value, c.new_value, c.reason, c.actor = current_user AS by_user
FROM finance.account_change c JOIN finance.account a USING (tenant_id, account_id)
WHERE c.tenant_id = :tenant AND c.change = 'parent' ORDER BY c.changed_at, c.version;
SELECT operation, status, request FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'set_account_parent' ORDER BY id;

-- 32 levels, and no more, from whichever end
SELECT count(finance.create_account('level ' || n, 'JPY', parent => CASE WHEN n > 1 THEN 'level ' || n - 1 END))
FROM generate_series(1, 31) n;
SELECT finance.create_account('deep', 'JPY', min_available => NULL) > 0 AS has_id;
SELECT finance.set_account_parent('deep', 'level 31') > 0 AS moved;
SELECT pg_temp.attempt($$SELECT finance.create_account('deeper', 'JPY', parent => 'deep')$$);
SELECT pg_temp.attempt($$SELECT finance.set_account_parent('level 1', 'customers')$$);
SELECT status FROM finance.transfer('yen', 'deep', 5);
SELECT * FROM finance.rollup('level 1');
SELECT finance.set_account_parent('level 17', 'customers') > 0 AS moved;
SELECT accounts FROM finance.rollup('level 1');
SELECT * FROM finance.rollup('customers');
SELECT finance.create_account('deeper', 'JPY', parent => 'deep') > 0 AS has_id;
SELECT pg_temp.attempt($$SELECT finance.set_account_parent('level 17', 'level 16')$$);

-- a tree that somebody broke is found, and no report hangs on it
BEGIN;
UPDATE finance._account SET parent_id = (SELECT account_id FROM finance._account WHERE tenant_id = :tenant AND code = 'alice')
WHERE tenant_id = :tenant AND code = 'customers';
SELECT invariant, object FROM finance.check_integrity() ORDER BY object COLLATE "C" LIMIT 5;
SELECT accounts > 0 AS ended FROM finance.rollup('alice usd');
SELECT count(*) > 0 AS ended FROM finance.rollup('alice');
ROLLBACK;
BEGIN;
UPDATE finance._account SET parent_id = 1 WHERE tenant_id = :tenant AND code = 'fees';
SELECT invariant, object, found FROM finance.check_integrity();
ROLLBACK;

-- ------------------------------------------------------------------------
-- trial balance and balance sheet
-- ------------------------------------------------------------------------

SELECT * FROM finance.trial_balance() ORDER BY currency, type, code COLLATE "C";
SELECT * FROM finance.balance_sheet();
SELECT * FROM finance.balance_sheet(at => '2021-01-01');
SELECT count(*) FROM finance.trial_balance('2089-01-01 00:00+00');
SELECT count(*) FROM finance.trial_balance('0001-01-01 00:00+00 BC');
SELECT count(*) > 0 FROM finance.trial_balance('290000-01-01 00:00+00');
SELECT pg_temp.attempt($$SELECT finance.trial_balance('infinity')$$);
SELECT pg_temp.attempt($$SELECT finance.balance_sheet('-infinity')$$);
-- of a type of one's own
SELECT finance.create_account_type('suspense', 'debit');
SELECT finance.create_account('unclear', 'EUR', 'suspense', NULL) > 0 AS has_id;
SELECT status FROM finance.transfer('unclear', 'alice', 12.30);
SELECT * FROM finance.trial_balance() WHERE type = 'suspense';
SELECT * FROM finance.balance_sheet() WHERE type = 'suspense';

-- Random transfers, holds and rejections in two currencies; then, at every
-- moment at which something was recorded, both reports are what the amounts
-- recorded until then add up to.
SELECT setseed(0.42);
SELECT finance.add_rule('cap', 'transfer_limit', 90);
DO $$
DECLARE
	codes text[];
	holds bigint[] := '{}';
	from_code text;
	to_code text;
	dice double precision;
	answer finance.batch_result;
BEGIN
	PERFORM finance.create_account(c || t.type, c, t.type, NULL)
	FROM unnest('{EUR,BHD}'::text[]) c, finance.account_type t WHERE t.builtin OR t.type = 'suspense';
	FOR i IN 1 .. 400 LOOP
		SELECT array_agg(a.code ORDER BY a.code COLLATE "C") INTO codes FROM finance.account a
		WHERE a.tenant_id = current_setting('finance.tenant')::integer
			AND a.currency = CASE WHEN i % 2 = 0 THEN 'EUR' ELSE 'BHD' END AND a.code LIKE a.currency || '%';
		from_code := codes[1 + floor(random() * 6)];
		to_code := codes[1 + floor(random() * 6)];
		dice := random();
		IF dice < 0.7 THEN
			PERFORM finance.transfer_batch(ARRAY[finance.request(from_code, to_code, 1 + floor(random() * 10000)::numeric / 100)]);
		ELSIF dice < 0.85 OR holds = '{}' THEN
			SELECT b.* INTO answer FROM finance.transfer_batch(ARRAY[finance.request(from_code, to_code, 1 + floor(random() * 1000)::numeric / 100, action => 'hold')]) b;
			IF answer.status = 'held' THEN holds := holds || answer.id; END IF;
		ELSIF dice < 0.95 THEN
			PERFORM finance.transfer_batch(ARRAY[finance.request(amount => 1, action => 'capture', hold_id => holds[1], final => random() < 0.5)]);
			holds := holds[2:];
		ELSE
			PERFORM finance.transfer_batch(ARRAY[finance.request(action => 'release', hold_id => holds[1])]);
			holds := holds[2:];
		END IF;
	END LOOP;
END $$;
SELECT status, count(*) > 5 AS several FROM finance.transfer WHERE tenant_id = :tenant AND id >
	(SELECT min(id) FROM finance.transfer WHERE tenant_id = :tenant AND currency = 'BHD') GROUP BY 1 ORDER BY 1;

CREATE TEMP TABLE moment AS
SELECT DISTINCT finance.id_time(id) AS at FROM finance.transfer WHERE tenant_id = :tenant
UNION SELECT finance.id_time(id) - interval '1 millisecond' FROM finance.transfer WHERE tenant_id = :tenant;
SELECT count(*) > 20 AS many FROM moment;
CREATE TEMP TABLE added AS
SELECT m.at, a.currency, a.type, k.normal_side, a.code, sum(s.change) AS balance
FROM moment m
JOIN (SELECT id, from_account_id AS account_id, -amount::numeric AS change FROM finance.transfer WHERE tenant_id = :tenant AND status = 'completed'
	UNION ALL SELECT id, to_account_id, amount FROM finance.transfer WHERE tenant_id = :tenant AND status = 'completed') s
	ON finance.id_time(s.id) <= m.at
JOIN finance.account a ON a.tenant_id = :tenant AND a.account_id = s.account_id
JOIN finance.account_type k ON k.type = a.type AND (k.builtin OR k.tenant_id = :tenant)
GROUP BY 1, 2, 3, 4, 5 HAVING sum(s.change) <> 0;
CREATE TEMP TABLE told AS
SELECT m.at AS moment, t.* FROM moment m CROSS JOIN LATERAL finance.trial_balance(m.at) t;
SELECT count(*) > 500 AS many FROM told;
SELECT count(*) FROM (SELECT moment, currency, type, normal_side, code, credit - debit AS balance FROM told
	EXCEPT SELECT * FROM added) x;
SELECT count(*) FROM (SELECT * FROM added
	EXCEPT SELECT moment, currency, type, normal_side, code, credit - debit FROM told) x;
SELECT count(*) FROM told WHERE debit < 0 OR credit < 0 OR (debit > 0) = (credit > 0);
SELECT count(*) > 20 AS many, count(*) FILTER (WHERE debit <> credit) AS unequal
FROM (SELECT moment, currency, sum(debit) AS debit, sum(credit) AS credit FROM told GROUP BY 1, 2) s;
SELECT count(*) FROM (SELECT moment, currency, type, normal_side,
		sum(CASE normal_side WHEN 'debit' THEN debit - credit ELSE credit - debit END) FROM told GROUP BY 1, 2, 3, 4
	EXCEPT SELECT m.at, b.* FROM moment m CROSS JOIN LATERAL finance.balance_sheet(m.at) b) x;
SELECT count(*) > 20 AS many, count(*) FILTER (WHERE debit <> credit) AS unequal
FROM (SELECT m.at, b.currency, coalesce(sum(b.balance) FILTER (WHERE b.normal_side = 'debit'), 0) AS debit,
		coalesce(sum(b.balance) FILTER (WHERE b.normal_side = 'credit'), 0) AS credit
	FROM moment m CROSS JOIN LATERAL finance.balance_sheet(m.at) b GROUP BY 1, 2) s;
-- now is the last moment, and what the accounts say
SELECT count(*) FROM (SELECT * FROM finance.trial_balance() EXCEPT SELECT * FROM finance.trial_balance((SELECT max(at) FROM moment))) x;
SELECT count(*) FROM (SELECT code, credit - debit FROM finance.trial_balance()
	EXCEPT SELECT code, balance FROM finance.account WHERE tenant_id = :tenant AND balance <> 0) x;
SELECT * FROM finance.check_integrity();
