/*
 * audit_tree.c
 *		Looking up leaves and subtrees of the sealed audit log.
 *
 * Owns kept plans only; what is read lies in the caller's FinAuditTree, and in
 * the memory of the caller's scope.  Locks: those of a SELECT.
 *
 * What is found here is not trusted: who makes a proof of it checks that the
 * proof leads to the root of a digest.  So it only has to be safe to read,
 * whatever somebody may have written into the tables.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "audit_tree.h"
#include "errors.h"
#include "query.h"

/*
 * The blocks that a chunk from leaf $1 to before leaf $2 lies in.  Sizes grow
 * from block to block, so the last one is the first of size $2 at least.
 */
static FinQuery select_chunk =
{
	.sql = "SELECT b.first_leaf, b.size, l.leaves"
	" FROM finance.audit_block b"
	" LEFT JOIN finance.audit_leaves l ON l.block = b.block"
	" WHERE b.size > $1 AND b.size <= (SELECT e.size FROM finance.audit_block e"
	" WHERE e.size >= $2 ORDER BY e.size LIMIT 1) ORDER BY b.size",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_node =
{
	.sql = "SELECT n.hash FROM finance.audit_node n"
	" WHERE n.level = $1 AND n.index = $2",
	.nargs = 2,
	.argtypes = {INT2OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/*
 * Where a record may be: a block's ids lie between its first and its last, but
 * those of a long transaction are older than its neighbours'.  Not ordered, or
 * a plan might walk all blocks in that order.
 */
static FinQuery select_candidates =
{
	.sql = "SELECT b.block, b.first_leaf, b.records FROM finance.audit_block b"
	" WHERE pg_catalog.int8range(b.first_id, b.last_id, '[]') @> $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_leaves =
{
	.sql = "SELECT l.leaves FROM finance.audit_leaves l WHERE l.block = $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

void
fin_audit_tree_damaged(const char *detail)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("audit log is damaged"),
			errdetail("%s", detail),
			errhint("finance.verify_audit() names what was changed."));
}

void
fin_audit_tree_hash_column(uint64 row, int column, FinHash *hash)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);
	bytea	   *bytes = isnull ? NULL : DatumGetByteaPP(value);

	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != FIN_HASH_LENGTH)
		fin_audit_tree_damaged(psprintf("A stored hash is not of %d bytes.",
										FIN_HASH_LENGTH));
	memcpy(hash->bytes, VARDATA_ANY(bytes), FIN_HASH_LENGTH);
}

/* ------------------------------------------------------------------------
 * subtrees
 * ------------------------------------------------------------------------ */

void
fin_audit_tree_open(FinAuditTree *tree, uint64 size)
{
	tree->size = size;
	tree->chunk_leaves = 0;
}

static void
leaves_missing(uint64 leaf)
{
	fin_audit_tree_damaged(psprintf("Leaf " UINT64_FORMAT " is in no block, or its block has fewer leaves than it says.",
									leaf));
}

/*
 * Hashes of the leaves from 'from' to before 'to' out of the packed leaves of
 * a row of select_chunk, which begin with leaf 'first'.  Reads only this part
 * of a value that may be long.
 */
static void
unpack_hashes(uint64 row, uint64 first, uint64 from, uint64 to, FinHash *hashes)
{
	int			n = (int) (to - from);
	bool		isnull;
	Datum		value = fin_query_datum(row, 3, &isnull);
	bytea	   *packed;
	const char *bytes;

	if (isnull || from - first > MaxAllocSize / FIN_AUDIT_LEAF_ENTRY)
		leaves_missing(from);
	packed = DatumGetByteaPSlice(value,
								 (int32) (from - first) * FIN_AUDIT_LEAF_ENTRY,
								 n * FIN_AUDIT_LEAF_ENTRY);
	if (VARSIZE_ANY_EXHDR(packed) != (Size) n * FIN_AUDIT_LEAF_ENTRY)
		leaves_missing(from);
	bytes = VARDATA_ANY(packed);
	for (int i = 0; i < n; i++)
		memcpy(hashes[i].bytes,
			   bytes + i * FIN_AUDIT_LEAF_ENTRY + FIN_AUDIT_LEAF_HASH_AT,
			   FIN_HASH_LENGTH);
}

