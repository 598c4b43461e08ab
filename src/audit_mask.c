/*
 * audit_mask.c
 *		What is written instead of a sensitive value.
 *
 * Owns nothing; takes no locks.
 */
#include "postgres.h"

#include "audit_mask.h"

#define REDACTED "[redacted]"

void
fin_audit_mask(StringInfo json, FinAuditShape *shape, FinAuditField *field,
			   TupleTableSlot *row)
{
	if (field->mask != FIN_MASK_REDACT)
		ereport(ERROR,
				errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("this mask of an audit trigger is not known"));
	fin_json_string(json, REDACTED, strlen(REDACTED));
}
