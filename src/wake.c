/*
 * wake.c
 *		Shared-memory doorbells, and the transaction callbacks that ring them.
 *
 * Owns
 *	- in shared memory, a slot for the launcher and for each worker: the
 *	  database it serves, its latch, the times at which the first of the newly
 *	  made holds expires and of the newly prepared half messages is to be
 *	  checked, and a set-associative table of bells.  A
 *	  queue may only sit in the few places of its set, so that ringing takes a
 *	  constant time; when all are taken by others, the slot asks for attention
 *	  and the worker looks at all its queues instead.  Also the set of queues
 *	  whose bells it wants to hear, and whether anything was appended to the
 *	  audit log.
 *	- in the backend, the notes of the current transaction, labelled with the
 *	  subtransaction that made them.  They live in TopTransactionContext and
 *	  are allocated when noted: the callbacks never allocate.
 *
 * Locks: one LWLock per slot, held for one bell by producers and for a scan of
 * the table by the slot's owner; never two at once.  Finding one's slot reads
 * without a lock and checks again under it.
 *
 * A queue is looked up in the set without the lock, after the commit.  When it
 * is not there, a subscription to it that commits later first makes the worker
 * hear all and then rings for the queue, and the worker's look sees what was
 * committed before.
 *
 * After the commit nothing here may fail, as an ERROR would be a PANIC.  The
 * callback runs when the transaction is already seen as committed by new
 * snapshots, but before its locks and cache invalidations are out: whoever it
 * wakes must read tables, not caches, to see what this transaction did.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "wait.h"
#include "wake.h"

#define FIN_WAKE_TRANCHE	"finance_wake"
#define FIN_WAKE_WAYS		8	/* places a queue may sit in */
#define FIN_WORKERS_MAX		256
#define FIN_NOTES_MAX		1024	/* of one transaction */
#define FIN_NOTES_FIRST		16
#define FIN_DUE_NOW			1	/* as a due time, which 0 says there is none */

typedef struct Bell
{
	int64		queue_id;
	int64		highest_id;
	int64		count;
	TimestampTz rung_at;
	TimestampTz due_at;			/* 0: none */
	TimestampTz answered_at;	/* start of the quiet window; 0: not quiet */
} Bell;

typedef struct Slot
{
	LWLock	   *lock;			/* protects all below but the atomics */
	Latch	   *latch;			/* NULL: nobody here */
	Oid			database;		/* InvalidOid for the launcher */
	bool		attention;
	TimestampTz expiry_at;		/* see fin_wake_collect_expiry() */
	TimestampTz half_at;		/* see fin_wake_collect_half() */
	pg_atomic_uint64 promise;	/* see fin_wake_promise() */
	pg_atomic_uint32 appended;	/* see fin_wake_take_appended() */
	uint64		heard_version;	/* counts changes of subscriptions */
	bool		hears_all;		/* read without the lock, as is heard */
	FinHeard	heard;
	Bell		bells[FIN_BELLS_MAX];
} Slot;

typedef enum NoteKind
{
	NOTE_QUEUE,
	NOTE_CLAIM,
	NOTE_SUBSCRIPTIONS,
	NOTE_EXPIRY,
	NOTE_HALF,
	NOTE_ATTENTION,
	NOTE_LAUNCHER				/* queue_id holds a database's oid */
} NoteKind;

typedef struct Note
{
	NoteKind	kind;
	SubTransactionId subxact;
	int64		queue_id;
	int64		highest_id;
	int64		count;
	TimestampTz due_at;
} Note;

static Slot *slots = NULL;

static Note *notes = NULL;		/* in TopTransactionContext */
static int	nnotes = 0;
static int	maxnotes = 0;
static bool appended = false;	/* this transaction did, to the audit log */

/* ---- shared side ---- */

bool
fin_wake_available(void)
{
	return slots != NULL;
}

void
fin_wake_require(int elevel)
{
	if (slots == NULL)
		ereport(elevel,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the finance worker is not running on this server"),
				errhint("Set shared_preload_libraries = 'finance' and restart the server."));
}

