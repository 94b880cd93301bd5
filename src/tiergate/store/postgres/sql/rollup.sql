-- Statements that are other ones on PostgreSQL than in `store/sql/rollup.sql`, since several owners write here.

-- Only one owner at a time moves how far the sums have come; the others find something else to do.
-- name: try_upkeep
SELECT pg_try_advisory_xact_lock(1952542311, 2);

-- name: wait_shortly
SET LOCAL lock_timeout = '2s';

-- Waits until nobody is in the middle of a transaction (`beside_others` in ledger.sql).
-- name: alone
SELECT pg_advisory_xact_lock(1952542311, 1);

-- A record came late: whoever is adding this slot up must not put the sums in place.
-- name: mark_stale
INSERT INTO stale_slot (slot_ns) VALUES (?) ON CONFLICT (slot_ns) DO UPDATE SET adding = NULL;

-- name: begin_adding
INSERT INTO stale_slot (slot_ns, adding) VALUES (:slot_ns, :epoch)
ON CONFLICT (slot_ns) DO UPDATE SET adding = excluded.adding;

-- name: end_adding
DELETE FROM stale_slot WHERE slot_ns = :slot_ns AND adding = :epoch;

-- name: forget_before
UPDATE rolled
SET calls_from_ns = least(:before_ns, before_ns, (SELECT min(slot_ns) FROM stale_slot))
WHERE calls_from_ns < least(:before_ns, before_ns, (SELECT min(slot_ns) FROM stale_slot));

-- name: forget_attempts
DELETE FROM attempt
WHERE (call_id, n) IN (SELECT call_id, n FROM attempt WHERE call_id < :before ORDER BY call_id LIMIT :most);

-- name: forget_calls
DELETE FROM call WHERE id IN (SELECT id FROM call WHERE id < :before ORDER BY id LIMIT :most);
