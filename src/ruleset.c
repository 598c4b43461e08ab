/*
 * ruleset.c
 *		Versions of the rules: drafts, what is live, what is shadow.
 *
 * Owns nothing between calls.  A published version never changes; what changes
 * is which one is live.  Whoever asks for a change of "the rules" gets a copy
 * of the live version with the change in it, live from the commit on.  Each
 * change is audited, and the trigger of finance.ruleset invalidates the rules
 * of every backend (risk.c) when it commits: in one step, since a version is
 * read whole, so no transfer is judged by half of one.
 *
 * The measures that the live and shadow rules need are kept in
 * finance.risk_measure, in the same transaction (measure.h, meter.h).
 *
 * Locks: the tenant's row, FOR NO KEY UPDATE, until the end of the
 * transaction: changes of rulesets come one after another.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "audit.h"
#include "errors.h"
#include "json.h"
#include "query.h"
#include "risk.h"
#include "ruleset.h"

static FinQuery lock_tenant =
{
	.sql = "SELECT tenant_id FROM finance.tenant WHERE tenant_id = $1"
	" FOR NO KEY UPDATE",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_mode =
{
	.sql = "SELECT mode FROM finance.ruleset"
	" WHERE tenant_id = $1 AND version = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

#define SELECT_LIVE \
	"SELECT coalesce((SELECT version FROM finance.ruleset" \
	" WHERE tenant_id = $1 AND mode = 'live'), 0)::pg_catalog.int8," \
	" coalesce((SELECT max(version) FROM finance.ruleset" \
	" WHERE tenant_id = $1), 0)::pg_catalog.int8"

static FinQuery select_live =
{
	.sql = SELECT_LIVE,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_live_latest =
{
	.sql = SELECT_LIVE,
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* $5: the version whose settings are taken where none are given, or 0 */
static FinQuery insert_ruleset =
{
	.sql = "INSERT INTO finance.ruleset (tenant_id, version, name, created_by,"
	" copy_of, score_report, score_challenge, score_review, score_reject,"
	" review_timeout, review_default, challenge_timeout)"
	" SELECT $1, $2, $3, $4, nullif($5, 0),"
	" coalesce($6, c.score_report), coalesce($7, c.score_challenge),"
	" coalesce($8, c.score_review), coalesce($9, c.score_reject),"
	" coalesce($10, c.review_timeout, '24 hours'),"
	" coalesce($11, c.review_default, 'reject'),"
	" coalesce($12, c.challenge_timeout, '10 minutes')"
	" FROM (SELECT) one LEFT JOIN finance.ruleset c"
	" ON c.tenant_id = $1 AND c.version = $5",
	.nargs = 12,
	.argtypes = {INT4OID, INT4OID, TEXTOID, TEXTOID, INT4OID, INT4OID, INT4OID,
	INT4OID, INT4OID, INTERVALOID, TEXTOID, INTERVALOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery copy_rules =
{
	.sql = "INSERT INTO finance.risk_rule (tenant_id, version, name, kind,"
	" outcome, score, threshold, minimum, per, period, span, times,"
	" window_start, window_end, time_zone, weekdays, calendar, list, subject,"
	" expression, on_error, account_id, account_type, level, currency,"
	" transfer_type, enabled, description, created_at)"
	" SELECT tenant_id, $3, name, kind,"
	" outcome, score, threshold, minimum, per, period, span, times,"
	" window_start, window_end, time_zone, weekdays, calendar, list, subject,"
	" expression, on_error, account_id, account_type, level, currency,"
	" transfer_type, enabled, description, created_at"
	" FROM finance.risk_rule WHERE tenant_id = $1 AND version = $2",
	.nargs = 3,
	.argtypes = {INT4OID, INT4OID, INT4OID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery retire_live =
{
	.sql = "UPDATE finance.ruleset SET mode = 'retired'"
	" WHERE tenant_id = $1 AND mode = 'live' AND version <> $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

/* who put it in force last, and when: what is so already, nobody does */
static FinQuery update_mode =
{
	.sql = "UPDATE finance.ruleset SET mode = $3,"
	" published_by = CASE WHEN $3 IN (mode, 'retired') THEN published_by"
	" ELSE $4 END,"
	" published_at = CASE WHEN $3 IN (mode, 'retired') THEN published_at"
	" ELSE pg_catalog.now() END,"
	" rules = coalesce(rules, (SELECT count(*) FROM finance.risk_rule r"
	" WHERE r.tenant_id = $1 AND r.version = $2)::pg_catalog.int4)"
	" WHERE tenant_id = $1 AND version = $2",
	.nargs = 4,
	.argtypes = {INT4OID, INT4OID, TEXTOID, TEXTOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

/* what a published ruleset had is restored with a dump, in whatever order */
static FinQuery select_full =
{
	.sql = "SELECT 1 FROM finance.ruleset s"
	" WHERE s.tenant_id = $1 AND s.version = $2 AND s.rules <="
	" (SELECT count(*) FROM finance.risk_rule r"
	" WHERE r.tenant_id = $1 AND r.version = $2)",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery delete_rules =
{
	.sql = "DELETE FROM finance.risk_rule WHERE tenant_id = $1 AND version = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery delete_ruleset =
{
	.sql = "DELETE FROM finance.ruleset WHERE tenant_id = $1 AND version = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery count_shadows =
{
	.sql = "SELECT count(*) FROM finance.ruleset"
	" WHERE tenant_id = $1 AND mode = 'shadow' AND version <> $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * versions
 * ------------------------------------------------------------------------ */

/*
 * The live version, or 0, and the last one made, when others have done with
 * them.  Under REPEATABLE READ what they did is perhaps not seen, and a copy
 * would be one of something else: 40001.
 */
static void
lock_rulesets(const FinContext *context, int32 *live, int32 *last)
{
	Datum		values[1] = {Int32GetDatum(context->tenant_id)};

	fin_query_run(&lock_tenant, values, NULL, 0);
	fin_query_run(&select_live, values, NULL, 1);
	*live = (int32) fin_query_int64(0, 1);
	*last = (int32) fin_query_int64(0, 2);
	fin_query_run(&select_live_latest, values, NULL, 1);
	if (*live != (int32) fin_query_int64(0, 1) ||
		*last != (int32) fin_query_int64(0, 2))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not serialize access due to a concurrent change of rulesets"));
}

/* the mode of a version, after others have done with it.  LG108: none such */
static char *
lock_version(const FinContext *context, int32 version)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	Int32GetDatum(version)};
	int32		live;
	int32		last;

	lock_rulesets(context, &live, &last);
	if (fin_query_run(&select_mode, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RULESET),
				errmsg("ruleset %d does not exist", version));
	return fin_query_text(0, 1);
}

static void
require_draft(int32 version, const char *mode)
{
	if (strcmp(mode, "draft") == 0)
		return;
	ereport(ERROR,
			errcode(ERRCODE_FIN_RULESET_NOT_DRAFT),
			errmsg("ruleset %d is not a draft", version),
			errdetail("It is %s, and what was published never changes.", mode),
			errhint("Make a copy: finance.create_ruleset(name, copy_of => %d).",
					version));
}

/*
 * A draft after the last version.  settings: seven values, the last of
 * insert_ruleset, or NULL.
 */
static int32
make_version(const FinContext *context, int32 last, const char *name,
			 int32 copy_of,
			 const Datum *settings, const char *settings_null)
{
	Datum		values[12] = {0};
	char		nulls[12];
	int32		version;

	memset(nulls, 'n', sizeof(nulls));
	values[0] = Int32GetDatum(context->tenant_id);
	version = last + 1;
	values[1] = Int32GetDatum(version);
	values[2] = CStringGetTextDatum(name);
	values[3] = CStringGetTextDatum(context->actor);
	values[4] = Int32GetDatum(copy_of);
	nulls[0] = nulls[1] = nulls[2] = nulls[3] = nulls[4] = ' ';
	if (settings != NULL)
	{
		memcpy(&values[5], settings, sizeof(Datum) * 7);
		memcpy(&nulls[5], settings_null, 7);
	}
	fin_query_run(&insert_ruleset, values, nulls, 0);
	if (copy_of != 0)
	{
		Datum		copy[3] = {Int32GetDatum(context->tenant_id),
			Int32GetDatum(copy_of), Int32GetDatum(version)};

		fin_query_run(&copy_rules, copy, NULL, 0);
	}
	return version;
}

static void
set_mode(const FinContext *context, int32 version, const char *mode)
{
	Datum		values[4] = {Int32GetDatum(context->tenant_id),
		Int32GetDatum(version), CStringGetTextDatum(mode),
	CStringGetTextDatum(context->actor)};

	if (strcmp(mode, "live") == 0)
		fin_query_run(&retire_live, values, NULL, 0);
	fin_query_run(&update_mode, values, NULL, 0);
	fin_risk_follow_rulesets(context->tenant_id);
}

/* a trigger on the tables written may have acted as somebody else */
static void
audit_request(const FinContext *context, const char *operation, char *request)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.request = request;
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

static void
audit_version(const FinContext *context, const char *operation, int32 version,
			  const char *key, const char *value)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "version", version);
	fin_json_text(&json, key, value);
	audit_request(context, operation, fin_json_end(&json));
}

void
fin_ruleset_begin_edit(const FinContext *context, int32 version,
					   const char *change, FinRulesetEdit *edit)
{
	int32		live;
	int32		last;

	edit->is_immediate = version == 0;
	if (!edit->is_immediate)
	{
		require_draft(version, lock_version(context, version));
		edit->version = version;
		return;
	}
	lock_rulesets(context, &live, &last);
	edit->version = make_version(context, last, change, live, NULL, NULL);
}

void
fin_ruleset_end_edit(const FinContext *context, const FinRulesetEdit *edit)
{
	if (edit->is_immediate)
		set_mode(context, edit->version, "live");
}

int32
fin_ruleset_argument(FunctionCallInfo fcinfo, int argument)
{
	int32		version;

	if (PG_ARGISNULL(argument))
		return 0;
	version = PG_GETARG_INT32(argument);
	if (version <= 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RULESET),
				errmsg("ruleset %d does not exist", version));
	return version;
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------ */

static int32
required_version(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("version must not be null"));
	return fin_ruleset_argument(fcinfo, 0);
}

static void
refuse(const char *message, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("%s", message),
			errhint("%s", hint));
}

static void
check_timeout(FunctionCallInfo fcinfo, int argument, const char *name)
{
	Interval   *span;
	double		days;

	if (PG_ARGISNULL(argument))
		return;
	span = PG_GETARG_INTERVAL_P(argument);
	days = span->month * 30.0 + span->day +
		(double) span->time / (double) USECS_PER_DAY;
	if (days <= 0 || days > 366)
		refuse(psprintf("%s must be above zero and at most 366 days", name),
			   "For example '24 hours'.");
}

/* arguments of create_ruleset(), from 2 */
static const char *const settings_names[] = {
	"score_report", "score_challenge", "score_review", "score_reject",
	"review_timeout", "review_default", "challenge_timeout"
};

/* the constraints of finance.ruleset, said in words */
static void
check_settings(FunctionCallInfo fcinfo)
{
	for (int i = 0; i < 4; i++)
	{
		if (!PG_ARGISNULL(2 + i) && PG_GETARG_INT32(2 + i) <= 0)
			refuse(psprintf("%s must be above zero", settings_names[i]),
				   "Null: scores alone never come to this outcome.");
	}
	check_timeout(fcinfo, 6, settings_names[4]);
	check_timeout(fcinfo, 8, settings_names[6]);
	if (!PG_ARGISNULL(7))
	{
		char	   *word = fin_argument_text(fcinfo, 7, "review_default",
											 FIN_NAME_LENGTH_MAX);

		if (strcmp(word, "reject") != 0 && strcmp(word, "approve") != 0)
			refuse(psprintf("review_default \"%s\" is not known", word),
				   "It is reject or approve.");
	}
}

/* what was asked for; the version itself tells what else it took from copy_of */
static char *
version_json(FunctionCallInfo fcinfo, int32 version, const char *name,
			 int32 copy_of)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "version", version);
	fin_json_text(&json, "name", name);
	if (copy_of != 0)
		fin_json_int64(&json, "copy_of", copy_of);
	for (int i = 0; i < 4; i++)
	{
		if (!PG_ARGISNULL(2 + i))
			fin_json_int64(&json, settings_names[i], PG_GETARG_INT32(2 + i));
	}
	for (int i = 4; i < (int) lengthof(settings_names); i++)
	{
		if (!PG_ARGISNULL(2 + i))
			fin_json_text(&json, settings_names[i], i == 5 ?
						  TextDatumGetCString(PG_GETARG_DATUM(2 + i)) :
						  fin_json_span_text(PG_GETARG_INTERVAL_P(2 + i)));
	}
	return fin_json_end(&json);
}

PG_FUNCTION_INFO_V1(finance_create_ruleset);

/*
 * finance.create_ruleset(name, copy_of, score_report, score_challenge,
 *						  score_review, score_reject, review_timeout,
 *						  review_default, challenge_timeout) returns integer
 *
 * A draft; copy_of: with the rules of this version, and its settings where none
 * are given.  A score: what the scores of the rules that hit must add up to for
 * this outcome; null: never.  review_timeout: how long a transfer may wait for
 * review before review_default (reject, approve) befalls it.
 * challenge_timeout: how long one may wait to be confirmed before it is
 * rejected.  Result: its version.
 *
 * Errors: 22004, 22023 bad arguments, LG108 no such version to copy.  Locks:
 * the tenant's rulesets.
 */
Datum
finance_create_ruleset(PG_FUNCTION_ARGS)
{
	char	   *name = fin_argument_text(fcinfo, 0, "name", FIN_NAME_LENGTH_MAX);
	int32		copy_of = fin_ruleset_argument(fcinfo, 1);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		settings[7];
	char		nulls[7];
	int32		live;
	int32		last;
	int32		version;

	check_settings(fcinfo);
	for (int i = 0; i < 7; i++)
	{
		settings[i] = PG_GETARG_DATUM(2 + i);
		nulls[i] = PG_ARGISNULL(2 + i) ? 'n' : ' ';
	}
	fin_query_begin(&scope);
	lock_rulesets(context, &live, &last);
	if (copy_of != 0)
		(void) lock_version(context, copy_of);
	version = make_version(context, last, name, copy_of, settings, nulls);
	audit_request(context, "create_ruleset",
				  version_json(fcinfo, version, name, copy_of));
	fin_query_end(&scope);
	PG_RETURN_INT32(version);
}

static void
check_shadows(const FinContext *context, int32 version)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	Int32GetDatum(version)};

	fin_query_run(&count_shadows, values, NULL, 1);
	if (fin_query_int64(0, 1) >= FIN_SHADOWS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("there are %d shadow rulesets already", FIN_SHADOWS_MAX),
				errhint("Retire one with finance.retire_ruleset()."));
}

PG_FUNCTION_INFO_V1(finance_publish_ruleset);

/*
 * finance.publish_ruleset(version, mode)
 *
 * mode live: transfers that begin after the commit are judged by it, and the
 * one that was live is retired; publishing an old version takes back what came
 * after it.  shadow: it is evaluated and recorded besides, at most 8 of them.
 * Rules are compiled first: what cannot be is refused.
 *
 * Errors: 22004, 22023 bad mode, LG108 unknown, LG103 an expression that cannot
 * be compiled, 54000 too many shadows.  Locks: the tenant's rulesets; and where
 * a total over all transfers of a type becomes needed, finance.transfer in
 * SHARE mode, since it must be counted while nobody pays.
 */
Datum
finance_publish_ruleset(PG_FUNCTION_ARGS)
{
	int32		version = required_version(fcinfo);
	char	   *mode = fin_argument_text(fcinfo, 1, "mode", FIN_NAME_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;

	if (strcmp(mode, "live") != 0 && strcmp(mode, "shadow") != 0)
		refuse(psprintf("mode \"%s\" of a ruleset is not known", mode),
			   "It is live or shadow.");
	fin_query_begin(&scope);
	(void) lock_version(context, version);
	if (strcmp(mode, "shadow") == 0)
		check_shadows(context, version);
	set_mode(context, version, mode);
	audit_version(context, "publish_ruleset", version, "mode", mode);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_retire_ruleset);

/*
 * finance.retire_ruleset(version)
 *
 * A tenant without a live ruleset judges nothing.  Errors: LG108 unknown, 55000
 * it is a draft or retired.
 */
Datum
finance_retire_ruleset(PG_FUNCTION_ARGS)
{
	int32		version = required_version(fcinfo);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	char	   *mode;

	fin_query_begin(&scope);
	mode = lock_version(context, version);
	if (strcmp(mode, "live") != 0 && strcmp(mode, "shadow") != 0)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("ruleset %d is not in force", version),
				errdetail("It is %s.", mode));
	set_mode(context, version, "retired");
	audit_version(context, "retire_ruleset", version, "mode", mode);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_drop_ruleset);

/* finance.drop_ruleset(version).  Errors: LG108 unknown, LG109 no draft. */
Datum
finance_drop_ruleset(PG_FUNCTION_ARGS)
{
	int32		version = required_version(fcinfo);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	Int32GetDatum(version)};

	fin_query_begin(&scope);
	require_draft(version, lock_version(context, version));
	fin_query_run(&delete_rules, values, NULL, 0);
	fin_query_run(&delete_ruleset, values, NULL, 0);
	audit_version(context, "drop_ruleset", version, "mode", NULL);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * the guard
 * ------------------------------------------------------------------------ */

static int32
column_int32(HeapTuple tuple, TupleDesc desc, const char *name)
{
	bool		isnull;

	return DatumGetInt32(heap_getattr(tuple, SPI_fnumber(desc, name), desc,
									  &isnull));
}

static bool
is_published(int32 tenant_id, int32 version)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int32GetDatum(version)};

	return fin_query_run(&select_mode, values, NULL, 1) != 0 &&
		strcmp(fin_query_text(0, 1), "draft") != 0;
}

