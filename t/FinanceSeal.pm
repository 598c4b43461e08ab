# FinanceSeal.pm: what the tests of sealing share: an account of the audit tree
# of their own, in SQL, from the records on.
package FinanceSeal;

use strict;
use warnings;

use Exporter 'import';
use FinanceBook;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(seal is_sealed_right sealed_total all_sealed);

# what sealing must have come to; leaves as the bytes say, records as they are
my $views = q(
SET search_path = pg_temp, pg_catalog;
CREATE TEMP TABLE leaf AS
SELECT b.block, b.incarnation, b.first_leaf + i AS leaf,
	('x' || encode(substr(l.leaves, i * 52 + 1, 8), 'hex'))::bit(64)::bigint AS id,
	('x' || encode(substr(l.leaves, i * 52 + 9, 8), 'hex'))::bit(64)::bigint AS xid,
	('x' || encode(substr(l.leaves, i * 52 + 17, 4), 'hex'))::bit(32)::integer AS sequence,
	substr(l.leaves, i * 52 + 21, 32) AS leaf_hash
FROM finance.audit_block b
JOIN (SELECT block, leaves || ''::bytea AS leaves FROM finance.audit_leaves OFFSET 0) l USING (block),
	generate_series(0, length(l.leaves) / 52 - 1) AS i;
CREATE INDEX ON leaf (leaf);
CREATE INDEX ON leaf (block);
ANALYZE leaf;
-- a cluster to which the book came back has several incarnations: when each began
CREATE TEMP TABLE turn AS
SELECT i.*, lead(i.after) OVER (PARTITION BY i.system_identifier ORDER BY i.incarnation) AS until
FROM (SELECT i.incarnation, i.system_identifier,
		coalesce((SELECT b.last_xid FROM finance.audit_block b JOIN finance.audit_incarnation e USING (incarnation)
				  WHERE e.system_identifier = i.system_identifier AND e.incarnation < i.incarnation
				  ORDER BY b.block DESC LIMIT 1), '0') AS after
	FROM finance.audit_incarnation i) AS i;
CREATE TEMP TABLE wanted AS
SELECT row_number() OVER (ORDER BY n.incarnation, r.xid, r.sequence) - 1 AS leaf,
	n.incarnation, r.*
FROM finance.audit_record r JOIN turn n ON n.system_identifier = r.system_identifier
	AND r.xid > n.after AND (n.until IS NULL OR r.xid <= n.until);
CREATE TEMP TABLE block AS
SELECT row_number() OVER w AS n, lag(size, 1, 0::bigint) OVER w AS before,
	coalesce(lag(digest) OVER w, decode(repeat('00', 32), 'hex')) AS digest_before,
	sha256('\x03' || int8send(block) || int4send(incarnation) || int8send(size) || root || previous
		|| timestamptz_send(sealed_at) || pg_lsn_send(lsn) || int4send(timeline)) AS digest_wanted,
	(SELECT (array_agg(ROW(f.xid, f.sequence)::text ORDER BY leaf))[1]
			|| (array_agg(ROW(f.xid, f.sequence)::text ORDER BY leaf DESC))[1]
			|| min(id) || ' ' || max(id) FROM leaf f WHERE f.block = b.block) AS ends,
	b.*
FROM finance.audit_block b
WINDOW w AS (ORDER BY block);
);

