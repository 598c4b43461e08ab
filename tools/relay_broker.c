/*
 * relay_broker.c
 *		RabbitMQ's side of finance-relay: publishes, and takes in what the broker
 *		says of each message.
 *
 * Owns the connection and its one channel, in confirm mode.  Every message is
 * persistent and mandatory; the broker answers each with an ack, with a nack,
 * or with its return and then an ack.  Tags count from 1 on a new channel, so
 * tags of messages mean nothing once the connection is gone:
 * relay_batch_unsend() must follow.
 *
 * When the broker closes the channel because of a message, it does not say
 * which.  Then messages go one by one until one is confirmed or to blame
 * (one_by_one), lest one bad message keeps a whole batch from going.
 *
 * Memory: frames lie in the library's pools, given back after each; an array
 * of the headers of one message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* the headers moved with version 0.12 */
#if defined(__has_include)
#if __has_include(<rabbitmq-c/amqp.h>)
#define RELAY_NEW_HEADERS
#endif
#endif
#ifdef RELAY_NEW_HEADERS
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

#include "relay.h"

#define CHANNEL				1
#define FRAME_BYTES_MAX		131072
#define CONNECT_TIMEOUT_S	10
#define PERSISTENT			2
#define PUMP_EVERY			64	/* messages published between two looks */
#define ENTRY_BYTES			16	/* at most, of a header beside its texts */
#define PROPERTY_BYTES		1200	/* at most, of all other properties */

/* replies that are about the message, not about rights or the network */
#define REPLY_CONTENT_TOO_LARGE		311
#define REPLY_PRECONDITION_FAILED	406
#define REPLY_FRAME_ERROR			501
#define REPLY_SYNTAX_ERROR			502

static amqp_connection_state_t conn;
static uint64_t last_tag;
static bool one_by_one;
static amqp_table_entry_t entries[RELAY_HEADERS_MAX];

/* ------------------------------------------------------------------------
 * what went wrong
 * ------------------------------------------------------------------------ */

static int
bytes_length(amqp_bytes_t bytes)
{
	return bytes.len > RELAY_REASON_MAX ? RELAY_REASON_MAX : (int) bytes.len;
}

static void
log_close(const char *what, int code, amqp_bytes_t text)
{
	relay_log("%s: %d %.*s", what, code, bytes_length(text),
			  (const char *) text.bytes);
}

static void
log_status(const char *what, int status)
{
	relay_log("%s: %s", what, amqp_error_string2(status));
}

/* did a call that waits for its answer succeed? */
static bool
succeeded(const char *what, amqp_rpc_reply_t reply)
{
	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return true;
	if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
		log_status(what, reply.library_error);
	else if (reply.reply_type == AMQP_RESPONSE_NONE)
		relay_log("%s: no answer", what);
	else if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
	{
		amqp_channel_close_t *close = reply.reply.decoded;

		log_close(what, close->reply_code, close->reply_text);
	}
	else if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
	{
		amqp_connection_close_t *close = reply.reply.decoded;

		log_close(what, close->reply_code, close->reply_text);
	}
	else
		relay_log("%s: unexpected answer %#x", what, (unsigned) reply.reply.id);
	return false;
}

/* ------------------------------------------------------------------------
 * connecting
 * ------------------------------------------------------------------------ */

static bool
tls_is_set_up(amqp_socket_t *socket)
{
	int			status;

	/* this version of the library has no default for whom to trust */
	if (relay_options.tls_ca == NULL)
	{
		relay_log("amqps:// needs --tls-ca, the certificates to trust");
		return false;
	}
	amqp_ssl_socket_set_verify_peer(socket, 1);
	amqp_ssl_socket_set_verify_hostname(socket, 1);
	status = amqp_ssl_socket_set_cacert(socket, relay_options.tls_ca);
	if (status != AMQP_STATUS_OK)
	{
		log_status("cannot use --tls-ca", status);
		return false;
	}
	if (relay_options.tls_cert == NULL)
		return true;
	status = amqp_ssl_socket_set_key(socket, relay_options.tls_cert,
									 relay_options.tls_key);
	if (status != AMQP_STATUS_OK)
		log_status("cannot use --tls-cert and --tls-key", status);
	return status == AMQP_STATUS_OK;
}

