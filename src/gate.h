/*
 * gate.h
 *		May money move at all, and so often?  The kill switch and rate limits.
 */
#ifndef FIN_GATE_H
#define FIN_GATE_H

#include "bucket.h"
#include "context.h"
#include "engine.h"
#include "fault.h"
#include "store.h"

/* tokens taken for the orders of one posting; zeroed to begin */
typedef struct FinGate
{
	FinBucket  *taken;			/* in the memory context of the first taking */
	int			ntaken;
	int			size;
} FinGate;

/*
 * What keeps the movement of a transfer of that type from being done: LG104
 * transfers are paused, LG105 too many transfers, 55000 there is a rate limit
 * but nothing to count with; NULL: nothing does, and its tokens are taken.
 *
 * The pauses are those whose commit was known when AcceptInvalidationMessages()
 * was last called: call it when the accounts are locked.  Not to be asked of
 * releases, expiry and imported history, which nothing stops; captures are
 * stopped by a pause, but need no tokens.
 *
 * Call inside fin_query_begin/end.  Locks: those of the tokens' buckets, which
 * are not held on return.
 */
extern const FinFault *fin_gate_check(FinGate *gate, int32 tenant_id,
									  const FinMovement *movement,
									  const char *type);

/*
 * Puts back the tokens taken since gate->ntaken was 'mark', for what is settled
 * anew, or did not come off before any rule looked at it: else whoever makes it
 * fail could ask the rules without end.
 */
extern void fin_gate_give_back(FinGate *gate, int mark);

/*
 * This transfer passed the check and is about to be written: when the
 * transaction commits or is prepared, pauses are looked at again.
 */
extern void fin_gate_moved(const FinTransferRow *row);

extern void fin_gate_init(void);

#endif							/* FIN_GATE_H */
