/*
 * half.c
 *		Half messages: prepare, commit, roll back, and what became of them.
 *
 * A half message is a row of finance.half_message, committed by itself: what
 * is open keeps no transaction open.  Its answer is a row of
 * finance.half_answer; with that of a commit, and in the same transaction, the
 * message is published.  Whoever dies in between leaves it open, and is asked.
 *
 * Owns finance.half_message and finance.half_answer; half_check.c deletes from
 * both.
 *
 * Locks: an answer locks the half message's row until the end of its
 * transaction; of two answers the second waits, and is told what the first
 * was.  What was answered is then read with the newest snapshot, whatever the
 * isolation level: two snapshots must not both publish.  Several are locked
 * in the order of their ids.
 *
 * Memory: that of a query scope, one for each half message.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "argument.h"
#include "compat.h"
#include "context.h"
#include "dedup.h"
#include "errors.h"
#include "half_parts.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "store_direct.h"
#include "topic.h"
#include "wake.h"

#define FIN_TTL_MAX_S	FIN_QUEUE_SECONDS_MAX

/* columns of finance.half_message, in the order of the table */
static const Oid half_types[] = {
	INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID,
	INT2OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, JSONBOID,
	JSONBOID
};

#define HALF_COLUMNS ((int) lengthof(half_types))

/* and of finance.half_answer */
static const Oid answer_types[] = {
	INT4OID, INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID
};

#define ANSWER_COLUMNS ((int) lengthof(answer_types))

static FinQuery insert_half =
{
	.sql = "INSERT INTO finance.half_message (tenant_id, delay_s, half_id,"
	" prepared_at, check_at, ttl_s, priority, producer_group, topic,"
	" ordering_key, dedup_id, prepared_by, trace_id, headers, payload)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
	.nargs = HALF_COLUMNS,
	.argtypes = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		INT4OID, INT2OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID,
	JSONBOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "half_message",
};

