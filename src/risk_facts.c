/*
 * risk_facts.c
 *		What rules ask about a transfer.
 *
 * Owns nothing; facts live as long as one judgement.  What the movement and its
 * locked accounts tell is copied at once; what costs a look-up (totals, lists,
 * limits) is looked up when a rule first asks for it.  In a replay all is as
 * it was recorded, and what was not, was not asked for: unknown.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "ident.h"
#include "query.h"
#include "limit.h"
#include "risk_parts.h"

/* something is said, but not what could be looked up */
static bool
is_odd(Jsonb *metadata, const char *name, const char *taken)
{
	JsonbValue	value;

	return taken == NULL && metadata != NULL && JB_ROOT_IS_OBJECT(metadata) &&
		getKeyJsonValueFromContainer(&metadata->root, name, strlen(name),
									 &value) != NULL &&
		value.type != jbvNull;
}

static void
fill_party(const FinAccount *account, RiskParty *party)
{
	party->account_id = account->account_id;
	party->code = account->code;
	party->type = account->type;
	party->level = account->level;
	party->created_at = account->created_at;
	party->balance = fin_engine_balance(account);
}

void
fin_risk_clear(const RiskBook *book, RiskFacts *facts)
{
	memset(facts, 0, sizeof(RiskFacts));
	facts->book = book;
	facts->measured = palloc0(sizeof(RiskMeasured) * (book->nmeasures + 1));
	facts->probed = palloc0(sizeof(RiskProbed) * (book->nprobes + 1));
	facts->limited = palloc0(sizeof(RiskLimited) * (book->nlimits + 1));
	facts->values = palloc(sizeof(FinExprValue) * FIN_FACT_COUNT);
	facts->values_known = palloc0(sizeof(bool) * FIN_FACT_COUNT);
}

void
fin_risk_free(RiskFacts *facts)
{
	pfree(facts->measured);
	pfree(facts->probed);
	pfree(facts->limited);
	pfree(facts->values);
	pfree(facts->values_known);
}

void
fin_risk_gather(const RiskBook *book, const FinRiskSubject *subject,
				RiskFacts *facts)
{
	const FinMovement *movement = subject->movement;
	const FinAccount *from = movement->from;

	fin_risk_clear(book, facts);
	facts->subject = subject;
	facts->scale = from->scale;
	facts->amount = movement->amount;
	facts->available = fin_engine_available(from);
	facts->spent = fin_engine_spent(from, movement->business_date);
	facts->currency = from->currency;
	facts->type = subject->type;
	facts->reference = subject->reference;
	facts->metadata = subject->metadata;
	facts->device = subject->event.device;
	facts->country = subject->event.country;
	facts->odd_device = is_odd(facts->metadata, "device", facts->device);
	facts->odd_country = is_odd(facts->metadata, "country", facts->country);
	facts->is_hold = movement->action == FIN_HOLD;
	facts->is_reversal = subject->is_reversal;
	fill_party(from, &facts->from);
	fill_party(movement->to, &facts->to);
	/* who never paid has been idle since the beginning */
	facts->has_last = true;
	facts->last_at = from->last_debit_id == 0 ? from->created_at :
		fin_ident_time(from->last_debit_id);
	facts->now = movement->now;
	facts->date = subject->event.moment.date;
	facts->time_of_day = subject->event.moment.time;
}

/* ------------------------------------------------------------------------
 * what is looked up when first asked for
 * ------------------------------------------------------------------------ */

/*
 * What is parked has passed the counting, but nobody has said yet that it is
 * right.  So it makes no payee or device known: else who must confirm a small
 * transfer would have his next one for nothing.
 */
