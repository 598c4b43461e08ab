/*
 * audit_shape.c
 *		How the rows of one audited table are recorded: cached, and carried out.
 *
 * Owns a cache of shapes per backend, each in memory of its own, at most
 * SHAPES_MAX of them.  One whose table or schema changed, or that makes room,
 * lives on while a trigger uses it: writing a row may run anybody's output
 * function, and appending a record anybody's trigger, which may change the very
 * table.
 *
 * Takes no locks; the caller's statement holds the table's.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_constraint.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "audit_mask.h"
#include "audit_shape.h"
#include "audit_table.h"
#include "compat.h"
#include "context.h"

#define SHAPES_MAX	256

typedef struct ShapeEntry
{
	Oid			relid;			/* key */
	FinAuditShape *shape;
} ShapeEntry;

static HTAB *shapes = NULL;
static uint64 changes = 0;		/* of what shapes are made from */

/* ------------------------------------------------------------------------
 * the choice
 * ------------------------------------------------------------------------ */

/*
 * A name that is no column any more: what was to be masked under it may now be
 * recorded under another.  The event trigger follows renamed columns; it did
 * not run.
 */
static void
refuse_stranger(Relation table, const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("column \"%s\" of what to audit is not in table \"%s\"",
				   name, RelationGetRelationName(table)),
			errhint("Call finance.audit_table() for the table again."));
}

static char *
argument_of(const TriggerData *trigger)
{
	return trigger->tg_trigger->tgnargs > 0 ? trigger->tg_trigger->tgargs[0] :
		NULL;
}

static FinAuditChoice *
read_choice(const TriggerData *trigger)
{
	FinAuditChoice *choice = fin_audit_choice_read(argument_of(trigger));
	const char *stranger =
	fin_audit_choice_stranger(choice, RelationGetRelid(trigger->tg_relation));

	if (stranger != NULL)
		refuse_stranger(trigger->tg_relation, stranger);
	return choice;
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
	fin_json_type(&field->type, column->atttypid);
}

static void
make_fields(FinAuditShape *shape, const FinAuditChoice *choice,
			TupleDesc columns)
{
	shape->natts = columns->natts;
	shape->fields = palloc0(sizeof(FinAuditField) * Max(shape->natts, 1));
	for (int i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);
		const char *name = NameStr(column->attname);

		/* what is computed when read is not in the row */
		if (column->attisdropped || FIN_IS_VIRTUAL_COLUMN(column))
			continue;
		if (fin_audit_choice_records(choice, name))
			make_field(&shape->fields[shape->nfields++], column,
					   fin_audit_choice_mask_of(choice, columns, i + 1));
		else
			shape->ignores = true;
	}
}

/* the relation's own bitmap leaves out a deferrable key, until 16 */
Bitmapset *
fin_audit_key_columns(Relation table)
{
	Oid			constraint;

	return get_primary_key_attnos(RelationGetRelid(table), true, &constraint);
}

/* a masked column is masked in the key as well */
static void
make_keys(FinAuditShape *shape, const FinAuditChoice *choice, Relation table)
{
	Bitmapset  *columns = fin_audit_key_columns(table);
	TupleDesc	desc = RelationGetDescr(table);
	int			column = -1;

	shape->keys = palloc0(sizeof(FinAuditField) * INDEX_MAX_KEYS);
	while ((column = bms_next_member(columns, column)) >= 0)
	{
		int			i = column + FirstLowInvalidHeapAttributeNumber - 1;

		make_field(&shape->keys[shape->nkeys++], TupleDescAttr(desc, i),
				   fin_audit_choice_mask_of(choice, desc, i + 1));
	}
	bms_free(columns);
}

static void
make_subject(FinAuditShape *shape, const FinAuditChoice *choice,
			 TupleDesc columns)
{
	Oid			output;
	bool		is_varlena;

	shape->subject = -1;
	if (choice->subject == NULL)
		return;
	shape->subject = get_attnum(shape->relid, choice->subject) - 1;
	getTypeOutputInfo(TupleDescAttr(columns, shape->subject)->atttypid,
					  &output, &is_varlena);
	fmgr_info(output, &shape->subject_output);
	shape->need = Max(shape->need,
					  fin_output_need(getBaseType(TupleDescAttr(columns, shape->subject)->atttypid),
									  &shape->subject_output));
}

