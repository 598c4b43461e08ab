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
 *	2. Leaf hashes are appended to an RFC 6962 tree (verify_merkle.h), at first
 *	   that of the header's frontier.  Where a block ends, its root must be the
 *	   tree's; its digest must be that of its fields (src/audit_block.h), one of
 *	   which is the digest of the block before.
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
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

#include "verify_merkle.h"
#include "verify_read.h"

#ifndef VERIFY_VERSION
#define VERIFY_VERSION	"unknown"
#endif

#define SHOWN_MAX		20		/* problems that are told one by one */
#define PROGRESS_LEAVES	50000

/* ------------------------------------------------------------------------
 * what is told.  What cannot be judged ends with err() or errx(), status 2.
 * ------------------------------------------------------------------------ */

static struct
{
	const char *file;			/* what is being read, */
	long		line;			/* 0: not by lines */
	int64_t		leaf;			/* -1: none */
	int64_t		record;			/* its id; -1: none, or unknown */
} at = {.leaf = -1, .record = -1};

static int	quiet;
static int	complete;			/* no leaf without its record */
static uint64_t problems;

/* returns true, for "something = complain(...)" */
static bool __attribute__((format(printf, 1, 2)))
complain(const char *format,...)
{
	va_list		args;

	if (++problems > SHOWN_MAX)
		return true;
	fprintf(stderr, "finance-verify: %s:", at.file);
	if (at.line > 0)
		fprintf(stderr, "%ld:", at.line);
	if (at.leaf >= 0)
		fprintf(stderr, " leaf %" PRId64, at.leaf);
	if (at.record >= 0)
		fprintf(stderr, ", record %" PRId64, at.record);
	fputs(at.leaf >= 0 ? ": " : " ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return true;
}

/* ------------------------------------------------------------------------
 * bytes to be hashed
 * ------------------------------------------------------------------------ */

static unsigned char *work;
static size_t work_length;

static void *
more_work(size_t length)
{
	static size_t room;

	work_length += length;
	if (work_length > room)
	{
		room = work_length * 2;
		work = realloc(work, room);
		if (work == NULL)
			err(2, "realloc");
	}
	return work + work_length - length;
}

static void
put(const void *bytes, size_t length)
{
	memcpy(more_work(length), bytes, length);
}

/* the lowest 'width' bytes, big-endian */
static void
put_integer(uint64_t value, int width)
{
	unsigned char *bytes = more_work((size_t) width);

	for (int i = width - 1; i >= 0; i--, value >>= 8)
		bytes[i] = (unsigned char) value;
}

static bool
put_hex(const char *digits, bool is_uuid)
{
	for (int i = 0; *digits != '\0'; i++, digits += 2)
	{
		if (is_uuid && (i == 4 || i == 6 || i == 8 || i == 10) &&
			*digits++ != '-')
			return false;
		if (!unhex(digits, 1, more_work(1)))
			return false;
	}
	return true;
}

/* of address/bits, the wire form of inet */
static bool
put_inet(char *text)
{
	bool		is_ipv6 = strchr(text, ':') != NULL;
	size_t		length = is_ipv6 ? 16 : 4;
	char	   *slash = strchr(text, '/');
	char	   *end;
	uint64_t	bits;

	if (slash == NULL || (end = parse_integer(slash + 1, 8, &bits)) == NULL ||
		*end != '\0' || bits > length * 8 || strpbrk(text, "ABCDEF") != NULL)
		return false;
	*slash = '\0';
	put_integer(is_ipv6 ? 3 : 2, 1);
	put_integer(bits, 1);
	put_integer(length, 2);
	return inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text,
					 more_work(length)) == 1;
}

/* ------------------------------------------------------------------------
 * a record becomes a leaf
 * ------------------------------------------------------------------------ */

typedef enum Kind
{
	INT4 = 4, INT8 = 8,			/* bytes */
	HEX, UUID, INET, TEXT, NOT_IN_LEAF
} Kind;

