/*
 * json_output.c
 *		What output functions of types depend on, fixed.
 *
 * Owns nothing: settings are changed as a function's SET clause does it, and
 * only those that differ, for each costs about a microsecond.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "json_output.h"

#define ZONE "UTC"
#define PATH "pg_catalog, pg_temp"

/* functions whose output depends on no setting; types of users may have them */
static const PGFunction free_functions[] = {
	bit_out, boolout, bpcharout, charout, cidout, cidr_out, enum_out, inet_out,
	int2out, int4out, int8out, json_out, jsonb_out, jsonpath_out, macaddr8_out,
	macaddr_out, nameout, numeric_out, oidout, pg_lsn_out, pg_snapshot_out,
	textout, tidout, time_out, timetz_out, tsqueryout, tsvectorout, uuid_out,
	varbit_out, varcharout, xid8out, xidout, xml_out
};

static const PGFunction name_functions[] = {
	regclassout, regcollationout, regconfigout, regdictionaryout,
	regnamespaceout, regoperatorout, regoperout, regprocedureout, regprocout,
	regroleout, regtypeout
};

static bool
is_among(PGFunction function, const PGFunction *functions, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (functions[i] == function)
			return true;
	}
	return false;
}

/* a range is written by the output function of its bounds */
static Oid
bound_type(Oid type, PGFunction output)
{
	if (output == multirange_out)
		type = get_multirange_range(type);
	else if (output != range_out)
		return InvalidOid;
	return getBaseType(get_range_subtype(type));
}

FinOutputNeed
fin_output_need(Oid type, const FmgrInfo *output)
{
	Oid			bound = bound_type(type, output->fn_addr);
	FmgrInfo	function = *output;

	if (OidIsValid(bound))
	{
		bool		is_varlena;
		Oid			of_bound;

		getTypeOutputInfo(bound, &of_bound, &is_varlena);
		fmgr_info(of_bound, &function);
	}
	if (is_among(function.fn_addr, free_functions, lengthof(free_functions)))
		return FIN_OUTPUT_FREE;
	if (is_among(function.fn_addr, name_functions, lengthof(name_functions)))
		return FIN_OUTPUT_NAMES;
	return FIN_OUTPUT_STYLES;
}

/* *nest: 0 until the first setting is changed */
static void
set(int *nest, const char *name, const char *value)
{
	if (*nest == 0)
		*nest = NewGUCNestLevel();
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
fix_quotes(int *nest)
{
	if (quote_all_identifiers)
		set(nest, "quote_all_identifiers", "off");
}

int
fin_output_fix(FinOutputNeed need)
{
	int			nest = 0;

	if (need == FIN_OUTPUT_FREE)
		return 0;
	if (DateStyle != USE_ISO_DATES)
		set(&nest, "datestyle", "ISO");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		set(&nest, "intervalstyle", "postgres");
	if (strcmp(pg_get_timezone_name(session_timezone), ZONE) != 0)
		set(&nest, "timezone", ZONE);
	if (bytea_output != BYTEA_OUTPUT_HEX)
		set(&nest, "bytea_output", "hex");
	if (extra_float_digits < 1)
		set(&nest, "extra_float_digits", "1");
	if (need < FIN_OUTPUT_NAMES)
		return nest;
	if (strcmp(namespace_search_path, PATH) != 0)
		set(&nest, "search_path", PATH);
	fix_quotes(&nest);
	return nest;
}

int
fin_output_fix_quotes(void)
{
	int			nest = 0;

	fix_quotes(&nest);
	return nest;
}

void
fin_output_restore(int nest)
{
	if (nest > 0)
		AtEOXact_GUC(true, nest);
}
