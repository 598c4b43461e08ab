/*
 * risk.c
 *		Rules that judge a movement under its accounts' locks.
 *
 * Owns: per tenant, its compiled rulesets in force, each in a memory context of
 * its own; invalidated with finance.ruleset, and emptied when more tenants come
 * by than it holds.  Per tenant its holidays, with finance.holiday.
 *
 * The facts (amount, what the account spent today, totals) are those of the
 * locked rows, so a limit is exact however many clients there are.  All rules
 * that could hit are asked; the highest outcome wins.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "portability/instr_time.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "cache.h"
#include "query.h"
#include "risk_parts.h"

#define TENANTS_CACHED_MAX	16
#define COMPILE_TRIES_MAX	10

typedef struct Holiday
{
	int32		tenant_id;
	DateADT		day;
	const char *calendar;
} Holiday;

static FinCache ruleset_cache = {.table = "ruleset"};
static FinCache holiday_cache = {.table = "holiday"};
static MemoryContext books_context = NULL;
static RiskBook *books[TENANTS_CACHED_MAX];
static int	nbooks = 0;
static RiskBook *old_books = NULL;
static MemoryContext holidays_context = NULL;
static Holiday *holidays = NULL;
static int	nholidays = 0;
static int32 holidays_tenant = -1;

static FinQuery select_holidays =
{
	.sql = "SELECT calendar, day FROM finance.holiday WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * words
 * ------------------------------------------------------------------------ */

static const char *const outcome_names[] = {
	"pass", "report", "challenge", "review", "reject"
};

const char *
fin_risk_outcome_name(FinRiskOutcome outcome)
{
	return outcome_names[outcome];
}

FinRiskOutcome
fin_risk_parse_outcome(const char *name)
{
	for (int i = 0; i < (int) lengthof(outcome_names); i++)
	{
		if (strcmp(outcome_names[i], name) == 0)
			return (FinRiskOutcome) i;
	}
	elog(ERROR, "unknown outcome of a risk rule \"%s\"", name);
}

/* ------------------------------------------------------------------------
 * the rules in force
 * ------------------------------------------------------------------------ */

/* frees what is out of date and that no running transaction holds */
static void
free_old_books(void)
{
	RiskBook  **link = &old_books;

	while (*link != NULL)
	{
		RiskBook   *book = *link;

		if (book->held_by == FIN_MY_LXID)
			link = &book->next;
		else
		{
			*link = book->next;
			MemoryContextDelete(book->memory);
		}
	}
}

static void
forget_books(void)
{
	while (nbooks > 0)
	{
		RiskBook   *book = books[--nbooks];

		book->next = old_books;
		old_books = book;
	}
	free_old_books();
}

/*
 * Rulesets and measures are published by one transaction but read by two
 * statements: when one was published in between, both are read anew.
 */
static RiskBook *
compile_in_force(int32 tenant_id)
{
	for (int i = 0; i < COMPILE_TRIES_MAX; i++)
	{
		RiskBook   *book = fin_risk_compile(tenant_id, 0, books_context);

		if (fin_risk_name_measures(book))
			return book;
		MemoryContextDelete(book->memory);
		AcceptInvalidationMessages();
	}
	ereport(ERROR,
			errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			errmsg("risk rules are being published again and again"),
			errhint("Try again."));
}

static RiskBook *
load_book(int32 tenant_id)
{
	RiskBook   *book;

	if (books_context == NULL)
		books_context = AllocSetContextCreate(TopMemoryContext,
											  "finance rulesets",
											  ALLOCSET_DEFAULT_SIZES);
	/* news that comes in while it is compiled makes the cache invalid again */
	if (!fin_cache_loading(&ruleset_cache) || nbooks == TENANTS_CACHED_MAX)
		forget_books();
	book = compile_in_force(tenant_id);
	books[nbooks++] = book;
	return book;
}

static RiskBook *
find_book(int32 tenant_id)
{
	if (fin_cache_valid(&ruleset_cache))
	{
		for (int i = 0; i < nbooks; i++)
		{
			if (books[i]->tenant_id == tenant_id)
				return books[i];
		}
	}
	return load_book(tenant_id);
}

RiskBook *
fin_risk_hold(int32 tenant_id)
{
	RiskBook   *book = find_book(tenant_id);

	if (book->nrulesets == 0)
		return NULL;
	book->held_by = FIN_MY_LXID;
	return book;
}

