/*
 * process.c
 *		What the launcher and the workers have in common as processes.
 *
 * Owns nothing; takes no locks.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "process.h"

#define FIN_SLEEP_MAX_MS		(24 * 3600 * 1000L)
#define FIN_BACKOFF_FIRST_US	USECS_PER_SEC
#define FIN_BACKOFF_MAX_US		(60 * USECS_PER_SEC)

/*
 * A timeout or a level set for a database or for the role of the connection is
 * meant for sessions of users.  Commits need not wait for the disk, nor for a
 * standby: what was announced or made is announced or made again after a
 * crash, and the messages themselves were committed by their producers.
 */
static const struct
{
	const char *name;
	const char *value;
}			settings[] =
{
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "10s"},	/* report what blocks a chore, try again */
	{"idle_in_transaction_session_timeout", "0"},
	{"synchronous_commit", "off"},
	{"session_replication_role", "origin"},
#ifdef FIN_HAS_TRANSACTION_TIMEOUT
	{"transaction_timeout", "0"},
#endif
};

void
fin_process_start(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

void
fin_process_settle(void)
{
	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i].name, settings[i].value,
						PGC_SUSET, PGC_S_OVERRIDE);
}

bool
fin_process_attend(int exit_code)
{
	/* between chores there is nothing to say about being told to stop */
	if (ProcDiePending)
		proc_exit(exit_code);
	/* a cancel that came too late for the chore it was meant for */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

void
fin_process_sleep(TimestampTz when)
{
	TimestampTz now = GetCurrentTimestamp();
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	long		ms = FIN_SLEEP_MAX_MS;

	/* rounded up, so as not to wake just before the time and find nothing */
	if (when <= now)
		ms = 0;
	else if (when - now < FIN_SLEEP_MAX_MS * INT64CONST(1000))
		ms = (when - now + 999) / 1000;
	(void) WaitLatch(MyLatch, events, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

int64
fin_process_backoff_us(int failures)
{
	int64		us = FIN_BACKOFF_FIRST_US;

	for (int i = 1; i < failures && us < FIN_BACKOFF_MAX_US; i++)
		us *= 2;
	return Min(us, FIN_BACKOFF_MAX_US);
}
