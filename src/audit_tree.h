/*
 * audit_tree.h
 *		The sealed audit log as a Merkle tree: its leaves and its subtrees.
 *
 * Private to the audit module.  Everything reads with the snapshot of the
 * calling statement, within fin_query_begin/end.
 */
#ifndef FIN_AUDIT_TREE_H
#define FIN_AUDIT_TREE_H

#include "postgres.h"

#include "audit_block.h"
#include "compat.h"
#include "merkle.h"

/*
 * Subtrees below FIN_AUDIT_NODE_LEVEL are computed from a chunk of as many
 * leaves as one of that level has; the others are rows of finance.audit_node.
 */
#define FIN_AUDIT_CHUNK_LEAVES	(1 << FIN_AUDIT_NODE_LEVEL)

typedef struct FinAuditTree
{
	uint64		size;			/* leaves; that of a block */
	int			chunk_leaves;	/* 0: no chunk is kept */
	uint64		chunk;			/* first leaf / FIN_AUDIT_CHUNK_LEAVES */
	FinHash		leaves[FIN_AUDIT_CHUNK_LEAVES];
} FinAuditTree;

/* any memory will do; there is nothing to close */
extern void fin_audit_tree_open(FinAuditTree *tree, uint64 size);

/*
 * A FinSubtree of merkle_proof.h, the source being a FinAuditTree: one look-up
 * by key, or none within the chunk of leaves read last.
 * Error: LG205 what should be there is missing or too short.
 */
extern void fin_audit_tree_subtree(void *tree, int level, uint64 index,
								   FinHash *hash);

/*
 * The leaf of a record, of whatever tenant; false: in no block.
 * Error: LG205 a block that may have it lacks leaves.
 */
extern bool fin_audit_tree_find(int64 record_id, FinAuditFound *found);

/* a bytea column (from 1) of a row (from 0); LG205 if not of 32 bytes */
extern void fin_audit_tree_hash_column(uint64 row, int column, FinHash *hash);

/* raises LG205; detail is a sentence that says what contradicts what */
extern FIN_NORETURN void fin_audit_tree_damaged(const char *detail);

#endif							/* FIN_AUDIT_TREE_H */
