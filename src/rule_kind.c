/*
 * rule_kind.c
 *		The kinds of risk rules: what each needs, and what it hits.  Pure.
 *
 * Owns the table of kinds; add_rule() checks by it, rule_kinds() tells it, and
 * risk_evaluate.c does what it says.
 */
#include "postgres.h"

#include "rule_kind.h"

#define THRESHOLD	FIN_FIELD_THRESHOLD
#define MINIMUM		FIN_FIELD_MINIMUM
#define PERIOD		FIN_FIELD_PERIOD
#define SPAN		FIN_FIELD_SPAN
#define TIMES		FIN_FIELD_TIMES
#define WINDOW		FIN_FIELD_WINDOW
#define TIME_OF		(FIN_FIELD_ZONE | FIN_FIELD_WEEKDAYS | FIN_FIELD_CALENDAR)
#define LIST_OF		(FIN_FIELD_LIST | FIN_FIELD_SUBJECT)

const FinRuleKindInfo fin_rule_kinds[FIN_RULE_KINDS] = {
	[FIN_RULE_TRANSFER_LIMIT] =
	{"transfer_limit", "reject", 0, THRESHOLD | MINIMUM,
	"an amount above threshold, or below minimum"},
	[FIN_RULE_DAILY_LIMIT] =
	{"daily_limit", "reject", THRESHOLD, 0,
	"an amount that brings what the payer pays on the tenant's day above threshold"},
	[FIN_RULE_TOTAL_LIMIT] =
	{"total_limit", "reject", THRESHOLD, FIN_FIELD_PER | PERIOD | SPAN,
	"an amount that brings the total per account (or per) in the period, or the sliding span, above threshold"},
	[FIN_RULE_COUNT_LIMIT] =
	{"count_limit", "reject", THRESHOLD, FIN_FIELD_PER | PERIOD | SPAN,
	"a transfer that brings their number per account (or per) in the period, or the sliding span, above threshold"},
	[FIN_RULE_VELOCITY] =
	{"velocity", "review", THRESHOLD, FIN_FIELD_PER | PERIOD | SPAN,
	"the same as count_limit, with review as its outcome"},
	[FIN_RULE_NIGHT_WINDOW] =
	{"night_window", "reject", WINDOW, THRESHOLD | TIME_OF,
	"an amount (above threshold) from window_start until just before window_end, on weekdays (1 is Monday; all of them, if not stated) and, besides, on holidays of calendar"},
	[FIN_RULE_BUSINESS_HOURS] =
	{"business_hours", "review", WINDOW, THRESHOLD | TIME_OF,
	"an amount (above threshold) outside of window_start to window_end, on another day than weekdays (Monday to Friday), or on a holiday of calendar"},
	[FIN_RULE_BLOCKLIST] =
	{"blocklist", "reject", 0, LIST_OF,
	"subject (account: payer or payee; payer, payee, country, device) on the list (blocklist)"},
	[FIN_RULE_WATCHLIST] =
	{"watchlist", "report", 0, LIST_OF,
	"subject (account: payer or payee; payer, payee, country, device) on the list (watchlist)"},
	[FIN_RULE_ALLOWLIST] =
	{"allowlist", "reject", 0, LIST_OF,
	"subject (payee; payer, account: both, country, device) not on the list (allowlist)"},
	[FIN_RULE_NEW_COUNTERPARTY] =
	{"new_counterparty", "challenge", 0, THRESHOLD,
	"the first transfer of the payer to the payee, if above threshold"},
	[FIN_RULE_NEW_DEVICE] =
	{"new_device", "challenge", 0, THRESHOLD,
	"the first transfer of the payer from the device (metadata), if above threshold"},
	[FIN_RULE_DEVICE_CHANGE] =
	{"device_change", "challenge", 0, THRESHOLD,
	"another device (metadata) than that of the payer's last transfer, if above threshold"},
	[FIN_RULE_BALANCE_DRAIN] =
	{"balance_drain", "review", THRESHOLD, MINIMUM,
	"an amount (of at least minimum) that is at least the share threshold, above 0 to 1, of what the payer has available"},
	[FIN_RULE_DORMANT_ACCOUNT] =
	{"dormant_account", "review", SPAN, THRESHOLD,
	"an amount (above threshold) of a payer that has paid and held nothing for span; what he got, and what is parked, does not count"},
	[FIN_RULE_STRUCTURING] =
	{"structuring", "review", THRESHOLD | MINIMUM | TIMES, FIN_FIELD_PER | PERIOD | SPAN,
	"the transfer with which amounts from minimum to below threshold come to times in the period or span"},
	[FIN_RULE_LARGE_VALUE] =
	{"large_value", "report", 0, THRESHOLD,
	"an amount of at least threshold (50,000)"},
	[FIN_RULE_ROUND_AMOUNT] =
	{"round_amount", "report", THRESHOLD, MINIMUM,
	"a multiple of threshold (of at least minimum), also where threshold is finer than the currency"},
	[FIN_RULE_GEOGRAPHY_JUMP] =
	{"geography_jump", "review", SPAN, THRESHOLD,
	"another country (metadata) than that of the payer's last transfer, less than span ago, if above threshold"},
	[FIN_RULE_EXPRESSION] =
	{"expression", "review", FIN_FIELD_EXPRESSION, FIN_FIELD_ON_ERROR,
	"a transfer for which the expression over risk_facts() is true; on_error (review) is its outcome when it is null or fails"},
};

const char *const fin_rule_field_names[FIN_RULE_FIELDS] = {
	"threshold", "minimum", "per", "period", "span", "times",
	"window_start and window_end", "time_zone", "weekdays", "calendar", "list",
	"subject", "expression", "on_error"
};

FinRuleKind
fin_rule_kind_of(const char *name)
{
	int			kind = 0;

	while (kind < FIN_RULE_KINDS &&
		   strcmp(fin_rule_kinds[kind].name, name) != 0)
		kind++;
	return (FinRuleKind) kind;
}
