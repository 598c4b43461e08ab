/*
 * store_spot.c
 *		Where rows of finance.risk_total were when this backend last met them.
 *
 * Looking a row up by its index costs more than reading it, and a session pays
 * from the same accounts again and again.  A row's versions begin at one place
 * for as long as its updates stay on its page (HOT).
 *
 * Owns: SPOTS hints, 96 kB from the first one on until the session ends.  A
 * key's is one of WAYS next to each other, of which the newest pushes the
 * oldest out.  All are forgotten when the table is said to have changed:
 * vacuumed, rewritten, truncated.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "cache.h"
#include "store_spot.h"

#define SPOTS	8192			/* a power of two, as this: */
#define WAYS	4

typedef struct Spot
{
	uint32		hash;			/* of its key */
	ItemPointerData root;		/* invalid: none */
} Spot;

static FinCache spot_cache = {.table = "risk_total"};
static Spot *spots = NULL;

static uint32
hash_key(int32 tenant_id, const FinTotalKey *key)
{
	int64		ids[] = {key->account_id, key->other_id, tenant_id};
	uint32		hash = hash_bytes((const unsigned char *) ids, sizeof(ids));

	if (key->class[0] == '\0')
		return hash;
	return hash_combine(hash, hash_bytes((const unsigned char *) key->class,
										 strlen(key->class)));
}

static void
forget_spots(void)
{
	(void) fin_cache_loading(&spot_cache);
	if (spots == NULL)
		spots = MemoryContextAlloc(TopMemoryContext, sizeof(Spot) * SPOTS);
	for (int i = 0; i < SPOTS; i++)
		ItemPointerSetInvalid(&spots[i].root);
}

/* the first of those it may be */
static Spot *
spots_of(uint32 hash)
{
	return &spots[hash % SPOTS / WAYS * WAYS];
}

bool
fin_store_spot_find(int32 tenant_id, const FinTotalKey *key, ItemPointer root)
{
	uint32		hash = hash_key(tenant_id, key);
	const Spot *spot;

	if (!fin_cache_valid(&spot_cache) || spots == NULL)
		return false;
	spot = spots_of(hash);
	for (int i = 0; i < WAYS; i++)
	{
		if (spot[i].hash != hash || !ItemPointerIsValid(&spot[i].root))
			continue;
		*root = spot[i].root;
		return true;
	}
	return false;
}

void
fin_store_spot_note(int32 tenant_id, const FinTotalKey *key,
					const ItemPointerData *root)
{
	uint32		hash = hash_key(tenant_id, key);
	Spot	   *spot;
	int			i = 0;

	if (!fin_cache_valid(&spot_cache) || spots == NULL)
		forget_spots();
	spot = spots_of(hash);
	while (i < WAYS - 1 && spot[i].hash != hash)
		i++;
	memmove(&spot[1], &spot[0], sizeof(Spot) * i);
	spot->hash = hash;
	spot->root = *root;
}

void
fin_store_spot_init(void)
{
	fin_cache_register(&spot_cache);
}
