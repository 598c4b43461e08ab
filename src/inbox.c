/*
 * inbox.c
 *		process_once(): a consumer's effect happens once for each message.
 *
 * For consumers in another database than the producer, who cannot delete the
 * message in the transaction that does its work: they note its id in that
 * transaction instead.
 *
 * Owns nothing: the ids lie in finance.inbox, see seen.c.
 *
 * Locks: see seen.c; ids of one call are taken in ascending order.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "argument.h"
#include "context.h"
#include "query.h"
#include "seen.h"

#define FIN_CONSUMER_LENGTH_MAX		128 /* bytes */
#define FIN_INBOX_ID_LENGTH_MAX		255
#define FIN_INBOX_BATCH_MAX			10000

static FinSeen *
begin(int32 tenant_id, const char *consumer)
{
	return fin_seen_begin(FIN_SEEN_INBOX, tenant_id,
						  CStringGetTextDatum(consumer),
						  fin_seen_inbox_window_us());
}

static bool
process_once(FunctionCallInfo fcinfo, const char *message_id)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *consumer = fin_argument_text(fcinfo, 0, "consumer",
											 FIN_CONSUMER_LENGTH_MAX);
	FinQueryScope scope;
	FinSeen    *seen;
	bool		is_new;

	fin_query_begin(&scope);
	seen = begin(tenant_id, consumer);
	is_new = fin_seen_take(seen, message_id, 0, NULL);
	fin_seen_end(seen);
	fin_query_end(&scope);
	return is_new;
}

static void
refuse_null(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

/* a bigint and its decimal digits are the same id */
static char *
id_text(int64 id)
{
	return psprintf(INT64_FORMAT, id);
}

PG_FUNCTION_INFO_V1(finance_process_once);

/*
 * finance.process_once(consumer text, message_id bigint) returns boolean
 *
 * True the first time the consumer asks for the message: do its work in this
 * transaction, with which the answer commits or rolls back.  False when the
 * consumer has processed it, within finance.inbox_retention days.  consumer: 1
 * to 128 bytes.
 * Errors: 22004 null, 22023 bad consumer, 40001 under REPEATABLE READ when it
 * was processed since the snapshot, 0A000 triggers on the table.
 * Locks: waits for another transaction that is processing the same message.
 */
Datum
finance_process_once(PG_FUNCTION_ARGS)
{
	refuse_null(fcinfo, 1, "message_id");
	PG_RETURN_BOOL(process_once(fcinfo, id_text(PG_GETARG_INT64(1))));
}

PG_FUNCTION_INFO_V1(finance_process_once_text);

/*
 * finance.process_once(consumer text, message_id text) returns boolean
 *
 * The same for ids of any origin, of 1 to 255 bytes.
 * Errors: 22023 also for a bad message_id.
 */
Datum
finance_process_once_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(process_once(fcinfo,
								fin_argument_text(fcinfo, 1, "message_id",
												  FIN_INBOX_ID_LENGTH_MAX)));
}

/* ------------------------------------------------------------------------
 * process_once_batch
 * ------------------------------------------------------------------------
 */

static int
compare_int64(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* the ids without duplicates, ascending; how many */
static int
arg_ids(FunctionCallInfo fcinfo, int argument, int64 **ids)
{
	ArrayType  *array;
	Datum	   *elements;
	int			n;
	int			distinct = 0;

	refuse_null(fcinfo, argument, "message_ids");
	array = PG_GETARG_ARRAYTYPE_P(argument);
	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (array_contains_nulls(array))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("message_ids must not contain null"));
	if (n > FIN_INBOX_BATCH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("batch of %d messages is too large", n),
				errdetail("The most is %d.", FIN_INBOX_BATCH_MAX));
	deconstruct_array(array, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE,
					  &elements, NULL, &n);
	*ids = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*ids)[i] = DatumGetInt64(elements[i]);
	pfree(elements);
	qsort(*ids, n, sizeof(int64), compare_int64);
	for (int i = 0; i < n; i++)
	{
		if (distinct == 0 || (*ids)[i] != (*ids)[distinct - 1])
			(*ids)[distinct++] = (*ids)[i];
	}
	return distinct;
}

PG_FUNCTION_INFO_V1(finance_process_once_batch);

/*
 * finance.process_once_batch(consumer text, message_ids bigint[])
 *		returns setof bigint
 *
 * process_once() for up to 10,000 messages; returns, ascending, the ids that
 * are new.  Errors: 22004 null, also as an element; 54000 too many; else as
 * process_once().
 */
Datum
finance_process_once_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int32		tenant_id = fin_context()->tenant_id;
	char	   *consumer = fin_argument_text(fcinfo, 0, "consumer",
											 FIN_CONSUMER_LENGTH_MAX);
	int64	   *ids;
	int			n = arg_ids(fcinfo, 1, &ids);
	FinQueryScope scope;
	FinSeen    *seen;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	seen = begin(tenant_id, consumer);
	for (int i = 0; i < n; i++)
	{
		char	   *id = id_text(ids[i]);
		Datum		value = Int64GetDatum(ids[i]);
		bool		isnull = false;

		if (fin_seen_take(seen, id, 0, NULL))
			tuplestore_putvalues(result->setResult, result->setDesc, &value,
								 &isnull);
		pfree(id);
	}
	fin_seen_end(seen);
	fin_query_end(&scope);
	return (Datum) 0;
}
