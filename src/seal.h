/*
 * seal.h
 *		The worker's chore that seals the audit log.
 *
 * As in expire.h, a chore has three calls: when is it due, do one bounded batch
 * (inside a transaction of the worker), and what to do once that has committed.
 */
#ifndef FIN_SEAL_H
#define FIN_SEAL_H

#include "datatype/timestamp.h"

/* before the first call: the worker's slot in wake */
extern void fin_seal_start(int slot);

/* look at the next round whether anything is unsealed */
extern void fin_seal_sweep(void);

extern TimestampTz fin_seal_due(TimestampTz now);
extern void fin_seal_run(TimestampTz now);
extern void fin_seal_committed(TimestampTz now);

#endif							/* FIN_SEAL_H */
