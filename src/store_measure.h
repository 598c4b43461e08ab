/*
 * store_measure.h
 *		The door to finance.risk_total, and to what the history says instead.
 *
 * All functions work inside fin_query_begin/end.
 */
#ifndef FIN_STORE_MEASURE_H
#define FIN_STORE_MEASURE_H

#include "measure.h"
#include "store.h"

/* of one tenant */
typedef struct FinTotalKey
{
	int64		account_id;		/* or 0 */
	int64		other_id;		/* or 0 */
	const char *class;			/* or '' */
} FinTotalKey;

/* a row of finance.risk_total */
typedef struct FinTotalRow
{
	FinTotalKey key;
	bool		must_lock;		/* no account's lock covers it */
	bool		found;
	ItemPointerData tid;		/* the store's: where it is */
	bytea	   *state;			/* as it is stored; NULL: no such row */
	bytea	   *new_state;		/* to write; NULL: nothing changed */
} FinTotalRow;

extern int	fin_store_compare_totals(const FinTotalKey *a,
									 const FinTotalKey *b);

/*
 * Reads rows, ascending and distinct by key.  Those that must be locked are
 * (FOR NO KEY UPDATE), and made where there are none; the others are guarded by
 * the accounts' locks.  reading: nothing is locked or made.  States are
 * allocated in the current context.  Error: 40001.
 */
extern void fin_store_read_totals(int32 tenant_id, FinTotalRow *const *rows,
								  int n, bool reading);

/*
 * Writes those that have a new state, ascending by key.  Error: 27000 a trigger
 * changed one since it was read.
 */
extern void fin_store_write_totals(int32 tenant_id, FinTotalRow *const *rows,
								   int n);

/*
 * Of these holds, which are open: locked[i] is false where another transaction
 * has locked the total of its type.  Waits for nobody.
 */
extern void fin_store_try_lock_totals(int32 tenant_id, const int64 *hold_ids,
									  int n, bool *locked);

/* a transfer or hold of the past */
typedef struct FinPast
{
	int64		id;
	FinAmount	amount;
	FinAmount	given_back;		/* of a hold */
	bool		ended_unused;	/* a hold of which nothing was captured */
} FinPast;

#define FIN_PAST_MAX	1000	/* read at a time */

/*
 * What passed for the key from 'after' on, in the order of ids, with the newest
 * snapshot: fills rows[FIN_PAST_MAX] and returns how many.  Only what is
 * attached to finance.transfer.
 */
extern int	fin_store_read_past(int32 tenant_id, FinScope scope,
								const FinTotalKey *key, const char *type,
								const char *currency, const char *device,
								int scale, int64 after, FinPast *rows);

/*
 * The last device, or country, of what the account paid; NULL: none.  In the
 * current context.
 */
extern char *fin_store_read_last(int32 tenant_id, int64 account_id,
								 FinPeriod period, int64 *id);

#endif							/* FIN_STORE_MEASURE_H */
