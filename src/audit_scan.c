/*
 * audit_scan.c
 *		Audit records in the order of the log.
 *
 * One index range scan for each month that has records in the range, merged: a
 * transaction that stays open over the end of a month has records in two, and
 * those of others lie between them in the log.  Mostly one or two months take
 * part; a month without is closed and unlocked at once.
 *
 * Not a statement: its locks on all months would stay to the end of the
 * transaction, and it would start and end an executor for each batch.
 *
 * Owns nothing between begin and end but what it has open: relations, index
 * scans, slots, which an ERROR leaves to the transaction.  The parent is not
 * kept open, only locked: who reads may have to make a month meanwhile, which
 * needs it unused.
 *
 * Locks: see audit_scan.h.  Under the parent's lock no month goes away but one
 * that is being detached concurrently, which is then looked for in vain.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_scan.h"
#include "compat.h"
#include "query.h"
#include "store_direct.h"

#define COLUMN_NUMBER(column)	((AttrNumber) ((column) + 1))

typedef struct MonthScan
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;		/* its next record; empty: no more */
	FinAuditPosition position;	/* of that record */
} MonthScan;

struct FinAuditScan
{
	MemoryContext memory;		/* indexes allocate also as they are read */
	Snapshot	snapshot;
	int64		system_identifier;	/* 0: any */
	ScanKeyData after[2];		/* the members of (xid, sequence) > (.., ..) */
	ScanKeyData keys[2];		/* that, and xid < .. */
	MonthScan  *returned;		/* whose record the caller has, or NULL */
	int			nmonths;		/* those with records left */
	MonthScan  *months;
	FinAuditRow row;
};

/* as the executor makes row comparisons */
static void
make_keys(FinAuditScan *scan, const FinAuditPosition *after, uint64 until)
{
	ScanKeyEntryInitialize(&scan->after[0], SK_ROW_MEMBER, 1,
						   BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_XID8CMP, UInt64GetDatum(after->xid));
	ScanKeyEntryInitialize(&scan->after[1], SK_ROW_MEMBER | SK_ROW_END, 2,
						   BTGreaterStrategyNumber, InvalidOid, InvalidOid,
						   F_BTINT4CMP, Int32GetDatum(after->sequence));
	memset(&scan->keys[0], 0, sizeof(ScanKeyData));
	scan->keys[0].sk_flags = SK_ROW_HEADER;
	scan->keys[0].sk_attno = 1;
	scan->keys[0].sk_strategy = BTGreaterStrategyNumber;
	scan->keys[0].sk_argument = PointerGetDatum(scan->after);
	ScanKeyInit(&scan->keys[1], 1, BTLessStrategyNumber, F_XID8LT,
				UInt64GetDatum(until));
}

static void
check_layout(Relation table, Relation parent)
{
	if (!fin_direct_has_layout(table, parent, fin_audit_types,
							   FIN_AUDIT_COLUMNS))
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("table finance.%s was altered",
					   RelationGetRelationName(table)),
				errdetail("It is not laid out as finance.audit_record was made."));
}

static bool
is_order_index(Relation index)
{
	Form_pg_index form = index->rd_index;

	return form->indisvalid && form->indisready &&
		index->rd_rel->relam == BTREE_AM_OID && form->indnkeyatts == 2 &&
		form->indkey.values[0] == COLUMN_NUMBER(FIN_AUDIT_XID) &&
		form->indkey.values[1] == COLUMN_NUMBER(FIN_AUDIT_SEQUENCE) &&
		index->rd_indoption[0] == 0 && index->rd_indoption[1] == 0 &&
		heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/* by what it is, not by its name */
static Relation
open_order_index(Relation table)
{
	List	   *indexes = RelationGetIndexList(table);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (is_order_index(index))
		{
			list_free(indexes);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("table finance.%s has lost its index of (xid, sequence)",
				   RelationGetRelationName(table)),
			errhint("CREATE INDEX ON finance.%s (xid, sequence).",
					RelationGetRelationName(table)));
}

static int64
slot_int64(TupleTableSlot *slot, FinAuditColumn column)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, COLUMN_NUMBER(column), &isnull));
}

