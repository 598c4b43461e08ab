/*
 * engine_test.c
 *		The rules of money against a model of them, a million times.
 *
 * Includes the engine itself, which needs nothing of the server but its
 * headers.  The model keeps, for each account, what came in, what went out and
 * what it spent on a day, in sign and 192 bits, where nothing can overflow,
 * and decides by comparing sums where the engine subtracts.
 *
 * Usage: engine_test SEED MOVEMENTS.  Prints how often each finding came, and
 * exits with 1 at the first difference.
 */
#include "postgres.h"

#include "../src/engine.c"

/* the server has its own, which is not linked here */
#undef printf

#define ACCOUNTS	12
#define WORLD_STEPS	500
#define FINDINGS	(FIN_BALANCE_LIMIT + 1)

static const char *const finding_names[FINDINGS] = {
	"ok", "same_account", "from_not_active", "to_not_active",
	"currency_differs", "currency_not_stated", "from_version_differs",
	"to_version_differs", "total_overflow", "insufficient_funds",
	"balance_limit"
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
	int			status;
	char		currency;
	bool		has_floor;
	bool		has_ceiling;
	__int128	floor;
	__int128	ceiling;
} Model;

static FinAccount accounts[ACCOUNTS];
static Model models[ACCOUNTS];
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

/* does the sum stay below 10^38? */
static bool
fits(Wide a, Wide b)
{
	return is_less(plus(a, b), wide(limit_of_numbers()));
}

static Wide
spent_on(const Model *model, int day)
{
	return model->day >= day ? model->spent : wide(0);
}

static FinFinding
expected_finding(int from, int to, __int128 amount, const char *stated,
				 int64 from_version, int64 to_version, int day)
{
	const Model *payer = &models[from];
	const Model *payee = &models[to];
	Wide		moved = wide(amount);
	Wide		gone = plus(plus(payer->out, payer->held), moved);

	if (from == to)
		return FIN_SAME_ACCOUNT;
	if (payer->status != 0)
		return FIN_FROM_NOT_ACTIVE;
	if (payee->status != 0)
		return FIN_TO_NOT_ACTIVE;
	if (payer->currency != payee->currency)
		return FIN_CURRENCY_DIFFERS;
	if (stated != NULL && stated[0] != payer->currency)
		return FIN_CURRENCY_NOT_STATED;
	if (from_version >= 0 && from_version != payer->changes)
		return FIN_FROM_VERSION_DIFFERS;
	if (to_version >= 0 && to_version != payee->changes)
		return FIN_TO_VERSION_DIFFERS;
	if (!fits(payer->out, moved) || !fits(payee->in, moved) ||
		!fits(spent_on(payer, day), moved) ||
		!is_less(gone, plus(payer->in, wide(limit_of_numbers()))))
		return FIN_TOTAL_OVERFLOW;
	if (payer->has_floor && is_less(payer->in, plus(gone, wide(payer->floor))))
		return FIN_INSUFFICIENT_FUNDS;
	if (payee->has_ceiling &&
		is_less(plus(payee->out, wide(payee->ceiling)),
				plus(plus(payee->in, payee->expected), moved)))
		return FIN_BALANCE_LIMIT;
	return FIN_OK;
}

/* ------------------------------------------------------------------------
 * comparing
 * ------------------------------------------------------------------------ */

static int64 step;
static uint64 seed;

static void
differs(const char *what)
{
	printf("step " INT64_FORMAT " of seed " UINT64_FORMAT ": %s differs\n",
		   step, seed, what);
	exit(1);
}

static void
compare_account(const FinAccount *account, const Model *model, int day)
{
	if (!is_same(wide(account->debits_posted), model->out))
		differs("debits_posted");
	if (!is_same(wide(account->credits_posted), model->in))
		differs("credits_posted");
	if (!is_same(wide(account->debits_pending), model->held) ||
		!is_same(wide(account->credits_pending), model->expected))
		differs("pending");
	if (!is_same(wide(fin_engine_spent(account, day)), spent_on(model, day)))
		differs("spent");
	if (account->version != model->changes)
		differs("version");
	if (!is_same(plus(wide(fin_engine_balance(account)), model->out), model->in))
		differs("balance");
	if (!fin_engine_within_limits(account))
		differs("being within limits");
}

static void
compare_side(const FinSide *side, const Model *before, const Model *after)
{
	if (side->version != after->changes)
		differs("version after");
	if (!is_same(plus(wide(side->balance_before), before->out), before->in))
		differs("balance before");
	if (!is_same(plus(wide(side->balance_after), after->out), after->in))
		differs("balance after");
	if (!is_same(wide(side->held_after), after->held))
		differs("held after");
}

/* what went out came in, in each currency */
static void
check_conservation(void)
{
	for (char currency = 'A'; currency <= 'B'; currency++)
	{
		Wide		out = wide(0);
		Wide		in = wide(0);

		for (int i = 0; i < ACCOUNTS; i++)
		{
			if (accounts[i].currency[0] != currency)
				continue;
			out = plus(out, wide(accounts[i].debits_posted));
			in = plus(in, wide(accounts[i].credits_posted));
		}
		if (!is_same(out, in))
			differs("the sum of debits and of credits");
	}
}

