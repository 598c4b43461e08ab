/*
 * posting_fault.c
 *		What is wrong with one order, in words.
 *
 * Owns nothing; faults are allocated in the current context.
 */
#include "postgres.h"

#include "errors.h"
#include "posting_parts.h"

FinFault *
fin_posting_fault_unknown_hold(int64 hold_id)
{
	return fin_fault(ERRCODE_FIN_UNKNOWN_TRANSFER,
					 "hold " INT64_FORMAT " does not exist", hold_id);
}

static FinFault *
fault_not_active(const FinAccount *account)
{
	FinFault   *fault;

	if (account->status == FIN_ACCOUNT_CLOSED)
		return fin_fault(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE,
						 "account \"%s\" is closed", account->code);
	fault = fin_fault(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE,
					  account->status == FIN_ACCOUNT_FROZEN ?
					  "account \"%s\" is frozen" :
					  account->status == FIN_ACCOUNT_DEBITS_FROZEN ?
					  "account \"%s\" is frozen for debits" :
					  "account \"%s\" is frozen for credits", account->code);
	return fin_fault_hint(fault,
						  "Set it active again with finance.set_account_status().");
}

static FinFault *
fault_currency(const FinMovement *movement, FinFinding finding)
{
	if (finding == FIN_CURRENCY_DIFFERS)
		return fin_fault_detail(fin_fault(ERRCODE_FIN_CURRENCY_MISMATCH,
										  "accounts \"%s\" and \"%s\" have different currencies",
										  movement->from->code,
										  movement->to->code),
								"\"%s\" holds %s, \"%s\" holds %s.",
								movement->from->code, movement->from->currency,
								movement->to->code, movement->to->currency);
	return fin_fault_detail(fin_fault(ERRCODE_FIN_CURRENCY_MISMATCH,
									  "the transfer's currency is not that of its accounts"),
							"The request says %s, the accounts hold %s.",
							movement->currency, movement->from->currency);
}

static FinFault *
fault_version(const FinAccount *account, int64 expected)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_VERSION_CONFLICT,
								  "version conflict on account \"%s\"",
								  account->code);

	fin_fault_detail(fault, "Its version is " INT64_FORMAT
					 ", expected was " INT64_FORMAT ".",
					 account->version, expected);
	return fin_fault_hint(fault,
						  "Read the account and decide again with its current version.");
}

static FinFault *
fault_funds(const FinMovement *movement)
{
	const FinAccount *from = movement->from;
	FinFault   *fault = fin_fault(ERRCODE_FIN_INSUFFICIENT_FUNDS,
								  "insufficient funds in account \"%s\"",
								  from->code);
	char	   *available = fin_amount_text(fin_engine_available(from),
											from->scale);
	char	   *floor = fin_amount_text(from->min_available, from->scale);

	if (movement->everything && !from->has_min_available)
	{
		fin_fault_detail(fault, "Available is %s, and there is no floor to go down to.",
						 available);
		return fin_fault_hint(fault,
							  "State an amount: the most that is to be moved.");
	}
	if (movement->everything)
		return fin_fault_detail(fault, "Available is %s, and %s must remain.",
								available, floor);
	return fin_fault_detail(fault,
							"Available is %s, required is %s, and %s must remain.",
							available,
							fin_amount_text(movement->amount, from->scale),
							floor);
}

static FinFault *
fault_balance_limit(const FinMovement *movement)
{
	const FinAccount *to = movement->to;
	FinFault   *fault = fin_fault(ERRCODE_FIN_BALANCE_LIMIT,
								  "balance limit of account \"%s\" exceeded",
								  to->code);
	char	   *balance = fin_amount_text(fin_engine_balance(to), to->scale);
	char	   *limit = fin_amount_text(to->max_balance, to->scale);
	char	   *amount = movement->everything ? "all there is" :
	fin_amount_text(movement->amount, to->scale);

	if (to->credits_pending == 0)
		return fin_fault_detail(fault,
								"Its balance is %s, the amount %s, the limit %s.",
								balance, amount, limit);
	return fin_fault_detail(fault,
							"Its balance is %s, held for it are %s, the amount is %s, the limit %s.",
							balance,
							fin_amount_text(to->credits_pending, to->scale),
							amount, limit);
}

static FinFault *
fault_hold(const FinMovement *movement, FinFinding finding)
{
	const FinHold *hold = movement->hold;
	FinFault   *fault;

	if (finding == FIN_EXCEEDS_HOLD)
	{
		fault = fin_fault(ERRCODE_FIN_EXCEEDS_REMAINDER,
						  "hold " INT64_FORMAT " has less left than that",
						  hold->hold_id);
		return fin_fault_detail(fault, "Left is %s, required is %s.",
								fin_amount_text(fin_engine_remaining(hold),
												hold->scale),
								fin_amount_text(movement->amount, hold->scale));
	}
	fault = fin_fault(ERRCODE_FIN_HOLD_NOT_OPEN,
					  "hold " INT64_FORMAT " is %s", hold->hold_id,
					  finding == FIN_HOLD_TIME_OVER ? "expired" :
					  fin_store_hold_status(hold->status));
	return fin_fault_detail(fault, "Of %s held, %s were captured.",
							fin_amount_text(hold->amount, hold->scale),
							fin_amount_text(hold->captured, hold->scale));
}

