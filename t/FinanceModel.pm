# FinanceModel.pm: what a book should do, in a few hundred lines of Perl.
#
# Written from the documentation, not from src/: amounts are whole numbers of
# the smallest unit, a request is a hash of its arguments, and an answer is a
# hash of the columns of finance.transfer_result, or of an error.  Ids cannot be
# foretold, so transfers and holds are references, and get their ids when the
# server has answered.
package FinanceModel;

use strict;
use warnings;

our %decimals = (EUR => 2, JPY => 0, BHD => 3);

# types of transfers: which types of accounts they go from and to; undef: any
our %transfer_types = (
	(map { $_ => [ undef, undef ] } qw(transfer deposit adjustment closing
		  journal exchange reversal)),
	fee => [ undef, 'income' ],
	expense => [ 'expense', undef ]);

sub new
{
	my ($class, %more) = @_;

	return bless {
		accounts => {},    # by code
		holds => [],       # in the order they were made
		keys => {},        # by key: the request and its transfer
		transfers => [],   # made since they were last taken
		now => 0,          # seconds since 1970
		undo => undef,     # of the open chain: what to call, last first
		rules => {},       # by code of the payer: kind, name, threshold
		residues => {},    # by code of the rounding account
		%more
	}, $class;
}

sub day
{
	my ($self) = @_;
	return int($self->{now} / 86400);
}

sub open_account
{
	my ($self, $code, $currency, $floor, $ceiling, $type) = @_;

	return $self->{accounts}{$code} = {
		code => $code,
		type => $type // 'liability',
		currency => $currency,
		status => 'active',
		version => 0,
		in => 0,
		out => 0,
		held => 0,        # debits pending
		expected => 0,    # credits pending
		floor => $floor,
		ceiling => $ceiling,
		spent => 0,
		spent_day => undef,
	};
}

# ------------------------------------------------------------------------
# amounts
# ------------------------------------------------------------------------

# 12345, 2 -> 123.45
sub money
{
	my ($units, $decimals) = @_;
	my $sign = $units < 0 ? '-' : '';
	my $digits = sprintf('%0*d', $decimals + 1, abs $units);

	return $sign . $digits unless $decimals;
	return $sign . substr($digits, 0, -$decimals) . '.' . substr($digits, -$decimals);
}

# the units of a decimal text, or undef and what is wrong with it
sub units
{
	my ($text, $decimals) = @_;
	my ($sign, $whole, $part) = $text =~ /^(-?)(\d+)(?:\.(\d*))?$/
	  or return (undef, '22003');    # NaN and the infinities

	$part //= '';
	$part =~ s/0+$//;
	$whole =~ s/^0+//;
	return (undef, '22003') if length($part) > $decimals;
	return (undef, '22003') if length($whole) + $decimals > 38;
	my $units = "$whole$part" . '0' x ($decimals - length $part);
	return (undef, '22023') if $sign || $units =~ /^0*$/;
	return $units + 0;
}

sub balance { $_[0]{in} - $_[0]{out} }
sub available { $_[0]{in} - $_[0]{out} - $_[0]{held} }

sub is_empty
{
	my ($account) = @_;
	return
	  balance($account) == 0 && $account->{held} == 0 && $account->{expected} == 0;
}

sub is_within_limits
{
	my ($account, $floor, $ceiling) = @_;

	return 0 if defined $floor && available($account) < $floor;
	return 0
	  if defined $ceiling && balance($account) + $account->{expected} > $ceiling;
	return 1;
}

sub spent_on
{
	my ($account, $day) = @_;
	my $last = $account->{spent_day};

	return defined $last && $last >= $day ? $account->{spent} : 0;
}

sub remaining { $_[0]{amount} - $_[0]{captured} - $_[0]{released} }

# ------------------------------------------------------------------------
# changes, which an open chain can take back
# ------------------------------------------------------------------------

sub undoable
{
	my ($self, $undo) = @_;
	push @{ $self->{undo} }, $undo if $self->{undo};
}

sub change
{
	my ($self, $thing, %changes) = @_;
	my %before = map { $_ => $thing->{$_} } keys %changes;

	$self->undoable(
		sub {
			$thing->{$_} = $before{$_} foreach keys %before;
			delete $thing->{line};
		});
	$thing->{$_} = $changes{$_} foreach keys %changes;
	delete $thing->{line};    # as the tests print it
}

