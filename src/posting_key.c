/*
 * posting_key.c
 *		Idempotency keys: taken for what was settled, and answered again.
 *
 * Owns nothing between calls.
 *
 * A key is looked up only when its order failed, since then an earlier success
 * must be its answer; otherwise taking it tells whether it was free.  The keys
 * of a call are taken in ascending order, so that two calls never wait for
 * each other's.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "errors.h"
#include "json.h"
#include "posting_parts.h"

/* of a stored request: what a hold had left then; not compared */
#define REMAINING "hold_remaining"

/* ------------------------------------------------------------------------
 * groups: the orders of each key
 * ------------------------------------------------------------------------ */

static int
compare_keys(const void *a, const void *b, void *orders)
{
	int			left = *(const int *) a;
	int			right = *(const int *) b;
	int			order = strcmp(((const FinOrder *) orders)[left].key,
							   ((const FinOrder *) orders)[right].key);

	return order != 0 ? order : left - right;
}

void
fin_posting_group_keys(FinPosting *posting)
{
	int			n = posting->norders;
	int		   *keyed = palloc(sizeof(int) * n);
	int			nkeyed = 0;

	posting->group_of = palloc(sizeof(int) * n);
	posting->groups = palloc0(sizeof(FinKeyGroup) * n);
	for (int i = 0; i < n; i++)
	{
		posting->group_of[i] = -1;
		if (posting->orders[i].key != NULL && posting->orders[i].fault == NULL)
			keyed[nkeyed++] = i;
	}
	qsort_arg(keyed, nkeyed, sizeof(int), compare_keys,
			  unconstify(FinOrder *, posting->orders));
	for (int k = 0; k < nkeyed; k++)
	{
		const char *key = posting->orders[keyed[k]].key;

		if (posting->ngroups == 0 ||
			strcmp(posting->groups[posting->ngroups - 1].key, key) != 0)
		{
			posting->groups[posting->ngroups].key = key;
			posting->groups[posting->ngroups].owner = -1;
			posting->ngroups++;
		}
		posting->group_of[keyed[k]] = posting->ngroups - 1;
	}
}

/* ------------------------------------------------------------------------
 * is it the same request?
 * ------------------------------------------------------------------------ */

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

static bool
same_json(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

static bool
same_amount(const FinOrder *order, const FinTransferRow *row)
{
	FinAmount	amount;

	return order->amount != NULL &&
		fin_amount_decode(order->amount, row->scale, &amount) == FIN_AMOUNT_OK &&
		amount == row->amount;
}

/* the members of a stored request, in the order in which they are compared */
static const char *const request_members[] = {
	"action", "hold_id", "transfer_id", "journal_id", "from_account",
	"to_account", "to_accounts", "weights", "legs", "amount_mode", "amount",
	"final", "rate", "liquidity_from", "liquidity_to", "rounding",
	"rounding_account", "expires_in", "hold_group", "type", "effective_at",
	"recorded_at", "reason", "reference", "metadata"
};

/* a request without the member, as without any, has NULL for it */
static JsonbValue *
member(Jsonb *request, const char *name, JsonbValue *value)
{
	return request == NULL ? NULL :
		getKeyJsonValueFromContainer(&request->root, name, strlen(name), value);
}

static bool
same_member(Jsonb *a, Jsonb *b, const char *name)
{
	JsonbValue	left;
	JsonbValue	right;
	JsonbValue *found_left = member(a, name, &left);
	JsonbValue *found_right = member(b, name, &right);

	if (found_left == NULL || found_right == NULL)
		return found_left == found_right;
	return same_json(JsonbValueToJsonb(found_left),
					 JsonbValueToJsonb(found_right));
}

/* the first member of either request that the other has not the same */
static const char *
first_other_member(Jsonb *a, Jsonb *b)
{
	if (same_json(a, b))
		return NULL;
	for (int i = 0; i < (int) lengthof(request_members); i++)
	{
		if (!same_member(a, b, request_members[i]))
			return request_members[i];
	}
	return "request";
}

/* what the transfer's row tells of the request */
static const char *
first_other_column(const FinOrder *order, const FinTransferRow *row,
				   const FinKeyRow *key)
{
	JsonbValue	value;

	/* an amount that was not a fixed one is compared as a member */
	if (member(order->request, "amount", &value) == NULL &&
		!same_amount(order, row))
		return "amount";
	if (order->currency != NULL && !same_text(order->currency, row->currency))
		return "currency";
	if (order->type != NULL && !same_text(order->type, row->type))
		return "type";
	if (order->expected_from_version != key->expected_from_version)
		return "expected_from_version";
	if (order->expected_to_version != key->expected_to_version)
		return "expected_to_version";
	if (order->has_effective_at != row->has_effective_at ||
		(order->has_effective_at && order->effective_at != row->effective_at))
		return "effective_at";
	if (!same_text(order->reference, row->reference))
		return "reference";
	if (!same_json(order->metadata, row->metadata))
		return "metadata";
	return NULL;
}

/* name of the first field of the request that differs, or NULL */
static const char *
first_difference(const FinPosting *posting, int i, const FinKeyRow *key)
{
	const FinOrder *order = &posting->orders[i];
	const FinTransferRow *row = &posting->outcomes[i].row;
	const char *other;

	/* a plain transfer has none on either side */
	other = first_other_member(order->request, key->request);
	if (other != NULL || order->in_journal)
		return other;
	if (posting->from_ids[i] != row->from_account_id)
		return "from_account";
	if (posting->to_ids[i] != row->to_account_id)
		return "to_account";
	return first_other_column(order, row, key);
}

static FinFault *
fault_reused(const char *key, int64 transfer_id, const char *field)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_KEY_REUSED,
								  "idempotency key \"%s\" was used for another request",
								  key);

	fin_fault_detail(fault, "It stands for transfer " INT64_FORMAT ", whose %s differs.",
					 transfer_id, field);
	return fin_fault_hint(fault,
						  "Repeat a request unchanged, or use a new key for a new one.");
}

