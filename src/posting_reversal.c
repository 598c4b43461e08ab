/*
 * posting_reversal.c
 *		What may be given back of a transfer.
 *
 * Owns nothing.  Reads the original's row, which never changes, and what was
 * given back of it, which changes only under the locks of its two accounts;
 * these are the reversal's, and held.  Allocates in the current context.
 */
#include "postgres.h"

#include "errors.h"
#include "posting_parts.h"

/* NULL: it moved money, and gives nothing back itself */
static const FinFault *
fault_of_kind(const FinTransferRow *original)
{
	if (original->reverses_id != 0)
		return fin_fault_detail(fin_fault(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
										  "transfer " INT64_FORMAT " is a reversal",
										  original->id),
								"It gives back transfer " INT64_FORMAT ", and is not given back itself.",
								original->reverses_id);
	if (strcmp(original->status, "completed") != 0)
		return fin_fault_detail(fin_fault(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
										  "transfer " INT64_FORMAT " moved no money",
										  original->id),
								"Its status is %s.", original->status);
	return NULL;
}

/* by orders of this call, which are not written yet */
static FinAmount
sum_of_call(const FinPosting *posting, int before, int64 transfer_id)
{
	FinAmount	sum = 0;

	for (int i = 0; i < before; i++)
	{
		const FinOutcome *outcome = &posting->outcomes[i];

		if (outcome->row.id != 0 && outcome->row.reverses_id == transfer_id &&
			strcmp(outcome->row.status, "completed") == 0 &&
			!outcome->replayed)
			sum += outcome->row.amount;
	}
	return sum;
}

static const FinFault *
fault_exceeds(const FinTransferRow *original, FinAmount left, FinAmount wanted)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_EXCEEDS_REMAINDER,
								  "transfer " INT64_FORMAT " has less left to reverse than that",
								  original->id);
	char	   *amount = fin_amount_text(original->amount, original->scale);

	if (left == 0)
		return fin_fault_detail(fault, "All of its %s was given back.", amount);
	return fin_fault_detail(fault, "Of %s, %s is left; required is %s.", amount,
							fin_amount_text(left, original->scale),
							fin_amount_text(wanted, original->scale));
}

const FinFault *
fin_posting_check_reversal(const FinPosting *posting, int i,
						   FinMovement *movement)
{
	int32		tenant_id = posting->context->tenant_id;
	int64		id = posting->orders[i].reverses_id;
	FinTransferRow original;
	const FinFault *fault;
	FinAmount	left;

	if (!fin_store_read_transfer(tenant_id, id, &original, NULL, NULL,
								 CurrentMemoryContext))
		return fin_fault(ERRCODE_FIN_UNKNOWN_TRANSFER,
						 "transfer " INT64_FORMAT " does not exist", id);
	fault = fault_of_kind(&original);
	if (fault != NULL)
		return fault;
	left = original.amount -
		fin_store_sum_reversed(tenant_id, id, original.scale) -
		sum_of_call(posting, i, id);
	if (movement->everything)
	{
		movement->amount = left;
		movement->everything = false;
	}
	if (left == 0 || movement->amount > left)
		return fault_exceeds(&original, left, movement->amount);
	return NULL;
}
