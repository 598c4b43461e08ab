/*
 * risk_evaluate.c
 *		The rules: what each says of a transfer, by facts alone.
 *
 * Owns nothing.  Nothing here reads a table or a clock, so a decision can be
 * replayed from its facts, and history judged by rules of today.  Facts that
 * cost a look-up are asked for only by the rules that need them; what is told
 * of a rule is put into words only when it hits, or is asked for.
 */
#include "postgres.h"

#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "risk_parts.h"

#define LARGE_VALUE_DEFAULT	50000
#define MONDAY_TO_FRIDAY	0x3e
#define ODD_TEXT			"not a text of 1 to 128 bytes"
#define ERROR_LENGTH_MAX	200 /* bytes of an expression's error */

/* ------------------------------------------------------------------------
 * numbers
 * ------------------------------------------------------------------------ */

/*
 * Thresholds in units of the scale, computed once each.  An amount is above a
 * threshold when it is above its floor, and at least a minimum when it is at
 * least its ceiling.
 */
static void
fill_floors(RiskRule *rule, int scale)
{
	if ((rule->floors_known & (1U << scale)) != 0)
		return;
	if (rule->threshold != NULL)
		rule->threshold_floors[scale] = fin_amount_floor(rule->threshold, scale);
	if (rule->minimum != NULL)
	{
		FinAmount	floor = fin_amount_floor(rule->minimum, scale);
		FinAmount	exact;

		rule->minimum_ceilings[scale] =
			fin_amount_decode(rule->minimum, scale, &exact) == FIN_AMOUNT_SCALE ?
			floor + 1 : floor;
	}
	rule->floors_known |= 1U << scale;
}

/* where the rule's threshold differs for this payer, or NULL */
static Numeric
other_threshold(const RiskRule *rule, RiskFacts *facts)
{
	return rule->limit == RISK_NONE ? NULL :
		fin_risk_limited(facts, rule->limit);
}

static FinAmount
threshold_of(RiskRule *rule, RiskFacts *facts, int scale)
{
	Numeric		other = other_threshold(rule, facts);

	if (other != NULL)
		return fin_amount_floor(other, scale);
	fill_floors(rule, scale);
	return rule->threshold_floors[scale];
}

static FinAmount
minimum_of(RiskRule *rule, int scale)
{
	fill_floors(rule, scale);
	return rule->minimum_ceilings[scale];
}

static char *
number_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(number)));
}

static char *
threshold_text(const RiskRule *rule, RiskFacts *facts)
{
	Numeric		other = other_threshold(rule, facts);

	return number_text(other != NULL ? other : rule->threshold);
}

static char *
amount_text(const RiskFacts *facts, FinAmount amount)
{
	return fin_amount_text(amount, facts->scale);
}

static bool
tells(const RiskAnswer *answer)
{
	return answer->hit || answer->wants_words;
}

/* above the threshold, where the rule has one */
static bool
is_large(RiskRule *rule, RiskFacts *facts)
{
	return rule->threshold == NULL ||
		facts->amount > threshold_of(rule, facts, facts->scale);
}

static const char *
large_text(const RiskRule *rule, RiskFacts *facts)
{
	return rule->threshold == NULL ? NULL : threshold_text(rule, facts);
}

/* ------------------------------------------------------------------------
 * amounts
 * ------------------------------------------------------------------------ */

static void
ask_transfer_limit(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	bool		below = rule->minimum != NULL &&
		facts->amount < minimum_of(rule, facts->scale);

	answer->hit = below || (rule->threshold != NULL && is_large(rule, facts));
	if (!tells(answer))
		return;
	answer->observed = amount_text(facts, facts->amount);
	if (rule->minimum == NULL)
		answer->threshold = threshold_text(rule, facts);
	else if (rule->threshold == NULL)
		answer->threshold = psprintf("at least %s", number_text(rule->minimum));
	else
		answer->threshold = psprintf("%s to %s", number_text(rule->minimum),
									 threshold_text(rule, facts));
}

