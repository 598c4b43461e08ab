# Audit log: a dump restores it whole, guarded, and goes on recording.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('audit_dump');
$node->init;
$node->start;
my $dump = $node->basedir . '/dump.sql';

$node->safe_psql('postgres', q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id int PRIMARY KEY, name text);
	SELECT finance.audit_table('item');
	INSERT INTO item SELECT g, 'item ' || g FROM generate_series(1, 1500) AS g;
	UPDATE item SET name = 'changed' WHERE id <= 3;
	DELETE FROM item WHERE id = 1;
	SELECT finance.create_account('a', 'EUR', min_available => -100);
	SELECT finance.create_account('b', 'EUR');
	SELECT finance.transfer('a', 'b', 12.50)});
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump ],
	'restore');

my $everything =
  'SELECT count(*), md5(string_agg(r::text, chr(10) ORDER BY id)) FROM finance.audit_record r';
my $before = $node->safe_psql('postgres', $everything);
like($before, qr/^1508\|/, 'the records');
is($node->safe_psql('restored', $everything), $before, 'are restored to the byte');

my $transfers = 'SELECT count(*), min(t::text) FROM finance.transfer t';
like($node->safe_psql('postgres', $transfers), qr/^1\|/, 'the transfer');
is($node->safe_psql('restored', $transfers), $node->safe_psql('postgres', $transfers),
	'is restored');

my $partition = $node->safe_psql('restored',
	'SELECT DISTINCT tableoid::regclass FROM finance.audit_record');
for my $table ('finance.audit_record', $partition)
{
	for my $command ("INSERT INTO $table SELECT * FROM $table", "UPDATE $table SET amount = 1",
		"DELETE FROM $table", "TRUNCATE $table")
	{
		my ($code, $out, $err) = $node->psql('restored', $command,
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		like($err, qr/LG201/, "refused after restore: $command");
	}
}
is($node->safe_psql('restored', q{SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger
		WHERE tgrelid = 'item'::regclass}), 'OORAO', 'the row triggers are there');
$node->safe_psql('restored', q{INSERT INTO item VALUES (2000, 'later')});
is($node->safe_psql('restored', q{SELECT count(*) FROM finance.audit_record
		WHERE row_key = '{"id":2000}'}), '1', 'and record');
is($node->safe_psql('restored', q{SELECT finance.audit_table('item')}), '0',
	'audit_table finds nothing to do');

# the restored one dumps the same again
$node->safe_psql('postgres', 'CREATE DATABASE again TEMPLATE template0');
$node->command_ok([ 'pg_dump', '-f', $dump, 'restored' ], 'dump of the restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'again', '-f', $dump ],
	'restored again');
is($node->safe_psql('again', $everything), $node->safe_psql('restored', $everything),
	'the same again');

$node->safe_psql('restored', 'DROP EXTENSION finance CASCADE');
is($node->safe_psql('restored', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'finance'}),
	'0', 'and drops');
$node->safe_psql('restored', q{INSERT INTO item VALUES (2001, 'after')});

$node->stop;
done_testing();
