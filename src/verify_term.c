/*
 * verify_term.c
 *		Do the runs of finance.audit_term have the terms of the records, all of
 *		them and no others?
 *
 * Whoever takes an entry out of a run hides a record from those who look for it
 * by trace, row, transfer or account.  So the terms of each record whose leaf
 * is right are computed anew as it passes, and a run must have exactly these
 * entries, in ascending order; runs must follow each other without a gap, from
 * leaf 0 to the last.
 *
 * Nothing is sorted or kept for that.  Entries are numbers below 2^96, and two
 * multisets of them are the same exactly where the polynomials whose roots they
 * are, the products of all (x - entry), are.  Both are evaluated at one random
 * x modulo the prime 2^127 - 1.  Where the polynomials of n entries differ, at
 * most n of the 2^127 values of x do not tell; and x is drawn from the system's
 * strong random numbers for each call, kept to itself, and not known to whoever
 * wrote the run before.  So what is overlooked is at most one in 2^107 even of
 * the best forgeries of the largest run.
 *
 * Records that are gone with their month, or are not what was sealed, which is
 * told elsewhere, have terms that nobody knows: the entries of their leaves are
 * left out of the comparison, and of leaves out of the range asked for, too.
 *
 * Owns kept plans.  Memory: its own context, until the end of the scope; 64 kB
 * of a run at a time, and up to UNKNOWN_MAX stretches of leaves not known.
 * Locks: those of a SELECT.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "port.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "audit_term.h"
#include "compat.h"
#include "query.h"
#include "verify_parts.h"

#define WINDOW_ENTRIES	5461	/* of 12 bytes: 64 kB */
#define UNKNOWN_FIRST	16		/* room for so many; doubled as needed */
#define UNKNOWN_MAX		(64 * 1024)
#define RUNS_TOLD_MAX	1000

/* aligned as palloc() does */
typedef uint128 Number;

#define PRIME	((((Number) 1) << 127) - 1)

/* leaves from 'from' until just before 'to' */
typedef struct Stretch
{
	int64		from;
	int64		to;
} Stretch;

typedef struct Entries
{
	Number		product;
	int64		n;
} Entries;

struct FinVerifyTerms
{
	ReturnSetInfo *result;
	MemoryContext memory;
	Number		x;
	int64		next;			/* leaf */

	/* the run at work, or a gap between two */
	bool		is_begun;
	bool		is_gap;
	Stretch		run;			/* its leaves */
	int64		from;			/* the first of them that is looked at */
	int32		entries;		/* as its row says */
	Datum		terms;			/* 0: null */
	Entries		wanted;			/* those of the records */
	Stretch    *unknown;		/* leaves, ascending */
	int			nunknown;
	int			max_unknown;
	bool		too_many;		/* unknown ones to keep apart */
};

