/*
 * account_lock.c
 *		Accounts found by their codes and locked; finance.lock_accounts().
 *
 * Owns nothing between calls.  Locks are FOR NO KEY UPDATE, taken in ascending
 * order of id over the whole set, as posting takes its own, and last until the
 * end of the transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "account_parts.h"
#include "argument.h"
#include "errors.h"
#include "query.h"

#define ACCOUNTS_LOCKED_MAX 10000	/* by one call */
#define RESULT_COLUMNS		8

FinFault *
fin_account_fault_unknown(const char *code, int64 id)
{
	FinFault   *fault;

	if (code == NULL)
		return fin_fault(ERRCODE_FIN_UNKNOWN_ACCOUNT,
						 "account " INT64_FORMAT " does not exist", id);
	fault = fin_fault(ERRCODE_FIN_UNKNOWN_ACCOUNT,
					  "account \"%s\" does not exist", code);
	return fin_fault_hint(fault, "Open it with finance.create_account().");
}

/* number of the account of this id among those locked, or -1 */
static int
number_of(const FinAccount *accounts, int naccounts, int64 id)
{
	int			low = 0;
	int			high = naccounts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (accounts[middle].account_id == id)
			return middle;
		if (accounts[middle].account_id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

/*
 * NULL when a code was remembered from an account whose creation rolled back;
 * it is then forgotten.
 */
static FinAccount *
lock_as_remembered(const FinContext *context, const char *const *codes, int n,
				   int *which)
{
	int64	   *ids = palloc(sizeof(int64) * n);
	int64	   *distinct = palloc(sizeof(int64) * n);
	FinAccount *accounts;
	int			naccounts;
	bool		all = true;

	fin_store_find_accounts(context->tenant_id, codes, n, ids);
	for (int i = 0; i < n; i++)
	{
		if (ids[i] == 0)
			fin_fault_raise(fin_account_fault_unknown(codes[i], 0));
		distinct[i] = ids[i];
	}
	naccounts = fin_store_distinct_ids(distinct, n);
	accounts = palloc(sizeof(FinAccount) * naccounts);
	naccounts = fin_store_lock_accounts(context->tenant_id, distinct, naccounts,
										accounts, CurrentMemoryContext);
	for (int i = 0; i < n; i++)
	{
		which[i] = number_of(accounts, naccounts, ids[i]);
		if (which[i] >= 0 && strcmp(accounts[which[i]].code, codes[i]) == 0)
			continue;
		fin_store_forget_account(context->tenant_id, codes[i]);
		all = false;
	}
	return all ? accounts : NULL;
}

FinAccount *
fin_account_lock_all(const FinContext *context, const char *const *codes, int n,
					 int *which)
{
	FinAccount *accounts = lock_as_remembered(context, codes, n, which);

	if (accounts == NULL)
		accounts = lock_as_remembered(context, codes, n, which);
	/* found by the index a moment ago, and accounts are never deleted */
	if (accounts == NULL)
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not lock the accounts"),
				errdetail("An account appeared or vanished meanwhile."),
				errhint("Try again."));
	return accounts;
}

void
fin_account_lock(const FinContext *context, const char *code,
				 FinAccount *account)
{
	int			which;

	*account = *fin_account_lock_all(context, &code, 1, &which);
}

/* ------------------------------------------------------------------------
 * lock_accounts
 * ------------------------------------------------------------------------ */

static const char **
codes_argument(FunctionCallInfo fcinfo, int *n)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	const char **codes;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("codes must not be null"));
	array = PG_GETARG_ARRAYTYPE_P(0);
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (*n > ACCOUNTS_LOCKED_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("too many accounts to lock in one call"),
				errdetail("There are %d, the most is %d.", *n,
						  ACCOUNTS_LOCKED_MAX));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, n);
	codes = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		FinFault   *fault;
		char	   *code;

		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("codes must not contain null"),
					errdetail("Element %d is null.", i + 1));
		fault = fin_argument_take_text(elements[i], "code",
									   FIN_CODE_LENGTH_MAX, &code);
		if (fault != NULL)
			fin_fault_raise(fault);
		codes[i] = code;
	}
	return codes;
}

static void
put_account(ReturnSetInfo *result, const FinAccount *account)
{
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS] = {false};
	int			scale = account->scale;

	values[0] = CStringGetTextDatum(account->code);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = CStringGetTextDatum(fin_account_status_name(account->status));
	values[3] = CStringGetTextDatum(account->currency);
	values[4] = fin_amount_datum(fin_engine_balance(account), scale);
	values[5] = fin_amount_datum(account->debits_pending, scale);
	values[6] = fin_amount_datum(fin_engine_available(account), scale);
	values[7] = Int64GetDatum(account->version);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(finance_lock_accounts);

/*
 * finance.lock_accounts(codes text[]) returns table (code, account_id, status,
 * currency, balance, held, available, version)
 *
 * Locks the accounts until the end of the transaction, whatever their status,
 * and tells how they stand: one row for each, in the order of the codes; one
 * that is named twice comes where it is named first.  At most 10,000.  Then no
 * order of transfers between these accounts can end in a deadlock, and what was
 * read of them stays true.  Errors: 22004 codes or one of them null, 22023 too
 * many or no code, LG002 unknown account, 40001 one that changed since the
 * snapshot of REPEATABLE READ.  Locks: the accounts, FOR NO KEY UPDATE, in
 * ascending order of id.
 */
Datum
finance_lock_accounts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n;
	const char **codes = codes_argument(fcinfo, &n);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinAccount *accounts;
	int		   *which;
	bool	   *told;

	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != RESULT_COLUMNS)
		elog(ERROR, "finance.lock_accounts() is not as this library expects");
	if (n == 0)
		return (Datum) 0;
	fin_query_begin(&scope);
	which = palloc(sizeof(int) * n);
	told = palloc0(sizeof(bool) * n);
	accounts = fin_account_lock_all(context, codes, n, which);
	for (int i = 0; i < n; i++)
	{
		if (!told[which[i]])
			put_account(result, &accounts[which[i]]);
		told[which[i]] = true;
	}
	fin_query_end(&scope);
	return (Datum) 0;
}
