/*
 * type.h
 *		Types of accounts and of transfers, and what they allow.
 */
#ifndef FIN_TYPE_H
#define FIN_TYPE_H

#include "fault.h"

/*
 * What is wrong with a transfer of this type between accounts of these types:
 * LG017, or NULL.  Call inside fin_query_begin/end.
 */
extern FinFault *fin_type_fault(int32 tenant_id, const char *type,
								const char *from_type, const char *to_type);

/* what is wrong with this type of an account: LG017, or NULL; likewise */
extern FinFault *fin_type_account_fault(int32 tenant_id, const char *type);

extern void fin_type_init(void);

#endif							/* FIN_TYPE_H */
