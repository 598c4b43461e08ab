# Decisions are judged again, as random rulesets judged random requests: with
# the clock moved over changes of clocks and ends of months, and everything that
# was looked at changed since; in other sessions, under other settings, and in a
# restored dump.  And what shadows say changes nothing: a second tenant without
# any lives through the same.
#
# FIN_SEED=n repeats a run; FIN_SOAK multiplies its length.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use POSIX 'strftime';
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // 3;
my $alike = 4000 * soak();    # requests that both tenants get
my $all = 10000 * soak();

diag("seed $seed; FIN_SEED=$seed repeats it");
srand($seed);

# words of errors in another language, where there is one
$ENV{LANGUAGE} = 'de';
my $node = finance_node('main');
$node->append_conf('postgresql.conf', "log_statement = none\nsynchronous_commit = off\nlc_messages = 'C'\n");
$node->start;

my $locale = $node->safe_psql('postgres',
	"SELECT collname FROM pg_collation WHERE collname ~* '^(de_DE|C).utf-?8\$' ORDER BY collname DESC LIMIT 1") || 'C';
my $how = "TEMPLATE template0 ENCODING 'UTF8' LOCALE '$locale'";

$node->safe_psql('postgres', "CREATE DATABASE book $how");
$node->safe_psql('book', 'CREATE EXTENSION finance');

sub pick { return $_[ int(rand(@_)) ]; }
sub moment { return strftime('%Y-%m-%d %H:%M:%S', gmtime($_[0])) . sprintf('.%06d+00', $_[0] % 3 ? 0 : rand(1e6)); }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

# ------------------------------------------------------------------------
# rules
# ------------------------------------------------------------------------

my %accounts = (
	EUR => [ map { "a$_" } 1 .. 12 ],
	JPY => [ map { "y$_" } 1 .. 4 ],
	KWD => [ 'k1', 'k2', 'k3' ],
	GOLD => [ 'g1', 'g2', 'g3' ]);
my @codes = map { @$_ } @accounts{ sort keys %accounts };
my @zones = ('Europe/Berlin', 'America/New_York', 'Asia/Kolkata', 'Australia/Lord_Howe', 'UTC', 'Pacific/Apia');
my @calendars = ('default', 'bank', 'default/UTC', 'default/Asia/Kolkata');
my @lists = ('blocklist', 'watchlist', 'allowlist', 'other', 'a/b');
my $days_ahead = int((1_804_000_000 - time()) / 86400);

my @expressions = (
	"amount > 0.5 * account_day_amount AND account_day_count > 3",
	"amount / (last_country_minutes - 1) > 1 OR device_count > 3",
	"(metadata->>'basket')::integer > 5",
	"100 / (weekday - 3) > 40",
	"last_country <> country OR last_device <> device",
	"lower(coalesce(reference, 'NONE')) LIKE '%\xc3\xa4%' OR upper(device) = 'GER\xc3\x84T'",
	"local_time < time '07:30' OR weekday = 7 OR is_holiday",
	"local_date + interval '1 day 2 hours' > timestamp '2027-03-28 00:00' AND extract(day FROM local_date) > 27",
	"CASE WHEN is_hold OR is_reversal THEN available < 200 ELSE balance + to_balance > 1000 END",
	"account_hour_amount + counterparty_day_amount + pair_month_amount > 3 * amount AND account_type_month_count % 3 = 0",
	"pair_count = 0 AND currency <> 'JPY'",
	"metadata ? 'odd' AND jsonb_typeof(metadata->'odd') <> 'string'",
	"(metadata->>'odd')::numeric * 1.10 > amount",
	"(metadata->>'flag')::boolean OR from_level = 'gold'",
	"starts_with(to_account, 'a1') AND to_type = 'liability' AND substr(type, 2, 3) IN ('epo', 'ran')",
	"round(amount, 1) <> amount AND length(reference) < 3");
# what depends on when the test runs
my @expressions_of_age = (
	"from_idle_days > $days_ahead + 20.5 OR from_age_days % 2 = 1",
	"to_age_days > " . ($days_ahead + 15));

