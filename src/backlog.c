/*
 * backlog.c
 *		Hints about the messages of each queue, in shared memory.
 *
 * Owns
 *	- in shared memory, a set-associative table of slots, one for each queue
 *	  that is in use.  A queue may only sit in the few places of its set; the
 *	  one not used for longest makes room, and starts anew when it comes back.
 *	- in the backend, the notes of the current transaction, labelled with the
 *	  subtransaction that made them.  They live in TopTransactionContext and
 *	  are allocated when noted: the callbacks never allocate.
 *
 * Words: a lease is what claimed messages have in common whose claims end at
 * about the same time; it ends when they do, unless all of them are gone
 * before.  Ring: the ids committed last, by which a reader, whose snapshot is
 * a little older than its findings, sees what it cannot have seen.
 *
 * Why a reader's findings are safe.  A message is visible to snapshots before
 * the callback of its transaction comes here.  A reader takes its view before
 * its snapshot.  If the callback came before the view, the snapshot sees the
 * message.  If it came after the view and before the reader reports, it is in
 * the ring, which the report is checked against; if the ring has turned round
 * meanwhile, the report is not believed.  If it comes after the report, it
 * finds the reader's mark above its id, and has the id looked at again.
 *
 * Locks: one LWLock per slot, never two slots at once, and taken by callbacks
 * after the commit: nothing is allocated and nothing can fail under it.  One
 * more, taken before a slot's, for giving slots to queues.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backlog.h"
#include "settings.h"
#include "wait.h"
#include "wake.h"

#define FIN_BACKLOG_TRANCHE		"finance_backlog"
#define FIN_BACKLOG_SLOTS		256
#define FIN_BACKLOG_WAYS		8	/* places a queue may sit in */
#define FIN_BACKLOG_RING		128
#define FIN_BACKLOG_NOTES_MAX	65536	/* of one transaction, about */
#define FIN_BACKLOG_NOTES_FIRST	16
#define FIN_BACKLOG_PREPARED_MAX 16
#define FIN_BACKLOG_PASSED		32
#define FIN_BACKLOG_TAKEN_MAX	4	/* leases that one reader takes */

/* as a backstop, in units of finance.sweep_interval */
#define FIN_BACKLOG_FORGET_AFTER	10

/* the part of a msg_id below its rank */
#define FIN_SEQUENCE(id)	((id) & (FIN_BACKLOG_FIRST(1) - 1))

typedef struct Lease
{
	TimestampTz ends_from;		/* its claims end between these */
	TimestampTz ends_to;
	int64		first;			/* ids without their rank */
	int64		last;
	int64		count;			/* claims not known to be over */
	uint32		ranks;
	uint32		segments;
	bool		exact;			/* count is; else it ends by time alone */
} Lease;

typedef struct Committed
{
	int64		first;
	int64		last;
	TimestampTz due_at;			/* delayed until, or 0 */
	uint32		segments;
} Committed;

/* what a prepared transaction did: to be looked at when that is over */
typedef struct Prepared
{
	TransactionId xid;
	FinRange	range;			/* without segments: nothing */
	TimestampTz due_at;			/* of delayed messages; 0: none */
	bool		releases;		/* ordering keys */
} Prepared;

/* a message that was not read since its ordering key was in use */
typedef struct Passed
{
	int64		msg_id;
	uint32		segments;
} Passed;

typedef struct Slot
{
	LWLock	   *lock;			/* protects all below */
	int64		queue_id;		/* 0: free */
	Oid			database;
	uint64		occupancy;		/* new when it is given to a queue, and unlike
								 * that of any other slot */
	uint64		life;			/* changes when the hints are forgotten */
	TimestampTz used;			/* by a statement that started then */
	TimestampTz forget_at;

	int64		next[FIN_BACKLOG_RANKS];
	uint32		fresh[FIN_BACKLOG_RANKS];
	int64		from[FIN_BACKLOG_RANKS][FIN_SEGMENTS];
	TimestampTz due_from;
	TimestampTz expires_from;	/* no message expires before */
	int			nagain;
	FinRange	again[FIN_BACKLOG_AGAIN_MAX];
	bool		knows_leases;	/* all claims, since it was given */
	int			nleases;		/* ascending by end, which do not overlap */
	Lease		leases[FIN_BACKLOG_LEASES_MAX];
	int			nprepared;		/* these are no hints: never forgotten */
	Prepared	prepared[FIN_BACKLOG_PREPARED_MAX];
	uint64		generation;		/* of the ring: entries made so far */
	Committed	ring[FIN_BACKLOG_RING];
	uint64		passed;			/* how many were, the last of them, */
	Passed		last_passed[FIN_BACKLOG_PASSED];
	int64		passed_from;	/* and from where the others are */

	int			segment;		/* written to */
	uint32		used_segments;	/* may hold rows */
	uint32		clean_segments; /* emptied since they were written to */
	int64		inserted[FIN_SEGMENTS];
	int64		deleted[FIN_SEGMENTS];

	bool		asked;			/* the worker, for a clean one */

	bool		counted;		/* length is known */
	bool		doubtful;		/* changed by a prepared transaction: never
								 * to be known */
	int64		length;
	int64		reserved;		/* by open transactions */
	uint64		touched;		/* changes with each commit to come or made */
	int			committing;

	int64		claiming;		/* claims of open transactions */
	double		tokens;
	TimestampTz tokens_at;
} Slot;

typedef struct Shared
{
	pg_atomic_uint64 work;		/* see fin_backlog_work_counter() */
	LWLock	   *giving;			/* held to give a slot to a queue */
	uint64		occupancies;	/* the last; changes with this lock held */
	Slot		slots[FIN_BACKLOG_SLOTS];
} Shared;

typedef enum NoteKind
{
	NOTE_SENT,
	NOTE_CLAIMED,
	NOTE_ENDED,
	NOTE_GONE,
	NOTE_READY,
	NOTE_DELAYED,
	NOTE_TAKEN,
	NOTE_RESERVED,
	NOTE_ALLOWED,
	NOTE_RELEASED,
	NOTE_EXPIRY,
	NOTE_EXPIRY_TAKEN,
	NOTE_EMPTIED,
	NOTE_FORGET
} NoteKind;

typedef struct Note
{
	NoteKind	kind;
	SubTransactionId subxact;
	int64		queue_id;
	int64		first;
	int64		last;
	int64		count;
	TimestampTz at;				/* due, or end of the claim; 0: none */
	TimestampTz was_due_at;
	uint32		segments;
	uint64		occupancy;		/* of the slot that counts it; 0: none does */
} Note;

static Shared *shared = NULL;

static Note *notes = NULL;		/* in TopTransactionContext */
static int	nnotes = 0;
static int	maxnotes = 0;
static TransactionId preparing; /* valid from PRE_PREPARE on */

/* ------------------------------------------------------------------------
 * slots
 * ------------------------------------------------------------------------
 */

bool
fin_backlog_available(void)
{
	return shared != NULL;
}

static Slot *
set_of(int64 queue_id)
{
	uint32		hash = hash_combine(hash_bytes((const unsigned char *) &queue_id,
											   sizeof(queue_id)),
									(uint32) MyDatabaseId);

	return &shared->slots[hash % (FIN_BACKLOG_SLOTS / FIN_BACKLOG_WAYS) *
						  FIN_BACKLOG_WAYS];
}

