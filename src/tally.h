/*
 * tally.h
 *		What was sent on each NOTIFY channel, in shared memory.
 *
 * The worker adds after its commit; anyone may ask.  Counts begin with the
 * worker.
 */
#ifndef FIN_TALLY_H
#define FIN_TALLY_H

#include "datatype/timestamp.h"

/* channels of the whole server that are counted; others are not */
#define FIN_TALLIES_MAX		1024

typedef struct FinTally
{
	int64		notifications;	/* sent on the channel */
	int64		messages;		/* announced by them */
	int64		refused;		/* that NOTIFY would not take */
	TimestampTz notified_at;	/* the last; 0: never */
} FinTally;

extern bool fin_tally_available(void);

/* forgets the channels of this database: its worker begins */
extern void fin_tally_begin(void);

/* of this database: one announcement, sent or refused */
extern void fin_tally_add(const char *channel, int64 messages, bool sent,
						  TimestampTz now);

/* false when nothing was counted for the channel in this database */
extern bool fin_tally_get(const char *channel, FinTally *tally);

extern void fin_tally_shmem_request(void);
extern void fin_tally_shmem_startup(void);

#endif							/* FIN_TALLY_H */
