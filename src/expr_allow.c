/*
 * expr_allow.c
 *		The analysed tree of an expression: only listed functions, casts, types.
 *
 * Listed by OID, which for what PostgreSQL is built with is the same in every
 * database and cannot be another's.  Each is written in C, immutable, cannot
 * see the database, and takes time and memory no more than in proportion to
 * its arguments (or their product, where both are bounded).  Arguments are
 * bounded because what a payer may send is, see fin_expr_bound().
 *
 * Order of text is not listed, as it depends on the collation's version, nor
 * are floating-point numbers, regular expressions, or what depends on settings
 * or the time: time zones, and dates in words.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_node.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "expr_parts.h"

/* numeric(140, 40) */
#define NUMBER_TYPMOD \
	((((FIN_EXPR_DIGITS_MAX + 40) << 16) | 40) + VARHDRSZ)

static bool
is_allowed_function(Oid function)
{
	switch (function)
	{
			/* boolean */
		case F_BOOLEQ:
		case F_BOOLNE:
			/* int4 */
		case F_INT4EQ:
		case F_INT4NE:
		case F_INT4LT:
		case F_INT4LE:
		case F_INT4GT:
		case F_INT4GE:
		case F_INT4PL:
		case F_INT4MI:
		case F_INT4MUL:
		case F_INT4DIV:
		case F_INT4MOD:
		case F_INT4UM:
		case F_INT4UP:
		case F_ABS_INT4:
		case F_MOD_INT4_INT4:
			/* int8, also with int4 */
		case F_INT8EQ:
		case F_INT8NE:
		case F_INT8LT:
		case F_INT8LE:
		case F_INT8GT:
		case F_INT8GE:
		case F_INT8PL:
		case F_INT8MI:
		case F_INT8MUL:
		case F_INT8DIV:
		case F_INT8MOD:
		case F_INT8UM:
		case F_INT8UP:
		case F_ABS_INT8:
		case F_MOD_INT8_INT8:
		case F_INT84EQ:
		case F_INT84NE:
		case F_INT84LT:
		case F_INT84LE:
		case F_INT84GT:
		case F_INT84GE:
		case F_INT84PL:
		case F_INT84MI:
		case F_INT84MUL:
		case F_INT84DIV:
		case F_INT48EQ:
		case F_INT48NE:
		case F_INT48LT:
		case F_INT48LE:
		case F_INT48GT:
		case F_INT48GE:
		case F_INT48PL:
		case F_INT48MI:
		case F_INT48MUL:
		case F_INT48DIV:
			/* numeric */
		case F_NUMERIC_EQ:
		case F_NUMERIC_NE:
		case F_NUMERIC_LT:
		case F_NUMERIC_LE:
		case F_NUMERIC_GT:
		case F_NUMERIC_GE:
		case F_NUMERIC_ADD:
		case F_NUMERIC_SUB:
		case F_NUMERIC_MUL:
		case F_NUMERIC_DIV:
		case F_NUMERIC_MOD:
		case F_NUMERIC_UMINUS:
		case F_NUMERIC_UPLUS:
		case F_ABS_NUMERIC:
		case F_SIGN_NUMERIC:
		case F_MOD_NUMERIC_NUMERIC:
		case F_ROUND_NUMERIC:
		case F_ROUND_NUMERIC_INT4:
		case F_TRUNC_NUMERIC:
		case F_TRUNC_NUMERIC_INT4:
		case F_CEIL_NUMERIC:
		case F_CEILING_NUMERIC:
		case F_FLOOR_NUMERIC:
			/* casts of numbers */
		case F_NUMERIC_INT4:
		case F_NUMERIC_INT8:
		case F_INT8_INT4:
		case F_INT8_NUMERIC:
		case F_INT4_INT8:
		case F_INT4_NUMERIC:
		case F_TEXT_BOOL:
			/* text */
		case F_TEXTEQ:
		case F_TEXTNE:
		case F_TEXTCAT:
		case F_TEXTLIKE:
		case F_TEXTNLIKE:
		case F_LOWER_TEXT:
		case F_UPPER_TEXT:
		case F_LENGTH_TEXT:
		case F_CHAR_LENGTH_TEXT:
		case F_CHARACTER_LENGTH_TEXT:
		case F_LEFT:
		case F_RIGHT:
		case F_SUBSTR_TEXT_INT4:
		case F_SUBSTR_TEXT_INT4_INT4:
		case F_SUBSTRING_TEXT_INT4:
		case F_SUBSTRING_TEXT_INT4_INT4:
		case F_STARTS_WITH:
		case F_POSITION_TEXT_TEXT:
		case F_STRPOS:
			/* jsonb */
		case F_JSONB_OBJECT_FIELD:
		case F_JSONB_OBJECT_FIELD_TEXT:
		case F_JSONB_ARRAY_ELEMENT:
		case F_JSONB_ARRAY_ELEMENT_TEXT:
		case F_JSONB_EXISTS:
		case F_JSONB_TYPEOF:
			/* date */
		case F_DATE_EQ:
		case F_DATE_NE:
		case F_DATE_LT:
		case F_DATE_LE:
		case F_DATE_GT:
		case F_DATE_GE:
		case F_DATE_MI:
		case F_DATE_PLI:
		case F_DATE_MII:
		case F_DATE_PL_INTERVAL:
		case F_DATE_MI_INTERVAL:
		case F_DATETIME_PL:
		case F_DATE_TIMESTAMP:
		case F_EXTRACT_TEXT_DATE:
			/* time */
		case F_TIME_EQ:
		case F_TIME_NE:
		case F_TIME_LT:
		case F_TIME_LE:
		case F_TIME_GT:
		case F_TIME_GE:
		case F_TIME_MI_TIME:
		case F_TIME_PL_INTERVAL:
		case F_TIME_MI_INTERVAL:
		case F_TIME_TIMESTAMP:
		case F_EXTRACT_TEXT_TIME:
			/* timestamp, also with date */
		case F_TIMESTAMP_EQ:
		case F_TIMESTAMP_NE:
		case F_TIMESTAMP_LT:
		case F_TIMESTAMP_LE:
		case F_TIMESTAMP_GT:
		case F_TIMESTAMP_GE:
		case F_TIMESTAMP_MI:
		case F_TIMESTAMP_PL_INTERVAL:
		case F_TIMESTAMP_MI_INTERVAL:
		case F_TIMESTAMP_DATE:
		case F_DATE_EQ_TIMESTAMP:
		case F_DATE_NE_TIMESTAMP:
		case F_DATE_LT_TIMESTAMP:
		case F_DATE_LE_TIMESTAMP:
		case F_DATE_GT_TIMESTAMP:
		case F_DATE_GE_TIMESTAMP:
		case F_TIMESTAMP_EQ_DATE:
		case F_TIMESTAMP_NE_DATE:
		case F_TIMESTAMP_LT_DATE:
		case F_TIMESTAMP_LE_DATE:
		case F_TIMESTAMP_GT_DATE:
		case F_TIMESTAMP_GE_DATE:
		case F_EXTRACT_TEXT_TIMESTAMP:
			/* interval */
		case F_INTERVAL_EQ:
		case F_INTERVAL_NE:
		case F_INTERVAL_LT:
		case F_INTERVAL_LE:
		case F_INTERVAL_GT:
		case F_INTERVAL_GE:
		case F_INTERVAL_PL:
		case F_INTERVAL_MI:
		case F_INTERVAL_UM:
		case F_INTERVAL_TIME:
		case F_EXTRACT_TEXT_INTERVAL:
			return true;
		default:
			return false;
	}
}

