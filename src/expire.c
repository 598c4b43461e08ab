/*
 * expire.c
 *		Holds whose time is over: finance.expire_holds() and, of what is
 *		parked, settle_reviews(), and the worker's chore that does both by
 *		itself.
 *
 * Words: the mark is the (expires_at, hold_id) up to which the worker has been;
 * it looks at what is over beyond it.  A hold that could not be expired, since
 * an account of it is busy or since something failed, is put aside and tried
 * again later, so that it is in nobody's way.  A hold made since that expires
 * before the mark moves the mark back (wake.h tells); a sweep moves it to the
 * beginning: at the start, on request, and each finance.sweep_interval, for
 * what nobody told of (prepared transactions, rows arriving by replication).
 *
 * Owns, in the worker: the mark, the holds put aside (bounded; what does not
 * fit is left to the sweep), and when to look next, all static.  Nothing needs
 * cleaning up after an error: they are moved on only after the commit.
 *
 * Each tenant's share of a batch is tried in a subtransaction; when it fails,
 * each of its holds in one of its own.  So one hold that nobody can expire
 * costs the others nothing.
 *
 * Privileges: what the worker does for a tenant is done with finance.tenant
 * set, as the extension's owner, and as a security-restricted operation with
 * all constraints immediate: a trigger that the owner attached must not find
 * itself run by the worker's superuser at commit.  What it SETs is undone.
 *
 * Locks: those of fin_posting_expire(), which never waits.  An account so busy
 * that it is never found free is waited for, FIN_PATIENCE at most, for one hold
 * of a batch, as the first of its transaction, and when in vain not again at
 * once: the other chores wait meanwhile.
 *
 * Clock: fin_ident_now().  The worker does not see the finance.test_clock of a
 * session; one set for the database stands still for it, as for all.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "expire.h"
#include "ident.h"
#include "mishap.h"
#include "posting.h"
#include "process.h"
#include "query.h"
#include "settings.h"
#include "wake.h"

#define FIN_EXPIRE_LIMIT_MAX	10000
#define FIN_ASIDE_MAX			4096
#define FIN_PATIENCE			"50ms"
#define FIN_PATIENT_AFTER		2	/* times found busy */
#define FIN_PATIENCE_REST_US	USECS_PER_SEC	/* after one in vain */
#define FIN_BUSY_FIRST_US		(100 * INT64CONST(1000))	/* then doubled */
#define FIN_BUSY_MAX_US			(5 * USECS_PER_SEC)

/* ------------------------------------------------------------------------
 * finance.expire_holds()
 * ------------------------------------------------------------------------ */

static int
find_due(int32 tenant_id, FinDueKind kind, TimestampTz now,
		 const FinDueHold *after, int limit, FinDueHold *holds)
{
	FinQueryScope scope;
	int			n;

	fin_query_begin(&scope);
	n = fin_store_due_holds(tenant_id, kind, now, after, limit, holds);
	fin_query_end(&scope);
	return n;
}

static int
limit_argument(FunctionCallInfo fcinfo)
{
	int			limit;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("limit must not be null"));
	limit = PG_GETARG_INT32(0);
	if (limit < 1 || limit > FIN_EXPIRE_LIMIT_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("limit must be between 1 and %d", FIN_EXPIRE_LIMIT_MAX),
				errdetail("It is %d.", limit));
	return limit;
}

static int64
expire_now(FunctionCallInfo fcinfo, FinDueKind kind)
{
	int			limit = limit_argument(fcinfo);
	int32		tenant_id = fin_context()->tenant_id;
	TimestampTz now = fin_ident_now();
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext batch = AllocSetContextCreate(outer, "finance expiry",
												ALLOCSET_DEFAULT_SIZES);
	FinDueHold	holds[FIN_EXPIRY_BATCH];
	FinExpiry	results[FIN_EXPIRY_BATCH];
	FinDueHold	last = {.expires_at = DT_NOBEGIN};
	int			expired = 0;
	int			wanted;
	int			n;

	do
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(batch);
		wanted = Min(limit - expired, FIN_EXPIRY_BATCH);
		n = find_due(tenant_id, kind, now, &last, wanted, holds);
		if (n > 0)
		{
			last = holds[n - 1];
			expired += fin_posting_expire(holds, n, results);
		}
		MemoryContextSwitchTo(outer);
		MemoryContextReset(batch);
	} while (n == wanted && expired < limit);
	MemoryContextDelete(batch);
	return expired;
}

