/*
 * queue_log_retention.c
 *		Emptying what is over: segments of logs whose messages are older than
 *		the retention, and segments of positions; finance.trim_log_queues(), and
 *		the worker's chore that does the same by itself.
 *
 * Owns, in the worker: when to look next.
 *
 * Locks: ACCESS EXCLUSIVE on what is truncated, if it can be had at once, until
 * the commit.  Who appends uses another segment.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "context.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_log.h"

/* logs looked at in one transaction of the worker */
#define FIN_TRIM_LOGS_MAX		64

/* what could not be locked is tried again after this */
#define FIN_TRIM_RETRY_US		(5 * USECS_PER_SEC)

static FinQuery next_logs =
{
	.sql = "SELECT queue_id FROM finance.log_queue WHERE queue_id > $1"
	" ORDER BY queue_id LIMIT $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* an update once in a slice; groups behind it are told they missed something */
static FinQuery note_removed =
{
	.sql = "UPDATE finance.log_queue SET removed_mark = $3, removed_msg_id = $4"
	" WHERE tenant_id = $1 AND queue_id = $2"
	" AND (removed_mark, removed_msg_id) < ($3, $4)",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_UPDATE,
};

typedef struct Trim
{
	int			emptied;		/* segments */
	bool		busy;			/* something was over and in use */
	TimestampTz next;			/* when the next slice of a log ends */
	int64		last_queue_id;
} Trim;

/* is all of it older than that id?  *last: the last in the order of reading */
static bool
is_over(const FinLog *log, int segment, int64 cutoff, FinLogPosition *last)
{
	FinLog		one = *log;
	FinLogPosition position = {0, 0};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	FinLogScan *scan;
	bool		young;

	/* a log of this segment alone */
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
		one.segments[i] = i == segment ? log->segments[i] : InvalidOid;
	scan = fin_queue_log_begin_scan(&one, &position, cutoff, snapshot);
	young = fin_queue_log_next(scan, &position) != NULL;
	fin_queue_log_end_scan(scan);
	last->mark = last->msg_id = 0;
	if (!young)
		fin_queue_log_last(log->segments[segment], snapshot, last);
	UnregisterSnapshot(snapshot);
	return !young && last->mark > 0;
}

static void
empty_segment(const FinLog *log, int segment, const FinLogPosition *last)
{
	Datum		values[4] = {Int32GetDatum(log->tenant_id),
		Int64GetDatum(log->queue_id), Int64GetDatum(last->mark),
	Int64GetDatum(last->msg_id)};

	fin_query_utility(psprintf("TRUNCATE TABLE finance.message_log_" INT64_FORMAT
							   "_%d", log->queue_id, segment));
	(void) fin_query_run(&note_removed, values, NULL, 0);
}

/*
 * Looked at before and after it is locked: without the lock, so that a segment
 * in use is left alone; with it, as somebody may have appended meanwhile.
 */
static void
trim_log(const FinLog *log, TimestampTz now, Trim *trim)
{
	int			current = fin_queue_log_segment(log, now);
	int64		cutoff = fin_ident_floor(now - log->retention_us);

	trim->next = Min(trim->next, fin_queue_log_slice_end(log, now));
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
	{
		FinLogPosition last;

		if (i == current || !is_over(log, i, cutoff, &last))
			continue;
		if (!ConditionalLockRelationOid(log->segments[i], AccessExclusiveLock))
		{
			trim->busy = true;
			continue;
		}
		if (!is_over(log, i, cutoff, &last))
			continue;
		empty_segment(log, i, &last);
		trim->emptied++;
	}
}

/* the logs after that queue id; true when there may be more */
static bool
trim_logs(int64 after, TimestampTz now, Trim *trim)
{
	Datum		values[2] = {Int64GetDatum(after),
	Int64GetDatum(FIN_TRIM_LOGS_MAX)};
	int64		queue_ids[FIN_TRIM_LOGS_MAX];
	int			n = (int) fin_query_run(&next_logs, values, NULL,
										FIN_TRIM_LOGS_MAX);

	for (int i = 0; i < n; i++)
		queue_ids[i] = fin_query_int64(i, 1);
	for (int i = 0; i < n; i++)
	{
		FinLog		log;

		if (fin_queue_log_hold(queue_ids[i], AccessShareLock, &log))
			trim_log(&log, now, trim);
		trim->last_queue_id = queue_ids[i];
	}
	return n == FIN_TRIM_LOGS_MAX;
}

PG_FUNCTION_INFO_V1(finance_trim_log_queues);

/*
 * finance.trim_log_queues() returns integer
 *
 * Removes messages of all log queues that are older than their retention, by
 * whole segments, and what is left of positions that groups have passed; returns
 * how many segments of logs were emptied.  The worker does the same by itself: it is
 * for servers without one.  Never waits; what is in use stays.
 * Errors: none of its own.
 * Locks: ACCESS EXCLUSIVE on emptied segments until the end of the transaction,
 * for which readers wait: commit at once.
 */
Datum
finance_trim_log_queues(PG_FUNCTION_ARGS)
{
	TimestampTz now = fin_ident_now();
	Trim		trim = {.next = DT_NOEND};
	FinQueryScope scope;

	PreventCommandIfReadOnly("finance.trim_log_queues()");
	(void) fin_context();
	fin_query_begin(&scope);
	while (trim_logs(trim.last_queue_id, now, &trim))
		CHECK_FOR_INTERRUPTS();
	(void) fin_queue_log_rotate_positions();
	fin_query_end(&scope);
	PG_RETURN_INT32(trim.emptied);
}

/* ------------------------------------------------------------------------
 * the worker's chore
 * ------------------------------------------------------------------------
 */

static TimestampTz look_at = DT_NOBEGIN;	/* when to look next */
static TimestampTz next_look_at;	/* as found by the batch that runs */
static int64 looked_to = 0;		/* logs up to this one were looked at */
static int64 batch_looked_to;
static bool busy = false;		/* something was in use, in this round */
static bool batch_busy;

void
fin_queue_log_attend(void)
{
	look_at = DT_NOBEGIN;
}

TimestampTz
fin_queue_log_due(TimestampTz now)
{
	return look_at;
}

void
fin_queue_log_run(TimestampTz now)
{
	static TimestampTz round_next = DT_NOEND;
	Trim		trim = {.next = DT_NOEND,.last_queue_id = looked_to};
	FinQueryScope scope;
	bool		more;

	if (looked_to == 0)
		round_next = DT_NOEND;
	fin_query_begin(&scope);
	more = trim_logs(looked_to, fin_ident_now(), &trim);
	if (!more && !fin_queue_log_rotate_positions())
		trim.busy = true;
	fin_query_end(&scope);
	round_next = Min(round_next, trim.next);
	batch_busy = (looked_to > 0 && busy) || trim.busy;
	batch_looked_to = more ? trim.last_queue_id : 0;
	next_look_at = more ? DT_NOBEGIN :
		batch_busy ? Min(round_next, now + FIN_TRIM_RETRY_US) : round_next;
}

void
fin_queue_log_committed(TimestampTz now)
{
	look_at = next_look_at;
	looked_to = batch_looked_to;
	busy = batch_busy;
}
