/*
 * finance-verify.c
 *		Verifies exports of finance's audit log, digests and proofs of it, with
 *		no database and no part of the server.
 *
 * To be read in one sitting by somebody who trusts neither the server nor us:
 *
 *	1. A line of an export (src/audit_export.c has the format) carries a record.
 *	   From its columns the leaf is made (src/audit_row.h has the bytes), and
 *	   SHA-256(0x00 || leaf) must be the leaf_hash of the line.
 *	2. Leaf hashes are appended to an RFC 6962 tree, that begins with the
 *	   frontier of the header.  Where a block ends, its root must be the tree's;
 *	   its digest must be that of its fields (src/audit_block.h), one of which
 *	   is the digest of the block before.
 *	3. What is trusted is one digest, kept by who calls this (--digest).  The
 *	   tree must have its root at its size; or a proof of consistency must lead
 *	   from the tree to it.  Then so must older digests (--earlier), and the
 *	   roots of proofs of inclusion.
 *
 * What is not proved: that there are no records which were never sealed, and
 * anything about a leaf whose record is not in the export but its hash.
 *
 * Memory: a line at a time, the digests and the proofs.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>

#ifndef VERIFY_VERSION
#define VERIFY_VERSION	"unknown"
#endif

#define HASH_LENGTH		32
#define DEPTH_MAX		64		/* of a tree, and hashes of a proof */
#define SHOWN_MAX		20		/* problems that are told one by one */
#define PROGRESS_LEAVES	50000

typedef struct Hash
{
	unsigned char bytes[HASH_LENGTH];
} Hash;

typedef struct Bytes
{
	unsigned char *data;
	size_t		length;
	size_t		room;
} Bytes;

/* ------------------------------------------------------------------------
 * what is told
 * ------------------------------------------------------------------------ */

static struct
{
	const char *file;			/* what is being read, */
	long		line;			/* 0: not by lines */
	int64_t		leaf;			/* -1: none */
	const char *record;			/* its id, or NULL */
} at = {.leaf = -1};

static bool quiet;
static bool complete;			/* no leaf without its record */
static uint64_t problems;

