/*
 * launcher.c
 *		The process that keeps one worker per database that has the extension.
 *
 * It cannot look into a database, so it starts a worker in each one that takes
 * connections and is no template.  A worker that finds no extension says so
 * and leaves, and is not started again until CREATE EXTENSION rings for it.
 * Otherwise the launcher sleeps until a worker leaves, a hold is released, or
 * finance.launcher_naptime has passed, when it looks for databases that came
 * with the extension in them, for instance by CREATE DATABASE ... TEMPLATE.
 *
 * On a standby the postmaster starts it when recovery has finished, that is on
 * promotion: until then nothing of this runs and nothing is written.
 *
 * Owns: what is known of each database, in a hash of this process; forgotten
 * with the database.  An ERROR ends the process; the postmaster starts it anew
 * and it adopts the workers it finds.  Locks: see roster.c.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "launcher.h"
#include "process.h"
#include "roster.h"
#include "settings.h"
#include "wake.h"

#define FIN_LAUNCHER_RESTART_S	5
#define FIN_NO_ROOM_RETRY_US	(10 * USECS_PER_SEC)

typedef struct Known
{
	Oid			database;		/* hash key */
	char		name[NAMEDATALEN];
	bool		eligible;		/* takes connections, is no template */
	bool		without;		/* has no extension */
	bool		wanted;			/* was rung for since its worker started */
	int			failures;		/* in a row */
	TimestampTz not_before;		/* after a failure */
	BackgroundWorkerHandle *handle; /* of the worker started last */
	int			index;			/* its entry in the roster */
	uint32		generation;
} Known;

PGDLLEXPORT void finance_launcher_main(Datum arg);

static HTAB *known = NULL;
static bool told_no_room = false;

static Known *
know(Oid database)
{
	bool		found;
	Known	   *k = hash_search(known, &database, HASH_ENTER, &found);

	if (!found)
	{
		memset(k, 0, sizeof(*k));
		k->database = database;
	}
	return k;
}

/* databases that rang: an extension was created, or asks for its worker */
static void
hear_bells(TimestampTz now)
{
	static FinBell bells[FIN_BELLS_MAX];
	bool		attention;
	TimestampTz next;
	int			n = fin_wake_collect(FIN_WAKE_LAUNCHER, now, 0, bells,
									 &attention, &next);
	HASH_SEQ_STATUS scan;
	Known	   *k;

	fin_wake_answered(FIN_WAKE_LAUNCHER, now, 0, bells, n);
	for (int i = 0; i < n; i++)
	{
		k = know((Oid) bells[i].queue_id);
		k->without = false;
		k->wanted = true;
		k->failures = 0;
		k->not_before = 0;
	}
	if (!attention)
		return;
	/* more rang than can be told apart */
	hash_seq_init(&scan, known);
	while ((k = hash_seq_search(&scan)) != NULL)
	{
		k->without = false;
		k->wanted = true;
	}
}

static void
worker_ended(Known *k, FinWorkerEnd end, TimestampTz now)
{
	if (k->handle != NULL)
		pfree(k->handle);
	k->handle = NULL;
	k->without = false;
	switch (end)
	{
		case FIN_END_NO_EXTENSION:
			/* it may have looked just before the extension was committed */
			k->without = !k->wanted;
			k->failures = 0;
			break;
		case FIN_END_ASKED:
			k->failures = 0;
			break;
		case FIN_END_UNEXPECTED:
			k->failures++;
			k->not_before = now + fin_process_backoff_us(k->failures);
			break;
	}
}

/* workers that left by themselves, and those that never came to their main */
static void
clear_ended(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	Known	   *k;
	pid_t		pid;

	for (int i = 0; i < fin_roster_size(); i++)
	{
		FinWorkerStatus status;

		fin_roster_get(i, &status);
		if (status.state != FIN_WORKER_LEFT)
			continue;
		k = know(status.database);
		if (status.started_at != 0 &&
			now - status.started_at > fin_process_backoff_us(k->failures + 1))
			k->failures = 0;	/* it had come to work */
		worker_ended(k, status.end, now);
		fin_roster_clear(i, status.generation);
	}

	hash_seq_init(&scan, known);
	while ((k = hash_seq_search(&scan)) != NULL)
	{
		FinWorkerStatus status;

		if (k->handle == NULL ||
			GetBackgroundWorkerPid(k->handle, &pid) != BGWH_STOPPED)
			continue;
		/* it may have left, in good order, since the loop above */
		fin_roster_get(k->index, &status);
		if (status.generation == k->generation &&
			status.state == FIN_WORKER_LEFT)
			worker_ended(k, status.end, now);
		else
			worker_ended(k, FIN_END_UNEXPECTED, now);
		fin_roster_clear(k->index, k->generation);
	}
}