static FinQuery select_run =
{
	.sql = "SELECT t.first_leaf, t.end_leaf, t.entries, t.terms"
	" FROM finance.audit_term t WHERE t.end_leaf > $1"
	" ORDER BY t.first_leaf, t.level LIMIT 1",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* of the range: those that begin before one before has ended, or are nowhere */
static FinQuery select_odd_runs =
{
	.sql = "SELECT o.first_leaf, o.end_leaf, o.least FROM (SELECT t.first_leaf,"
	" t.end_leaf, coalesce(max(t.end_leaf) OVER (ORDER BY t.first_leaf, t.level"
	" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS least"
	" FROM finance.audit_term t WHERE t.first_leaf >= t.end_leaf"
	" OR (t.end_leaf > $1 AND t.first_leaf < $2) OR t.first_leaf < 0) o"
	" WHERE o.first_leaf < o.least OR o.end_leaf <= o.first_leaf"
	" OR o.end_leaf > $3 ORDER BY 1, 2 LIMIT $4",
	.nargs = 4,
	.argtypes = {INT8OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * numbers modulo 2^127 - 1
 * ------------------------------------------------------------------------ */

static inline Number
fold(Number a)
{
	return (a & PRIME) + (a >> 127);
}

/* of numbers up to the prime; each sum below is less than 2^128 */
static inline Number
multiply(Number a, Number b)
{
	uint64		a0 = (uint64) a;
	uint64		a1 = (uint64) (a >> 64);
	uint64		b0 = (uint64) b;
	uint64		b1 = (uint64) (b >> 64);
	Number		low = (Number) a0 * b0;
	Number		middle = (Number) a0 * b1 + (Number) a1 * b0;
	Number		high = (Number) a1 * b1;

	/* 2^127 is 1, so 2^128 is 2, and the middle's bits from 63 on are whole */
	return fold(fold(2 * high + (middle >> 63) + (low >> 127)) +
				fold(((middle & (PG_UINT64_MAX >> 1)) << 64) + (low & PRIME)));
}

static Number
draw_x(void)
{
	Number		x;

	if (!pg_strong_random(&x, sizeof(x)))
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not generate random values"));
	return x & PRIME;
}

static inline void
add_entry(Entries *entries, Number x, uint64 term, uint32 leaf)
{
	Number		entry = ((Number) term << 32) | leaf;

	entries->product = multiply(entries->product,
								x >= entry ? x - entry : x + (PRIME - entry));
	entries->n++;
}

/* zero has two forms */
static bool
are_same(const Entries *one, const Entries *other)
{
	return one->n == other->n &&
		one->product % PRIME == other->product % PRIME;
}

/* ------------------------------------------------------------------------
 * leaves whose terms are not known
 * ------------------------------------------------------------------------ */

static void
keep_unknown(FinVerifyTerms *terms, int64 from, int64 to)
{
	Stretch    *last = terms->unknown + terms->nunknown - 1;

	if (terms->nunknown > 0 && last->to == from)
	{
		last->to = to;
		return;
	}
	if (terms->nunknown == UNKNOWN_MAX)
	{
		terms->too_many = true;
		return;
	}
	if (terms->nunknown == terms->max_unknown)
	{
		terms->max_unknown *= 2;
		terms->unknown = repalloc(terms->unknown,
								  sizeof(Stretch) * terms->max_unknown);
	}
	terms->unknown[terms->nunknown].from = from;
	terms->unknown[terms->nunknown++].to = to;
}

static bool
is_unknown(const FinVerifyTerms *terms, int64 leaf)
{
	int			low = 0;
	int			high = terms->nunknown;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (terms->unknown[middle].to <= leaf)
			low = middle + 1;
		else
			high = middle;
	}
	return low < terms->nunknown && terms->unknown[low].from <= leaf;
}

/* ------------------------------------------------------------------------
 * a run
 * ------------------------------------------------------------------------ */

static void
report(FinVerifyTerms *terms, int64 leaf, const char *problem,
	   const char *expected, const char *found)
{
	FinProblem	row = {0};

	row.has_leaf = true;
	row.leaf = leaf;
	row.problem = problem;
	row.expected = expected;
	row.found = found;
	fin_verify_report(terms->result, &row);
}

static void
report_run(FinVerifyTerms *terms, int64 first_leaf, const char *expected,
		   const char *found)
{
	report(terms, first_leaf,
		   psprintf("terms from leaf %lld", (long long) first_leaf),
		   expected, found);
}

static char *
leaves_text(int64 from, int64 to)
{
	return psprintf("leaves %lld to %lld", (long long) from,
					(long long) to - 1);
}

/* what a run has, as far as it is looked at; false: in no order, or elsewhere */
static bool
read_entries(FinVerifyTerms *terms, int64 length, Entries *found)
{
	int64		n = length / FIN_AUDIT_TERM_ENTRY;
	FinAuditTerm last = {0, 0};
	bool		is_right = terms->run.to - terms->run.from <= PG_UINT32_MAX;

	for (int64 start = 0; start < n; start += WINDOW_ENTRIES)
	{
		struct varlena *slice = (struct varlena *)
			PG_DETOAST_DATUM_SLICE(terms->terms, start * FIN_AUDIT_TERM_ENTRY,
								   WINDOW_ENTRIES * FIN_AUDIT_TERM_ENTRY);
		int			count = VARSIZE_ANY_EXHDR(slice) / FIN_AUDIT_TERM_ENTRY;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < count; i++)
		{
			FinAuditTerm entry;
			int64		leaf;

			fin_audit_term_get(VARDATA_ANY(slice) + i * FIN_AUDIT_TERM_ENTRY,
							   &entry);
			leaf = terms->run.from + entry.leaf;
			if (leaf >= terms->run.to || entry.term < last.term ||
				(entry.term == last.term && entry.leaf < last.leaf))
				is_right = false;
			last = entry;
			if (leaf >= terms->from && leaf < terms->next &&
				(terms->nunknown == 0 || !is_unknown(terms, leaf)))
				add_entry(found, terms->x, entry.term, entry.leaf);
		}
		pfree(slice);
	}
	return is_right;
}

static void
check_run(FinVerifyTerms *terms)
{
	int64		length = terms->terms == (Datum) 0 ? 0 :
		toast_raw_datum_size(terms->terms) - VARHDRSZ;
	Entries		found = {.product = 1};
	bool		is_right;
	const char *what = NULL;

	if (length != (int64) terms->entries * FIN_AUDIT_TERM_ENTRY)
	{
		report_run(terms, terms->run.from,
				   psprintf("%d entries", terms->entries),
				   psprintf("%lld bytes", (long long) length));
		return;
	}
	is_right = read_entries(terms, length, &found);
	if (terms->too_many)
		what = "too many of its records are missing or altered";
	else if (!are_same(&terms->wanted, &found))
		what = "not those of the records";
	else if (!is_right)
		what = "in no order, or of leaves of other runs";
	if (what != NULL)
		report_run(terms, terms->run.from,
				   psprintf("%lld entries", (long long) terms->wanted.n),
				   psprintf("%lld entries, %s", (long long) found.n, what));
}

/* nothing is told of what comes after the last leaf that is looked at */
static void
end_run(FinVerifyTerms *terms)
{
	MemoryContext caller = MemoryContextSwitchTo(terms->memory);

	if (terms->is_gap)
		report(terms, terms->from, "terms missing",
			   leaves_text(terms->from, terms->next), NULL);
	else
		check_run(terms);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(terms->memory);
	terms->is_begun = false;
}

static void
begin_run(FinVerifyTerms *terms)
{
	MemoryContext caller = MemoryContextSwitchTo(terms->memory);
	Datum		values[1] = {Int64GetDatum(terms->next)};
	bool		isnull = true;

	terms->is_begun = true;
	terms->from = terms->next;
	terms->run.from = terms->run.to = PG_INT64_MAX;
	if (fin_query_run(&select_run, values, NULL, 1) == 1)
	{
		terms->run.from = fin_query_int64(0, 1);
		terms->run.to = fin_query_int64(0, 2);
		terms->entries = DatumGetInt32(fin_query_datum(0, 3, &isnull));
		terms->terms = fin_query_datum(0, 4, &isnull);
	}
	terms->terms = isnull ? (Datum) 0 : datumCopy(terms->terms, false, -1);
	SPI_freetuptable(SPI_tuptable);
	terms->is_gap = terms->run.from > terms->next;
	if (terms->is_gap)
		terms->run.to = terms->run.from;
	terms->wanted.product = 1;
	terms->wanted.n = 0;
	terms->nunknown = 0;
	terms->max_unknown = UNKNOWN_FIRST;
	terms->unknown = palloc(sizeof(Stretch) * terms->max_unknown);
	terms->too_many = false;
	MemoryContextSwitchTo(caller);
}

/* ------------------------------------------------------------------------
 * all runs
 * ------------------------------------------------------------------------ */

static void
check_order(FinVerifyTerms *terms, int64 from, int64 to, int64 sealed)
{
	Datum		values[4] = {Int64GetDatum(from), Int64GetDatum(to),
	Int64GetDatum(sealed), Int64GetDatum(RUNS_TOLD_MAX)};
	uint64		n = fin_query_run(&select_odd_runs, values, NULL, 0);

	for (uint64 i = 0; i < n; i++)
	{
		int64		first = fin_query_int64(i, 1);

		report_run(terms, first, leaves_text(fin_query_int64(i, 3), sealed),
				   leaves_text(first, fin_query_int64(i, 2)));
	}
	SPI_freetuptable(SPI_tuptable);
}

FinVerifyTerms *
fin_verify_terms_begin(ReturnSetInfo *result, int64 from, int64 to,
					   int64 sealed)
{
	FinVerifyTerms *terms = palloc0(sizeof(FinVerifyTerms));

	terms->result = result;
	terms->memory = AllocSetContextCreate(CurrentMemoryContext,
										  "finance verify terms",
										  ALLOCSET_DEFAULT_SIZES);
	terms->x = draw_x();
	terms->next = from;
	check_order(terms, from, to, sealed);
	return terms;
}

/* on to that leaf, past some whose terms are not known */
static void
pass(FinVerifyTerms *terms, int64 leaf)
{
	while (terms->next < leaf)
	{
		int64		from = terms->next;

		CHECK_FOR_INTERRUPTS();
		if (!terms->is_begun)
			begin_run(terms);
		terms->next = Min(leaf, terms->run.to);
		if (!terms->is_gap)
			keep_unknown(terms, from, terms->next);
		if (terms->next == terms->run.to)
			end_run(terms);
	}
}

static void
add_record(FinVerifyTerms *terms, const FinAuditRow *row)
{
	uint64		of[FIN_AUDIT_TERMS_MAX];
	int			n;

	if (!terms->is_begun)
		begin_run(terms);
	if (!terms->is_gap)
	{
		n = fin_audit_terms(row, of);
		for (int i = 0; i < n; i++)
			add_entry(&terms->wanted, terms->x, of[i],
					  (uint32) (terms->next - terms->run.from));
	}
	if (++terms->next == terms->run.to)
		end_run(terms);
}

void
fin_verify_terms_add(FinVerifyTerms *terms, int64 leaf, const FinAuditRow *row)
{
	/* blocks that have a leaf twice are told as such */
	if (leaf < terms->next)
		return;
	pass(terms, row == NULL ? leaf + 1 : leaf);
	if (row != NULL)
		add_record(terms, row);
}

void
fin_verify_terms_end(FinVerifyTerms *terms, int64 to)
{
	pass(terms, to);
	if (terms->is_begun)
		end_run(terms);
}
