/*
 * report.c
 *		What the accounts come to: roll-up, trial balance, balance sheet.
 *
 * Owns nothing.  All read with the calling statement's snapshot, so each
 * report is consistent in itself while transfers go on.  Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "account.h"
#include "argument.h"
#include "ident.h"
#include "query.h"

/*
 * OFFSET 0 keeps the planner from joining: one index probe for each account
 * above, whatever the tables' sizes were when the plan was made.  The depth is
 * bounded where parents are set; here it bounds what a broken tree can cost.
 */
static FinQuery select_rollup =
{
	.sql = "WITH RECURSIVE tree AS ("
	" SELECT a.account_id, 1 AS depth, a.currency, a.minor_units,"
	" a.credits_posted - a.debits_posted AS balance, a.debits_pending AS held"
	" FROM finance._account a WHERE a.tenant_id = $1 AND a.code = $2"
	" UNION ALL"
	" SELECT c.account_id, p.depth + 1, c.currency, c.minor_units, c.balance, c.held"
	" FROM tree p CROSS JOIN LATERAL (SELECT a.account_id, a.currency, a.minor_units,"
	" a.credits_posted - a.debits_posted AS balance, a.debits_pending AS held"
	" FROM finance._account a"
	" WHERE a.tenant_id = $1 AND a.parent_id = p.account_id OFFSET 0) c"
	" WHERE p.depth < 32)"
	" SELECT t.currency, count(*), round(sum(t.balance), t.minor_units),"
	" round(sum(t.held), t.minor_units),"
	" round(sum(t.balance) - sum(t.held), t.minor_units)"
	" FROM tree t GROUP BY t.currency, t.minor_units ORDER BY t.currency",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

/* ------------------------------------------------------------------------
 * balances of all accounts, now and earlier; and what is made of them
 * ------------------------------------------------------------------------ */

#define BALANCES_NOW \
	"SELECT a.currency, a.minor_units, a.type, a.code," \
	" a.credits_posted - a.debits_posted AS balance" \
	" FROM finance._account a WHERE a.tenant_id = $1"

/*
 * The balance in the last row before the id $2, of either side: one index
 * descent for each, and none where the account has not moved since.  The "+ 0"
 * leaves the planner no other index: while the table is small it would take the
 * primary key, walk the tenant's history backwards, and keep that plan.
 */
#define BALANCES_BEFORE \
	"SELECT a.currency, a.minor_units, a.type, a.code," \
	" CASE WHEN a.last_transfer_id < $2 THEN a.credits_posted - a.debits_posted" \
	" WHEN coalesce(d.id, 0) > coalesce(c.id, 0) THEN d.balance" \
	" ELSE c.balance END AS balance" \
	" FROM finance._account a" \
	" LEFT JOIN LATERAL (SELECT t.id, t.from_balance AS balance" \
	" FROM finance.transfer t WHERE a.last_transfer_id >= $2" \
	" AND t.from_account_id = a.account_id AND t.id < $2" \
	" AND t.tenant_id + 0 = $1 AND t.from_version IS NOT NULL" \
	" ORDER BY t.id DESC LIMIT 1) d ON true" \
	" LEFT JOIN LATERAL (SELECT t.id, t.to_balance AS balance" \
	" FROM finance.transfer t WHERE a.last_transfer_id >= $2" \
	" AND t.to_account_id = a.account_id AND t.id < $2" \
	" AND t.tenant_id + 0 = $1 AND t.to_version IS NOT NULL" \
	" ORDER BY t.id DESC LIMIT 1) c ON true" \
	" WHERE a.tenant_id = $1"

/* of two types of one name the tenant's own counts */
#define KINDS \
	"WITH kind AS (SELECT DISTINCT ON (k.type) k.type, k.normal_side" \
	" FROM finance.account_type k WHERE k.tenant_id = $1 OR k.builtin" \
	" ORDER BY k.type, k.builtin)"

/* an account of no known type is not left out: both sides must sum up */
#define TRIAL_BALANCE(balances) KINDS \
	" SELECT b.currency, b.type, k.normal_side, b.code," \
	" round(greatest(- b.balance, 0), b.minor_units)," \
	" round(greatest(b.balance, 0), b.minor_units)" \
	" FROM (" balances ") b LEFT JOIN kind k ON k.type = b.type" \
	" WHERE b.balance <> 0 ORDER BY b.currency, b.type, b.code"

#define BALANCE_SHEET(balances) KINDS \
	" SELECT b.currency, b.type, k.normal_side," \
	" round(CASE k.normal_side WHEN 'debit' THEN - b.balance ELSE b.balance END," \
	" b.minor_units)" \
	" FROM (SELECT a.currency, a.minor_units, a.type, sum(a.balance) AS balance" \
	" FROM (" balances ") a WHERE a.balance <> 0" \
	" GROUP BY a.currency, a.minor_units, a.type) b" \
	" LEFT JOIN kind k ON k.type = b.type ORDER BY b.currency, b.type"

static FinQuery trial_balance_now =
{
	.sql = TRIAL_BALANCE(BALANCES_NOW),
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery trial_balance_before =
{
	.sql = TRIAL_BALANCE(BALANCES_BEFORE),
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery balance_sheet_now =
{
	.sql = BALANCE_SHEET(BALANCES_NOW),
	.nargs = 1,
	.argtypes = {INT4OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

static FinQuery balance_sheet_before =
{
	.sql = BALANCE_SHEET(BALANCES_BEFORE),
	.nargs = 2,
	.argtypes = {INT4OID, INT8OID},
	.expect = SPI_OK_SELECT,
	.read_only = true,
};

PG_FUNCTION_INFO_V1(finance_rollup);

/*
 * finance.rollup(code) returns table (currency, accounts, balance, held,
 *									   available)
 *
 * The account and all below it, 32 levels deep, summed up for each currency
 * among them; available is balance - held.  Errors: LG002 unknown account,
 * 22004, 22023.  No locks.
 */
Datum
finance_rollup(PG_FUNCTION_ARGS)
{
	char	   *code = fin_argument_text(fcinfo, 0, "code", FIN_CODE_LENGTH_MAX);
	const FinContext *context = fin_context();
	FinQueryScope scope;
	Datum		values[2];

	InitMaterializedSRF(fcinfo, 0);
	fin_query_begin(&scope);
	values[0] = Int32GetDatum(context->tenant_id);
	values[1] = CStringGetTextDatum(code);
	if (fin_query_return(&select_rollup, values, fcinfo) == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	fin_query_end(&scope);
	return (Datum) 0;
}

/* the report as it is now, or as recorded at the moment of the argument */
static Datum
report(FunctionCallInfo fcinfo, FinQuery *now, FinQuery *before)
{
	const FinContext *context = fin_context();
	FinQueryScope scope;
	Datum		values[2];

	InitMaterializedSRF(fcinfo, 0);
	values[0] = Int32GetDatum(context->tenant_id);
	if (!PG_ARGISNULL(0))
	{
		TimestampTz at = PG_GETARG_TIMESTAMPTZ(0);

		if (TIMESTAMP_NOT_FINITE(at))
			ereport(ERROR,
					errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					errmsg("at must be a finite time"));
		/* the millisecond of that moment included: ids tell no finer */
		values[1] = Int64GetDatum(fin_ident_floor(at + 1000));
	}
	fin_query_begin(&scope);
	fin_query_return(PG_ARGISNULL(0) ? now : before, values, fcinfo);
	fin_query_end(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_trial_balance);

/*
 * finance.trial_balance(at) returns table (currency, type, normal_side, code,
 *											debit, credit)
 *
 * Each account of the tenant whose balance is not zero: above zero it stands
 * in credit, below zero in debit, and the other is zero.  at: as recorded at
 * that moment, to the millisecond; null: now.  A transfer under way at that
 * moment counts once it has committed, so a report is final when no
 * transaction is left from before it.  Errors: 22008.  No locks.
 */
Datum
finance_trial_balance(PG_FUNCTION_ARGS)
{
	return report(fcinfo, &trial_balance_now, &trial_balance_before);
}

PG_FUNCTION_INFO_V1(finance_balance_sheet);

/*
 * finance.balance_sheet(at) returns table (currency, type, normal_side,
 *											balance)
 *
 * The trial balance summed up by type, positive on the type's normal side, so
 * that those of side debit and those of side credit come to the same.
 * Arguments and errors as trial_balance.  No locks.
 */
Datum
finance_balance_sheet(PG_FUNCTION_ARGS)
{
	return report(fcinfo, &balance_sheet_now, &balance_sheet_before);
}
