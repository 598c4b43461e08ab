/*
 * list.c
 *		Is this account, country or device on that list?
 *
 * Owns: the short lists that this backend looked at, each with its entries in a
 * memory context of its own, below one that is emptied when there get to be too
 * many.  What operators change is in list_change.c.
 *
 * finance.risk_list has an invalidation of its own (cache.h), so a change of a
 * list does not make anybody load rules.  It is one for all lists, and a list
 * that changes every second must not make each backend read the others again
 * every second.  So a list that is out of date is at first looked up by its
 * index, which is always right, and loaded again only when that cost about as
 * much as loading it will: be the changes as frequent as they may, a list costs
 * at most twice what the better of the two ways would.
 *
 * A list longer than LIST_CACHED_MAX is never kept.  That it is long is
 * remembered whatever changes, and looked at again after LONG_PROBES look-ups.
 *
 * Takes no locks but those of reading the table.
 */
#include "postgres.h"

#include "access/skey.h"
#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "cache.h"
#include "list.h"
#include "query.h"
#include "store_direct.h"

#define LIST_CACHED_MAX		1024	/* entries of one list, */
#define ENTRIES_CACHED_MAX	65536	/* of all, */
#define LISTS_CACHED_MAX	256		/* and how many lists */
#define LISTS_LOOKED_AT		64	/* found by where their name is: rules stay */

/* an index look-up costs about as much as loading so many entries */
#define ENTRIES_PER_PROBE	8
#define LONG_PROBES			16384

/* of finance.risk_list: all, and those that are read, which come first */
#define LIST_COLUMNS		8
#define LIST_COLUMNS_READ	5

typedef struct ListKey
{
	int32		tenant_id;
	char		name[FIN_NAME_LENGTH_MAX + 1];	/* padded with zeros */
} ListKey;

typedef struct ListEntry
{
	FinListSubject subject;
	const char *value;
	TimestampTz expires_at;		/* DT_NOEND: never */
} ListEntry;

typedef struct RiskList
{
	ListKey		key;
	uint64		generation;		/* it was loaded in; 0: not yet */
	bool		is_long;		/* too long to load, when last looked at */
	int			probes;			/* by index, since it was last loaded */
	int			nentries;
	ListEntry  *entries;		/* by subject and value */
	MemoryContext memory;		/* of the entries; NULL: none yet */
} RiskList;

static FinCache list_cache = {.table = "risk_list"};
static uint64 generation = 0;	/* counts the changes that came to be known */
static MemoryContext lists_context = NULL;
static HTAB *lists = NULL;
static RiskList *looked_at[LISTS_LOOKED_AT];	/* of lists; NULL: none yet */
static int	entries_cached = 0;

