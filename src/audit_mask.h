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

/* appends what stands for the field's value, which is not null, in the row */
extern void fin_audit_mask(StringInfo json, FinAuditShape *shape,
						   FinAuditField *field, TupleTableSlot *row);

#endif							/* FIN_AUDIT_MASK_H */
