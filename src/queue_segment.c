/*
 * queue_segment.c
 *		The tables of a queue: finance.message_<queue_id>_<segment>.
 *
 * Rows are read and written through the table and index access methods,
 * without statements: starting one costs more than all that is done to a
 * message from its sending to its deletion.
 *
 * These tables are finance's own.  What a statement would do besides has no
 * part in them, and is refused where somebody brings it in: triggers, rules,
 * and indexes of other columns.  Indexes of the same columns are kept up, so
 * that REINDEX CONCURRENTLY works.
 *
 * Why several tables.  A row that was deleted cannot be vacuumed while some
 * transaction anywhere may still see it.  A table whose rows are all deleted
 * can be truncated at once.  So a queue writes into one segment until it is
 * full, and then into the next, while the worker empties the first.
 *
 * Owns: a hash from queue to the OIDs of its tables and indexes, of at most
 * FIN_SEGMENT_QUEUES_MAX queues; all go when it is full.  OIDs are believed
 * only under the table's lock.  Also slots for rows to be inserted, at most
 * FIN_SEGMENT_ROWS_AT_ONCE, which hold nothing between two calls, and the
 * places of FIN_SEGMENT_PLACES messages changed last.  A FinSegment lives in
 * the memory context that was current when it was opened; an ERROR leaves
 * closing to the transaction.
 *
 * Locks: ROW EXCLUSIVE on each table used, which keeps out DROP and TRUNCATE;
 * where a row was written or locked until the end of the transaction, else
 * until fin_segment_leave().  Take segments in ascending order.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_index.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "query.h"
#include "queue_parts.h"

#define FIN_SEGMENT_QUEUES_MAX	1024
#define FIN_SEGMENT_INDEXES_MAX	16	/* with those REINDEX is making */
#define FIN_SEGMENT_ROWS_AT_ONCE 256
#define PLACE_BITS		10
#define FIN_SEGMENT_PLACES	(1 << PLACE_BITS)

/* every claim writes a second version of the row: leave it room on the page */
#define SEGMENT_STORAGE " WITH (fillfactor = 50)"

/* for reading and for writing */
#define INDEX_LOCK			RowExclusiveLock

/* a table as it was when last looked at */
typedef struct Known
{
	Oid			relid;
	int			nindexes;
	Oid			indexes[FIN_SEGMENT_INDEXES_MAX];
	FinSegmentIndex kinds[FIN_SEGMENT_INDEXES_MAX];
} Known;

typedef struct KnownQueue
{
	int64		queue_id;		/* key */
	Known		segments[FIN_SEGMENTS];
} KnownQueue;

struct FinSegment
{
	int64		queue_id;
	int			number;
	LOCKMODE	mode;			/* that it was opened with */
	bool		touched;		/* rows were written or locked */
	Relation	table;
	Known		known;
	Relation	open[FIN_SEGMENT_INDEXES_MAX];	/* NULL until needed */
	TupleTableSlot *changed;	/* for updating, NULL until needed */
	TupleTableSlot *fetched;	/* for fin_segment_fetch(), the same */
	BlockNumber npages;			/* it has at least so many */
};

/*
 * How a row begins in its table, as no column among these is null; columns
 * that claims change are changed in a copy of the row, not by making it anew
 * of all its columns.
 */
typedef struct Head
{
	int64		msg_id;
	int64		message_id;
	int64		queue_id;
	TimestampTz enqueued_at;
	TimestampTz visible_at;
	int32		tenant_id;
	int32		read_ct;
	int16		priority;
	int16		segment;
} Head;

#define HEAD_COLUMNS	(FIN_MSG_SEGMENT + 1)

struct FinSegmentScan
{
	FinSegmentIndex which;
	IndexScanDesc scan;
	TupleTableSlot *row;
};

struct FinSegmentRows
{
	TableScanDesc scan;
	TupleTableSlot *row;
};

/*
 * Where this session put a message when it changed it: who deletes it later is
 * mostly who has read it.  A hint; rows move and go.
 */
