/*
 * archive.h
 *		Messages that were acknowledged and kept: finance.message_archive.
 */
#ifndef FIN_ARCHIVE_H
#define FIN_ARCHIVE_H

#include "c.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

/* a message as it lay in its queue; texts and jsonb may be out of line */
typedef struct FinArchived
{
	int64		msg_id;
	int64		message_id;
	int64		queue_id;
	TimestampTz enqueued_at;
	TimestampTz expires_at;		/* 0: never */
	int32		tenant_id;
	int			read_ct;
	int			priority;
	const text *topic;			/* or NULL */
	const text *ordering_key;	/* or NULL */
	const Jsonb *headers;		/* or NULL */
	const Jsonb *payload;
} FinArchived;

typedef struct FinArchive FinArchive;

/*
 * Write rows, gathered and written some at a time, the last of them by
 * fin_archive_end(); what was added is no longer needed when the call returns.
 * Each gets its archive_id when added; archived_at is the time of begin.  Call
 * inside fin_query_begin/end.
 */
extern FinArchive *fin_archive_begin(void);
extern void fin_archive_add(FinArchive *archive, const FinArchived *row);
extern void fin_archive_end(FinArchive *archive);

/*
 * Worker's chore: drops months that are wholly older than
 * finance.archive_retention.  sweep: look at the next round.
 */
extern void fin_archive_sweep(void);
extern TimestampTz fin_archive_due(TimestampTz now);
extern void fin_archive_run(TimestampTz now);
extern void fin_archive_committed(TimestampTz now);

#endif							/* FIN_ARCHIVE_H */
