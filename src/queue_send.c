/*
 * queue_send.c
 *		Putting messages into queues: send, send_batch, publish.
 *
 * Owns nothing.  A message is one row of its queue's table; it exists for
 * others from the sender's commit on, and a rollback leaves nothing.  Sending
 * takes no lock that another sender waits for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "store_direct.h"
#include "topic.h"
#include "wake.h"

/* bits of an id that are its sequence, and that are neither sequence nor node */
#define SEQUENCE_MASK	((INT64CONST(1) << FIN_ID_SEQUENCE_BITS) - 1)
#define MS_BITS			(63 - FIN_ID_TIME_SHIFT)

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

	return (rank << (MS_BITS + FIN_ID_SEQUENCE_BITS)) |
		((drawn >> FIN_ID_TIME_SHIFT) << FIN_ID_SEQUENCE_BITS) |
		(drawn & SEQUENCE_MASK);
}

static TimestampTz
seconds_after(TimestampTz when, int seconds)
{
	return when + seconds * USECS_PER_SEC;
}

/* the columns of finance.message, in the order of the table */
static const Oid message_types[] = {
	INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT4OID,
	INT2OID, TEXTOID, JSONBOID, JSONBOID
};

#define MESSAGE_COLUMNS ((int) lengthof(message_types))

/* columns of the table that FIN_QUEUE_INSERT has as arguments, in its order */
static const int insert_arguments[] = {0, 1, 3, 4, 7, 8, 9, 10};

#define INSERT_ARGUMENTS ((int) lengthof(insert_arguments))

static void
insert_by_statement(int32 tenant_id, int64 queue_id, const Datum *values,
					const bool *nulls)
{
	Datum		arguments[INSERT_ARGUMENTS];
	char		flags[INSERT_ARGUMENTS];

	for (int i = 0; i < INSERT_ARGUMENTS; i++)
	{
		arguments[i] = values[insert_arguments[i]];
		flags[i] = nulls[insert_arguments[i]] ? 'n' : ' ';
	}
	(void) fin_queue_run(FIN_QUEUE_INSERT, tenant_id, queue_id, arguments,
						 flags);
}

/* one row; the queue is held.  Returns its msg_id. */
static int64
insert_message(int64 queue_id, const FinMessage *message, int64 drawn)
{
	TimestampTz now = fin_ident_now();
	int64		msg_id = fin_queue_msg_id(drawn, message->priority);
	Datum		values[MESSAGE_COLUMNS];
	bool		nulls[MESSAGE_COLUMNS] = {false};

	if (fin_queue_log_is(queue_id))
		return fin_queue_log_append(queue_id, message);
	values[0] = Int64GetDatum(msg_id);
	values[1] = Int64GetDatum(message->message_id);
	values[2] = Int64GetDatum(queue_id);
	values[3] = TimestampTzGetDatum(now);
	values[4] = TimestampTzGetDatum(seconds_after(now, message->delay_s));
	values[5] = Int32GetDatum(message->tenant_id);
	values[6] = Int32GetDatum(0);
	values[7] = Int16GetDatum(message->priority);
	nulls[8] = message->topic == NULL;
	values[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(message->topic);
	values[9] = JsonbPGetDatum(message->headers);
	nulls[9] = message->headers == NULL;
	values[10] = JsonbPGetDatum(message->payload);

	if (!fin_direct_insert(fin_queue_held_table(queue_id), message_types,
						   MESSAGE_COLUMNS, values, nulls))
		insert_by_statement(message->tenant_id, queue_id, values, nulls);
	if (message->delay_s == 0)
		fin_wake_note(queue_id, msg_id, 1);
	else
		fin_wake_note_due(queue_id, seconds_after(now, message->delay_s));
	return msg_id;
}

int
fin_queue_publish(const FinMessage *message)
{
	const int64 *routed;
	int64	   *queue_ids;
	int			n = fin_queue_route(message->tenant_id, message->topic,
									&routed);
	int			copies = 0;

	if (n == 0)
		return 0;
	/* the routing cache may be rebuilt while rows are written */
	queue_ids = palloc(n * sizeof(int64));
	memcpy(queue_ids, routed, n * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		/* one that was dropped meanwhile is bound to nothing any more */
		if (!fin_queue_hold(queue_ids[i], RowExclusiveLock))
			continue;
		(void) insert_message(queue_ids[i], message, fin_ident_next(0));
		copies++;
	}
	pfree(queue_ids);
	return copies;
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

/* payload and headers from the arguments; the message has no topic yet */
static void
unpack_message(FunctionCallInfo fcinfo, int payload_arg,
			   const char *payload_name, FinMessage *message)
{
	int			headers_arg = payload_arg + 1;

	memset(message, 0, sizeof(FinMessage));
	message->tenant_id = fin_context()->tenant_id;
	fin_queue_refuse_null(fcinfo, payload_arg, payload_name);
	message->payload = PG_GETARG_JSONB_P(payload_arg);
	fin_queue_check_payload(message->payload);
	if (!PG_ARGISNULL(headers_arg))
		message->headers = PG_GETARG_JSONB_P(headers_arg);
	fin_queue_check_headers(message->headers);
}

static int
arg_delay(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "delay", 0, FIN_QUEUE_SECONDS_MAX);
}

static int
arg_priority(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "priority", 0,
							 FIN_QUEUE_PRIORITY_MAX);
}