static void __attribute__((format(printf, 1, 2)))
complain(const char *format,...)
{
	va_list		args;

	if (++problems > SHOWN_MAX)
		return;
	fprintf(stderr, "finance-verify: ");
	if (at.file != NULL)
		fprintf(stderr, "%s:", at.file);
	if (at.line > 0)
		fprintf(stderr, "%ld:", at.line);
	if (at.leaf >= 0)
		fprintf(stderr, " leaf %" PRId64, at.leaf);
	if (at.record != NULL)
		fprintf(stderr, ", record %s", at.record);
	fprintf(stderr, at.leaf >= 0 ? ": " : " ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void __attribute__((format(printf, 1, 2), noreturn))
give_up(const char *format,...)
{
	va_list		args;

	fprintf(stderr, "finance-verify: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static void *
grown(void *memory, size_t size)
{
	memory = realloc(memory, size);
	if (memory == NULL)
		give_up("out of memory");
	return memory;
}

/* ------------------------------------------------------------------------
 * SHA-256, and bytes to be hashed
 * ------------------------------------------------------------------------ */

/* of prefix || data */
static void
sha256(unsigned char prefix, const void *data, size_t length, Hash *hash)
{
	static EVP_MD_CTX *context;
	static const EVP_MD *md;

	if (context == NULL)
	{
		context = EVP_MD_CTX_new();
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
		md = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
		md = EVP_sha256();
#endif
	}
	if (context == NULL || md == NULL ||
		!EVP_DigestInit_ex(context, md, NULL) ||
		!EVP_DigestUpdate(context, &prefix, 1) ||
		!EVP_DigestUpdate(context, data, length) ||
		!EVP_DigestFinal_ex(context, hash->bytes, NULL))
		give_up("libcrypto cannot compute SHA-256");
}

static bool
same(const Hash *a, const Hash *b)
{
	return memcmp(a->bytes, b->bytes, HASH_LENGTH) == 0;
}

static void
put(Bytes *bytes, const void *data, size_t length)
{
	if (bytes->length + length > bytes->room)
	{
		bytes->room = (bytes->length + length) * 2;
		bytes->data = grown(bytes->data, bytes->room);
	}
	if (length > 0)
		memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

/* big-endian, the lowest 'width' bytes */
static void
put_integer(Bytes *bytes, uint64_t value, int width)
{
	unsigned char data[8];

	for (int i = 0; i < width; i++)
		data[i] = (unsigned char) (value >> (8 * (width - 1 - i)));
	put(bytes, data, (size_t) width);
}

/* ------------------------------------------------------------------------
 * the tree: RFC 6962, and the proofs of RFC 9162
 * ------------------------------------------------------------------------ */

/* the roots of the complete subtrees that a tree is made of, the largest first */
typedef struct Tree
{
	uint64_t	size;
	int			depth;
	Hash		hashes[DEPTH_MAX];
} Tree;

static void
node(const Hash *left, const Hash *right, Hash *hash)
{
	unsigned char both[2 * HASH_LENGTH];

	memcpy(both, left->bytes, HASH_LENGTH);
	memcpy(both + HASH_LENGTH, right->bytes, HASH_LENGTH);
	sha256(0x01, both, sizeof(both), hash);
}

static void
append(Tree *tree, const Hash *leaf)
{
	tree->hashes[tree->depth++] = *leaf;
	/* two subtrees of one size are one of the next */
	for (uint64_t carry = tree->size++; carry & 1; carry >>= 1)
	{
		tree->depth--;
		node(&tree->hashes[tree->depth - 1], &tree->hashes[tree->depth],
			 &tree->hashes[tree->depth - 1]);
	}
}

static void
root_of(const Tree *tree, Hash *root)
{
	if (tree->size == 0)
	{
		EVP_Digest("", 0, root->bytes, NULL, EVP_sha256(), NULL);
		return;
	}
	*root = tree->hashes[tree->depth - 1];
	for (int i = tree->depth - 2; i >= 0; i--)
		node(&tree->hashes[i], root, root);
}

typedef struct Proof
{
	int			length;
	Hash		hashes[DEPTH_MAX];
} Proof;

/* RFC 9162, 2.1.3.2 */
static bool
is_included(const Hash *leaf, uint64_t index, uint64_t size,
			const Proof *path, const Hash *root)
{
	uint64_t	fn = index;
	uint64_t	sn = size - 1;
	Hash		r = *leaf;

	if (index >= size)
		return false;
	for (int i = 0; i < path->length; i++)
	{
		if (sn == 0)
			return false;
		if ((fn & 1) || fn == sn)
		{
			node(&path->hashes[i], &r, &r);
			for (; !(fn & 1) && fn != 0; fn >>= 1)
				sn >>= 1;
		}
		else
			node(&r, &path->hashes[i], &r);
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && same(&r, root);
}

/* RFC 9162, 2.1.4.2 */
static bool
is_continued(uint64_t old_size, const Hash *old_root, uint64_t new_size,
			 const Hash *new_root, const Proof *proof)
{
	uint64_t	fn = old_size - 1;
	uint64_t	sn = new_size - 1;
	int			i = 0;
	Hash		fr;
	Hash		sr;

	if (old_size == 0)
	{
		Tree		empty = {0};

		root_of(&empty, &fr);
		return proof->length == 0 && same(&fr, old_root);
	}
	if (old_size >= new_size)
		return old_size == new_size && proof->length == 0 &&
			same(old_root, new_root);
	if ((old_size & (old_size - 1)) == 0)
		fr = *old_root;			/* a complete subtree is not repeated */
	else if (proof->length == 0)
		return false;
	else
		fr = proof->hashes[i++];
	sr = fr;
	for (; fn & 1; fn >>= 1)
		sn >>= 1;
	for (; i < proof->length; i++)
	{
		if (sn == 0)
			return false;
		if ((fn & 1) || fn == sn)
		{
			node(&proof->hashes[i], &fr, &fr);
			node(&proof->hashes[i], &sr, &sr);
			for (; !(fn & 1) && fn != 0; fn >>= 1)
				sn >>= 1;
		}
		else
			node(&sr, &proof->hashes[i], &sr);
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && same(&fr, old_root) && same(&sr, new_root);
}

/* ------------------------------------------------------------------------
 * JSON values.  One way to write each value, so that none has two.
 * ------------------------------------------------------------------------ */

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' :
		c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* lowercase digits, perhaps after \x; adds the bytes */
static bool
put_hex(Bytes *bytes, const char *hex)
{
	if (hex != NULL && hex[0] == '\\' && hex[1] == 'x')
		hex += 2;
	for (; hex != NULL && *hex != '\0'; hex += 2)
	{
		int			high = hex_digit(hex[0]);
		int			low = high < 0 ? -1 : hex_digit(hex[1]);

		if (low < 0)
			return false;
		put_integer(bytes, (uint64_t) (high * 16 + low), 1);
	}
	return hex != NULL;
}

static bool
get_hash(const json_t *value, Hash *hash)
{
	Bytes		bytes = {0};
	bool		good = put_hex(&bytes, json_string_value(value)) &&
		bytes.length == HASH_LENGTH;

	if (good)
		memcpy(hash->bytes, bytes.data, HASH_LENGTH);
	free(bytes.data);
	return good;
}

static bool
get_hashes(const json_t *array, Proof *proof)
{
	size_t		n = json_array_size(array);

	if (!json_is_array(array) || n > DEPTH_MAX)
		return false;
	proof->length = (int) n;
	for (size_t i = 0; i < n; i++)
	{
		if (!get_hash(json_array_get(array, i), &proof->hashes[i]))
			return false;
	}
	return true;
}

/* a JSON integer that is not negative */
static bool
get_count(const json_t *object, const char *name, uint64_t *value)
{
	const json_t *number = json_object_get(object, name);

	*value = (uint64_t) json_integer_value(number);
	return json_is_integer(number) && json_integer_value(number) >= 0;
}

/* decimal digits in a string, as they are printed */
static bool
get_digits(const char *digits, bool is_unsigned, uint64_t *value)
{
	char		again[32];

	if (digits == NULL)
		return false;
	*value = is_unsigned ? strtoull(digits, NULL, 10) :
		(uint64_t) strtoll(digits, NULL, 10);
	if (is_unsigned)
		snprintf(again, sizeof(again), "%" PRIu64, *value);
	else
		snprintf(again, sizeof(again), "%" PRId64, (int64_t) *value);
	return strcmp(digits, again) == 0;
}

static bool
get_lsn(const char *text, uint64_t *lsn)
{
	unsigned int high;
	unsigned int low;
	char		again[32];

	if (text == NULL || sscanf(text, "%X/%X", &high, &low) != 2)
		return false;
	*lsn = (uint64_t) high << 32 | low;
	snprintf(again, sizeof(again), "%X/%X", high, low);
	return strcmp(text, again) == 0;
}

/* as to_json() writes timestamptz; to microseconds since 2000-01-01 UTC */
static bool
get_time(const char *text, uint64_t *micros)
{
	int			y, m, d, hour, minute, second, read = 0;
	int			zone[3] = {0, 0, 0};
	int64_t		fraction = 0;
	int64_t		days;
	int64_t		offset;

	if (text == NULL || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &y, &m, &d,
							   &hour, &minute, &second, &read) != 6)
		return false;
	text += read;
	if (*text == '.')
	{
		int64_t		unit = 100000;

		for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
			fraction += (*text - '0') * unit;
	}
	if (strcmp(text, "Z") != 0 &&
		((*text != '+' && *text != '-') ||
		 sscanf(text + 1, "%2d:%2d:%2d", &zone[0], &zone[1], &zone[2]) < 1))
		return false;
	offset = (zone[0] * 60 + zone[1]) * 60 + zone[2];
	if (*text == '-')
		offset = -offset;
	/* days of the civil calendar, its years beginning in March */
	if (m <= 2)
		y--;
	days = (int64_t) y * 365 + y / 4 - y / 100 + y / 400 +
		(153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1 - 730425;
	*micros = (uint64_t) ((((days * 24 + hour) * 60 + minute) * 60 + second -
						   offset) * 1000000 + fraction);
	return true;
}

/* ------------------------------------------------------------------------
 * a record becomes a leaf
 * ------------------------------------------------------------------------ */

typedef enum Kind
{
	INT8, XID8, INT4, UUID, HASH, INET, TEXT
} Kind;

/* what the leaf has, after leaf_version, in its order */
static const struct
{
	const char *name;
	Kind		kind;
} columns[] =
{
	{"id", INT8}, {"recorded_at", INT8}, {"xid", XID8},
	{"system_identifier", INT8}, {"tenant_id", INT4}, {"sequence", INT4},
	{"trace_id", UUID}, {"message_id", INT8}, {"transfer_id", INT8},
	{"account_id", INT8}, {"counterparty_id", INT8}, {"account_version", INT8},
	{"counterparty_version", INT8}, {"payload_hash", HASH},
	{"client_addr", INET}, {"actor", TEXT}, {"session_user_name", TEXT},
	{"role_name", TEXT}, {"application_name", TEXT}, {"user_agent", TEXT},
	{"span_id", TEXT}, {"request_id", TEXT}, {"reason", TEXT},
	{"operation", TEXT}, {"status", TEXT}, {"object", TEXT}, {"row_key", TEXT},
	{"currency", TEXT}, {"amount", TEXT}, {"balance_before", TEXT},
	{"balance_after", TEXT}, {"counterparty_balance_before", TEXT},
	{"counterparty_balance_after", TEXT},
};

#define COLUMNS ((int) (sizeof(columns) / sizeof(columns[0])))
/* and leaf_version, salt, request, response */
#define RECORD_MEMBERS ((size_t) COLUMNS + 4)

static bool
put_uuid(Bytes *bytes, const char *text)
{
	char		hex[33];
	int			n = 0;

	if (strlen(text) != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		bool		hyphen = i == 8 || i == 13 || i == 18 || i == 23;

		if (hyphen != (text[i] == '-'))
			return false;
		if (!hyphen)
			hex[n++] = text[i];
	}
	hex[n] = '\0';
	return put_hex(bytes, hex);
}

/* address/bits to the wire form of inet */
static bool
put_inet(Bytes *bytes, const char *text)
{
	bool		is_ipv6 = strchr(text, ':') != NULL;
	int			length = is_ipv6 ? 16 : 4;
	const char *slash = strchr(text, '/');
	char		address[64];
	unsigned char raw[16];
	uint64_t	bits;

	if (slash == NULL || (size_t) (slash - text) >= sizeof(address) ||
		!get_digits(slash + 1, true, &bits) || bits > (uint64_t) length * 8)
		return false;
	memcpy(address, text, (size_t) (slash - text));
	address[slash - text] = '\0';
	if (strpbrk(address, "ABCDEF") != NULL ||
		inet_pton(is_ipv6 ? AF_INET6 : AF_INET, address, raw) != 1)
		return false;
	put_integer(bytes, is_ipv6 ? 3 : 2, 1);
	put_integer(bytes, bits, 1);
	put_integer(bytes, 0, 1);
	put_integer(bytes, (uint64_t) length, 1);
	put(bytes, raw, (size_t) length);
	return true;
}

static bool
put_value(Bytes *bytes, const json_t *value, Kind kind)
{
	const char *text = json_string_value(value);
	uint64_t	number;

	if (kind == TEXT && json_is_object(value) && json_object_size(value) == 1)
		return put_hex(bytes, json_string_value(json_object_get(value, "hex")));
	if (text == NULL)
		return false;
	switch (kind)
	{
		case INT8:
		case XID8:
			if (!get_digits(text, kind == XID8, &number))
				return false;
			put_integer(bytes, number, 8);
			return true;
		case INT4:
			if (!get_digits(text, false, &number) ||
				(int64_t) number != (int32_t) number)
				return false;
			put_integer(bytes, number, 4);
			return true;
		case UUID:
			return put_uuid(bytes, text);
		case HASH:
			return put_hex(bytes, text);
		case INET:
			return put_inet(bytes, text);
		case TEXT:
			put(bytes, text, json_string_length(value));
			return true;
	}
	return false;
}

/* its length and its bytes; null is the length ff ff ff ff */
static bool
put_field(Bytes *bytes, const json_t *value, Kind kind)
{
	size_t		start = bytes->length;
	size_t		end;

	put_integer(bytes, UINT32_MAX, 4);
	if (json_is_null(value))
		return true;
	if (!put_value(bytes, value, kind))
		return false;
	end = bytes->length;
	bytes->length = start;
	put_integer(bytes, end - start - 4, 4);
	bytes->length = end;
	return true;
}

static Bytes work;				/* what is to be hashed next */
static uint64_t erased;			/* payloads that are gone */

static bool
hash_record(const json_t *record, Hash *hash)
{
	uint64_t	version;

	work.length = 0;
	if (json_object_size(record) != RECORD_MEMBERS ||
		!get_digits(json_string_value(json_object_get(record, "leaf_version")),
					true, &version) || version != 1)
		return false;
	put_integer(&work, version, 2);
	for (int i = 0; i < COLUMNS; i++)
	{
		if (!put_field(&work, json_object_get(record, columns[i].name),
					   columns[i].kind))
			return false;
	}
	sha256(0x00, work.data, work.length, hash);
	return true;
}

static void
check_payload(const json_t *record)
{
	const json_t *request = json_object_get(record, "request");
	const json_t *response = json_object_get(record, "response");
	const json_t *salt = json_object_get(record, "salt");
	bool		is_there = !json_is_null(request) || !json_is_null(response);
	Hash		stated;
	Hash		hash;

	if (json_is_null(json_object_get(record, "payload_hash")))
	{
		if (is_there || !json_is_null(salt))
			complain("there is a payload but no payload_hash");
		return;
	}
	if (!is_there && json_is_null(salt))
	{
		erased++;
		return;
	}
	work.length = 0;
	if (!get_hash(json_object_get(record, "payload_hash"), &stated) ||
		!put_hex(&work, json_string_value(salt)) || work.length != 16 ||
		!put_field(&work, request, TEXT) || !put_field(&work, response, TEXT))
	{
		complain("the payload is malformed");
		return;
	}
	sha256(0x02, work.data, work.length, &hash);
	if (!same(&hash, &stated))
		complain("the payload was altered");
}

/* ------------------------------------------------------------------------
 * roots that were told: by digests, by proofs, and by the export itself
 * ------------------------------------------------------------------------ */

typedef struct Block
{
	uint64_t	number;
	uint64_t	incarnation;
	uint64_t	size;
	uint64_t	sealed_at;
	uint64_t	lsn;
	uint64_t	timeline;
	Hash		root;
	Hash		previous;
	Hash		digest;
	uint64_t	first_leaf;		/* of an export only, as what follows */
	char		system_identifier[24];
	long		line;
} Block;

typedef struct Claim
{
	const char *file;
	uint64_t	size;
	Hash		root;
	bool		is_digest;
	Hash		digest;
	bool		computed;		/* the tree of the export had this root */
	bool		trusted;
	int			continued_by;	/* another claim, by a proof that holds; or -1 */
} Claim;

static Claim *claims;
static int	nclaims;

static Claim *
add_claim(const char *file, uint64_t size, const Hash *root)
{
	Claim	   *claim;

	claims = grown(claims, sizeof(Claim) * (size_t) (nclaims + 1));
	claim = &claims[nclaims++];
	memset(claim, 0, sizeof(Claim));
	claim->file = file;
	claim->size = size;
	claim->root = *root;
	claim->continued_by = -1;
	return claim;
}

static bool
get_block(const json_t *json, Block *block)
{
	memset(block, 0, sizeof(Block));
	return get_count(json, "block", &block->number) &&
		get_count(json, "incarnation", &block->incarnation) &&
		get_count(json, "size", &block->size) &&
		get_count(json, "timeline", &block->timeline) &&
		block->incarnation <= INT32_MAX && block->timeline <= INT32_MAX &&
		get_lsn(json_string_value(json_object_get(json, "lsn")), &block->lsn) &&
		get_hash(json_object_get(json, "root"), &block->root) &&
		get_hash(json_object_get(json, "previous"), &block->previous) &&
		get_hash(json_object_get(json, "digest"), &block->digest);
}

static void
check_digest(const Block *block)
{
	Hash		hash;

	work.length = 0;
	put_integer(&work, block->number, 8);
	put_integer(&work, block->incarnation, 4);
	put_integer(&work, block->size, 8);
	put(&work, block->root.bytes, HASH_LENGTH);
	put(&work, block->previous.bytes, HASH_LENGTH);
	put_integer(&work, block->sealed_at, 8);
	put_integer(&work, block->lsn, 8);
	put_integer(&work, block->timeline, 4);
	sha256(0x03, work.data, work.length, &hash);
	if (!same(&hash, &block->digest))
		complain("the digest of block %" PRIu64 " is not that of its fields",
				 block->number);
}

static void
load_digest(const char *file, const json_t *json)
{
	Block		new;
	Claim	   *claim;

	if (!get_block(json, &new) ||
		!get_time(json_string_value(json_object_get(json, "sealed_at")),
				  &new.sealed_at))
		give_up("%s is not a digest", file);
	check_digest(&new);
	claim = add_claim(file, new.size, &new.root);
	claim->is_digest = true;
	claim->digest = new.digest;
}

static void
load_proof(const char *file, const json_t *json)
{
	bool		is_inclusion = json_object_get(json, "path") != NULL;
	uint64_t	old_size;
	uint64_t	new_size;
	Hash		old_root;
	Hash		new_root;
	Proof		proof;
	int			continued_by;

	if (!get_count(json, is_inclusion ? "leaf_index" : "old_size", &old_size) ||
		!get_count(json, is_inclusion ? "tree_size" : "new_size", &new_size) ||
		!get_hash(json_object_get(json, is_inclusion ? "leaf_hash" : "old_root"), &old_root) ||
		!get_hash(json_object_get(json, is_inclusion ? "root" : "new_root"), &new_root) ||
		!get_hashes(json_object_get(json, is_inclusion ? "path" : "proof"), &proof))
		give_up("%s is not a proof", file);
	if (is_inclusion)
	{
		if (!is_included(&old_root, old_size, new_size, &proof, &new_root))
			complain("the proof that leaf %" PRIu64 " is included does not hold",
					 old_size);
		add_claim(file, new_size, &new_root);
		return;
	}
	if (!is_continued(old_size, &old_root, new_size, &new_root, &proof))
	{
		complain("the proof that the log of size %" PRIu64 " is the beginning of that of size %" PRIu64 " does not hold",
				 old_size, new_size);
		return;
	}
	continued_by = nclaims;
	add_claim(file, new_size, &new_root);
	add_claim(file, old_size, &old_root)->continued_by = continued_by;
}

/* a file of JSON objects, one after another */
static int
load_file(const char *file, void (*load) (const char *, const json_t *))
{
	FILE	   *stream = fopen(file, "r");
	json_error_t error;
	json_t	   *json;
	int			n = 0;
	int			c;

	if (stream == NULL)
		give_up("%s cannot be read: %s", file, strerror(errno));
	at.file = file;
	at.line = 0;
	for (;;)
	{
		while ((c = getc(stream)) == ' ' || c == '\n' || c == '\t')
			;
		if (c == EOF)
			break;
		ungetc(c, stream);
		json = json_loadf(stream, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES,
						  &error);
		if (json == NULL)
			give_up("%s is not JSON: %s", file, error.text);
		load(file, json);
		json_decref(json);
		n++;
	}
	if (ferror(stream) || n == 0)
		give_up("%s cannot be read, or is empty", file);
	fclose(stream);
	return n;
}

/* ------------------------------------------------------------------------
 * exports
 * ------------------------------------------------------------------------ */

static bool begun;				/* the first header was read */
static bool inside;				/* after a header, before its trailer */
static bool broken;				/* the tree cannot be followed any more */
static uint64_t from;			/* of the export being read, */
static uint64_t to;
static uint64_t next;			/* leaf */
static Tree tree;
static Block block;				/* the last; number 0: none yet */
static bool repeats;			/* a new export goes on within that block */
static char cluster[24];		/* that the header says sealed the last block */
static long header_line;
static uint64_t blocks;
static uint64_t leaves;
static uint64_t records;

/* the tree has reached a size: is its root what was told? */
static void
check_claims(void)
{
	Hash		root;
	bool		known = false;

	for (int i = 0; i < nclaims; i++)
	{
		if (claims[i].size != tree.size)
			continue;
		if (!known)
			root_of(&tree, &root);
		known = true;
		if (!same(&root, &claims[i].root))
			complain("%s: the root of size %" PRIu64 " is another than this log's",
					 claims[i].file, tree.size);
		else if (claims[i].is_digest && block.number != 0 &&
				 (block.size != tree.size ||
				  !same(&claims[i].digest, &block.digest)))
			complain("%s: no block that ends at size %" PRIu64 " has that digest",
					 claims[i].file, tree.size);
		else
			claims[i].computed = true;
	}
}

static void
malformed(const char *what)
{
	complain("this is not %s of an export", what);
	broken = true;
}

static void
read_header(const json_t *json)
{
	const json_t *identifier = json_object_get(json, "system_identifier");
	uint64_t	version;
	Proof		frontier;
	Tree		start = {0};

	if (inside)
		complain("an export begins where the one before has not ended");
	inside = true;
	if (!get_count(json, "finance_audit_export", &version) || version != 1 ||
		json_object_size(json) != 5 || !get_count(json, "from", &from) ||
		!get_count(json, "to", &to) || from > to ||
		!get_hashes(json_object_get(json, "frontier"), &frontier) ||
		frontier.length != __builtin_popcountll(from) ||
		!(json_is_null(identifier) || json_is_string(identifier)))
	{
		malformed("the header");
		return;
	}
	snprintf(cluster, sizeof(cluster), "%s",
			 json_is_null(identifier) ? "" : json_string_value(identifier));
	header_line = at.line;
	start.size = from;
	start.depth = frontier.length;
	memcpy(start.hashes, frontier.hashes, sizeof(start.hashes));
	repeats = begun && next < block.size;
	if (begun && !broken)
	{
		Hash		before;
		Hash		after;

		root_of(&tree, &before);
		root_of(&start, &after);
		if (from != next || !same(&before, &after))
		{
			complain("the export does not go on where the one before ended, at leaf %" PRIu64,
					 next);
			broken = true;
		}
	}
	if (!begun || broken)
	{
		tree = start;
		next = from;
	}
	if (!begun)
		check_claims();
	begun = true;
}

static void
check_block(const Block *new)
{
	if (repeats && block.number != 0)
	{
		if (new->number != block.number || !same(&new->digest, &block.digest))
			complain("the block is not the one that the export before ended in");
		return;
	}
	if (block.number == 0)
	{
		if (next < new->first_leaf || next >= new->size)
			complain("leaf %" PRIu64 " is not in the first block", next);
		return;
	}
	if (new->number != block.number + 1 || new->first_leaf != block.size ||
		next != block.size || new->incarnation < block.incarnation)
		complain("block %" PRIu64 " does not follow block %" PRIu64,
				 new->number, block.number);
	else if (!same(&new->previous, &block.digest))
		complain("block %" PRIu64 " does not have the digest of the block before",
				 new->number);
	else
		return;
	broken = true;
}

static void
read_block(const json_t *json)
{
	static const Hash zeros;
	const char *identifier = json_string_value(json_object_get(json, "system_identifier"));
	uint64_t	size;
	uint64_t	number;
	Block		new;

	if (!get_block(json, &new) || json_object_size(json) != 12 ||
		!get_digits(json_string_value(json_object_get(json, "sealed_at")), false,
					&new.sealed_at) ||
		!get_count(json, "first_leaf", &new.first_leaf) ||
		!get_count(json, "records", &size) || size == 0 ||
		new.first_leaf + size != new.size ||
		!get_digits(identifier, false, &number))
	{
		malformed("a block");
		return;
	}
	new.line = at.line;
	snprintf(new.system_identifier, sizeof(new.system_identifier), "%s",
			 identifier);
	check_digest(&new);
	if ((new.number == 1) != (new.first_leaf == 0) ||
		(new.number == 1 && !same(&new.previous, &zeros)))
		complain("block %" PRIu64 " is not the first", new.number);
	check_block(&new);
	if (!repeats)
		blocks++;
	repeats = false;
	block = new;
}

/* a complaint about the block's line, while its leaves are read */
static void
complain_of_block(const char *what)
{
	long		line = at.line;
	int64_t		leaf = at.leaf;
	const char *record = at.record;

	at.line = block.line;
	at.leaf = -1;
	at.record = NULL;
	complain("%s of block %" PRIu64 ", leaves %" PRIu64 " to %" PRIu64,
			 what, block.number, block.first_leaf, block.size - 1);
	at.line = line;
	at.leaf = leaf;
	at.record = record;
}

static void
check_record(const json_t *record, const Hash *leaf_hash)
{
	const char *identifier = json_string_value(json_object_get(record, "system_identifier"));
	const char *id = json_string_value(json_object_get(record, "id"));
	Hash		hash;

	records++;
	if (!hash_record(record, &hash))
		complain("the record is malformed");
	else if (!same(&hash, leaf_hash))
		complain("the record is not what was sealed");
	else if (at.record == NULL || id == NULL || strcmp(id, at.record) != 0)
		complain("the record is another one");
	else
	{
		check_payload(record);
		/* the record is right, so it is the block that is not */
		if (!broken && identifier != NULL &&
			strcmp(identifier, block.system_identifier) != 0)
			complain_of_block("its records are not of the cluster");
	}
}

static void
check_absence(const json_t *why)
{
	const char *reason = json_string_value(why);

	if (reason == NULL || (strcmp(reason, "tenant") != 0 &&
						   strcmp(reason, "detached") != 0 &&
						   strcmp(reason, "missing") != 0))
		malformed("a leaf");
	else if (strcmp(reason, "missing") == 0)
		complain("its record is missing");
	else if (complete)
		complain("its record is not in the export (%s)", reason);
}

static void
add_leaf(const Hash *leaf_hash)
{
	Hash		root;

	leaves++;
	next++;
	if (broken)
		return;
	append(&tree, leaf_hash);
	if (tree.size == block.size)
	{
		root_of(&tree, &root);
		if (!same(&root, &block.root))
		{
			complain_of_block("the root is not that");
			broken = true;
			return;
		}
	}
	at.leaf = -1;
	at.record = NULL;
	check_claims();
}

static void
read_leaf(const json_t *json)
{
	const json_t *record = json_object_get(json, "record");
	const json_t *why = json_object_get(json, "why");
	const json_t *id = json_object_get(json, "id");
	uint64_t	index;
	uint64_t	number;
	Hash		leaf_hash;

	if (json_object_size(json) != 5 || !get_count(json, "leaf", &index) ||
		!get_hash(json_object_get(json, "leaf_hash"), &leaf_hash) ||
		!(json_is_object(record) || json_is_null(record)) ||
		!(json_is_null(id) ||
		  get_digits(json_string_value(id), false, &number)) ||
		json_is_null(record) == json_is_null(why) || why == NULL)
	{
		malformed("a leaf");
		return;
	}
	at.leaf = (int64_t) index;
	at.record = json_string_value(id);
	if (index != next)
	{
		complain("leaf %" PRIu64 " should be here", next);
		broken = true;
		next = index;
	}
	else if (repeats || block.number == 0 || next >= block.size)
	{
		if (!broken)
			complain("the leaf is in no block");
		broken = true;
	}
	if (json_is_object(record))
		check_record(record, &leaf_hash);
	else
		check_absence(why);
	add_leaf(&leaf_hash);
	if (!quiet && leaves % PROGRESS_LEAVES == 0 && isatty(STDERR_FILENO))
		fprintf(stderr, "\r%" PRIu64 " leaves", leaves);
}

static void
read_trailer(const json_t *json)
{
	uint64_t	end;
	uint64_t	count;
	Hash		stated;
	Hash		root;

	inside = false;
	if (json_object_size(json) != 3 || !get_count(json, "to", &end) ||
		!get_count(json, "leaves", &count) ||
		!get_hash(json_object_get(json, "root"), &stated))
	{
		malformed("the trailer");
		return;
	}
	root_of(&tree, &root);
	if (end != next || end != to || count != end - from)
		complain("the export ends at leaf %" PRIu64 ", not as it says: to %" PRIu64 " in the header, %" PRIu64 " here",
				 next, to, end);
	else if (!broken && !same(&root, &stated))
		complain("the root is not that of the leaves");
	at.line = header_line;
	if (strcmp(cluster, to > from ? block.system_identifier : "") != 0)
		complain("the system_identifier is not that of the last block");
}

static void
read_line(const char *line, size_t length)
{
	json_t	   *json = length > 0 && line[length - 1] == '\n' ?
		json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL) : NULL;

	at.leaf = -1;
	at.record = NULL;
	if (!json_is_object(json))
		malformed("a line");
	else if (json_object_get(json, "finance_audit_export") != NULL)
		read_header(json);
	else
	{
		if (!inside && !broken)
			malformed("the header");
		inside = true;
		if (json_object_get(json, "block") != NULL)
			read_block(json);
		else if (json_object_get(json, "leaf") != NULL)
			read_leaf(json);
		else if (json_object_get(json, "leaves") != NULL)
			read_trailer(json);
		else
			malformed("a line");
	}
	json_decref(json);
	at.leaf = -1;
	at.record = NULL;
}

static void
read_export(const char *file)
{
	FILE	   *stream = strcmp(file, "-") == 0 ? stdin : fopen(file, "r");
	char	   *line = NULL;
	size_t		room = 0;
	ssize_t		length;

	if (stream == NULL)
		give_up("%s cannot be read: %s", file, strerror(errno));
	at.file = file;
	at.line = 0;
	errno = 0;
	while ((length = getline(&line, &room, stream)) > 0)
	{
		at.line++;
		read_line(line, (size_t) length);
	}
	if (ferror(stream))
		give_up("%s cannot be read: %s", file, strerror(errno));
	if (inside || at.line == 0)
	{
		at.line++;
		complain("the export is cut off here");
	}
	inside = false;
	free(line);
	if (stream != stdin)
		fclose(stream);
	at.file = NULL;
	at.line = 0;
}

/* ------------------------------------------------------------------------
 * does all of it belong to the digest?
 * ------------------------------------------------------------------------ */

/* what a trusted claim makes trusted; true if anything */
static bool
trust_from(const Claim *claim)
{
	bool		more = false;

	for (int i = 0; i < nclaims; i++)
	{
		Claim	   *other = &claims[i];

		if (other->trusted)
			continue;
		other->trusted =
			(other->size == claim->size && same(&other->root, &claim->root)) ||
			(other->computed && claim->computed && other->size <= claim->size) ||
			(other->continued_by >= 0 && &claims[other->continued_by] == claim);
		more |= other->trusted;
	}
	return more;
}

static void
check_trust(bool has_digest, bool has_export)
{
	bool		more = true;

	if (has_digest)
		claims[0].trusted = true;
	for (int i = 0; i < nclaims && !has_digest; i++)
		claims[i].trusted = has_export ? i == nclaims - 1 :
			claims[i].continued_by < 0;
	while (more)
	{
		more = false;
		for (int i = 0; i < nclaims; i++)
		{
			if (claims[i].trusted && trust_from(&claims[i]))
				more = true;
		}
	}
	for (int i = 0; i < nclaims; i++)
	{
		at.file = claims[i].file;
		if (!claims[i].trusted && !broken)
			complain("nothing proves that size %" PRIu64 " is of the log of %s",
					 claims[i].size, has_digest ? claims[0].file : "the export");
	}
	at.file = NULL;
}

/* ------------------------------------------------------------------------
 * the command line
 * ------------------------------------------------------------------------ */

static const char usage[] =
"finance-verify verifies exports of finance's audit log without a database.\n\n"
"Usage: finance-verify [OPTION]... [EXPORT]...\n\n"
"  EXPORT           lines of audit_export() or audit_archive(); several must\n"
"                   follow each other; - is the standard input\n"
"  --digest FILE    the digest that is trusted, SELECT to_json(d) FROM\n"
"                   finance.audit_digest() d; the end of the exports must be it\n"
"  --earlier FILE   digests kept before, which must be of the same log: within\n"
"                   the exports, or by a proof\n"
"  --proof FILE     proofs, to_json() of audit_consistency() or audit_proof()\n"
"  --complete       refuse leaves whose record is not in the export\n"
"  --quiet          say only what is wrong\n"
"  --help, --version\n\n"
"Exit status: 0 all is right, 1 something is wrong, 2 wrong usage or\n"
"unreadable input.\n";

static void
summarize(bool has_export, bool trusts_itself)
{
	Hash		root;

	if (problems > SHOWN_MAX)
		fprintf(stderr, "finance-verify: %" PRIu64 " more are not shown\n",
				problems - SHOWN_MAX);
	if (quiet)
		return;
	if (leaves >= PROGRESS_LEAVES && isatty(STDERR_FILENO))
		fputc('\n', stderr);
	if (has_export)
	{
		root_of(&tree, &root);
		printf("%" PRIu64 " leaves in %" PRIu64 " blocks, %" PRIu64 " records, %" PRIu64 " payloads erased; size %" PRIu64,
			   leaves, blocks, records, erased, tree.size);
		if (!broken)
		{
			printf(", root ");
			for (int i = 0; i < HASH_LENGTH; i++)
				printf("%02x", root.bytes[i]);
		}
		putchar('\n');
	}
	if (problems > 0)
		printf("%" PRIu64 " problems\n", problems);
	else if (trusts_itself)
		printf("all is right in itself, but no --digest tells whose log it is\n");
	else
		printf("all is right\n");
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"digest", required_argument, NULL, 'd'},
		{"earlier", required_argument, NULL, 'e'},
		{"proof", required_argument, NULL, 'p'},
		{"complete", no_argument, NULL, 'c'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0}
	};
	const char *digest = NULL;
	bool		has_export;
	int			c;

	/* the digest first, so that it is claims[0] */
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		if (c == 'h' || c == 'v')
		{
			printf(c == 'h' ? "%s" : "finance-verify %s\n",
				   c == 'h' ? usage : VERIFY_VERSION);
			return 0;
		}
		if (c == '?' || (c == 'd' && digest != NULL))
			give_up("wrong usage; see --help");
		quiet |= c == 'q';
		complete |= c == 'c';
		if (c == 'd')
			digest = optarg;
	}
	if (digest != NULL && load_file(digest, load_digest) != 1)
		give_up("%s has more than one digest", digest);
	for (optind = 1; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
	{
		if (c == 'e')
			load_file(optarg, load_digest);
		if (c == 'p')
			load_file(optarg, load_proof);
	}
	has_export = optind < argc;
	if (!has_export && nclaims == 0 && problems == 0)
		give_up("there is nothing to verify; see --help");
	at.file = NULL;
	for (int i = optind; i < argc; i++)
		read_export(argv[i]);
	if (has_export && !broken)
	{
		Hash		root;

		root_of(&tree, &root);
		add_claim(argv[argc - 1], tree.size, &root)->computed = true;
	}
	check_trust(digest != NULL, has_export);
	summarize(has_export, digest == NULL);
	return problems > 0 ? 1 : 0;
}
