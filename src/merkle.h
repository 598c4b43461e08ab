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

/* SHA-256 of prefix || data; the prefix tells kinds of hashed things apart */
extern void fin_merkle_prefixed(uint8 prefix, const void *data, size_t length,
								FinHash *hash);

extern void fin_merkle_leaf(const void *data, size_t length, FinHash *hash);
extern void fin_merkle_node(const FinHash *left, const FinHash *right,
							FinHash *hash);

/* root of a tree of n leaf hashes */
extern void fin_merkle_root(const FinHash *leaves, size_t n, FinHash *root);

#endif							/* FIN_MERKLE_H */
