/*
 * audit_shape.c
 *		How the rows of one audited table are recorded: cached, and carried out.
 *
 * Owns a cache of shapes per backend, each in memory of its own, at most
 * SHAPES_MAX of them.  One whose table changed, or that makes room, lives on
 * until the end of the transaction: writing a row may run anybody's output
 * function, which may change the very table.
 *
 * Takes no locks; the caller's statement holds the table's.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "audit_mask.h"
#include "audit_shape.h"
#include "compat.h"
#include "context.h"

#define SHAPES_MAX	256

typedef struct ShapeEntry
{
	Oid			relid;			/* key */
	FinAuditShape *shape;
} ShapeEntry;

static HTAB *shapes = NULL;

/* ------------------------------------------------------------------------
 * the choice
 * ------------------------------------------------------------------------ */

typedef struct Choice
{
	Jsonb	   *options;		/* NULL: all as by default */
	TupleDesc	columns;
} Choice;

static FIN_NORETURN void
refuse_choice(const char *what, const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("%s \"%s\" of an audit trigger is not known", what, name),
			errhint("Call finance.audit_table() for the table again."));
}

static JsonbValue *
option(const Choice *choice, const char *name, JsonbValue *value)
{
	if (choice->options == NULL)
		return NULL;
	return getKeyJsonValueFromContainer(&choice->options->root, name,
										strlen(name), value);
}

static char *
option_text(const Choice *choice, const char *name)
{
	JsonbValue	value;

	if (option(choice, name, &value) == NULL || value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* is the name an element of the array of this option? */
static bool
option_has(const Choice *choice, const char *option_name, const char *name)
{
	JsonbValue	array;
	JsonbValue	element = {.type = jbvString};

	if (option(choice, option_name, &array) == NULL ||
		array.type != jbvBinary)
		return false;
	element.val.string.val = unconstify(char *, name);
	element.val.string.len = strlen(name);
	return findJsonbValueFromContainer(array.val.binary.data, JB_FARRAY,
									   &element) != NULL;
}

static bool
is_word(const JsonbValue *value, const char *word)
{
	return value->val.string.len == (int) strlen(word) &&
		memcmp(value->val.string.val, word, strlen(word)) == 0;
}

static FinAuditMask
mask_of(const Choice *choice, const char *column)
{
	JsonbValue	object;
	JsonbValue	value;

	if (option(choice, "mask", &object) == NULL || object.type != jbvBinary ||
		getKeyJsonValueFromContainer(object.val.binary.data, column,
									 strlen(column), &value) == NULL ||
		value.type != jbvString)
		return FIN_MASK_NONE;
	if (is_word(&value, "redact"))
		return FIN_MASK_REDACT;
	if (is_word(&value, "hash"))
		return FIN_MASK_HASH;
	if (is_word(&value, "encrypt"))
		return FIN_MASK_ENCRYPT;
	refuse_choice("mask", pnstrdup(value.val.string.val,
								   value.val.string.len));
}

static bool
is_recorded(const Choice *choice, const char *column)
{
	JsonbValue	value;

	if (option(choice, "columns", &value) != NULL && value.type == jbvBinary &&
		!option_has(choice, "columns", column))
		return false;
	return !option_has(choice, "ignore", column);
}

static void
read_choice(Choice *choice, const TriggerData *trigger)
{
	choice->columns = RelationGetDescr(trigger->tg_relation);
	choice->options = NULL;
	if (trigger->tg_trigger->tgnargs > 0)
		choice->options = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															 CStringGetDatum(trigger->tg_trigger->tgargs[0])));
}

/* ------------------------------------------------------------------------
 * the shape
 * ------------------------------------------------------------------------ */

static void
make_field(FinAuditField *field, Form_pg_attribute column, FinAuditMask mask)
{
	StringInfoData label;
	const char *name = NameStr(column->attname);

	initStringInfo(&label);
	fin_json_string(&label, name, strlen(name));
	appendStringInfoChar(&label, ':');
	field->attribute = column->attnum - 1;
	field->by_value = column->attbyval;
	field->length = column->attlen;
	field->mask = mask;
	field->label = label.data;
	field->label_length = label.len;
	fin_json_type(&field->type, column->atttypid, column->atttypmod);
}

static void
make_fields(FinAuditShape *shape, const Choice *choice)
{
	shape->natts = choice->columns->natts;
	shape->fields = palloc0(sizeof(FinAuditField) * Max(shape->natts, 1));
	for (int i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(choice->columns, i);
		const char *name = NameStr(column->attname);

		/* what is computed when read is not in the row */
		if (column->attisdropped || FIN_IS_VIRTUAL_COLUMN(column))
			continue;
		if (is_recorded(choice, name))
			make_field(&shape->fields[shape->nfields++], column,
					   mask_of(choice, name));
		else
			shape->ignores = true;
	}
}