PG_FUNCTION_INFO_V1(finance_expire_holds);

/*
 * finance.expire_holds("limit" integer) returns bigint
 *
 * Gives back what remains of the tenant's open holds whose time is over, at
 * most limit (1 to 10000) of them, those that ended first before others; each
 * is a transfer with status expired.  Skips a hold while another transaction
 * has locked one of its accounts, so it never waits for one and never
 * deadlocks.  Result: how many were given back.  Errors: 22004 and 22023 bad
 * limit.  Locks: the accounts of those holds.
 */
Datum
finance_expire_holds(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(expire_now(fcinfo, FIN_DUE_ORDINARY));
}

PG_FUNCTION_INFO_V1(finance_settle_reviews);

/*
 * finance.settle_reviews("limit" integer) returns bigint
 *
 * The same for what is parked: gives it back, or carries it out where that was
 * laid down for the end of its time.  Skips besides what is to be carried out
 * while it may not be, as when an account of it is frozen.
 */
Datum
finance_settle_reviews(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(expire_now(fcinfo, FIN_DUE_PARKED));
}

/* ------------------------------------------------------------------------
 * the chore: what it keeps
 * ------------------------------------------------------------------------ */

typedef struct Aside
{
	FinDueHold	hold;			/* its id is the hash key */
	int			failures;
	TimestampTz retry_at;
} Aside;

typedef enum Fate
{
	FATE_SETTLED,				/* expired, by us or somebody else */
	FATE_BUSY,
	FATE_FAILED
} Fate;

static int	my_slot;

static FinDueHold mark;
static TimestampTz next_due;	/* FIN_NEVER: nothing more expires */
static TimestampTz sweep_at;
static HTAB *aside = NULL;
static TimestampTz next_retry = FIN_NEVER;
static bool retried = false;	/* the last batch was of those put aside */
static TimestampTz patient_at = 0;	/* wait for an account again */

static FinMishaps mishaps;

/* the batch at work: valid from run to committed */
static FinDueHold batch[FIN_EXPIRY_BATCH];
static Fate fates[FIN_EXPIRY_BATCH];
static int	nbatch = 0;
static bool batch_retries;
static bool batch_ends;			/* nothing more is over */
static FinDueHold batch_mark;
static TimestampTz batch_next_due;

static void
mark_before(TimestampTz when)
{
	mark.expires_at = when == FIN_EXPIRY_ALL ? when : when - 1;
	mark.hold_id = when == FIN_EXPIRY_ALL ? 0 : PG_INT64_MAX;
}

static void
look_at_all(void)
{
	mark_before(FIN_EXPIRY_ALL);
	next_due = FIN_EXPIRY_ALL;
}

void
fin_expire_sweep(void)
{
	HASHCTL		ctl =
	{
		.keysize = sizeof(int64),
		.entrysize = sizeof(Aside),
	};

	if (aside != NULL)
		hash_destroy(aside);
	aside = hash_create("finance holds put aside", 64, &ctl,
						HASH_ELEM | HASH_BLOBS);
	next_retry = FIN_NEVER;
	patient_at = 0;				/* the clock may have stepped back */
	sweep_at = 0;
	look_at_all();
}

void
fin_expire_start(int slot)
{
	my_slot = slot;
	fin_expire_sweep();
}

static void
find_next_retry(void)
{
	HASH_SEQ_STATUS scan;
	Aside	   *put;

	next_retry = FIN_NEVER;
	hash_seq_init(&scan, aside);
	while ((put = hash_seq_search(&scan)) != NULL)
		next_retry = Min(next_retry, put->retry_at);
}

/* ------------------------------------------------------------------------
 * the chore: when
 * ------------------------------------------------------------------------ */

/* it stands still, so that nothing is over later that is not over now */
static bool
is_test_clock(void)
{
	return fin_test_clock != NULL && fin_test_clock[0] != '\0';
}

static void
consider_sweep(TimestampTz now)
{
	int64		interval = (int64) fin_sweep_interval_s * USECS_PER_SEC;

	if (sweep_at > now + interval)
		fin_expire_sweep();		/* the clock stepped back */
	if (sweep_at > now)
		return;
	look_at_all();
	sweep_at = now + interval;
}

