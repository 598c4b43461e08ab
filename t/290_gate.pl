# Pauses and rate limits under load, in prepared transactions, over crashes,
# on a standby, in a dump, and where the library is not preloaded.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $clients = 16;
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init(allows_streaming => 1);
$node->append_conf(
	'postgresql.conf', q(
shared_preload_libraries = 'finance'
finance.rate_limit_buckets = 64
finance.sweep_interval = 86400
finance.launcher_naptime = 86400
max_prepared_transactions = 10
max_connections = 150
));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');
open_accounts($node, 'alice', 'bob', 'carol', 'dave', map { "many $_" } 1 .. 1500);

# pays as often as it is let, and never fails but for a limit or a pause
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION try(from_account text, to_account text, amount numeric, key text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (finance.transfer(from_account, to_account, amount, idempotency_key => key)).status;
EXCEPTION WHEN SQLSTATE 'LG104' OR SQLSTATE 'LG105' THEN
	RETURN SQLSTATE;
END $$});

# what a command ends in, as psql tells it
sub told
{
	my ($command) = @_;
	my ($code, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\n$command");

	return $err;
}

# at a time that stands still
sub at
{
	my ($seconds, $command) = @_;

	local $ENV{PGOPTIONS} =
	  "-c finance.test_clock=2040-01-01\\ 00:00:$seconds";
	return ref $command ? $command->() : $node->safe_psql('postgres', $command);
}

sub hammer
{
	my ($name, $script, $times) = @_;

	bench_ok($node, $name, $script, '-c', $clients, '-j', 2, '-t', $times);
}

sub paid
{
	my ($from) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM finance.entry e JOIN finance.account a USING (account_id) WHERE a.code = '$from' AND side = 'debit'"
	);
}

# ------------------------------------------------------------------------
# rate limits, hammered by many
# ------------------------------------------------------------------------

$node->safe_psql('postgres', "SELECT finance.set_rate_limit('account', 100, 50)");
at('00', sub { hammer('one payer, many clients', "SELECT try('alice', 'bob', 1);", 10) });
is(paid('alice'), 50, 'the burst passes, and not one more');
at('00.299999', sub { hammer('a little later', "SELECT try('alice', 'bob', 1);", 10) });
is(paid('alice'), 79, 'exactly what the time gave');
is(at('00.299999', "SELECT tokens FROM finance.rate_limits('alice')"),
	'0.9999', 'and no part of a token is lost');
at('00.3', sub { hammer('the rest', "SELECT try('alice', 'bob', 1);", 2) });
is(paid('alice'), 80, 'gives one more');

# two scopes: of each a token, or of none
$node->safe_psql('postgres',
	"SELECT finance.drop_rate_limit('account'); SELECT finance.set_rate_limit('account', 1, 20); SELECT finance.set_rate_limit('tenant', 1, 30)"
);
at('10', sub { hammer('two payers of one tenant', "SELECT try('carol', 'bob', 1);\nSELECT try('dave', 'bob', 1);", 10) });
my $both = paid('carol') + paid('dave');
is($both, 30, 'the tenant\'s burst passes');
is( at( '10',
		"SELECT sum(tokens) FROM unnest('{carol, dave}'::text[]) AS code, finance.rate_limits(code) WHERE scope = 'account'"
	),
	'10',
	'what the tenant refused, took no token of the payer');
is(at('10', "SELECT tokens FROM finance.rate_limits() WHERE scope = 'tenant'"),
	'0', 'nor the other way round');
$node->safe_psql('postgres', "SELECT finance.drop_rate_limit('tenant')");

# a key is paid for once, however many ask
$node->safe_psql('postgres',
	"SELECT finance.drop_rate_limit('account'); SELECT finance.set_rate_limit('account=carol', 1, 20)"
);
at('20', sub { hammer('a key repeated', "SELECT try('carol', 'bob', 1, 'k');", 10) });
is(at('20', 'SELECT tokens FROM finance.rate_limits()'),
	'19', 'takes one token');
$node->safe_psql('postgres', "SELECT finance.drop_rate_limit('account=carol')");

# by the clock of the host: never more than burst and time allow
my $before = paid('dave');
my $start = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$node->safe_psql('postgres', "SELECT finance.set_rate_limit('account=dave', 20, 10)");
hammer('by the real clock', "SELECT try('dave', 'bob', 1);", 40);
my $passed = paid('dave') - $before;
is_query($node,
	"SELECT $passed >= 10 AND $passed <= 10 + 20 * extract(epoch FROM clock_timestamp() - '$start')",
	't', "at most burst and rate pass ($passed)");
$node->safe_psql('postgres', "SELECT finance.drop_rate_limit('account=dave')");

