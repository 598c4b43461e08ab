/*
 * queue_dead.c
 *		Dead letters and the archive: what leaves its queue without being
 *		deleted, and redrive(), which brings dead letters back.
 *
 * A dead letter carries in its header x-death why it is one, and where it
 * comes from: {"reason": "max_deliveries", "queue": name, "msg_id": id,
 * "read_ct": n, "at": time}.
 *
 * Owns nothing.  Locks: those of sending to the dead-letter queue.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"

/* ------------------------------------------------------------------------
 * dead letters
 * ------------------------------------------------------------------------
 */

static Jsonb *
make_x_death(const FinQueueConfig *config, TupleTableSlot *row,
			 const char *reason, TimestampTz now)
{
	StringInfoData json;
	bool		isnull;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"x-death\": {\"reason\": ");
	escape_json(&json, reason);
	appendStringInfoString(&json, ", \"queue\": ");
	escape_json(&json, config->name);
	appendStringInfo(&json, ", \"msg_id\": " INT64_FORMAT ", \"read_ct\": %d, \"at\": ",
					 fin_segment_int64(row, FIN_MSG_ID),
					 DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
													 &isnull)));
	escape_json(&json, timestamptz_to_str(now));
	appendStringInfoString(&json, "}}");
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(json.data)));
}

static Jsonb *
headers_of(TupleTableSlot *row)
{
	bool		isnull;
	Datum		headers = fin_segment_value(row, FIN_MSG_HEADERS, &isnull);

	return isnull ? NULL : DatumGetJsonbP(headers);
}

static Jsonb *
merge_headers(Jsonb *headers, Jsonb *x_death)
{
	if (headers == NULL)
		return x_death;
	if (x_death == NULL)
		return headers;
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(headers),
											  JsonbPGetDatum(x_death)));
}

static const char *
text_of(TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = fin_segment_value(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* 0: there is none, or it is this very queue */
static int64
dead_letter_queue(const FinQueueConfig *config)
{
	int64		queue_id = config->dead_letter_queue_id;

	if (queue_id == 0)
		queue_id = fin_queue_default_dead_letter(config->tenant_id);
	return queue_id == config->queue_id ? 0 : queue_id;
}

/* the message as it goes on; its life begins anew */
static void
copy_message(const FinQueueConfig *config, TupleTableSlot *row,
			 FinMessage *message)
{
	bool		isnull;

	memset(message, 0, sizeof(*message));
	message->tenant_id = config->tenant_id;
	message->message_id = fin_segment_int64(row, FIN_MSG_MESSAGE_ID);
	message->topic = text_of(row, FIN_MSG_TOPIC);
	message->ordering_key = text_of(row, FIN_MSG_ORDERING_KEY);
	message->headers = headers_of(row);
	message->payload = DatumGetJsonbP(fin_segment_value(row, FIN_MSG_PAYLOAD,
														&isnull));
	message->priority = DatumGetInt16(fin_segment_value(row, FIN_MSG_PRIORITY,
														&isnull));
}

static void *
pointer_of(TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = fin_segment_value(row, column, &isnull);

	return isnull ? NULL : DatumGetPointer(value);
}

void
fin_queue_archive_row(FinArchive *archive, TupleTableSlot *row,
					  Jsonb *x_death)
{
	bool		isnull;
	FinArchived archived = {
		.msg_id = fin_segment_int64(row, FIN_MSG_ID),
		.message_id = fin_segment_int64(row, FIN_MSG_MESSAGE_ID),
		.queue_id = fin_segment_int64(row, FIN_MSG_QUEUE_ID),
		.enqueued_at = fin_segment_int64(row, FIN_MSG_ENQUEUED_AT),
		.expires_at = fin_segment_int64(row, FIN_MSG_EXPIRES_AT),
		.tenant_id = DatumGetInt32(fin_segment_value(row, FIN_MSG_TENANT_ID,
													 &isnull)),
		.read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
												   &isnull)),
		.priority = DatumGetInt16(fin_segment_value(row, FIN_MSG_PRIORITY,
													&isnull)),
		.topic = pointer_of(row, FIN_MSG_TOPIC),
		.ordering_key = pointer_of(row, FIN_MSG_ORDERING_KEY),
		.headers = x_death == NULL ? pointer_of(row, FIN_MSG_HEADERS) :
			merge_headers(headers_of(row), x_death),
		.payload = pointer_of(row, FIN_MSG_PAYLOAD)
	};

	fin_archive_add(archive, &archived);
}

void
fin_queue_bury(const FinQueueConfig *config, FinQueueTables *tables,
			   int segment, TupleTableSlot *row, const char *reason,
			   TimestampTz now)
{
	Jsonb	   *x_death = make_x_death(config, row, reason, now);
	int64		queue_id = dead_letter_queue(config);
	FinMessage	message;

	copy_message(config, row, &message);
	message.is_dead_letter = true;
	message.headers = merge_headers(message.headers, x_death);
	if (queue_id == 0 || fin_queue_put(queue_id, &message) == 0)
	{
		FinArchive *archive = fin_archive_begin();

		fin_queue_archive_row(archive, row, x_death);
		fin_archive_end(archive);
	}

	if (fin_segment_delete(tables->segments[segment], row, tables->snapshot,
						   true) != FIN_DELETED)
		elog(ERROR, "message " INT64_FORMAT " changed although it is locked",
			 fin_segment_int64(row, FIN_MSG_ID));
	fin_queue_note_gone(tables, segment, row, now);
	fin_queue_release_key(tables, row, now);
}

