/*
 * fact.c
 *		The facts of a transfer that a risk expression may use.
 *
 * Owns: the list, which is static.  Locks: none.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "errors.h"
#include "fact.h"

static const FinExprVar vars[] = {
#define NAMED(fact, name, type) [FIN_FACT_##fact] = {name, type}
	NAMED(AMOUNT, "amount", NUMERICOID),
	NAMED(CURRENCY, "currency", TEXTOID),
	NAMED(TYPE, "type", TEXTOID),
	NAMED(FROM_ACCOUNT, "from_account", TEXTOID),
	NAMED(TO_ACCOUNT, "to_account", TEXTOID),
	NAMED(FROM_TYPE, "from_type", TEXTOID),
	NAMED(TO_TYPE, "to_type", TEXTOID),
	NAMED(FROM_LEVEL, "from_level", TEXTOID),
	NAMED(TO_LEVEL, "to_level", TEXTOID),
	NAMED(FROM_AGE_DAYS, "from_age_days", INT8OID),
	NAMED(TO_AGE_DAYS, "to_age_days", INT8OID),
	NAMED(AVAILABLE, "available", NUMERICOID),
	NAMED(BALANCE, "balance", NUMERICOID),
	NAMED(FROM_IDLE_DAYS, "from_idle_days", NUMERICOID),
	NAMED(TO_BALANCE, "to_balance", NUMERICOID),
	NAMED(LOCAL_TIME, "local_time", TIMEOID),
	NAMED(LOCAL_DATE, "local_date", DATEOID),
	NAMED(WEEKDAY, "weekday", INT4OID),
	NAMED(IS_HOLIDAY, "is_holiday", BOOLOID),
	NAMED(IS_HOLD, "is_hold", BOOLOID),
	NAMED(IS_REVERSAL, "is_reversal", BOOLOID),
	NAMED(REFERENCE, "reference", TEXTOID),
	NAMED(METADATA, "metadata", JSONBOID),
	NAMED(DEVICE, "device", TEXTOID),
	NAMED(COUNTRY, "country", TEXTOID),
	NAMED(LAST_DEVICE, "last_device", TEXTOID),
	NAMED(LAST_COUNTRY, "last_country", TEXTOID),
	NAMED(LAST_COUNTRY_MINUTES, "last_country_minutes", NUMERICOID),
	NAMED(PAIR_COUNT, "pair_count", INT8OID),
	NAMED(DEVICE_COUNT, "device_count", INT8OID),
#undef NAMED

#define TOTALS(scope, period, name) \
	[FIN_FACT_TOTAL_AMOUNT(scope, period)] = {name "_amount", NUMERICOID}, \
	[FIN_FACT_TOTAL_COUNT(scope, period)] = {name "_count", INT8OID}
#define TOTALS_OF(scope, name) \
	TOTALS(scope, FIN_FACT_PER_HOUR, name "_hour"), \
	TOTALS(scope, FIN_FACT_PER_DAY, name "_day"), \
	TOTALS(scope, FIN_FACT_PER_MONTH, name "_month")
	TOTALS_OF(FIN_FACT_OF_ACCOUNT, "account"),
	TOTALS_OF(FIN_FACT_OF_COUNTERPARTY, "counterparty"),
	TOTALS_OF(FIN_FACT_OF_PAIR, "pair"),
	TOTALS_OF(FIN_FACT_OF_ACCOUNT_TYPE, "account_type"),
#undef TOTALS_OF
#undef TOTALS
};

StaticAssertDecl(lengthof(vars) == FIN_FACT_COUNT, "every fact has a name");

static const char *const descriptions[] = {
	[FIN_FACT_AMOUNT] = "amount of the transfer, in its currency",
	[FIN_FACT_CURRENCY] = "code of the currency, as EUR",
	[FIN_FACT_TYPE] = "transfer type",
	[FIN_FACT_FROM_ACCOUNT] = "code of the payer's account",
	[FIN_FACT_TO_ACCOUNT] = "code of the payee's account",
	[FIN_FACT_FROM_TYPE] = "account type of the payer",
	[FIN_FACT_TO_TYPE] = "account type of the payee",
	[FIN_FACT_FROM_LEVEL] = "customer level of the payer; null: none",
	[FIN_FACT_TO_LEVEL] = "customer level of the payee; null: none",
	[FIN_FACT_FROM_AGE_DAYS] = "whole days since the payer's account was created",
	[FIN_FACT_TO_AGE_DAYS] = "whole days since the payee's account was created",
	[FIN_FACT_AVAILABLE] = "what the payer can spend, before this transfer",
	[FIN_FACT_BALANCE] = "balance of the payer, before this transfer",
	[FIN_FACT_FROM_IDLE_DAYS] = "days since the payer last paid or held, parked not counted, or was opened",
	[FIN_FACT_TO_BALANCE] = "balance of the payee, before this transfer",
	[FIN_FACT_LOCAL_TIME] = "time of day in the tenant's time zone",
	[FIN_FACT_LOCAL_DATE] = "date in the tenant's time zone",
	[FIN_FACT_WEEKDAY] = "day of the week of local_date, 1 is Monday, 7 Sunday",
	[FIN_FACT_IS_HOLIDAY] = "is local_date a holiday of the tenant?",
	[FIN_FACT_IS_HOLD] = "is it a hold, to be captured later?",
	[FIN_FACT_IS_REVERSAL] = "does it reverse an earlier transfer?",
	[FIN_FACT_REFERENCE] = "reference given with the transfer",
	[FIN_FACT_METADATA] = "metadata given with the transfer",
	[FIN_FACT_DEVICE] = "member device of metadata, as text",
	[FIN_FACT_COUNTRY] = "member country of metadata, as text",
	[FIN_FACT_LAST_DEVICE] = "device of the payer's last transfer that had one",
	[FIN_FACT_LAST_COUNTRY] = "country of the payer's last transfer that had one",
	[FIN_FACT_LAST_COUNTRY_MINUTES] = "minutes since the transfer of last_country",
	[FIN_FACT_PAIR_COUNT] = "how often the payer has paid this payee, ever",
	[FIN_FACT_DEVICE_COUNT] = "how often the payer has used this device, ever",
};

StaticAssertDecl(lengthof(descriptions) == FIN_FACT_TOTALS,
				 "every fact is described");

const FinExprVar *
fin_fact_vars(void)
{
	return vars;
}

int
fin_fact_find(const char *name)
{
	for (int fact = 0; fact < FIN_FACT_COUNT; fact++)
	{
		if (strcmp(vars[fact].name, name) == 0)
			return fact;
	}
	return -1;
}

/* of a total, in the current context */
const char *
fin_fact_description(int fact)
{
	static const char *const scopes[FIN_FACT_SCOPES] = {
		"the payer has paid", "the payee has received",
		"the payer has paid this payee",
		"the payer has paid by this transfer type"
	};
	static const char *const periods[FIN_FACT_PERIODS] = {
		"hour", "day", "month"
	};
	int			total = fact - FIN_FACT_TOTALS;

	if (total < 0)
		return descriptions[fact];
	return psprintf("%s %s this %s, before this transfer",
					total % 2 == 0 ? "what" : "how often",
					scopes[total / (2 * FIN_FACT_PERIODS)],
					periods[total / 2 % FIN_FACT_PERIODS]);
}

