/*
 * subscriber.c
 *		A subscriber of finance, complete: LISTENs on a channel, and on each
 *		notification reads and acknowledges the messages of its queue, printing
 *		them with their latency.
 *
 *		cc -I$(pg_config --includedir) subscriber.c -L$(pg_config --libdir) -lpq
 *		subscriber [-d CONNINFO] [-q QUEUE] [-n COUNT] [-s] CHANNEL
 *
 *		-q  queue to read; by default it has the channel's name
 *		-n  ends after so many messages
 *		-s  prints no messages, but a summary of the latencies at the end
 *
 * What it shows:
 * - The notification is the doorbell, the row is the letter.  So messages are
 *	 read until there is none, whatever the notification said, and also once
 *	 after each connect: what came while nobody listened waits in the queue.
 * - Messages are read and deleted in one transaction.  What this program would
 *	 write to the same database because of a message belongs there too; then
 *	 each message has its effect exactly once, even if the program dies.
 * - A lost connection is made again, with a pause in between.
 *
 * Latency is counted from the moment the transfer was posted (the timestamp in
 * the message, taken by the server just before its commit) to the moment the
 * notification arrives, and to the moment the message is in hand.
 */
#define _GNU_SOURCE				/* ppoll */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define BATCH			100
#define LEASE_S			"30"
#define RECONNECT_MS	1000
#define SAMPLES_MAX		1000000

static const char read_query[] =
	"SELECT msg_id,"
	" message->>'type',"
	" message->'payload'->>'from_account',"
	" message->'payload'->>'to_account',"
	" message->'payload'->>'amount',"
	" message->'payload'->>'currency',"
	" message->'payload'->'decisions'->0->>'rule',"
	" extract(epoch FROM (message->>'timestamp')::timestamptz),"
	" to_char((message->>'timestamp')::timestamptz, 'HH24:MI:SS.MS')"
	" FROM finance.read($1, " LEASE_S ", 100) ORDER BY msg_id";

static const char delete_query[] = "SELECT finance.delete($1, $2::bigint)";

static volatile sig_atomic_t stopped = 0;
static bool summary_only = false;
static bool colour = false;
static long wanted = 0;			/* messages; 0: for ever */
static long seen = 0;
static const char *queue;
static double notified_at = 0;	/* when the last notification arrived */

/* latencies in milliseconds; SAMPLES_MAX of them at most */
static double *notify_ms;
static double *hand_ms;
static long nsamples = 0;

static void
stop(int signo)
{
	(void) signo;
	stopped = 1;
}

/* seconds since 1970 */
static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* runs a command; false, with a message, when the server refuses it */
static bool
command(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);

	PQclear(result);
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return true;
	fprintf(stderr, "subscriber: %s", PQerrorMessage(conn));
	return false;
}

static void
print_message(PGresult *result, int row, double latency_ms)
{
	const char *type = PQgetvalue(result, row, 1);
	const char *rule = PQgetvalue(result, row, 6);
	bool		alert = strncmp(type, "risk.", 5) == 0;

	printf("%s%s%s  %-18s  %s -> %s  %s %s%s%s%s  %s%.1f ms%s\n",
		   !colour ? "" : alert ? "\033[31m" : "\033[32m",
		   PQgetvalue(result, row, 8), colour ? "\033[0m" : "", type,
		   PQgetvalue(result, row, 2), PQgetvalue(result, row, 3),
		   PQgetvalue(result, row, 4), PQgetvalue(result, row, 5),
		   *rule ? "  (rule " : "", rule, *rule ? ")" : "",
		   colour ? "\033[2m" : "", latency_ms, colour ? "\033[0m" : "");
	fflush(stdout);
}

static void
take_message(PGresult *result, int row, double in_hand)
{
	double		posted = strtod(PQgetvalue(result, row, 7), NULL);
	double		told = notified_at > posted ? notified_at : in_hand;

	if (nsamples < SAMPLES_MAX)
	{
		notify_ms[nsamples] = (told - posted) * 1000;
		hand_ms[nsamples] = (in_hand - posted) * 1000;
		nsamples++;
	}
	if (!summary_only)
		print_message(result, row, (in_hand - posted) * 1000);
	seen++;
}

static bool
delete_messages(PGconn *conn, PGresult *messages)
{
	for (int row = 0; row < PQntuples(messages); row++)
	{
		const char *values[2] = {queue, PQgetvalue(messages, row, 0)};
		PGresult   *result = PQexecPrepared(conn, "delete", 2, values,
											NULL, NULL, 0);
		bool		deleted = PQresultStatus(result) == PGRES_TUPLES_OK &&
			strcmp(PQgetvalue(result, 0, 0), "t") == 0;

		if (!deleted)
			fprintf(stderr, "subscriber: message %s was not deleted. %s\n",
					values[1], PQerrorMessage(conn));
		PQclear(result);
		if (!deleted)
			return false;
	}
	return true;
}

/*
 * Reads and acknowledges one batch in one transaction.  Returns the number of
 * messages, or -1 on failure; then they are in the queue again.
 */
