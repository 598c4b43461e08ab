/*
 * merkle.c
 *		RFC 6962 Merkle tree hashes.  Reads no table and no setting.
 *
 * Owns one SHA-256 context per backend, made at first use and initialized
 * again for each hash: making one costs more than hashing a leaf.  The server
 * ties such a context to the current resource owner and frees it with the
 * transaction, so ours hangs on a resource owner of its own that is never
 * released.  No function here calls out while a hash is under way, so one
 * context is enough.  Takes no locks; allocates nothing else that lasts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "merkle.h"

#define LEAF_PREFIX 0x00
#define NODE_PREFIX 0x01

/* a tree of 2^64 leaves has 64 levels of complete subtrees */
#define LEVELS_MAX 64

static pg_cryptohash_ctx *hasher = NULL;

static void
make_hasher(void)
{
	static ResourceOwner keeper = NULL;
	ResourceOwner save = CurrentResourceOwner;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	if (keeper == NULL)
		keeper = ResourceOwnerCreate(NULL, "finance merkle");
	CurrentResourceOwner = keeper;
	PG_TRY();
	{
		hasher = pg_cryptohash_create(PG_SHA256);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = save;
		MemoryContextSwitchTo(old);
	}
	PG_END_TRY();
}

void
fin_merkle_prefixed(uint8 prefix, const void *data, size_t length,
					FinHash *hash)
{
	if (hasher == NULL)
		make_hasher();
	if (pg_cryptohash_init(hasher) < 0 ||
		pg_cryptohash_update(hasher, &prefix, 1) < 0 ||
		pg_cryptohash_update(hasher, data, length) < 0 ||
		pg_cryptohash_final(hasher, hash->bytes, FIN_HASH_LENGTH) < 0)
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not compute SHA-256: %s",
					   pg_cryptohash_error(hasher)));
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

/*
 * Works like a binary counter: a stack of roots of complete subtrees, the
 * sizes falling; as many are joined after a leaf as its number has trailing
 * one bits.  What is left at the end is joined from the right.
 */
void
fin_merkle_root(const FinHash *leaves, size_t n, FinHash *root)
{
	FinHash		stack[LEVELS_MAX];
	int			depth = 0;

	if (n == 0)
	{
		empty_root(root);
		return;
	}
	for (size_t i = 0; i < n; i++)
	{
		stack[depth++] = leaves[i];
		for (size_t rest = i; rest & 1; rest >>= 1)
		{
			depth--;
			fin_merkle_node(&stack[depth - 1], &stack[depth],
							&stack[depth - 1]);
		}
	}
	while (depth > 1)
	{
		depth--;
		fin_merkle_node(&stack[depth - 1], &stack[depth], &stack[depth - 1]);
	}
	*root = stack[0];
}

static Datum
hash_datum(const FinHash *hash)
{
	bytea	   *result = palloc(VARHDRSZ + FIN_HASH_LENGTH);

	SET_VARSIZE(result, VARHDRSZ + FIN_HASH_LENGTH);
	memcpy(VARDATA(result), hash->bytes, FIN_HASH_LENGTH);
	return PointerGetDatum(result);
}

PG_FUNCTION_INFO_V1(finance_merkle_leaf);

/*
 * finance._merkle_leaf(data bytea) returns bytea
 *
 * RFC 6962 hash of a leaf: 32 bytes.
 */
Datum
finance_merkle_leaf(PG_FUNCTION_ARGS)
{
	bytea	   *data = PG_GETARG_BYTEA_PP(0);
	FinHash		hash;

	fin_merkle_leaf(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), &hash);
	PG_RETURN_DATUM(hash_datum(&hash));
}

PG_FUNCTION_INFO_V1(finance_merkle_root);

/*
 * finance._merkle_root(leaves bytea[]) returns bytea
 *
 * RFC 6962 root of a tree of leaf hashes, in order; of none: SHA-256 of
 * nothing.  Errors: 22023 an element is null or not of 32 bytes.
 */
Datum
finance_merkle_root(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	FinHash    *leaves;
	FinHash		root;

	deconstruct_array(array, BYTEAOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	leaves = palloc(Max(n, 1) * sizeof(FinHash));
	for (int i = 0; i < n; i++)
	{
		bytea	   *leaf = nulls[i] ? NULL : DatumGetByteaPP(elements[i]);

		if (leaf == NULL || VARSIZE_ANY_EXHDR(leaf) != FIN_HASH_LENGTH)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("leaf hash %d is not of %d bytes",
						   i + 1, FIN_HASH_LENGTH));
		memcpy(leaves[i].bytes, VARDATA_ANY(leaf), FIN_HASH_LENGTH);
	}
	fin_merkle_root(leaves, n, &root);
	PG_RETURN_DATUM(hash_datum(&root));
}
