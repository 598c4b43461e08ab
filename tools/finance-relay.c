/*
 * finance-relay.c
 *		Publishes the messages of a queue to RabbitMQ, and deletes each when the
 *		broker has confirmed it: at least once, with the message id to know a
 *		repetition by.
 *
 * Read a batch, publish it, wait for the confirms, delete: over and over, in
 * one thread.  Whichever connection is lost is opened again, and the batch in
 * hand tells where to go on.  A message is read again by somebody, and so
 * published again, when this program or PostgreSQL is away for longer than the
 * visibility timeout after the broker has taken it; never is one deleted that
 * was not confirmed.
 *
 * Owns the options, the log, the signals and the batch.
 */
#define _GNU_SOURCE				/* pipe2() */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "relay.h"

#ifndef RELAY_VERSION
#define RELAY_VERSION	"unknown"
#endif

#define EXIT_USAGE		1
#define EXIT_GAVE_UP	2
#define RETRY_MIN_MS	100
#define CONFIRM_LOOK_MS	1000	/* between two looks at the clock */
#define GIVE_UP_ONCE_S	60		/* for --once, unless told otherwise */
#define URI_MAX			2000	/* bytes in --amqp-file */

RelayOptions relay_options = {
	.dsn = "", .amqp_uri = "amqp://guest:guest@localhost:5672/", .exchange = "",
	.batch = 100, .vt_s = 60, .poll_s = 0, .confirm_s = 30, .heartbeat_s = 10,
	.retry_s = 30, .give_up_s = -1,
};

static RelayBatch batch;
static int	tries;				/* without success so far */
static int64_t failing_since_ms;
static uint64_t published;
static uint64_t refused;

static volatile sig_atomic_t stop_requested;
static int	stop_pipe[2];		/* readable once it was */

/* ------------------------------------------------------------------------
 * log and clock
 * ------------------------------------------------------------------------ */

void
relay_log(const char *format,...)
{
	struct timespec now;
	struct tm	utc;
	char		stamp[32];
	char		line[1000];
	va_list		args;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	/* one event, one line, whatever others put into their messages */
	for (char *c = line; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ')
			*c = ' ';
	}
	fprintf(stderr, "%s.%03ldZ finance-relay: %s\n", stamp,
			now.tv_nsec / 1000000, line);
}

int64_t
relay_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------------
 * the batch
 * ------------------------------------------------------------------------ */

int
relay_batch_in_state(const RelayBatch *which, RelayState state)
{
	int			found = 0;

	for (int i = 0; i < which->count; i++)
		found += which->messages[i].state == state;
	return found;
}

/* the connection is lost: what was not answered must go again */
void
relay_batch_unsend(RelayBatch *which)
{
	for (int i = 0; i < which->count; i++)
	{
		if (which->messages[i].state == RELAY_SENT)
			which->messages[i].state = RELAY_WAITING;
	}
}

void
relay_batch_release(RelayBatch *which)
{
	PQclear(which->result);
	which->result = NULL;
	which->count = 0;
}

void
relay_refuse(RelayMessage *message, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(message->reason, sizeof(message->reason), format, args);
	va_end(args);
	message->state = RELAY_REFUSED;
}

/* ------------------------------------------------------------------------
 * waiting
 * ------------------------------------------------------------------------ */

/* The first signal ends the work after the batch in hand, the second at once. */
static void
request_stop(int signo)
{
	int			saved_errno = errno;

	if (stop_requested)
		_exit(128 + signo);
	stop_requested = 1;
	if (write(stop_pipe[1], "", 1) < 0)
		_exit(128 + signo);
	errno = saved_errno;
}

static void
drop_broker(void)
{
	relay_batch_unsend(&batch);
	relay_broker_close();
}

/* what takes long stays ours */
static void
keep_claims(void)
{
	if (batch.result != NULL && relay_queue_is_open() &&
		relay_now_ms() - batch.claimed_ms > relay_options.vt_s * 500 &&
		!relay_queue_extend(&batch, relay_options.vt_s))
		relay_queue_close();
}

/*
 * Looks after both connections, without waiting.  False when one was lost just
 * now, which is logged.
 */
static bool
tend_connections(bool *heard)
{
	bool		well = true;

	*heard = false;
	if (relay_broker_is_open() && !relay_broker_pump(&batch, 0))
	{
		drop_broker();
		well = false;
	}
	if (relay_queue_is_open() && !relay_queue_heard(heard))
	{
		relay_queue_close();
		well = false;
	}
	return well;
}

/*
 * Waits so long, or until a notification comes or a connection goes, if that
 * is to be waited for; in any case until a signal.
 */