enum
{
	ID = 0, SYSTEM_IDENTIFIER = 3, LEAF_VERSION = 13, PAYLOAD_HASH = 14,
	SALT = 15, OPERATION = 25, ROW_KEY = 28, REQUEST = 35, RESPONSE = 36,
	COLUMNS = 37
};

/* of a record, in the order of the export, which is that of the leaf */
static const struct
{
	const char *name;
	Kind		kind;
} columns[COLUMNS] =
{
	[ID] = {"id", INT8}, {"recorded_at", INT8}, {"xid", INT8},
	[SYSTEM_IDENTIFIER] = {"system_identifier", INT8}, {"tenant_id", INT4},
	{"sequence", INT4}, {"trace_id", UUID}, {"message_id", INT8},
	{"transfer_id", INT8}, {"account_id", INT8}, {"counterparty_id", INT8},
	{"account_version", INT8}, {"counterparty_version", INT8},
	[LEAF_VERSION] = {"leaf_version", NOT_IN_LEAF},
	[PAYLOAD_HASH] = {"payload_hash", HEX}, [SALT] = {"salt", NOT_IN_LEAF},
	{"client_addr", INET}, {"actor", TEXT}, {"session_user_name", TEXT},
	{"role_name", TEXT}, {"application_name", TEXT}, {"user_agent", TEXT},
	{"span_id", TEXT}, {"request_id", TEXT}, {"reason", TEXT},
	[OPERATION] = {"operation", TEXT}, {"status", TEXT}, {"object", TEXT},
	[ROW_KEY] = {"row_key", TEXT}, {"currency", TEXT}, {"amount", TEXT},
	{"balance_before", TEXT}, {"balance_after", TEXT},
	{"counterparty_balance_before", TEXT},
	{"counterparty_balance_after", TEXT},
	[REQUEST] = {"request", NOT_IN_LEAF},
	[RESPONSE] = {"response", NOT_IN_LEAF},
};

static char *record[COLUMNS];	/* that was read last; NULL: null */

static bool
read_record(void)
{
	if (!take("{"))
		return false;
	for (int i = 0; i < COLUMNS; i++)
	{
		record[i] = NULL;
		if (member(columns[i].name) && !read_string(&record[i]))
			return false;
	}
	return take("}");
}

static bool
put_value(char *text, Kind kind)
{
	uint64_t	number = 0;
	char	   *end;

	if (kind == HEX || kind == UUID)
		return put_hex(text, kind == UUID);
	if (kind == INET)
		return put_inet(text);
	if (kind == TEXT)
	{
		put(text, strlen(text));
		return true;
	}
	end = parse_integer(text, kind, &number);
	put_integer(number, kind);
	return end != NULL && *end == '\0';
}

/* its length and its bytes; null is the length ff ff ff ff */
static bool
put_field(char *text, Kind kind)
{
	size_t		start = work_length;
	size_t		end;

	put_integer(UINT32_MAX, 4);
	if (text == NULL)
		return true;
	if (!put_value(text, kind))
		return false;
	end = work_length;
	work_length = start;
	put_integer(end - start - 4, 4);
	work_length = end;
	return true;
}

static bool
hash_record(Hash *hash)
{
	if (record[LEAF_VERSION] == NULL || strcmp(record[LEAF_VERSION], "1") != 0)
		return false;
	work_length = 0;
	put_integer(1, 2);
	for (int i = 0; i < COLUMNS; i++)
	{
		if (columns[i].kind != NOT_IN_LEAF &&
			!put_field(record[i], columns[i].kind))
			return false;
	}
	sha256(0x00, work, work_length, hash);
	return true;
}

/* ------------------------------------------------------------------------
 * what is gone: records of later tell of it, in their leaves (src/audit_gone.h)
 * ------------------------------------------------------------------------ */

typedef struct Gone
{
	int64_t		record;
	int64_t		leaf;
} Gone;

typedef struct List
{
	Gone	   *items;
	size_t		length;
} List;

static List erased;				/* records without their payload */
static List told;				/* those whose erasure a record tells */
static uint64_t detached;		/* records that went with their months */
static uint64_t told_detached;	/* how many, as the last record of it says */
static uint64_t untold;			/* payloads and records */

