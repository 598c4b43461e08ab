/*
 * meter_totals.c
 *		finance._risk_totals(): what a stored state of totals says.
 *
 * Owns nothing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "meter_parts.h"

#define COLUMNS 9

/* a total with room for whatever is stored */
typedef struct AnyTotal
{
	FinTotal	total;
	char		text[FIN_METER_TEXT_MAX + 1];
	FinTotalEntry entries[FIN_ENTRIES_MAX];
} AnyTotal;

static void
refuse_damaged(void)
{
	ereport(ERROR,
			errcode(ERRCODE_DATA_CORRUPTED),
			errmsg("a state of totals is damaged"));
}

/* what a sliding window has in all, over or not */
static void
sum_entries(FinTotal *total)
{
	total->amount = 0;
	total->count = 0;
	for (int i = 0; i < total->nentries; i++)
	{
		total->amount += total->entries[i].amount;
		total->count += total->entries[i].count;
		total->at = total->entries[i].at;
	}
}

static void
put_row(ReturnSetInfo *result, const FinStoredTotal *stored, FinTotal *total,
		int scale)
{
	bool		is_last = fin_measure_is_last(stored->period);
	bool		is_sliding = stored->period == FIN_PERIOD_SLIDING;
	Datum		values[COLUMNS] = {0};
	bool		nulls[COLUMNS] = {false};

	if (is_sliding)
		sum_entries(total);
	values[0] = Int32GetDatum(stored->measure_id);
	values[1] = CStringGetTextDatum(fin_measure_period_name(stored->period));
	values[2] = Int64GetDatum(total->bucket);
	nulls[2] = is_last || is_sliding || stored->period == FIN_PERIOD_EVER;
	values[3] = Int64GetDatum(total->since_id);
	nulls[3] = total->since_id == 0;
	values[4] = BoolGetDatum(total->seeded);
	nulls[5] = nulls[6] = is_last;
	if (!is_last)
	{
		values[5] = fin_amount_datum(total->amount, scale);
		values[6] = Int64GetDatum(total->count);
	}
	values[7] = TimestampTzGetDatum(total->at);
	nulls[7] = !(is_last ? total->length > 0 : is_sliding && total->nentries > 0);
	nulls[8] = !is_last || total->length == 0;
	if (!nulls[8])
		values[8] = CStringGetTextDatum(total->text);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(finance_risk_totals);

/*
 * finance._risk_totals(state bytea) returns table (measure_id, period, bucket,
 *													since_id, seeded, amount,
 *													count, at, text)
 *
 * The totals of a row of finance.risk_total.  bucket: which hour, day or month
 * they are of; since_id: the first transfer in them; null: none.  seeded: they
 * were read from the history when the measure was new.  amount and count of a
 * sliding window are of all that is kept of it.  at, text: the last device or
 * country.  Error: XX001 it is damaged.  No locks.
 */
Datum
finance_risk_totals(PG_FUNCTION_ARGS)
{
	bytea	   *state = PG_GETARG_BYTEA_PP(0);
	const unsigned char *end = (const unsigned char *) VARDATA_ANY(state) +
		VARSIZE_ANY_EXHDR(state);
	const unsigned char *from;
	FinStoredTotal stored;
	int			scale;
	int64		last_id;

	InitMaterializedSRF(fcinfo, 0);
	from = fin_meter_state_head(state, &scale, &last_id);
	while (from != NULL && from != end)
	{
		AnyTotal	any;

		memset(&any, 0, sizeof(any));
		any.total.text = any.text;
		any.total.entries = any.entries;
		from = fin_measure_next(from, end, &stored);
		if (from == NULL || !fin_measure_decode(&stored, &any.total))
			refuse_damaged();
		put_row((ReturnSetInfo *) fcinfo->resultinfo, &stored, &any.total,
				scale);
	}
	if (from == NULL)
		refuse_damaged();
	return (Datum) 0;
}
