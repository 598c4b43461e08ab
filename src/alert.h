/*
 * alert.h
 *		Alerts: what risk reports of transfers, for people to look into.
 */
#ifndef FIN_ALERT_H
#define FIN_ALERT_H

#include "context.h"
#include "risk.h"

/* "info", "warning" or "critical" */
extern const char *fin_alert_level(FinRiskOutcome outcome);

/*
 * The names of the rules that hit, the one that decided first; or, in the same
 * order, their kinds.  A text[] in the current context.
 */
extern Datum fin_alert_rules(const FinVerdict *verdict, bool of_kinds);

/*
 * That risk had something to say of a transfer of the account, which is
 * locked.  Counts it into the open alert of the same account, rule, level and
 * business day, or raises a new one; returns its id.  Call inside
 * fin_query_begin/end.
 */
extern int64 fin_alert_raise(const FinContext *context, int64 transfer_id,
							 int64 account_id, DateADT day,
							 const FinVerdict *verdict);

#endif							/* FIN_ALERT_H */