/* a masked column is masked in the key as well */
static void
make_keys(FinAuditShape *shape, const Choice *choice, Relation table)
{
	Bitmapset  *columns = RelationGetIndexAttrBitmap(table,
													 INDEX_ATTR_BITMAP_PRIMARY_KEY);
	int			column = -1;

	shape->keys = palloc0(sizeof(FinAuditField) * INDEX_MAX_KEYS);
	while ((column = bms_next_member(columns, column)) >= 0)
	{
		Form_pg_attribute attribute =
		TupleDescAttr(choice->columns,
					  column + FirstLowInvalidHeapAttributeNumber - 1);

		make_field(&shape->keys[shape->nkeys++], attribute,
				   mask_of(choice, NameStr(attribute->attname)));
	}
	bms_free(columns);
}

static void
make_subject(FinAuditShape *shape, const Choice *choice)
{
	char	   *name = option_text(choice, "subject");

	shape->subject = -1;
	for (int i = 0; name != NULL && i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(choice->columns, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			shape->subject = i;
	}
	if (name != NULL && shape->subject < 0)
		refuse_choice("subject column", name);
}

static FinAuditRows
rows_of(const Choice *choice)
{
	char	   *rows = option_text(choice, "rows");

	if (rows == NULL || strcmp(rows, "delta") == 0)
		return FIN_ROWS_DELTA;
	if (strcmp(rows, "full") == 0)
		return FIN_ROWS_FULL;
	if (strcmp(rows, "changed") == 0)
		return FIN_ROWS_CHANGED;
	refuse_choice("choice of rows", rows);
}

static FinAuditShape *
make_shape(const TriggerData *trigger)
{
	Relation	table = trigger->tg_relation;
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "finance audit shape",
												 ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	FinAuditShape *shape = palloc0(sizeof(FinAuditShape));
	Choice		choice;

	read_choice(&choice, trigger);
	shape->relid = RelationGetRelid(table);
	shape->trigger = trigger->tg_trigger->tgoid;
	shape->memory = memory;
	shape->object =
		pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
										   RelationGetRelationName(table)));
	shape->rows = rows_of(&choice);
	make_fields(shape, &choice);
	make_keys(shape, &choice, table);
	make_subject(shape, &choice);
	MemoryContextSwitchTo(caller);
	return shape;
}

/* ------------------------------------------------------------------------
 * the cache
 * ------------------------------------------------------------------------ */

static void
table_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS all;
	ShapeEntry *entry;

	if (OidIsValid(relid))
	{
		entry = hash_search(shapes, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->shape->valid = false;
		return;
	}
	hash_seq_init(&all, shapes);
	while ((entry = hash_seq_search(&all)) != NULL)
		entry->shape->valid = false;
}

/* out of the cache; whoever uses it still may until the transaction ends */
static void
let_go(ShapeEntry *entry)
{
	MemoryContextSetParent(entry->shape->memory, TopTransactionContext);
	hash_search(shapes, &entry->relid, HASH_REMOVE, NULL);
}

static void
make_room(void)
{
	HASH_SEQ_STATUS all;
	ShapeEntry *entry;

	if (hash_get_num_entries(shapes) < SHAPES_MAX)
		return;
	hash_seq_init(&all, shapes);
	while ((entry = hash_seq_search(&all)) != NULL)
		let_go(entry);
}

/* marked valid before its table is looked at: a change meanwhile unmarks it */
FinAuditShape *
fin_audit_shape(const TriggerData *trigger)
{
	Oid			relid = RelationGetRelid(trigger->tg_relation);
	ShapeEntry *entry = hash_search(shapes, &relid, HASH_FIND, NULL);
	FinAuditShape *shape;

	if (entry != NULL && entry->shape->valid &&
		entry->shape->trigger == trigger->tg_trigger->tgoid)
		return entry->shape;
	if (entry != NULL)
		let_go(entry);
	shape = make_shape(trigger);
	make_room();
	MemoryContextSetParent(shape->memory, TopMemoryContext);
	entry = hash_search(shapes, &relid, HASH_ENTER, NULL);
	entry->shape = shape;
	shape->valid = true;
	return shape;
}

