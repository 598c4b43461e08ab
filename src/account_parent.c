/*
 * account_parent.c
 *		Which account an account is summed up under.
 *
 * Owns nothing between calls.  The parents of a tenant form trees of at most
 * FIN_ACCOUNT_LEVELS_MAX levels; which currencies and types are below one
 * another is nobody's business, since roll-ups sum up each currency by itself.
 *
 * Locks: first the tenant's row, FOR NO KEY UPDATE to set a parent and FOR
 * SHARE to open an account under one, so that two changes which together would
 * make a circle come one after the other; then the account.  What is above and
 * below is read with the newest snapshot: at REPEATABLE READ the transaction's
 * own would not show what the other has just committed.
 *
 * A transaction that has locked accounts and then sets a parent may deadlock
 * with another that does the same (40P01): set parents first.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "account_parts.h"
#include "argument.h"
#include "errors.h"
#include "json.h"
#include "query.h"

static FinQuery lock_tree_shared =
{
	.sql = "SELECT tenant_id FROM finance.tenant WHERE tenant_id = $1 FOR SHARE",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_tree =
{
	.sql = "SELECT tenant_id FROM finance.tenant WHERE tenant_id = $1"
	" FOR NO KEY UPDATE",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_account =
{
	.sql = "SELECT account_id, status = 'closed' FROM finance._account"
	" WHERE tenant_id = $1 AND code = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/*
 * An account by its id as a range in order: with "=" every index that begins
 * with the tenant looks as good while the table is small, and the plan is kept.
 */
#define BY_ID(id) \
	" WHERE a.tenant_id = $1 AND a.account_id BETWEEN " id " AND " id \
	" ORDER BY a.account_id LIMIT 1"

static FinQuery select_parent =
{
	.sql = "SELECT p.account_id, p.code"
	" FROM (SELECT a.parent_id FROM finance._account a" BY_ID("$2") ") c"
	" CROSS JOIN LATERAL (SELECT a.account_id, a.code"
	" FROM finance._account a" BY_ID("c.parent_id") ") p",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* the level of account $2, counted from above, and whether $3 is on the way */
static FinQuery select_above =
{
	.sql = "WITH RECURSIVE above AS ("
	" SELECT s.account_id, s.parent_id, 1 AS level"
	" FROM (SELECT a.account_id, a.parent_id"
	" FROM finance._account a" BY_ID("$2") ") s"
	" UNION ALL"
	" SELECT p.account_id, p.parent_id, b.level + 1"
	" FROM above b CROSS JOIN LATERAL (SELECT a.account_id, a.parent_id"
	" FROM finance._account a" BY_ID("b.parent_id") ") p"
	" WHERE b.level < $4)"
	" SELECT max(level)::int8, coalesce(bool_or(account_id = $3), false)"
	" FROM above",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* how many levels account $2 and all below it are */
static FinQuery select_below =
{
	.sql = "WITH RECURSIVE below AS (SELECT $2 AS account_id, 1 AS level"
	" UNION ALL"
	" SELECT c.account_id, b.level + 1"
	" FROM below b CROSS JOIN LATERAL (SELECT a.account_id"
	" FROM finance._account a WHERE a.tenant_id = $1"
	" AND a.parent_id = b.account_id OFFSET 0) c WHERE b.level < $3)"
	" SELECT max(level)::int8 FROM below",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery update_parent =
{
	.sql = "UPDATE finance._account SET parent_id = $3, version = $4"
	" WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "_account",
};

/* ------------------------------------------------------------------------
 * what a parent must be
 * ------------------------------------------------------------------------ */

static void
refuse_closed(const char *code)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE),
			errmsg("account \"%s\" is closed", code));
}

static int64
find_open_account(const FinContext *context, const char *code)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	CStringGetTextDatum(code)};
	bool		isnull;

	if (fin_query_run(&select_account, values, NULL, 1) == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	if (DatumGetBool(fin_query_datum(0, 2, &isnull)))
		refuse_closed(code);
	return fin_query_int64(0, 1);
}

