/*
 * gate_scope.c
 *		What a pause or a rate limit is for.
 *
 * A scope is a word ('all', 'account', ...) or a word, '=' and a name.  Owns
 * nothing.  Takes no locks but those of the lookups.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"

#include "account.h"
#include "errors.h"
#include "gate_parts.h"
#include "query.h"

static const struct
{
	const char *text;			/* a name follows one that ends in '=' */
	FinGateKind kind;
}			words[] =
{
	{"everywhere", FIN_GATE_EVERYWHERE},
	{"all", FIN_GATE_ALL},
	{"tenant", FIN_GATE_TENANT},
	{"account", FIN_GATE_EACH_ACCOUNT},
	{"account=", FIN_GATE_ACCOUNT},
	{"type=", FIN_GATE_TYPE},
	{"currency=", FIN_GATE_CURRENCY},
};

static FinQuery find_type =
{
	.sql = "SELECT type FROM finance.transfer_type"
	" WHERE tenant_id = ANY (ARRAY[$1, 0]) AND type = $2"
	" AND (tenant_id = $1 OR builtin)",
	.nargs = 2,
	.argtypes = {INT4OID, TEXTOID},
	.expect = SPI_OK_SELECT,
};

static FinQuery find_currency =
{
	.sql = "SELECT code FROM finance.currency WHERE code = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
	.expect = SPI_OK_SELECT,
};

/* ------------------------------------------------------------------------
 * keys
 * ------------------------------------------------------------------------ */

static FinGateKey
key_of_number(FinGateKind kind, int32 tenant_id, int64 number)
{
	struct
	{
		int64		number;
		int32		tenant_id;
		int32		kind;
	}			all = {number, tenant_id, (int32) kind};

	return hash_bytes_extended((const unsigned char *) &all, sizeof(all), 0);
}

static FinGateKey
key_of_name(FinGateKind kind, int32 tenant_id, const char *name)
{
	return hash_bytes_extended((const unsigned char *) name, strlen(name),
							   ((uint64) tenant_id << 8) + (uint64) kind + 1);
}

FinGateKey
fin_gate_key(FinGateKind kind, int32 tenant_id, int64 account_id,
			 const char *name)
{
	switch (kind)
	{
		case FIN_GATE_EVERYWHERE:
			return key_of_number(kind, 0, 0);
		case FIN_GATE_ALL:
		case FIN_GATE_TENANT:
			return key_of_number(FIN_GATE_TENANT, tenant_id, 0);
		case FIN_GATE_EACH_ACCOUNT:
			return key_of_number(kind, tenant_id, 0);
		case FIN_GATE_ACCOUNT:
			return key_of_number(kind, tenant_id, account_id);
		case FIN_GATE_TYPE:
		case FIN_GATE_CURRENCY:
			return key_of_name(kind, tenant_id, name);
	}
	elog(ERROR, "unknown kind of scope %d", (int) kind);
}

void
fin_gate_keys(int32 tenant_id, int64 from_id, int64 to_id, const char *type,
			  const char *currency, FinGateKeys *keys)
{
	keys->tenant = key_of_number(FIN_GATE_TENANT, tenant_id, 0);
	keys->from = key_of_number(FIN_GATE_ACCOUNT, tenant_id, from_id);
	keys->to = key_of_number(FIN_GATE_ACCOUNT, tenant_id, to_id);
	keys->type = key_of_name(FIN_GATE_TYPE, tenant_id, type);
	keys->currency = key_of_name(FIN_GATE_CURRENCY, tenant_id, currency);
}

/* ------------------------------------------------------------------------
 * texts
 * ------------------------------------------------------------------------ */

/* false: no such word; *name is NULL where none belongs */
static bool
split_scope(const char *text, FinGateKind *kind, const char **name)
{
	for (int i = 0; i < (int) lengthof(words); i++)
	{
		Size		length = strlen(words[i].text);
		bool		is_named = words[i].text[length - 1] == '=';

		if (is_named ? strncmp(text, words[i].text, length) != 0 :
			strcmp(text, words[i].text) != 0)
			continue;
		*kind = words[i].kind;
		*name = is_named ? text + length : NULL;
		return true;
	}
	return false;
}

FinGateKey
fin_gate_scope_key(int32 tenant_id, const char *text, int64 account_id)
{
	FinGateKind kind;
	const char *name;

	if (!split_scope(text, &kind, &name))
		elog(ERROR, "unknown scope \"%s\"", text);
	return fin_gate_key(kind, tenant_id, account_id, name);
}

void
fin_gate_parse_scope(const char *text, uint32 kinds, const char *hint,
					 FinGateScope *scope)
{
	memset(scope, 0, sizeof(FinGateScope));
	scope->text = text;
	if (!split_scope(text, &scope->kind, &scope->name) ||
		(kinds & (1U << scope->kind)) == 0 ||
		(scope->name != NULL && scope->name[0] == '\0'))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("scope \"%s\" is not known", text),
				errhint("%s", hint));
}

/*
 * The id is kept, so a code remembered from an account whose creation rolled
 * back must not be trusted.
 */
static int64
find_account(int32 tenant_id, const char *code)
{
	int64		id;

	fin_store_forget_account(tenant_id, code);
	id = fin_store_find_account(tenant_id, code);
	if (id == 0)
		fin_fault_raise(fin_account_fault_unknown(code, 0));
	return id;
}

void
fin_gate_resolve_scope(int32 tenant_id, FinGateScope *scope)
{
	Datum		values[2] = {Int32GetDatum(tenant_id)};

	if (scope->name != NULL)
		values[1] = CStringGetTextDatum(scope->name);
	if (scope->kind == FIN_GATE_ACCOUNT)
		scope->account_id = find_account(tenant_id, scope->name);
	else if (scope->kind == FIN_GATE_TYPE &&
			 fin_query_run(&find_type, values, NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_TYPE_NOT_ALLOWED),
				errmsg("transfer type \"%s\" does not exist", scope->name));
	else if (scope->kind == FIN_GATE_CURRENCY &&
			 fin_query_run(&find_currency, &values[1], NULL, 1) == 0)
		ereport(ERROR,
				errcode(ERRCODE_FIN_UNKNOWN_CURRENCY),
				errmsg("currency \"%s\" does not exist", scope->name));
}
