/*
 * settings.h
 *		The GUCs of finance.
 */
#ifndef FIN_SETTINGS_H
#define FIN_SETTINGS_H

#include "c.h"

#define FIN_NODE_MAX	255		/* 8 bits of an id, see ident.h */
#define FIN_RETENTION_DAYS_MAX	36500
#define FIN_RATE_LIMIT_BUCKETS	16384
#define FIN_RATE_LIMIT_BUCKETS_MIN	64

extern int	fin_node;				/* finance.node */
extern int	fin_tenant;				/* finance.tenant */
extern char *fin_actor;				/* finance.actor */
extern char *fin_trace_id;			/* finance.trace_id */
extern char *fin_user_agent;		/* finance.user_agent */
extern char *fin_span_id;			/* finance.span_id */
extern char *fin_request_id;		/* finance.request_id */
extern char *fin_reason;			/* finance.reason */
extern char *fin_client_addr;	/* finance.client_addr */
extern char *fin_test_clock;		/* finance.test_clock */
extern bool fin_direct_writes;		/* finance.direct_writes */
extern int	fin_max_payload;		/* finance.max_payload, bytes */
extern int	fin_notify_window_ms;	/* finance.notify_window */
extern int	fin_sweep_interval_s;	/* finance.sweep_interval */
extern int	fin_launcher_naptime_s; /* finance.launcher_naptime */
extern int	fin_inbox_retention_days;	/* finance.inbox_retention */
extern int	fin_archive_retention_days; /* finance.archive_retention */
extern int	fin_audit_retention_days;	/* finance.audit_retention */
extern int	fin_half_retention_s;	/* finance.half_retention */
extern int	fin_seal_interval_ms;	/* finance.seal_interval */
extern int	fin_rate_limit_buckets;	/* finance.rate_limit_buckets */

extern void fin_settings_init(void);

/*
 * finance.audit_reads: of which functions each call is recorded, a bit for
 * each.  audit_decrypt() is recorded whatever it says.
 */
typedef enum FinAuditRead
{
	FIN_READ_BALANCE,
	FIN_READ_BALANCE_AT,
	FIN_READ_STATEMENT,
	FIN_READ_AUDIT_TRACE,
	FIN_READ_AUDIT_HISTORY,
	FIN_READ_AUDIT_LOG,
	FIN_READ_AUDIT_DECRYPT,
	FIN_READS					/* how many */
} FinAuditRead;

extern int	fin_audit_reads;

#endif							/* FIN_SETTINGS_H */
