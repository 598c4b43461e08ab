/*
 * expire.h
 *		The worker's chore that gives back holds whose time is over.
 *
 * A chore has three calls: when is it due, do one bounded batch (inside a
 * transaction of the worker), and what to do once that has committed.
 */
#ifndef FIN_EXPIRE_H
#define FIN_EXPIRE_H

#include "datatype/timestamp.h"

/* before the first call: the worker's slot in wake */
extern void fin_expire_start(int slot);

/* at the next batch, look at all holds, as if the worker had just started */
extern void fin_expire_sweep(void);

extern TimestampTz fin_expire_due(TimestampTz now);
extern void fin_expire_run(TimestampTz now);
extern void fin_expire_committed(TimestampTz now);

/* why a hold could not be expired, since the last call; or NULL */
extern const char *fin_expire_complaint(void);

#endif							/* FIN_EXPIRE_H */
