/*
 * half_group.c
 *		Producer groups: who prepares half messages, and how it is asked about
 *		those it left unanswered.
 *
 * Owns finance.producer_group.
 *
 * Locks: dropping a group takes SHARE on finance.half_message until the end of
 * the transaction, so that nobody prepares for it meanwhile; whoever prepares
 * holds ROW EXCLUSIVE there before looking for the group.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "argument.h"
#include "context.h"
#include "errors.h"
#include "half_parts.h"
#include "query.h"
#include "queue.h"
#include "queue_parts.h"
#include "topic.h"

#define FIN_CHECKS_MAX			1000
#define FIN_SPAN_MAX_US			(FIN_QUEUE_SECONDS_MAX * USECS_PER_SEC)
#define FIN_INTERVAL_MAX_US		(3600 * USECS_PER_SEC)	/* where none is given */

static FinQuery find_group =
{
	.sql = "SELECT check_topic, check_after, check_interval,"
	" check_interval_max, max_checks FROM finance.producer_group"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery lock_group =
{
	.sql = "SELECT check_topic, check_after, check_interval,"
	" check_interval_max, max_checks FROM finance.producer_group"
	" WHERE tenant_id = $1 AND name = $2 FOR UPDATE",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery insert_group =
{
	.sql = "INSERT INTO finance.producer_group (tenant_id, name, check_topic,"
	" check_after, check_interval, check_interval_max, max_checks)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)"
	" ON CONFLICT (tenant_id, name) DO NOTHING",
	.nargs = 7,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, INTERVALOID, INTERVALOID,
	INTERVALOID, INT4OID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery update_group =
{
	.sql = "UPDATE finance.producer_group SET check_topic = $3,"
	" check_after = $4, check_interval = $5, check_interval_max = $6,"
	" max_checks = $7 WHERE tenant_id = $1 AND name = $2",
	.nargs = 7,
	.argtypes = {INT4OID, TEXTOID, TEXTOID, INTERVALOID, INTERVALOID,
	INTERVALOID, INT4OID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
	.writes_one = "producer_group",
};

static FinQuery delete_group =
{
	.sql = "DELETE FROM finance.producer_group"
	" WHERE tenant_id = $1 AND name = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
	.writes_one = "producer_group",
};

static FinQuery find_open =
{
	.sql = "SELECT h.half_id FROM finance.half_message h"
	" WHERE h.tenant_id = $1 AND h.producer_group = $2"
	" AND NOT EXISTS (SELECT FROM finance.half_answer a"
	" WHERE a.tenant_id = h.tenant_id AND a.half_id = h.half_id) LIMIT 1",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

/* ------------------------------------------------------------------------
 * intervals
 * ------------------------------------------------------------------------
 */

/* what is out of range stays so: days and months of an interval may be huge */
int64
fin_half_span_us(const Interval *span)
{
	double		us = ((double) span->month * DAYS_PER_MONTH + span->day) *
		USECS_PER_DAY + span->time;

	if (us > (double) FIN_SPAN_MAX_US)
		return FIN_SPAN_MAX_US + 1;
	return us < 1 ? 0 : (int64) us;
}

int64
fin_half_arg_span(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int64		us;

	fin_queue_refuse_null(fcinfo, arg, name);
	us = fin_half_span_us(PG_GETARG_INTERVAL_P(arg));
	if (us < 1 || us > FIN_SPAN_MAX_US)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%s is out of range", name),
				errdetail("It must be above zero and at most 30 days."));
	return us;
}

static Datum
span_datum(int64 us)
{
	Interval   *span = palloc0(sizeof(Interval));

	span->time = us;
	return IntervalPGetDatum(span);
}

/* ------------------------------------------------------------------------
 * groups
 * ------------------------------------------------------------------------
 */

static int64
span_column(int column)
{
	bool		isnull;
	Datum		value = fin_query_datum(0, column, &isnull);

	return fin_half_span_us(DatumGetIntervalP(value));
}

static void
raise_unknown(int32 tenant_id, const char *name)
{
	ereport(ERROR,
			errcode(ERRCODE_FIN_UNKNOWN_GROUP),
			errmsg("producer group \"%s\" does not exist", name),
			errdetail("There is no producer group of this name in tenant %d.",
					  tenant_id),
			errhint("Create it with finance.create_producer_group()."));
}

static void
read_group(FinQuery *query, int32 tenant_id, const char *name,
		   FinProducerGroup *group)
{
	Datum		values[2] = {Int32GetDatum(tenant_id),
	CStringGetTextDatum(name)};
	bool		isnull;

	if (fin_query_run(query, values, NULL, 1) == 0)
		raise_unknown(tenant_id, name);
	group->name = name;
	group->check_topic = fin_query_text(0, 1);
	group->check_after_us = span_column(2);
	group->check_interval_us = span_column(3);
	group->check_interval_max_us = span_column(4);
	group->max_checks = DatumGetInt32(fin_query_datum(0, 5, &isnull));
}

void
fin_half_find_group(int32 tenant_id, const char *name, FinProducerGroup *group)
{
	read_group(&find_group, tenant_id, name, group);
}

static uint64
write_group(FinQuery *query, int32 tenant_id, const FinProducerGroup *group)
{
	Datum		values[7] = {
		Int32GetDatum(tenant_id),
		CStringGetTextDatum(group->name),
		CStringGetTextDatum(group->check_topic),
		span_datum(group->check_after_us),
		span_datum(group->check_interval_us),
		span_datum(group->check_interval_max_us),
		Int32GetDatum(group->max_checks)
	};

	return fin_query_run(query, values, NULL, 0);
}

static void
check_name(const char *name)
{
	size_t		length = strlen(name);
	size_t		good = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
							  "abcdefghijklmnopqrstuvwxyz0123456789_.-");

	if (length == 0 || length > FIN_NAME_LENGTH_MAX || good < length)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("malformed name of a producer group"),
				errdetail("It is made of 1 to %d letters, digits, \"_\", \".\" and \"-\".",
						  FIN_NAME_LENGTH_MAX));
}

static void
check_intervals(const FinProducerGroup *group)
{
	if (group->check_interval_max_us < group->check_interval_us)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("check_interval_max must not be less than check_interval"));
}

/* arguments 1 to 5 that are not null */
static void
take_arguments(FunctionCallInfo fcinfo, FinProducerGroup *group)
{
	if (!PG_ARGISNULL(1))
	{
		group->check_topic = fin_queue_arg_text(fcinfo, 1, "check_topic");
		fin_topic_check(group->check_topic);
	}
	if (!PG_ARGISNULL(2))
		group->check_after_us = fin_half_arg_span(fcinfo, 2, "check_after");
	if (!PG_ARGISNULL(3))
		group->check_interval_us = fin_half_arg_span(fcinfo, 3,
													 "check_interval");
	if (!PG_ARGISNULL(4))
		group->check_interval_max_us = fin_half_arg_span(fcinfo, 4,
														 "check_interval_max");
	if (!PG_ARGISNULL(5))
		group->max_checks = fin_queue_arg_int(fcinfo, 5, "max_checks", 1,
											  FIN_CHECKS_MAX);
}

PG_FUNCTION_INFO_V1(finance_create_producer_group);

/*
 * finance.create_producer_group(name text, check_topic text,
 *		check_after interval, check_interval interval,
 *		check_interval_max interval, max_checks integer) returns void
 *
 * Declares a group of producers.  name: 1 to 63 letters, digits, "_", "." and
 * "-".  check_topic: where they are asked about half messages they left open.
 * check_after: from preparing to the first check; check_interval: to the next,
 * doubling from check to check up to check_interval_max (null: an hour, or
 * check_interval if that is longer); each above zero, at most 30 days.
 * max_checks: 1 to 1000 unanswered checks until it is parked.
 * The way of asking is RocketMQ's.
 * Errors: 42710 the name is taken, 42602 bad name, LG302 bad topic, 22004,
 * 22023.
 */
Datum
finance_create_producer_group(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		"name", "check_topic", "check_after", "check_interval", NULL,
		"max_checks"
	};
	int32		tenant_id = fin_context()->tenant_id;
	FinProducerGroup group = {0};
	FinQueryScope scope;

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (names[i] != NULL)
			fin_queue_refuse_null(fcinfo, i, names[i]);
	}
	group.name = fin_queue_arg_text(fcinfo, 0, "name");
	check_name(group.name);
	take_arguments(fcinfo, &group);
	if (PG_ARGISNULL(4))
		group.check_interval_max_us = Max(FIN_INTERVAL_MAX_US,
										  group.check_interval_us);
	check_intervals(&group);

	fin_query_begin(&scope);
	if (write_group(&insert_group, tenant_id, &group) == 0)
		ereport(ERROR,
				errcode(ERRCODE_DUPLICATE_OBJECT),
				errmsg("producer group \"%s\" already exists", group.name));
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_alter_producer_group);

