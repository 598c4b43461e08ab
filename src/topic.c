/*
 * topic.c
 *		AMQP topics: checks, and a trie of patterns.
 *
 * A trie lives in one memory context of its own and is dropped as a whole.
 * It is one array of nodes; the child of a node under a word is found through
 * one hash table over all (node, word) pairs, so that a node may have tens of
 * thousands of children.
 *
 * Matching walks all paths at once, as a nondeterministic automaton: the set
 * of nodes reached after each word, each node in it once.  A topic of w words
 * therefore costs at most w times the nodes of the trie, however many "#" the
 * patterns have, where a backtracking matcher would need exponential time.
 *
 * Takes no locks.  A match writes marks into the trie, so a trie belongs to
 * one thread of control; nothing is called out of a match.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "errors.h"
#include "topic.h"

#define NONE			(-1)
#define ROOT			0
#define NODES_INITIAL	16		/* a power of two */

typedef struct TopicNode
{
	int			parent;
	int			star;			/* child under "*" */
	int			rest;			/* child under "#" */
	int			first_target;	/* values whose pattern ends here */
	bool		is_rest;		/* reached by "#": stays through any word */
	uint8		word_length;
	const char *word;
	uint64		seen;			/* last step that entered it */
} TopicNode;

typedef struct Target
{
	int			value;			/* index of values */
	int			next;			/* further target of the node */
} Target;

struct FinTopicTrie
{
	MemoryContext context;
	TopicNode	   *nodes;
	int			nnodes;
	int			nodes_max;		/* a power of two; edges has twice as many */
	int		   *edges;			/* open addressing: index of a node, or NONE */
	Target	   *targets;
	int			ntargets;
	int			targets_max;
	int64	   *values;
	uint64	   *value_seen;		/* last match that found the value */
	int64	   *found;			/* result of the last match */
	int			nvalues;
	int			values_max;
	int		   *current;		/* sets of nodes while matching */
	int		   *following;
	uint64		step;			/* stamp of sets and matches; only grows */
};

/* a set of nodes being filled */
typedef struct NodeSet
{
	int		   *members;
	int			n;
} NodeSet;

/* ------------------------------------------------------------------------
 * checks
 * ------------------------------------------------------------------------
 */

static bool
is_word_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '_' || c == '-';
}

static void
raise_malformed(const char *what, const char *text, char *detail)
{
	bool		is_pattern = (what[0] == 'p');

	ereport(ERROR,
			errcode(ERRCODE_FIN_BAD_TOPIC),
			errmsg("malformed %s \"%s\"", what, text),
			errdetail_internal("%s", detail),
			is_pattern ?
			errhint("A pattern is words separated by dots; a word is letters, digits, \"_\" and \"-\", or \"*\" for exactly one word, or \"#\" for any number of words.") :
			errhint("A topic is words separated by dots; a word is letters, digits, \"_\" and \"-\"."));
}

static void
check_length(const char *what, const char *text)
{
	size_t		length = strlen(text);

	if (length == 0 || length > FIN_TOPIC_LENGTH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_FIN_BAD_TOPIC),
				errmsg("malformed %s: %zu bytes long", what, length),
				errdetail("A %s has 1 to %d bytes.",
						  what, FIN_TOPIC_LENGTH_MAX));
}

/* the length of the word at 'word' */
static int
word_length(const char *word)
{
	return strcspn(word, ".");
}

static bool
is_wildcard(const char *word, int length)
{
	return length == 1 && (word[0] == '*' || word[0] == '#');
}

static void
check_words(const char *what, const char *text, bool wildcards)
{
	const char *word = text;

	for (int number = 1;; number++)
	{
		int			length = word_length(word);

		if (length == 0)
			raise_malformed(what, text,
							psprintf(_("Word %d, at byte %d, is empty."),
									 number, (int) (word - text) + 1));
		if (!(wildcards && is_wildcard(word, length)))
		{
			for (int i = 0; i < length; i++)
			{
				if (!is_word_character(word[i]))
					raise_malformed(what, text,
									psprintf(_("Word %d has a character that is not allowed at byte %d."),
											 number,
											 (int) (word + i - text) + 1));
			}
		}
		if (word[length] == '\0')
			return;
		word += length + 1;
	}
}

void
fin_topic_check(const char *topic)
{
	check_length("topic", topic);
	check_words("topic", topic, false);
}

void
fin_topic_check_pattern(const char *pattern)
{
	check_length("pattern", pattern);
	check_words("pattern", pattern, true);
}

/* ------------------------------------------------------------------------
 * building
 * ------------------------------------------------------------------------
 */

