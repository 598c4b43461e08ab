/* finance--1.0.sql: the SQL face of finance.  Bodies live in src/, in the order
 * of the sections below; SQL declares. */

\echo Use "CREATE EXTENSION finance" to load this file. \quit

CREATE SCHEMA finance;
COMMENT ON SCHEMA finance IS
'payment core: accounts, transfers, risk rules, audit log and message queue';

-- ------------------------------------------------------------------------
-- domains: what a stored amount can never be, whoever writes it.
-- NaN and Infinity sort above every number, so one comparison refuses both.
-- ------------------------------------------------------------------------

CREATE DOMAIN finance.amount AS numeric
	CONSTRAINT amount_positive_and_finite
	CHECK (VALUE > 0 AND VALUE < 'Infinity');
COMMENT ON DOMAIN finance.amount IS
'money moved: above zero and finite, in units of its currency';

CREATE DOMAIN finance.total AS numeric
	CONSTRAINT total_not_negative_and_finite
	CHECK (VALUE >= 0 AND VALUE < 'Infinity');
COMMENT ON DOMAIN finance.total IS
'running total of an account: zero or above and finite, in units of its currency';

-- ------------------------------------------------------------------------
-- settings: tenants
-- ------------------------------------------------------------------------

CREATE TABLE finance.tenant (
	tenant_id	integer NOT NULL,
	name		text NOT NULL,
	time_zone	text NOT NULL DEFAULT 'UTC',
	member_role	regrole,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id),
	CONSTRAINT tenant_name_key UNIQUE (name),
	CONSTRAINT tenant_id_not_negative CHECK (tenant_id >= 0),
	CONSTRAINT tenant_name_length CHECK (pg_catalog.length(name) BETWEEN 1 AND 63)
);
COMMENT ON TABLE finance.tenant IS
'owners of closed books; tenant 0 is the default and is there from the start';
COMMENT ON COLUMN finance.tenant.time_zone IS
'IANA name; business days and night windows are of this zone';
COMMENT ON COLUMN finance.tenant.member_role IS
'only members of this role act in or see this tenant; null: whoever may execute the functions';

INSERT INTO finance.tenant (tenant_id, name) VALUES (0, 'default');

-- ------------------------------------------------------------------------
-- ident: the counter behind ids where the library is not preloaded
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._id_seq CYCLE MINVALUE 0 MAXVALUE 4611686018427387903;
COMMENT ON SEQUENCE finance._id_seq IS
'low bits of ids while finance is not in shared_preload_libraries';

-- ------------------------------------------------------------------------
-- currency
-- ------------------------------------------------------------------------

CREATE TABLE finance.currency (
	code		text NOT NULL,
	minor_units	smallint NOT NULL,
	name		text NOT NULL,
	iso			boolean NOT NULL DEFAULT false,
	CONSTRAINT currency_pkey PRIMARY KEY (code),
	CONSTRAINT currency_minor_units_range CHECK (minor_units BETWEEN 0 AND 18),
	CONSTRAINT currency_code_form CHECK (code ~ '^[A-Z0-9][A-Z0-9._-]{0,15}$')
);
COMMENT ON TABLE finance.currency IS
'currencies and how many decimals each has; ISO 4217 is seeded, create_currency() adds';

-- ------------------------------------------------------------------------
-- account: the hot row.  Fixed-width columns first; only (tenant_id,
-- account_id) and (tenant_id, code) are indexed and neither ever changes, so
-- every update stays on its page (HOT).
-- ------------------------------------------------------------------------

CREATE TABLE finance._account (
	account_id		bigint NOT NULL,
	tenant_id		integer NOT NULL,
	minor_units		smallint NOT NULL,
	version			bigint NOT NULL DEFAULT 0,
	last_transfer_id bigint NOT NULL DEFAULT 0,
	created_at		timestamptz NOT NULL,
	spent_on		date NOT NULL DEFAULT '-infinity',
	debits_posted	finance.total NOT NULL DEFAULT 0,
	credits_posted	finance.total NOT NULL DEFAULT 0,
	debits_pending	finance.total NOT NULL DEFAULT 0,
	credits_pending	finance.total NOT NULL DEFAULT 0,
	spent			finance.total NOT NULL DEFAULT 0,
	min_available	numeric,
	max_balance		numeric,
	status			text NOT NULL DEFAULT 'active',
	currency		text NOT NULL,
	type			text NOT NULL,
	code			text NOT NULL,
	metadata		jsonb,
	CONSTRAINT account_pkey PRIMARY KEY (tenant_id, account_id),
	CONSTRAINT account_code_key UNIQUE (tenant_id, code),
	CONSTRAINT account_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES finance.tenant,
	CONSTRAINT account_currency_fkey FOREIGN KEY (currency) REFERENCES finance.currency
) WITH (fillfactor = 50);