static FinQuery insert_answer =
{
	.sql = "INSERT INTO finance.half_answer (tenant_id, copies, half_id,"
	" message_id, prepared_at, answered_at, checks, status, producer_group,"
	" topic, prepared_by, answered_by, trace_id)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
	.nargs = ANSWER_COLUMNS,
	.argtypes = {INT4OID, INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	UUIDOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "half_answer",
};

static FinQuery lock_half =
{
	.sql = "SELECT delay_s, prepared_at, ttl_s, priority, producer_group,"
	" topic, ordering_key, dedup_id, prepared_by, headers, payload"
	" FROM finance.half_message WHERE tenant_id = $1 AND half_id = $2"
	" FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

/* always one row */
static FinQuery find_answer =
{
	.sql = "SELECT a.status, a.message_id,"
	" coalesce((SELECT c.checks FROM finance.half_check c"
	" WHERE c.tenant_id = q.tenant_id AND c.half_id = q.half_id"
	" ORDER BY c.attempt DESC LIMIT 1), 0),"
	" EXISTS (SELECT FROM finance.half_message h"
	" WHERE h.tenant_id = q.tenant_id AND h.half_id = q.half_id)"
	" FROM (SELECT $1 AS tenant_id, $2 AS half_id) q"
	" LEFT JOIN finance.half_answer a"
	" ON a.tenant_id = q.tenant_id AND a.half_id = q.half_id",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery find_status =
{
	.sql = "SELECT q.half_id,"
	" CASE WHEN a.status IS NOT NULL THEN a.status"
	" WHEN c.parked_reason IS NOT NULL THEN 'parked' ELSE 'open' END,"
	" coalesce(a.producer_group, h.producer_group),"
	" coalesce(a.topic, h.topic), coalesce(a.prepared_at, h.prepared_at),"
	" coalesce(a.prepared_by, h.prepared_by), coalesce(a.checks, c.checks, 0),"
	" CASE WHEN a.status IS NOT NULL THEN NULL"
	" WHEN c.attempt IS NOT NULL THEN c.next_at ELSE h.check_at END,"
	" CASE WHEN a.status IS NULL AND c.parked_reason IS NOT NULL"
	" THEN c.checked_at END,"
	" CASE WHEN a.status IS NULL THEN c.parked_reason END,"
	" a.answered_at, a.answered_by, a.message_id, a.copies"
	" FROM (SELECT $1 AS tenant_id, $2 AS half_id) q"
	" LEFT JOIN finance.half_message h"
	" ON h.tenant_id = q.tenant_id AND h.half_id = q.half_id"
	" LEFT JOIN finance.half_answer a"
	" ON a.tenant_id = q.tenant_id AND a.half_id = q.half_id"
	" LEFT JOIN LATERAL (SELECT * FROM finance.half_check l"
	" WHERE l.tenant_id = q.tenant_id AND l.half_id = q.half_id"
	" ORDER BY l.attempt DESC LIMIT 1) c ON true"
	" WHERE h.half_id IS NOT NULL OR a.half_id IS NOT NULL",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* who calls: copied, since a trigger may call us again */
typedef struct Who
{
	int32		tenant_id;
	char	   *actor;
	pg_uuid_t	trace_id;
} Who;

static void
take_who(Who *who)
{
	const FinContext *context = fin_context();

	who->tenant_id = context->tenant_id;
	who->actor = pstrdup(context->actor);
	who->trace_id = context->trace_id;
}

/* ------------------------------------------------------------------------
 * prepare
 * ------------------------------------------------------------------------
 */

typedef struct Preparation
{
	Who			who;
	char	   *group;
	char	   *topic;
	int			priority;
	int			delay_s;
	int			ttl_s;			/* 0: none */
	int64		check_after_us; /* 0: the group's */

	/* each */
	int			n;
	Datum	   *payloads;
	Datum	   *headers;		/* 0: none */
	Datum	   *ordering_keys;
	Datum	   *dedup_ids;
	int64	   *half_ids;		/* result */
} Preparation;

static void
check_message(Datum payload, Datum headers)
{
	Jsonb	   *json = DatumGetJsonbP(payload);

	fin_queue_check_payload(json);
	if (DatumGetPointer(payload) != (Pointer) json)
		pfree(json);
	if (headers != (Datum) 0)
		fin_queue_check_headers(DatumGetJsonbP(headers));
}

static void
check_key(Datum value, const char *name, int max)
{
	char	   *key;
	FinFault   *fault;

	if (value == (Datum) 0)
		return;
	fault = fin_argument_take_text(value, name, max, &key);
	if (fault != NULL)
		fin_fault_raise(fault);
	pfree(key);
}

/* arguments that all of a batch share: 0, 1, and 4 to 6, and 9 */
static void
take_common(FunctionCallInfo fcinfo, Preparation *p)
{
	memset(p, 0, sizeof(Preparation));
	take_who(&p->who);
	p->group = fin_queue_arg_text(fcinfo, 0, "producer_group");
	p->topic = fin_queue_arg_text(fcinfo, 1, "topic");
	fin_topic_check(p->topic);
	p->priority = fin_queue_arg_int(fcinfo, 4, "priority", 0,
									FIN_QUEUE_PRIORITY_MAX);
	p->delay_s = fin_queue_arg_int(fcinfo, 5, "delay", 0,
								   FIN_QUEUE_SECONDS_MAX);
	if (!PG_ARGISNULL(6))
		p->ttl_s = fin_queue_arg_int(fcinfo, 6, "ttl", 1, FIN_TTL_MAX_S);
	if (!PG_ARGISNULL(9))
		p->check_after_us = fin_half_arg_span(fcinfo, 9, "check_after");
}

static void
fill_row(const Preparation *p, int i, TimestampTz now, TimestampTz check_at,
		 Datum *values, bool *nulls)
{
	memset(nulls, 0, sizeof(bool) * HALF_COLUMNS);
	values[0] = Int32GetDatum(p->who.tenant_id);
	values[1] = Int32GetDatum(p->delay_s);
	values[2] = Int64GetDatum(p->half_ids[i]);
	values[3] = TimestampTzGetDatum(now);
	values[4] = TimestampTzGetDatum(check_at);
	values[5] = Int32GetDatum(p->ttl_s);
	nulls[5] = p->ttl_s == 0;
	values[6] = Int16GetDatum(p->priority);
	values[7] = CStringGetTextDatum(p->group);
	values[8] = CStringGetTextDatum(p->topic);
	values[9] = p->ordering_keys[i];
	values[10] = p->dedup_ids[i];
	values[11] = CStringGetTextDatum(p->who.actor);
	values[12] = UUIDPGetDatum((pg_uuid_t *) &p->who.trace_id);
	values[13] = p->headers[i];
	values[14] = p->payloads[i];
	nulls[9] = values[9] == (Datum) 0;
	nulls[10] = values[10] == (Datum) 0;
	nulls[13] = values[13] == (Datum) 0;
}

static void
insert_by_statement(FinQuery *query, const Datum *values, const bool *nulls)
{
	char		flags[FIN_QUERY_MAX_ARGS];

	for (int i = 0; i < query->nargs; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	(void) fin_query_run(query, (Datum *) values, flags, 0);
}

static void
insert_rows(Preparation *p, TimestampTz now, TimestampTz check_at)
{
	Oid			table = fin_query_relation("half_message");
	FinDirect  *direct = fin_direct_begin_insert(table, half_types,
												 HALF_COLUMNS);
	Datum		values[HALF_COLUMNS];
	bool		nulls[HALF_COLUMNS];
	int64		drawn = 0;

	for (int i = 0; i < p->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		p->half_ids[i] = drawn = fin_ident_next(drawn);
		fill_row(p, i, now, check_at, values, nulls);
		if (direct != NULL)
			fin_direct_put(direct, values, nulls);
		else
			insert_by_statement(&insert_half, values, nulls);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

static void
prepare(Preparation *p)
{
	FinQueryScope scope;
	FinProducerGroup group;
	TimestampTz now = fin_ident_now();
	TimestampTz check_at;

	p->half_ids = palloc(sizeof(int64) * Max(p->n, 1));
	fin_query_begin(&scope);
	/* against drop_producer_group(), before the group is looked for */
	LockRelationOid(fin_query_relation("half_message"), RowExclusiveLock);
	fin_half_find_group(p->who.tenant_id, p->group, &group);
	check_at = now + (p->check_after_us > 0 ? p->check_after_us :
					  group.check_after_us);
	if (p->n > 0)
	{
		insert_rows(p, now, check_at);
		fin_wake_note_half(check_at);
	}
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_prepare_message);

/*
 * finance.prepare_message(producer_group text, topic text, payload jsonb,
 *		headers jsonb, priority int, delay int, ttl int, ordering_key text,
 *		dedup_id text, check_after interval) returns bigint
 *
 * Keeps a message back until it is committed or rolled back; returns its
 * half_id.  delay and ttl (seconds, 0 to 30 days, and 1 to 30 days or null)
 * count from its commit.  check_after: until its producer is asked, above zero
 * and at most 30 days; null: as the group says.  ordering_key: 1 to
 * 255 bytes, or null.  Other arguments as for publish().
 * Errors: LG308 unknown producer group, LG302 bad topic, LG303 too large,
 * 22004, 22023.
 * Locks: ROW EXCLUSIVE on finance.half_message.
 */
Datum
finance_prepare_message(PG_FUNCTION_ARGS)
{
	Preparation p;
	Datum		payload;
	Datum		headers = 0;
	Datum		ordering_key = 0;
	Datum		dedup_id = 0;

	take_common(fcinfo, &p);
	fin_queue_refuse_null(fcinfo, 2, "payload");
	payload = JsonbPGetDatum(PG_GETARG_JSONB_P(2));
	if (!PG_ARGISNULL(3))
		headers = JsonbPGetDatum(PG_GETARG_JSONB_P(3));
	if (!PG_ARGISNULL(7))
		ordering_key = PG_GETARG_DATUM(7);
	if (!PG_ARGISNULL(8))
		dedup_id = PG_GETARG_DATUM(8);
	check_message(payload, headers);
	check_key(ordering_key, "ordering_key", FIN_KEY_LENGTH_MAX);
	check_key(dedup_id, "dedup_id", FIN_DEDUP_ID_LENGTH_MAX);
	p.n = 1;
	p.payloads = &payload;
	p.headers = &headers;
	p.ordering_keys = &ordering_key;
	p.dedup_ids = &dedup_id;
	prepare(&p);
	PG_RETURN_INT64(p.half_ids[0]);
}

/* ------------------------------------------------------------------------
 * arrays
 * ------------------------------------------------------------------------
 */

static void
refuse_batch(int n)
{
	ereport(ERROR,
			errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			errmsg("batch of %d messages is too large", n),
			errdetail("The most is %d.", FIN_QUEUE_BATCH_MAX));
}

/* its elements, 0 for null ones where these are allowed; *n of them */
static Datum *
take_array(FunctionCallInfo fcinfo, int arg, const char *name, Oid type,
		   bool allow_nulls, int *n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	bool		is_bigint = type == INT8OID;

	fin_queue_refuse_null(fcinfo, arg, name);
	array = PG_GETARG_ARRAYTYPE_P(arg);
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (*n > FIN_QUEUE_BATCH_MAX)
		refuse_batch(*n);
	deconstruct_array(array, type, is_bigint ? (int) sizeof(int64) : -1,
					  is_bigint, is_bigint ? TYPALIGN_DOUBLE : TYPALIGN_INT,
					  &elements, &nulls, n);
	for (int i = 0; i < *n; i++)
	{
		if (!nulls[i])
			continue;
		if (!allow_nulls)
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("%s must not contain null", name),
					errdetail("Element %d is null.", i + 1));
		elements[i] = (Datum) 0;
	}
	return elements;
}

/* an array beside the payloads, or as many nulls */
static Datum *
take_beside(FunctionCallInfo fcinfo, int arg, const char *name, Oid type,
			int npayloads)
{
	Datum	   *elements;
	int			n;

	if (PG_ARGISNULL(arg))
		return palloc0(sizeof(Datum) * Max(npayloads, 1));
	elements = take_array(fcinfo, arg, name, type, true, &n);
	if (n != npayloads)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must have as many elements as payloads", name),
				errdetail("There are %d, and %d payloads.", n, npayloads));
	return elements;
}

static void
return_ids(FunctionCallInfo fcinfo, const int64 *ids, int n)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < n; i++)
	{
		Datum		value = Int64GetDatum(ids[i]);
		bool		isnull = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &value,
							 &isnull);
	}
}

PG_FUNCTION_INFO_V1(finance_prepare_messages);

/*
 * finance.prepare_messages(producer_group text, topic text, payloads jsonb[],
 *		headers jsonb[], priority int, delay int, ttl int,
 *		ordering_keys text[], dedup_ids text[], check_after interval)
 *		returns setof bigint
 *
 * prepare_message() for up to 10,000 messages; half_ids in the order of
 * payloads.  headers, ordering_keys, dedup_ids: null, or an element (or null)
 * for each payload.
 * Errors: as prepare_message(); 54000 too many.
 */
Datum
finance_prepare_messages(PG_FUNCTION_ARGS)
{
	Preparation p;

	take_common(fcinfo, &p);
	p.payloads = take_array(fcinfo, 2, "payloads", JSONBOID, false, &p.n);
	p.headers = take_beside(fcinfo, 3, "headers", JSONBOID, p.n);
	p.ordering_keys = take_beside(fcinfo, 7, "ordering_keys", TEXTOID, p.n);
	p.dedup_ids = take_beside(fcinfo, 8, "dedup_ids", TEXTOID, p.n);
	for (int i = 0; i < p.n; i++)
	{
		check_message(p.payloads[i], p.headers[i]);
		check_key(p.ordering_keys[i], "ordering_keys", FIN_KEY_LENGTH_MAX);
		check_key(p.dedup_ids[i], "dedup_ids", FIN_DEDUP_ID_LENGTH_MAX);
	}
	prepare(&p);
	return_ids(fcinfo, p.half_ids, p.n);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * answers
 * ------------------------------------------------------------------------
 */

/* a half message whose row is locked */
typedef struct Half
{
	FinMessage	message;
	TimestampTz prepared_at;
	char	   *group;
	char	   *prepared_by;
} Half;

/* what the newest snapshot says */
typedef struct Known
{
	char	   *status;			/* NULL: not answered */
	int64		message_id;
	int			checks;
	bool		is_there;
} Known;

static int
int_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static Jsonb *
jsonb_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? NULL : DatumGetJsonbP(value);
}

/* false: no row that this transaction's snapshot sees */
static bool
lock(int32 tenant_id, int64 half_id, Half *half)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(half_id)};
	bool		isnull;

	if (fin_query_run(&lock_half, values, NULL, 1) == 0)
		return false;
	memset(half, 0, sizeof(Half));
	half->message.tenant_id = tenant_id;
	half->message.delay_s = int_column(1);
	half->prepared_at = DatumGetTimestampTz(fin_query_datum(0, 2, &isnull));
	half->message.ttl_s = int_column(3);
	half->message.priority = DatumGetInt16(fin_query_datum(0, 4, &isnull));
	half->group = fin_query_text(0, 5);
	half->message.topic = fin_query_text(0, 6);
	half->message.ordering_key = fin_query_text(0, 7);
	half->message.dedup_id = fin_query_text(0, 8);
	half->prepared_by = fin_query_text(0, 9);
	half->message.headers = jsonb_column(10);
	half->message.payload = jsonb_column(11);
	return true;
}

