/*
 * json.c
 *		JSON object text, member by member.
 *
 * Pure; allocates in the StringInfo's context.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "json.h"

static void
start_member(StringInfo json, const char *key)
{
	appendStringInfoChar(json, json->len == 0 ? '{' : ',');
	escape_json(json, key);
	appendStringInfoChar(json, ':');
}

void
fin_json_text(StringInfo json, const char *key, const char *text)
{
	if (text == NULL)
		return;
	start_member(json, key);
	escape_json(json, text);
}

void
fin_json_int64(StringInfo json, const char *key, int64 number)
{
	char		digits[MAXINT8LEN + 1];

	pg_lltoa(number, digits);
	fin_json_text(json, key, digits);
}

void
fin_json_time(StringInfo json, const char *key, TimestampTz time)
{
	char		text[MAXDATELEN + 1];
	int			utc = 0;

	if (time == DT_NOEND)
		return;
	JsonEncodeDateTime(text, TimestampTzGetDatum(time), TIMESTAMPTZOID, &utc);
	fin_json_text(json, key, text);
}

char *
fin_json_date_text(DateADT date)
{
	char		text[MAXDATELEN + 1];

	JsonEncodeDateTime(text, DateADTGetDatum(date), DATEOID, NULL);
	return pstrdup(text);
}

char *
fin_json_span_text(const Interval *span)
{
	char		text[MAXDATELEN + 1];
	struct pg_itm itm;

	interval2itm(*span, &itm);
	EncodeInterval(&itm, INTSTYLE_POSTGRES, text);
	return pstrdup(text);
}

void
fin_json_jsonb(StringInfo json, const char *key, Jsonb *value)
{
	if (value == NULL)
		return;
	start_member(json, key);
	(void) JsonbToCString(json, &value->root, VARSIZE(value));
}

void
fin_json_object(StringInfo json, const char *key, const char *object)
{
	if (object == NULL)
		return;
	start_member(json, key);
	appendStringInfoString(json, object);
}

char *
fin_json_end(StringInfo json)
{
	if (json->len == 0)
		appendStringInfoChar(json, '{');
	appendStringInfoChar(json, '}');
	return json->data;
}
