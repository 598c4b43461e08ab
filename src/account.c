/*
 * account.c
 *		Accounts: open, status, limits, balance.
 *
 * Owns nothing between calls.  Changes lock the one account FOR NO KEY UPDATE,
 * raise its version by one and write a row of finance.account_change and an
 * audit record, so that versions have no gap and every change a reason.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "query.h"
#include "store.h"

static FinQuery select_currency =
{
	.sql = "SELECT minor_units::pg_catalog.int8 FROM finance.currency WHERE code = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_account =
{
	.sql = "INSERT INTO finance._account (account_id, tenant_id, minor_units,"
	" created_at, min_available, max_balance, currency, type, code, metadata)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
	" ON CONFLICT (tenant_id, code) DO NOTHING",
	.nargs = 10,
	.argtypes = {INT8OID, INT4OID, INT2OID, TIMESTAMPTZOID, NUMERICOID,
	NUMERICOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery update_status =
{
	.sql = "UPDATE finance._account SET status = $3, version = $4"
	" WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, TEXTOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery update_limits =
{
	.sql = "UPDATE finance._account SET min_available = $3, max_balance = $4,"
	" version = $5 WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, NUMERICOID, NUMERICOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery insert_change =
{
	.sql = "INSERT INTO finance.account_change (tenant_id, account_id, version,"
	" change, old_value, new_value, reason, actor, changed_at)"
	" VALUES ($1, $2, $3, $4, $5::pg_catalog.jsonb, $6::pg_catalog.jsonb, $7, $8, $9)",
	.nargs = 9,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, TIMESTAMPTZOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery select_balance =
{
	.sql = "SELECT credits_posted - debits_posted FROM finance._account"
	" WHERE tenant_id = $1 AND code = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static void
refuse_unknown(const char *code)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_ACCOUNT),
			errmsg("account \"%s\" does not exist", code),
			errhint("Open it with finance.create_account()."));
}

/* decimals of the currency */
static int
currency_scale(const char *currency)
{
	Datum		values[1] = {CStringGetTextDatum(currency)};

	if (fin_query_run(&select_currency, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_CURRENCY),
				errmsg("currency \"%s\" does not exist", currency),
				errhint("Add it with finance.create_currency()."));
	return (int) fin_query_int64(0, 1);
}

/* limits of an account, decoded; absent ones have their flag off */
static void
read_limits(FinAccount *account, Numeric min_available, Numeric max_balance)
{
	account->has_min_available = min_available != NULL;
	if (min_available != NULL)
		account->min_available =
			fin_amount_limit_from_caller(min_available, account->scale,
										 account->currency, "min_available");
	account->has_max_balance = max_balance != NULL;
	if (max_balance != NULL)
		account->max_balance =
			fin_amount_limit_from_caller(max_balance, account->scale,
										 account->currency, "max_balance");
}

static char *
limit_text(bool has_limit, FinAmount limit, int scale)
{
	return has_limit ? fin_amount_text(limit, scale) : "none";
}

static void
check_within_limits(const FinAccount *account)
{
	if (fin_engine_within_limits(account))
		return;
	ereport(ERROR,
			errcode(ERRCODE_FIN_BALANCE_LIMIT),
			errmsg("account \"%s\" is outside these limits", account->code),
			errdetail("Available is %s, the floor %s; the balance is %s, the ceiling %s.",
					  fin_amount_text(fin_engine_available(account), account->scale),
					  limit_text(account->has_min_available,
								 account->min_available, account->scale),
					  fin_amount_text(fin_engine_balance(account), account->scale),
					  limit_text(account->has_max_balance,
								 account->max_balance, account->scale)));
}

static char *
limits_json(const FinAccount *account)
{
	StringInfoData json;

	initStringInfo(&json);
	if (account->has_min_available)
		fin_json_text(&json, "min_available",
					  fin_amount_text(account->min_available, account->scale));
	if (account->has_max_balance)
		fin_json_text(&json, "max_balance",
					  fin_amount_text(account->max_balance, account->scale));
	return fin_json_end(&json);
}

static char *
status_json(const char *status)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "status", status);
	return fin_json_end(&json);
}

static const char *
status_name(FinAccountStatus status)
{
	switch (status)
	{
		case FIN_ACCOUNT_ACTIVE:
			return "active";
		case FIN_ACCOUNT_DEBITS_FROZEN:
			return "debits_frozen";
		case FIN_ACCOUNT_CREDITS_FROZEN:
			return "credits_frozen";
		case FIN_ACCOUNT_FROZEN:
			return "frozen";
		case FIN_ACCOUNT_CLOSED:
			return "closed";
	}
	elog(ERROR, "unknown account status %d", (int) status);
}

static void
audit_account(const char *operation, const FinAccount *account,
			  const char *request, const char *response)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.account_id = account->account_id;
	record.currency = account->currency;
	record.request = request;
	record.response = response;
	fin_audit_append(&record, 1);
}

