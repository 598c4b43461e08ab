--
-- Triggers of others on the tables of finance that call its functions again, in
-- the middle of a transfer, a batch or a journal: what they do is done right, or
-- refused, and the book stays sound.
--
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS finance;
-- what is done to our tables here is not to be recorded among the rest
ALTER EVENT TRIGGER finance_audit_ddl DISABLE;
ALTER EVENT TRIGGER finance_audit_drop DISABLE;
RESET client_min_messages;
\set SHOW_CONTEXT never
\set VERBOSITY terse

INSERT INTO finance.tenant (tenant_id, name) VALUES (9057, 'reentry'), (9058, 'reentry, other')
	ON CONFLICT DO NOTHING;
SET finance.tenant = 9058;
SELECT finance.create_account('x', 'EUR', min_available => NULL) > 0 AS x,
	finance.create_account('y', 'EUR') > 0 AS y;
SET finance.tenant = 9057;
SELECT finance.create_account('bank', 'EUR', min_available => NULL) > 0 AS bank,
	finance.create_account('a', 'EUR') > 0 AS a,
	finance.create_account('b', 'EUR', min_available => NULL) > 0 AS b,
	finance.create_account('fee', 'EUR', 'income') > 0 AS fee,
	finance.create_account('yen', 'JPY', min_available => NULL) > 0 AS yen,
	finance.create_account('rest', 'JPY', min_available => NULL) > 0 AS rest,
	finance.create_account('c', 'JPY') > 0 AS c;
SELECT status FROM finance.transfer('bank', 'a', 1000);
CREATE SCHEMA reentry;
CREATE VIEW reentry.book AS
	SELECT code, balance, held FROM finance.account
	WHERE tenant_id = 9057 AND code IN ('a', 'b', 'fee') ORDER BY code;
CREATE VIEW reentry.breaches AS
	SELECT * FROM finance.check_integrity() WHERE tenant_id IN (9057, 9058);
-- for errors that name an id
CREATE FUNCTION reentry.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN 'done';
EXCEPTION WHEN others THEN
	RETURN SQLSTATE || ' ' || regexp_replace(SQLERRM, '\d{4,}', 'N', 'g');
END $$;

--
-- value dates: a fee of the same date, charged by a trigger; its running total
-- counts what it was charged for
--
CREATE FUNCTION reentry.charge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND NEW.type = 'payment' THEN
		PERFORM finance.transfer('a', 'fee', 1, type => 'fee', effective_at => NEW.effective_at);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER charge AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION reentry.charge();
SELECT status FROM finance.transfer('a', 'b', 10, type => 'payment', effective_at => '2024-01-01 UTC');
SELECT status FROM finance.transfer_batch(ARRAY[
	finance.request('a', 'b', 20, type => 'payment', effective_at => '2024-01-02 UTC'),
	finance.request('b', 'a', 5, type => 'payment', effective_at => '2024-01-03 UTC')]);
SELECT finance.balance_at('a', '2024-01-02 UTC', 'effective') AS first,
	finance.balance_at('a', '2024-01-03 UTC', 'effective') AS second,
	finance.balance_at('a', '2024-01-04 UTC', 'effective') AS third,
	finance.balance_at('a', 'infinity', 'effective') - finance.balance('a') AS none;
SELECT * FROM reentry.breaches;
DROP TRIGGER charge ON finance.transfer;

--
-- reversals: nothing is given back twice, whoever asks when
--
CREATE FUNCTION reentry.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND NEW.type = 'reversal' AND pg_trigger_depth() = 1 THEN
		PERFORM finance.reverse_transfer(NEW.reverses_id);
	END IF;
	RETURN NEW;
END $$;
CREATE FUNCTION reentry.again_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND NEW.type = 'reversal' AND pg_trigger_depth() = 1 THEN
		PERFORM finance.reverse_journal((NEW.request->>'journal_id')::bigint);
	END IF;
	RETURN NEW;
END $$;
SELECT id AS transfer FROM finance.transfer('a', 'b', 100) \gset
SELECT journal_id AS journal FROM finance.journal(ARRAY[finance.leg('a', 'debit', 30),
	finance.leg('b', 'credit', 10), finance.leg('bank', 'credit', 20)]) LIMIT 1 \gset
CREATE TRIGGER again AFTER INSERT ON finance.transfer
	FOR EACH ROW EXECUTE FUNCTION reentry.again();
