/*
 * queue_log_position.c
 *		Where each consumer group is: finance.group_position.
 *
 * A position is never updated: an UPDATE leaves a dead row, and while some
 * transaction holds xmin back, one for each batch that is read.  Each move adds
 * a row with the group's next number; the highest number counts.  The rows lie
 * in three segments.  When the one in use has FIN_POSITION_BLOCKS, groups move on to
 * the next at their next move; the worker adds a copy of the position of each
 * group that stands still, and truncates what was left.  No dead rows arise,
 * and live ones are few, whoever holds back what.
 *
 * Owns nothing between calls.
 *
 * Locks: a group is taken by a heavyweight lock of the kind "object" on its id,
 * to the end of the transaction.  Who takes it may read its position with the
 * newest snapshot: no one else moves it, the worker neither.  Moving keeps ROW
 * EXCLUSIVE on one segment to the end of the transaction; looking keeps nothing.
 * The worker asks for ACCESS EXCLUSIVE on a segment and for the groups that have
 * their position there, and leaves it for later what it does not get at once.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue_log.h"
#include "store_direct.h"
#include "wake.h"

#define FIN_POSITION_SEGMENTS	3
#define FIN_POSITION_BLOCKS		64
#define FIN_CARRIED_MAX			1000	/* groups of a segment at once */

/* columns of finance.group_position, from 1 */
enum
{
	POSITION_SEQ = 1,
	POSITION_MARK,
	POSITION_MSG_ID,
	POSITION_GROUP_ID,
	POSITION_MOVED_AT,
	POSITION_TENANT_ID,
	POSITION_SEGMENT
};

#define POSITION_COLUMNS POSITION_SEGMENT

static const Oid position_types[] = {
	INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, INT2OID
};

static FinQuery insert_position =
{
	.sql = "INSERT INTO finance.group_position (seq, mark, msg_id, group_id,"
	" moved_at, tenant_id, segment) VALUES ($1, $2, $3, $4, $5, $6, $7)",
	.nargs = POSITION_COLUMNS,
	.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID,
	INT2OID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "group_position",
};

