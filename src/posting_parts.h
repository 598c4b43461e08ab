/*
 * posting_parts.h
 *		What the parts of the posting module share; included by posting*.c
 *		only.
 *
 * posting.c judges and computes one order, and is the way of the whole set;
 * posting_lock.c finds and locks what the orders are about; posting_chain.c
 * settles those that stand or fall together; posting_fault.c words what is
 * wrong with one; posting_key.c takes idempotency keys and answers repeated
 * requests; posting_reversal.c judges what is given back; posting_import.c
 * draws the ids of imported history; posting_meter.c counts what passed;
 * posting_write.c writes what was settled; posting_expire.c gives back holds
 * that are over; posting_park.c parks what has to be reviewed or confirmed
 * first, and ends that.
 */
#ifndef FIN_POSTING_PARTS_H
#define FIN_POSTING_PARTS_H

#include "gate.h"
#include "meter.h"
#include "posting.h"
#include "risk.h"

/* the orders of one call that state the same key */
typedef struct FinKeyGroup
{
	const char *key;
	int			owner;			/* the order it stands for; -1: none yet */
	int			answer;			/* the order whose transfer answers it: the
								 * owner, or what risk rejected of its journal */
	bool		is_taken;		/* by an earlier call, whose answer is given */
	int64		inserted_id;	/* transfer we took it for; 0: not taken */
	FinAmount	inserted_remaining; /* what its hold had left, as noted then */
} FinKeyGroup;

/* an account or a hold as it was before a member of the open chain */
typedef struct FinUndo
{
	FinAccount *account;		/* or NULL: */
	FinHold    *hold;
	FinAccount	saved_account;
	FinHold		saved_hold;
} FinUndo;

typedef struct FinPosting
{
	const FinContext *context;
	MemoryContext memory;		/* the caller's: for outcomes */
	FinPostingMode mode;
	const FinOrder *orders;
	FinOutcome *outcomes;
	int			norders;
	int64	   *ids;			/* per order, ascending: drawn for it */
	int64	   *from_ids;		/* per order; 0: there is no such account */
	int64	   *to_ids;
	FinAccount *accounts;		/* locked, ascending by id */
	FinAccount *accounts_found; /* as they were */
	int			naccounts;
	FinHold    *holds;			/* read, ascending by id; then new ones */
	FinHold    *holds_found;
	int			nholds;
	int			nholds_found;
	RiskBook   *rules;			/* in force; NULL: none */
	FinMeter   *meter;			/* NULL: the rules count nothing */
	FinMeterEvent *events;		/* per order, with a meter; from_id 0: none */
	FinVerdict **verdicts;		/* per order; NULL: nothing to record */
	FinMeterEvent *parked;		/* by these orders, with a meter */
	bool		was_judged;		/* an order of the chain at hand, by rules */
	int			nparked;
	FinKeyGroup *groups;		/* ascending by key */
	int			ngroups;
	int		   *group_of;		/* per order; -1: no key */
	FinDueHold *hindering;		/* [FIN_EXPIRY_BATCH]: over, but in the way */
	int			nhindering;
	char	   *asked;			/* per account and side, both from when needed */
	FinGate		gate;
	FinUndo    *undo;			/* of the open chain */
	int			nundo;
	int			undo_size;
	TimestampTz now;			/* the clock of finance */
	TimestampTz recorded_at;
	DateADT		business_date;
	TimeADT		time_of_day;
} FinPosting;

/* ---- posting.c ---- */

/* order i failed; takes over the fault */
extern void fin_posting_fail(FinPosting *posting, int i, const FinFault *fault);

/* what becomes of the order, computed; false when it did not come off */
extern bool fin_posting_settle_order(FinPosting *posting, int i, bool in_chain);

/* ---- posting_lock.c ---- */

/* does it take from a hold that is there already? */
extern bool fin_posting_is_of_hold(const FinOrder *order);
extern bool fin_posting_names_one_account(const FinOrder *order);

/* resolves the orders' accounts, and locks them */
extern void fin_posting_find_and_lock(FinPosting *posting);

/*
 * Reads the holds that orders name.  Before their accounts are locked this
 * tells only which accounts those are; afterwards the holds stand.
 */
extern void fin_posting_read_holds(FinPosting *posting);

