/*
 * relay.h
 *		What the parts of finance-relay know of each other.
 *
 * The program holds one batch of messages at a time, and where each of them
 * stands is kept in the batch alone.  So either connection may be lost at any
 * moment: when it is back, the batch says what remains to be done.
 *
 * Memory: the strings of a message lie in the batch's PGresult and live until
 * the batch is let go.  Everything else is allocated once, at the start, in
 * proportion to the size of a batch.
 */
#ifndef FIN_RELAY_H
#define FIN_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include <libpq-fe.h>

#define RELAY_BATCH_MAX			1000	/* messages in hand */
#define RELAY_HEADERS_MAX		1000	/* headers of one message */
#define RELAY_REASON_MAX		200		/* bytes, with the zero */
#define RELAY_SHORTSTR_MAX		255		/* bytes of AMQP's short strings */

/* options of the command line and the environment; never changed afterwards */
typedef struct RelayOptions
{
	const char *dsn;			/* libpq's; its environment fills the rest */
	const char *amqp_uri;
	const char *amqp_file;		/* has the URI in its first line */
	const char *queue;			/* ours */
	const char *exchange;		/* of the broker; empty is its default one */
	const char *routing_key;	/* NULL: the message's topic */
	const char *channel;		/* of NOTIFY; NULL: only look from time to time */
	const char *tls_ca;			/* files, for amqps:// */
	const char *tls_cert;
	const char *tls_key;
	int			batch;			/* messages read at once */
	int			vt_s;			/* how long they are ours, unless extended */
	int			poll_s;			/* look at the queue so often, notified or not */
	int			confirm_s;		/* the broker has so long to confirm */
	int			heartbeat_s;
	int			retry_s;		/* at most so long between two tries */
	int			give_up_s;		/* end when nothing works for so long; 0: never */
	bool		once;			/* end when the queue is empty */
	bool		verbose;
} RelayOptions;

/*
 * Where a message stands.  WAITING -> SENT when given to the broker, and back
 * when the connection is lost; SENT -> CONFIRMED or REFUSED by what the broker
 * says.  Those two remain until PostgreSQL has committed what follows from
 * them.
 */
typedef enum RelayState
{
	RELAY_WAITING,
	RELAY_SENT,
	RELAY_CONFIRMED,			/* the broker has it: to be deleted */
	RELAY_REFUSED,				/* the broker does not want it: nack() */
	RELAY_SETTLED
} RelayState;

typedef struct RelayMessage
{
	RelayState	state;
	uint64_t	tag;			/* delivery tag on the channel, when SENT */
	const char *msg_id;			/* decimal digits */
	const char *message_id;
	const char *read_ct;
	const char *topic;			/* NULL when it was sent without one */
	const char *payload;		/* JSON text */
	size_t		payload_len;
	uint64_t	enqueued_at;	/* seconds since 1970 */
	int			priority;
	int			row;			/* its first row in the batch's result, */
	int			rows;			/* and how many: one for each header */
	char		reason[RELAY_REASON_MAX];	/* why it is REFUSED */
} RelayMessage;

typedef struct RelayBatch
{
	PGresult   *result;			/* NULL when nothing is in hand */
	RelayMessage *messages;		/* room for options.batch */
	int			count;
	int64_t		claimed_ms;		/* when it was read or extended */
} RelayBatch;

/* columns of the batch's result that only the broker's side reads */
#define RELAY_COL_HEADER		8	/* name; NULL when there is no header */
#define RELAY_COL_HEADER_TYPE	9	/* as jsonb_typeof() has it */
#define RELAY_COL_HEADER_VALUE	10	/* text */

/* finance-relay.c */
extern RelayOptions relay_options;
extern void relay_log(const char *format,...)
			__attribute__((format(printf, 1, 2)));
extern int64_t relay_now_ms(void);

/* relay_queue.c: all return false, having logged why, when PostgreSQL fails */
extern bool relay_queue_open(void);
extern void relay_queue_close(void);
extern bool relay_queue_is_open(void);
extern int	relay_queue_socket(void);
extern bool relay_queue_heard(bool *heard);
extern bool relay_queue_read(RelayBatch *batch);
extern bool relay_queue_extend(RelayBatch *batch, int vt_s);
extern bool relay_queue_settle(RelayBatch *batch);

/* relay_broker.c: likewise, when the broker does */
extern bool relay_broker_open(void);
extern void relay_broker_close(void);
extern bool relay_broker_is_open(void);
extern int	relay_broker_socket(void);
extern bool relay_broker_pump(RelayBatch *batch, int wait_ms);
extern bool relay_broker_publish(RelayBatch *batch);

/* of a batch */
extern int	relay_batch_in_state(const RelayBatch *batch, RelayState state);
extern void relay_batch_unsend(RelayBatch *batch);
extern void relay_batch_release(RelayBatch *batch);
extern void relay_refuse(RelayMessage *message, const char *format,...)
			__attribute__((format(printf, 2, 3)));

#endif							/* FIN_RELAY_H */
