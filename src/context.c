/*
 * context.c
 *		Who acts.
 *
 * Owns: the current FinContext (static, refilled by each call), a cache of
 * tenants (bounded, invalidated with finance.tenant), and the trace id and
 * record sequence of the current top-level transaction, told apart by its
 * local transaction id; and what the sequence was when each subtransaction
 * that took numbers began, in memory of that transaction.  Takes no locks but
 * those of the lookup.
 *
 * A subtransaction that is rolled back gives its numbers back: so those of a
 * transaction's records have no gap, and one in the log is a record that
 * somebody deleted.
 *
 * A tenant named by a setting is no boundary, since the same user can SET it:
 * each call checks that the user is a member of the tenant's role.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "cache.h"
#include "compat.h"
#include "context.h"
#include "errors.h"
#include "ident.h"
#include "query.h"
#include "settings.h"

#define FIN_TENANT_CACHE_MAX	16
#define FIN_ACTOR_LENGTH_MAX	256
#define FIN_USER_AGENT_LENGTH_MAX 1024
#define FIN_SPAN_ID_LENGTH_MAX	128
#define FIN_REQUEST_ID_LENGTH_MAX 256
#define FIN_REASON_LENGTH_MAX	1024
#define FIN_CLIENT_ADDR_LENGTH_MAX 63

typedef struct Tenant
{
	int32		tenant_id;
	Oid			member_role;	/* InvalidOid: open */
	pg_tz	   *zone;
} Tenant;

static FinCache tenant_cache = {.table = "tenant"};
static Tenant tenants[FIN_TENANT_CACHE_MAX];
static int	ntenants = 0;

static FinContext context;		/* its texts are these, never others' memory */
static Oid	named_session_user = InvalidOid;	/* whose names are known */
static Oid	named_outer_user = InvalidOid;
static char session_text[NAMEDATALEN];
static char role_text[NAMEDATALEN];
static char actor_text[FIN_ACTOR_LENGTH_MAX + 1];
static char user_agent_text[FIN_USER_AGENT_LENGTH_MAX + 1];
static char span_id_text[FIN_SPAN_ID_LENGTH_MAX + 1];
static char request_id_text[FIN_REQUEST_ID_LENGTH_MAX + 1];
static char reason_text[FIN_REASON_LENGTH_MAX + 1];
static char application_text[NAMEDATALEN];

static LocalTransactionId current_lxid = InvalidLocalTransactionId;
static pg_uuid_t transaction_trace;
static int32 transaction_sequence;

/* of an open subtransaction that took numbers, or of those it took over */
typedef struct SequenceMark
{
	SubTransactionId subtransaction;
	int32		sequence;		/* before the first of them */
	struct SequenceMark *below; /* of one further out */
} SequenceMark;

static SequenceMark *sequence_marks;	/* of the current transaction */

static FinQuery find_tenant =
{
	.sql = "SELECT time_zone, member_role::pg_catalog.oid"
	" FROM finance.tenant WHERE tenant_id = $1",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static pg_tz *
zone_by_name(const char *name, int32 tenant_id)
{
	pg_tz	   *zone = pg_tzset(name);

	if (zone == NULL)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("time zone \"%s\" of tenant %d not recognized",
					   name, tenant_id),
				errhint("Set finance.tenant.time_zone to a name in pg_timezone_names."));
	return zone;
}

static Tenant *
load_tenant(int32 tenant_id)
{
	FinQueryScope scope;
	Tenant	   *tenant = NULL;
	Datum		values[1] = {Int32GetDatum(tenant_id)};

	fin_query_begin(&scope);
	if (!fin_cache_loading(&tenant_cache) || ntenants == FIN_TENANT_CACHE_MAX)
		ntenants = 0;
	if (fin_query_run(&find_tenant, values, NULL, 1) == 1)
	{
		bool		isnull;
		char	   *zone_name = fin_query_text(0, 1);
		Datum		role = fin_query_datum(0, 2, &isnull);

		tenant = &tenants[ntenants];
		tenant->tenant_id = tenant_id;
		tenant->zone = zone_by_name(zone_name, tenant_id);
		tenant->member_role = isnull ? InvalidOid : DatumGetObjectId(role);
		ntenants++;
	}
	fin_query_end(&scope);
	return tenant;
}

