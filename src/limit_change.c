/*
 * limit_change.c
 *		Other thresholds of a rule: what operators change, and ask.
 *
 * Owns nothing between calls.  Each change is audited, with who made it and
 * why, and by the table's trigger invalidates what backends keep of limits
 * (limit.c) when it commits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "account.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "limit.h"
#include "query.h"
#include "type.h"

/* of one rule, for one subject */
typedef struct LimitChange
{
	const FinContext *context;
	const char *rule;
	FinLimitSubject subject;
	const char *value;
	const char *reason;
	Numeric		threshold;
	TimestampTz expires_at;		/* DT_NOEND: lasting */
	int64		account_id;		/* of the subject account, else 0 */
} LimitChange;

static FinQuery find_rule =
{
	.sql = "SELECT bool_or(threshold IS NOT NULL AND kind <> 'structuring')"
	" FROM finance.risk_rule WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_limit =
{
	.sql = "SELECT threshold, expires_at FROM finance.rule_limit"
	" WHERE tenant_id = $1 AND rule = $2 AND subject = $3 AND temporary = $4"
	" AND value = $5 FOR UPDATE",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery write_limit =
{
	.sql = "INSERT INTO finance.rule_limit AS l (tenant_id, rule, subject,"
	" temporary, value, threshold, expires_at, reason, set_by, set_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
	" ON CONFLICT (tenant_id, rule, subject, temporary, value) DO UPDATE"
	" SET threshold = excluded.threshold, expires_at = excluded.expires_at,"
	" reason = excluded.reason, set_by = excluded.set_by,"
	" set_at = excluded.set_at",
	.nargs = 10,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTOID, NUMERICOID,
	TIMESTAMPTZOID, TEXTOID, TEXTOID, TIMESTAMPTZOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "rule_limit",
};

/* $4: only temporary ones, or only lasting ones; null: both */
static FinQuery delete_limits =
{
	.sql = "DELETE FROM finance.rule_limit"
	" WHERE tenant_id = $1 AND rule = $2 AND subject = $3"
	" AND value = $5 AND ($4 IS NULL OR temporary = $4)"
	" RETURNING threshold, expires_at",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTOID},
	.expect = SPI_OK_DELETE_RETURNING,
	.fires_triggers = true,
};

static FinQuery find_payer =
{
	.sql = "SELECT code, level, type FROM finance._account"
	" WHERE tenant_id = $1 AND code = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

/* exactly one of account, account_type and level */
static void
subject_arguments(FunctionCallInfo fcinfo, int account, int type, int level,
				  LimitChange *change)
{
	char	   *values[FIN_LIMIT_SUBJECTS];
	int			n = 0;

	values[FIN_LIMIT_ACCOUNT] = fin_argument_text_or_null(fcinfo, account,
														  "account",
														  FIN_CODE_LENGTH_MAX);
	values[FIN_LIMIT_ACCOUNT_TYPE] = fin_argument_text_or_null(fcinfo, type,
															   "account_type",
															   FIN_TYPE_LENGTH_MAX);
	values[FIN_LIMIT_LEVEL] = fin_argument_text_or_null(fcinfo, level, "level",
														FIN_TYPE_LENGTH_MAX);
	for (int i = 0; i < FIN_LIMIT_SUBJECTS; i++)
	{
		if (values[i] == NULL)
			continue;
		change->subject = (FinLimitSubject) i;
		change->value = values[i];
		n++;
	}
	if (n != 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("a limit is for an account, an account_type or a level"),
				errdetail("%d of these are given.", n),
				errhint("Give one of them."));
}

static bool
is_negative(Numeric number)
{
	Datum		sign = DirectFunctionCall1(numeric_sign, NumericGetDatum(number));

	return DatumGetInt32(DirectFunctionCall1(numeric_int4, sign)) < 0;
}

static char *
numeric_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(number)));
}

static Numeric
threshold_argument(FunctionCallInfo fcinfo, int argument)
{
	Numeric		threshold = fin_argument_numeric(fcinfo, argument, "threshold",
												 true);

	if (numeric_is_nan(threshold) || numeric_is_inf(threshold) ||
		is_negative(threshold))
		ereport(ERROR,
				errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				errmsg("threshold must be a finite number, zero or above"),
				errdetail("It is %s.", numeric_text(threshold)));
	return threshold;
}

/*
 * What the limit is for must be there, so that a slip of the pen is not a limit
 * that never holds.  A code that the store remembers is not trusted: its account
 * may have been rolled back.
 */