static void
ask_for_work(void)
{
	pg_atomic_fetch_add_u64(&shared->work, 1);
	fin_wake_ring_worker();
}

/*
 * Nothing is known, so everything is to be looked at.  Leases stay: whoever
 * meets their messages does not count them again.  So do the messages of open
 * prepared transactions: who looks now passes them.
 */
static void
forget_hints(Slot *slot)
{
	int			intervals = max_prepared_xacts > 0 ? 1 : FIN_BACKLOG_FORGET_AFTER;

	slot->life++;
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		slot->next[rank] = FIN_BACKLOG_FIRST(rank);
		slot->fresh[rank] = FIN_SEGMENTS_ALL;
		for (int i = 0; i < FIN_SEGMENTS; i++)
			slot->from[rank][i] = FIN_BACKLOG_FIRST(rank);
	}
	slot->due_from = DT_NOBEGIN;
	slot->expires_from = DT_NOBEGIN;
	slot->nagain = 0;
	slot->used_segments = FIN_SEGMENTS_ALL;
	slot->forget_at = GetCurrentTimestamp() +
		(int64) fin_sweep_interval_s * intervals * USECS_PER_SEC;
	/* when its messages expire is for the worker to find out */
	ask_for_work();
}

static void
occupy(Slot *slot, int64 queue_id)
{
	slot->queue_id = queue_id;
	slot->database = MyDatabaseId;
	slot->occupancy = ++shared->occupancies;
	slot->generation = 0;
	slot->segment = 0;
	slot->clean_segments = 0;
	memset(slot->inserted, 0, sizeof(slot->inserted));
	memset(slot->deleted, 0, sizeof(slot->deleted));
	slot->asked = false;
	slot->counted = false;
	slot->doubtful = false;
	slot->length = 0;
	slot->reserved = 0;
	slot->committing = 0;
	slot->touched = 0;
	slot->claiming = 0;
	slot->tokens = 0;
	slot->tokens_at = 0;
	slot->nleases = 0;
	slot->nprepared = 0;
	slot->knows_leases = false;
	slot->passed = 0;
	slot->passed_from = PG_INT64_MAX;
	forget_hints(slot);
}

static bool
is_of(const Slot *slot, int64 queue_id)
{
	return slot->queue_id == queue_id && slot->database == MyDatabaseId;
}

/*
 * On a standby nobody tells what is replayed: nothing is kept there, and so
 * nothing out of date is found after its promotion.
 */
static bool
is_usable(void)
{
	return shared != NULL && !RecoveryInProgress();
}

/* the queue's slot, locked, or NULL */
static Slot *
find_slot(int64 queue_id)
{
	Slot	   *set;

	if (!is_usable())
		return NULL;
	set = set_of(queue_id);
	for (int i = 0; i < FIN_BACKLOG_WAYS; i++)
	{
		if (!is_of(&set[i], queue_id))
			continue;
		LWLockAcquire(set[i].lock, LW_EXCLUSIVE);
		if (is_of(&set[i], queue_id))
			return &set[i];
		LWLockRelease(set[i].lock);
	}
	return NULL;
}

/* can it be given to another queue without an open transaction missing it? */
static bool
is_idle(const Slot *slot)
{
	return slot->queue_id == 0 ||
		(slot->reserved == 0 && slot->committing == 0 && slot->claiming == 0);
}

/* the one of the set that is not used for longest, given to the queue */
static Slot *
give_slot(int64 queue_id)
{
	Slot	   *set = set_of(queue_id);
	Slot	   *oldest = NULL;

	for (int i = 0; i < FIN_BACKLOG_WAYS; i++)
	{
		if (is_idle(&set[i]) &&
			(oldest == NULL || set[i].used < oldest->used))
			oldest = &set[i];
	}
	if (oldest == NULL)
		return NULL;
	LWLockAcquire(oldest->lock, LW_EXCLUSIVE);
	if (is_idle(oldest))
	{
		occupy(oldest, queue_id);
		return oldest;
	}
	LWLockRelease(oldest->lock);
	return NULL;
}

/* the same as find_slot(), made if need be; NULL only if no place is free */
static Slot *
get_slot(int64 queue_id)
{
	Slot	   *slot = find_slot(queue_id);

	if (!is_usable())
		return NULL;
	if (slot == NULL)
	{
		LWLockAcquire(shared->giving, LW_EXCLUSIVE);
		slot = find_slot(queue_id);
		if (slot == NULL)
			slot = give_slot(queue_id);
		LWLockRelease(shared->giving);
	}
	if (slot != NULL)
		slot->used = GetCurrentStatementStartTimestamp();
	return slot;
}

static void
release(Slot *slot)
{
	LWLockRelease(slot->lock);
}

/* ------------------------------------------------------------------------
 * ranges, leases and the ring of a locked slot
 * ------------------------------------------------------------------------
 */

static int64
gap_between(const FinRange *range, int64 first, int64 last)
{
	if (first > range->last)
		return first - range->last;
	if (last < range->first)
		return range->first - last;
	return 0;
}

/* ids of these segments are among the fresh ones */
static void
make_fresh(Slot *slot, int64 first, uint32 segments)
{
	int			rank = FIN_BACKLOG_RANK(first);

	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((segments & (1 << i)) == 0)
			continue;
		if ((slot->fresh[rank] & (1 << i)) == 0 || first < slot->from[rank][i])
			slot->from[rank][i] = first;
	}
	slot->fresh[rank] |= segments;
}

/* ids to be looked at again; when there is no place, from them on */
static void
add_again(Slot *slot, int64 first, int64 last, uint32 segments)
{
	int			rank = FIN_BACKLOG_RANK(first);
	FinRange   *nearest = NULL;

	for (int i = 0; i < slot->nagain; i++)
	{
		FinRange   *range = &slot->again[i];

		if (FIN_BACKLOG_RANK(range->first) != rank)
			continue;
		if (nearest == NULL || gap_between(range, first, last) <
			gap_between(nearest, first, last))
			nearest = range;
	}
	if (nearest != NULL &&
		(slot->nagain == FIN_BACKLOG_AGAIN_MAX ||
		 gap_between(nearest, first, last) <= 1))
	{
		nearest->first = Min(nearest->first, first);
		nearest->last = Max(nearest->last, last);
		nearest->segments |= segments;
	}
	else if (slot->nagain < FIN_BACKLOG_AGAIN_MAX)
	{
		nearest = &slot->again[slot->nagain++];
		nearest->first = first;
		nearest->last = last;
		nearest->segments = segments;
	}
	else
	{
		slot->next[rank] = Min(slot->next[rank], first);
		make_fresh(slot, first, segments);
	}
}

static void
merge_lease(Lease *lease, const Lease *other)
{
	lease->ends_from = Min(lease->ends_from, other->ends_from);
	lease->ends_to = Max(lease->ends_to, other->ends_to);
	lease->first = Min(lease->first, other->first);
	lease->last = Max(lease->last, other->last);
	lease->count += other->count;
	lease->ranks |= other->ranks;
	lease->segments |= other->segments;
	lease->exact = lease->exact && other->exact;
}