typedef struct Place
{
	int64		queue_id;		/* 0: free */
	int64		msg_id;
	ItemPointerData tid;
	int16		segment;
} Place;

/* the columns of each kind of index */
static const struct
{
	int			ncolumns;
	AttrNumber	columns[2];
	const char *definition;
}			shapes[FIN_SEGMENT_INDEXES] =
{
	[FIN_BY_ID] = {1, {FIN_MSG_ID + 1}, NULL},
	[FIN_BY_DUE] = {1, {FIN_MSG_DUE_AT + 1},
	"(due_at) WHERE due_at IS NOT NULL"},
	[FIN_BY_EXPIRY] = {1, {FIN_MSG_EXPIRES_AT + 1},
	"(expires_at) WHERE expires_at IS NOT NULL"},
	[FIN_BY_KEY] = {2, {FIN_MSG_ORDERING_KEY + 1, FIN_MSG_MESSAGE_ID + 1},
	"(ordering_key, message_id) WHERE ordering_key IS NOT NULL"},
};

static HTAB *known_queues = NULL;

static Place places[FIN_SEGMENT_PLACES];

static MemoryContext spare_slots_context = NULL;
static TupleDesc spare_slots_desc;
static TupleTableSlot **spare_slots = NULL;
static int	nspare_slots = 0;
static bool spare_slots_clean;

/* ------------------------------------------------------------------------
 * making and dropping
 * ------------------------------------------------------------------------
 */

static void
make_one(int64 queue_id, int segment, bool unlogged)
{
	char	   *name = psprintf("finance.message_" INT64_FORMAT "_%d",
								queue_id, segment);

	fin_query_utility(psprintf("CREATE %s TABLE %s (LIKE finance.message"
							   " INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
							   " INCLUDING STORAGE, PRIMARY KEY (msg_id))"
							   SEGMENT_STORAGE,
							   unlogged ? "UNLOGGED" : "", name));
	for (int i = FIN_BY_DUE; i < FIN_SEGMENT_INDEXES; i++)
		fin_query_utility(psprintf("CREATE INDEX ON %s %s", name,
								   shapes[i].definition));
	fin_query_utility(psprintf("ALTER TABLE finance.message ATTACH PARTITION %s"
							   " FOR VALUES FROM (" INT64_FORMAT ", %d)"
							   " TO (" INT64_FORMAT ", %d)",
							   name, queue_id, segment, queue_id, segment + 1));

	/* without a policy of its own: rows are seen through the parent only */
	fin_query_utility(psprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY",
							   name));
}

void
fin_segment_make(int64 queue_id, bool unlogged)
{
	for (int i = 0; i < FIN_SEGMENTS; i++)
		make_one(queue_id, i, unlogged);
}

void
fin_segment_drop(int64 queue_id)
{
	for (int i = 0; i < FIN_SEGMENTS; i++)
		fin_query_utility(psprintf("DROP TABLE finance.message_" INT64_FORMAT
								   "_%d", queue_id, i));
}

/* ------------------------------------------------------------------------
 * opening
 * ------------------------------------------------------------------------
 */

static Known *
known_segment(int64 queue_id, int segment)
{
	HASHCTL		control = {
		.keysize = sizeof(int64),
		.entrysize = sizeof(KnownQueue),
		.hcxt = TopMemoryContext
	};
	KnownQueue *entry;
	bool		found;

	if (known_queues != NULL &&
		hash_get_num_entries(known_queues) >= FIN_SEGMENT_QUEUES_MAX &&
		hash_search(known_queues, &queue_id, HASH_FIND, NULL) == NULL)
	{
		hash_destroy(known_queues);
		known_queues = NULL;
	}
	if (known_queues == NULL)
		known_queues = hash_create("finance segments", 64, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	entry = hash_search(known_queues, &queue_id, HASH_ENTER, &found);
	if (!found)
		memset(entry->segments, 0, sizeof(entry->segments));
	return &entry->segments[segment];
}

/* locks by an OID that may be of a table that is gone; false if so */
static bool
lock_table(Oid relid, LOCKMODE mode, bool wait, bool *locked)
{
	*locked = true;
	if (wait)
		LockRelationOid(relid, mode);
	else if (!ConditionalLockRelationOid(relid, mode))
	{
		*locked = false;
		return true;
	}
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return true;
	UnlockRelationOid(relid, mode);
	return false;
}

static FinSegmentIndex
kind_of(Relation table, Oid relid)
{
	Relation	index = index_open(relid, AccessShareLock);
	Form_pg_index form = index->rd_index;
	int			kind = 0;

	while (kind < FIN_SEGMENT_INDEXES &&
		   (form->indnkeyatts != shapes[kind].ncolumns ||
			memcmp(form->indkey.values, shapes[kind].columns,
				   sizeof(AttrNumber) * form->indnkeyatts) != 0))
		kind++;
	if (kind == FIN_SEGMENT_INDEXES)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("index \"%s\" of finance.%s is not one of finance",
					   RelationGetRelationName(index),
					   RelationGetRelationName(table)),
				errhint("Drop it: messages are found by the indexes of finance."));
	index_close(index, AccessShareLock);
	return kind;
}

