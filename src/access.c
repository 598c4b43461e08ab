/*
 * access.c
 *		finance.grant_access(): the GRANTs a role needs, in one call.
 *
 * Owns the lists of what each level may do.  Nothing is granted to anyone
 * until the owner calls it.
 *
 * Locks: GRANT takes none on tables, and fails when somebody changes the same
 * catalog row, as making a partition does; so SHARE UPDATE EXCLUSIVE on the
 * partitioned tables until the end of the transaction, in the order in which
 * partition.c and the queues take it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "argument.h"
#include "audit.h"
#include "context.h"
#include "json.h"
#include "query.h"

/* NULL-terminated names; a name stands for all its overloads */
static const char *const reading_functions[] = {
	"_is_tenant_visible", "_now", "balance", "balance_at", "statement",
	"id_time", "id_floor", "topic_matches", "rollup", "trial_balance",
	"balance_sheet", "reversals", "split_amount", NULL
};

static const char *const app_functions[] = {
	"transfer", "transfer_batch", "request", "hold", "capture", "release",
	"capture_group", "release_group", "expire_holds", "journal", "leg",
	"exchange", "distribute", "reverse_transfer", "reverse_journal",
	"confirm_challenge", "new_challenge_token",
	"create_account", "lock_accounts", "set_context", "publish", "send",
	"send_batch", "read", "read_with_poll", "wait_for_message", "pop", "delete", "archive", "nack", "set_vt",
	"test_routing", "list_queues", "metrics", "process_once",
	"process_once_batch", "prepare_message", "prepare_messages", "commit_message",
	"rollback_message", "half_message_status",
	"read_group", "commit_group", "list_consumer_groups", NULL
};

static const char *const operator_functions[] = {
	"set_account_status", "set_account_limits", "set_min_available",
	"set_max_balance", "close_account", "add_rule", "remove_rule",
	"enable_rule", "rule_kinds", "create_ruleset", "publish_ruleset",
	"retire_ruleset", "drop_ruleset", "add_holiday", "remove_holiday",
	"explain_risk", "evaluate_risk", "replay_decision", "backtest_ruleset",
	"backtest_differences",
	"block_account", "unblock_account", "add_to_list",
	"load_list", "remove_from_list", "remove_expired_entries",
	"set_rule_limit", "clear_rule_limit", "rule_limit_of", "is_on_list",
	"set_account_level", "create_queue",
	"alter_queue", "pause_queue", "resume_queue", "redrive",
	"drop_queue", "purge_queue", "purge_archive", "bind_topic", "unbind_topic",
	"list_bindings", "set_default_queues", "default_queues", "subscribe",
	"unsubscribe", "subscriptions", "metrics_all", "check_integrity", "worker_status", "wake_worker",
	"create_account_type", "create_transfer_type", "set_account_parent",
	"import_transfers",
	"create_producer_group", "alter_producer_group", "drop_producer_group",
	"recheck_half_message", "check_half_messages", "create_log_queue",
	"create_consumer_group", "drop_consumer_group", "seek_group",
	"trim_log_queues", "risk_facts", "check_expression", "pause_transfers",
	"resume_transfers", "transfers_in_flight", "set_rate_limit",
	"drop_rate_limit", "rate_limits", "review_transfer", "settle_reviews",
	"assign_alert", "comment_alert", "close_alert", "reopen_alert",
	"export_aml", "seal_audit", "audit_lag", "_audit_lag",
	"audit_erase_subject", "audit_erase_payload", "audit_due", NULL
};

static const char *const auditor_functions[] = {
	"audit_trace", "audit_log", "audit_history", "audit_row_history",
	"audit_diff", "audit_decrypt", "verify_audit", "audit_lag", "_audit_lag",
	"audit_proof", "verify_inclusion", "verify_consistency",
	"audit_export", "audit_archive", "audit_due",
	"check_integrity", "rule_limit_of", "is_on_list",
	"transfers_in_flight", "rate_limits", "replay_decision", "rule_kinds",
	"export_aml",
	"backtest_ruleset", "backtest_differences", NULL
};

/* hashes only: who keeps digests outside need not see the book */
static const char *const witness_functions[] = {
	"audit_digest", "audit_consistency", NULL
};

#define APP_RELATIONS "finance.account, finance._account, finance.hold,"  \
	" finance._hold, finance.entry," \
	" finance.transfer, finance.currency, finance.risk_decision," \
	" finance.risk_hit," \
	" finance.account_type, finance.transfer_type, finance.journal," \
	" finance.reversal, finance.exchange, finance.exchange_residue"
#define CASE_RELATIONS "finance.risk_review, finance.review, finance._alert," \
	" finance.alert, finance.alert_transfer, finance.alert_comment," \
	" finance.aml_report"
