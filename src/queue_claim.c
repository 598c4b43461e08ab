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
 * Ordering keys are queue_key.c's.
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
#include "storage/lmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "wait.h"
#include "wake.h"

#define FIN_DUE_MAX			1000	/* delayed messages looked at in one call */
#define FIN_LOCKED_MAX		100		/* messages that are tried again at once, */
#define FIN_LOCKED_AGAIN_US USECS_PER_SEC	/* others then */
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
	TimestampTz now;
	TimestampTz until;			/* 0: delete */
	int			wanted;
	int			made;
	int			ndue;
	int			nextdue;		/* of these, the first not dealt with */
	Due		   *due;			/* by msg_id */
	uint32		due_segments;	/* that may have more of them, */
	TimestampTz due_rest[FIN_SEGMENTS]; /* due from then on */
	bool		in_due;			/* one of them is being looked at */
	int			nlocked;		/* met, that others only have locked */
	TransactionId taken_by;		/* that has messages met since the view */
	bool		has_key;		/* key_lock is held */
	LOCKTAG		key_lock;
	int			key_length;		/* 0: none */
	char		key[FIN_QUEUE_KEY_MAX];	/* of the last message that has one */

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
		if (tables->keys[i] != NULL)
			fin_segment_end_scan(tables->keys[i]);
		if (tables->segments[i] != NULL)
			fin_segment_leave(tables->segments[i]);
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

TupleTableSlot *
fin_queue_find_own(FinQueueTables *tables, int64 msg_id, int *segment)
{
	FinSegment *table;

	*segment = fin_segment_where(tables->queue_id, msg_id);
	if (*segment < 0)
		return NULL;
	table = fin_queue_table(tables, *segment);
	return table == NULL ? NULL :
		fin_segment_fetch(table, msg_id, tables->snapshot);
}

void
fin_queue_note_gone(const FinQueueTables *tables, int segment,
					TupleTableSlot *row, TimestampTz now)
{
	TimestampTz until = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);

	fin_backlog_note_ended(tables->queue_id, segment,
						   fin_segment_int64(row, FIN_MSG_ID),
						   until > now ? until : 0,
						   fin_segment_int64(row, FIN_MSG_DUE_AT), true);
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
note_claimed(Claim *claim, int segment, TupleTableSlot *row, int read_ct,
			 TimestampTz was_due_at)
{
	fin_backlog_note_claimed(claim->tables.queue_id, segment,
							 fin_segment_int64(row, FIN_MSG_ID), claim->until,
							 was_due_at);
	fin_queue_emit(claim->fcinfo, row, read_ct, claim->until);
	claim->made++;
}

/* without locking the row first; false: this cannot be done so */
static bool
claim_at_once(Claim *claim, int segment, TupleTableSlot *row, int read_ct)
{
	if (fin_segment_int64(row, FIN_MSG_DUE_AT) != 0 ||
		!fin_segment_claim(claim->tables.segments[segment], row,
						   claim->tables.snapshot, claim->until, read_ct))
		return false;
	note_claimed(claim, segment, row, read_ct, 0);
	return true;
}