static void
remember(List *list, int64_t id)
{
	/* room for as many again, whenever they are a power of two */
	if ((list->length & (list->length - 1)) == 0)
		list->items = realloc(list->items,
							  sizeof(Gone) * (2 * list->length + 1));
	if (list->items == NULL)
		err(2, "realloc");
	list->items[list->length++] = (Gone) {id, at.leaf};
}

static void
hear_record(void)
{
	const char *operation = record[OPERATION];
	const char *key = record[ROW_KEY];
	int64_t		id;

	if (operation == NULL || key == NULL)
		return;
	if (strcmp(operation, "audit_erase_payload") == 0 &&
		sscanf(key, "{\"id\":%" SCNd64 "}", &id) == 1)
		remember(&told, id);
	else if (strcmp(operation, "drop_audit_month") == 0)
		(void) sscanf(key, "{\"month\":\"%*4d-%*2d-01\",\"gone\":%" SCNu64 "}",
					  &told_detached);
}

static int
compare_gone(const void *a, const void *b)
{
	int64_t		one = ((const Gone *) a)->record;
	int64_t		other = ((const Gone *) b)->record;

	return one < other ? -1 : one > other;
}

/*
 * What was sealed after the export may tell of it: so it is counted, and only
 * who asks for everything has it refused.
 */
static void
judge_gone(void)
{
	at.line = 0;
	if (told.length > 0)
		qsort(told.items, told.length, sizeof(Gone), compare_gone);
	for (size_t i = 0; i < erased.length; i++)
	{
		if (told.length > 0 &&
			bsearch(&erased.items[i], told.items, told.length, sizeof(Gone),
					compare_gone) != NULL)
			continue;
		untold++;
		at.leaf = erased.items[i].leaf;
		at.record = erased.items[i].record;
		if (complete)
			complain("its payload is gone, and no record tells of it");
	}
	if (detached > told_detached)
		untold += detached - told_detached;
	at.leaf = at.record = -1;
}

static void
check_payload(void)
{
	bool		is_there = record[REQUEST] != NULL || record[RESPONSE] != NULL;
	Hash		hash;

	work_length = 0;
	if (record[PAYLOAD_HASH] == NULL)
	{
		if (is_there || record[SALT] != NULL)
			complain("there is a payload but no payload_hash");
	}
	else if (!is_there && record[SALT] == NULL)
		remember(&erased, at.record);
	else if (record[SALT] == NULL || strlen(record[SALT]) != 32 ||
			 !put_hex(record[SALT], false))
		complain("the payload has no salt");
	else
	{
		put_field(record[REQUEST], TEXT);
		put_field(record[RESPONSE], TEXT);
		sha256(0x02, work, work_length, &hash);
		work_length = 0;
		if (!put_hex(record[PAYLOAD_HASH], false) ||
			work_length != HASH_LENGTH ||
			memcmp(work, &hash, HASH_LENGTH) != 0)
			complain("the payload was altered");
	}
}

/* ------------------------------------------------------------------------
 * roots that are claimed: by digests, by proofs, and by the export itself
 * ------------------------------------------------------------------------ */

/* what a digest is computed from; also a line of an export */
typedef struct Block
{
	uint64_t	number;			/* from 1; 0: there is none */
	uint64_t	incarnation;
	uint64_t	size;
	Hash		root;
	Hash		previous;
	Hash		digest;
	uint64_t	sealed_at;
	uint64_t	lsn;
	uint64_t	timeline;
} Block;

typedef struct Claim
{
	const char *file;
	uint64_t	size;
	Hash		root;
	bool		computed;		/* the tree of the export had this root */
	bool		seeks_block;	/* with this digest */
	Hash		digest;
	bool		trusted;
	int			continued_by;	/* claim, by a proof that holds; -1: none */
} Claim;

static Claim *claims;
static int	nclaims;

static Claim *
add_claim(uint64_t size, const Hash *root)
{
	claims = realloc(claims, sizeof(Claim) * (size_t) (nclaims + 1));
	if (claims == NULL)
		err(2, "realloc");
	claims[nclaims] = (Claim) {.file = at.file, .size = size, .root = *root,
	.continued_by = -1};
	return &claims[nclaims++];
}

