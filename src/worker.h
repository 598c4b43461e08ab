/*
 * worker.h
 *		The launcher, and one worker per database that has the extension.
 */
#ifndef FIN_WORKER_H
#define FIN_WORKER_H

extern void fin_worker_init(void);
extern void fin_worker_shmem_request(void);
extern void fin_worker_shmem_startup(void);

#endif							/* FIN_WORKER_H */