/* false: no more */
static bool
advance(const FinAuditScan *scan, MonthScan *month)
{
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (!index_getnext_slot(month->scan, ForwardScanDirection, month->slot))
			return false;
	} while (scan->system_identifier != 0 &&
			 slot_int64(month->slot, FIN_AUDIT_SYSTEM_IDENTIFIER) !=
			 scan->system_identifier);
	month->position.xid = (uint64) slot_int64(month->slot, FIN_AUDIT_XID);
	month->position.sequence = (int32) slot_int64(month->slot,
												  FIN_AUDIT_SEQUENCE);
	return true;
}

static void
close_month(MonthScan *month)
{
	if (month->scan != NULL)
	{
		index_endscan(month->scan);
		ExecDropSingleTupleTableSlot(month->slot);
		index_close(month->index, AccessShareLock);
	}
	table_close(month->table, AccessShareLock);
}

/* adds it to the scan if it has a record in the range */
static void
open_month(FinAuditScan *scan, Relation parent, Oid relid)
{
	MonthScan  *month = &scan->months[scan->nmonths];

	memset(month, 0, sizeof(MonthScan));
	month->table = try_table_open(relid, AccessShareLock);
	if (month->table == NULL)
		return;
	check_layout(month->table, parent);
	if (RelationGetNumberOfBlocks(month->table) == 0)
	{
		close_month(month);
		return;
	}
	month->index = open_order_index(month->table);
	month->slot = table_slot_create(month->table, NULL);
	month->scan = fin_compat_index_beginscan(month->table, month->index,
											 scan->snapshot,
											 (int) lengthof(scan->keys));
	index_rescan(month->scan, scan->keys, (int) lengthof(scan->keys), NULL, 0);
	if (advance(scan, month))
		scan->nmonths++;
	else
		close_month(month);
}

FinAuditScan *
fin_audit_scan_begin(Snapshot snapshot, int64 system_identifier,
					 const FinAuditPosition *after, uint64 until)
{
	FinAuditScan *scan = palloc0(sizeof(FinAuditScan));
	Relation	parent = table_open(fin_query_relation("audit_record"),
									AccessShareLock);
	PartitionDesc partitions = RelationGetPartitionDesc(parent, true);

	scan->memory = CurrentMemoryContext;
	scan->snapshot = snapshot;
	scan->system_identifier = system_identifier;
	make_keys(scan, after, until);
	scan->months = palloc(sizeof(MonthScan) * Max(partitions->nparts, 1));
	for (int i = 0; i < partitions->nparts; i++)
		open_month(scan, parent, partitions->oids[i]);
	table_close(parent, NoLock);
	return scan;
}

static void
go_on(FinAuditScan *scan)
{
	MonthScan  *month = scan->returned;
	MemoryContext caller = MemoryContextSwitchTo(scan->memory);

	scan->returned = NULL;
	if (month != NULL && !advance(scan, month))
	{
		close_month(month);
		*month = scan->months[--scan->nmonths];
	}
	MemoryContextSwitchTo(caller);
}

const FinAuditRow *
fin_audit_scan_next(FinAuditScan *scan)
{
	MonthScan  *first;

	go_on(scan);
	if (scan->nmonths == 0)
		return NULL;
	first = &scan->months[0];
	for (int i = 1; i < scan->nmonths; i++)
	{
		if (fin_audit_compare(&scan->months[i].position, &first->position) < 0)
			first = &scan->months[i];
	}
	slot_getallattrs(first->slot);
	memcpy(scan->row.values, first->slot->tts_values, sizeof(scan->row.values));
	memcpy(scan->row.nulls, first->slot->tts_isnull, sizeof(scan->row.nulls));
	scan->returned = first;
	return &scan->row;
}

void
fin_audit_scan_end(FinAuditScan *scan)
{
	for (int i = 0; i < scan->nmonths; i++)
		close_month(&scan->months[i]);
	pfree(scan->months);
	pfree(scan);
}

FinAuditPosition
fin_audit_position(const FinAuditRow *row)
{
	FinAuditPosition position;

	position.xid = DatumGetUInt64(row->values[FIN_AUDIT_XID]);
	position.sequence = DatumGetInt32(row->values[FIN_AUDIT_SEQUENCE]);
	return position;
}

int
fin_audit_compare(const FinAuditPosition *a, const FinAuditPosition *b)
{
	if (a->xid != b->xid)
		return a->xid < b->xid ? -1 : 1;
	return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}
