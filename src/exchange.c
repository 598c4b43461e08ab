/*
 * exchange.c
 *		finance.exchange(): money of one currency for money of another, through
 *		liquidity accounts, at a stated rate.
 *
 * Owns finance.exchange, a row per exchange, and finance.exchange_residue: for
 * each rounding account the sum of rounding differences that is not booked
 * yet, always less than the smallest unit of its currency.  Memory is the
 * call's.
 *
 * Locks: all accounts in ascending order of id, before anything is looked at.
 * A residue is read and changed only under the lock of its account.  It decides
 * whether an exchange has a third transfer, so it is read before the orders
 * are made; and so an exchange that is repeated with its key is recognised
 * first, and given as many orders as it had then.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "argument.h"
#include "context.h"
#include "errors.h"
#include "joint.h"
#include "json.h"
#include "query.h"

#define FIN_RATE_DECIMALS_MAX	18	/* of FIN_AMOUNT_MAX_DIGITS */
#define ORDERS_MAX				3

/* arguments, from 0 */
enum
{
	ARG_FROM,
	ARG_TO,
	ARG_AMOUNT,
	ARG_RATE,
	ARG_LIQUIDITY_FROM,
	ARG_LIQUIDITY_TO,
	ARG_ROUNDING,
	ARG_ROUNDING_ACCOUNT,
	ARG_REST
};

typedef enum Rounding
{
	ROUND_HALF_EVEN,
	ROUND_HALF_UP,
	ROUND_DOWN,
	ROUND_UP
} Rounding;

static const char *const rounding_names[] = {
	[ROUND_HALF_EVEN] = "half_even",
	[ROUND_HALF_UP] = "half_up",
	[ROUND_DOWN] = "down",
	[ROUND_UP] = "up",
};

typedef struct Exchange
{
	int32		tenant_id;
	FinAccount *from;			/* locked, as the others */
	FinAccount *to;
	FinAccount *liquidity_from;
	FinAccount *liquidity_to;
	FinAccount *carrier;		/* rounding account, or NULL */
	Rounding	rounding;
	Numeric		amount;
	Numeric		rate;
	Datum		exact;			/* amount * rate */
	FinAmount	bought;			/* exact, rounded to units */
	Datum		difference;		/* exact - bought */
	Datum		residue;		/* of the carrier, before and */
	Datum		residue_after;	/* after this */
	FinAmount	carried;		/* to the carrier, or if negative from it */
} Exchange;

/* ------------------------------------------------------------------------
 * numeric
 * ------------------------------------------------------------------------ */

static Datum
add(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_add, a, b);
}

static Datum
subtract(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_sub, a, b);
}

static int
compare(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static Datum
cut(Datum number, int scale)
{
	return DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(scale));
}

static Datum
trim(Datum number)
{
	return DirectFunctionCall1(numeric_trim_scale, number);
}

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

static Rounding
rounding_argument(FunctionCallInfo fcinfo)
{
	char	   *name;

	if (PG_ARGISNULL(ARG_ROUNDING))
		return ROUND_HALF_EVEN;
	name = fin_argument_text(fcinfo, ARG_ROUNDING, "rounding",
							 FIN_NAME_LENGTH_MAX);
	for (int i = 0; i < (int) lengthof(rounding_names); i++)
	{
		if (strcmp(rounding_names[i], name) == 0)
			return (Rounding) i;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("rounding \"%s\" is not known", name),
			errhint("It is half_even, half_up, down or up."));
}

static void
lock_parties(FunctionCallInfo fcinfo, Exchange *exchange)
{
	static const struct
	{
		int			argument;
		const char *name;
	}			named[] = {
		{ARG_FROM, "from_account"},
		{ARG_TO, "to_account"},
		{ARG_LIQUIDITY_FROM, "liquidity_from"},
		{ARG_LIQUIDITY_TO, "liquidity_to"},
		{ARG_ROUNDING_ACCOUNT, "rounding_account"},
	};
	const char *codes[lengthof(named)];
	int			n = 0;
	FinAccount **accounts;

	for (int i = 0; i < (int) lengthof(named); i++)
	{
		if (named[i].argument != ARG_ROUNDING_ACCOUNT ||
			!PG_ARGISNULL(ARG_ROUNDING_ACCOUNT))
			codes[n++] = fin_argument_text(fcinfo, named[i].argument,
										   named[i].name, FIN_CODE_LENGTH_MAX);
	}
	accounts = fin_joint_lock(codes, n);
	exchange->from = accounts[0];
	exchange->to = accounts[1];
	exchange->liquidity_from = accounts[2];
	exchange->liquidity_to = accounts[3];
	exchange->carrier = n > 4 ? accounts[4] : NULL;
}

