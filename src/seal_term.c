/*
 * seal_term.c
 *		Writing what finds sealed records: runs of terms, and merging them.
 *
 * A table with an index would cost more than all the rest of sealing, several
 * random index entries for each record.  Instead each block adds a run, sorted,
 * and as soon as there are FIN_RUNS_MERGED of a level, they become one of the
 * next; one of FIN_RUN_FULL entries is not merged again.  So a record's terms
 * are written two or three times, in bulk, and there are few runs to look into.
 *
 * Owns nothing between calls but kept plans.  Memory: that of a FinSealTerms, up
 * to FIN_RUN_ENTRIES_MAX entries while merging.
 * Locks: those of INSERT and DELETE.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "compat.h"
#include "query.h"
#include "seal_parts.h"
#include "store_direct.h"

#define FIN_RUNS_MERGED		16
#define FIN_RUN_ENTRIES_MAX	(512 * 1024)
#define FIN_RUN_FULL		(FIN_RUN_ENTRIES_MAX / 2)
#define FIN_LEVEL_FULL		100	/* of runs that are not merged again */

#define FIN_TERMS_FIRST		1024	/* room for so many; doubled as needed */
#define FIN_BUCKET_BITS_MAX	16
#define FIN_INSERTION_MAX	24	/* entries sorted by insertion */

static const Oid term_types[] = {INT2OID, INT8OID, INT8OID, INT4OID, BYTEAOID};

struct FinSealTerms
{
	FinAuditTerm *kept;
	int			n;
	int			max;
};

/* ------------------------------------------------------------------------
 * sorting: terms are hashes, so one distribution by their first bits does most
 * ------------------------------------------------------------------------
 */

static int
compare_terms(const void *a, const void *b)
{
	const FinAuditTerm *one = a;
	const FinAuditTerm *other = b;

	if (one->term != other->term)
		return one->term < other->term ? -1 : 1;
	return one->leaf < other->leaf ? -1 : one->leaf > other->leaf;
}

static void
sort_few(FinAuditTerm *terms, int n)
{
	if (n > FIN_INSERTION_MAX)
	{
		qsort(terms, n, sizeof(FinAuditTerm), compare_terms);
		return;
	}
	for (int i = 1; i < n; i++)
	{
		FinAuditTerm one = terms[i];
		int			j = i;

		for (; j > 0 && compare_terms(&terms[j - 1], &one) > 0; j--)
			terms[j] = terms[j - 1];
		terms[j] = one;
	}
}

static void
sort_terms(FinAuditTerm *terms, int n)
{
	int			bits = 1;
	int		   *ends;
	FinAuditTerm *sorted;
	int			start = 0;

	while (bits < FIN_BUCKET_BITS_MAX && n >> bits > 4)
		bits++;
	ends = palloc0(sizeof(int) * (1 << bits));
	sorted = palloc(sizeof(FinAuditTerm) * Max(n, 1));
	for (int i = 0; i < n; i++)
		ends[terms[i].term >> (64 - bits)]++;
	for (int b = 0, before = 0; b < 1 << bits; b++)
	{
		int			count = ends[b];

		ends[b] = before;
		before += count;
	}
	for (int i = 0; i < n; i++)
		sorted[ends[terms[i].term >> (64 - bits)]++] = terms[i];
	for (int b = 0; b < 1 << bits; b++)
	{
		sort_few(sorted + start, ends[b] - start);
		start = ends[b];
	}
	memcpy(terms, sorted, sizeof(FinAuditTerm) * n);
	pfree(sorted);
	pfree(ends);
}

/* ------------------------------------------------------------------------
 * a run
 * ------------------------------------------------------------------------
 */

FinSealTerms *
fin_seal_begin_terms(void)
{
	FinSealTerms *terms = palloc0(sizeof(FinSealTerms));

	terms->max = FIN_TERMS_FIRST;
	terms->kept = palloc(sizeof(FinAuditTerm) * terms->max);
	return terms;
}

static void
make_room(FinSealTerms *terms, int n)
{
	if (terms->n + n <= terms->max)
		return;
	while (terms->max < terms->n + n)
		terms->max *= 2;
	terms->kept = repalloc(terms->kept, sizeof(FinAuditTerm) * terms->max);
}

void
fin_seal_keep_terms(FinSealTerms *terms, uint32 leaf, const uint64 *of, int n)
{
	make_room(terms, n);
	for (int i = 0; i < n; i++)
	{
		FinAuditTerm *term = &terms->kept[terms->n++];

		term->term = of[i];
		term->leaf = leaf;
	}
}

static Datum
as_bytes(const FinSealTerms *terms)
{
	Size		length = (Size) terms->n * FIN_AUDIT_TERM_ENTRY;
	bytea	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	for (int i = 0; i < terms->n; i++)
		fin_audit_term_put(VARDATA(value) + (Size) i * FIN_AUDIT_TERM_ENTRY,
						   &terms->kept[i]);
	return PointerGetDatum(value);
}

