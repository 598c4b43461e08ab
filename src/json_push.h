/*
 * json_push.h
 *		Members of a jsonb object that is put together.
 *
 * As in json.h: ids and amounts are strings.
 */
#ifndef FIN_JSON_PUSH_H
#define FIN_JSON_PUSH_H

#include "utils/jsonb.h"

#include "amount.h"

extern void fin_json_push_key(JsonbParseState **state, const char *key);

/* a null text adds nothing */
extern void fin_json_push_text(JsonbParseState **state, const char *key,
							   const char *text);

/* a null text becomes JSON null */
extern void fin_json_push_text_or_null(JsonbParseState **state,
									   const char *key, const char *text);
extern void fin_json_push_bool(JsonbParseState **state, const char *key,
							   bool flag);

/* an id, or a count of any size: a string */
extern void fin_json_push_int64(JsonbParseState **state, const char *key,
								int64 number);

/* a small number, which is none of our ids or amounts: a JSON number */
extern void fin_json_push_number(JsonbParseState **state, const char *key,
								 int number);
extern void fin_json_push_amount(JsonbParseState **state, const char *key,
								 FinAmount amount, int scale);

/* NULL becomes JSON null */
extern void fin_json_push_jsonb(JsonbParseState **state, const char *key,
								Jsonb *jsonb);

/* an object; key NULL: the whole, or an element of an array */
extern void fin_json_push_open(JsonbParseState **state, const char *key);
extern void fin_json_push_close(JsonbParseState **state);

#endif							/* FIN_JSON_PUSH_H */
