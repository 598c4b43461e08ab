/*
 * seal_store.c
 *		The tables of what is sealed: reading where the tree is, and writing
 *		blocks, leaves, nodes and the tree.
 *
 * Rows are written through the table access method, in bulk.  The row of
 * audit_tree is updated, and runs of terms are deleted, by statements: the guard
 * lets through who holds the pass, which is good for one statement of one
 * subtransaction, as audit_append.c explains.
 *
 * Owns nothing between calls but kept plans.  A FinSealWriter lives in the memory
 * of the query scope, its tables are closed at the end; an ERROR leaves its
 * clean-up to the transaction.
 *
 * Locks: to seal, an object lock on finance.audit_tree that conflicts with
 * itself only: it draws no transaction id, as a row lock would, and stands in
 * nobody's way who reads or vacuums.  ROW EXCLUSIVE on what is written.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "compat.h"
#include "errors.h"
#include "query.h"
#include "merkle_sql.h"
#include "seal_parts.h"
#include "store_direct.h"

/* columns, in the order of the tables */
static const Oid block_types[] = {
	INT8OID, INT4OID, INT8OID, INT4OID, INT8OID, BYTEAOID, BYTEAOID, BYTEAOID,
	XID8OID, INT4OID, XID8OID, INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, LSNOID, INT4OID, TIMESTAMPTZOID
};
static const Oid leaves_types[] = {INT8OID, BYTEAOID};
static const Oid node_types[] = {INT2OID, INT8OID, BYTEAOID};
static const Oid incarnation_types[] = {
	INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID
};

struct FinSealWriter
{
	FinDirect  *blocks;
	FinDirect  *leaves;
	FinDirect  *nodes;
};

/* ------------------------------------------------------------------------
 * the guard
 * ------------------------------------------------------------------------
 */

static LocalTransactionId pass_transaction = InvalidLocalTransactionId;
static SubTransactionId pass_subtransaction = InvalidSubTransactionId;

void
fin_seal_issue_pass(void)
{
	pass_transaction = FIN_MY_LXID;
	pass_subtransaction = GetCurrentSubTransactionId();
}

static bool
take_pass(void)
{
	bool		valid = pass_transaction == FIN_MY_LXID &&
		pass_subtransaction == GetCurrentSubTransactionId();

	pass_transaction = InvalidLocalTransactionId;
	return valid;
}

PG_FUNCTION_INFO_V1(finance_seal_guard);

/* statement trigger of the tables of what is sealed */
Datum
finance_seal_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_seal_guard() can only be called as a trigger"));
	if (!take_pass())
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_PROTECTED),
				errmsg("rows of finance.%s are never changed or deleted",
					   RelationGetRelationName(trigger->tg_relation)),
				errdetail("They prove what the audit log was."));
	return PointerGetDatum(NULL);
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------
 */

