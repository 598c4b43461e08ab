/*
 * risk_record.c
 *		What was looked at and what was said of it, written down.
 *
 * Owns nothing.  The inputs of a decision are all that its rules asked for, by
 * names that do not depend on the version, so that the same version, or another
 * one, can judge them again.  Amounts and ids are strings, times are ISO 8601,
 * as everywhere in our JSON (json.h).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "json.h"
#include "json_push.h"
#include "query.h"
#include "risk_parts.h"

static FinQuery insert_decision =
{
	.sql = "INSERT INTO finance.risk_decision (tenant_id, transfer_id, version,"
	" mode, outcome, score, rule, latency_us, hits, inputs, decided_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
	" pg_catalog.clock_timestamp())",
	.nargs = 10,
	.argtypes = {INT4OID, INT8OID, INT4OID, TEXTOID, TEXTOID, INT4OID, TEXTOID,
	NUMERICOID, JSONBOID, JSONBOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "risk_decision",
};

/* ------------------------------------------------------------------------
 * writing
 * ------------------------------------------------------------------------ */

static void
push_time(JsonbParseState **state, const char *key, Datum when, Oid type)
{
	char		buffer[MAXDATELEN + 1];
	int			utc = 0;

	JsonEncodeDateTime(buffer, when, type, &utc);
	fin_json_push_text(state, key, pstrdup(buffer));
}

static void
push_amount(JsonbParseState **state, const char *key, const RiskFacts *facts,
			FinAmount amount)
{
	fin_json_push_amount(state, key, amount, facts->scale);
}

static void
push_party(JsonbParseState **state, const char *key, const RiskFacts *facts,
		   const RiskParty *party)
{
	fin_json_push_open(state, key);
	fin_json_push_int64(state, "id", party->account_id);
	fin_json_push_text(state, "code", party->code);
	fin_json_push_text(state, "type", party->type);
	fin_json_push_text(state, "level", party->level);
	push_amount(state, "balance", facts, party->balance);
	push_time(state, "created_at", TimestampTzGetDatum(party->created_at),
			  TIMESTAMPTZOID);
	fin_json_push_close(state);
}

char *
fin_risk_span_text(int64 span_us)
{
	Interval	span = {.time = span_us % USECS_PER_DAY,
		.day = (int32) (span_us / USECS_PER_DAY),
	.month = 0};

	return fin_json_span_text(&span);
}

char *
fin_risk_measure_name(const FinMeasure *measure)
{
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfo(&name, "%s/%s", fin_measure_scope_name(measure->scope),
					 fin_measure_period_name(measure->period));
	if (measure->period == FIN_PERIOD_SLIDING)
		appendStringInfo(&name, "/" INT64_FORMAT " us", measure->span_us);
	if (measure->banded)
		appendStringInfo(&name, "/%s to %s",
						 numeric_normalize(measure->band_min),
						 numeric_normalize(measure->band_max));
	return name.data;
}

static void
push_measured(JsonbParseState **state, const RiskFacts *facts)
{
	fin_json_push_open(state, "measured");
	for (int i = 0; i < facts->book->nmeasures; i++)
	{
		const RiskMeasured *measured = &facts->measured[i];
		const FinMeasure *measure = &facts->book->measures[i];

		if (!measured->is_known)
			continue;
		fin_json_push_open(state, fin_risk_measure_name(measure));
		if (!fin_measure_is_last(measure->period))
		{
			push_amount(state, "amount", facts, measured->total.amount);
			fin_json_push_int64(state, "count", measured->total.count);
		}
		else if (measured->unconfirmed)
		{
			fin_json_push_bool(state, "unconfirmed", true);
			push_time(state, "at", TimestampTzGetDatum(measured->last_at),
					  TIMESTAMPTZOID);
		}
		else if (measured->last != NULL)
		{
			fin_json_push_text(state, "last", measured->last);
			push_time(state, "at", TimestampTzGetDatum(measured->last_at),
					  TIMESTAMPTZOID);
		}
		fin_json_push_close(state);
	}
	fin_json_push_close(state);
}

