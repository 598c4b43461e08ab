/*
 * audit_export.c
 *		finance.audit_export(): the sealed log as text that can be verified with
 *		nothing but itself and a digest; tools/finance-verify does.
 *
 * FORMAT, VERSION 1
 *
 * Lines of JSON in ASCII, one object each, without spaces, ended by a newline.
 * In strings " and \ are escaped by a backslash; what is not printable ASCII is
 * written as \uXXXX, so that no client encoding can change it.  Hashes and other
 * bytes are lowercase hexadecimal digits.  Numbers of leaves, sizes and blocks
 * are JSON integers; all that is a value of a record is a string.  Each line has
 * the members that follow, in this order:
 *
 * header, the first line
 *		finance_audit_export	1
 *		from		first leaf in the export; leaves count from 0
 *		to			leaf that it ends before
 *		frontier	array of hashes: roots of the complete subtrees that the
 *					tree of the first 'from' leaves is made of, the largest
 *					first; as many as 'from' has one bits.  Leaves appended
 *					to it give the roots that follow
 *
 * leaf, in order, without gaps
 *		leaf		its number
 *		leaf_hash	as it was sealed
 *		record		object, see below; or, when it is not exported:
 *		why			"tenant"	it is another tenant's than the user's
 *					"detached"	its month was, see drop_audit_month()
 *					"missing"	it should be there
 *		id			string: of the record that is not exported, a hint that
 *					nothing proves; not there of other tenants' records
 *
 * block, after the last of its leaves: what its digest is computed from, see
 * audit_block.h.  Leaves at the end of an export whose block goes on beyond it
 * have none; it is in the export that goes on there
 *		block, incarnation, size
 *		root		of the tree of all leaves so far, of which there are 'size'
 *		previous, digest
 *		sealed_at	string: microseconds since 2000-01-01 00:00 UTC
 *		lsn			"16/B374D848"
 *		timeline
 *		system_identifier	integer: of the incarnation, and so of its records;
 *					the digest does not prove it
 *
 * trailer, the last line
 *		to			as in the header
 *		root		of the tree of 'to' leaves, computed from what is exported
 *
 * A record has those columns of finance.audit_record that are not null, but for
 * leaf_hash and trace_until, which the leaf does not hold.  From them the leaf is
 * made as audit_row.h has it:
 *
 *		integers	decimal digits
 *		recorded_at microseconds since 2000-01-01 00:00 UTC, decimal digits
 *		trace_id	UUID, lowercase
 *		client_addr address/bits: "10.0.0.1/32", "2001:db8::1/128"; of IPv6 if
 *					it has a colon
 *		payload_hash, salt	hexadecimal digits
 *		numerics	their decimal text
 *		texts, request, response	the text as stored.  Of one that was damaged
 *					and is not valid UTF-8 what is not ASCII is \ufffd: the
 *					record is not what was sealed in any case
 *
 * Owns kept plans only.  Memory: a line and a block at a time; lines are
 * gathered in a tuplestore, which spills to disk beyond work_mem.  Locks: those
 * of audit_walk.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "audit_export.h"
#include "audit_row.h"
#include "audit_tree.h"
#include "audit_walk.h"
#include "context.h"
#include "errors.h"
#include "merkle_proof.h"
#include "query.h"

#define FIN_AUDIT_EXPORT_VERSION 1

/* names of the columns that a record has, in the order of the table */
static const char *const column_names[FIN_AUDIT_COLUMNS] =
{
	[FIN_AUDIT_ID] = "id",
	[FIN_AUDIT_RECORDED_AT] = "recorded_at",
	[FIN_AUDIT_XID] = "xid",
	[FIN_AUDIT_SYSTEM_IDENTIFIER] = "system_identifier",
	[FIN_AUDIT_TENANT_ID] = "tenant_id",
	[FIN_AUDIT_SEQUENCE] = "sequence",
	[FIN_AUDIT_TRACE_ID] = "trace_id",
	[FIN_AUDIT_MESSAGE_ID] = "message_id",
	[FIN_AUDIT_TRANSFER_ID] = "transfer_id",
	[FIN_AUDIT_ACCOUNT_ID] = "account_id",
	[FIN_AUDIT_COUNTERPARTY_ID] = "counterparty_id",
	[FIN_AUDIT_ACCOUNT_VERSION] = "account_version",
	[FIN_AUDIT_COUNTERPARTY_VERSION] = "counterparty_version",
	[FIN_AUDIT_LEAF_VERSION] = "leaf_version",
	[FIN_AUDIT_PAYLOAD_HASH] = "payload_hash",
	[FIN_AUDIT_SALT] = "salt",
	[FIN_AUDIT_CLIENT_ADDR] = "client_addr",
	[FIN_AUDIT_ACTOR] = "actor",
	[FIN_AUDIT_SESSION_USER_NAME] = "session_user_name",
	[FIN_AUDIT_ROLE_NAME] = "role_name",
	[FIN_AUDIT_APPLICATION_NAME] = "application_name",
	[FIN_AUDIT_USER_AGENT] = "user_agent",
	[FIN_AUDIT_SPAN_ID] = "span_id",
	[FIN_AUDIT_REQUEST_ID] = "request_id",
	[FIN_AUDIT_REASON] = "reason",
	[FIN_AUDIT_OPERATION] = "operation",
	[FIN_AUDIT_STATUS] = "status",
	[FIN_AUDIT_OBJECT] = "object",
	[FIN_AUDIT_ROW_KEY] = "row_key",
	[FIN_AUDIT_CURRENCY] = "currency",
	[FIN_AUDIT_AMOUNT] = "amount",
	[FIN_AUDIT_BALANCE_BEFORE] = "balance_before",
	[FIN_AUDIT_BALANCE_AFTER] = "balance_after",
	[FIN_AUDIT_COUNTERPARTY_BALANCE_BEFORE] = "counterparty_balance_before",
	[FIN_AUDIT_COUNTERPARTY_BALANCE_AFTER] = "counterparty_balance_after",
	[FIN_AUDIT_REQUEST] = "request",
	[FIN_AUDIT_RESPONSE] = "response",
};

