/*
 * order.c
 *		Between SQL and posting: arguments into an order, its outcome into a
 *		row (see order.h).
 *
 * Owns nothing; allocates in the current context.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "argument.h"
#include "ident.h"
#include "json.h"
#include "order.h"

/* as intervals count */
#define FIN_EXPIRES_IN_DAYS_MAX	(1000 * 12 * DAYS_PER_MONTH)

/* ------------------------------------------------------------------------
 * fields
 * ------------------------------------------------------------------------ */

void
fin_order_clear(FinRequest *request)
{
	memset(request->nulls, true, sizeof(request->nulls));
}

void
fin_order_open_row(Datum element, int fields, TupleDesc *tupdesc,
				   Datum *values, bool *nulls)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(element);
	HeapTupleData tuple;

	if (*tupdesc == NULL)
		*tupdesc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
										  HeapTupleHeaderGetTypMod(header));
	if ((*tupdesc)->natts != fields)
		elog(ERROR, "type %s is not as this library expects",
			 format_type_be((*tupdesc)->tdtypeid));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, *tupdesc, values, nulls);
}

void
fin_order_take(FinRequest *request, FinRequestField field,
			   FunctionCallInfo fcinfo, int argument)
{
	request->nulls[field] = PG_ARGISNULL(argument);
	request->values[field] = PG_GETARG_DATUM(argument);
}

/* the first thing wrong stays */
static void
fault(FinOrder *order, const FinFault *found)
{
	if (order->fault == NULL)
		order->fault = found;
}

static void
fault_null(FinOrder *order, const char *name)
{
	fault(order, fin_fault(ERRCODE_NULL_VALUE_NOT_ALLOWED,
						   "%s must not be null", name));
}

static void
fault_not_null(FinOrder *order, const char *name, const char *action)
{
	fault(order, fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
						   "%s must be null for a %s", name, action));
}

/* NULL for null, and for what is wrong */
static const char *
text_field(const FinRequest *request, FinRequestField field, const char *name,
		   int length_max, FinOrder *order)
{
	char	   *value;
	FinFault   *found;

	if (request->nulls[field])
		return NULL;
	found = fin_argument_take_text(request->values[field], name, length_max,
								   &value);
	if (found == NULL)
		return value;
	fault(order, found);
	return NULL;
}

static int64
version_field(const FinRequest *request, FinRequestField field,
			  const char *name, FinOrder *order)
{
	int64		version;

	if (request->nulls[field])
		return FIN_NO_VERSION;
	version = DatumGetInt64(request->values[field]);
	if (version < 0)
		fault(order, fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
												"%s must not be negative", name),
									  "It is " INT64_FORMAT ".", version));
	return version;
}

static bool
time_field(const FinRequest *request, FinRequestField field, const char *name,
		   TimestampTz *time, FinOrder *order)
{
	if (request->nulls[field])
		return false;
	*time = DatumGetTimestampTz(request->values[field]);
	if (TIMESTAMP_NOT_FINITE(*time))
		fault(order, fin_fault(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
							   "%s must be a finite time", name));
	return true;
}

static bool
bool_field(const FinRequest *request, FinRequestField field)
{
	return !request->nulls[field] && DatumGetBool(request->values[field]);
}

/* ------------------------------------------------------------------------
 * what is asked for
 * ------------------------------------------------------------------------ */

static void
parse_action(const FinRequest *request, FinOrder *order)
{
	const char *action = text_field(request, FIN_REQUEST_ACTION, "action",
									FIN_NAME_LENGTH_MAX, order);

	order->action = FIN_TRANSFER;
	if (action == NULL || strcmp(action, "transfer") == 0)
		return;
	if (strcmp(action, "hold") == 0)
		order->action = FIN_HOLD;
	else if (strcmp(action, "capture") == 0)
		order->action = FIN_CAPTURE;
	else if (strcmp(action, "release") == 0)
		order->action = FIN_RELEASE;
	else
		fault(order, fin_fault_hint(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
											  "action \"%s\" is not known",
											  action),
									"It is transfer, hold, capture or release."));
}

