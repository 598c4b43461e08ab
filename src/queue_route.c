/*
 * queue_route.c
 *		Bindings: which queues a topic's messages go to.
 *
 * The bindings of a tenant are cached as a trie of their patterns.  What the
 * trie finds are routes, not bindings: a queue and a filter, or none, that any
 * number of patterns may lead to.  Routes stand in the order of queues, and
 * of one queue the one without a filter first; so a queue that has it among
 * what was found is taken at once, and the others of that queue are not asked.
 *
 * Owns: the routes of each of at most FIN_ROUTE_TENANTS_MAX tenants, all
 * forgotten when there would be more, and whenever finance.binding changes.
 * They live as long as the backend, each tenant's in a memory context of its
 * own.  Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "cache.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "topic.h"

#define FIN_ROUTE_TENANTS_MAX	32

typedef struct Route
{
	int64		queue_id;
	FinQueueFilter *filter;		/* NULL: takes every message */
} Route;

typedef struct TenantRoutes
{
	int32		tenant_id;
	MemoryContext context;
	FinTopicTrie *trie;			/* its values are indexes of routes */
	Route	   *routes;
	int			nroutes;
	int64	   *found;			/* queues; room for one of each route */
} TenantRoutes;

static FinCache binding_cache = {.table = "binding"};
static TenantRoutes tenants[FIN_ROUTE_TENANTS_MAX];
static int	ntenants = 0;

/* the patterns of one route come together */
static FinQuery load_bindings =
{
	.sql = "SELECT queue_id, pattern, tags, headers, match"
	" FROM finance.binding WHERE tenant_id = $1"
	" ORDER BY queue_id, tags NULLS FIRST, headers NULLS FIRST, match",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

#define LOAD_FILTER_COLUMN 3

/* ------------------------------------------------------------------------
 * loading
 * ------------------------------------------------------------------------
 */

static void
forget_routes(void)
{
	while (ntenants > 0)
		MemoryContextDelete(tenants[--ntenants].context);
}

/* is a column of these two rows stored alike? */
static bool
is_same_column(uint64 a, uint64 b, int column)
{
	Form_pg_attribute attribute = TupleDescAttr(SPI_tuptable->tupdesc,
												column - 1);
	bool		a_null;
	bool		b_null;
	Datum		a_value = fin_query_datum(a, column, &a_null);
	Datum		b_value = fin_query_datum(b, column, &b_null);

	if (a_null || b_null)
		return a_null && b_null;
	return datumIsEqual(a_value, b_value, attribute->attbyval,
						attribute->attlen);
}

/* does a row lead to the same route as the one before? */
static bool
is_same_route(uint64 row)
{
	if (!is_same_column(row, row - 1, 1))
		return false;
	for (int i = 0; i < FIN_FILTER_COLUMNS; i++)
	{
		if (!is_same_column(row, row - 1, LOAD_FILTER_COLUMN + i))
			return false;
	}
	return true;
}

/* the routes of the last result's rows, in the current memory context */
static void
build_routes(TenantRoutes *tenant, uint64 nrows)
{
	tenant->trie = fin_topic_trie_create(CurrentMemoryContext);
	tenant->routes = palloc_extended(Max(nrows, 1) * sizeof(Route),
									 MCXT_ALLOC_HUGE);
	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *pattern = fin_query_text(i, 2);

		if (i == 0 || !is_same_route(i))
		{
			Route	   *route = &tenant->routes[tenant->nroutes++];

			route->queue_id = fin_query_int64(i, 1);
			route->filter = fin_queue_filter_read(i, LOAD_FILTER_COLUMN);
		}
		fin_topic_trie_add(tenant->trie, pattern, tenant->nroutes - 1);
		pfree(pattern);
	}
	tenant->routes = repalloc(tenant->routes,
							  Max(tenant->nroutes, 1) * sizeof(Route));
	tenant->found = palloc(Max(tenant->nroutes, 1) * sizeof(int64));
}

static TenantRoutes *
load_routes(int32 tenant_id)
{
	FinQueryScope scope;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	TenantRoutes loaded = {.tenant_id = tenant_id};
	MemoryContext old;
	uint64		n;

	fin_query_begin(&scope);
	if (!fin_cache_loading(&binding_cache) ||
		ntenants == FIN_ROUTE_TENANTS_MAX)
		forget_routes();
	n = fin_query_run(&load_bindings, values, NULL, 0);

	/* below the scope until it is whole: an error in between leaks nothing */
	loaded.context = AllocSetContextCreate(CurrentMemoryContext,
										   "finance routes",
										   ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(loaded.context);
	build_routes(&loaded, n);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(loaded.context, TopMemoryContext);
	tenants[ntenants] = loaded;
	fin_query_end(&scope);
	return &tenants[ntenants++];
}

static TenantRoutes *
routes_of(int32 tenant_id)
{
	/*
	 * The server reads invalidations when it first locks a table, so in a
	 * transaction that published before, bindings and default queues changed
	 * since would stay unseen.
	 */
	AcceptInvalidationMessages();
	if (fin_cache_valid(&binding_cache))
	{
		for (int i = 0; i < ntenants; i++)
		{
			if (tenants[i].tenant_id == tenant_id)
				return &tenants[i];
		}
	}
	return load_routes(tenant_id);
}

/* ------------------------------------------------------------------------
 * routing
 * ------------------------------------------------------------------------
 */

/* the queues of the routes found, each once; any_headers: filters let pass */
static int
match_routes(TenantRoutes *tenant, const char *topic, const Jsonb *headers,
			 bool any_headers)
{
	const int64 *indexes;
	int			n = fin_topic_trie_match(tenant->trie, topic, &indexes);
	int			nqueues = 0;

	for (int i = 0; i < n; i++)
	{
		const Route *route = &tenant->routes[indexes[i]];

		if (nqueues > 0 && tenant->found[nqueues - 1] == route->queue_id)
			continue;
		if (any_headers || route->filter == NULL ||
			fin_queue_filter_passes(route->filter, headers))
			tenant->found[nqueues++] = route->queue_id;
	}
	return nqueues;
}

int
fin_queue_route(int32 tenant_id, const char *topic, const Jsonb *headers,
				const int64 **queue_ids)
{
	static int64 alternate;
	TenantRoutes *tenant = routes_of(tenant_id);
	int			n = match_routes(tenant, topic, headers, false);

	*queue_ids = tenant->found;
	if (n > 0)
		return n;
	alternate = fin_queue_default_alternate(tenant_id);
	*queue_ids = &alternate;
	return alternate != 0 ? 1 : 0;
}

int
fin_queue_route_count(int32 tenant_id, const char *topic)
{
	int			n = match_routes(routes_of(tenant_id), topic, NULL, true);

	if (n > 0)
		return n;
	return fin_queue_default_alternate(tenant_id) != 0 ? 1 : 0;
}

void
fin_queue_route_init(void)
{
	fin_cache_register(&binding_cache);
}
