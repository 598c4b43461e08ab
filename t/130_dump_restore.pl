# A dump restores the whole book, beside a worker that looks on; it goes on
# where it was, guarded as before, and DROP EXTENSION leaves nothing of it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
my $dump;

# all rows of a query as text, to compare two databases by
sub rows
{
	my ($database, $query) = @_;

	return $node->safe_psql($database, "SELECT t::text FROM ($query) t ORDER BY 1");
}

sub same_in
{
	my ($copy, $query, $name) = @_;
	my $rows = rows('book', $query);

	isnt($rows, '', "$name: there are some");
	is(rows($copy, $query), $rows, "$name: as before, in $copy");
}

# how many objects of each kind a database has
my $catalog = join ' UNION ALL ', map {
	"SELECT '$_' AS kind, count(*) FROM $_"
  } qw(pg_class pg_attribute pg_type pg_proc pg_namespace pg_constraint pg_trigger
  pg_attrdef pg_index pg_inherits pg_policy pg_rewrite pg_extension pg_cast
  pg_depend pg_description pg_sequence pg_init_privs pg_default_acl);

$node->init;
$node->append_conf(
	'postgresql.conf', q(
shared_preload_libraries = 'finance'
finance.launcher_naptime = 1
max_worker_processes = 16
));
$node->start;
$dump = $node->basedir . '/book.sql';

# ------------------------------------------------------------------------
# a book with something of everything
# ------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE book TEMPLATE template0');
my $empty = rows('book', $catalog);
$node->safe_psql('postgres', 'CREATE ROLE south_staff; CREATE ROLE teller LOGIN; CREATE ROLE auditor LOGIN');
$node->safe_psql(
	'book', q(
CREATE EXTENSION finance;
SELECT finance.set_tenant_time_zone(0, 'Asia/Tokyo');
SELECT finance.create_tenant('south', 'America/Sao_Paulo', 'south_staff');
SELECT finance.create_tenant('north', 'Europe/Oslo');
SELECT finance.create_currency('GOLD', 18, 'gold, in ounces');
SELECT finance.grant_access('teller', 'app'), finance.grant_access('auditor', 'auditor');
SELECT finance.create_account('alice', 'EUR', min_available => NULL, metadata => '{"vip": true}'),
	finance.create_account('bob', 'EUR', max_balance => 1000000),
	finance.create_account('vault', 'GOLD', min_available => -10),
	finance.create_account('mine', 'GOLD', min_available => NULL),
	finance.create_account('old', 'EUR');
SELECT finance.set_account_status('old', 'closed', 'unused');
SELECT finance.create_account_type('till', 'debit'), finance.create_transfer_type('top-up', '{till}', NULL, 'cash paid in');
SELECT finance.create_account('till', 'EUR', 'till', NULL, parent => 'alice');
SELECT finance.set_account_parent('bob', 'alice', 'a family');
SELECT finance.add_rule('cap', 'transfer_limit', 500),
	finance.add_rule('day', 'daily_limit', 100000, account => 'alice', currency => 'EUR'),
	finance.add_rule('night', 'night_window', 400, window_start => '23:00', window_end => '05:00'),
	finance.add_rule('blocked', 'blocklist');
SELECT finance.block_account('old', 'closed');
SELECT finance.create_queue('all'), finance.create_queue('alerts');
SELECT finance.bind_topic('transfer.#', 'all'), finance.bind_topic('risk.*', 'alerts');
SELECT finance.subscribe('payments', 'transfer.completed', 'all');
SELECT finance.send('alerts', '{"hand": "made"}', '{"h": 1}', 0, 7);
));

# transfers of this month and, by moving the accounts' last ids, the next ones
foreach my $month (0 .. 4)
{
	$node->safe_psql(
		'book', qq(
UPDATE finance._account SET last_transfer_id = finance.id_floor(now() + interval '$month months') WHERE $month > 0;
SELECT count(finance.transfer('alice', 'bob', n, idempotency_key => 'k$month-' || n, reference => 'r', metadata => '{"n": 1}'))
	FROM generate_series(1, 20) n;
SELECT finance.transfer('alice', 'bob', 501, idempotency_key => 'too much $month');
SELECT finance.transfer('mine', 'vault', 0.000000000000000001, effective_at => '2020-02-29 00:00+00');
));
}
$node->safe_psql(
	'book', q(
SET finance.tenant = 2;
SELECT finance.create_account('alice', 'NOK', min_available => NULL), finance.create_account('bob', 'NOK');
SELECT finance.transfer('alice', 'bob', 7, idempotency_key => 'k0-1');
SELECT finance.create_account_type('till', 'credit'), finance.create_transfer_type('top-up');
));
# history, imported the later months first
foreach my $year (2023, 2021)
{
	$node->safe_psql(
		'book', qq(
SELECT finance.create_account('payer $year', 'EUR', min_available => NULL), finance.create_account('payee $year', 'EUR');
SELECT finance.import_transfers(ARRAY[
	finance.request('payer $year', 'payee $year', 5, recorded_at => '$year-05-31 12:00+00', effective_at => '$year-06-01 00:00+00'),
	finance.request('payer $year', 'payee $year', 6, recorded_at => '$year-06-30 12:00+00', idempotency_key => 'old $year')]);
));
}
$node->safe_psql('book',
	"SELECT finance.archive('all', msg_id) FROM finance.read('all', 0, 3)");
