/*
 * expr_raw.c
 *		The raw tree of an expression: only allowed kinds of nodes, not too many.
 *
 * A node that is not known here is refused, so what later versions of
 * PostgreSQL add is refused until somebody has looked at it.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_type.h"
#include "utils/varlena.h"

#include "compat.h"
#include "expr_parts.h"

/*
 * The analysis copies the left operand of BETWEEN, and of IN where the types of
 * its list differ, so that a small tree can become a large one.
 */
#define EXPANDED_NODES_MAX	2000

/* names this close are offered for one that is not known */
#define NEAR_NAME_MAX	3

#define KINDS_HINT \
	"An expression is made of facts, constants, comparisons, arithmetic, AND," \
	" OR, NOT, IN, BETWEEN, LIKE, IS NULL, CASE, COALESCE, NULLIF, GREATEST," \
	" LEAST, casts and a few functions."
#define FUNCTIONS_HINT \
	"Functions are abs, ceil, ceiling, char_length, extract, floor, jsonb_typeof," \
	" left, length, lower, mod, position, right, round, sign, starts_with," \
	" strpos, substr, substring, trunc and upper."
#define OPERATORS_HINT \
	"Operators are = <> < <= > >= + - * / % || -> ->> and ?."
#define TYPES_HINT \
	"Types are numeric, bigint, integer, boolean, text, date, time, timestamp," \
	" interval and jsonb, without a length or precision."

typedef struct Walk
{
	FinExprSource *source;
	int			nodes;
	int			expanded;
	int			depth;
} Walk;

/* a kind of node, and what to call it */
typedef struct Kind
{
	NodeTag		tag;
	const char *name;
} Kind;

static const Kind refused_kinds[] = {
	{T_SubLink, "subquery"},
	{T_ParamRef, "parameter"},
	{T_A_ArrayExpr, "array"},
	{T_RowExpr, "row"},
	{T_A_Indirection, "subscript or field"},
	{T_CollateClause, "COLLATE"},
	{T_SetToDefault, "DEFAULT"},
	{T_SQLValueFunction, "current date, time or user"},
	{T_NamedArgExpr, "named argument"},
	{T_XmlExpr, "XML function"},
	{T_GroupingFunc, "GROUPING"},
};

static const char *const operators[] = {
	"=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "->", "->>",
	"?", NULL
};

static const char *const functions[] = {
	"abs", "ceil", "ceiling", "char_length", "character_length", "extract",
	"floor", "jsonb_typeof", "left", "length", "lower", "mod", "position",
	"right", "round", "sign", "starts_with", "strpos", "substr", "substring",
	"trunc", "upper", NULL
};

static const char *const types[] = {
	"numeric", "int8", "int4", "bool", "text", "date", "time", "timestamp",
	"interval", "jsonb", NULL
};

static void check(Walk *walk, Node *node, int copies);

FIN_NORETURN static void
refuse(Walk *walk, int location, const char *message, const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_EXPRESSION),
			errmsg("%s", message),
			errhint("%s", hint),
			fin_expr_position(walk->source, location));
}

static bool
is_listed(const char *const *list, const char *name)
{
	for (; *list != NULL; list++)
	{
		if (strcmp(*list, name) == 0)
			return true;
	}
	return false;
}

/*
 * The last part of a name that is not qualified, or by pg_catalog as the
 * grammar writes those of its own; else NULL.
 */
static const char *
plain_name(List *names)
{
	if (list_length(names) == 1)
		return strVal(linitial(names));
	if (list_length(names) == 2 &&
		strcmp(strVal(linitial(names)), "pg_catalog") == 0)
		return strVal(lsecond(names));
	return NULL;
}

/* ------------------------------------------------------------------------
 * facts and constants
 * ------------------------------------------------------------------------ */

/* the variable whose name is nearest to a mistyped one, or NULL */
static const char *
nearest(const FinExprSource *source, const char *name)
{
	const char *found = NULL;
	int			least = Min(NEAR_NAME_MAX, (int) strlen(name) / 2) + 1;

	for (int i = 0; i < source->nvars; i++)
	{
		const char *other = source->vars[i].name;
		int			distance;

		distance = varstr_levenshtein(name, (int) strlen(name), other,
									  (int) strlen(other), 1, 1, 1, true);
		if (distance < least)
		{
			least = distance;
			found = other;
		}
	}
	return found;
}

static void
check_column(Walk *walk, ColumnRef *ref)
{
	const char *name;
	const char *near;

	if (list_length(ref->fields) != 1 || !IsA(linitial(ref->fields), String))
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("%s is not a fact", NameListToString(ref->fields)),
				errhint("Facts have plain names; a member of metadata is metadata->>'name'."),
				fin_expr_position(walk->source, ref->location));
	name = strVal(linitial(ref->fields));
	if (fin_expr_find_var(walk->source, name) >= 0)
		return;
	near = nearest(walk->source, name);
	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_EXPRESSION),
			errmsg("fact \"%s\" does not exist", name),
			near != NULL ? errhint("Perhaps \"%s\" is meant.", near) :
			errhint("finance.risk_facts() lists them; text is written in single quotes."),
			fin_expr_position(walk->source, ref->location));
}

