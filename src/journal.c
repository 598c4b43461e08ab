/*
 * journal.c
 *		finance.journal(): any number of debits and credits as one.
 *
 * Owns nothing between calls; memory is the call's.  Legs become transfers,
 * currency by currency in order of first appearance: the first debit that has
 * something left pays the first credit that lacks something, and so on, in the
 * order given.  So the same legs always become the same transfers, fewer than
 * there are legs.
 *
 * Locks: all accounts in ascending order of id, before anything is looked at.
 */
#include "postgres.h"

#include "utils/array.h"
#include "utils/builtins.h"

#include "argument.h"
#include "context.h"
#include "errors.h"
#include "joint.h"
#include "json.h"

#define FIN_LEGS_MIN	2
#define FIN_LEGS_MAX	1000

/* columns of finance.journal_leg */
enum
{
	LEG_ACCOUNT,
	LEG_SIDE,
	LEG_AMOUNT,
	LEG_VERSION,
	LEG_COLUMNS
};

typedef struct Leg
{
	const char *code;
	bool		debit;
	Numeric		number;			/* the amount as given */
	int64		version;		/* expected, or FIN_NO_VERSION */
	FinAccount *account;		/* locked */
	FinAmount	left;			/* of the amount, not yet in a transfer */
} Leg;

/* what is known of an account that legs name; kept by its position */
typedef struct Party
{
	FinAccount *account;
	bool		debited;
	bool		credited;
	bool		touched;		/* by a transfer */
	int64		version;		/* expected, or FIN_NO_VERSION */
} Party;

typedef struct Legs
{
	Leg		   *legs;
	int			nlegs;
	Party	   *parties;		/* ascending by account */
	int			nparties;
} Legs;

/* ------------------------------------------------------------------------
 * legs as given
 * ------------------------------------------------------------------------ */

static void
refuse_count(int n)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			n < FIN_LEGS_MIN ? errmsg("a journal has too few legs") :
			errmsg("a journal has too many legs"),
			errdetail("There are %d; it takes %d to %d.", n, FIN_LEGS_MIN,
					  FIN_LEGS_MAX));
}

static bool
is_debit(const char *side, int position)
{
	if (strcmp(side, "debit") == 0)
		return true;
	if (strcmp(side, "credit") != 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("side \"%s\" of leg %d is not known", side, position),
				errhint("It is debit or credit."));
	return false;
}

static void
parse_leg(const Datum *values, const bool *nulls, int position, Leg *leg)
{
	memset(leg, 0, sizeof(Leg));
	leg->code = fin_joint_code(values[LEG_ACCOUNT], nulls[LEG_ACCOUNT],
							   psprintf("account of leg %d", position));
	leg->debit = is_debit(fin_joint_code(values[LEG_SIDE], nulls[LEG_SIDE],
										 psprintf("side of leg %d", position)),
						  position);
	if (nulls[LEG_AMOUNT])
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("amount of leg %d must not be null", position));
	leg->number = DatumGetNumeric(values[LEG_AMOUNT]);
	leg->version = nulls[LEG_VERSION] ? FIN_NO_VERSION :
		DatumGetInt64(values[LEG_VERSION]);
	if (!nulls[LEG_VERSION] && leg->version < 0)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("expected_version of leg %d must not be negative",
					   position),
				errdetail("It is " INT64_FORMAT ".", leg->version));
}

static void
parse_legs(ArrayType *array, Legs *legs)
{
	Datum	   *elements;
	bool	   *absent;
	TupleDesc	tupdesc = NULL;

	legs->nlegs = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	if (legs->nlegs < FIN_LEGS_MIN || legs->nlegs > FIN_LEGS_MAX)
		refuse_count(legs->nlegs);
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE,
					  &elements, &absent, &legs->nlegs);
	legs->legs = palloc(sizeof(Leg) * legs->nlegs);
	for (int i = 0; i < legs->nlegs; i++)
	{
		Datum		values[LEG_COLUMNS];
		bool		nulls[LEG_COLUMNS];

		memset(nulls, true, sizeof(nulls));
		if (!absent[i])
			fin_order_open_row(elements[i], LEG_COLUMNS, &tupdesc, values,
							   nulls);
		parse_leg(values, nulls, i + 1, &legs->legs[i]);
	}
	ReleaseTupleDesc(tupdesc);
}

/* ------------------------------------------------------------------------
 * checks
 * ------------------------------------------------------------------------ */

