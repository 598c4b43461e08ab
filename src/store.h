/*
 * store.h
 *		The set-shaped door to the hot tables.
 *
 * Nothing outside knows how rows are written.  All functions work inside fin_query_begin/end; what they return is
 * allocated in the context given, or in static memory as said.
 */
#ifndef FIN_STORE_H
#define FIN_STORE_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "engine.h"

/* one row of finance.transfer, both sides resolved */
typedef struct FinTransferRow
{
	int64		id;
	int32		tenant_id;
	int64		from_account_id;
	int64		to_account_id;
	int32		scale;
	bool		completed;		/* else rejected: no versions */
	FinAmount	amount;
	FinMoved	moved;
	TimestampTz recorded_at;
	TimestampTz effective_at;
	bool		has_effective_at;
	pg_uuid_t	trace_id;
	const char *status;
	const char *type;
	const char *currency;
	const char *reference;		/* or NULL */
	Jsonb	   *metadata;		/* or NULL */
} FinTransferRow;

/* one row of finance.idempotency_key */
typedef struct FinKeyRow
{
	const char *key;
	int64		transfer_id;
	int64		expected_from_version;	/* or FIN_NO_VERSION */
	int64		expected_to_version;
} FinKeyRow;

/* one row of finance.risk_decision */
typedef struct FinDecisionRow
{
	int64		transfer_id;
	const char *rule;
	const char *kind;
	const char *observed;
	const char *threshold;
} FinDecisionRow;

/* the account's id, or 0 when there is none of this code */
extern int64 fin_store_find_account(int32 tenant_id, const char *code);

/* after an account was not as the code cache said */
extern void fin_store_forget_account(int32 tenant_id, const char *code);

/*
 * Reads and locks (FOR NO KEY UPDATE) the accounts of these ids, ascending and
 * distinct, in that order.  Fills accounts[0..found-1], ascending; codes and
 * types are allocated in 'memory'.  Returns how many were found.
 */
extern int	fin_store_lock_accounts(int32 tenant_id, const int64 *ids, int n,
									FinAccount *accounts, MemoryContext memory);

/* writes totals, version and counters of the changed accounts */
extern void fin_store_write_accounts(int32 tenant_id, FinAccount *accounts,
									 int n);

/* the constraint of an account's row, all columns given; 23514 */
extern void fin_store_check_totals(const Datum *values, const bool *nulls);

extern void fin_store_write_transfers(const FinTransferRow *rows, int n);

/* false when the row is not there; texts allocated in 'memory' */
extern bool fin_store_read_transfer(int32 tenant_id, int64 id,
									FinTransferRow *row, MemoryContext memory);

/*
 * Takes the key for its transfer.  False when another committed transfer has
 * it; waits for one that is under way.
 */
extern bool fin_store_take_key(int32 tenant_id, const FinKeyRow *row);

/* false when nobody has the key */
extern bool fin_store_read_key(int32 tenant_id, const char *key,
							   FinKeyRow *row);

extern void fin_store_write_decisions(int32 tenant_id,
									  const FinDecisionRow *rows, int n);

/* name of the rule that rejected the transfer, or NULL */
extern char *fin_store_read_rejection(int32 tenant_id, int64 transfer_id,
									  MemoryContext memory);

#endif							/* FIN_STORE_H */
