/*
 * list_change.c
 *		Lists of accounts, countries and devices: what operators change.
 *
 * Owns nothing between calls.  Each change is audited, with who made it and
 * why, and by the table's trigger invalidates what backends keep of lists
 * (list.c) when it commits.
 *
 * One entry or 100,000 go the same way, by statements about a set.  Locks: FOR
 * UPDATE the entries that are there, in the order of their values, before any
 * is written, so that two who load the same wait instead of deadlocking.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "account.h"
#include "argument.h"
#include "audit.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "limit.h"
#include "list.h"
#include "query.h"

#define LOAD_MAX		100000	/* values in one call */
#define AUDITED_MAX		1000	/* values in one audit record */
#define EXPIRED_MAX		1000000 /* removed in one call */

/* entries of one list and subject that are added or changed alike */
typedef struct ListChange
{
	const FinContext *context;
	const char *operation;		/* as it is audited */
	const char *list;
	FinListSubject subject;
	const char *reason;
	TimestampTz expires_at;		/* DT_NOEND: never */
	TimestampTz now;
	int			n;
	const char **values;
	int64		account_id;		/* of a single account, or 0 */
	int64		added;			/* out: that were not there */
	int64		changed;		/* out: that got another reason or end */
} ListChange;

/*
 * Arguments of all that write: tenant, list, subject, values, now, expires_at,
 * reason, who.
 */
#define CHANGE_ARGUMENTS \
	.nargs = 8, \
	.argtypes = {INT4OID, TEXTOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, \
	TIMESTAMPTZOID, TEXTOID, TEXTOID}

/*
 * The rows of the values, one index look-up each.  As a join, or with value =
 * ANY ($4), a plan made while the table was small may compare each row with
 * each value for ever; what is LATERAL and has an OFFSET or a lock is planned by
 * itself.
 */
#define THE_VALUES \
	"(SELECT DISTINCT v.value COLLATE pg_catalog.\"C\" AS value" \
	" FROM pg_catalog.unnest($4) AS v (value) ORDER BY 1) u"
#define THE_ENTRIES(columns, more) \
	THE_VALUES " CROSS JOIN LATERAL (SELECT " columns \
	" FROM finance.risk_list l WHERE l.tenant_id = $1 AND l.list = $2" \
	" AND l.subject = $3 AND l.value = u.value " more ") e"
#define THEIR_ROWS(more) \
	"ctid = ANY (ARRAY(SELECT e.row FROM " \
	THE_ENTRIES("l.ctid AS row", more " OFFSET 0") "))"

