/*
 * posting_import.c
 *		Orders of the past: the ids that imported history gets.
 *
 * Owns nothing between calls.
 *
 * An imported transfer's id is drawn from the millisecond in which it was
 * recorded, so that partitions, histories and balances of a moment find it
 * where it belongs: the lowest free one there, above those drawn before in the
 * same call.  A millisecond has four million ids, since those of nodes above
 * ours are used as well; what is more goes into the next.  Ids are unique in
 * the tenant, as the primary key is.  Nobody else draws ids of the past, so
 * those of other imports are all that may be in the way, and these wait for
 * each other (store_import.c).
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "ident.h"
#include "posting_parts.h"

/* ids that are not taken */
typedef struct FreeIds
{
	int32		tenant_id;
	int64		last;			/* drawn so far */
	int64		taken;			/* the highest there is below end; 0: none */
	int64		end;			/* of the milliseconds of all orders */
	int64		known_end;		/* from last to here, none is taken */
} FreeIds;

/* the lowest id of the millisecond after that of 'id' */
static int64
next_millisecond(int64 id)
{
	return ((id >> FIN_ID_TIME_SHIFT) + 1) << FIN_ID_TIME_SHIFT;
}

static char *
time_text(TimestampTz time)
{
	return DatumGetCString(DirectFunctionCall1(timestamptz_out,
											   TimestampTzGetDatum(time)));
}

static int64
draw(FreeIds *ids, TimestampTz when)
{
	int64		id = fin_ident_past(when, ids->last);

	while (id >= ids->known_end && (id <= ids->taken || id >= ids->end))
	{
		int64		highest;

		ids->known_end = next_millisecond(id);
		highest = fin_store_highest_transfer(ids->tenant_id, id,
											 ids->known_end);
		if (highest != 0)
			id = fin_ident_past(when, highest);
	}
	/* it must stay below the ids of now */
	if (fin_ident_time(id) >= when + USECS_PER_SEC)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("too many transfers were recorded at one time"),
				errdetail("No id within a second of %s is free.",
						  time_text(when)));
	return ids->last = id;
}

void
fin_posting_draw_past(FinPosting *posting)
{
	int			n = posting->norders;
	const FinOrder *orders = posting->orders;
	FreeIds		ids = {.tenant_id = posting->context->tenant_id};

	ids.end = next_millisecond(fin_ident_past(orders[n - 1].recorded_at, 0));
	ids.taken = fin_store_highest_transfer(ids.tenant_id,
										   fin_ident_floor(orders[0].recorded_at),
										   ids.end);
	for (int i = 0; i < n; i++)
		posting->ids[i] = draw(&ids, orders[i].recorded_at);
}

static const FinFault *
fault_later(const FinAccount *account, TimestampTz recorded_at)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_OUT_OF_ORDER,
								  "account \"%s\" has later transfers",
								  account->code);

	fin_fault_detail(fault, "Its last one is of %s, this one of %s.",
					 time_text(fin_ident_time(account->last_transfer_id)),
					 time_text(recorded_at));
	return fin_fault_hint(fault,
						  "Import history in the order in which it was recorded, before normal traffic starts on its accounts.");
}

const FinFault *
fin_posting_fault_past(const FinMovement *movement, int64 id,
					   TimestampTz recorded_at)
{
	if (id <= movement->from->last_transfer_id)
		return fault_later(movement->from, recorded_at);
	if (id <= movement->to->last_transfer_id)
		return fault_later(movement->to, recorded_at);
	return NULL;
}
