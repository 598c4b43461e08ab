/*
 * store_constraint.c
 *		The constraint of accounts' rows, as a trigger.
 *
 * Says again what the engine decided, in the server's own arithmetic and not
 * the engine's, for whoever writes the row.  Owns nothing; takes no locks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/rel.h"

#include "store.h"

/* columns of finance._account, by position from 0 */
#define FIRST_TOTAL		8		/* debits_posted */
#define LAST_TOTAL		12		/* spent */
#define DEBITS_POSTED	8
#define CREDITS_POSTED	9
#define DEBITS_PENDING	10
#define CREDITS_PENDING 11
#define MIN_AVAILABLE	13
#define MAX_BALANCE		14
#define CODE			18
#define COLUMNS			21		/* others may have added some behind */

static int
compare(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static bool
is_total(Datum total, Datum zero)
{
	return compare(total, zero) >= 0 &&
		!numeric_is_nan(DatumGetNumeric(total)) &&
		!numeric_is_inf(DatumGetNumeric(total));
}

static Datum
subtract(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_sub, a, b);
}

/* what the row breaks, or NULL */
static const char *
broken_rule(const Datum *values, const bool *nulls)
{
	Datum		zero = DirectFunctionCall1(int8_numeric, Int64GetDatum(0));
	Datum		balance;

	for (int i = FIRST_TOTAL; i <= LAST_TOTAL; i++)
	{
		if (nulls[i] || !is_total(values[i], zero))
			return "a total is not a finite number, zero or above";
	}
	balance = subtract(values[CREDITS_POSTED], values[DEBITS_POSTED]);
	if (!nulls[MIN_AVAILABLE] &&
		compare(subtract(balance, values[DEBITS_PENDING]),
				values[MIN_AVAILABLE]) < 0)
		return "available is below min_available";
	if (!nulls[MAX_BALANCE] &&
		compare(DirectFunctionCall2(numeric_add, balance,
									values[CREDITS_PENDING]),
				values[MAX_BALANCE]) > 0)
		return "the balance is above max_balance";
	return NULL;
}

void
fin_store_check_totals(const Datum *values, const bool *nulls)
{
	const char *broken = broken_rule(values, nulls);

	if (broken != NULL)
		ereport(ERROR,
				errcode(ERRCODE_CHECK_VIOLATION),
				errmsg("account \"%s\" violates its constraint",
					   TextDatumGetCString(values[CODE])),
				errdetail("In the new row %s.", broken));
}

PG_FUNCTION_INFO_V1(finance_check_totals);

/* row trigger before INSERT or UPDATE on finance._account */
Datum
finance_check_totals(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	tupdesc;
	HeapTuple	row;
	Datum	   *values;
	bool	   *nulls;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_check_totals() can only be called as a trigger"));
	tupdesc = RelationGetDescr(trigger->tg_relation);
	if (tupdesc->natts < COLUMNS)
		elog(ERROR, "finance._account is not as this library expects");
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
	values = palloc(sizeof(Datum) * tupdesc->natts);
	nulls = palloc(sizeof(bool) * tupdesc->natts);
	heap_deform_tuple(row, tupdesc, values, nulls);
	fin_store_check_totals(values, nulls);
	return PointerGetDatum(row);
}