/* a slot per worker that can exist, and the launcher's */
int
fin_wake_slots(void)
{
	return Min(max_worker_processes, FIN_WORKERS_MAX) + 1;
}

static bool
is_idle(const Bell *bell)
{
	return bell->count == 0 && bell->due_at == 0 && bell->answered_at == 0;
}

/* ---- the set of queues that are heard ---- */

static uint32
heard_bit(int64 queue_id)
{
	return hash_bytes((const unsigned char *) &queue_id, sizeof(queue_id)) %
		FIN_HEARD_BITS;
}

void
fin_wake_heard_add(FinHeard *heard, int64 queue_id)
{
	uint32		bit = heard_bit(queue_id);

	heard->words[bit / 32] |= (uint32) 1 << (bit % 32);
}

/* a subscriber's own question is always let through */
static bool
is_heard(const volatile Slot *slot, const Note *note)
{
	uint32		bit = heard_bit(note->queue_id);

	if (slot->hears_all || note->due_at == FIN_DUE_NOW)
		return true;
	pg_read_barrier();
	return (slot->heard.words[bit / 32] >> (bit % 32) & 1) != 0;
}

bool
fin_wake_hears_all(int slot, uint64 *version)
{
	bool		all;

	LWLockAcquire(slots[slot].lock, LW_SHARED);
	all = slots[slot].hears_all;
	*version = slots[slot].heard_version;
	LWLockRelease(slots[slot].lock);
	return all;
}

void
fin_wake_hear(int slot, uint64 version, const FinHeard *heard)
{
	Slot	   *mine = &slots[slot];

	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	if (mine->heard_version == version)
	{
		/* in between, none but those of both sets would be heard */
		mine->hears_all = true;
		pg_write_barrier();
		mine->heard = *heard;
		pg_write_barrier();
		mine->hears_all = false;
	}
	LWLockRelease(mine->lock);
}

static void
hear_all(Slot *slot)
{
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	slot->heard_version++;
	slot->hears_all = true;
	LWLockRelease(slot->lock);
}

/* ---- bells ---- */

/* the queue's bell; with 'make' also a free one, then set up; else NULL */
static Bell *
find_bell(Slot *slot, int64 queue_id, bool make)
{
	uint32		hash = hash_bytes((const unsigned char *) &queue_id,
								  sizeof(queue_id));
	Bell	   *set = &slot->bells[hash % (FIN_BELLS_MAX / FIN_WAKE_WAYS) *
								   FIN_WAKE_WAYS];
	Bell	   *spare = NULL;

	for (int i = 0; i < FIN_WAKE_WAYS; i++)
	{
		if (is_idle(&set[i]))
			spare = &set[i];
		else if (set[i].queue_id == queue_id)
			return &set[i];
	}
	if (!make || spare == NULL)
		return NULL;
	memset(spare, 0, sizeof(Bell));
	spare->queue_id = queue_id;
	return spare;
}

/*
 * Returns whether the owner must be woken.  It need not be when the bell was
 * ringing already, since it was woken then, nor in the quiet window, at whose
 * end it looks anyway: so a busy queue costs its producers no system call.
 */
static bool
ring_bell(Slot *slot, const Note *note)
{
	Bell	   *bell = find_bell(slot, note->queue_id, true);
	bool		wake = false;

	if (bell == NULL)
	{
		wake = !slot->attention;
		slot->attention = true;
		return wake;
	}
	if (note->kind != NOTE_CLAIM && note->count > 0)
	{
		if (bell->count == 0)
		{
			bell->rung_at = GetCurrentTransactionStopTimestamp();
			wake = bell->answered_at == 0;
		}
		bell->count += note->count;
		bell->highest_id = Max(bell->highest_id, note->highest_id);
	}
	if (note->due_at != 0 &&
		(bell->due_at == 0 || note->due_at < bell->due_at))
	{
		bell->due_at = note->due_at;
		if ((uint64) note->due_at < pg_atomic_read_u64(&slot->promise))
			wake = true;
	}
	return wake;
}