static void
ask_large_value(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	FinAmount	unit = 1;

	if (rule->threshold != NULL)
	{
		FinAmount	floor = threshold_of(rule, facts, facts->scale);
		Numeric		other = other_threshold(rule, facts);
		FinAmount	exact;

		/* at least a threshold that is between two amounts is above it */
		answer->hit = fin_amount_decode(other != NULL ? other : rule->threshold,
										facts->scale, &exact) == FIN_AMOUNT_OK ?
			facts->amount >= floor : facts->amount > floor;
	}
	else
	{
		for (int i = 0; i < facts->scale; i++)
			unit *= 10;
		answer->hit = facts->amount >= LARGE_VALUE_DEFAULT * unit;
	}
	if (!tells(answer))
		return;
	answer->observed = amount_text(facts, facts->amount);
	answer->threshold = rule->threshold != NULL ? threshold_text(rule, facts) :
		psprintf("%d", LARGE_VALUE_DEFAULT);
}

/* of a step that may be finer than amounts are: 0.5 of whole yen hits all */
static bool
is_multiple(const RiskFacts *facts, Numeric step)
{
	Numeric		zero = fin_amount_encode(0, 0);
	FinAmount	exact;
	Datum		rest;

	if (fin_amount_decode(step, facts->scale, &exact) == FIN_AMOUNT_OK)
		return exact > 0 && facts->amount % exact == 0;
	if (!DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(step),
										  NumericGetDatum(zero))))
		return false;
	rest = DirectFunctionCall2(numeric_mod,
							   fin_amount_datum(facts->amount, facts->scale),
							   NumericGetDatum(step));
	return DatumGetBool(DirectFunctionCall2(numeric_eq, rest,
											NumericGetDatum(zero)));
}

static void
ask_round_amount(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	Numeric		other = other_threshold(rule, facts);

	answer->hit = (rule->minimum == NULL ||
				   facts->amount >= minimum_of(rule, facts->scale)) &&
		is_multiple(facts, other != NULL ? other : rule->threshold);
	if (!tells(answer))
		return;
	answer->observed = amount_text(facts, facts->amount);
	answer->threshold = threshold_text(rule, facts);
}

static void
ask_balance_drain(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	Numeric		other = other_threshold(rule, facts);
	Numeric		share = other != NULL ? other : rule->threshold;

	answer->hit = facts->available > 0 &&
		(rule->minimum == NULL ||
		 facts->amount >= minimum_of(rule, facts->scale));
	if (answer->hit)
	{
		Datum		limit = DirectFunctionCall2(numeric_mul,
												fin_amount_datum(facts->available,
																 facts->scale),
												NumericGetDatum(share));

		answer->hit =
			DatumGetBool(DirectFunctionCall2(numeric_ge,
											 fin_amount_datum(facts->amount,
															  facts->scale),
											 limit));
	}
	if (!tells(answer))
		return;
	answer->observed = psprintf("%s of %s", amount_text(facts, facts->amount),
								amount_text(facts, facts->available));
	answer->threshold = number_text(share);
}

/* ------------------------------------------------------------------------
 * totals
 * ------------------------------------------------------------------------ */

static void
judge_total(RiskRule *rule, RiskFacts *facts, FinAmount before,
			RiskAnswer *answer)
{
	FinAmount	total;

	if (!fin_amount_add(before, facts->amount, &total))
		total = FIN_AMOUNT_MAX;
	answer->hit = total > threshold_of(rule, facts, facts->scale);
	if (!tells(answer))
		return;
	answer->observed = amount_text(facts, total);
	answer->threshold = threshold_text(rule, facts);
	answer->window = rule->window_text;
}

static void
ask_daily_limit(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	judge_total(rule, facts, facts->spent, answer);
	answer->window = tells(answer) ? "account, day" : NULL;
}

static void
ask_total_limit(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	judge_total(rule, facts,
				fin_risk_measured(facts, rule->measure)->total.amount, answer);
}

static void
ask_count_limit(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	int64		count = fin_risk_measured(facts, rule->measure)->total.count + 1;

	answer->hit = count > threshold_of(rule, facts, 0);
	if (!tells(answer))
		return;
	answer->observed = psprintf(INT64_FORMAT, count);
	answer->threshold = threshold_text(rule, facts);
	answer->window = rule->window_text;
}

