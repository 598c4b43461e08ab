/*
 * queue_client.c
 *		The client of bench/queue: keeps sessions open, with prepared statements,
 *		and passes messages through a queue as it is told.
 *
 *		queue_client CONNINFO
 *
 * Owns its sessions; each is used by one thread at a time.  Commands come one a
 * line on standard input, and each is answered by lines that end with ".":
 *
 *		define NAME SQL			a statement; sessions prepare it when they first
 *								need it.  What is used: send (payload), read, ack
 *								(id), and for batches send_n (payloads), read_n,
 *								ack_n (ids).  read and read_n return the id first.
 *		run KIND CLIENTS MS MAX	messages, for so long or until so many are gone:
 *								single	send, read, ack: a transaction each
 *								joint	send; read and ack in one transaction
 *								batch	100 a call: send_n, read_n, ack_n
 *								mixed	batch, but the last client does single
 *		claim N					N times read; the ids are kept
 *		ack						ack_n of what claim kept, and send_n of as many
 *		sql SQL					in the first session; answers rows, by tabs
 *		pid						of the server process of the first session
 *
 * Both what is measured and what it is compared with go through this, so that
 * what the client costs is the same.  Any error ends the program.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define SESSIONS_MAX	64
#define STATEMENTS_MAX	16
#define BATCH			100
#define LINE_MAX_BYTES	65536
#define EMPTY_MAX		100000	/* reads in a row without a message */
#define EMPTY_RESEND	1000

static const char payload[] =
	"{\"order\": 48151623, \"state\": \"paid\", \"amount\": \"108.00\","
	" \"currency\": \"EUR\", \"customer\": \"c-1042\"}";
static char *payloads;			/* BATCH of them, as an array */

typedef struct Statement
{
	char		name[16];
	char	   *sql;
	int			version;		/* raised when it is defined anew */
} Statement;

typedef struct Session
{
	PGconn	   *conn;
	int			prepared[STATEMENTS_MAX];	/* version, 0: not yet */

	/* of the present run */
	pthread_t	thread;
	bool		joint;
	bool		batch;
	bool		mixed;			/* single, among others in batches */
	long		empty;			/* reads that found nothing */
	uint32_t   *claim_us;		/* each read that found something */
	size_t		claims;
	size_t		claims_max;
} Session;

static const char *conninfo;
static Statement statements[STATEMENTS_MAX];
static Session sessions[SESSIONS_MAX];

/* of the present run; the counter is shared by the threads */
static int64_t deadline_us;
static long messages_max;		/* 0: no limit */
static long messages;

/* what claim took and ack will give back */
static char *kept;
static size_t kept_length;
static long kept_count;