/* has the table the indexes it had when it was looked at? */
static bool
has_indexes(const Known *known, const List *indexes)
{
	ListCell   *cell;
	int			i = 0;

	if (list_length(indexes) != known->nindexes)
		return false;
	foreach(cell, indexes)
	{
		if (lfirst_oid(cell) != known->indexes[i++])
			return false;
	}
	return true;
}

static void
look_at_indexes(Known *known, Relation table)
{
	List	   *indexes = RelationGetIndexList(table);
	ListCell   *cell;

	if (!has_indexes(known, indexes))
	{
		known->nindexes = 0;
		if (list_length(indexes) > FIN_SEGMENT_INDEXES_MAX)
			elog(ERROR, "finance.%s has %d indexes",
				 RelationGetRelationName(table), list_length(indexes));
		foreach(cell, indexes)
		{
			known->kinds[known->nindexes] = kind_of(table, lfirst_oid(cell));
			known->indexes[known->nindexes++] = lfirst_oid(cell);
		}
	}
	list_free(indexes);
}

static void
refuse_triggers(Relation table)
{
	if (table->trigdesc == NULL && table->rd_rules == NULL)
		return;
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("finance.%s has triggers or rules",
				   RelationGetRelationName(table)),
			errdetail("Messages are written without statements, which would not fire them."),
			errhint("Drop them; bind a queue of its own to what is to be observed."));
}

static bool
is_laid_out(TupleDesc desc)
{
	static const int16 lengths[HEAD_COLUMNS] = {8, 8, 8, 8, 8, 4, 4, 2, 2};

	if (desc->natts != FIN_MSG_COLUMNS)
		return false;
	for (int i = 0; i < HEAD_COLUMNS; i++)
	{
		if (TupleDescAttr(desc, i)->attlen != lengths[i])
			return false;
	}
	return true;
}

static void
refuse_other_columns(Relation table)
{
	if (is_laid_out(RelationGetDescr(table)))
		return;
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("finance.%s has columns that are not of finance",
				   RelationGetRelationName(table)),
			errhint("Put what belongs to a message into its headers."));
}

/* a segment that is locked in some mode */
static FinSegment *
open_locked(Known *known, int64 queue_id, int number, LOCKMODE mode)
{
	FinSegment *segment = palloc0(sizeof(FinSegment));

	segment->queue_id = queue_id;
	segment->number = number;
	segment->mode = mode;
	segment->table = table_open(known->relid, NoLock);
	refuse_triggers(segment->table);
	refuse_other_columns(segment->table);
	look_at_indexes(known, segment->table);
	segment->known = *known;
	return segment;
}

static FinSegment *
open_segment(int64 queue_id, int number, LOCKMODE mode, bool wait,
			 bool *dropped)
{
	Known	   *known = known_segment(queue_id, number);
	bool		locked;

	*dropped = false;
	for (int attempt = 0; attempt < 2; attempt++)
	{
		if (OidIsValid(known->relid) &&
			lock_table(known->relid, mode, wait, &locked))
			return locked ? open_locked(known, queue_id, number, mode) : NULL;
		known->nindexes = 0;
		known->relid = fin_query_relation(psprintf("message_" INT64_FORMAT "_%d",
												   queue_id, number));
	}
	*dropped = true;
	return NULL;
}

