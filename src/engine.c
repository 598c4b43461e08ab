/*
 * engine.c
 *		Every rule about money, once; pure (see engine.h).
 *
 * Conservation holds by construction: a movement adds one and the same amount
 * to the debits of one account and the credits of another, posted or pending,
 * and nothing else here touches totals.
 */
#include "postgres.h"

#include "engine.h"

FinAmount
fin_engine_spent(const FinAccount *account, DateADT date)
{
	/* a counter of a later date than today: the clock stepped back; it counts */
	return account->spent_on >= date ? account->spent : 0;
}

/* ------------------------------------------------------------------------
 * limits, and checks: each says whether the movement may pass
 * ------------------------------------------------------------------------ */

/* a sum where leaving the range means: beyond every amount */
static FinAmount
add_clamped(FinAmount a, FinAmount b)
{
	FinAmount	sum;

	if (fin_amount_add(a, b, &sum))
		return sum;
	return a > 0 ? FIN_AMOUNT_MAX : -FIN_AMOUNT_MAX;
}

/* the balance once all that is pending in is posted */
static FinAmount
reach(const FinAccount *account)
{
	return add_clamped(fin_engine_balance(account), account->credits_pending);
}

/* how much may be debited before the floor; no floor: any amount */
static FinAmount
room_to_debit(const FinAccount *from)
{
	return from->has_min_available ?
		add_clamped(fin_engine_available(from), -from->min_available) :
		FIN_AMOUNT_MAX;
}

/* how much may be credited before the ceiling */
static FinAmount
room_to_credit(const FinAccount *to)
{
	return to->has_max_balance ? add_clamped(to->max_balance, -reach(to)) :
		FIN_AMOUNT_MAX;
}

bool
fin_engine_within_limits(const FinAccount *account)
{
	return room_to_debit(account) >= 0 && room_to_credit(account) >= 0;
}

static bool
may_debit(const FinMovement *movement)
{
	switch (movement->from->status)
	{
		case FIN_ACCOUNT_ACTIVE:
		case FIN_ACCOUNT_CREDITS_FROZEN:
			return true;
		case FIN_ACCOUNT_DEBITS_FROZEN:
		case FIN_ACCOUNT_FROZEN:
			return movement->closing == movement->from;
		case FIN_ACCOUNT_CLOSED:
			return false;
	}
	return false;
}

static bool
may_credit(const FinMovement *movement)
{
	switch (movement->to->status)
	{
		case FIN_ACCOUNT_ACTIVE:
		case FIN_ACCOUNT_DEBITS_FROZEN:
			return true;
		case FIN_ACCOUNT_CREDITS_FROZEN:
		case FIN_ACCOUNT_FROZEN:
			return movement->closing == movement->to;
		case FIN_ACCOUNT_CLOSED:
			return false;
	}
	return false;
}

static bool
version_is(const FinAccount *account, int64 expected)
{
	return expected == FIN_NO_VERSION || account->version == expected;
}

/* would the totals, and what is computed of them, stay below 10^38 units? */
static bool
totals_fit(const FinMovement *movement)
{
	const FinAccount *from = movement->from;
	const FinAccount *to = movement->to;
	FinAmount	amount = movement->amount;
	FinAmount	sum;

	return fin_amount_add(fin_engine_available(from), -amount, &sum) &&
		fin_amount_add(from->debits_posted, from->debits_pending, &sum) &&
		fin_amount_add(sum, amount, &sum) &&
		fin_amount_add(to->credits_posted, to->credits_pending, &sum) &&
		fin_amount_add(sum, amount, &sum) &&
		fin_amount_add(reach(to), amount, &sum) &&
		fin_amount_add(fin_engine_spent(from, movement->business_date),
					   amount, &sum);
}

static bool
is_of_hold(const FinMovement *movement)
{
	return movement->action != FIN_TRANSFER && movement->action != FIN_HOLD;
}

/* ends with movement->amount and movement->released settled */
static FinFinding
check_hold(FinMovement *movement)
{
	const FinHold *hold = movement->hold;
	FinAmount	remaining = fin_engine_remaining(hold);

	if (hold->status != FIN_HOLD_OPEN)
		return FIN_HOLD_NOT_OPEN;
	/* what is over can still be given back, and is then expired */
	if (movement->action == FIN_CAPTURE &&
		fin_engine_time_over(hold, movement->now))
		return FIN_HOLD_TIME_OVER;
	if (movement->everything)
		movement->amount = remaining;
	if (movement->amount > remaining)
		return FIN_EXCEEDS_HOLD;
	if (movement->action == FIN_CAPTURE && movement->final)
		movement->released = remaining - movement->amount;
	return FIN_OK;
}

/* the amount of a movement that takes what it gets */
static FinFinding
settle_amount(FinMovement *movement)
{
	const FinAccount *from = movement->from;
	FinAmount	amount = movement->amount;

	if (movement->everything)
		amount = from->has_min_available ? FIN_AMOUNT_MAX :
			fin_engine_available(from);
	amount = Min(amount, room_to_debit(from));
	if (amount <= 0)
		return FIN_INSUFFICIENT_FUNDS;
	movement->amount = Min(amount, room_to_credit(movement->to));
	return movement->amount <= 0 ? FIN_BALANCE_LIMIT : FIN_OK;
}

