/*
 * alert_export.c
 *		finance.export_aml(): large and suspicious transfers as lines of text.
 *
 * Owns nothing.  Reads finance.aml_report with the calling statement's
 * snapshot, row by row into the result.  Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "context.h"
#include "query.h"

/* RFC 4180: what has a comma, a quote or a line's end is quoted */
#define CSV(value) \
	"CASE WHEN " value " ~ '[\",\\r\\n]' THEN" \
	" '\"' || pg_catalog.replace(" value ", '\"', '\"\"') || '\"'" \
	" ELSE coalesce(" value ", '') END"

/* not as the session shows it */
#define TIME_TEXT(column) \
	"pg_catalog.to_char(" column " AT TIME ZONE 'UTC'," \
	" 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

#define REPORTED \
	" FROM finance.aml_report r WHERE r.tenant_id = $1" \
	" AND r.recorded_at >= $2 AND r.recorded_at < $3"

static FinQuery export_csv =
{
	.sql = "SELECT l.line FROM (SELECT 0::bigint AS id,"
	" 'transfer_id,recorded_at,status,from_account,to_account,amount,currency,"
	"type,reference,outcome,rules,review_status,alert_id,alert_status,comment'::text AS line"
	" UNION ALL SELECT r.transfer_id, pg_catalog.concat_ws(',', r.transfer_id,"
	" " TIME_TEXT("r.recorded_at") ", r.status, " CSV("r.from_account") ","
	" " CSV("r.to_account") ", r.amount, r.currency, " CSV("r.type") ","
	" " CSV("r.reference") ", r.outcome,"
	" " CSV("pg_catalog.array_to_string(r.rules, ';')") ","
	" coalesce(r.review_status, ''), r.alert_id,"
	" r.alert_status, " CSV("r.comment") ")" REPORTED ") l ORDER BY l.id",
	.nargs = 3,
	.argtypes = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ids and amounts as text, as in all our JSON */
static FinQuery export_json =
{
	.sql = "SELECT pg_catalog.json_build_object("
	"'transfer_id', r.transfer_id::text, 'recorded_at', " TIME_TEXT("r.recorded_at") ","
	" 'status', r.status, 'from_account', r.from_account,"
	" 'to_account', r.to_account, 'amount', r.amount::text,"
	" 'currency', r.currency, 'type', r.type, 'reference', r.reference,"
	" 'outcome', r.outcome, 'rules', r.rules,"
	" 'review_status', r.review_status, 'alert_id', r.alert_id::text,"
	" 'alert_status', r.alert_status, 'comment', r.comment)::text"
	REPORTED " ORDER BY r.transfer_id",
	.nargs = 3,
	.argtypes = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static TimestampTz
time_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
	return PG_GETARG_TIMESTAMPTZ(argument);
}

PG_FUNCTION_INFO_V1(finance_export_aml);

/*
 * finance.export_aml(from_time timestamptz, to_time timestamptz, format text)
 * returns setof text
 *
 * The rows of finance.aml_report that were recorded from from_time until just
 * before to_time, in order: format json: one object a line; csv: a line of
 * names first, as RFC 4180 has it.  Times are in UTC.
 *
 * Errors: 22004 null, 22023 unknown format.  Locks: none.
 */
Datum
finance_export_aml(PG_FUNCTION_ARGS)
{
	TimestampTz from = time_argument(fcinfo, 0, "from_time");
	TimestampTz to = time_argument(fcinfo, 1, "to_time");
	char	   *format = fin_argument_text(fcinfo, 2, "format",
										   FIN_NAME_LENGTH_MAX);
	bool		is_csv = strcmp(format, "csv") == 0;
	Datum		values[3];
	FinQueryScope scope;

	if (!is_csv && strcmp(format, "json") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("format \"%s\" is not known", format),
				errhint("It is json or csv."));
	values[0] = Int32GetDatum(fin_context()->tenant_id);
	values[1] = TimestampTzGetDatum(from);
	values[2] = TimestampTzGetDatum(to);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	fin_query_return(is_csv ? &export_csv : &export_json, values, fcinfo);
	fin_query_end(&scope);
	return (Datum) 0;
}