/* would 'levels' below the parent be too deep, or one of them above it? */
static void
check_place(const FinContext *context, const char *code, int64 account_id,
			const char *parent, int64 parent_id, int levels)
{
	Datum		values[4] = {Int32GetDatum(context->tenant_id),
		Int64GetDatum(parent_id), Int64GetDatum(account_id),
	Int32GetDatum(FIN_ACCOUNT_LEVELS_MAX)};
	bool		isnull;
	int			above;

	fin_query_run(&select_above, values, NULL, 1);
	if (DatumGetBool(fin_query_datum(0, 2, &isnull)))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				account_id == parent_id ?
				errmsg("account \"%s\" cannot be its own parent", code) :
				errmsg("account \"%s\" cannot be under \"%s\", which is under it",
					   code, parent));
	above = (int) fin_query_int64(0, 1);
	if (above + levels > FIN_ACCOUNT_LEVELS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("account \"%s\" would be too deep under \"%s\"", code,
					   parent),
				errdetail("There would be %d levels, the most is %d.",
						  above + levels, FIN_ACCOUNT_LEVELS_MAX));
}

int64
fin_account_find_parent(const FinContext *context, const char *code,
						const char *parent)
{
	Datum		values[1] = {Int32GetDatum(context->tenant_id)};
	int64		parent_id;

	fin_query_run(&lock_tree_shared, values, NULL, 0);
	parent_id = find_open_account(context, parent);
	check_place(context, code, 0, parent, parent_id, 1);
	return parent_id;
}

/* ------------------------------------------------------------------------
 * set_account_parent
 * ------------------------------------------------------------------------ */

static int
levels_below(const FinContext *context, int64 account_id)
{
	Datum		values[3] = {Int32GetDatum(context->tenant_id),
	Int64GetDatum(account_id), Int32GetDatum(FIN_ACCOUNT_LEVELS_MAX)};

	fin_query_run(&select_below, values, NULL, 1);
	return (int) fin_query_int64(0, 1);
}

/* its id, or 0; *code is NULL then */
static int64
read_parent(const FinContext *context, int64 account_id, const char **code)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	Int64GetDatum(account_id)};

	*code = NULL;
	if (fin_query_run(&select_parent, values, NULL, 1) == 0)
		return 0;
	*code = fin_query_text(0, 2);
	return fin_query_int64(0, 1);
}

static char *
parent_json(const char *code)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "parent", code);
	return fin_json_end(&json);
}

static void
write_parent(const FinContext *context, FinAccount *account, int64 parent_id)
{
	Datum		values[4];
	char		nulls[4] = {' ', ' ', parent_id == 0 ? 'n' : ' ', ' '};

	account->version++;
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = Int64GetDatum(parent_id);
	values[3] = Int64GetDatum(account->version);
	fin_query_run(&update_parent, values, nulls, 0);
}

/* parent: or NULL; returns the account's version */
static int64
move_account(const FinContext *context, const char *code, const char *parent,
			 const char *reason)
{
	Datum		values[1] = {Int32GetDatum(context->tenant_id)};
	FinAccountChange change = {.operation = "set_account_parent",
	.change = "parent", .reason = reason};
	const char *old_parent;
	FinAccount	account;
	int64		parent_id = 0;

	fin_query_run(&lock_tree, values, NULL, 0);
	fin_account_lock(context, code, &account);
	if (parent != NULL)
		parent_id = find_open_account(context, parent);
	if (read_parent(context, account.account_id, &old_parent) == parent_id)
		return account.version;
	if (account.status == FIN_ACCOUNT_CLOSED)
		refuse_closed(code);
	if (parent != NULL)
		check_place(context, code, account.account_id, parent, parent_id,
					levels_below(context, account.account_id));
	write_parent(context, &account, parent_id);
	change.old_value = parent_json(old_parent);
	change.new_value = parent_json(parent);
	fin_account_record_change(context, &account, &change);
	return account.version;
}

PG_FUNCTION_INFO_V1(finance_set_account_parent);

/*
 * finance.set_account_parent(code, parent, reason) returns bigint
 *
 * Puts the account, and with it all below it, under another one of the tenant,
 * whatever its type and currency; null: under none.  What is already so
 * changes nothing.  Result: the account's version.  Errors: LG002 unknown
 * account, LG004 either is closed, 22023 the parent is the account itself or
 * below it, 54000 more than 32 levels.  Locks: the tenant's row, then the
 * account.
 */
Datum
finance_set_account_parent(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	char	   *parent = fin_argument_text_or_null(fcinfo, 1, "parent",
												   FIN_CODE_LENGTH_MAX);
	char	   *reason = fin_argument_text_or_null(fcinfo, 2, "reason",
												   FIN_REASON_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	int64		version;

	fin_query_begin(&scope);
	version = move_account(context, code, parent, reason);
	fin_query_end(&scope);
	PG_RETURN_INT64(version);
}
