/*
 * verify_incarnation.c
 *		Which incarnations a cluster has: a book that was restored elsewhere may
 *		come back, and go on where it had left.
 *
 * Owns kept plans only; takes no locks but those of a SELECT.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "compat.h"
#include "query.h"
#include "verify_parts.h"

static FinQuery select_turn =
{
	.sql = "SELECT FROM finance.audit_incarnation i"
	" JOIN finance.audit_block b ON b.block = i.first_block"
	" AND b.incarnation = i.incarnation"
	" WHERE i.system_identifier = $1 AND i.incarnation > $2 LIMIT 1",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery select_before =
{
	.sql = "SELECT b.last_xid, b.last_sequence FROM finance.audit_block b"
	" JOIN finance.audit_incarnation i ON i.incarnation = b.incarnation"
	" WHERE i.system_identifier = $1 AND i.incarnation < $2"
	" ORDER BY b.block DESC LIMIT 1",
	.nargs = 2,
	.argtypes = {INT8OID, INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
	.in_order = true,
};

bool
fin_verify_has_turn(int64 system_identifier, int32 after)
{
	Datum		values[2] = {Int64GetDatum(system_identifier),
	Int32GetDatum(after)};
	bool		found = fin_query_run(&select_turn, values, NULL, 1) > 0;

	SPI_freetuptable(SPI_tuptable);
	return found;
}

bool
fin_verify_left_at(int64 system_identifier, int32 incarnation,
				   FinAuditPosition *place)
{
	Datum		values[2] = {Int64GetDatum(system_identifier),
	Int32GetDatum(incarnation)};
	bool		found = fin_query_run(&select_before, values, NULL, 1) > 0;
	bool		isnull;

	if (found)
	{
		place->xid = DatumGetUInt64(fin_query_datum(0, 1, &isnull));
		place->sequence = DatumGetInt32(fin_query_datum(0, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}
