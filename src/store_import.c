/*
 * store_import.c
 *		What importing history needs to know of finance.transfer.
 *
 * Owns the kept plans.
 *
 * Locks: the tenant's row FOR NO KEY UPDATE, so that one import at a time looks
 * which ids of the past are free; taken before any account.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "query.h"
#include "store.h"

static FinQuery lock_tenant =
{
	.sql = "SELECT tenant_id FROM finance.tenant WHERE tenant_id = $1"
	" FOR NO KEY UPDATE",
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
};

/* with the newest snapshot: another import may have committed since ours */
static FinQuery select_highest =
{
	.sql = "SELECT t.id FROM finance.transfer t"
	" WHERE t.tenant_id = $1 AND t.id >= $2 AND t.id < $3"
	" ORDER BY t.id DESC LIMIT 1",
	.nargs = 3,
	.argtypes = {INT4OID, INT8OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

void
fin_store_lock_imports(int32 tenant_id)
{
	Datum		values[1] = {Int32GetDatum(tenant_id)};

	(void) fin_query_run(&lock_tenant, values, NULL, 1);
}

int64
fin_store_highest_transfer(int32 tenant_id, int64 low, int64 high)
{
	Datum		values[3] = {Int32GetDatum(tenant_id), Int64GetDatum(low),
	Int64GetDatum(high)};

	return fin_query_run(&select_highest, values, NULL, 1) == 0 ? 0 :
		fin_query_int64(0, 1);
}
