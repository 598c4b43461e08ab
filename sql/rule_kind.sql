-- Each kind of risk rule: what it hits, what it just does not hit, what it
-- tells; scopes, windows, calendars and time zones; limits of their own for
-- accounts, levels and types; lists with an end.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
SELECT finance.create_tenant('rule kind test', 'Europe/Berlin') AS tenant \gset
SET finance.tenant = :tenant;
SET timezone = 'UTC';
SET intervalstyle = 'iso_8601';
SET finance.test_clock = '2054-06-01 00:00+00';
SET finance.actor = 'olga';

CREATE FUNCTION pg_temp.attempt(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(hint, ''));
END $$;

-- the only rules in force are these arguments of add_rule(); all report
CREATE FUNCTION pg_temp.rules(VARIADIC rules text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	version integer := finance.create_ruleset('kinds');
	rule text;
BEGIN
	FOREACH rule IN ARRAY rules LOOP
		EXECUTE format('SELECT finance.add_rule(%s%s, ruleset => %s)', rule, CASE WHEN rule LIKE '%outcome =>%' THEN '' ELSE ', outcome => ''report''' END, version);
	END LOOP;
	PERFORM finance.publish_ruleset(version);
END $$;

-- what a transfer comes to at a moment (of UTC, unless it says otherwise), and
-- why; what explain_risk() said before is the same, and so is what a replay says
CREATE FUNCTION pg_temp.pay(moment text, from_account text, to_account text, amount numeric, type text DEFAULT 'transfer', metadata jsonb DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result finance.transfer_result;
	expected text;
	told text;
BEGIN
	PERFORM set_config('finance.test_clock', moment, true);
	SELECT string_agg(concat_ws(' ', e.rule, '(' || concat_ws(' | ', e.observed, e.threshold, e."window") || ')'), ', ' ORDER BY e.rule) INTO expected
		FROM finance.explain_risk(from_account, to_account, amount, NULL, type, NULL, metadata) e WHERE e.rule IS NOT NULL AND e.hit;
	result := finance.transfer(from_account, to_account, amount, type => type, metadata => metadata);
	SELECT string_agg(concat_ws(' ', h.rule, '(' || concat_ws(' | ', h.observed, h.threshold, h."window") || ')'), ', ' ORDER BY h.ordinal) INTO told
		FROM finance.risk_hit h WHERE h.transfer_id = result.id;
	IF told IS DISTINCT FROM expected THEN
		RAISE EXCEPTION 'explained %, then %', expected, told;
	END IF;
	IF told IS NOT NULL AND NOT (SELECT same FROM finance.replay_decision(result.id)) THEN
		RAISE EXCEPTION 'transfer % is judged otherwise again', result.id;
	END IF;
	RETURN regexp_replace(concat_ws(': ', nullif(result.status, 'completed'), coalesce(told, '-')), 'idle for [^|)]*', 'idle for <time> ', 'g');
END $$;

-- accounts that have not paid: ids are of the clock on the wall, whatever
-- finance.test_clock is, and what was counted before a rule is told by ids
CREATE FUNCTION pg_temp.accounts(VARIADIC codes text[]) RETURNS bigint LANGUAGE sql AS $$ SELECT count(finance.create_account(code, 'EUR', min_available => NULL)) FROM unnest(codes) AS code $$;

SELECT finance.create_account_type('card', 'credit'), finance.create_account_type('till', 'debit');
SELECT finance.create_transfer_type('rent'), finance.create_transfer_type('dues');
SELECT count(finance.create_account(code, currency, type, min_available => NULL)) FROM (VALUES ('bank', 'EUR', 'liability'), ('a', 'EUR', 'liability'), ('b', 'EUR', 'liability'), ('c', 'EUR', 'liability'),
	('card', 'EUR', 'card'), ('card 2', 'EUR', 'card'), ('gold', 'EUR', 'liability'), ('poor', 'EUR', 'liability'), ('yen', 'JPY', 'liability'), ('yen b', 'JPY', 'liability'), ('dinar', 'BHD', 'liability'), ('dinar b', 'BHD', 'liability')) AS v (code, currency, type);
SELECT finance.set_account_level('gold', 'gold') IS NOT NULL AS set, finance.set_account_level('card 2', 'gold') IS NOT NULL AS set, finance.set_account_limits('poor', 0, NULL) IS NOT NULL AS set;
SELECT kind, outcome, needs, takes FROM finance.rule_kinds();
SELECT count(*) = count(DISTINCT hits) AND min(length(hits)) > 10 AS told FROM finance.rule_kinds();

-- ------------------------------------------------------------------------
-- transfer_limit: above the threshold, or below the minimum
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'most', 'transfer_limit', 100$$, $$'least', 'transfer_limit', minimum => 1$$, $$'both', 'transfer_limit', 50.005, minimum => 5.005$$, $$'exact', 'transfer_limit', 7, minimum => 7, account => 'b'$$);
SELECT n, "from", amount, pg_temp.pay('2054-06-01 10:00', "from", 'c', amount) FROM (VALUES (1, 'a', 100.00), (2, 'a', 100.01), (3, 'a', 50.00), (4, 'a', 50.01), (5, 'a', 5.01), (6, 'a', 5.00), (7, 'a', 1.00), (8, 'a', 0.99),
	(9, 'b', 7.00), (10, 'b', 7.01), (11, 'b', 6.99)) AS v (n, "from", amount) ORDER BY n;
-- in another currency's smallest unit
SELECT n, "from", amount, pg_temp.pay('2054-06-01 10:00', "from", "from" || ' b', amount) FROM (VALUES (1, 'yen', 5), (2, 'yen', 6), (3, 'yen', 50), (4, 'yen', 51), (5, 'dinar', 5.004), (6, 'dinar', 5.005), (7, 'dinar', 50.005), (8, 'dinar', 50.006)) AS v (n, "from", amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- whom a rule is about; all that it says must be so
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'of all', 'transfer_limit', 10$$, $$'of a', 'transfer_limit', 10, account => 'a'$$, $$'of cards', 'transfer_limit', 10, account_type => 'card'$$, $$'of gold', 'transfer_limit', 10, level => 'gold'$$,
	$$'of rents', 'transfer_limit', 10, transfer_type => 'rent'$$, $$'of yen', 'transfer_limit', 10, currency => 'JPY'$$, $$'of gold cards paying rent', 'transfer_limit', 10, level => 'gold', account_type => 'card', transfer_type => 'rent', currency => 'EUR'$$,
	$$'off', 'transfer_limit', 0$$);
SELECT finance.enable_rule('off', false);
SELECT n, "from", type, pg_temp.pay('2054-06-01 10:00', "from", CASE WHEN "from" = 'yen' THEN 'yen b' ELSE 'c' END, 11, type) FROM (VALUES (1, 'a', 'transfer'), (2, 'b', 'transfer'), (3, 'card', 'transfer'), (4, 'gold', 'transfer'), (5, 'card 2', 'transfer'),
	(6, 'card 2', 'rent'), (7, 'card', 'rent'), (8, 'b', 'rent'), (9, 'yen', 'transfer'), (10, 'b', 'dues')) AS v (n, "from", type) ORDER BY n;
-- what the account gets does not count: it is about the payer
SELECT pg_temp.pay('2054-06-01 10:00', 'c', 'a', 11), pg_temp.pay('2054-06-01 10:00', 'c', 'card', 11);
-- the level of the moment counts
SELECT finance.set_account_level('gold', NULL) IS NOT NULL AS set;
SELECT pg_temp.pay('2054-06-01 10:00', 'gold', 'c', 11);
SELECT finance.set_account_level('gold', 'gold') IS NOT NULL AS set;

-- ------------------------------------------------------------------------
-- large_value and round_amount
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'large', 'large_value'$$, $$'larger', 'large_value', 60000.005$$, $$'round', 'round_amount', 1000$$, $$'round and much', 'round_amount', 2.5, minimum => 100000$$);
SELECT n, "from", amount, pg_temp.pay('2054-06-01 10:00', "from", CASE "from" WHEN 'a' THEN 'b' ELSE "from" || ' b' END, amount) FROM (VALUES (1, 'a', 49999.99), (2, 'a', 50000.01), (3, 'a', 50000.00), (4, 'a', 60000.01), (5, 'a', 1000.00), (6, 'a', 1000.01),
	(7, 'a', 999.99), (8, 'a', 100002.50), (9, 'a', 100002.51), (10, 'a', 99997.50), (11, 'yen', 49999), (12, 'yen', 50000), (13, 'yen', 60001), (14, 'dinar', 60000.004), (15, 'dinar', 60000.005), (16, 'yen', 100005)) AS v (n, "from", amount) ORDER BY n;
