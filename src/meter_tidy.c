/*
 * meter_tidy.c
 *		The worker's chore of totals that count nothing any more.
 *
 * A pair that pays once, and a device that is used once, leave a row of
 * finance.risk_total.  It may go when each window in it is over, by a day, which
 * is more than clocks step back or change: whoever pays again finds no row and
 * reads the history, which has nothing in that window either.  Totals of all
 * time, and the last device or country, are never over.
 *
 * Words: a pass goes through the table once, in the order of its key, a page in
 * each batch; the mark is the last key it has looked at.
 *
 * Owns: the mark and the times, static.  They are moved on only after the
 * commit, so nothing needs cleaning up after an error.
 *
 * Locks: the payers' accounts, which guard these rows, without waiting: what
 * somebody is just paying is left to the next pass.  So are rows that somebody
 * has locked.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "context.h"
#include "ident.h"
#include "meter_parts.h"
#include "query.h"
#include "store.h"

#define PAGE_ROWS		500
#define PASS_US			USECS_PER_DAY
#define OVER_SINCE_US	USECS_PER_DAY

typedef struct Mark
{
	int32		tenant_id;
	int64		account_id;
	int64		other_id;
	char		class[FIN_METER_CLASS_SIZE];
} Mark;

static const Mark beginning = {PG_INT32_MIN, PG_INT64_MIN, PG_INT64_MIN, ""};

static Mark mark;
static bool in_pass = false;
static TimestampTz pass_at = 0; /* the last one began; 0: none yet */

/* the batch at work: valid from run to committed */
static Mark batch_mark;
static bool batch_ends;			/* the pass */

static FinQuery select_page =
{
	.sql = "SELECT tenant_id, account_id, other_id, class"
	" FROM finance.risk_total"
	" WHERE (tenant_id, account_id, other_id, class) > ($1, $2, $3, $4)"
	" ORDER BY tenant_id, account_id, other_id, class LIMIT $5",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, INT8OID, TEXTOID, INT4OID},
	.expect = SPI_OK_SELECT,
	.in_order = true,
};

/*
 * Rows of a tenant between two keys, $2 to $4 and $5 to $7, of a pair or a
 * device, in which every window was over when the tenant's hour, day and month
 * were $8 to $10 and the time $11.
 */
#define OVER \
	" WHERE r.tenant_id = $1" \
	" AND (r.account_id, r.other_id, r.class) > ($2, $3, $4)" \
	" AND (r.account_id, r.other_id, r.class) <= ($5, $6, $7)" \
	" AND CASE WHEN r.account_id <> 0" \
	" AND (r.other_id <> 0 OR starts_with(r.class, 'device '))" \
	" THEN NOT EXISTS (SELECT FROM finance._risk_totals(r.state) t" \
	" JOIN finance.risk_measure m" \
	" ON m.tenant_id = r.tenant_id AND m.measure_id = t.measure_id" \
	" WHERE NOT CASE t.period WHEN 'hour' THEN t.bucket < $8" \
	" WHEN 'day' THEN t.bucket < $9 WHEN 'month' THEN t.bucket < $10" \
	" WHEN 'sliding' THEN t.at IS NULL OR t.at + m.span < $11" \
	" ELSE false END) ELSE false END"
#define OVER_ARGTYPES \
	INT4OID, INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID, TEXTOID, INT8OID, \
	INT8OID, INT8OID, TIMESTAMPTZOID

static FinQuery select_payers =
{
	.sql = "SELECT DISTINCT r.account_id FROM finance.risk_total r" OVER,
	.nargs = 11,
	.argtypes = {OVER_ARGTYPES},
	.expect = SPI_OK_SELECT,
};