static void
read_chunk(FinAuditTree *tree, uint64 chunk)
{
	uint64		start = chunk * FIN_AUDIT_CHUNK_LEAVES;
	uint64		end = Min(start + FIN_AUDIT_CHUNK_LEAVES, tree->size);
	uint64		next = start;
	Datum		values[2] = {Int64GetDatum(start), Int64GetDatum(end)};
	uint64		n = fin_query_run(&select_chunk, values, NULL, 0);

	tree->chunk_leaves = 0;
	for (uint64 row = 0; row < n && next < end; row++)
	{
		uint64		first = (uint64) fin_query_int64(row, 1);
		uint64		until = Min((uint64) fin_query_int64(row, 2), end);

		/* blocks follow each other without a gap */
		if (first > next || until <= next || (next > start && first != next))
			leaves_missing(next);
		unpack_hashes(row, first, next, until, &tree->leaves[next - start]);
		next = until;
	}
	if (next < end)
		leaves_missing(next);
	SPI_freetuptable(SPI_tuptable);
	tree->chunk = chunk;
	tree->chunk_leaves = (int) (end - start);
}

static void
subtree_of_chunk(FinAuditTree *tree, int level, uint64 index, FinHash *hash)
{
	uint64		first = index << level;
	uint64		chunk = first / FIN_AUDIT_CHUNK_LEAVES;
	int			offset = (int) (first % FIN_AUDIT_CHUNK_LEAVES);

	if (tree->chunk_leaves == 0 || tree->chunk != chunk)
		read_chunk(tree, chunk);
	fin_merkle_root(&tree->leaves[offset], (size_t) 1 << level, hash);
}

static void
subtree_of_node(int level, uint64 index, FinHash *hash)
{
	Datum		values[2] = {Int16GetDatum(level), Int64GetDatum(index)};

	if (fin_query_run(&select_node, values, NULL, 1) == 0)
		fin_audit_tree_damaged(psprintf("Node " UINT64_FORMAT " of level %d is missing.",
										index, level));
	fin_audit_tree_hash_column(0, 1, hash);
	SPI_freetuptable(SPI_tuptable);
}

void
fin_audit_tree_subtree(void *source, int level, uint64 index, FinHash *hash)
{
	FinAuditTree *tree = source;

	if (((index + 1) << level) > tree->size)
		elog(ERROR, "subtree " UINT64_FORMAT " of level %d is not in the tree",
			 index, level);
	if (level >= FIN_AUDIT_NODE_LEVEL)
		subtree_of_node(level, index, hash);
	else
		subtree_of_chunk(tree, level, index, hash);
}

/* ------------------------------------------------------------------------
 * leaves
 * ------------------------------------------------------------------------ */

typedef struct Candidate
{
	int64		block;
	uint64		first_leaf;
	int64		records;
} Candidate;

static void
block_broken(int64 block)
{
	fin_audit_tree_damaged(psprintf("Block %lld does not have as many leaves as it says.",
									(long long) block));
}

static bool
find_in_block(const Candidate *candidate, int64 record_id,
			  FinAuditFound *found)
{
	Datum		values[1] = {Int64GetDatum(candidate->block)};
	bool		isnull;
	Datum		stored;
	bytea	   *packed;
	int			n;
	int			i;

	if (fin_query_run(&select_leaves, values, NULL, 1) == 0)
		block_broken(candidate->block);
	stored = fin_query_datum(0, 1, &isnull);
	packed = DatumGetByteaP(stored);
	n = (int) (VARSIZE_ANY_EXHDR(packed) / FIN_AUDIT_LEAF_ENTRY);
	if (n != candidate->records)
		block_broken(candidate->block);
	for (i = 0; i < n; i++)
	{
		fin_audit_leaf_get(VARDATA_ANY(packed) + (Size) i * FIN_AUDIT_LEAF_ENTRY,
						   &found->leaf);
		if (found->leaf.id == record_id)
			break;
	}
	found->index = candidate->first_leaf + i;
	if (DatumGetPointer(stored) != (Pointer) packed)
		pfree(packed);
	SPI_freetuptable(SPI_tuptable);
	return i < n;
}

bool
fin_audit_tree_find(int64 record_id, FinAuditFound *found)
{
	Datum		values[1] = {Int64GetDatum(record_id)};
	int			n = (int) fin_query_run(&select_candidates, values, NULL, 0);
	Candidate  *candidates = palloc(Max(n, 1) * sizeof(Candidate));

	for (int i = 0; i < n; i++)
	{
		candidates[i].block = fin_query_int64(i, 1);
		candidates[i].first_leaf = (uint64) fin_query_int64(i, 2);
		candidates[i].records = fin_query_int64(i, 3);
	}
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (find_in_block(&candidates[i], record_id, found))
			return true;
	}
	return false;
}
