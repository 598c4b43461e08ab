/*
 * queue_filter.c
 *		Filters of bindings: by tags, and by headers.
 *
 * A binding may ask that a message have one of some tags, as RocketMQ's
 * subscriptions do, and that it have all or any of some headers, as AMQP's
 * headers exchange does; if both, then both must hold.
 *
 * The tags of a message are in its headers: the string "tag", and the strings
 * in the array "tags".  What is neither a string nor in that array is no tag.
 *
 * A header is compared by equality, with a JSON scalar of the same type; null
 * in a filter stands for any value, also null: the header is there.
 *
 * Owns nothing.  A filter lives in the memory context in which it was read.
 * Takes no locks.  What is refused here, the constraints of finance.binding
 * refuse again as far as they can say it; the bounds keep a binding within a
 * row of its unique index.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "query.h"
#include "queue_parts.h"

#define FIN_FILTER_TAGS_MAX			32
#define FIN_FILTER_TAG_BYTES_MAX	127
#define FIN_FILTER_TAGS_BYTES_MAX	512 /* of all tags of a filter */
#define FIN_FILTER_HEADERS_MAX		32
#define FIN_FILTER_HEADERS_SIZE_MAX	1024	/* bytes of jsonb */

struct FinQueueFilter
{
	int			ntags;			/* 0: not by tags */
	JsonbValue *tags;			/* strings */
	int			nheaders;		/* 0: not by headers */
	JsonbValue *names;			/* strings */
	JsonbValue *wanted;			/* scalars, one for each name */
	bool		any;			/* any of the headers instead of all */
};

/* ------------------------------------------------------------------------
 * checks
 * ------------------------------------------------------------------------
 */

static int
compare_tags(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* one tag; returns its length */
static int
check_tag(const char *tag)
{
	size_t		length = strlen(tag);

	if (length == 0 || length > FIN_FILTER_TAG_BYTES_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("tag is %zu bytes long", length),
				errdetail("A tag has 1 to %d bytes.",
						  FIN_FILTER_TAG_BYTES_MAX));
	return (int) length;
}

static void
check_tag_count(const ArrayType *array, int n)
{
	if (n == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("tags must not be empty"),
				errdetail("No message has one of no tags."),
				errhint("Leave tags out to take messages whatever their tags."));
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("tags must be a one-dimensional array"),
				errdetail("It has %d dimensions.", ARR_NDIM(array)));
	if (n > FIN_FILTER_TAGS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("filter of %d tags is too large", n),
				errdetail("The most is %d.", FIN_FILTER_TAGS_MAX));
}

/* the tags checked, sorted by bytes, each once */
static Datum
canonical_tags(ArrayType *array)
{
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	Datum	   *elements;
	bool	   *nulls;
	char	  **tags;
	int			bytes = 0;
	int			kept = 0;

	check_tag_count(array, n);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n);
	tags = palloc(n * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					errmsg("tags must not contain null"),
					errdetail("Element %d is null.", i + 1));
		tags[i] = TextDatumGetCString(elements[i]);
		bytes += check_tag(tags[i]);
	}
	if (bytes > FIN_FILTER_TAGS_BYTES_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("tags of the filter are too large"),
				errdetail("They have %d bytes; the most is %d.",
						  bytes, FIN_FILTER_TAGS_BYTES_MAX));

	qsort(tags, n, sizeof(char *), compare_tags);
	for (int i = 0; i < n; i++)
	{
		if (kept == 0 || strcmp(tags[i], tags[kept - 1]) != 0)
			tags[kept++] = tags[i];
	}
	for (int i = 0; i < kept; i++)
		elements[i] = CStringGetTextDatum(tags[i]);
	return PointerGetDatum(construct_array(elements, kept, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* each value of a header filter is a scalar */
static void
check_scalars(Jsonb *headers)
{
	JsonbIterator *iterator = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token == WJB_VALUE && value.type == jbvBinary)
			ereport(ERROR,
					errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("header \"%s\" cannot be compared with an object or an array",
						   name),
					errdetail("A header filter has strings, numbers and booleans, and null for any value."));
	}
}

static void
check_headers(Jsonb *headers)
{
	int			n;

	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("header filter must be a JSON object"),
				errdetail("It is %s.", JB_ROOT_IS_SCALAR(headers) ?
						  _("a scalar") : _("an array")));
	n = JB_ROOT_COUNT(headers);
	if (n == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("header filter must not be empty"),
				errdetail("It names no header to compare."),
				errhint("Leave headers out to take messages whatever their headers."));
	if (n > FIN_FILTER_HEADERS_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("filter of %d headers is too large", n),
				errdetail("The most is %d.", FIN_FILTER_HEADERS_MAX));
	check_scalars(headers);
	if (VARSIZE(headers) > FIN_FILTER_HEADERS_SIZE_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("header filter is too large"),
				errdetail("There are %zu bytes of jsonb; the most is %d.",
						  (Size) VARSIZE(headers),
						  FIN_FILTER_HEADERS_SIZE_MAX));
}

/* 'all' or 'any', and all where there are no headers to match */
static void
check_match(const char *match, bool has_headers)
{
	if (strcmp(match, "all") != 0 && strcmp(match, "any") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("match \"%s\" is not known", match),
				errdetail("It is all or any: of the headers."));
	if (!has_headers && strcmp(match, "any") == 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("match \"any\" needs headers"),
				errdetail("There is no header of which any could match."));
}

