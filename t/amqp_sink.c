/*
 * amqp_sink.c
 *		The receiving end of the tests of finance-relay.
 *
 *		amqp_sink declare URI QUEUE EXCHANGE KEY [LENGTH]
 *			a durable queue, bound to a durable topic exchange; with LENGTH it
 *			refuses what is more
 *		amqp_sink drain URI QUEUE
 *			takes all there is, and prints a line for each message: fields
 *			name=value separated by tabs, the body last
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<rabbitmq-c/amqp.h>)
#define SINK_NEW_HEADERS
#endif
#endif
#ifdef SINK_NEW_HEADERS
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

static amqp_connection_state_t conn;

static void
check(const char *what, amqp_rpc_reply_t reply)
{
	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return;
	fprintf(stderr, "amqp_sink: %s failed: type %d, %s\n", what, reply.reply_type,
			amqp_error_string2(reply.library_error));
	exit(1);
}

static void
connect_to(char *uri)
{
	struct amqp_connection_info info;
	amqp_socket_t *socket;

	conn = amqp_new_connection();
	socket = amqp_tcp_socket_new(conn);
	if (amqp_parse_url(uri, &info) != AMQP_STATUS_OK ||
		amqp_socket_open(socket, info.host, info.port) != AMQP_STATUS_OK)
	{
		fprintf(stderr, "amqp_sink: cannot connect\n");
		exit(1);
	}
	check("login", amqp_login(conn, *info.vhost == '\0' ? "/" : info.vhost, 0,
							  131072, 0, AMQP_SASL_METHOD_PLAIN, info.user,
							  info.password));
	amqp_channel_open(conn, 1);
	check("channel", amqp_get_rpc_reply(conn));
}

static void
declare(char **argv, int argc)
{
	amqp_table_entry_t limits[2];
	amqp_table_t arguments = {0, limits};

	if (argc > 4)
	{
		limits[0].key = amqp_cstring_bytes("x-max-length");
		limits[0].value.kind = AMQP_FIELD_KIND_I32;
		limits[0].value.value.i32 = atoi(argv[4]);
		limits[1].key = amqp_cstring_bytes("x-overflow");
		limits[1].value.kind = AMQP_FIELD_KIND_UTF8;
		limits[1].value.value.bytes = amqp_cstring_bytes("reject-publish");
		arguments.num_entries = 2;
	}
	amqp_queue_declare(conn, 1, amqp_cstring_bytes(argv[1]), 0, 1, 0, 0, arguments);
	check("queue", amqp_get_rpc_reply(conn));
	amqp_exchange_declare(conn, 1, amqp_cstring_bytes(argv[2]),
						  amqp_cstring_bytes("topic"), 0, 1, 0, 0, amqp_empty_table);
	check("exchange", amqp_get_rpc_reply(conn));
	amqp_queue_bind(conn, 1, amqp_cstring_bytes(argv[1]),
					amqp_cstring_bytes(argv[2]), amqp_cstring_bytes(argv[3]),
					amqp_empty_table);
	check("binding", amqp_get_rpc_reply(conn));
}

static void
print_bytes(const char *name, amqp_bytes_t bytes)
{
	printf("%s=%.*s\t", name, (int) bytes.len, (const char *) bytes.bytes);
}

static void
print_header(const amqp_table_entry_t *entry)
{
	printf("header.%.*s=", (int) entry->key.len, (const char *) entry->key.bytes);
	switch (entry->value.kind)
	{
		case AMQP_FIELD_KIND_UTF8:
			printf("text:%.*s\t", (int) entry->value.value.bytes.len,
				   (const char *) entry->value.value.bytes.bytes);
			break;
		case AMQP_FIELD_KIND_I64:
			printf("integer:%" PRId64 "\t", entry->value.value.i64);
			break;
		case AMQP_FIELD_KIND_BOOLEAN:
			printf("boolean:%s\t", entry->value.value.boolean ? "true" : "false");
			break;
		case AMQP_FIELD_KIND_VOID:
			printf("null:\t");
			break;
		default:
			printf("kind %c:\t", entry->value.kind);
	}
}

static void
print_message(const amqp_basic_get_ok_t *got, const amqp_message_t *message)
{
	const amqp_basic_properties_t *p = &message->properties;

	print_bytes("key", got->routing_key);
	printf("redelivered=%d\t", got->redelivered);
	if (p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG)
		print_bytes("message_id", p->message_id);
	if (p->_flags & AMQP_BASIC_TYPE_FLAG)
		print_bytes("type", p->type);
	if (p->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG)
		print_bytes("content_type", p->content_type);
	if (p->_flags & AMQP_BASIC_APP_ID_FLAG)
		print_bytes("app_id", p->app_id);
	if (p->_flags & AMQP_BASIC_PRIORITY_FLAG)
		printf("priority=%d\t", p->priority);
	if (p->_flags & AMQP_BASIC_DELIVERY_MODE_FLAG)
		printf("delivery_mode=%d\t", p->delivery_mode);
	if (p->_flags & AMQP_BASIC_TIMESTAMP_FLAG)
		printf("timestamp=%" PRIu64 "\t", p->timestamp);
	if (p->_flags & AMQP_BASIC_HEADERS_FLAG)
	{
		for (int i = 0; i < p->headers.num_entries; i++)
			print_header(&p->headers.entries[i]);
	}
	print_bytes("body", message->body);
	printf("\n");
}

static void
drain(char **argv)
{
	for (;;)
	{
		amqp_rpc_reply_t reply = amqp_basic_get(conn, 1, amqp_cstring_bytes(argv[1]), 1);
		amqp_message_t message;
		amqp_basic_get_ok_t got;

		check("get", reply);
		if (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD)
			return;
		got = *(amqp_basic_get_ok_t *) reply.reply.decoded;
		check("message", amqp_read_message(conn, 1, &message, 0));
		print_message(&got, &message);
		amqp_destroy_message(&message);
		amqp_maybe_release_buffers(conn);
	}
}

int
main(int argc, char **argv)
{
	if (argc < 4)
		return 1;
	connect_to(argv[2]);
	if (strcmp(argv[1], "declare") == 0 && argc >= 6)
		declare(argv + 2, argc - 2);
	else if (strcmp(argv[1], "drain") == 0)
		drain(argv + 2);
	else
		return 1;
	check("close", amqp_connection_close(conn, AMQP_REPLY_SUCCESS));
	return 0;
}
