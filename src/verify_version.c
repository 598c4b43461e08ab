/*
 * verify_version.c
 *		Every version of every account has exactly one audit record.
 *
 * An account's version counts its changes and is taken under its lock, in C;
 * each change is recorded with the version it made.  So a record that is not
 * there, whether it was deleted or never written, leaves a gap, sealed or not,
 * and one too many a version twice.
 *
 * Owns kept plans only.  Locks: those of a SELECT.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "query.h"
#include "verify_parts.h"

/*
 * Accounts whose versions are not 1 .. n once each.  A version without an
 * account, which somebody wrote there, is one of account 0.  Months are dropped
 * from the oldest on: then an account's first versions may be gone, and what
 * else was deleted there has a leaf.
 */
static FinQuery select_broken =
{
	.sql = "SELECT coalesce(a.tenant_id, s.tenant_id),"
	" coalesce(a.account_id, s.account_id), coalesce(a.version, 0)"
	" FROM finance._account a FULL JOIN"
	" (SELECT u.tenant_id, u.account_id, pg_catalog.count(*) AS n,"
	"  pg_catalog.min(u.version) AS first, pg_catalog.max(u.version) AS last,"
	"  pg_catalog.sum(u.version) AS total"
	"  FROM (SELECT r.tenant_id, coalesce(r.account_id, 0) AS account_id,"
	"   r.account_version AS version"
	"   FROM finance.audit_record r WHERE r.account_version IS NOT NULL"
	"   UNION ALL SELECT r.tenant_id, coalesce(r.counterparty_id, 0), r.counterparty_version"
	"   FROM finance.audit_record r WHERE r.counterparty_version IS NOT NULL) u"
	"  GROUP BY u.tenant_id, u.account_id) s"
	" ON s.tenant_id = a.tenant_id AND s.account_id = a.account_id"
	" WHERE (coalesce(a.version, 0) <> coalesce(s.last, 0)"
	"  AND NOT (s.n IS NULL AND EXISTS (SELECT FROM finance.audit_month)))"
	" OR (s.n IS NOT NULL AND (s.n <> s.last - s.first + 1"
	"  OR (s.first <> 1 AND NOT EXISTS (SELECT FROM finance.audit_month))"
	"  OR s.total <> s.n::numeric * (s.first + s.last) / 2))"
	" ORDER BY 1, 2",
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* of one account: versions that no record has, or more than one */
static FinQuery select_versions =
{
	.sql = "WITH told AS (SELECT u.version, pg_catalog.count(*) AS n,"
	"  pg_catalog.min(u.id) AS first_id, pg_catalog.max(u.id) AS last_id"
	"  FROM (SELECT r.account_version AS version, r.id FROM finance.audit_record r"
	"   WHERE r.tenant_id = $1 AND coalesce(r.account_id, 0) = $2"
	"   AND r.account_version IS NOT NULL"
	"   UNION ALL SELECT r.counterparty_version, r.id FROM finance.audit_record r"
	"   WHERE r.tenant_id = $1 AND coalesce(r.counterparty_id, 0) = $2"
	"   AND r.counterparty_version IS NOT NULL) u GROUP BY u.version),"
	" gap AS (SELECT coalesce(pg_catalog.lag(e.version) OVER (ORDER BY e.version),"
	"   CASE WHEN EXISTS (SELECT FROM finance.audit_month) THEN e.version - 1 ELSE 0 END) + 1 AS first,"
	"  e.version - 1 AS last FROM (SELECT told.version FROM told"
	"   WHERE told.version BETWEEN 1 AND $3 UNION ALL SELECT $3 + 1) e)"
	" SELECT v.version, v.n, v.first_id, v.last_id"
	" FROM (SELECT t.version, t.n, t.first_id, t.last_id FROM told t"
	"   WHERE t.n > 1 OR t.version NOT BETWEEN 1 AND $3"
	"  UNION ALL SELECT pg_catalog.generate_series(g.first,"
	"   CASE WHEN g.last - g.first < $4 THEN g.last ELSE g.first + $4 END),"
	"   0, NULL, NULL FROM gap g WHERE g.first <= g.last) v"
	" ORDER BY 1 LIMIT $4",
	.nargs = 4,
	.argtypes = {INT4OID, INT8OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

#define VERSIONS_MAX	1000	/* named of one account */

typedef struct Broken
{
	int32		tenant_id;
	int64		account_id;
	int64		version;		/* the account's */
} Broken;

static void
report_version(ReturnSetInfo *result, const Broken *account, int64 version,
			   int64 n, int64 record_id)
{
	FinProblem	problem = {0};

	problem.record_id = record_id;
	problem.problem = n == 0 ? "version missing" :
		n > 1 ? "version twice" : "version too high";
	problem.expected = psprintf("tenant %d, account %lld, version %lld",
								account->tenant_id,
								(long long) account->account_id,
								(long long) version);
	problem.found = psprintf("%lld records", (long long) n);
	fin_verify_report(result, &problem);
}

/* of records with the same version the first and the last */
static void
report_row(ReturnSetInfo *result, const Broken *account, uint64 row)
{
	int64		version = fin_query_int64(row, 1);
	int64		n = fin_query_int64(row, 2);

	report_version(result, account, version, n,
				   n > 0 ? fin_query_int64(row, 4) : 0);
	if (n > 1)
		report_version(result, account, version, n, fin_query_int64(row, 3));
}

static void
name_versions(ReturnSetInfo *result, const Broken *account)
{
	Datum		values[4] = {Int32GetDatum(account->tenant_id),
		Int64GetDatum(account->account_id),
		Int64GetDatum(Min(account->version, PG_INT64_MAX - 1)),
	Int64GetDatum(VERSIONS_MAX)};
	uint64		n = fin_query_run(&select_versions, values, NULL, 0);

	for (uint64 i = 0; i < n; i++)
		report_row(result, account, i);
	SPI_freetuptable(SPI_tuptable);
}

void
fin_verify_versions(ReturnSetInfo *result)
{
	uint64		n = fin_query_run(&select_broken, NULL, NULL, 0);
	Broken	   *broken = palloc_extended(Max(n, 1) * sizeof(Broken),
										 MCXT_ALLOC_HUGE);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		broken[i].tenant_id = DatumGetInt32(fin_query_datum(i, 1, &isnull));
		broken[i].account_id = fin_query_int64(i, 2);
		broken[i].version = fin_query_int64(i, 3);
	}
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		name_versions(result, &broken[i]);
	}
}