PG_FUNCTION_INFO_V1(finance_risk_facts);

/*
 * finance.risk_facts() returns table (name text, type text, description text)
 *
 * What risk expressions may refer to, in the order of the list.  Takes no
 * locks.
 */
Datum
finance_risk_facts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int fact = 0; fact < FIN_FACT_COUNT; fact++)
	{
		Datum		values[3] = {
			CStringGetTextDatum(vars[fact].name),
			CStringGetTextDatum(format_type_be(vars[fact].type)),
			CStringGetTextDatum(fin_fact_description(fact))
		};
		bool		nulls[3] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * trying an expression
 * ------------------------------------------------------------------------ */

/* a scalar as the text its type reads; anything else as JSON */
static char *
scalar_text(JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return JsonbToCString(NULL, &JsonbValueToJsonb(value)->root, -1);
	}
}

static void
take_fact(const char *name, JsonbValue *value, FinExprValue *values)
{
	int			fact = fin_fact_find(name);
	Oid			input;
	Oid			ioparam;

	if (fact < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("fact \"%s\" does not exist", name),
				errhint("finance.risk_facts() lists them."));
	if (value->type == jbvNull)
		return;
	values[fact].isnull = false;
	if (vars[fact].type == JSONBOID)
	{
		values[fact].value = JsonbPGetDatum(JsonbValueToJsonb(value));
		return;
	}
	getTypeInputInfo(vars[fact].type, &input, &ioparam);
	values[fact].value = OidInputFunctionCall(input, scalar_text(value),
											  ioparam, -1);
}

/* facts that are not given are null */
static FinExprValue *
take_facts(Jsonb *facts)
{
	FinExprValue *values = palloc0(sizeof(FinExprValue) * FIN_FACT_COUNT);
	JsonbIterator *iterator = JsonbIteratorInit(&facts->root);
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	if (!JB_ROOT_IS_OBJECT(facts))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("facts are not a JSON object"));
	for (int fact = 0; fact < FIN_FACT_COUNT; fact++)
		values[fact].isnull = true;
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&iterator, &value, true);
		take_fact(pnstrdup(key.val.string.val, key.val.string.len), &value,
				  values);
	}
	return values;
}

PG_FUNCTION_INFO_V1(finance_check_expression);

/*
 * finance.check_expression(expression text, facts jsonb) returns boolean
 *
 * Compiles a risk expression, and evaluates it when facts are given: an object
 * by name, of which those left out are null.  Result: null without facts.
 * Errors: LG103 the expression is not allowed, or failed with these facts;
 * 22004 null expression; 22023 facts is no object or has one that does not
 * exist; those of a value that is not of its fact's type.  Takes no locks.
 */
Datum
finance_check_expression(PG_FUNCTION_ARGS)
{
	FinExpr    *expr;
	FinExprResult result;
	char	   *error;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("expression must not be null"));
	expr = fin_expr_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)), vars,
							FIN_FACT_COUNT, CurrentMemoryContext);
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	result = fin_expr_eval(expr, take_facts(PG_GETARG_JSONB_P(1)), &error);
	fin_expr_free(expr);
	if (result == FIN_EXPR_ERROR)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("expression failed: %s", error));
	if (result == FIN_EXPR_NULL)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(result == FIN_EXPR_TRUE);
}
