/*
 * json_value.c
 *		Values of any type as JSON.
 *
 * Pure, but for the output functions of types it does not know itself.  Casts
 * to json are not asked: whoever owns a type could make one that tells another
 * value.  Allocates in the StringInfo's context; what output functions leave
 * behind is in the current one.  Owns, per backend, the text of one day.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "json.h"
#include "json_output.h"
#include "json_value.h"

/* arrays: their elements, which are of one type */
struct FinJsonElements
{
	Oid			oid;
	int16		length;
	bool		by_value;
	char		align;
	FinJsonType type;
};

/* rows: their columns, as they are while the identifier is that of the type */
struct FinJsonColumns
{
	MemoryContext memory;
	uint64		identifier;
	int			n;
	FinJsonType *types;			/* write is NULL: the column was dropped */
	char	  **labels;			/* "name": */
};

static void
append_digits(StringInfo json, const char *digits)
{
	appendBinaryStringInfo(json, digits, strlen(digits));
}

static void
append_quoted(StringInfo json, const char *plain)
{
	appendStringInfoChar(json, '"');
	append_digits(json, plain);
	appendStringInfoChar(json, '"');
}

/* ------------------------------------------------------------------------
 * strings
 * ------------------------------------------------------------------------ */

static inline bool
is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

static void
append_escaped(StringInfo json, unsigned char c)
{
	static const char letters[] = "\bb\ff\nn\rr\tt\"\"\\\\";

	for (const char *pair = letters; *pair != '\0'; pair += 2)
	{
		if ((unsigned char) pair[0] == c)
		{
			appendStringInfoChar(json, '\\');
			appendStringInfoChar(json, pair[1]);
			return;
		}
	}
	appendStringInfo(json, "\\u%04x", c);
}

/* in runs of what stands as it is; encodings of a server have no such byte
 * within a character */
void
fin_json_string(StringInfo json, const char *bytes, int length)
{
	const char *end = bytes + length;

	enlargeStringInfo(json, length + 2);
	appendStringInfoCharMacro(json, '"');
	while (bytes < end)
	{
		const char *run = bytes;

		while (bytes < end && is_plain((unsigned char) *bytes))
			bytes++;
		appendBinaryStringInfo(json, run, bytes - run);
		if (bytes < end)
			append_escaped(json, (unsigned char) *bytes++);
	}
	appendStringInfoChar(json, '"');
}

static void
write_text(StringInfo json, FinJsonType *type, Datum value)
{
	struct varlena *stored = PG_DETOAST_DATUM_PACKED(value);

	fin_json_string(json, VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored));
	if ((Pointer) stored != DatumGetPointer(value))
		pfree(stored);
}

static void
write_name(StringInfo json, FinJsonType *type, Datum value)
{
	const char *name = NameStr(*DatumGetName(value));

	fin_json_string(json, name, strlen(name));
}

static void
write_bytea(StringInfo json, FinJsonType *type, Datum value)
{
	struct varlena *stored = PG_DETOAST_DATUM_PACKED(value);

	append_digits(json, "\"\\\\x");
	enlargeStringInfo(json, 2 * VARSIZE_ANY_EXHDR(stored));
	json->len += hex_encode(VARDATA_ANY(stored), VARSIZE_ANY_EXHDR(stored),
							json->data + json->len);
	appendStringInfoChar(json, '"');
	if ((Pointer) stored != DatumGetPointer(value))
		pfree(stored);
}

static void
write_uuid(StringInfo json, FinJsonType *type, Datum value)
{
	static const int groups[] = {4, 2, 2, 2, 6};
	const uint8 *bytes = DatumGetUUIDP(value)->data;
	char		text[2 * UUID_LEN + lengthof(groups) + 1];
	char	   *end = text;

	for (int i = 0; i < (int) lengthof(groups); i++)
	{
		*end++ = i == 0 ? '"' : '-';
		end += hex_encode((const char *) bytes, groups[i], end);
		bytes += groups[i];
	}
	*end++ = '"';
	appendBinaryStringInfo(json, text, end - text);
}

/* ------------------------------------------------------------------------
 * numbers
 * ------------------------------------------------------------------------ */

static void
write_bool(StringInfo json, FinJsonType *type, Datum value)
{
	append_digits(json, DatumGetBool(value) ? "true" : "false");
}

static void
append_int64(StringInfo json, int64 number)
{
	enlargeStringInfo(json, MAXINT8LEN + 1);
	json->len += pg_lltoa(number, json->data + json->len);
}

