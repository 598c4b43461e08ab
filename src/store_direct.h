/*
 * store_direct.h
 *		The second implementation behind the store's door: rows written through
 *		the table access method, without a statement.
 *
 * For rows whose shape and fate are wholly ours: appended ones, and the totals
 * of accounts that are locked.  What a statement would do besides (indexes,
 * NOT NULL and CHECK constraints, the partition) is done by the executor's own
 * functions; where a statement would do still more, that is where somebody
 * attached a trigger, these refuse and the caller uses SQL.
 *
 * Call inside fin_query_begin/end.
 */
#ifndef FIN_STORE_DIRECT_H
#define FIN_STORE_DIRECT_H

#include "access/skey.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "utils/relcache.h"

#include "partition.h"

typedef struct FinDirect FinDirect;

/*
 * Does the table have these columns, of these types, in this order and by its
 * parent's names?  A partition may have been made by hand.
 */
extern bool fin_direct_has_layout(Relation table, Relation parent,
								  const Oid *types, int columns);

/*
 * Start appending to a partitioned table whose columns have these types, in
 * this order (InvalidOid: any).  NULL when it must be done in SQL.
 */
extern FinDirect *fin_direct_begin_append(FinPartitioned which,
										  const Oid *types, int columns);

/*
 * Append one row; false when this row must be written in SQL.  Rows are
 * gathered and written some at a time, the last of them by fin_direct_end().
 */
extern bool fin_direct_append(FinDirect *direct, int64 id,
							  const Datum *values, const bool *nulls);

/*
 * Start inserting into a plain table laid out so.  NULL when it must be done
 * in SQL.  Rows are gathered and written some at a time, the last of them by
 * fin_direct_end().
 */
extern FinDirect *fin_direct_begin_insert(Oid relid, const Oid *types,
										  int columns);
extern void fin_direct_put(FinDirect *direct, const Datum *values,
						   const bool *nulls);

/*
 * The same for a table that is written in no other way, whatever
 * finance.direct_writes says.  Error: 0A000 somebody attached a trigger to it,
 * or changed it.
 */
extern FinDirect *fin_direct_begin_own(Oid relid, const Oid *types,
									   int columns);

/* write what was gathered, so that others can meet it */
extern void fin_direct_flush(FinDirect *direct);

/*
 * Insert one row into a table laid out so; false when it must be done in SQL.
 * A row of a partition must be one of its own: that is not checked.
 */
extern bool fin_direct_insert(Oid relid, const Oid *types, int columns,
							  const Datum *values, const bool *nulls);

/*
 * Start inserting into a plain table laid out so, whose unique indexes may
 * already have a row.  NULL when it must be done in SQL.
 */
extern FinDirect *fin_direct_begin_unique(const char *table, const Oid *types,
										  int columns);

/*
 * Insert the row unless a unique index has its key, as ON CONFLICT DO NOTHING
 * would: waits for another transaction that is inserting the same.  False when
 * the key is taken.
 */
extern bool fin_direct_insert_unique(FinDirect *direct, const Datum *values,
									 const bool *nulls);

/*
 * Start looking rows of a plain table up by a unique index of these columns.
 * NULL when it must be done in SQL.
 */
extern FinDirect *fin_direct_begin_find(const char *table, const char *index,
										int columns, const AttrNumber *key,
										int key_columns);

/* the row of this key as this transaction sees it now, or NULL */
extern TupleTableSlot *fin_direct_find(FinDirect *direct, ScanKey key,
									   int needed);

/*
 * Where the versions of the row that fin_direct_find() found last begin, for
 * fin_direct_seek().
 */
extern ItemPointerData fin_direct_root(const FinDirect *direct);

/*
 * Start looking rows of a plain table up where they were, by no index.  NULL
 * when that cannot be done.  For READ COMMITTED only: under stricter levels who
 * finds nothing must have looked into an index.
 */
extern FinDirect *fin_direct_begin_seek(const char *table, int columns);

/*
 * The row whose versions begin there, as this transaction sees it now; good
 * until the next call.  NULL: there is none by now.  Another row may have come
 * to that place, so the caller looks at its key.
 */
extern TupleTableSlot *fin_direct_seek(FinDirect *direct,
									   const ItemPointerData *root, int needed);

/*
 * Start looking for rows of such a table by a unique index of these columns,
 * those that other transactions are inserting included.  Locks the table in
 * ACCESS SHARE until the end.  scan_keys: how many keys a probe has.
 */
extern FinDirect *fin_direct_begin_probe(const char *table, const char *index,
										 int columns, const AttrNumber *key,
										 int key_columns, int scan_keys);

/*
 * A row that answers the keys and is committed, or of this transaction; good
 * until the next call.  NULL when there is none; then *writer is a transaction
 * that is inserting one, or InvalidTransactionId.  Waits for nobody.  Error:
 * 40001 the snapshot of REPEATABLE READ does not see the row.
 */
extern TupleTableSlot *fin_direct_probe(FinDirect *direct, ScanKey key,
										TransactionId *writer);

/*
 * Start locking rows of a plain table by a unique index of these columns, which
 * never change in a row.  NULL when it must be done in SQL.
 */
extern FinDirect *fin_direct_begin_lock(const char *table, const char *index,
										int columns, const AttrNumber *key,
										int key_columns);

/*
 * Lock (FOR NO KEY UPDATE) the row of this key in its newest version, as the
 * statement would: waiting for who changes it, and refusing with 40001 what the
 * snapshot of REPEATABLE READ does not see.  The row, its columns 0 to
 * 'needed' - 1 filled, or NULL when there is none; good until the next call.
 */
extern TupleTableSlot *fin_direct_lock(FinDirect *direct, ScanKey key,
									   int needed);

/*
 * Start updating a plain table.  NULL when it must be done in SQL.
 */
extern FinDirect *fin_direct_begin_update(const char *table, int columns);

/*
 * Replace columns[0..n-1] (from 0) of the row at 'tid', which this transaction
 * has locked, or that nobody else may write.  check: called with all values of
 * the new row; NULL: none.
 */
extern void fin_direct_update(FinDirect *direct, ItemPointer tid,
							  const int *columns, int n, const Datum *values,
							  void (*check) (const Datum *values,
											 const bool *nulls));

extern void fin_direct_end(FinDirect *direct);

extern void fin_direct_init(void);

#endif							/* FIN_STORE_DIRECT_H */
