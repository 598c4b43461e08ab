# FinanceRisk.pm: random rulesets, and random transfers for them to judge.
#
# All randomness is perl's, so that srand() with a printed seed makes the same
# run again.
package FinanceRisk;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(prepare_book random_ruleset random_change random_steps
  random_step any moment);

my @accounts = map { "a$_" } 0 .. 9;
my @yen = qw(y0 y1 y2);
my @types = qw(transfer payment rent);
my @countries = qw(DE FR KP IR US);
my @devices = map { "p$_" } 1 .. 6;
my @lists = qw(watch friends blocklist);
my @scopes = qw(account counterparty pair account_type type);
my @periods = qw(hour day month);
my @spans = ('10 minutes', '90 minutes', '36 hours', '7 days');
my @zones = qw(Europe/Berlin America/New_York Asia/Kathmandu UTC);

sub any { return $_[ int rand @_ ] }

sub chance { return rand() < $_[0] }

# 0.01 to about most, the small ones oftener
sub money { return sprintf('%.2f', 0.01 + $_[0] * rand() * rand()) }

sub clock { return sprintf('%02d:%02d', rand 24, rand 60) }

# accounts of several types and levels, lists, types of transfers
sub prepare_book
{
	my @sql = (
		sprintf("SET finance.test_clock = '%s'", moment(0)),
		"SELECT finance.create_account_type('card', 'credit')",
		"SELECT finance.create_transfer_type('rent')");

	push @sql,
	  map {
		sprintf(
			"SELECT finance.create_account('%s', '%s', '%s', min_available => %s)",
			$_,
			/^y/ ? 'JPY' : 'EUR',
			any('liability', 'liability', 'card', 'asset'),
			any('NULL', 'NULL', '-20000'))
	  } @accounts, @yen;
	push @sql, random_change(0) foreach 1 .. 20;
	return @sql;
}

# ------------------------------------------------------------------------
# rules
# ------------------------------------------------------------------------

# of facts that are looked up, and of those that are at hand
sub random_expression
{
	my $amount = int rand 300;
	my $total = sprintf('%s_%s', any(qw(account counterparty pair account_type)),
		any(@periods));

	return any(
		"amount > $amount",
		"${total}_amount + amount > " . 10 * $amount,
		"${total}_count >= " . int rand 8,
		"amount * 3 > available and available > 0",
		"balance < -$amount or to_balance > $amount",
		"from_type = to_type and currency = 'EUR'",
		"type in ('rent', 'payment') and not is_hold",
		"from_level = 'gold' and to_level is distinct from 'gold'",
		"local_time between '" . clock() . "' and '" . clock() . "'",
		"local_date >= '2050-02-" . sprintf('%02d', 1 + rand 28) . "'",
		'weekday in (6, 7) or is_holiday',
		'from_idle_days > 1.5 and from_age_days >= 0 and to_age_days < 1000000',
		"device = 'p1' or device <> last_device",
		'country <> last_country and last_country_minutes < ' . 10 * $amount,
		'pair_count < 2',
		'device_count = 0 or device is null',
		"from_account <> 'a1' and reference like 'r%'",
		'is_reversal',
		"(metadata->>'n')::numeric > " . int rand 100,
		"metadata->>'n' = '7'",
		"metadata ? 'country'",
		'1 / (round(amount) - 7) > 0.1',
		'abs(available) > 10',
		'length(reference) > 1 and upper(from_account) like \'A%\'');
}

sub per { return (chance(0.6) ? (per => any(@scopes)) : ()) }

sub window { return (chance(0.5) ? (period => any(@periods)) : (span => any(@spans))) }

sub listed
{
	return (
		list => any(@lists),
		subject => any(qw(account payer payee country device)));
}

sub hours
{
	my ($from, $to) = (clock(), clock());

	$to = '23:59:59' if $from eq $to;
	return (
		window_start => $from,
		window_end => $to,
		(chance(0.3) ? (threshold => int rand 200) : ()),
		(chance(0.4) ? (weekdays => '{' . join(',', 1 + int rand 7, 1 + int rand 7) . '}') : ()),
		(chance(0.4) ? (calendar => any('default', 'bank')) : ()),
		(chance(0.4) ? (time_zone => any(@zones)) : ()));
}

sub maybe_threshold { return (chance(0.5) ? (threshold => int rand 200) : ()) }

