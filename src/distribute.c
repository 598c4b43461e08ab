/*
 * distribute.c
 *		finance.distribute(): an amount to many accounts, by weights.
 *
 * Owns nothing between calls; memory is the call's.
 *
 * Locks: all accounts in ascending order of id, also those whose part is zero.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "argument.h"
#include "errors.h"
#include "joint.h"
#include "json.h"
#include "split.h"

/* arguments, from 0 */
enum
{
	ARG_FROM,
	ARG_TO,
	ARG_WEIGHTS,
	ARG_AMOUNT,
	ARG_REST
};

typedef struct Distribution
{
	const char **codes;			/* the payer's first, then the others' */
	FinAccount **accounts;		/* in the same order, locked */
	Numeric    *weights;		/* of the others */
	FinAmount  *parts;
	int			n;				/* others */
} Distribution;

static void
require(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

static void
parse(FunctionCallInfo fcinfo, Distribution *all)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	require(fcinfo, ARG_TO, "to_accounts");
	require(fcinfo, ARG_WEIGHTS, "weights");
	require(fcinfo, ARG_AMOUNT, "amount");
	all->weights = fin_split_weights(PG_GETARG_ARRAYTYPE_P(ARG_WEIGHTS), &n);
	array = PG_GETARG_ARRAYTYPE_P(ARG_TO);
	all->n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (all->n != n)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("to_accounts and weights must be equally many"),
				errdetail("There are %d accounts and %d weights.", all->n, n));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &n);
	all->codes = palloc(sizeof(char *) * (n + 1));
	all->codes[0] = fin_argument_text(fcinfo, ARG_FROM, "from_account",
									  FIN_CODE_LENGTH_MAX);
	for (int i = 0; i < n; i++)
		all->codes[i + 1] = fin_joint_code(elements[i], nulls[i],
										   psprintf("account %d of to_accounts",
													i + 1));
}

static int
compare_accounts(const void *a, const void *b)
{
	int64		left = (*(FinAccount *const *) a)->account_id;
	int64		right = (*(FinAccount *const *) b)->account_id;

	return left < right ? -1 : left > right;
}

static void
refuse_twice(const FinAccount *from, const FinAccount *account)
{
	if (account == from)
		ereport(ERROR,
				errcode(ERRCODE_FIN_SAME_ACCOUNT),
				errmsg("account \"%s\" cannot distribute to itself",
					   account->code));
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("account \"%s\" stands twice in to_accounts", account->code),
			errhint("Add up its weights."));
}

/* all different, and of one currency, whatever their part is */
static void
check_accounts(const Distribution *all)
{
	const FinAccount *from = all->accounts[0];
	FinAccount **sorted = palloc(sizeof(FinAccount *) * (all->n + 1));

	memcpy(sorted, all->accounts, sizeof(FinAccount *) * (all->n + 1));
	qsort(sorted, all->n + 1, sizeof(FinAccount *), compare_accounts);
	for (int i = 1; i <= all->n; i++)
	{
		if (sorted[i] == sorted[i - 1])
			refuse_twice(from, sorted[i]);
	}
	for (int i = 1; i <= all->n; i++)
	{
		const FinAccount *to = all->accounts[i];

		if (strcmp(from->currency, to->currency) != 0)
			ereport(ERROR,
					errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
					errmsg("accounts \"%s\" and \"%s\" have different currencies",
						   from->code, to->code),
					errdetail("\"%s\" holds %s, \"%s\" holds %s.", from->code,
							  from->currency, to->code, to->currency));
	}
}

static void
add_element(StringInfo array, const char *text)
{
	appendStringInfoChar(array, array->len == 0 ? '[' : ',');
	escape_json(array, text);
}

static void
request_json(StringInfo json, const Distribution *all, Numeric amount)
{
	StringInfoData accounts;
	StringInfoData weights;

	initStringInfo(json);
	initStringInfo(&accounts);
	initStringInfo(&weights);
	for (int i = 0; i < all->n; i++)
	{
		add_element(&accounts, all->codes[i + 1]);
		add_element(&weights, fin_order_number_text(all->weights[i]));
	}
	appendStringInfoChar(&accounts, ']');
	appendStringInfoChar(&weights, ']');
	fin_json_text(json, "action", "distribute");
	fin_json_text(json, "from_account", all->codes[0]);
	fin_json_object(json, "to_accounts", accounts.data);
	fin_json_object(json, "weights", weights.data);
	fin_json_text(json, "amount", fin_order_number_text(amount));
}

PG_FUNCTION_INFO_V1(finance_distribute);

/*
 * finance.distribute(from_account text, to_accounts text[], weights numeric[],
 *					  amount numeric, idempotency_key text, type text,
 *					  effective_at timestamptz, reference text,
 *					  metadata jsonb, strict boolean)
 * returns setof finance.transfer_result
 *
 * Moves exactly amount from one account to others, in proportion to their
 * weights, by the largest remainder (see fin_split()): one journal.  Accounts
 * whose part is zero get no transfer.  1 to FIN_WEIGHTS_MAX accounts, all
 * different.  Other arguments as transfer().
 *
 * Result: as journal().  Errors: 22004, 22023, 22003, LG003 an account of
 * another currency, LG008 from_account among the others, and those of
 * fin_posting_execute().  Locks: fin_posting_execute().
 */
Datum
finance_distribute(PG_FUNCTION_ARGS)
{
	Distribution all;
	FinJoint	joint;
	StringInfoData json;
	const FinAccount *from;
	Numeric		amount;

	parse(fcinfo, &all);
	fin_joint_begin(&joint, fcinfo, ARG_REST, true, "transfer");
	amount = PG_GETARG_NUMERIC(ARG_AMOUNT);
	all.accounts = fin_joint_lock(all.codes, all.n + 1);
	check_accounts(&all);
	from = all.accounts[0];
	all.parts = palloc(sizeof(FinAmount) * all.n);
	fin_split(fin_amount_from_caller(amount, from->scale, from->currency,
									 "amount"),
			  all.weights, all.n, all.parts);
	for (int i = 0; i < all.n; i++)
	{
		if (all.parts[i] > 0)
			(void) fin_joint_add(&joint, from->account_id,
								 all.accounts[i + 1]->account_id,
								 fin_amount_encode(all.parts[i], from->scale));
	}
	request_json(&json, &all, amount);
	fin_joint_end(&joint, &json);
	fin_order_execute_set(fcinfo, joint.orders, joint.norders);
	return (Datum) 0;
}
