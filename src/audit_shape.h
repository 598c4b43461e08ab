/*
 * audit_shape.h
 *		How the rows of one audited table are recorded.
 *
 * Private to the audit module.
 *
 * The choice is an argument of the table's triggers, a JSON object:
 *
 *		columns		array of names: only these are recorded
 *		ignore		array of names: these are not, and an UPDATE that changes
 *					nothing else leaves no record
 *		mask		object: name of a column -> 'redact', 'hash' or 'encrypt'
 *		dropped_ignore, dropped_mask
 *					the same of columns that were dropped since, should they
 *					come back
 *		subject		name of the column that names whom encrypted values are of
 *		rows		what an UPDATE records.  'delta' (default): the new row, and
 *					of the old one what changed, so both are known; 'full': both
 *					as they are; 'changed': of both only what changed
 *
 * so a dump carries it with the table, and nobody but the table's owner
 * changes it.
 */
#ifndef FIN_AUDIT_SHAPE_H
#define FIN_AUDIT_SHAPE_H

#include "commands/trigger.h"
#include "executor/tuptable.h"

#include "audit_choice.h"
#include "json_value.h"

typedef struct FinAuditField
{
	int			attribute;		/* from 0, in the row's arrays */
	bool		by_value;
	int16		length;			/* of the type, for comparing */
	FinAuditMask mask;
	char	   *label;			/* "name": */
	int			label_length;
	FinJsonType type;
} FinAuditField;

typedef struct FinAuditShape
{
	Oid			relid;
	bool		valid;			/* until the table or its schema changes */
	bool		cached;
	int			users;			/* calls of triggers */
	MemoryContext memory;
	uint32		schema_hash;	/* of the schema's OID, as caches have it */
	char	   *argument;		/* the choice; NULL: all as by default */
	char	   *object;			/* schema.table, quoted */
	FinAuditRows rows;
	bool		ignores;		/* not all columns are looked at */
	FinOutputNeed need;			/* to be fixed while rows are written */
	int			natts;			/* of the row */
	int			nfields;
	FinAuditField *fields;		/* what is recorded */
	int			nkeys;			/* of the primary key; 0: none */
	FinAuditField *keys;
	int			subject;		/* attribute, from 0; -1: none */
	FmgrInfo	subject_output;
} FinAuditShape;

/*
 * The shape of the trigger's table.  Good until the current memory context is
 * reset, whatever happens to the table meanwhile.  Errors: 22023 the trigger's
 * argument is not what finance.audit_table() writes, or names a column that is
 * not there any more.
 */
extern FinAuditShape *fin_audit_shape(const TriggerData *trigger);

/* {"id":1}; NULL when there is no primary key; in the current context */
extern char *fin_audit_key_text(FinAuditShape *shape, TupleTableSlot *row);

/*
 * {"old":{...},"new":{...}} of a row before and after; either may be NULL.
 * NULL: an UPDATE that changed nothing of what is recorded.
 */
extern text *fin_audit_change_text(FinAuditShape *shape, TupleTableSlot *old_row,
								   TupleTableSlot *new_row);

extern void fin_audit_shape_init(void);

/*
 * The columns of the table's primary key, deferrable or not, less
 * FirstLowInvalidHeapAttributeNumber; NULL: it has none.
 */
extern Bitmapset *fin_audit_key_columns(Relation table);

#endif							/* FIN_AUDIT_SHAPE_H */