static void
check_subject(LimitChange *change)
{
	int32		tenant_id = change->context->tenant_id;
	const FinFault *fault = NULL;

	switch (change->subject)
	{
		case FIN_LIMIT_ACCOUNT:
			fin_store_forget_account(tenant_id, change->value);
			change->account_id = fin_store_find_account(tenant_id,
														change->value);
			if (change->account_id == 0)
				fault = fin_account_fault_unknown(change->value, 0);
			break;
		case FIN_LIMIT_ACCOUNT_TYPE:
			fault = fin_type_account_fault(tenant_id, change->value);
			break;
		case FIN_LIMIT_LEVEL:
			break;
	}
	if (fault != NULL)
		fin_fault_raise(fault);
}

static void
check_rule(const LimitChange *change)
{
	Datum		values[2] = {Int32GetDatum(change->context->tenant_id),
	CStringGetTextDatum(change->rule)};
	bool		has_threshold;
	bool		isnull;

	fin_query_run(&find_rule, values, NULL, 1);
	has_threshold = DatumGetBool(fin_query_datum(0, 1, &isnull));
	if (isnull)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RULE),
				errmsg("risk rule \"%s\" does not exist", change->rule));
	if (!has_threshold)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("risk rule \"%s\" has no threshold that could differ",
					   change->rule),
				errhint("What a rule of kind structuring counts is the same for all; other rules must be given a threshold first."));
}

/* ------------------------------------------------------------------------
 * set and clear
 * ------------------------------------------------------------------------ */

static char *
change_json(const LimitChange *change, const char *old)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "rule", change->rule);
	fin_json_text(&json, fin_limit_subject_name(change->subject),
				  change->value);
	if (change->threshold != NULL)
		fin_json_text(&json, "threshold", numeric_text(change->threshold));
	fin_json_time(&json, "expires_at", change->expires_at);
	fin_json_object(&json, "old", old);
	fin_json_text(&json, "reason", change->reason);
	return fin_json_end(&json);
}

/* a trigger on the table written may have acted as somebody else */
static void
audit_change(const LimitChange *change, const char *operation,
			 const char *request)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.account_id = change->account_id;
	record.request = request;
	fin_context_resume(change->context);
	fin_audit_append(&record, 1);
}

static void
key_values(const LimitChange *change, Datum *values)
{
	values[0] = Int32GetDatum(change->context->tenant_id);
	values[1] = CStringGetTextDatum(change->rule);
	values[2] = CStringGetTextDatum(fin_limit_subject_name(change->subject));
	values[3] = BoolGetDatum(change->expires_at != DT_NOEND);
	values[4] = CStringGetTextDatum(change->value);
}

/* the limits a query found, as JSON; NULL: none */
static char *
old_json(int n)
{
	StringInfoData list;

	if (n == 0)
		return NULL;
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
	{
		StringInfoData json;
		bool		isnull;
		Datum		threshold = fin_query_datum(i, 1, &isnull);
		Datum		expires_at = fin_query_datum(i, 2, &isnull);

		initStringInfo(&json);
		fin_json_text(&json, "threshold",
					  numeric_text(DatumGetNumeric(threshold)));
		if (!isnull)
			fin_json_time(&json, "expires_at",
						  DatumGetTimestampTz(expires_at));
		appendStringInfo(&list, "%c%s", i == 0 ? '[' : ',',
						 fin_json_end(&json));
	}
	appendStringInfoChar(&list, ']');
	return list.data;
}

PG_FUNCTION_INFO_V1(finance_set_rule_limit);

/*
 * finance.set_rule_limit(rule, threshold, reason, account, account_type, level,
 *						  expires_at)
 *
 * Gives the rule of this name, in whatever ruleset, another threshold, higher
 * or lower, for what one account pays, or the accounts of a type or of a level
 * (set_account_level()).  That of the account counts before that of its level,
 * and that before that of its type.  threshold: zero or above, finite, in the
 * unit of the rule's own.  expires_at: the limit lasts until then, and as long
 * comes before a lasting one of the same subject, which stays as it is; null: it
 * is the lasting one.  One that is there is replaced.
 *
 * Errors: LG102 unknown rule, LG002 unknown account, LG017 unknown type; 22003
 * threshold; 22023 none or several of account, account_type and level, texts
 * empty or too long, expires_at not in the future; 22004 null.  Locks: the
 * limit.
 */
