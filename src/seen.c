/*
 * seen.c
 *		Sets of ids that were seen.
 *
 * The ids of a set lie in three tables, its slots.  Time is cut into periods as
 * long as the longest window; the periods fill the slots in turn.  So in each
 * period one slot has only ids that are out of their window, and the worker
 * TRUNCATEs it: rows are only ever added, and nothing is left to vacuum,
 * whatever snapshots are open.  An id that is out of its window is free at
 * once, truncated or not: it may be taken again, as another row.
 *
 * What is exact does not rest on the clock, nor on which slot a row lies in:
 * whoever takes an id first locks it, looks for it in all slots, those being
 * inserted by others included, and inserts it before unlocking.  The clock may
 * step back, and the length of a period may change.
 *
 * Locks: an exclusive lock on a hash of the id, while it is looked for and
 * inserted and never while waiting for a transaction: no two ids that share a
 * hash wait for each other longer than that.  It is of the kind of advisory
 * locks, in a class of its own, which no function of users reaches.  ROW
 * EXCLUSIVE on the slot written to until the end of the transaction; ACCESS
 * SHARE on those looked at until fin_seen_end().  The worker takes ACCESS
 * EXCLUSIVE, if it is free.
 *
 * The tables are not autovacuumed but against wraparound.  There is nothing to
 * gain, and room made among old rows would be filled with new ones: the newest
 * are to be at the end, where the worker looks for them before it truncates.
 *
 * Owns: when the worker looks next.  A FinSeen lives in the memory of the query
 * scope; an ERROR leaves its clean-up to the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "ident.h"
#include "query.h"
#include "seen.h"
#include "settings.h"
#include "store_direct.h"

#define FIN_SEEN_SLOTS			3
#define FIN_SEEN_LOCK_CLASS		64	/* 1 and 2 are those of SQL functions */
#define FIN_SEEN_INTERVAL_US	(3600 * USECS_PER_SEC)
#define FIN_SEEN_RETRY_US		(60 * USECS_PER_SEC)	/* a slot was in use */
#define FIN_SEEN_TAIL_PAGES		1024

/* columns of every slot, in the order of the table; not every set has a value */
enum
{
	SEEN_AT,
	SEEN_TENANT,
	SEEN_SLOT,
	SEEN_SCOPE,
	SEEN_ID,
	SEEN_VALUE,
	SEEN_COLUMNS_MAX
};

/* the primary key, and how many of its columns a look-up has */
static const AttrNumber key_columns[] = {
	SEEN_TENANT + 1, SEEN_SCOPE + 1, SEEN_ID + 1, SEEN_AT + 1, SEEN_SLOT + 1
};

#define KEY_COLUMNS		((int) lengthof(key_columns))
#define LOOKUP_KEYS		4

typedef struct Slot
{
	const char *table;
	const char *key;			/* its index */
	FinQuery	newest;			/* of the rows from page $1 on */
} Slot;

#define SLOT(name) \
	{ \
		.table = name, \
		.key = name "_pkey", \
		.newest = { \
			.sql = "SELECT pg_catalog.max(s.seen_at) FROM finance." name " AS s" \
			" WHERE s.ctid OPERATOR(pg_catalog.>=)" \
			" ('(' OPERATOR(pg_catalog.||) $1 OPERATOR(pg_catalog.||) ',0)')" \
			"::pg_catalog.tid", \
			.nargs = 1, \
			.argtypes = {TEXTOID}, \
			.expect = SPI_OK_SELECT, \
			.read_latest = true, \
		} \
	}

typedef struct Set
{
	int			columns;
	Oid			types[SEEN_COLUMNS_MAX];
	RegProcedure scope_equal;
	Slot		slots[FIN_SEEN_SLOTS];
} Set;

static Set	sets[] =
{
	[FIN_SEEN_DEDUP] = {
		.columns = SEEN_VALUE + 1,
		.types = {TIMESTAMPTZOID, INT4OID, INT2OID, INT8OID, TEXTOID, INT8OID},
		.scope_equal = F_INT8EQ,
		.slots = {SLOT("_dedup_0"), SLOT("_dedup_1"), SLOT("_dedup_2")},
	},
	[FIN_SEEN_INBOX] = {
		.columns = SEEN_ID + 1,
		.types = {TIMESTAMPTZOID, INT4OID, INT2OID, TEXTOID, TEXTOID},
		.scope_equal = F_TEXTEQ,
		.slots = {SLOT("inbox_0"), SLOT("inbox_1"), SLOT("inbox_2")},
	},
};

struct FinSeen
{
	FinSeenSet	which;
	int32		tenant_id;
	Datum		scope;
	int64		window_us;
	FinDirect  *probes[FIN_SEEN_SLOTS];
	FinDirect  *insert;			/* NULL before the first row */
	int			insert_slot;
};