static FinQuery find_unknown_account =
{
	.sql = "SELECT u.value FROM pg_catalog.unnest($4) WITH ORDINALITY"
	" AS u (value, position) WHERE (SELECT a.account_id FROM finance._account a"
	" WHERE a.tenant_id = $1 AND a.code = u.value OFFSET 0) IS NULL"
	" ORDER BY u.position LIMIT 1",
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_entries =
{
	.sql = "SELECT e.value FROM " THE_ENTRIES("l.value", "FOR UPDATE"),
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_SELECT,
};

/* what is over is as good as not there */
static FinQuery delete_over =
{
	.sql = "DELETE FROM finance.risk_list WHERE "
	THEIR_ROWS("AND l.expires_at <= $5"),
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery insert_entries =
{
	.sql = "INSERT INTO finance.risk_list (tenant_id, list, subject, value,"
	" added_at, expires_at, reason, added_by)"
	" SELECT $1, $2, $3, u.value, $5, $6, $7, $8 FROM " THE_VALUES
	" ON CONFLICT (tenant_id, list, subject, value) DO NOTHING",
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery update_entries =
{
	.sql = "UPDATE finance.risk_list SET added_at = $5, expires_at = $6,"
	" reason = $7, added_by = $8 WHERE "
	THEIR_ROWS("AND (l.reason <> $7 OR l.expires_at IS DISTINCT FROM $6)"),
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery delete_entries =
{
	.sql = "DELETE FROM finance.risk_list WHERE " THEIR_ROWS(""),
	CHANGE_ARGUMENTS,
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static FinQuery delete_expired =
{
	.sql = "DELETE FROM finance.risk_list WHERE ctid = ANY (ARRAY("
	"SELECT l.ctid FROM finance.risk_list l WHERE l.tenant_id = $1"
	" AND l.expires_at <= $2 ORDER BY l.list, l.subject, l.value LIMIT $3"
	" FOR UPDATE))",
	.nargs = 3,
	.argtypes = {INT4OID, TIMESTAMPTZOID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

static FinListSubject
subject_argument(FunctionCallInfo fcinfo, int argument)
{
	char	   *word = fin_argument_text(fcinfo, argument, "subject",
										 FIN_NAME_LENGTH_MAX);
	FinListSubject subject;

	if (!fin_list_parse_subject(word, &subject))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("subject \"%s\" is not known", word),
				errhint("It is account, country or device."));
	return subject;
}

static FinFault *
fault_of_country(const char *value)
{
	if (strlen(value) == 2 && value[0] >= 'A' && value[0] <= 'Z' &&
		value[1] >= 'A' && value[1] <= 'Z')
		return NULL;
	return fin_fault_hint(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
									"\"%s\" is not the code of a country",
									value),
						  "A country is two capital letters of ISO 3166-1, as DE.");
}

/* what is wrong with a value, or NULL and a C string */
static FinFault *
take_value(Datum value, FinListSubject subject, const char *name,
		   const char **string)
{
	int			length_max = subject == FIN_LIST_ACCOUNT ?
		FIN_CODE_LENGTH_MAX : FIN_LIST_VALUE_LENGTH_MAX;
	char	   *text;
	FinFault   *fault = fin_argument_take_text(value, name, length_max, &text);

	if (fault == NULL && subject == FIN_LIST_COUNTRY)
		fault = fault_of_country(text);
	*string = text;
	return fault;
}

static void
one_value(FunctionCallInfo fcinfo, int argument, const char *name,
		  ListChange *change)
{
	FinFault   *fault;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
	change->n = 1;
	change->values = palloc(sizeof(char *));
	fault = take_value(PG_GETARG_DATUM(argument), change->subject, name,
					   &change->values[0]);
	if (fault != NULL)
		fin_fault_raise(fault);
}

static void
many_values(FunctionCallInfo fcinfo, int argument, ListChange *change)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("entries must not be null"));
	array = PG_GETARG_ARRAYTYPE_P(argument);
	change->n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (change->n > LOAD_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("too many entries to load in one call"),
				errdetail("There are %d, the most is %d.", change->n, LOAD_MAX),
				errhint("Load them in several calls."));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &change->n);
	change->values = palloc(sizeof(char *) * Max(change->n, 1));
	for (int i = 0; i < change->n; i++)
	{
		FinFault   *fault;

		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("entries must not contain null"),
					errdetail("Element %d is null.", i + 1));
		fault = take_value(elements[i], change->subject,
						   psprintf("element %d of entries", i + 1),
						   &change->values[i]);
		if (fault != NULL)
			fin_fault_raise(fault);
	}
}

/* ------------------------------------------------------------------------
 * the change
 * ------------------------------------------------------------------------ */

static Datum
text_array(const char *const *texts, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static void
fill_arguments(const ListChange *change, Datum *values, char *nulls)
{
	memset(nulls, ' ', 8);
	values[0] = Int32GetDatum(change->context->tenant_id);
	values[1] = CStringGetTextDatum(change->list);
	values[2] = CStringGetTextDatum(fin_list_subject_name(change->subject));
	values[3] = text_array(change->values, change->n);
	values[4] = TimestampTzGetDatum(change->now);
	values[5] = TimestampTzGetDatum(change->expires_at);
	if (change->expires_at == DT_NOEND)
		nulls[5] = 'n';
	values[6] = CStringGetTextDatum(change->reason);
	values[7] = CStringGetTextDatum(change->context->actor);
}

/*
 * Not by the codes that the store remembers: one of an account whose creation
 * rolled back would be on the list of whoever gets the code later.
 */
static void
check_accounts(const ListChange *change, Datum *values, const char *nulls)
{
	if (change->subject == FIN_LIST_ACCOUNT &&
		fin_query_run(&find_unknown_account, values, nulls, 1) > 0)
		fin_fault_raise(fin_account_fault_unknown(fin_query_text(0, 1), 0));
}

static void
find_account_id(ListChange *change)
{
	if (change->subject == FIN_LIST_ACCOUNT && change->n == 1)
		change->account_id = fin_store_find_account(change->context->tenant_id,
													change->values[0]);
}

/* as its callers know it: an account that is blocked has a code */
static bool
is_short_form(const ListChange *change)
{
	return strcmp(change->operation, "block_account") == 0 ||
		strcmp(change->operation, "unblock_account") == 0;
}

static char *
values_json(const ListChange *change, int first, int n)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = first; i < first + n; i++)
	{
		appendStringInfoChar(&json, i == first ? '[' : ',');
		escape_json(&json, change->values[i]);
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

static char *
request_json(const ListChange *change, int first, int n)
{
	StringInfoData json;

	initStringInfo(&json);
	if (is_short_form(change))
		fin_json_text(&json, "code", change->values[0]);
	else
	{
		fin_json_text(&json, "list", change->list);
		fin_json_text(&json, "subject", fin_list_subject_name(change->subject));
		if (strcmp(change->operation, "load_list") == 0)
			fin_json_object(&json, "entries", values_json(change, first, n));
		else
			fin_json_text(&json, "value", change->values[0]);
		fin_json_time(&json, "expires_at", change->expires_at);
	}
	fin_json_text(&json, "reason", change->reason);
	return fin_json_end(&json);
}

static char *
counts_json(const ListChange *change)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "added", change->added);
	fin_json_int64(&json, "changed", change->changed);
	return fin_json_end(&json);
}

