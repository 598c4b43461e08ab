/*
 * queue_read.c
 *		Reading messages: read, pop.
 *
 * Owns nothing; see queue_claim.c.
 */
#include "postgres.h"

#include "funcapi.h"

#include "archive.h"
#include "context.h"
#include "ident.h"
#include "query.h"
#include "queue_parts.h"

static int
arg_quantity(FunctionCallInfo fcinfo, int arg)
{
	return fin_queue_arg_int(fcinfo, arg, "qty", 1, FIN_QUEUE_BATCH_MAX);
}

/* until 0: delete what is read */
static void
read_messages(FunctionCallInfo fcinfo, TimestampTz now, TimestampTz until,
			  int quantity)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *queue_name = fin_queue_arg_text(fcinfo, 0, "queue_name");
	FinQueryScope scope;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	fin_query_begin(&scope);
	fin_queue_claim(fcinfo, tenant_id, queue_name, now, until, quantity);
	fin_query_end(&scope);
}

PG_FUNCTION_INFO_V1(finance_read);

/*
 * finance.read(queue_name text, vt int, qty int)
 *		returns setof finance.message_record
 *
 * Up to qty (1 to 10,000) messages that are visible, highest priority first,
 * then oldest; they become invisible to other readers for vt seconds (0 to 30
 * days), within which the reader deletes or archives them, or they are read
 * again.  read_ct counts the reads; it also tells this claim from a later one.
 * Messages locked by other transactions are skipped, not waited for, and so
 * are, above READ COMMITTED, those that others changed since the snapshot.  A
 * message with an ordering key is read only when no earlier one of the key is
 * left.  One that was read max_deliveries times becomes a dead letter.
 * Errors: LG301 unknown queue, LG309 a log queue, 22004 null, 22023 out of
 * range.
 * Locks: the rows, until the end of the transaction.
 */
Datum
finance_read(PG_FUNCTION_ARGS)
{
	TimestampTz now = fin_ident_now();
	int			vt = fin_queue_arg_int(fcinfo, 1, "vt", 0,
									   FIN_QUEUE_SECONDS_MAX);

	read_messages(fcinfo, now, now + vt * USECS_PER_SEC,
				  arg_quantity(fcinfo, 2));
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_pop);

/*
 * finance.pop(queue_name text, qty int) returns setof finance.message_record
 *
 * Reads as read() and deletes in the same step.  With the caller's commit the
 * messages are gone: do the work of the message in the same transaction.
 * Errors and locks: as read().
 */
Datum
finance_pop(PG_FUNCTION_ARGS)
{
	read_messages(fcinfo, fin_ident_now(), 0, arg_quantity(fcinfo, 1));
	return (Datum) 0;
}
