# Back-tests against what rules said when it happened: a random history with the
# clock moved, of transfers, holds, what becomes of them, reversals, batches and
# rollbacks, under ruleset A.  A back-test of A agrees with every decision of
# it; one of B says what B said as a shadow when the same was requested again.
#
# BACKTEST_SEED=n repeats a run; FIN_SOAK multiplies its length.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use POSIX 'strftime';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{BACKTEST_SEED} || time() % 1_000_000;
my $steps = 2500 * soak();

srand($seed);
note("BACKTEST_SEED=$seed");

my $node = FinanceTest::finance_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "log_statement = none\nsynchronous_commit = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');
$node->backup('empty');

sub pick { return $_[ int(rand(@_)) ]; }

# ------------------------------------------------------------------------
# two books alike: 'one' lives under A; 'two' does, and B is its shadow
# ------------------------------------------------------------------------

# the clock of the history starts there: a week in which clocks change, across
# the end of a month
my $clock = 1_805_929_200;    # 2027-03-24 15:00:00 UTC
sub moment { return strftime('%Y-%m-%d %H:%M:%S', gmtime($_[0])) . '+00'; }

my @euro = map { "a$_" } 1 .. 12;
my @yen = map { "y$_" } 1 .. 4;
my $days_ahead = int(($clock - time()) / 86400);

my @rules_a = (
	"'amount', 'transfer_limit', 900, minimum => 0.05",
	"'amount of gold', 'transfer_limit', 700, level => 'gold', outcome => 'report'",
	"'daily', 'daily_limit', 2500, currency => 'EUR'",
	"'hour', 'total_limit', 1200, period => 'hour'",
	"'month', 'total_limit', 4000, period => 'month', outcome => 'report'",
	"'pair', 'total_limit', 900, period => 'day', per => 'pair', outcome => 'challenge'",
	"'payee', 'count_limit', 12, period => 'day', per => 'counterparty', outcome => 'report'",
	"'type', 'count_limit', 60, period => 'day', per => 'type', outcome => 'report'",
	"'account type', 'total_limit', 800, per => 'account_type', span => '2 hours', outcome => 'report'",
	"'fast', 'velocity', 4, span => '1 hour'",
	"'night', 'night_window', 300, window_start => '22:00', window_end => '06:00'",
	"'weekend', 'night_window', 500, window_start => '00:00', window_end => '24:00', weekdays => '{6,7}', calendar => 'default', outcome => 'report'",
	"'office', 'business_hours', 600, window_start => '09:00', window_end => '17:30', time_zone => 'America/New_York', outcome => 'report'",
	"'blocked', 'blocklist'",
	"'watched', 'watchlist', subject => 'country'",
	"'watched device', 'watchlist', subject => 'device'",
	"'known', 'allowlist', currency => 'JPY'",
	"'new payee', 'new_counterparty', 200, outcome => 'report'",
	"'new device', 'new_device', 300",
	"'changed', 'device_change', 700, outcome => 'report'",
	"'drain', 'balance_drain', 0.9, minimum => 100",
	"'asleep', 'dormant_account', 400, span => '" . ($days_ahead + 3) . " days', outcome => 'report'",
	"'split', 'structuring', 500, minimum => 440, times => 2, span => '1 day', outcome => 'report'",
	"'large', 'large_value', 650",
	"'round', 'round_amount', 100, outcome => 'pass', score => 20",
	"'jump', 'geography_jump', 50, span => '2 hours', outcome => 'report', score => 40",
	"'words', 'expression', expression => 'amount > 0.5 * account_day_amount AND account_day_count > 3', outcome => 'report'",
	"'held', 'expression', expression => 'is_hold AND amount > 350'");