/* locks the one account; raises LG002 when there is none */
static void
lock_account(const FinContext *context, const char *code, FinAccount *account)
{
	int64		id = fin_store_find_account(context->tenant_id, code);

	if (id != 0 &&
		fin_store_lock_accounts(context->tenant_id, &id, 1, account,
								CurrentMemoryContext) == 1 &&
		strcmp(account->code, code) == 0)
		return;
	fin_store_forget_account(context->tenant_id, code);
	id = fin_store_find_account(context->tenant_id, code);
	if (id == 0 ||
		fin_store_lock_accounts(context->tenant_id, &id, 1, account,
								CurrentMemoryContext) != 1)
		refuse_unknown(code);
}

static void
record_change(const FinContext *context, const FinAccount *account,
			  const char *change, const char *old_value,
			  const char *new_value, const char *reason)
{
	Datum		values[9];
	char		nulls[9] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
	StringInfoData request;

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = Int64GetDatum(account->version);
	values[3] = CStringGetTextDatum(change);
	values[4] = CStringGetTextDatum(old_value);
	values[5] = CStringGetTextDatum(new_value);
	values[6] = (Datum) 0;
	if (reason != NULL)
		values[6] = CStringGetTextDatum(reason);
	else
		nulls[6] = 'n';
	values[7] = CStringGetTextDatum(context->actor);
	values[8] = TimestampTzGetDatum(GetCurrentTimestamp());
	fin_query_run(&insert_change, values, nulls, 0);
	fin_context_resume(context);

	initStringInfo(&request);
	fin_json_text(&request, "code", account->code);
	fin_json_text(&request, "new", new_value);
	fin_json_text(&request, "old", old_value);
	fin_json_text(&request, "reason", reason);
	audit_account(strcmp(change, "status") == 0 ?
				  "set_account_status" : "set_account_limits",
				  account, fin_json_end(&request), NULL);
}

/* ------------------------------------------------------------------------
 * create_account
 * ------------------------------------------------------------------------ */

static void
write_new_account(const FinContext *context, const FinAccount *account,
				  Jsonb *metadata)
{
	Datum		values[10];
	char		nulls[10];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(account->account_id);
	values[1] = Int32GetDatum(context->tenant_id);
	values[2] = Int16GetDatum(account->scale);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = fin_amount_datum(account->min_available, account->scale);
	values[5] = fin_amount_datum(account->max_balance, account->scale);
	if (!account->has_min_available)
		nulls[4] = 'n';
	if (!account->has_max_balance)
		nulls[5] = 'n';
	values[6] = CStringGetTextDatum(account->currency);
	values[7] = CStringGetTextDatum(account->type);
	values[8] = CStringGetTextDatum(account->code);
	values[9] = PointerGetDatum(metadata);
	if (metadata == NULL)
		nulls[9] = 'n';
	if (fin_query_run(&insert_account, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("account \"%s\" already exists", account->code));
}

static char *
new_account_json(const FinAccount *account)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "code", account->code);
	fin_json_text(&json, "currency", account->currency);
	fin_json_text(&json, "type", account->type);
	fin_json_text(&json, "limits", limits_json(account));
	return fin_json_end(&json);
}

PG_FUNCTION_INFO_V1(finance_create_account);

/*
 * finance.create_account(code, currency, type, min_available, max_balance,
 *						  metadata) returns bigint
 *
 * Opens an account with zero totals.  code: 1 to 128 bytes, unique in the
 * tenant.  min_available: what must remain available, at most zero for a new
 * account; null: no floor.  max_balance: ceiling, zero or above; null: none.
 * Result: the account's id.  Errors: 42710 code taken, LG009 unknown currency,
 * LG006 limits that zero violates, 22003 limits out of range, LG303 metadata
 * over finance.max_payload.  Locks: the new row.
 */
Datum
finance_create_account(PG_FUNCTION_ARGS)
{
	FinAccount	account = {0};
	char	   *currency;
	Jsonb	   *metadata;
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;

	account.code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	currency = fin_argument_text(fcinfo, 1, "currency", FIN_CURRENCY_LENGTH_MAX);
	account.type = fin_argument_text(fcinfo, 2, "type", FIN_TYPE_LENGTH_MAX);
	strlcpy(account.currency, currency, sizeof(account.currency));
	metadata = fin_argument_metadata(fcinfo, 5);

	fin_query_begin(&scope);
	account.scale = currency_scale(currency);
	read_limits(&account,
				fin_argument_numeric(fcinfo, 3, "min_available", false),
				fin_argument_numeric(fcinfo, 4, "max_balance", false));
	check_within_limits(&account);
	account.account_id = fin_ident_next(0);
	write_new_account(context, &account, metadata);
	fin_context_resume(context);
	audit_account("create_account", &account, new_account_json(&account), NULL);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.account_id);
}

/* ------------------------------------------------------------------------
 * set_account_status, set_account_limits
 * ------------------------------------------------------------------------ */