$node->safe_psql('book', q(SELECT finance.read('all', 3600, 2)));
is_query($node,
	'SELECT count(DISTINCT tableoid) FROM finance.transfer',
	'9', 'transfers are in nine months', 'book');
is_sound($node, 'before', 'book');

# ------------------------------------------------------------------------
# restore
# ------------------------------------------------------------------------

my @kept = (
	[ 'currencies', 'SELECT * FROM finance.currency' ],
	[ 'types of accounts', 'SELECT * FROM finance.account_type' ],
	[ 'types of transfers', 'SELECT * FROM finance.transfer_type' ],
	[ 'tenants', 'SELECT * FROM finance.tenant' ],
	[ 'accounts', 'SELECT * FROM finance._account' ],
	[ 'changes of accounts', 'SELECT * FROM finance.account_change' ],
	[ 'transfers', 'SELECT tableoid::regclass, * FROM finance.transfer' ],
	[ 'entries', 'SELECT * FROM finance.entry' ],
	[ 'keys', 'SELECT * FROM finance.idempotency_key' ],
	[ 'value dates', 'SELECT * FROM finance.value_transfer' ],
	[ 'value days', 'SELECT * FROM finance.value_day' ],
	[ 'balances of then', "SELECT at, finance.balance_at('payee 2021', at, 'effective') FROM unnest('{2021-06-01,2021-06-02,2021-07-01}'::date[]) at" ],
	[ 'rules', 'SELECT * FROM finance.risk_rule' ],
	[ 'blocklist', 'SELECT * FROM finance.risk_list' ],
	[ 'decisions', 'SELECT * FROM finance.risk_decision' ],
	[ 'audit records', 'SELECT tableoid::regclass, * FROM finance.audit_record' ],
	[ 'queues', 'SELECT * FROM finance.queue' ],
	[ 'bindings', 'SELECT * FROM finance.binding' ],
	[ 'subscriptions', 'SELECT * FROM finance.subscription' ],
	[ 'messages', 'SELECT * FROM finance.message' ],
	[ 'archived messages', 'SELECT * FROM finance.message_archive' ],
	[ 'privileges', "SELECT relname, relacl FROM pg_class WHERE relnamespace = 'finance'::regnamespace AND relacl IS NOT NULL" ],
	[ 'privileges of functions', "SELECT oid::regprocedure, proacl FROM pg_proc WHERE pronamespace = 'finance'::regnamespace" ],
	[ 'indexes', "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'finance'" ],
	[ 'partitions', "SELECT inhrelid::regclass, inhparent::regclass, pg_get_expr(relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid" ],
	[ 'triggers', "SELECT tgrelid::regclass, tgname, tgenabled, tgtype FROM pg_trigger WHERE NOT tgisinternal" ],
	[ 'constraints', "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'finance'::regnamespace" ]);

sub restore
{
	my ($copy, @how) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $copy TEMPLATE template0");
	$node->command_ok([ @how, '-d', $copy ], "restore into $copy");
	foreach my $thing (@kept)
	{
		same_in($copy, $thing->[1], $thing->[0]);
	}
	is_sound($node, "restored into $copy", $copy);
}

$node->command_ok([ 'pg_dump', '-f', $dump, 'book' ], 'pg_dump');
my @psql = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $dump);
restore('copy', @psql);
restore('whole', @psql, '--single-transaction');

# A worker that starts as soon as the extension is there, and is let to do what
# it does, is not in the way of what follows.
my $slow = $node->basedir . '/slow.sql';
(my $text = slurp_file($dump)) =~
  s/^(CREATE EXTENSION[^;]*;)/$1\nDO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM finance.workers WHERE state = 'running' AND database = 'slow' AND last_sweep_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$;/m;
append_to_file($slow, $text);
restore('slow', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $slow);

my $archive = $node->basedir . '/book.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $archive, 'book' ], 'pg_dump -Fc');
restore('parallel', 'pg_restore', '-j', 2, '--exit-on-error', $archive);

# a dump of the restored is the same dump, but for the order of rows
$node->command_ok([ 'pg_dump', '-s', '-f', "$dump.schema", 'book' ], 'schema');
$node->command_ok([ 'pg_dump', '-s', '-f', "$dump.again", 'copy' ], 'schema again');
is( slurp_file("$dump.again") =~ s/^\\(un)?restrict .*//mgr,
	slurp_file("$dump.schema") =~ s/^\\(un)?restrict .*//mgr,
	'a dump of the restored declares the same');

