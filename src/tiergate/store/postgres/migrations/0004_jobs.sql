-- What a job has spent, and what of it a dead owner left: asked for when its first hold after a start is placed.
CREATE INDEX call_job ON call (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX attempt_lapsed ON attempt (call_id) WHERE hold_state = 'lapsed';

-- Jobs have ceilings, too: the functions as they were, with one more of those whose balances they keep.
ALTER TABLE balance DROP CONSTRAINT balance_scope_check;
ALTER TABLE balance ADD CONSTRAINT balance_scope_check
    CHECK (scope IN ('all', 'key', 'team', 'model', 'tier', 'job'));

CREATE OR REPLACE FUNCTION count_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM balance) THEN
        RETURN NULL;
    END IF;
    UPDATE balance
    SET spent_nanos = balance.spent_nanos + told.spent, lapsed_nanos = balance.lapsed_nanos + told.lapsed,
        held_nanos = balance.held_nanos + told.held
    FROM (
        SELECT counted.id, sum(change.spent) AS spent, sum(change.lapsed) AS lapsed, sum(change.held) AS held
        FROM (
            SELECT call_id, tier,
                   CASE hold_state WHEN 'settled' THEN coalesce(cash_nanos, 0)
                                   WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END AS spent,
                   CASE hold_state WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END AS lapsed,
                   CASE hold_state WHEN 'held' THEN coalesce(bound_nanos, 0) ELSE 0 END AS held
            FROM rows_now
            UNION ALL
            SELECT call_id, tier,
                   -CASE hold_state WHEN 'settled' THEN coalesce(cash_nanos, 0)
                                    WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END,
                   -CASE hold_state WHEN 'lapsed' THEN coalesce(bound_nanos, 0) ELSE 0 END,
                   -CASE hold_state WHEN 'held' THEN coalesce(bound_nanos, 0) ELSE 0 END
            FROM rows_before
        ) AS change
        JOIN call ON call.id = change.call_id
        CROSS JOIN LATERAL (
            VALUES ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model),
                   ('tier', change.tier), ('job', call.job_id)
        ) AS whose (scope, name)
        JOIN balance AS counted
             ON counted.scope = whose.scope AND counted.name = whose.name
             AND counted.end_ns > call.received_ns AND counted.start_ns <= call.received_ns
        GROUP BY counted.id
    ) AS told
    WHERE balance.id = told.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION count_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM balance) THEN
        RETURN NULL;
    END IF;
    UPDATE balance
    SET held_nanos = balance.held_nanos + told.held
    FROM (
        SELECT counted.id, sum(coalesce(hold.bound_nanos, 0)) AS held
        FROM rows_now AS hold
        JOIN call ON call.id = hold.call_id
        CROSS JOIN LATERAL (
            VALUES ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model),
                   ('tier', hold.tier), ('job', call.job_id)
        ) AS whose (scope, name)
        JOIN balance AS counted
             ON counted.scope = whose.scope AND counted.name = whose.name
             AND counted.end_ns > call.received_ns AND counted.start_ns <= call.received_ns
        GROUP BY counted.id
    ) AS told
    WHERE balance.id = told.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION count_adjustment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE balance SET spent_nanos = balance.spent_nanos + NEW.delta_nanos
    FROM call
    JOIN attempt ON attempt.call_id = call.id AND attempt.n = NEW.n
    WHERE call.id = NEW.call_id
      AND balance.end_ns > call.received_ns AND balance.start_ns <= call.received_ns
      AND (balance.scope, balance.name) IN (
          ('all', ''), ('key', call.key), ('team', call.team), ('model', call.asked_model), ('tier', attempt.tier),
          ('job', call.job_id)
      );
    RETURN NULL;
END $$;
