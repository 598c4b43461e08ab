/*
 * audit_month.h
 *		Worker's chore: says which months of the audit log have been kept as
 *		long as finance.audit_retention asks.  It never takes one out.
 */
#ifndef FIN_AUDIT_MONTH_H
#define FIN_AUDIT_MONTH_H

#include "datatype/timestamp.h"

extern void fin_audit_month_sweep(void);
extern TimestampTz fin_audit_month_due(TimestampTz now);
extern void fin_audit_month_run(TimestampTz now);
extern void fin_audit_month_committed(TimestampTz now);

#endif							/* FIN_AUDIT_MONTH_H */