FinSegment *
fin_segment_open(int64 queue_id, int number, LOCKMODE mode)
{
	bool		dropped;

	if (mode >= RowExclusiveLock)
	{
		PreventCommandIfReadOnly("INSERT");
		PreventCommandIfParallelMode("INSERT");
	}
	return open_segment(queue_id, number, mode, true, &dropped);
}

FinSegment *
fin_segment_open_free(int64 queue_id, int number, LOCKMODE mode, bool *dropped)
{
	return open_segment(queue_id, number, mode, false, dropped);
}

int
fin_segment_number(const FinSegment *segment)
{
	return segment->number;
}

static void
close_segment(FinSegment *segment, bool unlock)
{
	for (int i = 0; i < segment->known.nindexes; i++)
	{
		if (segment->open[i] != NULL)
			index_close(segment->open[i], unlock ? INDEX_LOCK : NoLock);
	}
	if (segment->changed != NULL)
		ExecDropSingleTupleTableSlot(segment->changed);
	if (segment->fetched != NULL)
		ExecDropSingleTupleTableSlot(segment->fetched);
	table_close(segment->table, unlock ? segment->mode : NoLock);
	pfree(segment);
}

void
fin_segment_close(FinSegment *segment)
{
	close_segment(segment, false);
}

/*
 * The lock keeps out the worker, who truncates, and DROP.  Others who read and
 * write were never kept out.  So what was seen here, and decided by it, is not
 * made untrue by giving the lock back: the worker writes each message that is
 * left again as it was, under the same id into the same segment; and nobody is
 * changing one, or he would have the table locked and the worker not get it.
 * A lock that this transaction has from before it keeps: locks are counted.
 */
void
fin_segment_leave(FinSegment *segment)
{
	close_segment(segment, !segment->touched);
}

bool
fin_segment_has_pages(const FinSegment *segment)
{
	return RelationGetNumberOfBlocks(segment->table) > 0;
}

static Relation
index_of(FinSegment *segment, int i)
{
	if (segment->open[i] == NULL)
		segment->open[i] = index_open(segment->known.indexes[i], INDEX_LOCK);
	return segment->open[i];
}

/* ------------------------------------------------------------------------
 * writing
 * ------------------------------------------------------------------------
 */

/* the entry of a row in one index; none in a partial one if its column is null */
static void
insert_entry(FinSegment *segment, int i, Datum *row, const bool *isnull,
			 ItemPointer tid)
{
	FinSegmentIndex kind = segment->known.kinds[i];
	Relation	index;
	Datum		values[2];
	bool		nulls[2];
	static IndexInfo *info = NULL;	/* B-trees look at none of it */

	for (int k = 0; k < shapes[kind].ncolumns; k++)
	{
		values[k] = row[shapes[kind].columns[k] - 1];
		nulls[k] = isnull[shapes[kind].columns[k] - 1];
	}
	if (nulls[0])
		return;
	if (info == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		info = makeNode(IndexInfo);
		MemoryContextSwitchTo(old);
	}
	index = index_of(segment, i);
	if (!index->rd_index->indisready)
		return;
	(void) index_insert(index, values, nulls, tid, segment->table,
						index->rd_index->indisunique ?
						UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
						false, info);
}

static void
insert_entries(FinSegment *segment, Datum *row, const bool *isnull,
			   ItemPointer tid)
{
	for (int i = 0; i < segment->known.nindexes; i++)
		insert_entry(segment, i, row, isnull, tid);
}

static void
insert_slot_entries(FinSegment *segment, TupleTableSlot *row)
{
	slot_getallattrs(row);
	insert_entries(segment, row->tts_values, row->tts_isnull, &row->tts_tid);
}

/*
 * Slots for rows to be inserted; all segments are alike.  They are kept for
 * the next time, with nothing in them, unless an error got in between.
 */
