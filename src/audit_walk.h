/*
 * audit_walk.h
 *		The sealed leaves of the audit log one after another, each with its
 *		block and its record.
 *
 * Private to the audit module.
 */
#ifndef FIN_AUDIT_WALK_H
#define FIN_AUDIT_WALK_H

#include "postgres.h"

#include "audit_block.h"
#include "audit_row.h"

typedef struct FinAuditWalk FinAuditWalk;

typedef struct FinAuditStep
{
	int64		index;			/* of the leaf, from 0 */
	FinAuditLeaf leaf;			/* as it was sealed */
	const FinAuditRow *row;		/* NULL: there is no such record any more */
	const FinAuditBlock *block; /* first, last, and the ids are not filled in */
	int64		system_identifier;	/* of the block's incarnation; 0: unknown */
	bool		begins_block;	/* the first of it in this walk */
} FinAuditStep;

/*
 * From leaf 'from' until just before leaf 'to'.  Within fin_query_begin/end;
 * all is read with the snapshot of the calling statement.
 */
extern FinAuditWalk *fin_audit_walk_begin(int64 from, int64 to);

/*
 * The next leaf, false when there are no more.  What step points to is good
 * until the next call.
 * Errors: LG205 a leaf is in no block, or its block lacks leaves; those of
 * fin_audit_scan_begin().
 */
extern bool fin_audit_walk_next(FinAuditWalk *walk, FinAuditStep *step);

extern void fin_audit_walk_end(FinAuditWalk *walk);

/* leaves of the newest block's tree, 0 when nothing is sealed */
extern int64 fin_audit_walk_size(void);

#endif							/* FIN_AUDIT_WALK_H */
