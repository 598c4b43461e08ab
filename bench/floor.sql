\set from random(1, 10000)
\set to 1 + (:from + random(0, 9998)) % 10000
\set low least(:from, :to)
\set high greatest(:from, :to)
\set cents random(1, 10000) * case when :low = :from then 1 else -1 end
BEGIN;
UPDATE account SET balance = balance - :cents * 0.01 WHERE account_id = :low;
UPDATE account SET balance = balance + :cents * 0.01 WHERE account_id = :high;
COMMIT;
