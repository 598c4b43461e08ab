/*
 * meter.c
 *		What passed so far, by account, payee, pair, type and device.
 *
 * Owns: the measures of some tenants, invalidated with finance.risk_measure.
 * Those that are out of date live on until the next transaction loads some, as
 * a posting under way may use them.  A meter lives in the memory context in
 * which it was opened.
 *
 * A key's totals are read, or summed up from the history where there is none
 * of a measure yet, under the lock of the account that the key is of; whatever
 * counts into them holds that lock, so a limit is exact however many clients
 * there are.  Totals of a type are of no account: their rows are locked
 * themselves.  They are locked before ids are drawn, so that ids rise for them
 * too.
 *
 * What a total says of the history, which other transactions may still add to
 * as a measure is new, is exact: for an account by its lock, for a type since
 * publishing waits for the transfers under way (risk_compile.c), and those that
 * wait for it are counted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache.h"
#include "compat.h"
#include "context.h"
#include "ident.h"
#include "meter_parts.h"
#include "query.h"
#include "settings.h"
#include "store_measure.h"
#include "store_spot.h"

#define TENANTS_CACHED_MAX	16
#define STATE_VERSION		1

/* the bounds of a measure's band by scale */
typedef struct Band
{
	uint32		known;			/* bit s: those of scale s are */
	FinAmount	least[FIN_AMOUNT_MAX_SCALE + 1];
	FinAmount	end[FIN_AMOUNT_MAX_SCALE + 1];
} Band;

/* measures, and which of them are of each scope */
typedef struct MeasureBook
{
	int32		tenant_id;
	int			n;
	FinMeasure *measures;
	Band	  **bands;			/* by measure; NULL: not banded */
	int		   *position;		/* by measure: among those of its scope */
	int			nof[FIN_SCOPES];
	int		   *of[FIN_SCOPES]; /* indexes of measures */
} MeasureBook;

/* one key */
typedef struct MeterKey
{
	FinTotalRow row;
	FinScope	scope;
	int			scale;
	int64		last_id;		/* of a type: its last transfer */
	FinTotal   *totals;			/* by position in the scope; NULL: not unpacked */
	bool		changed;
	bytea	   *saved;			/* as it was at the mark; NULL: untouched since */
} MeterKey;

typedef struct KeyEntry
{
	const FinTotalKey *key;
	MeterKey   *meter_key;
	uint32		hash;
	char		status;
} KeyEntry;

static inline uint32
hash_key(const FinTotalKey *key)
{
	uint32		hash = murmurhash32((uint32) key->account_id ^
									(uint32) (key->account_id >> 32));

	hash = hash_combine(hash, murmurhash32((uint32) key->other_id ^
										   (uint32) (key->other_id >> 32)));
	return hash_combine(hash, hash_bytes((const unsigned char *) key->class,
										 strlen(key->class)));
}

#define SH_PREFIX		keys
#define SH_ELEMENT_TYPE	KeyEntry
#define SH_KEY_TYPE		const FinTotalKey *
#define SH_KEY			key
#define SH_HASH_KEY(tb, key)	hash_key(key)
#define SH_EQUAL(tb, a, b)		(fin_store_compare_totals(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)		(a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef enum MeterKind
{
	METER_POSTING,				/* counts, and is written */
	METER_READING,
	METER_DETACHED				/* has no rows */
} MeterKind;

struct FinMeter
{
	MeterKind	kind;
	int32		tenant_id;
	MemoryContext memory;
	Size		memory_max;		/* detached */
	const MeasureBook *book;
	keys_hash  *keys;
	MeterKey   *recent[FIN_SCOPES]; /* asked for last; NULL: none yet */
	int64		last_id;		/* of the types */
	bool		only_gives_back;
	bool		undoable;
	List	   *saved;			/* keys, since the mark */
	TimestampTz ahead;			/* finance.test_clock, of the real one */
};

static FinCache measure_cache = {.table = "risk_measure"};
static MemoryContext books_context = NULL;
static MemoryContext retired_context = NULL;	/* may be in use, */
static LocalTransactionId retired_in;	/* by this transaction */
static MeasureBook *books[TENANTS_CACHED_MAX];
static int	nbooks = 0;

