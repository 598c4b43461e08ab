# Sixteen clients at once against limits of every sort: by account, payee, pair,
# type of the payer, type of all; by hour, day, month and sliding; of amounts and
# of numbers; across midnight, months and clocks put forward and back, with
# savepoints rolled back, payments reversed and holds given back.  None is ever
# exceeded by one unit, and nothing of an allowance is lost.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time();
note("FIN_SEED=$seed");

my $soak = soak();
my $node = book_node('main', "log_statement = none\n");
my $zone = 'Europe/Berlin';
my $most = 60;       # of an amount
my $number = 15;     # of transfers
my $span = '90 minutes';

# ------------------------------------------------------------------------
# limits: each has a type of transfers, two payers and two payees of its own
# ------------------------------------------------------------------------

my @limits;
foreach my $kind ('total_limit', 'count_limit')
{
	foreach my $per ('account', 'counterparty', 'pair', 'account_type', 'type')
	{
		push @limits, [ $kind, $per, $_ ] foreach ('hour', 'day', 'month', 'sliding');
	}
}

$node->safe_psql(
	'postgres', qq(
SELECT finance.set_tenant_time_zone(0, '$zone');
CREATE TABLE the_limit (n integer PRIMARY KEY, kind text, per text, period text);
INSERT INTO the_limit VALUES )
	  . join(', ', map { "(" . ($_ + 1) . ", '" . join("', '", @{ $limits[$_] }) . "')" } 0 .. $#limits)
	  . qq(;
SELECT finance.create_transfer_type('t' || n) FROM the_limit;
SELECT finance.create_account(side || n || '_' || i, 'EUR', min_available => NULL)
	FROM the_limit, unnest('{from,to}'::text[]) side, generate_series(1, 2) i;
SELECT finance.create_ruleset('limits');
SELECT finance.add_rule(concat_ws(' ', n, kind, per, period), kind, CASE kind WHEN 'total_limit' THEN $most ELSE $number END,
	per => per, period => nullif(period, 'sliding'), span => CASE WHEN period = 'sliding' THEN interval '$span' END,
	transfer_type => 't' || n, ruleset => 1) FROM the_limit;
SELECT finance.publish_ruleset(1);

-- what was counted of each limit: completed transfers and what became of holds,
-- in the order in which the key saw them.  What time it was their reference says:
-- they are recorded by the clock on the wall.  A clock that steps back counts as
-- the last one did.
CREATE VIEW counted AS
SELECT l.n, l.kind, l.per, l.period, t.id, k.key, CASE l.kind WHEN 'total_limit' THEN x.amount ELSE (x.amount > 0)::integer END AS amount,
	max(t.reference::timestamptz) OVER (PARTITION BY l.n, k.key ORDER BY t.id) AS at
FROM the_limit l JOIN finance.transfer t ON t.type = 't' || l.n
JOIN finance.account f ON f.account_id = t.from_account_id
JOIN finance.account o ON o.account_id = t.to_account_id
LEFT JOIN finance.hold h ON h.hold_id = t.id
CROSS JOIN LATERAL (SELECT coalesce(h.captured + h.remaining, t.amount::numeric) AS amount) x
CROSS JOIN LATERAL (SELECT CASE WHEN l.per IN ('account', 'account_type') THEN f.code WHEN l.per = 'counterparty' THEN o.code
	WHEN l.per = 'pair' THEN f.code || ' ' || o.code ELSE '' END AS key) k
WHERE t.status IN ('completed', 'held') AND (t.hold_id IS NULL OR t.hold_id = t.id);
-- what is in the window with each of them
CREATE VIEW windowed AS
SELECT c.*, CASE WHEN kind = 'total_limit' THEN $most ELSE $number END AS most,
	CASE WHEN period = 'sliding' THEN sum(amount) OVER (PARTITION BY n, key ORDER BY at RANGE BETWEEN interval '$span' - interval '1 microsecond' PRECEDING AND CURRENT ROW)
	ELSE sum(amount) OVER (PARTITION BY n, key, date_trunc(CASE period WHEN 'sliding' THEN 'day' ELSE period END, at AT TIME ZONE '$zone')) END AS total
FROM counted c;

-- all that is left of each limit, the large pieces first
CREATE FUNCTION fill() RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	l the_limit;
	piece numeric;
	passed bigint := 0;
BEGIN
	FOR l IN SELECT * FROM the_limit ORDER BY n LOOP
		FOR f IN 1 .. 2 LOOP
			FOR o IN 1 .. 2 LOOP
				FOREACH piece IN ARRAY '{20,5,1,0.01}'::numeric[] LOOP
					WHILE (finance.transfer('from' || l.n || '_' || f, 'to' || l.n || '_' || o, piece, type => 't' || l.n, reference => current_setting('finance.test_clock'))).status = 'completed' LOOP
						passed := passed + 1;
					END LOOP;
				END LOOP;
			END LOOP;
		END LOOP;
	END LOOP;
	RETURN passed;
END \$\$;
));

sub never_exceeded
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query(
		$node,
		q(SELECT concat_ws(' ', n, kind, per, period, key, at, total) FROM windowed WHERE total > most ORDER BY n, key, id LIMIT 5),
		'', "$name: no limit is exceeded");
}

