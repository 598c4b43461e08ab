/*
 * queue_key.c
 *		Ordering keys: messages of one key are read one after another.
 *
 * It is the turn of the message of a key that was sent first, by message_id, of
 * those in the queue, and only while no other of the key is being worked on:
 * one sent later may be, when the first was committed late, or came back from
 * a dead-letter queue.  What open transactions are doing to messages counts as
 * done, so the rows are looked at with a snapshot that sees it; what they sent
 * is not there yet.
 *
 * Whoever meets any message of a key takes the one whose turn it is.  So a key
 * goes on when a single one of its messages is looked at: after one is removed
 * the next, and those that readers passed meanwhile, are looked at again.
 *
 * Locks: an exclusive lock on a hash of queue and key, from looking whose turn
 * it is until the message is claimed, and never while waiting for anything.  It
 * is of the kind of advisory locks, in a class of its own.  From then on the
 * changed row tells.  Of the segments, only those in which a row was changed
 * stay locked after the call: why what was seen in the others stays true is told
 * at fin_segment_leave().
 *
 * Owns nothing.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "queue_parts.h"
#include "wake.h"

#define FIN_KEY_LOCK_CLASS	65	/* 64 is seen.c's */

/* messages before one that is being worked on, which is seen there */
#define FIN_KEY_AHEAD_MAX	100

/* messages after one that is removed of which open transactions have each */
#define FIN_KEY_NEXT_MAX	16

/* whose turn it is */
typedef struct Turn
{
	int64		message_id;
	int64		msg_id;			/* 0: nobody's */
	int			segment;
	int64		open_id;		/* msg_id of the first that an open transaction
								 * is changing; 0: none */
} Turn;

/* a scan that sees what is not committed; NULL: the queue is dropped */
static FinSegmentScan *
begin_scan(FinQueueTables *tables, int segment, Datum key)
{
	FinSegment *table = fin_queue_table(tables, segment);

	if (table == NULL)
		return NULL;
	if (tables->keys[segment] == NULL)
	{
		InitDirtySnapshot(tables->dirty);
		tables->keys[segment] = fin_segment_scan(table, FIN_BY_KEY,
												 &tables->dirty);
	}
	fin_segment_rescan_key(tables->keys[segment], key, PG_INT64_MIN);
	return tables->keys[segment];
}

bool
fin_queue_is_over(TupleTableSlot *row, TimestampTz now)
{
	TimestampTz expires_at = fin_segment_int64(row, FIN_MSG_EXPIRES_AT);

	return expires_at != 0 && expires_at <= now &&
		fin_segment_int64(row, FIN_MSG_VISIBLE_AT) <= now;
}

static bool
is_claimed(TupleTableSlot *row, TimestampTz now)
{
	return fin_segment_int64(row, FIN_MSG_VISIBLE_AT) > now &&
		fin_segment_int64(row, FIN_MSG_DUE_AT) == 0;
}

/* false: somebody has a message of the key in this segment */
static bool
look_at_segment(FinQueueTables *tables, int segment, Datum key,
				TimestampTz now, Turn *turn)
{
	FinSegmentScan *scan = begin_scan(tables, segment, key);
	TupleTableSlot *row;
	int			n = 0;

	while (scan != NULL && n < FIN_KEY_AHEAD_MAX &&
		   (row = fin_segment_next(scan)) != NULL)
	{
		int64		message_id = fin_segment_int64(row, FIN_MSG_MESSAGE_ID);

		if (TransactionIdIsValid(tables->dirty.xmin))
			continue;			/* being sent */
		if (TransactionIdIsValid(tables->dirty.xmax))
		{
			turn->open_id = fin_segment_int64(row, FIN_MSG_ID);
			return false;
		}
		if (is_claimed(row, now))
			return false;
		if (fin_queue_is_over(row, now))
			continue;
		if (n++ == 0 && message_id < turn->message_id)
		{
			turn->message_id = message_id;
			turn->msg_id = fin_segment_int64(row, FIN_MSG_ID);
			turn->segment = segment;
		}
	}
	return true;
}