/* returns whether the owner, who sleeps until its promise, must be woken */
static bool
ring_expiry(Slot *slot, TimestampTz due_at)
{
	if (due_at >= slot->expiry_at)
		return false;
	slot->expiry_at = due_at;
	return due_at == FIN_EXPIRY_ALL ||
		(uint64) due_at < pg_atomic_read_u64(&slot->promise);
}

static bool
ring_half(Slot *slot, TimestampTz due_at)
{
	if (due_at >= slot->half_at)
		return false;
	slot->half_at = due_at;
	return due_at == FIN_HALF_ALL ||
		(uint64) due_at < pg_atomic_read_u64(&slot->promise);
}

static bool
ring_attention(Slot *slot)
{
	bool		wake = !slot->attention;

	slot->attention = true;
	wake |= ring_expiry(slot, FIN_EXPIRY_ALL);
	wake |= ring_half(slot, FIN_HALF_ALL);
	return wake;
}

static void
ring(Slot *slot, Oid database, const Note *note)
{
	Latch	   *latch = NULL;

	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	if (slot->latch != NULL && slot->database == database)
	{
		bool		wake;

		if (note->kind == NOTE_ATTENTION)
			wake = ring_attention(slot);
		else if (note->kind == NOTE_EXPIRY)
			wake = ring_expiry(slot, note->due_at);
		else if (note->kind == NOTE_HALF)
			wake = ring_half(slot, note->due_at);
		else
			wake = ring_bell(slot, note);
		if (wake)
			latch = slot->latch;
	}
	LWLockRelease(slot->lock);
	/* a PGPROC is never freed: at worst this wakes its next owner for nothing */
	if (latch != NULL)
		SetLatch(latch);
}

/* slot of the worker of this database, or NULL */
static Slot *
my_worker_slot(void)
{
	static int	last = 1;
	int			n = fin_wake_slots();

	if (last < n && slots[last].latch != NULL &&
		slots[last].database == MyDatabaseId)
		return &slots[last];
	for (int i = FIN_WAKE_LAUNCHER + 1; i < n; i++)
	{
		if (slots[i].latch != NULL && slots[i].database == MyDatabaseId)
		{
			last = i;
			return &slots[i];
		}
	}
	return NULL;
}

void
fin_wake_ring_worker(void)
{
	Slot	   *mine = slots != NULL ? my_worker_slot() : NULL;

	if (mine != NULL)
		fin_wake_ring(mine - slots);
}

static void
ring_readers(const Note *note)
{
	if (note->kind != NOTE_CLAIM && note->count > 0)
		fin_wait_ring(note->queue_id, note->count);
	if (note->due_at == FIN_DUE_NOW)
		fin_wait_ring(note->queue_id, FIN_WAITERS_MAX);
	else if (note->due_at > FIN_DUE_NOW)
		fin_wait_ring_due(note->queue_id, note->due_at);
}

static void
publish_note(Slot *mine, const Note *note)
{
	switch (note->kind)
	{
		case NOTE_LAUNCHER:
			ring(&slots[FIN_WAKE_LAUNCHER], InvalidOid, note);
			return;
		case NOTE_QUEUE:
		case NOTE_CLAIM:
			ring_readers(note);
			if (note->kind == NOTE_CLAIM && note->due_at == 0)
				return;
			if (mine != NULL && is_heard(mine, note))
				ring(mine, MyDatabaseId, note);
			return;
		case NOTE_SUBSCRIPTIONS:
			return;
		default:
			if (mine != NULL)
				ring(mine, MyDatabaseId, note);
	}
}

/* after the commit: must not fail */
static void
publish(void)
{
	Slot	   *mine;

	/*
	 * A worker attaches before it takes its first snapshot.  So one that is not
	 * seen here sees what was committed.
	 */
	pg_memory_barrier();
	mine = my_worker_slot();
	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].kind == NOTE_SUBSCRIPTIONS && mine != NULL)
			hear_all(mine);
	}
	for (int i = 0; i < nnotes; i++)
		publish_note(mine, &notes[i]);
}

