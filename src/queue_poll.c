/*
 * queue_poll.c
 *		Reading that waits: read_with_poll() and wait_for_message().
 *
 * A waiting reader looks at the queue, and if there is nothing to read, sleeps
 * until a message is committed to the queue, or the next delayed or claimed
 * one becomes visible, or the time is over; see wait.h.  It asks the queue no
 * more often than that.  Where nobody can wake it, since the library is not
 * preloaded or too many wait, it looks every so many milliseconds.
 *
 * Owns nothing; what waits is in wait.c, what sleeps has no snapshot where that
 * can be: see snapless.c.
 *
 * Memory: each look has a context that is reset before the next.
 *
 * Locks: a look that found nothing gives its locks back, so that who waits
 * keeps nobody from truncating or dropping the queue's tables.  It has a
 * resource owner of its own for that, as a portal has.  When the transaction
 * has written something the locks are kept, for it may have been the look.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "context.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "snapless.h"
#include "wait.h"

#define FIN_POLL_SECONDS_MAX		3600
#define FIN_POLL_INTERVAL_MS_MAX	60000
#define FIN_POLL_PAUSE_US			1000	/* between two looks */

/* the way in of read(): its arguments are the first three of read_with_poll() */
extern PGDLLEXPORT Datum finance_read(PG_FUNCTION_ARGS);

typedef struct Look
{
	MemoryContext context;		/* reset before each look */
	FunctionCallInfo fcinfo;	/* of the waiting function */
	bool		reads;			/* else only finds out what there is */
	int32		tenant_id;
	/* what it found */
	bool		found;
	int64		queue_id;		/* if nothing was found */
	TimestampTz next_at;		/* then something becomes visible; 0: nothing */
} Look;

/*
 * Calls read(), with a result of its own: what it allocates there belongs to
 * this look.  Its rows are copied to the result of the function.
 */
static bool
read_rows(Look *look)
{
	LOCAL_FCINFO(read, 3);
	FunctionCallInfo outer = look->fcinfo;
	ReturnSetInfo *result = (ReturnSetInfo *) outer->resultinfo;
	ReturnSetInfo rows = *result;
	ExprContext econtext = *result->econtext;
	TupleTableSlot *slot;
	bool		found = false;

	econtext.ecxt_per_query_memory = look->context;
	rows.econtext = &econtext;
	rows.setResult = NULL;
	rows.setDesc = NULL;
	InitFunctionCallInfoData(*read, outer->flinfo, 3, outer->fncollation,
							 NULL, (Node *) &rows);
	memcpy(read->args, outer->args, 3 * sizeof(NullableDatum));
	(void) finance_read(read);
	if (rows.setResult == NULL)
		return false;

	slot = MakeSingleTupleTableSlot(rows.setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(rows.setResult, true, false, slot))
	{
		tuplestore_puttupleslot(result->setResult, slot);
		found = true;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows.setResult);
	return found;
}

/* which queue it is, and whether and when there is something to read in it */
static void
look_ahead(Look *look)
{
	FinQueryScope scope;
	FinQueueWaiting waiting = {0};
	TimestampTz now = fin_ident_now();

	fin_query_begin(&scope);
	look->queue_id =
		fin_queue_find_standard(look->tenant_id,
								fin_queue_arg_text(look->fcinfo, 0,
												   "queue_name"))->queue_id;
	(void) fin_queue_waiting(look->tenant_id, look->queue_id,
							 look->reads ? now : DT_NOBEGIN, now, &waiting);
	fin_query_end(&scope);
	look->found = waiting.count > 0;
	look->next_at = waiting.next_at;
}

static void
end_locks(ResourceOwner owner, bool keep)
{
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, keep, false);
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_LOCKS, keep, false);
	ResourceOwnerRelease(owner, RESOURCE_RELEASE_AFTER_LOCKS, keep, false);
	ResourceOwnerDelete(owner);
}

static bool
has_written(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny());
}

static bool
find_messages(Look *look)
{
	ResourceOwner caller = CurrentResourceOwner;
	ResourceOwner owner = ResourceOwnerCreate(caller, "finance poll");
	MemoryContext old;

	MemoryContextReset(look->context);
	old = MemoryContextSwitchTo(look->context);
	CurrentResourceOwner = owner;
	look->found = look->reads && read_rows(look);
	if (!look->found)
		look_ahead(look);
	CurrentResourceOwner = caller;
	MemoryContextSwitchTo(old);
	end_locks(owner, look->reads && has_written());
	return look->found;
}

static void
sleep_until(TimestampTz until, bool in_procedure)
{
	bool		let_go = false;

	if (in_procedure)
		fin_snapless_procedure_begin();
	else
		let_go = fin_snapless_begin();
	fin_wait_sleep(until);
	if (in_procedure)
		fin_snapless_procedure_end();
	else if (let_go)
		fin_snapless_end();
}

/*
 * Looks until something is found or the time is over.  A look that wrote
 * something, though it found nothing, ends the wait too: it has to be
 * committed.
 */
