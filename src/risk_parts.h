/*
 * risk_parts.h
 *		What the parts of the risk module share; included by risk*.c only.
 *
 * risk.c keeps the compiled rules and judges by them; risk_compile.c makes
 * rules of rows; risk_facts.c finds out what a rule asks about a transfer;
 * risk_evaluate.c is the rules, over facts alone, and risk_sieve.c tells which
 * of them need not be asked; risk_record.c writes down facts and judgements, and reads facts again; risk_explain.c asks without
 * moving money, and replays; risk_past.c meets transfers of the past with their
 * facts, and risk_backtest.c tells what rules would have said of them.
 */
#ifndef FIN_RISK_PARTS_H
#define FIN_RISK_PARTS_H

#include "pgtime.h"

#include "expr.h"
#include "fact.h"
#include "list.h"
#include "measure.h"
#include "risk.h"
#include "rule_kind.h"

#define RISK_NONE (-1)			/* no measure, probe or limit */

/* what is observed of an expression that failed: this, and the error's words */
#define RISK_ERROR_PREFIX "error: "

/* membership that is asked about: of a list, or of a calendar */
typedef enum RiskProbeSubject
{
	RISK_PROBE_PAYER,
	RISK_PROBE_PAYEE,
	RISK_PROBE_COUNTRY,
	RISK_PROBE_DEVICE,
	RISK_PROBE_HOLIDAY
} RiskProbeSubject;

typedef struct RiskProbe
{
	RiskProbeSubject subject;
	const char *list;			/* or calendar */
	const char *zone_name;		/* of a holiday; NULL: the tenant's */
	pg_tz	   *zone;
} RiskProbe;

typedef struct RiskRule
{
	const char *name;
	FinRuleKind kind;
	FinRiskOutcome outcome;
	int			score;

	/* whom it is about; 0 and NULL: anybody */
	int64		account_id;
	const char *account_type;
	const char *level;
	const char *currency;
	const char *type;

	Numeric		threshold;		/* or NULL */
	Numeric		minimum;
	uint32		floors_known;	/* bit s: floors of scale s are filled */
	FinAmount  *threshold_floors;	/* by scale; NULL: no threshold */
	FinAmount  *minimum_ceilings;
	int			times;
	int64		span_us;
	const char *window_text;	/* of a measure, as it is told */
	bool		has_window;
	TimeADT		window_start;
	TimeADT		window_end;
	const char *zone_name;
	pg_tz	   *zone;			/* NULL: the tenant's */
	uint8		weekdays;		/* bit d: Monday is 1; 0: not stated */

	int			measure;		/* index in the book, or RISK_NONE */
	int			probe;
	int			second_probe;	/* both sides of 'account' */
	int			limit;

	FinExpr    *expression;
	int			nused;
	int		   *used;			/* the facts it names */
	const char *expression_text;
	FinRiskOutcome on_error;
} RiskRule;

/*
 * What tells of a rule, without looking at it, that it has nothing to say: the
 * amount is below the least, or the transfer is not what the rule is about.
 */
typedef struct RiskSieve
{
	int64		least;			/* PG_INT64_MAX: or above */
	int64		account_id;		/* 0: any payer */
	uint64		tags;			/* of currency, types and level */
	uint64		mask;			/* those of them that are stated */
} RiskSieve;

typedef struct RiskRuleset
{
	int32		version;
	bool		is_live;
	int			score_report;	/* 0: never */
	int			score_challenge;
	int			score_review;
	int			score_reject;
	int64		review_timeout_us;
	int64		challenge_timeout_us;
	bool		review_default_approve;
	int			nrules;
	RiskRule   *rules;			/* by name */

	/* by the scale of amounts; as the rules.  NULL: not made yet, */
	RiskSieve  *sieves[FIN_AMOUNT_MAX_SCALE + 1];
	uint64		sieve_limits[FIN_AMOUNT_MAX_SCALE + 1];	/* or of other limits */
} RiskRuleset;

