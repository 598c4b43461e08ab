-- Reversals: whole and in parts, never more than was moved, and of nothing
-- else; groups of holds, captured or released as one.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('reversal test') AS tenant \gset
SET finance.tenant = :tenant;

-- what an attempt ends in; ids are masked
CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS OR query_canceled THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	RETURN regexp_replace(concat_ws(' | ', SQLSTATE, message, nullif(detail, '')),
		'\m\d{17,19}\M', '<id>', 'g');
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
		reversal, exchange, exchange_residue, risk_decision, audit_record, message}'::text[]
	LOOP
		EXECUTE format('SELECT md5(string_agg(t::text, '';'' ORDER BY t::text)) FROM finance.%I t', name)
		INTO part;
		whole := whole || coalesce(part, '-');
	END LOOP;
	RETURN md5(whole);
END $$;

SELECT count(finance.create_account(code, currency, min_available => floor))
FROM (VALUES ('a', 'EUR', NULL), ('b', 'EUR', NULL), ('c', 'EUR', NULL), ('poor', 'EUR', 0), ('ua', 'USD', NULL), ('ub', 'USD', NULL)) AS a (code, currency, floor);
SELECT finance.create_queue('all');
SELECT finance.bind_topic('#', 'all');

-- ------------------------------------------------------------------------
-- of a transfer
-- ------------------------------------------------------------------------

SELECT id AS t FROM finance.transfer('a', 'b', 100, type => 'purchase', reference => 'order 7') \gset
SELECT status, amount, from_account, from_balance, to_account, to_balance, replayed, journal_id FROM finance.reverse_transfer(:t, 30, 'two broken');
SELECT type, reference, reverses_id = :t AS linked, status FROM finance.transfer WHERE tenant_id = :tenant AND reverses_id IS NOT NULL;
SELECT count(*), sum(amount), bool_and(recorded_at <= clock_timestamp()) AS recorded FROM finance.reversals(:t);
SELECT operation, request->>'reference' AS reason, response->>'reverses_id' = :'t' AS linked FROM finance.audit_record
WHERE tenant_id = :tenant AND operation = 'reverse';
SELECT message->'payload'->>'reverses_id' = :'t' AS linked FROM finance.read('all', 0, 100) WHERE message->'payload'->>'transfer_type' = 'reversal';
-- never more in sum
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 70.01)', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 0)', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, ''NaN'')', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 0.001)', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 1, E''a\nb'')', :t));
SELECT pg_temp.attempt('SELECT finance.reverse_transfer(NULL)');
SELECT pg_temp.attempt('SELECT finance.reverse_transfer(4711)');
SELECT pg_temp.attempt('SELECT * FROM finance.reversals(4711)');
SELECT pg_temp.attempt('SELECT * FROM finance.reversals(NULL)');
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s)', reversal_id)) FROM finance.reversals(:t);
SELECT pg_temp.book() = :'before' AS unchanged;
-- all that is left, then nothing is
SELECT amount FROM finance.reverse_transfer(:t, idempotency_key => 'rest');
SELECT amount, replayed FROM finance.reverse_transfer(:t, idempotency_key => 'rest');
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s)', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 0.01)', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, 70, idempotency_key => ''rest'')', :t));
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s, reason => ''why'', idempotency_key => ''rest'')', :t));
SELECT pg_temp.attempt('SELECT finance.transfer(''b'', ''a'', 70, type => ''reversal'', idempotency_key => ''rest'')');
SELECT code, balance FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT sum(amount) FROM finance.reversals(:t);
-- what the one who got it no longer has
SELECT id AS p FROM finance.transfer('a', 'poor', 10) \gset
SELECT count(*) FROM finance.transfer('poor', 'c', 4);
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s)', :p));
SELECT amount, from_balance FROM finance.reverse_transfer(:p, 6);
-- what moved nothing
SELECT finance.add_rule('little', 'transfer_limit', 1000);
SELECT id AS rejected FROM finance.transfer('a', 'b', 1001) \gset
SELECT id AS held FROM finance.hold('a', 'b', 50) \gset
SELECT id AS captured FROM finance.capture(:held, 20) \gset
SELECT id AS released FROM finance.release(:held) \gset
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s)', id)) FROM unnest(ARRAY[:rejected, :held, :released]) AS id;
-- a capture did
SELECT amount, from_account, to_account, hold_id FROM finance.reverse_transfer(:captured);
-- rejected by risk, nothing is given back
SELECT id AS big FROM finance.transfer('b', 'c', 1000) \gset
SELECT finance.remove_rule('little');
SELECT finance.add_rule('less', 'transfer_limit', 999);
SELECT status, rule FROM finance.reverse_transfer(:big, idempotency_key => 'risky');
SELECT status, rule, replayed FROM finance.reverse_transfer(:big, idempotency_key => 'risky');
SELECT count(*) FROM finance.reversals(:big);
SELECT finance.remove_rule('less');
SELECT status FROM finance.reverse_transfer(:big);
-- of another tenant there is none
SELECT finance.create_tenant('reversal test other') AS other \gset
SET finance.tenant = :other;
SELECT pg_temp.attempt(format('SELECT finance.reverse_transfer(%s)', :p));
SET finance.tenant = :tenant;
SELECT pg_temp.attempt('UPDATE finance.reversal SET amount = 1');

