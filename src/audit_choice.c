/*
 * audit_choice.c
 *		What of a table's rows is recorded, as the table's owner chose it.
 *
 * Owns nothing; everything is in the caller's memory.  Columns stand in it by
 * name, since a dump carries it to where numbers are others.  A renamed or
 * dropped column is followed by the event trigger; where that did not happen,
 * the name is no column any more, and audit_shape.c refuses the write rather
 * than record what was to be masked.
 *
 * What is not to be recorded of a column stays so when the column is dropped and
 * one of its name comes back, until the owner chooses anew.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/readfuncs.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "argument.h"
#include "audit_choice.h"
#include "compat.h"
#include "json_value.h"

static const char *const mask_words[] = {
	[FIN_MASK_REDACT] = "redact",
	[FIN_MASK_HASH] = "hash",
	[FIN_MASK_ENCRYPT] = "encrypt",
};

static const char *const rows_words[] = {
	[FIN_ROWS_DELTA] = "delta",
	[FIN_ROWS_FULL] = "full",
	[FIN_ROWS_CHANGED] = "changed",
};

/* ------------------------------------------------------------------------
 * words
 * ------------------------------------------------------------------------ */

static FinAuditMask
mask_of_word(const char *word)
{
	for (int i = FIN_MASK_REDACT; i < (int) lengthof(mask_words); i++)
	{
		if (strcmp(word, mask_words[i]) == 0)
			return i;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("mask \"%s\" is not known", word),
			errhint("It is redact, hash or encrypt."));
}

static FinAuditRows
rows_of_word(const char *word)
{
	for (int i = 0; i < (int) lengthof(rows_words); i++)
	{
		if (strcmp(word, rows_words[i]) == 0)
			return i;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("choice of rows \"%s\" is not known", word),
			errhint("It is delta, full or changed."));
}

static bool
has_name(const List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------ */

static FIN_NORETURN void
refuse_json(const char *what)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("\"%s\" of what to audit is not valid", what),
			errdetail("columns and ignore are arrays of names, mask is an object of names and words, subject and rows are texts."),
			errhint("Call finance.audit_table() for the table."));
}

static char *
string_of(const JsonbValue *value, const char *what)
{
	if (value->type != jbvString)
		refuse_json(what);
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static List *
read_names(const JsonbValue *array, const char *what)
{
	List	   *names = NIL;
	int			n;

	if (array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data))
		refuse_json(what);
	n = JsonContainerSize(array->val.binary.data);
	for (int i = 0; i < n; i++)
		names = lappend(names,
						string_of(getIthJsonbValueFromContainer(array->val.binary.data, i),
								  what));
	return names;
}

static List *
read_masks(JsonbContainer *object)
{
	List	   *masks = NIL;
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbValue	value;
	JsonbIteratorToken token;
	char	   *column = NULL;

	if (!JsonContainerIsObject(object))
		refuse_json("mask");
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		FinAuditColumnMask *mask;

		if (token == WJB_KEY)
			column = string_of(&value, "mask");
		if (token != WJB_VALUE)
			continue;
		mask = palloc(sizeof(FinAuditColumnMask));
		mask->column = column;
		mask->mask = mask_of_word(string_of(&value, "mask"));
		masks = lappend(masks, mask);
	}
	return masks;
}

static List *
read_mask_member(const JsonbValue *value, const char *what)
{
	if (value->type != jbvBinary)
		refuse_json(what);
	return read_masks(value->val.binary.data);
}

static JsonbValue *
member(Jsonb *object, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name),
										value);
}

FinAuditChoice *
fin_audit_choice_read(const char *json)
{
	FinAuditChoice *choice = palloc0(sizeof(FinAuditChoice));
	Jsonb	   *object;
	JsonbValue	value;

	if (json == NULL)
		return choice;
	object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(json)));
	if (!JB_ROOT_IS_OBJECT(object))
		refuse_json(json);
	choice->has_columns = member(object, "columns", &value) != NULL;
	if (choice->has_columns)
		choice->columns = read_names(&value, "columns");
	if (member(object, "ignore", &value) != NULL)
		choice->ignore = read_names(&value, "ignore");
	if (member(object, "mask", &value) != NULL)
		choice->masks = read_mask_member(&value, "mask");
	if (member(object, "dropped_ignore", &value) != NULL)
		choice->dropped_ignore = read_names(&value, "dropped_ignore");
	if (member(object, "dropped_mask", &value) != NULL)
		choice->dropped_masks = read_mask_member(&value, "dropped_mask");
	if (member(object, "subject", &value) != NULL)
		choice->subject = string_of(&value, "subject");
	if (member(object, "rows", &value) != NULL)
		choice->rows = rows_of_word(string_of(&value, "rows"));
	return choice;
}

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

