/*
 * engine_test.c
 *		The rules of money against a model of them, a million times.
 *
 * Includes the engine itself, which needs nothing of the server but its
 * headers.  The model keeps, for each account, what came in, what went out,
 * what is held and what it spent on a day, in sign and 192 bits, where nothing
 * can overflow, and decides by comparing sums where the engine subtracts.
 *
 * Usage: engine_test SEED MOVEMENTS.  Prints how often each finding came, and
 * exits with 1 at the first difference.
 */
#include "postgres.h"

#include "../src/engine.c"

/* the server has its own, which is not linked here */
#undef printf

#define ACCOUNTS	12
#define HOLDS		40
#define WORLD_STEPS	500
#define ACTIONS		(FIN_EXPIRE + 1)
#define FINDINGS	(FIN_BALANCE_LIMIT + 1)

static const char *const finding_names[FINDINGS] = {
	"ok", "same_account", "currency_differs", "currency_not_stated",
	"hold_not_open", "hold_time_over", "exceeds_hold", "from_not_active",
	"to_not_active", "from_version_differs", "to_version_differs",
	"total_overflow", "insufficient_funds", "balance_limit"
};

static const char *const action_names[ACTIONS] = {
	"transfer", "hold", "capture", "release", "expire"
};

/* ------------------------------------------------------------------------
 * numbers that cannot overflow here: high * 2^64 + low
 * ------------------------------------------------------------------------ */

typedef struct Wide
{
	__int128	high;
	uint64		low;
} Wide;

static Wide
wide(__int128 value)
{
	Wide		result = {value >> 64, (uint64) value};

	return result;
}

static Wide
plus(Wide a, Wide b)
{
	Wide		result = {a.high + b.high, a.low + b.low};

	if (result.low < a.low)
		result.high++;
	return result;
}

static Wide
minus(Wide a, Wide b)
{
	Wide		result = {a.high - b.high, a.low - b.low};

	if (a.low < b.low)
		result.high--;
	return result;
}

static bool
is_less(Wide a, Wide b)
{
	return a.high < b.high || (a.high == b.high && a.low < b.low);
}

static bool
is_same(Wide a, Wide b)
{
	return a.high == b.high && a.low == b.low;
}

/* ------------------------------------------------------------------------
 * the model
 * ------------------------------------------------------------------------ */

typedef struct Model
{
	Wide		out;			/* posted debits */
	Wide		in;				/* posted credits */
	Wide		held;			/* pending debits */
	Wide		expected;		/* pending credits */
	Wide		spent;			/* on day */
	int			day;
	int64		changes;
	bool		may_pay;		/* by its status */
	bool		may_receive;
	bool		is_closed;
	char		currency;
	bool		has_floor;
	bool		has_ceiling;
	__int128	floor;
	__int128	ceiling;
} Model;

typedef struct HoldModel
{
	bool		is_used;
	int			from;
	int			to;
	Wide		amount;
	Wide		captured;
	Wide		given_back;
	int			day;			/* it was held on */
	int64		ends;			/* step; -1: never */
	char		status;			/* o, c, r, e: first letters of its names */
} HoldModel;

static int64 step;
static uint64 seed;

/* what is asked of the engine, as the model sees it */
typedef struct Asked
{
	FinAction	action;
	int			from;
	int			to;
	HoldModel  *hold;
	Wide		amount;
	bool		everything;
	bool		up_to;
	bool		final;
	int			closing;		/* account, or -1 */
	const char *currency;
	int64		from_version;
	int64		to_version;
	int			day;
	Wide		settled;		/* out: the amount that is to move, */
	Wide		given_back;		/* and what a final capture leaves */
} Asked;

static FinAccount accounts[ACCOUNTS];
static Model models[ACCOUNTS];
static FinHold holds[HOLDS];
static HoldModel hold_models[HOLDS];
static uint64 state;

static uint64
random_bits(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * UINT64CONST(0x2545F4914F6CDD1D);
}

static int
random_below(int n)
{
	return (int) ((random_bits() >> 16) % n);
}

static bool
one_in(int n)
{
	return random_below(n) == 0;
}

static __int128
limit_of_numbers(void)
{
	__int128	limit = 1;

	for (int i = 0; i < 38; i++)
		limit *= 10;
	return limit;				/* 10^38, which no number reaches */
}

