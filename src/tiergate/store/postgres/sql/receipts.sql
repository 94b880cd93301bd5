-- Statements that are other ones on PostgreSQL than in `store/sql/receipts.sql`, since several owners write here.

-- With each hold of a call; the first one writes it. What a dead owner left is taken over by who asks again; one that
-- another call holds, which another replica has let in meanwhile, is refused as a NULL.
-- name: open
INSERT INTO receipt (key, endpoint, idempotency_hash, tenant, fingerprint, call_id, owner_epoch, created_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, endpoint, idempotency_hash) DO UPDATE
SET state = 'running', owner_epoch = excluded.owner_epoch, created_ns = excluded.created_ns,
    call_id = CASE WHEN receipt.call_id = excluded.call_id
                        OR (receipt.state = 'unknown' AND receipt.fingerprint = excluded.fingerprint)
                   THEN excluded.call_id END;

-- name: finish
UPDATE receipt SET state = 'done', ended_ns = ?, reply = ?
WHERE call_id = ? AND owner_epoch = ? AND state = 'running';

-- name: free
UPDATE receipt SET state = 'freed', ended_ns = ?
WHERE call_id = ? AND owner_epoch = ? AND state = 'running';

-- name: lapse
UPDATE receipt SET state = 'unknown'
WHERE state = 'running' AND owner_epoch IN (SELECT epoch FROM owner WHERE state <> 'alive');

-- name: forget
DELETE FROM receipt
WHERE (key, endpoint, idempotency_hash) IN (
    SELECT key, endpoint, idempotency_hash FROM receipt
    WHERE created_ns < :before_ns AND state <> 'running' LIMIT :most);
