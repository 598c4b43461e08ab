/*
 * engine.c
 *		Every rule about money, once; pure (see engine.h).
 *
 * Conservation holds by construction: a posted movement adds one and the same
 * amount to the debits of one account and the credits of another, and nothing
 * else here touches totals.
 */
#include "postgres.h"

#include "engine.h"

FinAmount
fin_engine_spent(const FinAccount *account, DateADT date)
{
	/* a counter of a later date than today: the clock stepped back; it counts */
	return account->spent_on >= date ? account->spent : 0;
}

bool
fin_engine_within_limits(const FinAccount *account)
{
	FinAmount	reach;

	if (account->has_min_available &&
		fin_engine_available(account) < account->min_available)
		return false;
	if (!account->has_max_balance)
		return true;
	return fin_amount_add(fin_engine_balance(account),
						  account->credits_pending, &reach) &&
		reach <= account->max_balance;
}

/* would the totals, and what is computed of them, stay below 10^38 units? */
static bool
totals_fit(const FinMovement *movement)
{
	FinAmount	sum;

	return fin_amount_add(fin_engine_available(movement->from),
						  -movement->amount, &sum) &&
		fin_amount_add(movement->from->debits_posted, movement->amount, &sum) &&
		fin_amount_add(movement->to->credits_posted, movement->amount, &sum) &&
		fin_amount_add(fin_engine_spent(movement->from, movement->business_date),
					   movement->amount, &sum);
}

static bool
from_has_enough(const FinMovement *movement)
{
	const FinAccount *from = movement->from;

	return !from->has_min_available ||
		fin_engine_available(from) - movement->amount >= from->min_available;
}

static bool
to_has_room(const FinMovement *movement)
{
	const FinAccount *to = movement->to;
	FinAmount	reach;

	if (!to->has_max_balance)
		return true;
	return fin_amount_add(fin_engine_balance(to), to->credits_pending, &reach) &&
		fin_amount_add(reach, movement->amount, &reach) &&
		reach <= to->max_balance;
}

static bool
version_is(const FinAccount *account, int64 expected)
{
	return expected == FIN_NO_VERSION || account->version == expected;
}

FinFinding
fin_engine_check(const FinMovement *movement)
{
	const FinAccount *from = movement->from;
	const FinAccount *to = movement->to;

	if (from == to)
		return FIN_SAME_ACCOUNT;
	if (from->status != FIN_ACCOUNT_ACTIVE)
		return FIN_FROM_NOT_ACTIVE;
	if (to->status != FIN_ACCOUNT_ACTIVE)
		return FIN_TO_NOT_ACTIVE;
	if (strcmp(from->currency, to->currency) != 0)
		return FIN_CURRENCY_DIFFERS;
	if (movement->currency != NULL &&
		strcmp(movement->currency, from->currency) != 0)
		return FIN_CURRENCY_NOT_STATED;
	if (!version_is(from, movement->expected_from_version))
		return FIN_FROM_VERSION_DIFFERS;
	if (!version_is(to, movement->expected_to_version))
		return FIN_TO_VERSION_DIFFERS;
	if (!totals_fit(movement))
		return FIN_TOTAL_OVERFLOW;
	if (!from_has_enough(movement))
		return FIN_INSUFFICIENT_FUNDS;
	if (!to_has_room(movement))
		return FIN_BALANCE_LIMIT;
	return FIN_OK;
}

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
}

static void
count_spent(FinAccount *account, DateADT date, FinAmount amount)
{
	account->spent = fin_engine_spent(account, date) + amount;
	if (account->spent_on < date)
		account->spent_on = date;
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
	count_spent(movement->from, movement->business_date, movement->amount);
	movement->from->debits_posted += movement->amount;
	movement->to->credits_posted += movement->amount;
	side_after(movement->from, &moved->from);
	side_after(movement->to, &moved->to);
}
