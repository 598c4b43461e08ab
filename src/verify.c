/*
 * verify.c
 *		finance.verify_audit(): the audit log against its tree, leaf by leaf.
 *
 * Walks the blocks in order and appends their leaves to a frontier, whose root
 * each block must have; meanwhile the records are read in the order of the log
 * and laid beside the leaves.  A leaf without a record, a record without a
 * leaf, and one whose content is not what was hashed are each named.  What finds
 * the records, terms, is held against them (verify_term.c).  Nothing that is
 * read is believed: a block, a leaf, a node or a run of terms may say anything.
 *
 * Records that are not sealed have no leaf yet: they are held against their own
 * hash, and their places against each other's (verify_order.c).
 *
 * What cannot be found here is a history that was sealed anew, tables and all:
 * that is what digests kept elsewhere are for.  And, of what is not sealed yet,
 * what ended a transaction and no account's version tells of, and a record that
 * was changed together with its hash: that is why sealing does not wait.
 *
 * All of it is read with one snapshot.  Owns kept plans; memory is that of the
 * query scope, one page of blocks at a time.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_scan.h"
#include "audit_tree.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "query.h"
#include "verify_parts.h"

#define BLOCKS_OF_PAGE	16
#define PROGRESS_MS		2000
#define CLUSTERS_MAX	64		/* that records without a leaf may be of */

/* a cluster that is not that of the incarnation at work */
typedef struct OtherCluster
{
	int64		system_identifier;
	bool		has_turn;		/* has sealed in an incarnation of its own */
	FinVerifyOrder order;
} OtherCluster;

typedef struct Verify
{
	ReturnSetInfo *result;
	bool		tells_progress;
	Snapshot	snapshot;
	int64		from;			/* leaves: the first, */
	int64		to;				/* and the one after the last */
	bool		to_end;			/* of the log, records not sealed included */
	int64		sealed;			/* leaves that there are */
	uint64		next_xid;		/* nothing of this cluster has this or a higher */

	/* where the walk is */
	bool		knows_tree;		/* false: leaves are missing, no root is known */
	FinFrontier frontier;
	int64		size;			/* leaves passed */
	int64		block;			/* the last; 0: none */
	int32		incarnation;	/* its; 0: none */
	FinHash		digest;			/* its */
	FinVerifyOrder order;		/* of the incarnation's records */
	FinVerifySeen seen;			/* of the block at work */
	FinVerifyGone *gone;
	FinVerifyTerms *terms;

	/* the records of the incarnation */
	FinAuditScan *scan;			/* NULL: none yet */
	const FinAuditRow *row;		/* the next, or NULL: no more */
	int64		system_identifier;	/* of the incarnation's cluster */
	bool		sees_all;		/* the scan has those of other clusters, too */
	OtherCluster *others;		/* it met */
	int			nothers;

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
	" b.root, b.previous, b.digest, b.lsn, b.timeline, b.sealed_at, l.leaves,"
	" b.first_xid, b.first_sequence, b.last_xid, b.last_sequence,"
	" b.first_id, b.last_id, b.first_recorded_at, b.last_recorded_at"
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
	.sql = "SELECT i.incarnation, i.system_identifier, i.first_block"
	" FROM finance.audit_incarnation i"
	" WHERE i.incarnation BETWEEN $1 AND $2 ORDER BY 1",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_tree =
{
	.sql = "SELECT t.size, t.incarnation, t.horizon, t.block, t.digest, t.frontier"
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
	if (!verify->tells_progress)
		return;
	now = GetCurrentTimestamp();
	if (!TimestampDifferenceExceeds(verify->told_at, now, PROGRESS_MS))
		return;
	verify->told_at = now;
	ereport(NOTICE,
			errmsg("%lld of %lld leaves verified",
				   (long long) (verify->size - verify->from),
				   (long long) (Min(verify->to, verify->sealed) - verify->from)));
}

/* ------------------------------------------------------------------------
 * records
 * ------------------------------------------------------------------------ */

/* a record that no leaf has yet */
static void
check_unsealed(Verify *verify, FinVerifyOrder *order, const FinAuditRow *row)
{
	FinAuditPosition place = fin_audit_position(row);
	int64		of = DatumGetInt64(row->values[FIN_AUDIT_SYSTEM_IDENTIFIER]);

	if (of == (int64) GetSystemIdentifier() && place.xid >= verify->next_xid)
	{
		fin_verify_stranger(verify->result, row);
		return;
	}
	if (fin_verify_place(verify->result, order, -1,
						 DatumGetInt64(row->values[FIN_AUDIT_ID]), &place, true))
		fin_verify_call(verify->result, order, row, true);
	fin_verify_gone_hear(verify->gone, row);
	fin_verify_gone_payload(verify->gone, row, -1);
	(void) fin_verify_record(verify->result, row, -1, NULL, &verify->work);
}

/* NULL: there are too many */
static OtherCluster *
find_other(Verify *verify, int64 system_identifier)
{
	OtherCluster *other;
	MemoryContext caller = CurrentMemoryContext;

	for (int i = 0; i < verify->nothers; i++)
	{
		if (verify->others[i].system_identifier == system_identifier)
			return &verify->others[i];
	}
	if (verify->nothers == CLUSTERS_MAX)
		return NULL;
	if (verify->nothers == 0)
		verify->others = MemoryContextAlloc(verify->home, CLUSTERS_MAX *
											sizeof(OtherCluster));
	other = &verify->others[verify->nothers++];
	other->system_identifier = system_identifier;
	other->has_turn = fin_verify_has_turn(system_identifier, 0);
	MemoryContextSwitchTo(caller);
	fin_verify_order_begin(&other->order);
	return other;
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
	OtherCluster *other = find_other(verify, of);
	MemoryContext caller;

	if (other != NULL && other->has_turn)
		return;
	caller = MemoryContextSwitchTo(verify->each);
	if (other == NULL ||
		(of != (int64) GetSystemIdentifier() && verify->system_identifier != 0))
		fin_verify_stranger(verify->result, row);
	else
		check_unsealed(verify, &other->order, row);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(verify->each);
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
			check_unsealed(verify, &verify->order, verify->row);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(verify->each);
		next_record(verify);
	}
}

