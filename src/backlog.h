/*
 * backlog.h
 *		What is known, in shared memory, of the messages in each queue: where
 *		the next reader starts, what it must look at again, and how many there
 *		are.
 *
 * The tables are the truth and these are hints.  They only spare readers the
 * walk over what is gone, claimed or not yet due, and may be lost at any time:
 * a queue without hints is read from its beginning.  They err to one side
 * only: a message that can be read is either at or after next[] of its
 * priority, in a range to look at again, held by a lease that ends, or in the
 * index of delayed messages from due_from on.
 *
 * What a transaction does to messages it notes here.  The notes are kept with
 * their subtransaction and take effect after the commit or, where something
 * was claimed, after an abort.  Prepared transactions and rows that come by
 * replication take no notes: now and then a queue's hints are forgotten and
 * found anew.
 *
 * Without shared_preload_libraries all of it does nothing.
 */
#ifndef FIN_BACKLOG_H
#define FIN_BACKLOG_H

#include "datatype/timestamp.h"

#include "ident.h"

/* msg_id: rank, the reverse of the priority; millisecond; sequence */
#define FIN_BACKLOG_RANKS		11
#define FIN_BACKLOG_RANK_SHIFT	(63 - FIN_ID_TIME_SHIFT + FIN_ID_SEQUENCE_BITS)
#define FIN_BACKLOG_RANK(id)	((int) ((id) >> FIN_BACKLOG_RANK_SHIFT))
#define FIN_BACKLOG_FIRST(rank) ((int64) (rank) << FIN_BACKLOG_RANK_SHIFT)
#define FIN_BACKLOG_LAST(rank)	(FIN_BACKLOG_FIRST((rank) + 1) - 1)

/* tables that a queue's messages lie in; masks have a bit for each */
#define FIN_SEGMENTS			3
#define FIN_SEGMENTS_ALL		((1 << FIN_SEGMENTS) - 1)

/* rows after which a segment is full and the next is taken, if it is empty */
#define FIN_SEGMENT_ROWS		16384

/* rows left in a full segment that do not keep it from being emptied */
#define FIN_SEGMENT_LEFT_MAX	1000

#define FIN_BACKLOG_AGAIN_MAX	32
#define FIN_BACKLOG_LEASES_MAX	64
#define FIN_BACKLOG_RANGES_MAX \
	(FIN_BACKLOG_AGAIN_MAX + FIN_BACKLOG_RANKS * 4)

/* ids of one rank, in these segments */
typedef struct FinRange
{
	int64		first;
	int64		last;
	uint32		segments;
} FinRange;

/* what a reader starts from; taken before its snapshot */
typedef struct FinBacklogView
{
	bool		known;			/* false: no hints, read everything */
	bool		more;			/* more ranges to look at than are in here */
	int			slot;
	uint64		life;
	uint64		generation;
	int64		next[FIN_BACKLOG_RANKS];
	uint32		fresh[FIN_BACKLOG_RANKS];	/* segments with ids from next on, */
	int64		from[FIN_BACKLOG_RANKS][FIN_SEGMENTS];	/* each from there on */
	TimestampTz due_from;		/* no delayed message is due before */
	int			nranges;		/* ascending; taken, to be given back */
	FinRange	ranges[FIN_BACKLOG_RANGES_MAX];
} FinBacklogView;

extern bool fin_backlog_available(void);

/* ---- readers ---- */

/*
 * What is to be read of the queue.  take: ranges to look at again are taken
 * off, and are this transaction's to give back; an abort does it.
 */
extern void fin_backlog_view(int64 queue_id, TimestampTz now, bool take,
							 FinBacklogView *view);

/*
 * The reader has seen all ids of the rank below 'next', and in each of the
 * segments all below from[].  exhausted: none is in these segments from there
 * on.  What was committed since the view was taken stays to be read.
 */
extern void fin_backlog_advance(int64 queue_id, const FinBacklogView *view,
								int rank, int64 next,
								const int64 from[FIN_SEGMENTS],
								uint32 exhausted);

/* delayed messages due before 'due_from' are gone */
extern void fin_backlog_advance_due(int64 queue_id, const FinBacklogView *view,
									TimestampTz due_from);

/* a range that was taken and is not done with; at once, not on commit */
extern void fin_backlog_give_back(int64 queue_id, const FinRange *range);

/*
 * A reader met a message that is to be looked at again at 'until'; is_claim:
 * since somebody claimed it until then.  At once.
 */
extern void fin_backlog_met_lease(int64 queue_id, int64 msg_id, int segment,
								  TimestampTz until, bool is_claim);

/*
 * Have all claims been met since hints about the queue are kept?  If not, who
 * limits them goes through the queue and then says so.
 */
extern bool fin_backlog_knows_leases(int64 queue_id);
extern void fin_backlog_met_all_leases(int64 queue_id);

/*
 * A reader passes a message since an open transaction has its ordering key.
 * When that transaction commits, it is told to have a look; so see after this
 * whether it is still open.
 */
extern void fin_backlog_passed(int64 queue_id, int64 msg_id, int segment);

/* ---- notes of a transaction ---- */

