/*
 * meter_parts.h
 *		What the parts of the meter module share; included by meter*.c only.
 */
#ifndef FIN_METER_PARTS_H
#define FIN_METER_PARTS_H

#include "meter.h"

/* of a class: the longest prefix, a space, and a text */
#define FIN_METER_CLASS_SIZE	(FIN_METER_TEXT_MAX + 32)

/*
 * The head of a state: scale of its amounts, and of a type the last transfer.
 * Where its totals begin; NULL: damaged.
 */
extern const unsigned char *fin_meter_state_head(const bytea *state,
												 int *scale, int64 *last_id);

#endif							/* FIN_METER_PARTS_H */