-- ========================================================================
-- ACCOUNT-TRANSFER-RISK SECTION (account.c, engine.c, risk.c, posting.c, transfer.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- transfer: one immutable row holds both sides
-- ------------------------------------------------------------------------

CREATE TABLE finance.transfer (
	id				bigint NOT NULL,
	tenant_id		integer NOT NULL,
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	from_version	bigint,
	to_version		bigint,
	recorded_at		timestamptz NOT NULL,
	effective_at	timestamptz,
	trace_id		uuid NOT NULL,
	amount			finance.amount NOT NULL,
	from_balance	numeric NOT NULL,
	to_balance		numeric NOT NULL,
	from_held		numeric,
	to_held			numeric,
	status			text NOT NULL,
	type			text NOT NULL,
	currency		text NOT NULL,
	reference		text,
	metadata		jsonb,
	CONSTRAINT transfer_pkey PRIMARY KEY (tenant_id, id),
	CONSTRAINT transfer_two_accounts CHECK (from_account_id <> to_account_id)
) PARTITION BY RANGE (id);
CREATE INDEX transfer_from_account ON finance.transfer (from_account_id, id);
CREATE INDEX transfer_to_account ON finance.transfer (to_account_id, id);

-- ========================================================================
-- AUDIT SECTION (merkle.c, audit.c)
-- ========================================================================

-- ========================================================================
-- QUEUE SECTION (topic.c, queue.c)
-- ========================================================================

-- ========================================================================
-- WORKER SECTION (dispatch.c, worker.c)
-- ========================================================================

-- TEMPORARY: stands in for the tables of the queue and audit sections
CREATE TABLE finance.queue (
	tenant_id		integer NOT NULL,
	queue_id		bigint NOT NULL,
	name			text NOT NULL,
	CONSTRAINT queue_pkey PRIMARY KEY (tenant_id, queue_id)
);
CREATE TABLE finance.subscription (
	channel			text NOT NULL,
	tenant_id		integer NOT NULL,
	queue_id		bigint NOT NULL,
	CONSTRAINT subscription_pkey PRIMARY KEY (channel)
);
CREATE TABLE finance.message (
	tenant_id		integer NOT NULL DEFAULT 0,
	queue_id		bigint NOT NULL,
	msg_id			bigint NOT NULL,
	visible_at		timestamptz NOT NULL,
	CONSTRAINT message_pkey PRIMARY KEY (tenant_id, queue_id, msg_id)
);
CREATE TABLE finance.audit_record (
	id				bigint NOT NULL
) PARTITION BY RANGE (id);
CREATE FUNCTION finance._audit_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_immutable_guard';
-- TEMPORARY ends

CREATE FUNCTION finance.worker_status(
	OUT database_id oid, OUT pid integer, OUT state text,
	OUT started_at timestamptz,
	OUT notifications bigint, OUT messages bigint, OUT last_lag_ms float8,
	OUT last_notified_at timestamptz, OUT last_sweep_at timestamptz,
	OUT errors bigint, OUT last_error_at timestamptz, OUT last_error text)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_worker_status';
COMMENT ON FUNCTION finance.worker_status() IS
'one row for each finance worker of the server; none unless finance is in shared_preload_libraries';

CREATE VIEW finance.workers AS
	SELECT d.datname AS database, w.pid, w.state, w.started_at,
		w.notifications, w.messages, w.last_lag_ms, w.last_notified_at,
		w.last_sweep_at, w.errors, w.last_error_at, w.last_error
	FROM finance.worker_status() w
		LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) w.database_id;
COMMENT ON VIEW finance.workers IS
'what the finance workers of this server do; counted since started_at';
COMMENT ON COLUMN finance.workers.state IS
'starting, running, or failing: a chore met an error and is tried again';
COMMENT ON COLUMN finance.workers.notifications IS
'NOTIFYs sent';
COMMENT ON COLUMN finance.workers.messages IS
'messages announced by them';
COMMENT ON COLUMN finance.workers.last_lag_ms IS
'milliseconds from the commit of a message to the commit of its notification, the last time';
COMMENT ON COLUMN finance.workers.last_sweep_at IS
'when the worker last looked at all subscribed queues; see finance.sweep_interval';
COMMENT ON COLUMN finance.workers.errors IS
'failed rounds, and notifications that cannot be sent';
COMMENT ON COLUMN finance.workers.last_error IS
'of other databases shown only to members of pg_read_all_stats';

CREATE FUNCTION finance.wake_worker() RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_wake_worker';
COMMENT ON FUNCTION finance.wake_worker() IS
'asks the worker of this database to look at all subscribed queues once this transaction has committed, and the launcher to start it if it is not there';

CREATE FUNCTION finance._ring(queue_id bigint, highest_id bigint,
	count bigint, due_at timestamptz DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_ring';

CREATE FUNCTION finance._worker_wanted() RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_worker_wanted';
SELECT finance._worker_wanted();

-- ========================================================================
-- INTEGRITY AND ACCESS SECTION
-- ========================================================================

CREATE FUNCTION finance._config_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_config_changed';
CREATE FUNCTION finance._immutable_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_immutable_guard';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.tenant ENABLE ALWAYS TRIGGER config_changed;
