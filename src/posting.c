/*
 * posting.c
 *		The way of a set of transfers: find, lock, judge, compute, write.
 *
 * Owns nothing between calls; one call's state is a Posting on the stack, and
 * its memory the query scope's, but for the outcomes.
 *
 * Lock order: accounts by ascending id over the whole set, then idempotency
 * keys in the order of the set.  Everything that is decided is decided under
 * the accounts' locks: versions, funds, risk facts, and the transfer's id,
 * which is above the last id of both accounts, so that an account's id order
 * is its version order whatever the clock does.
 *
 * A racing duplicate of a key waits for the first on the accounts' locks, then
 * finds the key taken and answers with the first's transfer.
 *
 * Totals are written before the rows that tell of them: a trigger somebody
 * attached to finance.transfer, or to a queue, may transfer in its turn and
 * must find the accounts as this posting leaves them.
 */
#include "postgres.h"

#include "lib/qunique.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "engine.h"
#include "errors.h"
#include "event.h"
#include "ident.h"
#include "posting.h"
#include "query.h"
#include "risk.h"

typedef struct Posting
{
	const FinContext *context;
	MemoryContext memory;		/* the caller's: for outcomes */
	const FinOrder *orders;
	FinOutcome *outcomes;
	int			norders;
	int64	   *from_ids;		/* per order */
	int64	   *to_ids;
	FinAccount *accounts;		/* locked, ascending by id */
	int			naccounts;
	FinVerdict **rejections;	/* per order; NULL: not rejected */
	TimestampTz recorded_at;
	DateADT		business_date;
	TimeADT		time_of_day;
} Posting;

/* ------------------------------------------------------------------------
 * find and lock
 * ------------------------------------------------------------------------ */

static void
refuse_unknown_account(const char *code, int64 id)
{
	if (code != NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_ACCOUNT),
				errmsg("account \"%s\" does not exist", code),
				errhint("Open it with finance.create_account()."));
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_ACCOUNT),
			errmsg("account " INT64_FORMAT " does not exist", id));
}

static int64
resolve(const Posting *posting, const char *code, int64 id)
{
	if (code == NULL)
		return id;
	id = fin_store_find_account(posting->context->tenant_id, code);
	if (id == 0)
		refuse_unknown_account(code, 0);
	return id;
}

static void
resolve_accounts(Posting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinOrder *order = &posting->orders[i];

		posting->from_ids[i] = resolve(posting, order->from_code, order->from_id);
		posting->to_ids[i] = resolve(posting, order->to_code, order->to_id);
	}
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* all accounts of all orders, each once, in ascending order of id */
static void
lock_accounts(Posting *posting)
{
	int64	   *ids = palloc(sizeof(int64) * 2 * posting->norders);
	int			nids = 0;

	for (int i = 0; i < posting->norders; i++)
	{
		ids[nids++] = posting->from_ids[i];
		ids[nids++] = posting->to_ids[i];
	}
	qsort(ids, nids, sizeof(int64), compare_ids);
	nids = qunique(ids, nids, sizeof(int64), compare_ids);
	/* outcomes point into it */
	posting->accounts = MemoryContextAlloc(posting->memory,
										   sizeof(FinAccount) * nids);
	posting->naccounts = fin_store_lock_accounts(posting->context->tenant_id,
												 ids, nids, posting->accounts,
												 posting->memory);
}

