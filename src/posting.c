/*
 * posting.c
 *		The way of a set of orders: find, lock, judge, compute, write.
 *
 * Owns nothing between calls; one call's state is a FinPosting on the stack,
 * and its memory the query scope's, but for the outcomes.
 *
 * Lock order: finance.transfer; where history is imported, the tenant;
 * accounts by ascending id over the whole set, then the totals of types that
 * risk measures, then idempotency keys in ascending order.  Everything
 * that is decided is decided under the accounts' locks: versions, funds, holds,
 * risk facts, and the transfers' ids, which are above the last id of all the
 * accounts, so that an account's id order is its version order whatever the
 * clock does.
 *
 * Orders are settled one after another in memory, each seeing what those
 * before it did; an order that fails, and a chain one member of which fails,
 * is undone there.  Only then is anything written: keys first, since they
 * alone can still turn out to be taken, whereupon all is settled anew.
 *
 * A racing duplicate of a key waits for the first on the accounts' locks, then
 * finds the key taken and answers with the first's transfer.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "account.h"
#include "engine.h"
#include "errors.h"
#include "ident.h"
#include "posting_parts.h"
#include "query.h"
#include "type.h"

/* ------------------------------------------------------------------------
 * judge and compute one order
 * ------------------------------------------------------------------------ */

void
fin_posting_fail(FinPosting *posting, int i, const FinFault *fault)
{
	FinOutcome *outcome = &posting->outcomes[i];
	int			group = posting->group_of[i];
	MemoryContext old = MemoryContextSwitchTo(posting->memory);

	/* what came to nothing answers no repetition */
	if (group >= 0 && posting->groups[group].owner == i)
		posting->groups[group].owner = -1;
	outcome->row.id = 0;
	outcome->replayed = false;
	posting->verdicts[i] = NULL;
	outcome->fault = fin_fault_copy(fault);
	outcome->rule = NULL;
	/* one that was never judged is answered with the accounts it named */
	if (outcome->from_code == NULL)
		outcome->from_code = posting->orders[i].from_code;
	if (outcome->to_code == NULL)
		outcome->to_code = posting->orders[i].to_code;
	MemoryContextSwitchTo(old);
}

/* accounts, amount and hold of the order; a fault when one will not do */
static const FinFault *
start_movement(FinPosting *posting, int i, FinMovement *movement)
{
	const FinOrder *order = &posting->orders[i];
	TimeADT		time_of_day;

	memset(movement, 0, sizeof(FinMovement));
	movement->action = order->action;
	movement->from = fin_posting_find_locked(posting, posting->from_ids[i]);
	movement->to = fin_posting_find_locked(posting, posting->to_ids[i]);
	if (fin_posting_is_of_hold(order))
	{
		movement->hold = fin_posting_find_hold(posting, order->hold_id);
		/* one that appeared only after its accounts had been looked for? */
		if (movement->hold == NULL || posting->from_ids[i] == 0)
			return fin_posting_fault_unknown_hold(order->hold_id);
		if (movement->hold->status == FIN_HOLD_OPEN &&
			(movement->hold->parking != FIN_NOT_PARKED) != (order->settles != NULL))
			return fin_posting_fault_parked(movement->hold);
	}
	if (fin_posting_names_one_account(order))
		return fin_posting_fault_same(order->from_code);
	if (movement->from == NULL)
		return fin_account_fault_unknown(order->from_code, order->from_id);
	if (movement->to == NULL)
		return fin_account_fault_unknown(order->to_code, order->to_id);
	if (movement->from == movement->to)
		return fin_posting_fault_same(movement->from->code);
	movement->currency = order->currency;
	movement->expected_from_version = order->expected_from_version;
	movement->expected_to_version = order->expected_to_version;
	movement->business_date = posting->business_date;
	if (order->has_recorded_at)
		fin_context_local(posting->context->tenant_id, order->recorded_at,
						  &movement->business_date, &time_of_day);
	movement->now = posting->now;
	movement->up_to = order->up_to;
	movement->final = order->final;
	if (order->closing_id != 0)
		movement->closing = fin_posting_find_locked(posting, order->closing_id);
	movement->everything = order->amount == NULL;
	if (movement->everything)
		return NULL;
	return fin_amount_fault(order->amount, movement->from->scale,
							movement->from->currency, "amount",
							&movement->amount);
}

