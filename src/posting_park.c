/*
 * posting_park.c
 *		Orders that risk wants reviewed or confirmed first: parked, and in the
 *		end carried out or given back.
 *
 * What is parked is a transfer with status review or challenged that holds its
 * money: a hold (finance._hold.parked) and a row of finance.risk_review, made
 * and ended together, here alone.  A challenge has a row of finance._challenge
 * besides, while it is open.  Its end is an order that names the hold and says
 * so (settles): a capture of all of it, a release, an expiry when its time is
 * over, or, where the order was itself a hold, FIN_UNPARK, which leaves an
 * ordinary one.
 *
 * The token is 128 random bits, told once; stored is SHA-256 of a salt and it.
 *
 * Owns nothing between calls.  Locks: the accounts, then the row of
 * finance.risk_review; so of a reviewer, a token and the end of its time, one
 * settles it, and the others find that.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "port.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "alert.h"
#include "ident.h"
#include "json.h"
#include "posting_parts.h"
#include "query.h"

#define RANDOM_LENGTH	16		/* bytes of a salt, and of a token */

static const char *const kinds[] = {
	[FIN_PARKED_FOR_REVIEW] = "review",
	[FIN_PARKED_FOR_CHALLENGE] = "challenge",
};

static const char *const statuses[] = {
	[FIN_REVIEW_APPROVED] = "approved",
	[FIN_REVIEW_REJECTED] = "rejected",
	[FIN_REVIEW_CONFIRMED] = "confirmed",
	[FIN_REVIEW_FAILED] = "failed",
	[FIN_REVIEW_TIMED_OUT] = "timed_out",
};

