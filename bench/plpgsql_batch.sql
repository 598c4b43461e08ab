-- bench/plpgsql_batch.sql: what finance.transfer_batch() does, written by hand
-- in plpgsql to be fast: the comparison of the benchmark.  Needs
-- plpgsql_ledger.sql.
--
-- The same work for each transfer as ledger.transfer(): key, checks, rules, one
-- row with both balances and versions, audit record with its hash.  What makes
-- it fast: all accounts locked by one statement in one order, running balances
-- and versions by window functions, each table written by one statement and
-- each account's row once.  A batch in which anything is refused, or a key used
-- twice, must be done one by one with ledger.transfer(): that is not measured.

CREATE TYPE ledger.request AS (
	from_account	text,
	to_account		text,
	amount			numeric,
	key				text,
	type			text,
	reference		text,
	metadata		jsonb
);

CREATE FUNCTION ledger.transfer_batch(p_requests ledger.request[])
RETURNS SETOF ledger.transfer_result LANGUAGE plpgsql AS $$
DECLARE
	v_now timestamptz := clock_timestamp();
	v_local timestamp := v_now AT TIME ZONE 'UTC';
	v_today date := v_local;
	v_time time := v_local;
	v_trace uuid := coalesce(nullif(current_setting('ledger.trace_id', true), '')::uuid,
							 gen_random_uuid());
	v_actor text := coalesce(nullif(current_setting('ledger.actor', true), ''), current_user::text);
	v_keys bigint;
	v_bad bigint;