static void
nap(int64_t ms, bool for_news)
{
	int64_t		until = relay_now_ms() + ms;
	int64_t		slice = relay_options.heartbeat_s > 0 ?
		relay_options.heartbeat_s * 500 : ms;
	bool		heard;

	if (slice > relay_options.vt_s * 250)
		slice = relay_options.vt_s * 250;	/* often enough for keep_claims() */
	while (!stop_requested)
	{
		struct pollfd fds[3] = {{.fd = stop_pipe[0], .events = POLLIN}};
		int			nfds = 1;
		int64_t		left = until - relay_now_ms();

		if ((!tend_connections(&heard) || heard) && for_news)
			return;
		if (left <= 0)
			return;
		keep_claims();
		if (relay_queue_is_open())
			fds[nfds++] = (struct pollfd)
		{.fd = relay_queue_socket(), .events = POLLIN};
		if (relay_broker_is_open())
			fds[nfds++] = (struct pollfd)
		{.fd = relay_broker_socket(), .events = POLLIN};
		poll(fds, (nfds_t) nfds, (int) (left < slice ? left : slice));
	}
}

/* longer with each try, and by chance between half of it and all of it */
static void
wait_before_retry(void)
{
	int64_t		most = relay_options.retry_s * 1000;
	int64_t		ms = RETRY_MIN_MS;

	for (int i = 0; i < tries && ms < most; i++)
		ms *= 2;
	tries++;
	if (failing_since_ms == 0)
		failing_since_ms = relay_now_ms();
	if (ms > most)
		ms = most;
	nap(ms / 2 + random() % (ms / 2 + 1), false);
}

static void
note_success(void)
{
	tries = 0;
	failing_since_ms = 0;
}

static bool
must_give_up(void)
{
	return failing_since_ms != 0 && relay_options.give_up_s > 0 &&
		relay_now_ms() - failing_since_ms > relay_options.give_up_s * 1000LL;
}

/* ------------------------------------------------------------------------
 * the work
 * ------------------------------------------------------------------------ */

static int
unanswered(void)
{
	return relay_batch_in_state(&batch, RELAY_WAITING) +
		relay_batch_in_state(&batch, RELAY_SENT);
}

/* until the broker has answered for each message; false when it is lost */
static bool
deliver(void)
{
	int			left = unanswered();
	int64_t		deadline = relay_now_ms() + relay_options.confirm_s * 1000;

	while (left > 0)
	{
		int			before = left;

		if (!relay_broker_publish(&batch) ||
			!relay_broker_pump(&batch, CONFIRM_LOOK_MS))
			return false;
		left = unanswered();
		if (left < before)
			deadline = relay_now_ms() + relay_options.confirm_s * 1000;
		else if (relay_now_ms() > deadline)
		{
			relay_log("no confirm from RabbitMQ for %d s", relay_options.confirm_s);
			return false;
		}
		keep_claims();
	}
	return true;
}

/* what was answered is done with; false when PostgreSQL is lost */
static bool
settle(void)
{
	int			n_published = relay_batch_in_state(&batch, RELAY_CONFIRMED);
	int			n_refused = relay_batch_in_state(&batch, RELAY_REFUSED);

	if (n_published + n_refused > 0)
	{
		if (!relay_queue_settle(&batch))
			return false;
		published += (uint64_t) n_published;
		refused += (uint64_t) n_refused;
		if (n_published > 0)
			note_success();
		if (relay_options.verbose)
			relay_log("%d published, %d refused", n_published, n_refused);
	}
	if (unanswered() == 0)
		relay_batch_release(&batch);
	return true;
}

/*
 * False when there is a reason not to go on at once: also when the broker took
 * none of them, lest those that come back at once are tried without a pause.
 */
static bool
work_on_batch(void)
{
	bool		delivered = deliver();
	bool		some_taken = relay_batch_in_state(&batch, RELAY_REFUSED) == 0 ||
		relay_batch_in_state(&batch, RELAY_CONFIRMED) > 0;

	if (!delivered)
		drop_broker();
	if (!settle())
	{
		relay_queue_close();
		return false;
	}
	return delivered && some_taken;
}

static bool
connections_open(void)
{
	return (relay_queue_is_open() || relay_queue_open()) &&
		(relay_broker_is_open() || relay_broker_open());
}

/* at the end: whoever comes next need not wait for what we leave */
static void
leave_batch(void)
{
	if (batch.result == NULL)
		return;
	if (relay_queue_is_open() && relay_queue_settle(&batch))
		relay_queue_extend(&batch, 0);
	relay_batch_release(&batch);
}

