/*
 * alert.c
 *		Alerts: what risk reports of transfers, for people to look into.
 *
 * An alert (finance._alert) is of one paying account, one rule, one level and
 * one business day; each transfer that hit has a row of finance.alert_transfer
 * that names its alert.  While an alert is open more of the same are counted
 * into it; once it is closed, the next one raises another.  What people do to
 * an alert is told in finance.alert_comment and in the audit log.
 *
 * Owns nothing between calls.
 *
 * Locks: raising happens under the account's lock and takes the alert FOR KEY
 * SHARE, unless somebody is just closing it, who has it FOR UPDATE: then it
 * raises another.  So no transfer ever waits for a person's transaction, and
 * none is counted into an alert that was closed before.  To assign and to
 * comment takes FOR NO KEY UPDATE, which does not stand in its way.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "alert.h"
#include "argument.h"
#include "audit.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "query.h"

#define ASSIGNEE_LENGTH_MAX	256
#define RULE_OF_SCORES		"score" /* when no rule alone decided */

static FinQuery find_open =
{
	.sql = "SELECT alert_id FROM finance._alert"
	" WHERE tenant_id = $1 AND account_id = $2 AND rule = $3 AND level = $4"
	" AND day = $5 AND status = 'open'"
	" ORDER BY alert_id DESC LIMIT 1 FOR KEY SHARE SKIP LOCKED",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, TEXTOID, TEXTOID, DATEOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_alert =
{
	.sql = "INSERT INTO finance._alert (tenant_id, account_id, rule, level,"
	" day, alert_id, raised_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
	.nargs = 7,
	.argtypes = {INT4OID, INT8OID, TEXTOID, TEXTOID, DATEOID, INT8OID,
	TIMESTAMPTZOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "_alert",
};

static FinQuery insert_transfer =
{
	.sql = "INSERT INTO finance.alert_transfer (tenant_id, transfer_id,"
	" alert_id, outcome, rules, kinds, version, score)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
	.nargs = 8,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, TEXTARRAYOID,
	TEXTARRAYOID, INT4OID, INT4OID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "alert_transfer",
};

static FinQuery lock_alert =
{
	.sql = "SELECT status FROM finance._alert"
	" WHERE tenant_id = $1 AND alert_id = $2 FOR NO KEY UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_alert_to_close =
{
	.sql = "SELECT status FROM finance._alert"
	" WHERE tenant_id = $1 AND alert_id = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery update_assignee =
{
	.sql = "UPDATE finance._alert SET assignee = $3"
	" WHERE tenant_id = $1 AND alert_id = $2",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, TEXTOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_alert",
};

static FinQuery update_status =
{
	.sql = "UPDATE finance._alert SET status = $3, closed_by = $4,"
	" closed_at = $5 WHERE tenant_id = $1 AND alert_id = $2",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_alert",
};

static FinQuery insert_comment =
{
	.sql = "INSERT INTO finance.alert_comment (tenant_id, alert_id,"
	" comment_id, action, actor, comment, commented_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)",
	.nargs = 7,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID,
	TIMESTAMPTZOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "alert_comment",
};

/* ------------------------------------------------------------------------
 * raising
 * ------------------------------------------------------------------------ */

const char *
fin_alert_level(FinRiskOutcome outcome)
{
	if (outcome == FIN_RISK_REJECT)
		return "critical";
	return outcome == FIN_RISK_REPORT ? "info" : "warning";
}

static bool
is_deciding(const FinVerdict *verdict, int hit)
{
	return verdict->rule != NULL &&
		strcmp(verdict->hits[hit].rule, verdict->rule) == 0;
}

Datum
fin_alert_rules(const FinVerdict *verdict, bool of_kinds)
{
	Datum	   *texts = palloc(sizeof(Datum) * Max(verdict->nhits, 1));
	int			n = 0;

	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < verdict->nhits; i++)
		{
			if (is_deciding(verdict, i) == (pass == 0))
				texts[n++] = CStringGetTextDatum(of_kinds ?
												 verdict->hits[i].kind :
												 verdict->hits[i].rule);
		}
	}
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static void
count_transfer(const FinContext *context, int64 transfer_id, int64 alert_id,
			   const FinVerdict *verdict)
{
	Datum		values[8];
	char		nulls[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(transfer_id);
	values[2] = Int64GetDatum(alert_id);
	values[3] = CStringGetTextDatum(fin_risk_outcome_name(verdict->outcome));
	values[4] = fin_alert_rules(verdict, false);
	values[5] = fin_alert_rules(verdict, true);
	values[6] = Int32GetDatum(verdict->version);
	nulls[6] = verdict->version == 0 ? 'n' : ' ';
	values[7] = Int32GetDatum(verdict->score);
	fin_query_run(&insert_transfer, values, nulls, 0);
}

int64
fin_alert_raise(const FinContext *context, int64 transfer_id,
				int64 account_id, DateADT day, const FinVerdict *verdict)
{
	const char *rule = verdict->rule != NULL ? verdict->rule :
		RULE_OF_SCORES;
	int64		alert_id;
	Datum		values[7];

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account_id);
	values[2] = CStringGetTextDatum(rule);
	values[3] = CStringGetTextDatum(fin_alert_level(verdict->outcome));
	values[4] = DateADTGetDatum(day);
	if (fin_query_run(&find_open, values, NULL, 1) == 1)
		alert_id = fin_query_int64(0, 1);
	else
	{
		alert_id = fin_ident_next(0);
		values[5] = Int64GetDatum(alert_id);
		values[6] = TimestampTzGetDatum(fin_ident_now());
		fin_query_run(&insert_alert, values, NULL, 0);
	}
	count_transfer(context, transfer_id, alert_id, verdict);
	return alert_id;
}

/* ------------------------------------------------------------------------
 * what people do to them
 * ------------------------------------------------------------------------ */

typedef struct AlertChange
{
	const FinContext *context;
	int64		alert_id;
	const char *operation;		/* of the audit record */
	const char *action;			/* of the comment */
	const char *comment;		/* or NULL */
	const char *assignee;		/* to tell, or NULL */
} AlertChange;

static int64
id_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("alert_id must not be null"));
	return PG_GETARG_INT64(0);
}

/* locks it: is it open? */
static bool
lock_open(const AlertChange *change, FinQuery *query)
{
	Datum		values[2] = {Int32GetDatum(change->context->tenant_id),
	Int64GetDatum(change->alert_id)};

	if (fin_query_run(query, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_CASE),
				errmsg("alert " INT64_FORMAT " does not exist",
					   change->alert_id));
	return strcmp(fin_query_text(0, 1), "open") == 0;
}

static void
refuse_state(const AlertChange *change, bool is_open)
{
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("alert " INT64_FORMAT " is %s", change->alert_id,
				   is_open ? "open" : "closed"),
			is_open ? 0 :
			errhint("Open it again with finance.reopen_alert()."));
}

