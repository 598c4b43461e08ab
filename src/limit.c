/*
 * limit.c
 *		Which threshold has this rule for this account?
 *
 * Owns: for the tenants that came by, what limits their rules have, each
 * tenant's in a memory context of its own; invalidated with finance.rule_limit,
 * and emptied when more tenants come by than it holds.  What operators change
 * is in limit_change.c.
 *
 * A tenant's limits are kept whole up to LIMITS_CACHED_MAX.  Of a tenant with
 * more, only which rules have which kinds of them is kept (subject, and whether
 * lasting or temporary), so that a rule without any costs nothing and one with
 * some an index look-up for each kind.  That there are too many is remembered
 * whatever changes, and looked at again after LONG_PROBES look-ups.
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
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache.h"
#include "limit.h"
#include "query.h"
#include "store_direct.h"

#define TENANTS_CACHED_MAX	32
#define LIMITS_CACHED_MAX	1024
#define KINDS_CACHED_MAX	8192	/* pairs of a rule and a kind it has */
#define LONG_PROBES			16384

/* of finance.rule_limit: all, and those that are read, which come first */
#define LIMIT_COLUMNS		10
#define LIMIT_COLUMNS_READ	7

/*
 * A kind is a subject and whether lasting or temporary, numbered in the order
 * in which they are tried.
 */
#define KIND(subject, temporary)	((subject) * 2 + ((temporary) ? 0 : 1))
#define KINDS						(FIN_LIMIT_SUBJECTS * 2)
#define KIND_SUBJECT(kind)			((FinLimitSubject) ((kind) / 2))
#define KIND_TEMPORARY(kind)		((kind) % 2 == 0)
#define ALL_KINDS					((1U << KINDS) - 1)

typedef struct RuleLimit
{
	const char *rule;
	int			kind;
	const char *value;
	Numeric		threshold;
	TimestampTz expires_at;		/* DT_NOEND: lasting */
} RuleLimit;

typedef struct RuleLimits
{
	const char *rule;
	uint32		kinds;			/* bit k: it has some of kind k */
	int			first;			/* where its limits are, unless too many */
	int			nlimits;
} RuleLimits;

typedef struct LimitBook
{
	int32		tenant_id;
	uint64		generation;		/* it was loaded in; 0: not yet */
	bool		is_long;		/* too many limits to keep, */
	bool		is_unknown;		/* and too many rules to know which have some */
	int			probes;			/* by index, since limits were last counted */
	int			nlimits;
	RuleLimit  *limits;			/* by rule, kind and value */
	int			nrules;
	RuleLimits *rules;			/* that have any, by name */
	MemoryContext memory;		/* of all that */
} LimitBook;

static FinCache limit_cache = {.table = "rule_limit"};
static uint64 generation = 0;	/* counts the changes that came to be known */
static LimitBook books[TENANTS_CACHED_MAX];
static int	nbooks = 0;

