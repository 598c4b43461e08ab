/*
 * audit_cipher.c
 *		AES-256-GCM and HMAC-SHA256, for what the audit log is not to tell.
 *
 * Owns one cipher context per backend, kept.  A nonce is 12 random bytes: with
 * one key per person it is used for far fewer values than could make two alike.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include <openssl/evp.h>

#include "common/hmac.h"
#include "common/sha2.h"

#include "audit_cipher.h"

static void
check(bool done)
{
	if (!done)
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not encrypt or decrypt a value of the audit log"));
}

static EVP_CIPHER_CTX *
cipher_context(void)
{
	static EVP_CIPHER_CTX *context = NULL;

	if (context == NULL)
		context = EVP_CIPHER_CTX_new();
	check(context != NULL && EVP_CIPHER_CTX_reset(context) == 1);
	return context;
}

void
fin_audit_cipher_key(uint8 *key)
{
	if (!pg_strong_random(key, FIN_CIPHER_KEY_LENGTH))
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not generate random bytes for a key"));
}

void
fin_audit_cipher_seal(const uint8 *key, const void *clear, int length,
					  uint8 *sealed)
{
	EVP_CIPHER_CTX *context = cipher_context();
	uint8	   *text = sealed + FIN_CIPHER_NONCE_LENGTH;
	int			written = 0;
	int			rest = 0;

	check(pg_strong_random(sealed, FIN_CIPHER_NONCE_LENGTH));
	check(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, sealed) == 1 &&
		  EVP_EncryptUpdate(context, text, &written, clear, length) == 1 &&
		  EVP_EncryptFinal_ex(context, text + written, &rest) == 1 &&
		  written + rest == length &&
		  EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG,
							  FIN_CIPHER_TAG_LENGTH, text + length) == 1);
}

bool
fin_audit_cipher_open(const uint8 *key, const uint8 *sealed, int length,
					  uint8 *clear)
{
	EVP_CIPHER_CTX *context = cipher_context();
	const uint8 *text = sealed + FIN_CIPHER_NONCE_LENGTH;
	int			clear_length = length - FIN_CIPHER_OVERHEAD;
	int			written = 0;
	int			rest = 0;

	if (clear_length < 0)
		return false;
	check(EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, sealed) == 1 &&
		  EVP_DecryptUpdate(context, clear, &written, text, clear_length) == 1 &&
		  EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG,
							  FIN_CIPHER_TAG_LENGTH,
							  unconstify(uint8 *, text + clear_length)) == 1);
	return EVP_DecryptFinal_ex(context, clear + written, &rest) == 1 &&
		written + rest == clear_length;
}

void
fin_audit_cipher_hash(const uint8 *key, const void *first, size_t first_length,
					  const void *second, size_t second_length, uint8 *hash)
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool		done = context != NULL &&
		pg_hmac_init(context, key, FIN_CIPHER_KEY_LENGTH) >= 0 &&
		pg_hmac_update(context, first, first_length) >= 0 &&
		pg_hmac_update(context, second, second_length) >= 0 &&
		pg_hmac_final(context, hash, FIN_CIPHER_HASH_LENGTH) >= 0;

	if (context != NULL)
		pg_hmac_free(context);
	check(done);
}
