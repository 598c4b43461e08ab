/*
 * risk_backtest.c
 *		What a ruleset would have said of the transfers there were:
 *		finance.backtest_ruleset() and finance.backtest_differences().
 *
 * Owns nothing between calls; counts by rule and currency in the memory of the
 * call.  Takes no locks but those of reading tables and writes nothing, so it
 * works in a read-only transaction and on a standby.
 *
 * The rules run as they do for a transfer (risk_evaluate.c), over facts of then
 * (risk_past.c).  What is counted is the history as it happened: a transfer that
 * the ruleset would have stopped still counts into the windows of those after
 * it, and one that was rejected does not.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "query.h"
#include "risk_parts.h"

#define DIFFERENCES_MAX		1000000

/* of one rule, or of all together, in one currency */
typedef struct Tally
{
	int64		transfers;		/* that it is about, or hit then */
	int64		hits;
	int64		agree;			/* it says what it said then */
	int64		newly_stopped;
	int64		newly_passed;
	int64		outcomes[FIN_RISK_REJECT + 1];	/* of the hits */
	FinAmount	amount;			/* of the hits */
} Tally;

typedef struct CurrencyTallies
{
	char		code[FIN_CURRENCY_LENGTH_MAX + 1];
	int			scale;
	Tally	   *tallies;		/* of the rules, by their index; then of all */
} CurrencyTallies;

/* the arguments of both functions, and their ruleset */
typedef struct Backtest
{
	const FinContext *context;
	int32		version;
	TimestampTz from;
	TimestampTz to;				/* DT_NOEND: until now */
	RiskBook   *book;
	RiskRuleset *ruleset;
	MemoryContext memory;		/* of the call */
	int			ncurrencies;
	int			currencies_size;
	CurrencyTallies *currencies;
	FinRiskHit **hits;			/* of the transfer at hand, by rule: now, */
	FinRiskOutcome *hits_then;	/* and then; pass: it did not hit */
	bool	   *was_hit;
	int64		limit;			/* differences still to tell */
	ReturnSetInfo *result;
} Backtest;

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

static TimestampTz
time_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	TimestampTz time = PG_GETARG_TIMESTAMPTZ(argument);

	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("%s must be finite", name));
	return time;
}

static void
refuse_null(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			errmsg("%s must not be null", name));
}

static void
take_arguments(FunctionCallInfo fcinfo, Backtest *test)
{
	memset(test, 0, sizeof(Backtest));
	if (PG_ARGISNULL(0))
		refuse_null("version");
	if (PG_ARGISNULL(1))
		refuse_null("from");
	test->version = PG_GETARG_INT32(0);
	test->from = time_argument(fcinfo, 1, "from");
	test->to = PG_ARGISNULL(2) ? DT_NOEND : time_argument(fcinfo, 2, "to");
	if (test->to < test->from)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("to must not be before from"));
	test->memory = CurrentMemoryContext;
}

static void
take_limit(FunctionCallInfo fcinfo, Backtest *test)
{
	if (PG_ARGISNULL(3))
		refuse_null("limit");
	test->limit = PG_GETARG_INT32(3);
	if (test->limit < 1 || test->limit > DIFFERENCES_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("limit is out of range"),
				errdetail("It is %d, and must be from 1 to %d.",
						  (int) test->limit, DIFFERENCES_MAX));
}

/* ------------------------------------------------------------------------
 * tallies
 * ------------------------------------------------------------------------ */

static Tally *
find_tallies(Backtest *test, const RiskFacts *facts)
{
	CurrencyTallies *currency;

	for (int i = 0; i < test->ncurrencies; i++)
	{
		if (strcmp(test->currencies[i].code, facts->currency) == 0)
			return test->currencies[i].tallies;
	}
	if (test->ncurrencies == test->currencies_size)
	{
		test->currencies_size *= 2;
		test->currencies = repalloc(test->currencies, sizeof(CurrencyTallies) *
									test->currencies_size);
	}
	currency = &test->currencies[test->ncurrencies++];
	strlcpy(currency->code, facts->currency, sizeof(currency->code));
	currency->scale = facts->scale;
	currency->tallies =
		MemoryContextAllocZero(test->memory, sizeof(Tally) *
							   (test->ruleset->nrules + 1));
	return currency->tallies;
}

