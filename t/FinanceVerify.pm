# FinanceVerify.pm: finance-verify, made and run.
package FinanceVerify;

use strict;
use warnings;

use Exporter 'import';
use File::Basename;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(verify_missing make_verify sanitize verify verifies refuses write_file leaf_functions);

my $directory;
my $program;

# what is not installed that it needs, or undef
sub verify_missing
{
	my $cc = $ENV{CC} // 'cc';

	return 'OpenSSL (libssl-dev) is not installed'
	  if system("echo '#include <openssl/evp.h>' | $cc -E - >/dev/null 2>&1");
	return undef;
}

# path of the program
sub make_verify
{
	my $top = dirname(__FILE__) . '/..';

	$directory = PostgreSQL::Test::Utils::tempdir;
	command_ok([ 'make', '-s', '-C', $directory, '-f', "$top/Makefile", 'verify', 'COPT=-Werror' ], 'make verify');
	$program = "$directory/finance-verify";
	BAIL_OUT('no program to test') unless -x $program;
	return $program;
}

# from now on the program is one with sanitizers, if the compiler has them
sub sanitize
{
	my $top = dirname(__FILE__) . '/..';
	my $below = "$directory/sanitized";

	mkdir $below or die "$below: $!";
	my $made = system("make -s -C $below -f $top/Makefile verify CFLAGS='-g -O1 -fsanitize=address,undefined' >$below/log 2>&1") == 0
	  && system("$below/finance-verify --version >/dev/null 2>&1") == 0;
	$program = "$below/finance-verify" if $made;
	note $made ? 'with sanitizers' : 'without sanitizers';
	return;
}

# path of a file of this name with this content
sub write_file
{
	my ($name, $content) = @_;
	my $path = "$directory/$name";

	open(my $file, '>:raw', $path) or die "$path: $!";
	print $file $content;
	close $file or die "$path: $!";
	return $path;
}

# exit status, and what was said
sub verify
{
	my (@arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ $program, @arguments ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8 || $? & 127, $err, $out);
}

sub verifies
{
	my ($name, @arguments) = @_;
	my ($status, $err, $out) = verify(@arguments);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($status == 0 && $err eq '' && $out =~ /^all is right/m, $name)
	  or diag("status $status\n$err$out");
}

# refuses(name, pattern of what is said first, arguments)
sub refuses
{
	my ($name, $pattern, @arguments) = @_;
	my ($status, $err) = verify(@arguments);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($status == 1 && $err =~ $pattern, $name) or diag("status $status\n$err");
}

# SQL that makes pg_temp.leaf(finance.audit_record): the bytes that are hashed, as
# pgtap/audit.sql builds them
sub leaf_functions
{
	my $sql = slurp_file(dirname(__FILE__) . '/../pgtap/audit.sql');

	return join("\n", $sql =~ /(CREATE FUNCTION pg_temp\.(?:field|leaf)\(.*?\$\$;)/gs);
}

1;