/* every value is told; many of them in several records, the first with counts */
static void
audit_change(const ListChange *change, const char *response)
{
	/* a trigger on the table written may have acted as somebody else */
	fin_context_resume(change->context);
	for (int first = 0; first < change->n; first += AUDITED_MAX)
	{
		FinAuditRecord record = {0};

		record.operation = change->operation;
		record.status = "completed";
		record.account_id = change->account_id;
		record.request = request_json(change, first,
									  Min(change->n - first, AUDITED_MAX));
		record.response = first == 0 ? response : NULL;
		fin_audit_append(&record, 1);
	}
}

static void
add_entries(ListChange *change)
{
	Datum		values[8];
	char		nulls[8];
	FinQueryScope scope;

	if (change->n == 0)
		return;
	fin_query_begin(&scope);
	fill_arguments(change, values, nulls);
	check_accounts(change, values, nulls);
	find_account_id(change);
	fin_query_run(&lock_entries, values, nulls, 0);
	fin_query_run(&delete_over, values, nulls, 0);
	change->added = (int64) fin_query_run(&insert_entries, values, nulls, 0);
	change->changed = (int64) fin_query_run(&update_entries, values, nulls, 0);
	if (change->added + change->changed > 0)
		audit_change(change, counts_json(change));
	fin_query_end(&scope);
}