/*
 * finance.alter_producer_group(name text, ...) returns void
 *
 * Changes what is not null; arguments as for create_producer_group().  Checks
 * already planned keep their time; the rest holds from the next one on.
 * Errors: LG308 no such group, LG302, 22004, 22023.
 * Locks: the group's row.
 */
Datum
finance_alter_producer_group(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "name");
	FinProducerGroup group;
	FinQueryScope scope;

	fin_query_begin(&scope);
	read_group(&lock_group, tenant_id, name, &group);
	take_arguments(fcinfo, &group);
	check_intervals(&group);
	(void) write_group(&update_group, tenant_id, &group);
	fin_query_end(&scope);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(finance_drop_producer_group);

/*
 * finance.drop_producer_group(name text) returns boolean
 *
 * Drops a group of which no half message is open or parked; false when there
 * is none of this name.
 * Errors: 2BP01 it has open ones, 22004.
 * Locks: SHARE on finance.half_message; waits for open transactions that
 * prepared something.  Commit soon.
 */
Datum
finance_drop_producer_group(PG_FUNCTION_ARGS)
{
	int32		tenant_id = fin_context()->tenant_id;
	char	   *name = fin_queue_arg_text(fcinfo, 0, "name");
	Datum		values[2];
	FinQueryScope scope;
	bool		exists;

	fin_query_begin(&scope);
	LockRelationOid(fin_query_relation("half_message"), ShareLock);
	values[0] = Int32GetDatum(tenant_id);
	values[1] = CStringGetTextDatum(name);
	if (fin_query_run(&find_open, values, NULL, 1) > 0)
		ereport(ERROR,
				errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				errmsg("producer group \"%s\" has open half messages", name),
				errdetail("One of them is " INT64_FORMAT ".",
						  fin_query_int64(0, 1)),
				errhint("Commit or roll them back first."));
	exists = fin_query_run(&lock_group, values, NULL, 1) > 0;
	if (exists)
		(void) fin_query_run(&delete_group, values, NULL, 0);
	fin_query_end(&scope);
	PG_RETURN_BOOL(exists);
}
