/*
 * risk_compile.c
 *		Rows of finance.ruleset and finance.risk_rule into rules.
 *
 * Owns nothing: all it makes is in the memory of the book it makes.  Rulesets
 * are read with their rules by one statement with the newest snapshot, so a
 * version is read whole.  What rules ask about (totals, lists, limits) is
 * numbered over the whole book, so each is looked up once for a transfer
 * however many rules ask.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "query.h"
#include "risk_parts.h"

/* columns of select_rules, from 1 */
typedef enum Column
{
	COL_VERSION = 1,
	COL_LIVE,
	COL_SCORE_REPORT,
	COL_SCORE_CHALLENGE,
	COL_SCORE_REVIEW,
	COL_SCORE_REJECT,
	COL_REVIEW_TIMEOUT,
	COL_CHALLENGE_TIMEOUT,
	COL_APPROVE,
	COL_NAME,
	COL_KIND,
	COL_OUTCOME,
	COL_SCORE,
	COL_THRESHOLD,
	COL_MINIMUM,
	COL_PER,
	COL_PERIOD,
	COL_SPAN,
	COL_TIMES,
	COL_WINDOW_START,
	COL_WINDOW_END,
	COL_ZONE,
	COL_WEEKDAYS,
	COL_CALENDAR,
	COL_LIST,
	COL_SUBJECT,
	COL_EXPRESSION,
	COL_ON_ERROR,
	COL_ACCOUNT_ID,
	COL_ACCOUNT_TYPE,
	COL_LEVEL,
	COL_CURRENCY,
	COL_TYPE,
	COLUMNS = COL_TYPE
} Column;

