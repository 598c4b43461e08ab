/*
 * queue.h
 *		Queues, bindings and messages: publish, route, read, acknowledge.
 */
#ifndef FIN_QUEUE_H
#define FIN_QUEUE_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

typedef struct FinMessage
{
	int32		tenant_id;
	int64		message_id;		/* drawn by the caller; the same in each copy */
	const char *topic;			/* or NULL */
	Jsonb	   *payload;
	Jsonb	   *headers;		/* or NULL */
	int			priority;		/* 0 to 10 */
	int			delay_s;		/* seconds until it is first visible, or */
	TimestampTz deliver_at;		/* that time; 0: none */
	int			ttl_s;			/* seconds it lives from then on; 0: the
								 * queue's */
	const char *ordering_key;	/* or NULL */
	const char *dedup_id;		/* or NULL */
	bool		is_dead_letter; /* then max_length does not refuse it: the
								 * queue it comes from could not go on */
} FinMessage;

/*
 * The most queues that a message of this topic may go to, whatever its headers,
 * the alternate queue included: from a cache, so that callers need not build a
 * payload nobody can read.  0: nobody listens.
 */
extern int	fin_queue_route_count(int32 tenant_id, const char *topic);

/*
 * One copy to each bound queue; returns how many.  Payload and headers are
 * checked by whoever takes them from a user: what was allowed as metadata of a
 * transfer must not fail it for being told to a queue.  Call inside
 * fin_query_begin/end.
 */
extern int	fin_queue_publish(const FinMessage *message);

/*
 * One copy into this queue, whatever its kind.  Returns its msg_id, or that of
 * the earlier message with the same dedup id; 0 when the queue is dropped.
 */
extern int64 fin_queue_put(int64 queue_id, const FinMessage *message);

/* what waits in a queue */
typedef struct FinQueueWaiting
{
	int64		count;			/* became visible after 'since', up to 'now' */
	int64		highest_id;		/* of these */
	TimestampTz next_at;		/* when the next becomes visible; 0: none */
} FinQueueWaiting;

/*
 * For the worker: counts among the 10,000 messages that are read first; false
 * when the queue is dropped.  Call inside fin_query_begin/end.
 */
extern bool fin_queue_waiting(int32 tenant_id, int64 queue_id,
							  TimestampTz since, TimestampTz now,
							  FinQueueWaiting *waiting);

/*
 * The worker's chore: truncates segments whose messages are all gone, and takes
 * out messages whose time to live is over.
 */
extern void fin_queue_tidy_sweep(void);
extern TimestampTz fin_queue_tidy_due(TimestampTz now);
extern void fin_queue_tidy_run(TimestampTz now);
extern void fin_queue_tidy_committed(TimestampTz now);
extern const char *fin_queue_tidy_complaint(void);

/*
 * The worker's chore of removing from log queues what is over; attend: look now.
 */
extern void fin_queue_log_attend(void);
extern TimestampTz fin_queue_log_due(TimestampTz now);
extern void fin_queue_log_run(TimestampTz now);
extern void fin_queue_log_committed(TimestampTz now);

extern void fin_queue_init(void);

#endif							/* FIN_QUEUE_H */
