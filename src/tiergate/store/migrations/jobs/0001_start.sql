-- Jobs and their lines. The lines' text is not here: it rests in a job's spool files, and a line names its
-- place in them. A job has no state of its own; it is read from its lines and from the times below.

CREATE TABLE job (
    id           TEXT    NOT NULL PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    team         TEXT,
    tag          TEXT,
    endpoint     TEXT    NOT NULL,
    asked_model  TEXT,                          -- NULL: each line names its own
    fingerprint  BLOB    NOT NULL,              -- of the input and its options: the same job is found by it
    lines        INTEGER CHECK (lines >= 0),    -- NULL while the input is being read
    budget_nanos INTEGER CHECK (budget_nanos >= 0),
    created_ns   INTEGER NOT NULL,
    deadline_ns  INTEGER,
    cancelled_ns INTEGER,
    ended_ns     INTEGER,                       -- when its last line reached an end
    UNIQUE (tenant, fingerprint, created_ns)
) STRICT;

CREATE TABLE line (
    job_id        TEXT    NOT NULL,
    n             INTEGER NOT NULL CHECK (n > 0),
    custom_id     TEXT,
    input_offset  INTEGER NOT NULL CHECK (input_offset >= 0),
    input_bytes   INTEGER NOT NULL CHECK (input_bytes > 0),
    state         TEXT    NOT NULL DEFAULT 'waiting',
    sends         INTEGER NOT NULL DEFAULT 0 CHECK (sends >= 0),   -- counts those whose end nobody saw
    owner_epoch   INTEGER,
    call_id       TEXT,                         -- of the last send
    not_before_ns INTEGER,
    output_offset INTEGER CHECK (output_offset >= 0),
    output_bytes  INTEGER CHECK (output_bytes > 0),
    output_hash   BLOB,
    error_code    TEXT,
    PRIMARY KEY (job_id, n),
    CHECK (state = 'waiting' OR state = 'claimed' OR state = 'sent' OR state = 'done' OR state = 'failed'
           OR state = 'parked' OR state = 'cancelled')
) STRICT, WITHOUT ROWID;

CREATE INDEX line_due ON line (job_id, n) WHERE state = 'waiting';
CREATE INDEX line_carried ON line (owner_epoch) WHERE state = 'claimed' OR state = 'sent';