static void
parse_amount(const FinRequest *request, FinOrder *order)
{
	const char *mode = text_field(request, FIN_REQUEST_AMOUNT_MODE,
								  "amount_mode", FIN_NAME_LENGTH_MAX, order);
	bool		of_hold = order->action == FIN_CAPTURE ||
	order->action == FIN_RELEASE;

	if (!request->nulls[FIN_REQUEST_AMOUNT])
		order->amount = DatumGetNumeric(request->values[FIN_REQUEST_AMOUNT]);
	if (mode != NULL && strcmp(mode, "up_to") == 0)
		order->up_to = true;
	else if (mode != NULL && strcmp(mode, "exact") != 0)
		fault(order, fin_fault_hint(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
											  "amount_mode \"%s\" is not known",
											  mode),
									"It is exact or up_to."));
	if (of_hold && order->up_to)
		fault(order, fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
							   "amount_mode up_to is not for held money"));
	if (order->amount == NULL && !of_hold && !order->up_to)
		fault_null(order, "amount");
}

static void
parse_accounts(const FinRequest *request, FinOrder *order)
{
	order->from_code = text_field(request, FIN_REQUEST_FROM, "from_account",
								  FIN_CODE_LENGTH_MAX, order);
	order->to_code = text_field(request, FIN_REQUEST_TO, "to_account",
								FIN_CODE_LENGTH_MAX, order);
	if (order->from_code == NULL)
		fault_null(order, "from_account");
	if (order->to_code == NULL)
		fault_null(order, "to_account");
}

/* a capture or a release: its accounts and currency are the hold's */
static void
parse_of_hold(const FinRequest *request, FinOrder *order)
{
	static const struct
	{
		FinRequestField field;
		const char *name;
	}			not_for_holds[] = {
		{FIN_REQUEST_FROM, "from_account"},
		{FIN_REQUEST_TO, "to_account"},
		{FIN_REQUEST_TYPE, "type"},
		{FIN_REQUEST_EXPIRES_IN, "expires_in"},
		{FIN_REQUEST_HOLD_GROUP, "hold_group"},
	};
	const char *action = order->action == FIN_CAPTURE ? "capture" : "release";

	if (request->nulls[FIN_REQUEST_HOLD_ID])
		fault_null(order, "hold_id");
	else
		order->hold_id = DatumGetInt64(request->values[FIN_REQUEST_HOLD_ID]);
	for (int i = 0; i < (int) lengthof(not_for_holds); i++)
	{
		if (!request->nulls[not_for_holds[i].field])
			fault_not_null(order, not_for_holds[i].name, action);
	}
	order->final = bool_field(request, FIN_REQUEST_FINAL);
	if (order->final && order->action == FIN_RELEASE)
		fault_not_null(order, "final", action);
}

/* above zero, and so near that adding it to a time is no error */
static bool
is_span(const Interval *span)
{
	double		months = (double) span->month * DAYS_PER_MONTH;
	double		days = months + span->day + (double) span->time / USECS_PER_DAY;

	return days > 0 && days <= FIN_EXPIRES_IN_DAYS_MAX &&
		fabs(months) <= FIN_EXPIRES_IN_DAYS_MAX &&
		fabs((double) span->day) <= FIN_EXPIRES_IN_DAYS_MAX;
}

static void
parse_expiry(const FinRequest *request, FinOrder *order)
{
	TimestampTz now = fin_ident_now();
	Datum		span = request->values[FIN_REQUEST_EXPIRES_IN];

	if (request->nulls[FIN_REQUEST_EXPIRES_IN])
		return;
	order->expires_in = DatumGetIntervalP(span);
	if (is_span(order->expires_in))
		order->expires_at =
			DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													TimestampTzGetDatum(now),
													span));
	if (order->expires_at <= now)
		fault(order, fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
							   "expires_in must be above zero and at most 1000 years"));
}

/* a transfer or a hold */
static void
parse_movement(const FinRequest *request, bool by_code, FinOrder *order)
{
	const char *action = order->action == FIN_HOLD ? "hold" : "transfer";

	if (by_code)
		parse_accounts(request, order);
	if (!request->nulls[FIN_REQUEST_HOLD_ID])
		fault_not_null(order, "hold_id", action);
	if (bool_field(request, FIN_REQUEST_FINAL))
		fault_not_null(order, "final", action);
	order->type = text_field(request, FIN_REQUEST_TYPE, "type",
							 FIN_TYPE_LENGTH_MAX, order);
	if (order->type == NULL)
		order->type = "transfer";
	if (order->action == FIN_HOLD)
	{
		parse_expiry(request, order);
		order->hold_group = text_field(request, FIN_REQUEST_HOLD_GROUP,
									   "hold_group", FIN_CODE_LENGTH_MAX,
									   order);
		return;
	}
	if (!request->nulls[FIN_REQUEST_EXPIRES_IN])
		fault_not_null(order, "expires_in", "transfer");
	if (!request->nulls[FIN_REQUEST_HOLD_GROUP])
		fault_not_null(order, "hold_group", "transfer");
}

