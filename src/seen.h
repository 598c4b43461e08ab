/*
 * seen.h
 *		Sets of ids that were seen: takes an id unless it was taken before.
 *
 * Two sets: dedup ids of messages, and ids of messages that consumers have
 * processed.  An id belongs to a scope (a queue, a consumer) of a tenant and is
 * remembered for a window of time.
 */
#ifndef FIN_SEEN_H
#define FIN_SEEN_H

#include "datatype/timestamp.h"

typedef enum FinSeenSet
{
	FIN_SEEN_DEDUP,				/* scope: queue_id bigint; value: msg_id */
	FIN_SEEN_INBOX				/* scope: consumer text; no value */
} FinSeenSet;

typedef struct FinSeen FinSeen;

/* windows: the longest a dedup id may have; the inbox has no other than its own */
#define FIN_SEEN_DEDUP_MAX_S	(6 * 60 * 60)

extern int64 fin_seen_inbox_window_us(void);

/*
 * Start taking ids of a scope, each for 'window_us', which is not longer than
 * the set's longest.  Call, as the others, inside fin_query_begin/end.
 */
extern FinSeen *fin_seen_begin(FinSeenSet which, int32 tenant_id, Datum scope,
							   int64 window_us);

/*
 * Take an id; false when it was taken less than the window ago, by a
 * transaction that committed or by this one: then *earlier, if not NULL, is
 * the value it was taken with.  Taken with the commit of this transaction, and
 * not when it, or its savepoint, is rolled back.
 *
 * Waits for another open transaction that has taken the same id, and for
 * nobody else.  Who takes several in one transaction takes them in ascending
 * order, or may deadlock.  Error: 40001, where the snapshot of REPEATABLE READ
 * does not see that the id was taken.
 */
extern bool fin_seen_take(FinSeen *seen, const char *id, int64 value,
						  int64 *earlier);

extern void fin_seen_end(FinSeen *seen);

/*
 * Worker's chore: truncates tables in which every id is out of its window.
 * sweep: look at the next round.
 */
extern void fin_seen_sweep(void);
extern TimestampTz fin_seen_due(TimestampTz now);
extern void fin_seen_run(TimestampTz now);
extern void fin_seen_committed(TimestampTz now);

#endif							/* FIN_SEEN_H */
