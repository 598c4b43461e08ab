-- bench/plpgsql_ledger.sql: what finance.transfer() does, written by hand in
-- plpgsql to be fast: the comparison of the benchmark.
--
-- The same work for one transfer: idempotency key; both accounts locked in one
-- order; status, currency, decimals, versions, floor and ceiling checked;
-- risk rules (limit, daily limit, night window, blocklist) judged under the
-- lock; one row for the transfer with both sides; both accounts updated with
-- totals, version and daily counter; an audit record with its hash; messages
-- for bound queues; the result row.  It has no tenants and no row security.
--
-- What makes it fast: one row per transfer, HOT updates of accounts (fillfactor
-- 50, no index on what changes), each table touched by one statement, rules
-- judged by one statement, nothing computed twice, static SQL only, so that
-- every plan is kept for the session.

CREATE SCHEMA ledger;

CREATE TABLE ledger.account (
	account_id		bigint PRIMARY KEY,
	version			bigint NOT NULL DEFAULT 0,
	spent_on		date NOT NULL DEFAULT '-infinity',
	minor_units		smallint NOT NULL,
	debits			numeric NOT NULL DEFAULT 0 CHECK (debits >= 0),
	credits			numeric NOT NULL DEFAULT 0 CHECK (credits >= 0),
	held			numeric NOT NULL DEFAULT 0 CHECK (held >= 0),
	spent			numeric NOT NULL DEFAULT 0,
	min_available	numeric,
	max_balance		numeric,
	status			text NOT NULL DEFAULT 'active',
	currency		text NOT NULL,
	code			text NOT NULL UNIQUE
) WITH (fillfactor = 50);

CREATE TABLE ledger.rule (
	name			text PRIMARY KEY,
	kind			text NOT NULL,
	threshold		numeric,
	account_id		bigint,
	currency		text,
	window_start	time,
	window_end		time,
	position		integer NOT NULL
);

CREATE TABLE ledger.blocked (
	account_id		bigint PRIMARY KEY,
	reason			text NOT NULL
);

CREATE SEQUENCE ledger.transfer_id;

CREATE TABLE ledger.idempotency_key (
	key				text PRIMARY KEY,
	transfer_id		bigint NOT NULL,
	request_hash	bytea NOT NULL
);

CREATE TABLE ledger.transfer (
	id				bigint PRIMARY KEY,
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	from_version	bigint,
	to_version		bigint,
	recorded_at		timestamptz NOT NULL,
	effective_at	timestamptz,
	trace_id		uuid NOT NULL,
	amount			numeric NOT NULL CHECK (amount > 0 AND amount < 'Infinity'),
	from_balance	numeric NOT NULL,
	to_balance		numeric NOT NULL,
	from_held		numeric,
	to_held			numeric,
	status			text NOT NULL,
	type			text NOT NULL,
	currency		text NOT NULL,
	reference		text,
	metadata		jsonb,
	CHECK (from_account_id <> to_account_id)
) PARTITION BY RANGE (id);
CREATE INDEX ON ledger.transfer (from_account_id, id);
CREATE INDEX ON ledger.transfer (to_account_id, id);
CREATE TABLE ledger.transfer_1 PARTITION OF ledger.transfer
	FOR VALUES FROM (0) TO (1000000000);
CREATE TABLE ledger.transfer_2 PARTITION OF ledger.transfer
	FOR VALUES FROM (1000000000) TO (2000000000);

CREATE TABLE ledger.decision (
	transfer_id		bigint PRIMARY KEY,
	rule			text NOT NULL,
	observed		text,
	threshold		text
);

CREATE SEQUENCE ledger.audit_id;