/*
 * A calendar may be named like anything, also like another one and a zone: so
 * the zone comes first, of which none is the beginning of another.
 */
static char *
probe_name(const RiskProbe *probe)
{
	static const char *const subjects[] = {"payer", "payee", "country",
	"device", "holiday"};

	return psprintf("%s%s%s/%s", subjects[probe->subject],
					probe->zone_name != NULL ? " in " : "",
					probe->zone_name != NULL ? probe->zone_name : "",
					probe->list);
}

static void
push_probed(JsonbParseState **state, const RiskFacts *facts)
{
	fin_json_push_open(state, "listed");
	for (int i = 0; i < facts->book->nprobes; i++)
	{
		if (facts->probed[i].is_known)
			fin_json_push_bool(state, probe_name(&facts->book->probes[i]),
							   facts->probed[i].is_member);
	}
	fin_json_push_close(state);
}

/* only those that differ: the others are the version's own */
static void
push_limited(JsonbParseState **state, const RiskFacts *facts)
{
	fin_json_push_open(state, "limits");
	for (int i = 0; i < facts->book->nlimits; i++)
	{
		Numeric		threshold = facts->limited[i].threshold;

		if (threshold != NULL)
			fin_json_push_text(state, facts->book->limits[i],
							   DatumGetCString(DirectFunctionCall1(numeric_out,
																   NumericGetDatum(threshold))));
	}
	fin_json_push_close(state);
}

