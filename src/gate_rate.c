/*
 * gate_rate.c
 *		finance.set_rate_limit(), drop_rate_limit(), rate_limits().
 *
 * Owns nothing between calls.  Each change is audited and, by the table's
 * trigger, invalidates the books of all backends when it commits.  The tokens
 * are bucket.c's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "account.h"
#include "amount.h"
#include "audit.h"
#include "errors.h"
#include "gate_parts.h"
#include "ident.h"
#include "json.h"
#include "query.h"

#define LIMIT_KINDS	(1U << FIN_GATE_TENANT | 1U << FIN_GATE_EACH_ACCOUNT | \
					 1U << FIN_GATE_ACCOUNT | 1U << FIN_GATE_TYPE)
#define LIMIT_HINT	"It is tenant, account, account=CODE or type=NAME."
#define TOKENS_SCALE	12		/* decimals of a count of tokens */

StaticAssertDecl(FIN_BUCKET_TOKEN == INT64CONST(1000000000000),
				 "tokens are counted in 10^-TOKENS_SCALE");

/* a limit that is changed keeps its id, and its buckets what is in them */
static FinQuery upsert_limit =
{
	.sql = "INSERT INTO finance.rate_limit AS r (tenant_id, scope, account_id,"
	" limit_id, rate, burst) VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (tenant_id, scope) DO UPDATE SET account_id = EXCLUDED.account_id,"
	" rate = EXCLUDED.rate, burst = EXCLUDED.burst, set_at = EXCLUDED.set_at",
	.nargs = 6,
	.argtypes = {INT4OID, TEXTOID, INT8OID, INT8OID, NUMERICOID, INT4OID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "rate_limit",
};

static FinQuery delete_limit =
{
	.sql = "DELETE FROM finance.rate_limit WHERE tenant_id = $1 AND scope = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery count_limits =
{
	.sql = "SELECT count(*) FROM finance.rate_limit WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_limits =
{
	.sql = "SELECT scope, limit_id, rate, burst FROM finance.rate_limit"
	" WHERE tenant_id = $1 ORDER BY scope COLLATE \"C\"",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static void
refuse_rate(Numeric rate)
{
	ereport(ERROR,
			errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			errmsg("rate must be above 0 and at most 1000000, with at most 6 decimals"),
			errdetail("It is %s.", fin_amount_excerpt(rate)));
}

/* in the form in which it is stored and shown */
static Datum
take_rate(FunctionCallInfo fcinfo)
{
	Numeric		rate = fin_argument_numeric(fcinfo, 1, "rate", true);
	FinAmount	millionths;

	if (fin_amount_decode(rate, FIN_BUCKET_RATE_DIGITS,
						  &millionths) != FIN_AMOUNT_OK ||
		millionths <= 0 || millionths > FIN_BUCKET_RATE_MAX)
		refuse_rate(rate);
	return DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(rate));
}

static int32
take_burst(FunctionCallInfo fcinfo)
{
	int32		burst;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("burst must not be null"));
	burst = PG_GETARG_INT32(2);
	if (burst < 1 || burst > FIN_BUCKET_BURST_MAX)
		ereport(ERROR,
				errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				errmsg("burst must be from 1 to %d", FIN_BUCKET_BURST_MAX),
				errdetail("It is %d.", burst));
	return burst;
}

static void
refuse_too_many(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};

	(void) fin_query_run(&count_limits, values, NULL, 1);
	if (fin_query_int64(0, 1) > FIN_GATE_ROWS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("too many rate limits"),
				errdetail("A tenant has at most %d.", FIN_GATE_ROWS_MAX),
				errhint("Scope account holds for each account."));
}

/* a trigger on the table written may have acted as somebody else */
static void
audit_limit(const FinContext *context, const char *operation,
			const FinGateScope *scope, const char *rate, int64 burst)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "scope", scope->text);
	fin_json_text(&json, "rate", rate);
	if (rate != NULL)
		fin_json_int64(&json, "burst", burst);
	record.operation = operation;
	record.status = "completed";
	record.account_id = scope->account_id;
	record.request = fin_json_end(&json);
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_set_rate_limit);

/*
 * finance.set_rate_limit(scope, rate, burst)
 *
 * At most 'burst' transfers and holds at once, and 'rate' a second in the long
 * run: together in the 'tenant', by each 'account' that pays, by the payer
 * 'account=CODE' (instead of the former), or of 'type=NAME'.  Those above fail
 * with LG105.  rate: above 0, at most 10^6, with up to 6 decimals; burst: 1 to
 * 10^6.  A limit that is changed keeps the tokens that are left.
 *
 * Errors: 22023 bad scope, 22003 bad rate or burst, 22004, 54000
 * FIN_GATE_ROWS_MAX limits in the tenant, 55000 not preloaded, LG002 unknown
 * account, LG017 unknown type.
 */