/* those left are for a later incarnation of the cluster */
static void
pass_by(Verify *verify)
{
	while (verify->row != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		next_record(verify);
	}
}

static void
end_incarnation(Verify *verify, uint64 horizon)
{
	if (verify->scan == NULL)
		return;
	if (fin_verify_has_turn(verify->system_identifier, verify->incarnation))
		pass_by(verify);
	else
		pass_unsealed(verify, horizon);
	fin_verify_order_end(verify->result, &verify->order);
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
										&verify->order.place, FIN_AUDIT_XID_END);
	MemoryContextSwitchTo(caller);
	next_record(verify);
}

static void
report_incarnation(Verify *verify, const char *what, int64 expected,
				   int64 found)
{
	report_block(verify, verify->size, what,
				 psprintf("%lld", (long long) expected),
				 psprintf("%lld", (long long) found));
}

/*
 * The incarnations from one to another, if there are so many: each began with
 * the block that was next, which is the same for those that sealed nothing.
 * Returns the last, or 0, and leaves its system identifier.
 */
static int32
check_incarnations(Verify *verify, int32 from, int32 to)
{
	Datum		values[2] = {Int32GetDatum(from), Int32GetDatum(to)};
	uint64		n = fin_query_run(&select_incarnation, values, NULL, 0);
	int32		last = 0;

	verify->system_identifier = 0;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		last = DatumGetInt32(fin_query_datum(i, 1, &isnull));
		verify->system_identifier = fin_query_int64(i, 2);
		if (last != from + (int64) i)
			report_incarnation(verify, "incarnation", from + (int64) i, last);
		if (last != verify->incarnation &&
			fin_query_int64(i, 3) != verify->block + 1)
			report_incarnation(verify,
							   psprintf("first block of incarnation %d", last),
							   verify->block + 1, fin_query_int64(i, 3));
	}
	SPI_freetuptable(SPI_tuptable);
	return last;
}

/* the incarnation before tells where this one is to begin, if blocks are right */
static void
begin_incarnation(Verify *verify, int32 incarnation)
{
	int32		from = incarnation > verify->incarnation && verify->knows_tree ?
		verify->incarnation + 1 : incarnation;

	if (check_incarnations(verify, from, incarnation) != incarnation)
		report_block(verify, verify->size, "incarnation missing",
					 psprintf("%d", incarnation), NULL);
	if (verify->incarnation != incarnation)
	{
		fin_verify_order_begin(&verify->order);
		(void) fin_verify_left_at(verify->system_identifier, incarnation,
								  &verify->order.place);
	}
	begin_scan(verify);
}

/*
 * The horizon of an incarnation that another one follows: all was sealed, but
 * what this cluster wrote since the book came back to it.
 */
static uint64
horizon_before(const Verify *verify)
{
	return verify->system_identifier == (int64) GetSystemIdentifier() ? 0 :
		FIN_AUDIT_XID_END;
}

/* ------------------------------------------------------------------------
 * leaves
 * ------------------------------------------------------------------------ */

