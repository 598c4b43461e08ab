/*
 * store_direct.c
 *		Rows written through the table access method, without a statement.
 *
 * Starting a statement costs several times what writing its one row does.
 * Here one row costs a tuple, its index entries and its WAL; looking one up
 * where it was before, a page.
 *
 * Owns nothing between calls: a FinDirect lives in the query scope's memory,
 * its relations are closed at the end and their locks (ROW EXCLUSIVE, on the
 * parent before the partition, as a statement takes them) kept to the end of
 * the transaction.  An ERROR leaves the clean-up to the transaction.  Per
 * backend: which partitions were found to be laid out as they should.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "query.h"
#include "settings.h"
#include "store_direct.h"

/* rows gathered before they are written */
#define FIN_DIRECT_ROWS_MAX 64

/* a page with less room than this is tidied before its rows are looked at */
#define SEEK_ROOM	(BLCKSZ / 8)

struct FinDirect
{
	FinPartitioned which;
	const Oid  *types;
	int			ncolumns;
	Oid			parent;			/* of the partitions */
	Relation	table;			/* written to; NULL before the first row */
	EState	   *estate;
	ResultRelInfo *info;
	TupleTableSlot *slot;		/* the new row */
	TupleTableSlot *gathered[FIN_DIRECT_ROWS_MAX];	/* appended, not written */
	int			ngathered;
	int			nslots;			/* of gathered, made so far */
	TupleTableSlot *old_slot;	/* the row it replaces */
	bool		indexes_open;
	Relation	lock_index;		/* when locking or looking up: the index, */
	IndexScanDesc lock_scan;	/* a scan of it under an active snapshot, */
	int			lock_keys;		/* and its columns */
	bool		probes;			/* with this snapshot instead */
	SnapshotData dirty;
	ItemPointerData root;		/* of the row found last */
	bool		seeks;			/* under an active snapshot */
	HeapTupleData sought;
};

/* triggers whose work is done here in another way */
static const char *const own_triggers[] = {"guard", "totals_valid"};

static bool
is_own_trigger(const Trigger *trigger)
{
	for (int i = 0; i < (int) lengthof(own_triggers); i++)
	{
		if (strcmp(trigger->tgname, own_triggers[i]) == 0)
			return true;
	}
	return false;
}

/* is there a trigger of somebody else for the event, or a rule? */
static bool
has_other_triggers(Relation table, int16 event)
{
	TriggerDesc *triggers = table->trigdesc;

	if (table->rd_rules != NULL)
		return true;
	if (triggers == NULL)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		if ((triggers->triggers[i].tgtype & event) != 0 &&
			!is_own_trigger(&triggers->triggers[i]))
			return true;
	}
	return false;
}

/* is the table laid out as the caller will fill it? */
static bool
has_columns(Relation table, const Oid *types, int columns)
{
	TupleDesc	desc = RelationGetDescr(table);

	if (desc->natts != columns)
		return false;
	for (int i = 0; i < columns; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || column->attgenerated != '\0' ||
			(types != NULL && OidIsValid(types[i]) &&
			 column->atttypid != types[i]))
			return false;
	}
	return true;
}

/* a partition may have its columns in another order than its parent */
static bool
has_layout_of(Relation table, Relation parent)
{
	TupleDesc	desc = RelationGetDescr(table);
	TupleDesc	wanted = RelationGetDescr(parent);

	if (desc->natts != wanted->natts)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname),
				   NameStr(TupleDescAttr(wanted, i)->attname)) != 0)
			return false;
	}
	return true;
}

bool
fin_direct_has_layout(Relation table, Relation parent, const Oid *types,
					  int columns)
{
	return table->rd_rel->relkind == RELKIND_RELATION &&
		has_columns(table, types, columns) && has_layout_of(table, parent);
}

/* what the executor refuses before it writes, we refuse */
static void
check_may_write(const char *command)
{
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
}

static void
open_table(FinDirect *direct, Relation table)
{
	direct->table = table;
	direct->info = makeNode(ResultRelInfo);
	InitResultRelInfo(direct->info, table, 0, NULL, 0);
	direct->slot = table_slot_create(table, NULL);
	direct->indexes_open = false;
}

