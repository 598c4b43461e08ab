# Reading the audit log where it came into another cluster, and back: transaction
# ids begin anew, so places in the log are used again; pages and versions follow
# the clusters all the same.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceSeal;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $home = PostgreSQL::Test::Cluster->new('home');
my $away = PostgreSQL::Test::Cluster->new('away');
my $dump = $home->basedir . '/book.dump';

# sealed when we say so: no worker, and nothing else that takes transaction ids
foreach my $node ($home, $away)
{
	$node->init;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\nautovacuum = off\n");
	$node->start;
}

# the next transaction is to have this id
sub advance
{
	my ($node, $xid) = @_;

	$node->safe_psql('postgres', qq(
		DO \$\$ BEGIN
			WHILE pg_snapshot_xmax(pg_current_snapshot()) < '$xid'::xid8 LOOP
				PERFORM pg_current_xact_id();
				COMMIT;
			END LOOP;
		END \$\$));
}

sub change
{
	my ($node, $value, $database) = @_;

	$node->safe_psql($database, "UPDATE item SET v = '$value'");
}

# page by page, each way, whatever the length of a page: all records in order
sub is_read_right
{
	my ($node, $name, $database, @versions) = @_;
	my $last = $node->safe_psql($database, "SELECT string_agg(id::text, ' ' ORDER BY n) FROM everything");

	foreach my $length (1 .. 7, 1000)
	{
		is_query($node, "SELECT walk($length, false)", $last, "$name: pages of $length", $database);
		is_query($node, "SELECT walk($length, true)", join(' ', reverse split / /, $last), "$name: backwards, pages of $length", $database);
	}
	is_query($node, q(SELECT string_agg(row_state ->> 'v', ' ' ORDER BY version) FROM finance.audit_history('item', '{"id": 1}')),
		"@versions", "$name: versions", $database);
	is_query($node, q(SELECT new_value #>> '{}' FROM finance.audit_diff('item', '{"id": 1}', '-infinity', 'infinity') WHERE column_name = 'v'),
		$versions[-1], "$name: what it is now", $database);
	is_query($node, 'SELECT string_agg(id::text, chr(32)) FROM finance.audit_log(from_time => (SELECT min(recorded_at) FROM finance.audit_record), max_records => 1000)',
		$last, "$name: by time", $database);
	is_query($node, 'SELECT count(*) FROM finance.audit_log(from_time => (SELECT max(recorded_at) FROM finance.audit_record))', '1', "$name: the last one by time", $database);
}

advance($home, 3000);
$home->safe_psql('postgres', q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id int PRIMARY KEY, v text);
	SELECT finance.audit_table('item');
	INSERT INTO item VALUES (1, 'home0');
	CREATE FUNCTION walk(per_page int, backwards boolean) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		told text;
		page finance.audit_record;
		n int;
	BEGIN
		LOOP
			n := 0;
			FOR page IN SELECT * FROM finance.audit_log(after_xid => page.xid, after_sequence => page.sequence,
					after_id => page.id, max_records => per_page, newest_first => backwards) LOOP
				told := concat_ws(' ', told, page.id);
				n := n + 1;
			END LOOP;
			EXIT WHEN n < per_page;
		END LOOP;
		RETURN told;
	END $$;
	CREATE TABLE clusters (system_identifier bigint, turn int);
	INSERT INTO clusters SELECT system_identifier, 1 FROM pg_control_system();
	CREATE VIEW everything AS SELECT r.id,
		row_number() OVER (ORDER BY c.turn, r.xid, r.sequence) AS n
		FROM finance.audit_record r JOIN clusters c USING (system_identifier)});
change($home, "home$_", 'postgres') foreach 1 .. 3;
seal($home);
change($home, "home$_", 'postgres') foreach 4 .. 6;
my @versions = map { "home$_" } 0 .. 6;
is_read_right($home, 'at home', 'postgres', @versions);

# ------------------------------------------------------------------------
# into another cluster, whose transaction ids are lower, and then the same
# ------------------------------------------------------------------------

$home->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $home->connstr('postgres') ], 'dump');
$away->safe_psql('postgres', 'CREATE DATABASE book TEMPLATE template0');
$away->command_ok([ 'pg_restore', '--exit-on-error', '-d', $away->connstr('book'), $dump ], 'restore');
$away->safe_psql('book', 'INSERT INTO clusters SELECT system_identifier, 2 FROM pg_control_system()');
is_read_right($away, 'restored', 'book', @versions);
foreach my $turn ('before it seals', 'sealed')
{
	change($away, 'away' . @versions, 'book');
	push @versions, 'away' . @versions;
	advance($away, $away->safe_psql('book', "SELECT xid FROM finance.audit_record WHERE request -> 'new' ->> 'v' = 'home"
		. ($turn eq 'sealed' ? 5 : 2) . "'"));
	foreach (1 .. 2)
	{
		change($away, 'away' . @versions, 'book');
		push @versions, 'away' . @versions;
	}
	seal($away, 'book') if $turn eq 'sealed';
	is_read_right($away, "away, $turn", 'book', @versions);
}
change($away, 'away' . @versions, 'book');
push @versions, 'away' . @versions;
is_read_right($away, 'away, sealed in part', 'book', @versions);

my $twice = '(SELECT xid, sequence FROM finance.audit_record GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 1) AS p';
is_query($away, 'SELECT count(*) > count(DISTINCT (xid, sequence)) FROM finance.audit_record', 't', 'places are used twice', 'book');
my ($code, $out, $err) = $away->psql('book', "SELECT finance.audit_log(after_xid => p.xid, after_sequence => p.sequence) FROM $twice",
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/22023: after_xid and after_sequence name more than one record/, 'a place of two records is none');
($code, $out, $err) = $away->psql('book', 'SELECT finance.audit_log(after_id => 1)', extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/22023: after_id is given without/, 'an id is no place');
is_query($away, 'SELECT count(*) FROM finance.audit_log(after_xid => (SELECT max(xid) FROM finance.audit_record), after_sequence => 1000)',
	'0', 'a place after the last of this cluster', 'book');

# ------------------------------------------------------------------------
# and back, where transaction ids are higher than they were
# ------------------------------------------------------------------------

seal($away, 'book');
$away->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $away->connstr('book') ], 'dump away');
$home->safe_psql('postgres', 'CREATE DATABASE back TEMPLATE template0');
$home->command_ok([ 'pg_restore', '--exit-on-error', '-d', $home->connstr('back'), $dump ], 'restore at home');
my $left = $home->safe_psql('back', 'SELECT max(id) FROM finance.audit_record');
$home->safe_psql('back', qq(
	CREATE OR REPLACE VIEW everything AS SELECT r.id,
	row_number() OVER (ORDER BY CASE WHEN r.id > $left THEN 3 ELSE c.turn END, r.xid, r.sequence) AS n
	FROM finance.audit_record r JOIN clusters c USING (system_identifier)));
is_read_right($home, 'back', 'back', @versions);
foreach my $turn ('before it seals', 'sealed', 'sealed in part')
{
	change($home, 'back' . @versions, 'back');
	push @versions, 'back' . @versions;
	seal($home, 'back') if $turn eq 'sealed';
	is_read_right($home, "back, $turn", 'back', @versions);
}
is_query($home, 'SELECT count(*) FROM finance.verify_audit()', '0', 'all is right', 'back');

$home->stop;
$away->stop;
done_testing();
