/*
 * audit_version.h
 *		A row of an audited table, from one record of it to the next.
 *
 * Private to the audit module.
 *
 * A record says what the row was, old, and what it became, new: an INSERT has
 * the one, a DELETE the other, a TRUNCATE neither.  Where old and new are as a
 * whole, the state is replaced; where only what changed is recorded, that is
 * laid over the state.
 *
 * Records of one transaction are in the order they were written, which is not
 * always that of the changes: a trigger for each row that changes its own row
 * again does so before the statement that fired it is recorded.  So of those
 * next in line the first is taken whose old row is what the one before left;
 * where none is, the first.
 */
#ifndef FIN_AUDIT_VERSION_H
#define FIN_AUDIT_VERSION_H

#include "audit_members.h"

/* of one transaction, so many are looked at for the one that comes next */
#define FIN_AUDIT_LOOK_AHEAD	32

/* one record */
typedef struct FinAuditChange
{
	FinAuditPiece request;		/* at NULL: none, or erased */
	FinAuditPiece row_key;
	FinAuditPiece object;
	uint64		row;			/* for the caller: which record it is */
	bool		is_truncate;
	bool		is_delete;
	bool		used;
	bool		is_read;		/* what follows is filled in */
	bool		has_old;
	bool		has_new;
	FinAuditMembers old_row;
	FinAuditMembers new_row;
} FinAuditChange;

/* those of one transaction, in the order of their writing */
typedef struct FinAuditRun
{
	FinAuditChange *changes;
	int			n;
	int			first;			/* all before it are used */
} FinAuditRun;

/* the row; zeroed, but for 'above' and in_family: nothing is known of it */
typedef struct FinAuditState
{
	bool		is_known;		/* whether it is there */
	bool		is_there;
	bool		has_row;		/* its columns are known, as far as recorded */
	FinAuditMembers row;
	FinAuditPiece object;		/* the table whose record told them */
	bool		in_family;		/* records of other tables tell of it, which
								 * have some of its columns only */
	MemoryContext above;
	MemoryContext memory;		/* of what is here, below it; NULL: none yet */
} FinAuditState;

/*
 * The change that comes next, marked as used; NULL: there are no more.  What is
 * read of changes is in the current memory context, which must outlive them.
 */
extern FinAuditChange *fin_audit_version_next(FinAuditRun *run,
											  const FinAuditState *state);

/*
 * Makes the state what it is after the change; false: the change does not
 * concern the row.
 */
extern bool fin_audit_version_apply(FinAuditState *state,
									FinAuditChange *change);

/* fills in what the request says */
extern void fin_audit_version_read(FinAuditChange *change);

#endif							/* FIN_AUDIT_VERSION_H */
