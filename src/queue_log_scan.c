/*
 * queue_log_scan.c
 *		Walking along a log: one index range scan for each segment that is not
 *		empty, merged.
 *
 * Not a statement: that would keep its locks on all segments to the end of the
 * transaction, and with consumers whose transactions overlap, retention would
 * never find a segment free.
 *
 * Owns nothing between begin and end but what it has open: relations, index
 * scans, slots, which an ERROR leaves to the transaction.
 *
 * Locks: ACCESS SHARE on the segments, given back by end.  Waits for a segment
 * that is being truncated.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "queue_log.h"

typedef struct SegmentScan
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;			/* NULL: nothing open */
	TupleTableSlot *slot;		/* its next row; empty: no more */
	FinLogPosition position;	/* of that row */
} SegmentScan;

struct FinLogScan
{
	Snapshot	snapshot;
	ScanKeyData after[2];		/* the members of (mark, msg_id) > (.., ..) */
	ScanKeyData keys[2];		/* that, and msg_id >= .. */
	int			nkeys;
	int			returned;		/* the segment whose row the caller has, or -1 */
	SegmentScan segments[FIN_LOG_SEGMENTS];
};

/* the key of an index of (mark, msg_id), as the executor makes row comparisons */
static void
make_keys(FinLogScan *scan, const FinLogPosition *after, int64 min_id)
{
	ScanKeyEntryInitialize(&scan->after[0], SK_ROW_MEMBER, 1,
						   BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_BTINT8CMP, Int64GetDatum(after->mark));
	ScanKeyEntryInitialize(&scan->after[1], SK_ROW_MEMBER | SK_ROW_END, 2,
						   BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_BTINT8CMP, Int64GetDatum(after->msg_id));
	memset(&scan->keys[0], 0, sizeof(ScanKeyData));
	scan->keys[0].sk_flags = SK_ROW_HEADER;
	scan->keys[0].sk_attno = 1;
	scan->keys[0].sk_strategy = BTGreaterStrategyNumber;
	scan->keys[0].sk_argument = PointerGetDatum(scan->after);
	scan->nkeys = 1;
	if (min_id <= 0)
		return;
	ScanKeyInit(&scan->keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(min_id));
	scan->nkeys = 2;
}

static Relation
open_key(Relation table)
{
	list_free(RelationGetIndexList(table));
	if (!OidIsValid(table->rd_pkindex))
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table finance.%s has lost its primary key",
					   RelationGetRelationName(table)));
	return index_open(table->rd_pkindex, AccessShareLock);
}

/* false, and the slot empty: no more */
static bool
advance(SegmentScan *segment, ScanDirection direction)
{
	bool		isnull;

	if (!index_getnext_slot(segment->scan, direction, segment->slot))
	{
		ExecClearTuple(segment->slot);
		return false;
	}
	segment->position.mark = DatumGetInt64(slot_getattr(segment->slot,
														FIN_LOG_MARK, &isnull));
	segment->position.msg_id = DatumGetInt64(slot_getattr(segment->slot,
														  FIN_LOG_MSG_ID,
														  &isnull));
	return true;
}

static void
close_segment(SegmentScan *segment)
{
	if (segment->scan != NULL)
	{
		index_endscan(segment->scan);
		ExecDropSingleTupleTableSlot(segment->slot);
		index_close(segment->index, AccessShareLock);
	}
	segment->scan = NULL;
	table_close(segment->table, AccessShareLock);
}

static void
open_segment(FinLogScan *scan, int i, Oid table)
{
	SegmentScan *segment = &scan->segments[i];

	if (!OidIsValid(table))
		return;
	segment->table = table_open(table, AccessShareLock);
	if (RelationGetNumberOfBlocks(segment->table) == 0)
	{
		close_segment(segment);
		return;
	}
	segment->index = open_key(segment->table);
	segment->slot = table_slot_create(segment->table, NULL);
	segment->scan = fin_compat_index_beginscan(segment->table, segment->index,
											   scan->snapshot, scan->nkeys);
	index_rescan(segment->scan, scan->keys, scan->nkeys, NULL, 0);
	(void) advance(segment, ForwardScanDirection);
}

FinLogScan *
fin_queue_log_begin_scan(const FinLog *log, const FinLogPosition *after,
						 int64 min_id, Snapshot snapshot)
{
	FinLogScan *scan = palloc0(sizeof(FinLogScan));

	scan->snapshot = snapshot;
	scan->returned = -1;
	make_keys(scan, after, min_id);
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
		open_segment(scan, i, log->segments[i]);
	return scan;
}

TupleTableSlot *
fin_queue_log_next(FinLogScan *scan, FinLogPosition *position)
{
	SegmentScan *first = NULL;

	CHECK_FOR_INTERRUPTS();
	if (scan->returned >= 0)
		(void) advance(&scan->segments[scan->returned], ForwardScanDirection);
	scan->returned = -1;
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
	{
		SegmentScan *segment = &scan->segments[i];

		if (segment->scan == NULL || TTS_EMPTY(segment->slot))
			continue;
		if (first != NULL &&
			fin_queue_log_compare(&segment->position, &first->position) > 0)
			continue;
		first = segment;
		scan->returned = i;
	}
	if (first == NULL)
		return NULL;
	*position = first->position;
	slot_getallattrs(first->slot);
	return first->slot;
}

void
fin_queue_log_end_scan(FinLogScan *scan)
{
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
	{
		if (scan->segments[i].scan != NULL)
			close_segment(&scan->segments[i]);
	}
	pfree(scan);
}

int64
fin_queue_log_count(const FinLog *log, const FinLogPosition *after, int64 limit)
{
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	FinLogScan *scan = fin_queue_log_begin_scan(log, after, 0, snapshot);
	FinLogPosition position;
	int64		n = 0;

	while (n < limit && fin_queue_log_next(scan, &position) != NULL)
		n++;
	fin_queue_log_end_scan(scan);
	UnregisterSnapshot(snapshot);
	return n;
}

void
fin_queue_log_last(Oid table_oid, Snapshot snapshot, FinLogPosition *last)
{
	Relation	table = table_open(table_oid, AccessShareLock);
	SegmentScan segment = {.table = table,.index = open_key(table)};

	segment.slot = table_slot_create(table, NULL);
	segment.scan = fin_compat_index_beginscan(table, segment.index, snapshot, 0);
	index_rescan(segment.scan, NULL, 0, NULL, 0);
	if (advance(&segment, BackwardScanDirection))
		*last = segment.position;
	close_segment(&segment);
}
