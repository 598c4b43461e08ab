/*
 * audit_term.c
 *		The terms by which sealed audit records are found, and runs of them as
 *		bytes: see audit_term.h.
 *
 * Pure: reads its arguments only.  Owns nothing, takes no locks.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "port/pg_bswap.h"

#include "audit_term.h"
#include "compat.h"

#define KEY_STACK_MAX	512		/* longer ones are put together in memory */

static uint64
hash_of(const void *bytes, int length)
{
	return hash_bytes_extended(bytes, length, 0);
}

static uint64
number_term(char tag, int64 number)
{
	unsigned char bytes[1 + sizeof(uint64)];
	uint64		big_endian = pg_hton64((uint64) number);

	bytes[0] = tag;
	memcpy(bytes + 1, &big_endian, sizeof(big_endian));
	return hash_of(bytes, sizeof(bytes));
}

uint64
fin_audit_term_trace(const pg_uuid_t *trace_id)
{
	unsigned char bytes[1 + UUID_LEN];

	bytes[0] = 't';
	memcpy(bytes + 1, trace_id->data, UUID_LEN);
	return hash_of(bytes, sizeof(bytes));
}

uint64
fin_audit_term_transfer(int64 transfer_id)
{
	return number_term('x', transfer_id);
}

uint64
fin_audit_term_account(int64 account_id)
{
	return number_term('a', account_id);
}

uint64
fin_audit_term_key(int32 tenant_id, const char *object, int object_length,
				   const char *row_key, int row_key_length)
{
	char		stack[KEY_STACK_MAX];
	uint32		tenant = pg_hton32((uint32) tenant_id);
	Size		length = 1 + sizeof(tenant) + object_length + 1 + row_key_length;
	char	   *bytes = length <= KEY_STACK_MAX ? stack : palloc(length);
	char	   *next = bytes;
	uint64		term;

	*next++ = 'k';
	memcpy(next, &tenant, sizeof(tenant));
	next += sizeof(tenant);
	memcpy(next, object, object_length);
	next += object_length;
	*next++ = '\0';
	if (row_key_length > 0)
		memcpy(next, row_key, row_key_length);
	term = hash_of(bytes, (int) length);
	if (bytes != stack)
		pfree(bytes);
	return term;
}

static uint64
key_term(const FinAuditRow *row)
{
	text	   *object = DatumGetTextPP(row->values[FIN_AUDIT_OBJECT]);
	text	   *key = row->nulls[FIN_AUDIT_ROW_KEY] ? NULL :
		DatumGetTextPP(row->values[FIN_AUDIT_ROW_KEY]);

	return fin_audit_term_key(DatumGetInt32(row->values[FIN_AUDIT_TENANT_ID]),
							  VARDATA_ANY(object), VARSIZE_ANY_EXHDR(object),
							  key == NULL ? NULL : VARDATA_ANY(key),
							  key == NULL ? 0 : VARSIZE_ANY_EXHDR(key));
}

int
fin_audit_terms(const FinAuditRow *row, uint64 *terms)
{
	int			n = 0;

	if (!row->nulls[FIN_AUDIT_TRACE_UNTIL])
		terms[n++] =
			fin_audit_term_trace(DatumGetUUIDP(row->values[FIN_AUDIT_TRACE_ID]));
	if (!row->nulls[FIN_AUDIT_OBJECT])
		terms[n++] = key_term(row);
	if (!row->nulls[FIN_AUDIT_TRANSFER_ID])
		terms[n++] =
			fin_audit_term_transfer(DatumGetInt64(row->values[FIN_AUDIT_TRANSFER_ID]));
	if (!row->nulls[FIN_AUDIT_ACCOUNT_ID])
		terms[n++] =
			fin_audit_term_account(DatumGetInt64(row->values[FIN_AUDIT_ACCOUNT_ID]));
	if (!row->nulls[FIN_AUDIT_COUNTERPARTY_ID])
		terms[n++] =
			fin_audit_term_account(DatumGetInt64(row->values[FIN_AUDIT_COUNTERPARTY_ID]));
	return n;
}

void
fin_audit_term_put(char *entry, const FinAuditTerm *term)
{
	uint64		hash = pg_hton64(term->term);
	uint32		leaf = pg_hton32(term->leaf);

	memcpy(entry, &hash, sizeof(hash));
	memcpy(entry + sizeof(hash), &leaf, sizeof(leaf));
}

void
fin_audit_term_get(const char *entry, FinAuditTerm *term)
{
	uint64		hash;
	uint32		leaf;

	memcpy(&hash, entry, sizeof(hash));
	memcpy(&leaf, entry + sizeof(hash), sizeof(leaf));
	term->term = pg_ntoh64(hash);
	term->leaf = pg_ntoh32(leaf);
}
