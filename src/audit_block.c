/*
 * audit_block.c
 *		A block of sealed records, as bytes: audit_block.h has them.
 *
 * Pure: reads its arguments only.  Owns nothing, takes no locks.
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "port/pg_bswap.h"

#include "audit_block.h"

#define DIGEST_PREFIX	0x03

void
fin_audit_block_digest(const FinAuditBlock *block, FinHash *digest)
{
	StringInfoData bytes;

	initStringInfo(&bytes);
	pq_sendint64(&bytes, block->block);
	pq_sendint32(&bytes, block->incarnation);
	pq_sendint64(&bytes, block->size);
	appendBinaryStringInfo(&bytes, (const char *) block->root.bytes,
						   FIN_HASH_LENGTH);
	appendBinaryStringInfo(&bytes, (const char *) block->previous.bytes,
						   FIN_HASH_LENGTH);
	pq_sendint64(&bytes, block->sealed_at);
	pq_sendint64(&bytes, block->lsn);
	pq_sendint32(&bytes, block->timeline);
	fin_merkle_prefixed(DIGEST_PREFIX, bytes.data, bytes.len, digest);
	pfree(bytes.data);
}

void
fin_audit_leaf_put(StringInfo leaves, const FinAuditLeaf *leaf)
{
	pq_sendint64(leaves, leaf->id);
	pq_sendint64(leaves, leaf->position.xid);
	pq_sendint32(leaves, leaf->position.sequence);
	appendBinaryStringInfo(leaves, (const char *) leaf->hash.bytes,
						   FIN_HASH_LENGTH);
}

void
fin_audit_leaf_get(const char *entry, FinAuditLeaf *leaf)
{
	uint64		id;
	uint64		xid;
	uint32		sequence;

	memcpy(&id, entry, sizeof(id));
	memcpy(&xid, entry + 8, sizeof(xid));
	memcpy(&sequence, entry + 16, sizeof(sequence));
	leaf->id = (int64) pg_ntoh64(id);
	leaf->position.xid = pg_ntoh64(xid);
	leaf->position.sequence = (int32) pg_ntoh32(sequence);
	memcpy(leaf->hash.bytes, entry + FIN_AUDIT_LEAF_HASH_AT, FIN_HASH_LENGTH);
}
