--
-- Risk expressions: what they may say, what it comes to, what is refused
--
SET client_min_messages = error;	-- no warning when not preloaded
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
\set SHOW_CONTEXT never
-- nothing here takes longer, whatever it is
SET statement_timeout = '1s';

-- the result, or the error; OTHERS is not a timeout, which ends the test
CREATE FUNCTION pg_temp.try(expression text, facts jsonb DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result boolean;
BEGIN
	result := finance.check_expression(expression, facts);
	RETURN CASE WHEN facts IS NULL THEN 'compiles' ELSE coalesce(result::pg_catalog.text, 'null') END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || left(SQLERRM, 100);
END $$;

SELECT * FROM finance.risk_facts();

-- ------------------------------------------------------------------------
-- what may be said, and what it comes to
-- ------------------------------------------------------------------------

SELECT finance.check_expression('amount > 1000 AND currency = ''EUR''') IS NULL AS compiles;
SELECT e AS expression, pg_temp.try(e, '{"amount": "1234.50", "currency": "EUR", "type": "payment", "from_type": "customer",
	"to_account": "shop-17", "from_age_days": 3, "available": 2000, "balance": 2000, "local_time": "23:15", "local_date": "2026-02-28", "weekday": 6,
	"is_hold": false, "is_reversal": true, "reference": "Invoice 4711", "device": "d1", "country": "DE", "last_country": "US",
	"last_country_minutes": 12.5, "pair_count": 0, "account_hour_amount": 5000, "account_hour_count": 7,
	"metadata": {"device": "d1", "declared": "1234.5", "n": 12, "vip": true, "items": [{"price": 3}, {"price": 4}], "none": null}}') AS result
FROM unnest(ARRAY[
	'amount > 1000 AND currency = ''EUR''',
	'amount >= 1234.5 AND amount <= 1234.500 AND amount <> 1',
	'amount % 1000 = 234.5 AND mod(amount, 7) < 7',
	'amount / available > 0.6 AND amount * 2 - 1 > +available AND -amount < 0',
	'amount > 0.9 * available',
	'account_hour_amount + amount > 6000 AND account_hour_count + 1 >= 8',
	'account_hour_count / 2 = 3 AND weekday * 2 % 5 = 2 AND account_hour_count % 4 = 3',
	'from_age_days < 7 AND pair_count = 0',
	'abs(-5) = 5 AND abs(balance) = 2000 AND sign(amount) = 1',
	'round(amount) = 1235 AND round(amount, -2) = 1200 AND trunc(amount) = 1234 AND ceil(amount) = 1235 AND ceiling(amount) = 1235 AND floor(amount) = 1234 AND trunc(amount, -3) = 1000',
	'weekday IN (6, 7)',
	'weekday NOT IN (6, 7)',
	'amount BETWEEN 1000 AND 2000 AND amount NOT BETWEEN 1 AND 2',
	'amount BETWEEN SYMMETRIC 2000 AND 1000',
	'country <> last_country AND last_country_minutes < 60',
	'country IN (''DE'', ''AT'', ''CH'')',
	'to_account LIKE ''shop-%'' AND to_account NOT LIKE ''%18''',
	'starts_with(reference, ''Inv'') AND length(reference) = 12 AND position(''47'' in reference) = 9 AND strpos(reference, ''47'') = 9',
	'lower(reference) || ''!'' = ''invoice 4711!'' AND upper(country) = ''DE''',
	'left(to_account, 4) = ''shop'' AND right(to_account, 2) = ''17'' AND substr(to_account, 6) = ''17'' AND substring(to_account from 1 for 4) = ''shop''',
	'char_length(country) = 2 AND character_length(country) = 2',
	'metadata->>''device'' = device AND metadata ? ''vip'' AND NOT metadata ? ''other''',
	'(metadata->>''declared'')::numeric = amount AND (metadata->>''n'')::int = 12 AND (metadata->>''vip'')::boolean AND (metadata->>''n'')::bigint > 1',
	'metadata->''items''->1->>''price'' = ''4'' AND metadata->''items''->>0 = ''{"price": 3}''',
	'jsonb_typeof(metadata->''items'') = ''array'' AND jsonb_typeof(metadata->''none'') = ''null''',
	'local_time >= ''22:00'' OR local_time < ''06:00''',
	'local_time > time ''23:15:00.001'' OR extract(hour from local_time) = 23',
	'local_date = ''2026-02-28'' AND local_date + 1 = date ''2026-03-01'' AND local_date - date ''2026-01-01'' = 58',
	'extract(day from local_date) = 28 AND extract(isodow from local_date) = weekday AND extract(month from local_date + 1) = 3',
	'local_date + local_time < timestamp ''2026-03-01 00:00'' AND local_time + interval ''1 hour'' < ''01:00''',
	'(local_date + local_time) - timestamp ''2026-02-28 00:00:00'' > interval ''23 hours''',
	'is_reversal AND NOT is_hold AND is_hold IS FALSE AND is_reversal IS NOT FALSE AND is_hold = false',
	'CASE WHEN currency = ''JPY'' THEN amount > 100000 ELSE amount > 1000 END',
	'CASE type WHEN ''payment'' THEN true WHEN ''refund'' THEN false END',
	'coalesce(from_level, ''basic'') = ''basic'' AND nullif(type, ''payment'') IS NULL',
	'greatest(amount, 2000, 5) = 2000 AND least(weekday, 3) = 3',
	'from_level IS NULL AND type IS NOT NULL AND from_level IS DISTINCT FROM type AND type IS NOT DISTINCT FROM ''payment''',
	'weekday::text || ''x'' = ''6x'' AND is_hold::text = ''false'' AND amount::int = 1235 AND amount::bigint = 1235',
	'true',
	'((((((((((amount))))))))))= 1234.5',
	'"amount" > 1 AND AMOUNT > 1',
	E'reference <> E''\\n'' AND reference <> U&''\\0041'' AND reference = $x$Invoice 4711$x$'
]) AS e;

-- nothing is known of a fact that is null: three-valued logic
SELECT e AS expression, pg_temp.try(e, '{"amount": 5}') AS result FROM unnest(ARRAY[
	'balance > 1', 'balance > 1 AND amount > 10', 'balance > 1 AND amount < 10', 'balance > 1 OR amount < 10', 'NOT (balance > 1)', 'balance IS NULL',
	'balance > 1 IS UNKNOWN', '(balance > 1) IS NOT TRUE', 'coalesce(balance > 1, false)', 'amount IN (1, NULL)', 'amount IN (5, NULL)', 'amount = NULL',
	'metadata->>''a'' = ''b''', 'metadata ? ''a''', 'CASE WHEN balance > 1 THEN true ELSE false END', 'NULL::boolean']) AS e;

-- what fails only with the facts of a transfer
SELECT e AS expression, pg_temp.try(e, '{"amount": 5, "balance": 0, "from_age_days": 9223372036854775807, "weekday": 2147483647,
	"metadata": {"n": "five", "nan": "NaN", "inf": "Infinity", "long": "1e101", "far": "1e-101", "date": "today"}}') AS result FROM unnest(ARRAY[
	'amount / balance > 1', 'amount % balance > 1', '1 / (weekday - weekday) = 1', 'from_age_days + 1 > 1', 'weekday * 2 > 1', 'amount > 1 OR amount / balance > 1',
	'balance <> 0 AND amount / balance > 1', '(metadata->>''n'')::numeric > 1', '(metadata->>''n'')::int > 1', '(metadata->>''n'')::boolean',
	'(metadata->>''nan'')::numeric > 1', '(metadata->>''inf'')::numeric > 1', '(metadata->>''long'')::numeric > 1', '(metadata->>''far'')::numeric = 0',
	'left(metadata->>''n'', 2) = ''fi''']) AS e;

