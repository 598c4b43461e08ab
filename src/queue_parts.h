/*
 * queue_parts.h
 *		What the parts of the queue module share; included by queue*.c, and by
 *		half*.c for the arguments of messages.
 *
 * queue.c finds queues and their settings, queue_segment.c is about the tables
 * of a queue, queue_claim.c about which messages are read next, queue_key.c
 * about ordering keys, queue_take.c about what becomes of messages that were
 * read, queue_dead.c about dead letters, queue_check.c about all messages,
 * queue_tidy.c is the worker's chore; queue_bind.c bindings, queue_filter.c
 * their filters, queue_route.c what they lead to, queue_default.c where the
 * rest goes, queue_subscribe.c channels; queue_send.c, queue_read.c,
 * queue_poll.c, queue_metrics.c and queue_admin.c the SQL functions.  Log
 * queues are in queue_log*.c, see queue_log.h.
 */
#ifndef FIN_QUEUE_PARTS_H
#define FIN_QUEUE_PARTS_H

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "storage/lock.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "archive.h"
#include "backlog.h"
#include "queue.h"

#define FIN_QUEUE_NAME_MAX		47
#define FIN_QUEUE_CHANNEL_MAX	63
#define FIN_QUEUE_BATCH_MAX		10000
#define FIN_QUEUE_SECONDS_MAX	(30 * 24 * 60 * 60)
#define FIN_QUEUE_AHEAD_MAX		(366 * 24 * 60 * 60)
#define FIN_QUEUE_TTL_MAX		(365 * 24 * 60 * 60)
#define FIN_QUEUE_BACKOFF_MAX	(24 * 60 * 60 * 1000)	/* ms */
#define FIN_QUEUE_KEY_MAX		255
#define FIN_QUEUE_REASON_MAX	255
#define FIN_QUEUE_PRIORITY_MAX	10

/* ------------------------------------------------------------------------
 * queue_segment.c: the tables of one queue, read and written without statements
 * ------------------------------------------------------------------------
 */

/* columns of finance.message, from 0 */
enum
{
	FIN_MSG_ID,
	FIN_MSG_MESSAGE_ID,
	FIN_MSG_QUEUE_ID,
	FIN_MSG_ENQUEUED_AT,
	FIN_MSG_VISIBLE_AT,
	FIN_MSG_TENANT_ID,
	FIN_MSG_READ_CT,
	FIN_MSG_PRIORITY,
	FIN_MSG_SEGMENT,
	FIN_MSG_DUE_AT,
	FIN_MSG_EXPIRES_AT,
	FIN_MSG_TOPIC,
	FIN_MSG_ORDERING_KEY,
	FIN_MSG_HEADERS,
	FIN_MSG_PAYLOAD,
	FIN_MSG_COLUMNS
};

/* indexes of a segment; all but the first have rows where the column is set */
typedef enum FinSegmentIndex
{
	FIN_BY_ID,					/* msg_id */
	FIN_BY_DUE,					/* due_at */
	FIN_BY_EXPIRY,				/* expires_at */
	FIN_BY_KEY,					/* ordering_key, message_id */
	FIN_SEGMENT_INDEXES
} FinSegmentIndex;

typedef struct FinSegment FinSegment;
typedef struct FinSegmentScan FinSegmentScan;
typedef struct FinSegmentRows FinSegmentRows;

/* makes the segments of a new queue */
extern void fin_segment_make(int64 queue_id, bool unlogged);

/* drops them */
extern void fin_segment_drop(int64 queue_id);

/*
 * Opens a segment, its table locked in 'mode' until the end of the
 * transaction; NULL when the queue is dropped.  Lives in the current memory
 * context.  Its rows are read by one scan at a time per index.
 */
extern FinSegment *fin_segment_open(int64 queue_id, int segment,
									LOCKMODE mode);
extern void fin_segment_close(FinSegment *segment);

/* the same, and gives the lock back if no row was written or locked */
extern void fin_segment_leave(FinSegment *segment);
extern int	fin_segment_number(const FinSegment *segment);

/* the same, if there is no need to wait; NULL, and *dropped tells, when not so */
extern FinSegment *fin_segment_open_free(int64 queue_id, int segment,
										 LOCKMODE mode, bool *dropped);

