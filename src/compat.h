/*
 * compat.h
 *		Every difference between PostgreSQL 15, 16, 17 and 18, in one place.
 */
#ifndef FIN_COMPAT_H
#define FIN_COMPAT_H

#include "pg_config.h"

/* 16 moved VARDATA and its like out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

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

/* does the role own the relation?  16 made it one function for all objects */
#if PG_VERSION_NUM >= 160000
#define fin_compat_owns_relation(relid, role) \
	object_ownercheck(RelationRelationId, relid, role)
#else
#define fin_compat_owns_relation(relid, role) \
	pg_class_ownercheck(relid, role)
#endif

/* may this user do what only the owner of the database may?; 16 renamed it */
#if PG_VERSION_NUM >= 160000
#define FIN_OWNS_DATABASE(database, user) \
	object_ownercheck(DatabaseRelationId, (database), (user))
#else
#define FIN_OWNS_DATABASE(database, user) \
	pg_database_ownercheck((database), (user))
#endif

/* 17 brought it */
#if PG_VERSION_NUM >= 170000
#define FIN_HAS_TRANSACTION_TIMEOUT
#endif

/* datconnlimit of a database whose DROP was cut off; minor releases added it */
#ifdef DATCONNLIMIT_INVALID_DB
#define FIN_DATCONNLIMIT_INVALID DATCONNLIMIT_INVALID_DB
#else
#define FIN_DATCONNLIMIT_INVALID (-2)
#endif

#endif							/* FIN_COMPAT_H */