static void
close_table(FinDirect *direct)
{
	if (direct->table == NULL)
		return;
	ExecDropSingleTupleTableSlot(direct->slot);
	for (int i = 0; i < direct->nslots; i++)
		ExecDropSingleTupleTableSlot(direct->gathered[i]);
	direct->nslots = 0;
	if (direct->old_slot != NULL)
		ExecDropSingleTupleTableSlot(direct->old_slot);
	direct->old_slot = NULL;
	if (direct->indexes_open)
		ExecCloseIndices(direct->info);
	table_close(direct->table, NoLock);
	direct->table = NULL;
}

/* an update that stays on its page needs none */
static EState *
estate_of(FinDirect *direct)
{
	MemoryContext old;

	if (direct->estate != NULL)
		return direct->estate;
	old = MemoryContextSwitchTo(GetMemoryChunkContext(direct));
	direct->estate = CreateExecutorState();
	MemoryContextSwitchTo(old);
	return direct->estate;
}

static void
insert_index_entries(FinDirect *direct, TupleTableSlot *slot,
					 bool only_summarizing)
{
	EState	   *estate = estate_of(direct);

	if (!direct->indexes_open)
		ExecOpenIndices(direct->info, false);
	direct->indexes_open = true;
	if (direct->info->ri_NumIndices > 0)
		fin_compat_insert_index_tuples(direct->info, slot, estate,
									   only_summarizing);
	ResetPerTupleExprContext(estate);
}

/* no column of a row that is updated becomes null, so NOT NULL holds */
static void
check_updated(FinDirect *direct, TupleTableSlot *slot)
{
	const TupleConstr *constraints = RelationGetDescr(direct->table)->constr;

	if (constraints != NULL && constraints->num_check > 0)
		ExecConstraints(direct->info, slot, estate_of(direct));
}

/* many rows at once: one WAL record for each page, not for each row */
static void
write_gathered(FinDirect *direct)
{
	CommandId	command;
	int			n = direct->ngathered;

	if (n == 0)
		return;
	direct->ngathered = 0;
	command = GetCurrentCommandId(true);
	if (n == 1)
		table_tuple_insert(direct->table, direct->gathered[0], command, 0, NULL);
	else
		table_multi_insert(direct->table, direct->gathered, n, command, 0, NULL);
	for (int i = 0; i < n; i++)
	{
		insert_index_entries(direct, direct->gathered[i], false);
		ExecClearTuple(direct->gathered[i]);
	}
}

/* a row as the caller gives it, checked */
static void
fill_slot(FinDirect *direct, TupleTableSlot *slot, const Datum *values,
		  const bool *nulls)
{
	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, sizeof(Datum) * direct->ncolumns);
	memcpy(slot->tts_isnull, nulls, sizeof(bool) * direct->ncolumns);
	ExecStoreVirtualTuple(slot);
	ExecConstraints(direct->info, slot, direct->estate);
}

static void
gather_row(FinDirect *direct, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot;

	if (direct->ngathered == FIN_DIRECT_ROWS_MAX)
		write_gathered(direct);
	if (direct->ngathered == direct->nslots)
		direct->gathered[direct->nslots++] = table_slot_create(direct->table,
															   NULL);
	slot = direct->gathered[direct->ngathered];
	fill_slot(direct, slot, values, nulls);
	/* the caller's values may be gone when it is written */
	ExecMaterializeSlot(slot);
	direct->ngathered++;
}

FinDirect *
fin_direct_begin_append(FinPartitioned which, const Oid *types, int columns)
{
	FinDirect  *direct;

	if (!fin_direct_writes)
		return NULL;
	check_may_write("INSERT");
	direct = palloc0(sizeof(FinDirect));
	direct->which = which;
	direct->types = types;
	direct->ncolumns = columns;
	direct->parent = fin_query_relation(fin_partition_parent(which));
	direct->estate = CreateExecutorState();
	/* with this lock held, no partition of it is detached under us */
	LockRelationOid(direct->parent, RowExclusiveLock);
	return direct;
}

/*
 * Partitions that were found to be ours to append to, so that their columns are
 * not compared for every row; forgotten when they or their parents change.
 */
typedef struct KnownPartition
{
	Oid			parent;
	Oid			child;			/* InvalidOid: none known */
} KnownPartition;

static KnownPartition known_partitions[FIN_PARTITIONED_TABLES];

