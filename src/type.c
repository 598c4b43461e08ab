/*
 * type.c
 *		Types of accounts and of transfers, and what they allow.
 *
 * Owns: a fixed number of transfer types with a pair of account types, each
 * known to be allowed; a later one takes the place of an earlier one.  Types
 * are never changed or deleted, so what was allowed stays so; only a rollback,
 * or an extension made anew, takes it back, and then finance.transfer_type
 * invalidates all of them.  What is not known to be allowed is asked of the
 * table with the newest snapshot: a type made in another session is seen by
 * the next transfer.
 *
 * The built-in types are rows of tenant 0 that all tenants see.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"

#include "argument.h"
#include "audit.h"
#include "cache.h"
#include "context.h"
#include "errors.h"
#include "json.h"
#include "query.h"
#include "type.h"

#define PAIRS_KNOWN_MAX		64	/* a power of two */
#define PAIR_TYPES_MAX		64	/* account types that a transfer type names */

/* a type of transfers, and of accounts between which it is allowed */
typedef struct Pair
{
	bool		is_known;
	int32		tenant_id;
	char		type[FIN_TYPE_LENGTH_MAX + 1];
	char		from_type[FIN_TYPE_LENGTH_MAX + 1];
	char		to_type[FIN_TYPE_LENGTH_MAX + 1];
} Pair;

static FinCache pair_cache = {.table = "transfer_type"};
static Pair pairs[PAIRS_KNOWN_MAX];
static const Pair *last_pair = &pairs[0];