/* brings 'known' up to date with pg_database */
static void
look_at_databases(void)
{
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;
	HASH_SEQ_STATUS each;
	Known	   *k;

	hash_seq_init(&each, known);
	while ((k = hash_seq_search(&each)) != NULL)
		k->name[0] = '\0';

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		k = know(database->oid);
		strlcpy(k->name, NameStr(database->datname), NAMEDATALEN);
		k->eligible = database->datallowconn && !database->datistemplate &&
			database->datconnlimit != FIN_DATCONNLIMIT_INVALID;
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();

	hash_seq_init(&each, known);
	while ((k = hash_seq_search(&each)) != NULL)
	{
		if (k->name[0] != '\0')
			continue;
		k->eligible = false;
		if (k->handle == NULL)
			hash_search(known, &k->database, HASH_REMOVE, NULL);
	}
}

/* once until there is room again */
static void
tell_no_room(const Known *k)
{
	if (told_no_room)
		return;
	told_no_room = true;
	ereport(WARNING,
			errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			errmsg("no room for the finance worker of database \"%s\"",
				   k->name),
			errhint("Consider increasing the configuration parameter \"max_worker_processes\"."));
}

/* false when there is no room for it */
static bool
start_worker(Known *k)
{
	BackgroundWorker worker;
	FinWorkerOrder order = {.database = k->database};
	MemoryContext old;
	bool		started;

	k->index = fin_roster_open(k->database, &k->generation);
	if (k->index == FIN_ROSTER_TAKEN)
		return true;
	if (k->index == FIN_ROSTER_FULL)
		return false;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(k->index);
	order.generation = k->generation;
	memcpy(worker.bgw_extra, &order, sizeof(order));
	strlcpy(worker.bgw_library_name, "finance", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "finance_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "finance worker", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "finance worker for database \"%s\"",
			 k->name);

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &k->handle);
	MemoryContextSwitchTo(old);
	if (!started)
	{
		k->handle = NULL;
		fin_roster_clear(k->index, k->generation);
		return false;
	}
	k->wanted = false;
	return true;
}

/* returns when to try again */
static TimestampTz
start_workers(TimestampTz now)
{
	TimestampTz next = FIN_NEVER;
	bool		room = true;
	HASH_SEQ_STATUS scan;
	Known	   *k;

	hash_seq_init(&scan, known);
	while ((k = hash_seq_search(&scan)) != NULL)
	{
		if (!k->eligible)
			fin_roster_dismiss(k->database);
		else if (k->without || k->handle != NULL)
			continue;
		else if (now < k->not_before)
			next = Min(next, k->not_before);
		else if (!start_worker(k))
		{
			tell_no_room(k);
			room = false;
			next = Min(next, now + FIN_NO_ROOM_RETRY_US);
		}
	}
	if (room)
		told_no_room = false;
	return next;
}

static void
detach(int code, Datum arg)
{
	fin_wake_detach(FIN_WAKE_LAUNCHER);
}

void
finance_launcher_main(Datum arg)
{
	HASHCTL		ctl =
	{
		.keysize = sizeof(Oid),
		.entrysize = sizeof(Known),
	};

	fin_process_start();
	before_shmem_exit(detach, (Datum) 0);
	fin_wake_attach(FIN_WAKE_LAUNCHER, InvalidOid);
	fin_roster_forget_unborn();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	known = hash_create("finance databases", 64, &ctl, HASH_ELEM | HASH_BLOBS);

	for (;;)
	{
		TimestampTz now;
		TimestampTz next;

		/* exit code 1: a launcher someone terminated is started again */
		(void) fin_process_attend(1);
		now = GetCurrentTimestamp();
		hear_bells(now);
		clear_ended(now);
		look_at_databases();
		next = Min(start_workers(now),
				   now + (int64) fin_launcher_naptime_s * USECS_PER_SEC);
		fin_process_sleep(next);
	}
}

void
fin_launcher_init(void)
{
	BackgroundWorker worker;

	/* pg_upgrade wants the server to itself */
	if (IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = FIN_LAUNCHER_RESTART_S;
	strlcpy(worker.bgw_library_name, "finance", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "finance_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "finance launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "finance launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