-- texts of a payer are read up to 1000 characters, and so are texts joined
SELECT n, pg_temp.try('metadata->>''a'' = ''b''', jsonb_build_object('metadata', jsonb_build_object('a', repeat('x', n)))) AS member,
	pg_temp.try('reference || reference = ''b''', jsonb_build_object('reference', repeat('x', n / 2))) AS joined
FROM unnest(ARRAY[1000, 1002, 200000]) AS n;

-- facts that are given wrongly
SELECT pg_temp.try('amount > 1', f) AS result FROM unnest(ARRAY['[]', '1', '{"amout": 1}', '{"amount": "x"}', '{"amount": true}', '{"amount": [1]}',
	'{"local_time": "25:00"}', '{"weekday": 1.5}', '{"amount": null}']::jsonb[]) AS f;
SELECT finance.check_expression(NULL);
SELECT finance.check_expression(facts => '{"amount": 1001}', expression => 'amount > 1000');

-- ------------------------------------------------------------------------
-- what is refused, and where
-- ------------------------------------------------------------------------

SELECT finance.check_expression('amout > 1000');
SELECT finance.check_expression('is_hold OR blance > 1000');
SELECT finance.check_expression('is_hold OR something_else > 1000');
SELECT finance.check_expression('country = "DE"');
SELECT finance.check_expression('country IN (''Österreich'', ''Schweiz'') OR lenght(country) > 2');
SELECT finance.check_expression('metadata.device = ''d1''');
SELECT finance.check_expression('amount > (SELECT 1)');
SELECT finance.check_expression('amount > 1; DROP TABLE finance.transfer');
SELECT finance.check_expression('amount > 1 FROM finance.account WHERE true');
SELECT finance.check_expression('amount >');
SELECT finance.check_expression('amount > 1)');
SELECT finance.check_expression('');
SELECT finance.check_expression('  ');
SELECT finance.check_expression('amount');
SELECT finance.check_expression('NULL');
SELECT finance.check_expression('amount > 5 --and country = ''US''');
SELECT finance.check_expression('amount /* of money */ > 5');
SELECT finance.check_expression('reference = ''open');
SELECT finance.check_expression('amount > 1 AND amount / 0 > 1');
SELECT finance.check_expression('amount > 1 OR 1 / 0 > 1');
SELECT finance.check_expression('local_date = ''yesterday''');
SELECT finance.check_expression('reference < ''a''');
SELECT finance.check_expression('round(weekday) = 1');
SELECT finance.check_expression('amount > 1 OPERATOR(public.=) true');
SELECT finance.check_expression('amount::float8 > 1');
SELECT finance.check_expression('amount > 1e100');
SELECT finance.check_expression('reference ~ ''(a+)+$''');
SELECT finance.check_expression('reference LIKE to_account');
SELECT finance.check_expression('extract(hour from local_date) = 1');
SELECT finance.check_expression('local_date::text = ''2026-01-01''');

