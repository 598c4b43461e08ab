/*
 * risk_past.c
 *		Transfers of the past, each with the facts its rules met.
 *
 * The history is read in the order of its ids, in pages, with the snapshot of
 * the calling statement, and followed as it happened: balances are in the rows,
 * what an account spent on a day and what is left of a hold the engine itself
 * makes out again, and totals are counted by a meter of our own.  So a transfer
 * is met with what was known under its accounts' locks; but for what no row
 * tells: code, type and level of an account, lists, limits, holidays and the
 * time zone are those of today, the first two with their expiry judged then.
 *
 * What was counted before the first transfer that is looked at matters too:
 * reading begins a window earlier, or, for totals of all time, with the oldest
 * transfer there is.
 *
 * Owns: what it knows of accounts, holds and totals met so far, in a context
 * below the caller's, as large as maintenance_work_mem at most.  A page has an
 * SPI level of its own, which frees what look-ups left behind.
 *
 * Takes no locks but those of reading tables; writes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ident.h"
#include "query.h"
#include "risk_parts.h"

#define PAGE_ROWS			1000
#define ROWS_PER_LOOK		256		/* at the clock, for progress */
#define PROGRESS_US			(5 * USECS_PER_SEC)

/* what an id tells of the time, and what its row does, may differ by so much */
#define WINDOW_SLACK_US		USECS_PER_HOUR

/* what a row did */
typedef enum PastAction
{
	PAST_TRANSFER,
	PAST_HOLD,
	PAST_PARKED,				/* a hold until somebody approved it */
	PAST_REJECTED,
	PAST_CAPTURE,
	PAST_RELEASE,
	PAST_EXPIRE,
	PAST_UNPARK					/* parked as a hold, now an ordinary one */
} PastAction;

typedef struct PastRow
{
	int64		id;
	int64		from_id;
	int64		to_id;
	int64		hold_id;		/* 0: none */
	bool		is_reversal;
	TimestampTz recorded_at;
	int			scale;
	FinAmount	amount;
	FinAmount	from_balance;	/* after it */
	FinAmount	to_balance;
	FinAmount	from_held;
	FinAmount	released;
	PastAction	action;
	const char *status;
	const char *type;
	const char *currency;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
} PastRow;

typedef struct PastAccount
{
	FinAccount	account;		/* totals: only while it is a side of the row */
	bool		has_row;		/* code, type, level and created_at are known */
	bool		has_last;		/* last_debit_id is */
} PastAccount;

/* made since reading began, and not over */
typedef struct PastHold
{
	FinHold		hold;
	FinMeterEvent event;		/* as it was counted */
} PastHold;

typedef struct AccountEntry
{
	int64		id;
	PastAccount *account;
	char		status;
} AccountEntry;

typedef struct HoldEntry
{
	int64		id;
	PastHold   *hold;
	char		status;
} HoldEntry;

static inline uint32
hash_id(int64 id)
{
	return hash_combine(murmurhash32((uint32) id),
						murmurhash32((uint32) (id >> 32)));
}

#define SH_PREFIX		accounts
#define SH_ELEMENT_TYPE	AccountEntry
#define SH_KEY_TYPE		int64
#define SH_KEY			id
#define SH_HASH_KEY(tb, key)	hash_id(key)
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define SH_PREFIX		holds
#define SH_ELEMENT_TYPE	HoldEntry
#define SH_KEY_TYPE		int64
#define SH_KEY			id
#define SH_HASH_KEY(tb, key)	hash_id(key)
#define SH_EQUAL(tb, a, b)		((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Currency
{
	char		code[FIN_CURRENCY_LENGTH_MAX + 1];
	int			scale;
} Currency;

/* one walk through the history */
typedef struct Walk
{
	int32		tenant_id;
	RiskBook   *book;
	int64		low;			/* ids from here on are looked at, */
	int64		high;			/* to below here; */
	int64		start;			/* and from here on read */
	bool		asks_last;		/* a rule asks when the payer last had any */
	bool		asks_is_hold;	/* an expression asks whether it was a hold */
	MemoryContext memory;		/* of all below */
	Size		memory_max;
	accounts_hash *accounts;
	holds_hash *holds;
	FinMeter   *meter;			/* NULL: the rules count nothing */
	int			ncurrencies;
	int			currencies_size;
	Currency   *currencies;
	MemoryContext row_memory;	/* of one row */
	SPITupleTable *decisions;	/* of the page, by id */
	uint64		ndecisions;
	uint64		next_decision;
	TimestampTz started_at;
	TimestampTz told_at;
	int64		nread;
	int64		first_id;		/* read, */
	int64		id;				/* the one at hand, */
	int64		last_id;		/* and the last to read */
	FinRiskVisit visit;
	void	   *argument;
} Walk;

