/*
 * dispatch.h
 *		The worker's chore that turns bells into notifications.
 *
 * A chore has three calls: when is it due, do one bounded batch (inside a
 * transaction of the worker), and what to do once that has committed.
 */
#ifndef FIN_DISPATCH_H
#define FIN_DISPATCH_H

#include "datatype/timestamp.h"

/* channels of one queue that are notified; subscribe() should refuse more */
#define FIN_CHANNELS_PER_QUEUE_MAX	1000

/*
 * Dispatch lags are counted in classes: four to each doubling, from 2
 * microseconds on; the last one has all that is longer.
 */
#define FIN_LAG_CLASSES		96

/* since the worker started */
typedef struct FinDispatchStats
{
	int64		rounds;			/* batches of work */
	int64		notifications;	/* NOTIFYs sent */
	int64		messages;		/* announced by them, counted once a queue */
	int64		unsendable;		/* channels no NOTIFY can be sent on */
	TimestampTz last_unsendable_at; /* 0: never */
	char		last_unsendable[NAMEDATALEN];	/* that channel, cut off */
	int64		last_lag_us;	/* commit of a message to commit of its NOTIFY */
	int64		max_lag_us;
	int64		lags[FIN_LAG_CLASSES];
	TimestampTz last_notified_at;	/* 0: never */
	TimestampTz last_sweep_at;	/* 0: never */
} FinDispatchStats;

/* before the first call: the worker's slot in wake */
extern void fin_dispatch_start(int slot);

/* at the next batch, look at all subscribed queues */
extern void fin_dispatch_sweep(void);

extern TimestampTz fin_dispatch_due(TimestampTz now);
extern void fin_dispatch_run(TimestampTz now);
extern void fin_dispatch_committed(TimestampTz now);

extern const FinDispatchStats *fin_dispatch_stats(void);

/*
 * A lag that the given part (0 to 1) of the announcements did not exceed: the
 * upper end of its class, so up to 19 percent too long; 0 when there was none.
 */
extern int64 fin_dispatch_lag_us(const FinDispatchStats *of, double part);

#endif							/* FIN_DISPATCH_H */
