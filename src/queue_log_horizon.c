/*
 * queue_log_horizon.c
 *		In which order the messages of a log are read, and up to where.
 *
 * A reader that goes by id skips what commits later with a lower one.  So each
 * message bears a mark, and a reader hands out only what lies below a horizon:
 *
 *	writer	1. locks the gate (ROW EXCLUSIVE)	2. has a transaction id x
 *			3. mark := the server's next transaction id, so mark > x
 *	reader	1. n := the server's next transaction id
 *			2. looks who holds the gate			3. reads their transaction ids
 *			4. horizon := the lowest of these and n		5. takes its snapshot
 *
 * Whatever is ever committed with a mark below the horizon is seen by that
 * snapshot.  For its writer either
 *	- locked the gate after the reader had looked: then mark >= n; or
 *	- held it at the look with its id drawn: then horizon <= x < mark; or
 *	- held it at the look without an id: it draws one later, x >= n; or
 *	- had ended by then, or while its id was read: the snapshot sees its end.
 * A prepared transaction keeps its locks and its id.  Only those who wrote to
 * this log hold its readers back, and not any other transaction of the cluster.
 *
 * REPEATABLE READ reads with an older snapshot: there the horizon is at most the
 * snapshot's xmin.  A mark below that means x < xmin: it had ended before.
 *
 * What was appended last has the mark n until the next transaction id is drawn;
 * a reader who finds it draws one.  So it is when a crash lost ids that were
 * drawn and never written.
 *
 * Transaction ids begin anew in a cluster that a dump is restored to.  Above
 * the id a mark has the incarnation: how often that happened.  finance.
 * log_incarnation tells, by the system identifier of the cluster; the first who
 * appends in another one adds a row.
 *
 * Owns: the incarnation once it was read, as long as the backend lives or until
 * the table changes.
 *
 * Locks: adding an incarnation takes SHARE UPDATE EXCLUSIVE on the table if it
 * can be had at once.  Otherwise somebody is adding the same: no one waits.
 * ProcArrayLock, shared, for the time of reading two words.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/snapmgr.h"

#include "cache.h"
#include "compat.h"
#include "query.h"
#include "queue_log.h"

/* bits of a mark that are a transaction id */
#define FIN_MARK_XID_BITS	48
#define FIN_INCARNATION_MAX	((1 << (63 - FIN_MARK_XID_BITS)) - 1)

static FinCache incarnation_cache = {.table = "log_incarnation"};
static int64 known_incarnation = 0;

static FinQuery find_incarnation =
{
	.sql = "SELECT incarnation::pg_catalog.int8, system_identifier"
	" FROM finance.log_incarnation ORDER BY incarnation DESC LIMIT 1",
	.nargs = 0,
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery insert_incarnation =
{
	.sql = "INSERT INTO finance.log_incarnation (incarnation, system_identifier)"
	" VALUES ($1::pg_catalog.int4, $2) ON CONFLICT DO NOTHING",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_INSERT,
};

static void
add_incarnation(int64 incarnation)
{
	Oid			table = fin_query_relation("log_incarnation");
	Datum		values[2] = {Int64GetDatum(incarnation),
	Int64GetDatum((int64) GetSystemIdentifier())};

	if (ConditionalLockRelationOid(table, ShareUpdateExclusiveLock))
		(void) fin_query_run(&insert_incarnation, values, NULL, 0);
}

/*
 * The number is the same for all who ask before the row is committed: one more
 * than the last that is there.
 */
static int64
incarnation(bool may_add)
{
	int64		last = 0;

	if (fin_cache_valid(&incarnation_cache) && known_incarnation != 0)
		return known_incarnation;
	(void) fin_cache_loading(&incarnation_cache);
	known_incarnation = 0;
	if (fin_query_run(&find_incarnation, NULL, NULL, 1) > 0)
	{
		last = fin_query_int64(0, 1);
		if (fin_query_int64(0, 2) == (int64) GetSystemIdentifier())
			return known_incarnation = last;
	}
	if (last >= FIN_INCARNATION_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("log queues were restored too many times"));
	if (may_add)
		add_incarnation(last + 1);
	return last + 1;
}

static int64
compose(int64 number, uint64 xid)
{
	return (number << FIN_MARK_XID_BITS) | (int64) xid;
}

int64
fin_queue_log_mark(void)
{
	int64		number = incarnation(true);

	return compose(number, U64FromFullTransactionId(ReadNextFullTransactionId()));
}

int64
fin_queue_log_end(void)
{
	int64		number = incarnation(false);

	return compose(number, U64FromFullTransactionId(ReadNextFullTransactionId()));
}

/* of a transaction that runs, or is at most two billion older than the next */
static uint64
widen(TransactionId xid, FullTransactionId next)
{
	uint64		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return (epoch << 32) | xid;
}

/*
 * The top-level id of a transaction that held the gate a moment ago.  Invalid
 * when it has none, or has ended.  *pid is 0 for a prepared one.
 */
static TransactionId
writer_xid(VirtualTransactionId *vxid, int *pid)
{
	PGPROC	   *proc;
	TransactionId xid = InvalidTransactionId;
	bool		running = false;
	bool		more;

	*pid = 0;
	if (VirtualTransactionIdIsRecoveredPreparedXact(*vxid))
		return (TransactionId) vxid->localTransactionId;

	/* both words under one lock: PREPARE moves the id to another process slot */
	proc = fin_compat_vxid_proc(*vxid);
	LWLockAcquire(ProcArrayLock, LW_SHARED);
	if (proc != NULL)
		running = FIN_PROC_LXID(proc) == vxid->localTransactionId;
	if (running)
	{
		xid = proc->xid;
		*pid = proc->pid;
	}
	LWLockRelease(ProcArrayLock);
	if (!running && max_prepared_xacts > 0)
		xid = TwoPhaseGetXidByVirtualXID(*vxid, &more);
	return xid;
}

static void
hold_back(FinLogHorizon *horizon, int64 number, FullTransactionId next,
		  TransactionId xid, int pid)
{
	int64		mark;

	if (!TransactionIdIsNormal(xid))
		return;
	mark = compose(number, widen(xid, next));
	if (mark >= horizon->mark)
		return;
	horizon->mark = mark;
	horizon->writer = xid;
	horizon->writer_pid = pid;
}

void
fin_queue_log_horizon(const FinLog *log, FinLogHorizon *horizon)
{
	int64		number = incarnation(false);
	FullTransactionId next = ReadNextFullTransactionId();
	VirtualTransactionId *writers;
	LOCKTAG		tag;
	int			n;

	horizon->mark = compose(number, U64FromFullTransactionId(next));
	horizon->writer = InvalidTransactionId;
	horizon->writer_pid = 0;

	/* SHARE is the mode that conflicts with ROW EXCLUSIVE; it is not taken */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, log->gate);
	writers = GetLockConflicts(&tag, ShareLock, &n);
	for (int i = 0; i < n; i++)
	{
		int			pid;
		TransactionId xid = writer_xid(&writers[i], &pid);

		hold_back(horizon, number, next, xid, pid);
	}
	/* what this transaction itself wrote may yet be rolled back */
	if (fin_compat_holds_lock(&tag, RowExclusiveLock))
		hold_back(horizon, number, next, GetTopTransactionIdIfAny(), MyProcPid);
	if (IsolationUsesXactSnapshot())
		horizon->mark = Min(horizon->mark,
							compose(number, widen(GetTransactionSnapshot()->xmin,
												  next)));
}

void
fin_queue_log_horizon_init(void)
{
	fin_cache_register(&incarnation_cache);
}
