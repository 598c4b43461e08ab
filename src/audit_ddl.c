/*
 * audit_ddl.c
 *		Event triggers: DDL on what belongs to finance, and on audited tables.
 *
 * Three event triggers of the extension, enabled always, call one function at
 * the end of each command, when it dropped something, and before DROP INDEX.
 * It runs for every command of everybody, so it looks first at what costs
 * nothing (temporary tables, our own commands), then asks the server which
 * objects the command was about, and records a command only when one of them
 * is ours, of an audited table, or a type of its columns.
 *
 * The server tells of no command about databases, roles and event triggers, nor
 * of REASSIGN OWNED; of a command that failed nothing stays.
 *
 * Nothing is recorded while a superuser restores a dump, which brings the log as
 * it was, nor before anything else was recorded.  Nor is what the extension's
 * scripts and functions do to their own objects: functions leave records of
 * their own.
 *
 * Owns kept plans; and, static, the names of the indexes of audited tables that
 * DROP INDEX is about to drop: of what table an index was nobody knows later.
 * They are forgotten when the next such command begins.
 *
 * Locks: those of an INSERT; ACCESS SHARE on inheriting tables, and SHARE ROW
 * EXCLUSIVE on those that get triggers.
 */
#include "postgres.h"

#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "parser/scansup.h"
#include "tcop/cmdtag.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/portal.h"
#include "utils/regproc.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "audit.h"
#include "audit_table.h"
#include "compat.h"
#include "context.h"
#include "json.h"
#include "json_output.h"
#include "query.h"

#define COMMAND_LENGTH_MAX	(16 * 1024)

#define HAS_TRIGGERS(relid) \
	"EXISTS (SELECT FROM pg_catalog.pg_trigger AS t" \
	" WHERE t.tgrelid = " relid " AND t.tgfoid = $1)"

/* audited columns of the type, of arrays of it, or of domains over it */
#define AUDITED_COLUMNS(type) \
	" FROM pg_catalog.pg_trigger AS g" \
	" JOIN pg_catalog.pg_attribute AS a ON a.attrelid = g.tgrelid AND NOT a.attisdropped" \
	" JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid" \
	" WHERE g.tgfoid = $1 AND " type " IN (y.oid, y.typelem, y.typbasetype) LIMIT 1"
/* columns that went with something else, of audited tables that are still there */
static FinQuery find_lost_columns =
{
	.sql = "SELECT DISTINCT d.objid"
	" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
	" WHERE d.object_type = 'table column' AND " HAS_TRIGGERS("d.objid"),
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

/* audited tables of a composite type */
static FinQuery find_typed =
{
	.sql = "SELECT k.oid FROM pg_catalog.pg_class AS k"
	" JOIN pg_catalog.pg_type AS y ON y.oid = k.reloftype"
	" WHERE y.typrelid = $2 AND " HAS_TRIGGERS("k.oid"),
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID},
	.expect = SPI_OK_SELECT,
};

/*
 * The objects of the command that concern us.  relid: of the table that an
 * index, trigger, policy, rule or constraint is of, or one that has the type.
 */