my %kinds = (
	transfer_limit => sub {
		my $minimum = sprintf('%.3f', rand 5);
		return (
			any([ threshold => 50 + int rand 400 ], [ minimum => $minimum ],
				[ minimum => $minimum, threshold => 50 + int rand 400 ])->@*);
	},
	daily_limit => sub { (threshold => 100 + int rand 3000) },
	total_limit => sub { (threshold => 100 + int rand 3000, per(), window()) },
	count_limit => sub { (threshold => 3 + int rand 30, per(), window()) },
	velocity => sub { (threshold => 3 + int rand 30, per(), window()) },
	night_window => \&hours,
	business_hours => \&hours,
	blocklist => \&listed,
	watchlist => \&listed,
	allowlist => \&listed,
	new_counterparty => \&maybe_threshold,
	new_device => \&maybe_threshold,
	device_change => \&maybe_threshold,
	balance_drain => sub { (threshold => any(0.1, 0.333333, 0.9, 1), (chance(0.5) ? (minimum => 20) : ())) },
	dormant_account => sub { (span => any(@spans), maybe_threshold()) },
	structuring => sub {
		my $top = 20 + int rand 200;
		return (threshold => $top, minimum => $top * 0.7, times => 1 + int rand 4, per(), window());
	},
	large_value => sub { (chance(0.8) ? (threshold => 50 + rand 400) : ()) },
	round_amount => sub { (threshold => any(1, 5, 10, 0.5), (chance(0.5) ? (minimum => int rand 50) : ())) },
	geography_jump => sub { (span => any(@spans), maybe_threshold()) },
	expression => sub { (expression => random_expression(), on_error => any(qw(pass report report review reject))) });

# whom it is about
sub scope
{
	return (
		(chance(0.15) ? (account => any(@accounts)) : ()),
		(chance(0.15) ? (account_type => any('card', 'liability', 'asset')) : ()),
		(chance(0.15) ? (level => any('gold', 'silver')) : ()),
		(chance(0.1) ? (currency => any('EUR', 'JPY')) : ()),
		(chance(0.1) ? (transfer_type => any(@types)) : ()));
}

