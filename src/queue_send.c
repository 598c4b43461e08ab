/*
 * queue_send.c
 *		Putting messages into queues: send, send_batch, publish.
 *
 * Owns nothing.  A message is one row of its queue's current segment; it
 * exists for others from the sender's commit on, and a rollback leaves
 * nothing.  Sending takes no lock that another sender waits for, but that on a
 * dedup id which both of them send.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "dedup.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "topic.h"
#include "wake.h"

/* bits of an id that are its sequence */
#define SEQUENCE_MASK	((INT64CONST(1) << FIN_ID_SEQUENCE_BITS) - 1)

/*
 * Reading is one walk along an index, highest priority first and then oldest;
 * acknowledging is one look-up by msg_id in the same index.  So msg_id itself
 * sorts that way: rank (10 - priority), millisecond, sequence.  The node
 * number of the drawn id makes room for it: a queue lies on one server.
 */
int64
fin_queue_msg_id(int64 drawn, int priority)
{
	int64		rank = FIN_QUEUE_PRIORITY_MAX - priority;

	return FIN_BACKLOG_FIRST(rank) |
		((drawn >> FIN_ID_TIME_SHIFT) << FIN_ID_SEQUENCE_BITS) |
		(drawn & SEQUENCE_MASK);
}

/* ------------------------------------------------------------------------
 * rows
 * ------------------------------------------------------------------------
 */

/* messages on their way into one queue */
typedef struct Load
{
	const FinQueueConfig *config;
	const FinMessage *messages;
	int			n;
	int64	   *msg_ids;		/* result; of an earlier one for a duplicate */
	TimestampTz now;
	Datum	  **values;			/* rows to be inserted, */
	bool	  **nulls;
	int			nrows;			/* so many: those that are no duplicates */
} Load;

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
time_or_null(TimestampTz when, bool *isnull)
{
	*isnull = when == 0;
	return TimestampTzGetDatum(when);
}

/* 0: at once */
static TimestampTz
due_time(const FinMessage *message, TimestampTz now)
{
	TimestampTz due_at = message->deliver_at;

	if (message->delay_s > 0)
		due_at = now + message->delay_s * USECS_PER_SEC;
	return due_at > now ? due_at : 0;
}

static void
fill_row(Load *load, const FinMessage *message, int64 msg_id)
{
	Datum	   *values = palloc(sizeof(Datum) * FIN_MSG_COLUMNS);
	bool	   *nulls = palloc0(sizeof(bool) * FIN_MSG_COLUMNS);
	TimestampTz due_at = due_time(message, load->now);
	TimestampTz visible_at = due_at != 0 ? due_at : load->now;
	int			ttl_s = message->ttl_s > 0 ? message->ttl_s :
		load->config->message_ttl_s;

	values[FIN_MSG_ID] = Int64GetDatum(msg_id);
	values[FIN_MSG_MESSAGE_ID] = Int64GetDatum(message->message_id);
	values[FIN_MSG_QUEUE_ID] = Int64GetDatum(load->config->queue_id);
	values[FIN_MSG_ENQUEUED_AT] = TimestampTzGetDatum(load->now);
	values[FIN_MSG_VISIBLE_AT] = TimestampTzGetDatum(visible_at);
	values[FIN_MSG_TENANT_ID] = Int32GetDatum(load->config->tenant_id);
	values[FIN_MSG_READ_CT] = Int32GetDatum(0);
	values[FIN_MSG_PRIORITY] = Int16GetDatum(message->priority);
	values[FIN_MSG_DUE_AT] = time_or_null(due_at, &nulls[FIN_MSG_DUE_AT]);
	/* a life begins when the message can be read */
	values[FIN_MSG_EXPIRES_AT] =
		time_or_null(ttl_s > 0 ? visible_at + ttl_s * USECS_PER_SEC : 0,
					 &nulls[FIN_MSG_EXPIRES_AT]);
	values[FIN_MSG_TOPIC] = text_or_null(message->topic,
										 &nulls[FIN_MSG_TOPIC]);
	values[FIN_MSG_ORDERING_KEY] = text_or_null(message->ordering_key,
												&nulls[FIN_MSG_ORDERING_KEY]);
	nulls[FIN_MSG_HEADERS] = message->headers == NULL;
	values[FIN_MSG_HEADERS] = JsonbPGetDatum(message->headers);
	values[FIN_MSG_PAYLOAD] = JsonbPGetDatum(message->payload);

	load->values[load->nrows] = values;
	load->nulls[load->nrows] = nulls;
	load->nrows++;
}

