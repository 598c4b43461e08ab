/*
 * audit_mask.h
 *		What is written instead of a sensitive value.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_MASK_H
#define FIN_AUDIT_MASK_H

#include "audit_shape.h"

/*
 * How an encrypted value begins, and what stands between ciphertext and
 * subject.  In JSON an unescaped quote right after a brace begins a name, so
 * the beginning is found in the text without parsing it.
 */
#define FIN_AUDIT_ENCRYPTED_START	"{\"encrypted\":\""
#define FIN_AUDIT_ENCRYPTED_SUBJECT	"\",\"subject\":"

/* what stands for a value that is left out */
#define FIN_AUDIT_REDACTED	"[redacted]"

/*
 * Appends the hash of a value of the session's tenant, clear being its JSON
 * text.  False: there is nothing to key it with, so none was ever written, and
 * make is not set.
 */
extern bool fin_audit_mask_hash(StringInfo json, const char *clear, int length,
								bool make);

/* appends what stands for the field's value, which is not null, in the row */
extern void fin_audit_mask(StringInfo json, FinAuditShape *shape,
						   FinAuditField *field, TupleTableSlot *row);

#endif							/* FIN_AUDIT_MASK_H */
