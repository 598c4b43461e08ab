/*
 * audit_block.h
 *		A block of sealed records, and its digest: what an outsider keeps.
 *
 * DIGEST
 *
 *		digest = SHA-256(0x03 || block		int8
 *							  || incarnation	int4
 *							  || size		int8: leaves of the tree after it
 *							  || root		32 bytes, of that tree
 *							  || previous	32 bytes: digest of the block before,
 *											zeros for block 1
 *							  || sealed_at	int8: microseconds since
 *											2000-01-01 00:00 UTC
 *							  || lsn		int8
 *							  || timeline	int4)
 *
 * integers big-endian, in two's complement: 137 bytes with the prefix.
 *
 * LEAVES
 *
 * finance.audit_leaves.leaves has for each leaf of the block, in order,
 * FIN_AUDIT_LEAF_ENTRY bytes:
 *
 *		id			int8		of the record
 *		xid			int8
 *		sequence	int4
 *		leaf_hash	32 bytes
 */
#ifndef FIN_AUDIT_BLOCK_H
#define FIN_AUDIT_BLOCK_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "audit_scan.h"
#include "merkle.h"

/* a row of finance.audit_block, in the order of its columns */
typedef struct FinAuditBlock
{
	int64		block;			/* from 1, without gaps */
	int32		incarnation;
	int64		first_leaf;		/* from 0 */
	int32		records;
	int64		size;			/* first_leaf + records */
	FinHash		root;
	FinHash		previous;
	FinHash		digest;
	FinAuditPosition first;
	FinAuditPosition last;
	int64		first_id;		/* lowest and highest id, */
	int64		last_id;
	TimestampTz first_recorded_at;	/* and time, of the records in it */
	TimestampTz last_recorded_at;
	XLogRecPtr	lsn;			/* where the WAL was when it was sealed */
	int32		timeline;
	TimestampTz sealed_at;
} FinAuditBlock;

#define FIN_AUDIT_BLOCK_RECORDS_MAX	8192

extern void fin_audit_block_digest(const FinAuditBlock *block,
								   FinHash *digest);

/* one leaf of a block */
typedef struct FinAuditLeaf
{
	int64		id;
	FinAuditPosition position;
	FinHash		hash;
} FinAuditLeaf;

#define FIN_AUDIT_LEAF_ENTRY	52
#define FIN_AUDIT_LEAF_HASH_AT	20	/* where in an entry the hash is */

extern void fin_audit_leaf_put(StringInfo leaves, const FinAuditLeaf *leaf);
extern void fin_audit_leaf_get(const char *entry, FinAuditLeaf *leaf);

/* a leaf, and where in the tree it is */
typedef struct FinAuditFound
{
	uint64		index;
	FinAuditLeaf leaf;
} FinAuditFound;

/*
 * In SQL: the xid from which on records are not sealed yet, of the cluster of
 * this system identifier; 0, so that all are looked at, if it never sealed.
 * The second: its last incarnation is over, the book is back, and has not begun
 * another.
 */
#define FIN_AUDIT_UNSEALED_FROM(system_identifier) \
	" coalesce((SELECT t.horizon FROM finance.audit_tree t" \
	" JOIN finance.audit_incarnation i ON i.incarnation = t.incarnation" \
	" WHERE i.system_identifier = " system_identifier ")," \
	" (SELECT (b.last_xid::text::numeric + 1)::text::xid8" \
	" FROM finance.audit_block b" \
	" JOIN finance.audit_incarnation i ON i.incarnation = b.incarnation" \
	" WHERE i.system_identifier = " system_identifier \
	" ORDER BY b.block DESC LIMIT 1), '0'::xid8)"

/* complete subtrees of so many levels and more are kept in finance.audit_node */
#define FIN_AUDIT_NODE_LEVEL	8

#endif							/* FIN_AUDIT_BLOCK_H */