static FinQuery insert_review =
{
	.sql = "INSERT INTO finance.risk_review (tenant_id, transfer_id, kind,"
	" from_account_id, to_account_id, amount, currency, rules, version,"
	" requested_by, requested_session_user, requested_at, expires_at,"
	" default_outcome, was_hold, hold_expires_in)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
	" $15, $16)",
	.nargs = 16,
	.argtypes = {INT4OID, INT8OID, TEXTOID, INT8OID, INT8OID, NUMERICOID,
		TEXTOID, TEXTARRAYOID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, TEXTOID, BOOLOID, INTERVALOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "risk_review",
};

static FinQuery end_review =
{
	.sql = "UPDATE finance.risk_review SET status = $3, reviewer = $4,"
	" reviewer_session_user = $5, comment = $6, decided_at = $7,"
	" settled_id = $8"
	" WHERE tenant_id = $1 AND transfer_id = $2 AND status = 'open'",
	.nargs = 8,
	.argtypes = {INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TIMESTAMPTZOID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "risk_review",
};

static FinQuery count_wrong =
{
	.sql = "UPDATE finance.risk_review SET wrong_tokens = wrong_tokens + 1"
	" WHERE tenant_id = $1 AND transfer_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "risk_review",
};

static FinQuery find_accounts =
{
	.sql = "SELECT from_account_id, to_account_id FROM finance.risk_review"
	" WHERE tenant_id = $1 AND transfer_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery lock_review =
{
	.sql = "SELECT kind, status, requested_by, requested_session_user,"
	" reviewer, expires_at, default_outcome = 'approve', was_hold,"
	" hold_expires_in, wrong_tokens FROM finance.risk_review"
	" WHERE tenant_id = $1 AND transfer_id = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_challenge =
{
	.sql = "INSERT INTO finance._challenge (tenant_id, transfer_id, salt,"
	" token_hash) VALUES ($1, $2, $3, $4)",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, BYTEAOID, BYTEAOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
	.writes_one = "_challenge",
};

static FinQuery select_challenge =
{
	.sql = "SELECT salt, token_hash FROM finance._challenge"
	" WHERE tenant_id = $1 AND transfer_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
};

static FinQuery renew_challenge =
{
	.sql = "UPDATE finance._challenge SET salt = $3, token_hash = $4,"
	" renewed = renewed + 1"
	" WHERE tenant_id = $1 AND transfer_id = $2 AND renewed < $5",
	.nargs = 5,
	.argtypes = {INT4OID, INT8OID, BYTEAOID, BYTEAOID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery delete_challenge =
{
	.sql = "DELETE FROM finance._challenge"
	" WHERE tenant_id = $1 AND transfer_id = $2",
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
	.writes_one = "_challenge",
};

/* ------------------------------------------------------------------------
 * tokens
 * ------------------------------------------------------------------------ */

static bytea *
random_bytes(void)
{
	bytea	   *bytes = palloc(VARHDRSZ + RANDOM_LENGTH);

	SET_VARSIZE(bytes, VARHDRSZ + RANDOM_LENGTH);
	if (!pg_strong_random(VARDATA(bytes), RANDOM_LENGTH))
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not generate a random token"));
	return bytes;
}

static char *
make_token(void)
{
	bytea	   *bytes = random_bytes();
	char	   *token = palloc(FIN_TOKEN_LENGTH + 1);

	StaticAssertStmt(FIN_TOKEN_LENGTH == 2 * RANDOM_LENGTH,
					 "a token shows all its random bits");
	hex_encode(VARDATA(bytes), RANDOM_LENGTH, token);
	token[FIN_TOKEN_LENGTH] = '\0';
	return token;
}

static bytea *
hash_token(const bytea *salt, const char *token)
{
	Size		salt_length = VARSIZE_ANY_EXHDR(salt);
	Size		length = salt_length + strlen(token);
	bytea	   *whole = palloc(VARHDRSZ + length);

	SET_VARSIZE(whole, VARHDRSZ + length);
	memcpy(VARDATA(whole), VARDATA_ANY(salt), salt_length);
	memcpy(VARDATA(whole) + salt_length, token, strlen(token));
	return DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											   PointerGetDatum(whole)));
}

/* takes as long whatever differs */
static bool
same_hash(const bytea *a, const bytea *b)
{
	const char *left = VARDATA_ANY(a);
	const char *right = VARDATA_ANY(b);
	Size		length = VARSIZE_ANY_EXHDR(a);
	char		different = 0;

	if (length != VARSIZE_ANY_EXHDR(b))
		return false;
	for (Size i = 0; i < length; i++)
		different |= left[i] ^ right[i];
	return different == 0;
}

static char *
write_token(FinQuery *query, int32 tenant_id, int64 transfer_id)
{
	char	   *token = make_token();
	bytea	   *salt = random_bytes();
	Datum		values[5];

	values[0] = Int32GetDatum(tenant_id);
	values[1] = Int64GetDatum(transfer_id);
	values[2] = PointerGetDatum(salt);
	values[3] = PointerGetDatum(hash_token(salt, token));
	values[4] = Int32GetDatum(FIN_TOKENS_MAX);
	return fin_query_run(query, values, NULL, 0) == 1 ? token : NULL;
}

bool
fin_posting_is_token(int32 tenant_id, const FinParked *parked,
					 const char *token)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int64GetDatum(parked->transfer_id)};
	bool		isnull;
	bytea	   *salt;
	bytea	   *hash;

	if (fin_query_run(&select_challenge, values, NULL, 1) == 0)
		return false;
	salt = DatumGetByteaPP(fin_query_datum(0, 1, &isnull));
	hash = DatumGetByteaPP(fin_query_datum(0, 2, &isnull));
	return same_hash(hash, hash_token(salt, token));
}

void
fin_posting_count_wrong_token(int32 tenant_id, FinParked *parked)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int64GetDatum(parked->transfer_id)};

	fin_query_run(&count_wrong, values, NULL, 0);
	parked->wrong_tokens++;
}

char *
fin_posting_renew_token(int32 tenant_id, const FinParked *parked)
{
	return write_token(&renew_challenge, tenant_id, parked->transfer_id);
}

/* ------------------------------------------------------------------------
 * parking
 * ------------------------------------------------------------------------ */

void
fin_posting_park(FinPosting *posting, int i, FinHold *hold,
				 const FinVerdict *verdict)
{
	FinTransferRow *row = &posting->outcomes[i].row;
	bool		is_review = verdict->outcome == FIN_RISK_REVIEW;

	row->status = is_review ? "review" : "challenged";
	row->hold_id = row->id;
	hold->parking = is_review ? FIN_PARKED_FOR_REVIEW : FIN_PARKED_FOR_CHALLENGE;
	hold->expires = true;
	hold->expires_at = posting->now + (is_review ? verdict->review_timeout_us :
									   verdict->challenge_timeout_us);
}