/* 'count' messages were inserted; due_at: delayed until, or 0 */
extern void fin_backlog_note_sent(int64 queue_id, int segment, int64 first,
								  int64 last, int64 count, TimestampTz due_at);

/* a message that was sent lives until 'expires_at' */
extern void fin_backlog_note_expiry(int64 queue_id, TimestampTz expires_at);

/* a message was claimed until 'until'; was_due_at: it was delayed, else 0 */
extern void fin_backlog_note_claimed(int64 queue_id, int segment,
									 int64 msg_id, TimestampTz until,
									 TimestampTz was_due_at);

/* a claim that held until 'until' has ended; gone: with the message */
extern void fin_backlog_note_ended(int64 queue_id, int segment, int64 msg_id,
								   TimestampTz until, TimestampTz was_due_at,
								   bool gone);

/* a message is to be looked at when this transaction has committed */
extern void fin_backlog_note_ready(int64 queue_id, int segment, int64 msg_id);

/* a message is delayed until due_at from the commit on */
extern void fin_backlog_note_delayed(int64 queue_id, int64 msg_id,
									 TimestampTz due_at);

/*
 * With the commit an ordering key is free: what readers pass from now on until
 * then is to be looked at again.
 */
extern void fin_backlog_note_released(int64 queue_id);

/* with the commit, everything is to be looked at again */
extern void fin_backlog_note_look_again(int64 queue_id);

/* the transaction did what cannot be told: forget all hints of the queue */
extern void fin_backlog_note_forget(int64 queue_id);

/* ---- segments ---- */

/* where to insert */
extern int	fin_backlog_segment(int64 queue_id);

/* segments that may hold rows */
extern uint32 fin_backlog_used_segments(int64 queue_id);

/* a queue that the worker has something to do about */
typedef struct FinBacklogWork
{
	int64		queue_id;
	uint32		segments;		/* written full, and mostly dead */
	bool		expiry;			/* messages expire, or may have */
} FinBacklogWork;

/*
 * For the worker: such queues of this database, at most 'max'; returns how
 * many.  Their times of expiry are taken off; an abort brings them back.
 * *place: 0 to begin with, and afterwards, when all were looked at.
 * *next: lowered to when the next messages expire.
 */
extern int	fin_backlog_collect_work(TimestampTz now, int *place,
									 FinBacklogWork *work, int max,
									 TimestampTz *next);

/* have hints about the queue, so that its messages are thought of */
extern void fin_backlog_attend(int64 queue_id);

/* changes when there may be something new to collect */
extern uint64 fin_backlog_work_counter(void);

/* the first message left expires then, or should be looked at then; at once */
extern void fin_backlog_expires(int64 queue_id, TimestampTz expires_at);

/* a segment has more than this many messages left */
extern void fin_backlog_met_rows(int64 queue_id, int segment, int64 rows);

/* no such queue is seen: it is gone, or not committed yet; or it is new */
extern void fin_backlog_drop(int64 queue_id);

/*
 * The worker has emptied the segment but for 'left' rows; its lock is held
 * until the commit.
 */
extern void fin_backlog_note_emptied(int64 queue_id, int segment, int64 left);

/* ---- counts ---- */

/* as this transaction sees it, its own changes included */
typedef struct FinBacklogCounts
{
	bool		known;			/* length is */
	int64		length;
	int64		leased;			/* claimed, and the claim not yet over */
	TimestampTz next_at;		/* the next lease or delay ends; FIN_NEVER */
} FinBacklogCounts;

extern void fin_backlog_counts(int64 queue_id, TimestampTz now,
							   FinBacklogCounts *counts);

/* what a count began from */
typedef struct FinBacklogCounting
{
	uint64		occupancy;		/* 0: it cannot be kept */
	uint64		touched;
} FinBacklogCounting;

/*
 * Counting: begin, take a snapshot that sees all that this transaction did,
 * count, end.  The count is kept if no transaction that changed it committed
 * meanwhile; returns whether.
 */
extern FinBacklogCounting fin_backlog_begin_count(int64 queue_id);
extern bool fin_backlog_end_count(int64 queue_id, FinBacklogCounting begun,
								  int64 length);

/*
 * Reserve room for 'count' more messages in a queue of at most 'max', given
 * back when this (sub)transaction ends; false when it is full.  counted: how
 * many there are, should it not be known.
 */
extern bool fin_backlog_reserve(int64 queue_id, int64 count, int64 max,
								int64 counted, int64 *length);

/*
 * How many of 'wanted' messages may be claimed now, under a limit of claims
 * at a time and a rate per second (0: none).  What was not claimed after all
 * goes back to the rate.
 */
extern int	fin_backlog_allow_claims(int64 queue_id, TimestampTz now,
									 int wanted, int max_in_flight,
									 int rate_limit);
extern void fin_backlog_claims_spared(int64 queue_id, int spared);

/* when the rate allows the next claim: now, or later */
extern TimestampTz fin_backlog_next_claim(int64 queue_id, TimestampTz now,
										  int rate_limit);

extern void fin_backlog_init(void);
extern void fin_backlog_shmem_request(void);
extern void fin_backlog_shmem_startup(void);

#endif							/* FIN_BACKLOG_H */
