/*
 * query.c
 *		The one gateway to SPI.
 *
 * Owns the kept plans: each hangs on a static FinQuery and lives as long as
 * the backend; the plan cache invalidates and rebuilds it.  And the oids of the
 * relations that were asked for by name, until a name in the catalogs changes.
 *
 * Plans are generic, built once, and used for every later call.  A generic
 * plan made while a table is empty must still be right when it is full, so
 * sequential scans are disabled while a plan is built: what can go through an
 * index does, from the first call on a fresh install.
 *
 * The search path is pinned from begin to end, not only while a plan is built:
 * the plan cache compares the path a plan was made under with the current one
 * and, if they differ, analyzes the query anew under the current one.  With
 * the caller's path that would let the caller's operators run as the owner.
 *
 * Locks: those of the queries.  The current user is the extension's owner
 * between begin and end, as in the RI triggers; an ERROR restores it with the
 * transaction state.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "query.h"

/* settings in force while a plan is built */
static const struct
{
	const char *name;
	const char *value;
}			planning_settings[] =
{
	{"enable_seqscan", "off"},
	{"jit", "off"},				/* a disabled path's cost would trigger it */
};

/* settings in force while a table is made */
static const struct
{
	const char *name;
	const char *value;
}			storage_settings[] =
{
	{"default_tablespace", ""},	/* the database's */
	{"default_table_access_method", "heap"},
};

/*
 * and of one with a limit on rows in the order of an index: how long the
 * history is that it stops in, no plan made beforehand knows
 */
static const struct
{
	const char *name;
	const char *value;
}			in_order_settings[] =
{
	{"enable_bitmapscan", "off"},
	{"enable_sort", "off"},
};

static int	utility_depth = 0;	/* commands of ours that are running */

#define NAMES_KEPT	64			/* found by where the name is: mostly a literal */

typedef struct KeptName
{
	Oid			relid;			/* InvalidOid: none */
	char		name[NAMEDATALEN];
} KeptName;

static KeptName kept_names[NAMES_KEPT];
static uint64 names_changed = 0;	/* so often; 0: nobody tells us yet */

static HeapTuple
finance_namespace(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("finance"));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_SCHEMA),
				errmsg("schema \"finance\" does not exist"),
				errhint("Run CREATE EXTENSION finance in this database."));
	return tuple;
}

Oid
fin_query_owner(void)
{
	HeapTuple	tuple = finance_namespace();
	Oid			owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;

	ReleaseSysCache(tuple);
	return owner;
}

static void
forget_names(Datum arg, int cache, uint32 hash)
{
	for (int i = 0; i < NAMES_KEPT; i++)
		kept_names[i].relid = InvalidOid;
	names_changed++;
}

static void
keep_name(KeptName *kept, const char *name, Oid relid, uint64 seen)
{
	if (strlen(name) >= NAMEDATALEN)
		return;
	if (names_changed == 0)
	{
		CacheRegisterSyscacheCallback(RELNAMENSP, forget_names, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_names, (Datum) 0);
		names_changed = 1;
		return;
	}
	/* what changed while it was looked up may be its name */
	if (seen != names_changed)
		return;
	kept->relid = relid;
	strcpy(kept->name, name);
}

/* InvalidOid when there is no such relation */
Oid
fin_query_relation(const char *name)
{
	KeptName   *kept = &kept_names[(uintptr_t) name % NAMES_KEPT];
	uint64		seen = names_changed;
	HeapTuple	tuple;
	Oid			namespace;
	Oid			relid;

	if (OidIsValid(kept->relid) && strcmp(kept->name, name) == 0)
		return kept->relid;
	tuple = finance_namespace();
	namespace = ((Form_pg_namespace) GETSTRUCT(tuple))->oid;
	ReleaseSysCache(tuple);
	relid = get_relname_relid(name, namespace);
	if (OidIsValid(relid))
		keep_name(kept, name, relid, seen);
	return relid;
}

