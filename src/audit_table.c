/*
 * audit_table.c
 *		Attaching the row trigger to tables, and taking it off.
 *
 * Owns nothing: the triggers are the state, with what the owner chose as their
 * argument, and pg_dump carries them with their table.  Statement triggers fire
 * only on the table a statement names, so partitions and inheriting tables get
 * triggers of their own, and the event trigger gives them to later ones.
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

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "audit.h"
#include "audit_choice.h"
#include "audit_shape.h"
#include "audit_table.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "json_output.h"
#include "query.h"

/*
 * Where changes are replicated, row triggers fire but statement triggers do
 * not, except for TRUNCATE; so each change meets exactly one of these but the
 * last.  A partitioned table has no rows of its own.
 *
 * The last never fires.  For a row routed to a partition the server hands the
 * transition tables what was routed, before generated columns were computed,
 * unless the partition has a BEFORE trigger, enabled or not: then it hands over
 * the row as it was stored.
 */
typedef struct AuditTrigger
{
	const char *name;
	int16		type;			/* pg_trigger.tgtype: what it is found by */
	char		fires;			/* pg_trigger.tgenabled */
	bool		reads_old;
	bool		reads_new;
} AuditTrigger;

static const AuditTrigger audit_triggers[] =
{
	{"finance_audit_insert", TRIGGER_TYPE_INSERT, TRIGGER_FIRES_ON_ORIGIN,
	false, true},
	{"finance_audit_update", TRIGGER_TYPE_UPDATE, TRIGGER_FIRES_ON_ORIGIN,
	true, true},
	{"finance_audit_delete", TRIGGER_TYPE_DELETE, TRIGGER_FIRES_ON_ORIGIN,
	true, false},
	{"finance_audit_truncate", TRIGGER_TYPE_TRUNCATE, TRIGGER_FIRES_ALWAYS,
	false, false},
	{"finance_audit_replicated", FIN_AUDIT_REPLICATED,
	TRIGGER_FIRES_ON_REPLICA, false, false},
	{"finance_audit_routed", FIN_AUDIT_ROUTED, TRIGGER_DISABLED, false, false},
};

/* not by its name as a command has it: everybody's DDL is looked at */
Oid
fin_audit_table_function(void)
{
	Oid			function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
										   CStringGetDatum("_audit_rows"),
										   PointerGetDatum(buildoidvector(NULL, 0)),
										   ObjectIdGetDatum(get_namespace_oid("finance", false)));

	if (!OidIsValid(function))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_FUNCTION),
				errmsg("function finance._audit_rows() does not exist"),
				errhint("Run CREATE EXTENSION finance in this database."));
	return function;
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

/*
 * A table of the audit log: it would record its own records, its sealing, or
 * the keys that are to be forgotten.
 */
static void
check_not_the_log(Oid relid, Form_pg_class class)
{
	const char *name = NameStr(class->relname);
	Oid			log = fin_query_relation("audit_record");

	if ((class->relnamespace == get_namespace_oid("finance", false) &&
		 (strncmp(name, "audit_", strlen("audit_")) == 0 ||
		  strncmp(name, "_audit_", strlen("_audit_")) == 0)) ||
		(class->relispartition &&
		 list_member_oid(get_partition_ancestors(relid), log)))
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_PROTECTED),
				errmsg("\"%s\" cannot be audited", name),
				errdetail("It is of the audit log itself."));
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
create_trigger(Oid table, const AuditTrigger *kind, const char *argument)
{
	CreateTrigStmt *stmt = makeNode(CreateTrigStmt);

	stmt->trigname = pstrdup(kind->name);
	stmt->funcname = list_make2(makeString("finance"),
								makeString("_audit_rows"));
	stmt->timing = kind->type & TRIGGER_TYPE_TIMING_MASK;
	stmt->events = kind->type & TRIGGER_TYPE_EVENT_MASK;
	stmt->row = TRIGGER_FOR_ROW(kind->type);
	if (argument != NULL)
		stmt->args = list_make1(makeString(pstrdup(argument)));
	if (kind->reads_old)
		stmt->transitionRels = add_transition(stmt->transitionRels,
											  "old_rows", false);
	if (kind->reads_new)
		stmt->transitionRels = add_transition(stmt->transitionRels,
											  "new_rows", true);
	CreateTriggerFiringOn(stmt, NULL, table, InvalidOid, InvalidOid,
						  InvalidOid, fin_audit_table_function(), InvalidOid, NULL,
						  false, false, kind->fires);
}

