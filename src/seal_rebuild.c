/*
 * seal_rebuild.c
 *		What is made again: finance._rebuild_audit_tree(), the row of
 *		finance.audit_tree from blocks, leaves and nodes, and
 *		finance._rebuild_audit_terms(), all runs of terms from the records.
 *
 * Owns kept plans only.  Locks: fin_seal_lock() to the end of the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "audit_walk.h"
#include "compat.h"
#include "errors.h"
#include "query.h"
#include "seal_parts.h"

/* leaves below the lowest nodes that are kept */
#define FIN_CHUNK	(INT64CONST(1) << FIN_AUDIT_NODE_LEVEL)

static FinQuery select_node =
{
	.sql = "SELECT hash FROM finance.audit_node"
	" WHERE level = $1 AND index = $2",
	.nargs = 2,
	.argtypes = {INT2OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* each has a leaf at least, so there are no more than FIN_CHUNK of them */
static FinQuery select_last_leaves =
{
	.sql = "SELECT b.first_leaf, l.leaves FROM (SELECT block, first_leaf, size"
	" FROM finance.audit_block ORDER BY block DESC LIMIT 256) AS b"
	" JOIN finance.audit_leaves AS l ON l.block = b.block"
	" WHERE b.size > $1 ORDER BY b.block",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FIN_NORETURN void
refuse_damaged(const char *detail, int64 number)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("the audit tree cannot be made again"),
			errdetail_internal(detail, (long long) number),
			errhint("SELECT * FROM finance.verify_audit()."));
}

static bytea *
get_bytes(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return DatumGetByteaPP(value);
}

static void
add_node(FinFrontier *frontier, int level, int64 index)
{
	Datum		values[2] = {Int16GetDatum(level), Int64GetDatum(index)};
	bytea	   *hash;

	if (fin_query_run(&select_node, values, NULL, 1) == 0)
		refuse_damaged("A node from leaf %lld on is missing.", index << level);
	hash = get_bytes(0, 1);
	if (VARSIZE_ANY_EXHDR(hash) != FIN_HASH_LENGTH)
		refuse_damaged("A node from leaf %lld on is not a hash.",
					   index << level);
	memcpy(frontier->hashes[frontier->depth++].bytes, VARDATA_ANY(hash),
		   FIN_HASH_LENGTH);
	frontier->size += UINT64CONST(1) << level;
}

/* the subtrees that have nodes, the largest first */
static void
add_nodes(FinFrontier *frontier, int64 size)
{
	for (int level = 62; level >= FIN_AUDIT_NODE_LEVEL; level--)
	{
		if ((size >> level & 1) != 0)
			add_node(frontier, level, (int64) frontier->size >> level);
	}
}

/* and the leaves after them */
static void
add_leaves(FinFrontier *frontier, int64 size)
{
	int64		from = (int64) frontier->size;
	Datum		values[1] = {Int64GetDatum(from)};
	uint64		n = fin_query_run(&select_last_leaves, values, NULL, 0);

	for (uint64 i = 0; i < n; i++)
	{
		int64		first = fin_query_int64(i, 1);
		bytea	   *leaves = get_bytes(i, 2);
		int64		count = VARSIZE_ANY_EXHDR(leaves) / FIN_AUDIT_LEAF_ENTRY;

		for (int64 j = Max(from - first, 0); j < count; j++)
		{
			FinAuditLeaf leaf;

			if ((int64) frontier->size != first + j)
				refuse_damaged("Leaf %lld is missing.",
							   (int64) frontier->size);
			fin_audit_leaf_get(VARDATA_ANY(leaves) + j * FIN_AUDIT_LEAF_ENTRY,
							   &leaf);
			fin_merkle_append(frontier, &leaf.hash, NULL, NULL);
		}
	}
	if ((int64) frontier->size != size)
		refuse_damaged("Leaf %lld is missing.", (int64) frontier->size);
}

static int64
rebuild(void)
{
	FinSealTree tree;
	FinAuditBlock last;
	FinHash		root;
	int64		cluster;

	fin_seal_load_tree(&tree);
	if (tree.is_there || !fin_seal_last_block(&last))
		return (int64) tree.frontier.size;
	add_nodes(&tree.frontier, last.size);
	add_leaves(&tree.frontier, last.size);
	fin_merkle_frontier_root(&tree.frontier, &root);
	if (!fin_merkle_same(&root, &last.root))
		refuse_damaged("The leaves do not give the root of block %lld.",
					   last.block);
	tree.incarnation = fin_seal_last_incarnation(&cluster);
	tree.horizon = last.incarnation == tree.incarnation ? last.last.xid :
		fin_seal_cluster_horizon(cluster);
	tree.block = last.block;
	tree.digest = last.digest;
	fin_seal_save_tree(&tree);
	return last.size;
}

PG_FUNCTION_INFO_V1(finance_rebuild_audit_tree);

/*
 * finance._rebuild_audit_tree() returns bigint
 *
 * Makes the row of audit_tree again if it is missing, as where a restore left
 * it out.  Returns the size of the tree.
 * Errors: LG205 leaves or nodes are missing or give another root than the last
 * block has; 25006 on a standby.
 */
Datum
finance_rebuild_audit_tree(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	int64		size;

	PreventCommandIfReadOnly("_rebuild_audit_tree()");
	fin_query_begin(&scope);
	(void) fin_seal_lock(true);
	size = rebuild();
	fin_query_end(&scope);
	PG_RETURN_INT64(size);
}

/* ------------------------------------------------------------------------
 * terms
 * ------------------------------------------------------------------------
 */

static FinQuery delete_terms =
{
	.sql = "DELETE FROM finance.audit_term",
	.expect = SPI_OK_DELETE,
};

static void
keep_terms(FinSealTerms *terms, const FinAuditStep *step, MemoryContext each)
{
	uint64		of[FIN_AUDIT_TERMS_MAX];
	MemoryContext caller = MemoryContextSwitchTo(each);
	int			n = fin_audit_terms(step->row, of);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(each);
	fin_seal_keep_terms(terms, (uint32) (step->index - step->block->first_leaf),
						of, n);
}

static void
write_terms(FinSealTerms *terms, int64 *from, int64 to)
{
	fin_seal_write_terms(terms, *from, to);
	CommandCounterIncrement();
	fin_seal_merge_terms();
	*from = to;
}

static int64
rebuild_terms(void)
{
	int64		size = fin_audit_walk_size();
	FinAuditWalk *walk = fin_audit_walk_begin(0, size);
	FinSealTerms *terms = fin_seal_begin_terms();
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext,
											   "finance terms of a record",
											   ALLOCSET_DEFAULT_SIZES);
	int64		from = 0;
	FinAuditStep step;

	fin_seal_issue_pass();
	(void) fin_query_run(&delete_terms, NULL, NULL, 0);
	while (fin_audit_walk_next(walk, &step))
	{
		if (step.begins_block && step.index > 0)
			write_terms(terms, &from, step.index);
		if (step.row != NULL)
			keep_terms(terms, &step, each);
	}
	if (size > 0)
		write_terms(terms, &from, size);
	fin_seal_end_terms(terms);
	fin_audit_walk_end(walk);
	return size;
}

PG_FUNCTION_INFO_V1(finance_rebuild_audit_terms);

/*
 * finance._rebuild_audit_terms() returns bigint
 *
 * Makes all runs of finance.audit_term again from the records that there are,
 * where verify_audit() says that they are not right.  Returns how many leaves
 * they are of.  Errors: LG205 leaves are missing; 25006 on a standby; 25001 above
 * READ COMMITTED, where it does not see all that there is.
 */
Datum
finance_rebuild_audit_terms(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	int64		size;

	PreventCommandIfReadOnly("_rebuild_audit_terms()");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				errmsg("_rebuild_audit_terms() needs the isolation level READ COMMITTED"));
	fin_query_begin(&scope);
	(void) fin_seal_lock(true);
	PushActiveSnapshot(GetLatestSnapshot());
	size = rebuild_terms();
	PopActiveSnapshot();
	fin_query_end(&scope);
	PG_RETURN_INT64(size);
}
