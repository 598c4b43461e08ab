/*
 * audit_version.c
 *		From one version of a row to the next: see audit_version.h.
 *
 * Owns nothing.  What a state consists of is copied into memory of its own,
 * which is replaced with it; what was read of a change is in the context that
 * was current.  Takes no locks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "audit_mask.h"
#include "audit_version.h"
#include "compat.h"

#define PIECE(literal) {(literal), sizeof(literal) - 1}

static const FinAuditPiece old_label = PIECE("\"old\"");
static const FinAuditPiece new_label = PIECE("\"new\"");

void
fin_audit_version_read(FinAuditChange *change)
{
	FinAuditMembers request;
	const FinAuditPiece *row;

	if (change->is_read)
		return;
	change->is_read = true;
	if (change->request.at == NULL ||
		!fin_audit_members(&change->request, &request))
		return;
	row = fin_audit_member(&request, &old_label, 0);
	change->has_old = row != NULL && fin_audit_members(row, &change->old_row);
	row = fin_audit_member(&request, &new_label, 1);
	change->has_new = row != NULL && fin_audit_members(row, &change->new_row);
}

/* ------------------------------------------------------------------------
 * what comes next
 * ------------------------------------------------------------------------ */

static bool
begins_with(const FinAuditPiece *piece, const char *start)
{
	int			length = strlen(start);

	return piece->length >= length && memcmp(piece->at, start, length) == 0;
}

/* a ciphertext is another each time, and "[redacted]" stands for anything */
static bool
may_be_same(const FinAuditPiece *a, const FinAuditPiece *b)
{
	return fin_audit_pieces_same(a, b) ||
		begins_with(a, FIN_AUDIT_ENCRYPTED_START) ||
		begins_with(b, FIN_AUDIT_ENCRYPTED_START) ||
		begins_with(a, "\"" FIN_AUDIT_REDACTED) ||
		begins_with(b, "\"" FIN_AUDIT_REDACTED);
}

/* columns that one of them lacks tell nothing */
static bool
may_be_row(const FinAuditMembers *row, const FinAuditMembers *other,
		   const FinAuditMembers *but)
{
	for (int i = 0; i < other->n; i++)
	{
		const FinAuditMember *member = &other->members[i];
		const FinAuditPiece *value = fin_audit_member(row, &member->name, i);

		if (but != NULL && fin_audit_member(but, &member->name, i) != NULL)
			continue;
		if (value != NULL && !may_be_same(value, &member->value))
			return false;
	}
	return true;
}

/* is what the change says of the row before it what the row is? */
static bool
follows(FinAuditChange *change, const FinAuditState *state)
{
	if (change->is_truncate || !state->is_known)
		return true;
	fin_audit_version_read(change);
	if (!change->has_old && !change->has_new)
		return true;
	if (!change->has_old)
		return !state->is_there;
	if (!state->is_there)
		return false;
	/* what is in the new row and not in the old one did not change */
	return !state->has_row ||
		(may_be_row(&state->row, &change->old_row, NULL) &&
		 (!change->has_new ||
		  may_be_row(&state->row, &change->new_row, &change->old_row)));
}

static bool
is_left(FinAuditRun *run)
{
	while (run->first < run->n && run->changes[run->first].used)
		run->first++;
	return run->first < run->n;
}

/* -1: none does.  Nothing is looked for beyond a TRUNCATE */
static int
find_following(const FinAuditRun *run, const FinAuditState *state)
{
	int			end = Min(run->n, run->first + FIN_AUDIT_LOOK_AHEAD);

	for (int i = run->first; i < end; i++)
	{
		FinAuditChange *change = &run->changes[i];

		if (change->used)
			continue;
		if (change->is_truncate && i > run->first)
			break;
		if (follows(change, state))
			return i;
	}
	return -1;
}

/* does each follow from the one before, if this one is the first of all? */
static bool
can_be_first(const FinAuditRun *all, int first)
{
	FinAuditRun run = *all;
	FinAuditState state = {.above = CurrentMemoryContext};
	int			next = first;

	while (next >= 0)
	{
		CHECK_FOR_INTERRUPTS();
		run.changes[next].used = true;
		(void) fin_audit_version_apply(&state, &run.changes[next]);
		next = is_left(&run) ? find_following(&run, &state) : -1;
	}
	if (state.memory != NULL)
		MemoryContextDelete(state.memory);
	for (int i = 0; i < run.n; i++)
		run.changes[i].used = false;
	return run.first == run.n;
}

/* nothing is known of the row: any may be the first, so what follows decides */
static int
find_first(const FinAuditRun *run)
{
	int			end = Min(run->n, FIN_AUDIT_LOOK_AHEAD);

	for (int i = 0; i < end && (i == 0 || !run->changes[i].is_truncate); i++)
	{
		if (can_be_first(run, i))
			return i;
	}
	return 0;
}

FinAuditChange *
fin_audit_version_next(FinAuditRun *run, const FinAuditState *state)
{
	int			next;

	if (!is_left(run))
		return NULL;
	if (run->n == 1)
		next = 0;
	else if (!state->is_known && run->first == 0)
		next = find_first(run);
	else
		next = find_following(run, state);
	if (next < 0)
		next = run->first;
	run->changes[next].used = true;
	return &run->changes[next];
}

