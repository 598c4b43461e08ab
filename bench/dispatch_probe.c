/*
 * dispatch_probe.c
 *		Sends single messages to a queue and measures how long after the
 *		acknowledged commit its subscriber hears of each.
 *
 *		dispatch_probe CONNINFO QUEUE COUNT PAUSE_MS
 *
 * The queue's channel has the queue's name.  One notification may tell of many
 * messages: ours is told by the first with a highest id not below its own.  One
 * that was told before the commit was acknowledged counts as 0 ms.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define PATIENCE_MS	10000

static double
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) == CONNECTION_OK)
		return conn;
	fprintf(stderr, "dispatch_probe: %s", PQerrorMessage(conn));
	exit(1);
}

static PGresult *
run(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return result;
	fprintf(stderr, "dispatch_probe: %s", PQerrorMessage(conn));
	exit(1);
}

/* highest id told so far, after waiting for input up to 'ms' */
static long long
listen_some(PGconn *conn, int ms, long long highest)
{
	struct pollfd input = {.fd = PQsocket(conn), .events = POLLIN};
	PGnotify   *notify;

	if (ms > 0)
		(void) poll(&input, 1, ms);
	if (!PQconsumeInput(conn))
		exit(1);
	while ((notify = PQnotifies(conn)) != NULL)
	{
		const char *id = strstr(notify->extra, "\"highest_id\": ");
		long long	told = id == NULL ? 0 : atoll(id + 14);

		if (told > highest)
			highest = told;
		PQfreemem(notify);
	}
	return highest;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	PGconn	   *sender;
	PGconn	   *listener;
	char		sql[256];
	long		count;
	long		n = 0;
	long long	highest = 0;
	double	   *ms;

	if (argc != 5)
		return 2;
	sender = connect_to(argv[1]);
	listener = connect_to(argv[1]);
	count = atol(argv[3]);
	ms = malloc(sizeof(double) * (count + 1));
	snprintf(sql, sizeof(sql), "LISTEN \"%s\"", argv[2]);
	PQclear(run(listener, sql));
	snprintf(sql, sizeof(sql), "SELECT finance.send('%s', '{\"probe\": 1}')", argv[2]);
	while (n < count)
	{
		PGresult   *result = run(sender, sql);
		double		acknowledged = now_ms();
		long long	mine = atoll(PQgetvalue(result, 0, 0));
		double		until = acknowledged + PATIENCE_MS;

		PQclear(result);
		highest = listen_some(listener, 0, highest);
		if (highest >= mine)
			acknowledged = now_ms();
		while (highest < mine && now_ms() < until)
			highest = listen_some(listener, 100, highest);
		if (highest < mine)
		{
			fprintf(stderr, "dispatch_probe: not told of a message\n");
			return 1;
		}
		ms[n++] = now_ms() - acknowledged;
		usleep(atoi(argv[4]) * 1000);
	}
	qsort(ms, n, sizeof(double), compare);
	printf("%.3f %.3f %.3f\n", ms[n / 2], ms[n * 99 / 100], ms[n - 1]);
	return 0;
}