/*
 * Truncates a segment opened with ACCESS EXCLUSIVE, but for these rows of it, and closes it.
 * As the rows lie in a new file, which an abort takes away, they can be written
 * as if they had been there always: snapshots that saw them go on seeing them,
 * and logical decoding does not tell them a second time.
 */
extern void fin_segment_empty(FinSegment *segment, int64 queue_id,
							  Datum *const *values, bool *const *nulls,
							  int n);
extern bool fin_segment_has_pages(const FinSegment *segment);

/* inserts n rows; the segment column is filled in */
extern void fin_segment_insert(FinSegment *segment, Datum *const *values,
							   bool *const *nulls, int n);

/*
 * Rows of an index with first <= key <= last, or for FIN_BY_KEY with that
 * ordering key and message_id >= first, in the order of the index, as the
 * snapshot sees them.
 */
extern FinSegmentScan *fin_segment_scan(FinSegment *segment,
										FinSegmentIndex which,
										Snapshot snapshot);
extern void fin_segment_rescan(FinSegmentScan *scan, int64 first, int64 last);
extern void fin_segment_rescan_key(FinSegmentScan *scan, Datum ordering_key,
								   int64 first);
extern TupleTableSlot *fin_segment_next(FinSegmentScan *scan);
extern void fin_segment_end_scan(FinSegmentScan *scan);

/* all rows, in no order */
extern FinSegmentRows *fin_segment_rows(FinSegment *segment,
										Snapshot snapshot);
extern TupleTableSlot *fin_segment_next_row(FinSegmentRows *rows);
extern void fin_segment_end_rows(FinSegmentRows *rows);

/* right after a rescan: the last of them */
extern TupleTableSlot *fin_segment_last(FinSegmentScan *scan);

/*
 * Locks the row in the slot, as FOR NO KEY UPDATE would, waiting for who has it
 * or not; false when somebody else has it or has changed it.
 */
extern bool fin_segment_lock(FinSegment *segment, TupleTableSlot *row,
							 Snapshot snapshot, bool wait);

/* did this transaction write the row in the slot? */
extern bool fin_segment_is_own(TupleTableSlot *row);

/*
 * Has an open transaction of somebody else changed the row in the slot?  False:
 * perhaps.  *by: the last such transaction, from one call to the next; invalid
 * at first.
 */
extern bool fin_segment_is_taken(TupleTableSlot *row, TransactionId *by);

/* does somebody hold the row in the slot without having changed it? */
extern bool fin_segment_is_only_locked(TupleTableSlot *row);

/* replaces columns of the row in the slot, which this transaction has locked */
extern void fin_segment_update(FinSegment *segment, TupleTableSlot *row,
							   const int *columns, int n, const Datum *values,
							   const bool *nulls);

/*
 * Sets visible_at and read_ct of the row in the slot, which is not delayed and
 * need not be locked.  False: nothing is done, as somebody else may have it or
 * have changed it; fin_segment_lock() tells.
 */
extern bool fin_segment_claim(FinSegment *segment, TupleTableSlot *row,
							  Snapshot snapshot, TimestampTz visible_at,
							  int read_ct);

/*
 * The segment in which this session put the message when it claimed or changed
 * it last, or -1; and the row, if it is still there for the snapshot, or NULL:
 * then it is to be looked for.
 */
extern int	fin_segment_where(int64 queue_id, int64 msg_id);
extern TupleTableSlot *fin_segment_fetch(FinSegment *segment, int64 msg_id,
										 Snapshot snapshot);

typedef enum FinSegmentDelete
{
	FIN_DELETED,
	FIN_DELETE_CHANGED,			/* by somebody else, meanwhile */
	FIN_DELETE_LOCKED			/* somebody else has it; with wait: never */
} FinSegmentDelete;

extern FinSegmentDelete fin_segment_delete(FinSegment *segment,
										   TupleTableSlot *row,
										   Snapshot snapshot, bool wait);

/* how many rows the snapshot shows; those visible by now are added to *visible */
extern int64 fin_segment_count(FinSegment *segment, Snapshot snapshot,
							   TimestampTz now, int64 *visible);

