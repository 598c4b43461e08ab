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

CREATE FUNCTION finance._is_tenant_visible(tenant_id integer) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_is_tenant_visible';
COMMENT ON FUNCTION finance._is_tenant_visible IS
'row security: is this the session''s tenant, and the user a member of its role';

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
-- AUDIT SECTION (merkle.c, audit_*.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- audit_record: one row per thing that happened.  Rows are only ever added,
-- by the extension itself: sealing keeps leaf numbers in tables of its own.
-- The order of columns is FinAuditColumn's in audit_row.h; what is hashed and
-- how is described there, byte by byte.  No CHECK beyond NOT NULL: the writer
-- is one C function, and each CHECK costs every INSERT.
-- ------------------------------------------------------------------------

CREATE TABLE finance.audit_record (
	id				bigint NOT NULL,
	recorded_at		timestamptz NOT NULL,
	xid				xid8 NOT NULL,
	tenant_id		integer NOT NULL,
	sequence		integer NOT NULL,
	trace_id		uuid NOT NULL,
	message_id		bigint,
	transfer_id		bigint,
	account_id		bigint,
	counterparty_id	bigint,
	leaf_version	smallint NOT NULL,
	leaf_hash		bytea NOT NULL,
	payload_hash	bytea,
	salt			bytea,
	client_addr		inet,
	actor			text NOT NULL,
	session_user_name text NOT NULL,
	user_agent		text,
	operation		text NOT NULL,
	status			text,
	object			text,
	row_key			text,
	currency		text,
	amount			numeric,
	balance_before	numeric,
	balance_after	numeric,
	counterparty_balance_before numeric,
	counterparty_balance_after numeric,
	request			json,
	response		json,
	CONSTRAINT audit_record_pkey PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX audit_record_trace_id ON finance.audit_record (trace_id);

COMMENT ON TABLE finance.audit_record IS
'audit log: rows are added by the extension only, and never changed or deleted';
COMMENT ON COLUMN finance.audit_record.xid IS
'top-level transaction that wrote the record';
COMMENT ON COLUMN finance.audit_record.sequence IS
'order within the transaction, from 1; gaps are rolled back savepoints';
COMMENT ON COLUMN finance.audit_record.trace_id IS
'finance.trace_id of the session, or one made for the transaction';
COMMENT ON COLUMN finance.audit_record.account_id IS
'account debited; balance_before and balance_after are its';
COMMENT ON COLUMN finance.audit_record.counterparty_id IS
'account credited; counterparty_balance_before and counterparty_balance_after are its';
COMMENT ON COLUMN finance.audit_record.leaf_version IS
'version of the encoding under leaf_hash';
COMMENT ON COLUMN finance.audit_record.leaf_hash IS
'RFC 6962 leaf hash of the record, computed by its writer';
COMMENT ON COLUMN finance.audit_record.payload_hash IS
'SHA-256 of salt, request and response; null when there was neither';
COMMENT ON COLUMN finance.audit_record.salt IS
'16 random bytes, so that payload_hash does not tell an erased payload';
COMMENT ON COLUMN finance.audit_record.actor IS
'finance.actor of the session, else the user of SET ROLE, else the session user';
COMMENT ON COLUMN finance.audit_record.operation IS
'what was done: transfer, create_account ..., or INSERT, UPDATE, DELETE, TRUNCATE of an audited table';
COMMENT ON COLUMN finance.audit_record.object IS
'schema.table, for row changes';
COMMENT ON COLUMN finance.audit_record.row_key IS
'primary key of the changed row as JSON text, before the change where there was a before';
COMMENT ON COLUMN finance.audit_record.request IS
'what was asked, byte for byte as hashed; for row changes {"old": ..., "new": ...}';
COMMENT ON COLUMN finance.audit_record.response IS
'what was answered, byte for byte as hashed';

CREATE FUNCTION finance._audit_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_audit_guard';
COMMENT ON FUNCTION finance._audit_guard IS
'refuses what is not the extension''s own INSERT (LG201)';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE
	ON finance.audit_record
	FOR EACH STATEMENT EXECUTE FUNCTION finance._audit_guard();
ALTER TABLE finance.audit_record ENABLE ALWAYS TRIGGER guard;

ALTER TABLE finance.audit_record ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON finance.audit_record
	USING (finance._is_tenant_visible(tenant_id));

CREATE FUNCTION finance._merkle_leaf(data bytea) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_merkle_leaf';
COMMENT ON FUNCTION finance._merkle_leaf IS 'RFC 6962 hash of a leaf';

CREATE FUNCTION finance._merkle_root(leaves bytea[]) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_merkle_root';
COMMENT ON FUNCTION finance._merkle_root IS
'RFC 6962 root of a tree of leaf hashes';

CREATE FUNCTION finance._audit_rows() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_audit_rows';
COMMENT ON FUNCTION finance._audit_rows IS
'statement trigger that audit_table() attaches';

CREATE FUNCTION finance.audit_table(target regclass) RETURNS integer
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_table';
COMMENT ON FUNCTION finance.audit_table IS
'records every row change of the table, its partitions and inheriting tables from now on; returns how many tables it attached triggers to';

CREATE FUNCTION finance.unaudit_table(target regclass) RETURNS integer
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unaudit_table';
COMMENT ON FUNCTION finance.unaudit_table IS
'ends what audit_table() began; returns how many tables had triggers';

CREATE FUNCTION finance.audit_trace(trace_id uuid)
	RETURNS SETOF finance.audit_record
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_trace';
COMMENT ON FUNCTION finance.audit_trace IS
'all records of a trace in the session''s tenant, in causal order';

CREATE FUNCTION finance.set_context(trace_id uuid DEFAULT NULL,
									actor text DEFAULT NULL,
									user_agent text DEFAULT NULL,
									tenant integer DEFAULT NULL)
	RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_context';
COMMENT ON FUNCTION finance.set_context IS
'says who acts and from where until the end of the transaction; null leaves as it was; returns the trace id in force';

-- ========================================================================
-- QUEUE SECTION (topic.c, queue.c)
-- ========================================================================

-- ========================================================================
-- WORKER SECTION (dispatch.c, worker.c)
-- ========================================================================

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