/* $2: 0 for those in force */
static FinQuery select_rules =
{
	.sql = "SELECT s.version, s.mode = 'live', s.score_report,"
	" s.score_challenge, s.score_review, s.score_reject, s.review_timeout,"
	" s.challenge_timeout, s.review_default = 'approve', r.name, r.kind,"
	" r.outcome, r.score, r.threshold, r.minimum, r.per, r.period, r.span,"
	" r.times, r.window_start, r.window_end, r.time_zone, r.weekdays,"
	" r.calendar, r.list, r.subject, r.expression, r.on_error, r.account_id,"
	" r.account_type, r.level, r.currency, r.transfer_type"
	" FROM finance.ruleset s LEFT JOIN finance.risk_rule r"
	" ON r.tenant_id = s.tenant_id AND r.version = s.version AND r.enabled"
	" WHERE s.tenant_id = $1 AND CASE WHEN $2 = 0"
	" THEN s.mode IN ('live', 'shadow') ELSE s.version = $2 END"
	" ORDER BY s.mode = 'live' DESC, s.version, r.name",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery insert_measure =
{
	.sql = "INSERT INTO finance.risk_measure (tenant_id, scope, period, span,"
	" band_min, band_max) VALUES ($1, $2, $3, $4, $5, $6)",
	.nargs = 6,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, INTERVALOID, NUMERICOID,
	NUMERICOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery delete_measure =
{
	.sql = "DELETE FROM finance.risk_measure"
	" WHERE tenant_id = $1 AND measure_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* ------------------------------------------------------------------------
 * what is asked about, each once
 * ------------------------------------------------------------------------ */

static bool
is_same_number(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(b))) == 0;
}

static bool
is_same_measure(const FinMeasure *a, const FinMeasure *b)
{
	return a->scope == b->scope && a->period == b->period &&
		a->span_us == b->span_us && a->banded == b->banded &&
		(!a->banded || (is_same_number(a->band_min, b->band_min) &&
						is_same_number(a->band_max, b->band_max)));
}

int
fin_risk_find_measure(const RiskBook *book, const FinMeasure *measure)
{
	for (int i = 0; i < book->nmeasures; i++)
	{
		if (is_same_measure(&book->measures[i], measure))
			return i;
	}
	return RISK_NONE;
}

static bool
is_same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

int
fin_risk_find_probe(const RiskBook *book, const RiskProbe *probe)
{
	for (int i = 0; i < book->nprobes; i++)
	{
		const RiskProbe *other = &book->probes[i];

		if (other->subject == probe->subject &&
			is_same_text(other->list, probe->list) &&
			is_same_text(other->zone_name, probe->zone_name))
			return i;
	}
	return RISK_NONE;
}

/* room for one more element of an array in the book */
static void *
grow(void *array, int n, int *size, Size element)
{
	if (n < *size)
		return array;
	*size = Max(8, 2 * *size);
	return array == NULL ? palloc0(element * *size) :
		repalloc(array, element * *size);
}

static int
add_measure(RiskBook *book, const FinMeasure *measure)
{
	int			index = fin_risk_find_measure(book, measure);

	if (index != RISK_NONE)
		return index;
	book->measures = grow(book->measures, book->nmeasures,
						  &book->measures_size, sizeof(FinMeasure));
	book->measures[book->nmeasures] = *measure;
	return book->nmeasures++;
}

static int
add_probe(RiskBook *book, RiskProbeSubject subject, const char *list,
		  const char *zone_name, pg_tz *zone)
{
	RiskProbe	probe = {subject, list, zone_name, zone};
	int			index = fin_risk_find_probe(book, &probe);

	if (index != RISK_NONE)
		return index;
	book->probes = grow(book->probes, book->nprobes, &book->probes_size,
						sizeof(RiskProbe));
	book->probes[book->nprobes] = probe;
	return book->nprobes++;
}

static int
add_limit(RiskBook *book, const char *rule)
{
	for (int i = 0; i < book->nlimits; i++)
	{
		if (strcmp(book->limits[i], rule) == 0)
			return i;
	}
	book->limits = grow(book->limits, book->nlimits, &book->limits_size,
						sizeof(char *));
	book->limits[book->nlimits] = rule;
	return book->nlimits++;
}

bool
fin_risk_name_measures(RiskBook *book)
{
	int			n;
	const FinMeasure *counted = fin_meter_measures(book->tenant_id, &n);

	for (int i = 0; i < book->nmeasures; i++)
	{
		FinMeasure *measure = &book->measures[i];
		int			j = 0;

		while (j < n && !is_same_measure(&counted[j], measure))
			j++;
		if (j == n)
			return false;
		measure->measure_id = counted[j].measure_id;
	}
	return true;
}

bool
fin_risk_fact_measure(int fact, FinMeasure *measure)
{
	static const FinScope scopes[FIN_FACT_SCOPES] = {
		FIN_SCOPE_ACCOUNT, FIN_SCOPE_COUNTERPARTY, FIN_SCOPE_PAIR,
		FIN_SCOPE_ACCOUNT_TYPE
	};
	static const FinPeriod periods[FIN_FACT_PERIODS] = {
		FIN_PERIOD_HOUR, FIN_PERIOD_DAY, FIN_PERIOD_MONTH
	};
	int			pair;

	memset(measure, 0, sizeof(FinMeasure));
	measure->scope = FIN_SCOPE_ACCOUNT;
	switch (fact)
	{
		case FIN_FACT_LAST_DEVICE:
			measure->period = FIN_PERIOD_LAST_DEVICE;
			return true;
		case FIN_FACT_LAST_COUNTRY:
		case FIN_FACT_LAST_COUNTRY_MINUTES:
			measure->period = FIN_PERIOD_LAST_COUNTRY;
			return true;
		case FIN_FACT_PAIR_COUNT:
			measure->scope = FIN_SCOPE_PAIR;
			measure->period = FIN_PERIOD_EVER;
			return true;
		case FIN_FACT_DEVICE_COUNT:
			measure->scope = FIN_SCOPE_DEVICE;
			measure->period = FIN_PERIOD_EVER;
			return true;
		default:
			if (fact < FIN_FACT_TOTALS)
				return false;
	}
	pair = (fact - FIN_FACT_TOTALS) / 2;
	measure->scope = scopes[pair / FIN_FACT_PERIODS];
	measure->period = periods[pair % FIN_FACT_PERIODS];
	return true;
}

/* ------------------------------------------------------------------------
 * one rule
 * ------------------------------------------------------------------------ */

static int
read_int(uint64 row, Column column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static bool
read_bool(uint64 row, Column column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

static Numeric
read_numeric(uint64 row, Column column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetNumericCopy(value);
}

/* microseconds; a month is 30 days.  0: null */
static int64
read_span(uint64 row, Column column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);
	Interval   *span;

	if (isnull)
		return 0;
	span = DatumGetIntervalP(value);
	return (span->month * INT64CONST(30) + span->day) * USECS_PER_DAY +
		span->time;
}

static uint8
read_weekdays(uint64 row)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, COL_WEEKDAYS, &isnull);
	uint8		weekdays = 0;
	Datum	   *days;
	bool	   *nulls;
	int			n;

	if (isnull)
		return 0;
	deconstruct_array(DatumGetArrayTypeP(value), INT4OID, 4, true,
					  TYPALIGN_INT, &days, &nulls, &n);
	for (int i = 0; i < n; i++)
		weekdays |= 1 << DatumGetInt32(days[i]);
	return weekdays;
}