-- All of these have the same SQLSTATE; messages of the grammar differ between
-- versions of PostgreSQL.
SELECT left(pg_temp.try(e), 5) AS result, count(*), array_agg(e) FILTER (WHERE pg_temp.try(e) NOT LIKE 'LG103 %') AS not_refused FROM unnest(ARRAY[
	-- not one condition
	'amount > 1, amount > 2', 'amount > 1 AS big', 'amount > 1 big', '*', 'finance.account.*', 'DISTINCT amount > 1', 'amount > 1 FROM finance.account', 'amount > 1 WHERE true',
	'amount > 1 GROUP BY 1', 'amount > 1 HAVING true', 'amount > 1 ORDER BY 1', 'amount > 1 LIMIT 1', 'amount > 1 OFFSET 1', 'amount > 1 FOR UPDATE', 'amount > 1 UNION SELECT true',
	'amount > 1 WINDOW w AS ()', 'SELECT amount > 1', '(SELECT true)', 'amount > 1 INTO x', 'WITH a AS (SELECT 1) SELECT true', 'VALUES (true)', 'TABLE pg_class', ';', 'amount > 1;',
	-- queries inside
	'EXISTS (SELECT 1)', 'amount IN (SELECT 1)', 'amount = ANY (SELECT 1)', 'amount > ALL (VALUES (1))', 'ARRAY(SELECT 1) IS NULL', 'amount = ANY (ARRAY[1, 2])', 'amount = ANY (''{1,2}'')',
	-- what changes, or does something
	'now() > ''2026-01-01''', 'random() > 0.5', 'current_date = local_date', 'current_user = ''postgres''', 'current_time > local_time', 'localtime > local_time', 'clock_timestamp() IS NULL',
	'pg_sleep(10) IS NULL', 'nextval(''x'') > 1', 'set_config(''a.b'', ''c'', false) = ''c''', 'current_setting(''a.b'') = ''c''', 'pg_read_file(''PG_VERSION'') IS NULL', 'pg_terminate_backend(1)',
	'query_to_xml(''SELECT 1'', true, true, '''') IS NULL', 'lo_import(''x'') IS NULL', 'txid_current() > 1', 'finance.transfer(''a'', ''b'', 1) IS NULL', 'pg_catalog.now() IS NULL',
	-- parts of the grammar
	'$1 > 1', 'count(*) > 1', 'sum(amount) > 1', 'sum(amount) OVER () > 1', 'abs(DISTINCT amount) > 1', 'abs(amount ORDER BY 1) > 1', 'abs(VARIADIC amount) > 1',
	'abs(amount) FILTER (WHERE true) > 1', 'abs(amount) OVER () > 1', 'round(v => amount, s => 1) > 1', 'mode() WITHIN GROUP (ORDER BY amount) > 1', 'generate_series(1, 10) > 1',
	'(amount, 1) = (1, 1)', 'ROW(amount) IS NULL', '(amount).x > 1', 'metadata[''a''] IS NULL', 'country COLLATE "C" = ''DE''', 'DEFAULT', 'reference = B''101''', 'a.b > 1', 'public.amount > 1',
	'GROUPING(amount) = 1', 'xmlelement(name a) IS NULL', 'amount IS OF (int)', 'CURRENT OF c', 'local_time AT TIME ZONE ''UTC'' IS NULL', 'JSON_EXISTS(metadata, ''$.a'')', 'reference IS JSON',
	'reference IS NORMALIZED', '(amount, amount) OVERLAPS (amount, amount)', 'amount ISNULL OR', 'NOT', 'CASE WHEN amount > 1 THEN',
	-- operators and functions that are not listed
	'amount ^ 2 > 1', 'amount ! > 1', '|/ amount > 1', '@ amount > 1', 'reference ~* ''a''', 'reference !~ ''a''', 'reference ILIKE ''a''', 'reference SIMILAR TO ''a''', 'reference LIKE ''a'' || ''%''',
	'reference LIKE ''a'' ESCAPE ''x''', 'reference >= ''a''', 'reference BETWEEN ''a'' AND ''b''', 'greatest(reference, ''a'') = ''a''', 'reference || 1 = ''a1''', 'metadata @> ''{}''', 'metadata || ''{}'' IS NULL',
	'metadata #> ''{a}'' IS NULL', 'metadata @? ''$.a''', 'metadata < ''{}''', 'metadata = ''{}''', 'repeat(reference, 1000000000) = ''''', 'lpad(reference, 1000000000) = ''''', 'format(''%1000000000s'', reference) = ''''',
	'power(amount, 1000) > 1', 'exp(amount) > 1', 'factorial(10000) > 1', 'sqrt(amount) > 1', 'regexp_replace(reference, ''(a+)+$'', '''') = ''''', 'regexp_match(reference, ''a'') IS NULL', 'replace(reference, ''a'', ''b'') = ''''',
	'substring(reference from ''(a+)+$'') = ''''', 'substring(reference similar ''a'' escape ''b'') = ''''', 'trim(reference) = ''a''', 'overlay(reference placing ''a'' from 1) = ''a''', 'md5(reference) = ''a''', 'concat(reference) = ''a''',
	'to_char(local_date, ''YYYY'') = ''2026''', 'date_trunc(''day'', local_date) IS NULL', 'date_part(''hour'', local_time) = 1', 'make_date(2026, 1, 1) = local_date', 'lower(int4range(1, 2)) = 1', 'jsonb_path_exists(metadata, ''$.a'')',
	'position(reference in to_account) = 1', 'strpos(reference, to_account) = 1', 'round(amount, 1.5) > 1', 'nosuchfunction(amount)', 'numeric(amount) > 1', 'int4(amount) > 1', 'public.lower(reference) = ''a''',
	-- types, casts, constants
	'amount::real > 1', 'amount::money IS NULL', 'reference::regclass IS NULL', 'reference::xml IS NULL', 'reference::name = ''a''', 'reference::varchar(3) = ''a''', 'reference::char = ''a''', 'amount::numeric(10, 2) > 1', 'weekday::smallint > 1',
	'reference::date = local_date', 'reference::time = local_time', 'reference::timestamp IS NULL', 'reference::timestamptz IS NULL', 'reference::interval IS NULL', 'reference::jsonb IS NULL', 'amount::text = ''1''', 'metadata::text = ''1''',
	'reference::text[] IS NULL', 'reference::finance.account IS NULL', 'amount::pg_temp.numeric > 1', 'local_time::text = ''a''', 'local_date::timestamptz IS NULL', 'interval ''1'' day IS NULL', 'interval(2) ''1 day'' IS NULL',
	'local_date = ''today''', 'local_date < ''now''', 'local_date = date ''tomorrow''', 'local_date IN (''2026-01-01'', ''today'')', 'coalesce(local_date, ''today'') IS NULL', 'local_date = ''01/02/2026''', 'local_date = ''2026-1-1''', 'local_date < ''infinity''',
	'local_date = ''2026-02-30''', 'local_time = ''now''', 'local_time = ''allballs''', 'local_time = ''04:05 PST''', 'local_time = ''4:05 am''', 'local_time = ''24:01''', 'local_date + local_time < ''now''', 'local_time + ''-1 hour'' > local_time',
	'extract(century from local_time) = 1', 'extract(nothing from local_date) = 1', 'extract(country from local_date) = 1', 'amount = ''NaN''', 'amount = ''Infinity''', 'amount = ''1e100''', 'amount > 1e-100', 'amount > 1e100000', 'amount > 1e999999999999',
	'weekday > 2147483648::int', 'reference = 5', 'amount = ''five''', 'amount AND true', 'is_hold > 1', 'weekday + reference > 1', 'is_hold::int = 1', 'CASE WHEN amount > 1 THEN 1 ELSE ''a'' END', 'U&''\00zz'' = reference', '1/0 = 1'
]) AS e GROUP BY 1 ORDER BY 1;

