/*
 * risk.c
 *		Rules that judge a movement under its accounts' locks.
 *
 * Owns: per tenant, its enabled rules, in one memory context; invalidated with
 * finance.risk_rule, and emptied when more tenants come by than it holds.
 *
 * The facts (amount, what the account spent today) are those of the locked
 * rows, so a cumulative limit is exact however many clients there are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "cache.h"
#include "list.h"
#include "query.h"
#include "risk.h"

#define TENANTS_CACHED_MAX	16

typedef enum RuleKind
{
	RULE_TRANSFER_LIMIT,
	RULE_DAILY_LIMIT,
	RULE_NIGHT_WINDOW,
	RULE_BLOCKLIST
} RuleKind;

typedef struct Rule
{
	const char *name;
	const char *kind_name;
	RuleKind	kind;
	int64		account_id;		/* of the side debited; 0: any */
	const char *currency;		/* NULL: any */
	Numeric		threshold;		/* NULL: none */
	TimeADT		window_start;
	TimeADT		window_end;
	uint32		floors_known;	/* bit s: floors[s] is filled */
	FinAmount	floors[FIN_AMOUNT_MAX_SCALE + 1];	/* threshold by scale */
} Rule;

typedef struct RuleBook
{
	int32		tenant_id;
	int			nrules;
	Rule	   *rules;			/* by name */
} RuleBook;

static FinCache rule_cache = {.table = "risk_rule"};
static MemoryContext books_context = NULL;
static RuleBook *books[TENANTS_CACHED_MAX];
static int	nbooks = 0;

static FinQuery select_rules =
{
	.sql = "SELECT name, kind, account_id, currency, threshold, window_start,"
	" window_end FROM finance.risk_rule"
	" WHERE tenant_id = $1 AND enabled ORDER BY name",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * the rule book
 * ------------------------------------------------------------------------ */

static RuleKind
parse_kind(const char *kind)
{
	if (strcmp(kind, "transfer_limit") == 0)
		return RULE_TRANSFER_LIMIT;
	if (strcmp(kind, "daily_limit") == 0)
		return RULE_DAILY_LIMIT;
	if (strcmp(kind, "night_window") == 0)
		return RULE_NIGHT_WINDOW;
	if (strcmp(kind, "blocklist") == 0)
		return RULE_BLOCKLIST;
	elog(ERROR, "unknown kind of risk rule \"%s\"", kind);
}

/* call with the book's context current */
static void
read_rule(uint64 row, Rule *rule)
{
	bool		isnull;
	Datum		value;

	rule->name = fin_query_text(row, 1);
	rule->kind_name = fin_query_text(row, 2);
	rule->kind = parse_kind(rule->kind_name);
	value = fin_query_datum(row, 3, &isnull);
	rule->account_id = isnull ? 0 : DatumGetInt64(value);
	rule->currency = fin_query_text(row, 4);
	value = fin_query_datum(row, 5, &isnull);
	rule->threshold = isnull ? NULL : DatumGetNumericCopy(value);
	value = fin_query_datum(row, 6, &isnull);
	rule->window_start = isnull ? 0 : DatumGetTimeADT(value);
	value = fin_query_datum(row, 7, &isnull);
	rule->window_end = isnull ? 0 : DatumGetTimeADT(value);
}

static void
read_rules(RuleBook *book)
{
	Datum		values[1] = {Int32GetDatum(book->tenant_id)};
	MemoryContext old;

	book->nrules = (int) fin_query_run(&select_rules, values, NULL, 0);
	old = MemoryContextSwitchTo(books_context);
	book->rules = palloc0(sizeof(Rule) * Max(book->nrules, 1));
	for (int i = 0; i < book->nrules; i++)
		read_rule(i, &book->rules[i]);
	MemoryContextSwitchTo(old);
}

static void
forget_books(void)
{
	if (books_context == NULL)
		books_context = AllocSetContextCreate(TopMemoryContext,
											  "finance risk rules",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(books_context);
	nbooks = 0;
}

static RuleBook *
load_book(int32 tenant_id)
{
	RuleBook   *book;

	if (!fin_cache_loading(&rule_cache) || books_context == NULL ||
		nbooks == TENANTS_CACHED_MAX)
		forget_books();
	book = MemoryContextAllocZero(books_context, sizeof(RuleBook));
	book->tenant_id = tenant_id;
	read_rules(book);
	books[nbooks++] = book;		/* only now: an ERROR above leaves no half */
	return book;
}

static RuleBook *
find_book(int32 tenant_id)
{
	if (fin_cache_valid(&rule_cache))
	{
		for (int i = 0; i < nbooks; i++)
		{
			if (books[i]->tenant_id == tenant_id)
				return books[i];
		}
	}
	return load_book(tenant_id);
}

/* ------------------------------------------------------------------------
 * the rules
 * ------------------------------------------------------------------------ */

static void
add_hit(FinVerdict *verdict, const Rule *rule, const char *observed,
		const char *threshold)
{
	FinDecisionRow *hit;

	verdict->outcome = FIN_RISK_REJECT;
	if (verdict->nhits == FIN_RISK_HITS_MAX)
		return;
	hit = &verdict->hits[verdict->nhits++];
	/* copies: a trigger of somebody may have the rules reloaded meanwhile */
	hit->rule = pstrdup(rule->name);
	hit->kind = pstrdup(rule->kind_name);
	hit->observed = observed;
	hit->threshold = threshold;
}

static char *
threshold_text(const Rule *rule)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out,
											   NumericGetDatum(rule->threshold)));
}