static uint32
edge_hash(int parent, const char *word, int length)
{
	return hash_combine(murmurhash32((uint32) parent),
						hash_bytes((const unsigned char *) word, length));
}

/* the slot of edges that holds this child, or where it would go */
static int
edge_slot(const FinTopicTrie *trie, int parent, const char *word, int length)
{
	uint32		mask = 2 * trie->nodes_max - 1;
	uint32		slot = edge_hash(parent, word, length) & mask;

	while (trie->edges[slot] != NONE)
	{
		const TopicNode *node = &trie->nodes[trie->edges[slot]];

		if (node->parent == parent && node->word_length == length &&
			memcmp(node->word, word, length) == 0)
			break;
		slot = (slot + 1) & mask;
	}
	return slot;
}

static void
grow_nodes(FinTopicTrie *trie)
{
	trie->nodes_max *= 2;
	trie->nodes = repalloc_huge(trie->nodes,
								trie->nodes_max * sizeof(TopicNode));
	trie->current = repalloc_huge(trie->current,
								  trie->nodes_max * sizeof(int));
	trie->following = repalloc_huge(trie->following,
									trie->nodes_max * sizeof(int));
	trie->edges = repalloc_huge(trie->edges,
								2 * trie->nodes_max * sizeof(int));

	for (int i = 0; i < 2 * trie->nodes_max; i++)
		trie->edges[i] = NONE;
	for (int i = 0; i < trie->nnodes; i++)
	{
		const TopicNode *node = &trie->nodes[i];

		if (node->word != NULL)
			trie->edges[edge_slot(trie, node->parent, node->word,
								  node->word_length)] = i;
	}
}

static int
add_node(FinTopicTrie *trie, int parent)
{
	TopicNode	   *node;

	if (trie->nnodes == trie->nodes_max)
		grow_nodes(trie);
	node = &trie->nodes[trie->nnodes];
	memset(node, 0, sizeof(TopicNode));
	node->parent = parent;
	node->star = NONE;
	node->rest = NONE;
	node->first_target = NONE;
	return trie->nnodes++;
}

/* the child for one word of a pattern, made if missing */
static int
child_for(FinTopicTrie *trie, int parent, const char *word, int length)
{
	int			child;

	if (length == 1 && word[0] == '*')
	{
		if (trie->nodes[parent].star == NONE)
		{
			child = add_node(trie, parent);
			trie->nodes[parent].star = child;
		}
		return trie->nodes[parent].star;
	}
	if (length == 1 && word[0] == '#')
	{
		if (trie->nodes[parent].rest == NONE)
		{
			child = add_node(trie, parent);
			trie->nodes[child].is_rest = true;
			trie->nodes[parent].rest = child;
		}
		return trie->nodes[parent].rest;
	}

	child = trie->edges[edge_slot(trie, parent, word, length)];
	if (child == NONE)
	{
		child = add_node(trie, parent);
		trie->nodes[child].word = pnstrdup(word, length);
		trie->nodes[child].word_length = length;
		trie->edges[edge_slot(trie, parent, word, length)] = child;
	}
	return child;
}

/* the index of a value; new unless it is the one added last */
static int
value_index(FinTopicTrie *trie, int64 value)
{
	if (trie->nvalues > 0 && trie->values[trie->nvalues - 1] == value)
		return trie->nvalues - 1;
	if (trie->nvalues == trie->values_max)
	{
		trie->values_max *= 2;
		trie->values = repalloc(trie->values,
								trie->values_max * sizeof(int64));
		trie->found = repalloc(trie->found, trie->values_max * sizeof(int64));
		trie->value_seen = repalloc(trie->value_seen,
									trie->values_max * sizeof(uint64));
	}
	trie->values[trie->nvalues] = value;
	trie->value_seen[trie->nvalues] = 0;
	return trie->nvalues++;
}

void
fin_topic_trie_add(FinTopicTrie *trie, const char *pattern, int64 value)
{
	MemoryContext old = MemoryContextSwitchTo(trie->context);
	const char *word = pattern;
	int			node = ROOT;

	for (;;)
	{
		int			length = word_length(word);

		node = child_for(trie, node, word, length);
		if (word[length] == '\0')
			break;
		word += length + 1;
	}

	if (trie->ntargets == trie->targets_max)
	{
		trie->targets_max *= 2;
		trie->targets = repalloc(trie->targets,
								 trie->targets_max * sizeof(Target));
	}
	trie->targets[trie->ntargets].value = value_index(trie, value);
	trie->targets[trie->ntargets].next = trie->nodes[node].first_target;
	trie->nodes[node].first_target = trie->ntargets++;
	MemoryContextSwitchTo(old);
}

