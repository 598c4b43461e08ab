/*
 * half_chore.c
 *		The worker's chore of half messages: when to look at which.
 *
 * Words: the mark is the (time, half_id) up to which the worker has looked at
 * what was due.  What it had to leave, since it was just being answered or may
 * not be deleted yet, is postponed: the mark goes back to it after a while.  A
 * half message prepared since that is due before the mark moves it back too
 * (wake.h tells); a sweep moves it to the beginning: at the start, on request,
 * and each finance.sweep_interval, for what nobody told of (prepared
 * transactions, rows arriving by replication).
 *
 * Owns: the mark and the times, static.  They are moved on only after the
 * commit, so nothing needs cleaning up after an error.  Locks: none here.
 *
 * Clock: as in expire.c.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "half.h"
#include "half_parts.h"
#include "ident.h"
#include "query.h"
#include "settings.h"
#include "wake.h"

#define FIN_POSTPONE_FIRST_US	(100 * INT64CONST(1000))	/* then doubled */
#define FIN_POSTPONE_MAX_US		(5 * USECS_PER_SEC)
#define FIN_FORGET_FIRST_US		USECS_PER_SEC	/* doubled, too */

static int	my_slot;

static FinHalfDue mark;
static TimestampTz next_due;	/* FIN_NEVER: nothing more is due */
static TimestampTz sweep_at;
static TimestampTz forget_at;	/* FIN_NEVER: at the next sweep */
static int64 forget_us;			/* how long it had to wait, the last time */

static TimestampTz postponed_from = FIN_NEVER;	/* the first left behind */
static TimestampTz postponed_until = FIN_NEVER; /* go back to it then */
static int64 postponed_us;		/* how long, the last time */
static bool busy;				/* somebody is just answering one of them */

/* the batch at work: valid from run to committed */
static FinHalfDue batch[FIN_HALF_BATCH];
static FinHalfFate fates[FIN_HALF_BATCH];
static int	nbatch;
static FinHalfDue batch_mark;
static TimestampTz batch_next_due;
static bool batch_ends;			/* nothing more is due now */
static bool batch_forgets;
static bool batch_may_delete;
static bool batch_forgot_all;

static void
mark_before(TimestampTz when)
{
	mark.at = when == FIN_HALF_ALL ? when : when - 1;
	mark.half_id = when == FIN_HALF_ALL ? 0 : PG_INT64_MAX;
}

static void
look_at_all(void)
{
	mark_before(FIN_HALF_ALL);
	next_due = FIN_HALF_ALL;
	forget_at = FIN_HALF_ALL;
}

void
fin_half_sweep(void)
{
	sweep_at = 0;
	postponed_from = postponed_until = FIN_NEVER;
	postponed_us = 0;
	busy = false;
	look_at_all();
}

void
fin_half_start(int slot)
{
	my_slot = slot;
	fin_half_sweep();
}

const char *
fin_half_complaint(void)
{
	return fin_half_take_complaint();
}

/* ------------------------------------------------------------------------
 * when
 * ------------------------------------------------------------------------
 */

/* it stands still, so that nothing is due later that is not due now */
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
		fin_half_sweep();		/* the clock stepped back */
	if (sweep_at > now)
		return;
	look_at_all();
	sweep_at = now + interval;
}

static void
consider_postponed(TimestampTz now)
{
	if (postponed_until > now)
		return;
	if (postponed_from <= mark.at)
		mark_before(postponed_from);
	next_due = FIN_HALF_ALL;
	postponed_from = postponed_until = FIN_NEVER;
	busy = false;
}

TimestampTz
fin_half_due(TimestampTz now)
{
	TimestampTz noted = fin_wake_collect_half(my_slot);

	if (noted <= mark.at)
		mark_before(noted);
	next_due = Min(next_due, noted);
	consider_sweep(now);
	consider_postponed(now);
	if (is_test_clock() && next_due != FIN_NEVER)
		return now;
	return Min(Min(next_due, forget_at), Min(postponed_until, sweep_at));
}

/* ------------------------------------------------------------------------
 * one batch
 * ------------------------------------------------------------------------
 */

static void
take_batch(TimestampTz clock)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	nbatch = fin_half_take_due(FIN_HALF_ALL_TENANTS, clock, &mark,
							   FIN_HALF_BATCH, batch);
	batch_ends = nbatch < FIN_HALF_BATCH;
	batch_mark = nbatch > 0 ? batch[nbatch - 1] : mark;
	fin_query_end(&scope);
}

/* after the batch, which may have made checks that are due soon */
static void
find_next(void)
{
	FinQueryScope scope;

	batch_next_due = FIN_HALF_ALL;
	if (!batch_ends)
		return;
	batch_next_due = FIN_NEVER;
	if (is_test_clock())
		return;
	fin_query_begin(&scope);
	batch_next_due = fin_half_next_due(&batch_mark);
	fin_query_end(&scope);
}

void
fin_half_run(TimestampTz now)
{
	TimestampTz clock = fin_ident_now();

	memset(fates, 0, sizeof(fates));
	take_batch(clock);
	fin_half_treat(batch, nbatch, clock, true, fates);
	batch_forgets = forget_at <= now;
	batch_may_delete = fin_half_may_delete();
	if (batch_forgets && batch_may_delete)
		batch_forgot_all = !fin_half_forget(clock);
	find_next();
}

/* ------------------------------------------------------------------------
 * after the commit
 * ------------------------------------------------------------------------
 */

/* what is being answered is soon done; what may not be deleted can wait */
static void
postpone(TimestampTz now)
{
	int64		most = busy ? FIN_POSTPONE_MAX_US :
		(int64) fin_sweep_interval_s * USECS_PER_SEC;

	if (postponed_from == FIN_NEVER)
		postponed_us = 0;
	else if (postponed_until == FIN_NEVER)
	{
		postponed_us = Max(FIN_POSTPONE_FIRST_US,
						   Min(postponed_us * 2, most));
		postponed_until = now + postponed_us;
	}
}

static void
plan_forgetting(TimestampTz now)
{
	int64		most = (int64) fin_sweep_interval_s * USECS_PER_SEC;

	if (batch_may_delete)
	{
		forget_us = 0;
		forget_at = batch_forgot_all ? FIN_NEVER : now;
		return;
	}
	forget_us = Max(FIN_FORGET_FIRST_US, Min(forget_us * 2, most));
	forget_at = now + forget_us;
}

void
fin_half_committed(TimestampTz now)
{
	for (int i = 0; i < nbatch; i++)
	{
		if (fates[i] < FIN_HALF_BUSY)
			continue;
		postponed_from = Min(postponed_from, batch[i].at);
		busy = busy || fates[i] == FIN_HALF_BUSY;
	}
	nbatch = 0;
	mark = batch_mark;
	next_due = batch_next_due;
	if (batch_ends)
		postpone(now);
	if (batch_forgets)
		plan_forgetting(now);
}
