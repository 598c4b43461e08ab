/*
 * dispatch.c
 *		Bells to notifications.
 *
 * Words: a bell says that messages of a queue were committed.  A look counts
 * the messages waiting in a queue, when one of them becomes visible or a
 * subscriber is new.  A sweep looks at all subscribed queues: at the start, on
 * request, and each finance.sweep_interval, for what rang no bell (prepared
 * transactions, messages arriving by replication, a worker that was killed).
 * An announcement is what bells and looks say of a queue in one batch; it
 * becomes one NOTIFY on each channel subscribed to the queue:
 *		{"queue": name, "highest_id": id, "count": n}
 * where count is how many messages came since the last announcement or, after
 * a sweep, how many wait.  The NOTIFY is the doorbell; the row is the letter:
 * subscribers read until nothing is left, whatever the count.
 *
 * Owns, in the worker: the bells last collected, the pending looks (bounded;
 * what does not fit is left to the sweep), the position of the running sweep
 * and the statistics, all static.  Nothing needs cleaning up after an error:
 * bells are taken off, and looks moved on, only after the commit.
 *
 * Subscriptions are read from their table in each batch instead of a cache.
 * A bell rings before the invalidations of its transaction are out, so a cache
 * could miss the subscription that was made together with a message.  Which
 * queues have any is told to the producers, who then do not ring for others;
 * wake.c says why that misses none.
 *
 * Locks: those of reading; and from NOTIFY, until the commit, the cluster-wide
 * lock that orders notifications.  Taking it here keeps it off the producers.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dispatch.h"
#include "query.h"
#include "queue.h"
#include "settings.h"
#include "tally.h"
#include "wake.h"

#define FIN_QUEUES_PER_BATCH	64	/* announced in one transaction */
#define FIN_LOOKS_MAX			4096
#define FIN_HEARD_MAX			65536	/* more: all queues are heard */
#define FIN_PAUSE_US			INT64CONST(100000)	/* between two looks at the
													 * same, two sweeps */
#define FIN_LOG_PAUSE_US		(60 * USECS_PER_SEC)
#define FIN_PAYLOAD_MAX			7999	/* NOTIFY's limit */

/* announce all that waits, not only what became visible since the last look */
#define FIN_ALL					DT_NOBEGIN

typedef struct Look
{
	int64		queue_id;		/* hash key */
	TimestampTz look_at;
	TimestampTz since;			/* what became visible after it is news */
} Look;

typedef struct Announcement
{
	FinBell		bell;			/* count: the bell's, to be answered */
	int64		highest_id;
	int64		count;			/* to be told */
	bool		looked;
	bool		all;			/* the look counted all that waits */
	bool		told;			/* there was a channel */
	TimestampTz looked_at;
	TimestampTz next_look_at;	/* FIN_NEVER: nothing will become visible */
} Announcement;

static int	my_slot;
static FinDispatchStats stats;

static FinBell ready[FIN_BELLS_MAX];
static int	nready = 0;

static HTAB *looks = NULL;
static TimestampTz next_look_at = FIN_NEVER;

static TimestampTz sweep_at = 0;	/* when to begin the next sweep */
static bool sweeping = false;
static int64 sweep_after = 0;	/* queues up to this one are done */

/* the batch at work: valid from run to committed */
static Announcement batch[FIN_QUEUES_PER_BATCH];
static int	nbatch = 0;
static int64 batch_swept_to = 0;
static bool batch_ends_sweep = false;
static int64 batch_notifications = 0;
static int64 batch_unsendable = 0;

/* what became of each channel of the batch; in a context of their own */
typedef struct Sent
{
	char		channel[NAMEDATALEN];
	int64		messages;
	bool		sent;
} Sent;

static MemoryContext sent_context;
static Sent *batch_sent = NULL;
static int	nbatch_sent = 0;
static int	maxbatch_sent = 0;

