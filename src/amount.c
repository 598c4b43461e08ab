/*
 * amount.c
 *		Exact decimal amounts.
 *
 * Pure, but for palloc of results.  Reads and writes the digits of numeric
 * directly: the format on disk (described at the top of the server's
 * numeric.c) cannot change without breaking every stored table, and going
 * through numeric_send() for a dozen totals costs more than all the arithmetic
 * of a transfer.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "amount.h"
#include "compat.h"

#define DIGIT_BASE				10000
#define DIGIT_DECIMALS			4

/* header bits of numeric */
#define NUMERIC_KIND_MASK		0xC000
#define NUMERIC_LONG_NEGATIVE	0x4000
#define NUMERIC_SHORT			0x8000
#define NUMERIC_SPECIAL			0xC000
#define NUMERIC_SPECIAL_MASK	0xF000
#define NUMERIC_NAN				0xC000
#define SHORT_NEGATIVE			0x2000
#define SHORT_DSCALE_SHIFT		7
#define SHORT_WEIGHT_NEGATIVE	0x0040
#define SHORT_WEIGHT_MASK		0x003F

/* 38 digits before and 18 after the point, in base 10^4, with room to spare */
#define DIGITS_MAX				24

/* characters of a number in a message; the longest there are have 147,457 */
#define EXCERPT_LENGTH			100

static const int64 power_of_ten[] = {
	INT64CONST(1), INT64CONST(10), INT64CONST(100), INT64CONST(1000),
	INT64CONST(10000), INT64CONST(100000), INT64CONST(1000000),
	INT64CONST(10000000), INT64CONST(100000000), INT64CONST(1000000000),
	INT64CONST(10000000000), INT64CONST(100000000000),
	INT64CONST(1000000000000), INT64CONST(10000000000000),
	INT64CONST(100000000000000), INT64CONST(1000000000000000),
	INT64CONST(10000000000000000), INT64CONST(100000000000000000),
	INT64CONST(1000000000000000000)
};

/* amount * factor, or false when the product has more than 38 digits */
static inline bool
multiply(FinAmount *amount, int64 factor)
{
	return !__builtin_mul_overflow(*amount, (FinAmount) factor, amount) &&
		*amount <= FIN_AMOUNT_MAX;
}

/*
 * The magnitude of the digits in units of 10^-scale.  The digit at position i
 * counts 10^(4 * (weight - i)).
 */
static FinAmountFault
magnitude(const uint16 *digits, int ndigits, int weight, int scale,
		  FinAmount *amount)
{
	int			exponent = 0;	/* of the last digit taken, in units */

	*amount = 0;
	for (int i = 0; i < ndigits; i++)
	{
		int64		digit = digits[i];

		exponent = DIGIT_DECIMALS * (weight - i) + scale;
		if (exponent <= -DIGIT_DECIMALS)
			return FIN_AMOUNT_SCALE;	/* trailing zeros are never stored */
		if (exponent < 0)
		{
			int64		cut = power_of_ten[-exponent];

			if (digit % cut != 0)
				return FIN_AMOUNT_SCALE;
			if (!multiply(amount, DIGIT_BASE / cut))
				return FIN_AMOUNT_RANGE;
			*amount += digit / cut;
		}
		else
		{
			if (!multiply(amount, DIGIT_BASE))
				return FIN_AMOUNT_RANGE;
			*amount += digit;
		}
	}
	if (*amount != 0 && exponent > 2 * FIN_AMOUNT_MAX_SCALE + 2)
		return FIN_AMOUNT_RANGE;
	for (; exponent > 0; exponent -= Min(exponent, FIN_AMOUNT_MAX_SCALE))
	{
		if (!multiply(amount,
					  power_of_ten[Min(exponent, FIN_AMOUNT_MAX_SCALE)]))
			return FIN_AMOUNT_RANGE;
	}
	return *amount <= FIN_AMOUNT_MAX ? FIN_AMOUNT_OK : FIN_AMOUNT_RANGE;
}

