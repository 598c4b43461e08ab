/*
 * merkle_sql.c
 *		The SQL functions of hashes and proofs that read no table.
 *
 * Owns nothing, takes no locks; memory is that of the call.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"

#include "compat.h"
#include "merkle_sql.h"

Datum
fin_merkle_datum(const FinHash *hash)
{
	bytea	   *result = palloc(VARHDRSZ + FIN_HASH_LENGTH);

	SET_VARSIZE(result, VARHDRSZ + FIN_HASH_LENGTH);
	memcpy(VARDATA(result), hash->bytes, FIN_HASH_LENGTH);
	return PointerGetDatum(result);
}

Datum
fin_merkle_proof_datum(const FinProof *proof)
{
	Datum		elements[FIN_PROOF_LENGTH_MAX];

	for (int i = 0; i < proof->length; i++)
		elements[i] = fin_merkle_datum(&proof->hashes[i]);
	return PointerGetDatum(construct_array(elements, proof->length, BYTEAOID,
										   -1, false, TYPALIGN_INT));
}

/* ------------------------------------------------------------------------
 * arguments
 * ------------------------------------------------------------------------ */

static void
refuse_null(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

static void
hash_argument(FunctionCallInfo fcinfo, int argument, const char *name,
			  FinHash *hash)
{
	bytea	   *bytes;

	refuse_null(fcinfo, argument, name);
	bytes = PG_GETARG_BYTEA_PP(argument);
	if (VARSIZE_ANY_EXHDR(bytes) != FIN_HASH_LENGTH)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s is not of %d bytes", name, FIN_HASH_LENGTH));
	memcpy(hash->bytes, VARDATA_ANY(bytes), FIN_HASH_LENGTH);
}

static uint64
number_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	refuse_null(fcinfo, argument, name);
	if (PG_GETARG_INT64(argument) < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must not be negative", name));
	return (uint64) PG_GETARG_INT64(argument);
}

/* all the hashes of an array argument, of whatever length */
static FinHash *
hashes_argument(FunctionCallInfo fcinfo, int argument, const char *name, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	FinHash    *hashes;

	refuse_null(fcinfo, argument, name);
	if (ARR_NDIM(PG_GETARG_ARRAYTYPE_P(argument)) > 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must be an array of one dimension", name));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), BYTEAOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, n);
	hashes = palloc(Max(*n, 1) * sizeof(FinHash));
	for (int i = 0; i < *n; i++)
	{
		bytea	   *bytes = nulls[i] ? NULL : DatumGetByteaPP(elements[i]);

		if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != FIN_HASH_LENGTH)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("hash %d of %s is not of %d bytes",
						   i + 1, name, FIN_HASH_LENGTH));
		memcpy(hashes[i].bytes, VARDATA_ANY(bytes), FIN_HASH_LENGTH);
	}
	return hashes;
}

/* false: longer than any proof is */
static bool
proof_argument(FunctionCallInfo fcinfo, int argument, const char *name,
			   FinProof *proof)
{
	FinHash    *hashes = hashes_argument(fcinfo, argument, name,
										 &proof->length);

	if (proof->length > FIN_PROOF_LENGTH_MAX)
		return false;
	memcpy(proof->hashes, hashes, proof->length * sizeof(FinHash));
	return true;
}

/* ------------------------------------------------------------------------
 * checking
 * ------------------------------------------------------------------------ */

PG_FUNCTION_INFO_V1(finance_verify_inclusion);

/*
 * finance.verify_inclusion(leaf_hash bytea, leaf_index bigint,
 *							tree_size bigint, path bytea[], root bytea)
 * returns boolean
 *
 * Is the leaf the one of that index (from 0) in the tree of that size and root?
 * By RFC 9162 2.1.3.2.  A proof that does not fit is false: of a wrong length,
 * or of an index not below the size.  Reads no table, takes no locks.
 * Errors: 22004; 22023 a hash is not of 32 bytes, a number negative.
 */
