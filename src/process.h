/*
 * process.h
 *		What the launcher and the workers have in common as processes.
 */
#ifndef FIN_PROCESS_H
#define FIN_PROCESS_H

#include "datatype/timestamp.h"

/* first in main: signal handlers; then lets signals in */
extern void fin_process_start(void);

/* session settings no ALTER DATABASE or ALTER ROLE may spoil; once connected */
extern void fin_process_settle(void);

/*
 * Once a round: exits with 'exit_code' on SIGTERM, and takes in reloads,
 * cancels and cache invalidations.  True when the settings were reloaded.
 */
extern bool fin_process_attend(int exit_code);

/* until 'when', the latch, or the postmaster's death, which ends the process */
extern void fin_process_sleep(TimestampTz when);

/* how long to wait after so many failures in a row */
extern int64 fin_process_backoff_us(int failures);

#endif							/* FIN_PROCESS_H */
