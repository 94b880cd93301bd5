-- Files, jobs and lines: the tables of `store/migrations/jobs`, where each column is explained. What differs:
--
-- Texts are here, not in files: those of inputs in parts, those of answers in their lines. There is no spool: an end
-- that was written and not marked stands in its line.
-- Several owners work one job, so a line says who has it. An owner that is not alive any more has nothing.

CREATE TABLE file (
    id          text   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant      text   NOT NULL,
    name        text   NOT NULL,
    purpose     text   NOT NULL,
    bytes       bigint CHECK (bytes >= 0),
    created_ns  bigint NOT NULL,
    deleted_ns  bigint,
    owner_epoch bigint NOT NULL                 -- who receives it, while `bytes` is NULL
);

CREATE INDEX file_of ON file (tenant, id);
CREATE INDEX file_torn ON file (owner_epoch) WHERE bytes IS NULL;

-- A file's text, in parts of at most 256 KiB; `at`: where a part begins. They are not compressed, so that the server
-- reads a piece of one without the rest.
CREATE TABLE file_part (
    file_id text   COLLATE "C" NOT NULL REFERENCES file (id) ON DELETE CASCADE,
    at      bigint NOT NULL CHECK (at >= 0),
    data    bytea  NOT NULL CHECK (octet_length(data) <= 262144),
    PRIMARY KEY (file_id, at)
);
ALTER TABLE file_part ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE job (
    no            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            text   COLLATE "C" NOT NULL UNIQUE,
    tenant        text   NOT NULL,
    key           text   NOT NULL,
    tag           text,
    endpoint      text   NOT NULL,
    model         text,
    data_class    text   NOT NULL,
    input_file    text   NOT NULL,
    sha256        bytea,
    lines         bigint NOT NULL DEFAULT 0 CHECK (lines >= 0),
    budget_nanos  bigint CHECK (budget_nanos >= 0),
    concurrency   bigint NOT NULL CHECK (concurrency > 0),
    is_strict     boolean NOT NULL,
    by_prefix     boolean NOT NULL,
    window_s      bigint NOT NULL,
    metadata      text   NOT NULL,
    created_ns    bigint NOT NULL,
    deadline_ns   bigint NOT NULL,
    read_ns       bigint,
    cancel_ns     bigint,
    expired_ns    bigint,
    failed_ns     bigint,
    ended_ns      bigint,
    problems      text   NOT NULL DEFAULT '[]',
    halt          text   CHECK (halt IN ('parked', 'stopped')),
    halt_word     text,
    halt_message  text,
    halt_until_ns bigint,
    worked_ms     bigint NOT NULL DEFAULT 0,
    done          bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    cancelled     bigint NOT NULL DEFAULT 0,
    input_tokens  bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cash_nanos    bigint NOT NULL DEFAULT 0,
    cash_squares  double precision NOT NULL DEFAULT 0,
    hits          bigint NOT NULL DEFAULT 0,
    interrupted   bigint NOT NULL DEFAULT 0,
    reader_epoch  bigint                        -- who reads lines into it now, alone
);

CREATE INDEX job_of ON job (tenant, id);
CREATE INDEX job_open ON job (no) WHERE ended_ns IS NULL AND failed_ns IS NULL;

CREATE TABLE job_input (
    job     bigint NOT NULL,
    source  bigint NOT NULL,
    file_id text   NOT NULL,
    PRIMARY KEY (job, source)
);

CREATE INDEX job_input_file ON job_input (file_id);

-- Who works a job now: its concurrency is shared out among them.
CREATE TABLE job_crew (
    job   bigint NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (job, epoch)
);

CREATE TABLE line (
    job         bigint  NOT NULL,
    n           bigint  NOT NULL CHECK (n > 0),
    state       text    NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed', 'cancelled')),
    source      bigint  NOT NULL,
    at          bigint  NOT NULL CHECK (at >= 0),
    bytes       bigint  NOT NULL CHECK (bytes > 0),
    custom_hash bigint,
    rank        bigint  NOT NULL DEFAULT 0,
    tries       bigint  NOT NULL DEFAULT 0,
    interrupted bigint  NOT NULL DEFAULT 0,
    owner_epoch bigint,                         -- who has it, while it waits
    is_asked    boolean NOT NULL DEFAULT false, -- by its owner, now
    end_state   text,                           -- what it will be once its end is marked and counted
    facts       bytea,                          -- of its end, without the output
    output      bytea,
    out_bytes   bigint,
    error_code  text    COLLATE "C",
    PRIMARY KEY (job, n)
);

CREATE INDEX line_due ON line (job, rank, n) WHERE state = 'waiting' AND owner_epoch IS NULL;
CREATE INDEX line_carried ON line (job, owner_epoch) WHERE owner_epoch IS NOT NULL;
CREATE INDEX line_failed ON line (job, error_code) WHERE state IN ('failed', 'cancelled');
