# History of an account: index scans on both sides, newest first, and no more
# of them than what is asked for, however long the history.
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

my $node = book_node('main');
my $months = 24;

open_accounts($node, 'alice', 'bob', 'quiet', map { "other$_" } 0 .. 39);
$node->safe_psql(
	'postgres', q(
CREATE ROLE teller LOGIN;
SELECT finance.grant_access('teller', 'app');
SELECT finance.add_rule('cap', 'transfer_limit', 1000);
));
my %id = map {
	$_ => $node->safe_psql('postgres',
		"SELECT account_id FROM finance.account WHERE code = '$_'")
} ('alice', 'bob', 'quiet');

# Transfers in month after month, made as ever: an account whose last id lies
# in a month gets its next in it.
sub make_history
{
	my ($first, $n, $each) = @_;

	foreach my $month ($first .. $first + $n - 1)
	{
		$node->safe_psql(
			'postgres', qq(
UPDATE finance._account SET last_transfer_id = greatest(last_transfer_id,
	finance.id_floor(date_trunc('month', now()) + interval '$month months'));
SELECT count(finance.transfer(CASE n % 4 WHEN 0 THEN 'alice' WHEN 1 THEN 'bob' ELSE 'other' || n % 40 END,
		CASE n % 4 WHEN 0 THEN 'bob' WHEN 1 THEN 'alice' ELSE 'other' || (n * 7 + 1) % 40 END,
		CASE n % 10 WHEN 0 THEN 1001 ELSE n END))
	FROM generate_series(1, $each) n;
));
	}
	$node->safe_psql('postgres', 'VACUUM ANALYZE');
}

