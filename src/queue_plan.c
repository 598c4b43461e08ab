/*
 * queue_plan.c
 *		The statements of one queue, and their kept plans.
 *
 * The messages of a queue lie in a table of their own, the partition
 * finance.message_<queue_id>, and every statement names that table: no
 * partition is routed to or pruned at run time.  The text of a statement is
 * made of constants here and two integers.
 *
 * Owns: a hash of plans by queue, of at most FIN_QUEUE_PLANS_MAX queues; when
 * it is full all of it goes.  Statements live in a memory context of their
 * own, plans in the server's plan cache.  A plan whose table is dropped stays
 * until then and is harmless: queue ids are not used again.
 *
 * Locks: fin_queue_hold() takes a table lock, always before the first
 * statement on the table.  That keeps DROP TABLE out, so that a statement
 * never meets a missing table.
 *
 * Reading is a walk along the primary key: msg_id carries the priority in its
 * highest bits, see fin_queue_msg_id().  The key is msg_id alone: columns in
 * front of it that are the same in every row would mislead the planner, which
 * without statistics takes them for selective and then filters by msg_id
 * instead of looking it up.  What a claim writes (visible_at,
 * read_ct) is in no index and the table is filled by half, so a claim is a HOT
 * update.  Rows are claimed by ctid, from an array that is computed once: a
 * join could run the locking subquery more than once.  A row that changed
 * between the snapshot and the lock may be locked and yet not be returned; it
 * stays where it is, for the next read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "query.h"
#include "queue.h"
#include "queue_parts.h"

#define FIN_QUEUE_PLANS_MAX	256

typedef struct QueuePlans
{
	int64		queue_id;		/* key */
	Oid			relid;			/* finance.message_<queue_id> */
	FinQuery   *queries[FIN_QUEUE_STATEMENTS];	/* NULL until used */
} QueuePlans;

typedef struct Template
{
	const char *sql;			/* @q: queue id, @t: tenant id */
	int			expect;
	int			nargs;
	Oid			argtypes[8];
} Template;

/* the columns of finance.message_record */
#define MESSAGE_RECORD \
	"m.msg_id, m.read_ct, m.enqueued_at, m.visible_at, m.payload, m.headers," \
	" m.topic, m.message_id, m.priority"

#define MESSAGE_COLUMNS \
	"(msg_id, message_id, queue_id, enqueued_at, visible_at, tenant_id," \
	" read_ct, priority, topic, headers, payload)"

/* $1 now, last argument the number of rows: lock what is due, in order */
#define DUE(limit) \
	"m.ctid = ANY (ARRAY(" \
	"SELECT c.ctid FROM finance.message_@q AS c" \
	" WHERE c.visible_at <= $1" \
	" ORDER BY c.msg_id LIMIT " limit " FOR UPDATE SKIP LOCKED))"

