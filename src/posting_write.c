/*
 * posting_write.c
 *		Writing what was settled.
 *
 * Owns nothing between calls.
 *
 * A trigger somebody attached to finance.transfer, or to a queue, may move
 * money in its turn, and must find all that decides about it as this posting
 * leaves it: the totals of risk, what was given back of a transfer, the running
 * totals of value dates, the accounts, and the holds.  So these are written before the rows
 * that tell of them; and accounts after the former, so that a trigger on those
 * that changes an account is found out when that is written.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "alert.h"
#include "audit.h"
#include "event.h"
#include "ident.h"
#include "posting_parts.h"
#include "wake.h"

#define AUDIT_ROWS_MAX 256		/* appended at a time */

static bool
is_new(const FinPosting *posting, int i)
{
	return posting->outcomes[i].row.id != 0 && !posting->outcomes[i].replayed;
}

static void
write_transfers(FinPosting *posting)
{
	const FinTransferRow **rows = palloc(sizeof(FinTransferRow *) * posting->norders);
	int			n = 0;

	for (int i = 0; i < posting->norders; i++)
	{
		if (is_new(posting, i))
			rows[n++] = &posting->outcomes[i].row;
	}
	fin_store_write_transfers(rows, n);
}

static void
write_decisions(FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		if (posting->verdicts[i] != NULL && is_new(posting, i))
			fin_risk_record(posting->context->tenant_id,
							posting->outcomes[i].row.id, posting->verdicts[i]);
	}
}

/* a verdict of which people are told */
static const FinVerdict *
verdict_to_tell(const FinPosting *posting, int i)
{
	const FinVerdict *verdict = posting->verdicts[i];

	return verdict != NULL && verdict->outcome != FIN_RISK_PASS &&
		is_new(posting, i) ? verdict : NULL;
}

static void
raise_alerts(FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		FinOutcome *outcome = &posting->outcomes[i];
		const FinVerdict *verdict = verdict_to_tell(posting, i);

		if (verdict != NULL)
			outcome->alert_id = fin_alert_raise(posting->context,
												outcome->row.id,
												outcome->row.from_account_id,
												posting->business_date,
												verdict);
	}
}

/* a row for each journal, which names its transfers */
static void
write_journals(FinPosting *posting)
{
	int			start = 0;

	while (start < posting->norders)
	{
		int			end = fin_posting_chain_end(posting, start);
		int64	   *ids = palloc(sizeof(int64) * (end - start + 1));
		int			n = 0;

		for (int i = start; i <= end; i++)
		{
			if (posting->orders[i].in_journal && is_new(posting, i))
				ids[n++] = posting->outcomes[i].row.id;
		}
		if (n > 0)
			fin_store_write_journal(posting->context->tenant_id, ids, n,
									posting->orders[start].type,
									posting->orders[start].request);
		pfree(ids);
		start = end + 1;
	}
}

static void
write_reversals(FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinTransferRow *row = &posting->outcomes[i].row;

		if (is_new(posting, i) && row->reverses_id != 0 &&
			strcmp(row->status, "completed") == 0)
			fin_store_write_reversal(row);
	}
}

/* what counts from another time on than that of its recording */
static bool
has_value_date(const FinPosting *posting, int i)
{
	const FinTransferRow *row = &posting->outcomes[i].row;

	return row->has_effective_at && is_new(posting, i) &&
		strcmp(row->status, "completed") == 0;
}

static void
fill_value(const FinTransferRow *row, int64 account_id, FinAmount change,
		   FinValueRow *value)
{
	value->account_id = account_id;
	value->transfer_id = row->id;
	value->effective_at = row->effective_at;
	value->scale = row->scale;
	value->change = change;
}

static void
write_values(FinPosting *posting)
{
	FinValueRow *values = NULL;
	int			n = 0;

	for (int i = 0; i < posting->norders; i++)
	{
		const FinTransferRow *row = &posting->outcomes[i].row;

		if (!has_value_date(posting, i))
			continue;
		if (values == NULL)
			values = MemoryContextAllocHuge(CurrentMemoryContext,
											sizeof(FinValueRow) * 2 *
											(posting->norders - i));
		fill_value(row, row->from_account_id, -row->amount, &values[n++]);
		fill_value(row, row->to_account_id, row->amount, &values[n++]);
	}
	if (n > 0)
		fin_store_write_values(posting->context->tenant_id, values, n);
}

