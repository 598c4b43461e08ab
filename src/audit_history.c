/*
 * audit_history.c
 *		One row of an audited table through time.
 *
 * A row's records tell its state step by step: see audit_version.h.  They are
 * taken in the order in which the row changed, which is not that of the log: a
 * transaction may have its id long before it changes the row.  But a record is
 * written while its transaction has the row locked, so what others wrote of the
 * row is all before or all after; and ids of records grow as they are drawn.  So
 * transactions come in the order of the first record that each has of the row;
 * within one, records as they were written.  Clusters that the log was written
 * in come one after another, whatever their clocks said.
 *
 * Sealed records are found by the term of (table, key), those not sealed yet by
 * the index of the log's order: see audit_read.c.  A TRUNCATE of the table has
 * no key, and ends the row as well.
 *
 * Owns kept plans only.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "audit.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "audit_name.h"
#include "audit_term.h"
#include "audit_version.h"
#include "compat.h"
#include "context.h"
#include "query.h"

#define HISTORY_COLUMNS	10
#define DIFF_COLUMNS	3

/* of select_history */
enum
{
	COLUMN_ID = 1,
	COLUMN_LEAF,
	COLUMN_RECORDED_AT,
	COLUMN_OPERATION,
	COLUMN_ACTOR,
	COLUMN_REASON,
	COLUMN_TRACE_ID,
	COLUMN_REQUEST,
	COLUMN_OBJECT,
	COLUMN_ROW_KEY,
	COLUMN_XID,
	COLUMN_CLUSTER
};

/*
 * The number of the incarnation whose records come last: this cluster's, also
 * before it is begun.  Others' that are not sealed yet are of the last that
 * their cluster had.
 */
#define INCARNATION_OF_UNSEALED \
	"CASE WHEN r.system_identifier = $5 THEN coalesce((" \
	"SELECT i.incarnation + (i.system_identifier <> $5)::integer" \
	" FROM finance.audit_incarnation i ORDER BY i.incarnation DESC LIMIT 1), 1)" \
	" ELSE coalesce((SELECT pg_catalog.max(i.incarnation)" \
	" FROM finance.audit_incarnation i" \
	" WHERE i.system_identifier = r.system_identifier), 0) END"

/* OFFSET 0: each is looked up by the index, however few there are at first */
#define RECORD_COLUMNS \
	" r.id, r.recorded_at, r.operation, r.actor, r.reason, r.trace_id," \
	" r.request, r.object, r.row_key, r.xid, r.sequence, r.system_identifier"

static FinQuery select_history =
{
	.sql = "SELECT d.id, d.leaf, d.recorded_at, d.operation, d.actor, d.reason,"
	" d.trace_id, d.request, d.object, d.row_key, d.xid, d.system_identifier"
	" FROM (SELECT DISTINCT ON (q.id) q.* FROM ("
	"  SELECT 0 AS part, f.leaf, (SELECT b.incarnation FROM finance.audit_block b"
	"   WHERE b.size > f.leaf ORDER BY b.size LIMIT 1) AS incarnation, s.*"
	"  FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3),"
	"   pg_catalog.unnest($4)) AS w(object, row_key, term)"
	"  CROSS JOIN LATERAL finance._audit_find(w.term) f CROSS JOIN LATERAL ("
	"   SELECT" RECORD_COLUMNS " FROM finance.audit_record r"
	"   WHERE r.xid = f.xid AND r.sequence = f.sequence AND r.id = f.id"
	"   AND r.tenant_id = $1 AND r.object = w.object AND CASE WHEN w.row_key IS NULL"
	"    THEN r.row_key IS NULL AND r.operation = 'TRUNCATE'"
	"    ELSE r.row_key = w.row_key END OFFSET 0) s"
	"  UNION ALL"
	"  SELECT 1, NULL, " INCARNATION_OF_UNSEALED "," RECORD_COLUMNS
	"  FROM finance.audit_record r"
	"  WHERE r.xid >=" FIN_AUDIT_UNSEALED_FROM("$5")
	"  AND r.tenant_id = $1 AND r.object = ANY ($2) AND (r.row_key = ANY ($3)"
	"   OR r.row_key IS NULL AND r.operation = 'TRUNCATE')) q"
	" ORDER BY q.id, q.part) d"
	" ORDER BY d.incarnation, pg_catalog.min(d.id) OVER"
	" (PARTITION BY d.incarnation, d.system_identifier, d.xid),"
	" d.system_identifier, d.xid, d.sequence, d.id",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * records
 * ------------------------------------------------------------------------ */

static Datum
text_array(Datum *values, bool *nulls, int n)
{
	int			dimension = n;
	int			lower = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &dimension,
											  &lower, TEXTOID, -1, false,
											  TYPALIGN_INT));
}

