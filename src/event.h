/*
 * event.h
 *		What a posting tells the audit log and the subscribers.
 */
#ifndef FIN_EVENT_H
#define FIN_EVENT_H

#include "context.h"
#include "posting.h"
#include "risk.h"

/* is a queue bound to what an outcome of this status publishes? */
extern bool fin_event_has_listeners(const FinContext *context,
									const char *status);

/*
 * Publishes transfer.completed, transfer.held, transfer.released,
 * transfer.expired or risk.alert for an outcome that was just posted.  Call
 * inside fin_query_begin/end, and only where somebody listens.
 */
extern void fin_event_publish(const FinContext *context, int64 message_id,
							  const FinOutcome *outcome,
							  const FinRiskJudgement *judgement);

/* what the audit log calls the order */
extern const char *fin_event_operation(const FinOrder *order);

/*
 * JSON texts of the request and the response, for the audit record: what its
 * columns do not tell
 */
extern char *fin_event_request_json(const FinOrder *order,
									const FinOutcome *outcome);
extern char *fin_event_response_json(const FinOutcome *outcome);

#endif							/* FIN_EVENT_H */