static FinAmount
threshold_at(Rule *rule, int scale)
{
	if ((rule->floors_known & (1U << scale)) == 0)
	{
		rule->floors[scale] = fin_amount_floor(rule->threshold, scale);
		rule->floors_known |= 1U << scale;
	}
	return rule->floors[scale];
}

static void
judge_amount(Rule *rule, const FinMovement *movement, FinAmount observed,
			 FinVerdict *verdict)
{
	int			scale = movement->from->scale;

	if (observed > threshold_at(rule, scale))
		add_hit(verdict, rule, fin_amount_text(observed, scale),
				threshold_text(rule));
}

static bool
in_window(const Rule *rule, TimeADT time)
{
	if (rule->window_start <= rule->window_end)
		return time >= rule->window_start && time < rule->window_end;
	return time >= rule->window_start || time < rule->window_end;	/* over midnight */
}

static char *
time_text(TimeADT time)
{
	return DatumGetCString(DirectFunctionCall1(time_out, TimeADTGetDatum(time)));
}

static void
judge_window(Rule *rule, const FinMovement *movement, TimeADT time,
			 FinVerdict *verdict)
{
	if (!in_window(rule, time))
		return;
	if (rule->threshold != NULL &&
		movement->amount <= threshold_at(rule, movement->from->scale))
		return;
	add_hit(verdict, rule,
			psprintf("%s at %s",
					 fin_amount_text(movement->amount, movement->from->scale),
					 time_text(time)),
			psprintf("%s from %s to %s",
					 rule->threshold != NULL ? threshold_text(rule) : "nothing",
					 time_text(rule->window_start),
					 time_text(rule->window_end)));
}

static bool
is_blocked(int32 tenant_id, const FinAccount *account, TimestampTz now)
{
	return fin_list_contains(tenant_id, FIN_LIST_BLOCKLIST, FIN_LIST_ACCOUNT,
							 account->code, now);
}

static void
judge_blocklist(const RuleBook *book, Rule *rule, const FinMovement *movement,
				FinVerdict *verdict)
{
	if (is_blocked(book->tenant_id, movement->from, movement->now))
		add_hit(verdict, rule, movement->from->code, "blocklist");
	if (is_blocked(book->tenant_id, movement->to, movement->now))
		add_hit(verdict, rule, movement->to->code, "blocklist");
}

static bool
rule_applies(const Rule *rule, const FinMovement *movement)
{
	if (rule->account_id != 0 &&
		rule->account_id != movement->from->account_id)
		return false;
	return rule->currency == NULL ||
		strcmp(rule->currency, movement->from->currency) == 0;
}

void
fin_risk_judge(int32 tenant_id, const FinMovement *movement,
			   TimeADT time_of_day, FinVerdict *verdict)
{
	RuleBook   *book = find_book(tenant_id);

	verdict->outcome = FIN_RISK_PASS;
	verdict->nhits = 0;
	for (int i = 0; i < book->nrules; i++)
	{
		Rule	   *rule = &book->rules[i];

		if (!rule_applies(rule, movement))
			continue;
		switch (rule->kind)
		{
			case RULE_TRANSFER_LIMIT:
				judge_amount(rule, movement, movement->amount, verdict);
				break;
			case RULE_DAILY_LIMIT:
				judge_amount(rule, movement,
							 fin_engine_spent(movement->from,
											  movement->business_date) +
							 movement->amount, verdict);
				break;
			case RULE_NIGHT_WINDOW:
				judge_window(rule, movement, time_of_day, verdict);
				break;
			case RULE_BLOCKLIST:
				judge_blocklist(book, rule, movement, verdict);
				break;
		}
	}
}

void
fin_risk_init(void)
{
	fin_cache_register(&rule_cache);
}
