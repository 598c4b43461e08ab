/*
 * audit_term.h
 *		What finds sealed audit records: the terms in finance.audit_term.
 *
 * A term is a 64-bit hash of a tag and what is looked for:
 *
 *		't' trace_id, 16 bytes				of the first record of an append only
 *		'k' tenant_id, 4 bytes big-endian, object, 0, row_key
 *		'x' transfer_id, 8 bytes big-endian
 *		'a' account_id, 8 bytes big-endian	the account's and the counterparty's
 *
 * Different things may share a term: a reader compares the record's columns.
 * The sealer writes them, so records that are not sealed yet have none: they
 * are found by the index of (xid, sequence), from finance.audit_tree.horizon on.
 */
#ifndef FIN_AUDIT_TERM_H
#define FIN_AUDIT_TERM_H

#include "postgres.h"

#include "utils/uuid.h"

#include "audit_row.h"

/* of one record */
#define FIN_AUDIT_TERMS_MAX	5

extern int64 fin_audit_term_trace(const pg_uuid_t *trace_id);
extern int64 fin_audit_term_key(int32 tenant_id, const char *object,
								int object_length, const char *row_key,
								int row_key_length);
extern int64 fin_audit_term_transfer(int64 transfer_id);
extern int64 fin_audit_term_account(int64 account_id);

/* all terms of a record; returns how many */
extern int	fin_audit_terms(const FinAuditRow *row, int64 *terms);

#endif							/* FIN_AUDIT_TERM_H */
