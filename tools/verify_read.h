/*
 * verify_read.h
 *		Reads what finance-verify verifies: JSON, in the forms that
 *		audit_export() and to_json() write.  It judges nothing.
 *
 * All is read at the cursor, in text that ends with '\0', beyond which nothing
 * is read.  Where a function returns false the cursor is somewhere, and the line
 * or the file is refused.  Strings are unescaped where they stand.
 */
#ifndef VERIFY_READ_H
#define VERIFY_READ_H

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verify_merkle.h"

static char *cursor;

/* a digest or a proof, without spaces; NULL: the cursor is in an export */
static char *object;

static bool
take(const char *token)
{
	size_t		length = strlen(token);

	if (strncmp(cursor, token, length) != 0)
		return false;
	cursor += length;
	return true;
}

/*
 * Goes to the value of a member, of an object whose { was taken.  In an export
 * they come in order; in a digest or a proof, which somebody may have kept in a
 * jsonb, in any, each once.
 */
static bool
member(const char *name)
{
	char	   *start = cursor;
	char		quoted[48];

	if (object != NULL)
	{
		snprintf(quoted, sizeof(quoted), "\"%s\":", name);
		cursor = strstr(object, quoted);
		if (cursor != NULL && strstr(cursor + 1, quoted) == NULL)
			return take(quoted);
	}
	else if ((cursor[-1] == '{' || take(",")) &&
			 take("\"") && take(name) && take("\":"))
		return true;
	cursor = start;
	return false;
}

/* 'n' bytes from lowercase digits; they may be written over the digits */
static bool
unhex(const char *digits, size_t n, void *to)
{
	unsigned char *bytes = to;

	for (size_t i = 0; i < 2 * n; i++)
	{
		char		c = digits[i];
		int			value = c >= '0' && c <= '9' ? c - '0' :
			c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

		if (value < 0)
			return false;
		bytes[i / 2] = (unsigned char) (i % 2 == 0 ? value :
										bytes[i / 2] << 4 | value);
	}
	return true;
}

/* what is after a backslash becomes UTF-8, which is shorter */
static bool
unescape(char **to)
{
	static const unsigned int first[] = {0, 0xc0, 0xe0, 0xf0};
	unsigned int code = 0;
	unsigned char two[2];
	int			more;

	if (*cursor == '"' || *cursor == '\\')
	{
		*(*to)++ = *cursor++;
		return true;
	}
	do							/* again after a high surrogate */
	{
		if (!take(code == 0 ? "u" : "\\u") || !unhex(cursor, 2, two))
			return false;
		cursor += 4;
		code = code << 16 | (unsigned int) two[0] << 8 | two[1];
	} while (code >> 10 == 0xd800 >> 10);
	if (code > 0xffff)
	{
		if ((code & 0xfc00) != 0xdc00)
			return false;
		code = 0x10000 + ((code >> 16 & 0x3ff) << 10 | (code & 0x3ff));
	}
	more = (code >= 0x80) + (code >= 0x800) + (code >= 0x10000);
	*(*to)++ = (char) (first[more] | code >> 6 * more);
	while (more-- > 0)
		*(*to)++ = (char) (0x80 | (code >> 6 * more & 0x3f));
	return code != 0 && code >> 10 != 0xdc00 >> 10;
}

/* a string in ASCII */
static bool
read_string(char **text)
{
	char	   *to;

	if (!take("\""))
		return false;
	for (*text = to = cursor; *cursor != '"';)
	{
		if (*cursor < ' ' || *cursor > '~')
			return false;
		if (*cursor != '\\')
			*to++ = *cursor++;
		else if (cursor++, !unescape(&to))
			return false;
	}
	cursor++;
	*to = '\0';
	return true;
}

/* an integer of 'width' bytes, in decimal digits; where they end, or NULL */
static char *
parse_integer(char *text, int width, uint64_t *value)
{
	char	   *end;
	long long	number;

	if (*text != '-' && !isdigit((unsigned char) *text))
		return NULL;
	errno = 0;
	number = strtoll(text, &end, 10);
	*value = (uint64_t) number;
	if (errno != 0 || (width == 4 && number != (int32_t) number))
		return NULL;
	return end;
}

static bool
read_integer(uint64_t *value)
{
	char	   *end = parse_integer(cursor, 8, value);

	if (end != NULL)
		cursor = end;
	return end != NULL;
}

static bool
read_count(uint64_t *value)
{
	return *cursor != '-' && read_integer(value);
}

/* digits, perhaps after \x as PostgreSQL writes bytea */
static bool
read_hash(Hash *hash)
{
	if (!take("\"") || (take("\\\\x"), !unhex(cursor, HASH_LENGTH, hash)))
		return false;
	cursor += 2 * HASH_LENGTH;
	return take("\"");
}

static bool
read_hashes(Hashes *hashes)
{
	hashes->length = 0;
	if (take("[]"))
		return true;
	if (!take("["))
		return false;
	do
	{
		if (hashes->length == DEPTH_MAX ||
			!read_hash(&hashes->at[hashes->length++]))
			return false;
	} while (take(","));
	return take("]");
}

static bool
read_lsn(uint64_t *lsn)
{
	unsigned int high;
	unsigned int low;
	char		again[24];

	if (sscanf(cursor, "\"%8X/%8X", &high, &low) != 2)
		return false;
	*lsn = (uint64_t) high << 32 | low;
	snprintf(again, sizeof(again), "\"%X/%X\"", high, low);
	return take(again);
}

/*
 * Microseconds since 2000-01-01 UTC: as such in an export, in a digest as
 * to_json() has it, 2026-11-22T11:58:14.167313+00:00
 */
static bool
read_time(uint64_t *micros)
{
	struct tm	tm = {0};
	double		seconds;
	char		sign;
	int			zone[3] = {0};

	if (object == NULL)
		return take("\"") && read_integer(micros) && take("\"");
	if (sscanf(cursor, "\"%4d-%2d-%2dT%2d:%2d:%9lf%c%2d:%2d:%2d", &tm.tm_year,
			   &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &seconds,
			   &sign, &zone[0], &zone[1], &zone[2]) < 7 ||
		!(seconds >= 0 && seconds < 61))
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	tm.tm_sec = ((zone[0] * 60 + zone[1]) * 60 + zone[2]) *
		(sign == '-' ? 1 : -1);
	*micros = (uint64_t) ((timegm(&tm) - 946684800) * INT64_C(1000000) +
						  (int64_t) (seconds * 1e6 + 0.5));
	return true;
}

#endif							/* VERIFY_READ_H */
