/*
 * expr.h
 *		A boolean SQL expression over named facts: checked, compiled, evaluated.
 *
 * PostgreSQL's own parser and executor do the work; what they may be given is
 * an allow-list: facts, constants, comparisons, arithmetic of numbers, dates
 * and times, AND, OR, NOT, IN, BETWEEN, LIKE, CASE, COALESCE, NULLIF, GREATEST,
 * LEAST, and a few functions, all immutable, all in pg_catalog, all cheap.
 */
#ifndef FIN_EXPR_H
#define FIN_EXPR_H

#include "postgres.h"

#include "nodes/params.h"
#include "utils/numeric.h"
#include "utils/palloc.h"

#define FIN_EXPR_LENGTH_MAX		4000	/* bytes */
#define FIN_EXPR_NODES_MAX		200
#define FIN_EXPR_DEPTH_MAX		40	/* of nested nodes, and of parentheses */

/* what an expression may refer to by name */
typedef struct FinExprVar
{
	const char *name;
	Oid			type;			/* numeric, int8, int4, bool, text, date, time,
								 * timestamp, interval or jsonb */
} FinExprVar;

typedef struct FinExpr FinExpr;

typedef enum FinExprResult
{
	FIN_EXPR_FALSE,
	FIN_EXPR_TRUE,
	FIN_EXPR_NULL,				/* unknown, by three-valued logic */
	FIN_EXPR_ERROR				/* division by zero, a cast that fails, ... */
} FinExprResult;

/*
 * The value of one variable: execPlan is NULL; value, of the variable's type
 * and not toasted, is read unless isnull.
 */
typedef ParamExecData FinExprValue;

/*
 * Compiles the text.  The result lives, with all it needs, in a context of its
 * own below the one given, until fin_expr_free() or the end of that; some 5 kB
 * for a short expression.  vars need not be kept.
 *
 * Error: LG103, with the place of the fault in the text as the internal query.
 * As after any other error, the (sub)transaction has to be rolled back.
 * Takes no locks; needs a transaction.
 */
extern FinExpr *fin_expr_compile(const char *text, const FinExprVar *vars,
								 int nvars, MemoryContext context);

/* may the result depend on this variable? */
extern bool fin_expr_uses(const FinExpr *expr, int var);

/*
 * A number that this variable, numeric and never null, must reach, or with
 * *above exceed, or else the result is false, whatever the other values are: as
 * 'amount > 100 AND ...' says.  NULL: the expression does not begin like that.
 */
extern Numeric fin_expr_least(const FinExpr *expr, int var, bool *above);

/*
 * The expression's result for values, one of each variable, of which only
 * those it uses are read.  *error becomes the message of FIN_EXPR_ERROR,
 * allocated in the current context, else NULL.  A query cancel, lack of memory
 * and the like are raised.  Needs no snapshot and takes no locks.
 */
extern FinExprResult fin_expr_eval(FinExpr *expr, FinExprValue *values,
								   char **error);

extern void fin_expr_free(FinExpr *expr);

#endif							/* FIN_EXPR_H */