static bool
read_block(Block *new)
{
	Hash		hash;

	if (!member("block") || !read_count(&new->number) || new->number == 0 ||
		!member("incarnation") || !read_count(&new->incarnation) ||
		!member("size") || !read_count(&new->size) ||
		!member("root") || !read_hash(&new->root) ||
		!member("previous") || !read_hash(&new->previous) ||
		!member("digest") || !read_hash(&new->digest) ||
		!member("sealed_at") || !read_time(&new->sealed_at) ||
		!member("lsn") || !read_lsn(&new->lsn) ||
		!member("timeline") || !read_count(&new->timeline) ||
		new->incarnation > INT32_MAX || new->timeline > INT32_MAX)
		return false;
	work_length = 0;
	put_integer(new->number, 8);
	put_integer(new->incarnation, 4);
	put_integer(new->size, 8);
	put(&new->root, HASH_LENGTH);
	put(&new->previous, HASH_LENGTH);
	put_integer(new->sealed_at, 8);
	put_integer(new->lsn, 8);
	put_integer(new->timeline, 4);
	sha256(0x03, work, work_length, &hash);
	if (!same(&hash, &new->digest))
		complain("the digest of block %" PRIu64 " is not that of its fields",
				 new->number);
	return true;
}

static void
read_digest(bool trusted)
{
	Block		new;
	Claim	   *claim;

	if (!read_block(&new))
		errx(2, "%s is not a digest", at.file);
	claim = add_claim(new.size, &new.root);
	claim->seeks_block = true;
	claim->digest = new.digest;
	claim->trusted = trusted;
}

static void
read_proof(void)
{
	static const char *const names[][5] = {
		{"leaf_hash", "leaf_index", "tree_size", "root", "path"},
		{"old_root", "old_size", "new_size", "new_root", "proof"}
	};
	bool		of_trees = strstr(object, "\"old_size\":") != NULL;
	const char *const *name = names[of_trees];
	Hash		old;
	uint64_t	number;
	uint64_t	size;
	Hash		root;
	Hashes		proof;
	int			newer;

	if (!member(name[0]) || !read_hash(&old) ||
		!member(name[1]) || !read_count(&number) ||
		!member(name[2]) || !read_count(&size) ||
		!member(name[3]) || !read_hash(&root) ||
		!member(name[4]) || !read_hashes(&proof))
		errx(2, "%s is not a proof", at.file);
	if (of_trees && !is_continued(&old, number, size, &root, &proof))
		complain("the proof that the log of size %" PRIu64 " is the beginning "
				 "of that of size %" PRIu64 " does not hold", number, size);
	else if (!of_trees && !is_included(&old, number, size, &root, &proof))
		complain("the proof that leaf %" PRIu64 " is included does not hold",
				 number);
	else
	{
		newer = (int) (add_claim(size, &root) - claims);
		if (of_trees)
			add_claim(number, &old)->continued_by = newer;
	}
}

/* a file of digests, trusted ('d') or earlier, or of proofs ('p'); how many */
static int
read_objects(const char *file, int option)
{
	FILE	   *stream = fopen(file, "r");
	char	   *text = NULL;
	char	   *end;
	size_t		room = 0;
	ssize_t		length;
	int			n = 0;

	if (stream == NULL ||
		((length = getdelim(&text, &room, '\0', stream)) < 0 && ferror(stream)))
		err(2, "%s cannot be read", file);
	/* spaces mean nothing, for no string has any */
	end = text;
	for (ssize_t i = 0; i < length; i++)
	{
		if (!isspace((unsigned char) text[i]))
			*end++ = text[i];
	}
	if (end == text)
		errx(2, "%s is empty", file);
	*end = '\0';
	at.file = file;
	for (object = text; *object != '\0'; object = end + 1, n++)
	{
		end = strchr(object, '}');
		if (*object != '{' || end == NULL)
			errx(2, "%s is not JSON", file);
		*end = '\0';
		if (option == 'p')
			read_proof();
		else
			read_digest(option == 'd');
	}
	object = NULL;
	free(text);
	fclose(stream);
	return n;
}

