/*
 * queue_take.c
 *		What becomes of messages that were read: delete, archive, nack, set_vt;
 *		and purge_queue.
 *
 * A message is found by its id, in whichever segment it lies.  Here a change
 * by another transaction is waited for, and under READ COMMITTED the message
 * is then looked at anew; above, it is 40001.
 *
 * Owns nothing beyond a call.  Locks: the rows, in ascending order of msg_id,
 * until the end of the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "wake.h"

typedef enum Action
{
	ACTION_DELETE,
	ACTION_ARCHIVE,
	ACTION_NACK,
	ACTION_SET_VT
} Action;

typedef struct Take
{
	FunctionCallInfo fcinfo;
	Action		action;
	FinQueueConfig *config;
	FinQueueTables tables;
	int			first;			/* the segment to be searched first */
	int64		last_id;		/* of many ids, else 0 */
	TimestampTz now;
	int			read_ct;		/* it must have been read so often; 0: any */
	int			seconds;		/* of set_vt and nack; -1: back off */
	const char *reason;			/* of nack, or NULL */
	FinArchive *archive;		/* NULL until needed */
} Take;

/* ------------------------------------------------------------------------
 * one message, found and seen
 * ------------------------------------------------------------------------
 */

static void
refuse_stale(const Take *take, TupleTableSlot *row)
{
	bool		isnull;
	int			read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
														  &isnull));

	if (take->read_ct == 0 || take->read_ct == read_ct)
		return;
	ereport(ERROR,
			errcode(ERRCODE_FIN_MESSAGE_NOT_HELD),
			errmsg("message " INT64_FORMAT " was read again",
				   fin_segment_int64(row, FIN_MSG_ID)),
			errdetail("It was read %d times by now; this call is about read %d, whose visibility timeout is over.",
					  read_ct, take->read_ct),
			errhint("Leave the message to who read it last; choose a longer vt, or extend it with finance.set_vt()."));
}

/* a claim of which there may only be so many has ended: another may begin */
static void
tell_free(Take *take, TupleTableSlot *row)
{
	if (take->config->max_in_flight > 0 &&
		fin_segment_int64(row, FIN_MSG_VISIBLE_AT) > take->now)
		fin_wake_note(take->config->queue_id,
					  fin_segment_int64(row, FIN_MSG_ID), 1);
}

static bool
delete_row(Take *take, int segment, TupleTableSlot *row)
{
	FinQueueTables *tables = &take->tables;

	if (fin_segment_delete(tables->segments[segment], row, tables->snapshot,
						   true) != FIN_DELETED)
		return false;
	fin_queue_note_gone(tables, segment, row, take->now);
	fin_queue_release_key(tables, row, take->now);
	tell_free(take, row);
	return true;
}

static bool
lock_row(Take *take, int segment, TupleTableSlot *row)
{
	return fin_segment_lock(take->tables.segments[segment], row,
							take->tables.snapshot, true);
}

static bool
archive_row(Take *take, int segment, TupleTableSlot *row)
{
	if (!lock_row(take, segment, row))
		return false;
	if (take->archive == NULL)
		take->archive = fin_archive_begin();
	fin_queue_archive_row(take->archive, row, NULL);
	return delete_row(take, segment, row);
}

/*
 * Invisible until 'until', and waiting for it in the index of delayed messages
 * or, for one that is being worked on, in a lease; until 0: visible at once.
 */
