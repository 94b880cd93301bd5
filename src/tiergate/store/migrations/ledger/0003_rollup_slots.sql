-- Sums are kept by quarters of an hour: every time zone's days begin at one. They were kept by hours, where
-- nothing was written yet.
DROP TABLE rollup;

-- Derived from calls and attempts, slot by slot; outlives them. '' stands for "none" in the key's columns.
CREATE TABLE rollup (
    slot_ns        INTEGER NOT NULL,            -- when the quarter of an hour began
    key            TEXT    NOT NULL,
    team           TEXT    NOT NULL,
    tag            TEXT    NOT NULL,
    asked_model    TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    target         TEXT    NOT NULL,
    tier           TEXT    NOT NULL,
    calls          INTEGER NOT NULL,
    succeeded      INTEGER NOT NULL,
    attempts       INTEGER NOT NULL,
    unpriced       INTEGER NOT NULL,            -- attempts whose cash is unknown
    input          INTEGER NOT NULL,
    cache_read     INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    output         INTEGER NOT NULL,
    reasoning      INTEGER NOT NULL,
    audio_in       INTEGER NOT NULL,
    audio_out      INTEGER NOT NULL,
    images         INTEGER NOT NULL,
    cash_nanos     INTEGER NOT NULL,            -- lapsed holds with their bound
    lapsed_nanos   INTEGER NOT NULL,            -- the part of it that nobody has settled
    bounded_nanos  INTEGER NOT NULL,            -- the part of it that nobody reported
    gpu_ms         INTEGER NOT NULL,
    avoided_input  INTEGER NOT NULL DEFAULT 0,
    avoided_output INTEGER NOT NULL DEFAULT 0,
    avoided_nanos  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (slot_ns, key, team, tag, asked_model, class, target, tier)
) STRICT, WITHOUT ROWID;

-- How far the sums have come: slots before `before_ns` are in `rollup`, unless they are in `stale_slot`; of calls
-- before `calls_from_ns` only the sums are kept.
CREATE TABLE rolled (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    before_ns     INTEGER NOT NULL,
    calls_from_ns INTEGER NOT NULL
) STRICT;

INSERT INTO rolled VALUES (1, 0, 0);

-- Slots with a record that came after they were added up; calls count until they are added up again.
CREATE TABLE stale_slot (slot_ns INTEGER PRIMARY KEY) STRICT;
