/*
 * audit_name.c
 *		What a row of a table is called in the audit log: see audit_name.h.
 *
 * Owns nothing; what it makes is in the current memory context.
 *
 * Names are those that tables have now.  A table that had another one is asked
 * for under that, by finance.audit_row_history().
 *
 * Locks: ACCESS SHARE on each table, while it is looked at.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#include "audit_choice.h"
#include "audit_mask.h"
#include "audit_name.h"
#include "audit_table.h"
#include "compat.h"
#include "json_value.h"

/* a row's primary key */
typedef struct KeyColumn
{
	NameData	name;
	Datum		value;
	char	   *json;			/* the value as the audit trigger writes it */
} KeyColumn;

typedef struct RowKey
{
	int			n;
	KeyColumn	columns[INDEX_MAX_KEYS];
} RowKey;

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

/* ordered as in row_key: by the numbers of the columns.  NIL: none */
static List *
key_columns(Relation table)
{
	Bitmapset  *columns = fin_audit_key_columns(table);
	List	   *all = NIL;
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
		all = lappend(all,
					  TupleDescAttr(RelationGetDescr(table),
									column + FirstLowInvalidHeapAttributeNumber - 1));
	bms_free(columns);
	return all;
}

static char *
scalar_text(Relation table, Form_pg_attribute column, const JsonbValue *value)
{
	if (value->type == jbvNull || !IsAJsonbScalar(value))
		refuse_key(table, psprintf("Column \"%s\" is no value.",
								   NameStr(column->attname)));
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	return pstrdup(value->val.boolean ? "true" : "false");
}

static void
read_column(KeyColumn *to, Relation table, Form_pg_attribute column,
			const Jsonb *key)
{
	const char *name = NameStr(column->attname);
	JsonbValue	found;
	JsonbValue *value =
		getKeyJsonValueFromContainer(unconstify(JsonbContainer *, &key->root),
									 name, strlen(name), &found);
	FinJsonType type;
	StringInfoData json;
	Oid			input;
	Oid			parameter;

	if (value == NULL)
		refuse_key(table, psprintf("Column \"%s\" is missing.", name));
	getTypeInputInfo(column->atttypid, &input, &parameter);
	to->name = column->attname;
	to->value = OidInputFunctionCall(input, scalar_text(table, column, value),
									 parameter, column->atttypmod);
	fin_json_type(&type, column->atttypid);
	initStringInfo(&json);
	fin_json_value(&json, &type, to->value);
	to->json = json.data;
}

static void
read_key(RowKey *row, Relation table, const Jsonb *key)
{
	List	   *columns = key_columns(table);
	ListCell   *cell;

	row->n = 0;
	if (columns == NIL)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("table \"%s\" has no primary key",
					   RelationGetRelationName(table)));
	if (!JB_ROOT_IS_OBJECT(key) ||
		(int) JB_ROOT_COUNT(key) != list_length(columns))
		refuse_key(table, psprintf("Its primary key has %d columns.",
								   list_length(columns)));
	foreach(cell, columns)
		read_column(&row->columns[row->n++], table, lfirst(cell), key);
}

static const KeyColumn *
find_column(const RowKey *row, const char *name)
{
	for (int i = 0; i < row->n; i++)
	{
		if (strcmp(NameStr(row->columns[i].name), name) == 0)
			return &row->columns[i];
	}
	return NULL;
}

/* is its primary key of the same columns? */
static bool
has_key(Relation table, const RowKey *row)
{
	List	   *columns = key_columns(table);
	ListCell   *cell;

	if (list_length(columns) != row->n)
		return false;
	foreach(cell, columns)
	{
		if (find_column(row, NameStr(((Form_pg_attribute) lfirst(cell))->attname)) == NULL)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * its name in one table
 * ------------------------------------------------------------------------ */

/* what the table's owner chose to have recorded; NULL: it is not audited */
static FinAuditChoice *
choice_of(Relation table)
{
	TriggerDesc *triggers = table->trigdesc;
	Oid			function = fin_audit_table_function();

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == function)
			return fin_audit_choice_read(trigger->tgnargs > 0 ?
										 trigger->tgargs[0] : NULL);
	}
	return NULL;
}

static FIN_NORETURN void
refuse_masked(Relation table, const char *column)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("rows of table \"%s\" cannot be told apart in the audit log",
				   RelationGetRelationName(table)),
			errdetail("Column \"%s\" of its primary key is masked.", column),
			errhint("Mask it with hash: rows stay to be found by it."));
}

