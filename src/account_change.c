/*
 * account_change.c
 *		What changes in an account besides money: its status, its limits and
 *		its level.
 *
 * Owns nothing between calls.  A change locks the one account FOR NO KEY
 * UPDATE, raises its version by one and writes a row of finance.account_change
 * and an audit record, so that versions have no gap and every change a reason.
 *
 * Limits count what is held, and posting checks them under the same lock: of a
 * new limit and a transfer, hold or capture that race, the second sees what the
 * first did.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "account_parts.h"
#include "argument.h"
#include "errors.h"
#include "json.h"
#include "query.h"

static FinQuery update_status =
{
	.sql = "UPDATE finance._account SET status = $3, version = $4"
	" WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, TEXTOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_account",
};

static FinQuery update_limits =
{
	.sql = "UPDATE finance._account SET min_available = $3, max_balance = $4,"
	" version = $5 WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, NUMERICOID, NUMERICOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_account",
};

static FinQuery update_level =
{
	.sql = "UPDATE finance._account SET level = $3, version = $4"
	" WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, TEXTOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_account",
};

static FinQuery insert_change =
{
	.sql = "INSERT INTO finance.account_change (tenant_id, account_id, version,"
	" change, old_value, new_value, reason, actor, changed_at)"
	" VALUES ($1, $2, $3, $4, $5::pg_catalog.jsonb, $6::pg_catalog.jsonb, $7, $8, $9)",
	.nargs = 9,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, TIMESTAMPTZOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "account_change",
};

/* no index has the side credited; this is asked only to explain a refusal */
static FinQuery count_holds =
{
	.sql = "SELECT pg_catalog.count(*) FILTER (WHERE from_account_id = $2),"
	" pg_catalog.count(*) FILTER (WHERE to_account_id = $2)"
	" FROM finance._hold WHERE tenant_id = $1 AND status = 'open'"
	" AND (from_account_id = $2 OR to_account_id = $2)",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

/* ------------------------------------------------------------------------
 * the record of a change
 * ------------------------------------------------------------------------ */

static void
audit_change(const FinAccount *account, const FinAccountChange *change)
{
	FinAuditRecord record = {0};
	StringInfoData request;

	initStringInfo(&request);
	fin_json_text(&request, "code", account->code);
	fin_json_object(&request, "new", change->new_value);
	fin_json_object(&request, "old", change->old_value);
	fin_json_text(&request, "reason", change->reason);
	fin_json_text(&request, "to_account", change->to_account);
	record.operation = change->operation;
	record.status = "completed";
	record.account_id = account->account_id;
	record.account_version = account->version;
	record.transfer_id = change->transfer_id;
	record.currency = account->currency;
	record.request = fin_json_end(&request);
	fin_audit_append(&record, 1);
}

void
fin_account_record_change(const FinContext *context, const FinAccount *account,
						  const FinAccountChange *change)
{
	Datum		values[9];
	char		nulls[9] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = Int64GetDatum(account->version);
	values[3] = CStringGetTextDatum(change->change);
	values[4] = CStringGetTextDatum(change->old_value);
	values[5] = CStringGetTextDatum(change->new_value);
	values[6] = (Datum) 0;
	if (change->reason != NULL)
		values[6] = CStringGetTextDatum(change->reason);
	else
		nulls[6] = 'n';
	values[7] = CStringGetTextDatum(context->actor);
	values[8] = TimestampTzGetDatum(GetCurrentTimestamp());
	fin_query_run(&insert_change, values, nulls, 0);
	/* a trigger on either table may have acted as somebody else */
	fin_context_resume(context);
	audit_change(account, change);
}

/* ------------------------------------------------------------------------
 * status
 * ------------------------------------------------------------------------ */

static const char *const status_names[] = {
	[FIN_ACCOUNT_ACTIVE] = "active",
	[FIN_ACCOUNT_DEBITS_FROZEN] = "debits_frozen",
	[FIN_ACCOUNT_CREDITS_FROZEN] = "credits_frozen",
	[FIN_ACCOUNT_FROZEN] = "frozen",
	[FIN_ACCOUNT_CLOSED] = "closed",
};

const char *
fin_account_status_name(FinAccountStatus status)
{
	return status_names[status];
}

static FinAccountStatus
status_argument(FunctionCallInfo fcinfo, int argument)
{
	char	   *status = fin_argument_text(fcinfo, argument, "status",
										   FIN_TYPE_LENGTH_MAX);

	for (int i = 0; i < (int) lengthof(status_names); i++)
	{
		if (strcmp(status, status_names[i]) == 0)
			return (FinAccountStatus) i;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("status \"%s\" is not known", status),
			errhint("It is active, debits_frozen, credits_frozen, frozen or closed."));
}

static char *
status_json(FinAccountStatus status)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "status", fin_account_status_name(status));
	return fin_json_end(&json);
}

static void
refuse_closed(const FinAccount *account)
{
	if (account->status == FIN_ACCOUNT_CLOSED)
		ereport(ERROR,
				errcode(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE),
				errmsg("account \"%s\" is closed", account->code),
				errdetail("A closed account stays as it is."));
}