# ------------------------------------------------------------------------
# it goes on
# ------------------------------------------------------------------------

is_query(
	$node,
	"SET finance.test_clock = '2030-01-10 06:00+00'; SELECT status, replayed, from_version, (SELECT max(id) FROM finance.transfer) < id FROM finance.transfer('alice', 'bob', 3, idempotency_key => 'new')",
	'completed|f|101|t',
	'transfers go on, with higher ids',
	'copy');
is_query(
	$node,
	"SELECT replayed, id = (SELECT transfer_id FROM finance.idempotency_key WHERE tenant_id = 0 AND key = 'k0-1') FROM finance.transfer('alice', 'bob', 1, idempotency_key => 'k0-1', reference => 'r', metadata => '{\"n\": 1}')",
	't|t',
	'requests from before are answered as before',
	'copy');
is_query(
	$node,
	"SET finance.test_clock = '2030-01-10 14:30+00'; SELECT status, rule FROM finance.transfer('alice', 'bob', 450)",
	'rejected|night',
	'the time zone of tenant 0 counts',
	'copy');
is_query($node, "SELECT status FROM finance.transfer('alice', 'bob', 501)",
	'rejected', 'rules hold', 'copy');
is_query(
	$node,
	"SELECT error, status FROM finance.transfer_batch(ARRAY[finance.request('till', 'bob', 5, type => 'top-up'), finance.request('alice', 'bob', 5, type => 'top-up')])",
	"|completed\nLG017|failed",
	'types hold',
	'copy');
is_query(
	$node,
	"SELECT accounts FROM finance.rollup('alice')",
	'3', 'parents are who they were', 'copy');
is_query($node, "SELECT finance.create_tenant('east')",
	'3', 'tenants are numbered on', 'copy');
is_query($node,
	"SELECT finance.create_queue('more'); SELECT queue_id > (SELECT max(queue_id) FROM finance.queue WHERE name <> 'more') FROM finance.queue WHERE name = 'more'",
	"\nt", 'so are queues', 'copy');
is_query(
	$node,
	"SELECT message FROM finance.pop('alerts')",
	'{"hand": "made"}',
	'the message of the highest priority comes first',
	'copy');
is( $node->safe_psql('copy',
		"SELECT finance.delete('all', msg_id) FROM finance.read('all', 60, 5)"),
	join("\n", ('t') x 5),
	'messages are read and acknowledged');
poll_ok($node,
	"SELECT count(*) = 1 FROM finance.workers WHERE state = 'running' AND database = 'copy'",
	'the restored database has its worker', 'copy');

foreach my $table ('transfer',
	$node->safe_psql('copy', "SELECT min(relname) FROM pg_class WHERE relname ~ '^transfer_[0-9_]*\$'"))
{
	foreach my $command ("UPDATE finance.$table SET amount = 1",
		"DELETE FROM finance.$table", "TRUNCATE finance.$table")
	{
		my ($code, $out, $err) = $node->psql('copy', "\\set VERBOSITY verbose\n$command");
		like($err, qr/LG011/, "refused: $command");
	}
}
my $audit = $node->safe_psql('copy',
	'SELECT min(tableoid::regclass::text) FROM finance.audit_record');
foreach my $table ('finance.audit_record', $audit)
{
	foreach my $command ("INSERT INTO $table SELECT * FROM $audit LIMIT 1",
		"UPDATE $table SET amount = 1", "DELETE FROM $table")
	{
		my ($code, $out, $err) = $node->psql('copy', "\\set VERBOSITY verbose\n$command");
		like($err, qr/LG201/, "refused: $command");
	}
}
my ($code, $out, $err) = $node->psql('copy',
	"\\set VERBOSITY verbose\nUPDATE finance._account SET debits_posted = 'NaN'");
isnt($code, 0, 'totals are checked whoever writes them');
is_query($node,
	"SET ROLE teller; SELECT count(*) > 0 FROM finance.account; SELECT status FROM finance.transfer('alice', 'bob', 1)",
	"t\ncompleted", 'roles have the rights they had', 'copy');
is_sound($node, 'going on', 'copy');

# ------------------------------------------------------------------------
# DROP EXTENSION
# ------------------------------------------------------------------------

foreach my $database ('copy', 'book')
{
	$node->safe_psql($database, 'DROP EXTENSION finance CASCADE');
	is(rows($database, $catalog), $empty,
		"DROP EXTENSION leaves nothing in $database");
}
$node->safe_psql('copy',
	"CREATE EXTENSION finance; SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR'); SELECT finance.transfer('a', 'b', 1)"
);
is_sound($node, 'a new book in the old place', 'copy');
($code, $out, $err) = $node->psql('whole', 'DROP EXTENSION finance');
is($code, 0, 'DROP EXTENSION needs no CASCADE') or diag($err);
is(rows('whole', $catalog), $empty, 'and leaves nothing either');

$node->stop;
done_testing();
