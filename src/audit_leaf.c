/*
 * audit_leaf.c
 *		The leaf encoding: audit_row.h has it byte by byte.
 *
 * Pure: reads its arguments only.  Owns nothing, takes no locks; the caller
 * gives the scratch buffer, in the memory it likes.
 *
 * A change to what is encoded, or how, is a new leaf_version: records written
 * before must verify for ever.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "audit_row.h"
#include "compat.h"

#define PAYLOAD_PREFIX		0x02
#define NULL_LENGTH			PG_UINT32_MAX

const Oid	fin_audit_types[FIN_AUDIT_COLUMNS] =
{
	[FIN_AUDIT_ID] = INT8OID,
	[FIN_AUDIT_RECORDED_AT] = TIMESTAMPTZOID,
	[FIN_AUDIT_XID] = XID8OID,
	[FIN_AUDIT_SYSTEM_IDENTIFIER] = INT8OID,
	[FIN_AUDIT_TENANT_ID] = INT4OID,
	[FIN_AUDIT_SEQUENCE] = INT4OID,
	[FIN_AUDIT_TRACE_ID] = UUIDOID,
	[FIN_AUDIT_MESSAGE_ID] = INT8OID,
	[FIN_AUDIT_TRANSFER_ID] = INT8OID,
	[FIN_AUDIT_ACCOUNT_ID] = INT8OID,
	[FIN_AUDIT_COUNTERPARTY_ID] = INT8OID,
	[FIN_AUDIT_ACCOUNT_VERSION] = INT8OID,
	[FIN_AUDIT_COUNTERPARTY_VERSION] = INT8OID,
	[FIN_AUDIT_LEAF_VERSION] = INT2OID,
	[FIN_AUDIT_LEAF_HASH] = BYTEAOID,
	[FIN_AUDIT_PAYLOAD_HASH] = BYTEAOID,
	[FIN_AUDIT_SALT] = BYTEAOID,
	[FIN_AUDIT_CLIENT_ADDR] = INETOID,
	[FIN_AUDIT_ACTOR] = TEXTOID,
	[FIN_AUDIT_SESSION_USER_NAME] = TEXTOID,
	[FIN_AUDIT_ROLE_NAME] = TEXTOID,
	[FIN_AUDIT_APPLICATION_NAME] = TEXTOID,
	[FIN_AUDIT_USER_AGENT] = TEXTOID,
	[FIN_AUDIT_SPAN_ID] = TEXTOID,
	[FIN_AUDIT_REQUEST_ID] = TEXTOID,
	[FIN_AUDIT_REASON] = TEXTOID,
	[FIN_AUDIT_OPERATION] = TEXTOID,
	[FIN_AUDIT_STATUS] = TEXTOID,
	[FIN_AUDIT_OBJECT] = TEXTOID,
	[FIN_AUDIT_ROW_KEY] = TEXTOID,
	[FIN_AUDIT_CURRENCY] = TEXTOID,
	[FIN_AUDIT_AMOUNT] = NUMERICOID,
	[FIN_AUDIT_BALANCE_BEFORE] = NUMERICOID,
	[FIN_AUDIT_BALANCE_AFTER] = NUMERICOID,
	[FIN_AUDIT_COUNTERPARTY_BALANCE_BEFORE] = NUMERICOID,
	[FIN_AUDIT_COUNTERPARTY_BALANCE_AFTER] = NUMERICOID,
	[FIN_AUDIT_REQUEST] = JSONOID,
	[FIN_AUDIT_RESPONSE] = JSONOID,
	[FIN_AUDIT_TRACE_UNTIL] = INT8OID,
};

/* what the leaf holds, in its order */
static const FinAuditColumn encoded[] =
{
	FIN_AUDIT_ID,
	FIN_AUDIT_RECORDED_AT,
	FIN_AUDIT_XID,
	FIN_AUDIT_SYSTEM_IDENTIFIER,
	FIN_AUDIT_TENANT_ID,
	FIN_AUDIT_SEQUENCE,
	FIN_AUDIT_TRACE_ID,
	FIN_AUDIT_MESSAGE_ID,
	FIN_AUDIT_TRANSFER_ID,
	FIN_AUDIT_ACCOUNT_ID,
	FIN_AUDIT_COUNTERPARTY_ID,
	FIN_AUDIT_ACCOUNT_VERSION,
	FIN_AUDIT_COUNTERPARTY_VERSION,
	FIN_AUDIT_PAYLOAD_HASH,
	FIN_AUDIT_CLIENT_ADDR,
	FIN_AUDIT_ACTOR,
	FIN_AUDIT_SESSION_USER_NAME,
	FIN_AUDIT_ROLE_NAME,
	FIN_AUDIT_APPLICATION_NAME,
	FIN_AUDIT_USER_AGENT,
	FIN_AUDIT_SPAN_ID,
	FIN_AUDIT_REQUEST_ID,
	FIN_AUDIT_REASON,
	FIN_AUDIT_OPERATION,
	FIN_AUDIT_STATUS,
	FIN_AUDIT_OBJECT,
	FIN_AUDIT_ROW_KEY,
	FIN_AUDIT_CURRENCY,
	FIN_AUDIT_AMOUNT,
	FIN_AUDIT_BALANCE_BEFORE,
	FIN_AUDIT_BALANCE_AFTER,
	FIN_AUDIT_COUNTERPARTY_BALANCE_BEFORE,
	FIN_AUDIT_COUNTERPARTY_BALANCE_AFTER,
};