static pg_tz *
find_zone(const char *name)
{
	pg_tz	   *zone = name == NULL ? NULL : pg_tzset(name);

	if (name != NULL && zone == NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("time zone \"%s\" is not known", name));
	return zone;
}

static void
read_times(uint64 row, RiskRule *rule)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, COL_WINDOW_START, &isnull);

	rule->has_window = !isnull;
	rule->window_start = isnull ? 0 : DatumGetTimeADT(value);
	value = fin_query_datum(row, COL_WINDOW_END, &isnull);
	rule->window_end = isnull ? 0 : DatumGetTimeADT(value);
	rule->zone_name = fin_query_text(row, COL_ZONE);
	rule->zone = find_zone(rule->zone_name);
	rule->weekdays = read_weekdays(row);
	rule->span_us = read_span(row, COL_SPAN);
	rule->times = read_int(row, COL_TIMES);
}

static FinScope
parse_scope(const char *per)
{
	if (per == NULL || strcmp(per, "account") == 0)
		return FIN_SCOPE_ACCOUNT;
	if (strcmp(per, "counterparty") == 0)
		return FIN_SCOPE_COUNTERPARTY;
	if (strcmp(per, "pair") == 0)
		return FIN_SCOPE_PAIR;
	if (strcmp(per, "account_type") == 0)
		return FIN_SCOPE_ACCOUNT_TYPE;
	if (strcmp(per, "type") == 0)
		return FIN_SCOPE_TYPE;
	elog(ERROR, "unknown scope of a risk rule \"%s\"", per);
}

static FinPeriod
parse_period(const char *period)
{
	if (period == NULL)
		return FIN_PERIOD_SLIDING;
	if (strcmp(period, "hour") == 0)
		return FIN_PERIOD_HOUR;
	if (strcmp(period, "day") == 0)
		return FIN_PERIOD_DAY;
	if (strcmp(period, "month") == 0)
		return FIN_PERIOD_MONTH;
	elog(ERROR, "unknown period of a risk rule \"%s\"", period);
}

/* what a counting rule adds up */
static void
add_total(RiskBook *book, uint64 row, RiskRule *rule)
{
	char	   *per = fin_query_text(row, COL_PER);
	char	   *period = fin_query_text(row, COL_PERIOD);
	FinMeasure	measure = {0};

	measure.scope = parse_scope(per);
	measure.period = parse_period(period);
	if (period == NULL)
		measure.span_us = rule->span_us;
	if (rule->kind == FIN_RULE_STRUCTURING)
	{
		measure.banded = true;
		measure.band_min = rule->minimum;
		measure.band_max = rule->threshold;
	}
	rule->measure = add_measure(book, &measure);
	rule->window_text = psprintf("%s, %s", per != NULL ? per : "account",
								 period != NULL ? period :
								 fin_risk_span_text(rule->span_us));
}

