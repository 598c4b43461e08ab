/*
 * errors.h
 *		SQLSTATEs of finance.
 *
 * Class LG: LG0xx ledger, LG1xx risk, LG2xx audit, LG3xx queue, LG4xx books.
 * Where a standard code fits, the standard code is used: 22003 for amounts out
 * of range, 22023 for bad arguments, 42710 for duplicates, 42501 for missing
 * privileges.  Only class 40 and 55P03 mean "try again".
 */
#ifndef FIN_ERRORS_H
#define FIN_ERRORS_H

#include "utils/elog.h"

#define ERRCODE_FIN_INSUFFICIENT_FUNDS		MAKE_SQLSTATE('L','G','0','0','1')
#define ERRCODE_FIN_UNKNOWN_ACCOUNT			MAKE_SQLSTATE('L','G','0','0','2')
#define ERRCODE_FIN_CURRENCY_MISMATCH		MAKE_SQLSTATE('L','G','0','0','3')
#define ERRCODE_FIN_ACCOUNT_NOT_ACTIVE		MAKE_SQLSTATE('L','G','0','0','4')
#define ERRCODE_FIN_VERSION_CONFLICT		MAKE_SQLSTATE('L','G','0','0','5')
#define ERRCODE_FIN_BALANCE_LIMIT			MAKE_SQLSTATE('L','G','0','0','6')
#define ERRCODE_FIN_KEY_REUSED				MAKE_SQLSTATE('L','G','0','0','7')
#define ERRCODE_FIN_SAME_ACCOUNT			MAKE_SQLSTATE('L','G','0','0','8')
#define ERRCODE_FIN_UNKNOWN_CURRENCY		MAKE_SQLSTATE('L','G','0','0','9')
#define ERRCODE_FIN_UNKNOWN_TENANT			MAKE_SQLSTATE('L','G','0','1','0')
#define ERRCODE_FIN_IMMUTABLE				MAKE_SQLSTATE('L','G','0','1','1')
#define ERRCODE_FIN_UNKNOWN_TRANSFER		MAKE_SQLSTATE('L','G','0','1','2')
#define ERRCODE_FIN_HOLD_NOT_OPEN			MAKE_SQLSTATE('L','G','0','1','3')
#define ERRCODE_FIN_LINKED_FAILED			MAKE_SQLSTATE('L','G','0','1','4')
#define ERRCODE_FIN_CHAIN_OPEN				MAKE_SQLSTATE('L','G','0','1','5')
#define ERRCODE_FIN_EXCEEDS_REMAINDER		MAKE_SQLSTATE('L','G','0','1','6')
#define ERRCODE_FIN_TYPE_NOT_ALLOWED		MAKE_SQLSTATE('L','G','0','1','7')
#define ERRCODE_FIN_NOT_BALANCED			MAKE_SQLSTATE('L','G','0','1','8')
#define ERRCODE_FIN_OUT_OF_ORDER			MAKE_SQLSTATE('L','G','0','1','9')

#define ERRCODE_FIN_RISK_REJECTED			MAKE_SQLSTATE('L','G','1','0','1')
#define ERRCODE_FIN_UNKNOWN_RULE			MAKE_SQLSTATE('L','G','1','0','2')

#define ERRCODE_FIN_AUDIT_PROTECTED			MAKE_SQLSTATE('L','G','2','0','1')

#define ERRCODE_FIN_UNKNOWN_QUEUE			MAKE_SQLSTATE('L','G','3','0','1')
#define ERRCODE_FIN_BAD_TOPIC				MAKE_SQLSTATE('L','G','3','0','2')
#define ERRCODE_FIN_PAYLOAD_TOO_LARGE		MAKE_SQLSTATE('L','G','3','0','3')
#define ERRCODE_FIN_CHANNEL_IN_USE			MAKE_SQLSTATE('L','G','3','0','4')
#define ERRCODE_FIN_MESSAGE_NOT_HELD		MAKE_SQLSTATE('L','G','3','0','5')
#define ERRCODE_FIN_QUEUE_FULL				MAKE_SQLSTATE('L','G','3','0','6')
#define ERRCODE_FIN_HALF_NOT_OPEN			MAKE_SQLSTATE('L','G','3','0','7')
#define ERRCODE_FIN_UNKNOWN_GROUP			MAKE_SQLSTATE('L','G','3','0','8')
#define ERRCODE_FIN_QUEUE_KIND				MAKE_SQLSTATE('L','G','3','0','9')
#define ERRCODE_FIN_POSITION_BEHIND			MAKE_SQLSTATE('L','G','3','1','0')

#endif							/* FIN_ERRORS_H */
