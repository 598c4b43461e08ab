/*
 * posting_chain.c
 *		Orders that stand or fall together: settling the members of a chain in
 *		turn, and undoing what they did when one does not come off.
 *
 * Owns nothing between calls; what is undone is undone in memory, before
 * anything is written.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "engine.h"
#include "errors.h"
#include "posting_parts.h"

/* ------------------------------------------------------------------------
 * undo
 * ------------------------------------------------------------------------ */

static FinUndo *
next_undo(FinPosting *posting)
{
	if (posting->nundo == posting->undo_size)
	{
		int			size = Max(posting->undo_size * 2, 16);

		posting->undo = posting->undo == NULL ?
			palloc(sizeof(FinUndo) * size) :
			repalloc_huge(posting->undo, sizeof(FinUndo) * size);
		posting->undo_size = size;
	}
	return &posting->undo[posting->nundo++];
}

void
fin_posting_save_for_undo(FinPosting *posting, const FinMovement *movement)
{
	FinAccount *accounts[] = {movement->from, movement->to};

	for (int side = 0; side < 2; side++)
	{
		FinUndo    *undo = next_undo(posting);

		undo->account = accounts[side];
		undo->saved_account = *accounts[side];
		undo->hold = NULL;
	}
	if (movement->hold != NULL)
	{
		FinUndo    *undo = next_undo(posting);

		undo->account = NULL;
		undo->hold = movement->hold;
		undo->saved_hold = *movement->hold;
	}
}

static void
undo_chain(FinPosting *posting)
{
	while (posting->nundo > 0)
	{
		FinUndo    *undo = &posting->undo[--posting->nundo];

		if (undo->account != NULL)
			*undo->account = undo->saved_account;
		else
			*undo->hold = undo->saved_hold;
	}
	if (posting->meter != NULL)
		fin_meter_undo(posting->meter);
}

/* ------------------------------------------------------------------------
 * chains
 * ------------------------------------------------------------------------ */

int
fin_posting_chain_end(const FinPosting *posting, int start)
{
	int			end = start;

	while (end < posting->norders - 1 && posting->orders[end].linked)
		end++;
	return end;
}

/* the last order, linked to one that is not there? */
static bool
is_open(const FinPosting *posting, int i)
{
	return i == posting->norders - 1 && posting->orders[i].linked;
}

static void
fail_open(FinPosting *posting, int i)
{
	fin_posting_fail(posting, i,
					 fin_fault(ERRCODE_FIN_CHAIN_OPEN,
							   "the last request is linked to a next one"));
}

/* the answer of an earlier call or chain, which stays done? */
static bool
stays_done(const FinPosting *posting, int i)
{
	const FinKeyGroup *group;

	if (!posting->outcomes[i].replayed)
		return false;
	/* one that repeated a member of its own chain has lost its owner by now */
	group = &posting->groups[posting->group_of[i]];
	return group->is_taken || group->owner >= 0;
}

/*
 * A member that its chain takes along; but what an earlier request did stays
 * done, and a repeated one is answered whatever now befalls the others.
 */
static void
fail_with_chain(FinPosting *posting, int i, int culprit, const FinFault *fault)
{
	FinKeyGroup *group = NULL;
	bool		owns_key;

	if (stays_done(posting, i))
		return;
	if (is_open(posting, i))
	{
		fail_open(posting, i);
		return;
	}
	if (posting->group_of[i] >= 0)
		group = &posting->groups[posting->group_of[i]];
	owns_key = group != NULL && group->owner == i;
	fin_posting_fail(posting, i, fault);
	/* the key of a journal that risk rejected stands for the rejected transfer */
	if (owns_key && posting->orders[i].in_journal &&
		posting->outcomes[culprit].row.rejected)
	{
		group->owner = i;
		group->answer = culprit;
		return;
	}
	(void) fin_posting_replay(posting, i, true);
}

/* the members but the culprit, whose own fault or rejection stays */
static void
fail_others(FinPosting *posting, int start, int end, int culprit)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_LINKED_FAILED,
								  "another request of the chain failed");

	fin_fault_detail(fault, "It is request %d.", culprit + 1);
	for (int i = start; i <= end; i++)
	{
		if (i != culprit)
			fail_with_chain(posting, i, culprit, fault);
	}
}

/* what a rejected transfer tells of its accounts is how its chain left them */
static void
look_again(FinPosting *posting, int i)
{
	FinMovement movement = {0};

	if (!posting->outcomes[i].row.rejected || posting->outcomes[i].replayed)
		return;
	movement.from = fin_posting_find_locked(posting, posting->from_ids[i]);
	movement.to = fin_posting_find_locked(posting, posting->to_ids[i]);
	fin_engine_leave(&movement, &posting->outcomes[i].row.moved);
}

static void
name_journal(FinPosting *posting, int start, int end)
{
	int64		journal_id = 0;

	for (int i = start; i <= end; i++)
	{
		FinTransferRow *row = &posting->outcomes[i].row;

		if (row->id == 0 || posting->outcomes[i].replayed)
			continue;
		if (journal_id == 0)
			journal_id = row->id;
		row->journal_id = journal_id;
	}
}

/* settles the members in turn up to the first that does not come off, or -1 */
static int
first_failure(FinPosting *posting, int start, int end)
{
	bool		in_chain = end > start || posting->orders[end].linked;

	for (int i = start; i <= end; i++)
	{
		if (is_open(posting, i))
		{
			fail_open(posting, i);
			return i;
		}
		if (!fin_posting_settle_order(posting, i, in_chain))
			return i;
		/* its answer is that of the whole journal */
		if (i == start && posting->outcomes[i].replayed &&
			posting->orders[i].in_journal)
			return -1;
	}
	return -1;
}

/* as if they had not been settled */
static void
forget(FinPosting *posting, int start, int end)
{
	for (int i = start; i <= end; i++)
	{
		int			group = posting->group_of[i];

		if (group >= 0 && posting->groups[group].owner == i)
			posting->groups[group].owner = -1;
		memset(&posting->outcomes[i], 0, sizeof(FinOutcome));
		posting->verdicts[i] = NULL;
	}
}

/*
 * Orders start to end stand or fall together.  A member whose key an earlier
 * call took was perhaps carried out again, since that comes to light only when
 * keys are taken; the next one may have failed for no other reason.  So before
 * a chain is broken its keys are looked up, and it is settled anew with what
 * they tell.
 */
static void
settle_chain(FinPosting *posting, int start, int end)
{
	int			nholds = posting->nholds;
	int			ntaken = posting->gate.ntaken;

	for (;;)
	{
		int			culprit;

		posting->nundo = 0;
		posting->was_judged = false;
		if (posting->meter != NULL)
			fin_meter_mark(posting->meter, end > start);
		culprit = first_failure(posting, start, end);
		if (culprit < 0)
			break;
		undo_chain(posting);
		posting->nholds = nholds;
		if (fin_posting_learn_keys(posting, start, culprit, end))
		{
			fin_gate_give_back(&posting->gate, ntaken);
			forget(posting, start, end);
			continue;
		}
		/* nobody tries without end what risk lets through */
		if (!posting->was_judged)
			fin_gate_give_back(&posting->gate, ntaken);
		look_again(posting, culprit);
		fail_others(posting, start, end, culprit);
		break;
	}
	if (posting->orders[start].in_journal)
		name_journal(posting, start, end);
}

void
fin_posting_settle_all(FinPosting *posting)
{
	int			start = 0;

	while (start < posting->norders)
	{
		int			end = fin_posting_chain_end(posting, start);

		settle_chain(posting, start, end);
		start = end + 1;
	}
}