typedef struct FoundTrigger
{
	Oid			oid;
	int16		type;
	char		enabled;
	char	   *argument;		/* NULL: none */
} FoundTrigger;

/* ours, whatever their names are now */
static List *
find_triggers(Oid table)
{
	Relation	relation = table_open(table, NoLock);
	TriggerDesc *triggers = relation->trigdesc;
	Oid			function = fin_audit_table_function();
	List	   *all = NIL;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		FoundTrigger *found;

		if (trigger->tgfoid != function)
			continue;
		found = palloc(sizeof(FoundTrigger));
		found->oid = trigger->tgoid;
		found->type = trigger->tgtype;
		found->enabled = trigger->tgenabled;
		found->argument = trigger->tgnargs > 0 ?
			pstrdup(trigger->tgargs[0]) : NULL;
		all = lappend(all, found);
	}
	table_close(relation, NoLock);
	return all;
}

static const AuditTrigger *
kind_of(int16 type)
{
	for (int i = 0; i < (int) lengthof(audit_triggers); i++)
	{
		if (audit_triggers[i].type == type)
			return &audit_triggers[i];
	}
	return NULL;
}

/* has it triggers of ours?  They have the same argument; NULL: none */
static bool
is_attached(Oid table, const char **argument)
{
	List	   *all = find_triggers(table);

	*argument = all == NIL ? NULL : ((FoundTrigger *) linitial(all))->argument;
	return all != NIL;
}

static void
drop_trigger(Oid trigger)
{
	ObjectAddress address;

	ObjectAddressSet(address, TriggerRelationId, trigger);
	performDeletion(&address, DROP_RESTRICT, 0);
	CommandCounterIncrement();
}

static bool
is_same_argument(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

/* a partition whose rows, when routed to it, are yet to be completed */
static bool
completes_rows(Oid table)
{
	Relation	relation = table_open(table, NoLock);
	TupleConstr *constraints = RelationGetDescr(relation)->constr;
	bool		completes = relation->rd_rel->relispartition &&
	constraints != NULL && constraints->has_generated_stored;

	table_close(relation, NoLock);
	return completes;
}

static bool
is_wanted(Oid table, const AuditTrigger *kind)
{
	if (TRIGGER_FOR_ROW(kind->type) &&
		get_rel_relkind(table) == RELKIND_PARTITIONED_TABLE)
		return false;
	return kind->type != FIN_AUDIT_ROUTED || completes_rows(table);
}

/* those that are enabled otherwise, of another choice, or one too many, go */
static bool
attach_trigger(Oid table, const AuditTrigger *kind, const char *argument)
{
	List	   *all = find_triggers(table);
	bool		lacks = is_wanted(table, kind);
	bool		changed = false;
	ListCell   *cell;

	foreach(cell, all)
	{
		const FoundTrigger *found = lfirst(cell);

		if (found->type != kind->type)
			continue;
		if (lacks && found->enabled == kind->fires &&
			is_same_argument(found->argument, argument))
		{
			lacks = false;
			continue;
		}
		drop_trigger(found->oid);
		changed = true;
	}
	if (lacks)
		create_trigger(table, kind, argument);
	return changed || lacks;
}

static bool
attach_triggers(Oid table, const char *argument)
{
	bool		changed = false;

	for (int i = 0; i < (int) lengthof(audit_triggers); i++)
	{
		if (attach_trigger(table, &audit_triggers[i], argument))
			changed = true;
	}
	if (changed)
		CommandCounterIncrement();
	return changed;
}

/* the argument is not used */
static bool
detach_triggers(Oid table, const char *argument)
{
	List	   *all = find_triggers(table);
	ListCell   *cell;

	foreach(cell, all)
		drop_trigger(((FoundTrigger *) lfirst(cell))->oid);
	return all != NIL;
}

char *
fin_audit_table_name(Oid table)
{
	int			nest = fin_output_fix_quotes();
	char	   *name =
	quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
							   get_rel_name(table));

	fin_output_restore(nest);
	return name;
}