CREATE TABLE ledger.audit_record (
	id				bigint PRIMARY KEY,
	trace_id		uuid NOT NULL,
	message_id		bigint,
	transfer_id		bigint,
	account_id		bigint,
	counterparty_id	bigint,
	recorded_at		timestamptz NOT NULL,
	xid				xid8 NOT NULL,
	client_addr		inet,
	actor			text NOT NULL,
	session_user_name text NOT NULL,
	user_agent		text,
	operation		text NOT NULL,
	status			text,
	currency		text,
	amount			numeric,
	balance_before	numeric,
	balance_after	numeric,
	counterparty_before numeric,
	counterparty_after numeric,
	request			text,
	response		text,
	leaf_hash		bytea NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX ON ledger.audit_record (trace_id);
CREATE TABLE ledger.audit_record_1 PARTITION OF ledger.audit_record
	FOR VALUES FROM (0) TO (1000000000);
CREATE TABLE ledger.audit_record_2 PARTITION OF ledger.audit_record
	FOR VALUES FROM (1000000000) TO (2000000000);

CREATE TABLE ledger.binding (
	queue_id		integer NOT NULL,
	pattern			text NOT NULL,	-- a regular expression made from the topic pattern
	PRIMARY KEY (queue_id, pattern)
);

CREATE TABLE ledger.message (
	message_id		bigint NOT NULL,
	queue_id		integer NOT NULL,
	enqueued_at		timestamptz NOT NULL,
	visible_at		timestamptz NOT NULL,
	read_count		integer NOT NULL DEFAULT 0,
	topic			text NOT NULL,
	payload			jsonb NOT NULL,
	PRIMARY KEY (queue_id, message_id)
) WITH (fillfactor = 70);

CREATE TYPE ledger.transfer_result AS (
	id				bigint,
	status			text,
	amount			numeric,
	currency		text,
	from_account	text,
	from_version	bigint,
	from_balance	numeric,
	from_available	numeric,
	to_account		text,
	to_version		bigint,
	to_balance		numeric,
	to_available	numeric,
	recorded_at		timestamptz,
	trace_id		uuid,
	rule			text,
	replayed		boolean
);

-- the first answer again, or an error when the key came with another request
CREATE FUNCTION ledger.replay(p_key text, p_hash bytea)
RETURNS ledger.transfer_result LANGUAGE plpgsql AS $$
DECLARE
	kept ledger.idempotency_key;
	result ledger.transfer_result;
BEGIN
	SELECT * INTO STRICT kept FROM ledger.idempotency_key WHERE key = p_key;
	IF kept.request_hash <> p_hash THEN
		RAISE EXCEPTION 'idempotency key "%" was used for another request', p_key
			USING ERRCODE = 'LG007';
	END IF;
	SELECT t.id, t.status, t.amount, t.currency, f.code, t.from_version,
		   t.from_balance, t.from_balance - t.from_held, o.code, t.to_version,
		   t.to_balance, t.to_balance - t.to_held, t.recorded_at, t.trace_id,
		   d.rule, true
	  INTO STRICT result
	  FROM ledger.transfer t
	  JOIN ledger.account f ON f.account_id = t.from_account_id
	  JOIN ledger.account o ON o.account_id = t.to_account_id
	  LEFT JOIN ledger.decision d ON d.transfer_id = t.id
	 WHERE t.id = kept.transfer_id;
	RETURN result;
END $$;

CREATE FUNCTION ledger.transfer(
	p_from text, p_to text, p_amount numeric, p_currency text DEFAULT NULL,
	p_key text DEFAULT NULL, p_type text DEFAULT 'transfer',
	p_from_version bigint DEFAULT NULL, p_to_version bigint DEFAULT NULL,
	p_effective_at timestamptz DEFAULT NULL, p_reference text DEFAULT NULL,
	p_metadata jsonb DEFAULT NULL, p_strict boolean DEFAULT false)
RETURNS ledger.transfer_result LANGUAGE plpgsql AS $$
DECLARE
	v_id bigint := nextval('ledger.transfer_id');
	v_now timestamptz := clock_timestamp();
	v_local timestamp := v_now AT TIME ZONE 'UTC';
	v_today date := v_local;
	v_time time := v_local;
	v_trace uuid := coalesce(nullif(current_setting('ledger.trace_id', true), '')::uuid,
							 gen_random_uuid());
	v_request text;
	v_response text;
	v_status text := 'completed';
	v_topic text := 'transfer.completed';
	v_spent numeric;
	v_from_balance numeric;
	v_to_balance numeric;
	v_from_after numeric;
	v_to_after numeric;
	v_rule text;
	v_observed text;
	v_threshold text;
	v_from ledger.account;
	v_to ledger.account;
	result ledger.transfer_result;
BEGIN
	-- arguments
	IF p_amount IS NULL OR NOT (p_amount > 0 AND p_amount < 'Infinity') THEN
		RAISE EXCEPTION 'amount must be positive and finite' USING ERRCODE = '22003';
	END IF;
	IF p_from = p_to THEN
		RAISE EXCEPTION 'same account twice' USING ERRCODE = 'LG008';
	END IF;
	IF length(p_key) NOT BETWEEN 1 AND 255 OR length(p_type) NOT BETWEEN 1 AND 63 THEN
		RAISE EXCEPTION 'key or type empty or too long' USING ERRCODE = '22023';
	END IF;
	v_request := json_build_object('from_account', p_from, 'to_account', p_to,
		'amount', p_amount, 'currency', p_currency, 'type', p_type,
		'expected_from_version', p_from_version, 'expected_to_version', p_to_version,
		'effective_at', p_effective_at, 'reference', p_reference,
		'metadata', p_metadata, 'idempotency_key', p_key);

	-- idempotency: a racing duplicate waits here for the first to end
	IF p_key IS NOT NULL THEN
		INSERT INTO ledger.idempotency_key (key, transfer_id, request_hash)
		VALUES (p_key, v_id, sha256(convert_to(v_request, 'UTF8')))
		ON CONFLICT DO NOTHING;
		IF NOT FOUND THEN
			RETURN ledger.replay(p_key, sha256(convert_to(v_request, 'UTF8')));
		END IF;
	END IF;

	-- both accounts, locked in the order of their codes
	IF p_from < p_to THEN
		SELECT * INTO v_from FROM ledger.account WHERE code = p_from FOR NO KEY UPDATE;
		SELECT * INTO v_to FROM ledger.account WHERE code = p_to FOR NO KEY UPDATE;
	ELSE
		SELECT * INTO v_to FROM ledger.account WHERE code = p_to FOR NO KEY UPDATE;
		SELECT * INTO v_from FROM ledger.account WHERE code = p_from FOR NO KEY UPDATE;
	END IF;
	IF v_from.account_id IS NULL OR v_to.account_id IS NULL THEN
		RAISE EXCEPTION 'unknown account' USING ERRCODE = 'LG002';
	END IF;
	IF v_from.status <> 'active' OR v_to.status <> 'active' THEN
		RAISE EXCEPTION 'account is not active' USING ERRCODE = 'LG004';
	END IF;
	IF v_from.currency <> v_to.currency OR p_currency <> v_from.currency THEN
		RAISE EXCEPTION 'currency mismatch' USING ERRCODE = 'LG003';
	END IF;
	IF scale(p_amount) > v_from.minor_units THEN
		RAISE EXCEPTION 'amount has too many decimals' USING ERRCODE = '22003';
	END IF;
	IF p_from_version <> v_from.version OR p_to_version <> v_to.version THEN
		RAISE EXCEPTION 'version conflict' USING ERRCODE = 'LG005';
	END IF;
	v_from_balance := v_from.credits - v_from.debits;
	v_to_balance := v_to.credits - v_to.debits;
	IF v_from_balance - v_from.held - p_amount < v_from.min_available THEN
		RAISE EXCEPTION 'insufficient funds' USING ERRCODE = 'LG001';
	END IF;
	IF v_to_balance + p_amount > v_to.max_balance THEN
		RAISE EXCEPTION 'balance limit exceeded' USING ERRCODE = 'LG006';
	END IF;

	-- risk: the first rule that says no, under the accounts' locks
	v_spent := p_amount + CASE WHEN v_from.spent_on = v_today THEN v_from.spent ELSE 0 END;
	SELECT r.name,
		   CASE r.kind WHEN 'daily_limit' THEN v_spent::text
					   WHEN 'transfer_limit' THEN p_amount::text
					   WHEN 'night_window' THEN v_time::text
					   ELSE p_from || ', ' || p_to END,
		   coalesce(r.threshold::text, r.window_start || ' to ' || r.window_end)
	  INTO v_rule, v_observed, v_threshold
	  FROM ledger.rule r
	 WHERE (r.account_id IS NULL OR r.account_id = v_from.account_id)
	   AND (r.currency IS NULL OR r.currency = v_from.currency)
	   AND CASE r.kind
			   WHEN 'transfer_limit' THEN p_amount > r.threshold
			   WHEN 'daily_limit' THEN v_spent > r.threshold
			   WHEN 'night_window' THEN
				   (r.threshold IS NULL OR p_amount > r.threshold) AND
				   CASE WHEN r.window_start <= r.window_end
						THEN v_time >= r.window_start AND v_time < r.window_end
						ELSE v_time >= r.window_start OR v_time < r.window_end END
			   WHEN 'blocklist' THEN EXISTS (
				   SELECT FROM ledger.blocked b
					WHERE b.account_id IN (v_from.account_id, v_to.account_id))
		   END
	 ORDER BY r.position LIMIT 1;

	IF v_rule IS NULL THEN
		v_from_after := v_from_balance - p_amount;
		v_to_after := v_to_balance + p_amount;
		UPDATE ledger.account
		   SET debits = debits + CASE account_id WHEN v_from.account_id THEN p_amount ELSE 0 END,
			   credits = credits + CASE account_id WHEN v_to.account_id THEN p_amount ELSE 0 END,
			   spent = CASE account_id WHEN v_from.account_id THEN v_spent ELSE spent END,
			   spent_on = CASE account_id WHEN v_from.account_id THEN v_today ELSE spent_on END,
			   version = version + 1
		 WHERE account_id IN (v_from.account_id, v_to.account_id);
		v_from.version := v_from.version + 1;
		v_to.version := v_to.version + 1;
	ELSE
		IF p_strict THEN
			RAISE EXCEPTION 'rejected by rule "%"', v_rule USING ERRCODE = 'LG101';
		END IF;
		v_status := 'rejected';
		v_topic := 'risk.alert';
		v_from_after := v_from_balance;
		v_to_after := v_to_balance;
		INSERT INTO ledger.decision VALUES (v_id, v_rule, v_observed, v_threshold);
	END IF;

	INSERT INTO ledger.transfer (id, from_account_id, to_account_id, from_version,
		to_version, recorded_at, effective_at, trace_id, amount, from_balance,
		to_balance, from_held, to_held, status, type, currency, reference, metadata)
	VALUES (v_id, v_from.account_id, v_to.account_id, v_from.version, v_to.version,
		v_now, p_effective_at, v_trace, p_amount, v_from_after, v_to_after,
		v_from.held, v_to.held, v_status, p_type, v_from.currency, p_reference, p_metadata);

	result := ROW (v_id, v_status, p_amount, v_from.currency, p_from, v_from.version,
		v_from_after, v_from_after - v_from.held, p_to, v_to.version, v_to_after,
		v_to_after - v_to.held, v_now, v_trace, v_rule, false);
	v_response := row_to_json(result);

	-- one hash over what the record says
	INSERT INTO ledger.audit_record (id, trace_id, message_id, transfer_id, account_id,
		counterparty_id, recorded_at, xid, client_addr, actor, session_user_name,
		user_agent, operation, status, currency, amount, balance_before,
		balance_after, counterparty_before, counterparty_after, request, response,
		leaf_hash)
	SELECT f.*, sha256(convert_to(f::text, 'UTF8'))
	  FROM (SELECT nextval('ledger.audit_id'), v_trace, v_id AS message_id, v_id AS transfer_id,
				   v_from.account_id AS account_id, v_to.account_id AS counterparty_id, v_now,
				   pg_current_xact_id(), inet_client_addr(),
				   coalesce(nullif(current_setting('ledger.actor', true), ''), current_user::text),
				   session_user::text,
				   nullif(current_setting('ledger.user_agent', true), ''),
				   'transfer', v_status, v_from.currency, p_amount, v_from_balance,
				   v_from_after, v_to_balance, v_to_after, v_request, v_response
			OFFSET 0) f;

	-- one copy for each bound queue
	INSERT INTO ledger.message (message_id, queue_id, enqueued_at, visible_at, topic, payload)
	SELECT v_id, b.queue_id, v_now, v_now, v_topic,
		   jsonb_build_object('message_id', v_id, 'trace_id', v_trace,
			   'timestamp', v_now, 'type', v_topic, 'metadata', p_metadata,
			   'payload', row_to_json(result))
	  FROM (SELECT DISTINCT queue_id FROM ledger.binding WHERE v_topic ~ pattern) b;

	RETURN result;
END $$;
