/*
 * worker.c
 *		One worker per database that has the extension; it runs the chores.
 *
 * A chore says when it is due, does one bounded batch in a transaction of its
 * own, and is told when that has committed.  A chore that fails is reported,
 * and tried again after a wait that doubles up to a minute; the others go on
 * meanwhile.  A reload of the configuration ends the wait.  When nothing is
 * due the worker sleeps on its latch: it never polls.
 *
 * Each transaction begins by locking the extension against being dropped.
 * Without it the worker leaves; so DROP EXTENSION never has to wait for more
 * than one batch.
 *
 * Privileges: connected as the bootstrap superuser, since a background worker
 * needs a role before it can read who owns the extension; chores then work as
 * that owner, by fin_query_begin().  What remains is done as superuser: looking
 * up the extension and committing.  Neither runs anything users define: what a
 * chore's writing fires has to run within the chore (see expire.c).
 *
 * Owns: its entry in the roster, its slot in wake, the times of the chores.
 * Memory: each batch's is its transaction's.  Locks: AccessShareLock on the
 * extension for a transaction, and those of the chores.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "audit_month.h"
#include "dispatch.h"
#include "expire.h"
#include "half.h"
#include "launcher.h"
#include "meter.h"
#include "partition.h"
#include "process.h"
#include "query.h"
#include "queue.h"
#include "roster.h"
#include "seal.h"
#include "seen.h"
#include "vacate.h"
#include "wake.h"
#include "worker.h"

#define FIN_PARTITION_INTERVAL_US	(3600 * USECS_PER_SEC)
#define FIN_PARTITION_RETRY_US		(10 * USECS_PER_SEC)	/* nothing used yet */

typedef struct Chore
{
	const char *name;
	TimestampTz (*due) (TimestampTz now);
	void		(*run) (TimestampTz now);
	void		(*committed) (TimestampTz now);
	const char *(*complaint) (void);	/* what failed of many, or NULL */
	int			failures;		/* in a row */
	TimestampTz not_before;		/* after a failure */
} Chore;

PGDLLEXPORT void finance_worker_main(Datum arg);

static Oid	extension = InvalidOid; /* at the last look */
static int	my_slot;

/* ---- the chore of making partitions ahead ---- */

static TimestampTz partitions_made_at = 0;
static bool partitions_made;	/* at the last look */

static TimestampTz
partition_due(TimestampTz now)
{
	if (now < partitions_made_at)	/* the clock stepped back */
		return now;
	return partitions_made_at == 0 ? now :
		partitions_made_at +
		(partitions_made ? FIN_PARTITION_INTERVAL_US : FIN_PARTITION_RETRY_US);
}

static void
partition_run(TimestampTz now)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	partitions_made = fin_partition_ahead();
	fin_query_end(&scope);
}

static void
partition_committed(TimestampTz now)
{
	partitions_made_at = now;
}

static Chore chores[] =
{
	{
		.name = "dispatch",
		.due = fin_dispatch_due,
		.run = fin_dispatch_run,
		.committed = fin_dispatch_committed,
	},
	{
		.name = "expire",
		.due = fin_expire_due,
		.run = fin_expire_run,
		.committed = fin_expire_committed,
		.complaint = fin_expire_complaint,
	},
	{
		.name = "queues",
		.due = fin_queue_tidy_due,
		.run = fin_queue_tidy_run,
		.committed = fin_queue_tidy_committed,
		.complaint = fin_queue_tidy_complaint,
	},
	{
		.name = "half messages",
		.due = fin_half_due,
		.run = fin_half_run,
		.committed = fin_half_committed,
		.complaint = fin_half_complaint,
	},
	{
		.name = "log queues",
		.due = fin_queue_log_due,
		.run = fin_queue_log_run,
		.committed = fin_queue_log_committed,
	},
	{
		.name = "seal",
		.due = fin_seal_due,
		.run = fin_seal_run,
		.committed = fin_seal_committed,
	},
	{
		.name = "partitions",
		.due = partition_due,
		.run = partition_run,
		.committed = partition_committed,
	},
	{
		.name = "expired ids",
		.due = fin_seen_due,
		.run = fin_seen_run,
		.committed = fin_seen_committed,
	},
	{
		.name = "archive retention",
		.due = fin_archive_due,
		.run = fin_archive_run,
		.committed = fin_archive_committed,
	},
	{
		.name = "audit retention",
		.due = fin_audit_month_due,
		.run = fin_audit_month_run,
		.committed = fin_audit_month_committed,
	},
	{
		.name = "risk totals",
		.due = fin_meter_tidy_due,
		.run = fin_meter_tidy_run,
		.committed = fin_meter_tidy_committed,
	},
};

/* ---- running chores ---- */