static void
claim_locked(Claim *claim, int segment, TupleTableSlot *row, int read_ct)
{
	TimestampTz was_due_at = fin_segment_int64(row, FIN_MSG_DUE_AT);

	static const int columns[] = {FIN_MSG_VISIBLE_AT, FIN_MSG_READ_CT,
	FIN_MSG_DUE_AT};
	Datum		values[3] = {TimestampTzGetDatum(claim->until),
	Int32GetDatum(read_ct), (Datum) 0};
	bool		nulls[3] = {false, false, true};

	fin_segment_update(claim->tables.segments[segment], row, columns,
					   was_due_at != 0 ? 3 : 2, values, nulls);
	note_claimed(claim, segment, row, read_ct, was_due_at);
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

/*
 * Somebody else was faster.  Who changes a message tells the backlog; who only
 * has it locked, as SELECT FOR UPDATE does, may leave it as it is and say
 * nothing: so it is to be looked at again, or a little later when these are
 * many.
 */
static void
skip(Claim *claim, int segment, TupleTableSlot *row)
{
	int64		msg_id = fin_segment_int64(row, FIN_MSG_ID);
	FinRange	range = {.first = msg_id, .last = msg_id, .segments = 1 << segment};

	if (!claim->tells || !fin_segment_is_only_locked(row))
		return;
	if (claim->nlocked++ < FIN_LOCKED_MAX)
		fin_backlog_give_back(claim->tables.queue_id, &range);
	else
		fin_backlog_met_lease(claim->tables.queue_id, msg_id, segment,
							  claim->now + FIN_LOCKED_AGAIN_US, false);
}

static void
unlock_key(Claim *claim)
{
	if (claim->has_key)
		LockRelease(&claim->key_lock, ExclusiveLock, false);
	claim->has_key = false;
}

static void
pop(Claim *claim, int segment, TupleTableSlot *row, int read_ct)
{
	FinQueueTables *tables = &claim->tables;

	if (fin_segment_delete(tables->segments[segment], row, tables->snapshot,
						   false) != FIN_DELETED)
	{
		skip(claim, segment, row);
		return;
	}
	unlock_key(claim);
	fin_queue_note_gone(tables, segment, row, claim->now);
	fin_queue_release_key(tables, row, claim->now);
	fin_queue_emit(claim->fcinfo, row, read_ct, claim->now);
	claim->made++;
}

/* a message whose turn it is, unless somebody else is faster */
static void
take_row(Claim *claim, int segment, TupleTableSlot *row)
{
	int			max = claim->config->max_deliveries;
	bool		isnull;
	int			read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
														  &isnull));
	bool		is_last = max > 0 && read_ct >= max;

	if (claim->until == 0 && !is_last)
		pop(claim, segment, row, read_ct);
	else if (!is_last && claim_at_once(claim, segment, row, read_ct + 1))
		return;
	else if (fin_segment_is_taken(row, &claim->taken_by))
		return;
	else if (!fin_segment_lock(claim->tables.segments[segment], row,
							   claim->tables.snapshot, false))
		skip(claim, segment, row);
	else if (is_last)
	{
		unlock_key(claim);
		fin_queue_bury(claim->config, &claim->tables, segment, row,
					   "max_deliveries", claim->now);
	}
	else
		claim_locked(claim, segment, row, read_ct + 1);
}

/* was the key of the last message that has one the same?  Then this is no news. */
static bool
is_same_key(Claim *claim, Datum key)
{
	text	   *text_key = DatumGetTextPP(key);
	int			length = VARSIZE_ANY_EXHDR(text_key);
	bool		same = claim->key_length == length &&
		memcmp(claim->key, VARDATA_ANY(text_key), length) == 0;

	claim->key_length = Min(length, FIN_QUEUE_KEY_MAX);
	memcpy(claim->key, VARDATA_ANY(text_key), claim->key_length);
	return same;
}

/* a message that can be read */
static void
take(Claim *claim, int segment, TupleTableSlot *row)
{
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	bool		look_at_next;

	if (claim->waiting != NULL)
	{
		if (isnull || fin_queue_is_turn(&claim->tables, row, claim->now))
			count_waiting(claim, row,
						  fin_segment_int64(row, FIN_MSG_VISIBLE_AT));
		return;
	}
	if (isnull)
	{
		take_row(claim, segment, row);
		return;
	}
	if (is_same_key(claim, key))
		return;
	fin_queue_lock_key(claim->tables.queue_id, key, &claim->key_lock);
	claim->has_key = true;
	row = fin_queue_whose_turn(&claim->tables, row, &segment, claim->now,
							   &look_at_next);
	if (look_at_next)
		claim->key_length = 0;
	if (row != NULL)
		take_row(claim, segment, row);
	unlock_key(claim);
}

/*
 * A message whose life is over is the worker's.  But it holds up others of its
 * ordering key no longer, and nobody looks at these before it is taken away: so
 * who meets it does.
 */
