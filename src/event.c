/*
 * event.c
 *		What a posting tells the audit log and the subscribers.
 *
 * Pure formatting, allocated in the current context.  Ids and amounts are
 * strings, as everywhere in our JSON (json.h).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "alert.h"
#include "event.h"
#include "json.h"
#include "json_push.h"
#include "queue.h"

/* topic of each status */
static const char *const topics[][2] = {
	{"completed", "transfer.completed"},
	{"held", "transfer.held"},
	{"released", "transfer.released"},
	{"expired", "transfer.expired"},
	{"rejected", FIN_TOPIC_ALERT},
	{"review", "transfer.review"},
	{"challenged", "transfer.challenged"},
	/* what was to be a hold is one now */
	{"approved", "transfer.held"},
};

/* ------------------------------------------------------------------------
 * messages: jsonb
 * ------------------------------------------------------------------------ */

static char *
timestamp_text(TimestampTz when)
{
	char		buffer[MAXDATELEN + 1];
	Datum		value = TimestampTzGetDatum(when);

	JsonEncodeDateTime(buffer, value, TIMESTAMPTZOID, NULL);
	return pstrdup(buffer);
}

static char *
uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

static void
push_decisions(JsonbParseState **state, const FinVerdict *verdict)
{
	fin_json_push_key(state, "decisions");
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < verdict->nhits; i++)
	{
		const FinRiskHit *hit = &verdict->hits[i];

		fin_json_push_open(state, NULL);
		fin_json_push_text(state, "rule", hit->rule);
		fin_json_push_text(state, "kind", hit->kind);
		fin_json_push_text(state, "outcome",
						   fin_risk_outcome_name(hit->outcome));
		fin_json_push_number(state, "score", hit->score);
		fin_json_push_text_or_null(state, "observed", hit->observed);
		fin_json_push_text_or_null(state, "threshold", hit->threshold);
		fin_json_push_text_or_null(state, "window", hit->window);
		fin_json_push_close(state);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/*
 * Members are pushed as jsonb sorts them, by length and then by bytes: an
 * object that comes in order costs a fifth to put together.
 */
static void
push_payload(JsonbParseState **state, const FinOutcome *outcome,
			 const FinVerdict *verdict)
{
	const FinTransferRow *row = &outcome->row;
	const FinSide *from = &row->moved.from;
	const FinSide *to = &row->moved.to;

	fin_json_push_open(state, "payload");
	if (verdict != NULL)
	{
		fin_json_push_text(state, "level", fin_alert_level(verdict->outcome));
		fin_json_push_int64(state, "score", verdict->score);
	}
	fin_json_push_amount(state, "amount", row->amount, row->scale);
	fin_json_push_text(state, "status", row->status);
	if (row->hold_id != 0)
		fin_json_push_int64(state, "hold_id", row->hold_id);
	if (verdict != NULL)
	{
		fin_json_push_text(state, "outcome",
						   fin_risk_outcome_name(verdict->outcome));
		if (verdict->version != 0)
			fin_json_push_int64(state, "version", verdict->version);
		fin_json_push_int64(state, "alert_id", outcome->alert_id);
	}
	fin_json_push_text(state, "currency", row->currency);
	if (row->released != 0)
		fin_json_push_amount(state, "released", row->released, row->scale);
	if (verdict != NULL)
		push_decisions(state, verdict);
	fin_json_push_text_or_null(state, "reference", row->reference);
	if (row->journal_id != 0)
		fin_json_push_int64(state, "journal_id", row->journal_id);
	fin_json_push_text_or_null(state, "to_account", outcome->to_code);
	fin_json_push_amount(state, "to_balance", to->balance_after, row->scale);
	if (!row->rejected)
		fin_json_push_int64(state, "to_version", to->version);
	fin_json_push_int64(state, "transfer_id", row->id);
	if (row->reverses_id != 0)
		fin_json_push_int64(state, "reverses_id", row->reverses_id);
	fin_json_push_text_or_null(state, "from_account", outcome->from_code);
	fin_json_push_amount(state, "from_balance", from->balance_after,
						 row->scale);
	if (!row->rejected)
		fin_json_push_int64(state, "from_version", from->version);
	fin_json_push_text(state, "transfer_type", row->type);
	fin_json_push_close(state);
}

static Jsonb *
message_body(const FinContext *context, int64 message_id, const char *topic,
			 const FinOutcome *outcome, const FinVerdict *verdict)
{
	JsonbParseState *state = NULL;

	fin_json_push_open(&state, NULL);
	fin_json_push_text(&state, "type", topic);
	push_payload(&state, outcome, verdict);
	fin_json_push_jsonb(&state, "metadata", outcome->row.metadata);
	fin_json_push_text(&state, "trace_id", uuid_text(&context->trace_id));
	fin_json_push_text(&state, "timestamp",
					   timestamp_text(outcome->row.recorded_at));
	fin_json_push_int64(&state, "message_id", message_id);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

const char *
fin_event_topic(const FinOutcome *outcome)
{
	const char *status = outcome->row.status;
	bool		gives_back = strcmp(status, "released") == 0 ||
		strcmp(status, "expired") == 0;

	if (outcome->settles && gives_back)
		return "transfer.rejected";
	for (int i = 0; i < (int) lengthof(topics); i++)
	{
		if (strcmp(topics[i][0], status) == 0)
			return topics[i][1];
	}
	elog(ERROR, "no topic for status \"%s\"", status);
}

bool
fin_event_has_listeners(const FinContext *context, const char *topic)
{
	return fin_queue_route_count(context->tenant_id, topic) > 0;
}

void
fin_event_publish(const FinContext *context, int64 message_id,
				  const char *topic, const FinOutcome *outcome,
				  const FinVerdict *verdict)
{
	FinMessage	message = {0};

	message.tenant_id = context->tenant_id;
	message.message_id = message_id;
	message.topic = topic;
	message.payload = message_body(context, message_id, topic, outcome,
								   verdict);
	fin_queue_publish(&message);
}

/* ------------------------------------------------------------------------
 * audit: json text
 * ------------------------------------------------------------------------ */

static void
json_version(StringInfo json, const char *key, int64 version)
{
	if (version != FIN_NO_VERSION)
		fin_json_int64(json, key, version);
}

const char *
fin_event_operation(const FinOrder *order)
{
	static const char *const operations[] = {
		[FIN_REVIEW_APPROVED] = "review_transfer",
		[FIN_REVIEW_REJECTED] = "review_transfer",
		[FIN_REVIEW_CONFIRMED] = "confirm_challenge",
		[FIN_REVIEW_FAILED] = "confirm_challenge",
		[FIN_REVIEW_TIMED_OUT] = "settle_review",
	};

	if (order->has_recorded_at)
		return "import";
	if (order->settles != NULL)
		return operations[order->settles->end];
	switch (order->action)
	{
		case FIN_TRANSFER:
			return order->reverses_id != 0 ? "reverse" : "transfer";
		case FIN_HOLD:
			return "hold";
		case FIN_CAPTURE:
			return "capture";
		case FIN_RELEASE:
			return "release";
		case FIN_EXPIRE:
			return "expire";
		case FIN_UNPARK:
			break;				/* settles */
	}
	elog(ERROR, "unknown action %d", (int) order->action);
}

char *
fin_event_request_json(const FinOrder *order, const FinOutcome *outcome)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "from_account", outcome->from_code);
	fin_json_text(&json, "to_account", outcome->to_code);
	fin_json_text(&json, "currency", order->currency);
	fin_json_text(&json, "idempotency_key", order->key);
	if (order->type != NULL && strcmp(order->type, "transfer") != 0)
		fin_json_text(&json, "type", order->type);
	json_version(&json, "expected_from_version", order->expected_from_version);
	json_version(&json, "expected_to_version", order->expected_to_version);
	if (order->has_effective_at)
		fin_json_text(&json, "effective_at",
					  timestamp_text(order->effective_at));
	fin_json_text(&json, "reference", order->reference);
	fin_json_jsonb(&json, "metadata", order->metadata);
	fin_json_jsonb(&json, "request", order->request);
	return fin_json_end(&json);
}

static void
json_id(StringInfo json, const char *key, int64 id)
{
	if (id != 0)
		fin_json_int64(json, key, id);
}

char *
fin_event_response_json(const FinOutcome *outcome, const FinVerdict *verdict)
{
	const FinTransferRow *row = &outcome->row;
	StringInfoData json;

	initStringInfo(&json);
	if (!row->rejected)
	{
		fin_json_int64(&json, "from_version", row->moved.from.version);
		fin_json_int64(&json, "to_version", row->moved.to.version);
	}
	fin_json_text(&json, "rule", outcome->rule);
	if (verdict != NULL)
		fin_json_text(&json, "outcome", fin_risk_outcome_name(verdict->outcome));
	json_id(&json, "alert_id", outcome->alert_id);
	json_id(&json, "hold_id", row->hold_id);
	if (row->released != 0)
		fin_json_text(&json, "released",
					  fin_amount_text(row->released, row->scale));
	json_id(&json, "journal_id", row->journal_id);
	json_id(&json, "reverses_id", row->reverses_id);
	return fin_json_end(&json);
}