void
fin_account_refuse_holds(const FinContext *context, const FinAccount *account)
{
	Datum		values[2];

	if (account->debits_pending == 0 && account->credits_pending == 0)
		return;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	fin_query_run(&count_holds, values, NULL, 1);
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("account \"%s\" cannot be closed while money is held",
				   account->code),
			errdetail("Of its money %s is held in " INT64_FORMAT " open holds, and for it %s in " INT64_FORMAT ".",
					  fin_amount_text(account->debits_pending, account->scale),
					  fin_query_int64(0, 1),
					  fin_amount_text(account->credits_pending, account->scale),
					  fin_query_int64(0, 2)),
			errhint("Capture or release them first. Those whose time is over are given back by finance.expire_holds()."));
}

void
fin_account_refuse_balance(const FinAccount *account)
{
	if (fin_engine_balance(account) == 0)
		return;
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("account \"%s\" cannot be closed with a balance",
				   account->code),
			errdetail("Its balance is %s.",
					  fin_amount_text(fin_engine_balance(account),
									  account->scale)),
			errhint("finance.close_account() moves it to or from the account given as to_account."));
}

void
fin_account_change_status(const FinContext *context, FinAccount *account,
						  FinAccountStatus status, FinAccountChange *change)
{
	Datum		values[4];

	refuse_closed(account);
	if (status == FIN_ACCOUNT_CLOSED)
	{
		fin_account_refuse_holds(context, account);
		fin_account_refuse_balance(account);
	}
	change->change = "status";
	change->old_value = status_json(account->status);
	change->new_value = status_json(status);
	account->status = status;
	account->version++;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = CStringGetTextDatum(fin_account_status_name(status));
	values[3] = Int64GetDatum(account->version);
	fin_query_run(&update_status, values, NULL, 0);
	fin_account_record_change(context, account, change);
}

PG_FUNCTION_INFO_V1(finance_set_account_status);

/*
 * finance.set_account_status(code, status, reason) returns bigint
 *
 * active, debits_frozen, credits_frozen and frozen change into each other;
 * closed is final and needs a zero balance and nothing held.  Setting the
 * status it has changes nothing.  Result: the account's version.  Errors: LG002
 * unknown account, 22023 unknown status, LG004 closed, 55000 not empty.  Locks:
 * the account.
 */
Datum
finance_set_account_status(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	FinAccountStatus status = status_argument(fcinfo, 1);
	FinAccountChange change = {.operation = "set_account_status"};
	const FinContext *context;
	FinQueryScope scope;
	FinAccount	account;

	change.reason = fin_argument_text_or_null(fcinfo, 2, "reason",
											  FIN_REASON_LENGTH_MAX);
	context = fin_context_hold();
	fin_query_begin(&scope);
	fin_account_lock(context, code, &account);
	if (account.status != status)
		fin_account_change_status(context, &account, status, &change);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.version);
}

/* ------------------------------------------------------------------------
 * limits
 * ------------------------------------------------------------------------ */

void
fin_account_set_floor(FinAccount *account, Numeric min_available)
{
	account->has_min_available = min_available != NULL;
	account->min_available = min_available == NULL ? 0 :
		fin_amount_limit_from_caller(min_available, account->scale,
									 account->currency, "min_available");
}

void
fin_account_set_ceiling(FinAccount *account, Numeric max_balance)
{
	account->has_max_balance = max_balance != NULL;
	account->max_balance = max_balance == NULL ? 0 :
		fin_amount_limit_from_caller(max_balance, account->scale,
									 account->currency, "max_balance");
}

static char *
limit_text(bool has_limit, FinAmount limit, int scale)
{
	return has_limit ? fin_amount_text(limit, scale) : "none";
}

void
fin_account_check_limits(const FinAccount *account)
{
	int			scale = account->scale;
	char	   *coming = "";

	if (fin_engine_within_limits(account))
		return;
	if (account->credits_pending != 0)
		coming = psprintf(" and %s held for it",
						  fin_amount_text(account->credits_pending, scale));
	ereport(ERROR,
			errcode(ERRCODE_FIN_BALANCE_LIMIT),
			errmsg("account \"%s\" is outside these limits", account->code),
			errdetail("Available is %s, the floor %s; the balance is %s%s, the ceiling %s.",
					  fin_amount_text(fin_engine_available(account), scale),
					  limit_text(account->has_min_available,
								 account->min_available, scale),
					  fin_amount_text(fin_engine_balance(account), scale),
					  coming,
					  limit_text(account->has_max_balance,
								 account->max_balance, scale)));
}

char *
fin_account_limits_json(const FinAccount *account)
{
	StringInfoData json;

	initStringInfo(&json);
	if (account->has_min_available)
		fin_json_text(&json, "min_available",
					  fin_amount_text(account->min_available, account->scale));
	if (account->has_max_balance)
		fin_json_text(&json, "max_balance",
					  fin_amount_text(account->max_balance, account->scale));
	return fin_json_end(&json);
}