static bool
is_full(int32 tenant_id, int32 version)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), Int32GetDatum(version)};

	return fin_query_run(&select_full, values, NULL, 1) != 0;
}

/* is it published, and was not in force in this mode? */
static bool
is_publication(HeapTuple old, HeapTuple new, TupleDesc desc, int mode)
{
	const char *now = SPI_getvalue(new, desc, mode);

	return strcmp(now, SPI_getvalue(old, desc, mode)) != 0 &&
		(strcmp(now, "live") == 0 || strcmp(now, "shadow") == 0);
}

/* and, where it is published again, by whom and when */
static bool
only_mode_differs(HeapTuple old, HeapTuple new, TupleDesc desc)
{
	int			mode = SPI_fnumber(desc, "mode");
	int			published_by = SPI_fnumber(desc, "published_by");
	int			published_at = SPI_fnumber(desc, "published_at");
	bool		is_published = is_publication(old, new, desc, mode);

	for (int i = 1; i <= desc->natts; i++)
	{
		bool		old_null;
		bool		new_null;
		Datum		a = heap_getattr(old, i, desc, &old_null);
		Datum		b = heap_getattr(new, i, desc, &new_null);
		Form_pg_attribute attribute = TupleDescAttr(desc, i - 1);

		if (i == mode || attribute->attisdropped ||
			(is_published && (i == published_by || i == published_at)))
			continue;
		if (old_null != new_null)
			return false;
		if (!old_null && !datumIsEqual(a, b, attribute->attbyval,
									   attribute->attlen))
			return false;
	}
	return strcmp(SPI_getvalue(new, desc, mode), "draft") != 0;
}