FinAmountFault
fin_amount_decode(Numeric number, int scale, FinAmount *amount)
{
	const uint16 *words = (const uint16 *) VARDATA(number);
	int			nwords = (VARSIZE(number) - VARHDRSZ) / sizeof(uint16);
	uint16		header = words[0];
	int			weight;
	bool		negative;
	FinAmountFault fault;

	if ((header & NUMERIC_KIND_MASK) == NUMERIC_SPECIAL)
		return (header & NUMERIC_SPECIAL_MASK) == NUMERIC_NAN ?
			FIN_AMOUNT_NAN : FIN_AMOUNT_INFINITE;

	if (header & NUMERIC_SHORT)
	{
		negative = (header & SHORT_NEGATIVE) != 0;
		weight = header & SHORT_WEIGHT_MASK;
		if (header & SHORT_WEIGHT_NEGATIVE)
			weight |= ~SHORT_WEIGHT_MASK;
		fault = magnitude(words + 1, nwords - 1, weight, scale, amount);
	}
	else
	{
		negative = (header & NUMERIC_KIND_MASK) == NUMERIC_LONG_NEGATIVE;
		weight = (int16) words[1];
		fault = magnitude(words + 2, nwords - 2, weight, scale, amount);
	}
	if (negative)
		*amount = -*amount;
	return fault;
}

/* writes the base 10^4 digits of value, 'count' of them, ending before 'end' */
static void
write_digits(uint16 *end, int count, uint128 value)
{
	/* 128-bit division is slow: leave it as soon as the rest fits 64 bits */
	while (count > 0 && (value >> 64) != 0)
	{
		*--end = (uint16) (value % DIGIT_BASE);
		value /= DIGIT_BASE;
		count--;
	}
	for (uint64 rest = (uint64) value; count > 0; count--, rest /= DIGIT_BASE)
		*--end = (uint16) (rest % DIGIT_BASE);
}

Numeric
fin_amount_encode(FinAmount amount, int scale)
{
	uint128 rest = (uint128) (amount < 0 ? -amount : amount);
	int			fraction_digits = (scale + DIGIT_DECIMALS - 1) / DIGIT_DECIMALS;
	int			padding = fraction_digits * DIGIT_DECIMALS - scale;
	int			whole_digits = DIGITS_MAX - fraction_digits;
	uint16		digits[DIGITS_MAX];
	int			first = 0;
	int			last = DIGITS_MAX;
	int			weight;
	uint16		header;
	uint16	   *words;
	Size		size;
	Numeric		number;

	write_digits(digits + whole_digits, whole_digits,
				 rest / power_of_ten[scale]);
	write_digits(digits + DIGITS_MAX, fraction_digits,
				 (rest % power_of_ten[scale]) * power_of_ten[padding]);

	/* as the server writes it: no zero digits at either end */
	while (first < last && digits[first] == 0)
		first++;
	while (last > first && digits[last - 1] == 0)
		last--;
	weight = first < last ? whole_digits - 1 - first : 0;

	header = NUMERIC_SHORT | (scale << SHORT_DSCALE_SHIFT) |
		(weight & SHORT_WEIGHT_MASK);
	if (weight < 0)
		header |= SHORT_WEIGHT_NEGATIVE;
	if (amount < 0)
		header |= SHORT_NEGATIVE;

	size = VARHDRSZ + sizeof(uint16) * (1 + last - first);
	number = (Numeric) palloc(size);
	SET_VARSIZE(number, size);
	words = (uint16 *) VARDATA(number);
	words[0] = header;
	memcpy(words + 1, digits + first, sizeof(uint16) * (last - first));
	return number;
}

/* sign, 39 digits, point, terminator */
#define TEXT_SIZE 48