/* a field of this length, to be filled by the caller */
static char *
put_length(StringInfo leaf, uint32 length)
{
	uint32		start = pg_hton32(length);
	char	   *field;

	enlargeStringInfo(leaf, sizeof(start) + length);
	field = leaf->data + leaf->len;
	memcpy(field, &start, sizeof(start));
	leaf->len += sizeof(start) + length;
	return field + sizeof(start);
}

static void
put_bytes(StringInfo leaf, const void *bytes, uint32 length)
{
	memcpy(put_length(leaf, length), bytes, length);
}

static void
put_null(StringInfo leaf)
{
	static const uint32 length = NULL_LENGTH;	/* in any byte order */

	appendBinaryStringInfoNT(leaf, (const char *) &length, sizeof(length));
}

static void
put_int64(StringInfo leaf, int64 value)
{
	uint64		bytes = pg_hton64((uint64) value);

	put_bytes(leaf, &bytes, sizeof(bytes));
}

static void
put_int32(StringInfo leaf, int32 value)
{
	uint32		bytes = pg_hton32((uint32) value);

	put_bytes(leaf, &bytes, sizeof(bytes));
}

static void
put_varlena(StringInfo leaf, Datum value)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

	put_bytes(leaf, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
}

static void
put_text(StringInfo leaf, Datum value)
{
	text	   *stored = DatumGetTextPP(value);
	int			length = VARSIZE_ANY_EXHDR(stored);
	char	   *bytes = VARDATA_ANY(stored);
	char	   *utf8 = bytes;

	if (GetDatabaseEncoding() != PG_UTF8)
		utf8 = pg_server_to_any(bytes, length, PG_UTF8);
	put_bytes(leaf, utf8, utf8 == bytes ? length : (int) strlen(utf8));
}

static void
put_numeric(StringInfo leaf, Datum value)
{
	char	   *decimal = DatumGetCString(DirectFunctionCall1(numeric_out,
															  value));

	put_bytes(leaf, decimal, strlen(decimal));
	pfree(decimal);
}

static void
put_inet(StringInfo leaf, Datum value)
{
	put_varlena(leaf, DirectFunctionCall1(inet_send, value));
}

static void
put_field(StringInfo leaf, const FinAuditRow *row, FinAuditColumn column)
{
	Datum		value = row->values[column];

	if (row->nulls[column])
	{
		put_null(leaf);
		return;
	}
	switch (fin_audit_types[column])
	{
		case INT8OID:
		case TIMESTAMPTZOID:
		case XID8OID:
			put_int64(leaf, DatumGetInt64(value));
			break;
		case INT4OID:
			put_int32(leaf, DatumGetInt32(value));
			break;
		case UUIDOID:
			put_bytes(leaf, DatumGetUUIDP(value)->data, UUID_LEN);
			break;
		case BYTEAOID:
			put_varlena(leaf, value);
			break;
		case INETOID:
			put_inet(leaf, value);
			break;
		case TEXTOID:
		case JSONOID:
			put_text(leaf, value);
			break;
		case NUMERICOID:
			put_numeric(leaf, value);
			break;
		default:
			elog(ERROR, "no leaf encoding for type %u",
				 fin_audit_types[column]);
	}
}

void
fin_audit_payload_hash(const FinAuditRow *row, StringInfo work, FinHash *hash)
{
	bytea	   *salt = DatumGetByteaPP(row->values[FIN_AUDIT_SALT]);

	resetStringInfo(work);
	appendBinaryStringInfo(work, VARDATA_ANY(salt), VARSIZE_ANY_EXHDR(salt));
	put_field(work, row, FIN_AUDIT_REQUEST);
	put_field(work, row, FIN_AUDIT_RESPONSE);
	fin_merkle_prefixed(PAYLOAD_PREFIX, work->data, work->len, hash);
}

void
fin_audit_leaf_hash(const FinAuditRow *row, StringInfo work, FinHash *hash)
{
	resetStringInfo(work);
	pq_sendint16(work, DatumGetInt16(row->values[FIN_AUDIT_LEAF_VERSION]));
	for (int i = 0; i < (int) lengthof(encoded); i++)
		put_field(work, row, encoded[i]);
	fin_merkle_leaf(work->data, work->len, hash);
}