Jsonb *
fin_risk_inputs(const RiskFacts *facts)
{
	JsonbParseState *state = NULL;

	fin_json_push_open(&state, NULL);
	fin_json_push_number(&state, "scale", facts->scale);
	push_amount(&state, "amount", facts, facts->amount);
	push_amount(&state, "available", facts, facts->available);
	push_amount(&state, "spent_today", facts, facts->spent);
	fin_json_push_text(&state, "currency", facts->currency);
	fin_json_push_text(&state, "type", facts->type);
	fin_json_push_text(&state, "reference", facts->reference);
	if (facts->metadata != NULL && facts->book->uses_metadata)
		fin_json_push_jsonb(&state, "metadata", facts->metadata);
	fin_json_push_text(&state, "device", facts->device);
	fin_json_push_text(&state, "country", facts->country);
	if (facts->odd_device)
		fin_json_push_bool(&state, "odd_device", true);
	if (facts->odd_country)
		fin_json_push_bool(&state, "odd_country", true);
	fin_json_push_bool(&state, "is_hold", facts->is_hold);
	fin_json_push_bool(&state, "is_reversal", facts->is_reversal);
	push_party(&state, "from", facts, &facts->from);
	push_party(&state, "to", facts, &facts->to);
	if (facts->has_last)
		push_time(&state, "last_at", TimestampTzGetDatum(facts->last_at),
				  TIMESTAMPTZOID);
	push_time(&state, "now", TimestampTzGetDatum(facts->now), TIMESTAMPTZOID);
	push_time(&state, "date", DateADTGetDatum(facts->date), DATEOID);
	push_time(&state, "time", TimeADTGetDatum(facts->time_of_day), TIMEOID);
	push_measured(&state, facts);
	push_probed(&state, facts);
	push_limited(&state, facts);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

Jsonb *
fin_risk_hits(const FinRiskJudgement *judgement)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < judgement->nhits; i++)
	{
		const FinRiskHit *hit = &judgement->hits[i];

		fin_json_push_open(&state, NULL);
		fin_json_push_text(&state, "rule", hit->rule);
		fin_json_push_text(&state, "kind", hit->kind);
		fin_json_push_text(&state, "outcome",
						   fin_risk_outcome_name(hit->outcome));
		fin_json_push_number(&state, "score", hit->score);
		fin_json_push_text(&state, "observed", hit->observed);
		fin_json_push_text_or_null(&state, "threshold", hit->threshold);
		fin_json_push_text(&state, "window", hit->window);
		fin_json_push_close(&state);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

void
fin_risk_record(int32 tenant_id, int64 transfer_id, const FinVerdict *verdict)
{
	for (int i = 0; i < verdict->njudgements; i++)
	{
		const FinRiskJudgement *judgement = &verdict->judgements[i];
		Datum		values[10];
		char		nulls[10];

		if (judgement->nhits == 0)
			continue;
		memset(nulls, ' ', sizeof(nulls));
		values[0] = Int32GetDatum(tenant_id);
		values[1] = Int64GetDatum(transfer_id);
		values[2] = Int32GetDatum(judgement->version);
		values[3] = CStringGetTextDatum(judgement->is_live ? "live" : "shadow");
		values[4] = CStringGetTextDatum(fin_risk_outcome_name(judgement->outcome));
		values[5] = Int32GetDatum(judgement->score);
		values[6] = (Datum) 0;
		if (judgement->rule != NULL)
			values[6] = CStringGetTextDatum(judgement->rule);
		else
			nulls[6] = 'n';
		values[7] = fin_amount_datum(verdict->latency_ns, 3);
		values[8] = JsonbPGetDatum(fin_risk_hits(judgement));
		values[9] = JsonbPGetDatum(verdict->inputs);
		fin_query_run(&insert_decision, values, nulls, 0);
	}
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------ */

static JsonbValue *
find_value(JsonbContainer *object, const char *key)
{
	return getKeyJsonValueFromContainer(object, key, strlen(key), NULL);
}

static char *
read_text(JsonbContainer *object, const char *key)
{
	JsonbValue *value = find_value(object, key);

	return value == NULL || value->type != jbvString ? NULL :
		pnstrdup(value->val.string.val, value->val.string.len);
}

static bool
read_bool(JsonbContainer *object, const char *key)
{
	JsonbValue *value = find_value(object, key);

	return value != NULL && value->type == jbvBool && value->val.boolean;
}

/* a member that is an object, or NULL */
static JsonbContainer *
read_object(JsonbContainer *object, const char *key)
{
	JsonbValue *value = find_value(object, key);

	return value == NULL || value->type != jbvBinary ? NULL :
		value->val.binary.data;
}

static Numeric
text_number(const char *text)
{
	return DatumGetNumeric(DirectFunctionCall3(numeric_in,
											   CStringGetDatum(text),
											   ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1)));
}

static FinAmount
read_amount(JsonbContainer *object, const char *key, int scale)
{
	char	   *text = read_text(object, key);
	FinAmount	amount = 0;

	if (text != NULL &&
		fin_amount_decode(text_number(text), scale, &amount) != FIN_AMOUNT_OK)
		elog(ERROR, "recorded amount %s cannot be read", text);
	return amount;
}

static int64
read_int64(JsonbContainer *object, const char *key)
{
	char	   *text = read_text(object, key);

	return text == NULL ? 0 :
		DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text)));
}

static TimestampTz
read_time(JsonbContainer *object, const char *key)
{
	char	   *text = read_text(object, key);

	return text == NULL ? 0 :
		DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
												CStringGetDatum(text),
												ObjectIdGetDatum(InvalidOid),
												Int32GetDatum(-1)));
}

static void
read_party(JsonbContainer *root, const char *key, int scale, RiskParty *party)
{
	JsonbContainer *object = read_object(root, key);

	if (object == NULL)
		elog(ERROR, "recorded inputs have no \"%s\"", key);
	party->account_id = read_int64(object, "id");
	party->code = read_text(object, "code");
	party->type = read_text(object, "type");
	party->level = read_text(object, "level");
	party->created_at = read_time(object, "created_at");
	party->balance = read_amount(object, "balance", scale);
}