static List *
take_names(ArrayType *array, const char *what)
{
	List	   *names = NIL;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("%s must not hold null", what));
		names = lappend(names, TextDatumGetCString(values[i]));
	}
	return names;
}

static void
refuse_taken(const char *message, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("%s", message),
			errhint("%s", hint));
}

static void
check_taken(const FinAuditChoice *choice)
{
	if (choice->has_columns && choice->ignore != NIL)
		refuse_taken("columns and ignore cannot both be given",
					 "Name the columns to record, or those not to.");
	if (choice->subject == NULL &&
		fin_audit_choice_has_mask(choice, FIN_MASK_ENCRYPT))
		refuse_taken("mask encrypt needs a subject",
					 "Name the column that tells whose the encrypted values are.");
	if (choice->subject != NULL &&
		fin_audit_choice_mask(choice, choice->subject) != FIN_MASK_NONE)
		refuse_taken("the column of the subject cannot be masked",
					 "It is recorded with each encrypted value, so that its key is found.");
}

FinAuditChoice *
fin_audit_choice_take(FunctionCallInfo fcinfo, int first)
{
	FinAuditChoice *choice = palloc0(sizeof(FinAuditChoice));

	choice->has_columns = !PG_ARGISNULL(first);
	if (choice->has_columns)
		choice->columns = take_names(PG_GETARG_ARRAYTYPE_P(first), "columns");
	if (!PG_ARGISNULL(first + 1))
		choice->ignore = take_names(PG_GETARG_ARRAYTYPE_P(first + 1), "ignore");
	if (!PG_ARGISNULL(first + 2))
		choice->masks = read_masks(&PG_GETARG_JSONB_P(first + 2)->root);
	choice->subject = fin_argument_text_or_null(fcinfo, first + 3, "subject",
												FIN_NAME_LENGTH_MAX);
	if (!PG_ARGISNULL(first + 4))
		choice->rows = rows_of_word(text_to_cstring(PG_GETARG_TEXT_PP(first + 4)));
	check_taken(choice);
	return choice;
}

/* ------------------------------------------------------------------------
 * writing
 * ------------------------------------------------------------------------ */

static void
start_member(StringInfo json, const char *name)
{
	if (json->len > 1)
		appendStringInfoChar(json, ',');
	appendStringInfo(json, "\"%s\":", name);
}

static void
append_string(StringInfo json, const char *string)
{
	fin_json_string(json, string, strlen(string));
}

static void
append_names(StringInfo json, const char *name, const List *names)
{
	ListCell   *cell;

	start_member(json, name);
	appendStringInfoChar(json, '[');
	foreach(cell, names)
	{
		if (foreach_current_index(cell) > 0)
			appendStringInfoChar(json, ',');
		append_string(json, lfirst(cell));
	}
	appendStringInfoChar(json, ']');
}

static void
append_masks(StringInfo json, const char *name, const List *masks)
{
	ListCell   *cell;

	start_member(json, name);
	appendStringInfoChar(json, '{');
	foreach(cell, masks)
	{
		const FinAuditColumnMask *mask = lfirst(cell);

		if (foreach_current_index(cell) > 0)
			appendStringInfoChar(json, ',');
		append_string(json, mask->column);
		appendStringInfoChar(json, ':');
		append_string(json, mask_words[mask->mask]);
	}
	appendStringInfoChar(json, '}');
}

char *
fin_audit_choice_text(const FinAuditChoice *choice)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	if (choice->has_columns)
		append_names(&json, "columns", choice->columns);
	if (choice->ignore != NIL)
		append_names(&json, "ignore", choice->ignore);
	if (choice->masks != NIL)
		append_masks(&json, "mask", choice->masks);
	if (choice->dropped_ignore != NIL)
		append_names(&json, "dropped_ignore", choice->dropped_ignore);
	if (choice->dropped_masks != NIL)
		append_masks(&json, "dropped_mask", choice->dropped_masks);
	if (choice->subject != NULL)
	{
		start_member(&json, "subject");
		append_string(&json, choice->subject);
	}
	start_member(&json, "rows");
	append_string(&json, rows_words[choice->rows]);
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* ------------------------------------------------------------------------
 * asking
 * ------------------------------------------------------------------------ */