static uint64
select_records(const FinAuditNames *names)
{
	int32		tenant_id = fin_context_current()->tenant_id;
	int			n = list_length(names->names);
	Datum	   *objects = palloc(sizeof(Datum) * n);
	Datum	   *keys = palloc0(sizeof(Datum) * n);
	Datum	   *terms = palloc(sizeof(Datum) * n);
	bool	   *no_key = palloc(sizeof(bool) * n);
	Datum		values[5];

	for (int i = 0; i < n; i++)
	{
		const FinAuditName *name = list_nth(names->names, i);
		const char *key = name->key == NULL ? "" : name->key;

		objects[i] = CStringGetTextDatum(name->object);
		no_key[i] = name->key == NULL;
		if (!no_key[i])
			keys[i] = CStringGetTextDatum(key);
		terms[i] = Int64GetDatum((int64)
								 fin_audit_term_key(tenant_id, name->object,
													(int) strlen(name->object),
													key, (int) strlen(key)));
	}
	values[0] = Int32GetDatum(tenant_id);
	values[1] = text_array(objects, NULL, n);
	values[2] = text_array(keys, no_key, n);
	values[3] = PointerGetDatum(construct_array(terms, n, INT8OID,
												sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[4] = Int64GetDatum((int64) GetSystemIdentifier());
	return fin_query_run(&select_history, values, NULL, 0);
}

static FinAuditPiece
text_piece(uint64 row, int column)
{
	FinAuditPiece piece = {0};
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	if (!isnull)
	{
		text	   *stored = DatumGetTextPP(value);

		piece.at = VARDATA_ANY(stored);
		piece.length = VARSIZE_ANY_EXHDR(stored);
	}
	return piece;
}

static void
fill_change(FinAuditChange *change, uint64 row)
{
	char	   *operation = fin_query_text(row, COLUMN_OPERATION);

	memset(change, 0, sizeof(*change));
	change->row = row;
	change->request = text_piece(row, COLUMN_REQUEST);
	change->row_key = text_piece(row, COLUMN_ROW_KEY);
	change->object = text_piece(row, COLUMN_OBJECT);
	change->is_truncate = strcmp(operation, "TRUNCATE") == 0;
	change->is_delete = strcmp(operation, "DELETE") == 0;
	pfree(operation);
}

/* where the records of this one's transaction end */
static uint64
end_of_transaction(uint64 row, uint64 n)
{
	int64		xid = fin_query_int64(row, COLUMN_XID);
	int64		cluster = fin_query_int64(row, COLUMN_CLUSTER);

	do
		row++;
	while (row < n && fin_query_int64(row, COLUMN_XID) == xid &&
		   fin_query_int64(row, COLUMN_CLUSTER) == cluster);
	return row;
}

/* ------------------------------------------------------------------------
 * versions
 * ------------------------------------------------------------------------ */

typedef void (*TakeVersion) (void *taker, int64 number,
							 const FinAuditChange *change,
							 const FinAuditState *state);

typedef struct Walk
{
	TakeVersion take;
	void	   *taker;
	FinAuditState state;
	int64		number;			/* of versions told */
	MemoryContext each;			/* reset after each transaction */
} Walk;

static void
walk_transaction(Walk *walk, uint64 from, uint64 to)
{
	FinAuditRun run = {.n = (int) (to - from)};
	FinAuditChange *change;

	run.changes = MemoryContextAllocHuge(CurrentMemoryContext,
										 sizeof(FinAuditChange) * run.n);
	for (int i = 0; i < run.n; i++)
		fill_change(&run.changes[i], from + i);
	while ((change = fin_audit_version_next(&run, &walk->state)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (fin_audit_version_apply(&walk->state, change))
			walk->take(walk->taker, ++walk->number, change, &walk->state);
	}
}

/* all versions in order, told one by one */
static void
walk_versions(const FinAuditNames *names, TakeVersion take, void *taker)
{
	Walk		walk = {.take = take,.taker = taker};
	MemoryContext outer = CurrentMemoryContext;
	uint64		n = select_records(names);
	uint64		next;

	walk.state.above = outer;
	walk.state.in_family = names->in_family;
	walk.each = AllocSetContextCreate(outer, "finance audit history",
									  ALLOCSET_DEFAULT_SIZES);
	for (uint64 i = 0; i < n; i = next)
	{
		next = end_of_transaction(i, n);
		MemoryContextSwitchTo(walk.each);
		walk_transaction(&walk, i, next);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(walk.each);
	}
	MemoryContextDelete(walk.each);
}

static void
put_version(void *taker, int64 number, const FinAuditChange *change,
			const FinAuditState *state)
{
	ReturnSetInfo *result = taker;
	Datum		values[HISTORY_COLUMNS] = {0};
	bool		nulls[HISTORY_COLUMNS];

	values[0] = Int64GetDatum(number);
	nulls[0] = false;
	for (int i = COLUMN_ID; i <= COLUMN_TRACE_ID; i++)
		values[i] = fin_query_datum(change->row, i, &nulls[i]);
	nulls[8] = !change->has_old;
	if (change->has_old)
		values[8] = JsonbPGetDatum(fin_audit_members_jsonb(&change->old_row));
	nulls[9] = !state->has_row;
	if (state->has_row)
		values[9] = JsonbPGetDatum(fin_audit_members_jsonb(&state->row));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
return_history(FunctionCallInfo fcinfo, const FinAuditNames *names)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	walk_versions(names, put_version, fcinfo->resultinfo);
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_audit_history);

/*
 * finance.audit_history(target regclass, key jsonb)
 *		returns table (version, record_id, leaf, recorded_at, operation, actor,
 *		reason, trace_id, old_values, row_state)
 *
 * The versions of the row with this primary key, {"id": 7}, as far as they were
 * recorded in the session's tenant: the row as it was after each, and what the
 * record says it was before.  leaf null: not sealed yet.  row_state null: the
 * row is gone.  A row whose key changed is recorded under the key it had.
 * Errors: 22023 no such key, 42809 no primary key; those of the columns' input
 * functions; those of fin_context().
 */
Datum
finance_audit_history(PG_FUNCTION_ARGS)
{
	FinAuditNames names;

	fin_audit_read(fcinfo, FIN_READ_AUDIT_HISTORY);
	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	fin_audit_name_row(&names, PG_GETARG_OID(0), PG_GETARG_JSONB_P(1));
	return_history(fcinfo, &names);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_audit_row_history);

/*
 * finance.audit_row_history(object text, row_key text) returns the same
 *
 * By the texts that records have: also of a table that is gone.
 */
Datum
finance_audit_row_history(PG_FUNCTION_ARGS)
{
	FinAuditNames names = {0};
	char	   *object;

	fin_audit_read(fcinfo, FIN_READ_AUDIT_HISTORY);
	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	object = text_to_cstring(PG_GETARG_TEXT_PP(0));
	fin_audit_name_add(&names, object, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	fin_audit_name_add(&names, object, NULL);
	return_history(fcinfo, &names);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * two versions
 * ------------------------------------------------------------------------ */

typedef struct Two
{
	TimestampTz at[2];
	Jsonb	   *states[2];		/* NULL: the row is not there */
	MemoryContext memory;
} Two;

static void
keep_states(void *taker, int64 number, const FinAuditChange *change,
			const FinAuditState *state)
{
	Two		   *two = taker;
	bool		isnull;
	TimestampTz at =
		DatumGetTimestampTz(fin_query_datum(change->row, COLUMN_RECORDED_AT,
											&isnull));
	Jsonb	   *row = state->has_row && at <= Max(two->at[0], two->at[1]) ?
		fin_audit_members_jsonb(&state->row) : NULL;

	for (int i = 0; i < 2; i++)
	{
		if (at > two->at[i])
			continue;
		if (two->states[i] != NULL)
			pfree(two->states[i]);
		two->states[i] = row == NULL ? NULL :
			MemoryContextAlloc(two->memory, VARSIZE(row));
		if (row != NULL)
			memcpy(two->states[i], row, VARSIZE(row));
	}
}

static Datum
member(Jsonb *state, const JsonbValue *key, bool *isnull)
{
	JsonbValue *value = NULL;

	if (state != NULL)
		value = getKeyJsonValueFromContainer(&state->root,
											 key->val.string.val,
											 key->val.string.len, NULL);
	*isnull = value == NULL;
	return value == NULL ? (Datum) 0 : JsonbPGetDatum(JsonbValueToJsonb(value));
}

static bool
is_same(const Datum *values, const bool *nulls)
{
	if (nulls[1] || nulls[2])
		return nulls[1] && nulls[2];
	return DatumGetBool(DirectFunctionCall2(jsonb_eq, values[1], values[2]));
}

/* columns of one state; only_new: those that the other has not */
static void
put_differences(ReturnSetInfo *result, const Two *two, int of, bool only_new)
{
	JsonbIterator *walker;
	JsonbValue	key;
	JsonbIteratorToken token;

	if (two->states[of] == NULL)
		return;
	walker = JsonbIteratorInit(&two->states[of]->root);
	while ((token = JsonbIteratorNext(&walker, &key, true)) != WJB_DONE)
	{
		Datum		values[DIFF_COLUMNS];
		bool		nulls[DIFF_COLUMNS] = {false};

		if (token != WJB_KEY)
			continue;
		values[0] = PointerGetDatum(cstring_to_text_with_len(key.val.string.val,
															 key.val.string.len));
		values[1] = member(two->states[0], &key, &nulls[1]);
		values[2] = member(two->states[1], &key, &nulls[2]);
		if (is_same(values, nulls) || (only_new && !nulls[1]))
			continue;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

PG_FUNCTION_INFO_V1(finance_audit_diff);

/*
 * finance.audit_diff(target regclass, key jsonb, from_time timestamptz,
 *		to_time timestamptz) returns table (column_name, old_value, new_value)
 *
 * What differs between the row as it was recorded last at from_time and at
 * to_time; a value is null where the row, or its column, was not there.
 * Errors: those of audit_history().
 */
Datum
finance_audit_diff(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	FinQueryScope scope;
	FinAuditNames names;
	Two			two = {0};

	fin_audit_read(fcinfo, FIN_READ_AUDIT_HISTORY);
	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	fin_audit_name_row(&names, PG_GETARG_OID(0), PG_GETARG_JSONB_P(1));
	two.at[0] = PG_GETARG_TIMESTAMPTZ(2);
	two.at[1] = PG_GETARG_TIMESTAMPTZ(3);
	fin_query_begin(&scope);
	two.memory = CurrentMemoryContext;
	walk_versions(&names, keep_states, &two);
	put_differences(result, &two, 0, false);
	put_differences(result, &two, 1, true);
	fin_query_end(&scope);
	return (Datum) 0;
}
