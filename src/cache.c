/*
 * cache.c
 *		Transactional invalidation of configuration caches.
 *
 * Owns a list of the caches of this backend and one relation-cache callback,
 * registered once.  A rollback, also to a savepoint, makes the server send the
 * invalidation to this backend itself, so a cache filled with uncommitted rows
 * does not survive them.  Takes no locks.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "cache.h"
#include "query.h"
#include "wake.h"

static FinCache *caches = NULL;

static void
relation_changed(Datum arg, Oid relid)
{
	for (FinCache *cache = caches; cache != NULL; cache = cache->next)
	{
		if (relid == InvalidOid || relid == cache->relid)
			cache->valid = false;
	}
}

void
fin_cache_register(FinCache *cache)
{
	if (caches == NULL)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	cache->valid = false;
	cache->next = caches;
	caches = cache;
}

bool
fin_cache_valid(const FinCache *cache)
{
	return cache->valid;
}

bool
fin_cache_loading(FinCache *cache)
{
	Oid			relid = fin_query_relation(cache->table);
	bool		was_valid = cache->valid && cache->relid == relid;

	cache->relid = relid;
	cache->valid = true;
	return was_valid;
}

/* statement trigger on configuration tables */
PG_FUNCTION_INFO_V1(finance_config_changed);

Datum
finance_config_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("_config_changed() can only be called as a trigger"));
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	if (strcmp(RelationGetRelationName(trigger->tg_relation),
			   "subscription") == 0)
		fin_wake_note_subscriptions();
	return PointerGetDatum(NULL);
}
