/*
 * half_parts.h
 *		What the parts of the half module share; included by half*.c only.
 *
 * half.c prepares, commits and rolls back, half_group.c keeps the producer
 * groups, half_check.c asks about what was left open, half_chore.c is the
 * worker's part of that.
 */
#ifndef FIN_HALF_PARTS_H
#define FIN_HALF_PARTS_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/timestamp.h"

/* half messages looked at in one transaction of the worker */
#define FIN_HALF_BATCH			500

/* rows deleted that vacuum may not yet remove, for some snapshot's sake */
#define FIN_HALF_DEAD_MAX		10000

#define FIN_HALF_ALL_TENANTS	(-1)

/* ------------------------------------------------------------------------
 * half_group.c
 * ------------------------------------------------------------------------
 */

typedef struct FinProducerGroup
{
	const char *name;
	const char *check_topic;
	int64		check_after_us;
	int64		check_interval_us;
	int64		check_interval_max_us;
	int			max_checks;
} FinProducerGroup;

/*
 * An interval argument in microseconds: above zero, at most 30 days.  Errors:
 * 22004, 22023
 */
extern int64 fin_half_arg_span(FunctionCallInfo fcinfo, int arg,
							   const char *name);
extern int64 fin_half_span_us(const Interval *span);

/* LG308 when there is none.  Inside fin_query_begin/end. */
extern void fin_half_find_group(int32 tenant_id, const char *name,
								FinProducerGroup *group);

/* ------------------------------------------------------------------------
 * half_check.c
 * ------------------------------------------------------------------------
 */

/* one that is due: at prepared.check_at, or at next_at of an attempt */
typedef struct FinHalfDue
{
	TimestampTz at;
	int64		half_id;
	int32		tenant_id;
	int			attempt;		/* the last one; 0: none yet */
	bool		answered;		/* or not: */
	bool		superseded;		/* there is a later attempt */
} FinHalfDue;

typedef enum FinHalfFate
{
	FIN_HALF_NOTHING,			/* answered or checked by somebody else */
	FIN_HALF_CHECKED,
	FIN_HALF_PARKED,
	FIN_HALF_BUSY,				/* just being answered */
	FIN_HALF_KEPT,				/* answered, to be deleted later */
	FIN_HALF_FAILED
} FinHalfFate;

/*
 * What is due up to 'clock' beyond (after->at, after->half_id), in that order,
 * at most n.  Inside fin_query_begin/end.
 */
extern int	fin_half_take_due(int32 tenant_id, TimestampTz clock,
							  const FinHalfDue *after, int n,
							  FinHalfDue *found);

/* when there is something to do beyond it, at the earliest; FIN_NEVER: never */
extern TimestampTz fin_half_next_due(const FinHalfDue *after);

/*
 * Ask about, park, or delete each of these, after sorting them.  A fate for
 * each; what fails does so alone.  as_worker: not on behalf of the user.  Not
 * inside fin_query_begin/end.
 */
extern void fin_half_treat(FinHalfDue *due, int n, TimestampTz clock,
						   bool as_worker, FinHalfFate *fates);

/*
 * Delete some answers that are older than finance.half_retention, as the
 * worker; true when there may be more.
 */
extern bool fin_half_forget(TimestampTz clock);

/* may rows be deleted now, or does a snapshot keep the last from vacuum? */
extern bool fin_half_may_delete(void);

/* why something failed, since the last call; or NULL */
extern const char *fin_half_take_complaint(void);

#endif							/* FIN_HALF_PARTS_H */
