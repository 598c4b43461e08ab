/*
 * audit_erase.c
 *		Erasing from the audit log what proofs do not need, and reading what is
 *		encrypted in it.
 *
 * Leaves cover the payload's salted hash, and that covers ciphertexts: neither
 * a key nor a payload is needed to prove that a record is there, when it was
 * made and by whom, unchanged.
 *
 * Owns kept plans only.  Locks: those of an UPDATE of one row.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "argument.h"
#include "audit.h"
#include "audit_gone.h"
#include "audit_key.h"
#include "audit_mask.h"
#include "audit_row.h"
#include "audit_tree.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "json.h"
#include "query.h"

/*
 * Where a record is that is not sealed: beyond the horizon, read in the order
 * of the partition's index.
 */
static FinQuery find_unsealed =
{
	.sql = "SELECT r.xid, r.sequence FROM finance.audit_record AS r"
	" WHERE r.id = $1 AND r.tenant_id = $2"
	" AND r.xid >=" FIN_AUDIT_UNSEALED_FROM("$3")
	" ORDER BY r.xid, r.sequence LIMIT 1",
	.nargs = 3,
	.argtypes = {INT8OID, INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery find_payload =
{
	.sql = "SELECT r.salt IS NOT NULL FROM finance.audit_record AS r"
	" WHERE r.id = $1 AND r.tenant_id = $2 AND r.xid = $3 AND r.sequence = $4",
	.nargs = 4,
	.argtypes = {INT8OID, INT4OID, XID8OID, INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery erase_payload =
{
	.sql = "UPDATE finance.audit_record AS r"
	" SET request = NULL, response = NULL, salt = NULL"
	" WHERE r.id = $1 AND r.tenant_id = $2 AND r.xid = $3 AND r.sequence = $4",
	.nargs = 4,
	.argtypes = {INT8OID, INT4OID, XID8OID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "audit_record",
};

/* in an open scope */
static void
record_erasure(const char *operation, int64 payload_of, const char *what,
			   const char *id, const char *reason, bool erased)
{
	FinAuditRecord record = {.operation = operation};
	StringInfoData json;

	/* verify_audit() asks for it where a payload is missing */
	if (payload_of != 0)
	{
		record.object = FIN_AUDIT_ERASE_OBJECT;
		record.row_key = fin_audit_erased_key(payload_of);
	}
	initStringInfo(&json);
	fin_json_text(&json, what, id);
	fin_json_text(&json, "reason", reason);
	record.status = erased ? "completed" : "nothing to erase";
	record.request = fin_json_end(&json);
	fin_audit_append(&record, 1);
}

/* it is data of somebody's table: it may have any characters */
static char *
take_subject(FunctionCallInfo fcinfo)
{
	char	   *subject;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("subject must not be null"));
	subject = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (subject[0] == '\0')
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("subject must not be empty"));
	if (strlen(subject) > FIN_AUDIT_SUBJECT_LENGTH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("subject is too long"),
				errdetail("It has %zu bytes, the most is %d.",
						  strlen(subject), FIN_AUDIT_SUBJECT_LENGTH_MAX));
	return subject;
}

PG_FUNCTION_INFO_V1(finance_audit_erase_subject);

/*
 * finance.audit_erase_subject(subject text, reason text) returns boolean
 *
 * Destroys the key of a subject of the session's tenant: what was encrypted
 * with it is never readable again, in any record.  Later values of the subject
 * are left out.  False: there was no key.  Either way it is recorded.  Waits for
 * a transaction that is open and has made the key.
 * Errors: 22004 null, 22023 empty or too long; 40001 above READ COMMITTED, the
 * key was made since the snapshot.
 */
Datum
finance_audit_erase_subject(PG_FUNCTION_ARGS)
{
	const char *subject = take_subject(fcinfo);
	const char *reason = fin_argument_text(fcinfo, 1, "reason",
										   FIN_REASON_LENGTH_MAX);
	int32		tenant_id = fin_context()->tenant_id;
	FinQueryScope scope;
	bool		erased;

	fin_query_begin(&scope);
	erased = fin_audit_key_erase(tenant_id, subject);
	record_erasure("audit_erase_subject", 0, "subject", subject, reason,
				   erased);
	fin_query_end(&scope);
	PG_RETURN_BOOL(erased);
}

static FIN_NORETURN void
refuse_unknown(int64 record_id)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_RECORD),
			errmsg("there is no audit record " INT64_FORMAT, record_id));
}

