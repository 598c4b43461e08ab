/*
 * archive.c
 *		Messages that were acknowledged and kept, and for how long.
 *
 * One table for all queues, finance.message_archive, in partitions by the month
 * of archiving (partition.c).  Nothing but purge_archive() deletes rows: what
 * is older than finance.archive_retention goes by whole months.
 *
 * Locks: writing, ROW EXCLUSIVE on the table and the month, to the end of the
 * transaction.  Retention waits for nobody, and does not let others wait behind
 * it: it takes ACCESS EXCLUSIVE where that is free, on a month alone to
 * truncate it, which gives the room back, and on the parent too to drop it;
 * what is in use is left for the next time.
 *
 * Owns: when the worker looks next.  A FinArchive lives in the memory of the
 * query scope; an ERROR leaves its clean-up to the transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "archive.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "partition.h"
#include "query.h"
#include "settings.h"
#include "store_direct.h"
#include "wake.h"

#define FIN_ARCHIVE_INTERVAL_US	(3600 * USECS_PER_SEC)
#define FIN_ARCHIVE_RETRY_US	(60 * USECS_PER_SEC)	/* a month was in use */

/* columns of finance.message_archive, in the order of the table */
static const Oid archive_types[] = {
	INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, INT4OID, INT4OID, INT2OID, TEXTOID, TEXTOID, JSONBOID,
	JSONBOID
};

#define ARCHIVE_COLUMNS ((int) lengthof(archive_types))