-- ------------------------------------------------------------------------
-- of a journal
-- ------------------------------------------------------------------------

SELECT code, balance FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT DISTINCT journal_id AS j FROM finance.journal(ARRAY[finance.leg('a', 'debit', 10), finance.leg('ua', 'debit', 5), finance.leg('b', 'credit', 4),
	finance.leg('c', 'credit', 6), finance.leg('ub', 'credit', 5)]) \gset
SELECT amount, from_account, to_account, replayed, journal_id = min(id) OVER () AS of_journal FROM finance.reverse_journal(:j, 'wrong run', 'undo') ORDER BY id;
SELECT amount, from_account, to_account, replayed, journal_id = min(id) OVER () AS of_journal FROM finance.reverse_journal(:j, 'wrong run', 'undo') ORDER BY id;
SELECT code, balance FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
SELECT pg_temp.attempt(format('SELECT finance.reverse_journal(%s)', :j));
SELECT pg_temp.attempt(format('SELECT finance.reverse_journal(%s, ''another reason'', ''undo'')', :j));
SELECT pg_temp.attempt(format('SELECT finance.reverse_journal(%s)', journal_id)) FROM finance.journal WHERE tenant_id = :tenant AND type = 'reversal';
SELECT pg_temp.attempt('SELECT finance.reverse_journal(4711)');
SELECT pg_temp.attempt('SELECT finance.reverse_journal(NULL)');
-- one of its transfers was given back in part: then the rest one by one
SELECT journal_id AS j, max(id) AS last FROM finance.journal(ARRAY[finance.leg('a', 'debit', 10), finance.leg('b', 'credit', 4), finance.leg('c', 'credit', 6)]) GROUP BY 1 \gset
SELECT amount FROM finance.reverse_transfer(:last, 1);
SELECT pg_temp.attempt(format('SELECT finance.reverse_journal(%s)', :j));
SELECT sum((finance.reverse_transfer(id)).amount) FROM unnest(ARRAY[:j, :last]::bigint[]) AS id;
-- one that risk rejected
SELECT finance.add_rule('none', 'transfer_limit', 0, account => 'c');
SELECT journal_id AS j FROM finance.journal(ARRAY[finance.leg('a', 'debit', 10), finance.leg('c', 'debit', 4), finance.leg('b', 'credit', 14)]) \gset
SELECT pg_temp.attempt(format('SELECT finance.reverse_journal(%s)', :j));
SELECT finance.remove_rule('none');
-- of an exchange: also what was carried
SELECT finance.create_account('round', 'USD', min_available => NULL) > 0 AS made;
SELECT DISTINCT journal_id AS x FROM finance.exchange('a', 'ua', 1, 1.006, 'b', 'ub', 'down', 'round') \gset
SELECT DISTINCT journal_id AS x FROM finance.exchange('a', 'ua', 1, 1.006, 'b', 'ub', 'down', 'round') \gset
SELECT amount, from_account, to_account FROM finance.reverse_journal(:x) ORDER BY id;
SELECT finance.balance('round'), residue FROM finance.exchange_residue;
SELECT code, balance FROM finance.account WHERE tenant_id = :tenant ORDER BY code;

