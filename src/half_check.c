/*
 * half_check.c
 *		Half messages left open: asks their producers, parks what nobody
 *		answers, and deletes what is answered.
 *
 * Words: an attempt is a row of finance.half_check.  A check is an attempt
 * whose message reached a queue; a miss is one that did not, because nobody is
 * bound to the check topic or because publishing failed.  Misses use up no
 * checks, but after as many a half message is parked, too: somebody must look.
 *
 * Owns finance.half_check; and, in each process, how many rows it deleted that
 * vacuum may not remove yet.  Of those there are never more than
 * FIN_HALF_DEAD_MAX: what is answered stays until the horizon has passed the
 * last deletion, so a transaction open for hours costs room, and no dead rows.
 *
 * Locks: a half message's row while it is looked at, skipping those that are
 * locked, so that nobody who answers is waited for.
 *
 * Privileges: see expire.c; the worker does all of it as a security-restricted
 * operation, with constraints immediate.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "compat.h"
#include "context.h"
#include "errors.h"
#include "half_parts.h"
#include "ident.h"
#include "json.h"
#include "mishap.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "settings.h"
#include "wake.h"

#define FIN_CHECK_LIMIT_MAX		10000
#define FIN_NO_GROUP_WAIT_US	(60 * USECS_PER_SEC)	/* see lock_subject() */
#define FIN_NO_GROUP_MISSES		15
#define FIN_FORGET_BATCH		1000
#define FIN_PEEK_ROWS			"1000"

/*
 * What is due beyond $1 and $2: first checks, and later ones.  The sides are
 * merged in the order of their indexes only if neither has a WHERE of its own.
 */
#define DUE_ROWS \
	"SELECT r.* FROM (" \
	"SELECT m.tenant_id, m.half_id, m.check_at AS at, 0 AS attempt" \
	" FROM finance.half_message m" \
	" UNION ALL " \
	"SELECT c.tenant_id, c.half_id, c.next_at, c.attempt" \
	" FROM finance.half_check c) r" \
	" WHERE (r.at, r.half_id) > ($1, $2) AND r.at >= $1"

/* an EXISTS might be planned as a hash of the whole table; these are looked up */
#define IS_ANSWERED \
	"(SELECT a.half_id FROM finance.half_answer a" \
	" WHERE a.tenant_id = d.tenant_id AND a.half_id = d.half_id) IS NOT NULL"
#define IS_SUPERSEDED \
	"(SELECT l.half_id FROM finance.half_check l" \
	" WHERE l.tenant_id = d.tenant_id AND l.half_id = d.half_id" \
	" AND l.attempt = d.attempt + 1) IS NOT NULL"

static FinQuery find_due =
{
	.sql = "SELECT d.at, d.half_id, d.tenant_id, d.attempt,"
	" " IS_ANSWERED ", " IS_SUPERSEDED
	" FROM (" DUE_ROWS " AND r.at <= $3 AND ($4 < 0 OR r.tenant_id = $4)"
	" ORDER BY r.at, r.half_id LIMIT $5) d",
	.nargs = 5,
	.argtypes = {TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.in_order = true,
};

/* looking past the answered ones, but not for ever */
static FinQuery find_next =
{
	.sql = "SELECT coalesce(min(n.at) FILTER (WHERE NOT n.done),"
	" CASE WHEN count(*) = " FIN_PEEK_ROWS " THEN max(n.at) END)"
	" FROM (SELECT d.at, " IS_ANSWERED " OR " IS_SUPERSEDED " AS done"
	" FROM (" DUE_ROWS
	" ORDER BY r.at, r.half_id LIMIT " FIN_PEEK_ROWS ") d) n",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, INT8OID},
	.expect = SPI_OK_SELECT,
	.in_order = true,
};

