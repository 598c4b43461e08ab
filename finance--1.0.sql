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

CREATE SEQUENCE finance._tenant_id_seq AS integer MINVALUE 1;
COMMENT ON SEQUENCE finance._tenant_id_seq IS 'numbers of tenants';

CREATE FUNCTION finance._config_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_config_changed';
COMMENT ON FUNCTION finance._config_changed() IS
'tells every backend, at commit, that its cache of the table is out of date';
CREATE FUNCTION finance._immutable_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_immutable_guard';
COMMENT ON FUNCTION finance._immutable_guard() IS
'refuses to change or delete rows';
CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.tenant ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance._tenant_restored() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_tenant_restored';
COMMENT ON FUNCTION finance._tenant_restored() IS
'lets the row of tenant 0 in a dump replace the one made with the extension';
CREATE TRIGGER restored BEFORE INSERT ON finance.tenant
	FOR EACH ROW EXECUTE FUNCTION finance._tenant_restored();

CREATE FUNCTION finance._is_tenant_visible(tenant_id integer) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_is_tenant_visible';
COMMENT ON FUNCTION finance._is_tenant_visible(integer) IS
'row security: the row is of the session''s tenant and the user a member of its role';

CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.tenant ENABLE ALWAYS TRIGGER config_changed;

-- ------------------------------------------------------------------------
-- ident: the counter behind ids where the library is not preloaded
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._id_seq CYCLE MINVALUE 0 MAXVALUE 4611686018427387903;
COMMENT ON SEQUENCE finance._id_seq IS
'low bits of ids while finance is not in shared_preload_libraries';

-- ------------------------------------------------------------------------
-- functions: ids
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.id_time(id bigint) RETURNS timestamptz
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'finance_id_time';
COMMENT ON FUNCTION finance.id_time(bigint) IS
'the millisecond in which an id was drawn; not for msg_id, which begins with the priority';
CREATE FUNCTION finance.id_floor("when" timestamptz) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'finance_id_floor';
COMMENT ON FUNCTION finance.id_floor(timestamptz) IS
'the lowest id of a moment: WHERE id >= finance.id_floor(...) uses the key and skips partitions';

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

-- ISO 4217 list one, as of 2026: funds codes included; what has no minor unit
-- (metals, bond units, special drawing rights, test codes) is not
INSERT INTO finance.currency (code, minor_units, name, iso) VALUES
	('AED', 2, 'UAE Dirham', true),
	('AFN', 2, 'Afghani', true),
	('ALL', 2, 'Lek', true),
	('AMD', 2, 'Armenian Dram', true),
	('AOA', 2, 'Kwanza', true),
	('ARS', 2, 'Argentine Peso', true),
	('AUD', 2, 'Australian Dollar', true),
	('AWG', 2, 'Aruban Florin', true),
	('AZN', 2, 'Azerbaijan Manat', true),
	('BAM', 2, 'Convertible Mark', true),
	('BBD', 2, 'Barbados Dollar', true),
	('BDT', 2, 'Taka', true),
	('BHD', 3, 'Bahraini Dinar', true),
	('BIF', 0, 'Burundi Franc', true),
	('BMD', 2, 'Bermudian Dollar', true),
	('BND', 2, 'Brunei Dollar', true),
	('BOB', 2, 'Boliviano', true),
	('BOV', 2, 'Mvdol', true),
	('BRL', 2, 'Brazilian Real', true),
	('BSD', 2, 'Bahamian Dollar', true),
	('BTN', 2, 'Ngultrum', true),
	('BWP', 2, 'Pula', true),
	('BYN', 2, 'Belarusian Ruble', true),
	('BZD', 2, 'Belize Dollar', true),
	('CAD', 2, 'Canadian Dollar', true),
	('CDF', 2, 'Congolese Franc', true),
	('CHE', 2, 'WIR Euro', true),
	('CHF', 2, 'Swiss Franc', true),
	('CHW', 2, 'WIR Franc', true),
	('CLF', 4, 'Unidad de Fomento', true),
	('CLP', 0, 'Chilean Peso', true),
	('CNY', 2, 'Yuan Renminbi', true),
	('COP', 2, 'Colombian Peso', true),
	('COU', 2, 'Unidad de Valor Real', true),
	('CRC', 2, 'Costa Rican Colon', true),
	('CUP', 2, 'Cuban Peso', true),
	('CVE', 2, 'Cabo Verde Escudo', true),
	('CZK', 2, 'Czech Koruna', true),
	('DJF', 0, 'Djibouti Franc', true),
	('DKK', 2, 'Danish Krone', true),
	('DOP', 2, 'Dominican Peso', true),
	('DZD', 2, 'Algerian Dinar', true),
	('EGP', 2, 'Egyptian Pound', true),
	('ERN', 2, 'Nakfa', true),
	('ETB', 2, 'Ethiopian Birr', true),
	('EUR', 2, 'Euro', true),
	('FJD', 2, 'Fiji Dollar', true),
	('FKP', 2, 'Falkland Islands Pound', true),
	('GBP', 2, 'Pound Sterling', true),
	('GEL', 2, 'Lari', true),
	('GHS', 2, 'Ghana Cedi', true),
	('GIP', 2, 'Gibraltar Pound', true),
	('GMD', 2, 'Dalasi', true),
	('GNF', 0, 'Guinean Franc', true),
	('GTQ', 2, 'Quetzal', true),
	('GYD', 2, 'Guyana Dollar', true),
	('HKD', 2, 'Hong Kong Dollar', true),
	('HNL', 2, 'Lempira', true),
	('HTG', 2, 'Gourde', true),
	('HUF', 2, 'Forint', true),
	('IDR', 2, 'Rupiah', true),
	('ILS', 2, 'New Israeli Sheqel', true),
	('INR', 2, 'Indian Rupee', true),
	('IQD', 3, 'Iraqi Dinar', true),
	('IRR', 2, 'Iranian Rial', true),
	('ISK', 0, 'Iceland Krona', true),
	('JMD', 2, 'Jamaican Dollar', true),
	('JOD', 3, 'Jordanian Dinar', true),
	('JPY', 0, 'Yen', true),
	('KES', 2, 'Kenyan Shilling', true),
	('KGS', 2, 'Som', true),
	('KHR', 2, 'Riel', true),
	('KMF', 0, 'Comorian Franc', true),
	('KPW', 2, 'North Korean Won', true),
	('KRW', 0, 'Won', true),
	('KWD', 3, 'Kuwaiti Dinar', true),
	('KYD', 2, 'Cayman Islands Dollar', true),
	('KZT', 2, 'Tenge', true),
	('LAK', 2, 'Lao Kip', true),
	('LBP', 2, 'Lebanese Pound', true),
	('LKR', 2, 'Sri Lanka Rupee', true),
	('LRD', 2, 'Liberian Dollar', true),
	('LSL', 2, 'Loti', true),
	('LYD', 3, 'Libyan Dinar', true),
	('MAD', 2, 'Moroccan Dirham', true),
	('MDL', 2, 'Moldovan Leu', true),
	('MGA', 2, 'Malagasy Ariary', true),
	('MKD', 2, 'Denar', true),
	('MMK', 2, 'Kyat', true),
	('MNT', 2, 'Tugrik', true),
	('MOP', 2, 'Pataca', true),
	('MRU', 2, 'Ouguiya', true),
	('MUR', 2, 'Mauritius Rupee', true),
	('MVR', 2, 'Rufiyaa', true),
	('MWK', 2, 'Malawi Kwacha', true),
	('MXN', 2, 'Mexican Peso', true),
	('MXV', 2, 'Mexican Unidad de Inversion (UDI)', true),
	('MYR', 2, 'Malaysian Ringgit', true),
	('MZN', 2, 'Mozambique Metical', true),
	('NAD', 2, 'Namibia Dollar', true),
	('NGN', 2, 'Naira', true),
	('NIO', 2, 'Cordoba Oro', true),
	('NOK', 2, 'Norwegian Krone', true),
	('NPR', 2, 'Nepalese Rupee', true),
	('NZD', 2, 'New Zealand Dollar', true),
	('OMR', 3, 'Rial Omani', true),
	('PAB', 2, 'Balboa', true),
	('PEN', 2, 'Sol', true),
	('PGK', 2, 'Kina', true),
	('PHP', 2, 'Philippine Peso', true),
	('PKR', 2, 'Pakistan Rupee', true),
	('PLN', 2, 'Zloty', true),
	('PYG', 0, 'Guarani', true),
	('QAR', 2, 'Qatari Rial', true),
	('RON', 2, 'Romanian Leu', true),
	('RSD', 2, 'Serbian Dinar', true),
	('RUB', 2, 'Russian Ruble', true),
	('RWF', 0, 'Rwanda Franc', true),
	('SAR', 2, 'Saudi Riyal', true),
	('SBD', 2, 'Solomon Islands Dollar', true),
	('SCR', 2, 'Seychelles Rupee', true),
	('SDG', 2, 'Sudanese Pound', true),
	('SEK', 2, 'Swedish Krona', true),
	('SGD', 2, 'Singapore Dollar', true),
	('SHP', 2, 'Saint Helena Pound', true),
	('SLE', 2, 'Leone', true),
	('SOS', 2, 'Somali Shilling', true),
	('SRD', 2, 'Surinam Dollar', true),
	('SSP', 2, 'South Sudanese Pound', true),
	('STN', 2, 'Dobra', true),
	('SVC', 2, 'El Salvador Colon', true),
	('SYP', 2, 'Syrian Pound', true),
	('SZL', 2, 'Lilangeni', true),
	('THB', 2, 'Baht', true),
	('TJS', 2, 'Somoni', true),
	('TMT', 2, 'Turkmenistan New Manat', true),
	('TND', 3, 'Tunisian Dinar', true),
	('TOP', 2, 'Paanga', true),
	('TRY', 2, 'Turkish Lira', true),
	('TTD', 2, 'Trinidad and Tobago Dollar', true),
	('TWD', 2, 'New Taiwan Dollar', true),
	('TZS', 2, 'Tanzanian Shilling', true),
	('UAH', 2, 'Hryvnia', true),
	('UGX', 0, 'Uganda Shilling', true),
	('USD', 2, 'US Dollar', true),
	('USN', 2, 'US Dollar (Next day)', true),
	('UYI', 0, 'Uruguay Peso en Unidades Indexadas (UI)', true),
	('UYU', 2, 'Peso Uruguayo', true),
	('UYW', 4, 'Unidad Previsional', true),
	('UZS', 2, 'Uzbekistan Sum', true),
	('VED', 2, 'Bolivar Soberano (digital)', true),
	('VES', 2, 'Bolivar Soberano', true),
	('VND', 0, 'Dong', true),
	('VUV', 0, 'Vatu', true),
	('WST', 2, 'Tala', true),
	('XAD', 2, 'Arab Accounting Dinar', true),
	('XAF', 0, 'CFA Franc BEAC', true),
	('XCD', 2, 'East Caribbean Dollar', true),
	('XCG', 2, 'Caribbean Guilder', true),
	('XOF', 0, 'CFA Franc BCEAO', true),
	('XPF', 0, 'CFP Franc', true),
	('YER', 2, 'Yemeni Rial', true),
	('ZAR', 2, 'Rand', true),
	('ZMW', 2, 'Zambian Kwacha', true),
	('ZWG', 2, 'Zimbabwe Gold', true);

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.currency
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.currency ENABLE ALWAYS TRIGGER guard;

-- ------------------------------------------------------------------------
-- account: the hot row.  Fixed-width columns first; only (tenant_id,
-- account_id), (tenant_id, code) and, where there is one, the parent are
-- indexed, and no transfer changes those, so every update stays on its page
-- (HOT).  No foreign keys: their triggers would look at each update; tenants
-- and currencies are never deleted, and check_integrity() looks.
-- ------------------------------------------------------------------------

CREATE TABLE finance._account (
	account_id		bigint NOT NULL,
	tenant_id		integer NOT NULL,
	minor_units		smallint NOT NULL,
	version			bigint NOT NULL DEFAULT 0,
	last_transfer_id bigint NOT NULL DEFAULT 0,
	last_debit_id	bigint NOT NULL DEFAULT 0,
	created_at		timestamptz NOT NULL,
	spent_on		date NOT NULL DEFAULT '-infinity',
	debits_posted	numeric NOT NULL DEFAULT 0,
	credits_posted	numeric NOT NULL DEFAULT 0,
	debits_pending	numeric NOT NULL DEFAULT 0,
	credits_pending	numeric NOT NULL DEFAULT 0,
	spent			numeric NOT NULL DEFAULT 0,
	min_available	numeric,
	max_balance		numeric,
	status			text NOT NULL DEFAULT 'active',
	currency		text NOT NULL,
	type			text NOT NULL,
	code			text NOT NULL,
	level			text,
	parent_id		bigint,
	metadata		jsonb,
	CONSTRAINT account_pkey PRIMARY KEY (tenant_id, account_id),
	CONSTRAINT account_code_key UNIQUE (tenant_id, code)
) WITH (fillfactor = 50);
CREATE INDEX account_parent ON finance._account (tenant_id, parent_id)
	WHERE parent_id IS NOT NULL;
COMMENT ON TABLE finance._account IS
'accounts as posting keeps them; read them through the view finance.account';
COMMENT ON COLUMN finance._account.version IS 'changes so far: transfers, status, limits, parent, level';
COMMENT ON COLUMN finance._account.last_transfer_id IS
'a later transfer has a higher id, whatever the clock does';
COMMENT ON COLUMN finance._account.last_debit_id IS
'the last transfer, capture or hold it paid, or what was parked and then approved; for how long it has been idle; 0: none';
COMMENT ON COLUMN finance._account.spent_on IS 'business day of spent';
COMMENT ON COLUMN finance._account.spent IS 'debited on that day, for daily limits';
COMMENT ON COLUMN finance._account.min_available IS 'floor of what is available; null: none';
COMMENT ON COLUMN finance._account.max_balance IS 'ceiling of the balance; null: none';
COMMENT ON COLUMN finance._account.level IS 'level of its customer, for limits of rules; null: none';
COMMENT ON COLUMN finance._account.parent_id IS 'account it is summed up under; null: none';

-- a constraint trigger in C and not a CHECK: the server parses a CHECK anew in
-- each statement, which costs more than the update itself
CREATE FUNCTION finance._check_totals() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_check_totals';
COMMENT ON FUNCTION finance._check_totals() IS
'constraint of accounts: totals finite and not negative, available above its floor, balance below its ceiling';
CREATE TRIGGER totals_valid BEFORE INSERT OR UPDATE ON finance._account
	FOR EACH ROW EXECUTE FUNCTION finance._check_totals();
ALTER TABLE finance._account ENABLE ALWAYS TRIGGER totals_valid;

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance._account
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance._account ENABLE ALWAYS TRIGGER guard;

-- ========================================================================
-- ACCOUNT-TRANSFER-RISK SECTION (account.c, engine.c, risk.c, posting.c, transfer.c)
-- ========================================================================

CREATE VIEW finance.account WITH (security_invoker = true) AS
SELECT a.tenant_id, a.account_id, a.code, a.currency, a.type, a.status,
	a.credits_posted - a.debits_posted AS balance,
	a.debits_pending AS held,
	a.credits_posted - a.debits_posted - a.debits_pending AS available,
	a.min_available, a.max_balance,
	a.debits_posted, a.credits_posted, a.debits_pending, a.credits_pending,
	a.version, a.created_at, a.parent_id, a.level, a.metadata
FROM finance._account a;
COMMENT ON VIEW finance.account IS
'accounts with their balance (credits posted - debits posted), what is held, and what is available';

CREATE TABLE finance.account_change (
	tenant_id	integer NOT NULL,
	account_id	bigint NOT NULL,
	version		bigint NOT NULL,
	change		text NOT NULL,
	old_value	jsonb,
	new_value	jsonb,
	reason		text,
	actor		text NOT NULL,
	changed_at	timestamptz NOT NULL,
	CONSTRAINT account_change_pkey PRIMARY KEY (tenant_id, account_id, version),
	CONSTRAINT account_change_kind CHECK (change IN ('status', 'limits', 'parent', 'level'))
);
COMMENT ON TABLE finance.account_change IS
'changes of accounts other than transfers; with the transfers they account for every version';
COMMENT ON COLUMN finance.account_change.version IS
'version of the account after this change';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.account_change
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.account_change ENABLE ALWAYS TRIGGER guard;

-- ------------------------------------------------------------------------
-- transfer: one immutable row holds both sides, so a book out of balance
-- cannot be written down.  Monthly partitions by id (partition.c).
-- ------------------------------------------------------------------------

CREATE TABLE finance.transfer (
	id				bigint NOT NULL,
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	from_version	bigint,
	to_version		bigint,
	recorded_at		timestamptz NOT NULL,
	effective_at	timestamptz,
	hold_id			bigint,
	journal_id		bigint,
	reverses_id		bigint,
	tenant_id		integer NOT NULL,
	trace_id		uuid NOT NULL,
	amount			finance.amount NOT NULL,
	from_balance	numeric NOT NULL,
	to_balance		numeric NOT NULL,
	from_held		numeric,
	to_held			numeric,
	released		numeric,
	status			text NOT NULL,
	type			text NOT NULL,
	currency		text NOT NULL,
	reference		text,
	metadata		jsonb,
	CONSTRAINT transfer_two_accounts CHECK (from_account_id <> to_account_id)
) PARTITION BY RANGE (id);
COMMENT ON TABLE finance.transfer IS
'amounts moved, held, given back, or refused by risk; one row for both sides, never changed';
COMMENT ON COLUMN finance.transfer.status IS
'completed: posted; held: reserved; released, expired: no longer reserved; rejected: by risk, nothing moved; review, challenged: reserved until another person approves or the token confirms it; approved: what was parked so is an ordinary hold now';
COMMENT ON COLUMN finance.transfer.hold_id IS
'the hold it makes (its own id), captures, releases or expires';
COMMENT ON COLUMN finance.transfer.journal_id IS
'first transfer of the journal it is a member of';
COMMENT ON COLUMN finance.transfer.reverses_id IS
'the transfer it gives back, whole or in part';
COMMENT ON COLUMN finance.transfer.released IS
'what a final capture left of its hold and gave back besides; null: nothing';
COMMENT ON COLUMN finance.transfer.from_version IS
'version of the debited account after this transfer; null when rejected';
COMMENT ON COLUMN finance.transfer.from_balance IS
'balance of the debited account after this transfer';
COMMENT ON COLUMN finance.transfer.from_held IS
'held on the debited account after this transfer; null means nothing';
COMMENT ON COLUMN finance.transfer.effective_at IS
'value date stated by the caller; null means recorded_at';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.transfer
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.transfer ENABLE ALWAYS TRIGGER guard;

-- The filter stands above the UNION ALL: a branch with a WHERE of its own is
-- planned as a subquery, whose order the planner does not see, and then sorts
-- the whole history of an account instead of walking two indexes backwards.
CREATE VIEW finance.entry WITH (security_invoker = true) AS
SELECT e.tenant_id, e.account_id, e.transfer_id, e.side, e.version, e.amount,
	e.change, e.balance, coalesce(e.held, 0) AS held, e.currency,
	e.counterparty_id, e.type, e.recorded_at,
	coalesce(e.effective_at, e.recorded_at) AS effective_at,
	e.reference, e.metadata
FROM (
	SELECT t.tenant_id, t.from_account_id AS account_id, t.id AS transfer_id,
		'debit'::text AS side, t.from_version AS version,
		t.amount::numeric AS amount, -t.amount::numeric AS change,
		t.from_balance AS balance, t.from_held AS held, t.currency,
		t.to_account_id AS counterparty_id, t.type, t.recorded_at,
		t.effective_at, t.reference, t.metadata, t.status
	FROM finance.transfer t
	UNION ALL
	SELECT t.tenant_id, t.to_account_id, t.id,
		'credit'::text, t.to_version,
		t.amount::numeric, t.amount::numeric,
		t.to_balance, t.to_held, t.currency,
		t.from_account_id, t.type, t.recorded_at,
		t.effective_at, t.reference, t.metadata, t.status
	FROM finance.transfer t) e
WHERE e.status = 'completed';
COMMENT ON VIEW finance.entry IS
'each completed transfer seen from each of its two accounts, with the version and balance after it; history of an account: WHERE account_id = ... ORDER BY transfer_id DESC LIMIT n';

CREATE TABLE finance.idempotency_key (
	tenant_id	integer NOT NULL,
	key			text NOT NULL,
	transfer_id	bigint NOT NULL,
	expected_from_version bigint,
	expected_to_version bigint,
	request		jsonb,
	CONSTRAINT idempotency_key_pkey PRIMARY KEY (tenant_id, key)
);
COMMENT ON TABLE finance.idempotency_key IS
'keys by which callers made their transfers repeatable, and the transfer each stands for';
COMMENT ON COLUMN finance.idempotency_key.request IS
'what the transfer''s row does not tell of the request; null for a plain transfer';

-- ------------------------------------------------------------------------
-- hold: what is reserved and not yet captured, released or expired.  Changed
-- only under the locks of both its accounts; status changes once, so that a
-- partial capture stays on its page (HOT).
-- ------------------------------------------------------------------------