/* rulesets compiled together, and what they ask for */
struct RiskBook
{
	int32		tenant_id;
	LocalTransactionId held_by; /* must be kept while this is running */
	RiskBook   *next;			/* out of date, but held */
	MemoryContext memory;
	int			nrulesets;
	RiskRuleset *rulesets;		/* the live one first */
	int			nmeasures;
	int			measures_size;
	FinMeasure *measures;		/* measure_id 0: not looked up */
	int			nprobes;
	int			probes_size;
	RiskProbe  *probes;
	int			nlimits;
	int			limits_size;
	const char **limits;		/* names of rules whose limits may differ */
	bool		uses_metadata;	/* an expression does */
};

/* what is looked up when first asked for */
typedef struct RiskMeasured
{
	bool		is_known;
	FinMeasureTotal total;		/* ever: but for what is parked still */
	bool		unconfirmed;	/* the last was of what is parked, or was */
	const char *last;			/* or NULL; NULL as well when unconfirmed */
	TimestampTz last_at;
} RiskMeasured;

typedef struct RiskProbed
{
	bool		is_known;
	bool		is_member;
} RiskProbed;

typedef struct RiskLimited
{
	bool		is_known;
	Numeric		threshold;		/* NULL: the rule's own */
} RiskLimited;

/* one side's account, as it was before */
typedef struct RiskParty
{
	int64		account_id;
	const char *code;
	const char *type;
	const char *level;			/* or NULL */
	TimestampTz created_at;
	FinAmount	balance;
} RiskParty;

/* all that rules can ask about one transfer */
typedef struct RiskFacts
{
	const RiskBook *book;
	const FinRiskSubject *subject;	/* NULL: a replay, all is known */
	int			scale;
	FinAmount	amount;
	FinAmount	available;
	FinAmount	spent;			/* on the business date, before */
	const char *currency;
	const char *type;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
	const char *device;			/* or NULL */
	const char *country;		/* or NULL */
	bool		odd_device;		/* metadata has one that cannot be used */
	bool		odd_country;
	bool		is_hold;
	bool		is_reversal;
	RiskParty	from;
	RiskParty	to;
	bool		has_last;		/* false: unknown, of a replay */
	TimestampTz last_at;		/* the payer's last debit, or when opened */
	TimestampTz now;
	DateADT		date;
	TimeADT		time_of_day;
	FinExprValue *values;		/* of facts that expressions name */
	bool	   *values_known;
	RiskMeasured *measured;		/* as the book's measures */
	RiskProbed *probed;
	RiskLimited *limited;
} RiskFacts;

/* what one rule says */
typedef struct RiskAnswer
{
	bool		wants_words;	/* also when it does not hit */
	bool		applies;
	bool		hit;
	FinRiskOutcome outcome;
	const char *observed;
	const char *threshold;
	const char *window;
} RiskAnswer;

/* ---- risk_compile.c ---- */

/*
 * Compiles the tenant's rulesets in force, or with version above 0 this one
 * alone, into memory below 'parent'.  NULL: there is no such version.
 */
extern RiskBook *fin_risk_compile(int32 tenant_id, int32 version,
								  MemoryContext parent);

/* the measure behind a fact of expressions; false: it has none */
extern bool fin_risk_fact_measure(int fact, FinMeasure *measure);

/*
 * Gives the book's measures the ids of finance.risk_measure; false: one has
 * none.
 */
extern bool fin_risk_name_measures(RiskBook *book);

/* where the book has it, or RISK_NONE */
extern int	fin_risk_find_measure(const RiskBook *book,
								  const FinMeasure *measure);
extern int	fin_risk_find_probe(const RiskBook *book, const RiskProbe *probe);

/* ---- risk_facts.c ---- */

/* facts of which none is known yet, in the current context */
extern void fin_risk_clear(const RiskBook *book, RiskFacts *facts);

/* their arrays, of which a batch would have thousands */
extern void fin_risk_free(RiskFacts *facts);

extern void fin_risk_gather(const RiskBook *book,
							const FinRiskSubject *subject, RiskFacts *facts);
