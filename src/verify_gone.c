/*
 * verify_gone.c
 *		What is gone from the audit log on purpose: payloads that were erased,
 *		months that were taken out.
 *
 * Each has a record that says so, and says it in its leaf, not in a payload:
 * audit_erase_payload() names the record in row_key, drop_audit_month() the
 * month, and how many records are gone with it and all months before it.  The
 * last of these is enough: earlier ones go with their own months.  What no
 * record tells is not believed, whatever finance.audit_month has.
 *
 * Owns a kept plan; memory is that of the walk, as current at the beginning.
 * Locks: those of a SELECT.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "audit_gone.h"
#include "audit_scan.h"
#include "compat.h"
#include "partition.h"
#include "query.h"
#include "verify_parts.h"

#define NAMED_MAX	1000		/* missing records that are told one by one */

typedef struct Month
{
	int			year;
	int			month;
	int64		first_id;
	int64		last_id;
	int64		records;		/* gone, by finance.audit_month */
	int64		missing;		/* leaves without their record */
} Month;

struct FinVerifyGone
{
	MemoryContext home;
	HTAB	   *erasures;		/* ids of records, told by a record */
	FinProblem *erased;			/* records without their payload */
	int			nerased;
	int			max_erased;
	Month	   *months;			/* ascending */
	int			nmonths;
	FinProblem *missing;		/* the first of them */
	int			nmissing;
	FinAuditGone told;			/* by the last drop_audit_month(); year 0: none */
};