/* ------------------------------------------------------------------------
 * exports.  Each line is judged by itself and then, while the lines before it
 * made a tree, as what follows them.
 * ------------------------------------------------------------------------ */

static bool inside;				/* after a header, before its trailer */
static bool begun;				/* there is a tree, */
static uint64_t begin;			/* whose size was this at first; */
static bool broken;				/* it cannot be followed any more */
static uint64_t to;				/* where the export says it ends */
static Tree tree;
static uint64_t due;			/* the next size that a claim is of */
static Block block;				/* the last that ended */
static uint64_t cluster;		/* of the records since then; 0: not known */
static uint64_t blocks;
static uint64_t leaves;
static uint64_t records;

/* the tree has reached a size: is its root what is claimed? */
static void
check_claims(void)
{
	Hash		root;

	root_of(&tree, &root);
	due = UINT64_MAX;
	for (Claim *claim = claims; claim < claims + nclaims; claim++)
	{
		if (claim->size > tree.size && claim->size < due)
			due = claim->size;
		if (claim->size != tree.size)
			continue;
		claim->computed = same(&root, &claim->root);
		if (!claim->computed)
			complain("%s: the root of size %" PRIu64
					 " is another than this log's", claim->file, tree.size);
	}
}

static bool
read_header(void)
{
	Tree		start;

	if (!member("finance_audit_export") || !take("1") ||
		!member("from") || !read_count(&start.size) ||
		!member("to") || !read_count(&to) || start.size > to ||
		!member("frontier") || !read_hashes(&start.roots) ||
		start.roots.length != __builtin_popcountll(start.size))
		return false;
	if (!begun)
	{
		begun = true;
		begin = start.size;
		tree = start;
		check_claims();
	}
	/* trees of one size have as many roots */
	if (!broken && (tree.size != start.size ||
					memcmp(tree.roots.at, start.roots.at,
						   sizeof(Hash) * (size_t) tree.roots.length) != 0))
		broken = complain("the export does not go on where the one before "
						  "ended, at leaf %" PRIu64, tree.size);
	return true;
}

static void
check_record(const Hash *leaf_hash)
{
	uint64_t	identifier = 0;
	Hash		hash;

	records++;
	if (!hash_record(&hash))
		complain("the record is malformed");
	else if (!same(&hash, leaf_hash))
		complain("the record is not what was sealed");
	else
	{
		check_payload();
		hear_record();
		if (record[SYSTEM_IDENTIFIER] != NULL)
			parse_integer(record[SYSTEM_IDENTIFIER], 8, &identifier);
		if (cluster != 0 && identifier != cluster)
			complain("the record is of another cluster than the one before");
		cluster = identifier;
	}
}

static bool
read_leaf(void)
{
	uint64_t	index;
	uint64_t	number;
	Hash		leaf_hash;
	char	   *why = NULL;
	char	   *id = NULL;

	if (!member("leaf") || !read_count(&index) ||
		!member("leaf_hash") || !read_hash(&leaf_hash))
		return false;
	if (member("record"))
	{
		if (!read_record())
			return false;
		id = record[ID];
	}
	else if (!member("why") || !read_string(&why) ||
			 (member("id") && !read_string(&id)))
		return false;
	leaves++;
	at.leaf = (int64_t) index;
	if (id != NULL && parse_integer(id, 8, &number) != NULL)
		at.record = (int64_t) number;
	if (!broken && index != tree.size)
		broken = complain("leaf %" PRIu64 " should be here", tree.size);
	if (why == NULL)
		check_record(&leaf_hash);
	else if (strcmp(why, "missing") == 0)
		complain("its record is missing");
	else if (strcmp(why, "tenant") != 0 && strcmp(why, "detached") != 0)
		return false;
	else if (complete)
		complain("its record is not in the export (%s)", why);
	if (why != NULL && strcmp(why, "detached") == 0)
		detached++;
	if (!broken)
		append(&tree, &leaf_hash);
	if (!broken && tree.size == due)
		check_claims();
	if (!quiet && leaves % PROGRESS_LEAVES == 0 && isatty(STDERR_FILENO))
		fprintf(stderr, "\r%" PRIu64 " leaves", leaves);
	return true;
}