static TupleTableSlot **
borrow_slots(Relation table, int n)
{
	if (spare_slots == NULL || !spare_slots_clean)
	{
		MemoryContext old;

		if (spare_slots_context != NULL)
			MemoryContextDelete(spare_slots_context);
		spare_slots = NULL;
		nspare_slots = 0;
		spare_slots_context = AllocSetContextCreate(TopMemoryContext,
													"finance messages",
													ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(spare_slots_context);
		spare_slots_desc = CreateTupleDescCopy(RelationGetDescr(table));
		spare_slots = palloc(FIN_SEGMENT_ROWS_AT_ONCE *
							 sizeof(TupleTableSlot *));
		MemoryContextSwitchTo(old);
	}
	spare_slots_clean = false;
	for (; nspare_slots < n; nspare_slots++)
	{
		MemoryContext old = MemoryContextSwitchTo(spare_slots_context);

		spare_slots[nspare_slots] = MakeTupleTableSlot(spare_slots_desc,
													   table_slot_callbacks(table));
		MemoryContextSwitchTo(old);
	}
	return spare_slots;
}

static void
return_slots(int n)
{
	for (int i = 0; i < n; i++)
		ExecClearTuple(spare_slots[i]);
	spare_slots_clean = true;
}

/*
 * One WAL record per page, not per row.  Only the insertion of a single row can
 * be kept from logical decoding, though.
 */
static void
write_some(Relation table, TupleTableSlot **rows, int n, int options)
{
	CommandId	command = GetCurrentCommandId(true);

	if (!RelationIsLogicallyLogged(table))
		options &= ~TABLE_INSERT_NO_LOGICAL;
	if (n > 1 && (options & TABLE_INSERT_NO_LOGICAL) == 0)
	{
		table_multi_insert(table, rows, n, command, options, NULL);
		return;
	}
	for (int i = 0; i < n; i++)
		table_tuple_insert(table, rows[i], command, options, NULL);
}

/* at most FIN_SEGMENT_ROWS_AT_ONCE */
static void
insert_some(FinSegment *segment, Datum *const *values, bool *const *nulls,
			int n, int options)
{
	TupleTableSlot **rows = borrow_slots(segment->table, n);

	for (int i = 0; i < n; i++)
	{
		values[i][FIN_MSG_SEGMENT] = Int16GetDatum(segment->number);
		memcpy(rows[i]->tts_values, values[i],
			   sizeof(Datum) * FIN_MSG_COLUMNS);
		memcpy(rows[i]->tts_isnull, nulls[i], sizeof(bool) * FIN_MSG_COLUMNS);
		ExecStoreVirtualTuple(rows[i]);
	}
	write_some(segment->table, rows, n, options);
	for (int i = 0; i < n; i++)
		insert_entries(segment, values[i], nulls[i], &rows[i]->tts_tid);
	return_slots(n);
}

static void
insert_rows(FinSegment *segment, Datum *const *values, bool *const *nulls,
			int n, int options)
{
	segment->touched = true;
	for (int done = 0; done < n; done += FIN_SEGMENT_ROWS_AT_ONCE)
	{
		CHECK_FOR_INTERRUPTS();
		insert_some(segment, values + done, nulls + done,
					Min(n - done, FIN_SEGMENT_ROWS_AT_ONCE), options);
	}
}

void
fin_segment_insert(FinSegment *segment, Datum *const *values,
				   bool *const *nulls, int n)
{
	insert_rows(segment, values, nulls, n, 0);
}

void
fin_segment_empty(FinSegment *segment, int64 queue_id, Datum *const *values,
				  bool *const *nulls, int n)
{
	int			number = segment->number;
	char	   *command = psprintf("TRUNCATE finance.%s",
								   RelationGetRelationName(segment->table));

	fin_segment_close(segment);
	fin_query_utility(command);
	if (n == 0)
		return;
	segment = fin_segment_open(queue_id, number, AccessExclusiveLock);
	if (segment == NULL)
		elog(ERROR, "queue " INT64_FORMAT " is gone although it is locked",
			 queue_id);
	insert_rows(segment, values, nulls, n,
				TABLE_INSERT_FROZEN | TABLE_INSERT_NO_LOGICAL);
	fin_segment_close(segment);
}

bool
fin_segment_lock(FinSegment *segment, TupleTableSlot *row, Snapshot snapshot,
				 bool wait)
{
	ItemPointerData tid = row->tts_tid;
	TM_FailureData failure;

	if (table_tuple_lock(segment->table, &tid, snapshot, row,
						 GetCurrentCommandId(true), LockTupleNoKeyExclusive,
						 wait ? LockWaitBlock : LockWaitSkip, 0,
						 &failure) != TM_Ok)
		return false;
	segment->touched = true;
	return true;
}

bool
fin_segment_is_own(TupleTableSlot *row)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(row, false, NULL);

	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
}