/* columns of select_page, from 0 */
enum
{
	ROW_ID, ROW_FROM_ID, ROW_TO_ID, ROW_HOLD_ID, ROW_REVERSES_ID,
	ROW_RECORDED_AT, ROW_AMOUNT, ROW_FROM_BALANCE, ROW_TO_BALANCE,
	ROW_FROM_HELD, ROW_RELEASED, ROW_STATUS, ROW_TYPE, ROW_CURRENCY,
	ROW_REFERENCE, ROW_METADATA, ROW_COLUMNS
};

static FinQuery select_page =
{
	.sql = "SELECT t.id, t.from_account_id, t.to_account_id, t.hold_id,"
	" t.reverses_id, t.recorded_at, t.amount, t.from_balance, t.to_balance,"
	" t.from_held, t.released, t.status, t.type, t.currency, t.reference,"
	" t.metadata FROM finance.transfer t"
	" WHERE t.tenant_id = $1 AND t.id >= $2 AND t.id < $3 ORDER BY t.id",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_highest =
{
	.sql = "SELECT t.id FROM finance.transfer t"
	" WHERE t.tenant_id = $1 AND t.id >= $2 AND t.id < $3"
	" ORDER BY t.id DESC LIMIT 1",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

/* $4: whether it was a hold matters */
static FinQuery select_decisions =
{
	.sql = "SELECT d.transfer_id, d.outcome, d.rule, d.hits,"
	" CASE WHEN $4 THEN d.inputs->>'is_hold' = 'true' END"
	" FROM finance.risk_decision d WHERE d.tenant_id = $1"
	" AND d.transfer_id >= $2 AND d.transfer_id <= $3 AND d.mode = 'live'"
	" ORDER BY d.transfer_id",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, BOOLOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_account =
{
	.sql = "SELECT code, type, level, created_at FROM finance._account"
	" WHERE tenant_id = $1 AND account_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* what posting.c keeps in finance._account.last_debit_id, as it was then */
static FinQuery select_last =
{
	.sql = "SELECT t.id FROM finance.transfer t WHERE t.tenant_id = $1"
	" AND t.from_account_id = $2 AND t.id < $3"
	" AND t.status IN ('completed', 'held', 'approved')"
	" ORDER BY t.id DESC LIMIT 1",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

static FinQuery select_scale =
{
	.sql = "SELECT minor_units::pg_catalog.int8 FROM finance.currency"
	" WHERE code = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * where to begin
 * ------------------------------------------------------------------------ */

/* how long before a transfer there may be what a measure counts; -1: ever */
static int64
reach_of(const FinMeasure *measure)
{
	switch (measure->period)
	{
		case FIN_PERIOD_HOUR:
			return 4 * USECS_PER_HOUR;	/* clocks change by hours */
		case FIN_PERIOD_DAY:
			return 2 * USECS_PER_DAY;
		case FIN_PERIOD_MONTH:
			return 33 * USECS_PER_DAY;
		case FIN_PERIOD_SLIDING:
			return measure->span_us;
		default:
			return -1;
	}
}

static bool
uses_fact(const RiskRule *rule, int fact)
{
	for (int i = 0; i < rule->nused; i++)
	{
		if (rule->used[i] == fact)
			return true;
	}
	return false;
}

static void
look_at_rules(Walk *walk, TimestampTz from)
{
	const RiskBook *book = walk->book;
	const RiskRuleset *ruleset = &book->rulesets[0];
	int64		reach = 0;

	for (int i = 0; i < ruleset->nrules; i++)
	{
		const RiskRule *rule = &ruleset->rules[i];

		walk->asks_last = walk->asks_last ||
			rule->kind == FIN_RULE_DORMANT_ACCOUNT ||
			uses_fact(rule, FIN_FACT_FROM_IDLE_DAYS);
		walk->asks_is_hold = walk->asks_is_hold ||
			uses_fact(rule, FIN_FACT_IS_HOLD);
		if (rule->kind == FIN_RULE_DAILY_LIMIT)
			reach = Max(reach, 2 * USECS_PER_DAY);
	}
	for (int i = 0; i < book->nmeasures && reach >= 0; i++)
	{
		int64		one = reach_of(&book->measures[i]);

		reach = one < 0 ? -1 : Max(reach, one);
	}
	walk->low = fin_ident_floor(from);
	walk->start = reach < 0 ? 0 :
		reach == 0 ? walk->low : fin_ident_floor(from - reach - WINDOW_SLACK_US);
}

/* the meter's measures are the book's: numbered by us, as no row has them */
static void
open_meter(Walk *walk)
{
	RiskBook   *book = walk->book;

	for (int i = 0; i < book->nmeasures; i++)
		book->measures[i].measure_id = i + 1;
	if (book->nmeasures > 0)
		walk->meter = fin_meter_open_detached(book->measures, book->nmeasures,
											  walk->memory_max);
}

/* ------------------------------------------------------------------------
 * what is known so far
 * ------------------------------------------------------------------------ */

static void
check_memory(const Walk *walk)
{
	if (MemoryContextMemAllocated(walk->memory, true) <= walk->memory_max)
		return;
	ereport(ERROR,
			errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			errmsg("the history that the rules look at needs more memory than it may have"),
			errdetail("It may have %zu kB.", walk->memory_max / 1024),
			errhint("Increase maintenance_work_mem, or look at a shorter time or at fewer rules."));
}

static int
scale_of(Walk *walk, const char *code)
{
	Datum		values[1];
	Currency   *currency;

	for (int i = 0; i < walk->ncurrencies; i++)
	{
		if (strcmp(walk->currencies[i].code, code) == 0)
			return walk->currencies[i].scale;
	}
	values[0] = CStringGetTextDatum(code);
	if (fin_query_run(&select_scale, values, NULL, 1) == 0)
		elog(ERROR, "currency %s of a transfer does not exist", code);
	if (walk->ncurrencies == walk->currencies_size)
	{
		walk->currencies_size *= 2;
		walk->currencies = repalloc(walk->currencies, sizeof(Currency) *
									walk->currencies_size);
	}
	currency = &walk->currencies[walk->ncurrencies++];
	strlcpy(currency->code, code, sizeof(currency->code));
	currency->scale = (int) fin_query_int64(0, 1);
	return currency->scale;
}

static PastAccount *
find_account(Walk *walk, int64 id)
{
	bool		found;
	AccountEntry *entry = accounts_insert(walk->accounts, id, &found);
	PastAccount *past;

	if (found)
		return entry->account;
	past = MemoryContextAllocZero(walk->memory, sizeof(PastAccount));
	past->account.account_id = id;
	past->account.spent_on = DATEVAL_NOBEGIN;
	/* what was read from the beginning on, is known */
	past->has_last = walk->start == 0;
	entry->account = past;
	return past;
}

/* what rules ask about an account, as it is now */
static void
load_account(Walk *walk, PastAccount *past)
{
	FinAccount *account = &past->account;
	Datum		values[2] = {Int32GetDatum(walk->tenant_id),
	Int64GetDatum(account->account_id)};
	MemoryContext old;
	bool		isnull;

	if (past->has_row)
		return;
	if (fin_query_run(&select_account, values, NULL, 1) == 0)
		elog(ERROR, "account " INT64_FORMAT " of a transfer does not exist",
			 account->account_id);
	old = MemoryContextSwitchTo(walk->memory);
	account->code = fin_query_text(0, 1);
	account->type = fin_query_text(0, 2);
	account->level = fin_query_text(0, 3);
	account->created_at =
		DatumGetTimestampTz(fin_query_datum(0, 4, &isnull));
	MemoryContextSwitchTo(old);
	past->has_row = true;
}

/* the last debit before the first transfer read */
static void
load_last(Walk *walk, PastAccount *past)
{
	Datum		values[3] = {Int32GetDatum(walk->tenant_id),
		Int64GetDatum(past->account.account_id),
	Int64GetDatum(walk->start)};

	if (past->has_last)
		return;
	if (fin_query_run(&select_last, values, NULL, 1) > 0)
		past->account.last_debit_id = fin_query_int64(0, 1);
	past->has_last = true;
}

static const char *
keep_text(Walk *walk, const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(walk->memory, text);
}

static PastHold *
make_hold(Walk *walk, const PastRow *row, const FinMeterEvent *event)
{
	bool		found;
	HoldEntry  *entry = holds_insert(walk->holds, row->id, &found);
	PastHold   *past = MemoryContextAllocZero(walk->memory, sizeof(PastHold));
	FinHold    *hold = &past->hold;

	entry->hold = past;
	hold->hold_id = row->id;
	hold->scale = row->scale;
	hold->held_on = event->moment.date;
	hold->amount = row->amount;
	past->event = *event;
	past->event.type = keep_text(walk, event->type);
	past->event.currency = keep_text(walk, event->currency);
	past->event.device = keep_text(walk, event->device);
	past->event.country = keep_text(walk, event->country);
	return past;
}

/* NULL: it is older than what was read, so nothing counted it */
static PastHold *
find_hold(Walk *walk, int64 hold_id)
{
	HoldEntry  *entry = holds_lookup(walk->holds, hold_id);

	return entry == NULL ? NULL : entry->hold;
}

static void
forget_hold(Walk *walk, PastHold *past)
{
	const char *texts[] = {past->event.type, past->event.currency,
	past->event.device, past->event.country};

	(void) holds_delete(walk->holds, past->hold.hold_id);
	for (int i = 0; i < (int) lengthof(texts); i++)
	{
		if (texts[i] != NULL)
			pfree(unconstify(char *, texts[i]));
	}
	pfree(past);
}

/* ------------------------------------------------------------------------
 * one row
 * ------------------------------------------------------------------------ */

static PastAction
action_of(const char *status, int64 id, int64 hold_id)
{
	bool		takes = hold_id != 0 && hold_id != id;	/* from a hold */

	if (strcmp(status, "completed") == 0)
		return takes ? PAST_CAPTURE : PAST_TRANSFER;
	if (strcmp(status, "rejected") == 0)
		return PAST_REJECTED;
	if (strcmp(status, "released") == 0)
		return PAST_RELEASE;
	if (strcmp(status, "expired") == 0)
		return PAST_EXPIRE;
	if (takes)
		return PAST_UNPARK;
	return strcmp(status, "held") == 0 ? PAST_HOLD : PAST_PARKED;
}

static bool
was_judged(PastAction action)
{
	return action == PAST_TRANSFER || action == PAST_HOLD ||
		action == PAST_PARKED || action == PAST_REJECTED;
}

/* with it the payer has been active, as posting.c notes it */
static bool
is_debit(const PastRow *row)
{
	return row->action == PAST_TRANSFER || row->action == PAST_HOLD ||
		row->action == PAST_CAPTURE || row->action == PAST_UNPARK;
}

static FinAmount
read_amount(Datum value, bool isnull, int scale)
{
	FinAmount	amount;

	if (isnull)
		return 0;
	if (fin_amount_decode(DatumGetNumeric(value), scale,
						  &amount) != FIN_AMOUNT_OK)
		elog(ERROR, "an amount of a transfer does not have the scale of its currency");
	return amount;
}

static const char *
read_text(Datum value, bool isnull)
{
	return isnull ? NULL : TextDatumGetCString(value);
}

/* texts in the current context */
static void
read_row(Walk *walk, HeapTuple tuple, TupleDesc desc, PastRow *row)
{
	Datum		values[ROW_COLUMNS];
	bool		nulls[ROW_COLUMNS];

	heap_deform_tuple(tuple, desc, values, nulls);
	row->id = DatumGetInt64(values[ROW_ID]);
	row->from_id = DatumGetInt64(values[ROW_FROM_ID]);
	row->to_id = DatumGetInt64(values[ROW_TO_ID]);
	row->hold_id = nulls[ROW_HOLD_ID] ? 0 : DatumGetInt64(values[ROW_HOLD_ID]);
	row->is_reversal = !nulls[ROW_REVERSES_ID];
	row->recorded_at = DatumGetTimestampTz(values[ROW_RECORDED_AT]);
	row->status = read_text(values[ROW_STATUS], false);
	row->type = read_text(values[ROW_TYPE], false);
	row->currency = read_text(values[ROW_CURRENCY], false);
	row->reference = read_text(values[ROW_REFERENCE], nulls[ROW_REFERENCE]);
	row->metadata = nulls[ROW_METADATA] ? NULL :
		DatumGetJsonbP(values[ROW_METADATA]);
	row->action = action_of(row->status, row->id, row->hold_id);
	row->scale = scale_of(walk, row->currency);
	row->amount = read_amount(values[ROW_AMOUNT], false, row->scale);
	row->from_balance = read_amount(values[ROW_FROM_BALANCE], false, row->scale);
	row->to_balance = read_amount(values[ROW_TO_BALANCE], false, row->scale);
	row->from_held = read_amount(values[ROW_FROM_HELD], nulls[ROW_FROM_HELD],
								 row->scale);
	row->released = read_amount(values[ROW_RELEASED], nulls[ROW_RELEASED],
								row->scale);
}

static FinAmount
held_before(const PastRow *row)
{
	switch (row->action)
	{
		case PAST_HOLD:
		case PAST_PARKED:
			return row->from_held - row->amount;
		case PAST_CAPTURE:
		case PAST_RELEASE:
		case PAST_EXPIRE:
			return row->from_held + row->amount + row->released;
		case PAST_TRANSFER:
		case PAST_REJECTED:
		case PAST_UNPARK:
			break;
	}
	return row->from_held;
}

/* both sides as they stood before it */
static void
stand_before(const PastRow *row, FinAccount *from, FinAccount *to)
{
	FinAmount	moved = row->action == PAST_TRANSFER ||
		row->action == PAST_CAPTURE ? row->amount : 0;

	from->scale = to->scale = row->scale;
	strlcpy(from->currency, row->currency, sizeof(from->currency));
	strlcpy(to->currency, row->currency, sizeof(to->currency));
	from->credits_posted = row->from_balance + moved;
	to->credits_posted = row->to_balance - moved;
	from->debits_posted = to->debits_posted = 0;
	from->debits_pending = held_before(row);
	to->debits_pending = 0;
	from->credits_pending = to->credits_pending = 0;
}

static void
fill_event(const Walk *walk, const PastRow *row, FinMeterEvent *event)
{
	event->id = row->id;
	event->from_id = row->from_id;
	event->to_id = row->to_id;
	event->scale = row->scale;
	event->amount = row->amount;
	event->type = row->type;
	event->currency = row->currency;
	event->moment.at = row->recorded_at;
	fin_context_local(walk->tenant_id, row->recorded_at, &event->moment.date,
					  &event->moment.time);
	fin_meter_take_texts(event, row->metadata);
}

static FinAction
engine_action(PastAction action)
{
	switch (action)
	{
		case PAST_TRANSFER:
			return FIN_TRANSFER;
		case PAST_HOLD:
		case PAST_PARKED:
			return FIN_HOLD;
		case PAST_CAPTURE:
			return FIN_CAPTURE;
		case PAST_RELEASE:
			return FIN_RELEASE;
		case PAST_EXPIRE:
			return FIN_EXPIRE;
		case PAST_REJECTED:
		case PAST_UNPARK:
			break;
	}
	elog(ERROR, "what was not done is not done again");
}

/* into the totals, as posting_meter.c does when it happens */
static void
count(Walk *walk, const PastRow *row, const FinMovement *movement,
	  const FinMeterEvent *event, PastHold *hold)
{
	if (walk->meter == NULL)
		return;
	switch (movement->action)
	{
		case FIN_TRANSFER:
		case FIN_HOLD:
			fin_meter_count(walk->meter, event);
			break;
		case FIN_CAPTURE:
			if (row->released > 0)
				fin_meter_give_back(walk->meter, &hold->event, row->released,
									false);
			break;
		case FIN_RELEASE:
		case FIN_EXPIRE:
			fin_meter_give_back(walk->meter, &hold->event, row->amount,
								hold->hold.captured == 0 &&
								fin_engine_remaining(&hold->hold) == 0);
			break;
		case FIN_UNPARK:
			break;
	}
}

/* what it did then, whatever the rules say of it now */
static void
follow(Walk *walk, const PastRow *row, FinMovement *movement,
	   const FinMeterEvent *event)
{
	bool		takes = row->action == PAST_CAPTURE ||
		row->action == PAST_RELEASE || row->action == PAST_EXPIRE;
	PastHold   *hold = takes ? find_hold(walk, row->hold_id) : NULL;
	FinMoved	moved;

	if (row->action == PAST_REJECTED)
		return;
	if (row->action != PAST_UNPARK && (!takes || hold != NULL))
	{
		movement->action = engine_action(row->action);
		movement->hold = hold == NULL ? NULL : &hold->hold;
		fin_engine_post(movement, &moved);
		if (movement->action == FIN_HOLD)
			(void) make_hold(walk, row, event);
		count(walk, row, movement, event, hold);
	}
	if (hold != NULL && fin_engine_remaining(&hold->hold) == 0)
		forget_hold(walk, hold);
}

/* ------------------------------------------------------------------------
 * what the rules of then said
 * ------------------------------------------------------------------------ */

static void
find_decision(Walk *walk, const PastRow *row, RiskPast *past, bool *is_hold)
{
	SPITupleTable *rows = walk->decisions;

	/* judged by nobody, or no rule hit; what became of it tells the rest */
	past->outcome = row->action == PAST_REJECTED ? FIN_RISK_REJECT :
		row->action != PAST_PARKED ? FIN_RISK_PASS :
		strcmp(row->status, "challenged") == 0 ? FIN_RISK_CHALLENGE :
		FIN_RISK_REVIEW;
	past->rule = NULL;
	past->hits = NULL;
	for (; walk->next_decision < walk->ndecisions; walk->next_decision++)
	{
		HeapTuple	tuple = rows->vals[walk->next_decision];
		Datum		values[5];
		bool		nulls[5];

		heap_deform_tuple(tuple, rows->tupdesc, values, nulls);
		if (DatumGetInt64(values[0]) > row->id)
			return;
		if (DatumGetInt64(values[0]) < row->id)
			continue;
		past->outcome =
			fin_risk_parse_outcome(TextDatumGetCString(values[1]));
		past->rule = read_text(values[2], nulls[2]);
		past->hits = DatumGetJsonbP(values[3]);
		/* the rows of those that were stopped do not tell */
		if (!nulls[4])
			*is_hold = DatumGetBool(values[4]);
		return;
	}
}

static void
read_decisions(Walk *walk, int64 first, int64 last)
{
	Datum		values[4] = {Int32GetDatum(walk->tenant_id),
		Int64GetDatum(Max(first, walk->low)), Int64GetDatum(last),
	BoolGetDatum(walk->asks_is_hold)};

	walk->ndecisions = walk->next_decision = 0;
	if (last < walk->low)
		return;
	walk->ndecisions = fin_query_run(&select_decisions, values, NULL, 0);
	walk->decisions = SPI_tuptable;
}

/* ------------------------------------------------------------------------
 * the walk
 * ------------------------------------------------------------------------ */

/* shows the transfer to the caller, with its facts; false: it has seen enough */
static bool
show(Walk *walk, const PastRow *row, PastAccount *from, PastAccount *to,
	 FinMovement *movement, const FinMeterEvent *event)
{
	FinRiskSubject subject = {0};
	RiskFacts	facts;
	RiskPast	past;
	bool		is_hold = row->action == PAST_HOLD;

	load_account(walk, from);
	load_account(walk, to);
	if (walk->asks_last)
		load_last(walk, from);
	find_decision(walk, row, &past, &is_hold);
	movement->action = is_hold ? FIN_HOLD : FIN_TRANSFER;
	subject.tenant_id = walk->tenant_id;
	subject.book = walk->book;
	subject.movement = movement;
	subject.type = row->type;
	subject.reference = row->reference;
	subject.metadata = row->metadata;
	subject.is_reversal = row->is_reversal;
	subject.meter = walk->meter;
	subject.event = *event;
	fin_risk_gather(walk->book, &subject, &facts);
	past.transfer_id = row->id;
	past.was_done = row->action == PAST_TRANSFER || row->action == PAST_HOLD;
	past.facts = &facts;
	return walk->visit(&past, walk->argument);
}

static bool
take_row(Walk *walk, HeapTuple tuple, TupleDesc desc)
{
	PastRow		row;
	PastAccount *from;
	PastAccount *to;
	FinMovement movement = {0};
	FinMeterEvent event;

	read_row(walk, tuple, desc, &row);
	walk->id = row.id;
	from = find_account(walk, row.from_id);
	to = find_account(walk, row.to_id);
	stand_before(&row, &from->account, &to->account);
	fill_event(walk, &row, &event);
	movement.from = &from->account;
	movement.to = &to->account;
	movement.amount = row.amount;
	movement.released = row.released;
	movement.expected_from_version = FIN_NO_VERSION;
	movement.expected_to_version = FIN_NO_VERSION;
	movement.business_date = event.moment.date;
	movement.now = row.recorded_at;
	if (row.id >= walk->low && was_judged(row.action) &&
		!show(walk, &row, from, to, &movement, &event))
		return false;
	follow(walk, &row, &movement, &event);
	if (is_debit(&row))
	{
		from->account.last_debit_id = row.id;
		from->has_last = true;
	}
	return true;
}

/* how many there are in all is known by time only: ids are times */
static void
tell_progress(Walk *walk)
{
	TimestampTz now = GetCurrentTimestamp();
	double		part;

	if (now - walk->told_at < PROGRESS_US)
		return;
	walk->told_at = now;
	part = (double) (walk->id - walk->first_id + 1) /
		(double) (walk->last_id - walk->first_id + 1);
	ereport(NOTICE,
			errmsg(INT64_FORMAT " of about %.0f transfers, %d seconds",
				   walk->nread, (double) walk->nread / part,
				   (int) ((now - walk->started_at) / USECS_PER_SEC)));
}

/* a page from 'after' on; false: that was the last, or enough */
static bool
take_page(Walk *walk, int64 *after)
{
	Datum		values[3] = {Int32GetDatum(walk->tenant_id),
	Int64GetDatum(*after), Int64GetDatum(walk->high)};
	uint64		n = fin_query_run(&select_page, values, NULL, PAGE_ROWS);
	SPITupleTable *rows = SPI_tuptable;
	MemoryContext old;
	bool		go_on = n == PAGE_ROWS;
	bool		isnull;

	if (n == 0)
		return false;
	*after = DatumGetInt64(SPI_getbinval(rows->vals[n - 1], rows->tupdesc, 1,
										 &isnull)) + 1;
	if (walk->nread == 0)
		walk->first_id = fin_query_int64(0, 1);
	read_decisions(walk, fin_query_int64(0, 1), *after - 1);
	old = MemoryContextSwitchTo(walk->row_memory);
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(walk->row_memory);
		if (!take_row(walk, rows->vals[i], rows->tupdesc))
		{
			go_on = false;
			break;
		}
		if (++walk->nread % ROWS_PER_LOOK == 0)
			tell_progress(walk);
	}
	MemoryContextSwitchTo(old);
	check_memory(walk);
	return go_on;
}

static void
begin_walk(Walk *walk, int32 tenant_id, RiskBook *book)
{
	MemoryContext old;

	walk->tenant_id = tenant_id;
	walk->book = book;
	walk->memory = AllocSetContextCreate(CurrentMemoryContext,
										 "finance back-test",
										 ALLOCSET_DEFAULT_SIZES);
	walk->row_memory = AllocSetContextCreate(CurrentMemoryContext,
											 "finance back-test row",
											 ALLOCSET_DEFAULT_SIZES);
	walk->memory_max = (Size) maintenance_work_mem * 1024;
	walk->started_at = walk->told_at = GetCurrentTimestamp();
	old = MemoryContextSwitchTo(walk->memory);
	walk->accounts = accounts_create(walk->memory, 256, NULL);
	walk->holds = holds_create(walk->memory, 64, NULL);
	walk->currencies_size = 8;
	walk->currencies = palloc(sizeof(Currency) * walk->currencies_size);
	open_meter(walk);
	MemoryContextSwitchTo(old);
}

void
fin_risk_walk(int32 tenant_id, RiskBook *book, TimestampTz from,
			  TimestampTz to, FinRiskVisit visit, void *argument)
{
	Walk		walk = {0};
	FinQueryScope scope;
	Datum		values[3];
	int64		after;
	bool		go_on = true;

	begin_walk(&walk, tenant_id, book);
	look_at_rules(&walk, from);
	walk.high = TIMESTAMP_IS_NOEND(to) ? PG_INT64_MAX : fin_ident_floor(to);
	walk.visit = visit;
	walk.argument = argument;
	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(walk.start);
	values[2] = Int64GetDatum(walk.high);
	if (fin_query_run(&select_highest, values, NULL, 1) > 0)
		walk.last_id = fin_query_int64(0, 1);
	/* without any to look at, there is nothing to warm up for */
	if (walk.last_id < walk.low)
		go_on = false;
	for (after = walk.start; go_on;)
	{
		fin_query_begin(&scope);
		go_on = take_page(&walk, &after);
		fin_query_end(&scope);
	}
	MemoryContextDelete(walk.row_memory);
	MemoryContextDelete(walk.memory);
}