static void
table_changed(Datum arg, Oid relid)
{
	for (int i = 0; i < FIN_PARTITIONED_TABLES; i++)
	{
		KnownPartition *known = &known_partitions[i];

		if (!OidIsValid(relid) || relid == known->parent || relid == known->child)
			known->child = InvalidOid;
	}
}

void
fin_direct_init(void)
{
	CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
}

static bool
is_ours_to_append(const FinDirect *direct, Relation table)
{
	return !has_other_triggers(table, TRIGGER_TYPE_INSERT) &&
		has_columns(table, direct->types, direct->ncolumns);
}

/* noted before it is looked at: a change meanwhile takes the note away */
static bool
is_our_partition(const FinDirect *direct, Relation table)
{
	KnownPartition *known = &known_partitions[direct->which];
	Relation	parent;
	bool		ours;

	known->parent = direct->parent;
	known->child = RelationGetRelid(table);
	parent = table_open(direct->parent, NoLock);
	ours = is_ours_to_append(direct, parent) &&
		table->rd_rel->relispartition &&
		!has_other_triggers(table, TRIGGER_TYPE_INSERT) &&
		fin_direct_has_layout(table, parent, direct->types, direct->ncolumns);
	table_close(parent, NoLock);
	if (!ours)
		known->child = InvalidOid;
	return ours;
}

/*
 * See that the partition of this id is the open one.  The parent is not kept
 * open: making a partition needs it unused.
 */
static bool
open_partition(FinDirect *direct, int64 id)
{
	Oid			child = fin_partition_ensure(direct->which, id);
	Relation	table;

	if (direct->table != NULL && RelationGetRelid(direct->table) == child)
		return true;
	write_gathered(direct);
	close_table(direct);
	table = table_open(child, RowExclusiveLock);
	if (known_partitions[direct->which].child != child &&
		!is_our_partition(direct, table))
	{
		table_close(table, NoLock);
		return false;
	}
	open_table(direct, table);
	return true;
}

bool
fin_direct_append(FinDirect *direct, int64 id, const Datum *values,
				  const bool *nulls)
{
	if (!open_partition(direct, id))
		return false;
	gather_row(direct, values, nulls);
	return true;
}

static FIN_NORETURN void
refuse_changed(Oid relid)
{
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("table finance.%s has triggers or was altered",
				   get_rel_name(relid)),
			errdetail("Its rows are written without a statement, so nothing would fire."),
			errhint("Drop what was attached to it."));
}

static FinDirect *
begin_insert(Oid relid, const Oid *types, int columns)
{
	FinDirect  *direct;
	Relation	table;

	check_may_write("INSERT");
	direct = palloc0(sizeof(FinDirect));
	direct->types = types;
	direct->ncolumns = columns;
	table = table_open(relid, RowExclusiveLock);
	if (table->rd_rel->relkind != RELKIND_RELATION ||
		!is_ours_to_append(direct, table))
	{
		table_close(table, NoLock);
		return NULL;
	}
	direct->estate = CreateExecutorState();
	open_table(direct, table);
	return direct;
}

FinDirect *
fin_direct_begin_insert(Oid relid, const Oid *types, int columns)
{
	return fin_direct_writes ? begin_insert(relid, types, columns) : NULL;
}

FinDirect *
fin_direct_begin_own(Oid relid, const Oid *types, int columns)
{
	FinDirect  *direct = begin_insert(relid, types, columns);

	if (direct == NULL)
		refuse_changed(relid);
	return direct;
}

void
fin_direct_put(FinDirect *direct, const Datum *values, const bool *nulls)
{
	gather_row(direct, values, nulls);
}

void
fin_direct_flush(FinDirect *direct)
{
	write_gathered(direct);
}

bool
fin_direct_insert(Oid relid, const Oid *types, int columns,
				  const Datum *values, const bool *nulls)
{
	FinDirect  *direct = fin_direct_begin_insert(relid, types, columns);

	if (direct == NULL)
		return false;
	fin_direct_put(direct, values, nulls);
	fin_direct_end(direct);
	return true;
}

FinDirect *
fin_direct_begin_unique(const char *name, const Oid *types, int columns)
{
	FinDirect  *direct = fin_direct_begin_insert(fin_query_relation(name),
												 types, columns);

	if (direct == NULL)
		return NULL;
	ExecOpenIndices(direct->info, true);
	direct->indexes_open = true;
	return direct;
}

