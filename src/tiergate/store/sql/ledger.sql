-- Statements on ledger.db. Each UPDATE names the state that it leaves, so doing it twice changes nothing. Those that
-- `postgres/sql/ledger.sql` does not have are PostgreSQL's too.

-- name: next_epoch
SELECT coalesce(max(epoch), 0) + 1 FROM owner;

-- name: bury_owners
UPDATE owner SET state = 'dead', ended_ns = :now_ns WHERE state = 'alive' AND epoch < :epoch;

-- name: add_owner
INSERT INTO owner (epoch, id, pid, started_ns, heartbeat_ns) VALUES (:epoch, :id, :pid, :now_ns, :now_ns);

-- name: owner_alive
SELECT 1 FROM owner WHERE epoch = ? AND state = 'alive';

-- name: heartbeat
UPDATE owner SET heartbeat_ns = :now_ns WHERE epoch = :epoch AND state = 'alive';

-- name: leave
UPDATE owner SET state = 'left', ended_ns = :now_ns WHERE epoch = :epoch AND state = 'alive';

-- The word "lapsed" is two bytes longer than "held": the room gives them, and keeps the rest for a late settle.
-- name: lapsing
SELECT DISTINCT call_id FROM attempt WHERE hold_state = 'held' AND owner_epoch < :epoch;

-- name: lapse_holds
UPDATE attempt SET hold_state = 'lapsed', room = zeroblob(length(room) - 2)
WHERE hold_state = 'held' AND owner_epoch < :epoch;

-- name: lapse_calls
UPDATE call SET end_state = 'lapsed', room = NULL
WHERE end_state IS NULL AND owner_epoch < :epoch;

-- A call is written with its first hold; the later ones find it there. Of the room of 240 bytes `close_call`
-- takes 211: 13 for the end, 16 times, 64 finish reasons, 40 error code, 24 what was avoided, 26 whose answer it was
-- given, 23 more of what became of it at the cache, and their lengths in the row's header.
-- name: open_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, request_hash, prefix_hashes, cache_outcome, cache_reason,
                  owner_epoch, job_id, line_n, receipt, answer_of, room)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, zeroblob(240))
ON CONFLICT (id) DO NOTHING;

-- 368 bytes are the most that `settle` can add: 4 for the state, 80 replica, 24 times, 15 outcome and blame,
-- 40 error code, 8 status, 72 usage, 5 its source, 24 amounts and GPU time, 64 + 16 upstream's words, and
-- what their lengths take in the row's header.
-- name: hold
INSERT INTO attempt (call_id, n, provider, model, tier, credential_id, queued_ns, permit_ns, in_flight, price_id,
                     owner_epoch, bound_nanos, prompt_shape, room)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, zeroblob(368));

-- name: settle
WITH told (hold_state, replica, sent_ns, first_ns, last_ns, outcome, blame, error_code, status, input, cache_read,
           cache_write_5m, cache_write_1h, output, reasoning, audio_in, audio_out, images, usage_source, cash_nanos,
           upstream_cost_nanos, upstream_request_id, service_tier, gpu_ms, call_id, n, owner_epoch)
AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
UPDATE attempt
SET hold_state = told.hold_state, replica = told.replica, sent_ns = told.sent_ns, first_ns = told.first_ns,
    last_ns = told.last_ns, outcome = told.outcome, blame = told.blame, error_code = told.error_code,
    status = told.status, input = told.input, cache_read = told.cache_read, cache_write_5m = told.cache_write_5m,
    cache_write_1h = told.cache_write_1h, output = told.output, reasoning = told.reasoning,
    audio_in = told.audio_in, audio_out = told.audio_out, images = told.images, usage_source = told.usage_source,
    cash_nanos = told.cash_nanos, upstream_cost_nanos = told.upstream_cost_nanos,
    upstream_request_id = told.upstream_request_id, service_tier = told.service_tier, gpu_ms = told.gpu_ms,
    room = NULL
FROM told
WHERE attempt.call_id = told.call_id AND attempt.n = told.n AND attempt.owner_epoch = told.owner_epoch
  AND attempt.hold_state = 'held';

