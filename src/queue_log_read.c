/*
 * queue_log_read.c
 *		Reading a log with a consumer group: read, commit, seek.
 *
 * Owns nothing.  A group is read by one transaction at a time: it is taken until
 * the end of that transaction, and whoever else wants it gets 55P03 at once.
 *
 * Locks: the log's gate (ACCESS SHARE) and the group, to the end of the
 * transaction; nothing that who appends, or another group, waits for.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue_log.h"
#include "queue_parts.h"

/* the columns of finance.log_record */
enum
{
	RECORD_POSITION,
	RECORD_MSG_ID,
	RECORD_ENQUEUED_AT,
	RECORD_MESSAGE,
	RECORD_HEADERS,
	RECORD_TOPIC,
	RECORD_MESSAGE_ID,
	RECORD_PRIORITY,
	RECORD_ORDERING_KEY,
	RECORD_COLUMNS
};

/* the column of the table that each is, but for the position */
static const FinLogColumn record_source[RECORD_COLUMNS] = {
	0, FIN_LOG_MSG_ID, FIN_LOG_ENQUEUED_AT, FIN_LOG_PAYLOAD, FIN_LOG_HEADERS,
	FIN_LOG_TOPIC, FIN_LOG_MESSAGE_ID, FIN_LOG_PRIORITY, FIN_LOG_ORDERING_KEY
};

/* the log and the group of the first two arguments, the group taken */
static void
take_group(FunctionCallInfo fcinfo, const char *queue_name, const char *name,
		   FinLog *log, FinLogGroup *group)
{
	int32		tenant_id = fin_context()->tenant_id;
	int64		group_id;

	fin_queue_log_find(tenant_id, queue_name, log);
	group_id = fin_queue_log_find_group(log, name);
	if (!fin_queue_log_take_group(group_id))
		fin_queue_log_raise_taken(name);
	/* dropped while it was not taken yet? */
	if (!fin_queue_log_find_position(tenant_id, group_id, group))
		fin_queue_log_raise_unknown_group(name);
}

/* ------------------------------------------------------------------------
 * read
 * ------------------------------------------------------------------------
 */

typedef struct Reading
{
	const FinLog *log;
	ReturnSetInfo *result;
	FinLogPosition position;	/* of the last row handed out */
	int			wanted;			/* rows still to be */
	bool		more;			/* there are rows beyond the horizon */
} Reading;

static void
hand_out(Reading *reading, TupleTableSlot *row)
{
	char	   *position = fin_queue_log_position_text(&reading->position);
	Datum		values[RECORD_COLUMNS];
	bool		nulls[RECORD_COLUMNS];

	for (int i = 1; i < RECORD_COLUMNS; i++)
	{
		values[i] = row->tts_values[record_source[i] - 1];
		nulls[i] = row->tts_isnull[record_source[i] - 1];
	}
	nulls[RECORD_POSITION] = false;
	values[RECORD_POSITION] = CStringGetTextDatum(position);
	tuplestore_putvalues(reading->result->setResult, reading->result->setDesc,
						 values, nulls);
	pfree(DatumGetPointer(values[RECORD_POSITION]));
	pfree(position);
}

/* what lies between the position and the horizon; snapshot taken after that */
static void
read_below(Reading *reading, int64 horizon)
{
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	FinLogScan *scan = fin_queue_log_begin_scan(reading->log, &reading->position,
												0, snapshot);
	TupleTableSlot *row;
	FinLogPosition position;

	reading->more = false;
	while (reading->wanted > 0 &&
		   (row = fin_queue_log_next(scan, &position)) != NULL)
	{
		if (position.mark >= horizon)
		{
			reading->more = true;
			break;
		}
		reading->position = position;
		hand_out(reading, row);
		reading->wanted--;
	}
	fin_queue_log_end_scan(scan);
	UnregisterSnapshot(snapshot);
}

/*
 * Where nobody draws transaction ids, what was appended last lies at the very
 * horizon: draw one.  Whoever gets messages is going to have one anyway.
 */
