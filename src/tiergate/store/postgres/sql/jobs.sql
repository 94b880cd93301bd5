-- Statements that are other ones on PostgreSQL than in `store/sql/jobs.sql`; the rest of that file is used here too.

-- Every transaction begins with this. The lock on the owner's row makes its burial wait for this transaction, or this
-- one find it buried; its heartbeat does not wait.
-- name: alive
SELECT epoch FROM owner WHERE epoch = ? AND state = 'alive' FOR KEY SHARE;

-- Files.

-- name: add_file
INSERT INTO file (id, tenant, name, purpose, created_ns, owner_epoch)
VALUES (:id, :tenant, :name, :purpose, :created_ns, :epoch);

-- name: files
SELECT id, tenant, name, purpose, bytes, created_ns FROM file
WHERE tenant = :tenant AND bytes IS NOT NULL AND deleted_ns IS NULL AND id < :after
  AND (:purpose::text IS NULL OR purpose = :purpose)
ORDER BY id DESC LIMIT :limit;

-- name: add_part
INSERT INTO file_part (file_id, at, data) VALUES (:file_id, :at, :data);

-- name: read_text
SELECT substring(data FROM (greatest(:begins - at, 0) + 1)::int
                      FOR (least(:ends - at, octet_length(data)) - greatest(:begins - at, 0))::int)
FROM file_part
WHERE file_id = :file_id AND at > :begins - 262144 AND at < :ends AND at + octet_length(data) > :begins
ORDER BY at;

-- name: files_torn
SELECT id FROM file
WHERE bytes IS NULL AND owner_epoch NOT IN (SELECT epoch FROM owner WHERE state = 'alive');

-- Jobs.

-- name: jobs
SELECT * FROM job WHERE (:tenant::text IS NULL OR tenant = :tenant) AND id < :after ORDER BY id DESC LIMIT :limit;

-- Whoever reads the lines of a job reads alone, and as long as it lives.
-- name: begin_reading
UPDATE job SET reader_epoch = :epoch
WHERE no = :no
  AND (reader_epoch IS NULL OR reader_epoch = :epoch
       OR reader_epoch NOT IN (SELECT epoch FROM owner WHERE state = 'alive'));

-- name: reads
SELECT no FROM job WHERE no = :no AND reader_epoch = :epoch FOR SHARE;

-- name: end_reading
UPDATE job SET reader_epoch = NULL WHERE no = :no AND reader_epoch = :epoch;

-- What decides by the lines of a job whether and how its row changes locks the row first: the next statement sees what
-- came before the lock was given.
-- name: lock_job
SELECT no FROM job WHERE no = :no FOR UPDATE;

-- name: end_job
UPDATE job
SET ended_ns = :now_ns, halt = NULL, halt_word = NULL, halt_message = NULL, halt_until_ns = NULL
WHERE no = :no
  AND NOT EXISTS (SELECT FROM line
                  WHERE line.job = job.no AND line.state = 'waiting' AND line.owner_epoch IS NULL AND line.n <= job.lines)
  AND NOT EXISTS (SELECT FROM line WHERE line.job = job.no AND line.owner_epoch IS NOT NULL AND line.n <= job.lines)
  AND ended_ns IS NULL
RETURNING *;

-- name: join_crew
INSERT INTO job_crew (job, epoch) VALUES (:job, :epoch) ON CONFLICT DO NOTHING;

-- name: leave_crew
DELETE FROM job_crew WHERE job = :job AND epoch = :epoch;

-- name: crew
SELECT epoch FROM job_crew JOIN owner USING (epoch) WHERE job = :job AND state = 'alive' ORDER BY epoch;

-- name: forget_crew
DELETE FROM job_crew
WHERE job = :job AND epoch NOT IN (SELECT epoch FROM owner WHERE state = 'alive');

-- name: asked
SELECT count(*) FROM line
WHERE job = :job AND owner_epoch IN (SELECT epoch FROM owner WHERE state = 'alive') AND is_asked;

-- Lines.

-- name: add_line
INSERT INTO line (job, n, source, at, bytes, custom_hash, rank)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]);

-- name: alike
SELECT first_n, n FROM (
    SELECT n, state, min(n) OVER (PARTITION BY custom_hash) AS first_n
    FROM line WHERE job = :job AND custom_hash IS NOT NULL
) AS hashed WHERE n > first_n AND state = 'waiting' ORDER BY n;

-- name: where_line
SELECT source, at, bytes FROM line WHERE job = :job AND n = :n;

