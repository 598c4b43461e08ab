/*
 * store.c
 *		The hot tables: locked and written through the table access method
 *		(store_direct.c), or by SPI with kept plans where that will not do.
 *
 * Owns: the plans, and a bounded cache of account codes to ids.  An account's
 * code never changes and accounts are never deleted, so an entry is wrong only
 * when the transaction that made the account rolled back or the extension was
 * dropped; the caller compares the locked row's code and forgets the entry
 * when it differs.
 *
 * Lock order: accounts by ascending id, then idempotency keys.  Where a set of
 * accounts is locked by a statement, its LockRows stands above its sort.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "partition.h"
#include "query.h"
#include "store.h"
#include "store_direct.h"

#define CODE_CACHE_MAX			16384

/* of finance._account: all, and those posting reads, which come first */
#define ACCOUNT_COLUMNS			22
#define ACCOUNT_COLUMNS_READ	20

typedef struct CodeKey
{
	int32		tenant_id;
	char		code[FIN_CODE_LENGTH_MAX + 1];
} CodeKey;

typedef struct CodeEntry
{
	CodeKey		key;
	int64		account_id;
} CodeEntry;

static HTAB *codes = NULL;

/* ------------------------------------------------------------------------
 * accounts by code
 * ------------------------------------------------------------------------ */