static const Template templates[FIN_QUEUE_STATEMENTS] =
{
	[FIN_QUEUE_INSERT] = {
		"INSERT INTO finance.message_@q " MESSAGE_COLUMNS
		" VALUES ($1, $2, @q, $3, $4, @t, 0, $5, $6, $7, $8)",
		SPI_OK_INSERT, 8,
		{INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID, TEXTOID,
		JSONBOID, JSONBOID}
	},
	[FIN_QUEUE_INSERT_MANY] = {
		"INSERT INTO finance.message_@q " MESSAGE_COLUMNS
		" SELECT u.msg_id, u.message_id, @q, $3, $4, @t, 0, $5, NULL,"
		" u.headers, u.payload"
		" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
		" pg_catalog.unnest($6), pg_catalog.unnest($7))"
		" AS u (msg_id, message_id, headers, payload)",
		SPI_OK_INSERT, 7,
		{INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID,
		JSONBARRAYOID, JSONBARRAYOID}
	},
	[FIN_QUEUE_READ] = {
		"UPDATE finance.message_@q AS m"
		" SET visible_at = $2, read_ct = m.read_ct + 1"
		" WHERE " DUE("$3") " RETURNING " MESSAGE_RECORD,
		SPI_OK_UPDATE_RETURNING, 3, {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}
	},
	[FIN_QUEUE_POP] = {
		"DELETE FROM finance.message_@q AS m"
		" WHERE " DUE("$2") " RETURNING " MESSAGE_RECORD,
		SPI_OK_DELETE_RETURNING, 2, {TIMESTAMPTZOID, INT8OID}
	},
	[FIN_QUEUE_DELETE] = {
		"DELETE FROM finance.message_@q AS m"
		" WHERE m.msg_id = $1",
		SPI_OK_DELETE, 1, {INT8OID}
	},
	[FIN_QUEUE_DELETE_MANY] = {
		"DELETE FROM finance.message_@q AS m"
		" WHERE m.msg_id = ANY ($1) RETURNING m.msg_id",
		SPI_OK_DELETE_RETURNING, 1, {INT8ARRAYOID}
	},
	[FIN_QUEUE_ARCHIVE] = {
		"WITH gone AS (DELETE FROM finance.message_@q AS m"
		" WHERE m.msg_id = ANY ($1)"
		" RETURNING m.msg_id, m.message_id, m.enqueued_at, m.read_ct,"
		" m.priority, m.topic, m.headers, m.payload)"
		" INSERT INTO finance.message_archive_@q AS a"
		" (msg_id, message_id, queue_id, enqueued_at, archived_at, tenant_id,"
		" read_ct, priority, topic, headers, payload)"
		" SELECT gone.msg_id, gone.message_id, @q, gone.enqueued_at, $2, @t,"
		" gone.read_ct, gone.priority, gone.topic, gone.headers, gone.payload"
		" FROM gone RETURNING a.msg_id",
		SPI_OK_INSERT_RETURNING, 2, {INT8ARRAYOID, TIMESTAMPTZOID}
	},
	[FIN_QUEUE_SET_VT] = {
		"UPDATE finance.message_@q AS m SET visible_at = $2"
		" WHERE m.msg_id = $1 RETURNING " MESSAGE_RECORD,
		SPI_OK_UPDATE_RETURNING, 2, {INT8OID, TIMESTAMPTZOID}
	},
	[FIN_QUEUE_PURGE] = {
		"DELETE FROM finance.message_@q AS m",
		SPI_OK_DELETE, 0, {InvalidOid}
	},
	[FIN_QUEUE_METRICS] = {
		"SELECT $2, pg_catalog.count(*),"
		" EXTRACT(epoch FROM $1 - pg_catalog.max(m.enqueued_at))::pg_catalog.int4,"
		" EXTRACT(epoch FROM $1 - pg_catalog.min(m.enqueued_at))::pg_catalog.int4,"
		" $1, pg_catalog.count(*) FILTER (WHERE m.visible_at <= $1)"
		" FROM finance.message_@q AS m",
		SPI_OK_SELECT, 2, {TIMESTAMPTZOID, TEXTOID}
	},
	[FIN_QUEUE_WAITING] = {
		"SELECT pg_catalog.count(*) FILTER (WHERE w.visible_at <= $2 AND w.visible_at > $1),"
		" pg_catalog.max(w.msg_id) FILTER (WHERE w.visible_at <= $2 AND w.visible_at > $1),"
		" pg_catalog.min(w.visible_at) FILTER (WHERE w.visible_at > $2)"
		" FROM (SELECT m.msg_id, m.visible_at FROM finance.message_@q AS m"
		" WHERE m.tenant_id = @t AND m.queue_id = @q"
		" ORDER BY m.msg_id LIMIT 10000) AS w",
		SPI_OK_SELECT, 2, {TIMESTAMPTZOID, TIMESTAMPTZOID}
	},
};

static HTAB *plans = NULL;
static MemoryContext statements = NULL; /* texts and FinQuery structs */
static int	running = 0;		/* statements in execution, one inside another */

/* free every plan; not while one of them runs */
static void
forget_plans(void)
{
	HASH_SEQ_STATUS scan;
	QueuePlans *entry;

	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		for (int i = 0; i < FIN_QUEUE_STATEMENTS; i++)
		{
			if (entry->queries[i] != NULL && entry->queries[i]->plan != NULL)
				SPI_freeplan(entry->queries[i]->plan);
		}
		hash_search(plans, &entry->queue_id, HASH_REMOVE, NULL);
	}
	MemoryContextReset(statements);
}