/* which of them are no duplicates; returns NULL when none can be one */
static FinDedup *
take_dedup_ids(Load *load)
{
	FinDedup   *ids = NULL;

	for (int i = 0; i < load->n; i++)
	{
		if (load->messages[i].dedup_id == NULL)
			continue;
		if (ids == NULL)
			ids = palloc0(sizeof(FinDedup) * load->n);
		ids[i].dedup_id = load->messages[i].dedup_id;
	}
	if (ids == NULL)
		return NULL;
	for (int i = 0; i < load->n; i++)
		ids[i].msg_id = load->msg_ids[i];
	fin_dedup_take_many(load->config->tenant_id, load->config->queue_id,
						load->config->dedup_window_s, ids, load->n);
	return ids;
}

static void
fill_rows(Load *load)
{
	FinDedup   *ids = take_dedup_ids(load);

	load->values = palloc(sizeof(Datum *) * load->n);
	load->nulls = palloc(sizeof(bool *) * load->n);
	for (int i = 0; i < load->n; i++)
	{
		if (ids == NULL || ids[i].dedup_id == NULL || ids[i].taken)
			fill_row(load, &load->messages[i], load->msg_ids[i]);
		else
			load->msg_ids[i] = ids[i].earlier_msg_id;
	}
}

/* messages next to each other in rank and delay are told as one */
static void
tell(const Load *load, int segment)
{
	int64		queue_id = load->config->queue_id;

	for (int i = 0; i < load->nrows; i++)
	{
		const Datum *values = load->values[i];
		const bool *nulls = load->nulls[i];
		int64		msg_id = DatumGetInt64(values[FIN_MSG_ID]);
		TimestampTz due_at = nulls[FIN_MSG_DUE_AT] ? 0 :
			DatumGetTimestampTz(values[FIN_MSG_DUE_AT]);

		fin_backlog_note_sent(queue_id, segment, msg_id, msg_id, 1, due_at);
		if (due_at == 0)
			fin_wake_note(queue_id, msg_id, 1);
		else
			fin_wake_note_due(queue_id, due_at);
	}
	for (int i = 0; i < load->nrows; i++)
	{
		if (!load->nulls[i][FIN_MSG_EXPIRES_AT])
			fin_backlog_note_expiry(queue_id,
									DatumGetTimestampTz(load->values[i][FIN_MSG_EXPIRES_AT]));
	}
}

static void
reserve_room(const Load *load)
{
	const FinQueueConfig *config = load->config;
	int64		length = 0;

	if (config->max_length == 0 || load->messages[0].is_dead_letter)
		return;
	fin_wake_require(ERROR);
	if (!fin_backlog_reserve(config->queue_id, load->nrows,
							 config->max_length,
							 fin_queue_count(config->queue_id), &length))
		ereport(ERROR,
				errcode(ERRCODE_FIN_QUEUE_FULL),
				errmsg("queue \"%s\" is full", config->name),
				errdetail("It has " INT64_FORMAT " messages, those of open transactions included; the most is " INT64_FORMAT ", and %d are sent.",
						  length, config->max_length, load->nrows),
				errhint("Wait for its consumers, or raise max_length with finance.alter_queue()."));
}

/* false when the queue is dropped */
static bool
load_standard(Load *load)
{
	int			number = fin_backlog_segment(load->config->queue_id);
	FinSegment *segment = fin_segment_open(load->config->queue_id, number,
										   RowExclusiveLock);

	if (segment == NULL)
		return false;
	fill_rows(load);
	if (load->nrows > 0)
	{
		reserve_room(load);
		fin_segment_insert(segment, load->values, load->nulls, load->nrows);
		tell(load, number);
	}
	fin_segment_close(segment);
	return true;
}

/* the same, into a log; it draws the ids itself */
static bool
load_log(Load *load)
{
	int64		queue_id = load->config->queue_id;
	FinDedup   *ids = take_dedup_ids(load);
	FinMessage *messages;
	int64	   *msg_ids;
	int			n = 0;

	if (ids == NULL)
		return fin_queue_log_append_many(queue_id, load->messages, load->n,
										 load->msg_ids);
	messages = palloc(sizeof(FinMessage) * load->n);
	msg_ids = palloc(sizeof(int64) * load->n);
	for (int i = 0; i < load->n; i++)
	{
		if (ids[i].dedup_id == NULL || ids[i].taken)
			messages[n++] = load->messages[i];
		else
			load->msg_ids[i] = ids[i].earlier_msg_id;
	}
	if (n > 0 && !fin_queue_log_append_many(queue_id, messages, n, msg_ids))
		return false;
	for (int i = 0, next = 0; i < load->n; i++)
	{
		if (ids[i].dedup_id == NULL || ids[i].taken)
			load->msg_ids[i] = msg_ids[next++];
	}
	return true;
}

