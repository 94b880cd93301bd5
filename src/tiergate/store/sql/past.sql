-- Questions about the past, in the SQL that SQLite and PostgreSQL share. Ids of calls begin with their time, so a span of time is a range of ids.

-- A call counts where its last attempt was made. What lapsed is charged at the worst case that was held.
-- name: spent
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier,
       CASE WHEN :slots THEN call.received_ns / :slot_ns ELSE 0 END AS slot,
       count(*) FILTER (WHERE attempt.n = newest.n),
       count(*) FILTER (WHERE attempt.n = newest.n AND call.end_state = 'success'),
       count(*),
       count(*) FILTER (WHERE (attempt.hold_state = 'settled' AND attempt.cash_nanos IS NULL)
                        OR (attempt.hold_state = 'lapsed' AND attempt.bound_nanos IS NULL)),
       sum(attempt.input), sum(attempt.cache_read), sum(attempt.cache_write_5m), sum(attempt.cache_write_1h),
       sum(attempt.output), sum(attempt.reasoning), sum(attempt.audio_in), sum(attempt.audio_out),
       sum(attempt.images),
       sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0)
                ELSE coalesce(attempt.cash_nanos, 0) END
           + coalesce((SELECT sum(delta_nanos) FROM adjustment
                       WHERE adjustment.call_id = attempt.call_id AND adjustment.n = attempt.n), 0)),
       sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0) ELSE 0 END),
       sum(CASE WHEN attempt.hold_state = 'settled' AND attempt.usage_source = 'bounded'
                THEN coalesce(attempt.cash_nanos, 0) ELSE 0 END),
       sum(coalesce(attempt.gpu_ms, 0)),
       sum(CASE WHEN attempt.n = newest.n THEN coalesce(call.avoided_input, 0) ELSE 0 END),
       sum(CASE WHEN attempt.n = newest.n THEN coalesce(call.avoided_output, 0) ELSE 0 END),
       sum(CASE WHEN attempt.n = newest.n THEN coalesce(call.avoided_nanos, 0) ELSE 0 END)
FROM call
JOIN attempt ON attempt.call_id = call.id
JOIN (SELECT call_id, max(n) AS n FROM attempt WHERE call_id >= :first AND call_id < :last GROUP BY call_id) AS newest
     ON newest.call_id = call.id
WHERE call.id >= :first AND call.id < :last
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
UNION ALL
SELECT key, coalesce(team, ''), coalesce(tag, ''), asked_model, class, '', '',
       CASE WHEN :slots THEN received_ns / :slot_ns ELSE 0 END AS slot,
       count(*), count(*) FILTER (WHERE end_state = 'success'), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       sum(coalesce(avoided_input, 0)), sum(coalesce(avoided_output, 0)), sum(coalesce(avoided_nanos, 0))
FROM call
WHERE id >= :first AND id < :last AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.call_id = call.id)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

-- The same columns, of what is added up already.
-- name: rolled_up
SELECT key, team, tag, asked_model, class, target, tier,
       CASE WHEN :slots THEN slot_ns / :slot_ns ELSE 0 END AS slot,
       sum(calls), sum(succeeded), sum(attempts), sum(unpriced),
       sum(input), sum(cache_read), sum(cache_write_5m), sum(cache_write_1h), sum(output), sum(reasoning),
       sum(audio_in), sum(audio_out), sum(images), sum(cash_nanos), sum(lapsed_nanos), sum(bounded_nanos), sum(gpu_ms),
       sum(avoided_input), sum(avoided_output), sum(avoided_nanos)
FROM rollup
WHERE slot_ns >= :from_ns AND slot_ns < :before_ns AND slot_ns NOT IN (SELECT slot_ns FROM stale_slot)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

-- name: rolled
SELECT before_ns, calls_from_ns FROM rolled;

-- name: stale_slots
SELECT slot_ns FROM stale_slot WHERE slot_ns >= :from_ns AND slot_ns < :before_ns;