BEGIN
	-- accounts first, so that what follows is of their newest rows
	PERFORM FROM ledger.account a
	  WHERE a.code IN (SELECT unnest(ARRAY[r.from_account, r.to_account])
						 FROM unnest(p_requests) r)
	  ORDER BY a.account_id FOR NO KEY UPDATE;

	CREATE TEMP TABLE IF NOT EXISTS ledger_batch (
		n bigint, id bigint, amount numeric, key text, type text, reference text,
		metadata jsonb, from_id bigint, to_id bigint, from_code text, to_code text,
		currency text, request text
	) ON COMMIT DELETE ROWS;
	TRUNCATE pg_temp.ledger_batch;
	INSERT INTO pg_temp.ledger_batch
	SELECT r.n, nextval('ledger.transfer_id'), r.amount, r.key, r.type, r.reference,
		   r.metadata, f.account_id, t.account_id, f.code, t.code, f.currency,
		   json_build_object('from_account', f.code, 'to_account', t.code,
			   'amount', r.amount, 'type', r.type, 'reference', r.reference,
			   'metadata', r.metadata, 'idempotency_key', r.key)
	  FROM unnest(p_requests) WITH ORDINALITY
		   AS r (from_account, to_account, amount, key, type, reference, metadata, n)
	  JOIN ledger.account f ON f.code = r.from_account
	  JOIN ledger.account t ON t.code = r.to_account
	 WHERE r.amount > 0 AND r.amount < 'Infinity' AND f.account_id <> t.account_id
	   AND scale(r.amount) <= f.minor_units AND f.currency = t.currency
	   AND f.status = 'active' AND t.status = 'active'
	   AND length(r.key) BETWEEN 1 AND 255 AND length(r.type) BETWEEN 1 AND 63;
	GET DIAGNOSTICS v_bad = ROW_COUNT;
	IF v_bad <> cardinality(p_requests) THEN
		RAISE EXCEPTION 'a request is refused';
	END IF;

	INSERT INTO ledger.idempotency_key (key, transfer_id, request_hash)
	SELECT b.key, b.id, sha256(convert_to(b.request, 'UTF8')) FROM pg_temp.ledger_batch b
	ON CONFLICT DO NOTHING;
	GET DIAGNOSTICS v_keys = ROW_COUNT;
	IF v_keys <> cardinality(p_requests) THEN
		RAISE EXCEPTION 'a key is used';
	END IF;

	RETURN QUERY
	WITH leg AS MATERIALIZED (
		SELECT l.n, l.side, a.account_id, a.held, l.delta,
			   a.credits - a.debits + sum(l.delta) OVER w AS after,
			   a.version + row_number() OVER w AS version,
			   CASE WHEN a.spent_on = v_today THEN a.spent ELSE 0 END
				   - coalesce(sum(l.delta) FILTER (WHERE l.delta < 0) OVER w, 0) AS spent,
			   a.min_available, a.max_balance, a.currency
		  FROM (SELECT b.n, 'f' AS side, b.from_id AS account_id, -b.amount AS delta
				  FROM pg_temp.ledger_batch b
				UNION ALL
				SELECT b.n, 't', b.to_id, b.amount FROM pg_temp.ledger_batch b) l
		  JOIN ledger.account a USING (account_id)
		WINDOW w AS (PARTITION BY l.account_id ORDER BY l.n)
	), checked AS MATERIALIZED (
		SELECT count(*) FILTER (WHERE l.after - l.held < l.min_available
			OR l.after > l.max_balance) AS limits,
			(SELECT count(*) FROM leg s JOIN ledger.rule r
				ON (r.account_id IS NULL OR r.account_id = s.account_id)
				AND (r.currency IS NULL OR r.currency = s.currency)
			  WHERE s.side = 'f'
				AND CASE r.kind
					WHEN 'transfer_limit' THEN -s.delta > r.threshold
					WHEN 'daily_limit' THEN s.spent > r.threshold
					WHEN 'night_window' THEN
						(r.threshold IS NULL OR -s.delta > r.threshold) AND
						CASE WHEN r.window_start <= r.window_end
							THEN v_time >= r.window_start AND v_time < r.window_end
							ELSE v_time >= r.window_start OR v_time < r.window_end END
					ELSE false END) AS rules,
			(SELECT count(*) FROM leg s JOIN ledger.blocked k USING (account_id)
			  WHERE EXISTS (SELECT FROM ledger.rule r WHERE r.kind = 'blocklist')) AS blocked
		  FROM leg l
	), done AS MATERIALIZED (
		SELECT b.*, f.version AS from_version, f.after AS from_after, f.held AS from_held,
			   t.version AS to_version, t.after AS to_after, t.held AS to_held
		  FROM pg_temp.ledger_batch b
		  JOIN leg f ON f.n = b.n AND f.side = 'f'
		  JOIN leg t ON t.n = b.n AND t.side = 't'
		 CROSS JOIN checked c
		 WHERE c.limits = 0 AND c.rules = 0 AND c.blocked = 0
	), written AS (
		INSERT INTO ledger.transfer (id, from_account_id, to_account_id, from_version,
			to_version, recorded_at, trace_id, amount, from_balance, to_balance,
			from_held, to_held, status, type, currency, reference, metadata)
		SELECT d.id, d.from_id, d.to_id, d.from_version, d.to_version, v_now, v_trace,
			   d.amount, d.from_after, d.to_after, d.from_held, d.to_held, 'completed',
			   d.type, d.currency, d.reference, d.metadata
		  FROM done d
	), changed AS (
		UPDATE ledger.account a
		   SET debits = a.debits + s.debits, credits = a.credits + s.credits,
			   version = a.version + s.n,
			   spent = CASE WHEN a.spent_on = v_today THEN a.spent ELSE 0 END + s.debits,
			   spent_on = v_today
		  FROM (SELECT l.account_id, count(*) AS n,
					   coalesce(-sum(l.delta) FILTER (WHERE l.delta < 0), 0) AS debits,
					   coalesce(sum(l.delta) FILTER (WHERE l.delta > 0), 0) AS credits
				  FROM leg l CROSS JOIN checked c
				 WHERE c.limits = 0 AND c.rules = 0 AND c.blocked = 0
				 GROUP BY l.account_id) s
		 WHERE a.account_id = s.account_id
	), audited AS (
		INSERT INTO ledger.audit_record (id, trace_id, message_id, transfer_id, account_id,
			counterparty_id, recorded_at, xid, client_addr, actor, session_user_name,
			user_agent, operation, status, currency, amount, balance_before,
			balance_after, counterparty_before, counterparty_after, request, response,
			leaf_hash)
		SELECT f.*, sha256(convert_to(f::text, 'UTF8'))
		  FROM (SELECT nextval('ledger.audit_id'), v_trace, NULL::bigint, d.id AS transfer_id,
					   d.from_id, d.to_id, v_now, pg_current_xact_id(), inet_client_addr(),
					   v_actor, session_user::text, NULL, 'transfer', 'completed', d.currency,
					   d.amount, d.from_after + d.amount, d.from_after, d.to_after - d.amount,
					   d.to_after, d.request,
					   json_build_object('from_version', d.from_version, 'to_version', d.to_version)::text
				  FROM done d
				OFFSET 0) f
	)
	SELECT d.id, 'completed', d.amount, d.currency, d.from_code, d.from_version,
		   d.from_after, d.from_after - d.from_held, d.to_code, d.to_version, d.to_after,
		   d.to_after - d.to_held, v_now, v_trace, NULL::text, false
	  FROM done d ORDER BY d.n;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'a request is refused';
	END IF;
END $$;