void
fin_queue_filter_arguments(FunctionCallInfo fcinfo, int arg, Datum *values,
						   char *nulls)
{
	char	   *match = fin_queue_arg_text(fcinfo, arg + 2, "match");

	memset(values, 0, FIN_FILTER_COLUMNS * sizeof(Datum));
	memset(nulls, 'n', FIN_FILTER_COLUMNS);
	if (!PG_ARGISNULL(arg))
	{
		values[0] = canonical_tags(PG_GETARG_ARRAYTYPE_P(arg));
		nulls[0] = ' ';
	}
	check_match(match, !PG_ARGISNULL(arg + 1));
	if (!PG_ARGISNULL(arg + 1))
	{
		Jsonb	   *headers = PG_GETARG_JSONB_P(arg + 1);

		check_headers(headers);
		values[1] = JsonbPGetDatum(headers);
		values[2] = CStringGetTextDatum(match);
		nulls[1] = nulls[2] = ' ';
	}
}

/* ------------------------------------------------------------------------
 * reading and asking
 * ------------------------------------------------------------------------
 */

static void
read_tags(FinQueueFilter *filter, Datum column)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypePCopy(column), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	filter->tags = palloc(n * sizeof(JsonbValue));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *tag = &filter->tags[filter->ntags++];

		Assert(!nulls[i]);		/* by binding_tags */
		tag->type = jbvString;
		tag->val.string.val = VARDATA_ANY(DatumGetPointer(elements[i]));
		tag->val.string.len = VARSIZE_ANY_EXHDR(DatumGetPointer(elements[i]));
	}
	pfree(elements);
	pfree(nulls);
}

static void
read_headers(FinQueueFilter *filter, Datum column)
{
	Jsonb	   *headers = DatumGetJsonbPCopy(column);
	JsonbIterator *iterator = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	filter->names = palloc(JB_ROOT_COUNT(headers) * sizeof(JsonbValue));
	filter->wanted = palloc(JB_ROOT_COUNT(headers) * sizeof(JsonbValue));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			filter->names[filter->nheaders] = value;
		else if (token == WJB_VALUE)
			filter->wanted[filter->nheaders++] = value;
	}
}

FinQueueFilter *
fin_queue_filter_read(uint64 row, int column)
{
	bool		no_tags;
	bool		no_headers;
	Datum		tags = fin_query_datum(row, column, &no_tags);
	Datum		headers = fin_query_datum(row, column + 1, &no_headers);
	FinQueueFilter *filter;

	if (no_tags && no_headers)
		return NULL;
	filter = palloc0(sizeof(FinQueueFilter));
	if (!no_tags)
		read_tags(filter, tags);
	if (!no_headers)
	{
		char	   *match = fin_query_text(row, column + 2);

		read_headers(filter, headers);
		filter->any = strcmp(match, "any") == 0;
		pfree(match);
	}
	return filter;
}

/* the value of a header; false when there is none of that name */
static bool
find_header(const Jsonb *headers, const char *name, int length,
			JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&unconstify(Jsonb *, headers)->root,
										name, length, value) != NULL;
}

static bool
is_same_string(const JsonbValue *a, const JsonbValue *b)
{
	return a->val.string.len == b->val.string.len &&
		memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
}

static bool
has_value(const JsonbValue *wanted, const JsonbValue *value)
{
	if (wanted->type == jbvNull)
		return true;
	if (wanted->type != value->type)
		return false;
	switch (wanted->type)
	{
		case jbvString:
			return is_same_string(wanted, value);
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(wanted->val.numeric),
													NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return wanted->val.boolean == value->val.boolean;
		default:
			return false;		/* a nested filter matches nothing */
	}
}

static bool
has_headers(const FinQueueFilter *filter, const Jsonb *headers)
{
	for (int i = 0; i < filter->nheaders; i++)
	{
		const JsonbValue *name = &filter->names[i];
		JsonbValue	value;
		bool		found = find_header(headers, name->val.string.val,
										name->val.string.len, &value) &&
			has_value(&filter->wanted[i], &value);

		if (found == filter->any)
			return found;
	}
	return !filter->any;
}

static bool
has_tag(const FinQueueFilter *filter, const Jsonb *headers)
{
	JsonbValue	one;
	JsonbValue	many;
	bool		has_one = find_header(headers, "tag", 3, &one) &&
		one.type == jbvString;
	bool		has_many = find_header(headers, "tags", 4, &many) &&
		many.type == jbvBinary && JsonContainerIsArray(many.val.binary.data);

	for (int i = 0; i < filter->ntags; i++)
	{
		if (has_one && is_same_string(&filter->tags[i], &one))
			return true;
		if (has_many &&
			findJsonbValueFromContainer(many.val.binary.data, JB_FARRAY,
										&filter->tags[i]) != NULL)
			return true;
	}
	return false;
}

bool
fin_queue_filter_passes(const FinQueueFilter *filter, const Jsonb *headers)
{
	if (headers == NULL || !JB_ROOT_IS_OBJECT(headers))
		return false;
	if (filter->ntags > 0 && !has_tag(filter, headers))
		return false;
	return filter->nheaders == 0 || has_headers(filter, headers);
}
