# What risk counts, against a model of it: a million transfers over midnights,
# ends of months, nights in which clocks change, clocks that step back, and
# holds given back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $seed = $ENV{FIN_SEED} // time();
note("FIN_SEED=$seed");

my $program = PostgreSQL::Test::Utils::tempdir . '/measure_test';
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
chomp(my $include = `$pg_config --includedir-server`);
chomp(my $compiler = `$pg_config --cc`);
my @compile = (
	split(' ', $ENV{CC} // $compiler),
	'-std=gnu99', '-O1', '-g', '-w', '-D_GNU_SOURCE',
	# an overflow of signed numbers ends it
	'-fsanitize=signed-integer-overflow', '-fsanitize-undefined-trap-on-error',
	'-I', $include, "$FindBin::RealBin/measure_test.c", '-o', $program);

command_ok(\@compile, 'measures compile by themselves');
die 'nothing to test' unless -x $program;
my ($out, $err);
my $ok = IPC::Run::run([ $program, $seed, 1_000_000 * $soak ],
	'>', \$out, '2>', \$err);
ok($ok, "a million transfers as the model has them, seed $seed")
  or diag("$out$err, signal " . ($? & 127));
note($out);
my %found = $out =~ /^(\w+) (\d+)$/mg;
cmp_ok($found{$_} // 0, '>', 1000, "among them many of: $_")
  foreach qw(read exact merged given_back whole stepped rolled);

done_testing();
