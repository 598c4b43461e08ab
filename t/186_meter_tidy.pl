# Totals of pairs whose windows are over: the worker deletes them, waits for
# nobody, and whoever pays again is limited by what the history says, exactly,
# also while rows are deleted under many sessions that pay.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = book_node('main', "finance.launcher_naptime = 1\n");

sub sql
{
	return $node->safe_psql('postgres', join(';', @_));
}

# a new worker begins a pass; when it has waited for nothing, that is over
sub tidy
{
	my $pid = sql("SELECT pid FROM finance.workers WHERE state = 'running' AND database = 'postgres'");

	sql("SELECT pg_terminate_backend($pid)");
	poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running' AND database = 'postgres' AND pid <> $pid AND last_sweep_at IS NOT NULL",
		'a new worker');
}

my $pairs = 'SELECT count(*) FROM finance.risk_total WHERE account_id <> 0 AND other_id <> 0';
# two years ago, as they see it: over for the worker whenever it looks
my $then = "SET finance.test_clock = '2024-05-01 12:00+00'";
my $later = "SET finance.test_clock = '2024-05-01 12:59+00'";

poll_ok($node, "SELECT count(*) = 1 FROM finance.workers WHERE state = 'running'", 'the worker runs');
open_accounts($node, 'payer', 'busy', map { "p$_" } 1 .. 600);
sql("SELECT finance.add_rule('twice', 'count_limit', 3, per => 'pair', span => '1 hour')",
	"SELECT finance.add_rule('month', 'total_limit', 1000, per => 'pair', period => 'month')",
	"SELECT finance.create_tenant('other')");
# another tenant, with what is never over
sql("SET finance.tenant = 1", "SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR')",
	"SELECT finance.add_rule('new', 'new_counterparty', 100000), finance.add_rule('hour', 'count_limit', 100, per => 'pair', period => 'hour')",
	$then, "SELECT status FROM finance.transfer('a', 'b', 1)");
sql($then, "SELECT count((finance.transfer('payer', 'p' || n, 1)).id) FROM generate_series(1, 600) n, generate_series(1, 2)");
sql($then, "SELECT status FROM finance.transfer('busy', 'p1', 1)");
sql("SELECT status FROM finance.transfer('payer', 'busy', 1)");
is(sql($pairs), '603', 'a row for each pair');

# ------------------------------------------------------------------------
# those whose windows are over, and nobody's that is locked
# ------------------------------------------------------------------------

my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT code FROM finance.lock_accounts('{busy}')");
tidy();
poll_ok($node, "SELECT count(*) = 3 FROM finance.risk_total WHERE account_id <> 0 AND other_id <> 0", 'what is over goes');
is(sql("SELECT string_agg(f.code || ' ' || t.code, ', ' ORDER BY f.code) FROM finance.risk_total r
	JOIN finance._account f ON f.account_id = r.account_id JOIN finance._account t ON t.account_id = r.other_id"),
	'a b, busy p1, payer busy', 'what is of all time, locked, or of today stays');
is_sound($node, 'after it');
$holder->query_safe('COMMIT');
$holder->quit;
tidy();
poll_ok($node, "SELECT count(*) = 2 FROM finance.risk_total WHERE account_id <> 0 AND other_id <> 0", 'and what was locked, once it is not');

# ------------------------------------------------------------------------
# limits go on
# ------------------------------------------------------------------------

is(sql($later, "SELECT status FROM finance.transfer('payer', 'p7', 1)", "SELECT status, rule FROM finance.transfer('payer', 'p7', 1)"),
	"completed\nrejected|twice", 'what was paid before counts');
is_sound($node, 'after paying again');

# ------------------------------------------------------------------------
# rows that go while they are used
# ------------------------------------------------------------------------

sql("SELECT finance.add_rule('much', 'total_limit', 2000, per => 'pair', span => '2 hours', account => 'busy')",
	"SELECT finance.remove_rule('twice'), finance.remove_rule('month')");
my $script = $node->basedir . '/pay.sql';
append_to_file($script, "SELECT finance.transfer('busy', 'p2', 1);\nSELECT finance.transfer('busy', 'p3', 1);\n");
my ($out, $err) = ('', '');
my $bench;
{
	local $ENV{PGOPTIONS} = '-c finance.test_clock=2024-05-01T12:30Z';

	$bench = IPC::Run::start(
		[ 'pgbench', '-n', '-c', 4, '-R', 250, '-T', 15 * soak(), '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'>', \$out, '2>', \$err);
}
tidy() foreach 1 .. 2 * soak();
ok($bench->finish, 'sessions paid') or diag($err);
note('deleted: ' . sql("SELECT n_tup_del FROM pg_stat_all_tables WHERE relid = 'finance.risk_total'::regclass"));
is(sql("SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM finance.transfer t JOIN finance._account a ON a.account_id = t.to_account_id
	WHERE a.code IN ('p2', 'p3') AND t.status = 'completed' AND t.from_account_id = (SELECT account_id FROM finance._account WHERE code = 'busy') GROUP BY a.code) c"),
	'2000 2000', 'each limit is reached and not exceeded');
is_sound($node, 'in the end');

$node->stop;
done_testing();
