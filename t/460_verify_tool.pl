# finance-verify on exports of records of all kinds: what the extension sealed
# verifies, whole and in parts; random changes of an export are each refused,
# by the line that was changed; digests of before are of the same log, and one of
# another is not.  And its tree, against the public vectors of RFC 6962.
use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex);
use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use FinanceVerify;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $missing = verify_missing();
plan skip_all => $missing if defined $missing;
my $tool = make_verify();
my $soak = soak();
my $seed = $ENV{FIN_SEED} // 20261123;
note "FIN_SEED=$seed";
srand($seed);

# ------------------------------------------------------------------------
# the command line
# ------------------------------------------------------------------------

command_like([ $tool, '--help' ], qr/--earlier FILE/, '--help');
command_like([ $tool, '--version' ], qr/^finance-verify [0-9.]+$/, '--version');
my $text = write_file('text', "not JSON\n");
foreach (
	[ [], qr/nothing to verify/, 'nothing' ],
	[ ['--nonsense'], qr/nonsense/, 'an unknown option' ],
	[ ['/nowhere'], qr/cannot be read/, 'no file' ],
	[ [ '--digest', $text ], qr/is not JSON/, 'no digest' ],
	[ [ '--digest', write_file('null', '{}') ], qr/is not a digest/, 'an empty digest' ],
	[ [ '--proof', write_file('null', '{}') ], qr/is not a proof/, 'an empty proof' ])
{
	my ($arguments, $expected, $name) = @$_;
	command_exit_is([ $tool, @$arguments ], 2, "exit status of wrong usage: $name");
	command_fails_like([ $tool, @$arguments ], $expected, "what it says: $name");
}
refuses('what is no export', qr/text:1: this is not a line of an export/, $text);
refuses('an empty export', qr/empty:1: the export is cut off/, write_file('empty', ''));

# ------------------------------------------------------------------------
# the public vectors
# ------------------------------------------------------------------------

