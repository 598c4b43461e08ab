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
#include "utils/array.h"
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
 * The order of the log is (incarnation, xid, sequence), and the index is on (xid,
 * sequence): so a page is read stretch by stretch, where a stretch is what one
 * incarnation wrote.  Mostly there is one.  The first has as well what is of no
 * incarnation: records that came by replication, or from a cluster that never
 * sealed.  Among them the id tells apart what has the same place.
 *
 * What was recorded at or after $2 is in no block that was sealed before; ids are
 * drawn when a record is written, so they tell which months to look at.
 */
#define LOG_COLUMNS "SELECT r.* FROM finance.audit_record r"
#define LOG_WHERE \
	" WHERE r.tenant_id = $1 AND r.recorded_at >= $2 AND r.recorded_at < $3" \
	" AND r.id >= $4 AND r.id < $5" \
	" AND ($6::text = '' OR r.actor = $6)" \
	" AND ($7::text = '' OR r.operation = $7)" \
	" AND ($8::text = '' OR r.object = $8)" \
	" AND ($9::bigint = 0 OR r.account_id = $9 OR r.counterparty_id = $9)" \
	" AND (r.system_identifier = ANY ($14)) = $15" \
	" AND NOT (r.system_identifier = $16" \
	"  AND (r.xid <= $17::xid8 OR r.xid > $18::xid8))"
#define LOG_NARGS	18
#define LOG_ARGTYPES \
	{INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, TEXTOID, \
	TEXTOID, TEXTOID, INT8OID, XID8OID, INT4OID, INT8OID, INT4OID, \
	INT8ARRAYOID, BOOLOID, INT8OID, XID8OID, XID8OID}

