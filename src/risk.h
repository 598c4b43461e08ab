/*
 * risk.h
 *		Rules that judge a movement under its accounts' locks.
 */
#ifndef FIN_RISK_H
#define FIN_RISK_H

#include "engine.h"
#include "store.h"

/* most rules of one verdict that are recorded; the first decides */
#define FIN_RISK_HITS_MAX 16

/* what a rule asks for, and the whole: the highest of its rules */
typedef enum FinRiskOutcome
{
	FIN_RISK_PASS,
	FIN_RISK_REPORT,			/* done, and told of */
	FIN_RISK_CHALLENGE,			/* done once the caller confirms it */
	FIN_RISK_REVIEW,			/* done once another person approves it */
	FIN_RISK_REJECT				/* not done */
} FinRiskOutcome;

typedef struct FinVerdict
{
	FinRiskOutcome outcome;
	int			nhits;
	FinDecisionRow hits[FIN_RISK_HITS_MAX];
} FinVerdict;

/*
 * Judges by the tenant's enabled rules.  time_of_day: local time of the
 * tenant, in microseconds.  Texts of the hits live in the current context.
 * Call inside fin_query_begin/end.
 */
extern void fin_risk_judge(int32 tenant_id, const FinMovement *movement,
						   TimeADT time_of_day, FinVerdict *verdict);

extern void fin_risk_init(void);

#endif							/* FIN_RISK_H */
