/*
 * audit_month.c
 *		Months of the audit log: exporting one, taking one out when it was kept
 *		long enough, and saying which are.
 *
 * Nothing here deletes a record.  drop_audit_month() detaches the month's
 * partition and gives it another name: the DBA drops that table once the export
 * is stored.  The leaves stay, in finance.audit_leaves, so roots, digests and
 * proofs remain what they were; and finance.audit_month says that the records
 * are gone on purpose.
 *
 * Owns kept plans, and in the worker when it looked last.  Memory: the caller's
 * query scope.
 *
 * Locks: drop_audit_month() takes SHARE UPDATE EXCLUSIVE on the month, so that
 * there is one at a time, then ACCESS EXCLUSIVE on the log and the month, for
 * the moment of detaching, after all is checked: it waits for the transactions
 * that have written to the log, and who writes then waits behind it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "audit.h"
#include "audit_export.h"
#include "audit_gone.h"
#include "audit_month.h"
#include "audit_walk.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "partition.h"
#include "query.h"
#include "settings.h"
#include "wake.h"

#define FIN_AUDIT_MONTH_INTERVAL_US	USECS_PER_DAY
#define DUE_COLUMNS	4

/* a month, and what of the log lies in it */
typedef struct Month
{
	int			year;
	int			month;			/* 1 to 12 */
	char	   *partition;		/* its name, in schema finance */
	int64		from_id;
	int64		to_id;			/* ids of the next month begin here */
	int64		from_leaf;		/* whole blocks that have some of its records */
	int64		to_leaf;
	int64		records;
} Month;

