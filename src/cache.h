/*
 * cache.h
 *		Caches of small configuration tables, invalidated transactionally.
 *
 * A table with such a cache carries the trigger finance._config_changed(),
 * which sends a relation-cache invalidation with the commit of a change; every
 * backend then finds its cache invalid before its next query.
 *
 * Use:
 *		static FinCache rules = {.table = "risk_rule"};
 *		fin_cache_register(&rules);			-- once, from the module's init
 *		if (!fin_cache_valid(&rules))
 *		{
 *			fin_cache_loading(&rules);		-- before reading: a change that
 *			... read with a .read_latest query ...	-- comes in meanwhile marks
 *		}									-- it invalid again
 */
#ifndef FIN_CACHE_H
#define FIN_CACHE_H

#include "postgres_ext.h"

typedef struct FinCache
{
	const char *table;			/* in schema finance */
	Oid			relid;
	bool		valid;
	struct FinCache *next;
} FinCache;

extern void fin_cache_register(FinCache *cache);
extern bool fin_cache_valid(const FinCache *cache);

/*
 * Marks the cache valid from now on.  False: what was loaded earlier is out of
 * date, also if the news came in during this very call; forget it.
 */
extern bool fin_cache_loading(FinCache *cache);

#endif							/* FIN_CACHE_H */
