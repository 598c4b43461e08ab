# Proofs of what the extension sealed itself: 5,000 records in blocks of odd
# sizes, each proved in the newest digest and in older ones; the digests that
# somebody kept outside, each the beginning of all later ones; the same answers
# from a standby and from a restored dump.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use FinanceBook;
use FinanceTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $soak = soak();
my $seed = $ENV{FIN_SEED} // 20261122;
my $wanted = 5000 * $soak;
note "FIN_SEED=$seed";
srand($seed);

# sealed when we say so
my $node = finance_node('main', allows_streaming => 1);
$node->append_conf('postgresql.conf', "finance.seal_interval = 3600000\nautovacuum = off\n");
$node->start;
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->start;

sub ask
{
	my ($query, $server, $database) = @_;
	return ($server // $node)->safe_psql($database // 'postgres', $query);
}

ask(q{
	CREATE EXTENSION finance;
	CREATE TABLE item (id serial PRIMARY KEY, name text);
	SELECT finance.audit_table('item');
	CREATE ROLE members;
	CREATE ROLE witness LOGIN;
	SELECT finance.grant_access('witness', 'witness');
	SELECT finance.create_tenant('other', member_role => 'members');
	SELECT finance.create_account('a', 'EUR', min_available => NULL), finance.create_account('b', 'EUR');
});

# what the server says to what it refuses
sub refusal
{
	my ($query) = @_;
	my (undef, undef, $error) = $node->psql('postgres', $query, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $error;
}

# ------------------------------------------------------------------------
# records of all kinds, sealed at odd moments; a digest is kept each time
# ------------------------------------------------------------------------

# what one transaction writes, some of it undone
sub work
{
	my ($records) = @_;
	my $n = 1 + int(rand($records));

	return "BEGIN; INSERT INTO item (name) SELECT repeat('x', g % 7) FROM generate_series(1, $n) g;"
	  . "SAVEPOINT s; DELETE FROM item WHERE id % 20 = 0; ROLLBACK TO s;"
	  . "SELECT finance.transfer('a', 'b', 1); COMMIT;"
	  . "SET finance.tenant = 1; INSERT INTO item (name) VALUES ('theirs'); RESET finance.tenant;";
}

my @kept;    # "size root"
my $n = 0;
while (1)
{
	my $known = @kept ? (split / /, $kept[-1])[0] : 0;

	last if $known >= $wanted;
	ask(join('', map { work(rand() < 0.3 ? 1 : 100) } 1 .. 1 + int(rand(4))));
	if ($n++ == 20)
	{
		# in doubt while others go on, and its records are in no block before
		ask("BEGIN; INSERT INTO item (name) VALUES ('in doubt'); PREPARE TRANSACTION 'p'");
		ask(work(30));
		my $xid = ask('SELECT transaction FROM pg_prepared_xacts');
		ask('SELECT finance.seal_audit()');
		is(ask("SELECT (finance.audit_digest()).size <= (SELECT count(*) FROM finance.audit_record WHERE xid < '$xid'::xid8)"),
			't', 'nothing is sealed that something may come before');
		my $later = ask("SELECT min(id) FROM finance.audit_record WHERE xid > '$xid'::xid8 AND tenant_id = 0");
		like(refusal("SELECT finance.audit_proof($later)"), qr/LG203/, 'a record is not sealed while one before it is in doubt');
		ask("COMMIT PREPARED 'p'");
		$node->restart;
	}
	poll_ok($node, "SELECT finance.seal_audit() IS NOT NULL AND (finance.audit_digest()).size = (SELECT count(*) FROM finance.audit_record)", 'all is sealed')
	  if $n % 10 == 0;
	ask('SELECT finance.seal_audit()');
	push @kept, answer($node, "SELECT size || ' ' || root FROM finance.audit_digest()") // next;
}
poll_ok($node, "SELECT finance.seal_audit() IS NOT NULL AND (finance.audit_digest()).size = (SELECT count(*) FROM finance.audit_record)", 'all is sealed at the end');
my ($size, $root) = split / /, ask("SELECT size || ' ' || root FROM finance.audit_digest()");
cmp_ok($size, '>=', $wanted, "$size records are sealed");
note ask('SELECT count(*) || \' blocks of \' || min(records) || \' to \' || max(records) FROM finance.audit_block');

# ------------------------------------------------------------------------
# digests
# ------------------------------------------------------------------------

is(ask(q{SELECT count(*) FROM finance.audit_block b, LATERAL finance.audit_digest(b.size) d
		WHERE d.digest IS DISTINCT FROM sha256('\x03' || int8send(d.block) || int4send(d.incarnation) || int8send(d.size)
			|| d.root || d.previous || timestamptz_send(d.sealed_at) || pg_lsn_send(d.lsn) || int4send(d.timeline))}),
	'0', 'each digest is what is written of it');
is(ask(q{SELECT count(*) FROM finance.audit_block b
		WHERE b.previous IS DISTINCT FROM coalesce((SELECT p.digest FROM finance.audit_block p WHERE p.block = b.block - 1), decode(repeat('00', 32), 'hex'))}),
	'0', 'and has that of the block before');
is(ask(q{SELECT count(*) FROM finance.audit_block b
		WHERE b.root IS DISTINCT FROM (SELECT finance._merkle_root(array_agg(r.leaf_hash ORDER BY r.xid, r.sequence))
			FROM (SELECT * FROM finance.audit_record ORDER BY xid, sequence LIMIT b.size) r)}),
	'0', 'each root is that of the records in the order of the log');

# ------------------------------------------------------------------------
# records
# ------------------------------------------------------------------------

for my $tenant (0, 1)
{
	my ($all, $proved, $elsewhere) = split /\|/, ask(qq{SET finance.tenant = $tenant;
		SELECT count(*), count(*) FILTER (WHERE finance.verify_inclusion(r.leaf_hash, r.leaf, $size, p.path, '$root')
			AND (p.record_id, p.leaf_index, p.leaf_hash, p.tree_size, p.root) = (r.id, r.leaf, r.leaf_hash, $size, '$root'::bytea)),
			count(*) FILTER (WHERE finance.verify_inclusion(r.leaf_hash, (r.leaf + 1) % $size, $size, p.path, '$root'))
		FROM (SELECT *, row_number() OVER (ORDER BY xid, sequence) - 1 AS leaf FROM finance.audit_record) r, LATERAL finance.audit_proof(r.id) p
		WHERE r.tenant_id = $tenant});

	cmp_ok($all, '>', 0, "tenant $tenant has records");
	is($proved, $all, 'each is proved, where it is');
	is($elsewhere, 0, 'and nowhere else');
}
my $theirs = ask('SELECT min(id) FROM finance.audit_record WHERE tenant_id = 1');
like(refusal("SELECT finance.audit_proof($theirs)"), qr/LG204/, 'a record of another tenant does not exist');

is(ask(qq{SELECT count(*) FILTER (WHERE NOT finance.verify_inclusion(r.leaf_hash, r.leaf, b.size, p.path, b.root))
		FROM (SELECT *, row_number() OVER (ORDER BY xid, sequence) - 1 AS leaf FROM finance.audit_record) r
		JOIN finance.audit_block b ON b.size > r.leaf, LATERAL finance.audit_proof(r.id, b.size) p
		WHERE r.tenant_id = 0 AND r.leaf % 97 = 0}),
	'0', 'in all older digests too');

# ------------------------------------------------------------------------
# what was kept outside, against what the server says of it now
# ------------------------------------------------------------------------

my %seen;
@kept = grep { !$seen{$_}++ } @kept;
while (@kept > 40)
{
	splice @kept, int(rand(@kept)), 1;
}
cmp_ok(scalar @kept, '>=', 30, 'digests were kept');
my $values = join ', ', map { my ($s, $r) = split / /; "($s, '$r'::bytea)" } @kept;
my $pairs = @kept * (@kept + 1) / 2;
is(ask(qq{WITH kept (size, root) AS (VALUES $values)
		SELECT count(*) FILTER (WHERE finance.verify_consistency(o.size, o.root, n.size, n.root, c.proof)), count(*)
		FROM kept o JOIN kept n ON n.size >= o.size, LATERAL finance.audit_consistency(o.size, n.size) c}),
	"$pairs|$pairs", 'each is the beginning of each later one');
is(ask(qq{WITH kept (size, root) AS (VALUES $values)
		SELECT count(*) FROM kept o JOIN kept n ON n.size > o.size, LATERAL finance.audit_consistency(o.size, n.size) c
		WHERE finance.verify_consistency(o.size, set_bit(o.root, 3, 1 - get_bit(o.root, 3)), n.size, n.root, c.proof)}),
	'0', 'and of no other');
is($node->safe_psql('postgres', 'SELECT (finance.audit_digest()).size, (c).new_size FROM finance.audit_consistency('
		  . (split / /, $kept[0])[0] . ') c', extra_params => [ '-U', 'witness' ]),
	"$size|$size", 'a witness may ask');

# ------------------------------------------------------------------------
# the same from a standby, and from a dump
# ------------------------------------------------------------------------

my $answers = qq{SELECT md5(string_agg(p::text, ',' ORDER BY r.id)), (SELECT md5(string_agg(finance.audit_consistency(size)::text, ',' ORDER BY size)) FROM finance.audit_block),
	(SELECT d.digest FROM finance.audit_digest() d)
	FROM finance.audit_record r, LATERAL finance.audit_proof(r.id) p WHERE r.tenant_id = 0 AND r.id % 13 = 0};
my $here = ask($answers);

$node->wait_for_catchup($standby);
is(ask($answers, $standby), $here, 'a standby proves the same');
is(ask('SELECT (SELECT count(*) FROM finance.verify_audit()), (SELECT count(*) FROM finance.check_integrity())', $standby),
	'0|0', 'and verifies the log, and the invariants');
ask('CREATE DATABASE restored TEMPLATE template0');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump ], 'restore');
is(ask($answers, $node, 'restored'), $here, 'a restored dump proves the same');

is(ask('SELECT count(*) FROM finance.check_integrity()'), '0', 'all invariants hold');
$standby->stop;
$node->stop;
done_testing();
