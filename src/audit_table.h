/*
 * audit_table.h
 *		The triggers of audited tables, when tables change.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_TABLE_H
#define FIN_AUDIT_TABLE_H

#include "catalog/pg_trigger.h"

/*
 * Types, as in pg_trigger.tgtype, of the triggers for each row: the one that
 * records what is replicated, and the one that is there to be there.
 */
#define FIN_AUDIT_REPLICATED \
	(TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | \
	 TRIGGER_TYPE_DELETE)
#define FIN_AUDIT_ROUTED \
	(TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT)

/* the trigger function of audited tables */
extern Oid	fin_audit_table_function(void);

/* schema.table as records have it, quoted where it must be */
extern char *fin_audit_table_name(Oid table);

/*
 * The table was made below another, or something was attached to it: whatever
 * of them has no triggers gets those of what it inherits from.  Inside of
 * fin_query_begin/end, after fin_context().  Error: 55000 one of them has
 * triggers, and what it inherits from has none.
 */
extern void fin_audit_table_inherit(Oid table);

/*
 * A column of the table and of those that inherit from it was renamed, or
 * (names NULL) columns were dropped and added: what the owners chose follows.
 */
extern void fin_audit_table_follow(Oid table, const char *old_name,
								   const char *new_name);

/*
 * The table was altered: it and those that inherit from it may have got columns
 * that need a trigger more, and triggers enabled otherwise than they were made.
 */
extern void fin_audit_table_altered(Oid table);

#endif							/* FIN_AUDIT_TABLE_H */
