-- Questions about the past. Ids of calls begin with their time, so a span of time is a range of ids.

-- A call counts where its last attempt was made. What lapsed is charged at the worst case that was held.
-- name: spent
SELECT call.key, coalesce(call.team, ''), coalesce(call.tag, ''), call.asked_model, call.class,
       attempt.provider || '/' || attempt.model, attempt.tier,
       CASE WHEN :slots THEN call.received_ns / :slot_ns ELSE 0 END AS slot,
       sum(attempt.n = newest.n),
       sum(attempt.n = newest.n AND call.end_state IS 'success'),
       count(*),
       sum((attempt.hold_state = 'settled' AND attempt.cash_nanos IS NULL)
           OR (attempt.hold_state = 'lapsed' AND attempt.bound_nanos IS NULL)),
       sum(attempt.input + attempt.cache_read + attempt.cache_write_5m + attempt.cache_write_1h + attempt.audio_in),
       sum(attempt.cache_read),
       sum(attempt.output + attempt.reasoning + attempt.audio_out),
       sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0)
                ELSE coalesce(attempt.cash_nanos, 0) END
           + coalesce((SELECT sum(delta_nanos) FROM adjustment
                       WHERE adjustment.call_id = attempt.call_id AND adjustment.n = attempt.n), 0)),
       sum(CASE WHEN attempt.hold_state = 'lapsed' THEN coalesce(attempt.bound_nanos, 0) ELSE 0 END),
       sum(CASE WHEN attempt.hold_state = 'settled' AND attempt.usage_source = 'bounded'
                THEN coalesce(attempt.cash_nanos, 0) ELSE 0 END)
FROM call
JOIN attempt ON attempt.call_id = call.id
JOIN (SELECT call_id, max(n) AS n FROM attempt WHERE call_id >= :first AND call_id < :last GROUP BY call_id) AS newest
     ON newest.call_id = call.id
WHERE call.id >= :first AND call.id < :last
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
UNION ALL
SELECT key, coalesce(team, ''), coalesce(tag, ''), asked_model, class, '', '',
       CASE WHEN :slots THEN received_ns / :slot_ns ELSE 0 END AS slot,
       count(*), sum(end_state IS 'success'), 0, 0, 0, 0, 0, 0, 0, 0
FROM call
WHERE id >= :first AND id < :last AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.call_id = call.id)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

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
