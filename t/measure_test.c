/*
 * measure_test.c
 *		What risk counts against a model of it, a million times.
 *
 * Includes the module itself, which needs nothing of the server but its
 * headers.  The model keeps every transfer and sums them up anew each time.
 * Its clock runs over midnights, ends of months, leap days and the nights in
 * which clocks change, stops, and steps back.
 *
 * Usage: measure_test SEED EVENTS.  Prints how often what came, and exits with
 * 1 at the first difference.
 */
#include "postgres.h"

#include "../src/measure.c"

/* the server has its own, which is not linked here */
#undef printf

#define WORLD_EVENTS	160

/* ------------------------------------------------------------------------
 * chance, and time
 * ------------------------------------------------------------------------ */

static uint64 state;

static uint64
draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int64
below(int64 n)
{
	return (int64) (draw() % (uint64) n);
}

static int
length_of_month(int year, int month)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return lengths[month] + (month == 1 && leap);
}

/* months since that of the epoch, by walking there */
static int
walk_to_month(int date)
{
	int			year = 2000;
	int			month = 0;
	int			n = 0;

	while (date >= length_of_month(year, month))
	{
		date -= length_of_month(year, month);
		n++;
		month = (month + 1) % 12;
		year += month == 0;
	}
	return n;
}

/* local time is an hour ahead from the 90th to the 300th day of a year */
static FinMoment
moment_at(TimestampTz at, bool summer)
{
	FinMoment	moment;
	int64		local = at + 2 * USECS_PER_HOUR;
	int64		day_of_year = at / USECS_PER_DAY % 365;

	if (summer && day_of_year >= 90 && day_of_year < 300)
		local += USECS_PER_HOUR;
	moment.at = at;
	moment.date = (DateADT) (local / USECS_PER_DAY);
	moment.time = local % USECS_PER_DAY;
	return moment;
}

/* ------------------------------------------------------------------------
 * the model
 * ------------------------------------------------------------------------ */

typedef struct Event
{
	int64		id;
	__int128	amount;
	__int128	left;			/* of it, after what was given back */
	bool		counts;
} Event;

typedef struct Counter
{
	FinMeasure	measure;
	FinTotal	total;
	FinTotalEntry entries[FIN_ENTRIES_MAX];
	char		text[FIN_METER_TEXT_MAX + 1];
	int64		places[WORLD_EVENTS];	/* bucket, or time, of each event */
	bool		crowded;		/* merged, at this time */
	int64		crowded_at;
	int64		last;			/* place */
} Counter;

enum
{
	HOUR, DAY, MONTH, EVER, SECOND, MINUTES, HOURS, DAYS, COUNTERS
};

static Counter counters[COUNTERS];
static Event events[WORLD_EVENTS];
static int	nevents;
static long nread, nexact, nmerged, nback, nwhole, nstepped, nrolled;

static void
fail(const char *what, int counter)
{
	printf("event %d, counter %d: %s differs\n", nevents, counter, what);
	exit(1);
}

static bool
is_sliding(int c)
{
	return counters[c].measure.period == FIN_PERIOD_SLIDING;
}

static int64
model_bucket(int c, const FinMoment *moment)
{
	switch (c)
	{
		case HOUR:
			return (moment->date * USECS_PER_DAY + moment->time) / USECS_PER_HOUR;
		case DAY:
			return moment->date;
		case MONTH:
			return walk_to_month(moment->date);
		default:
			return 0;
	}
}

static int64
cell_us(int c)
{
	return (counters[c].measure.span_us + 31) / 32;
}

/* the sum of events placed after 'place', or, of a calendar, at it */
static void
model_sum(int c, int64 place, __int128 *amount, int64 *count)
{
	*amount = 0;
	*count = 0;
	for (int i = 0; i < nevents; i++)
	{
		if (is_sliding(c) ? counters[c].places[i] > place :
			counters[c].places[i] == place)
		{
			*amount += events[i].left;
			*count += events[i].counts;
		}
	}
}

static void
check_calendar(int c, const FinMoment *now, const FinMeasureTotal *read)
{
	int64		bucket = model_bucket(c, now);
	__int128	amount = 0;
	int64		count = 0;

	if (counters[c].last >= bucket)
		model_sum(c, counters[c].last, &amount, &count);
	else
		nrolled++;
	if (read->amount != amount || read->count != count)
		fail("sum", c);
}