/* NULL when there is none */
static Tenant *
find_cached_tenant(int32 tenant_id)
{
	if (fin_cache_valid(&tenant_cache))
	{
		for (int i = 0; i < ntenants; i++)
		{
			if (tenants[i].tenant_id == tenant_id)
				return &tenants[i];
		}
	}
	return load_tenant(tenant_id);
}

static bool
is_open_to(const Tenant *tenant, Oid user)
{
	return !OidIsValid(tenant->member_role) ||
		has_privs_of_role(user, tenant->member_role);
}

static void
check_tenant(int32 tenant_id)
{
	Tenant	   *tenant = find_cached_tenant(tenant_id);

	if (tenant == NULL)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_TENANT),
				errmsg("tenant %d does not exist", tenant_id),
				errhint("Create it with finance.create_tenant(), or set finance.tenant to one that exists."));
	if (!is_open_to(tenant, GetUserId()))
		ereport(ERROR,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("permission denied for tenant %d", tenant_id),
				errdetail("User \"%s\" is not a member of the tenant's role \"%s\".",
						  GetUserNameFromId(GetUserId(), true),
						  GetUserNameFromId(tenant->member_role, true)));
}

/* settings from the startup packet are not verified by the server */
static const char *
checked_text(const char *value, const char *setting, int length_max)
{
	int			length;

	if (value == NULL || value[0] == '\0')
		return NULL;
	length = strlen(value);
	if (!pg_verify_mbstr(GetDatabaseEncoding(), value, length, true))
		ereport(ERROR,
				errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				errmsg("%s is not valid in encoding \"%s\"",
					   setting, GetDatabaseEncodingName()));
	if (length > length_max)
		ereport(ERROR,
				errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				errmsg("%s is too long", setting),
				errdetail("It has %d bytes, the most is %d.",
						  length, length_max));
	return value;
}

/* a new top-level transaction: new trace id, sequence from 1 */
static void
follow_transaction(void)
{
	if (current_lxid == FIN_MY_LXID)
		return;
	current_lxid = FIN_MY_LXID;
	fin_ident_trace(&transaction_trace);
	transaction_sequence = 0;
	sequence_marks = NULL;
}

/* once per backend; stays null for Unix sockets and in workers */
static Datum
connection_address(bool *isnull)
{
	static bool known = false;
	static bool has_address = false;
	static Datum address;
	LOCAL_FCINFO(fcinfo, 0);

	if (!known)
	{
		Datum		found;

		InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
		found = inet_client_addr(fcinfo);
		if (!fcinfo->isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			address = datumCopy(found, false, -1);
			has_address = true;
			MemoryContextSwitchTo(old);
		}
		known = true;
	}
	*isnull = !has_address;
	return address;
}

/* parsed once, as long as the setting stays the same */
static Datum
told_address(void)
{
	static char told[FIN_CLIENT_ADDR_LENGTH_MAX + 1];
	static int32 address[(sizeof(inet) + 3) / 4];

	if (strcmp(told, fin_client_addr) != 0)
	{
		Datum		parsed = DirectFunctionCall1(inet_in,
												 CStringGetDatum(fin_client_addr));

		memcpy(address, DatumGetPointer(parsed), VARSIZE_ANY(parsed));
		strlcpy(told, fin_client_addr, sizeof(told));
	}
	return PointerGetDatum(address);
}

static void
fill_client_address(void)
{
	bool		isnull = false;

	if (fin_client_addr != NULL && fin_client_addr[0] != '\0')
		context.client_addr = told_address();
	else
		context.client_addr = connection_address(&isnull);
	context.has_client_addr = !isnull;
}

/* copied: the memory of a setting goes when it is set, also by a trigger */
static void
set_text(const char **field, char *memory, Size size, const char *value)
{
	*field = NULL;
	if (value == NULL)
		return;
	strlcpy(memory, value, size);
	*field = memory;
}

#define SET_TEXT(field, memory, value) \
	set_text(&context.field, memory, sizeof(memory), value)

