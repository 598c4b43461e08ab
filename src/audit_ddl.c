/*
 * audit_ddl.c
 *		Event triggers: DDL on what belongs to finance, and on audited tables.
 *
 * Owns kept plans only.  Two event triggers of the extension, enabled always,
 * call one function at the end of each command and when it dropped something.
 * It runs for every command of everybody, so it looks first at what costs
 * nothing (temporary tables, our own commands), then asks the server which
 * objects the command was about, and records a command only when one of them
 * is ours or an audited table.
 *
 * Nothing is recorded while a superuser restores a dump, which brings the log as
 * it was, nor before anything else was recorded.  Nor is what the extension's
 * scripts and functions do to their own objects: functions leave records of
 * their own.
 *
 * Locks: those of an INSERT; ACCESS SHARE on inheriting tables, and SHARE ROW
 * EXCLUSIVE on those that get triggers.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parse_func.h"
#include "tcop/cmdtag.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rls.h"

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
 * index, trigger, policy, rule or constraint is of.
 */
static FinQuery find_changed =
{
	.sql = "SELECT c.command_tag, c.object_identity, r.relid,"
	" c.classid = 'pg_catalog.pg_class'::pg_catalog.regclass,"
	" n.nspname IS NOT NULL OR " HAS_TRIGGERS("r.relid")
	" FROM pg_catalog.pg_event_trigger_ddl_commands() AS c"
	" CROSS JOIN LATERAL (SELECT CASE c.classid"
	"  WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN coalesce("
	"   (SELECT x.indrelid FROM pg_catalog.pg_index x WHERE x.indexrelid = c.objid), c.objid)"
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

/* of a table that is gone, its triggers tell that it was audited */
static FinQuery find_dropped =
{
	.sql = "SELECT DISTINCT CASE WHEN d.original OR d.object_type <> 'trigger'"
	" THEN d.object_identity"
	" ELSE pg_catalog.format('%I.%I', d.address_names[1], d.address_names[2]) END"
	" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
	" WHERE d.object_type = 'trigger' AND d.address_names[3] LIKE 'finance\\_audit\\_%'"
	" OR d.original AND (d.schema_name = 'finance'"
	"  OR d.object_type IN ('trigger', 'policy', 'rule', 'table constraint')"
	"  AND (d.address_names[1] = 'finance' OR EXISTS ("
	"   SELECT FROM pg_catalog.pg_class AS k"
	"   JOIN pg_catalog.pg_namespace AS n ON n.oid = k.relnamespace"
	"   WHERE n.nspname = d.address_names[1] AND k.relname = d.address_names[2]"
	"   AND " HAS_TRIGGERS("k.oid") ")))",
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

/* our own script runs, or the whole extension is what is made */
static bool
is_extension_command(const Node *command)
{
	return IsA(command, CreateExtensionStmt) ||
		IsA(command, AlterExtensionStmt) ||
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
find_objects(FinQuery *query, const char *tag)
{
	FinQueryScope scope;
	Datum		values[1] = {ObjectIdGetDatum(fin_audit_table_function())};
	List	   *all = NIL;
	uint64		n;

	fin_query_begin(&scope);
	n = fin_query_run(query, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext inner = MemoryContextSwitchTo(scope.caller);

		if (tag != NULL)
			all = add_affected(all, tag, fin_query_text(i, 1), InvalidOid, true);
		else
		{
			bool		isnull;
			Oid			relid = DatumGetObjectId(fin_query_datum(i, 3, &isnull));
			bool		is_table = !isnull &&
				DatumGetBool(fin_query_datum(i, 4, &isnull)) && !isnull;

			all = add_affected(all, fin_query_text(i, 1), fin_query_text(i, 2),
							   is_table ? relid : InvalidOid,
							   DatumGetBool(fin_query_datum(i, 5, &isnull)));
		}
		MemoryContextSwitchTo(inner);
	}
	fin_query_end(&scope);
	return all;
}

static bool
is_audited_table(Oid relid)
{
	FinQueryScope scope;
	Datum		values[2] = {ObjectIdGetDatum(fin_audit_table_function()),
	ObjectIdGetDatum(relid)};
	bool		found;

	fin_query_begin(&scope);
	found = fin_query_run(&is_audited, values, NULL, 1) == 1;
	fin_query_end(&scope);
	return found;
}

static List *
add_granted_table(List *all, const char *tag, const RangeVar *name, Oid ours)
{
	Oid			relid = RangeVarGetRelid(name, NoLock, true);

	if (!OidIsValid(relid) ||
		(get_rel_namespace(relid) != ours && !is_audited_table(relid)))
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

/* the server does not tell the objects of GRANT and REVOKE */
static List *
find_granted(const GrantStmt *grant, const char *tag)
{
	Oid			ours = get_namespace_oid("finance", false);
	List	   *all = NIL;
	ListCell   *cell;

	foreach(cell, grant->objects)
	{
		Node	   *object = lfirst(cell);

		if (IsA(object, RangeVar))
			all = add_granted_table(all, tag, (RangeVar *) object, ours);
		else if (IsA(object, ObjectWithArgs))
			all = add_granted_routine(all, tag, (ObjectWithArgs *) object, ours);
		else if (IsA(object, String) &&
				 (grant->objtype == OBJECT_SCHEMA ||
				  grant->targtype == ACL_TARGET_ALL_IN_SCHEMA) &&
				 strcmp(strVal(object), "finance") == 0)
			all = add_affected(all, tag, "finance", InvalidOid, true);
	}
	return all;
}

/* ------------------------------------------------------------------------
 * recording
 * ------------------------------------------------------------------------ */

/* {"command": ...}: what the client sent, as far as there is room */
static char *
command_json(void)
{
	StringInfoData json;
	const char *command = debug_query_string;

	if (command == NULL)
		return NULL;
	initStringInfo(&json);
	fin_json_text(&json, "command",
				  pnstrdup(command,
						   pg_mbcliplen(command, strlen(command),
										COMMAND_LENGTH_MAX)));
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
 * For ddl_command_end and sql_drop.  Records, with the command's tag as
 * operation and an object's identity, commands that change or drop what is in
 * schema finance, or an audited table or something of it, and grants on them.
 * New partitions and inheriting tables of an audited table get its triggers;
 * the names of columns that a table's triggers were given follow them.
 * Errors: 39P03 not called as an event trigger; 2BP01 the column dropped is the
 * subject of encrypted values; 22023 a generated column tells of a masked one; for what concerns us, those of
 * fin_context_of_database().
 */
Datum
finance_audit_ddl(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = (EventTriggerData *) fcinfo->context;
	const Node *command;
	int			nest;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_audit_ddl() can only be called as an event trigger"));
	command = event->parsetree;
	if (is_of_no_concern(command))
		PG_RETURN_NULL();
	nest = fin_output_fix_quotes();
	if (strcmp(event->event, "sql_drop") == 0)
	{
		if (!IsA(command, AlterTableStmt) || is_of_type(command))
			follow_lost_columns();
		/* what ALTER TABLE drops is of the table that it alters */
		if (!IsA(command, AlterTableStmt) && !fin_query_in_utility())
			act_on(command, find_objects(&find_dropped,
										 GetCommandTagName(event->tag)));
	}
	else if (IsA(command, GrantStmt))
	{
		if (!fin_query_in_utility())
			act_on(command, find_granted((const GrantStmt *) command,
										 GetCommandTagName(event->tag)));
	}
	else
	{
		if (IsA(command, RenameStmt) &&
			((const RenameStmt *) command)->renameType == OBJECT_ATTRIBUTE)
			follow_attribute((const RenameStmt *) command);
		act_on(command, find_objects(&find_changed, NULL));
	}
	fin_output_restore(nest);
	PG_RETURN_NULL();
}
