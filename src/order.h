/*
 * order.h
 *		Between SQL and posting: arguments into an order, its outcome into a
 *		row.
 *
 * What is wrong with an argument becomes the order's fault, so that a batch can
 * answer with it and a single call raises it.
 */
#ifndef FIN_ORDER_H
#define FIN_ORDER_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/tuplestore.h"

#include "posting.h"

/* the fields of finance.transfer_request, in order */
typedef enum FinRequestField
{
	FIN_REQUEST_FROM,
	FIN_REQUEST_TO,
	FIN_REQUEST_AMOUNT,
	FIN_REQUEST_CURRENCY,
	FIN_REQUEST_KEY,
	FIN_REQUEST_TYPE,
	FIN_REQUEST_EXPECTED_FROM,
	FIN_REQUEST_EXPECTED_TO,
	FIN_REQUEST_AMOUNT_MODE,
	FIN_REQUEST_EFFECTIVE_AT,
	FIN_REQUEST_REFERENCE,
	FIN_REQUEST_METADATA,
	FIN_REQUEST_LINKED,
	FIN_REQUEST_ACTION,
	FIN_REQUEST_HOLD_ID,
	FIN_REQUEST_FINAL,
	FIN_REQUEST_EXPIRES_IN,
	FIN_REQUEST_HOLD_GROUP,
	FIN_REQUEST_RECORDED_AT,
	FIN_REQUEST_FIELDS			/* how many */
} FinRequestField;

typedef struct FinRequest
{
	Datum		values[FIN_REQUEST_FIELDS];
	bool		nulls[FIN_REQUEST_FIELDS];
} FinRequest;

/* all fields null */
extern void fin_order_clear(FinRequest *request);

/* field from an argument (from 0) of the function, null if that is */
extern void fin_order_take(FinRequest *request, FinRequestField field,
						   FunctionCallInfo fcinfo, int argument);

/*
 * The fields of an element of an array of a composite type of ours, which has
 * so many.  *tupdesc is NULL before the first; ReleaseTupleDesc() it after the
 * last.
 */
extern void fin_order_open_row(Datum element, int fields, TupleDesc *tupdesc,
							   Datum *values, bool *nulls);

/*
 * The order that a request asks for.  A null field is the default; accounts
 * may also be set in the order afterwards (by id), when 'by_code' is false.
 */
extern void fin_order_parse(const FinRequest *request, bool by_code,
							FinOrder *order);

/*
 * How the stored texts of requests write a time, which is not as the session
 * shows it, and a number, of which 1.50 and 1.5 are the same.
 */
extern char *fin_order_time_text(TimestampTz time);
extern char *fin_order_number_text(Numeric number);

/* columns of finance.transfer_result */
#define FIN_RESULT_COLUMNS 20

extern void fin_order_result(const FinOutcome *outcome, Datum *values,
							 bool *nulls);

/* makes the function's result of an outcome: finance.transfer_result */
extern Datum fin_order_answer(FunctionCallInfo fcinfo,
							  const FinOutcome *outcome);

/* carries out an order of one, raising its fault; finance.transfer_result */
extern Datum fin_order_execute(FunctionCallInfo fcinfo, const FinOrder *order);

/*
 * Makes the function's result of outcomes: a set of finance.transfer_result.
 * Of a chain that risk rejected it is the rejected transfer alone.
 */
extern void fin_order_answer_set(FunctionCallInfo fcinfo,
								 const FinOutcome *outcomes, int n);

/* carries out many, raising the first fault, and answers with a set */
extern void fin_order_execute_set(FunctionCallInfo fcinfo,
								  const FinOrder *orders, int n);

#endif							/* FIN_ORDER_H */