my @rules_b = (
	"'amount', 'transfer_limit', 600, minimum => 0.10, outcome => 'review'",
	"'daily', 'daily_limit', 1500",
	"'hour', 'total_limit', 700, period => 'hour', per => 'counterparty'",
	"'month', 'count_limit', 60, period => 'month', outcome => 'challenge'",
	"'sliding', 'total_limit', 2000, span => '30 hours'",
	"'sliding pair', 'count_limit', 2, span => '6 hours', per => 'pair', outcome => 'report'",
	"'type', 'total_limit', 1000, per => 'type', period => 'hour', outcome => 'report'",
	"'changed', 'device_change', outcome => 'report'",
	"'new device', 'new_device', outcome => 'report'",
	"'split', 'structuring', 400, minimum => 250.005, times => 2, period => 'day', per => 'account_type', outcome => 'report'",
	"'asleep', 'dormant_account', span => '" . ($days_ahead + 5) . " days', outcome => 'report'",
	"'jump', 'geography_jump', span => '1 day', outcome => 'report'",
	"'first', 'expression', expression => 'pair_count = 0 AND from_age_days >= 0', outcome => 'report'",
	"'facts', 'expression', expression => 'CASE WHEN is_hold OR is_reversal THEN available < 200 ELSE balance + to_balance > 1000 END', outcome => 'report'",
	"'totals', 'expression', expression => 'account_hour_amount + counterparty_day_amount + pair_month_amount > 3 * amount AND account_type_month_count % 3 = 0', outcome => 'report'",
	"'times', 'expression', expression => 'local_time < time ''07:30'' OR weekday = 7 OR is_holiday', outcome => 'report'",
	"'places', 'expression', expression => 'last_country <> country OR last_device <> device', on_error => 'report'",
	"'minutes', 'expression', expression => 'amount / (last_country_minutes - 1) > 1 OR device_count > 3', on_error => 'challenge'",
	"'metadata', 'expression', expression => 'metadata->>''device'' = ''d1'' AND from_level IS NULL AND reference IS NULL', on_error => 'pass'");

sub make_rulesets
{
	my ($mode_of_b) = @_;
	my $sql = '';

	foreach my $ruleset ([ 'A', \@rules_a ], [ 'B', \@rules_b ])
	{
		$sql .= "SELECT finance.create_ruleset('$ruleset->[0]', score_review => 60) AS v \\gset\n"
		  . join('', map { "SELECT finance.add_rule($_, ruleset => :v);\n" } @{ $ruleset->[1] });
		$sql .= "SELECT finance.publish_ruleset(:v);\n" if $ruleset->[0] eq 'A';
		$sql .= "SELECT finance.publish_ruleset(:v, '$mode_of_b');\n"
		  if $ruleset->[0] eq 'B' && $mode_of_b;
	}
	return $sql;
}

sub make_book
{
	my ($name, $mode_of_b) = @_;
	my $tenant = $node->safe_psql('postgres', "SELECT finance.create_tenant('$name', 'Europe/Berlin')");
	my $sql = "SET finance.tenant = $tenant;\n";

	foreach my $code (@euro, @yen)
	{
		my $currency = $code =~ /^y/ ? 'JPY' : 'EUR';
		my $floor = $code =~ /[1357]$/ ? 'NULL' : '-1500';

		$sql .= "SELECT finance.create_account('$code', '$currency', min_available => $floor);\n";
	}
	$sql .= "SELECT finance.set_account_level('$_', 'gold') FROM (VALUES (1)) v;\n" foreach qw(a2 a5 a8);
	$sql .= "SELECT finance.add_to_list('allowlist', 'account', '$_', 'test');\n" foreach @yen[ 0 .. 2 ];
	$sql .= "SELECT finance.add_holiday('2027-03-26', 'Good Friday');\n"
	  . "SELECT finance.add_to_list('blocklist', 'account', 'a9', 'test', '2027-03-25 12:00+00');\n"
	  . "SELECT finance.add_to_list('watchlist', 'country', 'FR', 'test');\n"
	  . "SELECT finance.add_to_list('watchlist', 'device', 'd3', 'test', '2027-03-29 00:00+00');\n";
	$sql .= make_rulesets($mode_of_b);
	$sql .= "SELECT finance.set_rule_limit('amount', 500, 'test', level => 'gold');\n"
	  . "SELECT finance.set_rule_limit('daily', 6000, 'test', account => 'a1', expires_at => '2027-03-27 10:00+00');\n"
	  . "SELECT finance.set_rule_limit('hour', 1500, 'test', account_type => 'liability', expires_at => '2027-03-28 10:00+00');\n";
	$node->safe_psql('postgres', $sql);
	return $tenant;
}