static bool
opened_socket(const struct amqp_connection_info *info)
{
	struct timeval patience = {CONNECT_TIMEOUT_S, 0};
	amqp_socket_t *socket = info->ssl ? amqp_ssl_socket_new(conn) :
		amqp_tcp_socket_new(conn);
	int			status;

	if (socket == NULL)
	{
		relay_log("out of memory");
		return false;
	}
	if (info->ssl && !tls_is_set_up(socket))
		return false;
	status = amqp_socket_open_noblock(socket, info->host, info->port, &patience);
	if (status != AMQP_STATUS_OK)
		log_status("cannot connect to RabbitMQ", status);
	return status == AMQP_STATUS_OK;
}

/* the name shows in RabbitMQ's list of connections */
static bool
logged_in(const struct amqp_connection_info *info)
{
	char		name[RELAY_SHORTSTR_MAX];
	amqp_table_entry_t property = {.key = amqp_cstring_bytes("connection_name")};
	amqp_table_t properties = {1, &property};
	struct timeval patience = {CONNECT_TIMEOUT_S, 0};

	snprintf(name, sizeof(name), "finance-relay %s", relay_options.queue);
	property.value.kind = AMQP_FIELD_KIND_UTF8;
	property.value.value.bytes = amqp_cstring_bytes(name);
	amqp_set_handshake_timeout(conn, &patience);
	amqp_set_rpc_timeout(conn, &patience);
	return succeeded("RabbitMQ refuses the connection",
					 amqp_login_with_properties(conn,
												*info->vhost == '\0' ? "/" : info->vhost,
												0, FRAME_BYTES_MAX,
												relay_options.heartbeat_s,
												&properties, AMQP_SASL_METHOD_PLAIN,
												info->user, info->password));
}

/* a missing exchange shows now, before any message is read for it */
static bool
opened_channel(void)
{
	amqp_channel_open(conn, CHANNEL);
	if (!succeeded("cannot open a channel", amqp_get_rpc_reply(conn)))
		return false;
	if (*relay_options.exchange != '\0')
	{
		amqp_exchange_declare(conn, CHANNEL,
							  amqp_cstring_bytes(relay_options.exchange),
							  amqp_cstring_bytes("topic"), true, false, false,
							  false, amqp_empty_table);
		if (!succeeded("cannot use the exchange", amqp_get_rpc_reply(conn)))
			return false;
	}
	amqp_confirm_select(conn, CHANNEL);
	return succeeded("RabbitMQ does not confirm", amqp_get_rpc_reply(conn));
}

bool
relay_broker_open(void)
{
	struct amqp_connection_info info;
	char	   *uri = strdup(relay_options.amqp_uri);

	relay_broker_close();
	conn = amqp_new_connection();
	if (uri == NULL || conn == NULL)
		relay_log("out of memory");
	else if (amqp_parse_url(uri, &info) != AMQP_STATUS_OK)
		relay_log("the AMQP URI is not valid");
	else if (opened_socket(&info) && logged_in(&info) && opened_channel())
	{
		relay_log("connected to RabbitMQ at %s:%d", info.host, info.port);
		last_tag = 0;
		amqp_maybe_release_buffers(conn);
		free(uri);
		return true;
	}
	free(uri);
	relay_broker_close();
	return false;
}

void
relay_broker_close(void)
{
	if (conn == NULL)
		return;

	/*
	 * No polite good-bye to a broker that may not answer: closing the socket
	 * is enough, since nothing unconfirmed counts as sent.
	 */
	amqp_destroy_connection(conn);
	conn = NULL;
}

bool
relay_broker_is_open(void)
{
	return conn != NULL;
}

int
relay_broker_socket(void)
{
	return amqp_get_sockfd(conn);
}

/* ------------------------------------------------------------------------
 * what the broker says
 * ------------------------------------------------------------------------ */

static void
answer(RelayBatch *batch, uint64_t tag, bool multiple, RelayState state)
{
	for (int i = 0; i < batch->count; i++)
	{
		RelayMessage *message = &batch->messages[i];

		if (message->state != RELAY_SENT ||
			(multiple ? message->tag > tag : message->tag != tag))
			continue;
		if (state == RELAY_REFUSED)
			relay_refuse(message, "RabbitMQ could not take it (basic.nack)");
		else
			message->state = state;
	}
}

/*
 * A mandatory message that no queue is bound for comes back, and is
 * acknowledged after that.  It is known by its message_id; copies of one
 * message in the same batch go the same way.
 */
