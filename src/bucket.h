/*
 * bucket.h
 *		Token buckets in shared memory.
 *
 * A bucket holds up to 'burst' tokens and gains 'rate' of them a second.  It
 * begins full, and a full one need not be remembered.  All is counted in whole
 * numbers of 10^-12 tokens, of which a rate in millionths of a token a second
 * is so many each microsecond: nothing is ever rounded.
 */
#ifndef FIN_BUCKET_H
#define FIN_BUCKET_H

#include "c.h"

#define FIN_BUCKET_TOKEN		INT64CONST(1000000000000)
#define FIN_BUCKET_RATE_DIGITS	6	/* decimals of a rate */
#define FIN_BUCKET_RATE_MAX		INT64CONST(1000000000000)	/* 10^6 a second */
#define FIN_BUCKET_BURST_MAX	1000000
#define FIN_BUCKETS_AT_ONCE		4	/* of which tokens are taken together */

/* what may be taken */
typedef struct FinBucketLimit
{
	int64		rate;			/* millionths of a token a second; above 0 */
	int32		burst;			/* tokens; above 0 */
} FinBucketLimit;

/* whose; of this database */
typedef struct FinBucket
{
	int64		limit_id;
	int64		subject_id;		/* among those alike before the limit, or 0 */
	FinBucketLimit limit;
} FinBucket;

/* ---- arithmetic: pure ---- */

/* what a bucket with 'level' at 'then' holds 'now'; nothing when now < then */
extern int64 fin_bucket_level_at(const FinBucketLimit *limit, int64 level,
								 int64 then_us, int64 now_us);

/* microseconds until a bucket with 'level' holds 'wanted', rounded up */
extern int64 fin_bucket_wait(const FinBucketLimit *limit, int64 level,
							 int64 wanted);

/* ---- shared memory ---- */

/* false: not preloaded, nothing can be counted */
extern bool fin_bucket_available(void);

typedef struct FinBucketRefusal
{
	int			which;			/* of those asked for: the one to wait for */
	int64		wait_us;		/* until there may be a token */
	bool		is_crowded;		/* there is no place to count in */
} FinBucketRefusal;

/*
 * Takes a token of each of n buckets, or of none: then false, and *refusal
 * tells why.  Time is the host's monotonic clock, or finance.test_clock.
 *
 * Locks: those of the buckets, in ascending order, for the time of the call.
 */
extern bool fin_bucket_take(const FinBucket *buckets, int n,
							FinBucketRefusal *refusal);

/* puts one token back, never above the burst */
extern void fin_bucket_give_back(const FinBucket *bucket);

/* what it holds now, in 10^-12 tokens */
extern int64 fin_bucket_level(const FinBucket *bucket);

extern void fin_bucket_shmem_request(void);
extern void fin_bucket_shmem_startup(void);

#endif							/* FIN_BUCKET_H */
