/*
 * history.c
 *		What an account was at a moment, and how it came to be so:
 *		finance.balance_at() and finance.statement().
 *
 * Owns the kept plans.  Takes no locks: everything in one call is read under
 * the snapshot of the calling statement.
 *
 * Recorded time.  A transfer was recorded in the millisecond of its id.  "At" a
 * moment means: with all that was recorded before it, so that the balance at
 * midnight is that of the day that ends; a moment within a millisecond stands
 * for the end of that millisecond.  The balance is in the account's last row
 * before, which is looked for on both sides of finance.transfer, first in the
 * month before the moment, then in ever longer stretches further back; for a
 * moment after the account's last transfer it is in the account itself.
 *
 * Value date.  A transfer with a stated effective_at counts from then on,
 * whenever it was recorded; any other from when it was recorded.  So
 *
 *		effective(t) = recorded(t)
 *			- dated transfers recorded before t
 *			+ dated transfers effective before t
 *
 * The first sum is the running total in the last row of finance.value_transfer
 * before t.  The second is the sum of finance.value_day over the days (UTC)
 * before the day of t, and of the rows of value_transfer effective on that day
 * and before t.  Both tables have rows of dated transfers only and are written
 * with them, under the accounts' locks (store_value.c).
 *
 * Statements.  An account's id order is its version order, and who commits
 * later has the higher ids, so that pages by id never miss what commits in
 * between.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "audit.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"

#define FIN_STATEMENT_LIMIT_MAX 10000

/* the first stretch looked through, in ids; each next is four times as long */
#define FIRST_STRETCH \
	((INT64CONST(31) * 24 * 60 * 60 * 1000) << FIN_ID_TIME_SHIFT)

/* an account as the calling statement sees it */
typedef struct Account
{
	int32		tenant_id;
	int64		account_id;
	int64		last_transfer_id;
	Datum		balance;
	Datum		held;
} Account;

/* what it had at some moment */
typedef struct State
{
	Datum		balance;
	Datum		held;
} State;

