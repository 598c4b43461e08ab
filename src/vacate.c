/*
 * vacate.c
 *		Workers step aside for statements that need a database to themselves.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME, ... SET TABLESPACE and CREATE
 * DATABASE ... TEMPLATE refuse a database that anyone is connected to.  So that
 * they work without the user knowing of workers, the database's worker is asked
 * to leave first and held off until the transaction has ended, however it ends.
 * Only for users who own the database: others must not stop its worker.
 *
 * When an extension is dropped, the worker is told by the commit and looks
 * whether it was its own.
 *
 * Owns: the chain of both hooks.  Locks: see roster.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"

#include "compat.h"
#include "roster.h"
#include "vacate.h"
#include "wake.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static const char *
option_text(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* the database the statement needs to itself, or NULL */
static const char *
database_needed(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return castNode(DropdbStmt, statement)->dbname;
		case T_CreatedbStmt:
			{
				const char *name = option_text(castNode(CreatedbStmt,
														statement)->options,
											   "template");

				return name != NULL ? name : "template1";
			}
		case T_AlterDatabaseStmt:
			{
				AlterDatabaseStmt *alter = castNode(AlterDatabaseStmt,
													statement);

				return option_text(alter->options, "tablespace") != NULL ?
					alter->dbname : NULL;
			}
		case T_RenameStmt:
			{
				RenameStmt *rename = castNode(RenameStmt, statement);

				return rename->renameType == OBJECT_DATABASE ?
					rename->subname : NULL;
			}
		default:
			return NULL;
	}
}

static void
vacate_for(Node *statement)
{
	const char *name = database_needed(statement);
	Oid			database;

	/* a new database, or one that is opened, closed or made a template */
	if (IsA(statement, CreatedbStmt) || IsA(statement, AlterDatabaseStmt))
		fin_wake_note_launcher(InvalidOid);
	if (name == NULL)
		return;
	database = get_database_oid(name, true);
	if (OidIsValid(database) &&
		FIN_OWNS_DATABASE(database, GetUserId()))
		fin_roster_vacate(database);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *dest, QueryCompletion *completion)
{
	/* in a failed transaction there is nothing to look up */
	if (fin_roster_available() && IsTransactionState())
		vacate_for(pstmt->utilityStmt);
	if (prev_process_utility)
		prev_process_utility(pstmt, query_string, read_only_tree, context,
							 params, environment, dest, completion);
	else
		standard_ProcessUtility(pstmt, query_string, read_only_tree, context,
								params, environment, dest, completion);
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id,
			  int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access == OAT_DROP && class_id == ExtensionRelationId)
		fin_wake_note_attention();
}

void
fin_vacate_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