static bool
is_allowed_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case INTERVALOID:
		case JSONBOID:
			return true;
		default:
			return false;
	}
}

/* types with an order that is the same everywhere */
static bool
is_ordered_type(Oid type)
{
	return is_allowed_type(type) && type != TEXTOID && type != JSONBOID;
}

/* through text, where neither side depends on settings */
static bool
is_allowed_io_cast(Oid from, Oid to)
{
	if (from == TEXTOID)
		return to == NUMERICOID || to == INT8OID || to == INT4OID ||
			to == BOOLOID;
	return to == TEXTOID && (from == INT4OID || from == INT8OID);
}

/* ------------------------------------------------------------------------
 * constants
 * ------------------------------------------------------------------------ */

bool
fin_expr_is_number(const char *string)
{
	size_t		length = strspn(string, "+-0123456789._xXoObBaAcCdDfF");
	const char *exponent = string + length;

	if (length == 0 || length > FIN_EXPR_DIGITS_MAX + 2)
		return false;
	if (*exponent == '\0')
		return true;
	if (*exponent != 'e' && *exponent != 'E')
		return false;
	/* two digits at most; hexadecimal ones with an e in them are not needed */
	exponent++;
	exponent += strspn(exponent, "+-");
	length = strspn(exponent, "0123456789");
	return length >= 1 && length <= 2 && exponent[length] == '\0';
}

