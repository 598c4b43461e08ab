/*
 * split.h
 *		An amount divided by weights, to the last unit.
 */
#ifndef FIN_SPLIT_H
#define FIN_SPLIT_H

#include "fmgr.h"
#include "utils/array.h"

#include "amount.h"

#define FIN_WEIGHTS_MAX			1000
#define FIN_WEIGHT_DIGITS_MAX	38	/* before the point, and after it */

/*
 * The weights of an array: 1 to FIN_WEIGHTS_MAX, each finite and not negative,
 * not all zero.  Errors: 22004 a null among them, 22023 others, 22003 too many
 * digits.
 */
extern Numeric *fin_split_weights(ArrayType *array, int *n);

/*
 * parts[i] is amount * weights[i] / sum of weights, cut to whole units; what
 * is left goes, a unit each, to the parts that lost most by the cut, the
 * earlier of equal ones first.  The parts add up to amount, which is not
 * negative.
 */
extern void fin_split(FinAmount amount, const Numeric *weights, int n,
					  FinAmount *parts);

#endif							/* FIN_SPLIT_H */
