/*
 * expansion.c
 *		Refuses SELECT (finance.transfer(...)).*, which would pay once a column.
 *
 * The server expands .* of a call into one call for each column of its result:
 * sixteen payments where one was meant.  After the expansion the calls still
 * have one place in the query's text, by which they are told from calls that
 * were written twice.
 *
 * Owns the hook after parse analysis.  It looks at target lists only, so a
 * query without such an expansion costs a few comparisons.  It is there as soon
 * as the library is: in every session when preloaded, else from the session's
 * first call of a function on.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "parser/analyze.h"
#include "parser/parse_node.h"
#include "utils/lsyscache.h"

#include "expansion.h"

static post_parse_analyze_hook_type prev_post_parse_analyze_hook = NULL;

/* the call whose column this is, or NULL */
static FuncExpr *
call_of_column(TargetEntry *entry)
{
	FieldSelect *column = (FieldSelect *) entry->expr;

	if (column == NULL || !IsA(column, FieldSelect) ||
		!IsA(column->arg, FuncExpr))
		return NULL;
	return (FuncExpr *) column->arg;
}

static bool
changes_books(FuncExpr *call)
{
	return func_volatile(call->funcid) == PROVOLATILE_VOLATILE &&
		get_func_namespace(call->funcid) == get_namespace_oid("finance", true);
}

static void
check_target_list(ParseState *pstate, List *target_list)
{
	FuncExpr   *previous = NULL;
	ListCell   *cell;

	foreach(cell, target_list)
	{
		FuncExpr   *call = call_of_column(lfirst_node(TargetEntry, cell));

		if (call != NULL && previous != NULL && call->location >= 0 &&
			call->location == previous->location &&
			call->funcid == previous->funcid && changes_books(call))
			ereport(ERROR,
					errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("(finance.%s(...)).* would call the function once for each column",
						   get_func_name(call->funcid)),
					errhint("Write SELECT * FROM finance.%s(...), which calls it once.",
							get_func_name(call->funcid)),
					parser_errposition(pstate, call->location));
		previous = call;
	}
}

/* the query of a command that runs one, or NULL */
static Node *
query_of_command(Node *command)
{
	if (command == NULL)
		return NULL;
	switch (nodeTag(command))
	{
		case T_CreateTableAsStmt:
			return ((CreateTableAsStmt *) command)->query;
		case T_DeclareCursorStmt:
			return ((DeclareCursorStmt *) command)->query;
		case T_ExplainStmt:
			return ((ExplainStmt *) command)->query;
		default:
			return NULL;
	}
}

/* this query, and those within it: of its command, of FROM and of WITH */
static void
check_query(ParseState *pstate, Query *query)
{
	Node	   *inner = query_of_command(query->utilityStmt);
	ListCell   *cell;

	if (inner != NULL && IsA(inner, Query))
		check_query(pstate, (Query *) inner);
	check_target_list(pstate, query->targetList);
	check_target_list(pstate, query->returningList);
	foreach(cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind == RTE_SUBQUERY && entry->subquery != NULL)
			check_query(pstate, entry->subquery);
	}
	foreach(cell, query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, cell);

		if (cte->ctequery != NULL && IsA(cte->ctequery, Query))
			check_query(pstate, (Query *) cte->ctequery);
	}
}

static void
after_parse_analysis(ParseState *pstate, Query *query, JumbleState *jstate)
{
	if (prev_post_parse_analyze_hook)
		prev_post_parse_analyze_hook(pstate, query, jstate);
	check_query(pstate, query);
}

void
fin_expansion_init(void)
{
	prev_post_parse_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = after_parse_analysis;
}