/* in UTC */
char *
fin_order_time_text(TimestampTz time)
{
	char		buffer[MAXDATELEN + 1];
	Datum		value = TimestampTzGetDatum(time);
	int			utc = 0;

	JsonEncodeDateTime(buffer, value, TIMESTAMPTZOID, &utc);
	return pstrdup(buffer);
}

/* not as interval_out() writes it, which depends on the session as well */
static char *
span_text(const Interval *span)
{
	return psprintf("%d months %d days " INT64_FORMAT " us",
					(int) span->month, (int) span->day, (int64) span->time);
}

char *
fin_order_number_text(Numeric number)
{
	Datum		trimmed = DirectFunctionCall1(numeric_trim_scale,
											  NumericGetDatum(number));

	return fin_amount_excerpt(DatumGetNumeric(trimmed));
}

/* what the transfer's row will not tell; see FinOrder */
static Jsonb *
rest_of_request(const FinRequest *request, const FinOrder *order)
{
	static const char *const actions[] = {
		[FIN_HOLD] = "hold",
		[FIN_CAPTURE] = "capture",
		[FIN_RELEASE] = "release",
	};
	StringInfoData json;

	if (order->action == FIN_TRANSFER && !order->up_to &&
		!order->has_recorded_at)
		return NULL;
	initStringInfo(&json);
	/* a transfer is one with its mode or without: so that the mode differs */
	if (order->action != FIN_TRANSFER)
		fin_json_text(&json, "action", actions[order->action]);
	if (order->hold_id != 0)
		fin_json_int64(&json, "hold_id", order->hold_id);
	if (order->up_to || order->hold_id != 0)
		fin_json_text(&json, "amount", order->amount == NULL ? "all" :
					  fin_order_number_text(order->amount));
	if (order->up_to)
		fin_json_text(&json, "amount_mode", "up_to");
	if (order->final)
		fin_json_text(&json, "final", "true");
	if (order->expires_at != 0)
		fin_json_text(&json, "expires_in",
					  span_text(DatumGetIntervalP(request->values[FIN_REQUEST_EXPIRES_IN])));
	if (order->hold_group != NULL)
		fin_json_text(&json, "hold_group", order->hold_group);
	if (order->has_recorded_at)
		fin_json_text(&json, "recorded_at", fin_order_time_text(order->recorded_at));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(fin_json_end(&json))));
}

void
fin_order_parse(const FinRequest *request, bool by_code, FinOrder *order)
{
	memset(order, 0, sizeof(FinOrder));
	parse_action(request, order);
	if (order->action == FIN_CAPTURE || order->action == FIN_RELEASE)
		parse_of_hold(request, order);
	else
		parse_movement(request, by_code, order);
	parse_amount(request, order);
	order->currency = text_field(request, FIN_REQUEST_CURRENCY, "currency",
								 FIN_CURRENCY_LENGTH_MAX, order);
	order->key = text_field(request, FIN_REQUEST_KEY, "idempotency_key",
							FIN_KEY_LENGTH_MAX, order);
	order->expected_from_version = version_field(request, FIN_REQUEST_EXPECTED_FROM,
												 "expected_from_version", order);
	order->expected_to_version = version_field(request, FIN_REQUEST_EXPECTED_TO,
											   "expected_to_version", order);
	order->has_effective_at = time_field(request, FIN_REQUEST_EFFECTIVE_AT,
										 "effective_at", &order->effective_at,
										 order);
	order->has_recorded_at = time_field(request, FIN_REQUEST_RECORDED_AT,
										"recorded_at", &order->recorded_at,
										order);
	order->reference = text_field(request, FIN_REQUEST_REFERENCE, "reference",
								  FIN_REFERENCE_LENGTH_MAX, order);
	if (!request->nulls[FIN_REQUEST_METADATA])
	{
		FinFault   *found =
			fin_argument_metadata_fault(request->values[FIN_REQUEST_METADATA]);

		if (found == NULL)
			order->metadata =
				DatumGetJsonbP(request->values[FIN_REQUEST_METADATA]);
		fault(order, found);
	}
	order->linked = bool_field(request, FIN_REQUEST_LINKED);
	if (order->fault == NULL)
		order->request = rest_of_request(request, order);
}