static void
report_missing(Verify *verify, const FinAuditLeaf *leaf)
{
	FinProblem	problem = {0};

	problem.has_leaf = true;
	problem.leaf = verify->size;
	problem.record_id = leaf->id;
	problem.position = leaf->position;
	problem.problem = "missing";
	problem.expected = fin_verify_hex(&leaf->hash);
	if (!fin_verify_gone_record(verify->gone, &problem))
		fin_verify_report(verify->result, &problem);
}

static void
check_sealed(Verify *verify, const FinAuditLeaf *leaf, bool wanted)
{
	bool		is_right;

	fin_verify_see_record(&verify->seen, verify->row);
	fin_verify_call(verify->result, &verify->order, verify->row, wanted);
	fin_verify_gone_hear(verify->gone, verify->row);
	if (!wanted)
		return;
	fin_verify_gone_payload(verify->gone, verify->row, verify->size);
	is_right = fin_verify_record(verify->result, verify->row, verify->size,
								 &leaf->hash, &verify->work);
	fin_verify_terms_add(verify->terms, verify->size,
						 is_right ? verify->row : NULL);
}

/* the leaf's record, after those that have no leaf */
static void
check_record(Verify *verify, const FinAuditLeaf *leaf)
{
	bool		wanted = verify->size >= verify->from;

	while (verify->row != NULL)
	{
		FinAuditPosition position = fin_audit_position(verify->row);
		int			order = fin_audit_compare(&position, &leaf->position);

		if (order > 0)
			break;
		if (order == 0 &&
			DatumGetInt64(verify->row->values[FIN_AUDIT_ID]) == leaf->id)
		{
			check_sealed(verify, leaf, wanted);
			next_record(verify);
			return;
		}
		if (wanted)
			fin_verify_stranger(verify->result, verify->row);
		next_record(verify);
	}
	/* told once: not by its call too */
	verify->order.knows_call = false;
	if (!wanted)
		return;
	report_missing(verify, leaf);
	fin_verify_terms_add(verify->terms, verify->size, NULL);
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
	if (!fin_merkle_same(&stored, hash))
		report_hash(verify, verify->size,
					psprintf("node " UINT64_FORMAT " of level %d", index, level),
					hash, &stored);
}

static void
check_leaf(Verify *verify, const FinAuditLeaf *leaf)
{
	if (verify->knows_tree)
		fin_merkle_append(&verify->frontier, &leaf->hash, check_node, verify);
	fin_verify_see_leaf(&verify->seen, leaf);
	MemoryContextSwitchTo(verify->each);
	(void) fin_verify_place(verify->result, &verify->order, verify->size,
							leaf->id, &leaf->position,
							verify->size >= verify->from);
	check_record(verify, leaf);
	MemoryContextSwitchTo(verify->page);
	MemoryContextReset(verify->each);
	verify->size++;
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
read_bounds(uint64 row, FinAuditBlock *block)
{
	bool		isnull;

	block->first.xid = DatumGetUInt64(fin_query_datum(row, 13, &isnull));
	block->first.sequence = DatumGetInt32(fin_query_datum(row, 14, &isnull));
	block->last.xid = DatumGetUInt64(fin_query_datum(row, 15, &isnull));
	block->last.sequence = DatumGetInt32(fin_query_datum(row, 16, &isnull));
	block->first_id = fin_query_int64(row, 17);
	block->last_id = fin_query_int64(row, 18);
	block->first_recorded_at = fin_query_int64(row, 19);
	block->last_recorded_at = fin_query_int64(row, 20);
}

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
	read_bounds(row, block);
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
		verify->order.knows_place = verify->order.knows_call = false;
	}
	else if (!fin_merkle_same(&block->previous, &verify->digest))
		report_hash(verify, leaf,
					psprintf("chain of block %lld", (long long) block->block),
					&verify->digest, &block->previous);
	fin_audit_block_digest(block, &computed);
	if (!fin_merkle_same(&block->digest, &computed))
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

static bool
has_all_leaves(const StoredBlock *stored)
{
	return stored->leaves != NULL &&
		VARSIZE_ANY_EXHDR(stored->leaves) ==
		(Size) stored->block.records * FIN_AUDIT_LEAF_ENTRY;
}