# each: what must be so, and a query that finds what is not
my @rules = (
	'blocks follow each other' =>
	  'SELECT * FROM block WHERE block <> n OR first_leaf <> before',
	'each names the one before' =>
	  'SELECT * FROM block WHERE previous <> digest_before',
	'digests are what is written of them' =>
	  'SELECT * FROM block WHERE digest <> digest_wanted',
	'blocks say what is in them' =>
	  q(SELECT ends FROM block WHERE ends <> ROW(first_xid, first_sequence)::text || ROW(last_xid, last_sequence)::text || first_id || ' ' || last_id),
	'each record sealed once, in order' =>
	  q(SELECT l.leaf, l.id, w.id FROM leaf l FULL JOIN wanted w ON w.leaf = l.leaf
		WHERE (l.leaf IS NOT NULL OR w.leaf < (SELECT size FROM finance.audit_tree))
		AND (l.incarnation, l.id, l.xid::text::xid8, l.sequence, l.leaf_hash) IS DISTINCT FROM
			(w.incarnation, w.id, w.xid, w.sequence, w.leaf_hash)),
	'nodes are those of the leaves' =>
	  q(SELECT coalesce(n.level, k.level), coalesce(n.index, k.index) FROM finance.audit_node n
		FULL JOIN (SELECT level, leaf >> level AS index,
				finance._merkle_root(array_agg(leaf_hash ORDER BY leaf)) AS hash
			FROM leaf, generate_series(8, 20) AS level
			WHERE 1 << level <= (SELECT count(*) FROM leaf) GROUP BY 1, 2
			HAVING count(*) = 1 << level) k USING (level, index)
		WHERE n.hash IS DISTINCT FROM k.hash),
	'the tree is where the blocks end' =>
	  q(SELECT * FROM finance.audit_tree t JOIN finance.audit_block b ON b.block = (SELECT max(block) FROM finance.audit_block)
		WHERE (t.size, t.block, t.digest) IS DISTINCT FROM (b.size, b.block, b.digest)),
	'runs cover what they say' =>
	  q(SELECT * FROM finance.audit_term WHERE entries * 12 <> length(terms) OR end_leaf <= first_leaf),
	'runs do not overlap' =>
	  q(SELECT * FROM finance.audit_term a JOIN finance.audit_term b
		ON a.first_leaf < b.end_leaf AND b.first_leaf < a.end_leaf AND (a.level, a.first_leaf) <> (b.level, b.first_leaf)),
	'there are few runs' =>
	  'SELECT level, count(*) FROM finance.audit_term WHERE level < 100 GROUP BY 1 HAVING count(*) >= 16');

# roots of so many blocks, the last of them, are computed anew; terms of so many
# records looked up
sub is_sealed_right
{
	my ($node, $name, $database, %how) = @_;
	my $roots = $how{roots} // 20;
	my $sql = $views;
	my @names;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$sql .= "CREATE TEMP TABLE found (rule text, what text);\n";
	my @all = (
		@rules,
		'roots are those of the leaves' =>
		  "SELECT block FROM (SELECT * FROM block ORDER BY block DESC LIMIT $roots) b"
		  . ' WHERE root <> finance._merkle_root(ARRAY(SELECT leaf_hash FROM leaf l WHERE l.leaf < b.size ORDER BY leaf))',
		'records are found by what they are about' =>
		  'SELECT w.leaf, k.kind FROM (SELECT * FROM wanted WHERE leaf < (SELECT size FROM finance.audit_tree)'
		  . ' ORDER BY hashint8(leaf) LIMIT 100) w,'
		  . " LATERAL (VALUES ('account', account_id::text), ('account', counterparty_id::text), ('transfer', transfer_id::text),"
		  . " ('trace', CASE WHEN trace_until IS NOT NULL THEN trace_id::text END), ('row', object)) k (kind, what)"
		  . ' WHERE what IS NOT NULL AND NOT EXISTS (SELECT FROM finance._audit_find(finance._audit_term(kind, what, tenant_id, row_key)) f'
		  . ' WHERE (f.leaf, f.id, f.xid, f.sequence) = (w.leaf, w.id, w.xid, w.sequence))');
	while (my ($rule, $query) = splice @all, 0, 2)
	{
		$sql .= "INSERT INTO found SELECT '$rule', q::text FROM ($query) q LIMIT 3;\n";
	}
	$sql .= "SELECT rule, what FROM found;\n";
	is($node->safe_psql($database // 'postgres', $sql), '', "$name: sealed right");
}

sub seal
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres', 'SELECT finance.seal_audit()');
}

sub sealed_total
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		'SELECT coalesce((SELECT size FROM finance.audit_tree), 0)');
}

# of this cluster and those before
sub all_sealed
{
	return 'SELECT (SELECT size FROM finance.audit_tree) = (SELECT count(*) FROM finance.audit_record)';
}

1;
