/*
 * store_key.c
 *		The rows of finance.idempotency_key.
 *
 * Owns the kept plans.
 *
 * Locks: taking a key waits for another transaction that is taking the same;
 * callers give keys in ascending order, so that two never wait for each other.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "query.h"
#include "store.h"
#include "store_direct.h"

#define KEY_COLUMNS 6
#define KEYS_MANY 16				/* so many are worth a subtransaction */

static const Oid key_types[KEY_COLUMNS] = {
	INT4OID, TEXTOID, INT8OID, INT8OID, INT8OID, JSONBOID
};

static FinQuery insert_key =
{
	.sql = "INSERT INTO finance.idempotency_key (tenant_id, key, transfer_id,"
	" expected_from_version, expected_to_version, request)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, key) DO NOTHING",
	.nargs = KEY_COLUMNS,
	.argtypes = {INT4OID, TEXTOID, INT8OID, INT8OID, INT8OID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_key =
{
	.sql = "DELETE FROM finance.idempotency_key"
	" WHERE tenant_id = $1 AND key = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery select_key =
{
	.sql = "SELECT transfer_id, expected_from_version, expected_to_version,"
	" request"
	" FROM finance.idempotency_key WHERE tenant_id = $1 AND key = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static void
key_columns(int32 tenant_id, const FinKeyRow *row, Datum *values, bool *nulls)
{
	memset(nulls, false, KEY_COLUMNS);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(row->key);
	values[2] = Int64GetDatum(row->transfer_id);
	values[3] = Int64GetDatum(row->expected_from_version);
	nulls[3] = row->expected_from_version == FIN_NO_VERSION;
	values[4] = Int64GetDatum(row->expected_to_version);
	nulls[4] = row->expected_to_version == FIN_NO_VERSION;
	values[5] = PointerGetDatum(row->request);
	nulls[5] = row->request == NULL;
}

static bool
take_key_sql(Datum *values, const bool *nulls)
{
	char		flags[KEY_COLUMNS];

	for (int i = 0; i < KEY_COLUMNS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	return fin_query_run(&insert_key, values, flags, 0) == 1;
}

/* false when it must be done another way; an error when a key is taken */
static bool
insert_keys(int32 tenant_id, const FinKeyRow *const *rows, int n)
{
	FinDirect  *direct = fin_direct_begin_insert(fin_query_relation("idempotency_key"),
												 key_types, KEY_COLUMNS);

	if (direct == NULL)
		return false;
	for (int i = 0; i < n; i++)
	{
		Datum		values[KEY_COLUMNS];
		bool		nulls[KEY_COLUMNS];

		key_columns(tenant_id, rows[i], values, nulls);
		fin_direct_put(direct, values, nulls);
	}
	fin_direct_end(direct);
	return true;
}

/*
 * Many keys are nearly always all free: inserted in one go, in a
 * subtransaction, they cost half of what asking for each does.  False, and
 * nothing taken, when one was not free.
 */
static bool
take_all_keys(int32 tenant_id, const FinKeyRow *const *rows, int n)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY();
	{
		taken = insert_keys(tenant_id, rows, n);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(memory);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
			ReThrowError(error);
		taken = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	return taken;
}

static int
take_keys_singly(int32 tenant_id, const FinKeyRow *const *rows, int n,
				 bool *ours)
{
	FinDirect  *direct = fin_direct_begin_unique("idempotency_key", key_types,
												 KEY_COLUMNS);
	int			taken = 0;

	for (int i = 0; i < n; i++)
	{
		Datum		values[KEY_COLUMNS];
		bool		nulls[KEY_COLUMNS];

		key_columns(tenant_id, rows[i], values, nulls);
		ours[i] = direct != NULL ?
			fin_direct_insert_unique(direct, values, nulls) :
			take_key_sql(values, nulls);
		taken += ours[i];
	}
	if (direct != NULL)
		fin_direct_end(direct);
	return taken;
}

int
fin_store_take_keys(int32 tenant_id, const FinKeyRow *const *rows, int n,
					bool *ours)
{
	if (n < KEYS_MANY || !take_all_keys(tenant_id, rows, n))
		return take_keys_singly(tenant_id, rows, n, ours);
	memset(ours, true, sizeof(bool) * n);
	return n;
}

void
fin_store_drop_key(int32 tenant_id, const char *key)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), CStringGetTextDatum(key)};

	fin_query_run(&delete_key, values, NULL, 0);
}

bool
fin_store_read_key(int32 tenant_id, const char *key, FinKeyRow *row,
				   MemoryContext memory)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), CStringGetTextDatum(key)};
	MemoryContext old;
	bool		isnull;
	Datum		value;

	if (fin_query_run(&select_key, values, NULL, 1) == 0)
		return false;
	row->key = key;
	row->transfer_id = fin_query_int64(0, 1);
	value = fin_query_datum(0, 2, &isnull);
	row->expected_from_version = isnull ? FIN_NO_VERSION : DatumGetInt64(value);
	value = fin_query_datum(0, 3, &isnull);
	row->expected_to_version = isnull ? FIN_NO_VERSION : DatumGetInt64(value);
	value = fin_query_datum(0, 4, &isnull);
	old = MemoryContextSwitchTo(memory);
	row->request = isnull ? NULL : DatumGetJsonbPCopy(value);
	MemoryContextSwitchTo(old);
	return true;
}
