/*
 * queue_claim.c
 *		Which messages are read next, and taking hold of them.
 *
 * Order: highest priority first, then oldest, which is the order of msg_id.
 * Where a reader begins it knows from the backlog: for each priority the fresh
 * messages after a mark, ranges behind the mark to be looked at again, and the
 * delayed messages that are due.  What it finds out, that all before some id
 * is done with, it tells the backlog for those who come next.
 *
 * Reading never waits: rows that another transaction has locked are skipped.
 * A message of an ordering key is skipped while an earlier one of that key is
 * in the queue; whoever removes that one has this one looked at again.
 *
 * Under REPEATABLE READ and SERIALIZABLE the snapshot is the transaction's.
 * Then what others claimed since is skipped as well, and nothing is told to
 * the backlog.
 *
 * Owns nothing beyond a call.  Locks: the rows claimed, until the end of the
 * transaction; segments as in queue_segment.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "wake.h"

#define FIN_DUE_MAX			1000	/* delayed messages gathered at a time */
#define FIN_WALK_MAX		16	/* rows to the next id, rather than descend */
#define FIN_WAITING_MAX		10000	/* counted by fin_queue_waiting() */

typedef struct Due
{
	int64		msg_id;
	TimestampTz due_at;
	int			segment;
} Due;

typedef struct Claim
{
	FunctionCallInfo fcinfo;
	FinQueueConfig *config;
	FinQueueTables tables;
	FinBacklogView view;
	bool		tells;			/* what it finds out, to the backlog */
	bool		fresh;			/* it walks among fresh ids */
	TimestampTz now;
	TimestampTz until;			/* 0: delete */
	int			wanted;
	int			made;
	int			ndue;
	int			nextdue;		/* of these, the first not dealt with */
	Due		   *due;			/* by msg_id */
	uint32		due_segments;	/* that may have more of them */
	TimestampTz due_rest[FIN_SEGMENTS]; /* of those not gathered the first */
	bool		in_due;			/* one of them is being looked at */

	/* for counting instead of claiming */
	FinQueueWaiting *waiting;
	TimestampTz since;
} Claim;

/* ------------------------------------------------------------------------
 * the tables of a queue
 * ------------------------------------------------------------------------
 */

void
fin_queue_tables_begin(FinQueueTables *tables, int64 queue_id, LOCKMODE mode)
{
	memset(tables, 0, sizeof(*tables));
	tables->queue_id = queue_id;
	tables->mode = mode;
	/* see what this transaction did before, as a new statement would */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	tables->snapshot = GetActiveSnapshot();
}

void
fin_queue_tables_end(FinQueueTables *tables)
{
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		for (int which = 0; which < FIN_SEGMENT_INDEXES; which++)
		{
			if (tables->scans[i][which] != NULL)
				fin_segment_end_scan(tables->scans[i][which]);
		}
		if (tables->finds[i] != NULL)
			fin_segment_end_scan(tables->finds[i]);
		if (tables->segments[i] != NULL)
			fin_segment_close(tables->segments[i]);
	}
	PopActiveSnapshot();
}

FinSegment *
fin_queue_table(FinQueueTables *tables, int segment)
{
	if (tables->segments[segment] == NULL && !tables->dropped)
	{
		tables->segments[segment] = fin_segment_open(tables->queue_id,
													 segment, tables->mode);
		tables->dropped = tables->segments[segment] == NULL;
	}
	return tables->segments[segment];
}

FinSegmentScan *
fin_queue_scan(FinQueueTables *tables, int segment, FinSegmentIndex which)
{
	FinSegment *table = fin_queue_table(tables, segment);

	if (table == NULL)
		return NULL;
	if (tables->scans[segment][which] == NULL)
		tables->scans[segment][which] = fin_segment_scan(table, which,
														 tables->snapshot);
	return tables->scans[segment][which];
}

/*
 * The first row at or after the id.  Ids that are looked for together mostly
 * lie together: walking on is cheaper than descending the index for each.
 */