static TimestampTz looked_at = 0;
static bool slot_in_use;		/* at the last look */

int64
fin_seen_inbox_window_us(void)
{
	return fin_inbox_retention_days * USECS_PER_DAY;
}

/* the longest window, and the length of a period */
static int64
longest_window_us(FinSeenSet which)
{
	return which == FIN_SEEN_INBOX ? fin_seen_inbox_window_us() :
		FIN_SEEN_DEDUP_MAX_S * USECS_PER_SEC;
}

/* the slot filled at a time, which with a test clock may lie before 2000 */
static int
slot_at(FinSeenSet which, TimestampTz when)
{
	int64		period = when / longest_window_us(which);
	int			slot = (int) (period % FIN_SEEN_SLOTS);

	return slot < 0 ? slot + FIN_SEEN_SLOTS : slot;
}

FinSeen *
fin_seen_begin(FinSeenSet which, int32 tenant_id, Datum scope, int64 window_us)
{
	FinSeen    *seen = palloc0(sizeof(FinSeen));

	Assert(window_us > 0 && window_us <= longest_window_us(which));
	seen->which = which;
	seen->tenant_id = tenant_id;
	seen->scope = scope;
	seen->window_us = window_us;
	for (int i = 0; i < FIN_SEEN_SLOTS; i++)
	{
		const Slot *slot = &sets[which].slots[i];

		seen->probes[i] = fin_direct_begin_probe(slot->table, slot->key,
												 sets[which].columns,
												 key_columns, KEY_COLUMNS,
												 LOOKUP_KEYS);
	}
	return seen;
}

static void
set_lock_tag(const FinSeen *seen, const char *id, LOCKTAG *tag)
{
	uint64		hash = ((uint64) seen->tenant_id << 8) | seen->which;

	if (seen->which == FIN_SEEN_INBOX)
	{
		text	   *scope = DatumGetTextPP(seen->scope);

		hash = hash_bytes_extended((unsigned char *) VARDATA_ANY(scope),
								   VARSIZE_ANY_EXHDR(scope), hash);
	}
	else
		hash ^= (uint64) DatumGetInt64(seen->scope) * UINT64CONST(0x9E3779B97F4A7C15);
	hash = hash_bytes_extended((const unsigned char *) id, strlen(id), hash);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, FIN_SEEN_LOCK_CLASS);
}

static void
set_lookup_keys(const FinSeen *seen, Datum id, TimestampTz after, ScanKey keys)
{
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(seen->tenant_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber,
				sets[seen->which].scope_equal, seen->scope);
	ScanKeyInit(&keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ, id);
	ScanKeyInit(&keys[3], 4, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				TimestampTzGetDatum(after));
}

/*
 * Was the id taken?  When not, *writer is a transaction that is taking it, or
 * InvalidTransactionId.
 */
static bool
was_taken(FinSeen *seen, ScanKey keys, TransactionId *writer, int64 *earlier)
{
	*writer = InvalidTransactionId;
	for (int i = 0; i < FIN_SEEN_SLOTS; i++)
	{
		TransactionId other;
		TupleTableSlot *row = fin_direct_probe(seen->probes[i], keys, &other);

		if (row != NULL)
		{
			if (earlier != NULL)
				*earlier = DatumGetInt64(row->tts_values[SEEN_VALUE]);
			ExecClearTuple(row);
			return true;
		}
		if (TransactionIdIsValid(other))
			*writer = other;
	}
	return false;
}

static void
insert(FinSeen *seen, Datum id, int64 value)
{
	TimestampTz now = fin_ident_now();
	int			slot = slot_at(seen->which, now);
	const Set  *set = &sets[seen->which];
	Datum		values[SEEN_COLUMNS_MAX];
	bool		nulls[SEEN_COLUMNS_MAX] = {false};

	if (seen->insert != NULL && seen->insert_slot != slot)
	{
		fin_direct_end(seen->insert);
		seen->insert = NULL;
	}
	if (seen->insert == NULL)
		seen->insert = fin_direct_begin_own(fin_query_relation(set->slots[slot].table),
											set->types, set->columns);
	seen->insert_slot = slot;
	values[SEEN_AT] = TimestampTzGetDatum(now);
	values[SEEN_TENANT] = Int32GetDatum(seen->tenant_id);
	values[SEEN_SLOT] = Int16GetDatum(slot);
	values[SEEN_SCOPE] = seen->scope;
	values[SEEN_ID] = id;
	values[SEEN_VALUE] = Int64GetDatum(value);
	fin_direct_put(seen->insert, values, nulls);
	fin_direct_flush(seen->insert);
}

