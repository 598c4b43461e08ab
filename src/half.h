/*
 * half.h
 *		Half messages: prepared now, delivered or given up when their producer
 *		says so; and the worker's chore that asks it.
 *
 * The chore's calls are those of expire.h.
 */
#ifndef FIN_HALF_H
#define FIN_HALF_H

#include "datatype/timestamp.h"

/* before the first call: the worker's slot in wake */
extern void fin_half_start(int slot);

/* at the next batch, look at all half messages */
extern void fin_half_sweep(void);

extern TimestampTz fin_half_due(TimestampTz now);
extern void fin_half_run(TimestampTz now);
extern void fin_half_committed(TimestampTz now);

/* why one could not be checked, since the last call; or NULL */
extern const char *fin_half_complaint(void);

#endif							/* FIN_HALF_H */
