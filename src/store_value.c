/*
 * store_value.c
 *		Value dates: the rows of finance.value_transfer and finance.value_day.
 *
 * Owns the kept plans.  Written only for completed transfers with a stated
 * effective_at, with them and under the locks of their accounts: so the running
 * total read is the account's newest, and no two sessions meet on a row.
 *
 * A set is summed up in memory and written by two statements, whatever its
 * size: a row for each account and transfer, and one for each account and day.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "query.h"
#include "store.h"

/* the change of one account on one day */
typedef struct ValueDay
{
	int64		account_id;
	DateADT		day;
	int			scale;
	FinAmount	change;
} ValueDay;

static FinQuery select_totals =
{
	.sql = "SELECT (SELECT v.total FROM finance.value_transfer v"
	" WHERE v.tenant_id = $1 AND v.account_id = u.account_id"
	" ORDER BY v.transfer_id DESC LIMIT 1)"
	" FROM pg_catalog.unnest($2) WITH ORDINALITY AS u (account_id, n)"
	" ORDER BY u.n",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_transfers =
{
	.sql = "INSERT INTO finance.value_transfer (tenant_id, account_id,"
	" transfer_id, effective_at, change, total)"
	" SELECT $1, u.a, u.t, u.e, u.c, u.s FROM ROWS FROM ("
	"pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
	" pg_catalog.unnest($5), pg_catalog.unnest($6)) AS u (a, t, e, c, s)",
	.nargs = 6,
	.argtypes = {INT4OID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID,
	NUMERICARRAYOID, NUMERICARRAYOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery upsert_days =
{
	.sql = "INSERT INTO finance.value_day AS d (tenant_id, account_id, day,"
	" change) SELECT $1, u.a, u.d, u.c FROM ROWS FROM ("
	"pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))"
	" AS u (a, d, c) ON CONFLICT (tenant_id, account_id, day)"
	" DO UPDATE SET change = d.change + excluded.change",
	.nargs = 4,
	.argtypes = {INT4OID, INT8ARRAYOID, DATEARRAYOID, NUMERICARRAYOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static Datum
array_of(Datum *elements, int n, Oid type, int length, bool by_value,
		 char alignment)
{
	return PointerGetDatum(construct_array(elements, n, type, length, by_value,
										   alignment));
}

static Datum
int64_array(Datum *elements, int n, Oid type)
{
	return array_of(elements, n, type, sizeof(int64), FLOAT8PASSBYVAL,
					TYPALIGN_DOUBLE);
}

static Datum
numeric_array(Datum *elements, int n)
{
	return array_of(elements, n, NUMERICOID, -1, false, TYPALIGN_INT);
}

static void
check_written(uint64 written, int n, const char *table)
{
	if (written != (uint64) n)
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("value dates of a transfer cannot be written"),
				errdetail("A trigger or rule on finance.%s suppressed a row.",
						  table));
}

/* ------------------------------------------------------------------------
 * a row for each transfer
 * ------------------------------------------------------------------------ */

static int
compare_rows(const void *a, const void *b)
{
	const FinValueRow *left = a;
	const FinValueRow *right = b;

	if (left->account_id != right->account_id)
		return left->account_id < right->account_id ? -1 : 1;
	return left->transfer_id < right->transfer_id ? -1 : 1;
}

static bool
is_first_of_account(const FinValueRow *rows, int i)
{
	return i == 0 || rows[i].account_id != rows[i - 1].account_id;
}

/* totals[k] is that of the k-th account before these rows */
static FinAmount *
read_totals(int32 tenant_id, const FinValueRow *rows, int n)
{
	Datum	   *ids = palloc(sizeof(Datum) * n);
	FinAmount  *totals = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(FinAmount) * n);
	Datum		arguments[2];
	int			accounts = 0;

	for (int i = 0; i < n; i++)
	{
		if (is_first_of_account(rows, i))
			ids[accounts++] = Int64GetDatum(rows[i].account_id);
	}
	arguments[0] = Int32GetDatum(tenant_id);
	arguments[1] = int64_array(ids, accounts, INT8OID);
	(void) fin_query_run(&select_totals, arguments, NULL, 0);
	accounts = 0;
	for (int i = 0; i < n; i++)
	{
		Datum		total;
		bool		isnull;

		if (!is_first_of_account(rows, i))
			continue;
		total = fin_query_datum(accounts, 1, &isnull);
		totals[accounts] = isnull ? 0 : fin_store_amount(total, rows[i].scale);
		accounts++;
	}
	return totals;
}

static void
write_transfers(int32 tenant_id, const FinValueRow *rows, int n)
{
	FinAmount  *totals = read_totals(tenant_id, rows, n);
	FinAmount	total = 0;
	int			accounts = 0;
	Datum	   *columns[5];
	Datum		arguments[6];

	for (int i = 0; i < (int) lengthof(columns); i++)
		columns[i] = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		if (is_first_of_account(rows, i))
			total = totals[accounts++];
		total += rows[i].change;
		columns[0][i] = Int64GetDatum(rows[i].account_id);
		columns[1][i] = Int64GetDatum(rows[i].transfer_id);
		columns[2][i] = TimestampTzGetDatum(rows[i].effective_at);
		columns[3][i] = fin_amount_datum(rows[i].change, rows[i].scale);
		columns[4][i] = fin_amount_datum(total, rows[i].scale);
	}
	arguments[0] = Int32GetDatum(tenant_id);
	arguments[1] = int64_array(columns[0], n, INT8OID);
	arguments[2] = int64_array(columns[1], n, INT8OID);
	arguments[3] = int64_array(columns[2], n, TIMESTAMPTZOID);
	arguments[4] = numeric_array(columns[3], n);
	arguments[5] = numeric_array(columns[4], n);
	check_written(fin_query_run(&insert_transfers, arguments, NULL, 0), n,
				  "value_transfer");
}

/* ------------------------------------------------------------------------
 * a row for each day
 * ------------------------------------------------------------------------ */

static int
compare_days(const void *a, const void *b)
{
	const ValueDay *left = a;
	const ValueDay *right = b;

	if (left->account_id != right->account_id)
		return left->account_id < right->account_id ? -1 : 1;
	return left->day < right->day ? -1 : left->day > right->day;
}

/* the day in UTC; times before 2000 are negative */
static DateADT
day_of(TimestampTz time)
{
	int64		day = time / USECS_PER_DAY;

	return (DateADT) (time % USECS_PER_DAY < 0 ? day - 1 : day);
}

/* one element for each account and day, ascending; returns how many */
static int
sum_days(const FinValueRow *rows, int n, ValueDay *days)
{
	int			ndays = 0;

	for (int i = 0; i < n; i++)
	{
		days[i].account_id = rows[i].account_id;
		days[i].day = day_of(rows[i].effective_at);
		days[i].scale = rows[i].scale;
		days[i].change = rows[i].change;
	}
	qsort(days, n, sizeof(ValueDay), compare_days);
	for (int i = 0; i < n; i++)
	{
		if (ndays > 0 && compare_days(&days[ndays - 1], &days[i]) == 0)
			days[ndays - 1].change += days[i].change;
		else
			days[ndays++] = days[i];
	}
	return ndays;
}

static void
write_days(int32 tenant_id, const FinValueRow *rows, int n)
{
	ValueDay   *days = MemoryContextAllocHuge(CurrentMemoryContext,
											  sizeof(ValueDay) * n);
	int			ndays = sum_days(rows, n, days);
	Datum	   *columns[3];
	Datum		arguments[4];

	for (int i = 0; i < (int) lengthof(columns); i++)
		columns[i] = palloc(sizeof(Datum) * ndays);
	for (int i = 0; i < ndays; i++)
	{
		columns[0][i] = Int64GetDatum(days[i].account_id);
		columns[1][i] = DateADTGetDatum(days[i].day);
		columns[2][i] = fin_amount_datum(days[i].change, days[i].scale);
	}
	arguments[0] = Int32GetDatum(tenant_id);
	arguments[1] = int64_array(columns[0], ndays, INT8OID);
	arguments[2] = array_of(columns[1], ndays, DATEOID, sizeof(DateADT), true,
							TYPALIGN_INT);
	arguments[3] = numeric_array(columns[2], ndays);
	check_written(fin_query_run(&upsert_days, arguments, NULL, 0), ndays,
				  "value_day");
}

void
fin_store_write_values(int32 tenant_id, FinValueRow *rows, int n)
{
	qsort(rows, n, sizeof(FinValueRow), compare_rows);
	write_transfers(tenant_id, rows, n);
	write_days(tenant_id, rows, n);
}
