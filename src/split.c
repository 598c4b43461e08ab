/*
 * split.c
 *		An amount divided by weights, to the last unit; finance.split_amount().
 *
 * Pure; allocates in the current context.  The arithmetic is numeric's, which
 * is exact here: products of an amount and a weight have some hundred digits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "split.h"

/* what a part lost by the cut to whole units */
typedef struct Remainder
{
	Datum		lost;			/* in units times the sum of weights */
	int			position;
} Remainder;

static Datum
add(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_add, a, b);
}

static Datum
multiply(Datum a, Datum b)
{
	return DirectFunctionCall2(numeric_mul, a, b);
}

static int
compare(Datum a, Datum b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, a, b));
}

static Datum
integer(FinAmount value)
{
	return fin_amount_datum(value, 0);
}

/* ------------------------------------------------------------------------
 * weights
 * ------------------------------------------------------------------------ */

static void
refuse_weight(int sqlstate, const char *what, int position, Datum weight)
{
	ereport(ERROR,
			errcode(sqlstate),
			errmsg("weights must %s", what),
			errdetail("Weight %d is %s.", position,
					  fin_amount_excerpt(DatumGetNumeric(weight))));
}

static void
check_weight(Datum weight, int position)
{
	Numeric		number = DatumGetNumeric(weight);
	Datum		limit = integer(FIN_AMOUNT_MAX);

	if (numeric_is_nan(number) || numeric_is_inf(number))
		refuse_weight(ERRCODE_INVALID_PARAMETER_VALUE, "be finite", position,
					  weight);
	if (compare(weight, integer(0)) < 0)
		refuse_weight(ERRCODE_INVALID_PARAMETER_VALUE, "not be negative",
					  position, weight);
	/* FIN_AMOUNT_MAX has FIN_WEIGHT_DIGITS_MAX digits */
	if (compare(DirectFunctionCall2(numeric_trunc, weight, Int32GetDatum(0)),
				limit) > 0 ||
		DatumGetInt32(DirectFunctionCall1(numeric_min_scale, weight)) >
		FIN_WEIGHT_DIGITS_MAX)
		refuse_weight(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
					  "have at most 38 digits before the point and 38 after it",
					  position, weight);
}

static Datum
sum_of(const Numeric *weights, int n)
{
	Datum		sum = integer(0);

	for (int i = 0; i < n; i++)
		sum = add(sum, NumericGetDatum(weights[i]));
	return sum;
}

Numeric *
fin_split_weights(ArrayType *array, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	Numeric    *weights;

	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (ARR_NDIM(array) > 1 || *n < 1 || *n > FIN_WEIGHTS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("weights must be a list of 1 to %d", FIN_WEIGHTS_MAX),
				errdetail("There are %d, in %d dimensions.", *n,
						  ARR_NDIM(array)));
	deconstruct_array(array, NUMERICOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, n);
	weights = palloc(sizeof(Numeric) * *n);
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("weights must not contain null"),
					errdetail("Weight %d is null.", i + 1));
		check_weight(elements[i], i + 1);
		/* products keep all digits, but not thousands of zeros */
		weights[i] = DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale,
														 elements[i]));
	}
	if (compare(sum_of(weights, *n), integer(0)) == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("weights must not all be zero"));
	return weights;
}

/* ------------------------------------------------------------------------
 * largest remainder
 * ------------------------------------------------------------------------ */

/* who lost most comes first; of equal ones the earlier */
static int
compare_remainders(const void *a, const void *b)
{
	const Remainder *left = a;
	const Remainder *right = b;
	int			order = compare(right->lost, left->lost);

	return order != 0 ? order : left->position - right->position;
}

void
fin_split(FinAmount amount, const Numeric *weights, int n, FinAmount *parts)
{
	Datum		sum = sum_of(weights, n);
	Remainder  *remainders = palloc(sizeof(Remainder) * n);
	FinAmount	left = amount;

	for (int i = 0; i < n; i++)
	{
		Datum		share = multiply(integer(amount),
									 NumericGetDatum(weights[i]));
		Datum		whole = DirectFunctionCall2(numeric_div_trunc, share, sum);

		if (fin_amount_decode(DatumGetNumeric(whole), 0, &parts[i]) != FIN_AMOUNT_OK)
			elog(ERROR, "a part is not a whole number of units");
		left -= parts[i];
		remainders[i].lost = DirectFunctionCall2(numeric_sub, share,
												 multiply(whole, sum));
		remainders[i].position = i;
	}
	qsort(remainders, n, sizeof(Remainder), compare_remainders);
	/* fewer than parts that lost anything: each lost less than a unit */
	for (int i = 0; i < n && left > 0; i++, left--)
		parts[remainders[i].position]++;
	if (left != 0)
		elog(ERROR, "parts do not add up to their amount");
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------ */

static FinAmount
amount_argument(Numeric number, int decimals)
{
	FinAmount	amount;

	if (decimals < 0 || decimals > FIN_AMOUNT_MAX_SCALE)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("decimals must be between 0 and %d",
					   FIN_AMOUNT_MAX_SCALE));
	amount = fin_amount_limit_from_caller(number, decimals,
										  psprintf("a split to %d decimals",
												   decimals), "amount");
	if (amount < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("amount must not be negative"),
				errdetail("It is %s.", fin_amount_text(amount, decimals)));
	return amount;
}

PG_FUNCTION_INFO_V1(finance_split_amount);

/*
 * finance.split_amount(amount numeric, weights numeric[], decimals integer)
 * returns numeric[]
 *
 * Divides amount (not negative, at most 38 digits and 'decimals' decimals, 0
 * to 18) in proportion to the weights into parts of so many decimals that add
 * up to it, by the largest remainder; of equal remainders the earlier wins.
 * See fin_split_weights() for weights.  Null for a null argument.  Errors:
 * 22003, 22004, 22023.
 */
Datum
finance_split_amount(PG_FUNCTION_ARGS)
{
	int			decimals = PG_GETARG_INT32(2);
	FinAmount	amount = amount_argument(PG_GETARG_NUMERIC(0), decimals);
	int			n;
	Numeric    *weights = fin_split_weights(PG_GETARG_ARRAYTYPE_P(1), &n);
	FinAmount  *parts = palloc(sizeof(FinAmount) * n);
	Datum	   *elements = palloc(sizeof(Datum) * n);

	fin_split(amount, weights, n, parts);
	for (int i = 0; i < n; i++)
		elements[i] = fin_amount_datum(parts[i], decimals);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, n, NUMERICOID, -1, false,
										  TYPALIGN_INT));
}
