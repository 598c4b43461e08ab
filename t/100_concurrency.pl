# Many clients at once: opposite transfers, duplicates of a key, racers on a
# version, a daily limit; in every isolation level.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $node = book_node('main', "log_statement = none\n");
my $transfers = 'SELECT count(*) FROM finance.transfer';
my $completed = "$transfers WHERE status = 'completed'";

# a business day in which no midnight falls
$node->safe_psql('postgres',
	"ALTER DATABASE postgres SET finance.test_clock = '2030-06-01 12:00+00'");

open_accounts($node, map { "acc$_" } 1 .. 4);
$node->safe_psql(
	'postgres', q(
CREATE TABLE answer (round text, answer finance.transfer_result);
CREATE TABLE outcome (round text, state text);
-- what an attempt comes to: its SQLSTATE
CREATE FUNCTION attempt(round text, command text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		EXECUTE command;
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
	END;
	INSERT INTO outcome VALUES (round, state);
END $$;
));

# ------------------------------------------------------------------------
# opposite transfers
# ------------------------------------------------------------------------

my $pay = q(
\set f random(1, 4)
\set t 1 + (:f + random(0, 2)) % 4
\set cents random(1, 100000)
SELECT finance.transfer('acc' || :f, 'acc' || :t, :cents * 0.01);
);
my $count = 0;
my $each = 100 * $soak;

foreach my $mode ('simple', 'extended', 'prepared')
{
	bench_ok($node, "opposite transfers by 16 clients, $mode",
		$pay, '-c', 16, '-t', $each, '-M', $mode);
	$count += 16 * $each;
}
is_query($node, $completed, $count, 'each was made');

# rows written directly and by statements, side by side
bench_ok(
	$node,
	'both ways of writing',
	"SELECT set_config('finance.direct_writes', (:client_id % 2 = 0)::text, false);\n$pay",
	'-c', 16, '-t', $each);
$count += 16 * $each;
is_query($node, $completed, $count, 'each was made once');

# several in one transaction, always from the lower account first, and parts
# of it undone
my $many = q(
\set cents random(1, 1000)
BEGIN;
SELECT finance.transfer('acc1', 'acc2', :cents * 0.01);
SAVEPOINT part;
SELECT finance.transfer('acc3', 'acc1', :cents * 0.01);
ROLLBACK TO part;
SELECT finance.transfer('acc2', 'acc1', 0.01);
RELEASE part;
%s;
);
$each = 30 * $soak;
bench_ok($node, 'several in a transaction, with a savepoint undone',
	sprintf($many, 'COMMIT'), '-c', 16, '-t', $each);
$count += 2 * 16 * $each;
bench_ok($node, 'whole transactions undone',
	sprintf($many, 'ROLLBACK'), '-c', 16, '-t', $each);
is_query($node, $completed, $count, 'what was undone is not there');

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	$each = 15 * $soak;
	my $out = bench_ok($node, "opposite transfers, $level, clients that retry",
		"$pay" =~ s/SELECT finance/BEGIN ISOLATION LEVEL $level;\nSELECT finance/r
		  . "COMMIT;\n",
		'-c', 16, '-t', $each, '--max-tries', 100000);
	like($out, qr/number of failed transactions: 0 /, 'none failed for good');
	like($out, qr/number of transactions retried: [1-9]/,
		'some met another (40001), and were tried again');
	$count += 16 * $each;
	is_query($node, $completed, $count, 'each was made once');
}
is_query($node, 'SELECT sum(balance) FROM finance.account',
	'0.00', 'sums are conserved');
is_query($node,
	'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
	'0', 'no deadlock');
is_sound($node, 'opposite transfers');

# ------------------------------------------------------------------------
# duplicates of one key
# ------------------------------------------------------------------------

foreach my $round (1 .. 3 * $soak)
{
	bench_ok(
		$node,
		'50 duplicates of one key',
		"INSERT INTO answer SELECT 'dup$round', finance.transfer('acc1', 'acc2', 12.5, idempotency_key => 'dup$round', reference => 'r');\n",
		'-c', 50, '-t', 1);
	is_query(
		$node,
		"SELECT count(*), count(DISTINCT ((answer).id, (answer).status, (answer).amount,"
		  . " (answer).from_version, (answer).from_balance, (answer).to_version,"
		  . " (answer).to_balance, (answer).recorded_at, (answer).trace_id)),"
		  . " count(*) FILTER (WHERE (answer).replayed) FROM answer WHERE round = 'dup$round'",
		'50|1|49',
		'50 equal answers, 49 of them given again');
	is_query($node, $completed, ++$count, 'of one transfer');
}

# many keys, each by many, in any order
bench_ok($node, '16 clients send the same 50 requests',
	"\\set k random(1, 50)\nSELECT finance.transfer('acc' || (1 + :k % 3), 'acc4', :k, idempotency_key => 'k' || :k);\n",
	'-c', 16, '-t', 50 * $soak);
is_query(
	$node,
	"SELECT count(*) = count(DISTINCT t.amount), bool_and(k.key = 'k' || t.amount::int)"
	  . " FROM finance.idempotency_key k JOIN finance.transfer t ON t.id = k.transfer_id WHERE k.key ~ '^k'",
	't|t',
	'each key stands for one transfer');
$count +=
  $node->safe_psql('postgres',
	"SELECT count(*) FROM finance.idempotency_key WHERE key ~ '^k'");
is_query($node, $completed, $count, 'and no transfer was made besides');