void
fin_query_begin(FinQueryScope *scope)
{
	Oid			owner = fin_query_owner();

	scope->caller = CurrentMemoryContext;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	FIN_COMPAT_PIN_SEARCH_PATH(scope->path_nest);
	GetUserIdAndSecContext(&scope->save_user, &scope->save_sec_context);
	SetUserIdAndSecContext(owner,
						   scope->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

void
fin_query_end(FinQueryScope *scope)
{
	SetUserIdAndSecContext(scope->save_user, scope->save_sec_context);
	FIN_COMPAT_UNPIN_SEARCH_PATH(scope->path_nest);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

/*
 * The server forbids its latest snapshot during a parallel operation, where
 * row security may ask for a tenant first; a catalog snapshot is as new.
 */
static Snapshot
newest_snapshot(void)
{
	return IsInParallelMode() ? GetCatalogSnapshot(InvalidOid) :
		GetLatestSnapshot();
}

/* make or remake the plan under our planner settings */
static void
build_plan(FinQuery *query)
{
	int			nest = NewGUCNestLevel();
	CachedPlan *built;

	for (int i = 0; i < (int) lengthof(planning_settings); i++)
		(void) set_config_option(planning_settings[i].name,
								 planning_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; query->in_order && i < (int) lengthof(in_order_settings); i++)
		(void) set_config_option(in_order_settings[i].name,
								 in_order_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);

	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare_cursor(query->sql, query->nargs,
											  query->argtypes,
											  CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			elog(ERROR, "could not prepare \"%s\": %s", query->sql,
				 SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "could not keep the plan of \"%s\"", query->sql);
		query->plan = plan;
	}

	built = SPI_plan_get_cached_plan(query->plan);
	if (built != NULL)
		ReleaseCachedPlan(built, CurrentResourceOwner);
	AtEOXact_GUC(true, nest);
}

/*
 * Where functions of others run, the search path is pinned as a setting, which
 * a function's own SET search_path replaces; by default it is pg_catalog.
 */
static int
pin_path_as_setting(void)
{
	int			nest = NewGUCNestLevel();

	FIN_COMPAT_SUSPEND_SEARCH_PATH();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return nest;
}

static void
unpin_path_as_setting(int nest)
{
	AtEOXact_GUC(true, nest);
	FIN_COMPAT_RESUME_SEARCH_PATH();
}

static int
execute_plan(FinQuery *query, Datum *values, const char *nulls, long limit)
{
	int			code;

	if (query->plan == NULL || !SPI_plan_is_valid(query->plan))
		build_plan(query);

	if (query->read_latest)
		PushActiveSnapshot(newest_snapshot());
	code = SPI_execute_plan(query->plan, values, nulls,
							query->read_only || query->read_latest, limit);
	if (query->read_latest)
		PopActiveSnapshot();
	return code;
}

static void
refuse_suppressed(const char *table)
{
	ereport(ERROR,
			errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			errmsg("a row of finance.%s cannot be written", table),
			errdetail("A trigger or rule suppressed it."));
}

uint64
fin_query_run(FinQuery *query, Datum *values, const char *nulls, long limit)
{
	int			code;

	if (query->fires_triggers)
	{
		int			nest = pin_path_as_setting();

		code = execute_plan(query, values, nulls, limit);
		unpin_path_as_setting(nest);
	}
	else
		code = execute_plan(query, values, nulls, limit);

	if (code != query->expect)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(code), query->sql);
	if (query->writes_one != NULL && SPI_processed != 1)
		refuse_suppressed(query->writes_one);
	return SPI_processed;
}

uint64
fin_query_return(FinQuery *query, Datum *values, FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SPIExecuteOptions options = {0};
	int			code;

	Assert(query->read_only && !query->read_latest);
	if (query->plan == NULL || !SPI_plan_is_valid(query->plan))
		build_plan(query);
	options.params = makeParamList(query->nargs);
	for (int i = 0; i < query->nargs; i++)
	{
		options.params->params[i].value = values[i];
		options.params->params[i].isnull = false;
		options.params->params[i].pflags = PARAM_FLAG_CONST;
		options.params->params[i].ptype = query->argtypes[i];
	}
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, result->setResult,
									result->econtext->ecxt_per_query_memory,
									false, result->setDesc,
									"the rows are not as the function declares them");
	code = SPI_execute_plan_extended(query->plan, &options);
	if (code != query->expect)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(code), query->sql);
	return SPI_processed;
}

void
fin_query_offer(const char *name, TupleDesc desc, Tuplestorestate *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(*relation));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(rows);
	relation->reldata = rows;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\"", name);
}

TupleDesc
fin_query_descriptor(const Oid *types, int n)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	desc = CreateTemplateTupleDesc(n);

	for (int i = 0; i < n; i++)
		TupleDescInitEntry(desc, i + 1, psprintf("c%d", i + 1), types[i], -1, 0);
	MemoryContextSwitchTo(old);
	return desc;
}

Datum
fin_query_datum(uint64 row, int column, bool *isnull)
{
	Assert(row < SPI_tuptable->numvals);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

int64
fin_query_int64(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return DatumGetInt64(value);
}

char *
fin_query_text(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

bool
fin_query_in_utility(void)
{
	return utility_depth > 0;
}

void
fin_query_utility(const char *command)
{
	int			nest = pin_path_as_setting();	/* for event triggers */
	int			code;

	/* where our tables lie is not for the caller's session to say */
	for (int i = 0; i < (int) lengthof(storage_settings); i++)
		(void) set_config_option(storage_settings[i].name,
								 storage_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	utility_depth++;
	PG_TRY();
	{
		code = SPI_execute(command, false, 0);
	}
	PG_FINALLY();
	{
		utility_depth--;
	}
	PG_END_TRY();
	unpin_path_as_setting(nest);

	if (code < 0)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(code), command);
}
