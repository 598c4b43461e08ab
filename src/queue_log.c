/*
 * queue_log.c
 *		Log queues: their tables, and appending to them.
 *
 * The messages of a log lie in finance.message_log_<queue_id>, its gate, which
 * is partitioned into FIN_LOG_SEGMENTS segments by time.  A message is only ever
 * inserted; whole segments are truncated when their time is over.
 *
 * Owns: a hash of at most FIN_LOGS_MAX queues, logs or not, forgotten when it is
 * full and whenever finance.log_queue changes.  It lives as long as the backend.
 *
 * Locks: appending takes ROW EXCLUSIVE on the gate and then on one segment, to
 * the end of the transaction.  Nobody who appends or reads waits for that.  The
 * lock on the gate is what readers see of a transaction that may have appended
 * (queue_log_horizon.c), so it comes before the mark is drawn.  Making a log
 * takes SHARE UPDATE EXCLUSIVE on finance.message_log, dropping one ACCESS
 * EXCLUSIVE there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "cache.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "queue.h"
#include "queue_log.h"
#include "queue_parts.h"
#include "store_direct.h"
#include "wake.h"

#define FIN_LOGS_MAX 4096

typedef struct LogEntry
{
	int64		queue_id;		/* key */
	bool		is_log;
	FinLog		log;
} LogEntry;

static FinCache log_cache = {.table = "log_queue"};
static HTAB *logs = NULL;

static FinQuery find_log =
{
	.sql = "SELECT tenant_id, retention_s FROM finance.log_queue"
	" WHERE queue_id = $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery insert_queue =
{
	.sql = "INSERT INTO finance.queue (tenant_id, name, kind)"
	" VALUES ($1, $2, 'log')"
	" ON CONFLICT (tenant_id, name) DO NOTHING RETURNING queue_id",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_INSERT_RETURNING,
};

static FinQuery insert_log =
{
	.sql = "INSERT INTO finance.log_queue (tenant_id, queue_id, retention_s)"
	" VALUES ($1, $2, $3)",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_INSERT,
};

static FinQuery delete_log =
{
	.sql = "DELETE FROM finance.log_queue"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

/* ------------------------------------------------------------------------
 * which queues are logs
 * ------------------------------------------------------------------------
 */

static void
forget_logs(void)
{
	HASHCTL		control = {
		.keysize = sizeof(int64),
		.entrysize = sizeof(LogEntry),
		.hcxt = TopMemoryContext
	};

	if (logs != NULL)
		hash_destroy(logs);
	logs = NULL;
	logs = hash_create("finance log queues", 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* false when one of its tables is gone already */
static bool
find_tables(FinLog *log)
{
	log->gate = fin_query_relation(psprintf("message_log_" INT64_FORMAT,
											log->queue_id));
	if (!OidIsValid(log->gate))
		return false;
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
	{
		log->segments[i] = fin_query_relation(psprintf("message_log_" INT64_FORMAT
													   "_%d", log->queue_id, i));
		if (!OidIsValid(log->segments[i]))
			return false;
	}
	return true;
}

static LogEntry *
load_entry(int64 queue_id)
{
	Datum		values[1] = {Int64GetDatum(queue_id)};
	FinLog		log = {.queue_id = queue_id};
	bool		is_log;
	bool		isnull;
	LogEntry   *entry;

	if (!fin_cache_loading(&log_cache) || logs == NULL ||
		hash_get_num_entries(logs) >= FIN_LOGS_MAX)
		forget_logs();
	is_log = fin_query_run(&find_log, values, NULL, 1) > 0;
	if (is_log)
	{
		log.tenant_id = DatumGetInt32(fin_query_datum(0, 1, &isnull));
		log.retention_us = fin_query_int64(0, 2) * USECS_PER_SEC;
		is_log = find_tables(&log);
	}
	entry = hash_search(logs, &queue_id, HASH_ENTER, NULL);
	entry->is_log = is_log;
	entry->log = log;
	return entry;
}

static LogEntry *
entry_of(int64 queue_id)
{
	LogEntry   *entry = NULL;

	if (fin_cache_valid(&log_cache) && logs != NULL)
		entry = hash_search(logs, &queue_id, HASH_FIND, NULL);
	return entry != NULL ? entry : load_entry(queue_id);
}

bool
fin_queue_log_is(int64 queue_id)
{
	return entry_of(queue_id)->is_log;
}

bool
fin_queue_log_hold(int64 queue_id, LOCKMODE mode, FinLog *log)
{
	LogEntry   *entry = entry_of(queue_id);

	if (!entry->is_log)
		return false;
	*log = entry->log;
	LockRelationOid(log->gate, mode);
	/* queue ids are not used again: a table that is gone stays so */
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(log->gate)))
		return true;
	UnlockRelationOid(log->gate, mode);
	return false;
}

void
fin_queue_log_raise_kind(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_QUEUE_KIND),
			errmsg("queue \"%s\" is a log", name),
			errdetail("Messages of a log are not taken out of it; they go when its retention is over."),
			errhint("Read it with finance.read_group()."));
}