/* the first root that is wrong is told; those after it follow from it */
static void
check_root(Verify *verify, const StoredBlock *stored)
{
	const FinAuditBlock *block = &stored->block;
	FinHash		root;

	if (!has_all_leaves(stored) ||
		block->size != block->first_leaf + block->records)
	{
		report_block(verify, block->first_leaf,
					 psprintf("leaves of block %lld", (long long) block->block),
					 psprintf("%d", block->records),
					 psprintf("%d", count_leaves(stored)));
		verify->knows_tree = false;
		verify->order.knows_place = verify->order.knows_call = false;
	}
	if (!verify->knows_tree)
		return;
	fin_merkle_frontier_root(&verify->frontier, &root);
	if (fin_merkle_same(&root, &block->root))
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
		end_incarnation(verify, horizon_before(verify));
		begin_incarnation(verify, block->incarnation);
	}
	verify->incarnation = block->incarnation;
	memset(&verify->seen, 0, sizeof(verify->seen));
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
	fin_verify_bounds(verify->result, block, &verify->seen);
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
	verify->order.knows_place = verify->order.knows_call = false;
	if (count_leaves(&before) > 0)
	{
		FinAuditLeaf last;

		fin_audit_leaf_get(VARDATA_ANY(before.leaves) +
						   (Size) (count_leaves(&before) - 1) *
						   FIN_AUDIT_LEAF_ENTRY, &last);
		verify->order.place = last.position;
		verify->order.knows_place = true;
	}
	load_frontier(verify, (uint64) before.block.size);
	fin_merkle_frontier_root(&verify->frontier, &root);
	if (!fin_merkle_same(&root, &before.block.root))
	{
		report_hash(verify, before.block.first_leaf,
					psprintf("root of block %lld", (long long) before.block.block),
					&before.block.root, &root);
		verify->knows_tree = false;
	}
}

static bool
is_frontier(uint64 row, int column, const FinFrontier *frontier)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);
	bytea	   *bytes = isnull ? NULL : DatumGetByteaPP(value);
	Size		length = (Size) frontier->depth * FIN_HASH_LENGTH;

	return bytes != NULL && VARSIZE_ANY_EXHDR(bytes) == length &&
		memcmp(VARDATA_ANY(bytes), frontier->hashes, length) == 0;
}

/* below it all were sealed: not below the last that was, nor what has not been */
static bool
is_horizon(const Verify *verify, uint64 horizon)
{
	return horizon >= verify->order.place.xid &&
		(verify->system_identifier != (int64) GetSystemIdentifier() ||
		 horizon <= verify->next_xid);
}

/* does the row that sealing goes on from say what the last block says? */
static uint64
check_tree_row(Verify *verify, int32 last_incarnation)
{
	FinHash		digest;
	bool		isnull;
	int32		incarnation = DatumGetInt32(fin_query_datum(0, 2, &isnull));
	uint64		horizon = DatumGetUInt64(fin_query_datum(0, 3, &isnull));

	get_hash(0, 5, &digest);
	if (fin_query_int64(0, 1) != verify->size ||
		fin_query_int64(0, 4) != verify->block ||
		!fin_merkle_same(&digest, &verify->digest))
		report_block(verify, verify->size, "tree",
					 psprintf("block %lld, size %lld",
							  (long long) fin_query_int64(0, 4),
							  (long long) fin_query_int64(0, 1)),
					 psprintf("block %lld, size %lld",
							  (long long) verify->block,
							  (long long) verify->size));
	if (verify->knows_tree && !is_frontier(0, 6, &verify->frontier))
		report_block(verify, verify->size, "frontier of the tree", NULL, NULL);
	if (incarnation != last_incarnation)
		report_incarnation(verify, "incarnation of the tree", last_incarnation,
						   incarnation);
	if (incarnation != verify->incarnation)
		return 0;
	if (is_horizon(verify, horizon))
		return horizon;
	report_block(verify, verify->size, "horizon of the tree", NULL,
				 psprintf(UINT64_FORMAT, horizon));
	return 0;
}

static uint64
check_tree(Verify *verify)
{
	int64		mine = verify->system_identifier;
	int32		incarnation = check_incarnations(verify, verify->incarnation + 1,
												 PG_INT32_MAX);

	verify->system_identifier = mine;
	incarnation = Max(incarnation, verify->incarnation);
	if (fin_query_run(&select_tree, NULL, NULL, 1) > 0)
		return check_tree_row(verify, incarnation);
	if (verify->block > 0 || incarnation > 0)
		report_block(verify, verify->size, "tree missing", NULL, NULL);
	return 0;
}

static void
end_others(Verify *verify)
{
	for (int i = 0; i < verify->nothers; i++)
		fin_verify_order_end(verify->result, &verify->others[i].order);
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
	if (verify->scan == NULL && verify->incarnation != 0)
		begin_incarnation(verify, verify->incarnation);
	else if (verify->scan == NULL)
		begin_scan(verify);
	horizon = check_tree(verify);
	end_incarnation(verify, horizon);
	end_others(verify);
	if (verify->from > 0)
		return;
	fin_verify_odd_rows(verify->result, verify->size);
	fin_verify_versions(verify->result);
}