static FinQuery delete_over =
{
	.sql = "DELETE FROM finance.risk_total WHERE ctid = ANY (ARRAY("
	"SELECT r.ctid FROM finance.risk_total r" OVER
	" AND r.account_id = ANY ($12) FOR UPDATE SKIP LOCKED))",
	.nargs = 12,
	.argtypes = {OVER_ARGTYPES, INT8ARRAYOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* ------------------------------------------------------------------------
 * one batch
 * ------------------------------------------------------------------------ */

static void
read_mark(uint64 row, Mark *key)
{
	key->tenant_id = (int32) fin_query_int64(row, 1);
	key->account_id = fin_query_int64(row, 2);
	key->other_id = fin_query_int64(row, 3);
	strlcpy(key->class, fin_query_text(row, 4), sizeof(key->class));
}

/* up to where a page goes that begins behind the mark: rows of one tenant */
static bool
find_end(Mark *start, Mark *end)
{
	Datum		values[5] = {Int32GetDatum(mark.tenant_id),
		Int64GetDatum(mark.account_id), Int64GetDatum(mark.other_id),
	CStringGetTextDatum(mark.class), Int32GetDatum(PAGE_ROWS)};
	uint64		n = fin_query_run(&select_page, values, NULL, 0);
	uint64		last = 0;

	if (n == 0)
		return false;
	*start = mark;
	if (fin_query_int64(0, 1) != mark.tenant_id)
	{
		*start = beginning;
		start->tenant_id = (int32) fin_query_int64(0, 1);
	}
	while (last + 1 < n && fin_query_int64(last + 1, 1) == start->tenant_id)
		last++;
	read_mark(last, end);
	return true;
}

static void
fill_over(const Mark *start, const Mark *end, TimestampTz over, Datum *values)
{
	FinMoment	moment = {.at = over};

	fin_context_local(start->tenant_id, over, &moment.date, &moment.time);
	values[0] = Int32GetDatum(start->tenant_id);
	values[1] = Int64GetDatum(start->account_id);
	values[2] = Int64GetDatum(start->other_id);
	values[3] = CStringGetTextDatum(start->class);
	values[4] = Int64GetDatum(end->account_id);
	values[5] = Int64GetDatum(end->other_id);
	values[6] = CStringGetTextDatum(end->class);
	values[7] = Int64GetDatum(fin_measure_bucket(FIN_PERIOD_HOUR, &moment));
	values[8] = Int64GetDatum(fin_measure_bucket(FIN_PERIOD_DAY, &moment));
	values[9] = Int64GetDatum(fin_measure_bucket(FIN_PERIOD_MONTH, &moment));
	values[10] = TimestampTzGetDatum(over);
}

/* looked at again under the locks: a statement of its own, so as it is now */
static void
delete_rows(int32 tenant_id, Datum *values)
{
	int64		ids[PAGE_ROWS];
	int64		locked[PAGE_ROWS];
	Datum		elements[PAGE_ROWS];
	int			n = (int) fin_query_run(&select_payers, values, NULL, PAGE_ROWS);

	for (int i = 0; i < n; i++)
		ids[i] = fin_query_int64(i, 1);
	if (n > 0)
		n = fin_store_try_lock_accounts(tenant_id, ids, n, locked);
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(locked[i]);
	values[11] = PointerGetDatum(construct_array(elements, n, INT8OID,
												 sizeof(int64),
												 FLOAT8PASSBYVAL,
												 TYPALIGN_DOUBLE));
	fin_query_run(&delete_over, values, NULL, 0);
}

static void
tidy_page(TimestampTz now)
{
	FinQueryScope scope;
	Mark		start;

	fin_query_begin(&scope);
	batch_ends = !find_end(&start, &batch_mark);
	if (!batch_ends)
	{
		Datum		values[12];

		fill_over(&start, &batch_mark, now - OVER_SINCE_US, values);
		delete_rows(start.tenant_id, values);
	}
	fin_query_end(&scope);
}

/* ------------------------------------------------------------------------
 * the chore
 * ------------------------------------------------------------------------ */

void
fin_meter_tidy_sweep(void)
{
	in_pass = false;
	pass_at = 0;
}

TimestampTz
fin_meter_tidy_due(TimestampTz now)
{
	if (in_pass || pass_at == 0 || now < pass_at)	/* the clock stepped back */
		return now;
	return pass_at + PASS_US;
}

/* a trigger of the owner's must not find itself run by a superuser: expire.c */
void
fin_meter_tidy_run(TimestampTz now)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);
	Oid			user;
	int			sec_context;

	if (!in_pass)
	{
		in_pass = true;
		pass_at = now;
		mark = beginning;
	}
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(user, sec_context | SECURITY_RESTRICTED_OPERATION);
	AfterTriggerSetState(immediate);
	tidy_page(fin_ident_shown(now));
	SetUserIdAndSecContext(user, sec_context);
}

void
fin_meter_tidy_committed(TimestampTz now)
{
	in_pass = !batch_ends;
	mark = batch_mark;
}
