/*
 * merkle.h
 *		RFC 6962 Merkle tree hashes over SHA-256.
 *
 *		MTH({})      = SHA-256()
 *		MTH({d})     = SHA-256(0x00 || d)							a leaf
 *		MTH(D[n])    = SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n]))	a node
 *					   with k the largest power of two below n
 *
 * The one-byte prefixes keep a leaf from being passed off as a node.
 */
#ifndef FIN_MERKLE_H
#define FIN_MERKLE_H

#include "c.h"

#define FIN_HASH_LENGTH 32

typedef struct FinHash
{
	uint8		bytes[FIN_HASH_LENGTH];
} FinHash;

static inline bool
fin_merkle_same(const FinHash *a, const FinHash *b)
{
	return memcmp(a->bytes, b->bytes, FIN_HASH_LENGTH) == 0;
}

/* SHA-256 of prefix || data; the prefix tells kinds of hashed things apart */
extern void fin_merkle_prefixed(uint8 prefix, const void *data, size_t length,
								FinHash *hash);

extern void fin_merkle_leaf(const void *data, size_t length, FinHash *hash);
extern void fin_merkle_node(const FinHash *left, const FinHash *right,
							FinHash *hash);

/* a path to the root, or a proof of consistency, of at most 2^63 leaves */
#define FIN_PROOF_LENGTH_MAX 64

/*
 * The state of a tree that only grows: the roots of the complete subtrees that
 * it is made of, the largest first, which are as many as its size has one bits.
 */
typedef struct FinFrontier
{
	uint64		size;			/* leaves */
	int			depth;			/* hashes */
	FinHash		hashes[FIN_PROOF_LENGTH_MAX];
} FinFrontier;

/*
 * Told of each subtree that a leaf completes: that of 2^level leaves from leaf
 * index * 2^level on.  Level 0 is the leaf itself.
 */
typedef void (*FinCompleted) (void *state, int level, uint64 index,
							  const FinHash *hash);

/* completed may be NULL */
extern void fin_merkle_append(FinFrontier *frontier, const FinHash *leaf,
							  FinCompleted completed, void *state);
extern void fin_merkle_frontier_root(const FinFrontier *frontier,
									 FinHash *root);

/* how many hashes the frontier of a tree of this size has */
extern int	fin_merkle_frontier_depth(uint64 size);

/* root of a tree of n leaf hashes */
extern void fin_merkle_root(const FinHash *leaves, size_t n, FinHash *root);

#endif							/* FIN_MERKLE_H */