PG_FUNCTION_INFO_V1(finance_send);

/*
 * finance.send(queue_name text, msg jsonb, headers jsonb, delay int,
 *				priority int) returns bigint
 *
 * Puts a message into a queue and returns its msg_id.  delay: seconds until it
 * can be read, 0 to 30 days.  priority: 0 to 10, the highest is read first.
 * headers: a JSON object, or null.
 * Errors: LG301 unknown queue, LG303 payload or headers above
 * finance.max_payload, 22004 null, 22023 out of range.
 * Locks: the queue's table (ROW EXCLUSIVE) until the end of the transaction.
 */
Datum
finance_send(PG_FUNCTION_ARGS)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinMessage	message;
	FinQueryScope scope;
	int64		queue_id;
	int64		msg_id;

	unpack_message(fcinfo, 1, "msg", &message);
	message.delay_s = arg_delay(fcinfo, 3);
	message.priority = arg_priority(fcinfo, 4);

	fin_query_begin(&scope);
	queue_id = fin_queue_find(message.tenant_id, queue_name, RowExclusiveLock);
	message.message_id = fin_ident_next(0);
	msg_id = insert_message(queue_id, &message, message.message_id);
	fin_query_end(&scope);
	PG_RETURN_INT64(msg_id);
}

PG_FUNCTION_INFO_V1(finance_publish);

/*
 * finance.publish(topic text, payload jsonb, headers jsonb, priority int,
 *				   delay int) returns integer
 *
 * Puts a copy of the message into each queue bound to the topic and returns
 * how many there were: 0 when nothing is bound, and then nothing is stored.
 * All copies have the same message_id.  Other arguments as for send().
 * Errors: LG302 malformed topic, LG303, 22004, 22023 as for send().
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
	unpack_message(fcinfo, 1, "payload", &message);
	message.topic = topic;
	message.priority = arg_priority(fcinfo, 3);
	message.delay_s = arg_delay(fcinfo, 4);

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

typedef struct Batch
{
	int			n;
	Datum		payloads;		/* jsonb[] */
	Datum		headers;		/* jsonb[]; meaningless if !has_headers */
	bool		has_headers;
	int			delay_s;
	int			priority;
	int64	   *msg_ids;		/* result */
} Batch;

/* the elements of a jsonb[] checked; how many */
static int
check_jsonb_array(ArrayType *array, bool is_headers)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	if (n > FIN_QUEUE_BATCH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("batch of %d messages is too large", n),
				errdetail("The most is %d.", FIN_QUEUE_BATCH_MAX));
	deconstruct_array(array, JSONBOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		Jsonb	   *json;

		if (nulls[i] && is_headers)
			continue;
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("msgs must not contain null"),
					errdetail("Element %d is null.", i + 1));
		json = DatumGetJsonbP(elements[i]);
		if (is_headers)
			fin_queue_check_headers(json);
		else
			fin_queue_check_payload(json);
		if ((Pointer) json != DatumGetPointer(elements[i]))
			pfree(json);
	}
	pfree(elements);
	pfree(nulls);
	return n;
}

