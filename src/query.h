/*
 * query.h
 *		The one gateway to SPI: a static query, its kept plan, a checked result.
 *
 * Use:
 *		static FinQuery lookup = {
 *			.sql = "SELECT ... FROM finance.tenant WHERE tenant_id = $1",
 *			.nargs = 1, .argtypes = {INT4OID}, .expect = SPI_OK_SELECT};
 *
 *		FinQueryScope scope;
 *		fin_query_begin(&scope);
 *		n = fin_query_run(&lookup, values, NULL, 0);
 *		... fin_query_int64(row, column, &isnull) ...
 *		fin_query_end(&scope);
 *
 * Between begin and end the current user is the owner of the extension, so the
 * caller of a function needs no privilege on tables, and the search path is
 * pg_catalog alone.  Memory allocated between
 * is freed by end; allocate what must live longer in scope.caller.
 * An ERROR in between is cleaned up by the transaction machinery.
 */
#ifndef FIN_QUERY_H
#define FIN_QUERY_H

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/palloc.h"

#define FIN_QUERY_MAX_ARGS 40

typedef struct FinQuery
{
	const char *sql;			/* names qualified, values only as $n */
	int			nargs;
	int			expect;			/* SPI_OK_... that must come back */
	bool		read_only;		/* with the calling statement's snapshot: for
								 * STABLE functions */
	bool		read_latest;	/* read with the newest snapshot, whatever the
								 * isolation level: for loading caches */
	bool		in_order;		/* has a limit, and an index in the order asked
								 * for: never sort more than that */
	bool		fires_triggers; /* written where somebody may have attached a
								 * trigger: let its function set a search path */
	const char *writes_one;		/* the table of which it must write one row,
								 * which such a trigger may suppress: 27000 */
	SPIPlanPtr	plan;			/* kept; filled at first use */
	Oid			argtypes[FIN_QUERY_MAX_ARGS];
} FinQuery;

typedef struct FinQueryScope
{
	MemoryContext caller;		/* the context that was current at begin */
	Oid			save_user;
	int			save_sec_context;
	int			path_nest;		/* of the pinned search path */
} FinQueryScope;

extern void fin_query_begin(FinQueryScope *scope);
extern void fin_query_end(FinQueryScope *scope);

/*
 * Runs the query and returns the number of rows processed; rows, if any, are
 * in SPI_tuptable.  nulls: one char per argument as SPI takes them, or NULL.
 * limit: most rows to fetch, 0 for all.
 */
extern uint64 fin_query_run(FinQuery *query, Datum *values, const char *nulls,
							long limit);

/*
 * Rows that queries can read by name, as "SELECT ... FROM name", until the end
 * of the scope.  Call right after begin, in the memory context it leaves
 * current.  Plans of such queries may be kept.
 */
extern void fin_query_offer(const char *name, TupleDesc desc,
							Tuplestorestate *rows);

/* a permanent descriptor of columns c1, c2 ... of these types, for such rows */
extern TupleDesc fin_query_descriptor(const Oid *types, int n);

/*
 * Runs a read-only query and makes its rows, which are as the function
 * declares them, the function's result, without holding them all in memory.
 * Call InitMaterializedSRF() before fin_query_begin().  Returns how many.
 */
extern uint64 fin_query_return(FinQuery *query, Datum *values,
							   FunctionCallInfo fcinfo);

/* a column (from 1) of a row (from 0) of the last result */
extern Datum fin_query_datum(uint64 row, int column, bool *isnull);
extern int64 fin_query_int64(uint64 row, int column);
extern char *fin_query_text(uint64 row, int column);	/* NULL for null */

/* a utility command made of static text and numbers only; no user text */
extern void fin_query_utility(const char *command);

/* are we called, as by an event trigger, from such a command? */
extern bool fin_query_in_utility(void);

/* the owner of the extension; relations of schema finance by name */
extern Oid	fin_query_owner(void);
extern Oid	fin_query_relation(const char *name);

#endif							/* FIN_QUERY_H */