/* above zero; often at a power of ten or at the very edge */
static __int128
random_amount(void)
{
	__int128	limit = limit_of_numbers();
	__int128	amount = 1;

	switch (random_below(40))
	{
		case 0:
			return limit - 1 - random_below(3);
		case 1:
			return 1 + random_below(3);
		case 2:
			return limit / 2 + random_below(3) - 1;
		default:
			break;
	}
	for (int digits = random_below(38); digits > 0; digits--)
		amount = amount * 10 + random_below(10);
	amount += random_below(3) - 1;
	if (amount <= 0)
		amount = 1;
	return amount < limit ? amount : limit - 1;
}

static bool
is_number(Wide value)
{
	return is_less(value, wide(limit_of_numbers())) &&
		is_less(minus(wide(0), value), wide(limit_of_numbers()));
}

static Wide
least(Wide a, Wide b)
{
	return is_less(a, b) ? a : b;
}

static Wide
spent_on(const Model *model, int day)
{
	return model->day >= day ? model->spent : wide(0);
}

/* ------------------------------------------------------------------------
 * the model: what is right
 * ------------------------------------------------------------------------ */

/* what may go out of it before the floor is met, or all numbers there are */
static Wide
can_go_out(const Model *payer)
{
	Wide		room = wide(limit_of_numbers() - 1);

	if (payer->has_floor)
		room = minus(payer->in, plus(plus(payer->out, payer->held),
									 wide(payer->floor)));
	return room;
}

static Wide
can_come_in(const Model *payee)
{
	Wide		room = wide(limit_of_numbers() - 1);

	if (payee->has_ceiling)
		room = minus(plus(payee->out, wide(payee->ceiling)),
					 plus(payee->in, payee->expected));
	return room;
}

static bool
is_within_limits(const Model *model)
{
	return !is_less(can_go_out(model), wide(0)) &&
		!is_less(can_come_in(model), wide(0));
}

static Wide
remaining(const HoldModel *hold)
{
	return minus(hold->amount, plus(hold->captured, hold->given_back));
}

static bool
is_of_hold_asked(const Asked *asked)
{
	return asked->action == FIN_CAPTURE || asked->action == FIN_RELEASE ||
		asked->action == FIN_EXPIRE;
}

static FinFinding
expected_of_hold(Asked *asked)
{
	const HoldModel *hold = asked->hold;

	if (hold->status != 'o')
		return FIN_HOLD_NOT_OPEN;
	if (asked->action == FIN_CAPTURE && hold->ends >= 0 && hold->ends <= step)
		return FIN_HOLD_TIME_OVER;
	asked->settled = asked->everything ? remaining(hold) : asked->amount;
	if (is_less(hold->amount, plus(plus(hold->captured, hold->given_back),
								   asked->settled)))
		return FIN_EXCEEDS_HOLD;
	if (asked->action == FIN_CAPTURE && asked->final)
		asked->given_back = minus(remaining(hold), asked->settled);
	return FIN_OK;
}

static FinFinding
expected_of_funds(Asked *asked)
{
	const Model *payer = &models[asked->from];
	const Model *payee = &models[asked->to];
	Wide		moved = asked->amount;
	Wide		gone;

	if (asked->everything)
		moved = payer->has_floor ? can_go_out(payer) :
			minus(payer->in, plus(payer->out, payer->held));
	if (asked->everything || asked->up_to)
	{
		moved = least(moved, can_go_out(payer));
		if (!is_less(wide(0), moved))
			return FIN_INSUFFICIENT_FUNDS;
		moved = least(moved, can_come_in(payee));
		if (!is_less(wide(0), moved))
			return FIN_BALANCE_LIMIT;
		moved = least(moved, wide(limit_of_numbers() - 1));
	}
	asked->settled = moved;
	gone = plus(plus(payer->out, payer->held), moved);
	if (!is_number(gone) || !is_number(minus(gone, payer->in)) ||
		!is_number(plus(plus(payee->in, payee->expected), moved)) ||
		!is_number(plus(spent_on(payer, asked->day), moved)))
		return FIN_TOTAL_OVERFLOW;
	if (is_less(can_go_out(payer), moved))
		return FIN_INSUFFICIENT_FUNDS;
	if (is_less(can_come_in(payee), moved))
		return FIN_BALANCE_LIMIT;
	return FIN_OK;
}

