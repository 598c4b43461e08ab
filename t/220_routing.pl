# Routing against a matcher of another kind: random patterns and topics, by
# topic_matches() one by one and by all in one trie, and random filters, by
# test_routing() and by publish().
#
# The trie walks all paths forward at once.  Here a table is filled from the
# ends of both lists: does the rest of the pattern match the rest of the topic?
#
# FIN_SEED=n repeats a run; FIN_SOAK multiplies its length.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pairs = 100_000 * soak();
my $seed = $ENV{FIN_SEED} // time() % 1_000_000;
my $json = JSON::PP->new->canonical->allow_nonref;

srand($seed);
note("FIN_SEED=$seed");

my $node = book_node('main', "log_statement = none\nsynchronous_commit = off\n");

# ------------------------------------------------------------------------
# what is right
# ------------------------------------------------------------------------

sub topic_matches
{
	my ($pattern, $topic) = @_;
	my @p = split /\./, $pattern;
	my @t = split /\./, $topic;
	# row[j]: the words of the pattern from here on match those of the topic from j on
	my @row = ((0) x @t, 1);

	foreach my $word (reverse @p)
	{
		my @next;

		$next[@t] = $word eq '#' && $row[@t];
		for (my $j = $#t; $j >= 0; $j--)
		{
			$next[$j] =
				$word eq '#' ? $row[$j] || $next[ $j + 1 ]
			  : $word eq '*' || $word eq $t[$j] ? $row[ $j + 1 ]
			  :                                   0;
		}
		@row = @next;
	}
	return $row[0] ? 1 : 0;
}

sub same
{
	my ($wanted, $value) = @_;

	return 1 unless defined $wanted;
	return 0 if !defined $value || ref $value eq 'ARRAY';
	# texts of JSON tell types apart; numbers here have one form only
	return $json->encode($wanted) eq $json->encode($value);
}

sub filter_passes
{
	my ($binding, $headers) = @_;

	if ($binding->{tags})
	{
		my %has;

		$has{ $headers->{tag} } = 1 if defined $headers->{tag};
		$has{$_} = 1 foreach @{ $headers->{tags} // [] };
		return 0 unless grep { $has{$_} } @{ $binding->{tags} };
	}
	if ($binding->{headers})
	{
		my @names = keys %{ $binding->{headers} };
		my $good = grep { exists $headers->{$_} && same($binding->{headers}{$_}, $headers->{$_}) } @names;

		return $good == @names if $binding->{match} eq 'all';
		return $good > 0;
	}
	return 1;
}

# ------------------------------------------------------------------------
# by chance
# ------------------------------------------------------------------------

sub one_of { return $_[ rand @_ ]; }

# few and short words, so that much matches
sub random_topic
{
	return join '.', map { one_of(qw(a b c d), 'ab') } 0 .. rand 7;
}

# one in three from a topic, so that long ones match too
sub random_pattern
{
	my @words = map { rand() < 0.25 ? '#' : rand() < 0.3 ? '*' : one_of(qw(a b c d), 'ab') } 0 .. rand 6;

	@words = map { rand() < 0.15 ? '#' : rand() < 0.15 ? '*' : $_ } split /\./, shift // ''
	  if @_ && rand() < 0.3;
	return join '.', @words;
}

sub random_value { return one_of(undef, JSON::PP::true, JSON::PP::false, 1, 2, '1', 'x'); }

sub random_binding
{
	my %binding = (pattern => '#', queue => 'q' . int(rand 12));

	# what matches everything would leave nothing to the alternate queue
	$binding{pattern} = random_pattern(random_topic()) until $binding{pattern} =~ /[a-d].*[a-d]/;
	$binding{tags} = [ map { one_of('t' .. 'x') } 0 .. rand 2 ] if rand() < 0.4;
	if (rand() < 0.4)
	{
		$binding{headers} = { map { one_of('h', 'k', 'l') => random_value() } 0 .. rand 3 };
		$binding{match} = one_of('all', 'any');
	}
	return \%binding;
}

sub random_headers
{
	my %headers = map { one_of('h', 'k', 'l', 'm') => random_value() } 0 .. rand 4;

	$headers{tag} = one_of('t' .. 'x') if rand() < 0.4;
	$headers{tags} = [ map { one_of('t' .. 'x') } 0 .. rand 2 ] if rand() < 0.2;
	return \%headers;
}

# rows into a table, by COPY: none of our texts has a tab or a backslash
sub load
{
	my ($table, @rows) = @_;

	$node->safe_psql('postgres',
		"COPY $table FROM STDIN;\n" . join('', map { join("\t", @$_) . "\n" } @rows) . "\\.\n");
}

sub answers { return split /\n/, $node->safe_psql('postgres', shift); }

# says of which some differ
sub same_answers
{
	my ($name, $got, $expected, $of) = @_;
	my @wrong = grep { ($got->[$_] // 'nothing') ne $expected->[$_] } 0 .. $#$expected;

	diag("$of->[$_]: expected '$expected->[$_]', got '" . ($got->[$_] // 'nothing') . "'")
	  foreach @wrong[ 0 .. ($#wrong > 9 ? 9 : $#wrong) ];
	ok(@$got == @$expected && !@wrong, $name);
}

# ------------------------------------------------------------------------
# one pattern, one topic
# ------------------------------------------------------------------------

my @pair = map { my $topic = random_topic(); [ random_pattern($topic), $topic ] } 1 .. $pairs;
my @expected = map { topic_matches(@$_) } @pair;
my $matching = grep { $_ } @expected;

note("$matching of $pairs pairs match");
ok($matching > $pairs / 5 && $matching < $pairs * 4 / 5, 'many match and many do not');
$node->safe_psql('postgres', q(
CREATE TABLE pair (n int, pattern text, topic text);
CREATE TABLE one (n int, topic text);
CREATE TABLE bound (pattern text, queue text, tags text, headers text, match text);
CREATE TABLE sent (n int, topic text, headers text);));
load('pair', map { [ $_, @{ $pair[$_] } ] } 0 .. $#pair);
same_answers("topic_matches() of $pairs pairs",
	[ answers('SELECT finance.topic_matches(pattern, topic)::int FROM pair ORDER BY n') ],
	\@expected, [ map { "@$_" } @pair ]);

# ------------------------------------------------------------------------
# all patterns in one trie, without and with filters
# ------------------------------------------------------------------------

my %pattern = map { random_pattern(random_topic()) => 1 } 1 .. 400;
my @pattern = sort keys %pattern;
my %topic = map { random_topic() => 1 } 1 .. 800;
my @topic = sort keys %topic;

note(@pattern * @topic . ' pairs of ' . @pattern . ' patterns');
$node->safe_psql('postgres', "SELECT finance.create_queue('q' || n) FROM generate_series(0, 11) n; SELECT finance.create_queue('rest')");
$node->safe_psql('postgres', join(' ', map { "SELECT finance.bind_topic('$_', 'q0');" } @pattern));
load('one', map { [ $_, $topic[$_] ] } 0 .. $#topic);
same_answers('test_routing() names the patterns that match',
	[ answers(q(SELECT n || ':' || coalesce(string_agg(r.pattern, ' ' ORDER BY r.pattern COLLATE "C"), '')
		FROM one LEFT JOIN LATERAL finance.test_routing(topic) r ON true GROUP BY n ORDER BY n)) ],
	[ map { my $i = $_; "$i:" . join(' ', grep { topic_matches($_, $topic[$i]) } @pattern) } 0 .. $#topic ],
	\@topic);
$node->safe_psql('postgres', join(' ', map { "SELECT finance.unbind_topic('$_', 'q0');" } @pattern));

my @binding = map { random_binding() } 1 .. 120;
my @sent = map { [ random_topic(), random_headers() ] } 1 .. 1000;

load('bound', map { my $b = $_; [ $b->{pattern}, $b->{queue}, $b->{tags} ? '{' . join(',', @{ $b->{tags} }) . '}' : '\N',
	$b->{headers} ? ($json->encode($b->{headers}), $b->{match}) : ('\N', 'all') ] } @binding);
load('sent', map { [ $_, $sent[$_][0], $json->encode($sent[$_][1]) ] } 0 .. $#sent);
$node->safe_psql('postgres', q(
SELECT finance.bind_topic(pattern, queue, tags::text[], headers::jsonb, match) FROM bound;
SELECT finance.set_default_queues(alternate => 'rest')));

my @routed;
my $lost = 0;
foreach my $i (0 .. $#sent)
{
	my ($topic, $headers) = @{ $sent[$i] };
	my %queue = map { $_->{queue} => 1 }
	  grep { topic_matches($_->{pattern}, $topic) && filter_passes($_, $headers) } @binding;

	$lost++ unless %queue;
	$queue{rest} = 1 unless %queue;
	push @routed, "$i:" . join(' ', sort keys %queue);
}
note("$lost of " . @sent . ' messages match no binding');
ok($lost > 0 && $lost < @sent, 'some match no binding');
same_answers('test_routing() and filters',
	[ answers(q(SELECT n || ':' || string_agg(DISTINCT queue_name, ' ' ORDER BY queue_name)
		FROM sent, finance.test_routing(topic, headers::jsonb) GROUP BY n ORDER BY n)) ],
	\@routed, [ map { $json->encode($_) } @sent ]);

my @copies = answers(q(SELECT n || ':' || finance.publish(topic, to_jsonb(n), headers::jsonb) FROM sent ORDER BY n));
same_answers('publish() says how many copies',
	\@copies, [ map { my ($i, $queues) = split /:/; "$i:" . scalar(split / /, $queues) } @routed ], \@routed);
same_answers('and they are there, one in each queue',
	[ answers(q(SELECT payload::text || ':' || string_agg(q.name, ' ' ORDER BY q.name)
		FROM finance.message m JOIN finance.queue q USING (tenant_id, queue_id) GROUP BY payload ORDER BY payload::int)) ],
	\@routed, [ map { $json->encode($_) } @sent ]);
is_sound($node, 'after all');

done_testing();