/* false when the queue is dropped */
static bool
load_queue(const FinQueueConfig *config, const FinMessage *messages, int n,
		   int64 *msg_ids)
{
	Load		load = {
		.config = config,
		.messages = messages,
		.n = n,
		.msg_ids = msg_ids,
		.now = fin_ident_now()
	};

	return config->is_log ? load_log(&load) : load_standard(&load);
}

static bool
put(const FinQueueConfig *config, const FinMessage *message, int64 drawn,
	int64 *msg_id)
{
	*msg_id = fin_queue_msg_id(drawn, message->priority);
	return load_queue(config, message, 1, msg_id);
}

int64
fin_queue_put(int64 queue_id, const FinMessage *message)
{
	FinQueueConfig *config = fin_queue_config(queue_id);
	int64		msg_id;

	if (config == NULL || !put(config, message, fin_ident_next(0), &msg_id))
		return 0;
	pfree(config);
	return msg_id;
}

int
fin_queue_publish(const FinMessage *message)
{
	const int64 *routed;
	int64	   *queue_ids;
	int			n = fin_queue_route(message->tenant_id, message->topic,
									message->headers, &routed);
	int			copies = 0;

	if (n == 0)
		return 0;
	/* the routing cache may be rebuilt while rows are written */
	queue_ids = palloc(n * sizeof(int64));
	memcpy(queue_ids, routed, n * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		/* one that was dropped meanwhile is bound to nothing any more */
		if (fin_queue_put(queue_ids[i], message) != 0)
			copies++;
	}
	pfree(queue_ids);
	return copies;
}

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------
 */

static void
check_ordering_key(const char *key)
{
	size_t		length = strlen(key);

	if (length == 0 || length > FIN_QUEUE_KEY_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("ordering key is %zu bytes long", length),
				errdetail("It has 1 to %d bytes.", FIN_QUEUE_KEY_MAX));
}

/* when the message can be read; 0 for null */
static TimestampTz
arg_deliver_at(FunctionCallInfo fcinfo, int arg, TimestampTz now)
{
	TimestampTz when;

	if (PG_ARGISNULL(arg))
		return 0;
	when = PG_GETARG_TIMESTAMPTZ(arg);
	if (TIMESTAMP_NOT_FINITE(when))
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("deliver_at must be finite"));
	if (when > now + FIN_QUEUE_AHEAD_MAX * USECS_PER_SEC)
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("deliver_at is out of range"),
				errdetail("It may be at most %d days from now.",
						  FIN_QUEUE_AHEAD_MAX / (24 * 60 * 60)));
	return when;
}

/* delay, priority, ttl from 'arg' on, and deliver_at */
static void
unpack_times(FunctionCallInfo fcinfo, int delay_arg, int priority_arg,
			 int ttl_arg, int deliver_at_arg, FinMessage *message)
{
	message->delay_s = fin_queue_arg_int(fcinfo, delay_arg, "delay", 0,
										 FIN_QUEUE_SECONDS_MAX);
	message->priority = fin_queue_arg_int(fcinfo, priority_arg, "priority", 0,
										  FIN_QUEUE_PRIORITY_MAX);
	if (!PG_ARGISNULL(ttl_arg))
		message->ttl_s = fin_queue_arg_int(fcinfo, ttl_arg, "ttl", 1,
										   FIN_QUEUE_TTL_MAX);
	message->deliver_at = arg_deliver_at(fcinfo, deliver_at_arg,
										 fin_ident_now());
	if (message->delay_s > 0 && message->deliver_at != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("delay and deliver_at exclude each other"),
				errhint("Give one of them."));
}

/* payload and headers; the message has no topic yet */
static void
unpack_payload(FunctionCallInfo fcinfo, const char *payload_name,
			   FinMessage *message)
{
	memset(message, 0, sizeof(FinMessage));
	message->tenant_id = fin_context()->tenant_id;
	fin_queue_refuse_null(fcinfo, 1, payload_name);
	message->payload = PG_GETARG_JSONB_P(1);
	fin_queue_check_payload(message->payload);
	if (!PG_ARGISNULL(2))
		message->headers = PG_GETARG_JSONB_P(2);
	fin_queue_check_headers(message->headers);
}

