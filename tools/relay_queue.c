/*
 * relay_queue.c
 *		PostgreSQL's side of finance-relay: reads messages, and deletes or nacks
 *		them, each time in a transaction of its own.
 *
 * Owns the connection to PostgreSQL.  Between read() and delete() no
 * transaction is open, so that a slow broker holds back no vacuum; what keeps
 * other readers away meanwhile is the visibility timeout.
 *
 * Memory: a batch's PGresult, until relay_batch_release(); one buffer for the
 * text of an array of ids.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"

#define CONNECT_TIMEOUT_S	"10"
#define TCP_USER_TIMEOUT_MS	"30000"
#define ID_DIGITS_MAX		21	/* of a bigint, with sign and comma */
#define SQLSTATE_NOT_HELD	"LG305"

/*
 * One row for each header, and one for a message without: no parser of JSON is
 * needed here then.  The payload is in the first of a message's rows only.
 */
static const char read_query[] =
	"SELECT m.msg_id, m.message_id, m.read_ct, m.topic, m.priority,"
	" pg_catalog.floor(EXTRACT(EPOCH FROM m.enqueued_at))::bigint,"
	" CASE WHEN h.n IS NULL OR h.n = 1 THEN m.message::text END, m.ordinality,"
	" h.key, pg_catalog.jsonb_typeof(h.value), h.value #>> '{}'"
	" FROM finance.read($1, $2, $3) WITH ORDINALITY AS m"
	" LEFT JOIN LATERAL pg_catalog.jsonb_each(m.headers)"
	" WITH ORDINALITY AS h (key, value, n) ON true"
	" ORDER BY m.ordinality, h.n";

static const char delete_query[] =
	"SELECT count(*) FROM finance.delete($1, $2::bigint[])";

static const char extend_query[] =
	"SELECT count(*) FROM pg_catalog.unnest($2::bigint[]) AS u (id),"
	" LATERAL finance.set_vt($1, u.id, $3)";

/* no delay is named: the queue's back-off applies */
static const char nack_query[] =
	"SELECT finance.nack($1, $2::bigint, read_ct => $3::integer, reason => $4)";

static PGconn *conn;
static char *ids;				/* room for a batch of them */

static void
log_connection(const char *what)
{
	const char *message = PQerrorMessage(conn);
	size_t		length = strcspn(message, "\n");

	relay_log("%s: %.*s", what, (int) length, message);
}

/* what the server tells beside its answers */
static void
log_notice(void *arg, const char *message)
{
	(void) arg;
	relay_log("PostgreSQL: %.*s", (int) strcspn(message, "\n"), message);
}

/* a statement's answer, or NULL when it failed, which was logged */
static PGresult *
ask(const char *what, const char *query, int nvalues, const char *const *values)
{
	PGresult   *result = PQexecParams(conn, query, nvalues, NULL, values,
									  NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);
	const char *sqlstate;

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	if (sqlstate == NULL)
		log_connection(what);
	else
		relay_log("%s: %s %s", what, sqlstate,
				  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	PQclear(result);
	return NULL;
}

static bool
listen_to(const char *channel)
{
	char	   *name = PQescapeIdentifier(conn, channel, strlen(channel));
	char		command[600];
	PGresult   *result;

	if (name == NULL)
	{
		log_connection("cannot listen");
		return false;
	}
	snprintf(command, sizeof(command), "LISTEN %s", name);
	PQfreemem(name);
	result = ask("cannot listen", command, 0, NULL);
	PQclear(result);
	return result != NULL;
}

/*
 * Connects, and listens before anything is read, so that no message falls in
 * between.
 */
bool
relay_queue_open(void)
{
	/* what comes before dbname are defaults, which the user's string overrides */
	static const char *const keywords[] = {"fallback_application_name",
		"connect_timeout", "tcp_user_timeout", "client_encoding", "dbname",
	NULL};
	const char *values[] = {"finance-relay", CONNECT_TIMEOUT_S,
		TCP_USER_TIMEOUT_MS, "UTF8", relay_options.dsn, NULL};

	relay_queue_close();
	if (ids == NULL)
		ids = malloc((size_t) relay_options.batch * ID_DIGITS_MAX + 3);
	if (ids == NULL)
	{
		relay_log("out of memory");
		return false;
	}
	conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(conn) != CONNECTION_OK)
	{
		log_connection("cannot connect to PostgreSQL");
		relay_queue_close();
		return false;
	}
	PQsetNoticeProcessor(conn, log_notice, NULL);
	if (relay_options.channel != NULL && !listen_to(relay_options.channel))
	{
		relay_queue_close();
		return false;
	}
	relay_log("connected to PostgreSQL, database \"%s\"", PQdb(conn));
	return true;
}

void
relay_queue_close(void)
{
	PQfinish(conn);
	conn = NULL;
}

bool
relay_queue_is_open(void)
{
	return conn != NULL && PQstatus(conn) == CONNECTION_OK;
}

int
relay_queue_socket(void)
{
	return PQsocket(conn);
}