void
fin_account_change_limits(const FinContext *context, const FinAccount *before,
						  FinAccount *account, FinAccountChange *change)
{
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	refuse_closed(account);
	fin_account_check_limits(account);
	change->change = "limits";
	change->old_value = fin_account_limits_json(before);
	change->new_value = fin_account_limits_json(account);
	account->version++;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = fin_amount_datum(account->min_available, account->scale);
	values[3] = fin_amount_datum(account->max_balance, account->scale);
	values[4] = Int64GetDatum(account->version);
	if (!account->has_min_available)
		nulls[2] = 'n';
	if (!account->has_max_balance)
		nulls[3] = 'n';
	fin_query_run(&update_limits, values, nulls, 0);
	fin_account_record_change(context, account, change);
}

/* floor, ceiling: which argument has it; 0: it stays */
static Datum
set_limits(FunctionCallInfo fcinfo, const char *operation, int floor,
		   int ceiling, int reason)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	FinAccountChange change = {.operation = operation};
	const FinContext *context;
	FinQueryScope scope;
	FinAccount	before;
	FinAccount	account;

	change.reason = fin_argument_text_or_null(fcinfo, reason, "reason",
											  FIN_REASON_LENGTH_MAX);
	context = fin_context_hold();
	fin_query_begin(&scope);
	fin_account_lock(context, code, &account);
	before = account;
	if (floor > 0)
		fin_account_set_floor(&account,
							  fin_argument_numeric(fcinfo, floor,
												   "min_available", false));
	if (ceiling > 0)
		fin_account_set_ceiling(&account,
								fin_argument_numeric(fcinfo, ceiling,
													 "max_balance", false));
	fin_account_change_limits(context, &before, &account, &change);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.version);
}

PG_FUNCTION_INFO_V1(finance_set_account_limits);

/*
 * finance.set_account_limits(code, min_available, max_balance, reason)
 * returns bigint
 *
 * Sets both limits; null means none.  The account must be within them as it
 * stands: available, which is without what is held of its money, at
 * min_available or above; the balance with what is held for it at max_balance
 * or below.  Result: the account's new version.  Errors: LG002 unknown account,
 * LG004 closed, LG006 outside the limits, 22003 limits out of range.  Locks:
 * the account.
 */
Datum
finance_set_account_limits(PG_FUNCTION_ARGS)
{
	return set_limits(fcinfo, "set_account_limits", 1, 2, 3);
}

PG_FUNCTION_INFO_V1(finance_set_min_available);

/*
 * finance.set_min_available(code, min_available, reason) returns bigint
 *
 * As set_account_limits(), but leaves max_balance as it is.
 */
Datum
finance_set_min_available(PG_FUNCTION_ARGS)
{
	return set_limits(fcinfo, "set_min_available", 1, 0, 2);
}

PG_FUNCTION_INFO_V1(finance_set_max_balance);

/*
 * finance.set_max_balance(code, max_balance, reason) returns bigint
 *
 * As set_account_limits(), but leaves min_available as it is.
 */
Datum
finance_set_max_balance(PG_FUNCTION_ARGS)
{
	return set_limits(fcinfo, "set_max_balance", 0, 1, 2);
}

/* ------------------------------------------------------------------------
 * level
 * ------------------------------------------------------------------------ */

static char *
level_json(const char *level)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "level", level);
	return fin_json_end(&json);
}

static void
change_level(const FinContext *context, FinAccount *account, const char *level,
			 const char *reason)
{
	FinAccountChange change = {.operation = "set_account_level"};
	Datum		values[4] = {0};
	char		nulls[4] = {' ', ' ', ' ', ' '};

	refuse_closed(account);
	change.change = "level";
	change.reason = reason;
	change.old_value = level_json(account->level);
	change.new_value = level_json(level);
	account->level = level;
	account->version++;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	if (level != NULL)
		values[2] = CStringGetTextDatum(level);
	else
		nulls[2] = 'n';
	values[3] = Int64GetDatum(account->version);
	fin_query_run(&update_level, values, nulls, 0);
	fin_account_record_change(context, account, &change);
}

static bool
is_same_level(const char *level, const char *other)
{
	if (level == NULL || other == NULL)
		return level == other;
	return strcmp(level, other) == 0;
}

PG_FUNCTION_INFO_V1(finance_set_account_level);

/*
 * finance.set_account_level(code, level, reason) returns bigint
 *
 * The level of the account's customer, 1 to 63 bytes of any name, for which
 * rules may have limits of their own (set_rule_limit()); null: none.  Setting
 * the level it has changes nothing.  Result: the account's version.  Errors:
 * LG002 unknown account, 22023 empty or too long, LG004 closed.  Locks: the
 * account.
 */
Datum
finance_set_account_level(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	char	   *level = fin_argument_text_or_null(fcinfo, 1, "level",
												  FIN_TYPE_LENGTH_MAX);
	char	   *reason = fin_argument_text_or_null(fcinfo, 2, "reason",
												   FIN_REASON_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinAccount	account;

	fin_query_begin(&scope);
	fin_account_lock(context, code, &account);
	if (!is_same_level(account.level, level))
		change_level(context, &account, level, reason);
	fin_query_end(&scope);
	PG_RETURN_INT64(account.version);
}
