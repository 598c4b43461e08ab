/*
 * fault.c
 *		An error as a value (see fault.h).
 *
 * Owns nothing; everything is allocated in the current context.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "fault.h"

static char *format_text(const char *format, va_list arguments)
			pg_attribute_printf(1, 0);

static char *
format_text(const char *format, va_list arguments)
{
	StringInfoData text;
	va_list		again;
	int			needed;

	initStringInfo(&text);
	va_copy(again, arguments);
	needed = appendStringInfoVA(&text, format, again);
	va_end(again);
	while (needed > 0)
	{
		enlargeStringInfo(&text, needed);
		va_copy(again, arguments);
		needed = appendStringInfoVA(&text, format, again);
		va_end(again);
	}
	return text.data;
}

FinFault *
fin_fault(int sqlstate, const char *format,...)
{
	FinFault   *fault = palloc0(sizeof(FinFault));
	va_list		arguments;

	fault->sqlstate = sqlstate;
	va_start(arguments, format);
	fault->message = format_text(format, arguments);
	va_end(arguments);
	return fault;
}

FinFault *
fin_fault_detail(FinFault *fault, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	fault->detail = format_text(format, arguments);
	va_end(arguments);
	return fault;
}

FinFault *
fin_fault_hint(FinFault *fault, const char *hint)
{
	fault->hint = hint;
	return fault;
}

FinFault *
fin_fault_copy(const FinFault *fault)
{
	FinFault   *copy = palloc(sizeof(FinFault));

	copy->sqlstate = fault->sqlstate;
	copy->message = pstrdup(fault->message);
	copy->detail = fault->detail != NULL ? pstrdup(fault->detail) : NULL;
	copy->hint = fault->hint != NULL ? pstrdup(fault->hint) : NULL;
	return copy;
}

void
fin_fault_raise(const FinFault *fault)
{
	ereport(ERROR,
			errcode(fault->sqlstate),
			errmsg_internal("%s", fault->message),
			fault->detail != NULL ? errdetail_internal("%s", fault->detail) : 0,
			fault->hint != NULL ? errhint("%s", fault->hint) : 0);
	pg_unreachable();
}