static void
remove_lease(Slot *slot, int i)
{
	slot->nleases--;
	memmove(&slot->leases[i], &slot->leases[i + 1],
			(slot->nleases - i) * sizeof(Lease));
}

/* make a place by joining the two that end closest together */
static void
join_closest_leases(Slot *slot)
{
	int			closest = 0;
	int64		least = PG_INT64_MAX;

	for (int i = 0; i + 1 < slot->nleases; i++)
	{
		int64		gap = slot->leases[i + 1].ends_from - slot->leases[i].ends_to;

		if (gap < least)
		{
			least = gap;
			closest = i;
		}
	}
	merge_lease(&slot->leases[closest], &slot->leases[closest + 1]);
	remove_lease(slot, closest + 1);
}

/*
 * Claims that end at about the same time share a lease: within a hundredth of
 * the time they have left, so that short ones are kept apart.
 */
static void
add_lease(Slot *slot, const Lease *lease)
{
	int64		left = lease->ends_to - GetCurrentTimestamp();
	int64		tolerance = Max(left / 100, INT64CONST(1000));
	int			i = 0;

	while (i < slot->nleases && slot->leases[i].ends_to < lease->ends_from)
		i++;
	/* [i] is the first that does not end before; so [i - 1] is a neighbour */
	if (i < slot->nleases &&
		slot->leases[i].ends_from <= lease->ends_to + tolerance)
	{
		merge_lease(&slot->leases[i], lease);
		return;
	}
	if (i > 0 && slot->leases[i - 1].ends_from + tolerance >= lease->ends_to)
	{
		merge_lease(&slot->leases[i - 1], lease);
		return;
	}
	if (slot->nleases == FIN_BACKLOG_LEASES_MAX)
	{
		join_closest_leases(slot);
		add_lease(slot, lease);
		return;
	}
	memmove(&slot->leases[i + 1], &slot->leases[i],
			(slot->nleases - i) * sizeof(Lease));
	slot->leases[i] = *lease;
	slot->nleases++;
}

static void
end_claims(Slot *slot, TimestampTz until, int64 count)
{
	for (int i = 0; i < slot->nleases; i++)
	{
		Lease	   *lease = &slot->leases[i];

		if (until > lease->ends_to)
			continue;
		if (until >= lease->ends_from)
		{
			lease->count -= count;
			if (lease->count <= 0 && lease->exact)
				remove_lease(slot, i);
		}
		return;
	}
}

static void
push_ids(Slot *slot, int64 first, int64 last, uint32 segments,
		 TimestampTz due_at)
{
	Committed  *entry = &slot->ring[slot->generation % FIN_BACKLOG_RING];

	entry->first = first;
	entry->last = last;
	entry->segments = segments;
	entry->due_at = due_at;
	slot->generation++;
}

static void
push_committed(Slot *slot, const Note *note, TimestampTz due_at)
{
	push_ids(slot, note->first, note->last, note->segments, due_at);
}

/* all from then on, whatever its rank; who reads now knows nothing of it */
static void
look_again_from(Slot *slot, int64 sequence)
{
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		int64		from = FIN_BACKLOG_FIRST(rank) | sequence;

		if (from < slot->next[rank])
			add_again(slot, from, slot->next[rank] - 1, FIN_SEGMENTS_ALL);
	}
	slot->life++;
}

/*
 * Prepared transactions that are over make their ranges readable: also to who
 * took a view before, which is what the ring is for.
 */
static void
look_at_prepared(Slot *slot)
{
	int			kept = 0;

	for (int i = 0; i < slot->nprepared; i++)
	{
		Prepared	prepared = slot->prepared[i];
		const FinRange *range = &prepared.range;

		if (TransactionIdIsInProgress(prepared.xid))
		{
			slot->prepared[kept++] = prepared;
			continue;
		}
		if (range->segments != 0)
		{
			add_again(slot, range->first, range->last, range->segments);
			push_ids(slot, range->first, range->last, range->segments, 0);
		}
		if (prepared.due_at != 0)
		{
			slot->due_from = Min(slot->due_from, prepared.due_at);
			push_ids(slot, range->first, range->last, range->segments,
					 prepared.due_at);
		}
		if (prepared.releases && slot->passed > 0)
			look_again_from(slot, slot->passed_from);
	}
	slot->nprepared = kept;
}

/* a message can be read from now on */
static void
make_ready(Slot *slot, const Note *note)
{
	int			rank = FIN_BACKLOG_RANK(note->first);

	if (note->first < slot->next[rank])
		add_again(slot, note->first, note->last, note->segments);
	if (note->last >= slot->next[rank])
		make_fresh(slot, note->first, note->segments);
	push_committed(slot, note, 0);
}

/* ------------------------------------------------------------------------
 * readers
 * ------------------------------------------------------------------------
 */

static void
view_fresh_from_beginning(FinBacklogView *view)
{
	view->due_from = DT_NOBEGIN;
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		view->next[rank] = FIN_BACKLOG_FIRST(rank);
		view->fresh[rank] = FIN_SEGMENTS_ALL;
		for (int i = 0; i < FIN_SEGMENTS; i++)
			view->from[rank][i] = FIN_BACKLOG_FIRST(rank);
	}
}

static void
view_everything(FinBacklogView *view)
{
	view->known = false;
	view->more = false;
	view->nranges = 0;
	view_fresh_from_beginning(view);
}

/* will they be met among the fresh ones, in their turn? */
static bool
are_fresh(const FinBacklogView *view, int64 first, uint32 segments)
{
	int			rank = FIN_BACKLOG_RANK(first);

	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if ((segments & (1 << i)) != 0 &&
			((view->fresh[rank] & (1 << i)) == 0 || first < view->from[rank][i]))
			return false;
	}
	return first >= view->next[rank];
}

static void
view_range(FinBacklogView *view, int64 first, int64 last, uint32 segments)
{
	FinRange   *range;

	if (are_fresh(view, first, segments))
		return;
	range = &view->ranges[view->nranges++];
	range->first = first;
	range->last = last;
	range->segments = segments;
}

static void
view_lease(FinBacklogView *view, const Lease *lease)
{
	for (int rank = 0; rank < FIN_BACKLOG_RANKS; rank++)
	{
		if ((lease->ranks & (1 << rank)) != 0)
			view_range(view, FIN_BACKLOG_FIRST(rank) | lease->first,
					   FIN_BACKLOG_FIRST(rank) | lease->last,
					   lease->segments);
	}
}

static int
compare_ranges(const void *a, const void *b)
{
	int64		x = ((const FinRange *) a)->first;
	int64		y = ((const FinRange *) b)->first;

	return (x > y) - (x < y);
}

static void note_taken(int64 queue_id, const FinBacklogView *view);
static void view_own(int64 queue_id, TimestampTz now, FinBacklogView *view);

