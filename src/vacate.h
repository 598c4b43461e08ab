/*
 * vacate.h
 *		Workers step aside for statements that need a database to themselves.
 */
#ifndef FIN_VACATE_H
#define FIN_VACATE_H

extern void fin_vacate_init(void);	/* sets the hooks; when preloaded */

#endif							/* FIN_VACATE_H */
