/*
 * seal_parts.h
 *		What the parts of the seal module share.  Private to it.
 */
#ifndef FIN_SEAL_PARTS_H
#define FIN_SEAL_PARTS_H

#include "postgres.h"

#include "access/transam.h"
#include "utils/snapshot.h"

#include "audit_block.h"
#include "audit_scan.h"
#include "audit_term.h"
#include "merkle.h"

/* the row of finance.audit_tree */
typedef struct FinSealTree
{
	bool		is_there;		/* false: nothing was ever sealed */
	FinFrontier frontier;
	int32		incarnation;
	uint64		horizon;		/* all of it with a lower xid are sealed */
	int64		block;			/* the last */
	FinHash		digest;			/* its */
} FinSealTree;

/* ---- seal_store.c: reading; within a query scope, the newest rows ---- */

extern void fin_seal_load_tree(FinSealTree *tree);

/* the last incarnation, or 0, and its cluster */
extern int32 fin_seal_last_incarnation(int64 *system_identifier);

/*
 * What was sealed of a cluster before its present incarnation, if it had one:
 * all below this transaction id.  0: nothing.  A book that was restored in
 * another cluster may come back.
 */
extern uint64 fin_seal_cluster_horizon(int64 system_identifier);

/* what the last block says; false when there is none */
extern bool fin_seal_last_block(FinAuditBlock *block);

/* the place after which the records of the tree's incarnation are unsealed */
extern FinAuditPosition fin_seal_position(const FinSealTree *tree);

/* the snapshot's xmin: what has a lower xid has ended, and is seen if committed */
extern FullTransactionId fin_seal_horizon(Snapshot snapshot);

/* ---- seal_store.c: writing; who seals holds the lock to the commit ---- */

/* one sealer at a time; false: another has the lock, and 'wait' is false */
extern bool fin_seal_lock(bool wait);

typedef struct FinSealWriter FinSealWriter;

extern FinSealWriter *fin_seal_begin_write(void);
extern void fin_seal_write_block(FinSealWriter *writer,
								 const FinAuditBlock *block,
								 StringInfo leaves);
extern void fin_seal_write_node(FinSealWriter *writer, int level, uint64 index,
								const FinHash *hash);

extern void fin_seal_end_write(FinSealWriter *writer);

/* lets the next UPDATE or DELETE of this subtransaction through the guard */
extern void fin_seal_issue_pass(void);

extern void fin_seal_save_tree(const FinSealTree *tree);
extern void fin_seal_add_incarnation(int32 incarnation, int64 first_block);

/* ---- seal_term.c ---- */

typedef struct FinSealTerms FinSealTerms;

extern FinSealTerms *fin_seal_begin_terms(void);

/* n terms of a leaf, which is counted from the first of the block */
extern void fin_seal_keep_terms(FinSealTerms *terms, uint32 leaf,
								const uint64 *of, int n);

/* write those kept, as the run of a block; then none are */
extern void fin_seal_write_terms(FinSealTerms *terms, int64 first_leaf,
								 int64 end_leaf);
extern void fin_seal_end_terms(FinSealTerms *terms);

/* where there are many runs, make one of some */
extern void fin_seal_merge_terms(void);

#endif							/* FIN_SEAL_PARTS_H */