static bool
leaves_key(const Claim *claim, TupleTableSlot *row)
{
	bool		isnull;

	(void) fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	return !isnull && claim->waiting == NULL;
}

/* a message that is met on the way */
static void
consider(Claim *claim, int segment, TupleTableSlot *row)
{
	TimestampTz visible_at = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);
	TimestampTz due_at = fin_segment_int64(row, FIN_MSG_DUE_AT);

	if (fin_queue_is_over(row, claim->now) && !leaves_key(claim, row))
		return;					/* the worker's */
	/* delayed ones that are due are met twice, and counted once */
	if (claim->waiting != NULL && due_at != 0 && !claim->in_due)
		return;
	if (visible_at <= claim->now)
		take(claim, segment, row);
	else if (due_at == 0 && claim->tells)
	{
		/* our own claims are told when they are committed */
		if (!fin_segment_is_own(row))
			fin_backlog_met_lease(claim->tables.queue_id,
								  fin_segment_int64(row, FIN_MSG_ID), segment,
								  visible_at, true);
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

/*
 * Some of those due in one segment, following those that were gathered before.
 * Notes when the first of the others is due, or a time before that.
 */
static void
gather_due_of(Claim *claim, int segment, int max)
{
	FinSegmentScan *scan = fin_queue_scan(&claim->tables, segment, FIN_BY_DUE);
	TupleTableSlot *row = NULL;

	if (scan != NULL && claim->due_rest[segment] == DT_NOBEGIN)
		fin_segment_rescan(scan, claim->view.due_from, DT_NOEND);
	while (scan != NULL && claim->ndue < max &&
		   (row = fin_segment_next(scan)) != NULL)
	{
		Due		   *due;

		claim->due_rest[segment] = fin_segment_int64(row, FIN_MSG_DUE_AT);
		if (claim->due_rest[segment] > claim->now)
			break;
		due = &claim->due[claim->ndue++];
		due->msg_id = fin_segment_int64(row, FIN_MSG_ID);
		due->due_at = claim->due_rest[segment];
		due->segment = segment;
	}
	if (scan == NULL || (row == NULL && claim->ndue < max))
		claim->due_rest[segment] = FIN_NEVER;
	if (claim->due_rest[segment] > claim->now)
		claim->due_segments &= ~(1 << segment);
}

static void
gather_due(Claim *claim)
{
	claim->ndue = 0;
	claim->nextdue = 0;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((claim->due_segments & (1 << i)) != 0)
			gather_due_of(claim, i, claim->ndue + FIN_DUE_MAX);
	}
	if (claim->ndue > 1)
		qsort(claim->due, claim->ndue, sizeof(Due), compare_due);
}

