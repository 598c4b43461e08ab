/*
 * audit_table.c
 *		Attaching the row trigger to tables, and taking it off.
 *
 * Owns nothing: the triggers are the state, and pg_dump carries them with
 * their table.  Statement triggers fire only on the table a statement names,
 * so partitions and inheriting tables get triggers of their own.
 *
 * Locks: SHARE ROW EXCLUSIVE on each table to attach, ACCESS EXCLUSIVE to take
 * off, until the end of the transaction; parents before children.
 *
 * The trigger functions are nobody's to execute but the owner's of the
 * extension, as whom the triggers are made, after it was checked that the
 * caller owns the table.  They are made from parse nodes: no command text, and
 * no event trigger run as that owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "audit.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "query.h"

typedef struct AuditTrigger
{
	const char *name;
	int16		event;
	bool		reads_old;
	bool		reads_new;
} AuditTrigger;

static const AuditTrigger audit_triggers[] =
{
	{"finance_audit_insert", TRIGGER_TYPE_INSERT, false, true},
	{"finance_audit_update", TRIGGER_TYPE_UPDATE, true, true},
	{"finance_audit_delete", TRIGGER_TYPE_DELETE, true, false},
	{"finance_audit_truncate", TRIGGER_TYPE_TRUNCATE, false, false},
};

static Oid
trigger_function(void)
{
	return LookupFuncName(list_make2(makeString("finance"),
									 makeString("_audit_rows")),
						  0, NULL, false);
}

static void
check_kind(Oid relid, Form_pg_class class)
{
	if (class->relkind != RELKIND_RELATION &&
		class->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("\"%s\" cannot be audited", NameStr(class->relname)),
				errdetail_relkind_not_supported(class->relkind));
	if (class->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("\"%s\" cannot be audited", NameStr(class->relname)),
				errdetail("This operation is not supported for temporary tables."));
	if (IsSystemClass(relid, class))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied: \"%s\" is a system catalog",
					   NameStr(class->relname)));
}

/* finance.audit_record or one of its partitions */
static void
check_not_the_log(Oid relid, Form_pg_class class)
{
	Oid			log = fin_query_relation("audit_record");

	if (relid == log ||
		(class->relispartition &&
		 list_member_oid(get_partition_ancestors(relid), log)))
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_PROTECTED),
				errmsg("\"%s\" cannot be audited", NameStr(class->relname)),
				errdetail("It is the audit log, which would record its own records."));
}

/* false when the table is gone */
static bool
check_target(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		return false;
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (!fin_compat_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(class->relkind),
					   NameStr(class->relname));
	check_kind(relid, class);
	check_not_the_log(relid, class);
	ReleaseSysCache(tuple);
	return true;
}

/*
 * The table and all that inherit from it, locked and checked.  Checked before
 * locking, so that nobody locks a table of others, and again after, since it
 * may have changed meanwhile.
 */
static List *
checked_tables(Oid target, LOCKMODE lock)
{
	List	   *tables;
	ListCell   *cell;

	if (check_target(target))
		LockRelationOid(target, lock);
	if (!check_target(target))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("relation with OID %u does not exist", target));
	tables = find_all_inheritors(target, NoLock, NULL);
	foreach(cell, tables)
	{
		if (check_target(lfirst_oid(cell)))
			LockRelationOid(lfirst_oid(cell), lock);
		if (!check_target(lfirst_oid(cell)))
			tables = foreach_delete_current(tables, cell);
	}
	return tables;
}

static List *
add_transition(List *transitions, char *name, bool is_new)
{
	TriggerTransition *transition = makeNode(TriggerTransition);

	transition->name = name;
	transition->isNew = is_new;
	transition->isTable = true;
	return lappend(transitions, transition);
}

static void
create_trigger(Oid table, const AuditTrigger *kind)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = pstrdup(kind->name);
	stmt->funcname = list_make2(makeString("finance"),
								makeString("_audit_rows"));
	stmt->timing = TRIGGER_TYPE_AFTER;
	stmt->events = kind->event;
	if (kind->reads_old)
		stmt->transitionRels = add_transition(stmt->transitionRels,
											  "old_rows", false);
	if (kind->reads_new)
		stmt->transitionRels = add_transition(stmt->transitionRels,
											  "new_rows", true);
	CreateTriggerFiringOn(stmt, NULL, table, InvalidOid, InvalidOid,
						  InvalidOid, trigger_function(), InvalidOid, NULL,
						  false, false, TRIGGER_FIRES_ALWAYS);
}