static TupleTableSlot *
find_from(FinQueueTables *tables, int segment, int64 msg_id)
{
	FinSegmentScan *scan = tables->finds[segment];
	TupleTableSlot *row = tables->found[segment];

	for (int i = 0; row != NULL && i < FIN_WALK_MAX; i++)
	{
		if (fin_segment_int64(row, FIN_MSG_ID) >= msg_id)
			return row;
		row = fin_segment_next(scan);
		if (row == NULL)
			return NULL;
	}
	fin_segment_rescan(scan, msg_id, Max(msg_id, tables->last_id));
	return fin_segment_next(scan);
}

TupleTableSlot *
fin_queue_find_row(FinQueueTables *tables, int64 msg_id, uint32 segments,
				   int *segment)
{
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		TupleTableSlot *row;
		FinSegment *table;

		if ((segments & (1 << i)) == 0)
			continue;
		table = fin_queue_table(tables, i);
		if (table == NULL)
			return NULL;
		if (tables->finds[i] == NULL)
			tables->finds[i] = fin_segment_scan(table, FIN_BY_ID,
												tables->snapshot);
		if ((tables->exhausted & (1 << i)) != 0)
			continue;
		row = find_from(tables, i, msg_id);
		tables->found[i] = tables->last_id != 0 ? row : NULL;
		if (row == NULL && tables->last_id != 0)
			tables->exhausted |= 1 << i;
		if (row != NULL && fin_segment_int64(row, FIN_MSG_ID) == msg_id)
		{
			*segment = i;
			return row;
		}
	}
	return NULL;
}

TimestampTz
fin_queue_claimed_until(TupleTableSlot *row, TimestampTz now)
{
	TimestampTz until = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);

	return until > now && until != fin_segment_int64(row, FIN_MSG_DUE_AT) ?
		until : 0;
}

void
fin_queue_note_gone(const FinQueueTables *tables, int segment,
					TupleTableSlot *row, TimestampTz now)
{
	fin_backlog_note_ended(tables->queue_id, segment,
						   fin_segment_int64(row, FIN_MSG_ID),
						   fin_queue_claimed_until(row, now),
						   fin_segment_int64(row, FIN_MSG_DUE_AT), true);
}

/* ------------------------------------------------------------------------
 * ordering keys
 * ------------------------------------------------------------------------
 */

/*
 * The first of this key at or after message_id 'first' whose life is not over,
 * or which is being worked on all the same.
 */
static TupleTableSlot *
first_of_key(FinQueueTables *tables, int segment, Datum key, int64 first,
			 TimestampTz now)
{
	FinSegmentScan *scan = fin_queue_scan(tables, segment, FIN_BY_KEY);
	TupleTableSlot *row;

	if (scan == NULL)
		return NULL;
	fin_segment_rescan_key(scan, key, first);
	while ((row = fin_segment_next(scan)) != NULL)
	{
		TimestampTz expires_at = fin_segment_int64(row, FIN_MSG_EXPIRES_AT);

		if (expires_at == 0 || expires_at > now ||
			fin_segment_int64(row, FIN_MSG_VISIBLE_AT) > now)
			break;
	}
	return row;
}

static bool
has_earlier(FinQueueTables *tables, Datum key, int64 message_id,
			TimestampTz now)
{
	uint32		used = fin_backlog_used_segments(tables->queue_id);

	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		TupleTableSlot *first;

		if ((used & (1 << i)) == 0)
			continue;
		first = first_of_key(tables, i, key, PG_INT64_MIN, now);
		if (first != NULL &&
			fin_segment_int64(first, FIN_MSG_MESSAGE_ID) < message_id)
			return true;
	}
	return false;
}

/* is it the turn of this message? */
static bool
is_key_free(Claim *claim, TupleTableSlot *row)
{
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	int64		message_id = fin_segment_int64(row, FIN_MSG_MESSAGE_ID);

	if (isnull)
		return true;
	return !has_earlier(&claim->tables, key, message_id, claim->now);
}

/*
 * The next one of the key may be in the queue already, also uncommitted: then
 * it is looked at again after our commit.  If none is, one may still come, and
 * be passed by readers before our commit because this one is still there: all
 * of that time is looked at again.
 */