static FinQuery select_leaves =
{
	.sql = "SELECT coalesce(min(b.first_leaf), 0), coalesce(max(b.size), 0)"
	" FROM finance.audit_block b"
	" WHERE pg_catalog.int8range(b.first_id, b.last_id, '[]')"
	" && pg_catalog.int8range($1, $2, '[)')",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* records that came by logical replication are of no incarnation, nor sealed */
static FinQuery count_records =
{
	.sql = "SELECT count(*) FROM finance.audit_record r"
	" WHERE r.id >= $1 AND r.id < $2 AND (r.system_identifier IN"
	" (SELECT i.system_identifier FROM finance.audit_incarnation i)"
	" OR NOT EXISTS (SELECT FROM finance.audit_incarnation i))",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_detached =
{
	.sql = "SELECT m.month FROM finance.audit_month m"
	" WHERE m.first_id <= $1 AND m.last_id >= $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery insert_month =
{
	.sql = "INSERT INTO finance.audit_month (month, first_id, last_id, records,"
	" detached_as, detached_at) VALUES ($1, $2, $3, $4, $5,"
	" pg_catalog.clock_timestamp())",
	.nargs = 5,
	.argtypes = {DATEOID, INT8OID, INT8OID, INT8OID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.writes_one = "audit_month",
};

static FinQuery select_gone =
{
	.sql = "SELECT coalesce(pg_catalog.sum(m.records), 0)::pg_catalog.int8"
	" FROM finance.audit_month m",
	.expect = SPI_OK_SELECT,
};

static FinQuery select_size =
{
	.sql = "SELECT pg_catalog.pg_total_relation_size($1)",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

bool
fin_audit_month_is_detached(int64 id)
{
	Datum		values[1] = {Int64GetDatum(id)};
	bool		found = fin_query_run(&select_detached, values, NULL, 1) > 0;

	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* ------------------------------------------------------------------------
 * which month
 * ------------------------------------------------------------------------ */

static DateADT
first_day(const Month *month)
{
	return date2j(month->year, month->month, 1) - POSTGRES_EPOCH_JDATE;
}

/* the month that a day is in; LG204 the log has none of it */
static void
find_month(DateADT day, Month *month)
{
	Datum		values[2];
	int			day_of_month;
	Oid			relid;

	memset(month, 0, sizeof(Month));
	if (DATE_NOT_FINITE(day))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("month must be a date"));
	j2date(day + POSTGRES_EPOCH_JDATE, &month->year, &month->month,
		   &day_of_month);
	month->partition = fin_partition_month(FIN_PARTITIONED_AUDIT_RECORD,
										   month->year, month->month,
										   &month->from_id, &month->to_id);
	relid = fin_query_relation(month->partition);
	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RECORD),
				errmsg("the audit log has no month %04d-%02d", month->year,
					   month->month),
				errhint("finance.audit_month lists those that were taken out."));
	values[0] = Int64GetDatum(month->from_id);
	values[1] = Int64GetDatum(month->to_id);
	(void) fin_query_run(&select_leaves, values, NULL, 1);
	month->from_leaf = fin_query_int64(0, 1);
	month->to_leaf = fin_query_int64(0, 2);
	SPI_freetuptable(SPI_tuptable);
}

static DateADT
argument_month(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("month must not be null"));
	return PG_GETARG_DATEADT(0);
}

PG_FUNCTION_INFO_V1(finance_audit_archive);

/*
 * finance.audit_archive(month date) returns setof text
 *
 * The export (audit_export.c) of the blocks that have records of the month,
 * which any day of it names, in UTC: what to store before drop_audit_month().
 * It begins with the tree before it, and ends with the root of a block, whose
 * digest audit_digest(size) tells and audit_consistency(size) links to later
 * ones: so it proves each record in it, for ever.  The blocks at either end
 * may have records of the months beside.  In full for those who see all
 * tenants, as audit_export() has it.
 * Errors: 22004, 22023; LG204 the log has no such month; LG205 it contradicts
 * itself; those of fin_context().
 */
Datum
finance_audit_archive(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	FinAuditReader reader;
	DateADT		day = argument_month(fcinfo);
	Month		month;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	reader = fin_audit_reader();
	fin_query_begin(&scope);
	find_month(day, &month);
	fin_audit_export(&reader, (ReturnSetInfo *) fcinfo->resultinfo,
					 month.from_leaf, month.to_leaf);
	fin_query_end(&scope);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * taking one out
 * ------------------------------------------------------------------------ */

/* until when it is to be kept */
static TimestampTz
kept_until(int64 to_id)
{
	return fin_ident_time(to_id) + fin_audit_retention_days * USECS_PER_DAY;
}

static void
check_age(const Month *month)
{
	if (fin_audit_retention_days == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_KEPT),
				errmsg("month %04d-%02d of the audit log must be kept",
					   month->year, month->month),
				errdetail("finance.audit_retention is 0: months are kept for ever."));
	if (kept_until(month->to_id) > fin_ident_now())
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_KEPT),
				errmsg("month %04d-%02d of the audit log must be kept",
					   month->year, month->month),
				errdetail("finance.audit_retention keeps it until %s.",
						  timestamptz_to_str(kept_until(month->to_id))));
}

/*
 * The oldest month goes first: so the versions of an account that are no longer
 * in the log are its first ones.
 */
static void
check_oldest(const Month *month)
{
	List	   *older = fin_partition_before(FIN_PARTITIONED_AUDIT_RECORD,
											 month->from_id);

	if (older != NIL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_KEPT),
				errmsg("month %04d-%02d of the audit log must be kept",
					   month->year, month->month),
				errdetail("finance.%s is older.", (char *) linitial(older)));
}

static FIN_NORETURN void
refuse_altered(const Month *month, int64 leaf, int64 id)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("month %04d-%02d of the audit log is not as it was sealed",
				   month->year, month->month),
			errdetail("Record %lld, leaf %lld, is missing or was altered.",
					  (long long) id, (long long) leaf),
			errhint("SELECT * FROM finance.verify_audit()."));
}

