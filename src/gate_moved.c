/*
 * gate_moved.c
 *		What the transaction moved, looked at again before it commits.
 *
 * A transaction may have passed the check long before it commits, and pauses
 * committed meanwhile are to stop it.  So what it moved is remembered, and once
 * nothing of the caller's can run any more, neither triggers nor functions, the
 * news of pauses is read again.  What a pause of its own came after stays: the
 * two take effect at one moment.
 *
 * Owns: the keys of what the current transaction moved, each once and labelled
 * with the subtransaction that moved it first.  They are a stack: while a
 * subtransaction is open only it adds keys, so it takes its own from the top
 * when it rolls back.  A table of hashes finds them; as only the last key added
 * is ever removed, emptying its place leaves no other one unreachable.  The
 * memory is kept for the next transaction, unless there is much of it.
 * Above KEYS_MAX keys, single ones are not remembered any more: then any pause
 * that came in the meantime stops the transaction.
 *
 * The callbacks that run after the commit, and at a rollback, never allocate
 * and cannot fail.  Takes no locks but those of the lookups.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "gate_parts.h"
#include "query.h"

#define KEYS_FIRST	64			/* powers of two */
#define KEYS_KEPT	1024
#define KEYS_MAX	(1024 * 1024)
#define NO_TENANT	(-1)

typedef struct Moved
{
	FinGateKey	key;
	SubTransactionId subxact;
	int32		tenant_id;		/* of a tenant's key, else NO_TENANT */
} Moved;

static Moved *moved = NULL;		/* all in TopMemoryContext */
static int	nmoved = 0;
static int	maxmoved = 0;
static uint32 *places = NULL;	/* 2 * maxmoved: 1 + index into moved, or 0 */
static SubTransactionId overflow = InvalidSubTransactionId; /* since that one */
static bool has_checked = false;	/* in this transaction */
static uint64 checked_with;		/* fin_gate_pauses_read() at the first check */

/* ------------------------------------------------------------------------
 * the keys
 * ------------------------------------------------------------------------ */

/* where the key is, or would be */
static uint32 *
place_of(FinGateKey key)
{
	uint32		mask = 2 * maxmoved - 1;
	uint32		at = (uint32) key & mask;

	while (places[at] != 0 && moved[places[at] - 1].key != key)
		at = (at + 1) & mask;
	return &places[at];
}

static bool
has_moved(FinGateKey key)
{
	return nmoved > 0 && *place_of(key) != 0;
}

/* an ERROR leaves all as it was */
static void
make_room(void)
{
	int			larger = maxmoved == 0 ? KEYS_FIRST : maxmoved * 2;
	uint32	   *new_places = MemoryContextAllocZero(TopMemoryContext,
													sizeof(uint32) * 2 * larger);

	if (moved == NULL)
		moved = MemoryContextAlloc(TopMemoryContext, sizeof(Moved) * larger);
	else
		moved = repalloc(moved, sizeof(Moved) * larger);
	if (places != NULL)
		pfree(places);
	places = new_places;
	maxmoved = larger;
	for (int i = 0; i < nmoved; i++)
		*place_of(moved[i].key) = i + 1;
}

static void
remove_last(void)
{
	*place_of(moved[nmoved - 1].key) = 0;
	nmoved--;
}

static void
add_key(FinGateKey key, int32 tenant_id)
{
	uint32	   *place;

	if (maxmoved == 0)
		make_room();
	place = place_of(key);
	if (*place != 0)
		return;
	/* but every tenant: that is whose pauses are read */
	if (nmoved >= KEYS_MAX && tenant_id == NO_TENANT)
	{
		if (overflow == InvalidSubTransactionId)
			overflow = GetCurrentSubTransactionId();
		return;
	}
	if (nmoved == maxmoved)
	{
		make_room();
		place = place_of(key);
	}
	moved[nmoved].key = key;
	moved[nmoved].subxact = GetCurrentSubTransactionId();
	moved[nmoved].tenant_id = tenant_id;
	nmoved++;
	*place = nmoved;
}

void
fin_gate_moved(const FinTransferRow *row)
{
	FinGateKeys keys;

	fin_gate_keys(row->tenant_id, row->from_account_id, row->to_account_id,
				  row->type, row->currency, &keys);
	add_key(keys.tenant, row->tenant_id);
	add_key(keys.from, NO_TENANT);
	add_key(keys.to, NO_TENANT);
	add_key(keys.type, NO_TENANT);
	add_key(keys.currency, NO_TENANT);
}

void
fin_gate_note_check(void)
{
	if (has_checked)
		return;
	has_checked = true;
	checked_with = fin_gate_pauses_read();
}

/* at the end of the transaction: must not fail */
static void
forget_all(void)
{
	has_checked = false;
	overflow = InvalidSubTransactionId;
	if (maxmoved > KEYS_KEPT)
	{
		pfree(moved);
		pfree(places);
		moved = NULL;
		places = NULL;
		nmoved = maxmoved = 0;
	}
	while (nmoved > 0)
		remove_last();
}

/* ------------------------------------------------------------------------
 * looking again
 * ------------------------------------------------------------------------ */

static bool
stops(const FinGatePause *pause)
{
	if (TransactionIdIsCurrentTransactionId(pause->xmin))
		return false;
	return overflow != InvalidSubTransactionId || has_moved(pause->key) ||
		pause->key == fin_gate_key(FIN_GATE_EVERYWHERE, 0, 0, NULL);
}

static void
look_at(int32 tenant_id)
{
	const FinGateBook *book = fin_gate_book(tenant_id);

	for (int i = 0; i < book->npauses; i++)
	{
		if (stops(&book->pauses[i]))
			fin_fault_raise(fin_gate_fault_paused(&book->pauses[i]));
	}
}

/* reads tables, as a deferred trigger does, which may have run just before */
static void
look_again(void)
{
	FinQueryScope scope;

	AcceptInvalidationMessages();
	if (fin_gate_pauses_read() == checked_with && checked_with != 0)
		return;
	/* the extension is dropped, with all it moved */
	if (!OidIsValid(get_namespace_oid("finance", true)))
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	fin_query_begin(&scope);
	for (int i = 0; i < nmoved; i++)
	{
		if (moved[i].tenant_id != NO_TENANT)
			look_at(moved[i].tenant_id);
	}
	fin_query_end(&scope);
	PopActiveSnapshot();
}

/* ------------------------------------------------------------------------
 * callbacks
 * ------------------------------------------------------------------------ */

static void
transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (nmoved > 0)
				look_again();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_all();
			break;
		default:
			break;
	}
}

/* what a descendant moved has its parent's label by now */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId subxact,
					 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = nmoved; i > 0 && moved[i - 1].subxact == subxact; i--)
			moved[i - 1].subxact = parent;
		if (overflow == subxact)
			overflow = parent;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (nmoved > 0 && moved[nmoved - 1].subxact == subxact)
			remove_last();
		if (overflow == subxact)
			overflow = InvalidSubTransactionId;
	}
}

void
fin_gate_moved_init(void)
{
	RegisterXactCallback(transaction_event, NULL);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}
