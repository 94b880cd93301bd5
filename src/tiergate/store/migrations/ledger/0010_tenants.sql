-- What hashes of a tenant's questions are keyed with, beside the house's secret. Without it nobody can tell any more what
-- was asked: deleting a row unlinks them for good.
CREATE TABLE tenant (
    name      TEXT    NOT NULL PRIMARY KEY,     -- team:NAME, or key:NAME of a key without a team
    salt      BLOB    NOT NULL,
    salted_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
