/*
 * queue_parts.h
 *		What the parts of the queue module share; included by queue*.c only.
 *
 * queue.c names and arguments, queue_plan.c the statements of one queue,
 * queue_route.c bindings, queue_send.c, queue_read.c and queue_admin.c the SQL
 * functions.
 */
#ifndef FIN_QUEUE_PARTS_H
#define FIN_QUEUE_PARTS_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "storage/lockdefs.h"
#include "utils/jsonb.h"

#define FIN_QUEUE_NAME_MAX		47
#define FIN_QUEUE_CHANNEL_MAX	63
#define FIN_QUEUE_BATCH_MAX		10000
#define FIN_QUEUE_SECONDS_MAX	(30 * 24 * 60 * 60)
#define FIN_QUEUE_PRIORITY_MAX	10

/* ------------------------------------------------------------------------
 * queue_plan.c: one table per queue, so one set of kept plans per queue
 * ------------------------------------------------------------------------
 */

typedef enum FinQueueStatement
{
	FIN_QUEUE_INSERT,
	FIN_QUEUE_INSERT_MANY,
	FIN_QUEUE_READ,
	FIN_QUEUE_POP,
	FIN_QUEUE_DELETE,
	FIN_QUEUE_DELETE_MANY,
	FIN_QUEUE_ARCHIVE,
	FIN_QUEUE_SET_VT,
	FIN_QUEUE_PURGE,
	FIN_QUEUE_METRICS,
	FIN_QUEUE_WAITING
} FinQueueStatement;

#define FIN_QUEUE_STATEMENTS	(FIN_QUEUE_WAITING + 1)

/*
 * Locks the queue's table in 'mode', so that no one drops the queue before
 * this transaction ends; false when it is dropped already.
 */
extern bool fin_queue_hold(int64 queue_id, LOCKMODE mode);

/* the table of a queue that is held */
extern Oid	fin_queue_held_table(int64 queue_id);

/* as fin_query_run(); the queue is held, and inside fin_query_begin/end */
extern uint64 fin_queue_run(FinQueueStatement which, int32 tenant_id,
							int64 queue_id, Datum *values, const char *nulls);

/* ------------------------------------------------------------------------
 * queue.c
 * ------------------------------------------------------------------------
 */

/*
 * The queue of that name, held in 'mode'; LG301 when there is none.  Inside
 * fin_query_begin/end.
 */
extern int64 fin_queue_find(int32 tenant_id, const char *name, LOCKMODE mode);
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

/*
 * The rows of the last query become the function's result, or are added to one
 * begun with InitMaterializedSRF(); sorted if they begin with a bigint.
 */
extern void fin_queue_return_rows(FunctionCallInfo fcinfo, uint64 nrows);
extern void fin_queue_add_rows(FunctionCallInfo fcinfo, uint64 nrows);

/* ------------------------------------------------------------------------
 * queue_route.c, queue_send.c, queue_admin.c
 * ------------------------------------------------------------------------
 */

extern void fin_queue_route_init(void);

/*
 * The queues bound to a topic, in ascending order; *queue_ids points into the
 * routing cache and is good until the next query.
 */
extern int	fin_queue_route(int32 tenant_id, const char *topic,
							const int64 **queue_ids);

/* the queue's id, its row locked against dropping; 0 when there is none */
extern int64 fin_queue_lock_row(int32 tenant_id, const char *name);

/* binds a checked pattern; returns the queue's id, LG301 when there is none */
extern int64 fin_queue_bind(int32 tenant_id, const char *pattern,
							const char *queue_name);

/* the msg_id of a copy, from an id drawn for it: in the order of reading */
extern int64 fin_queue_msg_id(int64 drawn, int priority);

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
