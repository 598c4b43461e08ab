/*
 * book.c
 *		What a book is made of before it has accounts: tenants and currencies.
 *
 * Owns nothing between calls.  Tenants are made by whoever may execute the
 * function, which is the extension's owner unless granted.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "amount.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "engine.h"
#include "errors.h"
#include "json.h"
#include "query.h"

static FinQuery insert_tenant =
{
	.sql = "INSERT INTO finance.tenant (tenant_id, name, time_zone, member_role)"
	" VALUES (pg_catalog.nextval('finance._tenant_id_seq'), $1, $2, $3::pg_catalog.regrole)"
	" ON CONFLICT (name) DO NOTHING RETURNING tenant_id::pg_catalog.int8",
	.nargs = 3,
	.argtypes = {TEXTOID, TEXTOID, OIDOID},
	.expect = SPI_OK_INSERT_RETURNING,
	.fires_triggers = true,
};

static FinQuery update_zone =
{
	.sql = "UPDATE finance.tenant SET time_zone = $2 WHERE tenant_id = $1",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery replace_tenant =
{
	.sql = "UPDATE finance.tenant SET name = $2, time_zone = $3,"
	" member_role = $4::pg_catalog.regrole, created_at = $5 WHERE tenant_id = $1",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, OIDOID, TIMESTAMPTZOID},
	.expect = SPI_OK_UPDATE,
};

static FinQuery insert_currency =
{
	.sql = "INSERT INTO finance.currency (code, minor_units, name)"
	" VALUES ($1, $2::pg_catalog.int2, $3) ON CONFLICT (code) DO NOTHING",
	.nargs = 3,
	.argtypes = {TEXTOID, INT4OID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static char *
zone_argument(FunctionCallInfo fcinfo, int argument)
{
	char	   *zone = fin_argument_text(fcinfo, argument, "time_zone",
										 FIN_NAME_LENGTH_MAX);

	if (pg_tzset(zone) == NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("time zone \"%s\" not recognized", zone),
				errhint("Names are in pg_timezone_names."));
	return zone;
}

/* a trigger on the table written may have acted as somebody else */
static void
audit_book(const FinContext *context, const char *operation,
		   StringInfo request)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.request = fin_json_end(request);
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_create_tenant);

/*
 * finance.create_tenant(name, time_zone, member_role) returns integer
 *
 * Errors: 42710 name taken, 22023 unknown time zone.
 */
Datum
finance_create_tenant(PG_FUNCTION_ARGS)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	char	   *zone = zone_argument(fcinfo, 1);
	FinQueryScope scope;
	Datum		values[3];
	char		nulls[3] = {' ', ' ', PG_ARGISNULL(2) ? 'n' : ' '};
	StringInfoData request;
	const FinContext *context;
	int32		tenant_id;

	context = fin_context_hold();
	fin_query_begin(&scope);
	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(zone);
	values[2] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	if (fin_query_run(&insert_tenant, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("tenant \"%s\" already exists", name));
	tenant_id = (int32) fin_query_int64(0, 1);
	initStringInfo(&request);
	fin_json_int64(&request, "tenant_id", tenant_id);
	fin_json_text(&request, "name", name);
	fin_json_text(&request, "time_zone", zone);
	audit_book(context, "create_tenant", &request);
	fin_query_end(&scope);
	PG_RETURN_INT32(tenant_id);
}

PG_FUNCTION_INFO_V1(finance_tenant_restored);

/*
 * Row trigger before INSERT on finance.tenant.  Tenant 0 is there as soon as
 * the extension is; when a dump is restored its row comes again, with the time
 * zone and role it had, and must replace the fresh one.
 */
Datum
finance_tenant_restored(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	tupdesc;
	HeapTuple	row;
	FinQueryScope scope;
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};
	uint64		replaced;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_tenant_restored() can only be called as a trigger"));
	row = trigger->tg_trigtuple;
	tupdesc = RelationGetDescr(trigger->tg_relation);
	for (int i = 0; i < 5; i++)
	{
		bool		isnull;

		values[i] = heap_getattr(row, i + 1, tupdesc, &isnull);
		if (isnull)
			nulls[i] = 'n';
	}
	if (nulls[0] == 'n' || DatumGetInt32(values[0]) != 0)
		return PointerGetDatum(row);

	fin_query_begin(&scope);
	replaced = fin_query_run(&replace_tenant, values, nulls, 0);
	fin_query_end(&scope);
	return PointerGetDatum(replaced > 0 ? NULL : row);
}

PG_FUNCTION_INFO_V1(finance_set_tenant_time_zone);

/*
 * finance.set_tenant_time_zone(tenant_id, time_zone)
 *
 * Errors: LG010 unknown tenant, 22023 unknown time zone.
 */
Datum
finance_set_tenant_time_zone(PG_FUNCTION_ARGS)
{
	char	   *zone = zone_argument(fcinfo, 1);
	FinQueryScope scope;
	Datum		values[2];
	StringInfoData request;
	const FinContext *context;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("tenant_id must not be null"));
	context = fin_context_hold();
	fin_query_begin(&scope);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = CStringGetTextDatum(zone);
	if (fin_query_run(&update_zone, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_TENANT),
				errmsg("tenant %d does not exist", PG_GETARG_INT32(0)));
	initStringInfo(&request);
	fin_json_int64(&request, "tenant_id", PG_GETARG_INT32(0));
	fin_json_text(&request, "time_zone", zone);
	audit_book(context, "set_tenant_time_zone", &request);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

/* upper-case letters and digits first, as the constraint of the table */
static void
check_currency_code(const char *code)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (strspn(code, allowed) != strlen(code) || strchr("._-", code[0]) != NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("currency code \"%s\" is malformed", code),
				errhint("Use capital letters and digits, then also dots, dashes and underscores."));
}

PG_FUNCTION_INFO_V1(finance_create_currency);

/*
 * finance.create_currency(code, minor_units, name)
 *
 * code: 1 to 16 of A-Z, 0-9 and, not first, . _ -; minor_units: decimals, 0 to
 * 18.  Errors: 42710 code taken, 22023 bad code or decimals.
 */
Datum
finance_create_currency(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CURRENCY_LENGTH_MAX);
	char	   *name = fin_argument_text_or_null(fcinfo, 2, "name",
												 FIN_REASON_LENGTH_MAX);
	FinQueryScope scope;
	Datum		values[3];
	StringInfoData request;
	const FinContext *context;

	check_currency_code(code);
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 0 ||
		PG_GETARG_INT32(1) > FIN_AMOUNT_MAX_SCALE)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("minor_units must be between 0 and %d",
					   FIN_AMOUNT_MAX_SCALE));
	context = fin_context_hold();
	fin_query_begin(&scope);
	values[0] = CStringGetTextDatum(code);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = CStringGetTextDatum(name != NULL ? name : code);
	if (fin_query_run(&insert_currency, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("currency \"%s\" already exists", code));
	initStringInfo(&request);
	fin_json_text(&request, "code", code);
	fin_json_int64(&request, "minor_units", PG_GETARG_INT32(1));
	audit_book(context, "create_currency", &request);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}