static void
look_up(int32 tenant_id, int64 half_id, Known *known)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(half_id)};
	bool		isnull;

	(void) fin_query_run(&find_answer, values, NULL, 1);
	known->status = fin_query_text(0, 1);
	known->message_id = DatumGetInt64(fin_query_datum(0, 2, &isnull));
	if (isnull)
		known->message_id = 0;
	known->checks = int_column(3);
	known->is_there = DatumGetBool(fin_query_datum(0, 4, &isnull));
}

static bool
is_committed(const Known *known)
{
	return strcmp(known->status, "committed") == 0;
}

static void
refuse_other_answer(int64 half_id, const Known *known)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_HALF_NOT_OPEN),
			errmsg("half message " INT64_FORMAT " is not open", half_id),
			is_committed(known) ?
			errdetail("It was committed, as message " INT64_FORMAT ".",
					  known->message_id) :
			errdetail("It was rolled back."));
}

static void
refuse_unknown(int32 tenant_id, int64 half_id, const Known *known)
{
	if (known->is_there)
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to concurrent update"),
				errdetail("Half message " INT64_FORMAT " was prepared after this transaction's snapshot.",
						  half_id));
	ereport(ERROR,
			errcode(ERRCODE_FIN_HALF_NOT_OPEN),
			errmsg("half message " INT64_FORMAT " does not exist", half_id),
			errdetail("Tenant %d has prepared none with this id, or it was answered longer ago than finance.half_retention.",
					  tenant_id));
}