static void
hide_row(Take *take, int segment, TupleTableSlot *row, TimestampTz until,
		 bool delay)
{
	static const int columns[] = {FIN_MSG_VISIBLE_AT, FIN_MSG_DUE_AT};
	int64		queue_id = take->config->queue_id;
	int64		msg_id = fin_segment_int64(row, FIN_MSG_ID);
	TimestampTz was_until = fin_segment_int64(row, FIN_MSG_VISIBLE_AT);
	TimestampTz was_due_at = fin_segment_int64(row, FIN_MSG_DUE_AT);
	TimestampTz visible_at = until == 0 ? take->now : until;
	bool		due = until != 0 && delay;
	Datum		values[2] = {TimestampTzGetDatum(visible_at),
	TimestampTzGetDatum(visible_at)};
	bool		nulls[2] = {false, !due};

	fin_segment_update(take->tables.segments[segment], row, columns,
					   due || was_due_at != 0 ? 2 : 1, values, nulls);
	fin_backlog_note_ended(queue_id, segment, msg_id,
						   was_until > take->now ? was_until : 0, was_due_at,
						   false);
	if (until == 0)
	{
		fin_backlog_note_ready(queue_id, segment, msg_id);
		fin_wake_note(queue_id, msg_id, 1);
		return;
	}
	if (due)
	{
		fin_backlog_note_delayed(queue_id, msg_id, until);
		tell_free(take, row);
	}
	else
		fin_backlog_note_claimed(queue_id, segment, msg_id, until, 0);
	fin_wake_note_due(queue_id, until);
}

/*
 * Twice as long with each delivery, and of that a random half: consumers that
 * failed together do not come back together.
 */
static int64
backoff_us(const FinQueueConfig *config, int read_ct)
{
	int			doublings = Min(Max(read_ct - 1, 0), 30);
	int64		ms = Min((int64) config->backoff_ms << doublings,
						 (int64) config->backoff_max_ms);
	int64		us = ms * 1000;

	return us / 2 + (int64) (pg_prng_double(&pg_global_prng_state) * (us / 2));
}

static bool
nack_row(Take *take, int segment, TupleTableSlot *row)
{
	const FinQueueConfig *config = take->config;
	bool		isnull;
	int			read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
														  &isnull));
	int64		delay_us;

	if (!lock_row(take, segment, row))
		return false;
	if (config->max_deliveries > 0 && read_ct >= config->max_deliveries)
	{
		fin_queue_bury(config, &take->tables, segment, row,
					   take->reason != NULL ? take->reason : "max_deliveries",
					   take->now);
		return true;
	}
	delay_us = take->seconds >= 0 ? take->seconds * USECS_PER_SEC :
		backoff_us(config, read_ct);
	hide_row(take, segment, row, delay_us == 0 ? 0 : take->now + delay_us,
			 true);
	return true;
}

static bool
set_vt_row(Take *take, int segment, TupleTableSlot *row)
{
	TimestampTz until = take->seconds == 0 ? 0 :
		take->now + take->seconds * USECS_PER_SEC;
	bool		isnull;
	int			read_ct = DatumGetInt32(fin_segment_value(row, FIN_MSG_READ_CT,
														  &isnull));

	if (!lock_row(take, segment, row))
		return false;
	/* one that was not read since its delay began goes on being delayed */
	hide_row(take, segment, row, until,
			 fin_segment_int64(row, FIN_MSG_DUE_AT) != 0);
	fin_queue_emit(take->fcinfo, row, read_ct,
				   until == 0 ? take->now : until);
	return true;
}

static bool
act_on_row(Take *take, int segment, TupleTableSlot *row)
{
	switch (take->action)
	{
		case ACTION_DELETE:
			return delete_row(take, segment, row);
		case ACTION_ARCHIVE:
			return archive_row(take, segment, row);
		case ACTION_NACK:
			return nack_row(take, segment, row);
		case ACTION_SET_VT:
			return set_vt_row(take, segment, row);
	}
	return false;
}

/* ------------------------------------------------------------------------
 * finding messages
 * ------------------------------------------------------------------------
 */

static void
begin_take(Take *take)
{
	/* most messages are where they are written to; and others are not locked */
	take->first = fin_backlog_segment(take->config->queue_id);
	fin_queue_tables_begin(&take->tables, take->config->queue_id,
						   RowExclusiveLock);
	take->tables.last_id = take->last_id;
}

