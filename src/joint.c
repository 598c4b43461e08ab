/*
 * joint.c
 *		Several orders that are one request: a journal (see joint.h).
 *
 * Owns nothing between calls.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "account.h"
#include "argument.h"
#include "joint.h"
#include "json.h"
#include "query.h"

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

void
fin_joint_begin(FinJoint *joint, FunctionCallInfo fcinfo, int first,
				bool has_type, const char *type)
{
	int			next = first;

	memset(joint, 0, sizeof(FinJoint));
	joint->type = type;
	joint->key = fin_argument_text_or_null(fcinfo, next++, "idempotency_key",
										   FIN_KEY_LENGTH_MAX);
	if (has_type && !PG_ARGISNULL(next))
		joint->type = fin_argument_text(fcinfo, next, "type",
										FIN_TYPE_LENGTH_MAX);
	next += has_type;
	joint->has_effective_at = !PG_ARGISNULL(next);
	if (joint->has_effective_at)
		joint->effective_at = PG_GETARG_TIMESTAMPTZ(next);
	if (joint->has_effective_at && TIMESTAMP_NOT_FINITE(joint->effective_at))
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("effective_at must be a finite time"));
	joint->reference = fin_argument_text_or_null(fcinfo, next + 1, "reference",
												 FIN_REFERENCE_LENGTH_MAX);
	joint->metadata = fin_argument_metadata(fcinfo, next + 2);
	joint->strict = !PG_ARGISNULL(next + 3) && PG_GETARG_BOOL(next + 3);
}

char *
fin_joint_code(Datum element, bool isnull, const char *what)
{
	char	   *code;
	FinFault   *fault;

	if (isnull)
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", what));
	fault = fin_argument_take_text(element, what, FIN_CODE_LENGTH_MAX, &code);
	if (fault != NULL)
		fin_fault_raise(fault);
	return code;
}

/* ------------------------------------------------------------------------
 * accounts
 * ------------------------------------------------------------------------ */

/* out of the query scope, which ends */
static FinAccount *
keep_accounts(const FinAccount *accounts, int n, MemoryContext memory)
{
	FinAccount *kept = MemoryContextAlloc(memory, sizeof(FinAccount) * n);

	memcpy(kept, accounts, sizeof(FinAccount) * n);
	for (int i = 0; i < n; i++)
	{
		kept[i].code = MemoryContextStrdup(memory, accounts[i].code);
		kept[i].type = MemoryContextStrdup(memory, accounts[i].type);
	}
	return kept;
}

FinAccount **
fin_joint_lock(const char *const *codes, int n)
{
	const FinContext *context = fin_context_hold();
	FinAccount **all = palloc(sizeof(FinAccount *) * n);
	int		   *which = palloc(sizeof(int) * n);
	int			last = 0;
	FinAccount *accounts;
	FinQueryScope scope;

	fin_query_begin(&scope);
	accounts = fin_account_lock_all(context, codes, n, which);
	for (int i = 0; i < n; i++)
		last = Max(last, which[i]);
	accounts = keep_accounts(accounts, last + 1, scope.caller);
	fin_query_end(&scope);
	for (int i = 0; i < n; i++)
		all[i] = &accounts[which[i]];
	return all;
}

/* ------------------------------------------------------------------------
 * orders
 * ------------------------------------------------------------------------ */

FinOrder *
fin_joint_add(FinJoint *joint, int64 from_id, int64 to_id, Numeric amount)
{
	FinOrder   *order;

	if (joint->norders == joint->size)
	{
		joint->size = Max(joint->size * 2, 8);
		joint->orders = joint->orders == NULL ?
			palloc(sizeof(FinOrder) * joint->size) :
			repalloc(joint->orders, sizeof(FinOrder) * joint->size);
	}
	order = &joint->orders[joint->norders++];
	memset(order, 0, sizeof(FinOrder));
	order->action = FIN_TRANSFER;
	order->from_id = from_id;
	order->to_id = to_id;
	order->amount = amount;
	order->in_journal = true;
	order->strict = joint->strict;
	order->type = joint->type;
	order->expected_from_version = FIN_NO_VERSION;
	order->expected_to_version = FIN_NO_VERSION;
	order->has_effective_at = joint->has_effective_at;
	order->effective_at = joint->effective_at;
	order->reference = joint->reference;
	order->metadata = joint->metadata;
	return order;
}

void
fin_joint_end(FinJoint *joint, StringInfo json)
{
	FinOrder   *head = &joint->orders[0];

	fin_json_text(json, "type", joint->type);
	if (joint->has_effective_at)
		fin_json_text(json, "effective_at", fin_order_time_text(joint->effective_at));
	fin_json_text(json, "reference", joint->reference);
	fin_json_jsonb(json, "metadata", joint->metadata);
	head->key = joint->key;
	head->request = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													   CStringGetDatum(fin_json_end(json))));
	for (int i = 0; i < joint->norders - 1; i++)
		joint->orders[i].linked = true;
}