static void
require_currency(const FinAccount *account, const char *currency)
{
	if (strcmp(account->currency, currency) != 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
				errmsg("account \"%s\" cannot take part in this exchange",
					   account->code),
				errdetail("It holds %s, not %s.", account->currency, currency));
}

static void
check_parties(const Exchange *exchange)
{
	if (strcmp(exchange->from->currency, exchange->to->currency) == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("an exchange needs two currencies"),
				errdetail("Both accounts hold %s.", exchange->to->currency));
	require_currency(exchange->liquidity_from, exchange->from->currency);
	require_currency(exchange->liquidity_to, exchange->to->currency);
	if (exchange->carrier == NULL)
		return;
	require_currency(exchange->carrier, exchange->to->currency);
	if (exchange->carrier == exchange->liquidity_to)
		ereport(ERROR,
				errcode(ERRCODE_FIN_SAME_ACCOUNT),
				errmsg("rounding_account must not be liquidity_to"),
				errdetail("Both are \"%s\".", exchange->carrier->code),
				errhint("Without a rounding account, differences stay with liquidity_to."));
}

/* ------------------------------------------------------------------------
 * rounding
 * ------------------------------------------------------------------------ */

/* is one more unit due than were cut off to?  rest: below one unit */
static bool
rounds_up(Rounding rounding, FinAmount units, Datum rest, int scale)
{
	int			half = compare(add(rest, rest), fin_amount_datum(1, scale));

	switch (rounding)
	{
		case ROUND_HALF_EVEN:
			return half > 0 || (half == 0 && units % 2 != 0);
		case ROUND_HALF_UP:
			return half >= 0;
		case ROUND_DOWN:
			return false;
		case ROUND_UP:
			return compare(rest, fin_amount_datum(0, scale)) > 0;
	}
	elog(ERROR, "unknown rounding %d", (int) rounding);
}

/* exact is above zero */
static FinAmount
round_to_units(Datum exact, Rounding rounding, const FinAccount *to)
{
	Datum		whole = cut(exact, to->scale);
	FinAmount	units;

	if (fin_amount_decode(DatumGetNumeric(whole), to->scale, &units) != FIN_AMOUNT_OK ||
		units == FIN_AMOUNT_MAX)
		ereport(ERROR,
				errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				errmsg("amount bought is out of range"),
				errdetail("It is %s; an amount of %s has at most %d digits, %d of them decimals.",
						  fin_amount_excerpt(DatumGetNumeric(exact)),
						  to->currency, FIN_AMOUNT_MAX_DIGITS, to->scale));
	return units + rounds_up(rounding, units, subtract(exact, whole), to->scale);
}

static void
compute(Exchange *exchange)
{
	const FinAccount *from = exchange->from;
	const FinAccount *to = exchange->to;

	(void) fin_amount_from_caller(exchange->amount, from->scale,
								  from->currency, "amount");
	(void) fin_amount_from_caller(exchange->rate, FIN_RATE_DECIMALS_MAX,
								  "a rate", "rate");
	exchange->exact =
		trim(DirectFunctionCall2(numeric_mul,
								 trim(NumericGetDatum(exchange->amount)),
								 trim(NumericGetDatum(exchange->rate))));
	exchange->bought = round_to_units(exchange->exact, exchange->rounding, to);
	if (exchange->bought == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("amount is too small to be exchanged"),
				errdetail("It buys %s %s, which is rounded to zero.",
						  DatumGetCString(DirectFunctionCall1(numeric_out,
															  exchange->exact)),
						  to->currency));
	exchange->difference = trim(subtract(exchange->exact,
										 fin_amount_datum(exchange->bought,
														  to->scale)));
}

/* ------------------------------------------------------------------------
 * the residue of a rounding account
 * ------------------------------------------------------------------------ */