/* one attempt; false when another took the key meanwhile */
static bool
insert_speculatively(FinDirect *direct)
{
	TransactionId xid = GetCurrentTransactionId();
	uint32		token = SpeculativeInsertionLockAcquire(xid);
	bool		conflict = false;

	table_tuple_insert_speculative(direct->table, direct->slot,
								   GetCurrentCommandId(true), 0, NULL, token);
	fin_compat_insert_index_tuples_if_free(direct->info, direct->slot,
										   direct->estate, &conflict);
	table_tuple_complete_speculative(direct->table, direct->slot, token,
									 !conflict);
	SpeculativeInsertionLockRelease(xid);
	return !conflict;
}

bool
fin_direct_insert_unique(FinDirect *direct, const Datum *values,
						 const bool *nulls)
{
	bool		inserted = false;

	fill_slot(direct, direct->slot, values, nulls);
	/* as the executor: look first, so that few attempts are in vain */
	while (!inserted)
	{
		ItemPointerData taken;

		CHECK_FOR_INTERRUPTS();
		if (!fin_compat_check_index_constraints(direct->info, direct->slot,
												direct->estate, &taken))
			break;
		inserted = insert_speculatively(direct);
	}
	ResetPerTupleExprContext(direct->estate);
	return inserted;
}

/* is it, under its well-known name, the index we mean? */
static bool
is_usable_index(Relation index, Relation table, const AttrNumber *columns,
				int n)
{
	Form_pg_index form = index->rd_index;

	if (form->indrelid != RelationGetRelid(table) || !form->indisvalid ||
		!form->indisunique || !form->indimmediate || form->indnkeyatts != n ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	return memcmp(form->indkey.values, columns, sizeof(AttrNumber) * n) == 0;
}

static FinDirect *
begin_scan(const char *name, const char *index_name, int columns,
		   const AttrNumber *key, int key_columns, LOCKMODE mode)
{
	FinDirect  *direct;
	Relation	table = table_open(fin_query_relation(name), mode);
	Relation	index;
	/* under the table's lock the name stays with the index */
	Oid			index_oid = fin_query_relation(index_name);

	index = OidIsValid(index_oid) &&
		get_rel_relkind(index_oid) == RELKIND_INDEX ?
		index_open(index_oid, AccessShareLock) : NULL;
	if (index == NULL || !has_columns(table, NULL, columns) ||
		!is_usable_index(index, table, key, key_columns))
	{
		if (index != NULL)
			index_close(index, NoLock);
		table_close(table, NoLock);
		return NULL;
	}
	direct = palloc0(sizeof(FinDirect));
	direct->table = table;
	direct->lock_index = index;
	direct->slot = table_slot_create(direct->table, NULL);
	/* see what this transaction did before, as a new statement would */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	direct->lock_keys = key_columns;
	direct->lock_scan = fin_compat_index_beginscan(direct->table,
												   direct->lock_index,
												   GetActiveSnapshot(),
												   key_columns);
	return direct;
}

FinDirect *
fin_direct_begin_find(const char *table, const char *index, int columns,
					  const AttrNumber *key, int key_columns)
{
	if (!fin_direct_writes)
		return NULL;
	return begin_scan(table, index, columns, key, key_columns, AccessShareLock);
}

TupleTableSlot *
fin_direct_find(FinDirect *direct, ScanKey key, int needed)
{
	IndexScanDesc scan = direct->lock_scan;
	ItemPointer tid;

	index_rescan(scan, key, direct->lock_keys, NULL, 0);
	while ((tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
	{
		/* fetching moves it on to the version that is seen */
		direct->root = *tid;
		if (!index_fetch_heap(scan, direct->slot))
			continue;
		slot_getsomeattrs(direct->slot, needed);
		return direct->slot;
	}
	return NULL;
}

ItemPointerData
fin_direct_root(const FinDirect *direct)
{
	return direct->root;
}

FinDirect *
fin_direct_begin_seek(const char *name, int columns)
{
	FinDirect  *direct;
	Relation	table;

	if (!fin_direct_writes || IsolationUsesXactSnapshot())
		return NULL;
	table = table_open(fin_query_relation(name), AccessShareLock);
	if (table->rd_tableam != GetHeapamTableAmRoutine() ||
		!has_columns(table, NULL, columns))
	{
		table_close(table, NoLock);
		return NULL;
	}
	direct = palloc0(sizeof(FinDirect));
	direct->table = table;
	direct->slot = table_slot_create(table, NULL);
	/* see what this transaction did before, as a new statement would */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	direct->seeks = true;
	return direct;
}

/*
 * The table may be shorter by now: what cuts it says so to all who kept its
 * length, while what makes it longer does not.
 */
static bool
has_block(Relation table, BlockNumber block)
{
	BlockNumber kept = RelationGetSmgr(table)->smgr_cached_nblocks[MAIN_FORKNUM];

	return (kept != InvalidBlockNumber && block < kept) ||
		block < RelationGetNumberOfBlocks(table);
}

/*
 * An index scan has a page tidied whenever it is fuller than its table's
 * fillfactor, that is after each update of one of its rows; here that waits
 * until many can be tidied away at once.
 */
static void
tidy_if_full(Relation table, Buffer buffer)
{
	Page		page = BufferGetPage(buffer);

	if (PageIsFull(page) || PageGetHeapFreeSpace(page) < SEEK_ROOM)
		heap_page_prune_opt(table, buffer);
}

TupleTableSlot *
fin_direct_seek(FinDirect *direct, const ItemPointerData *root, int needed)
{
	ItemPointerData tid = *root;
	Buffer		buffer;
	bool		found;

	ExecClearTuple(direct->slot);
	if (!has_block(direct->table, ItemPointerGetBlockNumber(&tid)))
		return NULL;
	buffer = ReadBuffer(direct->table, ItemPointerGetBlockNumber(&tid));
	tidy_if_full(direct->table, buffer);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, direct->table, buffer,
								   GetActiveSnapshot(), &direct->sought, NULL,
								   true);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (found)
	{
		ExecStoreBufferHeapTuple(&direct->sought, direct->slot, buffer);
		slot_getsomeattrs(direct->slot, needed);
	}
	ReleaseBuffer(buffer);		/* the slot has a pin of its own */
	return found ? direct->slot : NULL;
}

FinDirect *
fin_direct_begin_probe(const char *name, const char *index_name, int columns,
					   const AttrNumber *key, int key_columns, int scan_keys)
{
	FinDirect  *direct;
	Oid			relid = fin_query_relation(name);
	Relation	table = table_open(relid, AccessShareLock);
	Oid			index_oid = fin_query_relation(index_name);
	Relation	index;

	if (!OidIsValid(index_oid) ||
		get_rel_relkind(index_oid) != RELKIND_INDEX ||
		!has_columns(table, NULL, columns))
		refuse_changed(relid);
	index = index_open(index_oid, AccessShareLock);
	if (!is_usable_index(index, table, key, key_columns))
		refuse_changed(relid);
	direct = palloc0(sizeof(FinDirect));
	direct->table = table;
	direct->lock_index = index;
	direct->lock_keys = scan_keys;
	direct->slot = table_slot_create(table, NULL);
	direct->probes = true;
	InitDirtySnapshot(direct->dirty);
	direct->lock_scan = fin_compat_index_beginscan(table, index,
												   &direct->dirty, scan_keys);
	return direct;
}

/* as ON CONFLICT: what the snapshot cannot see must not decide */
static void
check_seen_by_snapshot(FinDirect *direct)
{
	bool		isnull;
	Datum		xmin;

	if (!IsolationUsesXactSnapshot() ||
		table_tuple_satisfies_snapshot(direct->table, direct->slot,
									   GetTransactionSnapshot()))
		return;
	xmin = slot_getsysattr(direct->slot, MinTransactionIdAttributeNumber,
						   &isnull);
	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to concurrent update"));
}

TupleTableSlot *
fin_direct_probe(FinDirect *direct, ScanKey key, TransactionId *writer)
{
	*writer = InvalidTransactionId;
	index_rescan(direct->lock_scan, key, direct->lock_keys, NULL, 0);
	while (index_getnext_slot(direct->lock_scan, ForwardScanDirection,
							  direct->slot))
	{
		if (!TransactionIdIsValid(direct->dirty.xmin))
		{
			check_seen_by_snapshot(direct);
			slot_getallattrs(direct->slot);
			return direct->slot;
		}
		*writer = direct->dirty.xmin;
	}
	return NULL;
}

FinDirect *
fin_direct_begin_lock(const char *table, const char *index, int columns,
					  const AttrNumber *key, int key_columns)
{
	if (!fin_direct_writes)
		return NULL;
	check_may_write("SELECT FOR NO KEY UPDATE");
	return begin_scan(table, index, columns, key, key_columns, RowShareLock);
}

static void
refuse_lock(TM_Result result)
{
	if ((result == TM_Updated || result == TM_Deleted) &&
		IsolationUsesXactSnapshot())
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to concurrent update"));
	elog(ERROR, "unexpected result %d of locking a row", (int) result);
}

TupleTableSlot *
fin_direct_lock(FinDirect *direct, ScanKey key, int needed)
{
	TupleTableSlot *slot = direct->slot;
	int			flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;
	ItemPointerData tid;
	TM_FailureData failure;
	TM_Result	result;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	index_rescan(direct->lock_scan, key, direct->lock_keys, NULL, 0);
	if (!index_getnext_slot(direct->lock_scan, ForwardScanDirection, slot))
		return NULL;
	tid = slot->tts_tid;
	result = table_tuple_lock(direct->table, &tid, GetActiveSnapshot(), slot,
							  GetCurrentCommandId(true),
							  LockTupleNoKeyExclusive, LockWaitBlock, flags,
							  &failure);
	if (result != TM_Ok)
		refuse_lock(result);
	slot_getsomeattrs(slot, needed);
	return slot;
}

static void
end_lock(FinDirect *direct)
{
	index_endscan(direct->lock_scan);
	index_close(direct->lock_index, NoLock);
	PopActiveSnapshot();
	direct->lock_scan = NULL;
}

/* what was only looked at may be truncated as soon as we have looked */
static void
end_probe(FinDirect *direct)
{
	index_endscan(direct->lock_scan);
	index_close(direct->lock_index, AccessShareLock);
	ExecDropSingleTupleTableSlot(direct->slot);
	table_close(direct->table, AccessShareLock);
}

FinDirect *
fin_direct_begin_update(const char *name, int columns)
{
	FinDirect  *direct;
	Relation	table;

	if (!fin_direct_writes)
		return NULL;
	check_may_write("UPDATE");
	table = table_open(fin_query_relation(name), RowExclusiveLock);
	CheckCmdReplicaIdentity(table, CMD_UPDATE);
	if (has_other_triggers(table, TRIGGER_TYPE_UPDATE) ||
		!has_columns(table, NULL, columns))
	{
		table_close(table, NoLock);
		return NULL;
	}
	direct = palloc0(sizeof(FinDirect));
	direct->ncolumns = columns;
	open_table(direct, table);
	direct->old_slot = table_slot_create(table, NULL);
	return direct;
}

void
fin_direct_update(FinDirect *direct, ItemPointer tid, const int *columns,
				  int n, const Datum *values,
				  void (*check) (const Datum *values, const bool *nulls))
{
	TupleTableSlot *old = direct->old_slot;
	TupleTableSlot *slot = direct->slot;
	bool		only_summarizing;

	/* locked by us, so the version at tid is live unless we replaced it */
	if (!table_tuple_fetch_row_version(direct->table, tid, SnapshotSelf, old))
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("a row of finance.%s cannot be written",
					   RelationGetRelationName(direct->table)),
				errdetail("A trigger changed it while its transfer was being written."),
				errhint("Transfer in a trigger on finance.transfer."));
	slot_getallattrs(old);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, old->tts_values, sizeof(Datum) * direct->ncolumns);
	memcpy(slot->tts_isnull, old->tts_isnull, sizeof(bool) * direct->ncolumns);
	for (int i = 0; i < n; i++)
		slot->tts_values[columns[i]] = values[i];
	ExecStoreVirtualTuple(slot);
	if (check != NULL)
		check(slot->tts_values, slot->tts_isnull);
	check_updated(direct, slot);
	if (fin_compat_update_tuple(direct->table, tid, slot, &only_summarizing))
		insert_index_entries(direct, slot, only_summarizing);
	ExecClearTuple(old);
}

void
fin_direct_end(FinDirect *direct)
{
	if (direct->probes)
	{
		end_probe(direct);
		return;
	}
	if (direct->lock_scan != NULL)
		end_lock(direct);
	if (direct->seeks)
		PopActiveSnapshot();
	write_gathered(direct);
	close_table(direct);
	if (direct->estate != NULL)
		FreeExecutorState(direct->estate);
}
