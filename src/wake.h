/*
 * wake.h
 *		Shared-memory doorbells: which queues of which databases got messages
 *		that are now committed, and the latch of the worker to tell.
 *
 * A producer calls fin_wake_note() inside its transaction.  What it noted is
 * kept per subtransaction, dropped on rollback, and after the commit copied
 * into shared memory; then the worker's latch is set.  A worker collects with
 * fin_wake_collect().  Without shared_preload_libraries all of it does nothing.
 */
#ifndef FIN_WAKE_H
#define FIN_WAKE_H

#include "storage/latch.h"

/* bells of one queue that rang since they were last collected */
typedef struct FinBell
{
	int64		queue_id;
	int64		highest_id;		/* highest message id among them */
	int64		count;			/* messages */
} FinBell;

/* is the shared memory there, that is: was the library preloaded? */
extern bool fin_wake_available(void);

/* producer: this transaction made 'count' messages in the queue */
extern void fin_wake_note(int64 queue_id, int64 highest_id, int64 count);

/*
 * worker: take up to 'max' bells of the database; *overflow is set when there
 * were more queues than slots since the last call, so that the caller must
 * look at all of its queues
 */
extern int	fin_wake_collect(Oid database, FinBell *bells, int max,
							 bool *overflow);

extern void fin_wake_init(void);	/* registers the transaction callbacks */
extern void fin_wake_shmem_request(void);
extern void fin_wake_shmem_startup(void);

#endif							/* FIN_WAKE_H */
