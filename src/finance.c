/*
 * finance.c
 *		Module entry: hands _PG_init to each module.
 *
 * Shared memory is requested only when the library is preloaded; loaded later,
 * by the first call of a function, everything but the worker still works.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "backlog.h"
#include "bucket.h"
#include "compat.h"
#include "audit.h"
#include "context.h"
#include "expansion.h"
#include "gate.h"
#include "ident.h"
#include "limit.h"
#include "list.h"
#include "meter.h"
#include "partition.h"
#include "queue.h"
#include "risk.h"
#include "settings.h"
#include "store_direct.h"
#include "tally.h"
#include "type.h"
#include "wait.h"
#include "wake.h"
#include "worker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	fin_bucket_shmem_request();
	fin_ident_shmem_request();
	fin_tally_shmem_request();
	fin_wait_shmem_request();
	fin_wake_shmem_request();
	fin_backlog_shmem_request();
	fin_worker_shmem_request();
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	fin_bucket_shmem_startup();
	fin_ident_shmem_startup();
	fin_tally_shmem_startup();
	fin_wait_shmem_startup();
	fin_wake_shmem_startup();
	fin_backlog_shmem_startup();
	fin_worker_shmem_startup();
}

void
_PG_init(void)
{
	fin_settings_init();
	fin_wait_init();
	fin_wake_init();
	fin_backlog_init();
	fin_context_init();
	fin_audit_init();
	fin_direct_init();
	fin_gate_init();
	fin_partition_init();
	fin_meter_init();
	fin_queue_init();
	fin_list_init();
	fin_limit_init();
	fin_risk_init();
	fin_type_init();
	fin_expansion_init();

	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	fin_worker_init();
}
