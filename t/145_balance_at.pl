# balance_at() and statement(): what they read does not grow with the history,
# plans made on an empty book included; and pages are exact while others post.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = book_node('main');
my $months = 24;

open_accounts($node, 'alice', 'bob', 'shop', 'quiet', 'never', map { "other$_" } 0 .. 9);

# Each month the same: alice and bob pay each other, the shop is only paid;
# every tenth payment has a value date about the month.
sub make_history
{
	my ($first, $n, $each) = @_;

	foreach my $month ($first .. $first + $n - 1)
	{
		$node->safe_psql(
			'postgres', qq(
SELECT count(*) FROM finance.import_transfers(ARRAY(
	SELECT finance.request(
		CASE n % 3 WHEN 0 THEN 'alice' WHEN 1 THEN 'bob' ELSE 'other' || n % 10 END,
		CASE n % 3 WHEN 0 THEN 'bob' WHEN 1 THEN 'alice' ELSE 'shop' END, n,
		recorded_at => m.start + n * interval '1 minute',
		effective_at => CASE WHEN n % 10 = 0 THEN m.start + (n % 900 - 450) * interval '1 hour' END)
	FROM generate_series(1, $each) n,
		(SELECT timestamptz '2021-01-01 00:00+00' + interval '$month months' AS start) m ORDER BY n));
));
	}
	$node->safe_psql('postgres', 'VACUUM ANALYZE');
}

# Buffers read by a query, in a session that has run it before.  It made its
# plans, as the first session on a fresh install does, for an empty book.
my $session = $node->background_psql('postgres');

sub buffers
{
	my ($query) = @_;

	$session->query_safe("$query;");
	my $plan = decode_json($session->query_safe(
			"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) $query;"))->[0]{Plan};
	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}