SELECT reentry.outcome(format('SELECT finance.reverse_transfer(%s)', :transfer));
SELECT reentry.outcome(format('SELECT finance.reverse_transfer(%s, 50)', :transfer));
SELECT count(*), sum(amount) FROM finance.reversals(:transfer);
SELECT reentry.outcome(format('SELECT finance.reverse_transfer(%s)', :transfer));
SELECT reentry.outcome(format('SELECT finance.reverse_journal(%s)', :journal));
DROP TRIGGER again ON finance.transfer;
CREATE TRIGGER again AFTER INSERT ON finance.journal
	FOR EACH ROW EXECUTE FUNCTION reentry.again_whole();
SELECT reentry.outcome(format('SELECT finance.reverse_journal(%s)', :journal));
DROP TRIGGER again ON finance.journal;
-- on the last of the accounts, when both are written
SELECT id AS transfer FROM finance.transfer('a', 'b', 100) \gset
CREATE FUNCTION reentry.on_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND NEW.code = current_setting('reentry.last') AND pg_trigger_depth() = 1 THEN
		PERFORM finance.reverse_transfer(current_setting('reentry.transfer')::bigint);
	END IF;
	RETURN NEW;
END $$;
SET reentry.transfer = :transfer;
SET reentry.last = 'b';
CREATE TRIGGER again AFTER UPDATE ON finance._account
	FOR EACH ROW EXECUTE FUNCTION reentry.on_account();
SELECT reentry.outcome(format('SELECT finance.reverse_transfer(%s)', :transfer));
DROP TRIGGER again ON finance._account;
SELECT * FROM reentry.breaches;

--
-- holds: a trigger between the writing of two holds finds the second as it was
--
SELECT id AS h1 FROM finance.hold('a', 'b', 100) \gset
SELECT id AS h2 FROM finance.hold('a', 'b', 100) \gset
SELECT id AS h3 FROM finance.hold('a', 'b', 200) \gset
CREATE FUNCTION reentry.next_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND NEW.status = 'captured' AND pg_trigger_depth() = 1 THEN
		PERFORM finance.capture((SELECT min(h.hold_id) FROM finance.hold h
			WHERE h.tenant_id = 9057 AND h.status = 'open' AND h.hold_id > NEW.hold_id));
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER next_hold AFTER UPDATE ON finance._hold
	FOR EACH ROW EXECUTE FUNCTION reentry.next_hold();
SELECT reentry.outcome(format('SELECT finance.transfer_batch(ARRAY[
	finance.request(action => ''capture'', hold_id => %s),
	finance.request(action => ''release'', hold_id => %s)])', :h1, :h2));
SELECT status, captured, released FROM finance.hold WHERE tenant_id = 9057 ORDER BY hold_id;
-- one that is not of the batch it may
SELECT status FROM finance.capture(:h1);
SELECT status, captured, released FROM finance.hold WHERE tenant_id = 9057 ORDER BY hold_id;
SELECT * FROM reentry.book;
SELECT * FROM reentry.breaches;
DROP TRIGGER next_hold ON finance._hold;
-- a new one, captured as soon as it is there
CREATE FUNCTION reentry.at_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 THEN
		PERFORM finance.capture(NEW.hold_id);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER at_once AFTER INSERT ON finance._hold
	FOR EACH ROW EXECUTE FUNCTION reentry.at_once();
SELECT status FROM finance.hold('a', 'b', 7);
DROP TRIGGER at_once ON finance._hold;
SELECT status, captured FROM finance.hold WHERE tenant_id = 9057 AND amount = 7;
SELECT * FROM reentry.breaches;

--
-- audit records: one that works for another tenant, and as another actor, while
-- a long batch is recorded in pieces
--
CREATE FUNCTION reentry.mirror() RETURNS trigger LANGUAGE plpgsql
SET finance.tenant = 9058 SET finance.actor = 'mirror' AS $$
BEGIN
	IF NEW.tenant_id = 9057 THEN
		PERFORM finance.transfer('x', 'y', 1);
	END IF;
	RETURN NEW;
END $$;
SET finance.actor = 'reentry';
CREATE TRIGGER mirror AFTER INSERT ON finance.audit_record
	FOR EACH ROW EXECUTE FUNCTION reentry.mirror();
SELECT count(*) FROM finance.transfer_batch((
	SELECT array_agg(finance.request('bank', 'a', 1, reference => 'mirrored')) FROM generate_series(1, 300)));
DROP TRIGGER mirror ON finance.audit_record;
SELECT tenant_id, actor, operation, count(*) FROM finance.audit_record
	WHERE request->>'reference' = 'mirrored' OR tenant_id = 9058 AND operation = 'transfer'
	GROUP BY 1, 2, 3 ORDER BY 1;
-- the same of rules, tenants and currencies
CREATE TRIGGER mirror AFTER INSERT OR UPDATE OR DELETE ON finance.risk_rule
	FOR EACH ROW EXECUTE FUNCTION reentry.mirror();