/* a strict caller takes an answer for money moved; no rule: scores said so */
static FinFault *
fault_replayed_rejection(const char *key, const FinOutcome *outcome)
{
	const char *what = outcome->row.rejected ? "rejected" : "parked";
	FinFault   *fault = outcome->rule == NULL ?
		fin_fault(ERRCODE_FIN_RISK_REJECTED,
				  "transfer %s by risk scores", what) :
		fin_fault(ERRCODE_FIN_RISK_REJECTED,
				  "transfer %s by risk rule \"%s\"", what, outcome->rule);

	return fin_fault_detail(fault,
							"It was %s when idempotency key \"%s\" was first used.",
							what, key);
}

static FinFault *
fault_not_kept(const char *key, int64 transfer_id)
{
	FinFault   *fault = fin_fault(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
								  "transfer of idempotency key \"%s\" is no longer kept",
								  key);

	fin_fault_detail(fault, "It was transfer " INT64_FORMAT ".", transfer_id);
	return fin_fault_hint(fault,
						  "Attach the partition of its month again, or use a new key for a new request.");
}

/* ------------------------------------------------------------------------
 * the first answer again
 * ------------------------------------------------------------------------ */

/* when it was first answered */
static bool
is_parked(const FinTransferRow *row)
{
	return strcmp(row->status, "review") == 0 ||
		strcmp(row->status, "challenged") == 0;
}

static bool
read_outcome(FinPosting *posting, int i, int64 transfer_id)
{
	FinOutcome *outcome = &posting->outcomes[i];
	int32		tenant_id = posting->context->tenant_id;

	memset(outcome, 0, sizeof(FinOutcome));
	if (!fin_store_read_transfer(tenant_id, transfer_id, &outcome->row,
								 &outcome->from_code, &outcome->to_code,
								 posting->memory))
		return false;
	if (outcome->row.rejected || is_parked(&outcome->row))
		outcome->rule = fin_store_read_rejection(tenant_id, transfer_id,
												 posting->memory);
	outcome->replayed = true;
	return true;
}

/* order i is checked against 'key', with its first answer in outcomes[i] */
static void
check_repetition(FinPosting *posting, int i, const FinKeyRow *key)
{
	const FinOrder *order = &posting->orders[i];
	FinOutcome *outcome = &posting->outcomes[i];
	const char *field = first_difference(posting, i, key);
	const FinFault *fault = NULL;

	if (field != NULL)
		fault = fault_reused(order->key, key->transfer_id, field);
	else if ((outcome->row.rejected || is_parked(&outcome->row)) &&
			 order->strict)
		fault = fault_replayed_rejection(order->key, outcome);
	if (fault == NULL)
		return;
	memset(outcome, 0, sizeof(FinOutcome));
	fin_posting_fail(posting, i, fault);
}

