/*
 * tally.c
 *		What was sent on each NOTIFY channel, in shared memory.
 *
 * Owns a shared hash of a fixed size, by database and channel.  When it is
 * full, channels that are not in it are not counted until a worker begins
 * anew, which removes those of its database.
 *
 * Locks: one LWLock over the hash, for one entry at a time.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "tally.h"

#define FIN_TALLY_TRANCHE	"finance_tally"

typedef struct TallyKey
{
	Oid			database;
	char		channel[NAMEDATALEN];
} TallyKey;

typedef struct TallyEntry
{
	TallyKey	key;
	FinTally	tally;
} TallyEntry;

static HTAB *tallies = NULL;
static LWLock *lock = NULL;

bool
fin_tally_available(void)
{
	return tallies != NULL;
}

/* of the channel in this database; NULL when there is none, or no room */
static TallyEntry *
find_entry(const char *channel, bool make)
{
	TallyKey	key;
	bool		found;
	TallyEntry *entry;

	memset(&key, 0, sizeof(key));
	key.database = MyDatabaseId;
	strlcpy(key.channel, channel, NAMEDATALEN);
	if (make && hash_get_num_entries(tallies) >= FIN_TALLIES_MAX)
		make = false;
	entry = hash_search(tallies, &key, make ? HASH_ENTER_NULL : HASH_FIND,
						&found);
	if (entry != NULL && !found)
		memset(&entry->tally, 0, sizeof(FinTally));
	return entry;
}

void
fin_tally_begin(void)
{
	HASH_SEQ_STATUS scan;
	TallyEntry *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, tallies);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->key.database == MyDatabaseId)
			hash_search(tallies, &entry->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(lock);
}

void
fin_tally_add(const char *channel, int64 messages, bool sent, TimestampTz now)
{
	TallyEntry *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find_entry(channel, true);
	if (entry != NULL && sent)
	{
		entry->tally.notifications++;
		entry->tally.messages += messages;
		entry->tally.notified_at = now;
	}
	else if (entry != NULL)
		entry->tally.refused++;
	LWLockRelease(lock);
}

bool
fin_tally_get(const char *channel, FinTally *tally)
{
	TallyEntry *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry(channel, false);
	if (entry != NULL)
		*tally = entry->tally;
	LWLockRelease(lock);
	return entry != NULL;
}

void
fin_tally_shmem_request(void)
{
	RequestAddinShmemSpace(hash_estimate_size(FIN_TALLIES_MAX,
											  sizeof(TallyEntry)));
	RequestNamedLWLockTranche(FIN_TALLY_TRANCHE, 1);
}

void
fin_tally_shmem_startup(void)
{
	HASHCTL		ctl =
	{
		.keysize = sizeof(TallyKey),
		.entrysize = sizeof(TallyEntry),
	};

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	lock = &GetNamedLWLockTranche(FIN_TALLY_TRANCHE)->lock;
	tallies = ShmemInitHash("finance tally", FIN_TALLIES_MAX, FIN_TALLIES_MAX,
							&ctl, HASH_ELEM | HASH_BLOBS);
	LWLockRelease(AddinShmemInitLock);
}
