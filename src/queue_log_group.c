/*
 * queue_log_group.c
 *		Consumer groups of logs: making, dropping and looking at them; what a
 *		position looks like to users.
 *
 * Owns nothing.  A group is a row of finance.consumer_group that never changes;
 * where it is, queue_log_position.c knows.
 *
 * Locks: the log's gate (ACCESS SHARE) to the end of the transaction.  Dropping
 * takes the group and does not wait for it.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "errors.h"
#include "query.h"
#include "queue.h"
#include "queue_log.h"
#include "queue_parts.h"

/* a lag is counted up to here */
#define FIN_LAG_MAX				1000000

/* messages counted for the worker */
#define FIN_LOG_WAITING_MAX		10000

static FinQuery insert_group =
{
	.sql = "INSERT INTO finance.consumer_group (tenant_id, queue_id, name)"
	" VALUES ($1, $2, $3) ON CONFLICT (tenant_id, queue_id, name) DO NOTHING"
	" RETURNING group_id",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, TEXTOID},
	.expect = SPI_OK_INSERT_RETURNING,
};

static FinQuery find_group =
{
	.sql = "SELECT group_id FROM finance.consumer_group"
	" WHERE tenant_id = $1 AND queue_id = $2 AND name = $3",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery delete_group =
{
	.sql = "DELETE FROM finance.consumer_group"
	" WHERE tenant_id = $1 AND group_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

static FinQuery groups_of =
{
	.sql = "SELECT group_id, name FROM finance.consumer_group"
	" WHERE tenant_id = $1 AND queue_id = $2 ORDER BY name COLLATE pg_catalog.\"C\"",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* up to where retention removed messages */
static FinQuery find_removed =
{
	.sql = "SELECT removed_mark, removed_msg_id FROM finance.log_queue"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery since_of_backend =
{
	.sql = "SELECT xact_start FROM pg_catalog.pg_stat_activity WHERE pid = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery prepared_of_xid =
{
	.sql = "SELECT prepared, gid FROM pg_catalog.pg_prepared_xacts"
	" WHERE transaction = $1",
	.nargs = 1,
	.argtypes = {XIDOID},
	.expect = SPI_OK_SELECT,
};

/* ------------------------------------------------------------------------
 * positions as text
 * ------------------------------------------------------------------------
 */

#define POSITION_HALF	16		/* hexadecimal digits of a bigint */
#define POSITION_LENGTH	(2 * POSITION_HALF + 1)

static void
put_hexadecimal(char *digits, int64 number)
{
	for (int i = POSITION_HALF - 1; i >= 0; i--)
	{
		digits[i] = "0123456789abcdef"[number & 15];
		number >>= 4;
	}
}

/* made for each row that is read: printf() would cost as much as the rest */
char *
fin_queue_log_position_text(const FinLogPosition *position)
{
	char	   *text = palloc(POSITION_LENGTH + 1);

	put_hexadecimal(text, position->mark);
	text[POSITION_HALF] = '-';
	put_hexadecimal(text + POSITION_HALF + 1, position->msg_id);
	text[POSITION_LENGTH] = '\0';
	return text;
}

FinLogPosition
fin_queue_log_parse_position(const char *text)
{
	FinLogPosition position;
	bool		good = strlen(text) == POSITION_LENGTH;

	for (int i = 0; good && i < POSITION_LENGTH; i++)
		good = i == POSITION_HALF ? text[i] == '-' :
			isxdigit((unsigned char) text[i]) != 0 &&
			!isupper((unsigned char) text[i]);
	if (good)
	{
		position.mark = (int64) strtoull(text, NULL, 16);
		position.msg_id = (int64) strtoull(text + POSITION_HALF + 1, NULL, 16);
		good = position.mark >= 0 && position.msg_id >= 0;
	}
	if (!good)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("malformed position \"%s\"", text),
				errhint("Use a position that finance.read_group() returned."));
	return position;
}

/* ------------------------------------------------------------------------
 * create and drop
 * ------------------------------------------------------------------------
 */

void
fin_queue_log_raise_unknown_group(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_GROUP),
			errmsg("consumer group \"%s\" does not exist", name),
			errdetail("The queue has no group of this name."),
			errhint("Create it with finance.create_consumer_group()."));
}

int64
fin_queue_log_find_group(const FinLog *log, const char *name)
{
	Datum		values[3] = {Int32GetDatum(log->tenant_id),
		Int64GetDatum(log->queue_id), CStringGetTextDatum(name)};

	if (fin_query_run(&find_group, values, NULL, 1) == 0)
		fin_queue_log_raise_unknown_group(name);
	return fin_query_int64(0, 1);
}

/* 'beginning' or 'end' */
static bool
arg_at_end(FunctionCallInfo fcinfo, int arg)
{
	char	   *start = fin_queue_arg_text(fcinfo, arg, "start");
	bool		at_end = strcmp(start, "end") == 0;

	if (!at_end && strcmp(start, "beginning") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("start \"%s\" is not known", start),
				errhint("It is beginning or end."));
	return at_end;
}

PG_FUNCTION_INFO_V1(finance_create_consumer_group);

/*
 * finance.create_consumer_group(queue_name text, group_name text, start text)
 *		returns void
 *
 * Makes a consumer group of a log.  start: 'end', what was committed before is
 * not read (but for what was sent while a transaction that has sent, too, is
 * still open); 'beginning', all that is there is read.  group_name: 1 to 47
 * letters, digits, "_", "." and "-".
 * Errors: 42710 the name is taken, 42602 bad name, LG301 unknown queue, LG309
 * not a log, 22004 null, 22023 other start.
 * Locks: none that others wait for.
 */
Datum
finance_create_consumer_group(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	char	   *name = fin_queue_arg_text(fcinfo, 1, "group_name");
	bool		at_end = arg_at_end(fcinfo, 2);
	FinLogPosition position = {0, 0};
	FinLogGroup group = {0};
	FinQueryScope scope;
	FinLog		log;
	Datum		values[3];

	fin_queue_check_name("consumer group", name);
	fin_query_begin(&scope);
	fin_queue_log_find(tenant_id, queue_name, &log);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(log.queue_id);
	values[2] = CStringGetTextDatum(name);
	if (fin_query_run(&insert_group, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("consumer group \"%s\" of queue \"%s\" already exists",
					   name, queue_name));
	group.tenant_id = tenant_id;
	group.group_id = fin_query_int64(0, 1);
	if (at_end)
	{
		FinLogHorizon horizon;

		/* this transaction has an id: what was appended before is below it */
		fin_queue_log_horizon(&log, &horizon);
		position.mark = horizon.mark;
	}
	(void) fin_queue_log_take_group(group.group_id);
	fin_queue_log_put_position(&group, &position);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

static void
drop_group(int32 tenant_id, int64 group_id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(group_id)};

	fin_queue_log_drop_positions(tenant_id, group_id);
	(void) fin_query_run(&delete_group, values, NULL, 0);
}

/* the log's gate is gone, and with it everybody who read with these groups */
void
fin_queue_log_drop_groups(int32 tenant_id, int64 queue_id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(queue_id)};
	uint64		n = fin_query_run(&groups_of, values, NULL, 0);
	int64	   *group_ids = palloc(Max(n, 1) * sizeof(int64));

	for (uint64 i = 0; i < n; i++)
		group_ids[i] = fin_query_int64(i, 1);
	for (uint64 i = 0; i < n; i++)
		drop_group(tenant_id, group_ids[i]);
}

PG_FUNCTION_INFO_V1(finance_drop_consumer_group);

/*
 * finance.drop_consumer_group(queue_name text, group_name text)
 *		returns boolean
 *
 * Forgets a consumer group and its position.  False when there is none of this
 * name.
 * Errors: LG301 unknown queue, LG309 not a log, 22004 null, 55P03 somebody is
 * reading with it.
 * Locks: the group.
 */
Datum
finance_drop_consumer_group(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	char	   *name = fin_queue_arg_text(fcinfo, 1, "group_name");
	FinQueryScope scope;
	FinLog		log;
	Datum		values[3];
	bool		exists;

	fin_query_begin(&scope);
	fin_queue_log_find(tenant_id, queue_name, &log);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(log.queue_id);
	values[2] = CStringGetTextDatum(name);
	exists = fin_query_run(&find_group, values, NULL, 1) > 0;
	if (exists)
	{
		int64		group_id = fin_query_int64(0, 1);

		if (!fin_queue_log_take_group(group_id))
			fin_queue_log_raise_taken(name);
		drop_group(tenant_id, group_id);
	}
	fin_query_end(&scope);
	PG_RETURN_BOOL(exists);
}

void
fin_queue_log_raise_taken(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			errmsg("consumer group \"%s\" is in use", name),
			errdetail("Another transaction reads with it or moves it."),
			errhint("Try again when that has ended; a group has one reader at a time."));
}

/* ------------------------------------------------------------------------
 * looking
 * ------------------------------------------------------------------------
 */

/* the columns of list_consumer_groups() */
enum
{
	LISTED_NAME,
	LISTED_POSITION,
	LISTED_LAG,
	LISTED_LAST_READ_AT,
	LISTED_MISSED,
	LISTED_HELD_PID,
	LISTED_HELD_GID,
	LISTED_HELD_SINCE,
	LISTED_COLUMNS
};

/* who keeps the horizon where it is: the same for all groups of a log */
static void
describe_writer(const FinLog *log, Datum *values, bool *nulls)
{
	FinLogHorizon horizon;
	Datum		argument;
	FinQuery   *query = &since_of_backend;

	fin_queue_log_horizon(log, &horizon);
	if (!TransactionIdIsValid(horizon.writer))
		return;
	argument = Int32GetDatum(horizon.writer_pid);
	if (horizon.writer_pid == 0)
	{
		query = &prepared_of_xid;
		argument = TransactionIdGetDatum(horizon.writer);
	}
	else
	{
		values[LISTED_HELD_PID] = argument;
		nulls[LISTED_HELD_PID] = false;
	}
	if (fin_query_run(query, &argument, NULL, 1) == 0)
		return;
	values[LISTED_HELD_SINCE] = fin_query_datum(0, 1, &nulls[LISTED_HELD_SINCE]);
	if (horizon.writer_pid == 0)
		values[LISTED_HELD_GID] = fin_query_datum(0, 2, &nulls[LISTED_HELD_GID]);
}

static FinLogPosition
removed_up_to(const FinLog *log)
{
	Datum		values[2] = {Int32GetDatum(log->tenant_id),
	Int64GetDatum(log->queue_id)};
	FinLogPosition removed = {0, 0};

	if (fin_query_run(&find_removed, values, NULL, 1) > 0)
	{
		removed.mark = fin_query_int64(0, 1);
		removed.msg_id = fin_query_int64(0, 2);
	}
	return removed;
}

static void
list_group(const FinLog *log, const FinLogGroup *group, const char *name,
		   const FinLogPosition *removed, Datum *values, bool *nulls)
{
	values[LISTED_NAME] = CStringGetTextDatum(name);
	values[LISTED_POSITION] =
		CStringGetTextDatum(fin_queue_log_position_text(&group->position));
	values[LISTED_LAG] = Int64GetDatum(fin_queue_log_count(log, &group->position,
														   FIN_LAG_MAX));
	values[LISTED_LAST_READ_AT] = TimestampTzGetDatum(group->moved_at);
	values[LISTED_MISSED] =
		BoolGetDatum(fin_queue_log_compare(&group->position, removed) < 0);
	nulls[LISTED_NAME] = nulls[LISTED_POSITION] = nulls[LISTED_LAG] =
		nulls[LISTED_LAST_READ_AT] = nulls[LISTED_MISSED] = false;
}

/* the groups of a log: how many; names may be NULL */
static int
collect_groups(const FinLog *log, int64 **group_ids, char ***names)
{
	Datum		values[2] = {Int32GetDatum(log->tenant_id),
	Int64GetDatum(log->queue_id)};
	int			n = (int) fin_query_run(&groups_of, values, NULL, 0);

	*group_ids = palloc(Max(n, 1) * sizeof(int64));
	*names = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		(*group_ids)[i] = fin_query_int64(i, 1);
		(*names)[i] = fin_query_text(i, 2);
	}
	return n;
}

