/*
 * json_value.h
 *		Values of any type as JSON, whatever the session's settings are.
 *
 *		numbers, boolean, json		as such; what is not finite as a string
 *		times						strings in ISO 8601, with zone in UTC
 *		interval, bytea				strings, in style postgres and in hex
 *		arrays						arrays of arrays, whatever the lower bounds
 *		rows						objects
 *		other types					strings, as their output functions write
 *									them under the settings of json_output.h
 */
#ifndef FIN_JSON_VALUE_H
#define FIN_JSON_VALUE_H

#include "fmgr.h"
#include "lib/stringinfo.h"

#include "json_output.h"

typedef struct FinJsonType FinJsonType;
typedef struct FinJsonElements FinJsonElements;
typedef struct FinJsonColumns FinJsonColumns;

typedef void (*FinJsonWrite) (StringInfo json, FinJsonType *type, Datum value);

/* how values of one type are written */
struct FinJsonType
{
	FinJsonWrite write;
	FinOutputNeed need;
	FmgrInfo	output;			/* of other types */
	FinJsonElements *elements;	/* of arrays */
	FinJsonColumns *columns;	/* of rows */
};

/* in the current memory context, which must live as long as *type */
extern void fin_json_type(FinJsonType *type, Oid oid);

extern void fin_json_fixed_value(StringInfo json, FinJsonType *type,
								 Datum value);

/*
 * Appends a value that is not null.  May call output functions, which may be
 * anybody's code.  Fixes what the type needs to have fixed; who writes many
 * values does so once with fin_output_fix().
 */
static inline void
fin_json_value(StringInfo json, FinJsonType *type, Datum value)
{
	if (type->need == FIN_OUTPUT_FREE)
		type->write(json, type, value);
	else
		fin_json_fixed_value(json, type, value);
}

/* appends bytes in the database's encoding as a JSON string */
extern void fin_json_string(StringInfo json, const char *bytes, int length);

#endif							/* FIN_JSON_VALUE_H */