static void
wait_for_messages(Look *look, int seconds, int interval_ms)
{
	TimestampTz deadline = GetCurrentTimestamp() +
		(int64) seconds * USECS_PER_SEC;
	bool		had_written = has_written();
	int64		waits_for = 0;
	bool		can_be_woken = false;

	while (!find_messages(look) && had_written == has_written())
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz until = deadline;

		if (now >= deadline)
			break;
		if (look->queue_id != waits_for)
		{
			/* look again: something may have come before we began to wait */
			fin_wait_end();
			can_be_woken = fin_wait_begin(look->queue_id);
			waits_for = look->queue_id;
			if (can_be_woken)
				continue;
		}
		if (!can_be_woken)
			until = Min(until, now + (int64) interval_ms * 1000);
		if (look->next_at != 0)
			until = Min(until, Max(look->next_at, now + FIN_POLL_PAUSE_US));
		sleep_until(until, !look->reads);
		fin_wait_renew();
	}
	fin_wait_end();
}

static void
refuse_one_snapshot(void)
{
	if (!IsolationUsesXactSnapshot())
		return;
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("cannot wait for messages in a transaction of isolation level %s",
				   XactIsoLevel == XACT_SERIALIZABLE ?
				   "SERIALIZABLE" : "REPEATABLE READ"),
			errdetail("Such a transaction does not see messages that are committed after its first statement."),
			errhint("Wait in a transaction of its own, at isolation level READ COMMITTED."));
}

static Look
begin_looking(FunctionCallInfo fcinfo, bool reads)
{
	Look		look =
	{
		.fcinfo = fcinfo,
		.reads = reads,
		.tenant_id = fin_context()->tenant_id,
	};

	/* the context of a procedure's CALL, or of the statement */
	look.context = AllocSetContextCreate(CurrentMemoryContext,
										 "finance poll",
										 ALLOCSET_DEFAULT_SIZES);
	return look;
}

static int
arg_seconds(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "max_poll_seconds", 0,
							 FIN_POLL_SECONDS_MAX);
}

static int
arg_interval(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "poll_interval_ms", 1,
							 FIN_POLL_INTERVAL_MS_MAX);
}

PG_FUNCTION_INFO_V1(finance_read_with_poll);

/*
 * finance.read_with_poll(queue_name text, vt int, qty int,
 *						  max_poll_seconds int, poll_interval_ms int)
 *		returns setof finance.message_record
 *
 * read(), but when there is nothing to read it waits, up to max_poll_seconds
 * (0 to 3,600), until there is.  It is woken by the commit of a message, and
 * when a delay or visibility timeout ends.  poll_interval_ms (1 to 60,000) is
 * how often it looks where it cannot be woken, as finance is not preloaded.
 * Messages of prepared transactions and of logical replication wake nobody:
 * they are found when the wait is over.
 *
 * While it waits it has no snapshot, and so does not keep VACUUM from its
 * work, in a query that the client sends, or a cursor, which reads no table:
 * SELECT ... FROM finance.read_with_poll(...).  Elsewhere, as within another
 * function, the snapshot of the statement around it remains.
 * Errors: as read(); 0A000 above READ COMMITTED, 22023 out of range.
 * Locks: as read() if something is found; while it waits, none on the queue.
 */
Datum
finance_read_with_poll(PG_FUNCTION_ARGS)
{
	int			seconds = arg_seconds(fcinfo, 3);
	int			interval_ms = arg_interval(fcinfo, 4);
	Look		look;

	refuse_one_snapshot();
	look = begin_looking(fcinfo, true);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	wait_for_messages(&look, seconds, interval_ms);
	MemoryContextDelete(look.context);
	return (Datum) 0;
}

static void
refuse_atomic(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context != NULL && IsA(context, CallContext) && !context->atomic)
		return;
	ereport(ERROR,
			errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			errmsg("wait_for_message() cannot run inside a transaction block, a function or a block with an exception handler"),
			errdetail("It lets go of the snapshot of the statement around it, which these keep."),
			errhint("Use finance.read_with_poll() there, or COMMIT before."));
}

PG_FUNCTION_INFO_V1(finance_wait_for_message);

/*
 * finance.wait_for_message(queue_name text, max_poll_seconds int,
 *							poll_interval_ms int): a procedure
 *
 * For procedures and DO blocks that work on a queue: returns when there seems
 * to be a message to read(), or after max_poll_seconds.  It takes nothing, and
 * commits nothing: COMMIT before, so as to wait without a transaction id and
 * locks.  It waits as read_with_poll() does, without a snapshot.
 * Errors: 25001 where a procedure could not COMMIT, LG301 unknown queue, 0A000
 * above READ COMMITTED, 22004, 22023.
 * Locks: while it waits, none.
 */
Datum
finance_wait_for_message(PG_FUNCTION_ARGS)
{
	int			seconds = arg_seconds(fcinfo, 1);
	int			interval_ms = arg_interval(fcinfo, 2);
	Look		look;

	refuse_atomic(fcinfo);
	refuse_one_snapshot();
	fin_snapless_procedure_end();
	look = begin_looking(fcinfo, false);
	wait_for_messages(&look, seconds, interval_ms);
	MemoryContextDelete(look.context);
	PG_RETURN_VOID();
}