static FinAccountStatus
status_argument(const char *status)
{
	if (strcmp(status, "active") == 0)
		return FIN_ACCOUNT_ACTIVE;
	if (strcmp(status, "debits_frozen") == 0)
		return FIN_ACCOUNT_DEBITS_FROZEN;
	if (strcmp(status, "credits_frozen") == 0)
		return FIN_ACCOUNT_CREDITS_FROZEN;
	if (strcmp(status, "frozen") == 0)
		return FIN_ACCOUNT_FROZEN;
	if (strcmp(status, "closed") == 0)
		return FIN_ACCOUNT_CLOSED;
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("status \"%s\" is not known", status),
			errhint("It is active, debits_frozen, credits_frozen, frozen or closed."));
}

static void
check_may_become(const FinAccount *account, FinAccountStatus status)
{
	if (account->status == FIN_ACCOUNT_CLOSED)
		ereport(ERROR,
				errcode(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE),
				errmsg("account \"%s\" is closed", account->code),
				errdetail("A closed account stays closed."));
	if (status != FIN_ACCOUNT_CLOSED)
		return;
	if (fin_engine_balance(account) != 0 || account->debits_pending != 0 ||
		account->credits_pending != 0)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("account \"%s\" cannot be closed", account->code),
				errdetail("Its balance is %s, of which %s is held.",
						  fin_amount_text(fin_engine_balance(account), account->scale),
						  fin_amount_text(account->debits_pending, account->scale)),
				errhint("Move the balance away first."));
}

PG_FUNCTION_INFO_V1(finance_set_account_status);

/*
 * finance.set_account_status(code, status, reason) returns bigint
 *
 * active and frozen change into each other; closed is final and needs a zero
 * balance.  Setting the status it has changes nothing.  Result: the account's
 * version.  Errors: LG002 unknown account, 22023 unknown status, LG004 closed,
 * 55000 not empty.  Locks: the account.
 */
Datum
finance_set_account_status(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	char	   *status = fin_argument_text(fcinfo, 1, "status", FIN_TYPE_LENGTH_MAX);
	char	   *reason = fin_argument_text_or_null(fcinfo, 2, "reason",
												   FIN_REASON_LENGTH_MAX);
	FinAccountStatus wanted = status_argument(status);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinAccount	account;

	fin_query_begin(&scope);
	lock_account(context, code, &account);
	if (account.status != wanted)
	{
		Datum		values[4];
		const char *old_status = status_name(account.status);

		check_may_become(&account, wanted);
		account.status = wanted;
		account.version++;
		values[0] = Int32GetDatum(context->tenant_id);
		values[1] = Int64GetDatum(account.account_id);
		values[2] = CStringGetTextDatum(status);
		values[3] = Int64GetDatum(account.version);
		fin_query_run(&update_status, values, NULL, 0);
		record_change(context, &account, "status", status_json(old_status),
					  status_json(status), reason);
	}
	fin_query_end(&scope);
	PG_RETURN_INT64(account.version);
}

PG_FUNCTION_INFO_V1(finance_set_account_limits);

/*
 * finance.set_account_limits(code, min_available, max_balance, reason)
 * returns bigint
 *
 * Sets both limits; null means none.  The account must be within them as it
 * stands, what is held counted.  Result: the account's new version.  Errors:
 * LG002 unknown account, LG006 outside the limits, 22003 limits out of range.
 * Locks: the account.
 */
Datum
finance_set_account_limits(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	Numeric		min_available = fin_argument_numeric(fcinfo, 1, "min_available", false);
	Numeric		max_balance = fin_argument_numeric(fcinfo, 2, "max_balance", false);
	char	   *reason = fin_argument_text_or_null(fcinfo, 3, "reason",
												   FIN_REASON_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinAccount	account;
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};
	char	   *old_limits;

	fin_query_begin(&scope);
	lock_account(context, code, &account);
	old_limits = limits_json(&account);
	read_limits(&account, min_available, max_balance);
	check_within_limits(&account);
	account.version++;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account.account_id);
	values[2] = NumericGetDatum(min_available);
	values[3] = NumericGetDatum(max_balance);
	values[4] = Int64GetDatum(account.version);
	if (min_available == NULL)
		nulls[2] = 'n';
	if (max_balance == NULL)
		nulls[3] = 'n';
	fin_query_run(&update_limits, values, nulls, 0);
	record_change(context, &account, "limits", old_limits,
				  limits_json(&account), reason);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.version);
}

/* ------------------------------------------------------------------------
 * balance
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(finance_balance);

/*
 * finance.balance(code) returns numeric: credits posted - debits posted, as
 * the calling statement's snapshot sees them.  Errors: LG002.  No locks.
 */
Datum
finance_balance(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	const FinContext *context = fin_context();
	FinQueryScope scope;
	Datum		values[2];
	Numeric		balance;
	bool		isnull;
	MemoryContext old;

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(code);
	if (fin_query_run(&select_balance, values, NULL, 1) == 0)
		refuse_unknown(code);
	old = MemoryContextSwitchTo(scope.caller);
	balance = DatumGetNumericCopy(fin_query_datum(0, 1, &isnull));
	MemoryContextSwitchTo(old);
	fin_query_end(&scope);
	PG_RETURN_NUMERIC(balance);
}
