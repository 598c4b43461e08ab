/*
 * expansion.h
 *		Refuses SELECT (finance.transfer(...)).*, which would pay once a column.
 */
#ifndef FIN_EXPANSION_H
#define FIN_EXPANSION_H

extern void fin_expansion_init(void);

#endif							/* FIN_EXPANSION_H */