static FinQuery select_entries =
{
	.sql = "SELECT subject, value, expires_at FROM finance.risk_list"
	" WHERE tenant_id = $1 AND list = $2 ORDER BY subject, value LIMIT $3",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery probe_entry =
{
	.sql = "SELECT expires_at FROM finance.risk_list"
	" WHERE tenant_id = $1 AND list = $2 AND subject = $3 AND value = $4",
	.nargs = 4,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * subjects
 * ------------------------------------------------------------------------ */

static const char *const subject_names[FIN_LIST_SUBJECTS] = {
	[FIN_LIST_ACCOUNT] = "account",
	[FIN_LIST_COUNTRY] = "country",
	[FIN_LIST_DEVICE] = "device",
};

bool
fin_list_parse_subject(const char *word, FinListSubject *subject)
{
	for (int i = 0; i < FIN_LIST_SUBJECTS; i++)
	{
		if (strcmp(word, subject_names[i]) != 0)
			continue;
		*subject = (FinListSubject) i;
		return true;
	}
	return false;
}

const char *
fin_list_subject_name(FinListSubject subject)
{
	return subject_names[subject];
}

/* ------------------------------------------------------------------------
 * the lists in memory
 * ------------------------------------------------------------------------ */

static void
forget_lists(void)
{
	HASHCTL		control = {
		.keysize = sizeof(ListKey),
		.entrysize = sizeof(RiskList),
	};

	lists = NULL;
	memset(looked_at, 0, sizeof(looked_at));
	entries_cached = 0;
	if (lists_context == NULL)
		lists_context = AllocSetContextCreate(TopMemoryContext,
											  "finance risk lists",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(lists_context);
	control.hcxt = lists_context;
	lists = hash_create("finance risk lists", 32, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* from now on, what was loaded before the last change is out of date */
static void
notice_changes(void)
{
	if (fin_cache_valid(&list_cache))
		return;
	(void) fin_cache_loading(&list_cache);
	generation++;
}

static RiskList *
find_by_key(int32 tenant_id, const char *name)
{
	ListKey		key;
	RiskList   *list;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.tenant_id = tenant_id;
	strlcpy(key.name, name, sizeof(key.name));
	list = hash_search(lists, &key, HASH_FIND, NULL);
	if (list != NULL)
		return list;
	if (hash_get_num_entries(lists) >= LISTS_CACHED_MAX)
		forget_lists();
	list = hash_search(lists, &key, HASH_ENTER, &found);
	memset((char *) list + sizeof(ListKey), 0, sizeof(RiskList) - sizeof(ListKey));
	return list;
}

static RiskList *
find_list(int32 tenant_id, const char *name)
{
	int			where = (uintptr_t) name / MAXIMUM_ALIGNOF % LISTS_LOOKED_AT;
	RiskList   *list;

	if (lists == NULL || entries_cached > ENTRIES_CACHED_MAX)
		forget_lists();
	list = looked_at[where];
	/* another name may be there by now */
	if (list != NULL && list->key.tenant_id == tenant_id &&
		strcmp(list->key.name, name) == 0)
		return list;
	list = find_by_key(tenant_id, name);
	looked_at[where] = list;
	return list;
}

static bool
is_loaded(const RiskList *list)
{
	return list->generation == generation && !list->is_long;
}

static bool
is_worth_loading(const RiskList *list)
{
	if (list->is_long)
		return list->probes >= LONG_PROBES;
	return list->probes >= list->nentries / ENTRIES_PER_PROBE;
}

/* call with the list's context current */
static void
read_entry(uint64 row, ListEntry *entry)
{
	bool		isnull;
	Datum		expires_at = fin_query_datum(row, 3, &isnull);

	if (!fin_list_parse_subject(fin_query_text(row, 1), &entry->subject))
		elog(ERROR, "unknown subject in finance.risk_list");
	entry->value = fin_query_text(row, 2);
	entry->expires_at = isnull ? DT_NOEND : DatumGetTimestampTz(expires_at);
}

static void
empty_list(RiskList *list)
{
	entries_cached -= list->nentries;
	list->nentries = 0;
	list->probes = 0;
	if (list->memory == NULL)
		list->memory = AllocSetContextCreate(lists_context,
											 "finance risk list",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(list->memory);
}

/* as it stands; the rows come sorted as its columns' collation, bytes, does */
static void
load_list(RiskList *list)
{
	Datum		values[3] = {Int32GetDatum(list->key.tenant_id),
		CStringGetTextDatum(list->key.name),
	Int64GetDatum(LIST_CACHED_MAX + 1)};
	uint64		loading = generation;
	int			n = (int) fin_query_run(&select_entries, values, NULL, 0);
	MemoryContext old;

	empty_list(list);
	list->is_long = n > LIST_CACHED_MAX;
	if (list->is_long)
		return;
	old = MemoryContextSwitchTo(list->memory);
	list->entries = palloc(sizeof(ListEntry) * Max(n, 1));
	for (int i = 0; i < n; i++)
		read_entry(i, &list->entries[i]);
	MemoryContextSwitchTo(old);
	list->nentries = n;
	entries_cached += n;
	list->generation = loading; /* only now: an ERROR above leaves no half */
}

static int
compare_entry(FinListSubject subject, const char *value,
			  const ListEntry *entry)
{
	if (subject != entry->subject)
		return subject < entry->subject ? -1 : 1;
	return strcmp(value, entry->value);
}

static bool
find_entry(const RiskList *list, FinListSubject subject, const char *value,
		   TimestampTz now)
{
	int			low = 0;
	int			high = list->nentries;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_entry(subject, value,
										  &list->entries[middle]);

		if (order == 0)
			return list->entries[middle].expires_at > now;
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * by index
 * ------------------------------------------------------------------------ */

static bool
probe_sql(Datum *values, TimestampTz now)
{
	bool		isnull;
	Datum		expires_at;

	if (fin_query_run(&probe_entry, values, NULL, 1) == 0)
		return false;
	expires_at = fin_query_datum(0, 1, &isnull);
	return isnull || DatumGetTimestampTz(expires_at) > now;
}

static bool
probe_direct(FinDirect *direct, Datum *values, TimestampTz now)
{
	ScanKeyData scan[4];
	TupleTableSlot *row;

	ScanKeyInit(&scan[0], 1, BTEqualStrategyNumber, F_INT4EQ, values[0]);
	for (int i = 1; i < 4; i++)
		ScanKeyEntryInitialize(&scan[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
							   values[i]);
	row = fin_direct_find(direct, scan, LIST_COLUMNS_READ);
	return row != NULL && (row->tts_isnull[4] ||
						   DatumGetTimestampTz(row->tts_values[4]) > now);
}

/* a snapshot of the transaction would not see what was committed since */
static bool
probe(const ListKey *key, FinListSubject subject, const char *value,
	  TimestampTz now)
{
	static const AttrNumber columns[] = {1, 2, 3, 4};	/* of its key */
	Datum		values[4] = {Int32GetDatum(key->tenant_id),
		CStringGetTextDatum(key->name),
		CStringGetTextDatum(fin_list_subject_name(subject)),
	CStringGetTextDatum(value)};
	FinDirect  *direct = NULL;
	bool		found;

	if (!IsolationUsesXactSnapshot())
		direct = fin_direct_begin_find("risk_list", "risk_list_pkey",
									   LIST_COLUMNS, columns,
									   lengthof(columns));
	if (direct == NULL)
		return probe_sql(values, now);
	found = probe_direct(direct, values, now);
	fin_direct_end(direct);
	return found;
}

/* false when it has not the form of a country's code */
static bool
capital_country(const char *value, char *country)
{
	if (strlen(value) != 2)
		return false;
	for (int i = 0; i < 3; i++)
		country[i] = pg_ascii_toupper((unsigned char) value[i]);
	return true;
}

bool
fin_list_contains(int32 tenant_id, const char *name, FinListSubject subject,
				  const char *value, TimestampTz now)
{
	RiskList   *list;
	char		country[3];

	if (subject == FIN_LIST_COUNTRY && !capital_country(value, country))
		return false;
	if (subject == FIN_LIST_COUNTRY)
		value = country;
	if (strlen(value) > FIN_LIST_VALUE_LENGTH_MAX ||
		strlen(name) > FIN_NAME_LENGTH_MAX)
		return false;
	notice_changes();
	list = find_list(tenant_id, name);
	if (!is_loaded(list) && is_worth_loading(list))
		load_list(list);
	if (is_loaded(list))
		return find_entry(list, subject, value, now);
	list->probes++;
	return probe(&list->key, subject, value, now);
}

void
fin_list_init(void)
{
	fin_cache_register(&list_cache);
}