static void
set_texts(const FinContext *from)
{
	SET_TEXT(session_user, session_text, from->session_user);
	SET_TEXT(role, role_text, from->role);
	SET_TEXT(actor, actor_text, from->actor);
	SET_TEXT(application_name, application_text, from->application_name);
	SET_TEXT(user_agent, user_agent_text, from->user_agent);
	SET_TEXT(span_id, span_id_text, from->span_id);
	SET_TEXT(request_id, request_id_text, from->request_id);
	SET_TEXT(reason, reason_text, from->reason);
}

/*
 * The name of a role, which is common to all databases: one made in a database
 * of another encoding may not be valid in ours, and a dump of what is not
 * cannot be restored.
 */
static void
copy_role_name(char *name, Oid role)
{
	strlcpy(name, GetUserNameFromId(role, false), NAMEDATALEN);
	if (pg_verifymbstr(name, strlen(name), true))
		return;
	for (char *c = name; *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	}
}

/*
 * Names of the users, looked up again only when the user changes or, of
 * whatever role, pg_authid.  The actor is the outer user, that of SET ROLE or
 * the session: within SECURITY DEFINER functions the current user is their
 * owner, who did not ask for anything.
 */
static void
fill_users(FinContext *told)
{
	static char session_name[NAMEDATALEN];
	static char outer_name[NAMEDATALEN];

	if (named_session_user != GetSessionUserId())
	{
		copy_role_name(session_name, GetSessionUserId());
		named_session_user = GetSessionUserId();
	}
	if (named_outer_user != GetOuterUserId())
	{
		copy_role_name(outer_name, GetOuterUserId());
		named_outer_user = GetOuterUserId();
	}
	told->session_user = session_name;
	if (GetOuterUserId() != GetSessionUserId())
		told->role = outer_name;
	if (told->actor == NULL)
		told->actor = outer_name;
}

static void
fill_texts(void)
{
	FinContext	told = {0};

	told.actor = checked_text(fin_actor, "finance.actor",
							  FIN_ACTOR_LENGTH_MAX);
	fill_users(&told);
	told.application_name = checked_text(application_name, "application_name",
										 NAMEDATALEN - 1);
	told.user_agent = checked_text(fin_user_agent, "finance.user_agent",
								   FIN_USER_AGENT_LENGTH_MAX);
	told.span_id = checked_text(fin_span_id, "finance.span_id",
								FIN_SPAN_ID_LENGTH_MAX);
	told.request_id = checked_text(fin_request_id, "finance.request_id",
								   FIN_REQUEST_ID_LENGTH_MAX);
	told.reason = checked_text(fin_reason, "finance.reason",
							   FIN_REASON_LENGTH_MAX);
	set_texts(&told);
}

static const FinContext *
fill_context(int32 tenant_id)
{
	follow_transaction();
	context.tenant_id = tenant_id;
	context.trace_id = transaction_trace;
	if (fin_trace_id != NULL && fin_trace_id[0] != '\0')
		context.trace_id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in,
															  CStringGetDatum(fin_trace_id)));
	fill_texts();
	fill_client_address();
	return &context;
}

const FinContext *
fin_context(void)
{
	check_tenant(fin_tenant);
	return fill_context(fin_tenant);
}

const FinContext *
fin_context_of_database(void)
{
	Tenant	   *tenant = find_cached_tenant(fin_tenant);

	return fill_context(tenant != NULL && is_open_to(tenant, GetUserId()) ?
						fin_tenant : 0);
}

static void
keep_text(const char **text)
{
	if (*text != NULL)
		*text = pstrdup(*text);
}

const FinContext *
fin_context_hold(void)
{
	FinContext *held = palloc(sizeof(FinContext));

	*held = *fin_context();
	if (held->has_client_addr)
		held->client_addr = datumCopy(held->client_addr, false, -1);
	keep_text(&held->session_user);
	keep_text(&held->role);
	keep_text(&held->actor);
	keep_text(&held->application_name);
	keep_text(&held->user_agent);
	keep_text(&held->span_id);
	keep_text(&held->request_id);
	keep_text(&held->reason);
	return held;
}

void
fin_context_resume(const FinContext *held)
{
	context = *held;
	set_texts(held);
}

