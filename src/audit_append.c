/*
 * audit_append.c
 *		Appending to the audit log, and keeping everybody else from it.
 *
 * Owns, per backend: a pool of random bytes for salts, the descriptor of the
 * rows, the kept plans, and the pass that lets our INSERT through the guard.
 * Everything else is allocated in the caller's context and short-lived.
 *
 * The guard is a statement trigger, ENABLE ALWAYS, on finance.audit_record and
 * on each partition.  It refuses every change of every user but an INSERT that
 * holds the pass.  A pass is good for one statement: issue_pass() stamps it
 * with the transaction and subtransaction right before the INSERT, and the
 * guard takes it away.  When an error comes between the two, the
 * subtransaction it belongs to is over, its number is not used again within
 * the transaction, and the pass is worth nothing; so nothing has to be cleaned
 * up after an error.
 *
 * Locks: those of an INSERT.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/xid8.h"

#include "audit.h"
#include "audit_row.h"
#include "audit_shape.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "merkle_sql.h"
#include "partition.h"
#include "query.h"
#include "store_direct.h"
#include "wake.h"

#define FIN_AUDIT_SALT_POOL		4096
#define NEW_RECORDS				"finance_new_records"

#define RECORD_COLUMNS \
	" id, recorded_at, xid, system_identifier, tenant_id, sequence, trace_id," \
	" message_id, transfer_id, account_id, counterparty_id," \
	" account_version, counterparty_version," \
	" leaf_version, leaf_hash, payload_hash, salt, client_addr," \
	" actor, session_user_name, role_name, application_name, user_agent," \
	" span_id, request_id, reason, operation, status," \
	" object, row_key, currency, amount, balance_before, balance_after," \
	" counterparty_balance_before, counterparty_balance_after," \
	" request, response, trace_until"

static FinQuery insert_records =
{
	.sql = "INSERT INTO finance.audit_record (" RECORD_COLUMNS ")"
	" SELECT n.* FROM " NEW_RECORDS " n",
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

/* what all records of one call share */
typedef struct AuditCall
{
	const FinContext *context;
	TimestampTz recorded_at;
	FullTransactionId xid;
	const int64 *ids;			/* ascending, one for each record */
	int			n;
	StringInfoData work;
} AuditCall;

/* the pass; valid in one subtransaction of one transaction, for one INSERT */
static LocalTransactionId pass_transaction = InvalidLocalTransactionId;
static SubTransactionId pass_subtransaction = InvalidSubTransactionId;
static bool pass_is_erasure;

static void
issue_pass(void)
{
	pass_is_erasure = false;
	pass_transaction = FIN_MY_LXID;
	pass_subtransaction = GetCurrentSubTransactionId();
}

void
fin_audit_pass_erasure(void)
{
	issue_pass();
	pass_is_erasure = true;
}

static bool
take_pass(bool is_erasure)
{
	bool		valid = pass_transaction == FIN_MY_LXID &&
		pass_is_erasure == is_erasure &&
		pass_subtransaction == GetCurrentSubTransactionId();

	pass_transaction = InvalidLocalTransactionId;
	return valid;
}

/* from a pool: one call for many salts is much cheaper than many calls */
static Datum
fresh_salt(void)
{
	static uint8 pool[FIN_AUDIT_SALT_POOL];
	static int	left = 0;
	bytea	   *salt = palloc(VARHDRSZ + FIN_AUDIT_SALT_LENGTH);

	if (left < FIN_AUDIT_SALT_LENGTH)
	{
		left = 0;
		if (!pg_strong_random(pool, FIN_AUDIT_SALT_POOL))
			ereport(ERROR,
					errcode(ERRCODE_INTERNAL_ERROR),
					errmsg("could not generate random bytes for a salt"));
		left = FIN_AUDIT_SALT_POOL;
	}
	left -= FIN_AUDIT_SALT_LENGTH;
	SET_VARSIZE(salt, VARHDRSZ + FIN_AUDIT_SALT_LENGTH);
	memcpy(VARDATA(salt), pool + left, FIN_AUDIT_SALT_LENGTH);
	return PointerGetDatum(salt);
}

