/*
 * audit_members.c
 *		JSON objects in pieces of their text: see audit_members.h.
 *
 * The text was JSON when it was recorded.  Whatever it is by now, nothing is
 * read beyond its end.
 *
 * Owns nothing; pieces point into the text, the rest is in the caller's memory.
 * Takes no locks.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "audit_members.h"
#include "compat.h"
#include "json_value.h"

#define MEMBERS_FIRST	16		/* room for so many; doubled as needed */

/*
 * What numeric holds: digits before and after the point.  See numeric.c; with
 * some to spare, for digits are kept by fours.
 */
#define NUMBER_DIGITS_MAX	131000
#define NUMBER_SCALE_MAX	16383
#define EXPONENT_DIGITS_MAX	6

bool
fin_audit_pieces_same(const FinAuditPiece *a, const FinAuditPiece *b)
{
	return a->length == b->length && memcmp(a->at, b->at, a->length) == 0;
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------ */

static const char *
skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/* past the string that begins here; NULL: there is none */
static const char *
skip_string(const char *at, const char *end)
{
	if (at >= end || *at != '"')
		return NULL;
	for (at++; at < end; at++)
	{
		if (*at == '\\')
			at++;
		else if (*at == '"')
			return at + 1;
	}
	return NULL;
}

/* past an object or array, however deep */
static const char *
skip_nested(const char *at, const char *end)
{
	int			depth = 0;

	while (at != NULL && at < end)
	{
		if (*at == '"')
		{
			at = skip_string(at, end);
			continue;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if ((*at == '}' || *at == ']') && --depth == 0)
			return at + 1;
		at++;
	}
	return NULL;
}

static const char *
skip_value(const char *at, const char *end)
{
	const char *start = at;

	if (at < end && *at == '"')
		return skip_string(at, end);
	if (at < end && (*at == '{' || *at == '['))
		return skip_nested(at, end);
	while (at < end && strchr(",}] \t\n\r", *at) == NULL)
		at++;
	return at == start ? NULL : at;
}

static void
add_member(FinAuditMembers *members, const FinAuditMember *member)
{
	if (members->n == members->max)
	{
		members->max *= 2;
		members->members = repalloc(members->members,
									sizeof(FinAuditMember) * members->max);
	}
	members->members[members->n++] = *member;
}

/* past "name": value; NULL: there is none */
static const char *
read_member(const char *at, const char *end, FinAuditMember *member)
{
	member->name.at = at;
	at = skip_string(at, end);
	if (at == NULL)
		return NULL;
	member->name.length = at - member->name.at;
	at = skip_space(at, end);
	if (at >= end || *at != ':')
		return NULL;
	member->value.at = skip_space(at + 1, end);
	at = skip_value(member->value.at, end);
	if (at == NULL)
		return NULL;
	member->value.length = at - member->value.at;
	return skip_space(at, end);
}

bool
fin_audit_members(const FinAuditPiece *object, FinAuditMembers *members)
{
	const char *end = object->at + object->length;
	const char *at = skip_space(object->at, end);

	members->n = 0;
	members->max = MEMBERS_FIRST;
	members->members = palloc(sizeof(FinAuditMember) * members->max);
	if (at >= end || *at != '{')
		return false;
	at = skip_space(at + 1, end);
	if (at < end && *at == '}')
		return true;
	while (at < end)
	{
		FinAuditMember member;

		at = read_member(at, end, &member);
		if (at == NULL || at >= end)
			return false;
		add_member(members, &member);
		if (*at == '}')
			return true;
		if (*at != ',')
			return false;
		at = skip_space(at + 1, end);
	}
	return false;
}

/* rows of a table mostly have the same columns in the same places */
const FinAuditPiece *
fin_audit_member(const FinAuditMembers *members, const FinAuditPiece *name,
				 int near)
{
	if (near < members->n &&
		fin_audit_pieces_same(&members->members[near].name, name))
		return &members->members[near].value;
	for (int i = 0; i < members->n; i++)
	{
		if (fin_audit_pieces_same(&members->members[i].name, name))
			return &members->members[i].value;
	}
	return NULL;
}

/* ------------------------------------------------------------------------
 * as jsonb
 * ------------------------------------------------------------------------ */

/* of the four digits after \u; -1: they are not */
static int
code_unit(const char *at, const char *end)
{
	int			unit = 0;

	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = at[i];
		int			digit = c >= '0' && c <= '9' ? c - '0' :
			c >= 'a' && c <= 'f' ? c - 'a' + 10 :
			c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

/* past what \u stands for, two of them for a pair; NULL: no character is */
static const char *
skip_character(const char *at, const char *end)
{
	int			unit = code_unit(at, end);

	if (unit <= 0 || is_utf16_surrogate_second(unit) ||
		(unit > 0x7f && GetDatabaseEncoding() != PG_UTF8))
		return NULL;
	at += 4;
	if (!is_utf16_surrogate_first(unit))
		return at;
	if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
		return NULL;
	unit = code_unit(at + 2, end);
	return unit >= 0 && is_utf16_surrogate_second(unit) ? at + 6 : NULL;
}

static bool
is_fit_string(const char *at, const char *end)
{
	while (at != NULL && at < end)
	{
		if (*at != '\\')
			at++;
		else if (at + 1 < end && at[1] == 'u')
			at = skip_character(at + 2, end);
		else
			at += 2;
	}
	return at != NULL;
}

static const char *
skip_digits(const char *at, const char *end)
{
	while (at < end && *at >= '0' && *at <= '9')
		at++;
	return at;
}

static bool
is_fit_number(const char *at, const char *end)
{
	const char *next = skip_digits(at, end);
	int64		before = next - at;
	int64		after = 0;
	int64		exponent = 0;
	bool		is_negative;

	if (next < end && *next == '.')
	{
		at = next + 1;
		next = skip_digits(at, end);
		after = next - at;
	}
	if (next < end && (*next == 'e' || *next == 'E'))
	{
		at = next + 1;
		is_negative = at < end && *at == '-';
		if (at < end && (*at == '-' || *at == '+'))
			at++;
		next = skip_digits(at, end);
		if (next - at > EXPONENT_DIGITS_MAX)
			return false;
		while (at < next)
			exponent = exponent * 10 + *at++ - '0';
		if (is_negative)
			exponent = -exponent;
	}
	return before + exponent <= NUMBER_DIGITS_MAX &&
		after - exponent <= NUMBER_SCALE_MAX;
}

/* does jsonb take it? */
static bool
is_fit(const FinAuditPiece *value)
{
	const char *at = value->at;
	const char *end = at + value->length;

	while (at < end)
	{
		const char *next;

		if (*at == '"')
		{
			next = skip_string(at, end);
			if (next == NULL || !is_fit_string(at, next))
				return false;
		}
		else if (*at >= '0' && *at <= '9')
		{
			next = skip_value(at, end);
			if (!is_fit_number(at, next))
				return false;
		}
		else
			next = at + 1;
		at = next;
	}
	return true;
}

Jsonb *
fin_audit_members_jsonb(const FinAuditMembers *members)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < members->n; i++)
	{
		const FinAuditMember *member = &members->members[i];

		appendStringInfoChar(&json, i == 0 ? '{' : ',');
		appendBinaryStringInfo(&json, member->name.at, member->name.length);
		appendStringInfoChar(&json, ':');
		if (is_fit(&member->value))
			appendBinaryStringInfo(&json, member->value.at,
								   member->value.length);
		else
			fin_json_string(&json, member->value.at, member->value.length);
	}
	appendStringInfoString(&json, members->n == 0 ? "{}" : "}");
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(json.data)));
}
