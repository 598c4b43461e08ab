/*
 * argument.c
 *		Arguments of SQL functions, checked once at the door.
 *
 * Results are allocated in the caller's context.  Takes no locks.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

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

static FinFault *
fault_too_long(const char *name, Size length, int length_max)
{
	return fin_fault_detail(fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
									  "%s is too long", name),
							"It has %zu bytes, the most is %d.",
							length, length_max);
}

/* a name with a newline in it would forge lines in logs and reports */
static FinFault *
fault_of_text(const char *text, const char *name)
{
	if (text[0] == '\0')
		return fin_fault(ERRCODE_INVALID_PARAMETER_VALUE,
						 "%s must not be empty", name);
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

FinFault *
fin_argument_take_text(Datum value, const char *name, int length_max,
					   char **string)
{
	/* as it says of itself: a long one need not be unpacked */
	Size		length = toast_raw_datum_size(value) - VARHDRSZ;

	if (length > (Size) length_max)
		return fault_too_long(name, length, length_max);
	*string = TextDatumGetCString(value);
	return fault_of_text(*string, name);
}

char *
fin_argument_text_or_null(FunctionCallInfo fcinfo, int argument,
						  const char *name, int length_max)
{
	char	   *string;
	FinFault   *fault;

	if (PG_ARGISNULL(argument))
		return NULL;
	fault = fin_argument_take_text(PG_GETARG_DATUM(argument), name, length_max,
								   &string);
	if (fault != NULL)
		fin_fault_raise(fault);
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

TimestampTz
fin_argument_expiry(FunctionCallInfo fcinfo, int argument, TimestampTz now)
{
	TimestampTz expires_at;

	if (PG_ARGISNULL(argument))
		return DT_NOEND;
	expires_at = PG_GETARG_TIMESTAMPTZ(argument);
	if (TIMESTAMP_NOT_FINITE(expires_at))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("expires_at must be a moment"),
				errhint("Leave it out for what does not expire."));
	if (expires_at <= now)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("expires_at must be in the future"),
				errdetail("It is %s.", timestamptz_to_str(expires_at)));
	return expires_at;
}

FinFault *
fin_argument_metadata_fault(Datum metadata)
{
	Size		size = toast_raw_datum_size(metadata);
	FinFault   *fault;

	if (size <= (Size) fin_max_payload)
		return NULL;
	fault = fin_fault_detail(fin_fault(ERRCODE_FIN_PAYLOAD_TOO_LARGE,
									   "metadata is too large"),
							 "It has %zu bytes, the most is %d.",
							 size, fin_max_payload);
	return fin_fault_hint(fault,
						  "Keep large documents elsewhere, or raise finance.max_payload.");
}

Jsonb *
fin_argument_metadata(FunctionCallInfo fcinfo, int argument)
{
	FinFault   *fault;

	if (PG_ARGISNULL(argument))
		return NULL;
	fault = fin_argument_metadata_fault(PG_GETARG_DATUM(argument));
	if (fault != NULL)
		fin_fault_raise(fault);
	return PG_GETARG_JSONB_P(argument);
}
