/*
 * list.h
 *		Lists of accounts, countries and devices that rules look at: blocked,
 *		allowed, watched, or whatever a rule makes of one.
 */
#ifndef FIN_LIST_H
#define FIN_LIST_H

#include "datatype/timestamp.h"

/* that of block_account() and of rules that name no other */
#define FIN_LIST_BLOCKLIST			"blocklist"

#define FIN_LIST_VALUE_LENGTH_MAX	255 /* bytes */

/* what an entry names; in the alphabetical order of the words */
typedef enum FinListSubject
{
	FIN_LIST_ACCOUNT,			/* its code */
	FIN_LIST_COUNTRY,			/* ISO 3166-1 alpha-2 */
	FIN_LIST_DEVICE				/* a fingerprint, any text */
} FinListSubject;

#define FIN_LIST_SUBJECTS (FIN_LIST_DEVICE + 1)

/* 'account', 'country', 'device'; false: it is none of them */
extern bool fin_list_parse_subject(const char *word, FinListSubject *subject);
extern const char *fin_list_subject_name(FinListSubject subject);

/*
 * Has the list an entry of this value that is not over at 'now'?  It sees what
 * was committed before the last AcceptInvalidationMessages(), which posting
 * calls before it judges, whatever the isolation level, and what this
 * transaction did.  Countries are compared as capitals.  What cannot be an
 * entry is none; so is everything for a list that nobody added to.
 *
 * Well below a microsecond while the list has at most 1,024 entries, which are
 * kept; else one look-up in its index.  Call inside fin_query_begin/end.
 */
extern bool fin_list_contains(int32 tenant_id, const char *list,
							  FinListSubject subject, const char *value,
							  TimestampTz now);

extern void fin_list_init(void);

#endif							/* FIN_LIST_H */