static void
ask_structuring(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	bool		just_below =
		facts->amount >= minimum_of(rule, facts->scale) &&
		!(facts->amount > threshold_of(rule, facts, facts->scale));
	FinAmount	exact;
	int64		count = 0;

	/* a threshold that an amount can have is not just below itself */
	if (just_below &&
		fin_amount_decode(rule->threshold, facts->scale, &exact) == FIN_AMOUNT_OK &&
		facts->amount == exact)
		just_below = false;
	if (just_below || answer->wants_words)
		count = fin_risk_measured(facts, rule->measure)->total.count +
			(just_below ? 1 : 0);
	answer->hit = just_below && count >= rule->times;
	if (!tells(answer))
		return;
	answer->observed = psprintf(INT64_FORMAT " times %s to %s", count,
								number_text(rule->minimum),
								number_text(rule->threshold));
	answer->threshold = psprintf("%d times", rule->times);
	answer->window = rule->window_text;
}

/* ------------------------------------------------------------------------
 * times
 * ------------------------------------------------------------------------ */

static bool
in_window(const RiskRule *rule, TimeADT time)
{
	if (rule->window_start <= rule->window_end)
		return time >= rule->window_start && time < rule->window_end;
	return time >= rule->window_start || time < rule->window_end;	/* over midnight */
}

static bool
is_weekday(uint8 weekdays, DateADT date)
{
	int			day = j2day(date + POSTGRES_EPOCH_JDATE);	/* 0: Sunday */

	return (weekdays & (1 << (day == 0 ? 7 : day))) != 0;
}

static char *
time_text(TimeADT time)
{
	return DatumGetCString(DirectFunctionCall1(time_out, TimeADTGetDatum(time)));
}

static void
tell_window(const RiskRule *rule, RiskFacts *facts, TimeADT time,
			RiskAnswer *answer)
{
	answer->observed = psprintf("%s at %s", amount_text(facts, facts->amount),
								time_text(time));
	answer->threshold = psprintf("%s from %s to %s",
								 rule->threshold != NULL ?
								 threshold_text(rule, facts) : "nothing",
								 time_text(rule->window_start),
								 time_text(rule->window_end));
}

/* the moment in the rule's zone */
static void
local_moment(const RiskRule *rule, const RiskFacts *facts, DateADT *date,
			 TimeADT *time)
{
	*date = facts->date;
	*time = facts->time_of_day;
	if (rule->zone != NULL)
		fin_risk_local(facts->now, rule->zone, date, time);
}

static void
ask_night_window(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	DateADT		date;
	TimeADT		time;

	local_moment(rule, facts, &date, &time);
	answer->hit = in_window(rule, time) && is_large(rule, facts) &&
		(rule->weekdays == 0 || is_weekday(rule->weekdays, date) ||
		 (rule->probe != RISK_NONE && fin_risk_probed(facts, rule->probe)));
	if (tells(answer))
		tell_window(rule, facts, time, answer);
}

static void
ask_business_hours(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	DateADT		date;
	TimeADT		time;
	bool		is_open;

	local_moment(rule, facts, &date, &time);
	is_open = in_window(rule, time) &&
		is_weekday(rule->weekdays != 0 ? rule->weekdays : MONDAY_TO_FRIDAY, date) &&
		!(rule->probe != RISK_NONE && fin_risk_probed(facts, rule->probe));
	answer->hit = !is_open && is_large(rule, facts);
	if (tells(answer))
		tell_window(rule, facts, time, answer);
}

static void
ask_dormant_account(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	answer->hit = facts->has_last &&
		facts->now - facts->last_at >= rule->span_us && is_large(rule, facts);
	if (!tells(answer))
		return;
	answer->observed = !facts->has_last ? "not known" :
		psprintf("idle for %s", fin_risk_span_text(Max(facts->now - facts->last_at, 0)));
	answer->threshold = large_text(rule, facts);
	answer->window = fin_risk_span_text(rule->span_us);
}

/* ------------------------------------------------------------------------
 * who, where, and by what
 * ------------------------------------------------------------------------ */

