/*
 * audit_choice.h
 *		What of a table's rows is recorded, as the table's owner chose it.
 *
 * Private to the audit module.  It is the argument of the table's triggers, a
 * JSON object that audit_shape.h describes.
 */
#ifndef FIN_AUDIT_CHOICE_H
#define FIN_AUDIT_CHOICE_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

typedef enum FinAuditMask
{
	FIN_MASK_NONE,
	FIN_MASK_REDACT,
	FIN_MASK_HASH,
	FIN_MASK_ENCRYPT
} FinAuditMask;

typedef enum FinAuditRows
{
	FIN_ROWS_DELTA,
	FIN_ROWS_FULL,
	FIN_ROWS_CHANGED
} FinAuditRows;

typedef struct FinAuditColumnMask
{
	char	   *column;
	FinAuditMask mask;
} FinAuditColumnMask;

typedef struct FinAuditChoice
{
	bool		has_columns;	/* else all, but for those to ignore */
	List	   *columns;		/* names, char * */
	List	   *ignore;
	List	   *masks;			/* of FinAuditColumnMask */
	List	   *dropped_ignore; /* the same of columns that were dropped, */
	List	   *dropped_masks;	/* for those that come back */
	char	   *subject;		/* or NULL */
	FinAuditRows rows;
} FinAuditChoice;

/* all as by default where json is NULL.  Error: 22023 it is not ours */
extern FinAuditChoice *fin_audit_choice_read(const char *json);

/*
 * Arguments of finance.audit_table(), from 'first' on: columns, ignore, mask,
 * subject, rows.  Errors: 22023 unknown mask or rows, columns and ignore both,
 * encrypt without subject, subject masked itself; 22004 null as a name.
 */
extern FinAuditChoice *fin_audit_choice_take(FunctionCallInfo fcinfo,
											 int first);

/* the same choice always has the same text */
extern char *fin_audit_choice_text(const FinAuditChoice *choice);
extern bool fin_audit_choice_is_default(const FinAuditChoice *choice);

extern bool fin_audit_choice_records(const FinAuditChoice *choice,
									 const char *column);
extern FinAuditMask fin_audit_choice_mask(const FinAuditChoice *choice,
										  const char *column);
extern bool fin_audit_choice_has_mask(const FinAuditChoice *choice,
									  FinAuditMask mask);

/*
 * The masked column that a generated one without a mask is computed from, whose
 * value it would tell; NULL: none.
 */
extern const char *fin_audit_choice_told(const FinAuditChoice *choice,
										 TupleDesc columns, AttrNumber column);

/*
 * How the column is recorded.  A generated one that came, or got another
 * expression, after the table's owner chose would tell what a masked one holds.
 */
extern FinAuditMask fin_audit_choice_mask_of(const FinAuditChoice *choice,
											 TupleDesc columns,
											 AttrNumber column);

/*
 * A column to record, or the subject, that is computed when it is read, so that
 * rows as triggers see them have no value of it; NULL: none.
 */
extern const char *fin_audit_choice_virtual(const FinAuditChoice *choice,
											TupleDesc columns);

/* a name in it that is no column of the table; NULL: there is none */
extern const char *fin_audit_choice_stranger(const FinAuditChoice *choice,
											 Oid relid);

/*
 * Columns were renamed, dropped or added: a name that is no column of the table
 * any more becomes new_name, where it is old_name, or is left out, and kept for
 * when it is a column again if it was ignored or masked.  True: the choice
 * changed.  Error: 2BP01 the subject of encrypted values is gone.
 */
extern bool fin_audit_choice_follow(FinAuditChoice *choice, Oid relid,
									const char *old_name,
									const char *new_name);

#endif							/* FIN_AUDIT_CHOICE_H */