static FinQuery select_measures =
{
	.sql = "SELECT measure_id, scope, period,"
	" (extract(epoch FROM span) * 1000000)::bigint, band_min, band_max"
	" FROM finance.risk_measure WHERE tenant_id = $1 ORDER BY measure_id",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * the measures of a tenant
 * ------------------------------------------------------------------------ */

/* which measures are of which scope; the measures are filled */
static void
index_book(MeasureBook *book)
{
	book->position = palloc(sizeof(int) * Max(book->n, 1));
	book->bands = palloc0(sizeof(Band *) * Max(book->n, 1));
	for (int scope = 0; scope < FIN_SCOPES; scope++)
	{
		book->nof[scope] = 0;
		book->of[scope] = palloc(sizeof(int) * Max(book->n, 1));
	}
	for (int i = 0; i < book->n; i++)
	{
		FinScope	scope = book->measures[i].scope;

		book->position[i] = book->nof[scope];
		book->of[scope][book->nof[scope]++] = i;
		if (book->measures[i].banded)
			book->bands[i] = palloc0(sizeof(Band));
	}
}

static Numeric
numeric_or_null(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetNumericCopy(value);
}

static void
read_measure(uint64 row, FinMeasure *measure)
{
	bool		isnull;
	Datum		span;
	char	   *scope = fin_query_text(row, 2);
	char	   *period = fin_query_text(row, 3);

	measure->measure_id = DatumGetInt32(fin_query_datum(row, 1, &isnull));
	if (!fin_measure_parse_scope(scope, &measure->scope) ||
		!fin_measure_parse_period(period, &measure->period))
		elog(ERROR, "unknown measure of %s by %s", scope, period);
	span = fin_query_datum(row, 4, &isnull);
	measure->span_us = isnull ? 0 : DatumGetInt64(span);
	measure->band_min = numeric_or_null(row, 5);
	measure->band_max = numeric_or_null(row, 6);
	measure->banded = measure->band_min != NULL || measure->band_max != NULL;
}

/* out of date, but perhaps in use until the end of the transaction */
static void
retire_books(void)
{
	if (retired_context != NULL && retired_in != FIN_MY_LXID)
	{
		MemoryContextDelete(retired_context);
		retired_context = NULL;
	}
	nbooks = 0;
	if (retired_context == NULL)
		retired_context = books_context;
	else if (books_context != NULL)
		MemoryContextSetParent(books_context, retired_context);
	retired_in = FIN_MY_LXID;
	books_context = AllocSetContextCreate(TopMemoryContext,
										  "finance risk measures",
										  ALLOCSET_SMALL_SIZES);
}

static MeasureBook *
load_book(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};
	MeasureBook *book;
	MemoryContext old;
	uint64		n;

	if (!fin_cache_loading(&measure_cache) || books_context == NULL ||
		nbooks == TENANTS_CACHED_MAX)
		retire_books();
	n = fin_query_run(&select_measures, values, NULL, 0);
	old = MemoryContextSwitchTo(books_context);
	book = palloc0(sizeof(MeasureBook));
	book->tenant_id = tenant_id;
	book->n = (int) n;
	book->measures = palloc0(sizeof(FinMeasure) * Max(book->n, 1));
	for (int i = 0; i < book->n; i++)
		read_measure(i, &book->measures[i]);
	index_book(book);
	MemoryContextSwitchTo(old);
	books[nbooks++] = book;
	return book;
}

static MeasureBook *
find_book(int32 tenant_id)
{
	if (fin_cache_valid(&measure_cache))
	{
		for (int i = 0; i < nbooks; i++)
		{
			if (books[i]->tenant_id == tenant_id)
				return books[i];
		}
	}
	return load_book(tenant_id);
}

const FinMeasure *
fin_meter_measures(int32 tenant_id, int *n)
{
	MeasureBook *book = find_book(tenant_id);

	*n = book->n;
	return book->n == 0 ? NULL : book->measures;
}