static bool
stops(FinRiskOutcome outcome)
{
	return outcome > FIN_RISK_REPORT;
}

static void
add_hit(Tally *tally, FinRiskOutcome outcome, FinAmount amount)
{
	tally->hits++;
	tally->outcomes[outcome]++;
	if (!fin_amount_add(tally->amount, amount, &tally->amount))
		tally->amount = FIN_AMOUNT_MAX;
}

/* ------------------------------------------------------------------------
 * which rules hit, now and then
 * ------------------------------------------------------------------------ */

static int
find_rule(const RiskRuleset *ruleset, const char *name, int length)
{
	for (int i = 0; i < ruleset->nrules; i++)
	{
		if (strncmp(ruleset->rules[i].name, name, length) == 0 &&
			ruleset->rules[i].name[length] == '\0')
			return i;
	}
	return -1;
}

/* hits are in the order of the rules */
static void
note_hits_now(Backtest *test, const FinRiskJudgement *judgement)
{
	int			rule = 0;

	memset(test->hits, 0, sizeof(FinRiskHit *) * test->ruleset->nrules);
	for (int i = 0; i < judgement->nhits; i++)
	{
		while (strcmp(test->ruleset->rules[rule].name,
					  judgement->hits[i].rule) != 0)
			rule++;
		test->hits[rule++] = &judgement->hits[i];
	}
}

static char *
text_of(JsonbContainer *object, const char *key)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(object, key, strlen(key), &value) == NULL ||
		value.type != jbvString)
		elog(ERROR, "a recorded hit has no \"%s\"", key);
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* of rules that the ruleset has, by name */
static void
note_hits_then(Backtest *test, Jsonb *hits)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	memset(test->was_hit, 0, sizeof(bool) * test->ruleset->nrules);
	if (hits == NULL)
		return;
	iterator = JsonbIteratorInit(&hits->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char	   *name;
		int			rule;

		if (token != WJB_ELEM || value.type != jbvBinary)
			continue;
		name = text_of(value.val.binary.data, "rule");
		rule = find_rule(test->ruleset, name, strlen(name));
		if (rule < 0)
			continue;
		test->was_hit[rule] = true;
		test->hits_then[rule] =
			fin_risk_parse_outcome(text_of(value.val.binary.data, "outcome"));
	}
}

static void
count_rule(Backtest *test, int rule, const RiskPast *past, Tally *tally)
{
	const FinRiskHit *hit = test->hits[rule];
	bool		was_hit = test->was_hit[rule];
	bool		stops_now = hit != NULL && stops(hit->outcome);
	bool		stopped = !past->was_done && was_hit &&
		stops(test->hits_then[rule]);

	if (hit == NULL && !was_hit &&
		!fin_risk_applies(&test->ruleset->rules[rule], past->facts))
		return;
	tally->transfers++;
	tally->agree += (hit != NULL) == was_hit;
	tally->newly_stopped += past->was_done && stops_now;
	tally->newly_passed += stopped && !stops_now;
	if (hit != NULL)
		add_hit(tally, hit->outcome, past->facts->amount);
}

static void
count_whole(const FinRiskJudgement *judgement, const RiskPast *past,
			Tally *tally)
{
	tally->transfers++;
	tally->agree += judgement->outcome == past->outcome;
	tally->newly_stopped += past->was_done && stops(judgement->outcome);
	tally->newly_passed += !past->was_done && !stops(judgement->outcome);
	if (judgement->nhits > 0)
		add_hit(tally, judgement->outcome, past->facts->amount);
}

static bool
count_transfer(const RiskPast *past, void *argument)
{
	Backtest   *test = argument;
	FinRiskJudgement judgement;
	Tally	   *tallies = find_tallies(test, past->facts);

	fin_risk_evaluate(test->ruleset, past->facts, &judgement);
	note_hits_now(test, &judgement);
	note_hits_then(test, past->hits);
	for (int i = 0; i < test->ruleset->nrules; i++)
		count_rule(test, i, past, &tallies[i]);
	count_whole(&judgement, past, &tallies[test->ruleset->nrules]);
	return true;
}

/* ------------------------------------------------------------------------
 * the rows of backtest_ruleset()
 * ------------------------------------------------------------------------ */