static FinQuery lock_due =
{
	.sql = "SELECT h.prepared_at, h.producer_group, h.topic, h.headers,"
	" h.payload, g.check_topic, g.check_interval, g.check_interval_max,"
	" g.max_checks FROM finance.half_message h"
	" LEFT JOIN finance.producer_group g"
	" ON g.tenant_id = h.tenant_id AND g.name = h.producer_group"
	" WHERE h.tenant_id = $1 AND h.half_id = $2 FOR UPDATE OF h SKIP LOCKED",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_one =
{
	.sql = "SELECT half_id FROM finance.half_message"
	" WHERE tenant_id = $1 AND half_id = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

/* always one row */
static FinQuery find_state =
{
	.sql = "SELECT EXISTS (SELECT FROM finance.half_answer a"
	" WHERE a.tenant_id = q.tenant_id AND a.half_id = q.half_id),"
	" coalesce(c.attempt, 0), coalesce(c.checks, 0), coalesce(c.misses, 0),"
	" c.error FROM (SELECT $1 AS tenant_id, $2 AS half_id) q"
	" LEFT JOIN LATERAL (SELECT * FROM finance.half_check l"
	" WHERE l.tenant_id = q.tenant_id AND l.half_id = q.half_id"
	" ORDER BY l.attempt DESC LIMIT 1) c ON true",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery insert_attempt =
{
	.sql = "INSERT INTO finance.half_check (tenant_id, attempt, half_id,"
	" checked_at, next_at, checks, misses, copies, parked_reason, error)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
	.nargs = 10,
	.argtypes = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	INT4OID, INT4OID, INT4OID, TEXTOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "half_check",
};

static FinQuery lock_answered =
{
	.sql = "SELECT d.half_id FROM finance.half_message d"
	" WHERE d.tenant_id = $1 AND d.half_id = ANY ($2) AND " IS_ANSWERED
	" FOR UPDATE OF d SKIP LOCKED",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery delete_checks =
{
	.sql = "DELETE FROM finance.half_check"
	" WHERE tenant_id = $1 AND half_id = ANY ($2)",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery delete_halves =
{
	.sql = "DELETE FROM finance.half_message"
	" WHERE tenant_id = $1 AND half_id = ANY ($2)",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* an answer must not go before its half message, which would look open again */
static FinQuery delete_answers =
{
	.sql = "DELETE FROM finance.half_answer WHERE ctid = ANY (ARRAY("
	"SELECT a.ctid FROM finance.half_answer a WHERE a.answered_at < $1"
	" AND (SELECT h.half_id FROM finance.half_message h"
	" WHERE h.tenant_id = a.tenant_id AND h.half_id = a.half_id) IS NULL"
	" ORDER BY a.answered_at LIMIT $2 FOR UPDATE OF a SKIP LOCKED))",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, INT8OID},
	.expect = SPI_OK_DELETE,
	.in_order = true,
	.fires_triggers = true,
};

static int
int_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static TimestampTz
time_column(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return isnull ? FIN_NEVER : DatumGetTimestampTz(value);
}

static bool
bool_column(uint64 row, int column)
{
	bool		isnull;

	return DatumGetBool(fin_query_datum(row, column, &isnull));
}

/* ------------------------------------------------------------------------
 * what is due
 * ------------------------------------------------------------------------
 */

int
fin_half_take_due(int32 tenant_id, TimestampTz clock, const FinHalfDue *after,
				  int n, FinHalfDue *found)
{
	Datum		values[5] = {
		TimestampTzGetDatum(after->at),
		Int64GetDatum(after->half_id),
		TimestampTzGetDatum(clock),
		Int32GetDatum(tenant_id),
		Int64GetDatum(n)
	};
	int			rows = (int) fin_query_run(&find_due, values, NULL, 0);
	bool		isnull;

	for (int i = 0; i < rows; i++)
	{
		found[i].at = time_column(i, 1);
		found[i].half_id = fin_query_int64(i, 2);
		found[i].tenant_id = DatumGetInt32(fin_query_datum(i, 3, &isnull));
		found[i].attempt = DatumGetInt32(fin_query_datum(i, 4, &isnull));
		found[i].answered = bool_column(i, 5);
		found[i].superseded = bool_column(i, 6);
	}
	return rows;
}

TimestampTz
fin_half_next_due(const FinHalfDue *after)
{
	Datum		values[2] = {TimestampTzGetDatum(after->at),
	Int64GetDatum(after->half_id)};

	(void) fin_query_run(&find_next, values, NULL, 0);
	return time_column(0, 1);
}

/* ------------------------------------------------------------------------
 * one check
 * ------------------------------------------------------------------------
 */

/* a half message that is due, its row locked */
typedef struct Subject
{
	const FinHalfDue *due;
	TimestampTz prepared_at;
	char	   *group;
	char	   *topic;
	Jsonb	   *headers;
	Jsonb	   *payload;
	char	   *check_topic;	/* NULL: the group is gone */
	int64		interval_us;
	int64		interval_max_us;
	int			max_checks;
	int			checks;			/* so far */
	int			misses;
	char	   *error;			/* of the last attempt */
} Subject;

static int64
span_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? 0 : fin_half_span_us(DatumGetIntervalP(value));
}

static Jsonb *
jsonb_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? NULL : DatumGetJsonbP(value);
}

/*
 * False: somebody has it locked.  Where the group is gone, as it is while a
 * dump is being restored, there is time for it to come.
 */
static bool
lock_subject(const FinHalfDue *due, Subject *subject)
{
	Datum		values[2] = {Int32GetDatum(due->tenant_id),
	Int64GetDatum(due->half_id)};

	if (fin_query_run(&lock_due, values, NULL, 1) == 0)
		return false;
	subject->due = due;
	subject->prepared_at = time_column(0, 1);
	subject->group = fin_query_text(0, 2);
	subject->topic = fin_query_text(0, 3);
	subject->headers = jsonb_column(4);
	subject->payload = jsonb_column(5);
	subject->check_topic = fin_query_text(0, 6);
	subject->interval_us = span_column(7);
	subject->interval_max_us = span_column(8);
	subject->max_checks = int_column(9);
	if (subject->check_topic == NULL)
	{
		subject->interval_us = FIN_NO_GROUP_WAIT_US;
		subject->interval_max_us = FIN_NO_GROUP_WAIT_US;
		subject->max_checks = FIN_NO_GROUP_MISSES;
	}
	return true;
}

/* what is there now that the row is locked; false: nothing is due any more */
static bool
is_still_due(Subject *subject)
{
	const FinHalfDue *due = subject->due;
	Datum		values[2] = {Int32GetDatum(due->tenant_id),
	Int64GetDatum(due->half_id)};

	(void) fin_query_run(&find_state, values, NULL, 0);
	subject->checks = int_column(3);
	subject->misses = int_column(4);
	subject->error = fin_query_text(0, 5);
	return !bool_column(0, 1) && int_column(2) == due->attempt;
}

/* next_at: or FIN_NEVER, with a reason for parking it */
static void
write_attempt(const FinHalfDue *due, TimestampTz clock, TimestampTz next_at,
			  int checks, int misses, int copies, const char *reason,
			  const char *error)
{
	Datum		values[10] = {0};
	char		nulls[] = "          ";

	values[0] = Int32GetDatum(due->tenant_id);
	values[1] = Int32GetDatum(due->attempt + 1);
	values[2] = Int64GetDatum(due->half_id);
	values[3] = TimestampTzGetDatum(clock);
	values[4] = TimestampTzGetDatum(next_at);
	values[5] = Int32GetDatum(checks);
	values[6] = Int32GetDatum(misses);
	values[7] = Int32GetDatum(copies);
	nulls[4] = next_at == FIN_NEVER ? 'n' : ' ';
	nulls[8] = reason == NULL ? 'n' : ' ';
	nulls[9] = error == NULL ? 'n' : ' ';
	if (reason != NULL)
		values[8] = CStringGetTextDatum(reason);
	if (error != NULL)
		values[9] = CStringGetTextDatum(error);
	(void) fin_query_run(&insert_attempt, values, nulls, 0);
}

/* doubled from attempt to attempt */
static int64
wait_us(const Subject *subject)
{
	int64		us = subject->interval_us;

	for (int i = 0; i < subject->checks + subject->misses &&
		 us < subject->interval_max_us; i++)
		us *= 2;
	return Min(us, subject->interval_max_us);
}

/* why it is to be asked about no more, or NULL */
static const char *
reason_to_park(const Subject *subject)
{
	if (subject->checks >= subject->max_checks)
		return "unanswered";
	if (subject->misses >= subject->max_checks)
		return subject->check_topic == NULL ? "no_group" :
			subject->error != NULL ? "check_failed" : "no_listener";
	return NULL;
}

static Jsonb *
check_payload(const Subject *subject)
{
	static const int utc = 0;
	char		at[MAXDATELEN + 1];
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "half_id", subject->due->half_id);
	fin_json_text(&json, "producer_group", subject->group);
	fin_json_text(&json, "topic", subject->topic);
	fin_json_object(&json, "check", psprintf("%d", subject->checks + 1));
	JsonEncodeDateTime(at, TimestampTzGetDatum(subject->prepared_at),
					   TIMESTAMPTZOID, &utc);
	fin_json_text(&json, "prepared_at", at);
	fin_json_jsonb(&json, "headers", subject->headers);
	fin_json_jsonb(&json, "payload", subject->payload);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(fin_json_end(&json))));
}