void
fin_queue_release_key(FinQueueTables *tables, TupleTableSlot *row)
{
	FinQueueTables dirty = {0};
	SnapshotData any;
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	int64		message_id = fin_segment_int64(row, FIN_MSG_MESSAGE_ID);
	int64		next_id = PG_INT64_MAX;
	int64		next_msg_id = 0;
	int			next_segment = 0;

	if (isnull)
		return;
	InitDirtySnapshot(any);
	dirty.queue_id = tables->queue_id;
	dirty.mode = tables->mode;
	dirty.snapshot = &any;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		TupleTableSlot *first = first_of_key(&dirty, i, key, message_id + 1,
											 fin_ident_now());

		if (first == NULL ||
			fin_segment_int64(first, FIN_MSG_MESSAGE_ID) >= next_id)
			continue;
		next_id = fin_segment_int64(first, FIN_MSG_MESSAGE_ID);
		next_msg_id = fin_segment_int64(first, FIN_MSG_ID);
		next_segment = i;
	}
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if (dirty.scans[i][FIN_BY_KEY] != NULL)
			fin_segment_end_scan(dirty.scans[i][FIN_BY_KEY]);
		if (dirty.segments[i] != NULL)
			fin_segment_close(dirty.segments[i]);
	}
	if (next_msg_id != 0)
		fin_backlog_note_ready(tables->queue_id, next_segment, next_msg_id);
	else
		fin_backlog_note_released(tables->queue_id,
								  fin_queue_msg_id_floor());
}

/* ------------------------------------------------------------------------
 * one message
 * ------------------------------------------------------------------------
 */