static bool
take_return(RelayBatch *batch, const amqp_basic_return_t *returned)
{
	amqp_message_t content;
	int			code = returned->reply_code;
	char		text[RELAY_REASON_MAX];
	char		key[RELAY_SHORTSTR_MAX + 1];

	/* reading on may reuse the memory of the frame */
	snprintf(text, sizeof(text), "%.*s", bytes_length(returned->reply_text),
			 (const char *) returned->reply_text.bytes);
	snprintf(key, sizeof(key), "%.*s", (int) returned->routing_key.len,
			 (const char *) returned->routing_key.bytes);
	if (!succeeded("lost RabbitMQ",
				   amqp_read_message(conn, CHANNEL, &content, 0)))
		return false;
	for (int i = 0; i < batch->count; i++)
	{
		RelayMessage *message = &batch->messages[i];

		if (message->state == RELAY_SENT &&
			strlen(message->message_id) == content.properties.message_id.len &&
			memcmp(message->message_id, content.properties.message_id.bytes,
				   content.properties.message_id.len) == 0)
			relay_refuse(message, "returned by RabbitMQ: %d %s, routing key \"%s\"",
						 code, text, key);
	}
	amqp_destroy_message(&content);
	return true;
}

/* the broker ended the channel or the connection: whose fault is it? */
static void
take_close(RelayBatch *batch, int code, amqp_bytes_t text)
{
	bool		blames_message = code == REPLY_CONTENT_TOO_LARGE ||
		code == REPLY_PRECONDITION_FAILED ||
		code == REPLY_FRAME_ERROR || code == REPLY_SYNTAX_ERROR;
	int			sent = relay_batch_in_state(batch, RELAY_SENT);

	log_close("RabbitMQ closes", code, text);
	if (!blames_message || sent == 0)
		return;
	if (sent == 1)
	{
		one_by_one = false;
		for (int i = 0; i < batch->count; i++)
		{
			if (batch->messages[i].state == RELAY_SENT)
				relay_refuse(&batch->messages[i], "RabbitMQ: %d %.*s", code,
							 bytes_length(text), (const char *) text.bytes);
		}
	}
	else
		one_by_one = true;
}

/* false when that was the end of the connection */
static bool
take_method(RelayBatch *batch, const amqp_method_t *method)
{
	switch (method->id)
	{
		case AMQP_BASIC_ACK_METHOD:
			{
				amqp_basic_ack_t *ack = method->decoded;

				answer(batch, ack->delivery_tag, ack->multiple, RELAY_CONFIRMED);
				return true;
			}
		case AMQP_BASIC_NACK_METHOD:
			{
				amqp_basic_nack_t *nack = method->decoded;

				answer(batch, nack->delivery_tag, nack->multiple, RELAY_REFUSED);
				return true;
			}
		case AMQP_BASIC_RETURN_METHOD:
			return take_return(batch, method->decoded);
		case AMQP_CHANNEL_CLOSE_METHOD:
			{
				amqp_channel_close_t *close = method->decoded;

				take_close(batch, close->reply_code, close->reply_text);
				return false;
			}
		case AMQP_CONNECTION_CLOSE_METHOD:
			{
				amqp_connection_close_t *close = method->decoded;

				take_close(batch, close->reply_code, close->reply_text);
				return false;
			}
		default:
			return true;		/* nothing that concerns us */
	}
}

/*
 * Takes in all that has come, having waited up to wait_ms for the first of it.
 * The library sends and checks heartbeats in here, so this must be called more
 * often than those are due.
 */
bool
relay_broker_pump(RelayBatch *batch, int wait_ms)
{
	for (;;)
	{
		struct timeval patience = {wait_ms / 1000, wait_ms % 1000 * 1000};
		amqp_frame_t frame;
		int			status;

		amqp_maybe_release_buffers(conn);
		status = amqp_simple_wait_frame_noblock(conn, &frame, &patience);
		if (status == AMQP_STATUS_TIMEOUT)
			return true;
		if (status != AMQP_STATUS_OK)
		{
			log_status("lost RabbitMQ", status);
			return false;
		}
		if (frame.frame_type == AMQP_FRAME_METHOD &&
			!take_method(batch, &frame.payload.method))
			return false;
		wait_ms = 0;
	}
}

/* ------------------------------------------------------------------------
 * publishing
 * ------------------------------------------------------------------------ */

/*
 * One header, from jsonb.  Whole numbers that fit go as such; of others a
 * double would change the value, so they go as their digits.  Objects and
 * arrays go as JSON text.
 */
static void
convert_header(amqp_field_value_t *field, const char *type, const char *text,
			   int length)
{
	bool		is_null = strcmp(type, "null") == 0;

	field->kind = is_null ? AMQP_FIELD_KIND_VOID : AMQP_FIELD_KIND_UTF8;
	field->value.bytes.bytes = (void *) text;
	field->value.bytes.len = (size_t) length;
	if (strcmp(type, "boolean") == 0)
	{
		field->kind = AMQP_FIELD_KIND_BOOLEAN;
		field->value.boolean = *text == 't';
	}
	else if (strcmp(type, "number") == 0 && length <= 18 &&
			 strspn(text, "-0123456789") == (size_t) length)
	{
		field->kind = AMQP_FIELD_KIND_I64;
		field->value.i64 = strtoll(text, NULL, 10);
	}
}