/*
 * After the commit: must not fail.  Nearly always somebody else has told of his
 * already, and one look at a word that nobody writes is all there is to it.
 */
static void
publish_appended(void)
{
	Slot	   *mine;

	/* either the word is seen to be taken, or who takes it sees the commit */
	pg_memory_barrier();
	mine = my_worker_slot();
	if (mine == NULL || pg_atomic_read_u32(&mine->appended) != 0 ||
		pg_atomic_exchange_u32(&mine->appended, 1) != 0)
		return;
	fin_wake_ring(mine - slots);
}

bool
fin_wake_has_appended(int slot)
{
	return pg_atomic_read_u32(&slots[slot].appended) != 0;
}

bool
fin_wake_take_appended(int slot)
{
	return pg_atomic_exchange_u32(&slots[slot].appended, 0) != 0;
}

/* after a rollback, which gave back what was taken: must not fail */
static void
publish_rollback(const Note *note)
{
	if (note->kind == NOTE_CLAIM)
		fin_wait_ring(note->queue_id, note->count);
}

void
fin_wake_attach(int slot, Oid database)
{
	Slot	   *mine = &slots[slot];

	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	memset(mine->bells, 0, sizeof(mine->bells));
	mine->attention = false;
	mine->expiry_at = FIN_NEVER;
	mine->half_at = FIN_NEVER;
	pg_atomic_write_u32(&mine->appended, 0);
	mine->heard_version++;
	mine->hears_all = true;
	mine->database = database;
	mine->latch = &MyProc->procLatch;
	pg_atomic_write_u64(&mine->promise, (uint64) FIN_NEVER);
	LWLockRelease(mine->lock);
	pg_memory_barrier();
}

void
fin_wake_detach(int slot)
{
	LWLockAcquire(slots[slot].lock, LW_EXCLUSIVE);
	slots[slot].latch = NULL;
	slots[slot].database = InvalidOid;
	LWLockRelease(slots[slot].lock);
}

void
fin_wake_ring(int slot)
{
	Latch	   *latch;

	LWLockAcquire(slots[slot].lock, LW_SHARED);
	latch = slots[slot].latch;
	LWLockRelease(slots[slot].lock);
	if (latch != NULL)
		SetLatch(latch);
}

/* a clock that stepped back ends the window rather than stretching it */
static bool
is_quiet(const Bell *bell, TimestampTz now, int64 window_us)
{
	return bell->answered_at != 0 && now >= bell->answered_at &&
		now - bell->answered_at < window_us;
}

int
fin_wake_collect(int slot, TimestampTz now, int64 window_us,
				 FinBell *bells, bool *attention, TimestampTz *next)
{
	Slot	   *mine = &slots[slot];
	int			n = 0;

	*next = FIN_NEVER;
	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	*attention = mine->attention;
	mine->attention = false;
	for (int i = 0; i < FIN_BELLS_MAX; i++)
	{
		Bell	   *bell = &mine->bells[i];
		bool		ready = bell->count > 0;

		if (is_idle(bell))
			continue;
		if (is_quiet(bell, now, window_us))
		{
			ready = false;
			*next = Min(*next, bell->answered_at + window_us);
		}
		else
			bell->answered_at = 0;
		if (!ready && bell->due_at == 0)
			continue;
		bells[n].queue_id = bell->queue_id;
		bells[n].highest_id = ready ? bell->highest_id : 0;
		bells[n].count = ready ? bell->count : 0;
		bells[n].rung_at = bell->rung_at;
		bells[n].due_at = bell->due_at;
		bell->due_at = 0;
		n++;
	}
	LWLockRelease(mine->lock);
	return n;
}

TimestampTz
fin_wake_collect_expiry(int slot)
{
	Slot	   *mine = &slots[slot];
	TimestampTz at;

	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	at = mine->expiry_at;
	mine->expiry_at = FIN_NEVER;
	LWLockRelease(mine->lock);
	return at;
}

TimestampTz
fin_wake_collect_half(int slot)
{
	Slot	   *mine = &slots[slot];
	TimestampTz at;

	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	at = mine->half_at;
	mine->half_at = FIN_NEVER;
	LWLockRelease(mine->lock);
	return at;
}

