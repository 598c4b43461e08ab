--
-- AMQP topics: checks, and the trie against an independent matcher
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;

-- what a statement does: its error with everything a user sees, or 'done'
CREATE FUNCTION pg_temp.outcome(command text, OUT code text,
								OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	message := 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	message := left(message, 80);
END $$;

-- the examples of the AMQP 0-9-1 specification
SELECT pattern, topic, finance.topic_matches(pattern, topic)
FROM (VALUES
	('*.stock.#', 'usd.stock'),
	('*.stock.#', 'eur.stock.db'),
	('*.stock.#', 'stock.nasdaq'),
	('#', 'transfer.completed'),
	('transfer.*', 'transfer.completed'),
	('transfer.*', 'transfer'),
	('transfer.*', 'transfer.completed.late'),
	('transfer.#', 'transfer'),
	('#.alert', 'alert'),
	('#.alert', 'risk.alert'),
	('a.#.z', 'a.z'),
	('a.#.z', 'a.b.c.z'),
	('a.#.z', 'a.b.c'),
	('Transfer.*', 'transfer.completed')) AS t (pattern, topic);

-- malformed topics and patterns
SELECT left(topic, 20) AS topic, o.* FROM (VALUES
	(''), ('.'), ('a.'), ('.a'), ('a..b'), ('a b'), ('a.*'), ('a.#'),
	('a.b/c'), ('zahlung.früh'), (repeat('a', 256))) AS t (topic),
	pg_temp.outcome(format('SELECT finance.topic_matches(''#'', %L)', topic)) AS o
ORDER BY length(t.topic), t.topic COLLATE "C";
SELECT left(pattern, 20) AS pattern, o.* FROM (VALUES
	(''), ('#.'), ('*..*'), ('a*'), ('##'), ('*#'), ('a.b#'), ('a.!'),
	(repeat('a', 256))) AS t (pattern),
	pg_temp.outcome(format('SELECT finance.topic_matches(%L, ''a'')', pattern)) AS o
ORDER BY length(t.pattern), t.pattern COLLATE "C";
SELECT finance.topic_matches('#.', 'a');
SELECT finance.topic_matches('#', 'a.');

-- the longest
SELECT finance.topic_matches(repeat('a', 255), repeat('a', 255)),
	finance.topic_matches(repeat('a', 255), repeat('a', 254)),
	finance.topic_matches(rtrim(repeat('*.', 128), '.'), rtrim(repeat('x.', 128), '.')),
	finance.topic_matches(rtrim(repeat('*.', 127), '.'), rtrim(repeat('x.', 128), '.'));

-- a backtracking matcher would not come back from these
SET statement_timeout = '60s';
SELECT finance.topic_matches(repeat('#.a.', 63) || '#', rtrim(repeat('a.', 128), '.')),
	finance.topic_matches(repeat('#.a.', 63) || 'b', rtrim(repeat('a.', 128), '.')),
	finance.topic_matches(rtrim(repeat('#.', 128), '.'), rtrim(repeat('a.', 128), '.')),
	finance.topic_matches(repeat('#.*.', 63) || 'b', rtrim(repeat('a.', 128), '.'));
RESET statement_timeout;

-- every pattern of up to four words against every topic of up to four words
CREATE FUNCTION pg_temp.matches(pattern text[], topic text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	IF cardinality(pattern) = 0 THEN
		RETURN cardinality(topic) = 0;
	ELSIF pattern[1] = '#' THEN
		RETURN pg_temp.matches(pattern[2:], topic) OR
			(cardinality(topic) > 0 AND pg_temp.matches(pattern, topic[2:]));
	ELSIF cardinality(topic) = 0 OR pattern[1] NOT IN ('*', topic[1]) THEN
		RETURN false;
	END IF;
	RETURN pg_temp.matches(pattern[2:], topic[2:]);
END $$;

CREATE TEMP TABLE pattern AS
WITH RECURSIVE r (words) AS (
	SELECT '{}'::text[]
	UNION ALL
	SELECT words || w FROM r, unnest('{a,b,*,#}'::text[]) AS w WHERE cardinality(words) < 4)
SELECT words, array_to_string(words, '.') AS pattern FROM r WHERE cardinality(words) > 0;
CREATE TEMP TABLE topic AS
WITH RECURSIVE r (words) AS (
	SELECT '{}'::text[]
	UNION ALL
	SELECT words || w FROM r, unnest('{a,b}'::text[]) AS w WHERE cardinality(words) < 4)
SELECT words, array_to_string(words, '.') AS topic FROM r WHERE cardinality(words) > 0;
CREATE TEMP TABLE expected AS
SELECT pattern, topic, pg_temp.matches(p.words, t.words) AS matches FROM pattern p, topic t;

SELECT count(*) AS pairs, count(*) FILTER (WHERE matches) AS matching,
	count(*) FILTER (WHERE matches <> finance.topic_matches(pattern, topic)) AS wrong
FROM expected;

-- the same with all patterns in one trie
BEGIN;
SELECT finance.create_queue('topic_test');
SELECT count(finance.bind_topic(pattern, 'topic_test')) FROM pattern;
SELECT count(*) AS missing FROM expected e WHERE matches AND NOT EXISTS
	(SELECT FROM finance.test_routing(e.topic) r WHERE r.pattern = e.pattern);
SELECT sum(n) = (SELECT count(*) FROM expected WHERE matches) AS none_too_many
FROM topic, LATERAL (SELECT count(*) AS n FROM finance.test_routing(topic)) r;
ROLLBACK;