static FinQuery select_tree =
{
	.sql = "SELECT size, frontier, incarnation, horizon, block, digest"
	" FROM finance.audit_tree",
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery select_incarnation =
{
	.sql = "SELECT incarnation, system_identifier FROM finance.audit_incarnation"
	" ORDER BY incarnation DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery select_cluster_last =
{
	.sql = "SELECT b.last_xid FROM finance.audit_block b"
	" JOIN finance.audit_incarnation i ON i.incarnation = b.incarnation"
	" WHERE i.system_identifier = $1 ORDER BY b.block DESC LIMIT 1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery select_last_block =
{
	.sql = "SELECT block, incarnation, size, last_xid, last_sequence, root, digest"
	" FROM finance.audit_block ORDER BY block DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FIN_NORETURN void
refuse_damaged(const char *detail)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("the row of finance.audit_tree is damaged"),
			errdetail_internal("%s", detail),
			errhint("Delete it with its guard disabled, and call finance._rebuild_audit_tree()."));
}

static Datum
required(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return value;
}

static void
get_hash(int column, FinHash *hash)
{
	bytea	   *bytes = DatumGetByteaPP(required(column));

	if (VARSIZE_ANY_EXHDR(bytes) != FIN_HASH_LENGTH)
		refuse_damaged("A hash is not of 32 bytes.");
	memcpy(hash->bytes, VARDATA_ANY(bytes), FIN_HASH_LENGTH);
}

static void
get_frontier(FinFrontier *frontier)
{
	bytea	   *bytes = DatumGetByteaPP(required(2));

	frontier->size = fin_query_int64(0, 1);
	frontier->depth = fin_merkle_frontier_depth(frontier->size);
	if (VARSIZE_ANY_EXHDR(bytes) !=
		(Size) frontier->depth * FIN_HASH_LENGTH)
		refuse_damaged("Its frontier is not that of its size.");
	memcpy(frontier->hashes, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

void
fin_seal_load_tree(FinSealTree *tree)
{
	memset(tree, 0, sizeof(FinSealTree));
	if (fin_query_run(&select_tree, NULL, NULL, 1) == 0)
		return;
	tree->is_there = true;
	get_frontier(&tree->frontier);
	tree->incarnation = DatumGetInt32(required(3));
	tree->horizon = DatumGetUInt64(required(4));
	tree->block = fin_query_int64(0, 5);
	get_hash(6, &tree->digest);
}

int32
fin_seal_last_incarnation(int64 *system_identifier)
{
	*system_identifier = 0;
	if (fin_query_run(&select_incarnation, NULL, NULL, 1) == 0)
		return 0;
	*system_identifier = fin_query_int64(0, 2);
	return DatumGetInt32(required(1));
}

bool
fin_seal_last_block(FinAuditBlock *block)
{
	memset(block, 0, sizeof(FinAuditBlock));
	if (fin_query_run(&select_last_block, NULL, NULL, 1) == 0)
		return false;
	block->block = fin_query_int64(0, 1);
	block->incarnation = DatumGetInt32(required(2));
	block->size = fin_query_int64(0, 3);
	block->last.xid = DatumGetUInt64(required(4));
	block->last.sequence = DatumGetInt32(required(5));
	get_hash(6, &block->root);
	get_hash(7, &block->digest);
	return true;
}

/* a dump holds whole transactions, and what it brought is sealed to the end */
uint64
fin_seal_cluster_horizon(int64 system_identifier)
{
	Datum		values[1] = {Int64GetDatum(system_identifier)};

	if (fin_query_run(&select_cluster_last, values, NULL, 1) == 0)
		return 0;
	return DatumGetUInt64(required(1)) + 1;
}

/* a transaction may be sealed in part, as far as the last block went */
FinAuditPosition
fin_seal_position(const FinSealTree *tree)
{
	FinAuditPosition position = {tree->horizon, 0};
	FinAuditBlock last;

	if (fin_seal_last_block(&last) && last.incarnation == tree->incarnation &&
		last.last.xid >= tree->horizon)
		position = last.last;
	return position;
}

/*
 * The lowest transaction id that ran when the snapshot was taken, in any
 * database, prepared ones and our own included, or else the next one.  Ids are
 * drawn upwards, and a record bears that of its top-level transaction, which is
 * lower than those of its subtransactions.  So whatever has a lower one had
 * ended, and will never be added to.
 *
 * After a crash too no id below comes again: who seals writes a row, so it has
 * an id of its own at or above the horizon, which is in the WAL.
 */
FullTransactionId
fin_seal_horizon(Snapshot snapshot)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);

	if (snapshot->xmin > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, snapshot->xmin);
}

/* ------------------------------------------------------------------------
 * writing
 * ------------------------------------------------------------------------
 */

bool
fin_seal_lock(bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId,
					   fin_query_relation("audit_tree"), 1);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

FinSealWriter *
fin_seal_begin_write(void)
{
	FinSealWriter *writer = palloc0(sizeof(FinSealWriter));

	writer->blocks = fin_direct_begin_own(fin_query_relation("audit_block"),
										  block_types,
										  (int) lengthof(block_types));
	writer->leaves = fin_direct_begin_own(fin_query_relation("audit_leaves"),
										  leaves_types,
										  (int) lengthof(leaves_types));
	writer->nodes = fin_direct_begin_own(fin_query_relation("audit_node"),
										 node_types,
										 (int) lengthof(node_types));
	return writer;
}

static Datum
bytes_datum(const void *bytes, Size length)
{
	bytea	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), bytes, length);
	return PointerGetDatum(value);
}