/* all columns of a row in a slot, copied out of the table */
extern void fin_segment_copy(TupleTableSlot *row, Datum **values,
							 bool **nulls);

/* of a row in a slot; text, jsonb: as they lie in the slot */
extern Datum fin_segment_value(TupleTableSlot *row, int column, bool *isnull);
extern int64 fin_segment_int64(TupleTableSlot *row, int column);	/* 0: null */

/* ------------------------------------------------------------------------
 * queue.c
 * ------------------------------------------------------------------------
 */

/* a queue as finance.queue has it; 0 stands for null */
typedef struct FinQueueConfig
{
	int64		queue_id;
	int32		tenant_id;
	char		name[FIN_QUEUE_NAME_MAX + 1];
	bool		is_log;
	bool		paused;
	int			max_deliveries;
	int64		dead_letter_queue_id;
	int			backoff_ms;
	int			backoff_max_ms;
	int			message_ttl_s;
	bool		discards_expired;
	int64		max_length;
	int			rate_limit;
	int			max_in_flight;
	int			dedup_window_s;
} FinQueueConfig;

/*
 * The queue of that name; LG301 when there is none.  Inside
 * fin_query_begin/end; copied into the current memory context.  It may have
 * been dropped: see whether its segments can be opened.
 */
extern FinQueueConfig *fin_queue_find(int32 tenant_id, const char *name);

/*
 * The same, not from the cache: who is woken by a commit may see its changes
 * before the cache hears of them.
 */
extern FinQueueConfig *fin_queue_find_anew(int32 tenant_id, const char *name);

/* as fin_queue_find(), or LG309 if it is a log queue */
extern FinQueueConfig *fin_queue_find_standard(int32 tenant_id,
											   const char *name);

/* the queue of that id, or NULL */
extern FinQueueConfig *fin_queue_config(int64 queue_id);

extern void fin_queue_raise_unknown(int32 tenant_id, const char *name);

/* arguments: 22004 for null, 22023 for out of range; 'name' as in SQL */
extern void fin_queue_refuse_null(FunctionCallInfo fcinfo, int arg,
								  const char *name);
extern char *fin_queue_arg_text(FunctionCallInfo fcinfo, int arg,
								const char *name);
extern int	fin_queue_arg_int(FunctionCallInfo fcinfo, int arg,
							  const char *name, int min, int max);

/* LG303 above finance.max_payload; headers 22023 unless an object or NULL */
extern void fin_queue_check_payload(const Jsonb *payload);
extern void fin_queue_check_headers(const Jsonb *headers);

/* ------------------------------------------------------------------------
 * queue_claim.c, queue_take.c, queue_dead.c
 * ------------------------------------------------------------------------
 */

/* the segments of a queue, opened when needed */
typedef struct FinQueueTables
{
	int64		queue_id;
	LOCKMODE	mode;
	bool		dropped;		/* met one that is no longer there */
	FinSegment *segments[FIN_SEGMENTS];
	FinSegmentScan *scans[FIN_SEGMENTS][FIN_SEGMENT_INDEXES];
	FinSegmentScan *finds[FIN_SEGMENTS];	/* for rows by their id, */
	TupleTableSlot *found[FIN_SEGMENTS];	/* the last of each */
	uint32		exhausted;		/* segments with none any more */
	int64		last_id;		/* none above is looked for; 0: not known */
	FinSegmentScan *keys[FIN_SEGMENTS]; /* of ordering keys, */
	SnapshotData dirty;			/* which see what is not committed yet */
	Snapshot	snapshot;
} FinQueueTables;

/*
 * Begin takes a new snapshot, under READ COMMITTED, that sees what this
 * transaction did so far; end lets go of all but the locks on segments in which
 * rows were written or locked.
 */
extern void fin_queue_tables_begin(FinQueueTables *tables, int64 queue_id,
								   LOCKMODE mode);
extern void fin_queue_tables_end(FinQueueTables *tables);

/* NULL: the queue is dropped */
extern FinSegment *fin_queue_table(FinQueueTables *tables, int segment);
extern FinSegmentScan *fin_queue_scan(FinQueueTables *tables, int segment,
									  FinSegmentIndex which);

