/*
 * rule_kind.h
 *		The kinds of risk rules: what each needs, and what it hits.  Pure.
 */
#ifndef FIN_RULE_KIND_H
#define FIN_RULE_KIND_H

typedef enum FinRuleKind
{
	FIN_RULE_TRANSFER_LIMIT,
	FIN_RULE_DAILY_LIMIT,
	FIN_RULE_TOTAL_LIMIT,
	FIN_RULE_COUNT_LIMIT,
	FIN_RULE_VELOCITY,
	FIN_RULE_NIGHT_WINDOW,
	FIN_RULE_BUSINESS_HOURS,
	FIN_RULE_BLOCKLIST,
	FIN_RULE_WATCHLIST,
	FIN_RULE_ALLOWLIST,
	FIN_RULE_NEW_COUNTERPARTY,
	FIN_RULE_NEW_DEVICE,
	FIN_RULE_DEVICE_CHANGE,
	FIN_RULE_BALANCE_DRAIN,
	FIN_RULE_DORMANT_ACCOUNT,
	FIN_RULE_STRUCTURING,
	FIN_RULE_LARGE_VALUE,
	FIN_RULE_ROUND_AMOUNT,
	FIN_RULE_GEOGRAPHY_JUMP,
	FIN_RULE_EXPRESSION,
	FIN_RULE_KINDS				/* how many */
} FinRuleKind;

/* arguments of add_rule() that only some kinds take */
typedef enum FinRuleField
{
	FIN_FIELD_THRESHOLD = 1 << 0,
	FIN_FIELD_MINIMUM = 1 << 1,
	FIN_FIELD_PER = 1 << 2,
	FIN_FIELD_PERIOD = 1 << 3,
	FIN_FIELD_SPAN = 1 << 4,
	FIN_FIELD_TIMES = 1 << 5,
	FIN_FIELD_WINDOW = 1 << 6,	/* window_start and window_end */
	FIN_FIELD_ZONE = 1 << 7,
	FIN_FIELD_WEEKDAYS = 1 << 8,
	FIN_FIELD_CALENDAR = 1 << 9,
	FIN_FIELD_LIST = 1 << 10,
	FIN_FIELD_SUBJECT = 1 << 11,
	FIN_FIELD_EXPRESSION = 1 << 12,
	FIN_FIELD_ON_ERROR = 1 << 13
} FinRuleField;

#define FIN_RULE_FIELDS 14

typedef struct FinRuleKindInfo
{
	const char *name;
	const char *outcome;		/* unless the rule says another */
	int			needs;			/* fields */
	int			takes;			/* besides */
	const char *hits;			/* in words */
} FinRuleKindInfo;

extern const FinRuleKindInfo fin_rule_kinds[FIN_RULE_KINDS];

/* names of the fields, in the order of their bits */
extern const char *const fin_rule_field_names[FIN_RULE_FIELDS];

/* FIN_RULE_KINDS when there is none of this name */
extern FinRuleKind fin_rule_kind_of(const char *name);

#endif							/* FIN_RULE_KIND_H */
