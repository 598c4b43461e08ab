/*
 * joint.h
 *		Several orders that are one request: a journal.
 *
 * What journal(), exchange(), distribute() and reverse_journal() share.  Use:
 *
 *		FinJoint	joint;
 *
 *		fin_joint_begin(&joint, fcinfo, first, true, "journal");
 *		accounts = fin_joint_lock(&joint, codes, n);
 *		... fin_joint_add(&joint, from, to, amount) ...
 *		fin_joint_end(&joint, &json);
 *		... joint.orders, joint.norders are ready for posting ...
 *
 * The head carries the idempotency key and the whole request, which is what a
 * repetition is compared with.
 *
 * Locks: those fin_joint_lock() takes are the ones posting takes, in the same
 * order; taking them earlier tells currencies before the orders are made.
 * Memory: the current context's.
 */
#ifndef FIN_JOINT_H
#define FIN_JOINT_H

#include "fmgr.h"
#include "lib/stringinfo.h"

#include "order.h"

typedef struct FinJoint
{
	const char *key;			/* or NULL */
	const char *type;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
	TimestampTz effective_at;
	bool		has_effective_at;
	bool		strict;
	FinOrder   *orders;
	int			norders;
	int			size;			/* allocated */
} FinJoint;

/*
 * Takes the last arguments of a function, from 'first' on: idempotency_key,
 * type if has_type, effective_at, reference, metadata, strict.  Errors: 22023
 * bad texts, 22008 a time that is not finite, LG303 metadata too large.
 */
extern void fin_joint_begin(FinJoint *joint, FunctionCallInfo fcinfo,
							int first, bool has_type, const char *type);

/*
 * The accounts of these codes, locked: one for each code, the same for the
 * same.  Call it outside of fin_query_begin/end.  Error: LG002.
 */
extern FinAccount **fin_joint_lock(const char *const *codes, int n);

/* one transfer more; the order may be completed by the caller */
extern FinOrder *fin_joint_add(FinJoint *joint, int64 from_id, int64 to_id,
							   Numeric amount);

/*
 * Ties the orders, at least one, together.  json: the members of the request
 * so far, to which those of fin_joint_begin() are added.
 */
extern void fin_joint_end(FinJoint *joint, StringInfo json);

/* a text argument, NULL refused as 22004; one element of an array of texts */
extern char *fin_joint_code(Datum element, bool isnull, const char *what);

#endif							/* FIN_JOINT_H */