/*
 * The other members of a journal, whose head was answered.  Of one that risk
 * rejected only the rejected transfer is kept; it answers in the head's place.
 */
static void
replay_members(FinPosting *posting, int start, int64 journal_id)
{
	const char *key = posting->orders[start].key;
	int			end = fin_posting_chain_end(posting, start);
	int64	   *ids;
	int			n = fin_store_read_journal(posting->context->tenant_id,
										   journal_id, &ids);
	bool		whole = n == end - start + 1;
	FinFault   *fault = fin_fault(ERRCODE_FIN_LINKED_FAILED,
								  "another request of the chain failed");

	for (int i = start + 1; i <= end; i++)
	{
		if (!whole)
			fin_posting_fail(posting, i, fault);
		else if (!read_outcome(posting, i, ids[i - start]))
			fin_posting_fail(posting, i, fault_not_kept(key, ids[i - start]));
	}
}

/*
 * What a capture or a release left of its hold: neither its row nor the hold,
 * which has changed since, tells it, so it is kept beside the request.
 */
static Jsonb *
with_remaining(Jsonb *request, const FinOutcome *outcome)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, REMAINING, fin_amount_text(outcome->remaining,
													outcome->row.scale));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(request),
											  DirectFunctionCall1(jsonb_in,
																  CStringGetDatum(fin_json_end(&json)))));
}

static FinAmount
parse_remaining(const JsonbValue *text, int scale)
{
	FinAmount	amount;
	Datum		number;

	number = DirectFunctionCall3(numeric_in,
								 CStringGetDatum(pnstrdup(text->val.string.val,
														  text->val.string.len)),
								 ObjectIdGetDatum(InvalidOid),
								 Int32GetDatum(-1));
	if (fin_amount_decode(DatumGetNumeric(number), scale, &amount) != FIN_AMOUNT_OK)
		elog(ERROR, "what remained of a hold is out of range");
	return amount;
}

/* into the outcome, and out of the key's request, which is as it was asked */
static void
take_remaining(FinOutcome *outcome, FinKeyRow *key)
{
	JsonbValue	value;
	const JsonbValue *found = member(key->request, REMAINING, &value);

	outcome->has_remaining = found != NULL ||
		strcmp(outcome->row.status, "held") == 0 || is_parked(&outcome->row);
	if (!outcome->has_remaining)
		return;
	outcome->remaining = outcome->row.amount;
	if (found == NULL)
		return;
	outcome->remaining = parse_remaining(found, outcome->row.scale);
	key->request = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete,
													  JsonbPGetDatum(key->request),
													  CStringGetTextDatum(REMAINING)));
}

/* the answer of an earlier call */
static void
replay_stored(FinPosting *posting, int i)
{
	const FinOrder *order = &posting->orders[i];
	FinKeyRow	key;

	/* taken, but invisible: its transaction is later than our snapshot */
	if (!fin_store_read_key(posting->context->tenant_id, order->key, &key,
							CurrentMemoryContext))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not read the transfer of idempotency key \"%s\"",
					   order->key),
				errhint("Try again in a new transaction."));
	if (!read_outcome(posting, i, key.transfer_id))
	{
		fin_posting_fail(posting, i, fault_not_kept(order->key, key.transfer_id));
		return;
	}
	take_remaining(&posting->outcomes[i], &key);
	check_repetition(posting, i, &key);
	if (order->in_journal && posting->outcomes[i].replayed)
		replay_members(posting, i, key.transfer_id);
}

/* the answer of an earlier order of this call */
static void
replay_own(FinPosting *posting, int i, int owner)
{
	const FinOrder *first = &posting->orders[owner];
	FinKeyRow	key = {first->key, posting->outcomes[owner].row.id,
		first->expected_from_version, first->expected_to_version,
	first->request};

	posting->outcomes[i] = posting->outcomes[owner];
	posting->outcomes[i].replayed = true;
	posting->outcomes[i].token = NULL;
	check_repetition(posting, i, &key);
}

/* finds out whether an earlier call took the key */
static void
look_up(FinPosting *posting, FinKeyGroup *group)
{
	FinKeyRow	key;

	if (!group->is_taken && group->inserted_id == 0)
		group->is_taken = fin_store_read_key(posting->context->tenant_id,
											 group->key, &key,
											 CurrentMemoryContext);
}