static const char *
status_of(const FinMovement *movement)
{
	switch (movement->action)
	{
		case FIN_TRANSFER:
		case FIN_CAPTURE:
			return "completed";
		case FIN_HOLD:
			return "held";
		case FIN_RELEASE:
			return "released";
		case FIN_EXPIRE:
			return "expired";
		case FIN_UNPARK:
			return "approved";
	}
	elog(ERROR, "unknown action %d", (int) movement->action);
}

static void
fill_row(const FinPosting *posting, int i, const FinMovement *movement,
		 FinTransferRow *row)
{
	const FinOrder *order = &posting->orders[i];

	row->id = posting->ids[i];
	row->tenant_id = posting->context->tenant_id;
	row->from_account_id = movement->from->account_id;
	row->to_account_id = movement->to->account_id;
	if (fin_posting_is_of_hold(order))
		row->hold_id = order->hold_id;
	else if (order->action == FIN_HOLD)
		row->hold_id = row->id;
	row->reverses_id = order->reverses_id;
	row->scale = movement->from->scale;
	row->amount = movement->amount;
	row->released = movement->released;
	row->recorded_at = order->has_recorded_at ? order->recorded_at :
		posting->recorded_at;
	row->effective_at = order->effective_at;
	row->has_effective_at = order->has_effective_at;
	row->trace_id = posting->context->trace_id;
	row->type = order->type != NULL ? order->type : movement->hold->type;
	row->currency = movement->from->currency;
	row->reference = order->reference;
	row->metadata = order->metadata;
	row->status = status_of(movement);
}

/* a new hold, as the movement will make it */
static FinHold *
make_hold(FinPosting *posting, int i, const FinMovement *movement)
{
	const FinOrder *order = &posting->orders[i];
	FinHold    *hold = &posting->holds[posting->nholds++];

	memset(hold, 0, sizeof(FinHold));
	hold->hold_id = posting->ids[i];
	hold->from_account_id = movement->from->account_id;
	hold->to_account_id = movement->to->account_id;
	hold->scale = movement->from->scale;
	hold->expires = order->expires_at != 0;
	hold->expires_at = order->expires_at;
	hold->type = order->type;
	hold->held_on = posting->business_date;
	hold->amount = movement->amount;
	hold->is_new = true;
	hold->hold_group = order->hold_group;
	return hold;
}

static void
note_remaining(FinOutcome *outcome, const FinHold *hold)
{
	outcome->has_remaining = true;
	outcome->remaining = fin_engine_remaining(hold);
}

/* a verdict that is recorded with its transfer */
static void
keep_verdict(FinPosting *posting, int i, const FinVerdict *verdict)
{
	FinVerdict *kept;

	if (verdict->inputs == NULL)
		return;
	kept = palloc(sizeof(FinVerdict));
	*kept = *verdict;
	posting->verdicts[i] = kept;
	if (kept->outcome > FIN_RISK_REPORT && kept->rule != NULL)
		posting->outcomes[i].rule = MemoryContextStrdup(posting->memory,
														kept->rule);
}

static void
reject(FinPosting *posting, int i, const FinMovement *movement)
{
	FinOutcome *outcome = &posting->outcomes[i];

	outcome->row.rejected = true;
	outcome->row.status = "rejected";
	/* there is no such hold */
	outcome->row.hold_id = 0;
	fin_engine_leave(movement, &outcome->row.moved);
}

/* what is taken from a hold was judged when it was held; history is history */
static bool
needs_judgement(const FinOrder *order)
{
	return !fin_posting_is_of_hold(order) && !order->has_recorded_at;
}

/* where nothing is counted: what lists may be asked about */
static void
fill_event(const FinPosting *posting, int i, const FinMovement *movement,
		   FinMeterEvent *event)
{
	const FinOrder *order = &posting->orders[i];

	memset(event, 0, sizeof(FinMeterEvent));
	event->id = posting->ids[i];
	event->from_id = movement->from->account_id;
	event->to_id = movement->to->account_id;
	event->scale = movement->from->scale;
	event->type = order->type;
	event->currency = movement->from->currency;
	event->moment.at = posting->now;
	event->moment.date = posting->business_date;
	event->moment.time = posting->time_of_day;
	event->amount = movement->amount;
	fin_meter_take_texts(event, order->metadata);
}

