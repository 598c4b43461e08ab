/*
 * store_measure.c
 *		The rows of finance.risk_total, and what the history says instead.
 *
 * Owns the kept plans.
 *
 * Nearly all rows are read and written only under the lock of the account they
 * are of, so reading them takes no lock of its own, and the row read is the
 * newest.  Under REPEATABLE READ it may not be, although its account is as the
 * snapshot has it, since a rejected transfer can have left totals; there it is
 * locked, and what the snapshot does not see is refused with 40001.
 *
 * Locks: the rows of types are of no account.  They are locked FOR NO KEY
 * UPDATE when read, one after another in ascending order, and made where there
 * are none before the next one is locked.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "compat.h"
#include "query.h"
#include "store_direct.h"
#include "store_measure.h"
#include "store_spot.h"

#define TOTAL_COLUMNS	5
#define TOTAL_KEYS		4

/* in the order of the table's columns */
static const Oid total_types[TOTAL_COLUMNS] = {
	INT8OID, INT8OID, INT4OID, TEXTOID, BYTEAOID
};

/* tenant_id, account_id, other_id, class */
static const AttrNumber total_key[TOTAL_KEYS] = {3, 1, 2, 4};

#define OF_KEY \
	" WHERE tenant_id = $1 AND account_id = $2 AND other_id = $3 AND class = $4"

