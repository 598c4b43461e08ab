/*
 * posting.h
 *		The only caller of the engine and of the store's write: lock, judge,
 *		compute, write.
 *
 * Whatever moves or reserves money is a list of orders given to it: a transfer
 * is a list of one; a journal, a batch, a group of holds are lists of many.
 */
#ifndef FIN_POSTING_H
#define FIN_POSTING_H

#include "context.h"
#include "fault.h"
#include "store.h"

#define FIN_ORDERS_MAX	10000	/* of one call */

/* how the review of a parked order ends */
typedef enum FinReviewEnd
{
	FIN_REVIEW_APPROVED,		/* by another person */
	FIN_REVIEW_REJECTED,
	FIN_REVIEW_CONFIRMED,		/* by the token */
	FIN_REVIEW_FAILED,			/* too many wrong tokens */
	FIN_REVIEW_TIMED_OUT		/* settled as was laid down for that */
} FinReviewEnd;

typedef struct FinSettlement
{
	FinReviewEnd end;
	bool		of_challenge;	/* not of a review */
	bool		gives_back;		/* though it was to be carried out */
	const char *comment;		/* of the reviewer, or NULL */
} FinSettlement;

/* one request; texts checked by argument.c */
typedef struct FinOrder
{
	FinAction	action;
	const char *from_code;		/* or NULL: from_id */
	const char *to_code;
	int64		from_id;
	int64		to_id;
	Numeric		amount;			/* NULL: up to everything, or all that is left */
	bool		up_to;			/* as much of it as possible */
	bool		linked;			/* stands or falls with the next order */
	bool		in_journal;		/* of one journal with its neighbours */
	bool		strict;			/* a risk reject is an error */
	bool		final;			/* capture: give back the rest */
	bool		has_effective_at;
	bool		has_recorded_at;	/* history, imported */
	const char *currency;		/* stated, or NULL */
	const char *key;			/* idempotency key, or NULL */
	const char *type;			/* NULL: that of its hold */
	int64		expected_from_version;	/* or FIN_NO_VERSION */
	int64		expected_to_version;
	TimestampTz effective_at;
	TimestampTz recorded_at;
	int64		hold_id;		/* capture, release: of which hold */
	int64		reverses_id;	/* or 0 */
	int64		closing_id;		/* account this empties, frozen or not; or 0 */
	const FinSettlement *settles;	/* its hold is parked; NULL: must not be */
	TimestampTz expires_at;		/* hold: 0: never */
	const Interval *expires_in; /* that is so long from now; or NULL */
	const char *hold_group;		/* or NULL */
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */

	/*
	 * The request as an object, for its key: what the transfer's row does not
	 * tell, in the order in which differences are looked for.  NULL: nothing.
	 */
	Jsonb	   *request;
	const FinFault *fault;		/* found wrong before it came here, or NULL */
} FinOrder;

/* what became of it */
typedef struct FinOutcome
{
	FinTransferRow row;			/* id 0: it failed */
	const FinFault *fault;		/* why, or NULL */
	const char *from_code;
	const char *to_code;
	const char *rule;			/* that rejected or parked it, or NULL */
	const char *token;			/* of a challenge, told this once; or NULL */
	int64		alert_id;		/* of the alert it raised, or 0 */
	bool		settles;		/* ends what was parked */
	bool		replayed;		/* the first answer of its key */
	bool		has_remaining;
	FinAmount	remaining;		/* of its hold, afterwards */
} FinOutcome;

typedef enum FinPostingMode
{
	FIN_POSTING_RAISE,			/* the first fault is an error */
	FIN_POSTING_COLLECT			/* outcomes tell the faults */
} FinPostingMode;

/*
 * Executes the orders in turn; outcomes[i] answers orders[i], in memory of the
 * caller's context.  An order that fails leaves nothing behind, and fails the
 * others of its chain.  One that risk rejects fails its chain too, but its own
 * row stays as evidence.  One that risk would have reviewed or confirmed is
 * parked: its money is held until that is settled; a chain cannot be parked.
 *
 * Faults: 22003 and 22023 for bad amounts; LG001 insufficient funds, LG002
 * unknown account, LG003 currency mismatch, LG004 account not active, LG005
 * version conflict, LG006 balance limit, LG007 key reused for another request,
 * LG008 same account, LG012 unknown hold, LG013 hold not open, LG014 another
 * of the chain failed, LG015 chain open at the end, LG016 more than is left,
 * LG017 type not allowed, LG019 import out of order, LG101 rejected (or to be
 * parked) by risk when strict, LG106 the hold is parked, LG107 to be parked, but
 * in a chain.  40001 is always raised.
 *
 * Locks: all accounts of all orders FOR NO KEY UPDATE in ascending order of
 * id, then the keys in ascending order, until the end of the transaction.
 */
extern void fin_posting_execute(const FinOrder *orders, int n,
								FinOutcome *outcomes, FinPostingMode mode);

/* what became of a hold that was to expire */
typedef enum FinExpiry
{
	FIN_EXPIRY_DONE,
	FIN_EXPIRY_NOT_OPEN,		/* somebody else was faster */
	FIN_EXPIRY_BUSY,			/* another transaction has locked its account,
								 * or the total of its type */
	FIN_EXPIRY_REFUSED			/* to be carried out, but an account is frozen */
} FinExpiry;

#define FIN_EXPIRY_BATCH	100 /* holds moderate to expire at once */

/*
 * Expires holds of the session's tenant, which are over, or settles what is
 * parked as was laid down for that, and returns how many; results[i] tells of
 * holds[i].
 *
 * Locks: the accounts nobody else has locked, without ever waiting for one.
 */
extern int	fin_posting_expire(const FinDueHold *holds, int n,
							   FinExpiry *results);

/* what is parked, as its row of finance.risk_review says */
typedef struct FinParked
{
	int64		transfer_id;
	FinParking	parking;
	bool		is_open;
	const char *status;
	const char *requested_by;
	const char *requested_session_user;
	const char *reviewer;		/* or NULL */
	TimestampTz expires_at;
	bool		default_approve;
	bool		was_hold;		/* becomes an ordinary hold */
	Interval   *hold_expires_in;	/* which lasts so long; NULL: for ever */
	int			wrong_tokens;
} FinParked;

#define FIN_TOKEN_LENGTH		32	/* hexadecimal digits */
#define FIN_WRONG_TOKENS_MAX	5	/* the last of them rejects */
#define FIN_TOKENS_MAX			5	/* made anew for one challenge */

/*
 * Locks the accounts of what is parked, and its row; false when there is none.
 * Texts are allocated in 'memory'.  Call inside fin_query_begin/end.
 */
extern bool fin_posting_lock_parked(int32 tenant_id, int64 transfer_id,
									FinParked *parked, MemoryContext memory);

/* is it this token?  the parked is a challenge, and locked */
extern bool fin_posting_is_token(int32 tenant_id, const FinParked *parked,
								 const char *token);

/* counts one that is not */
extern void fin_posting_count_wrong_token(int32 tenant_id,
										  FinParked *parked);

/* another token instead; NULL: there were too many */
extern char *fin_posting_renew_token(int32 tenant_id, const FinParked *parked);

/*
 * Carries out what is parked, or gives it back, as 'end' says; it is locked
 * and open.  Raises faults.  Call outside of fin_query_begin/end, as
 * fin_posting_execute().
 */
extern void fin_posting_settle(const FinParked *parked,
							   const FinSettlement *settlement,
							   FinOutcome *outcome);

#endif							/* FIN_POSTING_H */
