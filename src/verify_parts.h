/*
 * verify_parts.h
 *		What the parts of the verify module share.  Private to it.
 */
#ifndef FIN_VERIFY_PARTS_H
#define FIN_VERIFY_PARTS_H

#include "postgres.h"

#include "funcapi.h"
#include "utils/snapshot.h"

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
 * Reports what is not.  False: its leaf is not.  leaf: its number, or -1.
 * Memory: the current context.
 */
extern bool fin_verify_record(ReturnSetInfo *result, const FinAuditRow *row,
							  int64 leaf, const FinHash *sealed,
							  StringInfo work);

/* a record that no leaf has */
extern void fin_verify_stranger(ReturnSetInfo *result, const FinAuditRow *row);

/* ---- verify_order.c ---- */

/* where a walk through the records of one cluster is */
typedef struct FinVerifyOrder
{
	FinAuditPosition place;		/* of the last leaf, or record without one */
	bool		knows_place;	/* false: something before is not known */

	/* the call at work; closed when until is last_id */
	bool		knows_call;
	FinAuditPosition last;		/* of the last record */
	int64		last_id;
	FinAuditPosition first;		/* of the call's first, */
	int64		first_id;		/* 0: none, */
	int64		until;			/* and what it says its last is */
} FinVerifyOrder;

/* at the beginning of a cluster's records */
extern void fin_verify_order_begin(FinVerifyOrder *order);

/*
 * Is this the place of the next leaf, or of the next record without one?
 * Reports a gap and what is out of order; false: the latter.
 */
extern bool fin_verify_place(ReturnSetInfo *result, FinVerifyOrder *order,
							 int64 leaf, int64 id,
							 const FinAuditPosition *place, bool wanted);

/* the next record: is it where its call has it? */
extern void fin_verify_call(ReturnSetInfo *result, FinVerifyOrder *order,
							const FinAuditRow *row, bool wanted);

/* there are no more of this cluster */
extern void fin_verify_order_end(ReturnSetInfo *result, FinVerifyOrder *order);

/* ---- verify_gone.c ---- */

typedef struct FinVerifyGone FinVerifyGone;

/* before a walk; memory is the current context */
extern FinVerifyGone *fin_verify_gone_begin(void);

/* a record of the log: does it tell of anything that is gone? */
extern void fin_verify_gone_hear(FinVerifyGone *gone, const FinAuditRow *row);

/* a record, which may have lost its payload; leaf: its number, or -1 */
extern void fin_verify_gone_payload(FinVerifyGone *gone,
									const FinAuditRow *row, int64 leaf);

/* a leaf has no record: false, if not for its month, which is judged at the end */
extern bool fin_verify_gone_record(FinVerifyGone *gone,
								   const FinProblem *problem);

/*
 * Reports what is gone, and no record tells of it.  heard_all: those after the
 * range that was walked are none, or were heard too; saw_all: it was the whole
 * log.
 */
extern void fin_verify_gone_end(ReturnSetInfo *result, FinVerifyGone *gone,
								Snapshot snapshot, bool heard_all,
								bool saw_all);

/* ---- verify_incarnation.c ---- */

/* has the cluster sealed anything in an incarnation after that one? */
extern bool fin_verify_has_turn(int64 system_identifier, int32 after);

/* the place of its last leaf before that incarnation; false: it had none */
extern bool fin_verify_left_at(int64 system_identifier, int32 incarnation,
							   FinAuditPosition *place);

/* ---- verify_tree.c ---- */

/* of a block: what was in it */
typedef struct FinVerifySeen
{
	int			leaves;
	FinAuditPosition first;
	FinAuditPosition last;
	int64		first_id;		/* lowest and highest */
	int64		last_id;
	int			records;		/* of the leaves */
	TimestampTz first_at;		/* earliest and latest */
	TimestampTz last_at;
} FinVerifySeen;

extern void fin_verify_see_leaf(FinVerifySeen *seen, const FinAuditLeaf *leaf);
extern void fin_verify_see_record(FinVerifySeen *seen, const FinAuditRow *row);

/* does the block's row say what was seen in it? */
extern void fin_verify_bounds(ReturnSetInfo *result,
							  const FinAuditBlock *block,
							  const FinVerifySeen *seen);

/* nodes and leaves that a tree of this size does not have */
extern void fin_verify_odd_rows(ReturnSetInfo *result, int64 size);

/* ---- verify_term.c ---- */

typedef struct FinVerifyTerms FinVerifyTerms;

/*
 * Of the leaves from 'from' until just before 'to', of so many that are sealed:
 * reports runs that are not where they belong.
 */
extern FinVerifyTerms *fin_verify_terms_begin(ReturnSetInfo *result,
											  int64 from, int64 to,
											  int64 sealed);

/* the next leaf, with its record, or NULL: that is gone, or not what was sealed */
extern void fin_verify_terms_add(FinVerifyTerms *terms, int64 leaf,
								 const FinAuditRow *row);

/* no more leaves before leaf 'to' */
extern void fin_verify_terms_end(FinVerifyTerms *terms, int64 to);

/* ---- verify_version.c ---- */

/* has every version of every account exactly one record? */
extern void fin_verify_versions(ReturnSetInfo *result);

#endif							/* FIN_VERIFY_PARTS_H */
