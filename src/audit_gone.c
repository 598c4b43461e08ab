/*
 * audit_gone.c
 *		The row keys by which the audit log says what is gone from it: see
 *		audit_gone.h.
 *
 * Pure: reads its arguments only.  Owns nothing, takes no locks.
 */
#include "postgres.h"

#include "audit_gone.h"

char *
fin_audit_erased_key(int64 record_id)
{
	return psprintf("{\"id\":" INT64_FORMAT "}", record_id);
}

int64
fin_audit_erased_id(const char *row_key)
{
	int64		id = 0;

	return sscanf(row_key, "{\"id\":" INT64_FORMAT "}", &id) == 1 ? id : 0;
}

char *
fin_audit_gone_key(const FinAuditGone *gone)
{
	return psprintf("{\"month\":\"%04d-%02d-01\",\"gone\":" INT64_FORMAT "}",
					gone->year, gone->month, gone->records);
}

bool
fin_audit_gone_read(const char *row_key, FinAuditGone *gone)
{
	FinAuditGone read;

	if (sscanf(row_key, "{\"month\":\"%4d-%2d-01\",\"gone\":" INT64_FORMAT "}",
			   &read.year, &read.month, &read.records) != 3)
		return false;
	*gone = read;
	return true;
}
