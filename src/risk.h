/*
 * risk.h
 *		Rules that judge a movement under its accounts' locks.
 */
#ifndef FIN_RISK_H
#define FIN_RISK_H

#include "utils/jsonb.h"

#include "context.h"
#include "engine.h"
#include "meter.h"
#include "store.h"

#define FIN_SHADOWS_MAX 8		/* shadow rulesets of a tenant */

/* what a rule asks for, and the whole: the highest of its rules */
typedef enum FinRiskOutcome
{
	FIN_RISK_PASS,
	FIN_RISK_REPORT,			/* done, and told of */
	FIN_RISK_CHALLENGE,			/* done once the caller confirms it */
	FIN_RISK_REVIEW,			/* done once another person approves it */
	FIN_RISK_REJECT				/* not done */
} FinRiskOutcome;

/* a rule that hit, and why */
typedef struct FinRiskHit
{
	const char *rule;
	const char *kind;
	FinRiskOutcome outcome;
	int			score;
	const char *observed;
	const char *threshold;		/* what the rule allows; or NULL */
	const char *window;			/* over which time; or NULL */
} FinRiskHit;

/* what one ruleset says */
typedef struct FinRiskJudgement
{
	int32		version;
	bool		is_live;		/* acted upon; else shadow */
	FinRiskOutcome outcome;
	int			score;
	const char *rule;			/* the first that asked for it; NULL: scores */
	int			nhits;
	FinRiskHit *hits;
} FinRiskJudgement;

/* what all rulesets of the tenant say; the live one first, if there is one */
typedef struct FinVerdict
{
	/* of the live one; pass, and nothing, if there is none */
	FinRiskOutcome outcome;
	int32		version;
	int			score;
	const char *rule;			/* that decided; NULL: scores */
	int			nhits;
	FinRiskHit *hits;

	int			njudgements;
	FinRiskJudgement *judgements;
	int64		latency_ns;
	Jsonb	   *inputs;			/* NULL: nothing hit, nothing is recorded */
	int64		review_timeout_us;	/* then it is settled by itself, */
	bool		review_default_approve; /* carried out, or else given back */
	int64		challenge_timeout_us;	/* then it is given back */
} FinVerdict;

/* a tenant's rulesets in force, compiled; see fin_risk_hold() */
typedef struct RiskBook RiskBook;

/* what is judged */
typedef struct FinRiskSubject
{
	int32		tenant_id;
	RiskBook   *book;
	const FinMovement *movement;
	const char *type;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
	bool		is_reversal;
	FinMeter   *meter;			/* of the book's measures; NULL: it has none */
	FinMeterEvent event;
	int			nparked;		/* parked by the same call, not written yet */
	const FinMeterEvent *parked;
} FinRiskSubject;

/*
 * The rules in force, which stay as they are until the end of the transaction:
 * a posting is judged by one and the same.  NULL: there are none.
 */
extern RiskBook *fin_risk_hold(int32 tenant_id);

/* are these measures all that the rules need counted? */
extern bool fin_risk_is_counted(const RiskBook *book,
								const FinMeasure *measures, int n);

/*
 * Judges by the rules held.  The verdict is allocated in the current
 * context.  Call inside fin_query_begin/end, with the accounts locked.
 */
extern void fin_risk_judge(const FinRiskSubject *subject, FinVerdict *verdict);

/* 'pass', 'report' ... */
extern const char *fin_risk_outcome_name(FinRiskOutcome outcome);

/* writes what is to be recorded of a verdict of this transfer */
extern void fin_risk_record(int32 tenant_id, int64 transfer_id,
							const FinVerdict *verdict);

/*
 * A ruleset's mode has changed: compiles those in force, refusing what cannot
 * be, and has measured what they need from now on.
 */
extern void fin_risk_follow_rulesets(int32 tenant_id);

/* LG103 when it is not a boolean expression over the documented facts */
extern void fin_risk_check_expression(const char *text);

extern void fin_risk_init(void);

#endif							/* FIN_RISK_H */