void
fin_backlog_view(int64 queue_id, TimestampTz now, bool take,
				 FinBacklogView *view)
{
	Slot	   *slot = get_slot(queue_id);

	view_everything(view);
	if (slot == NULL)
		return;
	if (GetCurrentTimestamp() >= slot->forget_at)
		forget_hints(slot);
	if (slot->nprepared > 0)
		look_at_prepared(slot);
	view->known = true;
	view->slot = slot - shared->slots;
	view->life = slot->life;
	view->generation = slot->generation;
	view->due_from = slot->due_from;
	memcpy(view->next, slot->next, sizeof(view->next));
	memcpy(view->fresh, slot->fresh, sizeof(view->fresh));
	memcpy(view->from, slot->from, sizeof(view->from));

	for (int i = 0; i < slot->nagain; i++)
		view_range(view, slot->again[i].first, slot->again[i].last,
				   slot->again[i].segments);
	if (take)
		slot->nagain = 0;
	for (int i = 0; i < FIN_BACKLOG_TAKEN_MAX; i++)
	{
		int			which = take ? 0 : i;

		if (which >= slot->nleases || slot->leases[which].ends_from > now)
			break;
		view_lease(view, &slot->leases[which]);
		if (take)
			remove_lease(slot, 0);
	}
	view->more = take && slot->nleases > 0 && slot->leases[0].ends_from <= now;
	release(slot);

	view_own(queue_id, now, view);
	if (view->nranges > 1)
		qsort(view->ranges, view->nranges, sizeof(FinRange), compare_ranges);
	if (take)
		note_taken(queue_id, view);
}

/* the slot the view is of, locked, if what was seen still counts */
static Slot *
slot_of_view(int64 queue_id, const FinBacklogView *view)
{
	Slot	   *slot;

	if (!view->known)
		return NULL;
	slot = &shared->slots[view->slot];
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	if (is_of(slot, queue_id) && slot->life == view->life &&
		slot->generation - view->generation <= FIN_BACKLOG_RING)
		return slot;
	release(slot);
	return NULL;
}

void
fin_backlog_advance(int64 queue_id, const FinBacklogView *view, int rank,
					int64 next, const int64 from[FIN_SEGMENTS],
					uint32 exhausted)
{
	Slot	   *slot = slot_of_view(queue_id, view);

	if (slot == NULL)
		return;
	/* below, it was set back meanwhile, and not all from there was seen */
	if (slot->next[rank] >= view->next[rank])
	{
		slot->next[rank] = Max(slot->next[rank], next);
		slot->fresh[rank] &= ~exhausted;
		for (int i = 0; i < FIN_SEGMENTS; i++)
		{
			/* lower, it was set back meanwhile */
			if (slot->from[rank][i] >= view->from[rank][i])
				slot->from[rank][i] = Max(slot->from[rank][i], from[i]);
		}
		for (uint64 g = view->generation; g < slot->generation; g++)
		{
			const Committed *entry = &slot->ring[g % FIN_BACKLOG_RING];

			if (entry->due_at != 0 || FIN_BACKLOG_RANK(entry->first) != rank)
				continue;
			if (entry->first < slot->next[rank])
				add_again(slot, entry->first, entry->last, entry->segments);
			if (entry->last >= slot->next[rank])
				make_fresh(slot, entry->first, entry->segments);
		}
	}
	release(slot);
}

void
fin_backlog_advance_due(int64 queue_id, const FinBacklogView *view,
						TimestampTz due_from)
{
	Slot	   *slot = slot_of_view(queue_id, view);

	if (slot == NULL)
		return;
	if (slot->due_from >= view->due_from)
	{
		slot->due_from = due_from;
		for (uint64 g = view->generation; g < slot->generation; g++)
		{
			const Committed *entry = &slot->ring[g % FIN_BACKLOG_RING];

			if (entry->due_at != 0)
				slot->due_from = Min(slot->due_from, entry->due_at);
		}
	}
	release(slot);
}

void
fin_backlog_give_back(int64 queue_id, const FinRange *range)
{
	Slot	   *slot = find_slot(queue_id);

	if (slot == NULL)
		return;
	add_again(slot, range->first, range->last, range->segments);
	release(slot);
}

static void
make_lease(Lease *lease, int64 first, int64 last, int64 count,
		   uint32 segments, TimestampTz until)
{
	lease->ends_from = until;
	lease->ends_to = until;
	lease->first = FIN_SEQUENCE(first);
	lease->last = FIN_SEQUENCE(last);
	lease->count = count;
	lease->ranks = 1 << FIN_BACKLOG_RANK(first);
	lease->segments = segments;
	lease->exact = true;
}

/* is the message among the claims of a lease? */
static bool
is_leased(const Slot *slot, const Lease *claim)
{
	for (int i = 0; i < slot->nleases; i++)
	{
		const Lease *lease = &slot->leases[i];

		if (claim->ends_from >= lease->ends_from &&
			claim->ends_to <= lease->ends_to)
			return claim->first >= lease->first &&
				claim->last <= lease->last &&
				(claim->ranks & ~lease->ranks) == 0 &&
				(claim->segments & ~lease->segments) == 0;
	}
	return false;
}

void
fin_backlog_met_lease(int64 queue_id, int64 msg_id, int segment,
					  TimestampTz until, bool is_claim)
{
	Slot	   *slot = find_slot(queue_id);
	Lease		lease;

	if (slot == NULL)
		return;
	make_lease(&lease, msg_id, msg_id, is_claim ? 1 : 0, 1 << segment, until);
	lease.exact = false;
	if (!is_leased(slot, &lease))
		add_lease(slot, &lease);
	release(slot);
}

void
fin_backlog_passed(int64 queue_id, int64 msg_id, int segment)
{
	Slot	   *slot = find_slot(queue_id);
	Passed	   *passed;

	if (slot == NULL)
		return;
	passed = &slot->last_passed[slot->passed % FIN_BACKLOG_PASSED];
	slot->passed_from = Min(slot->passed_from, FIN_SEQUENCE(msg_id));
	passed->msg_id = msg_id;
	passed->segments = 1 << segment;
	slot->passed++;
	release(slot);
}

/* ------------------------------------------------------------------------
 * making notes
 * ------------------------------------------------------------------------
 */

static void
forget_notes(void)
{
	notes = NULL;				/* freed with TopTransactionContext */
	nnotes = 0;
	maxnotes = 0;
}

/* the same kind of thing done to neighbours is one note */
static bool
extend_last_note(const Note *note)
{
	Note	   *last = nnotes > 0 ? &notes[nnotes - 1] : NULL;

	/* an earlier time of expiry, or release, stands for later ones */
	if (note->kind == NOTE_EXPIRY || note->kind == NOTE_RELEASED)
	{
		for (int i = nnotes - 1; i >= Max(nnotes - 4, 0); i--)
		{
			if (notes[i].kind == note->kind &&
				notes[i].subxact == note->subxact &&
				notes[i].queue_id == note->queue_id &&
				notes[i].occupancy == note->occupancy)
			{
				notes[i].at = Min(notes[i].at, note->at);
				notes[i].first = Min(notes[i].first, note->first);
				return true;
			}
		}
	}
	if (last == NULL || last->kind != note->kind ||
		last->subxact != note->subxact || last->queue_id != note->queue_id ||
		last->segments != note->segments || last->at != note->at ||
		last->occupancy != note->occupancy ||
		last->was_due_at != 0 || note->was_due_at != 0 ||
		FIN_BACKLOG_RANK(last->first) != FIN_BACKLOG_RANK(note->first))
		return false;
	last->first = Min(last->first, note->first);
	last->last = Max(last->last, note->last);
	last->count += note->count;
	return true;
}

