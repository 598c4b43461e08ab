/*
 * partition.c
 *		Monthly partitions of the tables ranged by time-ordered id.
 *
 * A month's partition is made by the worker ahead of time, or, when that did
 * not happen, by the transaction that first needs it, together with those that
 * follow: nothing ever fails for want of a partition.  Partitions are not
 * members of the extension, so pg_dump writes them like ordinary tables; they
 * go with their parent.
 *
 * The parents have no indexes: each partition gets its own, primary key
 * included, here.  A dump attaches a partition before it makes the partition's
 * indexes, and attaching to a parent that came with CREATE EXTENSION, indexes
 * and all, would already have made them: restoring would fail.
 *
 * Locks: making one holds SHARE UPDATE EXCLUSIVE on all parents until the end
 * of the transaction, which readers and writers of other months do not notice.
 * Owns: per table, the id range known to be covered, forgotten whenever the
 * parent's relation cache entry is invalidated.
 */
#include "postgres.h"

#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "cache.h"
#include "errors.h"
#include "ident.h"
#include "partition.h"
#include "query.h"

#define FIN_PARTITIONS_AHEAD	2
#define FIN_PARTITION_INDEXES_MAX 2

typedef struct Partitioned
{
	FinCache	cache;			/* valid: the known range is */
	const char *guard;			/* statement trigger function against changes, */
	const char *guard_events;	/* or NULL */
	const char *key;			/* columns of the primary key, or NULL */
	/* besides it: suffix of the name, columns */
	struct
	{
		const char *suffix;
		const char *columns;
		const char *condition;	/* ' WHERE ...', or empty */
	}			indexes[FIN_PARTITION_INDEXES_MAX];
	int64		known_from;
	int64		known_to;
	Oid			known_child;
} Partitioned;

static Partitioned partitioned[] =
{
	[FIN_PARTITIONED_TRANSFER] =
	{
		.cache = {.table = "transfer"},
		.guard = "_immutable_guard",
		.guard_events = "UPDATE OR DELETE OR TRUNCATE",
		.key = "tenant_id, id",
		.indexes = {{"from_account", "from_account_id, id", ""},
		{"to_account", "to_account_id, id", ""}},
	},
	[FIN_PARTITIONED_AUDIT_RECORD] =
	{
		.cache = {.table = "audit_record"},
		.guard = "_audit_guard",
		.guard_events = "INSERT OR UPDATE OR DELETE OR TRUNCATE",
		.indexes = {{"order", "xid, sequence", ""}},
	},
	[FIN_PARTITIONED_MESSAGE_ARCHIVE] =
	{
		.cache = {.table = "message_archive"},
		.key = "tenant_id, queue_id, archive_id",
		.indexes = {{"msg_id", "queue_id, msg_id", ""}},
	},
};

/* year * 12 + month - 1 of an id, in UTC */
static int
month_of(int64 id)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(fin_ident_time(id), NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "id " INT64_FORMAT " is out of range", id);
	return tm.tm_year * 12 + tm.tm_mon - 1;
}

static int64
month_floor(int month)
{
	int64		days = date2j(month / 12, month % 12 + 1, 1) - POSTGRES_EPOCH_JDATE;

	return fin_ident_floor(days * USECS_PER_DAY);
}

static void
make_indexes(const Partitioned *table, const char *name)
{
	if (table->key != NULL)
		fin_query_utility(psprintf("ALTER TABLE finance.%s"
								   " ADD CONSTRAINT %s_pkey PRIMARY KEY (%s)",
								   name, name, table->key));
	for (int i = 0; i < FIN_PARTITION_INDEXES_MAX; i++)
	{
		if (table->indexes[i].suffix != NULL)
			fin_query_utility(psprintf("CREATE INDEX %s_%s ON finance.%s (%s)%s",
									   name, table->indexes[i].suffix, name,
									   table->indexes[i].columns,
									   table->indexes[i].condition));
	}
}

static void
make_partition(const Partitioned *table, const char *name, int month)
{
	const char *parent = table->cache.table;

	fin_query_utility(psprintf("CREATE TABLE finance.%s"
							   " (LIKE finance.%s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)",
							   name, parent));
	make_indexes(table, name);
	fin_query_utility(psprintf("ALTER TABLE finance.%s ATTACH PARTITION finance.%s"
							   " FOR VALUES FROM (" INT64_FORMAT ") TO (" INT64_FORMAT ")",
							   parent, name, month_floor(month),
							   month_floor(month + 1)));
	/* no policy: whoever is granted the partition itself sees nothing in it */
	fin_query_utility(psprintf("ALTER TABLE finance.%s ENABLE ROW LEVEL SECURITY",
							   name));
	if (table->guard == NULL)
		return;
	fin_query_utility(psprintf("CREATE TRIGGER guard BEFORE %s ON finance.%s"
							   " FOR EACH STATEMENT EXECUTE FUNCTION finance.%s()",
							   table->guard_events, name, table->guard));
	fin_query_utility(psprintf("ALTER TABLE finance.%s ENABLE ALWAYS TRIGGER guard",
							   name));
}

/*
 * One maker at a time; the second finds the work of the first.  All parents
 * are locked, whichever is wanted: a transaction that needs months of two
 * would else meet another that needs them in the other order.
 */
static void
lock_out_other_makers(void)
{
	for (int i = 0; i < (int) lengthof(partitioned); i++)
		LockRelationOid(fin_query_relation(partitioned[i].cache.table),
						ShareUpdateExclusiveLock);
}

