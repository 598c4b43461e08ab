/*
 * roster.c
 *		Which worker serves which database, in shared memory.
 *
 * Owns: the entries, one for each worker that can exist, and the holds; in a
 * backend, the list of databases this transaction holds, in a worker, the
 * index of its own entry.  All of fixed size.
 *
 * Locks: one LWLock over entries and holds, for short copies only; a latch is
 * set after it was released.  'changed' is broadcast when a worker left.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "roster.h"
#include "wake.h"

#define FIN_ROSTER_TRANCHE	"finance_roster"
#define FIN_HOLDS_MAX		32	/* statements that hold a database at a time */
#define FIN_MY_HOLDS_MAX	4	/* of one transaction */
#define FIN_VACATE_ROUND_MS 100
#define FIN_VACATE_POLITE_MS 1000	/* then its query is interrupted */
#define FIN_VACATE_WAIT_MS	10000	/* then the statement tries anyway */

typedef struct Hold
{
	Oid			database;		/* InvalidOid: free */
	int			pid;
} Hold;

typedef struct Roster
{
	LWLock	   *lock;
	ConditionVariable changed;
	Hold		holds[FIN_HOLDS_MAX];
	FinWorkerStatus entries[FLEXIBLE_ARRAY_MEMBER];
} Roster;

static Roster *roster = NULL;

/* of a worker */
static int	my_index = -1;
static FinWorkerEnd my_end = FIN_END_UNEXPECTED;

/* of a backend */
static Oid	my_holds[FIN_MY_HOLDS_MAX];
static int	nmy_holds = 0;

bool
fin_roster_available(void)
{
	return roster != NULL;
}

int
fin_roster_size(void)
{
	return fin_wake_slots() - 1;
}

static Size
roster_bytes(void)
{
	return add_size(offsetof(Roster, entries),
					mul_size(fin_roster_size(), sizeof(FinWorkerStatus)));
}

void
fin_roster_shmem_request(void)
{
	RequestAddinShmemSpace(roster_bytes());
	RequestNamedLWLockTranche(FIN_ROSTER_TRANCHE, 1);
}

void
fin_roster_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	roster = ShmemInitStruct("finance roster", roster_bytes(), &found);
	if (!found)
	{
		memset(roster, 0, roster_bytes());
		roster->lock = &GetNamedLWLockTranche(FIN_ROSTER_TRANCHE)->lock;
		ConditionVariableInit(&roster->changed);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
fin_roster_get(int index, FinWorkerStatus *status)
{
	LWLockAcquire(roster->lock, LW_SHARED);
	*status = roster->entries[index];
	LWLockRelease(roster->lock);
}

/* caller has the lock; -1 when the database has no worker that may be there */
static int
find_entry(Oid database)
{
	for (int i = 0; i < fin_roster_size(); i++)
	{
		if (roster->entries[i].database == database &&
			roster->entries[i].state != FIN_WORKER_NONE &&
			roster->entries[i].state != FIN_WORKER_LEFT)
			return i;
	}
	return -1;
}

static bool
is_held(Oid database)
{
	for (int i = 0; i < FIN_HOLDS_MAX; i++)
	{
		if (roster->holds[i].database == database)
			return true;
	}
	return false;
}

/* ---- launcher ---- */

int
fin_roster_open(Oid database, uint32 *generation)
{
	int			opened = FIN_ROSTER_TAKEN;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	if (!is_held(database) && find_entry(database) < 0)
	{
		opened = FIN_ROSTER_FULL;
		for (int i = 0; i < fin_roster_size() && opened < 0; i++)
		{
			FinWorkerStatus *entry = &roster->entries[i];
			uint32		next = entry->generation + 1;

			if (entry->state != FIN_WORKER_NONE)
				continue;
			memset(entry, 0, sizeof(*entry));
			entry->database = database;
			entry->generation = next;
			entry->state = FIN_WORKER_STARTING;
			*generation = next;
			opened = i;
		}
	}
	LWLockRelease(roster->lock);
	return opened;
}

void
fin_roster_clear(int index, uint32 generation)
{
	FinWorkerStatus *entry = &roster->entries[index];

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	if (entry->generation == generation)
	{
		entry->state = FIN_WORKER_NONE;
		entry->database = InvalidOid;
		entry->generation++;	/* it cannot join any more */
	}
	LWLockRelease(roster->lock);
	ConditionVariableBroadcast(&roster->changed);
}

/*
 * A launcher that starts anew does not know what its predecessor had asked
 * for: workers that run are kept, those not born yet will not be let in.
 */
void
fin_roster_forget_unborn(void)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	for (int i = 0; i < fin_roster_size(); i++)
	{
		FinWorkerStatus *entry = &roster->entries[i];

		if ((entry->state == FIN_WORKER_STARTING && entry->pid == 0) ||
			entry->state == FIN_WORKER_LEFT)
		{
			entry->state = FIN_WORKER_NONE;
			entry->database = InvalidOid;
			entry->generation++;
		}
	}
	LWLockRelease(roster->lock);
}