static FinQuery select_account =
{
	.sql = "SELECT account_id, last_transfer_id,"
	" credits_posted - debits_posted, debits_pending"
	" FROM finance._account WHERE tenant_id = $1 AND code = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_last =
{
	.sql = "SELECT e.balance, e.held FROM ("
	"(SELECT t.id, t.from_balance AS balance, coalesce(t.from_held, 0) AS held"
	" FROM finance.transfer t WHERE t.tenant_id = $1 AND t.from_account_id = $2"
	" AND t.id >= $3 AND t.id < $4 AND t.from_version IS NOT NULL"
	" ORDER BY t.id DESC LIMIT 1)"
	" UNION ALL "
	"(SELECT t.id, t.to_balance, coalesce(t.to_held, 0)"
	" FROM finance.transfer t WHERE t.tenant_id = $1 AND t.to_account_id = $2"
	" AND t.id >= $3 AND t.id < $4 AND t.to_version IS NOT NULL"
	" ORDER BY t.id DESC LIMIT 1)) e"
	" ORDER BY e.id DESC LIMIT 1",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/*
 * Columns 1 to 14 are those of a line from transfer_id on.  A limit on each
 * side: below a plain UNION ALL the server flattens the partitions of both and
 * looks at the first row of each; so it goes on to a month only when those
 * before had too few.
 */
#define PAGE_SIDE(side, account, counterparty, version, change, balance, held, held_change) \
	"(SELECT t.id, t." version " AS version, t.recorded_at," \
	" coalesce(t.effective_at, t.recorded_at) AS effective_at, t.type," \
	" t.status, '" side "'::pg_catalog.text AS side," \
	" t.amount::pg_catalog.numeric AS amount," \
	" CASE WHEN t.status = 'completed' THEN " change " ELSE 0 END AS change," \
	" t." balance " AS balance, coalesce(t." held ", 0) AS held," \
	" t." counterparty " AS counterparty_id, t.reference, t.metadata," \
	" " held_change " AS held_change FROM finance.transfer t" \
	" WHERE t.tenant_id = $1 AND t." account " = $2" \
	" AND t.id >= $3 AND t.id < $4 AND t." version " IS NOT NULL" \
	" ORDER BY t.id LIMIT $5)"

static FinQuery select_page =
{
	.sql = "SELECT e.id, e.version, e.recorded_at, e.effective_at, e.type,"
	" e.status, e.side, e.amount, e.change, e.balance, e.held,"
	" (SELECT a.code FROM finance._account a WHERE a.tenant_id = $1"
	" AND a.account_id = e.counterparty_id), e.reference, e.metadata,"
	" e.balance - e.change, e.held - e.held_change FROM ("
	PAGE_SIDE("debit", "from_account_id", "to_account_id", "from_version",
			  "- t.amount", "from_balance", "from_held",
			  "CASE WHEN t.status IN ('held', 'review', 'challenged') THEN t.amount"
			  " WHEN t.hold_id IS NULL OR t.status = 'approved' THEN 0"
			  " ELSE - t.amount - coalesce(t.released, 0) END")
	" UNION ALL "
	PAGE_SIDE("credit", "to_account_id", "from_account_id", "to_version",
			  "t.amount", "to_balance", "to_held", "0")
	") e ORDER BY e.id LIMIT $5",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_correction =
{
	.sql = "SELECT coalesce((SELECT sum(d.change) FROM finance.value_day d"
	" WHERE d.tenant_id = $1 AND d.account_id = $2 AND d.day < $3), 0)"
	" + coalesce((SELECT sum(v.change) FROM finance.value_transfer v"
	" WHERE v.tenant_id = $1 AND v.account_id = $2"
	" AND v.effective_at >= $4 AND v.effective_at < $5), 0)"
	" - coalesce((SELECT v.total FROM finance.value_transfer v"
	" WHERE v.tenant_id = $1 AND v.account_id = $2 AND v.transfer_id < $6"
	" ORDER BY v.transfer_id DESC LIMIT 1), 0)",
	.nargs = 6,
	.argtypes = {INT4OID, INT8OID, DATEOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static Datum
zero(void)
{
	return DirectFunctionCall1(int4_numeric, Int32GetDatum(0));
}

static void
find_account(const FinContext *context, const char *code, Account *account)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	CStringGetTextDatum(code)};
	bool		isnull;

	if (fin_query_run(&select_account, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_ACCOUNT),
				errmsg("account \"%s\" does not exist", code),
				errhint("Open it with finance.create_account()."));
	account->tenant_id = context->tenant_id;
	account->account_id = fin_query_int64(0, 1);
	account->last_transfer_id = fin_query_int64(0, 2);
	account->balance = fin_query_datum(0, 3, &isnull);
	account->held = fin_query_datum(0, 4, &isnull);
}

/* what was recorded before the moment has ids below this */
static int64
bound_of(TimestampTz at)
{
	if (TIMESTAMP_IS_NOBEGIN(at))
		return 0;
	if (TIMESTAMP_IS_NOEND(at))
		return PG_INT64_MAX;
	return fin_ident_floor(at + 999);
}

/* ------------------------------------------------------------------------
 * the state at a moment
 * ------------------------------------------------------------------------ */

/* at most n rows of both sides with ids from 'low' to below 'high', ascending */
static int
read_page(const Account *account, int64 low, int64 high, int n)
{
	Datum		values[5] = {Int32GetDatum(account->tenant_id),
		Int64GetDatum(account->account_id), Int64GetDatum(low),
	Int64GetDatum(high), Int64GetDatum((int64) n)};

	return (int) fin_query_run(&select_page, values, NULL, n);
}

/* before a row of the last page */
static void
state_before(int row, State *state)
{
	bool		isnull;

	state->balance = fin_query_datum(row, 15, &isnull);
	state->held = fin_query_datum(row, 16, &isnull);
}

/* after the last of the account's rows with ids below the bound */
static bool
find_last(const Account *account, int64 bound, State *state)
{
	int64		high = bound;
	int64		stretch = FIRST_STRETCH;

	while (high > 0)
	{
		int64		low = high > stretch ? high - stretch : 0;
		Datum		values[4] = {Int32GetDatum(account->tenant_id),
			Int64GetDatum(account->account_id), Int64GetDatum(low),
		Int64GetDatum(high)};
		bool		isnull;

		if (fin_query_run(&select_last, values, NULL, 1) > 0)
		{
			state->balance = fin_query_datum(0, 1, &isnull);
			state->held = fin_query_datum(0, 2, &isnull);
			return true;
		}
		high = low;
		stretch = stretch > PG_INT64_MAX / 4 ? PG_INT64_MAX : stretch * 4;
	}
	return false;
}

static void
state_at(const Account *account, int64 bound, State *state)
{
	if (bound > account->last_transfer_id)
	{
		state->balance = account->balance;
		state->held = account->held;
	}
	else if (find_last(account, bound, state))
		return;
	/* months before were detached, perhaps: what the first kept row began with */
	else if (read_page(account, bound, PG_INT64_MAX, 1) > 0)
		state_before(0, state);
	else
		state->balance = state->held = zero();
}

/* ------------------------------------------------------------------------
 * balance_at
 * ------------------------------------------------------------------------ */

static DateADT
day_of(TimestampTz at)
{
	int64		day;

	if (TIMESTAMP_IS_NOBEGIN(at))
		return DATEVAL_NOBEGIN;
	if (TIMESTAMP_IS_NOEND(at))
		return DATEVAL_NOEND;
	day = at / USECS_PER_DAY;
	return (DateADT) (at % USECS_PER_DAY < 0 ? day - 1 : day);
}

static TimestampTz
start_of(DateADT day, TimestampTz at)
{
	return DATE_NOT_FINITE(day) ? at : day * USECS_PER_DAY;
}

static Datum
correction_at(const Account *account, TimestampTz at)
{
	DateADT		day = day_of(at);
	Datum		values[6] = {Int32GetDatum(account->tenant_id),
		Int64GetDatum(account->account_id), DateADTGetDatum(day),
		TimestampTzGetDatum(start_of(day, at)), TimestampTzGetDatum(at),
	Int64GetDatum(bound_of(at))};
	bool		isnull;

	(void) fin_query_run(&select_correction, values, NULL, 1);
	return fin_query_datum(0, 1, &isnull);
}

/* true: by value date */
static bool
by_argument(const char *by)
{
	if (strcmp(by, "effective") == 0)
		return true;
	if (strcmp(by, "recorded") == 0)
		return false;
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("by \"%s\" is not known", by),
			errhint("It is recorded or effective."));
}

static bool
time_argument(FunctionCallInfo fcinfo, int argument, TimestampTz *time)
{
	if (PG_ARGISNULL(argument))
		return false;
	*time = PG_GETARG_TIMESTAMPTZ(argument);
	return true;
}

PG_FUNCTION_INFO_V1(finance_balance_at);

/*
 * finance.balance_at(code text, at timestamptz, by text) returns numeric
 *
 * The account's balance with all that was recorded before at (by recorded), or
 * all whose value date is before at (by effective: effective_at where it was
 * stated, else the time of recording).  at may be infinite: infinity, by
 * effective, counts what is dated to the future.  Reads the account's last row
 * before at, and for effective at most a day of dated transfers and one row for
 * each day with any.  Errors: 22004 null, 22023 unknown by, LG002 unknown
 * account.  Locks: none.
 */
Datum
finance_balance_at(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	bool		effective = by_argument(fin_argument_text(fcinfo, 2, "by",
														  FIN_NAME_LENGTH_MAX));
	TimestampTz at;
	const FinContext *context;
	FinQueryScope scope;
	MemoryContext inner;
	Account		account;
	State		state;
	Datum		balance;

	fin_audit_read(fcinfo, FIN_READ_BALANCE_AT);
	if (!time_argument(fcinfo, 1, &at))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("at must not be null"));
	context = fin_context();
	fin_query_begin(&scope);
	find_account(context, code, &account);
	state_at(&account, bound_of(at), &state);
	balance = state.balance;
	if (effective)
		balance = DirectFunctionCall2(numeric_add, balance,
									  correction_at(&account, at));
	inner = MemoryContextSwitchTo(scope.caller);
	balance = NumericGetDatum(DatumGetNumericCopy(balance));
	MemoryContextSwitchTo(inner);
	fin_query_end(&scope);
	return balance;
}

/* ------------------------------------------------------------------------
 * statement
 * ------------------------------------------------------------------------ */

/* columns of a line, from 0 */
enum
{
	LINE, LINE_TRANSFER_ID, LINE_VERSION, LINE_RECORDED_AT, LINE_EFFECTIVE_AT,
	LINE_TYPE, LINE_STATUS, LINE_SIDE, LINE_AMOUNT, LINE_CHANGE, LINE_BALANCE,
	LINE_HELD, LINE_COUNTERPARTY, LINE_REFERENCE, LINE_METADATA, LINE_COLUMNS
};

typedef struct StatementArguments
{
	char	   *code;
	bool		has_from;
	bool		has_to;
	bool		has_after;
	TimestampTz from;
	TimestampTz to;
	int64		after;
	int			limit;
} StatementArguments;

static void
statement_arguments(FunctionCallInfo fcinfo, StatementArguments *arguments)
{
	memset(arguments, 0, sizeof(StatementArguments));
	arguments->code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	arguments->has_from = time_argument(fcinfo, 1, &arguments->from);
	arguments->has_to = time_argument(fcinfo, 2, &arguments->to);
	arguments->has_after = !PG_ARGISNULL(3);
	arguments->after = arguments->has_after ? PG_GETARG_INT64(3) : 0;
	if (PG_ARGISNULL(4))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("limit must not be null"));
	arguments->limit = PG_GETARG_INT32(4);
	if (arguments->limit < 1 || arguments->limit > FIN_STATEMENT_LIMIT_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("limit is out of range"),
				errdetail("It is %d, and must be from 1 to %d.",
						  arguments->limit, FIN_STATEMENT_LIMIT_MAX));
	if (arguments->has_from && arguments->has_to &&
		arguments->to < arguments->from)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("to must not be before from"));
}

