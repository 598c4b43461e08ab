/*
 * audit_scan.h
 *		Audit records in the order of the log: by (xid, sequence), across the
 *		months.
 */
#ifndef FIN_AUDIT_SCAN_H
#define FIN_AUDIT_SCAN_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "audit_row.h"

/* of a record, within one incarnation; sequence counts from 1 */
typedef struct FinAuditPosition
{
	uint64		xid;
	int32		sequence;
} FinAuditPosition;

/* below, at or above 0: as a is before, at or after b in the log */
extern int	fin_audit_compare(const FinAuditPosition *a,
							  const FinAuditPosition *b);

/* beyond every transaction id */
#define FIN_AUDIT_XID_END	PG_UINT64_MAX

typedef struct FinAuditScan FinAuditScan;

/*
 * Start reading the records that the cluster of this system identifier wrote
 * (0: any) and the snapshot sees: those after 'after', of transactions with
 * xid < until.  {xid, 0} is the place before the first record of a transaction.
 * The snapshot is registered, or a dirty one, and stays so until the end.
 * Errors: 55000 a month has lost its index, 0A000 it was altered.
 * Locks: ACCESS SHARE on the table to the end of the transaction, on the months
 * until the end of the scan.
 */
extern FinAuditScan *fin_audit_scan_begin(Snapshot snapshot,
										  int64 system_identifier,
										  const FinAuditPosition *after,
										  uint64 until);

/*
 * The next record, with all its columns; good until the next call.  Texts may
 * be toasted.  NULL: no more.
 */
extern const FinAuditRow *fin_audit_scan_next(FinAuditScan *scan);

extern void fin_audit_scan_end(FinAuditScan *scan);

/* where a record is */
extern FinAuditPosition fin_audit_position(const FinAuditRow *row);

#endif							/* FIN_AUDIT_SCAN_H */