static bool
is_change_allowed(const TriggerData *trigger, TupleDesc desc)
{
	HeapTuple	old = trigger->tg_trigtuple;
	HeapTuple	new = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : NULL;
	int32		tenant_id = column_int32(old, desc, "tenant_id");
	int32		version = column_int32(old, desc, "version");
	bool		is_ruleset = strcmp(RelationGetRelationName(trigger->tg_relation),
									"ruleset") == 0;

	if (is_published(tenant_id, version))
		return is_ruleset && new != NULL && only_mode_differs(old, new, desc);
	/* a draft stays where it is, and so do its rules */
	return new == NULL || (column_int32(new, desc, "tenant_id") == tenant_id &&
						   column_int32(new, desc, "version") == version);
}

static bool
is_allowed(const TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	tuple = trigger->tg_trigtuple;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		return !is_full(column_int32(tuple, desc, "tenant_id"),
						column_int32(tuple, desc, "version"));
	return is_change_allowed(trigger, desc);
}

PG_FUNCTION_INFO_V1(finance_ruleset_guard);

/* row trigger of finance.ruleset and finance.risk_rule.  Error: LG011 */
Datum
finance_ruleset_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	FinQueryScope scope;
	bool		allowed;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_ruleset_guard() can only be called as a trigger"));
	fin_query_begin(&scope);
	allowed = is_allowed(trigger);
	fin_query_end(&scope);
	if (!allowed)
		ereport(ERROR,
				errcode(ERRCODE_FIN_IMMUTABLE),
				errmsg("a published ruleset cannot be changed"),
				errhint("Make a copy with finance.create_ruleset(), change that, and publish it."));
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
						   trigger->tg_newtuple : trigger->tg_trigtuple);
}
