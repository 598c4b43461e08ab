# The rules of money against models of them: the engine's in C, a million
# random movements; amounts in SQL, against numeric.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $seed = $ENV{FIN_SEED} // time();
note("FIN_SEED=$seed");

# ------------------------------------------------------------------------
# the engine
# ------------------------------------------------------------------------

my $program = PostgreSQL::Test::Utils::tempdir . '/engine_test';
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
chomp(my $include = `$pg_config --includedir-server`);
chomp(my $compiler = `$pg_config --cc`);
my @compile = (
	split(' ', $ENV{CC} // $compiler),
	'-std=gnu99', '-O1', '-g', '-w', '-D_GNU_SOURCE',
	# an overflow of signed numbers ends it
	'-fsanitize=signed-integer-overflow', '-fsanitize-undefined-trap-on-error',
	'-I', $include, "$FindBin::RealBin/engine_test.c", '-o', $program);

command_ok(\@compile, 'the engine compiles by itself');
die 'no engine to test' unless -x $program;
my ($out, $err);
my $ok = IPC::Run::run([ $program, $seed, 1_000_000 * $soak ],
	'>', \$out, '2>', \$err);
ok($ok, "a million movements as the model has them, seed $seed")
  or diag("$out$err, signal " . ($? & 127));
note($out);
my %found = $out =~ /^(\w+) (\d+)$/mg;
cmp_ok($found{$_} // 0, '>', 100, "among them many of: $_")
  foreach
  qw(ok same_account currency_differs currency_not_stated
  hold_not_open hold_time_over exceeds_hold from_not_active to_not_active
  from_version_differs to_version_differs total_overflow insufficient_funds
  balance_limit transfer hold capture release expire);

# ------------------------------------------------------------------------
# amounts, through SQL and back
# ------------------------------------------------------------------------

my $node = book_node('main', "log_statement = none\n");

$node->safe_psql(
	'postgres', q(
CREATE FUNCTION digits(n int) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT string_agg(trunc(random() * 10)::int::text, '') FROM generate_series(1, n)
$$;

-- Transfers of one currency beside sums in numeric; returns what differs.
CREATE FUNCTION differences(scale int, n int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	code text := 'S' || scale;
	bound numeric := ('1e' || 38 - scale)::numeric;
	unit numeric := ('1e-' || scale)::numeric;
	paid numeric := 0;
	got numeric := 0;
	amount numeric;
	r finance.transfer_result;
	stored record;
	state text;
BEGIN
	PERFORM finance.create_currency(code, scale);
	PERFORM finance.create_account(code || '.a', code, min_available => NULL),
		finance.create_account(code || '.b', code, min_available => NULL);
	FOR i IN 1..n LOOP
		amount := CASE trunc(random() * 8)::int
			WHEN 0 THEN unit
			WHEN 1 THEN bound / 10 - unit
			WHEN 2 THEN ('1e' || trunc(random() * 38)::int - scale)::numeric
			WHEN 3 THEN digits(1 + trunc(random() * (37 - scale))::int)::numeric
			WHEN 4 THEN bound - paid
			ELSE (digits(1 + trunc(random() * least(20, 37 - scale))::int) || '.'
				|| digits(1 + trunc(random() * greatest(scale - 1, 0))::int))::numeric
			END;
		amount := trunc(amount, scale);
		IF amount <= 0 THEN
			amount := unit;
		END IF;
		-- as a caller may write it: with zeros after it, or none
		IF random() < 0.3 THEN
			amount := round(amount, scale + 5);
		ELSIF random() < 0.3 THEN
			amount := trim_scale(amount);
		END IF;
		state := '00000';
		BEGIN
			r := finance.transfer(code || '.a', code || '.b', amount);
		EXCEPTION WHEN numeric_value_out_of_range THEN
			state := SQLSTATE;
		END;
		IF (state = '00000') <> (paid + amount < bound) THEN
			RETURN NEXT format('%s: %s after %s is %s', code, amount, paid, state);
		END IF;
		CONTINUE WHEN state <> '00000';
		paid := paid + amount;
		got := got + amount;
		SELECT t.amount, t.from_balance, t.to_balance INTO stored
			FROM finance.transfer t WHERE t.id = r.id;
		IF (r.amount, r.from_balance, r.to_balance) IS DISTINCT FROM (amount, -paid, got)
			OR (stored.amount, stored.from_balance, stored.to_balance) IS DISTINCT FROM (amount, -paid, got)
			OR scale(r.amount) <> scale OR scale(r.from_balance) <> scale
			OR scale(stored.amount::numeric) <> scale OR scale(stored.to_balance) <> scale
			OR r.amount::text::numeric <> amount
			OR finance.balance(code || '.a') <> -paid OR finance.balance(code || '.b') <> got THEN
			RETURN NEXT format('%s: %s, sum %s: answered %s, stored %s', code, amount, paid, r, stored);
		END IF;
	END LOOP;
	-- one decimal too many, one digit too many
	FOREACH amount IN ARRAY ARRAY[unit / 10, 1 + unit / 10,
		bound, bound * 10, 1e200, 1e-200] LOOP
		state := '00000';
		BEGIN
			PERFORM finance.transfer(code || '.b', code || '.a', amount);
		EXCEPTION WHEN numeric_value_out_of_range THEN
			state := SQLSTATE;
		END;
		IF state <> '22003' THEN
			RETURN NEXT format('%s: %s was taken', code, amount);
		END IF;
	END LOOP;
END $$;
));
my $n = 60 * $soak;
my $fraction = ($seed % 1_000_000) / 1_000_000;
is_query($node,
	"SELECT setseed($fraction); SELECT * FROM generate_series(0, 18) scale, differences(scale, $n)",
	'', "amounts of 0 to 18 decimals are those of numeric, seed $seed");
is_query(
	$node,
	"SELECT count(DISTINCT currency), min(n) > 20, max(length(translate(amount::text, '.-', ''))) >= 37 FROM (SELECT currency, amount, count(*) OVER (PARTITION BY currency) AS n FROM finance.transfer) t",
	'19|t|t',
	'many of each were made, of up to 37 digits and more');
is_sound($node, 'amounts');

$node->stop;
done_testing();
