/*
 * audit_export.h
 *		Exporting the sealed audit log, and what is no longer in it.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_EXPORT_H
#define FIN_AUDIT_EXPORT_H

#include "postgres.h"

#include "nodes/execnodes.h"

/* whose records may be told */
typedef struct FinAuditReader
{
	bool		all_tenants;
	int32		tenant_id;		/* unless all */
} FinAuditReader;

/* of the user; before fin_query_begin() */
extern FinAuditReader fin_audit_reader(void);

/*
 * Adds the lines of an export of these leaves, which must be sealed, to the
 * result of the calling function.  Within fin_query_begin/end.
 */
extern void fin_audit_export(const FinAuditReader *reader,
							 ReturnSetInfo *result, int64 from, int64 to);

/* was the month that this record id is of taken out by drop_audit_month()? */
extern bool fin_audit_month_is_detached(int64 id);

#endif							/* FIN_AUDIT_EXPORT_H */
