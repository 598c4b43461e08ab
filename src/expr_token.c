/*
 * expr_token.c
 *		The tokens of an expression, before the grammar sees them.
 *
 * Comments are refused: "amount > 5 --and country = 'US'" looks like more than
 * it says.  Brackets are counted, so that the grammar gets no deep nesting.
 */
#include "postgres.h"

#include "common/keywords.h"
#include "parser/parser.h"
#include "parser/scanner.h"

#include "compat.h"
#include "expr_parts.h"

FIN_NORETURN static void
refuse_token(const FinExprSource *source, int location, const char *message,
			 const char *hint)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_EXPRESSION),
			errmsg("%s", message),
			errhint("%s", hint),
			fin_expr_position(source, location));
}

/* between two tokens there may be white space and comments */
static void
check_gap(const FinExprSource *source, int start, int end)
{
	for (int i = start; i < end; i++)
	{
		if (strchr(" \t\n\r\f\v", source->text[i]) == NULL)
			refuse_token(source, i, "comment in an expression",
						 "Use the rule's name to say what it is for.");
	}
}

static void
check_brackets(const FinExprSource *source, int token, int location,
			   int *depth)
{
	if (token == '(' || token == '[')
		(*depth)++;
	else if (token == ')' || token == ']')
		(*depth)--;
	if (*depth > FIN_EXPR_DEPTH_MAX)
		refuse_token(source, location, "expression is nested too deep",
					 "Make it several rules.");
}

/* errors of the scanner, as of an unfinished string, come with their place */
void
fin_expr_check_tokens(const FinExprSource *source)
{
	core_yy_extra_type extra;
	core_YYSTYPE value;
	YYLTYPE		start;
	core_yyscan_t scanner;
	int			token;
	int			depth = 0;
	int			end = 0;

	scanner = scanner_init(source->text, &extra, &ScanKeywords,
						   ScanKeywordTokens);
	while ((token = core_yylex(&value, &start, scanner)) != 0)
	{
		check_gap(source, end, start);
		check_brackets(source, token, start, &depth);
		/* the scanner ends its token by a zero byte until it goes on */
		end = start + (int) strlen(extra.scanbuf + start);
	}
	check_gap(source, end, (int) strlen(source->text));
	if (end == 0)
		refuse_token(source, -1, "expression is empty",
					 "Write a condition, such as amount > 1000.");
	scanner_finish(scanner);
}