static void
read_range(Verify *verify, FunctionCallInfo fcinfo)
{
	verify->from = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	verify->to_end = PG_ARGISNULL(1);
	verify->to = verify->to_end ? PG_INT64_MAX : PG_GETARG_INT64(1);
	if (verify->from < 0 || verify->to < verify->from)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("leaves %lld to %lld are no range",
					   (long long) verify->from, (long long) verify->to),
				errhint("Leaves count from 0; to_leaf is the one after the last."));
}

static void
check_range(Verify *verify)
{
	if (fin_query_run(&select_last_block, NULL, NULL, 1) == 1)
		verify->sealed = fin_query_int64(0, 2);
	if (!verify->to_end && verify->to > verify->sealed)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_DIGEST),
				errmsg("leaf %lld is not sealed yet", (long long) verify->to - 1),
				errdetail("The log has %lld leaves.",
						  (long long) verify->sealed));
}

static void
walk(Verify *verify)
{
	check_range(verify);
	verify->next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	verify->knows_tree = true;
	fin_verify_order_begin(&verify->order);
	verify->home = CurrentMemoryContext;
	verify->page = AllocSetContextCreate(CurrentMemoryContext,
										 "finance verify blocks",
										 ALLOCSET_DEFAULT_SIZES);
	verify->each = AllocSetContextCreate(CurrentMemoryContext,
										 "finance verify record",
										 ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&verify->work);
	verify->gone = fin_verify_gone_begin();
	verify->told_at = GetCurrentTimestamp();
	verify->terms = fin_verify_terms_begin(verify->result, verify->from,
										   verify->to, verify->sealed);
	if (verify->from > 0)
		start_at(verify, verify->from);
	check_blocks(verify);
	fin_verify_terms_end(verify->terms, Min(verify->to, verify->sealed));
	finish(verify);
	fin_verify_gone_end(verify->result, verify->gone, verify->snapshot,
						verify->to_end, verify->from == 0 && verify->to_end);
}

static void
verify_log(Verify *verify, FunctionCallInfo fcinfo)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	verify->result = (ReturnSetInfo *) fcinfo->resultinfo;
	verify->snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(verify->snapshot);
	walk(verify);
	PopActiveSnapshot();
	UnregisterSnapshot(verify->snapshot);
	fin_query_end(&scope);
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
 * altered', 'payload missing' (nor was it erased), 'missing' (a leaf without its
 * record, or the last of a call), 'month N' and 'months taken out' (not by
 * drop_audit_month(), or more is missing than it took),
 * 'inserted' (a record without a leaf, where all are sealed), 'gap' (numbers
 * of a transaction's records that none has: xid and sequence tell where), 'out
 * of order' (a place twice), 'call' (trace_until is not where a call begins, or
 * not its end), 'version missing', 'version twice', 'version too high'
 * (expected tells the account); and of the tree: 'root of block N', 'digest of
 * ...', 'chain of ...', 'leaves of ...', 'first leaf of ...', 'first_xid of
 * ...' and so on, 'block missing', 'node N of level L', 'tree', 'frontier of the
 * tree', 'incarnation of ...', 'horizon of ...', 'tree missing', 'incarnation',
 * 'first block of incarnation N', 'incarnation missing'; and of what finds
 * records: 'terms from leaf N' (the run of terms from there on does not have
 * those of the records, or is not where it belongs), 'terms missing' (from this
 * leaf on).
 * Tells its progress by NOTICE.  Looks at all tenants.
 * Errors: 22023 no range; LG202 to_leaf is not sealed; LG205 with from_leaf:
 * what is before it cannot be read.  Locks: those of a SELECT.
 */
Datum
finance_verify_audit(PG_FUNCTION_ARGS)
{
	Verify		verify = {.tells_progress = true};

	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();		/* is the user somebody's at all? */
	read_range(&verify, fcinfo);
	verify_log(&verify, fcinfo);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_verify_audit_all);

/*
 * finance._verify_audit()
 *		returns table (leaf, record_id, xid, sequence, problem, expected, found)
 *
 * For check_integrity(): verify_audit() of the whole log, for whatever tenant,
 * without a word on how it gets on.
 */
Datum
finance_verify_audit_all(PG_FUNCTION_ARGS)
{
	Verify		verify = {.to = PG_INT64_MAX, .to_end = true};

	InitMaterializedSRF(fcinfo, 0);
	verify_log(&verify, fcinfo);
	return (Datum) 0;
}
