/*
 * queue_route.c
 *		Bindings: which queues a topic's messages go to.
 *
 * Owns: a trie of bindings for each of at most FIN_ROUTE_TENANTS_MAX tenants,
 * all forgotten when there would be more, and whenever finance.binding
 * changes.  They live as long as the backend.  Takes no locks for looking up;
 * the SQL functions lock the queue's row, so that a binding cannot outlive
 * its queue.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cache.h"
#include "context.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "topic.h"

#define FIN_ROUTE_TENANTS_MAX	32

typedef struct TenantRoutes
{
	int32		tenant_id;
	FinTopicTrie *trie;
} TenantRoutes;

static FinCache binding_cache = {.table = "binding"};
static TenantRoutes routes[FIN_ROUTE_TENANTS_MAX];
static int	nroutes = 0;

/* in the order of queue ids: the patterns of one queue are added together */
static FinQuery load_bindings =
{
	.sql = "SELECT queue_id, pattern FROM finance.binding"
	" WHERE tenant_id = $1 ORDER BY queue_id",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static void
forget_routes(void)
{
	while (nroutes > 0)
		fin_topic_trie_drop(routes[--nroutes].trie);
}

static FinTopicTrie *
load_routes(int32 tenant_id)
{
	FinQueryScope scope;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	FinTopicTrie *trie;
	uint64		n;

	fin_query_begin(&scope);
	if (!fin_cache_loading(&binding_cache) || nroutes == FIN_ROUTE_TENANTS_MAX)
		forget_routes();
	trie = fin_topic_trie_create(CurrentMemoryContext);
	n = fin_query_run(&load_bindings, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *pattern = fin_query_text(i, 2);

		fin_topic_trie_add(trie, pattern, fin_query_int64(i, 1));
		pfree(pattern);
	}
	fin_topic_trie_keep(trie, TopMemoryContext);
	routes[nroutes].tenant_id = tenant_id;
	routes[nroutes].trie = trie;
	nroutes++;
	fin_query_end(&scope);
	return trie;
}

static FinTopicTrie *
routes_of(int32 tenant_id)
{
	if (fin_cache_valid(&binding_cache))
	{
		for (int i = 0; i < nroutes; i++)
		{
			if (routes[i].tenant_id == tenant_id)
				return routes[i].trie;
		}
	}
	return load_routes(tenant_id);
}

int
fin_queue_route(int32 tenant_id, const char *topic, const int64 **queue_ids)
{
	return fin_topic_trie_match(routes_of(tenant_id), topic, queue_ids);
}

int
fin_queue_route_count(int32 tenant_id, const char *topic)
{
	const int64 *queue_ids;

	return fin_queue_route(tenant_id, topic, &queue_ids);
}

void
fin_queue_route_init(void)
{
	fin_cache_register(&binding_cache);
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

static FinQuery lock_queue =
{
	.sql = "SELECT queue_id FROM finance.queue"
	" WHERE tenant_id = $1 AND name = $2 FOR KEY SHARE",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_binding =
{
	.sql = "INSERT INTO finance.binding (tenant_id, pattern, queue_id)"
	" VALUES ($1, $2, $3) ON CONFLICT (tenant_id, pattern, queue_id) DO NOTHING",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, INT8OID},
	.expect = SPI_OK_INSERT,
};

static FinQuery delete_binding =
{
	.sql = "DELETE FROM finance.binding"
	" WHERE tenant_id = $1 AND pattern = $2 AND queue_id = $3",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, INT8OID},
	.expect = SPI_OK_DELETE,
};

#define BINDINGS \
	" FROM finance.binding AS b JOIN finance.queue AS q" \
	" ON q.tenant_id = b.tenant_id AND q.queue_id = b.queue_id" \
	" WHERE b.tenant_id = $1" \
	" ORDER BY b.pattern COLLATE pg_catalog.\"C\", q.name COLLATE pg_catalog.\"C\""

static FinQuery list_bindings =
{
	.sql = "SELECT b.pattern, q.name, b.created_at" BINDINGS,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery test_bindings =
{
	.sql = "SELECT b.pattern, q.name" BINDINGS,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

int64
fin_queue_lock_row(int32 tenant_id, const char *name)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name)};

	if (fin_query_run(&lock_queue, values, NULL, 1) == 0)
		return 0;
	return fin_query_int64(0, 1);
}