static void
check_constant(Walk *walk, A_Const *constant)
{
	if (constant->isnull)
		return;
	switch (nodeTag(&constant->val))
	{
		case T_Integer:
		case T_Boolean:
			break;
		case T_Float:
			if (!fin_expr_is_number(constant->val.fval.fval))
				refuse(walk, constant->location, "number is out of range",
					   "A number has at most 100 digits, and an exponent of at most 99.");
			break;
		case T_String:
			walk->source->strings = lappend(walk->source->strings, constant);
			break;
		default:
			refuse(walk, constant->location,
				   "bit string is not allowed in an expression", KINDS_HINT);
	}
}

/* ------------------------------------------------------------------------
 * operators, functions, casts
 * ------------------------------------------------------------------------ */

static void
check_operator(Walk *walk, A_Expr *node, int copies)
{
	/* OPERATOR(schema.name) is not: the grammar qualifies none of its own */
	if (list_length(node->name) != 1 ||
		!is_listed(operators, strVal(linitial(node->name))))
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("operator %s is not allowed in an expression",
					   NameListToString(node->name)),
				errhint("%s", OPERATORS_HINT),
				fin_expr_position(walk->source, node->location));
	check(walk, node->lexpr, copies);
	check(walk, node->rexpr, copies);
}

static void
check_list_operator(Walk *walk, A_Expr *node, int copies)
{
	int			uses;			/* of the left operand, when expanded */

	if (list_length(node->name) == 1 && IsA(node->rexpr, List))
		uses = Max(list_length((List *) node->rexpr), 1);
	else
		refuse(walk, node->location, "subquery is not allowed in an expression",
			   KINDS_HINT);
	if (node->kind == AEXPR_IN)
	{
		/* once, unless types differ; then it had better be small */
		check(walk, node->lexpr,
			  IsA(node->lexpr, ColumnRef) ? copies : copies * uses);
		check(walk, node->rexpr, copies);
		return;
	}
	/* the symmetric one is two BETWEENs */
	check(walk, node->lexpr, copies * 4);
	check(walk, node->rexpr, copies * 2);
}

static void
check_a_expr(Walk *walk, A_Expr *node, int copies)
{
	switch (node->kind)
	{
		case AEXPR_OP:
			check_operator(walk, node, copies);
			break;
		case AEXPR_DISTINCT:
		case AEXPR_NOT_DISTINCT:
		case AEXPR_NULLIF:
		case AEXPR_LIKE:
			/* their operators have names of the grammar */
			check(walk, node->lexpr, copies);
			check(walk, node->rexpr, copies);
			break;
		case AEXPR_IN:
		case AEXPR_BETWEEN:
		case AEXPR_NOT_BETWEEN:
		case AEXPR_BETWEEN_SYM:
		case AEXPR_NOT_BETWEEN_SYM:
			check_list_operator(walk, node, copies);
			break;
		case AEXPR_ILIKE:
			refuse(walk, node->location, "ILIKE is not allowed in an expression",
				   "Use lower(...) LIKE.");
		case AEXPR_SIMILAR:
			refuse(walk, node->location,
				   "SIMILAR TO is not allowed in an expression",
				   "Use LIKE, or IN with the values in question.");
		default:
			refuse(walk, node->location,
				   "ANY and ALL are not allowed in an expression",
				   "Use IN with a list of values.");
	}
}

static void
check_function(Walk *walk, FuncCall *call, int copies)
{
	const char *name = plain_name(call->funcname);

	if (name == NULL || !is_listed(functions, name))
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("function %s is not allowed in an expression",
					   NameListToString(call->funcname)),
				errhint("%s", FUNCTIONS_HINT),
				fin_expr_position(walk->source, call->location));
	if (call->agg_order != NIL || call->agg_filter != NULL ||
		call->over != NULL || call->agg_within_group || call->agg_star ||
		call->agg_distinct || call->func_variadic)
		refuse(walk, call->location,
			   "a function in an expression has plain arguments only",
			   FUNCTIONS_HINT);
	check(walk, (Node *) call->args, copies);
}

static void
check_cast(Walk *walk, TypeCast *cast, int copies)
{
	TypeName   *type = cast->typeName;
	const char *name = plain_name(type->names);

	if (name == NULL || !is_listed(types, name) || type->setof ||
		type->pct_type || type->typmods != NIL || type->arrayBounds != NIL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("type %s is not allowed in an expression",
					   TypeNameToString(type)),
				errhint("%s", TYPES_HINT),
				fin_expr_position(walk->source, type->location));
	check(walk, cast->arg, copies);
}