-- The whole call, where it never held anything; else only its end.
-- name: close_call
INSERT INTO call (id, parent, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed,
                  generation, received_ns, deadline_ns, prompt_bytes, route, request_hash, prefix_hashes, cache_outcome, cache_reason,
                  owner_epoch, job_id, line_n, receipt, answer_of, avoided_input, avoided_output, avoided_nanos,
                  first_event_ns, last_event_ns, finish_reasons, error_code, end_state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET first_event_ns = excluded.first_event_ns, last_event_ns = excluded.last_event_ns,
    finish_reasons = excluded.finish_reasons, error_code = excluded.error_code,
    end_state = excluded.end_state, cache_outcome = excluded.cache_outcome, cache_reason = excluded.cache_reason,
    answer_of = excluded.answer_of, avoided_input = excluded.avoided_input,
    avoided_output = excluded.avoided_output, avoided_nanos = excluded.avoided_nanos, room = NULL
WHERE call.end_state IS NULL AND call.owner_epoch = excluded.owner_epoch;

-- name: read_call
SELECT id, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed, generation,
       received_ns, first_event_ns, last_event_ns, prompt_bytes, route, finish_reasons, error_code, end_state,
       receipt, answer_of, avoided_input, avoided_output, avoided_nanos, request_hash, cache_outcome,
       cache_reason, job_id, line_n
FROM call WHERE id = ?;

-- name: read_calls
SELECT id, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed, generation,
       received_ns, first_event_ns, last_event_ns, prompt_bytes, route, finish_reasons, error_code, end_state,
       receipt, answer_of, avoided_input, avoided_output, avoided_nanos, request_hash, cache_outcome,
       cache_reason, job_id, line_n
FROM call WHERE id > :after ORDER BY id LIMIT :limit;

-- name: read_counted
SELECT provider, model, prompt_shape, input + cache_read + cache_write_5m + cache_write_1h + audio_in
FROM attempt WHERE prompt_shape IS NOT NULL AND usage_source = 'reported'
ORDER BY rowid DESC LIMIT ?;

-- name: read_attempts
SELECT call_id, n, provider, model, tier, replica, hold_state, outcome, blame, error_code, bound_nanos,
       input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_in, audio_out, images,
       usage_source, price_id, cash_nanos, sent_ns, first_ns, last_ns
FROM attempt WHERE call_id BETWEEN :first AND :last ORDER BY call_id, n;

-- Newest first. A condition that is NULL holds for every call.
-- name: find_calls
SELECT id, cause, key, team, tenant, tag, endpoint, asked_model, class, data_class, streamed, generation,
       received_ns, first_event_ns, last_event_ns, prompt_bytes, route, finish_reasons, error_code, end_state,
       receipt, answer_of, avoided_input, avoided_output, avoided_nanos, request_hash, cache_outcome,
       cache_reason, job_id, line_n
FROM call
WHERE id < :before AND id >= :first
  AND (CAST(:key AS text) IS NULL OR key = :key) AND (CAST(:team AS text) IS NULL OR team = :team)
  AND (CAST(:tag AS text) IS NULL OR tag = :tag) AND (CAST(:model AS text) IS NULL OR asked_model = :model)
  AND (CAST(:job AS text) IS NULL OR job_id = :job)
  AND (NOT :lapsed OR EXISTS (SELECT 1 FROM attempt WHERE attempt.call_id = call.id AND hold_state = 'lapsed'))
ORDER BY id DESC LIMIT :limit;

-- name: find_attempts
SELECT call_id, n, provider, model, tier, replica, hold_state, outcome, blame, error_code, bound_nanos,
       input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_in, audio_out, images,
       usage_source, price_id, cash_nanos, sent_ns, first_ns, last_ns
FROM attempt WHERE call_id = ? ORDER BY n;

-- name: find_adjustments
SELECT n, delta_nanos, reason, written_ns FROM adjustment WHERE call_id = ? ORDER BY id;

-- Somebody knows now what a lapsed attempt cost. Its room is there for a late settlement.
-- name: resolve
UPDATE attempt
SET hold_state = 'settled', outcome = 'ignore', cash_nanos = :cash_nanos, error_code = 'resolved', room = NULL
WHERE call_id = :call_id AND n = :n AND hold_state = 'lapsed';

-- name: settled_cash
SELECT cash_nanos FROM attempt WHERE call_id = :call_id AND n = :n AND hold_state = 'settled';

-- name: adjust
INSERT INTO adjustment (call_id, n, delta_nanos, reason, owner_epoch, written_ns)
VALUES (:call_id, :n, :delta_nanos, :reason, :owner_epoch, :now_ns);
