/*
 * posting_expire.c
 *		Giving back holds whose time is over, wherever that needs no waiting.
 *
 * Owns nothing between calls.
 *
 * Locks: the accounts of a hold are locked only where nobody else has them, so
 * that whoever expires holds, at whatever point of his transaction and with
 * whatever locks, never waits for an account: he takes part in no deadlock and
 * is not held up by one busy account.  What he skips is done by the next who
 * comes.  The same goes for the totals of types that risk measures.  Posting
 * then locks the same rows again, which does nothing.
 *
 * What is parked comes here too, when its time is over, and is settled as its
 * review lays down.  One that is to be carried out then, but may not be (an
 * account is frozen), stays parked and is tried again.
 *
 * A slow worker is not the caller's trouble: orders that holds in the way would
 * fail, or cut short, give those back first and are then settled anew.
 */
#include "postgres.h"

#include "errors.h"
#include "posting_parts.h"
#include "query.h"
#include "store_measure.h"

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* the accounts of the holds that are ours now, ascending; returns how many */
static int
lock_free_accounts(int32 tenant_id, const FinDueHold *holds, int n,
				   int64 *locked)
{
	FinQueryScope scope;
	int64	   *ids = palloc(sizeof(int64) * 2 * n);
	int			nids;
	int			nlocked;

	for (int i = 0; i < n; i++)
	{
		ids[2 * i] = holds[i].from_account_id;
		ids[2 * i + 1] = holds[i].to_account_id;
	}
	nids = fin_store_distinct_ids(ids, 2 * n);
	fin_query_begin(&scope);
	nlocked = fin_store_try_lock_accounts(tenant_id, ids, nids, locked);
	fin_query_end(&scope);
	pfree(ids);
	return nlocked;
}

static bool
measures_types(int32 tenant_id)
{
	int			n;
	const FinMeasure *measures = fin_meter_measures(tenant_id, &n);

	for (int i = 0; i < n; i++)
	{
		if (measures[i].scope == FIN_SCOPE_TYPE)
			return true;
	}
	return false;
}

