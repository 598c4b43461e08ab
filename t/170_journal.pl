# Journals by many clients at once: overlapping accounts, one key, exchanges
# that share a rounding account, reversals and groups that race.
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
my $seed = $ENV{FIN_SEED} // 170;
my $node = book_node('main', "log_statement = none\n");

note("FIN_SEED=$seed");

# pgbench says on stderr when it is given a seed: draw our own numbers
my $next = "\\set i :i + 1\n"
  . "\\set r abs(hash(:i * 100 + :client_id, $seed)) % 1000000000\n";

$node->safe_psql('postgres',
	"ALTER DATABASE postgres SET finance.test_clock = '2030-06-01 12:00+00'");
open_accounts($node, map { "e$_" } 1 .. 12);
$node->safe_psql(
	'postgres', q(
SELECT finance.create_account('u' || n, 'USD', min_available => NULL) FROM generate_series(1, 6) AS n;
SELECT finance.create_account('rounding', 'USD', min_available => NULL);
CREATE TABLE outcome (round text, state text);
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

-- 2 to 10 legs that follow from a number: up to 4 debits and 4 credits in EUR,
-- of different accounts in any order, and in every third journal two in USD
CREATE FUNCTION legs(r bigint) RETURNS finance.journal_leg[] LANGUAGE sql STABLE AS $$
	WITH pick AS (
		SELECT 1 + r % 4 AS debits, 1 + r / 4 % 4 AS credits
	), party AS (
		SELECT n, row_number() OVER (ORDER BY hashint8extended(n, r)) AS place FROM generate_series(1, 12) AS n
	), debit AS (
		SELECT place, 'e' || n AS code, (1 + abs(hashint8extended(n, r + 1) % 100000)) * 0.01 AS amount
		FROM party, pick WHERE place <= debits
	), credit AS (
		SELECT place, 'e' || n AS code,
			(finance.split_amount((SELECT sum(amount) + 0.10 FROM debit), array_fill(1.0, ARRAY[credits::integer]), 2))[place - debits] AS amount
		FROM party, pick WHERE place > debits AND place <= debits + credits
	), leg AS (
		SELECT place, finance.leg(code, 'debit', amount + CASE place WHEN 1 THEN 0.10 ELSE 0 END) AS leg FROM debit
		UNION ALL SELECT place, finance.leg(code, 'credit', amount) FROM credit
		UNION ALL SELECT 0, finance.leg('u' || 1 + r % 6, 'debit', 3) WHERE r % 3 = 0
		UNION ALL SELECT 9, finance.leg('u' || 1 + (r + 1) % 6, 'credit', 3) WHERE r % 3 = 0
	)
	SELECT array_agg(leg ORDER BY hashint8extended(place, r + 2)) FROM leg
$$;
));
is_query(
	$node,
	'SELECT min(cardinality(legs(r))), max(cardinality(legs(r))) FROM generate_series(1, 1000) AS r',
	'2|10', 'journals of 2 to 10 legs');

# ------------------------------------------------------------------------
# overlapping journals
# ------------------------------------------------------------------------

my $journals = 0;
my $each = 25 * $soak;
my $count = "SELECT count(*), count(*) FILTER (WHERE cardinality(transfer_ids) > 1) > 0 FROM finance.journal WHERE type = 'journal'";

foreach my $mode ('simple', 'prepared')
{
	bench_ok(
		$node,
		"overlapping journals by 64 clients, $mode",
		"${next}SELECT count(*) FROM finance.journal(legs(:r));\n",
		'-c', 64, '-t', $each, '-M', $mode, '-D', 'i=0');
	$journals += 64 * $each;
}
is_query($node, $count, "$journals|t", 'each was posted');

# transfers and rows written by statements among them
bench_ok(
	$node,
	'journals, transfers and distributions together',
	$next . q(\set f 1 + :r % 12
\set t 1 + (:r + 5) % 12
SELECT set_config('finance.direct_writes', (:client_id % 2 = 0)::text, false);
SELECT count(*) FROM finance.journal(legs(:r));
SELECT finance.transfer('e' || :t, 'e' || :f, 1);
SELECT count(*) FROM finance.distribute('e' || :f, ARRAY['e' || :t, 'e' || 1 + (:r + 3) % 12, 'e' || 1 + (:r + 8) % 12], '{1,2,3}', 1);
), '-c', 64, '-t', 10 * $soak, '-D', 'i=0');
$journals += 64 * 10 * $soak;
is_query($node, $count, "$journals|t", 'each was posted');

foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $out = bench_ok(
		$node,
		"overlapping journals, $level, clients that retry",
		"${next}BEGIN ISOLATION LEVEL $level;\nSELECT count(*) FROM finance.journal(legs(:r));\nCOMMIT;\n",
		'-c', 8, '-t', 10 * $soak, '--max-tries', 100000,
		'-D', 'i=0');
	like($out, qr/number of failed transactions: 0 /, 'none failed for good');
	$journals += 80 * $soak;
}
is_query($node, $count, "$journals|t", 'each was posted once');

# ------------------------------------------------------------------------
# one key
# ------------------------------------------------------------------------

bench_ok(
	$node,
	'64 clients post the same 20 journals',
	$next . "\\set k 1 + :r % 20\nSELECT count(*) FROM finance.journal(legs(:k * 7919), 'key ' || :k);\n",
	'-c', 64, '-t', 10 * $soak, '-D', 'i=0');
is_query(
	$node,
	"SELECT (SELECT count(*) FROM finance.journal WHERE type = 'journal') - $journals"
	  . " = (SELECT count(*) FROM finance.idempotency_key)",
	't', 'each key has one journal');

# ------------------------------------------------------------------------
# exchanges with one rounding account
# ------------------------------------------------------------------------

bench_ok(
	$node,
	'exchanges share a rounding account',
	$next . q(\set r 1 + :r % 1000000
\set f 1 + :r % 6
SELECT count(*) FROM finance.exchange('e' || :f, 'u' || :f, :r * 0.01, 1 + :r * 0.000001, 'e' || 6 + :f, 'u' || 1 + :f % 6,
	(ARRAY['half_even', 'half_up', 'down', 'up'])[1 + :r % 4], 'rounding');
), '-c', 32, '-t', 25 * $soak, '-D', 'i=0');
is_query(
	$node,
	'SELECT count(*), sum(difference) = sum(carried) + (SELECT residue FROM finance.exchange_residue),'
	  . " sum(carried) = finance.balance('rounding'), count(*) FILTER (WHERE carried <> 0) > 0 FROM finance.exchange",
	(32 * 25 * $soak) . '|t|t|t',
	'no fraction is lost');

# ------------------------------------------------------------------------
# reversals of one transfer, and of one group
# ------------------------------------------------------------------------

my $id = $node->safe_psql('postgres',
	"SELECT id FROM finance.transfer('e1', 'e2', 100)");
bench_ok(
	$node,
	'32 clients reverse parts of one transfer',
	"SELECT attempt('reverse', 'SELECT finance.reverse_transfer($id, 7)');\n",
	'-c', 32, '-t', 1);
is_query($node,
	"SELECT state, count(*) FROM outcome WHERE round = 'reverse' GROUP BY 1 ORDER BY 1",
	"00000|14\nLG016|18", 'as many as fit');
is_query($node, "SELECT sum(amount) FROM finance.reversals($id)",
	'98.00', 'and no more in sum');

foreach my $round (1 .. 3 * $soak)
{
	$node->safe_psql('postgres',
		"SELECT finance.hold('e' || n, 'e' || 1 + n % 12, n, hold_group => 'group $round') FROM generate_series(1, 12) AS n"
	);
	bench_ok(
		$node,
		'a group is captured, released and nibbled at',
		"SELECT CASE :client_id % 3 WHEN 0 THEN attempt('group $round', 'SELECT count(*) FROM finance.capture_group(''group $round'')')"
		  . " WHEN 1 THEN attempt('group $round', 'SELECT count(*) FROM finance.release_group(''group $round'')')"
		  . " ELSE attempt('part $round', 'SELECT finance.capture((SELECT min(hold_id) FROM finance.hold WHERE status = ''open''), 0.01)') END;\n",
		'-c', 24, '-t', 1);
	is_query(
		$node,
		"SELECT count(*) FROM finance._hold WHERE hold_group = 'group $round' AND status = 'open'",
		'0',
		'none is left open');
	is_query(
		$node,
		"SELECT state, count(*) FROM outcome WHERE round = 'group $round' GROUP BY 1 ORDER BY 1",
		"00000|1\nLG012|15",
		'one settled the group, the others came too late');
	is_query(
		$node,
		"SELECT count(*) FROM outcome WHERE round = 'part $round' AND state NOT IN ('00000', 'LG013', '22004')",
		'0',
		'who took parts was in time, or too late');
}

is_query($node,
	'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
	'0', 'no deadlock');
is_query($node, 'SELECT sum(balance) FILTER (WHERE currency = \'EUR\'), sum(balance) FILTER (WHERE currency = \'USD\') FROM finance.account',
	'0.00|0.00', 'sums are conserved');
is_sound($node, 'journals');

$node->stop;
done_testing();