static char *
partition_name(const Partitioned *table, int month)
{
	return psprintf("%s_%04d_%02d", table->cache.table,
					month / 12, month % 12 + 1);
}

/*
 * All that will be needed soon: until this transaction ends, everybody who
 * needs one of them waits for it, and that had better be a short one that
 * opens the first account than the first transfer of each month.
 */
static void
make_months(int first)
{
	for (int i = 0; i < (int) lengthof(partitioned); i++)
	{
		for (int month = first; month <= first + FIN_PARTITIONS_AHEAD; month++)
		{
			char	   *name = partition_name(&partitioned[i], month);

			if (!OidIsValid(fin_query_relation(name)))
				make_partition(&partitioned[i], name, month);
			pfree(name);
		}
	}
}

/* a month that is over: history is imported into this one table */
static void
make_past_month(const Partitioned *table, int month)
{
	char	   *name = partition_name(table, month);

	if (!OidIsValid(fin_query_relation(name)))
		make_partition(table, name, month);
	pfree(name);
}

static int
current_month(void)
{
	return month_of(fin_ident_floor(GetCurrentTimestamp()));
}

/* OID of the month's partition, made if it is not there */
static Oid
ensure_month(Partitioned *table, int month)
{
	char	   *name = partition_name(table, month);
	Oid			child = fin_query_relation(name);

	if (!OidIsValid(child))
	{
		lock_out_other_makers();
		if (month < current_month())
			make_past_month(table, month);
		else
			make_months(month);
		child = fin_query_relation(name);
	}
	if (!get_rel_relispartition(child) || PartitionHasPendingDetach(child))
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table finance.%s is not attached as a partition", name),
				errhint("Attach it to finance.%s, or rename it.",
						table->cache.table));
	pfree(name);
	return child;
}

char *
fin_partition_month(FinPartitioned which, int year, int month, int64 *from,
					int64 *to)
{
	*from = month_floor(year * 12 + month - 1);
	*to = month_floor(year * 12 + month);
	return partition_name(&partitioned[which], year * 12 + month - 1);
}

const char *
fin_partition_parent(FinPartitioned which)
{
	return partitioned[which].cache.table;
}

Oid
fin_partition_ensure(FinPartitioned which, int64 id)
{
	Partitioned *table = &partitioned[which];
	int			month;

	if (table->cache.valid && id >= table->known_from && id < table->known_to)
		return table->known_child;
	month = month_of(id);
	table->known_from = table->known_to = 0;	/* nothing, should this fail */
	fin_cache_loading(&table->cache);
	table->known_child = ensure_month(table, month);
	table->known_from = month_floor(month);
	table->known_to = month_floor(month + 1);
	return table->known_child;
}

static FinQuery select_any_record =
{
	.sql = "SELECT tenant_id FROM finance.audit_record LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/*
 * Not before something was recorded: while a dump is being restored, which
 * makes the extension first, then its own partitions, then fills them, ours
 * would be in their way.
 */
bool
fin_partition_ahead(void)
{
	int			month = current_month();

	if (fin_query_run(&select_any_record, NULL, NULL, 1) == 0)
		return false;
	for (int i = 0; i < (int) lengthof(partitioned); i++)
	{
		for (int ahead = 0; ahead <= FIN_PARTITIONS_AHEAD; ahead++)
			(void) ensure_month(&partitioned[i], month + ahead);
	}
	return true;
}

/* names sort by month */
static FinQuery select_partitions =
{
	.sql = "SELECT c.relname::pg_catalog.text"
	" FROM pg_catalog.pg_inherits AS i"
	" JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid"
	" WHERE i.inhparent OPERATOR(pg_catalog.=) $1"
	" ORDER BY c.relname",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* is it the name we give the partition of a month?  of which? */
static bool
parse_partition_name(const Partitioned *table, const char *name, int *month)
{
	const char *parent = table->cache.table;
	int			year;
	int			month_of_year;

	if (strncmp(name, parent, strlen(parent)) != 0 ||
		sscanf(name + strlen(parent), "_%4d_%2d", &year, &month_of_year) != 2)
		return false;
	*month = year * 12 + month_of_year - 1;
	return strcmp(partition_name(table, *month), name) == 0;
}

List *
fin_partition_before(FinPartitioned which, int64 id)
{
	const Partitioned *table = &partitioned[which];
	Datum		values[1] = {ObjectIdGetDatum(fin_query_relation(table->cache.table))};
	uint64		n = fin_query_run(&select_partitions, values, NULL, 0);
	List	   *names = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = fin_query_text(i, 1);
		int			month;

		if (parse_partition_name(table, name, &month) &&
			month_floor(month + 1) <= id)
			names = lappend(names, name);
	}
	return names;
}

void
fin_partition_init(void)
{
	for (int i = 0; i < (int) lengthof(partitioned); i++)
		fin_cache_register(&partitioned[i].cache);
}

PG_FUNCTION_INFO_V1(finance_immutable_guard);

/* statement trigger of tables whose rows never change */
Datum
finance_immutable_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_immutable_guard() can only be called as a trigger"));
	ereport(ERROR,
			errcode(ERRCODE_FIN_IMMUTABLE),
			errmsg("rows of finance.%s are never changed or deleted",
				   RelationGetRelationName(trigger->tg_relation)),
			errhint("Correct money with another transfer; drop old months by detaching their partition."));
	return PointerGetDatum(NULL);
}
