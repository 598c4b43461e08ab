/*
 * partition.h
 *		Monthly partitions of the tables ranged by time-ordered id.
 */
#ifndef FIN_PARTITION_H
#define FIN_PARTITION_H

#include "nodes/pg_list.h"
#include "postgres_ext.h"

typedef enum FinPartitioned
{
	FIN_PARTITIONED_TRANSFER,
	FIN_PARTITIONED_AUDIT_RECORD,
	FIN_PARTITIONED_MESSAGE_ARCHIVE,
	FIN_PARTITIONED_TABLES		/* how many */
} FinPartitioned;

/* see that the partition for this id exists, making it if not; its OID */
extern Oid	fin_partition_ensure(FinPartitioned table, int64 id);

/* name of the partitioned table, in schema finance */
extern const char *fin_partition_parent(FinPartitioned table);

/*
 * Worker's chore: the current and the next two months of each table.  False
 * when nothing was ever recorded, and nothing made.
 */
extern bool fin_partition_ahead(void);

/*
 * Name of the partition of a month, be it there or not, and the ids that it is
 * for: from 'from' until just before 'to'.
 */
extern char *fin_partition_month(FinPartitioned table, int year, int month,
								 int64 *from, int64 *to);

/* names (char *) of the partitions that have only ids below this one */
extern List *fin_partition_before(FinPartitioned table, int64 id);

extern void fin_partition_init(void);

#endif							/* FIN_PARTITION_H */