/* what send() and publish() have in common: arguments 1 to 8 */
static void
unpack_message(FunctionCallInfo fcinfo, const char *payload_name,
			   int delay_arg, int priority_arg, FinMessage *message)
{
	unpack_payload(fcinfo, payload_name, message);
	unpack_times(fcinfo, delay_arg, priority_arg, 5, 8, message);
	if (!PG_ARGISNULL(6))
	{
		message->ordering_key = fin_queue_arg_text(fcinfo, 6, "ordering_key");
		check_ordering_key(message->ordering_key);
	}
	if (!PG_ARGISNULL(7))
	{
		message->dedup_id = fin_queue_arg_text(fcinfo, 7, "dedup_id");
		fin_dedup_check_id(message->dedup_id);
	}
}

/* ------------------------------------------------------------------------
 * send and publish
 * ------------------------------------------------------------------------
 */

PG_FUNCTION_INFO_V1(finance_send);

/*
 * finance.send(queue_name text, msg jsonb, headers jsonb, delay int,
 *				priority int, ttl int, ordering_key text, dedup_id text,
 *				deliver_at timestamptz) returns bigint
 *
 * Puts a message into a queue and returns its msg_id.
 * headers: a JSON object, or null.  delay: seconds until it can be read, 0 to
 * 30 days; or deliver_at: a time up to a year ahead.  priority: 0 to 10, the
 * highest is read first.  ttl: seconds it lives from when it can be read, 1 to
 * a year; null: the queue's.  ordering_key (1 to 255 bytes): messages of one
 * key are read one after another, in the order of sending.  dedup_id (1 to 128
 * bytes): when a message with it was sent to the queue within its window,
 * nothing is sent and that one's msg_id returned; waits while another
 * transaction is sending one.
 * Errors: LG301 unknown queue, LG303 payload or headers above
 * finance.max_payload, LG306 the queue is full, 22004 null, 22008 and 22023
 * out of range.
 * Locks: a table of the queue (ROW EXCLUSIVE) until the end of the
 * transaction.
 */
Datum
finance_send(PG_FUNCTION_ARGS)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinMessage	message;
	FinQueryScope scope;
	FinQueueConfig *config;
	int64		msg_id;

	unpack_message(fcinfo, "msg", 3, 4, &message);
	fin_query_begin(&scope);
	message.message_id = fin_ident_next(0);
	/* dropped since it was found?  then another may bear the name */
	do
	{
		config = fin_queue_find(message.tenant_id, queue_name);
	} while (!put(config, &message, message.message_id, &msg_id));
	fin_query_end(&scope);
	PG_RETURN_INT64(msg_id);
}

PG_FUNCTION_INFO_V1(finance_publish);

/*
 * finance.publish(topic text, payload jsonb, headers jsonb, priority int,
 *				   delay int, ttl int, ordering_key text, dedup_id text,
 *				   deliver_at timestamptz) returns integer
 *
 * Puts a copy of the message into each queue bound to the topic and returns
 * how many there were.  When no binding matches, the tenant's alternate queue
 * gets the only copy; without one nothing is stored, and the result is 0.
 * All copies have the same message_id.  Other arguments as for send(); a
 * dedup_id counts for each queue by itself.
 * Errors: LG302 malformed topic, and those of send().
 * Locks: the tables of the queues (ROW EXCLUSIVE) until the end of the
 * transaction.
 */
Datum
finance_publish(PG_FUNCTION_ARGS)
{
	char	   *topic = fin_queue_arg_text(fcinfo, 0, "topic");
	FinMessage	message;
	FinQueryScope scope;
	int			copies = 0;

	fin_topic_check(topic);
	unpack_message(fcinfo, "payload", 4, 3, &message);
	message.topic = topic;
	if (fin_queue_route_count(message.tenant_id, topic) > 0)
	{
		fin_query_begin(&scope);
		message.message_id = fin_ident_next(0);
		copies = fin_queue_publish(&message);
		fin_query_end(&scope);
	}
	PG_RETURN_INT32(copies);
}

/* ------------------------------------------------------------------------
 * send_batch
 * ------------------------------------------------------------------------
 */

/* the elements of an array that has one for each message; NULL for null */
static Datum *
arg_elements(FunctionCallInfo fcinfo, int arg, const char *name, Oid type,
			 int expected, bool **nulls, int *n)
{
	ArrayType  *array;
	Datum	   *elements;

	if (PG_ARGISNULL(arg))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(arg);
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (*n > FIN_QUEUE_BATCH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("batch of %d messages is too large", *n),
				errdetail("The most is %d.", FIN_QUEUE_BATCH_MAX));
	if (expected >= 0 && *n != expected)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must have as many elements as msgs", name),
				errdetail("There are %d %s and %d messages.", *n, name,
						  expected));
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, &elements, nulls,
					  n);
	return elements;
}