void
fin_wake_answered(int slot, TimestampTz now, int64 window_us,
				  const FinBell *bells, int n)
{
	Slot	   *mine = &slots[slot];

	LWLockAcquire(mine->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		Bell	   *bell = find_bell(mine, bells[i].queue_id, true);

		if (bell == NULL)
			continue;			/* all places taken: no window, no harm */
		bell->count -= Min(bell->count, bells[i].count);
		if (bell->count == 0)
			bell->highest_id = 0;
		else
			bell->rung_at = now;
		bell->answered_at = window_us > 0 ? now : 0;
	}
	LWLockRelease(mine->lock);
}

TimestampTz
fin_wake_quiet_until(int slot, TimestampTz now, int64 window_us,
					 int64 queue_id)
{
	Slot	   *mine = &slots[slot];
	TimestampTz until = 0;
	Bell	   *bell;

	LWLockAcquire(mine->lock, LW_SHARED);
	bell = find_bell(mine, queue_id, false);
	if (bell != NULL && is_quiet(bell, now, window_us))
		until = bell->answered_at + window_us;
	LWLockRelease(mine->lock);
	return until;
}

void
fin_wake_promise(int slot, TimestampTz when)
{
	pg_atomic_write_u64(&slots[slot].promise, (uint64) when);
	pg_memory_barrier();
}

void
fin_wake_shmem_request(void)
{
	RequestAddinShmemSpace(mul_size(fin_wake_slots(), sizeof(Slot)));
	RequestNamedLWLockTranche(FIN_WAKE_TRANCHE, fin_wake_slots());
}

