/*
 * audit_proof.c
 *		Digests of the audit log, and proofs that lead to them.
 *
 * Owns kept plans only.  Locks: those of a SELECT.  All of a call is read with
 * one snapshot, that of the statement, so a digest and its proof agree while
 * sealing goes on.
 *
 * A digest and a proof of consistency are of the whole log, of all tenants:
 * hashes tell nothing of what was hashed.  A record is proved to its own
 * tenant only.
 *
 * A proof is checked before it is given away: what is told here holds, or it
 * is an error.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"

#include "audit_block.h"
#include "audit_tree.h"
#include "context.h"
#include "errors.h"
#include "merkle_sql.h"
#include "query.h"

#define PROOF_COLUMNS		6
#define CONSISTENCY_COLUMNS 5

#define DIGEST \
	"SELECT b.block, b.incarnation, b.size, b.root, b.previous, b.digest," \
	" b.sealed_at, b.lsn, b.timeline, i.system_identifier" \
	" FROM finance.audit_block b LEFT JOIN finance.audit_incarnation i" \
	" ON i.incarnation = b.incarnation"

static FinQuery digest_newest =
{
	.sql = DIGEST " ORDER BY b.block DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery digest_of_size =
{
	.sql = DIGEST " WHERE b.size = $1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* columns of these */
#define DIGEST_SIZE 3
#define DIGEST_ROOT 4

/* by the partition's order, which is its only index */
static FinQuery select_sealed =
{
	.sql = "SELECT r.leaf_hash FROM finance.audit_record r"
	" WHERE r.id = $1 AND r.xid = $2 AND r.sequence = $3 AND r.tenant_id = $4",
	.nargs = 4,
	.argtypes = {INT8OID, XID8OID, INT4OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* what is not sealed lies beyond the horizon, in the cluster that sealed last */
static FinQuery select_unsealed =
{
	.sql = "SELECT r.id FROM finance.audit_record r"
	" WHERE r.id = $1 AND r.tenant_id = $2"
	" AND r.xid >=" FIN_AUDIT_UNSEALED_FROM("$3"),
	.nargs = 3,
	.argtypes = {INT8OID, INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * digests
 * ------------------------------------------------------------------------ */

/* reads the block of that size, or the newest: one row; LG202 none such */
static void
read_digest(bool newest, int64 size)
{
	Datum		values[1] = {Int64GetDatum(size)};

	if (newest && fin_query_run(&digest_newest, NULL, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_DIGEST),
				errmsg("nothing is sealed yet"),
				errhint("The worker seals within finance.seal_interval; finance.audit_lag() tells what it waits for."));
	if (!newest && fin_query_run(&digest_of_size, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_DIGEST),
				errmsg("there is no digest of size %lld", (long long) size),
				errhint("A digest is of the size that finance.audit_digest() once told."));
}

typedef struct Root
{
	uint64		size;
	FinHash		hash;
} Root;

static void
read_root(bool newest, int64 size, Root *root)
{
	read_digest(newest, size);
	root->size = (uint64) fin_query_int64(0, DIGEST_SIZE);
	fin_audit_tree_hash_column(0, DIGEST_ROOT, &root->hash);
	SPI_freetuptable(SPI_tuptable);
}

PG_FUNCTION_INFO_V1(finance_audit_digest);

/*
 * finance.audit_digest(at_size bigint) returns (block, incarnation, size,
 *		root, previous, digest, sealed_at, lsn, timeline, system_identifier)
 *
 * The newest digest, or that of at_size leaves: to be kept outside.  digest is
 * SHA-256 over the others, but for system_identifier: audit_block.h has it byte
 * by byte.
 * Of the whole log; no tenant is looked at.
 * Errors: LG202 nothing is sealed yet, or no block ended at that size.
 */
Datum
finance_audit_digest(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	TupleDesc	desc;
	Datum		result;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "audit_digest() is not as this library expects");
	fin_query_begin(&scope);
	read_digest(PG_ARGISNULL(0), PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0));
	if (desc->natts != SPI_tuptable->tupdesc->natts)
		elog(ERROR, "audit_digest() is not as this library expects");
	result = PointerGetDatum(SPI_returntuple(SPI_tuptable->vals[0], desc));
	fin_query_end(&scope);
	return result;
}

/* ------------------------------------------------------------------------
 * records
 * ------------------------------------------------------------------------ */

static void
refuse_unknown(int64 id)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_RECORD),
			errmsg("audit record %lld does not exist", (long long) id),
			errhint("Proofs of records whose month was detached were exported with them."));
}