/* somebody else was faster: see what is there now */
static void
look_anew(Take *take)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to concurrent update"));
	CHECK_FOR_INTERRUPTS();
	fin_queue_tables_end(&take->tables);
	begin_take(take);
}

/* false: there is none of this id */
static bool
take_one(Take *take, int64 msg_id)
{
	for (;;)
	{
		uint32		first = 1 << take->first;
		int			segment;
		TupleTableSlot *row = fin_queue_find_own(&take->tables, msg_id,
												 &segment);

		if (row == NULL)
			row = fin_queue_find_row(&take->tables, msg_id, first, &segment);
		if (row == NULL)
			row = fin_queue_find_row(&take->tables, msg_id,
									 FIN_SEGMENTS_ALL & ~first, &segment);
		if (row == NULL)
			return false;
		take->first = segment;
		refuse_stale(take, row);
		if (act_on_row(take, segment, row))
			return true;
		look_anew(take);
	}
}

static void
end_take(Take *take)
{
	if (take->archive != NULL)
		fin_archive_end(take->archive);
	take->archive = NULL;
	fin_queue_tables_end(&take->tables);
}

/* a queue found in the cache may be gone: then look for it again */
static void
open_queue(Take *take)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(take->fcinfo, 0, "queue_name");

	for (;;)
	{
		take->config = fin_queue_find_standard(tenant_id, name);
		begin_take(take);
		if (fin_queue_table(&take->tables, take->first) != NULL)
			return;
		end_take(take);
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
run_single(Take *take, int64 msg_id)
{
	FinQueryScope scope;
	bool		found;

	fin_context();
	fin_query_begin(&scope);
	open_queue(take);
	found = take_one(take, msg_id);
	end_take(take);
	fin_query_end(&scope);
	return found;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

/* a bigint[] without nulls, of a bounded size, ascending and each once */
static int64 *
arg_msg_ids(FunctionCallInfo fcinfo, int arg, int *n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int64	   *ids;
	int			count;
	int			kept = 0;

	fin_queue_refuse_null(fcinfo, arg, "msg_ids");
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (array_contains_nulls(array))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("msg_ids must not contain null"));
	count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (count > FIN_QUEUE_BATCH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("batch of %d messages is too large", count),
				errdetail("The most is %d.", FIN_QUEUE_BATCH_MAX));
	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, &count);
	ids = palloc(sizeof(int64) * Max(count, 1));
	for (int i = 0; i < count; i++)
		ids[i] = DatumGetInt64(elements[i]);
	qsort(ids, count, sizeof(int64), compare_ids);
	for (int i = 0; i < count; i++)
	{
		if (kept == 0 || ids[i] != ids[kept - 1])
			ids[kept++] = ids[i];
	}
	*n = kept;
	return ids;
}