static void
grow_notes(void)
{
	int			larger = maxnotes == 0 ? FIN_BACKLOG_NOTES_FIRST : maxnotes * 2;

	if (maxnotes == 0)
		notes = MemoryContextAlloc(TopTransactionContext,
								   larger * sizeof(Note));
	else
		notes = repalloc(notes, larger * sizeof(Note));
	maxnotes = larger;
}

static void
add_note(Note *note)
{
	if (shared == NULL)
		return;
	note->subxact = GetCurrentSubTransactionId();
	if (extend_last_note(note))
		return;

	/* beyond the limit a queue is forgotten: one note whatever happens to it */
	if (nnotes >= FIN_BACKLOG_NOTES_MAX && note->kind != NOTE_RESERVED &&
		note->kind != NOTE_ALLOWED)
	{
		note->kind = NOTE_FORGET;
		note->first = note->last = 0;
		note->segments = 0;
		note->at = note->was_due_at = 0;
		for (int i = nnotes - 1; i >= FIN_BACKLOG_NOTES_MAX; i--)
		{
			if (notes[i].kind == NOTE_FORGET &&
				notes[i].queue_id == note->queue_id &&
				notes[i].subxact == note->subxact)
				return;
		}
	}
	if (nnotes == maxnotes)
		grow_notes();
	notes[nnotes++] = *note;
}

/* of a limit, by this transaction; counted in a slot as long as it is the same */
static void
note_held(NoteKind kind, int64 queue_id, int64 count, uint64 occupancy)
{
	Note		note =
	{
		.kind = kind,
		.queue_id = queue_id,
		.count = count,
		.occupancy = occupancy,
	};

	add_note(&note);
}

static void
note_ids(NoteKind kind, int64 queue_id, uint32 segments, int64 first,
		 int64 last, int64 count, TimestampTz at, TimestampTz was_due_at)
{
	Note		note =
	{
		.kind = kind,
		.queue_id = queue_id,
		.segments = segments,
		.first = first,
		.last = last,
		.count = count,
		.at = at,
		.was_due_at = was_due_at,
	};

	add_note(&note);
}

/*
 * This transaction can read what it made readable itself, which the others will
 * hear of after its commit.
 */
static void
view_own(int64 queue_id, TimestampTz now, FinBacklogView *view)
{
	for (int i = 0; i < nnotes; i++)
	{
		const Note *note = &notes[i];
		int			rank = FIN_BACKLOG_RANK(note->first);

		if (note->queue_id == queue_id && note->kind == NOTE_FORGET)
			view_fresh_from_beginning(view);
		if (note->queue_id != queue_id ||
			(note->kind != NOTE_SENT && note->kind != NOTE_READY &&
			 note->kind != NOTE_DELAYED && note->kind != NOTE_CLAIMED))
			continue;
		if (note->at > now)
			continue;
		if (note->at != 0 && note->kind != NOTE_CLAIMED)
			view->due_from = Min(view->due_from, note->at);
		else
		{
			view->next[rank] = Min(view->next[rank], note->first);
			view->fresh[rank] |= note->segments;
			for (int s = 0; s < FIN_SEGMENTS; s++)
			{
				if ((note->segments & (1 << s)) != 0)
					view->from[rank][s] = Min(view->from[rank][s], note->first);
			}
		}
	}
}

static void
note_taken(int64 queue_id, const FinBacklogView *view)
{
	for (int i = 0; i < view->nranges; i++)
		note_ids(NOTE_TAKEN, queue_id, view->ranges[i].segments,
				 view->ranges[i].first, view->ranges[i].last, 0, 0, 0);
}

void
fin_backlog_note_sent(int64 queue_id, int segment, int64 first, int64 last,
					  int64 count, TimestampTz due_at)
{
	note_ids(NOTE_SENT, queue_id, 1 << segment, first, last, count, due_at, 0);
}

void
fin_backlog_note_expiry(int64 queue_id, TimestampTz expires_at)
{
	note_ids(NOTE_EXPIRY, queue_id, 0, 0, 0, 0, expires_at, 0);
}

void
fin_backlog_note_claimed(int64 queue_id, int segment, int64 msg_id,
						 TimestampTz until, TimestampTz was_due_at)
{
	note_ids(NOTE_CLAIMED, queue_id, 1 << segment, msg_id, msg_id, 1, until,
			 was_due_at);
}

void
fin_backlog_note_ended(int64 queue_id, int segment, int64 msg_id,
					   TimestampTz until, TimestampTz was_due_at, bool gone)
{
	note_ids(gone ? NOTE_GONE : NOTE_ENDED, queue_id, 1 << segment, msg_id,
			 msg_id, 1, until, was_due_at);
}

void
fin_backlog_note_ready(int64 queue_id, int segment, int64 msg_id)
{
	note_ids(NOTE_READY, queue_id, 1 << segment, msg_id, msg_id, 0, 0, 0);
}

void
fin_backlog_note_delayed(int64 queue_id, int64 msg_id, TimestampTz due_at)
{
	note_ids(NOTE_DELAYED, queue_id, 0, msg_id, msg_id, 0, due_at, 0);
}

void
fin_backlog_note_released(int64 queue_id)
{
	Slot	   *slot = find_slot(queue_id);
	Note		note = {.kind = NOTE_RELEASED, .queue_id = queue_id};

	if (slot != NULL)
	{
		note.first = note.last = (int64) slot->passed;
		note.occupancy = slot->occupancy;
		release(slot);
	}
	add_note(&note);
}

void
fin_backlog_note_look_again(int64 queue_id)
{
	note_ids(NOTE_RELEASED, queue_id, 0, 0, 0, 0, 0, 0);
}

void
fin_backlog_note_forget(int64 queue_id)
{
	note_ids(NOTE_FORGET, queue_id, 0, 0, 0, 0, 0, 0);
}

void
fin_backlog_note_emptied(int64 queue_id, int segment, int64 left)
{
	note_ids(NOTE_EMPTIED, queue_id, 1 << segment, 0, 0, left, 0, 0);
}

/* ------------------------------------------------------------------------
 * notes taking effect: nothing here may fail
 * ------------------------------------------------------------------------
 */

static int
segment_of(const Note *note)
{
	return pg_rightmost_one_pos32(note->segments);
}

/* a full segment gives way to a clean one, or the worker is to make one so */
static void
consider_segment(Slot *slot)
{
	if (slot->inserted[slot->segment] < FIN_SEGMENT_ROWS)
		return;
	if (slot->clean_segments != 0)
	{
		slot->segment = pg_rightmost_one_pos32(slot->clean_segments);
		slot->clean_segments &= ~(1 << slot->segment);
		slot->used_segments |= 1 << slot->segment;
		ask_for_work();
	}
	else if (!slot->asked)
	{
		slot->asked = true;
		ask_for_work();
	}
}

