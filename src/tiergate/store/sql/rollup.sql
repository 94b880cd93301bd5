-- Adding up what is over, slot by slot, and forgetting calls that are old. See `store/rollups.py`.

-- name: rolled
SELECT before_ns, calls_from_ns FROM rolled;

-- name: roll_to
UPDATE rolled SET before_ns = :before_ns WHERE before_ns < :before_ns;

-- name: first_open
SELECT min(id) FROM call WHERE end_state IS NULL;

-- name: first_call
SELECT id FROM call WHERE id >= ? ORDER BY id LIMIT 1;

-- name: first_stale
SELECT min(slot_ns) FROM stale_slot WHERE slot_ns < ?;

-- name: mark_stale
INSERT INTO stale_slot VALUES (?) ON CONFLICT DO NOTHING;

-- name: mark_fresh
DELETE FROM stale_slot WHERE slot_ns = ?;

-- name: clear_slot
DELETE FROM rollup WHERE slot_ns = ?;

-- name: add_rollup
INSERT INTO rollup (key, team, tag, asked_model, class, target, tier, slot_ns, calls, succeeded, attempts, unpriced,
                    input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_in, audio_out, images,
                    cash_nanos, lapsed_nanos, bounded_nanos, gpu_ms, avoided_input, avoided_output, avoided_nanos)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- Only what is added up may go.
-- name: forget_before
UPDATE rolled
SET calls_from_ns = min(:before_ns, before_ns, coalesce((SELECT min(slot_ns) FROM stale_slot), :before_ns))
WHERE calls_from_ns < min(:before_ns, before_ns, coalesce((SELECT min(slot_ns) FROM stale_slot), :before_ns));

-- name: forget_attempts
DELETE FROM attempt
WHERE rowid IN (SELECT rowid FROM attempt WHERE call_id < :before ORDER BY call_id LIMIT :most);

-- name: forget_calls
DELETE FROM call WHERE rowid IN (SELECT rowid FROM call WHERE id < :before ORDER BY id LIMIT :most);

-- name: forget_rollups
DELETE FROM rollup WHERE slot_ns < ?;
