/*
 * audit_read.c
 *		Reading the audit log.
 *
 * Owns kept plans only.  Locks: those of a SELECT.  The query runs as the
 * owner of the extension, so it states the tenant itself.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "query.h"

static FinQuery find_by_trace =
{
	.sql = "SELECT r.* FROM finance.audit_record r"
	" WHERE r.trace_id = $1 AND r.tenant_id = $2"
	" ORDER BY r.xid, r.sequence, r.id",
	.nargs = 2,
	.argtypes = {UUIDOID, INT4OID},
	.expect = SPI_OK_SELECT,
};

PG_FUNCTION_INFO_V1(finance_audit_trace);

/*
 * finance.audit_trace(trace_id uuid) returns setof finance.audit_record
 *
 * All records of a trace in the session's tenant, in causal order: as their
 * transactions got their ids, and within one as they were written.
 * Errors: those of fin_context().
 */
Datum
finance_audit_trace(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	FinQueryScope scope;
	Datum		values[2];
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = Int32GetDatum(fin_context()->tenant_id);
	fin_query_begin(&scope);
	n = fin_query_run(&find_by_trace, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	fin_query_end(&scope);
	return (Datum) 0;
}
