# bench/Bench.pm: what bench/measure and bench/queue_measure share: asking a
# server, the CPU time of its processes, and what machine this is.
package Bench;

use strict;
use warnings;

use Exporter qw(import);
use POSIX qw(sysconf _SC_CLK_TCK);

our @EXPORT_OK = qw(ask process_cpu_us server_cpu_us median machine);

my $tick_us = 1e6 / sysconf(_SC_CLK_TCK);

sub ask
{
	my ($socket, $database, $sql) = @_;
	open(my $in, '-|', 'psql', '-XAtq', '-h', $socket, '-U', 'postgres',
		'-d', $database, '-v', 'ON_ERROR_STOP=1', '-c', $sql) or die "psql: $!\n";
	my $answer = join('', <$in>);
	close($in) or die "psql failed in $database: $sql\n";
	chomp $answer;
	return $answer;
}

sub read_stat
{
	my ($pid) = @_;
	open(my $in, '<', "/proc/$pid/stat") or return;
	my $line = <$in> // return;
	# the name in parentheses may hold spaces; from the state on they are plain
	$line =~ s/^.*\) // or return;
	my @field = split(' ', $line);
	return { parent => $field[1], own_us => ($field[11] + $field[12]) * $tick_us,
		children_us => ($field[13] + $field[14]) * $tick_us };
}

# utime + stime of a process; in nanoseconds where the kernel tells them
# (utime and stime are in ticks)
sub process_cpu_us
{
	my ($pid) = @_;
	if (open(my $in, '<', "/proc/$pid/schedstat"))
	{
		my ($ns) = split(' ', <$in> // '');
		return $ns / 1000 if $ns;
	}
	my $stat = read_stat($pid);
	return $stat ? $stat->{own_us} : 0;
}

# CPU time of all processes of the server, ended ones included (they are in the
# postmaster's account of its children), in microseconds
sub server_cpu_us
{
	my ($data) = @_;
	open(my $in, '<', "$data/postmaster.pid") or die "no postmaster.pid\n";
	my $postmaster = <$in> + 0;
	close($in);
	my $self = read_stat($postmaster) or die "the server is gone\n";
	my $total = process_cpu_us($postmaster) + $self->{children_us};
	opendir(my $proc, '/proc') or die "/proc: $!\n";
	foreach my $pid (grep { /^\d+$/ } readdir($proc))
	{
		my $stat = read_stat($pid);
		$total += process_cpu_us($pid) if $stat && $stat->{parent} == $postmaster;
	}
	return $total;
}

sub median
{
	my @sorted = sort { $a <=> $b } grep { defined } @_;
	return unless @sorted;
	my $middle = int(@sorted / 2);
	return @sorted % 2 ? $sorted[$middle]
	  : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

sub first_line
{
	my ($file, $pattern) = @_;
	open(my $in, '<', $file) or return '?';
	while (my $line = <$in>)
	{
		return $1 if $line =~ $pattern;
	}
	return '?';
}

sub machine
{
	return (
		cpu => first_line('/proc/cpuinfo', qr/^model name\s*:\s*(.*?)\s*$/),
		cores => scalar(() = `cat /proc/cpuinfo` =~ /^processor/mg),
		memory_mb => int(first_line('/proc/meminfo', qr/^MemTotal:\s*(\d+)/) / 1024));
}

1;