Datum
finance_set_rate_limit(PG_FUNCTION_ARGS)
{
	char	   *text = fin_argument_text(fcinfo, 0, "scope",
										 FIN_SCOPE_LENGTH_MAX);
	Datum		rate = take_rate(fcinfo);
	int32		burst = take_burst(fcinfo);
	const FinContext *context;
	FinGateScope scope;
	FinQueryScope query;
	Datum		values[6];
	char		nulls[6];

	fin_gate_parse_scope(text, LIMIT_KINDS, LIMIT_HINT, &scope);
	if (!fin_bucket_available())
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("transfers cannot be counted on this server"),
				errhint("Set shared_preload_libraries = 'finance' and restart the server."));
	context = fin_context_hold();
	fin_query_begin(&query);
	fin_gate_resolve_scope(context->tenant_id, &scope);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(text);
	values[2] = Int64GetDatum(scope.account_id);
	nulls[2] = scope.account_id == 0 ? 'n' : ' ';
	values[3] = Int64GetDatum(fin_ident_next(0));
	values[4] = rate;
	values[5] = Int32GetDatum(burst);
	(void) fin_query_run(&upsert_limit, values, nulls, 0);
	refuse_too_many(context->tenant_id);
	audit_limit(context, "set_rate_limit", &scope,
				DatumGetCString(DirectFunctionCall1(numeric_out, rate)), burst);
	fin_query_end(&query);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_drop_rate_limit);

/*
 * finance.drop_rate_limit(scope) returns boolean
 *
 * False: there was no limit of the very scope.  Errors: 22023 bad scope, 22004.
 */
Datum
finance_drop_rate_limit(PG_FUNCTION_ARGS)
{
	char	   *text = fin_argument_text(fcinfo, 0, "scope",
										 FIN_SCOPE_LENGTH_MAX);
	const FinContext *context;
	FinGateScope scope;
	FinQueryScope query;
	Datum		values[2];
	bool		dropped;

	fin_gate_parse_scope(text, LIMIT_KINDS, LIMIT_HINT, &scope);
	context = fin_context_hold();
	fin_query_begin(&query);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(text);
	dropped = fin_query_run(&delete_limit, values, NULL, 0) == 1;
	if (dropped)
		audit_limit(context, "drop_rate_limit", &scope, NULL, 0);
	fin_query_end(&query);
	PG_RETURN_BOOL(dropped);
}

/* null where there is a bucket for each account and none was asked for */
static Datum
tokens_left(const FinBucket *bucket, bool is_of_each, bool *isnull)
{
	*isnull = !fin_bucket_available() ||
		(is_of_each && bucket->subject_id == 0);
	if (*isnull)
		return (Datum) 0;
	return DirectFunctionCall1(numeric_trim_scale,
							   fin_amount_datum(fin_bucket_level(bucket),
												TOKENS_SCALE));
}

/* the row's columns scope, rate, burst, tokens */
static void
show_limit(uint64 row, int64 account_id, Datum *values, bool *nulls)
{
	FinBucket	bucket = {0};
	FinAmount	millionths;
	bool		is_of_each = strcmp(fin_query_text(row, 1), "account") == 0;

	values[0] = fin_query_datum(row, 1, &nulls[0]);
	values[1] = fin_query_datum(row, 3, &nulls[1]);
	values[2] = fin_query_datum(row, 4, &nulls[2]);
	bucket.limit_id = fin_query_int64(row, 2);
	if (is_of_each)
		bucket.subject_id = account_id;
	if (fin_amount_decode(DatumGetNumeric(values[1]), FIN_BUCKET_RATE_DIGITS,
						  &millionths) != FIN_AMOUNT_OK)
		elog(ERROR, "a rate limit has a bad rate");
	bucket.limit.rate = (int64) millionths;
	bucket.limit.burst = DatumGetInt32(values[2]);
	values[3] = tokens_left(&bucket, is_of_each, &nulls[3]);
}

PG_FUNCTION_INFO_V1(finance_rate_limits);

/*
 * finance.rate_limits(account text) returns setof (scope, rate, burst, tokens)
 *
 * The tenant's limits, and how many tokens are left in each now.  Of the limit
 * that holds for each account, those of 'account', or null when it is null.
 * Null also where the library is not preloaded.  Errors: LG002 unknown account.
 */
Datum
finance_rate_limits(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *code = fin_argument_text_or_null(fcinfo, 0, "account",
												 FIN_CODE_LENGTH_MAX);
	const FinContext *context = fin_context();
	Datum		tenant = Int32GetDatum(context->tenant_id);
	FinQueryScope query;
	int64		account_id = 0;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	fin_query_begin(&query);
	if (code != NULL)
	{
		account_id = fin_store_find_account(context->tenant_id, code);
		if (account_id == 0)
			fin_fault_raise(fin_account_fault_unknown(code, 0));
	}
	n = (int) fin_query_run(&select_limits, &tenant, NULL, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		values[4];
		bool		nulls[4];

		show_limit(i, account_id, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	fin_query_end(&query);
	return (Datum) 0;
}
