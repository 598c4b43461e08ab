/*
 * verify_record.c
 *		One audit record against its hashes.
 *
 * Owns nothing; takes no locks.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "compat.h"
#include "verify_parts.h"

#define HASH_HEX_LENGTH	(2 * FIN_HASH_LENGTH)

#define PROBLEM_COLUMNS	7

void
fin_verify_report(ReturnSetInfo *result, const FinProblem *problem)
{
	Datum		values[PROBLEM_COLUMNS] = {0};
	bool		nulls[PROBLEM_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[0] = Int64GetDatum(problem->leaf);
	nulls[0] = !problem->has_leaf;
	values[1] = Int64GetDatum(problem->record_id);
	nulls[1] = problem->record_id == 0;
	values[2] = UInt64GetDatum(problem->position.xid);
	values[3] = Int32GetDatum(problem->position.sequence);
	nulls[2] = nulls[3] = problem->position.xid == 0;
	values[4] = CStringGetTextDatum(problem->problem);
	nulls[4] = false;
	nulls[5] = problem->expected == NULL;
	if (problem->expected != NULL)
		values[5] = CStringGetTextDatum(problem->expected);
	nulls[6] = problem->found == NULL;
	if (problem->found != NULL)
		values[6] = CStringGetTextDatum(problem->found);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

char *
fin_verify_hex(const FinHash *hash)
{
	char	   *text = palloc(HASH_HEX_LENGTH + 1);

	hex_encode((const char *) hash->bytes, FIN_HASH_LENGTH, text);
	text[HASH_HEX_LENGTH] = '\0';
	return text;
}

static char *
bytes_text(Datum value, bool isnull)
{
	bytea	   *stored;
	char	   *text;
	int			length;

	if (isnull)
		return NULL;
	stored = DatumGetByteaPP(value);
	/* somebody may have put there what he liked */
	length = Min((int) VARSIZE_ANY_EXHDR(stored), FIN_HASH_LENGTH);
	text = palloc0(2 * length + 1);
	hex_encode(VARDATA_ANY(stored), length, text);
	return text;
}

static bool
is_hash(Datum value, const FinHash *hash)
{
	bytea	   *stored = DatumGetByteaPP(value);

	return VARSIZE_ANY_EXHDR(stored) == FIN_HASH_LENGTH &&
		memcmp(VARDATA_ANY(stored), hash->bytes, FIN_HASH_LENGTH) == 0;
}

static void
name_record(FinProblem *problem, const FinAuditRow *row, int64 leaf)
{
	memset(problem, 0, sizeof(*problem));
	problem->has_leaf = leaf >= 0;
	problem->leaf = leaf;
	problem->record_id = DatumGetInt64(row->values[FIN_AUDIT_ID]);
	problem->position = fin_audit_position(row);
}

void
fin_verify_stranger(ReturnSetInfo *result, const FinAuditRow *row)
{
	FinProblem	problem;

	name_record(&problem, row, -1);
	problem.problem = "inserted";
	problem.found = bytes_text(row->values[FIN_AUDIT_LEAF_HASH],
							   row->nulls[FIN_AUDIT_LEAF_HASH]);
	fin_verify_report(result, &problem);
}

/* false: it was altered */
static bool
check_leaf(ReturnSetInfo *result, const FinAuditRow *row, int64 leaf,
		   const FinHash *sealed, StringInfo work)
{
	Datum		stored = row->values[FIN_AUDIT_LEAF_HASH];
	FinHash		computed;
	FinProblem	problem;

	fin_audit_leaf_hash(row, work, &computed);
	if ((sealed == NULL ||
		 fin_merkle_same(sealed, &computed)) &&
		is_hash(stored, &computed))
		return true;
	name_record(&problem, row, leaf);
	problem.problem = "altered";
	problem.expected = sealed != NULL ? fin_verify_hex(sealed) :
		bytes_text(stored, row->nulls[FIN_AUDIT_LEAF_HASH]);
	problem.found = fin_verify_hex(&computed);
	/* the content is right, but not what it says of itself */
	if (strcmp(problem.expected, problem.found) == 0)
		problem.found = bytes_text(stored, row->nulls[FIN_AUDIT_LEAF_HASH]);
	fin_verify_report(result, &problem);
	return false;
}

/* without a salt nothing may be there: it was never, or it was erased */
static bool
is_payload_right(const FinAuditRow *row, StringInfo work, FinHash *computed)
{
	bool		is_empty = row->nulls[FIN_AUDIT_REQUEST] &&
	row->nulls[FIN_AUDIT_RESPONSE];

	if (row->nulls[FIN_AUDIT_SALT])
		return is_empty;
	fin_audit_payload_hash(row, work, computed);
	return !row->nulls[FIN_AUDIT_PAYLOAD_HASH] &&
		is_hash(row->values[FIN_AUDIT_PAYLOAD_HASH], computed);
}

static void
check_payload(ReturnSetInfo *result, const FinAuditRow *row, int64 leaf,
			  StringInfo work)
{
	FinHash		computed;
	FinProblem	problem;

	if (is_payload_right(row, work, &computed))
		return;
	name_record(&problem, row, leaf);
	problem.problem = "payload altered";
	problem.expected = bytes_text(row->values[FIN_AUDIT_PAYLOAD_HASH],
								  row->nulls[FIN_AUDIT_PAYLOAD_HASH]);
	if (!row->nulls[FIN_AUDIT_SALT])
		problem.found = fin_verify_hex(&computed);
	fin_verify_report(result, &problem);
}

bool
fin_verify_record(ReturnSetInfo *result, const FinAuditRow *row, int64 leaf,
				  const FinHash *sealed, StringInfo work)
{
	bool		is_right = check_leaf(result, row, leaf, sealed, work);

	check_payload(result, row, leaf, work);
	return is_right;
}