/* that of these measures: the cache's own, or one made in this context */
static const MeasureBook *
book_of(const FinMeasure *measures, int n)
{
	MeasureBook *book;

	for (int i = 0; i < nbooks; i++)
	{
		if (books[i]->measures == measures && books[i]->n == n)
			return books[i];
	}
	book = palloc0(sizeof(MeasureBook));
	book->n = n;
	book->measures = palloc(sizeof(FinMeasure) * Max(n, 1));
	memcpy(book->measures, measures, sizeof(FinMeasure) * n);
	index_book(book);
	return book;
}

/* ------------------------------------------------------------------------
 * open, close
 * ------------------------------------------------------------------------ */

static FinMeter *
open_meter(MeterKind kind, int32 tenant_id, const FinMeasure *measures, int n)
{
	FinMeter   *meter = palloc0(sizeof(FinMeter));

	meter->kind = kind;
	meter->tenant_id = tenant_id;
	meter->memory = CurrentMemoryContext;
	meter->book = book_of(measures, n);
	meter->keys = keys_create(CurrentMemoryContext, 8, NULL);
	return meter;
}

FinMeter *
fin_meter_open(int32 tenant_id, const FinMeasure *measures, int n)
{
	return open_meter(METER_POSTING, tenant_id, measures, n);
}

FinMeter *
fin_meter_open_reading(int32 tenant_id, const FinMeasure *measures, int n)
{
	return open_meter(METER_READING, tenant_id, measures, n);
}

FinMeter *
fin_meter_open_detached(const FinMeasure *measures, int n, Size memory_max)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext,
												 "finance meter",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(memory);
	FinMeter   *meter = open_meter(METER_DETACHED, 0, measures, n);

	meter->memory_max = memory_max;
	MemoryContextSwitchTo(old);
	return meter;
}

void
fin_meter_close(FinMeter *meter)
{
	/* the others go with the context they were opened in */
	if (meter->kind == METER_DETACHED)
		MemoryContextDelete(meter->memory);
}

int
fin_meter_find(const FinMeter *meter, int32 measure_id)
{
	int			low = 0;
	int			high = meter->book->n;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int32		found = meter->book->measures[middle].measure_id;

		if (found == measure_id)
			return middle;
		if (found < measure_id)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

bool
fin_meter_has_scope(const FinMeter *meter, FinScope scope)
{
	return meter->book->nof[scope] > 0;
}

int64
fin_meter_last_id(const FinMeter *meter)
{
	return meter->last_id;
}

/* a text of the object that is neither empty nor too long, or NULL */
static const char *
take_text(Jsonb *metadata, const char *name)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(&metadata->root, name, strlen(name),
									 &value) == NULL ||
		value.type != jbvString || value.val.string.len < 1 ||
		value.val.string.len > FIN_METER_TEXT_MAX)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

void
fin_meter_take_texts(FinMeterEvent *event, Jsonb *metadata)
{
	event->device = NULL;
	event->country = NULL;
	if (metadata == NULL || !JB_ROOT_IS_OBJECT(metadata))
		return;
	event->device = take_text(metadata, "device");
	event->country = take_text(metadata, "country");
}

/* ------------------------------------------------------------------------
 * keys
 * ------------------------------------------------------------------------ */

/* that of the event; false when it has none of this scope.  class: FIN_METER_CLASS_SIZE */
static bool
make_key(FinScope scope, const FinMeterEvent *event, FinTotalKey *key,
		 char *class)
{
	class[0] = '\0';
	key->class = class;
	key->account_id = event->from_id;
	key->other_id = 0;
	switch (scope)
	{
		case FIN_SCOPE_ACCOUNT:
			break;
		case FIN_SCOPE_COUNTERPARTY:
			key->account_id = 0;
			key->other_id = event->to_id;
			break;
		case FIN_SCOPE_PAIR:
			key->other_id = event->to_id;
			break;
		case FIN_SCOPE_ACCOUNT_TYPE:
			snprintf(class, FIN_METER_CLASS_SIZE, "type %s", event->type);
			break;
		case FIN_SCOPE_TYPE:
			/* a currency's code has no space */
			key->account_id = 0;
			snprintf(class, FIN_METER_CLASS_SIZE, "%s %s", event->currency, event->type);
			break;
		case FIN_SCOPE_DEVICE:
			if (event->device == NULL)
				return false;
			snprintf(class, FIN_METER_CLASS_SIZE, "device %s", event->device);
			break;
	}
	return event->from_id != 0;
}

