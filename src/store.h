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
	int64		hold_id;		/* captured, released, expired; or 0 */
	int64		journal_id;		/* or 0 */
	int64		reverses_id;	/* or 0 */
	int32		scale;
	bool		rejected;		/* by risk: changed nothing, has no versions */
	FinAmount	amount;
	FinAmount	released;		/* given back by a final capture */
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
	Jsonb	   *request;		/* what the transfer's row does not tell, or NULL */
} FinKeyRow;

/* a numeric of a row in units of 10^-scale; an error when it does not fit */
extern FinAmount fin_store_amount(Datum number, int scale);

/* the account's id, or 0 when there is none of this code */
extern int64 fin_store_find_account(int32 tenant_id, const char *code);

/* the same for many; NULL codes are passed over */
extern void fin_store_find_accounts(int32 tenant_id, const char *const *codes,
									int n, int64 *ids);

/* after an account was not as the code cache said */
extern void fin_store_forget_account(int32 tenant_id, const char *code);

/* the ids that are not 0, each once, ascending, in place; returns how many */
extern int	fin_store_distinct_ids(int64 *ids, int n);

/*
 * Reads and locks (FOR NO KEY UPDATE) the accounts of these ids, ascending and
 * distinct, in that order.  Fills accounts[0..found-1], ascending; codes and
 * types are allocated in 'memory'.  Returns how many were found.
 */
extern int	fin_store_lock_accounts(int32 tenant_id, const int64 *ids, int n,
									FinAccount *accounts, MemoryContext memory);

/*
 * Locks those of these accounts that nobody else has locked, without waiting,
 * and so in no danger of a deadlock.  Fills locked[n] with their ids, ascending,
 * and returns how many.
 */
extern int	fin_store_try_lock_accounts(int32 tenant_id, const int64 *ids,
										int n, int64 *locked);

/* writes totals, version and counters of the changed accounts */
extern void fin_store_write_accounts(int32 tenant_id, FinAccount *accounts,
									 int n);

/* the constraint of an account's row, all columns given; 23514 */
extern void fin_store_check_totals(const Datum *values, const bool *nulls);

extern void fin_store_write_transfers(const FinTransferRow *const *rows, int n);

/*
 * False when the row is not there; texts allocated in 'memory'.  from_code and
 * to_code, unless NULL, get the codes of its accounts.
 */
extern bool fin_store_read_transfer(int32 tenant_id, int64 id,
									FinTransferRow *row,
									const char **from_code,
									const char **to_code,
									MemoryContext memory);

/* the journal of these transfers, whose first names it */
extern void fin_store_write_journal(int32 tenant_id, const int64 *transfer_ids,
									int n, const char *type, Jsonb *request);

/* its transfers, in order; returns how many, 0 when there is no such journal */
extern int	fin_store_read_journal(int32 tenant_id, int64 journal_id,
								   int64 **transfer_ids);

/* how much of a transfer was given back so far */
extern FinAmount fin_store_sum_reversed(int32 tenant_id, int64 transfer_id,
										int scale);

/* that the row gives back what another transfer moved */
extern void fin_store_write_reversal(const FinTransferRow *row);

/*
 * Takes keys, distinct and ascending, for their transfers: ours[i] is false
 * where another committed transfer has the key; waits for one under way.
 * Returns how many are ours.
 */
extern int	fin_store_take_keys(int32 tenant_id, const FinKeyRow *const *rows,
								int n, bool *ours);

/* gives back a key that this call took */
extern void fin_store_drop_key(int32 tenant_id, const char *key);

/* false when nobody has the key; the request is allocated in 'memory' */
extern bool fin_store_read_key(int32 tenant_id, const char *key,
							   FinKeyRow *row, MemoryContext memory);

/*
 * The holds of these ids, as this transaction sees them now: fills
 * holds[0..found-1] in the order of the ids and returns how many there are.
 * Texts are allocated in 'memory'.
 */
extern int	fin_store_read_holds(int32 tenant_id, const int64 *hold_ids, int n,
								 FinHold *holds, MemoryContext memory);

/* 'open', 'captured' ... */
extern const char *fin_store_hold_status(FinHoldStatus status);

/* an open hold that expires: enough to give it back */
typedef struct FinDueHold
{
	int64		hold_id;
	int32		tenant_id;
	bool		parked;			/* to be settled as its review says */
	int64		from_account_id;
	int64		to_account_id;
	TimestampTz expires_at;
} FinDueHold;

#define FIN_ALL_TENANTS	(-1)

typedef enum FinDueKind
{
	FIN_DUE_ANY,
	FIN_DUE_ORDINARY,
	FIN_DUE_PARKED
} FinDueKind;

/*
 * Open holds over at 'now', of one tenant or all, in order of (expires_at,
 * hold_id) from after that of 'after' on, which may be NULL.  Fills
 * holds[limit] and returns how many there are.
 */
extern int	fin_store_due_holds(int32 tenant_id, FinDueKind kind,
								TimestampTz now, const FinDueHold *after,
								int limit, FinDueHold *holds);

/* the same of one account: those that debit it, or credit it */
extern int	fin_store_due_holds_of(int32 tenant_id, int64 account_id,
								   bool debit, TimestampTz now, int limit,
								   FinDueHold *holds);

/* when the first open hold after 'now' expires; DT_NOEND: none does */
extern TimestampTz fin_store_next_expiry(TimestampTz now);

/* inserts the new ones and updates the changed ones */
extern void fin_store_write_holds(int32 tenant_id, FinHold *holds, int n);

/* name of the rule that rejected or parked the transfer, or NULL */
extern char *fin_store_read_rejection(int32 tenant_id, int64 transfer_id,
									  MemoryContext memory);

/* what a transfer with a stated value date does to one of its accounts */
typedef struct FinValueRow
{
	int64		account_id;
	int64		transfer_id;
	TimestampTz effective_at;
	int32		scale;
	FinAmount	change;			/* of the balance */
} FinValueRow;

/* sorts the rows */
extern void fin_store_write_values(int32 tenant_id, FinValueRow *rows, int n);

/* one import of the tenant at a time, until the end of the transaction */
extern void fin_store_lock_imports(int32 tenant_id);

/* the highest id from 'low' to below 'high', committed or our own; 0: none */
extern int64 fin_store_highest_transfer(int32 tenant_id, int64 low,
										int64 high);

#endif							/* FIN_STORE_H */