static void
add_simple_measure(RiskBook *book, RiskRule *rule, FinScope scope,
				   FinPeriod period)
{
	FinMeasure	measure = {.scope = scope, .period = period};

	rule->measure = add_measure(book, &measure);
}

/* who must be, or must not be, on the list */
static void
add_list(RiskBook *book, uint64 row, RiskRule *rule)
{
	char	   *list = fin_query_text(row, COL_LIST);
	char	   *subject = fin_query_text(row, COL_SUBJECT);

	if (list == NULL)
		list = pstrdup(fin_rule_kinds[rule->kind].name);
	if (subject == NULL)
		subject = rule->kind == FIN_RULE_ALLOWLIST ? "payee" : "account";
	if (strcmp(subject, "account") == 0)
	{
		rule->probe = add_probe(book, RISK_PROBE_PAYER, list, NULL, NULL);
		rule->second_probe = add_probe(book, RISK_PROBE_PAYEE, list, NULL, NULL);
	}
	else
		rule->probe = add_probe(book,
								strcmp(subject, "payer") == 0 ? RISK_PROBE_PAYER :
								strcmp(subject, "payee") == 0 ? RISK_PROBE_PAYEE :
								strcmp(subject, "country") == 0 ? RISK_PROBE_COUNTRY :
								RISK_PROBE_DEVICE, list, NULL, NULL);
}

static void
add_expression(RiskBook *book, uint64 row, RiskRule *rule)
{
	char	   *on_error = fin_query_text(row, COL_ON_ERROR);

	rule->expression_text = fin_query_text(row, COL_EXPRESSION);
	rule->expression = fin_expr_compile(rule->expression_text, fin_fact_vars(),
										FIN_FACT_COUNT, book->memory);
	rule->on_error = on_error == NULL ? FIN_RISK_REVIEW :
		fin_risk_parse_outcome(on_error);
	rule->used = palloc(sizeof(int) * FIN_FACT_COUNT);
	for (int fact = 0; fact < FIN_FACT_COUNT; fact++)
	{
		FinMeasure	measure;

		if (!fin_expr_uses(rule->expression, fact))
			continue;
		rule->used[rule->nused++] = fact;
		if (fin_risk_fact_measure(fact, &measure))
			(void) add_measure(book, &measure);
		if (fact == FIN_FACT_IS_HOLIDAY)
			(void) add_probe(book, RISK_PROBE_HOLIDAY, "default", NULL, NULL);
		if (fact == FIN_FACT_METADATA)
			book->uses_metadata = true;
	}
}

/* what the rule asks about besides the transfer itself */
static void
add_questions(RiskBook *book, uint64 row, RiskRule *rule)
{
	char	   *calendar = fin_query_text(row, COL_CALENDAR);

	switch (rule->kind)
	{
		case FIN_RULE_TOTAL_LIMIT:
		case FIN_RULE_COUNT_LIMIT:
		case FIN_RULE_VELOCITY:
		case FIN_RULE_STRUCTURING:
			add_total(book, row, rule);
			break;
		case FIN_RULE_NEW_COUNTERPARTY:
			add_simple_measure(book, rule, FIN_SCOPE_PAIR, FIN_PERIOD_EVER);
			break;
		case FIN_RULE_NEW_DEVICE:
			add_simple_measure(book, rule, FIN_SCOPE_DEVICE, FIN_PERIOD_EVER);
			break;
		case FIN_RULE_DEVICE_CHANGE:
			add_simple_measure(book, rule, FIN_SCOPE_ACCOUNT,
							   FIN_PERIOD_LAST_DEVICE);
			break;
		case FIN_RULE_GEOGRAPHY_JUMP:
			add_simple_measure(book, rule, FIN_SCOPE_ACCOUNT,
							   FIN_PERIOD_LAST_COUNTRY);
			break;
		case FIN_RULE_BLOCKLIST:
		case FIN_RULE_WATCHLIST:
		case FIN_RULE_ALLOWLIST:
			add_list(book, row, rule);
			break;
		case FIN_RULE_EXPRESSION:
			add_expression(book, row, rule);
			break;
		default:
			break;
	}
	if (calendar != NULL)
		rule->probe = add_probe(book, RISK_PROBE_HOLIDAY, calendar,
								rule->zone_name, rule->zone);
	/* the band of a structuring rule is what is counted: it stays */
	if (rule->threshold != NULL && rule->kind != FIN_RULE_STRUCTURING)
		rule->limit = add_limit(book, rule->name);
}