static FinQuery next_queues =
{
	.sql = "SELECT DISTINCT queue_id FROM finance.subscription"
	" WHERE queue_id > $1 ORDER BY queue_id LIMIT $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* no row when nobody is subscribed to the queue */
static FinQuery subscribed_tenant =
{
	.sql = "SELECT q.tenant_id FROM finance.queue q WHERE q.queue_id = $1"
	" AND EXISTS (SELECT FROM finance.subscription s"
	"  WHERE s.tenant_id = q.tenant_id AND s.queue_id = q.queue_id)",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery channels =
{
	.sql = "SELECT r.position, q.name, s.channel"
	" FROM ROWS FROM (pg_catalog.unnest($1)) WITH ORDINALITY AS r (queue_id, position)"
	" JOIN finance.queue q ON q.queue_id = r.queue_id"
	" CROSS JOIN LATERAL (SELECT sub.channel FROM finance.subscription sub"
	"  WHERE sub.tenant_id = q.tenant_id AND sub.queue_id = q.queue_id"
	"  ORDER BY sub.channel LIMIT $2) s",
	.nargs = 2,
	.argtypes = {INT8ARRAYOID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static int64
window_us(void)
{
	return (int64) fin_notify_window_ms * 1000;
}

/* ---- looks ---- */

static void
schedule_look(int64 queue_id, TimestampTz look_at, TimestampTz since)
{
	bool		found;
	bool		full = hash_get_num_entries(looks) >= FIN_LOOKS_MAX;
	Look	   *look = hash_search(looks, &queue_id,
								   full ? HASH_FIND : HASH_ENTER, &found);

	if (look == NULL)
		return;					/* the sweep will find it */
	look->look_at = found ? Min(look->look_at, look_at) : look_at;
	look->since = found ? Min(look->since, since) : since;
	next_look_at = Min(next_look_at, look->look_at);
}

static void
schedule_due(const FinBell *bell, TimestampTz now)
{
	if (bell->due_at == 0)
		return;
	if (bell->due_at <= now)
		schedule_look(bell->queue_id, now, FIN_ALL);
	else
		schedule_look(bell->queue_id, bell->due_at, now);
}

static void
find_next_look(void)
{
	HASH_SEQ_STATUS scan;
	Look	   *look;

	next_look_at = FIN_NEVER;
	hash_seq_init(&scan, looks);
	while ((look = hash_seq_search(&scan)) != NULL)
		next_look_at = Min(next_look_at, look->look_at);
}

void
fin_dispatch_start(int slot)
{
	HASHCTL		ctl =
	{
		.keysize = sizeof(int64),
		.entrysize = sizeof(Look),
	};

	my_slot = slot;
	sent_context = AllocSetContextCreate(TopMemoryContext, "finance sent",
										 ALLOCSET_DEFAULT_SIZES);
	fin_tally_begin();
	looks = hash_create("finance looks", 256, &ctl, HASH_ELEM | HASH_BLOBS);
	fin_dispatch_sweep();
}

void
fin_dispatch_sweep(void)
{
	sweep_at = 0;
}

/* start a sweep, or start over, when one is asked for or its time has come */
static void
consider_sweep(TimestampTz now, bool attention)
{
	TimestampTz last = stats.last_sweep_at;
	TimestampTz regular = last + (int64) fin_sweep_interval_s * USECS_PER_SEC;

	if (last == 0 || now < last)	/* the clock stepped back */
		sweep_at = now;
	else if (attention)
		sweep_at = Min(sweep_at, last + FIN_PAUSE_US);
	else
		sweep_at = Min(sweep_at, regular);
	if (now < sweep_at)
		return;
	sweeping = true;
	sweep_after = PG_INT64_MIN;
	sweep_at = FIN_NEVER;
	stats.last_sweep_at = now;
}

TimestampTz
fin_dispatch_due(TimestampTz now)
{
	bool		attention;
	TimestampTz next;

	nready = fin_wake_collect(my_slot, now, window_us(), ready, &attention,
							  &next);
	for (int i = 0; i < nready; i++)
		schedule_due(&ready[i], now);
	consider_sweep(now, attention);
	if (attention)
		fin_queue_log_attend();

	for (int i = 0; i < nready; i++)
	{
		if (ready[i].count > 0)
			return now;
	}
	if (sweeping)
		return now;
	return Min(next, Min(sweep_at, next_look_at));
}

/* ---- a batch ---- */

/*
 * Tells producers which queues have subscriptions: when these were changed, and
 * at each sweep, for changes that came without a word.
 */
static void
say_who_is_heard(void)
{
	Datum		values[2] = {Int64GetDatum(PG_INT64_MIN),
	Int64GetDatum(FIN_HEARD_MAX)};
	FinHeard	heard = {0};
	uint64		version;
	bool		stale = fin_wake_hears_all(my_slot, &version);
	uint64		n;

	if (!stale && !(sweeping && sweep_after == PG_INT64_MIN))
		return;
	n = fin_query_run(&next_queues, values, NULL, FIN_HEARD_MAX);
	if (n == FIN_HEARD_MAX)
		return;
	for (uint64 i = 0; i < n; i++)
		fin_wake_heard_add(&heard, fin_query_int64(i, 1));
	fin_wake_hear(my_slot, version, &heard);
}

static Announcement *
find_in_batch(int64 queue_id)
{
	for (int i = 0; i < nbatch; i++)
	{
		if (batch[i].bell.queue_id == queue_id)
			return &batch[i];
	}
	return NULL;
}

static Announcement *
add_to_batch(int64 queue_id)
{
	Announcement *added = find_in_batch(queue_id);

	if (added != NULL || nbatch == FIN_QUEUES_PER_BATCH)
		return added;
	added = &batch[nbatch++];
	memset(added, 0, sizeof(*added));
	added->bell.queue_id = queue_id;
	return added;
}

/* count what waits in the queue; nothing when nobody is subscribed to it */
static void
look_at_queue(Announcement *a, TimestampTz since)
{
	Datum		values[1] = {Int64GetDatum(a->bell.queue_id)};
	FinQueueWaiting waiting = {0};
	bool		isnull;
	int32		tenant_id;

	a->looked = true;
	a->all = since == FIN_ALL;
	a->next_look_at = FIN_NEVER;
	if (fin_query_run(&subscribed_tenant, values, NULL, 1) == 0)
		return;
	tenant_id = DatumGetInt32(fin_query_datum(0, 1, &isnull));
	a->looked_at = GetCurrentTimestamp();
	if (!fin_queue_waiting(tenant_id, a->bell.queue_id, since, a->looked_at,
						   &waiting))
		return;
	a->count = waiting.count;
	a->highest_id = waiting.highest_id;
	if (waiting.next_at != 0)
		a->next_look_at = Max(waiting.next_at, a->looked_at + FIN_PAUSE_US);
}

/* a queue in its notification window is looked at when that ends; else 0 */
static TimestampTz
quiet_until(int64 queue_id, TimestampTz now)
{
	return fin_wake_quiet_until(my_slot, now, window_us(), queue_id);
}

static void
sweep_some(TimestampTz now)
{
	Datum		values[2] = {Int64GetDatum(sweep_after),
	Int64GetDatum(FIN_QUEUES_PER_BATCH)};
	uint64		n = fin_query_run(&next_queues, values, NULL,
								  FIN_QUEUES_PER_BATCH);

	batch_swept_to = sweep_after;
	batch_ends_sweep = n < FIN_QUEUES_PER_BATCH;
	for (uint64 i = 0; i < n; i++)
	{
		TimestampTz quiet;

		batch_swept_to = fin_query_int64(i, 1);
		quiet = quiet_until(batch_swept_to, now);
		if (quiet != 0)
			schedule_look(batch_swept_to, quiet, FIN_ALL);
		else
			(void) add_to_batch(batch_swept_to);
	}
	for (int i = 0; i < nbatch; i++)
		look_at_queue(&batch[i], FIN_ALL);
}

static void
look_where_due(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	Look	   *look;
	Announcement *a;

	if (now < next_look_at)
		return;
	hash_seq_init(&scan, looks);
	while ((look = hash_seq_search(&scan)) != NULL)
	{
		TimestampTz quiet;

		if (look->look_at > now)
			continue;
		quiet = quiet_until(look->queue_id, now);
		if (quiet != 0)
		{
			look->look_at = quiet;
			continue;
		}
		a = add_to_batch(look->queue_id);
		if (a != NULL && !a->looked)
			look_at_queue(a, look->since);
	}
}

/*
 * The bells were collected before the snapshot of a look was taken, so when it
 * counted all that waits, what they rang for is in its count already.
 */
static void
add_bells(void)
{
	for (int i = 0; i < nready; i++)
	{
		Announcement *a;

		if (ready[i].count == 0)
			continue;
		a = add_to_batch(ready[i].queue_id);
		if (a == NULL)
			continue;			/* next batch; its bell goes on ringing */
		a->bell = ready[i];
		a->highest_id = Max(a->highest_id, ready[i].highest_id);
		if (a->all)
			a->count = Max(a->count, ready[i].count);
		else
			a->count += ready[i].count;
	}
}

static char *
make_payload(const Announcement *a, const char *queue)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"queue\": ");
	escape_json(&json, queue);
	appendStringInfo(&json, ", \"highest_id\": " INT64_FORMAT ", \"count\": " INT64_FORMAT "}",
					 a->highest_id, a->count);
	return json.data;
}

static void
note_sent(const char *channel, int64 messages, bool sent)
{
	Sent	   *added;

	if (nbatch_sent == maxbatch_sent)
	{
		int			larger = maxbatch_sent == 0 ? 64 : maxbatch_sent * 2;

		if (maxbatch_sent == 0)
			batch_sent = MemoryContextAlloc(sent_context,
											larger * sizeof(Sent));
		else
			batch_sent = repalloc(batch_sent, larger * sizeof(Sent));
		maxbatch_sent = larger;
	}
	added = &batch_sent[nbatch_sent++];
	memset(added, 0, sizeof(Sent));
	memcpy(added->channel, channel,
		   pg_mbcliplen(channel, strlen(channel), NAMEDATALEN - 1));
	added->messages = messages;
	added->sent = sent;
}

/* once in a while, as it may happen in every window */
static void
log_unsendable(const char *queue, const char *channel)
{
	static TimestampTz logged_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (logged_at != 0 && now - logged_at < FIN_LOG_PAUSE_US)
		return;
	logged_at = now;
	ereport(LOG,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("no notification can be sent on channel \"%s\" of queue \"%s\"",
				   channel, queue),
			errdetail("A channel has 1 to %d bytes, a payload up to %d.",
					  NAMEDATALEN - 1, FIN_PAYLOAD_MAX));
}

/*
 * What NOTIFY would refuse is skipped and counted: an ERROR would keep every
 * other subscriber waiting.
 */
static void
notify_channel(Announcement *a, const char *queue, const char *channel)
{
	char	   *payload = make_payload(a, queue);

	if (channel[0] == '\0' || strlen(channel) >= NAMEDATALEN ||
		strlen(payload) > FIN_PAYLOAD_MAX)
	{
		batch_unsendable++;
		note_sent(channel, 0, false);
		log_unsendable(queue, channel);
		return;
	}
	Async_Notify(channel, payload);
	batch_notifications++;
	note_sent(channel, a->count, true);
	a->told = true;
}

static void
notify_subscribers(void)
{
	Datum		ids[FIN_QUEUES_PER_BATCH];
	int			of[FIN_QUEUES_PER_BATCH];
	int			n = 0;
	Datum		values[2];
	uint64		nrows;

	for (int i = 0; i < nbatch; i++)
	{
		if (batch[i].count == 0)
			continue;
		of[n] = i;
		ids[n++] = Int64GetDatum(batch[i].bell.queue_id);
	}
	if (n == 0)
		return;
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[1] = Int64GetDatum(FIN_CHANNELS_PER_QUEUE_MAX);
	nrows = fin_query_run(&channels, values, NULL, 0);
	for (uint64 row = 0; row < nrows; row++)
		notify_channel(&batch[of[fin_query_int64(row, 1) - 1]],
					   fin_query_text(row, 2), fin_query_text(row, 3));
}

void
fin_dispatch_run(TimestampTz now)
{
	FinQueryScope scope;

	nbatch = 0;
	batch_notifications = 0;
	batch_unsendable = 0;
	nbatch_sent = 0;
	fin_query_begin(&scope);
	say_who_is_heard();
	if (sweeping)
		sweep_some(now);
	look_where_due(now);
	add_bells();
	notify_subscribers();
	fin_query_end(&scope);
}

/* ---- after the commit ---- */

static void
move_look(const Announcement *a)
{
	hash_search(looks, &a->bell.queue_id, HASH_REMOVE, NULL);
	if (a->next_look_at != FIN_NEVER)
		schedule_look(a->bell.queue_id, a->next_look_at, a->looked_at);
}

static void
count_lag(int64 us)
{
	int			class = us < 2 ? 0 : (int) floor(4 * log2(us)) - 4;

	stats.last_lag_us = us;
	stats.max_lag_us = Max(stats.max_lag_us, us);
	stats.lags[Min(class, FIN_LAG_CLASSES - 1)]++;
}

int64
fin_dispatch_lag_us(const FinDispatchStats *of, double part)
{
	int64		total = 0;
	int64		seen = 0;

	for (int i = 0; i < FIN_LAG_CLASSES; i++)
		total += of->lags[i];
	for (int i = 0; i < FIN_LAG_CLASSES; i++)
	{
		seen += of->lags[i];
		if (seen > 0 && seen >= part * total)
			return Min((int64) ceil(pow(2, (i + 5) / 4.0)), of->max_lag_us);
	}
	return 0;
}

static void
count_sent(TimestampTz now)
{
	for (int i = 0; i < nbatch_sent; i++)
	{
		const Sent *of = &batch_sent[i];

		fin_tally_add(of->channel, of->messages, of->sent, now);
		if (of->sent)
			continue;
		stats.last_unsendable_at = now;
		strlcpy(stats.last_unsendable, of->channel, NAMEDATALEN);
	}
	nbatch_sent = 0;
}

void
fin_dispatch_committed(TimestampTz now)
{
	FinBell		answered[FIN_QUEUES_PER_BATCH];
	int			n = 0;

	for (int i = 0; i < nbatch; i++)
	{
		const Announcement *a = &batch[i];

		if (a->looked)
			move_look(a);
		if (a->count == 0)
			continue;
		answered[n++] = a->bell;
		if (!a->told)
			continue;
		stats.messages += a->count;
		if (a->bell.count > 0)
			count_lag(now - a->bell.rung_at);
	}
	fin_wake_answered(my_slot, now, window_us(), answered, n);
	find_next_look();

	count_sent(now);
	stats.rounds++;
	stats.notifications += batch_notifications;
	stats.unsendable += batch_unsendable;
	if (batch_notifications > 0)
		stats.last_notified_at = now;
	if (sweeping)
	{
		sweep_after = batch_swept_to;
		sweeping = !batch_ends_sweep;
	}
	nbatch = 0;
	nready = 0;
}

const FinDispatchStats *
fin_dispatch_stats(void)
{
	return &stats;
}