static void
create_plans(void)
{
	HASHCTL		control = {
		.keysize = sizeof(int64),
		.entrysize = sizeof(QueuePlans),
		.hcxt = TopMemoryContext
	};

	statements = AllocSetContextCreate(TopMemoryContext,
									   "finance queue statements",
									   ALLOCSET_DEFAULT_SIZES);
	plans = hash_create("finance queue plans", FIN_QUEUE_PLANS_MAX, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static QueuePlans *
plans_of(int64 queue_id)
{
	QueuePlans *entry;
	bool		found;

	if (plans == NULL)
		create_plans();
	entry = hash_search(plans, &queue_id, HASH_FIND, NULL);
	if (entry != NULL)
		return entry;

	if (hash_get_num_entries(plans) >= FIN_QUEUE_PLANS_MAX && running == 0)
		forget_plans();
	entry = hash_search(plans, &queue_id, HASH_ENTER, &found);
	entry->relid = InvalidOid;
	memset(entry->queries, 0, sizeof(entry->queries));
	return entry;
}

/* in the current memory context */
static char *
fill_in(const char *template, int32 tenant_id, int64 queue_id)
{
	StringInfoData text;

	initStringInfo(&text);
	for (const char *c = template; *c != '\0'; c++)
	{
		if (*c != '@')
			appendStringInfoChar(&text, *c);
		else if (*++c == 'q')
			appendStringInfo(&text, INT64_FORMAT, queue_id);
		else
			appendStringInfo(&text, "%d", tenant_id);
	}
	return text.data;
}

static FinQuery *
make_query(FinQueueStatement which, int32 tenant_id, int64 queue_id)
{
	const Template *template = &templates[which];
	MemoryContext old = MemoryContextSwitchTo(statements);
	FinQuery   *query = palloc0(sizeof(FinQuery));

	query->sql = fill_in(template->sql, tenant_id, queue_id);
	query->expect = template->expect;
	query->nargs = template->nargs;
	memcpy(query->argtypes, template->argtypes,
		   template->nargs * sizeof(Oid));
	MemoryContextSwitchTo(old);
	return query;
}

bool
fin_queue_hold(int64 queue_id, LOCKMODE mode)
{
	QueuePlans *entry = plans_of(queue_id);

	/* a known table may be gone, and another of its name may have come */
	for (int attempt = 0; attempt < 2; attempt++)
	{
		if (OidIsValid(entry->relid))
		{
			LockRelationOid(entry->relid, mode);
			if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(entry->relid)))
				return true;
			UnlockRelationOid(entry->relid, mode);
		}
		entry->relid = fin_query_relation(psprintf("message_" INT64_FORMAT,
												   queue_id));
		if (!OidIsValid(entry->relid))
			entry->relid = fin_query_relation(psprintf("message_log_" INT64_FORMAT,
													   queue_id));
	}
	return false;
}

Oid
fin_queue_held_table(int64 queue_id)
{
	return plans_of(queue_id)->relid;
}

uint64
fin_queue_run(FinQueueStatement which, int32 tenant_id, int64 queue_id,
			  Datum *values, const char *nulls)
{
	QueuePlans *entry = plans_of(queue_id);
	uint64		nrows = 0;

	if (entry->queries[which] == NULL)
		entry->queries[which] = make_query(which, tenant_id, queue_id);

	running++;
	PG_TRY();
	{
		nrows = fin_query_run(entry->queries[which], values, nulls, 0);
	}
	PG_FINALLY();
	{
		running--;
	}
	PG_END_TRY();
	return nrows;
}

bool
fin_queue_waiting(int32 tenant_id, int64 queue_id,
				  TimestampTz since, TimestampTz now,
				  FinQueueWaiting *waiting)
{
	Datum		values[2] = {TimestampTzGetDatum(since),
	TimestampTzGetDatum(now)};
	bool		isnull;
	Datum		value;

	if (fin_queue_log_is(queue_id))
		return fin_queue_log_waiting(queue_id, since, waiting);
	if (!fin_queue_hold(queue_id, AccessShareLock))
		return false;
	(void) fin_queue_run(FIN_QUEUE_WAITING, tenant_id, queue_id, values, NULL);
	waiting->count = fin_query_int64(0, 1);
	value = fin_query_datum(0, 2, &isnull);
	waiting->highest_id = isnull ? 0 : DatumGetInt64(value);
	value = fin_query_datum(0, 3, &isnull);
	waiting->next_at = isnull ? 0 : DatumGetTimestampTz(value);
	return true;
}