void
fin_audit_shape_init(void)
{
	HASHCTL		control = {.keysize = sizeof(Oid),
	.entrysize = sizeof(ShapeEntry)};

	shapes = hash_create("finance audit shapes", 32, &control,
						 HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
}

/* ------------------------------------------------------------------------
 * rows as text
 * ------------------------------------------------------------------------ */

static void
start_field(StringInfo json, const FinAuditField *field)
{
	enlargeStringInfo(json, field->label_length + 1);
	if (json->data[json->len - 1] != '{')
		json->data[json->len++] = ',';
	memcpy(json->data + json->len, field->label, field->label_length);
	json->len += field->label_length;
	json->data[json->len] = '\0';
}

/* one member, after what may stand before it in its object */
static void
append_field(StringInfo json, FinAuditShape *shape, FinAuditField *field,
			 TupleTableSlot *row)
{
	int			i = field->attribute;

	start_field(json, field);
	if (row->tts_isnull[i])
		appendBinaryStringInfo(json, "null", 4);
	else if (field->mask == FIN_MASK_NONE)
		fin_json_value(json, &field->type, row->tts_values[i]);
	else
		fin_audit_mask(json, shape, field, row);
}

static bool
is_same(const FinAuditField *field, const TupleTableSlot *a,
		const TupleTableSlot *b)
{
	int			i = field->attribute;

	if (a->tts_isnull[i] || b->tts_isnull[i])
		return a->tts_isnull[i] && b->tts_isnull[i];
	return datum_image_eq(a->tts_values[i], b->tts_values[i],
						  field->by_value, field->length);
}

static bool
is_unchanged(const FinAuditShape *shape, const TupleTableSlot *a,
			 const TupleTableSlot *b)
{
	for (int i = 0; i < shape->nfields; i++)
	{
		if (!is_same(&shape->fields[i], a, b))
			return false;
	}
	return true;
}

/* ends[i]: where the text of field i ends, for append_new_row(); or NULL */
static void
append_row(StringInfo json, FinAuditShape *shape, const char *label,
		   TupleTableSlot *row, int *ends)
{
	appendBinaryStringInfo(json, label, strlen(label));
	for (int i = 0; i < shape->nfields; i++)
	{
		append_field(json, shape, &shape->fields[i], row);
		if (ends != NULL)
			ends[i] = json->len;
	}
	appendStringInfoChar(json, '}');
}

/* what did not change is copied from the text of the old row */
static void
append_new_row(StringInfo json, FinAuditShape *shape, TupleTableSlot *row,
			   const TupleTableSlot *old_row, int old_start, const int *ends)
{
	appendBinaryStringInfo(json, ",\"new\":{", strlen(",\"new\":{"));
	for (int i = 0; i < shape->nfields; i++)
	{
		FinAuditField *field = &shape->fields[i];
		int			start = i == 0 ? old_start : ends[i - 1];

		if (is_same(field, row, old_row))
		{
			enlargeStringInfo(json, ends[i] - start);
			appendBinaryStringInfo(json, json->data + start, ends[i] - start);
		}
		else
			append_field(json, shape, field, row);
	}
	appendStringInfoChar(json, '}');
}

static void
append_changed(StringInfo json, FinAuditShape *shape, const char *label,
			   TupleTableSlot *row, const TupleTableSlot *other)
{
	appendBinaryStringInfo(json, label, strlen(label));
	for (int i = 0; i < shape->nfields; i++)
	{
		if (!is_same(&shape->fields[i], row, other))
			append_field(json, shape, &shape->fields[i], row);
	}
	appendStringInfoChar(json, '}');
}

static void
append_update(StringInfo json, FinAuditShape *shape, TupleTableSlot *old_row,
			  TupleTableSlot *new_row)
{
	int			ends[MaxHeapAttributeNumber];

	if (shape->rows == FIN_ROWS_FULL)
	{
		append_row(json, shape, "{\"old\":{", old_row, ends);
		append_new_row(json, shape, new_row, old_row,
					   VARHDRSZ + strlen("{\"old\":{"), ends);
		return;
	}
	append_changed(json, shape, "{\"old\":{", old_row, new_row);
	if (shape->rows == FIN_ROWS_CHANGED)
		append_changed(json, shape, ",\"new\":{", new_row, old_row);
	else
		append_row(json, shape, ",\"new\":{", new_row, NULL);
}

text *
fin_audit_change_text(FinAuditShape *shape, TupleTableSlot *old_row,
					  TupleTableSlot *new_row)
{
	static const char header[VARHDRSZ] = {0};
	StringInfoData json;

	if (old_row != NULL)
		slot_getallattrs(old_row);
	if (new_row != NULL)
		slot_getallattrs(new_row);
	if (shape->ignores && old_row != NULL && new_row != NULL &&
		is_unchanged(shape, old_row, new_row))
		return NULL;
	initStringInfo(&json);
	/* room for the header: the text is not copied once more */
	appendBinaryStringInfo(&json, header, VARHDRSZ);
	if (old_row != NULL && new_row != NULL)
		append_update(&json, shape, old_row, new_row);
	else if (old_row != NULL)
		append_row(&json, shape, "{\"old\":{", old_row, NULL);
	else
		append_row(&json, shape, "{\"new\":{", new_row, NULL);
	appendStringInfoChar(&json, '}');
	SET_VARSIZE(json.data, json.len);
	return (text *) json.data;
}

char *
fin_audit_key_text(FinAuditShape *shape, TupleTableSlot *row)
{
	StringInfoData json;

	if (shape->nkeys == 0)
		return NULL;
	slot_getallattrs(row);
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < shape->nkeys; i++)
		append_field(&json, shape, &shape->keys[i], row);
	appendStringInfoChar(&json, '}');
	return json.data;
}
