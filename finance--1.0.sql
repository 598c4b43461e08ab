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

CREATE FUNCTION finance._config_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_config_changed';

CREATE FUNCTION finance._is_tenant_visible(tenant_id integer) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_is_tenant_visible';

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

CREATE FUNCTION finance.topic_matches(pattern text, topic text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_topic_matches';
COMMENT ON FUNCTION finance.topic_matches(text, text) IS
'does the topic match the AMQP pattern (* one word, # any number of words)';

-- ------------------------------------------------------------------------
-- queues and bindings: small tables, cached by every session
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._queue_id_seq;
COMMENT ON SEQUENCE finance._queue_id_seq IS
'numbers of queues, which are part of their tables'' names and never used again';

CREATE TABLE finance.queue (
	tenant_id	integer NOT NULL,
	queue_id	bigint NOT NULL DEFAULT pg_catalog.nextval('finance._queue_id_seq'),
	name		text NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT queue_pkey PRIMARY KEY (tenant_id, queue_id),
	CONSTRAINT queue_id_key UNIQUE (queue_id),
	CONSTRAINT queue_name_key UNIQUE (tenant_id, name),
	CONSTRAINT queue_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES finance.tenant,
	CONSTRAINT queue_id_positive CHECK (queue_id > 0),
	CONSTRAINT queue_name_form CHECK (name ~ '^[A-Za-z0-9_.-]{1,47}$')
);
ALTER SEQUENCE finance._queue_id_seq OWNED BY finance.queue.queue_id;
COMMENT ON TABLE finance.queue IS
'queues; the messages of each lie in finance.message_<queue_id>';

CREATE TABLE finance.binding (
	tenant_id	integer NOT NULL,
	pattern		text NOT NULL,
	queue_id	bigint NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT binding_pkey PRIMARY KEY (tenant_id, pattern, queue_id),
	CONSTRAINT binding_queue_fkey FOREIGN KEY (tenant_id, queue_id) REFERENCES finance.queue,
	CONSTRAINT binding_pattern_length CHECK (pg_catalog.octet_length(pattern) BETWEEN 1 AND 255)
);
CREATE INDEX binding_queue ON finance.binding (tenant_id, queue_id);
COMMENT ON TABLE finance.binding IS
'topic patterns whose messages are copied to a queue';

CREATE TABLE finance.subscription (
	channel		text NOT NULL,
	tenant_id	integer NOT NULL,
	queue_id	bigint NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT subscription_pkey PRIMARY KEY (channel),
	CONSTRAINT subscription_queue_fkey FOREIGN KEY (tenant_id, queue_id) REFERENCES finance.queue,
	CONSTRAINT subscription_channel_length CHECK (pg_catalog.octet_length(channel) BETWEEN 1 AND 63)
);
CREATE INDEX subscription_queue ON finance.subscription (tenant_id, queue_id);
COMMENT ON TABLE finance.subscription IS
'NOTIFY channels on which the worker tells of new messages in a queue; channels are common to all tenants';

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.queue
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.queue ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.binding
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.binding ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.subscription ENABLE ALWAYS TRIGGER config_changed;

-- ------------------------------------------------------------------------
-- message: one partition per queue, made by create_queue().  visible_at and
-- read_ct, which a claim writes, are in no index, so a claim is a HOT update.
-- msg_id begins with the priority, so the key is the order of reading.
-- ------------------------------------------------------------------------

CREATE TABLE finance.message (
	msg_id		bigint NOT NULL,
	message_id	bigint NOT NULL,
	queue_id	bigint NOT NULL,
	enqueued_at	timestamptz NOT NULL,
	visible_at	timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	read_ct		integer NOT NULL DEFAULT 0,
	priority	smallint NOT NULL DEFAULT 0,
	topic		text,
	headers		jsonb,
	payload		jsonb NOT NULL,
	CONSTRAINT message_pkey PRIMARY KEY (tenant_id, queue_id, msg_id)
) PARTITION BY LIST (queue_id);
COMMENT ON TABLE finance.message IS
'messages that wait or are being worked on, one partition per queue';
COMMENT ON COLUMN finance.message.msg_id IS
'this copy of the message; sorts as it is read: highest priority first, then oldest';
COMMENT ON COLUMN finance.message.message_id IS
'the message: the same in all copies of one publish()';
COMMENT ON COLUMN finance.message.visible_at IS
'not read before: delayed until, or claimed by a reader until';
COMMENT ON COLUMN finance.message.read_ct IS
'how often it was read';

CREATE TABLE finance.message_archive (
	msg_id		bigint NOT NULL,
	message_id	bigint NOT NULL,
	queue_id	bigint NOT NULL,
	enqueued_at	timestamptz NOT NULL,
	archived_at	timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	read_ct		integer NOT NULL,
	priority	smallint NOT NULL,
	topic		text,
	headers		jsonb,
	payload		jsonb NOT NULL,
	CONSTRAINT message_archive_pkey PRIMARY KEY (tenant_id, queue_id, msg_id)
) PARTITION BY LIST (queue_id);
COMMENT ON TABLE finance.message_archive IS
'messages that archive() acknowledged, one partition per queue';

ALTER TABLE finance.queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.queue USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.binding ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.binding USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.subscription ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.subscription USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.message ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.message USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.message_archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.message_archive USING (finance._is_tenant_visible(tenant_id));

-- the partitions are no members of the extension: pg_dump writes them itself
SELECT pg_catalog.pg_extension_config_dump('finance._queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.queue', '');
SELECT pg_catalog.pg_extension_config_dump('finance.binding', '');
SELECT pg_catalog.pg_extension_config_dump('finance.subscription', '');

CREATE TYPE finance.message_record AS (
	msg_id		bigint,
	read_ct		integer,
	enqueued_at	timestamptz,
	vt			timestamptz,
	message		jsonb,
	headers		jsonb,
	topic		text,
	message_id	bigint,
	priority	smallint
);
COMMENT ON TYPE finance.message_record IS
'a message as read() returns it; vt: until when it is invisible to other readers';

CREATE FUNCTION finance.create_queue(queue_name text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_queue';
COMMENT ON FUNCTION finance.create_queue(text) IS
'make an empty queue';

CREATE FUNCTION finance.drop_queue(queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_queue';
COMMENT ON FUNCTION finance.drop_queue(text) IS
'drop a queue with its messages, archive, bindings and subscriptions; false when there is none';

CREATE FUNCTION finance.purge_queue(queue_name text)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_purge_queue';
COMMENT ON FUNCTION finance.purge_queue(text) IS
'delete all messages of a queue; returns how many';

CREATE FUNCTION finance.list_queues()
	RETURNS TABLE (queue_name text, queue_id bigint, created_at timestamptz)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_list_queues';
COMMENT ON FUNCTION finance.list_queues() IS
'the queues of the session''s tenant';

CREATE FUNCTION finance.metrics(queue_name text)
	RETURNS TABLE (queue_name text, queue_length bigint, newest_msg_age_sec integer,
		oldest_msg_age_sec integer, scrape_time timestamptz, queue_visible_length bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'finance_metrics';
COMMENT ON FUNCTION finance.metrics(text) IS
'how full a queue is and how old its messages are, in seconds';

CREATE FUNCTION finance.metrics_all()
	RETURNS TABLE (queue_name text, queue_length bigint, newest_msg_age_sec integer,
		oldest_msg_age_sec integer, scrape_time timestamptz, queue_visible_length bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_metrics_all';
COMMENT ON FUNCTION finance.metrics_all() IS
'metrics() of each queue of the session''s tenant';

CREATE FUNCTION finance.send(queue_name text, msg jsonb, headers jsonb DEFAULT NULL,
		delay integer DEFAULT 0, priority integer DEFAULT 0)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_send';
COMMENT ON FUNCTION finance.send(text, jsonb, jsonb, integer, integer) IS
'put a message into a queue, visible after delay seconds; returns its msg_id';

CREATE FUNCTION finance.send_batch(queue_name text, msgs jsonb[], headers jsonb[] DEFAULT NULL,
		delay integer DEFAULT 0, priority integer DEFAULT 0)
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_send_batch';
COMMENT ON FUNCTION finance.send_batch(text, jsonb[], jsonb[], integer, integer) IS
'put up to 10,000 messages into a queue; returns their msg_ids in the order of msgs';

CREATE FUNCTION finance.read(queue_name text, vt integer, qty integer DEFAULT 1)
	RETURNS SETOF finance.message_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_read';
COMMENT ON FUNCTION finance.read(text, integer, integer) IS
'up to qty visible messages, highest priority first, then oldest; invisible to others for vt seconds';

CREATE FUNCTION finance.pop(queue_name text, qty integer DEFAULT 1)
	RETURNS SETOF finance.message_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_pop';
COMMENT ON FUNCTION finance.pop(text, integer) IS
'read and delete in one step';

CREATE FUNCTION finance.delete(queue_name text, msg_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_delete';
COMMENT ON FUNCTION finance.delete(text, bigint) IS
'acknowledge a message: remove it from its queue; false when there is none';

CREATE FUNCTION finance.delete(queue_name text, msg_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_delete_many';
COMMENT ON FUNCTION finance.delete(text, bigint[]) IS
'acknowledge messages; returns the ids that were there';

CREATE FUNCTION finance.archive(queue_name text, msg_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_archive';
COMMENT ON FUNCTION finance.archive(text, bigint) IS
'acknowledge a message and keep it in finance.message_archive; false when there is none';

CREATE FUNCTION finance.archive(queue_name text, msg_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_archive_many';
COMMENT ON FUNCTION finance.archive(text, bigint[]) IS
'acknowledge messages and keep them in finance.message_archive; returns the ids that were there';

CREATE FUNCTION finance.set_vt(queue_name text, msg_id bigint, vt integer)
	RETURNS SETOF finance.message_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'finance_set_vt';
COMMENT ON FUNCTION finance.set_vt(text, bigint, integer) IS
'make a message invisible until vt seconds from now; returns it, or no row when there is none';

CREATE FUNCTION finance.publish(topic text, payload jsonb, headers jsonb DEFAULT NULL,
		priority integer DEFAULT 0, delay integer DEFAULT 0)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_publish';
COMMENT ON FUNCTION finance.publish(text, jsonb, jsonb, integer, integer) IS
'put a copy of a message into each queue bound to the topic; returns how many';

CREATE FUNCTION finance.bind_topic(pattern text, queue_name text)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_bind_topic';
COMMENT ON FUNCTION finance.bind_topic(text, text) IS
'copy messages whose topic matches the AMQP pattern to the queue, from the commit on';

CREATE FUNCTION finance.unbind_topic(pattern text, queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unbind_topic';
COMMENT ON FUNCTION finance.unbind_topic(text, text) IS
'remove a binding; false when there is none';

CREATE FUNCTION finance.list_bindings()
	RETURNS TABLE (pattern text, queue_name text, created_at timestamptz)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_list_bindings';
COMMENT ON FUNCTION finance.list_bindings() IS
'the bindings of the session''s tenant';

CREATE FUNCTION finance.test_routing(topic text)
	RETURNS TABLE (pattern text, queue_name text)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_test_routing';
COMMENT ON FUNCTION finance.test_routing(text) IS
'the bindings that a message of this topic would match; sends nothing';

CREATE FUNCTION finance.subscribe(channel text, pattern text, queue_name text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_subscribe';
COMMENT ON FUNCTION finance.subscribe(text, text, text) IS
'route matching messages to a queue, made if missing, and let the worker tell of them by NOTIFY on the channel';

CREATE FUNCTION finance.unsubscribe(channel text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unsubscribe';
COMMENT ON FUNCTION finance.unsubscribe(text) IS
'end the notifications on a channel; queue and bindings stay';

-- ========================================================================
-- WORKER SECTION (dispatch.c, worker.c)
-- ========================================================================

-- TEMPORARY: stands in for the audit section
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

CREATE FUNCTION finance._immutable_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_immutable_guard';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.tenant ENABLE ALWAYS TRIGGER config_changed;
