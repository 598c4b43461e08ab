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

# when limits are used up, and asked about again
my $limit_day = '2030-01-10';

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
finance.sweep_interval = 1
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
	finance.add_rule('blocked', 'blocklist'),
	finance.add_rule('often', 'count_limit', 1000000, per => 'pair', span => '36 hours', level => 'gold'),
	finance.add_rule('month', 'total_limit', 1000000, per => 'type', period => 'month', transfer_type => 'top-up'),
	finance.add_rule('odd', 'expression', expression => 'amount = 7 and account_day_count >= 0 and not is_holiday', outcome => 'report', score => 3);
SELECT finance.add_holiday('2026-12-25', 'Christmas', 'bank'), finance.add_holiday('2026-12-26');
SELECT finance.publish_ruleset(finance.create_ruleset('stricter', copy_of => 2, score_review => 3), 'shadow'),
	finance.create_ruleset('not ready', copy_of => 7), finance.create_ruleset('empty');
SELECT finance.block_account('old', 'closed'),
	finance.load_list('watch', 'country', '{KP,IR}', 'sanctions', '2090-01-01'),
	finance.add_to_list('watch', 'device', 'phone', 'shared');
SELECT finance.set_account_level('bob', 'gold', 'ten years'),
	finance.set_rule_limit('cap', 600, 'gold', level => 'gold'),
	finance.set_rule_limit('cap', 700, 'a car', account => 'bob', expires_at => '2090-01-01'),
	finance.set_rule_limit('cap', 550.50, 'asked to', account => 'bob');
SELECT finance.create_queue('all'), finance.create_queue('alerts');
SELECT finance.bind_topic('transfer.#', 'all'), finance.bind_topic('risk.*', 'alerts'),
	finance.bind_topic('risk.*', 'alerts', ARRAY['high'], '{"region": "north", "seen": null}', 'any'),
	finance.set_default_queues(dead_letter => 'alerts', alternate => 'all');
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

# what has more than one transfer to it, and what is under way.  \gset keeps ids;
# requests with a key are repeated in the copies.
my %repeated = (
	'hold' => "finance.hold('card', 'shop', 100, hold_group => 'trip', idempotency_key => 'hold', metadata => '{\"trip\": 1}')",
	'capture' => "finance.capture(:open, 30, idempotency_key => 'capture', reference => 'a part', effective_at => '2026-01-01 00:00+00')",
	'release' => "finance.release(:open, 5, idempotency_key => 'release')",
	'up to' => "finance.transfer('card', 'full', 9, amount_mode => 'up_to', idempotency_key => 'up to')",
	'journal' => "finance.journal(ARRAY[finance.leg('card', 'debit', 9), finance.leg('usd pool', 'debit', 2), finance.leg('shop', 'credit', 4), finance.leg('fund', 'credit', 5), finance.leg('usd', 'credit', 2)], 'journal')",
	'exchange' => "finance.exchange('card', 'usd', 10, 1.09876, 'eur pool', 'usd pool', rounding => 'down', rounding_account => 'cents', idempotency_key => 'exchange')",
	'distribute' => "finance.distribute('card', '{shop,fund,bob}', '{1,1,1}', 0.2, idempotency_key => 'distribute')",
	'reversal' => "finance.reverse_transfer(:paid, 3, 'half of it', 'reversal')",
	'reversal of a journal' => "finance.reverse_journal(:journal, 'all of it', 'journal back')",
	'batch' => "finance.transfer_batch(ARRAY[finance.request('card', 'shop', 1, idempotency_key => 'b1', linked => true), finance.request(action => 'hold', from_account => 'card', to_account => 'fund', amount => 2, expires_in => '1 year', idempotency_key => 'b2')])");