static FinFault *
fault_overflow(const FinMovement *movement)
{
	return fin_fault_detail(fin_fault(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
									  "totals of account \"%s\" or \"%s\" would overflow",
									  movement->from->code, movement->to->code),
							"A total has at most %d digits.",
							FIN_AMOUNT_MAX_DIGITS);
}

FinFault *
fin_posting_fault_same(const char *code)
{
	return fin_fault_detail(fin_fault(ERRCODE_FIN_SAME_ACCOUNT,
									  "a transfer needs two different accounts"),
							"Both are \"%s\".", code);
}

FinFault *
fin_posting_fault_finding(const FinMovement *movement, FinFinding finding)
{
	switch (finding)
	{
		case FIN_OK:
			break;
		case FIN_SAME_ACCOUNT:
			return fin_posting_fault_same(movement->from->code);
		case FIN_CURRENCY_DIFFERS:
		case FIN_CURRENCY_NOT_STATED:
			return fault_currency(movement, finding);
		case FIN_HOLD_NOT_OPEN:
		case FIN_HOLD_TIME_OVER:
		case FIN_EXCEEDS_HOLD:
			return fault_hold(movement, finding);
		case FIN_FROM_NOT_ACTIVE:
			return fault_not_active(movement->from);
		case FIN_TO_NOT_ACTIVE:
			return fault_not_active(movement->to);
		case FIN_FROM_VERSION_DIFFERS:
			return fault_version(movement->from,
								 movement->expected_from_version);
		case FIN_TO_VERSION_DIFFERS:
			return fault_version(movement->to, movement->expected_to_version);
		case FIN_TOTAL_OVERFLOW:
			return fault_overflow(movement);
		case FIN_INSUFFICIENT_FUNDS:
			return fault_funds(movement);
		case FIN_BALANCE_LIMIT:
			return fault_balance_limit(movement);
	}
	elog(ERROR, "unknown finding %d", (int) finding);
}

/* the rule that decided, which scores may do without */
static FinFault *
with_deciding_rule(FinFault *fault, const FinVerdict *verdict)
{
	const FinRiskHit *hit = verdict->hits;

	if (verdict->rule == NULL)
		return fin_fault_detail(fault,
								"The scores of %d rules add up to %d.",
								verdict->nhits, verdict->score);
	while (strcmp(hit->rule, verdict->rule) != 0)
		hit++;
	if (hit->threshold == NULL)
		return fin_fault_detail(fault, "The rule is a %s; observed was %s.",
								hit->kind, hit->observed);
	return fin_fault_detail(fault,
							"The rule is a %s; observed was %s, the threshold is %s.",
							hit->kind, hit->observed, hit->threshold);
}

/* 'risk rule "x"', or what else decided */
static const char *
decider(const FinVerdict *verdict)
{
	return verdict->rule == NULL ? "risk scores" :
		psprintf("risk rule \"%s\"", verdict->rule);
}

/* also of what would be parked: a strict caller wants money moved, or an error */
FinFault *
fin_posting_fault_rejected(const FinVerdict *verdict)
{
	FinFault   *fault;

	if (verdict->outcome == FIN_RISK_REJECT)
		fault = fin_fault(ERRCODE_FIN_RISK_REJECTED,
						  "transfer rejected by %s", decider(verdict));
	else
		fault = fin_fault(ERRCODE_FIN_RISK_REJECTED,
						  "transfer needs a %s by %s",
						  fin_risk_outcome_name(verdict->outcome),
						  decider(verdict));
	return with_deciding_rule(fault, verdict);
}

FinFault *
fin_posting_fault_not_parked(const FinVerdict *verdict)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_NEEDS_REVIEW,
								  "transfer needs a %s by %s, which one of a chain cannot have",
								  fin_risk_outcome_name(verdict->outcome),
								  decider(verdict));

	return fin_fault_hint(with_deciding_rule(fault, verdict),
						  "Request it by itself.");
}

FinFault *
fin_posting_fault_parked(const FinHold *hold)
{
	bool		is_challenge = hold->parking == FIN_PARKED_FOR_CHALLENGE;
	FinFault   *fault;

	if (hold->parking == FIN_NOT_PARKED)
		return fin_fault(ERRCODE_FIN_HOLD_NOT_OPEN,
						 "hold " INT64_FORMAT " is not parked", hold->hold_id);
	fault = fin_fault_detail(fin_fault(ERRCODE_FIN_PARKED,
									   "transfer " INT64_FORMAT " is parked",
									   hold->hold_id),
							 is_challenge ?
							 "It waits to be confirmed by its token." :
							 "It waits for a review.");
	return fin_fault_hint(fault, is_challenge ?
						  "finance.confirm_challenge() carries it out." :
						  "finance.review_transfer() decides about it.");
}