const FinContext *
fin_context_current(void)
{
	return &context;
}

/* remember where the subtransaction found the sequence */
static void
mark_sequence(void)
{
	SubTransactionId current = GetCurrentSubTransactionId();
	SequenceMark *mark;

	if (current == TopSubTransactionId ||
		(sequence_marks != NULL && sequence_marks->subtransaction == current))
		return;
	mark = MemoryContextAlloc(TopTransactionContext, sizeof(SequenceMark));
	mark->subtransaction = current;
	mark->sequence = transaction_sequence;
	mark->below = sequence_marks;
	sequence_marks = mark;
}

int32
fin_context_next_sequence(void)
{
	follow_transaction();
	mark_sequence();
	return ++transaction_sequence;
}

static void
drop_mark(void)
{
	SequenceMark *mark = sequence_marks;

	sequence_marks = mark->below;
	pfree(mark);
}

/*
 * Its numbers go back to be given again, or to the one around it, which may
 * still be rolled back.  Marks lie in the order of the subtransactions, so its
 * own, if it has one, is the last.
 */
static void
subtransaction_ended(SubXactEvent event, SubTransactionId subtransaction,
					 SubTransactionId parent, void *arg)
{
	SequenceMark *mark = sequence_marks;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	/* marks of a transaction before are gone with its memory */
	if (current_lxid != FIN_MY_LXID || mark == NULL ||
		mark->subtransaction != subtransaction)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		transaction_sequence = mark->sequence;
		drop_mark();
	}
	else if (parent == TopSubTransactionId ||
			 (mark->below != NULL && mark->below->subtransaction == parent))
		drop_mark();
	else
		mark->subtransaction = parent;
}

void
fin_context_local(int32 tenant_id, TimestampTz when,
				  DateADT *date, TimeADT *time_of_day)
{
	Tenant	   *tenant = find_cached_tenant(tenant_id);
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;

	if (tenant == NULL ||
		timestamp2tm(when, &offset, &tm, &fsec, NULL, tenant->zone) != 0)
		ereport(ERROR,
				errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				errmsg("time out of range for tenant %d", tenant_id));
	*date = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
	*time_of_day = ((((int64) tm.tm_hour * 60 + tm.tm_min) * 60 + tm.tm_sec)
					* USECS_PER_SEC) + fsec;
}

/* a role was renamed, perhaps */
static void
forget_names(Datum arg, int cache, uint32 hash)
{
	named_session_user = InvalidOid;
	named_outer_user = InvalidOid;
}

void
fin_context_init(void)
{
	fin_cache_register(&tenant_cache);
	CacheRegisterSyscacheCallback(AUTHOID, forget_names, (Datum) 0);
	RegisterSubXactCallback(subtransaction_ended, NULL);
}

PG_FUNCTION_INFO_V1(finance_is_tenant_visible);

/*
 * finance._is_tenant_visible(tenant_id int) returns boolean
 *
 * For row security: the row belongs to the session's tenant and the user is a
 * member of that tenant's role.
 */
Datum
finance_is_tenant_visible(PG_FUNCTION_ARGS)
{
	Tenant	   *tenant;

	if (PG_GETARG_INT32(0) != fin_tenant)
		PG_RETURN_BOOL(false);
	tenant = find_cached_tenant(fin_tenant);
	PG_RETURN_BOOL(tenant != NULL && is_open_to(tenant, GetUserId()));
}

PG_FUNCTION_INFO_V1(finance_may_see_tenant);

/*
 * finance._may_see_tenant(tenant_id int) returns boolean
 *
 * For security definer functions that look at all tenants: whether the outer
 * user, that of SET ROLE or the session, may see this one's rows.  The owner
 * of the extension sees all, also what is left of a tenant that is gone.
 */
Datum
finance_may_see_tenant(PG_FUNCTION_ARGS)
{
	Tenant	   *tenant;

	if (has_privs_of_role(GetOuterUserId(), fin_query_owner()))
		PG_RETURN_BOOL(true);
	tenant = find_cached_tenant(PG_GETARG_INT32(0));
	PG_RETURN_BOOL(tenant != NULL && is_open_to(tenant, GetOuterUserId()));
}
