/*
 * group.c
 *		finance.capture_group(), release_group(): all open holds of a group as
 *		one.
 *
 * Owns nothing between calls; memory is the call's.
 *
 * Locks: the accounts of the group's open holds in ascending order of id;
 * then, when nothing can change these holds, it is looked again which of them
 * are still open.  A hold that joins the group meanwhile is not of the call;
 * the caller sees it in finance.hold and calls again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "argument.h"
#include "errors.h"
#include "order.h"
#include "query.h"

static FinQuery select_open =
{
	.sql = "SELECT h.hold_id, h.from_account_id, h.to_account_id"
	" FROM finance._hold h WHERE h.tenant_id = $1 AND h.hold_group = $2"
	" AND h.status = 'open' AND h.parked IS NULL",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_still_open =
{
	.sql = "SELECT h.hold_id FROM finance._hold h WHERE h.tenant_id = $1"
	" AND h.hold_id = ANY ($2) AND h.status = 'open'"
	" AND h.parked IS NULL ORDER BY h.hold_id",
	.nargs = 2,
	.argtypes = {INT4OID, INT8ARRAYOID},
	.expect = SPI_OK_SELECT,
};

static void
refuse_none(const char *group)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_TRANSFER),
			errmsg("hold group \"%s\" has no open hold", group));
}

/* their ids; the accounts of all of them are locked afterwards */
static Datum
lock_group(const FinContext *context, const char *group)
{
	Datum		values[2] = {Int32GetDatum(context->tenant_id),
	CStringGetTextDatum(group)};
	int			n = (int) fin_query_run(&select_open, values, NULL,
										FIN_ORDERS_MAX + 1);
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	int64	   *ids = palloc(sizeof(int64) * 2 * Max(n, 1));
	FinAccount *accounts;
	int			naccounts;

	if (n == 0)
		refuse_none(group);
	if (n > FIN_ORDERS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("hold group \"%s\" has too many open holds", group),
				errdetail("The most is %d.", FIN_ORDERS_MAX),
				errhint("Capture or release some of them one by one."));
	for (int i = 0; i < n; i++)
	{
		elements[i] = Int64GetDatum(fin_query_int64(i, 1));
		ids[2 * i] = fin_query_int64(i, 2);
		ids[2 * i + 1] = fin_query_int64(i, 3);
	}
	naccounts = fin_store_distinct_ids(ids, 2 * n);
	accounts = MemoryContextAllocHuge(CurrentMemoryContext,
									  sizeof(FinAccount) * naccounts);
	(void) fin_store_lock_accounts(context->tenant_id, ids, naccounts, accounts,
								   CurrentMemoryContext);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* an order for each hold that is open under the locks */
static FinOrder *
make_orders(const FinContext *context, const char *group, FinRequest *request,
			MemoryContext memory, int *norders)
{
	Datum		values[2];
	MemoryContext old;
	FinOrder   *orders;
	int			n;

	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = lock_group(context, group);
	n = (int) fin_query_run(&select_still_open, values, NULL, 0);
	if (n == 0)
		refuse_none(group);
	old = MemoryContextSwitchTo(memory);
	orders = MemoryContextAllocHuge(memory, sizeof(FinOrder) * n);
	for (int i = 0; i < n; i++)
	{
		request->values[FIN_REQUEST_HOLD_ID] = Int64GetDatum(fin_query_int64(i, 1));
		request->nulls[FIN_REQUEST_HOLD_ID] = false;
		fin_order_parse(request, true, &orders[i]);
		orders[i].linked = i < n - 1;
	}
	MemoryContextSwitchTo(old);
	*norders = n;
	return orders;
}

static Datum
settle_group(FunctionCallInfo fcinfo, const char *action)
{
	char	   *group = fin_argument_text(fcinfo, 0, "hold_group",
										  FIN_CODE_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinRequest	request;
	FinQueryScope scope;
	FinOrder   *orders;
	int			n;

	fin_order_clear(&request);
	request.values[FIN_REQUEST_ACTION] = CStringGetTextDatum(action);
	request.nulls[FIN_REQUEST_ACTION] = false;
	fin_order_take(&request, FIN_REQUEST_REFERENCE, fcinfo, 1);
	fin_order_take(&request, FIN_REQUEST_METADATA, fcinfo, 2);
	fin_query_begin(&scope);
	orders = make_orders(context, group, &request, scope.caller, &n);
	fin_query_end(&scope);
	fin_order_execute_set(fcinfo, orders, n);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_capture_group);

/*
 * finance.capture_group(hold_group text, reference text, metadata jsonb)
 * returns setof finance.transfer_result
 *
 * Captures all that remains of all open holds of a group, at most
 * FIN_ORDERS_MAX, in the order of their ids; all or none.
 *
 * Errors: 22004, LG012 no open hold, LG013 one whose time is over, 54000 too
 * many, and those of capture().  Locks: fin_posting_execute().
 */
Datum
finance_capture_group(PG_FUNCTION_ARGS)
{
	return settle_group(fcinfo, "capture");
}

PG_FUNCTION_INFO_V1(finance_release_group);

/*
 * finance.release_group(hold_group text, reference text, metadata jsonb)
 * returns setof finance.transfer_result
 *
 * The same, but gives all of it back; a hold whose time is over expires.
 * Errors: 22004, LG012 no open hold, 54000 too many.
 */
Datum
finance_release_group(PG_FUNCTION_ARGS)
{
	return settle_group(fcinfo, "release");
}