static FinAccount *
find_locked(const Posting *posting, int64 id)
{
	int			low = 0;
	int			high = posting->naccounts;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (posting->accounts[middle].account_id == id)
			return &posting->accounts[middle];
		if (posting->accounts[middle].account_id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* was the code cache right about this account? */
static bool
is_as_named(const Posting *posting, const char *code, int64 id)
{
	FinAccount *account = find_locked(posting, id);

	if (account == NULL)
	{
		if (code == NULL)
			refuse_unknown_account(NULL, id);
		fin_store_forget_account(posting->context->tenant_id, code);
		return false;
	}
	if (code == NULL || strcmp(account->code, code) == 0)
		return true;
	fin_store_forget_account(posting->context->tenant_id, code);
	return false;
}

static bool
all_as_named(const Posting *posting)
{
	bool		all = true;

	for (int i = 0; i < posting->norders; i++)
	{
		const FinOrder *order = &posting->orders[i];

		if (!is_as_named(posting, order->from_code, posting->from_ids[i]))
			all = false;
		if (!is_as_named(posting, order->to_code, posting->to_ids[i]))
			all = false;
	}
	return all;
}

static void
find_and_lock(Posting *posting)
{
	resolve_accounts(posting);
	lock_accounts(posting);
	if (all_as_named(posting))
		return;
	/* a cached code was of an account whose creation rolled back */
	resolve_accounts(posting);
	lock_accounts(posting);
	if (!all_as_named(posting))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not lock the accounts of the transfer"),
				errdetail("An account appeared or vanished meanwhile."),
				errhint("Try again."));
}

/* ------------------------------------------------------------------------
 * idempotency: the first answer again
 * ------------------------------------------------------------------------ */

static void
refuse_reused_key(const FinOrder *order, int64 transfer_id, const char *field)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_KEY_REUSED),
			errmsg("idempotency key \"%s\" was used for another request",
				   order->key),
			errdetail("It stands for transfer " INT64_FORMAT ", whose %s differs.",
					  transfer_id, field),
			errhint("Repeat a request unchanged, or use a new key for a new one."));
}

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

static bool
same_metadata(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

static bool
same_amount(const FinOrder *order, const FinTransferRow *row)
{
	FinAmount	amount;

	return fin_amount_decode(order->amount, row->scale, &amount) == FIN_AMOUNT_OK &&
		amount == row->amount;
}

/* name of the first field of the request that differs, or NULL */
static const char *
first_difference(const FinOrder *order, int64 from_id, int64 to_id,
				 const FinTransferRow *row, const FinKeyRow *key)
{
	if (from_id != row->from_account_id)
		return "from_account";
	if (to_id != row->to_account_id)
		return "to_account";
	if (!same_amount(order, row))
		return "amount";
	if (order->currency != NULL && !same_text(order->currency, row->currency))
		return "currency";
	if (!same_text(order->type, row->type))
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
	if (!same_metadata(order->metadata, row->metadata))
		return "metadata";
	return NULL;
}

/* a strict caller takes an answer for money moved */
static void
refuse_replayed_rejection(const FinOrder *order, const char *rule)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_RISK_REJECTED),
			errmsg("transfer rejected by risk rule \"%s\"", rule),
			errdetail("It was rejected when idempotency key \"%s\" was first used.",
					  order->key));
}

/*
 * The outcome of an earlier order of this set, whose row is not written yet;
 * false when it is not of this set.
 */
static bool
copy_outcome(Posting *posting, int i, int64 transfer_id)
{
	for (int earlier = 0; earlier < i; earlier++)
	{
		if (posting->outcomes[earlier].row.id != transfer_id)
			continue;
		posting->outcomes[i] = posting->outcomes[earlier];
		return true;
	}
	return false;
}

static void
read_outcome(Posting *posting, int i, int64 transfer_id)
{
	FinOutcome *outcome = &posting->outcomes[i];
	int32		tenant_id = posting->context->tenant_id;

	if (!fin_store_read_transfer(tenant_id, transfer_id, &outcome->row,
								 posting->memory))
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("transfer of idempotency key \"%s\" is no longer kept",
					   posting->orders[i].key),
				errdetail("It was transfer " INT64_FORMAT ".", transfer_id),
				errhint("Attach the partition of its month again, or use a new key for a new request."));
	if (!outcome->row.completed)
		outcome->rule = fin_store_read_rejection(tenant_id, transfer_id,
												 posting->memory);
}

