-- The ledger: who called, what was tried, what was held and what it cost.
--
-- Times are nanoseconds since 1970 (_ns), amounts nano-dollars (_nanos). No text of a prompt or an answer,
-- no key and no credential is in these tables; `receipt.reply` is the one exception, for 24 hours.
--
-- `room`: a row that will be completed later is born at its full size. `room` holds as many zero bytes as
-- the later columns can need and becomes NULL when they are written, so that the row never grows and
-- settling works on a disk that is full.
--
-- `call` and `attempt` keep their rowid: without it rows lie in the inner nodes of the tree too, where replacing
-- one can split a page, and the room would be no promise.
--
-- CHECKs compare with `=` and OR: the IN operator builds a table of its words for every row, which was
-- measured to cost as much CPU as the whole rest of writing a call.

CREATE TABLE owner (
    epoch        INTEGER PRIMARY KEY CHECK (epoch > 0),
    id           TEXT    NOT NULL UNIQUE,
    pid          INTEGER NOT NULL,
    started_ns   INTEGER NOT NULL,
    heartbeat_ns INTEGER NOT NULL,
    ended_ns     INTEGER,
    state        TEXT    NOT NULL DEFAULT 'alive'
                 CHECK (state = 'alive' OR state = 'left' OR state = 'dead')
) STRICT;

CREATE TABLE call (
    id             TEXT    NOT NULL PRIMARY KEY,
    parent         TEXT,                        -- the call whose side work this is
    cause          TEXT    NOT NULL,
    key            TEXT    NOT NULL,            -- the key's name
    team           TEXT,
    tenant         TEXT    NOT NULL,
    tag            TEXT,
    endpoint       TEXT    NOT NULL,
    asked_model    TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    data_class     TEXT    NOT NULL,
    streamed       INTEGER NOT NULL,
    generation     INTEGER NOT NULL,            -- of the settings
    received_ns    INTEGER NOT NULL,
    deadline_ns    INTEGER NOT NULL,
    prompt_bytes   INTEGER NOT NULL,
    route          TEXT    NOT NULL,            -- targets and reasons, JSON
    owner_epoch    INTEGER NOT NULL,
    receipt_id     INTEGER,
    job_id         TEXT,
    line_n         INTEGER,
    request_hash   BLOB,                        -- keyed
    prefix_hashes  BLOB CHECK (length(prefix_hashes) <= 64),   -- keyed, at most 8 of 8 bytes
    cache_outcome  TEXT,
    cache_reason   TEXT,
    avoided_input  INTEGER,                     -- tokens that a stored or shared answer saved
    avoided_output INTEGER,
    avoided_nanos  INTEGER,
    -- written when it ends:
    first_event_ns INTEGER,
    last_event_ns  INTEGER,
    finish_reasons TEXT,                        -- words with commas between
    error_code     TEXT,
    end_state      TEXT,                        -- NULL while it is in flight
    room           BLOB,
    CHECK (cause = 'client' OR cause = 'batch' OR cause = 'replay' OR cause = 'shadow'
           OR cause = 'refresh' OR cause = 'embed' OR cause = 'probe'),
    CHECK (class = 'interactive' OR class = 'batch'),
    CHECK (data_class = 'any' OR data_class = 'private-only'),
    CHECK (streamed = 0 OR streamed = 1),
    CHECK (prompt_bytes >= 0),
    CHECK (end_state = 'success' OR end_state = 'failed' OR end_state = 'interrupted'
           OR end_state = 'client_closed' OR end_state = 'lapsed')
) STRICT;

CREATE INDEX call_open ON call (owner_epoch) WHERE end_state IS NULL;

-- An attempt and its hold: they are one to one, and one row costs half of two.
CREATE TABLE attempt (
    call_id             TEXT    NOT NULL,
    n                   INTEGER NOT NULL CHECK (n > 0),
    provider            TEXT    NOT NULL,
    model               TEXT    NOT NULL,
    tier                TEXT    NOT NULL,
    credential_id       TEXT,
    queued_ns           INTEGER NOT NULL,
    permit_ns           INTEGER NOT NULL,
    in_flight           INTEGER NOT NULL,
    predicted_wait_ms   INTEGER,
    predicted_finish_ms INTEGER,
    price_id            TEXT,                   -- the price record of every bucket that price_ids leaves out
    price_ids           TEXT,                   -- {bucket: price record}, JSON
    -- the hold:
    owner_epoch         INTEGER NOT NULL,
    ceilings            TEXT,                   -- those that it counts against, JSON
    bound_nanos         INTEGER CHECK (bound_nanos >= 0),      -- NULL: cannot be bounded
    hold_state          TEXT    NOT NULL DEFAULT 'held',
    -- written when it settles:
    replica             TEXT,
    sent_ns             INTEGER,
    first_ns            INTEGER,
    last_ns             INTEGER,
    outcome             TEXT,
    blame               TEXT,
    error_code          TEXT,
    status              INTEGER,
    input               INTEGER NOT NULL DEFAULT 0,
    cache_read          INTEGER NOT NULL DEFAULT 0,
    cache_write_5m      INTEGER NOT NULL DEFAULT 0,
    cache_write_1h      INTEGER NOT NULL DEFAULT 0,
    output              INTEGER NOT NULL DEFAULT 0,
    reasoning           INTEGER NOT NULL DEFAULT 0,
    audio_in            INTEGER NOT NULL DEFAULT 0,
    audio_out           INTEGER NOT NULL DEFAULT 0,
    images              INTEGER NOT NULL DEFAULT 0,
    usage_source        TEXT    NOT NULL DEFAULT 'none',
    cash_nanos          INTEGER CHECK (cash_nanos >= 0),       -- NULL: the price is unknown
    upstream_cost_nanos INTEGER CHECK (upstream_cost_nanos >= 0),
    upstream_request_id TEXT,
    service_tier        TEXT,
    gpu_ms              INTEGER CHECK (gpu_ms >= 0),
    room                BLOB,
    PRIMARY KEY (call_id, n),
    CHECK (tier = 'private' OR tier = 'hosted' OR tier = 'cache'),
    CHECK (hold_state = 'held' OR hold_state = 'settled' OR hold_state = 'released'
           OR hold_state = 'lapsed'),
    CHECK (outcome = 'success' OR outcome = 'ignore' OR outcome = 'dropped'),
    CHECK (blame = 'provider' OR blame = 'caller' OR blame = 'us'),
    CHECK (usage_source = 'reported' OR usage_source = 'none' OR usage_source = 'bounded'
           OR usage_source = 'estimated'),
    -- A sum of bits is negative exactly when one of its terms is: nine checks for the price of one.
    CHECK ((input | cache_read | cache_write_5m | cache_write_1h | output | reasoning
            | audio_in | audio_out | images) >= 0)
) STRICT;

