/*
 * expr.c
 *		A boolean SQL expression over named facts: checked, compiled, evaluated.
 *
 * The way of a text: tokens (expr_token.c), PostgreSQL's grammar, the raw tree
 * checked by kind of node (expr_raw.c), PostgreSQL's analysis with the search
 * path pinned to pg_catalog and the facts as parameters, the analysed tree
 * checked by function (expr_allow.c), limits put in, constants folded, and an
 * ExprState.  Each check comes before the step that it protects.
 *
 * Owns: one expression context of this backend, in which all expressions are
 * evaluated, one at a time: what they call does not come back here.
 *
 * Locks: none.  Memory: an expression lives in its own context; what one
 * evaluation allocates is freed at its end.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "expr_parts.h"

struct FinExpr
{
	MemoryContext context;		/* all of it */
	ExprState  *state;
	int			nvars;
	bool	   *used;			/* by variable */
};

/* settings that change how a text is read */
typedef struct Reading
{
	int			backslash_quote;
	bool		escape_string_warning;
	bool		standard_conforming_strings;
	bool		transform_null_equals;
	int			path_nest;
} Reading;

static ExprContext *evaluation = NULL;

/* ------------------------------------------------------------------------
 * places and names
 * ------------------------------------------------------------------------ */

int
fin_expr_position(const FinExprSource *source, int location)
{
	if (location < 0)
		return 0;
	return errposition(pg_mbstrlen_with_len(source->text, location) + 1);
}

int
fin_expr_find_var(const FinExprSource *source, const char *name)
{
	for (int i = 0; i < source->nvars; i++)
	{
		if (strcmp(source->vars[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* ------------------------------------------------------------------------
 * compiling
 * ------------------------------------------------------------------------ */

/*
 * A rule means the same in every session: the settings by which the scanner and
 * the analysis differ are set for the moment.  They are read from these
 * variables only, and nothing in between runs code of others.
 */
static void
begin_reading(Reading *saved)
{
	FIN_COMPAT_PIN_SEARCH_PATH(saved->path_nest);
	saved->backslash_quote = backslash_quote;
	saved->escape_string_warning = escape_string_warning;
	saved->standard_conforming_strings = standard_conforming_strings;
	saved->transform_null_equals = Transform_null_equals;
	backslash_quote = BACKSLASH_QUOTE_SAFE_ENCODING;
	escape_string_warning = false;
	standard_conforming_strings = true;
	Transform_null_equals = false;
}

static void
end_reading(const Reading *saved)
{
	backslash_quote = saved->backslash_quote;
	escape_string_warning = saved->escape_string_warning;
	standard_conforming_strings = saved->standard_conforming_strings;
	Transform_null_equals = saved->transform_null_equals;
	FIN_COMPAT_UNPIN_SEARCH_PATH(saved->path_nest);
}

/* a name becomes the parameter of its number; the raw check knows it is one */
static Node *
resolve_fact(ParseState *pstate, ColumnRef *ref)
{
	FinExprSource *source = pstate->p_ref_hook_state;
	int			var = fin_expr_find_var(source, strVal(linitial(ref->fields)));
	Param	   *param = makeNode(Param);

	if (var < 0)
		elog(ERROR, "fact was not checked");
	source->used[var] = true;
	param->paramkind = PARAM_EXEC;
	param->paramid = var;
	param->paramtype = source->vars[var].type;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(param->paramtype);
	param->location = ref->location;
	return (Node *) param;
}

static Expr *
analyse(FinExprSource *source)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *node;

	fin_expr_check_tokens(source);
	node = fin_expr_check_raw(source, raw_parser(source->text,
												 RAW_PARSE_PLPGSQL_EXPR));
	pstate->p_sourcetext = source->text;
	pstate->p_pre_columnref_hook = resolve_fact;
	pstate->p_ref_hook_state = source;
	/* of this kind nothing that returns sets, aggregates or looks at rows */
	node = transformExpr(pstate, node, EXPR_KIND_CHECK_CONSTRAINT);
	if (exprType(node) != BOOLOID)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("expression is of type %s, not boolean",
					   format_type_be(exprType(node))),
				fin_expr_position(source, exprLocation(node)));
	assign_expr_collations(pstate, node);
	fin_expr_check_analysed(source, node);
	return expression_planner((Expr *) fin_expr_bound(node));
}

static FinExpr *
make_expr(FinExprSource *source, Expr *planned)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "finance expression",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	FinExpr    *expr = palloc(sizeof(FinExpr));

	expr->context = context;
	expr->nvars = source->nvars;
	expr->used = memcpy(palloc(Max(source->nvars, 1)), source->used,
						source->nvars);
	expr->state = ExecInitExpr(copyObject(planned), NULL);
	MemoryContextSwitchTo(old);
	return expr;
}

/*
 * All that is wrong with a text is one error, LG103; its place is one in the
 * text, not in the caller's query.
 */
FIN_NORETURN static void
refuse(const char *text, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			break;
		default:
			error->sqlerrcode = ERRCODE_FIN_BAD_EXPRESSION;
			error->internalpos = error->cursorpos;
			error->internalquery = pstrdup(text);
			error->cursorpos = 0;
			break;
	}
	ReThrowError(error);
}

static FinExpr *
compile(FinExprSource *source)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller,
												  "finance expression being compiled",
												  ALLOCSET_DEFAULT_SIZES);
	Reading		saved;
	FinExpr    *expr = NULL;

	MemoryContextSwitchTo(scratch);
	source->used = palloc0(Max(source->nvars, 1));
	begin_reading(&saved);
	PG_TRY();
	{
		expr = make_expr(source, analyse(source));
	}
	PG_CATCH();
	{
		end_reading(&saved);
		refuse(source->text, caller);
	}
	PG_END_TRY();
	end_reading(&saved);
	MemoryContextSwitchTo(caller);
	MemoryContextSetParent(expr->context, caller);
	MemoryContextDelete(scratch);
	return expr;
}