/* ------------------------------------------------------------------------
 * applying it
 * ------------------------------------------------------------------------ */

/* is a column of the key recorded, and the same before and after? */
static bool
has_same_key(const FinAuditChange *change)
{
	FinAuditMembers key;

	if (change->row_key.at == NULL || !fin_audit_members(&change->row_key, &key))
		return false;
	for (int i = 0; i < key.n; i++)
	{
		const FinAuditPiece *name = &key.members[i].name;
		const FinAuditPiece *before = fin_audit_member(&change->old_row, name, i);
		const FinAuditPiece *after = fin_audit_member(&change->new_row, name, i);

		if (before != NULL && after != NULL &&
			fin_audit_pieces_same(before, after))
			return true;
	}
	return false;
}

/*
 * Is the new row there as a whole?  Of what changed alone, old and new have the
 * same columns, and the key is not among them unless it changed.
 */
static bool
is_whole(const FinAuditChange *change)
{
	return !change->has_old || change->old_row.n != change->new_row.n ||
		has_same_key(change);
}

/* an UPDATE is recorded under the key that the row had */
static bool
left_its_key(const FinAuditChange *change)
{
	FinAuditMembers key;

	if (change->row_key.at == NULL || !fin_audit_members(&change->row_key, &key))
		return false;
	for (int i = 0; i < key.n; i++)
	{
		const FinAuditPiece *after = fin_audit_member(&change->new_row,
													  &key.members[i].name, i);

		if (after != NULL &&
			!fin_audit_pieces_same(after, &key.members[i].value))
			return true;
	}
	return false;
}

static bool
lacks_column(const FinAuditMembers *row, const FinAuditMembers *of)
{
	for (int i = 0; i < of->n; i++)
	{
		if (fin_audit_member(row, &of->members[i].name, i) == NULL)
			return true;
	}
	return false;
}

/* through a table it inherits from, a row shows the columns of that */
static bool
is_of_parent(const FinAuditState *state, const FinAuditChange *change)
{
	return state->in_family &&
		!fin_audit_pieces_same(&state->object, &change->object) &&
		lacks_column(&change->new_row, &state->row);
}

static void
copy_piece(FinAuditPiece *to, const FinAuditPiece *from)
{
	char	   *text = palloc(from->length + 1);

	memcpy(text, from->at, from->length);
	to->at = text;
	to->length = from->length;
}

static void
put_member(FinAuditMembers *row, const FinAuditPiece *name,
		   const FinAuditPiece *value)
{
	FinAuditMember *member = &row->members[row->n++];

	copy_piece(&member->name, name);
	copy_piece(&member->value, value);
}

/* the columns of 'with', and those of 'row' that it has not */
static void
lay_over(FinAuditMembers *row, const FinAuditMembers *with)
{
	FinAuditMembers both = {.max = row->n + with->n};

	both.members = palloc(sizeof(FinAuditMember) * Max(both.max, 1));
	for (int i = 0; i < row->n; i++)
	{
		const FinAuditMember *member = &row->members[i];
		const FinAuditPiece *value = fin_audit_member(with, &member->name, i);

		put_member(&both, &member->name,
				   value == NULL ? &member->value : value);
	}
	for (int i = 0; i < with->n; i++)
	{
		const FinAuditMember *member = &with->members[i];

		if (fin_audit_member(row, &member->name, i) == NULL)
			put_member(&both, &member->name, &member->value);
	}
	*row = both;
}

static void
set_row(FinAuditState *state, const FinAuditChange *change)
{
	FinAuditMembers none = {0};
	bool		over = state->is_there && state->has_row &&
		(!is_whole(change) || is_of_parent(state, change));
	MemoryContext before = state->memory;
	MemoryContext caller;
	FinAuditPiece object = over ? state->object : change->object;

	state->memory = AllocSetContextCreate(state->above, "finance audit version",
										  ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(state->memory);
	if (!over)
		state->row = none;
	lay_over(&state->row, &change->new_row);
	copy_piece(&state->object, &object);
	MemoryContextSwitchTo(caller);
	if (before != NULL)
		MemoryContextDelete(before);
}

/* a TRUNCATE of a table in which the row is not: of its parent only, say */
static bool
is_elsewhere(const FinAuditState *state, const FinAuditChange *change)
{
	return state->in_family && state->object.at != NULL &&
		!fin_audit_pieces_same(&state->object, &change->object);
}

bool
fin_audit_version_apply(FinAuditState *state, FinAuditChange *change)
{
	if (change->is_truncate &&
		(!state->is_there || is_elsewhere(state, change)))
		return false;
	fin_audit_version_read(change);
	if (change->has_new)
	{
		set_row(state, change);
		state->has_row = true;
		state->is_there = !left_its_key(change);
	}
	else
	{
		state->has_row = false;
		/* what was erased of a record tells nothing of the row */
		state->is_there = !change->has_old && !change->is_truncate &&
			!change->is_delete;
	}
	state->is_known = true;
	return true;
}