static void
audit_change(const AlertChange *change)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "alert_id", change->alert_id);
	fin_json_text(&json, "action", change->action);
	fin_json_text(&json, "assignee", change->assignee);
	fin_json_text(&json, "comment", change->comment);
	record.operation = change->operation;
	record.status = "completed";
	record.request = fin_json_end(&json);
	fin_context_resume(change->context);
	fin_audit_append(&record, 1);
}

/* the row that tells of the change, and the audit record */
static void
record_change(const AlertChange *change)
{
	Datum		values[7];
	char		nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(change->context->tenant_id);
	values[1] = Int64GetDatum(change->alert_id);
	values[2] = Int64GetDatum(fin_ident_next(0));
	values[3] = CStringGetTextDatum(change->action);
	values[4] = CStringGetTextDatum(change->context->actor);
	values[5] = (Datum) 0;
	if (change->comment != NULL)
		values[5] = CStringGetTextDatum(change->comment);
	else
		nulls[5] = 'n';
	values[6] = TimestampTzGetDatum(fin_ident_now());
	fin_query_run(&insert_comment, values, nulls, 0);
	audit_change(change);
}

/* NULL: it is open again */
static void
set_status(const AlertChange *change, const char *closed_as)
{
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(change->context->tenant_id);
	values[1] = Int64GetDatum(change->alert_id);
	values[2] = CStringGetTextDatum(closed_as != NULL ? closed_as : "open");
	values[3] = CStringGetTextDatum(change->context->actor);
	values[4] = TimestampTzGetDatum(fin_ident_now());
	if (closed_as == NULL)
		nulls[3] = nulls[4] = 'n';
	fin_query_run(&update_status, values, nulls, 0);
}