my @leaves = map { sha256_hex("\0" . pack('H*', $_)) }
  ('', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f');
my @roots = qw(
  e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
  fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
  aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
  d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
  4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
  76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
  ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
  5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328);

# an export of the first leaves, in one block, without their records
sub vector_export
{
	my ($size, $root) = @_;
	my $zeros = '00' x 32;
	my $digest = sha256_hex(pack('Cq>l>q>H64H64q>q>l>', 3, 1, 1, $size, $root, $zeros, 0, 0, 1));
	my @lines = qq({"finance_audit_export":1,"from":0,"to":$size,"frontier":[]});

	push @lines, map { qq({"leaf":$_,"leaf_hash":"$leaves[$_]","why":"detached","id":"1"}) } 0 .. $size - 1;
	push @lines,
	  qq({"block":1,"incarnation":1,"size":$size,"root":"$root","previous":"$zeros","digest":"$digest","sealed_at":"0","lsn":"0/0","timeline":1,"system_identifier":1});
	push @lines, qq({"to":$size,"root":"$root"});
	return join('', map { "$_\n" } @lines);
}

for my $size (1 .. 8)
{
	verifies("root of size $size", write_file('vector', vector_export($size, $roots[$size])));
	refuses("another root of size $size", qr/vector:\d+: block 1 does not have the root of its leaves/,
		write_file('vector', vector_export($size, $roots[ $size - 1 ])));
}

my ($left, $right, $upper, $odd) = qw(96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7
  5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e
  6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4
  ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0);
my @inclusion = (
	[ 0, 1 ], [ 0, 2, $left ], [ 1, 2, $roots[1] ], [ 2, 3, $roots[2] ], [ 1, 5, $roots[1], $right, $leaves[4] ],
	[ 0, 8, $left, $right, $upper ], [ 5, 8, $leaves[4], $odd, $roots[4] ]);
my @consistency = ([ 1, 1 ], [ 1, 8, $left, $right, $upper ], [ 2, 5, $right, $leaves[4] ], [ 6, 8, '0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a', $odd, $roots[4] ]);

sub inclusion
{
	my ($index, $size, @path) = @_;
	return encode_json({ record_id => 1, leaf_index => $index, leaf_hash => "\\x$leaves[$index]", tree_size => $size, root => "\\x$roots[$size]", path => \@path });
}

sub consistency
{
	my ($old, $new, @proof) = @_;
	return encode_json({ old_size => $old, old_root => "\\x$roots[$old]", new_size => $new, new_root => "\\x$roots[$new]", proof => \@proof });
}

foreach ([ \&inclusion, @inclusion ], [ \&consistency, @consistency ])
{
	my ($proof, @vectors) = @$_;

	foreach (@vectors)
	{
		my ($m, $n, @hashes) = @$_;
		my $name = $proof == \&inclusion ? "leaf $m is in size $n" : "size $m continues to $n";
		my @wrong = ([ $m, $n, @hashes, $left ]);

		verifies($name, '--proof', write_file('proof', $proof->($m, $n, @hashes)));
		push @wrong, [ $m, $n, @hashes[ 1 .. $#hashes ] ] if @hashes;
		push @wrong, [ $m, $n, reverse @hashes ] if @hashes > 1;
		push @wrong, [ $m, $n, map { sha256_hex($_) } @hashes ] if @hashes;
		push @wrong, [ $m, $n - 1, @hashes ] if $n - 1 > $m;
		push @wrong, [ $m + 1, $n, @hashes ] if $m + 1 < $n;
		refuses("$name: not so", qr/does not hold/, '--proof', write_file('proof', $proof->(@$_))) foreach @wrong;
	}
}

# ------------------------------------------------------------------------
# a log of all kinds of records, sealed at odd moments
# ------------------------------------------------------------------------

my $node = finance_node('main');
$node->append_conf('postgresql.conf', "finance.seal_interval = 3600000\nautovacuum = off\n");
$node->start;

sub ask
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

sub refusal
{
	my ($query) = @_;
	my (undef, undef, $error) = $node->psql('postgres', $query, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $error;
}

ask(q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id serial PRIMARY KEY, name text, price numeric, tags text[], payload jsonb);
	SELECT finance.audit_table('item');
	CREATE ROLE members;
	SELECT finance.create_tenant('other', member_role => 'members');
	SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR', min_available => NULL), finance.create_account('r', 'EUR');
});
is(ask('SELECT count(*) FROM finance.audit_export()'), '2', 'nothing is sealed yet: a header and a trailer');
verifies('and that verifies', write_file('none', ask('SELECT finance.audit_export()') . "\n"));

my @names = ("it's", 'quo"te', "back\\slash", "tab\tnew\nline\r", "\x{e9}\x{4e2d}\x{1f600}", "\x{1}\x{7f}\x{80}\x{2028}\x{ffff}", '', '{"json": "\u0041"}', '/x/', 'x' x 3);

sub literal
{
	my ($value) = @_;
	utf8::encode($value);
	$value =~ s/'/''/g;
	return "'$value'";
}

# one transaction of some kind
my @work = (
	sub { 'INSERT INTO item (name, price) VALUES ' . join(',', map { '(' . literal($names[ rand @names ]) . ', ' . (int(rand(20000)) - 10000) / 100 . ')' } 1 .. 1 + int(rand(40))) },
	sub { 'UPDATE item SET name = ' . literal($names[ rand @names ]) . ", tags = ARRAY['a', NULL, '\"'], payload = '{\"a\": [1, null]}' WHERE id % 17 = " . int(rand(17)) },
	sub { 'DELETE FROM item WHERE id % 41 = ' . int(rand(41)) },
	sub { "SELECT count(finance.transfer('" . (rand() < 0.5 ? "a', 'b" : "b', 'a") . "', " . (1 + int(rand(9999))) / 100 . ')) FROM generate_series(1, ' . (1 + int(rand(10))) . ')' },
	sub { "SET finance.user_agent = 'Moz \xc3\xa9'; SET finance.actor = 'O''Brien'; SET finance.reason = 'why \"not\"'; SET finance.request_id = 'r-1'; SELECT finance.transfer('a', 'b', 0.01)" },
	sub { 'BEGIN; INSERT INTO item (name) VALUES (1); SAVEPOINT s; DELETE FROM item; ROLLBACK TO s; COMMIT' },
	sub { "SET finance.tenant = 1; INSERT INTO item (name) VALUES ('theirs')" });
my @addresses = ('192.0.2.7', '2001:db8::1', '10.0.0.0/8', '2001:db8:0:1::/64', '::ffff:192.0.2.1', '::', 'fe80::1:0:0:1', '0.0.0.0');
my @kept;    # digests as JSON
my $wanted = 2000 * $soak;
for (my $i = 0; @kept == 0 || decode_json($kept[-1])->{size} < $wanted; $i++)
{
	ask($work[ $i % @work ]->());
	ask(q{INSERT INTO item (name) VALUES (repeat('long "' || E'\u00e9\\\\', 30000))}) if $i == 20;
	ask("SET finance.client_addr = '$addresses[$i % @addresses]'; INSERT INTO item (name) VALUES ('from afar')");
	ask('TRUNCATE item') if $i == 40;
	if (rand() < 0.2)
	{
		ask('SELECT finance.seal_audit()');
		push @kept, ask('SELECT to_json(d) FROM finance.audit_digest() d');
	}
}
my $size = decode_json($kept[-1])->{size};
my $blocks = ask('SELECT count(*) FROM finance.audit_block');
note "$size leaves in $blocks blocks";
is(ask('SELECT count(DISTINCT client_addr) FROM finance.audit_record'), scalar @addresses, 'with client addresses');
is(ask('SELECT count(*) > 0 FROM finance.audit_record WHERE balance_after < 0'), 't', 'and negative balances');

my $export = ask('SELECT finance.audit_export()') . "\n";
my $digest = write_file('digest', $kept[-1]);
my $file = write_file('export', $export);
verifies('the export', '--digest', $digest, '--complete', $file);
is((verify('--digest', $digest, $file))[2] =~ /^$size leaves in $blocks blocks, $size records, 0 payloads erased; size $size, root [0-9a-f]{64}$/m, 1, 'is summed up');
is((verify('--quiet', $file))[2], '', '--quiet');
unlike($export, qr/[^\x20-\x7e\n]/, 'it is ASCII');
is(ask("SET client_encoding = 'LATIN1'; SELECT finance.audit_export()") . "\n", $export, 'in every client encoding');
is(scalar(my @lines = split(/^/, $export)), $size + $blocks + 2, 'a line for each leaf and block');

# in parts, that begin and end anywhere
my @cuts = (0, (sort { $a <=> $b } map { int(rand($size)) } 1 .. 5), $size);
my @parts = map { write_file("part$_", ask("SELECT finance.audit_export($cuts[$_], $cuts[$_ + 1])") . "\n") } 0 .. $#cuts - 1;
verifies("in parts: @cuts", '--digest', $digest, '--complete', @parts);
verifies('all in one file', '--digest', $digest, write_file('parts', join('', map { slurp_file($_) } @parts)));
verifies('the end of it', '--digest', $digest, $parts[-1]);
refuses('a part is left out', qr/part3:1: the export does not go on where the one before ended/, '--digest', $digest, @parts[ 0, 1, 3, 4, 5 ]);
refuses('the end is left out', qr/nothing proves that size $cuts[5] is of the log/, '--digest', $digest, @parts[ 0 .. 4 ]);
refuses('parts in disorder', qr/part2:1: the export does not go on/, '--digest', $digest, @parts[ 0, 2, 1, 3, 4, 5 ]);

# ------------------------------------------------------------------------
# digests
# ------------------------------------------------------------------------

my $earlier = write_file('earlier', join("\n", @kept));
verifies(@kept . ' earlier digests', '--digest', $digest, '--earlier', $earlier, $file);
verifies('those within the end of the log', '--digest', $digest, '--earlier', write_file('late', join("\n", grep { decode_json($_)->{size} >= $cuts[5] } @kept)), $parts[-1]);
refuses('one before it, without a proof', qr/first: nothing proves that size \d+ is of the log/, '--digest', $digest, '--earlier', write_file('first', $kept[0]), $parts[-1]);
my $proof = write_file('proof', ask('SELECT to_json(c) FROM finance.audit_consistency(' . decode_json($kept[0])->{size} . ') c'));
verifies('with one', '--digest', $digest, '--earlier', write_file('first', $kept[0]), '--proof', $proof, $parts[-1]);
verifies('with one and no export', '--digest', $digest, '--earlier', write_file('first', $kept[0]), '--proof', $proof);
verifies('all by proofs', '--digest', $digest, '--earlier', $earlier,
	'--proof', write_file('proofs', join("\n", map { ask('SELECT to_json(c) FROM finance.audit_consistency(' . decode_json($_)->{size} . ') c') } @kept)));
my $older = write_file('older', $kept[-2]);
refuses('an export that goes beyond the digest', qr/nothing proves that size $size is of the log/, '--digest', $older, $file);
verifies('an export up to a digest', '--digest', $older, write_file('upto', ask('SELECT finance.audit_export(to_leaf => ' . decode_json($kept[-2])->{size} . ')') . "\n"));
verifies('or up to where a proof leads on', '--digest', $digest, '--proof',
	write_file('on', ask('SELECT to_json(c) FROM finance.audit_consistency(' . decode_json($kept[-2])->{size} . ') c')), "$file.upto" =~ s/export\.upto$/upto/r);

ask(q{SET timezone = 'Asia/Kolkata'; SET bytea_output = 'hex'});
is(ask(q{ALTER DATABASE postgres SET timezone = 'Asia/Kolkata'}), '', 'another time zone');
verifies('a digest told there', '--digest', write_file('kolkata', ask('SELECT to_json(d) FROM finance.audit_digest() d')), $file);
for my $field (qw(block incarnation size root previous digest sealed_at lsn timeline))
{
	my $changed = decode_json($kept[-1]);

	if ($field =~ /^(block|incarnation|size|timeline)$/)
	{
		$changed->{$field}++;
	}
	else
	{
		# the year, or the last digit
		$changed->{$field} =~ s/^20\d\d/2019/ or $changed->{$field} =~ s/(.)$/$1 eq '0' ? '1' : '0'/e;
	}
	refuses("a digest whose $field was changed", qr/changed: the digest of block \d+ is not that of its fields/, '--digest', write_file('changed', encode_json($changed)), $file);
}

ask('CREATE DATABASE another');
ask(q{CREATE EXTENSION finance; SELECT finance.create_account('a', 'EUR'); SELECT finance.seal_audit()}, 'another');
my $another = write_file('another', ask('SELECT to_json(d) FROM finance.audit_digest() d', 'another'));
refuses('the digest of another log', qr/another: the root of size 1 is another than this log's/, '--digest', $another, $file);
refuses('as an earlier one', qr/another: the root of size 1 is another than this log's/, '--digest', $digest, '--earlier', $another, $file);
refuses('an export of another log', qr/digest|nothing proves that size 1 is of the log/, '--digest', $digest, write_file('theirs', ask('SELECT finance.audit_export()', 'another') . "\n"));

# ------------------------------------------------------------------------
# inclusion
# ------------------------------------------------------------------------

for (1 .. 20)
{
	my $id = ask('SELECT id FROM finance.audit_record WHERE tenant_id = 0 ORDER BY xid, sequence LIMIT 1 OFFSET ' . int(rand($size / 2)));
	my $path = ask("SELECT to_json(p) FROM finance.audit_proof($id) p");
	my $wrong = decode_json($path);

	verifies("record $id is included", '--digest', $digest, '--proof', write_file('path', $path));
	$wrong->{leaf_index} ^= 1;
	refuses('elsewhere it is not', qr/does not hold/, '--digest', $digest, '--proof', write_file('path', encode_json($wrong)));
	refuses('nor in another log', qr/nothing proves/, '--digest', $another, '--proof', write_file('path', $path));
}

# ------------------------------------------------------------------------
# changes, each of one thing
# ------------------------------------------------------------------------

my $json = JSON::PP->new->ascii->canonical;

# where in the export is the block that ends at that line or after it?
sub line_of_block
{
	my ($line) = @_;

	$line++ until $lines[ $line - 1 ] =~ /^\{"block"/;
	return $line;
}

# changes one value somewhere in a line, in place, for members come in order;
# returns the name of the value
sub change_value
{
	my ($at) = @_;
	my @values;

	push @values, [ $1, $2, $-[2] ] while $lines[$at] =~ /"(\w+)":("(?:[^"\\]|\\.)*"|-?\d+)/g;
	my ($name, $value, $start) = @{ $values[ rand @values ] };
	my $changed = $value;
	if ($value !~ /^"/)
	{
		$changed += rand() < 0.5 ? 1 : 1 + int(rand(1e6));
	}
	elsif ($value eq '""')
	{
		$changed = '" "';
	}
	else
	{
		my $i = 1 + int(rand(length($value) - 2));
		my $old = substr($value, $i, 1);
		my @other = grep { $_ ne $old } $old =~ /[0-9a-f]/ ? ('0' .. '9', 'a' .. 'f') : ('A' .. 'Z');

		substr($changed, $i, 1) = $other[ rand @other ];
	}
	my $line = $lines[$at];
	substr($line, $start, length $value) = $changed;
	# or it is gone
	$line =~ s/(?<=[,{])"$name":\Q$changed\E,?// if rand() < 0.1;
	return ($line, $name);
}

# each returns the changed export, the line it must be refused by, and what it is
my @changes = (
	sub {
		my $line = 1 + int(rand(@lines));
		my @changed = @lines;

		($changed[ $line - 1 ], my $name) = change_value($line - 1);
		# where the export ends is compared when it does
		return (join('', @changed), $line == 1 && $name eq 'to' ? scalar @lines : $line, "value of $name, line $line");
	},
	sub {
		my @where = grep { $lines[$_] =~ /^\{"block"/ } 0 .. $#lines;
		my $line = 1 + $where[ rand @where ];
		my @changed = @lines;

		($changed[ $line - 1 ], my $name) = change_value($line - 1);
		return (join('', @changed), $line, "block's $name, line $line");
	},
	sub {
		my $line = 1 + int(rand(@lines));
		my @changed = @lines;
		my $at = int(rand(length($lines[ $line - 1 ]) - 1));

		substr($changed[ $line - 1 ], $at, 1) = '#';
		return (join('', @changed), $line, "byte $at of line $line");
	},
	sub {
		my $line = 1 + int(rand(@lines));
		my @changed = @lines;

		# the next block misses a block; where there is none, the digest does
		my $missed = $line;
		$missed++ until $lines[$line - 1] !~ /^\{"block"/ || $lines[$missed] !~ /^\{"leaf"/;
		splice(@changed, $line - 1, 1);
		return (join('', @changed), $missed, "line $line is dropped");
	},
	sub {
		my ($first, $second) = sort { $a <=> $b } int(rand(@lines)), int(rand(@lines));
		my @changed = @lines;

		$second = $first == $#lines ? $first-- : $first + 1 if $first == $second || rand() < 0.5;
		@changed[ $first, $second ] = @changed[ $second, $first ];
		# a leaf may come before the block, but then the block is at another size
		my $late = $lines[$first] =~ /^\{"block"/ && $second == $first + 1 && $lines[$second] =~ /^\{"leaf"/;
		return (join('', @changed), $first + 1 + $late, 'lines ' . ($first + 1) . ' and ' . ($second + 1) . ' are swapped');
	},
	sub {
		my $line = 1 + int(rand(@lines));
		my @changed = @lines;

		splice(@changed, $line, 0, $lines[ $line - 1 ]);
		return (join('', @changed), $line + 1, "line $line is doubled");
	},
	sub {
		my $keep = int(rand(length $export));
		my $kept = substr($export, 0, $keep);

		return ($kept, 1 + ($kept =~ tr/\n//), "cut off after $keep bytes");
	},
	sub {
		# a true record, with the number that is due where it is put
		my @where = grep { $lines[$_] =~ /^\{"leaf"/ } 0 .. $#lines;
		my $from = $where[ rand @where ];
		my $before = $where[ rand @where ];
		my ($number) = $lines[$before] =~ /^\{"leaf":(\d+)/;
		my @changed = @lines;

		splice(@changed, $before, 0, $lines[$from] =~ s/^\{"leaf":\d+/{"leaf":$number/r);
		return (join('', @changed), $before + 2, 'a record is inserted as line ' . ($before + 1));
	},
	sub {
		# two true records change places, numbers and all
		my @where = grep { $lines[$_] =~ /^\{"leaf"/ } 0 .. $#lines;
		my ($first, $second) = (sort { $a <=> $b } map { $where[ rand @where ] } 1 .. 2);
		my @changed = @lines;

		$second = $first == $where[-1] ? $first-- : $first + 1 if $first == $second;
		($first, $second) = @where[ 0, -1 ] if $lines[$first] !~ /^\{"leaf"/ || $lines[$second] !~ /^\{"leaf"/;
		my ($one) = $lines[$first] =~ /^\{"leaf":(\d+)/;
		my ($two) = $lines[$second] =~ /^\{"leaf":(\d+)/;
		$changed[$first] = $lines[$second] =~ s/^\{"leaf":\d+/{"leaf":$one/r;
		$changed[$second] = $lines[$first] =~ s/^\{"leaf":\d+/{"leaf":$two/r;
		return (join('', @changed), line_of_block($first + 1), 'lines ' . ($first + 1) . ' and ' . ($second + 1) . ' change places');
	});

my %refused;
for my $i (1 .. 100 * $soak)
{
	my ($changed, $line, $name) = $changes[ $i % @changes ]->();
	my ($status, $said) = verify('--digest', $digest, write_file('changed', $changed));

	ok($status == 1 && $said =~ /\Afinance-verify: \S*changed:$line: /, "$i: $name")
	  or diag("status $status, line $line expected; said: " . substr($said, 0, 500));
}

# ------------------------------------------------------------------------
# any bytes at all: refused, and neither crashed nor read beyond
# ------------------------------------------------------------------------

sub spoil
{
	my ($bytes) = @_;
	my $at = int(rand(length $bytes));
	my $length = 1 + int(rand(rand() < 0.5 ? 4 : 400));
	my $kind = int(rand(5));

	if ($kind < 2)
	{
		substr($bytes, $at, 1) = chr((ord(substr($bytes, $at, 1)) + 1 + int(rand(255))) % 256);
	}
	elsif ($kind == 2)
	{
		substr($bytes, $at, $length) = '';
	}
	elsif ($kind == 3)
	{
		substr($bytes, $at, 0) = join('', map { chr(int(rand(256))) } 1 .. $length);
	}
	else
	{
		substr($bytes, $at, 0) = substr($bytes, int(rand(length $bytes)), $length);
	}
	return $bytes;
}

sanitize();
my $few = ask('SELECT finance.audit_export(' . ($size - 60) . ')') . "\n";
verifies('a small export', '--digest', $digest, write_file('few', $few));
for my $i (1 .. 60 * $soak)
{
	my $spoilt = spoil($few);
	my ($status, $said) = verify('--digest', $digest, write_file('spoilt', $spoilt));

	ok($spoilt eq $few || ($status == 1 && $said =~ /\A(?:finance-verify: .*\n)+\z/), "$i: a spoilt export")
	  or diag("status $status: " . substr($said, 0, 2000));
	# not all that is in these is used
	foreach ([ '--digest', $kept[-1] ], [ '--proof', slurp_file($proof) ])
	{
		my ($option, $content) = @$_;

		($status, $said) = verify($option, write_file('spoilt', spoil($content)));
		ok($status <= 2 && $said =~ /\A(?:finance-verify: .*\n)*\z/, "$i: a spoilt $option")
		  or diag("status $status: " . substr($said, 0, 2000));
	}
}

# ------------------------------------------------------------------------
# what somebody changed in the tables
# ------------------------------------------------------------------------

sub exported
{
	return write_file('exported', ask('SELECT finance.audit_export()') . "\n");
}

my $victim = ask(q{SELECT id FROM finance.audit_record WHERE operation = 'transfer' AND status = 'completed' ORDER BY xid, sequence LIMIT 1});
ask(q{ALTER TABLE finance.audit_record DISABLE TRIGGER guard;
	DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'finance.audit_record'::regclass LOOP
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER guard', p); END LOOP; END $$});
for (
	[ 'amount = amount + 1', 'amount = amount - 1', qr/record is not what was sealed/ ],
	[ "request = '{}'", undef, qr/payload was altered/ ])
{
	my ($change, $undo, $said) = @$_;

	ask("CREATE TABLE saved AS SELECT * FROM finance.audit_record WHERE id = $victim; UPDATE finance.audit_record SET $change WHERE id = $victim");
	refuses("a record where $change", qr/exported:\d+: leaf \d+, record $victim: the $said/, '--digest', $digest, exported());
	ask("DELETE FROM finance.audit_record WHERE id = $victim; INSERT INTO finance.audit_record SELECT * FROM saved; DROP TABLE saved");
	verifies('it is as it was', '--digest', $digest, exported());
}
is(ask("SELECT finance.audit_erase_payload($victim, 'asked to')"), 't', 'a payload is erased');
verifies('its leaf is what it was', '--digest', $digest, exported());
is((verify($file = exported()))[2] =~ /, 1 payloads erased, 1 of which no record tells;/, 1, 'is counted, and that what tells of it is not sealed');
refuses('who asks for everything asks for that', qr/leaf \d+, record $victim: its payload is gone, and no record tells of it/, '--digest', $digest, '--complete', $file);
ask("CREATE TABLE saved AS SELECT * FROM finance.audit_record WHERE id = $victim; DELETE FROM finance.audit_record WHERE id = $victim");
refuses('a deleted record', qr/leaf \d+, record $victim: its record is missing/, '--digest', $digest, exported());
ask('INSERT INTO finance.audit_record SELECT * FROM saved');

# ------------------------------------------------------------------------
# who gets what
# ------------------------------------------------------------------------

ask(q{CREATE ROLE tenant_auditor LOGIN IN ROLE members;
	SELECT finance.grant_access('tenant_auditor', 'auditor'); CREATE ROLE nobody LOGIN; GRANT USAGE ON SCHEMA finance TO nobody});
my $theirs = ask('SET ROLE tenant_auditor; SET finance.tenant = 1; SELECT finance.audit_export()') . "\n";
verifies('the export of an auditor of a tenant', '--digest', $digest, $file = write_file('theirs', $theirs));
refuses('is not complete', qr/its record is not in the export \(tenant\)/, '--digest', $digest, '--complete', $file);
my @records = grep { defined $_->{record} } map { $json->decode($_) } grep { /^\{"leaf"/ } split /^/, $theirs;
is(scalar @records, ask("SELECT count(*) FROM finance.audit_record WHERE tenant_id = 1"), 'it has all records of that tenant');
is(scalar(grep { $_->{record}{tenant_id} ne '1' } @records), 0, 'and no others');
is(scalar(grep { !defined $_->{record} && (defined $_->{id} || $_->{why} !~ /^(tenant|missing)$/) } map { $json->decode($_) } grep { /^\{"leaf"/ } split /^/, $theirs), 0,
	'nor their ids');
like(refusal('SET ROLE nobody; SELECT finance.audit_export()'), qr/42501/, 'nobody else gets one');
like(refusal('SELECT finance.audit_export(NULL)'), qr/22004.*from_leaf must not be null/, 'null');
like(refusal('SELECT finance.audit_export(-1)'), qr/22023.*from_leaf must be from 0 to $size/, 'a negative leaf');
like(refusal('SELECT finance.audit_export(5, 4)'), qr/22023.*from_leaf must be from 0 to 4/, 'an end before the beginning');
like(refusal("SELECT finance.audit_export(0, $size + 1)"), qr/LG202.*leaf $size is not sealed yet/, 'an end beyond what is sealed');
is(ask("SELECT count(*) FROM finance.audit_export($size)"), '2', 'from the end on there is nothing');

# ------------------------------------------------------------------------
# what is gone, and what tells of it
# ------------------------------------------------------------------------

ask('SELECT finance.seal_audit()');
$digest = write_file('digest', ask('SELECT to_json(d) FROM finance.audit_digest() d'));
is((verify($file = exported()))[2] =~ /, 1 payloads erased; size/, 1, 'a record that is sealed tells of the payload erased');
verifies('and nothing is missing', '--digest', $digest, '--complete', $file);
my $robbed = ask(q{SELECT id FROM finance.audit_record WHERE salt IS NOT NULL ORDER BY xid DESC, sequence DESC LIMIT 1});
ask("UPDATE finance.audit_record SET request = NULL, response = NULL, salt = NULL WHERE id = $robbed");
is((verify($file = exported()))[2] =~ /, 2 payloads erased, 1 of which no record tells; size/, 1, 'of one that was taken away none does');
refuses('and it is named', qr/record $robbed: its payload is gone, and no record tells of it/, '--digest', $digest, '--complete', $file);

$node->stop;
done_testing();
