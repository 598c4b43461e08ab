/*
 * amount.h
 *		Exact decimal amounts: a 128-bit count of the currency's smallest unit.
 *
 * numeric(38, s) fits: 10^38 - 1 is below 2^127.  Amounts cross into SQL as
 * numeric and never pass through a float.
 */
#ifndef FIN_AMOUNT_H
#define FIN_AMOUNT_H

#include "utils/numeric.h"

#include "fault.h"

/* the server's int128: aligned as palloc aligns, which plain __int128 is not */
typedef int128 FinAmount;

#define FIN_AMOUNT_MAX_DIGITS	38
#define FIN_AMOUNT_MAX_SCALE	18

typedef enum FinAmountFault
{
	FIN_AMOUNT_OK,
	FIN_AMOUNT_NAN,
	FIN_AMOUNT_INFINITE,
	FIN_AMOUNT_SCALE,			/* more decimals than the currency has */
	FIN_AMOUNT_RANGE			/* more than 38 digits */
} FinAmountFault;

/* numeric to units of 10^-scale; exact or a fault */
extern FinAmountFault fin_amount_decode(Numeric number, int scale,
										FinAmount *amount);

/* units of 10^-scale to numeric with that scale, palloc'd */
extern Numeric fin_amount_encode(FinAmount amount, int scale);

/* 10^38 - 1: the largest magnitude of an amount, whatever its scale */
#define FIN_AMOUNT_MAX \
	((FinAmount) INT64CONST(1000000000000000000) * \
	 INT64CONST(1000000000000000000) * 100 - 1)

/* the same as a Datum */
static inline Datum
fin_amount_datum(FinAmount amount, int scale)
{
	return NumericGetDatum(fin_amount_encode(amount, scale));
}

/* a + b, or false when the sum has more than 38 digits */
static inline bool
fin_amount_add(FinAmount a, FinAmount b, FinAmount *sum)
{
	return !__builtin_add_overflow(a, b, sum) &&
		*sum <= FIN_AMOUNT_MAX && *sum >= -FIN_AMOUNT_MAX;
}

/* decimal text, palloc'd */
extern char *fin_amount_text(FinAmount amount, int scale);

/*
 * The text of any number, of which an absurdly long one is cut off after 100
 * characters: an amount never is that long.
 */
extern char *fin_amount_excerpt(Numeric number);

/*
 * Decodes an amount a caller gave: above zero, finite, within the currency's
 * decimals and 38 digits; otherwise an error that names 'what'.
 */
extern FinAmount fin_amount_from_caller(Numeric number, int scale,
										const char *currency,
										const char *what);

/* the same, but the fault as a value; NULL when there is none */
extern FinFault *fin_amount_fault(Numeric number, int scale,
								  const char *currency, const char *what,
								  FinAmount *amount);

/* as from_caller for a limit, which may be zero or negative */
extern FinAmount fin_amount_limit_from_caller(Numeric number, int scale,
											  const char *currency,
											  const char *what);

/*
 * A threshold that is not negative, cut to the scale: an amount in that scale
 * exceeds the threshold exactly when it exceeds this.  What no amount can
 * reach comes back as FIN_AMOUNT_MAX.
 */
extern FinAmount fin_amount_floor(Numeric number, int scale);

/*
 * The same rounded up: an amount in that scale reaches the threshold exactly
 * when it reaches this.
 */
extern FinAmount fin_amount_ceiling(Numeric number, int scale);

#endif							/* FIN_AMOUNT_H */