/* with the last 'deleted' rows, are no more than 'left' left in the segment? */
static bool
falls_to(const Slot *slot, int segment, int64 deleted, int64 left)
{
	int64		now = slot->inserted[segment] - slot->deleted[segment];

	return now <= left && now + deleted > left;
}

static void
count_rows(Slot *slot, const Note *note, int64 inserted, int64 deleted)
{
	int			segment = segment_of(note);

	slot->inserted[segment] += inserted;
	slot->deleted[segment] += deleted;
	slot->used_segments |= note->segments;
	if (inserted > 0)
		slot->clean_segments &= ~note->segments;
	if (segment == slot->segment)
		consider_segment(slot);
	else if (deleted > 0 && falls_to(slot, segment, deleted,
									 FIN_SEGMENT_LEFT_MAX))
		ask_for_work();
	else if (deleted > 0 && falls_to(slot, segment, deleted, 0))
		ask_for_work();
}

/* in a slot that was given anew since, it may have been counted or not */
static void
change_length(Slot *slot, const Note *note, int64 change)
{
	slot->length += change;
	if (note->occupancy == slot->occupancy)
		return;
	slot->counted = false;
	slot->touched++;
}

/* what an open transaction holds of a limit */
static void
give_up(Slot *slot, const Note *note, int64 *held)
{
	if (note->occupancy == slot->occupancy)
		*held -= note->count;
}

static void
commit_sent(Slot *slot, const Note *note)
{
	change_length(slot, note, note->count);
	if (note->at == 0)
		make_ready(slot, note);
	else
	{
		slot->due_from = Min(slot->due_from, note->at);
		push_committed(slot, note, note->at);
	}
	count_rows(slot, note, note->count, 0);
}

static void
set_expiry(Slot *slot, TimestampTz expires_at)
{
	if (expires_at >= slot->expires_from)
		return;
	slot->expires_from = expires_at;
	ask_for_work();
}

/* messages that were passed while this transaction had the key become ready */
static void
commit_released(Slot *slot, const Note *note)
{
	uint64		since = (uint64) note->first;

	if (note->occupancy != slot->occupancy)
		look_again_from(slot, 0);
	else if (slot->passed == since)
		return;
	else if (slot->passed - since > FIN_BACKLOG_PASSED)
		look_again_from(slot, slot->passed_from);
	else
	{
		for (uint64 i = since; i < slot->passed; i++)
		{
			const Passed *passed = &slot->last_passed[i % FIN_BACKLOG_PASSED];
			Note		ready = {
				.first = passed->msg_id,
				.last = passed->msg_id,
				.segments = passed->segments
			};

			make_ready(slot, &ready);
		}
	}
	fin_wait_ring(slot->queue_id, FIN_BACKLOG_PASSED);
}

static void
commit_note(Slot *slot, const Note *note)
{
	Lease		lease;

	switch (note->kind)
	{
		case NOTE_SENT:
			commit_sent(slot, note);
			break;
		case NOTE_CLAIMED:
			make_lease(&lease, note->first, note->last, note->count,
					   note->segments, note->at);
			add_lease(slot, &lease);
			break;
		case NOTE_GONE:
			change_length(slot, note, -note->count);
			end_claims(slot, note->at, note->count);
			count_rows(slot, note, 0, note->count);
			break;
		case NOTE_ENDED:
			end_claims(slot, note->at, note->count);
			break;
		case NOTE_READY:
			make_ready(slot, note);
			break;
		case NOTE_DELAYED:
			slot->due_from = Min(slot->due_from, note->at);
			push_committed(slot, note, note->at);
			break;
		case NOTE_RESERVED:
			give_up(slot, note, &slot->reserved);
			break;
		case NOTE_ALLOWED:
			give_up(slot, note, &slot->claiming);
			break;
		case NOTE_RELEASED:
			commit_released(slot, note);
			break;
		case NOTE_EXPIRY:
			set_expiry(slot, note->at);
			break;
		case NOTE_EMPTIED:
			if (note->count == 0)
				slot->used_segments &= ~note->segments;
			slot->clean_segments |= note->segments;
			slot->inserted[segment_of(note)] = note->count;
			slot->deleted[segment_of(note)] = 0;
			slot->asked = false;
			consider_segment(slot);
			break;
		case NOTE_FORGET:
			forget_hints(slot);
			slot->knows_leases = false;
			slot->counted = false;
			slot->touched++;
			break;
		case NOTE_TAKEN:
		case NOTE_EXPIRY_TAKEN:
			break;
	}
}

static void
abort_note(Slot *slot, const Note *note)
{
	switch (note->kind)
	{
		case NOTE_SENT:
			/* dead rows */
			count_rows(slot, note, note->count, note->count);
			break;
		case NOTE_CLAIMED:
		case NOTE_GONE:
		case NOTE_ENDED:
			if (note->was_due_at != 0)
			{
				slot->due_from = Min(slot->due_from, note->was_due_at);
				push_committed(slot, note, note->was_due_at);
			}
			else
				make_ready(slot, note);
			break;
		case NOTE_TAKEN:
			add_again(slot, note->first, note->last, note->segments);
			break;
		case NOTE_RESERVED:
			give_up(slot, note, &slot->reserved);
			break;
		case NOTE_ALLOWED:
			give_up(slot, note, &slot->claiming);
			break;
		case NOTE_FORGET:
			forget_hints(slot);
			break;
		case NOTE_EXPIRY_TAKEN:
			set_expiry(slot, note->at);
			break;
		case NOTE_READY:
		case NOTE_DELAYED:
		case NOTE_RELEASED:
		case NOTE_EXPIRY:
		case NOTE_EMPTIED:
			break;
	}
}

/* calls 'apply' for the notes of a subtransaction, or all; slots are locked */
static void
apply_notes(void (*apply) (Slot *slot, const Note *note),
			SubTransactionId subxact)
{
	Slot	   *slot = NULL;
	int64		queue_id = 0;

	for (int i = 0; i < nnotes; i++)
	{
		if (subxact != InvalidSubTransactionId && notes[i].subxact != subxact)
			continue;
		if (notes[i].queue_id != queue_id)
		{
			if (slot != NULL)
				release(slot);
			queue_id = notes[i].queue_id;
			slot = find_slot(queue_id);
		}
		if (slot != NULL)
			apply(slot, &notes[i]);
	}
	if (slot != NULL)
		release(slot);
}

static bool
changes_length(const Note *note)
{
	return note->kind == NOTE_SENT || note->kind == NOTE_GONE;
}

/* whoever counts must not count what is just being committed */
static void
announce_note(Slot *slot, Note *note)
{
	note->occupancy = slot->occupancy;
	slot->committing++;
	slot->touched++;
	/* who is to read all segments reads this one before others see the row */
	slot->used_segments |= note->segments;
}

static void
end_commit(Slot *slot, const Note *note)
{
	if (!changes_length(note) || note->occupancy != slot->occupancy)
		return;
	slot->committing--;
	slot->touched++;
}

static void
commit_and_end(Slot *slot, const Note *note)
{
	commit_note(slot, note);
	end_commit(slot, note);
}

static void
abort_and_end(Slot *slot, const Note *note)
{
	abort_note(slot, note);
	end_commit(slot, note);
}

