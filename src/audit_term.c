/*
 * audit_term.c
 *		The terms by which sealed audit records are found, and runs of them as
 *		bytes: see audit_term.h.
 *
 * Pure: reads its arguments only.  Owns nothing, takes no locks.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"

#include "audit_term.h"
#include "compat.h"

#define KEY_STACK_MAX	512		/* longer ones are put together in memory */

/* Stafford's mix 13: each bit of the result depends on each of the number's */
static inline uint64
mix(uint64 number)
{
	number = (number ^ (number >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	number = (number ^ (number >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return number ^ (number >> 31);
}

/*
 * The server's own hashes depend on the byte order of the machine, and terms
 * go with a dump to another.
 */
static uint64
hash_of(char tag, const void *bytes, Size length)
{
	const char *next = bytes;
	uint64		hash = mix(((uint64) (unsigned char) tag << 56) ^ length);

	for (; length > 0; next += sizeof(uint64))
	{
		uint64		word = 0;

		memcpy(&word, next, Min(length, sizeof(word)));
		hash = mix(hash ^ pg_ntoh64(word));
		length -= Min(length, sizeof(word));
	}
	return hash;
}

static uint64
number_term(char tag, int64 number)
{
	uint64		big_endian = pg_hton64((uint64) number);

	return hash_of(tag, &big_endian, sizeof(big_endian));
}

uint64
fin_audit_term_trace(const pg_uuid_t *trace_id)
{
	return hash_of('t', trace_id->data, UUID_LEN);
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

/* in UTF-8, as it is hashed: a dump may go into another encoding */
static const char *
as_utf8(const char *text, int *length)
{
	const char *utf8 = pg_server_to_any(text, *length, PG_UTF8);

	if (utf8 != text)
		*length = (int) strlen(utf8);
	return utf8;
}

uint64
fin_audit_term_key(int32 tenant_id, const char *object, int object_length,
				   const char *row_key, int row_key_length)
{
	const char *object_utf8 = as_utf8(object, &object_length);
	const char *key_utf8 = row_key_length == 0 ? NULL :
		as_utf8(row_key, &row_key_length);
	char		stack[KEY_STACK_MAX];
	uint32		tenant = pg_hton32((uint32) tenant_id);
	Size		length = sizeof(tenant) + object_length + 1 + row_key_length;
	char	   *bytes = length <= KEY_STACK_MAX ? stack : palloc(length);
	char	   *next = bytes;
	uint64		term;

	memcpy(next, &tenant, sizeof(tenant));
	next += sizeof(tenant);
	memcpy(next, object_utf8, object_length);
	next += object_length;
	*next++ = '\0';
	if (row_key_length > 0)
		memcpy(next, key_utf8, row_key_length);
	term = hash_of('k', bytes, length);
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