/* what is wrong with a block that ends here, or NULL */
static const char *
misfit(const Block *new)
{
	static const Hash zeros;
	bool		is_first = new->number == 1;
	bool		has_before = block.number != 0;
	Hash		root;

	root_of(&tree, &root);
	if (is_first ? !same(&new->previous, &zeros) : !has_before && begin == 0)
		return "is not the first of the log";
	if (has_before && (new->number != block.number + 1 ||
					   new->size <= block.size ||
					   new->incarnation < block.incarnation))
		return "does not follow the block before";
	if (has_before && !same(&new->previous, &block.digest))
		return "does not have the digest of the block before";
	if (new->size != tree.size)
		return "does not end here";
	if (!same(&new->root, &root))
		return "does not have the root of its leaves";
	return NULL;
}

static bool
read_end_of_block(void)
{
	Block		new;
	uint64_t	identifier;
	const char *problem;

	if (!read_block(&new) ||
		!member("system_identifier") || !read_integer(&identifier))
		return false;
	problem = broken ? NULL : misfit(&new);
	if (problem != NULL)
		broken = complain("block %" PRIu64 " %s", new.number, problem);
	else if (!broken && cluster != 0 && identifier != cluster)
		complain("the records of block %" PRIu64 " are of another cluster",
				 new.number);
	for (int i = 0; i < nclaims; i++)
		claims[i].seeks_block &= !same(&claims[i].digest, &new.digest);
	block = new;
	blocks++;
	cluster = 0;
	return true;
}

static bool
read_trailer(void)
{
	uint64_t	end;
	Hash		stated;
	Hash		root;

	inside = false;
	if (!member("to") || !read_count(&end) ||
		!member("root") || !read_hash(&stated))
		return false;
	root_of(&tree, &root);
	if (broken)
		return true;
	if (end != tree.size || end != to)
		complain("the export ends at leaf %" PRIu64 ", not as it says: to %"
				 PRIu64 " in the header, %" PRIu64 " here", tree.size, to, end);
	else if (!same(&root, &stated))
		complain("the root is not that of the leaves");
	for (Claim *claim = claims; claim < claims + nclaims; claim++)
	{
		if (claim->seeks_block && claim->computed && claim->size > begin)
			complain("%s: no block that ends at size %" PRIu64
					 " has that digest", claim->file, claim->size);
	}
	return true;
}

static void
read_line(char *line, size_t length)
{
	char		kind = length > 2 ? line[2] : '\0';	/* of the first name */
	bool		good;

	if (!broken && (kind == 'f') == inside)
		broken = complain(inside ? "the export before has not ended" :
						  "an export does not begin so");
	inside = true;
	cursor = line;
	good = take("{") &&
		(kind == 'l' ? read_leaf() : kind == 'b' ? read_end_of_block() :
		 kind == 't' ? read_trailer() : kind == 'f' && read_header());
	if (!good || !take("}\n") || cursor != line + length)
		broken = complain("this is not a line of an export");
}

static void
read_export(const char *file)
{
	FILE	   *stream = strcmp(file, "-") == 0 ? stdin : fopen(file, "r");
	char	   *line = NULL;
	size_t		room = 0;
	ssize_t		length;

	if (stream == NULL)
		err(2, "%s cannot be read", file);
	at.file = file;
	for (at.line = 1; (length = getline(&line, &room, stream)) > 0; at.line++)
	{
		read_line(line, (size_t) length);
		at.leaf = at.record = -1;
	}
	if (ferror(stream))
		err(2, "%s cannot be read", file);
	if (inside || at.line == 1)
		complain("the export is cut off here");
	inside = false;
	at.line = 0;
	free(line);
	if (stream != stdin)
		fclose(stream);
}

/* ------------------------------------------------------------------------
 * does all of it belong to the digest?
 * ------------------------------------------------------------------------ */

