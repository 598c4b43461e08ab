/*
 * audit_row.h
 *		One row of finance.audit_record, and its leaf hash.
 *
 * Private to the audit module.
 *
 * LEAF ENCODING, VERSION 1
 *
 * leaf_hash = SHA-256(0x00 || leaf), as RFC 6962 has it, where leaf is
 *
 *		leaf_version		2 bytes, big-endian: 00 01
 *
 * followed by these columns as fields, in this order:
 *
 *		id					int8
 *		recorded_at			int8: microseconds since 2000-01-01 00:00 UTC
 *		xid					int8
 *		system_identifier	int8
 *		tenant_id			int4
 *		sequence			int4
 *		trace_id			the 16 bytes of the UUID
 *		message_id			int8
 *		transfer_id			int8
 *		account_id			int8
 *		counterparty_id		int8
 *		account_version		int8
 *		counterparty_version	int8
 *		payload_hash		32 bytes, see below
 *		client_addr			inet: family (1 byte: 2 IPv4, 3 IPv6), bits of the
 *							netmask (1), 0 (1), length of the address (1: 4 or
 *							16), the address
 *		actor				text
 *		session_user_name	text
 *		role_name			text
 *		application_name	text
 *		user_agent			text
 *		span_id				text
 *		request_id			text
 *		reason				text
 *		operation			text
 *		status				text
 *		object				text
 *		row_key				text
 *		currency			text
 *		amount				numeric
 *		balance_before		numeric
 *		balance_after		numeric
 *		counterparty_balance_before	numeric
 *		counterparty_balance_after	numeric
 *
 * A field is its length in bytes as 4 bytes, big-endian, then its bytes; null
 * is the length ff ff ff ff and no bytes.  So no two records have the same
 * encoding, and null is not the empty text.
 *
 *		int8, int4			8 or 4 bytes, big-endian, two's complement
 *		text				UTF-8, whatever the encoding of the database is
 *							(the bytes as stored where that is SQL_ASCII)
 *		numeric				its decimal text, in ASCII: "-12.50"; trailing
 *							zeros are as stored
 *
 * The payload, request and response, is hashed apart, so that it can be erased
 * later (with its salt) while the leaf stays provable:
 *
 *		payload_hash = SHA-256(0x02 || salt || field(request) || field(response))
 *
 * with the 16 random bytes of salt, and the texts as stored, in UTF-8.  A
 * record with neither request nor response has neither salt nor payload_hash;
 * a payload_hash without salt means: erased.
 *
 * The test pgtap/audit.sql builds this in SQL and compares.
 */
#ifndef FIN_AUDIT_ROW_H
#define FIN_AUDIT_ROW_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "merkle.h"

#define FIN_AUDIT_ENCODING_VERSION	1
#define FIN_AUDIT_SALT_LENGTH	16

/* the columns of finance.audit_record, in the order of the table */
typedef enum FinAuditColumn
{
	FIN_AUDIT_ID,
	FIN_AUDIT_RECORDED_AT,
	FIN_AUDIT_XID,
	FIN_AUDIT_SYSTEM_IDENTIFIER,
	FIN_AUDIT_TENANT_ID,
	FIN_AUDIT_SEQUENCE,
	FIN_AUDIT_TRACE_ID,
	FIN_AUDIT_MESSAGE_ID,
	FIN_AUDIT_TRANSFER_ID,
	FIN_AUDIT_ACCOUNT_ID,
	FIN_AUDIT_COUNTERPARTY_ID,
	FIN_AUDIT_ACCOUNT_VERSION,
	FIN_AUDIT_COUNTERPARTY_VERSION,
	FIN_AUDIT_LEAF_VERSION,
	FIN_AUDIT_LEAF_HASH,
	FIN_AUDIT_PAYLOAD_HASH,
	FIN_AUDIT_SALT,
	FIN_AUDIT_CLIENT_ADDR,
	FIN_AUDIT_ACTOR,
	FIN_AUDIT_SESSION_USER_NAME,
	FIN_AUDIT_ROLE_NAME,
	FIN_AUDIT_APPLICATION_NAME,
	FIN_AUDIT_USER_AGENT,
	FIN_AUDIT_SPAN_ID,
	FIN_AUDIT_REQUEST_ID,
	FIN_AUDIT_REASON,
	FIN_AUDIT_OPERATION,
	FIN_AUDIT_STATUS,
	FIN_AUDIT_OBJECT,
	FIN_AUDIT_ROW_KEY,
	FIN_AUDIT_CURRENCY,
	FIN_AUDIT_AMOUNT,
	FIN_AUDIT_BALANCE_BEFORE,
	FIN_AUDIT_BALANCE_AFTER,
	FIN_AUDIT_COUNTERPARTY_BALANCE_BEFORE,
	FIN_AUDIT_COUNTERPARTY_BALANCE_AFTER,
	FIN_AUDIT_REQUEST,
	FIN_AUDIT_RESPONSE,
	FIN_AUDIT_TRACE_UNTIL,		/* not of the record: finds it; not hashed */
	FIN_AUDIT_COLUMNS			/* how many */
} FinAuditColumn;

typedef struct FinAuditRow
{
	Datum		values[FIN_AUDIT_COLUMNS];
	bool		nulls[FIN_AUDIT_COLUMNS];
} FinAuditRow;

/* the type of each column */
extern const Oid fin_audit_types[FIN_AUDIT_COLUMNS];

/* lets the next UPDATE of this subtransaction through the guard */
extern void fin_audit_pass_erasure(void);

/* hashes of a row, by the encoding above; 'work' is scratch space */
extern void fin_audit_payload_hash(const FinAuditRow *row, StringInfo work,
								   FinHash *hash);
extern void fin_audit_leaf_hash(const FinAuditRow *row, StringInfo work,
								FinHash *hash);

#endif							/* FIN_AUDIT_ROW_H */
