/*
 * engine.h
 *		Every rule about money, once; pure.
 *
 * Accounts in, requests in; findings and new totals out.  No SQL, no clock, no
 * globals, no memory: a test can call it a million times.
 */
#ifndef FIN_ENGINE_H
#define FIN_ENGINE_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/date.h"

#include "amount.h"

#define FIN_CURRENCY_LENGTH_MAX 16
#define FIN_NO_VERSION			(-1)	/* no version expected */

typedef enum FinAccountStatus
{
	FIN_ACCOUNT_ACTIVE,
	FIN_ACCOUNT_DEBITS_FROZEN,	/* no new debits */
	FIN_ACCOUNT_CREDITS_FROZEN, /* no new credits */
	FIN_ACCOUNT_FROZEN,			/* neither */
	FIN_ACCOUNT_CLOSED			/* neither, for ever */
} FinAccountStatus;

typedef enum FinHoldStatus
{
	FIN_HOLD_OPEN,
	FIN_HOLD_CAPTURED,			/* used up, or captured finally */
	FIN_HOLD_RELEASED,
	FIN_HOLD_EXPIRED
} FinHoldStatus;

/* what a movement does */
typedef enum FinAction
{
	FIN_TRANSFER,				/* post an amount */
	FIN_HOLD,					/* reserve it on both sides */
	FIN_CAPTURE,				/* post what is held */
	FIN_RELEASE,				/* give back what is held */
	FIN_EXPIRE,					/* the same, because its time is over */
	FIN_UNPARK					/* a parked hold becomes an ordinary one */
} FinAction;

/* what a hold waits for before it is one that can be captured or released */
typedef enum FinParking
{
	FIN_NOT_PARKED,
	FIN_PARKED_FOR_REVIEW,		/* another person */
	FIN_PARKED_FOR_CHALLENGE	/* the token its caller was given */
} FinParking;

/* an account as locked; the engine changes totals, version and counters */
typedef struct FinAccount
{
	int64		account_id;
	int32		scale;			/* decimals of its currency */
	FinAccountStatus status;
	int64		version;		/* changes so far */
	int64		last_transfer_id;
	int64		last_debit_id;	/* it paid or held last, but for what is parked; 0: none */
	FinAmount	debits_posted;
	FinAmount	credits_posted;
	FinAmount	debits_pending;
	FinAmount	credits_pending;
	bool		has_min_available;
	bool		has_max_balance;
	FinAmount	min_available;	/* floor of available */
	FinAmount	max_balance;	/* ceiling of balance and credits pending */
	DateADT		spent_on;		/* business date of spent */
	FinAmount	spent;			/* debited on that date */
	bool		changed;		/* since it was locked */
	ItemPointerData tid;		/* the store's: where the locked row is, */
	int64		stored_version; /* and the version it has there */
	char		currency[FIN_CURRENCY_LENGTH_MAX + 1];
	const char *code;
	const char *type;
	const char *level;			/* of its customer; NULL: none */
	TimestampTz created_at;
} FinAccount;

/* money reserved; amount = captured + released + what remains */
typedef struct FinHold
{
	int64		hold_id;
	int64		from_account_id;
	int64		to_account_id;
	int32		scale;			/* of its accounts' currency */
	FinHoldStatus status;
	FinParking	parking;		/* stays when it ends */
	bool		expires;		/* of one that is parked: is settled then */
	TimestampTz expires_at;
	DateADT		held_on;		/* business date it counts for */
	FinAmount	amount;
	FinAmount	captured;
	FinAmount	released;
	bool		changed;		/* since it was read */
	bool		is_new;			/* not stored yet */
	bool		was_unparked;	/* since it was read */
	ItemPointerData tid;		/* the store's: where its row is, */
	FinAmount	stored_captured;	/* and what that has */
	FinAmount	stored_released;
	const char *type;			/* of its transfer */
	const char *hold_group;		/* or NULL */
} FinHold;

/* one movement asked for */
typedef struct FinMovement
{
	FinAction	action;
	FinAccount *from;
	FinAccount *to;
	FinHold    *hold;			/* of a capture, release or expiry */
	FinAmount	amount;			/* above zero, in the accounts' scale */
	bool		everything;		/* no amount: all there is, or is left */
	bool		up_to;			/* amount is the most */
	bool		final;			/* capture: give back the rest */
	FinAmount	released;		/* out: that rest */
	const FinAccount *closing;	/* being emptied: may be frozen; or NULL */
	const char *currency;		/* as stated by the caller, or NULL */
	int64		expected_from_version;	/* or FIN_NO_VERSION */
	int64		expected_to_version;
	DateADT		business_date;	/* of the tenant */
	TimestampTz now;
} FinMovement;

typedef enum FinFinding
{
	FIN_OK,
	FIN_SAME_ACCOUNT,
	FIN_CURRENCY_DIFFERS,		/* between the accounts */
	FIN_CURRENCY_NOT_STATED,	/* the stated one is not the accounts' */
	FIN_HOLD_NOT_OPEN,
	FIN_HOLD_TIME_OVER,
	FIN_EXCEEDS_HOLD,
	FIN_FROM_NOT_ACTIVE,
	FIN_TO_NOT_ACTIVE,
	FIN_FROM_VERSION_DIFFERS,
	FIN_TO_VERSION_DIFFERS,
	FIN_TOTAL_OVERFLOW,
	FIN_INSUFFICIENT_FUNDS,
	FIN_BALANCE_LIMIT
} FinFinding;

/* what a posted movement did; kept for its row and the answer */
typedef struct FinSide
{
	int64		version;
	FinAmount	balance_before;
	FinAmount	balance_after;
	FinAmount	held_after;
} FinSide;

typedef struct FinMoved
{
	FinSide		from;
	FinSide		to;
} FinMoved;

static inline FinAmount
fin_engine_balance(const FinAccount *account)
{
	return account->credits_posted - account->debits_posted;
}

static inline FinAmount
fin_engine_available(const FinAccount *account)
{
	return fin_engine_balance(account) - account->debits_pending;
}

/* debited or held on the business date so far */
extern FinAmount fin_engine_spent(const FinAccount *account, DateADT date);

static inline FinAmount
fin_engine_remaining(const FinHold *hold)
{
	return hold->amount - hold->captured - hold->released;
}

/* one that is parked does not just expire: its review is settled */
static inline bool
fin_engine_time_over(const FinHold *hold, TimestampTz now)
{
	return hold->parking == FIN_NOT_PARKED && hold->expires &&
		hold->expires_at <= now;
}

/*
 * May it be done?  Changes no account and no hold; settles movement->amount,
 * where the caller left it open, and movement->released.
 */
extern FinFinding fin_engine_check(FinMovement *movement);

/* do a movement for which fin_engine_check() said FIN_OK */
extern void fin_engine_post(const FinMovement *movement, FinMoved *moved);

/* both sides as they stand, for a movement that is not done */
extern void fin_engine_leave(const FinMovement *movement, FinMoved *moved);

/* do the account's totals respect its limits? */
extern bool fin_engine_within_limits(const FinAccount *account);

#endif							/* FIN_ENGINE_H */