/* ------------------------------------------------------------------------
 * answers
 * ------------------------------------------------------------------------ */

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	values[column] = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
set_id(Datum *values, bool *nulls, int column, int64 id)
{
	nulls[column] = id == 0;
	values[column] = Int64GetDatum(id);
}

static void
set_side(Datum *values, bool *nulls, int column, const FinTransferRow *row,
		 const FinSide *side, const char *code)
{
	set_text(values, nulls, column, code);
	values[column + 1] = Int64GetDatum(side->version);
	nulls[column + 1] = row->rejected;
	values[column + 2] = fin_amount_datum(side->balance_after, row->scale);
	values[column + 3] = fin_amount_datum(side->balance_after - side->held_after,
										  row->scale);
}

void
fin_order_result(const FinOutcome *outcome, Datum *values, bool *nulls)
{
	const FinTransferRow *row = &outcome->row;

	memset(nulls, false, FIN_RESULT_COLUMNS);
	if (outcome->fault != NULL)
	{
		memset(nulls, true, FIN_RESULT_COLUMNS);
		set_text(values, nulls, 1, "failed");
		set_text(values, nulls, 4, outcome->from_code);
		set_text(values, nulls, 8, outcome->to_code);
		return;
	}
	values[0] = Int64GetDatum(row->id);
	set_text(values, nulls, 1, row->status);
	values[2] = fin_amount_datum(row->amount, row->scale);
	set_text(values, nulls, 3, row->currency);
	set_side(values, nulls, 4, row, &row->moved.from, outcome->from_code);
	set_side(values, nulls, 8, row, &row->moved.to, outcome->to_code);
	values[12] = TimestampTzGetDatum(row->recorded_at);
	values[13] = UUIDPGetDatum(&row->trace_id);
	set_text(values, nulls, 14, outcome->rule);
	values[15] = BoolGetDatum(outcome->replayed);
	set_id(values, nulls, 16, row->hold_id);
	nulls[17] = !outcome->has_remaining;
	values[17] = nulls[17] ? (Datum) 0 :
		fin_amount_datum(outcome->remaining, row->scale);
	set_id(values, nulls, 18, row->journal_id);
	set_text(values, nulls, 19, outcome->token);
}

Datum
fin_order_answer(FunctionCallInfo fcinfo, const FinOutcome *outcome)
{
	TupleDesc	tupdesc;
	Datum		values[FIN_RESULT_COLUMNS];
	bool		nulls[FIN_RESULT_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		tupdesc->natts != FIN_RESULT_COLUMNS)
		elog(ERROR, "finance.transfer_result is not as this library expects");
	fin_order_result(outcome, values, nulls);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

Datum
fin_order_execute(FunctionCallInfo fcinfo, const FinOrder *order)
{
	FinOutcome	outcome;

	fin_posting_execute(order, 1, &outcome, FIN_POSTING_RAISE);
	return fin_order_answer(fcinfo, &outcome);
}

void
fin_order_answer_set(FunctionCallInfo fcinfo, const FinOutcome *outcomes, int n)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != FIN_RESULT_COLUMNS)
		elog(ERROR, "finance.transfer_result is not as this library expects");
	for (int i = 0; i < n; i++)
	{
		Datum		values[FIN_RESULT_COLUMNS];
		bool		nulls[FIN_RESULT_COLUMNS];

		/* what a rejected transfer took along is no transfer */
		if (outcomes[i].fault != NULL)
			continue;
		fin_order_result(&outcomes[i], values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

void
fin_order_execute_set(FunctionCallInfo fcinfo, const FinOrder *orders, int n)
{
	FinOutcome *outcomes = MemoryContextAllocHuge(CurrentMemoryContext,
												  sizeof(FinOutcome) * Max(n, 1));

	if (n > 0)
		fin_posting_execute(orders, n, outcomes, FIN_POSTING_RAISE);
	fin_order_answer_set(fcinfo, outcomes, n);
}