static FinQuery select_limits =
{
	.sql = "SELECT rule, subject, temporary, value, threshold, expires_at"
	" FROM finance.rule_limit WHERE tenant_id = $1 LIMIT $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* from one to the next by the index, however many limits lie between */
static FinQuery select_kinds =
{
	.sql = "WITH RECURSIVE item AS ("
	"(SELECT l.rule, l.subject, l.temporary FROM finance.rule_limit l"
	" WHERE l.tenant_id = $1"
	" ORDER BY l.rule, l.subject, l.temporary LIMIT 1)"
	" UNION ALL SELECT n.rule, n.subject, n.temporary FROM item i"
	" CROSS JOIN LATERAL (SELECT l.rule, l.subject, l.temporary"
	" FROM finance.rule_limit l WHERE l.tenant_id = $1"
	" AND (l.rule, l.subject, l.temporary) > (i.rule, i.subject, i.temporary)"
	" ORDER BY l.rule, l.subject, l.temporary LIMIT 1) n)"
	" SELECT rule, subject, temporary FROM item LIMIT $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery probe_limit =
{
	.sql = "SELECT threshold, expires_at FROM finance.rule_limit"
	" WHERE tenant_id = $1 AND rule = $2 AND subject = $3 AND temporary = $4"
	" AND value = $5",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery delete_expired =
{
	.sql = "DELETE FROM finance.rule_limit WHERE ctid = ANY (ARRAY("
	"SELECT l.ctid FROM finance.rule_limit l WHERE l.tenant_id = $1"
	" AND l.expires_at <= $2 ORDER BY l.rule, l.subject, l.temporary, l.value"
	" LIMIT $3 FOR UPDATE))",
	.nargs = 3,
	.argtypes = {INT4OID, TIMESTAMPTZOID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

static const char *const subject_names[FIN_LIMIT_SUBJECTS] = {
	[FIN_LIMIT_ACCOUNT] = "account",
	[FIN_LIMIT_LEVEL] = "level",
	[FIN_LIMIT_ACCOUNT_TYPE] = "account_type",
};

const char *
fin_limit_subject_name(FinLimitSubject subject)
{
	return subject_names[subject];
}

/* ------------------------------------------------------------------------
 * the books in memory
 * ------------------------------------------------------------------------ */

static int
kind_of(const char *subject, bool temporary)
{
	for (int i = 0; i < FIN_LIMIT_SUBJECTS; i++)
	{
		if (strcmp(subject, subject_names[i]) == 0)
			return KIND(i, temporary);
	}
	elog(ERROR, "unknown subject \"%s\" in finance.rule_limit", subject);
}

static int
row_kind(uint64 row)
{
	bool		isnull;

	return kind_of(fin_query_text(row, 2),
				   DatumGetBool(fin_query_datum(row, 3, &isnull)));
}

/* call with the book's context current */
static void
read_limit(uint64 row, RuleLimit *limit)
{
	bool		isnull;
	Datum		value;

	limit->rule = fin_query_text(row, 1);
	limit->kind = row_kind(row);
	limit->value = fin_query_text(row, 4);
	limit->threshold = DatumGetNumericCopy(fin_query_datum(row, 5, &isnull));
	value = fin_query_datum(row, 6, &isnull);
	limit->expires_at = isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

static int
compare_limits(const void *a, const void *b)
{
	const RuleLimit *left = a;
	const RuleLimit *right = b;
	int			order = strcmp(left->rule, right->rule);

	if (order != 0)
		return order;
	if (left->kind != right->kind)
		return left->kind - right->kind;
	return strcmp(left->value, right->value);
}

/* the rule last added, if it is this one, else a new one */
static RuleLimits *
rule_at_end(LimitBook *book, const char *name)
{
	RuleLimits *rule = book->rules + book->nrules - 1;

	if (book->nrules > 0 && strcmp(rule->rule, name) == 0)
		return rule;
	rule = &book->rules[book->nrules++];
	memset(rule, 0, sizeof(*rule));
	rule->rule = name;
	return rule;
}

static void
read_limits(LimitBook *book, int n)
{
	book->limits = palloc(sizeof(RuleLimit) * Max(n, 1));
	book->rules = palloc(sizeof(RuleLimits) * Max(n, 1));
	for (int i = 0; i < n; i++)
		read_limit(i, &book->limits[i]);
	qsort(book->limits, n, sizeof(RuleLimit), compare_limits);
	for (int i = 0; i < n; i++)
	{
		RuleLimits *rule = rule_at_end(book, book->limits[i].rule);

		if (rule->nlimits++ == 0)
			rule->first = i;
		rule->kinds |= 1U << book->limits[i].kind;
	}
	book->nlimits = n;
}

/* they come sorted by the rule, as bytes */
static void
read_kinds(LimitBook *book, int n)
{
	book->rules = palloc(sizeof(RuleLimits) * Max(n, 1));
	for (int i = 0; i < n; i++)
		rule_at_end(book, fin_query_text(i, 1))->kinds |= 1U << row_kind(i);
}

static void
empty_book(LimitBook *book)
{
	if (book->memory == NULL)
		book->memory = AllocSetContextCreate(TopMemoryContext,
											 "finance rule limits",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(book->memory);
	book->generation = 0;
	book->nlimits = 0;
	book->nrules = 0;
}

static int
run_for_book(FinQuery *query, const LimitBook *book, int most)
{
	Datum		values[2] = {Int32GetDatum(book->tenant_id),
	Int64GetDatum(most)};

	return (int) fin_query_run(query, values, NULL, 0);
}

/* all limits; false: too many */
static bool
load_limits(LimitBook *book)
{
	int			n = run_for_book(&select_limits, book, LIMITS_CACHED_MAX + 1);
	MemoryContext old;

	book->probes = 0;
	if (n > LIMITS_CACHED_MAX)
		return false;
	old = MemoryContextSwitchTo(book->memory);
	read_limits(book, n);
	MemoryContextSwitchTo(old);
	return true;
}

static void
load_kinds(LimitBook *book)
{
	int			n = run_for_book(&select_kinds, book, KINDS_CACHED_MAX + 1);
	MemoryContext old;

	book->is_unknown = n > KINDS_CACHED_MAX;
	if (book->is_unknown)
		return;
	old = MemoryContextSwitchTo(book->memory);
	read_kinds(book, n);
	MemoryContextSwitchTo(old);
}

static void
load_book(LimitBook *book)
{
	uint64		loading = generation;

	empty_book(book);
	if (!book->is_long || book->probes >= LONG_PROBES)
		book->is_long = !load_limits(book);
	if (book->is_long)
		load_kinds(book);
	book->generation = loading; /* only now: an ERROR above leaves no half */
}

static LimitBook *
book_of(int32 tenant_id)
{
	LimitBook  *book;

	for (int i = 0; i < nbooks; i++)
	{
		if (books[i].tenant_id == tenant_id)
			return &books[i];
	}
	if (nbooks == TENANTS_CACHED_MAX)
	{
		for (int i = 0; i < nbooks; i++)
			empty_book(&books[i]);
		nbooks = 0;
	}
	book = &books[nbooks++];
	book->tenant_id = tenant_id;
	book->generation = 0;
	book->is_long = false;
	return book;
}

static LimitBook *
find_book(int32 tenant_id)
{
	LimitBook  *book;

	if (!fin_cache_valid(&limit_cache))
	{
		(void) fin_cache_loading(&limit_cache);
		generation++;			/* what was loaded before is out of date */
	}
	book = book_of(tenant_id);
	if (book->generation != generation ||
		(book->is_long && book->probes >= LONG_PROBES))
		load_book(book);
	return book;
}

/* NULL: it has no limits */
static const RuleLimits *
find_rule(const LimitBook *book, const char *name)
{
	int			low = 0;
	int			high = book->nrules;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = strcmp(name, book->rules[middle].rule);

		if (order == 0)
			return &book->rules[middle];
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* ------------------------------------------------------------------------
 * one limit
 * ------------------------------------------------------------------------ */

/* what a kind of limit is compared with; NULL: the payer has none */
static const char *
payer_value(const FinAccount *payer, int kind)
{
	switch (KIND_SUBJECT(kind))
	{
		case FIN_LIMIT_ACCOUNT:
			return payer->code;
		case FIN_LIMIT_LEVEL:
			return payer->level;
		case FIN_LIMIT_ACCOUNT_TYPE:
			return payer->type;
	}
	return NULL;
}

static Numeric
copy_of(Numeric threshold)
{
	return DatumGetNumericCopy(NumericGetDatum(threshold));
}

/* a copy: the book may be loaded anew before the caller is done with it */
static Numeric
find_kept(const LimitBook *book, const RuleLimits *rule, int kind,
		  const char *value, TimestampTz now)
{
	int			low = rule->first;
	int			high = rule->first + rule->nlimits;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		const RuleLimit *limit = &book->limits[middle];
		int			order = kind != limit->kind ? kind - limit->kind :
			strcmp(value, limit->value);

		if (order == 0)
			return limit->expires_at > now ? copy_of(limit->threshold) : NULL;
		if (order > 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static Numeric
take_found(Datum threshold, bool lasts, Datum expires_at, TimestampTz now)
{
	if (!lasts && DatumGetTimestampTz(expires_at) <= now)
		return NULL;
	return DatumGetNumericCopy(threshold);
}

static Numeric
probe_sql(Datum *values, MemoryContext memory, TimestampTz now)
{
	Datum		threshold;
	Datum		expires_at;
	bool		isnull;
	bool		lasts;
	MemoryContext old;
	Numeric		found;

	if (fin_query_run(&probe_limit, values, NULL, 1) == 0)
		return NULL;
	threshold = fin_query_datum(0, 1, &isnull);
	expires_at = fin_query_datum(0, 2, &lasts);
	old = MemoryContextSwitchTo(memory);
	found = take_found(threshold, lasts, expires_at, now);
	MemoryContextSwitchTo(old);
	return found;
}

static Numeric
probe_direct(FinDirect *direct, Datum *values, TimestampTz now)
{
	static const RegProcedure equals[] = {F_INT4EQ, F_TEXTEQ, F_TEXTEQ,
	F_BOOLEQ, F_TEXTEQ};
	ScanKeyData scan[lengthof(equals)];
	TupleTableSlot *row;

	for (int i = 0; i < (int) lengthof(equals); i++)
		ScanKeyEntryInitialize(&scan[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, equals[i] == F_TEXTEQ ?
							   C_COLLATION_OID : InvalidOid, equals[i],
							   values[i]);
	row = fin_direct_find(direct, scan, LIMIT_COLUMNS_READ);
	if (row == NULL)
		return NULL;
	return take_found(row->tts_values[5], row->tts_isnull[6],
					  row->tts_values[6], now);
}

/* a snapshot of the transaction would not see what was committed since */
static FinDirect *
begin_direct(void)
{
	static const AttrNumber columns[] = {1, 2, 3, 4, 5};	/* of its key */

	if (IsolationUsesXactSnapshot())
		return NULL;
	return fin_direct_begin_find("rule_limit", "rule_limit_pkey",
								 LIMIT_COLUMNS, columns, lengthof(columns));
}

static Numeric
probe(LimitBook *book, const char *rule, uint32 kinds,
	  const FinAccount *payer, TimestampTz now)
{
	MemoryContext memory = CurrentMemoryContext;
	FinDirect  *direct = begin_direct();
	Datum		values[5] = {Int32GetDatum(book->tenant_id),
	CStringGetTextDatum(rule)};
	Numeric		found = NULL;

	for (int kind = 0; kind < KINDS && found == NULL; kind++)
	{
		const char *value = payer_value(payer, kind);

		if ((kinds & (1U << kind)) == 0 || value == NULL)
			continue;
		values[2] = CStringGetTextDatum(subject_names[KIND_SUBJECT(kind)]);
		values[3] = BoolGetDatum(KIND_TEMPORARY(kind));
		values[4] = CStringGetTextDatum(value);
		found = direct != NULL ? probe_direct(direct, values, now) :
			probe_sql(values, memory, now);
		book->probes++;
	}
	if (direct != NULL)
		fin_direct_end(direct);
	return found;
}

Numeric
fin_limit_find(int32 tenant_id, const char *name, const FinAccount *payer,
			   TimestampTz now)
{
	LimitBook  *book = find_book(tenant_id);
	const RuleLimits *rule = find_rule(book, name);
	Numeric		found = NULL;

	if (book->is_long && (rule != NULL || book->is_unknown))
		return probe(book, name, rule != NULL ? rule->kinds : ALL_KINDS,
					 payer, now);
	if (rule == NULL)
		return NULL;
	for (int kind = 0; kind < KINDS && found == NULL; kind++)
	{
		const char *value = payer_value(payer, kind);

		if ((rule->kinds & (1U << kind)) != 0 && value != NULL)
			found = find_kept(book, rule, kind, value, now);
	}
	return found;
}

bool
fin_limit_exists(int32 tenant_id, const char *rule)
{
	const LimitBook *book = find_book(tenant_id);

	return find_rule(book, rule) != NULL ||
		(book->is_long && book->is_unknown);
}

uint64
fin_limit_state(int32 tenant_id)
{
	return find_book(tenant_id)->generation;
}

int64
fin_limit_remove_expired(int32 tenant_id, TimestampTz now, int64 most)
{
	Datum		values[3] = {Int32GetDatum(tenant_id),
		TimestampTzGetDatum(now),
	Int64GetDatum(most)};

	return most <= 0 ? 0 :
		(int64) fin_query_run(&delete_expired, values, NULL, 0);
}

void
fin_limit_init(void)
{
	fin_cache_register(&limit_cache);
}