-- ------------------------------------------------------------------------
-- size and depth: refused before anything that could take long
-- ------------------------------------------------------------------------

SELECT name, left(pg_temp.try(e), 60) AS result FROM (VALUES
	('1 MB of conditions', repeat('amount > 1 AND ', 70000) || 'true'),
	('1 MB of one name', repeat('a', 1000000) || ' > 1'),
	('1 MB of one text', 'reference = ''' || repeat('a', 1000000) || ''''),
	('4001 bytes', rpad('is_hold', 4001)),
	('4000 bytes', rpad('is_hold', 4000)),
	('3000 characters of two bytes', 'reference = ''' || repeat('ü', 3000) || ''''),
	('10,000 parentheses', repeat('(', 10000) || 'is_hold' || repeat(')', 10000)),
	('41 parentheses', repeat('(', 41) || 'is_hold' || repeat(')', 41)),
	('40 parentheses', repeat('(', 40) || 'is_hold' || repeat(')', 40)),
	('1900 open parentheses', repeat('( ', 1900)),
	('1900 open brackets', repeat('[ ', 1900)),
	('100,000 NOTs', repeat('NOT ', 100000) || 'is_hold'),
	('900 NOTs', repeat('NOT ', 900) || 'is_hold'),
	('39 NOTs', repeat('NOT ', 39) || 'is_hold'),
	('40 NOTs', repeat('NOT ', 40) || 'is_hold'),
	('3000 minuses', repeat('- ', 1900) || 'amount > 1'),
	('a CASE 100 deep', repeat('CASE WHEN is_hold THEN ', 100) || 'true' || repeat(' END', 100)),
	('a CASE 19 deep', repeat('CASE WHEN is_hold THEN ', 19) || 'true' || repeat(' END', 19)),
	('a sum of 1000', repeat('1 + ', 900) || '1 > 1'),
	('200 parts', 'is_hold' || repeat(' OR is_hold', 198)),
	('201 parts', 'is_hold' || repeat(' OR is_hold', 199) || ' OR is_hold'),
	('a list of 197', 'amount IN (1' || repeat(', 1', 197) || ')'),
	('a list of 1900', 'amount IN (1' || repeat(', 1', 1899) || ')'),
	('BETWEEN 12 deep, which doubles', repeat('(', 12) || 'amount' || repeat(' BETWEEN 1 AND 2)', 12)),
	('BETWEEN SYMMETRIC 12 deep', repeat('(', 12) || 'amount' || repeat(' BETWEEN SYMMETRIC 1 AND 2)', 12)),
	('IN 20 deep, of different types', repeat('(', 20) || 'is_hold' || repeat(' IN (true, 1, ''a''))', 20)),
	('|| doubling', repeat('(', 30) || 'reference' || repeat(' || reference)', 30) || ' = ''a'''),
	('a list of lists', 'amount IN (' || repeat('(', 30) || '1' || repeat(')', 31)),
	('a number of 10,000 digits', 'amount > ' || repeat('9', 10000)),
	('a number of 3000 digits', 'amount > ' || repeat('9', 3000)),
	('a number of 100 digits', 'amount > ' || repeat('9', 100)),
	('a text that is one', 'amount > ''' || repeat('9', 3000) || ''''),
	('1000 nested comments', repeat('/*', 1000) || repeat('*/', 1000) || 'true'),
	('1000 open strings', repeat('E''', 1000)),
	('a dollar quote', '$a$' || repeat('$b$', 1000)),
	('JSON 1500 deep', 'metadata->''a'' IS NULL OR ''' || repeat('[', 1500) || repeat(']', 1500) || '''::jsonb IS NULL'),
	('LIKE of many %', 'reference LIKE ''' || repeat('%a', 1500) || '''')
) AS v (name, e);

-- at worst: patterns, texts and numbers as long as they may be
SELECT pg_temp.try('reference LIKE ''' || repeat('%a', 1500) || '%b''', jsonb_build_object('reference', repeat('a', 1024))) AS many_wildcards,
	pg_temp.try('strpos(reference, ''' || repeat('a', 400) || 'b' || repeat('a', 400) || ''') > 0', jsonb_build_object('reference', repeat('a', 1024))) AS horspool,
	pg_temp.try(repeat('(', 30) || '(metadata->>''n'')::numeric' || repeat(' * (metadata->>''n'')::numeric)', 30) || ' > 1',
		jsonb_build_object('metadata', jsonb_build_object('n', repeat('8', 99) || '.' || repeat('8', 800)))) AS long_product,
	pg_temp.try(repeat('round(', 35) || 'amount' || repeat(', 2147483647)', 35) || ' * round(amount, 2000) > 1', '{"amount": 7}') AS rounded;

-- invalid in this encoding
SELECT pg_temp.try('reference = E''\xff''') LIKE 'LG103 invalid%' AS byte,
	pg_temp.try('reference = E''\000''') LIKE 'LG103 invalid%' AS zero,
	pg_temp.try('reference = U&''\d800''') LIKE 'LG103 invalid%' AS surrogate;

