/*
 * ident.c
 *		Time-ordered ids, trace ids, and the clock.
 *
 * Owns one word of shared memory: the last millisecond and sequence drawn on
 * this server, which only grows, so that ids are unique and ordered even when
 * the clock steps back; and in the backend, random bytes for trace ids to come,
 * which the postmaster never draws: backends would inherit the same.
 *
 * An account may have seen an id far ahead of the clock: the clock was wrong for
 * a while, or the book came from a server whose was.  Its next ids are above
 * that one, but nobody else's, in no database, need follow: they are drawn from
 * a range of their own, and when the clock gets there, the word leaps over it.
 *
 * Without shared_preload_libraries the sequence bits
 * come from the SQL sequence finance._id_seq instead: unique as long as fewer
 * than 2^14 ids are drawn within a millisecond and the clock does not step
 * back; the primary keys refuse what would be a duplicate.
 *
 * Locks: a spinlock around the range ahead, which hardly anybody needs.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "ident.h"
#include "settings.h"

/* 2020-01-01 UTC in microseconds since 2000-01-01 */
#define FIN_EPOCH_US		INT64CONST(631152000000000)
/* 2000-01-01 UTC in milliseconds since 1970-01-01 */
#define POSTGRES_EPOCH_MS	INT64CONST(946684800000)

#define SEQUENCE_MASK		((INT64CONST(1) << FIN_ID_SEQUENCE_BITS) - 1)
#define ID_MS_MAX			((INT64CONST(1) << 41) - 1)

/*
 * Milliseconds, with room for a sequence, by which an id may pull the word
 * forward.  Half of it without the lock: who reads clock and word in that time
 * and who holds the lock then never mean the same ids.
 */
#define LEAD_MAX			(INT64CONST(60000) << FIN_ID_SEQUENCE_BITS)

#define TRACES_AT_ONCE		64

StaticAssertDecl(FIN_NODE_MAX == (1 << FIN_ID_NODE_BITS) - 1,
				 "finance.node has the range of an id's node bits");

typedef struct IdentShared
{
	pg_atomic_uint64 last;		/* ms << FIN_ID_SEQUENCE_BITS | sequence */
	pg_atomic_uint64 ahead_first;	/* of the range ahead; PG_INT64_MAX: none */
	uint64		ahead_last;
	slock_t		mutex;			/* of the range */
} IdentShared;

static IdentShared *shared = NULL;

void
fin_ident_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(IdentShared)));
}

void
fin_ident_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("finance ident", sizeof(IdentShared), &found);
	if (!found)
	{
		pg_atomic_init_u64(&shared->last, 0);
		pg_atomic_init_u64(&shared->ahead_first, PG_INT64_MAX);
		shared->ahead_last = 0;
		SpinLockInit(&shared->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

TimestampTz
fin_ident_now(void)
{
	return fin_ident_shown(GetCurrentTimestamp());
}

TimestampTz
fin_ident_shown(TimestampTz wall_clock)
{
	if (fin_test_clock == NULL || fin_test_clock[0] == '\0')
		return wall_clock;
	return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
												   CStringGetDatum(fin_test_clock),
												   ObjectIdGetDatum(InvalidOid),
												   Int32GetDatum(-1)));
}

static int64
ms_now(void)
{
	int64		ms = (GetCurrentTimestamp() - FIN_EPOCH_US) / 1000;

	if (ms < 0 || ms > ID_MS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("the server's clock is outside the range of ids"),
				errdetail("Ids cover the years 2020 to 2089."));
	return ms;
}

static int64
compose(int64 ms_and_sequence)
{
	return ((ms_and_sequence >> FIN_ID_SEQUENCE_BITS) << FIN_ID_TIME_SHIFT) |
		((int64) fin_node << FIN_ID_SEQUENCE_BITS) |
		(ms_and_sequence & SEQUENCE_MASK);
}

/* the first ms-and-sequence whose id is above 'after' */
static int64
successor(int64 after)
{
	int64		ms = after >> FIN_ID_TIME_SHIFT;
	int64		next = (ms << FIN_ID_SEQUENCE_BITS) + (after & SEQUENCE_MASK) + 1;

	/* another node's id of the same millisecond may be higher than ours */
	if (compose(next) <= after)
		next = (ms + 1) << FIN_ID_SEQUENCE_BITS;
	return next;
}

