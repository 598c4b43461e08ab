/*
 * queue_read.c
 *		Taking messages out of queues: read, pop, delete, archive, set_vt.
 *
 * Owns nothing.  Each function is one statement on the queue's table.  Reading
 * never waits: rows that another transaction has locked are skipped.  A read
 * that rolls back makes its messages visible again, as they were.
 *
 * Under REPEATABLE READ and SERIALIZABLE a consumer that meets a message which
 * another one has changed since its snapshot gets 40001, and tries again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "ident.h"
#include "query.h"
#include "queue_parts.h"

static int
arg_quantity(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "qty", 1, FIN_QUEUE_BATCH_MAX);
}

static int
arg_vt(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "vt", 0, FIN_QUEUE_SECONDS_MAX);
}

/*
 * Runs one statement of the queue named by the first argument; the values are
 * the caller's.  Its rows, if any, become the function's result.
 */
static uint64
run_on_queue(FunctionCallInfo fcinfo, FinQueueStatement which, Datum *values,
			 bool returns_rows)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	int64		queue_id;
	uint64		n;

	fin_query_begin(&scope);
	queue_id = fin_queue_find(tenant_id, queue_name, RowExclusiveLock);
	if (fin_queue_log_is(queue_id))
		fin_queue_log_raise_kind(queue_name);
	n = fin_queue_run(which, tenant_id, queue_id, values, NULL);
	if (returns_rows)
		fin_queue_return_rows(fcinfo, n);
	fin_query_end(&scope);
	return n;
}

PG_FUNCTION_INFO_V1(finance_read);

/*
 * finance.read(queue_name text, vt int, qty int)
 *		returns setof finance.message_record
 *
 * Up to qty (1 to 10,000) messages that are visible, highest priority first,
 * then oldest; they become invisible to other readers for vt seconds (0 to 30
 * days), within which the reader deletes or archives them, or they are read
 * again.  Messages locked by other transactions are skipped, not waited for.
 * Errors: LG301 unknown queue, 22004 null, 22023 out of range, 40001 above
 * READ COMMITTED.
 * Locks: the rows, until the end of the transaction.
 */
Datum
finance_read(PG_FUNCTION_ARGS)
{
	TimestampTz now = fin_ident_now();
	Datum		values[3];

	values[0] = TimestampTzGetDatum(now);
	values[1] = TimestampTzGetDatum(now + arg_vt(fcinfo, 1) * USECS_PER_SEC);
	values[2] = Int64GetDatum(arg_quantity(fcinfo, 2));
	(void) run_on_queue(fcinfo, FIN_QUEUE_READ, values, true);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_pop);

/*
 * finance.pop(queue_name text, qty int) returns setof finance.message_record
 *
 * Reads as read() and deletes in the same step.  With the caller's commit the
 * messages are gone: do the work of the message in the same transaction.
 * Errors and locks: as read().
 */
Datum
finance_pop(PG_FUNCTION_ARGS)
{
	Datum		values[2];

	values[0] = TimestampTzGetDatum(fin_ident_now());
	values[1] = Int64GetDatum(arg_quantity(fcinfo, 1));
	(void) run_on_queue(fcinfo, FIN_QUEUE_POP, values, true);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_delete);

/*
 * finance.delete(queue_name text, msg_id bigint) returns boolean
 *
 * Acknowledges a message: removes it.  False when there is none of this id.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: the row; waits for another transaction that has it.
 */
Datum
finance_delete(PG_FUNCTION_ARGS)
{
	Datum		values[1];

	fin_queue_refuse_null(fcinfo, 1, "msg_id");
	values[0] = PG_GETARG_DATUM(1);
	PG_RETURN_BOOL(run_on_queue(fcinfo, FIN_QUEUE_DELETE, values, false) > 0);
}

/* a bigint[] without nulls, of a bounded size */
static Datum
arg_msg_ids(FunctionCallInfo fcinfo, int arg)
{
	ArrayType  *array;
	int			n;

	fin_queue_refuse_null(fcinfo, arg, "msg_ids");
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (array_contains_nulls(array))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("msg_ids must not contain null"));
	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (n > FIN_QUEUE_BATCH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("batch of %d messages is too large", n),
				errdetail("The most is %d.", FIN_QUEUE_BATCH_MAX));
	return PointerGetDatum(array);
}

PG_FUNCTION_INFO_V1(finance_delete_many);

/*
 * finance.delete(queue_name text, msg_ids bigint[]) returns setof bigint
 *
 * delete() for up to 10,000 messages; returns the ids that were there.
 * Errors: LG301 unknown queue, 22004 null, 54000 too many.
 */
Datum
finance_delete_many(PG_FUNCTION_ARGS)
{
	Datum		values[1];

	values[0] = arg_msg_ids(fcinfo, 1);
	(void) run_on_queue(fcinfo, FIN_QUEUE_DELETE_MANY, values, true);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_archive);

/*
 * finance.archive(queue_name text, msg_id bigint) returns boolean
 *
 * Acknowledges a message and keeps it in finance.message_archive.  False when
 * there is none of this id.  Errors and locks: as delete().
 */
Datum
finance_archive(PG_FUNCTION_ARGS)
{
	Datum		msg_id;
	Datum		values[2];

	fin_queue_refuse_null(fcinfo, 1, "msg_id");
	msg_id = PG_GETARG_DATUM(1);
	values[0] = PointerGetDatum(construct_array(&msg_id, 1, INT8OID,
												sizeof(int64), true,
												TYPALIGN_DOUBLE));
	values[1] = TimestampTzGetDatum(fin_ident_now());
	PG_RETURN_BOOL(run_on_queue(fcinfo, FIN_QUEUE_ARCHIVE, values, false) > 0);
}

PG_FUNCTION_INFO_V1(finance_archive_many);

/*
 * finance.archive(queue_name text, msg_ids bigint[]) returns setof bigint
 *
 * archive() for up to 10,000 messages; returns the ids that were there.
 * Errors: LG301 unknown queue, 22004 null, 54000 too many.
 */
Datum
finance_archive_many(PG_FUNCTION_ARGS)
{
	Datum		values[2];

	values[0] = arg_msg_ids(fcinfo, 1);
	values[1] = TimestampTzGetDatum(fin_ident_now());
	(void) run_on_queue(fcinfo, FIN_QUEUE_ARCHIVE, values, true);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_set_vt);

/*
 * finance.set_vt(queue_name text, msg_id bigint, vt int)
 *		returns setof finance.message_record
 *
 * Makes a message invisible until vt seconds from now (0 to 30 days, 0: visible
 * at once); returns it, or no row when there is none of this id.
 * Errors: LG301 unknown queue, 22004 null, 22023 out of range.
 * Locks: the row; waits for another transaction that has it.
 */
Datum
finance_set_vt(PG_FUNCTION_ARGS)
{
	Datum		values[2];

	fin_queue_refuse_null(fcinfo, 1, "msg_id");
	values[0] = PG_GETARG_DATUM(1);
	values[1] = TimestampTzGetDatum(fin_ident_now() +
									arg_vt(fcinfo, 2) * USECS_PER_SEC);
	(void) run_on_queue(fcinfo, FIN_QUEUE_SET_VT, values, true);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_purge_queue);

/*
 * finance.purge_queue(queue_name text) returns bigint
 *
 * Deletes all messages of the queue and returns how many; archived ones stay.
 * It deletes rows and does not truncate: TRUNCATE would make senders wait.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: the rows; waits for transactions that have some of them.
 */
Datum
finance_purge_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(run_on_queue(fcinfo, FIN_QUEUE_PURGE, NULL, false));
}