-- ------------------------------------------------------------------------
-- groups of holds
-- ------------------------------------------------------------------------

SET finance.test_clock = '2030-06-01 12:00+00';
SELECT hold_id AS h1 FROM finance.hold('a', 'b', 10, hold_group => 'order 1') \gset
SELECT hold_id AS h2 FROM finance.hold('ua', 'ub', 20, hold_group => 'order 1') \gset
SELECT hold_id AS h3 FROM finance.hold('a', 'c', 30, expires_in => '1 hour', hold_group => 'order 1') \gset
SELECT hold_id AS h4 FROM finance.hold('a', 'c', 40, hold_group => 'order 2') \gset
SELECT amount FROM finance.capture(:h1, 4);
SELECT amount FROM finance.release(:h2, 1);
SELECT status, amount, currency, to_account, hold_remaining, hold_id = (ARRAY[:h1, :h2, :h3])[row_number() OVER (ORDER BY id)] AS in_order
FROM finance.capture_group('order 1', 'delivered', '{"by": "post"}') ORDER BY id;
SELECT reference, metadata, count(*) FROM finance.transfer WHERE tenant_id = :tenant AND hold_id IN (:h1, :h2, :h3) AND reference IS NOT NULL GROUP BY 1, 2;
SELECT pg_temp.attempt('SELECT finance.capture_group(''order 1'')');
SELECT pg_temp.attempt('SELECT finance.release_group(''order 1'')');
SELECT pg_temp.attempt('SELECT finance.release_group(''order'')');
SELECT pg_temp.attempt('SELECT finance.release_group(NULL)');
SELECT pg_temp.attempt('SELECT finance.capture_group('''')');
SELECT status, amount, hold_remaining FROM finance.release_group('order 2', 'cancelled');
-- all or none: one whose time is over, and one account frozen
SELECT hold_id AS h5 FROM finance.hold('a', 'b', 10, hold_group => 'order 3') \gset
SELECT hold_id AS h6 FROM finance.hold('a', 'c', 30, expires_in => '1 hour', hold_group => 'order 3') \gset
SET finance.test_clock = '2030-06-01 14:00+00';
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt('SELECT finance.capture_group(''order 3'')');
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT status, amount, hold_remaining FROM finance.release_group('order 3') ORDER BY id;
SELECT count(*) FROM finance.hold('a', 'b', 10, hold_group => 'order 4');
SELECT count(*) FROM finance.hold('ua', 'ub', 10, hold_group => 'order 4');
SELECT finance.set_account_status('ub', 'frozen') > 0 AS frozen;
SELECT pg_temp.book() AS before \gset
SELECT pg_temp.attempt('SELECT finance.capture_group(''order 4'')');
SELECT pg_temp.book() = :'before' AS unchanged;
SELECT status, amount FROM finance.release_group('order 4') ORDER BY id;
-- many
SELECT count(*) FROM finance.transfer_batch((SELECT array_agg(finance.request('a', 'b', n, action => 'hold', hold_group => 'many')) FROM generate_series(1, 1000) AS n));
SELECT count(*), sum(amount), sum(hold_remaining) FROM finance.capture_group('many');
SELECT status, count(*) FROM finance.hold WHERE tenant_id = :tenant GROUP BY 1 ORDER BY 1;
SELECT code, balance, held FROM finance.account WHERE tenant_id = :tenant ORDER BY code;
RESET finance.test_clock;
SELECT * FROM finance.check_integrity();