static void
check_memory(const FinMeter *meter)
{
	Size		used;

	if (meter->kind != METER_DETACHED)
		return;
	used = MemoryContextMemAllocated(meter->memory, true);
	if (used > meter->memory_max)
		ereport(ERROR,
				errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg("totals of risk need more memory than they may have"),
				errdetail("They may have %zu kB.", meter->memory_max / 1024),
				errhint("Increase maintenance_work_mem, or look at a shorter time or at fewer rules."));
}

/* as it was counted so far, or anew; its row is not read */
static MeterKey *
add_key(FinMeter *meter, FinScope scope, const FinMeterEvent *event,
		bool *is_new)
{
	char		class[FIN_METER_CLASS_SIZE];
	FinTotalKey wanted;
	KeyEntry   *entry;
	MeterKey   *key;
	MemoryContext old;

	*is_new = false;
	if (!make_key(scope, event, &wanted, class))
		return NULL;
	key = meter->recent[scope];
	if (key != NULL && fin_store_compare_totals(&key->row.key, &wanted) == 0)
		return key;
	entry = keys_insert(meter->keys, &wanted, is_new);
	*is_new = !*is_new;
	if (!*is_new)
		return meter->recent[scope] = entry->meter_key;
	old = MemoryContextSwitchTo(meter->memory);
	key = palloc0(sizeof(MeterKey));
	key->row.key = wanted;
	key->row.key.class = pstrdup(class);
	key->row.must_lock = scope == FIN_SCOPE_TYPE;
	key->scope = scope;
	key->scale = event->scale;
	entry->key = &key->row.key;
	entry->meter_key = key;
	meter->recent[scope] = key;
	MemoryContextSwitchTo(old);
	check_memory(meter);
	return key;
}

static FIN_NORETURN void
refuse_damaged(const MeterKey *key)
{
	ereport(ERROR,
			errcode(ERRCODE_DATA_CORRUPTED),
			errmsg("a row of finance.risk_total is damaged"),
			errdetail("It is that of account " INT64_FORMAT ", other account " INT64_FORMAT ", \"%s\".",
					  key->row.key.account_id, key->row.key.other_id,
					  key->row.key.class),
			errhint("Delete it: what it counted is then read from the history."));
}

/* version, scale, the last id */
const unsigned char *
fin_meter_state_head(const bytea *state, int *scale, int64 *last_id)
{
	const unsigned char *from = (const unsigned char *) VARDATA_ANY(state);
	const unsigned char *end = from + VARSIZE_ANY_EXHDR(state);
	uint64		number;

	*last_id = 0;
	*scale = 0;
	/* made to be locked, and nothing counted yet */
	if (from == end)
		return end;
	if (*from++ != STATE_VERSION)
		return NULL;
	from = fin_measure_get(from, end, &number);
	*scale = (int) number;
	if (from == NULL || number > FIN_AMOUNT_MAX_SCALE)
		return NULL;
	from = fin_measure_get(from, end, &number);
	*last_id = (int64) number;
	return from;
}

/* the rows of these keys, distinct */
static int
compare_meter_keys(const void *a, const void *b)
{
	const MeterKey *const *left = a;
	const MeterKey *const *right = b;

	return fin_store_compare_totals(&(*left)->row.key, &(*right)->row.key);
}

static void
read_rows(FinMeter *meter, MeterKey **keys, int n)
{
	MemoryContext old = MemoryContextSwitchTo(meter->memory);

	if (n > 1)
		qsort(keys, n, sizeof(MeterKey *), compare_meter_keys);
	/* a row is the first member of its key */
	StaticAssertStmt(offsetof(MeterKey, row) == 0, "a key starts with its row");
	fin_store_read_totals(meter->tenant_id, (FinTotalRow *const *) keys, n,
						  meter->kind != METER_POSTING);
	for (int i = 0; i < n; i++)
	{
		MeterKey   *key = keys[i];
		int			scale;

		if (!key->row.found)
			continue;
		if (fin_meter_state_head(key->row.state, &scale, &key->last_id) == NULL)
			refuse_damaged(key);
		meter->last_id = Max(meter->last_id, key->last_id);
	}
	MemoryContextSwitchTo(old);
}

