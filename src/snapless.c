/*
 * snapless.c
 *		Waiting without a snapshot.
 *
 * A query that a client sends is run by a portal.  Its snapshot has exactly
 * three references: the portal's query description and the executor's state
 * have registered it, in the portal's resource owner, and while the executor
 * runs it is the active snapshot.  (See PortalStart(), PortalRunSelect() and
 * standard_ExecutorStart().)  Procedures may commit, so for them the server
 * drops the snapshots of portals and makes new ones; for a query it does not,
 * as scans of tables read with it.  But where a query reads no table, as in
 *		SELECT * FROM finance.read_with_poll('orders', 30);
 * nobody reads with it but functions, and these take the active one.  Then all
 * three references can be given up, and given back to another snapshot: what
 * the rest of the statement sees is then as of after the wait.
 *
 * It is not done when there are more references, that is, something else that
 * reads with the snapshot; nor when another snapshot is active below this one;
 * nor when the function is called from within another function, since its
 * statement is not run by the portal then.
 *
 * Owns: between begin and end, which portal's query has no snapshot.  After an
 * ERROR in between it is not used again: the executor of a failed portal is
 * not shut down, and its snapshots are released by the resource owner.
 *
 * Locks: none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/execdesc.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "snapless.h"

static Portal suspended = NULL;

static bool
reads_tables(const PlannedStmt *statement)
{
	ListCell   *cell;

	foreach(cell, statement->rtable)
	{
		if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_RELATION)
			return true;
	}
	return statement->rowMarks != NIL || statement->hasModifyingCTE;
}

/* is the snapshot the portal's, and used by its query alone? */
static bool
can_let_go(Portal portal)
{
	QueryDesc  *query = portal == NULL ? NULL : portal->queryDesc;
	Snapshot	snapshot;

	if (IsolationUsesXactSnapshot() || !ActiveSnapshotSet())
		return false;
	if (query == NULL || query->estate == NULL ||
		query->operation != CMD_SELECT || portal->resowner == NULL ||
		portal->portalSnapshot != NULL || portal->holdSnapshot != NULL)
		return false;
	snapshot = query->snapshot;
	return snapshot != InvalidSnapshot &&
		snapshot == GetActiveSnapshot() &&
		snapshot == query->estate->es_snapshot &&
		query->crosscheck_snapshot == InvalidSnapshot &&
		snapshot->active_count == 1 && snapshot->regd_count == 2 &&
		!reads_tables(query->plannedstmt);
}

bool
fin_snapless_begin(void)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query;
	Snapshot	snapshot;

	if (!can_let_go(portal))
		return false;
	query = portal->queryDesc;
	snapshot = query->snapshot;
	PopActiveSnapshot();
	if (ActiveSnapshotSet())
	{
		PushActiveSnapshot(snapshot);
		return false;
	}
	query->snapshot = InvalidSnapshot;
	query->estate->es_snapshot = InvalidSnapshot;
	UnregisterSnapshotFromOwner(snapshot, portal->resowner);
	UnregisterSnapshotFromOwner(snapshot, portal->resowner);
	InvalidateCatalogSnapshot();
	suspended = portal;
	return true;
}

void
fin_snapless_end(void)
{
	Portal		portal = suspended;
	QueryDesc  *query = portal->queryDesc;
	Snapshot	snapshot;

	suspended = NULL;
	snapshot = RegisterSnapshotOnOwner(GetTransactionSnapshot(),
									   portal->resowner);
	query->snapshot = snapshot;
	query->estate->es_snapshot =
		RegisterSnapshotOnOwner(snapshot, portal->resowner);
	PushActiveSnapshot(snapshot);
}

/* as for a COMMIT in a procedure, but without the COMMIT */
void
fin_snapless_procedure_begin(void)
{
	ForgetPortalSnapshots();
	InvalidateCatalogSnapshot();
}

void
fin_snapless_procedure_end(void)
{
	EnsurePortalSnapshotExists();
}