/* why is the record in no block?  Raises LG203 or LG204. */
static void
refuse_unsealed(int64 id, int32 tenant_id)
{
	Datum		values[3] = {Int64GetDatum(id), Int32GetDatum(tenant_id),
	Int64GetDatum((int64) GetSystemIdentifier())};

	if (fin_query_run(&select_unsealed, values, NULL, 1) == 0)
		refuse_unknown(id);
	ereport(ERROR,
			errcode(ERRCODE_FIN_NOT_SEALED),
			errmsg("audit record %lld is not sealed yet", (long long) id),
			errhint("It will be within finance.seal_interval of the end of the transactions that were under way; finance.audit_lag() tells what that waits for."));
}

/* the record's leaf; the record must be the tenant's and as it was sealed */
static void
find_leaf(int64 id, int32 tenant_id, FinAuditFound *found)
{
	Datum		values[4];
	FinHash		stored;

	if (!fin_audit_tree_find(id, found))
		refuse_unsealed(id, tenant_id);
	values[0] = Int64GetDatum(id);
	values[1] = UInt64GetDatum(found->leaf.position.xid);
	values[2] = Int32GetDatum(found->leaf.position.sequence);
	values[3] = Int32GetDatum(tenant_id);
	if (fin_query_run(&select_sealed, values, NULL, 1) == 0)
		refuse_unknown(id);
	fin_audit_tree_hash_column(0, 1, &stored);
	if (!fin_merkle_same(&stored, &found->leaf.hash))
		fin_audit_tree_damaged(psprintf("Record %lld is not the one that was sealed as leaf " UINT64_FORMAT ".",
										(long long) id, found->index));
	SPI_freetuptable(SPI_tuptable);
}

static void
prove_leaf(const FinAuditFound *found, const Root *root, FinProof *path)
{
	FinAuditTree tree;

	if (found->index >= root->size)
		ereport(ERROR,
				errcode(ERRCODE_FIN_NOT_SEALED),
				errmsg("audit record %lld was sealed after the digest of size %llu",
					   (long long) found->leaf.id,
					   (unsigned long long) root->size),
				errhint("Ask for a proof in a later digest, and for the consistency of both."));
	fin_audit_tree_open(&tree, root->size);
	fin_merkle_inclusion(fin_audit_tree_subtree, &tree, found->index,
						 root->size, path);
	if (!fin_merkle_verify_inclusion(&found->leaf.hash, found->index,
									 root->size, path, &root->hash))
		fin_audit_tree_damaged(psprintf("Leaf " UINT64_FORMAT " does not lead to the root of size " UINT64_FORMAT ".",
										found->index, root->size));
}

static Datum
proof_result(FunctionCallInfo fcinfo, const FinAuditFound *found,
			 const Root *root, const FinProof *path)
{
	Datum		values[PROOF_COLUMNS];
	bool		nulls[PROOF_COLUMNS] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != PROOF_COLUMNS)
		elog(ERROR, "audit_proof() is not as this library expects");
	values[0] = Int64GetDatum(found->leaf.id);
	values[1] = Int64GetDatum((int64) found->index);
	values[2] = fin_merkle_datum(&found->leaf.hash);
	values[3] = Int64GetDatum((int64) root->size);
	values[4] = fin_merkle_datum(&root->hash);
	values[5] = fin_merkle_proof_datum(path);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

static void
refuse_null(FunctionCallInfo fcinfo, const char *name)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

