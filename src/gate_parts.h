/*
 * gate_parts.h
 *		What the parts of the gate share; included by gate*.c only.
 *
 * gate.c judges one movement; gate_book.c keeps what is paused and limited;
 * gate_moved.c remembers what the transaction moved and looks again before it
 * commits; gate_scope.c reads what a pause or a limit is for; gate_pause.c and
 * gate_rate.c are what operators call.
 */
#ifndef FIN_GATE_PARTS_H
#define FIN_GATE_PARTS_H

#include "lib/stringinfo.h"

#include "argument.h"
#include "gate.h"

/* most pauses, and most limits, of one tenant */
#define FIN_GATE_ROWS_MAX		1000

/* "account=" and a code */
#define FIN_SCOPE_LENGTH_MAX	(FIN_CODE_LENGTH_MAX + 16)

/* what a scope is about */
typedef enum FinGateKind
{
	FIN_GATE_EVERYWHERE,		/* all tenants */
	FIN_GATE_ALL,				/* 'all': of the tenant */
	FIN_GATE_TENANT,			/* 'tenant' */
	FIN_GATE_EACH_ACCOUNT,		/* 'account' */
	FIN_GATE_ACCOUNT,			/* 'account=CODE' */
	FIN_GATE_TYPE,				/* 'type=NAME' */
	FIN_GATE_CURRENCY			/* 'currency=CODE' */
} FinGateKind;

/*
 * A scope as one number, to be looked up by.  Two scopes of one number would be
 * taken for each other; that 64 bits fall together, nobody lives to see.
 */
typedef uint64 FinGateKey;

/* the keys of one movement */
typedef struct FinGateKeys
{
	FinGateKey	tenant;
	FinGateKey	from;
	FinGateKey	to;
	FinGateKey	type;
	FinGateKey	currency;
} FinGateKeys;

typedef struct FinGatePause
{
	FinGateKey	key;
	TransactionId xmin;			/* who paused */
	const char *scope;
	const char *reason;
	TimestampTz since;
} FinGatePause;

typedef struct FinGateLimit
{
	FinGateKey	key;
	int64		limit_id;
	const char *scope;
	const char *rate_text;
	FinBucketLimit limit;
} FinGateLimit;

/* of one tenant; what is everywhere paused is in each */
typedef struct FinGateBook
{
	int32		tenant_id;
	int			npauses;
	int			nlimits;
	FinGatePause *pauses;		/* ascending by key */
	FinGateLimit *limits;		/* ascending by key */
} FinGateBook;

/* ---- gate_scope.c ---- */

typedef struct FinGateScope
{
	FinGateKind kind;
	const char *text;			/* as it was given */
	const char *name;			/* behind the '=', or NULL */
	int64		account_id;		/* or 0 */
} FinGateScope;

extern FinGateKey fin_gate_key(FinGateKind kind, int32 tenant_id,
							   int64 account_id, const char *name);
extern void fin_gate_keys(int32 tenant_id, int64 from_id, int64 to_id,
						  const char *type, const char *currency,
						  FinGateKeys *keys);

/* the key of a stored scope */
extern FinGateKey fin_gate_scope_key(int32 tenant_id, const char *text,
									 int64 account_id);

/* reads a scope of one of the kinds that are set in 'kinds'; 22023 */
extern void fin_gate_parse_scope(const char *text, uint32 kinds,
								 const char *hint, FinGateScope *scope);

/*
 * Is there such an account, type or currency?  Fills in the account's id.
 * Call inside fin_query_begin/end.  Errors: LG002, LG009, LG017.
 */
extern void fin_gate_resolve_scope(int32 tenant_id, FinGateScope *scope);

/* ---- gate_book.c ---- */

/* current as of the last AcceptInvalidationMessages(); inside query scope */
extern const FinGateBook *fin_gate_book(int32 tenant_id);

/* grows when pauses are read anew; 0: what was read is out of date */
extern uint64 fin_gate_pauses_read(void);

extern const FinGatePause *fin_gate_find_pause(const FinGateBook *book,
											   FinGateKey key);
extern const FinGateLimit *fin_gate_find_limit(const FinGateBook *book,
											   FinGateKey key);
extern void fin_gate_book_init(void);

/* ---- gate_moved.c ---- */

/* a movement of this transaction is about to be checked with what was read */
extern void fin_gate_note_check(void);
extern void fin_gate_moved_init(void);

/* ---- gate.c ---- */

extern FinFault *fin_gate_fault_paused(const FinGatePause *pause);

#endif							/* FIN_GATE_PARTS_H */
