/*
 * worker.h
 *		One worker per database that has the extension; it runs the chores.
 */
#ifndef FIN_WORKER_H
#define FIN_WORKER_H

extern void fin_worker_init(void);	/* when preloaded */
extern void fin_worker_shmem_request(void);
extern void fin_worker_shmem_startup(void);

#endif							/* FIN_WORKER_H */
