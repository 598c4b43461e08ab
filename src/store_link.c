/*
 * store_link.c
 *		Rows that tie transfers together: finance.journal, finance.reversal.
 *
 * Owns the kept plans.  Both are written with their transfers, under the locks
 * of the accounts of these, and never changed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "query.h"
#include "store.h"

static FinQuery insert_journal =
{
	.sql = "INSERT INTO finance.journal (tenant_id, journal_id, type,"
	" transfer_ids, request) VALUES ($1, $2, $3, $4, $5)",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, TEXTOID, INT8ARRAYOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "journal",
};

static FinQuery select_journal =
{
	.sql = "SELECT j.transfer_ids FROM finance.journal j"
	" WHERE j.tenant_id = $1 AND j.journal_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery sum_reversed =
{
	.sql = "SELECT coalesce(pg_catalog.sum(r.amount), 0)"
	" FROM finance.reversal r WHERE r.tenant_id = $1 AND r.transfer_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_reversal =
{
	.sql = "INSERT INTO finance.reversal (tenant_id, transfer_id, reversal_id,"
	" amount) SELECT $1, $2, $3, $4 WHERE $4 + (SELECT"
	" coalesce(pg_catalog.sum(r.amount), 0) FROM finance.reversal r"
	" WHERE r.tenant_id = $1 AND r.transfer_id = $2)"
	" <= (SELECT t.amount FROM finance.transfer t"
	" WHERE t.tenant_id = $1 AND t.id = $2)",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, NUMERICOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "reversal",
};

void
fin_store_write_journal(int32 tenant_id, const int64 *transfer_ids, int n,
						const char *type, Jsonb *request)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(transfer_ids[i]);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(transfer_ids[0]);
	values[2] = CStringGetTextDatum(type);
	values[3] = PointerGetDatum(construct_array(elements, n, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[4] = PointerGetDatum(request);
	if (request == NULL)
		nulls[4] = 'n';
	fin_query_run(&insert_journal, values, nulls, 0);
}

int
fin_store_read_journal(int32 tenant_id, int64 journal_id, int64 **transfer_ids)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(journal_id)};
	Datum	   *elements;
	bool		isnull;
	int			n;

	*transfer_ids = NULL;
	if (fin_query_run(&select_journal, values, NULL, 1) == 0)
		return 0;
	deconstruct_array(DatumGetArrayTypeP(fin_query_datum(0, 1, &isnull)),
					  INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, NULL, &n);
	*transfer_ids = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*transfer_ids)[i] = DatumGetInt64(elements[i]);
	return n;
}

FinAmount
fin_store_sum_reversed(int32 tenant_id, int64 transfer_id, int scale)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(transfer_id)};
	bool		isnull;

	fin_query_run(&sum_reversed, values, NULL, 1);
	return fin_store_amount(fin_query_datum(0, 1, &isnull), scale);
}

void
fin_store_write_reversal(const FinTransferRow *row)
{
	Datum		values[4];

	values[0] = Int32GetDatum(row->tenant_id);
	values[1] = Int64GetDatum(row->reverses_id);
	values[2] = Int64GetDatum(row->id);
	values[3] = fin_amount_datum(row->amount, row->scale);
	/* as was judged under its accounts' locks, but for triggers in between */
	if (fin_query_run(&insert_reversal, values, NULL, 0) != 1)
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("a reversal of transfer " INT64_FORMAT " cannot be written",
					   row->reverses_id),
				errdetail("A trigger reversed it while this reversal was being written, or refused the row."));
}
