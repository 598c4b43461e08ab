/*
 * store_spot.h
 *		Where rows of finance.risk_total were when this backend last met them.
 *
 * Hints: a row may have moved, or be another one by now.
 */
#ifndef FIN_STORE_SPOT_H
#define FIN_STORE_SPOT_H

#include "storage/itemptr.h"

#include "store_measure.h"

/*
 * Where the versions of the key's row began; false: not known.  Call with the
 * table open: news of one that was rewritten have come by then.
 */
extern bool fin_store_spot_find(int32 tenant_id, const FinTotalKey *key,
								ItemPointer root);
extern void fin_store_spot_note(int32 tenant_id, const FinTotalKey *key,
								const ItemPointerData *root);

extern void fin_store_spot_init(void);

#endif							/* FIN_STORE_SPOT_H */
