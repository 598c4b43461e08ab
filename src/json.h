/*
 * json.h
 *		JSON object text, member by member, as the audit log stores it.
 *
 * Use: start with an empty StringInfo, add members, close with fin_json_end().
 * Ids and amounts are written as strings: a reader whose numbers are doubles
 * would lose digits of both.
 */
#ifndef FIN_JSON_H
#define FIN_JSON_H

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "utils/date.h"
#include "utils/jsonb.h"

/* a null text, or a null jsonb, adds nothing */
extern void fin_json_text(StringInfo json, const char *key, const char *text);
extern void fin_json_int64(StringInfo json, const char *key, int64 number);
/* a moment, in UTC as ISO 8601; DT_NOEND, that is never, adds nothing */
extern void fin_json_time(StringInfo json, const char *key, TimestampTz time);
extern void fin_json_jsonb(StringInfo json, const char *key, Jsonb *value);

/* as text that does not depend on the session's DateStyle and IntervalStyle */
extern char *fin_json_date_text(DateADT date);
extern char *fin_json_span_text(const Interval *span);

/* a member that is an object or array, as JSON text; NULL adds nothing */
extern void fin_json_object(StringInfo json, const char *key,
							const char *object);
extern char *fin_json_end(StringInfo json);

#endif							/* FIN_JSON_H */