static FinQuery delete_positions =
{
	.sql = "DELETE FROM finance.group_position"
	" WHERE tenant_id = $1 AND group_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

/* groups whose newest row is in the segment */
static FinQuery groups_in =
{
	.sql = "SELECT g.tenant_id, g.group_id FROM finance.consumer_group g"
	" CROSS JOIN LATERAL (SELECT p.segment FROM finance.group_position p"
	"  WHERE p.tenant_id = g.tenant_id AND p.group_id = g.group_id"
	"  ORDER BY p.seq DESC LIMIT 1) newest"
	" WHERE newest.segment = $1 LIMIT $2",
	.nargs = 2,
	.argtypes = {INT2OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static Oid
segment_table(int segment)
{
	Oid			table = fin_query_relation(psprintf("group_position_%d", segment));

	if (!OidIsValid(table))
		elog(ERROR, "table finance.group_position_%d does not exist", segment);
	return table;
}

static bool
is_full(int segment)
{
	Relation	table = table_open(segment_table(segment), AccessShareLock);
	bool		full = RelationGetNumberOfBlocks(table) >= FIN_POSITION_BLOCKS;

	table_close(table, AccessShareLock);
	return full;
}

/* ------------------------------------------------------------------------
 * taking a group, and looking where it is
 * ------------------------------------------------------------------------
 */

bool
fin_queue_log_take_group(int64 group_id)
{
	LOCKTAG		tag;

	PreventCommandDuringRecovery("a read by a consumer group");
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, fin_query_relation("consumer_group"),
					   (uint32) group_id, 0);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* take the row of the segment if it is the newest so far */
static void
take_newest(TupleTableSlot *slot, int segment, FinLogGroup *group)
{
	bool		isnull;
	int64		seq = DatumGetInt64(slot_getattr(slot, POSITION_SEQ, &isnull));

	if (seq <= group->seq)
		return;
	group->seq = seq;
	group->segment = segment;
	group->position.mark = DatumGetInt64(slot_getattr(slot, POSITION_MARK,
													  &isnull));
	group->position.msg_id = DatumGetInt64(slot_getattr(slot, POSITION_MSG_ID,
														&isnull));
	group->moved_at = DatumGetTimestampTz(slot_getattr(slot, POSITION_MOVED_AT,
													   &isnull));
}

/* the key begins with (tenant_id, group_id, seq): backwards, the newest is first */
static void
look_into_segment(int segment, Snapshot snapshot, FinLogGroup *group)
{
	Relation	table = table_open(segment_table(segment), AccessShareLock);
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[2];

	if (RelationGetNumberOfBlocks(table) == 0)
	{
		table_close(table, AccessShareLock);
		return;
	}
	list_free(RelationGetIndexList(table));
	index = index_open(table->rd_pkindex, AccessShareLock);
	slot = table_slot_create(table, NULL);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(group->tenant_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(group->group_id));
	scan = fin_compat_index_beginscan(table, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		take_newest(slot, segment, group);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(table, AccessShareLock);
}

static void
look(Snapshot snapshot, FinLogGroup *group)
{
	group->seq = 0;
	for (int i = 0; i < FIN_POSITION_SEGMENTS; i++)
		look_into_segment(i, snapshot, group);
}

bool
fin_queue_log_find_position(int32 tenant_id, int64 group_id, FinLogGroup *group)
{
	Snapshot	snapshot;

	memset(group, 0, sizeof(FinLogGroup));
	group->tenant_id = tenant_id;
	group->group_id = group_id;
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	look(snapshot, group);
	UnregisterSnapshot(snapshot);

	/* as for any row that changed since the transaction's snapshot */
	if (IsolationUsesXactSnapshot() && group->seq > 0)
	{
		FinLogGroup seen = *group;

		look(GetTransactionSnapshot(), &seen);
		if (seen.seq != group->seq)
			ereport(ERROR,
					errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("could not serialize access due to concurrent update"),
					errdetail("The position of the consumer group was moved by another transaction."));
	}
	return group->seq > 0;
}

/* ------------------------------------------------------------------------
 * moving
 * ------------------------------------------------------------------------
 */

static void
insert_row(const FinLogGroup *group)
{
	Datum		values[POSITION_COLUMNS];
	bool		nulls[POSITION_COLUMNS] = {false};

	values[POSITION_SEQ - 1] = Int64GetDatum(group->seq);
	values[POSITION_MARK - 1] = Int64GetDatum(group->position.mark);
	values[POSITION_MSG_ID - 1] = Int64GetDatum(group->position.msg_id);
	values[POSITION_GROUP_ID - 1] = Int64GetDatum(group->group_id);
	values[POSITION_MOVED_AT - 1] = TimestampTzGetDatum(group->moved_at);
	values[POSITION_TENANT_ID - 1] = Int32GetDatum(group->tenant_id);
	values[POSITION_SEGMENT - 1] = Int16GetDatum(group->segment);
	if (!fin_direct_insert(segment_table(group->segment), position_types,
						   POSITION_COLUMNS, values, nulls))
		(void) fin_query_run(&insert_position, values, NULL, 0);
}

/* the next segment with room, or the same when there is none */
static int
next_segment(int segment)
{
	for (int i = 1; i < FIN_POSITION_SEGMENTS; i++)
	{
		int			next = (segment + i) % FIN_POSITION_SEGMENTS;

		if (!is_full(next))
			return next;
	}
	return segment;
}

void
fin_queue_log_put_position(FinLogGroup *group, const FinLogPosition *position)
{
	int			segment = group->segment;

	if (is_full(segment))
		segment = next_segment(segment);
	if (segment != group->segment)
		fin_wake_note_attention();	/* the worker truncates what is left */
	group->seq++;
	group->segment = segment;
	group->position = *position;
	group->moved_at = fin_ident_now();
	insert_row(group);
}

void
fin_queue_log_drop_positions(int32 tenant_id, int64 group_id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(group_id)};

	(void) fin_query_run(&delete_positions, values, NULL, 0);
}

/* ------------------------------------------------------------------------
 * emptying segments
 * ------------------------------------------------------------------------
 */

/* false when its position lies there and somebody has the group */
static bool
carry_group(FinLogGroup *group, int from)
{
	int32		tenant_id = group->tenant_id;
	int64		group_id = group->group_id;

	if (!fin_queue_log_find_position(tenant_id, group_id, group) ||
		group->segment != from)
		return true;
	if (!fin_queue_log_take_group(group_id))
		return false;
	if (!fin_queue_log_find_position(tenant_id, group_id, group) ||
		group->segment != from)
		return true;
	group->segment = next_segment(from);
	group->seq++;
	if (group->segment == from)
		return false;
	insert_row(group);
	return true;
}

/* with the segment's lock held nobody moves a group within it */
static bool
empty_segment(int segment)
{
	Datum		values[2] = {Int16GetDatum(segment),
	Int64GetDatum(FIN_CARRIED_MAX + 1)};
	FinLogGroup *groups;
	uint64		n;
	bool		isnull;

	if (!ConditionalLockRelationOid(segment_table(segment), AccessExclusiveLock))
		return false;
	n = fin_query_run(&groups_in, values, NULL, 0);
	groups = palloc0(Max(n, 1) * sizeof(FinLogGroup));
	for (uint64 i = 0; i < n; i++)
	{
		groups[i].tenant_id = DatumGetInt32(fin_query_datum(i, 1, &isnull));
		groups[i].group_id = fin_query_int64(i, 2);
	}
	for (uint64 i = 0; i < n; i++)
	{
		if (!carry_group(&groups[i], segment))
			return false;
	}
	if (n > FIN_CARRIED_MAX)
		return false;			/* the others at the next attempt */
	fin_query_utility(psprintf("TRUNCATE TABLE finance.group_position_%d",
							   segment));
	return true;
}

bool
fin_queue_log_rotate_positions(void)
{
	bool		all = true;

	for (int i = 0; i < FIN_POSITION_SEGMENTS; i++)
	{
		if (is_full(i) && !empty_segment(i))
			all = false;
	}
	return all;
}
