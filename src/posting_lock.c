/*
 * posting_lock.c
 *		Which accounts and holds a set of orders is about, locked, and the ids
 *		of its transfers.
 *
 * Owns nothing between calls.
 *
 * Locks: the accounts of all the orders FOR NO KEY UPDATE in ascending order of
 * id.  Holds are read before, to learn which accounts those are, and again by
 * posting.c once the locks are held; only then do they stand.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "account.h"
#include "errors.h"
#include "ident.h"
#include "posting_parts.h"

bool
fin_posting_is_of_hold(const FinOrder *order)
{
	return order->action != FIN_TRANSFER && order->action != FIN_HOLD;
}

/* ids of the holds that orders name, each once, ascending */
static int64 *
hold_ids(const FinPosting *posting, int *nids)
{
	int64	   *ids = palloc0(sizeof(int64) * posting->norders);

	for (int i = 0; i < posting->norders; i++)
	{
		const FinOrder *order = &posting->orders[i];

		if (order->fault == NULL && fin_posting_is_of_hold(order))
			ids[i] = order->hold_id;
	}
	*nids = fin_store_distinct_ids(ids, posting->norders);
	return ids;
}

void
fin_posting_read_holds(FinPosting *posting)
{
	int			nids;
	int64	   *ids = hold_ids(posting, &nids);

	/* room for as many new ones as there are orders */
	if (posting->holds == NULL)
		posting->holds = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(FinHold) *
												(nids + posting->norders));
	posting->nholds_found = nids == 0 ? 0 :
		fin_store_read_holds(posting->context->tenant_id, ids, nids,
							 posting->holds, CurrentMemoryContext);
	posting->nholds = posting->nholds_found;
}

FinHold *
fin_posting_find_hold(const FinPosting *posting, int64 hold_id)
{
	int			low = 0;
	int			high = posting->nholds_found;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (posting->holds[middle].hold_id == hold_id)
			return &posting->holds[middle];
		if (posting->holds[middle].hold_id < hold_id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* the accounts of the orders that name a hold; they never change */
static void
resolve_holds(FinPosting *posting)
{
	fin_posting_read_holds(posting);
	for (int i = 0; i < posting->norders; i++)
	{
		const FinOrder *order = &posting->orders[i];
		FinHold    *hold;

		if (order->fault != NULL || !fin_posting_is_of_hold(order))
			continue;
		hold = fin_posting_find_hold(posting, order->hold_id);
		posting->from_ids[i] = hold == NULL ? 0 : hold->from_account_id;
		posting->to_ids[i] = hold == NULL ? 0 : hold->to_account_id;
	}
}

static void
resolve_accounts(FinPosting *posting)
{
	int			n = posting->norders;
	const char **codes = palloc(sizeof(char *) * n);

	for (int i = 0; i < n; i++)
	{
		codes[i] = posting->orders[i].from_code;
		posting->from_ids[i] = posting->orders[i].from_id;
	}
	fin_store_find_accounts(posting->context->tenant_id, codes, n,
							posting->from_ids);
	for (int i = 0; i < n; i++)
	{
		codes[i] = posting->orders[i].to_code;
		posting->to_ids[i] = posting->orders[i].to_id;
	}
	fin_store_find_accounts(posting->context->tenant_id, codes, n,
							posting->to_ids);
	resolve_holds(posting);
}

/* all accounts of all orders, each once, in ascending order of id */
static void
lock_accounts(FinPosting *posting)
{
	int			n = posting->norders;
	int64	   *ids = palloc(sizeof(int64) * 2 * n);
	int			nids;

	memcpy(ids, posting->from_ids, sizeof(int64) * n);
	memcpy(ids + n, posting->to_ids, sizeof(int64) * n);
	nids = fin_store_distinct_ids(ids, 2 * n);
	/* outcomes point into what they name */
	posting->accounts = MemoryContextAllocHuge(posting->memory,
											   sizeof(FinAccount) * Max(nids, 1));
	posting->naccounts = fin_store_lock_accounts(posting->context->tenant_id,
												 ids, nids, posting->accounts,
												 posting->memory);
}

FinAccount *
fin_posting_find_locked(const FinPosting *posting, int64 id)
{
	int			low = 0;
	int			high = posting->naccounts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (posting->accounts[middle].account_id == id)
			return &posting->accounts[middle];
		if (posting->accounts[middle].account_id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* was the code cache right about this account? */
static bool
is_as_named(const FinPosting *posting, const char *code, int64 *id)
{
	FinAccount *account;

	if (*id == 0)
		return true;			/* there is none: a fault of its order */
	account = fin_posting_find_locked(posting, *id);
	if (account != NULL && (code == NULL || strcmp(account->code, code) == 0))
		return true;
	if (code == NULL)
	{
		*id = 0;
		return true;
	}
	fin_store_forget_account(posting->context->tenant_id, code);
	return false;
}

static bool
all_as_named(FinPosting *posting)
{
	bool		all = true;

	for (int i = 0; i < posting->norders; i++)
	{
		const FinOrder *order = &posting->orders[i];

		if (!is_as_named(posting, order->from_code, &posting->from_ids[i]))
			all = false;
		if (!is_as_named(posting, order->to_code, &posting->to_ids[i]))
			all = false;
	}
	return all;
}

/* one account twice, whether it exists or not? */
bool
fin_posting_names_one_account(const FinOrder *order)
{
	return order->from_code != NULL && order->to_code != NULL &&
		strcmp(order->from_code, order->to_code) == 0;
}

/* a single call that must fail anyway need not wait for the other account */
static void
raise_unknown(const FinPosting *posting)
{
	const FinOrder *order = &posting->orders[0];

	if (posting->norders > 1 || posting->mode != FIN_POSTING_RAISE ||
		order->key != NULL || order->fault != NULL ||
		fin_posting_is_of_hold(order) || fin_posting_names_one_account(order))
		return;
	if (posting->from_ids[0] == 0)
		fin_fault_raise(fin_account_fault_unknown(order->from_code, order->from_id));
	if (posting->to_ids[0] == 0)
		fin_fault_raise(fin_account_fault_unknown(order->to_code, order->to_id));
}

void
fin_posting_find_and_lock(FinPosting *posting)
{
	resolve_accounts(posting);
	raise_unknown(posting);
	lock_accounts(posting);
	if (all_as_named(posting))
		return;
	/* a cached code was of an account whose creation rolled back */
	resolve_accounts(posting);
	lock_accounts(posting);
	if (!all_as_named(posting))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not lock the accounts of the transfer"),
				errdetail("An account appeared or vanished meanwhile."),
				errhint("Try again."));
}

void
fin_posting_draw_ids(FinPosting *posting)
{
	int64		last = 0;

	if (posting->orders[0].has_recorded_at)
	{
		fin_posting_draw_past(posting);
		return;
	}
	for (int i = 0; i < posting->naccounts; i++)
		last = Max(last, posting->accounts[i].last_transfer_id);
	if (posting->meter != NULL)
		last = Max(last, fin_meter_last_id(posting->meter));
	for (int i = 0; i < posting->norders; i++)
	{
		last = fin_ident_next(last);
		posting->ids[i] = last;
	}
}
