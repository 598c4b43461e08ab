/*
 * batch.c
 *		finance.transfer_batch(): many orders in one call; and what it shares
 *		with import_transfers() (see batch_parts.h).
 *
 * Owns nothing between calls.
 */
#include "postgres.h"

#include "context.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "batch_parts.h"

/* columns of finance.batch_result before those of transfer_result */
#define OWN_COLUMNS 4

static void
check_count(int n)
{
	if (n > FIN_ORDERS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("too many requests in one batch"),
				errdetail("There are %d, the most is %d.", n, FIN_ORDERS_MAX),
				errhint("Split them into several calls."));
}

FinOrder *
fin_batch_orders(FunctionCallInfo fcinfo, int argument, int *n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	TupleDesc	tupdesc = NULL;
	FinOrder   *orders;

	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("requests must not be null"));
	array = PG_GETARG_ARRAYTYPE_P(argument);
	check_count(ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)));
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE,
					  &elements, &nulls, n);
	orders = MemoryContextAllocHuge(CurrentMemoryContext,
									sizeof(FinOrder) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		FinRequest	request;

		if (nulls[i])
			fin_order_clear(&request);
		else
			fin_order_open_row(elements[i], FIN_REQUEST_FIELDS, &tupdesc,
							   request.values, request.nulls);
		fin_order_parse(&request, true, &orders[i]);
	}
	if (tupdesc != NULL)
		ReleaseTupleDesc(tupdesc);
	return orders;
}

void
fin_batch_begin_result(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != OWN_COLUMNS + FIN_RESULT_COLUMNS)
		elog(ERROR, "finance.batch_result is not as this library expects");
}

static void
put_outcome(ReturnSetInfo *result, int position, const FinOutcome *outcome)
{
	Datum		values[OWN_COLUMNS + FIN_RESULT_COLUMNS];
	bool		nulls[OWN_COLUMNS + FIN_RESULT_COLUMNS];
	const FinFault *fault = outcome->fault;

	values[0] = Int32GetDatum(position);
	nulls[0] = false;
	nulls[1] = nulls[2] = fault == NULL;
	nulls[3] = fault == NULL || fault->detail == NULL;
	if (fault != NULL)
	{
		values[1] = CStringGetTextDatum(unpack_sql_state(fault->sqlstate));
		values[2] = CStringGetTextDatum(fault->message);
		if (!nulls[3])
			values[3] = CStringGetTextDatum(fault->detail);
	}
	fin_order_result(outcome, values + OWN_COLUMNS, nulls + OWN_COLUMNS);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
fin_batch_put_outcomes(FunctionCallInfo fcinfo, const FinOutcome *outcomes,
					   int n)
{
	for (int i = 0; i < n; i++)
		put_outcome((ReturnSetInfo *) fcinfo->resultinfo, i + 1, &outcomes[i]);
}

/* whatever else is wrong with it, posting must not take it for history */
static void
refuse_recorded_at(FinOrder *order)
{
	if (order->fault == NULL && order->has_recorded_at)
		order->fault =
			fin_fault_hint(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
									 "recorded_at must be null"),
						   "History is imported with finance.import_transfers().");
	order->has_recorded_at = false;
}

static Datum
batch_call(PG_FUNCTION_ARGS)
{
	bool		atomic = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	FinOutcome *outcomes;
	int			n;
	FinOrder   *orders = fin_batch_orders(fcinfo, 0, &n);

	fin_batch_begin_result(fcinfo);
	if (n == 0)
		return (Datum) 0;
	for (int i = 0; i < n; i++)
	{
		refuse_recorded_at(&orders[i]);
		if (atomic)
			orders[i].linked = i < n - 1;
	}
	outcomes = MemoryContextAllocHuge(CurrentMemoryContext,
									  sizeof(FinOutcome) * n);
	fin_posting_execute(orders, n, outcomes, FIN_POSTING_COLLECT);
	fin_batch_put_outcomes(fcinfo, outcomes, n);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_transfer_batch);

/*
 * finance.transfer_batch(requests finance.transfer_request[], atomic boolean)
 * returns setof finance.batch_result
 *
 * Carries out the requests, at most FIN_ORDERS_MAX, in turn, as if each were
 * called by itself, but locks each account and writes its row only once.  A
 * request that fails is answered with its error and leaves no trace; linked
 * ones (with atomic all) stand or fall together.  Errors: 22004 requests null,
 * 22023 too many; what is wrong with a request is in its answer.  Locks:
 * fin_posting_execute().
 */
Datum
finance_transfer_batch(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 2, batch_call);
}
