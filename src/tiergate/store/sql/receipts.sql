-- Receipts: what an Idempotency-Key stands for. Each UPDATE names the state that it leaves.

-- A receipt that nobody needs any more makes room for the next of its name.
-- name: drop
DELETE FROM receipt
WHERE key = ? AND endpoint = ? AND idempotency_hash = ? AND (state = 'freed' OR created_ns < ?);

-- With each hold of a call; the first one writes it. What a dead owner left is taken over by who asks again.
-- name: open
INSERT INTO receipt (key, endpoint, idempotency_hash, tenant, fingerprint, call_id, owner_epoch, created_ns, room)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, zeroblob(16))
ON CONFLICT (key, endpoint, idempotency_hash) DO UPDATE
SET state = 'running', call_id = excluded.call_id, owner_epoch = excluded.owner_epoch,
    created_ns = excluded.created_ns
WHERE receipt.state = 'unknown' AND receipt.fingerprint = excluded.fingerprint;

-- name: finish
UPDATE receipt SET state = 'done', ended_ns = ?, reply = ?, room = NULL
WHERE call_id = ? AND owner_epoch = ? AND state = 'running';

-- name: free
UPDATE receipt SET state = 'freed', ended_ns = ?, room = NULL
WHERE call_id = ? AND owner_epoch = ? AND state = 'running';

-- name: read
SELECT state, fingerprint, call_id, created_ns, reply FROM receipt
WHERE key = ? AND endpoint = ? AND idempotency_hash = ? AND created_ns >= ?;

-- name: forget
DELETE FROM receipt
WHERE id IN (SELECT id FROM receipt WHERE created_ns < :before_ns AND state <> 'running' LIMIT :most);

-- name: lapse
UPDATE receipt SET state = 'unknown' WHERE state = 'running' AND owner_epoch < :epoch;

-- All text that is kept of a tenant's answers; one that is being answered now is told so by its flight.
-- name: erase
DELETE FROM receipt WHERE tenant = :tenant AND state <> 'running';