char *
fin_amount_text(FinAmount amount, int scale)
{
	uint128		rest = (uint128) (amount < 0 ? -amount : amount);
	char		buffer[TEXT_SIZE];
	char	   *first = buffer + TEXT_SIZE - 1;
	int			decimals = 0;

	*first = '\0';
	do
	{
		/* 18 digits at a time: 128-bit division is slow */
		uint64		part = (uint64) (rest % power_of_ten[18]);

		rest /= power_of_ten[18];
		for (int i = 0; i < 18 && (part != 0 || rest != 0 || decimals <= scale); i++)
		{
			if (decimals == scale && scale > 0)
				*--first = '.';
			*--first = (char) ('0' + part % 10);
			part /= 10;
			decimals++;
		}
	} while (rest != 0 || decimals <= scale);
	if (amount < 0)
		*--first = '-';
	return pstrdup(first);
}

char *
fin_amount_excerpt(Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
														   NumericGetDatum(number)));
	char	   *excerpt;

	if (strlen(text) <= EXCERPT_LENGTH)
		return text;
	excerpt = pnstrdup(text, EXCERPT_LENGTH);
	pfree(text);
	return excerpt;
}

/* FIN_AMOUNT_OK: it fits, but is not above zero */
static FinFault *
describe(FinAmountFault fault, Numeric number, int scale, const char *currency,
		 const char *what)
{
	char	   *text = fin_amount_excerpt(number);

	switch (fault)
	{
		case FIN_AMOUNT_OK:
			return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
											  "%s must be above zero", what),
									"It is %s.", text);
		case FIN_AMOUNT_NAN:
		case FIN_AMOUNT_INFINITE:
			return fin_fault_detail(fin_fault(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
											  "%s must be a finite number", what),
									"It is %s.", text);
		case FIN_AMOUNT_SCALE:
			return fin_fault_hint(fin_fault_detail(fin_fault(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
															 "%s has more decimals than %s allows",
															 what, currency),
												   "It is %s, %s has %d decimals.",
												   text, currency, scale),
								  "Round it before the call; finance never rounds silently.");
		case FIN_AMOUNT_RANGE:
			return fin_fault_detail(fin_fault(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
											  "%s is out of range", what),
									"It is %s; an amount of %s has at most %d digits, %d of them decimals.",
									text, currency, FIN_AMOUNT_MAX_DIGITS, scale);
	}
	elog(ERROR, "unknown fault %d of an amount", (int) fault);
}

FinFault *
fin_amount_fault(Numeric number, int scale, const char *currency,
				 const char *what, FinAmount *amount)
{
	FinAmountFault fault = fin_amount_decode(number, scale, amount);

	if (fault != FIN_AMOUNT_OK || *amount <= 0)
		return describe(fault, number, scale, currency, what);
	return NULL;
}

FinAmount
fin_amount_from_caller(Numeric number, int scale, const char *currency,
					   const char *what)
{
	FinAmount	amount;
	FinFault   *fault = fin_amount_fault(number, scale, currency, what, &amount);

	if (fault != NULL)
		fin_fault_raise(fault);
	return amount;
}

FinAmount
fin_amount_limit_from_caller(Numeric number, int scale, const char *currency,
							 const char *what)
{
	FinAmount	amount;
	FinAmountFault fault = fin_amount_decode(number, scale, &amount);

	if (fault != FIN_AMOUNT_OK)
		fin_fault_raise(describe(fault, number, scale, currency, what));
	return amount;
}

FinAmount
fin_amount_floor(Numeric number, int scale)
{
	Datum		floor = DirectFunctionCall2(numeric_trunc,
											NumericGetDatum(number),
											Int32GetDatum(scale));
	FinAmount	amount;

	if (fin_amount_decode(DatumGetNumeric(floor), scale, &amount) != FIN_AMOUNT_OK)
		return FIN_AMOUNT_MAX;	/* above every amount */
	return amount;
}

FinAmount
fin_amount_ceiling(Numeric number, int scale)
{
	FinAmount	floor = fin_amount_floor(number, scale);
	Datum		of_floor;

	if (floor == FIN_AMOUNT_MAX)
		return floor;
	of_floor = fin_amount_datum(floor, scale);
	return DatumGetBool(DirectFunctionCall2(numeric_eq, of_floor,
											NumericGetDatum(number))) ?
		floor : floor + 1;
}
