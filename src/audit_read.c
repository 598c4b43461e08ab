/*
 * audit_read.c
 *		Reading the audit log: by trace, and page by page with filters.
 *
 * Sealed records are found by their terms (audit_term.h).  What is not sealed
 * yet lies, in the index of the log's order, from the horizon of the tree on:
 * the records of about a second, more while a transaction holds sealing up.
 * In a cluster that has not sealed yet, that of a restored dump, everything is
 * looked at: slower, and right.
 *
 * Owns kept plans only.  Locks: those of a SELECT.  The queries run as the
 * owner of the extension, so they state the tenant themselves.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "audit.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "argument.h"
#include "audit_term.h"
#include "context.h"
#include "ident.h"
#include "query.h"

#define PAGE_DEFAULT	100
#define PAGE_MAX		10000

/*
 * A trace's records: the first of each append has the term, and tells how far
 * the append goes.  Where this cluster has not sealed yet, both parts find what
 * is sealed.
 */
static FinQuery select_trace =
{
	.sql = "SELECT (d.r).* FROM (SELECT DISTINCT ON ((q.r).id) q.part, q.leaf, q.r"
	"  FROM (SELECT 0 AS part, h.leaf, e.r"
	"   FROM (SELECT f.leaf, a.* FROM finance._audit_find($4) f"
	"    CROSS JOIN LATERAL (SELECT b.id, b.xid, b.sequence, b.trace_until"
	"     FROM finance.audit_record b"
	"     WHERE b.xid = f.xid AND b.sequence = f.sequence AND b.id = f.id"
	"     AND b.trace_id = $1 AND b.tenant_id = $2 OFFSET 0) a) h"
	"   CROSS JOIN LATERAL (SELECT b AS r FROM finance.audit_record b"
	"    WHERE b.xid = h.xid AND b.sequence >= h.sequence"
	"    AND b.id BETWEEN h.id AND h.trace_until"
	"    AND b.trace_id = $1 AND b.tenant_id = $2 OFFSET 0) e"
	"   UNION ALL SELECT 1, NULL, r FROM finance.audit_record r"
	"   WHERE r.xid >=" FIN_AUDIT_UNSEALED_FROM("$3") " AND r.trace_id = $1 AND r.tenant_id = $2) q"
	"  ORDER BY (q.r).id, q.part) d"
	" ORDER BY d.part, d.leaf, (d.r).xid, (d.r).sequence, (d.r).id",
	.nargs = 4,
	.argtypes = {UUIDOID, INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
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
	FinQueryScope scope;
	Datum		values[4];

	fin_audit_read(fcinfo, FIN_READ_AUDIT_TRACE);
	InitMaterializedSRF(fcinfo, 0);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = Int32GetDatum(fin_context()->tenant_id);
	values[2] = Int64GetDatum((int64) GetSystemIdentifier());
	values[3] = Int64GetDatum((int64) fin_audit_term_trace(PG_GETARG_UUID_P(0)));
	fin_query_begin(&scope);
	fin_query_return(&select_trace, values, fcinfo);
	fin_query_end(&scope);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * page by page
 * ------------------------------------------------------------------------ */

/*
 * In the order of the log.  What was recorded at or after $2 is in no block
 * that was sealed before; ids are drawn when a record is written, so they tell
 * which months to look at.
 */
#define LOG_COLUMNS "SELECT r.* FROM finance.audit_record r"
#define LOG_WHERE \
	" WHERE r.tenant_id = $1 AND r.recorded_at >= $2 AND r.recorded_at < $3" \
	" AND r.id >= $4 AND r.id < $5" \
	" AND ($6::text = '' OR r.actor = $6)" \
	" AND ($7::text = '' OR r.operation = $7)" \
	" AND ($8::text = '' OR r.object = $8)" \
	" AND ($9::bigint = 0 OR r.account_id = $9 OR r.counterparty_id = $9)"
static FinQuery select_log =
{
	.sql = LOG_COLUMNS LOG_WHERE
	" AND (r.xid, r.sequence) > ($10::xid8, $11)"
	" ORDER BY r.xid, r.sequence LIMIT $12",
	.nargs = 12,
	.argtypes = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID,
	TEXTOID, TEXTOID, TEXTOID, INT8OID, XID8OID, INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_log_backwards =
{
	.sql = LOG_COLUMNS LOG_WHERE
	" AND (r.xid, r.sequence) < ($10::xid8, $11)"
	" ORDER BY r.xid DESC, r.sequence DESC LIMIT $12",
	.nargs = 12,
	.argtypes = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID,
	TEXTOID, TEXTOID, TEXTOID, INT8OID, XID8OID, INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

/* where a page of what was recorded since then may start, at the earliest */
static FinQuery select_start =
{
	.sql = "SELECT pg_catalog.min(b.first_xid)"
	" FROM finance.audit_incarnation i CROSS JOIN LATERAL"
	" (SELECT s.first_xid FROM finance.audit_block s"
	"  WHERE s.incarnation = i.incarnation AND s.sealed_at >= $1"
	"  ORDER BY s.sealed_at LIMIT 1) b"
	" HAVING pg_catalog.count(*) = (SELECT pg_catalog.count(*)"
	" FROM finance.audit_incarnation i)",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

enum
{
	ARG_FROM,
	ARG_TO,
	ARG_ACTOR,
	ARG_OPERATION,
	ARG_OBJECT,
	ARG_ACCOUNT,
	ARG_AFTER_XID,
	ARG_AFTER_SEQUENCE,
	ARG_LIMIT,
	ARG_NEWEST_FIRST
};

static Datum
text_or_empty(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? CStringGetTextDatum("") :
		PG_GETARG_DATUM(argument);
}

static int32
page_limit(FunctionCallInfo fcinfo)
{
	int32		limit = PG_ARGISNULL(ARG_LIMIT) ? PAGE_DEFAULT :
	PG_GETARG_INT32(ARG_LIMIT);

	if (limit < 1 || limit > PAGE_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("max_records is %d", limit),
				errhint("It is from 1 to %d; ask for the next page with after_xid and after_sequence.",
						PAGE_MAX));
	return limit;
}

/* the lowest id of the millisecond, or of all */
static int64
id_floor(TimestampTz at)
{
	return TIMESTAMP_IS_NOBEGIN(at) ? 0 : fin_ident_floor(at);
}

/* ids are drawn a little after what they are of began */
static int64
id_ceiling(TimestampTz at)
{
	return TIMESTAMP_IS_NOEND(at) ? PG_INT64_MAX :
		fin_ident_floor(at + USECS_PER_DAY);
}

static void
fill_times(FunctionCallInfo fcinfo, Datum *values)
{
	TimestampTz from = PG_ARGISNULL(ARG_FROM) ? DT_NOBEGIN :
	PG_GETARG_TIMESTAMPTZ(ARG_FROM);
	TimestampTz to = PG_ARGISNULL(ARG_TO) ? DT_NOEND :
	PG_GETARG_TIMESTAMPTZ(ARG_TO);

	values[1] = TimestampTzGetDatum(from);
	values[2] = TimestampTzGetDatum(to);
	values[3] = Int64GetDatum(TIMESTAMP_IS_NOBEGIN(from) ? 0 :
							  id_floor(from - USECS_PER_DAY));
	values[4] = Int64GetDatum(id_ceiling(to));
}

/* where the page starts: after the last record of the one before */
static void
fill_place(FunctionCallInfo fcinfo, Datum *values, bool newest_first)
{
	bool		isnull;

	values[9] = UInt64GetDatum(newest_first ? PG_UINT64_MAX : 0);
	values[10] = Int32GetDatum(newest_first ? PG_INT32_MAX : 0);
	if (!PG_ARGISNULL(ARG_AFTER_XID))
	{
		values[9] = PG_GETARG_DATUM(ARG_AFTER_XID);
		if (!PG_ARGISNULL(ARG_AFTER_SEQUENCE))
			values[10] = PG_GETARG_DATUM(ARG_AFTER_SEQUENCE);
	}
	else if (!newest_first && !PG_ARGISNULL(ARG_FROM) &&
			 fin_query_run(&select_start, &values[1], NULL, 1) == 1)
	{
		Datum		first = fin_query_datum(0, 1, &isnull);

		if (!isnull)
			values[9] = first;
	}
}

PG_FUNCTION_INFO_V1(finance_audit_log);

/*
 * finance.audit_log(from_time timestamptz, to_time timestamptz, actor text,
 *		operation text, object text, account_id bigint, after_xid xid8,
 *		after_sequence integer, max_records integer, newest_first boolean)
 *		returns setof finance.audit_record
 *
 * Records of the session's tenant in the order of the log, or against it, that
 * were recorded from from_time until just before to_time and are what else is
 * asked for; null: whatever.  For the next page, give the xid and the sequence
 * of the last record of this one.
 * Errors: 22023 max_records not from 1 to 10,000; those of fin_context().
 */
Datum
finance_audit_log(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	Datum		values[12];
	bool		newest_first = !PG_ARGISNULL(ARG_NEWEST_FIRST) &&
	PG_GETARG_BOOL(ARG_NEWEST_FIRST);

	fin_audit_read(fcinfo, FIN_READ_AUDIT_LOG);
	InitMaterializedSRF(fcinfo, 0);
	values[0] = Int32GetDatum(fin_context()->tenant_id);
	values[11] = Int32GetDatum(page_limit(fcinfo));
	fin_query_begin(&scope);
	fill_times(fcinfo, values);
	values[5] = text_or_empty(fcinfo, ARG_ACTOR);
	values[6] = text_or_empty(fcinfo, ARG_OPERATION);
	values[7] = text_or_empty(fcinfo, ARG_OBJECT);
	values[8] = Int64GetDatum(PG_ARGISNULL(ARG_ACCOUNT) ? 0 :
							  PG_GETARG_INT64(ARG_ACCOUNT));
	fill_place(fcinfo, values, newest_first);
	fin_query_return(newest_first ? &select_log_backwards : &select_log,
					 values, fcinfo);
	fin_query_end(&scope);
	return (Datum) 0;
}