# the same key with another request, at once: one is made, the rest refused
bench_ok($node, 'one key for 50 different requests',
	"SELECT attempt('reuse', \$\$SELECT finance.transfer('acc1', 'acc2', 1 + :client_id, idempotency_key => 'reuse')\$\$);\n",
	'-c', 50, '-t', 1);
is_query($node,
	"SELECT state, count(*) FROM outcome WHERE round = 'reuse' GROUP BY 1 ORDER BY 1",
	"00000|1\nLG007|49", 'one is made, 49 are refused');
$count++;
is_sound($node, 'duplicates');

# ------------------------------------------------------------------------
# racers on one version
# ------------------------------------------------------------------------

foreach my $round (1 .. 3 * $soak)
{
	my $version = $node->safe_psql('postgres',
		"SELECT version FROM finance.account WHERE code = 'acc1'");

	bench_ok($node, '100 racers on one version',
		"SELECT attempt('race$round', \$\$SELECT finance.transfer('acc1', 'acc2', 1, expected_from_version => $version)\$\$);\n",
		'-c', 100, '-t', 1);
	is_query($node,
		"SELECT state, count(*) FROM outcome WHERE round = 'race$round' GROUP BY 1 ORDER BY 1",
		"00000|1\nLG005|99", 'one wins, 99 are told of a conflict');
	is_query($node, $completed, ++$count, 'and money moved once');
}

# ------------------------------------------------------------------------
# a daily limit
# ------------------------------------------------------------------------

# Each client asks for more than its share, in ones and sevens: as long as
# there is a one to come, the limit is reached to the unit.
my $spend = q(
\set amount 1 + 6 * random(0, 1)
BEGIN%s;
SAVEPOINT part;
SELECT finance.transfer('%2$s', 'sink', 7);
ROLLBACK TO part;
SELECT finance.transfer('%2$s', 'sink', :amount);
%3$s;
);
open_accounts($node, 'sink');
foreach my $level ('', ' ISOLATION LEVEL REPEATABLE READ',
	' ISOLATION LEVEL SERIALIZABLE')
{
	my $code = 'spender' . length($level);
	my $limit = $level eq '' ? 1000 : 100;
	my $asked = $limit / 5;

	open_accounts($node, $code);
	$node->safe_psql('postgres',
		"SELECT finance.add_rule('$code', 'daily_limit', $limit, account => '$code')"
	);
	my @retry = $level eq '' ? () : ('--max-tries', 100000);
	bench_ok($node, "transactions undone do not count$level",
		sprintf($spend, $level, $code, 'ROLLBACK'),
		'-c', 16, '-t', 5, @retry);
	bench_ok($node, "a daily limit at 16 clients$level",
		sprintf($spend, $level, $code, 'COMMIT'),
		'-c', 16, '-t', $asked, @retry);
	is_query(
		$node,
		"SELECT a.spent, sum(e.amount), max(e.total), count(*) = a.version, a.debits_posted"
		  . " FROM finance._account a JOIN (SELECT account_id, amount, sum(amount) OVER (PARTITION BY account_id ORDER BY transfer_id) AS total"
		  . " FROM finance.entry) e USING (account_id) WHERE a.code = '$code' GROUP BY a.spent, a.version, a.debits_posted",
		"$limit.00|$limit.00|$limit.00|t|$limit.00",
		'is reached to the unit and never exceeded');
	is_query(
		$node,
		"SELECT count(*) > 0, bool_and(observed::numeric > $limit), bool_and(observed::numeric <= $limit + 7),"
		  . " count(DISTINCT transfer_id) = count(*) FROM finance.risk_hit WHERE rule = '$code'",
		't|t|t|t',
		'whatever was rejected would have exceeded it');
	is_query(
		$node,
		"$transfers t JOIN finance.account a ON a.account_id = t.from_account_id WHERE a.code = '$code'",
		16 * $asked,
		'each request left its transfer, completed or rejected');
	is_sound($node, 'daily limit');
}

# ------------------------------------------------------------------------
# accounts opened, frozen and limited meanwhile
# ------------------------------------------------------------------------

bench_ok($node, 'operators and payers at once', q(
\set who random(1, 10)
\set f random(1, 4)
\if :who = 1
SELECT attempt('mixed', $$SELECT finance.set_account_status('acc2', 'frozen'), finance.set_account_status('acc2', 'active')$$);
\elif :who = 2
SELECT attempt('mixed', $$SELECT finance.set_account_limits('acc1', CASE :f WHEN 1 THEN NULL ELSE -1000000 * :f END, NULL)$$);
\elif :who = 3
SELECT attempt('open', $$SELECT finance.create_account('new' || random() * 20, 'EUR')$$);
\elif :who = 4
SELECT attempt('rule', $$SELECT finance.add_rule('cap', 'transfer_limit', 100)$$);
\elif :who = 5
SELECT attempt('rule', $$SELECT finance.remove_rule('cap')$$);
\else
SELECT attempt('mixed', $$SELECT finance.transfer('acc' || :f, 'acc' || 1 + (:f + 1) % 4, 10 * :f)$$);
\endif
), '-c', 16, '-t', 50 * $soak);
is_query(
	$node,
	"SELECT count(*) FROM outcome WHERE round = 'mixed' AND state NOT IN ('00000', 'LG001', 'LG004', 'LG006')"
	  . " OR round = 'rule' AND state NOT IN ('00000', '42710', 'LG102')",
	'0',
	'nobody met an error but those of the rules');
is_sound($node, 'operators and payers');
is_query($node,
	'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
	'0', 'no deadlock in all of it');

$node->stop;
done_testing();