static int
compare_currencies(const void *a, const void *b)
{
	return strcmp(((const CurrencyTallies *) a)->code,
				  ((const CurrencyTallies *) b)->code);
}

/* rule NULL: all together; currency NULL: nothing was counted */
static void
put_tally(const Backtest *test, const RiskRule *rule,
		  const CurrencyTallies *currency, const Tally *tally)
{
	ReturnSetInfo *result = test->result;
	Datum		values[14];
	bool		nulls[14] = {false};

	nulls[0] = nulls[1] = rule == NULL;
	if (rule != NULL)
	{
		values[0] = CStringGetTextDatum(rule->name);
		values[1] = CStringGetTextDatum(fin_rule_kinds[rule->kind].name);
	}
	nulls[2] = currency == NULL;
	if (currency != NULL)
		values[2] = CStringGetTextDatum(currency->code);
	values[3] = Int64GetDatum(tally->transfers);
	values[4] = Int64GetDatum(tally->hits);
	values[5] = Int64GetDatum(tally->transfers - tally->hits);
	values[6] = fin_amount_datum(tally->amount,
								 currency == NULL ? 0 : currency->scale);
	values[7] = Int64GetDatum(tally->agree);
	values[8] = Int64GetDatum(tally->newly_stopped);
	values[9] = Int64GetDatum(tally->newly_passed);
	for (int i = FIN_RISK_REPORT; i <= FIN_RISK_REJECT; i++)
		values[10 + i - FIN_RISK_REPORT] = Int64GetDatum(tally->outcomes[i]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* in each currency in which it is about any transfer */
static void
put_rule(const Backtest *test, const RiskRule *rule, int index)
{
	Tally		nothing = {0};
	bool		any = false;

	for (int i = 0; i < test->ncurrencies; i++)
	{
		const Tally *tally = &test->currencies[i].tallies[index];

		if (tally->transfers == 0)
			continue;
		put_tally(test, rule, &test->currencies[i], tally);
		any = true;
	}
	if (!any)
		put_tally(test, rule, NULL, &nothing);
}

static void
put_tallies(Backtest *test)
{
	int			nrules = test->ruleset->nrules;

	qsort(test->currencies, test->ncurrencies, sizeof(CurrencyTallies),
		  compare_currencies);
	put_rule(test, NULL, nrules);
	for (int i = 0; i < nrules; i++)
		put_rule(test, &test->ruleset->rules[i], i);
}

/* ------------------------------------------------------------------------
 * the rows of backtest_differences()
 * ------------------------------------------------------------------------ */

static bool
tell_difference(const RiskPast *past, void *argument)
{
	Backtest   *test = argument;
	ReturnSetInfo *result = test->result;
	FinRiskJudgement judgement;
	const char *rule;
	Datum		values[4];
	bool		nulls[4] = {false};

	fin_risk_evaluate(test->ruleset, past->facts, &judgement);
	if (judgement.outcome == past->outcome)
		return true;
	rule = judgement.outcome > past->outcome ? judgement.rule : past->rule;
	values[0] = Int64GetDatum(past->transfer_id);
	values[1] = CStringGetTextDatum(fin_risk_outcome_name(past->outcome));
	values[2] = CStringGetTextDatum(fin_risk_outcome_name(judgement.outcome));
	nulls[3] = rule == NULL;
	if (rule != NULL)
		values[3] = CStringGetTextDatum(rule);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return --test->limit > 0;
}

/* ------------------------------------------------------------------------
 * both
 * ------------------------------------------------------------------------ */

static void
load_ruleset(Backtest *test)
{
	if (test->version > 0)
		test->book = fin_risk_compile(test->context->tenant_id, test->version,
									  CurrentMemoryContext);
	if (test->book == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RULESET),
				errmsg("ruleset %d does not exist", test->version));
	test->ruleset = &test->book->rulesets[0];
	test->currencies_size = 4;
	test->currencies = palloc(sizeof(CurrencyTallies) * test->currencies_size);
	test->hits = palloc0(sizeof(FinRiskHit *) * (test->ruleset->nrules + 1));
	test->hits_then = palloc0(sizeof(FinRiskOutcome) *
							  (test->ruleset->nrules + 1));
	test->was_hit = palloc0(sizeof(bool) * (test->ruleset->nrules + 1));
}

static void
check_columns(const Backtest *test, int columns)
{
	if (test->result->setDesc->natts != columns)
		elog(ERROR, "back-tests are not as this library expects");
}

PG_FUNCTION_INFO_V1(finance_backtest_ruleset);

/*
 * finance.backtest_ruleset(version integer, "from" timestamptz,
 *							"to" timestamptz)
 *		returns table (rule, kind, currency, transfers, hits, misses, amount,
 *			agree, newly_stopped, newly_passed, report, challenge, review,
 *			reject)
 *
 * What this version (a draft, live, shadow or retired) would have said of the
 * tenant's transfers and holds recorded from "from" (inclusive) to "to"
 * (exclusive; null: until now), by the milliseconds of their ids, against what
 * happened to them.  First, with rule null, the ruleset as a whole; then each
 * rule that is not disabled; of both a row for each currency, or with currency
 * null where there was nothing to judge.
 *
 *		transfers		judged: for a rule those that it is about
 *		hits, misses	of the whole: at least one rule hit, or none
 *		amount			of the hits
 *		agree			whole: the outcome is that of the ruleset that was live
 *						then, as recorded; rule: it hits, or not, as the one of
 *						its name did
 *		newly_stopped	were carried out then; challenge, review or reject now
 *		newly_passed	were rejected or parked then; pass or report now (rule:
 *						were so by the rule of this name, and not by it now)
 *		report ...		hits with this outcome
 *
 * Facts are those of the moment before each transfer: amounts, balances, what
 * was available, totals of all windows, what the account had spent that day,
 * its last transfer, device, country and metadata, the local time.  Accounts'
 * types and levels, the tenant's time zone, holidays, lists and limits that
 * differ are as they are now; an entry of a list and a temporary limit count
 * until they expire, as of the transfer's time, and what was removed since is
 * not there.  The history is what is attached to finance.transfer; what the
 * rules would have stopped happened all the same, and is counted on.  Requests
 * that left no row (an error, strict) are not seen.  Whether one that was
 * stopped was a hold is what its decision says.
 *
 * Tells by NOTICE every five seconds how far it is.  Errors: 22004, 22008 an
 * infinite time, 22023 "to" before "from", LG108 unknown ruleset, 53400 more to
 * remember than maintenance_work_mem.  Locks: none.
 */
Datum
finance_backtest_ruleset(PG_FUNCTION_ARGS)
{
	Backtest	test;
	FinQueryScope scope;

	take_arguments(fcinfo, &test);
	InitMaterializedSRF(fcinfo, 0);
	test.result = (ReturnSetInfo *) fcinfo->resultinfo;
	check_columns(&test, 14);
	test.context = fin_context_hold();
	fin_query_begin(&scope);
	load_ruleset(&test);
	fin_risk_walk(test.context->tenant_id, test.book, test.from, test.to,
				  count_transfer, &test);
	put_tallies(&test);
	fin_query_end(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_backtest_differences);

/*
 * finance.backtest_differences(version integer, "from" timestamptz,
 *								"to" timestamptz, "limit" integer)
 *		returns table (transfer_id, outcome_then, outcome_now, rule)
 *
 * The oldest of those transfers, at most "limit" (1 to 1,000,000), of which the
 * ruleset says something else than the one that was live then did; pass where
 * there was none.  rule: that asked for the higher outcome of both; null: the
 * scores did.  All else is as in backtest_ruleset().  Errors: those, and 22023
 * limit out of range.
 */
Datum
finance_backtest_differences(PG_FUNCTION_ARGS)
{
	Backtest	test;
	FinQueryScope scope;

	take_arguments(fcinfo, &test);
	take_limit(fcinfo, &test);
	InitMaterializedSRF(fcinfo, 0);
	test.result = (ReturnSetInfo *) fcinfo->resultinfo;
	check_columns(&test, 4);
	test.context = fin_context_hold();
	fin_query_begin(&scope);
	load_ruleset(&test);
	fin_risk_walk(test.context->tenant_id, test.book, test.from, test.to,
				  tell_difference, &test);
	fin_query_end(&scope);
	return (Datum) 0;
}
