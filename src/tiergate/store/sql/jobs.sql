-- Files.

-- name: add_file
INSERT INTO file (id, tenant, name, purpose, created_ns) VALUES (:id, :tenant, :name, :purpose, :created_ns);

-- name: end_file
UPDATE file SET bytes = :bytes, name = :name WHERE id = :id;

-- name: file
SELECT id, tenant, name, purpose, bytes, created_ns FROM file
WHERE id = :id AND tenant = :tenant AND bytes IS NOT NULL AND deleted_ns IS NULL;

-- name: files
SELECT id, tenant, name, purpose, bytes, created_ns FROM file
WHERE tenant = :tenant AND bytes IS NOT NULL AND deleted_ns IS NULL AND id < :after
  AND (:purpose IS NULL OR purpose = :purpose)
ORDER BY id DESC LIMIT :limit;

-- name: drop_file
UPDATE file SET deleted_ns = :now_ns WHERE id = :id AND tenant = :tenant AND deleted_ns IS NULL;

-- Files that are deleted or old, and that no job reads.
-- name: files_gone
SELECT id FROM file
WHERE (deleted_ns IS NOT NULL OR created_ns < :before_ns)
  AND NOT EXISTS (SELECT 1 FROM job_input WHERE job_input.file_id = file.id)
LIMIT :most;

-- What an owner that is gone received in part.
-- name: files_torn
SELECT id FROM file WHERE bytes IS NULL;

-- name: forget_file
DELETE FROM file WHERE id = :id;

-- Jobs.

-- name: add_job
INSERT INTO job (id, tenant, key, tag, endpoint, model, data_class, input_file, budget_nanos, concurrency, is_strict,
                 by_prefix, window_s, metadata, created_ns, deadline_ns)
VALUES (:id, :tenant, :key, :tag, :endpoint, :model, :data_class, :input_file, :budget_nanos, :concurrency, :is_strict,
        :by_prefix, :window_s, :metadata, :created_ns, :deadline_ns)
RETURNING no;

-- name: job
SELECT * FROM job WHERE id = :id;

-- name: jobs
SELECT * FROM job WHERE (:tenant IS NULL OR tenant = :tenant) AND id < :after ORDER BY id DESC LIMIT :limit;

-- name: open_jobs
SELECT * FROM job WHERE ended_ns IS NULL AND failed_ns IS NULL ORDER BY no;

-- What is decided about a job, as far as it is given; what is counted is changed by its lines.
-- name: change_job
UPDATE job
SET sha256 = CASE WHEN :has_sha256 THEN :sha256 ELSE sha256 END,
    lines = CASE WHEN :has_lines THEN :lines ELSE lines END,
    budget_nanos = CASE WHEN :has_budget_nanos THEN :budget_nanos ELSE budget_nanos END,
    concurrency = CASE WHEN :has_concurrency THEN :concurrency ELSE concurrency END,
    deadline_ns = CASE WHEN :has_deadline_ns THEN :deadline_ns ELSE deadline_ns END,
    read_ns = CASE WHEN :has_read_ns THEN :read_ns ELSE read_ns END,
    cancel_ns = CASE WHEN :has_cancel_ns THEN :cancel_ns ELSE cancel_ns END,
    expired_ns = CASE WHEN :has_expired_ns THEN :expired_ns ELSE expired_ns END,
    failed_ns = CASE WHEN :has_failed_ns THEN :failed_ns ELSE failed_ns END,
    ended_ns = CASE WHEN :has_ended_ns THEN :ended_ns ELSE ended_ns END,
    problems = CASE WHEN :has_problems THEN :problems ELSE problems END,
    halt = CASE WHEN :has_halt THEN :halt ELSE halt END,
    halt_word = CASE WHEN :has_halt_word THEN :halt_word ELSE halt_word END,
    halt_message = CASE WHEN :has_halt_message THEN :halt_message ELSE halt_message END,
    halt_until_ns = CASE WHEN :has_halt_until_ns THEN :halt_until_ns ELSE halt_until_ns END
WHERE no = :no
RETURNING *;

-- name: end_job
UPDATE job
SET ended_ns = :now_ns, halt = NULL, halt_word = NULL, halt_message = NULL, halt_until_ns = NULL
WHERE no = :no
  AND NOT EXISTS (SELECT 1 FROM line WHERE line.job = job.no AND line.state = 'waiting' AND line.n <= job.lines)
  AND ended_ns IS NULL
RETURNING *;

-- name: worked
UPDATE job SET worked_ms = worked_ms + :worked_ms WHERE no = :no;

-- name: add_input
INSERT INTO job_input (job, source, file_id) VALUES (:job, :source, :file_id) ON CONFLICT DO NOTHING;

-- name: inputs
SELECT source, file_id FROM job_input WHERE job = :job ORDER BY source;

-- Lines.

-- name: add_line
INSERT INTO line (job, n, source, offset, bytes, custom_hash, rank) VALUES (?, ?, ?, ?, ?, ?, ?);

