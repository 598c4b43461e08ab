/*
 * dedup.c
 *		Dedup ids of messages.
 *
 * Owns nothing: the ids lie in finance._dedup, see seen.c.  Those of a queue
 * that is purged or dropped stay until they are out of their window.
 *
 * Locks: see seen.c; ids of one call are taken in ascending order.
 */
#include "postgres.h"

#include "dedup.h"
#include "seen.h"
#include "utils/timestamp.h"

StaticAssertDecl(FIN_DEDUP_WINDOW_MAX_S == FIN_SEEN_DEDUP_MAX_S,
				 "the longest window is what the tables are made for");

void
fin_dedup_check_id(const char *dedup_id)
{
	size_t		length = strlen(dedup_id);

	if (length == 0 || length > FIN_DEDUP_ID_LENGTH_MAX)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("dedup_id is %zu bytes long", length),
				errdetail("It has 1 to %d bytes.", FIN_DEDUP_ID_LENGTH_MAX));
}

static FinSeen *
begin(int32 tenant_id, int64 queue_id, int window_s)
{
	if (window_s < 1 || window_s > FIN_DEDUP_WINDOW_MAX_S)
		elog(ERROR, "dedup window of %d s", window_s);
	return fin_seen_begin(FIN_SEEN_DEDUP, tenant_id, Int64GetDatum(queue_id),
						  window_s * USECS_PER_SEC);
}

bool
fin_dedup_take(int32 tenant_id, int64 queue_id, const char *dedup_id,
			   int window_s, int64 msg_id, int64 *earlier_msg_id)
{
	FinSeen    *seen;
	bool		taken;

	fin_dedup_check_id(dedup_id);
	seen = begin(tenant_id, queue_id, window_s);
	taken = fin_seen_take(seen, dedup_id, msg_id, earlier_msg_id);
	fin_seen_end(seen);
	return taken;
}

static int
compare_ids(const void *a, const void *b)
{
	const FinDedup *left = *(const FinDedup *const *) a;
	const FinDedup *right = *(const FinDedup *const *) b;
	int			order = strcmp(left->dedup_id, right->dedup_id);

	/* of the same id the first in the array, where both lie */
	return order != 0 ? order : left < right ? -1 : left > right;
}

void
fin_dedup_take_many(int32 tenant_id, int64 queue_id, int window_s,
					FinDedup *ids, int n)
{
	FinDedup  **sorted = palloc(sizeof(FinDedup *) * n);
	int			nsorted = 0;
	FinSeen    *seen;

	for (int i = 0; i < n; i++)
	{
		ids[i].taken = true;
		if (ids[i].dedup_id == NULL)
			continue;
		fin_dedup_check_id(ids[i].dedup_id);
		sorted[nsorted++] = &ids[i];
	}
	if (nsorted > 0)
	{
		qsort(sorted, nsorted, sizeof(FinDedup *), compare_ids);
		seen = begin(tenant_id, queue_id, window_s);
		for (int i = 0; i < nsorted; i++)
			sorted[i]->taken = fin_seen_take(seen, sorted[i]->dedup_id,
											 sorted[i]->msg_id,
											 &sorted[i]->earlier_msg_id);
		fin_seen_end(seen);
	}
	pfree(sorted);
}