/* the trigger of ours for this event, or any when kind is NULL */
static Oid
find_trigger(Oid table, const AuditTrigger *kind, char *enabled)
{
	Relation	relation = table_open(table, NoLock);
	TriggerDesc *triggers = relation->trigdesc;
	Oid			function = trigger_function();
	Oid			found = InvalidOid;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == function &&
			(kind == NULL || strcmp(trigger->tgname, kind->name) == 0))
		{
			found = trigger->tgoid;
			*enabled = trigger->tgenabled;
			break;
		}
	}
	table_close(relation, NoLock);
	return found;
}

static void
drop_trigger(Oid trigger)
{
	ObjectAddress address;

	ObjectAddressSet(address, TriggerRelationId, trigger);
	performDeletion(&address, DROP_RESTRICT, 0);
	CommandCounterIncrement();
}

/* one that somebody disabled is replaced */
static bool
attach_triggers(Oid table)
{
	bool		changed = false;

	for (int i = 0; i < (int) lengthof(audit_triggers); i++)
	{
		char		enabled;
		Oid			there = find_trigger(table, &audit_triggers[i], &enabled);

		if (OidIsValid(there) && enabled == TRIGGER_FIRES_ALWAYS)
			continue;
		if (OidIsValid(there))
			drop_trigger(there);
		create_trigger(table, &audit_triggers[i]);
		changed = true;
	}
	if (changed)
		CommandCounterIncrement();
	return changed;
}

static bool
detach_triggers(Oid table)
{
	bool		changed = false;
	char		enabled;
	Oid			there;

	while (OidIsValid(there = find_trigger(table, NULL, &enabled)))
	{
		drop_trigger(there);
		changed = true;
	}
	return changed;
}

/* that auditing began or ended is itself recorded */
static void
record_change(Oid table, const char *operation)
{
	FinAuditRecord record = {.operation = operation};

	record.object =
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
								   get_rel_name(table));
	fin_audit_append(&record, 1);
}

/* returns how many tables changed */
static int
change_tables(Oid target, LOCKMODE lock, bool (*change) (Oid table),
			  const char *operation)
{
	List	   *tables = checked_tables(target, lock);
	ListCell   *cell;
	FinQueryScope scope;
	int			changed = 0;

	(void) fin_context();
	fin_query_begin(&scope);
	foreach(cell, tables)
	{
		if (change(lfirst_oid(cell)))
		{
			record_change(lfirst_oid(cell), operation);
			changed++;
		}
	}
	fin_query_end(&scope);
	return changed;
}

PG_FUNCTION_INFO_V1(finance_audit_table);

/*
 * finance.audit_table(target regclass) returns integer
 *
 * From now on records every INSERT, UPDATE, DELETE and TRUNCATE of the table,
 * and of its partitions and inheriting tables there are; of later ones after
 * calling it again.  Returns how many tables it attached triggers to: 0 when
 * all had theirs.  One that was disabled is enabled again.
 * Errors: 42501 not the owner, or a system catalog; 42809 not an ordinary
 * table; LG201 the audit log itself; 42P01 no such table.
 * Locks: SHARE ROW EXCLUSIVE on the tables.
 */
Datum
finance_audit_table(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(change_tables(PG_GETARG_OID(0), ShareRowExclusiveLock,
								  attach_triggers, "audit_table"));
}

PG_FUNCTION_INFO_V1(finance_unaudit_table);

/*
 * finance.unaudit_table(target regclass) returns integer
 *
 * The reverse of audit_table.  Returns how many tables had triggers, 0 when
 * none.  Records stay.  Errors: as audit_table.
 * Locks: ACCESS EXCLUSIVE on the tables.
 */
Datum
finance_unaudit_table(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(change_tables(PG_GETARG_OID(0), AccessExclusiveLock,
								  detach_triggers, "unaudit_table"));
}