/* ------------------------------------------------------------------------
 * redrive
 * ------------------------------------------------------------------------
 */

/* x-death is where it has been, not part of the message */
static Jsonb *
without_x_death(Jsonb *headers)
{
	Datum		stripped = DirectFunctionCall2(jsonb_delete,
											   JsonbPGetDatum(headers),
											   CStringGetTextDatum("x-death"));
	Jsonb	   *result = DatumGetJsonbP(stripped);

	return JB_ROOT_COUNT(result) == 0 ? NULL : result;
}

/* the name of the queue a dead letter comes from, or NULL */
static char *
origin_of(Jsonb *headers)
{
	JsonbValue	buffer;
	JsonbValue *death;
	JsonbValue *queue;

	if (headers == NULL)
		return NULL;
	death = getKeyJsonValueFromContainer(&headers->root, "x-death", 7, &buffer);
	if (death == NULL || death->type != jbvBinary ||
		!JsonContainerIsObject(death->val.binary.data))
		return NULL;
	queue = getKeyJsonValueFromContainer(death->val.binary.data, "queue", 5,
										 NULL);
	if (queue == NULL || queue->type != jbvString)
		return NULL;
	return pnstrdup(queue->val.string.val, queue->val.string.len);
}

typedef struct Redrive
{
	FinQueueConfig *config;		/* of the dead-letter queue */
	const char *to;				/* destination by name; NULL: where it is from */
	FinQueueTables tables;
	TimestampTz now;
	int64		limit;
	int64		moved;
} Redrive;

static FinQueueConfig *
find_target(const Redrive *redrive, const char *name)
{
	FinQueueConfig *target = fin_queue_find(redrive->config->tenant_id, name);

	if (target->queue_id == redrive->config->queue_id)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("messages of queue \"%s\" cannot be redriven to itself",
					   target->name));
	return target;
}

/* false: it stays, since nobody knows where it belongs */
static bool
send_back(Redrive *redrive, TupleTableSlot *row)
{
	FinMessage	message;
	char	   *origin;
	FinQueueConfig *target;

	copy_message(redrive->config, row, &message);
	origin = origin_of(message.headers);
	if (redrive->to == NULL && origin == NULL)
		return false;
	target = find_target(redrive, redrive->to != NULL ? redrive->to : origin);
	if (message.headers != NULL)
		message.headers = without_x_death(message.headers);
	return fin_queue_put(target->queue_id, &message) != 0;
}

static void
redrive_segment(Redrive *redrive, int segment)
{
	FinSegmentScan *scan = fin_queue_scan(&redrive->tables, segment,
										  FIN_BY_ID);
	TupleTableSlot *row;

	if (scan == NULL)
		return;
	fin_segment_rescan(scan, 0, PG_INT64_MAX);
	while (redrive->moved < redrive->limit &&
		   (row = fin_segment_next(scan)) != NULL)
	{
		FinSegment *table = redrive->tables.segments[segment];

		/* one that is being worked on is not for us */
		if (fin_segment_int64(row, FIN_MSG_VISIBLE_AT) > redrive->now ||
			!fin_segment_lock(table, row, redrive->tables.snapshot, false) ||
			!send_back(redrive, row))
			continue;
		if (fin_segment_delete(table, row, redrive->tables.snapshot,
							   true) != FIN_DELETED)
			elog(ERROR, "message " INT64_FORMAT " changed although it is locked",
				 fin_segment_int64(row, FIN_MSG_ID));
		fin_queue_note_gone(&redrive->tables, segment, row, redrive->now);
		fin_queue_release_key(&redrive->tables, row, redrive->now);
		redrive->moved++;
	}
}

PG_FUNCTION_INFO_V1(finance_redrive);

/*
 * finance.redrive(queue_name text, to_queue text, "limit" int)
 *		returns bigint
 *
 * Sends dead letters back: up to limit (1 to 10,000) visible messages of the
 * queue go to the queue named in their header x-death, or to to_queue, as new
 * messages with their message_id, without that header and read 0 times; those
 * that say nowhere where they come from stay, unless to_queue is given.
 * Returns how many went.
 * Errors: LG301 unknown queue, also one that a letter comes from, LG306 it is
 * full, LG309 a log queue, 22004 null, 22023 out of range or to itself.
 * Locks: the rows; others that are locked are left.
 */
Datum
finance_redrive(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	Redrive		redrive = {
		.to = PG_ARGISNULL(1) ? NULL : fin_queue_arg_text(fcinfo, 1, "to_queue"),
		.limit = fin_queue_arg_int(fcinfo, 2, "limit", 1, FIN_QUEUE_BATCH_MAX),
		.now = fin_ident_now()
	};
	FinQueryScope scope;

	fin_query_begin(&scope);
	redrive.config = fin_queue_find_standard(tenant_id, name);
	/* told also when there is nothing to send */
	if (redrive.to != NULL)
		(void) find_target(&redrive, redrive.to);
	fin_queue_tables_begin(&redrive.tables, redrive.config->queue_id,
						   RowExclusiveLock);
	for (int i = 0; i < FIN_SEGMENTS; i++)
		redrive_segment(&redrive, i);
	fin_queue_tables_end(&redrive.tables);
	fin_query_end(&scope);
	PG_RETURN_INT64(redrive.moved);
}
