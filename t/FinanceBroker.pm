# FinanceBroker.pm: a RabbitMQ server of the test's own.
#
# It has a node name, a directory, an epmd and ports of its own, listens on
# loopback only, and is ended by the ids of its processes.  Nothing of the
# system's RabbitMQ is read or written.
package FinanceBroker;

use strict;
use warnings;

use File::Temp;
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# where Debian's package and those of others have the scripts; the wrappers in
# sbin insist on being root
my @script_directories = ('/usr/lib/rabbitmq/bin', glob('/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin'));
my @started;

# so that a test that is ended ends its broker too
$SIG{TERM} = $SIG{INT} = sub { exit 1 };

sub script
{
	my ($name) = @_;
	my ($found) = grep { -x $_ } map { "$_/$name" } @script_directories;

	return $found;
}

# why there can be no broker here, or undef
sub missing
{
	return 'rabbitmq-server is not installed' unless script('rabbitmq-server');
	return 'epmd (of erlang) is not in PATH' if system('command -v epmd >/dev/null');
	return undef;
}

# A certificate for localhost that vouches for itself, and its key; or nothing
# where there is no openssl.
sub make_certificate
{
	my ($file, $key) = @_;

	return system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
		  . " -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
		  . " -out '$file' -keyout '$key' >/dev/null 2>&1") == 0;
}

sub new
{
	my ($class) = @_;
	my $directory = File::Temp::tempdir('brokerXXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $self = bless {
		directory => $directory,
		port => PostgreSQL::Test::Cluster::get_free_port(),
		dist => PostgreSQL::Test::Cluster::get_free_port(),
		epmd => PostgreSQL::Test::Cluster::get_free_port(),
		tls => PostgreSQL::Test::Cluster::get_free_port(),
	}, $class;
	my $conf = "$directory/rabbitmq.conf";

	mkdir "$directory/$_" foreach qw(data log home);
	PostgreSQL::Test::Utils::append_to_file("$directory/plugins", "[].\n");
	PostgreSQL::Test::Utils::append_to_file($conf, "listeners.tcp.default = 127.0.0.1:$self->{port}\n");
	if (make_certificate("$directory/certificate", "$directory/key"))
	{
		$self->{certificate} = "$directory/certificate";
		PostgreSQL::Test::Utils::append_to_file($conf, <<"END");
listeners.ssl.default = 127.0.0.1:$self->{tls}
ssl_options.certfile = $directory/certificate
ssl_options.keyfile = $directory/key
END
	}
	$self->{epmd_pid} =
	  $self->run_in_background('epmd', 'epmd', '-address', '127.0.0.1', '-port',
		$self->{epmd});
	push @started, $self;
	$self->start;
	return $self;
}

sub environment
{
	my ($self) = @_;
	my $directory = $self->{directory};

	return (
		HOME => "$directory/home",
		ERL_EPMD_PORT => $self->{epmd},
		ERL_EPMD_ADDRESS => '127.0.0.1',
		RABBITMQ_NODENAME => "finance$self->{port}\@localhost",
		RABBITMQ_MNESIA_BASE => "$directory/data",
		RABBITMQ_LOG_BASE => "$directory/log",
		RABBITMQ_DIST_PORT => $self->{dist},
		RABBITMQ_PID_FILE => "$directory/pid",
		RABBITMQ_CONFIG_FILE => "$directory/rabbitmq",
		RABBITMQ_CONF_ENV_FILE => "$directory/none",
		RABBITMQ_ENABLED_PLUGINS_FILE => "$directory/plugins",
		RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS =>
		  '-kernel inet_dist_use_interface {127,0,0,1}');
}

# returns the process id
sub run_in_background
{
	my ($self, $name, @command) = @_;
	my $log = "$self->{directory}/$name.log";
	my $pid = fork() // die "cannot fork: $!";

	return $pid if $pid;
	%ENV = (%ENV, $self->environment);
	chdir $self->{directory};
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>>', $log);
	open(STDERR, '>&', \*STDOUT);
	exec(@command) or do
	{
		print "$command[0]: $!\n";
		require POSIX;
		POSIX::_exit(127);
	};
}

# does not wait
sub start
{
	my ($self) = @_;

	unlink "$self->{directory}/pid";
	$self->{script_pid} =
	  $self->run_in_background('server', script('rabbitmq-server'));
}

sub wait_until_up
{
	my ($self) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return
		  if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port});
		usleep(100_000);
	}
	$self->show_log;
	die 'RabbitMQ does not start';
}

sub show_log
{
	my ($self) = @_;

	foreach my $file (glob("$self->{directory}/*.log $self->{directory}/log/*.log"))
	{
		note("---- $file\n", PostgreSQL::Test::Utils::slurp_file($file));
	}
}

# of the server itself, not of the script that started it
sub pid
{
	my ($self) = @_;
	my $file = "$self->{directory}/pid";

	return undef unless -s $file;
	my ($pid) = PostgreSQL::Test::Utils::slurp_file($file) =~ /^(\d+)/;
	return $pid;
}

sub signal
{
	my ($self, $signal) = @_;

	kill $signal, $self->pid or die "cannot signal RabbitMQ: $!";
}

# as by a loss of power; what it said was on disk must be there afterwards
sub crash
{
	my ($self) = @_;

	$self->signal('KILL');
	waitpid($self->{script_pid}, 0);
	$self->{script_pid} = undef;
}

sub ctl
{
	my ($self, @arguments) = @_;
	local %ENV = (%ENV, $self->environment);
	my $output;

	IPC::Run::run([ script('rabbitmqctl'), @arguments ], '<', \undef, '>&', \$output)
	  or die "rabbitmqctl @arguments: $output";
	return $output;
}

sub uri
{
	my ($self) = @_;
	return "amqp://guest:guest\@127.0.0.1:$self->{port}/";
}

sub tls_uri
{
	my ($self, $host) = @_;
	return "amqps://guest:guest\@$host:$self->{tls}/";
}

# what was started is killed; its data go with the directory
sub stop
{
	my ($self) = @_;
	my $server = $self->pid;

	kill 'KILL', grep { defined } $server, $self->{script_pid}, $self->{epmd_pid};
	waitpid($_, 0) foreach grep { defined } $self->{script_pid}, $self->{epmd_pid};
	$self->{script_pid} = $self->{epmd_pid} = undef;
	unlink "$self->{directory}/pid";
}

END
{
	my $status = $?;

	$_->stop foreach @started;
	$? = $status;
}

1;
