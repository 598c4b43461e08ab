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
  recorded_at trace_id rule replayed hold_id hold_remaining journal_id token);

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

-- (accounts B: are twins, which are compared with the others alone)
CREATE VIEW model.account AS
SELECT code, status, version, round(credits_posted, minor_units) AS "in",
	round(debits_posted, minor_units) AS "out", round(debits_pending, minor_units) AS held,
	round(credits_pending, minor_units) AS expected, round(min_available, minor_units) AS floor,
	round(max_balance, minor_units) AS ceiling, round(spent, minor_units) AS spent,
	CASE WHEN spent_on <> '-infinity' THEN spent_on - '1970-01-01' END AS spent_day,
	last_transfer_id
FROM finance._account WHERE code NOT LIKE 'B:%';
CREATE VIEW model.hold AS
SELECT h.hold_id, f.code AS from_account, t.code AS to_account, h.status,
	round(h.amount, f.minor_units) AS amount, round(h.captured, f.minor_units) AS captured,
	round(h.released, f.minor_units) AS released, h.type, h.hold_group,
	extract(epoch FROM h.expires_at)::bigint AS ends, h.held_on - '1970-01-01' AS day
FROM finance._hold h JOIN finance._account f ON f.account_id = h.from_account_id
	JOIN finance._account t ON t.account_id = h.to_account_id WHERE f.code NOT LIKE 'B:%';
CREATE VIEW model.transfer AS
SELECT x.id, f.code AS from_account, t.code AS to_account, x.from_version,
	x.to_version, x.hold_id, x.journal_id, x.reverses_id, x.amount, x.from_balance, x.to_balance,
	nullif(x.from_held, 0) AS from_held, nullif(x.to_held, 0) AS to_held,
	nullif(x.released, 0) AS released, x.status, x.type, x.currency, x.reference, x.metadata,
	extract(epoch FROM x.effective_at)::bigint AS effective_at
FROM finance.transfer x JOIN finance._account f ON f.account_id = x.from_account_id
	JOIN finance._account t ON t.account_id = x.to_account_id WHERE f.code NOT LIKE 'B:%';

-- every row of every table of the extension, as it lies there
CREATE FUNCTION model.fingerprint() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	relation regclass;
	rows text;
	result text := '';
BEGIN
	-- but those in which the worker seals what was recorded
	FOR relation IN SELECT oid FROM pg_class WHERE relnamespace = 'finance'::regnamespace
		AND relname !~ '^audit_(block|incarnation|leaves|node|term|tree)$'
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

my $errors = $node->basedir . '/psql.err';
my ($from_psql, $to_psql);

