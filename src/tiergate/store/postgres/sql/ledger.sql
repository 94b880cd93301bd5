-- Statements that are other ones on PostgreSQL than in `store/sql/ledger.sql`; the rest of that file is used here too.

-- name: add_owner
INSERT INTO owner (id, pid, seat, started_ns, heartbeat_ns, steady_ns)
VALUES (:id, :pid, :seat, now_ns(), now_ns(), now_ns()) RETURNING epoch;

-- name: alone
SELECT pg_advisory_xact_lock(1952542311, 1);

-- name: attempts_of
SELECT call_id, n FROM attempt WHERE call_id = ANY(?);

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

-- Whoever had this seat is dead, since its lock was freed. The server may have to end its last transaction yet.
-- name: bury_seat
UPDATE owner SET state = 'dead', ended_ns = now_ns()
WHERE epoch IN (SELECT epoch FROM owner WHERE state = 'alive' AND seat = :seat AND epoch <> :epoch FOR UPDATE);

-- So is whose heart has stopped, unless the server was away a moment ago, when nobody's could beat. Who is in the middle
-- of a transaction is passed over for now.
-- name: bury_at_start
UPDATE owner SET state = 'dead', ended_ns = now_ns()
WHERE epoch IN (
    SELECT epoch FROM owner
    WHERE state = 'alive' AND epoch <> :epoch AND heartbeat_ns < now_ns() - :dead_ns
      AND pg_postmaster_start_time() < now() - make_interval(secs => :dead_ns / 1e9)
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

-- What a batch holds of one kind goes in one statement, a column as an array each: a statement for each row costs three
-- times as much on the server and twice as much here.
-- name: open_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, request_hash, prefix_hashes, cache_outcome, cache_reason,
                  owner_epoch, job_id, line_n, receipt, answer_of)
SELECT * FROM unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[],
                     ?::text[], ?::text[], ?::text[], ?::boolean[], ?::bigint[], ?::bigint[], ?::bigint[],
                     ?::bigint[], ?::text[], ?::bytea[], ?::bytea[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::bigint[],
                     ?::text[], ?::text[])
ON CONFLICT (id) DO NOTHING;

-- name: hold
INSERT INTO attempt (call_id, n, provider, model, tier, credential_id, queued_ns, permit_ns, in_flight,
                     price_id, owner_epoch, bound_nanos, prompt_shape)
SELECT * FROM unnest(?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[],
                     ?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::text[]);

-- A hold that may have been committed when the connection was lost. That of another owner is refused as a NULL.
-- name: hold_again
INSERT INTO attempt (call_id, n, provider, model, tier, credential_id, queued_ns, permit_ns, in_flight,
                     price_id, owner_epoch, bound_nanos, prompt_shape)
SELECT * FROM unnest(?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[],
                     ?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::text[])
ON CONFLICT (call_id, n) DO UPDATE
SET hold_state = CASE WHEN attempt.owner_epoch = excluded.owner_epoch THEN attempt.hold_state END;

-- The first settlement of an attempt stands, also of two that come together. `+ 0`: to look each up among all holds of
-- its owner would be quadratic, and a planner that has no statistics yet has chosen that.
-- name: settle
UPDATE attempt
SET hold_state = told.hold_state, replica = told.replica, sent_ns = told.sent_ns, first_ns = told.first_ns,
    last_ns = told.last_ns, outcome = told.outcome, blame = told.blame, error_code = told.error_code,
    status = told.status, input = told.input, cache_read = told.cache_read,
    cache_write_5m = told.cache_write_5m, cache_write_1h = told.cache_write_1h, output = told.output,
    reasoning = told.reasoning, audio_in = told.audio_in, audio_out = told.audio_out, images = told.images,
    usage_source = told.usage_source, cash_nanos = told.cash_nanos,
    upstream_cost_nanos = told.upstream_cost_nanos, upstream_request_id = told.upstream_request_id,
    service_tier = told.service_tier, gpu_ms = told.gpu_ms
FROM (SELECT DISTINCT ON (call_id, n) *
      FROM unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::text[],
                  ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[],
                  ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::text[],
                  ?::text[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[])
           WITH ORDINALITY AS row (hold_state, replica, sent_ns, first_ns, last_ns, outcome, blame, error_code,
                                    status, input, cache_read, cache_write_5m, cache_write_1h, output,
                                    reasoning, audio_in, audio_out, images, usage_source, cash_nanos,
                                    upstream_cost_nanos, upstream_request_id, service_tier, gpu_ms, call_id, n,
                                    owner_epoch, place)
      ORDER BY call_id, n, place) AS told
WHERE attempt.call_id = told.call_id AND attempt.n = told.n AND attempt.owner_epoch + 0 = told.owner_epoch
  AND attempt.hold_state = 'held';

-- name: close_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, request_hash, prefix_hashes, cache_outcome, cache_reason,
                  owner_epoch, job_id, line_n, receipt, answer_of, avoided_input, avoided_output, avoided_nanos, first_event_ns, last_event_ns, finish_reasons,
                  error_code, end_state)
SELECT id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
       generation, received_ns, deadline_ns, prompt_bytes, route, request_hash, prefix_hashes, cache_outcome, cache_reason,
       owner_epoch, job_id, line_n, receipt, answer_of, avoided_input, avoided_output, avoided_nanos, first_event_ns, last_event_ns, finish_reasons, error_code,
       end_state
FROM (SELECT DISTINCT ON (id) *
      FROM unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[],
                  ?::text[], ?::text[], ?::text[], ?::boolean[], ?::bigint[], ?::bigint[], ?::bigint[],
                  ?::bigint[], ?::text[], ?::bytea[], ?::bytea[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::bigint[],
                  ?::text[], ?::text[],
                  ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::text[])
           WITH ORDINALITY AS row (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class,
                                    data_class, streamed, generation, received_ns, deadline_ns, prompt_bytes,
                                    route, request_hash, prefix_hashes, cache_outcome, cache_reason, owner_epoch, job_id, line_n, receipt, answer_of,
                                    avoided_input, avoided_output, avoided_nanos, first_event_ns, last_event_ns, finish_reasons, error_code,
                                    end_state, place)
      ORDER BY id, place) AS told
ON CONFLICT (id) DO UPDATE
SET first_event_ns = excluded.first_event_ns, last_event_ns = excluded.last_event_ns,
    finish_reasons = excluded.finish_reasons, error_code = excluded.error_code, end_state = excluded.end_state,
    cache_outcome = excluded.cache_outcome, cache_reason = excluded.cache_reason, answer_of = excluded.answer_of,
    avoided_input = excluded.avoided_input, avoided_output = excluded.avoided_output,
    avoided_nanos = excluded.avoided_nanos
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
