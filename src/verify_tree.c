/*
 * verify_tree.c
 *		What blocks say of the records in them, and rows of the tree's tables
 *		that nothing leads to.
 *
 * Neither is in a digest; readers and provers go by it, though, and do not find
 * a record when it is wrong.
 *
 * Owns kept plans only.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "query.h"
#include "verify_parts.h"

#define ROWS_MAX	1000		/* named of one table */

static FinQuery select_odd_nodes =
{
	.sql = "SELECT n.level::int8, n.index FROM finance.audit_node n"
	" WHERE n.level < $2 OR n.level > 62 OR n.index < 0"
	" OR n.index >= ($1 >> n.level) LIMIT $3",
	.nargs = 3,
	.argtypes = {INT8OID, INT2OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_odd_leaves =
{
	.sql = "SELECT l.block FROM finance.audit_leaves l"
	" LEFT JOIN finance.audit_block b ON b.block = l.block"
	" WHERE b.block IS NULL LIMIT $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * blocks
 * ------------------------------------------------------------------------ */

void
fin_verify_see_leaf(FinVerifySeen *seen, const FinAuditLeaf *leaf)
{
	if (seen->leaves++ == 0)
	{
		seen->first = leaf->position;
		seen->first_id = seen->last_id = leaf->id;
	}
	seen->last = leaf->position;
	seen->first_id = Min(seen->first_id, leaf->id);
	seen->last_id = Max(seen->last_id, leaf->id);
}

void
fin_verify_see_record(FinVerifySeen *seen, const FinAuditRow *row)
{
	TimestampTz when = DatumGetTimestampTz(row->values[FIN_AUDIT_RECORDED_AT]);

	if (seen->records++ == 0)
		seen->first_at = seen->last_at = when;
	seen->first_at = Min(seen->first_at, when);
	seen->last_at = Max(seen->last_at, when);
}

static void
report_bound(ReturnSetInfo *result, const FinAuditBlock *block,
			 const char *column, const char *expected, const char *found)
{
	FinProblem	problem = {0};

	problem.has_leaf = true;
	problem.leaf = block->first_leaf;
	problem.problem = psprintf("%s of block %lld", column,
							   (long long) block->block);
	problem.expected = expected;
	problem.found = found;
	fin_verify_report(result, &problem);
}

static void
check_number(ReturnSetInfo *result, const FinAuditBlock *block,
			 const char *column, int64 expected, int64 found)
{
	if (expected != found)
		report_bound(result, block, column,
					 psprintf("%lld", (long long) expected),
					 psprintf("%lld", (long long) found));
}

static void
check_time(ReturnSetInfo *result, const FinAuditBlock *block,
		   const char *column, TimestampTz expected, TimestampTz found)
{
	if (expected != found)
		report_bound(result, block, column,
					 pstrdup(timestamptz_to_str(expected)),
					 pstrdup(timestamptz_to_str(found)));
}

void
fin_verify_bounds(ReturnSetInfo *result, const FinAuditBlock *block,
				  const FinVerifySeen *seen)
{
	if (seen->leaves == 0 || seen->leaves != block->records)
		return;
	check_number(result, block, "first_xid", (int64) seen->first.xid,
				 (int64) block->first.xid);
	check_number(result, block, "first_sequence", seen->first.sequence,
				 block->first.sequence);
	check_number(result, block, "last_xid", (int64) seen->last.xid,
				 (int64) block->last.xid);
	check_number(result, block, "last_sequence", seen->last.sequence,
				 block->last.sequence);
	check_number(result, block, "first_id", seen->first_id, block->first_id);
	check_number(result, block, "last_id", seen->last_id, block->last_id);
	/* times are in the records only, which may be gone */
	if (seen->records != seen->leaves)
		return;
	check_time(result, block, "first_recorded_at", seen->first_at,
			   block->first_recorded_at);
	check_time(result, block, "last_recorded_at", seen->last_at,
			   block->last_recorded_at);
}

/* ------------------------------------------------------------------------
 * rows that do not belong there
 * ------------------------------------------------------------------------ */

static void
report_row(ReturnSetInfo *result, const char *what)
{
	FinProblem	problem = {0};

	problem.problem = what;
	problem.found = "a row that the tree does not have";
	fin_verify_report(result, &problem);
}

void
fin_verify_odd_rows(ReturnSetInfo *result, int64 size)
{
	Datum		of_nodes[3] = {Int64GetDatum(size),
		Int16GetDatum(FIN_AUDIT_NODE_LEVEL), Int64GetDatum(ROWS_MAX)};
	Datum		of_leaves[1] = {Int64GetDatum(ROWS_MAX)};
	uint64		n = fin_query_run(&select_odd_nodes, of_nodes, NULL, 0);

	for (uint64 i = 0; i < n; i++)
		report_row(result, psprintf("node %lld of level %lld",
									(long long) fin_query_int64(i, 2),
									(long long) fin_query_int64(i, 1)));
	SPI_freetuptable(SPI_tuptable);
	n = fin_query_run(&select_odd_leaves, of_leaves, NULL, 0);
	for (uint64 i = 0; i < n; i++)
		report_row(result, psprintf("leaves of block %lld",
									(long long) fin_query_int64(i, 1)));
	SPI_freetuptable(SPI_tuptable);
}