bool
fin_segment_is_only_locked(TupleTableSlot *row)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(row, false, NULL);

	return (tuple->t_data->t_infomask & HEAP_XMAX_INVALID) != 0 ||
		HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_data->t_infomask);
}

/*
 * Locking such a row would fail as well, but takes several locks to find out.
 * Who changes one, changes many: the process table is asked once for all.  The
 * page is locked, or who only locks the row might look like who changes it.
 */
bool
fin_segment_is_taken(TupleTableSlot *row, TransactionId *by)
{
	HeapTupleHeader tuple = ExecFetchSlotHeapTuple(row, false, NULL)->t_data;
	Buffer		page = ((BufferHeapTupleTableSlot *) row)->buffer;
	TransactionId xmax = InvalidTransactionId;

	LockBuffer(page, BUFFER_LOCK_SHARE);
	if ((tuple->t_infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI)) == 0 &&
		!HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask))
		xmax = HeapTupleHeaderGetRawXmax(tuple);
	LockBuffer(page, BUFFER_LOCK_UNLOCK);
	if (!TransactionIdIsValid(xmax))
		return false;
	if (TransactionIdEquals(xmax, *by))
		return true;
	if (TransactionIdIsCurrentTransactionId(xmax) ||
		!TransactionIdIsInProgress(xmax))
		return false;
	*by = xmax;
	return true;
}

static Place *
place_of(int64 queue_id, int64 msg_id)
{
	/* ids of a batch follow each other: this spreads them well */
	uint64		hash = ((uint64) msg_id ^ (uint64) queue_id) *
		UINT64CONST(0x9E3779B97F4A7C15);

	return &places[hash >> (64 - PLACE_BITS)];
}

static void
remember_place(const FinSegment *segment, int64 msg_id, ItemPointer tid)
{
	Place	   *place = place_of(segment->queue_id, msg_id);

	place->queue_id = segment->queue_id;
	place->msg_id = msg_id;
	place->tid = *tid;
	place->segment = segment->number;
}

int
fin_segment_where(int64 queue_id, int64 msg_id)
{
	const Place *place = place_of(queue_id, msg_id);

	return place->queue_id == queue_id && place->msg_id == msg_id ?
		place->segment : -1;
}

/*
 * The page may be gone, as VACUUM and TRUNCATE take pages away, but not while
 * the table is locked; and another row may be there now.
 */
TupleTableSlot *
fin_segment_fetch(FinSegment *segment, int64 msg_id, Snapshot snapshot)
{
	Place	   *place = place_of(segment->queue_id, msg_id);
	BlockNumber page = ItemPointerGetBlockNumber(&place->tid);

	if (page >= segment->npages)
		segment->npages = RelationGetNumberOfBlocks(segment->table);
	if (page >= segment->npages)
		return NULL;
	if (segment->fetched == NULL)
		segment->fetched = table_slot_create(segment->table, NULL);
	if (!table_tuple_fetch_row_version(segment->table, &place->tid, snapshot,
									   segment->fetched) ||
		fin_segment_int64(segment->fetched, FIN_MSG_ID) != msg_id)
		return NULL;
	return segment->fetched;
}