static void
begin_review(FinPosting *posting, int i, const FinHold *hold)
{
	const FinOrder *order = &posting->orders[i];
	const FinTransferRow *row = &posting->outcomes[i].row;
	const FinVerdict *verdict = posting->verdicts[i];
	bool		approves = hold->parking == FIN_PARKED_FOR_REVIEW &&
		verdict->review_default_approve;
	Datum		values[16];
	char		nulls[16];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(row->tenant_id);
	values[1] = Int64GetDatum(row->id);
	values[2] = CStringGetTextDatum(kinds[hold->parking]);
	values[3] = Int64GetDatum(row->from_account_id);
	values[4] = Int64GetDatum(row->to_account_id);
	values[5] = fin_amount_datum(row->amount, row->scale);
	values[6] = CStringGetTextDatum(row->currency);
	values[7] = fin_alert_rules(verdict, false);
	values[8] = Int32GetDatum(verdict->version);
	nulls[8] = verdict->version == 0 ? 'n' : ' ';
	values[9] = CStringGetTextDatum(posting->context->actor);
	values[10] = CStringGetTextDatum(posting->context->session_user);
	values[11] = TimestampTzGetDatum(posting->now);
	values[12] = TimestampTzGetDatum(hold->expires_at);
	values[13] = CStringGetTextDatum(approves ? "approve" : "reject");
	values[14] = BoolGetDatum(order->action == FIN_HOLD);
	values[15] = IntervalPGetDatum(order->expires_in);
	nulls[15] = order->expires_in == NULL ? 'n' : ' ';
	fin_query_run(&insert_review, values, nulls, 0);
}

/* one that is new: they stand behind those that were found */
static const FinHold *
find_new_hold(const FinPosting *posting, int64 hold_id)
{
	for (int i = posting->nholds_found; i < posting->nholds; i++)
	{
		if (posting->holds[i].hold_id == hold_id)
			return &posting->holds[i];
	}
	elog(ERROR, "transfer " INT64_FORMAT " is parked without a hold", hold_id);
}

static void
write_new_review(FinPosting *posting, int i)
{
	FinOutcome *outcome = &posting->outcomes[i];
	const FinHold *hold = find_new_hold(posting, outcome->row.id);
	char	   *token;

	begin_review(posting, i, hold);
	if (hold->parking != FIN_PARKED_FOR_CHALLENGE)
		return;
	token = write_token(&insert_challenge, outcome->row.tenant_id,
						outcome->row.id);
	outcome->token = MemoryContextStrdup(posting->memory, token);
}

static void
write_end(FinPosting *posting, int i)
{
	const FinSettlement *settlement = posting->orders[i].settles;
	const FinTransferRow *row = &posting->outcomes[i].row;
	bool		by_itself = settlement->end == FIN_REVIEW_TIMED_OUT;
	Datum		values[8];
	char		nulls[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	values[0] = Int32GetDatum(row->tenant_id);
	values[1] = Int64GetDatum(row->hold_id);
	values[2] = CStringGetTextDatum(statuses[settlement->end]);
	values[3] = CStringGetTextDatum(posting->context->actor);
	values[4] = CStringGetTextDatum(posting->context->session_user);
	nulls[3] = nulls[4] = by_itself ? 'n' : ' ';
	values[5] = (Datum) 0;
	if (settlement->comment != NULL)
		values[5] = CStringGetTextDatum(settlement->comment);
	else
		nulls[5] = 'n';
	values[6] = TimestampTzGetDatum(posting->now);
	values[7] = Int64GetDatum(row->id);
	fin_query_run(&end_review, values, nulls, 0);
	if (settlement->of_challenge)
		fin_query_run(&delete_challenge, values, NULL, 0);
}

void
fin_posting_write_reviews(FinPosting *posting)
{
	for (int i = 0; i < posting->norders; i++)
	{
		const FinOutcome *outcome = &posting->outcomes[i];

		if (outcome->row.id == 0 || outcome->replayed)
			continue;
		if (posting->orders[i].settles != NULL)
			write_end(posting, i);
		else if (outcome->row.hold_id == outcome->row.id &&
				 strcmp(outcome->row.status, "held") != 0)
			write_new_review(posting, i);
	}
}

/* ------------------------------------------------------------------------
 * what is parked
 * ------------------------------------------------------------------------ */

static char *
copy_text(MemoryContext memory, int column)
{
	char	   *text = fin_query_text(0, column);

	return text == NULL ? NULL : MemoryContextStrdup(memory, text);
}

static Interval *
copy_interval(MemoryContext memory, int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);
	Interval   *copy;

	if (isnull)
		return NULL;
	copy = MemoryContextAlloc(memory, sizeof(Interval));
	*copy = *DatumGetIntervalP(value);
	return copy;
}

