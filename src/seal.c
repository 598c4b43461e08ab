/*
 * seal.c
 *		Sealing the audit log: numbering its records in their order, for ever,
 *		as leaves of one RFC 6962 tree; finance.seal_audit() and the worker's
 *		chore.
 *
 * Writers hash their own records and order nothing.  A sealer takes a snapshot
 * and seals the committed records of all transactions below its xmin, ordered
 * by (xid, sequence): none of these transactions still runs, so nothing can come
 * before them later (fin_seal_horizon() says why).  What is at or above waits;
 * the oldest open transaction of the cluster holds it up, and nothing else does.
 *
 * A run seals blocks: a row of finance.audit_block, the leaves, the nodes of the
 * tree that the leaves complete, the terms that find the records, and where to
 * go on, in finance.audit_tree: all in one transaction, so that a crash at any
 * step leaves either all of it or nothing.  Its commit waits for the WAL,
 * whatever synchronous_commit says: no digest is ever told and then taken back,
 * nor are the records under it, whose commits are before it in the WAL.
 *
 * Transaction ids count within a cluster.  Records bear its system identifier;
 * where it is not that of the last incarnation, the book was restored from a
 * dump, or upgraded.  Then what the old cluster left unsealed comes first, all
 * of it committed, and a new incarnation begins: after what was sealed of this
 * cluster before, where the book came back to it.  Restoring must not be met
 * half-way: nothing is begun, neither the log nor an incarnation, before
 * somebody has appended a record here, or called seal_audit().
 *
 * A record whose content is not what its writer hashed was changed before it
 * was sealed.  What is sealed is the writer's hash: so it is found for ever.
 *
 * Owns, in the worker: whether and when to run next, static.
 * Memory: a block at a time, in that of the query scope.
 * Locks: fin_seal_lock(), then those of reading (audit_scan.h) and of INSERTs.
 * Waits for no writer, and none waits for it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "context.h"
#include "errors.h"
#include "query.h"
#include "seal.h"
#include "seal_parts.h"
#include "settings.h"
#include "wake.h"

/* records of one run of the worker, whose other chores wait meanwhile */
#define FIN_SEAL_RUN_RECORDS	4096

#define FIN_SEAL_WARNINGS_MAX	10	/* of one run */

#define FIN_SEAL_PATIENCE	"1s"	/* of the worker, for a table that is locked */

typedef struct Sealing
{
	FinSealTree tree;
	bool		changed;		/* since it was loaded */
	FinAuditPosition position;	/* of the last record sealed */
	int64		left;			/* how many may be sealed still */
	int64		sealed;
	int64		altered;		/* of these, not what their writers hashed */
	FinSealWriter *writer;		/* NULL: nothing written yet */
	FinSealTerms *terms;
	MemoryContext each;			/* reset for each record */
	StringInfoData work;
	StringInfoData leaves;
} Sealing;

/* what a run left */
typedef enum Rest
{
	REST_NONE,					/* nothing, until somebody appends */
	REST_HELD,					/* something, until a transaction ends */
	REST_MORE					/* it did what it may at once */
} Rest;

/* ------------------------------------------------------------------------
 * one record
 * ------------------------------------------------------------------------
 */

static void
warn_altered(Sealing *sealing, const FinAuditRow *row)
{
	if (++sealing->altered > FIN_SEAL_WARNINGS_MAX)
		return;
	ereport(WARNING,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("audit record %lld was changed before it was sealed",
				   (long long) DatumGetInt64(row->values[FIN_AUDIT_ID])),
			errdetail("Its content is not what leaf_hash says."),
			errhint("SELECT * FROM finance.verify_audit() names it from now on."));
}

/* the hash to seal: the writer's, if it is one at all */
static void
judge_leaf(Sealing *sealing, const FinAuditRow *row, FinHash *hash)
{
	bytea	   *stored = DatumGetByteaPP(row->values[FIN_AUDIT_LEAF_HASH]);
	FinHash		computed;

	fin_audit_leaf_hash(row, &sealing->work, &computed);
	*hash = computed;
	if (VARSIZE_ANY_EXHDR(stored) == FIN_HASH_LENGTH)
		memcpy(hash->bytes, VARDATA_ANY(stored), FIN_HASH_LENGTH);
	if (VARSIZE_ANY_EXHDR(stored) != FIN_HASH_LENGTH ||
		!fin_merkle_same(hash, &computed))
		warn_altered(sealing, row);
}

