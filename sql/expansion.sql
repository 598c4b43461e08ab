-- (finance.transfer(...)).* would pay once for each column of the answer.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
\set VERBOSITY terse

SELECT finance.create_account('expansion-a', 'EUR', min_available => NULL) > 0 AS a,
	   finance.create_account('expansion-b', 'EUR') > 0 AS b;

SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*;
\echo :LAST_ERROR_SQLSTATE
SELECT x.status FROM (SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*) x;
WITH x AS (SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*) SELECT status FROM x;
CREATE TEMP TABLE expansion_answer AS
	SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*;
DECLARE expansion_cursor CURSOR WITH HOLD FOR
	SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*;
EXPLAIN ANALYZE SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).*;
DO $$
DECLARE
	answer finance.transfer_result;
BEGIN
	SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).* INTO answer;
END $$;
-- nothing has moved
SELECT finance.balance('expansion-b');

-- what is meant, and what is written twice
SELECT status, to_balance FROM finance.transfer('expansion-a', 'expansion-b', 1);
SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).to_balance;
SELECT (finance.transfer('expansion-a', 'expansion-b', 1)).to_balance,
	   (finance.transfer('expansion-a', 'expansion-b', 1)).to_balance;
SELECT t.* FROM (VALUES (1), (2)) v (amount),
	LATERAL (SELECT to_balance FROM finance.transfer('expansion-a', 'expansion-b', v.amount)) t;
-- nobody else's functions are looked at
SELECT (pg_catalog.pg_control_checkpoint()).timeline_id > 0 AS ok FROM (SELECT (pg_catalog.pg_stat_get_archiver()).*) x;
SELECT finance.balance('expansion-b');