/* each leaf of the month has the record that was sealed; returns how many */
static int64
check_leaves(const Month *month)
{
	FinAuditWalk *walk = fin_audit_walk_begin(month->from_leaf, month->to_leaf);
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext,
											   "finance audit month",
											   ALLOCSET_DEFAULT_SIZES);
	FinAuditStep step;
	StringInfoData work;
	FinHash		hash;
	int64		n = 0;

	initStringInfo(&work);
	while (fin_audit_walk_next(walk, &step))
	{
		MemoryContext outer;

		if (step.leaf.id < month->from_id || step.leaf.id >= month->to_id)
			continue;
		if (step.row == NULL)
			refuse_altered(month, step.index, step.leaf.id);
		outer = MemoryContextSwitchTo(each);
		fin_audit_leaf_hash(step.row, &work, &hash);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(each);
		if (!fin_merkle_same(&hash, &step.leaf.hash))
			refuse_altered(month, step.index, step.leaf.id);
		n++;
	}
	fin_audit_walk_end(walk);
	MemoryContextDelete(each);
	return n;
}

static void
check_sealed(Month *month)
{
	Datum		values[2] = {Int64GetDatum(month->from_id),
	Int64GetDatum(month->to_id)};
	int64		sealed = check_leaves(month);

	(void) fin_query_run(&count_records, values, NULL, 1);
	month->records = fin_query_int64(0, 1);
	SPI_freetuptable(SPI_tuptable);
	if (sealed != month->records)
		ereport(ERROR,
				errcode(ERRCODE_FIN_NOT_SEALED),
				errmsg("month %04d-%02d of the audit log is not wholly sealed",
					   month->year, month->month),
				errdetail("It has %lld records, of which %lld are sealed.",
						  (long long) month->records, (long long) sealed),
				errhint("finance.audit_lag() tells what sealing waits for; SELECT * FROM finance.verify_audit() whether records were inserted."));
}

static char *
detach(const Month *month)
{
	char	   *name = psprintf("audit_detached_%04d_%02d", month->year,
								month->month);

	fin_query_utility(psprintf("ALTER TABLE finance.audit_record"
							   " DETACH PARTITION finance.%s",
							   month->partition));
	fin_query_utility(psprintf("ALTER TABLE finance.%s RENAME TO %s",
							   month->partition, name));
	return name;
}