-- a step finer than the currency
SELECT pg_temp.rules($$'fine', 'round_amount', 0.125$$);
SELECT n, "from", amount, pg_temp.pay('2054-06-01 10:00', "from", CASE "from" WHEN 'a' THEN 'b' ELSE "from" || ' b' END, amount) FROM (VALUES (1, 'a', 0.25), (5, 'a', 0.26), (2, 'dinar', 0.125), (3, 'dinar', 0.126), (4, 'dinar', 8)) AS v (n, "from", amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- balance_drain: a share of what is available
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'most of it', 'balance_drain', 0.9$$, $$'all', 'balance_drain', 1$$, $$'a third, if much', 'balance_drain', 0.333333333333, minimum => 100$$);
SELECT finance.transfer('bank', 'poor', 1000.00) IS NOT NULL AS paid;
SELECT n, amount, (SELECT string_agg(rule || ' (' || observed || ' | ' || threshold || ')', ', ' ORDER BY rule) FROM finance.explain_risk('poor', 'b', amount) WHERE hit AND rule IS NOT NULL) AS hits
FROM (VALUES (1, 899.99), (2, 900.00), (3, 999.99), (4, 1000.00), (5, 333.33), (6, 333.34), (7, 99.99)) AS v (n, amount) ORDER BY n;
SELECT pg_temp.pay('2054-06-01 10:00', 'poor', 'b', 900), pg_temp.pay('2054-06-01 10:00', 'poor', 'b', 89.99);
-- what is held is not available; a third of little is no matter
SELECT status FROM finance.hold('poor', 'b', 5);
SELECT pg_temp.pay('2054-06-01 10:00', 'poor', 'b', 4.51), pg_temp.pay('2054-06-01 10:00', 'poor', 'b', 0.49);
-- nothing available, or less: there is no share of it
SELECT pg_temp.pay('2054-06-01 10:00', 'bank', 'b', 1);

