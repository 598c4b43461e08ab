# Messages and prepared transactions: what such a transaction sent, took or gave
# back is found by readers when it is over, though they went past it before, and
# no sweep comes to their help.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = finance_node('main');
$node->start;
$node->safe_psql('postgres',
	"CREATE EXTENSION finance; SELECT finance.create_queue('q'), finance.create_queue('dead')");
poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'",
	'the worker runs');

sub prepare
{
	my ($name, @commands) = @_;

	$node->safe_psql('postgres',
		join(';', 'BEGIN', @commands, "PREPARE TRANSACTION '$name'"));
}

# what is read and acknowledged now
sub popped
{
	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(message #>> '{}', ' ' ORDER BY ordinality), 'nothing') FROM finance.pop('q', 100) WITH ORDINALITY"
	);
}

sub send_sql
{
	my ($message, $more) = @_;

	return "SELECT finance.send('q', to_jsonb('$message'::text)" . ($more // '') . ')';
}

# readers go past what is prepared: messages that came later are read before
sub go_past
{
	my ($name) = @_;

	$node->safe_psql('postgres', send_sql('later'));
	is(popped(), 'later', "$name: others are read meanwhile");
	is(popped(), 'nothing', "$name: but nothing of it");
}

prepare('p', send_sql('low'), send_sql('high', ', priority => 9'));
go_past('sent');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(popped(), 'high low', 'sent, committed: read');

prepare('p', send_sql('never'));
go_past('sent in vain');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
is(popped(), 'nothing', 'sent, rolled back: not read');

$node->safe_psql('postgres', send_sql('taken'));
prepare('p', "SELECT finance.pop('q')");
go_past('taken');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
is(popped(), 'taken', 'taken, rolled back: read again');

$node->safe_psql('postgres', send_sql('claimed'));
prepare('p', "SELECT finance.read('q', 1000)");
go_past('claimed');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
is(popped(), 'claimed', 'claimed, rolled back: read again');

$node->safe_psql('postgres', send_sql('back'));
my $id = $node->safe_psql('postgres', "SELECT msg_id FROM finance.read('q', 1000)");
prepare('p', "SELECT finance.nack('q', $id, 0)");
go_past('given back');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(popped(), 'back', 'given back, committed: read again');

# a delay that is over when it is committed, and one that is not
my $due = $node->safe_psql('postgres', "SELECT clock_timestamp() + interval '1 second'");
prepare('p', send_sql('delayed', ", deliver_at => '$due'"), send_sql('in an hour', ', delay => 3600'));
go_past('delayed');
poll_ok($node, "SELECT clock_timestamp() > '$due'", 'a second later');
is(popped(), 'nothing', 'and nothing of it');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(popped(), 'delayed', 'delayed, committed: read when due');
is( $node->safe_psql('postgres', "SELECT queue_length, queue_visible_length FROM finance.metrics('q')"),
	'1|0', 'the other waits');
$node->safe_psql('postgres', "SELECT finance.purge_queue('q')");

# an ordering key that a prepared transaction holds; the next of it comes later
$node->safe_psql('postgres', send_sql('key 1', ", ordering_key => 'k'"));
prepare('p', "SELECT finance.pop('q')");
$node->safe_psql('postgres', send_sql('key 2', ", ordering_key => 'k'"));
go_past('ordering key');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(popped(), 'key 2', 'ordering key released, committed: the next is read');

# the other way round: the next was there
$node->safe_psql('postgres', send_sql("key $_", ", ordering_key => 'k'")) foreach (3, 4);
prepare('p', "SELECT finance.pop('q')");
go_past('ordering key');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'p'");
is(popped(), 'key 3', 'ordering key not released: it stays in order');
is(popped(), 'key 4', 'one after the other');

# a ttl
$node->safe_psql('postgres', "SELECT finance.alter_queue('q', dead_letter_queue => 'dead')");
prepare('p', send_sql('dies', ', ttl => 2'));
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
poll_ok($node, "SELECT queue_length = 1 FROM finance.metrics('dead')",
	'a ttl of a prepared message ends');
is($node->safe_psql('postgres', "SELECT message, headers #>> '{x-death,reason}' FROM finance.pop('dead')"),
	'"dies"|expired', 'as a dead letter');
is($node->safe_psql('postgres', 'SELECT * FROM finance.check_integrity()'), '', 'all invariants hold');

$node->stop;
done_testing();