sub add_transfer
{
	my ($self, $transfer) = @_;

	push @{ $self->{transfers} }, $transfer;
	$self->undoable(sub { pop @{ $self->{transfers} } });
}

sub add_key
{
	my ($self, $request, $transfer) = @_;
	my $key = $request->{idempotency_key};

	return unless defined $key;
	$self->{keys}{$key} = { request => $request, transfer => $transfer };
	$self->undoable(sub { delete $self->{keys}{$key} });
}

# ------------------------------------------------------------------------
# one request
# ------------------------------------------------------------------------

sub failure
{
	my ($error, $detail) = @_;
	return { error => $error, detail => $detail };
}

# arguments that no book has to be asked about; the tests put in one at a time
sub argument_fault
{
	my ($request) = @_;
	my $action = $request->{action};
	my $of_hold = $action =~ /^(capture|release)$/;
	my $mode = $request->{amount_mode} // 'exact';

	return '22023' unless $action =~ /^(transfer|hold|capture|release)$/;
	if ($of_hold)
	{
		return '22004' unless exists $request->{hold};
		return '22023' if $mode eq 'up_to';
		return '22023' if $action eq 'release' && $request->{final};
		foreach my $field (qw(from_account to_account type expires_in hold_group))
		{
			return '22023' if defined $request->{$field};
		}
	}
	else
	{
		foreach my $side (qw(from_account to_account))
		{
			return '22004' unless defined $request->{$side};
			return '22023' if $request->{$side} eq '';
		}
		return '22023' if exists $request->{hold};
		return '22023' if $mode !~ /^(exact|up_to)$/;
		return '22004'
		  if !defined $request->{amount} && $mode ne 'up_to' && !$request->{reverses};
	}
	if (defined $request->{expires_in})
	{
		return '22023' unless $action eq 'hold' && $request->{expires_in} > 0;
	}
	return '22023' if defined $request->{hold_group} && $action ne 'hold';
	foreach my $version (qw(expected_from_version expected_to_version))
	{
		return '22023' if defined $request->{$version} && $request->{$version} < 0;
	}
	foreach my $text (qw(idempotency_key currency reference type))
	{
		return '22023' if defined $request->{$text} && $request->{$text} eq '';
	}
	return '22008' if ($request->{effective_at} // '') eq 'infinity';
	return undef;
}

sub is_other
{
	my ($left, $right) = @_;

	return defined $left != defined $right
	  || (defined $left && $left ne $right);
}

# as it is told in a request: trailing zeros do not matter
sub plain_number
{
	my ($text) = @_;

	return 'all' unless defined $text;
	$text =~ s/(\.\d*?)0+$/$1/;
	$text =~ s/\.$//;
	return $text;
}

# the first field in which a request differs from that of its key, or undef
sub first_difference
{
	my ($self, $request, $first) = @_;
	my $old = $first->{request};
	my $transfer = $first->{transfer};
	my $of_hold = $request->{action} =~ /^(capture|release)$/;
	my $open_amount = $of_hold || ($request->{amount_mode} // '') eq 'up_to';

	return 'action' if $request->{action} ne $old->{action};
	return 'hold_id'
	  if $of_hold && ($request->{hold} // 0) != ($old->{hold} // 0);
	return 'amount_mode'
	  if ($request->{amount_mode} // 'exact') ne ($old->{amount_mode} // 'exact');
	return 'amount'
	  if $open_amount
	  && plain_number($request->{amount}) ne plain_number($old->{amount});
	return 'final' if !$request->{final} != !$old->{final};
	foreach my $field (qw(expires_in hold_group))
	{
		return $field if is_other($request->{$field}, $old->{$field});
	}
	if (!$of_hold)
	{
		return 'from_account' if $request->{from_account} ne $transfer->{from};
		return 'to_account' if $request->{to_account} ne $transfer->{to};
	}
	if (!$open_amount)
	{
		my ($units) = units($request->{amount}, $decimals{ $transfer->{currency} });
		return 'amount' if is_other($units, $transfer->{amount});
	}
	return 'currency'
	  if ($request->{currency} // $transfer->{currency}) ne $transfer->{currency};
	return 'type'
	  if !$of_hold && ($request->{type} // 'transfer') ne $transfer->{type};
	foreach my $field (
		qw(expected_from_version expected_to_version effective_at reference metadata))
	{
		return $field if is_other($request->{$field}, $old->{$field});
	}
	return undef;
}

# the first answer of the request's key again, or undef
sub replay
{
	my ($self, $request) = @_;
	my $first = $self->{keys}{ $request->{idempotency_key} // return undef }
	  or return undef;
	my $field = $self->first_difference($request, $first);
	my $transfer = $first->{transfer};

	return failure('LG007',
		[ 'It stands for transfer ', $transfer, ", whose $field differs." ])
	  if defined $field;
	return failure('LG101') if $transfer->{status} eq 'rejected' && $request->{strict};
	return { transfer => $transfer, replayed => 1 };
}

sub may_debit { $_[0]{status} =~ /^(active|credits_frozen)$/ }
sub may_credit { $_[0]{status} =~ /^(active|debits_frozen)$/ }

sub type_allows
{
	my ($type, $from, $to) = @_;
	my $allowed = $transfer_types{ $type // 'transfer' } or return 0;
	my ($from_type, $to_type) = @$allowed;

	return ($from_type // $from->{type}) eq $from->{type}
	  && ($to_type // $to->{type}) eq $to->{type};
}

sub is_being_closed
{
	my ($closing, $account) = @_;
	return $closing && $closing == $account && $account->{status} ne 'closed';
}

# what a rule says of it: its name, or undef
sub rejecting_rule
{
	my ($self, $from, $amount) = @_;
	my $rule = $self->{rules}{ $from->{code} } or return undef;
	my $counted = $amount;

	$counted += spent_on($from, $self->day) if $rule->{kind} eq 'daily_limit';
	return $counted > $rule->{threshold} ? $rule->{name} : undef;
}

# what is to move, of what is asked: [amount, given back], or an error
sub settle_of_hold
{
	my ($self, $request, $hold, $amount) = @_;
	my $over = defined $hold->{ends} && $hold->{ends} <= $self->{now};
	my $back = 0;

	return 'LG013' if $hold->{status} ne 'open';
	return 'LG013' if $request->{action} eq 'capture' && $over;
	$amount = remaining($hold) unless defined $request->{amount};
	return 'LG016' if $amount > remaining($hold);
	$back = remaining($hold) - $amount if $request->{final};
	return [ $amount, $back ];
}

# how much of the transfer to give back
sub settle_of_reversal
{
	my ($original, $amount) = @_;
	my $left = $original->{amount} - ($original->{reversed} // 0);

	return (undef, '55000')
	  if $original->{reverses} || $original->{status} ne 'completed';
	$amount //= $left;
	return (undef, 'LG016') if $left == 0 || $amount > $left;
	return $amount;
}

sub least
{
	my ($least, @others) = @_;

	foreach (@others)
	{
		$least = $_ if defined && (!defined $least || $_ < $least);
	}
	return $least;
}

sub settle_of_funds
{
	my ($request, $from, $to, $amount) = @_;
	my $debit = defined $from->{floor} ? available($from) - $from->{floor} : undef;
	my $credit =
	  defined $to->{ceiling}
	  ? $to->{ceiling} - balance($to) - $to->{expected}
	  : undef;

	if (($request->{amount_mode} // '') eq 'up_to')
	{
		# nothing forbids it to go below zero, but nothing is there either
		$amount = $debit // available($from) unless defined $request->{amount};
		$amount = least($amount, $debit);
		return 'LG001' if $amount <= 0;
		$amount = least($amount, $credit);
		return 'LG006' if $amount <= 0;
	}
	return 'LG001' if defined $debit && $amount > $debit;
	return 'LG006' if defined $credit && $amount > $credit;
	return [ $amount, 0 ];
}

# accounts and amount, found and allowed: from, to, hold, amount, given back; or an error
sub judge
{
	my ($self, $request) = @_;
	my $action = $request->{action};
	my $of_hold = $action =~ /^(capture|release)$/;
	my $hold = $request->{hold};
	my ($from, $to, $amount, $error, $settled);

	return 'LG012' if $of_hold && !ref $hold;
	($from, $to) =
	  map { $self->{accounts}{$_} }
	  $of_hold
	  ? @{$hold}{qw(from to)}
	  : @{$request}{qw(from_account to_account)};
	return 'LG008' if !$of_hold && $request->{from_account} eq $request->{to_account};
	return 'LG002' unless $from && $to;
	if (defined $request->{amount})
	{
		($amount, $error) = units($request->{amount}, $decimals{ $from->{currency} });
		return $error if $error;
	}
	return 'LG017' if !$of_hold && !type_allows($request->{type}, $from, $to);
	if ($request->{reverses})
	{
		($amount, $error) = settle_of_reversal($request->{reverses}, $amount);
		return $error if $error;
	}
	return 'LG003' if $from->{currency} ne $to->{currency};
	return 'LG003'
	  if ($request->{currency} // $from->{currency}) ne $from->{currency};
	if ($of_hold)
	{
		$settled = $self->settle_of_hold($request, $hold, $amount);
		return $settled unless ref $settled;
	}
	if ($action ne 'release')
	{
		my $closing = $request->{closing};

		return 'LG004'
		  unless may_debit($from) || is_being_closed($closing, $from);
		return 'LG004'
		  unless may_credit($to) || is_being_closed($closing, $to);
	}
	return 'LG005'
	  if ($request->{expected_from_version} // $from->{version}) != $from->{version}
	  || ($request->{expected_to_version} // $to->{version}) != $to->{version};
	if (!$of_hold)
	{
		$settled = settle_of_funds($request, $from, $to, $amount);
		return $settled unless ref $settled;
	}
	return { from => $from, to => $to, hold => $hold,
		amount => $settled->[0], back => $settled->[1] };
}

sub spend
{
	my ($self, $account, $amount) = @_;
	my $day = $self->day;
	my $spent = spent_on($account, $day) + $amount;

	$day = $account->{spent_day}
	  if defined $account->{spent_day} && $account->{spent_day} > $day;
	$self->change($account, spent => $spent, spent_day => $day);
}

sub take_from_hold
{
	my ($self, $hold, $from, $to, $captured, $released, $expired) = @_;

	$self->change(
		$hold,
		captured => $hold->{captured} + $captured,
		released => $hold->{released} + $released);
	$self->change($from, held => $from->{held} - $captured - $released);
	$self->change($to, expected => $to->{expected} - $captured - $released);
	$self->change($from, spent => $from->{spent} - $released)
	  if ($from->{spent_day} // -1) == $hold->{day};
	$self->change($hold,
		status => $expired ? 'expired'
		: $hold->{captured} > 0 ? 'captured'
		: 'released')
	  if remaining($hold) == 0;
}

sub new_transfer
{
	my ($self, $request, $m, $status) = @_;

	return {
		from => $m->{from}{code},
		to => $m->{to}{code},
		currency => $m->{from}{currency},
		amount => $m->{amount},
		released => $m->{back},
		status => $status,
		type => $request->{type}
		  // ($m->{hold} ? $m->{hold}{type} : 'transfer'),
		(map { $_ => $request->{$_} } qw(effective_at reference metadata)),
		reverses => $request->{reverses},
	};
}

sub note_sides
{
	my ($transfer, $m) = @_;

	foreach my $side (qw(from to))
	{
		my $account = $m->{$side};

		$transfer->{"${side}_version"} =
		  $transfer->{status} eq 'rejected' ? undef : $account->{version};
		$transfer->{"${side}_balance"} = balance($account);
		$transfer->{"${side}_held"} = $account->{held};
	}
}

sub make_hold
{
	my ($self, $request, $m, $transfer) = @_;
	my $hold = {
		transfer => $transfer,
		from => $m->{from}{code},
		to => $m->{to}{code},
		amount => $m->{amount},
		captured => 0,
		released => 0,
		status => 'open',
		day => $self->day,
		type => $transfer->{type},
		hold_group => $request->{hold_group},
		ends => defined $request->{expires_in}
		? $self->{now} + $request->{expires_in}
		: undef,
	};

	push @{ $self->{holds} }, $hold;
	$self->undoable(sub { pop @{ $self->{holds} } });
	return $hold;
}

sub carry_out
{
	my ($self, $request, $m) = @_;
	my ($from, $to, $hold) = @{$m}{qw(from to hold)};
	my $action = $request->{action};
	my $over = $hold && defined $hold->{ends} && $hold->{ends} <= $self->{now};
	my %status = (transfer => 'completed', capture => 'completed', hold => 'held',
		release => $over ? 'expired' : 'released');
	my $transfer = $self->new_transfer($request, $m, $status{$action});

	if ($action eq 'transfer' || $action eq 'hold')
	{
		$self->spend($from, $m->{amount});
	}
	elsif ($action eq 'capture')
	{
		$self->take_from_hold($hold, $from, $to, $m->{amount}, $m->{back}, 0);
	}
	else
	{
		$self->take_from_hold($hold, $from, $to, 0, $m->{amount}, $over);
	}
	if ($action eq 'hold')
	{
		$hold = $self->make_hold($request, $m, $transfer);
		$self->change($from, held => $from->{held} + $m->{amount});
		$self->change($to, expected => $to->{expected} + $m->{amount});
	}
	elsif ($action ne 'release')
	{
		$self->change($from, out => $from->{out} + $m->{amount});
		$self->change($to, in => $to->{in} + $m->{amount});
	}
	$self->change($_, version => $_->{version} + 1, last => $transfer)
	  foreach $from, $to;
	note_sides($transfer, $m);
	$self->change($request->{reverses},
		reversed => ($request->{reverses}{reversed} // 0) + $m->{amount})
	  if $request->{reverses};
	$transfer->{hold} = $hold;
	$transfer->{remaining} = remaining($hold) if $hold;
	$self->add_transfer($transfer);
	$self->add_key($request, $transfer);
	return { transfer => $transfer };
}

# the row that stays as evidence
sub reject
{
	my ($self, $request, $m, $rule) = @_;
	my $transfer = $self->new_transfer($request, $m, 'rejected');

	note_sides($transfer, $m);
	$transfer->{rule} = $rule;
	$self->add_transfer($transfer);
	$self->add_key($request, $transfer);
	return { transfer => $transfer };
}

# what becomes of the request
sub ask
{
	my ($self, $request) = @_;
	my $fault = argument_fault($request);
	my ($answer, $judged, $rule);

	return failure($fault) if defined $fault;
	$answer = $self->replay($request);
	return $answer if defined $answer;
	$judged = $self->judge($request);
	return failure($judged) unless ref $judged;
	$rule = $self->rejecting_rule($judged->{from}, $judged->{amount})
	  if $request->{action} =~ /^(transfer|hold)$/;
	return $self->carry_out($request, $judged) unless defined $rule;
	return failure('LG101') if $request->{strict};
	# of a chain that fails by it, only this is left
	$self->take_back;
	return $self->reject($request, $judged, $rule);
}

# ------------------------------------------------------------------------
# many requests
# ------------------------------------------------------------------------

sub take_back
{
	my ($self) = @_;
	my $undo = $self->{undo} or return;

	$self->{undo} = undef;
	$_->() foreach reverse @$undo;
}

sub came_off
{
	my ($answer) = @_;
	return !defined $answer->{error} && $answer->{transfer}{status} ne 'rejected';
}

# requests that stand or fall together, the first of which is number $number;
# 'open': the last of them is linked to nothing
sub ask_chain
{
	my ($self, $requests, $number, $open) = @_;
	my @answers;
	my $culprit;

	$self->{undo} = [];
	for (my $i = 0; $i < @$requests && !defined $culprit; $i++)
	{
		$answers[$i] =
		  $open && $i == $#$requests
		  ? failure('LG015')
		  : $self->ask($requests->[$i]);
		$culprit = $i unless came_off($answers[$i]);
	}
	$self->take_back if defined $culprit;
	$self->{undo} = undef;
	return @answers unless defined $culprit;
	for (my $i = 0; $i < @$requests; $i++)
	{
		next if $i == $culprit;
		# what an earlier request did stays done, and is told
		$answers[$i] =
		    $open && $i == $#$requests ? failure('LG015')
		  : argument_fault($requests->[$i]) ? undef
		  : $self->replay($requests->[$i]);
		$answers[$i] //=
		  failure('LG014', [ 'It is request ' . ($number + $culprit) . '.' ]);
	}
	return @answers;
}

sub ask_batch
{
	my ($self, $requests, $atomic) = @_;
	my @answers;
	my $start = 0;

	while ($start < @$requests)
	{
		my $end = $start;

		$end++
		  while $end < $#$requests && ($atomic || $requests->[$end]{linked});
		my $open = $end == $#$requests && !$atomic && $requests->[$end]{linked};
		if ($end > $start || $open)
		{
			push @answers,
			  $self->ask_chain([ @{$requests}[ $start .. $end ] ], $start + 1, $open);
		}
		else
		{
			push @answers, $self->ask($requests->[$start]);
		}
		$start = $end + 1;
	}
	return @answers;
}

# ------------------------------------------------------------------------
# several transfers that are one request
# ------------------------------------------------------------------------

# request: action, idempotency_key, strict, and content: fields and values in the order
# in which they are compared; parts: what it becomes
sub ask_joint
{
	my ($self, $request, @parts) = @_;
	my $first = $self->{keys}{ $request->{idempotency_key} // '' };
	my @transfers;

	return $self->replay_joint($request, $first) if $first;
	$self->{undo} = [];
	foreach my $part (@parts)
	{
		my $answer = $self->ask({ %$part, strict => $request->{strict} });

		if (!came_off($answer))
		{
			$self->take_back;
			return $answer if defined $answer->{error};
			@transfers = ($answer->{transfer});
			last;
		}
		push @transfers, $answer->{transfer};
	}
	$self->{undo} = undef;
	if ($request->{action} !~ /^(reverse|capture_group|release_group)$/)
	{
		$_->{journal} = $transfers[0] foreach @transfers;
		$transfers[0]{members} = [@transfers];
	}
	$self->add_key($request, $transfers[0]);
	$self->{keys}{ $request->{idempotency_key} }{all} = \@transfers
	  if defined $request->{idempotency_key};
	return map { { transfer => $_ } } @transfers;
}

sub replay_joint
{
	my ($self, $request, $first) = @_;
	my $field;

	$field = 'action' if $request->{action} ne $first->{request}{action};
	for (my $i = 0; !defined $field && $i < @{ $request->{content} }; $i += 2)
	{
		$field = $request->{content}[$i]
		  if is_other($request->{content}[ $i + 1 ],
			$first->{request}{content}[ $i + 1 ]);
	}
	return failure('LG007',
		[ 'It stands for transfer ', $first->{transfer}, ", whose $field differs." ])
	  if defined $field;
	return failure('LG101')
	  if $first->{transfer}{status} eq 'rejected' && $request->{strict};
	return map { { transfer => $_, replayed => 1 } } @{ $first->{all} };
}

sub part
{
	my ($request, $from, $to, $units, %more) = @_;

	return {
		action => 'transfer',
		from_account => $from->{code},
		to_account => $to->{code},
		amount => money($units, $decimals{ $from->{currency} }),
		(map { $_ => $request->{$_} } qw(type reference)),
		%more
	};
}

# legs: code, side, units, expected version
sub journal
{
	my ($self, $request, @legs) = @_;
	my (%sides, %sums, %versions, @currencies, @parts);

	foreach my $leg (@legs)
	{
		$leg = { %$leg, account => $self->{accounts}{ $leg->{code} } };
		return failure('LG002') unless $leg->{account};
	}
	foreach my $leg (@legs)
	{
		my $currency = $leg->{account}{currency};

		return failure('22023')
		  if ($sides{ $leg->{code} } //= $leg->{side}) ne $leg->{side};
		$versions{ $leg->{code} } //= $leg->{version};
		push @currencies, $currency unless exists $sums{$currency};
		$sums{$currency} += $leg->{side} eq 'debit' ? $leg->{units} : -$leg->{units};
	}
	return failure('LG018') if grep { $_ != 0 } values %sums;
	foreach my $currency (@currencies)
	{
		my @mine = grep { $_->{account}{currency} eq $currency } @legs;
		my @debits = grep { $_->{side} eq 'debit' } @mine;
		my @credits = grep { $_->{side} eq 'credit' } @mine;

		while (@debits && @credits)
		{
			my ($debit, $credit) = ($debits[0], $credits[0]);
			my $units = least($debit->{units}, $credit->{units});

			push @parts,
			  part(
				$request, $debit->{account}, $credit->{account}, $units,
				expected_from_version => delete $versions{ $debit->{code} },
				expected_to_version => delete $versions{ $credit->{code} });
			$_->{units} -= $units foreach $debit, $credit;
			shift @debits if $debit->{units} == 0;
			shift @credits if $credit->{units} == 0;
		}
	}
	return $self->ask_joint($request, @parts);
}

# the largest remainder gets the unit that is left over; of equal ones the first
sub split_units
{
	my ($units, @weights) = @_;
	my $sum = 0;
	my (@parts, @lost);

	$sum += $_ foreach @weights;
	foreach my $weight (@weights)
	{
		push @parts, int($units * $weight / $sum);
		push @lost, $units * $weight - $parts[-1] * $sum;
	}
	my $over = $units;
	$over -= $_ foreach @parts;
	my @order = sort { $lost[$b] <=> $lost[$a] || $a <=> $b } 0 .. $#lost;
	$parts[$_]++ foreach @order[ 0 .. $over - 1 ];
	return @parts;
}

sub distribute
{
	my ($self, $request, $from_code, $units, $codes, $weights) = @_;
	my ($from, @to) = map { $self->{accounts}{$_} } $from_code, @$codes;
	my %count;

	return failure('LG002') if grep { !$_ } $from, @to;
	return failure('LG008') if grep { $_ == $from } @to;
	return failure('22023') if grep { $count{ $_->{code} }++ } @to;
	return failure('LG003') if grep { $_->{currency} ne $from->{currency} } @to;
	my @units = split_units($units, @$weights);
	return $self->ask_joint($request,
		map { part($request, $from, $to[$_], $units[$_]) }
		  grep { $units[$_] > 0 } 0 .. $#to);
}

# all in 10^-8 of a currency: what is bought, exactly
use constant FINE => 8;

sub round_units
{
	my ($fine, $unit, $rounding) = @_;
	my $units = int($fine / $unit);
	my $rest = $fine - $units * $unit;

	return $units if $rounding eq 'down' || $rest == 0;
	return $units + 1 if $rounding eq 'up';
	return $units + 1 if 2 * $rest > $unit;
	return $units if 2 * $rest < $unit;
	return $units + 1 if $rounding eq 'half_up';
	return $units % 2 == 0 ? $units : $units + 1;
}

# rate: a whole number of 10^-4
sub exchange
{
	my ($self, $request, $units, $rate, $rounding, @codes) = @_;
	my ($from, $to, $liquidity_from, $liquidity_to, $carrier) =
	  map { defined $_ ? $self->{accounts}{$_} : undef } @codes;
	my ($fine, $unit, $bought, $sum, @parts);

	return failure('LG002')
	  if grep { defined $_ && !$self->{accounts}{$_} } @codes;
	return failure('22023') if $from->{currency} eq $to->{currency};
	return failure('LG003')
	  if $liquidity_from->{currency} ne $from->{currency}
	  || $liquidity_to->{currency} ne $to->{currency}
	  || ($carrier // $to)->{currency} ne $to->{currency};
	return failure('LG008') if $carrier && $carrier == $liquidity_to;
	$fine = $units * $rate * 10**(FINE - 4 - $decimals{ $from->{currency} });
	$unit = 10**(FINE - $decimals{ $to->{currency} });
	$bought = round_units($fine, $unit, $rounding);
	return failure('22023') if $bought == 0;
	push @parts, part($request, $from, $liquidity_from, $units),
	  part($request, $liquidity_to, $to, $bought);
	if ($carrier)
	{
		my $carried;

		$sum = ($self->{residues}{ $carrier->{code} } // 0) + $fine - $bought * $unit;
		$carried = int($sum / $unit);
		$sum -= $carried * $unit;
		push @parts, part($request, $liquidity_to, $carrier, $carried)
		  if $carried > 0;
		push @parts, part($request, $carrier, $liquidity_to, -$carried)
		  if $carried < 0;
	}
	my @answers = $self->ask_joint($request, @parts);
	$self->{residues}{ $carrier->{code} } = $sum
	  if $carrier && came_off($answers[0]) && !$answers[0]{replayed};
	return @answers;
}

sub reversal_part
{
	my ($self, $original, $amount, $reason) = @_;

	return {
		action => 'transfer',
		from_account => $original->{to},
		to_account => $original->{from},
		amount => $amount,
		type => 'reversal',
		reference => $reason,
		reverses => $original
	};
}

# amount: as text, or undef for all
sub reverse_transfer
{
	my ($self, $request, $original, $amount, $reason) = @_;

	return failure('LG012') unless ref $original;
	return $self->ask_joint($request,
		$self->reversal_part($original, $amount, $reason));
}

sub reverse_journal
{
	my ($self, $request, $head, $reason) = @_;

	return failure('LG012') unless ref $head;
	my @moved = grep { $_->{status} eq 'completed' } @{ $head->{members} };
	return failure('55000') unless @moved;
	return $self->ask_joint(
		$request,
		map {
			$self->reversal_part($_,
				money($_->{amount}, $decimals{ $_->{currency} }), $reason)
		} reverse @moved);
}

# action: capture or release
sub settle_group
{
	my ($self, $action, $group, $reference) = @_;
	my @holds =
	  grep { $_->{status} eq 'open' && ($_->{hold_group} // '') eq $group }
	  @{ $self->{holds} };

	return failure('LG012') unless @holds;
	return $self->ask_joint(
		{ action => "${action}_group" },
		map { { action => $action, hold => $_, reference => $reference } } @holds);
}

# ------------------------------------------------------------------------
# accounts
# ------------------------------------------------------------------------

# each answers with the account's version, or an error

sub set_status
{
	my ($self, $code, $status) = @_;
	my $account = $self->{accounts}{$code};

	return failure('22023')
	  unless $status =~ /^(active|debits_frozen|credits_frozen|frozen|closed)$/;
	return failure('LG002') unless $account;
	if ($account->{status} ne $status)
	{
		return failure('LG004') if $account->{status} eq 'closed';
		return failure('55000') if $status eq 'closed' && !is_empty($account);
		$account->{status} = $status;
		$account->{version}++;
	}
	return { scalar => $account->{version} };
}

# which of the limits are set: floor, ceiling or both
sub set_limits
{
	my ($self, $code, %limits) = @_;
	my $account = $self->{accounts}{$code};

	return failure('LG002') unless $account;
	return failure('LG004') if $account->{status} eq 'closed';
	%limits = (floor => $account->{floor}, ceiling => $account->{ceiling}, %limits);
	return failure('LG006')
	  unless is_within_limits($account, $limits{floor}, $limits{ceiling});
	@{$account}{qw(floor ceiling)} = @limits{qw(floor ceiling)};
	$account->{version}++;
	return { scalar => $account->{version} };
}

# moves what is left, which limits of the account do not hinder
sub empty_account
{
	my ($self, $account, $other) = @_;
	my $balance = balance($account);
	my %limits = map { $_ => $account->{$_} } qw(floor ceiling);
	my ($from, $to) = $balance < 0 ? ($other, $account) : ($account, $other);
	my $answer;

	$limits{floor} = 0 if ($limits{floor} // 0) > 0;
	$limits{ceiling} = 0 if ($limits{ceiling} // 0) < 0;
	$self->change($account, %limits, version => $account->{version} + 1)
	  if is_other($limits{floor}, $account->{floor})
	  || is_other($limits{ceiling}, $account->{ceiling});
	$answer = $self->ask(
		{
			action => 'transfer',
			from_account => $from->{code},
			to_account => $to->{code},
			amount => money(abs $balance, $decimals{ $account->{currency} }),
			type => 'closing',
			strict => 1,
			closing => $account
		});
	return $answer->{error};
}

sub close_account
{
	my ($self, $code, $to) = @_;
	my $account = $self->{accounts}{$code};
	my $other = defined $to ? $self->{accounts}{$to} : undef;
	my $error;

	return failure('LG008') if defined $to && $to eq $code;
	return failure('LG002') if !$account || (defined $to && !$other);
	return { scalar => $account->{version} } if $account->{status} eq 'closed';
	return failure('55000') if $account->{held} != 0 || $account->{expected} != 0;
	return failure('55000') if balance($account) != 0 && !$other;
	$self->{undo} = [];
	$error = $self->empty_account($account, $other) if balance($account) != 0;
	$self->take_back if defined $error;
	$self->{undo} = undef;
	return failure($error) if defined $error;
	$self->change($account, status => 'closed', version => $account->{version} + 1);
	return { scalar => $account->{version} };
}

# gives back what is over, the earliest first; answers how many
sub expire
{
	my ($self, $limit) = @_;
	my $holds = $self->{holds};
	my @over = sort { $holds->[$a]{ends} <=> $holds->[$b]{ends} || $a <=> $b }
	  grep {
		my $hold = $holds->[$_];
		$hold->{status} eq 'open'
		  && defined $hold->{ends}
		  && $hold->{ends} <= $self->{now}
	  } 0 .. $#$holds;

	@over = @over[ 0 .. $limit - 1 ] if @over > $limit;
	$self->ask({ action => 'release', hold => $holds->[$_] }) foreach @over;
	return { scalar => scalar @over };
}

1;