static void
judge(FinPosting *posting, int i, const FinMovement *movement,
	  FinVerdict *verdict)
{
	const FinOrder *order = &posting->orders[i];
	FinRiskSubject subject;

	subject.tenant_id = posting->context->tenant_id;
	subject.book = posting->rules;
	subject.movement = movement;
	subject.type = order->type;
	subject.reference = order->reference;
	subject.metadata = order->metadata;
	subject.is_reversal = order->reverses_id != 0;
	subject.meter = posting->meter;
	if (posting->meter != NULL)
		subject.event = *fin_posting_event(posting, i, movement);
	else
		fill_event(posting, i, movement, &subject.event);
	subject.nparked = posting->nparked;
	subject.parked = posting->parked;
	fin_risk_judge(&subject, verdict);
}

/* a member of a chain would be done without the others */
static bool
may_park(const FinOrder *order, bool in_chain)
{
	return !in_chain && !order->in_journal;
}

static bool
is_to_park(const FinVerdict *verdict)
{
	return verdict->outcome == FIN_RISK_CHALLENGE ||
		verdict->outcome == FIN_RISK_REVIEW;
}

/*
 * The payer has been active: that is what he paid himself, not what he got or
 * got back, nor what nobody has confirmed yet.
 */
static void
note_debit(FinMovement *movement, int64 id)
{
	switch (movement->action)
	{
		case FIN_TRANSFER:
		case FIN_HOLD:
		case FIN_CAPTURE:
		case FIN_UNPARK:
			movement->from->last_debit_id = id;
			break;
		case FIN_RELEASE:
		case FIN_EXPIRE:
			break;
	}
}

static void
carry_out(FinPosting *posting, int i, FinMovement *movement)
{
	const FinOrder *order = &posting->orders[i];
	FinOutcome *outcome = &posting->outcomes[i];

	fin_engine_post(movement, &outcome->row.moved);
	movement->from->last_transfer_id = outcome->row.id;
	movement->to->last_transfer_id = outcome->row.id;
	if (movement->action == FIN_HOLD)
		movement->hold = make_hold(posting, i, movement);
	if (movement->action == FIN_UNPARK)
	{
		movement->hold->expires = order->expires_at != 0;
		movement->hold->expires_at = order->expires_at;
	}
	if (movement->hold != NULL)
		note_remaining(outcome, movement->hold);
	if (posting->meter != NULL)
		fin_posting_count(posting, i, movement);
}

/* could there be more room for it?  history did without */
static bool
wants_room(const FinOrder *order, const FinMovement *movement,
		   FinFinding finding)
{
	FinAmount	asked;

	if (fin_posting_is_of_hold(order) || order->has_recorded_at)
		return false;
	if (finding == FIN_INSUFFICIENT_FUNDS || finding == FIN_BALANCE_LIMIT)
		return true;
	if (finding != FIN_OK || !order->up_to || order->amount == NULL)
		return finding == FIN_OK && order->up_to;
	return fin_amount_decode(order->amount, movement->from->scale,
							 &asked) == FIN_AMOUNT_OK &&
		movement->amount < asked;
}

static const FinFault *
fault_found(const FinMovement *movement, FinFinding finding, bool hindered)
{
	FinFault   *fault = fin_posting_fault_finding(movement, finding);

	if (hindered)
		fin_fault_hint(fault,
					   "Holds that are over are not yet given back; finance.expire_holds() does it.");
	return fault;
}

/* every rule but those of risk */
static const FinFault *
check_movement(FinPosting *posting, int i, FinMovement *movement)
{
	const FinOrder *order = &posting->orders[i];
	const FinFault *fault = NULL;
	FinFinding	finding;
	bool		hindered;

	if (!fin_posting_is_of_hold(order))
		fault = fin_type_fault(posting->context->tenant_id, order->type,
							   movement->from->type, movement->to->type);
	if (fault == NULL && order->reverses_id != 0)
		fault = fin_posting_check_reversal(posting, i, movement);
	if (fault != NULL)
		return fault;
	finding = fin_engine_check(movement);
	hindered = wants_room(order, movement, finding) &&
		fin_posting_is_hindered(posting, movement);
	return finding == FIN_OK ? NULL : fault_found(movement, finding, hindered);
}

/* what is given back nobody stops, and history is history */
static bool
passes_gate(const FinOrder *order)
{
	return order->action != FIN_RELEASE && order->action != FIN_EXPIRE &&
		!order->has_recorded_at;
}

/* what is parked makes nobody known to the orders after it either */
static void
note_parked(FinPosting *posting, int i)
{
	if (posting->meter == NULL)
		return;
	if (posting->parked == NULL)
		posting->parked = MemoryContextAllocHuge(CurrentMemoryContext,
												 sizeof(FinMeterEvent) *
												 posting->norders);
	posting->parked[posting->nparked++] = posting->events[i];
}