static void
write_answer(const Who *who, int64 half_id, const Half *half, int checks,
			 int64 message_id, int copies)
{
	Datum		values[ANSWER_COLUMNS];
	bool		nulls[ANSWER_COLUMNS] = {false};
	pg_uuid_t	trace_id = who->trace_id;

	values[0] = Int32GetDatum(who->tenant_id);
	values[1] = Int32GetDatum(copies);
	values[2] = Int64GetDatum(half_id);
	values[3] = Int64GetDatum(message_id);
	nulls[3] = message_id == 0;
	values[4] = TimestampTzGetDatum(half->prepared_at);
	values[5] = TimestampTzGetDatum(fin_ident_now());
	values[6] = Int32GetDatum(checks);
	values[7] = CStringGetTextDatum(message_id == 0 ? "rolled_back" :
									"committed");
	values[8] = CStringGetTextDatum(half->group);
	values[9] = CStringGetTextDatum(half->message.topic);
	values[10] = CStringGetTextDatum(half->prepared_by);
	values[11] = CStringGetTextDatum(who->actor);
	values[12] = UUIDPGetDatum(&trace_id);
	if (!fin_direct_insert(fin_query_relation("half_answer"), answer_types,
						   ANSWER_COLUMNS, values, nulls))
		insert_by_statement(&insert_answer, values, nulls);
}