extern const RiskMeasured *fin_risk_measured(RiskFacts *facts, int measure);
extern bool fin_risk_probed(RiskFacts *facts, int probe);
extern Numeric fin_risk_limited(RiskFacts *facts, int limit);

/* fills in facts->values what an expression names */
extern void fin_risk_value(RiskFacts *facts, int fact);

/* local date and time of day in a zone */
extern void fin_risk_local(TimestampTz when, pg_tz *zone, DateADT *date,
						   TimeADT *time_of_day);

/* ---- risk_evaluate.c ---- */

/* is it about a transfer of these accounts, of this type and currency? */
extern bool fin_risk_applies(const RiskRule *rule, const RiskFacts *facts);

extern void fin_risk_ask(RiskRule *rule, RiskFacts *facts, RiskAnswer *answer);
extern void fin_risk_evaluate(RiskRuleset *ruleset, RiskFacts *facts,
							  FinRiskJudgement *judgement);

/*
 * The same of a movement, but rules that cannot hit are not asked, so facts
 * that they alone ask for are not known: fin_risk_ask_rest() asks them.
 */
extern void fin_risk_evaluate_movement(RiskRuleset *ruleset, RiskFacts *facts,
									   FinRiskJudgement *judgement);
extern void fin_risk_ask_rest(RiskRuleset *ruleset, RiskFacts *facts);

/* ---- risk_sieve.c ---- */

/* that of the ruleset for the facts, and the facts' own to hold against it */
extern const RiskSieve *fin_risk_sieve(RiskRuleset *ruleset,
									   const RiskFacts *facts,
									   RiskSieve *transfer);

static inline bool
fin_risk_is_sifted_out(const RiskSieve *rule, const RiskSieve *transfer)
{
	return transfer->least < rule->least ||
		((transfer->tags ^ rule->tags) & rule->mask) != 0 ||
		(rule->account_id != 0 && rule->account_id != transfer->account_id);
}

/* ---- risk_record.c ---- */

/* all that was asked for, as it is kept */
extern Jsonb *fin_risk_inputs(const RiskFacts *facts);

/* into cleared facts */
extern void fin_risk_read_inputs(const RiskBook *book, Jsonb *inputs,
								 RiskFacts *facts);
extern Jsonb *fin_risk_hits(const FinRiskJudgement *judgement);
extern char *fin_risk_measure_name(const FinMeasure *measure);

/* '7 days 12:00:00', whatever the session's settings: a replay says the same */
extern char *fin_risk_span_text(int64 span_us);

/* ---- risk_past.c ---- */

/* a transfer that was judged, or would be now */
typedef struct RiskPast
{
	int64		transfer_id;
	bool		was_done;		/* not rejected, nor parked */
	FinRiskOutcome outcome;		/* of the ruleset that was live then, */
	const char *rule;			/* the rule that decided; NULL: none, or scores */
	Jsonb	   *hits;			/* as recorded; NULL: none */
	RiskFacts  *facts;			/* as they were before it */
} RiskPast;

/* what it is given lasts until it returns; false: it has seen enough */
typedef bool (*FinRiskVisit) (const RiskPast *past, void *argument);

/*
 * Shows the tenant's transfers from 'from' to before 'to', by the milliseconds
 * of their ids, in their order, each with the facts that the book's one ruleset
 * asks about.  The book's measures are numbered anew.  Call inside
 * fin_query_begin/end.  Errors: 53400 what must be remembered of the history is
 * more than maintenance_work_mem.
 */
extern void fin_risk_walk(int32 tenant_id, RiskBook *book, TimestampTz from,
						  TimestampTz to, FinRiskVisit visit, void *argument);

/* ---- risk.c ---- */

extern FinRiskOutcome fin_risk_parse_outcome(const char *name);

/* is it a holiday of this calendar? */
extern bool fin_risk_is_holiday(int32 tenant_id, const char *calendar,
								DateADT date);

#endif							/* FIN_RISK_PARTS_H */
