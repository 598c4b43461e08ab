# Risk expressions at random.  Sequences of tokens never end the server, take
# long or fail with another error than LG103; and what compiles comes to what
# the same condition comes to in a query.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{FIN_SEED} // time() % 100000;
my $sequences = 20000 * soak();
my $conditions = 4000 * soak();
my $node = finance_node('main');

diag("seed $seed; FIN_SEED=$seed repeats it");
srand($seed);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION finance');

# Facts, and the same as columns of one row.
$node->safe_psql('postgres', q{
CREATE TABLE facts AS SELECT f.* FROM (VALUES
	(1, 1234.50, 'EUR'::text, 'payment'::text, 'shop-17'::text, NULL::text, 3::bigint, 0::bigint, 2000::numeric, '23:15'::time, '2026-02-28'::date,
		6, false, true, 'Invoice 4711'::text, '{"device": "d1", "n": "12", "big": "99999999999", "nan": "NaN", "x": {"y": [1, 2.5]}}'::jsonb),
	(2, 0, '', '%', 'a_b', 'gold', 9223372036854775807, -1, -0.001, '00:00', '2024-02-29', 2147483647, true, NULL, repeat('ä', 300), '[]'),
	(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) AS f (n, amount, currency, type, to_account, from_level, from_age_days, pair_count, available, local_time, local_date, weekday, is_hold, is_reversal, reference, metadata);

CREATE TABLE answer (kind text, expression text, answer text);

-- the answer of the extension, and that of a query
CREATE FUNCTION judged(e text, row_n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce(finance.check_expression(e, (SELECT to_jsonb(f) - 'n' FROM facts f WHERE n = row_n))::text, 'null');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
CREATE FUNCTION queried(e text, row_n integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result boolean;
BEGIN
	EXECUTE 'SELECT ' || e || ' FROM facts WHERE n = $1' INTO result USING row_n;
	RETURN coalesce(result::text, 'null');
EXCEPTION WHEN OTHERS THEN
	RETURN 'error ' || SQLSTATE;
END $$;
-- each is one statement, with its own time limit
CREATE PROCEDURE try(kind text, e text) LANGUAGE sql AS $$ INSERT INTO answer VALUES (kind, e, judged(e, 1)) $$;
CREATE PROCEDURE compare(e text) LANGUAGE sql AS $$
INSERT INTO answer SELECT CASE WHEN j.answer LIKE 'LG103 expression failed: value too long%' THEN 'failed'
	WHEN j.answer LIKE 'LG103 expression failed%' AND queried(e, n) LIKE 'error 22%' THEN 'failed' WHEN j.answer LIKE 'LG103 expression failed%' THEN 'eager' WHEN j.answer LIKE 'LG103 %' THEN 'refused'
	WHEN j.answer = queried(e, n) THEN 'same' ELSE 'differs' END, e || ' /* ' || n || ' */', j.answer
FROM generate_series(1, 3) AS n, LATERAL (SELECT judged(e, n) AS answer OFFSET 0) AS j $$;
});

sub pick { return $_[ int(rand(@_)) ] }

# ------------------------------------------------------------------------
# sequences of tokens
# ------------------------------------------------------------------------

# the words are no mistaken lists
no warnings 'qw';
my @tokens = (
	qw(amount currency type metadata local_time local_date weekday is_hold reference device amout x "amount" "x" pg_class),
	qw{( ) ( ) [ ] , ; : :: . .. := => = <> < > <= >= + - * / % ^ || -> ->> #> ? @> ! ~ & | # @ && ~~ ~* $1 $$ $a$ -- /* */ ' "}, '\\',
	qw(AND OR NOT IN BETWEEN SYMMETRIC LIKE ILIKE SIMILAR TO IS NULL TRUE FALSE UNKNOWN DISTINCT FROM CASE WHEN THEN ELSE END COALESCE NULLIF GREATEST LEAST),
	qw(CAST AS SELECT EXISTS ANY ALL ARRAY ROW DEFAULT COLLATE AT ZONE INTERVAL DATE TIME TIMESTAMP NUMERIC OPERATOR ORDER BY GROUP LIMIT UNION WITH VALUES TABLE INTO FOR UPDATE OVER FILTER WITHIN ESCAPE VARIADIC XMLPARSE JSON_VALUE CURRENT_DATE),
	qw(abs round lower upper length left substr substring position extract mod trunc ceil starts_with strpos now random repeat generate_series sum pg_sleep overlay trim),
	qw(0 1 2 1000 1.5 1e5 1e99 1e999 .5 5. 0x1F 1_000 99999999999999999999 2147483648), "''", "'a'", "'a%'", "'2026-01-01'", "'10:00'", "'{}'", "'1'", "'NaN'",
	"E'\\n'", "E'\\xff'", "U&'\\0041'", "B'1'", "X'f'", "N'a'", "'ä'", 'ä', 'numeric', 'int4', 'text', 'date', 'jsonb', 'float8', 'regclass', 'int', 'boolean',
	"\t", "\n", 'hour from', 'public', 'pg_catalog', 'finance');
use warnings 'qw';

sub sequence
{
	return join(pick(' ', ' ', ' ', ''), map { pick(@tokens) } 1 .. 1 + int(rand(pick(4, 8, 30, 200))));
}

# ------------------------------------------------------------------------
# conditions: of types that fit, for the most part
# ------------------------------------------------------------------------

my %make;

sub make
{
	my ($type, $depth) = @_;
	my @kinds = @{ $make{$type} };

	$type = pick(keys %make) if rand() < 0.002;		# of a type that does not fit
	return $make{$type}[0]->() if $depth <= 0;
	return pick(@{ $make{$type} })->($depth - 1);
}

sub fill
{
	my ($pattern, $depth) = @_;

	$pattern =~ s/\b([BNITDCJV])\b/make($1, $depth)/ge;
	# IN of columns is ORs, of which a query leaves those aside that it does not need
	$pattern =~ s/\b([KL])\b/make($1 eq 'K' ? 'N' : 'T', 0)/ge;
	return $pattern;
}

sub patterns
{
	my ($leaf, @patterns) = @_;

	return [ $leaf, $leaf, map { my $pattern = $_; sub { fill($pattern, $_[0]) } } @patterns ];
}

# B boolean, N numeric, I integer, T text, D date, C time of day, J jsonb, V interval
%make = (
	B => patterns(sub { pick('is_hold', 'is_reversal', 'true', 'false', 'NULL::bool', 'amount > 1000', 'weekday IN (6, 7)', "type = 'payment'") },
		'(B AND B)', '(B OR B)', '(NOT B)', '(N > N)', '(N <= N)', '(N = N)', '(N <> N)', '(I < I)', '(I >= I)', '(I = N)', '(T = T)', '(T <> T)', '(D < D)', '(C >= C)', '(V > V)', '(B = B)',
		'(N BETWEEN N AND N)', '(I NOT BETWEEN SYMMETRIC I AND I)', '(N IN (K, K, 7))', '(T NOT IN (L, L))', "(T LIKE '%a_1%')", "(T NOT LIKE 'I%')", '(N IS NULL)', '(T IS NOT NULL)',
		'(B IS TRUE)', '(B IS NOT UNKNOWN)', '(N IS DISTINCT FROM N)', '(T IS NOT DISTINCT FROM T)', '(CASE WHEN B THEN B ELSE B END)', '(CASE I WHEN I THEN B END)', 'coalesce(B, B)',
		"(J ? 'device')", 'starts_with(T, T)', '((T)::bool)', '(D + C < D + C)', 'nullif(B, B)'),
	N => patterns(sub { pick('amount', 'available', '0', '0.5', '1000.00', '1e9', "'12.5'::numeric", 'NULL::numeric') },
		'(N + N)', '(N - I)', '(N * N)', '(N / N)', '(N % N)', '(- N)', 'abs(N)', 'round(N, 1)', 'round(N)', 'trunc(N)', 'ceil(N)', 'floor(N)', 'sign(N)', 'mod(N, N)', 'greatest(N, I)', 'least(N, N)',
		'coalesce(N, N)', '((T)::numeric)', '(I::numeric)', '(CASE WHEN B THEN N ELSE I END)', 'extract(minute from C)', 'extract(month from D)', 'extract(epoch from V)', 'nullif(N, N)'),
	I => patterns(sub { pick('weekday', 'from_age_days', 'pair_count', '0', '7', '-1', '4000000000', 'NULL::int') },
		'(I + I)', '(I * I)', '(I / I)', '(I - I)', '(I % I)', 'abs(I)', 'length(T)', "strpos(T, 'a')", "position('1' in T)", '((T)::int)', '((T)::bigint)', '(N::int)', '(D - D)', 'coalesce(I, I)', 'greatest(I, I)'),
	T => patterns(sub { pick('currency', 'type', 'to_account', 'from_level', 'reference', "'EUR'", "''", "'12'", "'a%'", 'NULL::text', "(metadata->>'device')", "(metadata->>'n')", "(metadata->>'big')") },
		'(T || T)', 'lower(T)', 'upper(T)', 'left(T, I)', 'right(T, I)', 'substr(T, I)', 'substring(T from I for 3)', 'coalesce(T, T)', 'nullif(T, T)', '(J->>T)', '(J->>0)', '(I::text)', '(B::text)', 'jsonb_typeof(J)', '(CASE WHEN B THEN T END)'),
	D => patterns(sub { pick('local_date', "'2026-01-01'::date", "date '2024-02-29'", 'NULL::date') }, '(D + I)', '(D - I)', '((D + C)::date)', '((D - V)::date)', 'greatest(D, D)'),
	C => patterns(sub { pick('local_time', "time '22:00'", "'06:00:00.5'::time") }, '(C + V)', '(C - V)', '((D + C)::time)', 'coalesce(C, C)'),
	V => patterns(sub { pick("interval '1 day 2 hours'", "'90 minutes'::interval") }, '(V + V)', '(V - V)', '(C - C)', '((D + C) - (D + C))', '(- V)'),
	J => patterns(sub { pick('metadata', "(metadata->'x')", q('{"a": [1, {"b": null}]}'::jsonb)) }, '(J->T)', '(J->0)', '(J->1)', 'coalesce(J, J)'),
);

# ------------------------------------------------------------------------
# run
# ------------------------------------------------------------------------

sub literal { my $text = shift; $text =~ s/'/''/g; return "'$text'" }

my $script = "SET statement_timeout = '5s';\nSET client_min_messages = error;\n";
$script .= "CALL try('sequence', " . literal(sequence()) . ");\n" foreach 1 .. $sequences;
$script .= 'CALL compare(' . literal(make('B', 1 + int(rand(5)))) . ");\n" foreach 1 .. $conditions;
my $file = $node->basedir . '/script.sql';
append_to_file($file, "BEGIN;\n" . $script . "COMMIT;\n");

my ($stdout, $stderr);
my $result = $node->psql('postgres', undef, extra_params => [ '-q', '-f', $file, '-v', 'ON_ERROR_STOP=1' ], stdout => \$stdout, stderr => \$stderr);
is($result, 0, 'no statement took too long, and the server is there') or diag($stderr);

is($node->safe_psql('postgres', "SELECT count(*) FROM answer WHERE kind = 'sequence'"), $sequences, 'every sequence has an answer');
is($node->safe_psql('postgres', q{SELECT string_agg(expression || ': ' || answer, E'\n') FROM answer WHERE answer !~ '^(true|false|null|LG103 )'}), '', 'which is a result or LG103');
is($node->safe_psql('postgres', q{SELECT string_agg(expression || ': ' || answer, E'\n') FROM (SELECT * FROM answer WHERE kind = 'differs' LIMIT 20) a}), '', 'conditions come to what they do in a query');

my %count = split /[|\n]/, $node->safe_psql('postgres', q{SELECT kind, count(*) FROM answer GROUP BY kind});
note(join(', ', map { "$_ $count{$_}" } sort keys %count));
cmp_ok($count{same}, '>', $conditions, 'most conditions compile');
cmp_ok($count{failed}, '>', 0, 'some fail');
# where the plan of a query need not compute what fails
cmp_ok($count{eager} // 0, '<', $conditions / 100, 'and hardly any that does not in a query');
cmp_ok($count{refused}, '<', 2 * $conditions, 'not most are refused');

$node->stop;
done_testing();