static FinQuery select_log =
{
	.sql = LOG_COLUMNS LOG_WHERE
	" AND (r.xid, r.sequence, r.id) > ($10::xid8, $11, $12)"
	" ORDER BY r.xid, r.sequence, r.id LIMIT $13",
	.nargs = LOG_NARGS,
	.argtypes = LOG_ARGTYPES,
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_log_backwards =
{
	.sql = LOG_COLUMNS LOG_WHERE
	" AND (r.xid, r.sequence, r.id) < ($10::xid8, $11, $12)"
	" ORDER BY r.xid DESC, r.sequence DESC, r.id DESC LIMIT $13",
	.nargs = LOG_NARGS,
	.argtypes = LOG_ARGTYPES,
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

/* with the last transaction of each that another one follows */
static FinQuery select_incarnations =
{
	.sql = "SELECT i.incarnation, i.system_identifier, (SELECT b.last_xid"
	"  FROM finance.audit_block b WHERE b.incarnation = i.incarnation"
	"  AND b.block = (SELECT n.first_block FROM finance.audit_incarnation n"
	"   WHERE n.incarnation > i.incarnation ORDER BY n.incarnation LIMIT 1) - 1)"
	" FROM finance.audit_incarnation i ORDER BY i.incarnation",
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* the last block of an incarnation that was sealed before then */
static FinQuery select_start =
{
	.sql = "SELECT b.last_xid, b.last_sequence FROM finance.audit_block b"
	" WHERE b.incarnation = $1 AND b.sealed_at < $2"
	" ORDER BY b.block DESC LIMIT 1",
	.nargs = 2,
	.argtypes = {INT4OID, TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

/* where the last record of a page is */
static FinQuery select_place =
{
	.sql = "SELECT r.system_identifier FROM finance.audit_record r"
	" WHERE r.xid = $1 AND r.sequence = $2 AND r.tenant_id = $3"
	" AND ($4::bigint = 0 OR r.id = $4)",
	.nargs = 4,
	.argtypes = {XID8OID, INT4OID, INT4OID, INT8OID},
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
	ARG_NEWEST_FIRST,
	ARG_AFTER_ID
};

/* of select_log, from 0 */
enum
{
	VALUE_TENANT,
	VALUE_FROM,
	VALUE_TO,
	VALUE_FIRST_ID,
	VALUE_END_ID,
	VALUE_ACTOR,
	VALUE_OPERATION,
	VALUE_OBJECT,
	VALUE_ACCOUNT,
	VALUE_XID,
	VALUE_SEQUENCE,
	VALUE_ID,
	VALUE_LIMIT,
	VALUE_CLUSTERS,
	VALUE_IS_OF_THEM,
	VALUE_CLUSTER,
	VALUE_AFTER_XID,
	VALUE_LAST_XID
};

/* transactions of a cluster, within the log: after < xid <= last */
typedef struct Stretch
{
	int32		incarnation;
	int64		cluster;
	uint64		after;
	uint64		last;
} Stretch;

typedef struct Stretches
{
	Stretch    *each;
	int			n;
} Stretches;

/* ------------------------------------------------------------------------
 * stretches
 * ------------------------------------------------------------------------ */

static void
add_stretch(Stretches *all, int32 incarnation, int64 cluster)
{
	Stretch    *stretch = &all->each[all->n++];

	stretch->incarnation = incarnation;
	stretch->cluster = cluster;
	stretch->after = 0;
	stretch->last = PG_UINT64_MAX;
}

/*
 * Where a book comes back to a cluster, that goes on after what was sealed of it
 * before: sealed[i] is the last transaction of stretch i.
 */
static void
part_stretches(Stretches *all, const uint64 *sealed)
{
	for (int i = 0; i < all->n; i++)
	{
		Stretch    *stretch = &all->each[i];

		for (int j = i + 1; j < all->n; j++)
		{
			if (all->each[j].cluster != stretch->cluster)
				continue;
			stretch->last = Max(sealed[i], stretch->after);
			all->each[j].after = stretch->last;
			break;
		}
	}
}

/* in the order of the log; this cluster's is the last, also before it seals */
static void
find_stretches(Stretches *all)
{
	int64		mine = (int64) GetSystemIdentifier();
	int			n = (int) fin_query_run(&select_incarnations, NULL, NULL, 0);
	uint64	   *sealed = palloc0(sizeof(uint64) * (n + 1));
	int32		incarnation = 0;

	all->n = 0;
	all->each = palloc(sizeof(Stretch) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		last = fin_query_datum(i, 3, &isnull);

		if (!isnull)
			sealed[i] = DatumGetUInt64(last);
		incarnation = DatumGetInt32(fin_query_datum(i, 1, &isnull));
		add_stretch(all, incarnation, fin_query_int64(i, 2));
	}
	if (n == 0 || all->each[n - 1].cluster != mine)
		add_stretch(all, incarnation + 1, mine);
	part_stretches(all, sealed);
}

/* the stretch that has the transaction of this cluster */
static int
stretch_of(const Stretches *all, int64 cluster, uint64 xid)
{
	for (int i = 0; i < all->n; i++)
	{
		const Stretch *stretch = &all->each[i];

		if (stretch->cluster == cluster && xid > stretch->after &&
			xid <= stretch->last)
			return i;
	}
	return 0;
}

static void
fill_stretch(Datum *values, const Stretches *all, int i)
{
	const Stretch *stretch = &all->each[i];
	Datum	   *clusters = palloc(sizeof(Datum) * all->n);
	int			n = 0;

	/* the first is what is not of the others, the others are what is theirs */
	for (int j = 0; j < all->n; j++)
	{
		if ((i == 0) == (all->each[j].cluster != stretch->cluster))
			clusters[n++] = Int64GetDatum(all->each[j].cluster);
	}
	values[VALUE_CLUSTERS] =
		PointerGetDatum(construct_array(clusters, n, INT8OID, sizeof(int64),
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[VALUE_IS_OF_THEM] = BoolGetDatum(i != 0);
	values[VALUE_CLUSTER] = Int64GetDatum(stretch->cluster);
	values[VALUE_AFTER_XID] = UInt64GetDatum(stretch->after);
	values[VALUE_LAST_XID] = UInt64GetDatum(stretch->last);
}

/* ------------------------------------------------------------------------
 * a page
 * ------------------------------------------------------------------------ */

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
				errhint("It is from 1 to %d; ask for the next page with after_xid, after_sequence and after_id.",
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

	values[VALUE_FROM] = TimestampTzGetDatum(from);
	values[VALUE_TO] = TimestampTzGetDatum(to);
	values[VALUE_FIRST_ID] =
		Int64GetDatum(TIMESTAMP_IS_NOBEGIN(from) ? 0 :
					  id_floor(from - USECS_PER_DAY));
	values[VALUE_END_ID] = Int64GetDatum(id_ceiling(to));
}

static void
fill_filters(FunctionCallInfo fcinfo, Datum *values)
{
	fill_times(fcinfo, values);
	values[VALUE_ACTOR] = text_or_empty(fcinfo, ARG_ACTOR);
	values[VALUE_OPERATION] = text_or_empty(fcinfo, ARG_OPERATION);
	values[VALUE_OBJECT] = text_or_empty(fcinfo, ARG_OBJECT);
	values[VALUE_ACCOUNT] = Int64GetDatum(PG_ARGISNULL(ARG_ACCOUNT) ? 0 :
										  PG_GETARG_INT64(ARG_ACCOUNT));
}

/* from one end of a stretch */
static void
fill_start(FunctionCallInfo fcinfo, Datum *values, const Stretch *stretch,
		   bool newest_first)
{
	Datum		since[2];
	bool		isnull;

	values[VALUE_XID] = UInt64GetDatum(newest_first ? PG_UINT64_MAX :
									   stretch->after);
	values[VALUE_SEQUENCE] = Int32GetDatum(PG_INT32_MAX);
	values[VALUE_ID] = Int64GetDatum(PG_INT64_MAX);
	if (newest_first || PG_ARGISNULL(ARG_FROM))
		return;
	since[0] = Int32GetDatum(stretch->incarnation);
	since[1] = PG_GETARG_DATUM(ARG_FROM);
	if (fin_query_run(&select_start, since, NULL, 1) == 1)
	{
		values[VALUE_XID] = fin_query_datum(0, 1, &isnull);
		values[VALUE_SEQUENCE] = fin_query_datum(0, 2, &isnull);
	}
}

/* from after the last record of the page before */
static void
fill_place(FunctionCallInfo fcinfo, Datum *values, bool newest_first)
{
	values[VALUE_XID] = PG_GETARG_DATUM(ARG_AFTER_XID);
	values[VALUE_SEQUENCE] = !PG_ARGISNULL(ARG_AFTER_SEQUENCE) ?
		PG_GETARG_DATUM(ARG_AFTER_SEQUENCE) :
		Int32GetDatum(newest_first ? PG_INT32_MAX : 0);
	values[VALUE_ID] = !PG_ARGISNULL(ARG_AFTER_ID) ?
		PG_GETARG_DATUM(ARG_AFTER_ID) :
		Int64GetDatum(newest_first ? 0 : PG_INT64_MAX);
}

/*
 * The stretch that the page before ended in.  Where its last record is gone,
 * with its month, this cluster's.
 */
static int
place_stretch(FunctionCallInfo fcinfo, const Stretches *all, int32 tenant_id)
{
	Datum		values[4];
	uint64		n;

	if (all->n == 1 || PG_ARGISNULL(ARG_AFTER_SEQUENCE))
		return all->n - 1;
	values[0] = PG_GETARG_DATUM(ARG_AFTER_XID);
	values[1] = PG_GETARG_DATUM(ARG_AFTER_SEQUENCE);
	values[2] = Int32GetDatum(tenant_id);
	values[3] = Int64GetDatum(PG_ARGISNULL(ARG_AFTER_ID) ? 0 :
							  PG_GETARG_INT64(ARG_AFTER_ID));
	n = fin_query_run(&select_place, values, NULL, 2);
	if (n == 0)
		return all->n - 1;
	if (n > 1 && PG_ARGISNULL(ARG_AFTER_ID))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("after_xid and after_sequence name more than one record"),
				errdetail("Transaction ids began anew when the book came to another cluster."),
				errhint("Give after_id as well, the id of the last record of the page before."));
	return stretch_of(all, fin_query_int64(0, 1),
					  DatumGetUInt64(values[0]));
}

static void
return_page(FunctionCallInfo fcinfo, Datum *values, int32 limit,
			bool newest_first)
{
	bool		goes_on = !PG_ARGISNULL(ARG_AFTER_XID);
	int			step = newest_first ? -1 : 1;
	Stretches	all;
	int			i;

	find_stretches(&all);
	i = goes_on ? place_stretch(fcinfo, &all,
								DatumGetInt32(values[VALUE_TENANT])) :
		newest_first ? all.n - 1 : 0;
	for (; i >= 0 && i < all.n && limit > 0; i += step)
	{
		fill_stretch(values, &all, i);
		if (goes_on)
			fill_place(fcinfo, values, newest_first);
		else
			fill_start(fcinfo, values, &all.each[i], newest_first);
		goes_on = false;
		values[VALUE_LIMIT] = Int32GetDatum(limit);
		limit -= (int32) fin_query_return(newest_first ? &select_log_backwards :
										  &select_log, values, fcinfo);
	}
}

PG_FUNCTION_INFO_V1(finance_audit_log);

/*
 * finance.audit_log(from_time timestamptz, to_time timestamptz, actor text,
 *		operation text, object text, account_id bigint, after_xid xid8,
 *		after_sequence integer, max_records integer, newest_first boolean,
 *		after_id bigint) returns setof finance.audit_record
 *
 * Records of the session's tenant in the order of the log, or against it, that
 * were recorded from from_time until just before to_time and are what else is
 * asked for; null: whatever.  For the next page, give xid, sequence and id of
 * the last record of this one; without the id, xid and sequence must name one
 * record, which they do until a book was restored in another cluster.
 * Errors: 22023 max_records not from 1 to 10,000, after_id without the others,
 * a place that more than one record has; those of fin_context().
 */
Datum
finance_audit_log(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	Datum		values[LOG_NARGS];
	bool		newest_first = !PG_ARGISNULL(ARG_NEWEST_FIRST) &&
	PG_GETARG_BOOL(ARG_NEWEST_FIRST);
	int32		limit;

	fin_audit_read(fcinfo, FIN_READ_AUDIT_LOG);
	InitMaterializedSRF(fcinfo, 0);
	values[VALUE_TENANT] = Int32GetDatum(fin_context()->tenant_id);
	limit = page_limit(fcinfo);
	if (!PG_ARGISNULL(ARG_AFTER_ID) &&
		(PG_ARGISNULL(ARG_AFTER_XID) || PG_ARGISNULL(ARG_AFTER_SEQUENCE)))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("after_id is given without after_xid and after_sequence"),
				errhint("Give xid, sequence and id of the last record of the page before."));
	fin_query_begin(&scope);
	fill_filters(fcinfo, values);
	return_page(fcinfo, values, limit, newest_first);
	fin_query_end(&scope);
	return (Datum) 0;
}