/* the ids that were there become the function's result */
static void
run_many(Take *take)
{
	int			n;
	int64	   *ids = arg_msg_ids(take->fcinfo, 1, &n);
	int			found = 0;
	FinQueryScope scope;

	fin_context();
	fin_query_begin(&scope);
	take->last_id = n > 1 ? ids[n - 1] : 0;
	open_queue(take);
	for (int i = 0; i < n; i++)
	{
		if (take_one(take, ids[i]))
			ids[found++] = ids[i];
	}
	end_take(take);
	fin_query_end(&scope);
	fin_queue_begin_ids(take->fcinfo, ids, found);
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

static void
init_take(Take *take, FunctionCallInfo fcinfo, Action action)
{
	memset(take, 0, sizeof(*take));
	take->fcinfo = fcinfo;
	take->action = action;
	take->now = fin_ident_now();
}

static int64
arg_msg_id(FunctionCallInfo fcinfo)
{
	fin_queue_refuse_null(fcinfo, 1, "msg_id");
	return PG_GETARG_INT64(1);
}

/* the read the caller speaks of; 0 for null */
static int
arg_read_ct(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return 0;
	return fin_queue_arg_int(fcinfo, arg, "read_ct", 1, PG_INT32_MAX);
}

PG_FUNCTION_INFO_V1(finance_delete);

/*
 * finance.delete(queue_name text, msg_id bigint, read_ct int)
 *		returns boolean
 *
 * Acknowledges a message: removes it.  False when there is none of this id.
 * read_ct: as read() returned it; then a message that was read again since,
 * its visibility timeout being over, is not removed.  Null: whoever holds it.
 * Errors: LG301 unknown queue, LG305 read again by another, LG309 a log queue,
 * 22004 null, 22023 out of range, 40001 above READ COMMITTED.
 * Locks: the row; waits for another transaction that has it.
 */
Datum
finance_delete(PG_FUNCTION_ARGS)
{
	Take		take;

	init_take(&take, fcinfo, ACTION_DELETE);
	take.read_ct = arg_read_ct(fcinfo, 2);
	PG_RETURN_BOOL(run_single(&take, arg_msg_id(fcinfo)));
}

PG_FUNCTION_INFO_V1(finance_delete_many);

/*
 * finance.delete(queue_name text, msg_ids bigint[]) returns setof bigint
 *
 * delete() for up to 10,000 messages; returns the ids that were there.
 * Errors: LG301, LG309, 22004 null, 54000 too many, 40001.
 */
Datum
finance_delete_many(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		Take		take;

		init_take(&take, fcinfo, ACTION_DELETE);
		run_many(&take);
	}
	return fin_queue_next_id(fcinfo);
}

PG_FUNCTION_INFO_V1(finance_archive);

/*
 * finance.archive(queue_name text, msg_id bigint, read_ct int)
 *		returns boolean
 *
 * Acknowledges a message and keeps it in finance.message_archive.  False when
 * there is none of this id.  Errors and locks: as delete().
 */
Datum
finance_archive(PG_FUNCTION_ARGS)
{
	Take		take;

	init_take(&take, fcinfo, ACTION_ARCHIVE);
	take.read_ct = arg_read_ct(fcinfo, 2);
	PG_RETURN_BOOL(run_single(&take, arg_msg_id(fcinfo)));
}

PG_FUNCTION_INFO_V1(finance_archive_many);

/*
 * finance.archive(queue_name text, msg_ids bigint[]) returns setof bigint
 *
 * archive() for up to 10,000 messages; returns the ids that were there.
 * Errors: as delete() for many.
 */
Datum
finance_archive_many(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		Take		take;

		init_take(&take, fcinfo, ACTION_ARCHIVE);
		run_many(&take);
	}
	return fin_queue_next_id(fcinfo);
}

/* seconds until it is read again; -1 for null */
static int
arg_delay(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return -1;
	return fin_queue_arg_int(fcinfo, arg, "delay", 0, FIN_QUEUE_SECONDS_MAX);
}

static const char *
arg_reason(FunctionCallInfo fcinfo, int arg)
{
	char	   *reason;

	if (PG_ARGISNULL(arg))
		return NULL;
	reason = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (strlen(reason) > FIN_QUEUE_REASON_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("reason is %zu bytes long", strlen(reason)),
				errdetail("The most is %d.", FIN_QUEUE_REASON_MAX));
	return reason;
}

PG_FUNCTION_INFO_V1(finance_nack);

/*
 * finance.nack(queue_name text, msg_id bigint, delay int, read_ct int,
 *				reason text) returns boolean
 *
 * Gives a message back that could not be dealt with, to be read again after
 * delay seconds (0 to 30 days); null: after the queue's back-off, which doubles
 * with each delivery up to its greatest, of which a random half is taken off.
 * One that was read max_deliveries times becomes a dead letter instead, with
 * 'reason' (or "max_deliveries") in its header x-death.  False when there is
 * no message of this id.  Errors and locks: as delete().
 */
