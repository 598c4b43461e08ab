/*
 * queue_subscribe.c
 *		Subscriptions: which NOTIFY channel tells of which queue.
 *
 * Owns nothing.  A channel belongs to one queue of one tenant, since channels
 * are common to the whole database: the primary key of finance.subscription
 * keeps it so.  The worker reads that table.
 *
 * Locks: the queue's row (KEY SHARE) and the subscription's, until the end of
 * the transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "errors.h"
#include "query.h"
#include "queue_parts.h"
#include "tally.h"
#include "topic.h"
#include "wake.h"

static FinQuery insert_subscription =
{
	.sql = "INSERT INTO finance.subscription (channel, tenant_id, queue_id)"
	" VALUES ($1, $2, $3) ON CONFLICT (channel) DO NOTHING",
	.nargs = 3,
	.argtypes = {TEXTOID, INT4OID, INT8OID},
	.expect = SPI_OK_INSERT,
};

static FinQuery find_subscription =
{
	.sql = "SELECT s.tenant_id, q.name FROM finance.subscription AS s"
	" JOIN finance.queue AS q"
	" ON q.tenant_id = s.tenant_id AND q.queue_id = s.queue_id"
	" WHERE s.channel = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery delete_subscription =
{
	.sql = "DELETE FROM finance.subscription"
	" WHERE channel = $1 AND tenant_id = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, INT4OID},
	.expect = SPI_OK_DELETE,
};

static FinQuery list_subscriptions =
{
	.sql = "SELECT s.channel, q.name, s.created_at"
	" FROM finance.subscription AS s JOIN finance.queue AS q"
	" ON q.tenant_id = s.tenant_id AND q.queue_id = s.queue_id"
	" WHERE s.tenant_id = $1 ORDER BY s.channel",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static char *
arg_channel(FunctionCallInfo fcinfo, int arg)
{
	char	   *channel = fin_queue_arg_text(fcinfo, arg, "channel");
	size_t		length = strlen(channel);

	if (length == 0 || length > FIN_QUEUE_CHANNEL_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("channel name is %zu bytes long", length),
				errdetail("A channel name has 1 to %d bytes.",
						  FIN_QUEUE_CHANNEL_MAX));
	return channel;
}

static void
raise_channel_in_use(const char *channel, int32 tenant_id, int32 owner,
					 const char *queue_name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_CHANNEL_IN_USE),
			errmsg("channel \"%s\" is in use", channel),
			owner == tenant_id ?
			errdetail("It belongs to queue \"%s\".", queue_name) :
			errdetail("It belongs to another tenant."),
			errhint("Use another channel, or call finance.unsubscribe() first."));
}

/* the tenant's queue that has the channel, or NULL; LG304 if another's */
static char *
queue_of_channel(const char *channel, int32 tenant_id)
{
	Datum		values[1] = {CStringGetTextDatum(channel)};
	bool		isnull;
	int32		owner;

	if (fin_query_run(&find_subscription, values, NULL, 1) == 0)
		return NULL;
	owner = DatumGetInt32(fin_query_datum(0, 1, &isnull));
	if (owner != tenant_id)
		raise_channel_in_use(channel, tenant_id, owner, NULL);
	return fin_query_text(0, 2);
}

static void
subscribe(int32 tenant_id, const char *channel, const char *pattern,
		  const char *queue_name)
{
	char	   *taken_by = queue_of_channel(channel, tenant_id);
	Datum		values[3];

	if (queue_name == NULL)
		queue_name = taken_by != NULL ? taken_by : channel;
	if (taken_by != NULL && strcmp(taken_by, queue_name) != 0)
		raise_channel_in_use(channel, tenant_id, tenant_id, taken_by);

	fin_queue_ensure(tenant_id, queue_name);
	values[0] = CStringGetTextDatum(channel);
	values[1] = Int32GetDatum(tenant_id);
	values[2] = Int64GetDatum(fin_queue_bind(tenant_id, pattern, queue_name));
	if (taken_by != NULL)
		return;
	if (fin_query_run(&insert_subscription, values, NULL, 0) > 0)
	{
		/* what waits in the queue already is news to this channel */
		fin_wake_note_due(DatumGetInt64(values[2]), DT_NOBEGIN);
		return;
	}

	/* another session was faster: fine if it means the same queue */
	taken_by = queue_of_channel(channel, tenant_id);
	if (taken_by == NULL || strcmp(taken_by, queue_name) != 0)
		raise_channel_in_use(channel, tenant_id, tenant_id,
							 taken_by != NULL ? taken_by : "");
}