static void
read_safely(Reading *reading)
{
	FinLogHorizon horizon;

	fin_queue_log_horizon(reading->log, &horizon);
	read_below(reading, horizon.mark);
	if (!reading->more || TransactionIdIsValid(horizon.writer))
		return;
	(void) GetTopTransactionId();
	if (IsolationUsesXactSnapshot())
		return;					/* of use to the next transaction */
	fin_queue_log_horizon(reading->log, &horizon);
	read_below(reading, horizon.mark);
}

PG_FUNCTION_INFO_V1(finance_read_group);

/*
 * finance.read_group(queue_name text, group_name text, qty int,
 *					  auto_commit boolean) returns setof finance.log_record
 *
 * Up to qty (1 to 10,000) messages after the group's position, in the safe
 * order: no message is ever skipped because it commits later than one that was
 * read.  The position stays where it is, so the next call returns the same,
 * unless commit_group() moves it, or auto_commit does to the last message of
 * this call; both count when the transaction commits.  Never waits: a message
 * appended while an older transaction that appended is open comes when that has
 * ended.  Above READ COMMITTED what was appended last may come one transaction
 * later.
 * Errors: LG301 unknown queue, LG308 unknown group, LG309 not a log, 55P03
 * another transaction reads with the group, 40001 above READ COMMITTED when it
 * was moved since the snapshot, 22004 null, 22023 out of range.
 * Locks: the group until the end of the transaction.
 */
Datum
finance_read_group(PG_FUNCTION_ARGS)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	char	   *name = fin_queue_arg_text(fcinfo, 1, "group_name");
	int			wanted = fin_queue_arg_int(fcinfo, 2, "qty", 1,
										   FIN_QUEUE_BATCH_MAX);
	Reading		reading = {0};
	FinQueryScope scope;
	FinLog		log;
	FinLogGroup group;

	fin_queue_refuse_null(fcinfo, 3, "auto_commit");
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	(void) fin_context();
	fin_query_begin(&scope);
	take_group(fcinfo, queue_name, name, &log, &group);
	reading.log = &log;
	reading.result = (ReturnSetInfo *) fcinfo->resultinfo;
	reading.position = group.position;
	reading.wanted = wanted;
	read_safely(&reading);
	if (PG_GETARG_BOOL(3) && reading.wanted < wanted)
		fin_queue_log_put_position(&group, &reading.position);
	fin_query_end(&scope);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * commit and seek
 * ------------------------------------------------------------------------
 */

static void
refuse_backwards(const char *name, const FinLogGroup *group,
				 const FinLogPosition *position)
{
	int			order = fin_queue_log_compare(position, &group->position);

	if (order < 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_POSITION_BEHIND),
				errmsg("consumer group \"%s\" is further already", name),
				errdetail("It is at %s, and was to be moved back to %s.",
						  fin_queue_log_position_text(&group->position),
						  fin_queue_log_position_text(position)),
				errhint("Another consumer has read on, or use finance.seek_group() to go back."));
}

/* nobody can have read what nobody has appended yet */
static void
refuse_future(const FinLogPosition *position)
{
	FinLogPosition end = {fin_queue_log_end(), PG_INT64_MAX};

	if (fin_queue_log_compare(position, &end) > 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("position \"%s\" is beyond the end of the log",
					   fin_queue_log_position_text(position)));
}

PG_FUNCTION_INFO_V1(finance_commit_group);

/*
 * finance.commit_group(queue_name text, group_name text, to_position text)
 *		returns boolean
 *
 * Moves the group to a position that read_group() returned: what lies up to
 * there is done.  In the transaction that also writes what came of it, each
 * message takes effect once.  False when the group is there already.
 * Errors: LG310 the group is further already, LG301, LG308, LG309, 55P03, 40001
 * as read_group(), 22004 null, 22023 malformed position, or beyond the end.
 * Locks: the group until the end of the transaction.
 */