FinExpr *
fin_expr_compile(const char *text, const FinExprVar *vars, int nvars,
				 MemoryContext context)
{
	FinExprSource source = {.text = text, .vars = vars, .nvars = nvars};
	FinExpr    *expr;

	if (strlen(text) > FIN_EXPR_LENGTH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("expression is too long"),
				errdetail("It has %zu bytes, and may have %d.",
						  strlen(text), FIN_EXPR_LENGTH_MAX),
				errhint("Make it several rules."));
	check_stack_depth();
	expr = compile(&source);
	MemoryContextSetParent(expr->context, context);
	return expr;
}

bool
fin_expr_uses(const FinExpr *expr, int var)
{
	return var >= 0 && var < expr->nvars && expr->used[var];
}

/* compares, which never fails, a variable with a constant */
static bool
is_comparison(Node *node, Param **var, Const **constant)
{
	OpExpr	   *op = (OpExpr *) node;

	if (!IsA(node, OpExpr) || list_length(op->args) != 2 ||
		!IsA(linitial(op->args), Param) || !IsA(lsecond(op->args), Const))
		return false;
	*var = linitial(op->args);
	*constant = lsecond(op->args);
	switch (op->opfuncid)
	{
		case F_NUMERIC_GT:
		case F_NUMERIC_GE:
		case F_NUMERIC_LT:
		case F_NUMERIC_LE:
		case F_NUMERIC_EQ:
		case F_NUMERIC_NE:
		case F_TEXTEQ:
		case F_TEXTNE:
			return true;
		default:
			return false;
	}
}

Numeric
fin_expr_least(const FinExpr *expr, int var, bool *above)
{
	Node	   *node = (Node *) expr->state->expr;
	List	   *parts = is_andclause(node) ? ((BoolExpr *) node)->args :
		list_make1(node);
	ListCell   *cell;

	/* what comes after one that could fail is not reached when it does */
	foreach(cell, parts)
	{
		Param	   *param;
		Const	   *constant;
		Oid			function;

		if (!is_comparison(lfirst(cell), &param, &constant))
			return NULL;
		function = ((OpExpr *) lfirst(cell))->opfuncid;
		*above = function == F_NUMERIC_GT;
		if (param->paramid == var && !constant->constisnull &&
			(function == F_NUMERIC_GT || function == F_NUMERIC_GE))
			return DatumGetNumeric(constant->constvalue);
	}
	return NULL;
}

void
fin_expr_free(FinExpr *expr)
{
	MemoryContextDelete(expr->context);
}

/* ------------------------------------------------------------------------
 * evaluating
 * ------------------------------------------------------------------------ */

static ExprContext *
make_evaluation(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ExprContext *made = CreateStandaloneExprContext();

	MemoryContextSwitchTo(old);
	return made;
}

/*
 * The message of an error of a listed function; others are raised on.  There
 * is nothing to roll back: those functions are pure, they hold no lock,
 * reference or snapshot, so no subtransaction is needed around them.  What the
 * ExprState keeps between evaluations is written at its start only.
 */
static char *
take_error(uint32 interrupt_holdoff, uint32 cancel_holdoff)
{
	ErrorData  *error = CopyErrorData();

	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			break;
		default:
			FreeErrorData(error);
			PG_RE_THROW();
	}
	FlushErrorState();
	/* an error sets them to 0; our caller may hold interrupts off */
	InterruptHoldoffCount = interrupt_holdoff;
	QueryCancelHoldoffCount = cancel_holdoff;
	return error->message;
}

FinExprResult
fin_expr_eval(FinExpr *expr, FinExprValue *values, char **error)
{
	MemoryContext caller = CurrentMemoryContext;
	uint32		interrupt_holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;
	volatile FinExprResult result = FIN_EXPR_ERROR;

	if (evaluation == NULL)
		evaluation = make_evaluation();
	evaluation->ecxt_param_exec_vals = values;
	*error = NULL;
	PG_TRY();
	{
		bool		isnull;
		Datum		value = ExecEvalExprSwitchContext(expr->state, evaluation,
													  &isnull);

		if (isnull)
			result = FIN_EXPR_NULL;
		else
			result = DatumGetBool(value) ? FIN_EXPR_TRUE : FIN_EXPR_FALSE;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		*error = take_error(interrupt_holdoff, cancel_holdoff);
	}
	PG_END_TRY();
	ResetExprContext(evaluation);
	return result;
}