-- name: timed
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier, call.received_ns / :slot_ns,
       CASE WHEN call.streamed THEN call.first_event_ns - call.received_ns END,
       call.last_event_ns - call.received_ns,
       attempt.output + attempt.reasoning + attempt.audio_out
FROM call
JOIN attempt ON attempt.call_id = call.id
     AND attempt.n = (SELECT max(n) FROM attempt AS other WHERE other.call_id = call.id)
WHERE call.id >= :first AND call.id < :last AND call.end_state = 'success';

-- What hosted targets took of their own caches, and what private targets answered: attempts one by one, since the
-- length of an input, the hour and the service tier decide about a price. An attempt at a private target counts
-- where it was the answer.
-- name: used
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier, call.received_ns / :slot_ns,
       coalesce(attempt.sent_ns, call.received_ns), coalesce(attempt.last_ns, attempt.sent_ns, call.received_ns),
       attempt.service_tier, attempt.usage_source,
       attempt.input, attempt.cache_read, attempt.cache_write_5m, attempt.cache_write_1h,
       attempt.output, attempt.reasoning, attempt.audio_in, attempt.audio_out, attempt.images
FROM call
JOIN attempt ON attempt.call_id = call.id
WHERE call.id >= :first AND call.id < :last AND attempt.hold_state = 'settled'
      AND (attempt.tier = 'hosted'
           OR (attempt.tier = 'private' AND call.end_state = 'success'
               AND attempt.n = (SELECT max(n) FROM attempt AS other WHERE other.call_id = call.id)));

-- Calls that a dry run of the cache has marked, in the order of their coming.
-- name: marked
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier, call.received_ns / :slot_ns,
       call.received_ns, call.last_event_ns, call.request_hash, call.cache_reason, call.finish_reasons,
       attempt.input + attempt.cache_read + attempt.cache_write_5m + attempt.cache_write_1h + attempt.audio_in,
       attempt.output + attempt.reasoning + attempt.audio_out, attempt.cash_nanos
FROM call
JOIN attempt ON attempt.call_id = call.id
     AND attempt.n = (SELECT max(n) FROM attempt AS other WHERE other.call_id = call.id)
WHERE call.id >= :first AND call.id < :last AND call.end_state = 'success'
      AND call.request_hash IS NOT NULL AND call.cache_reason LIKE 'dry-run%'
ORDER BY call.id;

-- Calls whose prompt's beginnings were recorded, in the order of their coming.
-- name: prefixed
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier, call.received_ns / :slot_ns,
       call.received_ns, call.prefix_hashes,
       attempt.input + attempt.cache_read + attempt.cache_write_5m + attempt.cache_write_1h + attempt.audio_in,
       attempt.cache_read
FROM call
JOIN attempt ON attempt.call_id = call.id
     AND attempt.n = (SELECT max(n) FROM attempt AS other WHERE other.call_id = call.id)
WHERE call.id >= :first AND call.id < :last AND call.prefix_hashes IS NOT NULL
ORDER BY call.id;

-- What the attempts for a job's lines have cost; what lapsed at the worst case that was held.
-- name: of_job
SELECT coalesce(sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0)
                         ELSE coalesce(attempt.cash_nanos, 0) END
                    + coalesce((SELECT sum(delta_nanos) FROM adjustment
                                WHERE adjustment.call_id = attempt.call_id AND adjustment.n = attempt.n), 0)), 0),
       coalesce(sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0) ELSE 0 END), 0)
FROM call JOIN attempt ON attempt.call_id = call.id
WHERE call.job_id = :job;

-- The attempts for a job's lines that a dead owner left, and nobody has settled since.
-- name: lapsed_of_job
SELECT call.line_n, call.id, attempt.n
FROM attempt JOIN call ON call.id = attempt.call_id
WHERE attempt.hold_state = 'lapsed' AND call.job_id = :job
ORDER BY call.id;