static const char *
probed_text(const RiskFacts *facts, const RiskProbe *probe)
{
	switch (probe->subject)
	{
		case RISK_PROBE_PAYER:
			return facts->from.code;
		case RISK_PROBE_PAYEE:
			return facts->to.code;
		case RISK_PROBE_COUNTRY:
			return facts->country;
		case RISK_PROBE_DEVICE:
			return facts->device;
		case RISK_PROBE_HOLIDAY:
			break;
	}
	return NULL;
}

/* a device or country that is told, but is no text that could be looked up */
static bool
is_odd(const RiskFacts *facts, int probe)
{
	RiskProbeSubject subject = facts->book->probes[probe].subject;

	return (subject == RISK_PROBE_DEVICE && facts->odd_device) ||
		(subject == RISK_PROBE_COUNTRY && facts->odd_country);
}

static const char *
text_of_none(const RiskFacts *facts, int probe)
{
	return is_odd(facts, probe) ? ODD_TEXT : "none";
}

/* the first subject whose membership is so, or NULL */
static const char *
find_member(const RiskRule *rule, RiskFacts *facts, bool member)
{
	int			probes[2] = {rule->probe, rule->second_probe};

	for (int i = 0; i < 2; i++)
	{
		const char *text;

		if (probes[i] == RISK_NONE)
			continue;
		text = probed_text(facts, &facts->book->probes[probes[i]]);
		/* what nobody told of is on no list: only an allowlist minds */
		if (text == NULL && (!member || is_odd(facts, probes[i])))
			return text_of_none(facts, probes[i]);
		if (text != NULL && fin_risk_probed(facts, probes[i]) == member)
			return text;
	}
	return NULL;
}

static void
ask_list(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	bool		member = rule->kind != FIN_RULE_ALLOWLIST;
	const char *found = find_member(rule, facts, member);

	answer->hit = found != NULL;
	if (!tells(answer))
		return;
	answer->observed = found != NULL ? found :
		member ? "not on the list" : "on the list";
	answer->threshold = facts->book->probes[rule->probe].list;
}

static void
ask_new_counterparty(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	int64		count = 0;

	if (is_large(rule, facts) || answer->wants_words)
	{
		count = fin_risk_measured(facts, rule->measure)->total.count;
		answer->hit = count == 0 && is_large(rule, facts);
	}
	if (!tells(answer))
		return;
	answer->observed = psprintf(INT64_FORMAT " transfers to %s before", count,
								facts->to.code);
	answer->threshold = large_text(rule, facts);
}

static const char *
device_text(const RiskFacts *facts)
{
	return facts->odd_device ? ODD_TEXT :
		facts->device != NULL ? facts->device : "no device";
}

/* as what was told with the payer's last transfer is told */
static const char *
last_text(const RiskMeasured *last)
{
	if (last == NULL)
		return "none";
	return last->unconfirmed ? "one that was not confirmed" :
		last->last != NULL ? last->last : "none";
}

static void
ask_new_device(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	answer->hit = is_large(rule, facts) &&
		(facts->odd_device ||
		 (facts->device != NULL &&
		  fin_risk_measured(facts, rule->measure)->total.count == 0));
	if (!tells(answer))
		return;
	answer->observed = device_text(facts);
	answer->threshold = large_text(rule, facts);
}

static bool
differs(const RiskMeasured *last, const char *text)
{
	return last != NULL && (last->unconfirmed ||
							(last->last != NULL &&
							 strcmp(last->last, text) != 0));
}

static void
ask_device_change(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	const RiskMeasured *last = NULL;

	if (facts->device != NULL && (is_large(rule, facts) || answer->wants_words))
		last = fin_risk_measured(facts, rule->measure);
	answer->hit = is_large(rule, facts) &&
		(facts->odd_device || differs(last, facts->device));
	if (!tells(answer))
		return;
	answer->observed = psprintf("%s after %s", device_text(facts),
								last_text(last));
	answer->threshold = large_text(rule, facts);
}