static void
node_completed(void *state, int level, uint64 index, const FinHash *hash)
{
	if (level >= FIN_AUDIT_NODE_LEVEL)
		fin_seal_write_node(((Sealing *) state)->writer, level, index, hash);
}

static void
widen_block(FinAuditBlock *block, const FinAuditLeaf *leaf, TimestampTz when)
{
	if (block->records == 0)
	{
		block->first = leaf->position;
		block->first_id = block->last_id = leaf->id;
		block->first_recorded_at = block->last_recorded_at = when;
	}
	block->records++;
	block->last = leaf->position;
	block->first_id = Min(block->first_id, leaf->id);
	block->last_id = Max(block->last_id, leaf->id);
	block->first_recorded_at = Min(block->first_recorded_at, when);
	block->last_recorded_at = Max(block->last_recorded_at, when);
}

static void
seal_record(Sealing *sealing, FinAuditBlock *block, const FinAuditRow *row)
{
	MemoryContext outer = MemoryContextSwitchTo(sealing->each);
	FinAuditLeaf leaf;
	uint64		terms[FIN_AUDIT_TERMS_MAX];
	int			nterms;

	leaf.id = DatumGetInt64(row->values[FIN_AUDIT_ID]);
	leaf.position = fin_audit_position(row);
	judge_leaf(sealing, row, &leaf.hash);
	nterms = fin_audit_terms(row, terms);
	MemoryContextSwitchTo(outer);
	MemoryContextReset(sealing->each);

	fin_merkle_append(&sealing->tree.frontier, &leaf.hash, node_completed,
					  sealing);
	fin_audit_leaf_put(&sealing->leaves, &leaf);
	fin_seal_keep_terms(sealing->terms, block->records, terms, nterms);
	widen_block(block, &leaf,
				DatumGetTimestampTz(row->values[FIN_AUDIT_RECORDED_AT]));
}

/* ------------------------------------------------------------------------
 * a block
 * ------------------------------------------------------------------------
 */

static void
begin_block(Sealing *sealing, FinAuditBlock *block)
{
	memset(block, 0, sizeof(FinAuditBlock));
	block->block = sealing->tree.block + 1;
	block->incarnation = sealing->tree.incarnation;
	block->first_leaf = (int64) sealing->tree.frontier.size;
	block->previous = sealing->tree.digest;
	resetStringInfo(&sealing->leaves);
	if (sealing->writer != NULL)
		return;
	sealing->writer = fin_seal_begin_write();
	sealing->terms = fin_seal_begin_terms();
}

static void
end_block(Sealing *sealing, FinAuditBlock *block)
{
	block->size = (int64) sealing->tree.frontier.size;
	fin_merkle_frontier_root(&sealing->tree.frontier, &block->root);
	block->lsn = GetXLogInsertRecPtr();
	block->timeline = (int32) GetWALInsertionTimeLine();
	block->sealed_at = GetCurrentTimestamp();
	fin_audit_block_digest(block, &block->digest);
	fin_seal_write_block(sealing->writer, block, &sealing->leaves);
	fin_seal_write_terms(sealing->terms, block->first_leaf, block->size);

	sealing->tree.block = block->block;
	sealing->tree.digest = block->digest;
	sealing->position = block->last;
	sealing->left -= block->records;
	sealing->sealed += block->records;
	sealing->changed = true;
}

/* false: there were no more records */
static bool
seal_block(Sealing *sealing, FinAuditScan *scan)
{
	FinAuditBlock block;
	int64		room = Min(sealing->left, FIN_AUDIT_BLOCK_RECORDS_MAX);
	const FinAuditRow *row = fin_audit_scan_next(scan);

	if (row == NULL)
		return false;
	begin_block(sealing, &block);
	for (;;)
	{
		seal_record(sealing, &block, row);
		if (block.records == room)
			break;
		row = fin_audit_scan_next(scan);
		if (row == NULL)
			break;
	}
	end_block(sealing, &block);
	return row != NULL;
}

/*
 * Seals records of that cluster after sealing->position, with xid < until, as
 * long as any are left to seal.  True: all of them are sealed now.
 */