PG_FUNCTION_INFO_V1(finance_list_consumer_groups);

/*
 * finance.list_consumer_groups(queue_name text) returns setof (group_name,
 *		position, lag, last_read_at, missed, held_by_pid, held_by_gid,
 *		held_since)
 *
 * The groups of a log.  lag: committed messages after the position, counted up
 * to a million: its cost grows with it.  last_read_at: when the position was
 * last moved.  missed: retention removed messages after the position.  held_...:
 * the oldest open transaction that appended to this log, and since when; what
 * others appended since its first write is read only when it has ended.
 * Errors: LG301 unknown queue, LG309 not a log, 22004 null.
 * Locks: none that others wait for.
 */
Datum
finance_list_consumer_groups(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	FinLog		log;
	FinLogPosition removed;
	Datum		values[LISTED_COLUMNS] = {0};
	bool		nulls[LISTED_COLUMNS];
	int64	   *group_ids;
	char	  **names;
	int			n;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(nulls, true, sizeof(nulls));
	fin_query_begin(&scope);
	fin_queue_log_find(tenant_id, queue_name, &log);
	describe_writer(&log, values, nulls);
	removed = removed_up_to(&log);
	n = collect_groups(&log, &group_ids, &names);
	for (int i = 0; i < n; i++)
	{
		FinLogGroup group;

		/* one that is dropped meanwhile has no position */
		if (!fin_queue_log_find_position(tenant_id, group_ids[i], &group))
			continue;
		list_group(&log, &group, names[i], &removed, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	fin_query_end(&scope);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * for the worker and for metrics
 * ------------------------------------------------------------------------
 */

/* the position of the group that is furthest behind; false: no group */
static bool
slowest(const FinLog *log, FinLogPosition *position)
{
	int64	   *group_ids;
	char	  **names;
	int			n = collect_groups(log, &group_ids, &names);
	bool		found = false;

	for (int i = 0; i < n; i++)
	{
		FinLogGroup group;

		if (!fin_queue_log_find_position(log->tenant_id, group_ids[i], &group))
			continue;
		if (!found || fin_queue_log_compare(&group.position, position) < 0)
			*position = group.position;
		found = true;
	}
	return found;
}

bool
fin_queue_log_waiting(int64 queue_id, TimestampTz since,
					  FinQueueWaiting *waiting)
{
	FinLog		log;
	FinLogPosition position = {0, 0};
	TupleTableSlot *row;
	Snapshot	snapshot;
	FinLogScan *scan;
	int			seen = 0;

	memset(waiting, 0, sizeof(FinQueueWaiting));
	if (!fin_queue_log_hold(queue_id, AccessShareLock, &log))
		return false;
	if (!slowest(&log, &position))
		return true;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	scan = fin_queue_log_begin_scan(&log, &position, 0, snapshot);
	while (seen++ < FIN_LOG_WAITING_MAX &&
		   (row = fin_queue_log_next(scan, &position)) != NULL)
	{
		if (DatumGetTimestampTz(row->tts_values[FIN_LOG_ENQUEUED_AT - 1]) <= since)
			continue;
		waiting->count++;
		waiting->highest_id = Max(waiting->highest_id, position.msg_id);
	}
	fin_queue_log_end_scan(scan);
	UnregisterSnapshot(snapshot);
	return true;
}

/* the row of metrics(), made by a query so that it comes as others do */
static FinQuery metrics_row =
{
	.sql = "SELECT $1, $2, EXTRACT(epoch FROM $5 - $4)::pg_catalog.int4,"
	" EXTRACT(epoch FROM $5 - $3)::pg_catalog.int4, $5, $2",
	.nargs = 5,
	.argtypes = {TEXTOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
};

uint64
fin_queue_log_measure(int64 queue_id, const char *name, TimestampTz now)
{
	FinLog		log;
	FinLogPosition position = {0, 0};
	TupleTableSlot *row;
	Snapshot	snapshot;
	FinLogScan *scan;
	TimestampTz oldest = 0;
	TimestampTz newest = 0;
	int64		n = 0;
	Datum		values[5];
	char		nulls[] = "     ";

	if (!fin_queue_log_hold(queue_id, AccessShareLock, &log))
		return 0;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	scan = fin_queue_log_begin_scan(&log, &position, 0, snapshot);
	while ((row = fin_queue_log_next(scan, &position)) != NULL)
	{
		TimestampTz at = DatumGetTimestampTz(row->tts_values[FIN_LOG_ENQUEUED_AT - 1]);

		oldest = n == 0 ? at : Min(oldest, at);
		newest = n == 0 ? at : Max(newest, at);
		n++;
	}
	fin_queue_log_end_scan(scan);
	UnregisterSnapshot(snapshot);
	if (n == 0)
		nulls[2] = nulls[3] = 'n';
	values[0] = CStringGetTextDatum(name);
	values[1] = Int64GetDatum(n);
	values[2] = TimestampTzGetDatum(oldest);
	values[3] = TimestampTzGetDatum(newest);
	values[4] = TimestampTzGetDatum(now);
	return fin_query_run(&metrics_row, values, nulls, 0);
}
