/*
 * bucket.c
 *		Token buckets in shared memory.
 *
 * Owns a set-associative table of finance.rate_limit_buckets places in shared
 * memory.  A bucket may only sit in the few places of its set, so that finding
 * it takes a constant time.  A bucket that is full again is as good as none: it
 * makes room for others.  When every place of a set is taken by a bucket that
 * is not full, no token is given to those that find none: what cannot be
 * counted is not let through.
 *
 * A restart forgets all: every bucket is full then.
 *
 * The clock is read under the lock, and never steps back: otherwise what came
 * in between two times would be gained twice.  A session with a clock of its
 * own (finance.test_clock) gains nothing from a time of the other clock.
 *
 * Locks: LOCKS LWLocks, each for the sets of one remainder.  Up to
 * FIN_BUCKETS_AT_ONCE at once, in ascending order, each once; nothing is
 * allocated and nothing can fail under them.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "bucket.h"
#include "ident.h"
#include "settings.h"

#define FIN_BUCKET_TRANCHE	"finance_bucket"
#define WAYS				8	/* places a bucket may sit in */
#define LOCKS				128

typedef struct Key
{
	int64		limit_id;
	int64		subject_id;
	Oid			database;
	uint32		unused;			/* zero: keys are compared as bytes */
} Key;

typedef struct Place
{
	Key			key;			/* limit_id 0: free */
	FinBucketLimit limit;		/* as last used */
	bool		is_test;		/* its time is that of a test clock */
	int64		level;			/* 10^-12 tokens, at the time */
	int64		time_us;
} Place;

typedef struct Now
{
	int64		us;
	bool		is_test;
} Now;

static Place *places = NULL;
static LWLockPadded *locks = NULL;
static uint32 nsets;

/* ------------------------------------------------------------------------
 * arithmetic
 * ------------------------------------------------------------------------ */

static int64
full_level(const FinBucketLimit *limit)
{
	return limit->burst * FIN_BUCKET_TOKEN;
}

int64
fin_bucket_level_at(const FinBucketLimit *limit, int64 level,
					int64 then_us, int64 now_us)
{
	int64		full = full_level(limit);
	int64		elapsed = now_us - then_us;

	if (level >= full)
		return full;
	if (elapsed <= 0)
		return level;
	/* asked so that the product below cannot overflow */
	if (elapsed > (full - level) / limit->rate)
		return full;
	return level + elapsed * limit->rate;
}

int64
fin_bucket_wait(const FinBucketLimit *limit, int64 level, int64 wanted)
{
	if (level >= wanted)
		return 0;
	return (wanted - level - 1) / limit->rate + 1;
}

/* ------------------------------------------------------------------------
 * the table
 * ------------------------------------------------------------------------ */

bool
fin_bucket_available(void)
{
	return places != NULL;
}

/* a power of two, so that the sets are */
static int
number_of_places(void)
{
	int			n = FIN_RATE_LIMIT_BUCKETS_MIN;

	while (n < fin_rate_limit_buckets)
		n *= 2;
	return n;
}

static void
fill_key(const FinBucket *bucket, Key *key)
{
	memset(key, 0, sizeof(Key));
	key->limit_id = bucket->limit_id;
	key->subject_id = bucket->subject_id;
	key->database = MyDatabaseId;
}

static uint32
set_of(const Key *key)
{
	return hash_bytes((const unsigned char *) key, sizeof(Key)) % nsets;
}

/* the test clock is read before any lock: its text may be no time */
static void
read_test_clock(Now *now)
{
	now->is_test = fin_test_clock != NULL && fin_test_clock[0] != '\0';
	now->us = now->is_test ? fin_ident_now() : 0;
}

static void
read_clock(Now *now)
{
	instr_time	time;

	if (now->is_test)
		return;
	INSTR_TIME_SET_CURRENT(time);
	now->us = (int64) INSTR_TIME_GET_MICROSEC(time);
}

static int64
level_now(const Place *place, const FinBucketLimit *limit, const Now *now)
{
	return fin_bucket_level_at(limit, place->level,
							   now->is_test == place->is_test ?
							   place->time_us : now->us, now->us);
}

static bool
is_free(const Place *place, const Now *now)
{
	return place->key.limit_id == 0 ||
		level_now(place, &place->limit, now) == full_level(&place->limit);
}

/*
 * The bucket's place, or a free one; NULL when all are taken by others, and
 * then *wait_us says when the first of them is free.
 */
static Place *
find_place(const Key *key, const Now *now, int64 *wait_us)
{
	Place	   *set = &places[set_of(key) * WAYS];
	Place	   *spare = NULL;

	*wait_us = PG_INT64_MAX;
	for (int i = 0; i < WAYS; i++)
	{
		if (memcmp(&set[i].key, key, sizeof(Key)) == 0)
			return &set[i];
		if (is_free(&set[i], now))
			spare = &set[i];
		else
			*wait_us = Min(*wait_us,
						   fin_bucket_wait(&set[i].limit,
										   level_now(&set[i], &set[i].limit, now),
										   full_level(&set[i].limit)));
	}
	return spare;
}

static bool
is_at(const Place *place, const Key *key)
{
	return memcmp(&place->key, key, sizeof(Key)) == 0;
}

/* as the limit is now: its burst and rate may have been changed */
static int64
level_in(const Place *place, const Key *key, const FinBucketLimit *limit,
		 const Now *now)
{
	return is_at(place, key) ? level_now(place, limit, now) :
		full_level(limit);
}

