/*
 * compat.h
 *		Every difference between PostgreSQL 15, 16, 17 and 18, in one place.
 */
#ifndef FIN_COMPAT_H
#define FIN_COMPAT_H

#include "pg_config.h"

#if PG_VERSION_NUM < 150000
#error "finance needs PostgreSQL 15 or later"
#endif

#ifndef PG_INT128_TYPE
#error "finance needs a 64-bit platform with 128-bit integers"
#endif

/* this backend's local transaction id; 17 moved it */
#if PG_VERSION_NUM >= 170000
#define FIN_MY_LXID (MyProc->vxid.lxid)
#else
#define FIN_MY_LXID (MyProc->lxid)
#endif

#endif							/* FIN_COMPAT_H */