static void
look_at_key(FinQueueTables *tables, Datum key, TimestampTz now, Turn *turn)
{
	uint32		used = fin_backlog_used_segments(tables->queue_id);

	turn->message_id = PG_INT64_MAX;
	turn->msg_id = 0;
	turn->open_id = 0;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((used & (1 << i)) == 0 ||
			look_at_segment(tables, i, key, now, turn))
			continue;
		turn->msg_id = 0;
		return;
	}
}

void
fin_queue_lock_key(int64 queue_id, Datum key, LOCKTAG *tag)
{
	text	   *text_key = DatumGetTextPP(key);
	uint64		hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(text_key),
										   VARSIZE_ANY_EXHDR(text_key),
										   (uint64) queue_id);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, FIN_KEY_LOCK_CLASS);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
}

bool
fin_queue_is_turn(FinQueueTables *tables, TupleTableSlot *row, TimestampTz now)
{
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	Turn		turn;

	if (isnull)
		return true;
	look_at_key(tables, key, now, &turn);
	return turn.msg_id == fin_segment_int64(row, FIN_MSG_ID);
}

/*
 * An open transaction may be the last that stands before this message.  When it
 * commits it looks at what was passed: so look once more after saying so.  When
 * it is this message that it has, there is nothing to say of it, and the next
 * one of the key is to be looked at.
 */
TupleTableSlot *
fin_queue_whose_turn(FinQueueTables *tables, TupleTableSlot *row, int *segment,
					 TimestampTz now, bool *look_at_next)
{
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	int64		msg_id = fin_segment_int64(row, FIN_MSG_ID);
	Turn		turn;

	look_at_key(tables, key, now, &turn);
	*look_at_next = turn.open_id == msg_id;
	if (turn.open_id != 0 && turn.open_id != msg_id)
	{
		fin_backlog_passed(tables->queue_id, msg_id, *segment);
		look_at_key(tables, key, now, &turn);
	}
	if (turn.msg_id == 0 || turn.msg_id == msg_id)
		return turn.msg_id == 0 ? NULL : row;
	row = fin_queue_find_row(tables, turn.msg_id, 1 << turn.segment, segment);
	if (row == NULL || fin_segment_int64(row, FIN_MSG_VISIBLE_AT) > now)
		return NULL;
	return row;
}

/*
 * The first that is left of the key is looked at after our commit.  When open
 * transactions have that one, or are sending it, they may be done before us:
 * so the one after it too.  If none is left, one may still be sent, and be
 * passed by readers before our commit.
 */
void
fin_queue_release_key(FinQueueTables *tables, TupleTableSlot *row,
					  TimestampTz now)
{
	bool		isnull;
	Datum		key = fin_segment_value(row, FIN_MSG_ORDERING_KEY, &isnull);
	int			n = 0;

	if (isnull)
		return;
	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		FinSegmentScan *scan = begin_scan(tables, i, key);
		bool		is_last = false;
		TupleTableSlot *next;

		while (scan != NULL && !is_last && n < FIN_KEY_NEXT_MAX &&
			   (next = fin_segment_next(scan)) != NULL)
		{
			int64		msg_id = fin_segment_int64(next, FIN_MSG_ID);

			if (fin_queue_is_over(next, now))
				continue;
			if (n++ == 0)
				fin_wake_note(tables->queue_id, msg_id, 1);
			fin_backlog_note_ready(tables->queue_id, i, msg_id);
			is_last = !TransactionIdIsValid(tables->dirty.xmin) &&
				!TransactionIdIsValid(tables->dirty.xmax);
		}
	}
	if (n == FIN_KEY_NEXT_MAX)
		fin_backlog_note_look_again(tables->queue_id);
	else
		fin_backlog_note_released(tables->queue_id);
}
