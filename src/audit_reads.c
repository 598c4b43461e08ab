/*
 * audit_reads.c
 *		Recording that somebody read.
 *
 * Owns nothing.  Locks: those of an INSERT.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "audit.h"
#include "context.h"
#include "json.h"
#include "query.h"

/* {"code": "cash", ...}: what is not null, as text */
static char *
arguments_json(FunctionCallInfo fcinfo)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID,
										ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	StringInfoData json;
	Oid		   *types;
	char	  **names;
	char	   *modes;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u",
			 fcinfo->flinfo->fn_oid);
	(void) get_func_arg_info(tuple, &types, &names, &modes);
	initStringInfo(&json);
	for (int i = 0; i < PG_NARGS(); i++)
	{
		Oid			output;
		bool		is_varlena;

		if (PG_ARGISNULL(i))
			continue;
		getTypeOutputInfo(types[i], &output, &is_varlena);
		fin_json_text(&json, names[i],
					  OidOutputFunctionCall(output, PG_GETARG_DATUM(i)));
	}
	ReleaseSysCache(tuple);
	return fin_json_end(&json);
}

static void
refuse_unrecorded(const char *function)
{
	ereport(ERROR,
			errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			errmsg("cannot call %s() where nothing can be written", function),
			errdetail("Its calls are recorded in the audit log; this is a read-only transaction or a standby."),
			errhint("Take it from finance.audit_reads, or read on the primary in a transaction that may write."));
}

void
fin_audit_read(FunctionCallInfo fcinfo, FinAuditRead which)
{
	FinAuditRecord record = {.operation = "read"};
	FinQueryScope scope;

	if (likely((fin_audit_reads & (1 << which)) == 0))
		return;
	record.object = get_func_name(fcinfo->flinfo->fn_oid);
	if (XactReadOnly || RecoveryInProgress())
		refuse_unrecorded(record.object);
	record.request = arguments_json(fcinfo);
	(void) fin_context();
	fin_query_begin(&scope);
	fin_audit_append(&record, 1);
	fin_query_end(&scope);
}
