/*
 * store_hold.c
 *		The rows of finance._hold.
 *
 * Owns the kept plans.  A hold's row is read and written only under the locks
 * of both its accounts, which every change of it takes first; so reading it
 * needs no lock of its own, and the row read is the newest.  Only a trigger
 * that runs between the writing of two holds may find one that is not written
 * yet; when it changes that, the writing fails.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "query.h"
#include "store.h"
#include "store_direct.h"

#define HOLD_COLUMNS 14

/* in the order of the table's columns; amount is a domain over numeric */
static const Oid hold_types[HOLD_COLUMNS] = {
	INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, DATEOID, INT2OID,
	TEXTOID, InvalidOid, NUMERICOID, NUMERICOID, TEXTOID, TEXTOID, TEXTOID
};

static FinQuery insert_hold =
{
	.sql = "INSERT INTO finance._hold (hold_id, from_account_id, to_account_id,"
	" expires_at, tenant_id, held_on, minor_units, status, amount, captured,"
	" released, type, hold_group, parked)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
	.nargs = HOLD_COLUMNS,
	.argtypes = {INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, DATEOID,
	INT2OID, TEXTOID, NUMERICOID, NUMERICOID, NUMERICOID, TEXTOID, TEXTOID,
	TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery update_hold =
{
	.sql = "UPDATE finance._hold SET status = $3, captured = $4, released = $5"
	" WHERE tenant_id = $1 AND hold_id = $2 AND captured = $6 AND released = $7",
	.nargs = 7,
	.argtypes = {INT4OID, INT8OID, TEXTOID, NUMERICOID, NUMERICOID, NUMERICOID,
	NUMERICOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

/* of one that is parked nothing was captured or released yet */
static FinQuery unpark_hold =
{
	.sql = "UPDATE finance._hold SET parked = NULL, expires_at = $3"
	" WHERE tenant_id = $1 AND hold_id = $2 AND status = 'open'"
	" AND parked IS NOT NULL",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, TIMESTAMPTZOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery select_hold =
{
	.sql = "SELECT ctid, hold_id, from_account_id, to_account_id, expires_at,"
	" tenant_id, held_on, minor_units, status, amount, captured, released,"
	" type, hold_group, parked"
	" FROM finance._hold WHERE tenant_id = $1 AND hold_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

#define DUE_COLUMNS \
	" hold_id, tenant_id, from_account_id, to_account_id, expires_at," \
	" parked IS NOT NULL"
#define DUE_ORDER " ORDER BY expires_at, hold_id LIMIT "

/* the row comparison and the order are those of an index; so are the rest */
static FinQuery due_of_all =
{
	.sql = "SELECT" DUE_COLUMNS " FROM finance._hold"
	" WHERE status = 'open' AND expires_at <= $1"
	" AND (expires_at, hold_id) > ($2, $3)" DUE_ORDER "$4",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery due_of_tenant =
{
	.sql = "SELECT" DUE_COLUMNS " FROM finance._hold"
	" WHERE status = 'open' AND expires_at <= $1"
	" AND (expires_at, hold_id) > ($2, $3) AND tenant_id = $5"
	" AND ($6 IS NULL OR (parked IS NOT NULL) = $6)"
	DUE_ORDER "$4",
	.nargs = 6,
	.argtypes = {TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT4OID,
	BOOLOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery due_debits =
{
	.sql = "SELECT" DUE_COLUMNS " FROM finance._hold"
	" WHERE status = 'open' AND expires_at <= $1 AND tenant_id = $2"
	" AND from_account_id = $3" DUE_ORDER "$4",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery due_credits =
{
	.sql = "SELECT" DUE_COLUMNS " FROM finance._hold"
	" WHERE status = 'open' AND expires_at <= $1 AND tenant_id = $2"
	" AND to_account_id = $3" DUE_ORDER "$4",
	.nargs = 4,
	.argtypes = {TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery next_expiry =
{
	.sql = "SELECT expires_at FROM finance._hold"
	" WHERE status = 'open' AND expires_at > $1 ORDER BY expires_at LIMIT 1",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID},
	.expect = SPI_OK_SELECT,
};

static const char *const status_names[] = {
	[FIN_HOLD_OPEN] = "open",
	[FIN_HOLD_CAPTURED] = "captured",
	[FIN_HOLD_RELEASED] = "released",
	[FIN_HOLD_EXPIRED] = "expired",
};

static const char *const parking_names[] = {
	[FIN_PARKED_FOR_REVIEW] = "review",
	[FIN_PARKED_FOR_CHALLENGE] = "challenge",
};

static FinHoldStatus
parse_status(const char *name)
{
	for (int i = 0; i < (int) lengthof(status_names); i++)
	{
		if (strcmp(status_names[i], name) == 0)
			return (FinHoldStatus) i;
	}
	elog(ERROR, "unknown status of a hold \"%s\"", name);
}

static FinParking
parse_parking(const char *name)
{
	for (int i = FIN_PARKED_FOR_REVIEW; i < (int) lengthof(parking_names); i++)
	{
		if (strcmp(parking_names[i], name) == 0)
			return (FinParking) i;
	}
	elog(ERROR, "unknown reason to park a hold \"%s\"", name);
}

const char *
fin_store_hold_status(FinHoldStatus status)
{
	return status_names[status];
}

/* a row of finance._hold, columns in the order of the table */
static void
fill_hold(const Datum *values, const bool *nulls, FinHold *hold,
		  MemoryContext memory)
{
	int			scale = DatumGetInt16(values[6]);

	memset(hold, 0, sizeof(FinHold));
	hold->hold_id = DatumGetInt64(values[0]);
	hold->from_account_id = DatumGetInt64(values[1]);
	hold->to_account_id = DatumGetInt64(values[2]);
	hold->expires = !nulls[3];
	hold->expires_at = nulls[3] ? 0 : DatumGetTimestampTz(values[3]);
	hold->held_on = DatumGetDateADT(values[5]);
	hold->scale = scale;
	hold->status = parse_status(TextDatumGetCString(values[7]));
	hold->amount = fin_store_amount(values[8], scale);
	hold->captured = fin_store_amount(values[9], scale);
	hold->released = fin_store_amount(values[10], scale);
	hold->stored_captured = hold->captured;
	hold->stored_released = hold->released;
	hold->type = MemoryContextStrdup(memory, TextDatumGetCString(values[11]));
	if (!nulls[12])
		hold->hold_group = MemoryContextStrdup(memory,
											   TextDatumGetCString(values[12]));
	if (!nulls[13])
		hold->parking = parse_parking(TextDatumGetCString(values[13]));
}

static bool
read_sql(int32 tenant_id, int64 hold_id, FinHold *hold, MemoryContext memory)
{
	Datum		arguments[2] = {Int32GetDatum(tenant_id), Int64GetDatum(hold_id)};
	Datum		values[1 + HOLD_COLUMNS];
	bool		nulls[1 + HOLD_COLUMNS];

	if (fin_query_run(&select_hold, arguments, NULL, 1) == 0)
		return false;
	heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, values,
					  nulls);
	fill_hold(values + 1, nulls + 1, hold, memory);
	hold->tid = *(ItemPointer) DatumGetPointer(values[0]);
	return true;
}

static bool
read_direct(FinDirect *direct, int32 tenant_id, int64 hold_id, FinHold *hold,
			MemoryContext memory)
{
	ScanKeyData key[2];
	TupleTableSlot *row;

	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(tenant_id));
	ScanKeyInit(&key[1], 2, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(hold_id));
	row = fin_direct_find(direct, key, HOLD_COLUMNS);
	if (row == NULL)
		return false;
	fill_hold(row->tts_values, row->tts_isnull, hold, memory);
	hold->tid = row->tts_tid;
	return true;
}

int
fin_store_read_holds(int32 tenant_id, const int64 *hold_ids, int n,
					 FinHold *holds, MemoryContext memory)
{
	static const AttrNumber key[] = {5, 1}; /* tenant_id, hold_id */
	FinDirect  *direct = fin_direct_begin_find("_hold", "hold_pkey",
											   HOLD_COLUMNS, key,
											   lengthof(key));
	int			found = 0;

	for (int i = 0; i < n; i++)
	{
		if (direct != NULL ?
			read_direct(direct, tenant_id, hold_ids[i], &holds[found], memory) :
			read_sql(tenant_id, hold_ids[i], &holds[found], memory))
			found++;
	}
	if (direct != NULL)
		fin_direct_end(direct);
	return found;
}

/* ------------------------------------------------------------------------
 * write
 * ------------------------------------------------------------------------ */

static void
hold_columns(int32 tenant_id, const FinHold *hold, Datum *values, bool *nulls)
{
	memset(nulls, false, HOLD_COLUMNS);
	values[0] = Int64GetDatum(hold->hold_id);
	values[1] = Int64GetDatum(hold->from_account_id);
	values[2] = Int64GetDatum(hold->to_account_id);
	values[3] = TimestampTzGetDatum(hold->expires_at);
	nulls[3] = !hold->expires;
	values[4] = Int32GetDatum(tenant_id);
	values[5] = DateADTGetDatum(hold->held_on);
	values[6] = Int16GetDatum(hold->scale);
	values[7] = CStringGetTextDatum(status_names[hold->status]);
	values[8] = fin_amount_datum(hold->amount, hold->scale);
	values[9] = fin_amount_datum(hold->captured, hold->scale);
	values[10] = fin_amount_datum(hold->released, hold->scale);
	values[11] = CStringGetTextDatum(hold->type);
	nulls[12] = hold->hold_group == NULL;
	values[12] = nulls[12] ? (Datum) 0 : CStringGetTextDatum(hold->hold_group);
	nulls[13] = hold->parking == FIN_NOT_PARKED;
	values[13] = nulls[13] ? (Datum) 0 :
		CStringGetTextDatum(parking_names[hold->parking]);
}

static void
insert_sql(const Datum *values, const bool *nulls)
{
	char		flags[HOLD_COLUMNS];

	for (int i = 0; i < HOLD_COLUMNS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	if (fin_query_run(&insert_hold, unconstify(Datum *, values), flags, 0) != 1)
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("a hold cannot be written"),
				errdetail("A trigger or rule on finance._hold suppressed its row."));
}

static void
insert_new(int32 tenant_id, const FinHold *holds, int n)
{
	FinDirect  *direct = fin_direct_begin_insert(fin_query_relation("_hold"),
												 hold_types, HOLD_COLUMNS);

	for (int i = 0; i < n; i++)
	{
		Datum		values[HOLD_COLUMNS];
		bool		nulls[HOLD_COLUMNS];

		if (!holds[i].is_new)
			continue;
		hold_columns(tenant_id, &holds[i], values, nulls);
		if (direct != NULL)
			fin_direct_put(direct, values, nulls);
		else
			insert_sql(values, nulls);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

/* what changes of a hold, by position from 0 */
static const int changing_columns[] = {7, 9, 10};

static void
changing_values(const FinHold *hold, Datum *values)
{
	values[0] = CStringGetTextDatum(status_names[hold->status]);
	values[1] = fin_amount_datum(hold->captured, hold->scale);
	values[2] = fin_amount_datum(hold->released, hold->scale);
}

static void
refuse_unwritten(const FinHold *hold)
{
	ereport(ERROR,
			errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			errmsg("hold " INT64_FORMAT " cannot be written", hold->hold_id),
			errdetail("A trigger or rule on finance._hold changed it meanwhile, or suppressed its row."),
			errhint("Transfer in a trigger on finance.transfer, not on finance._hold."));
}

/* seldom, and of an indexed column: always in SQL */
static void
unpark_sql(int32 tenant_id, const FinHold *hold)
{
	Datum		values[3] = {Int32GetDatum(tenant_id),
		Int64GetDatum(hold->hold_id), TimestampTzGetDatum(hold->expires_at)};
	char		nulls[3] = {' ', ' ', hold->expires ? ' ' : 'n'};

	if (fin_query_run(&unpark_hold, values, nulls, 0) != 1)
		refuse_unwritten(hold);
}

static void
update_sql(int32 tenant_id, const FinHold *hold)
{
	Datum		values[7];

	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(hold->hold_id);
	changing_values(hold, values + 2);
	values[5] = fin_amount_datum(hold->stored_captured, hold->scale);
	values[6] = fin_amount_datum(hold->stored_released, hold->scale);
	if (fin_query_run(&update_hold, values, NULL, 0) != 1)
		refuse_unwritten(hold);
}

static void
update_changed(int32 tenant_id, FinHold *holds, int n)
{
	FinDirect  *direct = fin_direct_begin_update("_hold", HOLD_COLUMNS);

	for (int i = 0; i < n; i++)
	{
		Datum		values[lengthof(changing_columns)];

		if (holds[i].is_new || !holds[i].changed)
			continue;
		if (holds[i].was_unparked)
		{
			unpark_sql(tenant_id, &holds[i]);
			continue;
		}
		if (direct == NULL)
		{
			update_sql(tenant_id, &holds[i]);
			continue;
		}
		changing_values(&holds[i], values);
		fin_direct_update(direct, &holds[i].tid, changing_columns,
						  lengthof(changing_columns), values, NULL);
	}
	if (direct != NULL)
		fin_direct_end(direct);
}

void
fin_store_write_holds(int32 tenant_id, FinHold *holds, int n)
{
	bool		any_new = false;
	bool		any_changed = false;

	for (int i = 0; i < n; i++)
	{
		any_new = any_new || holds[i].is_new;
		any_changed = any_changed || (!holds[i].is_new && holds[i].changed);
	}
	if (any_new)
		insert_new(tenant_id, holds, n);
	if (any_changed)
		update_changed(tenant_id, holds, n);
	for (int i = 0; i < n; i++)
	{
		holds[i].is_new = holds[i].changed = holds[i].was_unparked = false;
		holds[i].stored_captured = holds[i].captured;
		holds[i].stored_released = holds[i].released;
	}
}

/* ------------------------------------------------------------------------
 * what is over
 * ------------------------------------------------------------------------ */

/* the rows of the last query */
static int
take_due(FinDueHold *holds, uint64 n)
{
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		holds[i].hold_id = fin_query_int64(i, 1);
		holds[i].tenant_id = DatumGetInt32(fin_query_datum(i, 2, &isnull));
		holds[i].from_account_id = fin_query_int64(i, 3);
		holds[i].to_account_id = fin_query_int64(i, 4);
		holds[i].expires_at = DatumGetTimestampTz(fin_query_datum(i, 5, &isnull));
		holds[i].parked = DatumGetBool(fin_query_datum(i, 6, &isnull));
	}
	return (int) n;
}

int
fin_store_due_holds(int32 tenant_id, FinDueKind kind, TimestampTz now,
					const FinDueHold *after, int limit, FinDueHold *holds)
{
	Datum		values[6];
	char		nulls[6] = {' ', ' ', ' ', ' ', ' ', ' '};
	bool		all = tenant_id == FIN_ALL_TENANTS;

	Assert(!all || kind == FIN_DUE_ANY);
	values[0] = TimestampTzGetDatum(now);
	values[1] = TimestampTzGetDatum(after != NULL ? after->expires_at :
									DT_NOBEGIN);
	values[2] = Int64GetDatum(after != NULL ? after->hold_id : 0);
	values[3] = Int64GetDatum(limit);
	values[4] = Int32GetDatum(tenant_id);
	values[5] = BoolGetDatum(kind == FIN_DUE_PARKED);
	nulls[5] = kind == FIN_DUE_ANY ? 'n' : ' ';
	return take_due(holds,
					fin_query_run(all ? &due_of_all : &due_of_tenant, values,
								  nulls, limit));
}

int
fin_store_due_holds_of(int32 tenant_id, int64 account_id, bool debit,
					   TimestampTz now, int limit, FinDueHold *holds)
{
	Datum		values[4];

	values[0] = TimestampTzGetDatum(now);
	values[1] = Int32GetDatum(tenant_id);
	values[2] = Int64GetDatum(account_id);
	values[3] = Int64GetDatum(limit);
	return take_due(holds, fin_query_run(debit ? &due_debits : &due_credits,
										 values, NULL, limit));
}

TimestampTz
fin_store_next_expiry(TimestampTz now)
{
	Datum		values[1] = {TimestampTzGetDatum(now)};
	bool		isnull;

	if (fin_query_run(&next_expiry, values, NULL, 1) == 0)
		return DT_NOEND;
	return DatumGetTimestampTz(fin_query_datum(0, 1, &isnull));
}