void
fin_queue_emit(FunctionCallInfo fcinfo, TupleTableSlot *row, int read_ct,
			   TimestampTz visible_at)
{
	static const int columns[] = {
		FIN_MSG_ID, FIN_MSG_READ_CT, FIN_MSG_ENQUEUED_AT, FIN_MSG_VISIBLE_AT,
		FIN_MSG_PAYLOAD, FIN_MSG_HEADERS, FIN_MSG_TOPIC, FIN_MSG_MESSAGE_ID,
		FIN_MSG_PRIORITY, FIN_MSG_ORDERING_KEY
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[lengthof(columns)];
	bool		nulls[lengthof(columns)];

	for (int i = 0; i < (int) lengthof(columns); i++)
		values[i] = fin_segment_value(row, columns[i], &nulls[i]);
	values[1] = Int32GetDatum(read_ct);
	values[3] = TimestampTzGetDatum(visible_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
claim_locked(Claim *claim, int segment, TupleTableSlot *row, int read_ct,
			 TimestampTz was_due_at)
{
	static const int columns[] = {FIN_MSG_VISIBLE_AT, FIN_MSG_READ_CT,
	FIN_MSG_DUE_AT};
	Datum		values[3] = {TimestampTzGetDatum(claim->until),
	Int32GetDatum(read_ct), (Datum) 0};
	bool		nulls[3] = {false, false, true};

	fin_segment_update(claim->tables.segments[segment], row, columns,
					   was_due_at != 0 ? 3 : 2, values, nulls);
	fin_backlog_note_claimed(claim->tables.queue_id, segment,
							 fin_segment_int64(row, FIN_MSG_ID), claim->until,
							 was_due_at);
	fin_queue_emit(claim->fcinfo, row, read_ct, claim->until);
	claim->made++;
}

static void
pop(Claim *claim, int segment, TupleTableSlot *row, int read_ct)
{
	FinQueueTables *tables = &claim->tables;

	if (fin_segment_delete(tables->segments[segment], row, tables->snapshot,
						   false) != FIN_DELETED)
		return;
	fin_queue_note_gone(tables, segment, row, claim->now);
	fin_queue_release_key(tables, row);
	fin_queue_emit(claim->fcinfo, row, read_ct, claim->now);
	claim->made++;
}

static void
count_waiting(Claim *claim, TupleTableSlot *row, TimestampTz visible_at)
{
	FinQueueWaiting *waiting = claim->waiting;

	claim->made++;
	if (visible_at <= claim->since)
		return;
	waiting->count++;
	waiting->highest_id = Max(waiting->highest_id,
							  fin_segment_int64(row, FIN_MSG_ID));
}

/* a message that can be read, unless somebody else is faster */
static void
take(Claim *claim, int segment, TupleTableSlot *row, TimestampTz was_due_at)
{
	int			max = claim->config->max_deliveries;
	int			read_ct;
	bool		isnull;

	if (!is_key_free(claim, row))
		return;
	if (claim->waiting != NULL)
	{
		count_waiting(claim, row, fin_segment_int64(row, FIN_MSG_VISIBLE_AT));
		return;
	}
	read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT, &isnull));
	if (claim->until == 0 && (max == 0 || read_ct < max))
	{
		pop(claim, segment, row, read_ct);
		return;
	}
	if (!fin_segment_lock(claim->tables.segments[segment], row,
						  claim->tables.snapshot, false))
		return;
	if (max > 0 && read_ct >= max)
		fin_queue_bury(claim->config, &claim->tables, segment, row,
					   "max_deliveries", claim->now);
	else
		claim_locked(claim, segment, row, read_ct + 1, was_due_at);
}

/* a message that is met on the way */
static void
consider(Claim *claim, int segment, TupleTableSlot *row)
{
	TimestampTz visible_at = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);
	TimestampTz due_at = fin_segment_int64(row, FIN_MSG_DUE_AT);
	TimestampTz expires_at = fin_segment_int64(row, FIN_MSG_EXPIRES_AT);

	if (expires_at != 0 && expires_at <= claim->now)
		return;					/* the worker's */
	/* delayed ones that are due are met twice, and counted once */
	if (claim->waiting != NULL && due_at != 0 && !claim->in_due)
		return;
	if (visible_at <= claim->now)
		take(claim, segment, row, due_at);
	else if (due_at == 0 && claim->tells)
	{
		/* those of this transaction are told when it commits */
		if (!(claim->fresh && claim->view.leases_known) &&
			!fin_segment_is_own(row))
			fin_backlog_met_lease(claim->tables.queue_id,
								  fin_segment_int64(row, FIN_MSG_ID), segment,
								  visible_at);
	}
	else if (due_at == 0 && claim->waiting != NULL)
		claim->waiting->next_at = claim->waiting->next_at == 0 ? visible_at :
			Min(claim->waiting->next_at, visible_at);
}

/* ------------------------------------------------------------------------
 * delayed messages
 * ------------------------------------------------------------------------
 */

static int
compare_due(const void *a, const void *b)
{
	int64		x = ((const Due *) a)->msg_id;
	int64		y = ((const Due *) b)->msg_id;

	return (x > y) - (x < y);
}

static void
begin_due(Claim *claim)
{
	uint32		used = fin_backlog_used_segments(claim->tables.queue_id);

	claim->due = palloc(sizeof(Due) * FIN_DUE_MAX * FIN_SEGMENTS);
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		FinSegmentScan *scan = (used & (1 << i)) == 0 ? NULL :
			fin_queue_scan(&claim->tables, i, FIN_BY_DUE);

		claim->due_rest[i] = FIN_NEVER;
		if (scan == NULL)
			continue;
		fin_segment_rescan(scan, claim->view.due_from, DT_NOEND);
		claim->due_segments |= 1 << i;
	}
}

/* the next ones due in one segment */
static void
gather_due_of(Claim *claim, int segment)
{
	FinSegmentScan *scan = claim->tables.scans[segment][FIN_BY_DUE];

	for (int i = 0; i < FIN_DUE_MAX; i++)
	{
		TupleTableSlot *row = fin_segment_next(scan);
		TimestampTz due_at = row == NULL ? FIN_NEVER :
			fin_segment_int64(row, FIN_MSG_DUE_AT);
		Due		   *due;

		/* there may be more at the same time */
		claim->due_rest[segment] = due_at;
		if (due_at > claim->now)
		{
			claim->due_segments &= ~(1 << segment);
			break;
		}
		due = &claim->due[claim->ndue++];
		due->msg_id = fin_segment_int64(row, FIN_MSG_ID);
		due->due_at = due_at;
		due->segment = segment;
	}
}

