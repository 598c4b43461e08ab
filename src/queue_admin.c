/*
 * queue_admin.c
 *		Making, changing, dropping and listing queues.
 *
 * Owns nothing.  A queue is a row of finance.queue and its segments,
 * finance.message_<queue_id>_<segment>: partitions that are no members of the
 * extension, so that pg_dump writes them like ordinary tables.
 *
 * Locks: making a queue holds SHARE UPDATE EXCLUSIVE on the parent until
 * the end of the transaction, which no sender or reader notices.  Dropping
 * one takes the queue's row, then ACCESS EXCLUSIVE on the parent and its
 * tables: it waits for open transactions that used the queue.  Other queues
 * are used through their own tables; only a session's first use of one needs
 * the parent.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "dedup.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "wake.h"

static FinQuery insert_queue =
{
	.sql = "INSERT INTO finance.queue (tenant_id, name, unlogged)"
	" VALUES ($1, $2, $3)"
	" ON CONFLICT (tenant_id, name) DO NOTHING RETURNING queue_id",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, BOOLOID},
	.expect = SPI_OK_INSERT_RETURNING,
	.fires_triggers = true,
};

/* a null leaves a setting as it is, 0 takes a limit away */
static FinQuery change_queue =
{
	.sql = "UPDATE finance.queue SET"
	" max_deliveries = CASE WHEN $3 IS NULL THEN max_deliveries ELSE NULLIF($3, 0) END,"
	" dead_letter_queue_id = CASE WHEN $4 IS NULL THEN dead_letter_queue_id ELSE NULLIF($4, 0) END,"
	" message_ttl_s = CASE WHEN $5 IS NULL THEN message_ttl_s ELSE NULLIF($5, 0) END,"
	" expired = COALESCE($6, expired),"
	" backoff_ms = COALESCE($7, backoff_ms),"
	" backoff_max_ms = GREATEST(COALESCE($8, backoff_max_ms), COALESCE($7, backoff_ms)),"
	" max_length = CASE WHEN $9 IS NULL THEN max_length ELSE NULLIF($9, 0) END,"
	" rate_limit = CASE WHEN $10 IS NULL THEN rate_limit ELSE NULLIF($10, 0) END,"
	" max_in_flight = CASE WHEN $11 IS NULL THEN max_in_flight ELSE NULLIF($11, 0) END,"
	" dedup_window_s = COALESCE($12, dedup_window_s)"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 12,
	.argtypes = {INT4OID, INT8OID, INT4OID, INT8OID, INT4OID, TEXTOID, INT4OID,
	INT4OID, INT8OID, INT4OID, INT4OID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery pause_queue =
{
	.sql = "UPDATE finance.queue SET paused = $3"
	" WHERE tenant_id = $1 AND name = $2 AND paused <> $3",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, BOOLOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery forget_dead_letter_queue =
{
	.sql = "UPDATE finance.queue SET dead_letter_queue_id = NULL"
	" WHERE tenant_id = $1 AND dead_letter_queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery lock_queue =
{
	.sql = "SELECT queue_id FROM finance.queue"
	" WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery delete_bindings =
{
	.sql = "DELETE FROM finance.binding WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery delete_subscriptions =
{
	.sql = "DELETE FROM finance.subscription"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery clear_defaults =
{
	.sql = "UPDATE finance.queue_default SET"
	" dead_letter_queue_id = NULLIF(dead_letter_queue_id, $2),"
	" alternate_queue_id = NULLIF(alternate_queue_id, $2)"
	" WHERE tenant_id = $1"
	" AND $2 IN (dead_letter_queue_id, alternate_queue_id)",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery delete_queue =
{
	.sql = "DELETE FROM finance.queue WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery list_queues =
{
	.sql = "SELECT name, queue_id, created_at, kind, unlogged, paused"
	" FROM finance.queue"
	" WHERE tenant_id = $1 ORDER BY name COLLATE pg_catalog.\"C\"",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * create and drop
 * ------------------------------------------------------------------------
 */

void
fin_queue_check_name(const char *what, const char *name)
{
	size_t		length = strlen(name);
	size_t		good = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
							  "abcdefghijklmnopqrstuvwxyz0123456789_.-");

	if (length == 0 || length > FIN_QUEUE_NAME_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("%s name is %zu bytes long", what, length),
				errdetail("A %s name has 1 to %d bytes.", what,
						  FIN_QUEUE_NAME_MAX));
	if (good < length)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("malformed %s name \"%s\"", what, name),
				errdetail("The character at byte %zu is not allowed.",
						  good + 1),
				errhint("A %s name is made of letters, digits, \"_\", \".\" and \"-\".",
						what));
}

/* 0 when the name is taken */
static int64
create(int32 tenant_id, const char *name, bool unlogged)
{
	Datum		values[3] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name), BoolGetDatum(unlogged)};
	int64		queue_id;

	fin_queue_check_name("queue", name);
	if (fin_query_run(&insert_queue, values, NULL, 0) == 0)
		return 0;
	queue_id = fin_query_int64(0, 1);
	/* ids begin anew with the extension: another queue may have had this one */
	fin_backlog_drop(queue_id);
	fin_segment_make(queue_id, unlogged);
	return queue_id;
}

void
fin_queue_ensure(int32 tenant_id, const char *name)
{
	/* looking first spares the common case a sequence number */
	if (fin_queue_lock_row(tenant_id, name) == 0)
		(void) create(tenant_id, name, false);
}

/* ------------------------------------------------------------------------
 * settings
 * ------------------------------------------------------------------------
 */

#define SETTINGS	10

typedef struct Settings
{
	Datum		values[2 + SETTINGS];	/* arguments of change_queue */
	char		nulls[2 + SETTINGS];
	char	   *dead_letter_queue;	/* name, "" for none; NULL: unchanged */
	bool		any;
} Settings;

/* an optional number; 0 is allowed where it takes a limit away */
static void
set_number(Settings *settings, int which, FunctionCallInfo fcinfo, int arg,
		   const char *name, int min, int max)
{
	settings->nulls[which] = 'n';
	if (PG_ARGISNULL(arg))
		return;
	settings->values[which] = Int32GetDatum(fin_queue_arg_int(fcinfo, arg,
															  name, min, max));
	settings->nulls[which] = ' ';
	settings->any = true;
}

static void
set_max_length(Settings *settings, int which, FunctionCallInfo fcinfo, int arg)
{
	settings->nulls[which] = 'n';
	if (PG_ARGISNULL(arg))
		return;
	if (PG_GETARG_INT64(arg) < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("max_length " INT64_FORMAT " is out of range",
					   PG_GETARG_INT64(arg)),
				errdetail("It must be positive, or 0 for no limit."));
	settings->values[which] = PG_GETARG_DATUM(arg);
	settings->nulls[which] = ' ';
	settings->any = true;
}

static void
set_expired(Settings *settings, int which, FunctionCallInfo fcinfo, int arg)
{
	char	   *expired;

	settings->nulls[which] = 'n';
	if (PG_ARGISNULL(arg))
		return;
	expired = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (strcmp(expired, "dead_letter") != 0 && strcmp(expired, "discard") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("unknown value \"%s\" of expired", expired),
				errdetail("It is \"dead_letter\" or \"discard\"."));
	settings->values[which] = CStringGetTextDatum(expired);
	settings->nulls[which] = ' ';
	settings->any = true;
}

/* the arguments of create_queue() and alter_queue() from 'arg' on */
static void
unpack_settings(FunctionCallInfo fcinfo, int arg, Settings *settings)
{
	memset(settings, 0, sizeof(*settings));
	memset(settings->nulls, ' ', sizeof(settings->nulls));
	set_number(settings, 2, fcinfo, arg, "max_deliveries", 0, 1000000);
	settings->nulls[3] = 'n';
	if (!PG_ARGISNULL(arg + 1))
	{
		settings->dead_letter_queue = text_to_cstring(PG_GETARG_TEXT_PP(arg + 1));
		settings->any = true;
	}
	set_number(settings, 4, fcinfo, arg + 2, "message_ttl", 0,
			   FIN_QUEUE_TTL_MAX);
	set_expired(settings, 5, fcinfo, arg + 3);
	set_number(settings, 6, fcinfo, arg + 4, "backoff_ms", 0,
			   FIN_QUEUE_BACKOFF_MAX);
	set_number(settings, 7, fcinfo, arg + 5, "backoff_max_ms", 0,
			   FIN_QUEUE_BACKOFF_MAX);
	set_max_length(settings, 8, fcinfo, arg + 6);
	set_number(settings, 9, fcinfo, arg + 7, "rate_limit", 0, PG_INT32_MAX);
	set_number(settings, 10, fcinfo, arg + 8, "max_in_flight", 0,
			   PG_INT32_MAX);
	set_number(settings, 11, fcinfo, arg + 9, "dedup_window", 1,
			   FIN_DEDUP_WINDOW_MAX_S);
}

/* limits are counted in shared memory */
static void
require_counters(const Settings *settings)
{
	for (int which = 8; which <= 10; which++)
	{
		if (settings->nulls[which] == ' ')
			fin_wake_require(ERROR);
	}
}

static void
change(int32 tenant_id, int64 queue_id, Settings *settings)
{
	if (!settings->any)
		return;
	require_counters(settings);
	if (settings->dead_letter_queue != NULL)
	{
		const char *name = settings->dead_letter_queue;
		int64		dead_letter_id = name[0] == '\0' ? 0 :
			fin_queue_lock_known_row(tenant_id, name);

		if (dead_letter_id == queue_id)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("queue \"%s\" cannot be its own dead-letter queue",
						   name));
		settings->values[3] = Int64GetDatum(dead_letter_id);
		settings->nulls[3] = ' ';
	}
	settings->values[0] = Int32GetDatum(tenant_id);
	settings->values[1] = Int64GetDatum(queue_id);
	(void) fin_query_run(&change_queue, settings->values, settings->nulls, 0);
}

PG_FUNCTION_INFO_V1(finance_create_queue);

/*
 * finance.create_queue(queue_name text, unlogged boolean, max_deliveries int,
 *		dead_letter_queue text, message_ttl int, expired text,
 *		backoff_ms int, backoff_max_ms int, max_length bigint, rate_limit int,
 *		max_in_flight int, dedup_window int) returns void
 *
 * Makes an empty queue.  queue_name: 1 to 47 letters, digits, "_", "." and "-".
 * unlogged: faster, and empty after a crash of the server.  Every setting may
 * be null, and 0 is no limit:
 * max_deliveries: a message read so often (1 to 1,000,000) is a dead letter.
 * dead_letter_queue: where it goes; default: see set_default_queues().
 * message_ttl: seconds a message lives that has no ttl of its own.
 * expired: what becomes of one that is over, "dead_letter" (default) or
 * "discard".  backoff_ms, backoff_max_ms: see nack(); 1 second and 1 hour.
 * max_length: most messages in it.  rate_limit: most handed out per second.
 * max_in_flight: most being worked on at a time.  dedup_window: seconds (1 to
 * 21,600, default 300) within which a dedup_id is sent once.
 * Errors: 42710 the name is taken, 42602 bad name, 22004 null, 22023 out of
 * range, LG301 unknown dead-letter queue, 55000 limits without
 * shared_preload_libraries.
 * Locks: SHARE UPDATE EXCLUSIVE on the parent; waits for others that make a
 * queue.
 */
Datum
finance_create_queue(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	bool		unlogged = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Settings	settings;
	FinQueryScope scope;
	int64		queue_id;

	unpack_settings(fcinfo, 2, &settings);
	fin_query_begin(&scope);
	queue_id = create(tenant_id, name, unlogged);
	if (queue_id == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("queue \"%s\" already exists", name));
	change(tenant_id, queue_id, &settings);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_alter_queue);

/*
 * finance.alter_queue(queue_name text, max_deliveries int, ...) returns void
 *
 * Changes settings of a queue; the arguments are those of create_queue(), and
 * what is null stays as it is.  0 takes a limit away, '' the dead-letter queue.
 * It counts for what begins after the commit.
 * Errors: LG301 unknown queue, and those of create_queue().
 * Locks: the queue's row, until the end of the transaction.
 */
Datum
finance_alter_queue(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	Settings	settings;
	FinQueryScope scope;

	unpack_settings(fcinfo, 1, &settings);
	fin_query_begin(&scope);
	change(tenant_id, fin_queue_lock_known_row(tenant_id, name), &settings);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

/* false when it is so already */
static bool
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	Datum		values[3] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name), BoolGetDatum(paused)};
	int64		queue_id;
	bool		changed;

	fin_query_begin(&scope);
	queue_id = fin_queue_lock_known_row(tenant_id, name);
	changed = fin_query_run(&pause_queue, values, NULL, 0) > 0;
	/* what waits is news to subscribers */
	if (changed && !paused)
		fin_wake_note_due(queue_id, DT_NOBEGIN);
	fin_query_end(&scope);
	return changed;
}

PG_FUNCTION_INFO_V1(finance_pause_queue);

/*
 * finance.pause_queue(queue_name text) returns boolean
 *
 * From its commit on read() and pop() return nothing; sending goes on, and so
 * does what readers already have.  False when it is paused already.
 * Errors: LG301 unknown queue, 22004 null.
 */
Datum
finance_pause_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(set_paused(fcinfo, true));
}

PG_FUNCTION_INFO_V1(finance_resume_queue);

/*
 * finance.resume_queue(queue_name text) returns boolean
 *
 * Ends a pause; subscribers are told what waits.  False when there is none.
 * Errors: LG301 unknown queue, 22004 null.
 */
Datum
finance_resume_queue(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(set_paused(fcinfo, false));
}

PG_FUNCTION_INFO_V1(finance_drop_queue);

/*
 * finance.drop_queue(queue_name text) returns boolean
 *
 * Drops a queue with its messages, its bindings and its subscriptions; where
 * it was a dead-letter or default queue there is none any more.  What was
 * archived stays: purge_archive() first, if it is to go.  False when there is
 * none of this name.
 * Errors: 22004 null, 2BP01 when other objects depend on its tables.
 * Locks: ACCESS EXCLUSIVE on its tables and finance.message (of a log,
 * finance.message_log); waits for open transactions that used the queue.
 * Commit soon.
 */
Datum
finance_drop_queue(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	Datum		values[2];
	bool		exists;

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(name);
	exists = fin_query_run(&lock_queue, values, NULL, 1) > 0;
	if (exists)
	{
		int64		queue_id = fin_query_int64(0, 1);
		bool		is_log = fin_queue_find(tenant_id, name)->is_log;

		values[1] = Int64GetDatum(queue_id);
		(void) fin_query_run(&delete_bindings, values, NULL, 0);
		(void) fin_query_run(&delete_subscriptions, values, NULL, 0);
		(void) fin_query_run(&clear_defaults, values, NULL, 0);
		(void) fin_query_run(&delete_queue, values, NULL, 0);
		(void) fin_query_run(&forget_dead_letter_queue, values, NULL, 0);
		if (is_log)
			fin_queue_log_drop(tenant_id, queue_id);
		else
			fin_segment_drop(queue_id);
	}
	fin_query_end(&scope);
	PG_RETURN_BOOL(exists);
}

/* ------------------------------------------------------------------------
 * lists
 * ------------------------------------------------------------------------
 */

PG_FUNCTION_INFO_V1(finance_list_queues);

/*
 * finance.list_queues() returns setof (queue_name, queue_id, created_at, kind,
 *		unlogged, paused)
 *
 * The queues of the session's tenant.
 */
Datum
finance_list_queues(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {Int32GetDatum(fin_context()->tenant_id)};
	FinQueryScope scope;

	fin_query_begin(&scope);
	fin_queue_return_rows(fcinfo,
						  fin_query_run(&list_queues, values, NULL, 0));
	fin_query_end(&scope);
	return (Datum) 0;
}