static int
run(void)
{
	while (!must_give_up())
	{
		bool		well = connections_open();

		if (stop_requested && batch.result == NULL)
			return EXIT_SUCCESS;
		if (well && batch.result == NULL)
		{
			well = relay_queue_read(&batch);
			if (!well)
				relay_queue_close();
			else if (batch.result == NULL)
			{
				note_success();
				if (relay_options.once)
					return EXIT_SUCCESS;
				nap(relay_options.poll_s * 1000, true);
				continue;
			}
		}
		if (well)
			well = work_on_batch();
		if (!well && stop_requested)
			return EXIT_SUCCESS;
		if (!well)
			wait_before_retry();
	}
	relay_log("giving up after %d s", relay_options.give_up_s);
	return EXIT_GAVE_UP;
}

/* ------------------------------------------------------------------------
 * options
 * ------------------------------------------------------------------------ */

typedef struct OptionSpec
{
	const char *name;			/* and RELAY_NAME in the environment, unless */
	const char *variable;		/* this says another */
	const char **text;			/* where it goes: one of these three */
	int		   *number;
	bool	   *flag;
	int			min;
	int			max;
	const char *help;
} OptionSpec;

static const OptionSpec specs[] = {
	{"dsn", .text = &relay_options.dsn,
		.help = "PostgreSQL, as libpq has it; PG... variables and .pgpass apply"},
	{"amqp", .text = &relay_options.amqp_uri, .variable = "RELAY_AMQP_URI",
		.help = "amqp[s]://user:password@host:port/vhost"},
	{"amqp-file", .text = &relay_options.amqp_file,
		.help = "a file with that in its first line, which then counts"},
	{"queue", .text = &relay_options.queue,
		.help = "the queue to publish (required)"},
	{"exchange", .text = &relay_options.exchange,
		.help = "RabbitMQ's, which must exist; default: the default exchange"},
	{"routing-key", .text = &relay_options.routing_key,
		.help = "default: the message's topic, or the queue's name without one"},
	{"channel", .text = &relay_options.channel,
		.help = "NOTIFY channel of the queue, see finance.subscribe()"},
	{"tls-ca", .text = &relay_options.tls_ca,
		.help = "file of certificates to trust, for amqps://"},
	{"tls-cert", .text = &relay_options.tls_cert,
		.help = "file of our own certificate"},
	{"tls-key", .text = &relay_options.tls_key,
		.help = "file of its key"},
	{"batch", .number = &relay_options.batch, .min = 1, .max = RELAY_BATCH_MAX,
		.help = "messages read at once (100)"},
	{"vt", .number = &relay_options.vt_s, .min = 2, .max = 86400,
		.help = "seconds they are invisible to others, extended as needed (60)"},
	{"poll", .number = &relay_options.poll_s, .min = 1, .max = 86400,
		.help = "seconds between looks without a notification (5; with --channel 30)"},
	{"confirm", .number = &relay_options.confirm_s, .min = 1, .max = 3600,
		.help = "seconds the broker has to confirm (30)"},
	{"heartbeat", .number = &relay_options.heartbeat_s, .min = 1, .max = 3600,
		.help = "seconds between heartbeats of AMQP (10)"},
	{"retry", .number = &relay_options.retry_s, .min = 1, .max = 3600,
		.help = "most seconds between two tries to connect (30)"},
	{"give-up", .number = &relay_options.give_up_s, .min = 0, .max = 86400,
		.help = "end after so many seconds of failure; 0: never (0; with --once 60)"},
	{"once", .flag = &relay_options.once,
		.help = "end when the queue has nothing to read"},
	{"verbose", .flag = &relay_options.verbose,
		.help = "log each batch"},
};

#define NSPECS	((int) (sizeof(specs) / sizeof(specs[0])))

static void
show_help(void)
{
	printf("finance-relay publishes the messages of a queue to RabbitMQ, at least once each.\n\n"
		   "Usage: finance-relay --queue=NAME [OPTION]...\n\n");
	for (int i = 0; i < NSPECS; i++)
		printf("  --%-12s%s %s\n", specs[i].name,
			   specs[i].text != NULL ? "=TEXT" : specs[i].number != NULL ? "=N   " : "     ",
			   specs[i].help);
	printf("  --help, --version\n\n"
		   "Each option can be given in the environment too, as RELAY_QUEUE, RELAY_TLS_CA\n"
		   "and so on, --amqp as RELAY_AMQP_URI; passwords are better there, or in\n"
		   "--amqp-file, than on the command line, which everybody can read.\n\n"
		   "SIGTERM and SIGINT end it after the batch in hand, a second one at once.\n"
		   "Exit status: 0 ended by --once or a signal, 1 wrong usage, 2 gave up.\n");
}

static void
usage_error(const char *name, const char *what)
{
	fprintf(stderr, "finance-relay: --%s %s; see finance-relay --help\n", name, what);
	exit(EXIT_USAGE);
}

