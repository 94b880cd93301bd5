-- Jobs as they are worked. The tables of the first step were never written to, so they are made anew.
DROP TABLE line;
DROP TABLE job;

-- A file that was uploaded. Its text rests in the folder `jobs/files`, under its id.
CREATE TABLE file (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,                -- as hashes and answers have it: team:NAME or key:NAME
    name       TEXT    NOT NULL,                -- as its sender calls it; for people, never a path
    purpose    TEXT    NOT NULL,
    bytes      INTEGER CHECK (bytes >= 0),      -- NULL while it is being received
    created_ns INTEGER NOT NULL,
    deleted_ns INTEGER                          -- its text stays as long as an open job reads it
) STRICT, WITHOUT ROWID;

CREATE INDEX file_of ON file (tenant, id);

-- A job has no state of its own; it is read from its times and from what halts it.
CREATE TABLE job (
    no           INTEGER NOT NULL PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    tenant       TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    tag          TEXT,
    endpoint     TEXT    NOT NULL,
    model        TEXT,                          -- asked for by lines that name none
    data_class   TEXT    NOT NULL,
    input_file   TEXT    NOT NULL,              -- the first one, where there are several
    sha256       BLOB,                          -- of all lines of the input
    lines        INTEGER NOT NULL DEFAULT 0 CHECK (lines >= 0),
    budget_nanos INTEGER CHECK (budget_nanos >= 0),
    concurrency  INTEGER NOT NULL CHECK (concurrency > 0),
    is_strict    INTEGER NOT NULL,
    by_prefix    INTEGER NOT NULL,
    window_s     INTEGER NOT NULL,
    metadata     TEXT    NOT NULL,              -- JSON
    created_ns   INTEGER NOT NULL,
    deadline_ns  INTEGER NOT NULL,
    read_ns      INTEGER,                       -- when its input had been read, and its lines were known
    cancel_ns    INTEGER,                       -- when somebody asked to end it
    expired_ns   INTEGER,
    failed_ns    INTEGER,                       -- it never began; `problems` say why
    ended_ns     INTEGER,                       -- when its last line reached an end
    problems     TEXT    NOT NULL DEFAULT '[]', -- JSON
    halt         TEXT    CHECK (halt = 'parked' OR halt = 'stopped'),
    halt_word    TEXT,
    halt_message TEXT,
    halt_until_ns INTEGER,
    worked_ms    INTEGER NOT NULL DEFAULT 0,    -- for how long somebody worked on it, all runs together
    done         INTEGER NOT NULL DEFAULT 0,
    failed       INTEGER NOT NULL DEFAULT 0,
    cancelled    INTEGER NOT NULL DEFAULT 0,    -- lines that the job's own end came before
    input_tokens INTEGER NOT NULL DEFAULT 0,    -- of lines that are done
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cash_nanos   INTEGER NOT NULL DEFAULT 0,
    cash_squares REAL    NOT NULL DEFAULT 0,    -- of each line's USD: how far they lie apart
    hits         INTEGER NOT NULL DEFAULT 0,    -- lines that the cache answered
    interrupted  INTEGER NOT NULL DEFAULT 0     -- times that a line was with an owner that died
) STRICT;

CREATE INDEX job_of ON job (tenant, id);
CREATE INDEX job_open ON job (no) WHERE ended_ns IS NULL AND failed_ns IS NULL;

-- Where a job's lines are read: some lines from each of these files.
CREATE TABLE job_input (
    job     INTEGER NOT NULL,
    source  INTEGER NOT NULL,
    file_id TEXT    NOT NULL,
    PRIMARY KEY (job, source)
) STRICT, WITHOUT ROWID;

-- How far the spool of a job and an owner is marked in its lines; what follows was spooled and not marked.
CREATE TABLE spool (
    job    INTEGER NOT NULL,
    epoch  INTEGER NOT NULL,
    marked INTEGER NOT NULL,
    PRIMARY KEY (job, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE line (
    job         INTEGER NOT NULL,
    n           INTEGER NOT NULL CHECK (n > 0),
    state       TEXT    NOT NULL DEFAULT 'waiting',
    source      INTEGER NOT NULL,               -- of `job_input`, and its place there
    offset      INTEGER NOT NULL CHECK (offset >= 0),
    bytes       INTEGER NOT NULL CHECK (bytes > 0),
    custom_hash INTEGER,                        -- of its custom_id: equal ones are looked at
    rank        INTEGER NOT NULL DEFAULT 0,     -- lines are worked in this order
    tries       INTEGER NOT NULL DEFAULT 0,     -- that failed and may be made again
    interrupted INTEGER NOT NULL DEFAULT 0,     -- times that an owner died with it
    epoch       INTEGER,                        -- of the spool that its output rests in, and its place there
    out_offset  INTEGER CHECK (out_offset >= 0),
    out_bytes   INTEGER CHECK (out_bytes > 0),
    error_code  TEXT,
    PRIMARY KEY (job, n),
    CHECK (state = 'waiting' OR state = 'done' OR state = 'failed' OR state = 'cancelled')
) STRICT, WITHOUT ROWID;

CREATE INDEX line_due ON line (job, rank, n) WHERE state = 'waiting';
CREATE INDEX line_failed ON line (job, error_code) WHERE state = 'failed' OR state = 'cancelled';
