/*
 * queue_tidy.c
 *		The worker's chore about queues: truncating used-up segments, and
 *		taking out messages whose time to live is over.
 *
 * A segment is emptied when it is no longer written to and mostly dead: it is
 * truncated, and the few messages left in it are written again.  That needs the
 * table for itself.  If anybody has it locked, it is tried again: some times at
 * once, for readers that only look into it have it for a moment, and then later.
 * The chore never queues for it, and makes nobody wait but for the moment of
 * truncating.  So a transaction that stays open and used a segment keeps that one, and the
 * queue goes on in the others; when all are kept, the one in use grows.
 *
 * An old snapshot sees the messages that are left, as any, and no longer those
 * that were taken out after it: nobody but a dump reads by an old snapshot, and
 * a dump need not restore what was done with.
 *
 * A round goes over all queues of which the backlog knows, in several
 * transactions if need be.  What it knows is empty when the worker starts: then
 * all queues are brought to its mind, for nobody else may use them.
 *
 * Owns, in the worker: the place in a round and the time of the next, static.
 * Locks: ACCESS EXCLUSIVE on a segment that nobody else uses; rows of expired
 * messages, skipping those that are locked.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "mishap.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "wake.h"

#define FIN_TIDY_QUEUES_MAX		32	/* in one transaction */
#define FIN_TIDY_EXPIRED_MAX	1000	/* of one queue in one transaction */
#define FIN_TIDY_ATTENDED_MAX	256		/* the backlog has no place for more */
#define FIN_TIDY_LEFT_BYTES		(16 * 1024 * 1024)	/* written again at most */
#define FIN_TIDY_TRIES_MAX		100 /* at locks, in one round, and between them */
#define FIN_TIDY_PAUSE_US		500
#define FIN_TIDY_RETRY_US		INT64CONST(50000)
#define FIN_TIDY_RETRY_MAX_US	(10 * USECS_PER_SEC)

static uint64 seen_counter = 0;
static bool asked = true;
static int64 retry_us = FIN_TIDY_RETRY_US;
static TimestampTz retry_at = FIN_NEVER;
static TimestampTz expiry_at = FIN_NEVER;
static bool attended = false;	/* the backlog was told of all queues */

static FinMishaps mishaps;

/* of the round at work */
static int	place = 0;			/* in the backlog; 0: none is at work */
static bool failed = false;		/* a part of it did not commit */
static bool committing = false;
static bool kept_out;			/* somebody has a segment locked */
static int	tries;				/* at such, that are left */
static bool emptied;			/* one, in this transaction */
static uint64 counter;
static TimestampTz next_expiry;

static FinQuery list_queues =
{
	.sql = "SELECT queue_id FROM finance.queue WHERE kind = 'standard'"
	" ORDER BY queue_id DESC LIMIT $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * emptying a segment
 * ------------------------------------------------------------------------
 */

/* the rows left, copied; -1 when they are too many */
static int
copy_rows(FinSegment *segment, Snapshot snapshot, Datum **values,
		  bool **nulls)
{
	FinSegmentRows *rows = fin_segment_rows(segment, snapshot);
	TupleTableSlot *row;
	Size		before = MemoryContextMemAllocated(CurrentMemoryContext, false);
	int			n = 0;

	while (n >= 0 && (row = fin_segment_next_row(rows)) != NULL)
	{
		if (n == FIN_SEGMENT_LEFT_MAX ||
			MemoryContextMemAllocated(CurrentMemoryContext, false) - before >
			FIN_TIDY_LEFT_BYTES)
		{
			n = -1;
			break;
		}
		fin_segment_copy(row, &values[n], &nulls[n]);
		n++;
	}
	fin_segment_end_rows(rows);
	return n;
}

/* the segment is open, and nobody else has it */
static void
empty_opened(int64 queue_id, FinSegment *segment)
{
	Datum	  **values = palloc(sizeof(Datum *) * FIN_SEGMENT_LEFT_MAX);
	bool	  **nulls = palloc(sizeof(bool *) * FIN_SEGMENT_LEFT_MAX);
	int			number = fin_segment_number(segment);
	int			n;

	PushActiveSnapshot(GetLatestSnapshot());
	n = copy_rows(segment, GetActiveSnapshot(), values, nulls);
	PopActiveSnapshot();
	if (n < 0)
		fin_backlog_met_rows(queue_id, number, FIN_SEGMENT_LEFT_MAX);
	if (n < 0 || fin_backlog_segment(queue_id) == number)
	{
		fin_segment_leave(segment);
		return;
	}
	emptied = true;
	if (fin_segment_has_pages(segment))
		fin_segment_empty(segment, queue_id, values, nulls, n);
	else
		fin_segment_close(segment);
	fin_backlog_note_emptied(queue_id, number, n);
}

/*
 * A segment for itself, or NULL.  While one that was emptied is locked until the
 * commit there is no time for trying again.
 */
static FinSegment *
open_alone(int64 queue_id, int number, bool *dropped)
{
	for (;;)
	{
		FinSegment *segment = fin_segment_open_free(queue_id, number,
													AccessExclusiveLock,
													dropped);

		if (segment != NULL || *dropped || emptied || tries == 0)
			return segment;
		tries--;
		pg_usleep(FIN_TIDY_PAUSE_US);
		CHECK_FOR_INTERRUPTS();
	}
}

/* false when the queue is dropped */
static bool
empty_segments(const FinBacklogWork *work)
{
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		bool		dropped;
		FinSegment *segment;

		if ((work->segments & (1 << i)) == 0)
			continue;
		segment = open_alone(work->queue_id, i, &dropped);
		if (dropped)
			return false;
		if (segment == NULL)
			kept_out = true;
		else
			empty_opened(work->queue_id, segment);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * expiring messages
 * ------------------------------------------------------------------------
 */

static void
expire_row(const FinQueueConfig *config, FinQueueTables *tables, int segment,
		   TupleTableSlot *row, TimestampTz now)
{
	if (!config->discards_expired)
	{
		fin_queue_bury(config, tables, segment, row, "expired", now);
		return;
	}
	if (fin_segment_delete(tables->segments[segment], row, tables->snapshot,
						   true) != FIN_DELETED)
		return;
	fin_queue_note_gone(tables, segment, row, now);
	fin_queue_release_key(tables, row, now);
}

/* one segment; returns when there is something to be looked at again */
static TimestampTz
expire_in(const FinQueueConfig *config, FinQueueTables *tables, int segment,
		  TimestampTz now)
{
	FinSegmentScan *scan = fin_queue_scan(tables, segment, FIN_BY_EXPIRY);
	TimestampTz next = FIN_NEVER;
	TupleTableSlot *row;
	int			n = 0;

	if (scan == NULL)
		return next;
	fin_segment_rescan(scan, DT_NOBEGIN, DT_NOEND);
	while ((row = fin_segment_next(scan)) != NULL)
	{
		TimestampTz expires_at = fin_segment_int64(row, FIN_MSG_EXPIRES_AT);
		TimestampTz visible_at = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);

		if (expires_at > now || n == FIN_TIDY_EXPIRED_MAX)
			return Min(next, Max(expires_at, now));
		/* it is being worked on: let that come to its end */
		if (visible_at > now)
		{
			next = Min(next, visible_at);
			continue;
		}
		if (!fin_segment_lock(tables->segments[segment], row,
							  tables->snapshot, false))
		{
			next = Min(next, now + FIN_TIDY_RETRY_MAX_US);
			continue;
		}
		expire_row(config, tables, segment, row, now);
		n++;
	}
	return next;
}

/* false when the queue is dropped */
static bool
expire_queue(int64 queue_id, TimestampTz now)
{
	FinQueueConfig *config = fin_queue_config(queue_id);
	TimestampTz next = FIN_NEVER;
	FinQueueTables tables;
	bool		dropped;

	if (config == NULL)
		return false;
	if (config->is_log)
		return true;
	fin_queue_tables_begin(&tables, queue_id, RowExclusiveLock);
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		TimestampTz of_segment = expire_in(config, &tables, i, now);

		next = Min(next, of_segment);
	}
	dropped = tables.dropped;
	fin_queue_tables_end(&tables);
	fin_backlog_expires(queue_id, next);
	next_expiry = Min(next_expiry, next);
	return !dropped;
}

