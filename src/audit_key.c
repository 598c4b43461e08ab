/*
 * audit_key.c
 *		The keys of masked values: one per subject, and one to hash with.
 *
 * Owns the rows of finance.audit_subject and finance._audit_secret, kept plans,
 * and, per backend, the two keys used last, each for the subtransaction that
 * read it: another may be rolled back, and the key it made with it.
 *
 * Whose key was erased never gets another: the row stays, and what would have
 * been encrypted is left out from then on.
 *
 * Locks: those of an INSERT or UPDATE of one row.  Two transactions that make
 * the key of the same subject wait for each other, and who erases it waits for
 * who makes it.  Two that make keys of the same new subjects in another order
 * can end in a deadlock, which the server finds: the one that is tried again
 * finds the keys of the other.  With a key of each transaction's own for a subject
 * nobody would wait, but an erasure could not say that it had them all.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "audit_key.h"
#include "compat.h"
#include "query.h"

static FinQuery find_key =
{
	.sql = "SELECT s.key FROM finance.audit_subject AS s"
	" WHERE s.tenant_id = $1 AND s.subject = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery add_key =
{
	.sql = "INSERT INTO finance.audit_subject (tenant_id, subject, key, created_at)"
	" VALUES ($1, $2, $3, pg_catalog.now()) ON CONFLICT DO NOTHING",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, BYTEAOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

static FinQuery erase_key =
{
	.sql = "UPDATE finance.audit_subject AS s"
	" SET key = NULL, erased_at = pg_catalog.now()"
	" WHERE s.tenant_id = $1 AND s.subject = $2 AND s.key IS NOT NULL",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_UPDATE,
	.fires_triggers = true,
};

static FinQuery remove_key =
{
	.sql = "DELETE FROM finance.audit_subject AS s"
	" WHERE s.tenant_id = $1 AND s.subject = $2",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_DELETE,
	.fires_triggers = true,
};

/* the second argument is there to have the same ones */
static FinQuery find_secret =
{
	.sql = "SELECT s.secret FROM finance._audit_secret AS s"
	" WHERE s.tenant_id = $1 AND $2::pg_catalog.text IS NULL",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
	.read_latest = true,
};

static FinQuery add_secret =
{
	.sql = "INSERT INTO finance._audit_secret (tenant_id, secret, created_at)"
	" SELECT $1, $3, pg_catalog.now() WHERE $2::pg_catalog.text IS NULL"
	" ON CONFLICT DO NOTHING",
	.nargs = 3,
	.argtypes = {INT4OID, TEXTOID, BYTEAOID},
	.expect = SPI_OK_INSERT,
	.fires_triggers = true,
};

typedef struct KnownKey
{
	LocalTransactionId transaction;
	SubTransactionId subtransaction;
	int32		tenant_id;
	char	   *subject;		/* of malloc'd memory; NULL: the secret */
	bool		exists;
	uint8		key[FIN_CIPHER_KEY_LENGTH];
} KnownKey;

static KnownKey known_key;
static KnownKey known_secret;

static bool
is_known(const KnownKey *known, int32 tenant_id, const char *subject)
{
	return known->transaction == FIN_MY_LXID &&
		known->subtransaction == GetCurrentSubTransactionId() &&
		known->tenant_id == tenant_id &&
		(subject == NULL || strcmp(known->subject, subject) == 0);
}

/* nothing, should this fail */
static void
forget(KnownKey *known)
{
	known->transaction = InvalidLocalTransactionId;
	known->exists = false;
	explicit_bzero(known->key, sizeof(known->key));
	free(known->subject);
	known->subject = NULL;
}

/* true: there is a row, whether with a key or not */
static bool
take_key(KnownKey *known, FinQuery *query, Datum *values, const char *nulls)
{
	bool		isnull;
	Datum		value;
	bytea	   *key;

	if (fin_query_run(query, values, nulls, 1) != 1)
		return false;
	value = fin_query_datum(0, 1, &isnull);
	if (isnull)
		return true;
	key = DatumGetByteaPP(value);
	if (VARSIZE_ANY_EXHDR(key) != FIN_CIPHER_KEY_LENGTH)
		elog(ERROR, "a key of the audit log has another length");
	memcpy(known->key, VARDATA_ANY(key), FIN_CIPHER_KEY_LENGTH);
	known->exists = true;
	return true;
}

static bytea *
new_key(void)
{
	bytea	   *key = palloc(VARHDRSZ + FIN_CIPHER_KEY_LENGTH);

	SET_VARSIZE(key, VARHDRSZ + FIN_CIPHER_KEY_LENGTH);
	fin_audit_cipher_key((uint8 *) VARDATA(key));
	return key;
}

static void
load_key(KnownKey *known, int32 tenant_id, const char *subject, bool make)
{
	FinQuery   *find = subject != NULL ? &find_key : &find_secret;
	FinQuery   *add = subject != NULL ? &add_key : &add_secret;
	const char *nulls = subject != NULL ? NULL : " n ";
	Datum		values[3] = {Int32GetDatum(tenant_id)};
	FinQueryScope scope;

	fin_query_begin(&scope);
	if (subject != NULL)
		values[1] = CStringGetTextDatum(subject);
	if (!take_key(known, find, values, nulls) && make)
	{
		values[2] = PointerGetDatum(new_key());
		(void) fin_query_run(add, values, nulls, 0);
		if (!take_key(known, find, values, nulls))
			elog(ERROR, "could not make a key of the audit log");
	}
	fin_query_end(&scope);
}

const uint8 *
fin_audit_key(int32 tenant_id, const char *subject, bool make)
{
	KnownKey   *known = subject != NULL ? &known_key : &known_secret;

	if (is_known(known, tenant_id, subject) && (known->exists || !make))
		return known->exists ? known->key : NULL;
	forget(known);
	load_key(known, tenant_id, subject, make);
	if (subject != NULL && (known->subject = strdup(subject)) == NULL)
		ereport(ERROR,
				errcode(ERRCODE_OUT_OF_MEMORY),
				errmsg("out of memory"));
	known->tenant_id = tenant_id;
	known->transaction = FIN_MY_LXID;
	known->subtransaction = GetCurrentSubTransactionId();
	return known->exists ? known->key : NULL;
}

/*
 * A transaction that is open may have made the key, which nobody else sees:
 * whoever makes one as well waits until that has ended.  False: there is none,
 * and nobody makes one before this transaction has ended.
 */
static bool
wait_for_maker(Datum *values)
{
	values[2] = PointerGetDatum(new_key());
	if (fin_query_run(&add_key, values, NULL, 0) == 0)
		return true;
	(void) fin_query_run(&remove_key, values, NULL, 0);
	return false;
}

bool
fin_audit_key_erase(int32 tenant_id, const char *subject)
{
	Datum		values[3] = {Int32GetDatum(tenant_id)};

	forget(&known_key);
	values[1] = CStringGetTextDatum(subject);
	return fin_query_run(&erase_key, values, NULL, 0) == 1 ||
		(wait_for_maker(values) &&
		 fin_query_run(&erase_key, values, NULL, 0) == 1);
}