static void
store_level(Place *place, const Key *key, const FinBucketLimit *limit,
			const Now *now, int64 level)
{
	place->key = *key;
	place->limit = *limit;
	place->is_test = now->is_test;
	place->time_us = now->us;
	place->level = level;
}

/* ------------------------------------------------------------------------
 * locks
 * ------------------------------------------------------------------------ */

/* ascending, each once */
static int
lock_sets(const Key *keys, int n, int *held)
{
	int			nheld = 0;

	for (int i = 0; i < n; i++)
	{
		int			lock = set_of(&keys[i]) % LOCKS;
		int			at = nheld;

		while (at > 0 && held[at - 1] > lock)
			at--;
		if (at > 0 && held[at - 1] == lock)
			continue;
		memmove(&held[at + 1], &held[at], sizeof(int) * (nheld - at));
		held[at] = lock;
		nheld++;
	}
	for (int i = 0; i < nheld; i++)
		LWLockAcquire(&locks[held[i]].lock, LW_EXCLUSIVE);
	return nheld;
}

static void
unlock_sets(const int *held, int nheld)
{
	while (nheld > 0)
		LWLockRelease(&locks[held[--nheld]].lock);
}

/* ------------------------------------------------------------------------
 * take and give back
 * ------------------------------------------------------------------------ */

/* NULL: no token, and *refusal tells of the longest wait so far */
static Place *
place_with_token(const FinBucket *bucket, int which, const Key *key,
				 const Now *now, FinBucketRefusal *refusal)
{
	int64		wait_us;
	Place	   *place = find_place(key, now, &wait_us);
	bool		is_crowded = place == NULL;

	if (!is_crowded)
	{
		wait_us = fin_bucket_wait(&bucket->limit,
								  level_in(place, key, &bucket->limit, now),
								  FIN_BUCKET_TOKEN);
		if (wait_us == 0)
			return place;
	}
	if (refusal->which < 0 || wait_us > refusal->wait_us)
	{
		refusal->which = which;
		refusal->wait_us = wait_us;
		refusal->is_crowded = is_crowded;
	}
	return NULL;
}

/* all or none; the locks are held */
static bool
take_all(const FinBucket *buckets, const Key *keys, int n, const Now *now,
		 FinBucketRefusal *refusal)
{
	Place	   *taken[FIN_BUCKETS_AT_ONCE];

	for (int i = 0; i < n; i++)
	{
		const FinBucketLimit *limit = &buckets[i].limit;

		taken[i] = place_with_token(&buckets[i], i, &keys[i], now, refusal);
		if (taken[i] != NULL)
			store_level(taken[i], &keys[i], limit, now,
						level_in(taken[i], &keys[i], limit, now) -
						FIN_BUCKET_TOKEN);
	}
	if (refusal->which < 0)
		return true;
	for (int i = 0; i < n; i++)
	{
		if (taken[i] != NULL)
			taken[i]->level += FIN_BUCKET_TOKEN;
	}
	return false;
}

bool
fin_bucket_take(const FinBucket *buckets, int n, FinBucketRefusal *refusal)
{
	Key			keys[FIN_BUCKETS_AT_ONCE];
	int			held[FIN_BUCKETS_AT_ONCE];
	int			nheld;
	Now			now;
	bool		taken;

	Assert(n <= FIN_BUCKETS_AT_ONCE);
	refusal->which = -1;
	for (int i = 0; i < n; i++)
		fill_key(&buckets[i], &keys[i]);
	read_test_clock(&now);
	nheld = lock_sets(keys, n, held);
	read_clock(&now);
	taken = take_all(buckets, keys, n, &now, refusal);
	unlock_sets(held, nheld);
	return taken;
}

/* the bucket's level, with 'more' added to it; one that is not there is full */
static int64
change_level(const FinBucket *bucket, int64 more)
{
	Key			key;
	int			held[1];
	int			nheld;
	Now			now;
	int64		level = full_level(&bucket->limit);
	int64		unused;
	Place	   *place;

	fill_key(bucket, &key);
	read_test_clock(&now);
	nheld = lock_sets(&key, 1, held);
	read_clock(&now);
	place = find_place(&key, &now, &unused);
	if (place != NULL && is_at(place, &key))
	{
		level = level_now(place, &bucket->limit, &now);
		level = Min(level + more, full_level(&bucket->limit));
		if (more != 0)
			store_level(place, &key, &bucket->limit, &now, level);
	}
	unlock_sets(held, nheld);
	return level;
}

void
fin_bucket_give_back(const FinBucket *bucket)
{
	(void) change_level(bucket, FIN_BUCKET_TOKEN);
}

int64
fin_bucket_level(const FinBucket *bucket)
{
	return change_level(bucket, 0);
}

/* ------------------------------------------------------------------------
 * shared memory
 * ------------------------------------------------------------------------ */

void
fin_bucket_shmem_request(void)
{
	RequestAddinShmemSpace(mul_size(number_of_places(), sizeof(Place)));
	RequestNamedLWLockTranche(FIN_BUCKET_TRANCHE, LOCKS);
}

void
fin_bucket_shmem_startup(void)
{
	Size		size = mul_size(number_of_places(), sizeof(Place));
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(FIN_BUCKET_TRANCHE);
	nsets = number_of_places() / WAYS;
	places = ShmemInitStruct("finance buckets", size, &found);
	if (!found)
		memset(places, 0, size);
	LWLockRelease(AddinShmemInitLock);
}