PG_FUNCTION_INFO_V1(finance_audit_proof);

/*
 * finance.audit_proof(record_id bigint, tree_size bigint) returns (record_id,
 *		leaf_index, leaf_hash, tree_size, root, path)
 *
 * The path from the record's leaf hash to the root of the newest digest, or of
 * that of tree_size leaves; check it with verify_inclusion(), or without this
 * server.  Of a record of the session's tenant.  Reads about log2(size) rows.
 * Errors: 22004; LG202 no digest of that size; LG203 not sealed, or not then;
 * LG204 no such record; LG205 the log contradicts itself; those of
 * fin_context().
 */
Datum
finance_audit_proof(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	FinAuditFound found;
	FinProof	path;
	Root		root;
	int32		tenant_id;

	refuse_null(fcinfo, "record_id");
	tenant_id = fin_context()->tenant_id;
	fin_query_begin(&scope);
	find_leaf(PG_GETARG_INT64(0), tenant_id, &found);
	read_root(PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1), &root);
	prove_leaf(&found, &root, &path);
	fin_query_end(&scope);
	return proof_result(fcinfo, &found, &root, &path);
}

/* ------------------------------------------------------------------------
 * consistency
 * ------------------------------------------------------------------------ */

static void
prove_consistency(const Root *old, const Root *new, FinProof *proof)
{
	FinAuditTree tree;

	fin_audit_tree_open(&tree, new->size);
	fin_merkle_consistency(fin_audit_tree_subtree, &tree, old->size, new->size,
						   proof);
	if (!fin_merkle_verify_consistency(old->size, &old->hash, new->size,
									   &new->hash, proof))
		fin_audit_tree_damaged(psprintf("The tree of size " UINT64_FORMAT " is not the beginning of that of size " UINT64_FORMAT ".",
										old->size, new->size));
}

static Datum
consistency_result(FunctionCallInfo fcinfo, const Root *old, const Root *new,
				   const FinProof *proof)
{
	Datum		values[CONSISTENCY_COLUMNS];
	bool		nulls[CONSISTENCY_COLUMNS] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != CONSISTENCY_COLUMNS)
		elog(ERROR, "audit_consistency() is not as this library expects");
	values[0] = Int64GetDatum((int64) old->size);
	values[1] = fin_merkle_datum(&old->hash);
	values[2] = Int64GetDatum((int64) new->size);
	values[3] = fin_merkle_datum(&new->hash);
	values[4] = fin_merkle_proof_datum(proof);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

PG_FUNCTION_INFO_V1(finance_audit_consistency);

/*
 * finance.audit_consistency(old_size bigint, new_size bigint) returns
 *		(old_size, old_root, new_size, new_root, proof)
 *
 * The proof that the log of old_size leaves is the beginning of that of
 * new_size, or of the newest digest; check it with verify_consistency(), or
 * without this server, against the roots that were kept.  old_size 0: the
 * empty log, whose proof is empty.  Of the whole log; no tenant is looked at.
 * Reads about log2(new_size) rows.
 * Errors: 22004; 22023 old_size above new_size; LG202 no digest of such a
 * size; LG205 the log contradicts itself.
 */
Datum
finance_audit_consistency(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	FinProof	proof;
	Root		old;
	Root		new;

	refuse_null(fcinfo, "old_size");
	fin_query_begin(&scope);
	read_root(PG_ARGISNULL(1), PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1), &new);
	if (PG_GETARG_INT64(0) > (int64) new.size)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("old_size must not be above new_size"),
				errdetail("The newer digest is of size %llu.",
						  (unsigned long long) new.size));
	old.size = 0;
	if (PG_GETARG_INT64(0) == 0)
		fin_merkle_root(NULL, 0, &old.hash);
	else
		read_root(false, PG_GETARG_INT64(0), &old);
	prove_consistency(&old, &new, &proof);
	fin_query_end(&scope);
	return consistency_result(fcinfo, &old, &new, &proof);
}