sub balance_at
{
	my ($code, $at, $by) = @_;

	return "SELECT finance.balance_at('$code', '$at', by => '" . ($by // 'recorded') . "')";
}

buffers($_)
  foreach (
	balance_at('alice', '2022-01-01'), balance_at('alice', '2022-01-01', 'effective'),
	"SELECT * FROM finance.statement('alice')");

# ------------------------------------------------------------------------
# two years, then ten times as much in each of two more
# ------------------------------------------------------------------------

# the quiet account moves in the third month, and then in the last
make_history(0, 3, 60);
$node->safe_psql('postgres',
	"SELECT finance.import_transfers(ARRAY[finance.request('other1', 'quiet', 5, recorded_at => '2021-03-20')])");
make_history(3, $months - 3, 60);

my %at = ('recorded' => '2022-06-01 00:30+00', 'effective' => '2022-06-01 00:30+00');
my $page = "SELECT * FROM finance.statement('alice', '2022-06-01', \"limit\" => 20)";
my %short = map { $_ => buffers(balance_at('alice', $at{$_}, $_)) } sort keys %at;
my $short_page = buffers($page);

cmp_ok($short{recorded}, '<=', 16, 'a balance: a few buffers');
cmp_ok($short_page, '<=', 120, 'a page: a few buffers, and some for each counterparty');

make_history($months, $months, 600);
$node->safe_psql('postgres',
	"SELECT finance.import_transfers(ARRAY[finance.request('other1', 'quiet', 5, recorded_at => '2024-12-20')])");

cmp_ok(buffers(balance_at('alice', $at{recorded})),
	'<=', $short{recorded} + 4, 'a long history: no more for a balance of then');
cmp_ok(buffers(balance_at('alice', $at{effective}, 'effective')),
	'<=', $short{effective} + 8, 'a long history: no more for a balance by value date of then');
cmp_ok(buffers(balance_at('alice', '2024-06-01 00:30+00')),
	'<=', 16, 'a long history: no more for a balance of later');
cmp_ok(buffers(balance_at('shop', '2024-06-01 00:30+00')),
	'<=', 16, 'nor for an account that is only paid');
cmp_ok(buffers($page), '<=', $short_page + 20, 'a long history: no more for a page');
cmp_ok(buffers(balance_at($_, 'infinity')), '<=', 6, "$_ now: the account alone")
  foreach ('alice', 'quiet', 'never');

# The quiet account is looked for in each month, on both sides.
cmp_ok(buffers(balance_at('quiet', '2024-12-01')),
	'<=', 10 + 2 * 3 * 2 * $months, 'a quiet account: three buffers for each side and month');
cmp_ok(buffers("SELECT * FROM finance.statement('quiet', '2021-03-01')"),
	'<=', 20 + 2 * 3 * 2 * $months, 'and so its statement');

# ------------------------------------------------------------------------
# and it is right
# ------------------------------------------------------------------------

my $moved = q(
SELECT t.id, a.code, t.change, coalesce(t.effective_at, finance.id_time(t.id)) AS effective_at
FROM (SELECT id, from_account_id AS account_id, -amount::numeric AS change, effective_at FROM finance.transfer
	UNION ALL SELECT id, to_account_id, amount::numeric, effective_at FROM finance.transfer) t
JOIN finance.account a USING (account_id));
is_query($node, qq(
WITH moved AS MATERIALIZED ($moved), moment AS (
	SELECT code, timestamptz '2020-12-01' + n * interval '9 days 1 hour 7 minutes' AS at
	FROM generate_series(0, 180) n, unnest('{alice,shop,quiet}'::text[]) code)
SELECT count(*), count(DISTINCT finance.balance_at(code, at)) > 100,
	count(*) FILTER (WHERE finance.balance_at(code, at) <>
		(SELECT coalesce(sum(change), 0) FROM moved WHERE moved.code = moment.code AND finance.id_time(id) < at)),
	count(*) FILTER (WHERE finance.balance_at(code, at, 'effective') <>
		(SELECT coalesce(sum(change), 0) FROM moved WHERE moved.code = moment.code AND effective_at < at))
FROM moment), '543|t|0|0', 'balances of many moments are the sums');
$session->quit;

# ------------------------------------------------------------------------
# pages while others post: each page is read under a snapshot of its own
# ------------------------------------------------------------------------

$node->safe_psql(
	'postgres', q(
CREATE FUNCTION page_through(code text, size integer, OUT entries bigint, OUT breaches bigint)
LANGUAGE plpgsql AS $$
DECLARE
	l record;
	last bigint;
	opening numeric;
	change numeric := 0;
	before numeric;
	version bigint := 0;
	closed boolean := false;
BEGIN
	entries := 0;
	breaches := 0;
	WHILE NOT closed LOOP
		FOR l IN SELECT * FROM finance.statement(code, '2025-01-01', after => last, "limit" => size) LOOP
			CASE l.line
				WHEN 'opening' THEN
					breaches := breaches + (opening IS NOT NULL)::integer;
					opening := l.balance;
					before := l.balance;
				WHEN 'entry' THEN
					entries := entries + 1;
					change := change + l.change;
					breaches := breaches + (l.version <> version + 1 AND version > 0)::integer + (l.balance <> before + l.change)::integer;
					version := l.version;
					before := l.balance;
					last := l.transfer_id;
				WHEN 'closing' THEN
					closed := true;
					breaches := breaches + (opening + change <> l.balance)::integer;
			END CASE;
		END LOOP;
	END LOOP;
	breaches := breaches + (opening IS NULL)::integer;
END $$;
));
$node->safe_psql('postgres',
	"SELECT count(*) FROM finance.transfer_batch(ARRAY(SELECT finance.request('alice', 'bob', 1) FROM generate_series(1, 100)))");
my $script = $node->basedir . '/post.sql';
append_to_file(
	$script, q(
\set n random(1, 100)
\set other random(0, 9)
SELECT finance.transfer('alice', 'other' || :other, :n);
BEGIN;
SELECT finance.transfer('other' || :other, 'alice', :n, effective_at => '2025-02-01');
SELECT hold_id FROM finance.hold('alice', 'bob', :n + 1) \gset
COMMIT;
SELECT finance.capture(:hold_id, :n, final => true);
));
my ($out, $err) = ('', '');
my $load = IPC::Run::start(
	[
		'pgbench', '-n', '-c', '4', '-j', '2', '-t', 150 * soak(), '-f', $script,
		'-h', $node->host, '-p', $node->port, 'postgres'
	],
	'<', \undef, '>', \$out, '2>', \$err);
my ($rounds, $breaches, $grew, $last) = (0, 0, 0, 0);
do
{
	$load->pump_nb;
	my ($entries, $wrong) = split /\|/,
	  $node->safe_psql('postgres',
		'SELECT * FROM page_through(\'alice\', ' . (7 + $rounds % 50) . ')');
	$rounds++;
	$breaches += $wrong;
	$grew++ if $entries > $last;
	$last = $entries;
} while ($load->pumpable);
ok($load->finish, 'the load ran') or diag("$out\n$err");
is($breaches, 0, 'pages follow each other and add up while others post');
cmp_ok($grew, '>=', 1, "the account moved meanwhile ($rounds rounds)");
is_query($node, "SELECT entries, breaches FROM page_through('alice', 10000)",
	100 + 4 * 4 * 150 * soak() . '|0', 'at the end all is there');
is_query($node, "SELECT finance.balance_at('alice', 'infinity', 'effective') = finance.balance('alice')",
	't', 'as are the value dates');
is_sound($node, 'history');

$node->stop;
done_testing();