static void
find_need(FinAuditShape *shape)
{
	for (int i = 0; i < shape->nfields; i++)
		shape->need = Max(shape->need, shape->fields[i].type.need);
	for (int i = 0; i < shape->nkeys; i++)
		shape->need = Max(shape->need, shape->keys[i].type.need);
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
	FinAuditChoice *choice = read_choice(trigger);

	shape->relid = RelationGetRelid(table);
	if (argument_of(trigger) != NULL)
		shape->argument = pstrdup(argument_of(trigger));
	shape->memory = memory;
	shape->schema_hash =
		GetSysCacheHashValue1(NAMESPACEOID,
							  ObjectIdGetDatum(RelationGetNamespace(table)));
	shape->object = fin_audit_table_name(shape->relid);
	shape->rows = choice->rows;
	make_fields(shape, choice, RelationGetDescr(table));
	make_keys(shape, choice, table);
	make_subject(shape, choice, RelationGetDescr(table));
	find_need(shape);
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

	changes++;
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

/* its name stands in the shape; hash 0: any schema */
static void
schema_changed(Datum arg, int cache, uint32 hash)
{
	HASH_SEQ_STATUS all;
	ShapeEntry *entry;

	changes++;
	hash_seq_init(&all, shapes);
	while ((entry = hash_seq_search(&all)) != NULL)
	{
		if (hash == 0 || hash == entry->shape->schema_hash)
			entry->shape->valid = false;
	}
}

static void
free_if_done(FinAuditShape *shape)
{
	if (shape->users == 0 && !shape->cached)
		MemoryContextDelete(shape->memory);
}

static void
stop_using(void *shape)
{
	((FinAuditShape *) shape)->users--;
	free_if_done(shape);
}

/* until the current memory context is reset, as it is after a trigger or an error */
static void
start_using(FinAuditShape *shape)
{
	MemoryContextCallback *callback = palloc(sizeof(MemoryContextCallback));

	callback->func = stop_using;
	callback->arg = shape;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	shape->users++;
}

static void
let_go(ShapeEntry *entry)
{
	FinAuditShape *shape = entry->shape;

	hash_search(shapes, &entry->relid, HASH_REMOVE, NULL);
	shape->cached = false;
	free_if_done(shape);
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

/* the triggers of a table share a shape: they have the same argument */
static bool
is_of(const FinAuditShape *shape, const TriggerData *trigger)
{
	const char *argument = argument_of(trigger);

	if (shape->argument == NULL || argument == NULL)
		return shape->argument == argument;
	return strcmp(shape->argument, argument) == 0;
}

static FinAuditShape *
add_shape(const TriggerData *trigger)
{
	uint64		before = changes;
	FinAuditShape *shape = make_shape(trigger);
	ShapeEntry *entry;

	make_room();
	entry = hash_search(shapes, &shape->relid, HASH_ENTER, NULL);
	entry->shape = shape;
	MemoryContextSetParent(shape->memory, TopMemoryContext);
	shape->cached = true;
	/* else what it was made from changed meanwhile: once, and not again */
	shape->valid = changes == before;
	return shape;
}

FinAuditShape *
fin_audit_shape(const TriggerData *trigger)
{
	Oid			relid = RelationGetRelid(trigger->tg_relation);
	ShapeEntry *entry = hash_search(shapes, &relid, HASH_FIND, NULL);
	FinAuditShape *shape;

	if (entry != NULL && entry->shape->valid && is_of(entry->shape, trigger))
		shape = entry->shape;
	else
	{
		if (entry != NULL)
			let_go(entry);
		shape = add_shape(trigger);
	}
	start_using(shape);
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
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
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

		/* the key of encrypted values is that of the row's own subject */
		if (field->mask != FIN_MASK_ENCRYPT && is_same(field, row, old_row))
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
