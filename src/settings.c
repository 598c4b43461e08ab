/*
 * settings.c
 *		The GUCs of finance.
 *
 * Owns no memory beyond the GUC variables.  Texts that reach stored rows
 * (actor, user agent) are checked where they are used, by context.c: a value
 * given in the connection's startup packet is not verified by the server.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "settings.h"

int			fin_node = 0;
int			fin_tenant = 0;
char	   *fin_actor = NULL;
char	   *fin_trace_id = NULL;
char	   *fin_user_agent = NULL;
char	   *fin_span_id = NULL;
char	   *fin_request_id = NULL;
char	   *fin_reason = NULL;
char	   *fin_client_addr = NULL;
char	   *fin_test_clock = NULL;
bool		fin_direct_writes = true;
int			fin_max_payload = 262144;
int			fin_notify_window_ms = 5;
int			fin_sweep_interval_s = 60;
int			fin_launcher_naptime_s = 60;
int			fin_inbox_retention_days = 30;
int			fin_archive_retention_days = 0;
int			fin_audit_retention_days = 1827;
int			fin_half_retention_s = 86400;
int			fin_seal_interval_ms = 1000;
int			fin_rate_limit_buckets = FIN_RATE_LIMIT_BUCKETS;

/* ------------------------------------------------------------------------
 * finance.audit_reads
 * ------------------------------------------------------------------------ */

int			fin_audit_reads = 0;
static char *audit_reads_text = NULL;

static const char *const read_names[FIN_READS] = {
	[FIN_READ_BALANCE] = "balance",
	[FIN_READ_BALANCE_AT] = "balance_at",
	[FIN_READ_STATEMENT] = "statement",
	[FIN_READ_AUDIT_TRACE] = "audit_trace",
	[FIN_READ_AUDIT_HISTORY] = "audit_history",
	[FIN_READ_AUDIT_LOG] = "audit_log",
	[FIN_READ_AUDIT_DECRYPT] = "audit_decrypt",
};

static int
read_bit(const char *name)
{
	for (int i = 0; i < FIN_READS; i++)
	{
		if (strcmp(name, read_names[i]) == 0)
			return 1 << i;
	}
	return 0;
}

static bool
check_audit_reads(char **value, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*value);
	List	   *names;
	ListCell   *cell;
	int			bits = 0;

	if (!SplitIdentifierString(copy, ',', &names))
	{
		GUC_check_errdetail("It is a list of names, with commas between them.");
		return false;
	}
	foreach(cell, names)
	{
		int			bit = read_bit(lfirst(cell));

		if (bit == 0)
		{
			GUC_check_errdetail("\"%s\" is not a function whose reads are recorded.",
								(char *) lfirst(cell));
			return false;
		}
		bits |= bit;
	}
	*extra = FIN_GUC_MALLOC(sizeof(int));
	if (*extra == NULL)
		return false;
	*(int *) *extra = bits;
	return true;
}

static void
assign_audit_reads(const char *value, void *extra)
{
	fin_audit_reads = *(int *) extra;
}

/* who acts: any user may set these; tenant is checked against membership */
static void
define_context_settings(void)
{
	DefineCustomIntVariable("finance.tenant",
							"Tenant in whose book this session works.",
							"The user must be a member of the tenant's role.",
							&fin_tenant, 0, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.actor",
							   "Person or service on whose behalf this session acts, for the audit log.",
							   "Empty means the current database user.",
							   &fin_actor, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.trace_id",
							   "Trace id (UUID) written to transfers, messages and audit records.",
							   "Empty means a new one for each transaction.",
							   &fin_trace_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.user_agent",
							   "User agent of the request, for the audit log.",
							   NULL,
							   &fin_user_agent, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.span_id",
							   "Step of the trace that this session works at, for the audit log.",
							   NULL,
							   &fin_span_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.request_id",
							   "Id of the request that this session serves, for the audit log.",
							   NULL,
							   &fin_request_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.reason",
							   "Business reason of what this session does, for the audit log.",
							   NULL,
							   &fin_reason, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.client_addr",
							   "Address of the client behind a pooler, for the audit log.",
							   "Empty means that of the connection.",
							   &fin_client_addr, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_server_settings(void)
{
	DefineCustomIntVariable("finance.node",
							"Number of this server in the ids it draws; different on every server that shares a book.",
							NULL,
							&fin_node, 0, 0, FIN_NODE_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.max_payload",
							"Largest message payload, headers or metadata accepted, as jsonb.",
							NULL,
							&fin_max_payload, 262144, 1024, 64 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.notify_window",
							"Shortest time between two notifications on one channel.",
							NULL,
							&fin_notify_window_ms, 5, 0, 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.sweep_interval",
							"Time between two looks of the worker at all subscribed queues, open holds and half messages.",
							"A backstop for those of prepared transactions and logical replication, which ring no bell.",
							&fin_sweep_interval_s, 60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.launcher_naptime",
							"Time between two looks of the launcher for new databases.",
							NULL,
							&fin_launcher_naptime_s, 60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.inbox_retention",
							"Days for which process_once() remembers a message.",
							"A message seen again later is processed again.",
							&fin_inbox_retention_days, 30, 1,
							FIN_RETENTION_DAYS_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.archive_retention",
							"Days after which archived messages are dropped, by whole months.",
							"0 keeps them for ever.",
							&fin_archive_retention_days, 0, 0,
							FIN_RETENTION_DAYS_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.audit_retention",
							"Days for which a month of the audit log must be kept after it ended.",
							"Only drop_audit_month() takes one out; 0 keeps them for ever.",
							&fin_audit_retention_days, 1827, 0,
							FIN_RETENTION_DAYS_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.half_retention",
							"Time for which the answer to a half message is kept.",
							"So long commit_message() and rollback_message() can be asked again.",
							&fin_half_retention_s, 86400, 60, 30 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.seal_interval",
							"Time within which the worker seals what was recorded in the audit log.",
							"A transaction that stays open, in any database, holds it up.",
							&fin_seal_interval_ms, 1000, 100, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("finance.rate_limit_buckets",
							"Accounts, tenants and types whose use of a rate limit is counted at a time.",
							"Rounded up to a power of two; 64 bytes of shared memory each.",
							&fin_rate_limit_buckets, FIN_RATE_LIMIT_BUCKETS,
							FIN_RATE_LIMIT_BUCKETS_MIN, 4 * 1024 * 1024,
	/* the server refuses such a setting once it has started */
							process_shared_preload_libraries_in_progress ?
							PGC_POSTMASTER : PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.audit_reads",
							   "Functions of which each call is recorded in the audit log.",
							   "Any of balance, balance_at, statement, audit_trace, audit_history, audit_log.",
							   &audit_reads_text, "",
							   PGC_SUSET, GUC_LIST_INPUT,
							   check_audit_reads, assign_audit_reads, NULL);
	DefineCustomBoolVariable("finance.direct_writes",
							 "Write rows through the table access method instead of SQL statements.",
							 "Tables with triggers of others are written by statements all the same.",
							 &fin_direct_writes, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("finance.test_clock",
							   "Time that risk rules, holds and messages take for now; for tests.",
							   "Empty means the wall clock.",
							   &fin_test_clock, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);
}

void
fin_settings_init(void)
{
	define_context_settings();
	define_server_settings();
	MarkGUCPrefixReserved("finance");
}