static FinMessage *
unpack_payloads(FunctionCallInfo fcinfo, const FinMessage *common, int *n)
{
	bool	   *nulls;
	Datum	   *elements;
	FinMessage *messages;

	fin_queue_refuse_null(fcinfo, 1, "msgs");
	elements = arg_elements(fcinfo, 1, "msgs", JSONBOID, -1, &nulls, n);
	messages = palloc(sizeof(FinMessage) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("msgs must not contain null"),
					errdetail("Element %d is null.", i + 1));
		messages[i] = *common;
		messages[i].payload = DatumGetJsonbP(elements[i]);
		fin_queue_check_payload(messages[i].payload);
	}
	return messages;
}

static void
unpack_headers(FunctionCallInfo fcinfo, FinMessage *messages, int n)
{
	bool	   *nulls;
	int			count;
	Datum	   *elements = arg_elements(fcinfo, 2, "headers", JSONBOID, n,
										&nulls, &count);

	for (int i = 0; elements != NULL && i < n; i++)
	{
		if (nulls[i])
			continue;
		messages[i].headers = DatumGetJsonbP(elements[i]);
		fin_queue_check_headers(messages[i].headers);
	}
}

static void
unpack_keys(FunctionCallInfo fcinfo, FinMessage *messages, int n)
{
	bool	   *nulls;
	int			count;
	Datum	   *elements = arg_elements(fcinfo, 6, "ordering_keys", TEXTOID, n,
										&nulls, &count);

	for (int i = 0; elements != NULL && i < n; i++)
	{
		if (nulls[i])
			continue;
		messages[i].ordering_key = TextDatumGetCString(elements[i]);
		check_ordering_key(messages[i].ordering_key);
	}
	elements = arg_elements(fcinfo, 7, "dedup_ids", TEXTOID, n, &nulls,
							&count);
	for (int i = 0; elements != NULL && i < n; i++)
	{
		if (nulls[i])
			continue;
		messages[i].dedup_id = TextDatumGetCString(elements[i]);
		fin_dedup_check_id(messages[i].dedup_id);
	}
}

static FinMessage *
unpack_batch(FunctionCallInfo fcinfo, int *n)
{
	FinMessage	common = {.tenant_id = fin_context()->tenant_id};
	FinMessage *messages;

	unpack_times(fcinfo, 3, 4, 5, 8, &common);
	messages = unpack_payloads(fcinfo, &common, n);
	unpack_headers(fcinfo, messages, *n);
	unpack_keys(fcinfo, messages, *n);
	return messages;
}

static void
draw_ids(FinMessage *messages, int n, int64 *msg_ids)
{
	int64		drawn = 0;

	for (int i = 0; i < n; i++)
	{
		drawn = fin_ident_next(drawn);
		messages[i].message_id = drawn;
		msg_ids[i] = fin_queue_msg_id(drawn, messages[i].priority);
	}
}

/* all is done in the first call; the others return the ids */
static void
send_all(FunctionCallInfo fcinfo)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	int			n;
	FinMessage *messages = unpack_batch(fcinfo, &n);
	int64	   *msg_ids = palloc(sizeof(int64) * Max(n, 1));
	int32		tenant_id = fin_context()->tenant_id;
	FinQueryScope scope;
	FinQueueConfig *config;

	fin_query_begin(&scope);
	do
	{
		config = fin_queue_find(tenant_id, queue_name);
		draw_ids(messages, n, msg_ids);
	} while (n > 0 && !load_queue(config, messages, n, msg_ids));
	fin_query_end(&scope);
	fin_queue_begin_ids(fcinfo, msg_ids, n);
}

PG_FUNCTION_INFO_V1(finance_send_batch);

/*
 * finance.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay int,
 *					  priority int, ttl int, ordering_keys text[],
 *					  dedup_ids text[], deliver_at timestamptz)
 *		returns setof bigint
 *
 * send() for up to 10,000 messages at once; returns their msg_ids in the order
 * of msgs.  headers, ordering_keys, dedup_ids: null, or one element (or null)
 * per message.
 * Errors: as for send(); 54000 for too many messages.
 */
Datum
finance_send_batch(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
		send_all(fcinfo);
	return fin_queue_next_id(fcinfo);
}
