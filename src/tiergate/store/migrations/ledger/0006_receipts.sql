-- Receipts get room for their end. Nothing was written here yet.
DROP TABLE receipt;

-- What an Idempotency-Key stands for; `reply` is text at rest and goes with its row, 24 hours after `created_ns`.
-- `room`: for the end; the reply has none, and is left out where the disk is full.
CREATE TABLE receipt (
    id               INTEGER PRIMARY KEY,
    key              TEXT    NOT NULL,
    endpoint         TEXT    NOT NULL,
    idempotency_hash BLOB    NOT NULL,          -- keyed hash of the header
    tenant           TEXT    NOT NULL,
    fingerprint      BLOB    NOT NULL,          -- keyed hash of the question
    call_id          TEXT    NOT NULL,          -- the call that pays for the answer
    owner_epoch      INTEGER NOT NULL,
    created_ns       INTEGER NOT NULL,
    state            TEXT    NOT NULL DEFAULT 'running'
                     CHECK (state = 'running' OR state = 'done' OR state = 'freed' OR state = 'unknown'),
    ended_ns         INTEGER,
    reply            BLOB CHECK (length(reply) <= 1048576),
    room             BLOB,
    UNIQUE (key, endpoint, idempotency_hash)
) STRICT;

CREATE INDEX receipt_age ON receipt (created_ns);
CREATE INDEX receipt_of ON receipt (call_id);

-- What a call's Idempotency-Key came to (new, resent, joined, replayed), and of which other call.
ALTER TABLE call ADD COLUMN receipt TEXT;
ALTER TABLE call ADD COLUMN receipt_of TEXT;
