-- Slices: how far the spending of a ceiling may go, written so that it outlives a loss of power.

-- name: draw
INSERT INTO slice (owner_epoch, ceiling, start_ns, end_ns, amount_nanos, boot, drawn_ns)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (ceiling, start_ns, owner_epoch) DO UPDATE
SET amount_nanos = max(slice.amount_nanos, excluded.amount_nanos)
WHERE slice.state = 'drawn';

-- While the machine runs on, every record of a dead owner is there.
-- name: return_dead
UPDATE slice SET state = 'returned' WHERE state = 'drawn' AND owner_epoch < :epoch AND boot = :boot;

-- name: return_own
UPDATE slice SET state = 'returned' WHERE state = 'drawn' AND owner_epoch = :epoch;

-- name: forget_returned
DELETE FROM slice WHERE state = 'returned';

-- name: dead
SELECT ceiling, start_ns, end_ns, max(amount_nanos) FROM slice
WHERE state = 'drawn' AND owner_epoch < :epoch GROUP BY ceiling, start_ns, end_ns;

-- name: lapse
UPDATE slice SET state = 'lapsed', lapsed_nanos = CASE WHEN amount_nanos = :amount_nanos THEN :lapsed_nanos ELSE 0 END
WHERE state = 'drawn' AND owner_epoch < :epoch AND ceiling = :ceiling AND start_ns = :start_ns;

-- name: lapsed
SELECT ceiling, start_ns, sum(lapsed_nanos) FROM slice
WHERE state = 'lapsed' AND lapsed_nanos > 0 GROUP BY ceiling, start_ns;
