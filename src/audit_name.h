/*
 * audit_name.h
 *		What a row of a table is called in the audit log.
 *
 * Private to the audit module.
 *
 * A record bears the name of the table that its statement named.  So a row of a
 * partition is recorded under the partition's name and that of each table above
 * it, and one of an inheriting table under that of each table it inherits from;
 * its key is written as that table has it: columns in their order, and masked.
 */
#ifndef FIN_AUDIT_NAME_H
#define FIN_AUDIT_NAME_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct FinAuditName
{
	char	   *object;			/* schema.table, quoted */
	char	   *key;			/* as row_key has it; NULL: none, the table */
} FinAuditName;

typedef struct FinAuditNames
{
	List	   *names;			/* of FinAuditName */
	bool		in_family;		/* tables that inherit columns from each other,
								 * and may have others: not partitions */
} FinAuditNames;

/* of a row of this table's own; adds the table's own name */
extern void fin_audit_name_add(FinAuditNames *names, const char *object,
							   const char *key);

/*
 * All names of the row with this primary key.  Runs as the caller: keys are
 * read by the input functions of their columns.
 * Errors: 22023 no such key, or one that is masked so that no row is found by
 * it; 42809 no primary key; those of the input functions.
 * Locks: ACCESS SHARE on the tables, released at once.
 */
extern void fin_audit_name_row(FinAuditNames *names, Oid relid,
							   const Jsonb *key);

#endif							/* FIN_AUDIT_NAME_H */
