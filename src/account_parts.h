/*
 * account_parts.h
 *		What the parts of the account module share; included by account*.c only.
 *
 * account.c opens accounts and tells their balance; account_lock.c finds and
 * locks them; account_change.c changes their status and limits.
 */
#ifndef FIN_ACCOUNT_PARTS_H
#define FIN_ACCOUNT_PARTS_H

#include "account.h"
#include "audit.h"

/* ---- account_change.c ---- */

/* limits a caller gave, NULL for none; 22003 when they will not do */
extern void fin_account_set_floor(FinAccount *account, Numeric min_available);
extern void fin_account_set_ceiling(FinAccount *account, Numeric max_balance);

/* LG006 when the account, as it stands, is outside its limits */
extern void fin_account_check_limits(const FinAccount *account);

/* a JSON object of the limits there are */
extern char *fin_account_limits_json(const FinAccount *account);

#endif							/* FIN_ACCOUNT_PARTS_H */
