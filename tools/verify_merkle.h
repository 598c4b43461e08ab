/*
 * verify_merkle.h
 *		SHA-256, the Merkle tree of RFC 6962 and the proofs of RFC 9162: what
 *		finance-verify computes with, and nothing of finance.
 *
 * Pure but for OpenSSL's context, which is made once.
 */
#ifndef VERIFY_MERKLE_H
#define VERIFY_MERKLE_H

#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <openssl/evp.h>

#define HASH_LENGTH		32
#define DEPTH_MAX		64		/* of a tree, and hashes of a proof */

typedef struct Hash
{
	unsigned char bytes[HASH_LENGTH];
} Hash;

typedef struct Hashes
{
	int			length;
	Hash		at[DEPTH_MAX];
} Hashes;

/* the roots of the complete subtrees that a tree is made of, largest first */
typedef struct Tree
{
	uint64_t	size;
	Hashes		roots;
} Tree;

static bool
same(const Hash *a, const Hash *b)
{
	return memcmp(a->bytes, b->bytes, HASH_LENGTH) == 0;
}

/* of prefix || bytes; without a prefix if that is negative */
static void
sha256(int prefix, const void *bytes, size_t length, Hash *hash)
{
	static EVP_MD_CTX *context;
	unsigned char first = (unsigned char) prefix;
	bool		good = true;

	if (context == NULL)		/* to look up the algorithm is slow */
	{
		context = EVP_MD_CTX_new();
		good = context != NULL &&
			EVP_DigestInit_ex(context, EVP_sha256(), NULL);
	}
	if (!good || !EVP_DigestInit_ex(context, NULL, NULL) ||
		!EVP_DigestUpdate(context, &first, prefix >= 0) ||
		!EVP_DigestUpdate(context, bytes, length) ||
		!EVP_DigestFinal_ex(context, hash->bytes, NULL))
		errx(2, "libcrypto cannot compute SHA-256");
}

static void
node(const Hash *left, const Hash *right, Hash *hash)
{
	Hash		both[2] = {*left, *right};

	sha256(0x01, both, sizeof(both), hash);
}

static void
append(Tree *tree, const Hash *leaf)
{
	Hash	   *last = &tree->roots.at[tree->roots.length];

	*last = *leaf;
	/* two subtrees of one size are one of the next */
	for (uint64_t carry = tree->size++; carry & 1; carry >>= 1, last--)
		node(last - 1, last, last - 1);
	tree->roots.length = (int) (last - tree->roots.at) + 1;
}

static void
root_of(const Tree *tree, Hash *root)
{
	int			i = tree->roots.length - 1;

	if (tree->size == 0)
	{
		sha256(-1, "", 0, root);
		return;
	}
	*root = tree->roots.at[i];
	while (i-- > 0)
		node(&tree->roots.at[i], root, root);
}

/*
 * The loop of both proofs: from node 'fn' of a level whose last is 'sn' up to
 * the roots, r of the whole tree and fr of the older one, in which that node was
 * the last; fr may be NULL.
 */
static bool
climb(uint64_t fn, uint64_t sn, const Hash *proof, const Hash *end,
	  Hash *fr, Hash *r)
{
	for (; proof < end; proof++)
	{
		if (sn == 0)
			return false;
		if ((fn & 1) || fn == sn)
		{
			if (fr != NULL)
				node(proof, fr, fr);
			node(proof, r, r);
			for (; !(fn & 1) && fn != 0; fn >>= 1)
				sn >>= 1;
		}
		else
			node(r, proof, r);
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0;
}

/* 2.1.3.2: is the leaf the one of that index in the tree? */
static bool
is_included(const Hash *leaf, uint64_t index, uint64_t size,
			const Hash *root, const Hashes *path)
{
	Hash		r = *leaf;

	return index < size &&
		climb(index, size - 1, path->at, path->at + path->length, NULL, &r) &&
		same(&r, root);
}

/* 2.1.4.2: is the old tree the beginning of the new one? */
static bool
is_continued(const Hash *old_root, uint64_t old_size, uint64_t size,
			 const Hash *root, const Hashes *proof)
{
	const Hash *first = proof->at;
	const Hash *end = proof->at + proof->length;
	uint64_t	fn = old_size - 1;
	uint64_t	sn = size - 1;
	Hash		fr;
	Hash		r;

	if (old_size == 0)			/* of any tree */
	{
		sha256(-1, "", 0, &r);
		return first == end && same(&r, old_root);
	}
	if (old_size >= size)
		return old_size == size && first == end && same(old_root, root);
	/* a complete subtree is not repeated in the proof */
	if ((old_size & (old_size - 1)) == 0)
		r = *old_root;
	else if (first < end)
		r = *first++;
	else
		return false;
	fr = r;
	for (; fn & 1; fn >>= 1)
		sn >>= 1;
	return climb(fn, sn, first, end, &fr, &r) &&
		same(&fr, old_root) && same(&r, root);
}

#endif							/* VERIFY_MERKLE_H */
