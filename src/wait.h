/*
 * wait.h
 *		Readers that wait for messages of a queue, and waking them.
 *
 * A reader that found nothing calls fin_wait_begin(), looks again, since
 * something may have come in between, and sleeps; after each sleep it looks
 * again.  Who commits messages calls fin_wait_ring(), which costs one read of
 * memory while nobody waits: it wakes as many readers as there are messages,
 * those first who wait longest.  A reader that was woken and leaves wakes the
 * next one, since the message it took may not be the one it was woken for.
 *
 * Without shared_preload_libraries nobody can be woken: then fin_wait_begin()
 * says so, and the reader has to look from time to time.
 */
#ifndef FIN_WAIT_H
#define FIN_WAIT_H

#include "datatype/timestamp.h"

/* readers of the whole server that can be woken; others poll */
#define FIN_WAITERS_MAX		1024

/* false: cannot be woken.  Ends with the transaction, if not before. */
extern bool fin_wait_begin(int64 queue_id);

/* before looking: from now on, what is committed wakes this reader (again) */
extern void fin_wait_renew(void);

/*
 * Sleeps until a message came, 'until', or an earlier time at which a message
 * becomes visible that was told by fin_wait_ring_due().  Works without
 * fin_wait_begin() too: then it sleeps until 'until'.  Raises what interrupts
 * the statement.
 */
extern void fin_wait_sleep(TimestampTz until);

extern void fin_wait_end(void);

/* after a commit or rollback; cannot fail */
extern void fin_wait_ring(int64 queue_id, int64 count);
extern void fin_wait_ring_due(int64 queue_id, TimestampTz due_at);

extern void fin_wait_init(void);	/* registers the transaction callback */
extern void fin_wait_shmem_request(void);
extern void fin_wait_shmem_startup(void);

#endif							/* FIN_WAIT_H */
