/*
 * expr_parts.h
 *		What the parts of expr share: each checks one stage of the text's way
 *		from tokens to an executable tree.
 */
#ifndef FIN_EXPR_PARTS_H
#define FIN_EXPR_PARTS_H

#include "nodes/nodes.h"
#include "nodes/pg_list.h"

#include "errors.h"
#include "expr.h"

#define FIN_EXPR_DIGITS_MAX		100	/* of a number, on either side of the point */
#define FIN_EXPR_TEXT_MAX		1000	/* characters of what a payer sends */

/*
 * The text and what is known of it while it is compiled.  strings: its string
 * constants, to be judged once their types are known.
 */
typedef struct FinExprSource
{
	const char *text;
	const FinExprVar *vars;
	int			nvars;
	List	   *strings;		/* of A_Const */
	bool	   *used;			/* by variable */
} FinExprSource;

/* for ereport: the place of a byte of the text; -1 is nowhere */
extern int	fin_expr_position(const FinExprSource *source, int location);

extern int	fin_expr_find_var(const FinExprSource *source, const char *name);

/*
 * The stages; each raises LG103.
 *
 * tokens: brackets balanced and not nested too deep, no comments.
 * raw: the one expression of the parse tree, made of nothing else than allowed
 * kinds of nodes; it is not too large, also when BETWEEN and IN are expanded.
 * analysed: only functions, operators, casts and types of the allow-list.
 */
extern void fin_expr_check_tokens(const FinExprSource *source);
extern Node *fin_expr_check_raw(FinExprSource *source, List *raw);
extern void fin_expr_check_analysed(const FinExprSource *source, Node *node);

/* with limits around what can get long: text of a payer, and its numbers */
extern Node *fin_expr_bound(Node *node);

/* a number of no more digits than allowed, written without Infinity or NaN */
extern bool fin_expr_is_number(const char *string);

/* date, time, timestamp, interval: read alike with any settings, at any time */
extern bool fin_expr_is_datetime(const char *string, Oid type);

#endif							/* FIN_EXPR_PARTS_H */
