/*
 * audit_history.c
 *		One row of an audited table through time.
 *
 * A row's records tell its state step by step: an INSERT the whole row, an
 * UPDATE the new row or, where only what changed is recorded, that.  Each state
 * is the one before with what the record says of the new row laid over it.
 *
 * Sealed records are found by the term of (table, key), those not sealed yet by
 * the index of the log's order: see audit_read.c.
 *
 * Owns kept plans only.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "audit.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit_table.h"
#include "audit_term.h"
#include "compat.h"
#include "context.h"
#include "json_value.h"
#include "query.h"

#define HISTORY_COLUMNS	10
#define DIFF_COLUMNS	3

static FinQuery select_history =
{
	.sql = "SELECT d.id, d.leaf, d.recorded_at, d.operation, d.actor, d.reason,"
	" d.trace_id, (d.request -> 'old')::jsonb, (d.request -> 'new')::jsonb"
	" FROM (SELECT DISTINCT ON (q.id) q.* FROM ("
	"  SELECT 0 AS part, f.leaf, r.id, r.recorded_at, r.operation, r.actor,"
	"  r.reason, r.trace_id, r.request, r.xid, r.sequence"
	"  FROM finance._audit_find($5) f JOIN finance.audit_record r"
	"  ON r.xid = f.xid AND r.sequence = f.sequence AND r.id = f.id"
	"  WHERE r.tenant_id = $1 AND r.object = $2 AND r.row_key = $4"
	"  UNION ALL"
	"  SELECT 1, NULL, r.id, r.recorded_at, r.operation, r.actor,"
	"  r.reason, r.trace_id, r.request, r.xid, r.sequence"
	"  FROM finance.audit_record r"
	"  WHERE r.xid >=" FIN_AUDIT_UNSEALED_FROM("$3")
	"  AND r.tenant_id = $1 AND r.object = $2 AND r.row_key = $4) q"
	" ORDER BY q.id, q.part) d"
	" ORDER BY d.part, d.leaf, d.xid, d.sequence, d.id",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, INT8OID, TEXTOID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * the key
 * ------------------------------------------------------------------------ */

static FIN_NORETURN void
refuse_key(Relation table, const char *detail)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("the key does not name a row of table \"%s\"",
				   RelationGetRelationName(table)),
			errdetail_internal("%s", detail),
			errhint("State the columns of its primary key, as in '{\"id\": 7}'."));
}

/* a value as the audit trigger writes it */
static void
append_value(StringInfo json, Relation table, Form_pg_attribute column,
			 const JsonbValue *value)
{
	FinJsonType type;
	Oid			input;
	Oid			parameter;
	Datum		datum;
	char	   *text;

	if (value->type == jbvNull || !IsAJsonbScalar(value))
		refuse_key(table, psprintf("Column \"%s\" is no value.",
								   NameStr(column->attname)));
	text = value->type == jbvString ?
		pnstrdup(value->val.string.val, value->val.string.len) :
		value->type == jbvNumeric ?
		DatumGetCString(DirectFunctionCall1(numeric_out,
											NumericGetDatum(value->val.numeric))) :
		pstrdup(value->val.boolean ? "true" : "false");
	getTypeInputInfo(column->atttypid, &input, &parameter);
	datum = OidInputFunctionCall(input, text, parameter, column->atttypmod);
	fin_json_type(&type, column->atttypid);
	fin_json_value(json, &type, datum);
}

static void
append_column(StringInfo json, Relation table, Form_pg_attribute column,
			  const Jsonb *key)
{
	const char *name = NameStr(column->attname);
	JsonbValue *value = NULL;
	JsonbValue	found;

	if (JB_ROOT_IS_OBJECT(key))
		value = getKeyJsonValueFromContainer(unconstify(JsonbContainer *, &key->root),
											 name, strlen(name), &found);
	if (value == NULL)
		refuse_key(table, psprintf("Column \"%s\" is missing.", name));
	appendStringInfoChar(json, json->len == 0 ? '{' : ',');
	fin_json_string(json, name, strlen(name));
	appendStringInfoChar(json, ':');
	append_value(json, table, column, value);
}

/* row_key as the audit trigger writes it; runs as the caller */
static char *
key_text(Relation table, const Jsonb *key)
{
	Bitmapset  *columns = RelationGetIndexAttrBitmap(table,
													 INDEX_ATTR_BITMAP_PRIMARY_KEY);
	StringInfoData json;
	int			column = -1;

	if (bms_is_empty(columns))
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("table \"%s\" has no primary key",
					   RelationGetRelationName(table)));
	if (!JB_ROOT_IS_OBJECT(key) ||
		(int) JB_ROOT_COUNT(key) != bms_num_members(columns))
		refuse_key(table, psprintf("Its primary key has %d columns.",
								   bms_num_members(columns)));
	initStringInfo(&json);
	while ((column = bms_next_member(columns, column)) >= 0)
		append_column(&json, table,
					  TupleDescAttr(RelationGetDescr(table),
									column + FirstLowInvalidHeapAttributeNumber - 1),
					  key);
	appendStringInfoChar(&json, '}');
	return json.data;
}