/* may it, or is it being emptied? */
static bool
side_may(const Asked *asked, int i, bool may)
{
	return may || (asked->closing == i && !models[i].is_closed);
}

static FinFinding
expected_finding(Asked *asked)
{
	const Model *payer = &models[asked->from];
	const Model *payee = &models[asked->to];
	bool		gives_back = asked->action == FIN_RELEASE ||
		asked->action == FIN_EXPIRE;
	FinFinding	finding;

	asked->given_back = wide(0);
	asked->settled = asked->amount;
	if (asked->from == asked->to)
		return FIN_SAME_ACCOUNT;
	if (payer->currency != payee->currency)
		return FIN_CURRENCY_DIFFERS;
	if (asked->currency != NULL && asked->currency[0] != payer->currency)
		return FIN_CURRENCY_NOT_STATED;
	if (is_of_hold_asked(asked))
	{
		finding = expected_of_hold(asked);
		if (finding != FIN_OK)
			return finding;
	}
	if (!gives_back && !side_may(asked, asked->from, payer->may_pay))
		return FIN_FROM_NOT_ACTIVE;
	if (!gives_back && !side_may(asked, asked->to, payee->may_receive))
		return FIN_TO_NOT_ACTIVE;
	if (asked->from_version >= 0 && asked->from_version != payer->changes)
		return FIN_FROM_VERSION_DIFFERS;
	if (asked->to_version >= 0 && asked->to_version != payee->changes)
		return FIN_TO_VERSION_DIFFERS;
	return is_of_hold_asked(asked) ? FIN_OK : expected_of_funds(asked);
}

static void
spend(Model *payer, int day, Wide amount)
{
	payer->spent = plus(spent_on(payer, day), amount);
	if (payer->day < day)
		payer->day = day;
}

/* out of the hold, and out of what is pending */
static void
take_from_hold(const Asked *asked, Wide captured, Wide given_back)
{
	HoldModel  *hold = asked->hold;
	Model	   *payer = &models[asked->from];
	Model	   *payee = &models[asked->to];

	hold->captured = plus(hold->captured, captured);
	hold->given_back = plus(hold->given_back, given_back);
	payer->held = minus(payer->held, plus(captured, given_back));
	payee->expected = minus(payee->expected, plus(captured, given_back));
	/* not spent after all, if that day still lasts */
	if (payer->day == hold->day)
		payer->spent = minus(payer->spent, given_back);
	if (!is_same(remaining(hold), wide(0)))
		return;
	if (asked->action == FIN_EXPIRE)
		hold->status = 'e';
	else
		hold->status = is_same(hold->captured, wide(0)) ? 'r' : 'c';
}

static void
record(const Asked *asked)
{
	Model	   *payer = &models[asked->from];
	Model	   *payee = &models[asked->to];

	if (asked->action == FIN_CAPTURE)
		take_from_hold(asked, asked->settled, asked->given_back);
	else if (is_of_hold_asked(asked))
		take_from_hold(asked, wide(0), asked->settled);
	else
		spend(payer, asked->day, asked->settled);
	if (asked->action == FIN_TRANSFER || asked->action == FIN_CAPTURE)
	{
		payer->out = plus(payer->out, asked->settled);
		payee->in = plus(payee->in, asked->settled);
	}
	if (asked->action == FIN_HOLD)
	{
		payer->held = plus(payer->held, asked->settled);
		payee->expected = plus(payee->expected, asked->settled);
	}
	payer->changes++;
	payee->changes++;
}

/* ------------------------------------------------------------------------
 * comparing
 * ------------------------------------------------------------------------ */

static void
differs(const char *what)
{
	printf("step " INT64_FORMAT " of seed " UINT64_FORMAT ": %s differs\n",
		   step, seed, what);
	exit(1);
}

static void
compare_number(__int128 number, Wide expected, const char *what)
{
	if (!is_same(wide(number), expected))
		differs(what);
}

