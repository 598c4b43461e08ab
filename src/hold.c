/*
 * hold.c
 *		finance.hold(), capture() and release(): an order of one each.
 *
 * Owns nothing.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "context.h"
#include "order.h"

/* argument i of the function is fields[i] of a request */
static void
take_all(FunctionCallInfo fcinfo, const FinRequestField *fields, int n,
		 const char *action, FinOrder *order)
{
	FinRequest	request;

	fin_order_clear(&request);
	request.values[FIN_REQUEST_ACTION] = CStringGetTextDatum(action);
	request.nulls[FIN_REQUEST_ACTION] = false;
	for (int i = 0; i < n; i++)
		fin_order_take(&request, fields[i], fcinfo, i);
	fin_order_parse(&request, true, order);
}

static Datum
hold_call(PG_FUNCTION_ARGS)
{
	static const FinRequestField fields[] = {
		FIN_REQUEST_FROM, FIN_REQUEST_TO, FIN_REQUEST_AMOUNT,
		FIN_REQUEST_EXPIRES_IN, FIN_REQUEST_CURRENCY, FIN_REQUEST_KEY,
		FIN_REQUEST_TYPE, FIN_REQUEST_EXPECTED_FROM, FIN_REQUEST_EXPECTED_TO,
		FIN_REQUEST_AMOUNT_MODE, FIN_REQUEST_HOLD_GROUP, FIN_REQUEST_REFERENCE,
		FIN_REQUEST_METADATA
	};
	int			strict = lengthof(fields);
	FinOrder	order;

	take_all(fcinfo, fields, lengthof(fields), "hold", &order);
	order.strict = !PG_ARGISNULL(strict) && PG_GETARG_BOOL(strict);
	return fin_order_execute(fcinfo, &order);
}

PG_FUNCTION_INFO_V1(finance_hold);

/*
 * finance.hold(from_account text, to_account text, amount numeric, ...)
 *
 * Reserves amount: it counts as held on the one account, no longer available,
 * and as pending on the other, against its ceiling.  It is judged by risk as a
 * transfer is, on the day it is made.  expires_in (above zero; null: never):
 * from then on it cannot be captured.  hold_group (1 to 128 bytes) names holds
 * that are captured or released together.  Other arguments as transfer().
 *
 * Result: finance.transfer_result, whose id is the hold's.  Errors and locks:
 * fin_posting_execute().
 */
Datum
finance_hold(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 14, hold_call);
}

static Datum
capture_call(PG_FUNCTION_ARGS)
{
	static const FinRequestField fields[] = {
		FIN_REQUEST_HOLD_ID, FIN_REQUEST_AMOUNT, FIN_REQUEST_FINAL,
		FIN_REQUEST_KEY, FIN_REQUEST_EFFECTIVE_AT, FIN_REQUEST_REFERENCE,
		FIN_REQUEST_METADATA
	};
	FinOrder	order;

	take_all(fcinfo, fields, lengthof(fields), "capture", &order);
	return fin_order_execute(fcinfo, &order);
}

PG_FUNCTION_INFO_V1(finance_capture);

/*
 * finance.capture(hold_id bigint, amount numeric, final boolean, ...)
 *
 * Posts amount (null: all that remains) of what is held; may be called again
 * until nothing remains.  final: the rest is given back at once.
 *
 * Result: finance.transfer_result, a transfer of its own.  Errors: LG012 no
 * such hold, LG013 captured, released or expired, LG016 more than remains,
 * LG004 an account that is frozen; and locks: fin_posting_execute().
 */
Datum
finance_capture(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 7, capture_call);
}

static Datum
release_call(PG_FUNCTION_ARGS)
{
	static const FinRequestField fields[] = {
		FIN_REQUEST_HOLD_ID, FIN_REQUEST_AMOUNT, FIN_REQUEST_KEY,
		FIN_REQUEST_REFERENCE, FIN_REQUEST_METADATA
	};
	FinOrder	order;

	take_all(fcinfo, fields, lengthof(fields), "release", &order);
	return fin_order_execute(fcinfo, &order);
}

PG_FUNCTION_INFO_V1(finance_release);

/*
 * finance.release(hold_id bigint, amount numeric, ...)
 *
 * Gives amount (null: all that remains) of what is held back; also on frozen
 * accounts.
 *
 * Result: finance.transfer_result with status released, or expired where its
 * time was over.  Errors: LG012, LG013, LG016; and locks:
 * fin_posting_execute().
 */
Datum
finance_release(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 5, release_call);
}