static int
publish_check(const Subject *subject)
{
	FinMessage	message = {0};

	if (subject->check_topic == NULL ||
		fin_queue_route_count(subject->due->tenant_id,
							  subject->check_topic) == 0)
		return 0;
	message.tenant_id = subject->due->tenant_id;
	message.message_id = fin_ident_next(0);
	message.topic = subject->check_topic;
	message.payload = check_payload(subject);
	return fin_queue_publish(&message);
}

/* error: why publishing failed before, so it is not tried; or NULL */
static FinHalfFate
check_locked(Subject *subject, TimestampTz clock, const char *error)
{
	const char *reason = reason_to_park(subject);
	int			copies;

	if (reason != NULL)
	{
		write_attempt(subject->due, clock, FIN_NEVER, subject->checks,
					  subject->misses, 0, reason, subject->error);
		return FIN_HALF_PARKED;
	}
	copies = error == NULL ? publish_check(subject) : 0;
	write_attempt(subject->due, clock, clock + wait_us(subject),
				  subject->checks + (copies > 0 ? 1 : 0),
				  subject->misses + (copies > 0 ? 0 : 1), copies, NULL, error);
	return FIN_HALF_CHECKED;
}

static FinHalfFate
check(const FinHalfDue *due, TimestampTz clock, const char *error)
{
	FinQueryScope scope;
	Subject		subject = {0};
	FinHalfFate fate = FIN_HALF_NOTHING;

	fin_query_begin(&scope);
	if (!lock_subject(due, &subject))
		fate = FIN_HALF_BUSY;
	else if (is_still_due(&subject))
		fate = check_locked(&subject, clock, error);
	fin_query_end(&scope);
	return fate;
}

