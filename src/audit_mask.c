/*
 * audit_mask.c
 *		What is written instead of a sensitive value.
 *
 *		redact		"[redacted]"
 *		hash		"hmac-sha256:" and the keyed hash of tenant and value, in hex:
 *					equal values of a tenant stay comparable, in whatever
 *					column, and cannot be guessed without the secret
 *		encrypt		{"encrypted": ..., "subject": ...}: nonce, ciphertext and tag
 *					of AES-256-GCM in base64, under the key of the row's subject;
 *					of whom there is no key to be had, "[redacted]".  A subject
 *					that is too long for a key is refused: 54000
 *
 * What is hashed or encrypted is the value as JSON text.
 *
 * Owns nothing; locks: those of audit_key.c.
 */
#include "postgres.h"

#include "common/base64.h"
#include "port/pg_bswap.h"

#include "audit_cipher.h"
#include "audit_key.h"
#include "audit_mask.h"
#include "compat.h"
#include "context.h"

#define HASH_PREFIX "hmac-sha256:"

static void
write_redacted(StringInfo json)
{
	fin_json_string(json, FIN_AUDIT_REDACTED, strlen(FIN_AUDIT_REDACTED));
}

static StringInfoData
clear_text(FinAuditField *field, TupleTableSlot *row)
{
	StringInfoData text;

	initStringInfo(&text);
	fin_json_value(&text, &field->type, row->tts_values[field->attribute]);
	return text;
}

bool
fin_audit_mask_hash(StringInfo json, const char *clear, int length, bool make)
{
	int32		tenant_id = fin_context()->tenant_id;
	uint32		tenant = pg_hton32(tenant_id);
	const uint8 *secret = fin_audit_key(tenant_id, NULL, make);
	uint8		hash[FIN_CIPHER_HASH_LENGTH];

	if (secret == NULL)
		return false;
	fin_audit_cipher_hash(secret, &tenant, sizeof(tenant), clear, length, hash);
	appendStringInfoString(json, "\"" HASH_PREFIX);
	for (int i = 0; i < FIN_CIPHER_HASH_LENGTH; i++)
		appendStringInfo(json, "%02x", hash[i]);
	appendStringInfoChar(json, '"');
	return true;
}

static void
write_hash(StringInfo json, FinAuditField *field, TupleTableSlot *row)
{
	StringInfoData text = clear_text(field, row);

	(void) fin_audit_mask_hash(json, text.data, text.len, true);
	pfree(text.data);
}

static void
append_base64(StringInfo json, const uint8 *bytes, int length)
{
	int			room = pg_b64_enc_len(length);
	int			written;

	enlargeStringInfo(json, room);
	written = pg_b64_encode(FIN_BASE64_BYTES(bytes), length,
							json->data + json->len, room);
	if (written < 0)
		elog(ERROR, "could not encode %d bytes", length);
	json->len += written;
	json->data[json->len] = '\0';
}

/*
 * Whose the row's values are; NULL: nobody's who could be named to
 * audit_erase_subject().
 */
static char *
subject_of(FinAuditShape *shape, TupleTableSlot *row)
{
	char	   *subject;

	if (shape->subject < 0 || row->tts_isnull[shape->subject])
		return NULL;
	subject = OutputFunctionCall(&shape->subject_output,
								 row->tts_values[shape->subject]);
	if (strlen(subject) > FIN_AUDIT_SUBJECT_LENGTH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("subject of encrypted values of table %s is too long",
					   shape->object),
				errdetail("It has %zu bytes, the most is %d.",
						  strlen(subject), FIN_AUDIT_SUBJECT_LENGTH_MAX),
				errhint("Call finance.audit_table() with a column as subject that holds something shorter, such as an id."));
	return subject[0] == '\0' ? NULL : subject;
}

static void
write_encrypted(StringInfo json, FinAuditShape *shape, FinAuditField *field,
				TupleTableSlot *row)
{
	StringInfoData text;
	uint8	   *sealed;
	char	   *subject = subject_of(shape, row);
	const uint8 *key;

	if (subject == NULL)
	{
		write_redacted(json);
		return;
	}
	text = clear_text(field, row);
	key = fin_audit_key(fin_context()->tenant_id, subject, true);
	if (key == NULL)
	{
		write_redacted(json);
		return;
	}
	sealed = palloc(text.len + FIN_CIPHER_OVERHEAD);
	fin_audit_cipher_seal(key, text.data, text.len, sealed);
	appendStringInfoString(json, FIN_AUDIT_ENCRYPTED_START);
	append_base64(json, sealed, text.len + FIN_CIPHER_OVERHEAD);
	appendStringInfoString(json, FIN_AUDIT_ENCRYPTED_SUBJECT);
	fin_json_string(json, subject, strlen(subject));
	appendStringInfoChar(json, '}');
	pfree(sealed);
	pfree(text.data);
}

void
fin_audit_mask(StringInfo json, FinAuditShape *shape, FinAuditField *field,
			   TupleTableSlot *row)
{
	switch (field->mask)
	{
		case FIN_MASK_HASH:
			write_hash(json, field, row);
			break;
		case FIN_MASK_ENCRYPT:
			write_encrypted(json, shape, field, row);
			break;
		default:
			write_redacted(json);
	}
}