-- ------------------------------------------------------------------------
-- what users make does not change what an expression means
-- ------------------------------------------------------------------------

BEGIN;
CREATE SCHEMA other;
CREATE TABLE other.called (what text);
CREATE FUNCTION other.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO other.called VALUES ('lower'); RETURN 'shadow'; END $$;
CREATE FUNCTION pg_temp.upper(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'shadow'::text $$;
CREATE FUNCTION other.length(jsonb) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;
CREATE FUNCTION other.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO other.called VALUES ('='); RETURN true; END $$;
CREATE OPERATOR other.= (LEFTARG = text, RIGHTARG = text, FUNCTION = other.equal);
CREATE OPERATOR other.+ (LEFTARG = text, RIGHTARG = text, FUNCTION = other.equal);
CREATE FUNCTION other.to_date(text) RETURNS date LANGUAGE sql AS $$ SELECT '2026-01-01'::date $$;
CREATE FUNCTION other.to_int8(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 5::bigint $$;
CREATE CAST (text AS date) WITH FUNCTION other.to_date(text) AS IMPLICIT;
CREATE CAST (text AS bigint) WITH FUNCTION other.to_int8(text);
CREATE CAST (integer AS text) WITH INOUT AS IMPLICIT;
CREATE DOMAIN pg_temp.numeric AS text;
CREATE DOMAIN other.text AS pg_catalog.text CHECK (false);
SET LOCAL search_path = other, pg_temp, public, pg_catalog;
SET LOCAL transform_null_equals = on;
SET LOCAL standard_conforming_strings = off;
SET LOCAL backslash_quote = on;
SET LOCAL datestyle = 'SQL, DMY';
SET LOCAL intervalstyle = sql_standard;
SET LOCAL client_min_messages = error;
SELECT e AS expression, pg_temp.try(e, '{"reference": "A", "amount": 5, "country": "DE", "local_date": "2026-02-01", "metadata": {"n": "7"}}') AS result FROM unnest(ARRAY[
	$$lower(reference) = 'a'$$, $$upper(reference) = 'A'$$, $$reference = 'B'$$, $$length(metadata) = 1$$, $$reference + reference$$, $$reference OPERATOR(other.=) 'A'$$, $$other.lower(reference) = 'a'$$,
	$$reference = local_date$$, $$reference::bigint = 5$$, $$reference = 5$$, $$(metadata->>'n')::numeric = 7$$, $$reference::text = 'A'$$, $$balance = NULL$$, $$reference <> '\'$$, $$local_date = '2026-02-01'$$,
	$$local_date - interval '1 day 2 hours' < local_date$$]) AS e;
SELECT * FROM other.called;
ROLLBACK;

RESET statement_timeout;
SELECT * FROM finance.check_integrity();