static void
write_block_row(FinDirect *direct, const FinAuditBlock *block)
{
	Datum		values[lengthof(block_types)];
	bool		nulls[lengthof(block_types)] = {false};
	int			i = 0;

	values[i++] = Int64GetDatum(block->block);
	values[i++] = Int32GetDatum(block->incarnation);
	values[i++] = Int64GetDatum(block->first_leaf);
	values[i++] = Int32GetDatum(block->records);
	values[i++] = Int64GetDatum(block->size);
	values[i++] = fin_merkle_datum(&block->root);
	values[i++] = fin_merkle_datum(&block->previous);
	values[i++] = fin_merkle_datum(&block->digest);
	values[i++] = UInt64GetDatum(block->first.xid);
	values[i++] = Int32GetDatum(block->first.sequence);
	values[i++] = UInt64GetDatum(block->last.xid);
	values[i++] = Int32GetDatum(block->last.sequence);
	values[i++] = Int64GetDatum(block->first_id);
	values[i++] = Int64GetDatum(block->last_id);
	values[i++] = TimestampTzGetDatum(block->first_recorded_at);
	values[i++] = TimestampTzGetDatum(block->last_recorded_at);
	values[i++] = LSNGetDatum(block->lsn);
	values[i++] = Int32GetDatum(block->timeline);
	values[i++] = TimestampTzGetDatum(block->sealed_at);
	fin_direct_put(direct, values, nulls);
}

void
fin_seal_write_block(FinSealWriter *writer, const FinAuditBlock *block,
					 StringInfo leaves)
{
	Datum		values[lengthof(leaves_types)];
	bool		nulls[lengthof(leaves_types)] = {false};

	write_block_row(writer->blocks, block);
	values[0] = Int64GetDatum(block->block);
	values[1] = bytes_datum(leaves->data, leaves->len);
	fin_direct_put(writer->leaves, values, nulls);
	/* so that one block's leaves are in memory at a time */
	fin_direct_flush(writer->leaves);
	pfree(DatumGetPointer(values[1]));
}

void
fin_seal_write_node(FinSealWriter *writer, int level, uint64 index,
					const FinHash *hash)
{
	Datum		values[lengthof(node_types)];
	bool		nulls[lengthof(node_types)] = {false};

	values[0] = Int16GetDatum(level);
	values[1] = Int64GetDatum((int64) index);
	values[2] = fin_merkle_datum(hash);
	fin_direct_put(writer->nodes, values, nulls);
	pfree(DatumGetPointer(values[2]));
}

void
fin_seal_end_write(FinSealWriter *writer)
{
	fin_direct_end(writer->blocks);
	fin_direct_end(writer->leaves);
	fin_direct_end(writer->nodes);
	pfree(writer);
}

static FinQuery insert_tree =
{
	.sql = "INSERT INTO finance.audit_tree"
	" (size, frontier, incarnation, horizon, block, digest)"
	" VALUES ($1, $2, $3, $4, $5, $6)",
	.nargs = 6,
	.argtypes = {INT8OID, BYTEAOID, INT4OID, XID8OID, INT8OID, BYTEAOID},
	.expect = SPI_OK_INSERT,
	.writes_one = "audit_tree",
};

static FinQuery update_tree =
{
	.sql = "UPDATE finance.audit_tree SET size = $1, frontier = $2,"
	" incarnation = $3, horizon = $4, block = $5, digest = $6",
	.nargs = 6,
	.argtypes = {INT8OID, BYTEAOID, INT4OID, XID8OID, INT8OID, BYTEAOID},
	.expect = SPI_OK_UPDATE,
	.writes_one = "audit_tree",
};

void
fin_seal_save_tree(const FinSealTree *tree)
{
	Datum		values[6];

	values[0] = Int64GetDatum((int64) tree->frontier.size);
	values[1] = bytes_datum(tree->frontier.hashes,
							(Size) tree->frontier.depth * FIN_HASH_LENGTH);
	values[2] = Int32GetDatum(tree->incarnation);
	values[3] = UInt64GetDatum(tree->horizon);
	values[4] = Int64GetDatum(tree->block);
	values[5] = fin_merkle_datum(&tree->digest);
	if (tree->is_there)
		fin_seal_issue_pass();
	(void) fin_query_run(tree->is_there ? &update_tree : &insert_tree,
						 values, NULL, 0);
}

void
fin_seal_add_incarnation(int32 incarnation, int64 first_block)
{
	FinDirect  *direct =
		fin_direct_begin_own(fin_query_relation("audit_incarnation"),
							 incarnation_types,
							 (int) lengthof(incarnation_types));
	Datum		values[lengthof(incarnation_types)];
	bool		nulls[lengthof(incarnation_types)] = {false};

	values[0] = Int32GetDatum(incarnation);
	values[1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[2] = Int64GetDatum(first_block);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	fin_direct_put(direct, values, nulls);
	fin_direct_end(direct);
}