/* NULL: done, or parked or rejected by risk */
static const FinFault *
decide(FinPosting *posting, int i, bool in_chain)
{
	const FinOrder *order = &posting->orders[i];
	FinOutcome *outcome = &posting->outcomes[i];
	FinMovement movement;
	FinVerdict	verdict = {0};
	const FinFault *fault = start_movement(posting, i, &movement);

	if (movement.from != NULL)
		outcome->from_code = movement.from->code;
	if (movement.to != NULL)
		outcome->to_code = movement.to->code;
	if (fault == NULL && order->has_recorded_at)
		fault = fin_posting_fault_past(&movement, posting->ids[i],
									   order->recorded_at);
	if (fault != NULL)
		return fault;
	/* whoever gives back what is over anyway has seen it expire */
	if (movement.action == FIN_RELEASE &&
		fin_engine_time_over(movement.hold, movement.now))
		movement.action = FIN_EXPIRE;
	fault = check_movement(posting, i, &movement);
	if (fault == NULL && passes_gate(order))
		fault = fin_gate_check(&posting->gate, posting->context->tenant_id,
							   &movement, order->type != NULL ? order->type :
							   movement.hold->type);
	if (fault != NULL)
		return fault;
	if (posting->rules != NULL && needs_judgement(order))
	{
		judge(posting, i, &movement, &verdict);
		posting->was_judged = true;
	}
	if (verdict.outcome > FIN_RISK_REPORT && order->strict)
		return fin_posting_fault_rejected(&verdict);
	if (is_to_park(&verdict) && !may_park(order, in_chain))
		return fin_posting_fault_not_parked(&verdict);

	outcome->settles = order->settles != NULL;
	fill_row(posting, i, &movement, &outcome->row);
	keep_verdict(posting, i, &verdict);
	if (verdict.outcome == FIN_RISK_REJECT)
	{
		reject(posting, i, &movement);
		return NULL;
	}
	if (in_chain)
		fin_posting_save_for_undo(posting, &movement);
	if (is_to_park(&verdict))
		movement.action = FIN_HOLD;
	carry_out(posting, i, &movement);
	if (is_to_park(&verdict))
	{
		fin_posting_park(posting, i, movement.hold, &verdict);
		note_parked(posting, i);
	}
	else
		note_debit(&movement, outcome->row.id);
	return NULL;
}

/* did it come off, now or, for a repeated request, the first time? */
static bool
came_off(const FinOutcome *outcome)
{
	return outcome->fault == NULL && !outcome->row.rejected;
}

bool
fin_posting_settle_order(FinPosting *posting, int i, bool in_chain)
{
	const FinFault *fault = posting->orders[i].fault;

	if (fault == NULL && fin_posting_replay(posting, i, false))
		return came_off(&posting->outcomes[i]);
	if (fault == NULL)
		fault = decide(posting, i, in_chain);
	if (fault != NULL)
	{
		if (posting->orders[i].fault != NULL ||
			!fin_posting_replay(posting, i, true))
			fin_posting_fail(posting, i, fault);
		return came_off(&posting->outcomes[i]);
	}
	if (posting->group_of[i] >= 0)
	{
		FinKeyGroup *group = &posting->groups[posting->group_of[i]];

		group->owner = group->answer = i;
	}
	return came_off(&posting->outcomes[i]);
}

/* ------------------------------------------------------------------------
 * the whole set, over again
 * ------------------------------------------------------------------------ */

static void
keep_found(FinPosting *posting)
{
	Size		accounts = sizeof(FinAccount) * posting->naccounts;
	Size		holds = sizeof(FinHold) * posting->nholds_found;

	posting->accounts_found = MemoryContextAllocHuge(CurrentMemoryContext,
													 accounts + 1);
	memcpy(posting->accounts_found, posting->accounts, accounts);
	posting->holds_found = MemoryContextAllocHuge(CurrentMemoryContext,
												  holds + 1);
	memcpy(posting->holds_found, posting->holds, holds);
}

