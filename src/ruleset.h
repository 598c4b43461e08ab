/*
 * ruleset.h
 *		Versions of the rules: drafts, what is live, what is shadow.
 *
 * All functions run inside fin_query_begin/end.
 */
#ifndef FIN_RULESET_H
#define FIN_RULESET_H

#include "context.h"

/* a change of one ruleset, between begin and end */
typedef struct FinRulesetEdit
{
	int32		version;		/* the draft that is changed */
	bool		is_immediate;	/* nobody named one: it is live at the end */
} FinRulesetEdit;

/*
 * Starts to change a draft, or, with version 0, a copy of what is live, which is
 * named after the change.
 * Errors: LG108 no such ruleset, LG109 no draft.  Locks the tenant's rulesets
 * against other changes until the end of the transaction.
 */
extern void fin_ruleset_begin_edit(const FinContext *context, int32 version,
								   const char *change, FinRulesetEdit *edit);
extern void fin_ruleset_end_edit(const FinContext *context,
								 const FinRulesetEdit *edit);

/* the optional argument that names a draft; 0: null.  Error: 22023 */
extern int32 fin_ruleset_argument(FunctionCallInfo fcinfo, int argument);

#endif							/* FIN_RULESET_H */
