/*
 * merkle_proof.h
 *		RFC 9162 (and 6962) proofs: that a leaf is in a tree, and that a tree
 *		is the beginning of another.
 *
 * A proof is made from the hashes of complete subtrees, which the caller looks
 * up; and checked with nothing but itself.
 */
#ifndef FIN_MERKLE_PROOF_H
#define FIN_MERKLE_PROOF_H

#include "merkle.h"

typedef struct FinProof
{
	int			length;
	FinHash		hashes[FIN_PROOF_LENGTH_MAX];	/* as RFC 9162 orders them */
} FinProof;

/*
 * Finds the root of the complete subtree of 2^level leaves that begins with
 * leaf index * 2^level; asked only for what lies within the size of the tree.
 */
typedef void (*FinSubtree) (void *source, int level, uint64 index,
							FinHash *hash);

/* root of the first 'size' leaves; about log2(size) look-ups, as all below */
extern void fin_merkle_root_at(FinSubtree subtree, void *source, uint64 size,
							   FinHash *root);

/* PATH(index, D[size]); index < size */
extern void fin_merkle_inclusion(FinSubtree subtree, void *source,
								 uint64 index, uint64 size, FinProof *proof);

/* PROOF(old_size, D[new_size]); old_size <= new_size; of 0: empty */
extern void fin_merkle_consistency(FinSubtree subtree, void *source,
								   uint64 old_size, uint64 new_size,
								   FinProof *proof);

extern bool fin_merkle_verify_inclusion(const FinHash *leaf, uint64 index,
										uint64 size, const FinProof *proof,
										const FinHash *root);

/*
 * Of an empty tree everything is a continuation: true if old_root is that of
 * the empty tree and the proof is empty.
 */
extern bool fin_merkle_verify_consistency(uint64 old_size,
										  const FinHash *old_root,
										  uint64 new_size,
										  const FinHash *new_root,
										  const FinProof *proof);

#endif							/* FIN_MERKLE_PROOF_H */
