# What risk counts, by sixteen sessions at once: transfers, holds, batches,
# savepoints, sessions that are killed, a crash, measures that are new.  In the
# end each total is the sum of what passed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time() % 100000;
my $node = book_node('main');
my $steps = 120 * soak();

note("seed $seed; FIN_SEED=$seed repeats it");
open_accounts($node, map { "a$_" } 1 .. 8);
# publishing a rule drops the measures it does not need: so it comes first
$node->safe_psql('postgres', q{
	SELECT finance.add_rule('limit', 'transfer_limit', 95);
	INSERT INTO finance.risk_measure (tenant_id, scope, period, span, band_min, band_max)
	SELECT 0, s, p, CASE WHEN p = 'sliding' THEN interval '2 seconds' END, CASE WHEN s = 'pair' THEN 10 END, CASE WHEN s = 'pair' THEN 50 END
	FROM unnest('{account,counterparty,pair,account_type,type,device}'::text[]) AS s, unnest('{day,sliding,ever}'::text[]) AS p;
	INSERT INTO finance.risk_measure (tenant_id, scope, period) VALUES (0, 'account', 'last_device'), (0, 'account', 'hour');
	SELECT finance.create_transfer_type('rent');
});

# One step, told by numbers: what, two accounts, an amount, which hold.  What
# the rules refuse is an answer; anything else, a deadlock among it, ends it.
$node->safe_psql('postgres', q{
CREATE TABLE answer (what text, answer text);
CREATE FUNCTION pick(n integer) RETURNS bigint LANGUAGE sql AS
$$ SELECT hold_id FROM finance._hold WHERE status = 'open' ORDER BY hold_id
	OFFSET n % greatest((SELECT count(*) FROM finance._hold WHERE status = 'open'), 1) LIMIT 1 $$;
CREATE FUNCTION step(w integer, a integer, b integer, n integer, h integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	source text := 'a' || a;
	target text := 'a' || CASE WHEN b >= a THEN b + 1 ELSE b END;
	amount numeric := n / 100.0;
	device jsonb := CASE WHEN h % 3 > 0 THEN jsonb_build_object('device', 'd' || h % 3) END;
	type text := CASE h % 2 WHEN 0 THEN 'transfer' ELSE 'rent' END;
	chosen bigint := pick(h);
	what text := CASE WHEN w < 25 THEN 'transfer' WHEN w < 40 THEN 'hold' WHEN w < 50 THEN 'capture' WHEN w < 60 THEN 'release'
		WHEN w < 65 THEN 'expire' WHEN w < 80 THEN 'batch' WHEN w < 97 THEN 'savepoint' ELSE 'measure' END;
BEGIN
	BEGIN
		CASE what
		WHEN 'transfer' THEN
			PERFORM finance.transfer(source, target, amount, type => type, metadata => device);
		WHEN 'hold' THEN
			PERFORM finance.hold(source, target, amount, type => type, metadata => device,
				expires_in => CASE h % 3 WHEN 0 THEN h % 40 * interval '1 ms' + interval '1 ms' END);
		WHEN 'capture' THEN
			PERFORM finance.capture(chosen, CASE WHEN h % 3 > 0 THEN amount END, final => h % 4 = 0);
		WHEN 'release' THEN
			PERFORM finance.release(chosen, CASE WHEN h % 3 > 0 THEN amount END);
		WHEN 'expire' THEN
			PERFORM finance.expire_holds(1 + h % 20);
		WHEN 'batch' THEN
			INSERT INTO answer SELECT 'in batch', coalesce(error, status) FROM finance.transfer_batch(ARRAY[
				finance.request(source, target, amount, type => 'rent', linked => h % 2 = 0),
				finance.request(target, source, amount * 2, metadata => device, linked => h % 3 = 0),
				finance.request(source, target, amount, action => 'hold', type => type, metadata => device, linked => h % 5 = 0),
				finance.request(action => 'release', hold_id => chosen),
				finance.request(source, target, 1)]);
		WHEN 'savepoint' THEN
			BEGIN
				PERFORM finance.transfer(source, target, amount, type => type, metadata => device);
				RAISE EXCEPTION 'back' USING ERRCODE = 'P0099';
			EXCEPTION WHEN SQLSTATE 'P0099' THEN
				PERFORM finance.transfer(source, target, 1, type => type);
			END;
		WHEN 'measure' THEN
			INSERT INTO finance.risk_measure (tenant_id, scope, period, span)
			SELECT 0, (ARRAY['account', 'counterparty', 'pair', 'account_type', 'type', 'device'])[1 + h % 6], 'sliding', interval '1 second' * (1 + h % 100)
			WHERE (SELECT count(*) FROM finance.risk_measure) < 60;
			DELETE FROM finance.risk_measure WHERE measure_id = (SELECT min(measure_id) FROM finance.risk_measure WHERE period = 'sliding' AND h % 3 = 0);
		END CASE;
		INSERT INTO answer VALUES (what, 'ok');
	EXCEPTION
		WHEN SQLSTATE 'LG001' OR SQLSTATE 'LG006' OR SQLSTATE 'LG013' OR SQLSTATE 'LG016' OR SQLSTATE '22004' THEN
			INSERT INTO answer VALUES (what, SQLSTATE);
	END;
END $$;
});

my $script = q{
\set w random(0, 99)
\set a random(1, 8)
\set b random(1, 7)
\set n random(1, 10000)
\set h random(0, 1000000)
SELECT step(:w, :a, :b, :n, :h);
};

# each total that no measure's beginning shortened: the sum of what passed,
# counted in another way than check_integrity() does
sub is_counted
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_sound($node, $name);
	is_query(
		$node, q{
WITH passed AS (SELECT t.from_account_id AS f, t.to_account_id AS t, t.type, t.metadata ->> 'device' AS device, t.amount::numeric AS whole,
		t.amount - coalesce(h.released, 0) AS amount, CASE WHEN h.status <> 'open' AND h.captured = 0 THEN 0 ELSE 1 END AS n
	FROM finance.transfer t LEFT JOIN finance._hold h ON h.hold_id = t.id
	WHERE t.status = 'held' OR t.status = 'completed' AND t.hold_id IS NULL),
sums AS (
	SELECT 'account' AS scope, f, 0::bigint AS t, '' AS class, sum(amount) AS amount, sum(n) AS n FROM passed GROUP BY 2
	UNION ALL SELECT 'counterparty', 0, t, '', sum(amount), sum(n) FROM passed GROUP BY 3
	UNION ALL SELECT 'pair', f, t, '', sum(amount), sum(n) FROM passed WHERE whole >= 10 AND whole < 50 GROUP BY 2, 3
	UNION ALL SELECT 'account_type', f, 0, 'type ' || type, sum(amount), sum(n) FROM passed GROUP BY 2, 4
	UNION ALL SELECT 'type', 0, 0, 'EUR ' || type, sum(amount), sum(n) FROM passed GROUP BY 4
	UNION ALL SELECT 'device', f, 0, 'device ' || device, sum(amount), sum(n) FROM passed WHERE device IS NOT NULL GROUP BY 2, 4),
totals AS (SELECT m.scope, r.account_id AS f, r.other_id AS t, r.class, b.amount, b.count AS n
	FROM finance.risk_total r, finance._risk_totals(r.state) b, finance.risk_measure m
	WHERE m.measure_id = b.measure_id AND m.period = 'ever')
SELECT count(*) FROM sums s FULL JOIN totals t USING (scope, f, t, class)
WHERE (coalesce(s.amount, 0), coalesce(s.n, 0)) <> (coalesce(t.amount, 0), coalesce(t.n, 0))
	AND scope IN (SELECT scope FROM finance.risk_measure WHERE period = 'ever')
}, '0', "$name: each total is the sum of what passed");
}