void
fin_meter_prefetch(FinMeter *meter, const FinMeterEvent *events, int n)
{
	MeterKey  **keys = NULL;
	int			nkeys = 0;
	int			size = 0;

	for (int i = 0; i < n; i++)
	{
		for (int scope = 0; scope < FIN_SCOPES; scope++)
		{
			bool		is_new;
			MeterKey   *key;

			if (meter->book->nof[scope] == 0 || events[i].from_id == 0)
				continue;
			key = add_key(meter, (FinScope) scope, &events[i], &is_new);
			if (key == NULL || !is_new)
				continue;
			if (nkeys == size)
			{
				size = Max(size * 2, 16);
				keys = keys == NULL ? palloc(sizeof(MeterKey *) * size) :
					repalloc_huge(keys, sizeof(MeterKey *) * size);
			}
			keys[nkeys++] = key;
		}
	}
	if (nkeys > 0)
		read_rows(meter, keys, nkeys);
}

/* NULL: the event has no such key */
static MeterKey *
find_key(FinMeter *meter, FinScope scope, const FinMeterEvent *event)
{
	bool		is_new;
	MeterKey   *key = add_key(meter, scope, event, &is_new);

	if (key != NULL && is_new && meter->kind != METER_DETACHED)
		read_rows(meter, &key, 1);
	return key;
}

/* ------------------------------------------------------------------------
 * states
 * ------------------------------------------------------------------------ */

static const FinMeasure *
measure_at(const FinMeter *meter, const MeterKey *key, int position)
{
	return &meter->book->measures[meter->book->of[key->scope][position]];
}

static void
make_room(FinTotal *total, FinPeriod period)
{
	if (period == FIN_PERIOD_SLIDING && total->entries == NULL)
		total->entries = palloc(sizeof(FinTotalEntry) * FIN_ENTRIES_MAX);
	else if (fin_measure_is_last(period) && total->text == NULL)
		total->text = palloc(FIN_METER_TEXT_MAX + 1);
}

/* those of measures that are no more are left out */
static void
unpack_totals(FinMeter *meter, MeterKey *key, const bytea *state)
{
	const unsigned char *end = (const unsigned char *) VARDATA_ANY(state) +
		VARSIZE_ANY_EXHDR(state);
	int			scale;
	const unsigned char *from = fin_meter_state_head(state, &scale, &key->last_id);
	FinStoredTotal stored;

	if (from == NULL || (from != end && scale != key->scale))
		refuse_damaged(key);
	while (from != end)
	{
		int			measure;
		FinTotal   *total;

		from = fin_measure_next(from, end, &stored);
		if (from == NULL)
			refuse_damaged(key);
		measure = fin_meter_find(meter, stored.measure_id);
		if (measure < 0)
			continue;
		if (meter->book->measures[measure].period != stored.period ||
			meter->book->measures[measure].scope != key->scope)
			refuse_damaged(key);
		total = &key->totals[meter->book->position[measure]];
		make_room(total, stored.period);
		if (!fin_measure_decode(&stored, total))
			refuse_damaged(key);
	}
}

static void
make_totals(FinMeter *meter, MeterKey *key, const bytea *state)
{
	MemoryContext old = MemoryContextSwitchTo(meter->memory);

	key->totals = palloc0(sizeof(FinTotal) * meter->book->nof[key->scope]);
	if (state != NULL)
		unpack_totals(meter, key, state);
	MemoryContextSwitchTo(old);
}

static bytea *
pack_totals(FinMeter *meter, const MeterKey *key)
{
	StringInfoData state;
	unsigned char *end;
	MemoryContext old = MemoryContextSwitchTo(meter->memory);

	initStringInfo(&state);
	enlargeStringInfo(&state, VARHDRSZ + 32);
	end = (unsigned char *) state.data + VARHDRSZ;
	*end++ = STATE_VERSION;
	end = fin_measure_put(end, key->scale);
	end = fin_measure_put(end, key->last_id);
	state.len = (char *) end - state.data;
	for (int i = 0; i < meter->book->nof[key->scope]; i++)
	{
		if (!key->totals[i].known)
			continue;
		enlargeStringInfo(&state, FIN_TOTAL_SIZE_MAX);
		state.len += fin_measure_encode(&key->totals[i],
										measure_at(meter, key, i),
										(unsigned char *) state.data + state.len);
	}
	SET_VARSIZE(state.data, state.len);
	MemoryContextSwitchTo(old);
	return (bytea *) state.data;
}