static void
gather_due(Claim *claim)
{
	claim->ndue = 0;
	claim->nextdue = 0;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((claim->due_segments & (1 << i)) != 0)
			gather_due_of(claim, i);
	}
	if (claim->ndue > 1)
		qsort(claim->due, claim->ndue, sizeof(Due), compare_due);
}

/* those that come before 'msg_id' in the order of reading */
static void
take_due_before(Claim *claim, int64 msg_id)
{
	while (claim->nextdue < claim->ndue && claim->made < claim->wanted &&
		   claim->due[claim->nextdue].msg_id < msg_id)
	{
		Due		   *due = &claim->due[claim->nextdue++];
		int			segment;
		TupleTableSlot *row = fin_queue_find_row(&claim->tables, due->msg_id,
												 1 << due->segment, &segment);

		if (row == NULL)
			continue;
		claim->in_due = true;
		consider(claim, segment, row);
		claim->in_due = false;
	}
}

static void
tell_due(Claim *claim)
{
	TimestampTz rest = FIN_NEVER;

	for (int i = 0; i < FIN_SEGMENTS; i++)
		rest = Min(rest, claim->due_rest[i]);
	for (int i = claim->nextdue; i < claim->ndue; i++)
		rest = Min(rest, claim->due[i].due_at);
	if (claim->tells)
		fin_backlog_advance_due(claim->tables.queue_id, &claim->view, rest);
	if (claim->waiting != NULL && rest != FIN_NEVER)
		claim->waiting->next_at = rest;
}

/* ------------------------------------------------------------------------
 * ranges
 * ------------------------------------------------------------------------
 */

/* the walk of a range across its segments, in the order of ids */
typedef struct Walk
{
	FinRange	range;
	int64		from[FIN_SEGMENTS]; /* no id of the segment is below */
	uint32		begun;			/* segments that are looked into, */
	TupleTableSlot *heads[FIN_SEGMENTS];	/* and the next row of each */
} Walk;

static void
begin_segment(Claim *claim, Walk *walk, int segment)
{
	FinSegmentScan *scan = fin_queue_scan(&claim->tables, segment, FIN_BY_ID);

	walk->begun |= 1 << segment;
	if (scan == NULL)
		return;
	fin_segment_rescan(scan, Max(walk->range.first, walk->from[segment]),
					   walk->range.last);
	walk->heads[segment] = fin_segment_next(scan);
}

/*
 * The segment whose row comes next, or -1.  A segment is not looked into
 * before it may have that row: most have nothing to read.
 */
static int
next_segment(Claim *claim, Walk *walk, int64 *msg_id)
{
	for (;;)
	{
		int			first = -1;
		int			later = -1;

		*msg_id = PG_INT64_MAX;
		for (int i = 0; i < FIN_SEGMENTS; i++)
		{
			if ((walk->range.segments & ~walk->begun & (1 << i)) != 0 &&
				(later < 0 || walk->from[i] < walk->from[later]))
				later = i;
			if (walk->heads[i] != NULL &&
				fin_segment_int64(walk->heads[i], FIN_MSG_ID) < *msg_id)
			{
				first = i;
				*msg_id = fin_segment_int64(walk->heads[i], FIN_MSG_ID);
			}
		}
		if (later < 0 || walk->from[later] > *msg_id)
			return first;
		begin_segment(claim, walk, later);
	}
}

/*
 * Returns the id reached: all below are dealt with.  Above range.last when it
 * is done, but for fresh ones, where it is the one after the last that was
 * seen.
 */