Datum
finance_nack(PG_FUNCTION_ARGS)
{
	Take		take;

	init_take(&take, fcinfo, ACTION_NACK);
	take.seconds = arg_delay(fcinfo, 2);
	take.read_ct = arg_read_ct(fcinfo, 3);
	take.reason = arg_reason(fcinfo, 4);
	PG_RETURN_BOOL(run_single(&take, arg_msg_id(fcinfo)));
}

PG_FUNCTION_INFO_V1(finance_nack_many);

/*
 * finance.nack(queue_name text, msg_ids bigint[], delay int, reason text)
 *		returns setof bigint
 *
 * nack() for up to 10,000 messages; returns the ids that were there.
 * Errors: as delete() for many.
 */
Datum
finance_nack_many(PG_FUNCTION_ARGS)
{
	if (SRF_IS_FIRSTCALL())
	{
		Take		take;

		init_take(&take, fcinfo, ACTION_NACK);
		take.seconds = arg_delay(fcinfo, 2);
		take.reason = arg_reason(fcinfo, 3);
		run_many(&take);
	}
	return fin_queue_next_id(fcinfo);
}

PG_FUNCTION_INFO_V1(finance_set_vt);

/*
 * finance.set_vt(queue_name text, msg_id bigint, vt int, read_ct int)
 *		returns setof finance.message_record
 *
 * Makes a message invisible until vt seconds from now (0 to 30 days, 0: visible
 * at once); returns it, or no row when there is none of this id.
 * Errors and locks: as delete(); 22023 out of range.
 */
Datum
finance_set_vt(PG_FUNCTION_ARGS)
{
	Take		take;
	int64		msg_id = arg_msg_id(fcinfo);

	init_take(&take, fcinfo, ACTION_SET_VT);
	take.seconds = fin_queue_arg_int(fcinfo, 2, "vt", 0,
									 FIN_QUEUE_SECONDS_MAX);
	take.read_ct = arg_read_ct(fcinfo, 3);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	(void) run_single(&take, msg_id);
	return (Datum) 0;
}

/* deletes what the snapshot shows of one segment; returns how many */
static int64
purge_segment(Take *take, int segment)
{
	FinSegmentScan *scan = fin_queue_scan(&take->tables, segment, FIN_BY_ID);
	TupleTableSlot *row;
	int64		n = 0;

	if (scan == NULL)
		return 0;
	fin_segment_rescan(scan, 0, PG_INT64_MAX);
	while ((row = fin_segment_next(scan)) != NULL)
	{
		if (fin_segment_delete(take->tables.segments[segment], row,
							   take->tables.snapshot, true) != FIN_DELETED)
			continue;			/* read or deleted meanwhile */
		fin_queue_note_gone(&take->tables, segment, row, take->now);
		n++;
	}
	return n;
}

PG_FUNCTION_INFO_V1(finance_purge_queue);

/*
 * finance.purge_queue(queue_name text) returns bigint
 *
 * Deletes all messages of the queue and returns how many; archived ones stay.
 * It deletes rows and does not truncate: TRUNCATE would make senders wait.
 * What others change meanwhile is left.
 * Errors: LG301 unknown queue, LG309 a log queue, 22004 null.
 * Locks: the rows; waits for transactions that have some of them.
 */
Datum
finance_purge_queue(PG_FUNCTION_ARGS)
{
	Take		take;
	FinQueryScope scope;
	int64		n = 0;

	init_take(&take, fcinfo, ACTION_DELETE);
	fin_context();
	fin_query_begin(&scope);
	open_queue(&take);
	for (int i = 0; i < FIN_SEGMENTS; i++)
		n += purge_segment(&take, i);
	end_take(&take);
	/* what others sent may have been waiting for an ordering key */
	fin_backlog_note_look_again(take.config->queue_id);
	fin_query_end(&scope);
	PG_RETURN_INT64(n);
}