static void
write_int2(StringInfo json, FinJsonType *type, Datum value)
{
	append_int64(json, DatumGetInt16(value));
}

static void
write_int4(StringInfo json, FinJsonType *type, Datum value)
{
	append_int64(json, DatumGetInt32(value));
}

static void
write_int8(StringInfo json, FinJsonType *type, Datum value)
{
	append_int64(json, DatumGetInt64(value));
}

/* JSON has no word for what is not finite */
static void
append_number(StringInfo json, const char *digits)
{
	if (isdigit((unsigned char) digits[0]) ||
		(digits[0] == '-' && isdigit((unsigned char) digits[1])))
		append_digits(json, digits);
	else
		append_quoted(json, digits);
}

static void
write_float4(StringInfo json, FinJsonType *type, Datum value)
{
	char		digits[FLOAT_SHORTEST_DECIMAL_LEN];

	float_to_shortest_decimal_buf(DatumGetFloat4(value), digits);
	append_number(json, digits);
}

static void
write_float8(StringInfo json, FinJsonType *type, Datum value)
{
	char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	double_to_shortest_decimal_buf(DatumGetFloat8(value), digits);
	append_number(json, digits);
}

static void
write_numeric(StringInfo json, FinJsonType *type, Datum value)
{
	char	   *digits = DatumGetCString(DirectFunctionCall1(numeric_out, value));

	append_number(json, digits);
	pfree(digits);
}

/* ------------------------------------------------------------------------
 * times
 * ------------------------------------------------------------------------ */

static char *
put_two_digits(char *to, int number)
{
	*to++ = '0' + number / 10;
	*to++ = '0' + number % 10;
	return to;
}

/*
 * "2026-11-22"; NULL for what is not finite or whose year has not four digits.
 * The rows of a statement have mostly one day, so the last one is kept.
 */
static const char *
day_text(int64 day)
{
	static int64 kept = PG_INT64_MIN;
	static char text[sizeof("2026-11-22")];

	if (day != kept)
	{
		char	   *end;
		int			year,
					month,
					of_month;

		if (day < date2j(1, 1, 1) - POSTGRES_EPOCH_JDATE ||
			day > date2j(9999, 12, 31) - POSTGRES_EPOCH_JDATE)
			return NULL;
		j2date((int) day + POSTGRES_EPOCH_JDATE, &year, &month, &of_month);
		end = put_two_digits(text, year / 100);
		end = put_two_digits(end, year % 100);
		*end++ = '-';
		end = put_two_digits(end, month);
		*end++ = '-';
		(void) put_two_digits(end, of_month);
		kept = day;
	}
	return text;
}

