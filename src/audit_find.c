/*
 * audit_find.c
 *		Finding sealed records by a term: looking into the runs of
 *		finance.audit_term, see audit_term.h.
 *
 * In each run a window of entries is read about where the term must stand if
 * terms are spread evenly; where a few stand for many of the records they are
 * not, and the search goes on by halves.
 *
 * Owns kept plans only; memory is the caller's.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "audit_term.h"
#include "compat.h"
#include "errors.h"
#include "query.h"

/* entries read at a time: three chunks of a toast table */
#define FIN_WINDOW_ENTRIES	500

/* leaves of a block for which it is read as a whole */
#define FIN_FOUND_MANY		8

#define FIN_FOUND_FIRST		64	/* room for so many; doubled as needed */

typedef struct Window
{
	Datum		terms;			/* of the run, toasted */
	int64		entries;		/* in it */
	int64		start;			/* the window's first */
	int			count;			/* entries in the window */
	char	   *bytes;			/* NULL: none read yet */
	struct varlena *slice;
} Window;

typedef struct Found
{
	FinAuditFound *leaves;
	int			n;
	int			max;
} Found;

static FinQuery select_runs =
{
	.sql = "SELECT first_leaf, terms FROM finance.audit_term"
	" WHERE first_leaf < $1 AND end_leaf > $2 ORDER BY first_leaf",
	.nargs = 2,
	.argtypes = {INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_block =
{
	.sql = "SELECT b.first_leaf, b.size, l.leaves FROM (SELECT block, first_leaf,"
	" size FROM finance.audit_block WHERE size > $1 ORDER BY size LIMIT 1) AS b"
	" JOIN finance.audit_leaves AS l ON l.block = b.block",
	.nargs = 1,
	.argtypes = {INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

/* ------------------------------------------------------------------------
 * one run
 * ------------------------------------------------------------------------
 */

static FIN_NORETURN void
refuse_damaged(int64 leaf)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_DAMAGED),
			errmsg("the audit log is damaged at leaf %lld", (long long) leaf),
			errhint("SELECT * FROM finance.verify_audit()."));
}

static void
read_window(Window *window, int64 start)
{
	start = Max(Min(start, window->entries - FIN_WINDOW_ENTRIES), 0);
	if (window->slice != NULL)
		pfree(window->slice);
	window->slice = (struct varlena *)
		PG_DETOAST_DATUM_SLICE(window->terms, start * FIN_AUDIT_TERM_ENTRY,
							   FIN_WINDOW_ENTRIES * FIN_AUDIT_TERM_ENTRY);
	window->bytes = VARDATA_ANY(window->slice);
	window->start = start;
	window->count = VARSIZE_ANY_EXHDR(window->slice) / FIN_AUDIT_TERM_ENTRY;
}

static void
get_entry(Window *window, int64 i, FinAuditTerm *entry)
{
	if (window->bytes == NULL || i < window->start ||
		i >= window->start + window->count)
		read_window(window, i);
	fin_audit_term_get(window->bytes +
					   (i - window->start) * FIN_AUDIT_TERM_ENTRY, entry);
}

static bool
is_before(const FinAuditTerm *one, const FinAuditTerm *other)
{
	return one->term != other->term ? one->term < other->term :
		one->leaf < other->leaf;
}

static bool
entry_is_before(Window *window, int64 i, const FinAuditTerm *wanted)
{
	FinAuditTerm entry;

	get_entry(window, i, &entry);
	return is_before(&entry, wanted);
}

/* the first entry that is not before the wanted one */
static int64
find_entry(Window *window, const FinAuditTerm *wanted)
{
	int64		low = 0;
	int64		high = window->entries;

	if (high > 0)
	{
		int64		guess = (int64) (((unsigned __int128) wanted->term *
									  (uint64) high) >> 64);

		read_window(window, guess - FIN_WINDOW_ENTRIES / 2);
		if (!entry_is_before(window, window->start, wanted))
			high = window->start;
		else if (!entry_is_before(window, window->start + window->count - 1,
								  wanted))
		{
			low = window->start + 1;
			high = window->start + window->count - 1;
		}
		else
			low = window->start + window->count;
	}
	while (low < high)
	{
		int64		middle = low + (high - low) / 2;

		if (entry_is_before(window, middle, wanted))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
add_found(Found *found, int64 leaf)
{
	if (found->n == found->max)
	{
		found->max *= 2;
		found->leaves = repalloc_huge(found->leaves,
									  sizeof(FinAuditFound) * found->max);
	}
	found->leaves[found->n++].index = leaf;
}

static void
look_into_run(Datum terms, int64 first_leaf, uint64 term, int64 from_leaf,
			  int64 to_leaf, Found *found)
{
	Window		window = {.terms = terms};
	FinAuditTerm wanted = {term, (uint32) Max(from_leaf - first_leaf, 0)};

	window.entries = (toast_raw_datum_size(terms) - VARHDRSZ) /
		FIN_AUDIT_TERM_ENTRY;
	for (int64 i = find_entry(&window, &wanted); i < window.entries; i++)
	{
		FinAuditTerm entry;

		get_entry(&window, i, &entry);
		if (entry.term != term || first_leaf + entry.leaf >= to_leaf)
			break;
		add_found(found, first_leaf + entry.leaf);
	}
	if (window.slice != NULL)
		pfree(window.slice);
}

/* ------------------------------------------------------------------------
 * all runs
 * ------------------------------------------------------------------------
 */

static Datum
required(uint64 row, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return value;
}

/* are so many of those found, from i on, in the block that ends there? */
static bool
are_many(const Found *found, int i, int64 size)
{
	return i + FIN_FOUND_MANY < found->n &&
		(int64) found->leaves[i + FIN_FOUND_MANY].index < size;
}

/* where the records of the leaves are: a block at a time */
static void
resolve(Found *found)
{
	int64		first_leaf = 0;
	int64		size = 0;
	Datum		leaves = (Datum) 0;
	struct varlena *whole = NULL;

	for (int i = 0; i < found->n; i++)
	{
		FinAuditFound *one = &found->leaves[i];
		struct varlena *entry;

		if ((int64) one->index >= size)
		{
			Datum		values[1] = {Int64GetDatum((int64) one->index)};

			CHECK_FOR_INTERRUPTS();
			if (fin_query_run(&select_block, values, NULL, 1) == 0)
				refuse_damaged((int64) one->index);
			first_leaf = fin_query_int64(0, 1);
			size = fin_query_int64(0, 2);
			leaves = required(0, 3);
			if (whole != NULL)
				pfree(whole);
			whole = NULL;
			if (are_many(found, i, size))
			{
				whole = PG_DETOAST_DATUM_COPY(leaves);
				leaves = PointerGetDatum(whole);
			}
		}
		entry = (int64) one->index < first_leaf ? NULL : (struct varlena *)
			PG_DETOAST_DATUM_SLICE(leaves,
								   ((int64) one->index - first_leaf) * FIN_AUDIT_LEAF_ENTRY,
								   FIN_AUDIT_LEAF_ENTRY);
		if (entry == NULL || VARSIZE_ANY_EXHDR(entry) != FIN_AUDIT_LEAF_ENTRY)
			refuse_damaged((int64) one->index);
		fin_audit_leaf_get(VARDATA_ANY(entry), &one->leaf);
		pfree(entry);
	}
}

int
fin_audit_find(uint64 term, int64 from_leaf, int64 to_leaf,
			   FinAuditFound **leaves)
{
	Found		found = {.max = FIN_FOUND_FIRST};
	Datum		values[2] = {Int64GetDatum(to_leaf), Int64GetDatum(from_leaf)};
	uint64		n = fin_query_run(&select_runs, values, NULL, 0);

	found.leaves = palloc(sizeof(FinAuditFound) * found.max);
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		look_into_run(required(i, 2), fin_query_int64(i, 1), term, from_leaf,
					  to_leaf, &found);
	}
	resolve(&found);
	*leaves = found.leaves;
	return found.n;
}

PG_FUNCTION_INFO_V1(finance_audit_find);

/*
 * finance._audit_find(term bigint, from_leaf bigint, to_leaf bigint)
 *		returns table (leaf bigint, id bigint, xid xid8, sequence integer)
 *
 * The sealed records that have the term, and others that share it, of the leaves
 * from from_leaf until just before to_leaf (null: the end), in the order of the
 * log.  Reads as its statement's snapshot.  Errors: LG205 damaged.
 */
Datum
finance_audit_find(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	FinQueryScope scope;
	FinAuditFound *found;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	fin_query_begin(&scope);
	n = fin_audit_find((uint64) PG_GETARG_INT64(0), PG_GETARG_INT64(1),
					   PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2),
					   &found);
	for (int i = 0; i < n; i++)
	{
		Datum		values[4];
		bool		nulls[4] = {false};

		values[0] = Int64GetDatum((int64) found[i].index);
		values[1] = Int64GetDatum(found[i].leaf.id);
		values[2] = UInt64GetDatum(found[i].leaf.position.xid);
		values[3] = Int32GetDatum(found[i].leaf.position.sequence);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	fin_query_end(&scope);
	return (Datum) 0;
}

static int64
number_of(const char *what)
{
	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(what)));
}

