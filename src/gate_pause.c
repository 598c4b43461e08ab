/*
 * gate_pause.c
 *		finance.pause_transfers(), finance.resume_transfers(): the kill switch.
 *
 * Owns nothing between calls.  Each change is audited and, by the table's
 * trigger, invalidates the books of all backends when it commits.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "audit.h"
#include "errors.h"
#include "gate_parts.h"
#include "json.h"
#include "query.h"

#define PAUSE_KINDS	(1U << FIN_GATE_EVERYWHERE | 1U << FIN_GATE_ALL | \
					 1U << FIN_GATE_ACCOUNT | 1U << FIN_GATE_TYPE | \
					 1U << FIN_GATE_CURRENCY)
#define PAUSE_HINT	"It is all, everywhere, account=CODE, type=NAME or currency=CODE."

static FinQuery insert_pause =
{
	.sql = "INSERT INTO finance.transfer_pause (tenant_id, scope, account_id,"
	" reason, paused_by, paused_session_user)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, scope) DO NOTHING",
	.nargs = 6,
	.argtypes = {INT4OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_pause =
{
	.sql = "DELETE FROM finance.transfer_pause WHERE tenant_id = $1 AND scope = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery count_pauses =
{
	.sql = "SELECT count(*) FROM finance.transfer_pause WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery count_in_flight =
{
	.sql = "SELECT count(*) FILTER (WHERE state = 'running'),"
	" count(*) FILTER (WHERE state = 'prepared')"
	" FROM finance.transfers_in_flight()",
	.expect = SPI_OK_SELECT,
};

/* what is everywhere paused belongs to no tenant: it is a row of tenant 0 */
static int32
tenant_of(const FinContext *context, const FinGateScope *scope)
{
	return scope->kind == FIN_GATE_EVERYWHERE ? 0 : context->tenant_id;
}

/* call before fin_query_begin() */
static void
take_arguments(FunctionCallInfo fcinfo, FinGateScope *scope, char **reason)
{
	char	   *text = fin_argument_text(fcinfo, 0, "scope",
										 FIN_SCOPE_LENGTH_MAX);

	*reason = fin_argument_text(fcinfo, 1, "reason", FIN_REASON_LENGTH_MAX);
	fin_gate_parse_scope(text, PAUSE_KINDS, PAUSE_HINT, scope);
	if (scope->kind == FIN_GATE_EVERYWHERE &&
		!has_privs_of_role(GetUserId(), fin_query_owner()))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied for scope everywhere"),
				errdetail("It is for the owner of the extension."),
				errhint("Scope all is this tenant's."));
}

/* a trigger on the table written may have acted as somebody else */
static void
audit_pause(const FinContext *context, const char *operation,
			const FinGateScope *scope, const char *reason)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "scope", scope->text);
	fin_json_text(&json, "reason", reason);
	record.operation = operation;
	record.status = "completed";
	record.account_id = scope->account_id;
	record.request = fin_json_end(&json);
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

static void
refuse_too_many(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};

	(void) fin_query_run(&count_pauses, values, NULL, 1);
	if (fin_query_int64(0, 1) > FIN_GATE_ROWS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("too many pauses"),
				errdetail("A tenant has at most %d.", FIN_GATE_ROWS_MAX),
				errhint("To stop many accounts for long, freeze them with finance.set_account_status()."));
}

static bool
write_pause(const FinContext *context, const FinGateScope *scope,
			const char *reason)
{
	int32		tenant_id = tenant_of(context, scope);
	Datum		values[6] = {
		Int32GetDatum(tenant_id), CStringGetTextDatum(scope->text),
		Int64GetDatum(scope->account_id), CStringGetTextDatum(reason),
		CStringGetTextDatum(context->actor),
		CStringGetTextDatum(context->session_user)
	};
	char		nulls[6] = {' ', ' ', scope->account_id == 0 ? 'n' : ' ',
	' ', ' ', ' '};

	if (fin_query_run(&insert_pause, values, nulls, 0) == 0)
		return false;
	refuse_too_many(tenant_id);
	return true;
}

PG_FUNCTION_INFO_V1(finance_pause_transfers);

/*
 * finance.pause_transfers(scope, reason, OUT paused bool, OUT running int,
 *						   OUT prepared int)
 *
 * From its commit on no money is moved or reserved in the scope: 'all' of the
 * tenant, 'account=CODE' (on either side), 'type=NAME', 'currency=CODE', or
 * 'everywhere', in all tenants of the database, for the owner of the extension
 * only.  Transfers, journals, exchanges, reversals, holds and captures fail
 * with LG104, and so does the commit of a transaction that moved money before,
 * and its PREPARE TRANSACTION.  Releases, expiry, imports and the answers to
 * repeated requests go on.  What this transaction itself moved before stays.
 *
 * paused: false when it was paused already, which stays as it is.  running,
 * prepared: transactions of the database that may have moved money and are
 * open: the former will be refused at their commit, unless they are just about
 * to end; the latter have promised to commit, and nothing stops them.  See
 * transfers_in_flight().
 *
 * Errors: 22023 bad scope, 22004, 42501 everywhere and not the owner, 54000
 * FIN_GATE_ROWS_MAX pauses in the tenant, LG002 unknown account, LG009 unknown
 * currency, LG017 unknown type.  Locks: its row of transfer_pause.
 */
Datum
finance_pause_transfers(PG_FUNCTION_ARGS)
{
	const FinContext *context;
	FinGateScope scope;
	FinQueryScope query;
	char	   *reason;
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3] = {false};
	bool		paused;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	take_arguments(fcinfo, &scope, &reason);
	context = fin_context_hold();
	fin_query_begin(&query);
	fin_gate_resolve_scope(context->tenant_id, &scope);
	paused = write_pause(context, &scope, reason);
	if (paused)
		audit_pause(context, "pause_transfers", &scope, reason);
	(void) fin_query_run(&count_in_flight, NULL, NULL, 1);
	values[0] = BoolGetDatum(paused);
	values[1] = Int32GetDatum((int32) fin_query_int64(0, 1));
	values[2] = Int32GetDatum((int32) fin_query_int64(0, 2));
	fin_query_end(&query);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}

PG_FUNCTION_INFO_V1(finance_resume_transfers);

/*
 * finance.resume_transfers(scope, reason) returns boolean
 *
 * Takes back a pause of the very scope; others stay.  False: there was none.
 * Errors: 22023 bad scope, 22004, 42501 everywhere and not the owner.
 */
Datum
finance_resume_transfers(PG_FUNCTION_ARGS)
{
	const FinContext *context;
	FinGateScope scope;
	FinQueryScope query;
	char	   *reason;
	Datum		values[2];
	bool		resumed;

	take_arguments(fcinfo, &scope, &reason);
	context = fin_context_hold();
	fin_query_begin(&query);
	values[0] = Int32GetDatum(tenant_of(context, &scope));
	values[1] = CStringGetTextDatum(scope.text);
	resumed = fin_query_run(&delete_pause, values, NULL, 0) == 1;
	if (resumed)
		audit_pause(context, "resume_transfers", &scope, reason);
	fin_query_end(&query);
	PG_RETURN_BOOL(resumed);
}
