# Every decision, judged again by the version and the inputs it recorded, is the
# same: whatever became of rules, lists, limits and levels, under other
# settings, and in a restored book.  And a shadow that rejects everything
# changes nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceRisk;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time();
note("FIN_SEED=$seed");
srand($seed);

my $node = book_node('main', "log_statement = none\n");
my $rounds = 10;
my $each = 1000 * soak();

# what each statement of a round does: told, or its SQLSTATE.  55000: a reversal
# cannot be reversed, and what was not done neither.
my $step = q(
CREATE TEMP TABLE done (n serial, id bigint, status text, rule text, told text);
CREATE FUNCTION pg_temp.step(call text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN EXECUTE 'SELECT * FROM ' || call LOOP
		INSERT INTO pg_temp.done (id, status, rule, told) VALUES (r.id, r.status, r.rule,
			concat_ws(' ', r.amount, r.from_account, r.from_balance, r.from_available, r.to_account, r.to_balance, r.hold_remaining));
	END LOOP;
EXCEPTION WHEN OTHERS THEN
	INSERT INTO pg_temp.done (status, told) VALUES ('error', SQLSTATE);
END $$;
);

# a script in one session, whose answers are those of $question at its end
sub run
{
	my ($database, $question, @sql) = @_;
	my $file = $node->basedir . '/script.sql';
	my ($out, $err) = ('', '');

	unlink $file;
	append_to_file($file, join(";\n", "\\o " . File::Spec->devnull, $step, @sql, "\\o\n$question")
		  =~ s/\\gset;/\\gset/gr . ";\n");
	# \gset and \o end a line, not a statement
	IPC::Run::run(
		[
			'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr($database), '-f', $file
		],
		'>', \$out, '2>', \$err);
	is($err, '', 'without an error');
	chomp $out;
	return $out;
}

my $unlike = q(SELECT count(*), count(*) FILTER (WHERE NOT r.same OR r.outcome <> d.outcome OR r.score <> d.score OR r.hits <> d.hits OR r.recorded_hits <> d.hits)
	FROM finance.risk_decision d, finance.replay_decision(d.transfer_id, d.version) AS r);

sub replays
{
	my ($database, $name, $which) = @_;
	my $answer = $node->safe_psql($database, "$unlike WHERE $which");
	my ($all, $otherwise) = split /\|/, $answer;

	is($otherwise, 0, "$name: $all decisions are the same again")
	  or diag(
		$node->safe_psql(
			$database,
			"SELECT d.transfer_id, d.version, d.outcome, r.outcome, d.hits, r.hits, d.inputs FROM finance.risk_decision d,"
			  . " finance.replay_decision(d.transfer_id, d.version) AS r WHERE $which AND NOT r.same LIMIT 3"
		));
	return $all;
}

# ------------------------------------------------------------------------
# random transfers by random rulesets
# ------------------------------------------------------------------------

my $seconds = 0;
my $decided = 0;

run('postgres', 'SELECT 1', prepare_book());
foreach my $round (1 .. $rounds)
{
	my @sql = (
		sprintf("SET finance.test_clock = '%s'", moment($seconds)),
		random_ruleset("live $round", 'live', 10),
		(   $round % 3 == 1
			? (
				"SELECT finance.retire_ruleset(version) FROM finance.ruleset WHERE mode = 'shadow'",
				random_ruleset("shadow $round", 'shadow', 0))
			: ()));

	for (my $left = $each; $left > 0; $left -= 100)
	{
		push @sql, random_steps(100, \$seconds), random_change($seconds),
		  random_change($seconds);
	}
	my $answer = run(
		'postgres',
		"SELECT count(*) FILTER (WHERE status IS DISTINCT FROM 'error'), string_agg(DISTINCT told, ' ' ORDER BY told) FILTER (WHERE status = 'error' AND told !~ '^(LG|2200[34]|55000)')"
		  . ' FROM pg_temp.done',
		@sql);
	my ($made, $strange) = split /\|/, $answer;

	cmp_ok($made, '>', $each / 2, "round $round: $made answers");
	is($strange, '', 'no error that a caller should not meet');
	# of this round alone: that all are the same is looked at below
	my ($now) = $node->safe_psql('postgres', 'SELECT count(*) FROM finance.risk_decision');

	cmp_ok($now, '>', $decided, ($now - $decided) . ' decisions');
	$decided = $now;
}
is_sound($node, 'all rounds');
is_query(
	$node,
	q(SELECT string_agg(kind, ' ' ORDER BY kind) FROM (SELECT kind FROM finance.rule_kinds() EXCEPT SELECT kind FROM finance.risk_hit) AS never),
	'', 'rules of each kind hit');
is_query(
	$node,
	q(SELECT string_agg(DISTINCT outcome, ' ' ORDER BY outcome) FROM finance.risk_decision WHERE mode = 'live'),
	'challenge pass reject report review',
	'decisions of each outcome');
is_query(
	$node,
	q(SELECT bool_or(score <> 0 AND rule IS NULL AND outcome <> 'pass'), bool_or(mode = 'shadow') FROM finance.risk_decision),
	't|t', 'some by scores, some of shadows');
replays('postgres', 'after all rounds', 'true');

# ------------------------------------------------------------------------
# elsewhere, and by somebody with settings of his own
# ------------------------------------------------------------------------

my $odd = join(' ',
	"SET intervalstyle = 'iso_8601';", "SET datestyle = 'German';",
	"SET timezone = 'Asia/Kathmandu';", "SET extra_float_digits = -15;",
	"SET bytea_output = 'escape';", "SET standard_conforming_strings = off;",
	"SET search_path = pg_temp;");
is( $node->safe_psql(
		'postgres', "$odd $unlike WHERE d.transfer_id / 65536 % 5 = 0")
	  =~ s/^\d+\|//r,
	'0',
	'so they are under other settings');

$node->safe_psql('postgres', "CREATE DATABASE copy TEMPLATE template0");
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'copy', $dump ],
	'pg_restore');