typedef struct Row
{
	text	   *object;
	text	   *key;
} Row;

static void
name_row(Oid relid, const Jsonb *key, Row *row)
{
	Relation	table = table_open(relid, AccessShareLock);

	row->object =
		cstring_to_text(fin_audit_table_name(relid));
	row->key = cstring_to_text(key_text(table, key));
	table_close(table, AccessShareLock);
}

/* ------------------------------------------------------------------------
 * versions
 * ------------------------------------------------------------------------ */

typedef struct Version
{
	TimestampTz recorded_at;
	Datum		state;			/* jsonb; 0: the row is not there */
} Version;

typedef void (*TakeVersion) (void *taker, uint64 row, int64 number,
							 const Version *version);

static Datum
lay_over(Datum state, Datum with)
{
	return state == (Datum) 0 ? with :
		DirectFunctionCall2(jsonb_concat, state, with);
}

/* all versions in order, told one by one; memory is that of the scope */
static void
walk(const Row *row, TakeVersion take, void *taker)
{
	Datum		values[5];
	Datum		state = (Datum) 0;
	uint64		n;

	values[0] = Int32GetDatum(fin_context_current()->tenant_id);
	values[1] = PointerGetDatum(row->object);
	values[2] = Int64GetDatum((int64) GetSystemIdentifier());
	values[3] = PointerGetDatum(row->key);
	values[4] = Int64GetDatum((int64)
							  fin_audit_term_key(fin_context_current()->tenant_id,
												 VARDATA_ANY(row->object),
												 VARSIZE_ANY_EXHDR(row->object),
												 VARDATA_ANY(row->key),
												 VARSIZE_ANY_EXHDR(row->key)));
	n = fin_query_run(&select_history, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		Version		version;
		bool		isnull;
		Datum		new_row = fin_query_datum(i, 9, &isnull);

		state = isnull ? (Datum) 0 : lay_over(state, new_row);
		version.state = state;
		version.recorded_at =
			DatumGetTimestampTz(fin_query_datum(i, 3, &isnull));
		take(taker, i, (int64) i + 1, &version);
	}
}

static void
put_version(void *taker, uint64 row, int64 number, const Version *version)
{
	ReturnSetInfo *result = taker;
	Datum		values[HISTORY_COLUMNS];
	bool		nulls[HISTORY_COLUMNS];

	values[0] = Int64GetDatum(number);
	nulls[0] = false;
	/* id, leaf, recorded_at, operation, actor, reason, trace_id, old */
	for (int i = 1; i <= 8; i++)
		values[i] = fin_query_datum(row, i, &nulls[i]);
	values[9] = version->state;
	nulls[9] = version->state == (Datum) 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
return_history(FunctionCallInfo fcinfo, const Row *row)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	walk(row, put_version, fcinfo->resultinfo);
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
	Row			row;

	fin_audit_read(fcinfo, FIN_READ_AUDIT_HISTORY);
	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	name_row(PG_GETARG_OID(0), PG_GETARG_JSONB_P(1), &row);
	return_history(fcinfo, &row);
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
	Row			row;

	fin_audit_read(fcinfo, FIN_READ_AUDIT_HISTORY);
	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	row.object = PG_GETARG_TEXT_PP(0);
	row.key = PG_GETARG_TEXT_PP(1);
	return_history(fcinfo, &row);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * two versions
 * ------------------------------------------------------------------------ */

typedef struct Two
{
	TimestampTz at[2];
	Datum		states[2];
} Two;

static void
keep_states(void *taker, uint64 row, int64 number, const Version *version)
{
	Two		   *two = taker;

	for (int i = 0; i < 2; i++)
	{
		if (version->recorded_at <= two->at[i])
			two->states[i] = version->state;
	}
}

static Datum
member(Datum state, const JsonbValue *key, bool *isnull)
{
	JsonbValue *value = NULL;

	if (state != (Datum) 0)
		value = getKeyJsonValueFromContainer(&DatumGetJsonbP(state)->root,
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

	if (two->states[of] == (Datum) 0)
		return;
	walker = JsonbIteratorInit(&DatumGetJsonbP(two->states[of])->root);
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
	Two			two = {0};
	Row			row;

	InitMaterializedSRF(fcinfo, 0);
	(void) fin_context();
	name_row(PG_GETARG_OID(0), PG_GETARG_JSONB_P(1), &row);
	two.at[0] = PG_GETARG_TIMESTAMPTZ(2);
	two.at[1] = PG_GETARG_TIMESTAMPTZ(3);
	fin_query_begin(&scope);
	walk(&row, keep_states, &two);
	put_differences(result, &two, 0, false);
	put_differences(result, &two, 1, true);
	fin_query_end(&scope);
	return (Datum) 0;
}
