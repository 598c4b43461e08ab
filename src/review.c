/*
 * review.c
 *		Deciding about what is parked: finance.review_transfer(),
 *		confirm_challenge() and new_challenge_token().
 *
 * What is parked and how it ends is posting_park.c's; the end of its time is
 * expire.c's.  Here it is judged who may end it, and how.
 *
 * Owns nothing between calls.
 *
 * Locks: the accounts in ascending order of id, then the row of
 * finance.risk_review; posting locks the accounts again, which waits for
 * nobody.  Looking and settling are a query scope each, since posting must
 * begin as the caller.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "argument.h"
#include "audit.h"
#include "errors.h"
#include "ident.h"
#include "json.h"
#include "order.h"
#include "query.h"

/* columns of finance.challenge_result before those of transfer_result */
#define OWN_COLUMNS 2

static int64
id_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("id must not be null"));
	return PG_GETARG_INT64(0);
}

static void
refuse_unknown(int64 id)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_CASE),
			errmsg("transfer " INT64_FORMAT " was never parked", id),
			errhint("finance.review shows what is."));
}

static void
refuse_over(const FinParked *parked)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_HOLD_NOT_OPEN),
			errmsg("the time of transfer " INT64_FORMAT " is over",
				   parked->transfer_id),
			errdetail("It is settled by itself: the transfer is %s.",
					  parked->default_approve ? "carried out" : "given back"));
}

/* locked, and open */
static void
lock_parked(const FinContext *context, int64 id, MemoryContext memory,
			FinParked *parked)
{
	if (!fin_posting_lock_parked(context->tenant_id, id, parked, memory))
		refuse_unknown(id);
	if (parked->is_open)
		return;
	ereport(ERROR,
			errcode(ERRCODE_FIN_HOLD_NOT_OPEN),
			errmsg("transfer " INT64_FORMAT " is decided already", id),
			parked->reviewer == NULL ?
			errdetail("Its review is %s.", parked->status) :
			errdetail("Its review is %s, by \"%s\".", parked->status,
					  parked->reviewer));
}

static bool
is_over(const FinParked *parked)
{
	return parked->expires_at <= fin_ident_now();
}

/* ------------------------------------------------------------------------
 * review
 * ------------------------------------------------------------------------ */

/*
 * An actor is who the application says he is, so two actors may be one session
 * user; but who acts as himself, with a login of his own, cannot be another by
 * saying so.  The constraint risk_review_maker_checker says the same.
 */
static bool
is_maker(const FinContext *context, const FinParked *parked)
{
	if (strcmp(context->actor, parked->requested_by) == 0)
		return true;
	if (strcmp(context->session_user, parked->requested_session_user) != 0)
		return false;
	return strcmp(parked->requested_by, parked->requested_session_user) == 0 ||
		strcmp(context->actor, context->session_user) == 0;
}

static void
check_review(const FinContext *context, const FinParked *parked, bool approve)
{
	if (is_maker(context, parked))
		ereport(ERROR,
				errcode(ERRCODE_FIN_MAKER_IS_CHECKER),
				errmsg("transfer " INT64_FORMAT " must be reviewed by another person",
					   parked->transfer_id),
				errdetail("\"%s\" requested it, in a session of \"%s\".",
						  parked->requested_by,
						  parked->requested_session_user));
	if (approve && parked->parking == FIN_PARKED_FOR_CHALLENGE)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("transfer " INT64_FORMAT " waits for its token, not for approval",
					   parked->transfer_id),
				errhint("finance.confirm_challenge() carries it out."));
	/* to stop money it is never too late */
	if (approve && is_over(parked))
		refuse_over(parked);
}

PG_FUNCTION_INFO_V1(finance_review_transfer);

/*
 * finance.review_transfer(id bigint, approve boolean, comment text)
 * returns finance.transfer_result
 *
 * approve: carries out what is parked, as a transfer of its own whose hold_id
 * is id; or, where a hold was asked for, makes it one.  Else gives it back; so
 * may a challenge be.  comment: 1 to 1024 bytes, needed to reject.
 *
 * Errors: 22004, 22023; LG110 not parked; LG013 decided already, or its time
 * is over; LG112 by who requested it; 55000 approval of a challenge; and those
 * of capture(): LG004 an account is frozen, LG016 a reversal of which nothing
 * is left.  Then it stays open.  Locks: the accounts, in ascending order of id.
 */