/* from the range ahead if 'least' lies there, else past it; mutex held */
static int64
draw_guarded(int64 now, int64 least)
{
	uint64		last = pg_atomic_read_u64(&shared->last);
	int64		first = (int64) pg_atomic_read_u64(&shared->ahead_first);
	int64		next;

	if (least > Max(now, (int64) last) + LEAD_MAX)
	{
		next = Max(least, (int64) shared->ahead_last + 1);
		shared->ahead_last = (uint64) next;
		pg_atomic_write_u64(&shared->ahead_first, (uint64) Min(first, next));
		return next;
	}
	do
	{
		next = Max(least, (int64) last + 1);
		if (next >= first)
			next = Max(next, (int64) shared->ahead_last + 1);
	} while (!pg_atomic_compare_exchange_u64(&shared->last, &last,
											 (uint64) next));
	return next;
}

static int64
next_shared(int64 after)
{
	int64		now = ms_now() << FIN_ID_SEQUENCE_BITS;
	int64		least = Max(now, successor(after));
	uint64		last = pg_atomic_read_u64(&shared->last);
	int64		next;

	do
	{
		next = Max(least, (int64) last + 1);
		if (least > Max(now, (int64) last) + LEAD_MAX / 2 ||
			next >= (int64) pg_atomic_read_u64(&shared->ahead_first))
		{
			SpinLockAcquire(&shared->mutex);
			next = draw_guarded(now, least);
			SpinLockRelease(&shared->mutex);
			break;
		}
	} while (!pg_atomic_compare_exchange_u64(&shared->last, &last,
											 (uint64) next));
	return compose(next);
}

static int64
next_unshared(int64 after)
{
	Oid			sequence = get_relname_relid("_id_seq",
											 get_namespace_oid("finance", false));
	int64		ms = Max(ms_now(), after >> FIN_ID_TIME_SHIFT);
	int64		low = nextval_internal(sequence, false) & SEQUENCE_MASK;
	int64		id = compose((ms << FIN_ID_SEQUENCE_BITS) | low);

	if (id <= after)
		id += INT64CONST(1) << FIN_ID_TIME_SHIFT;
	return id;
}

int64
fin_ident_next(int64 after)
{
	return shared != NULL ? next_shared(after) : next_unshared(after);
}

int64
fin_ident_past(TimestampTz when, int64 after)
{
	int64		ms = (when - FIN_EPOCH_US) / 1000;

	Assert(when >= FIN_EPOCH_US && ms <= ID_MS_MAX && after >= 0);
	return Max(compose(ms << FIN_ID_SEQUENCE_BITS), after + 1);
}

TimestampTz
fin_ident_time(int64 id)
{
	return (id >> FIN_ID_TIME_SHIFT) * 1000 + FIN_EPOCH_US;
}

/* clamped to the range of ids */
int64
fin_ident_floor(TimestampTz when)
{
	int64		ms;

	if (when <= FIN_EPOCH_US)
		return 0;
	ms = (when - FIN_EPOCH_US) / 1000;
	return ms > ID_MS_MAX ? PG_INT64_MAX : ms << FIN_ID_TIME_SHIFT;
}

/*
 * Random bytes are drawn for many ids at once: starting the generator costs as
 * much as a message, and every transaction has a trace id.
 */
static void
draw_random(unsigned char *bytes)
{
	static unsigned char drawn[TRACES_AT_ONCE][UUID_LEN];
	static int	left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(drawn, sizeof(drawn)))
			ereport(ERROR,
					errcode(ERRCODE_INTERNAL_ERROR),
					errmsg("could not generate random bytes for a trace id"));
		left = TRACES_AT_ONCE;
	}
	memcpy(bytes, drawn[--left], UUID_LEN);
}

void
fin_ident_trace(pg_uuid_t *trace)
{
	uint64		ms = GetCurrentTimestamp() / 1000 + POSTGRES_EPOCH_MS;

	draw_random(trace->data);
	for (int i = 0; i < 6; i++)
		trace->data[i] = (unsigned char) (ms >> (40 - 8 * i));
	trace->data[6] = (trace->data[6] & 0x0f) | 0x70;	/* version 7 */
	trace->data[8] = (trace->data[8] & 0x3f) | 0x80;	/* RFC 9562 variant */
}

PG_FUNCTION_INFO_V1(finance_id_time);

/* finance.id_time(id bigint): the millisecond in which an id was drawn */
Datum
finance_id_time(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(fin_ident_time(PG_GETARG_INT64(0)));
}

PG_FUNCTION_INFO_V1(finance_id_floor);

/* finance.id_floor(when timestamptz): the lowest id of a moment, for ranges */
Datum
finance_id_floor(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(fin_ident_floor(PG_GETARG_TIMESTAMPTZ(0)));
}

PG_FUNCTION_INFO_V1(finance_now);

/* finance._now() returns timestamptz: the clock of finance */
Datum
finance_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(fin_ident_now());
}