static bool
follows(const Claim *claim, const Claim *trusted)
{
	return (claim->size == trusted->size &&
			same(&claim->root, &trusted->root)) ||
		(claim->computed && trusted->computed &&
		 claim->size <= trusted->size) ||
		claim->continued_by == trusted - claims;
}

static void
check_trust(const char *whose)
{
	const Claim *end = claims + nclaims;
	bool		more = true;

	while (more)
	{
		more = false;
		for (const Claim *trusted = claims; trusted < end; trusted++)
		{
			for (Claim *claim = claims; claim < end; claim++)
			{
				if (trusted->trusted && !claim->trusted &&
					follows(claim, trusted))
					claim->trusted = more = true;
			}
		}
	}
	for (const Claim *claim = claims; claim < end && !broken; claim++)
	{
		at.file = claim->file;
		if (!claim->trusted)
			complain("nothing proves that size %" PRIu64 " is of the log of %s",
					 claim->size, whose);
	}
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
"                   finance.audit_digest() d; the exports must end with it\n"
"  --earlier FILE   digests kept before, which must be of the same log: within\n"
"                   the exports, or by a proof\n"
"  --proof FILE     proofs, to_json() of audit_consistency() or audit_proof()\n"
"  --complete       refuse leaves whose record is not in the export, and\n"
"                   payloads that are gone and no record in it tells of\n"
"  --quiet          say only what is wrong\n"
"  --help, --version\n\n"
"Exit status: 0 all is right, 1 something is wrong, 2 wrong usage or\n"
"unreadable input.\n";

static void
summarize(bool has_export, bool has_digest)
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
		printf("%" PRIu64 " leaves in %" PRIu64 " blocks, %" PRIu64 " records, "
			   "%zu payloads erased", leaves, blocks, records, erased.length);
		if (detached > 0)
			printf(", %" PRIu64 " records taken out", detached);
		if (untold > 0)
			printf(", %" PRIu64 " of which no record tells", untold);
		printf("; size %" PRIu64, tree.size);
		root_of(&tree, &root);
		for (int i = 0; !broken && i < HASH_LENGTH; i++)
			printf("%s%02x", i == 0 ? ", root " : "", root.bytes[i]);
		putchar('\n');
	}
	if (problems > 0)
		printf("%" PRIu64 " problems\n", problems);
	else if (has_digest)
		puts("all is right");
	else
		puts("all is right in itself, but no --digest tells whose log it is");
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"digest", required_argument, NULL, 'd'},
		{"earlier", required_argument, NULL, 'e'},
		{"proof", required_argument, NULL, 'p'},
		{"complete", no_argument, &complete, 1},
		{"quiet", no_argument, &quiet, 1},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0}
	};
	const char *digest = NULL;
	bool		has_export;
	Hash		root;
	int			option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		if (option == 'h' || option == 'v')
		{
			printf(option == 'h' ? "%s" : "finance-verify %s\n",
				   option == 'h' ? usage : VERIFY_VERSION);
			return 0;
		}
		if (option == '?' || (option == 'd' && digest != NULL))
			errx(2, "wrong usage; see --help");
		if (option == 'd')
			digest = optarg;
		if (optarg != NULL && read_objects(optarg, option) > 1 && option == 'd')
			errx(2, "%s has more than one digest", digest);
	}
	has_export = optind < argc;
	if (!has_export && nclaims == 0 && problems == 0)
		errx(2, "there is nothing to verify; see --help");
	for (int i = optind; i < argc; i++)
		read_export(argv[i]);
	judge_gone();
	/* without a digest the export is trusted, or the newest of the proofs */
	for (int i = 0; i < nclaims && !has_export && digest == NULL; i++)
		claims[i].trusted = claims[i].continued_by < 0;
	if (has_export && !broken)
	{
		Claim	   *end;

		root_of(&tree, &root);
		end = add_claim(tree.size, &root);
		end->computed = true;
		end->trusted = digest == NULL;
	}
	check_trust(digest != NULL ? digest : "the export");
	summarize(has_export, digest != NULL);
	return problems > 0 ? 1 : 0;
}