/* with those of the months before */
static int64
count_gone(void)
{
	int64		gone;

	(void) fin_query_run(&select_gone, NULL, NULL, 1);
	gone = fin_query_int64(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return gone;
}

static void
record_detached(const Month *month, const char *name)
{
	FinAuditRecord record = {0};
	FinAuditGone gone = {month->year, month->month, 0};
	StringInfoData json;
	Datum		values[5];

	values[0] = DateADTGetDatum(first_day(month));
	values[1] = Int64GetDatum(month->from_id);
	values[2] = Int64GetDatum(month->to_id - 1);
	values[3] = Int64GetDatum(month->records);
	values[4] = CStringGetTextDatum(name);
	(void) fin_query_run(&insert_month, values, NULL, 0);

	initStringInfo(&json);
	fin_json_text(&json, "month", fin_json_date_text(first_day(month)));
	fin_json_text(&json, "detached_as", name);
	fin_json_int64(&json, "records", month->records);
	fin_json_int64(&json, "from_leaf", month->from_leaf);
	fin_json_int64(&json, "to_leaf", month->to_leaf);
	fin_json_int64(&json, "retention_days", fin_audit_retention_days);
	gone.records = count_gone();
	record.operation = FIN_AUDIT_DROP_OPERATION;
	record.status = "completed";
	record.object = psprintf("finance.%s", month->partition);
	record.row_key = fin_audit_gone_key(&gone);
	record.request = fin_json_end(&json);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_drop_audit_month);

/*
 * finance.drop_audit_month(month date) returns text
 *
 * Takes the month's records out of the log, of all tenants: its partition is
 * detached and becomes the table finance.audit_detached_YYYY_MM, whose name is
 * returned, for the DBA to drop.  The leaves stay, and with them all digests
 * and proofs.  Recorded in the log and in finance.audit_month.
 * Errors: 22004, 22023; LG203 some record of it is not sealed; LG204 the log
 * has no such month; LG205 a record is not as it was sealed; LG206 it was not
 * kept for finance.audit_retention days yet, or an older one is still there;
 * those of fin_context().
 */
Datum
finance_drop_audit_month(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	DateADT		day = argument_month(fcinfo);
	Month		month;
	char	   *name;
	text	   *result;

	PreventCommandIfReadOnly("drop_audit_month()");
	(void) fin_context();
	fin_query_begin(&scope);
	find_month(day, &month);
	check_age(&month);
	check_oldest(&month);
	LockRelationOid(fin_query_relation(month.partition),
					ShareUpdateExclusiveLock);
	/* somebody may have done it while we waited */
	find_month(day, &month);
	check_sealed(&month);
	name = detach(&month);
	record_detached(&month, name);
	MemoryContextSwitchTo(scope.caller);
	result = cstring_to_text(name);
	fin_query_end(&scope);
	PG_RETURN_TEXT_P(result);
}

/* ------------------------------------------------------------------------
 * which are due
 * ------------------------------------------------------------------------ */

/* names of the partitions that were kept long enough, the oldest first */
static List *
due_months(TimestampTz now)
{
	if (fin_audit_retention_days == 0)
		return NIL;
	return fin_partition_before(FIN_PARTITIONED_AUDIT_RECORD,
								fin_ident_floor(now - fin_audit_retention_days *
												USECS_PER_DAY));
}

static bool
add_due(ReturnSetInfo *result, const char *name)
{
	Datum		values[DUE_COLUMNS];
	bool		nulls[DUE_COLUMNS] = {false};
	Datum		relid = ObjectIdGetDatum(fin_query_relation(name));
	Month		month = {0};
	int64		from_id;

	if (sscanf(name, "audit_record_%4d_%2d", &month.year, &month.month) != 2 ||
		!OidIsValid(DatumGetObjectId(relid)))
		return false;
	(void) fin_partition_month(FIN_PARTITIONED_AUDIT_RECORD, month.year,
							   month.month, &from_id, &month.to_id);
	(void) fin_query_run(&select_size, &relid, NULL, 1);
	values[0] = DateADTGetDatum(first_day(&month));
	values[1] = CStringGetTextDatum(psprintf("finance.%s", name));
	values[2] = TimestampTzGetDatum(kept_until(month.to_id));
	values[3] = fin_query_datum(0, 1, &nulls[3]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

PG_FUNCTION_INFO_V1(finance_audit_due);

/*
 * finance.audit_due() returns table (month date, partition text,
 *		due_at timestamptz, bytes bigint)
 *
 * The months of the audit log that were kept for finance.audit_retention days,
 * the oldest first: drop_audit_month() takes them out, nothing else does.
 */
Datum
finance_audit_due(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	ListCell   *cell;
	List	   *months;

	InitMaterializedSRF(fcinfo, 0);
	fin_query_begin(&scope);
	months = due_months(fin_ident_now());
	foreach(cell, months)
		(void) add_due((ReturnSetInfo *) fcinfo->resultinfo, lfirst(cell));
	fin_query_end(&scope);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * the worker's chore
 * ------------------------------------------------------------------------ */

static TimestampTz looked_at = 0;
static int	looked_for_days;	/* finance.audit_retention then */

void
fin_audit_month_sweep(void)
{
	looked_at = 0;
}

TimestampTz
fin_audit_month_due(TimestampTz now)
{
	if (fin_audit_retention_days == 0)
		return FIN_NEVER;
	if (looked_at == 0 || now < looked_at ||
		looked_for_days != fin_audit_retention_days)
		return now;
	return looked_at + FIN_AUDIT_MONTH_INTERVAL_US;
}

void
fin_audit_month_run(TimestampTz now)
{
	FinQueryScope scope;
	List	   *months;

	looked_for_days = fin_audit_retention_days;
	fin_query_begin(&scope);
	months = due_months(now);
	if (months != NIL)
		ereport(LOG,
				errmsg("%d months of the audit log, from finance.%s on, were kept longer than finance.audit_retention asks",
					   list_length(months), (char *) linitial(months)),
				errhint("Store finance.audit_archive(month), then call finance.drop_audit_month(month); finance.audit_due() lists them."));
	fin_query_end(&scope);
}

void
fin_audit_month_committed(TimestampTz now)
{
	looked_at = now;
}
