/*
 * gate.c
 *		May money move at all, and so often?
 *
 * Asked of each order under its accounts' locks, after all that may be wrong
 * with the order itself: what fails anyway takes no token.  What rules judged
 * has taken its tokens for good, whatever then becomes of it.
 *
 * Owns nothing.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "errors.h"
#include "gate_parts.h"

#define US_PER_MS	1000

/* ------------------------------------------------------------------------
 * the switch
 * ------------------------------------------------------------------------ */

FinFault *
fin_gate_fault_paused(const FinGatePause *pause)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_TRANSFERS_PAUSED,
								  "transfers are paused");

	fin_fault_detail(fault, "Scope is %s, since %s: %s", pause->scope,
					 timestamptz_to_str(pause->since), pause->reason);
	return fin_fault_hint(fault,
						  "They go on when an operator calls finance.resume_transfers().");
}

static const FinGatePause *
find_pause(const FinGateBook *book, const FinGateKeys *keys)
{
	const FinGateKey tried[] = {
		fin_gate_key(FIN_GATE_EVERYWHERE, 0, 0, NULL),
		keys->tenant, keys->from, keys->to, keys->type, keys->currency
	};

	for (int i = 0; i < (int) lengthof(tried); i++)
	{
		const FinGatePause *pause = fin_gate_find_pause(book, tried[i]);

		if (pause != NULL)
			return pause;
	}
	return NULL;
}

/* ------------------------------------------------------------------------
 * rate limits
 * ------------------------------------------------------------------------ */

/* those of the movement: of the tenant, the payer, and the type */
static int
find_limits(const FinGateBook *book, int32 tenant_id, const FinGateKeys *keys,
			int64 payer_id, const FinGateLimit **limits, FinBucket *buckets)
{
	const FinGateLimit *found[3];
	int64		subjects[3] = {0};
	int			n = 0;

	found[0] = fin_gate_find_limit(book, keys->tenant);
	found[1] = fin_gate_find_limit(book, keys->from);
	if (found[1] == NULL)
	{
		found[1] = fin_gate_find_limit(book,
									   fin_gate_key(FIN_GATE_EACH_ACCOUNT,
													tenant_id, 0, NULL));
		subjects[1] = payer_id;
	}
	found[2] = fin_gate_find_limit(book, keys->type);
	for (int i = 0; i < 3; i++)
	{
		if (found[i] == NULL)
			continue;
		limits[n] = found[i];
		buckets[n].limit_id = found[i]->limit_id;
		buckets[n].subject_id = subjects[i];
		buckets[n].limit = found[i]->limit;
		n++;
	}
	return n;
}

static FinFault *
fault_too_many(const FinGateLimit *limit, const FinBucketRefusal *refusal)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_RATE_LIMIT, "too many transfers");
	int64		wait_ms = refusal->wait_us / US_PER_MS +
		(refusal->wait_us % US_PER_MS > 0);

	return fin_fault_detail(fault,
							"Scope %s allows %s a second, and %d at once%s; the next may come in "
							INT64_FORMAT ".%03d seconds.",
							limit->scope, limit->rate_text, limit->limit.burst,
							refusal->is_crowded ?
							", and there is no place left to count in" : "",
							wait_ms / 1000, (int) (wait_ms % 1000));
}

/* what cannot be counted is not let through */
static FinFault *
fault_uncounted(const FinGateLimit *limit)
{
	FinFault   *fault = fin_fault(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
								  "transfers cannot be counted on this server");

	fin_fault_detail(fault, "There is a rate limit of scope %s.", limit->scope);
	return fin_fault_hint(fault,
						  "Set shared_preload_libraries = 'finance' and restart the server, or drop the limit.");
}

static void
note_taken(FinGate *gate, const FinBucket *buckets, int n)
{
	if (gate->ntaken + n > gate->size)
	{
		int			size = Max(gate->size * 2, 16);

		gate->taken = gate->taken == NULL ?
			palloc(sizeof(FinBucket) * size) :
			repalloc(gate->taken, sizeof(FinBucket) * size);
		gate->size = size;
	}
	memcpy(&gate->taken[gate->ntaken], buckets, sizeof(FinBucket) * n);
	gate->ntaken += n;
}

void
fin_gate_give_back(FinGate *gate, int mark)
{
	while (gate->ntaken > mark)
		fin_bucket_give_back(&gate->taken[--gate->ntaken]);
}

static const FinFault *
take_tokens(FinGate *gate, const FinGateBook *book, int32 tenant_id,
			const FinGateKeys *keys, const FinMovement *movement)
{
	const FinGateLimit *limits[FIN_BUCKETS_AT_ONCE];
	FinBucket	buckets[FIN_BUCKETS_AT_ONCE];
	FinBucketRefusal refusal;
	int			n = find_limits(book, tenant_id, keys,
								movement->from->account_id, limits, buckets);

	if (n == 0)
		return NULL;
	if (!fin_bucket_available())
		return fault_uncounted(limits[0]);
	if (!fin_bucket_take(buckets, n, &refusal))
		return fault_too_many(limits[refusal.which], &refusal);
	note_taken(gate, buckets, n);
	return NULL;
}

const FinFault *
fin_gate_check(FinGate *gate, int32 tenant_id, const FinMovement *movement,
			   const char *type)
{
	const FinGateBook *book;
	const FinGatePause *pause;
	FinGateKeys keys;

	book = fin_gate_book(tenant_id);
	fin_gate_note_check();
	if (book->npauses == 0 && book->nlimits == 0)
		return NULL;
	fin_gate_keys(tenant_id, movement->from->account_id,
				  movement->to->account_id, type, movement->from->currency,
				  &keys);
	pause = find_pause(book, &keys);
	if (pause != NULL)
		return fin_gate_fault_paused(pause);
	/* what is captured, or let through, was counted when it was held */
	if (book->nlimits == 0 || movement->action == FIN_CAPTURE ||
		movement->action == FIN_UNPARK)
		return NULL;
	return take_tokens(gate, book, tenant_id, &keys, movement);
}

void
fin_gate_init(void)
{
	fin_gate_book_init();
	fin_gate_moved_init();
}
