#include "postgres.h"

#include "worker.h"

void
fin_worker_init(void)
{
}

void
fin_worker_shmem_request(void)
{
}

void
fin_worker_shmem_startup(void)
{
}