bool
fin_seen_take(FinSeen *seen, const char *id, int64 value, int64 *earlier)
{
	Datum		id_datum = CStringGetTextDatum(id);
	ScanKeyData keys[LOOKUP_KEYS];
	LOCKTAG		tag;
	TransactionId writer;
	bool		taken;

	set_lock_tag(seen, id, &tag);
	set_lookup_keys(seen, id_datum, fin_ident_now() - seen->window_us, keys);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
		taken = was_taken(seen, keys, &writer, earlier);
		if (!taken && !TransactionIdIsValid(writer))
			insert(seen, id_datum, value);
		LockRelease(&tag, ExclusiveLock, false);
		if (taken || !TransactionIdIsValid(writer))
			break;
		XactLockTableWait(writer, NULL, NULL, XLTW_None);
	}
	pfree(DatumGetPointer(id_datum));
	return !taken;
}

void
fin_seen_end(FinSeen *seen)
{
	if (seen->insert != NULL)
		fin_direct_end(seen->insert);
	for (int i = 0; i < FIN_SEEN_SLOTS; i++)
		fin_direct_end(seen->probes[i]);
	pfree(seen);
}

/* ------------------------------------------------------------------------
 * truncating
 * ------------------------------------------------------------------------
 */

/* 0 also when somebody has locked it away: then it is not ours to truncate */
static BlockNumber
pages_of(Oid relid)
{
	Relation	table;
	BlockNumber pages;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return 0;
	table = table_open(relid, NoLock);
	pages = RelationGetNumberOfBlocks(table);
	table_close(table, AccessShareLock);
	return pages;
}

/* when the newest row from a page on was taken; false when there is none */
static bool
newest_from(Slot *slot, BlockNumber page, TimestampTz *newest)
{
	Datum		values[1] = {CStringGetTextDatum(psprintf("%u", page))};
	bool		isnull;
	Datum		value;

	(void) fin_query_run(&slot->newest, values, NULL, 1);
	value = fin_query_datum(0, 1, &isnull);
	*newest = isnull ? 0 : DatumGetTimestampTz(value);
	return !isnull;
}

/* rows are added at the end, so the newest is there */
static bool
has_live_rows(Slot *slot, BlockNumber pages, TimestampTz oldest_live)
{
	BlockNumber tail = pages > FIN_SEEN_TAIL_PAGES ?
		pages - FIN_SEEN_TAIL_PAGES : 0;
	TimestampTz newest;

	/* all there are rolled back?  then look further */
	if (!newest_from(slot, tail, &newest) &&
		(tail == 0 || !newest_from(slot, 0, &newest)))
		return false;
	return newest > oldest_live;
}

/*
 * Truncates the slot that is to be filled next, if its ids are out of their
 * windows.  False when it should be tried again soon: somebody uses it.
 */
static bool
truncate_next(FinSeenSet which, TimestampTz now, int *truncated)
{
	int			next = (slot_at(which, now) + 1) % FIN_SEEN_SLOTS;
	Slot	   *slot = &sets[which].slots[next];
	Oid			relid = fin_query_relation(slot->table);

	if (pages_of(relid) == 0)
		return true;
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	if (has_live_rows(slot, pages_of(relid), now - longest_window_us(which)))
		return true;
	fin_query_utility(psprintf("TRUNCATE TABLE ONLY finance.%s", slot->table));
	(*truncated)++;
	return true;
}

static int
truncate_expired(TimestampTz now)
{
	int			truncated = 0;

	slot_in_use = false;
	for (int i = 0; i < (int) lengthof(sets); i++)
	{
		if (!truncate_next(i, now, &truncated))
			slot_in_use = true;
	}
	return truncated;
}

void
fin_seen_sweep(void)
{
	looked_at = 0;
}

TimestampTz
fin_seen_due(TimestampTz now)
{
	if (looked_at == 0 || now < looked_at)	/* the clock stepped back */
		return now;
	return looked_at + (slot_in_use ? FIN_SEEN_RETRY_US : FIN_SEEN_INTERVAL_US);
}

void
fin_seen_run(TimestampTz now)
{
	FinQueryScope scope;

	fin_query_begin(&scope);
	(void) truncate_expired(now);
	fin_query_end(&scope);
}

void
fin_seen_committed(TimestampTz now)
{
	looked_at = now;
}

PG_FUNCTION_INFO_V1(finance_truncate_expired);

/*
 * finance._truncate_expired() returns integer
 *
 * What the worker does by itself, where there is none: truncates tables of
 * dedup ids and of the inbox in which every id is out of its window; returns
 * how many.  Locks: ACCESS EXCLUSIVE on them until the end of the transaction;
 * skips one that is in use.
 */
Datum
finance_truncate_expired(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	int			truncated;

	fin_query_begin(&scope);
	truncated = truncate_expired(fin_ident_now());
	fin_query_end(&scope);
	PG_RETURN_INT32(truncated);
}
