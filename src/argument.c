/*
 * argument.c
 *		Arguments of SQL functions, checked once at the door.
 *
 * Results are allocated in the caller's context.  Takes no locks.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "argument.h"
#include "compat.h"
#include "errors.h"
#include "settings.h"

static void
refuse_null(const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			errmsg("%s must not be null", name));
}

/* a name with a newline in it would forge lines in logs and reports */
FinFault *
fin_argument_text_fault(const char *text, const char *name, int length_max)
{
	int			length = strlen(text);

	if (length == 0)
		return fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
						 "%s must not be empty", name);
	if (length > length_max)
		return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
										  "%s is too long", name),
								"It has %d bytes, the most is %d.",
								length, length_max);
	for (const char *c = text; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == 0x7f)
			return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
											  "%s must not contain control characters",
											  name),
									"Byte %d is 0x%02x.", (int) (c - text) + 1,
									(unsigned char) *c);
	}
	return NULL;
}

static void
check_text(const char *text, const char *name, int length_max)
{
	FinFault   *fault = fin_argument_text_fault(text, name, length_max);

	if (fault != NULL)
		fin_fault_raise(fault);
}

char *
fin_argument_text_or_null(FunctionCallInfo fcinfo, int argument,
						  const char *name, int length_max)
{
	char	   *string;

	if (PG_ARGISNULL(argument))
		return NULL;
	string = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	check_text(string, name, length_max);
	return string;
}

char *
fin_argument_text(FunctionCallInfo fcinfo, int argument,
				  const char *name, int length_max)
{
	if (PG_ARGISNULL(argument))
		refuse_null(name);
	return fin_argument_text_or_null(fcinfo, argument, name, length_max);
}

Numeric
fin_argument_numeric(FunctionCallInfo fcinfo, int argument,
					 const char *name, bool required)
{
	if (!PG_ARGISNULL(argument))
		return PG_GETARG_NUMERIC(argument);
	if (required)
		refuse_null(name);
	return NULL;
}

FinFault *
fin_argument_metadata_fault(const Jsonb *metadata)
{
	FinFault   *fault;

	if (VARSIZE(metadata) <= (Size) fin_max_payload)
		return NULL;
	fault = fin_fault_detail(fin_fault(ERRCODE_FIN_PAYLOAD_TOO_LARGE,
									   "metadata is too large"),
							 "It has %u bytes, the most is %d.",
							 (unsigned) VARSIZE(metadata), fin_max_payload);
	return fin_fault_hint(fault,
						  "Keep large documents elsewhere, or raise finance.max_payload.");
}

Jsonb *
fin_argument_metadata(FunctionCallInfo fcinfo, int argument)
{
	Jsonb	   *metadata;
	FinFault   *fault;

	if (PG_ARGISNULL(argument))
		return NULL;
	metadata = PG_GETARG_JSONB_P(argument);
	fault = fin_argument_metadata_fault(metadata);
	if (fault != NULL)
		fin_fault_raise(fault);
	return metadata;
}