Datum
finance_set_rule_limit(PG_FUNCTION_ARGS)
{
	LimitChange change = {0};
	TimestampTz now = fin_ident_now();
	FinQueryScope scope;
	Datum		values[10];
	char		nulls[10];
	char	   *old;

	change.rule = fin_argument_text(fcinfo, 0, "rule", FIN_NAME_LENGTH_MAX);
	change.threshold = threshold_argument(fcinfo, 1);
	change.reason = fin_argument_text(fcinfo, 2, "reason",
									  FIN_REASON_LENGTH_MAX);
	subject_arguments(fcinfo, 3, 4, 5, &change);
	change.expires_at = fin_argument_expiry(fcinfo, 6, now);
	change.context = fin_context_hold();

	fin_query_begin(&scope);
	check_rule(&change);
	check_subject(&change);
	key_values(&change, values);
	old = old_json((int) fin_query_run(&lock_limit, values, NULL, 1));
	memset(nulls, ' ', sizeof(nulls));
	values[5] = NumericGetDatum(change.threshold);
	values[6] = TimestampTzGetDatum(change.expires_at);
	if (change.expires_at == DT_NOEND)
		nulls[6] = 'n';
	values[7] = CStringGetTextDatum(change.reason);
	values[8] = CStringGetTextDatum(change.context->actor);
	values[9] = TimestampTzGetDatum(now);
	fin_query_run(&write_limit, values, nulls, 0);
	audit_change(&change, "set_rule_limit", change_json(&change, old));
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_clear_rule_limit);

/*
 * finance.clear_rule_limit(rule, reason, account, account_type, level,
 *							temporary) returns boolean
 *
 * Takes back what set_rule_limit() gave: the temporary limit, the lasting one,
 * or (temporary null) both.  The rule need not be there any more.  Result: false
 * when there was none.  Errors: LG002 unknown account, LG017 unknown type;
 * 22023 none or several of account, account_type and level, texts empty or too
 * long; 22004 null.  Locks: the limits.
 */
Datum
finance_clear_rule_limit(PG_FUNCTION_ARGS)
{
	LimitChange change = {.expires_at = DT_NOEND};
	FinQueryScope scope;
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};
	char	   *old;

	change.rule = fin_argument_text(fcinfo, 0, "rule", FIN_NAME_LENGTH_MAX);
	change.reason = fin_argument_text(fcinfo, 1, "reason",
									  FIN_REASON_LENGTH_MAX);
	subject_arguments(fcinfo, 2, 3, 4, &change);
	change.context = fin_context_hold();

	fin_query_begin(&scope);
	check_subject(&change);
	key_values(&change, values);
	if (PG_ARGISNULL(5))
		nulls[3] = 'n';
	else
		values[3] = PG_GETARG_DATUM(5);
	old = old_json((int) fin_query_run(&delete_limits, values, nulls, 0));
	if (old != NULL)
		audit_change(&change, "clear_rule_limit", change_json(&change, old));
	fin_query_end(&scope);
	PG_RETURN_BOOL(old != NULL);
}

/* ------------------------------------------------------------------------
 * ask
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(finance_rule_limit_of);

/*
 * finance.rule_limit_of(rule, account) returns numeric
 *
 * The threshold that set_rule_limit() gave the rule for what this account pays
 * now; null: none, so the rule's own holds.  Errors: LG002 unknown account.  No
 * locks.
 */
Datum
finance_rule_limit_of(PG_FUNCTION_ARGS)
{
	char	   *rule = fin_argument_text(fcinfo, 0, "rule", FIN_NAME_LENGTH_MAX);
	char	   *code = fin_argument_text(fcinfo, 1, "account",
										 FIN_CODE_LENGTH_MAX);
	const FinContext *context = fin_context();
	FinAccount	payer = {0};
	FinQueryScope scope;
	Datum		values[2];
	Numeric		threshold;

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(code);
	if (fin_query_run(&find_payer, values, NULL, 1) == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	payer.code = fin_query_text(0, 1);
	payer.level = fin_query_text(0, 2);
	payer.type = fin_query_text(0, 3);
	/* as posting does before it judges */
	AcceptInvalidationMessages();
	threshold = fin_limit_find(context->tenant_id, rule, &payer,
							   fin_ident_now());
	if (threshold != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(scope.caller);

		threshold = DatumGetNumericCopy(NumericGetDatum(threshold));
		MemoryContextSwitchTo(old);
	}
	fin_query_end(&scope);
	if (threshold == NULL)
		PG_RETURN_NULL();
	PG_RETURN_NUMERIC(threshold);
}