PG_FUNCTION_INFO_V1(finance_subscribe);

/*
 * finance.subscribe(channel text, pattern text, queue_name text) returns void
 *
 * From its commit on, messages whose topic matches the pattern go to the
 * queue, which is made if it does not exist, and the worker tells of them by
 * NOTIFY on the channel (1 to 63 bytes).  queue_name null: the queue the
 * channel already has, else one named as the channel.  Call it again for
 * another pattern.
 * Errors: LG302 malformed pattern, LG304 the channel belongs to another queue
 * or tenant, 42602 bad queue name, 22004, 22023.  Warning 01000 when finance
 * is not in shared_preload_libraries: then there is no worker to notify.
 * Locks: the queue's row (KEY SHARE) until the end of the transaction.
 */
Datum
finance_subscribe(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *channel = arg_channel(fcinfo, 0);
	char	   *pattern = fin_queue_arg_text(fcinfo, 1, "pattern");
	char	   *queue_name = NULL;
	FinQueryScope scope;

	if (!PG_ARGISNULL(2))
		queue_name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	fin_topic_check_pattern(pattern);

	fin_query_begin(&scope);
	subscribe(tenant_id, channel, pattern, queue_name);
	fin_query_end(&scope);

	if (!fin_wake_available())
		ereport(WARNING,
				errcode(ERRCODE_WARNING),
				errmsg("nobody will notify channel \"%s\"", channel),
				errdetail("Messages go to the queue, but the worker that notifies runs only when the library is preloaded."),
				errhint("Add finance to shared_preload_libraries and restart the server."));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_unsubscribe);

/*
 * finance.unsubscribe(channel text) returns boolean
 *
 * Ends the notifications on a channel; false when the session's tenant has no
 * such subscription.  The queue stays, and so do its bindings: messages go on
 * coming in until unbind_topic() or drop_queue().
 * Errors: 22004 null, 22023 bad channel.
 */
Datum
finance_unsubscribe(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *channel = arg_channel(fcinfo, 0);
	FinQueryScope scope;
	Datum		values[2];
	uint64		n;

	fin_query_begin(&scope);
	values[0] = CStringGetTextDatum(channel);
	values[1] = Int32GetDatum(tenant_id);
	n = fin_query_run(&delete_subscription, values, NULL, 0);
	fin_query_end(&scope);
	PG_RETURN_BOOL(n > 0);
}

#define SUBSCRIPTION_COLUMNS	7

static void
put_subscription(ReturnSetInfo *result, uint64 row)
{
	Datum		values[SUBSCRIPTION_COLUMNS] = {0};
	bool		nulls[SUBSCRIPTION_COLUMNS] = {0};
	FinTally	tally = {0};

	for (int i = 0; i < 3; i++)
		values[i] = fin_query_datum(row, i + 1, &nulls[i]);
	if (!fin_tally_available() ||
		!fin_tally_get(fin_query_text(row, 1), &tally))
		tally.notified_at = 0;
	values[3] = Int64GetDatum(tally.notifications);
	values[4] = Int64GetDatum(tally.messages);
	values[5] = TimestampTzGetDatum(tally.notified_at);
	nulls[5] = tally.notified_at == 0;
	values[6] = Int64GetDatum(tally.refused);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(finance_subscriptions);

/*
 * finance.subscriptions() returns setof record
 *
 * The subscriptions of the session's tenant, and what the worker sent on each
 * channel since it started: zero too for channels beyond the FIN_TALLIES_MAX of
 * a server that are counted.
 * Locks: those of reading, and the tally, shared.
 */
Datum
finance_subscriptions(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	FinQueryScope scope;
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	fin_query_begin(&scope);
	n = fin_query_run(&list_subscriptions, values, NULL, 0);
	for (uint64 row = 0; row < n; row++)
		put_subscription((ReturnSetInfo *) fcinfo->resultinfo, row);
	fin_query_end(&scope);
	return (Datum) 0;
}
