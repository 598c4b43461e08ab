/*
 * mishap.h
 *		Errors that a chore of the worker survives.
 *
 * What fails for one of many is undone with its subtransaction, told to the log
 * and to the worker's status, and tried again later.
 */
#ifndef FIN_MISHAP_H
#define FIN_MISHAP_H

#include "datatype/timestamp.h"
#include "utils/elog.h"
#include "utils/palloc.h"
#include "utils/resowner.h"

#define FIN_MISHAP_MAX	256		/* bytes that are told of a message */

/* of one chore; static, and zero at first */
typedef struct FinMishaps
{
	TimestampTz since;			/* the start of the minute, */
	int			logged;			/* and how many were logged in it */
	char		last[FIN_MISHAP_MAX];	/* not told to the status yet */
	char		told[FIN_MISHAP_MAX];
} FinMishaps;

/*
 * In PG_CATCH: undoes the subtransaction that began with this context and
 * owner.  What was meant for the process, as a request to end, goes on to it.
 */
extern ErrorData *fin_mishap_take(MemoryContext context, ResourceOwner owner);

/* tells what failed and why; a few a minute, as there may be thousands */
extern void fin_mishap_log(FinMishaps *mishaps, const char *what,
						   const ErrorData *error, const char *hint);

/* the last that was not told before, or NULL */
extern const char *fin_mishap_last(FinMishaps *mishaps);

#endif							/* FIN_MISHAP_H */