/* does the string look like the pattern, 9 being a digit, up to its length? */
static const char *
skip_shape(const char *string, const char *shape)
{
	for (; *shape != '\0'; shape++, string++)
	{
		if (*shape == '9' ? !(*string >= '0' && *string <= '9') :
			*string != *shape)
			return NULL;
	}
	return string;
}

static const char *
skip_time(const char *string)
{
	const char *end = skip_shape(string, "99:99");

	if (end == NULL || *end != ':')
		return end;
	end = skip_shape(end, ":99");
	if (end != NULL && *end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	return end;
}

/* ISO 8601; an interval without signs, whose meaning depends on a setting */
bool
fin_expr_is_datetime(const char *string, Oid type)
{
	const char *end;

	if (type == INTERVALOID)
		return string[strspn(string, "0123456789 .:"
							 "abcdefghijklmnopqrstuvwxyz"
							 "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
	if (type == TIMEOID)
		end = skip_time(string);
	else
		end = skip_shape(string, "9999-99-99");
	if (type == TIMESTAMPOID && end != NULL && (*end == ' ' || *end == 'T'))
		end = skip_time(end + 1);
	return end != NULL && *end == '\0';
}

/* the string a constant was written as, or NULL */
static const char *
written_string(const FinExprSource *source, int location)
{
	ListCell   *cell;

	foreach(cell, source->strings)
	{
		A_Const    *string = lfirst_node(A_Const, cell);

		if (string->location == location)
			return strVal(&string->val);
	}
	return NULL;
}

static void
check_const(const FinExprSource *source, Const *node)
{
	const char *string;
	const char *hint = NULL;

	if (node->constisnull)
		return;
	string = written_string(source, node->location);
	if (string == NULL && node->consttype == NUMERICOID)
		return;					/* a number, which the raw check has seen */
	if (string == NULL)
		string = "";
	switch (node->consttype)
	{
		case NUMERICOID:
			if (!fin_expr_is_number(string))
				hint = "A number has at most 100 digits, and an exponent of at most 99.";
			break;
		case DATEOID:
			if (!fin_expr_is_datetime(string, DATEOID))
				hint = "Write a date as YYYY-MM-DD.";
			break;
		case TIMEOID:
			if (!fin_expr_is_datetime(string, TIMEOID))
				hint = "Write a time as HH:MM or HH:MM:SS.";
			break;
		case TIMESTAMPOID:
			if (!fin_expr_is_datetime(string, TIMESTAMPOID))
				hint = "Write a timestamp as YYYY-MM-DD HH:MM:SS.";
			break;
		case INTERVALOID:
			if (!fin_expr_is_datetime(string, INTERVALOID))
				hint = "Write an interval as in 1 day 2 hours, without signs.";
			break;
	}
	if (hint != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("\"%s\" is not allowed as a constant of type %s",
					   string, format_type_be(node->consttype)),
				errhint("%s", hint),
				fin_expr_position(source, node->location));
}

/* ------------------------------------------------------------------------
 * functions
 * ------------------------------------------------------------------------ */

/* against a server in which somebody has replaced what it was built with */
static bool
is_builtin_and_immutable(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc row;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	row = (Form_pg_proc) GETSTRUCT(tuple);
	/* these two are SQL, but become calls of their like with two arguments */
	result = (row->prolang == INTERNALlanguageId ||
			  function == F_ROUND_NUMERIC || function == F_TRUNC_NUMERIC) &&
		row->provolatile == PROVOLATILE_IMMUTABLE && !row->proretset &&
		row->prokind == PROKIND_FUNCTION;
	ReleaseSysCache(tuple);
	return result;
}

static void
check_function(const FinExprSource *source, Oid function, Oid operator,
			   int location)
{
	if (is_allowed_function(function) && is_builtin_and_immutable(function))
		return;
	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_EXPRESSION),
			OidIsValid(operator) ?
			errmsg("operator %s is not allowed in an expression",
				   format_operator(operator)) :
			errmsg("function %s is not allowed in an expression",
				   format_procedure(function)),
			errhint("Text and JSON have no order; cast what is a number to numeric."),
			fin_expr_position(source, location));
}

/* NULL for anything but a constant that is not null */
static Const *
constant_argument(List *args, int n)
{
	Node	   *argument = list_nth(args, n);

	if (IsA(argument, Const) && !((Const *) argument)->constisnull)
		return (Const *) argument;
	return NULL;
}

/*
 * What is searched for is a constant: then the time a search takes, text times
 * pattern, is bounded by the lengths of the expression and of a text.
 */
static void
check_pattern(const FinExprSource *source, List *args, int location)
{
	if (constant_argument(args, 1) == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("pattern is not a constant"),
				errhint("Write the text to look for in single quotes; to compare with a fact use =, starts_with(), left() or right()."),
				fin_expr_position(source, location));
}

/*
 * A field that does not exist, or not in this type, is found by trying it, at
 * the zero of the type.
 */
static void
check_extract(const FinExprSource *source, FuncExpr *call)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseCallbackState place;
	Interval	no_time = {0};
	Const	   *field = constant_argument(call->args, 0);
	Datum		zero = Int64GetDatum(0);

	if (field == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("field to extract is not a constant"),
				fin_expr_position(source, call->location));
	if (call->funcid == F_EXTRACT_TEXT_DATE)
		zero = DateADTGetDatum(0);
	else if (call->funcid == F_EXTRACT_TEXT_INTERVAL)
		zero = IntervalPGetDatum(&no_time);
	pstate->p_sourcetext = source->text;
	setup_parser_errposition_callback(&place, pstate, call->location);
	(void) OidFunctionCall2(call->funcid, field->constvalue, zero);
	cancel_parser_errposition_callback(&place);
}