TimestampTz
fin_expire_due(TimestampTz now)
{
	TimestampTz noted = fin_wake_collect_expiry(my_slot);

	if (noted <= mark.expires_at)
		mark_before(noted);
	next_due = Min(next_due, noted);
	consider_sweep(now);
	if (is_test_clock() && next_due != FIN_NEVER)
		return now;
	return Min(next_due, Min(next_retry, sweep_at));
}

/* ------------------------------------------------------------------------
 * the chore: one batch
 * ------------------------------------------------------------------------ */

/* returns the one found busy most often, or -1: none often enough */
static int
take_aside(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	Aside	   *put;
	int			busiest = -1;
	int			failures = now >= patient_at ? FIN_PATIENT_AFTER - 1 : INT_MAX;

	hash_seq_init(&scan, aside);
	while ((put = hash_seq_search(&scan)) != NULL)
	{
		if (put->retry_at > now)
			continue;
		if (put->failures > failures)
		{
			failures = put->failures;
			busiest = nbatch;
		}
		batch[nbatch++] = put->hold;
		if (nbatch == FIN_EXPIRY_BATCH)
		{
			hash_seq_term(&scan);
			break;
		}
	}
	return busiest;
}

/* what is over beyond the mark, but for what was put aside */
static void
take_due(void)
{
	TimestampTz clock = fin_ident_now();
	FinQueryScope scope;
	FinDueHold	found[FIN_EXPIRY_BATCH];
	int			n;

	fin_query_begin(&scope);
	n = fin_store_due_holds(FIN_ALL_TENANTS, FIN_DUE_ANY, clock, &mark,
							FIN_EXPIRY_BATCH, found);
	batch_ends = n < FIN_EXPIRY_BATCH;
	batch_mark = n > 0 ? found[n - 1] : mark;
	batch_next_due = !batch_ends ? FIN_EXPIRY_ALL : is_test_clock() ?
		FIN_NEVER : fin_store_next_expiry(clock);
	fin_query_end(&scope);
	for (int i = 0; i < n; i++)
	{
		if (hash_search(aside, &found[i].hold_id, HASH_FIND, NULL) == NULL)
			batch[nbatch++] = found[i];
	}
}

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* both accounts in their order; 55P03 when that takes too long */
static void
lock_patiently(const FinDueHold *hold)
{
	FinQueryScope scope;
	FinAccount	accounts[2];
	int64		ids[2] = {Min(hold->from_account_id, hold->to_account_id),
	Max(hold->from_account_id, hold->to_account_id)};

	set_for_now("lock_timeout", FIN_PATIENCE);
	fin_query_begin(&scope);
	(void) fin_store_lock_accounts(hold->tenant_id, ids, 2, accounts,
								   CurrentMemoryContext);
	fin_query_end(&scope);
}

static void
expire_for_tenant(const FinDueHold *holds, int n, bool patient,
				  FinExpiry *results)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);
	int			nest = NewGUCNestLevel();
	char		tenant[16];
	Oid			user;
	int			sec_context;

	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(user, sec_context | SECURITY_RESTRICTED_OPERATION);
	snprintf(tenant, sizeof(tenant), "%d", holds[0].tenant_id);
	set_for_now("finance.tenant", tenant);
	set_for_now("finance.actor", "finance worker");
	AfterTriggerSetState(immediate);
	if (patient)
		lock_patiently(holds);
	(void) fin_posting_expire(holds, n, results);
	SetUserIdAndSecContext(user, sec_context);
	AtEOXact_GUC(false, nest);
}

/* the hold alone could not be expired */
static Fate
fate_of(const FinDueHold *hold, const ErrorData *error)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		category == ERRCODE_TRANSACTION_ROLLBACK)
		return FATE_BUSY;
	fin_mishap_log(&mishaps,
				   psprintf("hold " INT64_FORMAT " of tenant %d could not be expired",
							hold->hold_id, hold->tenant_id), error,
				   "It is tried again later; finance.expire_holds() shows the error.");
	return FATE_FAILED;
}

