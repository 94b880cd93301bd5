-- Kept answers: text at rest, each until `expires_ns` (nanoseconds since 1970). The file may be deleted at any time.
CREATE TABLE answer (
    key        BLOB    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    entry      TEXT    NOT NULL,                -- the model, as the settings know it
    expires_ns INTEGER NOT NULL,
    value      BLOB    NOT NULL
) STRICT;

CREATE INDEX answer_tenant ON answer (tenant, entry);
CREATE INDEX answer_entry ON answer (entry);
CREATE INDEX answer_age ON answer (expires_ns);