-- ------------------------------------------------------------------------
-- daily_limit, and total_limit by period and span
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'day', 'daily_limit', 100$$, $$'hour', 'total_limit', 60, period => 'hour'$$, $$'the same day', 'total_limit', 100, period => 'day'$$, $$'month', 'total_limit', 150, period => 'month'$$, $$'90 minutes', 'total_limit', 80, span => '90 minutes'$$);
SELECT pg_temp.accounts('d1', 'd2');
SELECT n, moment, amount, pg_temp.pay(moment, 'd1', 'd2', amount) FROM (VALUES
	(1, '2054-07-01 10:00:00', 60.00),
	(2, '2054-07-01 10:59:59.999999', 0.01),	-- the hour is not over
	(3, '2054-07-01 11:00:00', 19.99),
	(4, '2054-07-01 11:00:01', 0.01),
	(5, '2054-07-01 11:29:59.999999', 0.01),	-- 60 of them were 90 minutes ago, less a microsecond
	(6, '2054-07-01 11:30:00.1', 19.97),
	(7, '2054-07-01 12:30:01', 0.02),
	(8, '2054-07-01 21:59:59.999999', 0.01),	-- Berlin is two hours ahead
	(9, '2054-07-01 22:00:00', 49.98),
	(10, '2054-07-31 21:59:59.999999', 0.01),
	(11, '2054-07-31 22:00:00', 59.99)	-- August there
) AS v (n, moment, amount) ORDER BY n;
-- whose transfers are added up
SELECT pg_temp.rules($$'account', 'total_limit', 10, period => 'day'$$, $$'the payee', 'total_limit', 10, per => 'counterparty', period => 'day'$$, $$'pair', 'total_limit', 10, per => 'pair', period => 'day'$$,
	$$'account and type', 'total_limit', 10, per => 'account_type', period => 'day'$$, $$'type', 'total_limit', 10, per => 'type', period => 'day'$$);
SELECT pg_temp.accounts('t1', 't2', 't3', 't4');
SELECT count(finance.create_account(code, 'JPY', min_available => NULL)) FROM unnest('{tyen,tyen 2}'::text[]) AS code;
SELECT finance.create_transfer_type('gift'), finance.create_transfer_type('toll');
SELECT n, "from", "to", type, amount, pg_temp.pay('2054-08-03 10:00', "from", "to", amount, type) FROM (VALUES
	(1, 't1', 't2', 'gift', 6), (2, 't1', 't3', 'gift', 4.01), (3, 't4', 't2', 'toll', 4.01), (4, 't1', 't2', 'toll', 4.01), (5, 't2', 't3', 'gift', 9.99), (6, 'tyen', 'tyen 2', 'gift', 10), (7, 'tyen', 'tyen 2', 'gift', 1),
	(8, 't4', 't3', 'toll', 1.99), (9, 't1', 't3', 'toll', 5.99)) AS v (n, "from", "to", type, amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- count_limit and velocity
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'three', 'count_limit', 3, period => 'day'$$, $$'two in 10 minutes', 'velocity', 2, span => '10 minutes'$$, $$'pair', 'count_limit', 2, per => 'pair', period => 'month'$$, $$'the payee', 'velocity', 3.9, per => 'counterparty', span => '1 day'$$,
	$$'none', 'count_limit', 0, period => 'hour', account => 'card'$$);