/* "11:53:25.01954", with no more digits of a second than there are */
static char *
put_time_of_day(char *to, int64 time)
{
	int			fraction = (int) (time % USECS_PER_SEC);
	int			seconds = (int) (time / USECS_PER_SEC);

	to = put_two_digits(to, seconds / SECS_PER_HOUR);
	*to++ = ':';
	to = put_two_digits(to, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*to++ = ':';
	to = put_two_digits(to, seconds % SECS_PER_MINUTE);
	if (fraction == 0)
		return to;
	*to++ = '.';
	for (int digit = USECS_PER_SEC / 10; fraction > 0; digit /= 10)
	{
		*to++ = '0' + fraction / digit;
		fraction %= digit;
	}
	return to;
}

static void
append_moment(StringInfo json, Timestamp moment, Oid type, const char *zone)
{
	int64		day = moment / USECS_PER_DAY;
	int64		time = moment % USECS_PER_DAY;
	const char *date;
	char		text[MAXDATELEN + 3];
	char	   *end = text;

	if (time < 0)
	{
		day--;
		time += USECS_PER_DAY;
	}
	date = day_text(day);
	if (date == NULL)
	{
		int			utc = 0;

		JsonEncodeDateTime(text, TimestampGetDatum(moment), type, &utc);
		append_quoted(json, text);
		return;
	}
	*end++ = '"';
	memcpy(end, date, strlen(date));
	end += strlen(date);
	*end++ = 'T';
	end = put_time_of_day(end, time);
	memcpy(end, zone, strlen(zone));
	end += strlen(zone);
	*end++ = '"';
	appendBinaryStringInfo(json, text, end - text);
}

static void
write_date(StringInfo json, FinJsonType *type, Datum value)
{
	const char *date = day_text(DatumGetDateADT(value));
	char		text[MAXDATELEN + 1];

	if (date == NULL)
		date = JsonEncodeDateTime(text, value, DATEOID, NULL);
	append_quoted(json, date);
}

static void
write_timestamp(StringInfo json, FinJsonType *type, Datum value)
{
	append_moment(json, DatumGetTimestamp(value), TIMESTAMPOID, "");
}

static void
write_timestamptz(StringInfo json, FinJsonType *type, Datum value)
{
	append_moment(json, DatumGetTimestampTz(value), TIMESTAMPTZOID, "+00:00");
}

static void
write_interval(StringInfo json, FinJsonType *type, Datum value)
{
	append_quoted(json, fin_json_span_text(DatumGetIntervalP(value)));
}

/* ------------------------------------------------------------------------
 * the rest
 * ------------------------------------------------------------------------ */

static void
write_json(StringInfo json, FinJsonType *type, Datum value)
{
	struct varlena *stored = PG_DETOAST_DATUM_PACKED(value);

	appendBinaryStringInfo(json, VARDATA_ANY(stored),
						   VARSIZE_ANY_EXHDR(stored));
	if ((Pointer) stored != DatumGetPointer(value))
		pfree(stored);
}

static void
write_output(StringInfo json, FinJsonType *type, Datum value)
{
	char	   *text = OutputFunctionCall(&type->output, value);

	fin_json_string(json, text, strlen(text));
	pfree(text);
}

static void
write_jsonb(StringInfo json, FinJsonType *type, Datum value)
{
	append_digits(json, OutputFunctionCall(&type->output, value));
}

/* ------------------------------------------------------------------------
 * arrays
 * ------------------------------------------------------------------------ */

typedef struct ArrayWalk
{
	FinJsonType *type;
	int			ndims;
	int		   *dims;
	Datum	   *values;
	bool	   *nulls;
	int			next;
} ArrayWalk;

static void
append_value(StringInfo json, FinJsonType *type, Datum value, bool isnull)
{
	if (isnull)
		append_digits(json, "null");
	else
		fin_json_value(json, type, value);
}

static void
append_dimension(StringInfo json, ArrayWalk *walk, int dimension)
{
	appendStringInfoChar(json, '[');
	for (int i = 0; i < walk->dims[dimension]; i++)
	{
		if (i > 0)
			appendStringInfoChar(json, ',');
		if (dimension + 1 < walk->ndims)
			append_dimension(json, walk, dimension + 1);
		else
		{
			append_value(json, walk->type, walk->values[walk->next],
						 walk->nulls[walk->next]);
			walk->next++;
		}
	}
	appendStringInfoChar(json, ']');
}

static void
write_array(StringInfo json, FinJsonType *type, Datum value)
{
	FinJsonElements *elements = type->elements;
	ArrayType  *array = DatumGetArrayTypeP(value);
	ArrayWalk	walk = {.type = &elements->type};
	int			n;

	check_stack_depth();
	walk.ndims = ARR_NDIM(array);
	walk.dims = ARR_DIMS(array);
	deconstruct_array(array, elements->oid, elements->length,
					  elements->by_value, elements->align, &walk.values,
					  &walk.nulls, &n);
	if (n == 0)
		append_digits(json, "[]");
	else
		append_dimension(json, &walk, 0);
	pfree(walk.values);
	pfree(walk.nulls);
	if ((Pointer) array != DatumGetPointer(value))
		pfree(array);
}

static void
read_elements(FinJsonType *type, Oid element)
{
	FinJsonElements *elements = palloc0(sizeof(FinJsonElements));

	check_stack_depth();
	elements->oid = element;
	get_typlenbyvalalign(element, &elements->length, &elements->by_value,
						 &elements->align);
	fin_json_type(&elements->type, element);
	type->write = write_array;
	type->need = elements->type.need;
	type->elements = elements;
}

/* ------------------------------------------------------------------------
 * rows
 * ------------------------------------------------------------------------ */

/* the columns of the type as it is now; a type in use may get and lose some */
static void
read_columns(FinJsonType *type, TupleDesc row, uint64 identifier)
{
	FinJsonColumns *columns = type->columns;
	MemoryContext caller;

	check_stack_depth();
	columns->identifier = 0;
	MemoryContextReset(columns->memory);
	caller = MemoryContextSwitchTo(columns->memory);
	columns->n = row->natts;
	columns->types = palloc0(sizeof(FinJsonType) * Max(row->natts, 1));
	columns->labels = palloc0(sizeof(char *) * Max(row->natts, 1));
	for (int i = 0; i < row->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(row, i);
		StringInfoData label;

		if (column->attisdropped)
			continue;
		initStringInfo(&label);
		fin_json_string(&label, NameStr(column->attname),
						strlen(NameStr(column->attname)));
		appendStringInfoChar(&label, ':');
		columns->labels[i] = label.data;
		fin_json_type(&columns->types[i], column->atttypid);
		type->need = Max(type->need, columns->types[i].need);
	}
	MemoryContextSwitchTo(caller);
	columns->identifier = identifier;
}

static void
append_columns(StringInfo json, const FinJsonColumns *columns,
			   const Datum *values, const bool *nulls)
{
	char		separator = '{';

	for (int i = 0; i < columns->n; i++)
	{
		if (columns->types[i].write == NULL)
			continue;
		appendStringInfoChar(json, separator);
		separator = ',';
		append_digits(json, columns->labels[i]);
		append_value(json, &columns->types[i], values[i], nulls[i]);
	}
	if (separator == '{')
		appendStringInfoChar(json, '{');
	appendStringInfoChar(json, '}');
}

static void
write_row(StringInfo json, FinJsonType *type, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	Oid			oid = HeapTupleHeaderGetTypeId(header);
	int32		typmod = HeapTupleHeaderGetTypMod(header);
	uint64		identifier = assign_record_type_identifier(oid, typmod);
	TupleDesc	row = lookup_rowtype_tupdesc(oid, typmod);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),
	.t_data = header};
	Datum	   *values = palloc(sizeof(Datum) * Max(row->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(row->natts, 1));

	check_stack_depth();
	if (type->columns->identifier != identifier)
		read_columns(type, row, identifier);
	heap_deform_tuple(&tuple, row, values, nulls);
	append_columns(json, type->columns, values, nulls);
	ReleaseTupleDesc(row);
	pfree(values);
	pfree(nulls);
	if ((Pointer) header != DatumGetPointer(value))
		pfree(header);
}

