/*
 * wake.h
 *		Shared-memory doorbells: which queues of which databases got messages
 *		that are now committed, when the next hold expires and the next half
 *		message is to be checked, and the latch of the worker to tell.
 *
 * A producer calls fin_wake_note() inside its transaction.  What it noted is
 * kept per subtransaction, dropped on rollback, and after the commit copied
 * into shared memory; then the worker's latch is set.  A prepared transaction
 * drops its notes: the worker's sweep finds those messages.
 *
 * The worker hears with fin_wake_collect(), works, and after its own commit
 * takes off with fin_wake_answered() what it told its subscribers, so that an
 * error in between loses nothing.  A queue that was answered is quiet for the
 * notification window: its bell still counts, but wakes nobody.
 *
 * Queues that nobody subscribed to ring no bell: the worker says which ones it
 * hears, and hears all from the commit of a change of subscriptions until it
 * has read them anew.
 *
 * The same notes wake readers that wait for messages, see wait.h.
 *
 * Without shared_preload_libraries all of it does nothing.
 */
#ifndef FIN_WAKE_H
#define FIN_WAKE_H

#include "datatype/timestamp.h"

/* never, as a time to wake */
#define FIN_NEVER			DT_NOEND

/* as a time at which holds expire: look at all of them */
#define FIN_EXPIRY_ALL		DT_NOBEGIN

/* queues of one database whose bells are kept apart */
#define FIN_BELLS_MAX		256

/* as a time at which half messages are to be checked: look at all of them */
#define FIN_HALF_ALL		DT_NOBEGIN

/* slot of the launcher; workers have 1 to fin_wake_slots() - 1 */
#define FIN_WAKE_LAUNCHER	0

/* what rang for one queue since it was last answered */
typedef struct FinBell
{
	int64		queue_id;
	int64		highest_id;		/* highest message id among them */
	int64		count;			/* messages; 0: only a due time is told */
	TimestampTz rung_at;		/* commit of the first of them */
	TimestampTz due_at;			/* look at the queue then; 0: none told */
} FinBell;

/*
 * The queues a worker hears, as a set in which some others may seem to be: one
 * bit each, by a hash.
 */
#define FIN_HEARD_BITS		8192

typedef struct FinHeard
{
	uint32		words[FIN_HEARD_BITS / 32];
} FinHeard;

/* is the shared memory there, that is: was the library preloaded? */
extern bool fin_wake_available(void);

/*
 * For functions that need the worker: reports at 'elevel' (ERROR, WARNING),
 * 55000 with the way to get it, when there is none on this server.
 */
extern void fin_wake_require(int elevel);

/* ---- producers; each takes effect when the transaction commits ---- */

/* this transaction made 'count' visible messages in the queue */
extern void fin_wake_note(int64 queue_id, int64 highest_id, int64 count);

/*
 * a message of the queue becomes visible at 'due_at'; a time already past asks
 * the worker to announce all that waits in the queue now, for instance to a
 * new subscriber
 */
extern void fin_wake_note_due(int64 queue_id, TimestampTz due_at);

/*
 * this transaction took 'count' messages of the queue.  When it commits, the
 * first of them becomes visible again at 'due_at' (0: none does); when it rolls
 * back, all of them do at once, which wakes readers that wait.
 */
extern void fin_wake_note_claim(int64 queue_id, int64 count,
								TimestampTz due_at);

/* subscriptions were changed: the worker's set of queues is out of date */
extern void fin_wake_note_subscriptions(void);

/* a hold of this transaction is over at 'due_at' */
extern void fin_wake_note_expiry(TimestampTz due_at);

/* a half message of this transaction is to be checked at 'due_at' */
extern void fin_wake_note_half(TimestampTz due_at);

/*
 * This transaction appended to the audit log.  When it commits, or is prepared,
 * the worker is told that something is unsealed, unless it was told already.
 */
extern void fin_wake_note_appended(void);

/* the worker of this database should look at everything, itself included */
extern void fin_wake_note_attention(void);

/* the launcher should look at this database again */
extern void fin_wake_note_launcher(Oid database);

/* set the latch of this database's worker, now */
extern void fin_wake_ring_worker(void);

/* ---- the launcher and the workers ---- */

extern int	fin_wake_slots(void);
extern void fin_wake_attach(int slot, Oid database);
extern void fin_wake_detach(int slot);

/* set the latch of who sits in the slot */
extern void fin_wake_ring(int slot);

/*
 * Fills bells[FIN_BELLS_MAX] with those that rang and are not in their window,
 * and returns how many.  *attention is set when someone asked for it or more
 * queues rang than there are bells.  *next is when a window ends.  Due times
 * are handed over; counts stay until answered.
 */
extern int	fin_wake_collect(int slot, TimestampTz now, int64 window_us,
							 FinBell *bells, bool *attention,
							 TimestampTz *next);

/* takes the counts off and, when window_us > 0, begins the quiet window */
extern void fin_wake_answered(int slot, TimestampTz now, int64 window_us,
							  const FinBell *bells, int n);

/*
 * When the first of the holds expires that were made since the last call;
 * FIN_NEVER: none was, FIN_EXPIRY_ALL: someone asked for all to be looked at.
 */
extern TimestampTz fin_wake_collect_expiry(int slot);

/* the same of half messages: FIN_NEVER or FIN_HALF_ALL */
extern TimestampTz fin_wake_collect_half(int slot);

/*
 * Was something appended to the audit log since it was last taken?  To take it
 * is to promise a newer snapshot.
 */
extern bool fin_wake_has_appended(int slot);
extern bool fin_wake_take_appended(int slot);

/* end of the queue's window, or 0 when it is not in one */
extern TimestampTz fin_wake_quiet_until(int slot, TimestampTz now,
										int64 window_us, int64 queue_id);

/*
 * To say which queues it hears, the owner asks whether what it said is out of
 * date, then reads the subscriptions with a newer snapshot, and hands over the
 * set; in vain when subscriptions were changed in between.
 */
extern bool fin_wake_hears_all(int slot, uint64 *version);
extern void fin_wake_heard_add(FinHeard *heard, int64 queue_id);
extern void fin_wake_hear(int slot, uint64 version, const FinHeard *heard);

/*
 * 'when' is when the owner of the slot collects at the latest: later due times
 * need not set its latch.  FIN_NEVER before collecting, the time it sleeps
 * until afterwards.
 */
extern void fin_wake_promise(int slot, TimestampTz when);

extern void fin_wake_init(void);	/* registers the transaction callbacks */
extern void fin_wake_shmem_request(void);
extern void fin_wake_shmem_startup(void);

#endif							/* FIN_WAKE_H */