bool
fin_posting_read_parked(int32 tenant_id, int64 transfer_id, FinParked *parked,
						MemoryContext memory)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int64GetDatum(transfer_id)};
	bool		isnull;

	if (fin_query_run(&lock_review, values, NULL, 1) == 0)
		return false;
	parked->transfer_id = transfer_id;
	parked->parking =
		strcmp(fin_query_text(0, 1), kinds[FIN_PARKED_FOR_REVIEW]) == 0 ?
		FIN_PARKED_FOR_REVIEW : FIN_PARKED_FOR_CHALLENGE;
	parked->status = copy_text(memory, 2);
	parked->is_open = strcmp(parked->status, "open") == 0;
	parked->requested_by = copy_text(memory, 3);
	parked->requested_session_user = copy_text(memory, 4);
	parked->reviewer = copy_text(memory, 5);
	parked->expires_at = DatumGetTimestampTz(fin_query_datum(0, 6, &isnull));
	parked->default_approve = DatumGetBool(fin_query_datum(0, 7, &isnull));
	parked->was_hold = DatumGetBool(fin_query_datum(0, 8, &isnull));
	parked->hold_expires_in = copy_interval(memory, 9);
	parked->wrong_tokens = DatumGetInt32(fin_query_datum(0, 10, &isnull));
	return true;
}

bool
fin_posting_lock_parked(int32 tenant_id, int64 transfer_id, FinParked *parked,
						MemoryContext memory)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	Int64GetDatum(transfer_id)};
	FinAccount	accounts[2];
	int64		ids[2];

	if (fin_query_run(&find_accounts, values, NULL, 1) == 0)
		return false;
	ids[0] = fin_query_int64(0, 1);
	ids[1] = fin_query_int64(0, 2);
	(void) fin_store_lock_accounts(tenant_id, ids,
								   fin_store_distinct_ids(ids, 2), accounts,
								   CurrentMemoryContext);
	return fin_posting_read_parked(tenant_id, transfer_id, parked, memory);
}

/* ------------------------------------------------------------------------
 * its end
 * ------------------------------------------------------------------------ */

static bool
is_carried_out(const FinParked *parked, FinReviewEnd end)
{
	switch (end)
	{
		case FIN_REVIEW_APPROVED:
		case FIN_REVIEW_CONFIRMED:
			return true;
		case FIN_REVIEW_REJECTED:
		case FIN_REVIEW_FAILED:
			return false;
		case FIN_REVIEW_TIMED_OUT:
			return parked->default_approve;
	}
	elog(ERROR, "unknown end %d", (int) end);
}

static Jsonb *
settlement_json(const FinSettlement *settlement)
{
	StringInfoData json;

	initStringInfo(&json);
	fin_json_text(&json, "review", statuses[settlement->end]);
	fin_json_text(&json, "comment", settlement->comment);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(fin_json_end(&json))));
}

/* what the transfer that is carried out has of the one that was parked */
static void
take_over(const FinTransferRow *row, bool carries_out, FinOrder *order)
{
	order->reference = row->reference;
	order->metadata = row->metadata;
	if (!carries_out)
		return;
	order->amount = fin_amount_encode(row->amount, row->scale);
	order->has_effective_at = row->has_effective_at;
	order->effective_at = row->effective_at;
	order->reverses_id = row->reverses_id;
}

void
fin_posting_make_settlement(int32 tenant_id, const FinParked *parked,
							const FinSettlement *settlement,
							MemoryContext memory, FinOrder *order)
{
	bool		carries_out = !settlement->gives_back &&
		is_carried_out(parked, settlement->end);
	FinTransferRow row;
	bool		is_kept = fin_store_read_transfer(tenant_id, parked->transfer_id,
												  &row, NULL, NULL, memory);
	MemoryContext old = MemoryContextSwitchTo(memory);

	memset(order, 0, sizeof(FinOrder));
	order->settles = settlement;
	order->hold_id = parked->transfer_id;
	order->expected_from_version = FIN_NO_VERSION;
	order->expected_to_version = FIN_NO_VERSION;
	order->request = settlement_json(settlement);
	if (is_kept)
		take_over(&row, carries_out && !parked->was_hold, order);
	if (!carries_out)
		order->action = settlement->end == FIN_REVIEW_TIMED_OUT ? FIN_EXPIRE :
			FIN_RELEASE;
	else if (!parked->was_hold)
		order->action = FIN_CAPTURE;
	else
	{
		order->action = FIN_UNPARK;
		if (parked->hold_expires_in != NULL)
			order->expires_at =
				DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														TimestampTzGetDatum(fin_ident_now()),
														IntervalPGetDatum(parked->hold_expires_in)));
	}
	MemoryContextSwitchTo(old);
}

void
fin_posting_settle(const FinParked *parked, const FinSettlement *settlement,
				   FinOutcome *outcome)
{
	int32		tenant_id = fin_context()->tenant_id;
	FinQueryScope scope;
	FinOrder	order;

	fin_query_begin(&scope);
	fin_posting_make_settlement(tenant_id, parked, settlement, scope.caller,
								&order);
	fin_query_end(&scope);
	fin_posting_execute(&order, 1, outcome, FIN_POSTING_RAISE);
}