SELECT pg_temp.accounts('c1', 'c2', 'c3');
SELECT n, moment, "from", "to", pg_temp.pay(moment, "from", "to", 1) FROM (VALUES
	(1, '2054-08-04 10:00:00', 'c1', 'c2'), (2, '2054-08-04 10:01:00', 'c1', 'c2'), (3, '2054-08-04 10:09:59.999999', 'c1', 'c3'), (4, '2054-08-04 10:10:00', 'c1', 'c2'), (5, '2054-08-04 11:00:00', 'c1', 'c3'),
	(6, '2054-08-04 11:00:00', 'c3', 'c2'), (7, '2054-08-05 10:00:00', 'c1', 'c2'), (8, '2054-08-05 10:09:59.999999', 'c3', 'c2'), (9, '2054-09-01 10:00:00', 'c1', 'c2'), (10, '2054-09-01 10:00:00', 'card', 'c2')) AS v (n, moment, "from", "to") ORDER BY n;

-- ------------------------------------------------------------------------
-- structuring: many just below a threshold
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'split', 'structuring', 1000, minimum => 900, times => 3, period => 'day'$$, $$'split, slowly', 'structuring', 1000, minimum => 900, times => 4, span => '7 days'$$, $$'split between them', 'structuring', 1000, minimum => 900, times => 2, per => 'pair', period => 'month'$$,
	$$'at once', 'structuring', 500, minimum => 499.99, times => 1, period => 'hour'$$);
