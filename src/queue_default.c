/*
 * queue_default.c
 *		Default queues: where messages go that no queue takes.
 *
 * A tenant may name one queue for dead letters of queues that have no
 * dead-letter queue of their own, and one, the alternate queue, for what is
 * published and matches no binding.
 *
 * Owns: the two ids for each of at most FIN_DEFAULT_TENANTS_MAX tenants, in
 * static memory; all forgotten when there would be more, and whenever
 * finance.queue_default changes.  Takes no locks for looking up; setting locks
 * the queues' rows, so that a default cannot outlive its queue.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "cache.h"
#include "context.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"

#define FIN_DEFAULT_TENANTS_MAX	32

typedef struct TenantDefaults
{
	int32		tenant_id;
	int64		dead_letter;	/* 0: none */
	int64		alternate;
} TenantDefaults;

static FinCache default_cache = {.table = "queue_default"};
static TenantDefaults defaults[FIN_DEFAULT_TENANTS_MAX];
static int	ndefaults = 0;

static FinQuery find_defaults =
{
	.sql = "SELECT COALESCE(dead_letter_queue_id, 0),"
	" COALESCE(alternate_queue_id, 0)"
	" FROM finance.queue_default WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static const TenantDefaults *
load_defaults(int32 tenant_id)
{
	FinQueryScope scope;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	TenantDefaults found = {.tenant_id = tenant_id};

	fin_query_begin(&scope);
	if (!fin_cache_loading(&default_cache) ||
		ndefaults == FIN_DEFAULT_TENANTS_MAX)
		ndefaults = 0;
	if (fin_query_run(&find_defaults, values, NULL, 1) > 0)
	{
		found.dead_letter = fin_query_int64(0, 1);
		found.alternate = fin_query_int64(0, 2);
	}
	fin_query_end(&scope);
	defaults[ndefaults] = found;
	return &defaults[ndefaults++];
}

static const TenantDefaults *
defaults_of(int32 tenant_id)
{
	if (fin_cache_valid(&default_cache))
	{
		for (int i = 0; i < ndefaults; i++)
		{
			if (defaults[i].tenant_id == tenant_id)
				return &defaults[i];
		}
	}
	return load_defaults(tenant_id);
}

int64
fin_queue_default_dead_letter(int32 tenant_id)
{
	return defaults_of(tenant_id)->dead_letter;
}

int64
fin_queue_default_alternate(int32 tenant_id)
{
	return defaults_of(tenant_id)->alternate;
}

void
fin_queue_default_init(void)
{
	fin_cache_register(&default_cache);
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

static FinQuery write_defaults =
{
	.sql = "INSERT INTO finance.queue_default"
	" (tenant_id, dead_letter_queue_id, alternate_queue_id)"
	" VALUES ($1, $2, $3) ON CONFLICT (tenant_id) DO UPDATE SET"
	" dead_letter_queue_id = EXCLUDED.dead_letter_queue_id,"
	" alternate_queue_id = EXCLUDED.alternate_queue_id",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_INSERT,
};

static FinQuery name_defaults =
{
	.sql = "SELECT l.name, a.name FROM (SELECT) AS one"
	" LEFT JOIN finance.queue_default AS d ON d.tenant_id = $1"
	" LEFT JOIN finance.queue AS l ON l.tenant_id = d.tenant_id"
	" AND l.queue_id = d.dead_letter_queue_id"
	" LEFT JOIN finance.queue AS a ON a.tenant_id = d.tenant_id"
	" AND a.queue_id = d.alternate_queue_id",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* the queue an argument names, its row locked; 'n' into *flag for null */
static Datum
arg_queue(FunctionCallInfo fcinfo, int arg, int32 tenant_id, char *flag)
{
	char	   *name;

	*flag = PG_ARGISNULL(arg) ? 'n' : ' ';
	if (PG_ARGISNULL(arg))
		return (Datum) 0;
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	return Int64GetDatum(fin_queue_lock_known_row(tenant_id, name));
}

PG_FUNCTION_INFO_V1(finance_set_default_queues);

/*
 * finance.set_default_queues(dead_letter text, alternate text) returns void
 *
 * Names the tenant's default queues, both anew: null, or left out, is none.
 * From the commit on, alternate takes what is published and matches no binding,
 * and dead_letter the dead letters of queues that name no queue for them.
 * Errors: LG301 unknown queue.
 * Locks: the queues' rows (KEY SHARE) and the tenant's row of
 * finance.queue_default until the end of the transaction.
 */
Datum
finance_set_default_queues(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	FinQueryScope scope;
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = arg_queue(fcinfo, 0, tenant_id, &nulls[1]);
	values[2] = arg_queue(fcinfo, 1, tenant_id, &nulls[2]);
	(void) fin_query_run(&write_defaults, values, nulls, 0);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_default_queues);

/*
 * finance.default_queues() returns setof (dead_letter, alternate)
 *
 * One row with the names of the default queues of the session's tenant, null
 * for none.  Takes no locks beyond reading.
 */
Datum
finance_default_queues(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {Int32GetDatum(fin_context()->tenant_id)};
	FinQueryScope scope;

	fin_query_begin(&scope);
	fin_queue_return_rows(fcinfo,
						  fin_query_run(&name_defaults, values, NULL, 0));
	fin_query_end(&scope);
	return (Datum) 0;
}
