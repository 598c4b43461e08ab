/*
 * measure.c
 *		What risk counts of the transfers of one key; pure (see measure.h).
 *
 * A sliding window is kept as entries of a transfer each.  When there is no
 * room for another one, those of one cell, a 32nd of the span, become one entry
 * with the time of its last: a window touches 33 cells at most, so there is
 * room then.  What is counted may so stay in the window up to a cell longer,
 * never shorter: a limit holds in every window of the span.
 */
#include "postgres.h"

#include "measure.h"

static const char *const scope_names[FIN_SCOPES] = {
	[FIN_SCOPE_ACCOUNT] = "account",
	[FIN_SCOPE_COUNTERPARTY] = "counterparty",
	[FIN_SCOPE_PAIR] = "pair",
	[FIN_SCOPE_ACCOUNT_TYPE] = "account_type",
	[FIN_SCOPE_TYPE] = "type",
	[FIN_SCOPE_DEVICE] = "device",
};

static const char *const period_names[FIN_PERIODS] = {
	[FIN_PERIOD_HOUR] = "hour",
	[FIN_PERIOD_DAY] = "day",
	[FIN_PERIOD_MONTH] = "month",
	[FIN_PERIOD_SLIDING] = "sliding",
	[FIN_PERIOD_EVER] = "ever",
	[FIN_PERIOD_LAST_DEVICE] = "last_device",
	[FIN_PERIOD_LAST_COUNTRY] = "last_country",
};

const char *
fin_measure_scope_name(FinScope scope)
{
	return scope_names[scope];
}

const char *
fin_measure_period_name(FinPeriod period)
{
	return period_names[period];
}