SELECT finance.add_rule('cap', 'transfer_limit', 100000);
SELECT finance.enable_rule('cap', false);
DROP TRIGGER mirror ON finance.risk_rule;
SELECT finance.remove_rule('cap');
SELECT tenant_id, actor, operation FROM finance.audit_record
	WHERE tenant_id IN (9057, 9058) AND operation LIKE '%\_rule' ORDER BY id;
RESET finance.actor;

--
-- keys are taken before anything is written: what a trigger on them moves
-- between the same accounts is refused
--
CREATE FUNCTION reentry.tip() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.tenant_id = 9057 AND pg_trigger_depth() = 1 THEN
		PERFORM finance.transfer('bank', 'fee', 1);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER tip AFTER INSERT ON finance.idempotency_key
	FOR EACH ROW EXECUTE FUNCTION reentry.tip();
SELECT status FROM finance.transfer('a', 'b', 1, idempotency_key => 'reentry 1');
SELECT finance.transfer('bank', 'b', 1, idempotency_key => 'reentry 2');
SELECT finance.transfer_batch(ARRAY[finance.request('a', 'b', 1, idempotency_key => 'reentry 3'),
	finance.request('a', 'fee', 1)]);
DROP TRIGGER tip ON finance.idempotency_key;
SELECT * FROM reentry.breaches;

--
-- a row that a trigger or a rule suppresses is missed
--
CREATE FUNCTION reentry.suppress() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RETURN NULL; END';
CREATE FUNCTION reentry.without(name text, event text, command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE format('CREATE TRIGGER suppress BEFORE %s ON finance.%I FOR EACH ROW EXECUTE FUNCTION reentry.suppress()', event, name);
	answer := reentry.outcome(command);
	EXECUTE format('DROP TRIGGER suppress ON finance.%I', name);
	RETURN answer;
END $$;
SELECT id AS transfer FROM finance.transfer('bank', 'b', 10) \gset
SELECT reentry.without('reversal', 'INSERT', format('SELECT finance.reverse_transfer(%s)', :transfer));
SELECT reentry.without('journal', 'INSERT', $$ SELECT finance.journal(ARRAY[finance.leg('bank', 'debit', 1), finance.leg('b', 'credit', 1)]) $$);
SELECT reentry.without('exchange', 'INSERT', $$ SELECT finance.exchange('a', 'c', 1, 150.5, 'bank', 'yen', rounding_account => 'rest') $$);
SELECT reentry.without('exchange_residue', 'INSERT', $$ SELECT finance.exchange('a', 'c', 1, 150.5, 'bank', 'yen', rounding_account => 'rest') $$);
SELECT reentry.without('audit_record', 'INSERT', $$ SELECT finance.transfer('bank', 'b', 1) $$);
SELECT reentry.without('account_change', 'INSERT', $$ SELECT finance.set_account_status('a', 'frozen') $$);
SELECT reentry.without('_account', 'UPDATE', $$ SELECT finance.set_account_status('a', 'frozen') $$);
SELECT reentry.without('_account', 'UPDATE', $$ SELECT finance.set_max_balance('a', 10000) $$);
SELECT reentry.without('_account', 'UPDATE', $$ SELECT finance.set_account_parent('a', 'bank') $$);
SELECT finance.add_rule('cap', 'transfer_limit', 100000);
SELECT reentry.without('risk_decision', 'INSERT', $$ SELECT finance.transfer('bank', 'b', 1000000) $$);
SELECT finance.remove_rule('cap');
SELECT * FROM reentry.breaches;

--
-- what a hold had left is told again as it was told, also where the batch was
-- settled twice, since an order before it turned out to be a repetition
--
SELECT id AS hold FROM finance.hold('bank', 'b', 100) \gset
SELECT hold_remaining FROM finance.capture(:hold, 10, idempotency_key => 'reentry 4');
SELECT status, hold_remaining, replayed FROM finance.transfer_batch(ARRAY[
	finance.request(action => 'capture', hold_id => :hold, amount => 10, idempotency_key => 'reentry 4'),
	finance.request(action => 'capture', hold_id => :hold, amount => 20, idempotency_key => 'reentry 5'),
	finance.request(action => 'release', hold_id => :hold, amount => 5, idempotency_key => 'reentry 6')]);
SELECT hold_remaining, replayed FROM finance.capture(:hold, 20, idempotency_key => 'reentry 5');
SELECT hold_remaining, replayed FROM finance.release(:hold, 5, idempotency_key => 'reentry 6');

SELECT * FROM reentry.breaches;
SET client_min_messages = warning;
DROP SCHEMA reentry CASCADE;
ALTER EVENT TRIGGER finance_audit_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER finance_audit_drop ENABLE ALWAYS;