static void
set_option(const OptionSpec *spec, const char *value)
{
	char	   *end;
	long		number;

	if (spec->flag != NULL)
		*spec->flag = value == NULL || strcmp(value, "0") != 0;
	else if (spec->text != NULL)
		*spec->text = value;
	else
	{
		char		range[80];

		errno = 0;
		number = strtol(value, &end, 10);
		snprintf(range, sizeof(range), "must be a number from %d to %d", spec->min,
				 spec->max);
		if (errno != 0 || end == value || *end != '\0' ||
			number < spec->min || number > spec->max)
			usage_error(spec->name, range);
		*spec->number = (int) number;
	}
}

static void
read_environment(void)
{
	for (int i = 0; i < NSPECS; i++)
	{
		char		name[40];
		const char *value;

		snprintf(name, sizeof(name), "RELAY_%s", specs[i].name);
		for (char *c = name; *c != '\0'; c++)
			*c = *c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c;
		value = getenv(specs[i].variable != NULL ? specs[i].variable : name);
		if (value != NULL && *value != '\0')
			set_option(&specs[i], value);
	}
}

static void
read_command_line(int argc, char **argv)
{
	struct option options[NSPECS + 3];
	int			found;

	memset(options, 0, sizeof(options));
	for (int i = 0; i < NSPECS; i++)
	{
		options[i].name = specs[i].name;
		options[i].has_arg = specs[i].flag != NULL ? no_argument : required_argument;
		options[i].val = 1000 + i;
	}
	options[NSPECS].name = "help";
	options[NSPECS].val = 'h';
	options[NSPECS + 1].name = "version";
	options[NSPECS + 1].val = 'v';

	while ((found = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		if (found == 'h')
		{
			show_help();
			exit(EXIT_SUCCESS);
		}
		if (found == 'v')
		{
			printf("finance-relay %s\n", RELAY_VERSION);
			exit(EXIT_SUCCESS);
		}
		if (found < 1000)
			exit(EXIT_USAGE);	/* getopt_long() has said why */
		set_option(&specs[found - 1000], optarg);
	}
	if (optind < argc)
	{
		fprintf(stderr, "finance-relay: \"%s\" is no option; see finance-relay --help\n",
				argv[optind]);
		exit(EXIT_USAGE);
	}
}

static void
read_amqp_file(void)
{
	static char uri[URI_MAX];
	FILE	   *file = fopen(relay_options.amqp_file, "r");

	if (file == NULL || fgets(uri, sizeof(uri), file) == NULL)
		usage_error("amqp-file", "cannot be read");
	fclose(file);
	uri[strcspn(uri, "\r\n")] = '\0';
	relay_options.amqp_uri = uri;
}

/* what is left open, and what does not go together */
static void
complete_options(void)
{
	if (relay_options.queue == NULL || *relay_options.queue == '\0')
		usage_error("queue", "is missing");
	if (relay_options.amqp_file != NULL)
		read_amqp_file();
	if ((relay_options.tls_cert == NULL) != (relay_options.tls_key == NULL))
		usage_error("tls-cert", "and --tls-key go together");
	if (strlen(relay_options.exchange) > RELAY_SHORTSTR_MAX)
		usage_error("exchange", "is too long");
	if (relay_options.routing_key != NULL &&
		strlen(relay_options.routing_key) > RELAY_SHORTSTR_MAX)
		usage_error("routing-key", "is too long");
	if (relay_options.channel != NULL && strlen(relay_options.channel) > 63)
		usage_error("channel", "is too long");
	if (relay_options.poll_s == 0)
		relay_options.poll_s = relay_options.channel != NULL ? 30 : 5;
	if (relay_options.give_up_s < 0)
		relay_options.give_up_s = relay_options.once ? GIVE_UP_ONCE_S : 0;
}

static bool
set_up(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = request_stop;
	action.sa_flags = SA_RESTART;
	batch.messages = calloc((size_t) relay_options.batch, sizeof(RelayMessage));
	srandom((unsigned) time(NULL) ^ (unsigned) getpid());
	return batch.messages != NULL &&
		pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) == 0 &&
		sigaction(SIGTERM, &action, NULL) == 0 &&
		sigaction(SIGINT, &action, NULL) == 0 &&
		signal(SIGPIPE, SIG_IGN) != SIG_ERR;
}

int
main(int argc, char **argv)
{
	int			status;

	read_environment();
	read_command_line(argc, argv);
	complete_options();
	if (!set_up())
	{
		relay_log("cannot start: %s", strerror(errno));
		return EXIT_GAVE_UP;
	}
	status = run();
	leave_batch();
	relay_broker_close();
	relay_queue_close();
	free(batch.messages);
	relay_log("ends: %llu published, %llu refused",
			  (unsigned long long) published, (unsigned long long) refused);
	return status;
}
