/*
 * rule.c
 *		Risk rules and holidays: what operators change.
 *
 * Owns nothing between calls.  A change without a ruleset makes a new version
 * of the rules, which is live when the transaction commits (ruleset.c).  Each
 * change is audited.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "account.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "json.h"
#include "query.h"
#include "risk.h"
#include "rule_kind.h"
#include "ruleset.h"
#include "store.h"

/* arguments of add_rule(), in order */
typedef enum Argument
{
	ARG_NAME,
	ARG_KIND,
	ARG_THRESHOLD,
	ARG_ACCOUNT,
	ARG_CURRENCY,
	ARG_WINDOW_START,
	ARG_WINDOW_END,
	ARG_OUTCOME,
	ARG_SCORE,
	ARG_MINIMUM,
	ARG_PER,
	ARG_PERIOD,
	ARG_SPAN,
	ARG_TIMES,
	ARG_TIME_ZONE,
	ARG_WEEKDAYS,
	ARG_CALENDAR,
	ARG_LIST,
	ARG_SUBJECT,
	ARG_EXPRESSION,
	ARG_ON_ERROR,
	ARG_ACCOUNT_TYPE,
	ARG_LEVEL,
	ARG_TRANSFER_TYPE,
	ARG_DESCRIPTION,
	ARG_RULESET,
	ARGUMENTS					/* how many */
} Argument;

/* the argument of each field of rule_kind.h, in the order of their bits */
static const Argument field_arguments[FIN_RULE_FIELDS] = {
	ARG_THRESHOLD, ARG_MINIMUM, ARG_PER, ARG_PERIOD, ARG_SPAN, ARG_TIMES,
	ARG_WINDOW_START, ARG_TIME_ZONE, ARG_WEEKDAYS, ARG_CALENDAR, ARG_LIST,
	ARG_SUBJECT, ARG_EXPRESSION, ARG_ON_ERROR
};