my $ids = q(
SELECT coalesce(min(hold_id), 0) AS open FROM finance.hold WHERE hold_group = 'trip' \gset
SELECT coalesce(min(id), 0) AS paid FROM finance.transfer WHERE reference = 'paid' \gset
SELECT coalesce(min(transfer_id), 0) AS journal FROM finance.idempotency_key WHERE tenant_id = 0 AND key = 'journal' \gset
);
$node->safe_psql(
	'book', q(
SELECT finance.create_account(code, currency, min_available => NULL) FROM (VALUES ('card', 'EUR'), ('shop', 'EUR'), ('fund', 'EUR'),
	('eur pool', 'EUR'), ('usd pool', 'USD'), ('usd', 'USD'), ('cents', 'USD')) v (code, currency);
SELECT finance.create_account('full', 'EUR', max_balance => 7);
SELECT finance.transfer('card', 'shop', 6, reference => 'paid', effective_at => '2031-01-01 00:00+00');
));
$node->safe_psql('book', "$ids SELECT count(*) FROM $repeated{$_}")
  foreach ('hold', 'capture', 'release', 'up to', 'journal', 'exchange',
	'distribute', 'reversal', 'reversal of a journal', 'batch');
$node->safe_psql(
	'book', q(
SELECT finance.set_account_status('usd', 'debits_frozen', 'a doubt');
SELECT finance.hold('shop', 'fund', 8, expires_in => '1 year', hold_group => 'trip');
SELECT finance.capture(hold_id, 4, final => true) FROM finance.hold('card', 'shop', 10);
SELECT finance.release(hold_id) FROM finance.hold('card', 'shop', 11);
SELECT finance.exchange('card', 'usd', 1, 0.333, 'eur pool', 'usd pool', 'up', 'cents');
SELECT finance.transfer('card', 'fund', 1, effective_at => ('2030-02-' || day)::timestamptz) FROM generate_series(10, 12) day;
SELECT finance.hold('card', 'shop', 12, expires_in => '1 microsecond');
));
# by us or by the worker
poll_ok($node,
	"SELECT finance.expire_holds() >= 0 AND count(*) = 1 FROM finance._hold WHERE status = 'expired'",
	'a hold expires', 'book');
is_query(
	$node,
	'SELECT status, count(*) FROM finance._hold GROUP BY 1 ORDER BY 1',
	"captured|1\nexpired|1\nopen|3\nreleased|1",
	'holds of all kinds', 'book');
$node->safe_psql('book',
	"SELECT finance.archive('all', msg_id) FROM finance.read('all', 0, 3)");
$node->safe_psql('book', q(SELECT finance.read('all', 3600, 2)));
$node->safe_psql('book',
	"SELECT finance.send('all', '1', dedup_id => 'kept'), finance.process_once('c', 1), finance.process_once('c', 'x')");
