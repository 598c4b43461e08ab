/*
 * posting_meter.c
 *		What risk counts of the orders.
 *
 * Owns nothing between calls.
 *
 * All totals the orders are about are read at once, under the accounts' locks,
 * and counted in memory as the orders are carried out.  A transfer counts, and
 * a hold when it is made; what is captured was counted then, and what is given
 * back of a hold is taken off again.  Imported history counts as what is
 * transferred today does, in the windows of the time it was recorded.
 */
#include "postgres.h"

#include "utils/inval.h"

#include "posting_parts.h"

#define HOLD_TRIES_MAX 10

/* does the order give back what was held? */
static bool
gives_back(const FinOrder *order)
{
	return fin_posting_is_of_hold(order) &&
		(order->action != FIN_CAPTURE || order->final);
}

/* the hold, as it was counted; amount as well */
static void
fill_hold(FinPosting *posting, int i, FinMeterEvent *event)
{
	const FinHold *hold = fin_posting_find_hold(posting,
												posting->orders[i].hold_id);
	FinTransferRow made;

	if (hold == NULL)
	{
		event->from_id = 0;
		return;
	}
	event->id = hold->hold_id;
	event->amount = hold->amount;
	event->type = hold->type;
	/* its row may be detached by now: then its windows are over, but for ever */
	if (fin_meter_has_scope(posting->meter, FIN_SCOPE_DEVICE) &&
		fin_store_read_transfer(posting->context->tenant_id, hold->hold_id,
								&made, NULL, NULL, CurrentMemoryContext))
		fin_meter_take_texts(event, made.metadata);
}

static void
fill_event(FinPosting *posting, int i, FinMeterEvent *event)
{
	const FinOrder *order = &posting->orders[i];
	const FinAccount *from = fin_posting_find_locked(posting,
													 posting->from_ids[i]);

	if (order->fault != NULL || from == NULL || posting->to_ids[i] == 0 ||
		(fin_posting_is_of_hold(order) && !gives_back(order)))
		return;
	event->from_id = from->account_id;
	event->to_id = posting->to_ids[i];
	event->scale = from->scale;
	event->currency = from->currency;
	event->type = order->type;
	event->moment.at = posting->now;
	event->moment.date = posting->business_date;
	event->moment.time = posting->time_of_day;
	if (order->has_recorded_at)
	{
		event->moment.at = order->recorded_at;
		fin_context_local(posting->context->tenant_id, order->recorded_at,
						  &event->moment.date, &event->moment.time);
	}
	if (fin_posting_is_of_hold(order))
		fill_hold(posting, i, event);
	else
		fin_meter_take_texts(event, order->metadata);
}

static void
open_meter(FinPosting *posting, const FinMeasure *measures, int n)
{
	bool		counts = false;

	posting->meter = fin_meter_open(posting->context->tenant_id, measures, n);
	posting->events = MemoryContextAllocExtended(CurrentMemoryContext,
												 sizeof(FinMeterEvent) *
												 posting->norders,
												 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < posting->norders; i++)
	{
		fill_event(posting, i, &posting->events[i]);
		counts = counts || !fin_posting_is_of_hold(&posting->orders[i]);
	}
	if (!counts)
		fin_meter_only_gives_back(posting->meter);
	fin_meter_prefetch(posting->meter, posting->events, posting->norders);
}

void
fin_posting_hold_rules(FinPosting *posting)
{
	int32		tenant_id = posting->context->tenant_id;

	for (int i = 0; i < HOLD_TRIES_MAX; i++)
	{
		const FinMeasure *measures;
		int			n;

		posting->rules = fin_risk_hold(tenant_id);
		measures = fin_meter_measures(tenant_id, &n);
		if (posting->rules == NULL ||
			fin_risk_is_counted(posting->rules, measures, n))
		{
			if (n > 0)
				open_meter(posting, measures, n);
			return;
		}
		/* published between the two looks: both again */
		AcceptInvalidationMessages();
	}
	ereport(ERROR,
			errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			errmsg("risk rules are being published again and again"),
			errhint("Try again."));
}

const FinMeterEvent *
fin_posting_event(FinPosting *posting, int i, const FinMovement *movement)
{
	FinMeterEvent *event;

	if (posting->meter == NULL)
		return NULL;
	event = &posting->events[i];
	event->id = posting->ids[i];
	event->amount = movement->amount;
	return event;
}

void
fin_posting_count(FinPosting *posting, int i, const FinMovement *movement)
{
	const FinHold *hold = movement->hold;

	switch (movement->action)
	{
		case FIN_TRANSFER:
		case FIN_HOLD:
			fin_meter_count(posting->meter,
							fin_posting_event(posting, i, movement));
			break;
		case FIN_CAPTURE:
			if (movement->released > 0)
				fin_meter_give_back(posting->meter, &posting->events[i],
									movement->released, false);
			break;
		case FIN_RELEASE:
		case FIN_EXPIRE:
			fin_meter_give_back(posting->meter, &posting->events[i],
								movement->amount,
								hold->captured == 0 &&
								fin_engine_remaining(hold) == 0);
			break;
		case FIN_UNPARK:
			break;
	}
}