Datum
finance_commit_group(PG_FUNCTION_ARGS)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	char	   *name = fin_queue_arg_text(fcinfo, 1, "group_name");
	FinLogPosition position;
	FinQueryScope scope;
	FinLog		log;
	FinLogGroup group;
	bool		moves;

	position = fin_queue_log_parse_position(fin_queue_arg_text(fcinfo, 2,
															   "to_position"));
	(void) fin_context();
	fin_query_begin(&scope);
	take_group(fcinfo, queue_name, name, &log, &group);
	refuse_backwards(name, &group, &position);
	refuse_future(&position);
	moves = fin_queue_log_compare(&position, &group.position) > 0;
	if (moves)
		fin_queue_log_put_position(&group, &position);
	fin_query_end(&scope);
	PG_RETURN_BOOL(moves);
}

/* right before the first message, in the order of reading, of this id or above */
static FinLogPosition
before_id(const FinLog *log, int64 id)
{
	FinLogPosition position = {0, 0};
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	FinLogScan *scan = fin_queue_log_begin_scan(log, &position, id, snapshot);
	bool		found = fin_queue_log_next(scan, &position) != NULL;

	fin_queue_log_end_scan(scan);
	UnregisterSnapshot(snapshot);
	if (found)
		position.msg_id--;
	return position;
}

/* what is not committed yet may have a lower mark than what is */
static FinLogPosition
seek_id(const FinLog *log, int64 id)
{
	FinLogHorizon horizon;
	FinLogPosition end;
	FinLogPosition position;

	(void) GetTopTransactionId();
	fin_queue_log_horizon(log, &horizon);
	end.mark = horizon.mark;
	end.msg_id = 0;
	if (id == PG_INT64_MAX)
		return end;
	position = before_id(log, id);
	if (position.mark == 0 || fin_queue_log_compare(&position, &end) > 0)
		return end;
	return position;
}

static FinLogPosition
seek_position(const FinLog *log, const char *text)
{
	FinLogPosition position = {0, 0};

	if (strcmp(text, "beginning") == 0)
		return position;
	if (strcmp(text, "end") == 0)
		return seek_id(log, PG_INT64_MAX);
	position = fin_queue_log_parse_position(text);
	refuse_future(&position);
	return position;
}

static void
check_targets(FunctionCallInfo fcinfo)
{
	int			given = !PG_ARGISNULL(2) + !PG_ARGISNULL(3) + !PG_ARGISNULL(4);

	if (given != 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%d places to seek", given),
				errdetail("One of to_id, to_time and to_position is needed."));
	if (!PG_ARGISNULL(3) && TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(3)))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("to_time must be finite"),
				errhint("Seek the position beginning or end."));
}

PG_FUNCTION_INFO_V1(finance_seek_group);

/*
 * finance.seek_group(queue_name text, group_name text, to_id bigint,
 *					  to_time timestamptz, to_position text) returns text
 *
 * Moves the group, back or forth, and returns its position.  One of: to_id, the
 * next read begins with the first message of that msg_id or a higher one;
 * to_time, of that millisecond or later; to_position, 'beginning', 'end', or a
 * position that read_group() returned.  Messages with lower ids that are read
 * later than that first one come again, too: none of those asked for is left
 * out.  Where there is none yet, that is the end.
 * Errors: LG301, LG308, LG309, 55P03, 40001 as read_group(), 22004 null, 22023
 * none or several given, malformed position, infinite time.
 * Locks: the group until the end of the transaction.  Walks along the log's
 * index.
 */
Datum
finance_seek_group(PG_FUNCTION_ARGS)
{
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	char	   *name = fin_queue_arg_text(fcinfo, 1, "group_name");
	FinLogPosition position;
	FinQueryScope scope;
	FinLog		log;
	FinLogGroup group;

	check_targets(fcinfo);
	(void) fin_context();
	fin_query_begin(&scope);
	take_group(fcinfo, queue_name, name, &log, &group);
	if (!PG_ARGISNULL(2))
		position = seek_id(&log, PG_GETARG_INT64(2));
	else if (!PG_ARGISNULL(3))
		position = seek_id(&log, fin_ident_floor(PG_GETARG_TIMESTAMPTZ(3)));
	else
		position = seek_position(&log, text_to_cstring(PG_GETARG_TEXT_PP(4)));
	fin_queue_log_put_position(&group, &position);
	fin_query_end(&scope);
	PG_RETURN_TEXT_P(cstring_to_text(fin_queue_log_position_text(&position)));
}