static void
unpack_batch(FunctionCallInfo fcinfo, Batch *batch)
{
	ArrayType  *array;

	memset(batch, 0, sizeof(Batch));
	fin_queue_refuse_null(fcinfo, 1, "msgs");
	array = PG_GETARG_ARRAYTYPE_P(1);
	batch->n = check_jsonb_array(array, false);
	batch->payloads = PointerGetDatum(array);
	if (!PG_ARGISNULL(2))
	{
		int			n;

		array = PG_GETARG_ARRAYTYPE_P(2);
		n = check_jsonb_array(array, true);
		if (n != batch->n)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("headers must have as many elements as msgs"),
					errdetail("There are %d headers and %d messages.",
							  n, batch->n));
		batch->headers = PointerGetDatum(array);
		batch->has_headers = true;
	}
	batch->delay_s = arg_delay(fcinfo, 3);
	batch->priority = arg_priority(fcinfo, 4);
}

static Datum
int8_array(const int64 *numbers, int n)
{
	Datum	   *elements = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   true, TYPALIGN_DOUBLE));
}

static void
append_batch(int32 tenant_id, int64 queue_id, Batch *batch)
{
	FinMessage *messages = palloc0(batch->n * sizeof(FinMessage));
	Datum	   *payloads;
	Datum	   *headers;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(batch->payloads), JSONBOID, -1, false,
					  TYPALIGN_INT, &payloads, &nulls, &n);
	for (int i = 0; i < batch->n; i++)
	{
		messages[i].tenant_id = tenant_id;
		messages[i].message_id = fin_ident_next(0);
		messages[i].payload = DatumGetJsonbP(payloads[i]);
		messages[i].priority = batch->priority;
	}
	if (batch->has_headers)
	{
		deconstruct_array(DatumGetArrayTypeP(batch->headers), JSONBOID, -1,
						  false, TYPALIGN_INT, &headers, &nulls, &n);
		for (int i = 0; i < batch->n; i++)
			messages[i].headers = nulls[i] ? NULL : DatumGetJsonbP(headers[i]);
	}
	(void) fin_queue_log_append_many(queue_id, messages, batch->n,
									 batch->msg_ids);
}

/* one statement for all; the queue is held */
static void
insert_batch(int32 tenant_id, int64 queue_id, Batch *batch)
{
	TimestampTz now = fin_ident_now();
	int64	   *message_ids = palloc(batch->n * sizeof(int64));
	int64		drawn = 0;
	Datum		values[7];
	char		nulls[] = "       ";

	for (int i = 0; i < batch->n; i++)
	{
		drawn = fin_ident_next(drawn);
		message_ids[i] = drawn;
		batch->msg_ids[i] = fin_queue_msg_id(drawn, batch->priority);
	}
	values[0] = int8_array(batch->msg_ids, batch->n);
	values[1] = int8_array(message_ids, batch->n);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(seconds_after(now, batch->delay_s));
	values[4] = Int16GetDatum(batch->priority);
	values[5] = batch->headers;
	values[6] = batch->payloads;
	if (!batch->has_headers)
		nulls[5] = 'n';

	(void) fin_queue_run(FIN_QUEUE_INSERT_MANY, tenant_id, queue_id,
						 values, nulls);
	if (batch->delay_s == 0)
		fin_wake_note(queue_id, batch->msg_ids[batch->n - 1], batch->n);
	else
		fin_wake_note_due(queue_id, seconds_after(now, batch->delay_s));
}

PG_FUNCTION_INFO_V1(finance_send_batch);

/*
 * finance.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay int,
 *					  priority int) returns setof bigint
 *
 * send() for up to 10,000 messages in one statement; returns their msg_ids in
 * the order of msgs.  headers: null, or one element (or null) per message.
 * Errors: as for send(); 54000 for too many messages.
 */
Datum
finance_send_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	Batch		batch;
	int64		queue_id;

	unpack_batch(fcinfo, &batch);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	batch.msg_ids = palloc(batch.n * sizeof(int64));

	fin_query_begin(&scope);
	queue_id = fin_queue_find(tenant_id, queue_name, RowExclusiveLock);
	if (fin_queue_log_is(queue_id))
		append_batch(tenant_id, queue_id, &batch);
	else if (batch.n > 0)
		insert_batch(tenant_id, queue_id, &batch);
	fin_query_end(&scope);

	for (int i = 0; i < batch.n; i++)
	{
		Datum		value = Int64GetDatum(batch.msg_ids[i]);
		bool		isnull = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &value,
							 &isnull);
	}
	return (Datum) 0;
}