/* ------------------------------------------------------------------------
 * the history, where there is no total yet
 * ------------------------------------------------------------------------ */

/* does the measure count this amount? */
static bool
is_in_band(const MeasureBook *book, int measure, FinAmount amount, int scale)
{
	const FinMeasure *of = &book->measures[measure];
	Band	   *band = book->bands[measure];

	if (band == NULL)
		return true;
	if ((band->known & (1U << scale)) == 0)
	{
		band->least[scale] = of->band_min == NULL ? 0 :
			fin_amount_ceiling(of->band_min, scale);
		band->end[scale] = of->band_max == NULL ? FIN_AMOUNT_MAX :
			fin_amount_ceiling(of->band_max, scale);
		band->known |= 1U << scale;
	}
	return amount >= band->least[scale] && amount < band->end[scale];
}

/* the earliest time that matters for the measure; clocks change by hours */
static TimestampTz
window_start(const FinMeasure *measure, TimestampTz now)
{
	switch (measure->period)
	{
		case FIN_PERIOD_HOUR:
			return now - 4 * USECS_PER_HOUR;
		case FIN_PERIOD_DAY:
			return now - 27 * USECS_PER_HOUR;
		case FIN_PERIOD_MONTH:
			return now - 33 * USECS_PER_DAY;
		case FIN_PERIOD_SLIDING:
			return now - measure->span_us;
		default:
			return 0;
	}
}

/* a transfer of the past, into the totals that are being summed up */
static void
seed_past(FinMeter *meter, MeterKey *key, const bool *missing,
		  const FinPast *past)
{
	FinMoment	moment;

	/* an id tells the millisecond: the end of it, so that no window is short */
	moment.at = fin_ident_time(past->id) + meter->ahead;
	fin_context_local(meter->tenant_id, moment.at, &moment.date, &moment.time);
	moment.at += 999;
	for (int i = 0; i < meter->book->nof[key->scope]; i++)
	{
		const FinMeasure *measure = measure_at(meter, key, i);
		FinTotal   *total = &key->totals[i];

		if (!missing[i] || fin_measure_is_last(measure->period) ||
			!is_in_band(meter->book, meter->book->of[key->scope][i],
						past->amount, key->scale) ||
			fin_measure_bucket(measure->period, &moment) < total->bucket)
			continue;
		fin_measure_count(total, measure, past->id, &moment, past->amount);
		total->seeded = true;
		if (past->given_back > 0)
			fin_measure_give_back(total, measure, past->id, past->given_back,
								  past->ended_unused);
	}
}

static void
seed_sums(FinMeter *meter, MeterKey *key, const bool *missing,
		  const FinMeterEvent *event, TimestampTz start)
{
	FinPast    *past = palloc(sizeof(FinPast) * FIN_PAST_MAX);
	int64		after = fin_ident_floor(start - meter->ahead);
	int			n;

	do
	{
		n = fin_store_read_past(meter->tenant_id, key->scope, &key->row.key,
								event->type, event->currency, event->device,
								key->scale, after, past);
		for (int i = 0; i < n; i++)
			seed_past(meter, key, missing, &past[i]);
		if (n > 0)
			after = past[n - 1].id + 1;
	} while (n == FIN_PAST_MAX);
	pfree(past);
}

static void
seed_last(FinMeter *meter, MeterKey *key, FinTotal *total, FinPeriod period)
{
	int64		id;
	char	   *text = fin_store_read_last(meter->tenant_id,
										   key->row.key.account_id, period,
										   &id);

	if (text != NULL)
		fin_measure_set_last(total, id, fin_ident_time(id) + meter->ahead, text);
}

/* a test clock shows the history as if it had always been that far ahead */
static void
look_at_clock(FinMeter *meter)
{
	if (fin_test_clock != NULL && fin_test_clock[0] != '\0')
		meter->ahead = fin_ident_now() - GetCurrentTimestamp();
}

