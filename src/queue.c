/*
 * queue.c
 *		Queues and their settings, and the arguments and results of the SQL
 *		functions.
 *
 * Owns: hashes from (tenant, name) to queue id and from there to the settings,
 * of at most FIN_QUEUE_NAMES_MAX queues, forgotten when they are full and
 * whenever finance.queue changes.  They live as long as the backend.
 *
 * Locks: none.  What is found here may have been dropped meanwhile; the tables
 * of a queue are believed to be there only under their lock.
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
static HTAB *names = NULL;		/* NameEntry */
static HTAB *configs = NULL;	/* FinQueueConfig, by queue_id */

#define QUEUE_COLUMNS \
	"queue_id, tenant_id, name, kind = 'log', paused, max_deliveries," \
	" dead_letter_queue_id, backoff_ms, backoff_max_ms, message_ttl_s," \
	" expired = 'discard', max_length, rate_limit, max_in_flight," \
	" dedup_window_s"

static FinQuery find_by_name =
{
	.sql = "SELECT " QUEUE_COLUMNS " FROM finance.queue"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery find_by_id =
{
	.sql = "SELECT " QUEUE_COLUMNS " FROM finance.queue WHERE queue_id = $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * names and settings
 * ------------------------------------------------------------------------
 */

static void
forget_queues(void)
{
	HASHCTL		by_name = {
		.keysize = sizeof(NameKey),
		.entrysize = sizeof(NameEntry),
		.hcxt = TopMemoryContext
	};
	HASHCTL		by_id = {
		.keysize = sizeof(int64),
		.entrysize = sizeof(FinQueueConfig),
		.hcxt = TopMemoryContext
	};

	if (names != NULL)
		hash_destroy(names);
	names = NULL;
	if (configs != NULL)
		hash_destroy(configs);
	configs = NULL;
	names = hash_create("finance queue names", 64, &by_name,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	configs = hash_create("finance queues", 64, &by_id,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* a column of the one row found; 0 for null */
static int64
column_int(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static int64
column_int64(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static bool
column_bool(int column)
{
	bool		isnull;

	return DatumGetBool(fin_query_datum(0, column, &isnull));
}

static void
key_of(NameKey *key, int32 tenant_id, const char *name)
{
	memset(key, 0, sizeof(NameKey));
	key->tenant_id = tenant_id;
	strlcpy(key->name, name, sizeof(key->name));
}

/* the row just read goes into the cache */
static FinQueueConfig *
remember_row(void)
{
	int64		queue_id = column_int64(1);
	FinQueueConfig *config = hash_search(configs, &queue_id, HASH_ENTER, NULL);
	NameKey		key;
	NameEntry  *entry;

	config->tenant_id = column_int(2);
	strlcpy(config->name, fin_query_text(0, 3), sizeof(config->name));
	config->is_log = column_bool(4);
	config->paused = column_bool(5);
	config->max_deliveries = column_int(6);
	config->dead_letter_queue_id = column_int64(7);
	config->backoff_ms = column_int(8);
	config->backoff_max_ms = column_int(9);
	config->message_ttl_s = column_int(10);
	config->discards_expired = column_bool(11);
	config->max_length = column_int64(12);
	config->rate_limit = column_int(13);
	config->max_in_flight = column_int(14);
	config->dedup_window_s = column_int(15);

	key_of(&key, config->tenant_id, config->name);
	entry = hash_search(names, &key, HASH_ENTER, NULL);
	entry->queue_id = queue_id;
	return config;
}

/* before reading: what was read of an earlier state is no longer good */
static void
begin_loading(void)
{
	if (!fin_cache_loading(&queue_cache) || names == NULL ||
		hash_get_num_entries(names) >= FIN_QUEUE_NAMES_MAX)
		forget_queues();
}

static FinQueueConfig *
copy_config(const FinQueueConfig *config)
{
	FinQueueConfig *copy = palloc(sizeof(FinQueueConfig));

	*copy = *config;
	return copy;
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

static FinQueueConfig *
load_by_name(int32 tenant_id, const char *name)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name)};

	begin_loading();
	if (fin_query_run(&find_by_name, values, NULL, 1) == 0)
		fin_queue_raise_unknown(tenant_id, name);
	return remember_row();
}

FinQueueConfig *
fin_queue_find(int32 tenant_id, const char *name)
{
	NameKey		key;
	NameEntry  *entry = NULL;
	FinQueueConfig *config = NULL;

	if (strlen(name) > FIN_QUEUE_NAME_MAX)
		fin_queue_raise_unknown(tenant_id, name);
	key_of(&key, tenant_id, name);
	if (fin_cache_valid(&queue_cache) && names != NULL)
		entry = hash_search(names, &key, HASH_FIND, NULL);
	if (entry != NULL)
		config = hash_search(configs, &entry->queue_id, HASH_FIND, NULL);
	if (config == NULL)
		config = load_by_name(tenant_id, name);
	return copy_config(config);
}

FinQueueConfig *
fin_queue_find_anew(int32 tenant_id, const char *name)
{
	return copy_config(load_by_name(tenant_id, name));
}

FinQueueConfig *
fin_queue_find_standard(int32 tenant_id, const char *name)
{
	FinQueueConfig *config = fin_queue_find(tenant_id, name);

	if (config->is_log)
		fin_queue_log_raise_kind(name);
	return config;
}

FinQueueConfig *
fin_queue_config(int64 queue_id)
{
	Datum		values[1] = {Int64GetDatum(queue_id)};
	FinQueueConfig *config = NULL;

	if (fin_cache_valid(&queue_cache) && configs != NULL)
		config = hash_search(configs, &queue_id, HASH_FIND, NULL);
	if (config == NULL)
	{
		begin_loading();
		if (fin_query_run(&find_by_id, values, NULL, 1) == 0)
			return NULL;
		config = remember_row();
	}
	return copy_config(config);
}

void
fin_queue_init(void)
{
	fin_cache_register(&queue_cache);
	fin_queue_route_init();
	fin_queue_default_init();
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
				errmsg_internal("%s", _(message)),
				errdetail("There are %zu bytes of jsonb; the most is %d.",
						  (Size) VARSIZE(json), fin_max_payload),
				errhint("Send a reference to the data, or raise finance.max_payload."));
}

void
fin_queue_check_payload(const Jsonb *payload)
{
	check_size(payload, gettext_noop("message payload is too large"));
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
	check_size(headers, gettext_noop("message headers are too large"));
}

void
fin_queue_add_rows(FunctionCallInfo fcinfo, uint64 nrows)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	for (uint64 i = 0; i < nrows; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
}

void
fin_queue_return_rows(FunctionCallInfo fcinfo, uint64 nrows)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_queue_add_rows(fcinfo, nrows);
}

void
fin_queue_begin_ids(FunctionCallInfo fcinfo, const int64 *ids, int n)
{
	FuncCallContext *context = SRF_FIRSTCALL_INIT();

	context->max_calls = n;
	context->user_fctx = MemoryContextAlloc(context->multi_call_memory_ctx,
											sizeof(int64) * Max(n, 1));
	memcpy(context->user_fctx, ids, sizeof(int64) * n);
}

Datum
fin_queue_next_id(FunctionCallInfo fcinfo)
{
	FuncCallContext *context = SRF_PERCALL_SETUP();
	const int64 *ids = context->user_fctx;
	int64		id;

	if (context->call_cntr >= context->max_calls)
		SRF_RETURN_DONE(context);
	id = ids[context->call_cntr];
	SRF_RETURN_NEXT(context, Int64GetDatum(id));	/* counts before it returns */
}