# more payers than there are places: none is let through uncounted
$node->safe_psql('postgres', "SELECT finance.set_rate_limit('account', 0.001, 1)");
my $crowd = q{SELECT count(*) FILTER (WHERE r = 'completed') AS passed, count(*) FILTER (WHERE r = 'LG105') AS refused
	FROM generate_series(1, 200) AS n, LATERAL try('many ' || n, 'bob', 1) AS r};
my ($some, $others) = split /\|/, at('30', $crowd);
cmp_ok($some, '<=', 64, "as many as there are places may pay ($some)");
cmp_ok($some, '>=', 8, 'and they do');
is($some + $others, 200, 'the others are refused');
is(at('30', $crowd), '0|200', 'and stay so');
my $crowded = told(
	q{SET finance.test_clock = '2040-01-01 00:00:30';
SELECT finance.transfer('many ' || n, 'bob', 1) FROM generate_series(201, 400) AS n});
like($crowded, qr/LG105: too many transfers/, 'with an error');
like($crowded, qr/there is no place left to count in; the next may come in \d+\.\d{3} seconds/,
	'that says why, and until when');
is($node->safe_psql('postgres',
		"SET finance.test_clock = '2040-01-01 01:00'; SELECT count(*) FROM generate_series(1, 8) AS n, LATERAL try('many ' || (400 + n), 'bob', 1) AS r WHERE r = 'completed'"),
	'8', 'buckets that are full again make room');
$node->safe_psql('postgres', "SELECT finance.drop_rate_limit('account')");

# ------------------------------------------------------------------------
# the switch, with many transactions open
# ------------------------------------------------------------------------

my @open = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. $clients;
foreach my $i (0 .. $#open)
{
	$open[$i]->query_safe("\\set VERBOSITY verbose\nBEGIN; SELECT finance.transfer('many " . (2 * $i + 1) . "', 'many " . (2 * $i + 2) . "', 1)");
}
# more accounts than are kept in mind from one transaction to the next
my $large = $node->background_psql('postgres', on_error_stop => 0);
$large->query_safe("\\set VERBOSITY verbose\nBEGIN; SELECT count(finance.transfer('many ' || n, 'many ' || (n + 700), 1)) FROM generate_series(100, 799) AS n");
is_query($node, "SELECT count(*) FROM finance.transfers_in_flight() WHERE state = 'running' AND pid IS NOT NULL AND since IS NOT NULL",
	$clients + 1, 'those under way are shown');
my $transfers = $node->safe_psql('postgres', 'SELECT count(*) FROM finance.transfer');
is_query($node, "SELECT * FROM finance.pause_transfers('all', 'drill')",
	't|' . ($clients + 1) . '|0', 'and counted by who pauses');
my $refused = 0;
foreach my $session (@open, $large)
{
	$session->query('COMMIT');
	$refused++ if $session->{stderr} =~ /ERROR:  LG104: transfers are paused/;
	$session->{stderr} = '';
}
is($refused, $clients + 1, 'none of them commits');
is_query($node, 'SELECT count(*) FROM finance.transfer', $transfers, 'nothing has moved');
is_query($node, 'SELECT count(*) FROM finance.transfers_in_flight()', '0', 'and nothing is under way');
hammer('clients go on', "SELECT try('alice', 'bob', 1);", 5);
is_query($node, 'SELECT count(*) FROM finance.transfer', $transfers, 'in vain');
is_query($node, "SELECT finance.resume_transfers('all', 'over')", 't', 'until it is resumed');
foreach my $session (@open, $large)
{
	$session->query_safe("SELECT finance.transfer('alice', 'bob', 1)");
	$session->quit;
}
is_query($node, 'SELECT count(*) FROM finance.transfer', $transfers + $clients + 1, 'then the same sessions pay');

# ------------------------------------------------------------------------
# prepared transactions
# ------------------------------------------------------------------------

my $pay = "SELECT finance.transfer('alice', 'bob', 1)";
$node->safe_psql('postgres', "BEGIN; $pay; PREPARE TRANSACTION 'early'");
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe("\\set VERBOSITY verbose\nBEGIN; SELECT finance.transfer('carol', 'dave', 1)");
$node->safe_psql('postgres', "BEGIN; SELECT finance.pause_transfers('account=alice', 'prepared'); PREPARE TRANSACTION 'pause'");
is_query($node, "SELECT try('many 1', 'many 2', 1)", 'completed', 'others pay');
is_query($node, 'SELECT count(*) FROM finance.transfer_pause', '0', 'a pause that is prepared is none yet');
$node->safe_psql('postgres', "COMMIT PREPARED 'pause'");
is_query($node, "SELECT * FROM finance.pause_transfers('all', 'drill')",
	't|1|1', 'a prepared transaction is counted');
is_query($node, "SELECT state, pid, gid, since <= now() FROM finance.transfers_in_flight() WHERE state = 'prepared'",
	'prepared||early|t', 'and shown by its name');
$session->query("PREPARE TRANSACTION 'late'");
like($session->{stderr}, qr/ERROR:  LG104/, 'none can be prepared any more');
$session->{stderr} = '';
$session->quit;
is_query($node, 'SELECT count(*) FROM pg_prepared_xacts', '1', 'nor is it');

my @pids = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
$node->kill9;
my $patience = 10 * $PostgreSQL::Test::Utils::timeout_default;
usleep(100_000) while (grep { kill 0, $_ } @pids) && $patience-- > 0;
$node->start;
is_query($node, "SELECT state, gid FROM finance.transfers_in_flight()",
	'prepared|early', 'after a crash it is shown');
like(told("SELECT finance.transfer('carol', 'dave', 1)"), qr/ERROR:  LG104.*Scope is all, since .*: drill/s, 'and the switch is as it was');
$transfers = $node->safe_psql('postgres', 'SELECT count(*) FROM finance.transfer');
$node->safe_psql('postgres', "COMMIT PREPARED 'early'");
is_query($node, 'SELECT count(*) FROM finance.transfer', $transfers + 1, 'what has promised to commit, does');
$node->safe_psql('postgres', "SELECT finance.resume_transfers('all', 'over')");
like(told($pay), qr/ERROR:  LG104.*Scope is account=alice, since .*: prepared/s, 'so did the pause that was prepared');
is_query($node, "SELECT try('carol', 'dave', 1)", 'completed', 'others pay');

# a restart fills the buckets
at('40', "SELECT finance.set_rate_limit('account=carol', 1, 5)");
is(at('40', "SELECT string_agg(try('carol', 'dave', 1), ' ') FROM generate_series(1, 6)"),
	'completed completed completed completed completed LG105', 'a limit');
$node->restart;
is(at('40', 'SELECT tokens FROM finance.rate_limits()'), '5', 'is full after a restart');
is_sound($node, 'the gate');

# ------------------------------------------------------------------------
# a dump, and a standby
# ------------------------------------------------------------------------

my $dump = $node->basedir . '/dump.sql';
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restored');
is_query($node, "SELECT try('alice', 'bob', 1), try('carol', 'dave', 1)", 'LG104|completed', 'as it was', 'restored');
is_query($node, "SELECT scope, rate, burst FROM finance.rate_limits()", 'account=carol|1|5', 'the limit too', 'restored');
$node->safe_psql('postgres', "SELECT finance.resume_transfers('account=alice', 'over')");
is_query($node, "SELECT try('alice', 'bob', 1)", 'LG104', 'each database has its own switch', 'restored');

$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', "SELECT finance.pause_transfers('everywhere', 'fail over')");
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT scope, reason FROM finance.transfer_pause'),
	'everywhere|fail over', 'a standby knows what is paused');