typedef struct Export
{
	Tuplestorestate *lines;
	TupleDesc	desc;
	StringInfoData line;
	MemoryContext each;			/* reset for each leaf */
	bool		all_tenants;
	int32		tenant_id;		/* the only one in full, unless all are */
	FinFrontier frontier;		/* of what was exported so far */
} Export;

/* ------------------------------------------------------------------------
 * JSON
 * ------------------------------------------------------------------------ */

static void
put_hex(StringInfo line, const void *bytes, Size length)
{
	enlargeStringInfo(line, (int) length * 2 + 2);
	line->data[line->len++] = '"';
	line->len += (int) hex_encode(bytes, length, line->data + line->len);
	line->data[line->len++] = '"';
	line->data[line->len] = '\0';
}

static void
put_hash(StringInfo line, const char *name, const FinHash *hash)
{
	appendStringInfo(line, ",\"%s\":", name);
	put_hex(line, hash->bytes, FIN_HASH_LENGTH);
}

/* length of the sequence that begins here; it is known to be valid */
static uint32
decode_utf8(const unsigned char *s, int length)
{
	uint32		code = length == 2 ? s[0] & 0x1f :
		length == 3 ? s[0] & 0x0f : s[0] & 0x07;

	for (int i = 1; i < length; i++)
		code = code << 6 | (s[i] & 0x3f);
	return code;
}

static void
put_code(StringInfo line, uint32 code)
{
	if (code >= 0x10000)
	{
		code -= 0x10000;
		appendStringInfo(line, "\\u%04x\\u%04x", 0xd800 + (code >> 10),
						 0xdc00 + (code & 0x3ff));
	}
	else
		appendStringInfo(line, "\\u%04x", code);
}

static void
put_string(StringInfo line, const char *text, int length)
{
	bool		is_utf8 = pg_encoding_verifymbstr(PG_UTF8, text, length) == length;
	int			plain = 0;		/* from here on nothing needed an escape */

	appendStringInfoChar(line, '"');
	for (int i = 0; i < length;)
	{
		unsigned char c = (unsigned char) text[i];
		int			width = c < 0x80 || !is_utf8 ? 1 :
			pg_utf_mblen((const unsigned char *) text + i);

		if (c < 0x80 && c >= ' ' && c != '"' && c != '\\' && c != 0x7f)
		{
			i++;
			continue;
		}
		appendBinaryStringInfo(line, text + plain, i - plain);
		if (c == '"' || c == '\\')
			appendStringInfo(line, "\\%c", c);
		else
			put_code(line, c < 0x80 ? c : !is_utf8 ? 0xfffd :
					 decode_utf8((const unsigned char *) text + i, width));
		i += width;
		plain = i;
	}
	appendBinaryStringInfo(line, text + plain, length - plain);
	appendStringInfoChar(line, '"');
}

static void
put_text(StringInfo line, Datum value)
{
	text	   *stored = DatumGetTextPP(value);
	int			length = VARSIZE_ANY_EXHDR(stored);
	char	   *bytes = VARDATA_ANY(stored);
	char	   *utf8 = pg_server_to_any(bytes, length, PG_UTF8);

	put_string(line, utf8, utf8 == bytes ? length : (int) strlen(utf8));
}