# what is in the windows that are open at a moment: all that may be
sub all_used
{
	my ($name, $at) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query(
		$node, qq(
SELECT string_agg(concat_ws(' ', n, kind, per, period, total, keys), '; ')
FROM (SELECT l.n, l.kind, l.per, l.period, coalesce(sum(c.amount), 0) AS total,
		CASE l.per WHEN 'type' THEN 1 WHEN 'pair' THEN 4 ELSE 2 END AS keys
	FROM the_limit l LEFT JOIN counted c ON c.n = l.n AND CASE l.period
		WHEN 'sliding' THEN c.at > timestamptz '$at' - interval '$span'
		ELSE date_trunc(l.period, c.at AT TIME ZONE '$zone') = date_trunc(l.period, timestamptz '$at' AT TIME ZONE '$zone') END
	GROUP BY l.n) w
WHERE total <> keys * CASE kind WHEN 'total_limit' THEN $most ELSE $number END),
		'', "$name: and all of each is used");
}

# ------------------------------------------------------------------------
# hammering
# ------------------------------------------------------------------------

# what is undone, reversed or given back besides
my $hammer = q(
\set n random(1, 40)
\set f random(1, 2)
\set o random(1, 2)
\set amount random(1, 7)
\set what random(1, 20)
BEGIN;
CLOCK
\if :what < 9
SELECT finance.transfer('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount, type => 't' || :n, reference => current_setting('finance.test_clock'));
\elif :what < 11
SAVEPOINT s;
SELECT finance.transfer('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount, type => 't' || :n, reference => current_setting('finance.test_clock'));
ROLLBACK TO s;
SELECT finance.transfer('from' || :n || '_' || :f, 'to' || :n || '_' || :o, 1, type => 't' || :n, reference => current_setting('finance.test_clock'));
\elif :what < 12
SELECT finance.transfer('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount, type => 't' || :n, reference => current_setting('finance.test_clock'));
ROLLBACK;
BEGIN;
\elif :what < 14
SELECT finance.release(id) FROM finance.hold('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount * 3, type => 't' || :n, reference => current_setting('finance.test_clock')) WHERE status = 'held';
\elif :what < 16
SELECT finance.capture(id, 1, final => true) FROM finance.hold('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount + 1, type => 't' || :n, reference => current_setting('finance.test_clock')) WHERE status = 'held';
\elif :what < 18
SELECT finance.reverse_transfer(id) FROM finance.transfer('from' || :n || '_' || :f, 'to' || :n || '_' || :o, :amount, type => 't' || :n, reference => current_setting('finance.test_clock')) WHERE status = 'completed';
\else
SELECT count(*) FROM finance.transfer_batch(ARRAY[finance.request('from' || :n || '_1', 'to' || :n || '_1', :amount, type => 't' || :n, reference => current_setting('finance.test_clock')),
	finance.request('from' || :n || '_2', 'to' || :n || '_2', :amount, type => 't' || :n, reference => current_setting('finance.test_clock'), linked => :f = 1), finance.request('from' || :n || '_1', 'to' || :n || '_2', 1, type => 't' || :n, reference => current_setting('finance.test_clock'))]);
\endif
COMMIT;
);

sub hammer
{
	my ($name, $clock, $each) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	bench_ok($node, $name, $hammer =~ s/CLOCK/$clock/r,
		'-c', 16, '-j', 2, '-t', $each * $soak, "--random-seed=$seed");
}

sub set_clock
{
	return "SELECT set_config('finance.test_clock', '$_[0]', true);";
}

# moments, and whether many come then
my @moments = (
	[ '2050-01-31 22:58:00+00', 1, 'two minutes before February in Berlin' ],
	[ '2050-01-31 22:59:59.999999+00', 0, 'a microsecond before' ],
	[ '2050-01-31 23:00:00+00', 1, 'February' ],
	[ '2050-02-01 00:30:00+00', 0, 'ninety minutes later' ],
	[ '2050-03-27 00:59:59.999999+00', 1, 'before the clocks are put forward' ],
	[ '2050-03-27 01:00:00+00', 1, 'three, a microsecond after two' ],
	[ '2050-03-27 21:59:59.999999+00', 0, 'the end of a day of 23 hours' ],
	[ '2050-03-27 22:00:00+00', 0, 'the day after it' ],
	[ '2050-10-30 00:30:00+00', 1, 'half past two, summer time' ],
	[ '2050-10-30 01:30:00+00', 0, 'half past two again' ],
	[ '2050-10-30 02:00:00+00', 1, 'three' ],
	[ '2050-10-30 22:59:59.999999+00', 0, 'the end of a day of 25 hours' ],
	[ '2050-10-30 23:00:00+00', 0, 'the day after it' ],
	[ '2050-10-31 23:00:00+00', 1, 'November' ],
	[ '2050-12-31 22:59:59.999999+00', 0, 'the end of the year' ],
	[ '2050-12-31 23:00:00+00', 1, 'another year' ]);

foreach my $moment (@moments)
{
	my ($at, $many, $name) = @$moment;

	hammer($name, set_clock($at), 120) if $many;
	never_exceeded($name);
	$node->safe_psql('postgres', "SET finance.test_clock = '$at'; SELECT fill()");
	never_exceeded("$name, one by one");
	all_used($name, $at);
}
is_sound($node, 'moment by moment');
is_query(
	$node,
	"SELECT string_agg(status, ' ' ORDER BY status) FROM (SELECT DISTINCT status FROM finance.transfer) s",
	'completed held rejected released',
	'transfers of all sorts');
is_query(
	$node,
	"SELECT count(*) > 0, count(*) FILTER (WHERE t.amount > 7) FROM finance.transfer t WHERE t.reverses_id IS NOT NULL",
	't|0', 'and reversals');

# ------------------------------------------------------------------------
# clients whose clocks do not agree, before and after midnight of a month
# ------------------------------------------------------------------------

my @clocks = (
	'2051-01-31 22:59:59.9+00', '2051-01-31 23:00:00+00',
	'2051-01-31 22:10:00+00', '2051-01-31 23:00:00.1+00',
	'2051-01-31 22:59:59.999999+00', '2051-02-01 00:29:59.95+00',
	'2051-02-01 00:31:00+00', '2051-02-01 23:00:01+00');

hammer(
	'clocks that do not agree',
	'\\set k random(1, ' . @clocks . ")\n"
	  . 'SELECT set_config(\'finance.test_clock\', (ARRAY['
	  . join(', ', map { "'$_'" } @clocks)
	  . '])[:k], true);',
	400);
never_exceeded('clocks that do not agree');
is_sound($node, 'clocks that do not agree');

# ------------------------------------------------------------------------
# rules that come later count what was before, however many pay meanwhile
# ------------------------------------------------------------------------

$node->safe_psql(
	'postgres', q(
SELECT finance.create_transfer_type('t41'), finance.create_account('from41_1', 'EUR', min_available => NULL), finance.create_account('from41_2', 'EUR', min_available => NULL),
	finance.create_account('to41_1', 'EUR'), finance.create_account('to41_2', 'EUR');
SELECT finance.create_ruleset('later', copy_of => 1);
SELECT finance.add_rule('later ' || per, 'total_limit', 60, per => per, period => 'month', transfer_type => 't41', ruleset => 2)
	FROM unnest('{account,counterparty,pair,account_type,type}'::text[]) per;
));
my $publish = q(
\set turn random(1, 2)
SELECT finance.publish_ruleset(:turn);
);
my $pay = q(
\set f random(1, 2)
\set o random(1, 2)
SELECT finance.transfer('from41_' || :f, 'to41_' || :o, 1, type => 't41');
);
my $file = $node->basedir . '/publish.sql';

# not one unit beyond, once the rule is in force
$node->safe_psql('postgres', 'SELECT finance.publish_ruleset(2)');
bench_ok($node, 'paid up to a limit', $pay, '-c', 16, '-j', 2, '-t', 20);
is_query($node,
	"SELECT sum(amount) FROM finance.transfer WHERE type = 't41' AND status = 'completed'",
	'60.00', 'to the unit');
# while rules come and go, each transfer is judged by what is in force: some pass
append_to_file($file, $publish);
bench_ok(
	$node, 'rules come and go', $pay, '-c', 16, '-j', 2, '-t', 100 * $soak,
	'-f', "$file\@1");
is_sound($node, 'rules that come and go');
# in force again, what is beyond stops all
$node->safe_psql('postgres', 'SELECT finance.publish_ruleset(1); SELECT finance.publish_ruleset(2)');
is_query(
	$node,
	"SELECT DISTINCT t.status FROM generate_series(1, 2) f, generate_series(1, 2) o, finance.transfer('from41_' || f, 'to41_' || o, 0.01, type => 't41') t",
	'rejected', 'what passed meanwhile is counted');
is_query(
	$node, q(
SELECT count(*) FROM finance.transfer t JOIN finance.risk_hit h ON h.transfer_id = t.id WHERE h.rule = 'later type' AND h.observed::numeric <>
	(SELECT sum(p.amount) FROM finance.transfer p WHERE p.type = 't41' AND p.status = 'completed' AND p.id < t.id) + t.amount),
	'0', 'to the unit, whenever the rule was looked at');
is_sound($node, 'at the end');

done_testing();