/* was there a notification since the last call?  Does not wait. */
bool
relay_queue_heard(bool *heard)
{
	PGnotify   *notify;

	*heard = false;
	if (!PQconsumeInput(conn))
	{
		log_connection("lost PostgreSQL");
		return false;
	}
	while ((notify = PQnotifies(conn)) != NULL)
	{
		*heard = true;
		PQfreemem(notify);
	}
	return true;
}

/* ------------------------------------------------------------------------
 * reading
 * ------------------------------------------------------------------------ */

static void
take_message(RelayMessage *message, PGresult *result, int row)
{
	memset(message, 0, sizeof(*message));
	message->state = RELAY_WAITING;
	message->msg_id = PQgetvalue(result, row, 0);
	message->message_id = PQgetvalue(result, row, 1);
	message->read_ct = PQgetvalue(result, row, 2);
	message->topic = PQgetisnull(result, row, 3) ? NULL :
		PQgetvalue(result, row, 3);
	message->priority = atoi(PQgetvalue(result, row, 4));
	message->enqueued_at = strtoull(PQgetvalue(result, row, 5), NULL, 10);
	message->payload = PQgetvalue(result, row, 6);
	message->payload_len = (size_t) PQgetlength(result, row, 6);
	message->row = row;
	message->rows = 1;
}

/* up to a batch of messages; none is no failure */
bool
relay_queue_read(RelayBatch *batch)
{
	char		vt[12];
	char		qty[12];
	const char *values[] = {relay_options.queue, vt, qty};
	int			rows;

	snprintf(vt, sizeof(vt), "%d", relay_options.vt_s);
	snprintf(qty, sizeof(qty), "%d", relay_options.batch);
	batch->count = 0;
	batch->claimed_ms = relay_now_ms();
	batch->result = ask("cannot read", read_query, 3, values);
	if (batch->result == NULL)
		return false;

	rows = PQntuples(batch->result);
	for (int row = 0; row < rows; row++)
	{
		if (row > 0 && strcmp(PQgetvalue(batch->result, row, 7),
							  PQgetvalue(batch->result, row - 1, 7)) == 0)
			batch->messages[batch->count - 1].rows++;
		else if (batch->count < relay_options.batch)
			take_message(&batch->messages[batch->count++], batch->result, row);
	}
	if (batch->count == 0)
		relay_batch_release(batch);
	return true;
}

/* ------------------------------------------------------------------------
 * acknowledging
 * ------------------------------------------------------------------------ */

/* the ids of messages from one state to another as an array's text */
static int
list_ids(const RelayBatch *batch, RelayState from, RelayState to)
{
	char	   *end = ids;
	int			found = 0;

	*end++ = '{';
	for (int i = 0; i < batch->count; i++)
	{
		const RelayMessage *message = &batch->messages[i];

		if (message->state < from || message->state > to)
			continue;
		if (found++ > 0)
			*end++ = ',';
		strcpy(end, message->msg_id);
		end += strlen(end);
	}
	strcpy(end, "}");
	return found;
}

/*
 * Messages that are not settled stay ours for so many seconds from now; with 0
 * anyone may read them.
 */
bool
relay_queue_extend(RelayBatch *batch, int vt_s)
{
	char		vt[12];
	const char *values[] = {relay_options.queue, ids, vt};
	PGresult   *result;

	snprintf(vt, sizeof(vt), "%d", vt_s);
	if (list_ids(batch, RELAY_WAITING, RELAY_REFUSED) == 0)
		return true;
	batch->claimed_ms = relay_now_ms();
	result = ask("cannot extend the visibility timeout", extend_query, 3, values);
	PQclear(result);
	return result != NULL;
}

/*
 * A message that somebody else has read since is theirs: then there is nothing
 * to nack.
 */
static bool
nack(const RelayMessage *message)
{
	const char *values[] = {relay_options.queue, message->msg_id,
		message->read_ct, message->reason};
	PGresult   *result = PQexecParams(conn, nack_query, 4, NULL, values,
									  NULL, NULL, 0);
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	bool		done = PQresultStatus(result) == PGRES_TUPLES_OK ||
		(sqlstate != NULL && strcmp(sqlstate, SQLSTATE_NOT_HELD) == 0);

	if (!done && sqlstate == NULL)
		log_connection("cannot nack");
	else if (!done)
		relay_log("cannot nack message %s: %s %s", message->message_id, sqlstate,
				  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	PQclear(result);
	return done;
}

/*
 * Deletes what was confirmed and nacks what was refused.  After a failure it
 * can be called again on another connection: to delete twice does no harm.
 */
bool
relay_queue_settle(RelayBatch *batch)
{
	const char *values[] = {relay_options.queue, ids};

	if (list_ids(batch, RELAY_CONFIRMED, RELAY_CONFIRMED) > 0)
	{
		PGresult   *result = ask("cannot delete", delete_query, 2, values);

		if (result == NULL)
			return false;
		PQclear(result);
	}
	for (int i = 0; i < batch->count; i++)
	{
		RelayMessage *message = &batch->messages[i];

		if (message->state == RELAY_CONFIRMED)
			message->state = RELAY_SETTLED;
		else if (message->state == RELAY_REFUSED)
		{
			if (!nack(message))
				return false;
			relay_log("message %s refused: %s", message->message_id,
					  message->reason);
			message->state = RELAY_SETTLED;
		}
	}
	return true;
}