/*
 * The place of a record, which its partition's only index has: of a sealed one
 * as the block says that has its id.  Both are looked for in one snapshot, so
 * that it is not sealed in between, and in the newest, which knows all that the
 * statement does.
 */
static bool
find_place(int64 record_id, int32 tenant_id, FinAuditPosition *place)
{
	Datum		values[3] = {Int64GetDatum(record_id), Int32GetDatum(tenant_id),
	Int64GetDatum((int64) GetSystemIdentifier())};
	FinAuditFound found;
	bool		is_there = true;
	bool		isnull;

	PushActiveSnapshot(GetLatestSnapshot());
	if (fin_audit_tree_find(record_id, &found))
		*place = found.leaf.position;
	else if (fin_query_run(&find_unsealed, values, NULL, 1) == 1)
	{
		place->xid = DatumGetUInt64(fin_query_datum(0, 1, &isnull));
		place->sequence = DatumGetInt32(fin_query_datum(0, 2, &isnull));
	}
	else
		is_there = false;
	PopActiveSnapshot();
	return is_there;
}

/* in an open scope; false: there is nothing left of it */
static bool
has_payload(Datum *values, int64 record_id)
{
	FinAuditPosition place;
	bool		isnull;

	if (!find_place(record_id, DatumGetInt32(values[1]), &place))
		refuse_unknown(record_id);
	values[2] = UInt64GetDatum(place.xid);
	values[3] = Int32GetDatum(place.sequence);
	if (fin_query_run(&find_payload, values, NULL, 1) != 1)
		refuse_unknown(record_id);
	return DatumGetBool(fin_query_datum(0, 1, &isnull));
}

PG_FUNCTION_INFO_V1(finance_audit_erase_payload);

/*
 * finance.audit_erase_payload(record_id bigint, reason text) returns boolean
 *
 * Sets request, response and salt of a record of the session's tenant to null.
 * Its payload_hash stays, and so does the leaf: without the salt the hash tells
 * nothing of what it was made of.  False: the record had no payload, or it was
 * erased before.  Recorded when something was erased.  Reads the leaves of the
 * block that has the record, or what is not sealed, and no more.
 * Errors: 22004 null, 22023 empty or too long, LG204 no such record, LG205 a
 * block that may have it lacks leaves.
 */
Datum
finance_audit_erase_payload(PG_FUNCTION_ARGS)
{
	const char *reason = fin_argument_text(fcinfo, 1, "reason",
										   FIN_REASON_LENGTH_MAX);
	int64		record_id;
	Datum		values[4];		/* id, tenant, and its place */
	FinQueryScope scope;
	bool		erased;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("record_id must not be null"));
	record_id = PG_GETARG_INT64(0);
	values[0] = Int64GetDatum(record_id);
	values[1] = Int32GetDatum(fin_context()->tenant_id);
	fin_query_begin(&scope);
	erased = has_payload(values, record_id);
	if (erased)
	{
		fin_audit_pass_erasure();
		(void) fin_query_run(&erase_payload, values, NULL, 0);
		record_erasure(FIN_AUDIT_ERASE_OPERATION, record_id, "record_id",
					   psprintf(INT64_FORMAT, record_id), reason, true);
	}
	fin_query_end(&scope);
	PG_RETURN_BOOL(erased);
}

/* ------------------------------------------------------------------------
 * reading what is encrypted
 * ------------------------------------------------------------------------ */

typedef struct Decryption
{
	int32		tenant_id;
	StringInfoData clear;
	int			opened;
	int			found;
} Decryption;

