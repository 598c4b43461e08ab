/*
 * audit_ddl_about.c
 *		What a DDL command was about: the objects of ours, of audited tables and
 *		of the types of their columns that it changed, dropped, or granted.
 *
 * Owns kept plans; and, static, the names of the indexes of audited tables that
 * DROP INDEX is about to drop: of what table an index was nobody knows later.
 * They are forgotten when the next such command begins.
 *
 * Locks: none but those of a SELECT from catalogs.
 */
#include "postgres.h"

#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "audit_ddl.h"
#include "audit_table.h"
#include "compat.h"
#include "query.h"

/* audited columns of the type, of arrays of it, or of domains over it */
#define AUDITED_COLUMNS(type) \
	" FROM pg_catalog.pg_trigger AS g" \
	" JOIN pg_catalog.pg_attribute AS a ON a.attrelid = g.tgrelid AND NOT a.attisdropped" \
	" JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid" \
	" WHERE g.tgfoid = $1 AND " type " IN (y.oid, y.typelem, y.typbasetype) LIMIT 1"

/*
 * The objects of the command that concern us.  relid: of the table that an
 * index, trigger, policy, rule or constraint is of, or one that has the type.
 */
static FinQuery find_changed =
{
	.sql = "SELECT c.command_tag, c.object_identity, r.relid,"
	" c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass,"
	" n.nspname IS NOT NULL OR " FIN_HAS_AUDIT_TRIGGERS("r.relid")
	" FROM pg_catalog.pg_event_trigger_ddl_commands() AS c"
	" CROSS JOIN LATERAL (SELECT CASE c.classid"
	"  WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN coalesce("
	"   (SELECT x.indrelid FROM pg_catalog.pg_index x WHERE x.indexrelid = c.objid),"
	"   (SELECT a.attrelid" AUDITED_COLUMNS("(SELECT x.oid FROM pg_catalog.pg_type x"
											 " WHERE x.typrelid = c.objid)") "), c.objid)"
	"  WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN"
	"   (SELECT a.attrelid" AUDITED_COLUMNS("c.objid") ")"
	"  WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN"
	"   (SELECT x.tgrelid FROM pg_catalog.pg_trigger x WHERE x.oid = c.objid)"
	"  WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass THEN"
	"   (SELECT x.polrelid FROM pg_catalog.pg_policy x WHERE x.oid = c.objid)"
	"  WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass THEN"
	"   (SELECT x.ev_class FROM pg_catalog.pg_rewrite x WHERE x.oid = c.objid)"
	"  WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN"
	"   (SELECT x.conrelid FROM pg_catalog.pg_constraint x WHERE x.oid = c.objid)"
	"  END AS relid) AS r"
	" LEFT JOIN pg_catalog.pg_class AS k ON k.oid = r.relid"
	" LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'finance'"
	"  AND (n.nspname = c.schema_name OR n.oid = k.relnamespace"
	"   OR c.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND c.objid = n.oid"
	"   OR c.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass"
	"    AND c.object_identity = 'finance')",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

/*
 * What was dropped, a table of ours or an audited one if a column of it was, and
 * whether it is an index, of what table soever.  Also what went with something
 * else, from tables that are still there; of one that is gone, its triggers tell
 * that it was audited.
 */
static FinQuery find_dropped =
{
	.sql = "SELECT DISTINCT CASE WHEN d.object_type = 'trigger' AND NOT d.original AND k.oid IS NULL"
	" THEN pg_catalog.format('%I.%I', d.address_names[1], d.address_names[2])"
	" ELSE d.object_identity END, CASE WHEN d.object_type = 'table column' THEN k.oid END,"
	" d.object_type = 'index' AND d.schema_name <> 'finance'"
	" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
	" LEFT JOIN (pg_catalog.pg_class AS k"
	"  JOIN pg_catalog.pg_namespace AS n ON n.oid = k.relnamespace)"
	"  ON d.object_type IN ('trigger', 'policy', 'rule', 'table constraint',"
	"   'table column', 'default value')"
	"  AND n.nspname = d.address_names[1] AND k.relname = d.address_names[2]"
	"  AND (d.original OR d.address_names[3] NOT LIKE 'RI\\_ConstraintTrigger\\_%')"
	"  AND (n.nspname = 'finance' OR " FIN_HAS_AUDIT_TRIGGERS("k.oid") ")"
	" WHERE k.oid IS NOT NULL"
	" OR d.object_type = 'trigger' AND d.address_names[3] LIKE 'finance\\_audit\\_%'"
	" OR d.original AND (d.schema_name = 'finance' OR d.object_type = 'index')"
	" ORDER BY 1",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery is_audited =
{
	.sql = "SELECT WHERE " FIN_HAS_AUDIT_TRIGGERS("$2"),
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery is_audited_type =
{
	.sql = "SELECT" AUDITED_COLUMNS("$2"),
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery has_audited =
{
	.sql = "SELECT FROM pg_catalog.pg_trigger AS t"
	" JOIN pg_catalog.pg_class AS k ON k.oid = t.tgrelid"
	" WHERE t.tgfoid = $1 AND k.relnamespace = $2 LIMIT 1",
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID},
	.expect = SPI_OK_SELECT,
};

/* ------------------------------------------------------------------------
 * what a command was about
 * ------------------------------------------------------------------------ */

static List *
add_affected(List *all, const char *tag, const char *object, Oid table,
			 bool is_concern)
{
	FinAffected   *affected = palloc(sizeof(FinAffected));

	affected->tag = pstrdup(tag);
	affected->object = object == NULL ? NULL : pstrdup(object);
	affected->table = table;
	affected->is_concern = is_concern;
	return lappend(all, affected);
}

/* in the caller's memory */
static List *
find_changed_objects(void)
{
	FinQueryScope scope;
	Datum		values[1] = {ObjectIdGetDatum(fin_audit_table_function())};
	List	   *all = NIL;
	uint64		n;

	fin_query_begin(&scope);
	n = fin_query_run(&find_changed, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext inner = MemoryContextSwitchTo(scope.caller);
		bool		isnull;
		Oid			relid = DatumGetObjectId(fin_query_datum(i, 3, &isnull));
		bool		is_table = !isnull &&
			DatumGetBool(fin_query_datum(i, 4, &isnull)) && !isnull;

		all = add_affected(all, fin_query_text(i, 1), fin_query_text(i, 2),
						   is_table ? relid : InvalidOid,
						   DatumGetBool(fin_query_datum(i, 5, &isnull)));
		MemoryContextSwitchTo(inner);
	}
	fin_query_end(&scope);
	return all;
}

static bool
is_about(FinQuery *query, Oid object)
{
	FinQueryScope scope;
	Datum		values[2] = {ObjectIdGetDatum(fin_audit_table_function()),
	ObjectIdGetDatum(object)};
	bool		found;

	fin_query_begin(&scope);
	found = fin_query_run(query, values, NULL, 1) == 1;
	fin_query_end(&scope);
	return found;
}

/* ------------------------------------------------------------------------
 * what was dropped
 * ------------------------------------------------------------------------ */

static MemoryContext indexes_memory = NULL;
static List *indexes = NIL;		/* of audited tables, that are to be dropped */

static void
note_index(Oid index)
{
	MemoryContext caller;

	if (!OidIsValid(index) ||
		!is_about(&is_audited, IndexGetRelation(index, true)))
		return;
	caller = MemoryContextSwitchTo(indexes_memory);
	indexes = lappend(indexes,
					  quote_qualified_identifier(get_namespace_name(get_rel_namespace(index)),
												 get_rel_name(index)));
	MemoryContextSwitchTo(caller);
}

/* nothing is recorded yet: who drops concurrently must not have written before */
void
fin_audit_ddl_note_indexes(const DropStmt *drop)
{
	ListCell   *cell;

	if (indexes_memory == NULL)
		indexes_memory = AllocSetContextCreate(TopMemoryContext,
											   "finance indexes to be dropped",
											   ALLOCSET_SMALL_SIZES);
	indexes = NIL;
	MemoryContextReset(indexes_memory);
	foreach(cell, drop->objects)
	{
		RangeVar   *name = makeRangeVarFromNameList(lfirst_node(List, cell));

		note_index(RangeVarGetRelid(name, NoLock, true));
	}
}

static bool
is_noted(const char *index)
{
	ListCell   *cell;

	foreach(cell, indexes)
	{
		if (strcmp(lfirst(cell), index) == 0)
			return true;
	}
	return false;
}

/* in the caller's memory */
List *
fin_audit_ddl_dropped(const char *tag)
{
	FinQueryScope scope;
	Datum		values[1] = {ObjectIdGetDatum(fin_audit_table_function())};
	List	   *all = NIL;
	uint64		n;

	fin_query_begin(&scope);
	n = fin_query_run(&find_dropped, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext inner = MemoryContextSwitchTo(scope.caller);
		const char *object = fin_query_text(i, 1);
		bool		isnull;
		Oid			table = DatumGetObjectId(fin_query_datum(i, 2, &isnull));
		bool		is_index;

		if (isnull)
			table = InvalidOid;
		is_index = DatumGetBool(fin_query_datum(i, 3, &isnull)) && !isnull;
		if (!is_index || is_noted(object))
			all = add_affected(all, tag, object, table, true);
		MemoryContextSwitchTo(inner);
	}
	fin_query_end(&scope);
	return all;
}

/* ------------------------------------------------------------------------
 * what was granted: the server does not tell
 * ------------------------------------------------------------------------ */

static List *
add_granted_table(List *all, const char *tag, const RangeVar *name, Oid ours)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	if (!OidIsValid(relid) ||
		(get_rel_namespace(relid) != ours && !is_about(&is_audited, relid)))
		return all;
	return add_affected(all, tag, fin_audit_table_name(relid),
						InvalidOid, true);
}

static List *
add_granted_routine(List *all, const char *tag, ObjectWithArgs *name, Oid ours)
{
	Oid			routine = LookupFuncWithArgs(OBJECT_ROUTINE, name, true);

	if (!OidIsValid(routine) || get_func_namespace(routine) != ours)
		return all;
	return add_affected(all, tag, format_procedure_qualified(routine),
						InvalidOid, true);
}

static Oid
type_namespace(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid			namespace;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	namespace = ((Form_pg_type) GETSTRUCT(tuple))->typnamespace;
	ReleaseSysCache(tuple);
	return namespace;
}

static List *
add_granted_type(List *all, const char *tag, List *name, Oid ours)
{
	Oid			type = LookupTypeNameOid(NULL, makeTypeNameFromNameList(name),
										 true);

	if (!OidIsValid(type) || (type_namespace(type) != ours &&
							  !is_about(&is_audited_type, type)))
		return all;
	return add_affected(all, tag,
						format_type_extended(type, -1,
											 FORMAT_TYPE_FORCE_QUALIFY),
						InvalidOid, true);
}

/* all that is in it, or comes to be */
static List *
add_granted_schema(List *all, const char *tag, const char *schema, Oid ours,
				   bool is_of_content)
{
	Oid			namespace = get_namespace_oid(schema, true);

	if (!OidIsValid(namespace) ||
		(namespace != ours &&
		 !(is_of_content && is_about(&has_audited, namespace))))
		return all;
	return add_affected(all, tag, schema, InvalidOid, true);
}

static List *
find_granted(const GrantStmt *grant, const char *tag)
{
	Oid			ours = get_namespace_oid("finance", false);
	bool		is_of_content = grant->targtype == ACL_TARGET_ALL_IN_SCHEMA;
	List	   *all = NIL;
	ListCell   *cell;

	foreach(cell, grant->objects)
	{
		Node	   *object = lfirst(cell);

		if (IsA(object, RangeVar))
			all = add_granted_table(all, tag, (RangeVar *) object, ours);
		else if (IsA(object, ObjectWithArgs))
			all = add_granted_routine(all, tag, (ObjectWithArgs *) object, ours);
		else if (IsA(object, List) && (grant->objtype == OBJECT_TYPE ||
									   grant->objtype == OBJECT_DOMAIN))
			all = add_granted_type(all, tag, (List *) object, ours);
		else if (IsA(object, String) &&
				 (grant->objtype == OBJECT_SCHEMA || is_of_content))
			all = add_granted_schema(all, tag, strVal(object), ours,
									 is_of_content);
	}
	return all;
}

/* of what comes to be in some schemas, or everywhere */
static List *
find_default_granted(const AlterDefaultPrivilegesStmt *alter, const char *tag)
{
	Oid			ours = get_namespace_oid("finance", false);
	List	   *schemas = NIL;
	List	   *all = NIL;
	ListCell   *cell;

	foreach(cell, alter->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "schemas") == 0)
			schemas = (List *) option->arg;
	}
	if (schemas == NIL)
		return add_affected(NIL, tag, "finance", InvalidOid, true);
	foreach(cell, schemas)
		all = add_granted_schema(all, tag, strVal(lfirst(cell)), ours, true);
	return all;
}

/* of the rest the server tells */
List *
fin_audit_ddl_changed(const Node *command, const char *tag)
{
	if (IsA(command, GrantStmt))
		return find_granted((const GrantStmt *) command, tag);
	if (IsA(command, AlterDefaultPrivilegesStmt))
		return find_default_granted((const AlterDefaultPrivilegesStmt *) command,
									tag);
	/* also takes back what was granted, and from whom: nobody knows later */
	if (IsA(command, DropOwnedStmt))
		return add_affected(NIL, tag, "finance", InvalidOid, true);
	return find_changed_objects();
}