static int64
walk_range(Claim *claim, Walk *walk)
{
	int64		reached = walk->range.first;
	int64		last = walk->range.last;
	int64		msg_id;
	int			segment;

	while ((segment = next_segment(claim, walk, &msg_id)) >= 0)
	{
		take_due_before(claim, msg_id);
		if (claim->made >= claim->wanted)
			return msg_id;
		consider(claim, segment, walk->heads[segment]);
		reached = msg_id + 1;
		walk->heads[segment] =
			fin_segment_next(claim->tables.scans[segment][FIN_BY_ID]);
	}
	return last == FIN_BACKLOG_LAST(FIN_BACKLOG_RANK(last)) ? reached : last + 1;
}

static void
walk_fresh(Claim *claim, int rank)
{
	Walk		walk;
	int64		reached;
	bool		done;

	memset(&walk, 0, sizeof(walk));
	walk.range.first = claim->view.next[rank];
	walk.range.last = FIN_BACKLOG_LAST(rank);
	walk.range.segments = claim->view.fresh[rank];
	if (walk.range.segments == 0)
		return;
	memcpy(walk.from, claim->view.from[rank], sizeof(walk.from));
	claim->fresh = true;
	reached = walk_range(claim, &walk);
	claim->fresh = false;
	if (!claim->tells)
		return;
	done = claim->made < claim->wanted && !claim->tables.dropped;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((walk.begun & (1 << i)) != 0)
			walk.from[i] = walk.heads[i] == NULL ? reached :
				fin_segment_int64(walk.heads[i], FIN_MSG_ID);
	}
	fin_backlog_advance(claim->tables.queue_id, &claim->view, rank, reached,
						walk.from, done ? walk.range.segments : 0);
}

/* everything of one rank; *i: the first range not walked yet */
static void
walk_rank(Claim *claim, int rank, int *i)
{
	const FinBacklogView *view = &claim->view;

	while (*i < view->nranges && claim->made < claim->wanted &&
		   FIN_BACKLOG_RANK(view->ranges[*i].first) == rank)
	{
		Walk		walk;

		memset(&walk, 0, sizeof(walk));
		walk.range = view->ranges[*i];
		walk.range.first = walk_range(claim, &walk);
		(*i)++;
		if (claim->made >= claim->wanted && claim->tells &&
			walk.range.first <= walk.range.last)
			fin_backlog_give_back(claim->tables.queue_id, &walk.range);
	}
	if (claim->made < claim->wanted)
		walk_fresh(claim, rank);
	take_due_before(claim, FIN_BACKLOG_FIRST(rank + 1));
}

static void
walk_all(Claim *claim)
{
	bool		asks_due = claim->view.due_from <= claim->now;
	int			i = 0;

	if (asks_due)
	{
		begin_due(claim);
		gather_due(claim);
	}
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		if (claim->made >= claim->wanted || claim->tables.dropped)
			break;
		walk_rank(claim, rank, &i);
	}
	for (; claim->tells && i < claim->view.nranges; i++)
		fin_backlog_give_back(claim->tables.queue_id, &claim->view.ranges[i]);
	/* the first ones were not to be had: locked, or waiting for their keys */
	while (claim->due_segments != 0 && claim->made < claim->wanted)
	{
		gather_due(claim);
		take_due_before(claim, PG_INT64_MAX);
	}
	if (asks_due)
		tell_due(claim);
}

/* ------------------------------------------------------------------------
 * claiming and counting
 * ------------------------------------------------------------------------
 */

/* those claimed by others, as our snapshot shows them */
static int
gather_claimed(Claim *claim, FinBacklogClaimed **claimed)
{
	int			max = 64;
	int			n = 0;

	*claimed = palloc(max * sizeof(FinBacklogClaimed));
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		FinSegmentScan *scan = fin_queue_scan(&claim->tables, i, FIN_BY_ID);
		TupleTableSlot *row;

		if (scan == NULL)
			break;
		fin_segment_rescan(scan, 0, PG_INT64_MAX);
		while ((row = fin_segment_next(scan)) != NULL)
		{
			TimestampTz until = fin_queue_claimed_until(row, claim->now);

			if (until == 0 || fin_segment_is_own(row))
				continue;
			if (n == max)
			{
				max *= 2;
				*claimed = repalloc_huge(*claimed,
										 max * sizeof(FinBacklogClaimed));
			}
			(*claimed)[n].msg_id = fin_segment_int64(row, FIN_MSG_ID);
			(*claimed)[n].until = until;
			(*claimed)[n].segment = i;
			n++;
		}
	}
	return n;
}

