/*
 * reversal.c
 *		finance.reverse_transfer(), reverse_journal(), reversals().
 *
 * Owns nothing.  A reversal is a transfer of its own, with from and to
 * swapped; how much may be given back is judged by posting, under the locks of
 * both accounts.  What is read here before them, rows of transfers and
 * journals, never changes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "context.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "errors.h"
#include "joint.h"
#include "json.h"
#include "query.h"

#define TYPE_REVERSAL "reversal"

static FinQuery select_reversals =
{
	.sql = "SELECT r.reversal_id, r.amount::pg_catalog.numeric, t.recorded_at"
	" FROM finance.reversal r LEFT JOIN finance.transfer t"
	" ON t.tenant_id = r.tenant_id AND t.id = r.reversal_id"
	" WHERE r.tenant_id = $1 AND r.transfer_id = $2 ORDER BY r.reversal_id",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_transfer_exists =
{
	.sql = "SELECT 1 FROM finance.transfer t"
	" WHERE t.tenant_id = $1 AND t.id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static int64
id_argument(FunctionCallInfo fcinfo, const char *name)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
	return PG_GETARG_INT64(0);
}

static void
refuse_unknown(const char *what, int64 id)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_TRANSFER),
			errmsg("%s " INT64_FORMAT " does not exist", what, id));
}

/* the transfer that gives back: from and to change places */
static FinOrder *
add_reversal(FinJoint *joint, const FinTransferRow *original, Numeric amount)
{
	FinOrder   *order = fin_joint_add(joint, original->to_account_id,
									  original->from_account_id, amount);

	order->reverses_id = original->id;
	return order;
}

/* reason and idempotency_key, where they stand */
static void
begin(FinJoint *joint, FunctionCallInfo fcinfo, int reason)
{
	memset(joint, 0, sizeof(FinJoint));
	joint->type = TYPE_REVERSAL;
	joint->reference = fin_argument_text_or_null(fcinfo, reason, "reason",
												 FIN_REASON_LENGTH_MAX);
	joint->key = fin_argument_text_or_null(fcinfo, reason + 1,
										   "idempotency_key",
										   FIN_KEY_LENGTH_MAX);
}

static Datum
reverse_call(PG_FUNCTION_ARGS)
{
	int64		id = id_argument(fcinfo, "id");
	Numeric		amount = fin_argument_numeric(fcinfo, 1, "amount", false);
	const FinContext *context;
	FinTransferRow original;
	FinQueryScope scope;
	FinJoint	joint;
	FinOrder   *order;
	StringInfoData json;

	begin(&joint, fcinfo, 2);
	context = fin_context_hold();
	fin_query_begin(&scope);
	if (!fin_store_read_transfer(context->tenant_id, id, &original, NULL, NULL,
								 scope.caller))
		refuse_unknown("transfer", id);
	fin_query_end(&scope);
	order = add_reversal(&joint, &original, amount);
	initStringInfo(&json);
	fin_json_text(&json, "action", "reverse");
	fin_json_int64(&json, "transfer_id", id);
	fin_json_text(&json, "amount", amount == NULL ? "all" :
				  fin_order_number_text(amount));
	fin_json_text(&json, "reason", joint.reference);
	fin_joint_end(&joint, &json);
	order->in_journal = false;
	return fin_order_execute(fcinfo, order);
}

PG_FUNCTION_INFO_V1(finance_reverse_transfer);

/*
 * finance.reverse_transfer(id bigint, amount numeric, reason text,
 *							idempotency_key text)
 *
 * Gives amount (null: all that was not given back yet) of a completed transfer
 * back, by a transfer of type reversal whose reference is the reason.  Risk
 * judges it as any other; whom it rejects sees status rejected.
 *
 * Result: finance.transfer_result.  Errors: 22004, LG012 no such transfer,
 * 55000 it moved nothing, or is a reversal itself, LG016 more than is left, and
 * those of fin_posting_execute().  Locks: fin_posting_execute().
 */
Datum
finance_reverse_transfer(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 4, reverse_call);
}

/* last first, as money that went on must come back first */
static void
reverse_all(FinJoint *joint, const FinContext *context, const int64 *ids, int n,
			MemoryContext memory)
{
	MemoryContext old = MemoryContextSwitchTo(memory);

	for (int i = n - 1; i >= 0; i--)
	{
		FinTransferRow original;

		if (!fin_store_read_transfer(context->tenant_id, ids[i], &original,
									 NULL, NULL, memory))
			refuse_unknown("transfer", ids[i]);
		MemoryContextSwitchTo(memory);
		if (strcmp(original.status, "completed") == 0)
			(void) add_reversal(joint, &original,
								fin_amount_encode(original.amount,
												  original.scale));
	}
	MemoryContextSwitchTo(old);
}

PG_FUNCTION_INFO_V1(finance_reverse_journal);

/*
 * finance.reverse_journal(journal_id bigint, reason text,
 *						   idempotency_key text)
 * returns setof finance.transfer_result
 *
 * Gives all transfers of a journal back, in full, last first, as a journal of
 * its own.  What an exchange carried to a rounding account comes back too; its
 * residue stays as it is.
 *
 * Result: as journal().  Errors: 22004, LG012 no such journal, 55000 it moved
 * nothing, or is a reversal itself, LG016 a transfer of it was given back in
 * part, and those of fin_posting_execute().  Locks: fin_posting_execute().
 */
Datum
finance_reverse_journal(PG_FUNCTION_ARGS)
{
	int64		id = id_argument(fcinfo, "journal_id");
	const FinContext *context;
	FinQueryScope scope;
	FinJoint	joint;
	StringInfoData json;
	int64	   *ids;
	int			n;

	begin(&joint, fcinfo, 1);
	context = fin_context_hold();
	fin_query_begin(&scope);
	n = fin_store_read_journal(context->tenant_id, id, &ids);
	if (n == 0)
		refuse_unknown("journal", id);
	reverse_all(&joint, context, ids, n, scope.caller);
	fin_query_end(&scope);
	if (joint.norders == 0)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("journal " INT64_FORMAT " moved no money", id),
				errdetail("It was rejected by risk."));
	initStringInfo(&json);
	fin_json_text(&json, "action", "reverse_journal");
	fin_json_int64(&json, "journal_id", id);
	fin_json_text(&json, "reason", joint.reference);
	fin_joint_end(&joint, &json);
	fin_order_execute_set(fcinfo, joint.orders, joint.norders);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_reversals);

/*
 * finance.reversals(id bigint) returns table (reversal_id bigint,
 *											   amount numeric,
 *											   recorded_at timestamptz)
 *
 * What was given back of a transfer, in order.  recorded_at is null where the
 * partition of the reversal is detached.  Errors: 22004, LG012 no such
 * transfer.  Locks: none.
 */
Datum
finance_reversals(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		id = id_argument(fcinfo, "id");
	const FinContext *context = fin_context_hold();
	Datum		values[2] = {Int32GetDatum(context->tenant_id), Int64GetDatum(id)};
	FinQueryScope scope;
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	fin_query_begin(&scope);
	if (fin_query_run(&select_transfer_exists, values, NULL, 1) == 0)
		refuse_unknown("transfer", id);
	n = fin_query_run(&select_reversals, values, NULL, 0);
	for (uint64 i = 0; i < n; i++)
	{
		Datum		columns[3];
		bool		nulls[3];

		for (int c = 0; c < 3; c++)
			columns[c] = fin_query_datum(i, c + 1, &nulls[c]);
		tuplestore_putvalues(result->setResult, result->setDesc, columns, nulls);
	}
	fin_query_end(&scope);
	return (Datum) 0;
}