static void
read_measured(const RiskBook *book, JsonbContainer *root, RiskFacts *facts)
{
	JsonbContainer *object = read_object(root, "measured");

	for (int i = 0; i < book->nmeasures && object != NULL; i++)
	{
		RiskMeasured *measured = &facts->measured[i];
		JsonbContainer *one = read_object(object,
										  fin_risk_measure_name(&book->measures[i]));

		measured->is_known = one != NULL;
		if (one == NULL)
			continue;
		measured->total.amount = read_amount(one, "amount", facts->scale);
		measured->total.count = read_int64(one, "count");
		measured->last = read_text(one, "last");
		measured->unconfirmed = read_bool(one, "unconfirmed");
		measured->last_at = read_time(one, "at");
	}
}

static void
read_probed(const RiskBook *book, JsonbContainer *root, RiskFacts *facts)
{
	JsonbContainer *object = read_object(root, "listed");

	for (int i = 0; i < book->nprobes && object != NULL; i++)
	{
		char	   *name = probe_name(&book->probes[i]);

		facts->probed[i].is_known = find_value(object, name) != NULL;
		facts->probed[i].is_member = read_bool(object, name);
	}
}

static void
read_limited(const RiskBook *book, JsonbContainer *root, RiskFacts *facts)
{
	JsonbContainer *object = read_object(root, "limits");

	for (int i = 0; i < book->nlimits && object != NULL; i++)
	{
		char	   *text = read_text(object, book->limits[i]);

		facts->limited[i].is_known = true;
		facts->limited[i].threshold = text == NULL ? NULL : text_number(text);
	}
}

static void
read_moment(JsonbContainer *root, RiskFacts *facts)
{
	char	   *date = read_text(root, "date");
	char	   *time = read_text(root, "time");

	if (date == NULL || time == NULL)
		elog(ERROR, "recorded inputs have no date or time");
	facts->now = read_time(root, "now");
	facts->date = DatumGetDateADT(DirectFunctionCall1(date_in,
													  CStringGetDatum(date)));
	facts->time_of_day = DatumGetTimeADT(DirectFunctionCall3(time_in,
															 CStringGetDatum(time),
															 ObjectIdGetDatum(InvalidOid),
															 Int32GetDatum(-1)));
	facts->has_last = find_value(root, "last_at") != NULL;
	facts->last_at = read_time(root, "last_at");
}

void
fin_risk_read_inputs(const RiskBook *book, Jsonb *inputs, RiskFacts *facts)
{
	JsonbContainer *root = &inputs->root;
	JsonbValue *scale = find_value(root, "scale");
	JsonbValue *metadata = find_value(root, "metadata");

	if (scale == NULL || scale->type != jbvNumeric)
		elog(ERROR, "recorded inputs have no scale");
	facts->scale = DatumGetInt32(DirectFunctionCall1(numeric_int4,
													 NumericGetDatum(scale->val.numeric)));
	facts->amount = read_amount(root, "amount", facts->scale);
	facts->available = read_amount(root, "available", facts->scale);
	facts->spent = read_amount(root, "spent_today", facts->scale);
	facts->currency = read_text(root, "currency");
	facts->type = read_text(root, "type");
	facts->reference = read_text(root, "reference");
	if (metadata != NULL)
		facts->metadata = JsonbValueToJsonb(metadata);
	facts->device = read_text(root, "device");
	facts->country = read_text(root, "country");
	facts->odd_device = read_bool(root, "odd_device");
	facts->odd_country = read_bool(root, "odd_country");
	facts->is_hold = read_bool(root, "is_hold");
	facts->is_reversal = read_bool(root, "is_reversal");
	read_party(root, "from", facts->scale, &facts->from);
	read_party(root, "to", facts->scale, &facts->to);
	read_moment(root, facts);
	read_measured(book, root, facts);
	read_probed(book, root, facts);
	read_limited(book, root, facts);
}
