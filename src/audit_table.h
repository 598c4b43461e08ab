/*
 * audit_table.h
 *		The triggers of audited tables, when tables change.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_TABLE_H
#define FIN_AUDIT_TABLE_H

#include "postgres_ext.h"

/* the trigger that records row by row what is replicated */
#define FIN_AUDIT_REPLICATED	"finance_audit_replicated"

/* the trigger function of audited tables */
extern Oid	fin_audit_table_function(void);

/*
 * The table was made below another, or something was attached to it: whatever
 * of them has no triggers gets those of what it inherits from.  Inside of
 * fin_query_begin/end, after fin_context().
 */
extern void fin_audit_table_inherit(Oid table);

/*
 * A column of the table and of those that inherit from it was renamed, or
 * (names NULL) dropped: what the owners chose follows.
 */
extern void fin_audit_table_follow(Oid table, const char *old_name,
								   const char *new_name);

#endif							/* FIN_AUDIT_TABLE_H */