/* ------------------------------------------------------------------------
 * the chore
 * ------------------------------------------------------------------------
 */

static void
tidy_queue(const FinBacklogWork *work, TimestampTz now)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	if ((work->expiry && !expire_queue(work->queue_id, now)) ||
		!empty_segments(work))
		fin_backlog_drop(work->queue_id);
	fin_query_end(&scope);
}

/* what is wrong with one queue keeps no other from being tidied up */
static void
try_queue(const FinBacklogWork *work, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		tidy_queue(work, now);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error = fin_mishap_take(context, owner);

		fin_mishap_log(&mishaps,
					   psprintf("queue " INT64_FORMAT " could not be tidied up",
								work->queue_id), error,
					   "It is tried again later.");
		if (work->expiry)
			fin_backlog_expires(work->queue_id, now + FIN_TIDY_RETRY_MAX_US);
		next_expiry = Min(next_expiry, now + FIN_TIDY_RETRY_MAX_US);
		kept_out = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

void
fin_queue_tidy_sweep(void)
{
	asked = true;
	attended = false;
}

static void
attend_queues(void)
{
	Datum		values[1] = {Int32GetDatum(FIN_TIDY_ATTENDED_MAX)};
	FinQueryScope scope;
	uint64		n;

	fin_query_begin(&scope);
	n = fin_query_run(&list_queues, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
		fin_backlog_attend(fin_query_int64(i, 1));
	fin_query_end(&scope);
	attended = true;
}

static void
begin_round(void)
{
	kept_out = false;
	tries = FIN_TIDY_TRIES_MAX;
	counter = fin_backlog_work_counter();
	next_expiry = FIN_NEVER;
}

TimestampTz
fin_queue_tidy_due(TimestampTz now)
{
	if (asked || fin_backlog_work_counter() != seen_counter)
		return now;
	return Min(retry_at, expiry_at);
}

void
fin_queue_tidy_run(TimestampTz now)
{
	FinBacklogWork work[FIN_TIDY_QUEUES_MAX];
	int			n;

	failed = failed || committing;
	committing = true;
	emptied = false;
	if (place == 0)
		begin_round();
	if (!attended)
		attend_queues();
	n = fin_backlog_collect_work(now, &place, work, FIN_TIDY_QUEUES_MAX,
								 &next_expiry);
	for (int i = 0; i < n; i++)
		try_queue(&work[i], now);
}

void
fin_queue_tidy_committed(TimestampTz now)
{
	committing = false;
	asked = true;
	if (place != 0)
		return;
	asked = failed;
	failed = false;
	seen_counter = counter;
	expiry_at = next_expiry;
	retry_us = kept_out ? Min(retry_us * 2, FIN_TIDY_RETRY_MAX_US) :
		FIN_TIDY_RETRY_US;
	retry_at = kept_out ? now + retry_us : FIN_NEVER;
}

const char *
fin_queue_tidy_complaint(void)
{
	return fin_mishap_last(&mishaps);
}
