#include "postgres.h"

#include "wake.h"

bool
fin_wake_available(void)
{
	return false;
}

void
fin_wake_note(int64 queue_id, int64 highest_id, int64 count)
{
}

int
fin_wake_collect(Oid database, FinBell *bells, int max, bool *overflow)
{
	*overflow = false;
	return 0;
}

void
fin_wake_init(void)
{
}

void
fin_wake_shmem_request(void)
{
}

void
fin_wake_shmem_startup(void)
{
}