CREATE TABLE finance._hold (
	hold_id			bigint NOT NULL,
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	expires_at		timestamptz,
	tenant_id		integer NOT NULL,
	held_on			date NOT NULL,
	minor_units		smallint NOT NULL,
	status			text NOT NULL DEFAULT 'open',
	amount			finance.amount NOT NULL,
	captured		numeric NOT NULL DEFAULT 0,
	released		numeric NOT NULL DEFAULT 0,
	type			text NOT NULL,
	hold_group		text,
	parked			text,
	CONSTRAINT hold_pkey PRIMARY KEY (tenant_id, hold_id),
	CONSTRAINT hold_status CHECK (status IN ('open', 'captured', 'released', 'expired')),
	CONSTRAINT hold_parts CHECK (captured >= 0 AND released >= 0
		AND captured + released <= amount),
	CONSTRAINT hold_open CHECK ((status = 'open') = (captured + released < amount)),
	CONSTRAINT hold_parked CHECK (parked IN ('review', 'challenge')),
	CONSTRAINT hold_parked_for_a_time CHECK (parked IS NULL OR expires_at IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX hold_expiry ON finance._hold (expires_at, hold_id)
	WHERE status = 'open' AND expires_at IS NOT NULL;
CREATE INDEX hold_group_open ON finance._hold (tenant_id, hold_group)
	WHERE status = 'open' AND hold_group IS NOT NULL;
CREATE INDEX hold_account_open ON finance._hold (tenant_id, from_account_id)
	WHERE status = 'open';
COMMENT ON TABLE finance._hold IS
'holds as posting keeps them; read them through the view finance.hold';
COMMENT ON COLUMN finance._hold.parked IS
'not to be captured or released before risk''s review or challenge is over, at expires_at at the latest; stays when the hold ends';

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance._hold
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance._hold ENABLE ALWAYS TRIGGER guard;

-- ------------------------------------------------------------------------
-- journal, reversal: rows that tie transfers together, never changed
-- ------------------------------------------------------------------------

CREATE TABLE finance.journal (
	tenant_id		integer NOT NULL,
	journal_id		bigint NOT NULL,
	type			text NOT NULL,
	transfer_ids	bigint[] NOT NULL,
	request			jsonb,
	CONSTRAINT journal_pkey PRIMARY KEY (tenant_id, journal_id),
	CONSTRAINT journal_named_by_first CHECK (journal_id = transfer_ids[1])
);
COMMENT ON TABLE finance.journal IS
'transfers that were made together: the request as it was given, and the transfers it became, the first of which names the journal';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.journal
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.journal ENABLE ALWAYS TRIGGER guard;

CREATE TABLE finance.reversal (
	tenant_id		integer NOT NULL,
	transfer_id		bigint NOT NULL,
	reversal_id		bigint NOT NULL,
	amount			finance.amount NOT NULL,
	CONSTRAINT reversal_pkey PRIMARY KEY (tenant_id, transfer_id, reversal_id)
);
COMMENT ON TABLE finance.reversal IS
'which transfers gave back what a transfer moved, and how much of it';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.reversal
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.reversal ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance._now() RETURNS timestamptz
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'finance_now';
COMMENT ON FUNCTION finance._now() IS
'the clock of finance: the wall clock, or finance.test_clock';

-- The clock is asked in a subquery: once for a row, so that status and remaining
-- agree; and since the view itself has no volatile function, a join with it can
-- go through the table's indexes.
CREATE VIEW finance.hold WITH (security_invoker = true) AS
SELECT h.tenant_id, h.hold_id, h.from_account_id, h.to_account_id,
	CASE WHEN h.status = 'open' AND h.parked = 'challenge' THEN 'challenged'
		WHEN h.status = 'open' AND h.parked IS NOT NULL THEN h.parked
		WHEN h.status = 'open' AND h.expires_at <= c.now
		THEN 'expired' ELSE h.status END AS status,
	h.amount::numeric AS amount, h.captured, h.released,
	CASE WHEN h.status = 'open' AND h.parked IS NULL AND h.expires_at <= c.now
		THEN h.amount - h.amount
		ELSE h.amount - h.captured - h.released END AS remaining,
	h.expires_at, h.type, h.hold_group, finance.id_time(h.hold_id) AS held_at
FROM finance._hold h CROSS JOIN (SELECT finance._now() AS now) c;
COMMENT ON VIEW finance.hold IS
'holds: what was held, what of it was captured and released, and what remains; one whose time is over is expired, whether the worker has seen it or not; one with status review or challenged is parked';

-- ------------------------------------------------------------------------
-- risk
-- ------------------------------------------------------------------------

-- what transfers are judged by, in versions: a draft is edited, a published one
-- never changes again; at most one is live
CREATE TABLE finance.ruleset (
	tenant_id	integer NOT NULL,
	version		integer NOT NULL,
	name		text NOT NULL,
	mode		text NOT NULL DEFAULT 'draft',
	score_report	integer,
	score_challenge	integer,
	score_review	integer,
	score_reject	integer,
	review_timeout	interval NOT NULL DEFAULT '24 hours',
	review_default	text NOT NULL DEFAULT 'reject',
	challenge_timeout interval NOT NULL DEFAULT '10 minutes',
	copy_of		integer,
	created_by	text NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	published_by text,
	published_at timestamptz,
	rules		integer,
	CONSTRAINT ruleset_pkey PRIMARY KEY (tenant_id, version),
	CONSTRAINT ruleset_version CHECK (version > 0),
	CONSTRAINT ruleset_mode CHECK (mode IN ('draft', 'live', 'shadow', 'retired')),
	CONSTRAINT ruleset_published CHECK ((mode = 'draft') = (published_at IS NULL)
		AND (mode = 'draft') = (published_by IS NULL)
		AND (mode = 'draft') = (rules IS NULL)),
	CONSTRAINT ruleset_scores CHECK (score_report > 0 AND score_challenge > 0
		AND score_review > 0 AND score_reject > 0),
	CONSTRAINT ruleset_review_timeout CHECK (review_timeout > '0'::interval AND review_timeout <= '366 days'::interval),
	CONSTRAINT ruleset_review_default CHECK (review_default IN ('reject', 'approve')),
	CONSTRAINT ruleset_challenge_timeout CHECK (challenge_timeout > '0'::interval AND challenge_timeout <= '366 days'::interval)
);
CREATE UNIQUE INDEX ruleset_live ON finance.ruleset (tenant_id) WHERE mode = 'live';
COMMENT ON TABLE finance.ruleset IS
'versions of the rules that transfers are judged by; made by create_ruleset(), put in force by publish_ruleset()';
COMMENT ON COLUMN finance.ruleset.mode IS
'draft: may be edited; live: judges; shadow: is evaluated and recorded, and never acted upon; retired: was either, and may be published again';
COMMENT ON COLUMN finance.ruleset.score_reject IS
'the outcome is at least reject when the scores of the rules that hit add up to so much; null: never; likewise the others';
COMMENT ON COLUMN finance.ruleset.review_default IS
'what becomes of a transfer that nobody has reviewed within review_timeout: reject or approve';

COMMENT ON COLUMN finance.ruleset.name IS
'as create_ruleset() was told; of a version that a change of what is live made: the change, such as add_rule and the rule''s name';
COMMENT ON COLUMN finance.ruleset.published_at IS
'when it was last put in force as what it is, or was: live or shadow; published_by: by whom; null: a draft';
COMMENT ON COLUMN finance.ruleset.rules IS
'how many it had when it was published: there never are more; null: a draft';

CREATE TABLE finance.risk_rule (
	tenant_id	integer NOT NULL,
	version		integer NOT NULL,
	name		text NOT NULL,
	kind		text NOT NULL,
	outcome		text NOT NULL,
	score		integer NOT NULL DEFAULT 0,
	threshold	numeric,
	minimum		numeric,
	per			text,
	period		text,
	span		interval,
	times		integer,
	window_start time,
	window_end	time,
	time_zone	text,
	weekdays	integer[],
	calendar	text,
	list		text,
	subject		text,
	expression	text,
	on_error	text,
	account_id	bigint,
	account_type text,
	level		text,
	currency	text,
	transfer_type text,
	enabled		boolean NOT NULL DEFAULT true,
	description	text,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT risk_rule_pkey PRIMARY KEY (tenant_id, version, name),
	CONSTRAINT risk_rule_outcome CHECK (outcome IN ('pass', 'report', 'challenge', 'review', 'reject')),
	CONSTRAINT risk_rule_score CHECK (score BETWEEN -1000000 AND 1000000),
	CONSTRAINT risk_rule_threshold CHECK (threshold >= 0 AND threshold < 'Infinity'),
	CONSTRAINT risk_rule_minimum CHECK (minimum >= 0 AND minimum < 'Infinity'),
	CONSTRAINT risk_rule_per CHECK (per IN ('account', 'counterparty', 'pair', 'account_type', 'type')),
	CONSTRAINT risk_rule_period CHECK (period IN ('hour', 'day', 'month')),
	CONSTRAINT risk_rule_span CHECK (span > '0'::interval AND span <= '366 days'::interval),
	CONSTRAINT risk_rule_one_window CHECK (period IS NULL OR span IS NULL),
	CONSTRAINT risk_rule_times CHECK (times BETWEEN 1 AND 1000000),
	CONSTRAINT risk_rule_window CHECK ((window_start IS NULL) = (window_end IS NULL)
		AND window_start <> window_end),
	CONSTRAINT risk_rule_on_error CHECK (on_error IN ('pass', 'report', 'challenge', 'review', 'reject'))
);
COMMENT ON TABLE finance.risk_rule IS
'the rules of each ruleset; changed with add_rule(), remove_rule() and enable_rule()';
COMMENT ON COLUMN finance.risk_rule.outcome IS
'what a transfer that the rule hits comes to, if no other rule asks for more';
COMMENT ON COLUMN finance.risk_rule.threshold IS
'an amount in units of the transfer''s currency, a number of transfers, or a share, by the kind of rule';
COMMENT ON COLUMN finance.risk_rule.per IS
'whose transfers are added up: account, what the payer pays; counterparty, what the payee gets; pair; account_type, what the payer pays by transfers of this type; type, all transfers of this type and currency';
COMMENT ON COLUMN finance.risk_rule.span IS
'length of a sliding window, instead of a period';
COMMENT ON COLUMN finance.risk_rule.account_id IS
'only what this account pays; null: any';
COMMENT ON COLUMN finance.risk_rule.window_start IS
'in time_zone, or else the tenant''s; a window may pass midnight and ends just before window_end';

CREATE VIEW finance.live_rule WITH (security_invoker = true) AS
SELECT r.tenant_id, s.mode, r.version, r.name, r.kind, r.outcome, r.score, r.threshold,
	r.minimum, r.per, r.period, r.span, r.times, r.window_start, r.window_end, r.time_zone,
	r.weekdays, r.calendar, r.list, r.subject, r.expression, r.on_error,
	a.code AS account, r.account_type, r.level, r.currency, r.transfer_type, r.enabled,
	r.description
FROM finance.ruleset s
JOIN finance.risk_rule r ON r.tenant_id = s.tenant_id AND r.version = s.version
LEFT JOIN finance._account a ON a.tenant_id = r.tenant_id AND a.account_id = r.account_id
WHERE s.mode = 'live';
COMMENT ON VIEW finance.live_rule IS 'the rules that transfers are judged by now';

CREATE TABLE finance.holiday (
	tenant_id	integer NOT NULL,
	calendar	text NOT NULL,
	day			date NOT NULL,
	name		text,
	CONSTRAINT holiday_pkey PRIMARY KEY (tenant_id, calendar, day)
);
COMMENT ON TABLE finance.holiday IS
'days that rules with a calendar take for holidays; changed with add_holiday() and remove_holiday()';

CREATE TABLE finance.risk_decision (
	tenant_id	integer NOT NULL,
	transfer_id	bigint NOT NULL,
	version		integer NOT NULL,
	mode		text NOT NULL,
	outcome		text NOT NULL,
	score		integer NOT NULL,
	rule		text,
	latency_us	numeric NOT NULL,
	hits		jsonb NOT NULL,
	inputs		jsonb NOT NULL,
	decided_at	timestamptz NOT NULL,
	CONSTRAINT risk_decision_pkey PRIMARY KEY (tenant_id, transfer_id, version),
	CONSTRAINT risk_decision_mode CHECK (mode IN ('live', 'shadow')),
	CONSTRAINT risk_decision_outcome CHECK (outcome IN ('pass', 'report', 'challenge', 'review', 'reject'))
);
COMMENT ON TABLE finance.risk_decision IS
'what a ruleset said of a transfer that at least one of its rules hit: outcome, every rule that hit and why, and all that was looked at, so that replay_decision() says the same again';
COMMENT ON COLUMN finance.risk_decision.mode IS
'live: acted upon; shadow: recorded only';
COMMENT ON COLUMN finance.risk_decision.rule IS
'the first rule by name of those that asked for the outcome; null: their scores did';
COMMENT ON COLUMN finance.risk_decision.latency_us IS
'microseconds the judgement took, with all rulesets; the same of each';

CREATE VIEW finance.risk_hit WITH (security_invoker = true) AS
SELECT d.tenant_id, d.transfer_id, d.version, d.mode, h.ordinal::integer AS ordinal,
	h.hit->>'rule' AS rule, h.hit->>'kind' AS kind, h.hit->>'outcome' AS outcome,
	(h.hit->>'score')::integer AS score, h.hit->>'observed' AS observed,
	h.hit->>'threshold' AS threshold, h.hit->>'window' AS "window", d.decided_at
FROM finance.risk_decision d,
	LATERAL jsonb_array_elements(d.hits) WITH ORDINALITY AS h (hit, ordinal);
COMMENT ON VIEW finance.risk_hit IS
'each rule that hit a transfer: what was observed, what the rule allows, and in which window';

CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.ruleset
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.ruleset ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.holiday
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.holiday ENABLE ALWAYS TRIGGER config_changed;

-- a published ruleset never changes: neither its rules nor what it says of itself
CREATE FUNCTION finance._ruleset_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_ruleset_guard';
COMMENT ON FUNCTION finance._ruleset_guard() IS 'trigger: refuses changes of a ruleset that is no draft';
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON finance.risk_rule
	FOR EACH ROW EXECUTE FUNCTION finance._ruleset_guard();
ALTER TABLE finance.risk_rule ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON finance.ruleset
	FOR EACH ROW EXECUTE FUNCTION finance._ruleset_guard();
ALTER TABLE finance.ruleset ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON finance.risk_rule
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.risk_rule ENABLE ALWAYS TRIGGER guard_truncate;
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON finance.ruleset
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.ruleset ENABLE ALWAYS TRIGGER guard_truncate;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.risk_decision
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.risk_decision ENABLE ALWAYS TRIGGER guard;

-- ------------------------------------------------------------------------
-- functions: tenants, currencies, accounts
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.create_tenant(name text, time_zone text DEFAULT 'UTC',
	member_role regrole DEFAULT NULL) RETURNS integer
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_create_tenant';
COMMENT ON FUNCTION finance.create_tenant(text, text, regrole) IS
'makes a closed book and returns its number; only members of member_role may work in it';
CREATE FUNCTION finance.set_tenant_time_zone(tenant_id integer, time_zone text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_set_tenant_time_zone';
COMMENT ON FUNCTION finance.set_tenant_time_zone(integer, text) IS
'sets the zone of a tenant''s business days and night windows';

CREATE FUNCTION finance.create_currency(code text, minor_units integer, name text DEFAULT NULL)
	RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_create_currency';
COMMENT ON FUNCTION finance.create_currency(text, integer, text) IS
'adds a currency of 0 to 18 decimals; those of ISO 4217 are there';

CREATE FUNCTION finance.create_account(code text, currency text,
	type text DEFAULT 'liability', min_available numeric DEFAULT 0,
	max_balance numeric DEFAULT NULL, metadata jsonb DEFAULT NULL,
	parent text DEFAULT NULL) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_create_account';
COMMENT ON FUNCTION finance.create_account(text, text, text, numeric, numeric, jsonb, text) IS
'opens an account and returns its id; min_available is the floor of what is available (null: none), max_balance the ceiling of the balance (null: none), parent the account it is summed up under (null: none)';
CREATE FUNCTION finance.set_account_status(code text, status text, reason text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_set_account_status';
COMMENT ON FUNCTION finance.set_account_status(text, text, text) IS
'active, debits_frozen, credits_frozen, frozen, or closed for ever (only at zero, with nothing held); returns the account''s version';
CREATE FUNCTION finance.set_account_limits(code text, min_available numeric,
	max_balance numeric, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_set_account_limits';
COMMENT ON FUNCTION finance.set_account_limits(text, numeric, numeric, text) IS
'sets the floor of available and the ceiling of the balance (null: none), what is held counted; returns the account''s new version';
CREATE FUNCTION finance.balance(code text) RETURNS numeric
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'finance_balance';
COMMENT ON FUNCTION finance.balance(text) IS
'credits posted - debits posted of the account';

-- ------------------------------------------------------------------------
-- functions: transfers
-- ------------------------------------------------------------------------

CREATE TYPE finance.transfer_result AS (
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
	replayed		boolean,
	hold_id			bigint,
	hold_remaining	numeric,
	journal_id		bigint,
	token			text
);
COMMENT ON TYPE finance.transfer_result IS
'a transfer as made: status completed, held, released, expired, rejected, or parked as review or challenged (by which rule), or approved, and both accounts after it; replayed: the first answer of an idempotency key, given again; token: confirms what is challenged, told this once';

CREATE TYPE finance.transfer_request AS (
	from_account	text,
	to_account		text,
	amount			numeric,
	currency		text,
	idempotency_key	text,
	type			text,
	expected_from_version bigint,
	expected_to_version bigint,
	amount_mode		text,
	effective_at	timestamptz,
	reference		text,
	metadata		jsonb,
	linked			boolean,
	action			text,
	hold_id			bigint,
	final			boolean,
	expires_in		interval,
	hold_group		text,
	recorded_at		timestamptz
);
COMMENT ON TYPE finance.transfer_request IS
'one request of a batch: action transfer (the default), hold, capture or release, and its arguments; null: their default; linked: stands or falls with the next';

CREATE FUNCTION finance.request(from_account text DEFAULT NULL,
	to_account text DEFAULT NULL, amount numeric DEFAULT NULL,
	currency text DEFAULT NULL, idempotency_key text DEFAULT NULL,
	type text DEFAULT NULL, expected_from_version bigint DEFAULT NULL,
	expected_to_version bigint DEFAULT NULL, amount_mode text DEFAULT NULL,
	effective_at timestamptz DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL, linked boolean DEFAULT NULL,
	action text DEFAULT NULL, hold_id bigint DEFAULT NULL,
	final boolean DEFAULT NULL, expires_in interval DEFAULT NULL,
	hold_group text DEFAULT NULL, recorded_at timestamptz DEFAULT NULL)
	RETURNS finance.transfer_request
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT ROW($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)::finance.transfer_request';
COMMENT ON FUNCTION finance.request(text, text, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, text, bigint, boolean, interval, text, timestamptz) IS
'one request of a batch, from arguments of which none is required';

CREATE TYPE finance.batch_result AS (
	position		integer,
	error			text,
	message			text,
	detail			text,
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
	replayed		boolean,
	hold_id			bigint,
	hold_remaining	numeric,
	journal_id		bigint,
	token			text
);
COMMENT ON TYPE finance.batch_result IS
'what became of one request of a batch: its position from 1, the SQLSTATE and words of its error (null: none; status is failed when there is one), then as transfer_result';

CREATE FUNCTION finance.transfer_batch(requests finance.transfer_request[],
	atomic boolean DEFAULT false,
	context jsonb DEFAULT NULL) RETURNS SETOF finance.batch_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_transfer_batch';
COMMENT ON FUNCTION finance.transfer_batch(finance.transfer_request[], boolean, jsonb) IS
'carries out up to 10,000 requests in turn and answers each, in order, with what it did or its error; linked requests, or with atomic all, stand or fall together';

CREATE FUNCTION finance.transfer(from_account text, to_account text, amount numeric,
	currency text DEFAULT NULL, idempotency_key text DEFAULT NULL,
	type text DEFAULT 'transfer',
	expected_from_version bigint DEFAULT NULL,
	expected_to_version bigint DEFAULT NULL,
	amount_mode text DEFAULT 'exact',
	effective_at timestamptz DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL, strict boolean DEFAULT false,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_transfer';
COMMENT ON FUNCTION finance.transfer(text, text, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, jsonb) IS
'moves an amount between two accounts of one currency, named by code; strict raises instead of recording a rejected transfer; call it in FROM, since (transfer(...)).* calls it once per column';
CREATE FUNCTION finance.transfer(from_account bigint, to_account bigint, amount numeric,
	currency text DEFAULT NULL, idempotency_key text DEFAULT NULL,
	type text DEFAULT 'transfer',
	expected_from_version bigint DEFAULT NULL,
	expected_to_version bigint DEFAULT NULL,
	amount_mode text DEFAULT 'exact',
	effective_at timestamptz DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL, strict boolean DEFAULT false,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_transfer_by_id';
COMMENT ON FUNCTION finance.transfer(bigint, bigint, numeric, text, text, text, bigint, bigint, text, timestamptz, text, jsonb, boolean, jsonb) IS
'moves an amount between two accounts of one currency, named by id; strict raises instead of recording a rejected transfer; call it in FROM, since (transfer(...)).* calls it once per column';

-- ------------------------------------------------------------------------
-- functions: holds
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.hold(from_account text, to_account text, amount numeric,
	expires_in interval DEFAULT NULL, currency text DEFAULT NULL,
	idempotency_key text DEFAULT NULL, type text DEFAULT 'transfer',
	expected_from_version bigint DEFAULT NULL,
	expected_to_version bigint DEFAULT NULL,
	amount_mode text DEFAULT 'exact', hold_group text DEFAULT NULL,
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL,
	strict boolean DEFAULT false,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_hold';
COMMENT ON FUNCTION finance.hold(text, text, numeric, interval, text, text, text, bigint, bigint, text, text, text, jsonb, boolean, jsonb) IS
'reserves an amount of one account for another, until it is captured, released, or expires_in is over; its id is the hold''s';
CREATE FUNCTION finance.capture(hold_id bigint, amount numeric DEFAULT NULL,
	final boolean DEFAULT false, idempotency_key text DEFAULT NULL,
	effective_at timestamptz DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_capture';
COMMENT ON FUNCTION finance.capture(bigint, numeric, boolean, text, timestamptz, text, jsonb, jsonb) IS
'posts held money, all that remains or a part; final gives the rest back';
CREATE FUNCTION finance.release(hold_id bigint, amount numeric DEFAULT NULL,
	idempotency_key text DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_release';
COMMENT ON FUNCTION finance.release(bigint, numeric, text, text, jsonb, jsonb) IS
'gives held money back, all that remains or a part';

-- ------------------------------------------------------------------------
-- functions: risk
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.create_ruleset(name text, copy_of integer DEFAULT NULL,
	score_report integer DEFAULT NULL, score_challenge integer DEFAULT NULL,
	score_review integer DEFAULT NULL, score_reject integer DEFAULT NULL,
	review_timeout interval DEFAULT NULL, review_default text DEFAULT NULL,
	challenge_timeout interval DEFAULT NULL) RETURNS integer
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_create_ruleset';
COMMENT ON FUNCTION finance.create_ruleset(text, integer, integer, integer, integer, integer, interval, text, interval) IS
'makes a draft, empty or a copy of another version with its settings, and returns its version';
CREATE FUNCTION finance.publish_ruleset(version integer, mode text DEFAULT 'live') RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_publish_ruleset';
COMMENT ON FUNCTION finance.publish_ruleset(integer, text) IS
'puts a draft, or a version that was retired, in force: live, in the place of the one that was, or shadow; it never changes again';
CREATE FUNCTION finance.retire_ruleset(version integer) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_retire_ruleset';
COMMENT ON FUNCTION finance.retire_ruleset(integer) IS
'takes a live or shadow ruleset out of force; it may be published again';
CREATE FUNCTION finance.drop_ruleset(version integer) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_drop_ruleset';
COMMENT ON FUNCTION finance.drop_ruleset(integer) IS 'deletes a draft and its rules';

CREATE FUNCTION finance.add_rule(name text, kind text, threshold numeric DEFAULT NULL,
	account text DEFAULT NULL, currency text DEFAULT NULL,
	window_start time DEFAULT NULL, window_end time DEFAULT NULL,
	outcome text DEFAULT NULL, score integer DEFAULT 0,
	minimum numeric DEFAULT NULL, per text DEFAULT NULL, period text DEFAULT NULL,
	span interval DEFAULT NULL, times integer DEFAULT NULL,
	time_zone text DEFAULT NULL, weekdays integer[] DEFAULT NULL,
	calendar text DEFAULT NULL, list text DEFAULT NULL, subject text DEFAULT NULL,
	expression text DEFAULT NULL, on_error text DEFAULT NULL,
	account_type text DEFAULT NULL, level text DEFAULT NULL,
	transfer_type text DEFAULT NULL, description text DEFAULT NULL,
	ruleset integer DEFAULT NULL) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_add_rule';
COMMENT ON FUNCTION finance.add_rule(text, text, numeric, text, text, time, time, text, integer, numeric, text, text, interval, integer, text, integer[], text, text, text, text, text, text, text, text, text, integer) IS
'adds a rule to a draft; without a ruleset to the rules in force, by a new version that is live at once; rule_kinds() tells the kinds and what each needs';
CREATE FUNCTION finance.remove_rule(name text, ruleset integer DEFAULT NULL) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_remove_rule';
COMMENT ON FUNCTION finance.remove_rule(text, integer) IS
'removes a rule from a draft, or without a ruleset from the rules in force, by a new version';
CREATE FUNCTION finance.enable_rule(name text, enabled boolean DEFAULT true, ruleset integer DEFAULT NULL) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_enable_rule';
COMMENT ON FUNCTION finance.enable_rule(text, boolean, integer) IS
'switches a rule of a draft on or off, or without a ruleset one of the rules in force, by a new version';
CREATE FUNCTION finance.rule_kinds() RETURNS TABLE (kind text, outcome text, needs text, takes text, hits text)
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'finance_rule_kinds';
COMMENT ON FUNCTION finance.rule_kinds() IS
'the kinds of rules: their usual outcome, the arguments of add_rule() that each needs or takes, and what it hits';
CREATE FUNCTION finance.add_holiday(day date, name text DEFAULT NULL, calendar text DEFAULT 'default') RETURNS boolean
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_add_holiday';
COMMENT ON FUNCTION finance.add_holiday(date, text, text) IS
'makes a day a holiday of a calendar; false if it is one';
CREATE FUNCTION finance.remove_holiday(day date, calendar text DEFAULT 'default') RETURNS boolean
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_remove_holiday';
COMMENT ON FUNCTION finance.remove_holiday(date, text) IS
'takes a holiday out of a calendar; false if it is none';

CREATE TYPE finance.risk_answer AS (
	version		integer,
	mode		text,
	rule		text,
	kind		text,
	hit			boolean,
	outcome		text,
	score		integer,
	observed	text,
	threshold	text,
	"window"	text
);
COMMENT ON TYPE finance.risk_answer IS
'what one rule says of a transfer, or, with rule null, what its ruleset says';
CREATE FUNCTION finance.explain_risk(from_account text, to_account text, amount numeric,
	currency text DEFAULT NULL, type text DEFAULT 'transfer',
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL,
	is_hold boolean DEFAULT false, ruleset integer DEFAULT NULL)
	RETURNS SETOF finance.risk_answer
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_explain_risk';
COMMENT ON FUNCTION finance.explain_risk(text, text, numeric, text, text, text, jsonb, boolean, integer) IS
'what each rule would say of a transfer, hit or not, and the whole, without moving money: of the rulesets in force, or of one that is named, a draft too';
CREATE FUNCTION finance.evaluate_risk(from_account text, to_account text, amount numeric,
	currency text DEFAULT NULL, type text DEFAULT 'transfer',
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL,
	is_hold boolean DEFAULT false,
	OUT outcome text, OUT score integer, OUT rule text, OUT version integer)
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_evaluate_risk';
COMMENT ON FUNCTION finance.evaluate_risk(text, text, numeric, text, text, text, jsonb, boolean) IS
'what the live ruleset would say of a transfer, without moving money';
CREATE FUNCTION finance.replay_decision(transfer_id bigint, version integer DEFAULT NULL,
	OUT same boolean, OUT outcome text, OUT score integer, OUT hits jsonb,
	OUT recorded_outcome text, OUT recorded_hits jsonb)
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_replay_decision';
COMMENT ON FUNCTION finance.replay_decision(bigint, integer) IS
'judges a transfer again, by the version and the inputs its decision recorded (version null: the live one), and says whether the answer is the same';


-- ========================================================================
-- AUDIT SECTION (merkle.c, audit_*.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- audit_record: one row per thing that happened.  Rows are only ever added,
-- by the extension itself: sealing keeps leaf numbers in tables of its own.
-- The order of columns is FinAuditColumn's in audit_row.h; what is hashed and
-- how is described there, byte by byte.  No CHECK beyond NOT NULL: the writer
-- is one C function, and each CHECK costs every INSERT.  Each partition has one
-- index, on (xid, sequence), the order in which records are sealed; what else
-- finds records is written when they are sealed, at no cost to who pays.
-- ------------------------------------------------------------------------

CREATE TABLE finance.audit_record (
	id				bigint NOT NULL,
	recorded_at		timestamptz NOT NULL,
	xid				xid8 NOT NULL,
	system_identifier bigint NOT NULL,
	tenant_id		integer NOT NULL,
	sequence		integer NOT NULL,
	trace_id		uuid NOT NULL,
	message_id		bigint,
	transfer_id		bigint,
	account_id		bigint,
	counterparty_id	bigint,
	account_version	bigint,
	counterparty_version bigint,
	leaf_version	smallint NOT NULL,
	leaf_hash		bytea NOT NULL,
	payload_hash	bytea,
	salt			bytea,
	client_addr		inet,
	actor			text NOT NULL,
	session_user_name text NOT NULL,
	role_name		text,
	application_name text,
	user_agent		text,
	span_id			text,
	request_id		text,
	reason			text,
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
	trace_until		bigint
) PARTITION BY RANGE (id);

COMMENT ON TABLE finance.audit_record IS
'audit log: rows are added by the extension only, and never changed or deleted';
COMMENT ON COLUMN finance.audit_record.xid IS
'top-level transaction that wrote the record';
COMMENT ON COLUMN finance.audit_record.system_identifier IS
'of the server that wrote the record, as pg_control_system() shows it: xid counts there';
COMMENT ON COLUMN finance.audit_record.account_version IS
'version of the account debited after the change; null when it stayed as it was';
COMMENT ON COLUMN finance.audit_record.counterparty_version IS
'version of the account credited after the change; null when it stayed as it was';
COMMENT ON COLUMN finance.audit_record.role_name IS
'user of SET ROLE, where it is not the session user';
COMMENT ON COLUMN finance.audit_record.application_name IS
'application_name of the session';
COMMENT ON COLUMN finance.audit_record.span_id IS
'finance.span_id of the session: the step of the trace';
COMMENT ON COLUMN finance.audit_record.request_id IS
'finance.request_id of the session';
COMMENT ON COLUMN finance.audit_record.reason IS
'finance.reason of the session: the business reason';
COMMENT ON COLUMN finance.audit_record.sequence IS
'order within the transaction, from 1 without a gap: a rolled back savepoint gives its numbers back';
COMMENT ON COLUMN finance.audit_record.trace_id IS
'finance.trace_id of the session, or one made for the transaction; look one up with audit_trace()';
COMMENT ON COLUMN finance.audit_record.trace_until IS
'in the first of the records appended together: id of the last; null in the others';
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
'trigger that audit_table() attaches';

CREATE FUNCTION finance.audit_table(target regclass, columns text[] DEFAULT NULL,
	ignore text[] DEFAULT NULL, mask jsonb DEFAULT NULL, subject text DEFAULT NULL,
	rows text DEFAULT 'delta')
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_table';
COMMENT ON FUNCTION finance.audit_table IS
'records every row change of the table, its partitions and inheriting tables from now on, sensitive columns redacted, hashed or encrypted as mask says, also when they are dropped and come back; returns how many tables it attached triggers to';

CREATE FUNCTION finance.unaudit_table(target regclass) RETURNS integer
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unaudit_table';
COMMENT ON FUNCTION finance.unaudit_table IS
'ends what audit_table() began; returns how many tables had triggers';

CREATE FUNCTION finance._audit_ddl() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_audit_ddl';
COMMENT ON FUNCTION finance._audit_ddl IS
'event trigger: records DDL on objects of finance and on audited tables';
CREATE EVENT TRIGGER finance_audit_ddl ON ddl_command_end
	EXECUTE FUNCTION finance._audit_ddl();
ALTER EVENT TRIGGER finance_audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER finance_audit_ddl IS
'records DDL on objects of finance and on audited tables, whose partitions get their triggers';
CREATE EVENT TRIGGER finance_audit_drop ON sql_drop
	EXECUTE FUNCTION finance._audit_ddl();
ALTER EVENT TRIGGER finance_audit_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER finance_audit_drop IS
'records that objects of finance and audited tables are dropped';
CREATE EVENT TRIGGER finance_audit_start ON ddl_command_start
	WHEN TAG IN ('DROP INDEX')
	EXECUTE FUNCTION finance._audit_ddl();
ALTER EVENT TRIGGER finance_audit_start ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER finance_audit_start IS
'sees what tables the indexes are of that finance_audit_drop records';

CREATE FUNCTION finance.set_context(trace_id uuid DEFAULT NULL,
									actor text DEFAULT NULL,
									user_agent text DEFAULT NULL,
									tenant integer DEFAULT NULL,
									span_id text DEFAULT NULL,
									request_id text DEFAULT NULL,
									reason text DEFAULT NULL)
	RETURNS uuid
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_context';
COMMENT ON FUNCTION finance.set_context IS
'says who acts and from where until the end of the transaction; null leaves as it was; returns the trace id in force';

-- ========================================================================
-- QUEUE SECTION (queue.c, queue_*.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- queues: a small table, cached by every session.  No foreign keys to it:
-- pg_restore with several jobs fills the tables of an extension in any order.
-- Binding and dropping lock the queue's row, and check_integrity() looks.
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._queue_id_seq;
COMMENT ON SEQUENCE finance._queue_id_seq IS
'numbers of queues, which are part of their tables'' names and never used again';

CREATE TABLE finance.queue (
	tenant_id	integer NOT NULL,
	queue_id	bigint NOT NULL DEFAULT pg_catalog.nextval('finance._queue_id_seq'),
	name		text NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	kind		text NOT NULL DEFAULT 'standard',
	unlogged	boolean NOT NULL DEFAULT false,
	paused		boolean NOT NULL DEFAULT false,
	max_deliveries	integer,
	dead_letter_queue_id	bigint,
	backoff_ms	integer NOT NULL DEFAULT 1000,
	backoff_max_ms	integer NOT NULL DEFAULT 3600000,
	message_ttl_s	integer,
	expired		text NOT NULL DEFAULT 'dead_letter',
	max_length	bigint,
	rate_limit	integer,
	max_in_flight	integer,
	dedup_window_s	integer NOT NULL DEFAULT 300,
	CONSTRAINT queue_pkey PRIMARY KEY (tenant_id, queue_id),
	CONSTRAINT queue_id_key UNIQUE (queue_id),
	CONSTRAINT queue_name_key UNIQUE (tenant_id, name),
	CONSTRAINT queue_id_positive CHECK (queue_id > 0),
	CONSTRAINT queue_name_form CHECK (name ~ '^[A-Za-z0-9_.-]{1,47}$'),
	CONSTRAINT queue_kind_known CHECK (kind IN ('standard', 'log')),
	CONSTRAINT queue_max_deliveries_range CHECK (max_deliveries BETWEEN 1 AND 1000000),
	CONSTRAINT queue_backoff_range CHECK (backoff_ms BETWEEN 0 AND backoff_max_ms
		AND backoff_max_ms <= 86400000),
	CONSTRAINT queue_ttl_range CHECK (message_ttl_s BETWEEN 1 AND 31536000),
	CONSTRAINT queue_expired_known CHECK (expired IN ('dead_letter', 'discard')),
	CONSTRAINT queue_max_length_range CHECK (max_length > 0),
	CONSTRAINT queue_rate_limit_range CHECK (rate_limit > 0),
	CONSTRAINT queue_max_in_flight_range CHECK (max_in_flight > 0),
	CONSTRAINT queue_dedup_window_range CHECK (dedup_window_s BETWEEN 1 AND 21600),
	CONSTRAINT queue_dead_letter_other CHECK (dead_letter_queue_id <> queue_id)
);
ALTER SEQUENCE finance._queue_id_seq OWNED BY finance.queue.queue_id;
COMMENT ON TABLE finance.queue IS
'queues; the messages of each lie in the tables finance.message_<queue_id>_<segment>';
COMMENT ON COLUMN finance.queue.kind IS 'standard: each message goes to one reader; log: see finance.log_queue';
COMMENT ON COLUMN finance.queue.unlogged IS 'its tables are not written to the WAL, and empty after a crash';
COMMENT ON COLUMN finance.queue.paused IS 'read() and pop() return nothing; sending goes on';
COMMENT ON COLUMN finance.queue.max_deliveries IS 'a message read so often is a dead letter; null: without limit';
COMMENT ON COLUMN finance.queue.dead_letter_queue_id IS 'where dead letters go; null: the tenant''s default, or else the archive';
COMMENT ON COLUMN finance.queue.backoff_ms IS 'delay of nack() after the first delivery; doubles with each, with jitter';
COMMENT ON COLUMN finance.queue.backoff_max_ms IS 'but never longer than this';
COMMENT ON COLUMN finance.queue.message_ttl_s IS 'life of messages sent without a ttl of their own; null: for ever';
COMMENT ON COLUMN finance.queue.expired IS 'what becomes of messages whose time to live is over: dead_letter or discard';
COMMENT ON COLUMN finance.queue.max_length IS 'most messages in the queue; a send beyond fails with LG306';
COMMENT ON COLUMN finance.queue.rate_limit IS 'most messages handed out per second';
COMMENT ON COLUMN finance.queue.max_in_flight IS 'most messages being worked on at a time';
COMMENT ON COLUMN finance.queue.dedup_window_s IS 'seconds within which a dedup_id is sent once';

CREATE TABLE finance.subscription (
	channel		text NOT NULL,
	tenant_id	integer NOT NULL,
	queue_id	bigint NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT subscription_pkey PRIMARY KEY (channel),
	CONSTRAINT subscription_channel_length CHECK (pg_catalog.octet_length(channel) BETWEEN 1 AND 63)
);
CREATE INDEX subscription_queue ON finance.subscription (tenant_id, queue_id);
COMMENT ON TABLE finance.subscription IS
'NOTIFY channels on which the worker tells of new messages in a queue; channels are common to all tenants';

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.queue
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.queue ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.subscription ENABLE ALWAYS TRIGGER config_changed;

-- ------------------------------------------------------------------------
-- message: the messages of a queue lie in three tables, its segments, made by
-- create_queue().  msg_id begins with the priority, so the primary key is the
-- order of reading.  visible_at and read_ct, which a claim writes, are in no
-- index, so a claim is a HOT update.  Used-up segments are truncated in turn.
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
	segment		smallint NOT NULL DEFAULT 0,
	due_at		timestamptz,
	expires_at	timestamptz,
	topic		text,
	ordering_key	text COLLATE pg_catalog."C",
	headers		jsonb,
	payload		jsonb NOT NULL
) PARTITION BY RANGE (queue_id, segment);
COMMENT ON TABLE finance.message IS
'messages that wait or are being worked on';
COMMENT ON COLUMN finance.message.msg_id IS
'this copy of the message; sorts as it is read: highest priority first, then oldest';
COMMENT ON COLUMN finance.message.message_id IS
'the message: the same in all copies of one publish()';
COMMENT ON COLUMN finance.message.visible_at IS
'not read before: delayed until, or claimed by a reader until';
COMMENT ON COLUMN finance.message.read_ct IS
'how often it was read';
COMMENT ON COLUMN finance.message.due_at IS
'the end of its delay, as long as it is delayed; else null';
COMMENT ON COLUMN finance.message.expires_at IS
'the end of its time to live, from when on it is not read; null: none';
COMMENT ON COLUMN finance.message.ordering_key IS
'messages of one key are delivered one after another';
COMMENT ON COLUMN finance.message.segment IS
'which of the queue''s tables it lies in';

ALTER TABLE finance.queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.queue USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.subscription ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.subscription USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.message ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.message USING (finance._is_tenant_visible(tenant_id));

-- the partitions are no members of the extension: pg_dump writes them itself
SELECT pg_catalog.pg_extension_config_dump('finance._queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.queue', '');
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
	priority	smallint,
	ordering_key	text
);
COMMENT ON TYPE finance.message_record IS
'a message as read() returns it; vt: until when it is invisible to other readers';

CREATE FUNCTION finance.create_queue(queue_name text, unlogged boolean DEFAULT false,
		max_deliveries integer DEFAULT NULL, dead_letter_queue text DEFAULT NULL,
		message_ttl integer DEFAULT NULL, expired text DEFAULT NULL,
		backoff_ms integer DEFAULT NULL, backoff_max_ms integer DEFAULT NULL,
		max_length bigint DEFAULT NULL, rate_limit integer DEFAULT NULL,
		max_in_flight integer DEFAULT NULL, dedup_window integer DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_queue';
COMMENT ON FUNCTION finance.create_queue(text, boolean, integer, text, integer, text, integer, integer, bigint, integer, integer, integer) IS
'make an empty queue; its settings may be null, and 0 is no limit';

CREATE FUNCTION finance.alter_queue(queue_name text,
		max_deliveries integer DEFAULT NULL, dead_letter_queue text DEFAULT NULL,
		message_ttl integer DEFAULT NULL, expired text DEFAULT NULL,
		backoff_ms integer DEFAULT NULL, backoff_max_ms integer DEFAULT NULL,
		max_length bigint DEFAULT NULL, rate_limit integer DEFAULT NULL,
		max_in_flight integer DEFAULT NULL, dedup_window integer DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_alter_queue';
COMMENT ON FUNCTION finance.alter_queue(text, integer, text, integer, text, integer, integer, bigint, integer, integer, integer) IS
'change settings of a queue: null leaves one as it is, 0 takes a limit away, '''' the dead-letter queue';

CREATE FUNCTION finance.pause_queue(queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_pause_queue';
COMMENT ON FUNCTION finance.pause_queue(text) IS
'let read() and pop() return nothing until resume_queue(); false when it is paused already';

CREATE FUNCTION finance.resume_queue(queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_resume_queue';
COMMENT ON FUNCTION finance.resume_queue(text) IS
'end a pause; false when there is none';

CREATE FUNCTION finance.redrive(queue_name text, to_queue text DEFAULT NULL,
		"limit" integer DEFAULT 1000)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_redrive';
COMMENT ON FUNCTION finance.redrive(text, text, integer) IS
'send dead letters of a queue back to where they come from, or to to_queue; returns how many';

CREATE FUNCTION finance.drop_queue(queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_queue';
COMMENT ON FUNCTION finance.drop_queue(text) IS
'drop a queue with its messages, bindings and subscriptions; what was archived stays; false when there is none';

CREATE FUNCTION finance.purge_queue(queue_name text)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_purge_queue';
COMMENT ON FUNCTION finance.purge_queue(text) IS
'delete all messages of a queue; returns how many';

CREATE FUNCTION finance.list_queues()
	RETURNS TABLE (queue_name text, queue_id bigint, created_at timestamptz,
		kind text, unlogged boolean, paused boolean)
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
'how full a queue is and how old its messages are, in seconds; told from counters';

CREATE FUNCTION finance.metrics_all()
	RETURNS TABLE (queue_name text, queue_length bigint, newest_msg_age_sec integer,
		oldest_msg_age_sec integer, scrape_time timestamptz, queue_visible_length bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_metrics_all';
COMMENT ON FUNCTION finance.metrics_all() IS
'metrics() of each queue of the session''s tenant';

CREATE FUNCTION finance.send(queue_name text, msg jsonb, headers jsonb DEFAULT NULL,
		delay integer DEFAULT 0, priority integer DEFAULT 0, ttl integer DEFAULT NULL,
		ordering_key text DEFAULT NULL, dedup_id text DEFAULT NULL,
		deliver_at timestamptz DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_send';
COMMENT ON FUNCTION finance.send(text, jsonb, jsonb, integer, integer, integer, text, text, timestamptz) IS
'put a message into a queue, visible after delay seconds or from deliver_at on; returns its msg_id, or that of the earlier message with the same dedup_id';

CREATE FUNCTION finance.send_batch(queue_name text, msgs jsonb[], headers jsonb[] DEFAULT NULL,
		delay integer DEFAULT 0, priority integer DEFAULT 0, ttl integer DEFAULT NULL,
		ordering_keys text[] DEFAULT NULL, dedup_ids text[] DEFAULT NULL,
		deliver_at timestamptz DEFAULT NULL)
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_send_batch';
COMMENT ON FUNCTION finance.send_batch(text, jsonb[], jsonb[], integer, integer, integer, text[], text[], timestamptz) IS
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

CREATE FUNCTION finance.delete(queue_name text, msg_id bigint, read_ct integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_delete';
COMMENT ON FUNCTION finance.delete(text, bigint, integer) IS
'acknowledge a message: remove it from its queue; false when there is none; with the read_ct it was read with, only if nobody has read it since';

CREATE FUNCTION finance.delete(queue_name text, msg_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_delete_many';
COMMENT ON FUNCTION finance.delete(text, bigint[]) IS
'acknowledge messages; returns the ids that were there';

CREATE FUNCTION finance.archive(queue_name text, msg_id bigint, read_ct integer DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_archive';
COMMENT ON FUNCTION finance.archive(text, bigint, integer) IS
'acknowledge a message and keep it in finance.message_archive; false when there is none';

CREATE FUNCTION finance.archive(queue_name text, msg_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_archive_many';
COMMENT ON FUNCTION finance.archive(text, bigint[]) IS
'acknowledge messages and keep them in finance.message_archive; returns the ids that were there';

CREATE FUNCTION finance.set_vt(queue_name text, msg_id bigint, vt integer,
		read_ct integer DEFAULT NULL)
	RETURNS SETOF finance.message_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'finance_set_vt';
COMMENT ON FUNCTION finance.set_vt(text, bigint, integer, integer) IS
'make a message invisible until vt seconds from now; returns it, or no row when there is none';

CREATE FUNCTION finance.nack(queue_name text, msg_id bigint, delay integer DEFAULT NULL,
		read_ct integer DEFAULT NULL, reason text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_nack';
COMMENT ON FUNCTION finance.nack(text, bigint, integer, integer, text) IS
'give a message back, to be read again after delay seconds (null: growing with each delivery), or dead-lettered when it was read often enough; false when there is none';

CREATE FUNCTION finance.nack(queue_name text, msg_ids bigint[], delay integer DEFAULT NULL,
		reason text DEFAULT NULL)
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_nack_many';
COMMENT ON FUNCTION finance.nack(text, bigint[], integer, text) IS
'give messages back; returns the ids that were there';

CREATE FUNCTION finance.publish(topic text, payload jsonb, headers jsonb DEFAULT NULL,
		priority integer DEFAULT 0, delay integer DEFAULT 0, ttl integer DEFAULT NULL,
		ordering_key text DEFAULT NULL, dedup_id text DEFAULT NULL,
		deliver_at timestamptz DEFAULT NULL)
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_publish';
COMMENT ON FUNCTION finance.publish(text, jsonb, jsonb, integer, integer, integer, text, text, timestamptz) IS
'put a copy of a message into each queue bound to the topic, or else into the alternate queue; returns how many';

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
-- ROUTING SECTION (topic.c, queue_bind.c, queue_filter.c, queue_default.c)
-- ========================================================================

CREATE FUNCTION finance.topic_matches(pattern text, topic text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_topic_matches';
COMMENT ON FUNCTION finance.topic_matches(text, text) IS
'does the topic match the AMQP pattern (* one word, # any number of words)';

-- ------------------------------------------------------------------------
-- Small tables, cached by every session, without foreign keys, as
-- finance.queue.  A binding is what it says: two bindings of one queue differ
-- in their pattern or their filter.
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._binding_id_seq;
COMMENT ON SEQUENCE finance._binding_id_seq IS
'numbers of bindings';

CREATE TABLE finance.binding (
	tenant_id	integer NOT NULL,
	binding_id	bigint NOT NULL DEFAULT pg_catalog.nextval('finance._binding_id_seq'),
	queue_id	bigint NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	pattern		text NOT NULL,
	tags		text[],
	headers		jsonb,
	match		text,
	CONSTRAINT binding_pkey PRIMARY KEY (tenant_id, binding_id),
	CONSTRAINT binding_key UNIQUE NULLS NOT DISTINCT (tenant_id, pattern, queue_id, tags, headers, match),
	CONSTRAINT binding_pattern_length CHECK (pg_catalog.octet_length(pattern) BETWEEN 1 AND 255),
	CONSTRAINT binding_tags CHECK (pg_catalog.cardinality(tags) BETWEEN 1 AND 32
		AND pg_catalog.array_position(tags, NULL) IS NULL),
	CONSTRAINT binding_headers CHECK (pg_catalog.jsonb_typeof(headers) = 'object'),
	CONSTRAINT binding_match CHECK (match IN ('all', 'any')),
	CONSTRAINT binding_match_of_headers CHECK ((match IS NULL) = (headers IS NULL))
);
ALTER SEQUENCE finance._binding_id_seq OWNED BY finance.binding.binding_id;
CREATE INDEX binding_queue ON finance.binding (tenant_id, queue_id);
COMMENT ON TABLE finance.binding IS
'topic patterns, with filters, whose messages are copied to a queue';
COMMENT ON COLUMN finance.binding.tags IS
'the message must have one of these tags; null: no such filter';
COMMENT ON COLUMN finance.binding.headers IS
'the message must have these headers, with null any value; null: no such filter';
COMMENT ON COLUMN finance.binding.match IS
'all or any of the headers; null without them';

CREATE TABLE finance.queue_default (
	tenant_id				integer NOT NULL,
	dead_letter_queue_id	bigint,
	alternate_queue_id		bigint,
	CONSTRAINT queue_default_pkey PRIMARY KEY (tenant_id)
);
COMMENT ON TABLE finance.queue_default IS
'where messages of a tenant go that no queue takes';
COMMENT ON COLUMN finance.queue_default.dead_letter_queue_id IS
'takes the dead letters of queues that name no dead-letter queue of their own; null: none';
COMMENT ON COLUMN finance.queue_default.alternate_queue_id IS
'takes published messages that match no binding; null: none';

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.binding
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.binding ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.queue_default
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.queue_default ENABLE ALWAYS TRIGGER config_changed;

ALTER TABLE finance.binding ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.binding USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.queue_default ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.queue_default USING (finance._is_tenant_visible(tenant_id));

SELECT pg_catalog.pg_extension_config_dump('finance._binding_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.binding', '');
SELECT pg_catalog.pg_extension_config_dump('finance.queue_default', '');

CREATE FUNCTION finance.bind_topic(pattern text, queue_name text, tags text[] DEFAULT NULL,
		headers jsonb DEFAULT NULL, match text DEFAULT 'all')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_bind_topic';
COMMENT ON FUNCTION finance.bind_topic(text, text, text[], jsonb, text) IS
'copy messages to the queue, from the commit on, whose topic matches the AMQP pattern, which have one of the tags, and all (or any) of the headers';

CREATE FUNCTION finance.unbind_topic(pattern text, queue_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unbind_topic';
COMMENT ON FUNCTION finance.unbind_topic(text, text) IS
'remove the bindings of a pattern to a queue, whatever their filters; false when there is none';

CREATE FUNCTION finance.list_bindings()
	RETURNS TABLE (pattern text, queue_name text, created_at timestamptz,
		tags text[], headers jsonb, match text)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_list_bindings';
COMMENT ON FUNCTION finance.list_bindings() IS
'the bindings of the session''s tenant';

CREATE FUNCTION finance.test_routing(topic text, headers jsonb DEFAULT NULL)
	RETURNS TABLE (pattern text, queue_name text, tags text[], headers jsonb, match text)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_test_routing';
COMMENT ON FUNCTION finance.test_routing(text, jsonb) IS
'the bindings that a message of this topic and headers would match, or the alternate queue, without a pattern, when there is none; sends nothing';

CREATE FUNCTION finance.set_default_queues(dead_letter text DEFAULT NULL, alternate text DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_default_queues';
COMMENT ON FUNCTION finance.set_default_queues(text, text) IS
'the queues that take dead letters of queues without a dead-letter queue, and published messages that match no binding; null: none';

CREATE FUNCTION finance.default_queues()
	RETURNS TABLE (dead_letter text, alternate text)
	LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'finance_default_queues';
COMMENT ON FUNCTION finance.default_queues() IS
'what set_default_queues() has set for the session''s tenant, in one row';

-- ========================================================================
-- WORKER SECTION (dispatch.c, status.c, worker.c)
-- ========================================================================

CREATE FUNCTION finance.worker_status(
	OUT database_id oid, OUT pid integer, OUT state text,
	OUT started_at timestamptz,
	OUT notifications bigint, OUT messages bigint, OUT last_lag_ms float8,
	OUT p50_lag_ms float8, OUT p99_lag_ms float8, OUT max_lag_ms float8,
	OUT last_notified_at timestamptz, OUT last_sweep_at timestamptz,
	OUT unsendable bigint, OUT last_unsendable_at timestamptz,
	OUT last_unsendable text,
	OUT errors bigint, OUT last_error_at timestamptz, OUT last_error text,
	OUT rounds bigint)
	RETURNS SETOF record
	LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_worker_status';
COMMENT ON FUNCTION finance.worker_status() IS
'one row for each finance worker of the server; none unless finance is in shared_preload_libraries';

CREATE VIEW finance.workers AS
	SELECT d.datname AS database, w.pid, w.state, w.started_at,
		w.notifications, w.messages, w.last_lag_ms, w.last_notified_at,
		w.last_sweep_at, w.errors, w.last_error_at, w.last_error,
		w.p50_lag_ms, w.p99_lag_ms, w.max_lag_ms,
		w.unsendable, w.last_unsendable_at, w.last_unsendable,
		pg_catalog.pg_notification_queue_usage() AS notify_queue_usage,
		w.rounds
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
COMMENT ON COLUMN finance.workers.p50_lag_ms IS
'half of the announcements had no longer lag; up to 19 percent too high';
COMMENT ON COLUMN finance.workers.p99_lag_ms IS
'99 of 100 announcements had no longer lag; up to 19 percent too high';
COMMENT ON COLUMN finance.workers.max_lag_ms IS
'the longest lag';
COMMENT ON COLUMN finance.workers.unsendable IS
'notifications that NOTIFY would refuse, for the name of the channel or the length of the payload; counted in errors too';
COMMENT ON COLUMN finance.workers.last_unsendable IS
'the channel of the last of them; of other databases shown only to members of pg_read_all_stats';
COMMENT ON COLUMN finance.workers.notify_queue_usage IS
'how full the server''s queue of notifications is, 0 to 1: at 1 no NOTIFY can commit, since some session listens but does not read';
COMMENT ON COLUMN finance.workers.rounds IS
'how often the worker had something to announce or to look at; messages of queues without subscriptions do not wake it';
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
COMMENT ON FUNCTION finance._ring(bigint, bigint, bigint, timestamptz) IS
'rings the bell of a queue when this transaction commits; for tests';

CREATE FUNCTION finance._worker_wanted() RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_worker_wanted';
COMMENT ON FUNCTION finance._worker_wanted() IS
'tells the launcher, when this transaction commits, that this database has the extension';
SELECT finance._worker_wanted();

-- ========================================================================
-- ACCOUNT CHANGES SECTION (account_change.c, account_lock.c, closing.c)
-- ========================================================================

CREATE FUNCTION finance.set_min_available(code text, min_available numeric,
	reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_min_available';
COMMENT ON FUNCTION finance.set_min_available(text, numeric, text) IS
'sets the floor of what is available (null: none) and leaves max_balance; returns the account''s new version';
CREATE FUNCTION finance.set_max_balance(code text, max_balance numeric,
	reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_max_balance';
COMMENT ON FUNCTION finance.set_max_balance(text, numeric, text) IS
'sets the ceiling of the balance (null: none), what is held for the account counted, and leaves min_available; returns the account''s new version';
CREATE FUNCTION finance.close_account(code text, to_account text DEFAULT NULL,
	reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_close_account';
COMMENT ON FUNCTION finance.close_account(text, text, text) IS
'closes an account for ever, frozen or not, its balance moved to to_account (or from it, where negative) by a transfer of type closing; not while money is held; returns the account''s version';
CREATE FUNCTION finance.set_account_level(code text, level text,
	reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_account_level';
COMMENT ON FUNCTION finance.set_account_level(text, text, text) IS
'sets the level of the account''s customer (null: none), for which rules may have limits of their own; returns the account''s version';
CREATE FUNCTION finance.lock_accounts(codes text[])
	RETURNS TABLE (code text, account_id bigint, status text, currency text,
		balance numeric, held numeric, available numeric, version bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_lock_accounts';
COMMENT ON FUNCTION finance.lock_accounts(text[]) IS
'locks up to 10,000 accounts until the end of the transaction and tells how they stand, in the order of the codes; transfers between them then cannot end in a deadlock';

-- ========================================================================
-- TYPES AND REPORTS SECTION (type.c, account_parent.c, report.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- types.  Those that come with the extension are rows of tenant 0 that every
-- tenant sees; a dump leaves them to the CREATE EXTENSION of the restore.
-- ------------------------------------------------------------------------

CREATE TABLE finance.account_type (
	tenant_id	integer NOT NULL,
	type		text NOT NULL,
	normal_side	text NOT NULL,
	name		text NOT NULL,
	builtin		boolean NOT NULL DEFAULT false,
	CONSTRAINT account_type_pkey PRIMARY KEY (tenant_id, type),
	CONSTRAINT account_type_normal_side CHECK (normal_side IN ('debit', 'credit')),
	CONSTRAINT account_type_builtin CHECK (NOT builtin OR tenant_id = 0)
);
COMMENT ON TABLE finance.account_type IS
'types of accounts; the built-in ones are of every tenant, create_account_type() adds';
COMMENT ON COLUMN finance.account_type.normal_side IS
'side on which reports show such an account''s balance as positive';

INSERT INTO finance.account_type (tenant_id, type, normal_side, name, builtin) VALUES
	(0, 'asset', 'debit', 'what the book''s owner has, or is owed', true),
	(0, 'expense', 'debit', 'what it has spent', true),
	(0, 'liability', 'credit', 'what it owes, such as customers'' money', true),
	(0, 'equity', 'credit', 'what its owners put in', true),
	(0, 'income', 'credit', 'what it has earned', true);

CREATE TABLE finance.transfer_type (
	tenant_id	integer NOT NULL,
	type		text NOT NULL,
	from_types	text[],
	to_types	text[],
	name		text NOT NULL,
	builtin		boolean NOT NULL DEFAULT false,
	CONSTRAINT transfer_type_pkey PRIMARY KEY (tenant_id, type),
	CONSTRAINT transfer_type_from_some CHECK (pg_catalog.cardinality(from_types) > 0),
	CONSTRAINT transfer_type_to_some CHECK (pg_catalog.cardinality(to_types) > 0),
	CONSTRAINT transfer_type_builtin CHECK (NOT builtin OR tenant_id = 0)
);
COMMENT ON TABLE finance.transfer_type IS
'types of transfers and between which types of accounts they go; the built-in ones are of every tenant, create_transfer_type() adds';
COMMENT ON COLUMN finance.transfer_type.from_types IS
'types of accounts it may debit; null: any';
COMMENT ON COLUMN finance.transfer_type.to_types IS
'types of accounts it may credit; null: any';

-- Only what no chart of accounts does otherwise is restricted: earning credits
-- an account of income, and a fee is earned; spending debits one of expense.
-- The others go either way: interest is earned or paid, a loan is given or
-- taken, a deposit comes from cash or from a suspense account.
INSERT INTO finance.transfer_type (tenant_id, type, from_types, to_types, name, builtin) VALUES
	(0, 'transfer', NULL, NULL, 'between any two accounts', true),
	(0, 'payment', NULL, NULL, 'for goods or services', true),
	(0, 'deposit', NULL, NULL, 'money comes into the book', true),
	(0, 'withdrawal', NULL, NULL, 'money leaves the book', true),
	(0, 'purchase', NULL, NULL, 'of a fund, a security, or another currency', true),
	(0, 'redemption', NULL, NULL, 'of what was purchased', true),
	(0, 'income', NULL, '{income}', 'the book''s owner earns', true),
	(0, 'expense', '{expense}', NULL, 'the book''s owner spends', true),
	(0, 'loan', NULL, NULL, 'paid out', true),
	(0, 'repayment', NULL, NULL, 'of a loan', true),
	(0, 'fee', NULL, '{income}', 'earned for a service', true),
	(0, 'interest', NULL, NULL, 'earned or paid', true),
	(0, 'refund', NULL, NULL, 'of a payment or a fee', true),
	(0, 'adjustment', NULL, NULL, 'of a difference found', true),
	(0, 'exchange', NULL, NULL, 'one side of an exchange of currencies', true),
	(0, 'journal', NULL, NULL, 'part of a journal of several legs', true),
	(0, 'reversal', NULL, NULL, 'gives back what another transfer moved', true),
	(0, 'closing', NULL, NULL, 'the rest of an account that is being closed', true),
	(0, 'opening', NULL, NULL, 'balance brought in from another book', true);

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.account_type
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.account_type ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.transfer_type
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.transfer_type ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.transfer_type
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.transfer_type ENABLE ALWAYS TRIGGER config_changed;

CREATE FUNCTION finance.create_account_type(type text, normal_side text,
	name text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_account_type';
COMMENT ON FUNCTION finance.create_account_type(text, text, text) IS
'adds a type of accounts, whose balance reports show as positive on the side debit or credit';
CREATE FUNCTION finance.create_transfer_type(type text,
	from_types text[] DEFAULT NULL, to_types text[] DEFAULT NULL,
	name text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_transfer_type';
COMMENT ON FUNCTION finance.create_transfer_type(text, text[], text[], text) IS
'adds a type of transfers from accounts of from_types to accounts of to_types (null: any)';

-- ------------------------------------------------------------------------
-- parents and reports
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.set_account_parent(code text, parent text,
	reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_account_parent';
COMMENT ON FUNCTION finance.set_account_parent(text, text, text) IS
'puts the account, and all below it, under another one in roll-ups (null: under none), at most 32 levels deep; returns the account''s version';
CREATE FUNCTION finance.rollup(code text)
	RETURNS TABLE (currency text, accounts bigint, balance numeric, held numeric,
		available numeric)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rollup';
COMMENT ON FUNCTION finance.rollup(text) IS
'the account and all below it, summed up for each currency among them';
CREATE FUNCTION finance.trial_balance(at timestamptz DEFAULT NULL)
	RETURNS TABLE (currency text, type text, normal_side text, code text,
		debit numeric, credit numeric)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_trial_balance';
COMMENT ON FUNCTION finance.trial_balance(timestamptz) IS
'each account with a balance, in debit or in credit, now or as recorded at a moment; in each currency both columns sum up to the same';
CREATE FUNCTION finance.balance_sheet(at timestamptz DEFAULT NULL)
	RETURNS TABLE (currency text, type text, normal_side text, balance numeric)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_balance_sheet';
COMMENT ON FUNCTION finance.balance_sheet(timestamptz) IS
'the trial balance summed up by type of account, positive on the type''s normal side';

-- ========================================================================
-- EXPIRY SECTION (expire.c)
-- ========================================================================

CREATE FUNCTION finance.expire_holds("limit" integer DEFAULT 1000) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_expire_holds';
COMMENT ON FUNCTION finance.expire_holds(integer) IS
'gives back open holds of the tenant whose time is over, at most limit (1 to 10000), and says how many; skips those an account of which another transaction has locked; the worker does it by itself';

-- ========================================================================
-- HISTORY SECTION (history.c, store_value.c, batch_import.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- value dates: what completed transfers with a stated effective_at do to each
-- of their accounts, and the sum of it for each day.  A transfer without one
-- has no rows here.
-- ------------------------------------------------------------------------

CREATE TABLE finance.value_transfer (
	account_id		bigint NOT NULL,
	transfer_id		bigint NOT NULL,
	effective_at	timestamptz NOT NULL,
	tenant_id		integer NOT NULL,
	change			numeric NOT NULL,
	total			numeric NOT NULL,
	CONSTRAINT value_transfer_pkey PRIMARY KEY (tenant_id, account_id, transfer_id)
);
CREATE INDEX value_transfer_effective_at
	ON finance.value_transfer (tenant_id, account_id, effective_at);
COMMENT ON TABLE finance.value_transfer IS
'what each completed transfer with a stated effective_at changed of the balance of each of its accounts';
COMMENT ON COLUMN finance.value_transfer.total IS
'sum of change over these transfers of the account up to this one';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.value_transfer
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.value_transfer ENABLE ALWAYS TRIGGER guard;

CREATE TABLE finance.value_day (
	account_id		bigint NOT NULL,
	tenant_id		integer NOT NULL,
	day				date NOT NULL,
	change			numeric NOT NULL,
	CONSTRAINT value_day_pkey PRIMARY KEY (tenant_id, account_id, day)
) WITH (fillfactor = 50);
COMMENT ON TABLE finance.value_day IS
'sum of finance.value_transfer for each account and day';
COMMENT ON COLUMN finance.value_day.day IS 'UTC day of effective_at';

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance.value_day
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.value_day ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance.balance_at(code text, at timestamptz,
	by text DEFAULT 'recorded') RETURNS numeric
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'finance_balance_at';
COMMENT ON FUNCTION finance.balance_at(text, timestamptz, text) IS
'the balance with all that was recorded (by recorded) or has its value date (by effective) before a moment';

CREATE FUNCTION finance.statement(code text, "from" timestamptz DEFAULT NULL,
	"to" timestamptz DEFAULT NULL, after bigint DEFAULT NULL,
	"limit" integer DEFAULT 100)
	RETURNS TABLE (line text, transfer_id bigint, version bigint,
		recorded_at timestamptz, effective_at timestamptz, type text,
		status text, side text, amount numeric, change numeric,
		balance numeric, held numeric, counterparty text, reference text,
		metadata jsonb)
	LANGUAGE c STABLE ROWS 100 AS 'MODULE_PATHNAME', 'finance_statement';
COMMENT ON FUNCTION finance.statement(text, timestamptz, timestamptz, bigint, integer) IS
'what was recorded on an account from a time on, to before another, oldest first, between an opening and a closing line; after: the last transfer_id of the page before';

CREATE FUNCTION finance.import_transfers(requests finance.transfer_request[])
	RETURNS SETOF finance.batch_result
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_import_transfers';
COMMENT ON FUNCTION finance.import_transfers(finance.transfer_request[]) IS
'posts up to 10,000 transfers of the past, in the order of their recorded_at, all or none, before normal traffic starts on their accounts';

-- ========================================================================
-- JOURNAL SECTION (journal.c, exchange.c, split.c, distribute.c, reversal.c,
-- group.c)
-- ========================================================================

CREATE TYPE finance.journal_leg AS (
	account			text,
	side			text,
	amount			numeric,
	expected_version bigint
);
COMMENT ON TYPE finance.journal_leg IS
'one debit (takes from the account) or credit (gives to it) of a journal; expected_version: the account''s version before the journal, or null';

CREATE FUNCTION finance.leg(account text, side text, amount numeric,
	expected_version bigint DEFAULT NULL) RETURNS finance.journal_leg
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT ROW($1, $2, $3, $4)::finance.journal_leg';
COMMENT ON FUNCTION finance.leg(text, text, numeric, bigint) IS
'one leg of a journal: account, side debit or credit, amount';

CREATE FUNCTION finance.journal(legs finance.journal_leg[],
	idempotency_key text DEFAULT NULL, type text DEFAULT 'journal',
	effective_at timestamptz DEFAULT NULL, reference text DEFAULT NULL,
	metadata jsonb DEFAULT NULL, strict boolean DEFAULT false,
	context jsonb DEFAULT NULL)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finance_journal';
COMMENT ON FUNCTION finance.journal(finance.journal_leg[], text, text, timestamptz, text, jsonb, boolean, jsonb) IS
'posts 2 to 1,000 debits and credits, equal in each currency, as one; returns the transfers they become, or the one that risk rejected';

CREATE FUNCTION finance.split_amount(amount numeric, weights numeric[],
	decimals integer) RETURNS numeric[]
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_split_amount';
COMMENT ON FUNCTION finance.split_amount(numeric, numeric[], integer) IS
'divides an amount by weights into parts of so many decimals that add up to it: largest remainder, of equal ones the earlier';

CREATE FUNCTION finance.distribute(from_account text, to_accounts text[],
	weights numeric[], amount numeric, idempotency_key text DEFAULT NULL,
	type text DEFAULT 'transfer', effective_at timestamptz DEFAULT NULL,
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL,
	strict boolean DEFAULT false)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finance_distribute';
COMMENT ON FUNCTION finance.distribute(text, text[], numeric[], numeric, text, text, timestamptz, text, jsonb, boolean) IS
'moves exactly an amount from one account to up to 1,000 others by weights, as a journal; see split_amount()';

-- ------------------------------------------------------------------------
-- exchange: amount * rate is exact; it is the bought amount and a difference,
-- and no fraction of that is lost where there is a rounding account
-- ------------------------------------------------------------------------

CREATE TABLE finance.exchange (
	tenant_id		integer NOT NULL,
	journal_id		bigint NOT NULL,
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	liquidity_from_id bigint NOT NULL,
	liquidity_to_id	bigint NOT NULL,
	rounding_account_id bigint,
	amount			finance.amount NOT NULL,
	rate			numeric NOT NULL,
	exact			numeric NOT NULL,
	bought			finance.amount NOT NULL,
	difference		numeric NOT NULL,
	carried			numeric,
	rounding		text NOT NULL,
	CONSTRAINT exchange_pkey PRIMARY KEY (tenant_id, journal_id),
	CONSTRAINT exchange_rounding CHECK (rounding IN ('half_even', 'half_up', 'down', 'up')),
	CONSTRAINT exchange_rate CHECK (rate > 0 AND rate < 'Infinity'),
	CONSTRAINT exchange_exact CHECK (exact = amount * rate),
	CONSTRAINT exchange_difference CHECK (difference = exact - bought),
	CONSTRAINT exchange_carried CHECK ((carried IS NULL) = (rounding_account_id IS NULL))
);
CREATE INDEX exchange_rounding_account
	ON finance.exchange (tenant_id, rounding_account_id)
	WHERE rounding_account_id IS NOT NULL;
COMMENT ON TABLE finance.exchange IS
'exchanges: the rate, what was bought, and the difference that rounding made; its journal has the transfers';
COMMENT ON COLUMN finance.exchange.rate IS
'units of the bought currency for one of the sold';
COMMENT ON COLUMN finance.exchange.exact IS 'amount * rate, not rounded';
COMMENT ON COLUMN finance.exchange.bought IS
'exact, rounded to the decimals of the bought currency';
COMMENT ON COLUMN finance.exchange.difference IS
'exact - bought: what liquidity_to kept by rounding, or if negative gave';
COMMENT ON COLUMN finance.exchange.rounding_account_id IS
'gets the differences; null: they stay with liquidity_to';
COMMENT ON COLUMN finance.exchange.carried IS
'moved from liquidity_to to the rounding account in this journal, or if negative back: whole units of differences summed up so far';

CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.exchange
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.exchange ENABLE ALWAYS TRIGGER guard;

CREATE TABLE finance.exchange_residue (
	tenant_id		integer NOT NULL,
	account_id		bigint NOT NULL,
	residue			numeric NOT NULL,
	CONSTRAINT exchange_residue_pkey PRIMARY KEY (tenant_id, account_id),
	CONSTRAINT exchange_residue_small CHECK (residue > -1 AND residue < 1)
) WITH (fillfactor = 80);
COMMENT ON TABLE finance.exchange_residue IS
'differences of exchanges with a rounding account that are not moved there yet: less than its currency''s smallest unit';

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance.exchange_residue
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.exchange_residue ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance.exchange(from_account text, to_account text,
	amount numeric, rate numeric, liquidity_from text, liquidity_to text,
	rounding text DEFAULT 'half_even', rounding_account text DEFAULT NULL,
	idempotency_key text DEFAULT NULL, effective_at timestamptz DEFAULT NULL,
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL,
	strict boolean DEFAULT false,
	context jsonb DEFAULT NULL)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finance_exchange';
COMMENT ON FUNCTION finance.exchange(text, text, numeric, numeric, text, text, text, text, text, timestamptz, text, jsonb, boolean, jsonb) IS
'sells an amount for amount * rate of another currency, rounded half_even, half_up, down or up, through two liquidity accounts; rounding_account gets the differences, exactly, as they make whole units';

-- ------------------------------------------------------------------------
-- reversals, groups of holds
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.reverse_transfer(id bigint, amount numeric DEFAULT NULL,
	reason text DEFAULT NULL, idempotency_key text DEFAULT NULL,
	context jsonb DEFAULT NULL)
	RETURNS finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_reverse_transfer';
COMMENT ON FUNCTION finance.reverse_transfer(bigint, numeric, text, text, jsonb) IS
'gives back what a completed transfer moved, all that is left or a part, never more in sum';
CREATE FUNCTION finance.reverse_journal(journal_id bigint,
	reason text DEFAULT NULL, idempotency_key text DEFAULT NULL)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_reverse_journal';
COMMENT ON FUNCTION finance.reverse_journal(bigint, text, text) IS
'gives back all that a journal moved, as a journal of its own';
CREATE FUNCTION finance.reversals(id bigint)
	RETURNS TABLE (reversal_id bigint, amount numeric, recorded_at timestamptz)
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_reversals';
COMMENT ON FUNCTION finance.reversals(bigint) IS
'the transfers that gave back what this one moved, and how much each';

CREATE FUNCTION finance.capture_group(hold_group text,
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_capture_group';
COMMENT ON FUNCTION finance.capture_group(text, text, jsonb) IS
'captures what remains of all open holds of a group, or of none';
CREATE FUNCTION finance.release_group(hold_group text,
	reference text DEFAULT NULL, metadata jsonb DEFAULT NULL)
	RETURNS SETOF finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_release_group';
COMMENT ON FUNCTION finance.release_group(text, text, jsonb) IS
'gives back what remains of all open holds of a group; those whose time is over expire';

-- ========================================================================
-- DEDUP SECTION (dedup.c, seen.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- _dedup: dedup ids of messages sent.  Three tables that periods of time fill
-- in turn; the worker truncates the one whose ids are all out of their window.
-- They are written by C alone, in this order of columns and without CHECKs,
-- which would cost more than the row, and never vacuumed but against
-- wraparound: seen.c says why.  An id is in the key once for each time it was
-- taken, which C lets happen only after its window.
-- ------------------------------------------------------------------------

CREATE TABLE finance._dedup (
	seen_at		timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	slot		smallint NOT NULL,
	queue_id	bigint NOT NULL,
	dedup_id	text COLLATE "C" NOT NULL,
	msg_id		bigint NOT NULL,
	CONSTRAINT _dedup_pkey PRIMARY KEY (tenant_id, queue_id, dedup_id, seen_at, slot)
) PARTITION BY LIST (slot);
COMMENT ON TABLE finance._dedup IS
'dedup ids of messages sent lately; a message with one of them is dropped';
COMMENT ON COLUMN finance._dedup.msg_id IS 'the message that was sent with it';
COMMENT ON COLUMN finance._dedup.slot IS
'number of the period of six hours in which it was sent, modulo 3';
CREATE TABLE finance._dedup_0 PARTITION OF finance._dedup FOR VALUES IN (0)
	WITH (autovacuum_enabled = false);
CREATE TABLE finance._dedup_1 PARTITION OF finance._dedup FOR VALUES IN (1)
	WITH (autovacuum_enabled = false);
CREATE TABLE finance._dedup_2 PARTITION OF finance._dedup FOR VALUES IN (2)
	WITH (autovacuum_enabled = false);

CREATE FUNCTION finance._truncate_expired() RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_truncate_expired';
COMMENT ON FUNCTION finance._truncate_expired() IS
'what the worker does: truncate tables of dedup ids and of the inbox whose ids are all out of their window; returns how many';

-- ========================================================================
-- INBOX SECTION (inbox.c, seen.c)
-- ========================================================================

-- made and kept as finance._dedup
CREATE TABLE finance.inbox (
	seen_at		timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	slot		smallint NOT NULL,
	consumer	text COLLATE "C" NOT NULL,
	message_id	text COLLATE "C" NOT NULL,
	CONSTRAINT inbox_pkey PRIMARY KEY (tenant_id, consumer, message_id, seen_at, slot)
) PARTITION BY LIST (slot);
COMMENT ON TABLE finance.inbox IS
'messages that consumers have processed, noted by process_once()';
COMMENT ON COLUMN finance.inbox.slot IS
'number of the period of finance.inbox_retention days in which it was processed, modulo 3';
COMMENT ON COLUMN finance.inbox.seen_at IS 'when it was processed';
CREATE TABLE finance.inbox_0 PARTITION OF finance.inbox FOR VALUES IN (0)
	WITH (autovacuum_enabled = false);
CREATE TABLE finance.inbox_1 PARTITION OF finance.inbox FOR VALUES IN (1)
	WITH (autovacuum_enabled = false);
CREATE TABLE finance.inbox_2 PARTITION OF finance.inbox FOR VALUES IN (2)
	WITH (autovacuum_enabled = false);
COMMENT ON TABLE finance.inbox_0 IS 'finance.inbox, a third of it in turn';
COMMENT ON TABLE finance.inbox_1 IS 'finance.inbox, a third of it in turn';
COMMENT ON TABLE finance.inbox_2 IS 'finance.inbox, a third of it in turn';

CREATE FUNCTION finance.process_once(consumer text, message_id bigint) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_process_once';
COMMENT ON FUNCTION finance.process_once(text, bigint) IS
'true the first time: do the message''s work in this transaction; false when the consumer has processed it';
CREATE FUNCTION finance.process_once(consumer text, message_id text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_process_once_text';
COMMENT ON FUNCTION finance.process_once(text, text) IS
'process_once() for message ids of any origin';
CREATE FUNCTION finance.process_once_batch(consumer text, message_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_process_once_batch';
COMMENT ON FUNCTION finance.process_once_batch(text, bigint[]) IS
'process_once() for up to 10,000 messages; returns the ids that are new, ascending';

-- ========================================================================
-- HALF MESSAGE SECTION (half.c, half_group.c, half_check.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- A half message is a committed row that nobody is delivered until its
-- producer's answer.  Answers and checks are rows of their own, so that nothing
-- is ever updated; the worker deletes what is answered, never more at a time
-- than FIN_HALF_DEAD_MAX rows that some old snapshot keeps from being vacuumed.
-- No foreign keys, as of the queues; check_integrity() looks.
-- ------------------------------------------------------------------------

CREATE TABLE finance.producer_group (
	tenant_id	integer NOT NULL,
	name		text NOT NULL,
	check_topic	text NOT NULL,
	check_after	interval NOT NULL,
	check_interval interval NOT NULL,
	check_interval_max interval NOT NULL,
	max_checks	integer NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT producer_group_pkey PRIMARY KEY (tenant_id, name),
	CONSTRAINT producer_group_name_form CHECK (name ~ '^[A-Za-z0-9_.-]{1,63}$'),
	CONSTRAINT producer_group_topic_length CHECK (pg_catalog.octet_length(check_topic) BETWEEN 1 AND 255),
	CONSTRAINT producer_group_spans CHECK (check_after > '0' AND check_interval > '0'
		AND check_interval_max >= check_interval),
	CONSTRAINT producer_group_max_checks CHECK (max_checks BETWEEN 1 AND 1000)
);
COMMENT ON TABLE finance.producer_group IS
'producers of half messages, and how they are asked about those they left unanswered';
COMMENT ON COLUMN finance.producer_group.check_topic IS
'the producers'' queue is bound to it: asked here what became of a half message';
COMMENT ON COLUMN finance.producer_group.check_after IS 'from preparing to the first check';
COMMENT ON COLUMN finance.producer_group.check_interval IS
'from the first check to the second; doubles from check to check';
COMMENT ON COLUMN finance.producer_group.check_interval_max IS 'but never longer than this';
COMMENT ON COLUMN finance.producer_group.max_checks IS 'unanswered checks until it is parked';

CREATE TABLE finance.half_message (
	tenant_id	integer NOT NULL,
	delay_s		integer NOT NULL,
	half_id		bigint NOT NULL,
	prepared_at	timestamptz NOT NULL,
	check_at	timestamptz NOT NULL,
	ttl_s		integer,
	priority	smallint NOT NULL,
	producer_group text NOT NULL,
	topic		text NOT NULL,
	ordering_key text,
	dedup_id	text,
	prepared_by	text NOT NULL,
	trace_id	uuid NOT NULL,
	headers		jsonb,
	payload		jsonb NOT NULL,
	CONSTRAINT half_message_pkey PRIMARY KEY (tenant_id, half_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX half_message_check_at ON finance.half_message (check_at, half_id);
COMMENT ON TABLE finance.half_message IS
'prepared messages, open unless finance.half_answer has them; answered ones are deleted by the worker';
COMMENT ON COLUMN finance.half_message.delay_s IS 'seconds from the commit to delivery';
COMMENT ON COLUMN finance.half_message.check_at IS 'first check; later ones are in finance.half_check';

CREATE TABLE finance.half_check (
	tenant_id	integer NOT NULL,
	attempt		integer NOT NULL,
	half_id		bigint NOT NULL,
	checked_at	timestamptz NOT NULL,
	next_at		timestamptz,
	checks		integer NOT NULL,
	misses		integer NOT NULL,
	copies		integer NOT NULL,
	parked_reason text,
	error		text,
	CONSTRAINT half_check_pkey PRIMARY KEY (tenant_id, half_id, attempt),
	CONSTRAINT half_check_reason CHECK (parked_reason IN ('unanswered', 'no_listener', 'check_failed', 'no_group')),
	CONSTRAINT half_check_parked CHECK ((next_at IS NULL) = (parked_reason IS NOT NULL))
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX half_check_next_at ON finance.half_check (next_at, half_id)
	WHERE next_at IS NOT NULL;
CREATE INDEX half_check_parked_ids ON finance.half_check (tenant_id, half_id)
	WHERE parked_reason IS NOT NULL;
COMMENT ON TABLE finance.half_check IS
'what was done about a half message left open; the row of the highest attempt counts';
COMMENT ON COLUMN finance.half_check.next_at IS 'when it is looked at again; null: parked';
COMMENT ON COLUMN finance.half_check.checks IS 'check messages that reached a queue, so far';
COMMENT ON COLUMN finance.half_check.misses IS
'attempts that reached none, so far: nobody is bound to the check topic, or an error';
COMMENT ON COLUMN finance.half_check.copies IS 'queues that this one reached';
COMMENT ON COLUMN finance.half_check.error IS 'why the check message could not be published';

CREATE TABLE finance.half_answer (
	tenant_id	integer NOT NULL,
	copies		integer NOT NULL,
	half_id		bigint NOT NULL,
	message_id	bigint,
	prepared_at	timestamptz NOT NULL,
	answered_at	timestamptz NOT NULL,
	checks		integer NOT NULL,
	status		text NOT NULL,
	producer_group text NOT NULL,
	topic		text NOT NULL,
	prepared_by	text NOT NULL,
	answered_by	text NOT NULL,
	trace_id	uuid NOT NULL,
	CONSTRAINT half_answer_pkey PRIMARY KEY (tenant_id, half_id),
	CONSTRAINT half_answer_status CHECK (status IN ('committed', 'rolled_back')),
	CONSTRAINT half_answer_message CHECK ((message_id IS NULL) = (status = 'rolled_back'))
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX half_answer_answered_at ON finance.half_answer (answered_at);
COMMENT ON TABLE finance.half_answer IS
'half messages that were committed or rolled back, for finance.half_retention';
COMMENT ON COLUMN finance.half_answer.copies IS 'queues the message went to';
COMMENT ON COLUMN finance.half_answer.trace_id IS 'of the answer';

CREATE TRIGGER unchanged BEFORE UPDATE OR TRUNCATE ON finance.half_message
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.half_message ENABLE ALWAYS TRIGGER unchanged;
CREATE TRIGGER unchanged BEFORE UPDATE OR TRUNCATE ON finance.half_check
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.half_check ENABLE ALWAYS TRIGGER unchanged;
CREATE TRIGGER unchanged BEFORE UPDATE OR TRUNCATE ON finance.half_answer
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.half_answer ENABLE ALWAYS TRIGGER unchanged;

CREATE VIEW finance.parked_half_message WITH (security_invoker = true) AS
	SELECT h.tenant_id, h.half_id, h.producer_group, h.topic, c.parked_reason AS reason,
		c.checked_at AS parked_at, c.checks, c.error, h.prepared_at, h.prepared_by,
		h.trace_id, h.headers, h.payload
	FROM finance.half_check c
		JOIN finance.half_message h ON h.tenant_id OPERATOR(pg_catalog.=) c.tenant_id
			AND h.half_id OPERATOR(pg_catalog.=) c.half_id
	WHERE c.parked_reason IS NOT NULL
		AND NOT EXISTS (SELECT FROM finance.half_check l
			WHERE l.tenant_id OPERATOR(pg_catalog.=) c.tenant_id
				AND l.half_id OPERATOR(pg_catalog.=) c.half_id
				AND l.attempt OPERATOR(pg_catalog.>) c.attempt)
		AND NOT EXISTS (SELECT FROM finance.half_answer a
			WHERE a.tenant_id OPERATOR(pg_catalog.=) c.tenant_id
				AND a.half_id OPERATOR(pg_catalog.=) c.half_id);
COMMENT ON VIEW finance.parked_half_message IS
'half messages whose producers did not answer: commit_message(), rollback_message() or recheck_half_message() them';
COMMENT ON COLUMN finance.parked_half_message.reason IS
'unanswered: max_checks checks were delivered; no_listener: nobody was bound to the check topic; check_failed: see error; no_group: the producer group is gone';

CREATE FUNCTION finance.create_producer_group(name text, check_topic text,
		check_after interval DEFAULT '60 seconds', check_interval interval DEFAULT '60 seconds',
		check_interval_max interval DEFAULT NULL, max_checks integer DEFAULT 15)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_producer_group';
COMMENT ON FUNCTION finance.create_producer_group(text, text, interval, interval, interval, integer) IS
'declare who prepares half messages, and where and when they are asked about unanswered ones; check_interval_max null: an hour, or check_interval if that is longer';

CREATE FUNCTION finance.alter_producer_group(name text, check_topic text DEFAULT NULL,
		check_after interval DEFAULT NULL, check_interval interval DEFAULT NULL,
		check_interval_max interval DEFAULT NULL, max_checks integer DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_alter_producer_group';
COMMENT ON FUNCTION finance.alter_producer_group(text, text, interval, interval, interval, integer) IS
'change what is not null; checks that are already planned keep their time';

CREATE FUNCTION finance.drop_producer_group(name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_producer_group';
COMMENT ON FUNCTION finance.drop_producer_group(text) IS
'drop a producer group that has no open half messages; false when there is none of this name';

CREATE FUNCTION finance.prepare_message(producer_group text, topic text, payload jsonb,
		headers jsonb DEFAULT NULL, priority integer DEFAULT 0, delay integer DEFAULT 0,
		ttl integer DEFAULT NULL, ordering_key text DEFAULT NULL, dedup_id text DEFAULT NULL,
		check_after interval DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_prepare_message';
COMMENT ON FUNCTION finance.prepare_message(text, text, jsonb, jsonb, integer, integer, integer, text, text, interval) IS
'keep a message back until commit_message() or rollback_message(); returns its half_id';

CREATE FUNCTION finance.prepare_messages(producer_group text, topic text, payloads jsonb[],
		headers jsonb[] DEFAULT NULL, priority integer DEFAULT 0, delay integer DEFAULT 0,
		ttl integer DEFAULT NULL, ordering_keys text[] DEFAULT NULL, dedup_ids text[] DEFAULT NULL,
		check_after interval DEFAULT NULL)
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_prepare_messages';
COMMENT ON FUNCTION finance.prepare_messages(text, text, jsonb[], jsonb[], integer, integer, integer, text[], text[], interval) IS
'prepare_message() for up to 10,000 messages; returns their half_ids in the order of payloads';

CREATE FUNCTION finance.commit_message(half_id bigint)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_commit_message';
COMMENT ON FUNCTION finance.commit_message(bigint) IS
'publish a half message, with the commit of this transaction; returns the message_id, the same when asked again';

CREATE FUNCTION finance.commit_message(half_ids bigint[])
	RETURNS SETOF bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_commit_messages';
COMMENT ON FUNCTION finance.commit_message(bigint[]) IS
'publish up to 10,000 half messages, or none; returns their message_ids in the order of half_ids';

CREATE FUNCTION finance.rollback_message(half_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rollback_message';
COMMENT ON FUNCTION finance.rollback_message(bigint) IS
'give a half message up: it is never delivered; false when it was rolled back before';

CREATE FUNCTION finance.rollback_message(half_ids bigint[])
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rollback_messages';
COMMENT ON FUNCTION finance.rollback_message(bigint[]) IS
'give up to 10,000 half messages up, or none; returns how many were not rolled back before';

CREATE FUNCTION finance.half_message_status(half_id bigint)
	RETURNS TABLE (half_id bigint, status text, producer_group text, topic text,
		prepared_at timestamptz, prepared_by text, checks integer, next_check_at timestamptz,
		parked_at timestamptz, parked_reason text, answered_at timestamptz, answered_by text,
		message_id bigint, copies integer)
	LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'finance_half_message_status';
COMMENT ON FUNCTION finance.half_message_status(bigint) IS
'what has become of a half message: open, parked, committed or rolled_back; no row when there is none';

CREATE FUNCTION finance.recheck_half_message(half_id bigint)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_recheck_half_message';
COMMENT ON FUNCTION finance.recheck_half_message(bigint) IS
'check a half message back now, counting checks from zero again, also if it is parked; false when it is answered';

CREATE FUNCTION finance.check_half_messages("limit" integer DEFAULT 1000)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_check_half_messages';
COMMENT ON FUNCTION finance.check_half_messages(integer) IS
'checks back or parks half messages of the tenant that are due, at most limit (1 to 10000), and says how many; skips those that are just being answered; the worker does it by itself';

-- ========================================================================
-- ARCHIVE SECTION (archive.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- message_archive: monthly partitions by archive_id, made and indexed by
-- partition.c; finance.archive_retention drops them again.  The order of
-- columns is archive.c's.
-- ------------------------------------------------------------------------

CREATE TABLE finance.message_archive (
	archive_id	bigint NOT NULL,
	msg_id		bigint NOT NULL,
	message_id	bigint NOT NULL,
	queue_id	bigint NOT NULL,
	enqueued_at	timestamptz NOT NULL,
	archived_at	timestamptz NOT NULL,
	expires_at	timestamptz,
	tenant_id	integer NOT NULL,
	read_ct		integer NOT NULL,
	priority	smallint NOT NULL,
	topic		text,
	ordering_key text,
	headers		jsonb,
	payload		jsonb NOT NULL
) PARTITION BY RANGE (archive_id);
COMMENT ON TABLE finance.message_archive IS
'messages that archive() acknowledged, and dead letters that have no queue, in partitions by month; also those of queues that were dropped since';
COMMENT ON COLUMN finance.message_archive.archive_id IS
'id drawn when it was archived: in that order';
COMMENT ON COLUMN finance.message_archive.expires_at IS
'until when it would have been delivered; null: for ever';

CREATE FUNCTION finance.purge_archive(queue_name text) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_purge_archive';
COMMENT ON FUNCTION finance.purge_archive(text) IS
'delete all archived messages of a queue; returns how many';

-- ========================================================================
-- DISPATCH SECTION (queue_poll.c, wait.c, tally.c)
-- ========================================================================

CREATE FUNCTION finance.read_with_poll(queue_name text, vt integer, qty integer DEFAULT 1,
		max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100)
	RETURNS SETOF finance.message_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_read_with_poll';
COMMENT ON FUNCTION finance.read_with_poll(text, integer, integer, integer, integer) IS
'read(), but waits up to max_poll_seconds until there is something to read; SELECT ... FROM finance.read_with_poll(...) holds no snapshot meanwhile';

CREATE PROCEDURE finance.wait_for_message(queue_name text,
		max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'finance_wait_for_message';
COMMENT ON PROCEDURE finance.wait_for_message(text, integer, integer) IS
'for procedures and DO blocks: waits without a snapshot until there seems to be something to read(), at most max_poll_seconds';

CREATE FUNCTION finance.subscriptions()
	RETURNS TABLE (channel text, queue_name text, created_at timestamptz,
		notifications bigint, messages bigint, last_notified_at timestamptz,
		refused bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_subscriptions';
COMMENT ON FUNCTION finance.subscriptions() IS
'the subscriptions of the session''s tenant, with what the worker sent on each channel since it started; refused: what NOTIFY would not take';

-- ========================================================================
-- LOG QUEUE SECTION (queue_log.c, queue_log_*.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- log_queue: what a log has besides its row in queue.  removed_...: up to where
-- retention emptied segments.
-- ------------------------------------------------------------------------

CREATE TABLE finance.log_queue (
	tenant_id		integer NOT NULL,
	queue_id		bigint NOT NULL,
	retention_s		bigint NOT NULL,
	removed_mark	bigint NOT NULL DEFAULT 0,
	removed_msg_id	bigint NOT NULL DEFAULT 0,
	CONSTRAINT log_queue_pkey PRIMARY KEY (tenant_id, queue_id),
	CONSTRAINT log_queue_id_key UNIQUE (queue_id),
	CONSTRAINT log_queue_retention CHECK (retention_s BETWEEN 60 AND 316224000)
);
COMMENT ON TABLE finance.log_queue IS
'queues of the kind log; the messages of each lie in finance.message_log_<queue_id>';
COMMENT ON COLUMN finance.log_queue.retention_s IS
'seconds that a message stays, at least';
COMMENT ON COLUMN finance.log_queue.removed_mark IS
'mark of the last message, in the order of reading, that retention removed';
COMMENT ON COLUMN finance.log_queue.removed_msg_id IS
'id of that message';

-- noting what was removed changes nothing that sessions keep
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OF tenant_id, queue_id, retention_s OR DELETE OR TRUNCATE
	ON finance.log_queue
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.log_queue ENABLE ALWAYS TRIGGER config_changed;

-- ------------------------------------------------------------------------
-- message_log: for each log a partition, which is partitioned into eight
-- segments by time, each with the primary key (mark, msg_id): the order of
-- reading.  Rows are inserted and never changed; segments are truncated.
-- ------------------------------------------------------------------------

CREATE TABLE finance.message_log (
	mark		bigint NOT NULL,
	msg_id		bigint NOT NULL,
	message_id	bigint NOT NULL,
	queue_id	bigint NOT NULL,
	enqueued_at	timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	segment		smallint NOT NULL,
	priority	smallint NOT NULL DEFAULT 0,
	topic		text,
	ordering_key	text,
	headers		jsonb,
	payload		jsonb NOT NULL
) PARTITION BY LIST (queue_id);
COMMENT ON TABLE finance.message_log IS
'messages of log queues, one partition per log and below it one per segment of time';
COMMENT ON COLUMN finance.message_log.mark IS
'incarnation of the cluster << 48 | the next transaction id when the message was appended';
COMMENT ON COLUMN finance.message_log.msg_id IS
'this copy of the message; messages are read in the order of (mark, msg_id)';
COMMENT ON COLUMN finance.message_log.message_id IS
'the message: the same in all copies of one publish()';
COMMENT ON COLUMN finance.message_log.segment IS
'slice of time, modulo 8';

-- ------------------------------------------------------------------------
-- log_incarnation: how often logs came into a cluster whose transaction ids
-- begin anew.  Rows are added by who appends first.
-- ------------------------------------------------------------------------

CREATE TABLE finance.log_incarnation (
	incarnation			integer NOT NULL,
	system_identifier	bigint NOT NULL,
	since				timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT log_incarnation_pkey PRIMARY KEY (incarnation),
	CONSTRAINT log_incarnation_positive CHECK (incarnation > 0)
);
COMMENT ON TABLE finance.log_incarnation IS
'clusters that the logs of this database were written in, one after another: by dump and restore transaction ids begin anew';

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.log_incarnation
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.log_incarnation ENABLE ALWAYS TRIGGER config_changed;

-- ------------------------------------------------------------------------
-- consumer_group: who reads a log.  group_position: where each is; of a group's
-- rows the one with the highest seq counts.  Rows are inserted only, and their
-- segments truncated in turn, so that none are ever dead.
-- ------------------------------------------------------------------------

CREATE SEQUENCE finance._consumer_group_id_seq;
COMMENT ON SEQUENCE finance._consumer_group_id_seq IS
'numbers of consumer groups';

CREATE TABLE finance.consumer_group (
	tenant_id	integer NOT NULL,
	group_id	bigint NOT NULL DEFAULT pg_catalog.nextval('finance._consumer_group_id_seq'),
	queue_id	bigint NOT NULL,
	name		text NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT consumer_group_pkey PRIMARY KEY (tenant_id, group_id),
	CONSTRAINT consumer_group_name_key UNIQUE (tenant_id, queue_id, name),
	CONSTRAINT consumer_group_name_form CHECK (name ~ '^[A-Za-z0-9_.-]{1,47}$')
);
ALTER SEQUENCE finance._consumer_group_id_seq OWNED BY finance.consumer_group.group_id;
COMMENT ON TABLE finance.consumer_group IS
'who reads a log queue, each at a position of its own';

CREATE TABLE finance.group_position (
	seq			bigint NOT NULL,
	mark		bigint NOT NULL,
	msg_id		bigint NOT NULL,
	group_id	bigint NOT NULL,
	moved_at	timestamptz NOT NULL,
	tenant_id	integer NOT NULL,
	segment		smallint NOT NULL,
	CONSTRAINT group_position_pkey PRIMARY KEY (tenant_id, group_id, seq, segment)
) PARTITION BY LIST (segment);
CREATE TABLE finance.group_position_0 PARTITION OF finance.group_position FOR VALUES IN (0);
CREATE TABLE finance.group_position_1 PARTITION OF finance.group_position FOR VALUES IN (1);
CREATE TABLE finance.group_position_2 PARTITION OF finance.group_position FOR VALUES IN (2);
COMMENT ON TABLE finance.group_position IS
'positions of consumer groups: the row with the highest seq of a group counts';
COMMENT ON COLUMN finance.group_position.mark IS
'the group has read up to the message of this mark and msg_id';
COMMENT ON TABLE finance.group_position_0 IS 'positions of consumer groups, first segment';
COMMENT ON TABLE finance.group_position_1 IS 'positions of consumer groups, second segment';
COMMENT ON TABLE finance.group_position_2 IS 'positions of consumer groups, third segment';

ALTER TABLE finance.log_queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.log_queue USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.message_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.message_log USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.consumer_group ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.consumer_group USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.group_position ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.group_position USING (finance._is_tenant_visible(tenant_id));
-- without a policy of their own: rows are seen through the parent only
ALTER TABLE finance.group_position_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance.group_position_1 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance.group_position_2 ENABLE ROW LEVEL SECURITY;

-- the partitions of message_log are no members: pg_dump writes them itself
SELECT pg_catalog.pg_extension_config_dump('finance.log_queue', '');
SELECT pg_catalog.pg_extension_config_dump('finance.log_incarnation', '');
SELECT pg_catalog.pg_extension_config_dump('finance._consumer_group_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.consumer_group', '');
SELECT pg_catalog.pg_extension_config_dump('finance.group_position_0', '');
SELECT pg_catalog.pg_extension_config_dump('finance.group_position_1', '');
SELECT pg_catalog.pg_extension_config_dump('finance.group_position_2', '');

CREATE TYPE finance.log_record AS (
	"position"	text COLLATE pg_catalog."C",
	msg_id		bigint,
	enqueued_at	timestamptz,
	message		jsonb,
	headers		jsonb,
	topic		text,
	message_id	bigint,
	priority	smallint,
	ordering_key	text
);
COMMENT ON TYPE finance.log_record IS
'a message as read_group() returns it; position: for commit_group(), and compares as messages are read';

CREATE FUNCTION finance.create_log_queue(queue_name text, retention interval DEFAULT '7 days')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_log_queue';
COMMENT ON FUNCTION finance.create_log_queue(text, interval) IS
'make an empty log: a queue whose messages stay for the retention and are read by consumer groups';

CREATE FUNCTION finance.create_consumer_group(queue_name text, group_name text, start text DEFAULT 'end')
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_create_consumer_group';
COMMENT ON FUNCTION finance.create_consumer_group(text, text, text) IS
'make a consumer group of a log that begins at its end, or at its beginning';

CREATE FUNCTION finance.drop_consumer_group(queue_name text, group_name text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_consumer_group';
COMMENT ON FUNCTION finance.drop_consumer_group(text, text) IS
'forget a consumer group and its position; false when there is none';

CREATE FUNCTION finance.list_consumer_groups(queue_name text)
	RETURNS TABLE (group_name text, "position" text, lag bigint, last_read_at timestamptz, missed boolean,
		held_by_pid integer, held_by_gid text, held_since timestamptz)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_list_consumer_groups';
COMMENT ON FUNCTION finance.list_consumer_groups(text) IS
'the groups of a log: where each is, how many messages behind, whether retention overtook it, and which open transaction holds reading back';

CREATE FUNCTION finance.read_group(queue_name text, group_name text, qty integer DEFAULT 100,
		auto_commit boolean DEFAULT false)
	RETURNS SETOF finance.log_record
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_read_group';
COMMENT ON FUNCTION finance.read_group(text, text, integer, boolean) IS
'up to qty messages after the group''s position, in an order in which none is skipped; moves the position only with auto_commit';

CREATE FUNCTION finance.commit_group(queue_name text, group_name text, to_position text)
	RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_commit_group';
COMMENT ON FUNCTION finance.commit_group(text, text, text) IS
'move a group forward to a position that read_group() returned; false when it is there already';

CREATE FUNCTION finance.seek_group(queue_name text, group_name text, to_id bigint DEFAULT NULL,
		to_time timestamptz DEFAULT NULL, to_position text DEFAULT NULL)
	RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_seek_group';
COMMENT ON FUNCTION finance.seek_group(text, text, bigint, timestamptz, text) IS
'move a group back or forth: to a msg_id, a time, a position, beginning or end; returns its position';

CREATE FUNCTION finance.trim_log_queues()
	RETURNS integer
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_trim_log_queues';
COMMENT ON FUNCTION finance.trim_log_queues() IS
'empty segments of logs that are older than the retention, as the worker does by itself; returns how many';

-- ========================================================================
-- LISTS SECTION (list.c, list_change.c, limit.c, limit_change.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- what is looked up stands first in a row; its order and its equality are
-- those of bytes, which is what the caches in C search by
-- ------------------------------------------------------------------------

CREATE TABLE finance.risk_list (
	tenant_id	integer NOT NULL,
	list		text COLLATE pg_catalog."C" NOT NULL,
	subject		text COLLATE pg_catalog."C" NOT NULL,
	value		text COLLATE pg_catalog."C" NOT NULL,
	expires_at	timestamptz,
	reason		text NOT NULL,
	added_by	text NOT NULL,
	added_at	timestamptz NOT NULL,
	CONSTRAINT risk_list_pkey PRIMARY KEY (tenant_id, list, subject, value),
	CONSTRAINT risk_list_length CHECK (pg_catalog.octet_length(list) BETWEEN 1 AND 63
		AND pg_catalog.octet_length(value) BETWEEN 1 AND 255),
	CONSTRAINT risk_list_subject CHECK (subject IN ('account', 'country', 'device')),
	CONSTRAINT risk_list_country CHECK (subject <> 'country' OR value ~ '^[A-Z][A-Z]$'),
	CONSTRAINT risk_list_expiry CHECK (pg_catalog.isfinite(expires_at))
);
COMMENT ON TABLE finance.risk_list IS
'accounts, countries and devices on lists that rules look at; change it with add_to_list(), load_list() and remove_from_list()';
COMMENT ON COLUMN finance.risk_list.value IS
'code of the account; country of ISO 3166-1 alpha-2; fingerprint of the device';
COMMENT ON COLUMN finance.risk_list.expires_at IS
'from then on it does not count; null: it does not expire';
CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.risk_list
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.risk_list ENABLE ALWAYS TRIGGER config_changed;

CREATE TABLE finance.rule_limit (
	tenant_id	integer NOT NULL,
	rule		text COLLATE pg_catalog."C" NOT NULL,
	subject		text COLLATE pg_catalog."C" NOT NULL,
	temporary	boolean NOT NULL,
	value		text COLLATE pg_catalog."C" NOT NULL,
	threshold	numeric NOT NULL,
	expires_at	timestamptz,
	reason		text NOT NULL,
	set_by		text NOT NULL,
	set_at		timestamptz NOT NULL,
	CONSTRAINT rule_limit_pkey PRIMARY KEY (tenant_id, rule, subject, temporary, value),
	CONSTRAINT rule_limit_length CHECK (pg_catalog.octet_length(rule) BETWEEN 1 AND 63
		AND pg_catalog.octet_length(value) BETWEEN 1 AND 128),
	CONSTRAINT rule_limit_subject CHECK (subject IN ('account', 'level', 'account_type')),
	CONSTRAINT rule_limit_threshold CHECK (threshold >= 0 AND threshold < 'Infinity'),
	CONSTRAINT rule_limit_temporary CHECK (temporary = (expires_at IS NOT NULL)),
	CONSTRAINT rule_limit_expiry CHECK (pg_catalog.isfinite(expires_at))
);
COMMENT ON TABLE finance.rule_limit IS
'other thresholds of rules for an account, a level or a type of accounts; change it with set_rule_limit() and clear_rule_limit()';
COMMENT ON COLUMN finance.rule_limit.rule IS
'name of the rule, in whatever ruleset';
COMMENT ON COLUMN finance.rule_limit.temporary IS
'holds until expires_at, and until then comes before the lasting one of the same subject';
COMMENT ON COLUMN finance.rule_limit.value IS
'code of the account; name of the level or type';
CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.rule_limit
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.rule_limit ENABLE ALWAYS TRIGGER config_changed;

CREATE FUNCTION finance.add_to_list(list text, subject text, value text,
	reason text, expires_at timestamptz DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_add_to_list';
COMMENT ON FUNCTION finance.add_to_list(text, text, text, text, timestamptz) IS
'puts an account (its code), a country (two capital letters) or a device on a list, until expires_at (null: for good); one that is there gets the new reason and end, and the result is false';
CREATE FUNCTION finance.load_list(list text, subject text, entries text[],
	reason text, expires_at timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_load_list';
COMMENT ON FUNCTION finance.load_list(text, text, text[], text, timestamptz) IS
'add_to_list() for up to 100,000 entries at once, all or none; returns how many were not on the list';
CREATE FUNCTION finance.remove_from_list(list text, subject text, value text,
	reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_remove_from_list';
COMMENT ON FUNCTION finance.remove_from_list(text, text, text, text) IS
'takes an entry off a list; false if it is not there';
CREATE FUNCTION finance.is_on_list(list text, subject text, value text)
	RETURNS boolean
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_is_on_list';
COMMENT ON FUNCTION finance.is_on_list(text, text, text) IS
'whether an account, country or device is on a list now, as rules see it';
CREATE FUNCTION finance.block_account(code text, reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_block_account';
COMMENT ON FUNCTION finance.block_account(text, text) IS
'puts an account on the list blocklist, which rules of kind blocklist look at; false if it is there';
CREATE FUNCTION finance.unblock_account(code text, reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_unblock_account';
COMMENT ON FUNCTION finance.unblock_account(text, text) IS
'takes an account off the list blocklist; false if it is not there';
CREATE FUNCTION finance.remove_expired_entries("limit" integer DEFAULT 10000)
	RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_remove_expired_entries';
COMMENT ON FUNCTION finance.remove_expired_entries(integer) IS
'removes entries of lists and temporary limits of rules that are over, which count for nothing already; returns how many';

CREATE FUNCTION finance.set_rule_limit(rule text, threshold numeric, reason text,
	account text DEFAULT NULL, account_type text DEFAULT NULL,
	level text DEFAULT NULL, expires_at timestamptz DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_rule_limit';
COMMENT ON FUNCTION finance.set_rule_limit(text, numeric, text, text, text, text, timestamptz) IS
'gives a rule another threshold for what an account pays, or the accounts of a type or a level, for good or until expires_at';
CREATE FUNCTION finance.clear_rule_limit(rule text, reason text,
	account text DEFAULT NULL, account_type text DEFAULT NULL,
	level text DEFAULT NULL, temporary boolean DEFAULT NULL) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_clear_rule_limit';
COMMENT ON FUNCTION finance.clear_rule_limit(text, text, text, text, text, boolean) IS
'takes back a threshold that set_rule_limit() gave: the temporary one, the lasting one, or (null) both; false if there is none';
CREATE FUNCTION finance.rule_limit_of(rule text, account text) RETURNS numeric
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rule_limit_of';
COMMENT ON FUNCTION finance.rule_limit_of(text, text) IS
'threshold that set_rule_limit() gave the rule for what this account pays now; null: the rule''s own holds';

-- ========================================================================
-- EXPR SECTION (expr.c, expr_*.c, fact.c)
-- ========================================================================

CREATE FUNCTION finance.risk_facts(OUT name text, OUT type text, OUT description text) RETURNS SETOF record
	LANGUAGE c IMMUTABLE PARALLEL SAFE ROWS 54
	AS 'MODULE_PATHNAME', 'finance_risk_facts';
COMMENT ON FUNCTION finance.risk_facts() IS
'the facts of a transfer that a risk expression may use';

CREATE FUNCTION finance.check_expression(expression text, facts jsonb DEFAULT NULL) RETURNS boolean
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_check_expression';
COMMENT ON FUNCTION finance.check_expression(text, jsonb) IS
'compiles a risk expression, and with facts (an object by name; those left out are null) gives its result';

-- ========================================================================
-- METER SECTION (measure.c, meter.c, store_measure.c, posting_meter.c)
-- ========================================================================

CREATE SEQUENCE finance._measure_id_seq AS integer;
COMMENT ON SEQUENCE finance._measure_id_seq IS
'numbers of measures, none of which is used twice: totals are stored under them';

CREATE TABLE finance.risk_measure (
	tenant_id	integer NOT NULL,
	measure_id	integer NOT NULL DEFAULT pg_catalog.nextval('finance._measure_id_seq'),
	scope		text NOT NULL,
	period		text NOT NULL,
	span		interval,
	band_min	numeric,
	band_max	numeric,
	CONSTRAINT risk_measure_pkey PRIMARY KEY (tenant_id, measure_id),
	CONSTRAINT risk_measure_scope CHECK (scope IN ('account', 'counterparty', 'pair', 'account_type', 'type', 'device')),
	CONSTRAINT risk_measure_period CHECK (period IN ('hour', 'day', 'month', 'sliding', 'ever', 'last_device', 'last_country')),
	CONSTRAINT risk_measure_last CHECK (period NOT IN ('last_device', 'last_country')
		OR scope = 'account' AND band_min IS NULL AND band_max IS NULL),
	CONSTRAINT risk_measure_span CHECK ((period = 'sliding') = (span IS NOT NULL)
		AND span >= '1 millisecond' AND span <= '366 days'),
	CONSTRAINT risk_measure_band CHECK (band_min >= 0 AND band_min < 'Infinity'
		AND band_max > 0 AND band_max < 'Infinity' AND band_min < band_max)
);
ALTER SEQUENCE finance._measure_id_seq OWNED BY finance.risk_measure.measure_id;
COMMENT ON TABLE finance.risk_measure IS
'what the published rulesets need counted: of whose transfers, over what time; written by publishing one';
COMMENT ON COLUMN finance.risk_measure.scope IS
'account: what the payer pays; counterparty: what the payee gets; pair: what this payer pays this payee; account_type: what the payer pays in one type; type: what all pay in one type and currency; device: what the payer pays from one device';
COMMENT ON COLUMN finance.risk_measure.period IS
'hour, day, month: in the tenant''s time zone; sliding: the time of span before now; ever; last_device, last_country: the last one, and when';
COMMENT ON COLUMN finance.risk_measure.band_min IS 'counts amounts from this on only; null: all';
COMMENT ON COLUMN finance.risk_measure.band_max IS 'and below this; null: all';
CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.risk_measure
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.risk_measure ENABLE ALWAYS TRIGGER config_changed;

-- One row for each key, with the totals of all its measures, so that a transfer
-- updates one row for an account however many rules there are; the update stays
-- on its page (HOT).  What a deleted row counted is read from the history again.
CREATE TABLE finance.risk_total (
	account_id	bigint NOT NULL,
	other_id	bigint NOT NULL,
	tenant_id	integer NOT NULL,
	class		text COLLATE "C" NOT NULL,
	state		bytea NOT NULL,
	CONSTRAINT risk_total_pkey PRIMARY KEY (tenant_id, account_id, other_id, class)
) WITH (fillfactor = 50);
COMMENT ON TABLE finance.risk_total IS
'what each measure of finance.risk_measure has come to, by account, payee, pair, type and device; finance._risk_totals() tells what a state says';
COMMENT ON COLUMN finance.risk_total.account_id IS 'the payer; 0: any';
COMMENT ON COLUMN finance.risk_total.other_id IS 'the payee; 0: any';
COMMENT ON COLUMN finance.risk_total.class IS
'empty, or "type" and the type, or "device" and the device; of no account: the currency and the type';

CREATE FUNCTION finance._risk_totals(state bytea)
	RETURNS TABLE (measure_id integer, period text, bucket bigint,
		since_id bigint, seeded boolean, amount numeric, count bigint,
		at timestamptz, text text)
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 10
	AS 'MODULE_PATHNAME', 'finance_risk_totals';
COMMENT ON FUNCTION finance._risk_totals(bytea) IS
'the totals in a row of finance.risk_total, one row for each measure: what was counted in its hour, day, month or window from since_id on, or the last device or country';

-- ========================================================================
-- GATE SECTION (gate.c, gate_*.c, bucket.c)
-- ========================================================================

CREATE TABLE finance.transfer_pause (
	tenant_id	integer NOT NULL,
	scope		text NOT NULL,
	account_id	bigint,
	reason		text NOT NULL,
	paused_by	text NOT NULL,
	paused_session_user text NOT NULL,
	paused_at	timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	CONSTRAINT transfer_pause_pkey PRIMARY KEY (tenant_id, scope),
	CONSTRAINT transfer_pause_scope CHECK (scope IN ('all', 'everywhere')
		OR scope ~ '^(account|type|currency)=.'),
	CONSTRAINT transfer_pause_account CHECK ((scope LIKE 'account=%') = (account_id IS NOT NULL)),
	CONSTRAINT transfer_pause_everywhere CHECK (scope <> 'everywhere' OR tenant_id = 0)
);
COMMENT ON TABLE finance.transfer_pause IS
'where no money moves now; change it with pause_transfers() and resume_transfers(), whose history is in the audit log';
COMMENT ON COLUMN finance.transfer_pause.tenant_id IS
'0 for scope everywhere, which is all tenants';
COMMENT ON COLUMN finance.transfer_pause.scope IS
'all (of the tenant), everywhere, account=CODE, type=NAME or currency=CODE';
COMMENT ON COLUMN finance.transfer_pause.paused_by IS 'finance.actor of who paused';

CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.transfer_pause
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.transfer_pause ENABLE ALWAYS TRIGGER config_changed;

CREATE TABLE finance.rate_limit (
	tenant_id	integer NOT NULL,
	scope		text NOT NULL,
	account_id	bigint,
	limit_id	bigint NOT NULL,
	rate		numeric NOT NULL,
	burst		integer NOT NULL,
	set_at		timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	CONSTRAINT rate_limit_pkey PRIMARY KEY (tenant_id, scope),
	CONSTRAINT rate_limit_scope CHECK (scope IN ('tenant', 'account') OR scope ~ '^(account|type)=.'),
	CONSTRAINT rate_limit_account CHECK ((scope LIKE 'account=%') = (account_id IS NOT NULL)),
	CONSTRAINT rate_limit_id CHECK (limit_id > 0),
	CONSTRAINT rate_limit_rate CHECK (rate > 0 AND rate <= 1000000 AND rate = pg_catalog.round(rate, 6)),
	CONSTRAINT rate_limit_burst CHECK (burst >= 1 AND burst <= 1000000)
);
COMMENT ON TABLE finance.rate_limit IS
'how often money may move; change it with set_rate_limit() and drop_rate_limit(); rate_limits() tells how many tokens are left';
COMMENT ON COLUMN finance.rate_limit.scope IS
'tenant, account (each that pays), account=CODE (this one, instead) or type=NAME';
COMMENT ON COLUMN finance.rate_limit.limit_id IS
'by which tokens are counted: of a limit dropped and set anew, all are there';
COMMENT ON COLUMN finance.rate_limit.rate IS 'transfers a second in the long run';
COMMENT ON COLUMN finance.rate_limit.burst IS 'transfers at once after a pause';

CREATE TRIGGER config_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON finance.rate_limit
	FOR EACH STATEMENT EXECUTE FUNCTION finance._config_changed();
ALTER TABLE finance.rate_limit ENABLE ALWAYS TRIGGER config_changed;

-- whoever moved money holds this lock until the transaction ends
CREATE FUNCTION finance.transfers_in_flight()
	RETURNS TABLE (state text, pid integer, gid text, transaction xid, since timestamptz)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
AS $$
WITH held AS (
	SELECT k.pid, k.virtualtransaction, k.locktype, k.transactionid
	FROM pg_catalog.pg_locks k
	WHERE k.granted AND k.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
	AND (k.locktype OPERATOR(pg_catalog.=) 'transactionid'
		OR k.locktype OPERATOR(pg_catalog.=) 'relation'
		AND k.mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'
		AND k.relation OPERATOR(pg_catalog.=) 'finance._account'::pg_catalog.regclass
		AND k.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
			WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
), mover AS (
	SELECT DISTINCT h.pid, h.virtualtransaction FROM held h
	WHERE h.locktype OPERATOR(pg_catalog.=) 'relation'
)
SELECT CASE WHEN m.pid IS NULL THEN 'prepared' ELSE 'running' END,
	m.pid, p.gid, coalesce(p.transaction, a.backend_xid), coalesce(p.prepared, a.xact_start)
FROM mover m
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) m.pid
LEFT JOIN (held h JOIN pg_catalog.pg_prepared_xacts p
		ON p.transaction OPERATOR(pg_catalog.=) h.transactionid)
	ON m.pid IS NULL AND h.pid IS NULL
	AND h.virtualtransaction OPERATOR(pg_catalog.=) m.virtualtransaction
ORDER BY 1, 5, 2
$$;
COMMENT ON FUNCTION finance.transfers_in_flight() IS
'transactions of other sessions, of whatever tenant, that may have moved money and are open: running ones, and prepared ones, which no pause stops any more';

CREATE FUNCTION finance.pause_transfers(scope text, reason text,
	OUT paused boolean, OUT running integer, OUT prepared integer)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_pause_transfers';
COMMENT ON FUNCTION finance.pause_transfers(text, text) IS
'stops money from moving in the scope from its commit on, also what moved in open transactions: all (of the tenant), account=CODE, type=NAME, currency=CODE, or everywhere (owner only); false where it was paused; running and prepared: transactions that may have moved money and are open';

CREATE FUNCTION finance.resume_transfers(scope text, reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_resume_transfers';
COMMENT ON FUNCTION finance.resume_transfers(text, text) IS
'takes back the pause of this scope; false where there was none';

CREATE FUNCTION finance.set_rate_limit(scope text, rate numeric, burst integer) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_set_rate_limit';
COMMENT ON FUNCTION finance.set_rate_limit(text, numeric, integer) IS
'lets at most burst transfers and holds pass at once, and rate a second in the long run: of the tenant, of each account that pays, of account=CODE instead, or of type=NAME';

CREATE FUNCTION finance.drop_rate_limit(scope text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_rate_limit';
COMMENT ON FUNCTION finance.drop_rate_limit(text) IS
'takes back the rate limit of this scope; false where there was none';

CREATE FUNCTION finance.rate_limits(account text DEFAULT NULL)
	RETURNS TABLE (scope text, rate numeric, burst integer, tokens numeric)
	LANGUAGE c VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_rate_limits';
COMMENT ON FUNCTION finance.rate_limits(text) IS
'the tenant''s rate limits and the tokens left in each; of the limit for each account, those of this one';

-- ========================================================================
-- REVIEW SECTION (posting_park.c, review.c, expire.c, alert.c, alert_export.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- What risk wants reviewed or confirmed is a transfer with status review or
-- challenged, a parked hold, and a row here; all three are made and ended
-- together, under the locks of both accounts.
-- ------------------------------------------------------------------------

CREATE TABLE finance.risk_review (
	tenant_id		integer NOT NULL,
	transfer_id		bigint NOT NULL,
	kind			text NOT NULL,
	status			text NOT NULL DEFAULT 'open',
	from_account_id	bigint NOT NULL,
	to_account_id	bigint NOT NULL,
	amount			finance.amount NOT NULL,
	currency		text NOT NULL,
	rules			text[] NOT NULL,
	version			integer,
	requested_by	text NOT NULL,
	requested_session_user text NOT NULL,
	requested_at	timestamptz NOT NULL,
	expires_at		timestamptz NOT NULL,
	default_outcome	text NOT NULL,
	was_hold		boolean NOT NULL,
	hold_expires_in	interval,
	wrong_tokens	integer NOT NULL DEFAULT 0,
	reviewer		text,
	reviewer_session_user text,
	comment			text,
	decided_at		timestamptz,
	settled_id		bigint,
	CONSTRAINT risk_review_pkey PRIMARY KEY (tenant_id, transfer_id),
	CONSTRAINT risk_review_kind CHECK (kind IN ('review', 'challenge')),
	CONSTRAINT risk_review_status CHECK (status IN ('open', 'approved', 'rejected',
		'confirmed', 'failed', 'timed_out')),
	CONSTRAINT risk_review_status_of_kind CHECK (kind = 'review' OR status <> 'approved'),
	CONSTRAINT risk_review_status_of_challenge CHECK (kind = 'challenge'
		OR status NOT IN ('confirmed', 'failed')),
	CONSTRAINT risk_review_default CHECK (default_outcome IN ('reject', 'approve')),
	CONSTRAINT risk_review_wrong_tokens CHECK (wrong_tokens BETWEEN 0 AND 5),
	CONSTRAINT risk_review_decided CHECK ((status = 'open') = (decided_at IS NULL)
		AND (status = 'open') = (settled_id IS NULL)),
	CONSTRAINT risk_review_has_reviewer CHECK ((status IN ('open', 'timed_out')) = (reviewer IS NULL)
		AND (reviewer IS NULL) = (reviewer_session_user IS NULL)),
	CONSTRAINT risk_review_reason CHECK (status <> 'rejected' OR comment IS NOT NULL),
	-- a reviewer is another person than who requested it; one who acts as
	-- himself, by his own login, is not another for calling himself so
	CONSTRAINT risk_review_maker_checker CHECK (status NOT IN ('approved', 'rejected')
		OR reviewer <> requested_by
			AND (reviewer_session_user <> requested_session_user
				OR requested_by <> requested_session_user
					AND reviewer <> reviewer_session_user))
);
CREATE INDEX risk_review_open ON finance.risk_review (tenant_id, transfer_id)
	WHERE status = 'open';
CREATE INDEX risk_review_payer ON finance.risk_review (tenant_id, from_account_id, transfer_id);
COMMENT ON TABLE finance.risk_review IS
'transfers and holds that risk wanted reviewed by another person, or confirmed by a token, before they are carried out; decide with review_transfer() and confirm_challenge()';
COMMENT ON COLUMN finance.risk_review.transfer_id IS
'the transfer as it was parked, and its hold';
COMMENT ON COLUMN finance.risk_review.status IS
'open; approved or rejected by a reviewer; confirmed by the token, or failed after too many wrong ones; timed_out: settled by itself, as default_outcome says';
COMMENT ON COLUMN finance.risk_review.version IS
'of the ruleset that wanted it';
COMMENT ON COLUMN finance.risk_review.requested_by IS
'actor of the request: finance.actor, else the user';
COMMENT ON COLUMN finance.risk_review.expires_at IS
'then it is settled by itself';
COMMENT ON COLUMN finance.risk_review.default_outcome IS
'what it is settled to when its time is over: approve carries it out, reject gives it back';
COMMENT ON COLUMN finance.risk_review.was_hold IS
'a hold was asked for: approved it is an ordinary one, which lasts hold_expires_in from then on';
COMMENT ON COLUMN finance.risk_review.reviewer IS
'actor who decided it; null: nobody did';
COMMENT ON COLUMN finance.risk_review.settled_id IS
'the transfer that carried it out or gave it back';

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance.risk_review
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.risk_review ENABLE ALWAYS TRIGGER guard;

CREATE TABLE finance._challenge (
	tenant_id		integer NOT NULL,
	transfer_id		bigint NOT NULL,
	salt			bytea NOT NULL,
	token_hash		bytea NOT NULL,
	renewed			integer NOT NULL DEFAULT 0,
	CONSTRAINT challenge_pkey PRIMARY KEY (tenant_id, transfer_id),
	CONSTRAINT challenge_salt CHECK (pg_catalog.octet_length(salt) = 16),
	CONSTRAINT challenge_token_hash CHECK (pg_catalog.octet_length(token_hash) = 32),
	CONSTRAINT challenge_renewed CHECK (renewed BETWEEN 0 AND 5)
);
COMMENT ON TABLE finance._challenge IS
'of each open challenge, SHA-256 of a salt and its token, which itself is kept nowhere';
COMMENT ON COLUMN finance._challenge.renewed IS
'how often new_challenge_token() made another';

CREATE VIEW finance.review WITH (security_invoker = true) AS
SELECT r.tenant_id, r.transfer_id, r.kind, f.code AS from_account, a.code AS to_account,
	r.amount::numeric AS amount, r.currency, t.type, r.rules, r.version,
	r.requested_by, r.requested_at, c.now - r.requested_at AS age, r.expires_at,
	r.default_outcome, r.was_hold,
	CASE WHEN r.kind = 'challenge' THEN 5 - r.wrong_tokens END AS attempts_left,
	t.reference, t.metadata
FROM finance.risk_review r
JOIN finance._account f ON f.tenant_id = r.tenant_id AND f.account_id = r.from_account_id
JOIN finance._account a ON a.tenant_id = r.tenant_id AND a.account_id = r.to_account_id
LEFT JOIN finance.transfer t ON t.tenant_id = r.tenant_id AND t.id = r.transfer_id
CROSS JOIN (SELECT finance._now() AS now) c
WHERE r.status = 'open';
COMMENT ON VIEW finance.review IS
'what is parked now and waits for a review or a token: who requested it, since when, and which rules wanted it';

CREATE TYPE finance.challenge_result AS (
	confirmed		boolean,
	attempts_left	integer,
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
	replayed		boolean,
	hold_id			bigint,
	hold_remaining	numeric,
	journal_id		bigint,
	token			text
);
COMMENT ON TYPE finance.challenge_result IS
'whether the token was the right one, how many more may be wrong (null when it was right), then as transfer_result: what was carried out or given back, or the transfer as it is parked';

CREATE FUNCTION finance.review_transfer(id bigint, approve boolean,
	comment text DEFAULT NULL) RETURNS finance.transfer_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_review_transfer';
COMMENT ON FUNCTION finance.review_transfer(bigint, boolean, text) IS
'carries out what is parked for review, or gives it back, which needs a comment; by another person than who requested it';
CREATE FUNCTION finance.confirm_challenge(id bigint, token text)
	RETURNS finance.challenge_result
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_confirm_challenge';
COMMENT ON FUNCTION finance.confirm_challenge(bigint, text) IS
'carries out a challenged transfer by the token that was told when it was requested; a wrong one is answered, so that it counts when committed, and the fifth gives the money back';
CREATE FUNCTION finance.new_challenge_token(id bigint) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_new_challenge_token';
COMMENT ON FUNCTION finance.new_challenge_token(bigint) IS
'another token for a challenged transfer, for who requested it; the one before is void; at most five times';
CREATE FUNCTION finance.settle_reviews("limit" integer DEFAULT 1000) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_settle_reviews';
COMMENT ON FUNCTION finance.settle_reviews(integer) IS
'settles what is parked and whose time is over as its default_outcome says, at most limit (1 to 10000), and says how many; skips those an account of which another transaction has locked; the worker does it by itself';

-- ------------------------------------------------------------------------
-- alerts
-- ------------------------------------------------------------------------

CREATE TABLE finance._alert (
	tenant_id		integer NOT NULL,
	alert_id		bigint NOT NULL,
	account_id		bigint NOT NULL,
	rule			text NOT NULL,
	level			text NOT NULL,
	day				date NOT NULL,
	status			text NOT NULL DEFAULT 'open',
	assignee		text,
	raised_at		timestamptz NOT NULL,
	closed_by		text,
	closed_at		timestamptz,
	CONSTRAINT alert_pkey PRIMARY KEY (tenant_id, alert_id),
	CONSTRAINT alert_level CHECK (level IN ('info', 'warning', 'critical')),
	CONSTRAINT alert_status CHECK (status IN ('open', 'confirmed', 'dismissed')),
	CONSTRAINT alert_closed CHECK ((status = 'open') = (closed_by IS NULL)
		AND (status = 'open') = (closed_at IS NULL))
);
CREATE INDEX alert_open ON finance._alert (tenant_id, account_id, rule, level, day)
	WHERE status = 'open';
COMMENT ON TABLE finance._alert IS
'alerts as risk raised them and people closed them; read them through the view finance.alert';

CREATE TABLE finance.alert_transfer (
	tenant_id		integer NOT NULL,
	transfer_id		bigint NOT NULL,
	alert_id		bigint NOT NULL,
	outcome			text NOT NULL,
	rules			text[] NOT NULL,
	kinds			text[] NOT NULL,
	version			integer,
	score			integer NOT NULL,
	CONSTRAINT alert_transfer_pkey PRIMARY KEY (tenant_id, transfer_id),
	CONSTRAINT alert_transfer_outcome CHECK (outcome IN ('report', 'challenge', 'review', 'reject'))
);
CREATE INDEX alert_transfer_alert ON finance.alert_transfer (tenant_id, alert_id, transfer_id);
COMMENT ON TABLE finance.alert_transfer IS
'each transfer that risk reported, challenged, had reviewed or rejected, and the alert it is counted into';
COMMENT ON COLUMN finance.alert_transfer.rules IS
'rules that hit, the one that decided first; kinds: theirs';
COMMENT ON COLUMN finance.alert_transfer.version IS
'of the ruleset';

CREATE TABLE finance.alert_comment (
	tenant_id		integer NOT NULL,
	alert_id		bigint NOT NULL,
	comment_id		bigint NOT NULL,
	action			text NOT NULL,
	actor			text NOT NULL,
	comment			text,
	commented_at	timestamptz NOT NULL,
	CONSTRAINT alert_comment_pkey PRIMARY KEY (tenant_id, alert_id, comment_id),
	CONSTRAINT alert_comment_action CHECK (action IN ('comment', 'assigned',
		'confirmed', 'dismissed', 'reopened')),
	CONSTRAINT alert_comment_needed CHECK (action = 'assigned' OR comment IS NOT NULL)
);
COMMENT ON TABLE finance.alert_comment IS
'what people did with an alert and said of it, in order of comment_id; of assigned the comment is the assignee, null: nobody';

CREATE TRIGGER guard BEFORE DELETE OR TRUNCATE ON finance._alert
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance._alert ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.alert_transfer
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.alert_transfer ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.alert_comment
	FOR EACH STATEMENT EXECUTE FUNCTION finance._immutable_guard();
ALTER TABLE finance.alert_comment ENABLE ALWAYS TRIGGER guard;

CREATE VIEW finance.alert WITH (security_invoker = true) AS
SELECT l.tenant_id, l.alert_id, l.level, l.status, a.code AS account, l.rule, l.day,
	h.transfers, h.first_transfer_id, h.last_transfer_id,
	finance.id_time(h.last_transfer_id) AS last_at,
	l.assignee, l.raised_at, l.closed_by, l.closed_at, l.account_id
FROM finance._alert l
JOIN finance._account a ON a.tenant_id = l.tenant_id AND a.account_id = l.account_id
CROSS JOIN LATERAL (SELECT count(*) AS transfers, min(t.transfer_id) AS first_transfer_id,
		max(t.transfer_id) AS last_transfer_id
	FROM finance.alert_transfer t
	WHERE t.tenant_id = l.tenant_id AND t.alert_id = l.alert_id) h;
COMMENT ON VIEW finance.alert IS
'alerts: of one paying account, rule, level (info: reported; warning: challenged or reviewed; critical: rejected) and business day, with how many transfers hit; more of the same are counted into an open one';

CREATE VIEW finance.aml_report WITH (security_invoker = true) AS
SELECT t.tenant_id, t.id AS transfer_id, t.recorded_at, t.status,
	f.code AS from_account, a.code AS to_account, t.amount::numeric AS amount,
	t.currency, t.type, t.reference, t.metadata, h.outcome, h.rules, h.version,
	v.status AS review_status, h.alert_id, l.level, l.status AS alert_status, l.assignee,
	l.closed_by, l.closed_at,
	(SELECT c.comment FROM finance.alert_comment c
		WHERE c.tenant_id = l.tenant_id AND c.alert_id = l.alert_id
		AND c.action = l.status ORDER BY c.comment_id DESC LIMIT 1) AS comment
FROM finance.alert_transfer h
JOIN finance.transfer t ON t.tenant_id = h.tenant_id AND t.id = h.transfer_id
JOIN finance._alert l ON l.tenant_id = h.tenant_id AND l.alert_id = h.alert_id
LEFT JOIN finance.risk_review v ON v.tenant_id = h.tenant_id AND v.transfer_id = h.transfer_id
JOIN finance._account f ON f.tenant_id = t.tenant_id AND f.account_id = t.from_account_id
JOIN finance._account a ON a.tenant_id = t.tenant_id AND a.account_id = t.to_account_id
WHERE l.status = 'confirmed' OR h.outcome = 'report'
	OR h.kinds && ARRAY['large_value', 'structuring'];
COMMENT ON VIEW finance.aml_report IS
'large and suspicious transfers: reported by risk, hit by a rule of kind large_value or structuring, or of an alert that was confirmed; review_status: what became of one that was parked; comment: with which the alert was closed';

CREATE FUNCTION finance.assign_alert(alert_id bigint, assignee text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_assign_alert';
COMMENT ON FUNCTION finance.assign_alert(bigint, text) IS
'says who looks into an open alert (null: nobody)';
CREATE FUNCTION finance.comment_alert(alert_id bigint, comment text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_comment_alert';
COMMENT ON FUNCTION finance.comment_alert(bigint, text) IS
'adds a comment to an alert, open or closed';
CREATE FUNCTION finance.close_alert(alert_id bigint, status text, comment text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_close_alert';
COMMENT ON FUNCTION finance.close_alert(bigint, text, text) IS
'closes an alert as confirmed or dismissed, and says why';
CREATE FUNCTION finance.reopen_alert(alert_id bigint, comment text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_reopen_alert';
COMMENT ON FUNCTION finance.reopen_alert(bigint, text) IS
'opens a closed alert again, and says why';
CREATE FUNCTION finance.export_aml(from_time timestamptz, to_time timestamptz,
	format text DEFAULT 'json') RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_export_aml';
COMMENT ON FUNCTION finance.export_aml(timestamptz, timestamptz, text) IS
'the AML report of what was recorded from from_time until just before to_time, as lines of json or of csv';

-- ========================================================================
-- BACKTEST SECTION (risk_backtest.c, risk_past.c)
-- ========================================================================

CREATE FUNCTION finance.backtest_ruleset(version integer, "from" timestamptz,
	"to" timestamptz DEFAULT NULL)
	RETURNS TABLE (rule text, kind text, currency text, transfers bigint, hits bigint,
		misses bigint, amount numeric, agree bigint, newly_stopped bigint,
		newly_passed bigint, report bigint, challenge bigint, review bigint, reject bigint)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_backtest_ruleset';
COMMENT ON FUNCTION finance.backtest_ruleset(integer, timestamptz, timestamptz) IS
'what a version, a draft too, would have said of the transfers recorded in that time (to null: until now), against what happened: a row for each rule and currency, and with rule null for the whole; moves and writes nothing';
CREATE FUNCTION finance.backtest_differences(version integer, "from" timestamptz,
	"to" timestamptz DEFAULT NULL, "limit" integer DEFAULT 1000)
	RETURNS TABLE (transfer_id bigint, outcome_then text, outcome_now text, rule text)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_backtest_differences';
COMMENT ON FUNCTION finance.backtest_differences(integer, timestamptz, timestamptz, integer) IS
'the transfers recorded in that time (to null: until now) whose outcome would be another by that version, oldest first, and the rule that asks for the higher one';

-- ========================================================================
-- AUDIT CAPTURE SECTION (audit_key.c, audit_erase.c)
-- ========================================================================

-- nobody but the extension reads these two
CREATE TABLE finance.audit_subject (
	tenant_id		integer NOT NULL,
	subject			text NOT NULL,
	key				bytea,
	created_at		timestamptz NOT NULL,
	erased_at		timestamptz,
	CONSTRAINT audit_subject_pkey PRIMARY KEY (tenant_id, subject),
	CONSTRAINT audit_subject_has_key CHECK (CASE WHEN erased_at IS NULL
		THEN key IS NOT NULL AND pg_catalog.length(key) = 32 ELSE key IS NULL END)
);
COMMENT ON TABLE finance.audit_subject IS
'keys of whom encrypted values in the audit log are of; erased with audit_erase_subject()';
COMMENT ON COLUMN finance.audit_subject.key IS
'of AES-256-GCM; null: erased, and nothing is encrypted for the subject any more';

CREATE TABLE finance._audit_secret (
	tenant_id		integer NOT NULL,
	secret			bytea NOT NULL,
	created_at		timestamptz NOT NULL,
	CONSTRAINT _audit_secret_pkey PRIMARY KEY (tenant_id),
	CONSTRAINT _audit_secret_length CHECK (pg_catalog.length(secret) = 32)
);
COMMENT ON TABLE finance._audit_secret IS
'what hashes of masked values in the audit log are keyed with';

CREATE FUNCTION finance.audit_erase_subject(subject text, reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_erase_subject';
COMMENT ON FUNCTION finance.audit_erase_subject(text, text) IS
'destroys the key of a subject: its encrypted values in the audit log are never readable again, and proofs stay valid; false when there was no key';

CREATE FUNCTION finance.audit_erase_payload(record_id bigint, reason text) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_erase_payload';
COMMENT ON FUNCTION finance.audit_erase_payload(bigint, text) IS
'erases request and response of an audit record, whose leaf stays provable; false when there was nothing to erase';

CREATE FUNCTION finance.audit_decrypt(request json) RETURNS json
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_decrypt';
COMMENT ON FUNCTION finance.audit_decrypt(json) IS
'a payload of the audit log with its encrypted values in clear, but for those whose key was erased; is itself recorded';

-- ========================================================================
-- PROOF SECTION (merkle_sql.c, audit_proof.c)
-- ========================================================================

CREATE FUNCTION finance._merkle_inclusion(leaves bytea[], leaf_index bigint)
	RETURNS bytea[]
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_merkle_inclusion';
COMMENT ON FUNCTION finance._merkle_inclusion(bytea[], bigint) IS
'RFC 9162 path from a leaf to the root of a tree of leaf hashes';

CREATE FUNCTION finance._merkle_consistency(leaves bytea[], old_size bigint)
	RETURNS bytea[]
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_merkle_consistency';
COMMENT ON FUNCTION finance._merkle_consistency(bytea[], bigint) IS
'RFC 9162 proof that the tree of the first old_size leaf hashes is the beginning of that of all';

CREATE FUNCTION finance.audit_digest(at_size bigint DEFAULT NULL,
	OUT block bigint, OUT incarnation integer, OUT size bigint, OUT root bytea,
	OUT previous bytea, OUT digest bytea, OUT sealed_at timestamptz,
	OUT lsn pg_lsn, OUT timeline integer, OUT system_identifier bigint)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_digest';
COMMENT ON FUNCTION finance.audit_digest(bigint) IS
'digest of the whole audit log, the newest or the one of that many leaves: keep it outside the database';

CREATE FUNCTION finance.audit_proof(record_id bigint,
	tree_size bigint DEFAULT NULL,
	OUT record_id bigint, OUT leaf_index bigint, OUT leaf_hash bytea,
	OUT tree_size bigint, OUT root bytea, OUT path bytea[])
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_proof';
COMMENT ON FUNCTION finance.audit_proof(bigint, bigint) IS
'proof that an audit record is in the newest digest, or in that of tree_size leaves; for verify_inclusion()';

CREATE FUNCTION finance.audit_trace(trace_id uuid)
	RETURNS SETOF finance.audit_record
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_trace';
COMMENT ON FUNCTION finance.audit_trace IS
'all records of a trace in the session''s tenant, in causal order';

CREATE FUNCTION finance.audit_log(from_time timestamptz DEFAULT NULL,
	to_time timestamptz DEFAULT NULL, actor text DEFAULT NULL,
	operation text DEFAULT NULL, object text DEFAULT NULL,
	account_id bigint DEFAULT NULL, after_xid xid8 DEFAULT NULL,
	after_sequence integer DEFAULT NULL, max_records integer DEFAULT 100,
	newest_first boolean DEFAULT false, after_id bigint DEFAULT NULL)
	RETURNS SETOF finance.audit_record
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_log';
COMMENT ON FUNCTION finance.audit_log IS
'a page of the session''s tenant''s records in the order of the log, by time, actor, operation, object and account; for the next page give xid, sequence and id of the last record';

CREATE FUNCTION finance.audit_history(target regclass, key jsonb)
	RETURNS TABLE (version bigint, record_id bigint, leaf bigint,
				   recorded_at timestamptz, operation text, actor text,
				   reason text, trace_id uuid, old_values jsonb, row_state jsonb)
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_history';
COMMENT ON FUNCTION finance.audit_history IS
'the versions of a row of an audited table, by its primary key: {"id": 7}';

CREATE FUNCTION finance.audit_row_history(object text, row_key text)
	RETURNS TABLE (version bigint, record_id bigint, leaf bigint,
				   recorded_at timestamptz, operation text, actor text,
				   reason text, trace_id uuid, old_values jsonb, row_state jsonb)
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_row_history';
COMMENT ON FUNCTION finance.audit_row_history IS
'the versions of a row by the texts that records have, object and row_key: also of a table that is gone';

CREATE FUNCTION finance.audit_diff(target regclass, key jsonb,
								   from_time timestamptz,
								   to_time timestamptz DEFAULT pg_catalog.now())
	RETURNS TABLE (column_name text, old_value jsonb, new_value jsonb)
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_diff';
COMMENT ON FUNCTION finance.audit_diff IS
'what differs between a row of an audited table at two times';

CREATE FUNCTION finance.verify_audit(from_leaf bigint DEFAULT 0,
									 to_leaf bigint DEFAULT NULL)
	RETURNS TABLE (leaf bigint, record_id bigint, xid xid8, sequence integer,
				   problem text, expected text, found text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_verify_audit';
COMMENT ON FUNCTION finance.verify_audit IS
'what is wrong with the audit log from a leaf on to before another (null: its end, with what is not sealed yet); no row: nothing';

CREATE FUNCTION finance._verify_audit()
	RETURNS TABLE (leaf bigint, record_id bigint, xid xid8, sequence integer,
				   problem text, expected text, found text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_verify_audit_all';
COMMENT ON FUNCTION finance._verify_audit() IS
'for check_integrity(): verify_audit() of the whole log, quietly';

CREATE FUNCTION finance.audit_consistency(old_size bigint,
	new_size bigint DEFAULT NULL,
	OUT old_size bigint, OUT old_root bytea, OUT new_size bigint,
	OUT new_root bytea, OUT proof bytea[])
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_consistency';
COMMENT ON FUNCTION finance.audit_consistency(bigint, bigint) IS
'proof that the audit log of a digest is the beginning of that of a newer one; for verify_consistency()';

-- not strict: null is an error, for a CHECK or a WHERE might take it for true
CREATE FUNCTION finance.verify_inclusion(leaf_hash bytea, leaf_index bigint,
										 tree_size bigint, path bytea[],
										 root bytea)
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_verify_inclusion';
COMMENT ON FUNCTION finance.verify_inclusion(bytea, bigint, bigint, bytea[], bytea) IS
'is the leaf the one of that index, from 0, in the tree of that size and root? (RFC 9162)';

CREATE FUNCTION finance.verify_consistency(old_size bigint, old_root bytea,
										   new_size bigint, new_root bytea,
										   proof bytea[])
	RETURNS boolean
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_verify_consistency';
COMMENT ON FUNCTION finance.verify_consistency(bigint, bytea, bigint, bytea, bytea[]) IS
'is the tree of the old size and root the beginning of the new one? (RFC 9162)';

-- ========================================================================
-- SEAL SECTION (seal.c, seal_*.c, audit_block.c, audit_term.c)
-- ========================================================================

-- ------------------------------------------------------------------------
-- The order of the log is (incarnation, xid, sequence).  The worker numbers the
-- records so, from leaf 0 on, a block at a time, when nothing can come before
-- them any more.  Rows of these tables are added by the extension only; whoever
-- changes them in spite of the guards is found by what the others say.
-- ------------------------------------------------------------------------

CREATE TABLE finance.audit_incarnation (
	incarnation			integer NOT NULL,
	system_identifier	bigint NOT NULL,
	first_block			bigint NOT NULL,
	started_at			timestamptz NOT NULL,
	CONSTRAINT audit_incarnation_pkey PRIMARY KEY (incarnation),
	CONSTRAINT audit_incarnation_positive CHECK (incarnation > 0 AND first_block > 0)
);
COMMENT ON TABLE finance.audit_incarnation IS
'clusters that the audit log was written in, one after another: where it came by a dump, transaction ids begin anew';
COMMENT ON COLUMN finance.audit_incarnation.started_at IS
'when its first sealer began it: told, not proved';
COMMENT ON COLUMN finance.audit_incarnation.system_identifier IS
'of the cluster: records that bear it are of this incarnation';
COMMENT ON COLUMN finance.audit_incarnation.first_block IS
'block from which on records of this incarnation are sealed; those of the one before are all in blocks before it';

-- digest: audit_block.h has it byte by byte
CREATE TABLE finance.audit_block (
	block				bigint NOT NULL,
	incarnation			integer NOT NULL,
	first_leaf			bigint NOT NULL,
	records				integer NOT NULL,
	size				bigint NOT NULL,
	root				bytea NOT NULL,
	previous			bytea NOT NULL,
	digest				bytea NOT NULL,
	first_xid			xid8 NOT NULL,
	first_sequence		integer NOT NULL,
	last_xid			xid8 NOT NULL,
	last_sequence		integer NOT NULL,
	first_id			bigint NOT NULL,
	last_id				bigint NOT NULL,
	first_recorded_at	timestamptz NOT NULL,
	last_recorded_at	timestamptz NOT NULL,
	lsn					pg_lsn NOT NULL,
	timeline			integer NOT NULL,
	sealed_at			timestamptz NOT NULL,
	CONSTRAINT audit_block_pkey PRIMARY KEY (block),
	CONSTRAINT audit_block_size_key UNIQUE (size),
	CONSTRAINT audit_block_positive CHECK (block > 0 AND incarnation > 0 AND records > 0),
	CONSTRAINT audit_block_adds_up CHECK (size = first_leaf + records AND first_leaf >= 0),
	CONSTRAINT audit_block_hashes CHECK (pg_catalog.octet_length(root) = 32
		AND pg_catalog.octet_length(previous) = 32 AND pg_catalog.octet_length(digest) = 32)
);
-- in which blocks may a record be?  Those of long transactions overlap others'.
CREATE INDEX audit_block_ids ON finance.audit_block
	USING gist (pg_catalog.int8range(first_id, last_id, '[]'));
COMMENT ON TABLE finance.audit_block IS
'sealed parts of the audit log, contiguous; each names the tree up to its end and the digest of the one before';
COMMENT ON COLUMN finance.audit_block.first_leaf IS
'number of its first leaf in the tree, from 0';
COMMENT ON COLUMN finance.audit_block.size IS
'leaves of the tree after it';
COMMENT ON COLUMN finance.audit_block.root IS
'RFC 6962 root of the tree of that size';
COMMENT ON COLUMN finance.audit_block.previous IS
'digest of the block before; 32 zero bytes in block 1';
COMMENT ON COLUMN finance.audit_block.digest IS
'SHA-256 over the block''s number, incarnation, size, root, previous, sealed_at, lsn and timeline';
COMMENT ON COLUMN finance.audit_block.first_xid IS
'with first_sequence, place of its first record in the order of the log';
COMMENT ON COLUMN finance.audit_block.first_id IS
'lowest id of its records, which are not in the order of ids';
COMMENT ON COLUMN finance.audit_block.first_recorded_at IS
'lowest recorded_at of its records, which are not in the order of time';
COMMENT ON COLUMN finance.audit_block.lsn IS
'how far the WAL had got when it was sealed';

CREATE TABLE finance.audit_leaves (
	block	bigint NOT NULL,
	leaves	bytea NOT NULL,
	CONSTRAINT audit_leaves_pkey PRIMARY KEY (block)
);
ALTER TABLE finance.audit_leaves ALTER COLUMN leaves SET STORAGE EXTERNAL;
COMMENT ON TABLE finance.audit_leaves IS
'the leaves of each block';
COMMENT ON COLUMN finance.audit_leaves.leaves IS
'for each leaf, in order, 52 bytes: record id (8), xid (8), sequence (4), leaf hash (32); numbers big-endian';

CREATE TABLE finance.audit_node (
	level	smallint NOT NULL,
	index	bigint NOT NULL,
	hash	bytea NOT NULL,
	CONSTRAINT audit_node_pkey PRIMARY KEY (level, index)
);
COMMENT ON TABLE finance.audit_node IS
'roots of the complete subtrees of 2^level leaves from leaf index * 2^level on, for levels from 8 on';

-- one row
CREATE TABLE finance.audit_tree (
	one			boolean NOT NULL DEFAULT true,
	size		bigint NOT NULL,
	frontier	bytea NOT NULL,
	incarnation	integer NOT NULL,
	horizon		xid8 NOT NULL,
	block		bigint NOT NULL,
	digest		bytea NOT NULL,
	CONSTRAINT audit_tree_pkey PRIMARY KEY (one),
	CONSTRAINT audit_tree_one_row CHECK (one)
);
COMMENT ON TABLE finance.audit_tree IS
'where sealing goes on: one row, made from the other tables; _rebuild_audit_tree() makes it again';
COMMENT ON COLUMN finance.audit_tree.frontier IS
'hashes of the complete subtrees that the tree of this size is made of, the largest first';
COMMENT ON COLUMN finance.audit_tree.horizon IS
'all records of this incarnation with a lower xid are sealed';

-- what a term is, and what the bytes are: audit_term.h.  Sorted runs cost an
-- order of magnitude less to write than rows with an index: see seal_term.c.
CREATE TABLE finance.audit_term (
	level		smallint NOT NULL,
	first_leaf	bigint NOT NULL,
	end_leaf	bigint NOT NULL,
	entries		integer NOT NULL,
	terms		bytea NOT NULL,
	CONSTRAINT audit_term_pkey PRIMARY KEY (level, first_leaf)
);
ALTER TABLE finance.audit_term ALTER COLUMN terms SET STORAGE EXTERNAL;
COMMENT ON TABLE finance.audit_term IS
'finds sealed records by trace, row, transfer and account, see _audit_find(); verify_audit() checks it against the records, and _rebuild_audit_terms() makes it again';
COMMENT ON COLUMN finance.audit_term.level IS
'how often it was merged; 100: not to be merged again';
COMMENT ON COLUMN finance.audit_term.terms IS
'sorted entries of 12 bytes: term (8), leaf from first_leaf on (4); big-endian';

CREATE FUNCTION finance._audit_term(kind text, what text, tenant_id integer DEFAULT 0,
	row_key text DEFAULT NULL) RETURNS bigint
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'finance_audit_term';
COMMENT ON FUNCTION finance._audit_term(text, text, integer, text) IS
'the term of a trace, transfer or account (what: its id) or of a row (what: the table)';

CREATE FUNCTION finance._audit_find(term bigint, from_leaf bigint DEFAULT 0,
	to_leaf bigint DEFAULT NULL)
	RETURNS TABLE (leaf bigint, id bigint, xid xid8, sequence integer)
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_find';
COMMENT ON FUNCTION finance._audit_find(bigint, bigint, bigint) IS
'the sealed records that have the term, and perhaps others, in the order of the log';

CREATE FUNCTION finance._seal_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_seal_guard';
COMMENT ON FUNCTION finance._seal_guard IS
'refuses what is not the extension''s own change of what is sealed (LG201)';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_incarnation
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_incarnation ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_block
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_block ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_leaves
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_leaves ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_node
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_node ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_tree
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_tree ENABLE ALWAYS TRIGGER guard;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_term
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_term ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance.seal_audit() RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_seal_audit';
COMMENT ON FUNCTION finance.seal_audit() IS
'seals now what the worker would seal within finance.seal_interval: all records of transactions older than every open one; returns how many';

CREATE FUNCTION finance._rebuild_audit_tree() RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rebuild_audit_tree';
COMMENT ON FUNCTION finance._rebuild_audit_tree() IS
'makes the row of audit_tree again from the blocks, leaves and nodes; returns the size of the tree';

CREATE FUNCTION finance._rebuild_audit_terms() RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_rebuild_audit_terms';
COMMENT ON FUNCTION finance._rebuild_audit_terms() IS
'makes all rows of audit_term again from the records; returns how many leaves they are of';

CREATE FUNCTION finance._audit_lag(OUT unsealed bigint, OUT oldest_at timestamptz,
	OUT newest_at timestamptz, OUT sealed_at timestamptz, OUT horizon xid8,
	OUT holder_pid integer, OUT holder_gid text, OUT more boolean)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_lag';
COMMENT ON FUNCTION finance._audit_lag() IS
'for audit_lag()';

-- reads activity as its caller, who may not see every query
CREATE FUNCTION finance.audit_lag(OUT unsealed bigint, OUT oldest_at timestamptz,
	OUT lag interval, OUT sealed_at timestamptz, OUT horizon xid8, OUT holder_kind text,
	OUT holder_pid integer, OUT holder_gid text, OUT holder_since timestamptz,
	OUT holder_database name, OUT holder_query text, OUT message text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
SELECT l.unsealed, l.oldest_at,
	CASE WHEN l.oldest_at IS NULL THEN interval '0' ELSE clock_timestamp() - l.oldest_at END,
	l.sealed_at, l.horizon, h.kind,
	CASE WHEN h.kind = 'backend' THEN l.holder_pid END,
	CASE WHEN h.kind = 'prepared' THEN l.holder_gid END, h.since, h.database, h.query,
	CASE WHEN l.unsealed = 0 THEN 'all records are sealed'
	ELSE l.unsealed || CASE WHEN l.more THEN ' or more' ELSE '' END || ' unsealed: '
		|| CASE h.kind
		WHEN 'backend' THEN 'process ' || l.holder_pid || ' has a transaction open'
			|| coalesce(' since ' || h.since, '')
		WHEN 'prepared' THEN 'transaction "' || l.holder_gid || '" is prepared since ' || h.since
		ELSE 'the worker, or seal_audit(), will seal them' END
	END
FROM finance._audit_lag() l
LEFT JOIN LATERAL (
	SELECT 'backend' AS kind, a.xact_start AS since, a.datname AS database, a.query
	FROM pg_stat_activity a WHERE a.pid = l.holder_pid AND l.unsealed > 0
	UNION ALL
	SELECT 'prepared', p.prepared, p.database, NULL
	FROM pg_prepared_xacts p WHERE p.gid = l.holder_gid AND l.unsealed > 0) h ON true
$$;
COMMENT ON FUNCTION finance.audit_lag() IS
'how many committed audit records are not sealed yet, since when, and which open or prepared transaction, of any database, holds them up';

-- ========================================================================
-- EXPORT SECTION (audit_export.c, audit_walk.c, audit_month.c)
-- ========================================================================

CREATE FUNCTION finance.audit_export(from_leaf bigint DEFAULT 0,
	to_leaf bigint DEFAULT NULL) RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_export';
COMMENT ON FUNCTION finance.audit_export(bigint, bigint) IS
'the sealed log, from from_leaf until just before to_leaf, as lines of JSON for finance-verify; records of other tenants only as hashes, except for the owner';

-- records of which months were taken out; their leaves stay
CREATE TABLE finance.audit_month (
	month		date NOT NULL,
	first_id	bigint NOT NULL,
	last_id		bigint NOT NULL,
	records		bigint NOT NULL,
	detached_as	text NOT NULL,
	detached_at	timestamptz NOT NULL,
	CONSTRAINT audit_month_pkey PRIMARY KEY (month),
	CONSTRAINT audit_month_in_order CHECK (first_id <= last_id AND records >= 0)
);
COMMENT ON TABLE finance.audit_month IS
'months whose records drop_audit_month() took out of the audit log';
COMMENT ON COLUMN finance.audit_month.month IS
'its first day, in UTC';
COMMENT ON COLUMN finance.audit_month.first_id IS
'with last_id, all ids of the month, whether drawn or not';
COMMENT ON COLUMN finance.audit_month.records IS
'how many there were, all of them sealed';
COMMENT ON COLUMN finance.audit_month.detached_as IS
'the table, in schema finance, that had them then';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON finance.audit_month
	FOR EACH STATEMENT EXECUTE FUNCTION finance._seal_guard();
ALTER TABLE finance.audit_month ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION finance.audit_archive(month date) RETURNS SETOF text
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_archive';
COMMENT ON FUNCTION finance.audit_archive(date) IS
'export, as audit_export() writes it, of all blocks that have records of a month: to be stored before drop_audit_month()';

CREATE FUNCTION finance.drop_audit_month(month date) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_drop_audit_month';
COMMENT ON FUNCTION finance.drop_audit_month(date) IS
'detaches a month of the audit log that was kept for finance.audit_retention days; returns the name of the table it became, which the DBA drops';

CREATE FUNCTION finance.audit_due()
	RETURNS TABLE (month date, partition text, due_at timestamptz, bytes bigint)
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'finance_audit_due';
COMMENT ON FUNCTION finance.audit_due() IS
'months of the audit log that were kept for finance.audit_retention days, which nothing but drop_audit_month() takes out';

-- ========================================================================
-- INTEGRITY AND ACCESS SECTION
-- ========================================================================


CREATE FUNCTION finance._may_see_tenant(tenant_id integer) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_may_see_tenant';
COMMENT ON FUNCTION finance._may_see_tenant(integer) IS
'whether the outer user is a member of the tenant''s role or owns the extension';

CREATE FUNCTION finance._message_ids()
	RETURNS TABLE (tenant_id integer, queue_id bigint, message_id bigint)
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'finance_message_ids';
COMMENT ON FUNCTION finance._message_ids() IS
'for check_integrity(): all messages in queues, without locking all their tables at once';

-- one statement, one snapshot (verify_audit() has one of its own): consistent
-- while transfers go on.  It has so many
-- expressions that compiling them takes longer than the whole.
CREATE FUNCTION finance.check_integrity()
	RETURNS TABLE (invariant text, tenant_id integer, object text, expected text, found text)
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
WITH side AS (
	SELECT t.tenant_id, t.from_account_id AS account_id, t.id, t.from_version AS version,
		CASE WHEN t.status = 'completed' THEN t.amount::numeric ELSE 0 END AS debit,
		0::numeric AS credit,
		CASE WHEN t.status IN ('held', 'review', 'challenged') THEN t.amount::numeric
			WHEN t.hold_id IS NULL OR t.status = 'approved' THEN 0
			ELSE -t.amount::numeric - coalesce(t.released, 0) END AS debit_pending,
		0::numeric AS credit_pending,
		t.from_balance AS balance, coalesce(t.from_held, 0) AS held, t.currency
	FROM finance.transfer t WHERE t.from_version IS NOT NULL
	UNION ALL
	SELECT t.tenant_id, t.to_account_id, t.id, t.to_version,
		0, CASE WHEN t.status = 'completed' THEN t.amount::numeric ELSE 0 END,
		0, CASE WHEN t.status IN ('held', 'review', 'challenged') THEN t.amount::numeric
			WHEN t.hold_id IS NULL OR t.status = 'approved' THEN 0
			ELSE -t.amount::numeric - coalesce(t.released, 0) END,
		t.to_balance, coalesce(t.to_held, 0), t.currency
	FROM finance.transfer t WHERE t.to_version IS NOT NULL
), history AS (
	SELECT s.*, count(*) OVER w AS position,
		sum(s.credit - s.debit) OVER w AS running,
		sum(s.debit_pending) OVER w AS running_held,
		lag(s.id) OVER w AS previous_id
	FROM side s
	WINDOW w AS (PARTITION BY s.tenant_id, s.account_id ORDER BY s.version, s.id)
), moved AS (
	SELECT s.tenant_id, s.account_id, sum(s.debit) AS debits, sum(s.credit) AS credits,
		sum(s.debit_pending) AS debits_pending, sum(s.credit_pending) AS credits_pending
	FROM side s GROUP BY 1, 2
), versions AS (
	SELECT v.tenant_id, v.account_id, count(*) AS n, count(DISTINCT v.version) AS different,
		min(v.version) AS lowest, max(v.version) AS highest
	FROM (SELECT s.tenant_id, s.account_id, s.version FROM side s
		UNION ALL
		SELECT c.tenant_id, c.account_id, c.version FROM finance.account_change c) v
	GROUP BY 1, 2
), reserved AS (
	SELECT r.tenant_id, r.account_id, sum(r.debit) AS debits, sum(r.credit) AS credits
	FROM (SELECT h.tenant_id, h.from_account_id AS account_id,
			h.amount - h.captured - h.released AS debit, 0::numeric AS credit
		FROM finance._hold h WHERE h.status = 'open'
		UNION ALL
		SELECT h.tenant_id, h.to_account_id, 0, h.amount - h.captured - h.released
		FROM finance._hold h WHERE h.status = 'open') r
	GROUP BY 1, 2
), used AS (
	SELECT t.tenant_id, t.hold_id,
		sum(t.amount) FILTER (WHERE t.status IN ('held', 'review', 'challenged')) AS held,
		coalesce(sum(t.amount) FILTER (WHERE t.status = 'completed'), 0) AS captured,
		coalesce(sum(t.amount) FILTER (WHERE t.status IN ('released', 'expired')), 0)
			+ coalesce(sum(t.released), 0) AS released
	FROM finance.transfer t
	WHERE t.hold_id IS NOT NULL AND t.from_version IS NOT NULL
	GROUP BY 1, 2
), dated AS (
	SELECT t.tenant_id, t.from_account_id AS account_id, t.id, t.effective_at,
		-t.amount::numeric AS change
	FROM finance.transfer t WHERE t.effective_at IS NOT NULL AND t.status = 'completed'
	UNION ALL
	SELECT t.tenant_id, t.to_account_id, t.id, t.effective_at, t.amount::numeric
	FROM finance.transfer t WHERE t.effective_at IS NOT NULL AND t.status = 'completed'
), breach (invariant, tenant_id, object, expected, found) AS MATERIALIZED (
-- I1 the book balances, per tenant and currency
SELECT 'I1 debits = credits', a.tenant_id, 'currency ' || a.currency,
	'posted ' || sum(a.debits_posted) || ', pending ' || sum(a.debits_pending),
	'posted ' || sum(a.credits_posted) || ', pending ' || sum(a.credits_pending)
FROM finance._account a
GROUP BY a.tenant_id, a.currency
HAVING sum(a.debits_posted) <> sum(a.credits_posted)
	OR sum(a.debits_pending) <> sum(a.credits_pending)
UNION ALL
-- I2 totals are the sums over the transfers
SELECT 'I2 totals = transfers', a.tenant_id, 'account ' || a.code,
	'debits ' || coalesce(m.debits, 0) || ', credits ' || coalesce(m.credits, 0),
	'debits ' || a.debits_posted || ', credits ' || a.credits_posted
FROM finance._account a
LEFT JOIN moved m ON m.tenant_id = a.tenant_id AND m.account_id = a.account_id
WHERE a.debits_posted <> coalesce(m.debits, 0) OR a.credits_posted <> coalesce(m.credits, 0)
UNION ALL
SELECT 'I2 pending = holds of transfers', a.tenant_id, 'account ' || a.code,
	'debits ' || coalesce(m.debits_pending, 0) || ', credits ' || coalesce(m.credits_pending, 0),
	'debits ' || a.debits_pending || ', credits ' || a.credits_pending
FROM finance._account a
LEFT JOIN moved m ON m.tenant_id = a.tenant_id AND m.account_id = a.account_id
WHERE a.debits_pending <> coalesce(m.debits_pending, 0)
	OR a.credits_pending <> coalesce(m.credits_pending, 0)
UNION ALL
SELECT 'I2 transfers have accounts', m.tenant_id, 'account ' || m.account_id, 'an account', 'none'
FROM moved m
WHERE NOT EXISTS (SELECT FROM finance._account a
	WHERE a.tenant_id = m.tenant_id AND a.account_id = m.account_id)
UNION ALL
SELECT 'I2 balances run on', h.tenant_id, 'account ' || h.account_id || ' transfer ' || h.id,
	h.running::text, h.balance::text
FROM history h WHERE h.balance <> h.running
UNION ALL
SELECT 'I2 one currency', s.tenant_id, 'account ' || a.code || ' transfer ' || s.id,
	a.currency, s.currency
FROM side s JOIN finance._account a ON a.tenant_id = s.tenant_id AND a.account_id = s.account_id
WHERE a.currency <> s.currency
UNION ALL
SELECT 'I2 account has tenant and currency', a.tenant_id, 'account ' || a.code,
	'tenant ' || a.tenant_id || ', ' || a.currency || ' of ' || a.minor_units || ' decimals',
	'none'
FROM finance._account a
WHERE NOT EXISTS (SELECT FROM finance.tenant t WHERE t.tenant_id = a.tenant_id)
	OR NOT EXISTS (SELECT FROM finance.currency c
		WHERE c.code = a.currency AND c.minor_units = a.minor_units)
UNION ALL
SELECT 'I2 account has a type', a.tenant_id, 'account ' || a.code, a.type, 'none'
FROM finance._account a
WHERE NOT EXISTS (SELECT FROM finance.account_type t
	WHERE t.type = a.type AND (t.tenant_id = a.tenant_id OR t.builtin))
UNION ALL
SELECT 'I2 parents form a tree', a.tenant_id, 'account ' || a.code,
	'below an account without a parent, at most 32 levels', 'parent ' || a.parent_id
FROM finance._account a
WHERE a.parent_id IS NOT NULL AND NOT EXISTS (SELECT
	FROM (WITH RECURSIVE tree AS (
			SELECT r.tenant_id, r.account_id, 1 AS depth
			FROM finance._account r WHERE r.parent_id IS NULL
			UNION ALL
			SELECT c.tenant_id, c.account_id, p.depth + 1
			FROM tree p
			JOIN finance._account c ON c.tenant_id = p.tenant_id AND c.parent_id = p.account_id
			WHERE p.depth < 32)
		SELECT tree.tenant_id, tree.account_id FROM tree) t
	WHERE t.tenant_id = a.tenant_id AND t.account_id = a.account_id)
UNION ALL
-- I3 versions count every change, without a gap
SELECT 'I3 version = changes', a.tenant_id, 'account ' || a.code,
	'versions 1 to ' || a.version,
	coalesce(v.n, 0) || ' changes, versions ' || coalesce(v.lowest, 0) || ' to '
		|| coalesce(v.highest, 0) || ', ' || coalesce(v.different, 0) || ' different'
FROM finance._account a
LEFT JOIN versions v ON v.tenant_id = a.tenant_id AND v.account_id = a.account_id
WHERE a.version <> coalesce(v.n, 0) OR a.version <> coalesce(v.different, 0)
	OR a.version <> coalesce(v.highest, 0) OR (a.version > 0 AND v.lowest <> 1)
UNION ALL
SELECT 'I3 id order = version order', h.tenant_id, 'account ' || h.account_id || ' version ' || h.version,
	'an id above ' || h.previous_id, h.id::text
FROM history h WHERE h.id <= h.previous_id
UNION ALL
-- I4 an acknowledged key stands for exactly one transfer
SELECT 'I4 key has its transfer', k.tenant_id, 'key ' || k.key, 'transfer ' || k.transfer_id, 'none'
FROM finance.idempotency_key k
WHERE NOT EXISTS (SELECT FROM finance.transfer t
	WHERE t.tenant_id = k.tenant_id AND t.id = k.transfer_id)
UNION ALL
SELECT 'I4 transfer has one key', k.tenant_id, 'transfer ' || k.transfer_id, '1 key', count(*) || ' keys'
FROM finance.idempotency_key k
GROUP BY k.tenant_id, k.transfer_id HAVING count(*) > 1
UNION ALL
-- I5 what is held and available
SELECT 'I5 held = open holds', a.tenant_id, 'account ' || a.code,
	'debits ' || coalesce(r.debits, 0) || ', credits ' || coalesce(r.credits, 0),
	'debits ' || a.debits_pending || ', credits ' || a.credits_pending
FROM finance._account a
LEFT JOIN reserved r ON r.tenant_id = a.tenant_id AND r.account_id = a.account_id
WHERE a.debits_pending <> coalesce(r.debits, 0) OR a.credits_pending <> coalesce(r.credits, 0)
UNION ALL
SELECT 'I5 hold = its transfers', coalesce(h.tenant_id, u.tenant_id),
	'hold ' || coalesce(h.hold_id, u.hold_id),
	'held ' || coalesce(u.held, 0) || ', captured ' || coalesce(u.captured, 0)
		|| ', released ' || coalesce(u.released, 0),
	'held ' || coalesce(h.amount, 0) || ', captured ' || coalesce(h.captured, 0)
		|| ', released ' || coalesce(h.released, 0)
FROM finance._hold h
FULL JOIN used u ON u.tenant_id = h.tenant_id AND u.hold_id = h.hold_id
WHERE (h.amount, h.captured, h.released) IS DISTINCT FROM (u.held, u.captured, u.released)
UNION ALL
SELECT 'I5 held runs on', h.tenant_id, 'account ' || h.account_id || ' transfer ' || h.id,
	h.running_held::text, h.held::text
FROM history h WHERE h.held <> h.running_held
UNION ALL
SELECT 'I5 hold and its transfers between the same accounts', t.tenant_id,
	'hold ' || t.hold_id || ' transfer ' || t.id,
	'from ' || h.from_account_id || ' to ' || h.to_account_id,
	'from ' || t.from_account_id || ' to ' || t.to_account_id
FROM finance._hold h
JOIN finance.transfer t ON t.tenant_id = h.tenant_id AND t.hold_id = h.hold_id
WHERE (t.from_account_id, t.to_account_id) <> (h.from_account_id, h.to_account_id)
UNION ALL
-- what is parked is a transfer, a hold and a review, while it is open
SELECT 'I5 review = parked hold', coalesce(r.tenant_id, h.tenant_id),
	'transfer ' || coalesce(r.transfer_id, h.hold_id),
	coalesce(r.kind || ' of ' || r.amount || ' from ' || r.from_account_id || ' to '
		|| r.to_account_id || ' until ' || (r.expires_at AT TIME ZONE 'UTC'), 'none'),
	coalesce(h.parked || ' of ' || h.amount - h.captured - h.released || ' from '
		|| h.from_account_id || ' to ' || h.to_account_id || ' until '
		|| (h.expires_at AT TIME ZONE 'UTC'), 'none')
FROM (SELECT * FROM finance.risk_review r WHERE r.status = 'open') r
FULL JOIN (SELECT * FROM finance._hold h WHERE h.status = 'open' AND h.parked IS NOT NULL) h
	ON h.tenant_id = r.tenant_id AND h.hold_id = r.transfer_id
WHERE (r.kind, r.amount, r.from_account_id, r.to_account_id, r.expires_at)
	IS DISTINCT FROM (h.parked, h.amount - h.captured - h.released, h.from_account_id,
		h.to_account_id, h.expires_at)
UNION ALL
SELECT 'I5 review has its transfer', coalesce(r.tenant_id, t.tenant_id),
	'transfer ' || coalesce(r.transfer_id, t.id),
	coalesce(r.kind || ' of ' || r.amount || ' ' || r.currency, 'none'),
	coalesce(t.status || ' of ' || t.amount || ' ' || t.currency, 'none')
FROM finance.risk_review r
FULL JOIN (SELECT * FROM finance.transfer t WHERE t.status IN ('review', 'challenged')) t
	ON t.tenant_id = r.tenant_id AND t.id = r.transfer_id
WHERE (CASE r.kind WHEN 'challenge' THEN 'challenged' ELSE r.kind END, r.amount, r.currency)
	IS DISTINCT FROM (t.status, t.amount, t.currency)
UNION ALL
SELECT 'I5 review ends as its transfer', coalesce(r.tenant_id, t.tenant_id),
	'transfer ' || coalesce(r.transfer_id, t.hold_id),
	coalesce(r.status, 'open'), coalesce(t.status, 'none')
FROM (SELECT * FROM finance.risk_review r WHERE r.status <> 'open') r
FULL JOIN (SELECT DISTINCT ON (t.tenant_id, t.hold_id) t.tenant_id, t.hold_id, t.id, t.status, t.amount
	FROM finance.transfer t
	WHERE (t.tenant_id, t.hold_id) IN (SELECT o.tenant_id, o.transfer_id FROM finance.risk_review o)
		AND t.id > t.hold_id
	ORDER BY t.tenant_id, t.hold_id, t.id) t
	ON t.tenant_id = r.tenant_id AND t.hold_id = r.transfer_id
WHERE r.settled_id IS DISTINCT FROM t.id OR r.amount::numeric <> t.amount::numeric
	OR t.status <> ALL (CASE
		WHEN r.status IN ('approved', 'confirmed') AND r.was_hold THEN '{approved}'
		WHEN r.status IN ('approved', 'confirmed') THEN '{completed}'
		WHEN r.status IN ('rejected', 'failed') THEN '{released}'
		ELSE '{expired, completed, approved}' END::text[])
UNION ALL
SELECT 'I5 open challenge has a token', coalesce(r.tenant_id, c.tenant_id),
	'transfer ' || coalesce(r.transfer_id, c.transfer_id),
	CASE WHEN r.transfer_id IS NULL THEN 'none' ELSE 'a token' END,
	CASE WHEN c.transfer_id IS NULL THEN 'none' ELSE 'a token' END
FROM (SELECT * FROM finance.risk_review r WHERE r.status = 'open' AND r.kind = 'challenge') r
FULL JOIN finance._challenge c ON c.tenant_id = r.tenant_id AND c.transfer_id = r.transfer_id
WHERE r.transfer_id IS NULL OR c.transfer_id IS NULL
UNION ALL
SELECT 'I5 alert has its transfers', coalesce(l.tenant_id, h.tenant_id),
	'alert ' || coalesce(l.alert_id, h.alert_id),
	CASE WHEN l.alert_id IS NULL THEN 'none' ELSE 'transfers of account ' || l.account_id END,
	coalesce(h.transfers || ' transfers, ' || h.others || ' of them of other accounts', 'none')
FROM finance._alert l
FULL JOIN (SELECT h.tenant_id, h.alert_id, count(*) AS transfers,
		count(*) FILTER (WHERE t.from_account_id IS DISTINCT FROM o.account_id) AS others
	FROM finance.alert_transfer h
	LEFT JOIN finance._alert o ON o.tenant_id = h.tenant_id AND o.alert_id = h.alert_id
	LEFT JOIN finance.transfer t ON t.tenant_id = h.tenant_id AND t.id = h.transfer_id
	GROUP BY h.tenant_id, h.alert_id) h
	ON h.tenant_id = l.tenant_id AND h.alert_id = l.alert_id
WHERE l.alert_id IS NULL OR h.alert_id IS NULL OR h.others > 0
UNION ALL
SELECT 'I5 what is parked has an alert', t.tenant_id, 'transfer ' || t.id,
	'an alert', 'none'
FROM finance.transfer t
WHERE t.status IN ('review', 'challenged') AND NOT EXISTS (SELECT
	FROM finance.alert_transfer h WHERE h.tenant_id = t.tenant_id AND h.transfer_id = t.id)
UNION ALL
SELECT 'I5 closed accounts are empty', a.tenant_id, 'account ' || a.code, 'nothing',
	'balance ' || a.credits_posted - a.debits_posted || ', pending '
		|| a.debits_pending || ' and ' || a.credits_pending
FROM finance._account a
WHERE a.status = 'closed' AND (a.credits_posted <> a.debits_posted
	OR a.debits_pending <> 0 OR a.credits_pending <> 0)
UNION ALL
-- value dates
SELECT 'I2 value dates = transfers', coalesce(v.tenant_id, d.tenant_id),
	'account ' || coalesce(v.account_id, d.account_id) || ' transfer ' || coalesce(v.transfer_id, d.id),
	coalesce(d.change || ' on ' || (d.effective_at AT TIME ZONE 'UTC') || ', in all ' || d.total, 'none'),
	coalesce(v.change || ' on ' || (v.effective_at AT TIME ZONE 'UTC') || ', in all ' || v.total, 'none')
FROM finance.value_transfer v
FULL JOIN (SELECT x.*, sum(x.change) OVER (PARTITION BY x.tenant_id, x.account_id ORDER BY x.id) AS total
	FROM dated x) d
	ON d.tenant_id = v.tenant_id AND d.account_id = v.account_id AND d.id = v.transfer_id
WHERE (v.change, v.effective_at, v.total) IS DISTINCT FROM (d.change, d.effective_at, d.total)
UNION ALL
SELECT 'I2 value days = transfers', coalesce(v.tenant_id, d.tenant_id),
	'account ' || coalesce(v.account_id, d.account_id) || ' day ' || coalesce(v.day, d.day),
	coalesce(d.change::text, 'none'), coalesce(v.change::text, 'none')
FROM finance.value_day v
FULL JOIN (SELECT x.tenant_id, x.account_id, (x.effective_at AT TIME ZONE 'UTC')::date AS day,
		sum(x.change) AS change
	FROM dated x GROUP BY 1, 2, 3) d
	ON d.tenant_id = v.tenant_id AND d.account_id = v.account_id AND d.day = v.day
WHERE v.change IS DISTINCT FROM d.change
UNION ALL
-- links
SELECT 'I2 reversed at most once', t.tenant_id, 'transfer ' || t.id, 'at most ' || t.amount,
	sum(r.amount)::text
FROM finance.reversal r
JOIN finance.transfer t ON t.tenant_id = r.tenant_id AND t.id = r.transfer_id
GROUP BY t.tenant_id, t.id, t.amount HAVING sum(r.amount) > t.amount::numeric
UNION ALL
SELECT 'I2 reversal goes back', r.tenant_id, 'transfer ' || t.id,
	'from ' || o.to_account_id || ' to ' || o.from_account_id || ' what was completed',
	'from ' || t.from_account_id || ' to ' || t.to_account_id || ' what was ' || o.status
FROM finance.reversal r
JOIN finance.transfer t ON t.tenant_id = r.tenant_id AND t.id = r.reversal_id
JOIN finance.transfer o ON o.tenant_id = r.tenant_id AND o.id = r.transfer_id
WHERE (t.from_account_id, t.to_account_id) <> (o.to_account_id, o.from_account_id)
	OR o.status <> 'completed'
UNION ALL
SELECT 'I2 reversal has its transfers', coalesce(r.tenant_id, t.tenant_id),
	'transfer ' || coalesce(r.reversal_id, t.id), coalesce(t.amount::text, 'a transfer'),
	coalesce(r.amount::text, 'none')
FROM finance.reversal r
FULL JOIN (SELECT t.tenant_id, t.id, t.reverses_id, t.amount::numeric AS amount
	FROM finance.transfer t WHERE t.reverses_id IS NOT NULL AND t.status = 'completed') t
	ON t.tenant_id = r.tenant_id AND t.id = r.reversal_id AND t.reverses_id = r.transfer_id
WHERE r.amount IS DISTINCT FROM t.amount
UNION ALL
SELECT 'I2 journal has its transfers', coalesce(j.tenant_id, t.tenant_id),
	'journal ' || coalesce(j.journal_id, t.journal_id),
	coalesce(j.transfer_ids::text, 'none'), coalesce(t.ids::text, 'none')
FROM finance.journal j
FULL JOIN (SELECT t.tenant_id, t.journal_id, array_agg(t.id ORDER BY t.id) AS ids
	FROM finance.transfer t WHERE t.journal_id IS NOT NULL GROUP BY 1, 2) t
	ON t.tenant_id = j.tenant_id AND t.journal_id = j.journal_id
WHERE j.transfer_ids IS DISTINCT FROM t.ids
UNION ALL
SELECT 'I2 exchange has its transfers', x.tenant_id, 'exchange ' || x.journal_id,
	concat_ws(', ', x.amount, x.bought, nullif(abs(x.carried), 0)),
	coalesce(t.amounts, 'none')
FROM finance.exchange x
LEFT JOIN (SELECT t.tenant_id, t.journal_id,
		array_agg(t.amount::numeric ORDER BY t.id) AS moved,
		array_agg(t.from_account_id ORDER BY t.id) AS payers,
		array_agg(t.to_account_id ORDER BY t.id) AS payees,
		string_agg(t.amount::text, ', ' ORDER BY t.id) AS amounts
	FROM finance.transfer t
	WHERE t.journal_id IS NOT NULL AND t.status = 'completed' GROUP BY 1, 2) t
	ON t.tenant_id = x.tenant_id AND t.journal_id = x.journal_id
WHERE t.moved IS DISTINCT FROM array_remove(ARRAY[x.amount::numeric, x.bought::numeric,
		nullif(abs(x.carried), 0)], NULL)
	OR t.payers IS DISTINCT FROM array_remove(ARRAY[x.from_account_id, x.liquidity_to_id,
		CASE sign(x.carried) WHEN 1 THEN x.liquidity_to_id WHEN -1 THEN x.rounding_account_id END], NULL)
	OR t.payees IS DISTINCT FROM array_remove(ARRAY[x.liquidity_from_id, x.to_account_id,
		CASE sign(x.carried) WHEN 1 THEN x.rounding_account_id WHEN -1 THEN x.liquidity_to_id END], NULL)
UNION ALL
-- differences are carried to their rounding account but for less than a unit
SELECT 'I2 differences carried', a.tenant_id, 'account ' || a.code,
	'carried ' || coalesce(d.carried, 0) || ' and less than a unit of '
		|| coalesce(d.difference, 0),
	'residue ' || coalesce(r.residue, 0)
FROM finance._account a
LEFT JOIN (SELECT x.tenant_id, x.rounding_account_id AS account_id,
		sum(x.difference) AS difference, sum(x.carried) AS carried
	FROM finance.exchange x WHERE x.rounding_account_id IS NOT NULL GROUP BY 1, 2) d
	ON d.tenant_id = a.tenant_id AND d.account_id = a.account_id
LEFT JOIN finance.exchange_residue r
	ON r.tenant_id = a.tenant_id AND r.account_id = a.account_id
WHERE coalesce(d.difference, 0) <> coalesce(d.carried, 0) + coalesce(r.residue, 0)
	OR trunc(r.residue, a.minor_units) <> 0
UNION ALL
SELECT 'I5 available above the floor', a.tenant_id, 'account ' || a.code,
	'at least ' || a.min_available,
	(a.credits_posted - a.debits_posted - a.debits_pending)::text
FROM finance._account a
WHERE a.credits_posted - a.debits_posted - a.debits_pending < a.min_available
UNION ALL
SELECT 'I5 balance below the ceiling', a.tenant_id, 'account ' || a.code,
	'at most ' || a.max_balance,
	(a.credits_posted - a.debits_posted + a.credits_pending)::text
FROM finance._account a
WHERE a.credits_posted - a.debits_posted + a.credits_pending > a.max_balance
UNION ALL
-- I6 the audit log is what was sealed, and has every change of every account
SELECT 'I6 ' || v.problem, coalesce(
		(regexp_match(v.expected, '^tenant (\d+), account '))[1]::integer, r.tenant_id),
	concat_ws(' ', 'leaf ' || v.leaf, 'record ' || v.record_id,
		'xid ' || v.xid || ' sequence ' || v.sequence),
	v.expected, v.found
FROM finance._verify_audit() v
LEFT JOIN finance.audit_record r ON r.id = v.record_id
UNION ALL
-- I7 each total of risk = what passed from its first transfer on.  Where a
-- part of that is detached it may be more; a type's first window, which began
-- while others were paying, may be less, and is not looked at.
SELECT 'I7 risk total = transfers', m.tenant_id,
	concat_ws(' ', 'measure ' || m.measure_id, 'from ' || nullif(m.account_id, 0),
		'to ' || nullif(m.other_id, 0), nullif(m.class, '')),
	s.n || ' of ' || s.amount, m.count || ' of ' || m.amount
FROM (SELECT r.tenant_id, r.account_id, r.other_id, r.class, x.scope, x.measure_id,
		x.band_min, x.band_max, b.since_id, b.amount, b.count
	FROM finance.risk_total r
	CROSS JOIN LATERAL finance._risk_totals(r.state) b
	JOIN finance.risk_measure x ON x.tenant_id = r.tenant_id AND x.measure_id = b.measure_id
	WHERE b.count IS NOT NULL AND NOT (x.scope = 'type' AND b.seeded)) m
CROSS JOIN LATERAL (SELECT coalesce(sum(c.amount - coalesce(h.released, 0)), 0) AS amount,
		count(*) FILTER (WHERE h.captured > 0 OR h.status = 'open' OR h.status IS NULL) AS n
	FROM (SELECT t.* FROM finance.transfer t
		WHERE m.scope NOT IN ('counterparty', 'type') AND t.from_account_id = m.account_id
			AND (m.scope <> 'pair' OR t.to_account_id = m.other_id)
			AND (m.scope <> 'account_type' OR 'type ' || t.type = m.class)
			AND (m.scope <> 'device' OR 'device ' || (t.metadata ->> 'device') = m.class)
			AND t.id >= m.since_id
		UNION ALL
		SELECT t.* FROM finance.transfer t
		WHERE m.scope = 'counterparty' AND t.to_account_id = m.other_id AND t.id >= m.since_id
		UNION ALL
		SELECT t.* FROM finance.transfer t
		WHERE m.scope = 'type' AND t.currency || ' ' || t.type = m.class
			AND t.tenant_id = m.tenant_id AND t.id >= m.since_id) c
	LEFT JOIN LATERAL (SELECT y.released, y.captured, y.status FROM finance._hold y
		WHERE y.tenant_id = c.tenant_id AND y.hold_id = c.hold_id OFFSET 0) h ON true
	WHERE c.tenant_id = m.tenant_id AND c.from_version IS NOT NULL
		AND (c.hold_id = c.id OR c.hold_id IS NULL AND c.status = 'completed')
		AND (m.band_min IS NULL OR c.amount >= m.band_min)
		AND (m.band_max IS NULL OR c.amount < m.band_max)) s
WHERE (m.amount, m.count) <> (s.amount, s.n)
	AND (m.amount < s.amount OR m.count < s.n OR m.since_id >= (SELECT
			min((regexp_match(pg_get_expr(p.relpartbound, p.oid), '\d+'))[1]::bigint)
		FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
		WHERE i.inhparent = 'finance.transfer'::regclass) OR m.since_id IS NULL)
UNION ALL
-- I8 a message is in one place only, and in a queue that exists; archived ones
-- outlive theirs
SELECT 'I8 message in one place', m.tenant_id, 'queue ' || m.queue_id || ' message ' || m.message_id,
	'1 copy', count(*) || ' copies'
FROM (SELECT w.tenant_id, w.queue_id, w.message_id FROM finance._message_ids() w
	UNION ALL
	SELECT d.tenant_id, d.queue_id, d.message_id FROM finance.message_archive d) m
GROUP BY m.tenant_id, m.queue_id, m.message_id HAVING count(*) > 1
UNION ALL
SELECT 'I8 message has a queue', m.tenant_id, 'queue ' || m.queue_id, 'a queue', 'none'
FROM (SELECT DISTINCT w.tenant_id, w.queue_id FROM finance._message_ids() w) m
WHERE NOT EXISTS (SELECT FROM finance.queue q
	WHERE q.tenant_id = m.tenant_id AND q.queue_id = m.queue_id)
UNION ALL
SELECT 'I8 ' || r.kind || ' has a queue', r.tenant_id, r.kind || ' ' || r.name,
	'queue ' || r.queue_id, 'none'
FROM (SELECT 'binding' AS kind, b.tenant_id, b.pattern AS name, b.queue_id
	FROM finance.binding b
	UNION ALL
	SELECT 'default', d.tenant_id, u.name, u.queue_id
	FROM finance.queue_default d, LATERAL (VALUES ('dead_letter', d.dead_letter_queue_id),
		('alternate', d.alternate_queue_id)) AS u (name, queue_id)
	WHERE u.queue_id IS NOT NULL
	UNION ALL
	SELECT 'subscription', s.tenant_id, s.channel, s.queue_id
	FROM finance.subscription s) r
WHERE NOT EXISTS (SELECT FROM finance.queue q
	WHERE q.tenant_id = r.tenant_id AND q.queue_id = r.queue_id)
UNION ALL
-- an open half message has somebody to ask
SELECT 'I8 half message has a producer group', h.tenant_id, 'half message ' || h.half_id,
	'producer group ' || h.producer_group, 'none'
FROM finance.half_message h
WHERE NOT EXISTS (SELECT FROM finance.producer_group g
		WHERE g.tenant_id = h.tenant_id AND g.name = h.producer_group)
	AND NOT EXISTS (SELECT FROM finance.half_answer a
		WHERE a.tenant_id = h.tenant_id AND a.half_id = h.half_id)
UNION ALL
SELECT 'I8 check has a half message', c.tenant_id,
	'half message ' || c.half_id || ' attempt ' || c.attempt, 'a half message', 'none'
FROM finance.half_check c
WHERE NOT EXISTS (SELECT FROM finance.half_message h
	WHERE h.tenant_id = c.tenant_id AND h.half_id = c.half_id)
UNION ALL
-- I8 logs: each has its row, its messages are its own, each group is somewhere
SELECT 'I8 log has a queue', l.tenant_id, 'log ' || l.queue_id, 'a queue of the kind log', coalesce(q.kind, 'none')
FROM finance.log_queue l
LEFT JOIN finance.queue q ON q.tenant_id = l.tenant_id AND q.queue_id = l.queue_id
WHERE q.kind IS DISTINCT FROM 'log'
UNION ALL
SELECT 'I8 queue has its log', q.tenant_id, 'queue ' || q.queue_id, 'a log', 'none'
FROM finance.queue q WHERE q.kind = 'log' AND NOT EXISTS (SELECT FROM finance.log_queue l
	WHERE l.tenant_id = q.tenant_id AND l.queue_id = q.queue_id)
UNION ALL
SELECT 'I8 message in a log once', m.tenant_id, 'queue ' || m.queue_id || ' message ' || m.msg_id,
	'1 copy', count(*) || ' copies'
FROM finance.message_log m
GROUP BY m.tenant_id, m.queue_id, m.msg_id HAVING count(*) > 1
UNION ALL
SELECT 'I8 message has a log', m.tenant_id, 'queue ' || m.queue_id, 'a log', 'none'
FROM (SELECT DISTINCT w.tenant_id, w.queue_id FROM finance.message_log w) m
WHERE NOT EXISTS (SELECT FROM finance.log_queue l
	WHERE l.tenant_id = m.tenant_id AND l.queue_id = m.queue_id)
UNION ALL
SELECT 'I8 group has a log and a position', g.tenant_id, 'group ' || g.name || ' of queue ' || g.queue_id,
	'both', concat_ws(', ', CASE WHEN l.queue_id IS NULL THEN 'no log' END, CASE WHEN p.n = 0 THEN 'no position' END)
FROM finance.consumer_group g
LEFT JOIN finance.log_queue l ON l.tenant_id = g.tenant_id AND l.queue_id = g.queue_id
CROSS JOIN LATERAL (SELECT count(*) AS n FROM finance.group_position w
	WHERE w.tenant_id = g.tenant_id AND w.group_id = g.group_id) p
WHERE l.queue_id IS NULL OR p.n = 0
UNION ALL
SELECT 'I8 position has a group', p.tenant_id, 'group ' || p.group_id, 'a group', 'none'
FROM (SELECT DISTINCT w.tenant_id, w.group_id FROM finance.group_position w) p
WHERE NOT EXISTS (SELECT FROM finance.consumer_group g
	WHERE g.tenant_id = p.tenant_id AND g.group_id = p.group_id)
UNION ALL
-- the number of a move is drawn under the group: never twice
SELECT 'I8 position counted once', p.tenant_id, 'group ' || p.group_id || ' move ' || p.seq,
	'1 row', count(*) || ' rows'
FROM finance.group_position p
GROUP BY p.tenant_id, p.group_id, p.seq HAVING count(*) > 1
)
-- a breach tells accounts and amounts: only to whom they may be told; one of the
-- audit log that is of no tenant tells numbers and hashes: to everybody
SELECT b.invariant, b.tenant_id, b.object, b.expected, b.found
FROM breach b WHERE b.tenant_id IS NULL OR finance._may_see_tenant(b.tenant_id)
$$;
COMMENT ON FUNCTION finance.check_integrity() IS
'one row for each breach of an invariant in the tenants the user is a member of, and of the audit log: what, where, expected and found; no row when all hold';

-- ------------------------------------------------------------------------
-- who may do what: nobody anything, until the owner grants it
-- ------------------------------------------------------------------------

CREATE FUNCTION finance.grant_access(role regrole, level text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'finance_grant_access';
COMMENT ON FUNCTION finance.grant_access(regrole, text) IS
'grants a role what level app, operator, auditor or witness needs';

REVOKE ALL ON ALL ROUTINES IN SCHEMA finance FROM PUBLIC;

ALTER TABLE finance._account ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._account USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.account_change ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.account_change USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.transfer ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.transfer USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.account_type ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.account_type
	USING (builtin OR finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.transfer_type ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.transfer_type
	USING (builtin OR finance._is_tenant_visible(tenant_id));
ALTER TABLE finance._hold ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._hold USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.journal ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.journal USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.reversal ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.reversal USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.value_transfer ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.value_transfer USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.value_day ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.value_day USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.exchange ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.exchange USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.exchange_residue ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.exchange_residue USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.idempotency_key ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.idempotency_key USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_rule ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_rule USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.ruleset ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.ruleset USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.holiday ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.holiday USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_list ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_list USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.rule_limit ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.rule_limit USING (finance._is_tenant_visible(tenant_id));
-- what is paused everywhere is so for all
ALTER TABLE finance.transfer_pause ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.transfer_pause
	USING (scope = 'everywhere' OR finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.rate_limit ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.rate_limit USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_decision ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_decision USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_review ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_review USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance._challenge ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._challenge USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance._alert ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._alert USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.alert_transfer ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.alert_transfer USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.alert_comment ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.alert_comment USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.producer_group ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.producer_group USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.half_message ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.half_message USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.half_check ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.half_check USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.half_answer ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.half_answer USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.tenant ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.tenant USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.message_archive ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.message_archive USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance._dedup ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._dedup USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.inbox USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_measure ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_measure USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.risk_total ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.risk_total USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance.audit_subject ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance.audit_subject USING (finance._is_tenant_visible(tenant_id));
ALTER TABLE finance._audit_secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_rows ON finance._audit_secret USING (finance._is_tenant_visible(tenant_id));
-- without policies of their own: rows are seen through the parents only
ALTER TABLE finance._dedup_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance._dedup_1 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance._dedup_2 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance.inbox_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance.inbox_1 ENABLE ROW LEVEL SECURITY;
ALTER TABLE finance.inbox_2 ENABLE ROW LEVEL SECURITY;

-- ------------------------------------------------------------------------
-- what pg_dump writes: the rows of these tables.  Partitions are no members of
-- the extension and are dumped as ordinary tables.
-- ------------------------------------------------------------------------

SELECT pg_catalog.pg_extension_config_dump('finance.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('finance._tenant_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance._id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.currency', 'WHERE NOT iso');
SELECT pg_catalog.pg_extension_config_dump('finance.account_type', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('finance.transfer_type', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('finance._account', '');
SELECT pg_catalog.pg_extension_config_dump('finance.account_change', '');
SELECT pg_catalog.pg_extension_config_dump('finance.idempotency_key', '');
SELECT pg_catalog.pg_extension_config_dump('finance._hold', '');
SELECT pg_catalog.pg_extension_config_dump('finance.journal', '');
SELECT pg_catalog.pg_extension_config_dump('finance.reversal', '');
SELECT pg_catalog.pg_extension_config_dump('finance.value_transfer', '');
SELECT pg_catalog.pg_extension_config_dump('finance.value_day', '');
SELECT pg_catalog.pg_extension_config_dump('finance.exchange', '');
SELECT pg_catalog.pg_extension_config_dump('finance.exchange_residue', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_incarnation', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_block', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_leaves', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_node', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_tree', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_term', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_month', '');
SELECT pg_catalog.pg_extension_config_dump('finance.producer_group', '');
SELECT pg_catalog.pg_extension_config_dump('finance.half_message', '');
SELECT pg_catalog.pg_extension_config_dump('finance.half_check', '');
SELECT pg_catalog.pg_extension_config_dump('finance.half_answer', '');
SELECT pg_catalog.pg_extension_config_dump('finance.risk_rule', '');
SELECT pg_catalog.pg_extension_config_dump('finance.ruleset', '');
SELECT pg_catalog.pg_extension_config_dump('finance.holiday', '');
SELECT pg_catalog.pg_extension_config_dump('finance.risk_list', '');
SELECT pg_catalog.pg_extension_config_dump('finance.rule_limit', '');
SELECT pg_catalog.pg_extension_config_dump('finance.risk_decision', '');
SELECT pg_catalog.pg_extension_config_dump('finance._measure_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('finance.risk_measure', '');
SELECT pg_catalog.pg_extension_config_dump('finance.transfer_pause', '');
SELECT pg_catalog.pg_extension_config_dump('finance.rate_limit', '');
SELECT pg_catalog.pg_extension_config_dump('finance.risk_review', '');
SELECT pg_catalog.pg_extension_config_dump('finance._challenge', '');
SELECT pg_catalog.pg_extension_config_dump('finance._alert', '');
SELECT pg_catalog.pg_extension_config_dump('finance.alert_transfer', '');
SELECT pg_catalog.pg_extension_config_dump('finance.alert_comment', '');
SELECT pg_catalog.pg_extension_config_dump('finance.audit_subject', '');
SELECT pg_catalog.pg_extension_config_dump('finance._audit_secret', '');
SELECT pg_catalog.pg_extension_config_dump('finance._dedup_0', '');
SELECT pg_catalog.pg_extension_config_dump('finance._dedup_1', '');
SELECT pg_catalog.pg_extension_config_dump('finance._dedup_2', '');
SELECT pg_catalog.pg_extension_config_dump('finance.inbox_0', '');
SELECT pg_catalog.pg_extension_config_dump('finance.inbox_1', '');
SELECT pg_catalog.pg_extension_config_dump('finance.inbox_2', '');
