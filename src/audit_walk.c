/*
 * audit_walk.c
 *		The sealed leaves of the audit log one after another.
 *
 * A block at a time: its row, and its leaves, of which there are at most
 * FIN_AUDIT_BLOCK_RECORDS_MAX.  Records come from a scan in the order of the
 * log, which leaves are in too, so both advance side by side.  Where somebody
 * changed the order of either, a record is not found: that is then the finding.
 *
 * Memory: a FinAuditWalk, a block's leaves and what the scan has open, all in
 * the caller's query scope.  Locks: those of a SELECT, and audit_scan.h's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_scan.h"
#include "audit_tree.h"
#include "audit_walk.h"
#include "query.h"

struct FinAuditWalk
{
	Snapshot	snapshot;
	int64		next;			/* leaf */
	int64		to;
	FinAuditBlock block;		/* size 0: none read yet */
	int64		system_identifier;
	bytea	   *leaves;			/* of the block */
	FinAuditScan *scan;			/* of the block's incarnation, or NULL */
	int32		incarnation;	/* of the scan */
	const FinAuditRow *row;		/* the scan's; NULL: no more */
};

#define BLOCK_COLUMNS \
	"b.block, b.incarnation, b.first_leaf, b.records, b.size, b.lsn," \
	" b.timeline, b.sealed_at, b.root, b.previous, b.digest," \
	" coalesce(i.system_identifier, 0)"

static FinQuery select_block =
{
	.sql = "SELECT " BLOCK_COLUMNS ", l.leaves FROM (SELECT * FROM"
	" finance.audit_block WHERE size > $1 ORDER BY size LIMIT 1) b"
	" LEFT JOIN finance.audit_incarnation i ON i.incarnation = b.incarnation"
	" LEFT JOIN finance.audit_leaves l ON l.block = b.block",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_newest =
{
	.sql = "SELECT b.size FROM finance.audit_block b ORDER BY b.size DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

int64
fin_audit_walk_size(void)
{
	return fin_query_run(&select_newest, NULL, NULL, 1) == 0 ? 0 :
		fin_query_int64(0, 1);
}

FinAuditWalk *
fin_audit_walk_begin(int64 from, int64 to)
{
	FinAuditWalk *walk = palloc0(sizeof(FinAuditWalk));

	walk->snapshot = RegisterSnapshot(GetActiveSnapshot());
	walk->next = from;
	walk->to = to;
	return walk;
}

static void
end_scan(FinAuditWalk *walk)
{
	if (walk->scan != NULL)
		fin_audit_scan_end(walk->scan);
	walk->scan = NULL;
	walk->row = NULL;
}

void
fin_audit_walk_end(FinAuditWalk *walk)
{
	end_scan(walk);
	UnregisterSnapshot(walk->snapshot);
	pfree(walk);
}

static Datum
required(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	if (isnull)
		fin_audit_tree_damaged("A block has no leaves.");
	return value;
}

static void
fill_block(FinAuditWalk *walk)
{
	FinAuditBlock *block = &walk->block;

	memset(block, 0, sizeof(FinAuditBlock));
	block->block = fin_query_int64(0, 1);
	block->incarnation = DatumGetInt32(required(2));
	block->first_leaf = fin_query_int64(0, 3);
	block->records = DatumGetInt32(required(4));
	block->size = fin_query_int64(0, 5);
	block->lsn = DatumGetLSN(required(6));
	block->timeline = DatumGetInt32(required(7));
	block->sealed_at = DatumGetTimestampTz(required(8));
	fin_audit_tree_hash_column(0, 9, &block->root);
	fin_audit_tree_hash_column(0, 10, &block->previous);
	fin_audit_tree_hash_column(0, 11, &block->digest);
	walk->system_identifier = fin_query_int64(0, 12);
}

/* the block that the next leaf is in */
static void
read_block(FinAuditWalk *walk)
{
	Datum		values[1] = {Int64GetDatum(walk->next)};

	if (walk->leaves != NULL)
		pfree(walk->leaves);
	walk->leaves = NULL;
	if (fin_query_run(&select_block, values, NULL, 1) == 0)
		fin_audit_tree_damaged(psprintf("Leaf %lld is in no block.",
										(long long) walk->next));
	fill_block(walk);
	walk->leaves = DatumGetByteaPCopy(required(13));
	SPI_freetuptable(SPI_tuptable);
	if (walk->block.first_leaf > walk->next ||
		walk->block.first_leaf + walk->block.records != walk->block.size ||
		VARSIZE(walk->leaves) - VARHDRSZ !=
		(Size) walk->block.records * FIN_AUDIT_LEAF_ENTRY)
		fin_audit_tree_damaged(psprintf("Block %lld does not have as many leaves as it says, or not where it says.",
										(long long) walk->block.block));
	if (walk->scan != NULL && walk->incarnation != walk->block.incarnation)
		end_scan(walk);
}

static void
begin_scan(FinAuditWalk *walk, const FinAuditPosition *first)
{
	FinAuditPosition after = {first->xid, first->sequence - 1};

	walk->incarnation = walk->block.incarnation;
	walk->scan = fin_audit_scan_begin(walk->snapshot, walk->system_identifier,
									  &after, FIN_AUDIT_XID_END);
	walk->row = fin_audit_scan_next(walk->scan);
}

/* the record of a leaf, or NULL; passes by those of no leaf */
static const FinAuditRow *
find_row(FinAuditWalk *walk, const FinAuditLeaf *leaf)
{
	if (walk->scan == NULL)
		begin_scan(walk, &leaf->position);
	while (walk->row != NULL)
	{
		FinAuditPosition position = fin_audit_position(walk->row);
		int			order = fin_audit_compare(&position, &leaf->position);

		if (order > 0)
			return NULL;
		if (order == 0 &&
			DatumGetInt64(walk->row->values[FIN_AUDIT_ID]) == leaf->id)
			return walk->row;
		walk->row = fin_audit_scan_next(walk->scan);
	}
	return NULL;
}

bool
fin_audit_walk_next(FinAuditWalk *walk, FinAuditStep *step)
{
	CHECK_FOR_INTERRUPTS();
	if (walk->next >= walk->to)
		return false;
	step->begins_block = walk->leaves == NULL ||
		walk->next >= walk->block.size;
	if (step->begins_block)
		read_block(walk);
	step->index = walk->next++;
	step->block = &walk->block;
	step->system_identifier = walk->system_identifier;
	fin_audit_leaf_get(VARDATA(walk->leaves) +
					   (step->index - walk->block.first_leaf) *
					   FIN_AUDIT_LEAF_ENTRY, &step->leaf);
	step->row = find_row(walk, &step->leaf);
	return true;
}