static int64
lowest_id(const StatementArguments *arguments)
{
	int64		low = arguments->has_from ? bound_of(arguments->from) : 0;

	if (!arguments->has_after || arguments->after < low)
		return low;
	return arguments->after == PG_INT64_MAX ? PG_INT64_MAX :
		arguments->after + 1;
}

static void
put_edge(ReturnSetInfo *result, const char *line, bool has_time,
		 TimestampTz time, const State *state)
{
	Datum		values[LINE_COLUMNS] = {0};
	bool		nulls[LINE_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[LINE] = CStringGetTextDatum(line);
	values[LINE_RECORDED_AT] = TimestampTzGetDatum(time);
	values[LINE_BALANCE] = state->balance;
	values[LINE_HELD] = state->held;
	nulls[LINE] = nulls[LINE_BALANCE] = nulls[LINE_HELD] = false;
	nulls[LINE_RECORDED_AT] = !has_time;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* rows of the last page as lines; the state after them */
static void
put_entries(ReturnSetInfo *result, int n, State *state)
{
	Datum		entry = CStringGetTextDatum("entry");

	for (int row = 0; row < n; row++)
	{
		Datum		values[LINE_COLUMNS];
		bool		nulls[LINE_COLUMNS];

		values[LINE] = entry;
		nulls[LINE] = false;
		for (int i = LINE + 1; i < LINE_COLUMNS; i++)
			values[i] = fin_query_datum(row, i, &nulls[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		state->balance = values[LINE_BALANCE];
		state->held = values[LINE_HELD];
	}
}

static void
put_page(ReturnSetInfo *result, const Account *account,
		 const StatementArguments *arguments)
{
	int64		high = arguments->has_to ? bound_of(arguments->to) : PG_INT64_MAX;
	/* one more than asked for, to know whether any follows */
	int			found = read_page(account, lowest_id(arguments), high,
								  arguments->limit + 1);
	State		state;

	if (found > 0)
		state_before(0, &state);
	else
		state_at(account, high, &state);
	if (!arguments->has_after)
		put_edge(result, "opening", arguments->has_from, arguments->from,
				 &state);
	if (found > 0)
		put_entries(result, Min(found, arguments->limit), &state);
	if (found <= arguments->limit)
		put_edge(result, "closing", arguments->has_to, arguments->to, &state);
}

PG_FUNCTION_INFO_V1(finance_statement);

/*
 * finance.statement(code text, "from" timestamptz, "to" timestamptz,
 *					 after bigint, "limit" integer)
 *
 * What was recorded on the account from "from" (inclusive; null: ever) to "to"
 * (exclusive; null: until now), oldest first, at most "limit" entries (1 to
 * 10,000).  Holds, and what gives them back, are entries that change what is
 * held but not the balance.  Pages: after is the transfer_id of the last entry
 * of the page before.  The first page (after null) begins with a line
 * 'opening', the last ends with a line 'closing'; opening balance + all changes
 * = closing balance, also while others post.  Errors: 22004 null, 22023 limit
 * out of range or "to" before "from", LG002 unknown account.  Locks: none.
 */
Datum
finance_statement(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StatementArguments arguments;
	const FinContext *context;
	FinQueryScope scope;
	Account		account;

	fin_audit_read(fcinfo, FIN_READ_STATEMENT);
	statement_arguments(fcinfo, &arguments);
	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != LINE_COLUMNS)
		elog(ERROR, "finance.statement is not as this library expects");
	context = fin_context();
	fin_query_begin(&scope);
	find_account(context, arguments.code, &account);
	put_page(result, &account, &arguments);
	fin_query_end(&scope);
	return (Datum) 0;
}
