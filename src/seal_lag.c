/*
 * seal_lag.c
 *		finance.audit_lag(): what is unsealed, since when, and who holds it up.
 *
 * Owns kept plans only.  Locks: those of reading the audit log (audit_scan.h).
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "compat.h"
#include "query.h"
#include "seal_parts.h"

/* unsealed records that are counted; there may be more */
#define FIN_LAG_RECORDS_MAX		100000

typedef struct Lag
{
	int64		unsealed;
	TimestampTz oldest_at;
	TimestampTz newest_at;
	bool		is_sealed;		/* is anything? */
	TimestampTz sealed_at;		/* the last block */
	uint64		horizon;
	int			holder_pid;		/* 0: none, or a prepared transaction */
	char	   *holder_gid;		/* NULL: none */
} Lag;

static FinQuery select_sealed_at =
{
	.sql = "SELECT sealed_at FROM finance.audit_block ORDER BY block DESC LIMIT 1",
	.expect = SPI_OK_SELECT,
	.read_latest = true,
	.in_order = true,
};

static FinQuery select_prepared =
{
	.sql = "SELECT p.gid FROM pg_catalog.pg_prepared_xact() AS p"
	" WHERE p.transaction OPERATOR(pg_catalog.=) $1",
	.nargs = 1,
	.argtypes = {XIDOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static void
count_unsealed(Lag *lag, Snapshot snapshot, int64 system_identifier,
			   const FinAuditPosition *position)
{
	FinAuditScan *scan = fin_audit_scan_begin(snapshot, system_identifier,
											  position, FIN_AUDIT_XID_END);
	const FinAuditRow *row;

	while (lag->unsealed < FIN_LAG_RECORDS_MAX &&
		   (row = fin_audit_scan_next(scan)) != NULL)
	{
		TimestampTz when =
			DatumGetTimestampTz(row->values[FIN_AUDIT_RECORDED_AT]);

		if (lag->unsealed++ == 0)
			lag->oldest_at = lag->newest_at = when;
		lag->oldest_at = Min(lag->oldest_at, when);
		lag->newest_at = Max(lag->newest_at, when);
	}
	fin_audit_scan_end(scan);
}

/* those of the last cluster and, where it is another one, of this */
static void
count_all_unsealed(Lag *lag, Snapshot snapshot)
{
	int64		mine = (int64) GetSystemIdentifier();
	FinAuditPosition start = {fin_seal_cluster_horizon(mine), 0};
	FinAuditPosition position;
	FinSealTree tree;
	int64		cluster;

	fin_seal_load_tree(&tree);
	position = fin_seal_position(&tree);
	if (fin_seal_last_incarnation(&cluster) != 0)
		count_unsealed(lag, snapshot, cluster, &position);
	if (cluster != mine)
		count_unsealed(lag, snapshot, mine, &start);
}

/* whose id is the horizon, if it is anybody's */
static void
find_holder(Lag *lag, Snapshot snapshot)
{
	Datum		values[1] = {TransactionIdGetDatum(snapshot->xmin)};

	if (snapshot->takenDuringRecovery)
		return;
	if (fin_query_run(&select_prepared, values, NULL, 1) > 0)
		lag->holder_gid = fin_query_text(0, 1);
	else
		lag->holder_pid = BackendXidGetPid(snapshot->xmin);
}

static Datum
lag_tuple(const Lag *lag, TupleDesc desc)
{
	Datum		values[8] = {0};
	bool		nulls[8] = {false};

	values[0] = Int64GetDatum(lag->unsealed);
	values[1] = TimestampTzGetDatum(lag->oldest_at);
	values[2] = TimestampTzGetDatum(lag->newest_at);
	nulls[1] = nulls[2] = lag->unsealed == 0;
	values[3] = TimestampTzGetDatum(lag->sealed_at);
	nulls[3] = !lag->is_sealed;
	values[4] = UInt64GetDatum(lag->horizon);
	values[5] = Int32GetDatum(lag->holder_pid);
	nulls[5] = lag->holder_pid == 0;
	if (lag->holder_gid != NULL)
		values[6] = CStringGetTextDatum(lag->holder_gid);
	nulls[6] = lag->holder_gid == NULL;
	values[7] = BoolGetDatum(lag->unsealed >= FIN_LAG_RECORDS_MAX);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

PG_FUNCTION_INFO_V1(finance_audit_lag);

/*
 * finance._audit_lag() returns record
 *
 * How many committed records are unsealed (at most FIN_LAG_RECORDS_MAX are
 * counted), between which times they were recorded, when the last block was
 * sealed, the horizon, and the backend or prepared transaction whose id it is.
 */
Datum
finance_audit_lag(PG_FUNCTION_ARGS)
{
	Lag			lag = {0};
	FinQueryScope scope;
	MemoryContext caller = CurrentMemoryContext;
	TupleDesc	desc;
	Snapshot	snapshot;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	fin_query_begin(&scope);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	lag.horizon = U64FromFullTransactionId(fin_seal_horizon(snapshot));
	count_all_unsealed(&lag, snapshot);
	lag.is_sealed = fin_query_run(&select_sealed_at, NULL, NULL, 1) > 0;
	if (lag.is_sealed)
		lag.sealed_at = fin_query_int64(0, 1);
	find_holder(&lag, snapshot);
	if (lag.holder_gid != NULL)
		lag.holder_gid = MemoryContextStrdup(caller, lag.holder_gid);
	UnregisterSnapshot(snapshot);
	fin_query_end(&scope);
	return lag_tuple(&lag, desc);
}