Datum
finance_verify_inclusion(PG_FUNCTION_ARGS)
{
	FinHash		leaf;
	FinHash		root;
	FinProof	proof;
	uint64		index;
	uint64		size;
	bool		fits;

	hash_argument(fcinfo, 0, "leaf_hash", &leaf);
	index = number_argument(fcinfo, 1, "leaf_index");
	size = number_argument(fcinfo, 2, "tree_size");
	fits = proof_argument(fcinfo, 3, "path", &proof);
	hash_argument(fcinfo, 4, "root", &root);
	PG_RETURN_BOOL(fits && fin_merkle_verify_inclusion(&leaf, index, size,
													   &proof, &root));
}

PG_FUNCTION_INFO_V1(finance_verify_consistency);

/*
 * finance.verify_consistency(old_size bigint, old_root bytea, new_size bigint,
 *							  new_root bytea, proof bytea[]) returns boolean
 *
 * Is the old tree the beginning of the new one?  By RFC 9162 2.1.4.2.  Of two
 * of one size: are they the same?  Of the empty tree, whose root must be
 * SHA-256 of nothing, every tree is a continuation.  A proof that does not fit
 * is false.  Reads no table, takes no locks.
 * Errors: 22004; 22023 a hash is not of 32 bytes, a number negative.
 */
Datum
finance_verify_consistency(PG_FUNCTION_ARGS)
{
	FinHash		old_root;
	FinHash		new_root;
	FinProof	proof;
	uint64		old_size;
	uint64		new_size;
	bool		fits;

	old_size = number_argument(fcinfo, 0, "old_size");
	hash_argument(fcinfo, 1, "old_root", &old_root);
	new_size = number_argument(fcinfo, 2, "new_size");
	hash_argument(fcinfo, 3, "new_root", &new_root);
	fits = proof_argument(fcinfo, 4, "proof", &proof);
	PG_RETURN_BOOL(fits && fin_merkle_verify_consistency(old_size, &old_root,
														 new_size, &new_root,
														 &proof));
}

/* ------------------------------------------------------------------------
 * hashes and proofs of a tree that is given whole; private, for tests and for
 * those who check the log by hand
 * ------------------------------------------------------------------------ */

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
	PG_RETURN_DATUM(fin_merkle_datum(&hash));
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
	int			n;
	FinHash    *leaves = hashes_argument(fcinfo, 0, "leaves", &n);
	FinHash		root;

	fin_merkle_root(leaves, n, &root);
	PG_RETURN_DATUM(fin_merkle_datum(&root));
}

/* the FinSubtree of an array of leaves */
static void
subtree_of_leaves(void *source, int level, uint64 index, FinHash *hash)
{
	const FinHash *leaves = source;

	fin_merkle_root(leaves + (index << level), (size_t) 1 << level, hash);
}

PG_FUNCTION_INFO_V1(finance_merkle_inclusion);

/*
 * finance._merkle_inclusion(leaves bytea[], leaf_index bigint) returns bytea[]
 *
 * The path from a leaf to the root of the tree of these leaf hashes.
 * Errors: 22023 as _merkle_root(), or there is no such leaf.
 */
Datum
finance_merkle_inclusion(PG_FUNCTION_ARGS)
{
	int			n;
	FinHash    *leaves = hashes_argument(fcinfo, 0, "leaves", &n);
	uint64		index = number_argument(fcinfo, 1, "leaf_index");
	FinProof	proof;

	if (index >= (uint64) n)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("leaf_index is not below the size of the tree"));
	fin_merkle_inclusion(subtree_of_leaves, leaves, index, n, &proof);
	PG_RETURN_DATUM(fin_merkle_proof_datum(&proof));
}

PG_FUNCTION_INFO_V1(finance_merkle_consistency);

/*
 * finance._merkle_consistency(leaves bytea[], old_size bigint) returns bytea[]
 *
 * The proof that the tree of the first old_size of these leaf hashes is the
 * beginning of that of all.
 * Errors: 22023 as _merkle_root(), or there are not so many.
 */
Datum
finance_merkle_consistency(PG_FUNCTION_ARGS)
{
	int			n;
	FinHash    *leaves = hashes_argument(fcinfo, 0, "leaves", &n);
	uint64		old_size = number_argument(fcinfo, 1, "old_size");
	FinProof	proof;

	if (old_size > (uint64) n)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("old_size is above the size of the tree"));
	fin_merkle_consistency(subtree_of_leaves, leaves, old_size, n, &proof);
	PG_RETURN_DATUM(fin_merkle_proof_datum(&proof));
}