static Fate
fate_of_result(const FinDueHold *hold, FinExpiry result)
{
	ErrorData	error = {0};

	if (result == FIN_EXPIRY_BUSY)
		return FATE_BUSY;
	if (result != FIN_EXPIRY_REFUSED)
		return FATE_SETTLED;
	error.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error.message = "what is parked cannot be carried out";
	fin_mishap_log(&mishaps,
				   psprintf("transfer " INT64_FORMAT " of tenant %d",
							hold->hold_id, hold->tenant_id), &error,
				   "It is tried again later; finance.review_transfer() shows the error, or rejects it.");
	return FATE_FAILED;
}

/* holds of one tenant; NULL: their fates are known, else why not */
static const ErrorData *
try_holds(const FinDueHold *holds, int n, bool patient, Fate *their_fates)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	FinExpiry	results[FIN_EXPIRY_BATCH];
	const ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		expire_for_tenant(holds, n, patient, results);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = fin_mishap_take(context, owner);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	for (int i = 0; error == NULL && i < n; i++)
		their_fates[i] = fate_of_result(&holds[i], results[i]);
	return error;
}

static void
try_alone(int i, bool patient)
{
	const ErrorData *error = try_holds(&batch[i], 1, patient, &fates[i]);

	if (error != NULL)
		fates[i] = fate_of(&batch[i], error);
}

static int
compare_tenants(const void *a, const void *b)
{
	const FinDueHold *left = a;
	const FinDueHold *right = b;

	return left->tenant_id < right->tenant_id ? -1 :
		left->tenant_id > right->tenant_id;
}

/* from 'start' on, each tenant's share at once, and one by one if it must be */
static void
try_each_tenant(int start)
{
	while (start < nbatch)
	{
		int			end = start + 1;

		while (end < nbatch && batch[end].tenant_id == batch[start].tenant_id)
			end++;
		if (try_holds(&batch[start], end - start, false, &fates[start]) != NULL)
		{
			for (int i = start; i < end; i++)
				try_alone(i, false);
		}
		start = end;
	}
}

void
fin_expire_run(TimestampTz now)
{
	int			busiest = -1;
	int			done = 0;

	/* money: on our disk before anybody is told */
	(void) set_config_option("synchronous_commit", "local", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	nbatch = 0;
	/* by turns, should there always be more of both */
	batch_retries = next_retry <= now && (!retried || next_due > now);
	if (batch_retries)
		busiest = take_aside(now);
	else
		take_due();
	if (busiest >= 0)
	{
		FinDueHold	first = batch[busiest];

		batch[busiest] = batch[0];
		batch[0] = first;
		try_alone(done++, true);
		if (fates[0] == FATE_BUSY)
			patient_at = now + FIN_PATIENCE_REST_US;
	}
	qsort(batch + done, nbatch - done, sizeof(FinDueHold), compare_tenants);
	try_each_tenant(done);
}

/* ------------------------------------------------------------------------
 * the chore: after the commit
 * ------------------------------------------------------------------------ */

/* what is locked is soon free; what fails will mostly fail again */
static int64
wait_us(Fate fate, int failures)
{
	int64		us = FIN_BUSY_FIRST_US;

	if (fate == FATE_FAILED)
		return fin_process_backoff_us(failures);
	for (int i = 1; i < failures && us < FIN_BUSY_MAX_US; i++)
		us *= 2;
	return Min(us, FIN_BUSY_MAX_US);
}

static void
put_aside(const FinDueHold *hold, Fate fate, TimestampTz now)
{
	bool		found;
	bool		full = hash_get_num_entries(aside) >= FIN_ASIDE_MAX;
	Aside	   *put = hash_search(aside, &hold->hold_id,
								  full ? HASH_FIND : HASH_ENTER, &found);

	if (put == NULL)
		return;					/* the sweep will find it */
	put->failures = found ? put->failures + 1 : 1;
	put->hold = *hold;
	put->retry_at = now + wait_us(fate, put->failures);
}

void
fin_expire_committed(TimestampTz now)
{
	for (int i = 0; i < nbatch; i++)
	{
		if (fates[i] == FATE_SETTLED)
			hash_search(aside, &batch[i].hold_id, HASH_REMOVE, NULL);
		else
			put_aside(&batch[i], fates[i], now);
	}
	find_next_retry();
	retried = batch_retries;
	nbatch = 0;
	if (batch_retries)
		return;
	mark = batch_mark;
	next_due = batch_next_due;
}

const char *
fin_expire_complaint(void)
{
	return fin_mishap_last(&mishaps);
}
