/*
 * audit_cipher.h
 *		AES-256-GCM and HMAC-SHA256, for what the audit log is not to tell.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_CIPHER_H
#define FIN_AUDIT_CIPHER_H

#include "postgres.h"

#define FIN_CIPHER_KEY_LENGTH	32
#define FIN_CIPHER_NONCE_LENGTH	12
#define FIN_CIPHER_TAG_LENGTH	16
#define FIN_CIPHER_OVERHEAD		(FIN_CIPHER_NONCE_LENGTH + FIN_CIPHER_TAG_LENGTH)
#define FIN_CIPHER_HASH_LENGTH	32

/* random bytes */
extern void fin_audit_cipher_key(uint8 *key);

/* nonce, ciphertext and tag of length bytes, into length + FIN_CIPHER_OVERHEAD */
extern void fin_audit_cipher_seal(const uint8 *key, const void *clear,
								  int length, uint8 *sealed);

/* the reverse, into length - FIN_CIPHER_OVERHEAD; false: of another key */
extern bool fin_audit_cipher_open(const uint8 *key, const uint8 *sealed,
								  int length, uint8 *clear);

/* HMAC-SHA256 of two pieces */
extern void fin_audit_cipher_hash(const uint8 *key, const void *first,
								  size_t first_length, const void *second,
								  size_t second_length, uint8 *hash);

#endif							/* FIN_AUDIT_CIPHER_H */