static void
fill_audit(const FinOrder *order, const FinOutcome *outcome,
		   const FinVerdict *verdict, int64 message_id, FinAuditRecord *record)
{
	const FinTransferRow *row = &outcome->row;

	memset(record, 0, sizeof(FinAuditRecord));
	record->operation = fin_event_operation(order);
	record->status = row->status;
	record->message_id = message_id;
	record->transfer_id = row->id;
	record->account_id = row->from_account_id;
	record->counterparty_id = row->to_account_id;
	if (!row->rejected)
	{
		record->account_version = row->moved.from.version;
		record->counterparty_version = row->moved.to.version;
	}
	record->currency = row->currency;
	record->amount = fin_amount_datum(row->amount, row->scale);
	record->balance_before = fin_amount_datum(row->moved.from.balance_before, row->scale);
	record->balance_after = fin_amount_datum(row->moved.from.balance_after, row->scale);
	record->counterparty_before = fin_amount_datum(row->moved.to.balance_before, row->scale);
	record->counterparty_after = fin_amount_datum(row->moved.to.balance_after, row->scale);
	record->request = fin_event_request_json(order, outcome);
	record->response = fin_event_response_json(outcome, verdict);
}

/* orders from *next on, as many as are appended at a time */
static void
write_some_audit(FinPosting *posting, const int64 *message_ids, int *next)
{
	FinAuditRecord *records = palloc(sizeof(FinAuditRecord) *
									 Min(AUDIT_ROWS_MAX, posting->norders));
	int			n = 0;

	for (; *next < posting->norders && n < AUDIT_ROWS_MAX; (*next)++)
	{
		if (is_new(posting, *next))
			fill_audit(&posting->orders[*next], &posting->outcomes[*next],
					   posting->verdicts[*next], message_ids[*next],
					   &records[n++]);
	}
	/* triggers, also of the records appended before, may have acted as others */
	fin_context_resume(posting->context);
	fin_audit_append(records, n);
}

static void
write_audit(FinPosting *posting, const int64 *message_ids)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext some = AllocSetContextCreate(outer, "finance audit records",
											   ALLOCSET_DEFAULT_SIZES);
	int			next = 0;

	while (next < posting->norders)
	{
		MemoryContextSwitchTo(some);
		write_some_audit(posting, message_ids, &next);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(some);
	}
	MemoryContextDelete(some);
}

/*
 * An id for each message that will be published, 0 where nobody listens, or
 * where history is imported, which happened long ago.
 */
static int64 *
draw_message_ids(FinPosting *posting)
{
	int64	   *ids = palloc0(sizeof(int64) * posting->norders);

	for (int i = 0; i < posting->norders; i++)
	{
		if (is_new(posting, i) && !posting->orders[i].has_recorded_at &&
			fin_event_has_listeners(posting->context,
									fin_event_topic(&posting->outcomes[i])))
			ids[i] = fin_ident_next(0);
	}
	return ids;
}

/* a rejected transfer is itself told of as an alert */
static void
publish_alert(FinPosting *posting, int i)
{
	const FinOutcome *outcome = &posting->outcomes[i];
	const FinVerdict *verdict = verdict_to_tell(posting, i);

	if (verdict != NULL && !outcome->row.rejected &&
		fin_event_has_listeners(posting->context, FIN_TOPIC_ALERT))
		fin_event_publish(posting->context, fin_ident_next(0), FIN_TOPIC_ALERT,
						  outcome, verdict);
}

/* what was only reported is told of as if it had passed, and then the alert */
static void
publish(FinPosting *posting, const int64 *message_ids)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinOutcome *outcome = &posting->outcomes[i];
		const FinVerdict *verdict = posting->verdicts[i];

		if (message_ids[i] != 0)
			fin_event_publish(posting->context, message_ids[i],
							  fin_event_topic(outcome), outcome,
							  verdict != NULL &&
							  verdict->outcome > FIN_RISK_REPORT ? verdict : NULL);
		publish_alert(posting, i);
	}
}

/* the worker gives them back when they are over */
static void
note_expiries(const FinPosting *posting)
{
	for (int i = 0; i < posting->nholds; i++)
	{
		const FinHold *hold = &posting->holds[i];

		if (hold->expires && (hold->is_new || hold->was_unparked))
			fin_wake_note_expiry(hold->expires_at);
	}
}

void
fin_posting_write(FinPosting *posting)
{
	int32		tenant_id = posting->context->tenant_id;
	int64	   *message_ids = draw_message_ids(posting);

	if (posting->meter != NULL)
		fin_meter_write(posting->meter);
	write_reversals(posting);
	write_values(posting);
	fin_store_write_accounts(tenant_id, posting->accounts, posting->naccounts);
	note_expiries(posting);
	fin_store_write_holds(tenant_id, posting->holds, posting->nholds);
	fin_posting_write_reviews(posting);
	write_transfers(posting);
	write_decisions(posting);
	raise_alerts(posting);
	write_journals(posting);
	write_audit(posting, message_ids);
	publish(posting, message_ids);
}