static FinQuery find_parents =
{
	.sql = "SELECT i.inhparent FROM pg_catalog.pg_inherits i"
	" WHERE i.inhrelid = $1 ORDER BY i.inhseqno",
	.nargs = 1,
	.argtypes = {OIDOID},
	.expect = SPI_OK_SELECT,
};

/* inside of fin_query_begin/end; locked against going away */
static List *
parents_of(Oid relid)
{
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	uint64		n = fin_query_run(&find_parents, values, NULL, 0);
	List	   *parents = NIL;
	ListCell   *cell;

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		parents = lappend_oid(parents,
							  DatumGetObjectId(fin_query_datum(i, 1, &isnull)));
	}
	foreach(cell, parents)
		LockRelationOid(lfirst_oid(cell), AccessShareLock);
	return parents;
}

static FIN_NORETURN void
refuse_unseen(Oid table, Oid parent)
{
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("\"%s\" cannot be audited below \"%s\", which is not",
				   get_rel_name(table), get_rel_name(parent)),
			errdetail("What is written by way of \"%s\" would not be recorded.",
					  get_rel_name(parent)),
			errhint("Call finance.audit_table() for \"%s\", or finance.unaudit_table() for \"%s\".",
					get_rel_name(parent), get_rel_name(table)));
}

/* only triggers of the table that a statement names fire */
static void
check_parents(Oid table, const List *with)
{
	ListCell   *cell;

	foreach(cell, parents_of(table))
	{
		const char *argument;

		if (!list_member_oid(with, lfirst_oid(cell)) &&
			!is_attached(lfirst_oid(cell), &argument))
			refuse_unseen(table, lfirst_oid(cell));
	}
}

/* that auditing began, ended or changed is itself recorded */
static void
record_change(Oid table, const char *operation, const char *choice)
{
	FinAuditRecord record = {.operation = operation,.request = choice};

	record.object = fin_audit_table_name(table);
	fin_audit_append(&record, 1);
}

typedef struct TableChange
{
	const char *operation;
	bool		(*change) (Oid table, const char *argument);
	const char *argument;		/* of the triggers, or NULL */
	const char *choice;			/* for the record, or NULL */
} TableChange;

/* returns how many tables changed */
static int
change_tables(List *tables, const TableChange *change)
{
	ListCell   *cell;
	FinQueryScope scope;
	int			changed = 0;

	(void) fin_context();
	fin_query_begin(&scope);
	foreach(cell, change->change == attach_triggers ? tables : NIL)
		check_parents(lfirst_oid(cell), tables);
	foreach(cell, tables)
	{
		if (change->change(lfirst_oid(cell), change->argument))
		{
			record_change(lfirst_oid(cell), change->operation, change->choice);
			changed++;
		}
	}
	fin_query_end(&scope);
	return changed;
}

/* ------------------------------------------------------------------------
 * the choice, against the table
 * ------------------------------------------------------------------------ */

