-- Merkle trees and proofs: the public vectors of RFC 6962, all small trees
-- against the definition in the RFC, and that nothing altered verifies.
-- Run by pg_prove; leaves nothing behind.
\set ECHO none
\set QUIET 1
\pset format unaligned
\pset tuples_only true
\pset pager off
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS finance;

SELECT plan(104);

-- ------------------------------------------------------------------------
-- the public vectors
-- ------------------------------------------------------------------------

SELECT is(sha256('\x01' || 'N123'::bytea || 'N456'), '\xaa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb',
	'the vectors'' node is what the reference below computes');

CREATE TEMP TABLE vector_leaf AS
SELECT n::int AS n, finance._merkle_leaf(data) AS hash
FROM unnest(ARRAY['', '\x00', '\x10', '\x2021', '\x3031', '\x40414243', '\x5051525354555657',
	'\x606162636465666768696a6b6c6d6e6f']::bytea[]) WITH ORDINALITY AS input (data, n);
SELECT is((SELECT array_agg(hash ORDER BY n) FROM vector_leaf), ARRAY[
	'\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d', '\x96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
	'\x0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7', '\x07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7',
	'\xbc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b', '\x4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658',
	'\xb08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f', '\x46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1']::bytea[],
	'hashes of the leaves');
CREATE FUNCTION pg_temp.vector_leaves(size int) RETURNS bytea[] LANGUAGE sql AS
$$ SELECT coalesce(array_agg(hash ORDER BY n), '{}') FROM vector_leaf WHERE n <= size $$;

CREATE TEMP TABLE vector_root (size int, root bytea);
INSERT INTO vector_root VALUES
	(0, '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'),
	(1, '\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'),
	(2, '\xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'),
	(3, '\xaeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77'),
	(4, '\xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7'),
	(5, '\x4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4'),
	(6, '\x76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef'),
	(7, '\xddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c'),
	(8, '\x5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328');
SELECT is(finance._merkle_root(pg_temp.vector_leaves(size)), root, 'root of size ' || size) FROM vector_root ORDER BY size;

CREATE TEMP TABLE vector_inclusion (leaf_index int, tree_size int, path bytea[]);
INSERT INTO vector_inclusion VALUES
	(0, 1, '{}'),
	(0, 2, ARRAY['\x96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7']::bytea[]),
	(1, 2, ARRAY['\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d']::bytea[]),
	(2, 3, ARRAY['\xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125']::bytea[]),
	(1, 5, ARRAY['\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
		'\x5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
		'\xbc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b']::bytea[]),
	(0, 8, ARRAY['\x96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
		'\x5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
		'\x6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4']::bytea[]),
	(5, 8, ARRAY['\xbc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
		'\xca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
		'\xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7']::bytea[]);
SELECT is(finance._merkle_inclusion(pg_temp.vector_leaves(tree_size), leaf_index), path, format('path of leaf %s of %s', leaf_index, tree_size))
FROM vector_inclusion ORDER BY tree_size, leaf_index;
SELECT ok(finance.verify_inclusion(hash, leaf_index, tree_size, path, root), format('and it verifies: leaf %s of %s', leaf_index, tree_size))
FROM vector_inclusion JOIN vector_leaf ON n = leaf_index + 1 JOIN vector_root ON size = tree_size ORDER BY tree_size, leaf_index;

CREATE TEMP TABLE vector_consistency (old_size int, new_size int, proof bytea[]);
INSERT INTO vector_consistency VALUES
	(1, 1, '{}'),
	(1, 8, ARRAY['\x96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
		'\x5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
		'\x6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4']::bytea[]),
	(2, 5, ARRAY['\x5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
		'\xbc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b']::bytea[]),
	(6, 8, ARRAY['\x0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a',
		'\xca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
		'\xd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7']::bytea[]);