static int
compare_parties(const void *a, const void *b)
{
	int64		left = ((const Party *) a)->account->account_id;
	int64		right = ((const Party *) b)->account->account_id;

	return left < right ? -1 : left > right;
}

static Party *
find_party(const Legs *legs, FinAccount *account)
{
	Party		wanted = {.account = account};

	return bsearch(&wanted, legs->parties, legs->nparties, sizeof(Party),
				   compare_parties);
}

/* each account once, ascending by id */
static void
list_parties(Legs *legs)
{
	int			n = 0;

	legs->parties = palloc0(sizeof(Party) * legs->nlegs);
	for (int i = 0; i < legs->nlegs; i++)
	{
		legs->parties[i].account = legs->legs[i].account;
		legs->parties[i].version = FIN_NO_VERSION;
	}
	qsort(legs->parties, legs->nlegs, sizeof(Party), compare_parties);
	for (int i = 0; i < legs->nlegs; i++)
	{
		if (n == 0 || legs->parties[n - 1].account != legs->parties[i].account)
			legs->parties[n++] = legs->parties[i];
	}
	legs->nparties = n;
}

static void
note_leg(const Leg *leg, Party *party)
{
	if (leg->debit)
		party->debited = true;
	else
		party->credited = true;
	if (party->debited && party->credited)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("account \"%s\" stands on both sides of the journal",
					   leg->code),
				errhint("Give one leg with the difference."));
	if (leg->version == FIN_NO_VERSION)
		return;
	if (party->version != FIN_NO_VERSION && party->version != leg->version)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("legs expect different versions of account \"%s\"",
					   leg->code),
				errdetail("They expect " INT64_FORMAT " and " INT64_FORMAT ".",
						  party->version, leg->version));
	party->version = leg->version;
}

static void
read_amounts(Legs *legs)
{
	for (int i = 0; i < legs->nlegs; i++)
	{
		Leg		   *leg = &legs->legs[i];

		leg->left = fin_amount_from_caller(leg->number, leg->account->scale,
										   leg->account->currency,
										   psprintf("amount of leg %d", i + 1));
	}
}

/* the leg of the same currency that stands first */
static bool
is_first_of_currency(const Legs *legs, int i)
{
	for (int j = 0; j < i; j++)
	{
		if (strcmp(legs->legs[j].account->currency,
				   legs->legs[i].account->currency) == 0)
			return false;
	}
	return true;
}

static FinAmount
sum_of_side(const Legs *legs, const char *currency, bool debit)
{
	FinAmount	sum = 0;

	for (int i = 0; i < legs->nlegs; i++)
	{
		const Leg  *leg = &legs->legs[i];

		if (leg->debit != debit ||
			strcmp(leg->account->currency, currency) != 0)
			continue;
		if (!fin_amount_add(sum, leg->left, &sum))
			ereport(ERROR,
					errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					errmsg("the sum of the journal's legs in %s is out of range",
						   currency),
					errdetail("It has at most %d digits.",
							  FIN_AMOUNT_MAX_DIGITS));
	}
	return sum;
}

static void
check_balanced(const Legs *legs, const FinAccount *account)
{
	FinAmount	debits = sum_of_side(legs, account->currency, true);
	FinAmount	credits = sum_of_side(legs, account->currency, false);

	if (debits != credits)
		ereport(ERROR,
				errcode(ERRCODE_FIN_NOT_BALANCED),
				errmsg("journal is not balanced"),
				errdetail("In %s, debits are %s and credits %s.",
						  account->currency,
						  fin_amount_text(debits, account->scale),
						  fin_amount_text(credits, account->scale)));
}

/* ------------------------------------------------------------------------
 * transfers
 * ------------------------------------------------------------------------ */

/* the next leg of the side and currency, from i on, of which something is left */
static int
next_leg(const Legs *legs, int i, const char *currency, bool debit)
{
	while (i < legs->nlegs && (legs->legs[i].debit != debit ||
							   legs->legs[i].left == 0 ||
							   strcmp(legs->legs[i].account->currency,
									  currency) != 0))
		i++;
	return i;
}

/* the version an account is expected to have, where it is first touched */
static int64
expect_version(const Legs *legs, const Leg *leg)
{
	Party	   *party = find_party(legs, leg->account);

	if (party->touched)
		return FIN_NO_VERSION;
	party->touched = true;
	return party->version;
}

