/*
 * verify.c
 *		finance.verify_audit(): the audit log against its tree, leaf by leaf.
 *
 * Walks the blocks in order and appends their leaves to a frontier, whose root
 * each block must have; meanwhile the records are read in the order of the log
 * and laid beside the leaves.  A leaf without a record, a record without a
 * leaf, and one whose content is not what was hashed are each named.  Nothing
 * that is read is believed: a block, a leaf or a node may say anything.
 *
 * What cannot be found here is a history that was sealed anew from its
 * beginning, tables and all: that is what digests kept elsewhere are for.
 *
 * All of it is read with one snapshot.  Owns kept plans; memory is that of the
 * query scope, one page of blocks at a time.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_export.h"
#include "audit_scan.h"
#include "audit_tree.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "query.h"
#include "verify_parts.h"

#define BLOCKS_OF_PAGE	16
#define PROGRESS_MS		2000

typedef struct Verify
{
	ReturnSetInfo *result;
	Snapshot	snapshot;
	int64		from;			/* leaves: the first, */
	int64		to;				/* and the one after the last */
	bool		to_end;			/* of the log, records not sealed included */

	/* where the walk is */
	bool		knows_tree;		/* false: leaves are missing, no root is known */
	FinFrontier frontier;
	int64		size;			/* leaves passed */
	int64		block;			/* the last; 0: none */
	int32		incarnation;	/* its; 0: none */
	FinHash		digest;			/* its */
	FinAuditPosition position;	/* of its last record */

	/* the records of the incarnation */
	FinAuditScan *scan;			/* NULL: none yet */
	const FinAuditRow *row;		/* the next, or NULL: no more */
	int64		system_identifier;	/* of the incarnation's cluster */
	bool		sees_all;		/* the scan has those of other clusters, too */
	int64		other;			/* a cluster that has an incarnation, or 0 */

	MemoryContext home;			/* of the walk */
	MemoryContext page;			/* reset for each block */
	MemoryContext each;			/* reset for each record */
	StringInfoData work;
	TimestampTz told_at;		/* of the progress */
} Verify;

