/*
 * account.h
 *		Accounts: found and locked by their codes; what changes in them besides
 *		money.
 *
 * Functions that lock or change run inside fin_query_begin/end and allocate in
 * the current context.
 */
#ifndef FIN_ACCOUNT_H
#define FIN_ACCOUNT_H

#include "context.h"
#include "fault.h"
#include "store.h"

/* LG002: there is none of this code; or, where that is NULL, of this id */
extern FinFault *fin_account_fault_unknown(const char *code, int64 id);

/*
 * Locks the accounts of these codes, FOR NO KEY UPDATE, in ascending order of
 * id.  Returns them so, each once; codes[i] is that of number which[i].  Error:
 * LG002 names the first code that is no account's.
 */
extern FinAccount *fin_account_lock_all(const FinContext *context,
										const char *const *codes, int n,
										int *which);

/* the same for one */
extern void fin_account_lock(const FinContext *context, const char *code,
							 FinAccount *account);

/* 'active', 'frozen' ... */
extern const char *fin_account_status_name(FinAccountStatus status);

/*
 * A change of an account that is no transfer: its row of
 * finance.account_change and its audit record.
 */
typedef struct FinAccountChange
{
	const char *operation;		/* as it is audited */
	const char *change;			/* what changed: status, limits */
	const char *old_value;		/* JSON objects */
	const char *new_value;
	const char *reason;			/* or NULL */
	const char *to_account;		/* closing: who gets the rest; or NULL */
	int64		transfer_id;	/* closing: the transfer of it; or 0 */
} FinAccountChange;

/* for the version the account now has: raise it before */
extern void fin_account_record_change(const FinContext *context,
									  const FinAccount *account,
									  const FinAccountChange *change);

/*
 * Gives a locked account another status, and its next version.  change: its
 * operation and reason are set, and what closing has besides.  Errors: LG004
 * closed; 55000 becoming closed while not empty.
 */
extern void fin_account_change_status(const FinContext *context,
									  FinAccount *account,
									  FinAccountStatus status,
									  FinAccountChange *change);

/*
 * Gives a locked account, whose limits were those of 'before', its next version
 * and writes the limits it has now.  change: its operation and reason are set.
 * Error: LG006 it is outside of them.
 */
extern void fin_account_change_limits(const FinContext *context,
									  const FinAccount *before,
									  FinAccount *account,
									  FinAccountChange *change);

/* 55000 when something is held of the account or for it */
extern void fin_account_refuse_holds(const FinContext *context,
									 const FinAccount *account);

/* 55000 when its balance is not zero */
extern void fin_account_refuse_balance(const FinAccount *account);

#endif							/* FIN_ACCOUNT_H */