static FinQuery find_account =
{
	.sql = "SELECT account_id FROM finance._account"
	" WHERE tenant_id = $1 AND code = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static void
make_code_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(CodeKey),
		.entrysize = sizeof(CodeEntry),
		.hcxt = TopMemoryContext,
	};

	codes = hash_create("finance account codes", 256, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* false when the code is too long to be any account's */
static bool
code_key(int32 tenant_id, const char *code, CodeKey *key)
{
	Size		length = strlen(code);

	if (length > FIN_CODE_LENGTH_MAX)
		return false;
	memset(key, 0, sizeof(CodeKey));
	key->tenant_id = tenant_id;
	memcpy(key->code, code, length);
	return true;
}

static void
remember_code(const CodeKey *key, int64 account_id)
{
	CodeEntry  *entry;

	if (hash_get_num_entries(codes) >= CODE_CACHE_MAX)
	{
		hash_destroy(codes);
		codes = NULL;
		make_code_cache();
	}
	entry = hash_search(codes, key, HASH_ENTER, NULL);
	entry->account_id = account_id;
}

static int64
look_up_code_sql(const CodeKey *key)
{
	Datum		values[2] = {Int32GetDatum(key->tenant_id),
	CStringGetTextDatum(key->code)};

	return fin_query_run(&find_account, values, NULL, 1) == 0 ? 0 :
		fin_query_int64(0, 1);
}

static int64
look_up_code_direct(FinDirect *direct, const CodeKey *key)
{
	ScanKeyData scan[2];
	TupleTableSlot *row;

	ScanKeyInit(&scan[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(key->tenant_id));
	ScanKeyEntryInitialize(&scan[1], 0, 2, BTEqualStrategyNumber, InvalidOid,
						   DEFAULT_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(key->code));
	row = fin_direct_find(direct, scan, 1);
	return row == NULL ? 0 : DatumGetInt64(row->tts_values[0]);
}

/* those the cache does not know; *direct is begun at the first of them */
static int64
look_up_code(const CodeKey *key, FinDirect **direct, bool *begun)
{
	static const AttrNumber columns[] = {2, 19};	/* tenant_id, code */
	int64		account_id;

	if (!*begun)
		*direct = fin_direct_begin_find("_account", "account_code_key",
										ACCOUNT_COLUMNS, columns,
										lengthof(columns));
	*begun = true;
	account_id = *direct != NULL ? look_up_code_direct(*direct, key) :
		look_up_code_sql(key);
	if (account_id != 0)
		remember_code(key, account_id);
	return account_id;
}

void
fin_store_find_accounts(int32 tenant_id, const char *const *wanted, int n,
						int64 *ids)
{
	FinDirect  *direct = NULL;
	bool		begun = false;

	if (codes == NULL)
		make_code_cache();
	for (int i = 0; i < n; i++)
	{
		CodeKey		key;
		CodeEntry  *entry;

		if (wanted[i] == NULL)
			continue;
		ids[i] = 0;
		if (!code_key(tenant_id, wanted[i], &key))
			continue;
		entry = hash_search(codes, &key, HASH_FIND, NULL);
		ids[i] = entry != NULL ? entry->account_id :
			look_up_code(&key, &direct, &begun);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

int64
fin_store_find_account(int32 tenant_id, const char *code)
{
	int64		account_id;

	fin_store_find_accounts(tenant_id, &code, 1, &account_id);
	return account_id;
}

void
fin_store_forget_account(int32 tenant_id, const char *code)
{
	CodeKey		key;

	if (codes != NULL && code_key(tenant_id, code, &key))
		hash_search(codes, &key, HASH_REMOVE, NULL);
}

/* ------------------------------------------------------------------------
 * accounts: lock, write
 * ------------------------------------------------------------------------ */

static FinQuery lock_accounts =
{
	.sql = "SELECT ctid, account_id, tenant_id, minor_units, version,"
	" last_transfer_id, last_debit_id, created_at, spent_on, debits_posted,"
	" credits_posted, debits_pending, credits_pending, spent, min_available,"
	" max_balance, status, currency, type, code, level"
	" FROM finance._account"
	" WHERE tenant_id = $1 AND account_id = ANY ($2)"
	" ORDER BY account_id FOR NO KEY UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

/*
 * One row a statement.  One statement for both accounts of a transfer is not
 * cheaper: over VALUES its expressions are compiled row by row, and a join with
 * a tuple store may be planned the wrong way round while the table is small.
 */
static FinQuery write_account =
{
	.sql = "UPDATE finance._account SET version = $3, last_transfer_id = $4,"
	" last_debit_id = $5, spent_on = $6, debits_posted = $7,"
	" credits_posted = $8, debits_pending = $9, credits_pending = $10,"
	" spent = $11 WHERE tenant_id = $1 AND account_id = $2 AND version = $12",
	.nargs = 12,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, DATEOID,
	NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery try_lock_accounts =
{
	.sql = "SELECT account_id FROM finance._account"
	" WHERE tenant_id = $1 AND account_id = ANY ($2)"
	" ORDER BY account_id FOR NO KEY UPDATE SKIP LOCKED",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

static FinAccountStatus
parse_status(const char *status)
{
	if (strcmp(status, "active") == 0)
		return FIN_ACCOUNT_ACTIVE;
	if (strcmp(status, "debits_frozen") == 0)
		return FIN_ACCOUNT_DEBITS_FROZEN;
	if (strcmp(status, "credits_frozen") == 0)
		return FIN_ACCOUNT_CREDITS_FROZEN;
	if (strcmp(status, "frozen") == 0)
		return FIN_ACCOUNT_FROZEN;
	return FIN_ACCOUNT_CLOSED;
}

FinAmount
fin_store_amount(Datum number, int scale)
{
	FinAmount	amount;

	if (fin_amount_decode(DatumGetNumeric(number), scale, &amount) != FIN_AMOUNT_OK)
		ereport(ERROR,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("stored amount %s does not fit a currency of %d decimals",
					   DatumGetCString(DirectFunctionCall1(numeric_out, number)),
					   scale));
	return amount;
}

/* a text Datum into a C string in 'memory' */
static char *
text_in(MemoryContext memory, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(memory);
	char	   *string = TextDatumGetCString(value);

	MemoryContextSwitchTo(old);
	return string;
}

/* a row of finance._account, columns in the order of the table */
static void
read_account(const Datum *values, const bool *nulls, FinAccount *account,
			 MemoryContext memory)
{
	int			scale = DatumGetInt16(values[2]);
	char	   *currency = TextDatumGetCString(values[16]);

	account->account_id = DatumGetInt64(values[0]);
	account->scale = scale;
	account->version = DatumGetInt64(values[3]);
	account->stored_version = account->version;
	account->last_transfer_id = DatumGetInt64(values[4]);
	account->last_debit_id = DatumGetInt64(values[5]);
	account->spent_on = DatumGetDateADT(values[7]);
	account->debits_posted = fin_store_amount(values[8], scale);
	account->credits_posted = fin_store_amount(values[9], scale);
	account->debits_pending = fin_store_amount(values[10], scale);
	account->credits_pending = fin_store_amount(values[11], scale);
	account->spent = fin_store_amount(values[12], scale);
	account->has_min_available = !nulls[13];
	account->min_available = nulls[13] ? 0 : fin_store_amount(values[13], scale);
	account->has_max_balance = !nulls[14];
	account->max_balance = nulls[14] ? 0 : fin_store_amount(values[14], scale);
	account->status = parse_status(TextDatumGetCString(values[15]));
	strlcpy(account->currency, currency, sizeof(account->currency));
	account->type = text_in(memory, values[17]);
	account->code = text_in(memory, values[18]);
	account->level = nulls[19] ? NULL : text_in(memory, values[19]);
	account->created_at = DatumGetTimestampTz(values[6]);
	account->changed = false;
}

static Datum
id_array(const int64 *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

int
fin_store_try_lock_accounts(int32 tenant_id, const int64 *ids, int n,
							int64 *locked)
{
	Datum		arguments[2] = {Int32GetDatum(tenant_id), id_array(ids, n)};
	int			found = (int) fin_query_run(&try_lock_accounts, arguments,
											NULL, 0);

	for (int i = 0; i < found; i++)
		locked[i] = fin_query_int64(i, 1);
	return found;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

int
fin_store_distinct_ids(int64 *ids, int n)
{
	int			nonzero = 0;

	for (int i = 0; i < n; i++)
	{
		if (ids[i] != 0)
			ids[nonzero++] = ids[i];
	}
	qsort(ids, nonzero, sizeof(int64), compare_ids);
	return (int) qunique(ids, nonzero, sizeof(int64), compare_ids);
}

static int
lock_accounts_sql(int32 tenant_id, const int64 *ids, int n,
				  FinAccount *accounts, MemoryContext memory)
{
	Datum		arguments[2] = {Int32GetDatum(tenant_id), id_array(ids, n)};
	int			found;

	found = (int) fin_query_run(&lock_accounts, arguments, NULL, 0);
	for (int i = 0; i < found; i++)
	{
		Datum		values[1 + ACCOUNT_COLUMNS_READ];
		bool		nulls[1 + ACCOUNT_COLUMNS_READ];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
						  values, nulls);
		read_account(values + 1, nulls + 1, &accounts[i], memory);
		accounts[i].tid = *(ItemPointer) DatumGetPointer(values[0]);
	}
	return found;
}

static int
lock_accounts_direct(FinDirect *direct, int32 tenant_id, const int64 *ids,
					 int n, FinAccount *accounts, MemoryContext memory)
{
	ScanKeyData key[2];
	int			found = 0;

	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(tenant_id));
	for (int i = 0; i < n; i++)
	{
		TupleTableSlot *row;

		ScanKeyInit(&key[1], 2, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(ids[i]));
		row = fin_direct_lock(direct, key, ACCOUNT_COLUMNS_READ);
		if (row == NULL)
			continue;
		read_account(row->tts_values, row->tts_isnull, &accounts[found],
					 memory);
		accounts[found].tid = row->tts_tid;
		found++;
	}
	return found;
}

int
fin_store_lock_accounts(int32 tenant_id, const int64 *ids, int n,
						FinAccount *accounts, MemoryContext memory)
{
	static const AttrNumber key[] = {2, 1};	/* tenant_id, account_id */
	FinDirect  *direct = fin_direct_begin_lock("_account", "account_pkey",
											   ACCOUNT_COLUMNS, key,
											   lengthof(key));
	int			found;

	if (direct == NULL)
		return lock_accounts_sql(tenant_id, ids, n, accounts, memory);
	found = lock_accounts_direct(direct, tenant_id, ids, n, accounts, memory);
	fin_direct_end(direct);
	return found;
}

/* what posting changes of a row of finance._account, by position from 0 */
static const int totals_columns[] = {3, 4, 5, 7, 8, 9, 10, 11, 12};

#define TOTALS_COLUMNS lengthof(totals_columns)
static void
totals_of(const FinAccount *account, Datum *values)
{
	int			scale = account->scale;

	values[0] = Int64GetDatum(account->version);
	values[1] = Int64GetDatum(account->last_transfer_id);
	values[2] = Int64GetDatum(account->last_debit_id);
	values[3] = DateADTGetDatum(account->spent_on);
	values[4] = fin_amount_datum(account->debits_posted, scale);
	values[5] = fin_amount_datum(account->credits_posted, scale);
	values[6] = fin_amount_datum(account->debits_pending, scale);
	values[7] = fin_amount_datum(account->credits_pending, scale);
	values[8] = fin_amount_datum(account->spent, scale);
}

static void
write_account_sql(int32 tenant_id, const FinAccount *account)
{
	Datum		values[3 + TOTALS_COLUMNS];

	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	totals_of(account, values + 2);
	values[2 + TOTALS_COLUMNS] = Int64GetDatum(account->stored_version);
	/* ours to write since it was locked, but for triggers in between */
	if (fin_query_run(&write_account, values, NULL, 0) != 1)
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("account \"%s\" cannot be written", account->code),
				errdetail("A trigger changed it while its transfer was being written, or refused the new row."),
				errhint("Transfer in a trigger on finance.transfer, not on finance._account."));
}

void
fin_store_write_accounts(int32 tenant_id, FinAccount *accounts, int n)
{
	FinDirect  *direct = fin_direct_begin_update("_account", ACCOUNT_COLUMNS);

	for (int i = 0; i < n; i++)
	{
		Datum		values[TOTALS_COLUMNS];

		if (!accounts[i].changed)
			continue;
		accounts[i].changed = false;
		if (direct == NULL)
		{
			write_account_sql(tenant_id, &accounts[i]);
			continue;
		}
		totals_of(&accounts[i], values);
		fin_direct_update(direct, &accounts[i].tid, totals_columns,
						  TOTALS_COLUMNS, values, fin_store_check_totals);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

/* ------------------------------------------------------------------------
 * transfers
 * ------------------------------------------------------------------------ */

#define TRANSFER_COLUMNS 23

/* in the order of the table's columns; amount is a domain over numeric */
static const Oid transfer_types[TRANSFER_COLUMNS] = {
	INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, INT4OID, UUIDOID, InvalidOid,
	NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, TEXTOID,
	TEXTOID, TEXTOID, TEXTOID, JSONBOID
};

static FinQuery insert_transfer =
{
	.sql = "INSERT INTO finance.transfer (id, from_account_id, to_account_id,"
	" from_version, to_version, recorded_at, effective_at, hold_id,"
	" journal_id, reverses_id, tenant_id, trace_id, amount, from_balance,"
	" to_balance, from_held, to_held, released, status, type, currency,"
	" reference, metadata)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
	" $15, $16, $17, $18, $19, $20, $21, $22, $23)",
	.nargs = TRANSFER_COLUMNS,
	.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, INT4OID, UUIDOID,
		NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID,
	NUMERICOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery select_transfer =
{
	.sql = "SELECT t.id, t.tenant_id, t.from_account_id, t.to_account_id,"
	" t.from_version, t.to_version, t.recorded_at, t.effective_at,"
	" t.trace_id, t.amount, t.from_balance, t.to_balance, t.from_held,"
	" t.to_held, t.status, t.type, t.currency, t.reference, t.metadata,"
	" a.minor_units, t.hold_id, t.journal_id, t.reverses_id, t.released"
	", a.code, b.code FROM finance.transfer t JOIN finance._account a"
	" ON a.tenant_id = t.tenant_id AND a.account_id = t.from_account_id"
	" JOIN finance._account b"
	" ON b.tenant_id = t.tenant_id AND b.account_id = t.to_account_id"
	" WHERE t.tenant_id = $1 AND t.id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

/* a text that may be NULL, and whether it is */
static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* the same for an id, and for an amount, of which there is none at 0 */
static Datum
id_or_null(int64 id, bool *isnull)
{
	*isnull = id == 0;
	return Int64GetDatum(id);
}

static Datum
amount_or_null(FinAmount amount, int scale, bool *isnull)
{
	*isnull = amount == 0;
	return amount == 0 ? (Datum) 0 : fin_amount_datum(amount, scale);
}

static void
transfer_columns(const FinTransferRow *row, Datum *values, bool *nulls)
{
	const FinSide *from = &row->moved.from;
	const FinSide *to = &row->moved.to;
	int			scale = row->scale;

	memset(nulls, false, TRANSFER_COLUMNS);
	values[0] = Int64GetDatum(row->id);
	values[1] = Int64GetDatum(row->from_account_id);
	values[2] = Int64GetDatum(row->to_account_id);
	values[3] = Int64GetDatum(from->version);
	values[4] = Int64GetDatum(to->version);
	nulls[3] = nulls[4] = row->rejected;
	values[5] = TimestampTzGetDatum(row->recorded_at);
	values[6] = TimestampTzGetDatum(row->effective_at);
	nulls[6] = !row->has_effective_at;
	values[7] = id_or_null(row->hold_id, &nulls[7]);
	values[8] = id_or_null(row->journal_id, &nulls[8]);
	values[9] = id_or_null(row->reverses_id, &nulls[9]);
	values[10] = Int32GetDatum(row->tenant_id);
	values[11] = UUIDPGetDatum(&row->trace_id);
	values[12] = fin_amount_datum(row->amount, scale);
	values[13] = fin_amount_datum(from->balance_after, scale);
	values[14] = fin_amount_datum(to->balance_after, scale);
	/* nothing held or released, as nearly always, takes one bit */
	values[15] = amount_or_null(from->held_after, scale, &nulls[15]);
	values[16] = amount_or_null(to->held_after, scale, &nulls[16]);
	values[17] = amount_or_null(row->released, scale, &nulls[17]);
	values[18] = CStringGetTextDatum(row->status);
	values[19] = CStringGetTextDatum(row->type);
	values[20] = CStringGetTextDatum(row->currency);
	values[21] = text_or_null(row->reference, &nulls[21]);
	values[22] = PointerGetDatum(row->metadata);
	nulls[22] = row->metadata == NULL;
}

static void
write_transfer_sql(int64 id, Datum *values, const bool *nulls)
{
	char		flags[TRANSFER_COLUMNS];

	for (int i = 0; i < TRANSFER_COLUMNS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	(void) fin_partition_ensure(FIN_PARTITIONED_TRANSFER, id);
	if (fin_query_run(&insert_transfer, values, flags, 0) != 1)
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("transfer " INT64_FORMAT " cannot be written", id),
				errdetail("A trigger or rule on finance.transfer suppressed its row."));
}

void
fin_store_write_transfers(const FinTransferRow *const *rows, int n)
{
	FinDirect  *direct = fin_direct_begin_append(FIN_PARTITIONED_TRANSFER,
												 transfer_types,
												 TRANSFER_COLUMNS);
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext each = AllocSetContextCreate(outer, "finance transfer row",
											   ALLOCSET_SMALL_SIZES);

	for (int i = 0; i < n; i++)
	{
		Datum		values[TRANSFER_COLUMNS];
		bool		nulls[TRANSFER_COLUMNS];

		MemoryContextSwitchTo(each);
		transfer_columns(rows[i], values, nulls);
		MemoryContextSwitchTo(outer);
		if (direct == NULL ||
			!fin_direct_append(direct, rows[i]->id, values, nulls))
			write_transfer_sql(rows[i]->id, values, nulls);
		MemoryContextReset(each);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

static void
fill_transfer(Datum *values, bool *nulls, FinTransferRow *row,
			  MemoryContext memory)
{
	MemoryContext old;
	int			scale = DatumGetInt16(values[19]);
	FinSide    *from = &row->moved.from;
	FinSide    *to = &row->moved.to;

	row->id = DatumGetInt64(values[0]);
	row->tenant_id = DatumGetInt32(values[1]);
	row->from_account_id = DatumGetInt64(values[2]);
	row->to_account_id = DatumGetInt64(values[3]);
	row->rejected = nulls[4];
	from->version = nulls[4] ? 0 : DatumGetInt64(values[4]);
	to->version = nulls[5] ? 0 : DatumGetInt64(values[5]);
	row->recorded_at = DatumGetTimestampTz(values[6]);
	row->has_effective_at = !nulls[7];
	row->effective_at = nulls[7] ? 0 : DatumGetTimestampTz(values[7]);
	row->trace_id = *DatumGetUUIDP(values[8]);
	row->scale = scale;
	row->amount = fin_store_amount(values[9], scale);
	from->balance_after = fin_store_amount(values[10], scale);
	to->balance_after = fin_store_amount(values[11], scale);
	from->held_after = nulls[12] ? 0 : fin_store_amount(values[12], scale);
	to->held_after = nulls[13] ? 0 : fin_store_amount(values[13], scale);
	row->status = text_in(memory, values[14]);
	row->type = text_in(memory, values[15]);
	row->currency = text_in(memory, values[16]);
	row->reference = nulls[17] ? NULL : text_in(memory, values[17]);
	old = MemoryContextSwitchTo(memory);
	row->metadata = nulls[18] ? NULL : DatumGetJsonbPCopy(values[18]);
	MemoryContextSwitchTo(old);
	row->hold_id = nulls[20] ? 0 : DatumGetInt64(values[20]);
	row->journal_id = nulls[21] ? 0 : DatumGetInt64(values[21]);
	row->reverses_id = nulls[22] ? 0 : DatumGetInt64(values[22]);
	row->released = nulls[23] ? 0 : fin_store_amount(values[23], scale);
}

bool
fin_store_read_transfer(int32 tenant_id, int64 id, FinTransferRow *row,
						const char **from_code, const char **to_code,
						MemoryContext memory)
{
	Datum		arguments[2] = {Int32GetDatum(tenant_id), Int64GetDatum(id)};
	Datum		values[26];
	bool		nulls[26];

	if (fin_query_run(&select_transfer, arguments, NULL, 1) == 0)
		return false;
	heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
					  values, nulls);
	fill_transfer(values, nulls, row, memory);
	if (from_code != NULL)
		*from_code = text_in(memory, values[24]);
	if (to_code != NULL)
		*to_code = text_in(memory, values[25]);
	return true;
}

/* ------------------------------------------------------------------------
 * risk decisions
 * ------------------------------------------------------------------------ */

static FinQuery select_rejection =
{
	.sql = "SELECT rule FROM finance.risk_decision"
	" WHERE tenant_id = $1 AND transfer_id = $2 AND mode = 'live'",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

char *
fin_store_read_rejection(int32 tenant_id, int64 transfer_id,
						 MemoryContext memory)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int64GetDatum(transfer_id)};
	Datum		rule;
	bool		isnull;

	if (fin_query_run(&select_rejection, values, NULL, 1) == 0)
		return NULL;
	rule = fin_query_datum(0, 1, &isnull);
	return isnull ? NULL : text_in(memory, rule);
}