/*
 * The row of that id in one of the segments of the mask, or NULL.  With last_id
 * set, rows must be looked for in ascending order.
 */
extern TupleTableSlot *fin_queue_find_row(FinQueueTables *tables,
										  int64 msg_id, uint32 segments,
										  int *segment);

/* the same, if this session has read it and it is where it was then */
extern TupleTableSlot *fin_queue_find_own(FinQueueTables *tables,
										  int64 msg_id, int *segment);

/*
 * Reads up to 'wanted' messages into the result of a set-returning function:
 * claimed until 'until', or with 'until' 0 deleted.
 */
extern void fin_queue_claim(FunctionCallInfo fcinfo, int32 tenant_id,
							const char *queue_name, TimestampTz now,
							TimestampTz until, int wanted);

/* one message as a row of finance.message_record, into the function's result */
extern void fin_queue_emit(FunctionCallInfo fcinfo, TupleTableSlot *row,
						   int read_ct, TimestampTz visible_at);

/* ------------------------------------------------------------------------
 * queue_key.c
 * ------------------------------------------------------------------------
 */

/*
 * Keeps others from claiming a message of this ordering key, until *tag is
 * released; which is to be done before waiting for anything.
 */
extern void fin_queue_lock_key(int64 queue_id, Datum key, LOCKTAG *tag);

/*
 * The message whose turn it is of the key that the message 'row' in *segment
 * has, and its segment; NULL: none that can be read now.  With the key locked.
 * *look_at_next: see what this returns for another message of the key, too.
 */
extern TupleTableSlot *fin_queue_whose_turn(FinQueueTables *tables,
											TupleTableSlot *row, int *segment,
											TimestampTz now,
											bool *look_at_next);

/* is its time to live over, and nobody working on it?  Then it is the worker's */
extern bool fin_queue_is_over(TupleTableSlot *row, TimestampTz now);

/* is it the turn of this message? */
extern bool fin_queue_is_turn(FinQueueTables *tables, TupleTableSlot *row,
							  TimestampTz now);

/*
 * A message that is deleted leaves its ordering key to the next one: call with
 * its row after that is deleted.
 */
extern void fin_queue_release_key(FinQueueTables *tables, TupleTableSlot *row,
								  TimestampTz now);

/*
 * Deletes a message that this transaction has locked and sends it on as a dead
 * letter: to its queue's dead-letter queue, or the tenant's, or else into the
 * archive.
 */
extern void fin_queue_bury(const FinQueueConfig *config,
						   FinQueueTables *tables, int segment,
						   TupleTableSlot *row, const char *reason,
						   TimestampTz now);

/*
 * Puts a message into the archive; x_death: NULL, or why it is dead, an object.
 */
extern void fin_queue_archive_row(FinArchive *archive, TupleTableSlot *row,
								  Jsonb *x_death);

/* notes that a message was deleted */
extern void fin_queue_note_gone(const FinQueueTables *tables, int segment,
								TupleTableSlot *row, TimestampTz now);

/*
 * The rows of the last query become the function's result, or are added to one
 * begun with InitMaterializedSRF().
 */
extern void fin_queue_return_rows(FunctionCallInfo fcinfo, uint64 nrows);
extern void fin_queue_add_rows(FunctionCallInfo fcinfo, uint64 nrows);

/*
 * Ids become the result of a set-returning function, which begins them in its
 * first call (SRF_IS_FIRSTCALL) and returns the next in each: for a value each
 * this is cheaper than a tuplestore.
 */
extern void fin_queue_begin_ids(FunctionCallInfo fcinfo, const int64 *ids,
								int n);
extern Datum fin_queue_next_id(FunctionCallInfo fcinfo);

/* ------------------------------------------------------------------------
 * queue_route.c
 * ------------------------------------------------------------------------
 */

extern void fin_queue_route_init(void);

/*
 * The queues that a message of this topic and these headers (or NULL) is
 * copied to, each once, in ascending order: those with a binding of which
 * pattern and filter match, else the alternate queue of the tenant, else none.
 * *queue_ids points into the routing cache and is good until the next query.
 */