#define OPERATOR_RELATIONS APP_RELATIONS ", " CASE_RELATIONS \
	", finance.account_change," \
	" finance.ruleset, finance.risk_rule, finance.live_rule," \
	" finance.holiday," \
	" finance.risk_list, finance.rule_limit," \
	" finance.queue, finance.binding," \
	" finance.transfer_pause, finance.rate_limit," \
	" finance.queue_default, finance.subscription, finance.message," \
	" finance.message_archive, finance.inbox, finance.workers," \
	" finance.producer_group, finance.half_message," \
	" finance.half_check, finance.half_answer, finance.parked_half_message," \
	" finance.message_log, finance.log_queue, finance.consumer_group," \
	" finance.group_position, finance.risk_measure, finance.risk_total"
#define AUDITOR_RELATIONS APP_RELATIONS ", " CASE_RELATIONS \
	", finance.account_change," \
	" finance.ruleset, finance.risk_rule, finance.live_rule," \
	" finance.holiday," \
	" finance.risk_list, finance.rule_limit," \
	" finance.idempotency_key," \
	" finance.transfer_pause, finance.rate_limit," \
	" finance.audit_record, finance.audit_incarnation, finance.audit_block," \
	" finance.audit_month," \
	" finance.tenant, finance.value_transfer," \
	" finance.value_day, finance.risk_measure, finance.risk_total"

typedef struct AccessLevel
{
	const char *name;
	const char *relations;		/* NULL: none */
	const char *const *functions[3];
} AccessLevel;

static const AccessLevel levels[] = {
	{"app", APP_RELATIONS, {reading_functions, app_functions, NULL}},
	{"operator", OPERATOR_RELATIONS,
	{reading_functions, app_functions, operator_functions}},
	{"auditor", AUDITOR_RELATIONS,
	{reading_functions, auditor_functions, witness_functions}},
	{"witness", NULL, {witness_functions, NULL, NULL}},
};

static FinQuery find_signatures =
{
	.sql = "SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text"
	" FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n"
	" ON n.oid = p.pronamespace"
	" WHERE n.nspname = 'finance' AND p.proname = $1::pg_catalog.name",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
};

static void
grant_function(const char *name, const char *role)
{
	Datum		values[1] = {CStringGetTextDatum(name)};
	int			n = (int) fin_query_run(&find_signatures, values, NULL, 0);
	char	  **signatures = palloc(sizeof(char *) * Max(n, 1));

	if (n == 0)
		elog(ERROR, "function finance.%s does not exist", name);
	for (int i = 0; i < n; i++)
		signatures[i] = fin_query_text(i, 1);
	for (int i = 0; i < n; i++)
		fin_query_utility(psprintf("GRANT EXECUTE ON ROUTINE %s TO %s",
								   signatures[i], role));
}

static const AccessLevel *
find_level(const char *name)
{
	for (int i = 0; i < (int) lengthof(levels); i++)
	{
		if (strcmp(levels[i].name, name) == 0)
			return &levels[i];
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("access level \"%s\" is not known", name),
			errhint("It is app, operator, auditor or witness."));
}

static void
audit_grant(const char *role, const char *level)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "role", role);
	fin_json_text(&json, "level", level);
	record.operation = "grant_access";
	record.status = "completed";
	record.request = fin_json_end(&json);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_grant_access);

/*
 * finance.grant_access(role regrole, level text)
 *
 * app: open accounts, move money, use queues.  operator: also change accounts,
 * rules, queues and subscriptions.  auditor: read everything of the tenant,
 * change nothing.  witness: get digests of the audit log, and proofs that one
 * continues another; nothing else.  Tenants, currencies and audited tables stay
 * with the owner.
 * Errors: 22004, 22023 unknown level.
 */
Datum
finance_grant_access(PG_FUNCTION_ARGS)
{
	const AccessLevel *level;
	const char *role;
	FinQueryScope scope;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("role must not be null"));
	level = find_level(fin_argument_text(fcinfo, 1, "level",
										 FIN_NAME_LENGTH_MAX));
	role = quote_identifier(GetUserNameFromId(PG_GETARG_OID(0), false));
	(void) fin_context();

	fin_query_begin(&scope);
	fin_query_utility("LOCK TABLE ONLY finance.transfer,"
					  " ONLY finance.audit_record,"
					  " ONLY finance.message_archive, ONLY finance.message,"
					  " ONLY finance.message_log"
					  " IN SHARE UPDATE EXCLUSIVE MODE");
	fin_query_utility(psprintf("GRANT USAGE ON SCHEMA finance TO %s", role));
	if (level->relations != NULL)
		fin_query_utility(psprintf("GRANT SELECT ON %s TO %s",
								   level->relations, role));
	for (int i = 0; i < (int) lengthof(level->functions); i++)
	{
		if (level->functions[i] == NULL)
			continue;
		for (const char *const *name = level->functions[i]; *name != NULL; name++)
			grant_function(*name, role);
	}
	audit_grant(role, level->name);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}