# one of each kind, and of each subject of a list
my @known = (
	"'amount', 'transfer_limit', 900, minimum => 0.05",
	"'amount of gold', 'transfer_limit', 700, level => 'gold', outcome => 'report'",
	"'daily', 'daily_limit', 2500, currency => 'EUR', outcome => 'report'",
	"'hour', 'total_limit', 1200, period => 'hour', outcome => 'review'",
	"'pair', 'total_limit', 1500, period => 'day', per => 'pair', outcome => 'challenge'",
	"'sliding', 'total_limit', 2000.5, span => '30 hours 15 minutes', outcome => 'report'",
	"'payee', 'count_limit', 12, period => 'month', per => 'counterparty', outcome => 'report'",
	"'type', 'count_limit', 60, period => 'day', per => 'type', outcome => 'report'",
	"'fast', 'velocity', 4, span => '1 hour', outcome => 'report'",
	"'night', 'night_window', 300, window_start => '22:00', window_end => '06:00', outcome => 'report'",
	"'weekend', 'night_window', window_start => '00:00', window_end => '24:00', weekdays => '{6,7}', calendar => 'default', time_zone => 'UTC', outcome => 'report'",
	"'holiday', 'night_window', window_start => '00:00', window_end => '24:00', weekdays => '{6}', calendar => 'default/UTC', outcome => 'report'",
	"'office', 'business_hours', 600, window_start => '09:00', window_end => '17:30', time_zone => 'America/New_York', outcome => 'report'",
	"'blocked', 'blocklist'",
	"'blocked payer', 'blocklist', list => 'other', subject => 'payer', outcome => 'report'",
	"'watched payee', 'watchlist', subject => 'payee'",
	"'watched country', 'watchlist', subject => 'country'",
	"'watched device', 'watchlist', subject => 'device'",
	"'known', 'allowlist', currency => 'JPY', outcome => 'report'",
	"'known device', 'allowlist', subject => 'device', outcome => 'report'",
	"'known country', 'allowlist', subject => 'country', outcome => 'report'",
	"'new payee', 'new_counterparty', 200, outcome => 'report'",
	"'new device', 'new_device', 300",
	"'changed', 'device_change', 700, outcome => 'report'",
	"'drain', 'balance_drain', 0.9, minimum => 100",
	"'asleep', 'dormant_account', 400, span => '1 hour', outcome => 'report'",
	"'split', 'structuring', 500, minimum => 440, times => 2, span => '1 day', outcome => 'report'",
	"'large', 'large_value', 5",
	"'round', 'round_amount', 100, outcome => 'pass', score => 20",
	"'jump', 'geography_jump', 50, span => '2 hours', outcome => 'report', score => 40",
	"'held', 'expression', expression => 'is_hold AND amount > 350'",
	map { "'fact $_', 'expression', outcome => 'report', expression => " . literal($expressions[$_])
		  . ", on_error => '" . pick('report', 'report', 'pass') . "'" } 0 .. $#expressions);

sub amount { return sprintf('%.' . pick(0, 2, 3) . 'f', exp(rand(7))); }
sub outcome { return pick('report', 'report', 'report', 'pass', 'challenge', 'review', 'reject'); }
sub total { return ', per => \'' . pick('account', 'counterparty', 'pair', 'account_type', 'type') . "', "
	  . (rand() < 0.5 ? 'period => \'' . pick('hour', 'day', 'month') . "'"
		: 'span => \'' . pick('20 minutes', '6 hours', '1 day 12 hours', '40 days 00:00:01.5') . "'"); }
sub hours { return sprintf(", window_start => '%02d:%02d', window_end => '%02d:%02d:30'", rand(24), rand(60), rand(24), rand(60))
	  . (rand() < 0.6 ? ", time_zone => '" . pick(@zones) . "'" : '')
	  . (rand() < 0.6 ? ", weekdays => '{" . join(',', grep { $_ == 3 || rand() < 0.5 } 1 .. 7) . "}'" : '')
	  . (rand() < 0.6 ? ", calendar => '" . pick(@calendars) . "'" : ''); }
sub list { return ", list => '" . pick(@lists) . "', subject => '" . pick('account', 'payer', 'payee', 'country', 'device') . "'"; }
sub maybe { return rand() < 0.6 ? ', ' . amount() : ''; }

my %kinds = (
	transfer_limit => sub { return ', ' . (1 + amount()) . (rand() < 0.5 ? ', minimum => 0.995' : ''); },
	daily_limit => sub { return ', ' . 5 * amount(); },
	total_limit => sub { return ', ' . 5 * amount() . total(); },
	count_limit => sub { return ', ' . int(rand(30)) . total(); },
	velocity => sub { return ', ' . int(rand(8)) . total(); },
	night_window => sub { return maybe() . hours(); },
	business_hours => sub { return maybe() . hours(); },
	blocklist => \&list,
	watchlist => \&list,
	allowlist => \&list,
	new_counterparty => \&maybe,
	new_device => \&maybe,
	device_change => \&maybe,
	balance_drain => sub { return ', ' . pick('0.10', 0.5, 0.999, 1) . (rand() < 0.5 ? ', minimum => ' . amount() : ''); },
	dormant_account => sub { return maybe() . ", span => '" . ($days_ahead + int(rand(40))) . " days'"; },
	structuring => sub { my $high = 10 + amount(); return ", $high, minimum => " . 0.7 * $high . ', times => ' . (1 + int(rand(4))) . total(); },
	large_value => sub { return ', ' . amount(); },
	round_amount => sub { return ', ' . pick(1, 10, '0.50', 100, '12.34') . (rand() < 0.5 ? ', minimum => 20' : ''); },
	geography_jump => sub { return maybe() . ", span => '" . pick('30 minutes', '1 day', '9 days 01:02:03') . "'"; },
	expression => sub { return ', expression => ' . literal(pick(@expressions, @expressions_of_age))
		  . (rand() < 0.7 ? ", on_error => '" . outcome() . "'" : ''); });

sub random_rule
{
	my ($name) = @_;
	my $kind = pick(sort keys %kinds);

	return "'$name', '$kind'" . $kinds{$kind}->() . ", outcome => '" . outcome() . "'"
	  . (rand() < 0.5 ? ', score => ' . (int(rand(60)) - 20) : '')
	  . (rand() < 0.15 ? ", account => '" . pick(@codes) . "'" : '')
	  . (rand() < 0.15 ? ", account_type => '" . pick('liability', 'asset') . "'" : '')
	  . (rand() < 0.15 ? ", level => '" . pick('gold', 'new') . "'" : '')
	  . (rand() < 0.15 ? ", currency => '" . pick(sort keys %accounts) . "'" : '')
	  . (rand() < 0.15 ? ", transfer_type => '" . pick('transfer', 'deposit') . "'" : '');
}

# names are shared by versions, as limits are of names
my $random_rulesets = 6;
my @rule_names = ('amount', 'daily', 'hour', 'drain', 'large', 'round', 'fast', 'night', map { "rule $_" } 1 .. 14);

sub make_ruleset
{
	my ($name, @rules) = @_;

	return "SELECT finance.create_ruleset('$name', score_report => " . (10 + int(rand(50))) . ", score_review => "
	  . (60 + int(rand(50))) . (rand() < 0.5 ? ', score_reject => 150' : '') . ") AS v \\gset\n"
	  . join('', map { "SELECT finance.add_rule($_, ruleset => :v);\n" } @rules);
}

my $rulesets = make_ruleset('known', @known) . join('', map {
		make_ruleset("random $_", "'large', 'large_value', 5", map { random_rule("rule $_") } 1 .. 14)
	} 1 .. $random_rulesets);

# ------------------------------------------------------------------------
# two books alike
# ------------------------------------------------------------------------

sub make_book
{
	my ($name) = @_;
	my $tenant = $node->safe_psql('book', "SELECT finance.create_tenant('$name', 'Europe/Berlin')");
	my $sql = "SET finance.tenant = $tenant;\n";

	foreach my $currency (sort keys %accounts)
	{
		foreach my $code ($accounts{$currency}->@*)
		{
			my $floor = $code =~ /[1357]$/ ? 'NULL' : '-1500';
			my $type = $code =~ /[48]$/ ? 'asset' : 'liability';

			$sql .= "SELECT finance.create_account('$code', '$currency', '$type', min_available => $floor);\n";
		}
	}
	$sql .= "SELECT finance.set_account_level('$_', 'gold');\n" foreach qw(a2 a5 a8 y1);
	$sql .= "SELECT finance.set_account_level('$_', 'new');\n" foreach qw(a3 a4 g1);
	$sql .= "SELECT finance.add_to_list('allowlist', 'account', '$_', 'test');\n" foreach qw(y1 y2 y3);
	$sql .= "SELECT finance.add_to_list('allowlist', 'device', '$_', 'test');\n" foreach qw(d1 d2);
	$sql .= "SELECT finance.add_to_list('allowlist', 'country', '$_', 'test');\n" foreach qw(DE FR);
	$sql .= q(
SELECT finance.add_holiday('2027-03-26', 'Good Friday'), finance.add_holiday('2027-03-24', 'one', 'default/UTC'),
	finance.add_holiday('2027-03-31', 'two', 'default/Asia/Kolkata');
SELECT finance.add_to_list('blocklist', 'account', 'a9', 'test', '2027-03-26 12:00+00'),
	finance.add_to_list('watchlist', 'account', 'a7', 'test'),
	finance.add_to_list('watchlist', 'country', 'FR', 'test'),
	finance.add_to_list('watchlist', 'device', 'd3', 'test', '2027-03-29 00:00+00'),
	finance.add_to_list('other', 'account', 'a6', 'test'), finance.add_to_list('a/b', 'account', 'a5', 'test');
) . $rulesets . q(
SELECT finance.publish_ruleset(1);
SELECT finance.set_rule_limit('amount', 500.50, 'test', level => 'gold');
SELECT finance.set_rule_limit('daily', 6000, 'test', account => 'a1', expires_at => '2027-03-29 10:00+00');
SELECT finance.set_rule_limit('hour', 1500.000, 'test', account_type => 'liability', expires_at => '2027-03-28 10:00+00');
SELECT finance.set_rule_limit('rule 3', 20, 'test', account_type => 'liability');
);
	$node->safe_psql('book', $sql);
	return $tenant;
}

$node->safe_psql('book', "SELECT finance.create_currency('GOLD', 18, 'gold, in ounces')");
my $one = make_book('one');
my $two = make_book('two');
$node->safe_psql(
	'book', q(
CREATE SCHEMA test;
CREATE TABLE test.call (n integer PRIMARY KEY, tenant integer, at text, actor text, call text, undo boolean);
CREATE TABLE test.made (tenant integer, n integer, id bigint, token text, status text, rule text, error text,
	PRIMARY KEY (tenant, n));
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
CREATE INDEX ON test.made (tenant, id);

CREATE FUNCTION test.run(c test.call) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	error text;
BEGIN
	PERFORM set_config('finance.test_clock', c.at, true), set_config('finance.actor', c.actor, true);
	BEGIN
		EXECUTE 'SELECT to_jsonb(r) FROM ' || c.call || ' r' INTO answer;
		IF c.undo THEN
			RAISE EXCEPTION USING ERRCODE = 'ZZ000';
		END IF;
	EXCEPTION WHEN OTHERS THEN
		error := SQLSTATE;
	END;
	INSERT INTO test.made VALUES (test.tenant(), c.n, CASE WHEN error IS NULL THEN (answer->>'id')::bigint END,
		answer->>'token', answer->>'status', answer->>'rule', error);
END $$;

-- calls of a tenant, many to a transaction
CREATE PROCEDURE test.live(first integer, last integer) LANGUAGE plpgsql AS $$
DECLARE
	c test.call;
BEGIN
	FOR c IN SELECT * FROM test.call
		WHERE n BETWEEN first AND last AND coalesce(tenant, test.tenant()) = test.tenant() ORDER BY n
	LOOP
		PERFORM test.run(c);
		IF c.n % 20 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;

-- what rules made of each transfer, by its place in the book
CREATE VIEW test.judged AS
SELECT t.tenant_id AS tenant, row_number() OVER (PARTITION BY t.tenant_id ORDER BY t.id) AS place,
	f.code AS from_account, c.code AS to_account, t.status, t.type, t.amount, t.from_balance, t.to_balance,
	t.from_held, t.metadata, d.version, d.outcome, d.score, d.rule,
	(SELECT string_agg(concat_ws(':', h->>'rule', h->>'outcome', h->>'score'), ' ' ORDER BY n)
		FROM jsonb_array_elements(d.hits) WITH ORDINALITY e (h, n)) AS hits,
	l.outcome AS alert, l.rules, l.kinds
FROM finance.transfer t
JOIN finance._account f ON f.tenant_id = t.tenant_id AND f.account_id = t.from_account_id
JOIN finance._account c ON c.tenant_id = t.tenant_id AND c.account_id = t.to_account_id
LEFT JOIN finance.risk_decision d ON d.tenant_id = t.tenant_id AND d.transfer_id = t.id AND d.mode = 'live'
LEFT JOIN finance.alert_transfer l ON l.tenant_id = t.tenant_id AND l.transfer_id = t.id;
GRANT USAGE ON SCHEMA test TO public;
GRANT SELECT ON ALL TABLES IN SCHEMA test TO public;
));

# ------------------------------------------------------------------------
# requests
# ------------------------------------------------------------------------

my @amounts = (0.01, 0.05, 0.5, 5, 12.34, 80, 100, 199.99, 200.01, 300, 350.5, 440, 499.99, 500, 650, 700, 899.99, 900, 901);
my @devices = (('"d1"') x 4, '"d2"', '"d3"', '"own"', "\"Ger\xc3\xa4t\"", '"a \\"b\\\\c"', '""', '" "', 'null', '17', '["d1"]', '"' . 'x' x 128 . '"', '"' . "\xc3\xa4" x 65 . '"');
my @countries = (('"DE"') x 5, '"FR"', '"FR"', '"US"', '"de"', '"Deutschland"', '""', '42', 'null', '{"is": "DE"}', '"' . 'Y' x 129 . '"');
my @odd = ('"text"', '1e3', '-0.00', 'null', 'true', '{"a": [1, 2.50]}', '"NaN"', '"12.5"', '123456789012345678901234567890.5', '"\\u00e4\\n"');

sub random_metadata
{
	return pick('[]', '["device"]', '"device"', '7', 'null', 'true', '{}') if rand() < 0.03;
	return '{' . join(', ',
		rand() < 0.7 ? '"device": ' . pick(@devices) : (),
		rand() < 0.7 ? '"country": ' . pick(@countries) : (),
		rand() < 0.5 ? '"basket": ' . pick('"7"', '"3"', '6', '"abc"', '"99999999999"', 'null', '2.5', '"\\u00e9"') : (),
		rand() < 0.4 ? '"odd": ' . pick(@odd) : (),
		rand() < 0.4 ? '"flag": ' . pick('"yes"', '"maybe"', 'true', 'null', '1') : ()) . '}';
}

sub random_request
{
	my $currency = pick('EUR', 'EUR', 'EUR', 'EUR', 'JPY', 'KWD', 'GOLD');
	my $from = pick($accounts{$currency}->@*);
	my $to = pick(grep { $_ ne $from } $accounts{$currency}->@*);
	my $amount = rand() < 0.4 ? pick(@amounts) : sprintf('%.2f', exp(rand(7)));

	$amount = int($amount) + 1 if $currency eq 'JPY';
	$amount .= sprintf('%05d', rand(1e5)) . '000000001' if $currency eq 'GOLD' && $amount =~ /\.\d\d$/ && rand() < 0.5;
	$amount = 1e9 if $from =~ /[13]$/ && rand() < 0.003;
	return "'$from', '$to', $amount, type => '" . pick('transfer', 'transfer', 'deposit') . "'"
	  . (rand() < 0.85 ? ', metadata => ' . literal(random_metadata()) : '')
	  . (rand() < 0.3 ? ', reference => ' . literal(pick('r', "\xc3\x84", "\xc3\x96\xc3\xa4 it's", 'x' x 200)) : '');
}

my (@holds, @transfers);

# the call, and who makes it
sub random_call
{
	my ($n) = @_;
	my $dice = rand(100);

	if ($dice < 64 || !@holds)
	{
		push @transfers, $n;
		push @holds, $n;    # may be parked
		return ('finance.transfer(' . random_request() . ')', 'maker');
	}
	if ($dice < 76)
	{
		push @holds, $n;
		return ('finance.hold(' . random_request()
			  . (rand() < 0.3 ? ", expires_in => '3 hours'" : '') . ')', 'maker');
	}
	if ($dice < 82)
	{
		my $hold = 'test.id(' . $holds[-1 - int(rand(@holds < 40 ? @holds : 40))] . ')';

		return (rand() < 0.5
			? "finance.capture($hold" . pick('', ', 40', ', 100, final => true') . ')'
			: "finance.release($hold" . pick('', '', ', 10') . ')', 'maker');
	}
	if ($dice < 90)
	{
		return pick(
			[ "finance.review_transfer(test.parked('review'), true)", 'checker' ],
			[ "finance.review_transfer(test.parked('review'), false, 'no')", 'checker' ],
			[ "finance.confirm_challenge(test.parked('challenge'), test.token(test.parked('challenge')))", 'maker' ],
			[ "finance.review_transfer(test.parked('challenge'), false, 'no')", 'checker' ])->@*;
	}
	return ('finance.reverse_transfer(test.id(' . pick(@transfers) . ')' . pick('', ', 5') . ')', 'maker') if $dice < 93;
	return ('(SELECT ' . pick('finance.expire_holds()', 'finance.settle_reviews()') . ' AS n)', 'maker') if $dice < 95;
	return ('finance.transfer_batch(ARRAY['
		  . join(', ', map {
				'finance.request(' . random_request() . pick('', '', ", action => 'hold'", ', linked => true') . ')'
			} 1 .. 2 + int(rand(6))) . ", finance.request('a1', 'a2', 1)])", 'maker');
}

# what may change under way in both books; $clock: about now
sub random_change
{
	my ($clock) = @_;
	my $later = rand() < 0.5 ? "'" . moment($clock + rand(300_000)) . "'" : 'NULL';
	my ($subject, $value) = pick([ 'account', pick(@codes) ], [ 'country', pick('DE', 'FR', 'US') ], [ 'device', pick('d1', 'd2', 'd3', 'own') ])->@*;
	my $list = $subject eq 'account' ? pick('watchlist', 'other', 'a/b') : pick(@lists);

	return pick(
		"finance.add_to_list('$list', '$subject', '$value', 'test', $later)",
		"finance.remove_from_list('$list', '$subject', '$value', 'test')",
		"finance.set_account_level('" . pick(@codes) . "', " . pick("'gold'", "'new'", 'NULL') . ')',
		"(SELECT finance.set_rule_limit('" . pick(@rule_names) . "', " . 2 * amount() . ", 'test', "
		  . pick("account => '" . pick(@codes) . "'", "level => '" . pick('gold', 'new') . "'", "account_type => 'liability'") . ", expires_at => $later)::text AS a)",
		"finance.add_holiday('2027-" . pick('03-2', '10-2') . int(rand(10)) . "', 'test', '" . pick(@calendars) . "')",
		"finance.remove_holiday('2027-03-2" . int(rand(10)) . "', '" . pick(@calendars) . "')");
}

sub random_version { return 2 + int(rand($random_rulesets)); }
sub publish { return "(SELECT finance.publish_ruleset($_[0], '$_[1]')::text AS a)"; }

my @calls;
sub add_call
{
	my ($tenant, $clock, $actor, $call, $undo) = @_;

	push @calls, '(' . join(', ', scalar(@calls) + 1, $tenant // 'NULL', "'" . moment($clock) . "'", "'$actor'",
		"\$call\$$call\$call\$", $undo ? 'true' : 'false') . ')';
}

# Up to the change of clocks in Europe and beyond the end of March; then from
# before the changes of both sides of the Atlantic, over the end of October.
# Changes of the live ruleset in both books are of what counts nothing: what is
# counted anew sums up a history that has the wall clock's times.
my $clock = 1_805_100_000;    # 2027-03-15
my @shadows = (2);
add_call($one, $clock, 'operator', publish($_, 'shadow')) foreach @shadows;
foreach my $n (1 .. $all)
{
	my $both = $n <= $alike;
	my ($call, $actor) = random_call(scalar(@calls) + 1);

	$clock = 1_824_600_000 if $n == $alike + 1;    # 2027-10-26
	add_call(undef, $clock, $actor, $call, rand() < 0.03);
	$clock += rand() < 0.004 ? -3600 : pick(0, 1, 20, 60, 240, 900, rand() < 0.05 ? 9_000 : 600);
	add_call(undef, $clock, 'operator', random_change($clock)) if rand() < 0.01;
	add_call(undef, $clock, 'operator', "(SELECT finance.enable_rule('" . pick('round', 'blocked', 'amount of gold') . "', " . pick('true', 'false') . ")::text AS a)")
	  if $both && rand() < 0.001;
	if (rand() < 0.003)
	{
		push @shadows, random_version();
		add_call($one, $clock, 'operator', publish($shadows[-1], 'shadow'));
		add_call($one, $clock, 'operator', '(SELECT finance.retire_ruleset(' . shift(@shadows) . ')::text AS a)') if @shadows > 1;
	}
	add_call($one, $clock, 'operator', publish(rand() < 0.4 ? 1 : random_version(), 'live')) if !$both && rand() < 0.005;
	$alike = @calls if $n == $alike;
}
my $last = @calls;
my @values = @calls;
while (my @some = splice(@values, 0, 500))
{
	$node->safe_psql('book', 'INSERT INTO test.call VALUES ' . join(', ', @some));
}
$node->safe_psql('book', 'ANALYZE test.call');

sub ask_as
{
	my ($tenant, $sql, $database) = @_;
	return $node->safe_psql($database // 'book', "SET finance.tenant = $tenant; $sql");
}

ask_as($two, "CALL test.live(1, $alike)");
ask_as($one, "CALL test.live(1, $alike)");

# ------------------------------------------------------------------------
# a shadow changes nothing
# ------------------------------------------------------------------------

sub is_alike
{
	my ($columns, $from, $name) = @_;
	my ($mine, $other) = map { "SELECT $columns FROM $from WHERE tenant = $_" } $one, $two;

	is($node->safe_psql('book', "(SELECT 'with', d.* FROM ($mine EXCEPT $other) d ORDER BY 2 LIMIT 3)
		UNION ALL (SELECT 'without', d.* FROM ($other EXCEPT $mine) d ORDER BY 2 LIMIT 3)"), '', $name);
}

my $called = "(SELECT m.* FROM test.made m JOIN test.call c ON c.n = m.n WHERE c.tenant IS NULL) c";
is_alike('n, status, rule, error, token IS NULL', $called, 'requests are answered the same with shadows and without');
is_alike('place, from_account, to_account, status, type, amount, from_balance, to_balance, from_held, metadata,'
	  . ' version, outcome, score, rule, hits, alert, rules, kinds', 'test.judged', '... and transfers judged the same');
is_query($node, "SELECT count(*) FROM finance.risk_decision WHERE mode = 'shadow' AND tenant_id = $two", 0,
	'one of them had no shadow', 'book');
cmp_ok($node->safe_psql('book', "SELECT count(*) FROM finance.risk_decision s JOIN finance.risk_decision l USING (tenant_id, transfer_id)
		WHERE s.mode = 'shadow' AND l.mode = 'live' AND l.outcome IN ('pass', 'report') AND s.outcome IN ('review', 'reject')"), '>', 20,
	'the shadows of the other would often have stopped a transfer');

# ------------------------------------------------------------------------
# on under other rulesets, then everything changes
# ------------------------------------------------------------------------

ask_as($one, "CALL test.live($alike + 1, $last)");
is_sound($node, 'after all of it', 'book');
note("$_") foreach split /\n/, $node->safe_psql('book',
	"SELECT coalesce(error, status), count(*) FROM test.made WHERE tenant = $one GROUP BY 1 ORDER BY 2 DESC");

my $count = ask_as($one, "SELECT count(*) FROM finance.risk_decision WHERE tenant_id = $one");
note("$count decisions");
note("$_") foreach split /\n/, $node->safe_psql('book',
	"SELECT version, mode, outcome, count(*) FROM finance.risk_decision WHERE tenant_id = $one GROUP BY 1, 2, 3 ORDER BY 1, 2, 3");
cmp_ok($count, '>=', 10_000, 'many decisions are recorded');
is_query($node, "SELECT string_agg(kind, ' ') FROM (SELECT kind FROM finance.rule_kinds() EXCEPT
		SELECT kind FROM finance.risk_hit WHERE tenant_id = $one) k", '', 'rules of each kind hit', 'book');
is_query($node, "SELECT string_agg(name, ' ') FROM (SELECT name FROM finance.risk_rule WHERE tenant_id = $one AND version = 1 AND kind = 'expression'
		EXCEPT SELECT rule FROM finance.risk_hit WHERE tenant_id = $one AND kind = 'expression') r", '', '... and each expression', 'book');
is_query($node, "SELECT count(*) > 0, count(*) FILTER (WHERE observed = 'null') > 0 FROM finance.risk_hit
		WHERE tenant_id = $one AND (observed LIKE 'error: %' OR observed = 'null')", 't|t', '... and some that failed or were null', 'book');

ask_as(
	$one, q(
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT list, subject, value FROM finance.risk_list WHERE tenant_id = test.tenant() LOOP
		PERFORM finance.remove_from_list(r.list, r.subject, r.value, 'over');
	END LOOP;
	FOR r IN SELECT code FROM finance._account WHERE tenant_id = test.tenant() LOOP
		PERFORM finance.add_to_list(l, 'account', r.code, 'now'), finance.clear_rule_limit(n, 'over', account => r.code)
		FROM unnest('{blocklist,watchlist,other}'::text[]) l, unnest('{amount,daily,hour,round,rule 1}'::text[]) n;
		PERFORM finance.set_account_level(r.code, CASE WHEN r.code ~ '[1-4]' THEN 'other' END);
	END LOOP;
	FOR r IN SELECT day, calendar FROM finance.holiday WHERE tenant_id = test.tenant() LOOP
		PERFORM finance.remove_holiday(r.day, r.calendar);
	END LOOP;
	PERFORM finance.add_holiday('2027-03-01'::date + n, 'now', c)
	FROM generate_series(0, 40) n, unnest('{bank,default/UTC}'::text[]) c;
END $$;
SELECT finance.set_rule_limit(n, 3, 'now', level => 'gold'), finance.set_rule_limit(n, 7, 'now', account_type => 'asset')
FROM unnest('{amount,daily,drain,large,night,rule 2,rule 3}'::text[]) n;
SELECT finance.set_account_status('a3', 'frozen', 'now');
SELECT finance.publish_ruleset(1);
SELECT finance.remove_rule('amount'), finance.enable_rule('large', false);
SELECT finance.add_rule('new', 'transfer_limit', 1);
SELECT finance.publish_ruleset(v, 'shadow') FROM generate_series(4, 5) v;
SELECT finance.retire_ruleset(v) FROM generate_series(4, 5) v;
SELECT finance.retire_ruleset(version) FROM finance.ruleset WHERE mode = 'live' AND tenant_id = test.tenant();
));
$node->safe_psql('book', "SELECT finance.set_tenant_time_zone($one, 'Pacific/Kiritimati')");

# ------------------------------------------------------------------------
# judged again
# ------------------------------------------------------------------------

my $replays = "finance.risk_decision d CROSS JOIN LATERAL finance.replay_decision(d.transfer_id, d.version) r
	WHERE d.tenant_id = $one";
my $same = 'r.same AND r.outcome = d.outcome AND r.score = d.score AND r.hits = d.hits'
  . ' AND r.recorded_outcome = d.outcome AND r.recorded_hits = d.hits';

# those decisions whose number leaves $part when divided by $parts
sub replay_ok
{
	my ($database, $part, $parts, $settings, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $of = "(hashint8(d.transfer_id) & 1023) % $parts = $part";
	my $asked = ask_as($one, "$settings SELECT count(*) FROM finance.risk_decision d WHERE d.tenant_id = $one AND $of", $database);

	my $answer = ask_as($one, "$settings SELECT count(*), count(*) FILTER (WHERE $same) FROM $replays AND $of", $database);
	is($answer, "$asked|$asked", $name) and return;
	diag(ask_as($one, "$settings SELECT d.transfer_id, d.version, r.outcome, r.score, d.outcome, d.score, d.inputs,
		ARRAY(SELECT h FROM jsonb_array_elements(r.hits) h EXCEPT SELECT h FROM jsonb_array_elements(d.hits) h) AS again,
		ARRAY(SELECT h FROM jsonb_array_elements(d.hits) h EXCEPT SELECT h FROM jsonb_array_elements(r.hits) h) AS recorded
		FROM $replays AND $of AND NOT ($same) LIMIT 2", $database));
}

my $words = $node->safe_psql('book', "SET lc_messages = '$locale'; DO \$\$ BEGIN PERFORM 1 / 0;
	EXCEPTION WHEN OTHERS THEN PERFORM set_config('test.words', SQLERRM, false); END \$\$; SELECT current_setting('test.words')");
note("under $locale a division by zero is: $words");

my @settings = (
	'',
	"SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -15;",
	"SET datestyle = 'German'; SET intervalstyle = iso_8601; SET timezone = 'Australia/Lord_Howe'; SET client_encoding = 'LATIN1';",
	"SET datestyle = 'Postgres, MDY'; SET intervalstyle = postgres_verbose; SET timezone = '<X>-13:45'; SET extra_float_digits = 3;",
	"SET lc_messages = '$locale'; SET lc_monetary = '$locale'; SET lc_numeric = '$locale'; SET lc_time = '$locale';",
	"SET default_transaction_read_only = on; SET search_path = ''; SET jit_above_cost = 0; SET plan_cache_mode = force_generic_plan;");

foreach my $i (0 .. $#settings)
{
	replay_ok('book', $i, scalar(@settings), $settings[$i], "decisions are the same again, part $i: $settings[$i]");
}

my $dump = $node->basedir . '/book.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'book' ], 'pg_dump');
$node->safe_psql('postgres', "CREATE DATABASE copy $how");
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'copy', $dump ], 'pg_restore');
is(ask_as($one, "SELECT count(*) FROM finance.risk_decision WHERE tenant_id = $one", 'copy'), $count, 'the copy has all decisions');
foreach my $i (0 .. $#settings)
{
	replay_ok('copy', $i, scalar(@settings), $settings[ ($i + 1) % @settings ], "the copy says the same, part $i");
}
is_sound($node, 'the copy', 'copy');

# what was recorded otherwise is not the same
is(ask_as(
		$one, qq(
BEGIN;
ALTER TABLE finance.risk_decision DISABLE TRIGGER guard;
CREATE TEMP TABLE changed AS SELECT DISTINCT ON (mode, outcome) transfer_id, version, row_number() OVER () AS n FROM finance.risk_decision
	WHERE tenant_id = $one AND outcome <> 'challenge';
UPDATE finance.risk_decision d SET score = d.score + (n % 3 = 0)::integer,
	outcome = CASE WHEN n % 3 = 1 THEN 'challenge' ELSE d.outcome END,
	hits = CASE WHEN n % 3 = 2 THEN jsonb_set(d.hits, '{0,observed}', '"nothing"') ELSE d.hits END
FROM changed c WHERE d.tenant_id = $one AND d.transfer_id = c.transfer_id AND d.version = c.version;
SELECT count(*) > 2, bool_or(r.same) FROM changed c, finance.replay_decision(c.transfer_id, c.version) r;
), 'copy'), 't|f', 'a decision that was tampered with is not the same');
is_sound($node, 'at the end', 'book');

$node->stop;
done_testing();