static int
take_batch(PGconn *conn)
{
	const char *values[1] = {queue};
	PGresult   *messages;
	double		in_hand;
	int			n = -1;

	if (!command(conn, "BEGIN"))
		return -1;
	messages = PQexecPrepared(conn, "read", 1, values, NULL, NULL, 0);
	in_hand = now();
	if (PQresultStatus(messages) != PGRES_TUPLES_OK)
		fprintf(stderr, "subscriber: %s", PQerrorMessage(conn));
	else if (delete_messages(conn, messages) && command(conn, "COMMIT"))
		n = PQntuples(messages);
	for (int row = 0; row < n; row++)
		take_message(messages, row, in_hand);
	PQclear(messages);
	return n;
}

static bool
enough(void)
{
	return stopped || (wanted > 0 && seen >= wanted);
}

/* reads until the queue is empty */
static bool
drain(PGconn *conn)
{
	int			n;

	do
	{
		n = take_batch(conn);
	} while (n == BATCH && !enough());
	return n >= 0;
}

/* LISTEN comes before the first look, so that nothing falls between them */
static bool
prepare(PGconn *conn, const char *channel)
{
	char	   *name = PQescapeIdentifier(conn, channel, strlen(channel));
	char		sql[512];
	PGresult   *result;
	bool		ok;

	if (name == NULL)
		return false;
	snprintf(sql, sizeof(sql), "LISTEN %s", name);
	PQfreemem(name);
	if (!command(conn, sql))
		return false;
	result = PQprepare(conn, "read", read_query, 1, NULL);
	ok = PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	result = PQprepare(conn, "delete", delete_query, 2, NULL);
	ok = ok && PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	if (!ok)
		fprintf(stderr, "subscriber: %s", PQerrorMessage(conn));
	return ok;
}

/* waits for a notification; false when the connection is lost or we stop */
static bool
wait_for_notification(PGconn *conn)
{
	struct pollfd input = {.fd = PQsocket(conn), .events = POLLIN};
	sigset_t	none;

	sigemptyset(&none);
	for (;;)
	{
		PGnotify   *notify;
		bool		any = false;

		if (!PQconsumeInput(conn))
			return false;
		while ((notify = PQnotifies(conn)) != NULL)
		{
			any = true;
			PQfreemem(notify);
		}
		if (any)
		{
			notified_at = now();
			return true;
		}
		/* signals are let in only here, so none is missed */
		if (stopped || (ppoll(&input, 1, NULL, &none) < 0 && errno != EINTR))
			return false;
	}
}

static void
serve(PGconn *conn, const char *channel)
{
	if (!prepare(conn, channel))
		return;
	fprintf(stderr, "listening on channel \"%s\"\n", channel);
	while (drain(conn) && !enough() && wait_for_notification(conn))
		;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
print_summary(const char *what, double *samples)
{
	qsort(samples, nsamples, sizeof(double), compare);
	printf("%s n=%ld p50=%.3f p90=%.3f p99=%.3f max=%.3f ms\n", what, nsamples,
		   samples[nsamples / 2], samples[nsamples * 90 / 100],
		   samples[nsamples * 99 / 100], samples[nsamples - 1]);
}

/* SIGINT and SIGTERM stay blocked but while we wait */
static void
catch_signals(void)
{
	struct sigaction action = {.sa_handler = stop};
	sigset_t	set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int
main(int argc, char **argv)
{
	const char *conninfo = "";
	PGconn	   *conn;
	int			option;

	while ((option = getopt(argc, argv, "d:q:n:s")) != -1)
	{
		switch (option)
		{
			case 'd':
				conninfo = optarg;
				break;
			case 'q':
				queue = optarg;
				break;
			case 'n':
				wanted = strtol(optarg, NULL, 10);
				break;
			case 's':
				summary_only = true;
				break;
			default:
				optind = argc;
		}
	}
	if (optind != argc - 1)
	{
		fprintf(stderr, "usage: subscriber [-d CONNINFO] [-q QUEUE] [-n COUNT] [-s] CHANNEL\n");
		return 2;
	}
	if (queue == NULL)
		queue = argv[optind];
	colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL;
	notify_ms = malloc(SAMPLES_MAX * sizeof(double));
	hand_ms = malloc(SAMPLES_MAX * sizeof(double));
	if (notify_ms == NULL || hand_ms == NULL)
		return 1;
	catch_signals();

	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "subscriber: %s", PQerrorMessage(conn));
		return 1;
	}
	for (;;)
	{
		sigset_t	none;

		serve(conn, argv[optind]);
		if (enough())
			break;
		sigemptyset(&none);
		ppoll(NULL, 0, &(struct timespec) {.tv_nsec = RECONNECT_MS * 1000000L - 1},
			  &none);
		if (enough())
			break;
		PQreset(conn);
	}
	PQfinish(conn);
	if (summary_only && nsamples > 0)
	{
		print_summary("notified", notify_ms);
		print_summary("in hand", hand_ms);
	}
	return 0;
}
