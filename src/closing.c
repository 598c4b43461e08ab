/*
 * closing.c
 *		finance.close_account(): the rest of an account moved away, and the
 *		account closed.
 *
 * Owns nothing between calls.
 *
 * Both accounts are locked first, in ascending order of id, and stay locked: so
 * the balance that is read is the one that is moved, and no order of closings
 * deadlocks.  Posting and the change of status lock them again, which waits for
 * nobody, and see the account as the step before left it.  Each step is a query
 * scope of its own, since posting must begin as the caller.
 */
#include "postgres.h"

#include "account.h"
#include "argument.h"
#include "errors.h"
#include "posting.h"
#include "query.h"

#define CLOSING_TYPE "closing"	/* of the transfer */

typedef struct Closing
{
	const FinContext *context;
	const char *code;
	const char *to_code;		/* or NULL */
	const char *reason;			/* or NULL */
	int64		account_id;
	int64		to_id;
	int64		version;
	bool		is_closed;
	int32		scale;
	FinAmount	balance;		/* to move */
	int64		transfer_id;	/* that moved it, or 0 */
} Closing;

/* nothing must be left when it is closed, whatever had to remain until now */
static void
lift_limits(const Closing *closing, FinAccount *account)
{
	FinAccountChange change = {.operation = "close_account"};
	FinAccount	before = *account;
	bool		is_floor = account->has_min_available &&
		account->min_available > 0;
	bool		is_ceiling = account->has_max_balance &&
		account->max_balance < 0;

	if (!is_floor && !is_ceiling)
		return;
	if (is_floor)
		account->min_available = 0;
	if (is_ceiling)
		account->max_balance = 0;
	change.reason = closing->reason;
	fin_account_change_limits(closing->context, &before, account, &change);
}

/* locks, reads what there is to move, and clears the way for it */
static void
prepare(Closing *closing)
{
	const char *codes[2] = {closing->code, closing->to_code};
	bool		has_to = closing->to_code != NULL;
	int			which[2];
	FinQueryScope scope;
	FinAccount *accounts;
	FinAccount *account;

	fin_query_begin(&scope);
	accounts = fin_account_lock_all(closing->context, codes, has_to ? 2 : 1,
									which);
	account = &accounts[which[0]];
	closing->account_id = account->account_id;
	closing->to_id = has_to ? accounts[which[1]].account_id : 0;
	closing->version = account->version;
	closing->is_closed = account->status == FIN_ACCOUNT_CLOSED;
	closing->scale = account->scale;
	closing->balance = fin_engine_balance(account);
	if (!closing->is_closed)
	{
		fin_account_refuse_holds(closing->context, account);
		if (!has_to)
			fin_account_refuse_balance(account);
		if (closing->balance != 0)
			lift_limits(closing, account);
	}
	fin_query_end(&scope);
}

/* by id, and strict: a closing that risk rejects is none */
static void
move_balance(Closing *closing)
{
	bool		is_owing = closing->balance < 0;
	FinOrder	order = {0};
	FinOutcome	outcome;

	order.action = FIN_TRANSFER;
	order.from_id = is_owing ? closing->to_id : closing->account_id;
	order.to_id = is_owing ? closing->account_id : closing->to_id;
	order.closing_id = closing->account_id;
	order.amount = fin_amount_encode(is_owing ? -closing->balance :
									 closing->balance, closing->scale);
	order.type = CLOSING_TYPE;
	order.strict = true;
	order.expected_from_version = FIN_NO_VERSION;
	order.expected_to_version = FIN_NO_VERSION;
	fin_posting_execute(&order, 1, &outcome, FIN_POSTING_RAISE);
	closing->transfer_id = outcome.row.id;
}

/* checks again that it is empty: a trigger may have moved money meanwhile */
static void
finish(Closing *closing)
{
	FinAccountChange change = {.operation = "close_account"};
	FinQueryScope scope;
	FinAccount	account;

	change.reason = closing->reason;
	change.to_account = closing->to_code;
	change.transfer_id = closing->transfer_id;
	fin_query_begin(&scope);
	fin_context_resume(closing->context);
	fin_account_lock(closing->context, closing->code, &account);
	fin_account_change_status(closing->context, &account, FIN_ACCOUNT_CLOSED,
							  &change);
	closing->version = account.version;
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_close_account);

/*
 * finance.close_account(code, to_account, reason) returns bigint
 *
 * Moves the account's balance to to_account by a transfer of type closing, or
 * from to_account when it is negative, and closes the account, all or nothing.
 * A freeze of the account does not stop that; risk may.  A limit that would
 * keep its balance from zero (min_available above, max_balance below) becomes
 * zero first.  to_account may be null where the balance is zero.  An account
 * that is closed already stays as it is.
 *
 * Result: the account's version.  Errors: LG002 unknown account, LG008 both are
 * the same, 55000 holds are open, or a balance and no to_account; as transfer():
 * LG001, LG003, LG004, LG006 when to_account cannot give or take the balance;
 * LG101 rejected by risk.  Locks: both accounts, in ascending order of id.
 */
Datum
finance_close_account(PG_FUNCTION_ARGS)
{
	Closing		closing = {0};

	closing.code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	closing.to_code = fin_argument_text_or_null(fcinfo, 1, "to_account",
												FIN_CODE_LENGTH_MAX);
	closing.reason = fin_argument_text_or_null(fcinfo, 2, "reason",
											   FIN_REASON_LENGTH_MAX);
	if (closing.to_code != NULL && strcmp(closing.code, closing.to_code) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_SAME_ACCOUNT),
				errmsg("to_account must be another account"),
				errdetail("Both are \"%s\".", closing.code));
	closing.context = fin_context_hold();
	prepare(&closing);
	if (closing.is_closed)
		PG_RETURN_INT64(closing.version);
	if (closing.balance != 0)
		move_balance(&closing);
	finish(&closing);
	PG_RETURN_INT64(closing.version);
}
