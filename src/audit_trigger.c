/*
 * audit_trigger.c
 *		Records the row changes of audited tables.
 *
 * A statement trigger reads the statement's transition tables straight from
 * their tuple stores and appends one record per row, in batches of
 * FIN_AUDIT_BATCH_ROWS rows or FIN_AUDIT_BATCH_BYTES of text, each batch one
 * INSERT; so memory is bounded however many rows a statement changes (the
 * transition tables themselves spill to disk).
 *
 * Statement triggers with transition tables do not fire where logical
 * replication applies changes, or session_replication_role is replica: they are
 * enabled for origin only, and a row trigger enabled for replica only does it
 * there, row by row.
 *
 * Rows are turned into JSON as the user who runs the statement, outside of
 * fin_query_begin: output functions of a table's types may be anybody's code.
 * The settings they depend on are fixed for each batch.
 *
 * Owns nothing beyond a call.  Locks: none but those of the INSERT.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "audit.h"
#include "audit_shape.h"
#include "audit_table.h"
#include "context.h"
#include "query.h"

/* a scan of one transition table */
typedef struct RowSource
{
	Tuplestorestate *rows;		/* NULL: none of this kind */
	int			pointer;		/* our own place in it; others scan it too */
	TupleTableSlot *slot;
} RowSource;

typedef struct RowWriter
{
	const char *operation;
	FinAuditShape *shape;
	int			nest;			/* of fixed settings; 0: none were changed */
	MemoryContext batch;		/* the texts of the records; reset by flush */
	FinAuditRecord *records;
	int			nrecords;
	Size		nbytes;
} RowWriter;

static void
open_writer(RowWriter *writer, const TriggerData *trigger,
			const char *operation)
{
	writer->operation = operation;
	writer->shape = fin_audit_shape(trigger);
	writer->nest = 0;
	/* blocks that malloc() keeps: no page faults for each batch anew */
	writer->batch = AllocSetContextCreate(CurrentMemoryContext,
										  "finance audit batch", 0,
										  8 * 1024, 64 * 1024);
	writer->records = NULL;
	writer->nrecords = 0;
	writer->nbytes = 0;
}

static void
flush_writer(RowWriter *writer)
{
	FinQueryScope scope;

	fin_output_restore(writer->nest);
	writer->nest = 0;
	if (writer->nrecords == 0)
		return;
	(void) fin_context();
	fin_query_begin(&scope);
	fin_audit_append(writer->records, writer->nrecords);
	fin_query_end(&scope);
	MemoryContextReset(writer->batch);
	writer->records = NULL;
	writer->nrecords = 0;
	writer->nbytes = 0;
}

/* makes room in memory of the batch, which is current */
static FinAuditRecord *
next_record(RowWriter *writer)
{
	FinAuditRecord *record;

	/* statements of one row are the most frequent: no more for them */
	if (writer->nrecords == 0)
		writer->records = palloc(sizeof(FinAuditRecord));
	else if ((writer->nrecords & (writer->nrecords - 1)) == 0)
		writer->records = repalloc(writer->records,
								   2 * writer->nrecords * sizeof(FinAuditRecord));
	record = &writer->records[writer->nrecords++];
	memset(record, 0, sizeof(*record));
	record->operation = writer->operation;
	record->object = writer->shape->object;
	return record;
}

/* one changed row: before, after, or both */
static void
write_row(RowWriter *writer, TupleTableSlot *old_row, TupleTableSlot *new_row)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->batch);
	text	   *change;

	if (writer->shape->need != FIN_OUTPUT_FREE && writer->nest == 0)
		writer->nest = fin_output_fix(writer->shape->need);
	change = fin_audit_change_text(writer->shape, old_row, new_row);
	if (change != NULL)
	{
		FinAuditRecord *record = next_record(writer);

		record->change = change;
		record->row_key = fin_audit_key_text(writer->shape,
											 old_row ? old_row : new_row);
		writer->nbytes += VARSIZE(change);
	}
	MemoryContextSwitchTo(caller);

	if (writer->nrecords == FIN_AUDIT_BATCH_ROWS ||
		writer->nbytes >= FIN_AUDIT_BATCH_BYTES)
		flush_writer(writer);
}

static void
open_source(RowSource *source, Tuplestorestate *rows, Relation relation)
{
	if (rows == NULL)
		return;
	source->rows = rows;
	source->pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(rows, source->pointer);
	tuplestore_rescan(rows);
	source->slot = MakeSingleTupleTableSlot(RelationGetDescr(relation),
											&TTSOpsMinimalTuple);
}

static TupleTableSlot *
next_row(RowSource *source)
{
	tuplestore_select_read_pointer(source->rows, source->pointer);
	if (!tuplestore_gettupleslot(source->rows, true, false, source->slot))
		return NULL;
	return source->slot;
}

