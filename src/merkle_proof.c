/*
 * merkle_proof.c
 *		Proofs of RFC 9162 (2.1.3 and 2.1.4), made and checked.
 *
 * Pure: reads its arguments, and what the caller's look-up finds.  Owns
 * nothing, takes no locks, allocates nothing.
 *
 * Both proofs come from walking down from the root to a leaf, or to the end of
 * the old tree: at each step the subtree not entered goes into the proof.  So
 * it is collected from the root down and turned around at the end.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "merkle_proof.h"

static bool
is_power_of_two(uint64 n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/* the largest power of two below n, which is above 1 */
static uint64
split(uint64 n)
{
	return UINT64CONST(1) << pg_leftmost_one_pos64(n - 1);
}

/* ------------------------------------------------------------------------
 * making
 * ------------------------------------------------------------------------ */

/*
 * Root of the leaves from 'begin' to before 'end'.  Within a tree a range
 * begins at a multiple of the largest power of two that fits in it: each step
 * takes a complete subtree off its left, the next being smaller.
 */
static void
range_root(FinSubtree subtree, void *source, uint64 begin, uint64 end,
		   FinHash *root)
{
	FinFrontier parts;

	parts.size = end - begin;
	parts.depth = 0;
	while (begin < end)
	{
		int			level = pg_leftmost_one_pos64(end - begin);

		Assert(begin % (UINT64CONST(1) << level) == 0);
		subtree(source, level, begin >> level, &parts.hashes[parts.depth++]);
		begin += UINT64CONST(1) << level;
	}
	fin_merkle_frontier_root(&parts, root);
}

void
fin_merkle_root_at(FinSubtree subtree, void *source, uint64 size,
				   FinHash *root)
{
	range_root(subtree, source, 0, size, root);
}

static void
add_range(FinProof *proof, FinSubtree subtree, void *source, uint64 begin,
		  uint64 end)
{
	if (proof->length >= FIN_PROOF_LENGTH_MAX)
		elog(ERROR, "a proof of more than %d hashes", FIN_PROOF_LENGTH_MAX);
	range_root(subtree, source, begin, end, &proof->hashes[proof->length++]);
}

static void
turn_around(FinProof *proof)
{
	for (int i = 0, j = proof->length - 1; i < j; i++, j--)
	{
		FinHash		kept = proof->hashes[i];

		proof->hashes[i] = proof->hashes[j];
		proof->hashes[j] = kept;
	}
}

void
fin_merkle_inclusion(FinSubtree subtree, void *source, uint64 index,
					 uint64 size, FinProof *proof)
{
	uint64		begin = 0;
	uint64		end = size;

	Assert(index < size);
	proof->length = 0;
	while (end - begin > 1)
	{
		uint64		middle = begin + split(end - begin);

		if (index < middle)
		{
			add_range(proof, subtree, source, middle, end);
			end = middle;
		}
		else
		{
			add_range(proof, subtree, source, begin, middle);
			begin = middle;
		}
	}
	turn_around(proof);
}

void
fin_merkle_consistency(FinSubtree subtree, void *source, uint64 old_size,
					   uint64 new_size, FinProof *proof)
{
	uint64		begin = 0;
	uint64		end = new_size;

	Assert(old_size <= new_size);
	proof->length = 0;
	if (old_size == 0)
		return;
	while (end != old_size)
	{
		uint64		middle = begin + split(end - begin);

		if (old_size <= middle)
		{
			add_range(proof, subtree, source, middle, end);
			end = middle;
		}
		else
		{
			add_range(proof, subtree, source, begin, middle);
			begin = middle;
		}
	}
	/* where the old tree is a complete subtree its root is known already */
	if (begin > 0)
		add_range(proof, subtree, source, begin, end);
	turn_around(proof);
}

/* ------------------------------------------------------------------------
 * checking
 * ------------------------------------------------------------------------ */

/*
 * Where a path is: the number of its node among those of its level, and of the
 * last one there.
 */
typedef struct Position
{
	uint64		node;
	uint64		last;
} Position;

/*
 * Is the next hash of the proof the left sibling?  The last node of a level
 * without a sibling goes up unchanged until it has one, which is then left.
 */
static bool
sibling_is_left(Position *at)
{
	bool		left = (at->node & 1) || at->node == at->last;

	while (left && !(at->node & 1) && at->node != 0)
	{
		at->node >>= 1;
		at->last >>= 1;
	}
	at->node >>= 1;
	at->last >>= 1;
	return left;
}

bool
fin_merkle_verify_inclusion(const FinHash *leaf, uint64 index, uint64 size,
							const FinProof *proof, const FinHash *root)
{
	FinHash		hash = *leaf;
	Position	at;

	if (index >= size)
		return false;
	at.node = index;
	at.last = size - 1;
	for (int i = 0; i < proof->length; i++)
	{
		const FinHash *sibling = &proof->hashes[i];

		if (at.last == 0)
			return false;
		if (sibling_is_left(&at))
			fin_merkle_node(sibling, &hash, &hash);
		else
			fin_merkle_node(&hash, sibling, &hash);
	}
	return at.last == 0 && fin_merkle_same(&hash, root);
}

/*
 * The proof of an old tree that is shorter and not empty: 'at' is where the last
 * of its complete subtrees is, 'first' that subtree's root.
 */
static bool
verify_growth(Position at, const FinHash *first, const FinHash *rest,
			  int length, const FinHash *old_root, const FinHash *new_root)
{
	FinHash		old_hash = *first;
	FinHash		new_hash = *first;

	for (int i = 0; i < length; i++)
	{
		if (at.last == 0)
			return false;
		if (sibling_is_left(&at))
		{
			fin_merkle_node(&rest[i], &old_hash, &old_hash);
			fin_merkle_node(&rest[i], &new_hash, &new_hash);
		}
		else
			fin_merkle_node(&new_hash, &rest[i], &new_hash);
	}
	return at.last == 0 && fin_merkle_same(&old_hash, old_root) &&
		fin_merkle_same(&new_hash, new_root);
}

bool
fin_merkle_verify_consistency(uint64 old_size, const FinHash *old_root,
							  uint64 new_size, const FinHash *new_root,
							  const FinProof *proof)
{
	Position	at = {.node = old_size - 1, .last = new_size - 1};

	if (old_size > new_size)
		return false;
	if (old_size == 0)
	{
		FinHash		empty;

		fin_merkle_root(NULL, 0, &empty);
		return proof->length == 0 && fin_merkle_same(old_root, &empty) &&
			(new_size > 0 || fin_merkle_same(new_root, &empty));
	}
	if (old_size == new_size)
		return proof->length == 0 && fin_merkle_same(old_root, new_root);
	if (proof->length == 0)
		return false;
	for (; at.node & 1; at.node >>= 1)
		at.last >>= 1;
	if (is_power_of_two(old_size))
		return verify_growth(at, old_root, proof->hashes, proof->length,
							 old_root, new_root);
	return verify_growth(at, &proof->hashes[0], &proof->hashes[1],
						 proof->length - 1, old_root, new_root);
}
