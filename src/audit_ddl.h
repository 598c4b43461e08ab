/*
 * audit_ddl.h
 *		What a DDL command was about.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_DDL_H
#define FIN_AUDIT_DDL_H

#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"

/* in a query, where $1 is fin_audit_table_function(): is the table audited? */
#define FIN_HAS_AUDIT_TRIGGERS(relid) \
	"EXISTS (SELECT FROM pg_catalog.pg_trigger AS t" \
	" WHERE t.tgrelid = " relid " AND t.tgfoid = $1)"

/* something a command was about */
typedef struct FinAffected
{
	const char *tag;
	const char *object;			/* its identity */
	Oid			table;			/* a table itself, not something of it */
	bool		is_concern;		/* ours, or of an audited table */
} FinAffected;

/*
 * The objects a command was about that is at its end, or that it dropped, as
 * far as they concern us or are tables; lists of FinAffected, in the current
 * memory.
 */
extern List *fin_audit_ddl_changed(const Node *command, const char *tag);
extern List *fin_audit_ddl_dropped(const char *tag);

/* before DROP INDEX: of what table an index was nobody knows later */
extern void fin_audit_ddl_note_indexes(const DropStmt *drop);

#endif							/* FIN_AUDIT_DDL_H */
