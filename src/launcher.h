/*
 * launcher.h
 *		The process that keeps one worker per database.
 */
#ifndef FIN_LAUNCHER_H
#define FIN_LAUNCHER_H

#include "postgres_ext.h"

/* what a worker is told at its start, in bgw_extra; bgw_main_arg: the index */
typedef struct FinWorkerOrder
{
	Oid			database;
	unsigned int generation;
} FinWorkerOrder;

/* registers the launcher with the postmaster */
extern void fin_launcher_init(void);

#endif							/* FIN_LAUNCHER_H */
