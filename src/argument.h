/*
 * argument.h
 *		Arguments of SQL functions, checked once at the door.
 */
#ifndef FIN_ARGUMENT_H
#define FIN_ARGUMENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "fault.h"

/* lengths in bytes */
#define FIN_CODE_LENGTH_MAX			128
#define FIN_KEY_LENGTH_MAX			255
#define FIN_TYPE_LENGTH_MAX			63
#define FIN_NAME_LENGTH_MAX			63
#define FIN_REFERENCE_LENGTH_MAX	1024
#define FIN_REASON_LENGTH_MAX		1024

/*
 * A text argument (from 0) as C string.  Errors: 22004 null where required,
 * 22023 empty, longer than length_max bytes or with control characters.
 */
extern char *fin_argument_text(FunctionCallInfo fcinfo, int argument,
							   const char *name, int length_max);

/* the same of any text: what is wrong with it, or NULL and a C string */
extern FinFault *fin_argument_take_text(Datum value, const char *name,
										int length_max, char **string);

/* what is wrong with metadata, a jsonb, or NULL: LG303 */
extern FinFault *fin_argument_metadata_fault(Datum metadata);

/* as fin_argument_text(), but NULL for a null argument */
extern char *fin_argument_text_or_null(FunctionCallInfo fcinfo, int argument,
									   const char *name, int length_max);

/* a numeric argument; NULL for null where not required, else 22004 */
extern Numeric fin_argument_numeric(FunctionCallInfo fcinfo, int argument,
									const char *name, bool required);

/*
 * A timestamptz argument named expires_at; DT_NOEND for null.  Error: 22023 not
 * finite, or not after 'now'.
 */
extern TimestampTz fin_argument_expiry(FunctionCallInfo fcinfo, int argument,
									   TimestampTz now);

/*
 * a jsonb argument named metadata; NULL for null.  Error: LG303 larger than
 * finance.max_payload
 */
extern Jsonb *fin_argument_metadata(FunctionCallInfo fcinfo, int argument);

#endif							/* FIN_ARGUMENT_H */