CREATE INDEX attempt_held ON attempt (owner_epoch) WHERE hold_state = 'held';

-- A settled attempt is never repriced: what was learned later stands beside it.
CREATE TABLE adjustment (
    id          INTEGER PRIMARY KEY,
    call_id     TEXT    NOT NULL,
    n           INTEGER NOT NULL,
    delta_nanos INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    owner_epoch INTEGER NOT NULL,
    written_ns  INTEGER NOT NULL
) STRICT;

CREATE INDEX adjustment_of ON adjustment (call_id, n);

CREATE TRIGGER adjustment_stands BEFORE UPDATE ON adjustment
BEGIN SELECT RAISE(ABORT, 'an adjustment is never changed'); END;

CREATE TRIGGER adjustment_stays BEFORE DELETE ON adjustment
BEGIN SELECT RAISE(ABORT, 'an adjustment is never deleted'); END;

-- What an Idempotency-Key stands for; `reply` is text at rest and goes with its row, 24 hours after `created_ns`.
CREATE TABLE receipt (
    id               INTEGER PRIMARY KEY,
    tenant           TEXT    NOT NULL,
    key              TEXT    NOT NULL,
    endpoint         TEXT    NOT NULL,
    idempotency_hash BLOB    NOT NULL,          -- keyed hash of the header
    fingerprint      BLOB    NOT NULL,          -- of the canonical body
    call_id          TEXT    NOT NULL,
    owner_epoch      INTEGER NOT NULL,
    state            TEXT    NOT NULL DEFAULT 'running'
                     CHECK (state = 'running' OR state = 'done' OR state = 'freed' OR state = 'unknown'),
    created_ns       INTEGER NOT NULL,
    ended_ns         INTEGER,
    status           INTEGER,
    reply            BLOB CHECK (length(reply) <= 1048576),
    UNIQUE (key, endpoint, idempotency_hash)
) STRICT;

CREATE INDEX receipt_age ON receipt (created_ns);

-- A part of a ceiling, lent to an owner who places holds inside it.
CREATE TABLE slice (
    id           TEXT    NOT NULL PRIMARY KEY,
    ceiling      TEXT    NOT NULL,
    window_ns    INTEGER NOT NULL,              -- when the ceiling's window began
    owner_epoch  INTEGER NOT NULL,
    amount_nanos INTEGER NOT NULL CHECK (amount_nanos >= 0),
    spent_nanos  INTEGER NOT NULL DEFAULT 0 CHECK (spent_nanos >= 0),
    state        TEXT    NOT NULL DEFAULT 'drawn'
                 CHECK (state = 'drawn' OR state = 'returned' OR state = 'lapsed'),
    drawn_ns     INTEGER NOT NULL,
    ended_ns     INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX slice_drawn ON slice (ceiling, window_ns) WHERE state = 'drawn';

-- Derived from calls and attempts, hour by hour; outlives them. '' stands for "none" in the key's columns.
CREATE TABLE rollup (
    hour_ns        INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    team           TEXT    NOT NULL,
    tag            TEXT    NOT NULL,
    asked_model    TEXT    NOT NULL,
    target         TEXT    NOT NULL,
    tier           TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    calls          INTEGER NOT NULL DEFAULT 0 CHECK (calls >= 0),
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    succeeded      INTEGER NOT NULL DEFAULT 0 CHECK (succeeded >= 0),
    unpriced       INTEGER NOT NULL DEFAULT 0 CHECK (unpriced >= 0),   -- attempts whose cash is unknown
    lapsed         INTEGER NOT NULL DEFAULT 0 CHECK (lapsed >= 0),
    input          INTEGER NOT NULL DEFAULT 0,
    cache_read     INTEGER NOT NULL DEFAULT 0,
    cache_write_5m INTEGER NOT NULL DEFAULT 0,
    cache_write_1h INTEGER NOT NULL DEFAULT 0,
    output         INTEGER NOT NULL DEFAULT 0,
    reasoning      INTEGER NOT NULL DEFAULT 0,
    audio_in       INTEGER NOT NULL DEFAULT 0,
    audio_out      INTEGER NOT NULL DEFAULT 0,
    images         INTEGER NOT NULL DEFAULT 0,
    avoided_input  INTEGER NOT NULL DEFAULT 0,
    avoided_output INTEGER NOT NULL DEFAULT 0,
    cash_nanos     INTEGER NOT NULL DEFAULT 0,
    avoided_nanos  INTEGER NOT NULL DEFAULT 0,
    gpu_ms         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour_ns, key, team, tag, asked_model, target, tier, class)
) STRICT, WITHOUT ROWID;