FinTopicTrie *
fin_topic_trie_create(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "finance topic trie",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	FinTopicTrie *trie = palloc0(sizeof(FinTopicTrie));

	trie->context = context;
	trie->nodes_max = NODES_INITIAL;
	trie->nodes = palloc(trie->nodes_max * sizeof(TopicNode));
	trie->current = palloc(trie->nodes_max * sizeof(int));
	trie->following = palloc(trie->nodes_max * sizeof(int));
	trie->edges = palloc(2 * trie->nodes_max * sizeof(int));
	for (int i = 0; i < 2 * trie->nodes_max; i++)
		trie->edges[i] = NONE;
	trie->targets_max = NODES_INITIAL;
	trie->targets = palloc(trie->targets_max * sizeof(Target));
	trie->values_max = NODES_INITIAL;
	trie->values = palloc(trie->values_max * sizeof(int64));
	trie->found = palloc(trie->values_max * sizeof(int64));
	trie->value_seen = palloc(trie->values_max * sizeof(uint64));
	(void) add_node(trie, NONE);
	MemoryContextSwitchTo(old);
	return trie;
}

void
fin_topic_trie_drop(FinTopicTrie *trie)
{
	MemoryContextDelete(trie->context);
}

/* ------------------------------------------------------------------------
 * matching
 * ------------------------------------------------------------------------
 */

/* enter a node, and what "#" reaches from it by standing for no word */
static void
enter(FinTopicTrie *trie, NodeSet *set, int node)
{
	while (node != NONE && trie->nodes[node].seen != trie->step)
	{
		trie->nodes[node].seen = trie->step;
		set->members[set->n++] = node;
		node = trie->nodes[node].rest;
	}
}

/* the nodes reached from 'from' by one word */
static NodeSet
advance(FinTopicTrie *trie, const NodeSet *from, int *members,
		const char *word, int length)
{
	NodeSet		to = {.members = members};

	trie->step++;
	for (int i = 0; i < from->n; i++)
	{
		int			node = from->members[i];

		if (trie->nodes[node].is_rest)
			enter(trie, &to, node);
		enter(trie, &to, trie->nodes[node].star);
		enter(trie, &to, trie->edges[edge_slot(trie, node, word, length)]);
	}
	return to;
}

static int
compare_indexes(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

/* the distinct values at the nodes of a set, into trie->found, in order */
static int
collect(FinTopicTrie *trie, const NodeSet *set)
{
	uint64		match = ++trie->step;
	int			n = 0;

	for (int i = 0; i < set->n; i++)
	{
		int			target = trie->nodes[set->members[i]].first_target;

		for (; target != NONE; target = trie->targets[target].next)
		{
			int			value = trie->targets[target].value;

			if (trie->value_seen[value] == match)
				continue;
			trie->value_seen[value] = match;
			trie->found[n++] = value;
		}
	}

	/* sorted as indexes, which ascend in the order of adding */
	if (n > 1)
		qsort(trie->found, n, sizeof(int64), compare_indexes);
	for (int i = 0; i < n; i++)
		trie->found[i] = trie->values[trie->found[i]];
	return n;
}

int
fin_topic_trie_match(FinTopicTrie *trie, const char *topic,
					 const int64 **values)
{
	NodeSet		set = {.members = trie->current};
	int		   *spare = trie->following;
	const char *word = topic;
	int			n;

	trie->step++;
	enter(trie, &set, ROOT);
	while (set.n > 0)
	{
		int			length = word_length(word);
		int		   *used = set.members;

		set = advance(trie, &set, spare, word, length);
		spare = used;
		if (word[length] == '\0')
			break;
		word += length + 1;
	}
	n = collect(trie, &set);
	*values = trie->found;
	return n;
}

PG_FUNCTION_INFO_V1(finance_topic_matches);

/*
 * finance.topic_matches(pattern text, topic text) returns boolean
 *
 * Does the topic match the pattern?  Rules of AMQP 0-9-1's topic exchange.
 * Errors: LG302 malformed pattern or topic.  Takes no locks.
 */
Datum
finance_topic_matches(PG_FUNCTION_ARGS)
{
	char	   *pattern = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
	FinTopicTrie *trie;
	const int64 *values;
	int			n;

	fin_topic_check_pattern(pattern);
	fin_topic_check(topic);
	trie = fin_topic_trie_create(CurrentMemoryContext);
	fin_topic_trie_add(trie, pattern, 0);
	n = fin_topic_trie_match(trie, topic, &values);
	fin_topic_trie_drop(trie);
	PG_RETURN_BOOL(n > 0);
}
