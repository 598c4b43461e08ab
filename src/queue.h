/*
 * queue.h
 *		Queues, bindings and messages: publish, route, read, acknowledge.
 */
#ifndef FIN_QUEUE_H
#define FIN_QUEUE_H

#include "utils/jsonb.h"

typedef struct FinMessage
{
	int32		tenant_id;
	int64		message_id;		/* drawn by the caller; the same in each copy */
	const char *topic;
	Jsonb	   *payload;
	Jsonb	   *headers;		/* or NULL */
	int			priority;		/* 0 to 10 */
	int			delay_s;		/* seconds until it is first visible */
} FinMessage;

/*
 * How many queues the topic's messages go to: from a cache, so that callers
 * need not build a payload nobody reads.
 */
extern int	fin_queue_route_count(int32 tenant_id, const char *topic);

/* one copy to each bound queue; returns how many.  Call inside
 * fin_query_begin/end. */
extern int	fin_queue_publish(const FinMessage *message);

extern void fin_queue_init(void);

#endif							/* FIN_QUEUE_H */