/* of two types of one name the tenant's own counts; see insert_* */
static FinQuery select_transfer_type =
{
	.sql = "SELECT coalesce($3 = ANY (from_types), true),"
	" coalesce($4 = ANY (to_types), true),"
	" array_to_string(from_types, ', '), array_to_string(to_types, ', ')"
	" FROM finance.transfer_type"
	" WHERE tenant_id = ANY (ARRAY[$1, 0]) AND type = $2"
	" AND (tenant_id = $1 OR builtin) ORDER BY builtin LIMIT 1",
	.nargs = 4,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery select_account_type =
{
	.sql = "SELECT type FROM finance.account_type"
	" WHERE tenant_id = ANY (ARRAY[$1, 0]) AND type = $2"
	" AND (tenant_id = $1 OR builtin)",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery select_unknown_type =
{
	.sql = "SELECT n.type FROM unnest($2) WITH ORDINALITY AS n (type, position)"
	" WHERE NOT EXISTS (SELECT FROM finance.account_type t"
	" WHERE t.tenant_id = ANY (ARRAY[$1, 0]) AND t.type = n.type"
	" AND (t.tenant_id = $1 OR t.builtin)) ORDER BY n.position",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTARRAYOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_account_type =
{
	.sql = "INSERT INTO finance.account_type (tenant_id, type, normal_side, name)"
	" SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM finance.account_type t"
	" WHERE t.tenant_id = 0 AND t.type = $2 AND t.builtin)"
	" ON CONFLICT (tenant_id, type) DO NOTHING",
	.nargs = 4,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery insert_transfer_type =
{
	.sql = "INSERT INTO finance.transfer_type (tenant_id, type, from_types,"
	" to_types, name)"
	" SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT FROM finance.transfer_type t"
	" WHERE t.tenant_id = 0 AND t.type = $2 AND t.builtin)"
	" ON CONFLICT (tenant_id, type) DO NOTHING",
	.nargs = 5,
	.argtypes = {INT4OID, TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

/* ------------------------------------------------------------------------
 * what is allowed
 * ------------------------------------------------------------------------ */

static bool
is_pair(const Pair *pair, int32 tenant_id, const char *type,
		const char *from_type, const char *to_type)
{
	return pair->is_known && pair->tenant_id == tenant_id &&
		strcmp(pair->type, type) == 0 &&
		strcmp(pair->from_type, from_type) == 0 &&
		strcmp(pair->to_type, to_type) == 0;
}

static Pair *
place_of(int32 tenant_id, const char *type, const char *from_type,
		 const char *to_type)
{
	uint32		hash = hash_bytes_uint32((uint32) tenant_id);

	hash = hash_combine(hash, string_hash(type, FIN_TYPE_LENGTH_MAX + 1));
	hash = hash_combine(hash, string_hash(from_type, FIN_TYPE_LENGTH_MAX + 1));
	hash = hash_combine(hash, string_hash(to_type, FIN_TYPE_LENGTH_MAX + 1));
	return &pairs[hash & (PAIRS_KNOWN_MAX - 1)];
}

static void
remember_pair(Pair *pair, int32 tenant_id, const char *type,
			  const char *from_type, const char *to_type)
{
	/* cut off, it would be another's name */
	pair->is_known =
		strlcpy(pair->type, type, sizeof(pair->type)) < sizeof(pair->type) &&
		strlcpy(pair->from_type, from_type, sizeof(pair->from_type)) < sizeof(pair->from_type) &&
		strlcpy(pair->to_type, to_type, sizeof(pair->to_type)) < sizeof(pair->to_type);
	pair->tenant_id = tenant_id;
	last_pair = pair;
}

/* the side that the type does not allow, in words */
static FinFault *
fault_side(const char *type, const char *side, const char *account_type,
		   const char *allowed)
{
	FinFault   *fault = fin_fault(ERRCODE_FIN_TYPE_NOT_ALLOWED,
								  "a transfer of type \"%s\" may not go %s an account of type \"%s\"",
								  type, side, account_type);

	return fin_fault_detail(fault, "It goes %s accounts of type %s.", side,
							allowed);
}

static FinFault *
look_up_pair(int32 tenant_id, const char *type, const char *from_type,
			 const char *to_type)
{
	Datum		values[4] = {Int32GetDatum(tenant_id),
		CStringGetTextDatum(type), CStringGetTextDatum(from_type),
	CStringGetTextDatum(to_type)};
	bool		isnull;

	if (fin_query_run(&select_transfer_type, values, NULL, 1) == 0)
		return fin_fault_hint(fin_fault(ERRCODE_FIN_TYPE_NOT_ALLOWED,
										"transfer type \"%s\" does not exist",
										type),
							  "Make it with finance.create_transfer_type(), or use one in finance.transfer_type.");
	if (!DatumGetBool(fin_query_datum(0, 1, &isnull)))
		return fault_side(type, "from", from_type, fin_query_text(0, 3));
	if (!DatumGetBool(fin_query_datum(0, 2, &isnull)))
		return fault_side(type, "to", to_type, fin_query_text(0, 4));
	return NULL;
}

FinFault *
fin_type_fault(int32 tenant_id, const char *type, const char *from_type,
			   const char *to_type)
{
	Pair	   *pair;
	FinFault   *fault;

	/* mostly a transfer is like the one before */
	if (fin_cache_valid(&pair_cache) &&
		is_pair(last_pair, tenant_id, type, from_type, to_type))
		return NULL;
	pair = place_of(tenant_id, type, from_type, to_type);
	if (!fin_cache_valid(&pair_cache))
	{
		if (!fin_cache_loading(&pair_cache))
			memset(pairs, 0, sizeof(pairs));
	}
	else if (is_pair(pair, tenant_id, type, from_type, to_type))
	{
		last_pair = pair;
		return NULL;
	}
	fault = look_up_pair(tenant_id, type, from_type, to_type);
	if (fault == NULL)
		remember_pair(pair, tenant_id, type, from_type, to_type);
	return fault;
}

FinFault *
fin_type_account_fault(int32 tenant_id, const char *type)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(type)};

	if (fin_query_run(&select_account_type, values, NULL, 1) > 0)
		return NULL;
	return fin_fault_hint(fin_fault(ERRCODE_FIN_TYPE_NOT_ALLOWED,
									"account type \"%s\" does not exist", type),
						  "Make it with finance.create_account_type(), or use one in finance.account_type.");
}

/* ------------------------------------------------------------------------
 * create_account_type, create_transfer_type
 * ------------------------------------------------------------------------ */

static void
audit_type(const char *operation, StringInfo request)
{
	FinAuditRecord record = {0};

	record.operation = operation;
	record.status = "completed";
	record.request = fin_json_end(request);
	fin_audit_append(&record, 1);
}

PG_FUNCTION_INFO_V1(finance_create_account_type);

/*
 * finance.create_account_type(type, normal_side, name)
 *
 * type: 1 to 63 bytes, unique in the tenant and among the built-in ones;
 * normal_side: debit or credit, the side on which reports show a balance of
 * such an account as positive; name: what people call it; null: as the type.
 * A type is never changed or deleted.  Errors: 42710 type taken, 22023 bad
 * side or text, 22004.  Locks: the new row.
 */
Datum
finance_create_account_type(PG_FUNCTION_ARGS)
{
	char	   *type = fin_argument_text(fcinfo, 0, "type", FIN_TYPE_LENGTH_MAX);
	char	   *side = fin_argument_text(fcinfo, 1, "normal_side",
										 FIN_TYPE_LENGTH_MAX);
	char	   *name = fin_argument_text_or_null(fcinfo, 2, "name",
												 FIN_REASON_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[4];
	StringInfoData request;

	if (strcmp(side, "debit") != 0 && strcmp(side, "credit") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("normal_side \"%s\" is not known", side),
				errhint("It is debit or credit."));
	if (name == NULL)
		name = type;
	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(type);
	values[2] = CStringGetTextDatum(side);
	values[3] = CStringGetTextDatum(name);
	if (fin_query_run(&insert_account_type, values, NULL, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("account type \"%s\" already exists", type));
	fin_context_resume(context);
	initStringInfo(&request);
	fin_json_text(&request, "type", type);
	fin_json_text(&request, "normal_side", side);
	fin_json_text(&request, "name", name);
	audit_type("create_account_type", &request);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

/* an argument of account types; NULL for null, which means any */
static ArrayType *
types_argument(FunctionCallInfo fcinfo, int argument, const char *name)
{
	ArrayType  *types;
	int			n;

	if (PG_ARGISNULL(argument))
		return NULL;
	types = PG_GETARG_ARRAYTYPE_P(argument);
	n = ArrayGetNItems(ARR_NDIM(types), ARR_DIMS(types));
	if (ARR_NDIM(types) > 1 || n < 1 || n > PAIR_TYPES_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s must be a list of 1 to %d account types", name,
					   PAIR_TYPES_MAX),
				errhint("Null stands for any account type."));
	if (array_contains_nulls(types))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not contain nulls", name));
	return types;
}

/* call inside of fin_query_begin/end */
static void
check_types(int32 tenant_id, ArrayType *types, const char *name)
{
	Datum		values[2] = {Int32GetDatum(tenant_id), PointerGetDatum(types)};

	if (types == NULL ||
		fin_query_run(&select_unknown_type, values, NULL, 1) == 0)
		return;
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("account type \"%s\" in %s does not exist",
				   fin_query_text(0, 1), name),
			errhint("Make it with finance.create_account_type(), or use one in finance.account_type."));
}

/* as an array literal, NULL for NULL */
static char *
types_text(ArrayType *types)
{
	if (types == NULL)
		return NULL;
	return OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(types));
}

PG_FUNCTION_INFO_V1(finance_create_transfer_type);

/*
 * finance.create_transfer_type(type, from_types, to_types, name)
 *
 * type: 1 to 63 bytes, unique in the tenant and among the built-in ones;
 * from_types, to_types: account types, 1 to 64, that it may debit and credit;
 * null: any; name: what people call it; null: as the type.  A type is never
 * changed or deleted.  Errors: 42710 type taken, 22023 unknown account type or
 * bad text, 22004.  Locks: the new row.
 */
Datum
finance_create_transfer_type(PG_FUNCTION_ARGS)
{
	char	   *type = fin_argument_text(fcinfo, 0, "type", FIN_TYPE_LENGTH_MAX);
	ArrayType  *from_types = types_argument(fcinfo, 1, "from_types");
	ArrayType  *to_types = types_argument(fcinfo, 2, "to_types");
	char	   *name = fin_argument_text_or_null(fcinfo, 3, "name",
												 FIN_REASON_LENGTH_MAX);
	const FinContext *context = fin_context_hold();
	FinQueryScope scope;
	Datum		values[5];
	char		nulls[5] = {' ', ' ', from_types == NULL ? 'n' : ' ',
	to_types == NULL ? 'n' : ' ', ' '};
	StringInfoData request;

	if (name == NULL)
		name = type;
	fin_query_begin(&scope);
	check_types(context->tenant_id, from_types, "from_types");
	check_types(context->tenant_id, to_types, "to_types");
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(type);
	values[2] = PointerGetDatum(from_types);
	values[3] = PointerGetDatum(to_types);
	values[4] = CStringGetTextDatum(name);
	if (fin_query_run(&insert_transfer_type, values, nulls, 0) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("transfer type \"%s\" already exists", type));
	fin_context_resume(context);
	initStringInfo(&request);
	fin_json_text(&request, "type", type);
	fin_json_text(&request, "from_types", types_text(from_types));
	fin_json_text(&request, "to_types", types_text(to_types));
	fin_json_text(&request, "name", name);
	audit_type("create_transfer_type", &request);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

void
fin_type_init(void)
{
	fin_cache_register(&pair_cache);
}
