/*
 * fact.h
 *		The facts of a transfer that a risk expression may use.
 *
 * The documented list, in one place: names, types, descriptions.  A fact is an
 * index into fin_fact_vars(), and into the values given to fin_expr_eval().
 */
#ifndef FIN_FACT_H
#define FIN_FACT_H

#include "expr.h"

typedef enum FinFactScope
{
	FIN_FACT_OF_ACCOUNT,		/* paid by the payer */
	FIN_FACT_OF_COUNTERPARTY,	/* received by the payee */
	FIN_FACT_OF_PAIR,			/* paid by the payer to the payee */
	FIN_FACT_OF_ACCOUNT_TYPE	/* paid by the payer, with this transfer type */
} FinFactScope;

typedef enum FinFactPeriod
{
	FIN_FACT_PER_HOUR,
	FIN_FACT_PER_DAY,
	FIN_FACT_PER_MONTH
} FinFactPeriod;

#define FIN_FACT_SCOPES		4
#define FIN_FACT_PERIODS	3

typedef enum FinFact
{
	FIN_FACT_AMOUNT,
	FIN_FACT_CURRENCY,
	FIN_FACT_TYPE,
	FIN_FACT_FROM_ACCOUNT,
	FIN_FACT_TO_ACCOUNT,
	FIN_FACT_FROM_TYPE,
	FIN_FACT_TO_TYPE,
	FIN_FACT_FROM_LEVEL,
	FIN_FACT_TO_LEVEL,
	FIN_FACT_FROM_AGE_DAYS,
	FIN_FACT_TO_AGE_DAYS,
	FIN_FACT_AVAILABLE,
	FIN_FACT_BALANCE,
	FIN_FACT_FROM_IDLE_DAYS,
	FIN_FACT_TO_BALANCE,
	FIN_FACT_LOCAL_TIME,
	FIN_FACT_LOCAL_DATE,
	FIN_FACT_WEEKDAY,
	FIN_FACT_IS_HOLIDAY,
	FIN_FACT_IS_HOLD,
	FIN_FACT_IS_REVERSAL,
	FIN_FACT_REFERENCE,
	FIN_FACT_METADATA,
	FIN_FACT_DEVICE,
	FIN_FACT_COUNTRY,
	FIN_FACT_LAST_DEVICE,
	FIN_FACT_LAST_COUNTRY,
	FIN_FACT_LAST_COUNTRY_MINUTES,
	FIN_FACT_PAIR_COUNT,
	FIN_FACT_DEVICE_COUNT,
	FIN_FACT_TOTALS				/* the first of them: see below */
} FinFact;

/* totals of one scope and period, before this transfer */
#define FIN_FACT_TOTAL_AMOUNT(scope, period) \
	(FIN_FACT_TOTALS + 2 * (FIN_FACT_PERIODS * (scope) + (period)))
#define FIN_FACT_TOTAL_COUNT(scope, period) \
	(FIN_FACT_TOTAL_AMOUNT(scope, period) + 1)

#define FIN_FACT_COUNT \
	(FIN_FACT_TOTALS + 2 * FIN_FACT_SCOPES * FIN_FACT_PERIODS)

/* FIN_FACT_COUNT variables, and what a fact is, in words */
extern const FinExprVar *fin_fact_vars(void);
extern const char *fin_fact_description(int fact);

/* the fact of that name, or -1 */
extern int	fin_fact_find(const char *name);

#endif							/* FIN_FACT_H */