Datum
finance_review_transfer(PG_FUNCTION_ARGS)
{
	int64		id = id_argument(fcinfo);
	FinSettlement settlement = {0};
	const FinContext *context;
	FinQueryScope scope;
	FinParked	parked;
	FinOutcome	outcome;
	bool		approve;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("approve must not be null"));
	approve = PG_GETARG_BOOL(1);
	settlement.end = approve ? FIN_REVIEW_APPROVED : FIN_REVIEW_REJECTED;
	settlement.comment = approve ?
		fin_argument_text_or_null(fcinfo, 2, "comment", FIN_REASON_LENGTH_MAX) :
		fin_argument_text(fcinfo, 2, "comment", FIN_REASON_LENGTH_MAX);
	context = fin_context_hold();
	fin_query_begin(&scope);
	lock_parked(context, id, scope.caller, &parked);
	check_review(context, &parked, approve);
	settlement.of_challenge = parked.parking == FIN_PARKED_FOR_CHALLENGE;
	fin_query_end(&scope);
	fin_posting_settle(&parked, &settlement, &outcome);
	return fin_order_answer(fcinfo, &outcome);
}

/* ------------------------------------------------------------------------
 * challenge
 * ------------------------------------------------------------------------ */

/* what is no token at all is not counted: it cannot be the right one */
static char *
token_argument(FunctionCallInfo fcinfo)
{
	char	   *token;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("token must not be null"));
	token = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strlen(token) != FIN_TOKEN_LENGTH ||
		strspn(token, "0123456789abcdef") != FIN_TOKEN_LENGTH)
		ereport(ERROR,
				errcode(ERRCODE_FIN_WRONG_TOKEN),
				errmsg("that is not a token"),
				errdetail("A token has %d digits of 0 to 9 and a to f.",
						  FIN_TOKEN_LENGTH));
	return token;
}

/* never the token */
static void
audit_challenge(const FinContext *context, const FinParked *parked,
				const char *operation, const char *status)
{
	FinAuditRecord record = {0};
	StringInfoData json;

	initStringInfo(&json);
	fin_json_int64(&json, "hold_id", parked->transfer_id);
	record.operation = operation;
	record.status = status;
	record.transfer_id = parked->transfer_id;
	record.request = fin_json_end(&json);
	fin_context_resume(context);
	fin_audit_append(&record, 1);
}

static void
lock_challenge(const FinContext *context, int64 id, MemoryContext memory,
			   FinParked *parked)
{
	lock_parked(context, id, memory, parked);
	if (parked->parking != FIN_PARKED_FOR_CHALLENGE)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_CASE),
				errmsg("transfer " INT64_FORMAT " has no token", id),
				errdetail("It waits for a review."));
	if (is_over(parked))
		refuse_over(parked);
}

/* how it was first answered */
static void
answer_as_parked(const FinContext *context, const FinParked *parked,
				 MemoryContext memory, FinOutcome *outcome)
{
	memset(outcome, 0, sizeof(FinOutcome));
	if (!fin_store_read_transfer(context->tenant_id, parked->transfer_id,
								 &outcome->row, &outcome->from_code,
								 &outcome->to_code, memory))
		refuse_unknown(parked->transfer_id);
	outcome->rule = fin_store_read_rejection(context->tenant_id,
											 parked->transfer_id, memory);
	outcome->replayed = true;
	outcome->has_remaining = true;
	outcome->remaining = outcome->row.amount;
}