sub plan_of
{
	my ($query, $settings) = @_;
	my $prefix = ($settings // '') . "\n";
	my $plan = 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)';

	# the second is not disturbed by catalogs read for the first time
	my $text = $node->safe_psql('postgres', "$prefix $plan $query;\n\\echo !\n$plan $query");

	return decode_json($text =~ s/.*!\n//sr)->[0]{Plan};
}

# all nodes of a plan that read a table
sub scans
{
	my ($node) = @_;

	return (
		defined $node->{'Relation Name'} ? $node : (),
		map { scans($_) } @{ $node->{Plans} // [] });
}

sub nodes
{
	my ($node) = @_;

	return ($node, map { nodes($_) } @{ $node->{Plans} // [] });
}

sub buffers
{
	my ($plan) = @_;

	return $plan->{'Shared Hit Blocks'} + $plan->{'Shared Read Blocks'};
}

sub history
{
	my ($code, $more) = @_;

	return
	  "SELECT * FROM finance.entry WHERE account_id = $id{$code} ORDER BY transfer_id $more";
}

# A page of history: which index each scan walks, which way, how far.
sub check_page
{
	my ($name, $query, $direction, $settings) = @_;
	my $plan = plan_of($query, $settings);
	my @scans = grep { $_->{'Relation Name'} =~ /^transfer_/ } scans($plan);
	my @sides = map { $_->{'Index Name'} // '' } @scans;
	my $rows = 0;

	is(scalar(grep { $_->{'Node Type'} ne 'Index Scan' } @scans),
		0, "$name: index scans only")
	  or diag(explain_text($plan));
	is(scalar(grep { !/_(from|to)_account$/ } @sides),
		0, "$name: of the two accounts' indexes");
	is(scalar(grep { /_from_account$/ } @sides), scalar(grep { /_to_account$/ } @sides),
		"$name: on both sides");
	is(scalar(grep { $_->{'Scan Direction'} ne $direction } @scans),
		0, "$name: in the order asked for");
	is(scalar(grep { $_->{'Node Type'} =~ /Sort/ } nodes($plan)),
		0, "$name: nothing is sorted");
	$rows += $_->{'Actual Rows'} * $_->{'Actual Loops'}
	  + ($_->{'Rows Removed by Filter'} // 0) foreach @scans;
	return ($plan, $rows, scalar(@scans));
}

sub explain_text
{
	return JSON::PP->new->pretty->canonical->encode($_[0]);
}

# ------------------------------------------------------------------------
# two years, then ten times as much in each of two more
# ------------------------------------------------------------------------

make_history(1, $months, 60);
my ($plan, $rows, $scans) =
  check_page('a page', history('alice', 'DESC LIMIT 20'), 'Backward');

# To merge two sides it looks at the first row of each partition and side, and
# of those with rejected transfers, at some more.
cmp_ok($rows, '<=', 20 + 3 * $scans, 'a page: reads little more than it shows');
my $short = buffers($plan);
cmp_ok($short, '<=', 8 * $scans, 'a page: a few buffers for each index');

make_history($months + 1, $months, 600);
my ($long, $long_rows, $long_scans) =
  check_page('a page of a long history', history('alice', 'DESC LIMIT 20'),
	'Backward');
cmp_ok($long_rows / $long_scans, '<=', $rows / $scans + 1,
	'a long history: no more rows for each index');
cmp_ok(buffers($long) / $long_scans, '<=', $short / $scans + 2,
	'a long history: no more buffers for each index');
is( $node->safe_psql('postgres', history('alice', 'DESC LIMIT 20')),
	$node->safe_psql(
		'postgres',
		"SELECT * FROM (SELECT * FROM finance.entry OFFSET 0) e WHERE account_id = $id{alice} ORDER BY version DESC LIMIT 20"
	),
	'and it is the right page');
is($node->safe_psql('postgres', history('alice', 'DESC LIMIT 20')) =~ tr/\n//,
	19, 'of 20 rows');

# ------------------------------------------------------------------------
# other pages
# ------------------------------------------------------------------------

check_page('the first page', history('bob', 'LIMIT 20'), 'Forward');
my $middle = $node->safe_psql('postgres',
	"SELECT transfer_id FROM finance.entry WHERE account_id = $id{bob} ORDER BY transfer_id DESC OFFSET 5000 LIMIT 1");
my ($page, $page_rows, $page_scans) = check_page(
	'a page in the middle',
	"SELECT * FROM finance.entry WHERE account_id = $id{bob} AND transfer_id < $middle ORDER BY transfer_id DESC LIMIT 20",
	'Backward');
cmp_ok($page_rows, '<=', 20 + 3 * $page_scans,
	'a page in the middle: reads little more than it shows');
cmp_ok($page_scans, '<', $long_scans, 'a page in the middle: newer months are left out');

my ($since, $since_rows, $since_scans) = check_page(
	'the last months',
	"SELECT * FROM finance.entry WHERE account_id = $id{alice} AND transfer_id >= finance.id_floor(now() + interval '"
	  . (2 * $months - 1)
	  . " months') ORDER BY transfer_id DESC LIMIT 20",
	'Backward');
cmp_ok(buffers($since), '<=', 40, 'the last months: older ones are not touched');
check_page('an account that never moved', history('quiet', 'DESC LIMIT 20'), 'Backward');

# a user under row security, with a generic plan
($plan, $rows, $scans) = check_page(
	'a page under row security',
	'EXECUTE page',
	'Backward',
	"SET ROLE teller; SET plan_cache_mode = force_generic_plan;"
	  . " PREPARE page AS "
	  . history('alice', 'DESC LIMIT 20') . ';');
cmp_ok($rows, '<=', 20 + 3 * $scans,
	'a page under row security: reads little more than it shows');
is( $node->safe_psql('postgres', 'SET ROLE teller; ' . history('alice', 'DESC LIMIT 20')),
	$node->safe_psql('postgres', history('alice', 'DESC LIMIT 20')),
	'and it is the same');

# the account named by its code
($plan) = check_page(
	'by code',
	"SELECT * FROM finance.entry WHERE account_id = (SELECT account_id FROM finance.account WHERE tenant_id = 0 AND code = 'alice') ORDER BY transfer_id DESC LIMIT 20",
	'Backward');
my $joined = plan_of(
	"SELECT e.* FROM finance.account a JOIN finance.entry e USING (account_id) WHERE a.tenant_id = 0 AND a.code = 'quiet'"
);
cmp_ok(buffers($joined), '<=', 10 * $long_scans,
	'a join reaches the entries of an account by index, in any month');

# ------------------------------------------------------------------------
# it is a history
# ------------------------------------------------------------------------

is_query(
	$node,
	"SELECT bool_and(version = before + 1 OR before IS NULL), bool_and(balance = balance_before + change OR before IS NULL), min(version), bool_and(version <= last)"
	  . " FROM (SELECT e.*, a.version AS last, lag(e.version) OVER w AS before, lag(e.balance) OVER w AS balance_before FROM finance.entry e"
	  . " JOIN finance.account a USING (account_id) WINDOW w AS (PARTITION BY account_id ORDER BY transfer_id)) e",
	't|t|1|t',
	'by id it is by version, and balances run on');
is_query($node,
	"SELECT count(*) > 0, (SELECT count(*) FROM finance.entry) = 2 * (SELECT count(*) FROM finance.transfer WHERE status = 'completed') FROM finance.transfer WHERE status = 'rejected'",
	't|t', 'rejected transfers are no entries');
is_sound($node, 'history');

$node->stop;
done_testing();