-- What a reading left behind that was broken off: such lines ended as wrong ones, or wait.
-- name: unread
SELECT n, state FROM line WHERE job = :job AND n > (SELECT lines FROM job WHERE no = :job) ORDER BY n LIMIT :most;

-- name: forget_unread
DELETE FROM line WHERE job = :job AND n >= :first AND n <= :last;

-- name: uncount_unread
UPDATE job SET failed = failed - :failed WHERE no = :job;

-- name: forget_unread_inputs
DELETE FROM job_input
WHERE job = :job AND source > (
    SELECT line.source FROM job JOIN line ON line.job = job.no AND line.n = job.lines
    WHERE job.no = :job AND job.read_ns IS NOT NULL);

-- Lines that may have the custom_id of an earlier one.
-- name: alike
SELECT first_n, n FROM (
    SELECT n, state, min(n) OVER (PARTITION BY custom_hash) AS first_n
    FROM line WHERE job = :job AND custom_hash IS NOT NULL
) WHERE n > first_n AND state = 'waiting' ORDER BY n;

-- name: where_line
SELECT source, offset, bytes FROM line WHERE job = :job AND n = :n;

-- name: due
SELECT n, source, offset, bytes, tries, interrupted, rank FROM line
WHERE job = :job AND state = 'waiting' AND (rank, n) > (:rank, :n) AND n <= (SELECT lines FROM job WHERE no = :job)
ORDER BY rank, n LIMIT :count;

-- name: tried
UPDATE line SET tries = ? WHERE job = ? AND n = ? AND state = 'waiting';

-- name: finish
UPDATE line SET state = ?, epoch = ?, out_offset = ?, out_bytes = ?, error_code = ?
WHERE job = ? AND n = ? AND state = 'waiting';

-- name: count
UPDATE job
SET done = done + :done, failed = failed + :failed, cancelled = cancelled + :cancelled, input_tokens = input_tokens + :input_tokens,
    cached_tokens = cached_tokens + :cached_tokens, output_tokens = output_tokens + :output_tokens,
    cash_nanos = cash_nanos + :cash_nanos, cash_squares = cash_squares + :cash_squares, hits = hits + :hits
WHERE no = :job;

-- name: mark
INSERT INTO spool (job, epoch, marked) VALUES (:job, :epoch, :marked)
ON CONFLICT (job, epoch) DO UPDATE SET marked = max(marked, excluded.marked);

-- name: spools
SELECT epoch, marked FROM spool WHERE job = :job;

-- name: interrupted
UPDATE line SET interrupted = interrupted + 1 WHERE job = :job AND n = :n AND state = 'waiting';

-- name: count_interrupted
UPDATE job SET interrupted = interrupted + :count WHERE no = :job;

-- name: errors
SELECT error_code, count(*) FROM line
WHERE job = :job AND (state = 'failed' OR state = 'cancelled') GROUP BY error_code ORDER BY 2 DESC, 1;

-- name: outputs
SELECT n, state, epoch, out_offset, out_bytes FROM line
WHERE job = :job AND n > :after AND epoch IS NOT NULL
  AND ((state = 'done' AND :done) OR (state <> 'done' AND :failed))
ORDER BY n LIMIT :limit;

-- name: output_bytes
SELECT coalesce(sum(out_bytes), 0) FROM line
WHERE job = :job AND epoch IS NOT NULL
  AND ((state = 'done' AND :done) OR (state <> 'done' AND :failed));

-- name: uncount
UPDATE job
SET failed = failed - (SELECT count(*) FROM line WHERE job = :job AND state = 'failed' AND error_code = :code),
    cancelled = cancelled
                - (SELECT count(*) FROM line WHERE job = :job AND state = 'cancelled' AND error_code = :code)
WHERE no = :job;

-- name: reopen
UPDATE job
SET deadline_ns = CASE WHEN ended_ns IS NULL THEN deadline_ns ELSE :deadline_ns END,
    ended_ns = NULL, cancel_ns = NULL, expired_ns = NULL,
    halt = NULL, halt_word = NULL, halt_message = NULL, halt_until_ns = NULL
WHERE no = :no;

-- name: retry
UPDATE line SET state = 'waiting', tries = 0, interrupted = 0, epoch = NULL, out_offset = NULL, out_bytes = NULL,
                error_code = NULL
WHERE job = :job AND (state = 'failed' OR state = 'cancelled') AND error_code = :code;

-- Old and erased ones.

-- name: jobs_gone
SELECT no FROM job
WHERE (coalesce(ended_ns, failed_ns) < :before_ns OR tenant = :tenant) LIMIT :most;

-- name: forget_lines
DELETE FROM line WHERE job = :job AND n IN (SELECT n FROM line WHERE job = :job LIMIT :most);

-- name: forget_job
DELETE FROM job WHERE no = :job;

-- name: forget_inputs
DELETE FROM job_input WHERE job = :job;

-- name: forget_spools
DELETE FROM spool WHERE job = :job;

-- name: files_of
SELECT id FROM file WHERE tenant = :tenant;
