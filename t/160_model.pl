# Everything that moves money, against a model of it (FinanceModel.pm): random
# requests, valid and not, one at a time and in batches; each answer is
# compared, and after each round trip every account, hold and transfer.
#
# MODEL_SEED=n repeats a run; FIN_SOAK multiplies its length.
use strict;
use warnings;

use Digest::MD5 'md5_hex';
use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceModel;
use FinanceTest;
use IPC::Open2;
use POSIX 'strftime';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{MODEL_SEED} // time() % 1_000_000;
my $steps = 100_000 * soak();
my $round_steps = 400;

srand($seed);
note("MODEL_SEED=$seed");

my $node = book_node('main', "log_statement = none\nsynchronous_commit = off\n");

# ------------------------------------------------------------------------
# the other end: a table of operations, carried out one after the other
# ------------------------------------------------------------------------

my @fields = qw(from_account to_account amount currency idempotency_key type
  expected_from_version expected_to_version amount_mode effective_at reference
  metadata linked action hold_id final expires_in hold_group recorded_at);
my @results = qw(id status amount currency from_account from_version
  from_balance from_available to_account to_version to_balance to_available
  recorded_at trace_id rule replayed hold_id hold_remaining journal_id);

my $schema = q(
CREATE SCHEMA model;
-- kind 'batch' is its first request, 'member' each other one, in order of n;
-- 'row' and 'scalar' are calls that answer with transfer_results or a value
CREATE UNLOGGED TABLE model.op (n integer, kind text, batch integer, atomic boolean,
	call text, is_strict boolean, LIKE finance.transfer_request);
CREATE UNLOGGED TABLE model.answer (n integer, error text, message text,
	detail text, scalar text, r finance.transfer_result);

CREATE PROCEDURE model.batch(o model.op) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO model.answer
	SELECT o.n + b.position - 1, b.error, b.message, b.detail, NULL,
		ROW(B_RESULTS)::finance.transfer_result
	FROM finance.transfer_batch((SELECT array_agg(ROW(P_FIELDS)::finance.transfer_request
		ORDER BY p.n) FROM model.op p WHERE p.batch = o.batch), o.atomic) b;
END $$;

CREATE PROCEDURE model.call(o model.op) LANGUAGE plpgsql AS $$
DECLARE
	r finance.transfer_result;
	value text;
BEGIN
	CASE o.kind
	WHEN 'transfer' THEN
		r := finance.transfer(o.from_account, o.to_account, o.amount, o.currency, o.idempotency_key,
			o.type, o.expected_from_version, o.expected_to_version, o.amount_mode, o.effective_at,
			o.reference, o.metadata, o.is_strict);
	WHEN 'hold' THEN
		r := finance.hold(o.from_account, o.to_account, o.amount, o.expires_in, o.currency,
			o.idempotency_key, o.type, o.expected_from_version, o.expected_to_version,
			o.amount_mode, o.hold_group, o.reference, o.metadata, o.is_strict);
	WHEN 'capture' THEN
		r := finance.capture(o.hold_id, o.amount, o.final, o.idempotency_key, o.effective_at,
			o.reference, o.metadata);
	WHEN 'release' THEN
		r := finance.release(o.hold_id, o.amount, o.idempotency_key, o.reference, o.metadata);
	WHEN 'row' THEN
		EXECUTE format('INSERT INTO model.answer SELECT $1, NULL, NULL, NULL, NULL, r FROM %s r', o.call)
			USING o.n;
		RETURN;
	WHEN 'scalar' THEN
		EXECUTE format('SELECT (%s)::text', o.call) INTO value;
	END CASE;
	INSERT INTO model.answer VALUES (o.n, NULL, NULL, NULL, value, r);
END $$;

CREATE PROCEDURE model.run(commits boolean) LANGUAGE plpgsql AS $$
DECLARE
	o model.op;
	state text;
	message text;
	detail text;
BEGIN
	FOR o IN SELECT * FROM model.op WHERE kind <> 'member' ORDER BY n LOOP
		BEGIN
			IF o.kind = 'batch' THEN
				CALL model.batch(o);
			ELSE
				CALL model.call(o);
			END IF;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
				message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
			INSERT INTO model.answer VALUES (o.n, state, message, detail);
		END;
		IF commits THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;

CREATE VIEW model.account AS
SELECT code, status, version, round(credits_posted, minor_units) AS "in",
	round(debits_posted, minor_units) AS "out", round(debits_pending, minor_units) AS held,
	round(credits_pending, minor_units) AS expected, round(min_available, minor_units) AS floor,
	round(max_balance, minor_units) AS ceiling, round(spent, minor_units) AS spent,
	CASE WHEN spent_on <> '-infinity' THEN spent_on - '1970-01-01' END AS spent_day,
	last_transfer_id
FROM finance._account;
CREATE VIEW model.hold AS
SELECT h.hold_id, f.code AS from_account, t.code AS to_account, h.status,
	round(h.amount, f.minor_units) AS amount, round(h.captured, f.minor_units) AS captured,
	round(h.released, f.minor_units) AS released, h.type, h.hold_group,
	extract(epoch FROM h.expires_at)::bigint AS ends, h.held_on - '1970-01-01' AS day
FROM finance._hold h JOIN finance._account f ON f.account_id = h.from_account_id
	JOIN finance._account t ON t.account_id = h.to_account_id;
CREATE VIEW model.transfer AS
SELECT x.id, f.code AS from_account, t.code AS to_account, x.from_version,
	x.to_version, x.hold_id, x.journal_id, x.reverses_id, x.amount, x.from_balance, x.to_balance,
	nullif(x.from_held, 0) AS from_held, nullif(x.to_held, 0) AS to_held,
	nullif(x.released, 0) AS released, x.status, x.type, x.currency, x.reference, x.metadata,
	extract(epoch FROM x.effective_at)::bigint AS effective_at
FROM finance.transfer x JOIN finance._account f ON f.account_id = x.from_account_id
	JOIN finance._account t ON t.account_id = x.to_account_id;

-- every row of every table of the extension, as it lies there
CREATE FUNCTION model.fingerprint() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	relation regclass;
	rows text;
	result text := '';
BEGIN
	FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'finance'::regnamespace
		AND relkind = 'r' ORDER BY relname LOOP
		EXECUTE format('SELECT md5(string_agg(concat_ws(''|'', t.ctid, t.xmin, t), '''' ORDER BY t.ctid)) FROM %s t', relation)
			INTO rows;
		result := result || relation || ' ' || coalesce(rows, '-') || E'\n';
	END LOOP;
	RETURN result;
END $$;

SELECT finance.create_queue('everything');
SELECT finance.bind_topic('#', 'everything');
);
my %lists = (
	B_RESULTS => join(', ', map { "b.$_" } @results),
	P_FIELDS => join(', ', map { "p.$_" } @fields));
$schema =~ s/(B_RESULTS|P_FIELDS)/$lists{$1}/g;
$node->safe_psql('postgres', $schema);

my $errors = $node->basedir . '/psql.err';
my $session = open2(my $from_psql, my $to_psql, 'sh', '-c',
	"exec psql -XqAt -v ON_ERROR_STOP=1 -d '" . $node->connstr('postgres') . "' 2>'$errors'");

# what a script prints; only its last few thousand bytes may follow a statement
# that prints much, for we do not read before all is written
sub talk
{
	my ($script) = @_;
	my @lines;

	print $to_psql $script, "\\echo END OF ANSWER\n";
	$to_psql->flush;
	while (my $line = <$from_psql>)
	{
		chomp $line;
		return @lines if $line eq 'END OF ANSWER';
		push @lines, $line;
	}
	die 'psql ended: ' . slurp_file($errors);
}

# ------------------------------------------------------------------------
# how the model's things look
# ------------------------------------------------------------------------

sub line
{
	return join("\t", map { $_ // '\N' } @_);
}

sub money
{
	my ($units, $currency) = @_;
	return undef unless defined $units;
	return FinanceModel::money($units, $FinanceModel::decimals{$currency});
}

sub money_or_null
{
	my ($units, $currency) = @_;
	return $units ? money($units, $currency) : undef;
}

sub account_line
{
	my ($account) = @_;

	return line(
		@{$account}{qw(code status version)},
		(map { money($account->{$_}, $account->{currency}) }
			  qw(in out held expected floor ceiling spent)),
		$account->{spent_day},
		$account->{last} ? $account->{last}{id} : 0);
}

sub hold_line
{
	my ($hold) = @_;

	return $hold->{line} //= line(
		$hold->{transfer}{id},
		@{$hold}{qw(from to status)},
		(map { money($hold->{$_}, $hold->{transfer}{currency}) }
			  qw(amount captured released)),
		@{$hold}{qw(type hold_group ends day)});
}

sub transfer_line
{
	my ($transfer) = @_;
	my $currency = $transfer->{currency};

	return line(
		@{$transfer}{qw(id from to from_version to_version)},
		$transfer->{hold} ? $transfer->{hold}{transfer}{id} : undef,
		(map { $transfer->{$_} ? $transfer->{$_}{id} : undef }
			  qw(journal reverses)),
		(map { money($transfer->{$_}, $currency) }
			  qw(amount from_balance to_balance)),
		(map { money_or_null($transfer->{$_}, $currency) }
			  qw(from_held to_held released)),
		@{$transfer}{qw(status type currency reference metadata effective_at)});
}

# an answer without its times, as a row of results
sub answer_line
{
	my ($answer) = @_;
	my $transfer = $answer->{transfer};

	if (defined $answer->{error})
	{
		my $detail = $answer->{detail};

		return line($answer->{error},
			$detail
			? join('', map { ref $_ ? $_->{id} : $_ } @$detail)
			: undef);
	}
	return line($answer->{scalar}) unless $transfer;

	my $currency = $transfer->{currency};
	my $side = sub {
		my ($name) = @_;
		my $balance = $transfer->{"${name}_balance"};

		return (
			$transfer->{$name}, $transfer->{"${name}_version"},
			money($balance, $currency),
			money($balance - $transfer->{"${name}_held"}, $currency));
	};
	return line(
		@{$transfer}{qw(id status)},
		money($transfer->{amount}, $currency),
		$currency, $side->('from'), $side->('to'),
		$transfer->{rule}, $answer->{replayed} ? 't' : 'f',
		$transfer->{hold} ? $transfer->{hold}{transfer}{id} : undef,
		money($transfer->{remaining}, $currency),
		$transfer->{journal} ? $transfer->{journal}{id} : undef);
}

# ------------------------------------------------------------------------
# carrying out
# ------------------------------------------------------------------------

my @ops;    # of this round: kind, request or call, answer of the model
my %seen;   # how often what came

sub sql_time
{
	return strftime('%Y-%m-%d %H:%M:%S+00', gmtime(shift));
}

sub op_line
{
	my ($n, $op) = @_;
	my %request = %{ $op->{request} // {} };

	$request{hold_id} =
	  ref $request{hold} ? $request{hold}{transfer}{id} : $request{hold};
	$request{expires_in} .= ' seconds' if defined $request{expires_in};
	$request{effective_at} = sql_time($request{effective_at})
	  if ($request{effective_at} // '') =~ /^\d+$/;
	return line($n, @{$op}{qw(kind batch atomic call)},
		@request{ 'strict', @fields }) . "\n";
}

sub differs
{
	my ($what, @more) = @_;

	fail("$what is as the model has it, seed $seed");
	diag(join("\n", @more));
	diag(slurp_file($errors));
	close $to_psql;
	$node->stop;
	done_testing();
	exit 1;
}

sub describe
{
	my ($op) = @_;
	my $request = $op->{request};

	return "$op->{kind} " . ($op->{call} // '') unless $request;
	return "$op->{kind} "
	  . join(
		', ',
		map {
			my $value = $request->{$_};
			"$_ => " . (ref $value ? "hold $value->{transfer}{id}" : $value // 'null')
		} sort keys %$request);
}

# ids and times are the server's to choose: but a new id is above all before
my $last_id = 0;

sub bind_answer
{
	my ($answer, $got) = @_;
	my $transfer = $answer->{transfer} or return;

	return unless defined $got->{id};
	if ($answer->{replayed})
	{
		return "$got->{recorded_at} $got->{trace_id} $transfer->{recorded_at}"
		  unless $got->{recorded_at} eq $transfer->{recorded_at}
		  && $got->{trace_id} eq $transfer->{trace_id};
		return;
	}
	return "id $got->{id} after $last_id" if $got->{id} <= $last_id;
	$last_id = $got->{id};
	@{$transfer}{qw(id recorded_at trace_id)} =
	  @{$got}{qw(id recorded_at trace_id)};
	return;
}

sub check_answer
{
	my ($op, $row) = @_;
	my ($n, $error, $message, $detail, $scalar, @row) = @$row;
	my %got;
	my $answer = $op->{answer};
	my $shown;

	@got{@results} = @row;
	my $wrong = bind_answer($answer, \%got);
	if (defined $error)
	{
		$shown = line($error, $answer->{detail} ? $detail : undef);
	}
	elsif (!$answer->{transfer} && !defined $got{id})
	{
		$shown = line($scalar);
	}
	else
	{
		$shown = line(@got{ grep { !/^(recorded_at|trace_id)$/ } @results });
	}
	my $expected = answer_line($answer);
	push @{ $op->{told} }, $expected, $shown;
	differs('an answer', describe($op), "expected: $expected", "got:      $shown",
		$message // '', $detail // '', $wrong // '',
		map { describe($_) . "\n    " . join("\n    ", @{ $_->{told} // [] }) }
		  grep { defined $op->{batch} && ($_->{batch} // 0) == $op->{batch} } @ops)
	  if $expected ne $shown || defined $wrong;
	$seen{ $error // ($answer->{replayed} ? 'replayed'
			: $answer->{transfer} ? $answer->{transfer}{status}
			: 'scalar') }++;
	$seen{"$op->{kind} " . (defined $error ? 'failed' : 'done')}++;
}

sub null_or
{
	return map { $_ eq '\N' ? undef : $_ } @_;
}

my $last_seen_transfer = 0;

sub check_lines
{
	my ($what, $expected, $got) = @_;

	for (my $i = 0; $i < @$expected || $i < @$got; $i++)
	{
		my ($left, $right) = ($expected->[$i] // '(none)', $got->[$i] // '(none)');

		differs($what, "expected: $left", "got:      $right") if $left ne $right;
	}
}

# everything the server has, against everything the model has
sub check_state
{
	my ($model) = @_;
	my @got = talk(
		"COPY (SELECT * FROM model.account ORDER BY code COLLATE \"C\") TO STDOUT;\n"
		  . "\\echo -\n"
		  . "COPY (SELECT * FROM model.transfer WHERE id > $last_seen_transfer ORDER BY id) TO STDOUT;\n"
		  . "\\echo -\n"
		  . "SELECT md5(string_agg(concat_ws(E'\\t', hold_id, from_account, to_account, status, amount, captured, released, type, coalesce(hold_group, '\\N'), coalesce(ends::text, '\\N'), day), E'\\n' ORDER BY hold_id)) FROM model.hold;\n"
	);
	my @parts = ([]);

	foreach my $line (@got)
	{
		if ($line eq '-') { push @parts, []; }
		else { push @{ $parts[-1] }, $line; }
	}
	my $accounts = $model->{accounts};
	check_lines('the accounts',
		[ map { account_line($accounts->{$_}) } sort keys %$accounts ],
		$parts[0]);
	my @transfers =
	  sort { $a->{id} <=> $b->{id} } @{ $model->{transfers} };
	check_lines('a transfer', [ map { transfer_line($_) } @transfers ], $parts[1]);
	$last_seen_transfer = $transfers[-1]{id} if @transfers;
	@{ $model->{transfers} } = ();
	my $holds = join("\n", map { hold_line($_) } @{ $model->{holds} });
	return if !@{ $model->{holds} } || md5_hex($holds) eq $parts[2][0];
	check_lines(
		'the holds',
		[ split /\n/, $holds ],
		[
			talk(
				"COPY (SELECT * FROM model.hold ORDER BY hold_id) TO STDOUT;\n")
		]);
}

my $rounds = 0;

sub send_round
{
	my ($model) = @_;
	my $n = 0;
	my $commits = $rounds % 2 == 0 ? 'true' : 'false';
	my $direct = $rounds % 4 < 2 ? 'on' : 'off';

	return unless @ops;
	$rounds++;
	my @lines = talk("SET finance.direct_writes = $direct;\n"
		  . "TRUNCATE model.op, model.answer;\n"
		  . "COPY model.op FROM STDIN;\n"
		  . join('', map { op_line(++$n, $_) } @ops)
		  . "\\.\nCALL model.run($commits);\n"
		  . 'COPY (SELECT n, error, message, detail, scalar, (r).* FROM model.answer ORDER BY n, (r).id) TO STDOUT;'
		  . "\n");
	differs('the number of answers', scalar(@ops) . ' and ' . scalar(@lines))
	  unless @ops == @lines;
	check_answer($ops[$_], [ null_or(split /\t/, $lines[$_]) ]) foreach 0 .. $#ops;
	@ops = ();
	check_state($model);
}

# ------------------------------------------------------------------------
# requests at random
# ------------------------------------------------------------------------

sub one_in { return int(rand(shift)) == 0; }
sub pick { return $_[ int(rand(@_)) ]; }
sub between { my ($low, $high) = @_; return $low + int(rand($high - $low + 1)); }

my @codes;           # of the accounts in use
my @known_holds;     # whose ids are known; those that ended are weeded out
my @recent_keys;
my $key_count = 0;
my $code_count = 0;

sub amount_text
{
	my ($units, $currency) = @_;
	my $text = money($units, $currency);

	return $text . '0' if $text =~ /\./ && one_in(10);
	$text =~ s/\.?0+$// if $text =~ /\./ && one_in(10);
	return $text;
}

# what would just go through, or just not, is the most interesting
sub random_units
{
	my ($from, $to) = @_;
	my $units = between(1, 10**between(1, 6));

	if ($from && defined $from->{floor} && one_in(3))
	{
		$units = FinanceModel::available($from) - $from->{floor} + between(-2, 1);
		$units = int($units / between(2, 6)) if one_in(2);
	}
	elsif ($to && defined $to->{ceiling} && one_in(4))
	{
		$units =
		  $to->{ceiling} - FinanceModel::balance($to) - $to->{expected} + between(-1, 1);
	}
	return $units > 0 ? $units : between(1, 1000);
}

sub random_movement
{
	my ($model, $action) = @_;
	my ($from, $to) = (pick(@codes), pick(@codes));
	my $accounts = $model->{accounts};

	# most of them between accounts of one currency, and money must come from somewhere
	for (my $tries = 0; $tries < 4; $tries++)
	{
		last
		  if $from ne $to
		  && $accounts->{$from}{currency} eq $accounts->{$to}{currency};
		$to = pick(@codes);
	}
	if (one_in(4))
	{
		my $currency = $accounts->{$to}{currency};
		my ($bank) = grep { /bank$currency/ } @codes;

		$from = $bank if $to ne $bank;
	}
	$to = 'nobody' if one_in(150);
	$from = 'noone' if one_in(150);
	return (
		action => $action,
		from_account => $from,
		to_account => $to,
		amount => amount_text(
			random_units($accounts->{$from}, $accounts->{$to}),
			($accounts->{$from} // $accounts->{ $codes[0] })->{currency}));
}

sub random_of_hold
{
	my ($model, $action) = @_;
	my $hold = pick(@known_holds) or return random_movement($model, 'hold');
	my $remaining = FinanceModel::remaining($hold);
	my %request = (action => $action, hold => $hold);

	$request{hold} = between(1, 1000) if one_in(60);
	if (one_in(2))
	{
		my $units = one_in(3) ? $remaining + between(-1, 1) : between(1, $remaining);

		$request{amount} = amount_text($units > 0 ? $units : 1,
			$hold->{transfer}{currency});
	}
	$request{final} = 't' if $action eq 'capture' && one_in(3);
	return %request;
}

# a version right or wrong
sub random_version
{
	my ($account) = @_;
	return undef unless $account;
	return $account->{version} unless one_in(4);
	return abs($account->{version} + between(-1, 1));
}

sub decorate
{
	my ($model, $request) = @_;
	my $of_hold = $request->{action} =~ /^(capture|release)$/;
	my $accounts = $model->{accounts};

	$request->{reference} = 'ref ' . between(1, 3) if one_in(8);
	$request->{metadata} = '{"n": ' . between(1, 3) . '}' if one_in(12);
	$request->{effective_at} = 1_900_000_000 + 86_400 * between(0, 5)
	  if $request->{action} =~ /^(transfer|capture)$/ && one_in(20);
	return if $of_hold;
	my $from = $accounts->{ $request->{from_account} };
	my $to = $accounts->{ $request->{to_account} };

	$request->{currency} = $from ? $from->{currency} : 'EUR' if one_in(6);
	$request->{currency} = pick(qw(EUR JPY BHD)) if one_in(100);
	$request->{type} = pick(qw(adjustment transfer deposit)) if one_in(8);
	$request->{type} = pick(qw(fee expense bribe)) if one_in(100);
	$request->{type} = $request->{to_account} eq 'fees' ? 'fee' : 'expense'
	  if "$request->{to_account} $request->{from_account}" =~ /fees|costs/;
	$request->{expected_from_version} = random_version($from) if one_in(12);
	$request->{expected_to_version} = random_version($to) if one_in(12);
	if (one_in(12))
	{
		$request->{amount_mode} = 'up_to';
		$request->{amount} = undef if one_in(2);
	}
	$request->{amount_mode} = 'exact' if !$request->{amount_mode} && one_in(30);
	return if $request->{action} ne 'hold';
	$request->{expires_in} = pick(60, 3600, 86_400, 864_000) if one_in(3);
	$request->{hold_group} = 'group ' . between(1, 5) if one_in(5);
}

# what is wrong with it whatever the book is like
sub spoil
{
	my ($request, $in_batch) = @_;
	my $of_hold = $request->{action} =~ /^(capture|release)$/;
	my @ways = (
		[ amount => '0' ],
		[ amount => '-12.5' ],
		[ amount => 'NaN' ],
		[ amount => 'Infinity' ],
		[ amount => '1.00001' ],
		[ amount => '1' . '0' x 38 ],
		[ reference => '' ],
		[ idempotency_key => '' ]);

	push @ways, [ effective_at => 'infinity' ]
	  if $request->{action} =~ /^(transfer|capture)$/;
	push @ways, [ expires_in => pick(0, -5) ] if $request->{action} eq 'hold';
	push @ways, [ hold => 5 ], [ amount => undef, amount_mode => undef ],
	  [ from_account => undef ], [ to_account => '' ],
	  [ expected_from_version => -1 ], [ amount_mode => 'about' ], [ type => '' ]
	  unless $of_hold;
	push @ways, [ from_account => 'someone' ], [ hold_group => 'x' ],
	  [ amount_mode => 'up_to' ], [ action => 'steal' ], [ hold => undef ]
	  if $of_hold && $in_batch;
	my %way = @{ pick(grep { $in_batch || $_->[0] ne 'hold' } @ways) };

	if (exists $way{hold} && !defined $way{hold})
	{
		delete $request->{hold};
		return;
	}
	$request->{$_} = $way{$_} foreach keys %way;
}

# an earlier request once more; or almost
sub repeat
{
	my ($model) = @_;
	my $key = pick(@recent_keys);
	my $first = $model->{keys}{$key} or return;
	my %request = %{ $first->{request} };
	my $of_hold = $request{action} =~ /^(capture|release)$/;

	delete @request{qw(linked strict)};
	# the same, in other words
	$request{amount} .= $request{amount} =~ /\./ ? '0' : '.0'
	  if defined $request{amount} && one_in(4);
	$request{currency} = $first->{transfer}{currency}
	  if !$of_hold && !defined $request{currency} && one_in(4);
	return \%request unless one_in(3);
	my @ways = (
		[ amount => between(1, 900) ],
		[ reference => 'another' ],
		[ metadata => '{"other": true}' ]);
	push @ways, [ from_account => pick(@codes) ], [ to_account => pick(@codes) ],
	  [ type => 'deposit' ], [ currency => pick(qw(EUR JPY BHD)) ],
	  [ expected_from_version => between(0, 9) ],
	  [ expected_to_version => between(0, 9) ],
	  [ action => $request{action} eq 'hold' ? 'transfer' : 'hold' ],
	  [ amount_mode => ($request{amount_mode} // '') eq 'up_to' ? 'exact' : 'up_to' ]
	  unless $of_hold;
	push @ways, [ expires_in => 7200 ], [ hold_group => 'another' ]
	  if $request{action} eq 'hold';
	push @ways, [ hold => pick(@known_holds) ] if $of_hold && @known_holds;
	push @ways, [ final => $request{final} ? undef : 't' ]
	  if $request{action} eq 'capture';
	push @ways, [ effective_at => 1_950_000_000 ]
	  if $request{action} =~ /^(transfer|capture)$/;
	my ($field, $value) = @{ pick(@ways) };
	$request{$field} = $value;
	if ($request{action} ne 'hold')
	{
		delete @request{qw(expires_in hold_group)};
	}
	else
	{
		delete $request{effective_at};
	}
	$request{amount} //= 1 if ($request{amount_mode} // '') ne 'up_to' && !$of_hold;
	return \%request;
}

sub random_request
{
	my ($model, $in_batch) = @_;
	my $dice = rand(100);
	my $action =
	    $dice < 58 ? 'transfer'
	  : $dice < 78 ? 'hold'
	  : $dice < 92 ? 'capture'
	  : 'release';
	my %request;

	if (@recent_keys && one_in(9))
	{
		my $again = repeat($model);
		return $again if $again;
	}
	%request =
	  $action =~ /^(capture|release)$/
	  ? random_of_hold($model, $action)
	  : random_movement($model, $action);
	decorate($model, \%request);
	if (one_in(4))
	{
		$request{idempotency_key} = 'key ' . ++$key_count;
		push @recent_keys, $request{idempotency_key};
		shift @recent_keys if @recent_keys > 60;
	}
	spoil(\%request, $in_batch) if one_in(25);
	$request{strict} = 't'
	  if !$in_batch && $request{action} =~ /^(transfer|hold)$/ && one_in(5);
	return \%request;
}

# ------------------------------------------------------------------------
# operations at random: each is asked of the model and noted for the server
# ------------------------------------------------------------------------

sub note_op
{
	my ($kind, $answer, %more) = @_;
	push @ops, { kind => $kind, answer => $answer, %more };
}

sub do_single
{
	my ($model) = @_;
	my $request = random_request($model, 0);

	note_op($request->{action}, $model->ask($request), request => $request);
}

my $batch_count = 0;

sub do_batch
{
	my ($model) = @_;
	my $size = one_in(10) ? between(40, 120) : between(1, 20);
	my $atomic = one_in(8);
	my $links = one_in(3) ? 0 : one_in(2) ? 0.7 : 0.25;
	my @requests;
	my @answers;

	$size = between(2, 4) if $atomic;
	# a chain reads as it will be when its turn comes, near enough
	foreach my $i (1 .. $size)
	{
		my $request = { %{ random_request($model, 1) } };

		# twice within a batch
		if (@requests && one_in(15))
		{
			$request = { %{ pick(@requests) } };
			$request->{idempotency_key} //= 'key ' . ++$key_count;
		}
		delete @{$request}{qw(linked strict)};
		$request->{linked} = 't' if rand() < $links && ($i < $size || one_in(10));
		push @requests, $request;
	}
	@answers = $model->ask_batch(\@requests, $atomic);
	$batch_count++;
	note_op(
		$_ == 0 ? 'batch' : 'member',
		$answers[$_],
		batch => $batch_count,
		atomic => $atomic ? 't' : 'f',
		request => $requests[$_]) foreach 0 .. $#requests;
}

sub quoted
{
	my ($text) = @_;
	return defined $text ? "'$text'" : 'NULL';
}

sub do_status
{
	my ($model) = @_;
	my $code = one_in(50) ? 'nobody' : pick(@codes);
	my $status = pick(qw(active active active active debits_frozen
		  credits_frozen frozen));

	# the banks stay open, or all else would starve
	$status = 'active' if $code =~ /bank/ && one_in(2);
	$status = 'closed' if $code !~ /bank/ && one_in(8);
	$status = 'asleep' if one_in(80);
	note_op(
		'scalar',
		$model->set_status($code, $status),
		call => "finance.set_account_status('$code', '$status', 'model')");
	replace_closed($model, $code);
}

sub replace_closed
{
	my ($model, $code) = @_;

	return
	  if ($model->{accounts}{$code} // { status => '' })->{status} ne 'closed';
	# a few of them are still asked about
	my ($index) = grep { $codes[$_] eq $code } 0 .. $#codes;
	splice(@codes, $index, 1) if @codes > 22;
	do_open($model);
}

sub open_account
{
	my ($model, $code, $currency, $floor, $ceiling, $type) = @_;

	$model->open_account($code, $currency, $floor, $ceiling, $type);
	push @codes, $code;
	note_op(
		'scalar',
		{ scalar => 'true' },
		call => "finance.create_account('$code', '$currency', '"
		  . ($type // 'liability')
		  . "', min_available => "
		  . (money($floor, $currency) // 'NULL')
		  . ', max_balance => '
		  . (money($ceiling, $currency) // 'NULL')
		  . ') > 0');
}

sub do_open
{
	my ($model) = @_;
	my $currency = pick(qw(EUR EUR EUR JPY BHD));
	my $floor = pick(0, 0, 0, -50_000, undef);
	my $ceiling = pick(undef, undef, undef, 100_000, 1_000_000);
	my $code = 'x' . ++$code_count;

	open_account($model, $code, $currency, $floor, $ceiling);
}

sub do_limits
{
	my ($model) = @_;
	my $code = one_in(50) ? 'nobody' : pick(grep { !/bank/ } @codes);
	my $account = $model->{accounts}{$code};
	my ($floor, $ceiling) = (pick(0, 0, -50_000, undef), pick(undef, undef, 1_000_000));

	return if ($account // { status => '' })->{status} eq 'closed';
	$floor = FinanceModel::available($account) + between(-1, 1)
	  if $account && one_in(4);
	$ceiling =
	  FinanceModel::balance($account) + $account->{expected} + between(-1, 1)
	  if $account && one_in(4);
	note_op(
		'scalar',
		$model->set_limits($code, $floor, $ceiling),
		call => "finance.set_account_limits('$code', "
		  . (money($floor, ($account // { currency => 'EUR' })->{currency}) // 'NULL') . ', '
		  . (money($ceiling, ($account // { currency => 'EUR' })->{currency}) // 'NULL')
		  . ", 'model')");
}

sub set_clock
{
	my ($model, $now) = @_;
	my $time = sql_time($now);

	$model->{now} = $now;
	note_op(
		'scalar',
		{ scalar => $time },
		call => "set_config('finance.test_clock', '$time', false)");
}

sub weed_holds
{
	my ($model) = @_;
	my @open = grep { $_->{status} eq 'open' } @{ $model->{holds} };
	my @ended = grep { $_->{status} ne 'open' } @{ $model->{holds} };

	@ended = @ended[ $#ended - 7 .. $#ended ] if @ended > 8;
	@open = @open[ 0 .. 149 ] if @open > 150;
	@known_holds = (@open, @ended);
}

sub random_op
{
	my ($model) = @_;
	my $dice = rand(100);

	if ($dice < 1) { set_clock($model, $model->{now} + pick(30, 600, 7200, 20_000)); }
	elsif ($dice < 1.1) { set_clock($model, $model->{now} - 3600); }
	elsif ($dice < 4) { do_status($model); }
	elsif ($dice < 6) { do_limits($model); }
	elsif ($dice < 11) { do_batch($model); }
	else { do_single($model); }
}

# ------------------------------------------------------------------------
# the book
# ------------------------------------------------------------------------

sub new_book
{
	my $model = FinanceModel->new(now => 1_900_000_000);
	my @plan = (
		[ 'bankEUR', 'EUR', undef, undef ],
		[ 'bankJPY', 'JPY', undef, undef ],
		[ 'bankBHD', 'BHD', undef, undef ],
		(map { [ "a$_", 'EUR', 0, undef ] } 1 .. 6),
		[ 'full', 'EUR', 0, 200_000 ],
		[ 'credit', 'EUR', -100_000, undef ],
		[ 'small', 'EUR', -1_000, 5_000 ],
		[ 'saver', 'EUR', 0, undef ],
		[ 'child', 'EUR', 0, undef ],
		[ 'fees', 'EUR', 0, undef, 'income' ],
		[ 'costs', 'EUR', undef, undef, 'expense' ],
		[ 'yen1', 'JPY', 0, undef ],
		[ 'yen2', 'JPY', 0, 500_000 ],
		[ 'dinar1', 'BHD', 0, undef ],
		[ 'dinar2', 'BHD', -5_000, undef ]);

	foreach (@plan)
	{
		open_account($model, @$_);
	}
	# what risk says no to
	foreach (
		[ 'saver', 'daily_limit', 100_000 ],
		[ 'child', 'transfer_limit', 2_500 ])
	{
		my ($code, $kind, $threshold) = @$_;
		my $limit = money($threshold, 'EUR');

		$model->{rules}{$code} =
		  { kind => $kind, threshold => $threshold, name => "of $code" };
		note_op(
			'scalar',
			{ scalar => '' },
			call => "finance.add_rule('of $code', '$kind', $limit, account => '$code')");
	}
	set_clock($model, $model->{now});
	return $model;
}

my $model = new_book();
my $done = 0;
my $started = time();

send_round($model);
while ($done < $steps)
{
	weed_holds($model);
	random_op($model) while @ops < $round_steps;
	$done += @ops;
	send_round($model);
}
pass("$done operations as the model has them, seed $seed");
note(sprintf '%d seconds', time() - $started);
note("$_: $seen{$_}") foreach sort keys %seen;
is_sound($node, 'after all of it');

close $to_psql;
$node->stop;
done_testing();