SELECT is(finance._merkle_consistency(pg_temp.vector_leaves(new_size), old_size), proof, format('proof of %s in %s', old_size, new_size))
FROM vector_consistency ORDER BY new_size, old_size;
SELECT ok(finance.verify_consistency(old_size, o.root, new_size, n.root, proof), format('and it verifies: %s in %s', old_size, new_size))
FROM vector_consistency JOIN vector_root o ON o.size = old_size JOIN vector_root n ON n.size = new_size ORDER BY new_size, old_size;

-- ------------------------------------------------------------------------
-- the vectors made invalid
-- ------------------------------------------------------------------------

-- what somebody might put for a hash, or for a proof
CREATE TEMP TABLE foreign_hash AS
SELECT * FROM (VALUES ('\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'::bytea),
	(decode(repeat('00', 32), 'hex')), (sha256('x'))) AS v (hash);
CREATE FUNCTION pg_temp.wrong_proofs(proof bytea[]) RETURNS TABLE (what text, wrong bytea[]) LANGUAGE sql AS $$
	SELECT 'one more', proof || hash FROM foreign_hash
	UNION ALL SELECT 'one more before', hash || proof FROM foreign_hash
	UNION ALL SELECT 'one more of its own', proof || proof[i] FROM generate_subscripts(proof, 1) i
	UNION ALL SELECT 'without one', proof[:i - 1] || proof[i + 1:] FROM generate_subscripts(proof, 1) i
	UNION ALL SELECT 'cut off', proof[:i - 1] FROM generate_subscripts(proof, 1) i
	UNION ALL SELECT 'another hash', proof[:i - 1] || hash || proof[i + 1:] FROM generate_subscripts(proof, 1) i, foreign_hash
	UNION ALL SELECT 'two swapped', proof[:i - 1] || proof[i + 1] || proof[i] || proof[i + 2:]
		FROM generate_series(1, cardinality(proof) - 1) i WHERE proof[i] <> proof[i + 1]
	UNION ALL SELECT '65', array_fill(sha256('x'), ARRAY[65])
	UNION ALL SELECT '64', array_fill(sha256('x'), ARRAY[64])
	UNION ALL SELECT 'many', array_fill(sha256('x'), ARRAY[5000])
$$;

SELECT is_empty($$SELECT leaf_index, tree_size, what FROM vector_inclusion JOIN vector_leaf ON n = leaf_index + 1 JOIN vector_root ON size = tree_size,
	pg_temp.wrong_proofs(path) WHERE finance.verify_inclusion(hash, leaf_index, tree_size, wrong, root)$$, 'no path that is altered');
SELECT is_empty($$SELECT leaf_index, tree_size, wrong FROM vector_inclusion JOIN vector_leaf ON n = leaf_index + 1 JOIN vector_root ON size = tree_size,
	generate_series(0, 20) wrong WHERE wrong <> leaf_index AND finance.verify_inclusion(hash, wrong, tree_size, path, root)$$, 'nor of another index');
SELECT is_empty($$SELECT leaf_index, tree_size, wrong FROM vector_inclusion JOIN vector_leaf ON n = leaf_index + 1 JOIN vector_root ON size = tree_size,
	unnest(ARRAY[0, tree_size / 2, tree_size * 2]) wrong WHERE finance.verify_inclusion(hash, leaf_index, wrong, path, root)$$, 'nor of a size of another height');
SELECT is_empty($$SELECT leaf_index, tree_size, l.n FROM vector_inclusion JOIN vector_root ON size = tree_size,
	vector_leaf l WHERE l.n <> leaf_index + 1 AND finance.verify_inclusion(l.hash, leaf_index, tree_size, path, root)$$, 'nor of another leaf');
SELECT is_empty($$SELECT leaf_index, tree_size, r.size FROM vector_inclusion JOIN vector_leaf ON n = leaf_index + 1,
	vector_root r WHERE r.size <> tree_size AND finance.verify_inclusion(hash, leaf_index, tree_size, path, r.root)$$, 'nor of another root');

