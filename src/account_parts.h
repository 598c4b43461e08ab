/*
 * account_parts.h
 *		What the parts of the account module share; included by account*.c only.
 *
 * account.c opens accounts and tells their balance; account_lock.c finds and
 * locks them; account_change.c changes their status and limits;
 * account_parent.c says what they are summed up under.
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

/* ---- account_parent.c ---- */

/* from an account without a parent down to any below it, both counted */
#define FIN_ACCOUNT_LEVELS_MAX	32

/*
 * The id of account 'parent', for a new account 'code' to be under it.  Errors:
 * LG002 unknown account, LG004 closed, 54000 too deep.  Locks: FOR SHARE the
 * tenant's row, so that nobody moves the parent meanwhile.
 */
extern int64 fin_account_find_parent(const FinContext *context,
									 const char *code, const char *parent);

#endif							/* FIN_ACCOUNT_PARTS_H */
