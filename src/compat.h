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

/* a function that does not return; 18 has it in front of the declaration */
#if PG_VERSION_NUM >= 180000
#define FIN_NORETURN pg_noreturn
#else
#define FIN_NORETURN __attribute__((noreturn))
#endif

/* bytes for pg_b64_encode() and pg_b64_decode(), which 18 wants unsigned */
#if PG_VERSION_NUM >= 180000
#define FIN_BASE64_BYTES(bytes) (bytes)
#define FIN_BASE64_ROOM(bytes) (bytes)
#else
#define FIN_BASE64_BYTES(bytes) ((const char *) (bytes))
#define FIN_BASE64_ROOM(bytes) ((char *) (bytes))
#endif

/* what a check hook of a setting hands on; 16 frees it by guc_free() */
#if PG_VERSION_NUM >= 160000
#define FIN_GUC_MALLOC(size) guc_malloc(LOG, (size))
#else
#define FIN_GUC_MALLOC(size) malloc(size)
#endif

/* datconnlimit of a database whose DROP was cut off; minor releases added it */
#ifdef DATCONNLIMIT_INVALID_DB
#define FIN_DATCONNLIMIT_INVALID DATCONNLIMIT_INVALID_DB
#else
#define FIN_DATCONNLIMIT_INVALID (-2)
#endif

/*
 * New index entries of the row in a slot.  16 added only_summarizing, for a HOT
 * update that changed a column of a BRIN index: the others get none then.
 */
#if PG_VERSION_NUM >= 160000
#define fin_compat_insert_index_tuples(info, slot, estate, only_summarizing) \
	((void) ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, \
								  only_summarizing))
#else
#define fin_compat_insert_index_tuples(info, slot, estate, only_summarizing) \
	((void) (only_summarizing), \
	 (void) ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL))
#endif

/* the same for a speculative insert; *conflict is set when a key is taken */
#if PG_VERSION_NUM >= 160000
#define fin_compat_insert_index_tuples_if_free(info, slot, estate, conflict) \
	((void) ExecInsertIndexTuples(info, slot, estate, false, true, conflict, \
								  NIL, false))
#else
#define fin_compat_insert_index_tuples_if_free(info, slot, estate, conflict) \
	((void) ExecInsertIndexTuples(info, slot, estate, false, true, conflict, \
								  NIL))
#endif

/* 18 added the row not to conflict with */
#if PG_VERSION_NUM >= 180000
#define fin_compat_check_index_constraints(info, slot, estate, conflict) \
	ExecCheckIndexConstraints(info, slot, estate, conflict, \
							  &(ItemPointerData) {{0, 0}, InvalidOffsetNumber}, NIL)
#else
#define fin_compat_check_index_constraints(info, slot, estate, conflict) \
	ExecCheckIndexConstraints(info, slot, estate, conflict, NIL)
#endif

/* replace the row at tid; true when index entries are needed, that is not HOT */
#if PG_VERSION_NUM >= 160000
#define fin_compat_update_tuple(table, tid, slot, only_summarizing) \
	__extension__ ({ \
		TU_UpdateIndexes needed_; \
		simple_table_tuple_update(table, tid, slot, InvalidSnapshot, &needed_); \
		*(only_summarizing) = needed_ == TU_Summarizing; \
		needed_ != TU_None; \
	})
#else
#define fin_compat_update_tuple(table, tid, slot, only_summarizing) \
	__extension__ ({ \
		bool		needed_; \
		simple_table_tuple_update(table, tid, slot, InvalidSnapshot, &needed_); \
		*(only_summarizing) = false; \
		needed_; \
	})
#endif

/*
 * Replace the row at tid as the snapshot saw it, unless somebody else has it,
 * which is not waited for; a TM_Result.  *entries: index entries are needed.
 */
#if PG_VERSION_NUM >= 160000
#define fin_compat_try_update_tuple(table, tid, slot, snapshot, entries) \
	__extension__ ({ \
		TM_FailureData failure_; \
		LockTupleMode mode_; \
		TU_UpdateIndexes needed_; \
		TM_Result	result_; \
		result_ = table_tuple_update(table, tid, slot, \
									 GetCurrentCommandId(true), snapshot, \
									 InvalidSnapshot, false, &failure_, \
									 &mode_, &needed_); \
		*(entries) = result_ == TM_Ok && needed_ != TU_None; \
		result_; \
	})
#else
#define fin_compat_try_update_tuple(table, tid, slot, snapshot, entries) \
	__extension__ ({ \
		TM_FailureData failure_; \
		LockTupleMode mode_; \
		table_tuple_update(table, tid, slot, GetCurrentCommandId(true), \
						   snapshot, InvalidSnapshot, false, &failure_, \
						   &mode_, entries); \
	})
#endif

/*
 * A search path of pg_catalog alone, undone also by an abort.
 *
 * 15 and 16 can override the path at next to no cost, but a function's own SET
 * search_path has no effect below an override: suspend it where functions of
 * others may run.  17 removed that and made changing the setting cheap; before,
 * it costs 8 us.
 */
#if PG_VERSION_NUM >= 170000
#define FIN_COMPAT_PIN_SEARCH_PATH(nest) \
	((nest) = NewGUCNestLevel(), RestrictSearchPath())
#define FIN_COMPAT_UNPIN_SEARCH_PATH(nest)	AtEOXact_GUC(true, (nest))
#define FIN_COMPAT_SUSPEND_SEARCH_PATH()	((void) 0)
#define FIN_COMPAT_RESUME_SEARCH_PATH()		((void) 0)
#else
#define FIN_COMPAT_RESUME_SEARCH_PATH() \
	PushOverrideSearchPath(&(OverrideSearchPath) {.addCatalog = true})
#define FIN_COMPAT_SUSPEND_SEARCH_PATH()	PopOverrideSearchPath()
#define FIN_COMPAT_PIN_SEARCH_PATH(nest) \
	((nest) = 0, FIN_COMPAT_RESUME_SEARCH_PATH())
#define FIN_COMPAT_UNPIN_SEARCH_PATH(nest)	FIN_COMPAT_SUSPEND_SEARCH_PATH()
#endif

/* 18 added an argument for EXPLAIN ANALYZE */
#if PG_VERSION_NUM >= 180000
#define fin_compat_index_beginscan(table, index, snapshot, keys) \
	index_beginscan(table, index, snapshot, NULL, keys, 0)
#else
#define fin_compat_index_beginscan(table, index, snapshot, keys) \
	index_beginscan(table, index, snapshot, keys, 0)
#endif

/* the process that runs, or ran, a transaction; 17 numbers processes anew */
#if PG_VERSION_NUM >= 170000
#define fin_compat_vxid_proc(vxid)	ProcNumberGetProc((vxid).procNumber)
#define FIN_PROC_LXID(proc)			((proc)->vxid.lxid)
#else
#define fin_compat_vxid_proc(vxid)	BackendIdGetProc((vxid).backendId)
#define FIN_PROC_LXID(proc)			((proc)->lxid)
#endif

/* 17 can also ask for stronger locks */
#if PG_VERSION_NUM >= 170000
#define fin_compat_holds_lock(tag, mode)	LockHeldByMe(tag, mode, true)
#else
#define fin_compat_holds_lock(tag, mode)	LockHeldByMe(tag, mode)
#endif

/* 18 has columns that are computed when they are read */
#if PG_VERSION_NUM >= 180000
#define FIN_IS_VIRTUAL_COLUMN(column) \
	((column)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define FIN_IS_VIRTUAL_COLUMN(column)	false
#endif

#endif							/* FIN_COMPAT_H */