static void
write_run(FinSealTerms *terms, int level, int64 first_leaf, int64 end_leaf)
{
	FinDirect  *direct =
		fin_direct_begin_own(fin_query_relation("audit_term"), term_types,
							 (int) lengthof(term_types));
	Datum		values[lengthof(term_types)];
	bool		nulls[lengthof(term_types)] = {false};

	values[0] = Int16GetDatum(level);
	values[1] = Int64GetDatum(first_leaf);
	values[2] = Int64GetDatum(end_leaf);
	values[3] = Int32GetDatum(terms->n);
	values[4] = as_bytes(terms);
	fin_direct_put(direct, values, nulls);
	fin_direct_end(direct);
	pfree(DatumGetPointer(values[4]));
}

void
fin_seal_write_terms(FinSealTerms *terms, int64 first_leaf, int64 end_leaf)
{
	sort_terms(terms->kept, terms->n);
	write_run(terms, 0, first_leaf, end_leaf);
	terms->n = 0;
}

void
fin_seal_end_terms(FinSealTerms *terms)
{
	pfree(terms->kept);
	pfree(terms);
}

/* ------------------------------------------------------------------------
 * merging
 * ------------------------------------------------------------------------
 */

static FinQuery select_runs =
{
	.sql = "SELECT first_leaf, end_leaf, entries, terms FROM finance.audit_term"
	" WHERE level = $1 ORDER BY first_leaf LIMIT $2",
	.nargs = 2,
	.argtypes = {INT2OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.in_order = true,
};

static FinQuery delete_runs =
{
	.sql = "DELETE FROM finance.audit_term"
	" WHERE level = $1 AND first_leaf BETWEEN $2 AND $3",
	.nargs = 3,
	.argtypes = {INT2OID, INT8OID, INT8OID},
	.expect = SPI_OK_DELETE,
};

static int32
entries_of(uint64 row)
{
	bool		isnull;

	return DatumGetInt32(fin_query_datum(row, 3, &isnull));
}

/* does this run begin where the one before ended?  A full one may be between */
static bool
goes_on(int row)
{
	return fin_query_int64(row, 1) == fin_query_int64(row - 1, 2);
}

/* how many of the runs found fit into one: at least the first */
static int
count_fitting(int n, int64 *entries)
{
	int			fitting = 1;

	*entries = entries_of(0);
	while (fitting < n && goes_on(fitting) &&
		   *entries + entries_of(fitting) <= FIN_RUN_ENTRIES_MAX &&
		   fin_query_int64(fitting, 2) - fin_query_int64(0, 1) <= PG_UINT32_MAX)
		*entries += entries_of(fitting++);
	return fitting;
}

static void
add_run(FinSealTerms *terms, uint64 row, uint32 offset)
{
	bool		isnull;
	Datum		stored = fin_query_datum(row, 4, &isnull);
	bytea	   *bytes = DatumGetByteaPP(stored);
	int			n = VARSIZE_ANY_EXHDR(bytes) / FIN_AUDIT_TERM_ENTRY;

	make_room(terms, n);
	for (int i = 0; i < n; i++)
	{
		FinAuditTerm *term = &terms->kept[terms->n++];

		fin_audit_term_get(VARDATA_ANY(bytes) + (Size) i * FIN_AUDIT_TERM_ENTRY,
						   term);
		term->leaf += offset;
	}
	if ((Pointer) bytes != DatumGetPointer(stored))
		pfree(bytes);
}

static void
delete_merged(int level, int64 first, int64 last)
{
	Datum		values[3] = {Int16GetDatum(level), Int64GetDatum(first),
	Int64GetDatum(last)};

	fin_seal_issue_pass();
	(void) fin_query_run(&delete_runs, values, NULL, 0);
}

/* false: there are not enough of them */
static bool
merge_level(int level)
{
	Datum		values[2] = {Int16GetDatum(level), Int32GetDatum(FIN_RUNS_MERGED)};
	int			n = (int) fin_query_run(&select_runs, values, NULL, 0);
	SPITupleTable *found = SPI_tuptable;
	FinSealTerms *terms;
	int64		entries;
	int64		first;
	int64		end = 0;
	int64		last = 0;

	if (n < FIN_RUNS_MERGED)
		return false;
	n = count_fitting(n, &entries);
	first = fin_query_int64(0, 1);
	terms = fin_seal_begin_terms();
	for (int i = 0; i < n; i++)
	{
		last = fin_query_int64(i, 1);
		end = fin_query_int64(i, 2);
		add_run(terms, i, (uint32) (last - first));
	}
	SPI_freetuptable(found);
	sort_terms(terms->kept, terms->n);
	delete_merged(level, first, last);
	write_run(terms, entries >= FIN_RUN_FULL || n < 2 ? FIN_LEVEL_FULL : level + 1,
			  first, end);
	fin_seal_end_terms(terms);
	return true;
}

void
fin_seal_merge_terms(void)
{
	for (int level = 0; level < FIN_LEVEL_FULL; level++)
	{
		bool		merged = false;

		while (merge_level(level))
			merged = true;
		if (!merged)
			break;
	}
}