/*
 * How many claims there are, after the backlog was forgotten: all of the queue
 * is read.  0 when it knows.
 */
static int
count_claimed(Claim *claim)
{
	int64		queue_id = claim->config->queue_id;
	FinBacklogClaimed *claimed;
	uint64		begun;
	int			n;

	if (claim->config->max_in_flight == 0 ||
		fin_backlog_knows_leases(queue_id, &begun))
		return 0;
	fin_queue_tables_begin(&claim->tables, queue_id, RowExclusiveLock);
	n = gather_claimed(claim, &claimed);
	fin_queue_tables_end(&claim->tables);
	fin_backlog_end_leases(queue_id, begun, claimed, n);
	pfree(claimed);
	return n;
}

/* returns false when the queue was dropped meanwhile */
static bool
claim_from(Claim *claim)
{
	const FinQueueConfig *config = claim->config;
	bool		limited = config->max_in_flight > 0 || config->rate_limit > 0;
	bool		dropped;
	int			allowed;

	if (limited)
		claim->wanted = fin_backlog_allow_claims(config->queue_id, claim->now,
												 claim->wanted,
												 count_claimed(claim),
												 config->max_in_flight,
												 config->rate_limit);
	allowed = claim->wanted;
	if (allowed == 0)
		return true;
	claim->tells = !IsolationUsesXactSnapshot();
	/* the view before the snapshot: see backlog.c */
	fin_backlog_view(config->queue_id, claim->now, claim->tells, &claim->view);
	fin_queue_tables_begin(&claim->tables, config->queue_id, RowExclusiveLock);
	walk_all(claim);
	dropped = claim->tables.dropped;
	fin_queue_tables_end(&claim->tables);
	if (limited && claim->made < allowed)
		fin_backlog_claims_spared(config->queue_id, allowed - claim->made);
	return !dropped;
}

void
fin_queue_claim(FunctionCallInfo fcinfo, int32 tenant_id,
				const char *queue_name, TimestampTz now, TimestampTz until,
				int wanted)
{
	Claim	   *claim = palloc0(sizeof(Claim));

	/* a queue found in the cache may be gone: then look for it again */
	do
	{
		memset(claim, 0, sizeof(Claim));
		claim->fcinfo = fcinfo;
		claim->now = now;
		claim->until = until;
		claim->wanted = wanted;
		claim->config = fin_queue_find_standard(tenant_id, queue_name);
		CHECK_FOR_INTERRUPTS();
		if (claim->config->paused)
			return;
	} while (!claim_from(claim));
	if (claim->made > 0)
		fin_wake_note_claim(claim->config->queue_id, claim->made, until);
}

bool
fin_queue_waiting(int32 tenant_id, int64 queue_id, TimestampTz since,
				  TimestampTz now, FinQueueWaiting *waiting)
{
	Claim	   *claim = palloc0(sizeof(Claim));
	FinBacklogCounts counts;
	bool		dropped;

	memset(waiting, 0, sizeof(*waiting));
	claim->config = fin_queue_config(queue_id);
	if (claim->config == NULL)
		return false;
	if (claim->config->is_log)
		return fin_queue_log_waiting(queue_id, since, waiting);
	claim->now = now;
	claim->wanted = FIN_WAITING_MAX;
	claim->waiting = waiting;
	claim->since = since;
	fin_backlog_view(queue_id, now, false, &claim->view);
	fin_queue_tables_begin(&claim->tables, queue_id, AccessShareLock);
	walk_all(claim);
	dropped = claim->tables.dropped;
	fin_queue_tables_end(&claim->tables);
	fin_backlog_counts(queue_id, now, &counts);
	if (counts.next_at != FIN_NEVER)
		waiting->next_at = waiting->next_at == 0 ? counts.next_at :
			Min(waiting->next_at, counts.next_at);
	pfree(claim);
	return !dropped;
}