-- Those that another owner is just claiming are passed over.
-- name: due
SELECT n, source, at, bytes, tries, interrupted, rank FROM line
WHERE job = :job AND state = 'waiting' AND owner_epoch IS NULL AND (rank, n) > (:rank, :n)
  AND n <= (SELECT lines FROM job WHERE no = :job)
ORDER BY rank, n LIMIT :count FOR UPDATE SKIP LOCKED;

-- name: claim
UPDATE line SET owner_epoch = :epoch WHERE job = :job AND n = ANY(:lines::bigint[]);

-- name: begin
UPDATE line SET is_asked = true
FROM unnest(?::bigint[], ?::bigint[], ?::bigint[]) AS told (job, n, epoch)
WHERE line.job = told.job AND line.n = told.n AND line.owner_epoch = told.epoch AND line.state = 'waiting';

-- name: rest
UPDATE line SET is_asked = false
FROM unnest(?::bigint[], ?::bigint[], ?::bigint[]) AS told (job, n, epoch)
WHERE line.job = told.job AND line.n = told.n AND line.owner_epoch = told.epoch AND line.state = 'waiting';

-- name: release
UPDATE line SET owner_epoch = NULL, is_asked = false, tries = greatest(line.tries, told.tries)
FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) AS told (job, n, epoch, tries)
WHERE line.job = told.job AND line.n = told.n AND line.owner_epoch = told.epoch AND line.state = 'waiting'
  AND line.facts IS NULL;

-- Ends that an owner has written and does not know of: nobody saw whether that was committed, or it was called off.
-- name: unmarked
SELECT n, facts FROM line
WHERE job = :job AND owner_epoch = :epoch AND facts IS NOT NULL AND n <> ALL(:lines::bigint[]) ORDER BY n;

-- What an owner has and does not know of: a claim was committed as its connection was lost.
-- name: release_others
UPDATE line SET owner_epoch = NULL, is_asked = false
WHERE job = :job AND owner_epoch = :epoch AND facts IS NULL AND n <> ALL(:lines::bigint[]);

-- The first end of a line stands.
-- name: spool
UPDATE line
SET owner_epoch = told.epoch, is_asked = false, end_state = told.state, facts = told.facts, output = told.output,
    out_bytes = octet_length(told.output), error_code = told.code
FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::bytea[], ?::bytea[])
     AS told (job, n, epoch, state, code, facts, output)
WHERE line.job = told.job AND line.n = told.n AND line.state = 'waiting' AND line.facts IS NULL
  AND (line.owner_epoch IS NULL OR line.owner_epoch = told.epoch);

-- name: finish
UPDATE line SET state = end_state, owner_epoch = NULL
WHERE job = :job AND n = ANY(:lines::bigint[]) AND state = 'waiting' AND facts IS NOT NULL
RETURNING n;

-- What owners have that are not alive.
-- name: left_behind
SELECT n, facts, is_asked FROM line
WHERE job = :job AND owner_epoch IN (
    SELECT DISTINCT owner_epoch FROM line WHERE job = :job AND owner_epoch IS NOT NULL
    EXCEPT SELECT epoch FROM owner WHERE state = 'alive')
ORDER BY n FOR UPDATE SKIP LOCKED;

-- name: abandoned
SELECT DISTINCT job FROM line
WHERE owner_epoch IS NOT NULL AND owner_epoch NOT IN (SELECT epoch FROM owner WHERE state = 'alive');

-- name: interrupted
UPDATE line SET owner_epoch = NULL, is_asked = false, interrupted = interrupted + is_asked::int
WHERE job = :job AND n = ANY(:lines::bigint[]) AND state = 'waiting' AND facts IS NULL;

-- name: outputs
SELECT n, state, output FROM line
WHERE job = :job AND n > :after AND facts IS NOT NULL
  AND ((state = 'done' AND :done) OR (state IN ('failed', 'cancelled') AND :failed))
ORDER BY n LIMIT :limit;

-- name: output_bytes
SELECT coalesce(sum(out_bytes), 0) FROM line
WHERE job = :job AND facts IS NOT NULL
  AND ((state = 'done' AND :done) OR (state IN ('failed', 'cancelled') AND :failed));

-- All lines of a large job in one step: half a minute for a million.
-- name: take_long
SET LOCAL statement_timeout = '10min';

-- name: retry
UPDATE line SET state = 'waiting', tries = 0, interrupted = 0, end_state = NULL, facts = NULL, output = NULL,
                out_bytes = NULL, error_code = NULL
WHERE job = :job AND state IN ('failed', 'cancelled') AND error_code = :code;
