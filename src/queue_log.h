/*
 * queue_log.h
 *		What the parts of log queues share; included by queue_log*.c only.
 *
 * Words: a log is a queue whose messages stay until their retention is over;
 * consumer groups read it, each at its own position.  A message's mark is an
 * upper bound of the transaction ids drawn when it was appended (the server's
 * next one, with the incarnation of the cluster above it); the order of reading
 * is (mark, msg_id).  The horizon is the mark below which no message can appear
 * any more.  queue_log_horizon.c proves that.
 *
 * queue_log.c the tables and appending, queue_log_horizon.c marks and the
 * horizon, queue_log_scan.c walking along a log, queue_log_position.c where a
 * group is, queue_log_group.c and queue_log_read.c the SQL functions,
 * queue_log_retention.c what the worker removes.
 */
#ifndef FIN_QUEUE_LOG_H
#define FIN_QUEUE_LOG_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "storage/lockdefs.h"
#include "utils/snapshot.h"

/*
 * A log is a ring of segments, one for each slice of time; slices are a sixth
 * of the retention.  Seven of them can hold what must be kept, and the eighth
 * is emptied before its time comes again.
 */
#define FIN_LOG_SEGMENTS		8
#define FIN_LOG_SLICES_KEPT		6

#define FIN_LOG_RETENTION_MIN_S	60
#define FIN_LOG_RETENTION_MAX_S	(INT64CONST(10) * 366 * 24 * 60 * 60)

/* columns of finance.message_log, from 1 */
typedef enum FinLogColumn
{
	FIN_LOG_MARK = 1,
	FIN_LOG_MSG_ID,
	FIN_LOG_MESSAGE_ID,
	FIN_LOG_QUEUE_ID,
	FIN_LOG_ENQUEUED_AT,
	FIN_LOG_TENANT_ID,
	FIN_LOG_SEGMENT,
	FIN_LOG_PRIORITY,
	FIN_LOG_TOPIC,
	FIN_LOG_ORDERING_KEY,
	FIN_LOG_HEADERS,
	FIN_LOG_PAYLOAD
} FinLogColumn;

#define FIN_LOG_COLUMNS FIN_LOG_PAYLOAD

typedef struct FinLog
{
	int64		queue_id;
	int32		tenant_id;
	int64		retention_us;
	Oid			gate;			/* finance.message_log_<queue_id> */
	Oid			segments[FIN_LOG_SEGMENTS];
} FinLog;

/* between messages: after the one of this mark and id, before the next */
typedef struct FinLogPosition
{
	int64		mark;
	int64		msg_id;
} FinLogPosition;

static inline int
fin_queue_log_compare(const FinLogPosition *a, const FinLogPosition *b)
{
	if (a->mark != b->mark)
		return a->mark < b->mark ? -1 : 1;
	return (a->msg_id > b->msg_id) - (a->msg_id < b->msg_id);
}

/* ---- queue_log.c ---- */

/*
 * The log of that queue, its gate locked in 'mode' to the end of the
 * transaction, so that nobody drops it; false when the queue is none or gone.
 * Inside fin_query_begin/end.
 */
extern bool fin_queue_log_hold(int64 queue_id, LOCKMODE mode, FinLog *log);

/* the same by name, in ACCESS SHARE: LG301 no queue, LG309 no log */
extern void fin_queue_log_find(int32 tenant_id, const char *name, FinLog *log);

/* the segment that messages of this time are appended to */
extern int	fin_queue_log_segment(const FinLog *log, TimestampTz when);
extern TimestampTz fin_queue_log_slice_end(const FinLog *log, TimestampTz when);

/* ---- queue_log_horizon.c ---- */

typedef struct FinLogHorizon
{
	int64		mark;			/* nothing new appears below it */
	TransactionId writer;		/* that holds it back, or invalid */
	int			writer_pid;		/* 0: it is prepared */
} FinLogHorizon;

/*
 * The mark of a message appended now.  Call with the log's gate locked in ROW
 * EXCLUSIVE and with a transaction id.
 */
extern int64 fin_queue_log_mark(void);

/* the mark above all that was appended until now; writes nothing */
extern int64 fin_queue_log_end(void);

/* read rows with a snapshot taken after this */
extern void fin_queue_log_horizon(const FinLog *log, FinLogHorizon *horizon);

extern void fin_queue_log_horizon_init(void);

/* ---- queue_log_scan.c ---- */

typedef struct FinLogScan FinLogScan;

/*
 * Walk along a log from a position, in order; rows with an id below 'min_id'
 * are passed over.  The log is held.  Locks on segments are given back by end,
 * so that retention never waits for who has read.
 */
extern FinLogScan *fin_queue_log_begin_scan(const FinLog *log,
											const FinLogPosition *after,
											int64 min_id, Snapshot snapshot);

/* the next row, all columns filled; NULL: no more.  Good until the next call. */
extern TupleTableSlot *fin_queue_log_next(FinLogScan *scan,
										  FinLogPosition *position);
extern void fin_queue_log_end_scan(FinLogScan *scan);

/* the last row of a segment, backwards; *last stays as it is when there is none */
extern void fin_queue_log_last(Oid table_oid, Snapshot snapshot,
							   FinLogPosition *last);

/* messages after a position, at most 'limit' */
extern int64 fin_queue_log_count(const FinLog *log, const FinLogPosition *after,
								 int64 limit);

/* ---- queue_log_position.c ---- */

/* the newest row of a group in finance.group_position */
typedef struct FinLogGroup
{
	int32		tenant_id;
	int64		group_id;
	int64		seq;			/* of its positions; 0: none yet */
	int			segment;
	FinLogPosition position;
	TimestampTz moved_at;
} FinLogGroup;

/*
 * Take the group for this transaction: false at once when another has it.  Held
 * to the end of the transaction.
 */
extern bool fin_queue_log_take_group(int64 group_id);

/* false: it has none, the group is dropped.  40001 above READ COMMITTED. */
extern bool fin_queue_log_find_position(int32 tenant_id, int64 group_id,
										FinLogGroup *group);

/* a later position; the group is taken */
extern void fin_queue_log_put_position(FinLogGroup *group,
									   const FinLogPosition *position);
extern void fin_queue_log_drop_positions(int32 tenant_id, int64 group_id);

/*
 * Empties segments of positions that are full, never waiting; false when there
 * is one that could not be.
 */
extern bool fin_queue_log_rotate_positions(void);

/* "<mark>-<msg_id>" in hexadecimal digits: sorts as it is read */
extern char *fin_queue_log_position_text(const FinLogPosition *position);
/* 22023 when malformed */
extern FinLogPosition fin_queue_log_parse_position(const char *text);

/* ---- queue_log_group.c ---- */

/* all groups of a log that is being dropped */
extern void fin_queue_log_drop_groups(int32 tenant_id, int64 queue_id);

/* the group's id, LG308 when there is none */
extern int64 fin_queue_log_find_group(const FinLog *log, const char *name);
extern void fin_queue_log_raise_unknown_group(const char *name);

/* 55P03 */
extern void fin_queue_log_raise_taken(const char *name);

#endif							/* FIN_QUEUE_LOG_H */
