/*
 * account.c
 *		Accounts: opened, and their balance.
 *
 * Owns nothing between calls.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "account_parts.h"
#include "argument.h"
#include "audit.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "query.h"
#include "type.h"

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
	" created_at, min_available, max_balance, currency, type, code, parent_id,"
	" metadata)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
	" ON CONFLICT (tenant_id, code) DO NOTHING",
	.nargs = 11,
	.argtypes = {INT8OID, INT4OID, INT2OID, TIMESTAMPTZOID, NUMERICOID,
	NUMERICOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, JSONBOID},
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

/* ------------------------------------------------------------------------
 * create_account
 * ------------------------------------------------------------------------ */

static void
write_new_account(const FinContext *context, const FinAccount *account,
				  int64 parent_id, Jsonb *metadata)
{
	Datum		values[11];
	char		nulls[11];

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
	values[9] = Int64GetDatum(parent_id);
	if (parent_id == 0)
		nulls[9] = 'n';
	values[10] = PointerGetDatum(metadata);
	if (metadata == NULL)
		nulls[10] = 'n';
	if (fin_query_run(&insert_account, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("account \"%s\" already exists", account->code));
}

static char *
new_account_json(const FinAccount *account, const char *parent)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "code", account->code);
	fin_json_text(&json, "currency", account->currency);
	fin_json_text(&json, "type", account->type);
	fin_json_object(&json, "limits", fin_account_limits_json(account));
	fin_json_text(&json, "parent", parent);
	return fin_json_end(&json);
}

PG_FUNCTION_INFO_V1(finance_create_account);

/*
 * finance.create_account(code, currency, type, min_available, max_balance,
 *						  metadata, parent) returns bigint
 *
 * Opens an account with zero totals.  code: 1 to 128 bytes, unique in the
 * tenant.  type: one of finance.account_type.  min_available: what must remain
 * available, at most zero for a new account; null: no floor.  max_balance:
 * ceiling, zero or above; null: none.  parent: the account it is summed up
 * under; null: none.  Result: the account's id.  Errors: 42710 code taken,
 * LG009 unknown currency, LG017 unknown type, LG006 limits that zero violates,
 * 22003 limits out of range, LG303 metadata over finance.max_payload, LG002
 * unknown parent, LG004 parent closed, 54000 more than 32 levels.  Locks: with
 * a parent, the tenant's row FOR SHARE; the new row.
 */
Datum
finance_create_account(PG_FUNCTION_ARGS)
{
	FinAccount	account = {0};
	char	   *currency;
	char	   *parent;
	Jsonb	   *metadata;
	int64		parent_id = 0;
	const FinFault *fault;
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;

	account.code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	currency = fin_argument_text(fcinfo, 1, "currency", FIN_CURRENCY_LENGTH_MAX);
	account.type = fin_argument_text(fcinfo, 2, "type", FIN_TYPE_LENGTH_MAX);
	strlcpy(account.currency, currency, sizeof(account.currency));
	metadata = fin_argument_metadata(fcinfo, 5);
	parent = fin_argument_text_or_null(fcinfo, 6, "parent", FIN_CODE_LENGTH_MAX);

	fin_query_begin(&scope);
	account.scale = currency_scale(currency);
	fault = fin_type_account_fault(context->tenant_id, account.type);
	if (fault != NULL)
		fin_fault_raise(fault);
	fin_account_set_floor(&account,
						  fin_argument_numeric(fcinfo, 3, "min_available", false));
	fin_account_set_ceiling(&account,
							fin_argument_numeric(fcinfo, 4, "max_balance", false));
	fin_account_check_limits(&account);
	if (parent != NULL)
		parent_id = fin_account_find_parent(context, account.code, parent);
	account.account_id = fin_ident_next(0);
	write_new_account(context, &account, parent_id, metadata);
	fin_context_resume(context);
	audit_account("create_account", &account, new_account_json(&account, parent), NULL);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.account_id);
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

	fin_audit_read(fcinfo, FIN_READ_BALANCE);
	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(code);
	if (fin_query_run(&select_balance, values, NULL, 1) == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	old = MemoryContextSwitchTo(scope.caller);
	balance = DatumGetNumericCopy(fin_query_datum(0, 1, &isnull));
	MemoryContextSwitchTo(old);
	fin_query_end(&scope);
	PG_RETURN_NUMERIC(balance);
}
