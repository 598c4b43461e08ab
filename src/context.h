/*
 * context.h
 *		Who acts: tenant, actor, trace id, client address, user agent; and the
 *		tenant's business date.
 */
#ifndef FIN_CONTEXT_H
#define FIN_CONTEXT_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/uuid.h"

typedef struct FinContext
{
	int32		tenant_id;		/* checked: the user may act for it */
	pg_uuid_t	trace_id;		/* finance.trace_id, else one per transaction */
	const char *actor;			/* finance.actor, else the outer user */
	const char *session_user;
	const char *role;			/* of SET ROLE; NULL: the session user */
	/* NULL if not told; valid in the encoding */
	const char *application_name;
	const char *user_agent;
	const char *span_id;
	const char *request_id;
	const char *reason;
	Datum		client_addr;	/* inet: finance.client_addr, else of the
								 * connection; 0 when local or in a worker */
	bool		has_client_addr;
} FinContext;

/*
 * The context of this call.  Valid until the next call of fin_context().
 * Errors: LG010 unknown tenant, 42501 not a member of its role, 22P02 bad
 * finance.trace_id or finance.client_addr, 22021 user agent not valid in the encoding.
 * Runs a query the first time: call it outside of fin_query_begin/end, so that
 * the current user is still the caller.
 */
extern const FinContext *fin_context(void);

/*
 * The same for what is of the whole database, as DDL is: where the session's
 * tenant is none of the user's, it is recorded in tenant 0, and no error.
 */
extern const FinContext *fin_context_of_database(void);

/*
 * fin_context(), in memory of the caller, for functions that write where
 * somebody may have attached a trigger: the trigger may call us again, as
 * another tenant and actor.  Resume it when such a write is done.
 */
extern const FinContext *fin_context_hold(void);
extern void fin_context_resume(const FinContext *held);

/* what the last fin_context() of this call filled in, or resumed */
extern const FinContext *fin_context_current(void);

/*
 * Calls body with the context that an argument (from 0) of fcinfo tells, a
 * jsonb named context, or as it is where that is null.  For functions that
 * return at once, not row by row.  Errors: 22023 unknown key, not an object of
 * strings.
 */
extern Datum fin_context_call(FunctionCallInfo fcinfo, int argument,
							  PGFunction body);

/* 'when' in the tenant's time zone: the date, and microseconds of the day */
extern void fin_context_local(int32 tenant_id, TimestampTz when,
							  DateADT *date, TimeADT *time_of_day);

/*
 * Sequence number of the next audit record in this top-level transaction: from
 * 1, without a gap among those that are committed, for a subtransaction that is
 * rolled back gives its numbers back.
 */
extern int32 fin_context_next_sequence(void);

extern void fin_context_init(void);

#endif							/* FIN_CONTEXT_H */