FIN_NORETURN static void
refuse_cast(const FinExprSource *source, Oid from, Node *cast)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_EXPRESSION),
			errmsg("cast from %s to %s is not allowed in an expression",
				   format_type_be(from), format_type_be(exprType(cast))),
			errhint("Text is cast to numeric, bigint, integer or boolean, numbers to each other, and integers to text; functions of numbers want numeric."),
			fin_expr_position(source, exprLocation(cast)));
}

static void
check_call(const FinExprSource *source, FuncExpr *call)
{
	if (call->funcformat != COERCE_EXPLICIT_CALL &&
		call->funcformat != COERCE_SQL_SYNTAX &&
		!is_allowed_function(call->funcid))
		refuse_cast(source, exprType(linitial(call->args)), (Node *) call);
	check_function(source, call->funcid, InvalidOid, call->location);
	switch (call->funcid)
	{
		case F_POSITION_TEXT_TEXT:
		case F_STRPOS:
			check_pattern(source, call->args, call->location);
			break;
		case F_EXTRACT_TEXT_DATE:
		case F_EXTRACT_TEXT_TIME:
		case F_EXTRACT_TEXT_TIMESTAMP:
		case F_EXTRACT_TEXT_INTERVAL:
			check_extract(source, call);
			break;
	}
}

/* OpExpr, DistinctExpr and NullIfExpr are one struct */
static void
check_operator(const FinExprSource *source, OpExpr *node)
{
	set_opfuncid(node);
	check_function(source, node->opfuncid, node->opno, node->location);
	if (node->opfuncid == F_TEXTLIKE || node->opfuncid == F_TEXTNLIKE)
		check_pattern(source, node->args, node->location);
}

static void
check_array_operator(const FinExprSource *source, ScalarArrayOpExpr *node)
{
	set_sa_opfuncid(node);
	check_function(source, node->opfuncid, node->opno, node->location);
}

static void
check_type(const FinExprSource *source, Node *node, bool allowed)
{
	if (!allowed)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_EXPRESSION),
				errmsg("type %s is not allowed here in an expression",
					   format_type_be(exprType(node))),
				fin_expr_position(source, exprLocation(node)));
}

static void
check_io_cast(const FinExprSource *source, CoerceViaIO *node)
{
	Oid			from = exprType((Node *) node->arg);

	/* somebody may have made a cast implicit */
	if (!is_allowed_io_cast(from, node->resulttype) ||
		node->coerceformat != COERCE_EXPLICIT_CAST)
		refuse_cast(source, from, (Node *) node);
}

/* ------------------------------------------------------------------------
 * the tree
 * ------------------------------------------------------------------------ */

