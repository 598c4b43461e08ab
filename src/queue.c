/*
 * queue.c
 *		Queues by name, and the arguments and results of the SQL functions.
 *
 * Owns: a hash from (tenant, name) to queue id, of at most
 * FIN_QUEUE_NAMES_MAX names, forgotten when it is full and whenever
 * finance.queue changes.  It lives as long as the backend.
 *
 * Locks: see fin_queue_hold().  A name found in the cache is believed only
 * once the queue's table is locked.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "cache.h"
#include "errors.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "settings.h"

#define FIN_QUEUE_NAMES_MAX	1024

typedef struct NameKey
{
	int32		tenant_id;
	char		name[FIN_QUEUE_NAME_MAX + 1];	/* padded with zeros */
} NameKey;

typedef struct NameEntry
{
	NameKey		key;
	int64		queue_id;
} NameEntry;

static FinCache queue_cache = {.table = "queue"};
static HTAB *names = NULL;

static FinQuery find_queue =
{
	.sql = "SELECT queue_id FROM finance.queue"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * names
 * ------------------------------------------------------------------------
 */

static void
forget_names(void)
{
	HASHCTL		control = {
		.keysize = sizeof(NameKey),
		.entrysize = sizeof(NameEntry),
		.hcxt = TopMemoryContext
	};

	if (names != NULL)
		hash_destroy(names);
	names = NULL;
	names = hash_create("finance queue names", 64, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* read from the table and remember; 0 when there is none */
static int64
load_name(const NameKey *key)
{
	Datum		values[2] = {Int32GetDatum(key->tenant_id),
	CStringGetTextDatum(key->name)};
	int64		queue_id;
	NameEntry  *entry;

	if (!fin_cache_loading(&queue_cache) || names == NULL ||
		hash_get_num_entries(names) >= FIN_QUEUE_NAMES_MAX)
		forget_names();
	if (fin_query_run(&find_queue, values, NULL, 1) == 0)
		return 0;
	queue_id = fin_query_int64(0, 1);
	entry = hash_search(names, key, HASH_ENTER, NULL);
	entry->queue_id = queue_id;
	return queue_id;
}

void
fin_queue_raise_unknown(int32 tenant_id, const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_QUEUE),
			errmsg("queue \"%s\" does not exist", name),
			errdetail("There is no queue of this name in tenant %d.",
					  tenant_id),
			errhint("Create it with finance.create_queue()."));
}

int64
fin_queue_find(int32 tenant_id, const char *name, LOCKMODE mode)
{
	NameKey		key;
	NameEntry  *entry = NULL;
	int64		queue_id;

	if (strlen(name) > FIN_QUEUE_NAME_MAX)
		fin_queue_raise_unknown(tenant_id, name);
	memset(&key, 0, sizeof(key));
	key.tenant_id = tenant_id;
	strcpy(key.name, name);

	if (fin_cache_valid(&queue_cache) && names != NULL)
		entry = hash_search(names, &key, HASH_FIND, NULL);
	queue_id = entry != NULL ? entry->queue_id : load_name(&key);

	/* dropped since it was read?  then a new one may bear the name */
	while (queue_id != 0 && !fin_queue_hold(queue_id, mode))
	{
		CHECK_FOR_INTERRUPTS();
		queue_id = load_name(&key);
	}
	if (queue_id == 0)
		fin_queue_raise_unknown(tenant_id, name);
	return queue_id;
}

void
fin_queue_init(void)
{
	fin_cache_register(&queue_cache);
	fin_queue_route_init();
	fin_queue_log_init();
}

/* ------------------------------------------------------------------------
 * arguments and results
 * ------------------------------------------------------------------------
 */

void
fin_queue_refuse_null(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

char *
fin_queue_arg_text(FunctionCallInfo fcinfo, int arg, const char *name)
{
	fin_queue_refuse_null(fcinfo, arg, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

int
fin_queue_arg_int(FunctionCallInfo fcinfo, int arg, const char *name,
				  int min, int max)
{
	int			value;

	fin_queue_refuse_null(fcinfo, arg, name);
	value = PG_GETARG_INT32(arg);
	if (value < min || value > max)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s %d is out of range", name, value),
				errdetail("It must be between %d and %d.", min, max));
	return value;
}

static void
check_size(const Jsonb *json, const char *message)
{
	if (VARSIZE(json) > (Size) fin_max_payload)
		ereport(ERROR,
				errcode(ERRCODE_FIN_PAYLOAD_TOO_LARGE),
				errmsg_internal("%s", message),
				errdetail("There are %zu bytes of jsonb; the most is %d.",
						  (Size) VARSIZE(json), fin_max_payload),
				errhint("Send a reference to the data, or raise finance.max_payload."));
}

void
fin_queue_check_payload(const Jsonb *payload)
{
	check_size(payload, _("message payload is too large"));
}

void
fin_queue_check_headers(const Jsonb *headers)
{
	if (headers == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("headers must be a JSON object"));
	check_size(headers, _("message headers are too large"));
}

typedef struct SortableRow
{
	int64		key;
	HeapTuple	tuple;
} SortableRow;

static int
compare_rows(const void *a, const void *b)
{
	int64		x = ((const SortableRow *) a)->key;
	int64		y = ((const SortableRow *) b)->key;

	return (x > y) - (x < y);
}

/*
 * A claim returns rows in the order in which they lie in the table; the first
 * column, msg_id, is the order of reading.
 */
static void
sort_rows(uint64 nrows)
{
	SortableRow *rows = palloc(nrows * sizeof(SortableRow));
	bool		sorted = true;

	for (uint64 i = 0; i < nrows; i++)
	{
		rows[i].key = fin_query_int64(i, 1);
		rows[i].tuple = SPI_tuptable->vals[i];
		if (i > 0 && rows[i].key < rows[i - 1].key)
			sorted = false;
	}
	if (!sorted)
	{
		qsort(rows, nrows, sizeof(SortableRow), compare_rows);
		for (uint64 i = 0; i < nrows; i++)
			SPI_tuptable->vals[i] = rows[i].tuple;
	}
	pfree(rows);
}

void
fin_queue_add_rows(FunctionCallInfo fcinfo, uint64 nrows)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	if (nrows > 1 &&
		TupleDescAttr(SPI_tuptable->tupdesc, 0)->atttypid == INT8OID)
		sort_rows(nrows);
	for (uint64 i = 0; i < nrows; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
}

void
fin_queue_return_rows(FunctionCallInfo fcinfo, uint64 nrows)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_queue_add_rows(fcinfo, nrows);
}