static void
die(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	fputs("queue_client: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static void *
need(void *memory)
{
	if (memory == NULL)
		die("out of memory");
	return memory;
}

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ------------------------------------------------------------------------
 * sessions and statements
 * ------------------------------------------------------------------------
 */

static Session *
session(int i)
{
	Session    *s = &sessions[i];

	if (s->conn == NULL)
	{
		s->conn = PQconnectdb(conninfo);
		if (PQstatus(s->conn) != CONNECTION_OK)
			die("%s", PQerrorMessage(s->conn));
	}
	return s;
}

static PGresult *
good(Session *s, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		die("%s", PQerrorMessage(s->conn));
	return result;
}

static int
find_statement(const char *name)
{
	for (int i = 0; i < STATEMENTS_MAX; i++)
	{
		if (strcmp(statements[i].name, name) == 0)
			return i;
	}
	return -1;
}

static void
define(const char *name, const char *sql)
{
	int			i = find_statement(name);

	if (i < 0)
		i = find_statement("");
	if (i < 0 || strlen(name) >= sizeof(statements[i].name))
		die("cannot define \"%s\"", name);
	strcpy(statements[i].name, name);
	free(statements[i].sql);
	statements[i].sql = need(strdup(sql));
	statements[i].version++;
}

/* run a prepared statement with one parameter, or none */
static PGresult *
execute(Session *s, const char *name, const char *value)
{
	int			i = find_statement(name);

	if (i < 0)
		die("statement \"%s\" is not defined", name);
	if (s->prepared[i] != statements[i].version)
	{
		char		drop[64];

		if (s->prepared[i] != 0)
		{
			snprintf(drop, sizeof(drop), "DEALLOCATE %s", name);
			PQclear(good(s, PQexec(s->conn, drop)));
		}
		PQclear(good(s, PQprepare(s->conn, name, statements[i].sql, 0, NULL)));
		s->prepared[i] = statements[i].version;
	}
	return good(s, PQexecPrepared(s->conn, name, value != NULL, &value,
								  NULL, NULL, 0));
}

/* the first column of a result as an array, appended to what is in *array */
static void
append_ids(char **array, size_t *length, const PGresult *result)
{
	int			n = PQntuples(result);

	*array = need(realloc(*array, *length + (size_t) n * 21 + 3));
	for (int i = 0; i < n; i++)
		*length += (size_t) sprintf(*array + *length, "%c%s",
									*length == 0 ? '{' : ',',
									PQgetvalue(result, i, 0));
}

/* ------------------------------------------------------------------------
 * messages
 * ------------------------------------------------------------------------
 */

static void
note_claim(Session *s, int64_t us)
{
	if (s->claims == s->claims_max)
	{
		s->claims_max = s->claims_max == 0 ? 4096 : s->claims_max * 2;
		s->claim_us = need(realloc(s->claim_us,
								   s->claims_max * sizeof(*s->claim_us)));
	}
	s->claim_us[s->claims++] = (uint32_t) us;
}

/* one read; null when it found nothing */
static PGresult *
claim(Session *s, const char *name)
{
	int64_t		start = now_us();
	PGresult   *result = execute(s, name, NULL);

	if (PQntuples(result) > 0)
	{
		note_claim(s, now_us() - start);
		return result;
	}
	PQclear(result);
	s->empty++;
	return NULL;
}

/*
 * As many messages are there as clients want, but others may have them locked
 * at this moment: then it is asked again, and that is counted.  Only who reads
 * batches may read more than he has sent, and be the last to do so: then
 * another is sent.
 */
static void
pass_single(Session *s)
{
	PGresult   *result = NULL;

	PQclear(execute(s, "send", payload));
	for (int tries = 0; result == NULL; tries++)
	{
		if (tries == EMPTY_MAX)
			die("a message was sent and cannot be read");
		if (s->mixed && tries % EMPTY_RESEND == EMPTY_RESEND - 1)
			PQclear(execute(s, "send", payload));
		if (s->joint)
			PQclear(execute(s, "begin", NULL));
		result = claim(s, "read");
		if (result == NULL && s->joint)
			PQclear(execute(s, "commit", NULL));
	}
	PQclear(execute(s, "ack", PQgetvalue(result, 0, 0)));
	PQclear(result);
	if (s->joint)
		PQclear(execute(s, "commit", NULL));
	__atomic_add_fetch(&messages, 1, __ATOMIC_RELAXED);
}

static void
pass_batch(Session *s)
{
	PGresult   *result;
	long		n = 0;

	PQclear(execute(s, "send_n", payloads));
	while (n < BATCH && (result = claim(s, "read_n")) != NULL)
	{
		char	   *ids = NULL;
		size_t		length = 0;

		append_ids(&ids, &length, result);
		strcpy(ids + length, "}");
		PQclear(execute(s, "ack_n", ids));
		free(ids);
		n += PQntuples(result);
		__atomic_add_fetch(&messages, PQntuples(result), __ATOMIC_RELAXED);
		PQclear(result);
	}
}

static void *
work(void *argument)
{
	Session    *s = argument;

	while (now_us() < deadline_us &&
		   (messages_max == 0 ||
			__atomic_load_n(&messages, __ATOMIC_RELAXED) < messages_max))
	{
		if (s->batch)
			pass_batch(s);
		else
			pass_single(s);
	}
	return NULL;
}

static int
compare_us(const void *a, const void *b)
{
	uint32_t	x = *(const uint32_t *) a;
	uint32_t	y = *(const uint32_t *) b;

	return (x > y) - (x < y);
}

/* what so many sessions did since prepare_sessions() */
static void
report(int clients, int64_t elapsed_us)
{
	uint32_t   *all;
	size_t		n = 0;
	long		empty = 0;

	for (int i = 0; i < clients; i++)
		n += sessions[i].claims;
	all = need(malloc((n + 1) * sizeof(*all)));
	n = 0;
	for (int i = 0; i < clients; i++)
	{
		if (sessions[i].claims > 0)
			memcpy(all + n, sessions[i].claim_us,
				   sessions[i].claims * sizeof(*all));
		n += sessions[i].claims;
		empty += sessions[i].empty;
	}
	qsort(all, n, sizeof(*all), compare_us);
	all[n] = 0;
	printf("messages=%ld elapsed_us=%lld claims=%zu empty=%ld"
		   " p50_us=%u p99_us=%u max_us=%u\n",
		   messages, (long long) elapsed_us, n, empty, all[n / 2],
		   all[n * 99 / 100], all[n == 0 ? 0 : n - 1]);
	free(all);
}

static void
prepare_sessions(int clients, const char *kind)
{
	for (int i = 0; i < clients; i++)
	{
		Session    *s = session(i);

		s->joint = strcmp(kind, "joint") == 0;
		s->batch = strcmp(kind, "batch") == 0 ||
			(strcmp(kind, "mixed") == 0 && i < clients - 1);
		s->mixed = strcmp(kind, "mixed") == 0 && !s->batch;
		s->claims = 0;
		s->empty = 0;
	}
	messages = 0;
}

static void
run(const char *kind, int clients, long ms, long max)
{
	int64_t		start;

	if (clients < 1 || clients > SESSIONS_MAX)
		die("%d clients", clients);
	prepare_sessions(clients, kind);
	messages_max = max;
	start = now_us();
	deadline_us = start + ms * 1000;
	for (int i = 0; i < clients; i++)
	{
		if (pthread_create(&sessions[i].thread, NULL, work, &sessions[i]) != 0)
			die("could not start a thread");
	}
	for (int i = 0; i < clients; i++)
		pthread_join(sessions[i].thread, NULL);
	report(clients, now_us() - start);
}

static void
claim_many(long n)
{
	int64_t		start;

	prepare_sessions(1, "single");
	start = now_us();
	for (long i = 0; i < n; i++)
	{
		PGresult   *result = claim(&sessions[0], "read");

		if (result == NULL)
			continue;
		append_ids(&kept, &kept_length, result);
		kept_count++;
		PQclear(result);
	}
	report(1, now_us() - start);
}

static void
ack_kept(void)
{
	Session    *s = session(0);

	if (kept_count == 0)
		return;
	strcpy(kept + kept_length, "}");
	PQclear(execute(s, "ack_n", kept));
	for (long i = 0; i < kept_count; i++)
		PQclear(execute(s, "send", payload));
	kept_length = 0;
	kept_count = 0;
}

/* ------------------------------------------------------------------------
 * commands
 * ------------------------------------------------------------------------
 */

static void
run_sql(const char *sql)
{
	Session    *s = session(0);
	PGresult   *result = good(s, PQexec(s->conn, sql));

	for (int row = 0; row < PQntuples(result); row++)
	{
		for (int i = 0; i < PQnfields(result); i++)
			printf("%s%s", i == 0 ? "" : "\t", PQgetvalue(result, row, i));
		putchar('\n');
	}
	PQclear(result);
}

static void
command(char *line)
{
	char		name[32];
	char		kind[16];
	int			clients;
	long		ms;
	long		n;
	int			used = 0;

	if (strncmp(line, "sql ", 4) == 0)
		run_sql(line + 4);
	else if (sscanf(line, "define %31s %n", name, &used) == 1 && used > 0)
		define(name, line + used);
	else if (sscanf(line, "run %15s %d %ld %ld", kind, &clients, &ms, &n) == 4)
		run(kind, clients, ms, n);
	else if (sscanf(line, "claim %ld", &n) == 1)
		claim_many(n);
	else if (strcmp(line, "ack") == 0)
		ack_kept();
	else if (strcmp(line, "pid") == 0)
		printf("%d\n", PQbackendPID(session(0)->conn));
	else
		die("unknown command: %s", line);
	puts(".");
	fflush(stdout);
}

/* BATCH payloads as an array: quotes within an element are escaped */
static void
make_payloads(void)
{
	char	   *p = payloads = need(malloc(BATCH * (sizeof(payload) * 2 + 4)));

	for (int i = 0; i < BATCH; i++)
	{
		*p++ = i == 0 ? '{' : ',';
		*p++ = '"';
		for (const char *c = payload; *c != '\0'; c++)
		{
			if (*c == '"')
				*p++ = '\\';
			*p++ = *c;
		}
		*p++ = '"';
	}
	strcpy(p, "}");
}

int
main(int argc, char **argv)
{
	static char line[LINE_MAX_BYTES];

	if (argc != 2)
		die("usage: queue_client CONNINFO");
	conninfo = argv[1];
	make_payloads();
	define("begin", "BEGIN");
	define("commit", "COMMIT");
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		line[strcspn(line, "\n")] = '\0';
		command(line);
	}
	for (int i = 0; i < SESSIONS_MAX; i++)
	{
		if (sessions[i].conn != NULL)
			PQfinish(sessions[i].conn);
	}
	return 0;
}