static void
check_sliding(int c, const FinMoment *now, const FinMeasureTotal *read)
{
	Counter    *counter = &counters[c];
	int64		span = counter->measure.span_us;
	int64		latest = Max(counter->last, now->at);
	__int128	least;
	__int128	most;
	int64		least_count;
	int64		most_count;

	model_sum(c, latest - span, &least, &least_count);
	model_sum(c, now->at - span - cell_us(c), &most, &most_count);
	if (read->amount < least || read->count < least_count)
		fail("what is in the window", c);
	if (read->amount > most || read->count > most_count)
		fail("what is no longer in the window", c);
	if (counter->crowded && counter->crowded_at <= now->at - span - cell_us(c))
		counter->crowded = false;
	if (latest == now->at && !counter->crowded)
	{
		nexact++;
		if (read->amount != least || read->count != least_count)
			fail("an exact window", c);
	}
}

static void
check(const FinMoment *now)
{
	for (int c = 0; c < COUNTERS; c++)
	{
		FinMeasureTotal read;

		fin_measure_read(&counters[c].total, &counters[c].measure, now, &read);
		nread++;
		if (is_sliding(c))
			check_sliding(c, now, &read);
		else
			check_calendar(c, now, &read);
	}
}

/* ------------------------------------------------------------------------
 * the world
 * ------------------------------------------------------------------------ */

static void
begin_counter(int c, FinPeriod period, int64 span_us, const FinMoment *now)
{
	Counter    *counter = &counters[c];

	memset(counter, 0, sizeof(Counter));
	counter->measure.measure_id = 1 + (int32) below(1 + below(PG_INT32_MAX));
	counter->measure.period = period;
	counter->measure.span_us = span_us;
	counter->total.entries = counter->entries;
	counter->total.text = counter->text;
	fin_measure_begin(&counter->total, &counter->measure, now);
	/* time does not run back behind this */
	counter->last = is_sliding(c) ? PG_INT64_MIN : model_bucket(c, now);
}

static void
begin_world(const FinMoment *now)
{
	nevents = 0;
	begin_counter(HOUR, FIN_PERIOD_HOUR, 0, now);
	begin_counter(DAY, FIN_PERIOD_DAY, 0, now);
	begin_counter(MONTH, FIN_PERIOD_MONTH, 0, now);
	begin_counter(EVER, FIN_PERIOD_EVER, 0, now);
	begin_counter(SECOND, FIN_PERIOD_SLIDING, 1 + below(USECS_PER_SEC), now);
	begin_counter(MINUTES, FIN_PERIOD_SLIDING, 1 + below(3600) * USECS_PER_SEC, now);
	begin_counter(HOURS, FIN_PERIOD_SLIDING, USECS_PER_DAY, now);
	begin_counter(DAYS, FIN_PERIOD_SLIDING, 30 * USECS_PER_DAY, now);
}

static __int128
draw_amount(void)
{
	switch (below(4))
	{
		case 0:
			return 1 + below(100);
		case 1:
			return ((__int128) below(PG_INT64_MAX) << below(50)) + 1;
		default:
			return 1 + below(1000000);
	}
}

static void
count_event(const FinMoment *now, int64 id)
{
	Event	   *event = &events[nevents];

	event->id = id;
	event->amount = event->left = draw_amount();
	event->counts = true;
	for (int c = 0; c < COUNTERS; c++)
	{
		Counter    *counter = &counters[c];
		int64		place = is_sliding(c) ? now->at : model_bucket(c, now);
		int			live = 0;

		place = Max(place, counter->last);
		counter->places[nevents] = counter->last = place;
		/* those given back may make room: then nothing is merged, or is it? */
		for (int i = 0; is_sliding(c) && i < nevents; i++)
			live += counter->places[i] > place - counter->measure.span_us;
		if (live >= FIN_ENTRIES_MAX)
		{
			nmerged++;
			counter->crowded = true;
			counter->crowded_at = place;
		}
		fin_measure_count(&counter->total, &counter->measure, id, now,
						  event->amount);
	}
	nevents++;
}

/* one of the last transfers was a hold */
static void
give_back(void)
{
	Event	   *event = &events[nevents - 1 - below(Min(nevents, 60))];
	__int128	amount;

	if (event->left == 0)
		return;
	amount = below(2) == 0 ? event->left : 1 + (__int128) below(PG_INT64_MAX) % event->left;
	event->left -= amount;
	nback++;
	if (event->left == 0)
	{
		event->counts = false;
		nwhole++;
	}
	for (int c = 0; c < COUNTERS; c++)
		fin_measure_give_back(&counters[c].total, &counters[c].measure,
							  event->id, amount, !event->counts);
}

