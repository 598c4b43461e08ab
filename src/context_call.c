/*
 * context_call.c
 *		Who acts, told by an argument of one call: for clients that share
 *		connections.
 *
 * The settings of the context are saved, set for the time of the call, and
 * restored when it ends, or, after an error, with its transaction or savepoint.
 * Owns nothing; takes no locks.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "context.h"

static const struct
{
	const char *key;
	const char *setting;
}			context_settings[] =
{
	{"actor", "finance.actor"},
	{"trace_id", "finance.trace_id"},
	{"span_id", "finance.span_id"},
	{"request_id", "finance.request_id"},
	{"user_agent", "finance.user_agent"},
	{"reason", "finance.reason"},
	{"client_addr", "finance.client_addr"},
};

static const char *
setting_of(const char *key)
{
	for (int i = 0; i < (int) lengthof(context_settings); i++)
	{
		if (strcmp(key, context_settings[i].key) == 0)
			return context_settings[i].setting;
	}
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("\"%s\" of context is not known", key),
			errhint("It is actor, trace_id, span_id, request_id, user_agent, reason or client_addr."));
}

static void
set_for_call(const char *key, const JsonbValue *value)
{
	const char *setting = setting_of(key);

	if (value->type == jbvNull)
		return;
	if (value->type != jbvString)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("\"%s\" of context must be a string", key));
	(void) set_config_option(setting,
							 pnstrdup(value->val.string.val,
									  value->val.string.len),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

static void
set_all_for_call(Jsonb *told)
{
	JsonbIterator *iterator = JsonbIteratorInit(&told->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *key = NULL;

	if (!JB_ROOT_IS_OBJECT(told))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("context must be an object"));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			set_for_call(key, &value);
	}
}

Datum
fin_context_call(FunctionCallInfo fcinfo, int argument, PGFunction body)
{
	int			nest;
	Datum		result;

	if (PG_NARGS() <= argument || PG_ARGISNULL(argument))
		return body(fcinfo);
	nest = NewGUCNestLevel();
	set_all_for_call(PG_GETARG_JSONB_P(argument));
	result = body(fcinfo);
	AtEOXact_GUC(true, nest);
	return result;
}