/* ------------------------------------------------------------------------
 * deleting
 * ------------------------------------------------------------------------
 */

static int	deleted = 0;		/* rows, at most FIN_HALF_DEAD_MAX and a bit */
static TransactionId deleted_by = InvalidTransactionId; /* the last of them */

bool
fin_half_may_delete(void)
{
	if (deleted > 0 && !TransactionIdIsCurrentTransactionId(deleted_by))
	{
		Relation	table = table_open(fin_query_relation("half_message"),
									   AccessShareLock);
		TransactionId horizon = GetOldestNonRemovableTransactionId(table);

		table_close(table, AccessShareLock);
		if (TransactionIdPrecedes(deleted_by, horizon))
			deleted = 0;
	}
	return deleted < FIN_HALF_DEAD_MAX;
}

static void
count_deleted(uint64 rows)
{
	if (rows == 0)
		return;
	deleted += (int) rows;
	deleted_by = GetCurrentTransactionId();
}

/* answered half messages of one tenant, and their checks */
static void
delete_answered(int32 tenant_id, const int64 *half_ids, int n)
{
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum		values[2];
	FinQueryScope scope;

	fin_query_begin(&scope);
	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(half_ids[i]);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64),
												true, TYPALIGN_DOUBLE));
	n = (int) fin_query_run(&lock_answered, values, NULL, 0);
	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(fin_query_int64(i, 1));
	if (n > 0)
	{
		values[1] = PointerGetDatum(construct_array(ids, n, INT8OID,
													sizeof(int64), true,
													TYPALIGN_DOUBLE));
		count_deleted(fin_query_run(&delete_checks, values, NULL, 0));
		count_deleted(fin_query_run(&delete_halves, values, NULL, 0));
	}
	fin_query_end(&scope);
	pfree(ids);
}

