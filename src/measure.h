/*
 * measure.h
 *		What risk counts of the transfers of one key; pure.
 *
 * A measure is a scope (whose transfers), a period (over what time) and,
 * perhaps, a band of amounts.  A total is what one measure has come to for one
 * key: an account, a pair of accounts, a type ...  No SQL, no clock, no
 * globals; memory is the caller's: a test can call it a million times.
 *
 * The transfers of one key are counted in the order of their ids, and a total
 * knows from which id on it counts.  So what a hold gives back is taken from
 * the windows it was counted in, and what a total says can be compared with the
 * history, whatever the clock did meanwhile.
 */
#ifndef FIN_MEASURE_H
#define FIN_MEASURE_H

#include "datatype/timestamp.h"
#include "utils/date.h"

#include "amount.h"

#define FIN_MEASURES_MAX		1024	/* of one tenant */
#define FIN_METER_TEXT_MAX		128		/* bytes of a device or country */

/* of a sliding window: exact up to so many transfers in it */
#define FIN_ENTRIES_MAX			34
#define FIN_CELLS				32		/* and later, of this part of the span */

/* bytes of one total as it is stored, at most */
#define FIN_TOTAL_SIZE_MAX		(64 + FIN_ENTRIES_MAX * 52 + FIN_METER_TEXT_MAX)

/* whose transfers */
typedef enum FinScope
{
	FIN_SCOPE_ACCOUNT,			/* what the payer pays */
	FIN_SCOPE_COUNTERPARTY,		/* what the payee gets */
	FIN_SCOPE_PAIR,				/* what this payer pays this payee */
	FIN_SCOPE_ACCOUNT_TYPE,		/* what the payer pays in one type */
	FIN_SCOPE_TYPE,				/* what the tenant's accounts of one currency
								 * pay in one type */
	FIN_SCOPE_DEVICE			/* what the payer pays from one device */
} FinScope;

#define FIN_SCOPES	(FIN_SCOPE_DEVICE + 1)

/* over what time; the first three in the tenant's local time */
typedef enum FinPeriod
{
	FIN_PERIOD_HOUR,
	FIN_PERIOD_DAY,
	FIN_PERIOD_MONTH,
	FIN_PERIOD_SLIDING,			/* of a span */
	FIN_PERIOD_EVER,
	FIN_PERIOD_LAST_DEVICE,		/* not a sum: the last one, and when */
	FIN_PERIOD_LAST_COUNTRY
} FinPeriod;

#define FIN_PERIODS	(FIN_PERIOD_LAST_COUNTRY + 1)

typedef struct FinMeasure
{
	int32		measure_id;		/* never used again for another one */
	FinScope	scope;
	FinPeriod	period;
	int64		span_us;		/* sliding */
	bool		banded;			/* counts amounts of [band_min, band_max) only */
	Numeric		band_min;		/* NULL: from 0 */
	Numeric		band_max;		/* NULL: without end */
} FinMeasure;

/* a time, and what the clock on the tenant's wall shows then */
typedef struct FinMoment
{
	TimestampTz at;
	DateADT		date;
	TimeADT		time;
} FinMoment;

/* what passed in the window */
typedef struct FinMeasureTotal
{
	FinAmount	amount;
	int64		count;
} FinMeasureTotal;

/* transfers of a sliding window: one, or those of one cell */
typedef struct FinTotalEntry
{
	FinAmount	amount;
	int64		count;
	TimestampTz at;				/* of the last of them */
	int64		last_id;
} FinTotalEntry;

typedef struct FinTotal
{
	bool		known;			/* was read, or summed up from the history */
	bool		seeded;			/* its bucket was summed up from the history */
	int64		bucket;			/* calendar: which hour, day or month */
	int64		since_id;		/* it counts transfers from this one on; 0: none
								 * yet.  Of the last device: the one it is of */
	FinAmount	amount;			/* calendar, ever */
	int64		count;
	TimestampTz at;				/* of the last device or country */
	int			length;			/* of its text; 0: there was none */
	char	   *text;			/* room for FIN_METER_TEXT_MAX + 1 */
	int			nentries;		/* sliding, ascending by id and by time */
	FinTotalEntry *entries;		/* room for FIN_ENTRIES_MAX */
} FinTotal;

/* a stored total before it is known whose it is */
typedef struct FinStoredTotal
{
	int32		measure_id;
	FinPeriod	period;
	const unsigned char *body;
	const unsigned char *end;
} FinStoredTotal;

static inline bool
fin_measure_is_last(FinPeriod period)
{
	return period == FIN_PERIOD_LAST_DEVICE ||
		period == FIN_PERIOD_LAST_COUNTRY;
}

/* names as SQL has them: 'account', 'day' ...; false when there is none such */
extern const char *fin_measure_scope_name(FinScope scope);
extern const char *fin_measure_period_name(FinPeriod period);
extern bool fin_measure_parse_scope(const char *name, FinScope *scope);
extern bool fin_measure_parse_period(const char *name, FinPeriod *period);

/* the hour, day or month of a moment; one number for the other periods */
extern int64 fin_measure_bucket(FinPeriod period, const FinMoment *moment);

/* a total of nothing, summed up from the history at the moment */
extern void fin_measure_begin(FinTotal *total, const FinMeasure *measure,
							  const FinMoment *moment);

/*
 * Counts a transfer, whose id is above those of all before.  One that is not,
 * of imported history, counts where its window is still open.  A moment before
 * that of the last one counts as that: clocks step back.
 */
extern void fin_measure_count(FinTotal *total, const FinMeasure *measure,
							  int64 id, const FinMoment *moment,
							  FinAmount amount);

/* the device or country of a transfer */
extern void fin_measure_set_last(FinTotal *total, int64 id, TimestampTz at,
								 const char *text);

/*
 * Takes back so much of what a hold counted, where its window is still open.
 * whole: nothing of it was captured, so that it was no transfer at all.
 */
extern void fin_measure_give_back(FinTotal *total, const FinMeasure *measure,
								  int64 hold_id, FinAmount amount, bool whole);

/* what is in the window at the moment */
extern void fin_measure_read(const FinTotal *total, const FinMeasure *measure,
							 const FinMoment *moment, FinMeasureTotal *sum);

/* writes at most FIN_TOTAL_SIZE_MAX bytes and returns how many */
extern int	fin_measure_encode(const FinTotal *total,
							   const FinMeasure *measure, unsigned char *to);

/* the stored total there, and where the next one is; NULL: damaged */
extern const unsigned char *fin_measure_next(const unsigned char *from,
											 const unsigned char *end,
											 FinStoredTotal *stored);

/* into a total with room for its period; false: damaged */
extern bool fin_measure_decode(const FinStoredTotal *stored, FinTotal *total);

/* numbers of any size as bytes, the small ones in few; as the totals are */
extern unsigned char *fin_measure_put(unsigned char *to, uint64 number);
extern const unsigned char *fin_measure_get(const unsigned char *from,
											const unsigned char *end,
											uint64 *number);

#endif							/* FIN_MEASURE_H */
