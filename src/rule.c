/*
 * rule.c
 *		Risk rules: what operators change.
 *
 * Owns nothing between calls.  Each change is audited and, by the table's
 * trigger, invalidates the rule caches (risk.c) when it commits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"

#include "account.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "json.h"
#include "query.h"
#include "store.h"

static FinQuery insert_rule =
{
	.sql = "INSERT INTO finance.risk_rule (tenant_id, name, kind, threshold,"
	" account_id, currency, window_start, window_end)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
	" ON CONFLICT (tenant_id, name) DO NOTHING",
	.nargs = 8,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, NUMERICOID, INT8OID, TEXTOID,
	TIMEOID, TIMEOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_rule =
{
	.sql = "DELETE FROM finance.risk_rule WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery update_enabled =
{
	.sql = "UPDATE finance.risk_rule SET enabled = $3"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, BOOLOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery find_currency =
{
	.sql = "SELECT code FROM finance.currency WHERE code = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
};

/*
 * Rules keep the id, so a code remembered from an account whose
 * creation rolled back must not be trusted here: it would watch an account
 * that is not there, and miss the one that gets the code later.
 */
static int64
find_account(const FinContext *context, const char *code)
{
	int64		id;

	fin_store_forget_account(context->tenant_id, code);
	id = fin_store_find_account(context->tenant_id, code);
	if (id == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	return id;
}

/* a trigger on the table written may have acted as somebody else */
static void
audit_rule(const FinContext *context, const char *operation,
		   const char *request, int64 account_id)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.account_id = account_id;
	record.request = request;
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

static void
refuse_rule(const char *message, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("%s", message),
			errhint("%s", hint));
}

static bool
is_negative(Numeric number)
{
	Datum		sign = DirectFunctionCall1(numeric_sign, NumericGetDatum(number));

	return DatumGetInt32(DirectFunctionCall1(numeric_int4, sign)) < 0;
}

/* the constraints of finance.risk_rule, said in words */
static void
check_rule(FunctionCallInfo fcinfo, const char *kind, Numeric threshold)
{
	bool		is_limit = strcmp(kind, "transfer_limit") == 0 ||
		strcmp(kind, "daily_limit") == 0;
	bool		is_window = strcmp(kind, "night_window") == 0;
	bool		has_window = !PG_ARGISNULL(5) && !PG_ARGISNULL(6);

	if (!is_limit && !is_window && strcmp(kind, "blocklist") != 0)
		refuse_rule(psprintf("kind \"%s\" of risk rule is not known", kind),
					"It is transfer_limit, daily_limit, night_window or blocklist.");
	if (is_limit && threshold == NULL)
		refuse_rule(psprintf("a rule of kind %s needs a threshold", kind),
					"The threshold is the highest amount that passes.");
	if (is_window && !has_window)
		refuse_rule("a rule of kind night_window needs window_start and window_end",
					"Times are of the tenant's time zone; a window may pass midnight.");
	if (!is_window && (!PG_ARGISNULL(5) || !PG_ARGISNULL(6)))
		refuse_rule(psprintf("a rule of kind %s has no window", kind),
					"Leave window_start and window_end out.");
	if (is_window && PG_GETARG_TIMEADT(5) == PG_GETARG_TIMEADT(6))
		refuse_rule("window_start and window_end must differ",
					"A window ends just before window_end.");
	if (threshold == NULL)
		return;
	if (numeric_is_nan(threshold) || numeric_is_inf(threshold) ||
		is_negative(threshold))
		ereport(ERROR,
				errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				errmsg("threshold must be a finite number, zero or above"),
				errdetail("It is %s.",
						  DatumGetCString(DirectFunctionCall1(numeric_out,
															  NumericGetDatum(threshold)))));
}

static char *
named_rule_json(const char *name)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "name", name);
	return fin_json_end(&json);
}

static const char *
window_text(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return NULL;
	return DatumGetCString(DirectFunctionCall1(time_out,
											   PG_GETARG_DATUM(argument)));
}

static char *
rule_json(FunctionCallInfo fcinfo, const char *name, const char *kind,
		  Numeric threshold, const char *account, const char *currency)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "name", name);
	fin_json_text(&json, "kind", kind);
	if (threshold != NULL)
		fin_json_text(&json, "threshold",
					  DatumGetCString(DirectFunctionCall1(numeric_out,
														  NumericGetDatum(threshold))));
	fin_json_text(&json, "account", account);
	fin_json_text(&json, "currency", currency);
	fin_json_text(&json, "window_start", window_text(fcinfo, 5));
	fin_json_text(&json, "window_end", window_text(fcinfo, 6));
	return fin_json_end(&json);
}

