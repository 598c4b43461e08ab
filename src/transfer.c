/*
 * transfer.c
 *		finance.transfer(): unpacks the arguments, hands an order of one to
 *		posting, packs the answer.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "posting.h"

/* positions of the arguments after the two accounts, from 0 */
enum
{
	ARG_AMOUNT = 2,
	ARG_CURRENCY,
	ARG_KEY,
	ARG_TYPE,
	ARG_EXPECTED_FROM,
	ARG_EXPECTED_TO,
	ARG_EFFECTIVE_AT,
	ARG_REFERENCE,
	ARG_METADATA,
	ARG_STRICT
};

#define RESULT_COLUMNS 16

static int64
version_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	int64		version;

	if (PG_ARGISNULL(argument))
		return FIN_NO_VERSION;
	version = PG_GETARG_INT64(argument);
	if (version < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must not be negative", name),
				errdetail("It is " INT64_FORMAT ".", version));
	return version;
}

static void
read_effective_at(FunctionCallInfo fcinfo, FinOrder *order)
{
	order->has_effective_at = !PG_ARGISNULL(ARG_EFFECTIVE_AT);
	if (!order->has_effective_at)
		return;
	order->effective_at = PG_GETARG_TIMESTAMPTZ(ARG_EFFECTIVE_AT);
	if (TIMESTAMP_NOT_FINITE(order->effective_at))
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("effective_at must be a finite time"));
}

static void
read_order(FunctionCallInfo fcinfo, FinOrder *order)
{
	order->amount = fin_argument_numeric(fcinfo, ARG_AMOUNT, "amount", true);
	order->currency = fin_argument_text_or_null(fcinfo, ARG_CURRENCY,
												"currency",
												FIN_CURRENCY_LENGTH_MAX);
	order->key = fin_argument_text_or_null(fcinfo, ARG_KEY, "idempotency_key",
										   FIN_KEY_LENGTH_MAX);
	order->type = fin_argument_text(fcinfo, ARG_TYPE, "type",
									FIN_TYPE_LENGTH_MAX);
	order->expected_from_version = version_argument(fcinfo, ARG_EXPECTED_FROM,
													"expected_from_version");
	order->expected_to_version = version_argument(fcinfo, ARG_EXPECTED_TO,
												  "expected_to_version");
	read_effective_at(fcinfo, order);
	order->reference = fin_argument_text_or_null(fcinfo, ARG_REFERENCE,
												 "reference",
												 FIN_REFERENCE_LENGTH_MAX);
	order->metadata = fin_argument_metadata(fcinfo, ARG_METADATA);
	order->strict = !PG_ARGISNULL(ARG_STRICT) && PG_GETARG_BOOL(ARG_STRICT);
}

static Datum
result_datum(FunctionCallInfo fcinfo, const FinOutcome *outcome)
{
	const FinTransferRow *row = &outcome->row;
	const FinSide *from = &row->moved.from;
	const FinSide *to = &row->moved.to;
	TupleDesc	tupdesc;
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS] = {false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		tupdesc->natts != RESULT_COLUMNS)
		elog(ERROR, "finance.transfer_result is not as this library expects");

	values[0] = Int64GetDatum(row->id);
	values[1] = CStringGetTextDatum(row->status);
	values[2] = fin_amount_datum(row->amount, row->scale);
	values[3] = CStringGetTextDatum(row->currency);
	values[4] = CStringGetTextDatum(outcome->from_code);
	values[5] = Int64GetDatum(from->version);
	values[6] = fin_amount_datum(from->balance_after, row->scale);
	values[7] = fin_amount_datum(from->balance_after - from->held_after, row->scale);
	values[8] = CStringGetTextDatum(outcome->to_code);
	values[9] = Int64GetDatum(to->version);
	values[10] = fin_amount_datum(to->balance_after, row->scale);
	values[11] = fin_amount_datum(to->balance_after - to->held_after, row->scale);
	nulls[5] = nulls[9] = !row->completed;
	values[12] = TimestampTzGetDatum(row->recorded_at);
	values[13] = UUIDPGetDatum(&row->trace_id);
	values[14] = (Datum) 0;
	nulls[14] = outcome->rule == NULL;
	if (outcome->rule != NULL)
		values[14] = CStringGetTextDatum(outcome->rule);
	values[15] = BoolGetDatum(outcome->replayed);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

static Datum
execute(FunctionCallInfo fcinfo, FinOrder *order)
{
	FinOutcome	outcome;

	fin_posting_execute(order, 1, &outcome);
	return result_datum(fcinfo, &outcome);
}

PG_FUNCTION_INFO_V1(finance_transfer);

/*
 * finance.transfer(from_account text, to_account text, amount numeric, ...)
 *
 * Moves amount (above zero, at most 38 digits, at most the decimals of the
 * accounts' currency) from one account to another.  currency, when given, must
 * be the accounts'.  idempotency_key (1 to 255 bytes): a repeated request
 * gives the first answer again, with replayed true.  expected_..._version: the
 * account's version as the caller last saw it.  strict: raise LG101 instead of
 * recording a transfer that risk rejects.
 *
 * Result: finance.transfer_result.  Errors and locks: fin_posting_execute().
 */
Datum
finance_transfer(PG_FUNCTION_ARGS)
{
	FinOrder	order = {0};

	order.from_code = fin_argument_text(fcinfo, 0, "from_account",
										FIN_CODE_LENGTH_MAX);
	order.to_code = fin_argument_text(fcinfo, 1, "to_account",
									  FIN_CODE_LENGTH_MAX);
	read_order(fcinfo, &order);
	return execute(fcinfo, &order);
}

PG_FUNCTION_INFO_V1(finance_transfer_by_id);

/* the same with accounts named by id */
Datum
finance_transfer_by_id(PG_FUNCTION_ARGS)
{
	FinOrder	order = {0};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("from_account and to_account must not be null"));
	order.from_id = PG_GETARG_INT64(0);
	order.to_id = PG_GETARG_INT64(1);
	read_order(fcinfo, &order);
	return execute(fcinfo, &order);
}