my $one = make_book('one', undef);
my $two = make_book('two', 'shadow');
$node->safe_psql(
	'postgres', q(
CREATE SCHEMA test;
CREATE TABLE test.made (tenant integer, n integer, id bigint, token text, status text, error text,
	PRIMARY KEY (tenant, n));
CREATE TABLE test.moment (tenant integer, id bigint, at timestamptz, PRIMARY KEY (tenant, id));
CREATE FUNCTION test.tenant() RETURNS integer STABLE LANGUAGE sql
	AS $$ SELECT current_setting('finance.tenant')::integer $$;
CREATE FUNCTION test.id(n integer) RETURNS bigint STABLE LANGUAGE sql
	AS $$ SELECT m.id FROM test.made m WHERE m.tenant = test.tenant() AND m.n = $1 $$;
-- what was parked last, and its token
CREATE FUNCTION test.parked(kind text) RETURNS bigint STABLE LANGUAGE sql
	AS $$ SELECT max(r.transfer_id) FROM finance.risk_review r
		WHERE r.tenant_id = test.tenant() AND r.kind = $1 AND r.status = 'open' $$;
CREATE FUNCTION test.token(id bigint) RETURNS text STABLE LANGUAGE sql
	AS $$ SELECT max(m.token) FROM test.made m WHERE m.tenant = test.tenant() AND m.id = $1 $$;

-- one call that answers with transfers, at that time
CREATE FUNCTION test.run(n integer, at text, actor text, call text, undo boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	error text;
BEGIN
	PERFORM set_config('finance.test_clock', at, true), set_config('finance.actor', actor, true);
	BEGIN
		EXECUTE 'SELECT to_jsonb(r) FROM ' || call || ' r' INTO answer;
		IF undo THEN
			RAISE EXCEPTION USING ERRCODE = 'ZZ000';
		END IF;
	EXCEPTION WHEN OTHERS THEN
		error := SQLSTATE;
	END;
	INSERT INTO test.made VALUES (test.tenant(), n, CASE WHEN error IS NULL THEN (answer->>'id')::bigint END,
		answer->>'token', answer->>'status', error);
	INSERT INTO test.moment SELECT t.tenant_id, t.id, at::timestamptz FROM finance.transfer t
	WHERE t.tenant_id = test.tenant()
		AND t.id > coalesce((SELECT max(m.id) FROM test.moment m WHERE m.tenant = test.tenant()), 0);
END $$;

-- what decisions recorded, as a back-test tells it
CREATE FUNCTION test.recorded(tenant integer, mode text)
	RETURNS TABLE (rule text, currency text, hits bigint, amount numeric, report bigint, challenge bigint,
		review bigint, reject bigint) LANGUAGE sql AS $$
SELECT h.rule, t.currency, count(*), sum(t.amount), count(*) FILTER (WHERE h.outcome = 'report'),
	count(*) FILTER (WHERE h.outcome = 'challenge'), count(*) FILTER (WHERE h.outcome = 'review'),
	count(*) FILTER (WHERE h.outcome = 'reject')
FROM (SELECT d.tenant_id, d.transfer_id, d.mode, NULL AS rule, d.outcome FROM finance.risk_decision d
	UNION ALL SELECT h.tenant_id, h.transfer_id, h.mode, h.rule, h.outcome FROM finance.risk_hit h) h
JOIN finance.transfer t ON t.tenant_id = h.tenant_id AND t.id = h.transfer_id
WHERE h.tenant_id = $1 AND h.mode = $2
GROUP BY h.rule, t.currency $$;

-- each judged transfer by its place in the book, and what became of it
CREATE VIEW test.judged AS
SELECT t.tenant_id AS tenant, row_number() OVER (PARTITION BY t.tenant_id ORDER BY t.id) AS place, t.id,
	f.code AS from_account, c.code AS to_account, t.status, t.type, t.amount, t.from_balance,
	t.to_balance, t.from_held, t.recorded_at, t.metadata, t.reverses_id IS NOT NULL AS reverses
FROM finance.transfer t
JOIN finance._account f ON f.tenant_id = t.tenant_id AND f.account_id = t.from_account_id
JOIN finance._account c ON c.tenant_id = t.tenant_id AND c.account_id = t.to_account_id
WHERE t.hold_id IS NULL OR t.hold_id = t.id;
));

# ------------------------------------------------------------------------
# requests
# ------------------------------------------------------------------------

my @amounts = (0.01, 0.05, 0.5, 12.34, 80, 100, 199.99, 200.01, 300, 350.5, 440, 499.99, 500, 650, 700, 899.99, 900, 901);

sub random_request
{
	my ($is_yen) = @_;
	my @codes = $is_yen ? @yen : @euro;
	my $from = pick(@codes);
	my $to = pick(grep { $_ ne $from } @codes);
	my $amount = rand() < 0.5 ? pick(@amounts) : sprintf('%.2f', exp(rand(7)));
	my @metadata;

	$amount = int($amount) + 1 if $is_yen;
	push @metadata, '"device": "' . pick('d1', 'd1', 'd2', 'd3', "own $from") . '"' if rand() < 0.7;
	push @metadata, '"country": "' . pick('DE', 'DE', 'DE', 'FR', 'US') . '"' if rand() < 0.7;
	return "'$from', '$to', $amount, type => '" . pick('transfer', 'transfer', 'deposit') . "'"
	  . (@metadata ? ", metadata => '{" . join(', ', @metadata) . "}'" : '')
	  . (rand() < 0.1 ? ", reference => 'r'" : '');
}

my (@calls, @holds, @transfers);

# the call, and who makes it
sub random_call
{
	my ($n) = @_;
	my $dice = rand(100);

	if ($dice < 52 || !@holds)
	{
		push @transfers, $n;
		push @holds, $n;    # may be parked
		return ('finance.transfer(' . random_request(rand() < 0.15) . ')', 'maker');
	}
	if ($dice < 68)
	{
		push @holds, $n;
		return ('finance.hold(' . random_request(rand() < 0.15)
			  . (rand() < 0.3 ? ", expires_in => '3 hours'" : '') . ')', 'maker');
	}
	if ($dice < 80)
	{
		my $hold = 'test.id(' . (rand() < 0.5 ? $holds[-1 - int(rand(@holds < 40 ? @holds : 40))] : pick(@holds)) . ')';

		return (rand() < 0.5
			? "finance.capture($hold" . pick('', ', 40', ', 100, final => true', ', 0.01') . ')'
			: "finance.release($hold" . pick('', '', ', 10', ', 0.02') . ')', 'maker');
	}
	if ($dice < 90)
	{
		return pick(
			[ "finance.review_transfer(test.parked('review'), true)", 'checker' ],
			[ "finance.review_transfer(test.parked('review'), false, 'no')", 'checker' ],
			[ "finance.confirm_challenge(test.parked('challenge'), test.token(test.parked('challenge')))", 'maker' ],
			[ "finance.review_transfer(test.parked('challenge'), false, 'no')", 'checker' ])->@*;
	}
	return ('finance.reverse_transfer(test.id(' . pick(@transfers) . ')' . pick('', ', 5') . ')', 'maker')
	  if $dice < 93 && @transfers;
	return ('(SELECT finance.expire_holds() AS id)', 'maker') if $dice < 94;
	return ("finance.journal(ARRAY[finance.leg('a1', 'debit', 30), finance.leg('a2', 'credit', 30)])", 'maker')
	  if $dice < 95;
	# one that is rejected in a chain was judged after those before it, which are
	# undone and leave no row: no chain here has any before
	return ('finance.transfer_batch(ARRAY['
		  . join(', ', map {
				'finance.request(' . random_request(0) . (rand() < 0.3
					? ", linked => true), finance.request('a1', 'nobody', 1)"
					: pick('', ", action => 'hold'") . ')')
			} 1 .. 2 + int(rand(6))) . '])', 'maker');
}

foreach my $n (1 .. $steps)
{
	my ($call, $actor) = random_call($n);
	my $undo = rand() < 0.03 ? 'true' : 'false';

	$clock += rand() < 0.004 ? -3600 : pick(0, 1, 20, 60, 240, 600, rand() < 0.05 ? 40_000 : 900);
	push @calls, "SELECT test.run($n, '" . moment($clock) . "', '$actor', \$call\$$call\$call\$, $undo)";
}

foreach my $tenant ($one, $two)
{
	$node->safe_psql('postgres', "SET finance.tenant = $tenant;\n" . join(";\n", @calls) . ';');
}
is_sound($node, 'after all of it');

# ------------------------------------------------------------------------
# the history is as it was meant to be
# ------------------------------------------------------------------------

note("$_") foreach split /\n/, $node->safe_psql('postgres',
	"SELECT coalesce(error, status), count(*) FROM test.made WHERE tenant = $one GROUP BY 1 ORDER BY 2 DESC");
my $statuses = $node->safe_psql('postgres',
	"SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM finance.transfer WHERE tenant_id = $one");
is($statuses, 'approved challenged completed expired held rejected released review', 'the history has all there is');
is_query($node, "SELECT count(*) FROM (SELECT place, from_account, to_account, status, type, amount, from_balance,
		to_balance, from_held, metadata, reverses FROM test.judged WHERE tenant = $one
	EXCEPT SELECT place, from_account, to_account, status, type, amount, from_balance, to_balance, from_held,
		metadata, reverses FROM test.judged WHERE tenant = $two) d", 0, 'both books lived through the same');

# recorded_at is the wall clock's, so that the test's has to be put there
$node->safe_psql(
	'postgres', q(
BEGIN;
ALTER TABLE finance.transfer DISABLE TRIGGER guard;
UPDATE finance.transfer t SET recorded_at = m.at FROM test.moment m
WHERE m.tenant = t.tenant_id AND m.id = t.id;
ALTER TABLE finance.transfer ENABLE ALWAYS TRIGGER guard;
COMMIT;
));

# ------------------------------------------------------------------------
# A agrees with itself, B with its shadow
# ------------------------------------------------------------------------

my $a = "finance.backtest_ruleset(1, '2020-01-01')";
my $b = "finance.backtest_ruleset(2, '2020-01-01')";

sub ask_as
{
	my ($tenant, $sql) = @_;
	return $node->safe_psql('postgres', "SET finance.tenant = $tenant; $sql");
}

# what a back-test tells of hits, against decisions of a tenant
sub is_as_recorded
{
	my ($tenant, $backtest, $recorded, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $hits = "SELECT rule, currency, hits, amount, report, challenge, review, reject";

	is(ask_as($tenant, "($hits FROM $backtest WHERE hits > 0 EXCEPT $hits FROM $recorded)
		UNION ALL ($hits FROM $recorded EXCEPT $hits FROM $backtest)"), '', $name);
}

foreach my $tenant ($one, $two)
{
	my $name = $tenant == $one ? 'one' : 'two';

	is(ask_as($tenant, "SELECT * FROM $a WHERE agree <> transfers OR newly_stopped <> 0 OR newly_passed <> 0"),
		'', "A agrees with what happened, book $name");
	is(ask_as($tenant, "SELECT * FROM finance.backtest_differences(1, '2020-01-01')"),
		'', '... and finds no difference');
	is_as_recorded($tenant, $a, "test.recorded($tenant, 'live')", '... and hits what it hit');
	is_as_recorded($tenant, $b, "test.recorded($two, 'shadow')",
		"B hits what it hit as a shadow, book $name");
	is(ask_as($tenant, "SELECT sum(transfers) FROM $a WHERE rule IS NULL"),
		ask_as($tenant, "SELECT count(*) FROM test.judged WHERE tenant = $tenant"), 'every transfer was judged');
}
is(ask_as($one, "SELECT string_agg(rule, ', ' ORDER BY rule) FROM (SELECT rule FROM $a GROUP BY rule HAVING sum(hits) = 0) r"),
	'', 'every rule of A hit something');
is(ask_as($one, "SELECT string_agg(rule, ', ' ORDER BY rule) FROM (SELECT rule FROM $b GROUP BY rule HAVING sum(hits) = 0) r"),
	'', 'every rule of B hit something');

# each transfer for itself
my $said = "SELECT j.place, coalesce(d.outcome, 'pass') FROM test.judged j LEFT JOIN finance.risk_decision d"
  . " ON d.tenant_id = j.tenant AND d.transfer_id = j.id AND d.mode =";
my $would = "SELECT j.place, coalesce(b.outcome_now, d.outcome, 'pass')
	FROM test.judged j LEFT JOIN finance.risk_decision d ON d.tenant_id = j.tenant AND d.transfer_id = j.id AND d.mode = 'live'
	LEFT JOIN finance.backtest_differences(2, '2020-01-01', NULL, 1000000) b ON b.transfer_id = j.id
	WHERE j.tenant = $one";
is(ask_as($one, "$would EXCEPT $said 'shadow' WHERE j.tenant = $two"), '', 'B says of each transfer what its shadow said');
cmp_ok(ask_as($one, "SELECT count(*) FROM finance.backtest_differences(2, '2020-01-01') WHERE outcome_then < outcome_now"),
	'>', 20, 'which is often something else');
is(ask_as($one, "SELECT count(*) FROM finance.backtest_differences(2, '2020-01-01') b LEFT JOIN finance.risk_decision d
		ON d.transfer_id = b.transfer_id AND d.tenant_id = $one WHERE coalesce(d.outcome, 'pass') <> b.outcome_then"),
	0, '... than what was recorded then');

# what newly_stopped and newly_passed say, from the differences
is(ask_as($one, "SELECT sum(newly_stopped), sum(newly_passed) FROM $b WHERE rule IS NULL"),
	ask_as($one, "SELECT count(*) FILTER (WHERE j.status IN ('completed', 'held') AND outcome_now IN ('challenge', 'review', 'reject')),
		count(*) FILTER (WHERE j.status NOT IN ('completed', 'held') AND outcome_now IN ('pass', 'report'))
		FROM finance.backtest_differences(2, '2020-01-01', NULL, 1000000) b JOIN test.judged j ON j.id = b.transfer_id"),
	'what is newly stopped and newly passed');

# ------------------------------------------------------------------------
# parts, a standby
# ------------------------------------------------------------------------

my $middle = ask_as($one, "SELECT finance.id_time(id) FROM test.judged WHERE tenant = $one ORDER BY id OFFSET $steps / 3 LIMIT 1");
my $counts = 'rule, currency, sum(transfers), sum(hits), sum(amount), sum(agree), sum(newly_stopped), sum(newly_passed)';
foreach my $version (1, 2)
{
	my $whole = "SELECT $counts FROM finance.backtest_ruleset($version, '2020-01-01') WHERE transfers > 0 GROUP BY rule, currency";
	my $parts = "SELECT $counts FROM (SELECT * FROM finance.backtest_ruleset($version, '2020-01-01', '$middle')
		UNION ALL SELECT * FROM finance.backtest_ruleset($version, '$middle')) p WHERE transfers > 0 GROUP BY rule, currency";

	is(ask_as($one, "($whole EXCEPT $parts) UNION ALL ($parts EXCEPT $whole)"), '', "ruleset $version in two parts");
}
is(ask_as($one, "SELECT count(*) FROM finance.backtest_differences(2, '$middle', NULL, 7)"), 7, 'no more differences than asked for');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'empty', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
foreach my $call ($a, $b, "finance.backtest_differences(2, '2020-01-01')")
{
	my $all = "SET finance.tenant = $one; SELECT * FROM $call";

	is($standby->safe_psql('postgres', $all), $node->safe_psql('postgres', $all), 'the same on a standby');
}
$standby->stop;

# the history goes on counting: an allowance of a draft is used by what happened
is(ask_as($one, "SELECT finance.create_ruleset('all') AS v \\gset\n SELECT finance.add_rule('none', 'transfer_limit', 0, ruleset => :v);
	SELECT bool_and(hits = transfers AND misses = 0 AND agree = 0 AND reject = transfers)
	FROM finance.backtest_ruleset(:v, '2020-01-01') WHERE rule IS NOT NULL") =~ s/\n+//r, 't', 'a draft that stops everything');

$node->stop;
done_testing();
