/*
 * json_push.c
 *		Members of a jsonb object that is put together.
 *
 * Owns nothing; all is allocated in the current context, in which the object is
 * put together.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json_push.h"

void
fin_json_push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

void
fin_json_push_text(JsonbParseState **state, const char *key, const char *text)
{
	if (text != NULL)
		fin_json_push_text_or_null(state, key, text);
}

void
fin_json_push_text_or_null(JsonbParseState **state, const char *key,
						   const char *text)
{
	JsonbValue	value = {.type = jbvNull};

	fin_json_push_key(state, key);
	if (text != NULL)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, text);
		value.val.string.len = strlen(text);
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
fin_json_push_bool(JsonbParseState **state, const char *key, bool flag)
{
	JsonbValue	value = {.type = jbvBool, .val.boolean = flag};

	fin_json_push_key(state, key);
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
fin_json_push_int64(JsonbParseState **state, const char *key, int64 number)
{
	char		digits[MAXINT8LEN + 1];

	pg_lltoa(number, digits);
	fin_json_push_text(state, key, pstrdup(digits));
}

void
fin_json_push_number(JsonbParseState **state, const char *key, int number)
{
	JsonbValue	value = {.type = jbvNumeric};

	fin_json_push_key(state, key);
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
fin_json_push_amount(JsonbParseState **state, const char *key,
					 FinAmount amount, int scale)
{
	fin_json_push_text(state, key, fin_amount_text(amount, scale));
}

void
fin_json_push_jsonb(JsonbParseState **state, const char *key, Jsonb *jsonb)
{
	JsonbValue	value = {.type = jbvNull};

	fin_json_push_key(state, key);
	if (jsonb != NULL)
		JsonbToJsonbValue(jsonb, &value);
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
fin_json_push_open(JsonbParseState **state, const char *key)
{
	if (key != NULL)
		fin_json_push_key(state, key);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
}

void
fin_json_push_close(JsonbParseState **state)
{
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}
