-- What is spent and held of each ceiling, kept in step with the attempts by triggers (`migrations`).

-- Where there are balances, owners change them one after the other: what a batch needs is locked by one lock, in one
-- place, before any other, so that no two wait for each other.
-- name: with_money
SELECT pg_advisory_xact_lock(1952542311, 3) WHERE EXISTS (SELECT FROM balance);

-- name: alone_with_money
SELECT pg_advisory_xact_lock(1952542311, 3);

-- name: read
SELECT scope, name, start_ns, end_ns, spent_nanos, lapsed_nanos, held_nanos, told_nanos FROM balance
WHERE (scope, name, start_ns, end_ns) IN (SELECT * FROM unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[]));

-- name: make
INSERT INTO balance (scope, name, start_ns, end_ns, spent_nanos, lapsed_nanos, held_nanos)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: held
SELECT call.key, call.team, call.asked_model, attempt.tier, call.job_id, sum(coalesce(attempt.bound_nanos, 0))
FROM attempt JOIN call ON call.id = attempt.call_id
WHERE attempt.hold_state = 'held' AND call.received_ns >= :start_ns AND call.received_ns < :end_ns
GROUP BY 1, 2, 3, 4, 5;

-- name: tell
UPDATE balance SET told_nanos = :nanos
WHERE scope = :scope AND name = :name AND start_ns = :start_ns AND end_ns = :end_ns AND told_nanos < :nanos;