static Datum
answer_challenge(FunctionCallInfo fcinfo, bool confirmed,
				 const FinParked *parked, const FinOutcome *outcome)
{
	TupleDesc	tupdesc;
	Datum		values[OWN_COLUMNS + FIN_RESULT_COLUMNS];
	bool		nulls[OWN_COLUMNS + FIN_RESULT_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		tupdesc->natts != OWN_COLUMNS + FIN_RESULT_COLUMNS)
		elog(ERROR, "finance.challenge_result is not as this library expects");
	values[0] = BoolGetDatum(confirmed);
	nulls[0] = false;
	values[1] = Int32GetDatum(FIN_WRONG_TOKENS_MAX - parked->wrong_tokens);
	nulls[1] = confirmed;
	fin_order_result(outcome, values + OWN_COLUMNS, nulls + OWN_COLUMNS);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

PG_FUNCTION_INFO_V1(finance_confirm_challenge);

/*
 * finance.confirm_challenge(id bigint, token text)
 * returns finance.challenge_result
 *
 * The right token carries out what is parked.  A wrong one is an answer, not
 * an error, so that it is counted when the caller commits: confirmed false,
 * attempts_left, and the transfer as it was parked; the last one gives it
 * back.  Who rolls back instead has 2^128 tokens to try within its time.
 *
 * Errors: 22004; LG111 not a token at all; LG110 not parked, or waiting for a
 * review; LG013 decided already, or its time is over; and those of capture().
 * Locks: the accounts, in ascending order of id.
 */
Datum
finance_confirm_challenge(PG_FUNCTION_ARGS)
{
	int64		id = id_argument(fcinfo);
	char	   *token = token_argument(fcinfo);
	const FinContext *context = fin_context_hold();
	FinSettlement settlement = {.of_challenge = true};
	FinQueryScope scope;
	FinParked	parked;
	FinOutcome	outcome;
	bool		right;
	bool		settles;

	fin_query_begin(&scope);
	lock_challenge(context, id, scope.caller, &parked);
	right = fin_posting_is_token(context->tenant_id, &parked, token);
	if (!right)
	{
		fin_posting_count_wrong_token(context->tenant_id, &parked);
		audit_challenge(context, &parked, "confirm_challenge", "wrong_token");
	}
	settles = right || parked.wrong_tokens >= FIN_WRONG_TOKENS_MAX;
	if (!settles)
		answer_as_parked(context, &parked, scope.caller, &outcome);
	fin_query_end(&scope);
	settlement.end = right ? FIN_REVIEW_CONFIRMED : FIN_REVIEW_FAILED;
	if (settles)
		fin_posting_settle(&parked, &settlement, &outcome);
	return answer_challenge(fcinfo, right, &parked, &outcome);
}

PG_FUNCTION_INFO_V1(finance_new_challenge_token);

/*
 * finance.new_challenge_token(id bigint) returns text
 *
 * Another token in the place of one that was lost; at most FIN_TOKENS_MAX
 * times.  Neither the time nor the wrong tokens are counted anew.
 *
 * Errors: 22004; LG110 not parked, or waiting for a review; LG013 decided
 * already, or its time is over; 42501 by another than who requested it; 54000
 * too many.  Locks: as confirm_challenge().
 */
Datum
finance_new_challenge_token(PG_FUNCTION_ARGS)
{
	int64		id = id_argument(fcinfo);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	FinParked	parked;
	char	   *token;
	text	   *answer;

	fin_query_begin(&scope);
	lock_challenge(context, id, scope.caller, &parked);
	if (strcmp(context->actor, parked.requested_by) != 0 ||
		strcmp(context->session_user, parked.requested_session_user) != 0)
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("a new token of transfer " INT64_FORMAT " is for who requested it",
					   id));
	token = fin_posting_renew_token(context->tenant_id, &parked);
	if (token == NULL)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("transfer " INT64_FORMAT " had too many tokens", id),
				errdetail("The most is %d anew.", FIN_TOKENS_MAX));
	audit_challenge(context, &parked, "new_challenge_token", "completed");
	answer = MemoryContextAlloc(scope.caller, VARHDRSZ + FIN_TOKEN_LENGTH);
	SET_VARSIZE(answer, VARHDRSZ + FIN_TOKEN_LENGTH);
	memcpy(VARDATA(answer), token, FIN_TOKEN_LENGTH);
	fin_query_end(&scope);
	PG_RETURN_TEXT_P(answer);
}