static void
replay(Posting *posting, int i)
{
	const FinOrder *order = &posting->orders[i];
	FinOutcome *outcome = &posting->outcomes[i];
	int32		tenant_id = posting->context->tenant_id;
	FinKeyRow	key;
	const char *field;

	/* taken, but invisible: its transaction is later than our snapshot */
	if (!fin_store_read_key(tenant_id, order->key, &key))
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("could not read the transfer of idempotency key \"%s\"",
					   order->key),
				errhint("Try again in a new transaction."));

	if (!copy_outcome(posting, i, key.transfer_id))
		read_outcome(posting, i, key.transfer_id);
	field = first_difference(order, posting->from_ids[i], posting->to_ids[i],
							 &outcome->row, &key);
	if (field != NULL)
		refuse_reused_key(order, key.transfer_id, field);
	if (!outcome->row.completed && order->strict)
		refuse_replayed_rejection(order, outcome->rule);
	outcome->replayed = true;
}

/* ------------------------------------------------------------------------
 * judge and compute
 * ------------------------------------------------------------------------ */

static void
refuse_not_active(const FinAccount *account)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_ACCOUNT_NOT_ACTIVE),
			errmsg("account \"%s\" is %s", account->code,
				   account->status == FIN_ACCOUNT_FROZEN ? "frozen" : "closed"),
			account->status == FIN_ACCOUNT_FROZEN ?
			errhint("Set it active again with finance.set_account_status().") : 0);
}

static void
refuse_currency(const FinMovement *movement, FinFinding finding)
{
	if (finding == FIN_CURRENCY_DIFFERS)
		ereport(ERROR,
				errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
				errmsg("accounts \"%s\" and \"%s\" have different currencies",
					   movement->from->code, movement->to->code),
				errdetail("\"%s\" holds %s, \"%s\" holds %s.",
						  movement->from->code, movement->from->currency,
						  movement->to->code, movement->to->currency));
	ereport(ERROR,
			errcode(ERRCODE_FIN_CURRENCY_MISMATCH),
			errmsg("the transfer's currency is not that of its accounts"),
			errdetail("The request says %s, the accounts hold %s.",
					  movement->currency, movement->from->currency));
}

static void
refuse_version(const FinAccount *account, int64 expected)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_VERSION_CONFLICT),
			errmsg("version conflict on account \"%s\"", account->code),
			errdetail("Its version is " INT64_FORMAT ", expected was " INT64_FORMAT ".",
					  account->version, expected),
			errhint("Read the account and decide again with its current version."));
}

static void
refuse_funds(const FinMovement *movement)
{
	const FinAccount *from = movement->from;

	ereport(ERROR,
			errcode(ERRCODE_FIN_INSUFFICIENT_FUNDS),
			errmsg("insufficient funds in account \"%s\"", from->code),
			errdetail("Available is %s, required is %s, and %s must remain.",
					  fin_amount_text(fin_engine_available(from), from->scale),
					  fin_amount_text(movement->amount, from->scale),
					  fin_amount_text(from->min_available, from->scale)));
}

static void
refuse_balance_limit(const FinMovement *movement)
{
	const FinAccount *to = movement->to;

	ereport(ERROR,
			errcode(ERRCODE_FIN_BALANCE_LIMIT),
			errmsg("balance limit of account \"%s\" exceeded", to->code),
			errdetail("Its balance is %s, the amount %s, the limit %s.",
					  fin_amount_text(fin_engine_balance(to), to->scale),
					  fin_amount_text(movement->amount, to->scale),
					  fin_amount_text(to->max_balance, to->scale)));
}