void
fin_wake_shmem_startup(void)
{
	bool		found;
	int			n = fin_wake_slots();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots = ShmemInitStruct("finance wake", mul_size(n, sizeof(Slot)), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche(FIN_WAKE_TRANCHE);

		memset(slots, 0, mul_size(n, sizeof(Slot)));
		for (int i = 0; i < n; i++)
		{
			slots[i].lock = &locks[i].lock;
			pg_atomic_init_u64(&slots[i].promise, (uint64) FIN_NEVER);
			pg_atomic_init_u32(&slots[i].appended, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

/* ---- backend-local side ---- */

static void
forget_notes(void)
{
	notes = NULL;				/* freed with TopTransactionContext */
	nnotes = 0;
	maxnotes = 0;
	appended = false;
}

/* that subtransaction's note of the same matter among the first n, or NULL */
static Note *
find_note(int n, SubTransactionId subxact, NoteKind kind, int64 queue_id)
{
	for (int i = n - 1; i >= 0; i--)
	{
		if (notes[i].subxact == subxact && notes[i].kind == kind &&
			notes[i].queue_id == queue_id)
			return &notes[i];
	}
	return NULL;
}

static void
merge_note(Note *into, const Note *from)
{
	into->highest_id = Max(into->highest_id, from->highest_id);
	into->count += from->count;
	if (into->due_at == 0 ||
		(from->due_at != 0 && from->due_at < into->due_at))
		into->due_at = from->due_at;
}

static void
add_note(const Note *note)
{
	if (nnotes == maxnotes)
	{
		int			larger = maxnotes == 0 ? FIN_NOTES_FIRST : maxnotes * 2;

		if (maxnotes == 0)
			notes = MemoryContextAlloc(TopTransactionContext,
									   larger * sizeof(Note));
		else
			notes = repalloc(notes, larger * sizeof(Note));
		maxnotes = larger;
	}
	notes[nnotes++] = *note;
}

static void
make_note(NoteKind kind, int64 queue_id, int64 highest_id, int64 count,
		  TimestampTz due_at)
{
	Note		note =
	{
		.kind = kind,
		.subxact = GetCurrentSubTransactionId(),
		.queue_id = queue_id,
		.highest_id = highest_id,
		.count = count,
		.due_at = due_at,
	};
	Note	   *found;

	if (slots == NULL)
		return;

	/*
	 * Past the limit the worker looks at all queues.  That note itself may
	 * still come in, once per level: subtransactions are limited elsewhere.
	 */
	if (nnotes >= FIN_NOTES_MAX && (kind == NOTE_QUEUE || kind == NOTE_CLAIM) &&
		find_note(nnotes, note.subxact, kind, queue_id) == NULL)
	{
		note.kind = NOTE_ATTENTION;
		note.queue_id = 0;
		note.count = 0;
		note.due_at = 0;
	}
	found = find_note(nnotes, note.subxact, note.kind, note.queue_id);
	if (found != NULL)
		merge_note(found, &note);
	else
		add_note(&note);
}

void
fin_wake_note(int64 queue_id, int64 highest_id, int64 count)
{
	if (count > 0)
		make_note(NOTE_QUEUE, queue_id, highest_id, count, 0);
}

void
fin_wake_note_due(int64 queue_id, TimestampTz due_at)
{
	if (due_at <= GetCurrentTransactionStartTimestamp())
		due_at = FIN_DUE_NOW;
	make_note(NOTE_QUEUE, queue_id, 0, 0, due_at);
}

void
fin_wake_note_claim(int64 queue_id, int64 count, TimestampTz due_at)
{
	make_note(NOTE_CLAIM, queue_id, 0, count, Max(due_at, 0));
}

void
fin_wake_note_subscriptions(void)
{
	make_note(NOTE_SUBSCRIPTIONS, 0, 0, 0, 0);
}

void
fin_wake_note_expiry(TimestampTz due_at)
{
	make_note(NOTE_EXPIRY, 0, 0, 0, due_at <= 0 ? FIN_EXPIRY_ALL : due_at);
}

void
fin_wake_note_half(TimestampTz due_at)
{
	make_note(NOTE_HALF, 0, 0, 0, due_at <= 0 ? FIN_HALF_ALL : due_at);
}

/* a note of a subtransaction that is rolled back rings for nothing, and rarely */
void
fin_wake_note_appended(void)
{
	appended = slots != NULL;
}

void
fin_wake_note_attention(void)
{
	make_note(NOTE_ATTENTION, 0, 0, 0, 0);
}

void
fin_wake_note_launcher(Oid database)
{
	make_note(NOTE_LAUNCHER, (int64) database, 0, 1, 0);
}

static void
transaction_ended(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (nnotes > 0)
				publish();
			if (appended)
				publish_appended();
			forget_notes();
			break;
		case XACT_EVENT_ABORT:
			for (int i = 0; i < nnotes; i++)
				publish_rollback(&notes[i]);
			forget_notes();
			break;
		case XACT_EVENT_PREPARE:
			/* COMMIT PREPARED tells nobody: who seals looks for it from now on */
			if (appended)
				publish_appended();
			forget_notes();
			break;
		default:
			break;
	}
}

/*
 * Relabel the child's notes, joining those the parent has too; these come
 * before, as a parent notes nothing while its child is open.
 */
static void
give_to_parent(SubTransactionId child, SubTransactionId parent)
{
	int			kept = 0;

	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].subxact == child)
		{
			Note		note = notes[i];
			Note	   *found = find_note(kept, parent, note.kind,
										  note.queue_id);

			if (found != NULL)
			{
				merge_note(found, &note);
				continue;
			}
			note.subxact = parent;
			notes[kept++] = note;
		}
		else
			notes[kept++] = notes[i];
	}
	nnotes = kept;
}

static void
drop_notes_of(SubTransactionId subxact)
{
	int			kept = 0;

	for (int i = 0; i < nnotes; i++)
	{
		if (notes[i].subxact != subxact)
			notes[kept++] = notes[i];
		else
			publish_rollback(&notes[i]);
	}
	nnotes = kept;
}

static void
subtransaction_ended(SubXactEvent event, SubTransactionId subxact,
					 SubTransactionId parent, void *arg)
{
	if (nnotes == 0)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		give_to_parent(subxact, parent);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		drop_notes_of(subxact);
}

void
fin_wake_init(void)
{
	/* without shared memory no note is ever made */
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(transaction_ended, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}
