/*
 * limit.h
 *		Other thresholds of a rule: for one account, for the accounts of a level
 *		or of a type; lasting, or for a time.
 */
#ifndef FIN_LIMIT_H
#define FIN_LIMIT_H

#include "utils/numeric.h"

#include "engine.h"

/* whom a limit is for; one that comes first wins */
typedef enum FinLimitSubject
{
	FIN_LIMIT_ACCOUNT,			/* by its code */
	FIN_LIMIT_LEVEL,
	FIN_LIMIT_ACCOUNT_TYPE
} FinLimitSubject;

#define FIN_LIMIT_SUBJECTS (FIN_LIMIT_ACCOUNT_TYPE + 1)

extern const char *fin_limit_subject_name(FinLimitSubject subject);

/*
 * The threshold that the rule of this name has for what this account pays, in
 * the current context; or NULL: the rule's own.  That of the account comes
 * before that of its level, and that before that of its type; of each, a
 * temporary one while it lasts before the lasting one.  Reads code, level and
 * type of the payer.
 *
 * It sees what was committed before the last AcceptInvalidationMessages(), which
 * posting calls before it judges, whatever the isolation level, and what this
 * transaction did.  A few nanoseconds for a tenant without limits,
 * well below a microsecond while there are at most 1,024, which are kept; else
 * one index look-up for each kind (as: temporary ones of accounts) that the
 * rule has.  Call inside fin_query_begin/end.
 */
extern Numeric fin_limit_find(int32 tenant_id, const char *rule,
							  const FinAccount *payer, TimestampTz now);

/* false: fin_limit_find() would find nothing, whoever pays */
extern bool fin_limit_exists(int32 tenant_id, const char *rule);

/*
 * Another number, never 0, when what fin_limit_exists() says of the tenant's
 * rules may have changed.
 */
extern uint64 fin_limit_state(int32 tenant_id);

/* removes at most so many that are over at 'now', and says how many */
extern int64 fin_limit_remove_expired(int32 tenant_id, TimestampTz now,
									  int64 most);

extern void fin_limit_init(void);

#endif							/* FIN_LIMIT_H */