/* past the JSON string at 'at'; NULL: there is none */
static const char *
end_of_string(const char *at)
{
	if (*at != '"')
		return NULL;
	for (at++; *at != '\0'; at++)
	{
		if (*at == '\\' && at[1] != '\0')
			at++;
		else if (*at == '"')
			return at + 1;
	}
	return NULL;
}

/* the string without quotes and escapes */
static char *
string_value(const char *start, const char *end)
{
	char	   *array = psprintf("[%.*s]", (int) (end - start), start);

	return TextDatumGetCString(DirectFunctionCall2(json_array_element_text,
												   CStringGetTextDatum(array),
												   Int32GetDatum(0)));
}

/* appends the clear value; false: it cannot be had */
static bool
open_value(Decryption *decryption, const char *base64, int length,
		   const char *subject)
{
	const uint8 *key = fin_audit_key(decryption->tenant_id, subject, false);
	uint8	   *sealed = palloc(length + 1);
	uint8	   *clear = palloc(length + 1);
	int			sealed_length = pg_b64_decode(base64, length,
											  FIN_BASE64_ROOM(sealed), length);

	if (key == NULL || sealed_length < FIN_CIPHER_OVERHEAD ||
		!fin_audit_cipher_open(key, sealed, sealed_length, clear))
		return false;
	appendBinaryStringInfo(&decryption->clear, (const char *) clear,
						   sealed_length - FIN_CIPHER_OVERHEAD);
	return true;
}

/* an encrypted value begins here; returns where it ends, NULL: it is none */
static const char *
decrypt_value(Decryption *decryption, const char *at)
{
	const char *base64 = at + strlen(FIN_AUDIT_ENCRYPTED_START);
	const char *end = strchr(base64, '"');
	const char *subject;
	int			length;

	if (end == NULL || strncmp(end, FIN_AUDIT_ENCRYPTED_SUBJECT,
							   strlen(FIN_AUDIT_ENCRYPTED_SUBJECT)) != 0)
		return NULL;
	length = end - base64;
	subject = end + strlen(FIN_AUDIT_ENCRYPTED_SUBJECT);
	end = end_of_string(subject);
	if (end == NULL || *end != '}')
		return NULL;
	decryption->found++;
	if (open_value(decryption, base64, length, string_value(subject, end)))
		decryption->opened++;
	else
		appendBinaryStringInfo(&decryption->clear, at, end + 1 - at);
	return end + 1;
}

static void
decrypt_all(Decryption *decryption, const char *at)
{
	const char *start;

	while ((start = strstr(at, FIN_AUDIT_ENCRYPTED_START)) != NULL)
	{
		const char *end;

		appendBinaryStringInfo(&decryption->clear, at, start - at);
		end = decrypt_value(decryption, start);
		if (end == NULL)
		{
			/* somebody's own object that looks like one */
			appendStringInfoChar(&decryption->clear, *start);
			end = start + 1;
		}
		at = end;
	}
	appendStringInfoString(&decryption->clear, at);
}

static void
record_reading(const Decryption *decryption)
{
	FinAuditRecord record = {.operation = "read",.object = "audit_decrypt"};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "values", decryption->found);
	fin_json_int64(&json, "decrypted", decryption->opened);
	record.request = fin_json_end(&json);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_audit_decrypt);

/*
 * finance.audit_decrypt(request json) returns json
 *
 * A payload with the values encrypted for subjects of the session's tenant in
 * clear; those whose key was erased stay as they are.  Records that it was
 * read.
 */
Datum
finance_audit_decrypt(PG_FUNCTION_ARGS)
{
	char	   *request = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Decryption	decryption = {.tenant_id = fin_context()->tenant_id};
	FinQueryScope scope;
	text	   *clear;

	initStringInfo(&decryption.clear);
	decrypt_all(&decryption, request);
	clear = cstring_to_text_with_len(decryption.clear.data,
									 decryption.clear.len);
	(void) fin_context();
	fin_query_begin(&scope);
	record_reading(&decryption);
	fin_query_end(&scope);
	PG_RETURN_TEXT_P(clear);
}