static void
seed(FinMeter *meter, MeterKey *key, const FinMeterEvent *event)
{
	int			n = meter->book->nof[key->scope];
	bool	   *missing = palloc0(sizeof(bool) * n);
	TimestampTz start = DT_NOEND;

	if (meter->kind != METER_DETACHED)
		look_at_clock(meter);
	for (int i = 0; i < n; i++)
	{
		const FinMeasure *measure = measure_at(meter, key, i);
		FinTotal   *total = &key->totals[i];

		if (total->known)
			continue;
		missing[i] = true;
		make_room(total, measure->period);
		fin_measure_begin(total, measure, &event->moment);
		if (meter->kind == METER_DETACHED)
			total->seeded = false;
		else if (fin_measure_is_last(measure->period))
			seed_last(meter, key, total, measure->period);
		else
			start = Min(start, window_start(measure, event->moment.at));
	}
	if (start != DT_NOEND)
		seed_sums(meter, key, missing, event, start);
	key->changed = true;
	pfree(missing);
}

/* the totals of the event's key, all known; NULL: it has no such key */
static MeterKey *
known_key(FinMeter *meter, FinScope scope, const FinMeterEvent *event)
{
	MeterKey   *key = find_key(meter, scope, event);
	MemoryContext old;

	if (key == NULL || key->totals != NULL)
		return key;
	make_totals(meter, key, key->row.state);
	old = MemoryContextSwitchTo(meter->memory);
	for (int i = 0; i < meter->book->nof[scope]; i++)
	{
		if (!key->totals[i].known)
		{
			seed(meter, key, event);
			break;
		}
	}
	MemoryContextSwitchTo(old);
	return key;
}

/* ------------------------------------------------------------------------
 * read, count, undo
 * ------------------------------------------------------------------------ */

void
fin_meter_read(FinMeter *meter, int measure, const FinMeterEvent *event,
			   FinMeasureTotal *total)
{
	const FinMeasure *of = &meter->book->measures[measure];
	MeterKey   *key = known_key(meter, of->scope, event);

	total->amount = 0;
	total->count = 0;
	if (key != NULL && !fin_measure_is_last(of->period))
		fin_measure_read(&key->totals[meter->book->position[measure]], of,
						 &event->moment, total);
}

const char *
fin_meter_last(FinMeter *meter, int measure, const FinMeterEvent *event,
			   TimestampTz *at, int64 *transfer_id)
{
	const FinMeasure *of = &meter->book->measures[measure];
	MeterKey   *key = known_key(meter, of->scope, event);
	FinTotal   *total;

	*at = 0;
	if (key == NULL || !fin_measure_is_last(of->period))
		return NULL;
	total = &key->totals[meter->book->position[measure]];
	if (total->length == 0)
		return NULL;
	*at = total->at;
	*transfer_id = total->since_id;
	return total->text;
}

/* before the first change since the mark */
static void
save_key(FinMeter *meter, MeterKey *key)
{
	MemoryContext old;

	key->changed = true;
	if (!meter->undoable || key->saved != NULL)
		return;
	key->saved = pack_totals(meter, key);
	old = MemoryContextSwitchTo(meter->memory);
	meter->saved = lappend(meter->saved, key);
	MemoryContextSwitchTo(old);
}

static void
count_total(const FinMeasure *measure, FinTotal *total,
			const FinMeterEvent *event)
{
	const char *text = measure->period == FIN_PERIOD_LAST_DEVICE ?
		event->device : event->country;

	if (!fin_measure_is_last(measure->period))
		fin_measure_count(total, measure, event->id, &event->moment,
						  event->amount);
	else if (text != NULL)
		fin_measure_set_last(total, event->id, event->moment.at, text);
}

