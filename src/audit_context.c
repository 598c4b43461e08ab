/*
 * audit_context.c
 *		Telling who acts, for the rest of the transaction.
 *
 * Owns nothing: the values are settings, local to the transaction, and go with
 * it or with a rollback to an earlier savepoint.  Takes no locks.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/uuid.h"

#include "context.h"

static void
set_local(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

static void
set_local_text(FunctionCallInfo fcinfo, int argument, const char *setting)
{
	if (!PG_ARGISNULL(argument))
		set_local(setting, text_to_cstring(PG_GETARG_TEXT_PP(argument)));
}

PG_FUNCTION_INFO_V1(finance_set_context);

/*
 * finance.set_context(trace_id uuid, actor text, user_agent text,
 *					   tenant integer, span_id text, request_id text,
 *					   reason text) returns uuid
 *
 * Sets what is given until the end of the transaction, and leaves what is null
 * as it was; an empty text clears.  Returns the trace id in force.
 * Errors: 22001 actor or request id above 256, span id above 128, user agent or
 * reason above 1024 bytes; LG010 unknown tenant; 42501 not a member of its
 * role.
 */
Datum
finance_set_context(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *trace = palloc(sizeof(pg_uuid_t));

	if (!PG_ARGISNULL(0))
		set_local("finance.trace_id",
				  DatumGetCString(DirectFunctionCall1(uuid_out,
													  PG_GETARG_DATUM(0))));
	set_local_text(fcinfo, 1, "finance.actor");
	set_local_text(fcinfo, 2, "finance.user_agent");
	if (!PG_ARGISNULL(3))
		set_local("finance.tenant", psprintf("%d", PG_GETARG_INT32(3)));
	set_local_text(fcinfo, 4, "finance.span_id");
	set_local_text(fcinfo, 5, "finance.request_id");
	set_local_text(fcinfo, 6, "finance.reason");
	*trace = fin_context()->trace_id;
	PG_RETURN_UUID_P(trace);
}