/* false: it was not there */
static bool
remove_entry(ListChange *change)
{
	Datum		values[8];
	char		nulls[8];
	FinQueryScope scope;
	bool		removed;

	fin_query_begin(&scope);
	fill_arguments(change, values, nulls);
	check_accounts(change, values, nulls);
	find_account_id(change);
	fin_query_run(&lock_entries, values, nulls, 0);
	removed = fin_query_run(&delete_entries, values, nulls, 0) > 0;
	if (removed)
		audit_change(change, NULL);
	fin_query_end(&scope);
	return removed;
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------ */

static void
begin_change(FunctionCallInfo fcinfo, const char *operation,
			 ListChange *change)
{
	memset(change, 0, sizeof(*change));
	change->operation = operation;
	change->expires_at = DT_NOEND;
	change->now = fin_ident_now();
	if (is_short_form(change))
	{
		change->list = FIN_LIST_BLOCKLIST;
		change->subject = FIN_LIST_ACCOUNT;
	}
	else
	{
		change->list = fin_argument_text(fcinfo, 0, "list",
										 FIN_NAME_LENGTH_MAX);
		change->subject = subject_argument(fcinfo, 1);
	}
}

PG_FUNCTION_INFO_V1(finance_add_to_list);

/*
 * finance.add_to_list(list, subject, value, reason, expires_at)
 * returns boolean
 *
 * Puts an entry on a list, which needs no making.  list: 1 to 63 bytes.
 * subject account: value is its code, and there is such an account; country:
 * two capital letters of ISO 3166-1; device: 1 to 255 bytes.  expires_at: from
 * then on the entry does not count, though its row stays until it is removed;
 * null: it does not expire.  Adding what is there gives it the new reason and
 * end, be it an earlier one or none.
 *
 * Result: true when it was not on the list (or not any more), false when it was,
 * changed or not.  Errors: LG002 unknown account, 22023 unknown subject, value
 * or list empty, too long, of control characters or no country, expires_at not
 * in the future; 22004 null.  Locks: the entry.
 */
Datum
finance_add_to_list(PG_FUNCTION_ARGS)
{
	ListChange	change;

	begin_change(fcinfo, "add_to_list", &change);
	one_value(fcinfo, 2, "value", &change);
	change.reason = fin_argument_text(fcinfo, 3, "reason",
									  FIN_REASON_LENGTH_MAX);
	change.expires_at = fin_argument_expiry(fcinfo, 4, change.now);
	change.context = fin_context_hold();
	add_entries(&change);
	PG_RETURN_BOOL(change.added > 0);
}

PG_FUNCTION_INFO_V1(finance_load_list);

/*
 * finance.load_list(list, subject, entries text[], reason, expires_at)
 * returns bigint
 *
 * add_to_list() for up to 100,000 entries in one call, all or none; one that is
 * there twice is added once.  Audited with all its values, 1,000 in a record.
 * Result: how many were not on the list.  Errors: as add_to_list(), with the
 * number of the element; 22023 too many.  Locks: the entries.
 */
Datum
finance_load_list(PG_FUNCTION_ARGS)
{
	ListChange	change;

	begin_change(fcinfo, "load_list", &change);
	many_values(fcinfo, 2, &change);
	change.reason = fin_argument_text(fcinfo, 3, "reason",
									  FIN_REASON_LENGTH_MAX);
	change.expires_at = fin_argument_expiry(fcinfo, 4, change.now);
	change.context = fin_context_hold();
	add_entries(&change);
	PG_RETURN_INT64(change.added);
}

PG_FUNCTION_INFO_V1(finance_remove_from_list);

/*
 * finance.remove_from_list(list, subject, value, reason) returns boolean
 *
 * Takes an entry off a list, over or not.  Result: false when it was not there.
 * Errors: LG002 unknown account, 22023, 22004 as add_to_list().  Locks: the
 * entry.
 */
Datum
finance_remove_from_list(PG_FUNCTION_ARGS)
{
	ListChange	change;

	begin_change(fcinfo, "remove_from_list", &change);
	one_value(fcinfo, 2, "value", &change);
	change.reason = fin_argument_text(fcinfo, 3, "reason",
									  FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	PG_RETURN_BOOL(remove_entry(&change));
}

PG_FUNCTION_INFO_V1(finance_block_account);

/*
 * finance.block_account(code, reason) returns boolean
 *
 * add_to_list('blocklist', 'account', code, reason).  Errors: LG002 unknown
 * account, 22023, 22004.
 */
Datum
finance_block_account(PG_FUNCTION_ARGS)
{
	ListChange	change;

	begin_change(fcinfo, "block_account", &change);
	one_value(fcinfo, 0, "code", &change);
	change.reason = fin_argument_text(fcinfo, 1, "reason",
									  FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	add_entries(&change);
	PG_RETURN_BOOL(change.added > 0);
}

PG_FUNCTION_INFO_V1(finance_unblock_account);

/*
 * finance.unblock_account(code, reason) returns boolean
 *
 * remove_from_list('blocklist', 'account', code, reason).  Errors: LG002
 * unknown account, 22023, 22004.
 */
Datum
finance_unblock_account(PG_FUNCTION_ARGS)
{
	ListChange	change;

	begin_change(fcinfo, "unblock_account", &change);
	one_value(fcinfo, 0, "code", &change);
	change.reason = fin_argument_text(fcinfo, 1, "reason",
									  FIN_REASON_LENGTH_MAX);
	change.context = fin_context_hold();
	PG_RETURN_BOOL(remove_entry(&change));
}

/* ------------------------------------------------------------------------
 * ask
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(finance_is_on_list);

/*
 * finance.is_on_list(list, subject, value) returns boolean
 *
 * What a rule would find now: false also for what cannot be on a list, and for
 * a list that nobody added to.  Countries in small letters are found.  Errors:
 * 22023 unknown subject, list or value empty, too long or of control
 * characters; 22004 null.  No locks.
 */
Datum
finance_is_on_list(PG_FUNCTION_ARGS)
{
	char	   *list = fin_argument_text(fcinfo, 0, "list",
										 FIN_NAME_LENGTH_MAX);
	FinListSubject subject = subject_argument(fcinfo, 1);
	char	   *value = fin_argument_text(fcinfo, 2, "value",
										  FIN_LIST_VALUE_LENGTH_MAX);
	const FinContext *context = fin_context();
	FinQueryScope scope;
	bool		found;

	fin_query_begin(&scope);
	/* as posting does before it judges */
	AcceptInvalidationMessages();
	found = fin_list_contains(context->tenant_id, list, subject, value,
							  fin_ident_now());
	fin_query_end(&scope);
	PG_RETURN_BOOL(found);
}

/* ------------------------------------------------------------------------
 * what is over
 * ------------------------------------------------------------------------ */

static void
audit_expired(const FinContext *context, int64 entries, int64 limits)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "entries", entries);
	fin_json_int64(&json, "limits", limits);
	record.operation = "remove_expired_entries";
	record.status = "completed";
	record.response = fin_json_end(&json);
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

static int64
most_argument(FunctionCallInfo fcinfo, int argument)
{
	int64		most;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("limit must not be null"));
	most = PG_GETARG_INT32(argument);
	if (most < 1 || most > EXPIRED_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("limit must be from 1 to %d", EXPIRED_MAX),
				errdetail("It is " INT64_FORMAT ".", most));
	return most;
}

PG_FUNCTION_INFO_V1(finance_remove_expired_entries);

/*
 * finance.remove_expired_entries(limit) returns bigint
 *
 * Removes entries of lists and temporary limits of rules that are over, at most
 * 'limit' (1 to 1,000,000) of them.  They count for nothing already; this only
 * tidies up.  Result: how many were removed; as many as 'limit': call again.
 * Errors: 22023, 22004.  Locks: the rows.
 */
Datum
finance_remove_expired_entries(PG_FUNCTION_ARGS)
{
	int64		most = most_argument(fcinfo, 0);
	TimestampTz now = fin_ident_now();
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[3] = {Int32GetDatum(context->tenant_id),
		TimestampTzGetDatum(now),
	Int64GetDatum(most)};
	int64		entries;
	int64		limits;

	fin_query_begin(&scope);
	entries = (int64) fin_query_run(&delete_expired, values, NULL, 0);
	limits = fin_limit_remove_expired(context->tenant_id, now, most - entries);
	if (entries + limits > 0)
		audit_expired(context, entries, limits);
	fin_query_end(&scope);
	PG_RETURN_INT64(entries + limits);
}
