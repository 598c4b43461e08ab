/*
 * batch_parts.h
 *		What transfer_batch() and import_transfers() share; included by batch*.c
 *		only.
 */
#ifndef FIN_BATCH_PARTS_H
#define FIN_BATCH_PARTS_H

#include "fmgr.h"

#include "order.h"

/*
 * The orders that an argument (from 0), finance.transfer_request[], asks for;
 * what is wrong with one is its fault.  Errors: 22004 null, 22023 more than
 * FIN_ORDERS_MAX.
 */
extern FinOrder *fin_batch_orders(FunctionCallInfo fcinfo, int argument,
								  int *n);

/* sees to the function's result, a set of finance.batch_result */
extern void fin_batch_begin_result(FunctionCallInfo fcinfo);

extern void fin_batch_put_outcomes(FunctionCallInfo fcinfo,
								   const FinOutcome *outcomes, int n);

#endif							/* FIN_BATCH_PARTS_H */