void
fin_segment_update(FinSegment *segment, TupleTableSlot *row,
				   const int *columns, int n, const Datum *values,
				   const bool *nulls)
{
	TupleTableSlot *changed;
	bool		only_summarizing;

	segment->touched = true;
	if (segment->changed == NULL)
		segment->changed = table_slot_create(segment->table, NULL);
	changed = segment->changed;
	slot_getallattrs(row);
	memcpy(changed->tts_values, row->tts_values,
		   sizeof(Datum) * FIN_MSG_COLUMNS);
	memcpy(changed->tts_isnull, row->tts_isnull,
		   sizeof(bool) * FIN_MSG_COLUMNS);
	for (int i = 0; i < n; i++)
	{
		changed->tts_values[columns[i]] = values[i];
		changed->tts_isnull[columns[i]] = nulls != NULL && nulls[i];
	}
	ExecStoreVirtualTuple(changed);
	if (fin_compat_update_tuple(segment->table, &row->tts_tid, changed,
								&only_summarizing))
		insert_slot_entries(segment, changed);
	remember_place(segment, fin_segment_int64(row, FIN_MSG_ID),
				   &changed->tts_tid);
	ExecClearTuple(changed);
}

/* the head of a row, or NULL when it has none */
static Head *
head_of(HeapTuple tuple)
{
	for (int i = 0; HeapTupleHasNulls(tuple) && i < HEAD_COLUMNS; i++)
	{
		if (att_isnull(i, tuple->t_data->t_bits))
			return NULL;
	}
	return (Head *) GETSTRUCT(tuple);
}

/*
 * An update that does not wait needs no lock on the row before it.  Where
 * somebody has or had it this is not tried: most often it is in vain.
 */
static bool
may_claim(HeapTuple tuple)
{
#ifdef USE_ASSERT_CHECKING
	/* heap_update() asserts that its callers wait, though it can do without */
	return false;
#else
	return (tuple->t_data->t_infomask & HEAP_XMAX_INVALID) != 0;
#endif
}

bool
fin_segment_claim(FinSegment *segment, TupleTableSlot *row, Snapshot snapshot,
				  TimestampTz visible_at, int read_ct)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(row, false, NULL);
	TupleTableSlot *changed;
	TM_Result	result;
	bool		entries = false;
	Head	   *head;

	if (!may_claim(tuple) || head_of(tuple) == NULL)
		return false;
	if (segment->changed == NULL)
		segment->changed = table_slot_create(segment->table, NULL);
	changed = segment->changed;
	ExecForceStoreHeapTuple(tuple, changed, false);
	segment->touched = true;
	head = head_of(ExecFetchSlotHeapTuple(changed, true, NULL));
	head->visible_at = visible_at;
	head->read_ct = read_ct;
	result = fin_compat_try_update_tuple(segment->table, &row->tts_tid,
										 changed, snapshot, &entries);
	if (entries)
		insert_slot_entries(segment, changed);
	if (result == TM_Ok)
		remember_place(segment, head->msg_id, &changed->tts_tid);
	ExecClearTuple(changed);
	return result == TM_Ok;
}

FinSegmentDelete
fin_segment_delete(FinSegment *segment, TupleTableSlot *row,
				   Snapshot snapshot, bool wait)
{
	TM_FailureData failure;
	TM_Result	result = table_tuple_delete(segment->table, &row->tts_tid,
											GetCurrentCommandId(true),
											snapshot, InvalidSnapshot, wait,
											&failure, false);

	switch (result)
	{
		case TM_Ok:
			segment->touched = true;
			return FIN_DELETED;
		case TM_BeingModified:
		case TM_WouldBlock:
			return FIN_DELETE_LOCKED;
		default:
			return FIN_DELETE_CHANGED;
	}
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------
 */

FinSegmentScan *
fin_segment_scan(FinSegment *segment, FinSegmentIndex which,
				 Snapshot snapshot)
{
	FinSegmentScan *scan = palloc0(sizeof(FinSegmentScan));
	int			i = 0;

	while (i < segment->known.nindexes &&
		   (segment->known.kinds[i] != which ||
			!index_of(segment, i)->rd_index->indisvalid))
		i++;
	if (i == segment->known.nindexes)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("finance.%s has lost an index",
					   RelationGetRelationName(segment->table)),
				which == FIN_BY_ID ?
				errhint("Add the primary key (msg_id) to it.") :
				errhint("Create an index on it %s.", shapes[which].definition));
	scan->which = which;
	scan->scan = fin_compat_index_beginscan(segment->table,
											index_of(segment, i), snapshot, 2);
	scan->row = table_slot_create(segment->table, NULL);
	return scan;
}