static bool
check_walker(Node *node, void *context)
{
	const FinExprSource *source = context;

	if (node == NULL)
		return false;
	/* arguments first: what is wrong with them explains the rest */
	(void) expression_tree_walker(node, check_walker, context);
	switch (nodeTag(node))
	{
		case T_Const:
			check_type(source, node, is_allowed_type(exprType(node)) ||
					   exprType(node) == UNKNOWNOID);
			check_const(source, (Const *) node);
			break;
		case T_FuncExpr:
			check_call(source, (FuncExpr *) node);
			check_type(source, node, is_allowed_type(exprType(node)));
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			check_operator(source, (OpExpr *) node);
			check_type(source, node, is_allowed_type(exprType(node)));
			break;
		case T_ScalarArrayOpExpr:
			check_array_operator(source, (ScalarArrayOpExpr *) node);
			break;
		case T_CoerceViaIO:
			check_io_cast(source, (CoerceViaIO *) node);
			break;
		case T_MinMaxExpr:
			check_type(source, node, is_ordered_type(exprType(node)));
			break;
		case T_Param:
		case T_CaseTestExpr:
		case T_CaseExpr:
		case T_CoalesceExpr:
			check_type(source, node, is_allowed_type(exprType(node)) ||
					   exprType(node) == UNKNOWNOID);
			break;
		case T_List:
		case T_ArrayExpr:		/* of IN; its elements are checked */
		case T_BoolExpr:
		case T_CaseWhen:
		case T_NullTest:
		case T_BooleanTest:
			break;
		default:
			ereport(ERROR,
					errcode(ERRCODE_FIN_BAD_EXPRESSION),
					errmsg("expression has a part that is not allowed"),
					fin_expr_position(source, exprLocation(node)));
	}
	return false;
}

void
fin_expr_check_analysed(const FinExprSource *source, Node *node)
{
	(void) check_walker(node, unconstify(FinExprSource *, source));
}

/* ------------------------------------------------------------------------
 * bounds
 * ------------------------------------------------------------------------ */

static Node *
int4_const(int value)
{
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
							  Int32GetDatum(value), false, true);
}

static Node *
make_call(Oid function, Oid type, Oid collation, List *args)
{
	FuncExpr   *made = makeFuncExpr(function, type, args, collation, collation,
									COERCE_EXPLICIT_CALL);

	return (Node *) made;
}

/* an error (22001) when it is longer; text and varchar are stored alike */
static Node *
bound_text(Node *text)
{
	return make_call(F_VARCHAR_VARCHAR_INT4_BOOL, TEXTOID, exprCollation(text),
				list_make3(text, int4_const(FIN_EXPR_TEXT_MAX + VARHDRSZ),
						   makeBoolConst(false, false)));
}

/*
 * An error (22003) when it has more digits before the point; those after are
 * rounded.  NaN, which a payer can send too and which is more than any number,
 * becomes null.
 */
static Node *
bound_number(Node *number)
{
	NullIfExpr *known = makeNode(NullIfExpr);
	TypeCacheEntry *type = lookup_type_cache(NUMERICOID, TYPECACHE_EQ_OPR);
	Datum		nan = DirectFunctionCall3(numeric_in, CStringGetDatum("NaN"),
										  ObjectIdGetDatum(InvalidOid),
										  Int32GetDatum(-1));

	known->opno = type->eq_opr;
	known->opfuncid = F_NUMERIC_EQ;
	known->opresulttype = NUMERICOID;
	known->args = list_make2(number,
							 makeConst(NUMERICOID, -1, InvalidOid, -1, nan,
									   false, false));
	known->location = -1;
	return make_call(F_NUMERIC_NUMERIC_INT4, NUMERICOID, InvalidOid,
				list_make2(known, int4_const(NUMBER_TYPMOD)));
}

static Node *
bound_call(FuncExpr *node)
{
	if (node->funcid == F_ROUND_NUMERIC)
		return make_call(F_ROUND_NUMERIC_INT4, NUMERICOID, InvalidOid,
					lappend(node->args, int4_const(0)));
	if (node->funcid == F_TRUNC_NUMERIC)
		return make_call(F_TRUNC_NUMERIC_INT4, NUMERICOID, InvalidOid,
					lappend(node->args, int4_const(0)));
	return (Node *) node;
}

static Node *
bound_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	node = expression_tree_mutator(node, bound_mutator, context);
	if (IsA(node, FuncExpr))
		return bound_call((FuncExpr *) node);
	if (IsA(node, OpExpr))
	{
		switch (((OpExpr *) node)->opfuncid)
		{
			case F_JSONB_OBJECT_FIELD_TEXT:
			case F_JSONB_ARRAY_ELEMENT_TEXT:
			case F_TEXTCAT:
				return bound_text(node);
		}
	}
	if (IsA(node, CoerceViaIO) && exprType(node) == NUMERICOID)
		return bound_number(node);
	return node;
}

Node *
fin_expr_bound(Node *node)
{
	return bound_mutator(node, NULL);
}