/*
 * Locks the extension and says whether it is there.  A new one under the old
 * name is new to every chore.
 */
static bool
extension_is_there(void)
{
	Oid			found = get_extension_oid("finance", true);

	if (OidIsValid(found))
	{
		LockDatabaseObject(ExtensionRelationId, found, 0, AccessShareLock);
		/* it may have been dropped while we waited for the lock */
		found = get_extension_oid("finance", true);
	}
	if (OidIsValid(extension) && found != extension)
	{
		fin_dispatch_sweep();
		fin_expire_sweep();
		fin_queue_tidy_sweep();
		fin_half_sweep();
		fin_queue_log_attend();
		fin_seal_sweep();
		partitions_made_at = 0;
		fin_seen_sweep();
		fin_archive_sweep();
		fin_audit_month_sweep();
		fin_meter_tidy_sweep();
	}
	extension = found;
	return OidIsValid(found);
}

static void
leave(FinWorkerEnd end)
{
	fin_roster_leave_because(end);
	proc_exit(0);
}

static void
run_chore(Chore *chore, TimestampTz now)
{
	const char *complaint;
	bool		there;

	pgstat_report_activity(STATE_RUNNING, chore->name);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	there = extension_is_there();
	if (there)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		chore->run(now);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	if (!there)
		leave(FIN_END_NO_EXTENSION);
	chore->committed(GetCurrentTimestamp());
	chore->failures = 0;
	chore->not_before = 0;
	complaint = chore->complaint != NULL ? chore->complaint() : NULL;
	if (complaint != NULL)
		fin_roster_report_error(complaint);
}

static void
chore_failed(Chore *chore, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	HOLD_INTERRUPTS();
	error = CopyErrorData();
	EmitErrorReport();
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();

	fin_roster_report_error(error->message);
	FreeErrorData(error);
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);
	chore->failures++;
	chore->not_before = GetCurrentTimestamp() +
		fin_process_backoff_us(chore->failures);
}

static void
say_which_chore(void *arg)
{
	errcontext("finance worker, chore \"%s\"", ((Chore *) arg)->name);
}

static void
try_chore(Chore *chore, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback callback =
	{
		.callback = say_which_chore,
		.arg = chore,
		.previous = error_context_stack,
	};

	error_context_stack = &callback;
	PG_TRY();
	{
		run_chore(chore, now);
	}
	PG_CATCH();
	{
		chore_failed(chore, context);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/* one round over the chores; returns when the next is due */
static TimestampTz
run_due_chores(void)
{
	TimestampTz next = FIN_NEVER;
	bool		failing = false;

	fin_wake_promise(my_slot, FIN_NEVER);
	for (int i = 0; i < (int) lengthof(chores); i++)
	{
		Chore	   *chore = &chores[i];
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz due = Max(chore->due(now), chore->not_before);

		if (due <= now)
		{
			try_chore(chore, now);
			now = GetCurrentTimestamp();
			due = Max(chore->due(now), chore->not_before);
		}
		next = Min(next, due);
		failing = failing || chore->failures > 0;
	}
	fin_roster_report(failing ? FIN_WORKER_FAILING : FIN_WORKER_RUNNING,
					  fin_dispatch_stats());
	fin_wake_promise(my_slot, next);
	return next;
}

static void
end_waits(void)
{
	for (int i = 0; i < (int) lengthof(chores); i++)
		chores[i].not_before = 0;
}

static void
detach(int code, Datum arg)
{
	fin_wake_detach(my_slot);
}

/* attached before anything is read, so that no commit is missed in between */
static void
set_up(Datum arg)
{
	FinWorkerOrder order;
	int			index = DatumGetInt32(arg);

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	if (!fin_roster_join(index, order.generation))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(order.database, InvalidOid, 0);
	fin_process_settle();
	my_slot = index + 1;
	before_shmem_exit(detach, (Datum) 0);
	fin_wake_attach(my_slot, order.database);
	fin_dispatch_start(my_slot);
	fin_expire_start(my_slot);
	fin_half_start(my_slot);
	fin_seal_start(my_slot);
}

void
finance_worker_main(Datum arg)
{
	fin_process_start();
	set_up(arg);
	for (;;)
	{
		if (fin_process_attend(0))
			end_waits();
		if (fin_roster_asked_to_leave())
			leave(FIN_END_ASKED);
		fin_process_sleep(run_due_chores());
	}
}

void
fin_worker_init(void)
{
	fin_roster_init();
	fin_vacate_init();
	fin_launcher_init();
}

void
fin_worker_shmem_request(void)
{
	fin_roster_shmem_request();
}

void
fin_worker_shmem_startup(void)
{
	fin_roster_shmem_startup();
}