static void
restore_found(FinPosting *posting)
{
	memcpy(posting->accounts, posting->accounts_found,
		   sizeof(FinAccount) * posting->naccounts);
	memcpy(posting->holds, posting->holds_found,
		   sizeof(FinHold) * posting->nholds_found);
	posting->nholds = posting->nholds_found;
	posting->nparked = 0;
	fin_gate_give_back(&posting->gate, 0);
	memset(posting->outcomes, 0, sizeof(FinOutcome) * posting->norders);
	memset(posting->verdicts, 0, sizeof(FinVerdict *) * posting->norders);
	if (posting->meter != NULL)
		fin_meter_reset(posting->meter);
	for (int i = 0; i < posting->ngroups; i++)
		posting->groups[i].owner = -1;
}

static void
raise_first_fault(const FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinFault *fault = posting->outcomes[i].fault;

		/* the culprit says more than those it took along */
		if (fault != NULL && fault->sqlstate != ERRCODE_FIN_LINKED_FAILED)
			fin_fault_raise(fault);
	}
}

static void
prepare(FinPosting *posting)
{
	int			n = posting->norders;

	posting->ids = palloc(sizeof(int64) * n);
	posting->from_ids = palloc0(sizeof(int64) * n);
	posting->to_ids = palloc0(sizeof(int64) * n);
	posting->verdicts = palloc0(sizeof(FinVerdict *) * n);

	/*
	 * Rules with a total of a type are published under SHARE: whoever holds
	 * this lock is waited for, whoever waits for it is judged by them.
	 */
	if (!XactReadOnly)
		LockRelationOid(fin_query_relation("transfer"), RowExclusiveLock);
	if (posting->orders[0].has_recorded_at)
		fin_store_lock_imports(posting->context->tenant_id);
	fin_posting_find_and_lock(posting);

	/*
	 * The server reads invalidations when it first locks a table, so in a
	 * transaction that posted before, rules, time zones and bindings committed
	 * since would stay unseen; also those of while we waited for the accounts.
	 */
	AcceptInvalidationMessages();

	/* the same but for a test clock: a back-test judges by recorded_at */
	posting->recorded_at = GetCurrentTimestamp();
	posting->now = fin_ident_shown(posting->recorded_at);
	fin_context_local(posting->context->tenant_id, posting->now,
					  &posting->business_date, &posting->time_of_day);
	fin_posting_read_holds(posting);
	fin_posting_hold_rules(posting);
	fin_posting_draw_ids(posting);
	fin_posting_group_keys(posting);
	keep_found(posting);
}

/* for the gate, which looks again before the transaction commits */
static void
note_moved(const FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinOutcome *outcome = &posting->outcomes[i];

		if (outcome->row.id != 0 && !outcome->replayed &&
			!outcome->row.rejected && passes_gate(&posting->orders[i]))
			fin_gate_moved(&outcome->row);
	}
}

/*
 * Fills hindering[FIN_EXPIRY_BATCH] with holds that are over and in the way,
 * and returns how many; above zero, nothing was done.  NULL: never mind them.
 */
static int
execute(const FinOrder *orders, int n, FinOutcome *outcomes,
		FinPostingMode mode, FinDueHold *hindering)
{
	FinPosting	posting = {0};
	FinQueryScope scope;

	posting.context = fin_context_hold();
	posting.orders = orders;
	posting.outcomes = outcomes;
	posting.norders = n;
	posting.mode = mode;

	fin_query_begin(&scope);
	posting.memory = scope.caller;
	prepare(&posting);
	do
	{
		restore_found(&posting);
		fin_posting_settle_all(&posting);
		if (hindering != NULL && posting.nhindering > 0)
		{
			fin_gate_give_back(&posting.gate, 0);
			memcpy(hindering, posting.hindering,
				   sizeof(FinDueHold) * posting.nhindering);
			fin_query_end(&scope);
			return posting.nhindering;
		}
		hindering = NULL;
		if (mode == FIN_POSTING_RAISE)
			raise_first_fault(&posting);
	} while (!fin_posting_take_keys(&posting));
	note_moved(&posting);
	fin_posting_write(&posting);
	fin_query_end(&scope);
	return 0;
}

void
fin_posting_execute(const FinOrder *orders, int n, FinOutcome *outcomes,
					FinPostingMode mode)
{
	FinDueHold	hindering[FIN_EXPIRY_BATCH];
	FinExpiry	results[FIN_EXPIRY_BATCH];
	int			nhindering;

	Assert(n > 0 && n <= FIN_ORDERS_MAX);
	nhindering = execute(orders, n, outcomes, mode, hindering);
	if (nhindering == 0)
		return;
	/* all this call waits for is locked by now, and stays so */
	(void) fin_posting_expire(hindering, nhindering, results);
	(void) execute(orders, n, outcomes, mode, NULL);
}
