\set from random(1, 10000)
\set to 1 + (:from + random(0, 9998)) % 10000
\set cents random(1, 10000)
\set key random(1, 9000000000000000000)
SELECT ledger.transfer(:from, :to, :cents * 0.01, 'EUR', :key);