SELECT pg_temp.accounts('s1');
SELECT n, moment, "to", amount, pg_temp.pay(moment, 's1', "to", amount) FROM (VALUES
	(1, '2054-09-02 10:00:00', 'b', 899.99), (2, '2054-09-02 10:01:00', 'b', 900.00), (3, '2054-09-02 10:02:00', 'c', 999.99), (4, '2054-09-02 10:03:00', 'b', 1000.00), (5, '2054-09-02 10:04:00', 'gold', 950.00),
	(6, '2054-09-03 10:05:00', 'b', 950.00), (7, '2054-09-09 10:00:59', 'card', 950.00), (8, '2054-09-09 10:04:00', 'card 2', 899.00), (9, '2054-09-18 10:00:00', 'card', 950.00), (10, '2054-09-18 10:00:00', 'b', 499.99), (11, '2054-09-18 10:00:00', 'b', 500)) AS v (n, moment, "to", amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- night_window and business_hours: zones, weekdays, holidays
-- ------------------------------------------------------------------------

SELECT finance.add_holiday('2054-12-25'), finance.add_holiday('2054-12-24', 'half a day', 'new york'), finance.add_holiday('2054-12-31', calendar => 'new york');
SELECT pg_temp.rules($$'night', 'night_window', window_start => '22:00', window_end => '06:00'$$, $$'much at night in New York', 'night_window', 100, window_start => '22:00', window_end => '06:00', time_zone => 'America/New_York'$$,
	$$'sunday', 'night_window', window_start => '00:00', window_end => '24:00', weekdays => '{7}'$$, $$'holiday', 'night_window', window_start => '12:00', window_end => '13:00', weekdays => '{7}', calendar => 'default'$$,
	$$'lunch on fridays and holidays there', 'night_window', window_start => '12:00', window_end => '13:00', weekdays => '{5}', calendar => 'new york', time_zone => 'America/New_York'$$,
	$$'closed', 'business_hours', window_start => '09:00', window_end => '17:00', calendar => 'default', account => 'b'$$, $$'closed, and much', 'business_hours', 100, window_start => '09:00', window_end => '17:00', weekdays => '{6}', time_zone => 'America/New_York', calendar => 'new york', account => 'b'$$);
SELECT n, moment, to_char(moment::timestamptz AT TIME ZONE 'Europe/Berlin', 'Dy HH24:MI:SS') AS berlin, to_char(moment::timestamptz AT TIME ZONE 'America/New_York', 'Dy HH24:MI:SS') AS new_york, amount, pg_temp.pay(moment, 'a', 'c', amount)
FROM (VALUES (1, '2054-12-01 20:59:59.999999', 101), (2, '2054-12-01 21:00:00', 100), (3, '2054-12-02 04:59:59.999999', 101), (4, '2054-12-02 05:00:00', 101), (5, '2054-12-02 10:59:59.999999', 101), (6, '2054-12-02 11:00:00', 101),
	(7, '2054-12-05 22:59:59.999999', 1), (8, '2054-12-05 23:00:00', 1), (9, '2054-12-06 22:59:59.999999', 1), (10, '2054-12-25 11:00:00', 1), (11, '2054-12-25 10:59:59', 1), (12, '2054-12-24 11:30:00', 1), (13, '2054-12-24 17:00:00', 1),
	(14, '2054-12-25 17:30:00', 1), (15, '2054-12-30 17:30:00', 1), (16, '2054-12-31 17:59:59', 1), (17, '2054-12-31 18:00:00', 1)) AS v (n, moment, amount) ORDER BY n;
SELECT n, moment, to_char(moment::timestamptz AT TIME ZONE 'Europe/Berlin', 'Dy HH24:MI:SS') AS berlin, to_char(moment::timestamptz AT TIME ZONE 'America/New_York', 'Dy HH24:MI:SS') AS new_york, amount, pg_temp.pay(moment, 'b', 'c', amount)
FROM (VALUES (1, '2054-12-02 07:59:59.999999', 100), (2, '2054-12-02 08:00:00', 1), (3, '2054-12-02 15:59:59.999999', 1), (4, '2054-12-02 16:00:00', 1), (5, '2054-12-05 12:00:00', 1), (6, '2054-12-05 14:00:00', 101), (7, '2054-12-05 13:59:59', 101),
	(8, '2054-12-02 14:00:00', 101), (9, '2054-12-25 12:00:00', 1)) AS v (n, moment, amount) ORDER BY n;
-- a holiday taken back; and where the clocks change
SELECT finance.remove_holiday('2054-12-25');
SELECT pg_temp.pay('2054-12-25 11:00:00', 'a', 'c', 1), pg_temp.pay('2055-03-28 03:59:59', 'a', 'c', 1), pg_temp.pay('2055-03-28 04:00:00', 'a', 'c', 1);
-- with a calendar alone it is every day, holiday or not
SELECT pg_temp.rules($$'noon', 'night_window', window_start => '12:00', window_end => '13:00', calendar => 'new york'$$);
SELECT n, moment, pg_temp.pay(moment, 'a', 'c', 1) FROM (VALUES (1, '2054-12-01 11:30:00'), (2, '2054-12-06 11:30:00'), (3, '2054-12-24 11:30:00'), (4, '2054-12-24 12:30:00')) AS v (n, moment) ORDER BY n;

-- ------------------------------------------------------------------------
-- blocklist, watchlist, allowlist
-- ------------------------------------------------------------------------

SELECT finance.block_account('card', 'stolen'), finance.add_to_list('watched', 'account', 'c', 'x'), finance.add_to_list('countries', 'country', 'KP', 'x', '2055-05-01 12:00+00'), finance.add_to_list('phones', 'device', 'p1', 'x'),
	finance.load_list('friends', 'account', '{a,b}', 'x'), finance.add_to_list('friends', 'country', 'DE', 'x'), finance.add_to_list('allowlist', 'account', 'b', 'x');
SELECT pg_temp.rules($$'blocked', 'blocklist'$$, $$'watched payer', 'watchlist', list => 'watched', subject => 'payer'$$, $$'watched payee', 'watchlist', list => 'watched', subject => 'payee'$$, $$'watched', 'watchlist', list => 'watched'$$,
	$$'bad country', 'blocklist', list => 'countries', subject => 'country'$$, $$'bad phone', 'blocklist', list => 'phones', subject => 'device'$$);
SELECT n, "from", "to", metadata, pg_temp.pay(moment, "from", "to", 1, metadata => metadata) FROM (VALUES (1, '2055-05-01 10:00', 'a', 'b', NULL::jsonb), (2, '2055-05-01 10:00', 'card', 'b', NULL), (3, '2055-05-01 10:00', 'a', 'card', NULL), (4, '2055-05-01 10:00', 'c', 'a', NULL), (5, '2055-05-01 10:00', 'a', 'c', NULL),
	(6, '2055-05-01 10:00', 'a', 'b', '{"country": "DE", "device": "p1"}'), (7, '2055-05-01 10:00', 'a', 'b', '{"country": "kp", "device": "p2"}'),
	(8, '2055-05-01 10:00', 'a', 'b', '{"country": 7, "device": ["p1"]}'), (9, '2055-05-01 11:59:59.999999', 'a', 'b', '{"country": "KP"}'), (10, '2055-05-01 12:00:00', 'a', 'b', '{"country": "KP"}')) AS v (n, moment, "from", "to", metadata) ORDER BY n;
SELECT pg_temp.rules($$'to the allowed', 'allowlist'$$, $$'among friends', 'allowlist', list => 'friends', subject => 'account'$$, $$'of a friend', 'allowlist', list => 'friends', subject => 'payer'$$, $$'from here', 'allowlist', list => 'friends', subject => 'country'$$,
	$$'from our phones', 'allowlist', list => 'phones', subject => 'device', account => 'gold'$$);
SELECT n, "from", "to", metadata, pg_temp.pay('2055-05-02 10:00', "from", "to", 1, metadata => metadata) FROM (VALUES (1, 'a', 'b', '{"country": "DE"}'::jsonb), (2, 'a', 'c', '{"country": "DE"}'), (3, 'c', 'b', '{"country": "DE"}'), (4, 'c', 'gold', '{"country": "FR"}'), (5, 'b', 'a', NULL),
	(6, 'gold', 'b', '{"device": "p1", "country": "DE"}'), (7, 'gold', 'b', '{"device": "p2", "country": "DE"}'), (8, 'gold', 'b', '{"country": "DE"}')) AS v (n, "from", "to", metadata) ORDER BY n;
SELECT finance.unblock_account('card', 'found') AS unblocked;

-- ------------------------------------------------------------------------
-- new_counterparty, new_device, device_change, geography_jump, dormant_account
-- ------------------------------------------------------------------------

SELECT pg_temp.accounts('new', 'shop', 'other shop', 'shop 3');
SELECT pg_temp.rules($$'first', 'new_counterparty'$$, $$'first, and much', 'new_counterparty', 100$$, $$'phone', 'new_device'$$, $$'phone, and much', 'new_device', 100$$, $$'other phone', 'device_change'$$, $$'other phone, and much', 'device_change', 100$$,
	$$'elsewhere', 'geography_jump', span => '2 hours'$$, $$'elsewhere, and much', 'geography_jump', 100, span => '1 day'$$);
SELECT n, moment, "to", amount, metadata, pg_temp.pay(moment, 'new', "to", amount, metadata => metadata) FROM (VALUES
	(1, '2055-06-01 10:00:00', 'shop', 100, NULL::jsonb),	-- nothing is known yet
	(2, '2055-06-01 10:01:00', 'shop', 101, NULL),
	(3, '2055-06-01 10:02:00', 'other shop', 101, '{"device": "p1", "country": "DE"}'),
	(4, '2055-06-01 10:03:00', 'other shop', 101, '{"device": "p1", "country": "DE"}'),
	(5, '2055-06-01 10:04:00', 'shop', 100, '{"device": "p2", "country": "FR"}'),
	(6, '2055-06-01 10:05:00', 'shop', 101, NULL),	-- neither is told: the last is what it was
	(7, '2055-06-01 10:06:00', 'shop', 101, '{"device": "p1", "country": "FR"}'),
	(8, '2055-06-01 12:05:59.999999', 'shop', 1, '{"country": "DE"}'),
	(9, '2055-06-01 14:05:59.999999', 'shop', 100, '{"country": "FR"}'),	-- two hours after the last
	(10, '2055-06-02 14:05:59', 'shop', 101, '{"country": "DE"}'),
	(11, '2055-06-03 14:05:59', 'shop', 101, '{"country": "FR"}')
) AS v (n, moment, "to", amount, metadata) ORDER BY n;
-- an account's last transfer is told by its id, of the clock on the wall
SELECT pg_temp.rules($$'awake', 'dormant_account', span => '30 days'$$, $$'awake, and much', 'dormant_account', 100, span => '10 days'$$);
SELECT pg_temp.accounts('asleep');
SELECT n, after, amount, pg_temp.pay((clock_timestamp() + after)::text, 'asleep', 'shop', amount) FROM (VALUES (1, '1 year'::interval, 101), (2, '9 days 23:59', 101), (3, '10 days 00:00:01', 101), (4, '10 days 00:00:01', 100), (5, '29 days 23:59', 100), (6, '30 days 00:00:01', 100)) AS v (n, after, amount) ORDER BY n;
-- what was rejected has not been: the counterparty stays new
SELECT pg_temp.rules($$'cap', 'transfer_limit', 10, outcome => 'reject'$$, $$'first', 'new_counterparty'$$, $$'phone', 'new_device'$$);
SELECT n, amount, pg_temp.pay('2055-09-01 10:00:00', 'new', 'shop 3', amount, metadata => '{"device": "p3"}') FROM (VALUES (1, 11), (2, 11), (3, 10), (4, 10), (5, 11)) AS v (n, amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- expression, and what an error or null comes to
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'is so', 'expression', expression => 'amount > 10 and from_type = ''liability'' and weekday < 6'$$, $$'of the data', 'expression', expression => 'metadata->>''color'' = ''red''', on_error => 'pass'$$,
	$$'null reports', 'expression', expression => 'metadata->>''color'' = ''red''', on_error => 'report'$$, $$'error reports', 'expression', expression => '1 / (amount - 7) > 0', on_error => 'report', outcome => 'pass'$$,
	$$'error passes', 'expression', expression => '1 / (amount - 7) > 0', on_error => 'pass', outcome => 'pass'$$, $$'as text', 'expression', expression => 'reference is null and type = ''rent'' and pair_count >= 0'$$,
	$$'totals', 'expression', expression => 'account_day_amount + amount > 30 and account_hour_count < 2'$$);
SELECT pg_temp.accounts('e1');
SELECT n, moment, amount, type, metadata, pg_temp.pay(moment, 'e1', 'b', amount, type, metadata) FROM (VALUES (1, '2055-10-01 10:00', 11, 'transfer', '{"color": "blue"}'::jsonb), (2, '2055-10-02 10:00', 11, 'transfer', '{"color": "red"}'), (3, '2055-10-02 10:00', 11, 'rent', NULL),
	(4, '2055-10-02 10:00', 7, 'transfer', '{"color": "blue"}'), (5, '2055-10-02 11:00', 2, 'transfer', '{}'), (6, '2055-10-02 12:00', 6.5, 'transfer', '{"color": null}')) AS v (n, moment, amount, type, metadata) ORDER BY n;
SELECT pg_temp.rules($$'review it', 'expression', expression => 'metadata->>''x'' = ''y''', outcome => 'reject'$$);
SELECT outcome, rule FROM finance.evaluate_risk('a', 'b', 1);
SELECT outcome, rule FROM finance.evaluate_risk('a', 'b', 1, metadata => '{"x": "y"}');
SELECT outcome, rule FROM finance.evaluate_risk('a', 'b', 1, metadata => '{"x": "z"}');

-- ------------------------------------------------------------------------
-- another threshold for an account, a level, a type, for good or for a while
-- ------------------------------------------------------------------------

SELECT pg_temp.rules($$'cap', 'transfer_limit', 100$$, $$'month', 'total_limit', 1000, period => 'month'$$, $$'often', 'count_limit', 100, period => 'month'$$, $$'drain', 'balance_drain', 0.9, account => 'poor'$$, $$'round', 'round_amount', 77$$, $$'large', 'large_value', 500$$,
	$$'night', 'night_window', 60, window_start => '22:00', window_end => '23:00'$$);
SELECT pg_temp.accounts('l1');
SELECT finance.set_rule_limit('cap', 200, 'x', account_type => 'card'), finance.set_rule_limit('cap', 300, 'x', level => 'gold'), finance.set_rule_limit('cap', 50, 'x', account => 'l1'), finance.set_rule_limit('cap', 250, 'a car', account => 'l1', expires_at => '2055-11-01 12:00+00'),
	finance.set_rule_limit('cap', 400, 'a house', level => 'gold', expires_at => '2055-11-01 12:00+00'), finance.set_rule_limit('month', 500, 'x', account => 'l1'), finance.set_rule_limit('often', 3, 'x', account => 'l1'), finance.set_rule_limit('round', 7, 'x', account => 'b'),
	finance.set_rule_limit('large', 55.005, 'x', account => 'b'), finance.set_rule_limit('night', 0.5, 'x', account => 'b');
SELECT n, moment, "from", amount, pg_temp.pay(moment, "from", 'c', amount) FROM (VALUES
	(1, '2055-11-01 11:00', 'b', 101.00), (2, '2055-11-01 11:00', 'card', 200.00), (3, '2055-11-01 11:00', 'card', 200.01), (4, '2055-11-01 11:00', 'card 2', 400.00), (5, '2055-11-01 11:00', 'gold', 400.01),	-- the level before the type
	(6, '2055-11-01 11:59:59.999999', 'l1', 250.00), (7, '2055-11-01 12:00:00', 'l1', 50.00), (8, '2055-11-01 12:00:00', 'l1', 50.01), (9, '2055-11-01 12:00:00', 'gold', 300.01), (18, '2055-11-02 12:00:00', 'l1', 149.99), (19, '2055-11-02 12:00:00', 'l1', 0.01), (20, '2055-12-02 12:00:00', 'l1', 1),
	(12, '2055-11-01 12:00:00', 'b', 55.00), (13, '2055-11-01 12:00:00', 'b', 55.01), (14, '2055-11-01 12:00:00', 'b', 49.00), (15, '2055-11-01 21:00:00', 'b', 0.51), (16, '2055-11-01 21:00:00', 'b', 0.50), (17, '2055-11-01 21:00:00', 'c', 60)) AS v (n, moment, "from", amount)
WHERE "from" <> 'c' ORDER BY n;
-- cleared: the next that holds
SELECT finance.clear_rule_limit('cap', 'x', account => 'l1'), finance.clear_rule_limit('cap', 'x', level => 'gold', temporary => true), finance.clear_rule_limit('cap', 'x', level => 'gold', temporary => true);
SELECT n, "from", amount, pg_temp.pay('2055-12-03 10:00', "from", 'b', amount) FROM (VALUES (1, 'l1', 100.01), (2, 'gold', 300.01), (3, 'card 2', 300.01), (4, 'card', 200.01)) AS v (n, "from", amount) ORDER BY n;
-- the band of a structuring rule is what is counted: nothing differs there
SELECT pg_temp.rules($$'split', 'structuring', 1000, minimum => 900, times => 1, period => 'day'$$);
SELECT pg_temp.attempt($$SELECT finance.set_rule_limit('split', 2000, 'x', account => 'a')$$);
SELECT n, amount, pg_temp.pay('2055-12-05 10:00', 'a', 'b', amount) FROM (VALUES (1, 950), (2, 1500)) AS v (n, amount) ORDER BY n;

-- ------------------------------------------------------------------------
-- holds are judged when placed, and count; what is given back of one does not
-- ------------------------------------------------------------------------

SELECT pg_temp.accounts('payer');
SELECT pg_temp.rules($$'day', 'total_limit', 100, period => 'day', outcome => 'reject'$$, $$'three', 'count_limit', 3, span => '1 day', outcome => 'reject'$$);
SET finance.test_clock = '2055-12-08 10:00+00';
SELECT hold_id AS held, status FROM finance.hold('payer', 'b', 60) \gset
SELECT status, rule FROM finance.hold('payer', 'b', 41);
SELECT status, rule FROM finance.transfer('payer', 'b', 41);
SELECT status, hold_remaining FROM finance.capture(:held, 10);
SELECT status, rule FROM finance.transfer('payer', 'b', 41);
SELECT status, hold_remaining FROM finance.release(:held, 20);
SELECT status, rule FROM finance.transfer('payer', 'b', 60.01);
SELECT status, rule FROM finance.transfer('payer', 'b', 41);
SELECT status, hold_remaining FROM finance.capture(:held, 5, final => true);
-- 15 of it were captured; it is one of three still
SELECT status, rule FROM finance.transfer('payer', 'b', 44.01);
SELECT status, rule FROM finance.transfer('payer', 'b', 44);
SELECT status, rule FROM finance.transfer('payer', 'c', 0.01);
-- one that is given back whole was no transfer; one captured in full was
SELECT pg_temp.accounts('payer 2');
SELECT hold_id AS held FROM finance.hold('payer 2', 'b', 60) \gset
SELECT status FROM finance.release(:held);
SELECT n, t.status, t.rule FROM generate_series(1, 3) AS n, LATERAL finance.transfer('payer 2', 'b', 33 + 0 * n) AS t ORDER BY n;
SELECT status, rule FROM finance.transfer('payer 2', 'b', 1);
-- a reversal is judged as what its payer pays, and gives no allowance back
SELECT pg_temp.accounts('payer 3', 'payee 3');
SELECT id AS paid FROM finance.transfer('payer 3', 'payee 3', 100) \gset
SELECT status FROM finance.reverse_transfer(:paid, 40);
SELECT status, rule FROM finance.transfer('payer 3', 'payee 3', 0.01);
SELECT status, rule FROM finance.transfer('payee 3', 'payer 3', 60.01);
SELECT status, rule FROM finance.reverse_transfer(:paid, 60);
-- a batch: each is judged with what those before it came to
SELECT pg_temp.accounts('payer 4');
SELECT position, status, rule FROM finance.transfer_batch((SELECT array_agg(finance.request('payer 4', 'b', 40)) FROM generate_series(1, 4))) ORDER BY position;
SELECT position, error, status, rule FROM finance.transfer_batch(ARRAY[finance.request('payer 4', 'b', 10, linked => true), finance.request('payer 4', 'b', 10, linked => true), finance.request('payer 4', 'b', 0.01)]) ORDER BY position;
SELECT position, status, rule FROM finance.transfer_batch(ARRAY[finance.request('payer 4', 'b', 20), finance.request('payer 4', 'c', 0.01)]) ORDER BY position;
RESET finance.test_clock;

SELECT count(*) > 100 AS many, count(*) FILTER (WHERE NOT same) AS otherwise FROM finance.risk_decision d, finance.replay_decision(d.transfer_id, d.version) WHERE tenant_id = :tenant;
SELECT * FROM finance.check_integrity();