static bool
seal_range(Sealing *sealing, Snapshot snapshot, int64 system_identifier,
		   uint64 until)
{
	FinAuditScan *scan = fin_audit_scan_begin(snapshot, system_identifier,
											  &sealing->position, until);
	bool		more = true;

	while (more && sealing->left > 0)
		more = seal_block(sealing, scan);
	fin_audit_scan_end(scan);
	if (more)
		sealing->tree.horizon = sealing->position.xid;
	return !more;
}

/* ------------------------------------------------------------------------
 * a run
 * ------------------------------------------------------------------------
 */

static bool
has_record(Snapshot snapshot, int64 system_identifier,
		   const FinAuditPosition *after, uint64 until)
{
	FinAuditScan *scan = fin_audit_scan_begin(snapshot, system_identifier,
											  after, until);
	bool		found = fin_audit_scan_next(scan) != NULL;

	fin_audit_scan_end(scan);
	return found;
}

static void
begin_incarnation(Sealing *sealing, int32 incarnation)
{
	fin_seal_add_incarnation(incarnation, sealing->tree.block + 1);
	sealing->tree.incarnation = incarnation;
	sealing->tree.horizon =
		fin_seal_cluster_horizon((int64) GetSystemIdentifier());
	sealing->position.xid = sealing->tree.horizon;
	sealing->position.sequence = 0;
	sealing->changed = true;
}

static void
check_tree(const FinSealTree *tree)
{
	FinAuditBlock last;

	if (!tree->is_there && fin_seal_last_block(&last))
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_DAMAGED),
				errmsg("the row of finance.audit_tree is missing"),
				errdetail("There are blocks up to %lld.",
						  (long long) last.block),
				errhint("Call finance._rebuild_audit_tree()."));
}

static void
check_horizon(const FinSealTree *tree, uint64 horizon)
{
	if (horizon < tree->horizon)
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_DAMAGED),
				errmsg("transaction ids have gone back"),
				errdetail("All below %llu are sealed, and the oldest that runs is %llu.",
						  (unsigned long long) tree->horizon,
						  (unsigned long long) horizon));
}

/*
 * Makes this cluster's incarnation the current one.  False: not now, for
 * nothing may be begun, there is nothing to begin with, or the old cluster's
 * records are not all sealed.
 */
static bool
settle_incarnation(Sealing *sealing, Snapshot snapshot, uint64 horizon,
				   bool may_begin)
{
	int64		mine = (int64) GetSystemIdentifier();
	int64		cluster;
	int32		last = fin_seal_last_incarnation(&cluster);

	sealing->position = fin_seal_position(&sealing->tree);
	if (last != 0 && cluster == mine && sealing->tree.is_there)
		return true;
	if (!may_begin)
		return false;
	check_tree(&sealing->tree);
	if (last == 0 && !has_record(snapshot, mine, &sealing->position, horizon))
		return false;
	if (last != 0 && cluster != mine &&
		!seal_range(sealing, snapshot, cluster, FIN_AUDIT_XID_END))
		return false;
	if (cluster != mine)
		begin_incarnation(sealing, last + 1);
	sealing->tree.incarnation = Max(sealing->tree.incarnation, last);
	return true;
}

static void
save(Sealing *sealing)
{
	if (!sealing->changed)
		return;
	if (sealing->writer != NULL)
	{
		fin_seal_end_write(sealing->writer);
		fin_seal_end_terms(sealing->terms);
		fin_seal_merge_terms();
	}
	fin_seal_save_tree(&sealing->tree);
	ForceSyncCommit();
	if (sealing->altered > FIN_SEAL_WARNINGS_MAX)
		ereport(WARNING,
				errcode(ERRCODE_FIN_AUDIT_DAMAGED),
				errmsg("%lld more audit records were changed before they were sealed",
					   (long long) (sealing->altered - FIN_SEAL_WARNINGS_MAX)));
}

/*
 * Is anything left that will have to be sealed: committed, or in a transaction
 * that is open?  The latter rings when it commits, but not when it was prepared.
 */
static bool
is_anything_left(const Sealing *sealing)
{
	FullTransactionId next = ReadNextFullTransactionId();
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	return has_record(&dirty, (int64) GetSystemIdentifier(),
					  &sealing->position, U64FromFullTransactionId(next));
}