# limits, used up or half
$node->safe_psql(
	'book', qq(
SELECT finance.create_account(code, 'EUR', min_available => NULL) FROM unnest('{used up by day,used up,half used}'::text[]) code;
SELECT finance.add_rule('used up by day', 'daily_limit', 50, 'used up by day'),
	finance.add_rule('used up', 'total_limit', 50, 'used up', period => 'day'),
	finance.add_rule('half used', 'total_limit', 50, 'half used', span => '36 hours');
SET finance.test_clock = '$limit_day 05:00+00';
SELECT finance.transfer(code, 'shop', amount) FROM (VALUES ('used up by day', 50), ('used up', 50), ('half used', 30)) v (code, amount);
));
isnt(rows('book', 'SELECT * FROM finance.risk_total'), '', 'there are totals of risk');
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
	[ 'holds', 'SELECT * FROM finance._hold' ],
	[ 'holds as they are seen', 'SELECT * FROM finance.hold' ],
	[ 'journals', 'SELECT * FROM finance.journal' ],
	[ 'reversals', 'SELECT * FROM finance.reversal' ],
	[ 'exchanges', 'SELECT * FROM finance.exchange' ],
	[ 'residues', 'SELECT * FROM finance.exchange_residue' ],
	[ 'statements', 'SELECT a.code, s.* FROM finance.account a, finance.statement(a.code, "limit" => 1000) s WHERE a.tenant_id = 0' ],
	[ 'balances', "SELECT a.code, at, by, finance.balance_at(a.code, at, by) FROM finance.account a, unnest('{recorded,effective}'::text[]) by, (SELECT finance.id_time(last_transfer_id) AS at FROM finance._account UNION SELECT unnest('{2021-06-01,2026-01-01 00:00+00,2026-01-02 00:00+00,2030-02-11 12:00+00,2031-02-01 00:00+00}'::timestamptz[])) m WHERE a.tenant_id = 0" ],
	[ 'trial balance', 'SELECT * FROM finance.trial_balance()' ],
	[ 'value dates', 'SELECT * FROM finance.value_transfer' ],
	[ 'value days', 'SELECT * FROM finance.value_day' ],
	[ 'balances of then', "SELECT at, finance.balance_at('payee 2021', at, 'effective') FROM unnest('{2021-06-01,2021-06-02,2021-07-01}'::date[]) at" ],
	[ 'rulesets', 'SELECT * FROM finance.ruleset' ],
	[ 'rules', 'SELECT * FROM finance.risk_rule' ],
	[ 'rules in force', 'SELECT * FROM finance.live_rule' ],
	[ 'holidays', 'SELECT * FROM finance.holiday' ],
	[ 'measures', 'SELECT * FROM finance.risk_measure' ],
	[ 'lists', 'SELECT * FROM finance.risk_list' ],
	[ 'limits of rules', 'SELECT * FROM finance.rule_limit' ],
	[ 'decisions', 'SELECT * FROM finance.risk_decision' ],
	[ 'decisions judged again', 'SELECT d.transfer_id, d.version, r.* FROM finance.risk_decision d, finance.replay_decision(d.transfer_id, d.version) r WHERE d.tenant_id = 0' ],
	[ 'audit records', 'SELECT tableoid::regclass, * FROM finance.audit_record' ],
	[ 'queues', 'SELECT * FROM finance.queue' ],
	[ 'bindings', 'SELECT * FROM finance.binding' ],
	[ 'default queues', 'SELECT * FROM finance.queue_default' ],
	[ 'subscriptions', 'SELECT * FROM finance.subscription' ],
	[ 'messages', 'SELECT * FROM finance.message' ],
	[ 'archived messages', 'SELECT tableoid::regclass, * FROM finance.message_archive' ],
	[ 'dedup ids', 'SELECT tableoid::regclass, * FROM finance._dedup' ],
	[ 'processed messages', 'SELECT tableoid::regclass, * FROM finance.inbox' ],
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
	is(rows($copy, 'SELECT * FROM finance.risk_total'), '', "no totals of risk in $copy: the history tells them");
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

# restored in parallel, what a ruleset is may come before what its rules are
my $list = $node->basedir . '/book.list';
$node->command_ok([ 'pg_restore', '-l', '-f', $list, $archive ], 'pg_restore -l');
(my $other = slurp_file($list)) =~
  s/^(.* TABLE DATA finance risk_rule .*\n)((?:.*\n)*?)(.* TABLE DATA finance ruleset .*\n)/$3$2$1/m
  or die "no rules in the archive\n";
append_to_file("$list.other", $other);
restore('rulesets_first', 'pg_restore', '--exit-on-error', '-L',
	"$list.other", $archive);
my ($status, $said, $refused) = $node->psql('rulesets_first',
	"INSERT INTO finance.risk_rule (tenant_id, version, name, kind, outcome) VALUES (0, 2, 'more', 'blocklist', 'reject')"
);
like(
	$refused,
	qr/a published ruleset cannot be changed/,
	'but no rule comes later');

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
foreach my $what (sort keys %repeated)
{
	is_query($node,
		"$ids SELECT bool_and(replayed), count(*) > 0 FROM $repeated{$what}",
		't|t', "repeated and answered as before: $what", 'copy');
}
is_query(
	$node,
	"$ids SELECT status, amount, hold_remaining FROM finance.capture(:open, 25)",
	'completed|25.00|40.00',
	'an open hold is captured on', 'copy');
is_query(
	$node,
	"SELECT status, amount FROM finance.capture_group('trip') ORDER BY amount",
	"completed|8.00\ncompleted|40.00",
	'and its group', 'copy');
is_query(
	$node,
	"$ids SELECT amount FROM finance.reverse_transfer(:paid)",
	'3.00', 'what was not given back yet is', 'copy');
