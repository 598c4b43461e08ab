/*
 * mishap.c
 *		Errors that a chore of the worker survives (see mishap.h).
 *
 * Owns nothing.  Locks: none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "mishap.h"

#define FIN_LOGS_PER_PAUSE		10
#define FIN_LOG_PAUSE_US		(60 * USECS_PER_SEC)

ErrorData *
fin_mishap_take(MemoryContext context, ResourceOwner owner)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	return error;
}

void
fin_mishap_log(FinMishaps *mishaps, const char *what, const ErrorData *error,
			   const char *hint)
{
	TimestampTz now = GetCurrentTimestamp();
	int			length = pg_mbcliplen(error->message, strlen(error->message),
									  FIN_MISHAP_MAX - 1);

	memcpy(mishaps->last, error->message, length);
	mishaps->last[length] = '\0';
	if (mishaps->since == 0 || now - mishaps->since > FIN_LOG_PAUSE_US ||
		now < mishaps->since)
	{
		mishaps->since = now;
		mishaps->logged = 0;
	}
	if (mishaps->logged++ >= FIN_LOGS_PER_PAUSE)
		return;
	ereport(LOG,
			errcode(error->sqlerrcode),
			errmsg("%s: %s", what, error->message),
			error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			errhint("%s", hint));
}

const char *
fin_mishap_last(FinMishaps *mishaps)
{
	if (mishaps->last[0] == '\0')
		return NULL;
	strlcpy(mishaps->told, mishaps->last, sizeof(mishaps->told));
	mishaps->last[0] = '\0';
	return mishaps->told;
}