static FinQuery select_last_block =
{
	.sql = "SELECT b.block, b.size FROM finance.audit_block b"
	" ORDER BY b.block DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_start =
{
	.sql = "SELECT b.block FROM finance.audit_block b WHERE b.size > $1"
	" ORDER BY b.size LIMIT 1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_blocks =
{
	.sql = "SELECT b.block, b.incarnation, b.first_leaf, b.records, b.size,"
	" b.root, b.previous, b.digest, b.lsn, b.timeline, b.sealed_at, l.leaves"
	" FROM finance.audit_block b"
	" LEFT JOIN finance.audit_leaves l ON l.block = b.block"
	" WHERE b.block > $1 ORDER BY b.block LIMIT $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_incarnation =
{
	.sql = "SELECT i.system_identifier FROM finance.audit_incarnation i"
	" WHERE i.incarnation = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_incarnations =
{
	.sql = "SELECT pg_catalog.count(*) FROM finance.audit_incarnation i"
	" WHERE i.system_identifier = $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_tree =
{
	.sql = "SELECT t.size, t.incarnation, t.horizon, t.block, t.digest"
	" FROM finance.audit_tree t",
	.expect = SPI_OK_SELECT,
	.read_only = true,
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

/* ------------------------------------------------------------------------
 * problems
 * ------------------------------------------------------------------------ */

static void
report_block(Verify *verify, int64 leaf, const char *what, const char *expected,
			 const char *found)
{
	FinProblem	problem = {0};

	problem.has_leaf = true;
	problem.leaf = leaf;
	problem.problem = what;
	problem.expected = expected;
	problem.found = found;
	fin_verify_report(verify->result, &problem);
}

static void
report_hash(Verify *verify, int64 leaf, const char *what,
			const FinHash *expected, const FinHash *found)
{
	report_block(verify, leaf, what, fin_verify_hex(expected),
				 fin_verify_hex(found));
}

static bool
same_hash(const FinHash *a, const FinHash *b)
{
	return memcmp(a->bytes, b->bytes, FIN_HASH_LENGTH) == 0;
}

/* zeros for what is no hash: it will differ */
static void
get_hash(uint64 row, int column, FinHash *hash)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);
	bytea	   *bytes = isnull ? NULL : DatumGetByteaPP(value);

	memset(hash, 0, sizeof(*hash));
	if (bytes != NULL && VARSIZE_ANY_EXHDR(bytes) == FIN_HASH_LENGTH)
		memcpy(hash->bytes, VARDATA_ANY(bytes), FIN_HASH_LENGTH);
}

static void
tell_progress(Verify *verify)
{
	TimestampTz now;

	if (verify->size % 1024 != 0)
		return;
	CHECK_FOR_INTERRUPTS();
	now = GetCurrentTimestamp();
	if (!TimestampDifferenceExceeds(verify->told_at, now, PROGRESS_MS))
		return;
	verify->told_at = now;
	ereport(NOTICE,
			errmsg("%lld of %lld leaves verified",
				   (long long) (verify->size - verify->from),
				   (long long) (verify->to - verify->from)));
}

/* ------------------------------------------------------------------------
 * records
 * ------------------------------------------------------------------------ */

static int
compare_positions(const FinAuditPosition *a, const FinAuditPosition *b)
{
	if (a->xid != b->xid)
		return a->xid < b->xid ? -1 : 1;
	return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

static bool
is_of_incarnation(int64 system_identifier)
{
	Datum		values[1] = {Int64GetDatum(system_identifier)};
	bool		found;

	fin_query_run(&select_incarnations, values, NULL, 1);
	found = fin_query_int64(0, 1) > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * A record of another cluster than that of the incarnation: its own has its
 * turn, or it is this one, which has not sealed since it was restored; else it
 * has no business in a log that is sealed.
 */
static void
check_other(Verify *verify, const FinAuditRow *row)
{
	int64		of = DatumGetInt64(row->values[FIN_AUDIT_SYSTEM_IDENTIFIER]);
	MemoryContext caller = CurrentMemoryContext;

	if (of == verify->other)
		return;
	if (is_of_incarnation(of))
	{
		verify->other = of;
		MemoryContextSwitchTo(caller);
		return;
	}
	MemoryContextSwitchTo(verify->each);
	if (of != (int64) GetSystemIdentifier() && verify->system_identifier != 0)
		fin_verify_stranger(verify->result, row);
	else
		fin_verify_record(verify->result, row, -1, NULL, &verify->work);
	MemoryContextSwitchTo(caller);
}

static void
next_record(Verify *verify)
{
	for (;;)
	{
		verify->row = fin_audit_scan_next(verify->scan);
		if (verify->row == NULL || !verify->sees_all ||
			DatumGetInt64(verify->row->values[FIN_AUDIT_SYSTEM_IDENTIFIER]) ==
			verify->system_identifier)
			return;
		check_other(verify, verify->row);
	}
}

/*
 * The records left, which no leaf has: inserted, if what is below the horizon
 * was sealed, else only not sealed yet.
 */
static void
pass_unsealed(Verify *verify, uint64 horizon)
{
	while (verify->row != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(verify->each);

		CHECK_FOR_INTERRUPTS();
		if (fin_audit_position(verify->row).xid < horizon)
			fin_verify_stranger(verify->result, verify->row);
		else
			fin_verify_record(verify->result, verify->row, -1, NULL,
							  &verify->work);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(verify->each);
		next_record(verify);
	}
}

static void
end_incarnation(Verify *verify, uint64 horizon)
{
	if (verify->scan == NULL)
		return;
	pass_unsealed(verify, horizon);
	fin_audit_scan_end(verify->scan);
	verify->scan = NULL;
}

/* the first of a walk through everything meets the records of all clusters */
static void
begin_scan(Verify *verify)
{
	MemoryContext caller;

	verify->sees_all = verify->incarnation == 0 && verify->from == 0 &&
		verify->to_end;
	caller = MemoryContextSwitchTo(verify->home);
	verify->scan = fin_audit_scan_begin(verify->snapshot,
										verify->sees_all ? 0 :
										verify->system_identifier,
										&verify->position, FIN_AUDIT_XID_END);
	MemoryContextSwitchTo(caller);
	next_record(verify);
}

static void
begin_incarnation(Verify *verify, int32 incarnation)
{
	Datum		values[1] = {Int32GetDatum(incarnation)};

	verify->system_identifier = 0;
	if (fin_query_run(&select_incarnation, values, NULL, 1) == 1)
		verify->system_identifier = fin_query_int64(0, 1);
	else
		report_block(verify, verify->size, "incarnation missing",
					 psprintf("%d", incarnation), NULL);
	SPI_freetuptable(SPI_tuptable);
	if (verify->incarnation != incarnation)
		memset(&verify->position, 0, sizeof(verify->position));
	begin_scan(verify);
}

/* ------------------------------------------------------------------------
 * leaves
 * ------------------------------------------------------------------------ */

static void
report_missing(Verify *verify, const FinAuditLeaf *leaf)
{
	FinProblem	problem = {0};

	/* gone on purpose, which drop_audit_month() recorded */
	if (fin_audit_month_is_detached(leaf->id))
		return;
	problem.has_leaf = true;
	problem.leaf = verify->size;
	problem.record_id = leaf->id;
	problem.position = leaf->position;
	problem.problem = "missing";
	problem.expected = fin_verify_hex(&leaf->hash);
	fin_verify_report(verify->result, &problem);
}

/* the leaf's record, after those that have no leaf */
static void
check_record(Verify *verify, const FinAuditLeaf *leaf)
{
	bool		wanted = verify->size >= verify->from;

	while (verify->row != NULL)
	{
		FinAuditPosition position = fin_audit_position(verify->row);
		int			order = compare_positions(&position, &leaf->position);

		if (order > 0)
			break;
		if (order == 0)
		{
			if (wanted)
				fin_verify_record(verify->result, verify->row, verify->size,
								  &leaf->hash, &verify->work);
			next_record(verify);
			return;
		}
		if (wanted)
			fin_verify_stranger(verify->result, verify->row);
		next_record(verify);
	}
	if (wanted)
		report_missing(verify, leaf);
}

static void
check_node(void *state, int level, uint64 index, const FinHash *hash)
{
	Verify	   *verify = state;
	Datum		values[2] = {Int16GetDatum(level), Int64GetDatum(index)};
	FinHash		stored;

	if (level < FIN_AUDIT_NODE_LEVEL)
		return;
	if (fin_query_run(&select_node, values, NULL, 1) == 0)
		memset(&stored, 0, sizeof(stored));
	else
		get_hash(0, 1, &stored);
	SPI_freetuptable(SPI_tuptable);
	if (!same_hash(&stored, hash))
		report_hash(verify, verify->size,
					psprintf("node " UINT64_FORMAT " of level %d", index, level),
					hash, &stored);
}

static void
check_leaf(Verify *verify, const FinAuditLeaf *leaf)
{
	if (verify->knows_tree)
		fin_merkle_append(&verify->frontier, &leaf->hash, check_node, verify);
	MemoryContextSwitchTo(verify->each);
	check_record(verify, leaf);
	MemoryContextSwitchTo(verify->page);
	MemoryContextReset(verify->each);
	verify->size++;
	verify->position = leaf->position;
	tell_progress(verify);
}

/* ------------------------------------------------------------------------
 * blocks
 * ------------------------------------------------------------------------ */

typedef struct StoredBlock
{
	FinAuditBlock block;
	bytea	   *leaves;			/* NULL: there are none */
} StoredBlock;

static void
read_block(uint64 row, StoredBlock *stored)
{
	FinAuditBlock *block = &stored->block;
	bool		isnull;
	Datum		leaves;

	memset(stored, 0, sizeof(*stored));
	block->block = fin_query_int64(row, 1);
	block->incarnation = DatumGetInt32(fin_query_datum(row, 2, &isnull));
	block->first_leaf = fin_query_int64(row, 3);
	block->records = DatumGetInt32(fin_query_datum(row, 4, &isnull));
	block->size = fin_query_int64(row, 5);
	get_hash(row, 6, &block->root);
	get_hash(row, 7, &block->previous);
	get_hash(row, 8, &block->digest);
	block->lsn = (XLogRecPtr) fin_query_int64(row, 9);
	block->timeline = DatumGetInt32(fin_query_datum(row, 10, &isnull));
	block->sealed_at = fin_query_int64(row, 11);
	leaves = fin_query_datum(row, 12, &isnull);
	stored->leaves = isnull ? NULL : DatumGetByteaPP(leaves);
}

/* what the block says of itself and of the one before */
static void
check_block_row(Verify *verify, const FinAuditBlock *block)
{
	int64		leaf = verify->size;
	FinHash		computed;

	if (block->block != verify->block + 1)
	{
		report_block(verify, leaf, "block missing",
					 psprintf("block %lld", (long long) (verify->block + 1)),
					 psprintf("block %lld", (long long) block->block));
		verify->knows_tree = false;
	}
	else if (!same_hash(&block->previous, &verify->digest))
		report_hash(verify, leaf,
					psprintf("chain of block %lld", (long long) block->block),
					&verify->digest, &block->previous);
	fin_audit_block_digest(block, &computed);
	if (!same_hash(&block->digest, &computed))
		report_hash(verify, leaf,
					psprintf("digest of block %lld", (long long) block->block),
					&block->digest, &computed);
	if (block->first_leaf != verify->size && verify->knows_tree)
		report_block(verify, leaf,
					 psprintf("first leaf of block %lld", (long long) block->block),
					 psprintf("%lld", (long long) verify->size),
					 psprintf("%lld", (long long) block->first_leaf));
}

static int
count_leaves(const StoredBlock *stored)
{
	if (stored->leaves == NULL)
		return 0;
	return (int) (VARSIZE_ANY_EXHDR(stored->leaves) / FIN_AUDIT_LEAF_ENTRY);
}

/* the first root that is wrong is told; those after it follow from it */
static void
check_root(Verify *verify, const StoredBlock *stored)
{
	const FinAuditBlock *block = &stored->block;
	FinHash		root;

	if (count_leaves(stored) != block->records ||
		block->size != block->first_leaf + block->records)
	{
		report_block(verify, block->first_leaf,
					 psprintf("leaves of block %lld", (long long) block->block),
					 psprintf("%d", block->records),
					 psprintf("%d", count_leaves(stored)));
		verify->knows_tree = false;
	}
	if (!verify->knows_tree)
		return;
	fin_merkle_frontier_root(&verify->frontier, &root);
	if (same_hash(&root, &block->root))
		return;
	report_hash(verify, block->first_leaf,
				psprintf("root of block %lld", (long long) block->block),
				&block->root, &root);
	verify->knows_tree = false;
}

static void
check_block(Verify *verify, const StoredBlock *stored)
{
	const FinAuditBlock *block = &stored->block;

	check_block_row(verify, block);
	if (!verify->knows_tree)
		verify->size = block->first_leaf;
	if (block->incarnation != verify->incarnation || verify->scan == NULL)
	{
		end_incarnation(verify, FIN_AUDIT_XID_END);
		begin_incarnation(verify, block->incarnation);
	}
	verify->incarnation = block->incarnation;
	for (int i = 0; i < count_leaves(stored); i++)
	{
		FinAuditLeaf leaf;

		if (verify->size == verify->to)
			return;
		fin_audit_leaf_get(VARDATA_ANY(stored->leaves) +
						   (Size) i * FIN_AUDIT_LEAF_ENTRY, &leaf);
		check_leaf(verify, &leaf);
	}
	check_root(verify, stored);
	verify->block = block->block;
	verify->digest = block->digest;
	verify->size = block->size;
}

static void
check_blocks(Verify *verify)
{
	MemoryContext caller = MemoryContextSwitchTo(verify->page);
	uint64		n;

	do
	{
		Datum		values[2] = {Int64GetDatum(verify->block),
		Int64GetDatum(BLOCKS_OF_PAGE)};
		SPITupleTable *page;

		n = fin_query_run(&select_blocks, values, NULL, 0);
		page = SPI_tuptable;
		for (uint64 i = 0; i < n && verify->size < verify->to; i++)
		{
			StoredBlock stored;

			SPI_tuptable = page;
			MemoryContextSwitchTo(verify->page);
			read_block(i, &stored);
			check_block(verify, &stored);
			MemoryContextReset(verify->page);
		}
		SPI_freetuptable(page);
	} while (n == BLOCKS_OF_PAGE && verify->size < verify->to);
	MemoryContextSwitchTo(caller);
}

/* ------------------------------------------------------------------------
 * beginning and end
 * ------------------------------------------------------------------------ */

/* the frontier before the block, from nodes and leaves; checked by its root */
static void
load_frontier(Verify *verify, uint64 size)
{
	FinAuditTree tree;
	uint64		start = 0;

	fin_audit_tree_open(&tree, size);
	verify->frontier.size = size;
	verify->frontier.depth = 0;
	for (int level = 62; level >= 0; level--)
	{
		if ((size & (UINT64CONST(1) << level)) == 0)
			continue;
		fin_audit_tree_subtree(&tree, level, start >> level,
							   &verify->frontier.hashes[verify->frontier.depth++]);
		start += UINT64CONST(1) << level;
	}
}

/* as if all blocks before the one with leaf 'from' had been walked */
static void
start_at(Verify *verify, int64 from)
{
	Datum		values[2] = {Int64GetDatum(from), Int64GetDatum(1)};
	StoredBlock before;
	FinHash		root;
	int64		first;

	if (fin_query_run(&select_start, values, NULL, 1) == 0)
		return;
	first = fin_query_int64(0, 1);
	if (first <= 1)
		return;
	values[0] = Int64GetDatum(first - 2);
	if (fin_query_run(&select_blocks, values, NULL, 0) == 0)
		return;
	read_block(0, &before);
	if (before.block.block != first - 1)
		return;
	verify->block = before.block.block;
	verify->incarnation = before.block.incarnation;
	verify->digest = before.block.digest;
	verify->size = before.block.size;
	if (count_leaves(&before) > 0)
	{
		FinAuditLeaf last;

		fin_audit_leaf_get(VARDATA_ANY(before.leaves) +
						   (Size) (count_leaves(&before) - 1) *
						   FIN_AUDIT_LEAF_ENTRY, &last);
		verify->position = last.position;
	}
	load_frontier(verify, (uint64) before.block.size);
	fin_merkle_frontier_root(&verify->frontier, &root);
	if (!same_hash(&root, &before.block.root))
	{
		report_hash(verify, before.block.first_leaf,
					psprintf("root of block %lld", (long long) before.block.block),
					&before.block.root, &root);
		verify->knows_tree = false;
	}
}

/* does the row that sealing goes on from say what the last block says? */
static uint64
check_tree(Verify *verify)
{
	FinHash		digest;
	uint64		horizon = 0;
	bool		isnull;

	if (fin_query_run(&select_tree, NULL, NULL, 1) == 0)
	{
		if (verify->block > 0)
			report_block(verify, verify->size, "tree missing", NULL, NULL);
		return 0;
	}
	get_hash(0, 5, &digest);
	if (fin_query_int64(0, 1) != verify->size ||
		fin_query_int64(0, 4) != verify->block ||
		!same_hash(&digest, &verify->digest))
		report_block(verify, verify->size, "tree",
					 psprintf("block %lld, size %lld",
							  (long long) fin_query_int64(0, 4),
							  (long long) fin_query_int64(0, 1)),
					 psprintf("block %lld, size %lld",
							  (long long) verify->block,
							  (long long) verify->size));
	if (DatumGetInt32(fin_query_datum(0, 2, &isnull)) == verify->incarnation)
		horizon = DatumGetUInt64(fin_query_datum(0, 3, &isnull));
	return horizon;
}

static void
finish(Verify *verify)
{
	uint64		horizon;

	if (!verify->to_end)
	{
		if (verify->scan != NULL)
			fin_audit_scan_end(verify->scan);
		return;
	}
	horizon = check_tree(verify);
	if (verify->scan == NULL && verify->incarnation != 0)
		begin_incarnation(verify, verify->incarnation);
	else if (verify->scan == NULL)
		begin_scan(verify);
	end_incarnation(verify, horizon);
	if (verify->from == 0)
		fin_verify_versions(verify->result);
}

static void
read_range(Verify *verify, FunctionCallInfo fcinfo)
{
	int64		size = 0;

	if (fin_query_run(&select_last_block, NULL, NULL, 1) == 1)
		size = fin_query_int64(0, 2);
	verify->from = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	verify->to_end = PG_ARGISNULL(1);
	verify->to = verify->to_end ? PG_INT64_MAX : PG_GETARG_INT64(1);
	if (verify->from < 0 || verify->to < verify->from)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("leaves %lld to %lld are no range",
					   (long long) verify->from, (long long) verify->to),
				errhint("Leaves count from 0; to_leaf is the one after the last."));
	if (!verify->to_end && verify->to > size)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_DIGEST),
				errmsg("leaf %lld is not sealed yet", (long long) verify->to - 1),
				errdetail("The log has %lld leaves.", (long long) size));
}

static void
verify_log(Verify *verify, FunctionCallInfo fcinfo)
{
	read_range(verify, fcinfo);
	verify->knows_tree = true;
	verify->home = CurrentMemoryContext;
	verify->page = AllocSetContextCreate(CurrentMemoryContext,
										 "finance verify blocks",
										 ALLOCSET_DEFAULT_SIZES);
	verify->each = AllocSetContextCreate(CurrentMemoryContext,
										 "finance verify record",
										 ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&verify->work);
	verify->told_at = GetCurrentTimestamp();
	if (verify->from > 0)
		start_at(verify, verify->from);
	check_blocks(verify);
	finish(verify);
}

PG_FUNCTION_INFO_V1(finance_verify_audit);

/*
 * finance.verify_audit(from_leaf bigint, to_leaf bigint)
 *		returns table (leaf, record_id, xid, sequence, problem, expected, found)
 *
 * What is wrong with the audit log from leaf from_leaf on to before to_leaf
 * (null: to its end, with what is not sealed yet); no row: nothing.  Of the
 * whole log also whether every version of every account has its record.
 * Problems: 'altered' (a record's content is not what was hashed), 'payload
 * altered', 'missing' (a leaf without its record), 'inserted' (a record without
 * a leaf, where all are sealed), 'version missing', 'version twice', 'version
 * too high' (expected tells the account); and of the tree: 'root of block N',
 * 'digest of ...', 'chain of ...', 'leaves of ...', 'first leaf of ...', 'block
 * missing', 'node N of level L', 'tree', 'tree missing', 'incarnation missing'.
 * Tells its progress by NOTICE.  Looks at all tenants.
 * Errors: 22023 no range; LG202 to_leaf is not sealed; LG205 with from_leaf:
 * what is before it cannot be read.  Locks: those of a SELECT.
 */
Datum
finance_verify_audit(PG_FUNCTION_ARGS)
{
	Verify		verify = {0};
	FinQueryScope scope;

	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	fin_query_begin(&scope);
	verify.result = (ReturnSetInfo *) fcinfo->resultinfo;
	verify.snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(verify.snapshot);
	verify_log(&verify, fcinfo);
	PopActiveSnapshot();
	UnregisterSnapshot(verify.snapshot);
	fin_query_end(&scope);
	return (Datum) 0;
}
