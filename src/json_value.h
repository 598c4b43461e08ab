/*
 * json_value.h
 *		Values of any type as JSON, as row_to_json() writes them, but faster and
 *		whatever the session's settings are: times in ISO 8601 and UTC, floats
 *		to the last digit, bytea in hex, intervals in style postgres.
 */
#ifndef FIN_JSON_VALUE_H
#define FIN_JSON_VALUE_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

typedef struct FinJsonType FinJsonType;

typedef void (*FinJsonWrite) (StringInfo json, FinJsonType *type, Datum value);

/* how values of one type are written */
struct FinJsonType
{
	FinJsonWrite write;
	FmgrInfo	output;			/* of other types: the output function, */
	TupleDesc	row;			/* or a row of one column, for row_to_json() */
};

/* in the current memory context, which must live as long as *type */
extern void fin_json_type(FinJsonType *type, Oid oid, int32 typmod);

/*
 * Appends a value that is not null.  May call output functions and casts of
 * the type, which may be anybody's code.
 */
extern void fin_json_value(StringInfo json, FinJsonType *type, Datum value);

/* appends bytes in the database's encoding as a JSON string */
extern void fin_json_string(StringInfo json, const char *bytes, int length);

#endif							/* FIN_JSON_VALUE_H */