static void
compare_account(const FinAccount *account, const Model *model, int day)
{
	compare_number(account->debits_posted, model->out, "debits_posted");
	compare_number(account->credits_posted, model->in, "credits_posted");
	compare_number(account->debits_pending, model->held, "debits_pending");
	compare_number(account->credits_pending, model->expected,
				   "credits_pending");
	compare_number(fin_engine_spent(account, day), spent_on(model, day),
				   "spent");
	if (account->version != model->changes)
		differs("version");
	compare_number(fin_engine_balance(account), minus(model->in, model->out),
				   "balance");
	compare_number(fin_engine_available(account),
				   minus(minus(model->in, model->out), model->held),
				   "available");
	if (!is_within_limits(model))
		differs("the model, outside its limits,");
	if (!fin_engine_within_limits(account))
		differs("being within limits");
}

static void
compare_side(const FinSide *side, const Model *before, const Model *after)
{
	if (side->version != after->changes)
		differs("version after");
	compare_number(side->balance_before, minus(before->in, before->out),
				   "balance before");
	compare_number(side->balance_after, minus(after->in, after->out),
				   "balance after");
	compare_number(side->held_after, after->held, "held after");
}

static void
compare_hold(const FinHold *hold, const HoldModel *model)
{
	FinHoldStatus status = model->status == 'o' ? FIN_HOLD_OPEN :
		model->status == 'c' ? FIN_HOLD_CAPTURED :
		model->status == 'r' ? FIN_HOLD_RELEASED : FIN_HOLD_EXPIRED;

	compare_number(hold->amount, model->amount, "amount of the hold");
	compare_number(hold->captured, model->captured, "captured");
	compare_number(hold->released, model->given_back, "released");
	compare_number(fin_engine_remaining(hold), remaining(model), "remaining");
	if (hold->status != status)
		differs("status of the hold");
}

/* in each currency what went out came in, and what is held is in holds */
static void
check_conservation(void)
{
	for (char currency = 'A'; currency <= 'B'; currency++)
	{
		Wide		sums[5] = {{0}};

		for (int i = 0; i < ACCOUNTS; i++)
		{
			if (accounts[i].currency[0] != currency)
				continue;
			sums[0] = plus(sums[0], wide(accounts[i].debits_posted));
			sums[1] = plus(sums[1], wide(accounts[i].credits_posted));
			sums[2] = plus(sums[2], wide(accounts[i].debits_pending));
			sums[3] = plus(sums[3], wide(accounts[i].credits_pending));
		}
		for (int i = 0; i < HOLDS; i++)
		{
			if (hold_models[i].is_used &&
				accounts[hold_models[i].from].currency[0] == currency)
				sums[4] = plus(sums[4], wide(fin_engine_remaining(&holds[i])));
		}
		if (!is_same(sums[0], sums[1]))
			differs("the sum of debits and of credits");
		if (!is_same(sums[2], sums[3]) || !is_same(sums[2], sums[4]))
			differs("the sum of what is pending and of the holds");
	}
}

/* ------------------------------------------------------------------------
 * worlds and movements
 * ------------------------------------------------------------------------ */

static void
put_limits(FinAccount *account, Model *model)
{
	__int128	edge = limit_of_numbers() - 1;

	model->has_floor = one_in(2);
	model->floor = one_in(3) ? 0 : -(one_in(2) ? edge : random_amount());
	if (one_in(10))
		model->floor = random_amount();
	model->has_ceiling = one_in(3);
	model->ceiling = one_in(2) ? edge : random_amount();
	account->has_min_available = model->has_floor;
	account->min_available = model->floor;
	account->has_max_balance = model->has_ceiling;
	account->max_balance = model->ceiling;
}

/* other limits, if the account as it stands keeps to them */
static void
change_limits(int i)
{
	FinAccount	account = accounts[i];
	Model		model = models[i];

	put_limits(&account, &model);
	if (fin_engine_within_limits(&account) != is_within_limits(&model))
		differs("whether other limits will do");
	if (!is_within_limits(&model))
		return;
	accounts[i] = account;
	models[i] = model;
	accounts[i].version++;
	models[i].changes++;
}

