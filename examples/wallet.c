/*
 * wallet.c
 *		Payments from an application, through libpq: what to try again, and what
 *		not.
 *
 *		cc -I$(pg_config --includedir) wallet.c -L$(pg_config --libdir) -lpq
 *		wallet [-d CONNINFO] FROM TO AMOUNT KEY
 *		wallet [-d CONNINFO] -b REQUESTS
 *
 *		-b  a batch: a JSON array of objects with the fields of
 *			finance.transfer_request (from_account, to_account, amount,
 *			idempotency_key ...)
 *
 * What it shows:
 * - One idempotency key for one intention to pay.  It is there before the first
 *	 try (here the caller brings it), and every try has the same.  So a try
 *	 whose answer was lost may be repeated: if it was carried out after all, the
 *	 first answer comes again, and nothing is paid twice.
 * - Try again after 40001 (serialization failure), 40P01 (deadlock) and 55P03
 *	 (lock not available), and after a lost connection; never after anything
 *	 else.  Wait in between, longer each time, and not all for equally long.
 * - status "rejected" is an answer and no error: a risk rule said no, and that
 *	 is kept when the transaction commits.  So are "review" and "challenged":
 *	 the money is held, and nothing is paid until somebody approves it, or the
 *	 token confirms it.
 * - Amounts are strings all the way.  A float would round them.
 * - A batch: one call, an answer for each request in order.  The requests
 *	 travel as one JSON parameter.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define TRIES_MAX		60
#define WAIT_MIN_MS		10
#define WAIT_MAX_MS		1000

/* always in FROM, never (finance.transfer(...)).* */
static const char pay_query[] =
	"SELECT status, amount, from_account, from_balance, rule, replayed"
	" FROM finance.transfer($1, $2, $3::numeric,"
	" type => 'payment', idempotency_key => $4)";

static const char batch_query[] =
	"SELECT position, status, amount, error, message, rule, replayed"
	" FROM finance.transfer_batch(ARRAY("
	"SELECT r FROM jsonb_populate_recordset("
	"NULL::finance.transfer_request, $1::jsonb) AS r))";

/* what a program goes by; empty when it is not the server that speaks */
static const char *
sqlstate_of(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate == NULL ? "" : sqlstate;
}

/* is it worth another try, unchanged? */
static bool
may_try_again(PGconn *conn, const PGresult *result)
{
	const char *sqlstate = sqlstate_of(result);

	if (PQstatus(conn) != CONNECTION_OK)
		return true;			/* perhaps it was paid: the key will tell */
	return strcmp(sqlstate, "40001") == 0 ||
		strcmp(sqlstate, "40P01") == 0 ||
		strcmp(sqlstate, "55P03") == 0;
}

/* longer with each try, and by chance between half of it and all of it */
static void
wait_before(int try)
{
	long		ms = WAIT_MIN_MS;
	struct timespec pause;

	while (try-- > 1 && ms < WAIT_MAX_MS)
		ms *= 2;
	if (ms > WAIT_MAX_MS)
		ms = WAIT_MAX_MS;
	ms = ms / 2 + rand() % (ms / 2 + 1);
	pause.tv_sec = ms / 1000;
	pause.tv_nsec = ms % 1000 * 1000000;
	nanosleep(&pause, NULL);
}

/*
 * Runs a query until there is an answer that another try would not change.
 * A single statement is a transaction of its own: when it has answered, it is
 * committed.  Of a transaction with several, repeat all, from BEGIN on.
 */
static PGresult *
ask(PGconn *conn, const char *query, int nvalues, const char *const *values)
{
	for (int try = 1;; try++)
	{
		PGresult   *result = PQexecParams(conn, query, nvalues, NULL, values,
										  NULL, NULL, 0);

		if (PQresultStatus(result) == PGRES_TUPLES_OK ||
			!may_try_again(conn, result) || try == TRIES_MAX)
			return result;
		fprintf(stderr, "wallet: try %d: %s %s", try, sqlstate_of(result),
				PQerrorMessage(conn));
		PQclear(result);
		wait_before(try);
		if (PQstatus(conn) != CONNECTION_OK)
			PQreset(conn);
	}
}

/* if there is no answer, prints why */
static bool
failed(PGconn *conn, const PGresult *result)
{
	const char *message;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return false;
	message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	if (message == NULL)
		printf("failed: %s", PQerrorMessage(conn));
	else
		printf("failed: %s %s\n", sqlstate_of(result), message);
	return true;
}

static const char *
field(const PGresult *result, int row, const char *name)
{
	return PQgetvalue(result, row, PQfnumber(result, name));
}

static const char *
again(const PGresult *result, int row)
{
	return *field(result, row, "replayed") == 't' ? " (already paid)" : "";
}

/* done; or rejected, sent to review, challenged by a rule, and not paid */
static bool
print_outcome(const PGresult *result, int row)
{
	const char *status = field(result, row, "status");

	if (strcmp(status, "rejected") == 0 || strcmp(status, "review") == 0 ||
		strcmp(status, "challenged") == 0)
	{
		printf("%s by the rule \"%s\"",
			   strcmp(status, "review") == 0 ? "sent to review" : status,
			   field(result, row, "rule"));
		return false;
	}
	printf("%s %s", status, field(result, row, "amount"));
	return true;
}

static bool
pay(PGconn *conn, const char *const *arguments)
{
	PGresult   *result = ask(conn, pay_query, 4, arguments);
	bool		paid = false;

	if (!failed(conn, result))
	{
		paid = print_outcome(result, 0);
		printf(", %s has %s now%s\n", field(result, 0, "from_account"),
			   field(result, 0, "from_balance"), again(result, 0));
	}
	PQclear(result);
	return paid;
}

/* each request has an answer of its own, in order */
static bool
pay_batch(PGconn *conn, const char *requests)
{
	PGresult   *result = ask(conn, batch_query, 1, &requests);
	bool		all_paid = !failed(conn, result);

	for (int row = 0; row < PQntuples(result); row++)
	{
		printf("%s: ", field(result, row, "position"));
		if (*field(result, row, "error") != '\0')
		{
			all_paid = false;
			printf("failed: %s %s\n", field(result, row, "error"),
				   field(result, row, "message"));
			continue;
		}
		all_paid &= print_outcome(result, row);
		printf("%s\n", again(result, row));
	}
	PQclear(result);
	return all_paid;
}

int
main(int argc, char **argv)
{
	const char *conninfo = "";
	const char *requests = NULL;
	PGconn	   *conn;
	int			option;
	bool		paid;

	while ((option = getopt(argc, argv, "d:b:")) != -1)
	{
		if (option == 'd')
			conninfo = optarg;
		else if (option == 'b')
			requests = optarg;
		else
			return 2;
	}
	if (argc - optind != (requests == NULL ? 4 : 0))
	{
		fprintf(stderr, "usage: wallet [-d CONNINFO] FROM TO AMOUNT KEY\n"
				"       wallet [-d CONNINFO] -b REQUESTS\n");
		return 2;
	}
	srand((unsigned) time(NULL) ^ (unsigned) getpid());

	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "wallet: %s", PQerrorMessage(conn));
		return 1;
	}
	paid = requests != NULL ? pay_batch(conn, requests) :
		pay(conn, (const char *const *) argv + optind);
	PQfinish(conn);
	return paid ? 0 : 1;
}
