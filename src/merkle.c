/*
 * merkle.c
 *		RFC 6962 Merkle tree hashes: leaves, nodes, and a tree that grows.
 *		Reads no table and no setting.
 *
 * Owns one SHA-256 context per backend, made at first use and initialized
 * again for each hash.  From libcrypto, not through the server's pg_cryptohash:
 * that has the algorithm looked up anew for each hash, which takes as long as
 * hashing a leaf (0.3 us).  No function here calls out while a hash is under
 * way, so one context is enough.  Takes no locks; allocates nothing else that
 * lasts.
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include "port/pg_bitutils.h"

#include "compat.h"
#include "merkle.h"

#define LEAF_PREFIX 0x00
#define NODE_PREFIX 0x01

static EVP_MD_CTX *hasher = NULL;
static const EVP_MD *sha256;

static FIN_NORETURN void
refuse_to_hash(void)
{
	const char *reason = ERR_reason_error_string(ERR_get_error());

	ereport(ERROR,
			errcode(ERRCODE_INTERNAL_ERROR),
			errmsg("could not compute SHA-256"),
			reason != NULL ? errdetail("libcrypto says: %s.", reason) : 0);
}

static void
make_hasher(void)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
	sha256 = EVP_sha256();
#endif
	if (sha256 == NULL)
		refuse_to_hash();
	hasher = EVP_MD_CTX_new();
	if (hasher == NULL)
		refuse_to_hash();
}

void
fin_merkle_prefixed(uint8 prefix, const void *data, size_t length,
					FinHash *hash)
{
	if (hasher == NULL)
		make_hasher();
	if (!EVP_DigestInit_ex(hasher, sha256, NULL) ||
		!EVP_DigestUpdate(hasher, &prefix, 1) ||
		!EVP_DigestUpdate(hasher, data, length) ||
		!EVP_DigestFinal_ex(hasher, hash->bytes, NULL))
		refuse_to_hash();
}

void
fin_merkle_leaf(const void *data, size_t length, FinHash *hash)
{
	fin_merkle_prefixed(LEAF_PREFIX, data, length, hash);
}

void
fin_merkle_node(const FinHash *left, const FinHash *right, FinHash *hash)
{
	FinHash		pair[2] = {*left, *right};

	fin_merkle_prefixed(NODE_PREFIX, pair, sizeof(pair), hash);
}

static void
empty_root(FinHash *root)
{
	static const FinHash sha256_of_nothing = {{
			0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14,
			0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
			0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c,
			0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55
	}};

	*root = sha256_of_nothing;
}

int
fin_merkle_frontier_depth(uint64 size)
{
	return pg_popcount64(size);
}

/*
 * Works like a binary counter: as many subtrees are joined after a leaf as its
 * number has trailing one bits.
 */
void
fin_merkle_append(FinFrontier *frontier, const FinHash *leaf,
				  FinCompleted completed, void *state)
{
	FinHash    *hashes = frontier->hashes;
	uint64		index = frontier->size++;
	int			level = 0;

	if (frontier->depth >= FIN_PROOF_LENGTH_MAX)
		elog(ERROR, "a tree of " UINT64_FORMAT " leaves with %d subtrees",
			 index, frontier->depth);
	hashes[frontier->depth++] = *leaf;
	if (completed != NULL)
		completed(state, level, index, leaf);
	for (; index & 1; index >>= 1)
	{
		int			last = --frontier->depth;

		if (last < 1)
			elog(ERROR, "the frontier of a tree lacks a subtree");
		fin_merkle_node(&hashes[last - 1], &hashes[last], &hashes[last - 1]);
		level++;
		if (completed != NULL)
			completed(state, level, index >> 1, &hashes[last - 1]);
	}
}

/* joined from the right */
void
fin_merkle_frontier_root(const FinFrontier *frontier, FinHash *root)
{
	if (frontier->depth == 0)
	{
		empty_root(root);
		return;
	}
	*root = frontier->hashes[frontier->depth - 1];
	for (int i = frontier->depth - 2; i >= 0; i--)
		fin_merkle_node(&frontier->hashes[i], root, root);
}

void
fin_merkle_root(const FinHash *leaves, size_t n, FinHash *root)
{
	FinFrontier frontier;

	frontier.size = 0;
	frontier.depth = 0;
	for (size_t i = 0; i < n; i++)
		fin_merkle_append(&frontier, &leaves[i], NULL, NULL);
	fin_merkle_frontier_root(&frontier, root);
}