bool
fin_audit_choice_is_default(const FinAuditChoice *choice)
{
	return !choice->has_columns && choice->ignore == NIL &&
		choice->masks == NIL && choice->subject == NULL &&
		choice->rows == FIN_ROWS_DELTA;
}

bool
fin_audit_choice_records(const FinAuditChoice *choice, const char *column)
{
	if (choice->has_columns && !has_name(choice->columns, column))
		return false;
	return !has_name(choice->ignore, column) &&
		!has_name(choice->dropped_ignore, column);
}

static FinAuditMask
mask_among(const List *masks, const char *column)
{
	ListCell   *cell;

	foreach(cell, masks)
	{
		const FinAuditColumnMask *mask = lfirst(cell);

		if (strcmp(mask->column, column) == 0)
			return mask->mask;
	}
	return FIN_MASK_NONE;
}

FinAuditMask
fin_audit_choice_mask(const FinAuditChoice *choice, const char *column)
{
	FinAuditMask mask = mask_among(choice->masks, column);

	return mask != FIN_MASK_NONE ? mask :
		mask_among(choice->dropped_masks, column);
}

bool
fin_audit_choice_has_mask(const FinAuditChoice *choice, FinAuditMask mask)
{
	ListCell   *cell;

	foreach(cell, choice->masks)
	{
		if (((const FinAuditColumnMask *) lfirst(cell))->mask == mask)
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * generated columns
 * ------------------------------------------------------------------------ */

static const char *
masked_of(const FinAuditChoice *choice, TupleDesc columns,
		  const char *expression)
{
	Bitmapset  *reads = NULL;
	int			column = -1;

	pull_varattnos(stringToNode(expression), 1, &reads);
	while ((column = bms_next_member(reads, column)) >= 0)
	{
		int			attnum = column + FirstLowInvalidHeapAttributeNumber;
		const char *name;

		if (attnum <= 0)
			continue;
		name = NameStr(TupleDescAttr(columns, attnum - 1)->attname);
		if (fin_audit_choice_mask(choice, name) != FIN_MASK_NONE)
			return name;
	}
	return NULL;
}

const char *
fin_audit_choice_told(const FinAuditChoice *choice, TupleDesc columns,
					  AttrNumber column)
{
	Form_pg_attribute made = TupleDescAttr(columns, column - 1);

	if (choice->masks == NIL || columns->constr == NULL ||
		made->attisdropped || made->attgenerated == '\0' ||
		FIN_IS_VIRTUAL_COLUMN(made) ||
		fin_audit_choice_mask(choice, NameStr(made->attname)) != FIN_MASK_NONE)
		return NULL;
	for (int i = 0; i < columns->constr->num_defval; i++)
	{
		if (columns->constr->defval[i].adnum == column)
			return masked_of(choice, columns, columns->constr->defval[i].adbin);
	}
	return NULL;
}

FinAuditMask
fin_audit_choice_mask_of(const FinAuditChoice *choice, TupleDesc columns,
						 AttrNumber column)
{
	if (fin_audit_choice_told(choice, columns, column) != NULL)
		return FIN_MASK_REDACT;
	return fin_audit_choice_mask(choice,
								 NameStr(TupleDescAttr(columns, column - 1)->attname));
}

const char *
fin_audit_choice_virtual(const FinAuditChoice *choice, TupleDesc columns)
{
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);
		const char *name = NameStr(column->attname);

		if (FIN_IS_VIRTUAL_COLUMN(column) && !column->attisdropped &&
			(has_name(choice->columns, name) ||
			 (choice->subject != NULL && strcmp(choice->subject, name) == 0)))
			return name;
	}
	return NULL;
}

/* ------------------------------------------------------------------------
 * the names, against the table
 * ------------------------------------------------------------------------ */

/* system columns are not recorded */
static bool
is_column(Oid relid, const char *name)
{
	return get_attnum(relid, name) > 0;
}