static void
add_transfer(FinJoint *joint, const Legs *legs, Leg *debit, Leg *credit)
{
	FinAmount	amount = Min(debit->left, credit->left);
	FinOrder   *order = fin_joint_add(joint, debit->account->account_id,
									  credit->account->account_id,
									  fin_amount_encode(amount,
														debit->account->scale));

	order->expected_from_version = expect_version(legs, debit);
	order->expected_to_version = expect_version(legs, credit);
	debit->left -= amount;
	credit->left -= amount;
}

/* balanced: so both sides run out together */
static void
decompose(FinJoint *joint, const Legs *legs, const char *currency)
{
	int			debit = next_leg(legs, 0, currency, true);
	int			credit = next_leg(legs, 0, currency, false);

	while (debit < legs->nlegs && credit < legs->nlegs)
	{
		add_transfer(joint, legs, &legs->legs[debit], &legs->legs[credit]);
		debit = next_leg(legs, debit, currency, true);
		credit = next_leg(legs, credit, currency, false);
	}
}

static void
legs_json(StringInfo json, const Legs *legs)
{
	StringInfoData array;

	initStringInfo(&array);
	for (int i = 0; i < legs->nlegs; i++)
	{
		const Leg  *leg = &legs->legs[i];
		StringInfoData one;

		initStringInfo(&one);
		fin_json_text(&one, "account", leg->code);
		fin_json_text(&one, "side", leg->debit ? "debit" : "credit");
		fin_json_text(&one, "amount", fin_order_number_text(leg->number));
		if (leg->version != FIN_NO_VERSION)
			fin_json_int64(&one, "expected_version", leg->version);
		appendStringInfo(&array, "%c%s", i == 0 ? '[' : ',',
						 fin_json_end(&one));
		pfree(one.data);
	}
	appendStringInfoChar(&array, ']');
	fin_json_object(json, "legs", array.data);
}

static void
lock_parties(Legs *legs)
{
	const char **codes = palloc(sizeof(char *) * legs->nlegs);
	FinAccount **accounts;

	for (int i = 0; i < legs->nlegs; i++)
		codes[i] = legs->legs[i].code;
	accounts = fin_joint_lock(codes, legs->nlegs);
	for (int i = 0; i < legs->nlegs; i++)
		legs->legs[i].account = accounts[i];
}

static Datum
journal_call(PG_FUNCTION_ARGS)
{
	FinJoint	joint;
	Legs		legs = {0};
	StringInfoData json;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("legs must not be null"));
	parse_legs(PG_GETARG_ARRAYTYPE_P(0), &legs);
	fin_joint_begin(&joint, fcinfo, 1, true, "journal");
	lock_parties(&legs);
	list_parties(&legs);
	for (int i = 0; i < legs.nlegs; i++)
		note_leg(&legs.legs[i], find_party(&legs, legs.legs[i].account));
	read_amounts(&legs);
	for (int i = 0; i < legs.nlegs; i++)
	{
		if (is_first_of_currency(&legs, i))
			check_balanced(&legs, legs.legs[i].account);
	}
	for (int i = 0; i < legs.nlegs; i++)
	{
		if (is_first_of_currency(&legs, i))
			decompose(&joint, &legs, legs.legs[i].account->currency);
	}
	initStringInfo(&json);
	fin_json_text(&json, "action", "journal");
	legs_json(&json, &legs);
	fin_joint_end(&joint, &json);
	fin_order_execute_set(fcinfo, joint.orders, joint.norders);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(finance_journal);

/*
 * finance.journal(legs finance.journal_leg[], idempotency_key text, type text,
 *				   effective_at timestamptz, reference text, metadata jsonb,
 *				   strict boolean) returns setof finance.transfer_result
 *
 * Moves money between any number of accounts and currencies at once.  legs: 2
 * to FIN_LEGS_MAX, each an account, its side (debit takes from the account,
 * credit gives to it), an amount above zero, and the version the account is
 * expected to have before the journal.  In each currency debits and credits
 * are equal.  An account may have several legs, all on one side.  Other
 * arguments as transfer(); each transfer carries them.
 *
 * Result: the transfers, in order, with one journal_id; where risk rejects one
 * of them, only that one, and nothing moved.  Errors: 22004, 22023 bad legs,
 * 22003 bad amounts, LG018 not balanced, and those of fin_posting_execute().
 * Locks: fin_posting_execute().
 */
Datum
finance_journal(PG_FUNCTION_ARGS)
{
	return fin_context_call(fcinfo, 7, journal_call);
}
