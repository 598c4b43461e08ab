/*
 * gate_book.c
 *		What is paused and what is limited, kept by each backend.
 *
 * Owns: the books of up to TENANTS_CACHED_MAX tenants, in one memory context;
 * emptied when finance.transfer_pause or finance.rate_limit was changed, and
 * when more tenants come by.  Takes no locks but those of the lookups.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "amount.h"
#include "cache.h"
#include "gate_parts.h"
#include "query.h"

#define TENANTS_CACHED_MAX	16

static FinCache pause_cache = {.table = "transfer_pause"};
static FinCache limit_cache = {.table = "rate_limit"};
static MemoryContext books_context = NULL;
static FinGateBook *books[TENANTS_CACHED_MAX];
static int	nbooks = 0;
static uint64 pauses_read = 1;	/* counts each time books were forgotten */

static FinQuery select_pauses =
{
	.sql = "SELECT scope, account_id, reason, paused_at, xmin"
	" FROM finance.transfer_pause"
	" WHERE tenant_id = $1 AND scope <> 'everywhere'"
	" OR tenant_id = 0 AND scope = 'everywhere'",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery select_limits =
{
	.sql = "SELECT scope, account_id, limit_id, rate, burst"
	" FROM finance.rate_limit WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------ */

static int
compare_keys(const void *a, const void *b)
{
	FinGateKey	left = *(const FinGateKey *) a;
	FinGateKey	right = *(const FinGateKey *) b;

	return left < right ? -1 : left > right;
}

/* call with the books' context current, as for limits */
static void
read_pause(int32 tenant_id, uint64 row, FinGatePause *pause)
{
	bool		isnull;
	Datum		account = fin_query_datum(row, 2, &isnull);

	pause->scope = fin_query_text(row, 1);
	pause->key = fin_gate_scope_key(tenant_id, pause->scope,
									isnull ? 0 : DatumGetInt64(account));
	pause->reason = fin_query_text(row, 3);
	pause->since = DatumGetTimestampTz(fin_query_datum(row, 4, &isnull));
	pause->xmin = DatumGetTransactionId(fin_query_datum(row, 5, &isnull));
}

static void
read_pauses(FinGateBook *book)
{
	Datum		values[1] = {Int32GetDatum(book->tenant_id)};
	MemoryContext old;

	book->npauses = (int) fin_query_run(&select_pauses, values, NULL, 0);
	old = MemoryContextSwitchTo(books_context);
	book->pauses = palloc(sizeof(FinGatePause) * Max(book->npauses, 1));
	for (int i = 0; i < book->npauses; i++)
		read_pause(book->tenant_id, i, &book->pauses[i]);
	MemoryContextSwitchTo(old);
	qsort(book->pauses, book->npauses, sizeof(FinGatePause), compare_keys);
}

static void
read_limit(int32 tenant_id, uint64 row, FinGateLimit *limit)
{
	bool		isnull;
	Datum		account = fin_query_datum(row, 2, &isnull);
	Datum		rate;
	FinAmount	millionths;

	limit->scope = fin_query_text(row, 1);
	limit->key = fin_gate_scope_key(tenant_id, limit->scope,
									isnull ? 0 : DatumGetInt64(account));
	limit->limit_id = fin_query_int64(row, 3);
	rate = fin_query_datum(row, 4, &isnull);
	limit->rate_text = DatumGetCString(DirectFunctionCall1(numeric_out, rate));
	if (fin_amount_decode(DatumGetNumeric(rate), FIN_BUCKET_RATE_DIGITS,
						  &millionths) != FIN_AMOUNT_OK)
		elog(ERROR, "rate limit %s has a bad rate", limit->scope);
	limit->limit.rate = (int64) millionths;
	limit->limit.burst = DatumGetInt32(fin_query_datum(row, 5, &isnull));
}

static void
read_limits(FinGateBook *book)
{
	Datum		values[1] = {Int32GetDatum(book->tenant_id)};
	MemoryContext old;

	book->nlimits = (int) fin_query_run(&select_limits, values, NULL, 0);
	old = MemoryContextSwitchTo(books_context);
	book->limits = palloc(sizeof(FinGateLimit) * Max(book->nlimits, 1));
	for (int i = 0; i < book->nlimits; i++)
		read_limit(book->tenant_id, i, &book->limits[i]);
	MemoryContextSwitchTo(old);
	qsort(book->limits, book->nlimits, sizeof(FinGateLimit), compare_keys);
}

/* ------------------------------------------------------------------------
 * the books
 * ------------------------------------------------------------------------ */

static void
forget_books(void)
{
	if (books_context == NULL)
		books_context = AllocSetContextCreate(TopMemoryContext,
											  "finance pauses and rate limits",
											  ALLOCSET_SMALL_SIZES);
	MemoryContextReset(books_context);
	nbooks = 0;
	pauses_read++;
}

static FinGateBook *
load_book(int32 tenant_id)
{
	bool		is_current = fin_cache_loading(&pause_cache);
	FinGateBook *book;

	is_current &= fin_cache_loading(&limit_cache);
	if (!is_current || books_context == NULL || nbooks == TENANTS_CACHED_MAX)
		forget_books();
	book = MemoryContextAllocZero(books_context, sizeof(FinGateBook));
	book->tenant_id = tenant_id;
	read_pauses(book);
	read_limits(book);
	books[nbooks++] = book;		/* only now: an ERROR above leaves no half */
	return book;
}

const FinGateBook *
fin_gate_book(int32 tenant_id)
{
	if (fin_cache_valid(&pause_cache) && fin_cache_valid(&limit_cache))
	{
		for (int i = 0; i < nbooks; i++)
		{
			if (books[i]->tenant_id == tenant_id)
				return books[i];
		}
	}
	return load_book(tenant_id);
}

uint64
fin_gate_pauses_read(void)
{
	return fin_cache_valid(&pause_cache) ? pauses_read : 0;
}

static const void *
find_key(const void *rows, int n, Size size, FinGateKey key)
{
	return n == 0 ? NULL : bsearch(&key, rows, n, size, compare_keys);
}

const FinGatePause *
fin_gate_find_pause(const FinGateBook *book, FinGateKey key)
{
	return find_key(book->pauses, book->npauses, sizeof(FinGatePause), key);
}

const FinGateLimit *
fin_gate_find_limit(const FinGateBook *book, FinGateKey key)
{
	return find_key(book->limits, book->nlimits, sizeof(FinGateLimit), key);
}

void
fin_gate_book_init(void)
{
	fin_cache_register(&pause_cache);
	fin_cache_register(&limit_cache);
}