static const char *
stranger_in(const List *names, Oid relid)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (!is_column(relid, lfirst(cell)))
			return lfirst(cell);
	}
	return NULL;
}

const char *
fin_audit_choice_stranger(const FinAuditChoice *choice, Oid relid)
{
	const char *name = stranger_in(choice->columns, relid);
	ListCell   *cell;

	if (name == NULL)
		name = stranger_in(choice->ignore, relid);
	foreach(cell, choice->masks)
	{
		const FinAuditColumnMask *mask = lfirst(cell);

		if (name == NULL && !is_column(relid, mask->column))
			name = mask->column;
	}
	if (name == NULL && choice->subject != NULL &&
		!is_column(relid, choice->subject))
		name = choice->subject;
	return name;
}

/* ------------------------------------------------------------------------
 * following the table
 * ------------------------------------------------------------------------ */

typedef struct Renaming
{
	Oid			relid;
	const char *old_name;		/* NULL: none was renamed */
	const char *new_name;
	bool		changed;
} Renaming;

/* the name now; NULL: it is gone */
static char *
follow_name(Renaming *renaming, char *name)
{
	if (is_column(renaming->relid, name))
		return name;
	renaming->changed = true;
	if (renaming->old_name != NULL && strcmp(name, renaming->old_name) == 0 &&
		is_column(renaming->relid, renaming->new_name))
		return pstrdup(renaming->new_name);
	return NULL;
}

/* those that are gone are added to *dropped, where it is not NULL */
static List *
follow_names(Renaming *renaming, List *names, List **dropped)
{
	List	   *now = NIL;
	ListCell   *cell;

	foreach(cell, names)
	{
		char	   *name = follow_name(renaming, lfirst(cell));

		if (name != NULL)
			now = lappend(now, name);
		else if (dropped != NULL && !has_name(*dropped, lfirst(cell)))
			*dropped = lappend(*dropped, lfirst(cell));
	}
	return now;
}

static void
follow_masks(Renaming *renaming, FinAuditChoice *choice)
{
	ListCell   *cell;

	foreach(cell, choice->masks)
	{
		FinAuditColumnMask *mask = lfirst(cell);
		char	   *name = follow_name(renaming, mask->column);

		if (name != NULL)
		{
			mask->column = name;
			continue;
		}
		choice->masks = foreach_delete_current(choice->masks, cell);
		choice->dropped_masks = lappend(choice->dropped_masks, mask);
	}
}

/* columns that are there again, or another under their names */
static void
bring_back(Renaming *renaming, FinAuditChoice *choice)
{
	ListCell   *cell;

	foreach(cell, choice->dropped_ignore)
	{
		if (!is_column(renaming->relid, lfirst(cell)))
			continue;
		if (!has_name(choice->ignore, lfirst(cell)))
			choice->ignore = lappend(choice->ignore, lfirst(cell));
		choice->dropped_ignore = foreach_delete_current(choice->dropped_ignore,
														cell);
		renaming->changed = true;
	}
	foreach(cell, choice->dropped_masks)
	{
		FinAuditColumnMask *mask = lfirst(cell);

		if (!is_column(renaming->relid, mask->column))
			continue;
		if (mask_among(choice->masks, mask->column) == FIN_MASK_NONE)
			choice->masks = lappend(choice->masks, mask);
		choice->dropped_masks = foreach_delete_current(choice->dropped_masks,
													   cell);
		renaming->changed = true;
	}
}

bool
fin_audit_choice_follow(FinAuditChoice *choice, Oid relid,
						const char *old_name, const char *new_name)
{
	Renaming	renaming = {relid, old_name, new_name, false};
	char	   *subject = choice->subject;

	bring_back(&renaming, choice);
	choice->columns = follow_names(&renaming, choice->columns, NULL);
	choice->ignore = follow_names(&renaming, choice->ignore,
								  &choice->dropped_ignore);
	follow_masks(&renaming, choice);
	if (subject != NULL)
		choice->subject = follow_name(&renaming, subject);
	if (subject != NULL && choice->subject == NULL &&
		fin_audit_choice_has_mask(choice, FIN_MASK_ENCRYPT))
		ereport(ERROR,
				errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				errmsg("cannot drop column \"%s\" because it is the subject of encrypted audit records",
					   subject),
				errhint("Call finance.audit_table() with another subject first."));
	return renaming.changed;
}