static void
ask_geography_jump(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	const RiskMeasured *last = NULL;

	if (facts->country != NULL && (is_large(rule, facts) || answer->wants_words))
		last = fin_risk_measured(facts, rule->measure);
	answer->hit = is_large(rule, facts) &&
		(facts->odd_country ||
		 (differs(last, facts->country) &&
		  facts->now - last->last_at < rule->span_us));
	if (!tells(answer))
		return;
	answer->observed = facts->odd_country ? ODD_TEXT :
		facts->country == NULL ? "no country" :
		last == NULL || (last->last == NULL && !last->unconfirmed) ?
		psprintf("%s, none before", facts->country) :
		psprintf("%s, %s after %s", facts->country,
				 fin_risk_span_text(Max(facts->now - last->last_at, 0)),
				 last_text(last));
	answer->threshold = large_text(rule, facts);
	answer->window = fin_risk_span_text(rule->span_us);
}

/* ------------------------------------------------------------------------
 * expressions
 * ------------------------------------------------------------------------ */

/* it may quote what the payer wrote, at length */
static char *
error_text(const char *error)
{
	return psprintf(RISK_ERROR_PREFIX "%.*s",
					pg_mbcliplen(error, strlen(error), ERROR_LENGTH_MAX), error);
}

static void
ask_expression(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	char	   *error = NULL;
	FinExprResult result;

	for (int i = 0; i < rule->nused; i++)
	{
		if (!facts->values_known[rule->used[i]])
			fin_risk_value(facts, rule->used[i]);
	}
	result = fin_expr_eval(rule->expression, facts->values, &error);
	if (result == FIN_EXPR_NULL || result == FIN_EXPR_ERROR)
	{
		/* an outcome of pass: it is as if it were false */
		answer->outcome = rule->on_error;
		answer->hit = rule->on_error != FIN_RISK_PASS;
	}
	else
		answer->hit = result == FIN_EXPR_TRUE;
	if (!tells(answer))
		return;
	answer->observed = result == FIN_EXPR_TRUE ? "true" :
		result == FIN_EXPR_FALSE ? "false" :
		result == FIN_EXPR_NULL ? "null" : error_text(error);
	answer->threshold = rule->expression_text;
}

/* ------------------------------------------------------------------------
 * one rule, and all of them
 * ------------------------------------------------------------------------ */

static bool
is_same(const char *stated, const char *found)
{
	return stated == NULL || (found != NULL && strcmp(stated, found) == 0);
}

bool
fin_risk_applies(const RiskRule *rule, const RiskFacts *facts)
{
	return (rule->account_id == 0 ||
			rule->account_id == facts->from.account_id) &&
		is_same(rule->currency, facts->currency) &&
		is_same(rule->type, facts->type) &&
		is_same(rule->account_type, facts->from.type) &&
		is_same(rule->level, facts->from.level);
}

typedef void (*Ask) (RiskRule *rule, RiskFacts *facts, RiskAnswer *answer);

static const Ask asks[FIN_RULE_KINDS] = {
	[FIN_RULE_TRANSFER_LIMIT] = ask_transfer_limit,
	[FIN_RULE_DAILY_LIMIT] = ask_daily_limit,
	[FIN_RULE_TOTAL_LIMIT] = ask_total_limit,
	[FIN_RULE_COUNT_LIMIT] = ask_count_limit,
	[FIN_RULE_VELOCITY] = ask_count_limit,
	[FIN_RULE_NIGHT_WINDOW] = ask_night_window,
	[FIN_RULE_BUSINESS_HOURS] = ask_business_hours,
	[FIN_RULE_BLOCKLIST] = ask_list,
	[FIN_RULE_WATCHLIST] = ask_list,
	[FIN_RULE_ALLOWLIST] = ask_list,
	[FIN_RULE_NEW_COUNTERPARTY] = ask_new_counterparty,
	[FIN_RULE_NEW_DEVICE] = ask_new_device,
	[FIN_RULE_DEVICE_CHANGE] = ask_device_change,
	[FIN_RULE_BALANCE_DRAIN] = ask_balance_drain,
	[FIN_RULE_DORMANT_ACCOUNT] = ask_dormant_account,
	[FIN_RULE_STRUCTURING] = ask_structuring,
	[FIN_RULE_LARGE_VALUE] = ask_large_value,
	[FIN_RULE_ROUND_AMOUNT] = ask_round_amount,
	[FIN_RULE_GEOGRAPHY_JUMP] = ask_geography_jump,
	[FIN_RULE_EXPRESSION] = ask_expression,
};