void
fin_queue_log_find(int32 tenant_id, const char *name, FinLog *log)
{
	int64		queue_id = fin_queue_find(tenant_id, name)->queue_id;

	if (!fin_queue_log_hold(queue_id, AccessShareLock, log))
		ereport(ERROR,
				errcode(ERRCODE_FIN_QUEUE_KIND),
				errmsg("queue \"%s\" is not a log", name),
				errdetail("Only logs have consumer groups."),
				errhint("Make one with finance.create_log_queue()."));
}

/* ------------------------------------------------------------------------
 * appending
 * ------------------------------------------------------------------------
 */

static const Oid log_types[] = {
	INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, INT2OID,
	INT2OID, TEXTOID, TEXTOID, JSONBOID, JSONBOID
};

StaticAssertDecl(lengthof(log_types) == FIN_LOG_COLUMNS,
				 "each column of finance.message_log has a type");

/* where somebody attached triggers, or direct writes are off */
static FinQuery insert_message =
{
	.sql = "INSERT INTO finance.message_log (mark, msg_id, message_id, queue_id,"
	" enqueued_at, tenant_id, segment, priority, topic, ordering_key, headers,"
	" payload) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
	.nargs = FIN_LOG_COLUMNS,
	.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID,
	INT2OID, INT2OID, TEXTOID, TEXTOID, JSONBOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "message_log",
};

static int64
slice_us(const FinLog *log)
{
	return Max(log->retention_us / FIN_LOG_SLICES_KEPT, USECS_PER_SEC);
}

int
fin_queue_log_segment(const FinLog *log, TimestampTz when)
{
	return (int) (Max(when, 0) / slice_us(log) % FIN_LOG_SEGMENTS);
}

TimestampTz
fin_queue_log_slice_end(const FinLog *log, TimestampTz when)
{
	return (Max(when, 0) / slice_us(log) + 1) * slice_us(log);
}

/* what is the same in all rows of a call */
typedef struct LogAppend
{
	FinDirect  *direct;			/* NULL: by a statement */
	int64		mark;
	TimestampTz now;
	int			segment;
} LogAppend;

static void
append_row(const FinLog *log, const LogAppend *append, const FinMessage *message,
		   int64 msg_id)
{
	Datum		values[FIN_LOG_COLUMNS];
	bool		nulls[FIN_LOG_COLUMNS] = {false};

	values[FIN_LOG_MARK - 1] = Int64GetDatum(append->mark);
	values[FIN_LOG_MSG_ID - 1] = Int64GetDatum(msg_id);
	values[FIN_LOG_MESSAGE_ID - 1] = Int64GetDatum(message->message_id);
	values[FIN_LOG_QUEUE_ID - 1] = Int64GetDatum(log->queue_id);
	values[FIN_LOG_ENQUEUED_AT - 1] = TimestampTzGetDatum(append->now);
	values[FIN_LOG_TENANT_ID - 1] = Int32GetDatum(log->tenant_id);
	values[FIN_LOG_SEGMENT - 1] = Int16GetDatum(append->segment);
	values[FIN_LOG_PRIORITY - 1] = Int16GetDatum(message->priority);
	nulls[FIN_LOG_TOPIC - 1] = message->topic == NULL;
	values[FIN_LOG_TOPIC - 1] = message->topic == NULL ? (Datum) 0 :
		CStringGetTextDatum(message->topic);
	nulls[FIN_LOG_ORDERING_KEY - 1] = message->ordering_key == NULL;
	values[FIN_LOG_ORDERING_KEY - 1] = message->ordering_key == NULL ?
		(Datum) 0 : CStringGetTextDatum(message->ordering_key);
	nulls[FIN_LOG_HEADERS - 1] = message->headers == NULL;
	values[FIN_LOG_HEADERS - 1] = JsonbPGetDatum(message->headers);
	values[FIN_LOG_PAYLOAD - 1] = JsonbPGetDatum(message->payload);

	if (append->direct != NULL)
		fin_direct_put(append->direct, values, nulls);
	else
	{
		char		flags[FIN_LOG_COLUMNS];

		for (int i = 0; i < FIN_LOG_COLUMNS; i++)
			flags[i] = nulls[i] ? 'n' : ' ';
		(void) fin_query_run(&insert_message, values, flags, 0);
	}
}

