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
 * Owns kept plans.
 *
 * Locks: those of an INSERT; ACCESS SHARE on inheriting tables, and SHARE ROW
 * EXCLUSIVE on those that get triggers.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/scansup.h"
#include "tcop/cmdtag.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rls.h"

#include "audit.h"
#include "audit_ddl.h"
#include "audit_table.h"
#include "compat.h"
#include "context.h"
#include "json.h"
#include "json_output.h"
#include "query.h"

#define COMMAND_LENGTH_MAX	(16 * 1024)

/* columns that went with something else, of audited tables that are still there */
static FinQuery find_lost_columns =
{
	.sql = "SELECT DISTINCT d.objid"
	" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
	" WHERE d.object_type = 'table column' AND " FIN_HAS_AUDIT_TRIGGERS("d.objid"),
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

/* audited tables of a composite type */
static FinQuery find_typed =
{
	.sql = "SELECT k.oid FROM pg_catalog.pg_class AS k"
	" JOIN pg_catalog.pg_type AS y ON y.oid = k.reloftype"
	" WHERE y.typrelid = $2 AND " FIN_HAS_AUDIT_TRIGGERS("k.oid"),
	.nargs = 2,
	.argtypes = {OIDOID, OIDOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery find_any_record =
{
	.sql = "SELECT r.tenant_id FROM finance.audit_record AS r LIMIT 1",
	.expect = SPI_OK_SELECT,
};

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
is_of_no_concern(const Node *command)
{
	if (IsBinaryUpgrade || is_extension_command(command) || is_restoring())
		return true;
	/* of our own only what comes below a table, which may be audited */
	if (fin_query_in_utility() && !makes_heirs(command))
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
		const FinAffected *affected = lfirst(cell);

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
		const FinAffected *affected = lfirst(cell);

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
		const FinAffected *affected = lfirst(cell);

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
		if (IsA(command, DropStmt))
			fin_audit_ddl_note_indexes((const DropStmt *) command);
		PG_RETURN_NULL();
	}
	nest = fin_output_fix_quotes();
	if (strcmp(event->event, "sql_drop") == 0)
	{
		/* what ALTER TABLE drops is of the table that it alters */
		if (!IsA(command, AlterTableStmt))
			act_on(command, fin_audit_ddl_dropped(tag));
		if (!IsA(command, AlterTableStmt) || is_of_type(command))
			follow_lost_columns();
	}
	else
	{
		if (IsA(command, RenameStmt) &&
			((const RenameStmt *) command)->renameType == OBJECT_ATTRIBUTE)
			follow_attribute((const RenameStmt *) command);
		act_on(command, fin_audit_ddl_changed(command, tag));
	}
	fin_output_restore(nest);
	PG_RETURN_NULL();
}