static FinQuery select_residue =
{
	.sql = "SELECT r.residue FROM finance.exchange_residue r"
	" WHERE r.tenant_id = $1 AND r.account_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

/* adds, so that what a trigger exchanged in between is not lost */
static FinQuery add_residue =
{
	.sql = "INSERT INTO finance.exchange_residue AS r (tenant_id, account_id,"
	" residue) VALUES ($1, $2, $3)"
	" ON CONFLICT (tenant_id, account_id) DO UPDATE"
	" SET residue = r.residue + EXCLUDED.residue",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, NUMERICOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "exchange_residue",
};

static FinQuery insert_exchange =
{
	.sql = "INSERT INTO finance.exchange (tenant_id, journal_id,"
	" from_account_id, to_account_id, liquidity_from_id, liquidity_to_id,"
	" rounding_account_id, amount, rate, exact, bought, difference, carried,"
	" rounding) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
	" $13, $14)",
	.nargs = 14,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
		NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID, NUMERICOID,
	TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "exchange",
};

/* reads the residue, and finds what comes due; inside of a query scope */
static void
carry(Exchange *exchange, MemoryContext memory)
{
	int			scale = exchange->to->scale;
	Datum		values[2] = {Int32GetDatum(exchange->tenant_id),
	Int64GetDatum(exchange->carrier->account_id)};
	Datum		residue = fin_amount_datum(0, 0);
	Datum		sum;
	Datum		whole;
	MemoryContext old;
	bool		isnull;

	if (fin_query_run(&select_residue, values, NULL, 1) > 0)
		residue = fin_query_datum(0, 1, &isnull);
	sum = add(residue, exchange->difference);
	whole = cut(sum, scale);
	if (fin_amount_decode(DatumGetNumeric(whole), scale, &exchange->carried) != FIN_AMOUNT_OK)
		elog(ERROR, "residue of an exchange is out of range");
	old = MemoryContextSwitchTo(memory);
	exchange->residue = subtract(residue, fin_amount_datum(0, 0));
	exchange->residue_after = trim(subtract(sum, whole));
	MemoryContextSwitchTo(old);
}

static void
change_residue(const Exchange *exchange, Datum change)
{
	Datum		values[3] = {Int32GetDatum(exchange->tenant_id),
		Int64GetDatum(exchange->carrier->account_id), change};

	if (compare(change, fin_amount_datum(0, 0)) != 0)
		fin_query_run(&add_residue, values, NULL, 0);
}

/* ------------------------------------------------------------------------
 * orders
 * ------------------------------------------------------------------------ */

/*
 * How many transfers an exchange of this key had, or 0.  Whoever repeats an
 * exchange holds the same accounts' locks as the first, which has ended.
 */
static int
count_earlier(const Exchange *exchange, const char *key)
{
	FinKeyRow	row;
	int64	   *ids;
	int			n;

	if (key == NULL ||
		!fin_store_read_key(exchange->tenant_id, key, &row,
							CurrentMemoryContext))
		return 0;
	/* of another request, it will be refused whatever the number */
	n = fin_store_read_journal(exchange->tenant_id, row.transfer_id, &ids);
	return Max(n, 1);
}

static void
add_orders(FinJoint *joint, const Exchange *exchange, bool with_third)
{
	int			scale = exchange->to->scale;
	int64		liquidity = exchange->liquidity_to->account_id;
	FinAmount	carried = exchange->carried;

	(void) fin_joint_add(joint, exchange->from->account_id,
						 exchange->liquidity_from->account_id,
						 exchange->amount);
	(void) fin_joint_add(joint, liquidity, exchange->to->account_id,
						 fin_amount_encode(exchange->bought, scale));
	if (!with_third)
		return;
	/* on a repetition its amount does not matter */
	if (carried >= 0)
		(void) fin_joint_add(joint, liquidity, exchange->carrier->account_id,
							 fin_amount_encode(Max(carried, 1), scale));
	else
		(void) fin_joint_add(joint, exchange->carrier->account_id, liquidity,
							 fin_amount_encode(-carried, scale));
}

static void
request_json(StringInfo json, const Exchange *exchange)
{
	initStringInfo(json);
	fin_json_text(json, "action", "exchange");
	fin_json_text(json, "from_account", exchange->from->code);
	fin_json_text(json, "to_account", exchange->to->code);
	fin_json_text(json, "amount", fin_order_number_text(exchange->amount));
	fin_json_text(json, "rate", fin_order_number_text(exchange->rate));
	fin_json_text(json, "liquidity_from", exchange->liquidity_from->code);
	fin_json_text(json, "liquidity_to", exchange->liquidity_to->code);
	fin_json_text(json, "rounding", rounding_names[exchange->rounding]);
	if (exchange->carrier != NULL)
		fin_json_text(json, "rounding_account", exchange->carrier->code);
}

static void
write_row(const Exchange *exchange, int64 journal_id)
{
	Datum		values[14];
	char		nulls[15] = "              ";

	values[0] = Int32GetDatum(exchange->tenant_id);
	values[1] = Int64GetDatum(journal_id);
	values[2] = Int64GetDatum(exchange->from->account_id);
	values[3] = Int64GetDatum(exchange->to->account_id);
	values[4] = Int64GetDatum(exchange->liquidity_from->account_id);
	values[5] = Int64GetDatum(exchange->liquidity_to->account_id);
	values[6] = (Datum) 0;
	if (exchange->carrier != NULL)
		values[6] = Int64GetDatum(exchange->carrier->account_id);
	else
		nulls[6] = nulls[12] = 'n';
	values[7] = NumericGetDatum(exchange->amount);
	values[8] = trim(NumericGetDatum(exchange->rate));
	values[9] = exchange->exact;
	values[10] = fin_amount_datum(exchange->bought, exchange->to->scale);
	values[11] = exchange->difference;
	values[12] = fin_amount_datum(exchange->carried, exchange->to->scale);
	values[13] = CStringGetTextDatum(rounding_names[exchange->rounding]);
	fin_query_run(&insert_exchange, values, nulls, 0);
}

/* before posting; false when the exchange is a repetition */
static bool
prepare(FinJoint *joint, Exchange *exchange)
{
	FinQueryScope scope;
	int			earlier;

	fin_query_begin(&scope);
	earlier = count_earlier(exchange, joint->key);
	if (earlier == 0 && exchange->carrier != NULL)
	{
		carry(exchange, scope.caller);
		/* now, so that what a trigger exchanges meanwhile goes on from here */
		change_residue(exchange, subtract(exchange->residue_after,
										  exchange->residue));
	}
	fin_query_end(&scope);
	add_orders(joint, exchange, exchange->carrier != NULL &&
			   (earlier == 0 ? exchange->carried != 0 : earlier == ORDERS_MAX));
	return earlier == 0;
}

/* after posting: the row of an exchange, or the residue as it was */
static void
conclude(const Exchange *exchange, const FinOutcome *outcomes, int n)
{
	FinQueryScope scope;
	bool		rejected = false;

	for (int i = 0; i < n; i++)
		rejected = rejected || outcomes[i].fault != NULL ||
			outcomes[i].row.rejected;
	fin_query_begin(&scope);
	if (!rejected)
		write_row(exchange, outcomes[0].row.journal_id);
	else if (exchange->carrier != NULL)
		change_residue(exchange, subtract(exchange->residue,
										  exchange->residue_after));
	fin_query_end(&scope);
}

static Datum
exchange_call(PG_FUNCTION_ARGS)
{
	FinJoint	joint;
	Exchange	exchange = {0};
	FinOutcome	outcomes[ORDERS_MAX];
	StringInfoData json;
	bool		is_new;

	exchange.amount = fin_argument_numeric(fcinfo, ARG_AMOUNT, "amount", true);
	exchange.rate = fin_argument_numeric(fcinfo, ARG_RATE, "rate", true);
	exchange.rounding = rounding_argument(fcinfo);
	fin_joint_begin(&joint, fcinfo, ARG_REST, false, "exchange");
	lock_parties(fcinfo, &exchange);
	exchange.tenant_id = fin_context()->tenant_id;
	check_parties(&exchange);
	compute(&exchange);
	is_new = prepare(&joint, &exchange);
	request_json(&json, &exchange);
	fin_joint_end(&joint, &json);
	fin_posting_execute(joint.orders, joint.norders, outcomes,
						FIN_POSTING_RAISE);
	if (is_new)
		conclude(&exchange, outcomes, joint.norders);
	fin_order_answer_set(fcinfo, outcomes, joint.norders);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_exchange);

/*
 * finance.exchange(from_account text, to_account text, amount numeric,
 *					rate numeric, liquidity_from text, liquidity_to text,
 *					rounding text, rounding_account text,
 *					idempotency_key text, effective_at timestamptz,
 *					reference text, metadata jsonb, strict boolean)
 * returns setof finance.transfer_result
 *
 * Moves amount, in from_account's currency, to liquidity_from, and amount *
 * rate, rounded to the units of to_account's currency, from liquidity_to to
 * to_account: one journal.  rate: units of the second currency for one of the
 * first, above zero, at most 38 digits, 18 of them decimals.  rounding:
 * half_even, half_up, down, up.  The difference that rounding makes stays with
 * liquidity_to; or, with a rounding_account (of to_account's currency), is
 * summed up exactly, and moved there, or back, as soon as it makes a whole
 * unit, by a third transfer.  Other arguments as transfer(); the transfers are
 * of type exchange.
 *
 * Result: as journal(), and a row in finance.exchange.  Errors: 22004, 22023
 * bad arguments or nothing bought, 22003, LG003 an account of the wrong
 * currency, LG008 rounding_account is liquidity_to, and those of
 * fin_posting_execute().  Locks: fin_posting_execute(), and rounding_account.
 */
Datum
finance_exchange(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 13, exchange_call);
}