static void
begin_due(Claim *claim)
{
	claim->due = palloc(sizeof(Due) * FIN_DUE_MAX * FIN_SEGMENTS);
	claim->due_segments = fin_backlog_used_segments(claim->tables.queue_id);
	for (int i = 0; i < FIN_SEGMENTS; i++)
		claim->due_rest[i] = (claim->due_segments & (1 << i)) != 0 ?
			DT_NOBEGIN : FIN_NEVER;
	gather_due(claim);
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

/* when so many are due that not all were gathered at first */
static void
take_rest_of_due(Claim *claim)
{
	while (claim->due_segments != 0 && claim->made < claim->wanted)
	{
		gather_due(claim);
		take_due_before(claim, PG_INT64_MAX);
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
	bool		is_fresh = last == FIN_BACKLOG_LAST(FIN_BACKLOG_RANK(last));
	int64		msg_id;
	int			segment;

	while ((segment = next_segment(claim, walk, &msg_id)) >= 0)
	{
		take_due_before(claim, msg_id);
		if (claim->made >= claim->wanted)
			return msg_id;
		consider(claim, segment, walk->heads[segment]);
		reached = msg_id + 1;
		/* what follows is for the next reader to find */
		if (is_fresh && claim->made >= claim->wanted)
		{
			walk->heads[segment] = NULL;
			return reached;
		}
		walk->heads[segment] =
			fin_segment_next(claim->tables.scans[segment][FIN_BY_ID]);
	}
	return is_fresh ? reached : last + 1;
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
	reached = walk_range(claim, &walk);
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

/* another reader may have looked in vain meanwhile, and be waiting now */
static void
give_back(Claim *claim, const FinRange *range)
{
	fin_backlog_give_back(claim->tables.queue_id, range);
	fin_wait_ring(claim->tables.queue_id, 1);
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
			give_back(claim, &walk.range);
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
		begin_due(claim);
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		if (claim->made >= claim->wanted || claim->tables.dropped)
			break;
		walk_rank(claim, rank, &i);
	}
	for (; claim->tells && i < claim->view.nranges; i++)
		give_back(claim, &claim->view.ranges[i]);
	if (asks_due)
	{
		take_rest_of_due(claim);
		tell_due(claim);
	}
}

/* ------------------------------------------------------------------------
 * claiming and counting
 * ------------------------------------------------------------------------
 */

/* tells the backlog of each claim, whoever made it */
static void
meet_leases(Claim *claim)
{
	fin_queue_tables_begin(&claim->tables, claim->config->queue_id,
						   RowExclusiveLock);
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		FinSegmentScan *scan = fin_queue_scan(&claim->tables, i, FIN_BY_ID);
		TupleTableSlot *row;

		if (scan == NULL)
			break;
		fin_segment_rescan(scan, 0, PG_INT64_MAX);
		while ((row = fin_segment_next(scan)) != NULL)
		{
			TimestampTz visible_at = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);

			if (visible_at > claim->now &&
				fin_segment_int64(row, FIN_MSG_DUE_AT) == 0)
				fin_backlog_met_lease(claim->config->queue_id,
									  fin_segment_int64(row, FIN_MSG_ID), i,
									  visible_at, true);
		}
	}
	fin_queue_tables_end(&claim->tables);
	fin_backlog_met_all_leases(claim->config->queue_id);
}

/* how many may be claimed */
static int
ask_limits(Claim *claim)
{
	const FinQueueConfig *config = claim->config;

	if (config->max_in_flight > 0 &&
		!fin_backlog_knows_leases(config->queue_id))
		meet_leases(claim);
	return fin_backlog_allow_claims(config->queue_id, claim->now,
									claim->wanted, config->max_in_flight,
									config->rate_limit);
}

/* returns false when the queue was dropped meanwhile */
static bool
claim_from(Claim *claim)
{
	const FinQueueConfig *config = claim->config;
	bool		limited = config->max_in_flight > 0 || config->rate_limit > 0;
	bool		dropped;

	if (limited)
		claim->wanted = ask_limits(claim);
	claim->tells = !IsolationUsesXactSnapshot();
	do
	{
		if (claim->wanted == 0)
			return true;
		/* the view before the snapshot: see backlog.c */
		fin_backlog_view(config->queue_id, claim->now, claim->tells,
						 &claim->view);
		claim->taken_by = InvalidTransactionId;
		fin_queue_tables_begin(&claim->tables, config->queue_id,
							   RowExclusiveLock);
		walk_all(claim);
		dropped = claim->tables.dropped;
		fin_queue_tables_end(&claim->tables);
		CHECK_FOR_INTERRUPTS();
	} while (claim->view.more && claim->made < claim->wanted && !dropped);
	if (limited && claim->made < claim->wanted)
		fin_backlog_claims_spared(config->queue_id,
								  claim->wanted - claim->made);
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
			claim->config = fin_queue_find_anew(tenant_id, queue_name);
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
	TimestampTz next_at;
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
	next_at = counts.next_at;
	/* what waits for nothing but the rate */
	if (claim->made > 0 && claim->config->rate_limit > 0)
		next_at = Min(next_at, fin_backlog_next_claim(queue_id, now,
													  claim->config->rate_limit));
	if (next_at != FIN_NEVER)
		waiting->next_at = waiting->next_at == 0 ? next_at :
			Min(waiting->next_at, next_at);
	pfree(claim);
	return !dropped;
}