static FinQuery insert_row =
{
	.sql = "INSERT INTO finance.message_archive (archive_id, msg_id,"
	" message_id, queue_id, enqueued_at, archived_at, expires_at, tenant_id,"
	" read_ct, priority, topic, ordering_key, headers, payload)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
	.nargs = ARCHIVE_COLUMNS,
	.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT4OID, INT2OID, TEXTOID,
	TEXTOID, JSONBOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

struct FinArchive
{
	FinDirect  *direct;			/* NULL: by statement */
	TimestampTz archived_at;
	int64		last_id;
};

/* ------------------------------------------------------------------------
 * writing
 * ------------------------------------------------------------------------
 */

FinArchive *
fin_archive_begin(void)
{
	FinArchive *archive = palloc0(sizeof(FinArchive));

	archive->direct = fin_direct_begin_append(FIN_PARTITIONED_MESSAGE_ARCHIVE,
											  archive_types, ARCHIVE_COLUMNS);
	archive->archived_at = fin_ident_now();
	return archive;
}

static void
set_pointer(Datum *values, bool *nulls, int column, const void *value)
{
	values[column] = PointerGetDatum(value);
	nulls[column] = value == NULL;
}

static void
fill_columns(const FinArchive *archive, const FinArchived *row, Datum *values,
			 bool *nulls)
{
	memset(nulls, false, sizeof(bool) * ARCHIVE_COLUMNS);
	values[0] = Int64GetDatum(archive->last_id);
	values[1] = Int64GetDatum(row->msg_id);
	values[2] = Int64GetDatum(row->message_id);
	values[3] = Int64GetDatum(row->queue_id);
	values[4] = TimestampTzGetDatum(row->enqueued_at);
	values[5] = TimestampTzGetDatum(archive->archived_at);
	values[6] = TimestampTzGetDatum(row->expires_at);
	nulls[6] = row->expires_at == 0;
	values[7] = Int32GetDatum(row->tenant_id);
	values[8] = Int32GetDatum(row->read_ct);
	values[9] = Int16GetDatum(row->priority);
	set_pointer(values, nulls, 10, row->topic);
	set_pointer(values, nulls, 11, row->ordering_key);
	set_pointer(values, nulls, 12, row->headers);
	set_pointer(values, nulls, 13, row->payload);
}

static void
insert_by_statement(int64 archive_id, Datum *values, const bool *nulls)
{
	char		flags[ARCHIVE_COLUMNS];

	(void) fin_partition_ensure(FIN_PARTITIONED_MESSAGE_ARCHIVE, archive_id);
	for (int i = 0; i < ARCHIVE_COLUMNS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	(void) fin_query_run(&insert_row, values, flags, 0);
}

void
fin_archive_add(FinArchive *archive, const FinArchived *row)
{
	Datum		values[ARCHIVE_COLUMNS];
	bool		nulls[ARCHIVE_COLUMNS];

	archive->last_id = fin_ident_next(archive->last_id);
	fill_columns(archive, row, values, nulls);
	if (archive->direct == NULL ||
		!fin_direct_append(archive->direct, archive->last_id, values, nulls))
		insert_by_statement(archive->last_id, values, nulls);
}

void
fin_archive_end(FinArchive *archive)
{
	if (archive->direct != NULL)
		fin_direct_end(archive->direct);
	pfree(archive);
}

/* ------------------------------------------------------------------------
 * purging
 * ------------------------------------------------------------------------
 */

static FinQuery find_queue =
{
	.sql = "SELECT queue_id FROM finance.queue"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery delete_of_queue =
{
	.sql = "DELETE FROM finance.message_archive"
	" WHERE tenant_id = $1 AND queue_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

PG_FUNCTION_INFO_V1(finance_purge_archive);

/*
 * finance.purge_archive(queue_name text) returns bigint
 *
 * Deletes all archived messages of the queue; returns how many.  Dropping a
 * queue leaves them: purge first.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: the rows.
 */
Datum
finance_purge_archive(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_argument_text(fcinfo, 0, "queue_name",
										 FIN_NAME_LENGTH_MAX);
	Datum		values[2] = {Int32GetDatum(tenant_id), CStringGetTextDatum(name)};
	FinQueryScope scope;
	uint64		deleted;

	fin_query_begin(&scope);
	if (fin_query_run(&find_queue, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_QUEUE),
				errmsg("queue \"%s\" does not exist", name),
				errdetail("There is no queue of this name in tenant %d.",
						  tenant_id));
	values[1] = Int64GetDatum(fin_query_int64(0, 1));
	deleted = fin_query_run(&delete_of_queue, values, NULL, 0);
	fin_query_end(&scope);
	PG_RETURN_INT64(deleted);
}

/* ------------------------------------------------------------------------
 * retention
 * ------------------------------------------------------------------------
 */

typedef enum Look
{
	LOOK_DONE,					/* nothing more is too old */
	LOOK_MORE,					/* look for another month at once */
	LOOK_IN_USE
} Look;

static TimestampTz looked_at = 0;
static Look last_look;
static int	looked_for_days;	/* finance.archive_retention then */

/* the messages of all tenants are gone: noted in the log of tenant 0 */
static void
audit_drop(const char *name)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "partition", name);
	fin_json_int64(&json, "retention_days", fin_archive_retention_days);
	record.operation = "drop_archive";
	record.status = "completed";
	record.object = psprintf("finance.%s", name);
	record.request = fin_json_end(&json);
	fin_audit_append(&record, 1);
}

static bool
has_rows(Oid relid)
{
	Relation	month = table_open(relid, NoLock);
	BlockNumber pages = RelationGetNumberOfBlocks(month);

	table_close(month, NoLock);
	return pages > 0;
}

/*
 * Empties one of these months, in a transaction before the one that drops it:
 * a view on it would be in the way of that.
 */
static Look
empty_one(List *months)
{
	Look		look = LOOK_DONE;
	ListCell   *cell;

	foreach(cell, months)
	{
		const char *name = lfirst(cell);
		Oid			relid = fin_query_relation(name);

		if (!OidIsValid(relid))
			continue;			/* somebody dropped it meanwhile */
		if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
			look = LOOK_IN_USE;
		else if (has_rows(relid))
		{
			fin_query_utility(psprintf("TRUNCATE TABLE ONLY finance.%s", name));
			audit_drop(name);
			ereport(LOG,
					errmsg("finance.%s is truncated: its messages were archived longer than finance.archive_retention ago",
						   name));
			return LOOK_MORE;
		}
		else
			UnlockRelationOid(relid, AccessExclusiveLock);
	}
	return look;
}

/* drops a month, if it is empty and the parent is free for it */
static Look
drop_month(const char *name)
{
	Oid			parent = fin_query_relation("message_archive");
	Oid			relid = fin_query_relation(name);

	if (!OidIsValid(relid))
		return LOOK_MORE;
	if (!ConditionalLockRelationOid(parent, AccessExclusiveLock) ||
		!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return LOOK_IN_USE;
	if (!has_rows(relid))
		fin_query_utility(psprintf("DROP TABLE finance.%s", name));
	return LOOK_MORE;
}

/* one step of it */
static Look
keep_retention(TimestampTz now)
{
	TimestampTz oldest = now - fin_archive_retention_days * USECS_PER_DAY;
	List	   *months = fin_partition_before(FIN_PARTITIONED_MESSAGE_ARCHIVE,
											  fin_ident_floor(oldest));
	Look		look;

	if (months == NIL)
		return LOOK_DONE;
	look = empty_one(months);
	return look == LOOK_DONE ? drop_month(linitial(months)) : look;
}

void
fin_archive_sweep(void)
{
	looked_at = 0;
}

TimestampTz
fin_archive_due(TimestampTz now)
{
	if (fin_archive_retention_days == 0)
		return FIN_NEVER;
	if (looked_at == 0 || now < looked_at || last_look == LOOK_MORE ||
		looked_for_days != fin_archive_retention_days)
		return now;
	return looked_at +
		(last_look == LOOK_IN_USE ? FIN_ARCHIVE_RETRY_US : FIN_ARCHIVE_INTERVAL_US);
}

void
fin_archive_run(TimestampTz now)
{
	FinQueryScope scope;
	int			nest = NewGUCNestLevel();

	last_look = LOOK_MORE;		/* should this fail */
	(void) set_config_option("finance.actor", "finance worker", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) fin_context();
	fin_query_begin(&scope);
	last_look = keep_retention(now);
	looked_for_days = fin_archive_retention_days;
	fin_query_end(&scope);
	AtEOXact_GUC(false, nest);
}

void
fin_archive_committed(TimestampTz now)
{
	looked_at = now;
}
