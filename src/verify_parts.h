/*
 * verify_parts.h
 *		What the parts of the verify module share.  Private to it.
 */
#ifndef FIN_VERIFY_PARTS_H
#define FIN_VERIFY_PARTS_H

#include "postgres.h"

#include "funcapi.h"

#include "audit_block.h"
#include "audit_row.h"

/* a row of the result; what is 0 or NULL is null */
typedef struct FinProblem
{
	bool		has_leaf;
	int64		leaf;
	int64		record_id;
	FinAuditPosition position;	/* xid 0: null */
	const char *problem;
	const char *expected;
	const char *found;
} FinProblem;

extern void fin_verify_report(ReturnSetInfo *result, const FinProblem *problem);
extern char *fin_verify_hex(const FinHash *hash);

/* ---- verify_record.c ---- */

/*
 * Is the record what its writer hashed, and what was sealed (NULL: not yet)?
 * Reports what is not.  leaf: its number, or -1.  Memory: the current context.
 */
extern void fin_verify_record(ReturnSetInfo *result, const FinAuditRow *row,
							  int64 leaf, const FinHash *sealed,
							  StringInfo work);

/* a record that no leaf has */
extern void fin_verify_stranger(ReturnSetInfo *result, const FinAuditRow *row);

/* ---- verify_version.c ---- */

/* has every version of every account exactly one record? */
extern void fin_verify_versions(ReturnSetInfo *result);

#endif							/* FIN_VERIFY_PARTS_H */