/* $1 and $2 are tenant and version; $3 on the arguments but the last */
static FinQuery insert_rule =
{
	.sql = "INSERT INTO finance.risk_rule (tenant_id, version, name, kind,"
	" threshold, account_id, currency, window_start, window_end, outcome,"
	" score, minimum, per, period, span, times, time_zone, weekdays, calendar,"
	" list, subject, expression, on_error, account_type, level, transfer_type,"
	" description)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($11, 0), $12,"
	" $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,"
	" $27)"
	" ON CONFLICT (tenant_id, version, name) DO NOTHING",
	.nargs = 2 + ARGUMENTS - 1,
	.argtypes = {INT4OID, INT4OID, TEXTOID, TEXTOID, NUMERICOID, INT8OID,
		TEXTOID, TIMEOID, TIMEOID, TEXTOID, INT4OID, NUMERICOID, TEXTOID,
		TEXTOID, INTERVALOID, INT4OID, TEXTOID, INT4ARRAYOID, TEXTOID, TEXTOID,
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_rule =
{
	.sql = "DELETE FROM finance.risk_rule"
	" WHERE tenant_id = $1 AND version = $2 AND name = $3",
	.nargs = 3,
	.argtypes = {INT4OID, INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery update_enabled =
{
	.sql = "UPDATE finance.risk_rule SET enabled = $4"
	" WHERE tenant_id = $1 AND version = $2 AND name = $3",
	.nargs = 4,
	.argtypes = {INT4OID, INT4OID, TEXTOID, BOOLOID},
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

static FinQuery find_zone =
{
	.sql = "SELECT name FROM pg_catalog.pg_timezone_names WHERE name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_holiday =
{
	.sql = "INSERT INTO finance.holiday (tenant_id, calendar, day, name)"
	" VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, calendar, day) DO NOTHING",
	.nargs = 4,
	.argtypes = {INT4OID, TEXTOID, DATEOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_holiday =
{
	.sql = "DELETE FROM finance.holiday"
	" WHERE tenant_id = $1 AND calendar = $2 AND day = $3",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, DATEOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* ------------------------------------------------------------------------
 * what is wrong with a rule, said in words
 * ------------------------------------------------------------------------ */

static void
refuse(const char *message, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("%s", message),
			errhint("%s", hint));
}

static FinRuleKind
check_kind(const char *name)
{
	FinRuleKind kind = fin_rule_kind_of(name);
	StringInfoData names;

	if (kind != FIN_RULE_KINDS)
		return kind;
	initStringInfo(&names);
	for (int i = 0; i < FIN_RULE_KINDS; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" :
						 i == FIN_RULE_KINDS - 1 ? " or " : ", ",
						 fin_rule_kinds[i].name);
	refuse(psprintf("kind \"%s\" of risk rule is not known", name),
		   psprintf("It is %s.", names.data));
	return kind;				/* not reached */
}

/* does it have what its kind needs, and nothing that it does not take? */
static void
check_fields(FunctionCallInfo fcinfo, FinRuleKind kind)
{
	const FinRuleKindInfo *info = &fin_rule_kinds[kind];

	if (PG_ARGISNULL(ARG_WINDOW_START) != PG_ARGISNULL(ARG_WINDOW_END))
		refuse("window_start and window_end go together",
			   "A window may pass midnight, and ends just before window_end.");
	for (int i = 0; i < FIN_RULE_FIELDS; i++)
	{
		bool		given = !PG_ARGISNULL(field_arguments[i]);

		if (!given && (info->needs & (1 << i)) != 0)
			refuse(psprintf("a rule of kind %s needs %s%s", info->name,
							i == 0 ? "a " : "", fin_rule_field_names[i]),
				   psprintf("It hits %s.", info->hits));
		if (given && ((info->needs | info->takes) & (1 << i)) == 0)
			refuse(psprintf("a rule of kind %s takes no %s", info->name,
							fin_rule_field_names[i]),
				   psprintf("It hits %s.", info->hits));
	}
}

/* an amount, a number or a share: finite and not negative */
static Numeric
check_number(FunctionCallInfo fcinfo, Argument argument, const char *name)
{
	Numeric		number = fin_argument_numeric(fcinfo, argument, name, false);
	Datum		sign;

	if (number == NULL)
		return NULL;
	sign = DirectFunctionCall1(numeric_sign, NumericGetDatum(number));
	if (!numeric_is_nan(number) && !numeric_is_inf(number) &&
		DatumGetInt32(DirectFunctionCall1(numeric_int4, sign)) >= 0)
		return number;
	ereport(ERROR,
			errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			errmsg("%s must be a finite number, zero or above", name),
			errdetail("It is %s.", fin_amount_excerpt(number)));
}

static int
compare(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(b)));
}

static Numeric
number_of(int64 number)
{
	return DatumGetNumeric(DirectFunctionCall1(int8_numeric,
											   Int64GetDatum(number)));
}

static void
check_numbers(FunctionCallInfo fcinfo, FinRuleKind kind)
{
	Numeric		threshold = check_number(fcinfo, ARG_THRESHOLD, "threshold");
	Numeric		minimum = check_number(fcinfo, ARG_MINIMUM, "minimum");

	if (kind == FIN_RULE_TRANSFER_LIMIT && threshold == NULL && minimum == NULL)
		refuse("a rule of kind transfer_limit needs a threshold",
			   "The threshold is the highest amount that passes, minimum the lowest.");
	if (threshold != NULL && minimum != NULL &&
		(kind == FIN_RULE_TRANSFER_LIMIT || kind == FIN_RULE_STRUCTURING) &&
		compare(minimum, threshold) >= (kind == FIN_RULE_STRUCTURING ? 0 : 1))
		refuse("minimum must be below threshold",
			   "Amounts from minimum to threshold are meant.");
	if (kind == FIN_RULE_BALANCE_DRAIN &&
		(compare(threshold, number_of(0)) <= 0 ||
		 compare(threshold, number_of(1)) > 0))
		refuse("the threshold of a rule of kind balance_drain must be above 0 and at most 1",
			   "It is the share of what the payer has available: 0.9 is 90 percent.");
	if (kind == FIN_RULE_ROUND_AMOUNT && compare(threshold, number_of(0)) <= 0)
		refuse("the threshold of a rule of kind round_amount must be above zero",
			   "Multiples of it are hit: 1000 hits 5,000 and not 5,001.");
	if (!PG_ARGISNULL(ARG_TIMES) &&
		(PG_GETARG_INT32(ARG_TIMES) < 1 || PG_GETARG_INT32(ARG_TIMES) > 1000000))
		refuse("times must be between 1 and 1000000",
			   "So many transfers just below the threshold are hit.");
	if (!PG_ARGISNULL(ARG_SCORE) &&
		(PG_GETARG_INT32(ARG_SCORE) < -1000000 ||
		 PG_GETARG_INT32(ARG_SCORE) > 1000000))
		refuse("score must be between -1000000 and 1000000",
			   "Scores of the rules that hit add up.");
}

static void
check_word(FunctionCallInfo fcinfo, Argument argument, const char *name,
		   const char *const *words, const char *hint)
{
	char	   *word = fin_argument_text_or_null(fcinfo, argument, name,
												 FIN_NAME_LENGTH_MAX);

	if (word == NULL)
		return;
	for (; *words != NULL; words++)
	{
		if (strcmp(word, *words) == 0)
			return;
	}
	refuse(psprintf("%s \"%s\" is not known", name, word), hint);
}

static void
check_words(FunctionCallInfo fcinfo)
{
	static const char *const outcomes[] = {"pass", "report", "challenge",
	"review", "reject", NULL};
	static const char *const pers[] = {"account", "counterparty", "pair",
	"account_type", "type", NULL};
	static const char *const periods[] = {"hour", "day", "month", NULL};
	static const char *const subjects[] = {"account", "payer", "payee",
	"country", "device", NULL};

	check_word(fcinfo, ARG_OUTCOME, "outcome", outcomes,
			   "It is pass, report, challenge, review or reject.");
	check_word(fcinfo, ARG_ON_ERROR, "on_error", outcomes,
			   "It is pass, report, challenge, review or reject.");
	check_word(fcinfo, ARG_PER, "per", pers,
			   "It is account, counterparty, pair, account_type or type.");
	check_word(fcinfo, ARG_PERIOD, "period", periods,
			   "It is hour, day or month; or give a span instead.");
	check_word(fcinfo, ARG_SUBJECT, "subject", subjects,
			   "It is account, payer, payee, country or device.");
}

static bool
is_counting(FinRuleKind kind)
{
	return kind == FIN_RULE_TOTAL_LIMIT || kind == FIN_RULE_COUNT_LIMIT ||
		kind == FIN_RULE_VELOCITY || kind == FIN_RULE_STRUCTURING;
}

static void
check_period(FunctionCallInfo fcinfo, FinRuleKind kind)
{
	bool		has_span = !PG_ARGISNULL(ARG_SPAN);

	if (is_counting(kind) && PG_ARGISNULL(ARG_PERIOD) == !has_span)
		refuse(psprintf("a rule of kind %s needs a period or a span",
						fin_rule_kinds[kind].name),
			   "A period is hour, day or month of the tenant's time; a span, like '24 hours', slides.");
	if (has_span)
	{
		Interval   *span = PG_GETARG_INTERVAL_P(ARG_SPAN);

		if (span->month != 0 || span->day < 0 || span->day > 366 ||
			span->time < 0 || (span->day == 0 && span->time == 0) ||
			span->day * USECS_PER_DAY + span->time > 366 * USECS_PER_DAY)
			refuse("span must be above zero and at most 366 days",
				   "Months differ in length: say how many days, hours or minutes.");
	}
	if (!PG_ARGISNULL(ARG_WINDOW_START) &&
		PG_GETARG_TIMEADT(ARG_WINDOW_START) == PG_GETARG_TIMEADT(ARG_WINDOW_END))
		refuse("window_start and window_end must differ",
			   "A window ends just before window_end.");
}

static void
check_weekdays(FunctionCallInfo fcinfo)
{
	ArrayType  *array;
	Datum	   *days;
	bool	   *nulls;
	int			n;

	if (PG_ARGISNULL(ARG_WEEKDAYS))
		return;
	array = PG_GETARG_ARRAYTYPE_P(ARG_WEEKDAYS);
	deconstruct_array(array, INT4OID, 4, true, TYPALIGN_INT, &days, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i] || DatumGetInt32(days[i]) < 1 || DatumGetInt32(days[i]) > 7)
			refuse("weekdays must be numbers from 1 to 7",
				   "1 is Monday, 7 is Sunday.");
	}
	if (n == 0 || n > 7)
		refuse("weekdays must be one to seven days", "1 is Monday, 7 is Sunday.");
}

static void
check_zone(FunctionCallInfo fcinfo)
{
	char	   *name = fin_argument_text_or_null(fcinfo, ARG_TIME_ZONE,
												 "time_zone",
												 FIN_NAME_LENGTH_MAX);
	Datum		values[1];

	if (name == NULL)
		return;
	values[0] = CStringGetTextDatum(name);
	if (fin_query_run(&find_zone, values, NULL, 1) == 0)
		refuse(psprintf("time zone \"%s\" is not known", name),
			   "See pg_catalog.pg_timezone_names; for example Europe/Berlin.");
}

static void
check_currency(FunctionCallInfo fcinfo)
{
	char	   *currency = fin_argument_text_or_null(fcinfo, ARG_CURRENCY,
													 "currency",
													 FIN_CURRENCY_LENGTH_MAX);
	Datum		values[1];

	if (currency == NULL)
		return;
	values[0] = CStringGetTextDatum(currency);
	if (fin_query_run(&find_currency, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_CURRENCY),
				errmsg("currency \"%s\" does not exist", currency));
}

static void
check_texts(FunctionCallInfo fcinfo)
{
	static const struct
	{
		Argument	argument;
		const char *name;
		int			length_max;
	}			texts[] = {
		{ARG_CALENDAR, "calendar", FIN_NAME_LENGTH_MAX},
		{ARG_LIST, "list", FIN_NAME_LENGTH_MAX},
		{ARG_ACCOUNT_TYPE, "account_type", FIN_TYPE_LENGTH_MAX},
		{ARG_LEVEL, "level", FIN_NAME_LENGTH_MAX},
		{ARG_TRANSFER_TYPE, "transfer_type", FIN_TYPE_LENGTH_MAX},
		{ARG_DESCRIPTION, "description", FIN_REASON_LENGTH_MAX},
	};

	for (int i = 0; i < (int) lengthof(texts); i++)
		(void) fin_argument_text_or_null(fcinfo, texts[i].argument,
										 texts[i].name, texts[i].length_max);
}

/* ------------------------------------------------------------------------
 * add, remove, switch
 * ------------------------------------------------------------------------ */

/*
 * Rules keep the id, so a code remembered from an account whose creation rolled
 * back must not be trusted here: it would watch an account that is not there,
 * and miss the one that gets the code later.
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

/* any argument as text, or NULL */
static const char *
argument_text(FunctionCallInfo fcinfo, int argument)
{
	Oid			output;
	bool		is_varlena;

	if (PG_ARGISNULL(argument))
		return NULL;
	if (argument == ARG_SPAN)
		return fin_json_span_text(PG_GETARG_INTERVAL_P(argument));
	getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, argument), &output,
					  &is_varlena);
	return OidOutputFunctionCall(output, PG_GETARG_DATUM(argument));
}

/* what was asked for, and the version it made */
static char *
rule_json(FunctionCallInfo fcinfo, const FinRulesetEdit *edit)
{
	static const char *const names[ARGUMENTS] = {
		"name", "kind", "threshold", "account", "currency", "window_start",
		"window_end", "outcome", "score", "minimum", "per", "period", "span",
		"times", "time_zone", "weekdays", "calendar", "list", "subject",
		"expression", "on_error", "account_type", "level", "transfer_type",
		"description", NULL
	};
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < ARG_RULESET; i++)
	{
		/* a score of nothing is not worth a word */
		if (i == ARG_SCORE && !PG_ARGISNULL(i) && PG_GETARG_INT32(i) == 0)
			continue;
		fin_json_text(&json, names[i], argument_text(fcinfo, i));
	}
	fin_json_int64(&json, "version", edit->version);
	return fin_json_end(&json);
}

static void
write_rule(FunctionCallInfo fcinfo, const FinContext *context, int32 version,
		   FinRuleKind kind, int64 account_id)
{
	Datum		values[2 + ARGUMENTS];
	char		nulls[2 + ARGUMENTS];

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int32GetDatum(version);
	nulls[0] = nulls[1] = ' ';
	for (int i = 0; i < ARG_RULESET; i++)
	{
		values[2 + i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[2 + i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[2 + ARG_ACCOUNT] = Int64GetDatum(account_id);
	if (PG_ARGISNULL(ARG_OUTCOME))
	{
		values[2 + ARG_OUTCOME] = CStringGetTextDatum(fin_rule_kinds[kind].outcome);
		nulls[2 + ARG_OUTCOME] = ' ';
	}
	if (fin_query_run(&insert_rule, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("risk rule \"%s\" already exists",
					   TextDatumGetCString(PG_GETARG_DATUM(ARG_NAME))));
}

PG_FUNCTION_INFO_V1(finance_add_rule);

/*
 * finance.add_rule(name, kind, threshold, account, currency, window_start,
 *					window_end, outcome, score, minimum, per, period, span,
 *					times, time_zone, weekdays, calendar, list, subject,
 *					expression, on_error, account_type, level, transfer_type,
 *					description, ruleset)
 *
 * What each kind hits, and which arguments it needs or takes: rule_kind.c, and
 * finance.rule_kinds().  outcome: pass (its score alone counts), report,
 * challenge, review or reject; null: the kind's usual one.  score: added up
 * over the rules that hit.  account, account_type, level, currency,
 * transfer_type: only what this account, an account of this type or level, pays,
 * in this currency, by this type of transfer; null: any.  A threshold is in
 * units of whatever currency the transfer has.  ruleset: a draft; null: what is
 * live, by a new version.
 *
 * Errors: 22023 bad arguments, 22003 bad number, 42710 name taken, LG002
 * unknown account, LG009 unknown currency, LG103 bad expression, LG108 unknown
 * ruleset, LG109 not a draft.  Locks: the tenant's rulesets.
 */
Datum
finance_add_rule(PG_FUNCTION_ARGS)
{
	char	   *name;
	FinRuleKind kind;
	char	   *account;
	const FinContext *context;
	FinQueryScope scope;
	FinRulesetEdit edit;
	int64		account_id = 0;
	int32		version;

	name = fin_argument_text(fcinfo, ARG_NAME, "name", FIN_NAME_LENGTH_MAX);
	kind = check_kind(fin_argument_text(fcinfo, ARG_KIND, "kind",
										FIN_NAME_LENGTH_MAX));
	account = fin_argument_text_or_null(fcinfo, ARG_ACCOUNT, "account",
										FIN_CODE_LENGTH_MAX);
	version = fin_ruleset_argument(fcinfo, ARG_RULESET);
	context = fin_context_hold();
	check_fields(fcinfo, kind);
	check_numbers(fcinfo, kind);
	check_words(fcinfo);
	check_period(fcinfo, kind);
	check_weekdays(fcinfo);
	check_texts(fcinfo);
	if (!PG_ARGISNULL(ARG_EXPRESSION))
		fin_risk_check_expression(TextDatumGetCString(PG_GETARG_DATUM(ARG_EXPRESSION)));

	fin_query_begin(&scope);
	check_zone(fcinfo);
	check_currency(fcinfo);
	if (account != NULL)
		account_id = find_account(context, account);
	fin_ruleset_begin_edit(context, version, psprintf("add_rule %s", name),
						   &edit);
	write_rule(fcinfo, context, edit.version, kind, account_id);
	fin_ruleset_end_edit(context, &edit);
	audit_rule(context, "add_rule", rule_json(fcinfo, &edit), account_id);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

/* changes the rule of this name in a draft, or in what is live */
static void
change_rule(FunctionCallInfo fcinfo, FinQuery *query, bool enabled,
			int ruleset_argument, const char *operation)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	int32		version = fin_ruleset_argument(fcinfo, ruleset_argument);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinRulesetEdit edit;
	Datum		values[4];
	StringInfoData json;

	fin_query_begin(&scope);
	fin_ruleset_begin_edit(context, version,
						   psprintf("%s %s", operation, name), &edit);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int32GetDatum(edit.version);
	values[2] = CStringGetTextDatum(name);
	values[3] = BoolGetDatum(enabled);
	if (fin_query_run(query, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RULE),
				errmsg("risk rule \"%s\" does not exist", name));
	fin_ruleset_end_edit(context, &edit);
	initStringInfo(&json);
	fin_json_text(&json, "name", name);
	fin_json_int64(&json, "version", edit.version);
	audit_rule(context, operation, fin_json_end(&json), 0);
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_remove_rule);

/*
 * finance.remove_rule(name, ruleset).  Errors: LG102 unknown rule, LG108
 * unknown ruleset, LG109 not a draft.
 */
Datum
finance_remove_rule(PG_FUNCTION_ARGS)
{
	change_rule(fcinfo, &delete_rule, false, 1, "remove_rule");
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_enable_rule);

/* finance.enable_rule(name, enabled, ruleset).  Errors: as remove_rule(). */
Datum
finance_enable_rule(PG_FUNCTION_ARGS)
{
	bool		enabled = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);

	change_rule(fcinfo, &update_enabled, enabled, 2,
				enabled ? "enable_rule" : "disable_rule");
	PG_RETURN_VOID();
}

/* names of these fields, and NULL for none */
static char *
field_names(int fields)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < FIN_RULE_FIELDS; i++)
	{
		if ((fields & (1 << i)) != 0)
			appendStringInfo(&names, "%s%s", names.len == 0 ? "" : ", ",
							 fin_rule_field_names[i]);
	}
	return names.len == 0 ? NULL : names.data;
}

PG_FUNCTION_INFO_V1(finance_rule_kinds);

/* finance.rule_kinds() returns table: fin_rule_kinds[] */
Datum
finance_rule_kinds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < FIN_RULE_KINDS; i++)
	{
		const FinRuleKindInfo *info = &fin_rule_kinds[i];
		char	   *needs = field_names(info->needs);
		char	   *takes = field_names(info->takes);
		Datum		values[5] = {CStringGetTextDatum(info->name),
			CStringGetTextDatum(info->outcome), (Datum) 0, (Datum) 0,
		CStringGetTextDatum(info->hits)};
		bool		nulls[5] = {false, false, needs == NULL, takes == NULL};

		if (needs != NULL)
			values[2] = CStringGetTextDatum(needs);
		if (takes != NULL)
			values[3] = CStringGetTextDatum(takes);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * holidays
 * ------------------------------------------------------------------------ */

static bool
change_holiday(FinQuery *query, const char *operation, DateADT day,
			   const char *calendar, const char *name)
{
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[4] = {Int32GetDatum(context->tenant_id)};
	char		nulls[4] = {' ', ' ', ' ', ' '};
	bool		changed;

	if (DATE_NOT_FINITE(day))
		refuse("a holiday must be a finite date", "For example 2026-12-25.");
	fin_query_begin(&scope);
	values[1] = CStringGetTextDatum(calendar);
	values[2] = DateADTGetDatum(day);
	if (name != NULL)
		values[3] = CStringGetTextDatum(name);
	else
		nulls[3] = 'n';
	changed = fin_query_run(query, values, nulls, 0) == 1;
	if (changed)
	{
		StringInfoData json;

		initStringInfo(&json);
		fin_json_text(&json, "calendar", calendar);
		fin_json_text(&json, "day", fin_json_date_text(day));
		fin_json_text(&json, "name", name);
		audit_rule(context, operation, fin_json_end(&json), 0);
	}
	fin_query_end(&scope);
	return changed;
}

static DateADT
day_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("day must not be null"));
	return PG_GETARG_DATEADT(0);
}

