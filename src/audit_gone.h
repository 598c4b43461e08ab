/*
 * audit_gone.h
 *		What the audit log says of what is gone from it on purpose.
 *
 * The record of audit_erase_payload() has object finance.audit_record and the
 * row_key {"id":ID}; that of drop_audit_month() the partition and the row_key
 *
 *		{"month":"2021-03-01","gone":N}
 *
 * where N counts the records of this month and of all that were taken out
 * before it.  Both are in the leaf, not in the payload, which may be erased.
 */
#ifndef FIN_AUDIT_GONE_H
#define FIN_AUDIT_GONE_H

#define FIN_AUDIT_ERASE_OPERATION	"audit_erase_payload"
#define FIN_AUDIT_ERASE_OBJECT		"finance.audit_record"
#define FIN_AUDIT_DROP_OPERATION	"drop_audit_month"

typedef struct FinAuditGone
{
	int			year;
	int			month;			/* 1 to 12 */
	int64		records;		/* gone, up to and with this month */
} FinAuditGone;

/* as a row_key, and back; 0 and false: it is none */
extern char *fin_audit_erased_key(int64 record_id);
extern int64 fin_audit_erased_id(const char *row_key);
extern char *fin_audit_gone_key(const FinAuditGone *gone);
extern bool fin_audit_gone_read(const char *row_key, FinAuditGone *gone);

#endif							/* FIN_AUDIT_GONE_H */