PG_FUNCTION_INFO_V1(finance_audit_term);

/*
 * finance._audit_term(kind text, what text, tenant_id integer, row_key text)
 *		returns bigint
 *
 * The term of a trace, transfer or account, whose id 'what' is, or of a row of
 * the table 'what'.  Errors: 22023 another kind, 22P02 not an id.
 */
Datum
finance_audit_term(PG_FUNCTION_ARGS)
{
	char	   *kind;
	char	   *what;
	char	   *row_key;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	kind = text_to_cstring(PG_GETARG_TEXT_PP(0));
	what = text_to_cstring(PG_GETARG_TEXT_PP(1));
	row_key = PG_ARGISNULL(3) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(3));
	if (strcmp(kind, "trace") == 0)
		PG_RETURN_INT64((int64)
						fin_audit_term_trace(DatumGetUUIDP(DirectFunctionCall1(uuid_in,
																			   CStringGetDatum(what)))));
	if (strcmp(kind, "transfer") == 0)
		PG_RETURN_INT64((int64) fin_audit_term_transfer(number_of(what)));
	if (strcmp(kind, "account") == 0)
		PG_RETURN_INT64((int64) fin_audit_term_account(number_of(what)));
	if (strcmp(kind, "row") == 0)
		PG_RETURN_INT64((int64)
						fin_audit_term_key(PG_GETARG_INT32(2), what,
										   (int) strlen(what), row_key,
										   (int) strlen(row_key)));
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("kind of term \"%s\" is not known", kind),
			errhint("It is trace, transfer, account or row."));
}