void
fin_segment_rescan(FinSegmentScan *scan, int64 first, int64 last)
{
	ScanKeyData keys[2];
	bool		is_id = scan->which == FIN_BY_ID;

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber,
				is_id ? F_INT8GE : F_TIMESTAMPTZ_GE, Int64GetDatum(first));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber,
				is_id ? F_INT8LE : F_TIMESTAMPTZ_LE, Int64GetDatum(last));
	index_rescan(scan->scan, keys, 2, NULL, 0);
}

void
fin_segment_rescan_key(FinSegmentScan *scan, Datum ordering_key, int64 first)
{
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, ordering_key);
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(first));
	index_rescan(scan->scan, keys, 2, NULL, 0);
}

TupleTableSlot *
fin_segment_next(FinSegmentScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	if (!index_getnext_slot(scan->scan, ForwardScanDirection, scan->row))
		return NULL;
	return scan->row;
}

TupleTableSlot *
fin_segment_last(FinSegmentScan *scan)
{
	if (!index_getnext_slot(scan->scan, BackwardScanDirection, scan->row))
		return NULL;
	return scan->row;
}

/*
 * Row by row, not page by page: that would prune each page first, which is in
 * vain for a table that is about to be truncated.
 */
FinSegmentRows *
fin_segment_rows(FinSegment *segment, Snapshot snapshot)
{
	FinSegmentRows *rows = palloc(sizeof(FinSegmentRows));

	rows->scan = segment->table->rd_tableam->scan_begin(segment->table,
														snapshot, 0, NULL,
														NULL,
														SO_TYPE_SEQSCAN |
														SO_ALLOW_STRAT);
	rows->row = table_slot_create(segment->table, NULL);
	return rows;
}

TupleTableSlot *
fin_segment_next_row(FinSegmentRows *rows)
{
	CHECK_FOR_INTERRUPTS();
	return table_scan_getnextslot(rows->scan, ForwardScanDirection,
								  rows->row) ? rows->row : NULL;
}

void
fin_segment_end_rows(FinSegmentRows *rows)
{
	table_endscan(rows->scan);
	ExecDropSingleTupleTableSlot(rows->row);
	pfree(rows);
}

int64
fin_segment_count(FinSegment *segment, Snapshot snapshot, TimestampTz now,
				  int64 *visible)
{
	TableScanDesc scan = table_beginscan(segment->table, snapshot, 0, NULL);
	TupleTableSlot *row = table_slot_create(segment->table, NULL);
	int64		n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		CHECK_FOR_INTERRUPTS();
		n++;
		if (fin_segment_int64(row, FIN_MSG_VISIBLE_AT) <= now)
			(*visible)++;
	}
	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
	return n;
}

void
fin_segment_end_scan(FinSegmentScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->row);
	pfree(scan);
}

void
fin_segment_copy(TupleTableSlot *row, Datum **values, bool **nulls)
{
	TupleDesc	desc = row->tts_tupleDescriptor;

	slot_getallattrs(row);
	*values = palloc(sizeof(Datum) * desc->natts);
	*nulls = palloc(sizeof(bool) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		(*nulls)[i] = row->tts_isnull[i];
		if (row->tts_isnull[i])
			(*values)[i] = (Datum) 0;
		else if (column->attlen == -1)
			(*values)[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(row->tts_values[i]));
		else
			(*values)[i] = row->tts_values[i];
	}
}

Datum
fin_segment_value(TupleTableSlot *row, int column, bool *isnull)
{
	return slot_getattr(row, column + 1, isnull);
}

int64
fin_segment_int64(TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(row, column + 1, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}