/*
 * Returns the message_id of a commit, 0 for a rollback; *first: this was not
 * its answer before.
 */
static int64
answer(const Who *who, int64 half_id, bool commit, bool *first)
{
	FinQueryScope scope;
	Half		half;
	Known		known;
	int64		message_id = 0;
	int			copies = 0;
	bool		locked;

	fin_query_begin(&scope);
	locked = lock(who->tenant_id, half_id, &half);
	look_up(who->tenant_id, half_id, &known);
	*first = known.status == NULL;
	if (!*first && is_committed(&known) != commit)
		refuse_other_answer(half_id, &known);
	if (*first && !locked)
		refuse_unknown(who->tenant_id, half_id, &known);
	if (*first)
	{
		if (commit)
		{
			half.message.message_id = message_id = fin_ident_next(0);
			copies = fin_queue_publish(&half.message);
		}
		write_answer(who, half_id, &half, known.checks, message_id, copies);
	}
	else
		message_id = known.message_id;
	fin_query_end(&scope);
	return message_id;
}

static int64
arg_half_id(FunctionCallInfo fcinfo)
{
	fin_queue_refuse_null(fcinfo, 0, "half_id");
	return PG_GETARG_INT64(0);
}

PG_FUNCTION_INFO_V1(finance_commit_message);

