/*
 * ident.h
 *		Time-ordered ids and trace ids; the clock of finance.
 *
 * An id is a positive bigint: 41 bits of milliseconds since 2020-01-01 UTC, 8
 * bits of node number (finance.node), 14 bits of sequence.
 */
#ifndef FIN_IDENT_H
#define FIN_IDENT_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#define FIN_ID_SEQUENCE_BITS	14
#define FIN_ID_NODE_BITS		8
#define FIN_ID_TIME_SHIFT		(FIN_ID_SEQUENCE_BITS + FIN_ID_NODE_BITS)

/* now, by the wall clock; superusers can stop it with finance.test_clock */
extern TimestampTz fin_ident_now(void);

/* what the clock of finance shows when the wall clock shows this */
extern TimestampTz fin_ident_shown(TimestampTz wall_clock);

/* the next id, above every id this node drew before and above 'after' */
extern int64 fin_ident_next(int64 after);

/*
 * An id of the past: the lowest of this node in the millisecond of 'when', or,
 * where that is not above 'after', the next after it, be it another node's.
 * Draws nothing; whether it is free is the caller's to know.
 */
extern int64 fin_ident_past(TimestampTz when, int64 after);

/* the millisecond an id was drawn in; the lowest id of a moment */
extern TimestampTz fin_ident_time(int64 id);
extern int64 fin_ident_floor(TimestampTz when);

/* a fresh time-ordered UUID (version 7), as trace id */
extern void fin_ident_trace(pg_uuid_t *trace);

/* shared memory, when preloaded */
extern void fin_ident_shmem_request(void);
extern void fin_ident_shmem_startup(void);

#endif							/* FIN_IDENT_H */