is( $node->safe_psql('copy', 'SELECT count(*) FROM finance.risk_decision'),
	$decided, 'all decisions are there');
replays('copy', 'restored', 'd.transfer_id / 65536 % 3 = 0');
is_sound($node, 'restored', 'copy');

# ------------------------------------------------------------------------
# the same run with and without a shadow that rejects everything
# ------------------------------------------------------------------------

my $begin = $seconds = 0;
my @book = prepare_book();
my @rules = random_ruleset('live', 'live', 15, 'mild');
my @steps = random_steps($each, \$seconds);
my @shadow = (
	"SELECT finance.create_ruleset('no') AS version \\gset",
	"SELECT finance.add_rule('all', 'transfer_limit', 0, ruleset => :version, score => 1000000)",
	"SELECT finance.add_rule('none', 'count_limit', 0, per => 'type', span => '1 hour', ruleset => :version)",
	"SELECT finance.add_rule('never', 'expression', expression => '1 / (amount - amount) > 0', on_error => 'reject', ruleset => :version)",
	"SELECT finance.publish_ruleset(:version, 'shadow')",
	random_ruleset('another', 'shadow', 20));
my $told = q(SELECT concat_ws('|', n, status, rule, told) FROM pg_temp.done ORDER BY n);
my @answers;

foreach my $with (0, 1)
{
	my $database = $with ? 'shadowed' : 'alone';

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION finance');
	push @answers,
	  run($database, $told, @book, $with ? @shadow : (), @rules, @steps);
}
is($answers[1], $answers[0], 'shadows change nothing')
  or do
{
	my @a = split /\n/, $answers[0];
	my @b = split /\n/, $answers[1];
	my ($first) = grep { $a[$_] ne $b[$_] } 0 .. $#a;

	diag("first: $a[$first]\nwith: $b[$first]");
};
cmp_ok($node->safe_psql('shadowed',
		"SELECT count(*) FROM finance.risk_decision WHERE mode = 'shadow' AND outcome = 'reject'"
	), '>', $each / 2, 'though they would have rejected everything');
cmp_ok($node->safe_psql('shadowed', "SELECT count(*) FROM finance.transfer WHERE status IN ('completed', 'held')"),
	'>', $each / 10, 'much of which was done');
replays('shadowed', 'with shadows', 'true');
is_sound($node, 'with shadows', 'shadowed');

done_testing();