bool
fin_queue_log_append_many(int64 queue_id, const FinMessage *messages, int n,
						  int64 *msg_ids)
{
	FinLog		log;
	LogAppend	append;
	int64		drawn = 0;

	/* the order matters: the gate's lock, a transaction id, the mark, ids */
	if (!fin_queue_log_hold(queue_id, RowExclusiveLock, &log))
		return false;
	if (n == 0)
		return true;
	append.now = fin_ident_now();
	append.segment = fin_queue_log_segment(&log, append.now);
	append.direct = fin_direct_begin_insert(log.segments[append.segment],
											log_types, FIN_LOG_COLUMNS);
	(void) GetTopTransactionId();
	append.mark = fin_queue_log_mark();
	for (int i = 0; i < n; i++)
	{
		drawn = fin_ident_next(drawn);
		append_row(&log, &append, &messages[i], drawn);
		msg_ids[i] = drawn;
	}
	if (append.direct != NULL)
		fin_direct_end(append.direct);
	fin_wake_note(queue_id, drawn, n);
	return true;
}

int64
fin_queue_log_append(int64 queue_id, const FinMessage *message)
{
	int64		msg_id;

	return fin_queue_log_append_many(queue_id, message, 1, &msg_id) ? msg_id : 0;
}

/* ------------------------------------------------------------------------
 * making and dropping
 * ------------------------------------------------------------------------
 */

/*
 * The key is the order of reading alone: a gate is of one queue and so of one
 * tenant, and columns in front that never differ would cost each entry.
 */
static void
make_tables(int64 queue_id)
{
	char	   *gate = psprintf("finance.message_log_" INT64_FORMAT, queue_id);

	fin_query_utility(psprintf("CREATE TABLE %s (LIKE finance.message_log"
							   " INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
							   " INCLUDING STORAGE) PARTITION BY LIST (segment)",
							   gate));
	for (int i = 0; i < FIN_LOG_SEGMENTS; i++)
	{
		fin_query_utility(psprintf("CREATE TABLE %s_%d PARTITION OF %s"
								   " (PRIMARY KEY (mark, msg_id))"
								   " FOR VALUES IN (%d)", gate, i, gate, i));
		/* without a policy of its own: rows are seen through the parent only */
		fin_query_utility(psprintf("ALTER TABLE %s_%d ENABLE ROW LEVEL SECURITY",
								   gate, i));
	}
	fin_query_utility(psprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", gate));
	fin_query_utility(psprintf("ALTER TABLE finance.message_log ATTACH PARTITION %s"
							   " FOR VALUES IN (" INT64_FORMAT ")",
							   gate, queue_id));
}

/* an interval of days and hours, as seconds; months are of 30 days */
static int64
arg_retention(FunctionCallInfo fcinfo, int arg)
{
	Interval   *retention;
	double		seconds;

	fin_queue_refuse_null(fcinfo, arg, "retention");
	retention = PG_GETARG_INTERVAL_P(arg);
	seconds = ((double) retention->month * DAYS_PER_MONTH + retention->day) *
		SECS_PER_DAY + (double) retention->time / USECS_PER_SEC;
	if (seconds < FIN_LOG_RETENTION_MIN_S || seconds > FIN_LOG_RETENTION_MAX_S)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("retention is out of range"),
				errdetail("It must be between a minute and ten years."));
	return (int64) seconds;
}

PG_FUNCTION_INFO_V1(finance_create_log_queue);

/*
 * finance.create_log_queue(queue_name text, retention interval) returns void
 *
 * Makes an empty log.  Messages sent to it, or published under a topic bound to
 * it, stay for the retention (a minute to ten years) and up to a sixth of it
 * longer; consumer groups read them, each at its own pace.  Delay, priority and
 * time to live mean nothing in a log.
 * Errors: 42710 the name is taken, 42602 bad name, 22004 null, 22023 retention
 * out of range.
 * Locks: SHARE UPDATE EXCLUSIVE on finance.message_log; waits for others that
 * make a log.
 */
Datum
finance_create_log_queue(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	int64		retention_s = arg_retention(fcinfo, 1);
	FinQueryScope scope;
	Datum		values[3];
	int64		queue_id;

	fin_queue_check_name("queue", name);
	fin_query_begin(&scope);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(name);
	if (fin_query_run(&insert_queue, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("queue \"%s\" already exists", name));
	queue_id = fin_query_int64(0, 1);
	values[1] = Int64GetDatum(queue_id);
	values[2] = Int64GetDatum(retention_s);
	(void) fin_query_run(&insert_log, values, NULL, 0);
	make_tables(queue_id);
	/* the worker plans its retention */
	fin_wake_note_attention();
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

void
fin_queue_log_drop(int32 tenant_id, int64 queue_id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(queue_id)};

	fin_query_utility(psprintf("DROP TABLE finance.message_log_" INT64_FORMAT,
							   queue_id));
	fin_queue_log_drop_groups(tenant_id, queue_id);
	(void) fin_query_run(&delete_log, values, NULL, 0);
}

void
fin_queue_log_init(void)
{
	fin_cache_register(&log_cache);
	fin_queue_log_horizon_init();
}
