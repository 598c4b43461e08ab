# Limits of every kind, used up by sixteen clients at once: by transfers,
# holds, batches, reversals, what is undone, in each isolation level; over
# midnight, both changes of the clocks, the ends of a month and of a year, and
# the 29th of February of a tenant in Berlin.  What each limit came to is summed
# up from finance.transfer alone: none is exceeded by a cent, whatever was
# rejected would have exceeded one, and said how far.  Then rules that change
# meanwhile: nothing is judged by half a ruleset.
use strict;
use warnings;

use File::Spec;
use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time() % 100000;
my $node =
  book_node('main', "log_statement = none\nmax_prepared_transactions = 40\n");
my $each = 7 * soak();
my $draw = $seed;
my $largest = 40;

note("seed $seed; FIN_SEED=$seed repeats it");

# ------------------------------------------------------------------------
# accounts and limits
# ------------------------------------------------------------------------

# Who pays: a1 to a4; who is paid: s1 and s2.  Payers have a type of transfers
# each, besides a common one, so that limits per type do not make all of them
# take turns.
$node->safe_psql('postgres', q{
SELECT finance.set_tenant_time_zone(0, 'Europe/Berlin');
SELECT finance.create_account('a' || n, 'EUR', min_available => NULL) FROM generate_series(1, 4) AS n;
SELECT finance.create_account('s' || n, 'EUR', 'asset', min_available => NULL) FROM generate_series(1, 2) AS n;
SELECT finance.create_transfer_type(t) FROM unnest('{t1,t2,t3,t4,rare}'::text[]) AS t;
SELECT finance.set_account_level('a2', 'gold');

-- the limits as the test sees them; payers and type: whose transfers are judged
CREATE TABLE lim (rule text, kind text, per text, period text, span interval, threshold numeric, payers text, type text);
INSERT INTO lim VALUES
	('hour', 'total_limit', 'account', 'hour', NULL, 200, 'liability', NULL),
	('day', 'daily_limit', 'account', 'day', NULL, 420, 'liability', NULL),
	('month', 'total_limit', 'account', 'month', NULL, 600, 'liability', NULL),
	('span', 'total_limit', 'account', NULL, '100 minutes', 290, 'liability', NULL),
	('hour n', 'count_limit', 'account', 'hour', NULL, 1000, 'liability', NULL),
	('day n', 'count_limit', 'account', 'day', NULL, 40, 'liability', NULL),
	('month n', 'count_limit', 'account', 'month', NULL, 50, 'liability', NULL),
	('span n', 'count_limit', 'account', NULL, '40 minutes', 16, 'liability', NULL),
	('payee hour', 'total_limit', 'counterparty', 'hour', NULL, 420, 'liability', NULL),
	('payee day', 'total_limit', 'counterparty', 'day', NULL, 900, 'liability', NULL),
	('payee month n', 'count_limit', 'counterparty', 'month', NULL, 95, 'liability', NULL),
	('payee span n', 'count_limit', 'counterparty', NULL, '1 hour', 38, 'liability', NULL),
	('pair day', 'total_limit', 'pair', 'day', NULL, 260, NULL, NULL),
	('pair span', 'total_limit', 'pair', NULL, '30 minutes', 110, NULL, NULL),
	('pair hour n', 'count_limit', 'pair', 'hour', NULL, 12, 'liability', NULL),
	('kind day', 'total_limit', 'account_type', 'day', NULL, 70, 'liability', 'rare'),
	('kind span n', 'count_limit', 'account_type', NULL, '3 hours', 3, 'liability', 'rare'),
	('type hour', 'total_limit', 'type', 'hour', NULL, 90, 'liability', 'rare'),
	('type month', 'total_limit', 'type', 'month', NULL, 110, 'liability', 'rare'),
	('type span n', 'count_limit', 'type', NULL, '5 hours', 9, NULL, 'rare');
SELECT finance.create_ruleset('limits');
SELECT finance.add_rule(rule, kind, threshold, per => CASE WHEN kind <> 'daily_limit' THEN per END,
	period => CASE WHEN kind <> 'daily_limit' THEN period END, span => span, account_type => payers, transfer_type => type,
	ruleset => 1) FROM lim;
SELECT finance.publish_ruleset(1);

-- thresholds of their own, by what comes first
CREATE TABLE other (rule text, subject text, value text, threshold numeric, since timestamptz, until timestamptz, rank integer);
CREATE FUNCTION grant_limit(rule text, threshold numeric, subject text, value text, until timestamptz DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$
	SELECT finance.set_rule_limit(rule, threshold, 'test', account => CASE subject WHEN 'account' THEN value END,
		account_type => CASE subject WHEN 'type' THEN value END, level => CASE subject WHEN 'level' THEN value END, expires_at => until);
	INSERT INTO other VALUES (rule, subject, value, threshold, current_setting('finance.test_clock')::timestamptz,
		coalesce(until, 'infinity'), array_position('{account,level,type}'::text[], subject) * 2 + (until IS NULL)::integer);
$$;
CREATE FUNCTION limit_of(rule text, account text, at timestamptz, otherwise numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
	SELECT coalesce((SELECT o.threshold FROM other o
		WHERE o.rule = limit_of.rule AND at >= o.since AND at < o.until
			AND (o.subject, o.value) IN (('account', account), ('level', CASE account WHEN 'a2' THEN 'gold' END),
				('type', CASE WHEN account ~ '^a' THEN 'liability' ELSE 'asset' END))
		ORDER BY o.rank LIMIT 1), otherwise)
$$;

-- when the clocks of all clients stood where
CREATE TABLE step (phase text, clock timestamptz, began timestamptz, ended timestamptz DEFAULT 'infinity');
CREATE TABLE answer (what text, answer text);
});

# ------------------------------------------------------------------------
# what a client does
# ------------------------------------------------------------------------

# One step, told by numbers.  What the rules refuse is an answer; anything
# else, a deadlock among it, ends the run.  Rejections that are of a chain are
# marked: they looked at members that were undone with it.
$node->safe_psql('postgres', q{
CREATE FUNCTION pay(p integer, s integer, c integer, k integer) RETURNS text LANGUAGE sql AS
$$ SELECT status FROM finance.transfer('a' || p, 's' || s, c * 0.01, type => CASE k WHEN 0 THEN 'rare' ELSE 't' || p END) $$;
CREATE FUNCTION pick(n integer) RETURNS bigint LANGUAGE sql AS
$$ SELECT hold_id FROM finance._hold WHERE status = 'open' ORDER BY hold_id DESC OFFSET n % 12 LIMIT 1 $$;
CREATE FUNCTION step(w integer, p integer, s integer, c integer, k integer, h integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	source text := 'a' || p;
	target text := 's' || s;
	amount numeric := c * 0.01;
	type text := CASE k WHEN 0 THEN 'rare' ELSE 't' || p END;
	chosen bigint := pick(h);
	said text := 'ok';
	what text := CASE WHEN w < 30 THEN 'transfer' WHEN w < 48 THEN 'hold' WHEN w < 56 THEN 'capture' WHEN w < 66 THEN 'release'
		WHEN w < 70 THEN 'expire' WHEN w < 76 THEN 'reverse' WHEN w < 86 THEN 'batch' WHEN w < 94 THEN 'savepoint'
		WHEN w < 97 THEN 'error' ELSE 'strict' END;
BEGIN
	BEGIN
		CASE what
		WHEN 'transfer' THEN
			said := pay(p, s, c, k);
		WHEN 'hold' THEN
			SELECT status INTO said FROM finance.hold(source, target, amount, type => type,
				expires_in => CASE h % 3 WHEN 0 THEN interval '10 minutes' WHEN 1 THEN interval '2 hours' END);
		WHEN 'capture' THEN
			PERFORM finance.capture(chosen, CASE WHEN h % 3 > 0 THEN trunc(amount / 2, 2) + 0.01 END, final => h % 2 = 0);
		WHEN 'release' THEN
			PERFORM finance.release(chosen, CASE WHEN h % 4 = 0 THEN 0.01 END);
		WHEN 'expire' THEN
			said := CASE WHEN finance.expire_holds(1 + h % 20) > 0 THEN 'ok' ELSE 'none' END;
		WHEN 'reverse' THEN
			SELECT r.status INTO said FROM finance.reverse_transfer((SELECT t.id FROM finance.transfer t WHERE t.status = 'completed'
				AND t.type <> 'reversal' ORDER BY t.id DESC OFFSET h % 20 LIMIT 1), CASE WHEN h % 2 = 0 THEN 0.5 END) AS r;
		WHEN 'batch' THEN
			INSERT INTO answer SELECT 'in batch', coalesce(error, status) FROM finance.transfer_batch(ARRAY[
				finance.request(source, target, amount, type => type),
				finance.request(source, target, amount, action => 'hold', type => type),
				finance.request('a' || 1 + p % 4, target, amount, type => 't' || p, reference => 'chain', linked => true),
				finance.request(source, target, 0.07, type => 't' || p, reference => 'chain'),
				finance.request(action => 'release', hold_id => chosen),
				finance.request(source, 's' || 3 - s, 0.01, type => type)]);
		WHEN 'savepoint' THEN
			BEGIN
				PERFORM pay(p, s, c, k);
				RAISE EXCEPTION 'back' USING ERRCODE = 'P0099';
			EXCEPTION WHEN SQLSTATE 'P0099' THEN
				said := pay(p, s, c, k);
			END;
		WHEN 'error' THEN
			PERFORM pay(p, s, c, k), pay(p, s, c, k), finance.transfer(source, 'nobody', 1);
		WHEN 'strict' THEN
			SELECT status INTO said FROM finance.transfer(source, target, amount, type => type, strict => true);
		END CASE;
	EXCEPTION WHEN OTHERS THEN
		IF SQLSTATE !~ '^LG' AND SQLSTATE <> '22004' THEN
			RAISE;
		END IF;
		said := SQLSTATE;
	END;
	INSERT INTO answer VALUES (what, said);
END $$;
});

my $client = q{
\set w random(0, 99)
\set p random(1, 4)
\set s random(1, 2)
\set c random(1, 4000)
\set k random(0, 9)
\set h random(0, 1000000)
\set small random(0, 3)
\if :small = 0
\set c 1 + :c % 50
\endif
\if :client_id >= 12
BEGIN ISOLATION LEVEL %s;
SAVEPOINT part;
SELECT pay(:p, :s, :c, :k);
ROLLBACK TO part;
SELECT pay(:p, :s, :c, :k);
COMMIT;
\elif :w < 5
BEGIN;
SELECT pay(:p, :s, :c, :k);
PREPARE TRANSACTION 'p:client_id';
COMMIT PREPARED 'p:client_id';
\elif :w < 10
BEGIN;
SELECT pay(:p, :s, :c, :k);
PREPARE TRANSACTION 'p:client_id';
ROLLBACK PREPARED 'p:client_id';
\elif :w < 15
BEGIN;
SELECT pay(:p, :s, :c, :k), pay(:p, :s, :c, :k);
ROLLBACK;
\else
SELECT step(:h % 100, :p, :s, :c, :k, :h / 100);
\endif
};

# ------------------------------------------------------------------------
# what the limits came to, from finance.transfer alone
# ------------------------------------------------------------------------

# Who asked, and what was given back: the latter in the windows of its hold, so
# with the clock of that.
$node->safe_psql('postgres', q{
CREATE FUNCTION look_back(of_phase text) RETURNS void LANGUAGE plpgsql SET work_mem = '64MB' AS $$
BEGIN
DROP TABLE IF EXISTS event, used;
CREATE TABLE event AS
WITH row AS (
	SELECT t.id, f.code AS f, g.code AS t, f.type AS payer, t.type, t.currency, t.amount::numeric, t.status, t.hold_id, t.released,
		t.reference, s.clock
	FROM finance.transfer t JOIN step s ON t.recorded_at >= s.began AND t.recorded_at < s.ended
		JOIN finance.account f ON f.account_id = t.from_account_id JOIN finance.account g ON g.account_id = t.to_account_id
	WHERE s.phase = of_phase),
asked AS (
	SELECT *, 1 AS n, true AS asks FROM row
	WHERE status IN ('held', 'rejected') OR status = 'completed' AND hold_id IS NULL),
back AS (
	SELECT r.id, r.hold_id, CASE r.status WHEN 'completed' THEN r.released ELSE r.amount END AS amount
	FROM finance.transfer r WHERE r.status IN ('released', 'expired') OR r.status = 'completed' AND r.released > 0)
SELECT id, f, t, payer, type, currency, amount, n, asks, status = 'rejected' AS rejected, coalesce(reference = 'chain', false) AS chained, clock
FROM asked
UNION ALL
SELECT b.id, h.f, h.t, h.payer, h.type, h.currency, -b.amount,
	CASE WHEN sum(b.amount) OVER (PARTITION BY b.hold_id ORDER BY b.id) = h.amount THEN -1 ELSE 0 END, false, false, false, h.clock
FROM back b JOIN asked h ON h.id = b.hold_id AND h.status = 'held';

CREATE TABLE used AS
SELECT l.rule, l.period, l.span, l.threshold AS usual, e.id, e.f, e.clock, e.asks, e.rejected, e.chained,
	(l.payers IS NULL OR l.payers = e.payer) AND (l.type IS NULL OR l.type = e.type) AND e.asks AS judged,
	CASE l.per WHEN 'account' THEN e.f WHEN 'counterparty' THEN e.t WHEN 'pair' THEN e.f || '>' || e.t
		WHEN 'account_type' THEN e.f || ' ' || e.type WHEN 'type' THEN e.type || ' ' || e.currency END AS key,
	date_trunc(l.period, e.clock AT TIME ZONE 'Europe/Berlin') AS bucket,
	CASE l.kind WHEN 'count_limit' THEN e.n ELSE e.amount END AS counted, l.kind = 'count_limit' AS is_count,
	NULL::numeric AS total, NULL::numeric AS allowed
FROM event e CROSS JOIN lim l;
CREATE INDEX ON used (rule, key, clock) WHERE NOT rejected;
CREATE INDEX ON used (rule, id);
ANALYZE used;

UPDATE used u SET allowed = limit_of(u.rule, u.f, u.clock, u.usual), total = x.total
FROM (
	SELECT rule, id, key, clock, coalesce(sum(counted) FILTER (WHERE NOT rejected) OVER (PARTITION BY rule, key, bucket ORDER BY id), 0)
		+ CASE WHEN rejected THEN counted ELSE 0 END AS total, judged
	FROM used WHERE span IS NULL
	UNION ALL
	SELECT w.rule, w.id, w.key, w.clock, coalesce((SELECT sum(b.counted) FROM used b WHERE b.rule = w.rule AND b.key = w.key AND NOT b.rejected
		AND b.clock > w.clock - w.span AND b.clock <= w.clock AND b.id <= w.id), 0) + CASE WHEN w.rejected THEN w.counted ELSE 0 END, judged
	FROM used w WHERE w.span IS NOT NULL AND w.judged) AS x
WHERE x.rule = u.rule AND x.id = u.id AND x.key = u.key AND x.clock = u.clock AND x.judged AND u.judged;
END $$;
});
my (%nearly, %seen);

# a query that has no rows to show
sub none
{
	my ($query, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node, "$query LIMIT 20", '', $name);
}

sub look_back
{
	my ($phase) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->safe_psql('postgres',
		"SET client_min_messages = error; SELECT look_back('$phase')");
	none(
		'SELECT rule, id, key, bucket, clock, total, allowed FROM used WHERE judged AND NOT rejected AND total > allowed',
		"$phase: no limit is exceeded in any window of any key");
	none(
		'SELECT id, max(f) FROM used WHERE rejected AND NOT chained GROUP BY id HAVING NOT bool_or(judged AND total > allowed)',
		"$phase: whatever was rejected would have exceeded one");
	none(
		q{SELECT * FROM (SELECT rule, id, total, allowed FROM used WHERE rejected AND NOT chained AND judged AND total > allowed) u
		FULL JOIN (SELECT h.rule, h.transfer_id AS id, h.observed::numeric AS observed, h.threshold::numeric AS threshold FROM finance.risk_hit h
			WHERE h.rule IN (SELECT rule FROM lim) AND h.transfer_id IN (SELECT id FROM event WHERE NOT chained)) h USING (rule, id)
		WHERE (u.total, u.allowed) IS DISTINCT FROM (h.observed, h.threshold)},
		"$phase: what was said of each limit is what was counted");
	none(
		qq{SELECT s.clock, a.code FROM step s CROSS JOIN finance.account a WHERE s.phase = '$phase' AND a.type = 'liability'
			AND s.clock IN (SELECT clock FROM storm)
			AND NOT EXISTS (SELECT FROM used u WHERE u.clock = s.clock AND u.f = a.code AND u.rejected)},
		"$phase: each payer came to a limit each time");
	foreach my $line (
		split /\n/,
		$node->safe_psql(
			'postgres',
			qq{SELECT DISTINCT rule, key, coalesce(bucket::text, clock::text) FROM used WHERE judged AND NOT rejected
				AND total > allowed - CASE WHEN is_count THEN 1 ELSE $largest END
			UNION ALL SELECT 'given back', rule, key FROM used WHERE span IS NULL AND NOT rejected
				GROUP BY rule, key, bucket HAVING sum(counted) FILTER (WHERE asks) > max(usual)}))
	{
		$nearly{ $line =~ s/\|.*//r }++;
	}
	is_sound($node, $phase);
}

# ------------------------------------------------------------------------
# phases
# ------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE TABLE storm (clock timestamptz)');

# the clock of all who come from now on
sub move_clock
{
	my ($phase, $clock) = @_;

	$node->safe_psql('postgres',
		"ALTER DATABASE postgres SET finance.test_clock = '$clock';"
		  . "UPDATE step SET ended = clock_timestamp() WHERE ended = 'infinity';"
		  . "INSERT INTO step VALUES ('$phase', '$clock', clock_timestamp())");
}

sub storm
{
	my ($phase, $clock) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $level = $draw++ % 2 ? 'SERIALIZABLE' : 'REPEATABLE READ';

	$node->safe_psql('postgres', "INSERT INTO storm VALUES ('$clock')");
	bench_ok($node, "$phase: at $clock", sprintf($client, $level),
		'-c', 16, '-j', 2, '-t', $each, '--max-tries', 100000,
		"--random-seed=$draw");
}

# Two that pay before the clock moves and are still prepared when it has.  The
# others wait for them: one is kept then, the other one undone.
sub prepare_two
{
	$node->safe_psql('postgres', "BEGIN; SELECT pay($_, $_, 1234, 1); PREPARE TRANSACTION 'late$_'")
	  foreach (1, 2);
}

sub finish_two
{
	my ($phase) = @_;
	my @waiting;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $n (1, 2)
	{
		my ($out, $err) = ('', '');

		push @waiting,
		  [
			IPC::Run::start(
				[
					'psql', '-XqAt', '-d', $node->connstr('postgres'),
					'-c', "SELECT pay($n, $n, 4321, 1), 'paid'"
				],
				'<', File::Spec->devnull, '>', \$out, '2>', \$err),
			\$out
		  ];
	}
	poll_ok($node,
		q{SELECT count(*) = 2 FROM pg_stat_activity WHERE query ~ '^SELECT pay.*paid' AND wait_event_type = 'Lock'},
		"$phase: others wait for what is prepared");
	$node->safe_psql('postgres', "COMMIT PREPARED 'late1'");
	$node->safe_psql('postgres', "ROLLBACK PREPARED 'late2'");
	foreach my $one (@waiting)
	{
		$one->[0]->finish;
		like(${ $one->[1] }, qr/\|paid/, "$phase: and come through");
	}
}

# Each list of clocks runs on.  "!": nobody pays then but two who are late.
my @phases = (
	[
		'the hour that is left out',
		'2031-03-30 00:40+01', '2031-03-30 01:40+01',
		'!2031-03-30 01:59:59.999999+01', '2031-03-30 03:00+02',
		'2031-03-30 23:59:59+02', '2031-03-31 00:00+02'
	],
	[
		'a day',
		'2031-05-14 10:05+02', '2031-05-14 10:50+02',
		'2031-05-14 11:10+02', '2031-05-14 13:30+02',
		'2031-05-15 09:00+02', '2031-05-16 09:00+02'
	],
	[
		'midnight',
		'2031-06-17 22:10+02', '!2031-06-17 23:59:59.999999+02',
		'2031-06-18 00:00+02', '2031-06-18 01:59:59+02',
		'2031-06-18 02:00+02'
	],
	[
		'the hour that comes twice',
		'2031-10-26 00:59+02', '2031-10-26 02:20+02',
		'!2031-10-26 02:59:59+02', '2031-10-26 02:20+01',
		'2031-10-26 03:00+01', '2031-10-26 23:59:59+01',
		'2031-10-27 00:00+01'
	],
	[
		'the end of a year',
		'2031-12-30 12:00+01', '2031-12-31 20:00+01',
		'!2031-12-31 23:59:59.999999+01', '2032-01-01 00:00+01',
		'2032-01-01 01:00+01'
	],
	[
		'29 February',
		'2032-02-28 23:50+01', '2032-02-29 00:00+01',
		'!2032-02-29 23:59:59.999999+01', '2032-03-01 00:00+01'
	]);

sub limits_of_some
{
	my ($first, $last) = @_;

	# the last clock is not in them any more, and in some phases others
	$node->safe_psql('postgres', qq{
		SELECT grant_limit('hour', 260, 'account', 'a1', '$last'), grant_limit('day', 500, 'level', 'gold', '$last'),
			grant_limit('pair span', 60, 'account', 'a3', '$last'), grant_limit('span', 333.33, 'type', 'liability', '$last')});
}

# lasting ones, underneath: of an account, of a level, of a type of accounts
move_clock('before', '2031-03-01 00:00+01');
$node->safe_psql('postgres', q{
	SELECT grant_limit('hour', 190.5, 'account', 'a1'), grant_limit('day', 440, 'level', 'gold'), grant_limit('hour n', 24, 'type', 'liability'),
		grant_limit('hour n', 19, 'account', 'a3'), grant_limit('payee day', 850, 'account', 'a4'), grant_limit('kind day', 35.07, 'level', 'gold')});

foreach (@phases)
{
	my ($phase, @clocks) = @$_;
	my $late = 0;

	foreach my $i (0 .. $#clocks)
	{
		my $only_late = $clocks[$i] =~ s/^!//;

		move_clock($phase, $clocks[$i]);
		limits_of_some($clocks[0], $clocks[-1]) if $i == 0;
		finish_two($phase) if $late;
		$late = $only_late;
		prepare_two() if $only_late;
		storm($phase, $clocks[$i]) if !$only_late;
	}
	look_back($phase);
}

none(
	'SELECT rule FROM lim WHERE rule <> ALL (ARRAY['
	  . join(', ', map { "'$_'" } sort keys %nearly) . '])',
	'each limit was nearly used up somewhere');
note(join(', ', map { "$_ $nearly{$_}" } sort keys %nearly));
cmp_ok($nearly{'given back'} // 0,
	'>', 0, 'what was given back was used again');
none(
	q{SELECT w.* FROM (VALUES ('transfer', 'completed'), ('transfer', 'rejected'), ('hold', 'held'), ('hold', 'rejected'), ('capture', 'ok'),
	('release', 'ok'), ('expire', 'ok'), ('reverse', 'completed'), ('savepoint', 'completed'), ('savepoint', 'rejected'),
	('error', 'LG002'), ('strict', 'LG101'), ('in batch', 'held'), ('in batch', 'completed'), ('in batch', 'rejected'),
	('in batch', 'released'), ('in batch', 'LG014')) AS w (what, answer)
	WHERE NOT EXISTS (SELECT FROM answer a WHERE a.what = w.what AND a.answer = w.answer)},
	'all of it happened');
none(
	q{SELECT v FROM unnest('{expired,released,held,completed,rejected}'::text[]) AS v WHERE v NOT IN (SELECT status FROM finance.transfer)
	UNION ALL SELECT 'final capture' WHERE NOT EXISTS (SELECT FROM finance.transfer WHERE released > 0)},
	'and left its rows');

# ------------------------------------------------------------------------
# rules that change meanwhile
# ------------------------------------------------------------------------

# Two versions: the limits, and two rules each that hit whatever is paid and
# have the version in their names.  Client 0 publishes them in turn and pays.
move_clock('rules', '2032-04-01 12:00+02');
$node->safe_psql('postgres', q{
	CREATE TABLE published (version integer, transfer_id bigint);
	SELECT finance.create_ruleset('two', 1), finance.create_ruleset('three', 1);
	SELECT finance.add_rule('one ' || v, 'transfer_limit', 0, outcome => 'report', ruleset => v),
		finance.add_rule('two ' || v, 'expression', expression => 'amount > 0', outcome => 'report', ruleset => v) FROM generate_series(2, 3) AS v;
	SELECT finance.publish_ruleset(3), finance.publish_ruleset(2)});
my $race = q{
\set p random(1, 4)
\set s random(1, 2)
\set c random(1, 100)
\if :client_id = 0
SELECT finance.publish_ruleset(version) FROM finance.ruleset WHERE mode = 'retired' AND version > 1;
INSERT INTO published SELECT r.version, t.id FROM finance.ruleset r, finance.transfer('a' || :p, 's' || :s, 0.01) t WHERE r.mode = 'live';
\else
BEGIN;
SELECT pay(:p, :s, :c, 1);
SELECT pay(:p, :s, :c, 1);
COMMIT;
\endif
};
bench_ok($node, 'rules change and everybody pays', $race,
	'-c', 16, '-j', 2, '-t', 25 * soak(), "--random-seed=$seed");
my $judged = q{finance.transfer t JOIN step s ON t.recorded_at >= s.began AND s.phase = 'rules'};
none(
	qq{SELECT t.id, string_agg(h.rule || ' by ' || h.version, ', ') FROM $judged
	LEFT JOIN finance.risk_hit h ON h.transfer_id = t.id AND h.mode = 'live' AND h.rule NOT IN (SELECT rule FROM lim)
	GROUP BY t.id HAVING array_agg(h.rule ORDER BY h.rule) IS DISTINCT FROM ARRAY['one ' || min(h.version), 'two ' || min(h.version)]
		OR min(h.version) <> max(h.version)},
	'whatever was judged, was by all of one ruleset');
is_query(
	$node,
	"SELECT count(DISTINCT d.version), bool_or(t.status = 'rejected') FROM $judged JOIN finance.risk_decision d ON d.transfer_id = t.id",
	'2|t',
	'by either, and limits were reached meanwhile');
none(
	'SELECT p.version, d.version FROM published p LEFT JOIN finance.risk_decision d ON d.transfer_id = p.transfer_id WHERE p.version IS DISTINCT FROM d.version',
	'what starts after a ruleset is live is judged by that');
look_back('rules');
is_query($node,
	'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
	'0', 'no deadlock in all of it');

$node->stop;
done_testing();
