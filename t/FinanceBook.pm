# FinanceBook.pm: what the tests of money under load share.
package FinanceBook;

use strict;
use warnings;

use Exporter 'import';
use FinanceTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(soak book_node open_accounts is_sound is_query bench_ok);

# FIN_SOAK multiplies the load of a test; 1 is a usual run
sub soak
{
	return $ENV{FIN_SOAK} // 1;
}

# a cluster with the extension in database postgres, and room for many clients
sub book_node
{
	my ($name, $more) = @_;
	my $node = finance_node($name);

	$node->append_conf('postgresql.conf', "max_connections = 150\n");
	$node->append_conf('postgresql.conf', $more) if defined $more;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION finance');
	return $node;
}

sub open_accounts
{
	my ($node, @codes) = @_;

	$node->safe_psql(
		'postgres',
		join(
			';',
			map {
				"SELECT finance.create_account('$_', 'EUR', min_available => NULL)"
			} @codes));
}

sub is_query
{
	my ($node, $query, $expected, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($node->safe_psql($database // 'postgres', $query), $expected, $name);
}

# the invariants hold, and nobody met a deadlock
sub is_sound
{
	my ($node, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_query($node, 'SELECT * FROM finance.check_integrity()',
		'', "$name: the invariants hold", $database);
}

# Runs a script by pgbench and returns what pgbench printed.  It must end well
# and without a word on stderr; an ERROR in a script is one.
sub bench_ok
{
	my ($node, $name, $script, @options) = @_;
	my $file = $node->basedir . '/script.sql';
	my ($out, $err);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	unlink $file;
	append_to_file($file, $script);
	my $result = IPC::Run::run(
		[
			'pgbench', '-n', @options, '-f', $file, '-h', $node->host,
			'-p', $node->port, 'postgres'
		],
		'>', \$out, '2>', \$err);
	$err =~ s/^pgbench \(.*\n//;    # its greeting
	$err =~ s/^pgbench: setting random seed to .*\n//;
	ok($result && $err eq '', $name) or diag("$out\n$err");
	return $out;
}

1;