/*
 * finance.commit_message(half_id bigint) returns bigint
 *
 * Publishes an open or parked half message: it is delivered if and when this
 * transaction commits.  Returns its message_id, and the same when asked again
 * within finance.half_retention; then nothing is done.
 * Errors: LG307 rolled back before, or there is none; 40001 answered or
 * prepared since a REPEATABLE READ transaction began; 22004.
 * Locks: its row; the tables of the queues it goes to.
 */
Datum
finance_commit_message(PG_FUNCTION_ARGS)
{
	int64		half_id = arg_half_id(fcinfo);
	Who			who;
	bool		first;

	take_who(&who);
	PG_RETURN_INT64(answer(&who, half_id, true, &first));
}

PG_FUNCTION_INFO_V1(finance_rollback_message);

/*
 * finance.rollback_message(half_id bigint) returns boolean
 *
 * Gives an open or parked half message up: it is never delivered.  False when
 * it was rolled back before.
 * Errors: LG307 committed before, or there is none; 40001, 22004 as
 * commit_message().
 * Locks: its row.
 */
Datum
finance_rollback_message(PG_FUNCTION_ARGS)
{
	int64		half_id = arg_half_id(fcinfo);
	Who			who;
	bool		first;

	take_who(&who);
	(void) answer(&who, half_id, false, &first);
	PG_RETURN_BOOL(first);
}

typedef struct Asked
{
	int64		half_id;
	int			place;			/* in the argument */
} Asked;

static int
compare_asked(const void *a, const void *b)
{
	const Asked *x = a;
	const Asked *y = b;

	if (x->half_id != y->half_id)
		return x->half_id < y->half_id ? -1 : 1;
	return x->place - y->place;
}

/* fills message_ids, in the order of the argument; returns how many are new */
static int
answer_all(FunctionCallInfo fcinfo, bool commit, int64 **message_ids, int *n)
{
	Datum	   *half_ids = take_array(fcinfo, 0, "half_ids", INT8OID, false, n);
	Asked	   *asked = palloc(sizeof(Asked) * Max(*n, 1));
	int			news = 0;
	Who			who;

	take_who(&who);
	*message_ids = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		asked[i].half_id = DatumGetInt64(half_ids[i]);
		asked[i].place = i;
	}
	qsort(asked, *n, sizeof(Asked), compare_asked);
	for (int i = 0; i < *n; i++)
	{
		bool		first;

		CHECK_FOR_INTERRUPTS();
		(*message_ids)[asked[i].place] = answer(&who, asked[i].half_id,
												commit, &first);
		news += first ? 1 : 0;
	}
	return news;
}

PG_FUNCTION_INFO_V1(finance_commit_messages);

/*
 * finance.commit_message(half_ids bigint[]) returns setof bigint
 *
 * commit_message() for up to 10,000 half messages, all or none; message_ids in
 * the order of half_ids.
 * Errors: as for one; 54000 too many.
 */
Datum
finance_commit_messages(PG_FUNCTION_ARGS)
{
	int64	   *message_ids;
	int			n;

	(void) answer_all(fcinfo, true, &message_ids, &n);
	return_ids(fcinfo, message_ids, n);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_rollback_messages);

/*
 * finance.rollback_message(half_ids bigint[]) returns integer
 *
 * rollback_message() for up to 10,000 half messages, all or none; how many
 * were not rolled back before.
 * Errors: as for one; 54000 too many.
 */
Datum
finance_rollback_messages(PG_FUNCTION_ARGS)
{
	int64	   *message_ids;
	int			n;

	PG_RETURN_INT32(answer_all(fcinfo, false, &message_ids, &n));
}

PG_FUNCTION_INFO_V1(finance_half_message_status);

/*
 * finance.half_message_status(half_id bigint) returns setof (half_id, status,
 *		producer_group, topic, prepared_at, prepared_by, checks,
 *		next_check_at, parked_at, parked_reason, answered_at, answered_by,
 *		message_id, copies)
 *
 * status: open, parked, committed or rolled_back; no row when the tenant has
 * none with this id, or it was answered longer ago than
 * finance.half_retention.
 * Errors: 22004.
 */
Datum
finance_half_message_status(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	FinQueryScope scope;

	values[1] = Int64GetDatum(arg_half_id(fcinfo));
	values[0] = Int32GetDatum(fin_context()->tenant_id);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	(void) fin_query_return(&find_status, values, fcinfo);
	fin_query_end(&scope);
	return (Datum) 0;
}
