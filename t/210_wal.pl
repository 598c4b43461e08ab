# The WAL as an outbox: what wal2json, and pgoutput as Debezium uses it, make of
# messages.  Each committed one is there, in the order of commits, and no
# aborted one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{FIN_PG_CONFIG} // $ENV{PG_CONFIG} // 'pg_config';
chomp(my $libraries = `$pg_config --pkglibdir`);
my $has_wal2json = -e "$libraries/wal2json.so";

my $node = finance_node('main', allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "wal_level = logical\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');

# One queue is the outbox; another is there to show that it stays out.
$node->safe_psql('postgres', q(
SELECT finance.create_queue('other'), finance.create_queue('outbox');
SELECT finance.bind_topic('#', 'outbox'), finance.bind_topic('order.*', 'other');
SELECT finance.create_account('bank', 'EUR', min_available => NULL), finance.create_account('alice', 'EUR');
));
my $outbox = $node->safe_psql('postgres', "SELECT queue_id FROM finance.queue WHERE name = 'outbox'");
my $with_key = $node->safe_psql('postgres', q(
SELECT count(*) FROM pg_attribute
WHERE attrelid = 'finance.message'::regclass AND attname = 'ordering_key')) > 0;

# what the README tells to do, for Debezium and its like
$node->safe_psql('postgres', qq(
CREATE PUBLICATION outbox FOR TABLE finance.message
	WHERE (queue_id = $outbox AND topic IS NOT NULL)
	WITH (publish = 'insert', publish_via_partition_root = true);
SELECT pg_create_logical_replication_slot('outbox', 'pgoutput');
));
if ($has_wal2json)
{
	# newer minor releases ask for permission
	if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'"))
	{
		$node->safe_psql('postgres', 'ALTER SYSTEM SET output_plugin_libraries = pgoutput, wal2json');
		$node->reload;
	}
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_create_logical_replication_slot('json', 'wal2json')");
}

# ------------------------------------------------------------------------
# reading the streams
# ------------------------------------------------------------------------

# Insertions into the outbox as wal2json has them: a hash of the columns for
# each.  It names partitions; of all tables of the schema those are kept that
# belong to the queue.
sub from_wal2json
{
	my @changes;

	return () unless $has_wal2json;
	foreach my $line (
		split /\n/, $node->safe_psql('postgres', q(
SELECT data FROM pg_logical_slot_get_changes('json', NULL, NULL,
	'format-version', '2', 'add-tables', 'finance.*', 'actions', 'insert,truncate'))))
	{
		my $change = JSON::PP->new->allow_bignum->decode($line);

		next unless $change->{action} eq 'I' && $change->{table} =~ /^message_${outbox}(_[0-9]+)?$/;
		push @changes, { map { $_->{name} => $_->{value} } @{ $change->{columns} } };
	}
	return @changes;
}

# A reader of pgoutput's protocol, version 1: strings end with a zero byte,
# integers have the network's order.
sub from_pgoutput
{
	my (%relations, @changes);

	foreach my $hex (
		split /\n/, $node->safe_psql('postgres', q(
SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('outbox', NULL, NULL,
	'proto_version', '1', 'publication_names', 'outbox'))))
	{
		my $message = pack('H*', $hex);
		my $kind = substr($message, 0, 1);

		if ($kind eq 'R')
		{
			my ($oid, $schema, $name, $identity, $count, $rest) = unpack('x N Z* Z* a n a*', $message);
			my @columns;

			foreach (1 .. $count)
			{
				(undef, my $column, undef, undef, $rest) = unpack('C Z* N N a*', $rest);
				push @columns, $column;
			}
			$relations{$oid} = { name => "$schema.$name", columns => \@columns };
		}
		elsif ($kind eq 'I')
		{
			my ($oid, $new, $count, $rest) = unpack('x N a n a*', $message);
			my %row = (relation => $relations{$oid}{name});

			foreach my $column (@{ $relations{$oid}{columns} })
			{
				my $form = substr($rest, 0, 1, '');

				$row{$column} = undef;
				($row{$column}, $rest) = unpack('N/a a*', $rest) if $form eq 't';
			}
			push @changes, \%row;
		}
		elsif ($kind !~ /[BCOY]/)
		{
			push @changes, { relation => "unexpected message $kind" };
		}
	}
	return @changes;
}

# the payloads that both saw since the last time
sub streams_are
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(join(' ', map { $_->{payload} } from_pgoutput()), $expected, "pgoutput: $name");
  SKIP:
	{
		skip 'wal2json is not installed', 1 unless $has_wal2json;
		is(join(' ', map { $_->{payload} } from_wal2json()), $expected, "wal2json: $name");
	}
}

