/*
 * audit_term.h
 *		What finds sealed audit records: terms, and the runs they are kept in.
 *
 * A term is a 64-bit hash of a tag and what is looked for:
 *
 *		't' trace_id, 16 bytes				of the first record of an append only
 *		'k' tenant_id, 4 bytes big-endian, object, 0, row_key: in UTF-8
 *		'x' transfer_id, 8 bytes big-endian
 *		'a' account_id, 8 bytes big-endian	the account's and the counterparty's
 *
 * Dumps carry terms to other machines and databases, so they depend on neither
 * the byte order nor the encoding: t/400_seal.pl has some in full.
 *
 * Different things may share a term: a reader compares the record's columns.
 * The sealer writes them, so records that are not sealed yet have none: they
 * are found by the index of (xid, sequence), from finance.audit_tree.horizon on:
 * FIN_AUDIT_UNSEALED_FROM in audit_block.h.
 *
 * A run, a row of finance.audit_term, has the terms of the leaves from
 * first_leaf until just before end_leaf, in ascending order of (term, leaf), each
 * of FIN_AUDIT_TERM_ENTRY bytes:
 *
 *		term		uint8, big-endian
 *		leaf		uint4, big-endian: counted from first_leaf
 *
 * Terms being hashes, an entry lies about where its term stands among all 2^64,
 * and a look into a run reads a few kB of it.  Runs follow each other without a
 * gap, so that each sealed leaf is in one; one that has no entries is still
 * there.  verify_audit() holds them against the records (verify_term.c).
 */
#ifndef FIN_AUDIT_TERM_H
#define FIN_AUDIT_TERM_H

#include "postgres.h"

#include "utils/uuid.h"

#include "audit_block.h"
#include "audit_row.h"

/* ---- terms ---- */

/* of one record */
#define FIN_AUDIT_TERMS_MAX	5

extern uint64 fin_audit_term_trace(const pg_uuid_t *trace_id);
extern uint64 fin_audit_term_key(int32 tenant_id, const char *object,
								 int object_length, const char *row_key,
								 int row_key_length);
extern uint64 fin_audit_term_transfer(int64 transfer_id);
extern uint64 fin_audit_term_account(int64 account_id);

/* all terms of a record; returns how many */
extern int	fin_audit_terms(const FinAuditRow *row, uint64 *terms);

/* ---- runs ---- */

#define FIN_AUDIT_TERM_ENTRY	12

typedef struct FinAuditTerm
{
	uint64		term;
	uint32		leaf;			/* counted from the run's first_leaf */
} FinAuditTerm;

extern void fin_audit_term_put(char *entry, const FinAuditTerm *term);
extern void fin_audit_term_get(const char *entry, FinAuditTerm *term);

/* ---- finding ---- */

/*
 * The leaves with this term, from from_leaf until just before to_leaf, in
 * ascending order; returns how many.  Within a query scope, as the statement's
 * snapshot has them.  Error: LG205 a run is damaged, or its leaves are missing.
 */
extern int	fin_audit_find(uint64 term, int64 from_leaf, int64 to_leaf,
						   FinAuditFound **found);

#endif							/* FIN_AUDIT_TERM_H */