PG_FUNCTION_INFO_V1(finance_assign_alert);

/*
 * finance.assign_alert(alert_id bigint, assignee text)
 *
 * assignee (1 to 256 bytes; null: nobody): who looks into it.  Errors: 22004,
 * 22023, LG110 unknown alert, 55000 it is closed.  Locks: the alert.
 */
Datum
finance_assign_alert(PG_FUNCTION_ARGS)
{
	AlertChange change = {.operation = "assign_alert", .action = "assigned"};
	FinQueryScope scope;
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};

	change.alert_id = id_argument(fcinfo);
	change.assignee = fin_argument_text_or_null(fcinfo, 1, "assignee",
												ASSIGNEE_LENGTH_MAX);
	change.comment = change.assignee;
	change.context = fin_context_hold();
	fin_query_begin(&scope);
	if (!lock_open(&change, &lock_alert))
		refuse_state(&change, false);
	values[0] = Int32GetDatum(change.context->tenant_id);
	values[1] = Int64GetDatum(change.alert_id);
	values[2] = (Datum) 0;
	if (change.assignee != NULL)
		values[2] = CStringGetTextDatum(change.assignee);
	else
		nulls[2] = 'n';
	fin_query_run(&update_assignee, values, nulls, 0);
	record_change(&change);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_comment_alert);

/*
 * finance.comment_alert(alert_id bigint, comment text)
 *
 * comment: 1 to 1024 bytes; also of a closed alert.  Errors: 22004, 22023,
 * LG110 unknown alert.  Locks: the alert.
 */
Datum
finance_comment_alert(PG_FUNCTION_ARGS)
{
	AlertChange change = {.operation = "comment_alert", .action = "comment"};
	FinQueryScope scope;

	change.alert_id = id_argument(fcinfo);
	change.comment = fin_argument_text(fcinfo, 1, "comment",
									   FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	fin_query_begin(&scope);
	(void) lock_open(&change, &lock_alert);
	record_change(&change);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

static const char *
status_argument(FunctionCallInfo fcinfo, int argument)
{
	char	   *status = fin_argument_text(fcinfo, argument, "status",
										   FIN_NAME_LENGTH_MAX);

	if (strcmp(status, "confirmed") != 0 && strcmp(status, "dismissed") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("an alert cannot be closed as \"%s\"", status),
				errhint("It is confirmed or dismissed."));
	return status;
}

PG_FUNCTION_INFO_V1(finance_close_alert);

/*
 * finance.close_alert(alert_id bigint, status text, comment text)
 *
 * status: confirmed (it was what it seemed) or dismissed.  Errors: 22004,
 * 22023, LG110 unknown alert, 55000 it is closed.  Locks: the alert, waiting
 * for transfers under way that are counted into it.
 */
Datum
finance_close_alert(PG_FUNCTION_ARGS)
{
	AlertChange change = {.operation = "close_alert"};
	FinQueryScope scope;

	change.alert_id = id_argument(fcinfo);
	change.action = status_argument(fcinfo, 1);
	change.comment = fin_argument_text(fcinfo, 2, "comment",
									   FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	fin_query_begin(&scope);
	if (!lock_open(&change, &lock_alert_to_close))
		refuse_state(&change, false);
	set_status(&change, change.action);
	record_change(&change);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_reopen_alert);

/*
 * finance.reopen_alert(alert_id bigint, comment text)
 *
 * Errors: 22004, 22023, LG110 unknown alert, 55000 it is open.  Locks: the
 * alert.
 */
Datum
finance_reopen_alert(PG_FUNCTION_ARGS)
{
	AlertChange change = {.operation = "reopen_alert", .action = "reopened"};
	FinQueryScope scope;

	change.alert_id = id_argument(fcinfo);
	change.comment = fin_argument_text(fcinfo, 1, "comment",
									   FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	fin_query_begin(&scope);
	if (lock_open(&change, &lock_alert_to_close))
		refuse_state(&change, true);
	set_status(&change, NULL);
	record_change(&change);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}