static FinFinding
check_funds(FinMovement *movement)
{
	if (movement->up_to || movement->everything)
	{
		FinFinding	finding = settle_amount(movement);

		if (finding != FIN_OK)
			return finding;
	}
	if (!totals_fit(movement))
		return FIN_TOTAL_OVERFLOW;
	if (movement->amount > room_to_debit(movement->from))
		return FIN_INSUFFICIENT_FUNDS;
	if (movement->amount > room_to_credit(movement->to))
		return FIN_BALANCE_LIMIT;
	return FIN_OK;
}

FinFinding
fin_engine_check(FinMovement *movement)
{
	const FinAccount *from = movement->from;
	const FinAccount *to = movement->to;
	bool		gives_back = movement->action == FIN_RELEASE ||
		movement->action == FIN_EXPIRE;
	FinFinding	finding;

	movement->released = 0;
	if (from == to)
		return FIN_SAME_ACCOUNT;
	if (strcmp(from->currency, to->currency) != 0)
		return FIN_CURRENCY_DIFFERS;
	if (movement->currency != NULL &&
		strcmp(movement->currency, from->currency) != 0)
		return FIN_CURRENCY_NOT_STATED;
	if (is_of_hold(movement) && (finding = check_hold(movement)) != FIN_OK)
		return finding;
	if (!gives_back && !may_debit(movement))
		return FIN_FROM_NOT_ACTIVE;
	if (!gives_back && !may_credit(movement))
		return FIN_TO_NOT_ACTIVE;
	if (!version_is(from, movement->expected_from_version))
		return FIN_FROM_VERSION_DIFFERS;
	if (!version_is(to, movement->expected_to_version))
		return FIN_TO_VERSION_DIFFERS;
	/* what is held was checked when it was reserved, and limits count it */
	return is_of_hold(movement) ? FIN_OK : check_funds(movement);
}

/* ------------------------------------------------------------------------
 * changes
 * ------------------------------------------------------------------------ */

static void
side_before(const FinAccount *account, FinSide *side)
{
	side->version = account->version;
	side->balance_before = fin_engine_balance(account);
	side->balance_after = side->balance_before;
	side->held_after = account->debits_pending;
}

static void
side_after(FinAccount *account, FinSide *side)
{
	account->version++;
	account->changed = true;
	side->version = account->version;
	side->balance_after = fin_engine_balance(account);
	side->held_after = account->debits_pending;
}

static void
count_spent(FinAccount *account, DateADT date, FinAmount amount)
{
	account->spent = fin_engine_spent(account, date) + amount;
	if (account->spent_on < date)
		account->spent_on = date;
}

/* what is given back on the day it was held may be spent again that day */
static void
uncount_spent(FinAccount *account, DateADT held_on, FinAmount amount)
{
	if (account->spent_on == held_on)
		account->spent = Max(account->spent - amount, 0);
}

static void
post(const FinMovement *movement)
{
	movement->from->debits_posted += movement->amount;
	movement->to->credits_posted += movement->amount;
}

/* pending on both sides, by an amount that may be negative */
static void
reserve(const FinMovement *movement, FinAmount amount)
{
	movement->from->debits_pending += amount;
	movement->to->credits_pending += amount;
}

/* takes amounts out of the hold; when nothing remains it ends as 'status' */
static void
use_hold(const FinMovement *movement, FinAmount captured, FinAmount released,
		 FinHoldStatus status)
{
	FinHold    *hold = movement->hold;

	hold->captured += captured;
	hold->released += released;
	hold->changed = true;
	if (fin_engine_remaining(hold) == 0)
		hold->status = status;
	reserve(movement, -(captured + released));
	uncount_spent(movement->from, hold->held_on, released);
}

void
fin_engine_leave(const FinMovement *movement, FinMoved *moved)
{
	side_before(movement->from, &moved->from);
	side_before(movement->to, &moved->to);
}

void
fin_engine_post(const FinMovement *movement, FinMoved *moved)
{
	fin_engine_leave(movement, moved);
	switch (movement->action)
	{
		case FIN_TRANSFER:
			count_spent(movement->from, movement->business_date,
						movement->amount);
			post(movement);
			break;
		case FIN_HOLD:
			count_spent(movement->from, movement->business_date,
						movement->amount);
			reserve(movement, movement->amount);
			break;
		case FIN_CAPTURE:
			use_hold(movement, movement->amount, movement->released,
					 FIN_HOLD_CAPTURED);
			post(movement);
			break;
		case FIN_RELEASE:
			/* a hold captured in part and released in part was captured */
			use_hold(movement, 0, movement->amount,
					 movement->hold->captured > 0 ? FIN_HOLD_CAPTURED :
					 FIN_HOLD_RELEASED);
			break;
		case FIN_EXPIRE:
			use_hold(movement, 0, movement->amount, FIN_HOLD_EXPIRED);
			break;
		case FIN_UNPARK:
			/* what is reserved stays so */
			movement->hold->parking = FIN_NOT_PARKED;
			movement->hold->was_unparked = true;
			movement->hold->changed = true;
			break;
	}
	side_after(movement->from, &moved->from);
	side_after(movement->to, &moved->to);
}