/*
 * Whatever becomes of it: the count cannot be known any more.  What cannot be
 * remembered is found when the hints are forgotten.
 */
static void
hand_over_note(Slot *slot, const Note *note)
{
	Prepared   *prepared;

	slot->doubtful = true;
	if (note->kind == NOTE_RESERVED)
		give_up(slot, note, &slot->reserved);
	if (note->kind == NOTE_ALLOWED)
		give_up(slot, note, &slot->claiming);
	if (note->kind == NOTE_TAKEN)
		add_again(slot, note->first, note->last, note->segments);
	slot->used_segments |= note->segments;
	if (note->kind == NOTE_EXPIRY)
		set_expiry(slot, note->at);
	if (note->segments == 0 && note->kind != NOTE_DELAYED &&
		note->kind != NOTE_RELEASED)
		return;
	if (slot->nprepared == FIN_BACKLOG_PREPARED_MAX)
	{
		slot->forget_at = Min(slot->forget_at, GetCurrentTimestamp() +
							  fin_sweep_interval_s * USECS_PER_SEC);
		return;
	}
	prepared = &slot->prepared[slot->nprepared++];
	prepared->xid = preparing;
	prepared->range.first = note->first;
	prepared->range.last = note->last;
	prepared->range.segments = note->segments;
	prepared->due_at = note->kind == NOTE_CLAIMED ? note->was_due_at :
		note->at;
	prepared->releases = note->kind == NOTE_RELEASED;
}

static void
announce_notes(void)
{
	for (int i = 0; i < nnotes; i++)
	{
		Slot	   *slot = changes_length(&notes[i]) ?
			find_slot(notes[i].queue_id) : NULL;

		if (slot == NULL)
			continue;
		announce_note(slot, &notes[i]);
		release(slot);
	}
}

static void
transaction_ended(XactEvent event, void *arg)
{
	if (notes == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			announce_notes();
			break;
		case XACT_EVENT_COMMIT:
			apply_notes(commit_and_end, InvalidSubTransactionId);
			forget_notes();
			break;
		case XACT_EVENT_ABORT:
			apply_notes(abort_and_end, InvalidSubTransactionId);
			forget_notes();
			break;
		case XACT_EVENT_PRE_PREPARE:
			preparing = GetTopTransactionIdIfAny();
			break;
		case XACT_EVENT_PREPARE:
			apply_notes(hand_over_note, InvalidSubTransactionId);
			forget_notes();
			break;
		default:
			break;
	}
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId subxact,
					 SubTransactionId parent, void *arg)
{
	int			kept = 0;

	if (nnotes == 0)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = 0; i < nnotes; i++)
		{
			if (notes[i].subxact == subxact)
				notes[i].subxact = parent;
		}
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		apply_notes(abort_note, subxact);
		for (int i = 0; i < nnotes; i++)
		{
			if (notes[i].subxact != subxact)
				notes[kept++] = notes[i];
		}
		nnotes = kept;
	}
}

/* ------------------------------------------------------------------------
 * segments
 * ------------------------------------------------------------------------
 */

/* read without the lock: any segment will do */
int
fin_backlog_segment(int64 queue_id)
{
	Slot	   *set = is_usable() ? set_of(queue_id) : NULL;
	Slot	   *slot;
	int			segment = 0;

	for (int i = 0; set != NULL && i < FIN_BACKLOG_WAYS; i++)
	{
		if (is_of(&set[i], queue_id))
			return set[i].segment;
	}
	slot = get_slot(queue_id);
	if (slot != NULL)
	{
		segment = slot->segment;
		release(slot);
	}
	return segment;
}

uint32
fin_backlog_used_segments(int64 queue_id)
{
	Slot	   *slot = get_slot(queue_id);
	uint32		used = FIN_SEGMENTS_ALL;

	if (slot != NULL)
	{
		used = slot->used_segments | (1 << slot->segment);
		release(slot);
	}
	return used;
}

uint64
fin_backlog_work_counter(void)
{
	return shared == NULL ? 0 : pg_atomic_read_u64(&shared->work);
}

/* segments of which at least half is dead, or nothing is known */
static uint32
segments_to_empty(const Slot *slot)
{
	uint32		segments = 0;

	for (int i = 0; i < FIN_SEGMENTS; i++)
	{
		if (i != slot->segment && (slot->clean_segments & (1 << i)) == 0 &&
			slot->deleted[i] * 2 >= slot->inserted[i])
			segments |= 1 << i;
	}
	return segments;
}

/* what there is to do about one slot, which is locked */
static bool
collect_from(Slot *slot, TimestampTz now, FinBacklogWork *work,
			 TimestampTz *next)
{
	work->queue_id = slot->queue_id;
	work->segments = segments_to_empty(slot);
	work->expiry = slot->expires_from <= now;
	if (work->expiry)
		slot->expires_from = FIN_NEVER;
	*next = Min(*next, slot->expires_from);
	return work->segments != 0 || work->expiry;
}

int
fin_backlog_collect_work(TimestampTz now, int *place, FinBacklogWork *work,
						 int max, TimestampTz *next)
{
	int			n = 0;

	while (shared != NULL && *place < FIN_BACKLOG_SLOTS && n < max)
	{
		Slot	   *slot = &shared->slots[(*place)++];
		bool		found = false;

		if (slot->queue_id == 0 || slot->database != MyDatabaseId)
			continue;
		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		if (slot->queue_id != 0 && slot->database == MyDatabaseId)
			found = collect_from(slot, now, &work[n], next);
		LWLockRelease(slot->lock);
		if (!found)
			continue;
		if (work[n].expiry)
			note_ids(NOTE_EXPIRY_TAKEN, work[n].queue_id, 0, 0, 0, 0,
					 DT_NOBEGIN, 0);
		n++;
	}
	if (n < max)
		*place = 0;
	return n;
}

void
fin_backlog_attend(int64 queue_id)
{
	Slot	   *slot = get_slot(queue_id);

	if (slot != NULL)
		release(slot);
}

void
fin_backlog_expires(int64 queue_id, TimestampTz expires_at)
{
	Slot	   *slot = find_slot(queue_id);

	if (slot == NULL)
		return;
	slot->expires_from = Min(slot->expires_from, expires_at);
	release(slot);
}

/* only when half of them are gone is it worth looking at again */
void
fin_backlog_met_rows(int64 queue_id, int segment, int64 rows)
{
	Slot	   *slot = find_slot(queue_id);

	if (slot == NULL)
		return;
	slot->inserted[segment] = Max(slot->inserted[segment],
								  slot->deleted[segment] * 2 + rows);
	release(slot);
}

/*
 * Who made the queue may not have committed yet, and hold some of its limits:
 * then the slot stays, and is looked at in the next round.
 */
void
fin_backlog_drop(int64 queue_id)
{
	Slot	   *slot = find_slot(queue_id);

	if (slot == NULL)
		return;
	if (is_idle(slot))
	{
		slot->queue_id = 0;
		slot->life++;
	}
	else
		slot->expires_from = DT_NOBEGIN;
	release(slot);
}

/* ------------------------------------------------------------------------
 * counts and limits
 * ------------------------------------------------------------------------
 */