static void
read_rule(RiskBook *book, uint64 row, RiskRule *rule)
{
	char	   *kind = fin_query_text(row, COL_KIND);
	bool		isnull;
	Datum		account_id = fin_query_datum(row, COL_ACCOUNT_ID, &isnull);

	rule->name = fin_query_text(row, COL_NAME);
	rule->kind = fin_rule_kind_of(kind);
	if (rule->kind == FIN_RULE_KINDS)
		elog(ERROR, "unknown kind of risk rule \"%s\"", kind);
	rule->outcome = fin_risk_parse_outcome(fin_query_text(row, COL_OUTCOME));
	rule->score = read_int(row, COL_SCORE);
	rule->account_id = isnull ? 0 : DatumGetInt64(account_id);
	rule->account_type = fin_query_text(row, COL_ACCOUNT_TYPE);
	rule->level = fin_query_text(row, COL_LEVEL);
	rule->currency = fin_query_text(row, COL_CURRENCY);
	rule->type = fin_query_text(row, COL_TYPE);
	rule->threshold = read_numeric(row, COL_THRESHOLD);
	rule->minimum = read_numeric(row, COL_MINIMUM);
	if (rule->threshold != NULL)
		rule->threshold_floors = palloc(sizeof(FinAmount) *
										(FIN_AMOUNT_MAX_SCALE + 1));
	if (rule->minimum != NULL)
		rule->minimum_ceilings = palloc(sizeof(FinAmount) *
										(FIN_AMOUNT_MAX_SCALE + 1));
	rule->measure = rule->probe = rule->second_probe = rule->limit = RISK_NONE;
	read_times(row, rule);
	add_questions(book, row, rule);
}

/* ------------------------------------------------------------------------
 * the book
 * ------------------------------------------------------------------------ */

static void
read_ruleset(uint64 row, RiskRuleset *ruleset)
{
	ruleset->version = read_int(row, COL_VERSION);
	ruleset->is_live = read_bool(row, COL_LIVE);
	ruleset->score_report = read_int(row, COL_SCORE_REPORT);
	ruleset->score_challenge = read_int(row, COL_SCORE_CHALLENGE);
	ruleset->score_review = read_int(row, COL_SCORE_REVIEW);
	ruleset->score_reject = read_int(row, COL_SCORE_REJECT);
	ruleset->review_timeout_us = read_span(row, COL_REVIEW_TIMEOUT);
	ruleset->challenge_timeout_us = read_span(row, COL_CHALLENGE_TIMEOUT);
	ruleset->review_default_approve = read_bool(row, COL_APPROVE);
}

/* rows from *row on that are of one ruleset */
static void
read_rules(RiskBook *book, uint64 nrows, uint64 *row, RiskRuleset *ruleset)
{
	uint64		first = *row;
	bool		isnull;

	read_ruleset(first, ruleset);
	while (*row < nrows && read_int(*row, COL_VERSION) == ruleset->version)
		(*row)++;
	(void) fin_query_datum(first, COL_NAME, &isnull);
	if (isnull)
		return;					/* without rules */
	ruleset->rules = palloc0(sizeof(RiskRule) * (*row - first));
	for (uint64 i = first; i < *row; i++)
		read_rule(book, i, &ruleset->rules[ruleset->nrules++]);
}

