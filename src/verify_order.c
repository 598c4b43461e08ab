/*
 * verify_order.c
 *		Do the places of audit records follow each other?
 *
 * Two things tell of records that were deleted before they were sealed, or put
 * among others.  The records of a transaction are numbered from 1 without a
 * gap: a savepoint that is rolled back gives its numbers back.  And they are
 * appended in calls, one after the other; trace_until of a call's first record,
 * and of no other, is the id of its last.  So only what ends a transaction
 * goes unnoticed: its last calls, each as a whole.
 *
 * Owns nothing; takes no locks.
 */
#include "postgres.h"

#include "verify_parts.h"

void
fin_verify_order_begin(FinVerifyOrder *order)
{
	memset(order, 0, sizeof(*order));
	order->knows_place = true;
	order->knows_call = true;
}

/* ------------------------------------------------------------------------
 * places
 * ------------------------------------------------------------------------ */

static void
report_gap(ReturnSetInfo *result, int64 leaf, const FinAuditPosition *from,
		   int32 found, int64 id)
{
	FinProblem	problem = {0};

	problem.has_leaf = leaf >= 0;
	problem.leaf = leaf;
	problem.position = *from;
	problem.problem = "gap";
	problem.expected = from->sequence == found - 1 ?
		psprintf("sequence %d", from->sequence) :
		psprintf("sequences %d to %d", from->sequence, found - 1);
	problem.found = psprintf("sequence %d, record %lld", found,
							 (long long) id);
	fin_verify_report(result, &problem);
}

static void
report_disorder(ReturnSetInfo *result, int64 leaf, int64 id,
				const FinAuditPosition *place, const FinAuditPosition *last)
{
	FinProblem	problem = {0};

	problem.has_leaf = leaf >= 0;
	problem.leaf = leaf;
	problem.record_id = id;
	problem.position = *place;
	problem.problem = "out of order";
	problem.expected = psprintf("a place after xid " UINT64_FORMAT ", sequence %d",
								last->xid, last->sequence);
	fin_verify_report(result, &problem);
}

bool
fin_verify_place(ReturnSetInfo *result, FinVerifyOrder *order, int64 leaf,
				 int64 id, const FinAuditPosition *place, bool wanted)
{
	FinAuditPosition last = order->place;
	bool		goes_on = place->xid == last.xid;
	int64		next = goes_on ? (int64) last.sequence + 1 : 1;
	bool		known = order->knows_place;

	order->place = *place;
	order->knows_place = true;
	if (!known || (place->sequence == next && place->xid >= last.xid))
		return true;
	if (place->xid >= last.xid && place->sequence > next)
	{
		FinAuditPosition from = {place->xid, (int32) next};

		if (wanted)
			report_gap(result, leaf, &from, place->sequence, id);
		return true;
	}
	if (wanted)
		report_disorder(result, leaf, id, place, &last);
	return false;
}

/* ------------------------------------------------------------------------
 * calls
 * ------------------------------------------------------------------------ */

static void
report_call(ReturnSetInfo *result, int64 id, const FinAuditPosition *place,
			const char *expected, const char *found)
{
	FinProblem	problem = {0};

	problem.record_id = id;
	problem.position = *place;
	problem.problem = "call";
	problem.expected = expected;
	problem.found = found;
	fin_verify_report(result, &problem);
}

/* the first of the call at work does not tell its end */
static void
report_first(ReturnSetInfo *result, const FinVerifyOrder *order)
{
	if (order->first_id != 0)
		report_call(result, order->first_id, &order->first,
					psprintf("trace_until %lld", (long long) order->until),
					psprintf("last record %lld", (long long) order->last_id));
}

static void
report_last(ReturnSetInfo *result, const FinVerifyOrder *order)
{
	FinProblem	problem = {0};

	problem.record_id = order->until;
	problem.position.xid = order->last.xid;
	problem.position.sequence = order->last.sequence + 1;
	problem.problem = "missing";
	problem.expected = psprintf("the last record of the call of record %lld",
								(long long) order->first_id);
	fin_verify_report(result, &problem);
}

/* the transaction has no more records */
static void
end_transaction(ReturnSetInfo *result, FinVerifyOrder *order, bool wanted)
{
	if (order->knows_call && order->until != order->last_id && wanted)
	{
		report_first(result, order);
		if (order->until > order->last_id)
			report_last(result, order);
	}
	order->first_id = 0;
	order->until = order->last_id;
}

/* a record that begins a call before the last has ended, or none after it */
static void
check_begin(ReturnSetInfo *result, const FinVerifyOrder *order, int64 id,
			const FinAuditPosition *place, int64 until)
{
	bool		is_open = order->until != order->last_id;

	if ((until != 0) != is_open)
		return;
	report_first(result, order);
	report_call(result, id, place,
				is_open ? "no trace_until: not the first of its call" :
				"trace_until: the first of its call",
				until == 0 ? NULL :
				psprintf("trace_until %lld", (long long) until));
}

void
fin_verify_call(ReturnSetInfo *result, FinVerifyOrder *order,
				const FinAuditRow *row, bool wanted)
{
	FinAuditPosition place = fin_audit_position(row);
	int64		id = DatumGetInt64(row->values[FIN_AUDIT_ID]);
	int64		until = row->nulls[FIN_AUDIT_TRACE_UNTIL] ? 0 :
		DatumGetInt64(row->values[FIN_AUDIT_TRACE_UNTIL]);
	bool		goes_on = place.xid == order->last.xid;

	if (!goes_on)
	{
		end_transaction(result, order, wanted);
		order->knows_call = place.sequence == 1;
	}
	else if (place.sequence != (int64) order->last.sequence + 1)
		order->knows_call = false;
	if (order->knows_call && wanted)
		check_begin(result, order, id, &place, until);
	if (until != 0)
	{
		order->knows_call = true;
		order->first_id = id;
		order->first = place;
		order->until = until;
	}
	else if (order->until == order->last_id)
		order->knows_call = false;	/* until the next that begins one */
	order->last = place;
	order->last_id = id;
}

void
fin_verify_order_end(ReturnSetInfo *result, FinVerifyOrder *order)
{
	end_transaction(result, order, true);
}