bool
fin_risk_is_counted(const RiskBook *book, const FinMeasure *measures, int n)
{
	for (int i = 0; i < book->nmeasures; i++)
	{
		int			j = 0;

		while (j < n && measures[j].measure_id != book->measures[i].measure_id)
			j++;
		if (j == n)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * holidays
 * ------------------------------------------------------------------------ */

static int
compare_holidays(const void *a, const void *b)
{
	const Holiday *x = a;
	const Holiday *y = b;

	if (x->day != y->day)
		return x->day < y->day ? -1 : 1;
	return strcmp(x->calendar, y->calendar);
}

static void
load_holidays(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	MemoryContext old;

	(void) fin_cache_loading(&holiday_cache);
	holidays_tenant = -1;
	nholidays = 0;
	if (holidays_context == NULL)
		holidays_context = AllocSetContextCreate(TopMemoryContext,
												 "finance holidays",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(holidays_context);
	nholidays = (int) fin_query_run(&select_holidays, values, NULL, 0);
	old = MemoryContextSwitchTo(holidays_context);
	holidays = palloc(sizeof(Holiday) * (nholidays + 1));
	for (int i = 0; i < nholidays; i++)
	{
		bool		isnull;

		holidays[i].calendar = fin_query_text(i, 1);
		holidays[i].day = DatumGetDateADT(fin_query_datum(i, 2, &isnull));
	}
	MemoryContextSwitchTo(old);
	qsort(holidays, nholidays, sizeof(Holiday), compare_holidays);
	holidays_tenant = tenant_id;
}

bool
fin_risk_is_holiday(int32 tenant_id, const char *calendar, DateADT date)
{
	Holiday		wanted = {.day = date, .calendar = calendar};

	if (!fin_cache_valid(&holiday_cache) || holidays_tenant != tenant_id)
		load_holidays(tenant_id);
	return bsearch(&wanted, holidays, nholidays, sizeof(Holiday),
				   compare_holidays) != NULL;
}

/* ------------------------------------------------------------------------
 * judging
 * ------------------------------------------------------------------------ */

static void
take_live(const RiskRuleset *ruleset, const FinRiskJudgement *live,
		  FinVerdict *verdict)
{
	verdict->outcome = live->outcome;
	verdict->version = live->version;
	verdict->score = live->score;
	verdict->rule = live->rule;
	verdict->nhits = live->nhits;
	verdict->hits = live->hits;
	verdict->review_timeout_us = ruleset->review_timeout_us;
	verdict->challenge_timeout_us = ruleset->challenge_timeout_us;
	verdict->review_default_approve = ruleset->review_default_approve;
}

void
fin_risk_judge(const FinRiskSubject *subject, FinVerdict *verdict)
{
	RiskBook   *book = subject->book;
	RiskFacts	facts;
	instr_time	start;
	instr_time	end;
	bool		any_hit = false;

	memset(verdict, 0, sizeof(FinVerdict));
	if (book == NULL)
		return;
	INSTR_TIME_SET_CURRENT(start);
	fin_risk_gather(book, subject, &facts);
	verdict->njudgements = book->nrulesets;
	verdict->judgements = palloc(sizeof(FinRiskJudgement) * book->nrulesets);
	for (int i = 0; i < book->nrulesets; i++)
	{
		fin_risk_evaluate_movement(&book->rulesets[i], &facts,
								   &verdict->judgements[i]);
		any_hit = any_hit || verdict->judgements[i].nhits > 0;
	}
	if (book->rulesets[0].is_live)
		take_live(&book->rulesets[0], &verdict->judgements[0], verdict);
	/* the inputs are what all rules ask about, whichever hit */
	for (int i = 0; i < book->nrulesets && any_hit; i++)
		fin_risk_ask_rest(&book->rulesets[i], &facts);
	if (any_hit)
		verdict->inputs = fin_risk_inputs(&facts);
	fin_risk_free(&facts);
	if (!any_hit)
		return;
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	verdict->latency_ns = (int64) (INSTR_TIME_GET_DOUBLE(end) * 1e9);
}

void
fin_risk_init(void)
{
	fin_cache_register(&ruleset_cache);
	fin_cache_register(&holiday_cache);
}