void
fin_meter_count(FinMeter *meter, const FinMeterEvent *event)
{
	const MeasureBook *book = meter->book;

	for (int scope = 0; scope < FIN_SCOPES; scope++)
	{
		MeterKey   *key;

		if (book->nof[scope] == 0)
			continue;
		key = known_key(meter, (FinScope) scope, event);
		if (key == NULL)
			continue;
		save_key(meter, key);
		if (scope == FIN_SCOPE_TYPE)
			key->last_id = Max(key->last_id, event->id);
		for (int i = 0; i < book->nof[scope]; i++)
		{
			int			measure = book->of[scope][i];

			if (is_in_band(book, measure, event->amount, event->scale))
				count_total(&book->measures[measure], &key->totals[i], event);
		}
	}
}

/* with totals in it: a type's is made to be locked */
static bool
has_row(FinMeter *meter, FinScope scope, const FinMeterEvent *event)
{
	const MeterKey *key = find_key(meter, scope, event);

	return key != NULL && key->row.state != NULL &&
		VARSIZE_ANY_EXHDR(key->row.state) > 0;
}

void
fin_meter_give_back(FinMeter *meter, const FinMeterEvent *hold,
					FinAmount amount, bool all)
{
	const MeasureBook *book = meter->book;

	for (int scope = 0; scope < FIN_SCOPES; scope++)
	{
		MeterKey   *key;

		if (book->nof[scope] == 0 ||
			(meter->only_gives_back && !has_row(meter, (FinScope) scope, hold)))
			continue;
		key = known_key(meter, (FinScope) scope, hold);
		if (key == NULL)
			continue;
		save_key(meter, key);
		for (int i = 0; i < book->nof[scope]; i++)
		{
			int			measure = book->of[scope][i];

			if (!fin_measure_is_last(book->measures[measure].period) &&
				is_in_band(book, measure, hold->amount, hold->scale))
				fin_measure_give_back(&key->totals[i],
									  &book->measures[measure], hold->id,
									  amount, all);
		}
	}
}

void
fin_meter_only_gives_back(FinMeter *meter)
{
	meter->only_gives_back = true;
}

void
fin_meter_mark(FinMeter *meter, bool undoable)
{
	ListCell   *cell;

	foreach(cell, meter->saved)
	{
		MeterKey   *key = lfirst(cell);

		pfree(key->saved);
		key->saved = NULL;
	}
	list_free(meter->saved);
	meter->saved = NIL;
	meter->undoable = undoable;
}

void
fin_meter_undo(FinMeter *meter)
{
	ListCell   *cell;

	foreach(cell, meter->saved)
	{
		MeterKey   *key = lfirst(cell);

		make_totals(meter, key, key->saved);
	}
	fin_meter_mark(meter, meter->undoable);
}

void
fin_meter_reset(FinMeter *meter)
{
	keys_iterator iterator;
	KeyEntry   *entry;

	fin_meter_mark(meter, false);
	keys_start_iterate(meter->keys, &iterator);
	while ((entry = keys_iterate(meter->keys, &iterator)) != NULL)
	{
		/* unpacked again, and what is missing read again, when it is needed */
		entry->meter_key->totals = NULL;
		entry->meter_key->changed = false;
	}
}

static bool
is_same_state(const bytea *a, const bytea *b)
{
	return a != NULL && VARSIZE(a) == VARSIZE(b) &&
		memcmp(a, b, VARSIZE(a)) == 0;
}

void
fin_meter_write(FinMeter *meter)
{
	MeterKey  **keys = palloc(sizeof(MeterKey *) * Max(meter->keys->members, 1));
	keys_iterator iterator;
	KeyEntry   *entry;
	int			n = 0;

	Assert(meter->kind == METER_POSTING);
	keys_start_iterate(meter->keys, &iterator);
	while ((entry = keys_iterate(meter->keys, &iterator)) != NULL)
	{
		MeterKey   *key = entry->meter_key;
		bytea	   *state;

		if (!key->changed)
			continue;
		key->changed = false;
		state = pack_totals(meter, key);
		if (is_same_state(key->row.state, state))
			continue;
		key->row.new_state = state;
		keys[n++] = key;
	}
	if (n > 1)
		qsort(keys, n, sizeof(MeterKey *), compare_meter_keys);
	if (n > 0)
		fin_store_write_totals(meter->tenant_id, (FinTotalRow *const *) keys, n);
	pfree(keys);
}

void
fin_meter_init(void)
{
	fin_cache_register(&measure_cache);
	fin_store_spot_init();
}
