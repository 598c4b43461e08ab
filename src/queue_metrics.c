/*
 * queue_metrics.c
 *		How full queues are.
 *
 * The number of messages is kept in shared memory by those who commit, from
 * the first time it is asked for and counted; so is how many are being worked
 * on.  Without shared_preload_libraries, or once a prepared transaction has
 * changed a queue, they are counted each time.
 *
 * Owns nothing.  Locks: the queue's tables (ACCESS SHARE).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "ident.h"
#include "query.h"
#include "queue_parts.h"
#include "wake.h"

#define FIN_COUNT_ATTEMPTS	5

static FinQuery list_names =
{
	.sql = "SELECT name FROM finance.queue WHERE tenant_id = $1"
	" ORDER BY name COLLATE pg_catalog.\"C\"",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

typedef struct Metrics
{
	int64		length;
	int64		visible;
	TimestampTz oldest;			/* 0: there is none */
	TimestampTz newest;
} Metrics;

/*
 * A snapshot as of now, whatever the isolation level, that sees also what the
 * current statement did before; and not older than the locks, so that nothing
 * it sees is truncated.
 */
static void
begin_counting(FinQueueTables *tables, int64 queue_id)
{
	memset(tables, 0, sizeof(*tables));
	tables->queue_id = queue_id;
	tables->mode = AccessShareLock;
	for (int i = 0; i < FIN_SEGMENTS; i++)
		(void) fin_queue_table(tables, i);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	tables->snapshot = GetActiveSnapshot();
}

static int64
count_messages(int64 queue_id, TimestampTz now, int64 *visible)
{
	FinQueueTables tables;
	int64		length = 0;

	*visible = 0;
	begin_counting(&tables, queue_id);
	for (int i = 0; i < FIN_SEGMENTS && !tables.dropped; i++)
		length += fin_segment_count(tables.segments[i], tables.snapshot, now,
									visible);
	fin_queue_tables_end(&tables);
	return length;
}

static int64
count_delayed(int64 queue_id, TimestampTz now)
{
	FinQueueTables tables;
	int64		n = 0;

	begin_counting(&tables, queue_id);
	for (int i = 0; i < FIN_SEGMENTS && !tables.dropped; i++)
	{
		FinSegmentScan *scan = fin_queue_scan(&tables, i, FIN_BY_DUE);

		fin_segment_rescan(scan, now + 1, DT_NOEND);
		while (fin_segment_next(scan) != NULL)
			n++;
	}
	fin_queue_tables_end(&tables);
	return n;
}

int64
fin_queue_count(int64 queue_id)
{
	TimestampTz now = GetCurrentTimestamp();
	FinBacklogCounts counts;
	int64		visible;
	int64		length = 0;

	fin_backlog_counts(queue_id, now, &counts);
	if (counts.known)
		return counts.length;
	/* a commit in between, and the number is not to be kept */
	for (int attempt = 0; attempt < FIN_COUNT_ATTEMPTS; attempt++)
	{
		FinBacklogCounting begun = fin_backlog_begin_count(queue_id);

		length = count_messages(queue_id, now, &visible);
		if (fin_backlog_end_count(queue_id, begun, length))
			break;
	}
	return length;
}

static void
count(int64 queue_id, TimestampTz now, Metrics *metrics)
{
	FinBacklogCounts counts;

	(void) fin_queue_count(queue_id);
	fin_backlog_counts(queue_id, now, &counts);
	if (counts.known)
	{
		metrics->length = counts.length;
		metrics->visible = Max(counts.length - counts.leased -
							   count_delayed(queue_id, now), 0);
		return;
	}
	metrics->length = count_messages(queue_id, now, &metrics->visible);
}

/* ids of one priority are in the order of time, so its ends are what counts */
static void
look_at_ages(FinQueueTables *tables, int segment, int rank, Metrics *metrics)
{
	FinSegmentScan *scan = fin_queue_scan(tables, segment, FIN_BY_ID);
	TupleTableSlot *row;
	TimestampTz at;

	if (scan == NULL)
		return;
	fin_segment_rescan(scan, FIN_BACKLOG_FIRST(rank), FIN_BACKLOG_LAST(rank));
	row = fin_segment_next(scan);
	if (row == NULL)
		return;
	at = fin_segment_int64(row, FIN_MSG_ENQUEUED_AT);
	metrics->oldest = metrics->oldest == 0 ? at : Min(metrics->oldest, at);
	fin_segment_rescan(scan, FIN_BACKLOG_FIRST(rank), FIN_BACKLOG_LAST(rank));
	row = fin_segment_last(scan);
	if (row != NULL)
		metrics->newest = Max(metrics->newest,
							  fin_segment_int64(row, FIN_MSG_ENQUEUED_AT));
}

static Datum
age_in_seconds(TimestampTz at, TimestampTz now, bool *isnull)
{
	*isnull = at == 0;
	return Int32GetDatum((int32) ((now - at) / USECS_PER_SEC));
}

static void
measure_standard(FunctionCallInfo fcinfo, const FinQueueConfig *config)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = fin_ident_now();
	uint32		used = fin_backlog_used_segments(config->queue_id);
	Metrics		metrics = {0};
	FinQueueTables tables;
	Datum		values[6];
	bool		nulls[6] = {false};

	fin_queue_tables_begin(&tables, config->queue_id, AccessShareLock);
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
		{
			if ((used & (1 << i)) != 0)
				look_at_ages(&tables, i, rank, &metrics);
		}
	}
	fin_queue_tables_end(&tables);
	if (tables.dropped)
		return;
	count(config->queue_id, now, &metrics);
	values[0] = CStringGetTextDatum(config->name);
	values[1] = Int64GetDatum(metrics.length);
	values[2] = age_in_seconds(metrics.newest, now, &nulls[2]);
	values[3] = age_in_seconds(metrics.oldest, now, &nulls[3]);
	values[4] = TimestampTzGetDatum(now);
	values[5] = Int64GetDatum(metrics.visible);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
measure(FunctionCallInfo fcinfo, const FinQueueConfig *config)
{
	if (config->is_log)
		fin_queue_add_rows(fcinfo, fin_queue_log_measure(config->queue_id,
														 config->name,
														 fin_ident_now()));
	else
		measure_standard(fcinfo, config);
}

PG_FUNCTION_INFO_V1(finance_metrics);

/*
 * finance.metrics(queue_name text) returns setof (queue_name, queue_length,
 *		newest_msg_age_sec, oldest_msg_age_sec, scrape_time,
 *		queue_visible_length)
 *
 * How full a queue is, from counters: its cost does not grow with the queue,
 * but with the number of delayed messages.  Of a log queue the messages are
 * counted, and those visible are all that are safe to read.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: the queue's tables (ACCESS SHARE).
 */
Datum
finance_metrics(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	measure(fcinfo, fin_queue_find(tenant_id, name));
	fin_query_end(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_metrics_all);

/*
 * finance.metrics_all() returns setof (as metrics())
 *
 * metrics() of each queue of the session's tenant.
 */
Datum
finance_metrics_all(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	FinQueryScope scope;
	uint64		n;
	char	  **names;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	n = fin_query_run(&list_names, values, NULL, 0);
	names = palloc(n * sizeof(char *));
	for (uint64 i = 0; i < n; i++)
		names[i] = fin_query_text(i, 1);
	for (uint64 i = 0; i < n; i++)
		measure(fcinfo, fin_queue_find(tenant_id, names[i]));
	fin_query_end(&scope);
	return (Datum) 0;
}