static void
refuse(const FinMovement *movement, FinFinding finding)
{
	switch (finding)
	{
		case FIN_OK:
			break;
		case FIN_SAME_ACCOUNT:
			ereport(ERROR,
					errcode(ERRCODE_FIN_SAME_ACCOUNT),
					errmsg("a transfer needs two different accounts"),
					errdetail("Both are \"%s\".", movement->from->code));
			break;
		case FIN_FROM_NOT_ACTIVE:
			refuse_not_active(movement->from);
			break;
		case FIN_TO_NOT_ACTIVE:
			refuse_not_active(movement->to);
			break;
		case FIN_CURRENCY_DIFFERS:
		case FIN_CURRENCY_NOT_STATED:
			refuse_currency(movement, finding);
			break;
		case FIN_FROM_VERSION_DIFFERS:
			refuse_version(movement->from, movement->expected_from_version);
			break;
		case FIN_TO_VERSION_DIFFERS:
			refuse_version(movement->to, movement->expected_to_version);
			break;
		case FIN_TOTAL_OVERFLOW:
			ereport(ERROR,
					errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					errmsg("totals of account \"%s\" or \"%s\" would overflow",
						   movement->from->code, movement->to->code),
					errdetail("A total has at most %d digits.",
							  FIN_AMOUNT_MAX_DIGITS));
			break;
		case FIN_INSUFFICIENT_FUNDS:
			refuse_funds(movement);
			break;
		case FIN_BALANCE_LIMIT:
			refuse_balance_limit(movement);
			break;
	}
}

static void
refuse_by_risk(const FinVerdict *verdict)
{
	const FinDecisionRow *hit = &verdict->hits[0];

	ereport(ERROR,
			errcode(ERRCODE_FIN_RISK_REJECTED),
			errmsg("transfer rejected by risk rule \"%s\"", hit->rule),
			errdetail("The rule is a %s; observed was %s, the threshold is %s.",
					  hit->kind, hit->observed, hit->threshold));
}

static void
start_movement(const Posting *posting, int i, FinMovement *movement)
{
	const FinOrder *order = &posting->orders[i];

	movement->from = find_locked(posting, posting->from_ids[i]);
	movement->to = find_locked(posting, posting->to_ids[i]);
	movement->currency = order->currency;
	movement->expected_from_version = order->expected_from_version;
	movement->expected_to_version = order->expected_to_version;
	movement->business_date = posting->business_date;
	movement->amount = fin_amount_from_caller(order->amount,
											  movement->from->scale,
											  movement->from->currency,
											  "amount");
}

static void
fill_row(const Posting *posting, int i, const FinMovement *movement,
		 FinTransferRow *row)
{
	const FinOrder *order = &posting->orders[i];

	row->tenant_id = posting->context->tenant_id;
	row->from_account_id = movement->from->account_id;
	row->to_account_id = movement->to->account_id;
	row->scale = movement->from->scale;
	row->amount = movement->amount;
	row->recorded_at = posting->recorded_at;
	row->effective_at = order->effective_at;
	row->has_effective_at = order->has_effective_at;
	row->trace_id = posting->context->trace_id;
	row->type = order->type;
	row->currency = movement->from->currency;
	row->reference = order->reference;
	row->metadata = order->metadata;
}

/* risk said no: remember why, for the rows written later */
static void
reject(Posting *posting, int i, const FinVerdict *verdict)
{
	FinOutcome *outcome = &posting->outcomes[i];
	FinVerdict *kept = palloc(sizeof(FinVerdict));

	*kept = *verdict;
	for (int hit = 0; hit < kept->nhits; hit++)
		kept->hits[hit].transfer_id = outcome->row.id;
	posting->rejections[i] = kept;
	outcome->rule = MemoryContextStrdup(posting->memory, kept->hits[0].rule);
}

static void
decide(Posting *posting, int i, FinMovement *movement)
{
	FinTransferRow *row = &posting->outcomes[i].row;
	FinFinding	finding = fin_engine_check(movement);
	FinVerdict	verdict;

	if (finding != FIN_OK)
		refuse(movement, finding);
	fin_risk_judge(posting->context->tenant_id, movement,
				   posting->time_of_day, &verdict);
	if (verdict.nhits > 0 && posting->orders[i].strict)
		refuse_by_risk(&verdict);

	fill_row(posting, i, movement, row);
	row->completed = verdict.nhits == 0;
	row->status = row->completed ? "completed" : "rejected";
	if (row->completed)
	{
		fin_engine_post(movement, &row->moved);
		movement->from->last_transfer_id = row->id;
		movement->to->last_transfer_id = row->id;
		return;
	}
	fin_engine_leave(movement, &row->moved);
	reject(posting, i, &verdict);
}

/* ------------------------------------------------------------------------
 * write
 * ------------------------------------------------------------------------ */