RiskBook *
fin_risk_compile(int32 tenant_id, int32 version, MemoryContext parent)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int32GetDatum(version)};
	uint64		nrows = fin_query_run(&select_rules, values, NULL, 0);
	SPITupleTable *rows = SPI_tuptable;
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "finance risk rules",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(memory);
	RiskBook   *book = palloc0(sizeof(RiskBook));
	uint64		row = 0;

	book->tenant_id = tenant_id;
	book->memory = memory;
	book->rulesets = palloc0(sizeof(RiskRuleset) * (FIN_SHADOWS_MAX + 1));
	while (row < nrows && book->nrulesets <= FIN_SHADOWS_MAX)
	{
		SPI_tuptable = rows;
		read_rules(book, nrows, &row, &book->rulesets[book->nrulesets++]);
	}
	MemoryContextSwitchTo(old);
	if (version != 0 && book->nrulesets == 0)
	{
		MemoryContextDelete(memory);
		return NULL;
	}
	/* only now: after an error above it goes with the caller's memory */
	MemoryContextSetParent(memory, parent);
	return book;
}

/* ------------------------------------------------------------------------
 * what is counted
 * ------------------------------------------------------------------------ */

static void
add_missing_measure(int32 tenant_id, const FinMeasure *measure)
{
	Datum		values[6] = {Int32GetDatum(tenant_id)};
	char		nulls[6] = {' ', ' ', ' ', 'n', 'n', 'n'};

	values[1] = CStringGetTextDatum(fin_measure_scope_name(measure->scope));
	values[2] = CStringGetTextDatum(fin_measure_period_name(measure->period));
	if (measure->period == FIN_PERIOD_SLIDING)
	{
		Interval   *span = palloc0(sizeof(Interval));

		span->time = measure->span_us;
		values[3] = IntervalPGetDatum(span);
		nulls[3] = ' ';
	}
	if (measure->banded)
	{
		values[4] = NumericGetDatum(measure->band_min);
		values[5] = NumericGetDatum(measure->band_max);
		nulls[4] = nulls[5] = ' ';
	}
	/* it is counted while nobody pays, since no account's lock covers it */
	if (measure->scope == FIN_SCOPE_TYPE)
		fin_query_utility("LOCK TABLE finance.transfer IN SHARE MODE");
	fin_query_run(&insert_measure, values, nulls, 0);
}

static void
drop_measure(int32 tenant_id, int32 measure_id)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int32GetDatum(measure_id)};

	fin_query_run(&delete_measure, values, NULL, 0);
}

void
fin_risk_follow_rulesets(int32 tenant_id)
{
	RiskBook   *book = fin_risk_compile(tenant_id, 0, CurrentMemoryContext);
	int			n;
	const FinMeasure *counted = fin_meter_measures(tenant_id, &n);
	int32	   *unneeded = palloc(sizeof(int32) * (n + 1));
	int			nunneeded = 0;

	if (book->nmeasures > FIN_MEASURES_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("the rulesets in force count %d different totals",
					   book->nmeasures),
				errdetail("The most is %d.", FIN_MEASURES_MAX));
	for (int i = 0; i < n; i++)
	{
		int			index = fin_risk_find_measure(book, &counted[i]);

		if (index == RISK_NONE)
			unneeded[nunneeded++] = counted[i].measure_id;
		else
			book->measures[index].measure_id = counted[i].measure_id;
	}
	for (int i = 0; i < nunneeded; i++)
		drop_measure(tenant_id, unneeded[i]);
	for (int i = 0; i < book->nmeasures; i++)
	{
		if (book->measures[i].measure_id == 0)
			add_missing_measure(tenant_id, &book->measures[i]);
	}
}

void
fin_risk_check_expression(const char *text)
{
	fin_expr_free(fin_expr_compile(text, fin_fact_vars(), FIN_FACT_COUNT,
								   CurrentMemoryContext));
}