# ------------------------------------------------------------------------
# the columns
# ------------------------------------------------------------------------

my $key = $with_key ? q(, ordering_key => 'order/17') : '';
$node->safe_psql('postgres', qq(
SELECT finance.publish('order.paid', '{"amount": "12.50"}', '{"source": "shop"}', priority => 3$key);
));
my ($id, $at) = split /\|/, $node->safe_psql('postgres', qq(
SELECT message_id, enqueued_at FROM finance.message WHERE queue_id = $outbox));

my @changes = from_pgoutput();
is(scalar @changes, 1, 'pgoutput: one row for one message, whatever other queues get');
is($changes[0]{relation}, 'finance.message', 'under the name of the table, not of a partition');
my %expected = (
	message_id => $id,
	topic => 'order.paid',
	payload => '{"amount": "12.50"}',
	headers => '{"source": "shop"}',
	priority => 3,
	enqueued_at => $at,
	queue_id => $outbox);
$expected{ordering_key} = 'order/17' if $with_key;
my %found = map { $_ => $changes[0]{$_} } keys %expected;
is_deeply(\%found, \%expected, 'pgoutput: the columns that an outbox needs');
SKIP:
{
	skip 'wal2json is not installed', 2 unless $has_wal2json;
	@changes = from_wal2json();
	is(scalar @changes, 1, 'wal2json: the message is there');
	%found = map { $_ => "$changes[0]{$_}" } keys %expected;
	is_deeply(\%found, \%expected, 'wal2json: the columns too');
}

# ------------------------------------------------------------------------
# commits and aborts
# ------------------------------------------------------------------------

# the one that publishes first commits last
my $slow = $node->background_psql('postgres');
$slow->query_safe('BEGIN;');
$slow->query_safe(q(SELECT finance.publish('order.x', '1');));
$node->safe_psql('postgres', q(SELECT finance.publish('order.x', '2')));
$node->safe_psql('postgres', q(
BEGIN;
SELECT finance.publish('order.x', '-1');
ROLLBACK;
BEGIN;
SELECT finance.publish('order.x', '3');
SAVEPOINT s;
SELECT finance.publish('order.x', '-2');
ROLLBACK TO s;
SELECT finance.publish('order.x', '4');
COMMIT));
$slow->query_safe(q(SELECT finance.publish('order.x', '5');));
$slow->query_safe('COMMIT;');
$slow->quit;
streams_are('2 3 4 1 5', 'committed messages in the order of commits, no aborted ones');

# prepared transactions, and what send() puts there, which has no topic
$node->safe_psql('postgres', q(
BEGIN; SELECT finance.publish('order.x', '6'); PREPARE TRANSACTION 'kept';
BEGIN; SELECT finance.publish('order.x', '-3'); PREPARE TRANSACTION 'lost';
ROLLBACK PREPARED 'lost'));
$node->safe_psql('postgres', q(SELECT finance.publish('order.x', '7')));
$node->safe_psql('postgres', q(COMMIT PREPARED 'kept'));
streams_are('7 6', 'prepared transactions');
$node->safe_psql('postgres', q(SELECT finance.send('outbox', '8')));
is(scalar(from_pgoutput()), 0, 'the publication leaves out what has no topic');
SKIP:
{
	skip 'wal2json is not installed', 1 unless $has_wal2json;
	is(join(' ', map { $_->{payload} . (defined $_->{topic} ? '' : ' without') } from_wal2json()),
		'8 without', 'wal2json has it, without a topic');
}

# money: a transfer and its message are one transaction
$node->safe_psql('postgres', q(
SELECT finance.transfer('bank', 'alice', 12.50);
BEGIN;
SELECT finance.transfer('bank', 'alice', 99);
ROLLBACK));
@changes = from_pgoutput();
is(scalar @changes, 1, 'the message of a transfer');
is($changes[0]{topic}, 'transfer.completed', 'its topic');
like($changes[0]{payload}, qr/"12\.50"/, 'its payload');
from_wal2json();

