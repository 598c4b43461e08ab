--
-- The hot tables when others put something on them: triggers, rules, indexes,
-- columns, partitions, publications.  Rows are written past the executor, and
-- what it would have done must be done, or left to it.
--
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS finance;
RESET client_min_messages;
\set SHOW_CONTEXT never
\set VERBOSITY terse

-- a book of its own: other tests may have accounts, too
INSERT INTO finance.tenant (tenant_id, name) VALUES (9041, 'review'), (9043, 'review, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9043;
SELECT finance.create_account('x', 'EUR', min_available => NULL) > 0 AS x,
	finance.create_account('y', 'EUR') > 0 AS y;
SELECT finance.create_queue('other');
SELECT finance.bind_topic('transfer.*', 'other');
SET finance.tenant = 9041;
SELECT finance.create_account('a', 'EUR', min_available => NULL) > 0 AS a,
	finance.create_account('b', 'EUR') > 0 AS b,
	finance.create_account('fee', 'EUR', 'income') > 0 AS fee;
SELECT finance.create_queue('own');
SELECT finance.bind_topic('transfer.*', 'own');
CREATE SCHEMA review;
CREATE VIEW review.book AS
	SELECT code, balance, version FROM finance.account
	WHERE tenant_id = 9041 ORDER BY code;
-- for errors that name an id or a month
CREATE FUNCTION review.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'done';
EXCEPTION WHEN others THEN
	RETURN SQLSTATE || ' ' || regexp_replace(SQLERRM, '\d{4,}(_\d\d)?', 'N');
END $$;
CREATE FUNCTION review.breaches() RETURNS bigint LANGUAGE sql AS
	'SELECT count(*) FROM finance.check_integrity() WHERE tenant_id IN (9041, 9043)';

--
-- a trigger that transfers in its turn
--
CREATE TABLE review.log (line text);
CREATE FUNCTION review.charge() RETURNS trigger LANGUAGE plpgsql
SET search_path = review AS $$
BEGIN
	INSERT INTO log VALUES (NEW.type || ' of ' || NEW.amount);
	IF NEW.tenant_id = 9041 AND NEW.type = 'transfer' THEN
		PERFORM finance.transfer('a', 'fee', 1, type => 'fee');
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER charge AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.charge();
SELECT status, from_balance FROM finance.transfer('a', 'b', 10);
SELECT status, from_balance FROM finance.transfer('a', 'b', 10);
SET finance.direct_writes = off;
SELECT status, from_balance FROM finance.transfer('a', 'b', 10);
RESET finance.direct_writes;
SELECT * FROM review.book;
SELECT review.breaches();
SELECT * FROM review.log;
DROP TRIGGER charge ON finance.transfer;

-- on finance._account, where half of the posting is written already
CREATE FUNCTION review.early() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.code = 'a' AND pg_trigger_depth() = 1 THEN
		PERFORM finance.transfer('b', 'fee', 1);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER early AFTER UPDATE ON finance._account
	FOR EACH ROW EXECUTE FUNCTION review.early();
SELECT finance.transfer('a', 'b', 10);
DROP TRIGGER early ON finance._account;

-- one that works for another tenant, and as another actor
CREATE FUNCTION review.mirror() RETURNS trigger LANGUAGE plpgsql
SET finance.tenant = 9043 SET finance.actor = 'mirror' AS $$
BEGIN
	IF NEW.tenant_id = 9041 THEN
		PERFORM finance.transfer('x', 'y', NEW.amount);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER mirror AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.mirror();
SET finance.actor = 'review';
SELECT status FROM finance.transfer('a', 'b', 7);
RESET finance.actor;
SELECT tenant_id, actor, amount, request->>'from_account' AS from_account
	FROM finance.audit_record
	WHERE tenant_id IN (9041, 9043) AND operation = 'transfer' AND amount = 7 ORDER BY 1;
SELECT tenant_id, payload->'payload'->>'from_account' AS from_account
	FROM finance.message
	WHERE tenant_id IN (9041, 9043) AND payload->'payload'->>'amount' = '7.00' ORDER BY 1;
DROP TRIGGER mirror ON finance.transfer;

-- one that has the rules reloaded while the rejection is being written
SELECT finance.add_rule('m cap', 'transfer_limit', 100);
CREATE FUNCTION review.react() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9041 AND NEW.status = 'rejected' THEN
		FOR i IN 1 .. 20 LOOP
			PERFORM finance.add_rule('a rule ' || i, 'transfer_limit', 100 + i);
		END LOOP;
		PERFORM finance.transfer('a', 'fee', 1);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER react AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.react();
SELECT status, rule FROM finance.transfer('a', 'b', 500);
SELECT rule, observed, threshold FROM finance.risk_hit WHERE tenant_id = 9041;
DROP TRIGGER react ON finance.transfer;
SELECT count(finance.remove_rule(name)) > 0 AS removed FROM finance.live_rule WHERE tenant_id = 9041;

-- one that suppresses the row
CREATE FUNCTION review.suppress() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RETURN NULL; END';
CREATE TRIGGER suppress BEFORE INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.suppress();
SELECT review.outcome($$ SELECT finance.transfer('a', 'b', 10) $$);
DROP TRIGGER suppress ON finance.transfer;

--
-- the same over holds, value dates and reversals: what a trigger does in its turn
-- finds them as the posting leaves them, or is refused
--
CREATE FUNCTION review.charge_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.type = 'transfer' AND NEW.status = 'completed' THEN
		PERFORM finance.transfer('a', 'fee', 1, type => 'fee', effective_at => NEW.effective_at);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER charge AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.charge_dated();
SELECT finance.balance('a') AS before \gset
SELECT status FROM finance.transfer('a', 'b', 10, effective_at => '2020-01-01 00:00+00');
SELECT count(*) FROM finance.transfer_batch(ARRAY[finance.request('a', 'b', 10, effective_at => '2020-01-02 00:00+00'),
	finance.request('b', 'a', 5, effective_at => '2019-01-02 00:00+00')]);
SELECT status FROM finance.transfer('a', 'b', 10, effective_at => '2020-01-02 00:00+00');
SELECT finance.balance('a') - :before AS moved, finance.balance_at('a', 'infinity', 'effective') = finance.balance('a') AS same,
	finance.balance_at('a', '2020-01-01 00:00:01+00', 'effective') AS then;
SELECT review.breaches();
DROP TRIGGER charge ON finance.transfer;

-- what is left of a hold, once a part of it is captured
CREATE FUNCTION review.rest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.hold_id IS NOT NULL AND NEW.status = 'completed' AND NEW.amount = 1 THEN
		PERFORM finance.release(NEW.hold_id);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER rest AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.rest();
SELECT hold_id AS hold FROM finance.hold('a', 'b', 10) \gset
SELECT status, amount FROM finance.capture(:hold, 1);
SELECT status, captured, released FROM finance.hold WHERE hold_id = :hold;
SELECT review.breaches();
DROP TRIGGER rest ON finance.transfer;

-- on finance._hold, or between the accounts and it, where it is too early
SELECT hold_id AS hold FROM finance.hold('a', 'b', 10) \gset
SELECT hold_id AS other FROM finance.hold('a', 'b', 10) \gset
CREATE FUNCTION review.capture_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN
		PERFORM finance.capture(current_setting('review.hold')::bigint, 2);
	END IF;
	RETURN NEW;
END $$;
SET review.hold = :other;
CREATE TRIGGER early AFTER UPDATE ON finance._hold
	FOR EACH ROW WHEN (NEW.captured = 1) EXECUTE FUNCTION review.capture_too();
SELECT review.outcome(format($$SELECT finance.transfer_batch(ARRAY[finance.request(action => 'capture', hold_id => %s, amount => 1),
	finance.request(action => 'capture', hold_id => %s, amount => 3)])$$, :hold, :other));
DROP TRIGGER early ON finance._hold;
SET review.hold = :hold;
CREATE TRIGGER early AFTER UPDATE ON finance._account
	FOR EACH ROW WHEN (NEW.code = 'b') EXECUTE FUNCTION review.capture_too();
SELECT review.outcome(format('SELECT finance.capture(%s, 3)', :hold));
SET finance.direct_writes = off;
SELECT review.outcome(format('SELECT finance.capture(%s, 3)', :hold));
RESET finance.direct_writes;
DROP TRIGGER early ON finance._account;
CREATE TRIGGER suppress BEFORE INSERT OR UPDATE ON finance._hold
	FOR EACH ROW EXECUTE FUNCTION review.suppress();
SELECT review.outcome(format('SELECT finance.release(%s)', :hold));
SELECT review.outcome($$ SELECT finance.hold('a', 'b', 1) $$);
DROP TRIGGER suppress ON finance._hold;
SELECT review.breaches();
SELECT status, captured FROM finance.hold WHERE hold_id IN (:hold, :other);

-- more than there is to give back
SELECT id AS paid FROM finance.transfer('a', 'b', 10) \gset
SET review.paid = :paid;
CREATE FUNCTION review.reverse_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN
		PERFORM finance.reverse_transfer(current_setting('review.paid')::bigint, 8);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER too AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION review.reverse_too();
SELECT review.outcome(format('SELECT finance.reverse_transfer(%s, 8)', :paid));
DROP TRIGGER too ON finance.transfer;
CREATE TRIGGER too AFTER UPDATE ON finance._account
	FOR EACH ROW WHEN (NEW.code = 'b') EXECUTE FUNCTION review.reverse_too();
SELECT review.outcome(format('SELECT finance.reverse_transfer(%s, 8)', :paid));
DROP TRIGGER too ON finance._account;
SELECT status, amount FROM finance.reverse_transfer(:paid, 8);
SELECT review.breaches();

--
-- rules
--
CREATE RULE note AS ON INSERT TO finance.transfer
	DO ALSO INSERT INTO review.log VALUES ('rule on transfer');
CREATE RULE note AS ON UPDATE TO finance._account
	DO ALSO INSERT INTO review.log VALUES ('rule on _account');
TRUNCATE review.log;
CREATE RULE note AS ON UPDATE TO finance._hold
	DO ALSO INSERT INTO review.log VALUES ('rule on _hold');
SELECT status FROM finance.transfer('a', 'b', 10);
SELECT status, hold_remaining FROM finance.capture(:hold, 1);
SELECT line, count(*) FROM review.log GROUP BY line ORDER BY line;
DROP RULE note ON finance._hold;
DROP RULE note ON finance.transfer;
DROP RULE note ON finance._account;

--
-- columns: added, and in another order in a partition
--
BEGIN;
ALTER TABLE finance._account ADD COLUMN note text DEFAULT 'n';
ALTER TABLE finance._hold ADD COLUMN note text DEFAULT 'n';
SELECT status, hold_remaining FROM finance.capture(:hold, 1);
SELECT status FROM finance.hold('a', 'b', 1);
ALTER TABLE finance._hold DROP COLUMN note;
SELECT status, hold_remaining FROM finance.capture(:hold, 1);
ALTER TABLE finance.transfer ADD COLUMN note text DEFAULT 'n';
SELECT status FROM finance.transfer('a', 'b', 10);
SELECT finance.set_account_status('b', 'frozen') > 0 AS frozen,
	finance.set_account_status('b', 'active') > 0 AS active;
SELECT finance.create_account('c', 'EUR') > 0 AS c;
ALTER TABLE finance._account DROP COLUMN note;
ALTER TABLE finance.transfer DROP COLUMN note;
SELECT status FROM finance.transfer('a', 'b', 10);
SELECT review.breaches();
ROLLBACK;

BEGIN;
DO $$
DECLARE
	part text := (SELECT tableoid::regclass FROM finance.transfer
		WHERE tenant_id = 9041 ORDER BY id DESC LIMIT 1);
	bound text := (SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = part::regclass);
BEGIN
	EXECUTE format('ALTER TABLE finance.transfer DETACH PARTITION %s', part);
	EXECUTE format('CREATE TABLE review.old AS TABLE %s', part);
	EXECUTE format('DROP TABLE %s', part);
	EXECUTE format('CREATE TABLE %s (id bigint NOT NULL,'
		' to_account_id bigint NOT NULL, from_account_id bigint NOT NULL,'
		' from_version bigint, to_version bigint, recorded_at timestamptz NOT NULL,'
		' effective_at timestamptz, hold_id bigint, journal_id bigint, reverses_id bigint,'
		' tenant_id integer NOT NULL, trace_id uuid NOT NULL,'
		' amount finance.amount NOT NULL, from_balance numeric NOT NULL,'
		' to_balance numeric NOT NULL, from_held numeric, to_held numeric, released numeric,'
		' status text NOT NULL, type text NOT NULL, currency text NOT NULL,'
		' reference text, metadata jsonb,'
		' CONSTRAINT transfer_two_accounts CHECK (from_account_id <> to_account_id))', part);
	EXECUTE format('ALTER TABLE finance.transfer ATTACH PARTITION %s %s', part, bound);
	INSERT INTO finance.transfer SELECT id, from_account_id, to_account_id, from_version,
		to_version, recorded_at, effective_at, hold_id, journal_id, reverses_id, tenant_id, trace_id,
		amount, from_balance, to_balance, from_held, to_held, released, status, type, currency, reference, metadata
		FROM review.old;
END $$;
SELECT review.breaches();
SELECT status FROM finance.transfer('a', 'b', 10);
SELECT review.breaches();
ROLLBACK;

--
-- indexes
--
-- what is in place of the key is not it
BEGIN;
ALTER TABLE finance._account DROP CONSTRAINT account_pkey;
ALTER TABLE finance._account ADD CONSTRAINT account_pkey PRIMARY KEY (account_id, tenant_id);
SELECT status FROM finance.transfer('a', 'b', 10);
ALTER TABLE finance._hold DROP CONSTRAINT hold_pkey;
ALTER TABLE finance._hold ADD CONSTRAINT hold_pkey PRIMARY KEY (hold_id, tenant_id);
SELECT status, hold_remaining FROM finance.capture(:hold, 1);
ROLLBACK;

-- a BRIN index on what changes, which from 16 on leaves updates HOT
CREATE INDEX review_brin ON finance._account USING brin (version);
DO $$ BEGIN
	FOR i IN 1 .. 40 LOOP
		PERFORM finance.transfer('a', 'b', 1);
		COMMIT;					-- so that old versions are pruned
	END LOOP;
END $$;
VACUUM finance._account;
SELECT count(finance.create_account('account ' || i, 'EUR')) FROM generate_series(1, 60) i;
SELECT status FROM finance.transfer('a', 'b', 1);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
-- each code leads to the account of this code, once
SELECT count(*) AS accounts, count(*) FILTER (WHERE k.found = ARRAY[a.account_id]) AS found
	FROM finance.account a,
	LATERAL (SELECT array_agg(i.account_id) AS found FROM finance._account i
		WHERE i.tenant_id = 9041 AND i.code = a.code) k
	WHERE a.tenant_id = 9041;
RESET enable_seqscan;
RESET enable_bitmapscan;
DROP INDEX finance.review_brin;

-- one of an expression, partial
CREATE INDEX review_partial ON finance._account ((version % 10))
	WHERE tenant_id = 9041 AND version % 2 = 0;
SELECT count(*) FROM (SELECT finance.transfer('a', 'b', 1) FROM generate_series(1, 20)) t;
SET enable_seqscan = off;
SELECT count(*) FROM finance._account
	WHERE version % 10 >= 0 AND tenant_id = 9041 AND version % 2 = 0;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM finance._account
	WHERE version % 10 >= 0 AND tenant_id = 9041 AND version % 2 = 0;
RESET enable_seqscan;
RESET enable_indexscan;
RESET enable_bitmapscan;
DROP INDEX finance.review_partial;

-- one of a hold's changing columns
CREATE INDEX review_captured ON finance._hold (captured) WHERE status = 'open';
SELECT count(finance.capture(:other, 1)) FROM generate_series(1, 3);
SET enable_seqscan = off;
SELECT captured FROM finance._hold WHERE captured = 3 AND status = 'open' AND tenant_id = 9041;
RESET enable_seqscan;
DROP INDEX finance.review_captured;

-- CHECK and unique constraints of others hold, and name themselves
ALTER TABLE finance._hold ADD CONSTRAINT review_cap CHECK (tenant_id <> 9041 OR captured < 5);
SELECT finance.capture(:other, 3);
ALTER TABLE finance._hold DROP CONSTRAINT review_cap;
ALTER TABLE finance._account ADD CONSTRAINT review_cap CHECK (tenant_id <> 9041 OR debits_posted < 1000);
SELECT finance.transfer('a', 'b', 990);
ALTER TABLE finance._account DROP CONSTRAINT review_cap;

--
-- a publication that could not carry the change
--
SET client_min_messages = error;	-- about wal_level
BEGIN;
ALTER TABLE finance._account REPLICA IDENTITY NOTHING;
CREATE PUBLICATION review FOR TABLE finance._account;
SELECT finance.transfer('a', 'b', 1);
ROLLBACK;
RESET client_min_messages;

--
-- a partition made on the way
--
BEGIN;
SELECT tableoid::regclass AS part FROM finance.transfer
	WHERE tenant_id = 9041 ORDER BY id DESC LIMIT 1 \gset
SELECT status FROM finance.transfer('a', 'b', 1, idempotency_key => 'kept?');
ALTER TABLE finance.transfer DETACH PARTITION :part;
-- the key is there, its transfer is not: nothing to try again
SELECT finance.transfer('a', 'b', 1, idempotency_key => 'kept?');
ROLLBACK;
BEGIN;
ALTER TABLE finance.transfer DETACH PARTITION :part;
SELECT review.outcome($$ SELECT finance.transfer('a', 'b', 1) $$);
DROP TABLE :part;
SELECT status FROM finance.transfer('a', 'b', 1);
ROLLBACK;

--
-- metadata as large as allowed, whether a queue is bound or not
--
SET finance.max_payload = 2048;
SELECT status FROM finance.transfer('a', 'b', 1,
	metadata => jsonb_build_object('x', repeat('y', 2000)));
SELECT finance.transfer('a', 'b', 1,
	metadata => jsonb_build_object('x', repeat('y', 2100)));
RESET finance.max_payload;

--
-- row security in a parallel plan, in a session that knows no tenant yet
--
CREATE ROLE regress_review;
SELECT finance.grant_access('regress_review', 'app');
GRANT USAGE ON SCHEMA review TO regress_review;
CREATE TABLE review.numbers AS SELECT g FROM generate_series(1, 1000) g;
GRANT SELECT ON review.numbers TO regress_review;
\c -
\set SHOW_CONTEXT never
\set VERBOSITY terse
SET ROLE regress_review;
SET finance.tenant = 9041;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) > 0 AS joined FROM finance.account a JOIN review.numbers n ON n.g = a.version;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;

--
-- a role that is renamed
--
SELECT status FROM finance.transfer('a', 'b', 1, reference => 'by the old name');
RESET ROLE;
ALTER ROLE regress_review RENAME TO regress_review_new;
SET ROLE regress_review_new;
SELECT status FROM finance.transfer('a', 'b', 1, reference => 'by the new name');
RESET ROLE;
SELECT request->>'reference' AS reference, actor FROM finance.audit_record
	WHERE tenant_id = 9041 AND request->>'reference' LIKE 'by the %' ORDER BY id;

SELECT review.breaches();
SET client_min_messages = warning;
DROP SCHEMA review CASCADE;
DROP OWNED BY regress_review_new;
DROP ROLE regress_review_new;
SELECT finance.drop_queue('own');
SET finance.tenant = 9043;
SELECT finance.drop_queue('other');
