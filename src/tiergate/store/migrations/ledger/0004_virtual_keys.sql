-- Keys that were made here. The key itself is shown once and kept nowhere: `digest` is its HMAC under a key derived
-- from the house's secret. A name is never given to another key, so that what it has cost stays its own.
CREATE TABLE virtual_key (
    name         TEXT    NOT NULL PRIMARY KEY,
    digest       BLOB    NOT NULL UNIQUE,
    hint         TEXT    NOT NULL,               -- how it begins and ends, to tell it by
    team         TEXT,
    models       TEXT,                           -- names that it may ask for, JSON; NULL: every one
    tiers        TEXT,                           -- tiers that may answer it, JSON; NULL: every one
    data_class   TEXT    NOT NULL DEFAULT 'any' CHECK (data_class = 'any' OR data_class = 'private-only'),
    budget       TEXT,                           -- its own ceiling, JSON
    metadata     TEXT    NOT NULL DEFAULT '{}',  -- JSON
    created_ns   INTEGER NOT NULL,
    expires_ns   INTEGER,
    revoked_ns   INTEGER,
    old_digest   BLOB    UNIQUE,                 -- of the key before the last rotation,
    old_until_ns INTEGER                         -- and how long it is still good
) STRICT;
