/*
 * fault.h
 *		An error as a value: what is wrong with one request of many.
 *
 * Built where the request is judged; a call about one request raises it, a
 * batch answers with it.  Allocated in the current context.
 */
#ifndef FIN_FAULT_H
#define FIN_FAULT_H

#include "postgres.h"

#include "compat.h"

typedef struct FinFault
{
	int			sqlstate;
	const char *message;
	const char *detail;			/* or NULL */
	const char *hint;			/* or NULL */
} FinFault;

extern FinFault *fin_fault(int sqlstate, const char *format,...)
			pg_attribute_printf(2, 3);

/* add to it, and return it */
extern FinFault *fin_fault_detail(FinFault *fault, const char *format,...)
			pg_attribute_printf(2, 3);
extern FinFault *fin_fault_hint(FinFault *fault, const char *hint);

/* a copy in the current context */
extern FinFault *fin_fault_copy(const FinFault *fault);

FIN_NORETURN extern void fin_fault_raise(const FinFault *fault);

#endif							/* FIN_FAULT_H */