static Rest
seal_below(Sealing *sealing, Snapshot snapshot, bool may_begin)
{
	uint64		horizon = U64FromFullTransactionId(fin_seal_horizon(snapshot));

	if (settle_incarnation(sealing, snapshot, horizon, may_begin))
	{
		check_horizon(&sealing->tree, horizon);
		if (seal_range(sealing, snapshot, (int64) GetSystemIdentifier(),
					   horizon) && sealing->changed)
			sealing->tree.horizon = horizon;
	}
	else if (!may_begin)
		return REST_NONE;
	if (sealing->left <= 0)
		return REST_MORE;
	return is_anything_left(sealing) ? REST_HELD : REST_NONE;
}

/*
 * Seals up to 'limit' records, and returns how many.  Not to wait: when another
 * is sealing, that is as if something was held up.
 */
static int64
seal(bool wait, bool may_begin, int64 limit, Rest *rest)
{
	Sealing		sealing = {.left = limit};
	FinQueryScope scope;
	Snapshot	snapshot;

	fin_query_begin(&scope);
	*rest = REST_HELD;
	if (fin_seal_lock(wait))
	{
		/* after the lock: so no lower than what the last sealer had */
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		fin_seal_load_tree(&sealing.tree);
		sealing.each = AllocSetContextCreate(CurrentMemoryContext,
											 "finance seal record",
											 ALLOCSET_DEFAULT_SIZES);
		initStringInfo(&sealing.work);
		initStringInfo(&sealing.leaves);
		*rest = seal_below(&sealing, snapshot, may_begin);
		save(&sealing);
		UnregisterSnapshot(snapshot);
	}
	fin_query_end(&scope);
	return sealing.sealed;
}

PG_FUNCTION_INFO_V1(finance_seal_audit);

/*
 * finance.seal_audit() returns bigint
 *
 * Seals the records of all transactions that are older than every open one, of
 * any database; this very transaction's are not among them.  Returns how many.
 * When another is sealing, waits until it has committed.  The commit of this
 * transaction waits for the WAL.
 * Errors: 25006 on a standby, or in a read-only transaction; LG205 the row of
 * audit_tree is missing or damaged, or transaction ids have gone back; 0A000 and
 * 55000 a table was altered or lost an index.
 */
Datum
finance_seal_audit(PG_FUNCTION_ARGS)
{
	Rest		rest;

	PreventCommandDuringRecovery("seal_audit()");
	PreventCommandIfReadOnly("seal_audit()");
	(void) fin_context();		/* is the user somebody's at all? */
	PG_RETURN_INT64(seal(true, true, PG_INT64_MAX, &rest));
}

/* ------------------------------------------------------------------------
 * the chore
 * ------------------------------------------------------------------------
 */

static int	my_slot;
static bool asked = true;		/* look, whether or not anybody appended */
static bool appended = false;	/* taken from wake, not committed to yet */
static Rest rest = REST_NONE;	/* of the last run */
static Rest run_rest;			/* of the run at work */
static TimestampTz ran_at = 0;

void
fin_seal_sweep(void)
{
	asked = true;
	rest = REST_NONE;
	ran_at = 0;
}

void
fin_seal_start(int slot)
{
	my_slot = slot;
	fin_seal_sweep();
}

TimestampTz
fin_seal_due(TimestampTz now)
{
	if (asked || rest == REST_MORE || now < ran_at)
		return now;
	if (rest == REST_HELD || appended || fin_wake_has_appended(my_slot))
		return ran_at + fin_seal_interval_ms * INT64CONST(1000);
	return FIN_NEVER;
}

void
fin_seal_run(TimestampTz now)
{
	int			nest = NewGUCNestLevel();

	/* who has a table locked for long keeps this chore waiting, and no other */
	(void) set_config_option("lock_timeout", FIN_SEAL_PATIENCE, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* what is told from now on is not lost by an error, nor what was before */
	appended = fin_wake_take_appended(my_slot) || appended;
	(void) seal(false, appended || rest != REST_NONE, FIN_SEAL_RUN_RECORDS,
				&run_rest);
	AtEOXact_GUC(true, nest);
}

void
fin_seal_committed(TimestampTz now)
{
	asked = false;
	appended = false;
	rest = run_rest;
	ran_at = now;
}
