/*
 * risk_sieve.c
 *		Which rules need not be asked about a transfer.
 *
 * Of a hundred rules nearly all are about larger amounts, or about other
 * currencies, types and accounts.  To find that out by asking them costs the
 * memory they are in; what tells it is kept here side by side, and may err to
 * one side only: a rule that is sifted out does not hit.
 *
 * Owns nothing: sieves are in the memory of the rules' book, one for each scale
 * of amounts that came by, made anew when limits (limit.h) changed.  A rule
 * that has limits is asked whatever the amount.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "limit.h"
#include "risk_parts.h"

#define TAG_BITS	16

/* in the order of their tags */
typedef enum Tag
{
	TAG_CURRENCY,
	TAG_TYPE,
	TAG_ACCOUNT_TYPE,
	TAG_LEVEL
} Tag;

static void
add_tag(RiskSieve *sieve, Tag tag, const char *text)
{
	uint64		bits = (UINT64CONST(1) << TAG_BITS) - 1;
	uint32		hash;

	if (text == NULL)
		return;
	hash = hash_bytes((const unsigned char *) text, strlen(text));
	sieve->tags |= (hash & bits) << (TAG_BITS * tag);
	sieve->mask |= bits << (TAG_BITS * tag);
}

static int64
clamp(FinAmount amount)
{
	return amount > PG_INT64_MAX ? PG_INT64_MAX : (int64) amount;
}

/* the least amount above it */
static int64
above(Numeric threshold, int scale)
{
	return clamp(fin_amount_floor(threshold, scale) + 1);
}

static int64
at_least(Numeric minimum, int scale)
{
	return clamp(fin_amount_ceiling(minimum, scale));
}

static int64
least_of_expression(const RiskRule *rule, int scale)
{
	bool		exclusive;
	Numeric		least = fin_expr_least(rule->expression, FIN_FACT_AMOUNT,
									   &exclusive);

	if (least == NULL || numeric_is_nan(least) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(least),
										 NumericGetDatum(int64_to_numeric(0)))))
		return 0;
	return exclusive ? above(least, scale) : at_least(least, scale);
}

/* the least amount that the rule may hit; 0: any */
static int64
least_of(const RiskBook *book, const RiskRule *rule, int scale)
{
	bool		is_fixed = rule->threshold != NULL &&
		!fin_limit_exists(book->tenant_id, rule->name);

	switch (rule->kind)
	{
		case FIN_RULE_TRANSFER_LIMIT:
			return is_fixed && rule->minimum == NULL ?
				above(rule->threshold, scale) : 0;
		case FIN_RULE_NIGHT_WINDOW:
		case FIN_RULE_BUSINESS_HOURS:
		case FIN_RULE_DORMANT_ACCOUNT:
		case FIN_RULE_NEW_COUNTERPARTY:
		case FIN_RULE_NEW_DEVICE:
		case FIN_RULE_DEVICE_CHANGE:
		case FIN_RULE_GEOGRAPHY_JUMP:
			return is_fixed ? above(rule->threshold, scale) : 0;
		case FIN_RULE_LARGE_VALUE:
			return is_fixed ? at_least(rule->threshold, scale) : 0;
		case FIN_RULE_BALANCE_DRAIN:
		case FIN_RULE_ROUND_AMOUNT:
		case FIN_RULE_STRUCTURING:
			return rule->minimum == NULL ? 0 : at_least(rule->minimum, scale);
		case FIN_RULE_EXPRESSION:
			return least_of_expression(rule, scale);
		default:
			return 0;
	}
}

static void
fill_sieve(const RiskBook *book, const RiskRule *rule, int scale,
		   RiskSieve *sieve)
{
	memset(sieve, 0, sizeof(RiskSieve));
	sieve->least = least_of(book, rule, scale);
	sieve->account_id = rule->account_id;
	add_tag(sieve, TAG_CURRENCY, rule->currency);
	add_tag(sieve, TAG_TYPE, rule->type);
	add_tag(sieve, TAG_ACCOUNT_TYPE, rule->account_type);
	add_tag(sieve, TAG_LEVEL, rule->level);
}

static void
make_sieve(const RiskBook *book, RiskRuleset *ruleset, int scale)
{
	uint64		limits = fin_limit_state(book->tenant_id);

	if (ruleset->sieves[scale] == NULL)
		ruleset->sieves[scale] =
			MemoryContextAlloc(book->memory,
							   sizeof(RiskSieve) * Max(ruleset->nrules, 1));
	ruleset->sieve_limits[scale] = 0;
	for (int i = 0; i < ruleset->nrules; i++)
		fill_sieve(book, &ruleset->rules[i], scale, &ruleset->sieves[scale][i]);
	/* only now: an ERROR above leaves no half */
	ruleset->sieve_limits[scale] = limits;
}

const RiskSieve *
fin_risk_sieve(RiskRuleset *ruleset, const RiskFacts *facts,
			   RiskSieve *transfer)
{
	int			scale = facts->scale;

	if (ruleset->sieves[scale] == NULL ||
		ruleset->sieve_limits[scale] != fin_limit_state(facts->book->tenant_id))
		make_sieve(facts->book, ruleset, scale);
	memset(transfer, 0, sizeof(RiskSieve));
	transfer->least = clamp(facts->amount);
	transfer->account_id = facts->from.account_id;
	add_tag(transfer, TAG_CURRENCY, facts->currency);
	add_tag(transfer, TAG_TYPE, facts->type);
	add_tag(transfer, TAG_ACCOUNT_TYPE, facts->from.type);
	add_tag(transfer, TAG_LEVEL, facts->from.level);
	return ruleset->sieves[scale];
}