extern int	fin_queue_route(int32 tenant_id, const char *topic,
							const Jsonb *headers, const int64 **queue_ids);

/* ------------------------------------------------------------------------
 * queue_bind.c
 * ------------------------------------------------------------------------
 */

/* the queue's id, its row locked against dropping; 0 when there is none */
extern int64 fin_queue_lock_row(int32 tenant_id, const char *name);

/* as that, but LG301 when there is none */
extern int64 fin_queue_lock_known_row(int32 tenant_id, const char *name);

/*
 * Binds a checked pattern, without a filter; returns the queue's id, LG301 when
 * there is none.
 */
extern int64 fin_queue_bind(int32 tenant_id, const char *pattern,
							const char *queue_name);

/* ------------------------------------------------------------------------
 * queue_filter.c
 * ------------------------------------------------------------------------
 */

/* the columns tags, headers and match of a binding */
#define FIN_FILTER_COLUMNS 3

typedef struct FinQueueFilter FinQueueFilter;

/*
 * The arguments tags, headers and match of an SQL function, from 'arg' on, in
 * one form for all that mean the same; 22004 and 22023 for what is malformed.
 */
extern void fin_queue_filter_arguments(FunctionCallInfo fcinfo, int arg,
									   Datum *values, char *nulls);

/*
 * The filter in columns 'column' and following of a row of the last result, in
 * the current memory context; NULL when the row has none.
 */
extern FinQueueFilter *fin_queue_filter_read(uint64 row, int column);

/* does a message with these headers (or NULL) pass? */
extern bool fin_queue_filter_passes(const FinQueueFilter *filter,
									const Jsonb *headers);

/* ------------------------------------------------------------------------
 * queue_default.c
 * ------------------------------------------------------------------------
 */

extern void fin_queue_default_init(void);

/*
 * From a cache: the queue that takes dead letters of queues without a
 * dead-letter queue of their own, and the one that takes what is published and
 * matches no binding; 0 when there is none.  It may be dropped meanwhile, as
 * any queue that is not held.
 */
extern int64 fin_queue_default_dead_letter(int32 tenant_id);
extern int64 fin_queue_default_alternate(int32 tenant_id);

/* ------------------------------------------------------------------------
 * queue_send.c, queue_admin.c
 * ------------------------------------------------------------------------
 */

/* the msg_id of a copy, from an id drawn for it: in the order of reading */
extern int64 fin_queue_msg_id(int64 drawn, int priority);

/* see that the number of messages is known, if it can be */
extern int64 fin_queue_count(int64 queue_id);

/* makes the queue if it does not exist; 42602 for a bad name */
extern void fin_queue_ensure(int32 tenant_id, const char *name);

/* 42602; what: of what it is the name */
extern void fin_queue_check_name(const char *what, const char *name);

/* ------------------------------------------------------------------------
 * queue_log*.c: queues whose messages stay; inside fin_query_begin/end
 * ------------------------------------------------------------------------
 */

struct FinMessage;
struct FinQueueWaiting;

extern bool fin_queue_log_is(int64 queue_id);

/* LG309: for what cannot be done with a log */
extern void fin_queue_log_raise_kind(const char *name);

/* the msg_id of the message appended; 0: the queue is dropped or no log */
extern int64 fin_queue_log_append(int64 queue_id,
								  const struct FinMessage *message);

/* n messages at once; false: the queue is dropped or no log */
extern bool fin_queue_log_append_many(int64 queue_id,
									  const struct FinMessage *messages, int n,
									  int64 *msg_ids);

/* what belongs to a log, but for its row in finance.queue, which is locked */
extern void fin_queue_log_drop(int32 tenant_id, int64 queue_id);

/* as fin_queue_waiting(): what the group furthest behind has not read */
extern bool fin_queue_log_waiting(int64 queue_id, TimestampTz since,
								  struct FinQueueWaiting *waiting);

/* one row of metrics() in SPI_tuptable; counts the messages */
extern uint64 fin_queue_log_measure(int64 queue_id, const char *name,
									TimestampTz now);

extern void fin_queue_log_init(void);

#endif							/* FIN_QUEUE_PARTS_H */