/* ------------------------------------------------------------------------
 * the tree
 * ------------------------------------------------------------------------ */

FIN_NORETURN static void
refuse_kind(Walk *walk, Node *node)
{
	const char *name = "this";

	for (int i = 0; i < (int) lengthof(refused_kinds); i++)
	{
		if (refused_kinds[i].tag == nodeTag(node))
			name = refused_kinds[i].name;
	}
	refuse(walk, exprLocation(node),
		   psprintf("%s is not allowed in an expression", name), KINDS_HINT);
}

static void
check_case(Walk *walk, CaseExpr *node, int copies)
{
	ListCell   *cell;

	check(walk, (Node *) node->arg, copies);
	foreach(cell, node->args)
	{
		CaseWhen   *when = lfirst_node(CaseWhen, cell);

		check(walk, (Node *) when->expr, copies);
		check(walk, (Node *) when->result, copies);
	}
	check(walk, (Node *) node->defresult, copies);
}

static void
check_node(Walk *walk, Node *node, int copies)
{
	switch (nodeTag(node))
	{
		case T_ColumnRef:
			check_column(walk, (ColumnRef *) node);
			break;
		case T_A_Const:
			check_constant(walk, (A_Const *) node);
			break;
		case T_A_Expr:
			check_a_expr(walk, (A_Expr *) node, copies);
			break;
		case T_FuncCall:
			check_function(walk, (FuncCall *) node, copies);
			break;
		case T_TypeCast:
			check_cast(walk, (TypeCast *) node, copies);
			break;
		case T_CaseExpr:
			check_case(walk, (CaseExpr *) node, copies);
			break;
		case T_BoolExpr:
			check(walk, (Node *) ((BoolExpr *) node)->args, copies);
			break;
		case T_CoalesceExpr:
			check(walk, (Node *) ((CoalesceExpr *) node)->args, copies);
			break;
		case T_MinMaxExpr:
			check(walk, (Node *) ((MinMaxExpr *) node)->args, copies);
			break;
		case T_NullTest:
			check(walk, (Node *) ((NullTest *) node)->arg, copies);
			break;
		case T_BooleanTest:
			check(walk, (Node *) ((BooleanTest *) node)->arg, copies);
			break;
		default:
			refuse_kind(walk, node);
	}
}

/* copies: how many times the analysis may write the node */
static void
check(Walk *walk, Node *node, int copies)
{
	if (node == NULL)
		return;
	if (IsA(node, List))
	{
		ListCell   *cell;

		foreach(cell, (List *) node)
			check(walk, lfirst(cell), copies);
		return;
	}
	/* before going down: the tree may be as deep as the text is long */
	if (++walk->depth > FIN_EXPR_DEPTH_MAX)
		refuse(walk, exprLocation(node), "expression is nested too deep",
			   "Make it several rules.");
	walk->nodes++;
	walk->expanded += copies;
	if (walk->nodes > FIN_EXPR_NODES_MAX || walk->expanded > EXPANDED_NODES_MAX)
		refuse(walk, exprLocation(node), "expression has too many parts",
			   psprintf("It may have %d names, constants and operators; make it several rules.",
						FIN_EXPR_NODES_MAX));
	check_node(walk, node, copies);
	walk->depth--;
}

/* where what is more than one condition begins, if that is known */
static int
excess_location(SelectStmt *select)
{
	Node	   *excess[] = {
		(Node *) select->fromClause, select->whereClause,
		(Node *) select->groupClause, select->havingClause,
		(Node *) select->windowClause, (Node *) select->sortClause,
		select->limitOffset, select->limitCount
	};

	if (list_length(select->targetList) > 1)
		return exprLocation(lsecond(select->targetList));
	for (int i = 0; i < (int) lengthof(excess); i++)
	{
		if (excess[i] != NULL)
			return exprLocation(excess[i]);
	}
	return -1;
}

/* the grammar of an expression is that of a SELECT without the word */
Node *
fin_expr_check_raw(FinExprSource *source, List *raw)
{
	Walk		walk = {.source = source};
	SelectStmt *select = (SelectStmt *) linitial_node(RawStmt, raw)->stmt;
	ResTarget  *target;

	if (!IsA(select, SelectStmt))
		elog(ERROR, "expression was not parsed as one");
	if (list_length(select->targetList) != 1 ||
		select->distinctClause != NIL || select->intoClause != NULL ||
		select->valuesLists != NIL || select->lockingClause != NIL ||
		select->withClause != NULL || select->op != SETOP_NONE ||
		select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL)
		refuse(&walk, excess_location(select),
			   "expression is not one condition", KINDS_HINT);
	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL || target->indirection != NIL)
		refuse(&walk, target->location, "an expression has no name",
			   "Text is written in single quotes, and conditions are joined by AND or OR.");
	check(&walk, target->val, 1);
	return target->val;
}