bench_ok($node, 'sessions at once, none in a deadlock',
	$script, '-c', 16, '-j', 2, '-t', $steps, "--random-seed=$seed");
is_counted('after the storm');
is_query(
	$node,
	q{SELECT string_agg(w.what || ' ' || w.answer, ', ') FROM (VALUES ('transfer', 'ok'), ('hold', 'ok'), ('capture', 'ok'),
	('release', 'ok'), ('expire', 'ok'), ('savepoint', 'ok'), ('measure', 'ok'), ('in batch', 'held'), ('in batch', 'completed'),
	('in batch', 'rejected'), ('in batch', 'LG014')) AS w (what, answer)
	WHERE NOT EXISTS (SELECT FROM answer a WHERE a.what = w.what AND a.answer = w.answer)},
	'', 'all of it happened');

# sessions killed at any moment, several times; the last time with the server
foreach my $round (1 .. 4)
{
	my $file = $node->basedir . "/kill$round.sql";
	my ($out, $err) = ('', '');

	append_to_file($file, $script);
	my $storm = IPC::Run::start(
		[
			'pgbench', '-n', '-c', 16, '-j', 2, '-t', 100_000,
			'--random-seed=' . ($seed + $round), '-f', $file, '-h',
			$node->host, '-p', $node->port, 'postgres'
		],
		'>', \$out, '2>', \$err);
	my $done = answer($node, 'SELECT count(*) FROM answer');
	my $killed = 0;

	while ($killed < 8)
	{
		$node->poll_query_until('postgres',
			"SELECT count(*) > $done + 20 FROM answer")
		  or die "round $round: nobody pays";
		$done = answer($node, 'SELECT count(*) FROM answer');
		$killed += answer($node,
			q{SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
			WHERE query LIKE 'SELECT step%' AND state = 'active' ORDER BY random() LIMIT 2) AS p}
		);
	}
	if ($round == 4)
	{
		$node->stop('immediate');
		$node->start;
	}
	$storm->kill_kill;
	poll_ok($node,
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT step%'},
		"round $round: they are gone");
	is_counted("round $round");
}