sub quoted { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

# Statements that make a ruleset of all kinds of rules, and more of some, and
# publish it; a mild one stops only what is much.
sub random_ruleset
{
	my ($name, $mode, $more, $mild) = @_;
	my @kinds = sort keys %kinds;
	my $number = 0;
	my $settings = sprintf('score_report => 3%s',
		$mild ? ''
		: sprintf(', score_review => %d, score_reject => %d', 15 + rand 20, 25 + rand 40));
	my @sql =
	  ("SELECT finance.create_ruleset('$name', $settings) AS version \\gset");

	foreach my $kind (@kinds, map { any(@kinds) } 1 .. $more)
	{
		my %rule = (
			$kinds{$kind}->(), scope(),
			outcome => any(('report') x 8, ('pass') x 8, $mild ? () : ('reject', 'review', 'challenge')),
			score => any(0, 0, 0, 1, 2, 5, -2));

		$rule{outcome} = any('reject', 'review')
		  if $mild && $kind eq 'transfer_limit';
		$rule{on_error} = 'report' if $mild && $kind eq 'expression';

		push @sql,
		  sprintf("SELECT finance.add_rule('%s %d', '%s', ruleset => :version%s)",
			$kind, $number++, $kind,
			join('', map { ", $_ => " . quoted($rule{$_}) } sort keys %rule));
	}
	push @sql, "SELECT finance.publish_ruleset(:version, '$mode')";
	return @sql;
}

# ------------------------------------------------------------------------
# what operators change meanwhile
# ------------------------------------------------------------------------

sub random_change
{
	my ($seconds) = @_;
	my $later = moment($seconds + any(60, 3600, 86400, 864000));
	my $kind = any(qw(transfer_limit daily_limit total_limit count_limit balance_drain velocity));
	my $account = any(@accounts);

	return any(
		sub { "SELECT finance.add_to_list('" . any(@lists) . "', 'account', '$account', 'x', " . any('NULL', "'$later'") . ")" },
		sub { "SELECT finance.add_to_list('" . any(@lists) . "', 'country', '" . any(@countries) . "', 'x')" },
		sub { "SELECT finance.add_to_list('" . any(@lists) . "', 'device', '" . any(@devices) . "', 'x')" },
		sub { "SELECT finance.remove_from_list('" . any(@lists) . "', 'account', '$account', 'x')" },
		sub { "SELECT finance.remove_from_list('" . any(@lists) . "', 'device', '" . any(@devices) . "', 'x')" },
		sub { "SELECT finance.set_account_level('$account', " . any("'gold'", "'silver'", 'NULL') . ")" },
		sub { sprintf("SELECT finance.%s_holiday('2050-%02d-%02d', calendar => '%s')", any('add', 'add', 'remove'), 1 + rand 12, 1 + rand 28, any('default', 'bank')) },
		sub { "SELECT count(finance.set_rule_limit(name, " . any(20, 55.5, 400, 5000) . ", 'x', " . any("account => '$account'", "level => 'gold'", "account_type => 'card'") . ")::text) FROM finance.live_rule WHERE kind = '$kind' AND threshold IS NOT NULL" },
		sub { "SELECT count(finance.set_rule_limit(name, " . any(20, 400) . ", 'x', account => '$account', expires_at => '$later')::text) FROM finance.live_rule WHERE kind = '$kind' AND threshold IS NOT NULL" },
		sub { "SELECT count(finance.clear_rule_limit(name, 'x', account => '$account')) FROM finance.live_rule WHERE kind = '$kind'" })->();
}

# ------------------------------------------------------------------------
# transfers
# ------------------------------------------------------------------------

sub metadata
{
	my @members;

	push @members, '"device": "' . any(@devices) . '"' if chance(0.5);
	push @members, '"country": "' . any(@countries) . '"' if chance(0.5);
	push @members, '"n": ' . any(7, 70, '"7"', '"x"', 'null') if chance(0.5);
	return any('NULL', sprintf("'{%s}'", join(', ', @members))) unless @members;
	return sprintf("'{%s}'", join(', ', @members));
}

sub pair
{
	my @from = chance(0.1) ? @yen : @accounts;
	my $from = any(@from);
	my $to = any(@from);

	return $from eq $to ? pair() : ($from, $to);
}

# one statement; :held and :paid of the tables held and paid of the test
sub random_step
{
	my ($from, $to) = pair();
	my $amount = $from =~ /^y/ ? 1 + int rand 400 : money(400);
	my $type = any(@types);
	my $data = metadata();
	my $reference = any('NULL', "'r'", "'r1'", "'x'");
	my $what = rand;

	$amount = any(5, 10, 50, 100, 19.99, 7) if chance(0.2) && $from !~ /^y/;
	return "finance.transfer('$from', '$to', $amount, type => '$type', reference => $reference, metadata => $data)"
	  if $what < 0.75;
	return "finance.hold('$from', '$to', $amount, type => '$type', reference => $reference, metadata => $data)"
	  if $what < 0.84;
	return "finance.capture((SELECT id FROM pg_temp.done WHERE status = 'held' ORDER BY id DESC LIMIT 1), final => " . any('true', 'false') . ")"
	  if $what < 0.88;
	return "finance.release((SELECT id FROM pg_temp.done WHERE status = 'held' ORDER BY id DESC OFFSET " . int(rand 5) . " LIMIT 1))"
	  if $what < 0.92;
	return "finance.reverse_transfer((SELECT id FROM pg_temp.done WHERE status = 'completed' ORDER BY id DESC OFFSET " . int(rand 5) . " LIMIT 1), " . any('NULL', '0.01') . ")"
	  if $what < 0.96;
	return "finance.transfer('$from', '$to', NULL, amount_mode => 'up_to')"
	  if $what < 0.97;
	my $more = join(
		', ',
		map {
			my ($f, $t) = pair();
			my $linked = any('false', 'false', 'true');
			sprintf("finance.request('%s', '%s', %d, linked => %s)", $f, $t, 1 + rand 200, $linked)
		} 1 .. 3);
	return "finance.transfer_batch(ARRAY[$more, finance.request('$from', '$to', $amount, metadata => $data)])";
}

# $n statements by pg_temp.step(), the clock going on from *$seconds
sub random_steps
{
	my ($n, $seconds) = @_;
	my @sql;

	foreach my $i (1 .. $n)
	{
		$$seconds += any(0, 0, 1, 1, 30, 60, 600, 3600, 20000) if chance(0.5);
		push @sql,
		  sprintf("SET finance.test_clock = '%s'", scalar moment($$seconds)),
		  sprintf('SELECT pg_temp.step(%s)', quoted(random_step()));
	}
	return @sql;
}

# so many seconds after the beginning of 2050
sub moment
{
	my @t = gmtime(2524608000 + $_[0]);

	return sprintf('%d-%02d-%02d %02d:%02d:%02d+00',
		1900 + $t[5], 1 + $t[4], @t[ 3, 2, 1, 0 ]);
}

1;