sub connect_to
{
	my ($database) = @_;

	close $to_psql if $to_psql;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, "CREATE EXTENSION finance; $schema");
	open2($from_psql, $to_psql, 'sh', '-c',
		"exec psql -XqAt -v ON_ERROR_STOP=1 -d '"
		  . $node->connstr($database)
		  . "' 2>'$errors'");
}

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
		$transfer->{journal} ? $transfer->{journal}{id} : undef,
		undef);
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
	  !ref $request{hold} ? $request{hold}
	  : $op->{twin_of} ? $request{hold}{twin_id}
	  : $request{hold}{transfer}{id};
	if ($op->{twin_of})
	{
		foreach my $field (qw(from_account to_account idempotency_key))
		{
			$request{$field} =~ s/^A:/B:/ if defined $request{$field};
		}
	}
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

	return check_twin($op, $row) if $op->{twin_of};
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
	@{$op}{qw(got error message details)} = (\%got, $error, $message, $detail);
	differs('an answer', describe($op), "expected: $expected", "got:      $shown",
		$message // '', $detail // '', $wrong // '',
		map { describe($_) . "\n    " . join("\n    ", @{ $_->{told} // [] }) }
		  grep { defined $op->{batch} && ($_->{batch} // 0) == $op->{batch} } @ops)
	  if $expected ne $shown || defined $wrong;
	$seen{ $error // ($answer->{replayed} ? 'replayed'
			: $answer->{transfer} ? $answer->{transfer}{status}
			: 'scalar') }++;
	my ($what) = ($op->{call} // $op->{kind}) =~ /(?:finance\.)?(\w+)/;
	$seen{"$what " . (defined $error ? 'failed' : 'done')}++;
	$seen{"$what $error"}++ if defined $error && $ENV{MODEL_VERBOSE};
}

# what a single call told of the one twin, against what the batch told of the other
sub check_twin
{
	my ($op, $row) = @_;
	my ($n, $error, $message, $detail, $scalar, @row) = @$row;
	my $other = $op->{twin_of};
	my (%got, $left, $right);

	@got{@results} = @row;
	$other->{answer}{transfer}{hold}{twin_id} = $got{hold_id}
	  if ($got{status} // '') eq 'held' && $got{replayed} eq 'f';
	foreach my $it ([ \$left, $error, $message, $detail, \%got ],
		[ \$right, @{$other}{qw(error message details got)} ])
	{
		my ($line, $sqlstate, $message, $detail, $result) = @$it;

		# batches name the accounts of failures as well
		$$line = line(
			$sqlstate,
			$message,
			defined $sqlstate ? $detail || undef : @{$result}{
				grep { !/^(id|recorded_at|trace_id|hold_id)$/ } @results
			});
		$$line =~ s/B:/A:/g;
		$$line =~ s/\d{15,}/ID/g;
	}
	differs('a single call instead of a batch',
		describe($other), "in a batch: $right", "by itself:  $left")
	  if $left ne $right;
	$seen{ 'twin ' . (defined $error ? 'failed' : 'done') }++;
}

sub null_or
{
	return map { $_ eq '\N' ? undef : $_ } @_;
}

my $last_seen_transfer = 0;
my @known_transfers;    # some of the last, which may be reversed

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
	my @transfers = @{ $model->{transfers} };
	foreach my $i (0 .. $#transfers)
	{
		# those that no answer told of
		$transfers[$i]{id} //= (split /\t/, $parts[1][$i] // '0')[0];
	}
	check_lines('the accounts',
		[ map { account_line($accounts->{$_}) } sort keys %$accounts ],
		$parts[0]);
	check_lines('a transfer', [ map { transfer_line($_) } @transfers ], $parts[1]);
	$last_seen_transfer = $transfers[-1]{id} if @transfers;
	push @known_transfers, @transfers;
	splice @known_transfers, 0, @known_transfers - 100 if @known_transfers > 100;
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
	# each by itself, or all in one transaction, which costs more
	my $commits = $rounds % 4 < 3 ? 'true' : 'false';
	my $direct = $rounds % 8 < 4 ? 'on' : 'off';

	return unless @ops;
	$rounds++;
	my @lines = talk("SET finance.direct_writes = $direct;\n"
		  . ($rounds % 16 == 0
			? "TRUNCATE model.op, model.answer;\n"
			: "DELETE FROM model.op; DELETE FROM model.answer;\n")
		  . "COPY model.op FROM STDIN;\n"
		  . join('', map { op_line(++$n, $_) } @ops)
		  . "\\.\nCALL model.run($commits);\n"
		  . 'COPY (SELECT n, error, message, detail, scalar, (r).* FROM model.answer ORDER BY n, (r).id) TO STDOUT;'
		  . "\n");
	foreach my $i (0 .. $#ops)
	{
		differs('the number of answers', describe($ops[$i])) if $i > $#lines;
		check_answer($ops[$i], [ null_or(split /\t/, $lines[$i]) ]);
	}
	differs('the number of answers', $lines[@ops]) if @lines > @ops;
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
my $prefix = '';     # of all names: 'A:' of those that have a twin
my $code_count = 0;

sub new_key
{
	return "${prefix}key " . ++$key_count;
}

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
	for (my $tries = 0; $tries < 20; $tries++)
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
	my ($model, $action, $hold) = @_;

	$hold //= pick(@known_holds) or return random_movement($model, 'hold');
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
	$request->{type} = 'fee' if $request->{to_account} =~ /fees$/ && !one_in(8);
	$request->{type} = 'expense'
	  if $request->{from_account} =~ /costs$/ && !one_in(8);
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
	# the key of a journal, say: not with these arguments
	return if $first->{request}{content};
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
		$request{idempotency_key} = new_key();
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
			$request->{idempotency_key} //= new_key();
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
	my $status = pick(qw(debits_frozen credits_frozen frozen));

	# the banks stay open, or all else would starve
	$status = 'active' if $code =~ /bank/ && !one_in(8) || !one_in(4);
	$status = 'closed' if $code !~ /bank/ && one_in(8);
	$status = 'asleep' if one_in(80);
	note_op(
		'scalar',
		$model->set_status($code, $status),
		call => "finance.set_account_status('$code', '$status', 'model')");
	replace_closed($model, $code);
}

sub do_close
{
	my ($model) = @_;
	my @closable = grep { !/bank/ } @codes;
	my @idle = grep {
			 $model->{accounts}{$_}{held} == 0
		  && $model->{accounts}{$_}{expected} == 0
	} @closable;
	my $code = pick(@idle && one_in(2) ? @idle : @closable);
	my $account = $model->{accounts}{$code};
	my $to = pick(@codes);

	# where most of them go
	$to = "bank$account->{currency}" if !one_in(4);
	$to = undef if one_in(6);
	$to = 'nobody' if one_in(60);
	note_op(
		'scalar',
		$model->close_account($code, $to),
		call => "finance.close_account('$code', "
		  . quoted($to)
		  . ", 'model')");
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

	$floor = FinanceModel::available($account) + between(-1, 1)
	  if $account && one_in(4);
	$ceiling =
	  FinanceModel::balance($account) + $account->{expected} + between(-1, 1)
	  if $account && one_in(4);
	my $currency = $account ? $account->{currency} : 'EUR';
	my %limits = (floor => $floor, ceiling => $ceiling);
	my $function = pick(qw(account_limits min_available max_balance));
	delete $limits{ceiling} if $function eq 'min_available';
	delete $limits{floor} if $function eq 'max_balance';
	note_op(
		'scalar',
		$model->set_limits($code, %limits),
		call => "finance.set_$function('$code', "
		  . join(', ',
			map { money($limits{$_}, $currency) // 'NULL' } reverse sort keys %limits)
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

# The clock moves on.  Who comes to a hold that is over before it is given back
# finds it over all the same; then it is given back, in one go or in two.
# (Short of room, a transfer would give back such holds itself: not modelled.)
sub do_clock
{
	my ($model, $seconds) = @_;

	set_clock($model, $model->{now} + $seconds);
	my @over = grep {
			 $_->{status} eq 'open'
		  && defined $_->{ends}
		  && $_->{ends} <= $model->{now}
		  && defined $_->{transfer}{id}
	} @{ $model->{holds} };
	foreach (1 .. @over > 6 ? 6 : @over)
	{
		my $request =
		  { random_of_hold($model, pick(qw(capture release)), pick(@over)) };

		note_op($request->{action}, $model->ask($request), request => $request);
	}
	foreach my $limit (one_in(2) ? 3 : (), 10_000)
	{
		note_op(
			'scalar',
			$model->expire($limit),
			call => "finance.expire_holds($limit)");
	}
}

sub weed_holds
{
	my ($model) = @_;
	my @holds = @{ $model->{holds} };
	my @open = grep { $_->{status} eq 'open' } @holds;
	my @ended = grep { $_->{status} ne 'open' }
	  @holds[ ($#holds > 40 ? $#holds - 40 : 0) .. $#holds ];

	@ended = @ended[ 0 .. 3 ] if @ended > 4;
	@open = (@open[ 0 .. 49 ], @open[ -50 .. -1 ]) if @open > 100;
	@known_holds = (@open, @ended);
}

# ------------------------------------------------------------------------
# requests that become several transfers
# ------------------------------------------------------------------------

my @recent_joints;    # how to ask, and the call: to do so again

# attempt: asks the model; its first answer is that of the call's first row
sub do_joint
{
	my ($attempt, $call) = @_;
	my @answers = $attempt->();

	note_op($_ == 0 ? 'row' : 'member', $answers[$_], call => $call)
	  foreach 0 .. $#answers;
	push @recent_joints, [ $attempt, $call ];
	shift @recent_joints if @recent_joints > 20;
}

# its key and its other arguments, as the call writes them
sub joint_request
{
	my ($action, @content) = @_;
	my %request = (action => $action);

	$request{reference} = 'ref ' . between(1, 3) if one_in(4);
	$request{idempotency_key} =
	  one_in(6) && @recent_keys ? pick(@recent_keys) : new_key()
	  if one_in(3);
	$request{strict} = 1 if one_in(4);
	$request{content} = [ @content, reference => $request{reference} ];
	return (
		\%request,
		', idempotency_key => '
		  . quoted($request{idempotency_key})
		  . ', reference => '
		  . quoted($request{reference})
		  . ', strict => '
		  . ($request{strict} ? 'true' : 'false'));
}

sub of_currency
{
	my ($model, $currency) = @_;
	my $accounts = $model->{accounts};

	return pick(
		grep { $accounts->{$_}{currency} eq $currency && (!/bank/ || one_in(20)) }
		  @codes) // "bank$currency";
}

sub do_journal
{
	my ($model) = @_;
	my $accounts = $model->{accounts};
	my (@legs, %side);

	foreach my $currency (one_in(3) ? qw(EUR JPY) : pick(qw(EUR EUR BHD)))
	{
		my %sums = (debit => 0, credit => 0);

		foreach my $side (qw(debit credit))
		{
			foreach (1 .. between(1, 4))
			{
				my $code = one_in(2)
				  && $side eq 'debit' ? "bank$currency" : of_currency($model, $currency);

				next if ($side{$code} // $side) ne $side && !one_in(20);
				$side{$code} = $side;
				push @legs, { code => $code, side => $side, units => between(1, 900) };
				$sums{$side} += $legs[-1]{units};
			}
		}
		# the last of the lesser side makes it even
		my $side = $sums{debit} < $sums{credit} ? 'debit' : 'credit';
		my ($last) = grep { $_->{side} eq $side } reverse @legs;

		$last->{units} += abs($sums{debit} - $sums{credit}) if $last && !one_in(12);
	}
	return unless @legs > 1;
	$legs[ int(rand(@legs)) ]{code} = 'nobody' if one_in(40);
	foreach my $leg (grep { one_in(12) } @legs)
	{
		$leg->{version} = random_version($accounts->{ $leg->{code} });
		$_->{version} = $leg->{version}
		  foreach grep { $_->{code} eq $leg->{code} && defined $_->{version} } @legs;
	}
	my $list = join(
		', ',
		map {
			my $currency = ($accounts->{ $_->{code} } // { currency => 'EUR' })->{currency};
			"finance.leg('$_->{code}', '$_->{side}', "
			  . money($_->{units}, $currency) . ', '
			  . ($_->{version} // 'NULL') . ')'
		} @legs);
	my ($request, $rest) = joint_request('journal', legs => $list);
	$request->{type} = 'journal';
	do_joint(sub { return $model->journal($request, @legs) },
		"finance.journal(ARRAY[$list]$rest)");
}

sub do_distribute
{
	my ($model) = @_;
	my $from = one_in(2) ? 'bankEUR' : pick(@codes);
	my $currency = $model->{accounts}{$from}{currency};
	my %to = map { of_currency($model, $currency) => 1 } 1 .. between(1, 6);
	my $units = between(1, one_in(2) ? 10 : 5000);

	delete $to{$from};
	my @to = sort keys %to or return;
	# one thing wrong at a time
	push @to, pick('nobody', $from, $to[0],
		grep { $model->{accounts}{$_}{currency} ne $currency } @codes)
	  if one_in(12);
	my @weights = map { between(0, 9) } @to;
	$weights[0] = 1;
	my $codes = join(', ', map { quoted($_) } @to);
	my $weights = join(', ', @weights);
	my ($request, $rest) = joint_request(
		'distribute',
		from_account => $from,
		to_accounts => $codes,
		weights => $weights,
		amount => $units);
	$request->{type} = 'transfer';
	do_joint(
		sub { return $model->distribute($request, $from, $units, \@to, \@weights) },
		"finance.distribute('$from', ARRAY[$codes], ARRAY[$weights]::numeric[], "
		  . money($units, $currency)
		  . $rest . ')');
}

sub do_exchange
{
	my ($model) = @_;
	my ($sold, $bought) = pick([qw(EUR BHD)], [qw(EUR JPY)], [qw(BHD EUR)], [qw(JPY EUR)])->@*;
	my @parties = (
		of_currency($model, $sold), of_currency($model, $bought),
		"bank$sold", "bank$bought");
	my $units = between(1, 10**between(1, 5));
	my $rate = one_in(2) ? between(1, 30_000) : pick(500, 2_500, 5_000, 15_000);
	my $rounding = pick(qw(half_even half_even half_up down up));

	$parties[ int(rand(4)) ] = pick(@codes) if one_in(20);
	$parties[4] = one_in(20) ? pick(@codes) : of_currency($model, $bought)
	  if one_in(2);
	my ($request, $rest) = joint_request(
		'exchange',
		from_account => $parties[0],
		to_account => $parties[1],
		amount => $units,
		rate => $rate,
		liquidity_from => $parties[2],
		liquidity_to => $parties[3],
		rounding => $rounding,
		rounding_account => $parties[4]);
	$request->{type} = 'exchange';
	do_joint(
		sub { return $model->exchange($request, $units, $rate, $rounding, @parties) },
		"finance.exchange('$parties[0]', '$parties[1]', "
		  . money($units, $model->{accounts}{ $parties[0] }{currency}) . ', '
		  . FinanceModel::money($rate, 4)
		  . ", '$parties[2]', '$parties[3]', '$rounding', "
		  . quoted($parties[4])
		  . $rest . ')');
}

sub do_reverse
{
	my ($model) = @_;
	my $original = one_in(30) ? 5 : pick(@known_transfers) or return;
	my $id = ref $original ? $original->{id} : $original;
	my ($amount, $reason);

	$amount = amount_text(between(1, $original->{amount}), $original->{currency})
	  if ref $original && one_in(2);
	my ($request, $rest) =
	  joint_request('reverse', transfer_id => $id, amount => $amount);
	delete $request->{strict};
	$reason = delete $request->{reference};
	$request->{content}[-2] = 'reason';
	$rest =~ s/, strict.*//;
	$rest =~ s/reference/reason/;
	do_joint(
		sub {
			return $model->reverse_transfer($request, $original, $amount, $reason);
		},
		"finance.reverse_transfer($id, " . ($amount // 'NULL') . $rest . ')');
}

sub do_reverse_journal
{
	my ($model) = @_;
	my ($transfer) = grep { $_->{members} } reverse @known_transfers;
	my $head = one_in(20) ? 5 : $transfer or return;
	my $id = ref $head ? $head->{id} : $head;
	my ($request, $rest) = joint_request('reverse_journal', journal_id => $id);
	my $reason = delete $request->{reference};

	delete $request->{strict};
	$request->{content}[-2] = 'reason';
	$rest =~ s/, strict.*//;
	$rest =~ s/reference/reason/;
	do_joint(sub { return $model->reverse_journal($request, $head, $reason) },
		"finance.reverse_journal($id$rest)");
}

sub do_group
{
	my ($model) = @_;
	my $group = 'group ' . between(1, one_in(30) ? 6 : 5);
	my $action = pick(qw(capture capture release));

	do_joint(sub { return $model->settle_group($action, $group, 'all') },
		"finance.${action}_group('$group', 'all')");
}

sub random_joint
{
	my ($model) = @_;
	my $dice = rand(100);

	if (@recent_joints && $dice < 15) { do_joint(@{ pick(@recent_joints) }); }
	elsif ($dice < 40) { do_journal($model); }
	elsif ($dice < 55) { do_distribute($model); }
	elsif ($dice < 70) { do_exchange($model); }
	elsif ($dice < 85) { do_reverse($model); }
	elsif ($dice < 93) { do_reverse_journal($model); }
	else { do_group($model); }
}

sub random_op
{
	my ($model) = @_;
	my $dice = rand(100);

	if ($dice < 1) { do_clock($model, pick(30, 600, 7200, 20_000)); }
	elsif ($dice < 1.1) { do_clock($model, -3600); }
	elsif ($dice < 1.6) { do_close($model); }
	elsif ($dice < 5) { do_status($model); }
	elsif ($dice < 7) { do_limits($model); }
	elsif ($dice < 12) { do_batch($model); }
	elsif ($dice < 24) { random_joint($model); }
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

	@codes = @known_holds = @recent_keys = ();
	$last_id = $last_seen_transfer = 0;
	foreach (@plan)
	{
		my ($code, @more) = @$_;

		open_account($model, "$prefix$code", @more);
	}
	# what risk says no to
	foreach (
		[ 'saver', 'daily_limit', 100_000 ],
		[ 'child', 'transfer_limit', 2_500 ])
	{
		my ($code, $kind, $threshold) = @$_;

		add_rule($model, "$prefix$code", $kind, $threshold);
	}
	set_clock($model, $model->{now});
	return $model;
}

sub add_rule
{
	my ($model, $code, $kind, $threshold) = @_;
	my $limit = money($threshold, 'EUR');

	$model->{rules}{$code} =
	  { kind => $kind, threshold => $threshold, name => "of $code" };
	note_op(
		'scalar',
		{ scalar => '' },
		call => "finance.add_rule('of $code', '$kind', $limit, account => '$code')");
}

# ------------------------------------------------------------------------
# all of it
# ------------------------------------------------------------------------

connect_to('model');
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
is_sound($node, 'after all of it', 'model');
is(join("\n", talk('SELECT key, transfer_id FROM finance.idempotency_key ORDER BY key COLLATE "C";' . "\n")),
	join("\n", map { "$_|$model->{keys}{$_}{transfer}{id}" } sort keys %{ $model->{keys} }),
	'each key stands for the transfer the model has for it');
is_query(
	$node,
	'SELECT count(*) FROM finance.hold WHERE status = \'open\' AND remaining <= 0',
	0, 'no open hold is used up', 'model');

# each that there is came often enough to mean something
cmp_ok($seen{$_} // 0, '>=', $steps / 10_000, "many of: $_")
  foreach qw(completed held released expired rejected replayed
  22003 22004 22008 22023 55000 LG001 LG002 LG003 LG004 LG005 LG006 LG007 LG008
  LG012 LG013 LG014 LG015 LG016 LG017 LG101);

# ------------------------------------------------------------------------
# a batch is as its requests one at a time
# ------------------------------------------------------------------------

sub twin_ops
{
	my ($model) = @_;
	my @requests = map {
		my $request = { %{ random_request($model, 0) } };

		delete @{$request}{qw(linked strict)};
		$request;
	} 1 .. between(1, 60);
	my @answers = $model->ask_batch(\@requests, 0);
	my @batch;

	$batch_count++;
	foreach my $i (0 .. $#requests)
	{
		note_op(
			$i == 0 ? 'batch' : 'member', $answers[$i],
			batch => $batch_count,
			request => $requests[$i]);
		push @batch, $ops[-1];
	}
	note_op($_->{request}{action}, undef, request => $_->{request}, twin_of => $_)
	  foreach @batch;
}

connect_to('twins');
$prefix = 'A:';
$model = new_book();
# the twins: all that was said of A: is said of B: too
note_op($_->{kind}, $_->{answer}, call => $_->{call} =~ s/A:/B:/gr)
  foreach grep { $_->{call} =~ /A:/ } @ops[ 0 .. $#ops ];
send_round($model);
$done = 0;
while ($done < $steps / 10)
{
	weed_holds($model);
	twin_ops($model) while @ops < $round_steps;
	$done += @ops;
	send_round($model);
	set_clock($model, $model->{now} + 7200);
	my $expired = $model->expire(10_000)->{scalar};
	note_op(
		'scalar',
		{ scalar => 2 * $expired },
		call => 'finance.expire_holds(10000)');
	send_round($model);
}
pass("$done operations, in batches and one at a time, are the same, seed $seed");
is_query(
	$node, q(
	SELECT substr(a.code, 3), a.version, b.version
	FROM finance._account a FULL JOIN finance._account b ON 'B:' || substr(a.code, 3) = b.code
	WHERE a.code LIKE 'A:%' AND
		(a.status, a.version, a.debits_posted, a.credits_posted, a.debits_pending, a.credits_pending, a.spent, a.spent_on)
		IS DISTINCT FROM
		(b.status, b.version, b.debits_posted, b.credits_posted, b.debits_pending, b.credits_pending, b.spent, b.spent_on)
), '', 'and so are the accounts afterwards', 'twins');
is_sound($node, 'twins', 'twins');

# ------------------------------------------------------------------------
# what is refused leaves nothing
# ------------------------------------------------------------------------

connect_to('refused');
$node->safe_psql(
	'refused', q(
SELECT finance.create_account('bank', 'EUR', min_available => NULL),
	finance.create_account('poor', 'EUR'),
	finance.create_account('full', 'EUR', max_balance => 10),
	finance.create_account('cold', 'EUR'),
	finance.create_account('yen', 'JPY'),
	finance.create_account('owing', 'EUR', min_available => -50);
SELECT finance.add_rule('much', 'transfer_limit', 1000);
SELECT finance.transfer('bank', 'poor', 5), finance.transfer('bank', 'full', 8),
	finance.transfer('bank', 'cold', 3), finance.transfer('bank', 'poor', 1, idempotency_key => 'known');
SELECT finance.set_account_status('cold', 'frozen');
SELECT hold_id AS open FROM finance.hold('poor', 'bank', 2, idempotency_key => 'held');
SELECT hold_id FROM finance.hold('bank', 'poor', 1, hold_group => 'gone');
SELECT finance.release(hold_id) FROM finance.hold WHERE hold_group = 'gone';
CREATE FUNCTION model.refused(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT ' || call;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION model.fails(requests finance.transfer_request[], atomic boolean DEFAULT false)
	RETURNS text LANGUAGE sql
	AS 'SELECT string_agg(coalesce(error, status), $s$ $s$ ORDER BY position) FROM finance.transfer_batch($1, $2)';
));
my $open = '(SELECT hold_id FROM finance.hold WHERE status = $s$open$s$)';
my $released = '(SELECT hold_id FROM finance.hold WHERE status = $s$released$s$)';
foreach (
	[ LG001 => "finance.transfer('poor', 'bank', 5)" ],
	[ LG001 => "finance.hold('poor', 'bank', 5)" ],
	[ LG002 => "finance.transfer('poor', 'nobody', 1)" ],
	[ LG003 => "finance.transfer('poor', 'yen', 1)" ],
	[ LG003 => "finance.transfer('poor', 'bank', 1, 'JPY')" ],
	[ LG004 => "finance.transfer('bank', 'cold', 1)" ],
	[ LG004 => "finance.hold('cold', 'bank', 1)" ],
	[ LG005 => "finance.transfer('poor', 'bank', 1, expected_from_version => 99)" ],
	[ LG006 => "finance.transfer('bank', 'full', 3)" ],
	[ LG006 => "finance.hold('bank', 'full', 3)" ],
	[ LG007 => "finance.transfer('bank', 'poor', 2, idempotency_key => 'known')" ],
	[ LG007 => "finance.hold('poor', 'bank', 2, hold_group => 'x', idempotency_key => 'held')" ],
	[ LG008 => "finance.transfer('poor', 'poor', 1)" ],
	[ LG012 => 'finance.capture(1)' ],
	[ LG013 => "finance.capture($released)" ],
	[ LG013 => "finance.release($released)" ],
	[ LG016 => "finance.capture($open, 3)" ],
	[ LG016 => "finance.release($open, 2.01)" ],
	[ LG017 => "finance.transfer('bank', 'poor', 1, type => 'bribe')" ],
	[ LG101 => "finance.transfer('bank', 'poor', 2000, strict => true)" ],
	[ '22003' => "finance.transfer('bank', 'poor', 'NaN')" ],
	[ '22003' => "finance.transfer('bank', 'poor', 0.001)" ],
	[ '22003' => "finance.transfer('bank', 'poor', 1e36)" ],
	[ '22004' => "finance.transfer('bank', 'poor', NULL)" ],
	[ '22008' => "finance.transfer('bank', 'poor', 1, effective_at => 'infinity')" ],
	[ '22023' => "finance.transfer('bank', 'poor', 0)" ],
	[ '22023' => "finance.hold('bank', 'poor', 1, expires_in => '-1 day')" ],
	[ LG006 => "finance.set_account_limits('poor', 5, NULL)" ],
	[ LG006 => "finance.set_max_balance('full', 7)" ],
	[ '55000' => "finance.set_account_status('full', 'closed')" ],
	[ '55000' => "finance.close_account('poor', 'bank')" ],
	[ LG003 => "finance.close_account('full', 'yen')" ],
	[ LG009 => "finance.create_account('new', 'XXQ')" ],
	[ '42710' => "finance.create_account('poor', 'EUR')" ],
	# an answer given again changes nothing either
	[ done => "finance.transfer('bank', 'poor', 1, idempotency_key => 'known')" ],
	[ done => "finance.hold('poor', 'bank', 2, idempotency_key => 'held')" ],
	[ done => "finance.set_account_status('cold', 'frozen')" ],
	[ done => 'finance.expire_holds()' ])
{
	my ($sqlstate, $call) = @$_;
	my ($before, $state, $after) = map { $node->safe_psql('refused', $_) } (
		'SELECT model.fingerprint()',
		'SELECT model.refused($call$' . $call . '$call$)',
		'SELECT model.fingerprint()');

	is($state, $sqlstate, "$sqlstate of $call");
	is($after, $before, '... leaves every row as it lies');
}
foreach (
	[ 'LG001 LG002 LG008' => "ARRAY[finance.request('poor', 'bank', 50), finance.request('poor', 'nobody', 1), finance.request('bank', 'bank', 1)]" ],
	[ 'LG014 LG014 LG001 LG014' => "ARRAY[finance.request('bank', 'poor', 7, idempotency_key => 'a', linked => true), finance.request('bank', 'poor', 7, idempotency_key => 'a', linked => true), finance.request('poor', 'bank', 50, linked => true), finance.request('bank', 'full', 1)]" ],
	[ 'LG014 LG014 LG006' => "ARRAY[finance.request('bank', 'poor', 7, action => 'hold'), finance.request(action => 'capture', hold_id => (SELECT hold_id FROM finance.hold WHERE status = 'open')), finance.request('bank', 'full', 5)], true" ],
	[ 'LG014 LG015' => "ARRAY[finance.request('bank', 'poor', 7, idempotency_key => 'b', linked => true), finance.request('bank', 'poor', 1, idempotency_key => 'c', linked => true)]" ],
	[ 'completed LG014 LG001' => "ARRAY[finance.request('bank', 'poor', 1, idempotency_key => 'known', linked => true), finance.request('bank', 'poor', 1, linked => true), finance.request('poor', 'bank', 50)]" ])
{
	my ($errors, $requests) = @$_;
	my ($before, $states, $after) = map { $node->safe_psql('refused', $_) } (
		'SELECT model.fingerprint()',
		"SELECT model.fails($requests)",
		'SELECT model.fingerprint()');

	is($states, $errors, "a batch of $errors");
	is($after, $before, '... leaves every row as it lies');
}
my $before = $node->safe_psql('refused', 'SELECT model.fingerprint()');
$node->safe_psql('refused', "SELECT finance.transfer('bank', 'poor', 1)");
isnt($node->safe_psql('refused', 'SELECT model.fingerprint()'),
	$before, 'and a transfer that is made would have shown');
is_sound($node, 'refused', 'refused');

close $to_psql;
$node->stop;
done_testing();
