/*
 * meter.h
 *		What passed so far, by account, payee, pair, type and device: the totals
 *		that rules and expressions look at.
 *
 * A tenant's measures are the rows of finance.risk_measure, which publishing a
 * ruleset writes; their totals are rows of finance.risk_total, one for each
 * key, which holds the totals of all measures of that key.
 *
 * A meter is what one posting knows of them.  It is read under the accounts'
 * locks, counted in memory, and written once.
 */
#ifndef FIN_METER_H
#define FIN_METER_H

#include "utils/jsonb.h"

#include "measure.h"

typedef struct FinMeter FinMeter;

/* a transfer, or a hold, as it is counted */
typedef struct FinMeterEvent
{
	int64		id;				/* of the transfer; rising for each account */
	int64		from_id;
	int64		to_id;
	int			scale;			/* of the accounts' currency */
	FinAmount	amount;
	const char *type;
	const char *currency;
	const char *device;			/* or NULL */
	const char *country;		/* or NULL */
	FinMoment	moment;
} FinMeterEvent;

/*
 * The tenant's measures, by measure_id; NULL and *n = 0 when there are none.
 * Good until the next call, or until a trigger may have run; a meter has its
 * own.  Call inside fin_query_begin/end, with invalidations read.
 */
extern const FinMeasure *fin_meter_measures(int32 tenant_id, int *n);

/*
 * A meter in the current memory context, which counts and is written.  Its
 * measures are copied; their indexes are those of the array.
 */
extern FinMeter *fin_meter_open(int32 tenant_id, const FinMeasure *measures,
								int n);

/* one that is only read: locks nothing, is never written */
extern FinMeter *fin_meter_open_reading(int32 tenant_id,
										const FinMeasure *measures, int n);

/*
 * One that knows only what was counted with it, for back-tests.  Error: 53400
 * its totals need more memory than that.
 */
extern FinMeter *fin_meter_open_detached(const FinMeasure *measures, int n,
										 Size memory_max);

extern void fin_meter_close(FinMeter *meter);

/* the index of a measure; -1: the meter does not have it */
extern int	fin_meter_find(const FinMeter *meter, int32 measure_id);

/* has it a measure of this scope? */
extern bool fin_meter_has_scope(const FinMeter *meter, FinScope scope);

/* device and country of a request or a transfer; texts in the current context */
extern void fin_meter_take_texts(FinMeterEvent *event, Jsonb *metadata);

/*
 * Reads the totals of these events' keys, from_id 0: none, and locks those that
 * no account's lock covers, in ascending order of keys.  Call once, under the
 * accounts' locks, before ids are drawn: these must be above fin_meter_last_id().
 */
extern void fin_meter_prefetch(FinMeter *meter, const FinMeterEvent *events,
							   int n);
extern int64 fin_meter_last_id(const FinMeter *meter);

/* what passed in the window that is open at the event's moment, before it */
extern void fin_meter_read(FinMeter *meter, int measure,
						   const FinMeterEvent *event, FinMeasureTotal *total);

/*
 * The payer's last device or country, when, and of which transfer; NULL: there
 * was none.
 */
extern const char *fin_meter_last(FinMeter *meter, int measure,
								  const FinMeterEvent *event, TimestampTz *at,
								  int64 *transfer_id);

/* a transfer or hold passed: into all measures */
extern void fin_meter_count(FinMeter *meter, const FinMeterEvent *event);

/*
 * Nothing will be counted, only given back: of a key without a row the history
 * tells it, whenever that is summed up.  Until then it need not be, which, while
 * a dump is being restored, could not be done yet.
 */
extern void fin_meter_only_gives_back(FinMeter *meter);

/*
 * So much of a hold is given back; the event is the hold's, with the whole of
 * what was held.  all: it ended and nothing of it was captured.
 */
extern void fin_meter_give_back(FinMeter *meter, const FinMeterEvent *hold,
								FinAmount amount, bool all);

/* what is counted from here on may be undone, unless !undoable */
extern void fin_meter_mark(FinMeter *meter, bool undoable);
extern void fin_meter_undo(FinMeter *meter);

/* as if nothing had been counted */
extern void fin_meter_reset(FinMeter *meter);

/* into finance.risk_total; before the rows that tell of it */
extern void fin_meter_write(FinMeter *meter);

/*
 * The worker's chore: deletes totals of pairs and devices in which every window
 * is over, once a day.  sweep: look at the next round.  See expire.h.
 */
extern void fin_meter_tidy_sweep(void);
extern TimestampTz fin_meter_tidy_due(TimestampTz now);
extern void fin_meter_tidy_run(TimestampTz now);
extern void fin_meter_tidy_committed(TimestampTz now);

extern void fin_meter_init(void);

#endif							/* FIN_METER_H */
