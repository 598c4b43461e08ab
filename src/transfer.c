/*
 * transfer.c
 *		finance.transfer(): an order of one.
 *
 * Owns nothing.
 */
#include "postgres.h"

#include "context.h"
#include "order.h"

/* positions of the arguments after the two accounts, from 0 */
#define ARG_STRICT 12

static Datum
transfer(FunctionCallInfo fcinfo, bool by_code)
{
	FinRequest	request;
	FinOrder	order;

	/* the arguments are the first fields of a request */
	fin_order_clear(&request);
	for (int field = FIN_REQUEST_FROM; field <= FIN_REQUEST_METADATA; field++)
		fin_order_take(&request, field, fcinfo, field);
	fin_order_parse(&request, by_code, &order);
	if (!by_code)
	{
		order.from_id = PG_GETARG_INT64(0);
		order.to_id = PG_GETARG_INT64(1);
	}
	order.strict = !PG_ARGISNULL(ARG_STRICT) && PG_GETARG_BOOL(ARG_STRICT);
	return fin_order_execute(fcinfo, &order);
}

static Datum
transfer_by_code(PG_FUNCTION_ARGS)
{
	return transfer(fcinfo, true);
}

PG_FUNCTION_INFO_V1(finance_transfer);

/*
 * finance.transfer(from_account text, to_account text, amount numeric, ...)
 *
 * Moves amount (above zero, at most 38 digits, at most the decimals of the
 * accounts' currency) from one account to another.  currency, when given, must
 * be the accounts'.  idempotency_key (1 to 255 bytes): a repeated request
 * gives the first answer again, with replayed true.  expected_..._version: the
 * account's version as the caller last saw it.  amount_mode up_to: as much of
 * the amount (null: of all there is) as both accounts' limits allow; the
 * result tells how much.  strict: raise LG101 instead of recording a transfer
 * that risk rejects.  context: who acts, for this call, as of
 * fin_context_call().
 *
 * Result: finance.transfer_result.  Errors and locks: fin_posting_execute().
 */
Datum
finance_transfer(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 13, transfer_by_code);
}

static Datum
transfer_by_id(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("from_account and to_account must not be null"));
	return transfer(fcinfo, false);
}

PG_FUNCTION_INFO_V1(finance_transfer_by_id);

/* the same with accounts named by id */
Datum
finance_transfer_by_id(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 13, transfer_by_id);
}