SELECT is_empty($$SELECT old_size, new_size, what FROM vector_consistency JOIN vector_root o ON o.size = old_size JOIN vector_root n ON n.size = new_size,
	pg_temp.wrong_proofs(proof) WHERE finance.verify_consistency(old_size, o.root, new_size, n.root, wrong)$$, 'no proof that is altered');
SELECT is_empty($$SELECT old_size, new_size, o.size FROM vector_consistency JOIN vector_root n ON n.size = new_size,
	vector_root o WHERE o.size <> old_size AND finance.verify_consistency(old_size, o.root, new_size, n.root, proof)$$, 'nor of another old root');
SELECT is_empty($$SELECT old_size, new_size, n.size FROM vector_consistency JOIN vector_root o ON o.size = old_size,
	vector_root n WHERE n.size <> new_size AND finance.verify_consistency(old_size, o.root, new_size, n.root, proof)$$, 'nor of another new root');
SELECT is_empty($$SELECT old_size, new_size FROM vector_consistency JOIN vector_root o ON o.size = old_size JOIN vector_root n ON n.size = new_size
	WHERE old_size <> new_size AND finance.verify_consistency(new_size, n.root, old_size, o.root, proof)$$, 'nor backwards');
SELECT is_empty($$SELECT old_size, new_size, wrong FROM vector_consistency JOIN vector_root o ON o.size = old_size JOIN vector_root n ON n.size = new_size,
	generate_series(0, 20) wrong WHERE wrong <> old_size AND finance.verify_consistency(wrong, o.root, new_size, n.root, proof)$$, 'nor of another old size');
SELECT is_empty($$SELECT old_size, new_size, wrong FROM vector_consistency JOIN vector_root o ON o.size = old_size JOIN vector_root n ON n.size = new_size,
	unnest(ARRAY[0, new_size / 2, new_size * 2]) wrong WHERE finance.verify_consistency(old_size, o.root, wrong, n.root, proof)$$, 'nor of a new size of another height');

-- ------------------------------------------------------------------------
-- the empty tree, and two of one size
-- ------------------------------------------------------------------------

