/*
 * batch_import.c
 *		finance.import_transfers(): history with its own times.
 *
 * Owns nothing between calls.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch_parts.h"
#include "errors.h"
#include "ident.h"

/* how long ago it must have been: below the ids that are drawn now */
#define PAST_US USECS_PER_SEC

static const FinFault *
check_time(const FinOrder *order, const FinOrder *before)
{
	if (!order->has_recorded_at)
		return fin_fault(ERRCODE_NULL_VALUE_NOT_ALLOWED,
						 "recorded_at must not be null");
	if (order->recorded_at < fin_ident_time(0))
		return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
										  "recorded_at is out of range"),
								"Transfers can be recorded from 2020-01-01 00:00 UTC on.");
	if (order->recorded_at > GetCurrentTimestamp() - PAST_US)
		return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
										  "recorded_at is not in the past"),
								"It must be a second ago or more.");
	if (before != NULL && order->recorded_at < before->recorded_at)
		return fin_fault_hint(fin_fault(ERRCODE_FIN_OUT_OF_ORDER,
										"recorded_at is before that of the previous request"),
							  "Sort the requests by recorded_at.");
	return NULL;
}

static const FinFault *
check_order(const FinOrder *order, const FinOrder *before)
{
	if (order->fault != NULL)
		return order->fault;
	if (order->action != FIN_TRANSFER)
		return fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
						 "action must be transfer");
	return check_time(order, before);
}

static void
tell_position(void *position)
{
	errcontext("request %d", *(int *) position);
}

static void
raise_of(const FinFault *fault, int position)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = tell_position,
		.arg = &position,
	};

	error_context_stack = &callback;
	fin_fault_raise(fault);
}

/* the one that made the others fail */
static void
raise_first_fault(const FinOutcome *outcomes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].fault != NULL &&
			outcomes[i].fault->sqlstate != ERRCODE_FIN_LINKED_FAILED)
			raise_of(outcomes[i].fault, i + 1);
	}
}

PG_FUNCTION_INFO_V1(finance_import_transfers);

/*
 * finance.import_transfers(requests finance.transfer_request[]) returns setof
 * finance.batch_result
 *
 * Posts at most FIN_ORDERS_MAX transfers of the past, all or none.  Each has
 * recorded_at, from 2020 to a second ago, ascending over the array; its id is
 * of that time, above the last of both its accounts.  Balances, limits,
 * statuses and types are checked as ever; risk rules are not asked and no
 * messages are sent.  Repeated with its idempotency keys it answers as before.
 *
 * Errors, with the request in the context: 22004 recorded_at null, 22023 it is
 * out of range or the action is not transfer, LG019 not in order or an account
 * has later transfers, 54000 more than its second has ids; else as transfer().
 * Locks: the tenant FOR NO KEY UPDATE, which other imports wait for; then
 * fin_posting_execute().
 */
Datum
finance_import_transfers(PG_FUNCTION_ARGS)
{
	FinOutcome *outcomes;
	int			n;
	FinOrder   *orders = fin_batch_orders(fcinfo, 0, &n);

	fin_batch_begin_result(fcinfo);
	for (int i = 0; i < n; i++)
	{
		const FinFault *fault = check_order(&orders[i],
											i > 0 ? &orders[i - 1] : NULL);

		if (fault != NULL)
			raise_of(fault, i + 1);
		orders[i].linked = i < n - 1;
	}
	if (n == 0)
		return (Datum) 0;
	outcomes = MemoryContextAllocHuge(CurrentMemoryContext,
									  sizeof(FinOutcome) * n);
	fin_posting_execute(orders, n, outcomes, FIN_POSTING_COLLECT);
	raise_first_fault(outcomes, n);
	fin_batch_put_outcomes(fcinfo, outcomes, n);
	return (Datum) 0;
}