/* NULL: the row was never recorded so */
static char *
key_text(Relation table, const RowKey *row, const FinAuditChoice *choice)
{
	StringInfoData json;
	ListCell   *cell;

	initStringInfo(&json);
	foreach(cell, key_columns(table))
	{
		Form_pg_attribute column = lfirst(cell);
		const char *name = NameStr(column->attname);
		const char *value = find_column(row, name)->json;
		FinAuditMask mask = choice == NULL ? FIN_MASK_NONE :
			fin_audit_choice_mask_of(choice, RelationGetDescr(table),
									 column->attnum);

		appendStringInfoChar(&json, json.len == 0 ? '{' : ',');
		fin_json_string(&json, name, strlen(name));
		appendStringInfoChar(&json, ':');
		if (mask == FIN_MASK_NONE)
			appendStringInfoString(&json, value);
		else if (mask != FIN_MASK_HASH)
			refuse_masked(table, name);
		else if (!fin_audit_mask_hash(&json, value, strlen(value), false))
			return NULL;
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

void
fin_audit_name_add(FinAuditNames *names, const char *object, const char *key)
{
	FinAuditName *name = palloc(sizeof(FinAuditName));

	name->object = pstrdup(object);
	name->key = key == NULL ? NULL : pstrdup(key);
	names->names = lappend(names->names, name);
}

/* the masked key, that in clear, from before it was masked, and the table */
static void
add_table(FinAuditNames *names, Relation table, const RowKey *row)
{
	const char *object = fin_audit_table_name(RelationGetRelid(table));
	FinAuditChoice *choice = choice_of(table);
	char	   *masked = key_text(table, row, choice);
	char	   *clear = key_text(table, row, NULL);

	if (masked != NULL && strcmp(masked, clear) != 0)
		fin_audit_name_add(names, object, masked);
	fin_audit_name_add(names, object, clear);
	fin_audit_name_add(names, object, NULL);
}

/* ------------------------------------------------------------------------
 * partitions: a tree of them is one table
 * ------------------------------------------------------------------------ */

/* the highest table above it whose rows have the same key */
static Oid
top_of(Oid relid, const RowKey *row)
{
	while (get_rel_relispartition(relid))
	{
		Oid			parent = get_partition_parent(relid, true);
		Relation	table = try_table_open(parent, AccessShareLock);
		bool		same = table != NULL && has_key(table, row);

		if (table != NULL)
			table_close(table, AccessShareLock);
		if (!same)
			break;
		relid = parent;
	}
	return relid;
}

/* place of the partition in the table's list of them; -1: none */
static int
partition_index(const PartitionDescData *partitions, PartitionKey by,
				Datum *values, bool *nulls)
{
	PartitionBoundInfo bounds = partitions->boundinfo;
	bool		equal = false;
	int			at;
	int			found = -1;

	if (partitions->nparts == 0)
		return -1;
	switch (by->strategy)
	{
		case PARTITION_STRATEGY_HASH:
			return bounds->indexes[compute_partition_hash_value(by->partnatts,
																by->partsupfunc,
																by->partcollation,
																values, nulls) %
								   bounds->nindexes];
		case PARTITION_STRATEGY_LIST:
			at = partition_list_bsearch(by->partsupfunc, by->partcollation,
										bounds, values[0], &equal);
			found = at >= 0 && equal ? bounds->indexes[at] : -1;
			break;
		default:
			at = partition_range_datum_bsearch(by->partsupfunc,
											   by->partcollation, bounds,
											   by->partnatts, values, &equal);
			found = bounds->indexes[at + 1];
	}
	return found >= 0 ? found : bounds->default_index;
}

/* a key of a table that is partitioned has all columns it is partitioned by */
static Oid
partition_for(Relation table, const RowKey *row)
{
	PartitionDesc partitions = RelationGetPartitionDesc(table, false);
	PartitionKey by = RelationGetPartitionKey(table);
	Datum		values[PARTITION_MAX_KEYS];
	bool		nulls[PARTITION_MAX_KEYS] = {false};
	int			at;

	for (int i = 0; i < by->partnatts; i++)
	{
		const KeyColumn *column = by->partattrs[i] <= 0 ? NULL :
			find_column(row, NameStr(TupleDescAttr(RelationGetDescr(table),
												   by->partattrs[i] - 1)->attname));

		if (column == NULL)
			return InvalidOid;
		values[i] = column->value;
	}
	at = partition_index(partitions, by, values, nulls);
	return at < 0 ? InvalidOid : partitions->oids[at];
}

/* from the top down to the partition in which the row is, or would be */
static List *
path_of(Oid relid, const RowKey *row)
{
	List	   *path = NIL;

	while (OidIsValid(relid))
	{
		Relation	table = try_table_open(relid, AccessShareLock);

		if (table == NULL)
			break;
		path = lappend_oid(path, relid);
		relid = table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
			partition_for(table, row) : InvalidOid;
		table_close(table, AccessShareLock);
	}
	return path;
}

/* ------------------------------------------------------------------------
 * inheriting tables
 * ------------------------------------------------------------------------ */

static List *
add_parents(List *all, Oid relid)
{
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL,
							  1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		all = list_append_unique_oid(all,
									 ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return all;
}

/* the table, all that inherit from it, and all it inherits from */
static List *
family_of(Oid relid)
{
	List	   *family = find_all_inheritors(relid, NoLock, NULL);
	List	   *above = list_make1_oid(relid);

	/* the list grows while it is gone through */
	for (int i = 0; i < list_length(above); i++)
		above = add_parents(above, list_nth_oid(above, i));
	return list_concat_unique_oid(family, above);
}

/* ------------------------------------------------------------------------
 * all names
 * ------------------------------------------------------------------------ */

static List *
tables_of(FinAuditNames *names, Oid relid, const RowKey *row)
{
	List	   *tables;

	if (get_rel_relispartition(relid) ||
		get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
	{
		tables = path_of(top_of(relid, row), row);
		/* the row would be in another partition: what was recorded is its own */
		return list_member_oid(tables, relid) ? tables : list_make1_oid(relid);
	}
	tables = family_of(relid);
	names->in_family = list_length(tables) > 1;
	return tables;
}

void
fin_audit_name_row(FinAuditNames *names, Oid relid, const Jsonb *key)
{
	Relation	table = table_open(relid, AccessShareLock);
	RowKey		row;
	ListCell   *cell;

	memset(names, 0, sizeof(*names));
	read_key(&row, table, key);
	foreach(cell, tables_of(names, relid, &row))
	{
		Relation	other = try_table_open(lfirst_oid(cell), AccessShareLock);

		if (other == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (has_key(other, &row))
			add_table(names, other, &row);
		table_close(other, AccessShareLock);
	}
	table_close(table, AccessShareLock);
}