\set empty '''\\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855''::bytea'
\set one '''\\x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d''::bytea'
\set two '''\\xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125''::bytea'
SELECT ok(NOT finance.verify_inclusion(:empty, 0, 0, '{}', :empty), 'nothing is in the empty tree');
SELECT ok(finance.verify_consistency(0, :empty, 0, :empty, '{}'), 'the empty tree continues itself');
SELECT ok(NOT finance.verify_consistency(0, :one, 0, :one, '{}'), 'but has one root only');
SELECT ok(NOT finance.verify_consistency(0, :empty, 0, :one, '{}'), 'before and after');
SELECT ok(finance.verify_consistency(0, :empty, 2, :two, '{}'), 'all continue the empty tree');
SELECT ok(NOT finance.verify_consistency(0, :one, 2, :two, '{}'), 'which has one root only');
SELECT ok(NOT finance.verify_consistency(0, :empty, 2, :two, ARRAY[:one]), 'and needs no proof');
SELECT ok(finance.verify_consistency(2, :two, 2, :two, '{}'), 'of one size: the same');
SELECT ok(NOT finance.verify_consistency(2, :two, 2, :one, '{}'), 'or not');
SELECT ok(NOT finance.verify_consistency(2, :two, 2, :two, ARRAY[:one]), 'without a proof');
SELECT ok(NOT finance.verify_consistency(1, :one, 2, :two, '{}'), 'of two sizes: with one');
SELECT ok(NOT finance.verify_consistency(2, :two, 0, :empty, '{}'), 'nothing shrinks to the empty tree');

-- ------------------------------------------------------------------------
-- what is no proof, hash or number at all
-- ------------------------------------------------------------------------

SELECT throws_ok(format('SELECT finance.verify_inclusion(%s)', arguments), sqlstate, NULL, format('verify_inclusion(%s): %s', left(arguments, 60), sqlstate))
FROM (VALUES ('NULL, 0, 1, ''{}'', sha256('''')', '22004'), ('sha256(''''), NULL, 1, ''{}'', sha256('''')', '22004'),
	('sha256(''''), 0, NULL, ''{}'', sha256('''')', '22004'), ('sha256(''''), 0, 1, NULL, sha256('''')', '22004'), ('sha256(''''), 0, 1, ''{}'', NULL', '22004'),
	('''\x00'', 0, 1, ''{}'', sha256('''')', '22023'), ('sha256(''''), 0, 1, ''{}'', sha512('''')', '22023'), ('sha256(''''), 0, 1, ''{}'', ''''', '22023'),
	('sha256(''''), -1, 1, ''{}'', sha256('''')', '22023'), ('sha256(''''), 0, -1, ''{}'', sha256('''')', '22023'),
	('sha256(''''), 0, 2, ''{NULL}'', sha256('''')', '22023'), ('sha256(''''), 0, 2, ''{"\\x00"}'', sha256('''')', '22023'),
	('sha256(''''), 0, 4, ARRAY[ARRAY[sha256(''''), sha256('''')]], sha256('''')', '22023')) AS v (arguments, sqlstate);
SELECT throws_ok(format('SELECT finance.verify_consistency(%s)', arguments), sqlstate, NULL, format('verify_consistency(%s): %s', left(arguments, 60), sqlstate))
FROM (VALUES ('NULL, sha256(''''), 1, sha256(''''), ''{}''', '22004'), ('1, NULL, 1, sha256(''''), ''{}''', '22004'),
	('1, sha256(''''), NULL, sha256(''''), ''{}''', '22004'), ('1, sha256(''''), 1, NULL, ''{}''', '22004'), ('1, sha256(''''), 1, sha256(''''), NULL', '22004'),
	('-1, sha256(''''), 1, sha256(''''), ''{}''', '22023'), ('1, sha256(''''), -1, sha256(''''), ''{}''', '22023'),
	('1, ''\x00'', 1, sha256(''''), ''{}''', '22023'), ('1, sha256(''''), 1, ''\x00'', ''{}''', '22023'),
	('1, sha256(''''), 2, sha256(''''), ''{NULL}''', '22023')) AS v (arguments, sqlstate);
-- hashes that do lead to a root, which is that of a larger tree
SELECT ok(NOT finance.verify_inclusion(l.hash, 0, 1, ARRAY[f.hash], r.root), 'a path of one in a tree of one')
FROM vector_leaf l, vector_leaf f, vector_root r WHERE l.n = 2 AND f.n = 1 AND r.size = 2;
SELECT ok(finance.verify_consistency(3, o.root, 4, n.root, finance._merkle_consistency(pg_temp.vector_leaves(4), 3))
	AND NOT finance.verify_consistency(3, sha256('\x01' || :one || o.root), 4, sha256('\x01' || :one || n.root), finance._merkle_consistency(pg_temp.vector_leaves(4), 3) || :one),
	'both roots with one more above them')
FROM vector_root o, vector_root n WHERE o.size = 3 AND n.size = 4;
SELECT ok(NOT finance.verify_consistency(2, sha256('\x01' || :one || :two), 3, sha256('\x01' || :one || n.root), finance._merkle_consistency(pg_temp.vector_leaves(3), 2) || :one),
	'nor of an old tree that is complete')