static void
forget(TimestampTz clock)
{
	Datum		values[2];
	FinQueryScope scope;

	values[0] = TimestampTzGetDatum(clock -
									fin_half_retention_s * USECS_PER_SEC);
	values[1] = Int64GetDatum(FIN_FORGET_BATCH);
	fin_query_begin(&scope);
	count_deleted(fin_query_run(&delete_answers, values, NULL, 0));
	fin_query_end(&scope);
}

/* ------------------------------------------------------------------------
 * in subtransactions
 * ------------------------------------------------------------------------
 */

static FinMishaps mishaps;

typedef struct Work
{
	const FinHalfDue *due;		/* of one tenant; NULL: forget answers */
	int			n;
	TimestampTz clock;
	const char *error;			/* see check_locked() */
	FinHalfFate *fates;
} Work;

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
do_work(const Work *work)
{
	int64	   *answered;
	int			nanswered = 0;

	if (work->due == NULL)
	{
		forget(work->clock);
		return;
	}
	answered = palloc(sizeof(int64) * work->n);
	for (int i = 0; i < work->n; i++)
	{
		const FinHalfDue *due = &work->due[i];

		CHECK_FOR_INTERRUPTS();
		work->fates[i] = FIN_HALF_NOTHING;
		if (!due->answered && !due->superseded)
			work->fates[i] = check(due, work->clock, work->error);
		else if (due->answered && !fin_half_may_delete())
			work->fates[i] = FIN_HALF_KEPT;
		else if (due->answered)
			answered[nanswered++] = due->half_id;
	}
	if (nanswered > 0)
		delete_answered(work->due[0].tenant_id, answered, nanswered);
	pfree(answered);
}

/* what a trigger of the owner does, it does in the tenant, and as the owner */
static void
do_work_as_worker(const Work *work)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);
	int			nest = NewGUCNestLevel();
	Oid			user;
	int			sec_context;

	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(user, sec_context | SECURITY_RESTRICTED_OPERATION);
	if (work->due != NULL)
		set_for_now("finance.tenant", psprintf("%d", work->due[0].tenant_id));
	set_for_now("finance.actor", "finance worker");
	AfterTriggerSetState(immediate);
	do_work(work);
	SetUserIdAndSecContext(user, sec_context);
	AtEOXact_GUC(false, nest);
}

/* NULL, or why not */
static ErrorData *
attempt(const Work *work, bool as_worker)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (as_worker)
			do_work_as_worker(work);
		else
			do_work(work);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = fin_mishap_take(context, owner);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

const char *
fin_half_take_complaint(void)
{
	return fin_mishap_last(&mishaps);
}

/* one that failed with others; when it fails alone, that is a miss */
static void
treat_alone(const FinHalfDue *due, TimestampTz clock, bool as_worker,
			FinHalfFate *fate)
{
	Work		work = {.due = due,.n = 1,.clock = clock,.fates = fate};
	ErrorData  *error = attempt(&work, as_worker);

	if (error == NULL)
		return;
	fin_mishap_log(&mishaps,
				   psprintf("half message " INT64_FORMAT " of tenant %d could not be checked",
							due->half_id, due->tenant_id), error,
				   "It is tried again later.");
	work.error = error->message;
	/* what will pass is no reason to ask less often */
	if (due->answered || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		attempt(&work, as_worker) != NULL)
		*fate = FIN_HALF_FAILED;
}

static int
compare_due(const void *a, const void *b)
{
	const FinHalfDue *x = a;
	const FinHalfDue *y = b;

	if (x->tenant_id != y->tenant_id)
		return x->tenant_id < y->tenant_id ? -1 : 1;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->half_id < y->half_id ? -1 : x->half_id > y->half_id;
}

void
fin_half_treat(FinHalfDue *due, int n, TimestampTz clock, bool as_worker,
			   FinHalfFate *fates)
{
	int			end;

	qsort(due, n, sizeof(FinHalfDue), compare_due);
	for (int start = 0; start < n; start = end)
	{
		Work		work = {.due = &due[start],.clock = clock,
		.fates = &fates[start]};

		for (end = start + 1; end < n; end++)
		{
			if (due[end].tenant_id != due[start].tenant_id)
				break;
		}
		work.n = end - start;
		if (attempt(&work, as_worker) == NULL)
			continue;
		for (int i = start; i < end; i++)
			treat_alone(&due[i], clock, as_worker, &fates[i]);
	}
}