void
fin_risk_ask(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer)
{
	answer->hit = false;
	answer->outcome = rule->outcome;
	answer->observed = answer->threshold = answer->window = NULL;
	answer->applies = fin_risk_applies(rule, facts);
	if (answer->applies)
		asks[rule->kind] (rule, facts, answer);
}

/* copies: somebody's trigger may have the rules reloaded meanwhile */
static char *
copy_text(const char *text)
{
	return text == NULL ? NULL : pstrdup(text);
}

static void
add_hit(FinRiskJudgement *judgement, const RiskRuleset *ruleset,
		const RiskRule *rule, const RiskAnswer *answer)
{
	FinRiskHit *hit;

	if (judgement->hits == NULL)
		judgement->hits = palloc(sizeof(FinRiskHit) * ruleset->nrules);
	hit = &judgement->hits[judgement->nhits++];
	hit->rule = pstrdup(rule->name);
	hit->kind = fin_rule_kinds[rule->kind].name;
	hit->outcome = answer->outcome;
	hit->score = rule->score;
	hit->observed = copy_text(answer->observed);
	hit->threshold = copy_text(answer->threshold);
	hit->window = copy_text(answer->window);
	/* thousands of rules: as much as there is, rather than below zero */
	if (pg_add_s32_overflow(judgement->score, rule->score, &judgement->score))
		judgement->score = rule->score > 0 ? PG_INT32_MAX : PG_INT32_MIN;
	if (answer->outcome > judgement->outcome)
	{
		judgement->outcome = answer->outcome;
		judgement->rule = hit->rule;
	}
}

/* the outcome that scores ask for, if it is more than the rules' */
static void
apply_scores(const RiskRuleset *ruleset, FinRiskJudgement *judgement)
{
	const int	limits[] = {0, ruleset->score_report, ruleset->score_challenge,
	ruleset->score_review, ruleset->score_reject};

	for (int outcome = FIN_RISK_REJECT; outcome > (int) judgement->outcome; outcome--)
	{
		if (limits[outcome] == 0 || judgement->score < limits[outcome])
			continue;
		judgement->outcome = (FinRiskOutcome) outcome;
		judgement->rule = NULL;
		return;
	}
}

/* sieve: NULL: all rules are asked */
static void
evaluate(RiskRuleset *ruleset, RiskFacts *facts, const RiskSieve *sieve,
		 const RiskSieve *transfer, FinRiskJudgement *judgement)
{
	RiskAnswer	answer = {0};

	memset(judgement, 0, sizeof(FinRiskJudgement));
	judgement->version = ruleset->version;
	judgement->is_live = ruleset->is_live;
	for (int i = 0; i < ruleset->nrules; i++)
	{
		if (sieve != NULL && fin_risk_is_sifted_out(&sieve[i], transfer))
			continue;
		fin_risk_ask(&ruleset->rules[i], facts, &answer);
		if (answer.hit)
			add_hit(judgement, ruleset, &ruleset->rules[i], &answer);
	}
	if (judgement->nhits > 0)
		apply_scores(ruleset, judgement);
}

void
fin_risk_evaluate(RiskRuleset *ruleset, RiskFacts *facts,
				  FinRiskJudgement *judgement)
{
	evaluate(ruleset, facts, NULL, NULL, judgement);
}

void
fin_risk_evaluate_movement(RiskRuleset *ruleset, RiskFacts *facts,
						   FinRiskJudgement *judgement)
{
	RiskSieve	transfer;
	const RiskSieve *sieve = fin_risk_sieve(ruleset, facts, &transfer);

	evaluate(ruleset, facts, sieve, &transfer, judgement);
}

void
fin_risk_ask_rest(RiskRuleset *ruleset, RiskFacts *facts)
{
	RiskSieve	transfer;
	const RiskSieve *sieve = fin_risk_sieve(ruleset, facts, &transfer);
	RiskAnswer	answer = {0};

	for (int i = 0; i < ruleset->nrules; i++)
	{
		if (fin_risk_is_sifted_out(&sieve[i], &transfer))
			fin_risk_ask(&ruleset->rules[i], facts, &answer);
	}
}
