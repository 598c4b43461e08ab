/*
 * audit_key.h
 *		The keys of masked values: one per subject, and one to hash with.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_KEY_H
#define FIN_AUDIT_KEY_H

#include "audit_cipher.h"

/* in bytes; those of longer ones would not fit into the index of keys */
#define FIN_AUDIT_SUBJECT_LENGTH_MAX	1024

/*
 * The key of a subject of the tenant, or, where subject is NULL, the secret
 * that the tenant's hashes are keyed with; made where there is none and make is
 * set.  NULL: there is none, or it was erased.  Good until the next call.
 */
extern const uint8 *fin_audit_key(int32 tenant_id, const char *subject,
								  bool make);

/* false: there was none to erase */
extern bool fin_audit_key_erase(int32 tenant_id, const char *subject);

#endif							/* FIN_AUDIT_KEY_H */