static FinQuery select_months =
{
	.sql = "SELECT m.month, m.first_id, m.last_id, m.records"
	" FROM finance.audit_month m ORDER BY m.first_id",
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static void
read_months(FinVerifyGone *gone)
{
	uint64		n = fin_query_run(&select_months, NULL, NULL, 0);

	gone->months = MemoryContextAllocZero(gone->home,
										  Max(n, 1) * sizeof(Month));
	for (uint64 i = 0; i < n; i++)
	{
		Month	   *month = &gone->months[gone->nmonths++];
		bool		isnull;
		DateADT		day = DatumGetDateADT(fin_query_datum(i, 1, &isnull));
		int			of_month;

		j2date(day + POSTGRES_EPOCH_JDATE, &month->year, &month->month,
			   &of_month);
		month->first_id = fin_query_int64(i, 2);
		month->last_id = fin_query_int64(i, 3);
		month->records = fin_query_int64(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
}

FinVerifyGone *
fin_verify_gone_begin(void)
{
	FinVerifyGone *gone = palloc0(sizeof(FinVerifyGone));
	HASHCTL		control = {.keysize = sizeof(int64),
		.entrysize = sizeof(int64),
	.hcxt = CurrentMemoryContext};

	gone->home = CurrentMemoryContext;
	gone->erasures = hash_create("finance verify erasures", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	read_months(gone);
	return gone;
}

/* ------------------------------------------------------------------------
 * what the records tell
 * ------------------------------------------------------------------------ */

static bool
is_text(const FinAuditRow *row, FinAuditColumn column, const char *wanted)
{
	text	   *value;
	Size		length = strlen(wanted);

	if (row->nulls[column])
		return false;
	value = DatumGetTextPP(row->values[column]);
	return VARSIZE_ANY_EXHDR(value) == length &&
		memcmp(VARDATA_ANY(value), wanted, length) == 0;
}

static char *
key_of(const FinAuditRow *row)
{
	return row->nulls[FIN_AUDIT_ROW_KEY] ? "" :
		TextDatumGetCString(row->values[FIN_AUDIT_ROW_KEY]);
}

void
fin_verify_gone_hear(FinVerifyGone *gone, const FinAuditRow *row)
{
	if (is_text(row, FIN_AUDIT_OPERATION, FIN_AUDIT_ERASE_OPERATION))
	{
		int64		id = fin_audit_erased_id(key_of(row));

		(void) hash_search(gone->erasures, &id, HASH_ENTER, NULL);
	}
	else if (is_text(row, FIN_AUDIT_OPERATION, FIN_AUDIT_DROP_OPERATION))
		(void) fin_audit_gone_read(key_of(row), &gone->told);
}

/* ------------------------------------------------------------------------
 * what is gone
 * ------------------------------------------------------------------------ */

void
fin_verify_gone_payload(FinVerifyGone *gone, const FinAuditRow *row, int64 leaf)
{
	FinProblem *problem;

	if (row->nulls[FIN_AUDIT_PAYLOAD_HASH] || !row->nulls[FIN_AUDIT_SALT])
		return;
	if (gone->nerased == gone->max_erased)
	{
		gone->max_erased = Max(64, 2 * gone->max_erased);
		gone->erased = gone->erased == NULL ?
			MemoryContextAlloc(gone->home, gone->max_erased * sizeof(FinProblem)) :
			repalloc_huge(gone->erased, (Size) gone->max_erased * sizeof(FinProblem));
	}
	problem = &gone->erased[gone->nerased++];
	memset(problem, 0, sizeof(FinProblem));
	problem->has_leaf = leaf >= 0;
	problem->leaf = leaf;
	problem->record_id = DatumGetInt64(row->values[FIN_AUDIT_ID]);
	problem->position = fin_audit_position(row);
	problem->problem = "payload missing";
	problem->expected = "a record of audit_erase_payload()";
}

static Month *
month_of(const FinVerifyGone *gone, int64 id)
{
	int			low = 0;
	int			high = gone->nmonths;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (gone->months[middle].last_id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < gone->nmonths && gone->months[low].first_id <= id ?
		&gone->months[low] : NULL;
}

bool
fin_verify_gone_record(FinVerifyGone *gone, const FinProblem *problem)
{
	Month	   *month = month_of(gone, problem->record_id);
	FinProblem *kept;

	if (month == NULL)
		return false;
	month->missing++;
	if (gone->nmissing == NAMED_MAX)
		return true;
	if (gone->missing == NULL)
		gone->missing = MemoryContextAlloc(gone->home,
										   NAMED_MAX * sizeof(FinProblem));
	kept = &gone->missing[gone->nmissing++];
	*kept = *problem;
	kept->expected = MemoryContextStrdup(gone->home, problem->expected);
	return true;
}

/* ------------------------------------------------------------------------
 * the end
 * ------------------------------------------------------------------------ */

/* records after the range that was walked may tell of what is gone in it */
static void
hear_all(FinVerifyGone *gone, Snapshot snapshot)
{
	FinAuditPosition start = {0, 0};
	FinAuditScan *scan = fin_audit_scan_begin(snapshot, 0, &start,
											  FIN_AUDIT_XID_END);
	const FinAuditRow *row;

	while ((row = fin_audit_scan_next(scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		fin_verify_gone_hear(gone, row);
	}
	fin_audit_scan_end(scan);
}

static bool
is_anything_gone(const FinVerifyGone *gone)
{
	return gone->nerased > 0 || gone->nmissing > 0;
}

static void
report_payloads(ReturnSetInfo *result, const FinVerifyGone *gone)
{
	for (int i = 0; i < gone->nerased; i++)
	{
		const FinProblem *erased = &gone->erased[i];

		if (hash_search(gone->erasures, &erased->record_id, HASH_FIND,
						NULL) == NULL)
			fin_verify_report(result, erased);
	}
}

/* has it the ids of that month, and does a record tell of it, or a later one? */
static bool
is_told(const FinVerifyGone *gone, const Month *month)
{
	int64		from;
	int64		to;

	(void) fin_partition_month(FIN_PARTITIONED_AUDIT_RECORD, month->year,
							   month->month, &from, &to);
	return month->first_id == from && month->last_id == to - 1 &&
		month->missing <= month->records &&
		(month->year < gone->told.year ||
		 (month->year == gone->told.year && month->month <= gone->told.month));
}

static void
report_month(ReturnSetInfo *result, const FinVerifyGone *gone,
			 const Month *month)
{
	FinProblem	problem = {0};

	problem.problem = psprintf("month %04d-%02d", month->year, month->month);
	problem.expected = "a record of drop_audit_month()";
	problem.found = psprintf("%lld records missing",
							 (long long) month->missing);
	fin_verify_report(result, &problem);
	for (int i = 0; i < gone->nmissing; i++)
	{
		if (month_of(gone, gone->missing[i].record_id) == month)
			fin_verify_report(result, &gone->missing[i]);
	}
}

static void
report_total(ReturnSetInfo *result, const FinVerifyGone *gone, int64 records,
			 int64 missing)
{
	FinProblem	problem = {0};

	problem.problem = "months taken out";
	problem.expected = psprintf("%lld records gone",
								(long long) gone->told.records);
	problem.found = psprintf("%lld in finance.audit_month, %lld missing",
							 (long long) records, (long long) missing);
	fin_verify_report(result, &problem);
}

void
fin_verify_gone_end(ReturnSetInfo *result, FinVerifyGone *gone,
					Snapshot snapshot, bool heard_all, bool saw_all)
{
	int64		records = 0;
	int64		missing = 0;

	if (!heard_all && is_anything_gone(gone))
		hear_all(gone, snapshot);
	report_payloads(result, gone);
	for (int i = 0; i < gone->nmonths; i++)
	{
		const Month *month = &gone->months[i];

		if (!is_told(gone, month) && (saw_all || month->missing > 0))
			report_month(result, gone, month);
		records += month->records;
		missing += month->missing;
	}
	/* what was attached again is no longer missing */
	if (saw_all &&
		(records != gone->told.records || missing > gone->told.records))
		report_total(result, gone, records, missing);
}