static void
write_rule(FunctionCallInfo fcinfo, const FinContext *context,
		   const char *name, const char *kind, int64 account_id,
		   const char *currency)
{
	Datum		values[8] = {0};
	char		nulls[8];

	memset(nulls, 'n', sizeof(nulls));
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(name);
	values[2] = CStringGetTextDatum(kind);
	nulls[0] = nulls[1] = nulls[2] = ' ';
	if (!PG_ARGISNULL(2))
	{
		values[3] = PG_GETARG_DATUM(2);
		nulls[3] = ' ';
	}
	if (account_id != 0)
	{
		values[4] = Int64GetDatum(account_id);
		nulls[4] = ' ';
	}
	if (currency != NULL)
	{
		values[5] = CStringGetTextDatum(currency);
		nulls[5] = ' ';
		if (fin_query_run(&find_currency, &values[5], NULL, 1) == 0)
			ereport(ERROR,
					errcode(ERRCODE_FIN_UNKNOWN_CURRENCY),
					errmsg("currency \"%s\" does not exist", currency));
	}
	for (int i = 5; i <= 6; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		values[i + 1] = PG_GETARG_DATUM(i);
		nulls[i + 1] = ' ';
	}
	if (fin_query_run(&insert_rule, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("risk rule \"%s\" already exists", name));
}

PG_FUNCTION_INFO_V1(finance_add_rule);

/*
 * finance.add_rule(name, kind, threshold, account, currency, window_start,
 *					window_end)
 *
 * kind transfer_limit: an amount above threshold is rejected.  daily_limit: so
 * is one that brings what the account paid on the tenant's business day above
 * threshold.  night_window: so is one (above threshold, if given) from
 * window_start until just before window_end, local time.  blocklist: so is one
 * from or to an account on the blocklist.  account: only what this account
 * pays; currency: only transfers in it.  A threshold is in units of whatever
 * currency the transfer has.
 *
 * Errors: 22023 bad arguments, 22003 bad threshold, 42710 name taken, LG002
 * unknown account, LG009 unknown currency.
 */
Datum
finance_add_rule(PG_FUNCTION_ARGS)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	char	   *kind = fin_argument_text(fcinfo, 1, "kind", FIN_NAME_LENGTH_MAX);
	Numeric		threshold = fin_argument_numeric(fcinfo, 2, "threshold", false);
	char	   *account = fin_argument_text_or_null(fcinfo, 3, "account",
													FIN_CODE_LENGTH_MAX);
	char	   *currency = fin_argument_text_or_null(fcinfo, 4, "currency",
													 FIN_CURRENCY_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	int64		account_id = 0;

	check_rule(fcinfo, kind, threshold);
	fin_query_begin(&scope);
	if (account != NULL)
		account_id = find_account(context, account);
	write_rule(fcinfo, context, name, kind, account_id, currency);
	audit_rule(context, "add_rule",
			   rule_json(fcinfo, name, kind, threshold, account, currency),
			   account_id);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

static void
refuse_unknown_rule(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_RULE),
			errmsg("risk rule \"%s\" does not exist", name));
}

PG_FUNCTION_INFO_V1(finance_remove_rule);

/* finance.remove_rule(name).  Errors: LG102 unknown rule. */
Datum
finance_remove_rule(PG_FUNCTION_ARGS)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[2];

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(name);
	if (fin_query_run(&delete_rule, values, NULL, 0) == 0)
		refuse_unknown_rule(name);
	audit_rule(context, "remove_rule", named_rule_json(name), 0);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_enable_rule);

/* finance.enable_rule(name, enabled).  Errors: LG102 unknown rule. */
Datum
finance_enable_rule(PG_FUNCTION_ARGS)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	bool		enabled = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[3];

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(name);
	values[2] = BoolGetDatum(enabled);
	if (fin_query_run(&update_enabled, values, NULL, 0) == 0)
		refuse_unknown_rule(name);
	audit_rule(context, enabled ? "enable_rule" : "disable_rule",
			   named_rule_json(name), 0);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}