static void
change_status(int i)
{
	static const FinAccountStatus statuses[] = {
		FIN_ACCOUNT_DEBITS_FROZEN, FIN_ACCOUNT_CREDITS_FROZEN,
		FIN_ACCOUNT_FROZEN, FIN_ACCOUNT_CLOSED
	};
	FinAccountStatus status = one_in(8) ?
		statuses[random_below(lengthof(statuses))] : FIN_ACCOUNT_ACTIVE;

	models[i].may_pay = status == FIN_ACCOUNT_ACTIVE ||
		status == FIN_ACCOUNT_CREDITS_FROZEN;
	models[i].may_receive = status == FIN_ACCOUNT_ACTIVE ||
		status == FIN_ACCOUNT_DEBITS_FROZEN;
	models[i].is_closed = status == FIN_ACCOUNT_CLOSED;
	accounts[i].status = status;
	models[i].changes++;
	accounts[i].version++;
}

/* new accounts, with nothing on them, and no holds */
static void
new_world(void)
{
	memset(holds, 0, sizeof(holds));
	memset(hold_models, 0, sizeof(hold_models));
	for (int i = 0; i < ACCOUNTS; i++)
	{
		FinAccount *account = &accounts[i];
		Model	   *model = &models[i];

		memset(account, 0, sizeof(*account));
		memset(model, 0, sizeof(*model));
		model->currency = one_in(10) ? 'B' : 'A';
		model->may_pay = model->may_receive = true;
		account->currency[0] = model->currency;
		account->account_id = i + 1;
		account->spent_on = model->day = -1;
		do
			put_limits(account, model);
		while (!is_within_limits(model));
	}
}

static int64
random_version(int i)
{
	switch (random_below(16))
	{
		case 0:
			return models[i].changes;
		case 1:
			return models[i].changes + random_below(3);	/* perhaps */
		default:
			return FIN_NO_VERSION;
	}
}

static __int128
narrow(Wide value)
{
	return (value.high << 64) | value.low;
}

/* what would just go through, or just not, is the most interesting */
static __int128
random_near(const Asked *asked)
{
	Wide		near = wide(random_amount());

	if (asked->hold != NULL && !one_in(4))
		near = one_in(3) ? remaining(asked->hold) :
			wide(narrow(remaining(asked->hold)) / (1 + random_below(5)));
	else if (one_in(4))
		near = one_in(2) ? can_go_out(&models[asked->from]) :
			can_come_in(&models[asked->to]);
	else if (one_in(16))
		near = minus(wide(limit_of_numbers()), models[asked->to].in);
	near = plus(near, wide(random_below(3) - 1));
	if (!is_less(wide(0), near))
		return 1 + random_below(100);
	return is_number(near) ? narrow(near) : limit_of_numbers() - 1;
}

/* of two accounts, or of a hold where there is one to ask about */
static void
choose_action(Asked *asked)
{
	int			slot = random_below(HOLDS);

	asked->action = one_in(4) ? FIN_HOLD : FIN_TRANSFER;
	asked->from = random_below(ACCOUNTS);
	asked->to = random_below(ACCOUNTS);
	asked->everything = one_in(20);
	asked->up_to = asked->everything || one_in(10);
	if (!hold_models[slot].is_used || one_in(3))
		return;
	/* a few of those that ended are asked about again */
	if (hold_models[slot].status != 'o' && !one_in(6))
		return;
	asked->hold = &hold_models[slot];
	asked->from = asked->hold->from;
	asked->to = asked->hold->to;
	asked->up_to = false;
	asked->everything = one_in(5);
	asked->action = one_in(3) ? FIN_RELEASE : FIN_CAPTURE;
	if (asked->hold->ends >= 0 && asked->hold->ends <= step && one_in(2))
		asked->action = FIN_EXPIRE;
	asked->final = asked->action == FIN_CAPTURE && one_in(4);
}

static void
choose(Asked *asked)
{
	static const char *const stated[] = {NULL, NULL, NULL, NULL, "A", "A", "A", "B"};

	memset(asked, 0, sizeof(*asked));
	choose_action(asked);
	asked->amount = wide(random_near(asked));
	asked->currency = stated[random_below(lengthof(stated))];
	asked->from_version = random_version(asked->from);
	asked->to_version = random_version(asked->to);
	asked->day = (int) (step / 100) + random_below(2);
	asked->closing = -1;
	if (one_in(8))
		asked->closing = one_in(2) ? asked->from : asked->to;
}