$node->stop;
$standby->promote;
is($standby->safe_psql('postgres', "SELECT try('carol', 'dave', 1)"), 'LG104', 'and promoted, is so');
$standby->safe_psql('postgres', "SELECT finance.resume_transfers('everywhere', 'over')");
is($standby->safe_psql('postgres', "SELECT try('carol', 'dave', 1)"), 'completed', 'until it is resumed');
$standby->stop;

# ------------------------------------------------------------------------
# not preloaded
# ------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$node->start;
is_query($node, "SELECT try('alice', 'bob', 1)", 'LG104', 'without preloading the switch works');
my $mover = $node->background_psql('postgres', on_error_stop => 0);
$node->safe_psql('postgres', "SELECT finance.resume_transfers('everywhere', 'over')");
$mover->query_safe("\\set VERBOSITY verbose\nBEGIN; $pay");
$node->safe_psql('postgres', "SELECT finance.pause_transfers('account=bob', 'test')");
$mover->query('COMMIT');
like($mover->{stderr}, qr/ERROR:  LG104/, 'also at the commit of the session\'s first transaction');
$mover->{stderr} = '';
$mover->quit;
$node->safe_psql('postgres', "SELECT finance.resume_transfers('account=bob', 'test')");
like(told("SELECT finance.set_rate_limit('tenant', 1, 1)"),
	qr/ERROR:  55000: transfers cannot be counted on this server/, 'no limit can be set');
like(told("SELECT finance.transfer('carol', 'dave', 1)"),
	qr/ERROR:  55000: transfers cannot be counted on this server.*There is a rate limit of scope account=carol/s,
	'what is limited does not pass uncounted');
is_query($node, "SELECT try('alice', 'bob', 1)", 'completed', 'what is not limited does');
is_query($node, 'SELECT scope, tokens IS NULL FROM finance.rate_limits()', 'account=carol|t', 'nobody knows what is left');
is_query($node, "SELECT finance.drop_rate_limit('account=carol')", 't', 'and the limit can be dropped');
is_query($node, "SELECT try('carol', 'dave', 1)", 'completed', 'then all pass');
is_sound($node, 'not preloaded');

$node->stop;
done_testing();
