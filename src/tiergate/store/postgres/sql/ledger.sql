-- Statements that are other ones on PostgreSQL than in `store/sql/ledger.sql`; the rest of that file is used here too.

-- name: add_owner
INSERT INTO owner (id, pid, seat, started_ns, heartbeat_ns, steady_ns)
VALUES (:id, :pid, :seat, now_ns(), now_ns(), now_ns()) RETURNING epoch;

-- Every transaction begins with these two. The first keeps it apart from whoever moves how far the sums have come; it
-- is a statement of its own, so that the second sees what came before the lock was given.
-- name: beside_others
SELECT pg_advisory_xact_lock_shared(1952542311, 1);

-- The lock on the owner's row makes its burial wait for this transaction, or this one find it buried.
-- name: owner_alive
SELECT before_ns, calls_from_ns FROM owner, rolled WHERE epoch = ? AND state = 'alive' FOR SHARE OF owner;

-- name: heartbeat
UPDATE owner
SET heartbeat_ns = now_ns(), steady_ns = CASE WHEN now_ns() - heartbeat_ns > :gap_ns THEN now_ns() ELSE steady_ns END
WHERE epoch = :epoch AND state = 'alive';

-- name: leave
UPDATE owner SET state = 'left', ended_ns = now_ns() WHERE epoch = :epoch AND state = 'alive';

-- Whoever had this seat is dead, since its lock was freed; so is whose heart has stopped, unless the server was away a
-- moment ago, when nobody's could beat. Who is in the middle of a transaction is passed over for now.
-- name: bury_at_start
UPDATE owner SET state = 'dead', ended_ns = now_ns()
WHERE epoch IN (
    SELECT epoch FROM owner
    WHERE state = 'alive' AND epoch <> :epoch
      AND (seat = :seat OR (heartbeat_ns < now_ns() - :dead_ns
                            AND pg_postmaster_start_time() < now() - make_interval(secs => :dead_ns / 1e9)))
    FOR UPDATE SKIP LOCKED);

-- Only somebody whose own heart has beaten steadily as long may say so of others: where the database was out of
-- reach, all hearts have stopped, and each needs time to come back.
-- name: bury_others
UPDATE owner SET state = 'dead', ended_ns = now_ns()
WHERE epoch IN (
    SELECT epoch FROM owner
    WHERE state = 'alive' AND heartbeat_ns < now_ns() - :dead_ns
      AND EXISTS (SELECT 1 FROM owner AS me WHERE me.epoch = :epoch AND me.steady_ns < now_ns() - :dead_ns)
    FOR UPDATE SKIP LOCKED);

-- name: lapsing
SELECT DISTINCT call_id FROM attempt
WHERE hold_state = 'held' AND owner_epoch IN (SELECT epoch FROM owner WHERE state <> 'alive');

-- name: lapse_holds
UPDATE attempt SET hold_state = 'lapsed'
WHERE hold_state = 'held' AND owner_epoch IN (SELECT epoch FROM owner WHERE state <> 'alive');

-- name: lapse_calls
UPDATE call SET end_state = 'lapsed'
WHERE end_state IS NULL AND owner_epoch IN (SELECT epoch FROM owner WHERE state <> 'alive');

-- name: open_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, owner_epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- name: hold
INSERT INTO attempt (call_id, n, provider, model, tier, credential_id, queued_ns, permit_ns, in_flight, price_id,
                     owner_epoch, bound_nanos, prompt_shape)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- A hold that may have been committed when the connection was lost. That of another owner is refused as a NULL.
-- name: hold_again
INSERT INTO attempt (call_id, n, provider, model, tier, credential_id, queued_ns, permit_ns, in_flight, price_id,
                     owner_epoch, bound_nanos, prompt_shape)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (call_id, n) DO UPDATE
SET hold_state = CASE WHEN attempt.owner_epoch = excluded.owner_epoch THEN attempt.hold_state END;

-- name: settle
UPDATE attempt
SET hold_state = ?, replica = ?, sent_ns = ?, first_ns = ?, last_ns = ?, outcome = ?, blame = ?, error_code = ?,
    status = ?, input = ?, cache_read = ?, cache_write_5m = ?, cache_write_1h = ?, output = ?, reasoning = ?,
    audio_in = ?, audio_out = ?, images = ?, usage_source = ?, cash_nanos = ?, upstream_cost_nanos = ?,
    upstream_request_id = ?, service_tier = ?, gpu_ms = ?
WHERE call_id = ? AND n = ? AND owner_epoch = ? AND hold_state = 'held';

-- name: close_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, owner_epoch,
                  first_event_ns, last_event_ns, finish_reasons, error_code, end_state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET first_event_ns = excluded.first_event_ns, last_event_ns = excluded.last_event_ns,
    finish_reasons = excluded.finish_reasons, error_code = excluded.error_code, end_state = excluded.end_state
WHERE call.end_state IS NULL AND call.owner_epoch = excluded.owner_epoch;

-- name: read_counted
SELECT provider, model, prompt_shape, input + cache_read + cache_write_5m + cache_write_1h + audio_in
FROM attempt WHERE prompt_shape IS NOT NULL AND usage_source = 'reported'
ORDER BY call_id DESC, n DESC LIMIT ?;

-- name: resolve
UPDATE attempt SET hold_state = 'settled', outcome = 'ignore', cash_nanos = :cash_nanos, error_code = 'resolved'
WHERE call_id = :call_id AND n = :n AND hold_state = 'lapsed';

-- Two replicas must not take away the same money.
-- name: settled_cash
SELECT cash_nanos FROM attempt WHERE call_id = :call_id AND n = :n AND hold_state = 'settled' FOR UPDATE;