/* fills entries; false when the message cannot be published, and is refused */
static bool
convert_headers(const PGresult *result, RelayMessage *message,
				amqp_table_t *table)
{
	size_t		room = (size_t) amqp_get_frame_max(conn) - PROPERTY_BYTES;
	size_t		used = 0;

	table->entries = entries;
	table->num_entries = 0;
	if (PQgetisnull(result, message->row, RELAY_COL_HEADER))
		return true;
	if (message->rows > RELAY_HEADERS_MAX)
	{
		relay_refuse(message, "it has more than %d headers", RELAY_HEADERS_MAX);
		return false;
	}
	for (int row = message->row; row < message->row + message->rows; row++)
	{
		amqp_table_entry_t *entry = &entries[table->num_entries++];
		int			key_len = PQgetlength(result, row, RELAY_COL_HEADER);
		int			value_len = PQgetlength(result, row, RELAY_COL_HEADER_VALUE);

		if (key_len > RELAY_SHORTSTR_MAX)
		{
			relay_refuse(message, "the name of a header is longer than %d bytes",
						 RELAY_SHORTSTR_MAX);
			return false;
		}
		used += (size_t) key_len + (size_t) value_len + ENTRY_BYTES;
		if (used > room)
		{
			relay_refuse(message, "its headers are larger than a frame of AMQP");
			return false;
		}
		entry->key.bytes = PQgetvalue(result, row, RELAY_COL_HEADER);
		entry->key.len = (size_t) key_len;
		convert_header(&entry->value,
					   PQgetvalue(result, row, RELAY_COL_HEADER_TYPE),
					   PQgetvalue(result, row, RELAY_COL_HEADER_VALUE), value_len);
	}
	return true;
}

static bool
publish(const RelayBatch *batch, RelayMessage *message)
{
	const char *key = relay_options.routing_key != NULL ? relay_options.routing_key :
		message->topic != NULL ? message->topic : relay_options.queue;
	amqp_basic_properties_t properties;
	amqp_bytes_t body = {message->payload_len, (void *) message->payload};
	int			status;

	memset(&properties, 0, sizeof(properties));
	if (!convert_headers(batch->result, message, &properties.headers))
		return true;			/* nothing was sent, all is well otherwise */
	properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG |
		AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG |
		AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
		AMQP_BASIC_APP_ID_FLAG;
	properties.content_type = amqp_cstring_bytes("application/json");
	properties.delivery_mode = PERSISTENT;
	properties.priority = (uint8_t) message->priority;
	properties.message_id = amqp_cstring_bytes(message->message_id);
	properties.timestamp = message->enqueued_at;
	properties.app_id = amqp_cstring_bytes("finance");
	if (message->topic != NULL)
	{
		properties._flags |= AMQP_BASIC_TYPE_FLAG;
		properties.type = amqp_cstring_bytes(message->topic);
	}
	if (properties.headers.num_entries > 0)
		properties._flags |= AMQP_BASIC_HEADERS_FLAG;

	status = amqp_basic_publish(conn, CHANNEL,
								amqp_cstring_bytes(relay_options.exchange),
								amqp_cstring_bytes(key), true, false,
								&properties, body);
	if (status != AMQP_STATUS_OK)
	{
		log_status("lost RabbitMQ", status);
		return false;
	}
	message->tag = ++last_tag;
	message->state = RELAY_SENT;
	return true;
}

/*
 * Gives the broker what waits: all of it; or, while looking for the message to
 * blame, the next one when the one before is answered.  The search ends with
 * the last of the batch at the latest.
 */
bool
relay_broker_publish(RelayBatch *batch)
{
	if (one_by_one && relay_batch_in_state(batch, RELAY_SENT) > 0)
		return true;
	if (relay_batch_in_state(batch, RELAY_WAITING) <= 1)
		one_by_one = false;
	for (int i = 0; i < batch->count; i++)
	{
		if (batch->messages[i].state != RELAY_WAITING)
			continue;
		if (!publish(batch, &batch->messages[i]))
			return false;
		if (one_by_one)
			return true;
		/* so that neither side has to buffer for long */
		if (i % PUMP_EVERY == PUMP_EVERY - 1 && !relay_broker_pump(batch, 0))
			return false;
	}
	return true;
}