/* stored and read again it is the same */
static void
store(int c)
{
	Counter    *counter = &counters[c];
	unsigned char first[FIN_TOTAL_SIZE_MAX];
	unsigned char second[FIN_TOTAL_SIZE_MAX];
	int			length = fin_measure_encode(&counter->total, &counter->measure,
											first);
	FinStoredTotal stored;

	memset(counter->entries, 0x55, sizeof(counter->entries));
	memset(&counter->total, 0x55, sizeof(FinTotal));
	counter->total.entries = counter->entries;
	counter->total.text = counter->text;
	if (length > FIN_TOTAL_SIZE_MAX ||
		fin_measure_next(first, first + length, &stored) != first + length ||
		stored.measure_id != counter->measure.measure_id ||
		stored.period != counter->measure.period ||
		!fin_measure_decode(&stored, &counter->total))
		fail("what was stored", c);
	if (fin_measure_encode(&counter->total, &counter->measure, second) != length ||
		memcmp(first, second, length) != 0)
		fail("what was stored twice", c);
	/* what is cut off, or changed, is told or read, but read within bounds */
	for (int cut = 0; cut < length; cut++)
	{
		FinTotal	total = {0};
		FinTotalEntry entries[FIN_ENTRIES_MAX];
		char		text[FIN_METER_TEXT_MAX + 1];
		unsigned char *piece;

		if (below(20) != 0)
			continue;
		piece = malloc(cut + 1);
		memcpy(piece, first, cut);
		total.entries = entries;
		total.text = text;
		if (fin_measure_next(piece, piece + cut, &stored) != NULL)
			fail("a part of what was stored", c);
		piece[0] = first[0];
		memcpy(second, first, length);
		second[cut] ^= 1 << below(8);
		if (fin_measure_next(second, second + length, &stored) != NULL)
			(void) fin_measure_decode(&stored, &total);
		free(piece);
	}
}

static int64
draw_step(void)
{
	switch (below(12))
	{
		case 0:
			return 0;
		case 1:
			return below(1000);
		case 2:
			return below(40 * USECS_PER_DAY);
		case 3:
			return below(30 * USECS_PER_HOUR);
		case 4:
		case 5:
			return below(USECS_PER_HOUR);
		case 6:
			nstepped++;
			return -below(1 + below(40 * USECS_PER_DAY));
		case 7:
			nstepped++;
			return -below(90 * USECS_PER_MINUTE);
		default:
			return below(60 * USECS_PER_SEC);
	}
}

static void
check_last(void)
{
	Counter		last;

	memset(&last, 0, sizeof(last));
	last.measure.measure_id = 7;
	last.measure.period = FIN_PERIOD_LAST_DEVICE;
	last.total.text = last.text;
	fin_measure_set_last(&last.total, 10, 1000, "one");
	fin_measure_set_last(&last.total, 9, 900, "earlier");
	if (strcmp(last.text, "one") != 0 || last.total.at != 1000)
		fail("the last device", 0);
	counters[0] = last;
	counters[0].total.text = counters[0].text;
	store(0);
	if (strcmp(counters[0].text, "one") != 0 || counters[0].total.at != 1000)
		fail("the last device as it was stored", 0);
}

int
main(int argc, char **argv)
{
	long		total = atol(argv[2]);
	TimestampTz at = 0;
	int64		id = 0;
	bool		summer = false;

	state = strtoull(argv[1], NULL, 10) * UINT64CONST(0x9E3779B97F4A7C15) + 1;
	check_last();
	/* each day of four centuries has its month */
	for (int date = 0; date < 146097; date++)
	{
		FinMoment	moment = {0, date, 0};
		static int64 first;

		if (date == 0)
			first = fin_measure_bucket(FIN_PERIOD_MONTH, &moment);
		if (date % 17 == 0 &&
			fin_measure_bucket(FIN_PERIOD_MONTH, &moment) - first != walk_to_month(date))
			fail("month", date);
	}
	for (long n = 0; n < total; n++)
	{
		FinMoment	now;

		if (n % WORLD_EVENTS == 0)
		{
			at = 8000 * USECS_PER_DAY + below(2000 * USECS_PER_DAY);
			summer = below(2) == 0;
			id = below(PG_INT64_MAX / 4);
			now = moment_at(at, summer);
			begin_world(&now);
		}
		at += draw_step();
		/* dense crowds now and then */
		if (n % WORLD_EVENTS >= 80 && below(3) != 0)
			at += below(30000);
		now = moment_at(at, summer);
		check(&now);
		id += 1 + below(1 + below(INT64CONST(1) << 40));
		if (nevents < WORLD_EVENTS)
			count_event(&now, id);
		check(&now);
		if (below(4) == 0)
		{
			give_back();
			check(&now);
		}
		if (below(16) == 0)
			store((int) below(COUNTERS));
	}
	printf("read %ld\nexact %ld\nmerged %ld\ngiven_back %ld\nwhole %ld\nstepped %ld\nrolled %ld\n",
		   nread, nexact, nmerged, nback, nwhole, nstepped, nrolled);
	return 0;
}