FROM vector_root n WHERE n.size = 3;
-- the largest numbers
SELECT is(finance.verify_inclusion(sha256(''), 9223372036854775806, 9223372036854775807, array_fill(sha256(''), ARRAY[n]), sha256('')), false, 'a path of ' || n || ' in the largest tree')
FROM unnest('{0, 63, 64}'::int[]) AS n;
SELECT is(finance.verify_consistency(9223372036854775806, sha256(''), 9223372036854775807, sha256('x'), array_fill(sha256(''), ARRAY[n])), false, 'a proof of ' || n || ' in the largest tree')
FROM unnest('{0, 63, 64}'::int[]) AS n;
SELECT throws_ok($$SELECT finance._merkle_inclusion('{}', 0)$$, '22023', NULL, 'no path in the empty tree');
SELECT throws_ok($$SELECT finance._merkle_consistency('{}', 1)$$, '22023', NULL, 'no proof of a larger tree');

-- ------------------------------------------------------------------------
-- all trees of up to 130 leaves, against the RFC's recursive definitions
-- ------------------------------------------------------------------------

CREATE TEMP TABLE range_root (first int, until int, hash bytea, PRIMARY KEY (first, until));
CREATE FUNCTION pg_temp.split(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT max(1 << i) FROM generate_series(0, 8) i WHERE 1 << i < n $$;
-- MTH(D[first:until]), once for each range
CREATE FUNCTION pg_temp.mth(first_leaf int, until_leaf int) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	known bytea := (SELECT r.hash FROM range_root r WHERE r.first = first_leaf AND r.until = until_leaf);
	k int := pg_temp.split(until_leaf - first_leaf);
BEGIN
	IF known IS NULL THEN
		known := CASE WHEN until_leaf - first_leaf = 1 THEN sha256('\x00' || int4send(first_leaf))
			ELSE sha256('\x01' || pg_temp.mth(first_leaf, first_leaf + k) || pg_temp.mth(first_leaf + k, until_leaf)) END;
		INSERT INTO range_root VALUES (first_leaf, until_leaf, known);
	END IF;
	RETURN known;
END $$;
-- PATH(m, D[first:until]) with m counted from the tree's beginning
CREATE FUNCTION pg_temp.path(m int, first int, until int) RETURNS bytea[] LANGUAGE plpgsql AS $$
DECLARE
	k int := first + pg_temp.split(until - first);
BEGIN
	RETURN CASE WHEN until - first = 1 THEN '{}'
		WHEN m < k THEN pg_temp.path(m, first, k) || pg_temp.mth(k, until)
		ELSE pg_temp.path(m, k, until) || pg_temp.mth(first, k) END;
END $$;
-- SUBPROOF(m, D[first:until], known)
CREATE FUNCTION pg_temp.subproof(m int, first int, until int, known boolean) RETURNS bytea[] LANGUAGE plpgsql AS $$
DECLARE
	k int := first + pg_temp.split(until - first);
BEGIN
	RETURN CASE WHEN m = until AND known THEN '{}'
		WHEN m = until THEN ARRAY[pg_temp.mth(first, until)]
		WHEN m <= k THEN pg_temp.subproof(m, first, k, known) || pg_temp.mth(k, until)
		ELSE pg_temp.subproof(m, k, until, false) || pg_temp.mth(first, k) END;
END $$;

CREATE TEMP TABLE tree AS
SELECT n, (SELECT array_agg(finance._merkle_leaf(int4send(i)) ORDER BY i) FROM generate_series(0, n - 1) i) AS leaves, pg_temp.mth(0, n) AS root
FROM generate_series(1, 130) n;
CREATE TEMP TABLE pair AS
SELECT m, t.n, t.leaves[m + 1] AS leaf, t.root, o.root AS old_root,
	CASE WHEN m < t.n THEN finance._merkle_inclusion(t.leaves, m) END AS path, finance._merkle_consistency(t.leaves, m) AS proof
FROM tree t, LATERAL generate_series(1, t.n) m JOIN tree o ON o.n = m
UNION ALL
SELECT 0, t.n, t.leaves[1], t.root, finance._merkle_root('{}'), finance._merkle_inclusion(t.leaves, 0), finance._merkle_consistency(t.leaves, 0) FROM tree t;

SELECT is((SELECT count(*) FROM pair), 130 * 131 / 2 + 130::bigint, 'all pairs');
SELECT is_empty($$SELECT n FROM tree WHERE root IS DISTINCT FROM finance._merkle_root(leaves)$$, 'each root is as defined');
SELECT is_empty($$SELECT m, n FROM pair WHERE m < n AND path IS DISTINCT FROM pg_temp.path(m, 0, n)$$, 'each path is as defined');
SELECT is_empty($$SELECT m, n FROM pair WHERE m > 0 AND proof IS DISTINCT FROM pg_temp.subproof(m, 0, n, true)$$, 'each proof of consistency is as defined');
SELECT is_empty($$SELECT m, n FROM pair WHERE m < n AND finance.verify_inclusion(leaf, m, n, path, root) IS NOT TRUE$$, 'each path verifies');
SELECT is_empty($$SELECT m, n FROM pair WHERE finance.verify_consistency(m, old_root, n, root, proof) IS NOT TRUE$$, 'each proof of consistency verifies');

-- one bit of each hash
CREATE FUNCTION pg_temp.flip(hash bytea, seed int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$ SELECT set_bit(hash, seed % 256, 1 - get_bit(hash, seed % 256)) $$;
CREATE FUNCTION pg_temp.flip(proof bytea[], i int, seed int) RETURNS bytea[] LANGUAGE sql IMMUTABLE AS
$$ SELECT proof[:i - 1] || pg_temp.flip(proof[i], seed) || proof[i + 1:] $$;
SELECT is_empty($$SELECT m, n, i FROM pair, generate_subscripts(path, 1) i WHERE m < n AND
	finance.verify_inclusion(leaf, m, n, pg_temp.flip(path, i, 31 * m + 17 * n + i), root)$$, 'no path with a bit flipped in any of its hashes');
SELECT is_empty($$SELECT m, n FROM pair WHERE m < n AND (finance.verify_inclusion(pg_temp.flip(leaf, 31 * m + n), m, n, path, root)
	OR finance.verify_inclusion(leaf, m, n, path, pg_temp.flip(root, 31 * m + n)))$$, 'nor in the leaf or the root');
SELECT is_empty($$SELECT m, n, i FROM pair, generate_subscripts(proof, 1) i WHERE
	finance.verify_consistency(m, old_root, n, root, pg_temp.flip(proof, i, 31 * m + 17 * n + i))$$, 'no proof of consistency with a bit flipped in any of its hashes');
SELECT is_empty($$SELECT m, n FROM pair WHERE finance.verify_consistency(m, pg_temp.flip(old_root, 31 * m + n), n, root, proof)
	OR m > 0 AND finance.verify_consistency(m, old_root, n, pg_temp.flip(root, 31 * m + n), proof)$$, 'nor in a root');
SELECT is_empty($$SELECT m, n, what FROM pair, pg_temp.wrong_proofs(path) WHERE m < n AND n <= 33 AND finance.verify_inclusion(leaf, m, n, wrong, root)$$,
	'no path longer, shorter or in another order');
SELECT is_empty($$SELECT m, n, what FROM pair, pg_temp.wrong_proofs(proof) WHERE n <= 33 AND finance.verify_consistency(m, old_root, n, root, wrong)$$,
	'nor a proof of consistency');
SELECT is_empty($$SELECT m, n, w FROM pair, generate_series(0, 40) w WHERE m < n AND n <= 33 AND w <> m AND finance.verify_inclusion(leaf, w, n, path, root)$$,
	'no path is that of another index');
SELECT is_empty($$SELECT o.m, o.n, w.m FROM pair o JOIN pair w ON w.n = o.n AND w.m <> o.m WHERE o.n <= 33
	AND finance.verify_consistency(w.m, w.old_root, o.n, o.root, o.proof) AND NOT (w.proof = o.proof)$$, 'nor a proof that of another old tree');

SELECT * FROM finish();
ROLLBACK;