# a prepared transaction holds the total of its type until it is finished
$node->safe_psql('postgres', q{
	INSERT INTO finance.risk_measure (tenant_id, scope, period) VALUES (0, 'type', 'month');
	BEGIN;
	SELECT finance.transfer('a1', 'a2', 1, type => 'rent');
	PREPARE TRANSACTION 'meter'});
my ($result, $out, $err) = $node->psql('postgres',
	q{SET lock_timeout = '10ms'; SELECT finance.transfer('a3', 'a4', 1, type => 'rent')});
like($err, qr/lock timeout/, 'another of the type waits for it');
$node->safe_psql('postgres', "COMMIT PREPARED 'meter'; SELECT finance.transfer('a3', 'a4', 1, type => 'rent')");
is_counted('after a prepared one');

# a dump has no totals: they are summed up again, to what they were
my $dump = $node->basedir . '/dump.sql';
$node->command_ok(
	[ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', File::Spec->devnull, '-f', $dump, '-d', $node->connstr('copy') ],
	'restored');
is($node->safe_psql('copy', 'SELECT count(*) FROM finance.risk_total'), '0', 'without totals');
my $totals = q{SELECT finance.transfer('a1', 'a2', 1) \g /dev/null
SELECT r.account_id, r.other_id, r.class, t.measure_id, t.amount, t.count
	FROM finance.risk_total r, finance._risk_totals(r.state) t, finance._account a, finance._account b
	WHERE a.code = 'a1' AND b.code = 'a2' AND t.period = 'ever' AND r.account_id IN (0, a.account_id)
		AND (r.other_id = b.account_id OR r.account_id <> 0 AND r.other_id = 0 AND r.class IN ('', 'type transfer'))
	ORDER BY 1, 2, 3, 4};
my $summed_up = $node->safe_psql('copy', $totals);
cmp_ok(scalar(split /\n/, $summed_up), '>=', 4, 'of an account, a pair, a payee and a type');
is($summed_up, $node->safe_psql('postgres', $totals), 'the same totals');
$node->safe_psql('copy', "INSERT INTO finance.risk_measure (tenant_id, scope, period) VALUES (0, 'type', 'hour')");
is_sound($node, 'restored', 'copy');

$node->stop;
done_testing();
