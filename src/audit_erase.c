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

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "argument.h"
#include "audit.h"
#include "audit_key.h"
#include "audit_mask.h"
#include "audit_row.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "json.h"
#include "query.h"

static FinQuery find_payload =
{
	.sql = "SELECT r.salt IS NOT NULL FROM finance.audit_record AS r"
	" WHERE r.id = $1 AND r.tenant_id = $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery erase_payload =
{
	.sql = "UPDATE finance.audit_record AS r"
	" SET request = NULL, response = NULL, salt = NULL"
	" WHERE r.id = $1 AND r.tenant_id = $2",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "audit_record",
};

/* in an open scope */
static void
record_erasure(const char *operation, const char *what, const char *id,
			   const char *reason, bool erased)
{
	FinAuditRecord record = {.operation = operation};
	StringInfoData json;

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
 * are left out.  False: there was no key.  Either way it is recorded.
 * Errors: 22004 null, 22023 empty or too long.
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
	record_erasure("audit_erase_subject", "subject", subject, reason, erased);
	fin_query_end(&scope);
	PG_RETURN_BOOL(erased);
}

/* in an open scope; false: there is nothing left of it */
static bool
has_payload(Datum *values, int64 record_id)
{
	bool		isnull;

	if (fin_query_run(&find_payload, values, NULL, 1) != 1)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_RECORD),
				errmsg("there is no audit record " INT64_FORMAT, record_id));
	return DatumGetBool(fin_query_datum(0, 1, &isnull));
}

PG_FUNCTION_INFO_V1(finance_audit_erase_payload);

/*
 * finance.audit_erase_payload(record_id bigint, reason text) returns boolean
 *
 * Sets request, response and salt of a record of the session's tenant to null.
 * Its payload_hash stays, and so does the leaf: without the salt the hash tells
 * nothing of what it was made of.  False: the record had no payload, or it was
 * erased before.  Recorded when something was erased.
 * Errors: 22004 null, 22023 empty or too long, LG204 no such record.
 */
Datum
finance_audit_erase_payload(PG_FUNCTION_ARGS)
{
	const char *reason = fin_argument_text(fcinfo, 1, "reason",
										   FIN_REASON_LENGTH_MAX);
	int64		record_id;
	Datum		values[2];
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
		record_erasure("audit_erase_payload", "record_id",
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
