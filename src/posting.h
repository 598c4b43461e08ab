/*
 * posting.h
 *		The only caller of the engine and of the store's write: lock, judge,
 *		compute, write.
 */
#ifndef FIN_POSTING_H
#define FIN_POSTING_H

#include "context.h"
#include "store.h"

/* one transfer as a caller orders it; texts checked by argument.c */
typedef struct FinOrder
{
	const char *from_code;		/* or NULL: from_id */
	const char *to_code;
	int64		from_id;
	int64		to_id;
	Numeric		amount;
	const char *currency;		/* stated, or NULL */
	const char *key;			/* idempotency key, or NULL */
	const char *type;
	int64		expected_from_version;	/* or FIN_NO_VERSION */
	int64		expected_to_version;
	TimestampTz effective_at;
	bool		has_effective_at;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
	bool		strict;			/* a risk reject is an error */
} FinOrder;

/* what became of it */
typedef struct FinOutcome
{
	FinTransferRow row;
	const char *from_code;
	const char *to_code;
	const char *rule;			/* that rejected it, or NULL */
	bool		replayed;		/* the first answer of its key */
} FinOutcome;

/*
 * Executes the orders in turn, all or none; outcomes[i] answers orders[i], in
 * memory of the caller's context.
 *
 * Errors: 22003 and 22023 for bad amounts; LG001 insufficient funds, LG002
 * unknown account, LG003 currency mismatch, LG004 account not active, LG005
 * version conflict, LG006 balance limit, LG007 key reused for another request,
 * LG008 same account, LG101 rejected by risk when strict; 40001 when another
 * transaction changed an account since this one's snapshot.
 *
 * Locks: all accounts of all orders FOR NO KEY UPDATE in ascending order of
 * id, then the keys, until the end of the transaction.
 */
extern void fin_posting_execute(const FinOrder *orders, int n,
								FinOutcome *outcomes);

#endif							/* FIN_POSTING_H */
