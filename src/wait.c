/*
 * wait.c
 *		Readers that wait for messages of a queue, and waking them.
 *
 * Owns, in shared memory, a place for each waiting reader.  Places hang in
 * lists, one for each hash of a queue, in the order in which their readers
 * began to wait; a reader that is woken is taken off its list and comes back
 * to the end of it if it has to wait on.  In a backend: which place it has.
 * A place is given back by fin_wait_end(), and else when the transaction or
 * the process ends.
 *
 * Locks: one LWLock over all places and lists.  Ringing first looks, without
 * it, at how many wait on the queue's list.  Nothing is missed: a reader adds
 * itself before it looks for messages, and a message is visible before its
 * committer looks for readers; so at least one of the two sees the other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "wait.h"

#define FIN_WAIT_TRANCHE	"finance_wait"
#define FIN_WAIT_LISTS		64
#define FIN_WAIT_SLEEP_MAX_MS	(60 * 1000L)

/* of a reader that has not said yet how long it sleeps: it may be for ever */
#define FIN_WAIT_UNTIL_WOKEN	DT_NOEND

typedef struct Waiter
{
	dlist_node	node;			/* of a list, or of the free ones */
	int64		queue_id;
	Oid			database;
	Latch	   *latch;
	bool		listed;			/* else it was woken */
	TimestampTz until;			/* it looks again then at the latest */
} Waiter;

typedef struct Waiters
{
	LWLock	   *lock;			/* protects all below but counts */
	pg_atomic_uint32 counts[FIN_WAIT_LISTS];	/* in each list */
	dlist_head	lists[FIN_WAIT_LISTS];
	dlist_head	free;
	Waiter		waiters[FIN_WAITERS_MAX];
} Waiters;

static Waiters *shared = NULL;
static Waiter *mine = NULL;

static int
list_of(int64 queue_id)
{
	return hash_bytes((const unsigned char *) &queue_id, sizeof(queue_id)) %
		FIN_WAIT_LISTS;
}

/* the next three: caller has the lock */

static void
enlist(Waiter *waiter)
{
	int			list = list_of(waiter->queue_id);

	dlist_push_tail(&shared->lists[list], &waiter->node);
	pg_atomic_fetch_add_u32(&shared->counts[list], 1);
	waiter->listed = true;
	waiter->until = FIN_WAIT_UNTIL_WOKEN;
}

static void
delist(Waiter *waiter)
{
	dlist_delete(&waiter->node);
	pg_atomic_fetch_sub_u32(&shared->counts[list_of(waiter->queue_id)], 1);
	waiter->listed = false;
}

/* wakes up to 'count' readers of the queue that look later than 'before' */
static void
wake_some(Oid database, int64 queue_id, int64 count, TimestampTz before)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &shared->lists[list_of(queue_id)])
	{
		Waiter	   *waiter = dlist_container(Waiter, node, iter.cur);

		if (count <= 0)
			return;
		if (waiter->queue_id != queue_id || waiter->database != database ||
			waiter->until <= before)
			continue;
		delist(waiter);
		SetLatch(waiter->latch);
		count--;
	}
}

static void
ring(int64 queue_id, int64 count, TimestampTz before)
{
	if (shared == NULL ||
		pg_atomic_read_u32(&shared->counts[list_of(queue_id)]) == 0)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	wake_some(MyDatabaseId, queue_id, count, before);
	LWLockRelease(shared->lock);
}

void
fin_wait_ring(int64 queue_id, int64 count)
{
	ring(queue_id, count, DT_NOBEGIN);
}

/* all who sleep for longer have to find out anew how long to sleep */
void
fin_wait_ring_due(int64 queue_id, TimestampTz due_at)
{
	ring(queue_id, FIN_WAITERS_MAX, due_at);
}

bool
fin_wait_begin(int64 queue_id)
{
	Assert(mine == NULL);
	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!dlist_is_empty(&shared->free))
	{
		mine = dlist_container(Waiter, node,
							   dlist_pop_head_node(&shared->free));
		mine->queue_id = queue_id;
		mine->database = MyDatabaseId;
		mine->latch = MyLatch;
		enlist(mine);
	}
	LWLockRelease(shared->lock);
	return mine != NULL;
}

void
fin_wait_renew(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (!mine->listed)
		enlist(mine);
	mine->until = FIN_WAIT_UNTIL_WOKEN;
	LWLockRelease(shared->lock);
}

/* says until when this reader sleeps; false when it was woken meanwhile */
static bool
still_listed(TimestampTz until)
{
	bool		listed;

	if (mine == NULL)
		return true;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	listed = mine->listed;
	mine->until = until;
	LWLockRelease(shared->lock);
	return listed;
}

static long
milliseconds_until(TimestampTz until)
{
	TimestampTz now = GetCurrentTimestamp();

	if (until <= now)
		return 0;
	if (until - now >= FIN_WAIT_SLEEP_MAX_MS * INT64CONST(1000))
		return FIN_WAIT_SLEEP_MAX_MS;
	/* rounded up, so as not to wake just before the time and find nothing */
	return (until - now + 999) / 1000;
}

/*
 * The latch is set for many reasons.  One is that this backend is behind with
 * cache invalidations; others would have to wait for it.
 */
void
fin_wait_sleep(TimestampTz until)
{
	while (still_listed(until))
	{
		long		ms = milliseconds_until(until);

		if (ms == 0)
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		AcceptInvalidationMessages();
	}
}

void
fin_wait_end(void)
{
	bool		woken;

	if (mine == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	woken = !mine->listed;
	if (!woken)
		delist(mine);
	dlist_push_head(&shared->free, &mine->node);
	if (woken)
		wake_some(mine->database, mine->queue_id, 1, DT_NOBEGIN);
	mine = NULL;
	LWLockRelease(shared->lock);
}

/* after an ERROR, or when the process is told to end */
static void
transaction_ended(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		fin_wait_end();
}

/* an ERROR that is caught */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId subxact,
					 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		fin_wait_end();
}

void
fin_wait_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

void
fin_wait_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(Waiters));
	RequestNamedLWLockTranche(FIN_WAIT_TRANCHE, 1);
}

void
fin_wait_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("finance wait", sizeof(Waiters), &found);
	if (!found)
	{
		shared->lock = &GetNamedLWLockTranche(FIN_WAIT_TRANCHE)->lock;
		dlist_init(&shared->free);
		for (int i = 0; i < FIN_WAIT_LISTS; i++)
		{
			pg_atomic_init_u32(&shared->counts[i], 0);
			dlist_init(&shared->lists[i]);
		}
		for (int i = 0; i < FIN_WAITERS_MAX; i++)
			dlist_push_tail(&shared->free, &shared->waiters[i].node);
	}
	LWLockRelease(AddinShmemInitLock);
}