static void
put_address(StringInfo line, Datum value)
{
	inet	   *address = DatumGetInetPP(value);

	appendStringInfo(line, "\"%s/%d\"",
					 TextDatumGetCString(DirectFunctionCall1(network_host,
															 InetPGetDatum(address))),
					 ip_bits(address));
}

static void
put_value(StringInfo line, FinAuditColumn column, Datum value)
{
	bytea	   *bytes;

	switch (fin_audit_types[column])
	{
		case INT8OID:
		case TIMESTAMPTZOID:
			appendStringInfo(line, "\"" INT64_FORMAT "\"", DatumGetInt64(value));
			break;
		case XID8OID:
			appendStringInfo(line, "\"" UINT64_FORMAT "\"",
							 (uint64) DatumGetInt64(value));
			break;
		case INT4OID:
			appendStringInfo(line, "\"%d\"", DatumGetInt32(value));
			break;
		case INT2OID:
			appendStringInfo(line, "\"%d\"", DatumGetInt16(value));
			break;
		case UUIDOID:
			appendStringInfo(line, "\"%s\"",
							 DatumGetCString(DirectFunctionCall1(uuid_out, value)));
			break;
		case BYTEAOID:
			bytes = DatumGetByteaPP(value);
			put_hex(line, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
			break;
		case INETOID:
			put_address(line, value);
			break;
		case NUMERICOID:
			appendStringInfo(line, "\"%s\"",
							 DatumGetCString(DirectFunctionCall1(numeric_out,
																 value)));
			break;
		default:
			put_text(line, value);
	}
}

static void
put_record(StringInfo line, const FinAuditRow *row)
{
	char		separator = '{';

	for (int i = 0; i < FIN_AUDIT_COLUMNS; i++)
	{
		if (column_names[i] == NULL || row->nulls[i])
			continue;
		appendStringInfo(line, "%c\"%s\":", separator, column_names[i]);
		put_value(line, i, row->values[i]);
		separator = ',';
	}
	appendStringInfoChar(line, '}');
}

/* ------------------------------------------------------------------------
 * lines
 * ------------------------------------------------------------------------ */

static void
end_line(Export *export)
{
	Datum		values[1];
	bool		nulls[1] = {false};

	appendStringInfoChar(&export->line, '}');
	values[0] = PointerGetDatum(cstring_to_text_with_len(export->line.data,
														 export->line.len));
	tuplestore_putvalues(export->lines, export->desc, values, nulls);
	pfree(DatumGetPointer(values[0]));
	resetStringInfo(&export->line);
}

static void
put_header(Export *export, int64 to)
{
	StringInfo	line = &export->line;

	appendStringInfo(line, "{\"finance_audit_export\":%d,\"from\":"
					 INT64_FORMAT ",\"to\":" INT64_FORMAT ",\"frontier\":[",
					 FIN_AUDIT_EXPORT_VERSION, (int64) export->frontier.size,
					 to);
	for (int i = 0; i < export->frontier.depth; i++)
	{
		if (i > 0)
			appendStringInfoChar(line, ',');
		put_hex(line, export->frontier.hashes[i].bytes, FIN_HASH_LENGTH);
	}
	appendStringInfoChar(line, ']');
	end_line(export);
}

static void
put_block(Export *export, const FinAuditStep *step)
{
	const FinAuditBlock *block = step->block;
	StringInfo	line = &export->line;

	appendStringInfo(line, "{\"block\":" INT64_FORMAT ",\"incarnation\":%d,"
					 "\"size\":" INT64_FORMAT, block->block,
					 block->incarnation, block->size);
	put_hash(line, "root", &block->root);
	put_hash(line, "previous", &block->previous);
	put_hash(line, "digest", &block->digest);
	appendStringInfo(line, ",\"sealed_at\":\"" INT64_FORMAT "\","
					 "\"lsn\":\"%X/%X\",\"timeline\":%d,"
					 "\"system_identifier\":" INT64_FORMAT,
					 block->sealed_at, LSN_FORMAT_ARGS(block->lsn),
					 block->timeline, step->system_identifier);
	end_line(export);
}

static void
put_leaf(Export *export, const FinAuditStep *step)
{
	StringInfo	line = &export->line;
	bool		others = !export->all_tenants;

	/* a record that is gone is nobody's: its id is not told either */
	if (step->row != NULL && !export->all_tenants)
		others = step->row->nulls[FIN_AUDIT_TENANT_ID] ||
			DatumGetInt32(step->row->values[FIN_AUDIT_TENANT_ID]) !=
			export->tenant_id;
	appendStringInfo(line, "{\"leaf\":" INT64_FORMAT, step->index);
	put_hash(line, "leaf_hash", &step->leaf.hash);
	if (step->row != NULL && !others)
	{
		appendStringInfoString(line, ",\"record\":");
		put_record(line, step->row);
	}
	else
		appendStringInfo(line, ",\"why\":\"%s\"",
						 step->row != NULL ? "tenant" :
						 fin_audit_month_is_detached(step->leaf.id) ?
						 "detached" : "missing");
	if (step->row == NULL && !others)
		appendStringInfo(line, ",\"id\":\"" INT64_FORMAT "\"", step->leaf.id);
	end_line(export);
	fin_merkle_append(&export->frontier, &step->leaf.hash, NULL, NULL);
}

static void
put_trailer(Export *export)
{
	FinHash		root;

	fin_merkle_frontier_root(&export->frontier, &root);
	appendStringInfo(&export->line, "{\"to\":" INT64_FORMAT,
					 (int64) export->frontier.size);
	put_hash(&export->line, "root", &root);
	end_line(export);
}

/* ------------------------------------------------------------------------
 * the export
 * ------------------------------------------------------------------------ */

/* the state of the tree before the first leaf that is exported */
static void
find_frontier(FinFrontier *frontier, uint64 from, uint64 size)
{
	FinAuditTree tree;
	uint64		done = 0;

	memset(frontier, 0, sizeof(FinFrontier));
	fin_audit_tree_open(&tree, size);
	for (int level = 62; level >= 0; level--)
	{
		if ((from >> level & 1) == 0)
			continue;
		fin_audit_tree_subtree(&tree, level, done >> level,
							   &frontier->hashes[frontier->depth++]);
		done += UINT64CONST(1) << level;
	}
	frontier->size = from;
}

static void
export_leaves(Export *export, int64 from, int64 to)
{
	FinAuditWalk *walk = fin_audit_walk_begin(from, to);
	FinAuditStep step;

	while (fin_audit_walk_next(walk, &step))
	{
		MemoryContext outer = MemoryContextSwitchTo(export->each);

		put_leaf(export, &step);
		if (step.index + 1 == step.block->size)
			put_block(export, &step);
		MemoryContextSwitchTo(outer);
		MemoryContextReset(export->each);
	}
	fin_audit_walk_end(walk);
}

void
fin_audit_export(const FinAuditReader *reader, ReturnSetInfo *result,
				 int64 from, int64 to)
{
	Export		export;

	export.lines = result->setResult;
	export.desc = result->setDesc;
	export.all_tenants = reader->all_tenants;
	export.tenant_id = reader->tenant_id;
	export.each = AllocSetContextCreate(CurrentMemoryContext,
										"finance audit export",
										ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&export.line);
	find_frontier(&export.frontier, (uint64) from,
				  (uint64) fin_audit_walk_size());
	put_header(&export, to);
	export_leaves(&export, from, to);
	put_trailer(&export);
}

FinAuditReader
fin_audit_reader(void)
{
	FinAuditReader reader = {0};

	reader.all_tenants = has_privs_of_role(GetOuterUserId(), fin_query_owner());
	if (!reader.all_tenants)
		reader.tenant_id = fin_context()->tenant_id;
	return reader;
}

static int64
check_range(int64 from, bool to_newest, int64 to)
{
	int64		size = fin_audit_walk_size();

	if (to_newest)
		to = size;
	if (to > size)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_DIGEST),
				errmsg("leaf %lld is not sealed yet", (long long) to - 1),
				errdetail("The sealed log has %lld leaves.", (long long) size));
	if (from < 0 || from > to)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("from_leaf must be from 0 to %lld", (long long) to));
	return to;
}

PG_FUNCTION_INFO_V1(finance_audit_export);

/*
 * finance.audit_export(from_leaf bigint, to_leaf bigint) returns setof text
 *
 * The sealed leaves from from_leaf until just before to_leaf (null: all there
 * are), as lines of the format above.  Who has the privileges of the owner of
 * the extension gets the records of all tenants; others those of the session's
 * tenant, and of the rest the leaf hashes alone, with which the tree verifies.
 * Errors: 22004, 22023 from_leaf is not a leaf number up to to_leaf; LG202
 * to_leaf is beyond what is sealed; LG205 the log contradicts itself; those of
 * fin_context() and of fin_audit_scan_begin().
 */
Datum
finance_audit_export(PG_FUNCTION_ARGS)
{
	FinQueryScope scope;
	FinAuditReader reader;
	int64		to;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("from_leaf must not be null"));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	reader = fin_audit_reader();
	fin_query_begin(&scope);
	to = check_range(PG_GETARG_INT64(0), PG_ARGISNULL(1),
					 PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1));
	fin_audit_export(&reader, (ReturnSetInfo *) fcinfo->resultinfo,
					 PG_GETARG_INT64(0), to);
	fin_query_end(&scope);
	return (Datum) 0;
}
