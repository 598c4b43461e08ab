-- Reading the audit log: by trace, page by page, and one row through time.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;

CREATE SCHEMA audit_read;
-- another session's transaction may hold sealing up for a moment
CREATE PROCEDURE audit_read.seal() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM finance.seal_audit();
		EXIT WHEN (SELECT unsealed = 0 FROM finance.audit_lag());
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
CREATE TABLE audit_read.item (id int, region text, name text, price numeric, PRIMARY KEY (id, region));
CREATE TABLE audit_read.plain (id int);
SELECT finance.audit_table('audit_read.item');
SELECT finance.audit_table('audit_read.plain');

-- two transactions of one trace: the first will be sealed, the second not
BEGIN;
SELECT finance.set_context(trace_id => 'aaaaaaaa-0000-0000-0000-0000000000ad', actor => 'ann',
						   span_id => 's1', request_id => 'r1', reason => 'opening');
INSERT INTO audit_read.item VALUES (1, 'eu', 'Pen', 1.20), (2, 'us', 'Ink "blue"', 3.00);
SAVEPOINT lost;
UPDATE audit_read.item SET name = 'lost';
ROLLBACK TO lost;
UPDATE audit_read.item SET price = 1.30 WHERE id = 1;
COMMIT;
CALL audit_read.seal();

-- somebody holds sealing up
BEGIN;
SELECT finance.set_context(trace_id => 'aaaaaaaa-0000-0000-0000-0000000000ad', actor => 'bob',
						   span_id => 's2', request_id => 'r2', reason => 'closing');
UPDATE audit_read.item SET name = 'Pencil', price = 1.40 WHERE id = 1;
DELETE FROM audit_read.item WHERE id = 2;
SELECT operation, row_key, actor, span_id, request_id, reason
FROM finance.audit_trace('aaaaaaaa-0000-0000-0000-0000000000ad');

-- one row through time, sealed and not, in the transaction that goes on
SELECT version, leaf IS NOT NULL AS sealed, operation, actor, reason, old_values, row_state
FROM finance.audit_history('audit_read.item', '{"region": "eu", "id": 1}');
SELECT version, operation, old_values, row_state
FROM finance.audit_history('audit_read.item', '{"id": 2, "region": "us"}');
SELECT version, operation FROM finance.audit_row_history('audit_read.item', '{"id":2,"region":"us"}');
COMMIT;
CALL audit_read.seal();
SELECT version, leaf IS NOT NULL AS sealed, operation, row_state
FROM finance.audit_history('audit_read.item', '{"region": "eu", "id": 1}');

SELECT count(*) FROM finance.audit_history('audit_read.item', '{"id": 9, "region": "us"}');
SELECT * FROM finance.audit_diff('audit_read.item', '{"id": 1, "region": "eu"}',
	(SELECT max(recorded_at) FROM finance.audit_record WHERE object = 'audit_read.item' AND actor = 'ann'))
ORDER BY column_name COLLATE "C";
SELECT * FROM finance.audit_diff('audit_read.item', '{"id": 2, "region": "us"}', '-infinity', 'infinity');
SELECT * FROM finance.audit_diff('audit_read.item', '{"id": 2, "region": "us"}', '-infinity',
	(SELECT max(recorded_at) FROM finance.audit_record WHERE object = 'audit_read.item' AND actor = 'ann'))
ORDER BY column_name COLLATE "C";

-- keys that name no row, and tables without
SELECT finance.audit_history('audit_read.item', '{"id": 1}');
SELECT finance.audit_history('audit_read.item', '{"id": 1, "name": "x"}');
SELECT finance.audit_history('audit_read.item', '{"id": null, "region": "eu"}');
SELECT finance.audit_history('audit_read.item', '{"id": [1], "region": "eu"}');
SELECT finance.audit_history('audit_read.item', '7');
SELECT finance.audit_history('audit_read.item', '{"id": "x", "region": "eu"}');
SELECT finance.audit_history('audit_read.plain', '{"id": 1}');

-- page by page, either way, by each filter
SELECT operation, actor FROM finance.audit_log(object => 'audit_read.item');
SELECT operation, actor FROM finance.audit_log(object => 'audit_read.item', newest_first => true);
SELECT operation, row_key FROM finance.audit_log(object => 'audit_read.item', actor => 'ann');
SELECT row_key FROM finance.audit_log(object => 'audit_read.item', operation => 'DELETE');
SELECT count(*) FROM finance.audit_log(object => 'audit_read.item', to_time => now() - interval '1 day');
SELECT count(*) FROM finance.audit_log(object => 'audit_read.item', from_time => now() - interval '1 day');
SELECT count(*) FROM finance.audit_log(object => 'audit_read.item', from_time => now() + interval '1 day');

CREATE FUNCTION audit_read.walk(per_page int, backwards boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	told text := '';
	page finance.audit_record;
	x xid8;
	s int;
	n int;
BEGIN
	LOOP
		n := 0;
		FOR page IN SELECT * FROM finance.audit_log(object => 'audit_read.item', after_xid => x,
				after_sequence => s, max_records => per_page, newest_first => backwards) LOOP
			told := told || page.operation || coalesce(page.row_key, '') || ' ';
			x := page.xid;
			s := page.sequence;
			n := n + 1;
		END LOOP;
		EXIT WHEN n < per_page;
	END LOOP;
	RETURN told;
END $$;
SELECT count(DISTINCT audit_read.walk(n, false)) AS one_way,
	   count(DISTINCT audit_read.walk(n, true)) AS other_way FROM generate_series(1, 6) AS n;
SELECT audit_read.walk(2, false);
SELECT finance.audit_log(max_records => 0);
SELECT finance.audit_log(max_records => 10001);

-- accounts, whichever side
SELECT finance.create_account('audit_read:a', 'EUR', min_available => NULL) AS a,
	   finance.create_account('audit_read:b', 'EUR') AS b \gset
SELECT status FROM finance.transfer('audit_read:a', 'audit_read:b', 5);
SELECT status FROM finance.transfer('audit_read:b', 'audit_read:a', 2);
SELECT operation, amount, account_version, counterparty_version FROM finance.audit_log(account_id => :a) ORDER BY id;
SELECT operation, amount FROM finance.audit_log(account_id => :b, newest_first => true);

-- another tenant sees nothing of it
SELECT finance.create_tenant('audit read') AS other \gset
SET finance.tenant = :other;
SELECT count(*) FROM finance.audit_trace('aaaaaaaa-0000-0000-0000-0000000000ad');
SELECT count(*) FROM finance.audit_history('audit_read.item', '{"id": 1, "region": "eu"}');
SELECT count(*) FROM finance.audit_log(object => 'audit_read.item');
SELECT count(*) FROM finance.audit_log(account_id => :a);
RESET finance.tenant;

CALL audit_read.seal();
SELECT * FROM finance.verify_audit();
SELECT * FROM finance.check_integrity();
SELECT finance.unaudit_table('audit_read.item'), finance.unaudit_table('audit_read.plain');
SET client_min_messages = warning;
DROP SCHEMA audit_read CASCADE;