# ------------------------------------------------------------------------
# reading, deleting and truncating are nobody's business
# ------------------------------------------------------------------------

$node->safe_psql('postgres', q(
SELECT finance.publish('order.x', '9');
SELECT count(*) FROM finance.read('outbox', 0, 100);
SELECT count(*) FROM finance.pop('outbox', 3);
SELECT finance.purge_queue('outbox')));
my $partitions = $node->safe_psql('postgres', qq(
SELECT string_agg(relid::text, ', ') FROM pg_partition_tree('finance.message')
WHERE isleaf AND relid::text ~ '^finance\\.message_${outbox}(_[0-9]+)?\$'));
$node->safe_psql('postgres', "TRUNCATE $partitions");
$node->safe_psql('postgres', q(SELECT finance.publish('order.x', '10')));
streams_are('9 10', 'only insertions, across a TRUNCATE too');

# a publication of everything stops nobody, and shows no read
$node->safe_psql('postgres', q(
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true);
SELECT finance.publish('order.x', '11');
SELECT count(*) FROM finance.read('outbox', 0, 100);
SELECT count(*) FROM finance.archive('outbox', ARRAY(SELECT msg_id FROM finance.read('outbox', 0, 1)));
SELECT finance.purge_queue('outbox'), finance.purge_queue('other');
SELECT finance.transfer('bank', 'alice', 1);
DROP PUBLICATION everything));
is(scalar(from_pgoutput()), 2, 'a publication of all tables hinders no reading, archiving or purging');
from_wal2json();

# ------------------------------------------------------------------------
# messages left in a segment that the worker empties are written again there
# ------------------------------------------------------------------------

my $kept = q(payload::text IN ('100001', '100002', '100003'));
my $fill = q(SELECT count(*) FROM finance.send_batch('outbox', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 9000) n)));
$node->safe_psql('postgres',
	"SELECT finance.publish('order.x', n::text::jsonb) FROM generate_series(100001, 100003) n; $fill; $fill");
is(scalar(from_pgoutput()), 3, 'three messages with a topic');
from_wal2json();
my $segment = $node->safe_psql('postgres', qq(
SELECT string_agg(DISTINCT tableoid::regclass::text, ' ') FROM finance.message
WHERE queue_id = $outbox AND $kept));
my $file = $node->safe_psql('postgres', "SELECT pg_relation_filenode('$segment')");
$node->safe_psql('postgres', qq(
SELECT count(finance.delete('outbox', msg_id)) FROM finance.message
WHERE queue_id = $outbox AND NOT $kept));
$node->poll_query_until('postgres', "SELECT pg_relation_filenode('$segment') <> $file")
	or die 'the segment is not emptied';
is($node->safe_psql('postgres', "SELECT count(*) FROM $segment WHERE queue_id = $outbox"), 3,
	'three are left in what was emptied');
$node->safe_psql('postgres', "SELECT finance.publish('order.x', '12')");
streams_are('12', 'which are no new messages');
$node->safe_psql('postgres', "SELECT finance.purge_queue('outbox'), finance.purge_queue('other')");

# ------------------------------------------------------------------------
# at random
# ------------------------------------------------------------------------

my $seed = $ENV{FIN_SEED} // time();
note("FIN_SEED=$seed");
srand($seed);
my (@sessions, @open, @committed, @parts);
my $n = 1000;
push @sessions, $node->background_psql('postgres') foreach 1 .. 4;
foreach (1 .. 200 * soak())
{
	my $i = int(rand(@sessions));

	if (!$open[$i])
	{
		$sessions[$i]->query_safe('BEGIN;');
		$open[$i] = [];
	}
	elsif (rand() < 0.6)
	{
		$sessions[$i]->query_safe("SELECT finance.publish('order.x', '" . ++$n . "');");
		push @{ $open[$i] }, $n;
	}
	elsif (rand() < 0.7)
	{
		$sessions[$i]->query_safe('COMMIT;');
		push @committed, @{ $open[$i] };
		$open[$i] = undef;
	}
	else
	{
		$sessions[$i]->query_safe('ROLLBACK;');
		$open[$i] = undef;
	}
}
$_->quit foreach @sessions;
cmp_ok(scalar @committed, '>', 10, 'some messages were committed');
streams_are(join(' ', @committed), "sessions at random, seed $seed");

is_sound($node, 'the book is sound');
$node->stop;
done_testing();