static void
read_row(FinJsonType *type, Oid oid)
{
	TupleDesc	row = lookup_rowtype_tupdesc(oid, -1);

	type->write = write_row;
	type->columns = palloc0(sizeof(FinJsonColumns));
	type->columns->memory = AllocSetContextCreate(CurrentMemoryContext,
												  "finance columns as json",
												  ALLOCSET_SMALL_SIZES);
	read_columns(type, row, assign_record_type_identifier(oid, -1));
	ReleaseTupleDesc(row);
}

/* ------------------------------------------------------------------------
 * types
 * ------------------------------------------------------------------------ */

static FinJsonWrite
writer_of(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return write_bool;
		case INT2OID:
			return write_int2;
		case INT4OID:
			return write_int4;
		case INT8OID:
			return write_int8;
		case FLOAT4OID:
			return write_float4;
		case FLOAT8OID:
			return write_float8;
		case NUMERICOID:
			return write_numeric;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return write_text;
		case NAMEOID:
			return write_name;
		case BYTEAOID:
			return write_bytea;
		case UUIDOID:
			return write_uuid;
		case DATEOID:
			return write_date;
		case TIMESTAMPOID:
			return write_timestamp;
		case TIMESTAMPTZOID:
			return write_timestamptz;
		case INTERVALOID:
			return write_interval;
		case JSONOID:
			return write_json;
		case JSONBOID:
			return write_jsonb;
		default:
			return NULL;
	}
}

/* types it does not know, and jsonb, which has no other way */
static void
read_output(FinJsonType *type, Oid oid)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(oid, &output, &is_varlena);
	fmgr_info_cxt(output, &type->output, CurrentMemoryContext);
	type->need = fin_output_need(oid, &type->output);
	if (type->write == NULL)
		/* such as citext */
		type->write = type->output.fn_addr == textout ? write_text :
			write_output;
}

void
fin_json_type(FinJsonType *type, Oid oid)
{
	Oid			base = getBaseType(oid);
	Oid			element = get_element_type(base);

	memset(type, 0, sizeof(*type));
	type->write = writer_of(base);
	if (OidIsValid(element))
		read_elements(type, element);
	else if (type_is_rowtype(base))
		read_row(type, base);
	else if (type->write == NULL || type->write == write_jsonb)
		read_output(type, base);
}

void
fin_json_fixed_value(StringInfo json, FinJsonType *type, Datum value)
{
	int			nest = fin_output_fix(type->need);

	type->write(json, type, value);
	fin_output_restore(nest);
}