static int
find_name(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

bool
fin_measure_parse_scope(const char *name, FinScope *scope)
{
	int			found = find_name(scope_names, FIN_SCOPES, name);

	if (found >= 0)
		*scope = (FinScope) found;
	return found >= 0;
}

bool
fin_measure_parse_period(const char *name, FinPeriod *period)
{
	int			found = find_name(period_names, FIN_PERIODS, name);

	if (found >= 0)
		*period = (FinPeriod) found;
	return found >= 0;
}

/* sums of one account fit, those of many may not: then it is as much as fits */
static FinAmount
add(FinAmount a, FinAmount b)
{
	FinAmount	sum;

	return fin_amount_add(a, b, &sum) ? sum : FIN_AMOUNT_MAX;
}

/* ------------------------------------------------------------------------
 * calendar
 * ------------------------------------------------------------------------ */

/* months since March of the year 0, before which there is no leap day */
static int64
month_of(DateADT date)
{
	/* days since 0000-03-01, in eras of 400 years */
	int64		days = (int64) date + 730425;
	int64		era = (days >= 0 ? days : days - 146096) / 146097;
	int64		day = days - era * 146097;
	int64		year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	int64		day_of_year = day - (365 * year + year / 4 - year / 100);

	/* March is month 0 */
	return (era * 400 + year) * 12 + (5 * day_of_year + 2) / 153;
}

int64
fin_measure_bucket(FinPeriod period, const FinMoment *moment)
{
	switch (period)
	{
		case FIN_PERIOD_HOUR:
			return (int64) moment->date * 24 + moment->time / USECS_PER_HOUR;
		case FIN_PERIOD_DAY:
			return moment->date;
		case FIN_PERIOD_MONTH:
			return month_of(moment->date);
		default:
			return 0;
	}
}

void
fin_measure_begin(FinTotal *total, const FinMeasure *measure,
				  const FinMoment *moment)
{
	total->known = true;
	total->seeded = true;
	total->bucket = fin_measure_bucket(measure->period, moment);
	total->since_id = 0;
	total->amount = 0;
	total->count = 0;
	total->at = 0;
	total->length = 0;
	total->nentries = 0;
}

static void
count_in_bucket(FinTotal *total, int64 bucket, int64 id, FinAmount amount)
{
	if (bucket > total->bucket)
	{
		total->bucket = bucket;
		total->seeded = false;
		total->since_id = 0;
		total->amount = 0;
		total->count = 0;
	}
	if (total->since_id == 0)
		total->since_id = id;
	if (id < total->since_id)
	{
		/* imported: of a time before this bucket, or the first of it? */
		if (bucket < total->bucket)
			return;
		total->since_id = id;
	}
	total->amount = add(total->amount, amount);
	total->count++;
}

/* ------------------------------------------------------------------------
 * sliding
 * ------------------------------------------------------------------------ */

static void
remove_entries(FinTotal *total, int from, int n)
{
	memmove(&total->entries[from], &total->entries[from + n],
			sizeof(FinTotalEntry) * (total->nentries - from - n));
	total->nentries -= n;
}

/* those that no window from this time on has in it */
static void
drop_over(FinTotal *total, TimestampTz now, int64 span_us)
{
	int			n = 0;

	while (n < total->nentries && total->entries[n].at <= now - span_us)
		n++;
	if (n == 0)
		return;
	total->since_id = total->entries[n - 1].last_id + 1;
	remove_entries(total, 0, n);
	if (total->nentries == 0)
		total->seeded = false;
}

static int64
cell_of(TimestampTz at, int64 span_us)
{
	int64		cell_us = (span_us + FIN_CELLS - 1) / FIN_CELLS;

	return at >= 0 ? at / cell_us : -1 - (-1 - at) / cell_us;
}

static void
merge_cells(FinTotal *total, int64 span_us)
{
	int			kept = 0;

	for (int i = 1; i < total->nentries; i++)
	{
		FinTotalEntry *last = &total->entries[kept];
		FinTotalEntry *entry = &total->entries[i];

		if (cell_of(last->at, span_us) != cell_of(entry->at, span_us))
		{
			total->entries[++kept] = *entry;
			continue;
		}
		last->amount = add(last->amount, entry->amount);
		last->count += entry->count;
		last->at = entry->at;
		last->last_id = entry->last_id;
	}
	total->nentries = kept + 1;
}

/* where in the order of ids; that of imported history may be before the end */
static int
position_of(const FinTotal *total, int64 id)
{
	int			position = total->nentries;

	while (position > 0 && total->entries[position - 1].last_id > id)
		position--;
	return position;
}

static void
count_sliding(FinTotal *total, int64 span_us, int64 id, TimestampTz at,
			  FinAmount amount)
{
	TimestampTz latest = at;
	int			position;
	FinTotalEntry *entry;

	if (total->nentries > 0)
		latest = Max(at, total->entries[total->nentries - 1].at);
	drop_over(total, latest, span_us);
	if (total->nentries == 0)
		total->since_id = Max(total->since_id, id);
	if (id < total->since_id)
		return;					/* imported, and over already */
	if (total->nentries == FIN_ENTRIES_MAX)
		merge_cells(total, span_us);
	position = position_of(total, id);
	/* times run on as ids do, also when the clock steps back */
	if (position < total->nentries)
		at = Min(at, total->entries[position].at);
	if (position > 0)
		at = Max(at, total->entries[position - 1].at);
	entry = &total->entries[position];
	memmove(entry + 1, entry,
			sizeof(FinTotalEntry) * (total->nentries - position));
	total->nentries++;
	entry->amount = amount;
	entry->count = 1;
	entry->at = at;
	entry->last_id = id;
}

static void
give_back_sliding(FinTotal *total, int64 hold_id, FinAmount amount, bool whole)
{
	for (int i = 0; i < total->nentries; i++)
	{
		FinTotalEntry *entry = &total->entries[i];

		if (entry->last_id < hold_id)
			continue;
		entry->amount -= Min(entry->amount, amount);
		if (whole && entry->count > 0)
			entry->count--;
		/* the last one stays: it tells the time behind which none runs back */
		if (entry->count == 0 && entry->amount == 0 &&
			i < total->nentries - 1)
			remove_entries(total, i, 1);
		return;
	}
}

/* ------------------------------------------------------------------------
 * all of them
 * ------------------------------------------------------------------------ */

void
fin_measure_count(FinTotal *total, const FinMeasure *measure, int64 id,
				  const FinMoment *moment, FinAmount amount)
{
	if (measure->period == FIN_PERIOD_SLIDING)
		count_sliding(total, measure->span_us, id, moment->at, amount);
	else
		count_in_bucket(total, fin_measure_bucket(measure->period, moment), id,
						amount);
}

void
fin_measure_set_last(FinTotal *total, int64 id, TimestampTz at,
					 const char *text)
{
	/* imported: there is a later one */
	if (total->length > 0 && id < total->since_id)
		return;
	total->since_id = id;
	total->at = at;
	total->length = Min(strlen(text), FIN_METER_TEXT_MAX);
	memcpy(total->text, text, total->length);
	total->text[total->length] = '\0';
}

void
fin_measure_give_back(FinTotal *total, const FinMeasure *measure,
					  int64 hold_id, FinAmount amount, bool whole)
{
	if (total->since_id == 0 || hold_id < total->since_id)
		return;
	if (measure->period == FIN_PERIOD_SLIDING)
	{
		give_back_sliding(total, hold_id, amount, whole);
		return;
	}
	total->amount -= Min(total->amount, amount);
	if (whole && total->count > 0)
		total->count--;
}

void
fin_measure_read(const FinTotal *total, const FinMeasure *measure,
				 const FinMoment *moment, FinMeasureTotal *sum)
{
	sum->amount = 0;
	sum->count = 0;
	if (measure->period == FIN_PERIOD_SLIDING)
	{
		for (int i = total->nentries - 1; i >= 0; i--)
		{
			if (total->entries[i].at <= moment->at - measure->span_us)
				break;
			sum->amount = add(sum->amount, total->entries[i].amount);
			sum->count += total->entries[i].count;
		}
	}
	else if (total->bucket >= fin_measure_bucket(measure->period, moment))
	{
		sum->amount = total->amount;
		sum->count = total->count;
	}
}

/* ------------------------------------------------------------------------
 * as bytes
 * ------------------------------------------------------------------------ */

/*
 * Seven bits a byte, low ones first; the last byte is below 128.  Inline, since
 * a window of one account is a hundred numbers, read and written each time.
 */
static inline unsigned char *
put_number(unsigned char *to, uint64 number)
{
	while (number >= 128)
	{
		*to++ = (unsigned char) (number | 128);
		number >>= 7;
	}
	*to++ = (unsigned char) number;
	return to;
}

static inline const unsigned char *
get_number(const unsigned char *from, const unsigned char *end, uint64 *number)
{
	*number = 0;
	for (int shift = 0; from != NULL && from < end && shift < 64; shift += 7)
	{
		unsigned char byte = *from++;

		*number |= (uint64) (byte & 127) << shift;
		if (byte < 128)
			return from;
	}
	return NULL;
}

unsigned char *
fin_measure_put(unsigned char *to, uint64 number)
{
	return put_number(to, number);
}

const unsigned char *
fin_measure_get(const unsigned char *from, const unsigned char *end,
				uint64 *number)
{
	return get_number(from, end, number);
}

/* numbers that may be negative: small ones of either sign in few bytes */
static unsigned char *
put_signed(unsigned char *to, int64 number)
{
	return put_number(to, ((uint64) number << 1) ^
						   (number < 0 ? ~UINT64CONST(0) : 0));
}

static const unsigned char *
get_signed(const unsigned char *from, const unsigned char *end, int64 *number)
{
	uint64		bits;

	from = get_number(from, end, &bits);
	*number = (int64) ((bits >> 1) ^ (~(bits & 1) + 1));
	return from;
}

/* amounts are not negative; above 63 bits: in two parts */
static unsigned char *
put_amount(unsigned char *to, FinAmount amount)
{
	uint64		high = (uint64) (amount >> 63);

	to = put_number(to, ((uint64) amount & PG_INT64_MAX) << 1 | (high != 0));
	return high != 0 ? put_number(to, high) : to;
}

static const unsigned char *
get_amount(const unsigned char *from, const unsigned char *end,
		   FinAmount *amount)
{
	uint64		low;
	uint64		high = 0;

	from = get_number(from, end, &low);
	if ((low & 1) != 0)
		from = get_number(from, end, &high);
	*amount = (FinAmount) (low >> 1);
	if (high > (uint64) PG_INT64_MAX)
		return NULL;
	*amount |= (FinAmount) high << 63;
	return from;
}

static unsigned char *
put_entries(unsigned char *to, const FinTotal *total)
{
	TimestampTz at = 0;
	int64		id = 0;

	to = put_number(to, total->nentries);
	for (int i = 0; i < total->nentries; i++)
	{
		const FinTotalEntry *entry = &total->entries[i];

		to = put_signed(to, entry->at - at);
		to = put_signed(to, entry->last_id - id);
		to = put_number(to, entry->count);
		to = put_amount(to, entry->amount);
		at = entry->at;
		id = entry->last_id;
	}
	return to;
}

static const unsigned char *
get_entries(const unsigned char *from, const unsigned char *end,
			FinTotal *total)
{
	TimestampTz at = 0;
	int64		id = 0;
	uint64		n;

	from = get_number(from, end, &n);
	if (from == NULL || n > FIN_ENTRIES_MAX)
		return NULL;
	for (uint64 i = 0; i < n; i++)
	{
		FinTotalEntry *entry = &total->entries[i];
		int64		difference;
		uint64		count;

		from = get_signed(from, end, &difference);
		at = (int64) ((uint64) at + (uint64) difference);
		from = get_signed(from, end, &difference);
		id = (int64) ((uint64) id + (uint64) difference);
		from = get_number(from, end, &count);
		from = get_amount(from, end, &entry->amount);
		entry->at = at;
		entry->last_id = id;
		entry->count = (int64) count;
	}
	total->nentries = (int) n;
	return from;
}

static unsigned char *
put_body(unsigned char *to, const FinTotal *total, FinPeriod period)
{
	to = put_number(to, (uint64) total->since_id << 1 | total->seeded);
	if (period == FIN_PERIOD_SLIDING)
		return put_entries(to, total);
	if (fin_measure_is_last(period))
	{
		to = put_signed(to, total->at);
		to = put_number(to, total->length);
		memcpy(to, total->text, total->length);
		return to + total->length;
	}
	to = put_signed(to, total->bucket);
	to = put_number(to, total->count);
	return put_amount(to, total->amount);
}

static const unsigned char *
get_text(const unsigned char *from, const unsigned char *end, FinTotal *total)
{
	uint64		length;

	from = get_signed(from, end, &total->at);
	from = get_number(from, end, &length);
	if (from == NULL || length > FIN_METER_TEXT_MAX ||
		length > (uint64) (end - from))
		return NULL;
	total->length = (int) length;
	memcpy(total->text, from, length);
	total->text[length] = '\0';
	return from + length;
}

int
fin_measure_encode(const FinTotal *total, const FinMeasure *measure,
				   unsigned char *to)
{
	unsigned char body[FIN_TOTAL_SIZE_MAX];
	unsigned char *start = to;
	Size		length = put_body(body, total, measure->period) - body;

	to = put_number(to, (uint32) measure->measure_id);
	to = put_number(to, measure->period);
	to = put_number(to, length);
	memcpy(to, body, length);
	return (int) (to + length - start);
}

const unsigned char *
fin_measure_next(const unsigned char *from, const unsigned char *end,
				 FinStoredTotal *stored)
{
	uint64		measure_id;
	uint64		period;
	uint64		length;

	from = get_number(from, end, &measure_id);
	from = get_number(from, end, &period);
	from = get_number(from, end, &length);
	if (from == NULL || measure_id > PG_UINT32_MAX || period >= FIN_PERIODS ||
		length > (uint64) (end - from))
		return NULL;
	stored->measure_id = (int32) measure_id;
	stored->period = (FinPeriod) period;
	stored->body = from;
	stored->end = from + length;
	return stored->end;
}

bool
fin_measure_decode(const FinStoredTotal *stored, FinTotal *total)
{
	const unsigned char *from = stored->body;
	uint64		since;
	uint64		count = 0;

	from = get_number(from, stored->end, &since);
	total->since_id = (int64) (since >> 1);
	total->seeded = (since & 1) != 0;
	if (stored->period == FIN_PERIOD_SLIDING)
		from = get_entries(from, stored->end, total);
	else if (fin_measure_is_last(stored->period))
		from = get_text(from, stored->end, total);
	else
	{
		from = get_signed(from, stored->end, &total->bucket);
		from = get_number(from, stored->end, &count);
		from = get_amount(from, stored->end, &total->amount);
		total->count = (int64) count;
	}
	total->known = true;
	return from == stored->end;
}
