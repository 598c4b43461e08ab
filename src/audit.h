/*
 * audit.h
 *		The audit log: append records with their leaf hash; the row trigger.
 */
#ifndef FIN_AUDIT_H
#define FIN_AUDIT_H

#include "postgres.h"

#include "fmgr.h"

#include "settings.h"

/* one record; what is NULL or 0 is stored as null */
typedef struct FinAuditRecord
{
	const char *operation;		/* 'transfer', 'create_account', 'INSERT' ... */
	const char *status;			/* 'completed', 'rejected' ... */
	int64		message_id;		/* 0: none */
	int64		transfer_id;	/* 0: none */
	int64		account_id;		/* 0: none; the side debited */
	int64		counterparty_id;	/* 0: none; the side credited */
	int64		account_version;	/* after the change; 0: it did not change */
	int64		counterparty_version;
	const char *currency;
	Datum		amount;			/* numeric; 0: none */
	Datum		balance_before; /* numerics, of account; 0: none */
	Datum		balance_after;
	Datum		counterparty_before;
	Datum		counterparty_after;
	const char *object;			/* 'schema.table' for row changes */
	const char *row_key;		/* primary key of the row, as JSON text */
	const char *request;		/* JSON text, stored and hashed to the byte */
	const char *response;
	text	   *change;			/* of a row change: the request, as it is stored */
} FinAuditRecord;

/*
 * Appends n records in one write: draws ids, takes the context that the last
 * fin_context() filled in, the top-level xid and the sequence in it, and
 * computes the leaf hashes.  Call inside fin_query_begin/end, after
 * fin_context() was called outside.
 *
 * All of a call is in memory at once: bound n and the texts (the row trigger
 * writes FIN_AUDIT_BATCH_ROWS records or FIN_AUDIT_BATCH_BYTES at a time).
 */
extern void fin_audit_append(const FinAuditRecord *records, int n);

/*
 * Called first by functions that finance.audit_reads may name: records the call
 * and its arguments when it does.  Outside of fin_query_begin/end.  Errors:
 * 25006 in a read-only transaction or on a standby; those of fin_context().
 */
extern void fin_audit_read(FunctionCallInfo fcinfo, FinAuditRead which);

extern void fin_audit_init(void);

#define FIN_AUDIT_BATCH_ROWS	512
#define FIN_AUDIT_BATCH_BYTES	(1024 * 1024)

#endif							/* FIN_AUDIT_H */
