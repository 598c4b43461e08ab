/*
 * audit_mask.h
 *		What is written instead of a sensitive value.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_MASK_H
#define FIN_AUDIT_MASK_H

#include "audit_shape.h"

/* appends what stands for the field's value, which is not null, in the row */
extern void fin_audit_mask(StringInfo json, FinAuditShape *shape,
						   FinAuditField *field, TupleTableSlot *row);

#endif							/* FIN_AUDIT_MASK_H */