static void
write_audit(const FinOrder *order, const FinOutcome *outcome, int64 message_id)
{
	const FinTransferRow *row = &outcome->row;
	FinAuditRecord record = {0};

	record.operation = "transfer";
	record.status = row->status;
	record.message_id = message_id;
	record.transfer_id = row->id;
	record.account_id = row->from_account_id;
	record.counterparty_id = row->to_account_id;
	record.currency = row->currency;
	record.amount = fin_amount_datum(row->amount, row->scale);
	record.balance_before = fin_amount_datum(row->moved.from.balance_before, row->scale);
	record.balance_after = fin_amount_datum(row->moved.from.balance_after, row->scale);
	record.counterparty_before = fin_amount_datum(row->moved.to.balance_before, row->scale);
	record.counterparty_after = fin_amount_datum(row->moved.to.balance_after, row->scale);
	record.request = fin_event_request_json(order, outcome);
	record.response = fin_event_response_json(outcome);
	fin_audit_append(&record, 1);
}

static void
write_outcome(Posting *posting, int i)
{
	const FinContext *context = posting->context;
	FinOutcome *outcome = &posting->outcomes[i];
	FinVerdict *rejection = posting->rejections[i];
	const FinDecisionRow *decisions = rejection != NULL ? rejection->hits : NULL;
	int			ndecisions = rejection != NULL ? rejection->nhits : 0;
	int64		message_id = fin_ident_next(0);

	fin_store_write_transfers(&outcome->row, 1);
	fin_store_write_decisions(context->tenant_id, decisions, ndecisions);
	fin_context_resume(context);
	write_audit(&posting->orders[i], outcome, message_id);
	fin_event_publish(context, message_id, outcome, decisions, ndecisions);
}

/* what becomes of the order, computed; nothing but its key is written yet */
static void
settle_order(Posting *posting, int i)
{
	const FinOrder *order = &posting->orders[i];
	FinOutcome *outcome = &posting->outcomes[i];
	FinMovement movement;

	start_movement(posting, i, &movement);
	outcome->from_code = movement.from->code;
	outcome->to_code = movement.to->code;
	outcome->row.id = fin_ident_next(Max(movement.from->last_transfer_id,
										 movement.to->last_transfer_id));
	if (order->key != NULL)
	{
		FinKeyRow	key = {order->key, outcome->row.id,
			order->expected_from_version,
		order->expected_to_version};

		if (!fin_store_take_key(posting->context->tenant_id, &key))
		{
			replay(posting, i);
			return;
		}
	}
	decide(posting, i, &movement);
}

void
fin_posting_execute(const FinOrder *orders, int n, FinOutcome *outcomes)
{
	Posting		posting = {0};
	FinQueryScope scope;
	TimestampTz now;

	posting.context = fin_context_hold();
	posting.orders = orders;
	posting.outcomes = outcomes;
	posting.norders = n;
	memset(outcomes, 0, sizeof(FinOutcome) * n);

	fin_query_begin(&scope);
	posting.memory = scope.caller;
	posting.from_ids = palloc(sizeof(int64) * n);
	posting.to_ids = palloc(sizeof(int64) * n);
	posting.rejections = palloc0(sizeof(FinVerdict *) * n);
	find_and_lock(&posting);

	/*
	 * The server reads invalidations when it first locks a table, so in a
	 * transaction that posted before, rules, time zones and bindings committed
	 * since would stay unseen; also those of while we waited for the accounts.
	 */
	AcceptInvalidationMessages();

	now = fin_ident_now();
	posting.recorded_at = GetCurrentTimestamp();
	fin_context_local(posting.context->tenant_id, now,
					  &posting.business_date, &posting.time_of_day);
	for (int i = 0; i < n; i++)
		settle_order(&posting, i);
	fin_store_write_accounts(posting.context->tenant_id, posting.accounts,
							 posting.naccounts);
	for (int i = 0; i < n; i++)
	{
		if (!outcomes[i].replayed)
			write_outcome(&posting, i);
	}
	fin_query_end(&scope);
}
