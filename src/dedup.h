/*
 * dedup.h
 *		Dedup ids: a message sent again within the window is dropped.
 */
#ifndef FIN_DEDUP_H
#define FIN_DEDUP_H

#include "c.h"

#define FIN_DEDUP_ID_LENGTH_MAX		128 /* bytes */
#define FIN_DEDUP_WINDOW_DEFAULT_S	300
#define FIN_DEDUP_WINDOW_MAX_S		(6 * 60 * 60)

/* Error: 22023 empty or too long */
extern void fin_dedup_check_id(const char *dedup_id);

/*
 * Take the id for a message that is being sent to the queue.  False when one
 * with that id was sent to it less than window_s (1 to FIN_DEDUP_WINDOW_MAX_S)
 * seconds ago, and committed or by this transaction: then *earlier_msg_id is
 * its.  Waits for another open transaction that is sending one, and no other.
 * Errors: 22023 bad id, 40001 under REPEATABLE READ where the earlier message
 * is not in the snapshot.  Call inside fin_query_begin/end.
 */
extern bool fin_dedup_take(int32 tenant_id, int64 queue_id,
						   const char *dedup_id, int window_s, int64 msg_id,
						   int64 *earlier_msg_id);

typedef struct FinDedup
{
	const char *dedup_id;		/* NULL: none, always taken */
	int64		msg_id;
	bool		taken;			/* result, */
	int64		earlier_msg_id; /* and whose it is when not */
} FinDedup;

/*
 * The same for many; of those with the same id the first takes it.  Taken in
 * the order of ids, so that two such calls never wait for each other.
 */
extern void fin_dedup_take_many(int32 tenant_id, int64 queue_id, int window_s,
								FinDedup *ids, int n);

#endif							/* FIN_DEDUP_H */