/* two ciphertexts of a value differ: nothing would be found by such a key */
static void
check_key_not_encrypted(const FinAuditChoice *choice, Oid relid)
{
	Relation	table = table_open(relid, NoLock);
	Bitmapset  *columns = fin_audit_key_columns(table);
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
	{
		const char *name =
		NameStr(TupleDescAttr(RelationGetDescr(table),
							  column + FirstLowInvalidHeapAttributeNumber - 1)->attname);

		if (fin_audit_choice_mask(choice, name) == FIN_MASK_ENCRYPT)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("column \"%s\" of the primary key of \"%s\" cannot be encrypted",
						   name, RelationGetRelationName(table)),
					errhint("Mask it with hash: the row stays to be found by it."));
	}
	bms_free(columns);
	table_close(table, NoLock);
}

static void
refuse_telling(const char *generated, const char *masked)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("generated column \"%s\" tells of the masked column \"%s\"",
				   generated, masked),
			errhint("Mask it as well, or leave it out with columns or ignore."));
}

static void
check_generated(const FinAuditChoice *choice, Oid relid)
{
	Relation	table = table_open(relid, NoLock);
	TupleDesc	columns = RelationGetDescr(table);
	const char *name = fin_audit_choice_virtual(choice, columns);

	if (name != NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("virtual column \"%s\" of table \"%s\" has no value to record",
					   name, RelationGetRelationName(table)),
				errhint("It follows from the columns it is computed from: record those."));
	for (int i = 0; i < columns->natts; i++)
	{
		const char *masked = fin_audit_choice_told(choice, columns, i + 1);

		name = NameStr(TupleDescAttr(columns, i)->attname);
		if (masked != NULL && fin_audit_choice_records(choice, name))
			refuse_telling(name, masked);
	}
	table_close(table, NoLock);
}

static void
check_choice(const FinAuditChoice *choice, List *tables)
{
	ListCell   *cell;

	foreach(cell, tables)
	{
		const char *stranger = fin_audit_choice_stranger(choice,
														 lfirst_oid(cell));

		if (stranger != NULL)
			ereport(ERROR,
					errcode(ERRCODE_UNDEFINED_COLUMN),
					errmsg("column \"%s\" of table \"%s\" does not exist",
						   stranger, get_rel_name(lfirst_oid(cell))));
		check_key_not_encrypted(choice, lfirst_oid(cell));
		check_generated(choice, lfirst_oid(cell));
	}
}

/* ------------------------------------------------------------------------
 * tables that change
 * ------------------------------------------------------------------------ */