/* of which holds the totals of their types are ours now, if there are any */
static bool *
lock_free_totals(int32 tenant_id, const FinDueHold *holds, int n)
{
	FinQueryScope scope;
	int64	   *ids = palloc(sizeof(int64) * n);
	bool	   *locked = palloc(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
	{
		ids[i] = holds[i].hold_id;
		locked[i] = true;
	}
	fin_query_begin(&scope);
	if (measures_types(tenant_id))
		fin_store_try_lock_totals(tenant_id, ids, n, locked);
	fin_query_end(&scope);
	pfree(ids);
	return locked;
}

static bool
is_locked(int64 id, const int64 *locked, int n)
{
	return bsearch(&id, locked, n, sizeof(int64), compare_ids) != NULL;
}

static void
make_order(const FinDueHold *hold, FinOrder *order)
{
	memset(order, 0, sizeof(FinOrder));
	order->action = FIN_EXPIRE;
	order->hold_id = hold->hold_id;
	order->expected_from_version = FIN_NO_VERSION;
	order->expected_to_version = FIN_NO_VERSION;
}

/* as its review lays down for the end of its time, or given back in any case */
static void
make_settlement(int32 tenant_id, const FinDueHold *hold, bool gives_back,
				FinOrder *order)
{
	FinSettlement *settlement = palloc0(sizeof(FinSettlement));
	MemoryContext memory = CurrentMemoryContext;
	FinQueryScope scope;
	FinParked	parked;

	make_order(hold, order);
	settlement->end = FIN_REVIEW_TIMED_OUT;
	settlement->gives_back = gives_back;
	fin_query_begin(&scope);
	if (fin_posting_read_parked(tenant_id, hold->hold_id, &parked, memory))
	{
		settlement->of_challenge = parked.parking == FIN_PARKED_FOR_CHALLENGE;
		fin_posting_make_settlement(tenant_id, &parked, settlement, memory,
									order);
	}
	fin_query_end(&scope);
}

/* a reversal of which others have left less than this one was to give back */
static bool
can_never_be(const FinDueHold *hold, const FinOutcome *outcome)
{
	return hold->parked && outcome->fault != NULL &&
		outcome->fault->sqlstate == ERRCODE_FIN_EXCEEDS_REMAINDER;
}

/*
 * Somebody may have captured or released it since it was looked for; and what
 * keeps something parked from being carried out must not hinder anybody else.
 */
static FinExpiry
result_of(const FinDueHold *hold, const FinOutcome *outcome)
{
	if (outcome->fault == NULL)
		return FIN_EXPIRY_DONE;
	if (outcome->fault->sqlstate == ERRCODE_FIN_HOLD_NOT_OPEN)
		return FIN_EXPIRY_NOT_OPEN;
	if (!hold->parked)
		fin_fault_raise(outcome->fault);
	return FIN_EXPIRY_REFUSED;
}

/* those whose accounts and totals are locked; the others are busy */
static int
make_orders(int32 tenant_id, const FinDueHold *holds, int n,
			const int64 *locked, int nlocked, const bool *totals,
			FinOrder *orders, FinExpiry *results)
{
	int			norders = 0;

	for (int i = 0; i < n; i++)
	{
		bool		free = totals[i] &&
			is_locked(holds[i].from_account_id, locked, nlocked) &&
			is_locked(holds[i].to_account_id, locked, nlocked);

		results[i] = free ? FIN_EXPIRY_DONE : FIN_EXPIRY_BUSY;
		if (free && holds[i].parked)
			make_settlement(tenant_id, &holds[i], false, &orders[norders++]);
		else if (free)
			make_order(&holds[i], &orders[norders++]);
	}
	return norders;
}

int
fin_posting_expire(const FinDueHold *holds, int n, FinExpiry *results)
{
	int32		tenant_id = fin_context()->tenant_id;
	int64	   *locked = palloc(sizeof(int64) * 2 * n);
	int			nlocked = lock_free_accounts(tenant_id, holds, n, locked);
	bool	   *totals = lock_free_totals(tenant_id, holds, n);
	FinOrder   *orders = palloc(sizeof(FinOrder) * n);
	FinOutcome *outcomes = palloc(sizeof(FinOutcome) * n);
	int			norders = make_orders(tenant_id, holds, n, locked, nlocked,
									  totals, orders, results);
	int			nexpired = 0;

	if (norders > 0)
		fin_posting_execute(orders, norders, outcomes, FIN_POSTING_COLLECT);
	norders = 0;
	for (int i = 0; i < n; i++)
	{
		FinOutcome *outcome = &outcomes[norders];

		if (results[i] == FIN_EXPIRY_BUSY)
			continue;
		if (can_never_be(&holds[i], outcome))
		{
			make_settlement(tenant_id, &holds[i], true, &orders[norders]);
			fin_posting_execute(&orders[norders], 1, outcome,
								FIN_POSTING_COLLECT);
		}
		results[i] = result_of(&holds[i], outcome);
		if (results[i] == FIN_EXPIRY_DONE)
			nexpired++;
		norders++;
	}
	return nexpired;
}

/* ------------------------------------------------------------------------
 * what is in the way of other orders
 * ------------------------------------------------------------------------ */

/* asked once for each side of an account */
static bool
is_hindering(FinPosting *posting, const FinAccount *account, bool debit)
{
	char	   *asked;
	int			n;

	if ((debit ? account->debits_pending : account->credits_pending) == 0)
		return false;
	if (posting->asked == NULL)
	{
		posting->asked = palloc0(2 * posting->naccounts);
		posting->hindering = palloc(sizeof(FinDueHold) * FIN_EXPIRY_BATCH);
	}
	asked = &posting->asked[2 * (account - posting->accounts) + debit];
	if (*asked == 0)
	{
		n = fin_store_due_holds_of(posting->context->tenant_id,
								   account->account_id, debit, posting->now,
								   FIN_EXPIRY_BATCH - posting->nhindering,
								   posting->hindering + posting->nhindering);
		posting->nhindering += n;
		*asked = n > 0 ? 'y' : 'n';
	}
	return *asked == 'y';
}

bool
fin_posting_is_hindered(FinPosting *posting, const FinMovement *movement)
{
	bool		debits = is_hindering(posting, movement->from, true);

	return is_hindering(posting, movement->to, false) || debits;
}
