/*
 * roster.h
 *		Which worker serves which database, in shared memory.
 *
 * An entry has the index of the worker's slot in wake minus one.  The launcher
 * opens an entry and starts a worker for it; the worker joins, and leaves when
 * it exits for whatever reason; the launcher then clears the entry.
 *
 * A hold keeps the launcher from starting a worker for a database while some
 * statement needs the database for itself.
 */
#ifndef FIN_ROSTER_H
#define FIN_ROSTER_H

#include "datatype/timestamp.h"

#include "dispatch.h"

#define FIN_ERROR_TEXT_MAX	256

typedef enum FinWorkerState
{
	FIN_WORKER_NONE,			/* the entry is free */
	FIN_WORKER_STARTING,
	FIN_WORKER_RUNNING,
	FIN_WORKER_FAILING,			/* runs, but waits after an error */
	FIN_WORKER_LEFT				/* gone; the launcher has to clear it */
} FinWorkerState;

typedef enum FinWorkerEnd
{
	FIN_END_UNEXPECTED,			/* terminated, or could not connect */
	FIN_END_NO_EXTENSION,
	FIN_END_ASKED
} FinWorkerEnd;

typedef struct FinWorkerStatus
{
	Oid			database;
	uint32		generation;		/* tells this worker of an entry from the last */
	FinWorkerState state;
	FinWorkerEnd end;			/* when it left */
	bool		asked_to_leave;
	int			pid;			/* 0 until it joined */
	TimestampTz started_at;
	int64		errors;
	TimestampTz last_error_at;	/* 0: none */
	char		last_error[FIN_ERROR_TEXT_MAX];
	FinDispatchStats dispatch;
} FinWorkerStatus;

extern bool fin_roster_available(void);
extern int	fin_roster_size(void);

/* a copy of the entry */
extern void fin_roster_get(int index, FinWorkerStatus *status);

/* the launcher: an entry for a new worker of the database, or */
#define FIN_ROSTER_TAKEN	(-1)	/* it has one, or is held */
#define FIN_ROSTER_FULL		(-2)
extern int	fin_roster_open(Oid database, uint32 *generation);
extern void fin_roster_clear(int index, uint32 generation);
extern void fin_roster_forget_unborn(void);

/*
 * The worker: false when it was no longer wanted by the time it started.
 * Afterwards the entry is left by itself when the process exits.
 */
extern bool fin_roster_join(int index, uint32 generation);
extern bool fin_roster_asked_to_leave(void);
extern void fin_roster_leave_because(FinWorkerEnd end);
extern void fin_roster_report(FinWorkerState state,
							  const FinDispatchStats *dispatch);
extern void fin_roster_report_error(const char *message);

/* ask the database's worker, if any, to leave */
extern void fin_roster_dismiss(Oid database);

/*
 * Holds.  fin_roster_vacate() holds the database until this transaction ends
 * and waits, not for ever, until its worker is gone.
 */
extern void fin_roster_vacate(Oid database);

extern void fin_roster_init(void);	/* registers the transaction callback */
extern void fin_roster_shmem_request(void);
extern void fin_roster_shmem_startup(void);

#endif							/* FIN_ROSTER_H */
