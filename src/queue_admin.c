/*
 * queue_admin.c
 *		Making, dropping and looking at queues.
 *
 * Owns nothing.  A queue is a row of finance.queue and two tables,
 * finance.message_<queue_id> and finance.message_archive_<queue_id>,
 * partitions that are no members of the extension: pg_dump writes them like
 * ordinary tables, and they go with their parents.
 *
 * Locks: making a queue holds SHARE UPDATE EXCLUSIVE on the two parents until
 * the end of the transaction, which no sender or reader notices.  Dropping
 * one takes the queue's row, then ACCESS EXCLUSIVE on the parents and its
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
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"

/* every claim writes a second version of the row: leave it room on the page */
#define MESSAGE_STORAGE \
	" WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02)"

static FinQuery insert_queue =
{
	.sql = "INSERT INTO finance.queue (tenant_id, name) VALUES ($1, $2)"
	" ON CONFLICT (tenant_id, name) DO NOTHING RETURNING queue_id",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_INSERT_RETURNING,
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
};

static FinQuery delete_subscriptions =
{
	.sql = "DELETE FROM finance.subscription"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

static FinQuery delete_queue =
{
	.sql = "DELETE FROM finance.queue WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

static FinQuery list_queues =
{
	.sql = "SELECT name, queue_id, created_at FROM finance.queue"
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

static void
make_table(const char *parent, int64 queue_id, const char *storage)
{
	char	   *name = psprintf("finance.%s_" INT64_FORMAT, parent, queue_id);

	fin_query_utility(psprintf("CREATE TABLE %s (LIKE finance.%s"
							   " INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
							   " INCLUDING STORAGE, PRIMARY KEY (msg_id))%s",
							   name, parent, storage));
	fin_query_utility(psprintf("ALTER TABLE finance.%s ATTACH PARTITION %s"
							   " FOR VALUES IN (" INT64_FORMAT ")",
							   parent, name, queue_id));

	/* without a policy of its own: rows are seen through the parent only */
	fin_query_utility(psprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY",
							   name));
}

static bool
create(int32 tenant_id, const char *name)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name)};
	int64		queue_id;

	fin_queue_check_name("queue", name);
	if (fin_query_run(&insert_queue, values, NULL, 0) == 0)
		return false;
	queue_id = fin_query_int64(0, 1);
	make_table("message", queue_id, MESSAGE_STORAGE);
	make_table("message_archive", queue_id, "");
	return true;
}

void
fin_queue_ensure(int32 tenant_id, const char *name)
{
	/* looking first spares the common case a sequence number */
	if (fin_queue_lock_row(tenant_id, name) == 0)
		(void) create(tenant_id, name);
}

PG_FUNCTION_INFO_V1(finance_create_queue);

/*
 * finance.create_queue(queue_name text) returns void
 *
 * Makes an empty queue.  queue_name: 1 to 47 letters, digits, "_", "." and "-".
 * Errors: 42710 the name is taken, 42602 bad name, 22004 null.
 * Locks: SHARE UPDATE EXCLUSIVE on the parents; waits for others that make a
 * queue.
 */
Datum
finance_create_queue(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;

	fin_query_begin(&scope);
	if (!create(tenant_id, name))
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("queue \"%s\" already exists", name));
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_drop_queue);

/*
 * finance.drop_queue(queue_name text) returns boolean
 *
 * Drops a queue with its messages, its archive, its bindings and its
 * subscriptions.  False when there is none of this name.
 * Errors: 22004 null, 2BP01 when other objects depend on its tables.
 * Locks: ACCESS EXCLUSIVE on its tables and their parents; waits for open
 * transactions that used the queue.  Commit soon.
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

		values[1] = Int64GetDatum(queue_id);
		(void) fin_query_run(&delete_bindings, values, NULL, 0);
		(void) fin_query_run(&delete_subscriptions, values, NULL, 0);
		(void) fin_query_run(&delete_queue, values, NULL, 0);
		if (fin_queue_log_is(queue_id))
			fin_queue_log_drop(tenant_id, queue_id);
		else
			fin_query_utility(psprintf("DROP TABLE finance.message_" INT64_FORMAT
									   ", finance.message_archive_" INT64_FORMAT,
									   queue_id, queue_id));
	}
	fin_query_end(&scope);
	PG_RETURN_BOOL(exists);
}

/* ------------------------------------------------------------------------
 * lists and metrics
 * ------------------------------------------------------------------------
 */

PG_FUNCTION_INFO_V1(finance_list_queues);

/*
 * finance.list_queues() returns setof (queue_name, queue_id, created_at)
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

/* the metrics of a queue that is held; result in SPI_tuptable */
static uint64
measure(int32 tenant_id, int64 queue_id, const char *name)
{
	Datum		values[2] = {TimestampTzGetDatum(fin_ident_now()),
	CStringGetTextDatum(name)};

	if (fin_queue_log_is(queue_id))
		return fin_queue_log_measure(queue_id, name, fin_ident_now());
	return fin_queue_run(FIN_QUEUE_METRICS, tenant_id, queue_id, values, NULL);
}

PG_FUNCTION_INFO_V1(finance_metrics);

/*
 * finance.metrics(queue_name text) returns setof (queue_name, queue_length,
 *		newest_msg_age_sec, oldest_msg_age_sec, scrape_time,
 *		queue_visible_length)
 *
 * How full a queue is.  Counts rows: its cost grows with the queue.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: the queue's table (ACCESS SHARE).
 */
Datum
finance_metrics(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;
	int64		queue_id;

	fin_query_begin(&scope);
	queue_id = fin_queue_find(tenant_id, name, AccessShareLock);
	fin_queue_return_rows(fcinfo, measure(tenant_id, queue_id, name));
	fin_query_end(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_metrics_all);

/*
 * finance.metrics_all() returns setof (as metrics())
 *
 * metrics() of each queue of the session's tenant.
 */
Datum
finance_metrics_all(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	FinQueryScope scope;
	uint64		n;
	char	  **names;
	int64	   *queue_ids;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	n = fin_query_run(&list_queues, values, NULL, 0);
	names = palloc(n * sizeof(char *));
	queue_ids = palloc(n * sizeof(int64));
	for (uint64 i = 0; i < n; i++)
	{
		names[i] = fin_query_text(i, 1);
		queue_ids[i] = fin_query_int64(i, 2);
	}
	for (uint64 i = 0; i < n; i++)
	{
		/* one dropped meanwhile is not there to be measured */
		if (fin_queue_hold(queue_ids[i], AccessShareLock))
			fin_queue_add_rows(fcinfo,
							   measure(tenant_id, queue_ids[i], names[i]));
	}
	fin_query_end(&scope);
	return (Datum) 0;
}