static FinQuery find_changed =
{
	.sql = "SELECT c.command_tag, c.object_identity, r.relid,"
	" c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass,"
	" n.nspname IS NOT NULL OR " HAS_TRIGGERS("r.relid")
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
	"  AND (n.nspname = 'finance' OR " HAS_TRIGGERS("k.oid") ")"
	" WHERE k.oid IS NOT NULL"
	" OR d.object_type = 'trigger' AND d.address_names[3] LIKE 'finance\\_audit\\_%'"
	" OR d.original AND (d.schema_name = 'finance' OR d.object_type = 'index')"
	" ORDER BY 1",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery find_any_record =
{
	.sql = "SELECT r.tenant_id FROM finance.audit_record AS r LIMIT 1",
	.expect = SPI_OK_SELECT,
};

static FinQuery is_audited =
{
	.sql = "SELECT WHERE " HAS_TRIGGERS("$2"),
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

/* something a command was about */
typedef struct Affected
{
	const char *tag;
	const char *object;			/* its identity */
	Oid			table;			/* a table itself, not something of it */
	bool		is_concern;		/* ours, or of an audited table */
} Affected;

/* ------------------------------------------------------------------------
 * what need not be looked at
 * ------------------------------------------------------------------------ */

static bool
is_temporary(const RangeVar *relation)
{
	return relation != NULL &&
		relation->relpersistence == RELPERSISTENCE_TEMP;
}

/* our own script runs, or an extension is what is made, whose parts are told */
static bool
is_extension_command(const Node *command)
{
	return IsA(command, CreateExtensionStmt) ||
		(IsA(command, AlterExtensionStmt) &&
		 strcmp(((const AlterExtensionStmt *) command)->extname, "finance") != 0) ||
		(creating_extension &&
		 CurrentExtensionObject == get_extension_oid("finance", true));
}

/*
 * As pg_dump begins its scripts.  A superuser who pretends could as well disable
 * the event trigger; nobody else gets past it.
 */
static bool
is_restoring(void)
{
	return !check_function_bodies && !row_security &&
		namespace_search_path[0] == '\0' && superuser();
}

static bool
is_of_no_concern(const Node *command)
{
	if (IsBinaryUpgrade || is_extension_command(command) || is_restoring())
		return true;
	/* changes nothing; servers before 17 do not tell of it, later ones of each index */
	if (IsA(command, ReindexStmt))
		return true;
	if (IsA(command, CreateStmt))
		return is_temporary(((const CreateStmt *) command)->relation);
	if (IsA(command, CreateTableAsStmt))
		return is_temporary(((const CreateTableAsStmt *) command)->into->rel);
	if (IsA(command, ViewStmt))
		return is_temporary(((const ViewStmt *) command)->view);
	return false;
}

/* ------------------------------------------------------------------------
 * what a command was about
 * ------------------------------------------------------------------------ */

static List *
add_affected(List *all, const char *tag, const char *object, Oid table,
			 bool is_concern)
{
	Affected   *affected = palloc(sizeof(Affected));

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
static void
note_indexes(const DropStmt *drop)
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
static List *
find_dropped_objects(const char *tag)
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
static List *
find_objects(const Node *command, const char *tag)
{
	if (IsA(command, GrantStmt))
		return fin_query_in_utility() ? NIL :
			find_granted((const GrantStmt *) command, tag);
	if (IsA(command, AlterDefaultPrivilegesStmt))
		return find_default_granted((const AlterDefaultPrivilegesStmt *) command,
									tag);
	/* also takes back what was granted, and from whom: nobody knows later */
	if (IsA(command, DropOwnedStmt))
		return add_affected(NIL, tag, "finance", InvalidOid, true);
	return find_changed_objects();
}

/* ------------------------------------------------------------------------
 * recording
 * ------------------------------------------------------------------------ */

/*
 * The statement that the client sent, of those sent together: others may hold
 * values that are masked.  NULL: there is none.
 */
static const char *
client_statement(int *length)
{
	const char *text = debug_query_string;
	const PlannedStmt *statement = NULL;

	*length = text == NULL ? 0 : (int) strlen(text);
	if (ActivePortal != NULL && ActivePortal->sourceText != NULL &&
		ActivePortal->stmts != NIL)
		statement = linitial_node(PlannedStmt, ActivePortal->stmts);
	if (statement == NULL || statement->stmt_location < 0)
		return text;
	text = ActivePortal->sourceText + statement->stmt_location;
	*length = statement->stmt_len > 0 ? statement->stmt_len :
		(int) strlen(text);
	for (; *length > 0 && scanner_isspace(*text); text++)
		(*length)--;
	return text;
}

/* {"command": ...}, as far as there is room */
static char *
command_json(void)
{
	StringInfoData json;
	int			length;
	const char *command = client_statement(&length);

	if (command == NULL)
		return NULL;
	initStringInfo(&json);
	fin_json_text(&json, "command",
				  pnstrdup(command,
						   pg_mbcliplen(command, length, COMMAND_LENGTH_MAX)));
	return fin_json_end(&json);
}

/* inside of fin_query_begin/end */
static void
record_commands(const List *all)
{
	FinAuditRecord *records = palloc0(sizeof(FinAuditRecord) *
									  Max(list_length(all), 1));
	char	   *request = command_json();
	int			n = 0;
	ListCell   *cell;

	foreach(cell, all)
	{
		const Affected *affected = lfirst(cell);

		if (!affected->is_concern)
			continue;
		records[n].operation = affected->tag;
		records[n].object = affected->object;
		records[n].request = request;
		n++;
	}
	if (n > 0 && fin_query_run(&find_any_record, NULL, NULL, 1) == 1)
		fin_audit_append(records, n);
}

/* ------------------------------------------------------------------------
 * audited tables that change
 * ------------------------------------------------------------------------ */

static bool
has_step(const Node *command, AlterTableType first, AlterTableType second)
{
	ListCell   *cell;

	if (!IsA(command, AlterTableStmt))
		return false;
	foreach(cell, ((const AlterTableStmt *) command)->cmds)
	{
		AlterTableType type = lfirst_node(AlterTableCmd, cell)->subtype;

		if (type == first || type == second)
			return true;
	}
	return false;
}

/* CREATE SCHEMA may have made some: who inherits is found in the catalog */
static bool
makes_heirs(const Node *command)
{
	if (IsA(command, CreateSchemaStmt))
		return true;
	if (IsA(command, CreateStmt))
		return ((const CreateStmt *) command)->inhRelations != NIL;
	return has_step(command, AT_AttachPartition, AT_AddInherit);
}

static bool
is_column_renaming(const Node *command)
{
	return IsA(command, RenameStmt) &&
		((const RenameStmt *) command)->renameType == OBJECT_COLUMN;
}

/* what the triggers are told follows the table; inside of fin_query_begin/end */
static void
follow_table(const Node *command, Oid table)
{
	if (makes_heirs(command))
		fin_audit_table_inherit(table);
	else if (is_column_renaming(command))
		fin_audit_table_follow(table, ((const RenameStmt *) command)->subname,
							   ((const RenameStmt *) command)->newname);
	else if (has_step(command, AT_DropColumn, AT_AddColumn))
		fin_audit_table_follow(table, NULL, NULL);
	if (IsA(command, AlterTableStmt))
		fin_audit_table_altered(table);
}

/* tables that a query finds; in the caller's memory */
static List *
find_tables(FinQuery *query, Oid about)
{
	Datum		values[2] = {ObjectIdGetDatum(fin_audit_table_function()),
	ObjectIdGetDatum(about)};
	FinQueryScope scope;
	List	   *tables = NIL;
	uint64		n;

	fin_query_begin(&scope);
	n = fin_query_run(query, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext inner = MemoryContextSwitchTo(scope.caller);
		bool		isnull;

		tables = lappend_oid(tables,
							 DatumGetObjectId(fin_query_datum(i, 1, &isnull)));
		MemoryContextSwitchTo(inner);
	}
	fin_query_end(&scope);
	return tables;
}

static void
follow_tables(List *tables, const char *old_name, const char *new_name)
{
	FinQueryScope scope;
	ListCell   *cell;

	if (tables == NIL)
		return;
	(void) fin_context_of_database();
	fin_query_begin(&scope);
	foreach(cell, tables)
		fin_audit_table_follow(lfirst_oid(cell), old_name, new_name);
	fin_query_end(&scope);
}

/* columns that a command about something else dropped or renamed */
static void
follow_lost_columns(void)
{
	follow_tables(find_tables(&find_lost_columns, InvalidOid), NULL, NULL);
}

static void
follow_attribute(const RenameStmt *renaming)
{
	Oid			type = RangeVarGetRelid(renaming->relation, NoLock, true);

	if (OidIsValid(type))
		follow_tables(find_tables(&find_typed, type), renaming->subname,
					  renaming->newname);
}

static bool
is_of_type(const Node *command)
{
	return IsA(command, AlterTableStmt) &&
		((const AlterTableStmt *) command)->objtype == OBJECT_TYPE;
}

/* does the command concern us, or make something below an audited table? */
static bool
is_anything_to_do(const Node *command, const List *all)
{
	ListCell   *cell;

	foreach(cell, all)
	{
		const Affected *affected = lfirst(cell);

		if (affected->is_concern ||
			(OidIsValid(affected->table) && makes_heirs(command)))
			return true;
	}
	return false;
}

static void
act_on(const Node *command, const List *all)
{
	FinQueryScope scope;
	ListCell   *cell;

	if (!is_anything_to_do(command, all))
		return;
	(void) fin_context_of_database();
	fin_query_begin(&scope);
	if (!fin_query_in_utility())
		record_commands(all);
	foreach(cell, all)
	{
		const Affected *affected = lfirst(cell);

		if (OidIsValid(affected->table))
			follow_table(command, affected->table);
	}
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_audit_ddl);

/*
 * finance._audit_ddl() returns event_trigger
 *
 * For ddl_command_end, sql_drop, and ddl_command_start of DROP INDEX.  Records,
 * with the command's tag as operation and an object's identity, commands that
 * change or drop what is in schema finance, an audited table, something of it, or
 * a type of its columns, and grants on them; also default privileges that hold in
 * their schemas, updates of the extension, and each DROP OWNED.
 * New partitions and inheriting tables of an audited table get its triggers;
 * the names of columns that a table's triggers were given follow them.
 * Errors: 39P03 not called as an event trigger; 2BP01 the column dropped is the
 * subject of encrypted values; 55000 a table audited came below one that is not;
 * for what concerns us, those of fin_context_of_database().
 */
Datum
finance_audit_ddl(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	const Node *command;
	const char *tag;
	int			nest;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_audit_ddl() can only be called as an event trigger"));
	command = event->parsetree;
	if (is_of_no_concern(command))
		PG_RETURN_NULL();
	tag = GetCommandTagName(event->tag);
	if (strcmp(event->event, "ddl_command_start") == 0)
	{
		/* as the session quotes names: so does the server what it drops */
		if (IsA(command, DropStmt) && !fin_query_in_utility())
			note_indexes((const DropStmt *) command);
		PG_RETURN_NULL();
	}
	nest = fin_output_fix_quotes();
	if (strcmp(event->event, "sql_drop") == 0)
	{
		/* what ALTER TABLE drops is of the table that it alters */
		if (!IsA(command, AlterTableStmt) && !fin_query_in_utility())
			act_on(command, find_dropped_objects(tag));
		if (!IsA(command, AlterTableStmt) || is_of_type(command))
			follow_lost_columns();
	}
	else
	{
		if (IsA(command, RenameStmt) &&
			((const RenameStmt *) command)->renameType == OBJECT_ATTRIBUTE)
			follow_attribute((const RenameStmt *) command);
		act_on(command, find_objects(command, tag));
	}
	fin_output_restore(nest);
	PG_RETURN_NULL();
}