/* ---- worker ---- */

/*
 * Registered before the worker connects, so it runs after the worker has left
 * the list of backends of its database: who waits for it may go on then.
 */
static void
leave(int code, Datum arg)
{
	FinWorkerStatus *entry = &roster->entries[my_index];

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	entry->state = FIN_WORKER_LEFT;
	/* one that was asked and then interrupted did not end unexpectedly */
	entry->end = my_end == FIN_END_UNEXPECTED && entry->asked_to_leave ?
		FIN_END_ASKED : my_end;
	entry->pid = 0;
	LWLockRelease(roster->lock);
	ConditionVariableBroadcast(&roster->changed);
	fin_wake_ring(FIN_WAKE_LAUNCHER);
}

bool
fin_roster_join(int index, uint32 generation)
{
	FinWorkerStatus *entry = &roster->entries[index];
	bool		wanted;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	wanted = entry->generation == generation &&
		entry->state == FIN_WORKER_STARTING;
	if (wanted)
	{
		entry->pid = MyProcPid;
		entry->started_at = GetCurrentTimestamp();
	}
	LWLockRelease(roster->lock);
	if (!wanted)
		return false;
	my_index = index;
	on_shmem_exit(leave, (Datum) 0);
	if (fin_roster_asked_to_leave())
	{
		my_end = FIN_END_ASKED;
		return false;
	}
	return true;
}

bool
fin_roster_asked_to_leave(void)
{
	bool		asked;

	LWLockAcquire(roster->lock, LW_SHARED);
	asked = roster->entries[my_index].asked_to_leave;
	LWLockRelease(roster->lock);
	return asked;
}

void
fin_roster_leave_because(FinWorkerEnd end)
{
	my_end = end;
}

void
fin_roster_report(FinWorkerState state, const FinDispatchStats *dispatch)
{
	FinWorkerStatus *entry = &roster->entries[my_index];

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	entry->state = state;
	entry->dispatch = *dispatch;
	LWLockRelease(roster->lock);
}

void
fin_roster_report_error(const char *message)
{
	FinWorkerStatus *entry = &roster->entries[my_index];
	int			length = pg_mbcliplen(message, strlen(message),
									  FIN_ERROR_TEXT_MAX - 1);

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	memcpy(entry->last_error, message, length);
	entry->last_error[length] = '\0';
	entry->last_error_at = GetCurrentTimestamp();
	entry->errors++;
	LWLockRelease(roster->lock);
}

/* ---- asking workers to leave ---- */

/* index of the worker asked, or -1; *pid is 0 when it has not joined yet */
static int
ask_to_leave(Oid database, int *pid)
{
	int			index;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	index = find_entry(database);
	if (index >= 0)
	{
		roster->entries[index].asked_to_leave = true;
		*pid = roster->entries[index].pid;
	}
	LWLockRelease(roster->lock);
	if (index >= 0)
		fin_wake_ring(index + 1);
	return index;
}

void
fin_roster_dismiss(Oid database)
{
	int			pid;

	(void) ask_to_leave(database, &pid);
}

static void
hold(Oid database)
{
	if (nmy_holds == FIN_MY_HOLDS_MAX)
		return;					/* its worker may come back a little early */
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	for (int i = 0; i < FIN_HOLDS_MAX; i++)
	{
		if (roster->holds[i].database == InvalidOid)
		{
			roster->holds[i].database = database;
			roster->holds[i].pid = MyProcPid;
			my_holds[nmy_holds++] = database;
			break;
		}
	}
	LWLockRelease(roster->lock);
}

/* at the end of the transaction, also after its commit: must not fail */
static void
release_holds(XactEvent event, void *arg)
{
	if (nmy_holds == 0 ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		 event != XACT_EVENT_PREPARE))
		return;
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	for (int i = 0; i < FIN_HOLDS_MAX; i++)
	{
		if (roster->holds[i].pid == MyProcPid)
		{
			roster->holds[i].database = InvalidOid;
			roster->holds[i].pid = 0;
		}
	}
	LWLockRelease(roster->lock);
	nmy_holds = 0;
	fin_wake_ring(FIN_WAKE_LAUNCHER);
}

void
fin_roster_vacate(Oid database)
{
	int			waited_ms = 0;
	bool		interrupted = false;
	int			pid = 0;

	hold(database);
	ConditionVariablePrepareToSleep(&roster->changed);
	while (ask_to_leave(database, &pid) >= 0 &&
		   waited_ms < FIN_VACATE_WAIT_MS)
	{
		if (waited_ms >= FIN_VACATE_POLITE_MS && !interrupted && pid != 0)
		{
			kill(pid, SIGTERM);
			interrupted = true;
		}
		if (ConditionVariableTimedSleep(&roster->changed, FIN_VACATE_ROUND_MS,
										PG_WAIT_EXTENSION))
			waited_ms += FIN_VACATE_ROUND_MS;
	}
	ConditionVariableCancelSleep();
}

void
fin_roster_init(void)
{
	RegisterXactCallback(release_holds, NULL);
}