static FinQuery count_parked =
{
	.sql = "SELECT count(*) FROM finance.risk_review r"
	" WHERE r.tenant_id = $1 AND r.from_account_id = $2"
	" AND ($3 = 0 OR r.to_account_id = $3) AND r.transfer_id < $4"
	" AND (r.settled_id IS NULL OR r.settled_id > $4)"
	" AND ($5 IS NULL OR EXISTS (SELECT FROM finance.transfer t"
	" WHERE t.tenant_id = r.tenant_id AND t.id = r.transfer_id"
	" AND t.metadata->>'device' = $5))",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* never confirmed, or not yet */
static FinQuery find_unconfirmed =
{
	.sql = "SELECT FROM finance.risk_review r"
	" WHERE r.tenant_id = $1 AND r.from_account_id = $4"
	" AND (r.transfer_id = $2 OR r.settled_id = $2)"
	" AND (r.settled_id IS NULL OR r.settled_id > $3"
	" OR r.status IN ('rejected', 'failed')"
	" OR r.status = 'timed_out' AND r.default_outcome = 'reject')",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* by this very call */
static int64
parked_now(const FinRiskSubject *subject, FinScope scope)
{
	const FinMeterEvent *event = &subject->event;
	int64		n = 0;

	for (int i = 0; i < subject->nparked; i++)
	{
		const FinMeterEvent *parked = &subject->parked[i];

		if (parked->from_id != event->from_id)
			continue;
		if (scope == FIN_SCOPE_PAIR ? parked->to_id == event->to_id :
			parked->device != NULL && strcmp(parked->device, event->device) == 0)
			n++;
	}
	return n;
}

static bool
was_parked_now(const FinRiskSubject *subject, int64 transfer_id)
{
	for (int i = 0; i < subject->nparked; i++)
	{
		if (subject->parked[i].id == transfer_id)
			return true;
	}
	return false;
}

static int64
parked_before(const FinRiskSubject *subject, FinScope scope)
{
	const FinMeterEvent *event = &subject->event;
	Datum		values[5] = {Int32GetDatum(subject->tenant_id),
		Int64GetDatum(event->from_id),
		Int64GetDatum(scope == FIN_SCOPE_PAIR ? event->to_id : 0),
	Int64GetDatum(event->id)};
	char		nulls[5] = {' ', ' ', ' ', ' ', 'n'};

	/* what is parked is held */
	if (subject->movement->from->debits_pending == 0)
		return 0;
	if (scope == FIN_SCOPE_DEVICE)
	{
		values[4] = CStringGetTextDatum(event->device);
		nulls[4] = ' ';
	}
	fin_query_run(&count_parked, values, nulls, 1);
	return fin_query_int64(0, 1) + parked_now(subject, scope);
}

/* was the payer's transfer parked and, so far, not let through? */
static bool
is_unconfirmed(const FinRiskSubject *subject, int64 transfer_id)
{
	Datum		values[4] = {Int32GetDatum(subject->tenant_id),
		Int64GetDatum(transfer_id), Int64GetDatum(subject->event.id),
	Int64GetDatum(subject->event.from_id)};

	return was_parked_now(subject, transfer_id) ||
		fin_query_run(&find_unconfirmed, values, NULL, 1) > 0;
}

static void
look_at_last(const FinRiskSubject *subject, int index, RiskMeasured *measured)
{
	int64		transfer_id = 0;

	measured->last = fin_meter_last(subject->meter, index, &subject->event,
									&measured->last_at, &transfer_id);
	if (measured->last == NULL)
		return;
	measured->unconfirmed = is_unconfirmed(subject, transfer_id);
	if (measured->unconfirmed)
		measured->last = NULL;
}

const RiskMeasured *
fin_risk_measured(RiskFacts *facts, int measure)
{
	RiskMeasured *measured = &facts->measured[measure];
	const FinMeasure *asked = &facts->book->measures[measure];
	const FinRiskSubject *subject = facts->subject;
	int			index;

	if (measured->is_known || subject == NULL)
		return measured;
	index = fin_meter_find(subject->meter, asked->measure_id);
	if (index < 0)
		elog(ERROR, "risk measure %d is not counted", asked->measure_id);
	/* nobody told of a device: there is nothing to count */
	if (asked->scope == FIN_SCOPE_DEVICE && facts->device == NULL)
		measured->total.count = 0;
	else if (fin_measure_is_last(asked->period))
		look_at_last(subject, index, measured);
	else
		fin_meter_read(subject->meter, index, &subject->event,
					   &measured->total);
	if (asked->period == FIN_PERIOD_EVER && measured->total.count > 0)
		measured->total.count -= Min(parked_before(subject, asked->scope),
									 measured->total.count);
	measured->is_known = true;
	return measured;
}

static bool
look_up(const RiskFacts *facts, const RiskProbe *probe)
{
	int32		tenant_id = facts->subject->tenant_id;

	switch (probe->subject)
	{
		case RISK_PROBE_PAYER:
			return fin_list_contains(tenant_id, probe->list, FIN_LIST_ACCOUNT,
									 facts->from.code, facts->now);
		case RISK_PROBE_PAYEE:
			return fin_list_contains(tenant_id, probe->list, FIN_LIST_ACCOUNT,
									 facts->to.code, facts->now);
		case RISK_PROBE_COUNTRY:
			return facts->country != NULL &&
				fin_list_contains(tenant_id, probe->list, FIN_LIST_COUNTRY,
								  facts->country, facts->now);
		case RISK_PROBE_DEVICE:
			return facts->device != NULL &&
				fin_list_contains(tenant_id, probe->list, FIN_LIST_DEVICE,
								  facts->device, facts->now);
		case RISK_PROBE_HOLIDAY:
			{
				DateADT		date = facts->date;
				TimeADT		time;

				if (probe->zone != NULL)
					fin_risk_local(facts->now, probe->zone, &date, &time);
				return fin_risk_is_holiday(tenant_id, probe->list, date);
			}
	}
	return false;
}

bool
fin_risk_probed(RiskFacts *facts, int probe)
{
	RiskProbed *probed = &facts->probed[probe];

	if (!probed->is_known && facts->subject != NULL)
	{
		probed->is_member = look_up(facts, &facts->book->probes[probe]);
		probed->is_known = true;
	}
	return probed->is_member;
}

Numeric
fin_risk_limited(RiskFacts *facts, int limit)
{
	RiskLimited *limited = &facts->limited[limit];

	if (!limited->is_known && facts->subject != NULL)
	{
		limited->threshold = fin_limit_find(facts->subject->tenant_id,
											facts->book->limits[limit],
											facts->subject->movement->from,
											facts->now);
		limited->is_known = true;
	}
	return limited->threshold;
}

void
fin_risk_local(TimestampTz when, pg_tz *zone, DateADT *date,
			   TimeADT *time_of_day)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;

	if (timestamp2tm(when, &offset, &tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("time out of range for a time zone"));
	*date = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
	*time_of_day = ((((int64) tm.tm_hour * 60 + tm.tm_min) * 60 + tm.tm_sec)
					* USECS_PER_SEC) + fsec;
}

/* ------------------------------------------------------------------------
 * facts by the names that expressions use
 * ------------------------------------------------------------------------ */

static bool
put_text(const char *text, Datum *value)
{
	if (text != NULL)
		*value = CStringGetTextDatum(text);
	return text != NULL;
}

static bool
put_amount(const RiskFacts *facts, FinAmount amount, Datum *value)
{
	*value = fin_amount_datum(amount, facts->scale);
	return true;
}

/* a span of time in units, to two decimals: exact, and the same everywhere */
static Datum
put_span(int64 us, int64 unit_us)
{
	return fin_amount_datum(Max(us, 0) / (unit_us / 100), 2);
}

static bool
put_total(RiskFacts *facts, int fact, Datum *value)
{
	FinMeasure	measure;
	int			index;
	const RiskMeasured *measured;

	if (!fin_risk_fact_measure(fact, &measure))
		elog(ERROR, "fact %d has no measure", fact);
	index = fin_risk_find_measure(facts->book, &measure);
	if (index == RISK_NONE)
		elog(ERROR, "fact %d is not measured", fact);
	measured = fin_risk_measured(facts, index);
	if (fact == FIN_FACT_LAST_DEVICE || fact == FIN_FACT_LAST_COUNTRY)
		return put_text(measured->last, value);
	if (fact == FIN_FACT_LAST_COUNTRY_MINUTES)
	{
		if (measured->last != NULL)
			*value = put_span(facts->now - measured->last_at,
							  USECS_PER_MINUTE);
		return measured->last != NULL;
	}
	if (fact >= FIN_FACT_TOTALS && (fact - FIN_FACT_TOTALS) % 2 == 0)
		return put_amount(facts, measured->total.amount, value);
	*value = Int64GetDatum(measured->total.count);
	return true;
}

static bool
put_holiday(RiskFacts *facts, Datum *value)
{
	RiskProbe	probe = {.subject = RISK_PROBE_HOLIDAY, .list = "default"};
	int			index = fin_risk_find_probe(facts->book, &probe);

	if (index == RISK_NONE)
		elog(ERROR, "holidays are not looked up");
	*value = BoolGetDatum(fin_risk_probed(facts, index));
	return true;
}

/* of the time */
static bool
put_time(RiskFacts *facts, int fact, Datum *value)
{
	int			day = j2day(facts->date + POSTGRES_EPOCH_JDATE);	/* 0: Sunday */

	switch (fact)
	{
		case FIN_FACT_LOCAL_TIME:
			*value = TimeADTGetDatum(facts->time_of_day);
			return true;
		case FIN_FACT_LOCAL_DATE:
			*value = DateADTGetDatum(facts->date);
			return true;
		case FIN_FACT_WEEKDAY:
			*value = Int32GetDatum(day == 0 ? 7 : day);
			return true;
		case FIN_FACT_FROM_AGE_DAYS:
			*value = Int64GetDatum(Max(facts->now - facts->from.created_at, 0) /
								   USECS_PER_DAY);
			return true;
		case FIN_FACT_TO_AGE_DAYS:
			*value = Int64GetDatum(Max(facts->now - facts->to.created_at, 0) /
								   USECS_PER_DAY);
			return true;
		case FIN_FACT_FROM_IDLE_DAYS:
			if (facts->has_last)
				*value = put_span(facts->now - facts->last_at, USECS_PER_DAY);
			return facts->has_last;
		default:
			return put_total(facts, fact, value);
	}
}

/* of the request */
static bool
put_request(RiskFacts *facts, int fact, Datum *value)
{
	switch (fact)
	{
		case FIN_FACT_IS_HOLD:
			*value = BoolGetDatum(facts->is_hold);
			return true;
		case FIN_FACT_IS_REVERSAL:
			*value = BoolGetDatum(facts->is_reversal);
			return true;
		case FIN_FACT_REFERENCE:
			return put_text(facts->reference, value);
		case FIN_FACT_METADATA:
			if (facts->metadata != NULL)
				*value = JsonbPGetDatum(facts->metadata);
			return facts->metadata != NULL;
		case FIN_FACT_DEVICE:
			return put_text(facts->device, value);
		case FIN_FACT_COUNTRY:
			return put_text(facts->country, value);
		case FIN_FACT_IS_HOLIDAY:
			return put_holiday(facts, value);
		default:
			return put_time(facts, fact, value);
	}
}

static bool
put_fact(RiskFacts *facts, int fact, Datum *value)
{
	switch (fact)
	{
		case FIN_FACT_AMOUNT:
			return put_amount(facts, facts->amount, value);
		case FIN_FACT_CURRENCY:
			return put_text(facts->currency, value);
		case FIN_FACT_TYPE:
			return put_text(facts->type, value);
		case FIN_FACT_FROM_ACCOUNT:
			return put_text(facts->from.code, value);
		case FIN_FACT_TO_ACCOUNT:
			return put_text(facts->to.code, value);
		case FIN_FACT_FROM_TYPE:
			return put_text(facts->from.type, value);
		case FIN_FACT_TO_TYPE:
			return put_text(facts->to.type, value);
		case FIN_FACT_FROM_LEVEL:
			return put_text(facts->from.level, value);
		case FIN_FACT_TO_LEVEL:
			return put_text(facts->to.level, value);
		case FIN_FACT_AVAILABLE:
			return put_amount(facts, facts->available, value);
		case FIN_FACT_BALANCE:
			return put_amount(facts, facts->from.balance, value);
		case FIN_FACT_TO_BALANCE:
			return put_amount(facts, facts->to.balance, value);
		default:
			return put_request(facts, fact, value);
	}
}

void
fin_risk_value(RiskFacts *facts, int fact)
{
	FinExprValue *value = &facts->values[fact];

	value->execPlan = NULL;
	value->isnull = !put_fact(facts, fact, &value->value);
	facts->values_known[fact] = true;
}