/* as posting does after a hold: a place for it, of one that ended or of none */
static void
keep_hold(const Asked *asked)
{
	int			slot = random_below(HOLDS);
	FinHold    *hold = &holds[slot];
	HoldModel  *model = &hold_models[slot];

	while (model->is_used && model->status == 'o')
	{
		slot = (slot + 1) % HOLDS;
		hold = &holds[slot];
		model = &hold_models[slot];
	}
	memset(hold, 0, sizeof(*hold));
	memset(model, 0, sizeof(*model));
	model->is_used = true;
	model->from = asked->from;
	model->to = asked->to;
	model->amount = asked->settled;
	model->day = asked->day;
	model->ends = one_in(2) ? -1 : step + 1 + random_below(WORLD_STEPS / 4);
	model->status = 'o';
	hold->amount = narrow(asked->settled);
	hold->held_on = asked->day;
	hold->expires = model->ends >= 0;
	hold->expires_at = model->ends;
}

static bool
has_room_for_hold(void)
{
	for (int i = 0; i < HOLDS; i++)
	{
		if (!hold_models[i].is_used || hold_models[i].status != 'o')
			return true;
	}
	return false;
}

static void
fill_movement(const Asked *asked, FinMovement *movement)
{
	memset(movement, 0, sizeof(*movement));
	movement->action = asked->action;
	movement->from = &accounts[asked->from];
	movement->to = &accounts[asked->to];
	if (asked->hold != NULL)
		movement->hold = &holds[asked->hold - hold_models];
	if (!asked->everything)
		movement->amount = narrow(asked->amount);
	movement->everything = asked->everything;
	movement->up_to = asked->up_to;
	movement->final = asked->final;
	if (asked->closing >= 0)
		movement->closing = &accounts[asked->closing];
	movement->currency = asked->currency;
	movement->expected_from_version = asked->from_version;
	movement->expected_to_version = asked->to_version;
	movement->business_date = asked->day;
	movement->now = step;
	movement->released = 12345; /* of no meaning before */
}

static void
do_or_leave(const Asked *asked, FinMovement *movement, bool may_pass)
{
	Model		payer = models[asked->from];
	Model		payee = models[asked->to];
	FinMoved	moved;

	if (may_pass && !one_in(10) &&
		(asked->action != FIN_HOLD || has_room_for_hold()))
	{
		compare_number(movement->amount, asked->settled, "the amount to move");
		compare_number(movement->released, asked->given_back,
					   "the amount given back");
		fin_engine_post(movement, &moved);
		record(asked);
		if (asked->action == FIN_HOLD)
			keep_hold(asked);
	}
	else
		fin_engine_leave(movement, &moved);
	compare_side(&moved.from, &payer, &models[asked->from]);
	compare_side(&moved.to, &payee, &models[asked->to]);
}

static void
one_movement(int64 *findings, int64 *done)
{
	Asked		asked;
	FinMovement movement;
	FinFinding	expected;

	choose(&asked);
	expected = expected_finding(&asked);
	fill_movement(&asked, &movement);
	if (fin_engine_check(&movement) != expected)
		differs(finding_names[expected]);
	do_or_leave(&asked, &movement, expected == FIN_OK);
	for (int i = 0; i < ACCOUNTS; i++)
		compare_account(&accounts[i], &models[i], asked.day);
	if (asked.hold != NULL)
		compare_hold(movement.hold, asked.hold);
	check_conservation();
	findings[expected]++;
	if (expected == FIN_OK)
		done[asked.action]++;
}

int
main(int argc, char **argv)
{
	int64		findings[FINDINGS] = {0};
	int64		done[ACTIONS] = {0};
	int64		movements;

	if (argc != 3)
		return 2;
	seed = strtoull(argv[1], NULL, 10);
	movements = strtoll(argv[2], NULL, 10);
	state = seed * 2 + 1;

	for (step = 0; step < movements; step++)
	{
		if (step % WORLD_STEPS == 0)
			new_world();
		if (one_in(30))
			change_status(random_below(ACCOUNTS));
		if (one_in(40))
			change_limits(random_below(ACCOUNTS));
		one_movement(findings, done);
	}
	for (int i = 0; i < FINDINGS; i++)
		printf("%s " INT64_FORMAT "\n", finding_names[i], findings[i]);
	for (int i = 0; i < ACTIONS; i++)
		printf("%s " INT64_FORMAT "\n", action_names[i], done[i]);
	return 0;
}