/* ------------------------------------------------------------------------
 * worlds and movements
 * ------------------------------------------------------------------------ */

static void
put_limits(FinAccount *account, Model *model)
{
	__int128	edge = limit_of_numbers() - 1;

	model->has_floor = random_below(2) == 0;
	model->floor = random_below(3) == 0 ? 0 :
		-(random_below(2) == 0 ? edge : random_amount());
	model->has_ceiling = random_below(3) == 0;
	model->ceiling = random_below(2) == 0 ? edge : random_amount();
	account->has_min_available = model->has_floor;
	account->min_available = model->floor;
	account->has_max_balance = model->has_ceiling;
	account->max_balance = model->ceiling;
}

/* new accounts, with nothing on them or a little held that the floor allows */
static void
new_world(void)
{
	for (int i = 0; i < ACCOUNTS; i++)
	{
		FinAccount *account = &accounts[i];
		Model	   *model = &models[i];

		memset(account, 0, sizeof(*account));
		memset(model, 0, sizeof(*model));
		model->currency = random_below(10) == 0 ? 'B' : 'A';
		account->currency[0] = model->currency;
		account->account_id = i + 1;
		account->spent_on = model->day = -1;
		put_limits(account, model);
		if (!model->has_floor && random_below(3) == 0)
		{
			account->debits_pending = random_amount();
			model->held = wide(account->debits_pending);
		}
		if (model->has_ceiling && random_below(3) == 0)
		{
			account->credits_pending = model->ceiling;
			model->expected = wide(model->ceiling);
		}
	}
}

static void
change_status(int i)
{
	int			status = random_below(10) == 0 ? 1 + random_below(2) : 0;

	models[i].status = status;
	accounts[i].status = status == 0 ? FIN_ACCOUNT_ACTIVE :
		status == 1 ? FIN_ACCOUNT_FROZEN : FIN_ACCOUNT_CLOSED;
	models[i].changes++;
	accounts[i].version++;
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

/* what would just go through, or just not, is the most interesting */
static __int128
amount_near_limit(int from, int to)
{
	__int128	amount = random_amount();
	__int128	room;

	if (random_below(4) == 0 && models[from].has_floor &&
		!__builtin_sub_overflow(fin_engine_available(&accounts[from]),
								models[from].floor, &room))
		amount = room + random_below(3) - 1;
	else if (random_below(16) == 0)
		amount = limit_of_numbers() - accounts[to].credits_posted -
			random_below(3);
	if (amount <= 0)
		return 1 + random_below(100);
	return amount < limit_of_numbers() ? amount : limit_of_numbers() - 1;
}

static void
record(int from, int to, __int128 amount, int day)
{
	models[from].out = plus(models[from].out, wide(amount));
	models[to].in = plus(models[to].in, wide(amount));
	models[from].spent = plus(spent_on(&models[from], day), wide(amount));
	if (models[from].day < day)
		models[from].day = day;
	models[from].changes++;
	models[to].changes++;
}

static FinFinding
one_movement(void)
{
	static const char *const stated[] = {NULL, NULL, NULL, NULL, "A", "A", "A", "B"};
	int			from = random_below(ACCOUNTS);
	int			to = random_below(ACCOUNTS);
	int			day = (int) (step / 100) + random_below(2);
	Model		payer = models[from];
	Model		payee = models[to];
	FinMoved	moved;
	FinFinding	expected;
	FinMovement movement = {
		.from = &accounts[from],
		.to = &accounts[to],
		.amount = amount_near_limit(from, to),
		.currency = stated[random_below(lengthof(stated))],
		.expected_from_version = random_version(from),
		.expected_to_version = random_version(to),
		.business_date = day,
	};

	expected = expected_finding(from, to, movement.amount, movement.currency,
								movement.expected_from_version,
								movement.expected_to_version, day);
	if (fin_engine_check(&movement) != expected)
		differs(finding_names[expected]);
	if (expected == FIN_OK && random_below(10) > 0)
	{
		fin_engine_post(&movement, &moved);
		record(from, to, movement.amount, day);
	}
	else
		fin_engine_leave(&movement, &moved);
	compare_side(&moved.from, &payer, &models[from]);
	compare_side(&moved.to, &payee, &models[to]);
	compare_account(&accounts[from], &models[from], day);
	compare_account(&accounts[to], &models[to], day);
	check_conservation();
	return expected;
}

int
main(int argc, char **argv)
{
	int64		findings[FINDINGS] = {0};
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
		if (random_below(40) == 0)
			change_status(random_below(ACCOUNTS));
		findings[one_movement()]++;
	}
	for (int i = 0; i < FINDINGS; i++)
		printf("%s " INT64_FORMAT "\n", finding_names[i], findings[i]);
	return 0;
}