static void
close_source(RowSource *source)
{
	if (source->rows != NULL)
		ExecDropSingleTupleTableSlot(source->slot);
}

static void
write_old_rows(RowWriter *writer, RowSource *source)
{
	TupleTableSlot *row;

	while ((row = next_row(source)) != NULL)
		write_row(writer, row, NULL);
}

static void
write_new_rows(RowWriter *writer, RowSource *source)
{
	TupleTableSlot *row;

	while ((row = next_row(source)) != NULL)
		write_row(writer, NULL, row);
}

/*
 * The server adds the old and the new version of a row together, so both
 * tables have the same order.  The exception: a row that was to move to
 * another partition and whose insertion there a BEFORE trigger refused has an
 * old version only.  Then nothing tells which belong together, and each
 * version is recorded by itself.
 */
static void
write_updated_rows(RowWriter *writer, RowSource *before, RowSource *after)
{
	TupleTableSlot *old_row;

	if (tuplestore_tuple_count(before->rows) !=
		tuplestore_tuple_count(after->rows))
	{
		write_old_rows(writer, before);
		write_new_rows(writer, after);
		return;
	}
	while ((old_row = next_row(before)) != NULL)
		write_row(writer, old_row, next_row(after));
}

static void
write_truncate(RowWriter *writer)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->batch);

	(void) next_record(writer);
	MemoryContextSwitchTo(caller);
}

static void
write_changes(const TriggerData *trigger)
{
	RowSource	before = {0};
	RowSource	after = {0};
	RowWriter	writer;

	open_source(&before, trigger->tg_oldtable, trigger->tg_relation);
	open_source(&after, trigger->tg_newtable, trigger->tg_relation);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		open_writer(&writer, trigger, "INSERT");
		write_new_rows(&writer, &after);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		open_writer(&writer, trigger, "UPDATE");
		write_updated_rows(&writer, &before, &after);
	}
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		open_writer(&writer, trigger, "DELETE");
		write_old_rows(&writer, &before);
	}
	else
	{
		open_writer(&writer, trigger, "TRUNCATE");
		write_truncate(&writer);
	}
	flush_writer(&writer);
	MemoryContextDelete(writer.batch);
	close_source(&before);
	close_source(&after);
}

/* one row, under session_replication_role = replica */
static void
write_row_change(const TriggerData *trigger)
{
	RowWriter	writer;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		open_writer(&writer, trigger, "INSERT");
		write_row(&writer, NULL, trigger->tg_trigslot);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		open_writer(&writer, trigger, "UPDATE");
		write_row(&writer, trigger->tg_trigslot, trigger->tg_newslot);
	}
	else
	{
		open_writer(&writer, trigger, "DELETE");
		write_row(&writer, trigger->tg_trigslot, NULL);
	}
	flush_writer(&writer);
	MemoryContextDelete(writer.batch);
}

/*
 * The one that records row by row.  It may be enabled otherwise, as ENABLE
 * TRIGGER ALL does; the others record what is not replicated.
 */
static bool
is_for_replicated(const TriggerData *trigger)
{
	return trigger->tg_trigger->tgtype == FIN_AUDIT_REPLICATED;
}

/* the one that does not fire, unless all are enabled */
static bool
is_for_routed(const TriggerData *trigger)
{
	return trigger->tg_trigger->tgtype == FIN_AUDIT_ROUTED;
}

/* attached by hand, without the transition tables it reads? */
static bool
has_transition_tables(const TriggerData *trigger)
{
	bool		needs_old = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
	bool		needs_new = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event);

	return (!needs_old || trigger->tg_oldtable != NULL) &&
		(!needs_new || trigger->tg_newtable != NULL);
}

PG_FUNCTION_INFO_V1(finance_audit_rows);

/*
 * finance._audit_rows() returns trigger
 *
 * Trigger that finance.audit_table() attaches.  Records operation INSERT,
 * UPDATE, DELETE or TRUNCATE, the table, the row's primary key (of the old
 * version where there is one) and {"old": ..., "new": ...} as request.  A
 * statement that changes no row leaves no record.
 * Errors: 39P01 not called as an AFTER trigger for each statement with
 * transition tables, nor as that for replicated rows; 54000 the subject of
 * encrypted values is too long; those of fin_audit_shape() and fin_context().
 */
Datum
finance_audit_rows(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (CALLED_AS_TRIGGER(fcinfo) && is_for_routed(trigger))
		return PointerGetDatum(trigger->tg_trigtuple);
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		(TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ?
		 !has_transition_tables(trigger) : !is_for_replicated(trigger)))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_audit_rows() can only be called as an AFTER trigger for each statement, with transition tables"),
				errhint("Use finance.audit_table() to attach it."));
	if (TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		write_changes(trigger);
	else if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		write_row_change(trigger);
	return PointerGetDatum(NULL);
}
