/*
 * audit_members.h
 *		A JSON object, as the audit log stores it, in pieces of its text.
 *
 * Private to the audit module.  A payload may hold what jsonb refuses, and what
 * the server's functions on json refuse to look past: a string with \u0000, a
 * number beyond numeric.  Here such a value is a piece of text like any other.
 */
#ifndef FIN_AUDIT_MEMBERS_H
#define FIN_AUDIT_MEMBERS_H

#include "utils/jsonb.h"

typedef struct FinAuditPiece
{
	const char *at;				/* not terminated */
	int			length;
} FinAuditPiece;

/* as they are written: the name with its quotes and escapes */
typedef struct FinAuditMember
{
	FinAuditPiece name;
	FinAuditPiece value;
} FinAuditMember;

typedef struct FinAuditMembers
{
	int			n;
	int			max;
	FinAuditMember *members;
} FinAuditMembers;

extern bool fin_audit_pieces_same(const FinAuditPiece *a,
								  const FinAuditPiece *b);

/* its members, in order; false: the text is no object */
extern bool fin_audit_members(const FinAuditPiece *object,
							  FinAuditMembers *members);

/* the value of this name, or NULL; 'near': where it is likely to be */
extern const FinAuditPiece *fin_audit_member(const FinAuditMembers *members,
											 const FinAuditPiece *name,
											 int near);

/*
 * As jsonb.  A value that jsonb has no room for is the string of its JSON text.
 */
extern Jsonb *fin_audit_members_jsonb(const FinAuditMembers *members);

#endif							/* FIN_AUDIT_MEMBERS_H */