/*
 * Twice as far as the chain came: so that it is settled anew a few times at
 * most, each getting twice as far, where repeated orders and new ones alternate.
 */
bool
fin_posting_learn_keys(FinPosting *posting, int start, int culprit, int end)
{
	int			last = Min(end, culprit + (culprit - start));
	bool		learned = false;

	for (int i = start; i <= last; i++)
	{
		FinKeyGroup *group;

		if (posting->group_of[i] < 0 || i == culprit)
			continue;
		group = &posting->groups[posting->group_of[i]];
		/* one that an earlier chain has carried out stands for that */
		if (group->owner != i && group->owner >= 0)
			continue;
		look_up(posting, group);
		learned = learned || (group->owner == i && group->is_taken);
	}
	return learned;
}

bool
fin_posting_replay(FinPosting *posting, int i, bool failed)
{
	FinKeyGroup *group;

	if (posting->group_of[i] < 0)
		return false;
	group = &posting->groups[posting->group_of[i]];
	if (group->owner >= 0)
	{
		replay_own(posting, i, group->owner);
		return true;
	}
	if (failed)
		look_up(posting, group);
	if (!group->is_taken)
		return false;
	replay_stored(posting, i);
	return true;
}

/* ------------------------------------------------------------------------
 * taking
 * ------------------------------------------------------------------------ */

static int64
wanted_id(const FinPosting *posting, const FinKeyGroup *group)
{
	return group->owner < 0 ? 0 : posting->outcomes[group->answer].row.id;
}

/* what its hold has left, where the key's row tells it */
static FinAmount
wanted_remaining(const FinPosting *posting, const FinKeyGroup *group)
{
	return group->owner < 0 ? 0 : posting->outcomes[group->owner].remaining;
}

/*
 * What an earlier attempt took for an order that has since failed, or has left
 * something else of its hold.
 */
static void
drop_stale_keys(FinPosting *posting)
{
	for (int k = 0; k < posting->ngroups; k++)
	{
		FinKeyGroup *group = &posting->groups[k];

		if (group->inserted_id == 0 ||
			(group->inserted_id == wanted_id(posting, group) &&
			 group->inserted_remaining == wanted_remaining(posting, group)))
			continue;
		fin_store_drop_key(posting->context->tenant_id, group->key);
		group->inserted_id = 0;
	}
}

static FinKeyRow *
key_row(const FinPosting *posting, const FinKeyGroup *group)
{
	const FinOrder *order = &posting->orders[group->owner];
	const FinOutcome *outcome = &posting->outcomes[group->owner];
	FinKeyRow  *row = palloc(sizeof(FinKeyRow));

	row->key = group->key;
	row->transfer_id = wanted_id(posting, group);
	row->expected_from_version = order->expected_from_version;
	row->expected_to_version = order->expected_to_version;
	row->request = order->request;
	if (outcome->has_remaining && order->action != FIN_HOLD &&
		order->request != NULL)
		row->request = with_remaining(order->request, outcome);
	return row;
}

bool
fin_posting_take_keys(FinPosting *posting)
{
	const FinKeyRow **rows = palloc(sizeof(FinKeyRow *) * (posting->ngroups + 1));
	FinKeyGroup **wanting = palloc(sizeof(FinKeyGroup *) * (posting->ngroups + 1));
	bool	   *ours = palloc(sizeof(bool) * (posting->ngroups + 1));
	int			n = 0;
	int			taken;

	if (posting->ngroups == 0)
		return true;
	drop_stale_keys(posting);
	for (int k = 0; k < posting->ngroups; k++)
	{
		FinKeyGroup *group = &posting->groups[k];

		if (group->owner < 0 || group->inserted_id != 0)
			continue;
		wanting[n] = group;
		rows[n++] = key_row(posting, group);
	}
	taken = fin_store_take_keys(posting->context->tenant_id, rows, n, ours);
	for (int k = 0; k < n; k++)
	{
		wanting[k]->is_taken = !ours[k];
		wanting[k]->inserted_id = ours[k] ? rows[k]->transfer_id : 0;
		wanting[k]->inserted_remaining = wanted_remaining(posting, wanting[k]);
	}
	return taken == n;
}