PG_FUNCTION_INFO_V1(finance_add_holiday);

/*
 * finance.add_holiday(day, name, calendar) returns boolean
 *
 * False: it is one already.  Errors: 22004, 22023 bad arguments.
 */
Datum
finance_add_holiday(PG_FUNCTION_ARGS)
{
	DateADT		day = day_argument(fcinfo);
	char	   *name = fin_argument_text_or_null(fcinfo, 1, "name",
												 FIN_REASON_LENGTH_MAX);
	char	   *calendar = fin_argument_text(fcinfo, 2, "calendar",
											 FIN_NAME_LENGTH_MAX);

	PG_RETURN_BOOL(change_holiday(&insert_holiday, "add_holiday", day,
								  calendar, name));
}

PG_FUNCTION_INFO_V1(finance_remove_holiday);

/* finance.remove_holiday(day, calendar) returns boolean; false: it is none */
Datum
finance_remove_holiday(PG_FUNCTION_ARGS)
{
	DateADT		day = day_argument(fcinfo);
	char	   *calendar = fin_argument_text(fcinfo, 1, "calendar",
											 FIN_NAME_LENGTH_MAX);

	PG_RETURN_BOOL(change_holiday(&delete_holiday, "remove_holiday", day,
								  calendar, NULL));
}
