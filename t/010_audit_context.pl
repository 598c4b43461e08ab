# Audit log: what a connection brings along: settings in its startup packet,
# its address; and the same without shared_preload_libraries.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# the leaf of src/audit_row.h, in SQL
my $leaf_differs = q{
	SELECT count(*) FROM finance.audit_record r,
	LATERAL (SELECT string_agg(coalesce(int4send(length(f)) || f, '\xffffffff'), '' ORDER BY o) AS fields
		FROM unnest(ARRAY[int8send(id), timestamptz_send(recorded_at), xid8send(xid),
			int8send(system_identifier), int4send(tenant_id), int4send(sequence), uuid_send(trace_id), int8send(message_id),
			int8send(transfer_id), int8send(account_id), int8send(counterparty_id),
			int8send(account_version), int8send(counterparty_version), payload_hash,
			inet_send(client_addr), convert_to(actor, 'UTF8'), convert_to(session_user_name, 'UTF8'),
			convert_to(role_name, 'UTF8'), convert_to(application_name, 'UTF8'), convert_to(user_agent, 'UTF8'),
			convert_to(span_id, 'UTF8'), convert_to(request_id, 'UTF8'), convert_to(reason, 'UTF8'),
			convert_to(operation, 'UTF8'), convert_to(status, 'UTF8'),
			convert_to(object, 'UTF8'), convert_to(row_key, 'UTF8'), convert_to(currency, 'UTF8'),
			convert_to(amount::text, 'UTF8'), convert_to(balance_before::text, 'UTF8'),
			convert_to(balance_after::text, 'UTF8'),
			convert_to(counterparty_balance_before::text, 'UTF8'),
			convert_to(counterparty_balance_after::text, 'UTF8')]) WITH ORDINALITY AS u (f, o)) AS l
	WHERE sha256('\x00' || int2send(leaf_version) || fields) IS DISTINCT FROM leaf_hash};

# runs SQL with these options in the startup packet
sub with_options
{
	my ($node, $options, $sql, %params) = @_;

	local $ENV{PGOPTIONS} = $options;
	my ($code, $out, $err) = $node->psql('postgres', $sql,
		on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ], %params);
	return ($code, $out, $err);
}

sub check_startup_packet
{
	my ($node, $how) = @_;
	my ($code, $out, $err);
	my $insert = 'INSERT INTO item VALUES (DEFAULT)';

	($code, $out, $err) =
	  with_options($node, '-c finance.user_agent=till/1.0 -c finance.actor=clerk', $insert);
	is($code, 0, "$how: settings in the startup packet");
	is($node->safe_psql('postgres',
			'SELECT actor, user_agent FROM finance.audit_record ORDER BY id DESC LIMIT 1'),
		'clerk|till/1.0', "$how: are in the record");

	my $records = $node->safe_psql('postgres', 'SELECT count(*) FROM finance.audit_record');
	($code, $out, $err) = with_options($node, "-c finance.user_agent=till\xff", $insert);
	isnt($code, 0, "$how: a user agent that is not valid UTF-8 is refused");
	like($err, qr/22021: *finance\.user_agent is not valid in encoding/, "$how: with 22021");
	($code, $out, $err) = with_options($node, "-c finance.actor=caf\xe9", $insert);
	like($err, qr/22021: *finance\.actor is not valid/, "$how: an actor as well");
	($code, $out, $err) =
	  with_options($node, '-c finance.user_agent=' . ('x' x 1025), $insert);
	like($err, qr/22001: *finance\.user_agent is too long/, "$how: one of 1025 bytes");
	($code, $out, $err) = with_options($node, '-c finance.trace_id=x', $insert);
	like($err, qr/22P02/, "$how: a trace id that is no UUID");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM finance.audit_record'),
		$records, "$how: and nothing is recorded");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM item'),
		$node->safe_psql('postgres',
			"SELECT count(*) FROM finance.audit_record WHERE operation = 'INSERT'"),
		"$how: nor changed");
}

my $node = PostgreSQL::Test::Cluster->new('audit_context');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
	SELECT finance.audit_table('item')});
check_startup_packet($node, 'preloaded');

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->restart;
check_startup_packet($node, 'not preloaded');

# an address
my $port = $node->port;
$node->safe_psql('postgres', 'INSERT INTO item VALUES (DEFAULT)',
	connstr => "host=127.0.0.1 port=$port dbname=postgres");
is($node->safe_psql('postgres',
		'SELECT client_addr FROM finance.audit_record ORDER BY id DESC LIMIT 1'),
	'127.0.0.1', 'client address');
is($node->safe_psql('postgres', $leaf_differs), '0',
	'every leaf hash is that of the documented encoding');

# another encoding: text is hashed in UTF-8
$node->safe_psql('postgres',
	"CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
$node->safe_psql('latin', qq{
	SET client_encoding = 'UTF8';
	CREATE EXTENSION finance;
	CREATE TABLE item (name text PRIMARY KEY);
	SELECT finance.audit_table('item');
	SET finance.actor = 'caf\xc3\xa9';
	INSERT INTO item VALUES ('\xc3\xbcber')});
is($node->safe_psql('latin', $leaf_differs), '0', 'also in a LATIN1 database');
is($node->safe_psql('latin', q{
		SELECT count(*) FROM finance.audit_record
		WHERE operation = 'INSERT' AND length(actor) = 4
		  AND payload_hash = sha256('\x02' || salt
			|| int4send(length(convert_to(request::text, 'UTF8')))
			|| convert_to(request::text, 'UTF8') || '\xffffffff')}),
	'1', 'and its payload hash');

$node->stop;
done_testing();
