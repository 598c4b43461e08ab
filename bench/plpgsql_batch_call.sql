\set key random(1, 9000000000000000000)
SELECT count(*) FROM ledger.transfer_batch(ARRAY(SELECT ROW((1 + (random() * (:accounts / 2 - 1))::int)::text, (:accounts / 2 + 1 + (random() * (:accounts / 2 - 1))::int)::text, 1 + i % 100, :key || '-' || i, 'transfer', NULL, NULL)::ledger.request FROM generate_series(1, :n) i));
