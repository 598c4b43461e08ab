/*
 * event.h
 *		What a posting tells the audit log and the subscribers.
 */
#ifndef FIN_EVENT_H
#define FIN_EVENT_H

#include "context.h"
#include "posting.h"
#include "risk.h"

#define FIN_TOPIC_ALERT	"risk.alert"

/*
 * What an outcome that was just posted is published as: transfer.completed,
 * held, released, expired, review or challenged; transfer.rejected when it
 * gives back what was parked; risk.alert when risk rejected it.
 */
extern const char *fin_event_topic(const FinOutcome *outcome);

/* is a queue bound to the topic? */
extern bool fin_event_has_listeners(const FinContext *context,
									const char *topic);

/*
 * Publishes it.  verdict: what risk said of it, to be told; or NULL.  Call
 * inside fin_query_begin/end, and only where somebody listens.
 */
extern void fin_event_publish(const FinContext *context, int64 message_id,
							  const char *topic, const FinOutcome *outcome,
							  const FinVerdict *verdict);

/* what the audit log calls the order */
extern const char *fin_event_operation(const FinOrder *order);

/*
 * JSON texts of the request and the response, for the audit record: what its
 * columns do not tell
 */
extern char *fin_event_request_json(const FinOrder *order,
									const FinOutcome *outcome);
extern char *fin_event_response_json(const FinOutcome *outcome,
									 const FinVerdict *verdict);

#endif							/* FIN_EVENT_H */