static void
set_value(FinAuditRow *row, FinAuditColumn column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

/* 0 is null: ids are positive */
static void
set_id(FinAuditRow *row, FinAuditColumn column, int64 id)
{
	if (id != 0)
		set_value(row, column, Int64GetDatum(id));
}

static void
set_numeric(FinAuditRow *row, FinAuditColumn column, Datum number)
{
	if (number != (Datum) 0)
		set_value(row, column, number);
}

static void
set_text(FinAuditRow *row, FinAuditColumn column, const char *value)
{
	if (value != NULL)
		set_value(row, column, CStringGetTextDatum(value));
}

/* what all records of the call have in common; the rest is null */
static void
fill_shared(FinAuditRow *row, const AuditCall *call)
{
	const FinContext *context = call->context;

	memset(row->nulls, true, sizeof(row->nulls));
	set_value(row, FIN_AUDIT_RECORDED_AT,
			  TimestampTzGetDatum(call->recorded_at));
	set_value(row, FIN_AUDIT_XID, FullTransactionIdGetDatum(call->xid));
	set_value(row, FIN_AUDIT_SYSTEM_IDENTIFIER,
			  Int64GetDatum((int64) GetSystemIdentifier()));
	set_value(row, FIN_AUDIT_TENANT_ID, Int32GetDatum(context->tenant_id));
	set_value(row, FIN_AUDIT_TRACE_ID, UUIDPGetDatum(&context->trace_id));
	set_value(row, FIN_AUDIT_LEAF_VERSION,
			  Int16GetDatum(FIN_AUDIT_ENCODING_VERSION));
	if (context->has_client_addr)
		set_value(row, FIN_AUDIT_CLIENT_ADDR, context->client_addr);
	set_text(row, FIN_AUDIT_ACTOR, context->actor);
	set_text(row, FIN_AUDIT_SESSION_USER_NAME, context->session_user);
	set_text(row, FIN_AUDIT_ROLE_NAME, context->role);
	set_text(row, FIN_AUDIT_APPLICATION_NAME, context->application_name);
	set_text(row, FIN_AUDIT_USER_AGENT, context->user_agent);
	set_text(row, FIN_AUDIT_SPAN_ID, context->span_id);
	set_text(row, FIN_AUDIT_REQUEST_ID, context->request_id);
	set_text(row, FIN_AUDIT_REASON, context->reason);
}

static void
fill_place(FinAuditRow *row, const AuditCall *call, int i)
{
	set_value(row, FIN_AUDIT_ID, Int64GetDatum(call->ids[i]));
	set_value(row, FIN_AUDIT_SEQUENCE,
			  Int32GetDatum(fin_context_next_sequence()));
	/* the first of a call tells how far it goes */
	if (i == 0)
		set_value(row, FIN_AUDIT_TRACE_UNTIL,
				  Int64GetDatum(call->ids[call->n - 1]));
}

static void
fill_record(FinAuditRow *row, const FinAuditRecord *record)
{
	set_id(row, FIN_AUDIT_MESSAGE_ID, record->message_id);
	set_id(row, FIN_AUDIT_TRANSFER_ID, record->transfer_id);
	set_id(row, FIN_AUDIT_ACCOUNT_ID, record->account_id);
	set_id(row, FIN_AUDIT_COUNTERPARTY_ID, record->counterparty_id);
	set_id(row, FIN_AUDIT_ACCOUNT_VERSION, record->account_version);
	set_id(row, FIN_AUDIT_COUNTERPARTY_VERSION, record->counterparty_version);
	set_text(row, FIN_AUDIT_OPERATION, record->operation);
	set_text(row, FIN_AUDIT_STATUS, record->status);
	set_text(row, FIN_AUDIT_OBJECT, record->object);
	set_text(row, FIN_AUDIT_ROW_KEY, record->row_key);
	set_text(row, FIN_AUDIT_CURRENCY, record->currency);
	set_numeric(row, FIN_AUDIT_AMOUNT, record->amount);
	set_numeric(row, FIN_AUDIT_BALANCE_BEFORE, record->balance_before);
	set_numeric(row, FIN_AUDIT_BALANCE_AFTER, record->balance_after);
	set_numeric(row, FIN_AUDIT_COUNTERPARTY_BALANCE_BEFORE,
				record->counterparty_before);
	set_numeric(row, FIN_AUDIT_COUNTERPARTY_BALANCE_AFTER,
				record->counterparty_after);
	set_text(row, FIN_AUDIT_REQUEST, record->request);
	if (record->change != NULL)
		set_value(row, FIN_AUDIT_REQUEST, PointerGetDatum(record->change));
	set_text(row, FIN_AUDIT_RESPONSE, record->response);
}

static void
fill_hashes(FinAuditRow *row, StringInfo work)
{
	FinHash		hash;

	if (!row->nulls[FIN_AUDIT_REQUEST] || !row->nulls[FIN_AUDIT_RESPONSE])
	{
		set_value(row, FIN_AUDIT_SALT, fresh_salt());
		fin_audit_payload_hash(row, work, &hash);
		set_value(row, FIN_AUDIT_PAYLOAD_HASH, fin_merkle_datum(&hash));
	}
	fin_audit_leaf_hash(row, work, &hash);
	set_value(row, FIN_AUDIT_LEAF_HASH, fin_merkle_datum(&hash));
}

static void
fill_row(FinAuditRow *row, const FinAuditRow *shared,
		 const FinAuditRecord *record, AuditCall *call, int i)
{
	*row = *shared;
	fill_place(row, call, i);
	fill_record(row, record);
	fill_hashes(row, &call->work);
}

static TupleDesc
rows_descriptor(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
		desc = fin_query_descriptor(fin_audit_types, FIN_AUDIT_COLUMNS);
	return desc;
}

/*
 * The rows of a call that cannot be appended directly: collected, and written
 * by one INSERT ... SELECT.
 */
typedef struct AuditRest
{
	Tuplestorestate *rows;		/* NULL: none yet */
} AuditRest;

static void
keep_for_insert(AuditRest *rest, FinAuditRow *row)
{
	if (rest->rows == NULL)
		rest->rows = tuplestore_begin_heap(false, false, work_mem);
	tuplestore_putvalues(rest->rows, rows_descriptor(), row->values,
						 row->nulls);
}

static void
insert_rest(AuditRest *rest)
{
	FinQueryScope scope;

	if (rest->rows == NULL)
		return;
	/* the name of the rows is good for one scope */
	fin_query_begin(&scope);
	fin_query_offer(NEW_RECORDS, rows_descriptor(), rest->rows);
	issue_pass();
	if (fin_query_run(&insert_records, NULL, NULL, 0) !=
		(uint64) tuplestore_tuple_count(rest->rows))
		ereport(ERROR,
				errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				errmsg("audit records cannot be written"),
				errdetail("A trigger or rule on finance.audit_record suppressed a row."));
	fin_query_end(&scope);
	tuplestore_end(rest->rows);
}

/*
 * And the months they lie in, which are one or two, before any of the records
 * has its place: who makes a month may have something of its own to record.
 */
static int64 *
draw_ids(int n)
{
	int64	   *ids = palloc(sizeof(int64) * n);

	for (int i = 0; i < n; i++)
		ids[i] = fin_ident_next(i == 0 ? 0 : ids[i - 1]);
	fin_partition_ensure(FIN_PARTITIONED_AUDIT_RECORD, ids[n - 1]);
	fin_partition_ensure(FIN_PARTITIONED_AUDIT_RECORD, ids[0]);
	return ids;
}

static void
append_rows(const FinAuditRecord *records, int n, AuditRest *rest)
{
	AuditCall	call = {.context = fin_context_current()};
	FinAuditRow shared;
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext each = outer;
	FinDirect  *direct = fin_direct_begin_append(FIN_PARTITIONED_AUDIT_RECORD,
												 fin_audit_types,
												 FIN_AUDIT_COLUMNS);

	call.recorded_at = GetCurrentTimestamp();
	call.xid = GetTopFullTransactionId();
	call.ids = draw_ids(n);
	call.n = n;
	/* one record is the most frequent: no more for it */
	if (n > 1)
		each = AllocSetContextCreate(outer, "finance audit row",
									 ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&call.work);
	fill_shared(&shared, &call);
	for (int i = 0; i < n; i++)
	{
		FinAuditRow row;

		MemoryContextSwitchTo(each);
		fill_row(&row, &shared, &records[i], &call, i);
		MemoryContextSwitchTo(outer);
		if (direct == NULL ||
			!fin_direct_append(direct, call.ids[i], row.values, row.nulls))
			keep_for_insert(rest, &row);
		if (n > 1)
			MemoryContextReset(each);
	}
	if (n > 1)
		MemoryContextDelete(each);
	if (direct != NULL)
		fin_direct_end(direct);
}

void
fin_audit_append(const FinAuditRecord *records, int n)
{
	AuditRest	rest = {0};

	if (n <= 0)
		return;
	append_rows(records, n, &rest);
	fin_wake_note_appended();
	insert_rest(&rest);
}

PG_FUNCTION_INFO_V1(finance_audit_guard);

/*
 * finance._audit_guard() returns trigger
 *
 * Lets through the INSERT that holds the pass, and the UPDATE by which a payload
 * is erased, which holds another; refuses everything else with LG201.
 */
Datum
finance_audit_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_audit_guard() can only be called as a trigger"));
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && take_pass(false))
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && take_pass(true))
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				errcode(ERRCODE_FIN_AUDIT_PROTECTED),
				errmsg("records are added to finance.%s by the extension only",
					   RelationGetRelationName(trigger->tg_relation)),
				errhint("Attach finance.audit_table() to a table to have its changes recorded."));
	ereport(ERROR,
			errcode(ERRCODE_FIN_AUDIT_PROTECTED),
			errmsg("records of finance.%s are never changed or deleted",
				   RelationGetRelationName(trigger->tg_relation)),
			errhint("Drop old months by detaching their partition."));
	return PointerGetDatum(NULL);
}

void
fin_audit_init(void)
{
	fin_audit_shape_init();
}