bool
fin_half_forget(TimestampTz clock)
{
	Work		work = {.clock = clock};
	int			before = deleted;
	ErrorData  *error = attempt(&work, true);

	if (error != NULL)
		fin_mishap_log(&mishaps,
					   "answers to half messages could not be deleted", error,
					   "It is tried again later.");
	return error == NULL && deleted - before >= FIN_FORGET_BATCH;
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

PG_FUNCTION_INFO_V1(finance_check_half_messages);

/*
 * finance.check_half_messages("limit" integer) returns bigint
 *
 * What the worker does by itself, for the tenant's half messages that are due
 * now, at most limit (1 to 10000) of them: publishes a message on the group's
 * check topic, or parks what has had all its checks.  Skips those that are
 * just being answered.  Returns how many were checked or parked.
 * The message: {"half_id", "producer_group", "topic", "check", "prepared_at",
 * "headers", "payload"}.
 * Errors: 22004, 22023.
 * Locks: the half messages' rows; the tables of the queues asked.
 */
Datum
finance_check_half_messages(PG_FUNCTION_ARGS)
{
	int			limit = fin_queue_arg_int(fcinfo, 0, "limit", 1,
										  FIN_CHECK_LIMIT_MAX);
	int32		tenant_id = fin_context()->tenant_id;
	TimestampTz clock = fin_ident_now();
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext batch = AllocSetContextCreate(outer, "finance half messages",
												ALLOCSET_DEFAULT_SIZES);
	FinHalfDue	last = {.at = DT_NOBEGIN};
	int			treated = 0;
	int			wanted;
	int			n;

	do
	{
		FinHalfDue *due;
		FinHalfFate *fates;
		FinQueryScope scope;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(batch);
		wanted = Min(limit - treated, FIN_HALF_BATCH);
		due = palloc(sizeof(FinHalfDue) * wanted);
		fates = palloc0(sizeof(FinHalfFate) * wanted);
		fin_query_begin(&scope);
		n = fin_half_take_due(tenant_id, clock, &last, wanted, due);
		fin_query_end(&scope);
		if (n > 0)
			last = due[n - 1];
		fin_half_treat(due, n, clock, false, fates);
		for (int i = 0; i < n; i++)
			treated += fates[i] == FIN_HALF_CHECKED ||
				fates[i] == FIN_HALF_PARKED;
		MemoryContextSwitchTo(outer);
		MemoryContextReset(batch);
	} while (n == wanted && treated < limit);
	MemoryContextDelete(batch);
	PG_RETURN_INT64(treated);
}

PG_FUNCTION_INFO_V1(finance_recheck_half_message);

/*
 * finance.recheck_half_message(half_id bigint) returns boolean
 *
 * Lets the worker check a half message back at once, whether it is open or
 * parked, and counts its checks from zero again.  False when it is answered.
 * Errors: LG307 there is none, 22004.
 * Locks: its row.
 */
Datum
finance_recheck_half_message(PG_FUNCTION_ARGS)
{
	TimestampTz now = fin_ident_now();
	FinHalfDue	due = {0};
	Datum		values[2];
	FinQueryScope scope;
	bool		is_open;

	fin_queue_refuse_null(fcinfo, 0, "half_id");
	due.half_id = PG_GETARG_INT64(0);
	due.tenant_id = fin_context()->tenant_id;
	values[0] = Int32GetDatum(due.tenant_id);
	values[1] = Int64GetDatum(due.half_id);

	fin_query_begin(&scope);
	is_open = fin_query_run(&lock_one, values, NULL, 1) > 0;
	(void) fin_query_run(&find_state, values, NULL, 0);
	due.attempt = int_column(2);
	if (bool_column(0, 1))
		is_open = false;
	else if (!is_open)
		ereport(ERROR,
				errcode(ERRCODE_FIN_HALF_NOT_OPEN),
				errmsg("half message " INT64_FORMAT " does not exist",
					   due.half_id),
				errdetail("Tenant %d has prepared none with this id, or it was answered longer ago than finance.half_retention.",
						  due.tenant_id));
	if (is_open)
	{
		write_attempt(&due, now, now, 0, 0, 0, NULL, NULL);
		fin_wake_note_half(now);
	}
	fin_query_end(&scope);
	PG_RETURN_BOOL(is_open);
}