/* one per order, in their order, above every id the accounts have seen */
extern void fin_posting_draw_ids(FinPosting *posting);

/* NULL: there is none */
extern FinAccount *fin_posting_find_locked(const FinPosting *posting, int64 id);
extern FinHold *fin_posting_find_hold(const FinPosting *posting,
									  int64 hold_id);

/* ---- posting_chain.c ---- */

/* the last member of the chain that starts there; a chain may be of one */
extern int	fin_posting_chain_end(const FinPosting *posting, int start);

/* what a movement will change, for the chain it is a member of */
extern void fin_posting_save_for_undo(FinPosting *posting,
									  const FinMovement *movement);

/* fills the outcomes of all orders, in memory */
extern void fin_posting_settle_all(FinPosting *posting);

/* ---- posting_fault.c: each makes the fault of one order ---- */

extern FinFault *fin_posting_fault_unknown_hold(int64 hold_id);
extern FinFault *fin_posting_fault_same(const char *code);
extern FinFault *fin_posting_fault_finding(const FinMovement *movement,
										   FinFinding finding);
extern FinFault *fin_posting_fault_rejected(const FinVerdict *verdict);
extern FinFault *fin_posting_fault_parked(const FinHold *hold);
extern FinFault *fin_posting_fault_not_parked(const FinVerdict *verdict);

/* ---- posting_reversal.c ---- */

/*
 * May order i give back that much of what it reverses?  Settles the amount of
 * one that gives back all that is left.  NULL: it may.
 */
extern const FinFault *fin_posting_check_reversal(const FinPosting *posting,
												  int i, FinMovement *movement);

/* ---- posting_expire.c ---- */

/*
 * Do holds that are over, but not given back, keep the movement from passing
 * in full?  Adds them to those that are known to.
 */
extern bool fin_posting_is_hindered(FinPosting *posting,
									const FinMovement *movement);

/* ---- posting_park.c ---- */

/* the row and the hold of order i are those of one that is parked */
extern void fin_posting_park(FinPosting *posting, int i, FinHold *hold,
							 const FinVerdict *verdict);

/* reviews that were begun, and those that ended */
extern void fin_posting_write_reviews(FinPosting *posting);

/* the order that settles what is parked so; allocated in 'memory' */
extern void fin_posting_make_settlement(int32 tenant_id,
										const FinParked *parked,
										const FinSettlement *settlement,
										MemoryContext memory,
										FinOrder *order);

/* as fin_posting_lock_parked(), when the accounts are locked */
extern bool fin_posting_read_parked(int32 tenant_id, int64 transfer_id,
									FinParked *parked, MemoryContext memory);

/* ---- posting_key.c ---- */

extern void fin_posting_group_keys(FinPosting *posting);

/*
 * Answers order i with the first answer of its key, if the key is known to be
 * taken or 'failed' says to look.  False: the order stands for itself.
 */
extern bool fin_posting_replay(FinPosting *posting, int i, bool failed);

/*
 * Looks up the keys for which orders of the chain from start to end were
 * carried out before the culprit failed; true when an earlier call has taken
 * one of them.
 */
extern bool fin_posting_learn_keys(FinPosting *posting, int start, int culprit,
								   int end);

/* false when some were taken meanwhile: settle again */
extern bool fin_posting_take_keys(FinPosting *posting);

/* ---- posting_meter.c ---- */

/* under the accounts' locks, before ids are drawn */
extern void fin_posting_hold_rules(FinPosting *posting);

/*
 * Order i as risk measures it, with the amount the movement has; NULL: the
 * tenant measures nothing.
 */
extern const FinMeterEvent *fin_posting_event(FinPosting *posting, int i,
											  const FinMovement *movement);

/* it was carried out */
extern void fin_posting_count(FinPosting *posting, int i,
							  const FinMovement *movement);

/* ---- posting_import.c: when all orders have a recorded_at, ascending ---- */

extern void fin_posting_draw_past(FinPosting *posting);

/* LG019 when one of the accounts has an id that is not below this one */
extern const FinFault *fin_posting_fault_past(const FinMovement *movement,
											  int64 id, TimestampTz recorded_at);

/* ---- posting_write.c ---- */

extern void fin_posting_write(FinPosting *posting);

#endif							/* FIN_POSTING_PARTS_H */