is_query(
	$node,
	q(SELECT sum(residue) AS before FROM finance.exchange_residue \gset
SELECT journal_id AS made FROM finance.exchange('card', 'usd', 1, 1.00123, 'eur pool', 'usd pool', 'down', 'cents') LIMIT 1 \gset
SELECT :before <> 0, :before + x.difference = x.carried + (SELECT sum(residue) FROM finance.exchange_residue) FROM finance.exchange x WHERE journal_id = :made),
	't|t', 'differences are carried on', 'copy');
is_query($node, "SELECT status FROM finance.transfer('alice', 'bob', 501)",
	'rejected', 'rules hold', 'copy');
foreach my $rule ('used up by day', 'used up')
{
	is_query(
		$node,
		"SET finance.test_clock = '$limit_day 06:00+00'; SELECT status, rule FROM finance.transfer('$rule', 'shop', 0.01)",
		"rejected|$rule", "what was $rule before is so still", 'copy');
}
is_query(
	$node,
	"SET finance.test_clock = '$limit_day 06:00+00'; SELECT status FROM finance.transfer('half used', 'shop', 20); SELECT status, rule FROM finance.transfer('half used', 'shop', 0.01)",
	"completed\nrejected|half used", 'and of what was not, what is left', 'copy');
isnt(rows('copy', 'SELECT * FROM finance.risk_total'), '', 'there are totals again');
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
is_query($node,
	"SELECT finance.bind_topic('new', 'more'); SELECT binding_id > (SELECT max(binding_id) FROM finance.binding WHERE pattern <> 'new') FROM finance.binding WHERE pattern = 'new'",
	"\nt", 'and bindings', 'copy');
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

foreach my $table ('transfer', 'journal', 'reversal', 'exchange',
	'value_transfer',
	$node->safe_psql('copy', "SELECT min(relname) FROM pg_class WHERE relname ~ '^transfer_[0-9_]*\$'"))
{
	foreach my $command ("UPDATE finance.$table SET tenant_id = 1",
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
# a hold that was over when it was dumped: whoever looks on while it is restored
# gives it back once
# ------------------------------------------------------------------------

my $holder = $node->background_psql('book');
$node->safe_psql('book',
	"SELECT finance.create_account('slow payer', 'EUR', min_available => NULL); SELECT finance.hold('slow payer', 'shop', 3, expires_in => '1 year')"
);
# the worker of the book cannot: the account is locked
$holder->query_safe("BEGIN; SELECT code FROM finance.lock_accounts('{slow payer}')");
$node->safe_psql('book',
	"UPDATE finance._hold SET expires_at = '2020-01-01' WHERE amount = 3 AND status = 'open'");
foreach my $way ('late', 'late_parallel')
{
	my @how = @psql;

	$node->safe_psql('postgres', "CREATE DATABASE $way TEMPLATE template0");
	if ($way eq 'late')
	{
		$node->command_ok([ 'pg_dump', '-f', "$dump.late", 'book' ],
			'a dump with a hold that is over');
		unlink $slow;
		append_to_file($slow,
			slurp_file("$dump.late") =~
			  s/^(CREATE EXTENSION[^;]*;)/$1\nDO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM finance.workers WHERE state = 'running' AND database = 'late' AND last_sweep_at IS NOT NULL) LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$;/mr);
		@how = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', $slow);
	}
	else
	{
		$node->command_ok([ 'pg_dump', '-Fc', '-f', "$archive.late", 'book' ],
			'another');
		@how =
		  ('pg_restore', '-j', 2, '--exit-on-error', "$archive.late");
	}
	$node->command_ok([ @how, '-d', $way ], "restore into $way");
	poll_ok($node,
		"SELECT count(*) = 1 FROM finance.transfer t JOIN finance._hold h USING (hold_id) WHERE h.amount = 3 AND t.status = 'expired' AND h.status = 'expired'",
		"$way: the hold expires, once", $way);
	is(rows($way, "SELECT * FROM finance.risk_total WHERE state <> ''"), '', "$way: no totals from half of a history");
	# it may have been given back before its history was there
	is_query($node, "SELECT status FROM finance.transfer('slow payer', 'shop', 1)", 'completed', "$way: its payer pays on", $way);
	is_sound($node, $way, $way);
}
$holder->query_safe('ROLLBACK');
$holder->quit;

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
