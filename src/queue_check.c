/*
 * queue_check.c
 *		All messages of all queues, for check_integrity().
 *
 * A statement about finance.message locks the tables of every queue, with their
 * indexes, until the end of the transaction: with some hundred queues there are
 * not so many locks.  Here they are locked one after another.
 *
 * Owns nothing.  Locks: ACCESS SHARE on one segment at a time, while it is read.
 * Given back early, it lets the segment be truncated or dropped after that: what
 * was read of it stays what the snapshot shows.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_inherits.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "query.h"
#include "queue_parts.h"

static void
add_ids(ReturnSetInfo *result, Relation table)
{
	TableScanDesc scan = table_beginscan(table, GetActiveSnapshot(), 0, NULL);
	TupleTableSlot *row = table_slot_create(table, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		Datum		values[3];
		bool		nulls[3];

		CHECK_FOR_INTERRUPTS();
		values[0] = fin_segment_value(row, FIN_MSG_TENANT_ID, &nulls[0]);
		values[1] = fin_segment_value(row, FIN_MSG_QUEUE_ID, &nulls[1]);
		values[2] = fin_segment_value(row, FIN_MSG_MESSAGE_ID, &nulls[2]);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
}

PG_FUNCTION_INFO_V1(finance_message_ids);

/*
 * finance._message_ids() returns setof (tenant_id int, queue_id bigint,
 *		message_id bigint)
 *
 * The messages of all queues of all tenants, as the snapshot of the statement
 * shows them.  On a standby without those of unlogged queues, which has none.
 * For the extension's owner, who passes row security.
 */
Datum
finance_message_ids(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *segments = find_inheritance_children(fin_query_relation("message"),
													 NoLock);
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, segments)
	{
		Relation	table = try_table_open(lfirst_oid(cell), AccessShareLock);

		/* its queue was dropped meanwhile */
		if (table == NULL)
			continue;
		if (RelationIsPermanent(table) || !RecoveryInProgress())
			add_ids(result, table);
		table_close(table, AccessShareLock);
	}
	return (Datum) 0;
}