static int64
lock_known_queue(int32 tenant_id, const char *name)
{
	int64		queue_id = fin_queue_lock_row(tenant_id, name);

	if (queue_id == 0)
		fin_queue_raise_unknown(tenant_id, name);
	return queue_id;
}

int64
fin_queue_bind(int32 tenant_id, const char *pattern, const char *queue_name)
{
	int64		queue_id = lock_known_queue(tenant_id, queue_name);
	Datum		values[3] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(pattern), Int64GetDatum(queue_id)};

	(void) fin_query_run(&insert_binding, values, NULL, 0);
	return queue_id;
}

PG_FUNCTION_INFO_V1(finance_bind_topic);

/*
 * finance.bind_topic(pattern text, queue_name text) returns void
 *
 * From its commit on, a message published under a topic that matches the
 * pattern is copied to the queue, once however many bindings match.  Binding
 * twice is no error.  Topics are AMQP's: words separated by dots, "*" for one
 * word, "#" for any number.
 * Errors: LG301 unknown queue, LG302 malformed pattern, 22004 null.
 * Locks: the queue's row (KEY SHARE) until the end of the transaction.
 */
Datum
finance_bind_topic(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *pattern = fin_queue_arg_text(fcinfo, 0, "pattern");
	char	   *queue_name = fin_queue_arg_text(fcinfo, 1, "queue_name");
	FinQueryScope scope;

	fin_topic_check_pattern(pattern);
	fin_query_begin(&scope);
	(void) fin_queue_bind(tenant_id, pattern, queue_name);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_unbind_topic);

/*
 * finance.unbind_topic(pattern text, queue_name text) returns boolean
 *
 * Removes a binding; false when there is none.  Messages already in the queue
 * stay.
 * Errors: LG301 unknown queue, 22004 null.
 * Locks: as bind_topic().
 */
Datum
finance_unbind_topic(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *pattern = fin_queue_arg_text(fcinfo, 0, "pattern");
	char	   *queue_name = fin_queue_arg_text(fcinfo, 1, "queue_name");
	FinQueryScope scope;
	Datum		values[3];
	uint64		n;

	fin_query_begin(&scope);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(pattern);
	values[2] = Int64GetDatum(lock_known_queue(tenant_id, queue_name));
	n = fin_query_run(&delete_binding, values, NULL, 0);
	fin_query_end(&scope);
	PG_RETURN_BOOL(n > 0);
}

PG_FUNCTION_INFO_V1(finance_list_bindings);

/*
 * finance.list_bindings() returns setof (pattern, queue_name, created_at)
 *
 * The bindings of the session's tenant.  Takes no locks beyond reading.
 */
Datum
finance_list_bindings(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {Int32GetDatum(fin_context()->tenant_id)};
	FinQueryScope scope;

	fin_query_begin(&scope);
	fin_queue_return_rows(fcinfo,
						  fin_query_run(&list_bindings, values, NULL, 0));
	fin_query_end(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_test_routing);

/*
 * finance.test_routing(topic text) returns setof (pattern, queue_name)
 *
 * The bindings that a message of this topic would match, found by the same
 * trie; nothing is sent.
 * Errors: LG302 malformed topic, 22004 null.
 */
Datum
finance_test_routing(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {Int32GetDatum(fin_context()->tenant_id)};
	char	   *topic = fin_queue_arg_text(fcinfo, 0, "topic");
	FinQueryScope scope;
	FinTopicTrie *trie;
	const int64 *rows;
	uint64		n;

	fin_topic_check(topic);
	fin_query_begin(&scope);
	n = fin_query_run(&test_bindings, values, NULL, 0);
	trie = fin_topic_trie_create(CurrentMemoryContext);
	for (uint64 i = 0; i < n; i++)
		fin_topic_trie_add(trie, fin_query_text(i, 1), (int64) i);

	/* what matches moves to the front; rows ascend, so none is overwritten */
	n = fin_topic_trie_match(trie, topic, &rows);
	for (uint64 i = 0; i < n; i++)
		SPI_tuptable->vals[i] = SPI_tuptable->vals[rows[i]];
	fin_queue_return_rows(fcinfo, n);
	fin_query_end(&scope);
	return (Datum) 0;
}