static FinQuery select_total =
{
	.sql = "SELECT ctid, state FROM finance.risk_total" OF_KEY,
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_total =
{
	.sql = "SELECT ctid, state FROM finance.risk_total" OF_KEY
	" FOR NO KEY UPDATE",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_total =
{
	.sql = "INSERT INTO finance.risk_total (tenant_id, account_id, other_id,"
	" class, state) VALUES ($1, $2, $3, $4, $5)"
	" ON CONFLICT (tenant_id, account_id, other_id, class) DO NOTHING",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, BYTEAOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery update_total =
{
	.sql = "UPDATE finance.risk_total SET state = $5" OF_KEY " AND state = $6",
	.nargs = 6,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, BYTEAOID, BYTEAOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

/* the class of a total of a type is that of fin_meter: currency and type */
static FinQuery select_classes =
{
	.sql = "SELECT u.n, r.class FROM unnest($2) WITH ORDINALITY AS u (hold_id, n)"
	" CROSS JOIN LATERAL (SELECT a.currency || ' ' || h.type AS class"
	" FROM finance._hold h JOIN finance._account a"
	" ON a.tenant_id = h.tenant_id AND a.account_id = h.from_account_id"
	" WHERE h.tenant_id = $1 AND h.hold_id = u.hold_id OFFSET 0) c"
	" CROSS JOIN LATERAL (SELECT t.class FROM finance.risk_total t"
	" WHERE t.tenant_id = $1 AND t.account_id = 0 AND t.other_id = 0"
	" AND t.class = c.class OFFSET 0) r",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery try_lock_classes =
{
	.sql = "SELECT class FROM finance.risk_total WHERE tenant_id = $1"
	" AND account_id = 0 AND other_id = 0 AND class = ANY ($2)"
	" ORDER BY class FOR NO KEY UPDATE SKIP LOCKED",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTARRAYOID},
	.expect = SPI_OK_SELECT,
};

int
fin_store_compare_totals(const FinTotalKey *a, const FinTotalKey *b)
{
	if (a->account_id != b->account_id)
		return a->account_id < b->account_id ? -1 : 1;
	if (a->other_id != b->other_id)
		return a->other_id < b->other_id ? -1 : 1;
	return strcmp(a->class, b->class);
}

static FIN_NORETURN void
refuse_changed_meanwhile(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to concurrent update"));
	ereport(ERROR,
			errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			errmsg("totals of risk cannot be written"),
			errdetail("A trigger changed them while their transfer was being written, or suppressed a row of finance.risk_total."),
			errhint("Transfer in a trigger on finance.transfer."));
}

static void
key_values(int32 tenant_id, const FinTotalKey *key, Datum *values)
{
	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(key->account_id);
	values[2] = Int64GetDatum(key->other_id);
	values[3] = CStringGetTextDatum(key->class);
}

/* ------------------------------------------------------------------------
 * read
 * ------------------------------------------------------------------------ */

static FinDirect *
begin_read(bool reading)
{
	return reading ?
		fin_direct_begin_find("risk_total", "risk_total_pkey", TOTAL_COLUMNS,
							  total_key, TOTAL_KEYS) :
		fin_direct_begin_lock("risk_total", "risk_total_pkey", TOTAL_COLUMNS,
							  total_key, TOTAL_KEYS);
}

static void
take_row(const TupleTableSlot *slot, FinTotalRow *row)
{
	row->state = DatumGetByteaPCopy(slot->tts_values[TOTAL_COLUMNS - 1]);
	row->tid = slot->tts_tid;
}

static void
read_direct(FinDirect *direct, int32 tenant_id, FinTotalRow *row, bool lock)
{
	ScanKeyData key[TOTAL_KEYS];
	TupleTableSlot *slot;

	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(tenant_id));
	ScanKeyInit(&key[1], 2, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(row->key.account_id));
	ScanKeyInit(&key[2], 3, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(row->key.other_id));
	ScanKeyEntryInitialize(&key[3], 0, 4, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(row->key.class));
	slot = lock ? fin_direct_lock(direct, key, TOTAL_COLUMNS) :
		fin_direct_find(direct, key, TOTAL_COLUMNS);
	row->found = slot != NULL;
	if (slot == NULL)
		return;
	take_row(slot, row);
	if (!lock)
	{
		ItemPointerData root = fin_direct_root(direct);

		fin_store_spot_note(tenant_id, &row->key, &root);
	}
}

/* is it the row of this key? */
static bool
has_key(const TupleTableSlot *slot, int32 tenant_id, const FinTotalKey *key)
{
	const text *class;

	if (DatumGetInt64(slot->tts_values[0]) != key->account_id ||
		DatumGetInt64(slot->tts_values[1]) != key->other_id ||
		DatumGetInt32(slot->tts_values[2]) != tenant_id)
		return false;
	class = DatumGetTextPP(slot->tts_values[3]);
	return VARSIZE_ANY_EXHDR(class) == strlen(key->class) &&
		memcmp(VARDATA_ANY(class), key->class, VARSIZE_ANY_EXHDR(class)) == 0;
}

/* those that are where they were before; returns how many are not */
static int
seek_rows(int32 tenant_id, FinTotalRow *const *rows, int n)
{
	FinDirect  *direct = fin_direct_begin_seek("risk_total", TOTAL_COLUMNS);
	int			left = n;

	if (direct == NULL)
		return n;
	for (int i = 0; i < n; i++)
	{
		ItemPointerData root;
		TupleTableSlot *slot = NULL;

		if (fin_store_spot_find(tenant_id, &rows[i]->key, &root))
			slot = fin_direct_seek(direct, &root, TOTAL_COLUMNS);
		if (slot == NULL || !has_key(slot, tenant_id, &rows[i]->key))
			continue;
		take_row(slot, rows[i]);
		rows[i]->found = true;
		left--;
	}
	fin_direct_end(direct);
	return left;
}

static void
read_sql(int32 tenant_id, FinTotalRow *row, bool lock)
{
	Datum		values[TOTAL_KEYS];
	bool		isnull;

	key_values(tenant_id, &row->key, values);
	row->found = fin_query_run(lock ? &lock_total : &select_total, values, NULL,
							   1) == 1;
	if (!row->found)
		return;
	row->tid = *(ItemPointer) DatumGetPointer(fin_query_datum(0, 1, &isnull));
	row->state = DatumGetByteaPCopy(fin_query_datum(0, 2, &isnull));
}

static bool
insert_sql(int32 tenant_id, const FinTotalRow *row, bytea *state)
{
	Datum		values[TOTAL_KEYS + 1];

	key_values(tenant_id, &row->key, values);
	values[TOTAL_KEYS] = PointerGetDatum(state);
	return fin_query_run(&insert_total, values, NULL, 0) == 1;
}

static bool
insert_direct(FinDirect *direct, int32 tenant_id, const FinTotalRow *row,
			  bytea *state)
{
	Datum		values[TOTAL_COLUMNS];
	bool		nulls[TOTAL_COLUMNS] = {false};

	values[0] = Int64GetDatum(row->key.account_id);
	values[1] = Int64GetDatum(row->key.other_id);
	values[2] = Int32GetDatum(tenant_id);
	values[3] = CStringGetTextDatum(row->key.class);
	values[4] = PointerGetDatum(state);
	return fin_direct_insert_unique(direct, values, nulls);
}

/* an empty row; somebody else may have made it meanwhile */
static void
make_row(int32 tenant_id, const FinTotalRow *row)
{
	bytea	   *empty = palloc(VARHDRSZ);
	FinDirect  *direct;

	SET_VARSIZE(empty, VARHDRSZ);
	direct = fin_direct_begin_unique("risk_total", total_types, TOTAL_COLUMNS);
	if (direct == NULL)
	{
		(void) insert_sql(tenant_id, row, empty);
		return;
	}
	(void) insert_direct(direct, tenant_id, row, empty);
	fin_direct_end(direct);
}

static void
read_one(int32 tenant_id, FinTotalRow *row, bool lock)
{
	FinDirect  *direct = begin_read(!lock);

	if (direct == NULL)
	{
		read_sql(tenant_id, row, lock);
		return;
	}
	read_direct(direct, tenant_id, row, lock);
	fin_direct_end(direct);
}

/* the row of a type, locked, and made if need be */
static void
lock_type(int32 tenant_id, FinTotalRow *row)
{
	read_one(tenant_id, row, true);
	if (row->found)
		return;
	make_row(tenant_id, row);
	read_one(tenant_id, row, true);
	if (!row->found)
		refuse_changed_meanwhile();
}

void
fin_store_read_totals(int32 tenant_id, FinTotalRow *const *rows, int n,
					  bool reading)
{
	bool		lock = !reading && IsolationUsesXactSnapshot();
	int			start = 0;
	FinDirect  *direct;

	/* of no account: they come first */
	while (!reading && start < n && rows[start]->must_lock)
		lock_type(tenant_id, rows[start++]);
	if (start == n || seek_rows(tenant_id, rows + start, n - start) == 0)
		return;
	direct = begin_read(reading);
	for (int i = start; i < n; i++)
	{
		if (rows[i]->found)
			continue;
		if (direct != NULL)
			read_direct(direct, tenant_id, rows[i], lock);
		else
			read_sql(tenant_id, rows[i], lock);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

/* ------------------------------------------------------------------------
 * write
 * ------------------------------------------------------------------------ */

static void
update_sql(int32 tenant_id, const FinTotalRow *row)
{
	Datum		values[TOTAL_KEYS + 2];

	key_values(tenant_id, &row->key, values);
	values[TOTAL_KEYS] = PointerGetDatum(row->new_state);
	values[TOTAL_KEYS + 1] = PointerGetDatum(row->state);
	if (fin_query_run(&update_total, values, NULL, 0) != 1)
		refuse_changed_meanwhile();
}

static void
update_found(int32 tenant_id, FinTotalRow *const *rows, int n)
{
	static const int columns[] = {TOTAL_COLUMNS - 1};
	FinDirect  *direct = fin_direct_begin_update("risk_total", TOTAL_COLUMNS);

	for (int i = 0; i < n; i++)
	{
		Datum		value = PointerGetDatum(rows[i]->new_state);

		if (!rows[i]->found || rows[i]->new_state == NULL)
			continue;
		if (direct != NULL)
			fin_direct_update(direct, &rows[i]->tid, columns,
							  lengthof(columns), &value, NULL);
		else
			update_sql(tenant_id, rows[i]);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

static void
insert_new(int32 tenant_id, FinTotalRow *const *rows, int n)
{
	FinDirect  *direct = fin_direct_begin_unique("risk_total", total_types,
												 TOTAL_COLUMNS);

	for (int i = 0; i < n; i++)
	{
		FinTotalRow *row = rows[i];

		if (row->found || row->new_state == NULL)
			continue;
		if (!(direct != NULL ?
			  insert_direct(direct, tenant_id, row, row->new_state) :
			  insert_sql(tenant_id, row, row->new_state)))
			refuse_changed_meanwhile();
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

void
fin_store_write_totals(int32 tenant_id, FinTotalRow *const *rows, int n)
{
	bool		any_found = false;
	bool		any_new = false;

	for (int i = 0; i < n; i++)
	{
		if (rows[i]->new_state == NULL)
			continue;
		any_found = any_found || rows[i]->found;
		any_new = any_new || !rows[i]->found;
	}
	if (any_found)
		update_found(tenant_id, rows, n);
	if (any_new)
		insert_new(tenant_id, rows, n);
}

/* ------------------------------------------------------------------------
 * lock without waiting
 * ------------------------------------------------------------------------ */

static Datum
array_of(Datum *elements, int n, Oid type)
{
	if (type == INT8OID)
		return PointerGetDatum(construct_array(elements, n, type, sizeof(int64),
											   FLOAT8PASSBYVAL,
											   TYPALIGN_DOUBLE));
	return PointerGetDatum(construct_array(elements, n, type, -1, false,
										   TYPALIGN_INT));
}

void
fin_store_try_lock_totals(int32 tenant_id, const int64 *hold_ids, int n,
						  bool *locked)
{
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *wanted = palloc(sizeof(Datum) * n);
	char	  **of_hold = palloc0(sizeof(char *) * n);
	Datum		values[2] = {Int32GetDatum(tenant_id)};
	int			found;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(hold_ids[i]);
		locked[i] = true;
	}
	values[1] = array_of(ids, n, INT8OID);
	found = (int) fin_query_run(&select_classes, values, NULL, 0);
	for (int i = 0; i < found; i++)
	{
		int			hold = (int) fin_query_int64(i, 1) - 1;

		of_hold[hold] = fin_query_text(i, 2);
		wanted[i] = CStringGetTextDatum(of_hold[hold]);
		locked[hold] = false;
	}
	if (found == 0)
		return;
	values[1] = array_of(wanted, found, TEXTOID);
	found = (int) fin_query_run(&try_lock_classes, values, NULL, 0);
	for (int i = 0; i < found; i++)
	{
		char	   *class = fin_query_text(i, 1);

		for (int hold = 0; hold < n; hold++)
		{
			if (of_hold[hold] != NULL && strcmp(of_hold[hold], class) == 0)
				locked[hold] = true;
		}
	}
}

/* ------------------------------------------------------------------------
 * the history
 * ------------------------------------------------------------------------ */

/*
 * What was counted: transfers, and holds when they were made, whether they are
 * captured or not.  Captures are not: they were counted as held.
 */
#define PAST_COLUMNS \
	"SELECT t.id, t.amount::numeric, coalesce(h.released, 0)," \
	" coalesce(h.captured = 0 AND h.status <> 'open', false)" \
	" FROM finance.transfer t" \
	" LEFT JOIN LATERAL (SELECT x.released, x.captured, x.status" \
	" FROM finance._hold x WHERE x.tenant_id = $1 AND x.hold_id = t.hold_id" \
	" OFFSET 0) h ON true"
#define PAST_COUNTED \
	" AND t.from_version IS NOT NULL AND (t.hold_id = t.id" \
	" OR (t.hold_id IS NULL AND t.status = 'completed'))" \
	" ORDER BY t.id LIMIT $4"

/*
 * The "+ 0" leaves the planner no other index: while the table is small it
 * would take the primary key, walk the tenant's history, and keep that plan.
 */
static FinQuery past_of_payer =
{
	.sql = PAST_COLUMNS " WHERE t.from_account_id = $2 AND t.id >= $3"
	" AND t.tenant_id + 0 = $1"
	" AND ($5::bigint IS NULL OR t.to_account_id = $5)"
	" AND ($6::text IS NULL OR t.type = $6)"
	" AND ($7::text IS NULL OR t.metadata -> 'device' = to_jsonb($7::text))"
	PAST_COUNTED,
	.nargs = 7,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery past_of_payee =
{
	.sql = PAST_COLUMNS " WHERE t.to_account_id = $2 AND t.id >= $3"
	" AND t.tenant_id + 0 = $1"
	" AND ($5::bigint IS NULL OR t.from_account_id = $5)" PAST_COUNTED,
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery past_of_type =
{
	.sql = PAST_COLUMNS " WHERE t.tenant_id = $1 AND t.id >= $3"
	" AND t.type = $2 AND t.currency = $5" PAST_COUNTED,
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, INT8OID, INT8OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery is_payer_shorter =
{
	.sql = "SELECT (SELECT a.version FROM finance._account a"
	" WHERE a.tenant_id = $1 AND a.account_id = $2)"
	" <= (SELECT b.version FROM finance._account b"
	" WHERE b.tenant_id = $1 AND b.account_id = $3)",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

#define LAST_OF(name) \
	"SELECT t.id, t.metadata ->> '" name "' FROM finance.transfer t" \
	" WHERE t.from_account_id = $2 AND t.tenant_id + 0 = $1" \
	" AND jsonb_typeof(t.metadata -> '" name "') = 'string'" \
	" AND octet_length(t.metadata ->> '" name "') BETWEEN 1 AND 128" \
	" AND t.from_version IS NOT NULL AND (t.hold_id = t.id" \
	" OR (t.hold_id IS NULL AND t.status = 'completed'))" \
	" ORDER BY t.id DESC LIMIT 1"

static FinQuery last_device =
{
	.sql = LAST_OF("device"),
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery last_country =
{
	.sql = LAST_OF("country"),
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

/* of a pair: which of the two has less of a history? */
static bool
starts_at_payer(int32 tenant_id, const FinTotalKey *key)
{
	Datum		values[3];
	bool		isnull;

	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(key->account_id);
	values[2] = Int64GetDatum(key->other_id);
	fin_query_run(&is_payer_shorter, values, NULL, 1);
	return DatumGetBool(fin_query_datum(0, 1, &isnull)) && !isnull;
}

static uint64
run_past(int32 tenant_id, FinScope scope, const FinTotalKey *key,
		 const char *type, const char *currency, const char *device,
		 int64 after)
{
	Datum		values[7] = {0};
	char		nulls[7] = {' ', ' ', ' ', ' ', 'n', 'n', 'n'};

	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(key->account_id);
	values[2] = Int64GetDatum(after);
	values[3] = Int64GetDatum(FIN_PAST_MAX);
	if (scope == FIN_SCOPE_TYPE)
	{
		values[1] = CStringGetTextDatum(type);
		values[4] = CStringGetTextDatum(currency);
		return fin_query_run(&past_of_type, values, NULL, 0);
	}
	if (scope == FIN_SCOPE_COUNTERPARTY)
	{
		values[1] = Int64GetDatum(key->other_id);
		return fin_query_run(&past_of_payee, values, nulls, 0);
	}
	if (scope == FIN_SCOPE_PAIR)
	{
		bool		at_payer = starts_at_payer(tenant_id, key);

		values[1] = Int64GetDatum(at_payer ? key->account_id : key->other_id);
		values[4] = Int64GetDatum(at_payer ? key->other_id : key->account_id);
		nulls[4] = ' ';
		return fin_query_run(at_payer ? &past_of_payer : &past_of_payee, values,
							 nulls, 0);
	}
	if (scope == FIN_SCOPE_ACCOUNT_TYPE)
	{
		values[5] = CStringGetTextDatum(type);
		nulls[5] = ' ';
	}
	if (scope == FIN_SCOPE_DEVICE)
	{
		values[6] = CStringGetTextDatum(device);
		nulls[6] = ' ';
	}
	return fin_query_run(&past_of_payer, values, nulls, 0);
}

int
fin_store_read_past(int32 tenant_id, FinScope scope, const FinTotalKey *key,
					const char *type, const char *currency,
					const char *device, int scale, int64 after, FinPast *rows)
{
	uint64		n = run_past(tenant_id, scope, key, type, currency, device,
							 after);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		rows[i].id = fin_query_int64(i, 1);
		rows[i].amount = fin_store_amount(fin_query_datum(i, 2, &isnull), scale);
		rows[i].given_back = fin_store_amount(fin_query_datum(i, 3, &isnull),
											  scale);
		rows[i].ended_unused = DatumGetBool(fin_query_datum(i, 4, &isnull));
	}
	/* a long history is read page by page, not kept */
	SPI_freetuptable(SPI_tuptable);
	return (int) n;
}

char *
fin_store_read_last(int32 tenant_id, int64 account_id, FinPeriod period,
					int64 *id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int64GetDatum(account_id)};

	if (fin_query_run(period == FIN_PERIOD_LAST_DEVICE ? &last_device :
					  &last_country, values, NULL, 1) == 0)
		return NULL;
	*id = fin_query_int64(0, 1);
	return fin_query_text(0, 2);
}