/* of partitions and the like: what can have triggers of ours */
static bool
is_auditable(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	return (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
		get_rel_persistence(relid) != RELPERSISTENCE_TEMP;
}

/* to a table that has its triggers */
static void
add_routed_trigger(Oid relid, const char *argument)
{
	const AuditTrigger *kind = &audit_triggers[lengthof(audit_triggers) - 1];
	List	   *all = find_triggers(relid);
	ListCell   *cell;

	Assert(kind->type == FIN_AUDIT_ROUTED);
	foreach(cell, all)
	{
		if (((FoundTrigger *) lfirst(cell))->type == kind->type)
			return;
	}
	if (!is_wanted(relid, kind))
		return;
	create_trigger(relid, kind, argument);
	CommandCounterIncrement();
}

/* one that has triggers keeps them, whatever they record */
static void
inherit_triggers(Oid relid, const char *argument)
{
	FinAuditChoice *choice;
	const char *own;

	if (!is_auditable(relid))
		return;
	LockRelationOid(relid, ShareRowExclusiveLock);
	if (is_attached(relid, &own))
	{
		add_routed_trigger(relid, own);
		return;
	}
	choice = fin_audit_choice_read(argument);
	(void) attach_triggers(relid, argument);
	record_change(relid, "audit_table", fin_audit_choice_text(choice));
}

static void
hand_down(Oid relid, const char *argument)
{
	List	   *tables = find_all_inheritors(relid, NoLock, NULL);
	ListCell   *cell;

	foreach(cell, tables)
	{
		Relation	table = try_table_open(lfirst_oid(cell), AccessShareLock);

		if (table == NULL)
			continue;
		table_close(table, NoLock);
		inherit_triggers(lfirst_oid(cell), argument);
	}
}

/* what came below the table: its triggers would not see what is done above */
static void
check_heirs_not_attached(Oid relid)
{
	ListCell   *cell;

	foreach(cell, find_inheritance_children(relid, AccessShareLock))
	{
		const char *argument;

		if (is_auditable(lfirst_oid(cell)) &&
			is_attached(lfirst_oid(cell), &argument))
			refuse_unseen(lfirst_oid(cell), relid);
	}
}

void
fin_audit_table_inherit(Oid relid)
{
	const char *argument;
	ListCell   *cell;

	if (!is_auditable(relid))
		return;
	if (is_attached(relid, &argument))
	{
		check_parents(relid, NIL);
		hand_down(relid, argument);
		return;
	}
	check_heirs_not_attached(relid);
	foreach(cell, parents_of(relid))
	{
		if (!is_attached(lfirst_oid(cell), &argument))
			continue;
		hand_down(relid, argument);
		check_parents(relid, NIL);
		return;
	}
}

/* in place, so that what a trigger has yet to do is not lost */
static void
update_trigger(Oid trigger, Datum *values, bool *replace)
{
	Relation	triggers = table_open(TriggerRelationId, RowExclusiveLock);
	bool		nulls[Natts_pg_trigger] = {0};
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(triggers, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "could not find trigger %u", trigger);
	tuple = heap_modify_tuple(tuple, RelationGetDescr(triggers), values, nulls,
							  replace);
	CatalogTupleUpdate(triggers, &tuple->t_self, tuple);
	CacheInvalidateRelcacheByRelid(((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid);
	systable_endscan(scan);
	table_close(triggers, RowExclusiveLock);
}

static void
set_argument(Oid trigger, const char *argument)
{
	Size		length = argument == NULL ? 0 : strlen(argument) + 1;
	bytea	   *stored = palloc(VARHDRSZ + length);
	Datum		values[Natts_pg_trigger] = {0};
	bool		replace[Natts_pg_trigger] = {0};

	SET_VARSIZE(stored, VARHDRSZ + length);
	if (length > 0)
		memcpy(VARDATA(stored), argument, length);
	values[Anum_pg_trigger_tgnargs - 1] = Int16GetDatum(length > 0 ? 1 : 0);
	values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(stored);
	replace[Anum_pg_trigger_tgnargs - 1] = true;
	replace[Anum_pg_trigger_tgargs - 1] = true;
	update_trigger(trigger, values, replace);
}

static void
set_enabled(Oid trigger, char enabled)
{
	Datum		values[Natts_pg_trigger] = {0};
	bool		replace[Natts_pg_trigger] = {0};

	values[Anum_pg_trigger_tgenabled - 1] = CharGetDatum(enabled);
	replace[Anum_pg_trigger_tgenabled - 1] = true;
	update_trigger(trigger, values, replace);
}

/*
 * DISABLE TRIGGER ALL and ENABLE TRIGGER ALL, as a restore does, enable what
 * fires on replication as if it did not, and what never fires.  Who disables
 * them has them disabled: that is recorded.
 */
static void
enable_as_made(Oid relid)
{
	bool		changed = false;
	ListCell   *cell;

	foreach(cell, find_triggers(relid))
	{
		const FoundTrigger *found = lfirst(cell);
		const AuditTrigger *kind = kind_of(found->type);

		if (kind == NULL || found->enabled == kind->fires ||
			found->enabled == TRIGGER_DISABLED)
			continue;
		set_enabled(found->oid, kind->fires);
		changed = true;
	}
	if (changed)
		CommandCounterIncrement();
}

static void
follow_columns(Oid relid, const char *old_name, const char *new_name)
{
	const char *argument;
	FinAuditChoice *choice;
	ListCell   *cell;

	if (!is_attached(relid, &argument) || argument == NULL)
		return;
	choice = fin_audit_choice_read(argument);
	if (!fin_audit_choice_follow(choice, relid, old_name, new_name))
		return;
	argument = fin_audit_choice_text(choice);
	foreach(cell, find_triggers(relid))
		set_argument(((FoundTrigger *) lfirst(cell))->oid, argument);
	CommandCounterIncrement();
	record_change(relid, "audit_table", argument);
}

void
fin_audit_table_follow(Oid relid, const char *old_name, const char *new_name)
{
	List	   *tables = find_all_inheritors(relid, NoLock, NULL);
	ListCell   *cell;

	foreach(cell, tables)
	{
		if (!is_auditable(lfirst_oid(cell)))
			continue;
		LockRelationOid(lfirst_oid(cell), AccessShareLock);
		follow_columns(lfirst_oid(cell), old_name, new_name);
	}
}

void
fin_audit_table_altered(Oid relid)
{
	List	   *tables = find_all_inheritors(relid, NoLock, NULL);
	ListCell   *cell;

	foreach(cell, tables)
	{
		const char *argument;

		if (!is_auditable(lfirst_oid(cell)))
			continue;
		LockRelationOid(lfirst_oid(cell), AccessShareLock);
		if (!is_attached(lfirst_oid(cell), &argument))
			continue;
		enable_as_made(lfirst_oid(cell));
		add_routed_trigger(lfirst_oid(cell), argument);
	}
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(finance_audit_table);

/*
 * finance.audit_table(target regclass, columns text[], ignore text[],
 *					   mask jsonb, subject text, rows text) returns integer
 *
 * From now on records every INSERT, UPDATE, DELETE and TRUNCATE of the table,
 * and of its partitions and inheriting tables.  columns: only these are
 * recorded; ignore: these are not, and an UPDATE of nothing else leaves no
 * record.  mask: {"column": "redact" | "hash" | "encrypt"}.  subject: the column
 * that names whom encrypted values are of.  rows: what an UPDATE records:
 * 'delta' (default) the new row and what changed of the old one, 'full' both,
 * 'changed' of both only what changed.
 *
 * What is masked or ignored stays so when the column is renamed, or dropped and
 * one of its name is added later, until this is called again.
 *
 * Returns how many tables it attached triggers to: 0 when all had theirs, with
 * the same choice.  One that was disabled is enabled again.
 * Errors: 42501 not the owner, or a system catalog; 42809 not an ordinary
 * table; 55000 it is below a table that is not audited; LG201 a table of the
 * audit log; 42P01 no such table; 42703 no such column;
 * 22023 unknown mask or rows, columns and ignore both, encrypt without subject
 * or of the primary key, a masked subject, a generated column that tells of a
 * masked one, or a virtual one named in columns or as subject; 22004 null as a
 * name.  Null for null.
 * Locks: SHARE ROW EXCLUSIVE on the tables; ACCESS EXCLUSIVE where triggers are
 * replaced.
 */
Datum
finance_audit_table(PG_FUNCTION_ARGS)
{
	TableChange change = {.operation = "audit_table",.change = attach_triggers};
	FinAuditChoice *choice;
	List	   *tables;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	choice = fin_audit_choice_take(fcinfo, 1);
	tables = checked_tables(PG_GETARG_OID(0), ShareRowExclusiveLock);
	check_choice(choice, tables);
	change.choice = fin_audit_choice_text(choice);
	if (!fin_audit_choice_is_default(choice))
		change.argument = change.choice;
	PG_RETURN_INT32(change_tables(tables, &change));
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
	TableChange change = {.operation = "unaudit_table",.change = detach_triggers};

	PG_RETURN_INT32(change_tables(checked_tables(PG_GETARG_OID(0),
												 AccessExclusiveLock),
								  &change));
}
