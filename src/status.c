/*
 * status.c
 *		SQL functions around the worker: what it does, and asking for it.
 *
 * Owns nothing.  Locks: see roster.c and wake.c.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "roster.h"
#include "wake.h"

#define FIN_STATUS_COLUMNS	19

static const char *const state_names[] =
{
	[FIN_WORKER_NONE] = "none",
	[FIN_WORKER_STARTING] = "starting",
	[FIN_WORKER_RUNNING] = "running",
	[FIN_WORKER_FAILING] = "failing",
	[FIN_WORKER_LEFT] = "left",
};

static void
put_time(Datum *values, bool *nulls, int column, TimestampTz when)
{
	values[column] = TimestampTzGetDatum(when);
	nulls[column] = when == 0;
}

/*
 * The text of an error may tell what is in a database, so it is shown to those
 * who are in it or may read all statistics; and it is in that database's
 * encoding.
 */
static bool
may_see_texts(const FinWorkerStatus *status)
{
	return status->database == MyDatabaseId ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}

static void
put_error(Datum *values, bool *nulls, int column,
		  const FinWorkerStatus *status)
{
	nulls[column] = true;
	if (status->last_error_at == 0 || !may_see_texts(status))
		return;
	if (!pg_verifymbstr(status->last_error, strlen(status->last_error), true))
		return;
	values[column] = CStringGetTextDatum(status->last_error);
	nulls[column] = false;
}

static void
put_lag(Datum *values, bool *nulls, int column, const FinDispatchStats *dispatch,
		int64 us)
{
	values[column] = Float8GetDatum(us / 1000.0);
	nulls[column] = fin_dispatch_lag_us(dispatch, 1) == 0;
}

/* shown to the same: a channel is in its database's encoding too */
static void
put_unsendable(Datum *values, bool *nulls, int column,
			   const FinWorkerStatus *status)
{
	const FinDispatchStats *dispatch = &status->dispatch;

	values[column] = Int64GetDatum(dispatch->unsendable);
	put_time(values, nulls, column + 1, dispatch->last_unsendable_at);
	nulls[column + 2] = dispatch->last_unsendable_at == 0 ||
		!may_see_texts(status) ||
		!pg_verifymbstr(dispatch->last_unsendable,
						strlen(dispatch->last_unsendable), true);
	if (!nulls[column + 2])
		values[column + 2] = CStringGetTextDatum(dispatch->last_unsendable);
}

static void
put_status(ReturnSetInfo *result, const FinWorkerStatus *status)
{
	Datum		values[FIN_STATUS_COLUMNS] = {0};
	bool		nulls[FIN_STATUS_COLUMNS] = {0};
	const FinDispatchStats *dispatch = &status->dispatch;

	values[0] = ObjectIdGetDatum(status->database);
	values[1] = Int32GetDatum(status->pid);
	nulls[1] = status->pid == 0;
	values[2] = CStringGetTextDatum(state_names[status->state]);
	put_time(values, nulls, 3, status->started_at);
	values[4] = Int64GetDatum(dispatch->notifications);
	values[5] = Int64GetDatum(dispatch->messages);
	put_lag(values, nulls, 6, dispatch, dispatch->last_lag_us);
	put_lag(values, nulls, 7, dispatch, fin_dispatch_lag_us(dispatch, 0.5));
	put_lag(values, nulls, 8, dispatch, fin_dispatch_lag_us(dispatch, 0.99));
	put_lag(values, nulls, 9, dispatch, dispatch->max_lag_us);
	put_time(values, nulls, 10, dispatch->last_notified_at);
	put_time(values, nulls, 11, dispatch->last_sweep_at);
	put_unsendable(values, nulls, 12, status);
	values[15] = Int64GetDatum(status->errors + dispatch->unsendable);
	put_time(values, nulls, 16, status->last_error_at);
	put_error(values, nulls, 17, status);
	values[18] = Int64GetDatum(dispatch->rounds);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(finance_worker_status);

/*
 * finance.worker_status() returns setof record
 *
 * One row for each worker of the server, of any database; none when the
 * library is not preloaded.  Locks: the roster, shared, for each row's copy.
 */
Datum
finance_worker_status(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (!fin_roster_available())
		return (Datum) 0;
	for (int i = 0; i < fin_roster_size(); i++)
	{
		FinWorkerStatus status;

		fin_roster_get(i, &status);
		if (status.state != FIN_WORKER_NONE && status.state != FIN_WORKER_LEFT)
			put_status((ReturnSetInfo *) fcinfo->resultinfo, &status);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_wake_worker);

/*
 * finance.wake_worker() returns void
 *
 * At commit, asks the worker of this database to look at all subscribed queues
 * now, and the launcher to start it if it is not there.  Errors: 55000 when
 * the library is not preloaded.
 */
Datum
finance_wake_worker(PG_FUNCTION_ARGS)
{
	fin_wake_require(ERROR);
	fin_wake_note_launcher(MyDatabaseId);
	fin_wake_note_attention();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_worker_wanted);

/*
 * finance._worker_wanted() returns void
 *
 * The last word of CREATE EXTENSION: at commit, the launcher starts a worker
 * for this database.  Does nothing when the library is not preloaded.
 */
Datum
finance_worker_wanted(PG_FUNCTION_ARGS)
{
	fin_wake_note_launcher(MyDatabaseId);
	fin_wake_note_attention();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_ring);

/*
 * finance._ring(queue_id bigint, highest_id bigint, count bigint,
 *				 due_at timestamptz) returns void
 *
 * Rings for a queue as send() does, or, when due_at is not null, tells when a
 * message becomes visible; with a count too, as one who takes that many. For
 * tests.
 */
Datum
finance_ring(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("queue_id, highest_id and count must not be null"));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT64(2) > 0)
		fin_wake_note_claim(PG_GETARG_INT64(0), PG_GETARG_INT64(2),
							PG_GETARG_TIMESTAMPTZ(3));
	else if (!PG_ARGISNULL(3))
		fin_wake_note_due(PG_GETARG_INT64(0), PG_GETARG_TIMESTAMPTZ(3));
	else
		fin_wake_note(PG_GETARG_INT64(0), PG_GETARG_INT64(1),
					  PG_GETARG_INT64(2));
	PG_RETURN_VOID();
}
