/*
 * topic.h
 *		AMQP topics: checks, and a trie of patterns.  Pure: no SQL, no globals.
 *
 * A topic is words separated by dots.  In a pattern the word "*" stands for
 * exactly one word and "#" for any number of words, none included.
 */
#ifndef FIN_TOPIC_H
#define FIN_TOPIC_H

#include "utils/palloc.h"

#define FIN_TOPIC_LENGTH_MAX	255

typedef struct FinTopicTrie FinTopicTrie;

/* errors LG302 for what is malformed */
extern void fin_topic_check(const char *topic);
extern void fin_topic_check_pattern(const char *pattern);

/* lives in a memory context of its own below 'parent' and is gone with it */
extern FinTopicTrie *fin_topic_trie_create(MemoryContext parent);
extern void fin_topic_trie_drop(FinTopicTrie *trie);

/*
 * Adds a checked pattern.  Add all patterns of one value one after another:
 * a match reports each value once, whichever of its patterns match.
 */
extern void fin_topic_trie_add(FinTopicTrie *trie, const char *pattern,
							   int64 value);

/*
 * How many values have a pattern that matches the topic; *values points to
 * them until the next match or add, in the order in which they were added to
 * the trie.
 */
extern int	fin_topic_trie_match(FinTopicTrie *trie, const char *topic,
								 const int64 **values);

#endif							/* FIN_TOPIC_H */