/* what this transaction did, and the slot does not know yet */
static void
count_own(int64 queue_id, TimestampTz now, FinBacklogCounts *own)
{
	own->known = true;
	for (int i = 0; i < nnotes; i++)
	{
		const Note *note = &notes[i];
		int64		leased = note->at > now ? note->count : 0;

		if (note->queue_id != queue_id)
			continue;
		if (note->kind == NOTE_FORGET)
			own->known = false;
		if (note->kind == NOTE_SENT)
			own->length += note->count;
		else if (note->kind == NOTE_GONE)
			own->length -= note->count;
		if (note->kind == NOTE_CLAIMED)
			own->leased += leased;
		else if (note->kind == NOTE_GONE || note->kind == NOTE_ENDED)
			own->leased -= leased;
	}
}

/* claims of a locked slot */
static int64
count_leased(const Slot *slot, TimestampTz now)
{
	int64		leased = 0;

	for (int i = 0; i < slot->nleases; i++)
	{
		if (slot->leases[i].ends_to > now)
			leased += Max(slot->leases[i].count, 0);
	}
	return leased;
}

void
fin_backlog_counts(int64 queue_id, TimestampTz now, FinBacklogCounts *counts)
{
	Slot	   *slot = get_slot(queue_id);
	FinBacklogCounts own = {0};

	memset(counts, 0, sizeof(*counts));
	counts->next_at = FIN_NEVER;
	if (slot == NULL)
		return;
	counts->known = slot->counted && !slot->doubtful;
	counts->length = slot->length;
	if (slot->due_from > now)
		counts->next_at = slot->due_from;
	counts->leased = count_leased(slot, now);
	for (int i = 0; i < slot->nleases; i++)
	{
		const Lease *lease = &slot->leases[i];

		if (lease->ends_to > now)
			counts->next_at = Min(counts->next_at,
								  Max(lease->ends_from, now));
	}
	release(slot);
	count_own(queue_id, now, &own);
	counts->known = counts->known && own.known;
	counts->length += own.length;
	counts->leased = Max(counts->leased + own.leased, 0);
}

FinBacklogCounting
fin_backlog_begin_count(int64 queue_id)
{
	Slot	   *slot = get_slot(queue_id);
	FinBacklogCounting begun = {0};

	if (slot == NULL)
		return begun;
	if (slot->committing == 0)
		begun.occupancy = slot->occupancy;
	begun.touched = slot->touched;
	release(slot);
	return begun;
}

bool
fin_backlog_end_count(int64 queue_id, FinBacklogCounting begun, int64 length)
{
	Slot	   *slot = find_slot(queue_id);
	FinBacklogCounts own = {0};
	bool		kept;

	if (slot == NULL)
		return false;
	count_own(queue_id, 0, &own);
	kept = begun.occupancy == slot->occupancy &&
		begun.touched == slot->touched && own.known;
	if (kept)
	{
		slot->length = length - own.length;
		slot->counted = true;
	}
	release(slot);
	return kept;
}

bool
fin_backlog_reserve(int64 queue_id, int64 count, int64 max, int64 counted,
					int64 *length)
{
	Slot	   *slot = get_slot(queue_id);
	uint64		occupancy;
	bool		room;

	*length = counted;
	if (slot == NULL)
		return counted + count <= max;
	*length = (slot->counted ? slot->length : counted) + slot->reserved;
	room = *length + count <= max;
	if (room)
		slot->reserved += count;
	occupancy = slot->occupancy;
	release(slot);
	if (room)
		note_held(NOTE_RESERVED, queue_id, count, occupancy);
	return room;
}

/* a bucket that holds what is handed out in one second */
static void
fill_bucket(Slot *slot, TimestampTz now, int rate_limit)
{
	double		seconds = (now - slot->tokens_at) / 1e6;

	/* of readers at a time, who looked at the clock first may come last */
	if (seconds < 0 && seconds > -1)
		return;
	if (slot->tokens_at == 0 || seconds < 0)
		slot->tokens = rate_limit;
	else
		slot->tokens = Min(rate_limit, slot->tokens + seconds * rate_limit);
	slot->tokens_at = now;
}

int
fin_backlog_allow_claims(int64 queue_id, TimestampTz now, int wanted,
						 int max_in_flight, int rate_limit)
{
	Slot	   *slot = get_slot(queue_id);
	int64		allowed = wanted;
	uint64		occupancy;

	if (slot == NULL)
		return wanted;
	if (max_in_flight > 0)
		allowed = Min(allowed, Max(max_in_flight - slot->claiming -
								   count_leased(slot, now), 0));
	if (rate_limit > 0)
	{
		fill_bucket(slot, now, rate_limit);
		allowed = Min(allowed, (int64) slot->tokens);
		slot->tokens -= allowed;
	}
	slot->claiming += allowed;
	occupancy = slot->occupancy;
	release(slot);
	if (allowed > 0)
		note_held(NOTE_ALLOWED, queue_id, allowed, occupancy);
	return (int) allowed;
}

void
fin_backlog_claims_spared(int64 queue_id, int spared)
{
	Slot	   *slot = find_slot(queue_id);
	uint64		occupancy;

	if (slot == NULL)
		return;
	slot->tokens += spared;
	slot->claiming -= spared;
	occupancy = slot->occupancy;
	release(slot);
	note_held(NOTE_ALLOWED, queue_id, -spared, occupancy);
}

TimestampTz
fin_backlog_next_claim(int64 queue_id, TimestampTz now, int rate_limit)
{
	Slot	   *slot = rate_limit > 0 ? find_slot(queue_id) : NULL;
	double		missing = 0;

	if (slot == NULL)
		return now;
	fill_bucket(slot, now, rate_limit);
	missing = 1 - slot->tokens;
	release(slot);
	return missing <= 0 ? now : now + (int64) (missing * 1e6 / rate_limit) + 1;
}

bool
fin_backlog_knows_leases(int64 queue_id)
{
	Slot	   *slot = get_slot(queue_id);
	bool		known = true;

	if (slot != NULL)
	{
		known = slot->knows_leases;
		release(slot);
	}
	return known;
}

void
fin_backlog_met_all_leases(int64 queue_id)
{
	Slot	   *slot = find_slot(queue_id);

	if (slot == NULL)
		return;
	slot->knows_leases = true;
	release(slot);
}

/* ------------------------------------------------------------------------
 * set-up
 * ------------------------------------------------------------------------
 */

void
fin_backlog_init(void)
{
	/* without shared memory no note is ever made */
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

void
fin_backlog_shmem_request(void)
{
	RequestAddinShmemSpace(sizeof(Shared));
	RequestNamedLWLockTranche(FIN_BACKLOG_TRANCHE, FIN_BACKLOG_SLOTS + 1);
}

void
fin_backlog_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("finance backlog", sizeof(Shared), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche(FIN_BACKLOG_TRANCHE);

		memset(shared, 0, sizeof(Shared));
		pg_atomic_init_u64(&shared->work, 0);
		for (int i = 0; i < FIN_BACKLOG_SLOTS; i++)
			shared->slots[i].lock = &locks[i].lock;
		shared->giving = &locks[FIN_BACKLOG_SLOTS].lock;
	}
	LWLockRelease(AddinShmemInitLock);
}
