/*
 * queue_bind.c
 *		Binding queues to topics, and looking at bindings.
 *
 * Owns nothing.  Locks the queue's row (KEY SHARE) until the end of the
 * transaction, so that a binding cannot outlive its queue.  What is bound here
 * is found by queue_route.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "context.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "topic.h"

/*
 * Bindings of one tenant: bounds the routing cache of each backend, and the
 * time of loading it.  Counting costs more than binding, so it is done now and
 * then: there may be a few more.
 */
#define FIN_QUEUE_BINDINGS_MAX		100000
#define FIN_QUEUE_COUNT_INTERVAL	256

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
	.sql = "INSERT INTO finance.binding"
	" (tenant_id, pattern, queue_id, tags, headers, match)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT ON CONSTRAINT binding_key DO NOTHING RETURNING binding_id",
	.nargs = 3 + FIN_FILTER_COLUMNS,
	.argtypes = {INT4OID, TEXTOID, INT8OID, TEXTARRAYOID, JSONBOID, TEXTOID},
	.expect = SPI_OK_INSERT_RETURNING,
};

static FinQuery count_bindings =
{
	.sql = "SELECT pg_catalog.count(*) FROM finance.binding"
	" WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
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
	" ORDER BY b.pattern COLLATE pg_catalog.\"C\"," \
	" q.name COLLATE pg_catalog.\"C\"," \
	" b.tags COLLATE pg_catalog.\"C\" NULLS FIRST," \
	" b.headers NULLS FIRST, b.match"

static FinQuery list_bindings =
{
	.sql = "SELECT b.pattern, q.name, b.created_at, b.tags, b.headers,"
	" b.match" BINDINGS,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery test_bindings =
{
	.sql = "SELECT b.pattern, q.name, b.tags, b.headers, b.match" BINDINGS,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

#define TEST_FILTER_COLUMN 3

/* a row as of test_bindings */
static FinQuery test_alternate =
{
	.sql = "SELECT NULL::pg_catalog.text, q.name, NULL::pg_catalog.text[],"
	" NULL::pg_catalog.jsonb, NULL::pg_catalog.text"
	" FROM finance.queue_default AS d JOIN finance.queue AS q"
	" ON q.tenant_id = d.tenant_id AND q.queue_id = d.alternate_queue_id"
	" WHERE d.tenant_id = $1",
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

int64
fin_queue_lock_known_row(int32 tenant_id, const char *name)
{
	int64		queue_id = fin_queue_lock_row(tenant_id, name);

	if (queue_id == 0)
		fin_queue_raise_unknown(tenant_id, name);
	return queue_id;
}

static void
check_count(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	int64		n;

	(void) fin_query_run(&count_bindings, values, NULL, 0);
	n = fin_query_int64(0, 1);
	if (n > FIN_QUEUE_BINDINGS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("tenant %d has too many bindings", tenant_id),
				errdetail("There are " INT64_FORMAT "; the most is %d.",
						  n, FIN_QUEUE_BINDINGS_MAX),
				errhint("Bind patterns with wildcards instead."));
}

/* filter: its columns and null flags */
static int64
add_binding(int32 tenant_id, const char *pattern, const char *queue_name,
			const Datum *filter, const char *filter_nulls)
{
	int64		queue_id = fin_queue_lock_known_row(tenant_id, queue_name);
	Datum		values[3 + FIN_FILTER_COLUMNS];
	char		nulls[3 + FIN_FILTER_COLUMNS] = {' ', ' ', ' '};

	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(pattern);
	values[2] = Int64GetDatum(queue_id);
	memcpy(&values[3], filter, FIN_FILTER_COLUMNS * sizeof(Datum));
	memcpy(&nulls[3], filter_nulls, FIN_FILTER_COLUMNS);
	if (fin_query_run(&insert_binding, values, nulls, 0) > 0 &&
		fin_query_int64(0, 1) % FIN_QUEUE_COUNT_INTERVAL == 0)
		check_count(tenant_id);
	return queue_id;
}

int64
fin_queue_bind(int32 tenant_id, const char *pattern, const char *queue_name)
{
	const Datum none[FIN_FILTER_COLUMNS] = {0};

	return add_binding(tenant_id, pattern, queue_name, none, "nnn");
}

PG_FUNCTION_INFO_V1(finance_bind_topic);

/*
 * finance.bind_topic(pattern text, queue_name text, tags text[],
 *					  headers jsonb, match text) returns void
 *
 * From its commit on, a message published under a topic that matches the
 * pattern is copied to the queue, once however many bindings match.  Binding
 * twice is no error.  Topics are AMQP's: words separated by dots, "*" for one
 * word, "#" for any number.
 *
 * tags: the message must have one of these 1 to 32 tags, each of 1 to 127
 * bytes, 512 together; its tags are the string "tag" and the strings of the
 * array "tags" in its headers.  headers: the message must have all of these 1
 * to 32 headers, or any of them where match is 'any', with an equal string,
 * number or boolean, or any value where the filter has null; at most 1,024
 * bytes of jsonb.  Where both are given both must hold; null: no such filter.
 * The rules are those of RocketMQ's tags and of AMQP's headers exchange.
 * Errors: LG301 unknown queue, LG302 malformed pattern, 22004 null, 22023
 * malformed filter, 54000 more than about 100,000 bindings in the tenant.
 * Locks: the queue's row (KEY SHARE) until the end of the transaction.
 */
Datum
finance_bind_topic(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *pattern = fin_queue_arg_text(fcinfo, 0, "pattern");
	char	   *queue_name = fin_queue_arg_text(fcinfo, 1, "queue_name");
	Datum		filter[FIN_FILTER_COLUMNS];
	char		filter_nulls[FIN_FILTER_COLUMNS];
	FinQueryScope scope;

	fin_topic_check_pattern(pattern);
	fin_queue_filter_arguments(fcinfo, 2, filter, filter_nulls);
	fin_query_begin(&scope);
	(void) add_binding(tenant_id, pattern, queue_name, filter, filter_nulls);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_unbind_topic);

/*
 * finance.unbind_topic(pattern text, queue_name text) returns boolean
 *
 * Removes the bindings of this pattern to this queue, whatever their filters;
 * false when there is none.  Messages already in the queue stay.
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
	values[2] = Int64GetDatum(fin_queue_lock_known_row(tenant_id, queue_name));
	n = fin_query_run(&delete_binding, values, NULL, 0);
	fin_query_end(&scope);
	PG_RETURN_BOOL(n > 0);
}

PG_FUNCTION_INFO_V1(finance_list_bindings);

/*
 * finance.list_bindings() returns setof (pattern, queue_name, created_at, tags,
 *		headers, match)
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

/*
 * Of the last result's rows those that match come to the front; how many.
 * Found by the same trie and the same filters as in publishing.
 */
static uint64
keep_matching(uint64 nrows, const char *topic, const Jsonb *headers)
{
	FinTopicTrie *trie = fin_topic_trie_create(CurrentMemoryContext);
	const int64 *rows;
	uint64		nmatching;
	uint64		kept = 0;

	for (uint64 i = 0; i < nrows; i++)
	{
		char	   *pattern = fin_query_text(i, 1);

		fin_topic_trie_add(trie, pattern, (int64) i);
		pfree(pattern);
	}
	nmatching = fin_topic_trie_match(trie, topic, &rows);

	/* rows ascend, so none is overwritten before it is looked at */
	for (uint64 i = 0; i < nmatching; i++)
	{
		FinQueueFilter *filter = fin_queue_filter_read(rows[i],
													   TEST_FILTER_COLUMN);

		if (filter == NULL || fin_queue_filter_passes(filter, headers))
			SPI_tuptable->vals[kept++] = SPI_tuptable->vals[rows[i]];
	}
	return kept;
}

PG_FUNCTION_INFO_V1(finance_test_routing);

/*
 * finance.test_routing(topic text, headers jsonb) returns setof (pattern,
 *		queue_name, tags, headers, match)
 *
 * The bindings that a message of this topic and these headers would match; when
 * there is none, the alternate queue with a null pattern, if there is that.
 * Nothing is sent.
 * Errors: LG302 malformed topic, LG303 and 22023 headers as for publish(),
 * 22004 null.
 */
Datum
finance_test_routing(PG_FUNCTION_ARGS)
{
	Datum		values[1] = {Int32GetDatum(fin_context()->tenant_id)};
	char	   *topic = fin_queue_arg_text(fcinfo, 0, "topic");
	Jsonb	   *headers = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	FinQueryScope scope;
	uint64		n;

	fin_topic_check(topic);
	fin_queue_check_headers(headers);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	n = fin_query_run(&test_bindings, values, NULL, 0);
	n = keep_matching(n, topic, headers);
	if (n == 0)
		n = fin_query_run(&test_alternate, values, NULL, 0);
	fin_queue_add_rows(fcinfo, n);
	fin_query_end(&scope);
	return (Datum) 0;
}
