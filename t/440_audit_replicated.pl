# Audited tables of a subscriber of logical replication: each change is recorded
# once, whether it was replicated or made there.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tables = q{
	CREATE TABLE item (id int PRIMARY KEY, name text);
	CREATE TABLE part (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20)};

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
$publisher->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$publisher->start;
$publisher->safe_psql('postgres', $tables);
$publisher->safe_psql('postgres', q{
	INSERT INTO item SELECT i, 'copied' FROM generate_series(1, 20) i;
	CREATE PUBLICATION everything FOR TABLE item, part WITH (publish_via_partition_root = true)});

my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
$subscriber->start;
$subscriber->safe_psql('postgres', $tables);
$subscriber->safe_psql('postgres', q{
	CREATE EXTENSION finance;
	-- as whom PostgreSQL 16 and later apply what is replicated; has no right in finance
	CREATE ROLE keeper;
	ALTER TABLE item OWNER TO keeper;
	SELECT finance.audit_table('item', mask => '{"name": "redact"}');
	SELECT finance.audit_table('part')});
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION mine CONNECTION '$connection' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'mine');

# operations recorded, counted

sub news
{
	my ($where) = @_;

	return $subscriber->safe_psql('postgres', qq{
		SELECT coalesce(string_agg(operation || ' ' || object || ' ' || n, ', ' ORDER BY operation, object), '')
		FROM (SELECT operation, object, count(*) AS n FROM finance.audit_record
			WHERE operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') AND $where
			GROUP BY 1, 2) AS r});
}

# what a statement of the publisher leaves in the subscriber's log
sub replicate
{
	my ($sql) = @_;
	my $last = $subscriber->safe_psql('postgres',
		'SELECT coalesce(max(id), 0) FROM finance.audit_record');

	$publisher->safe_psql('postgres', $sql);
	$publisher->wait_for_catchup('mine');
	return news("id > $last");
}

sub change_there
{
	my ($sql) = @_;
	my $last = $subscriber->safe_psql('postgres',
		'SELECT coalesce(max(id), 0) FROM finance.audit_record');

	$subscriber->safe_psql('postgres', $sql);
	return news("id > $last");
}

is(news('true'), 'INSERT public.item 20', 'the initial copy: each row once');
is($subscriber->safe_psql('postgres', q{
		SELECT DISTINCT request::jsonb #>> '{new,name}' FROM finance.audit_record
		WHERE operation = 'INSERT'}),
	'[redacted]', 'masked as chosen');
is(replicate("INSERT INTO item SELECT i, 'streamed' FROM generate_series(21, 25) i"),
	'INSERT public.item 5', 'replicated INSERT');
is(replicate("UPDATE item SET name = 'changed' WHERE id <= 3"),
	'UPDATE public.item 3', 'replicated UPDATE');
is(replicate('DELETE FROM item WHERE id <= 2'),
	'DELETE public.item 2', 'replicated DELETE');
is($subscriber->safe_psql('postgres', q{
		SELECT string_agg(row_key, ' ' ORDER BY row_key) FROM finance.audit_record
		WHERE operation = 'DELETE'}),
	'{"id":1} {"id":2}', 'with their keys');
is(replicate('TRUNCATE item'), 'TRUNCATE public.item 1', 'replicated TRUNCATE');
is(replicate("INSERT INTO part VALUES (1, 'a'), (11, 'b')"),
	'INSERT public.part_1 1, INSERT public.part_2 1',
	'replicated INSERT into a partitioned table: in the partitions');
is(replicate('UPDATE part SET id = 12 WHERE id = 1'),
	'DELETE public.part_1 1, INSERT public.part_2 1',
	'a replicated row that moves: a DELETE and an INSERT');

is(change_there("INSERT INTO item SELECT i, 'own' FROM generate_series(1, 10000) i"),
	'INSERT public.item 10000', 'an INSERT of 10,000 rows of its own');
is(change_there("UPDATE item SET name = 'x' WHERE id <= 10"), 'UPDATE public.item 10',
	'an UPDATE of its own');
is(change_there("COPY item FROM PROGRAM 'seq 10001 10500 | sed s/\$/,copied/' (FORMAT csv)"),
	'INSERT public.item 500', 'COPY of its own');
is(change_there('UPDATE part SET id = 1 WHERE id = 12'), 'UPDATE public.part 1',
	'a row of its own that moves: an UPDATE of the table named');
is(change_there(q{SET session_replication_role = replica;
		UPDATE part SET id = 2 WHERE id = 1; UPDATE part SET id = 13 WHERE id = 2; DELETE FROM item}),
	'DELETE public.item 10500, DELETE public.part_1 1, INSERT public.part_2 1, UPDATE public.part_1 1',
	'under session_replication_role = replica');
is(change_there(q{SET session_replication_role = replica;
		MERGE INTO item i USING (VALUES (1), (2)) AS s (id) ON i.id = s.id
		WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged');
		MERGE INTO item i USING (VALUES (1), (3)) AS s (id) ON i.id = s.id
		WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged');
		INSERT INTO item VALUES (2, 'conflict') ON CONFLICT (id) DO UPDATE SET name = 'conflict';
		TRUNCATE item}),
	'DELETE public.item 1, INSERT public.item 3, TRUNCATE public.item 1, UPDATE public.item 1',
	'MERGE and ON CONFLICT there');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM finance.audit_record
		WHERE leaf_hash IS NULL OR system_identifier
			<> (SELECT system_identifier FROM pg_control_system())}),
	'0', 'all are records of the subscriber');

$subscriber->stop;
$publisher->stop;
done_testing();
